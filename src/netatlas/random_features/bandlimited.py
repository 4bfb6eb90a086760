r"""Shallow networks with hidden weights frozen at random in a bounded range, and the spectrum that limits them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda z: torch.exp(-z.square() / 2),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
}


class HiddenWeights(NamedTuple):
    """Slopes ``[..., n, d]``, offsets ``[..., n]`` and the volume of the domain they stand for."""

    slopes: Float[Tensor, "*draws n d"]
    offsets: Float[Tensor, "*draws n"]
    volume: float


class ReadOut(NamedTuple):
    """Output weights, and the L2 norm of the density over the hidden weights' domain that they stand for."""

    weights: Float[Tensor, "*draws n"]
    density_norm: Float[Tensor, "*draws"]


def bandlimited_weights(
    n: int,
    dim: int,
    band: float,
    *,
    generator: torch.Generator,
    draws: tuple[int, ...] = (),
    law: str = "uniform",
    dtype: torch.dtype = torch.float64,
) -> HiddenWeights:
    r"""Frozen hidden weights: uniform on a box, or of the same scale without a bound.

    .. math:: (a_j, b_j) \sim \mathcal U\bigl([-\lambda, \lambda]^{d + 1}\bigr)

    Args:
        n: Hidden units.
        dim: Inputs.
        band: Half-width :math:`\lambda` of the box.
        generator: Draws the weights.
        draws: Leading axes of independent networks.
        law: ``"uniform"``; ``"gaussian"`` of the same standard deviation :math:`\lambda/\sqrt 3`; ``"cauchy"`` of
            that half-width at half maximum.
        dtype: Type of the weights.

    Returns:
        The weights; the volume of an unbounded law's domain is taken as the box's, so that penalties compare.

    Raises:
        ValueError: For no units or inputs, a band that is not positive, or an unknown law.

    Source:
        li2020bandlimited (bandlimited random weights).
    """
    require(n >= 1 and dim >= 1, "at least one unit and one input", (n, dim))
    require(band > 0 and math.isfinite(band), "a positive, finite band", band)
    require(law in ("uniform", "gaussian", "cauchy"), "a law out of uniform, gaussian, cauchy", repr(law))
    shape, options = (*draws, n, dim + 1), {"generator": generator, "dtype": dtype, "device": generator.device}
    if law == "uniform":
        values = band * (2 * torch.rand(shape, **options) - 1)
    elif law == "gaussian":
        values = band / math.sqrt(3) * torch.randn(shape, **options)
    else:
        values = band / math.sqrt(3) * torch.tan(math.pi * (torch.rand(shape, **options) - 0.5))
    return HiddenWeights(values[..., :-1], values[..., -1], (2 * band) ** (dim + 1))


def hidden_features(
    inputs: Float[Tensor, "N d"], weights: HiddenWeights, activation: str = "gaussian"
) -> Float[Tensor, "*draws N n"]:
    r"""Hidden activations :math:`\sigma(a_j \cdot x - b_j)`.

    Args:
        inputs: N points.
        weights: From :func:`bandlimited_weights`.
        activation: ``"gaussian"`` (:math:`e^{-z^2/2}`), ``"tanh"``, ``"sigmoid"`` or ``"relu"``.

    Raises:
        ValueError: For inputs of another dimension, values that are not finite, or an unknown activation.

    Source:
        li2020bandlimited (networks of depth two).
    """
    require(activation in ACTIVATIONS, f"an activation out of {sorted(ACTIVATIONS)}", repr(activation))
    require(
        inputs.ndim == 2 and inputs.shape[1] == weights.slopes.shape[-1],
        f"inputs [N, {weights.slopes.shape[-1]}]",
        tuple(inputs.shape),
    )
    require_finite("inputs", inputs)
    z = inputs @ weights.slopes.mT
    if z.requires_grad or weights.offsets.requires_grad:
        return ACTIVATIONS[activation](z - weights.offsets[..., None, :])
    # Large tables are memory-bound, so no copies where no gradient is kept.
    z = z.sub_(weights.offsets[..., None, :])
    return z.square_().mul_(-0.5).exp_() if activation == "gaussian" else ACTIVATIONS[activation](z)


def read_out(
    features: Float[Tensor, "*draws N n"],
    targets: Float[Tensor, " N"],
    ridge: float,
    *,
    volume: float = 1.0,
    per_unit: float | None = 50.0,
    rcond: float = 1e-13,
) -> ReadOut:
    r"""Output weights by least squares, with a penalty on the *density* they stand for.

    .. math::

        \min_c \frac1N \lVert f - H c \rVert^2 + \delta\,\frac{n}{n_0} \lVert c \rVert^2, \qquad
        c_j = c(a_j, b_j)\,\frac{|V|}{n}, \quad \int_V c^2 = \frac{n}{|V|} \sum_j c_j^2

    A penalty that does not grow with :math:`n` lets the density grow, and any floor creeps down.

    Args:
        features: Hidden activations :math:`H`.
        targets: Values of the function.
        ridge: :math:`\delta`; 0 is least squares of least norm with singular values below ``rcond`` of the largest
            left out.
        volume: :math:`|V|`, for the norm that is reported.
        per_unit: :math:`n_0`; None leaves the penalty at :math:`\delta` for every :math:`n`.
        rcond: For ``ridge = 0``.

    Returns:
        Output weights and the density's norm.

    Raises:
        ValueError: For a negative ridge or lengths that differ.

    Source:
        li2020bandlimited (only the output layer is trained); the scaling of the penalty is this package's reading of
        a bounded density.
    """
    require(ridge >= 0, "a ridge of at least 0", ridge)
    require(features.shape[-2] == targets.shape[-1], f"{features.shape[-2]} targets", tuple(targets.shape))
    require_finite("targets", targets)
    points, units = features.shape[-2:]
    y = targets.expand(features.shape[:-1])[..., None]
    if ridge == 0:
        solution = torch.linalg.pinv(features, rtol=rcond) @ y
    else:
        delta = points * ridge * (units / per_unit if per_unit else 1.0)
        small = units <= points
        gram = features.mT @ features if small else features @ features.mT
        regular = gram + delta * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        right = features.mT @ y if small else y
        solution = torch.linalg.solve(regular, right)
        solution = solution if small else features.mT @ solution
    weights = solution[..., 0]
    return ReadOut(weights, (units / volume) ** 0.5 * weights.norm(dim=-1))


