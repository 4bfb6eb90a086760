"""Three sources of images, all mixtures of them trained on, and what predicts how well each mixture will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from netatlas.core.checks import require
from netatlas.scaling_laws.mixtures import (
    MixtureTransport,
    PerformanceFit,
    fit_performance,
    gaussian_label_distance,
    labelled_cost,
    log_linear_projection,
    mixture_grid,
    mixture_transport,
    regressors,
    simplex_ascent,
)

RIDGES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
PROPORTIONS_ONLY, BY_TRANSPORT = ("linear", "quadratic"), ("transport", "pseudo-quadratic")


@dataclass(frozen=True)
class Sources:
    """Labelled points of several sources and a validation set.

    Attributes:
        points: Features of each source, ``[size, d]``.
        labels: Their labels, partly wrong in the last source.
        validation: Features of the validation points.
        validation_labels: Their labels.
    """

    points: tuple[Float[np.ndarray, "n d"], ...]
    labels: tuple[Int[np.ndarray, " n"], ...]
    validation: Float[np.ndarray, "m d"]
    validation_labels: Int[np.ndarray, " m"]


def make_sources(
    images: torch.Tensor,
    labels: torch.Tensor,
    validation: torch.Tensor,
    validation_labels: torch.Tensor,
    *,
    size: int,
    seed: int,
    imbalance: float = 6.0,
    wrong: float = 0.3,
    noise: float = 0.2,
) -> Sources:
    """Two sources that prefer half of the classes each, and a third with wrong labels and pixel noise.

    Args:
        images, labels: A labelled pool of grey images ``[N, 1, 28, 28]`` with ten classes.
        validation, validation_labels: Clean images.
        size: Points of each source, drawn from the pool.
        seed: Seeds the draws.
        imbalance: How much more often a source draws from its own half.
        wrong: Share of wrong labels in the third source.
        noise: Standard deviation of its pixel noise.
    """
    generator = np.random.default_rng(seed)
    pool = torch.nn.functional.avg_pool2d(images, 2).flatten(1).double().numpy()
    clean = torch.nn.functional.avg_pool2d(validation, 2).flatten(1).double().numpy()
    y = labels.numpy()
    points, given = [], []
    for own in (y < 5, y >= 5, np.ones_like(y, dtype=bool)):
        weight = np.where(own, imbalance, 1.0)
        chosen = generator.choice(len(y), size, p=weight / weight.sum(), replace=size > len(y))
        points.append(pool[chosen])
        given.append(y[chosen])
    points[2] = points[2] + noise * generator.standard_normal(points[2].shape)
    flip = generator.random(size) < wrong
    given[2] = np.where(flip, (given[2] + generator.integers(1, 10, size)) % 10, given[2])
    return Sources(tuple(points), tuple(given), clean, validation_labels.numpy())


def mixture_counts(proportions: Float[np.ndarray, "K S"], total: int) -> Int[np.ndarray, "K S"]:
    """Whole numbers of points, by largest remainders.

    Args:
        proportions: Mixtures.
        total: Points of each mixture.
    """
    exact = proportions * total
    counts = np.floor(exact + 1e-9).astype(int)
    remainder = exact - counts
    for row, rest in enumerate(total - counts.sum(1)):
        counts[row, np.argsort(-remainder[row], kind="stable")[:rest]] += 1
    return counts


def mixture_accuracies(
    sources: Sources, counts: Int[np.ndarray, "K S"], *, seed: int, ridge: float = 1.0
) -> Float[np.ndarray, " K"]:
    r"""Validation accuracy of a ridge classifier on one-hot labels, trained on each mixture.

    Normal equations add up over sources, and a mixture takes a prefix of each source in a random order. So each
    prefix's moments are summed once and shared by all mixtures that use it.

    Args:
        sources: The sources.
        counts: Points of each source in each mixture.
        seed: Seeds the order in which points are taken.
        ridge: Penalty on the weights, not on the constant.

    Raises:
        ValueError: If a mixture wants more points than a source has.
    """
    generator = np.random.default_rng(seed)
    dim = sources.validation.shape[1] + 1
    grams = torch.zeros(len(counts), dim, dim, dtype=torch.float64)
    moments = torch.zeros(len(counts), dim, 10, dtype=torch.float64)
    for s, (points, labels) in enumerate(zip(sources.points, sources.labels)):
        require(counts[:, s].max() <= len(points), f"at most {len(points)} points of source {s}", counts[:, s].max())
        order = generator.permutation(len(points))
        x = torch.from_numpy(np.hstack([points[order], np.ones((len(points), 1))]))
        y = torch.nn.functional.one_hot(torch.from_numpy(labels[order]), 10).double()
        stops, place = np.unique(counts[:, s], return_inverse=True)
        edges = [0, *stops]
        own = [x[a:b].mT @ x[a:b] for a, b in zip(edges, edges[1:])]
        with_labels = [x[a:b].mT @ y[a:b] for a, b in zip(edges, edges[1:])]
        grams += torch.stack(own).cumsum(0)[place]
        moments += torch.stack(with_labels).cumsum(0)[place]
    penalty = torch.full((dim,), ridge, dtype=torch.float64)
    penalty[-1] = 1e-6
    weights = torch.cholesky_solve(moments, torch.linalg.cholesky(grams + torch.diag(penalty)))
    test = torch.from_numpy(np.hstack([sources.validation, np.ones((len(sources.validation), 1))]))
    guesses = (test @ weights).argmax(-1).numpy()
    return (guesses == sources.validation_labels).mean(1)


LEARNER_RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)


def tune_learner(sources: Sources, size: int, *, seed: int, repetitions: int = 3) -> float:
    """The learner's penalty, chosen once, by accuracy on the uniform mixture.

    Args:
        sources: The sources.
        size: Points of the mixture.
        seed: Seeds the repetitions.
        repetitions: Trainings for each penalty.
    """
    uniform = mixture_counts(np.full((1, len(sources.points)), 1 / len(sources.points)), size)
    scores = [
        np.mean([mixture_accuracies(sources, uniform, seed=seed + r, ridge=ridge) for r in range(repetitions)])
        for ridge in LEARNER_RIDGES
    ]
    return LEARNER_RIDGES[int(np.argmax(scores))]


class Predictor(NamedTuple):
    """Fits at both disclosed sizes.

    Attributes:
        small: The fit at the smaller size.
        large: The fit at the larger size.
    """

    small: PerformanceFit
    large: PerformanceFit


def choose_predictor(
    designs: Sequence[str],
    proportions: Float[np.ndarray, "K S"],
    transport: Float[np.ndarray, " K"],
    accuracy: tuple[np.ndarray, np.ndarray],
    *,
    ridges: Sequence[float] = RIDGES,
    inner: float = 0.25,
    outer: float = 0.45,
) -> Predictor:
    r"""Choose design and ridge by an inner extrapolation in :math:`p_2`, then fit all mixtures below the outer limit.

    Mixtures with :math:`p_2` below ``inner`` are fitted, those between the limits validate, at the larger size. Nothing
    beyond ``outer`` is looked at.

    Args:
        designs: Designs to choose from.
        proportions: All mixtures.
        transport: Their distances.
        accuracy: Accuracies at the smaller and the larger size.
        ridges: Penalties to choose from.
        inner: Limit of the inner fit.
        outer: Limit of what may be seen.
    """
    p2 = proportions[:, 1]
    low, high, seen = p2 < inner, (p2 >= inner) & (p2 < outer), p2 < outer
    best, chosen = np.inf, (designs[0], ridges[0])
    for design in designs:
        for ridge in ridges:
            fit = fit_performance(design, proportions[low], transport[low], accuracy[1][low], ridge=ridge)
            error = np.abs(fit.predict(proportions[high], transport[high]) - accuracy[1][high]).mean()
            if error < best:
                best, chosen = error, (design, ridge)
    fits = [fit_performance(chosen[0], proportions[seen], transport[seen], a[seen], ridge=chosen[1]) for a in accuracy]
    return Predictor(*fits)


@dataclass(frozen=True)
class SelectionRun:
    """One seed of the selection experiment.

    Attributes:
        proportions: The mixtures.
        transport: Their distances.
        accuracy: Mean accuracy of each mixture by size, and of each repetition's spread.
        error: Mean absolute error on the held-out mixtures by predictor, at the larger disclosed size.
        projected_error: The same at the target size, by projection.
        design: The design that each predictor chose.
        selected: Accuracy at the target size, in repetitions of their own, of the mixtures chosen by gradient ascent
            (``"transport"``), by the same predictor's largest value on the grid, by the proportions' predictor on the
            grid (``"proportions"``), of the ``"uniform"`` one and of the ``"best"`` one of the grid.
        mixture: The mixture that gradient ascent chose.
    """

    proportions: np.ndarray
    transport: np.ndarray
    accuracy: Mapping[int, np.ndarray]
    error: Mapping[str, float]
    projected_error: Mapping[str, float]
    design: Mapping[str, str]
    selected: Mapping[str, float]
    mixture: np.ndarray


class SourceDistances(NamedTuple):
    """Kept points' costs to the validation set.

    Attributes:
        cost: Cost matrix.
        source: Source of each kept point.
        regularization: The entropic regularization used with it.
    """

    cost: np.ndarray
    source: np.ndarray
    regularization: float

    def solve(self, proportions: np.ndarray) -> MixtureTransport:
        """Transport of every mixture."""
        return mixture_transport(self.cost, self.source, proportions, regularization=self.regularization)


def source_distances(
    sources: Sources, *, kept: int, validation: int, label_weight: float = 3.0, share: float = 0.05
) -> SourceDistances:
    """Costs between the first points of every source and the first validation points.

    Args:
        sources: The sources.
        kept: Points kept of each source.
        validation: Validation points kept.
        label_weight: Weight of a wrong label in the cost.
        share: Regularization as a share of the mean cost.
    """
    points = np.concatenate([p[:kept] for p in sources.points])
    labels = np.concatenate([y[:kept] for y in sources.labels])
    cost = labelled_cost(
        points,
        labels,
        sources.validation[:validation],
        sources.validation_labels[:validation],
        label_weight=label_weight,
    )
    source = np.repeat(np.arange(len(sources.points)), kept)
    return SourceDistances(cost, source, share * float(cost.mean()))


def label_distribution_distances(
    sources: Sources, *, kept: int, validation: int, disclosed: int, components: int = 20, share: float = 0.05
) -> SourceDistances:
    r"""Costs whose label term compares what labels *look like*: Wasserstein distances between Gaussians of each label.

    A label of a source is the Gaussian of that source's points that carry it, in the leading principal components of
    the validation points. Both terms of the cost have the weight 1.

    Args:
        sources: The sources.
        kept: Points kept of each source.
        validation: Validation points kept.
        disclosed: Points of each source from which the Gaussians are made.
        components: Principal components.
        share: Regularization as a share of the mean cost.

    Source:
        kang2023projektor: the distance of Alvarez-Melis and Fusi (arXiv 2002.02923).
    """
    centre = sources.validation.mean(0)
    basis = np.linalg.svd(sources.validation - centre, full_matrices=False)[2][:components].T
    clean = (sources.validation - centre) @ basis
    tables = [
        gaussian_label_distance((p[:disclosed] - centre) @ basis, y[:disclosed], clean, sources.validation_labels, 10)
        for p, y in zip(sources.points, sources.labels)
    ]
    cost = labelled_cost(
        np.concatenate([p[:kept] for p in sources.points]),
        np.concatenate([y[:kept] + 10 * s for s, y in enumerate(sources.labels)]),
        sources.validation[:validation],
        sources.validation_labels[:validation],
        label_weight=1.0,
        label_distance=np.concatenate(tables),
    )
    return SourceDistances(cost, np.repeat(np.arange(len(tables)), kept), share * float(cost.mean()))


def selection_run(
    sources: Sources,
    *,
    sizes: tuple[int, int, int],
    repetitions: int,
    kept: int,
    validation: int,
    seed: int,
    parts: int = 10,
) -> SelectionRun:
    """Train on every mixture, fit every predictor on mixtures with little of source 2, and predict the others.

    Args:
        sources: The sources.
        sizes: The two disclosed sizes and the target size.
        repetitions: Trainings of each mixture, averaged.
        kept: Points of each source in the transport problem.
        validation: Validation points there.
        seed: Seeds repetitions and the shuffled control.
        parts: Proportions are multiples of one over this.
    """
    grid = mixture_grid(len(sources.points), parts)
    distances = source_distances(sources, kept=kept, validation=validation)
    transport = distances.solve(grid).cost
    no_labels = source_distances(sources, kept=kept, validation=validation, label_weight=0.0).solve(grid).cost
    by_looks = label_distribution_distances(sources, kept=kept, validation=validation, disclosed=sizes[1])
    looks = by_looks.solve(grid).cost
    shuffled = np.random.default_rng(seed).permutation(transport)

    ridge = tune_learner(sources, sizes[1], seed=seed)

    def accuracies(mixtures: np.ndarray, size: int, first: int = 0) -> np.ndarray:
        counts = mixture_counts(mixtures, size)
        seeds = range(1000 * seed + first, 1000 * seed + first + repetitions)
        return np.mean([mixture_accuracies(sources, counts, seed=r, ridge=ridge) for r in seeds], axis=0)

    accuracy = {size: accuracies(grid, size) for size in sizes}
    disclosed, held = (accuracy[sizes[0]], accuracy[sizes[1]]), grid[:, 1] >= 0.45
    arms = {
        "transport": (BY_TRANSPORT, transport),
        "transport alone": (("transport",), transport),
        "label distributions": (BY_TRANSPORT, looks),
        "proportions": (PROPORTIONS_ONLY, transport),
        "shuffled transport": (BY_TRANSPORT, shuffled),
        "without labels": (BY_TRANSPORT, no_labels),
    }
    fits = {name: choose_predictor(designs, grid, ot, disclosed) for name, (designs, ot) in arms.items()}
    fits["official form"] = choose_predictor(["pseudo-quadratic"], grid, transport, disclosed, ridges=[0.0])
    distance = {name: ot for name, (_, ot) in arms.items()} | {"official form": transport}
    error, projected = {}, {}
    for name, fit in fits.items():
        small, large = (f.predict(grid, distance[name]) for f in fit)
        error[name] = float(np.abs(large - accuracy[sizes[1]])[held].mean())
        guess = log_linear_projection(small, large, sizes[:2], sizes[2])
        projected[name] = float(np.abs(guess - accuracy[sizes[2]])[held].mean())
    chosen = ascend(fits["transport"], distances, sizes)

    def best_predicted(name: str) -> np.ndarray:
        small, large = (f.predict(grid, transport) for f in fits[name])
        return grid[np.argmax(log_linear_projection(small, large, sizes[:2], sizes[2]))]

    wanted = {
        "transport": chosen,
        "transport, best of the grid": best_predicted("transport"),
        "proportions": best_predicted("proportions"),
        "uniform": np.full(grid.shape[1], 1 / grid.shape[1]),
        "best": grid[accuracy[sizes[2]].argmax()],
    }
    # Fresh repetitions: the best of many noisy figures would look better than it is.
    again = accuracies(np.stack(list(wanted.values())), sizes[2], first=500)
    selected = dict(zip(wanted, again.tolist()))
    designs = {name: fit.large.design for name, fit in fits.items()}
    return SelectionRun(grid, transport, accuracy, error, projected, designs, selected, chosen)


def ascend(
    predictor: Predictor, distances: SourceDistances, sizes: tuple[int, int, int], *, steps: int = 25, rate: float = 0.5
) -> Float[np.ndarray, " S"]:
    r"""Gradient ascent on the projected performance, from the uniform mixture.

    The chain rule through the distance uses the mean dual potentials; on the simplex the free constant drops out.

    Args:
        predictor: Fits at both disclosed sizes.
        distances: Costs of the kept points.
        sizes: Disclosed sizes and target.
        steps: Steps at most.
        rate: First step.
    """
    sources = int(distances.source.max()) + 1

    def objective(mixture: np.ndarray) -> tuple[float, np.ndarray]:
        solved = distances.solve(mixture)
        values, slopes = [], []
        for fit in predictor:
            value = float(fit.predict(mixture[None], solved.cost)[0])
            by_p = np.zeros(sources)
            for i in range(sources - 1):
                step = np.zeros(sources)
                step[i] = 1e-6
                ends = [regressors(fit.design, (mixture + sign * step)[None], solved.cost) for sign in (1, -1)]
                by_p[i] = float(((ends[0] - ends[1]) @ fit.coefficients)[0]) / 2e-6
            ends = [regressors(fit.design, mixture[None], solved.cost + sign * 1e-6) for sign in (1, -1)]
            by_distance = float(((ends[0] - ends[1]) @ fit.coefficients)[0]) / 2e-6
            values.append(value)
            slopes.append(by_p + by_distance * solved.potential[0])
        slope = log_linear_projection(slopes[0], slopes[1], sizes[:2], sizes[2])
        projected = log_linear_projection(np.array(values[0]), np.array(values[1]), sizes[:2], sizes[2])
        return float(projected), slope - slope.mean()

    return simplex_ascent(objective, np.full(sources, 1 / sources), steps=steps, rate=rate)[-1]


def gradient_check(distances: SourceDistances, mixture: np.ndarray, *, step: float = 1e-5) -> float:
    r"""Largest difference between the calibrated gradient and central differences of the regularised cost.

    Args:
        distances: Costs of the kept points.
        mixture: A mixture in the simplex's interior.
        step: Change of a proportion; the others change against it in proportion.
    """
    tight = {"regularization": distances.regularization, "tolerance": 1e-13}
    exact = mixture_transport(distances.cost, distances.source, mixture, **tight).gradient[0]
    found = []
    for s in range(len(mixture)):
        direction = -mixture / (1 - mixture[s])
        direction[s] = 1.0
        ends = np.stack([mixture + step * direction, mixture - step * direction])
        costs = mixture_transport(distances.cost, distances.source, ends, **tight).cost
        found.append((costs[0] - costs[1]) / (2 * step))
    return float(np.abs(np.array(found) - exact).max())
