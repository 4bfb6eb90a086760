"""Experiments of the chapter: subspaces, exact spectra, shifted test sets, capacity, collapse, and their portrait."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.curvature import (
    Params,
    dense_matrix,
    flatten_params,
    hessian_operator,
    hutch_plus_plus,
    lanczos_quadrature,
    random_signs,
    stochastic_lanczos_quadrature,
    unflatten_params,
)
from netatlas.core.linalg import lanczos
from netatlas.core.nn import MLP
from netatlas.core.stats import Slope, loglog_slope, spearman
from netatlas.core.train import Ensemble, Optimizer, fit_many, minimize, stack_members
from netatlas.landscapes import capacity as capacity_module
from netatlas.landscapes.collapse import (
    CollapseMetrics,
    balance_gap,
    class_means,
    collapse_metrics,
    collapse_optimum,
    ufm_objective,
)
from netatlas.landscapes.criteria import curvature_criteria, loss_surface, normalized_axis, partial_spearman
from netatlas.landscapes.spectrum import (
    count_above,
    linear_path_barrier,
    near_zero_fraction,
    rank_bound,
    rescaling_directions,
    shift_directions,
    spectral_gap,
    two_layer_hessian,
)
from netatlas.landscapes.subspace import (
    PROJECTIONS,
    Projection,
    intrinsic_dimension,
    matrix_projection,
    sparse_projection,
    train_in_subspace,
)

Data = tuple[Tensor, Tensor]
cross_entropy = nn.functional.cross_entropy


class Split(NamedTuple):
    """Training, selection and test data, a pair of inputs and labels each."""

    train: Data
    held_out: Data
    test: Data


def split_digits(images: Tensor, labels: Tensor, *, train: int, held_out: int, seed: int) -> Split:
    """A random split; the selection data are part of the training data.

    Args:
        images: ``[N, ...]``, flattened here.
        labels: ``[N]``.
        train: Training examples.
        held_out: How many of them are held out while rates are chosen.
        seed: Of the permutation.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x, y = images.flatten(1)[order], labels[order]
    return Split(
        (x[:train], y[:train]), (x[train - held_out : train], y[train - held_out : train]), (x[train:], y[train:])
    )


def stacked_start(build: Callable[[], nn.Module], seeds: Sequence[int]) -> tuple[nn.Module, Params]:
    """A skeleton and the stacked initial parameters of networks with these seeds.

    Args:
        build: Makes one network.
        seeds: One a network.
    """
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(build())
    return modules[0], stack_members(modules)[0]


def stacked_call(module: nn.Module) -> Callable[[Params, Tensor], Tensor]:
    """The outputs of stacked members on shared inputs, ``[M, N, ...]``.

    Args:
        module: The architecture.
    """
    buffers = dict(module.named_buffers())
    return lambda params, x: vmap(lambda p: functional_call(module, (p, buffers), (x,)))(params)


def stacked_loss(module: nn.Module, x: Tensor, y: Tensor) -> Callable[[Params], Tensor]:
    """Mean cross-entropy of stacked members on shared data, ``[M]``.

    Args:
        module: The architecture.
        x: Inputs.
        y: Labels.
    """
    call = stacked_call(module)
    return lambda params: vmap(cross_entropy, in_dims=(0, None))(call(params, x), y)


# ---------------------------------------------------------------------------------------------------- random subspaces


def _subspace_runs(
    build: Callable[[], nn.Module],
    train: Data,
    labels: Int[Tensor, "S N"],
    dims: Sequence[int],
    rates: Sequence[float],
    seeds: Sequence[int],
    steps: int,
    projections: Sequence[Projection],
    zero: bool = False,
    mixed: Int[Tensor, "S N"] | None = None,
) -> tuple[nn.Module, Params]:
    """Members seeds x dims x rates, trained in the subspaces of their seeds; ``mixed``: one more a seed, last."""
    combos = list(itertools.product(dims, rates))
    plain = len(combos)
    if mixed is not None:
        combos.append((max(dims), rates[0]))
    module, start = stacked_start(build, [s for s in seeds for _ in combos])
    if zero:
        start = {k: torch.zeros_like(v) for k, v in start.items()}
    sizes = torch.tensor([d for _ in seeds for d, _ in combos])
    lr = torch.tensor([r for _ in seeds for _, r in combos])
    answers = labels.repeat_interleave(plain, 0)
    if mixed is not None:
        answers = torch.cat([answers.reshape(len(seeds), plain, -1), mixed[:, None]], 1).flatten(0, 1)
    call = stacked_call(module)

    def loss(params: Params, step: int, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(train[0]), (256,), generator=generator)
        logits = call(params, train[0][index])
        each = cross_entropy(logits.flatten(0, 1), answers[:, index].flatten(), reduction="none")
        return each.reshape(len(sizes), -1).mean(1)

    params, _, _ = train_in_subspace(loss, start, projections, sizes, steps=steps, lr=lr, seed=seeds[0])
    return module, params


