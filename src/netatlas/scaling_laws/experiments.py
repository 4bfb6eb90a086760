"""Experiments of the chapter: published routed runs, a small routed model, and checks of the mean-field theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.power_law import fit_power_law, fit_replicated_power_law
from netatlas.core.stats import Interval, stderr
from netatlas.scaling_laws.dynamical import (
    FeatureSpectrum,
    compute_optimal_frontier,
    ensemble_loss,
    finite_data_loss,
    mean_field_loss,
    power_law_spectrum,
    simulate_finite_data,
    simulate_flow,
    static_loss,
)
from netatlas.scaling_laws.regimes import (
    arc_cosine_network,
    nested_kernel_regression,
    relu_features,
    spectrum_tail,
    two_nn_dimension,
)
from netatlas.scaling_laws.routed_law import (
    HeldOutSize,
    LawForm,
    RoutedLaw,
    bootstrap_laws,
    fit_routed_law,
    jackknife_sizes,
    predict_held_out_size,
)
from netatlas.scaling_laws.routing import WITH_CONTROL, Grammar, RoutedModel, Router, train_routed, training_texts

if TYPE_CHECKING:
    import pandas as pd

# Coefficients a, b, c, d that the paper reports for each router.
PUBLISHED = {
    "S-Base": (-0.082, -0.108, 0.009, 1.104),
    "RL-R": (-0.083, -0.126, 0.012, 1.111),
    "Hash": (-0.087, -0.136, 0.012, 1.157),
}


class Runs(NamedTuple):
    """Final losses of one router's runs, the dense ones among them.

    Attributes:
        size: Dense sizes.
        experts: Expert counts.
        loss: Validation losses in nats a token.
    """

    size: Float[np.ndarray, " runs"]
    experts: Float[np.ndarray, " runs"]
    loss: Float[np.ndarray, " runs"]


def routed_runs(frame: pd.DataFrame) -> dict[str, Runs]:
    """The published runs that the main fit uses: last step, half of the blocks routed, one expert a token, first seed.

    Args:
        frame: The authors' table.
    """
    last = frame.sort_values("step", kind="stable").groupby("hyper_id").tail(1)
    kept = last[(last.routing_frequency == 0.5) & (last.k == 1) & (last.seed == 42)]
    found = {}
    for router in PUBLISHED:
        rows = kept[kept.router_type.isin([router, "Dense"])]
        columns = ("dense_parameter_count", "num_experts", "loss_validation")
        found[router] = Runs(*(rows[name].to_numpy(dtype=np.float64) for name in columns))
    return found


@dataclass(frozen=True)
class RoutedEvidence:
    """What one router's published runs say.

    Attributes:
        law: The full law on all runs.
        held: Prediction of the largest dense size.
        interaction: The coefficient ``c`` with each size left out.
        interaction_stderr: Its jackknife standard error.
        interaction_bootstrap: The coefficient in resamples of the runs.
        departure: Largest relative departure of ``a``, ``b``, ``c``, ``d`` from the published ones.
    """

    law: RoutedLaw
    held: HeldOutSize
    interaction: Float[np.ndarray, " sizes"]
    interaction_stderr: float
    interaction_bootstrap: Float[np.ndarray, " samples"]
    departure: float


def routed_evidence(runs: Mapping[str, Runs], *, samples: int, seed: int) -> dict[str, RoutedEvidence]:
    """Fits, held-out prediction, jackknife and bootstrap for every router.

    Args:
        runs: Runs by router.
        samples: Bootstrap samples.
        seed: Seeds them.
    """
    found = {}
    for router, data in runs.items():
        law = fit_routed_law(*data)
        left_out, errors = jackknife_sizes(*data)
        drawn = bootstrap_laws(*data, samples=samples, seed=seed)
        published = np.array(PUBLISHED[router])
        fitted = np.array([law.a, law.b, law.c, law.d])
        found[router] = RoutedEvidence(
            law,
            predict_held_out_size(*data, held_out=float(data.size.max())),
            np.array([one.c for one in left_out]),
            errors["c"],
            np.array([one.c for one in drawn]),
            float(np.abs(fitted / published - 1).max()),
        )
    return found


def separable_null(runs: Mapping[str, Runs], *, samples: int, seed: int) -> Float[np.ndarray, " routers_times_samples"]:
    r"""What the product term gains on the held-out size where there is none.

    Losses are made by the separable saturating law fitted to each router's runs, with its residuals in random order.

    Args:
        runs: Runs by router.
        samples: Made data sets for each router.
        seed: Seeds the orders.

    Returns:
        Held-out error without the product term minus with it.
    """
    generator = np.random.default_rng(seed)
    found = []
    for size, experts, loss in runs.values():
        flat = fit_routed_law(size, experts, loss, form="separable saturating").log_loss(size, experts)
        rest = np.log10(loss) - flat
        for _ in range(samples):
            made = 10 ** (flat + generator.permutation(rest))
            forms: tuple[LawForm, ...] = ("separable saturating", "full")
            held = predict_held_out_size(size, experts, made, held_out=float(size.max()), forms=forms)
            found.append(held.rmse["separable saturating"] - held.rmse["full"])
    return np.array(found)


class RoutingSweep(NamedTuple):
    """What all routers reached.

    Attributes:
        losses: ``[hidden, experts, seeds]`` by router.
        rates: The learning rates chosen, ``[hidden, experts]`` by router.
    """

    losses: dict[str, Float[np.ndarray, "hidden experts seeds"]]
    rates: dict[str, Float[np.ndarray, "hidden experts"]]


def routing_sweep(
    grammar: Grammar,
    hidden: Sequence[int],
    experts: Sequence[int],
    *,
    seeds: Sequence[int],
    steps: int,
    batch: int,
    routers: Sequence[Router] = WITH_CONTROL,
) -> RoutingSweep:
    """Losses of every router at every size and expert count; with one expert all routers are the same dense model.

    Args:
        grammar: The language.
        hidden: Hidden units of the dense block and of each expert.
        experts: Expert counts, beginning with 1.
        seeds: Repetitions.
        steps: Training steps.
        batch: Tokens a step.
        routers: Routers, ``"position"`` being the control.
    """
    require(experts[0] == 1, "expert counts that begin with 1", experts[0])
    recipe: dict[str, Any] = {"seeds": seeds, "steps": steps, "batch": batch}
    recipe["texts"] = training_texts(grammar, **recipe)
    vocabulary = len(grammar.bias)
    dense = [train_routed(RoutedModel(vocabulary, n), grammar, **recipe) for n in hidden]
    losses: dict[str, np.ndarray] = {}
    rates: dict[str, np.ndarray] = {}
    for router in routers:
        rows = [
            [first, *(train_routed(RoutedModel(vocabulary, n, e, router), grammar, **recipe) for e in experts[1:])]
            for n, first in zip(hidden, dense)
        ]
        losses[router] = np.stack([torch.stack([one.loss for one in row]).numpy() for row in rows])
        rates[router] = np.array([[one.rate for one in row] for row in rows])
    return RoutingSweep(losses, rates)


def routing_gain(losses: Float[np.ndarray, "hidden experts seeds"]) -> Float[np.ndarray, " hidden"]:
    """Loss saved by the most experts, in paired standard errors over seeds, for each size.

    Args:
        losses: One router's losses of :func:`routing_sweep`.
    """
    saved = losses[:, 0] - losses[:, -1]
    return np.array([row.mean() / max(stderr(row), 1e-12) for row in saved])


def falls_everywhere(losses: Float[np.ndarray, "hidden experts seeds"]) -> int:
    """Sizes at which the seed-mean loss falls with every increase of the expert count.

    Args:
        losses: One router's losses of :func:`routing_sweep`.
    """
    return int((np.diff(losses.mean(-1), axis=1) < 0).all(1).sum())


def small_scale_interaction(
    losses: Float[np.ndarray, "hidden experts seeds"],
    sizes: Sequence[float],
    experts: Sequence[int],
    *,
    samples: int,
    seed: int,
) -> Float[np.ndarray, " samples"]:
    """The bilinear law's coefficient ``c`` in small runs, the seeds resampled.

    Args:
        losses: One router's losses of :func:`routing_sweep`.
        sizes: Dense sizes.
        experts: Expert counts.
        samples: Bootstrap samples.
        seed: Seeds them.
    """
    count = losses.shape[-1]
    n, e = (grid.ravel().astype(float) for grid in np.meshgrid(sizes, experts, indexing="ij"))
    drawn = np.random.default_rng(seed).integers(count, size=(samples, count))
    return np.array([fit_routed_law(n, e, losses[..., row].mean(-1).ravel(), form="bilinear").c for row in drawn])


class Agreement(NamedTuple):
    """Theory beside simulation at one width.

    Attributes:
        task, capacity: Exponents of the spectrum.
        width: Random features.
        ratio: Mean simulated loss over the theory's, by time.
        stderr: Its standard error.
        excess: Largest departure in units of three standard errors plus ``1/width``.
    """

    task: float
    capacity: float
    width: int
    ratio: Float[np.ndarray, " times"]
    stderr: Float[np.ndarray, " times"]
    excess: float


def mean_field_agreement(
    cases: Sequence[tuple[float, float]],
    draws: Mapping[int, int],
    times: Sequence[float],
    *,
    features: int,
    seed: int,
) -> list[Agreement]:
    """Simulate gradient flow and compare with the theory.

    Args:
        cases: Pairs of task and capacity exponents.
        draws: Number of draws for each width.
        times: Times.
        features: Number of features.
        seed: Seeds the draws.
    """
    found = []
    for task, capacity in cases:
        spectrum = power_law_spectrum(task, capacity, features=features)
        for width, count in draws.items():
            losses = simulate_flow(spectrum, width, times, draws=count, seed=seed + width).numpy()
            theory = mean_field_loss(spectrum, width, np.asarray(times))
            ratio, error = losses.mean(0) / theory, losses.std(0, ddof=1) / count**0.5 / theory
            excess = float((np.abs(ratio - 1) / (3 * error + 1 / width)).max())
            found.append(Agreement(task, capacity, width, ratio, error, excess))
    return found


class FiniteData(NamedTuple):
    """Repeated data: simulation beside theory, by number of examples.

    Attributes:
        times: Times.
        test, train: Simulated losses, ``[draws, times]`` each.
        theory, theory_train: The theory's.
        excess: Largest departure of the test loss in units of three standard errors plus one over the examples.
    """

    times: Float[np.ndarray, " times"]
    test: dict[int, Float[np.ndarray, "draws times"]]
    train: dict[int, Float[np.ndarray, "draws times"]]
    theory: dict[int, Float[np.ndarray, " times"]]
    theory_train: dict[int, Float[np.ndarray, " times"]]
    excess: dict[int, float]

    def final(self) -> Float[np.ndarray, "draws examples"]:
        """Simulated test losses at the last time."""
        return np.stack([value[:, -1] for value in self.test.values()], 1)


def finite_data_agreement(
    spectrum: FeatureSpectrum, examples: Sequence[int], times: Sequence[float], *, draws: int, seed: int
) -> FiniteData:
    """Simulate gradient flow on finite samples and compare with the theory.

    Args:
        spectrum: Unbinned spectrum.
        examples: Numbers of examples.
        times: Times.
        draws: Draws of each.
        seed: Seeds them.
    """
    t = np.asarray(times, dtype=np.float64)
    found = FiniteData(t, {}, {}, {}, {}, {})
    for p in examples:
        test, train = (v.numpy() for v in simulate_finite_data(spectrum, p, t.tolist(), draws=draws, seed=seed + p))
        found.test[p], found.train[p] = test, train
        found.theory[p], found.theory_train[p] = finite_data_loss(spectrum, p, t)
        ratio, error = test.mean(0) / found.theory[p], test.std(0, ddof=1) / draws**0.5 / found.theory[p]
        found.excess[p] = float((np.abs(ratio - 1) / (3 * error + 1 / p)).max())
    return found


QUANTITIES = ("time", "width", "loss at best", "width at best", "time at best")


def exponent_table(
    cases: Sequence[tuple[float, float]], *, features: float, bins: int, budgets: int = 6
) -> dict[tuple[float, float], dict[str, tuple[float, float]]]:
    r"""Exponents of the theory's curves beside the formulas, as pairs (predicted, fitted).

    .. math:: t^{-(a-1)/b}, \quad N^{-(a-1)}, \quad L^* \sim C^{-(a-1)/(1+b)}, \quad N^* \sim C^{1/(1+b)}, \quad
        t^* \sim C^{b/(1+b)}

    Args:
        cases: Pairs of task and capacity exponents with :math:`a - 1 \le b`.
        features: Number of features.
        bins: Bins of the spectrum.
        budgets: Compute budgets between 1e8 and 1e12.

    Raises:
        ValueError: If the best width of a budget lies at the end of the grid.
    """
    table = {}
    for a, b in cases:
        spectrum = power_law_spectrum(a, b, features=features, bins=bins)
        times, widths = np.geomspace(30, 3e4, 10), np.geomspace(1e3, 1e5, 7)
        compute = np.geomspace(1e8, 1e12, budgets)
        frontier = compute_optimal_frontier(spectrum, compute, grid=13, span=10)
        require(frontier.bracketed, "a best width inside the grid", frontier.width)
        curves = {
            "time": (times, mean_field_loss(spectrum, np.inf, times), (a - 1) / b),
            "width": (widths, np.array([static_loss(spectrum, n) for n in widths]), a - 1),
            "loss at best": (compute, frontier.loss, (a - 1) / (1 + b)),
            "width at best": (compute, 1 / frontier.width, 1 / (1 + b)),
            "time at best": (compute, 1 / frontier.time, b / (1 + b)),
        }
        table[a, b] = {name: (law, fit_power_law(x, y).exponent) for name, (x, y, law) in curves.items()}
    return table


def width_corrections(task: float, capacity: float, *, features: float, bins: int) -> tuple[float, float]:
    r"""Exponents in the width of :math:`L(t, N) - L(t, \infty)` early (t = 4) and of :math:`L(t, N)` late (t = 1e9).

    Args:
        task, capacity: Exponents of the spectrum.
        features: Number of features.
        bins: Bins of the spectrum.
    """
    spectrum = power_law_spectrum(task, capacity, features=features, bins=bins)
    early_widths, late_widths = np.geomspace(64, 1024, 5), np.geomspace(100, 3000, 5)
    early = [
        (mean_field_loss(spectrum, n, np.array([4.0])) - mean_field_loss(spectrum, np.inf, np.array([4.0])))[0]
        for n in early_widths
    ]
    late = [mean_field_loss(spectrum, n, np.array([1e9]))[0] for n in late_widths]
    return fit_power_law(early_widths, early).exponent, fit_power_law(late_widths, late).exponent


class EnsembleComparison(NamedTuple):
    """Four small models averaged beside one of four times the width.

    Attributes:
        times: Times.
        ratio: Mean loss of the ensemble over that of the wide model.
        separation: Their difference in standard errors.
        theory: The ratio by theory.
    """

    times: Float[np.ndarray, " times"]
    ratio: Float[np.ndarray, " times"]
    separation: Float[np.ndarray, " times"]
    theory: Float[np.ndarray, " times"]


def ensemble_against_width(
    spectrum: FeatureSpectrum, width: int, times: Sequence[float], *, members: int, draws: int, seed: int
) -> EnsembleComparison:
    """Losses at equal compute: the same time, and equally many features in all.

    Args:
        spectrum: Unbinned spectrum.
        width: Width of one member.
        times: Times.
        members: Members of the ensemble.
        draws: Draws of each.
        seed: Seeds them.
    """
    t = np.asarray(times, dtype=np.float64)
    many = simulate_flow(spectrum, width, times, draws=draws, seed=seed, members=members).numpy()
    one = simulate_flow(spectrum, width * members, times, draws=draws, seed=seed + 1).numpy()
    error = np.sqrt(many.var(0, ddof=1) / draws + one.var(0, ddof=1) / draws)
    theory = ensemble_loss(spectrum, width, t, members) / mean_field_loss(spectrum, width * members, t)
    return EnsembleComparison(t, many.mean(0) / one.mean(0), (many.mean(0) - one.mean(0)) / error, theory)


class RealSpectrum(NamedTuple):
    """A kernel's spectrum on images, and random-feature models trained on them.

    Attributes:
        spectrum: Eigenvalues and target power.
        capacity: Exponent of the eigenvalues from rank 10 to three tenths of all.
        task: One more than the exponent of the target power left beyond a rank, over the same ranks.
        losses: Simulated loss over the target's power by width, ``[draws, times]``.
        theory: The theory's.
    """

    spectrum: FeatureSpectrum
    capacity: float
    task: float
    losses: dict[int, Float[np.ndarray, "draws times"]]
    theory: dict[int, Float[np.ndarray, " times"]]


def real_spectrum(
    images: Float[Tensor, "N ..."],
    labels: Tensor,
    widths: Sequence[int],
    times: Sequence[float],
    *,
    draws: int,
    seed: int,
) -> RealSpectrum:
    """Gradient flow of random ReLU features on images, beside the theory for the kernel's own spectrum.

    The images are the whole population. The target is whether the digit is even.

    Args:
        images: Images.
        labels: Labels.
        widths: Numbers of random ReLU features.
        times: Times.
        draws: Draws of the features.
        seed: Seeds them.
    """
    x = images.flatten(1).double()
    x = x / x.norm(dim=1, keepdim=True) * x.shape[1] ** 0.5
    y = torch.where(labels % 2 == 0, 1.0, -1.0).double()
    count = len(x)
    gram = arc_cosine_network().kernel(x, get="nngp") / count
    values, vectors = torch.linalg.eigh(gram)
    power = ((vectors.mT @ y) ** 2 / count).flip(0).numpy()
    eigenvalues = values.flip(0).clamp_min(1e-12).numpy()
    spectrum = FeatureSpectrum(eigenvalues, power, np.ones(count))
    ranks = np.unique(np.geomspace(10, 0.3 * count, 12).astype(int))
    tail = np.cumsum(power[::-1])[::-1]
    capacity, task = fit_power_law(ranks, eigenvalues[ranks]).exponent, 1 + fit_power_law(ranks, tail[ranks]).exponent
    generator, t = torch.Generator().manual_seed(seed), torch.as_tensor(times, dtype=torch.float64)[:, None]
    losses, theory = {}, {}
    for width in widths:
        rows = []
        for _ in range(draws):
            hidden = torch.randn(width, x.shape[1], generator=generator, dtype=torch.float64)
            phi = relu_features(x, hidden) / (width * count) ** 0.5
            e, v = torch.linalg.eigh(phi.mT @ phi)
            e = e.clamp_min(1e-14 * float(e.max()))
            gain = (v.mT @ (phi.mT @ y)) ** 2 / e / count
            rows.append(1 - gain.sum() + (gain * torch.exp(-2 * t * e)).sum(-1))
        losses[width] = torch.stack(rows).numpy()
        theory[width] = mean_field_loss(spectrum, width, np.asarray(times))
    return RealSpectrum(spectrum, capacity, task, losses, theory)


class Exponent(NamedTuple):
    """An exponent, predicted and fitted.

    Attributes:
        label: What falls with what.
        law: The family of predictions that it belongs to.
        predicted: The predicted exponent.
        fitted: Mean fit with the half-width of its 95 % bootstrap interval over draws; 0 for curves without noise.
    """

    label: str
    law: str
    predicted: float
    fitted: Interval

    @property
    def ratio(self) -> float:
        """Fitted over predicted."""
        return self.fitted.mean / self.predicted


def measure_exponent(
    label: str, law: str, x: Sequence[float], curves: Tensor | np.ndarray, predicted: float, *, seed: int = 0
) -> Exponent:
    """Fit a power law to the mean of curves, with an interval from resampled curves.

    Args:
        label, law: As in :class:`Exponent`.
        x: Positions.
        curves: ``[draws, positions]``; one draw has no interval.
        predicted: The predicted exponent.
        seed: Seeds the bootstrap.
    """
    rows = np.atleast_2d(np.asarray(curves))
    positions = np.asarray(x, dtype=np.float64)
    if len(rows) == 1:
        return Exponent(label, law, predicted, Interval(fit_power_law(positions, rows[0]).exponent, 0.0, 1))
    return Exponent(label, law, predicted, fit_replicated_power_law(positions, rows, seed=seed).interval())


class MergedClasses(NamedTuple):
    """Learning curves on the same images with classes merged.

    Attributes:
        sizes: Training set sizes.
        losses: Test loss over the targets' variance by number of classes, ``[draws, sizes]``.
        dimension: Intrinsic dimension by two nearest neighbours.
        spectral: Exponent of the sums of kernel eigenvalues beyond a rank, at ranks of 1/96 to 1/24 of the images.
    """

    sizes: list[int]
    losses: dict[int, Float[np.ndarray, "draws sizes"]]
    dimension: float
    spectral: float


def merged_classes(
    images: Float[Tensor, "N ..."],
    labels: Tensor,
    sizes: Sequence[int],
    *,
    tests: int,
    draws: int,
    seed: int,
    counts: Sequence[int] = (10, 5, 2),
) -> MergedClasses:
    """Kernel interpolation of one-hot labels with the classes merged into fewer, on random splits of the images.

    Args:
        images: More images than the largest size and the tests together.
        labels: Labels 0 to 9.
        sizes: Training set sizes.
        tests: Test images of each split.
        draws: Random splits.
        seed: Seeds them.
        counts: Numbers of classes; class ``y`` becomes ``y`` modulo the number.
    """
    x = images.flatten(1).double()
    x = x / x.norm(dim=1, keepdim=True) * x.shape[1] ** 0.5
    require(len(x) >= max(sizes) + tests, f"at least {max(sizes) + tests} images", len(x))
    kernel, generator = arc_cosine_network().kernel(x), torch.Generator().manual_seed(seed)
    targets = {count: torch.nn.functional.one_hot(labels % count, count).double() for count in counts}
    losses: dict[int, list[Tensor]] = {count: [] for count in counts}
    for _ in range(draws):
        order = torch.randperm(len(x), generator=generator)
        train, test = order[: max(sizes)], order[len(x) - tests :]
        gram, cross = kernel[train][:, train], kernel[test][:, train]
        for count, y in targets.items():
            centre = y[train].mean(0)
            fit = nested_kernel_regression(gram, cross, y[train] - centre, sizes, ridge=1e-8)
            truth = (y[test] - centre).mT
            losses[count].append(((fit.predictions - truth) ** 2).mean((-2, -1)) / (truth**2).mean())
    tail = spectrum_tail(kernel)
    # A Gram matrix of N points has no eigenvalue beyond rank N: sums beyond a rank near N fall too fast.
    ranks = np.unique(np.geomspace(max(len(x) / 96, 1), max(len(x) / 24, 3), 5).astype(int))
    spectral = fit_power_law(ranks, tail[ranks]).exponent
    found = {count: torch.stack(rows).numpy() for count, rows in losses.items()}
    return MergedClasses(list(sizes), found, two_nn_dimension(x.numpy()), spectral)
