r"""Random feature maps of kernels, and maps that take inputs and parameters apart (scalable neural network kernels).

A unit :math:`f(w \cdot x + b)` is a kernel between an input and a parameter vector. Written as a dot product
:math:`\Phi(x) \cdot \Psi(w, b)`, it lets layers be merged and solved in closed form.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from netatlas.core import kernel_ridge
from netatlas.core.checks import require, require_finite, require_same_device


def gaussian_directions(
    m: int,
    dim: int,
    *,
    generator: torch.Generator,
    orthogonal: bool = False,
    draws: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "*draws m d"]:
    r"""Directions :math:`g_j \sim \mathcal N(0, I_d)`, independent or orthogonal in blocks of :math:`d`.

    In a block the rows are orthogonal and their norms are drawn anew from :math:`\chi(d)`, so that each row alone is
    Gaussian.

    Args:
        m: Number of directions.
        dim: Dimension :math:`d`.
        generator: Draws them.
        orthogonal: Whether rows of a block are orthogonal.
        draws: Leading axes of independent sets.
        dtype: Type.

    Raises:
        ValueError: For sizes below 1.

    Source:
        sehanobish2023snnk (universal random features).
    """
    require(m >= 1 and dim >= 1, "at least one direction and one dimension", (m, dim))
    options = {"generator": generator, "dtype": dtype, "device": generator.device}
    if not orthogonal:
        return torch.randn((*draws, m, dim), **options)
    blocks = -(-m // dim)
    q, r = torch.linalg.qr(torch.randn((*draws, blocks, dim, dim), **options))
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    norms = torch.randn((*draws, blocks, dim, dim), **options).norm(dim=-1)
    return (q.mT * norms[..., None]).reshape(*draws, blocks * dim, dim)[..., :m, :]


def fourier_features(
    inputs: Float[Tensor, "N d"],
    directions: Float[Tensor, "m d"],
    scale: float = 1.0,
    *,
    phases: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "N k"]:
    r"""Random Fourier features of the Gaussian kernel :math:`e^{-|x - y|^2 / 2 \ell^2}`.

    .. math:: \phi(x) = m^{-1/2} \bigl[\cos(g_j \cdot x / \ell),\ \sin(g_j \cdot x / \ell)\bigr]_j

    Args:
        inputs: N points.
        directions: Standard Gaussian directions.
        scale: Length scale :math:`\ell`.
        phases: Uniform on :math:`[0, 2\pi)`: the m independent features
            :math:`\sqrt{2/m}\cos(g_j \cdot x/\ell + b_j)` in place of m pairs.

    Raises:
        ValueError: For dimensions that differ, values that are not finite, or a scale that is not positive.

    Source:
        sehanobish2023snnk (random Fourier features of Rahimi and Recht).
    """
    _check(inputs, directions)
    require(scale > 0, "a positive length scale", scale)
    rotated = directions.mT / scale
    if phases is not None:
        require(phases.shape == directions.shape[:1], f"{len(directions)} phases", tuple(phases.shape))
        z = torch.addmm(phases.to(inputs), inputs, rotated)
        height = (2 / len(directions)) ** 0.5
        return height * z.cos() if z.requires_grad else z.cos_().mul_(height)
    z = inputs @ rotated
    return torch.cat([z.cos(), z.sin()], -1) / len(directions) ** 0.5


def arc_cosine_features(inputs: Float[Tensor, "*N d"], directions: Float[Tensor, "m d"]) -> Float[Tensor, "*N m"]:
    r"""ReLU random features, whose kernel is the arc-cosine kernel of order one.

    .. math::

        \phi(x) = m^{-1/2} \operatorname{relu}(G x), \qquad
        \mathbb E\,\phi(x) \cdot \phi(y) = \frac{|x||y|}{2\pi} \bigl(\sin\theta + (\pi - \theta) \cos\theta\bigr)

    Args:
        inputs: N points.
        directions: Standard Gaussian directions :math:`G`.

    Raises:
        ValueError: For dimensions that differ or values that are not finite.

    Source:
        sehanobish2023snnk (the ReLU variant).
    """
    _check(inputs, directions)
    return torch.relu(inputs @ directions.mT) / directions.shape[-2] ** 0.5


def positive_features(inputs: Float[Tensor, "*N d"], directions: Float[Tensor, "m d"]) -> Float[Tensor, "*N m"]:
    r"""Positive random features of the softmax kernel :math:`e^{x \cdot y}`.

    .. math:: \phi(x) = m^{-1/2} e^{G x - |x|^2/2}

    Args:
        inputs: N points.
        directions: Standard Gaussian directions :math:`G`.

    Raises:
        ValueError: For dimensions that differ or values that are not finite.

    Source:
        sehanobish2023snnk (positive random features).
    """
    _check(inputs, directions)
    return torch.exp(inputs @ directions.mT - inputs.square().sum(-1, keepdim=True) / 2) / directions.shape[-2] ** 0.5


def _check(inputs: Tensor, directions: Tensor) -> None:
    require(inputs.is_floating_point(), "inputs of floating-point numbers", inputs.dtype)
    require(
        inputs.shape[-1] == directions.shape[-1], f"inputs of dimension {directions.shape[-1]}", tuple(inputs.shape)
    )
    require(inputs.dtype == directions.dtype, f"inputs of the directions' type {directions.dtype}", inputs.dtype)
    require_same_device([("inputs", inputs), ("directions", directions)])
    require_finite("inputs", inputs)


class Frequencies(NamedTuple):
    """Frequencies ``t`` and complex weights ``c``, ``[..., m]``: :math:`f(z) = \\mathrm{Re}\\,E[c\\,e^{itz}]`."""

    values: Float[Tensor, "*draws m"]
    weights: Complex[Tensor, "*draws m"]


def activation_frequencies(
    activation: str, m: int, *, generator: torch.Generator, draws: tuple[int, ...] = ()
) -> Frequencies:
    r"""Sampled Fourier representation of an activation, :math:`f(z) = \operatorname{Re}\,\mathbb E[c\, e^{i t z}]`.

    Sine and cosine have one frequency, :math:`t = 1` with :math:`c = -i` and :math:`c = 1`. For :math:`e^{-z^2/2}`,
    :math:`t \sim \mathcal N(0, 1)` is the
    density proportional to its transform, and :math:`c = 1`. A ReLU has no integrable transform.

    Args:
        activation: ``"sin"``, ``"cos"`` or ``"gaussian"``.
        m: Number of features.
        generator: Draws the frequencies.
        draws: Leading axes.

    Raises:
        ValueError: For another activation.

    Source:
        sehanobish2023snnk (universal random features).
    """
    known = ("sin", "cos", "gaussian")
    require(activation in known, f"an activation with an integrable transform, out of {known}", repr(activation))
    shape, device = (*draws, m), generator.device
    if activation == "gaussian":
        values = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
    else:
        values = torch.ones(shape, dtype=torch.float64, device=device)
    factor = -1j if activation == "sin" else 1.0
    return Frequencies(values, torch.full(shape, factor, dtype=torch.complex128, device=device))


def _exponential(points: Tensor, factors: Tensor, directions: Tensor, spread: float) -> Tensor:
    """The common form of both maps, ``[..., N, m]``; the square of the factor is bilinear, not a modulus."""
    projected = points @ directions.mT
    norm = points.square().sum(-1, keepdim=True)
    exponent = math.sqrt(1 + 4 * spread) * factors[..., None, :] * projected - factors.square()[..., None, :] * norm / 2
    if spread:
        exponent = exponent - spread * directions.square().sum(-1)[..., None, :]
    scale = (1 + 4 * spread) ** (points.shape[-1] / 4) / directions.shape[-2] ** 0.5
    return torch.exp(exponent) * scale


def universal_input_features(
    inputs: Float[Tensor, "N d"],
    frequencies: Frequencies,
    directions: Float[Tensor, "*draws m d"],
    *,
    symmetric: bool = True,
    spread: float = 0.0,
) -> Complex[Tensor, "*draws N m"]:
    r"""The inputs' half of universal random features.

    .. math::

        \Phi(x)_j = \frac{(1 + 4M)^{d/4}}{\sqrt m} \exp\Bigl(\sqrt{1 + 4M}\, a_j\, g_j \cdot x - M |g_j|^2 - \tfrac12
        a_j^2 |x|^2\Bigr), \qquad a_j b_j = i t_j

    Symmetric: :math:`a_j = b_j = \sqrt{i t_j}`; otherwise :math:`a_j = i t_j`, :math:`b_j = 1`, whose variance is
    infinite for the Gaussian once
    :math:`|x|^2 \ge 1/2`.

    Args:
        inputs: N points.
        frequencies: From :func:`activation_frequencies`.
        directions: Gaussian directions, shared with :func:`universal_parameter_features`.
        symmetric: How the factor :math:`i t_j` is shared out.
        spread: The parameter :math:`M \ge 0`; 0 is the plain form.

    Raises:
        ValueError: For dimensions that differ, values that are not finite, or a negative spread.

    Source:
        sehanobish2023snnk (universal random features).
    """
    _check(inputs, directions)
    require(spread >= 0, "a spread of at least 0", spread)
    product = 1j * frequencies.values
    return _exponential(inputs, product.sqrt() if symmetric else product, directions, spread)


def universal_parameter_features(
    weights: Float[Tensor, "L d"],
    frequencies: Frequencies,
    directions: Float[Tensor, "*draws m d"],
    *,
    bias: Float[Tensor, " L"] | None = None,
    symmetric: bool = True,
    spread: float = 0.0,
) -> Complex[Tensor, "*draws L m"]:
    r"""The parameters' half: :math:`\operatorname{Re}\, \Phi(x) \cdot \Psi(w, b)` is an unbiased estimate of
    :math:`f(w \cdot x + b)`.

    .. math::

        \Psi(w, b)_j = \frac{(1 + 4M)^{d/4}}{\sqrt m}\, c_j\, e^{i t_j b} \exp\Bigl(\sqrt{1 + 4M}\, b_j\, g_j \cdot w
        - M |g_j|^2 - \tfrac12 b_j^2 |w|^2\Bigr)

    Args:
        weights: Rows :math:`w` of a layer.
        frequencies, directions, symmetric, spread: As for the inputs; the directions must be the same.
        bias: The rows' biases :math:`b`.

    Raises:
        ValueError: As :func:`universal_input_features`, or biases of another length.

    Source:
        sehanobish2023snnk (universal random features).
    """
    _check(weights, directions)
    require(spread >= 0, "a spread of at least 0", spread)
    factors = (1j * frequencies.values).sqrt() if symmetric else torch.ones_like(frequencies.weights)
    out = _exponential(weights, factors, directions, spread) * frequencies.weights[..., None, :]
    if bias is not None:
        require(bias.shape == weights.shape[:1], f"{len(weights)} biases", tuple(bias.shape))
        out = out * torch.exp(1j * frequencies.values[..., None, :] * bias[:, None])
    return out


class ReluFeatureLayer(nn.Module):
    r"""A layer with fixed ReLU features and a trainable matrix in place of :math:`\operatorname{relu}(W x)`.

    .. math::

        y = \tilde W\, m^{-1/2} \operatorname{relu}(G x),
        \qquad \tilde W \in \mathbb R^{l \times m},\ G \in \mathbb R^{m \times d} \text{ fixed}

    It has :math:`l m` trainable numbers in place of :math:`l d`. It is another layer, not an approximation: with
    :math:`\tilde W` from a linear layer's rows, the limit of
    many features is the arc-cosine kernel of input and row.

    Args:
        inputs: :math:`d`.
        outputs: :math:`l`.
        features: :math:`m`.
        generator: Draws :math:`G`.

    Raises:
        ValueError: For sizes below 1.

    Source:
        sehanobish2023snnk (layers as kernels).
    """

    def __init__(self, inputs: int, outputs: int, features: int, *, generator: torch.Generator) -> None:
        super().__init__()
        require(min(inputs, outputs, features) >= 1, "sizes of at least 1", (inputs, outputs, features))
        directions = gaussian_directions(features, inputs, generator=generator, dtype=torch.get_default_dtype())
        self.register_buffer("directions", directions)
        self.weight = nn.Parameter(torch.zeros(outputs, features))

    def forward(self, x: Float[Tensor, "*N d"]) -> Float[Tensor, "*N l"]:
        """The layer's outputs."""
        return torch.relu(x @ (self.directions.mT / self.directions.shape[0] ** 0.5)) @ self.weight.mT

    @classmethod
    def from_linear(cls, layer: nn.Linear, features: int, *, generator: torch.Generator) -> ReluFeatureLayer:
        """The layer that starts from the features of a linear layer's rows.

        Args:
            layer: The layer that is replaced; it must have no bias.
            features: Number of features.
            generator: Draws the directions.

        Raises:
            ValueError: For a layer with a bias.
        """
        require(layer.bias is None, "a linear layer without bias", "one with a bias")
        made = cls(layer.in_features, layer.out_features, features, generator=generator).to(layer.weight)
        with torch.no_grad():
            made.weight.copy_(arc_cosine_features(layer.weight, made.directions))
        return made


