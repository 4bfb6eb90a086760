r"""Classifiers of infinitely wide and infinitely deep networks.

On a sphere a kernel is a function of the inner product :math:`\xi`, and depth iterates the dual
:math:`f(\xi) = \sum_k c_k \xi^k` (:math:`c_k \ge 0`, :math:`f(1) = 1`). Three things can happen: the nearest neighbour
takes all, the majority does, or a singular kernel :math:`|x - x'|^{-a}` appears.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require


class PowerSeries:
    r"""A dual activation :math:`f(\xi) = \sum_k c_k \xi^k` with :math:`f(1) = 1`.

    Args:
        coefficients: :math:`c_k \ge 0` by power :math:`k`, summing to 1.

    Raises:
        ValueError: For a negative coefficient or power, or another sum: then no activation has this dual.

    Source:
        radhakrishnan2022wide (the infinitely deep kernel).
    """

    def __init__(self, coefficients: dict[int, float]) -> None:
        kept = {k: c for k, c in sorted(coefficients.items()) if c != 0}
        require(
            bool(kept) and all(c > 0 and k >= 0 for k, c in kept.items()), "coefficients of at least 0", coefficients
        )
        require(abs(sum(kept.values()) - 1) < 1e-9, "coefficients that sum to 1", sum(kept.values()))
        self.powers = torch.tensor(list(kept), dtype=torch.float64)
        self.weights = torch.tensor(list(kept.values()), dtype=torch.float64)

    @property
    def at_zero(self) -> float:
        """:math:`f(0)`."""
        return float(self.weights[self.powers == 0].sum())

    @property
    def slope_at_zero(self) -> float:
        """:math:`f'(0)`."""
        return float(self.weights[self.powers == 1].sum())

    @property
    def slope_at_one(self) -> float:
        """:math:`f'(1)`."""
        return float(self.weights @ self.powers)

    @property
    def regime(self) -> str:
        """What infinite depth makes of it: nearest neighbour, singular kernel, majority, or linear."""
        if self.at_zero > 0:
            return "majority"
        if self.slope_at_zero == 0:
            return "nearest neighbour"
        return "linear" if self.slope_at_zero >= 1 else "singular kernel"

    @property
    def exponent(self) -> float:
        r"""The singularity's order :math:`a = -2 \log f'(0) / \log f'(1)`, for distances :math:`|x - x'|`."""
        require(self.regime == "singular kernel", "a dual with f(0) = 0 and 0 < f'(0) < 1", self.regime)
        return -2 * math.log(self.slope_at_zero) / math.log(self.slope_at_one)

    def __call__(self, xi: Tensor) -> Tensor:
        return (xi[..., None] ** self.powers) @ self.weights

    def deepen(self, u: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
        r"""One layer on :math:`u = -\log \xi`, exact near :math:`\xi = 1` and free of underflow near 0."""
        near = -torch.log1p(torch.expm1(-u[..., None] * self.powers) @ self.weights)
        lowest = float(self.powers[0])
        far = lowest * u - torch.log(torch.exp(-u[..., None] * (self.powers - lowest)) @ self.weights)
        return torch.where(u < 0.1, near, far)

    def log_slope(self, u: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
        r"""Logarithm of :math:`f'(e^{-u})`."""
        some = self.powers > 0
        powers, weights = self.powers[some], (self.weights * self.powers)[some]
        lowest = float(powers[0])
        return torch.log(torch.exp(-u[..., None] * (powers - lowest)) @ weights) - (lowest - 1) * u


def singular_dual(exponent: float) -> PowerSeries:
    r"""A polynomial dual whose infinitely deep kernel has a singularity of a wanted order.

    :math:`f'(0) = 2^{-j}` with the smallest :math:`j` for which the rest fits in powers of at least two, and
    :math:`f'(1) = f'(0)^{-2/a}` met by two neighbouring powers. For :math:`a = 1, 2, 4, 8` these are the published
    choices.

    Args:
        exponent: :math:`a > 0`.

    Raises:
        ValueError: For an exponent that is not positive.

    Source:
        radhakrishnan2022wide (the activations of each regime).
    """
    require(exponent > 0, "a positive exponent", exponent)
    for j in range(1, 60):
        slope = 2.0**-j
        power = (slope ** (-2 / exponent) - slope) / (1 - slope)
        if power >= 2 - 1e-12:
            low = math.floor(power + 1e-9)
            share = max(power - low, 0.0)
            coefficients = {1: slope, low: (1 - slope) * (1 - share)}
            coefficients[low + 1] = (1 - slope) * share
            return PowerSeries(coefficients)
    raise ValueError(f"expected an exponent that powers of at least two can meet, got {exponent}")


