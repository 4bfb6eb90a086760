r"""Exact learning of a permutation of bits by an ensemble of infinitely wide two-layer networks.

Trained on the :math:`k` unit vectors only, a wide network's outputs at any other input are Gaussian over
initialisations. The mean of a bit that
should be one is positive, of a bit that should be zero negative, and averaging models brings out the sign.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import log_ndtr
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.infinite import Dense, Erf, Layer, Relu, serial


class BitLaw(NamedTuple):
    """Mean of a one bit, mean of a zero bit, and the standard deviation of either over initialisations."""

    one: Float[Tensor, "*shape"]
    zero: Float[Tensor, "*shape"]
    deviation: Float[Tensor, "*shape"]


class TrainedLaw(NamedTuple):
    """Weights ``r [T, k]`` of the training targets, and the covariance ``[T, T]`` over initialisations, at T inputs."""

    weights: Float[Tensor, "T k"]
    covariance: Float[Tensor, "T T"]


def two_layer(width: int, outputs: int, activation: str = "relu") -> Layer:
    r"""The network :math:`f(x) = n^{-1/2}\, V \phi(k^{-1/2}\, W x)` without biases, finite and infinite.

    Args:
        width: Hidden units :math:`n`.
        outputs: Output bits.
        activation: ``"relu"`` or ``"erf"``.

    Raises:
        ValueError: For an unknown activation.

    Source:
        giapitzakis2025permutations (binary inputs of unit length).
    """
    require(activation in ("relu", "erf"), "an activation out of relu, erf", repr(activation))
    return serial(Dense(width), Relu() if activation == "relu" else Erf(), Dense(outputs))


def bit_law(bits: Float[Tensor, " *shape"], ones: Float[Tensor, " *shape"], *, regime: str = "ntk") -> BitLaw:
    r"""Mean and deviation of the trained network's outputs at an input with ``ones`` ones, in closed form.

    With :math:`u = 1/2\pi`, :math:`\cos\theta = 1/\sqrt m`,
    :math:`K_\theta = u\,[\sin\theta + (\pi - \theta)\cos\theta]`, and in the kernel regime
    :math:`\Theta_\theta = K_\theta + u\,(\pi - \theta)\cos\theta`, all divided by :math:`k`:

    .. math::

        g = \Theta_\theta - u, \quad b = \frac{u\,(d - m g)}{d\,(d + k u)}, \quad a = b + \frac{g}{d}, \quad
        s^2 = \frac1k\Bigl(\frac12 - 2 r \cdot c + r^\top K r\Bigr)

    where :math:`d = 1 - u` (kernel regime) or :math:`1/2 - u` (last layer alone) is the Gram matrix's diagonal less
    :math:`u`, and :math:`c` the covariance with the
    training points.

    Args:
        bits: Length :math:`k` of the input.
        ones: Number :math:`m` of ones, from 1 to k.
        regime: ``"ntk"``, all weights trained; ``"last"``, the last layer only, :math:`\Theta := K`.

    Returns:
        :math:`a`, :math:`b` and :math:`s`; at :math:`m = 1` (training points) 1, 0 and 0.

    Raises:
        ValueError: For an unknown regime or numbers of ones outside 1 to k.

    Source:
        giapitzakis2025permutations (mean and variance of the trained output).
    """
    require(regime in ("ntk", "last"), "a regime out of ntk, last", repr(regime))
    k, m = torch.broadcast_tensors(
        *(torch.as_tensor(x, dtype=torch.float64) if not isinstance(x, Tensor) else x.double() for x in (bits, ones))
    )
    if k.device.type != "meta":
        require(bool(((m >= 1) & (m <= k)).all()), "between 1 and k ones", (m.min().item(), m.max().item()))
    u = 1 / (2 * math.pi)
    cos = m.rsqrt()
    angle = torch.acos(cos)
    sin = ((1 - cos) * (1 + cos)).sqrt()
    plain = u * (sin + (math.pi - angle) * cos)
    kernel = plain + u * (math.pi - angle) * cos if regime == "ntk" else plain
    diagonal = (1.0 if regime == "ntk" else 0.5) - u
    g = kernel - u
    # diagonal - m g loses all digits at m = 1; there the training point is met exactly.
    b = torch.where(m == 1, torch.zeros_like(k), u * (diagonal - m * g) / (diagonal * (diagonal + k * u)))
    a = b + g / diagonal
    total = m * a + (k - m) * b
    squares = m * a.square() + (k - m) * b.square()
    cross = m * a * plain + (k - m) * b * u
    quadratic = (0.5 - u) * squares + u * total.square()
    variance = (0.5 - 2 * cross + quadratic) / k
    variance = torch.where(m == 1, torch.zeros_like(k), variance.clamp_min(0))
    return BitLaw(a, b, variance.sqrt())


def models_needed(bits: int, ones: int, *, confidence: float = 0.9, regime: str = "ntk") -> int:
    r"""Fewest models whose mean has every bit of one input right with the given probability.

    .. math:: \min\Bigl\{ N : \Phi\bigl(a\sqrt N/s\bigr)^m\, \Phi\bigl(-b\sqrt N/s\bigr)^{k - m} \ge 1 - \delta \Bigr\}

    Args:
        bits: :math:`k`.
        ones: :math:`m`, from 2 to k (or 1, where one model is enough).
        confidence: :math:`1 - \delta`.
        regime: As in :func:`bit_law`.

    Raises:
        ValueError: As :func:`bit_law`, or for a confidence outside (0, 1).

    Source:
        giapitzakis2025permutations (ensemble size for one input).
    """
    require(0 < confidence < 1, "a confidence in (0, 1)", confidence)
    one, zero, deviation = (
        float(x) for x in bit_law(torch.tensor(float(bits)), torch.tensor(float(ones)), regime=regime)
    )
    if deviation == 0:
        return 1

    def short(count: float) -> bool:
        root = math.sqrt(count) / deviation
        right = ones * log_ndtr(one * root) + (bits - ones) * log_ndtr(-zero * root)
        return bool(right < math.log(confidence))

    high = 1
    while short(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if short(middle) else (low, middle)
    return high


def binary_inputs(bits: int, *, fewest: int = 1) -> Float[Tensor, "T k"]:
    """All binary inputs with at least ``fewest`` ones, as float64 rows.

    Args:
        bits: Their length, at most 20.
        fewest: Least number of ones.

    Raises:
        ValueError: For a length outside 1 to 20.

    Source:
        giapitzakis2025permutations (kernels of a two-layer ReLU network).
    """
    require(1 <= bits <= 20, "between 1 and 20 bits", bits)
    codes = torch.arange(1, 2**bits)
    rows = (codes[:, None] >> torch.arange(bits)) & 1
    return rows[rows.sum(1) >= fewest].double()


def trained_law(inputs: Float[Tensor, "T k"], *, activation: str = "relu", regime: str = "ntk") -> TrainedLaw:
    r"""Joint law of one output of the trained infinite network at many inputs, over initialisations.

    .. math::

        R = \Theta(X_*, X)\,\Theta(X, X)^{-1}, \qquad
        f(X_*) \sim \mathcal N\bigl(R\,Y,\; K_{**} - R K_{X*} - K_{*X} R^\top + R K_{XX} R^\top\bigr)

    Args:
        inputs: Test inputs, normalised here to unit length (training inputs are the unit vectors).
        activation: ``"relu"`` or ``"erf"``.
        regime: ``"ntk"`` or ``"last"``.

    Returns:
        The weights :math:`R`, by which a permutation's mean outputs are :math:`R P^\top`, and the covariance.

    Raises:
        ValueError: For an input of zeros, or as :func:`two_layer`.

    Source:
        giapitzakis2025permutations (after Lee et al., 2019).
    """
    norm = inputs.norm(dim=1, keepdim=True)
    if inputs.device.type != "meta":
        require(bool((norm > 0).all()), "inputs other than zero", "a row of zeros")
    net = two_layer(1, 1, activation)
    test = inputs.double() / norm
    train = torch.eye(inputs.shape[1], dtype=torch.float64, device=inputs.device)
    inner, cross, outer = (net.kernel(*pair, get=("nngp", "ntk")) for pair in ((train,), (test, train), (test,)))
    inner_k, inner_t = inner
    cross_k, cross_t = cross
    if regime == "last":
        inner_t, cross_t = inner_k, cross_k
    weights = torch.linalg.solve(inner_t, cross_t.T).T
    mixed = weights @ cross_k.T
    covariance = outer[0] - mixed - mixed.T + weights @ inner_k @ weights.T
    return TrainedLaw(weights, (covariance + covariance.T) / 2)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


def ensemble_bits(
    law: TrainedLaw, models: int, ensembles: int, *, generator: torch.Generator, tolerance: float = 1e-9
) -> Bool[Tensor, "ensembles T k"]:
    r"""Thresholded means of ensembles, sampled from the exact law instead of trained.

    .. math:: \bar f(X_*) = R P^\top + Z / \sqrt N, \qquad \text{columns of } Z \sim \mathcal N(0, S) \text{ iid}

    All permutations are equivalent, so bits are returned for the identity: they should equal the inputs.

    Args:
        law: From :func:`trained_law`.
        models: Models :math:`N` of an ensemble.
        ensembles: How many ensembles.
        generator: Draws them.
        tolerance: Means up to this size are read as 0, where mean and noise both vanish.

    Raises:
        ValueError: For no models or ensembles.

    Source:
        giapitzakis2025permutations (ensemble size for one input).
    """
    require(models >= 1 and ensembles >= 1, "at least one model and one ensemble", (models, ensembles))
    root = _root(law.covariance)
    shape = (ensembles, *law.weights.shape)
    noise = torch.randn(shape, generator=generator, dtype=root.dtype, device=root.device)
    return law.weights + root @ noise / models**0.5 > tolerance


def models_for_all_inputs(
    law: TrainedLaw, inputs: Float[Tensor, "T k"], draws: int, *, generator: torch.Generator, confidence: float = 0.9
) -> float:
    r"""Models that make all bits of all inputs right at once with the given probability, without a search.

    In one draw :math:`Z` the mean of :math:`N` models is right everywhere iff
    :math:`N \ge \max_{t,i} \bigl( (\text{wrong-signed part of } Z_{ti}) / |\mu_{ti}| \bigr)^2`; the quantile over
    draws is returned.

    Args:
        law: From :func:`trained_law`, for inputs with two ones or more.
        inputs: Those inputs.
        draws: Draws of :math:`Z`.
        generator: Draws them.
        confidence: The quantile.

    Raises:
        ValueError: For no draws, a confidence outside (0, 1), or a mean that vanishes.

    Source:
        giapitzakis2025permutations (ensemble size for all inputs).
    """
    require(draws >= 1 and 0 < confidence < 1, "draws and a confidence in (0, 1)", (draws, confidence))
    mean, root = law.weights, _root(law.covariance)
    require(bool((mean.abs() > 1e-9).all()), "means other than zero (inputs with two ones or more)", "a zero mean")
    sign = torch.where(inputs > 0, 1.0, -1.0).to(mean)
    needed = []
    for start in range(0, draws, 25):
        count = min(25, draws - start)
        noise = root @ torch.randn((count, *mean.shape), generator=generator, dtype=root.dtype, device=root.device)
        wrong = (-noise * sign).clamp_min(0) / mean.abs()
        needed.append(wrong.flatten(1).amax(1).square())
    return float(np.quantile(torch.cat(needed).cpu().numpy(), confidence))


def train_ensemble(
    bits: int,
    width: int,
    models: int,
    *,
    steps: int = 100,
    rate: float = 0.8,
    activation: str = "relu",
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "models k n"], Float[Tensor, "models n k"], Float[Tensor, " models"]]:
    r"""Full-batch gradient descent of many real two-layer networks on the unit vectors (the identity permutation).

    The inputs are the rows of an identity matrix, so a forward pass needs no product with them.

    Args:
        bits: :math:`k`.
        width: Hidden units :math:`n`.
        models: Networks, trained in one batch.
        steps: Gradient steps.
        rate: Step size in units of :math:`1/\lambda_{\max}(\Theta)`.
        activation: ``"relu"`` or ``"erf"``.
        generator: Draws the initialisations.
        dtype: Type of the weights.

    Returns:
        First-layer weights, output weights, and the final loss of each.

    Raises:
        ValueError: For sizes below 1, or an unknown activation.

    Source:
        giapitzakis2025permutations (in the parameterization of its theory).
    """
    require(min(bits, width, models, steps) >= 1, "sizes of at least 1", (bits, width, models, steps))
    require(activation in ("relu", "erf"), "an activation out of relu, erf", repr(activation))
    device = generator.device
    options = {"generator": generator, "dtype": dtype, "device": device}
    first = torch.randn(models, width, bits, **options)
    last = torch.randn(models, bits, width, **options)
    train = torch.eye(bits, dtype=torch.float64)
    theta = two_layer(1, 1, activation).kernel(train, get="ntk")
    step_size = rate / float(torch.linalg.eigvalsh(theta)[-1])
    into, out = bits**-0.5, width**-0.5
    target = torch.eye(bits, dtype=dtype, device=device)
    loss = torch.zeros(models, dtype=dtype, device=device)
    for step in range(steps + 1):
        z = first * into
        hidden = torch.relu(z) if activation == "relu" else torch.erf(z)
        slope = (z > 0).to(dtype) if activation == "relu" else 2 / math.pi**0.5 * torch.exp(-z.square())
        error = torch.baddbmm(target, last, hidden, beta=-1, alpha=out)
        loss = error.square().sum((1, 2))
        if step == steps:
            break
        # error[m, i, x] at the unit vector x; gradients of one half of its square.
        back = last.mT @ error * out
        last = torch.baddbmm(last, error, hidden.mT, alpha=-step_size * out)
        first = first - step_size * into * back * slope
    return first, last, loss


def ensemble_outputs(
    first: Float[Tensor, "models n k"],
    last: Float[Tensor, "models k n"],
    inputs: Float[Tensor, "T k"],
    *,
    activation: str = "relu",
) -> Float[Tensor, "models T k"]:
    """Outputs of every trained network at T inputs, which are taken as they are.

    Args:
        first, last: Weights from :func:`train_ensemble`.
        inputs: T inputs.
        activation: As trained.

    Raises:
        ValueError: For inputs of another length.

    Source:
        giapitzakis2025permutations (binary inputs of unit length).
    """
    require(inputs.shape[-1] == first.shape[-1], f"inputs of length {first.shape[-1]}", inputs.shape[-1])
    z = inputs.to(first) @ first.mT / first.shape[-1] ** 0.5
    hidden = torch.relu(z) if activation == "relu" else torch.erf(z)
    return hidden @ last.mT / first.shape[1] ** 0.5