def bundle(parameter_features: Tensor, following: Float[Tensor, "o l"], *, real: bool = True) -> Tensor:
    r"""Merge a layer in feature form with the linear map after it:
    :math:`y = W_2 f(W_1 x) \approx \operatorname{Re}\,(W_2 \Psi)\,\Phi(x)`.

    Args:
        parameter_features: :math:`\Psi`, ``[..., l, m]``.
        following: :math:`W_2`.
        real: For complex features, return the real matrix that acts on ``[Re Phi, Im Phi]``.

    Returns:
        The merged matrix, ``[..., o, m]``, or ``[..., o, 2m]`` for complex features with ``real``.

    Raises:
        ValueError: For numbers of units that differ.

    Source:
        sehanobish2023snnk (bundling).
    """
    require(
        following.shape[-1] == parameter_features.shape[-2], f"{parameter_features.shape[-2]} columns", following.shape
    )
    if not parameter_features.is_complex():
        return following @ parameter_features
    merged = following.to(parameter_features.dtype) @ parameter_features
    return torch.cat([merged.real, -merged.imag], -1) if real else merged


def real_features(features: Tensor) -> Tensor:
    """Complex features as twice as many real ones, ``[Re, Im]``; real features as they are.

    Args:
        features: ``[..., N, m]``.

    Source:
        sehanobish2023snnk (bundling).
    """
    return torch.cat([features.real, features.imag], -1) if features.is_complex() else features


def closed_form(features: Float[Tensor, "N m"], targets: Float[Tensor, "N C"], ridge: float) -> Float[Tensor, "C m"]:
    r"""The fully bundled network: ridge regression on the features, without any gradient step.

    .. math:: B = Y^\top \Phi\, (\Phi^\top \Phi + \delta I)^{-1}

    Args:
        features: :math:`\Phi` of the training inputs.
        targets: :math:`Y`.
        ridge: :math:`\delta`.

    Raises:
        ValueError: For shapes that do not fit, or a singular system.

    Source:
        sehanobish2023snnk (closed form of the fully bundled network).
    """
    require(features.ndim == 2 and len(features) == len(targets), f"{len(features)} targets", tuple(targets.shape))
    if features.shape[0] <= features.shape[1]:
        return (features.T @ kernel_ridge.fit(features @ features.T, targets, ridge)).T
    return kernel_ridge.fit(features.T @ features, features.T @ targets, ridge).T