class DeepTable(NamedTuple):
    r"""Logarithm of a deep kernel on a uniform grid of :math:`\log(1 - \xi)`, less ``power`` times :math:`\log\xi`.

    What is left is smooth at both ends: a deep kernel vanishes at 0 like a power of :math:`\xi`.
    """

    start: float
    step: float
    values: Float[Tensor, " points"]
    power: float = 0.0

    def __call__(self, xi: Float[Tensor, " *shape"]) -> Float[Tensor, " *shape"]:
        r"""The kernel's logarithm at inner products in (0, 1), by linear interpolation.

        Args:
            xi: Inner products; those above :math:`1 - 10^{-14}` are taken as that.
        """
        position = (1 - xi).clamp_(1e-14, 1 - 1e-14).log_().sub_(self.start).div_(self.step)
        index = position.floor().clamp_(0, len(self.values) - 2)
        share = position.sub_(index)
        place = index.to(torch.int64)
        low = self.values[place]
        rest = share.mul_(self.values[place + 1] - low).add_(low)
        return rest.add_(xi.clamp(1e-300, 1 - 1e-14).log_(), alpha=self.power) if self.power else rest


def deep_kernel_table(
    dual: PowerSeries, depth: int, *, kind: Literal["nngp", "ntk"] = "nngp", points: int = 20_000
) -> DeepTable:
    r"""Tabulate the kernel of a deep network, :math:`K_L = f \circ \dots \circ f` or its NTK, in logarithms.

    .. math:: \Theta_L = f(K_{L-1}) + \Theta_{L-1}\, f'(K_{L-1}), \qquad \Theta_0 = K_0 = \xi

    Args:
        dual: The dual activation, with :math:`f(0) = 0` or not.
        depth: :math:`L \ge 0`.
        kind: Which kernel.
        points: Grid points.

    Raises:
        ValueError: For a negative depth, fewer than two points, or an unknown kind.

    Source:
        radhakrishnan2022wide (deep kernels).
    """
    require(depth >= 0 and points >= 2, "a depth of at least 0 and two points", (depth, points))
    require(kind in ("nngp", "ntk"), "a kind out of nngp, ntk", kind)
    start, stop = math.log(1e-14), math.log1p(-1e-12)
    grid = torch.linspace(start, stop, points, dtype=torch.float64)
    u = first = -torch.log1p(-torch.exp(grid))
    log_ntk = -u
    for _ in range(depth):
        deeper = dual.deepen(u)
        if kind == "ntk":
            log_ntk = torch.logaddexp(-deeper, log_ntk + dual.log_slope(u))
        u = deeper
    values, power = log_ntk if kind == "ntk" else -u, float(dual.powers[0]) ** depth
    return DeepTable(start, (stop - start) / (points - 1), values + power * first, power)


def kernel_vote(
    log_weights: Float[Tensor, "n m"], labels: Float[Tensor, " n"], counts: list[int] | None = None
) -> Float[Tensor, "k m"]:
    r"""The sign of :math:`\sum_i y_i\, k(x_i, x)`, from logarithms of the kernel, for the first ``counts`` points.

    Args:
        log_weights: :math:`\log k(x_i, x)`.
        labels: :math:`y_i = \pm 1`.
        counts: Numbers of training points; all of them without it.

    Raises:
        ValueError: For labels other than :math:`\pm 1`, one class is fine, or counts out of range.

    Source:
        radhakrishnan2022wide (the classifier of an infinitely deep network).
    """
    require(bool((labels.abs() == 1).all()) and len(labels) == len(log_weights), "labels of +-1, one a row", labels)
    rows = []
    for count in counts or [len(labels)]:
        require(1 <= count <= len(labels), f"counts from 1 to {len(labels)}", count)
        part = log_weights[:count]
        weight = torch.exp(part - part.amax(0))
        rows.append(torch.where(labels[:count] @ weight >= 0, 1.0, -1.0))
    return torch.stack(rows).to(labels.dtype)


