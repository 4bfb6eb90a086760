r"""Choosing among data sources by optimal transport: distances of mixtures, fits of performance, and selection.

A mixture with proportions :math:`p` puts the mass :math:`p_s/n_s` on each of the :math:`n_s` points kept from source
:math:`s`. The points stay where they are, so that all mixtures share one cost matrix and are solved together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import ot
from jaxtyping import Float, Int

from netatlas.core.checks import require, require_finite

DESIGNS = ("linear", "quadratic", "transport", "pseudo-quadratic")


def mixture_grid(sources: int, parts: int) -> Float[np.ndarray, "mixtures sources"]:
    r"""All proportions that are multiples of ``1/parts``, in lexicographic order.

    Args:
        sources: Number of sources, at least 2.
        parts: Parts, at least 1.

    Raises:
        ValueError: For fewer sources or parts.
    """
    require(sources >= 2 and parts >= 1, "two sources and one part at least", (sources, parts))
    counts = [c for c in itertools.product(range(parts + 1), repeat=sources - 1) if sum(c) <= parts]
    return np.array([[*c, parts - sum(c)] for c in counts]) / parts


def gaussian_label_distance(
    first: Float[np.ndarray, "n d"],
    first_labels: Int[np.ndarray, " n"],
    second: Float[np.ndarray, "m d"],
    second_labels: Int[np.ndarray, " m"],
    classes: int,
    *,
    shrinkage: float = 1e-3,
) -> Float[np.ndarray, "classes classes"]:
    r"""Wasserstein distances between labels, each label a Gaussian of its own points (the label term of OTDD).

    .. math:: W_2^2 = \lVert \mu - \mu' \rVert^2 + \mathrm{tr}\bigl(\Sigma + \Sigma' - 2(\Sigma^{1/2} \Sigma'
        \Sigma^{1/2})^{1/2}\bigr)

    Args:
        first, first_labels: Points of the one set.
        second, second_labels: Points of the other.
        classes: Number of labels; one that is absent on either side is at the largest distance found.
        shrinkage: Added to the diagonals of the covariances, as a share of the mean variance.

    Raises:
        ValueError: For labels outside ``0..classes-1`` or NaN.
    """
    require_finite("first", first)
    require_finite("second", second)
    for labels in (first_labels, second_labels):
        require(bool((labels >= 0).all() and (labels < classes).all()), f"labels in 0..{classes - 1}", labels.max())

    def moments(points: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray] | None]:
        floor = shrinkage * max(float(points.var(0).mean()), 1e-12) * np.eye(points.shape[1])
        groups = [points[labels == c] for c in range(classes)]
        return [(g.mean(0), (np.cov(g.T) if len(g) > 1 else 0 * floor) + floor) if len(g) else None for g in groups]

    left, right = moments(first, first_labels), moments(second, second_labels)
    table = np.full((classes, classes), np.nan)
    for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right)):
        if a is not None and b is not None:
            table[i, j] = ot.gaussian.bures_wasserstein_distance(a[0], b[0], a[1], b[1])
    return np.nan_to_num(table, nan=float(np.nanmax(table)))


def labelled_cost(
    first: Float[np.ndarray, "n d"],
    first_labels: Int[np.ndarray, " n"],
    second: Float[np.ndarray, "m d"],
    second_labels: Int[np.ndarray, " m"],
    *,
    label_weight: float,
    label_distance: Float[np.ndarray, "C C"] | None = None,
) -> Float[np.ndarray, "n m"]:
    r"""Cost between labelled points, :math:`\lVert x - x' \rVert + c\,W(y, y')`.

    Args:
        first, first_labels: Training points.
        second, second_labels: Validation points.
        label_weight: The weight :math:`c \ge 0`.
        label_distance: :math:`W`; without it 1 where labels differ, else 0.

    Raises:
        ValueError: For a negative weight, NaN, or lengths that differ.

    Source:
        kang2023projektor; the label term is that of Alvarez-Melis and Fusi (arXiv 2002.02923).
    """
    require(label_weight >= 0, "a label weight of at least 0", label_weight)
    require(len(first) == len(first_labels) and len(second) == len(second_labels), "one label a point", "others")
    require_finite("first", first)
    require_finite("second", second)
    a, b = np.asarray(first_labels)[:, None], np.asarray(second_labels)[None]
    labels = (a != b).astype(float) if label_distance is None else label_distance[a, b]
    return ot.dist(first, second, metric="euclidean") + label_weight * labels


class MixtureTransport(NamedTuple):
    r"""Entropic transport of every mixture to the validation set.

    Attributes:
        cost: Regularised cost :math:`\langle P, C\rangle + \varepsilon\,\mathrm{KL}(P \,|\, a \otimes b)`.
        transport: :math:`\langle P, C \rangle` of the same plans.
        potential: Mean dual potential of each source's points, up to one constant a mixture: the gradient of ``cost``
            on the simplex, ``[mixtures, sources]``.
        gradient: Calibrated derivatives :math:`\partial/\partial p_s` of ``cost``, ``[mixtures, sources]``.
    """

    cost: Float[np.ndarray, " mixtures"]
    transport: Float[np.ndarray, " mixtures"]
    potential: Float[np.ndarray, "mixtures sources"]
    gradient: Float[np.ndarray, "mixtures sources"]


def mixture_transport(
    cost: Float[np.ndarray, "n m"],
    source: Int[np.ndarray, " n"],
    proportions: Float[np.ndarray, "mixtures sources"],
    *,
    regularization: float,
    tolerance: float = 1e-9,
    steps: int = 5000,
) -> MixtureTransport:
    r"""Sinkhorn's iteration for all mixtures at once: one matrix product a step, whatever their number.

    By the envelope theorem the cost's derivative along a change of weights is the dual potential :math:`f`, which is
    defined up to a constant. The calibrated derivative lets :math:`p_s` grow while the others shrink in proportion, and
    the constant cancels:

    .. math:: \frac{\partial\,\mathrm{OT}}{\partial p_s} = \bar f_s - \sum_{r \ne s} \frac{p_r}{1 - p_s} \bar f_r,
        \qquad f = -\varepsilon \ln \bigl(e^{-C/\varepsilon} (b \odot v)\bigr),

    with :math:`\bar f_s` the mean over the points of source :math:`s`. It exists for absent sources too.

    Args:
        cost: Costs between the kept training points and the validation points.
        source: Source of each training point; every source has one at least.
        proportions: Mixtures, each summing to 1.
        regularization: :math:`\varepsilon > 0`, in units of the cost.
        tolerance: Largest violation of a marginal (sum of absolute differences) at which the iteration stops.
        steps: Steps at most.

    Raises:
        ValueError: For proportions that are negative or do not sum to 1, a source without points, a regularization so
            small that the kernel underflows, NaN, or an iteration that has not settled.

    Source:
        kang2023projektor (the calibrated gradient).
    """
    cost, weight = np.asarray(cost, dtype=np.float64), np.atleast_2d(np.asarray(proportions, dtype=np.float64))
    require_finite("cost", cost)
    require(cost.ndim == 2 and len(source) == len(cost), f"one source a row of the cost ({len(cost)})", len(source))
    require(
        bool((weight >= 0).all() and np.allclose(weight.sum(1), 1)), "proportions of sum 1, not negative", weight.sum(1)
    )
    require(regularization > 0, "a positive regularization", regularization)
    counts = np.bincount(source, minlength=weight.shape[1])
    require(len(counts) == weight.shape[1] and bool((counts > 0).all()), "points from every source", counts)
    belongs = np.eye(len(counts))[source] / counts
    a, b = belongs @ weight.T, np.full(cost.shape[1], 1 / cost.shape[1])
    kernel = np.exp(-(cost - cost.min()) / regularization)
    right = np.ones((cost.shape[1], len(weight)))
    for step in range(steps):
        reach = kernel @ (b[:, None] * right)
        require(step > 0 or bool((reach > 0).all()), "a larger regularization (the kernel underflows)", regularization)
        left = 1 / reach
        back = kernel.T @ (a * left)
        if step % 10 == 0 and float((b @ np.abs(right * back - 1)).max()) <= tolerance:
            break
        right = 1 / back
    else:
        raise ValueError(f"expected Sinkhorn's iteration to settle in {steps} steps, got a looser marginal")
    potential = regularization * np.log(left) + cost.min()
    other = regularization * np.log(right)
    value = (a * potential).sum(0) + b @ other
    transport = np.einsum("nk,nm,mk->k", a * left, kernel * cost, b[:, None] * right)
    means = (belongs.T @ potential).T
    whole = (weight * means).sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        others = (whole - weight * means) / (1 - weight)
    # A mixture of one source alone has no others in any proportion: they are taken alike.
    alike = (means.sum(1, keepdims=True) - means) / (len(counts) - 1)
    return MixtureTransport(value, transport, means, means - np.where(weight < 1, others, alike))


def regressors(
    design: str, proportions: Float[np.ndarray, "K S"], transport: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "K F"]:
    r"""Columns of a performance model; the last source's proportion is dropped, as the proportions sum to 1.

    ``"linear"``: :math:`1, p_i`. ``"quadratic"``: also :math:`p_i p_j`. ``"transport"``: :math:`1, \mathrm{OT}`.
    ``"pseudo-quadratic"``: :math:`1, \mathrm{OT}, p_i, p_i \mathrm{OT}, p_i^2 \mathrm{OT}`.

    Args:
        design: One of the four.
        proportions: Mixtures.
        transport: Their distances to the validation set.

    Raises:
        ValueError: For an unknown design.

    Source:
        kang2023projektor, the pseudo-quadratic model, in the form of the authors' notebook.
    """
    require(design in DESIGNS, f"a design out of {', '.join(DESIGNS)}", repr(design))
    p, distance = proportions[:, :-1], np.asarray(transport)[:, None]
    one = np.ones_like(distance)
    if design == "linear":
        return np.hstack([one, p])
    if design == "quadratic":
        pairs = [p[:, [i]] * p[:, [j]] for i, j in itertools.combinations_with_replacement(range(p.shape[1]), 2)]
        return np.hstack([one, p, *pairs])
    if design == "transport":
        return np.hstack([one, distance])
    return np.hstack([one, distance, p, p * distance, p**2 * distance])


class PerformanceFit(NamedTuple):
    """A linear model of performance.

    Attributes:
        design: Its columns.
        coefficients: One a column.
        ridge: The penalty that it was fitted with.
    """

    design: str
    coefficients: Float[np.ndarray, " F"]
    ridge: float

    def predict(self, proportions: np.ndarray, transport: np.ndarray) -> Float[np.ndarray, " K"]:
        """Predicted performance of mixtures."""
        return regressors(self.design, proportions, transport) @ self.coefficients


def fit_performance(
    design: str,
    proportions: Float[np.ndarray, "K S"],
    transport: Float[np.ndarray, " K"],
    performance: Float[np.ndarray, " K"],
    *,
    ridge: float = 0.0,
) -> PerformanceFit:
    r"""Least squares, or ridge on columns of unit variance with a free constant.

    Args:
        design: As in :func:`regressors`.
        proportions: Mixtures that were trained on.
        transport: Their distances.
        performance: What they reached.
        ridge: Penalty :math:`\lambda \ge 0`, per mixture.

    Raises:
        ValueError: For a negative ridge, lengths that differ, or NaN.
    """
    require(ridge >= 0, "a ridge of at least 0", ridge)
    require(
        len(proportions) == len(performance) == len(transport), f"{len(proportions)} performances", len(performance)
    )
    columns = regressors(design, proportions, transport)
    require_finite("performance", np.asarray(performance))
    rest = columns[:, 1:]
    centre, scale = rest.mean(0), rest.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    x, y = (rest - centre) / scale, performance - np.mean(performance)
    if ridge:
        slope = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ y)
    else:
        slope = np.linalg.lstsq(x, y, rcond=None)[0]
    slope = slope / scale
    return PerformanceFit(design, np.concatenate([[np.mean(performance) - slope @ centre], slope]), ridge)


def log_linear_projection(
    small: np.ndarray, large: np.ndarray, sizes: tuple[float, float], target: float
) -> np.ndarray:
    r"""Performance at a larger size by a straight line in the logarithm of the size, without free parameters.

    .. math:: \hat L(N) = \frac{\ln(N/N_0)\,\hat L(N_1) - \ln(N/N_1)\,\hat L(N_0)}{\ln(N_1/N_0)}

    Args:
        small: Performance at :math:`N_0`.
        large: Performance at :math:`N_1`.
        sizes: :math:`N_0 < N_1`.
        target: :math:`N > 0`.

    Raises:
        ValueError: For sizes that do not increase or are not positive.

    Source:
        kang2023projektor, the performance projection.
    """
    first, second = sizes
    require(0 < first < second and target > 0, "0 < N_0 < N_1 and N > 0", (sizes, target))
    return (np.log(target / first) * large - np.log(target / second) * small) / np.log(second / first)


def project_to_simplex(point: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """The nearest proportions to a point, by sorting.

    Args:
        point: Any finite vector.

    Raises:
        ValueError: For NaN or no entries.

    Source:
        Duchi et al., ICML 2008.
    """
    values = np.asarray(point, dtype=np.float64)
    require(values.ndim == 1 and values.size > 0, "a vector", values.shape)
    require_finite("point", values)
    ordered = np.sort(values)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(values) + 1)
    return np.maximum(values - excess[np.flatnonzero(ordered > excess)[-1]], 0)


def simplex_ascent(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: Float[np.ndarray, " S"],
    *,
    steps: int,
    rate: float,
) -> Float[np.ndarray, "steps S"]:
    """Projected gradient ascent with a step that halves whenever it would not climb.

    Args:
        objective: Value and derivatives at a mixture.
        start: Mixture to start from.
        steps: Steps.
        rate: First step length.

    Returns:
        The path, the start first.
    """
    require(steps >= 1 and rate > 0, "a step and a positive rate", (steps, rate))
    path = [project_to_simplex(start)]
    value, gradient = objective(path[0])
    for _ in range(steps):
        trial = project_to_simplex(path[-1] + rate * gradient)
        new, new_gradient = objective(trial)
        if new > value:
            path.append(trial)
            value, gradient = new, new_gradient
        else:
            rate /= 2
    return np.array(path)