def ridgelet_transform_1d(
    values: Float[Tensor, " X"],
    points: Float[Tensor, " X"],
    slopes: Float[Tensor, " A"],
    offsets: Float[Tensor, " B"],
) -> Float[Tensor, "A B"]:
    r"""Ridgelet transform on the line, by quadrature, with the second derivative of a Gaussian as analysing function.

    .. math::

        R f(a, b) = \int f(x)\, \rho(a x - b)\, dx,
        \qquad \rho(z) = (z^2 - 1)\, e^{-z^2/2}, \quad |\hat\rho(\xi)|^2 = 2\pi\, \xi^4 e^{-\xi^2}

    Args:
        values: The function on an even grid.
        points: The grid.
        slopes: Slopes :math:`a`.
        offsets: Offsets :math:`b`.

    Raises:
        ValueError: For lengths that differ, or a grid that is not even.

    Source:
        li2020bandlimited (ridgelet transform).
    """
    require(values.shape == points.shape and points.ndim == 1, "a value a grid point", (values.shape, points.shape))
    step = points.diff()
    if points.device.type != "meta":
        require(bool(((step - step[0]).abs() < 1e-6 * step[0].abs()).all()), "an even grid", "uneven steps")
    z = slopes[:, None, None] * points - offsets[:, None]
    square = z.square_()
    bell = (square * -0.5).exp_()
    return square.sub_(1).mul_(bell) @ values * step[0]


class Leakage(NamedTuple):
    """Share of the ridgelet energy outside the box, and outside its range of slopes alone (by Parseval)."""

    total: float
    slopes: float


def spectrum_leakage(
    function: Callable[[Tensor], Tensor], band: float, *, reach: float = 6.0, widest: float = 400.0, grid: int = 400
) -> Leakage:
    r"""Share of a function's ridgelet energy that lies outside the box :math:`[-\lambda, \lambda]^2`.

    .. math::

        T(\lambda) = \frac{\int_{|a| > \lambda \text{ or } |b| > \lambda} |R f|^2}{\int |R f|^2}, \qquad
        \int |R f(a, b)|^2\, db = \frac{1}{2\pi} \int |\hat f(a\xi)|^2\, |\hat\rho(\xi)|^2\, d\xi

    Args:
        function: A function on the line that vanishes outside ``[-reach, reach]``.
        band: Half-width :math:`\lambda`.
        reach: Where the function has died out.
        widest: Largest slope of the quadrature.
        grid: Slopes inside the box, and again outside.

    Returns:
        Both shares, between 0 and 1.

    Raises:
        ValueError: For a band that is not positive or not below ``widest``.

    Source:
        li2020bandlimited (the spectrum outside the domain bounds the error from below).
    """
    require(0 < band < widest, f"a band in (0, {widest})", band)
    x = torch.linspace(-reach, reach, 4096, dtype=torch.float64)
    f = function(x)
    step = float(x[1] - x[0])
    power = (torch.fft.rfft(f).abs() * step) ** 2
    frequency = 2 * math.pi * torch.fft.rfftfreq(len(x), step, dtype=torch.float64)
    spacing = float(frequency[1])
    # A band of frequencies holds all of the power but rounding.
    held = power > 1e-20 * power.max()
    power, frequency = power[held], frequency[held]

    # By the substitution w = a xi the integral over b is an integral over the function's own frequencies.
    def energy(a: Tensor) -> Tensor:
        ratio = frequency[None] / a[:, None]
        return (power * ratio**4 * torch.exp(-ratio.square())).sum(1) * 2 * spacing / a

    inner = torch.linspace(0, band, grid + 1, dtype=torch.float64)
    inner = (inner[1:] + inner[:-1]) / 2
    edges = torch.logspace(math.log10(band), math.log10(widest), grid + 1, dtype=torch.float64)
    outer, widths = (edges[1:] + edges[:-1]) / 2, edges.diff()
    inside, outside = float(energy(inner).sum() * band / grid), float((energy(outer) * widths).sum())
    total = inside + outside
    coarse = torch.linspace(-reach, reach, 512, dtype=torch.float64)
    b = torch.linspace(-band, band, 161, dtype=torch.float64)
    slopes = inner[grid // 80 :: max(1, grid // 40)]
    energy_inside = ridgelet_transform_1d(function(coarse), coarse, slopes, b).square()
    boxed = float(torch.trapezoid(energy_inside, b, dim=1).mean() * band)
    return Leakage(min(max(1 - boxed / total, 0.0), 1.0), outside / total)
