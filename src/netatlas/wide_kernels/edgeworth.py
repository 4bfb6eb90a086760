r"""How far a network of finite width is from a Gaussian: Edgeworth coefficients and exact output densities.

One hidden layer, :math:`z = N^{-1/2} \sum_{j=1}^N v_j\,\phi(h_j)` with independent standard Gaussian :math:`h_j` and
readout weights :math:`v_j` of mean zero and variance one. With :math:`u = z/s`, :math:`s^2 = \mathbb E\,\phi^2`, the
density is
:math:`p(u) = n(u)\,[1 + c_3 He_3 + c_4 He_4 + \dots]` with :math:`c_k = \mathbb E\,He_k(u)/k!`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Readout:
    """A law of readout weights with mean 0 and variance 1.

    Attributes:
        name: What it is called.
        third: Third moment.
        fourth: Fourth moment.
        characteristic: Its characteristic function, for symmetric laws.
        draw: Draws a tensor of a shape from a generator.
    """

    name: str
    third: float
    fourth: float
    characteristic: Callable[[Tensor], Tensor] | None
    draw: Callable[[tuple[int, ...], torch.Generator], Tensor]


def _rademacher(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-1, 1, generator=generator).sign_()


READOUTS = {
    "Gaussian": Readout(
        "Gaussian", 0, 3, lambda a: torch.exp(-a * a / 2), lambda shape, g: torch.randn(shape, generator=g)
    ),
    "uniform": Readout(
        "uniform",
        0,
        9 / 5,
        lambda a: torch.sinc(a * (3**0.5 / math.pi)),
        lambda shape, g: torch.empty(shape).uniform_(-(3**0.5), 3**0.5, generator=g),
    ),
    "Rademacher": Readout("Rademacher", 0, 1, torch.cos, _rademacher),
    "skewed": Readout("skewed", 2, 9, None, lambda shape, g: torch.empty(shape).exponential_(generator=g) - 1),
}


def hermite_he(u: Float[Tensor, " *shape"], degree: int) -> Float[Tensor, "*shape degree1"]:
    r"""Probabilists' Hermite polynomials :math:`He_0, \dots, He_K` by :math:`He_{k+1} = u He_k - k He_{k-1}`.

    Args:
        u: Points.
        degree: The largest :math:`K`, at least 0.

    Raises:
        ValueError: For a negative degree.
    """
    require(degree >= 0, "a degree of at least 0", degree)
    rows = [torch.ones_like(u), u]
    for k in range(1, degree):
        rows.append(u * rows[k] - k * rows[k - 1])
    return torch.stack(rows[: degree + 1], -1)


@functools.lru_cache(maxsize=8)
def half_gaussian_rule(nodes: int = 600, reach: float = 9.0) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    r"""Gauss-Legendre nodes :math:`h > 0` and weights of a standard Gaussian on each half line.

    :math:`\mathbb E\,g(h) \approx \sum_i w_i\,[g(h_i) + g(-h_i)]` has no trouble with a kink at zero.

    Args:
        nodes: Number of nodes on the half line.
        reach: End of the half line.

    Raises:
        ValueError: For fewer than two nodes or a reach that is not positive.
    """
    require(nodes >= 2 and reach > 0, "two nodes and a positive reach", (nodes, reach))
    x, w = np.polynomial.legendre.leggauss(nodes)
    h = torch.from_numpy((x + 1) * reach / 2)
    return h, torch.from_numpy(w * reach / 2) * torch.exp(-h * h / 2) / math.sqrt(2 * math.pi)


def moment(phi: Elementwise, power: int) -> float:
    r"""Moment :math:`\mathbb E\,\phi(h)^p` of an activation at a standard Gaussian.

    Args:
        phi: The activation; a kink at zero is integrated exactly.
        power: The power :math:`p`.
    """
    h, w = half_gaussian_rule()
    return float(w @ (phi(h) ** power + phi(-h) ** power))


def fourth_coefficient(phi: Elementwise, fourth: float, width: int) -> float:
    r"""The leading correction in closed form, without output bias.

    .. math:: c_4 = \frac1{24 N}\left(\frac{\mathbb E v^4\;\mathbb E\phi^4}{(\mathbb E\phi^2)^2} - 3\right)

    Args:
        phi: The activation.
        fourth: Fourth moment :math:`\mathbb E v^4` of the readout's unit-variance weights.
        width: Hidden units :math:`N`.

    Raises:
        ValueError: For a width below 1.

    Source:
        antognini2019finite (the Edgeworth expansion).
    """
    require(width >= 1, "a width of at least 1", width)
    return (fourth * moment(phi, 4) / moment(phi, 2) ** 2 - 3) / (24 * width)


def third_coefficient(phi: Elementwise, third: float, width: int) -> float:
    r"""The odd term of an asymmetric readout, :math:`c_3 = \mathbb E v^3\, \mathbb E\phi^3 / (6 \sqrt N s^3)`.

    Args:
        phi: The activation.
        third: Third moment of the readout's weights.
        width: Hidden units :math:`N`.
    """
    require(width >= 1, "a width of at least 1", width)
    return third * moment(phi, 3) / (6 * math.sqrt(width) * moment(phi, 2) ** 1.5)


class Conditional(NamedTuple):
    """Edgeworth coefficients of single hidden layers, averaged over the readout; each ``[M]``."""

    c4: dict[str, Float[Tensor, " M"]]
    c6: Float[Tensor, " M"]
    c8: Float[Tensor, " M"]


def conditional_coefficients(
    features: Float[Tensor, "M N"], second: float, fourth_moments: dict[str, float]
) -> Conditional:
    r"""Edgeworth coefficients given the hidden layer, the readout integrated out exactly.

    With :math:`r = \frac1N \sum_j \phi_j^2 / s^2`,

    .. math::

        \mathbb E[He_4(u) \mid h] = 3 (r - 1)^2 + (\mathbb E v^4 - 3) \sum_j \frac{\phi_j^4}{N^2 s^4}, \qquad
        \mathbb E[He_{2k}(u) \mid h] = (2k - 1)!!\, (r - 1)^k \ \text{(Gaussian } v).

    Args:
        features: Activations :math:`\phi(h_j)` of ``M`` networks of ``N`` units.
        second: The exact :math:`s^2 = \mathbb E \phi^2`.
        fourth_moments: :math:`\mathbb E v^4` of each symmetric readout, by name.

    Raises:
        ValueError: For features that are not a matrix, or a second moment that is not positive.

    Source:
        antognini2019finite (the expansion); the conditional identities are derived here.
    """
    require(features.ndim == 2, "features [M, N]", tuple(features.shape))
    require(second > 0, "a positive second moment", second)
    require_finite("features", features)
    width = features.shape[1]
    squares = features.square() / second
    # Float32 features, float64 sums: the excess is small beside the terms.
    excess = squares.double().mean(1) - 1
    quartic = squares.square_().double().sum(1) / width**2
    c4 = {name: (3 * excess**2 + (m - 3) * quartic) / 24 for name, m in fourth_moments.items()}
    return Conditional(c4, excess**3 / 48, excess**4 / 384)


class OutputDensity(NamedTuple):
    """A density on a grid of standardised outputs, and the mass of the atom at zero that it leaves out."""

    u: Float[Tensor, " points"]
    density: Float[Tensor, " points"]
    atom: float


def output_density(phi: Elementwise, readout: Readout, width: int, *, reach: float = 6.0) -> OutputDensity:
    r"""The exact density of a standardised output, by inverting its characteristic function.

    .. math:: \varphi(k) = \Bigl(\mathbb E_h\, \psi\bigl(k\,\phi(h) / (s\sqrt N)\bigr)\Bigr)^N

    with the readout's characteristic function :math:`\psi`. A ReLU network whose units are all off puts an atom of mass
    :math:`2^{-N}` at zero; it is taken out before inverting.

    Args:
        phi: The activation, kinked at most at zero.
        readout: A symmetric readout.
        width: Hidden units :math:`N`.
        reach: The grid covers ``[-reach, reach]``.

    Raises:
        ValueError: For a readout without a characteristic function, or a width below 1.

    Source:
        antognini2019finite (the Edgeworth expansion).
    """
    require(width >= 1, "a width of at least 1", width)
    require(readout.characteristic is not None, "a symmetric readout", readout.name)
    assert readout.characteristic is not None
    count, step = 4096, 0.02
    k = torch.arange(count, dtype=torch.float64) * step
    h, w = half_gaussian_rule()
    scale = k[:, None] / math.sqrt(moment(phi, 2) * width)
    value = torch.zeros(count, dtype=torch.float64)
    dead = 0.0
    for side in (phi(h), phi(-h)):
        if bool((side == 0).all()):
            value, dead = value + 0.5, 0.5
        else:
            value = value + readout.characteristic(scale * side) @ w
    transform = value**width - dead**width
    density = torch.fft.irfft(transform.to(torch.complex128), n=2 * count) * (step * 2 * count / (2 * math.pi))
    u = torch.fft.fftfreq(2 * count, 1 / (2 * count)).double() * (2 * math.pi / (step * 2 * count))
    u, density = torch.fft.fftshift(u), torch.fft.fftshift(density)
    inside = u.abs() <= reach
    return OutputDensity(u[inside], density[inside], dead**width)


def edgeworth_density(u: Float[Tensor, " points"], coefficients: dict[int, float]) -> Float[Tensor, " points"]:
    r"""The Gaussian times a truncated Hermite series, :math:`n(u)\,[1 + \sum_k c_k He_k(u)]`; it may be negative.

    Args:
        u: Points.
        coefficients: :math:`c_k` by :math:`k`; none gives the Gaussian.
    """
    table = hermite_he(u, max(coefficients, default=0))
    series = 1 + sum((c * table[..., k] for k, c in coefficients.items()), torch.zeros_like(u))
    return series * torch.exp(-u * u / 2) / math.sqrt(2 * math.pi)


def total_variation(exact: OutputDensity, other: Float[Tensor, " points"]) -> float:
    r"""Total variation distance on the grid, :math:`\frac12 \int |p - q| + \frac12` of the atom's mass.

    Args:
        exact: A density with its atom.
        other: Another density, at the same points.

    Raises:
        ValueError: For other points.
    """
    require(other.shape == exact.u.shape, f"values at {len(exact.u)} points", tuple(other.shape))
    return float(torch.trapezoid((exact.density - other).abs(), exact.u) + exact.atom) / 2
