r"""Random-feature models trained by gradient flow: mean-field theory of the loss in time and width, and simulation.

The teacher has coefficients :math:`w^*_k` on features of variance :math:`\lambda_k`; the student sees them through a
random matrix :math:`A \in \mathbb R^{N \times M}`. In the whitened residual :math:`u = \Lambda^{1/2} v` gradient flow
on unlimited data reads :math:`\dot u = -B^\top B u` with :math:`B = N^{-1/2} A \Lambda^{1/2}`, and the test loss is
:math:`\lVert u \rVert^2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.optimize import brentq
from torch import Tensor

from netatlas.core.checks import require, require_finite

TALBOT_NODES = 24


@dataclass(frozen=True)
class FeatureSpectrum:
    r"""Feature variances and target power, in bins of equal members.

    Attributes:
        eigenvalues: :math:`\lambda_k`.
        power: Target power :math:`\lambda_k (w^*_k)^2` of one member.
        counts: Members of each bin; 1 for an unbinned spectrum.
    """

    eigenvalues: Float[np.ndarray, " bins"]
    power: Float[np.ndarray, " bins"]
    counts: Float[np.ndarray, " bins"]

    def __post_init__(self) -> None:
        for name in ("eigenvalues", "power", "counts"):
            values = getattr(self, name)
            require(values.shape == self.eigenvalues.shape and values.ndim == 1, f"one {name} a bin", values.shape)
            require_finite(name, values)
        require(bool((self.eigenvalues > 0).all()), "positive eigenvalues", self.eigenvalues.min(initial=1))
        require(bool((self.power >= 0).all() and (self.counts > 0).all()), "power >= 0 and counts > 0", "others")

    @property
    def features(self) -> float:
        """How many features there are, :math:`M`."""
        return float(self.counts.sum())

    @property
    def target_power(self) -> float:
        """The loss of the zero function."""
        return float((self.counts * self.power).sum())


def power_law_spectrum(
    task: float, capacity: float, *, features: float, exact: int = 64, bins: int | None = None
) -> FeatureSpectrum:
    r"""Power laws :math:`\lambda_k = k^{-b}` and :math:`\lambda_k (w^*_k)^2 = k^{-a}`.

    Args:
        task: The exponent :math:`a > 1` of the target's power.
        capacity: The exponent :math:`b \ge 0` of the eigenvalues; 0 is isotropic.
        features: Number of features :math:`M`.
        exact: How many leading features keep a bin of their own.
        bins: Number of logarithmic bins for the others, each at its geometric middle; none are binned if not given.

    Raises:
        ValueError: For exponents out of range, or fewer features than one.

    Source:
        bordelon2024dynamical (power-law features); the binning is ours.
    """
    require(
        task > 0 and capacity >= 0, "a task exponent above 0 and a capacity exponent of at least 0", (task, capacity)
    )
    require(features >= 1 and exact >= 1, "at least one feature and one exact bin", (features, exact))
    head = np.arange(1, int(min(exact if bins else features, features)) + 1, dtype=np.float64)
    index, counts = head, np.ones_like(head)
    if bins and features > exact:
        edges = np.unique(np.floor(np.geomspace(exact + 1, features + 1, bins + 1)))
        index = np.concatenate([head, np.sqrt(edges[:-1] * (edges[1:] - 1))])
        counts = np.concatenate([counts, np.diff(edges)])
    return FeatureSpectrum(index**-capacity, index**-task, counts)


def response(
    spectrum: FeatureSpectrum,
    width: float,
    z: Complex[np.ndarray, " points"],
    *,
    tolerance: float = 1e-12,
    steps: int = 400,
) -> Complex[np.ndarray, " points"]:
    r"""Response :math:`R(z)` of the finite width, which multiplies every eigenvalue.

    .. math:: R = \Bigl(1 + \frac1N \sum_k \frac{\lambda_k}{z + \lambda_k R}\Bigr)^{-1}

    Damped fixed-point steps from 1, finished by Newton's method once close.

    Args:
        spectrum: Feature variances.
        width: Number of random features :math:`N`; infinite gives 1.
        z: Laplace variables off the negative real axis.
        tolerance: Largest change of a settled point.
        steps: Steps at most.

    Raises:
        ValueError: For a width below 1, or if a point has not settled.

    Source:
        bordelon2024dynamical, equation for the response functions at unlimited data.
    """
    require(width >= 1, "a width of at least 1", width)
    z = np.atleast_1d(np.asarray(z, dtype=np.complex128))
    found = np.ones_like(z)
    if np.isinf(width):
        return found
    eigenvalues, weight = spectrum.eigenvalues, spectrum.counts * spectrum.eigenvalues / width
    pending = np.arange(len(z))
    for step in range(steps):
        r, at = found[pending], z[pending]
        inverse = 1 / (at[:, None] + eigenvalues * r[:, None])
        excess = inverse @ weight
        if step < 30:
            new = 0.5 * (r + 1 / (1 + excess))
        else:
            slope = 1 + excess - r * ((inverse * inverse) @ (weight * eigenvalues))
            new = r - (r * (1 + excess) - 1) / slope
        found[pending] = new
        pending = pending[np.abs(new - r) > tolerance * np.abs(new)]
        if not len(pending):
            return found
    raise ValueError(f"expected the response to settle in {steps} steps, got {len(pending)} points that did not")


def talbot_nodes(times: Float[np.ndarray, " times"], nodes: int = TALBOT_NODES) -> tuple[np.ndarray, np.ndarray]:
    r"""Points and weights of the fixed Talbot inversion, :math:`f(t) \approx \mathrm{Re} \sum_j w_j F(z_j)`.

    Args:
        times: Positive times.
        nodes: Nodes a time; about 0.6 decimal digits each in exact arithmetic.

    Returns:
        Points and weights, ``[times, nodes]``.

    Raises:
        ValueError: For times that are not positive.

    Source:
        Abate and Valko, Int. J. Numer. Meth. Engng 60 (2004), 979-993.
    """
    t = np.atleast_1d(np.asarray(times, dtype=np.float64))
    require(bool((t > 0).all()), "positive times", t.min(initial=1))
    angle = np.arange(1, nodes) * np.pi / nodes
    cot = 1 / np.tan(angle)
    radius = 2 * nodes / (5 * t)[:, None]
    points = np.concatenate([radius + 0j, radius * angle * (cot + 1j)], 1)
    weights = np.concatenate([[0.5 + 0j], 1 + 1j * (angle + (angle * cot - 1) * cot)])
    return points, radius / nodes * weights * np.exp(t[:, None] * points)


def mean_field_loss(
    spectrum: FeatureSpectrum, width: float, times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, " times"]:
    r"""Expected loss of gradient flow on unlimited data.

    .. math:: L(t) = \sum_k \lambda_k (w^*_k)^2\, h_k(2t), \qquad
        \int_0^\infty h_k(t)\,e^{-zt}\,dt = \frac{1}{z + \lambda_k R(z)}

    One resolvent at twice the time, not a resolvent squared: :math:`e^{-B^\top B t}` is applied twice with the *same*
    random matrix.

    Args:
        spectrum: Feature variances and target power.
        width: Number of random features; infinite for the limit.
        times: Positive times.

    Raises:
        ValueError: As :func:`response` and :func:`talbot_nodes`.

    Source:
        bordelon2024dynamical, the transfer function and the loss at infinite data, in symmetric form.
    """
    points, weights = talbot_nodes(2 * np.atleast_1d(np.asarray(times, dtype=np.float64)))
    z = points.ravel()
    inverse = 1 / (z[:, None] + spectrum.eigenvalues * response(spectrum, width, z)[:, None])
    transform = (inverse @ (spectrum.counts * spectrum.power)).reshape(points.shape)
    return (weights * transform).real.sum(1)


def mean_field_transfer(
    spectrum: FeatureSpectrum, width: float, times: Float[np.ndarray, " times"]
) -> Float[np.ndarray, "times bins"]:
    """Expected share :math:`h_k(t)` of each target coefficient that is not learned yet.

    Arguments, errors and source as :func:`mean_field_loss`.
    """
    points, weights = talbot_nodes(times)
    r = response(spectrum, width, points.ravel()).reshape(points.shape)
    inverse = 1 / (points[..., None] + spectrum.eigenvalues * r[..., None])
    return np.einsum("tn,tnk->tk", weights, inverse).real


def ensemble_loss(
    spectrum: FeatureSpectrum, width: float, times: Float[np.ndarray, " times"], members: int
) -> Float[np.ndarray, " times"]:
    r"""Expected loss of the averaged output of independent random-feature models.

    .. math:: L_E = \tfrac1E L(t) + \bigl(1 - \tfrac1E\bigr) \sum_k \lambda_k (w^*_k)^2\, h_k(t)^2

    Args:
        spectrum, width, times: As in :func:`mean_field_loss`.
        members: Number of models :math:`E \ge 1`.

    Raises:
        ValueError: For no members, or as :func:`mean_field_loss`.
    """
    require(members >= 1, "at least one member", members)
    bias = mean_field_transfer(spectrum, width, times) ** 2 @ (spectrum.counts * spectrum.power)
    return mean_field_loss(spectrum, width, times) / members + (1 - 1 / members) * bias


def finite_data_loss(
    spectrum: FeatureSpectrum, samples: float, times: Float[np.ndarray, " times"]
) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, " times"]]:
    r"""Expected test and training loss of gradient flow on a finite sample at infinite width.

    The test loss holds two resolvents of the *same* sample, which are correlated. With the response :math:`R(z)` of the
    sample (:func:`response` with :math:`P` in the width's place) its transform in two times is

    .. math::
        \hat L(z, z') = \frac{\sum_k \lambda_k (w^*_k)^2\, g_k(z)\, g_k(z')}{1 - \frac{R(z) R(z')}{P} \sum_k
        \lambda_k^2\, g_k(z)\, g_k(z')}, \qquad g_k(z) = \frac{1}{z + \lambda_k R(z)} ,

    read off at :math:`t = t'`. The training loss needs one resolvent at twice the time,
    :math:`\hat L_{train}(z) = R(z) \sum_k \lambda_k (w^*_k)^2\, g_k(z)`.

    Args:
        spectrum: Feature variances and target power.
        samples: Number of examples :math:`P`, each seen again and again.
        times: Positive times.

    Returns:
        Test losses and training losses. A training loss far below the first one is lost in rounding.

    Raises:
        ValueError: As :func:`response` and :func:`talbot_nodes`.

    Source:
        bordelon2024dynamical, the correlation functions at finite data, in closed form for infinite width.
    """
    t = np.atleast_1d(np.asarray(times, dtype=np.float64))
    points, weights = talbot_nodes(t)
    r = response(spectrum, samples, points.ravel()).reshape(points.shape)
    eigenvalues, power = spectrum.eigenvalues, spectrum.counts * spectrum.power
    g = 1 / (points[..., None] + eigenvalues * r[..., None])
    test = np.zeros(len(t))
    # A real function of two times: half of each pair of nodes and half of each pair with one of them conjugate.
    for g2, r2, w2 in ((g, r, weights), (g.conj(), r.conj(), weights.conj())):
        single = np.swapaxes(g2, 1, 2)
        numerator = (g * power) @ single
        spread = (g * (spectrum.counts * eigenvalues**2)) @ single * r[:, :, None] * r2[:, None] / samples
        test += 0.5 * np.einsum("ti,tj,tij->t", weights, w2, numerator / (1 - spread)).real
    points, weights = talbot_nodes(2 * t)
    z = points.ravel()
    r = response(spectrum, samples, z)
    transform = r * ((1 / (z[:, None] + eigenvalues * r[:, None])) @ power)
    return test, (weights * transform.reshape(points.shape)).real.sum(1)


def static_kappa(spectrum: FeatureSpectrum, width: float) -> float:
    r"""The scale :math:`\kappa` below which eigenvalues are lost: :math:`\sum_k \lambda_k/(\lambda_k+\kappa) = N`.

    Args:
        spectrum: Feature variances, more of them than ``width``.
        width: Number of random features :math:`N`.

    Raises:
        ValueError: Unless :math:`1 \le N < M`.
    """
    require(1 <= width < spectrum.features, f"a width in [1, {spectrum.features:g})", width)
    eigenvalues, counts = spectrum.eigenvalues, spectrum.counts

    def surplus(log_kappa: float) -> float:
        return float((counts * eigenvalues / (eigenvalues + np.exp(log_kappa))).sum() - width)

    low = np.log(eigenvalues.min()) - 40
    high = np.log(eigenvalues.max() * spectrum.features / width) + 1
    return float(np.exp(brentq(surplus, low, high, xtol=1e-13, rtol=1e-14)))


def static_loss(spectrum: FeatureSpectrum, width: float) -> float:
    r"""Loss after infinite time, :math:`\sum_k \lambda_k (w^*_k)^2\, \kappa/(\lambda_k + \kappa)`; 0 from width M on.

    Arguments and errors as :func:`static_kappa`.
    """
    if width >= spectrum.features:
        return 0.0
    kappa = static_kappa(spectrum, width)
    return float((spectrum.counts * spectrum.power * kappa / (spectrum.eigenvalues + kappa)).sum())


def _unbinned(spectrum: FeatureSpectrum) -> tuple[Tensor, Tensor]:
    require(bool((spectrum.counts == 1).all()), "a spectrum without bins", "binned")
    return torch.from_numpy(np.sqrt(spectrum.eigenvalues)), torch.from_numpy(np.sqrt(spectrum.power))


def simulate_flow(
    spectrum: FeatureSpectrum, width: int, times: Sequence[float], *, draws: int, seed: int, members: int = 1
) -> Float[Tensor, "draws times"]:
    r"""Loss of gradient flow for random draws of :math:`A`, without time stepping.

    The eigenvectors of :math:`B B^\top` solve the flow for all times:
    :math:`u(t) = u_0 - B^\top V \frac{1 - e^{-et}}{e} V^\top B u_0`.

    Args:
        spectrum: Unbinned feature variances and target power.
        width: Number of random features :math:`N`.
        times: Times.
        draws: Independent draws.
        seed: Seeds them.
        members: How many models' outputs are averaged.

    Raises:
        ValueError: For a binned spectrum, or a width, draws or members below 1.
    """
    require(width >= 1 and draws >= 1 and members >= 1, "width, draws and members of at least 1", (width, draws))
    root, start = _unbinned(spectrum)
    t = torch.as_tensor(times, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(draws):
        features = torch.randn(members, width, len(root), generator=generator, dtype=torch.float64)
        features *= root / width**0.5
        values, vectors = torch.linalg.eigh(features @ features.mT)
        values = values.clamp_min(1e-14 * float(values.max()))
        along = torch.einsum("ewv,ew->ev", vectors, features @ start)
        if members == 1:
            gain = along**2 / values
            losses.append((start @ start) - gain.sum() + (gain * torch.exp(-2 * t[:, None] * values)).sum(-1))
            continue
        learned = -torch.expm1(-t[:, None, None] * values) / values * along
        step = torch.einsum("tev,ewv,ewk->tk", learned, vectors, features) / members
        losses.append(((start - step) ** 2).sum(-1))
    return torch.stack(losses)


def simulate_sgd(
    spectrum: FeatureSpectrum,
    width: int,
    times: Sequence[float],
    *,
    batch: int,
    rate: float,
    draws: int,
    seed: int,
) -> Float[Tensor, "draws times"]:
    r"""Loss of online stochastic gradient descent: fresh Gaussian examples at every step, all draws at once.

    .. math:: w_{s+1} = w_s + \frac{\eta}{B} \Phi_s^\top (y_s - \Phi_s w_s), \qquad
        \Phi_s = \Psi_s \Lambda^{1/2} A^\top N^{-1/2}, \quad t = \eta s

    Args:
        spectrum: Unbinned feature variances and target power.
        width: Number of random features.
        times: Increasing times, rounded to whole steps.
        batch: Examples a step :math:`B`.
        rate: Learning rate :math:`\eta`.
        draws: Independent draws of features and data.
        seed: Seeds them.

    Raises:
        ValueError: For a binned spectrum, a batch or rate that is not positive, or a loss that diverged.
    """
    require(batch >= 1 and rate > 0, "a batch of at least 1 and a positive rate", (batch, rate))
    root, start = _unbinned(spectrum)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(draws, width, len(root), generator=generator, dtype=torch.float64) * (root / width**0.5)
    weights = torch.zeros(draws, width, 1, dtype=torch.float64)
    marks = [round(time / rate) for time in times]
    losses = []
    for step in range(marks[-1] + 1):
        if step in marks:
            losses.append(((start - (features.mT @ weights)[..., 0]) ** 2).sum(-1))
        inputs = torch.randn(draws, batch, len(root), generator=generator, dtype=torch.float64)
        seen = inputs @ features.mT
        error = inputs @ start[:, None] - seen @ weights
        weights += rate / batch * (seen.mT @ error)
    found = torch.stack(losses, 1)
    require_finite("the loss (lower the rate)", found)
    return found


def simulate_finite_data(
    spectrum: FeatureSpectrum, samples: int, times: Sequence[float], *, draws: int, seed: int
) -> tuple[Float[Tensor, "draws times"], Float[Tensor, "draws times"]]:
    r"""Test and training loss of gradient flow on a finite sample, at infinite width.

    Args:
        spectrum: Unbinned feature variances and target power.
        samples: Number of examples :math:`P`, each seen again and again.
        times: Times.
        draws: Independent samples.
        seed: Seeds them.

    Returns:
        Test losses and training losses.

    Raises:
        ValueError: For a binned spectrum, or no samples or draws.
    """
    require(samples >= 1 and draws >= 1, "at least one sample and one draw", (samples, draws))
    root, start = _unbinned(spectrum)
    t = torch.as_tensor(times, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(seed)
    test, train = [], []
    for _ in range(draws):
        whitened = torch.randn(samples, len(root), generator=generator, dtype=torch.float64)
        inputs = whitened * root / samples**0.5
        targets = whitened @ start / samples**0.5
        values, vectors = torch.linalg.eigh(inputs @ inputs.mT)
        values = values.clamp_min(1e-14 * float(values.max()))
        along = vectors.mT @ targets
        learned = -torch.expm1(-t * values) / values * along
        residual = start - (learned @ vectors.mT @ inputs) * root
        test.append((residual**2).sum(-1))
        train.append(((along * torch.exp(-t * values)) ** 2).sum(-1))
    return torch.stack(test), torch.stack(train)


class Frontier(NamedTuple):
    """Compute-optimal growth.

    Attributes:
        compute: Budgets :math:`C = N t`.
        loss: Lowest loss at each budget.
        width: The width that reaches it.
        time: The time that it leaves.
        bracketed: Whether the best width lies inside the grid at every budget.
    """

    compute: np.ndarray
    loss: np.ndarray
    width: np.ndarray
    time: np.ndarray
    bracketed: bool


def compute_optimal_frontier(
    spectrum: FeatureSpectrum, compute: Float[np.ndarray, " budgets"], *, grid: int = 25, span: float = 30.0
) -> Frontier:
    r"""Best width for each budget :math:`C = N t`, by a logarithmic grid and a parabola through its best three points.

    Args:
        spectrum: Feature variances and target power, usually binned.
        compute: Budgets.
        grid: Widths tried for each budget.
        span: The grid reaches from the guess divided by ``span`` to the guess times ``span``; the guess is the width at
            which the budget's time limit and width limit are equal.

    Raises:
        ValueError: For budgets that are not above 1, or a grid below 5.
    """
    budgets = np.atleast_1d(np.asarray(compute, dtype=np.float64))
    require(bool((budgets > 1).all()) and grid >= 5, "budgets above 1 and a grid of at least 5", (budgets, grid))
    losses, widths, inside = [], [], True
    for budget in budgets:
        guess = _balanced_width(spectrum, budget)
        candidates = np.geomspace(max(guess / span, 1.0), guess * span, grid)
        values = np.array([mean_field_loss(spectrum, n, np.array([budget / n]))[0] for n in candidates])
        best = int(values.argmin())
        inside &= 0 < best < grid - 1
        best = min(max(best, 1), grid - 2)
        x, y = np.log(candidates[best - 1 : best + 2]), np.log(values[best - 1 : best + 2])
        curve = np.polyfit(x, y, 2)
        peak = -curve[1] / (2 * curve[0])
        widths.append(np.exp(peak))
        losses.append(np.exp(np.polyval(curve, peak)))
    width = np.array(widths)
    return Frontier(budgets, np.array(losses), width, budgets / width, bool(inside))


def _balanced_width(spectrum: FeatureSpectrum, budget: float) -> float:
    """Width at which the flow's time just reaches the smallest eigenvalue that the width resolves."""

    def gap(log_width: float) -> float:
        width = np.exp(log_width)
        return float(np.log(static_kappa(spectrum, width) * budget / width))

    high = np.log(min(budget, spectrum.features / 2))
    return float(np.exp(brentq(gap, 0.0, high))) if gap(0.0) * gap(high) < 0 else float(np.exp(high / 2))