def _accuracy(module: nn.Module, params: Params, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return (stacked_call(module)(params, x).argmax(-1) == y).double().mean(-1)


class SubspaceSweep(NamedTuple):
    """One network's accuracies in subspaces of growing dimension.

    Attributes:
        size: Parameters D.
        dims: Dimensions.
        accuracy: Test accuracy, ``[seeds, dims]``.
        baseline: Test accuracy of training all parameters, ``[seeds]``.
        shuffled: Training accuracy on shuffled labels at the largest dimension, ``[seeds]``; NaN if not asked for.
        rates: Chosen rates of subspace and baseline.
        at_end: How many of the two rates are at an end of their grid.
    """

    size: int
    dims: list[int]
    accuracy: Float[np.ndarray, "seeds dims"]
    baseline: Float[np.ndarray, " seeds"]
    shuffled: Float[np.ndarray, " seeds"]
    rates: tuple[float, float]
    at_end: int

    def dimension(self, share: float = 0.9) -> np.ndarray:
        """The intrinsic dimension of every seed, for a share of the mean baseline; infinite if beyond the grid.

        Args:
            share: Of the baseline's accuracy.
        """
        return np.array([intrinsic_dimension(self.dims, row, share * self.baseline.mean()) for row in self.accuracy])

    def first_dimension(self, share: float = 0.9) -> float:
        """The first dimension of the grid whose mean accuracy reaches the share, as the paper defines it.

        Args:
            share: Of the baseline's accuracy.
        """
        hit = np.flatnonzero(self.accuracy.mean(0) >= share * self.baseline.mean())
        return float(self.dims[hit[0]]) if len(hit) else math.inf


def subspace_sweep(
    build: Callable[[], nn.Module],
    data: Split,
    dims: Sequence[int],
    *,
    seeds: Sequence[int],
    steps: int,
    tune_at: int,
    rates: Sequence[float] = (0.03, 0.1, 0.3, 1.0),
    full_rates: Sequence[float] = (1e-3, 3e-3, 1e-2, 3e-2),
    control: bool = True,
) -> SubspaceSweep:
    """Accuracy against dimension with very sparse projections, its baseline, and the control of shuffled labels.

    Both learning rates are chosen on held-out training data by equal budgets: one run a rate with the first seed.

    Args:
        build: Makes one network.
        data: The split.
        dims: Increasing dimensions.
        seeds: Initialisation, projection and batches.
        steps: Adam steps of subspace runs; the baseline takes as many.
        tune_at: Dimension at which the subspace's rate is chosen.
        rates: Rates of the subspace's coordinates.
        full_rates: Rates of the baseline.
        control: Whether to train on shuffled labels too.
    """
    size = sum(p.numel() for p in build().parameters())
    maps = [sparse_projection(size, max(dims), generator=torch.Generator().manual_seed(s)) for s in seeds]
    kept = len(data.train[0]) - len(data.held_out[0])
    fewer = (data.train[0][:kept], data.train[1][:kept])
    module, tried = _subspace_runs(build, fewer, fewer[1][None], [tune_at], rates, seeds[:1], steps, maps[:1])
    rate = rates[int(_accuracy(module, tried, *data.held_out).argmax())]
    full: dict[str, Any] = {
        "batch_size": 256,
        "optimizer": "adam",
        "epochs": math.ceil(steps / math.ceil(len(data.train[0]) / 256)),
    }
    chosen = fit_many(build, *fewer, seeds=[seeds[0]] * len(full_rates), lr=torch.tensor(full_rates), **full)
    full_rate = full_rates[int(chosen.accuracy(*data.held_out).argmax())]
    best = fit_many(build, *data.train, seeds=seeds, lr=full_rate, **full).accuracy(*data.test)
    true = data.train[1].expand(len(seeds), -1)
    mixed = torch.stack(
        [y[torch.randperm(len(y), generator=torch.Generator().manual_seed(s))] for y, s in zip(true, seeds)]
    )
    extra = mixed if control else None
    module, params = _subspace_runs(build, data.train, true, dims, [rate], seeds, steps, maps, mixed=extra)
    accuracy = _accuracy(module, params, *data.test).reshape(len(seeds), -1)[:, : len(dims)]
    shuffled = torch.full((len(seeds),), torch.nan, dtype=torch.float64)
    if control:
        lost = {k: v[len(dims) :: len(dims) + 1] for k, v in params.items()}
        with torch.no_grad():
            shuffled = (stacked_call(module)(lost, data.train[0]).argmax(-1) == mixed).double().mean(-1)
    ends = int(rate in (rates[0], rates[-1])) + int(full_rate in (full_rates[0], full_rates[-1]))
    return SubspaceSweep(size, list(dims), accuracy.numpy(), best.numpy(), shuffled.numpy(), (rate, full_rate), ends)


def projection_arms(
    widths: Sequence[int],
    data: Split,
    dim: int,
    *,
    seeds: Sequence[int],
    steps: int,
    rates: Sequence[float] = (0.03, 0.1, 0.3, 1.0),
) -> dict[str, np.ndarray]:
    """Test accuracy of the three kinds of projection, and of a subspace through the origin, at one dimension.

    Every arm chooses its rate on held-out training data by the same budget.

    Args:
        widths: Of the network.
        data: The split.
        dim: Dimension of the subspace.
        seeds: Of initialisation and projection.
        steps: Adam steps.
        rates: Rates to choose from.
    """
    build = partial(MLP, widths)
    size = sum(p.numel() for p in build().parameters())
    kept = len(data.train[0]) - len(data.held_out[0])
    fewer = (data.train[0][:kept], data.train[1][:kept])
    found = {}
    for name, kind, zero in [*((k, k, False) for k in PROJECTIONS), ("sparse, through the origin", "sparse", True)]:
        maps = [PROJECTIONS[kind](size, dim, generator=torch.Generator().manual_seed(s)) for s in seeds]
        module, tried = _subspace_runs(build, fewer, fewer[1][None], [dim], rates, seeds[:1], steps, maps[:1], zero)
        rate = rates[int(_accuracy(module, tried, *data.held_out).argmax())]
        true = data.train[1].expand(len(seeds), -1)
        module, params = _subspace_runs(build, data.train, true, [dim], [rate], seeds, steps, maps, zero)
        found[name] = _accuracy(module, params, *data.test).numpy()
    return found


def group_sum_residuals(dims: Sequence[int], *, size: int = 1000, groups: int = 10, seed: int) -> np.ndarray:
    r"""Least loss in a random subspace for :math:`L = \sum_g (\sum_{i \in g} \theta_i - t_g)^2`.

    It is zero as soon as there are as many dimensions as groups, whatever the number of parameters.

    Args:
        dims: Dimensions.
        size: Parameters D.
        groups: Groups of equal size, each with a target :math:`t_g`.
        seed: Draws targets, start and projection.
    """
    rng = np.random.default_rng(seed)
    sums = np.kron(np.eye(groups), np.ones(size // groups))
    rest = np.arange(1, groups + 1) - sums @ rng.standard_normal(size)
    columns = rng.standard_normal((size, max(dims)))
    columns /= np.linalg.norm(columns, axis=0)
    found = []
    for d in dims:
        map_ = sums @ columns[:, :d]
        found.append(float(np.square(map_ @ np.linalg.lstsq(map_, rest, rcond=None)[0] - rest).sum()))
    return np.array(found)


def permuted_pixels_gap(data: Data, *, dim: int = 20, steps: int = 20, seed: int) -> float:
    """Largest difference of loss curves when pixels, first-layer weights and rows of P are permuted together.

    Args:
        data: Images and labels.
        dim: Dimension of the subspace.
        steps: Adam steps.
        seed: Of everything.
    """
    x, y = data[0][:256].double(), data[1][:256]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(x.shape[1], generator=generator)
    module, start = stacked_start(lambda: MLP([x.shape[1], 16, 10]).double(), [seed])
    index = unflatten_params(torch.arange(flatten_params(start, stacked=True).shape[1])[None], start, stacked=True)
    first = next(iter(start))
    columns = torch.randn(flatten_params(start, stacked=True).shape[1], dim, generator=generator, dtype=torch.float64)
    columns = columns / columns.norm(dim=0)
    rows = torch.cat([(v[..., order] if k == first else v).flatten() for k, v in index.items()])
    moved = start | {first: start[first][..., order]}
    curves = []
    for pixels, point, matrix in ((x, start, columns), (x[:, order], moved, columns[rows])):
        plain = stacked_loss(module, pixels, y)
        loss = partial(lambda f, p, *_: f(p), plain)
        maps = [matrix_projection(matrix)]
        curves.append(train_in_subspace(loss, point, maps, torch.tensor([dim]), steps=steps, lr=0.1)[2])
    return float((curves[0] - curves[1]).abs().max())


# -------------------------------------------------------------------------------------------------------- exact spectra


def cluster_mixture(
    clusters: int, classes: int, examples: int, *, features: int = 16, separation: float = 3.0, seed: int
) -> Data:
    """Gaussian clusters at orthogonal means with unit noise; cluster j has class j modulo the number of classes.

    Args:
        clusters: At most ``features``.
        classes: At most ``clusters``.
        examples: n.
        features: Input dimension.
        separation: Length of the means.
        seed: Of means, clusters and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    means = torch.linalg.qr(torch.randn(features, features, generator=generator)).Q[:clusters] * separation
    cluster = torch.arange(examples) % clusters
    return means[cluster] + torch.randn(examples, features, generator=generator), cluster % classes


class Spectrum(NamedTuple):
    """What the exact Hessian of one trained network shows.

    Attributes:
        eigenvalues: Of the Hessian, decreasing.
        loss: At the end of training.
        gap: Index of the largest ratio of neighbours among the first fifteen eigenvalues.
        ratio: That ratio.
        ratio_here: The ratio at K - 1.
        above: Eigenvalues above one per cent of the largest.
        near_zero: Fraction within a thousandth of the largest.
        lowest: Smallest eigenvalue over the largest.
        head_gap: Largest relative difference of the first K - 1 eigenvalues of H and of its Gauss-Newton part.
        rank: Of the Gauss-Newton part.
        bound: Its bound.
        null_error: Largest entry of H z over the largest eigenvalue, for the shifts z of unit length.
        scale_error: The same of H x + s g for the rescalings x, in units of the largest entry of either.
        product_error: Largest difference to Hessian-vector products with five random vectors, relative.
    """

    eigenvalues: Float[np.ndarray, " D"]
    loss: float
    gap: int
    ratio: float
    ratio_here: float
    above: int
    near_zero: float
    lowest: float
    head_gap: float
    rank: float
    bound: int
    null_error: float
    scale_error: float
    product_error: float


def exact_spectrum(params: Params, x: Tensor, y: Tensor, *, parts_too: bool = True) -> Spectrum:
    """The spectrum of one two-layer network on its training data, with its exact checks.

    Args:
        params: One member's parameters.
        x: Inputs.
        y: Labels.
        parts_too: Whether the Gauss-Newton part's eigenvalues are computed too; else what needs them is NaN.
    """
    point, x = {k: v.double() for k, v in params.items()}, x.double()
    (hidden, features), classes = point["layers.0.weight"].shape, len(point["layers.1.bias"])
    parts = two_layer_hessian(point, x, y)
    full = parts.gauss_newton + parts.residual
    values = torch.linalg.eigvalsh(full).flip(0)
    gauss = torch.linalg.eigvalsh(parts.gauss_newton).flip(0) if parts_too else torch.full_like(values, torch.nan)
    top, head = float(values[0]), classes - 1
    module = MLP([features, hidden, classes]).double()

    def loss(p: Params) -> Tensor:
        return cross_entropy(functional_call(module, p, (x,)), y)

    leaves = {k: v.clone().requires_grad_(True) for k, v in point.items()}
    value = loss(leaves)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(leaves.values()))])
    operator = hessian_operator(loss, point)
    probes = random_signs(operator, 5, torch.Generator().manual_seed(0))
    shifts = torch.nn.functional.normalize(shift_directions(point), dim=1)
    scalings = rescaling_directions(point)
    sign = torch.cat([torch.ones(hidden * (features + 1)), -torch.ones(classes * (hidden + 1))]).double()
    rest = scalings @ full + (scalings != 0) * sign * gradient
    gap = spectral_gap(values)
    return Spectrum(
        values.numpy(),
        float(value.detach()),
        gap.after,
        gap.ratio,
        float(values[head - 1] / values[head]),
        count_above(values, 1e-2),
        near_zero_fraction(values),
        float(values[-1]) / top,
        float(((gauss[:head] - values[:head]).abs() / values[:head]).max()),
        float((gauss > 1e-10 * gauss[0]).sum()) if parts_too else math.nan,
        rank_bound(len(x), features, hidden, classes),
        float((shifts @ full).norm(dim=1).max()) / top,
        float(rest.abs().max()) / top,
        float((operator(probes) - probes @ full).abs().max() / (probes @ full).abs().max()),
    )


class SpectrumCase(NamedTuple):
    """One setting of the sweep: classes, clusters, hidden units, examples, and whether labels are shuffled."""

    classes: int
    clusters: int
    hidden: int
    examples: int = 1000
    shuffled: bool = False


def spectra(
    cases: Sequence[SpectrumCase], *, seeds: Sequence[int], steps: int = 300
) -> dict[SpectrumCase, list[Spectrum]]:
    """Train two-layer networks by full-batch SGD with momentum and take their exact spectra.

    Args:
        cases: Settings; those that differ only in their data train as one stack.
        seeds: Data, initialisation.
        steps: Full-batch steps.
    """
    found: dict[SpectrumCase, list[Spectrum]] = {}
    groups: dict[tuple[int, int, int], list[SpectrumCase]] = {}
    for case in cases:
        groups.setdefault((case.classes, case.hidden, case.examples), []).append(case)
    for (classes, hidden, examples), group in groups.items():
        xs, ys = [], []
        for case, s in itertools.product(group, seeds):
            x, y = cluster_mixture(case.clusters, classes, examples, seed=s)
            if case.shuffled:
                y = y[torch.randperm(examples, generator=torch.Generator().manual_seed(s + 1))]
            xs.append(x)
            ys.append(y)
        trained = fit_many(
            partial(MLP, [xs[0].shape[1], hidden, classes]), torch.stack(xs), torch.stack(ys), per_member_data=True,
            seeds=list(seeds) * len(group), epochs=steps, batch_size=examples, lr=0.1, momentum=0.9,
        )  # fmt: skip
        one = [
            exact_spectrum(
                {k: v[i] for k, v in trained.params.items()},
                xs[i],
                ys[i],
                parts_too=not group[i // len(seeds)].shuffled,
            )
            for i in range(len(xs))
        ]
        for j, case in enumerate(group):
            found[case] = one[j * len(seeds) : (j + 1) * len(seeds)]
    return {case: found[case] for case in cases}


def outlier_growth(found: Mapping[SpectrumCase, list[Spectrum]], classes: int, hidden: Sequence[int]) -> Slope:
    """Slope of the number of large eigenvalues against the number of parameters, on logarithmic axes.

    Args:
        found: Spectra of networks on true labels.
        classes: K.
        hidden: Widths.
    """
    runs = [s for h in hidden for s in found[SpectrumCase(classes, classes, h)]]
    return loglog_slope([len(s.eigenvalues) for s in runs], [s.above for s in runs])


class Basins(NamedTuple):
    """Barriers on straight paths, one a seed, and the losses at their ends."""

    continued: np.ndarray
    direct: np.ndarray
    independent: np.ndarray
    losses: dict[str, np.ndarray]


def batch_size_basins(*, seeds: Sequence[int], steps: int = 400, lr: float = 0.05) -> Basins:
    """Small-batch and large-batch training from one start, the latter continued with small batches.

    Args:
        seeds: Data and start; the independent network starts elsewhere.
        steps: Optimizer steps of every phase.
        lr: Learning rate.
    """
    data = [cluster_mixture(4, 4, 500, seed=s) for s in seeds]
    x, y = (torch.stack(part) for part in zip(*data))
    build = partial(MLP, [16, 24, 4])
    small: dict[str, Any] = {"batch_size": 16, "epochs": math.ceil(steps * 16 / 500)}
    common: dict[str, Any] = {"lr": lr, "momentum": 0.9, "per_member_data": True}
    module, start = stacked_start(build, seeds)
    init = Ensemble(module, start)
    other = [s + 500 for s in seeds]
    ends = {
        "small": fit_many(build, x, y, seeds=seeds, init=init, **small, **common),
        "large": fit_many(build, x, y, seeds=seeds, init=init, batch_size=500, epochs=steps, **common),
        "independent": fit_many(build, x, y, seeds=other, **small, **common),
    }
    ends["continued"] = fit_many(build, x, y, seeds=other, init=ends["large"], **small, **common)

    def loss(params: Params) -> Tensor:
        return vmap(lambda p, a, b: cross_entropy(functional_call(ends["small"].module, p, (a,)), b))(params, x, y)

    barrier = {
        name: linear_path_barrier(loss, ends[name].params, ends["small"].params).barrier.numpy()
        for name in ("continued", "large", "independent")
    }
    with torch.no_grad():
        losses = {name: loss(end.params).numpy() for name, end in ends.items()}
    return Basins(barrier["continued"], barrier["large"], barrier["independent"], losses)


# -------------------------------------------------------------------------------------------------- shifted test sets


def shifted_test_sets(images: Float[Tensor, "N side side"], *, seed: int) -> tuple[Tensor, list[str]]:
    """Five families of shifts that keep the label: noise, blur, contrast, translation, dropped pixels.

    Args:
        images: Values in [0, 1].
        seed: Of noise and dropped pixels.

    Returns:
        ``[24, N, side, side]`` and the family of each set.
    """
    generator = torch.Generator().manual_seed(seed)
    noise, drop = torch.randn(images.shape, generator=generator), torch.rand(images.shape, generator=generator)
    sets: list[tuple[str, Tensor]] = []
    sets += [("noise", images + s * noise) for s in (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)]
    padded = nn.functional.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    blurred = nn.functional.avg_pool2d(padded, 3, 1)[:, 0]
    sets += [("blur", (1 - s) * images + s * blurred) for s in (0.25, 0.5, 0.75, 1.0)]
    sets += [("contrast", (1 - s) * images + s * (1 - images)) for s in (0.25, 0.5, 1.0)]
    sets += [("translation", torch.roll(images, move, dims)) for move in (1, -1) for dims in (1, 2)]
    sets += [("dropout", images * (drop > s)) for s in (0.1, 0.2, 0.3, 0.4, 0.5)]
    return torch.stack([x for _, x in sets]), [name for name, _ in sets]


class ShiftStudy(NamedTuple):
    """Criteria and errors of one network on all shifted sets, ``[24]`` each; larger means worse for every one."""

    error: np.ndarray
    criteria: dict[str, np.ndarray]
    families: list[str]


def shift_study(
    member: Params,
    images: Tensor,
    labels: Tensor,
    widths: Sequence[int],
    *,
    seed: int,
    steps: int = 30,
    probes: int = 2,
) -> ShiftStudy:
    """The spectrum's criteria on every shifted set, beside simpler numbers that a sceptic would try.

    All sets are one stack of the same weights, and all meet the same probes.

    Args:
        member: One network's parameters.
        images: Test images ``[N, side, side]``.
        labels: Their labels.
        widths: Of the network.
        seed: Of shifts and probes.
        steps: Lanczos steps.
        probes: Lanczos starts.
    """
    sets, families = shifted_test_sets(images, seed=seed)
    x = sets.flatten(2).double()
    params = {k: v.double()[None].expand(len(x), *v.shape).contiguous() for k, v in member.items()}
    module = MLP(widths).double()

    def logits(p: Params) -> Tensor:
        return vmap(lambda q, a: functional_call(module, q, (a,)))(p, x)

    def loss(p: Params) -> Tensor:
        return vmap(cross_entropy, in_dims=(0, None))(logits(p), labels)

    leaves = {k: v.clone().requires_grad_(True) for k, v in params.items()}
    value = loss(leaves)
    grads = torch.autograd.grad(value.sum(), list(leaves.values()))
    gradient = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    with torch.no_grad():
        out = logits(params)
    probability = out.softmax(-1)
    quadrature = stochastic_lanczos_quadrature(
        hessian_operator(loss, params), probes=probes, steps=steps, generator=torch.Generator().manual_seed(seed)
    )
    chosen = curvature_criteria(quadrature.nodes, quadrature.weights)
    found = {
        "negative mass K": chosen.negative_mass,
        "ratio of extremes": chosen.extremes,
        "loss": value.detach(),
        "trace": quadrature.mean(lambda t: t)[0] * quadrature.dim,
        "largest eigenvalue": quadrature.nodes.amax((0, -1)),
        "gradient norm": gradient,
        "entropy, no labels": -(probability * probability.clamp_min(1e-300).log()).sum(-1).mean(-1),
    }
    error = 1 - (out.argmax(-1) == labels).double().mean(-1)
    return ShiftStudy(error.numpy(), {k: v.numpy() for k, v in found.items()}, families)


class ShiftCorrelations(NamedTuple):
    """Rank correlations of one criterion with the error: over all sets, given the loss, and between families."""

    overall: float
    given_loss: float
    between: float


def shift_correlations(study: ShiftStudy, name: str) -> ShiftCorrelations:
    """How one criterion ranks the shifted sets by error.

    Args:
        study: Of one network.
        name: The criterion.
    """
    value, loss = study.criteria[name], study.criteria["loss"]
    kinds = sorted(set(study.families))
    member = np.array(study.families)
    means = [(value[member == k].mean(), study.error[member == k].mean()) for k in kinds]
    given = math.nan if name == "loss" else partial_spearman(value, study.error, loss)
    return ShiftCorrelations(spearman(value, study.error), given, spearman(*zip(*means)))


def permutation_quantiles(study: ShiftStudy, name: str, *, seed: int, draws: int = 1000) -> tuple[float, float]:
    """The .95 quantiles of the absolute correlation and partial correlation when the criterion is permuted.

    Args:
        study: Of one network.
        name: The criterion.
        seed: Of the permutations.
        draws: How many.
    """
    rng = np.random.default_rng(seed)

    def ranks(v: np.ndarray) -> np.ndarray:
        r = rankdata(v)
        return (r - r.mean()) / r.std()

    value, error, loss = (ranks(v) for v in (study.criteria[name], study.error, study.criteria["loss"]))
    mixed = rng.permuted(np.tile(value, (draws, 1)), axis=1)
    xy, xz, yz = mixed @ error / len(error), mixed @ loss / len(error), float(error @ loss) / len(error)
    partial_ = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    return float(np.quantile(np.abs(xy), 0.95)), float(np.quantile(np.abs(partial_), 0.95))


def quadrature_checks(*, seed: int) -> dict[str, float]:
    """Errors of the quadrature where the right answer is known, on a small network with mean squared error.

    Args:
        seed: Of data, network and probes.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    module, start = stacked_start(lambda: MLP([6, 8, 3], activation="tanh").double(), [seed])
    point = {k: v[0] for k, v in start.items()}

    def loss(p: Params, scale: float = 1.0) -> Tensor:
        return scale * (functional_call(module, p, (x,)) - y).square().mean()

    operator = hessian_operator(loss, point)
    matrix = dense_matrix(operator)
    probes = random_signs(operator, 3, generator) / operator.dim**0.5
    few = lanczos_quadrature(operator, probes, 10)
    moments = [
        (
            (few.weights * few.nodes**k).sum(-1) - ((probes @ torch.linalg.matrix_power(matrix, k)) * probes).sum(-1)
        ).abs()
        / (few.weights * few.nodes.abs() ** k).sum(-1)
        for k in (1, 2, 3, 19)
    ]
    exact = torch.linalg.eigvalsh(matrix)
    full = lanczos_quadrature(operator, probes[:1], operator.dim).nodes[0]
    tenfold = lanczos_quadrature(hessian_operator(partial(loss, scale=10.0), point), probes, 10)
    pair = [curvature_criteria(q.nodes, q.weights) for q in (few, tenfold)]
    return {
        "weights sum to one": float((few.weights.sum(-1) - 1).abs().max()),
        "moments 1, 2, 3 and 2m - 1": float(torch.stack(moments).max()),
        "all Ritz values against eigenvalues": float((full - exact).abs().max() / exact.abs().max()),
        "criteria under ten times the loss": max(float((a - b).abs().max()) for a, b in zip(*pair)),
    }


class NormalizedMLP(nn.Module):
    """One hidden layer with batch normalisation by the statistics of the batch itself, in training and evaluation.

    Args:
        widths: Input, hidden and output widths.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(widths[0], widths[1]), nn.Linear(widths[1], widths[2])
        self.norm = nn.BatchNorm1d(widths[1], track_running_stats=False)

    def forward(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N classes"]:
        return self.second(torch.relu(self.norm(self.first(x))))


class AxisStudy(NamedTuple):
    """Landscapes along random and Hessian axes, with and without batch normalisation.

    Attributes:
        surfaces: Loss minus the centre's on a grid, first seed, by network and axes.
        curvature: Second derivative along a unit vector of the first axis over the largest eigenvalue, one a seed.
        rescaled: The second derivative along the first axis after halving the weights before batch normalisation,
            over that before: 1 would be right, for the function does not change. Random axes keep their length,
            Hessian axes have unit length, and a filter-normalised axis takes its length from the weights.
    """

    surfaces: dict[tuple[str, str], np.ndarray]
    curvature: dict[tuple[str, str], np.ndarray]
    rescaled: dict[str, np.ndarray]


AXES = ("random", "random, filter-normalised", "Hessian")


def axis_study(data: Split, *, seeds: Sequence[int], grid: Tensor, epochs: int = 40) -> AxisStudy:
    """Compare axes of a landscape on networks with and without batch normalisation.

    Args:
        data: Training and test digits.
        seeds: Networks and random axes.
        grid: Coordinates of the surface.
        epochs: Of training.
    """
    x, y = data.test[0][:256].double(), data.test[1][:256]
    surfaces: dict[tuple[str, str], np.ndarray] = {}
    bends: dict[tuple[str, str], list[float]] = {}
    factors: dict[str, list[float]] = {axis: [] for axis in AXES}
    for kind, make in (("plain", MLP), ("batch norm", NormalizedMLP)):
        build = partial(make, [x.shape[1], 32, 10])
        nets = fit_many(build, *data.train, seeds=seeds, epochs=epochs, batch_size=64, optimizer="adam", lr=3e-3)
        module = build().double()
        for i, s in enumerate(seeds):
            point = {k: v[i].double() for k, v in nets.params.items()}
            loss = stacked_loss(module, x, y)
            axes, bend = _axes(loss, point, s)
            for name, pair in axes.items():
                bends.setdefault((kind, name), []).append(bend[name][0])
                if i == 0:
                    surface = loss_surface(loss, point, *pair, grid)
                    surfaces[kind, name] = (surface - loss({k: v[None] for k, v in point.items()})).numpy()
            if kind == "batch norm":
                half = {k: v / 2 if k.startswith("first") else v for k, v in point.items()}
                _, after = _axes(loss, half, s)
                for name in axes:
                    factors[name].append(after[name][1] / bend[name][1])
    return AxisStudy(surfaces, {k: np.array(v) for k, v in bends.items()}, {k: np.array(v) for k, v in factors.items()})


def _axes(
    loss: Callable[[Params], Tensor], point: Params, seed: int
) -> tuple[dict[str, tuple[Params, Params]], dict[str, tuple[float, float]]]:
    """Pairs of axes, and the curvature along the first: of unit length over the largest eigenvalue, and as drawn."""

    def single(params: Params) -> Tensor:
        return loss({k: v[None] for k, v in params.items()})[0]

    operator = hessian_operator(single, point)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(3, operator.dim, generator=generator, dtype=operator.dtype)
    found = lanczos(operator, drawn[2], 60)
    random = [unflatten_params(d, point) for d in drawn[:2]]
    size = flatten_params(point).norm()
    pairs = {
        "random": [unflatten_params(d / d.norm() * size / 2, point) for d in drawn[:2]],
        "random, filter-normalised": [normalized_axis(r, point, "filter") for r in random],
        "Hessian": [unflatten_params(found.vectors[:, -k] * size / 2, point) for k in (1, 2)],
    }
    bends = {}
    for name, pair in pairs.items():
        # A random axis of fixed length: its surface is drawn in units of the weights' norm, which halving changes.
        axis = drawn[0] if name == "random" else flatten_params(pair[0])
        axis = axis / axis.norm() if name == "Hessian" else axis
        bend = float(axis @ operator(axis))
        bends[name] = (bend / float(axis @ axis) / float(found.values[-1]), bend)
    return {name: (pair[0], pair[1]) for name, pair in pairs.items()}, bends


# ------------------------------------------------------------------------------------------------------------ capacity


class CapacityArm(NamedTuple):
    """A network and a way to train it.

    Attributes:
        build: Makes one network.
        ladder: Sizes of the training sets.
        rates: Learning rates, all of which are tried.
        optimizer: ``"adam"`` or ``"sgd"`` (momentum .9).
        batch_size: Examples a step, ``None`` for all.
        steps: Optimizer steps.
    """

    build: Callable[[], nn.Module]
    ladder: Sequence[int]
    rates: Sequence[float] = (0.003, 0.01, 0.03)
    optimizer: Optimizer = "adam"
    batch_size: int | None = 64
    steps: int = 1500


class CapacityResult(NamedTuple):
    """An arm's capacity, and how well its runs ended.

    Attributes:
        size: Parameters.
        found: The capacity and its table.
        fits_by_rate: Share of runs that fit, by learning rate.
        gradient: Median norm of the gradient of runs that fit, and of those that do not.
        negative: Share of the fitted runs with a Ritz value below minus one per cent of the largest.
        lowest: Smallest size of the ladder.
    """

    size: int
    found: capacity_module.Capacity
    fits_by_rate: np.ndarray
    gradient: tuple[float, float]
    negative: float
    lowest: int

    @property
    def capacity(self) -> np.ndarray:
        """The capacity, one a draw."""
        return self.found.capacity

    @property
    def log(self) -> np.ndarray:
        """Its logarithm; a draw below the ladder counts as one step of 1.26 below its lowest size."""
        return np.log(np.maximum(self.found.capacity, self.lowest / 1.26))

    @property
    def scatter(self) -> float:
        """Mean distance of two draws' logarithms."""
        return float(np.mean([abs(a - b) for a, b in itertools.combinations(self.log, 2)]))


def measure_capacity(arm: CapacityArm, inputs: Tensor, labellings: Tensor, *, seeds: Sequence[int]) -> CapacityResult:
    """Climb an arm's ladder on every labelling.

    Args:
        arm: Network and training.
        inputs: ``[draws, N, ...]``.
        labellings: ``[draws, N]``.
        seeds: One a draw.
    """
    found = capacity_module.effective_model_complexity(
        arm.build, inputs, labellings, arm.ladder, seeds=seeds, rates=arm.rates, steps=arm.steps,
        batch_size=arm.batch_size, optimizer=arm.optimizer, momentum=0.9 if arm.optimizer == "sgd" else 0.0,
    )  # fmt: skip
    size = sum(p.numel() for p in arm.build().parameters())
    fits, (gradient, lowest, highest) = found.fitted, (v.cpu().numpy() for v in found.minimum)
    ends = tuple(float(np.median(gradient[kind])) if kind.any() else math.nan for kind in (fits, ~fits))
    below = (lowest < -1e-2 * highest)[fits]
    return CapacityResult(
        size,
        found,
        fits.mean((0, 1)),
        (ends[0], ends[1]),
        float(below.mean()) if len(below) else math.nan,
        arm.ladder[0],
    )


def pooled_images(images: Float[Tensor, "N 1 28 28"]) -> Float[Tensor, "N 64"]:
    """Digits at 8 x 8: the middle 24 x 24 pixels, in means of 3 x 3.

    Args:
        images: ``[N, 1, 28, 28]``.
    """
    return nn.functional.avg_pool2d(images[:, :, 2:26, 2:26], 3).flatten(1)


def cover_check(dimension: int, sizes: Sequence[int], *, draws: int, seed: int) -> np.ndarray:
    """Share of random labellings of Gaussian points that a plane separates, beside Cover's formula: ``[2, sizes]``.

    Args:
        dimension: d.
        sizes: Numbers of points.
        draws: Labellings of each.
        seed: Of points and labels.
    """
    rng = np.random.default_rng(seed)
    share = [
        np.mean([
            capacity_module.linearly_separable(rng.standard_normal((n, dimension)), rng.choice([-1.0, 1.0], n))
            for _ in range(draws)
        ])
        for n in sizes
    ]  # fmt: skip
    return np.array([share, [capacity_module.separable_probability(n, dimension) for n in sizes]])


# ------------------------------------------------------------------------------------------------------ neural collapse


class LinearCase(NamedTuple):
    """Class sizes and decays of one unconstrained features model."""

    counts: tuple[int, ...]
    weight_decay: float
    feature_decay: float


def straddling_cases(
    counts: tuple[int, ...], layers: int, thresholds: Sequence[float], ratio: float = 0.05
) -> list[LinearCase]:
    """Decays that put the collapse threshold at given class sizes.

    Args:
        counts: Class sizes.
        layers: M.
        thresholds: Class sizes at which a class is to vanish.
        ratio: Feature decay over weight decay.
    """
    found, total = [], sum(counts)
    for n in thresholds:
        q = 2 / (layers + 1)
        factor = ((2 - q) / (2 * (1 - q))) ** (1 - q) if q < 1 else 1.0
        c = n ** ((2 - q) / 2) * q / ((2 - q) * total * factor)
        decay = c / ratio ** (1 / (layers + 1))
        found.append(LinearCase(counts, decay, ratio * decay))
    return found


def collapse_curve(layers: int, ends: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    r"""The closed form in units of the threshold: :math:`s / \sqrt n` against :math:`n / n^*`, one curve for all.

    Args:
        layers: M.
        ends: Smallest and largest size over the threshold; the first above the threshold is 1.

    Returns:
        Sizes over the threshold, 0 to just below 1 and from just above 1, and the shares.
    """
    threshold = 10_000.0
    below = np.geomspace(min(ends[0], 0.99), 0.999, 20)
    above = np.geomspace(1.0001, max(ends[1], 1.001), 200)
    # One class of n examples in a problem of fixed size: only the product of size and decay enters.
    case = straddling_cases((1_000_000,), layers, [threshold])[0]
    shares = [
        _share(n * threshold, 1_000_000, [case.weight_decay] * layers, case.feature_decay) for n in (*below, *above)
    ]
    order = np.concatenate([below, above])
    return (order, np.array(shares)) if ends[0] < 1 else (above, np.array(shares)[len(below) :])


def _share(size: float, total: int, weight_decays: Sequence[float], feature_decay: float) -> float:
    count = round(size)
    optimum = collapse_optimum((count, total - count), weight_decays, feature_decay)
    return float(optimum.singular_values[0]) / math.sqrt(count)


class LinearResult(NamedTuple):
    """Training against the closed form, for one case.

    Attributes:
        objective_gap: Best objective over the inits minus the theory's, relative.
        value_gap: Largest difference of singular values, best init.
        singular_values: Of the best init, by class.
        theory: The closed form's.
        off_diagonal: Largest off-diagonal of the Gram matrices of the last layer, of the product, and of the class
            means before every layer, relative.
        balance: Largest violation of balance.
        within: Largest distance of a feature from its class mean, over the largest feature.
        fallen: Share of the inits that lost a class which the global minimum keeps.
    """

    objective_gap: float
    value_gap: float
    singular_values: np.ndarray
    theory: np.ndarray
    off_diagonal: float
    balance: float
    within: float
    fallen: float


def train_linear(
    cases: Sequence[LinearCase],
    layers: int,
    *,
    inits: int,
    seed: int,
    width: int = 16,
    steps: int = 4000,
    lr: float = 0.05,
) -> list[LinearResult]:
    """Train unconstrained features models from random starts, all cases and inits as one stack, and compare.

    Args:
        cases: Problems with equally many classes.
        layers: Linear layers M.
        inits: Random starts of each case, at scales from .3 to 1.
        seed: Of the starts.
        width: Dimension of features and hidden layers.
        steps: Adam steps.
        lr: Learning rate, with cosine decay.
    """
    classes, longest = len(cases[0].counts), max(sum(c.counts) for c in cases)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.zeros(len(cases), classes, longest, dtype=torch.float64)
    for i, case in enumerate(cases):
        label = torch.repeat_interleave(torch.arange(classes), torch.tensor(case.counts))
        targets[i, label, torch.arange(len(label))] = 1
    spread = torch.linspace(0.3, 1, inits, dtype=torch.float64).repeat(len(cases))[:, None, None]
    y = targets.repeat_interleave(inits, 0)
    used = y.sum(1, keepdim=True)
    decays, feature = (
        torch.tensor([getattr(c, name) for c in cases], dtype=torch.float64).repeat_interleave(inits)
        for name in ("weight_decay", "feature_decay")
    )
    examples = torch.tensor([float(sum(c.counts)) for c in cases], dtype=torch.float64).repeat_interleave(inits)
    shapes = [(width, longest), *((width, width),) * (layers - 1), (classes, width)]
    start = {
        str(i): spread
        * torch.randn(len(y), *shape, generator=generator, dtype=torch.float64)
        / shape[0] ** 0.5
        * 2**0.5
        for i, shape in enumerate(shapes)
    }

    def objective(p: Params) -> Tensor:
        weights = [p[str(i)] for i in range(1, layers + 1)]
        return ufm_objective(weights, p["0"] * used, y, [decays] * layers, feature, examples)

    trained, _ = minimize(lambda p, *_: objective(p), start, steps=steps, lr=lr, schedule="cosine")
    trained["0"] = trained["0"] * used
    values = objective(trained).reshape(len(cases), inits)
    return [_linear_result(case, trained, values[i], layers, i, inits) for i, case in enumerate(cases)]


def _linear_result(
    case: LinearCase, trained: Params, values: Tensor, layers: int, index: int, inits: int
) -> LinearResult:
    theory = collapse_optimum(case.counts, [case.weight_decay] * layers, case.feature_decay)
    rows = {k: v[index * inits : (index + 1) * inits] for k, v in trained.items()}
    weights = [rows[str(i)] for i in range(1, layers + 1)]
    product = rows["0"]
    for w in weights:
        product = w @ product
    lengths = product.norm(dim=2)
    best = int(values.argmin())
    label = torch.repeat_interleave(torch.arange(len(case.counts)), torch.tensor(case.counts))
    features = rows["0"][best][:, : len(label)].T
    means = class_means(features, label, len(case.counts))
    layer_means = [means]
    for w in weights[:-1]:
        layer_means.append(layer_means[-1] @ w[best].T)
    grams = [g @ g.T for g in (weights[-1][best], product[best], *layer_means)]
    off = max(float((g - g.diag().diag()).abs().max() / g.abs().max()) for g in grams)
    alive = torch.tensor(theory.alive)
    fallen = ((lengths < 1e-3) & alive).any(1).double().mean()
    balance = balance_gap(weights, rows["0"], [case.weight_decay] * layers, case.feature_decay)[best]
    found = lengths[best].numpy()
    return LinearResult(
        abs(float(values[best]) / theory.objective - 1),
        float(np.abs(found - theory.singular_values).max()),
        found,
        theory.singular_values,
        off,
        float(balance),
        float((features - means[label]).norm(dim=1).max() / features.norm(dim=1).max()),
        float(fallen),
    )


class CollapseNet(nn.Module):
    """An MLP whose features before the head are linear, or ReLU for comparison.

    Args:
        classes: Rows of the head.
        bias: Whether the head has a bias.
        relu: Whether features pass a ReLU.
    """

    def __init__(self, classes: int = 4, bias: bool = False, relu: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32), *([nn.ReLU()] if relu else []))
        self.head = nn.Linear(32, classes, bias=bias)

    def forward(self, x: Float[Tensor, "N d"]) -> tuple[Tensor, Tensor]:
        """Outputs and features."""
        h = self.body(x)
        return self.head(h), h


class CollapseRun(NamedTuple):
    """Collapse of trained networks, one value a seed, early and at the end, and the head's lengths by class."""

    early: CollapseMetrics
    end: CollapseMetrics
    head_norms: np.ndarray
    accuracy: np.ndarray


def imbalanced_subset(images: Tensor, labels: Tensor, counts: Sequence[int], *, seed: int) -> Data:
    """So many examples of the first classes.

    Args:
        images: ``[N, d]``.
        labels: ``[N]``.
        counts: Examples of class 0, 1, ...
        seed: Which.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for k, n in enumerate(counts):
        of_class = (labels == k).nonzero()[:, 0]
        rows.append(of_class[torch.randperm(len(of_class), generator=generator)[:n]])
    index = torch.cat(rows)
    return images[index], labels[index]


def collapse_training(
    data: Data,
    *,
    seeds: Sequence[int],
    bias: bool,
    relu: bool = False,
    weight_decay: float = 5e-3,
    feature_decay: float = 2e-4,
    steps: int = 1200,
    early: int = 20,
) -> CollapseRun:
    """Train networks with decay on head and features only, so that the theory fixes directions and lengths.

    Args:
        data: Inputs and labels of K classes.
        seeds: Of the networks.
        bias: Whether the head has a bias, which is not decayed.
        relu: Whether features pass a ReLU.
        weight_decay: Of the head.
        feature_decay: Of the features.
        steps: Full-batch Adam steps.
        early: Step at which collapse is first measured.
    """
    x, y = data
    classes = int(y.max()) + 1
    module, start = stacked_start(partial(CollapseNet, classes, bias, relu), seeds)
    target = nn.functional.one_hot(y, classes).to(x.dtype)
    kept: dict[str, Params] = {}

    def forward(p: Params) -> tuple[Tensor, Tensor]:
        return vmap(lambda q: functional_call(module, q, (x,)))(p)

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        if step == early:
            kept["early"] = {k: v.detach().clone() for k, v in p.items()}
        out, h = forward(p)
        head = p["head.weight"]
        value = (out - target).square().sum((1, 2)) / (2 * len(y)) + feature_decay / 2 * h.square().sum((1, 2))
        return value + weight_decay / 2 * head.square().sum((1, 2))

    trained, _ = minimize(loss, start, steps=steps, lr=3e-3, schedule="cosine")

    def metrics(p: Params) -> tuple[CollapseMetrics, Tensor]:
        with torch.no_grad():
            out, h = forward(p)
            found = collapse_metrics(h.double(), y, p["head.weight"].double())
            return CollapseMetrics(*(v.numpy() for v in found)), out  # type: ignore[arg-type]

    end, out = metrics(trained)
    return CollapseRun(
        metrics(kept["early"])[0],
        end,
        trained["head.weight"].norm(dim=2).numpy(),
        (out.argmax(-1) == y).double().mean(1).numpy(),
    )


# ------------------------------------------------------------------------------------------------------------ portrait


class PortraitRow(NamedTuple):
    """One network and data set of the portrait, one value a seed.

    Attributes:
        gap: Test loss minus training loss.
        dimension: Intrinsic dimension at 90 % of the baseline.
        top: Largest eigenvalue of the Hessian on the training data.
        trace: Its trace, by Hutch++.
        negative: Negative mass of its spectrum.
        collapse: Within-class variability of the last features (NC1).
        accuracy: Test accuracy.
    """

    gap: np.ndarray
    dimension: np.ndarray
    top: np.ndarray
    trace: np.ndarray
    negative: np.ndarray
    collapse: np.ndarray
    accuracy: np.ndarray


def correlations_apart(
    values: Mapping[str, np.ndarray], outcome: np.ndarray, groups: Sequence[object]
) -> dict[str, float]:
    """Rank correlations with an outcome inside every group of networks, averaged over the groups.

    What differs between the groups, such as wrong labels, moves many numbers at once; here it is held.

    Args:
        values: Numbers of all networks, by name.
        outcome: The outcome of all networks.
        groups: The group of each.
    """
    parts = [np.array([g == one for g in groups]) for one in dict.fromkeys(groups)]
    return {name: float(np.mean([spearman(v[p], outcome[p]) for p in parts])) for name, v in values.items()}


def noisy_labels(labels: Tensor, share: float, classes: int, *, seed: int) -> Tensor:
    """Labels of which a share is replaced by another class.

    Args:
        labels: ``[N]``.
        share: From 0 to 1.
        classes: K.
        seed: Which, and by what.
    """
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(labels.shape, generator=generator) < share
    shift = torch.randint(1, classes, labels.shape, generator=generator)
    return torch.where(wrong, (labels + shift) % classes, labels)


def _last_features(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of the last linear layer, and its weights."""
    head = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    seen = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        module(x)
    handle.remove()
    return seen[0], head.weight.detach()


def portrait_row(
    build: Callable[[], nn.Module],
    data: Split,
    dims: Sequence[int],
    *,
    seeds: Sequence[int],
    epochs: int = 150,
    steps: int = 150,
) -> PortraitRow:
    """Every number of the chapter for one network on one data set.

    Args:
        build: Makes one network.
        data: Training (with whatever labels it has), selection and test data.
        dims: Dimensions of the subspace sweep.
        seeds: Networks.
        epochs: Of ordinary training.
        steps: Of subspace training.
    """
    x, y = data.train
    nets = fit_many(
        build, x, y, seeds=seeds, epochs=epochs, batch_size=64, optimizer="adam", lr=3e-3, schedule="cosine"
    )
    params = {k: v.double() for k, v in nets.params.items()}
    module = build().double()
    loss = stacked_loss(module, x.double(), y)
    with torch.no_grad():
        gap = stacked_loss(module, data.test[0].double(), data.test[1])(params) - loss(params)
    operator = hessian_operator(loss, params)
    generator = torch.Generator().manual_seed(seeds[0])
    quadrature = stochastic_lanczos_quadrature(operator, probes=3, steps=30, generator=generator)
    trace = hutch_plus_plus(operator, products=30, generator=generator).mean
    within = []
    for i in range(len(seeds)):
        features, head = _last_features(nets.member(i), x)
        within.append(float(collapse_metrics(features.double(), y, head.double()).within))
    sweep = subspace_sweep(build, data, dims, seeds=seeds, steps=steps, tune_at=dims[len(dims) // 2], control=False)
    return PortraitRow(
        gap.numpy(),
        sweep.dimension(),
        quadrature.nodes.amax((0, -1)).numpy(),
        trace.numpy(),
        curvature_criteria(quadrature.nodes, quadrature.weights).negative_mass.numpy(),
        np.array(within),
        nets.accuracy(*data.test).numpy(),
    )