def hilbert_logs(xi: Float[Tensor, " *shape"], order: float) -> Float[Tensor, " *shape"]:
    r"""Logarithms of the singular weights :math:`|x - x'|^{-a}`, with :math:`|x - x'|^2 = 2 - 2\xi` on the sphere.

    Args:
        xi: Inner products.
        order: :math:`a`; the Hilbert estimate has :math:`a = d`.
    """
    return (2 * (1 - xi).clamp_min(1e-300)).log().mul_(-order / 2)


class SphereProblem(NamedTuple):
    """Points on a sphere in the positive orthant, labels of +-1, and the exact posterior of +1."""

    points: Float[Tensor, "n d1"]
    labels: Float[Tensor, " n"]
    posterior: Float[Tensor, " n"]


DIRICHLET_PAIRS = {
    1: ((1.0, 2.0), (2.0, 1.0)),
    2: ((0.5, 0.5, 2.5), (2.5, 0.1, 0.5)),
    4: ((3.0, 1.0, 2.0, 1.0, 1.0), (1.0, 2.0, 2.0, 2.0, 3.0)),
}


def dirichlet_sphere(
    first: tuple[float, ...], second: tuple[float, ...], count: int, *, seed: int, prior: float = 0.4
) -> SphereProblem:
    r"""Two Dirichlet classes, projected to the sphere by dividing by the Euclidean norm.

    Args:
        first: Parameters of the class +1.
        second: Parameters of the class -1.
        count: Points.
        seed: Seed.
        prior: Probability of the class +1.

    Raises:
        ValueError: For parameters that are not positive or differ in number.

    Source:
        radhakrishnan2022wide, experiments.
    """
    require(len(first) == len(second) and min(*first, *second) > 0, "positive parameters, as many", (first, second))
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(count, generator=generator, dtype=torch.float64) < prior
    alpha = torch.where(positive[:, None], torch.tensor(first), torch.tensor(second)).double()
    draws = torch._standard_gamma(alpha, generator=generator).clamp_min(1e-12)
    simplex = draws / draws.sum(1, keepdim=True)
    logs = []
    for parameters in (first, second):
        a = torch.tensor(parameters, dtype=torch.float64)
        logs.append(simplex.log() @ (a - 1) + torch.lgamma(a.sum()) - torch.lgamma(a).sum())
    posterior = torch.sigmoid(logs[0] - logs[1] + math.log(prior / (1 - prior)))
    points = simplex / simplex.norm(dim=1, keepdim=True)
    return SphereProblem(points, torch.where(positive, 1.0, -1.0).double(), posterior)


def pocket_circle(count: int, *, seed: int, half_width: float = 0.06) -> SphereProblem:
    """A quarter circle with a narrow pocket in which the label +1 prevails (.85), and outside of which it is rare (.1).

    Args:
        count: Points, uniform in angle.
        seed: Seed.
        half_width: Of the pocket around 45 degrees, in radians.
    """
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(count, generator=generator, dtype=torch.float64) * (math.pi / 2)
    posterior = torch.where((angle - math.pi / 4).abs() < half_width, 0.85, 0.1).double()
    labels = torch.where(torch.rand(count, generator=generator, dtype=torch.float64) < posterior, 1.0, -1.0).double()
    return SphereProblem(torch.stack([angle.cos(), angle.sin()], 1), labels, posterior)


def excess_risk(prediction: Float[Tensor, "*k m"], posterior: Float[Tensor, " m"]) -> Float[Tensor, " *k"]:
    r"""Excess over the Bayes risk, :math:`\mathbb E\,|2\eta - 1|\,1[\text{prediction} \ne \text{Bayes}]`: no label
    noise.

    Args:
        prediction: Signs.
        posterior: Exact :math:`\eta`.
    """
    wrong = (prediction > 0) != (posterior > 0.5)
    return ((2 * posterior - 1).abs() * wrong).mean(-1)


def cover_hart_excess(posterior: Float[Tensor, " m"]) -> float:
    r"""Excess risk of the nearest neighbour with infinitely many points, :math:`\mathbb E\,|2\eta - 1| \min(\eta, 1 -
    \eta)`.

    Args:
        posterior: Exact :math:`\eta`.
    """
    return float(((2 * posterior - 1).abs() * torch.minimum(posterior, 1 - posterior)).mean())
