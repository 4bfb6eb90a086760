r"""The effective theory of wide and deep networks: kernel, fluctuation and their growth with depth over width.

Preactivations :math:`z^1 = W^1 x`, :math:`z^{\ell+1}_i = \sum_j W_{ij}\,\sigma(z^\ell_j)` with
:math:`\operatorname{Var} W = C_W/n`, at one input, without biases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require

from .edgeworth import half_gaussian_rule

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class UniversalityClass:
    r"""An activation with its critical weight variance.

    Attributes:
        name: What it is called.
        sigma: The activation.
        slope: Its derivative.
        critical: Critical :math:`C_W`.
        growth: Predicted slope of :math:`V/K^2` in :math:`\ell - 1`: 5 (ReLU), 2 (linear), 2/3 (:math:`K^* = 0`).
    """

    name: str
    sigma: Elementwise
    slope: Elementwise
    critical: float
    growth: float


CLASSES = {
    "ReLU": UniversalityClass("ReLU", torch.relu, lambda z: (z > 0).to(z.dtype), 2.0, 5.0),
    "linear": UniversalityClass("linear", lambda z: z, torch.ones_like, 1.0, 2.0),
    "tanh": UniversalityClass("tanh", torch.tanh, lambda z: 1 - torch.tanh(z) ** 2, 1.0, 2 / 3),
    "sin": UniversalityClass("sin", torch.sin, torch.cos, 1.0, 2 / 3),
}


class Flow(NamedTuple):
    """Kernel ``K[l]``, four-point vertex ``V[l]`` and both susceptibilities of layers 1 to ``L``."""

    kernel: Float[Tensor, " L"]
    vertex: Float[Tensor, " L"]
    parallel: Float[Tensor, " L"]
    perpendicular: Float[Tensor, " L"]


def kernel_flow(kind: UniversalityClass, weight_variance: float, depth: int, *, start: float = 1.0) -> Flow:
    r"""Recursion of the kernel and of the four-point vertex, by quadrature.

    .. math::

        K^{\ell+1} &= C_W \langle\sigma^2\rangle_{K^\ell}, \qquad
        \chi_\parallel = C_W \frac{d\langle\sigma^2\rangle}{dK}, \quad \chi_\perp = C_W \langle\sigma'^2\rangle, \\
        V^{\ell+1} &= \chi_\parallel^2 V^\ell + C_W^2 \bigl(\langle\sigma^4\rangle - \langle\sigma^2\rangle^2\bigr),
        \qquad V^1 = 0 .

    Args:
        kind: The activation.
        weight_variance: :math:`C_W`.
        depth: Layers of preactivations, at least 1.
        start: :math:`K^1 > 0`.

    Raises:
        ValueError: For a depth below 1 or a start or variance that is not positive.

    Source:
        roberts2021principles (recursions at initialization, criticality).
    """
    require(depth >= 1 and start > 0 and weight_variance > 0, "positive depth, start and variance", (depth, start))
    h, w = half_gaussian_rule()
    h, w = torch.cat([h, -h]), torch.cat([w, w])
    k = torch.tensor(start, dtype=torch.float64)
    v = torch.tensor(0.0, dtype=torch.float64)
    rows = []
    for _ in range(depth):
        s = kind.sigma(k.sqrt() * h)
        second, fourth = w @ s**2, w @ s**4
        slope = kind.slope(k.sqrt() * h)
        # d<g>/dK = <z g'> / 2K for a Gaussian of variance K.
        parallel = weight_variance * (w @ (h * s * slope)) / k.sqrt()
        rows.append(torch.stack([k, v, parallel, weight_variance * (w @ slope**2)]))
        v = parallel**2 * v + weight_variance**2 * (fourth - second**2)
        k = weight_variance * second
    return Flow(*torch.stack(rows, 1))


def sample_scales(
    kind: UniversalityClass,
    weight_variance: float,
    width: int,
    depth: int,
    networks: int,
    *,
    generator: torch.Generator,
    start: float = 1.0,
) -> Float[Tensor, "L networks"]:
    r"""Conditional variances :math:`S^\ell` of finite networks, without a weight matrix.

    Given layer :math:`\ell`, the preactivations of layer :math:`\ell + 1` at one input are independent Gaussians of
    variance :math:`S^{\ell+1} = \frac{C_W}{n} \sum_j \sigma(z_j^\ell)^2`: ``n`` normals a layer instead of ``n²``,
    the same law
    exactly. The vertex is :math:`V^\ell / n = \operatorname{Var} S^\ell`.

    Args:
        kind: The activation.
        weight_variance: :math:`C_W`.
        width: Units :math:`n` of every layer.
        depth: Layers of preactivations.
        networks: Networks drawn at once.
        generator: Source of randomness.
        start: :math:`S^1 = K^1`.

    Raises:
        ValueError: For a size below 1.

    Source:
        roberts2021principles (the four-point vertex).
    """
    require(min(width, depth, networks) >= 1, "positive width, depth and networks", (width, depth, networks))
    scale = torch.full((networks,), start, device=generator.device)
    rows = [scale]
    noise = torch.empty(networks, width, device=generator.device)
    for _ in range(depth - 1):
        z = noise.normal_(generator=generator).mul_(scale.sqrt()[:, None])
        scale = kind.sigma(z).square().mean(1).mul_(weight_variance)
        rows.append(scale)
    return torch.stack(rows)


def residual_vertex(
    keep: float, width: int, depth: int, networks: int, *, generator: torch.Generator, reduced: bool = True
) -> Float[Tensor, "L networks"]:
    r"""Each network's unbiased part of the vertex of a critical residual ReLU network.

    :math:`z^{\ell+1} = \gamma z^\ell + W \sigma(z^\ell)` with :math:`\gamma^2 + C_W/2 = 1`, so that
    :math:`K^\ell = 1`. Given the layer before, units are independent with second moments
    :math:`m_i = \gamma^2 z_i^2 + S`, and the connected correlation of two different ones is the mean of

    .. math:: \frac{V^\ell}{n} = \mathbb E\Bigl[\frac{(\sum_i m_i)^2 - \sum_i m_i^2}{n(n-1)} - 1 - 2(\bar m - 1)\Bigr],

    where the last term has mean zero and takes most of the noise away.

    Args:
        keep: :math:`\gamma^2` in [0, 1).
        width: Units :math:`n`, at least 2.
        depth: Layers of preactivations.
        networks: Networks drawn at once.
        generator: Source of randomness.
        reduced: Whether the term of mean zero is subtracted.

    Returns:
        ``n`` times the bracket, whose mean over networks is :math:`V^\ell / K^2`.

    Raises:
        ValueError: For a share outside [0, 1) or a width below 2.

    Source:
        roberts2021principles (residual networks).
    """
    require(0 <= keep < 1 and width >= 2, "a kept share in [0, 1) and two units", (keep, width))
    z = torch.randn(networks, width, generator=generator, device=generator.device)
    variance = 2 * (1 - keep)
    noise, rows = torch.empty_like(z), [torch.zeros(networks, dtype=torch.float64, device=z.device)]
    for _ in range(depth - 1):
        scale = torch.relu(z).square_().mean(1).mul_(variance)
        second = z.square().mul_(keep).add_(scale[:, None]).double()
        total, quartic = second.sum(1), second.square().sum(1)
        pairs = (total**2 - quartic) / (width * (width - 1))
        rows.append(width * (pairs - 1 - (2 * (total / width - 1) if reduced else 0)))
        z = z.mul_(keep**0.5).addcmul_(noise.normal_(generator=generator), scale.sqrt_()[:, None])
    return torch.stack(rows)
