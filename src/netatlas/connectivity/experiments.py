"""Experiments of the chapter: what is trained, what is measured, in which arms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
import sklearn.datasets
import torch
from torch import Tensor

from netatlas.core.nn import MLP
from netatlas.core.states import member, stack
from netatlas.core.stats import mean_interval, spearman
from netatlas.core.symmetry import (
    activation_matching,
    permute_network,
    preactivations,
    random_permutations,
    rescale_network,
    straight_through_matching,
    unit_neurons,
    weight_matching,
)
from netatlas.core.train import Ensemble, batch_order, fit_many

from .asymmetric import (
    AsymmetricMLP,
    Gate,
    MixtureOfExperts,
    MixtureOfInterpolatedExperts,
    Task,
    ensemble_score,
    member_disagreement,
)
from .barriers import (
    Stack,
    cumulative_barrier,
    interpolate_parameters,
    joint_direction_control,
    layer_groups,
    layerwise_barrier,
    linear_barrier,
    linear_path,
    random_direction_control,
    segment_barrier,
)
from .hidden import (
    functional_dimension,
    max_functional_dimension,
    plant_mechanism,
    planted_deficit,
    random_relu_layers,
)
from .landscaping import (
    SecondOrder,
    barrier_second_order,
    branch_angle,
    branched_orders,
    directional_curvature,
    layer_second_order,
)

Labelled = tuple[Tensor, Tensor]


# ---------------------------------------------------------------- hidden symmetries


class RankSample(NamedTuple):
    """Functional dimensions of many random networks of one architecture.

    Attributes:
        widths: Of the architecture.
        largest: The largest functional dimension there can be.
        ranks: ``[networks, checkpoints]``.
        gap: Smallest singular value that counts and largest that does not, over all networks.
    """

    widths: tuple[int, ...]
    largest: int
    ranks: np.ndarray
    gap: tuple[float, float]

    def full(self, checkpoint: int = -1) -> np.ndarray:
        """Whether each network has the largest dimension, as 0 and 1."""
        return (self.ranks[:, checkpoint] == self.largest).astype(float)

    def deficit(self, checkpoint: int = -1) -> np.ndarray:
        """Directions lost by each network."""
        return self.largest - self.ranks[:, checkpoint]

    def still_growing(self) -> float:
        """Share of networks whose rank grew in the last step."""
        return float((self.ranks[:, -1] > self.ranks[:, -2]).mean())


def _inputs(count: int, size: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    return scale * torch.randn(count, size, generator=generator, dtype=torch.float64)


def sample_ranks(
    widths: Sequence[int],
    seeds: Sequence[int],
    *,
    per_parameter: Sequence[int] = (20, 100),
    slope: float = 0.0,
    bias_std: float = 0.1,
    spread: float = 1.0,
) -> RankSample:
    """Functional dimensions of random networks, on normal inputs.

    Args:
        widths: Input, hidden and output widths.
        seeds: One a network.
        per_parameter: Checkpoints: numbers of inputs as multiples of the number of parameters.
        slope: Slope of the activation left of zero.
        bias_std: Standard deviation of the biases.
        spread: Standard deviation of the inputs.
    """
    parameters = sum(n * (m + 1) for m, n in zip(widths, widths[1:]))
    checkpoints = [m * parameters for m in per_parameter]
    found = [
        functional_dimension(
            random_relu_layers(widths, seed=s, bias_std=bias_std),
            _inputs(checkpoints[-1], widths[0], s, spread),
            checkpoints=checkpoints,
            slope=slope,
        )
        for s in seeds
    ]
    gap = (min(f.kept for f in found), max(f.dropped for f in found))
    return RankSample(tuple(widths), max_functional_dimension(widths), np.array([f.ranks for f in found]), gap)


def smooth_rank(widths: Sequence[int], seed: int, *, per_parameter: int = 20) -> tuple[int, int]:
    """Functional dimension of the same network with tanh, and its number of parameters.

    The Jacobian comes from automatic differentiation: there are no linear pieces to make use of.
    """
    layers = random_relu_layers(widths, seed=seed)
    params = {f"{kind}{i}": value for i, pair in enumerate(layers) for kind, value in zip("wb", pair)}
    count = sum(value.numel() for value in params.values())

    def output(p: dict[str, Tensor], x: Tensor) -> Tensor:
        for i in range(len(layers)):
            x = p[f"w{i}"] @ (torch.tanh(x) if i else x) + p[f"b{i}"]
        return x

    points = _inputs(per_parameter * count, widths[0], seed)
    jacobian = torch.func.vmap(torch.func.jacrev(output), in_dims=(None, 0))(params, points)
    rows = torch.cat([part.flatten(2) for part in jacobian.values()], 2).flatten(0, 1)
    rows = rows / torch.linalg.vector_norm(rows, dim=0)
    values = torch.linalg.svdvals(rows)
    return int((values > 1e-9 * values[0]).sum()), count


def ranks_moved_by_symmetries(widths: Sequence[int], seeds: Sequence[int], *, per_parameter: int = 20) -> int:
    """How many networks change their functional dimension when neurons are scaled and reordered (none should)."""
    moved = 0
    for seed in seeds:
        layers = random_relu_layers(widths, seed=seed)
        state = {f"{i}.{kind}": v for i, pair in enumerate(layers) for kind, v in zip(("weight", "bias"), pair)}
        generator = torch.Generator().manual_seed(seed)
        sizes = {f"{i}": n for i, n in enumerate(widths[1:-1])}
        factors = {k: torch.exp(torch.randn(n, generator=generator, dtype=torch.float64)) for k, n in sizes.items()}
        state = permute_network(rescale_network(state, factors), random_permutations(state, seed=seed))
        changed = [(state[f"{i}.weight"], state[f"{i}.bias"]) for i in range(len(layers))]
        points = _inputs(per_parameter * sum(v.numel() for v in state.values()), widths[0], seed)
        moved += functional_dimension(layers, points).ranks != functional_dimension(changed, points).ranks
    return moved


def planted_table(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Directions lost by hand-built mechanisms, predicted and measured, in networks that had lost none.

    Returns:
        One row a mechanism: its name, the widths, the prediction, and the loss in each network.
    """
    cases = {"dead": (5, 8, 1), "linear": (5, 8, 1), "apart": (5, 8, 8, 1)}
    names = {
        "dead": "a neuron that is never active",
        "linear": "a neuron that is always active",
        "apart": "two neurons never active together",
    }
    rows = []
    for kind, widths in cases.items():
        lost = []
        count = 100 * sum(n * (m + 1) for m, n in zip(widths, widths[1:]))
        for seed in seeds:
            layers, points = random_relu_layers(widths, seed=seed), _inputs(count, widths[0], seed)
            before = functional_dimension(layers, points).ranks[0]
            if before == max_functional_dimension(widths):
                after = functional_dimension(plant_mechanism(layers, kind), points).ranks[0]  # type: ignore[arg-type]
                lost.append(before - after)
        rows.append({"mechanism": names[kind], "widths": widths, "predicted": planted_deficit(widths, kind),  # type: ignore[arg-type]
                     "lost": lost})  # fmt: skip
    return rows


# ---------------------------------------------------------------- copies of one network


def copy_table(seeds: Sequence[int], *, spread: float = 1.0) -> list[dict[str, Any]]:
    """A trained network beside copies that compute the same function: how far they are, and the barrier to them.

    Args:
        seeds: One a network; they are trained on clean digits, then everything is done in double precision.
        spread: Standard deviation of the logarithms of the scales.

    Returns:
        One row a kind of copy, mean over networks: its name, the largest change of an output as a share of the largest
        output, the squared distance, the barrier in loss on the training part.
    """
    splits = tabular_splits("digits", seeds, noise=0.0)
    build = partial(he_network, [splits.train[0].shape[-1], 32, 32, splits.outputs])
    trained = fit_many(
        build, *splits.train, seeds=list(seeds), per_member_data=True, epochs=20, batch_size=64, lr=0.05, momentum=0.9
    )
    module, found = copy.deepcopy(trained.module).double(), []
    for index, seed in enumerate(seeds):
        state = {name: value.detach().double() for name, value in member(trained.params, index).items()}
        x, y = splits.train[0][index].double(), splits.train[1][index]
        generator = torch.Generator().manual_seed(seed)
        factors = {k: torch.exp(spread * torch.randn(32, generator=generator, dtype=torch.float64))
                   for k in ("layers.0", "layers.1")}  # fmt: skip
        scaled = rescale_network(state, factors)
        both = permute_network(scaled, random_permutations(state, seed=seed))
        unit, plain = unit_neurons(both), unit_neurons(state)
        copies = {
            "in another order": (state, permute_network(state, random_permutations(state, seed=seed))),
            "scaled": (state, scaled),
            "scaled, in another order": (state, both),
            "the same, undone": (plain, permute_network(unit, weight_matching(unit, plain, seed=seed))),
        }
        for name, (first, second) in copies.items():
            values = [torch.func.functional_call(module, net, (x,)).detach() for net in (first, second)]
            path = linear_path(module, stack([first]), stack([second]), x, y, shares=np.linspace(0, 1, 11).tolist())
            change = float((values[1] - values[0]).abs().max() / values[0].abs().max())
            square = sum(float((first[k] - second[k]).square().sum()) for k in first)
            found.append((name, change, square, float(linear_barrier(path))))
    rows = []
    for name in dict.fromkeys(row[0] for row in found):
        change, square, barrier = np.mean([row[1:] for row in found if row[0] == name], 0)
        rows.append({"copy": name, "change of the outputs": change, "squared distance": square, "barrier": barrier})
    return rows


# ---------------------------------------------------------------- layer by layer


@dataclass(frozen=True)
class Pairs:
    """Trained pairs of networks.

    Attributes:
        module: The architecture.
        first, second: Parameters ``[M, ...]``.
    """

    module: torch.nn.Module
    first: Stack
    second: Stack

    def __len__(self) -> int:
        return len(next(iter(self.first.values())))


def he_network(widths: Sequence[int]) -> MLP:
    """A network of ReLUs with He initialisation: weights of variance ``2 / fan_in``, biases zero."""
    network = MLP(list(widths))
    for layer in network.layers:
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        torch.nn.init.zeros_(layer.bias)
    return network


def split_pairs(trained: Ensemble) -> Pairs:
    """Members 0, 2, ... beside members 1, 3, ..."""
    even = {name: value[0::2] for name, value in trained.params.items()}
    odd = {name: value[1::2] for name, value in trained.params.items()}
    return Pairs(trained.module, even, odd)


class LayerTable(NamedTuple):
    """Barriers of single layers beside their controls; a pair without a full barrier is left out.

    Attributes:
        layers: Names.
        barrier: ``[layers, pairs]``, mean over both sides.
        joint: ``[layers]``: as far along the line of all layers.
        random: ``[layers]``: as far in a random direction of the layer.
        full: ``[pairs]``.
        full_error: ``[pairs]``, in error.
        error: ``[layers, pairs]``, in error.
        segment: ``[layers, all pairs]``: the other sense of a barrier.
        trained: How many pairs were trained.
    """

    layers: list[str]
    barrier: np.ndarray
    joint: np.ndarray
    random: np.ndarray
    full: np.ndarray
    full_error: np.ndarray
    error: np.ndarray
    segment: np.ndarray
    trained: int

    def share(self) -> np.ndarray:
        """Mean barrier of each layer over the mean full barrier, ``[layers]``."""
        return self.barrier.mean(1) / self.full.mean()


def train_pairs(
    build: Callable[[], torch.nn.Module], train: Labelled, seeds: Sequence[int], *, shared_start: bool, **recipe: Any
) -> Pairs:
    """Pairs that differ in the order of their batches, from one start or from two.

    Args:
        build: Makes one network.
        train: Inputs and labels.
        seeds: Two a pair.
        shared_start: Whether the two of a pair begin with the same weights.
        recipe: Options of :func:`netatlas.core.train.fit_many`.
    """
    starts = [s - i % 2 * (s - seeds[i - 1]) if shared_start else s for i, s in enumerate(seeds)]
    order = torch.stack([batch_order(s, len(train[0]), recipe["epochs"]) for s in seeds], 1)
    return split_pairs(fit_many(build, *train, seeds=starts, order=order, **recipe))


def layer_ratios(pairs: Pairs, data: Labelled, *, seed: int, least: float = 0.05, draws: int = 5) -> LayerTable:
    """Layer-wise barriers beside their two controls, over the pairs that have a full barrier to explain.

    Args:
        pairs: The networks.
        data: Labelled examples.
        seed: Seeds the random directions.
        least: A pair counts if its full barrier in loss exceeds this.
        draws: Random directions a layer.
    """
    ends = (pairs.module, pairs.first, pairs.second, *data)
    found = layerwise_barrier(*ends)
    counts = found.full > least
    joint, drawn = joint_direction_control(*ends), random_direction_control(*ends, seed=seed, draws=draws)

    def mean(values: Tensor) -> np.ndarray:
        return values[..., counts].mean((0, 2)).numpy()

    return LayerTable(
        found.layers,
        found.loss.mean(0)[:, counts].numpy(),
        mean(joint),
        mean(drawn),
        found.full[counts].numpy(),
        found.full_error[counts].numpy(),
        found.error.mean(0)[:, counts].numpy(),
        segment_barrier(*ends).numpy(),
        len(pairs),
    )


def layer_row(found: LayerTable) -> dict[str, float]:
    """A line of the table over settings; empty where no pair has a barrier to explain."""
    if not len(found.full):
        return {"pairs with a barrier": 0.0}
    return {
        "pairs with a barrier": float(len(found.full)),
        "full barrier": float(found.full.mean()),
        "full barrier, error": float(found.full_error.mean()),
        "first layer / full": float(found.share()[0]),
        "largest other / full": float(found.share()[1:].max()),
        "largest layer, error": float(found.error.mean(1).max()),
    }


def cumulative(pairs: Pairs, data: Labelled, direction: int) -> Tensor:
    """Barriers of a growing set of layers, from the input (1) or from the output (-1), ``[layers + 1, M]``."""
    order = list(layer_groups(list(pairs.first)))[::direction]
    return cumulative_barrier(pairs.module, pairs.first, pairs.second, *data, order=order)


def displacement_share(pairs: Pairs, layer: int) -> float:
    """Share of the squared distance between the two networks of a pair that lies in one layer, mean over pairs."""
    groups = layer_groups(list(pairs.first))
    squares = torch.stack(
        [sum((pairs.first[n] - pairs.second[n]).flatten(1).square().sum(1) for n in names) for names in groups.values()]  # type: ignore[misc]
    )
    return float((squares[layer] / squares.sum(0)).mean())


def linear_network_bend(seed: int, *, widths: Sequence[int] = (6, 5, 5, 3), points: int = 11) -> float:
    """Smallest second difference of a deep linear network's squared loss along a segment in one layer.

    The loss is convex in each layer alone, so no second difference can be negative.

    Args:
        seed: Seeds two networks and the data.
        widths: Of the network.
        points: Points on each segment.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, y = draw(40, widths[0]), draw(40, widths[-1])
    first, second = ([draw(n, m) for m, n in zip(widths, widths[1:])] for _ in range(2))
    smallest = float("inf")
    for layer in range(len(first)):
        losses = []
        for share in torch.linspace(0, 1, points, dtype=torch.float64):
            h = x
            for i, (a, b) in enumerate(zip(first, second)):
                h = h @ (a + share * (b - a) if i == layer else a).T
            losses.append(((h - y) ** 2).mean())
        line = torch.stack(losses)
        smallest = min(smallest, float((line[2:] - 2 * line[1:-1] + line[:-2]).min()))
    return smallest


# ---------------------------------------------------------------- branches


class Branches(NamedTuple):
    """Pairs of runs that parted at one time, looked at after some training.

    Attributes:
        name: When they parted.
        group: Number of the group.
        barrier: Largest rise on the line, ``[M]``.
        middle: Rise at one half, ``[M]``.
        predicted: By second order with gradients; ``bent`` without; ``square`` the squared distance.
        bent: As above.
        square: As above.
        angle: At the branch, degrees; NaN for independent runs.
        layers: Measured rise ``[layers, M]`` of the first network's loss by averaging one layer.
        layers_predicted: By second order.
        layers_square: Squared distance in the layer.
    """

    name: str
    group: int
    barrier: Tensor
    middle: Tensor
    predicted: Tensor
    bent: Tensor
    square: Tensor
    angle: Tensor
    layers: Tensor
    layers_predicted: Tensor
    layers_square: Tensor


def measure_branches(
    name: str, group: int, pairs: Pairs, start: Stack | None, data: Labelled, *, shares: int = 11
) -> Branches:
    """All that is asked of a group of pairs.

    Args:
        name: When they parted.
        group: Number of the group.
        pairs: The two ends.
        start: Where they parted, ``[M, ...]``, or ``None`` for independent runs.
        data: Labelled examples.
        shares: Points on the line.
    """
    grid = np.linspace(0, 1, shares).tolist()
    path = linear_path(pairs.module, pairs.first, pairs.second, *data, shares=grid)
    second: SecondOrder = directional_curvature(pairs.module, pairs.first, pairs.second, *data)
    layers = layerwise_barrier(pairs.module, pairs.first, pairs.second, *data)
    rise = layers.loss[0] + layers.ends.mean(0) - layers.ends[0]
    none = torch.full((len(pairs),), float("nan"), dtype=torch.float64)
    found = (
        linear_barrier(path),
        layers.full,
        barrier_second_order(second),
        barrier_second_order(second, gradient=False),
        second.square[0],
        none if start is None else branch_angle(start, pairs.first, pairs.second),
        rise,
        layer_second_order(second),
        second.square[1:],
    )
    return Branches(name, group, *(value.cpu() for value in found))


def branching_runs(
    build: Callable[[], torch.nn.Module],
    train: Labelled,
    judged: Labelled,
    *,
    pairs: int,
    seed: int,
    times: Sequence[float],
    total: int,
    after: int,
    batch_size: int,
    **recipe: Any,
) -> tuple[list[Branches], list[Branches]]:
    """Pairs that part after some epochs, with a fixed total of epochs and with fixed epochs after the branch.

    Both arms are read off the same runs: the rate is constant, so a shorter run is the beginning of a longer one.

    Args:
        build: Makes one network.
        train: Inputs and labels.
        judged: Examples on which loss, gradient and Hessian are measured.
        pairs: Pairs a branching time.
        seed: Seeds everything.
        times: Epochs before the branch.
        total: Epochs in the first arm.
        after: Epochs after the branch in the second arm.
        batch_size: Examples a step; divides the examples.
        recipe: Options of :func:`netatlas.core.train.fit_many`.

    Returns:
        Groups of the first arm (the last one: independent initialisations), and of the second.
    """
    examples = len(train[0])
    per_epoch = examples // batch_size
    seeds = [seed + 10_000 * group + pair for group in range(len(times) + 1) for pair in range(pairs)]
    starts, orders, branches = [], [], []
    for group, time in enumerate([*times, 0.0]):
        branch = round(time * per_epoch)
        own = seeds[group * pairs : (group + 1) * pairs]
        orders.append(branched_orders(examples, total, seeds=[(s, s + 5000) for s in own], branch=branch * batch_size))
        starts += [s + (5000 if group == len(times) and i else 0) for s in own for i in range(2)]
        branches.append(branch)
    stops = {branch + after * per_epoch for branch in branches[:-1]}
    kept: dict[int, Stack] = {}

    def observe(step: int, params: dict[str, Tensor]) -> None:
        if step in stops or step in branches:
            kept[step] = {name: value.detach().clone() for name, value in params.items()}

    trained = fit_many(
        build, *train, seeds=starts, epochs=total, batch_size=batch_size, order=torch.cat(orders, 1),
        observe=observe, **recipe,
    )  # fmt: skip

    def part(params: Stack, group: int, member_of: int | None = None) -> Stack:
        window = slice(2 * pairs * group + (member_of or 0), 2 * pairs * (group + 1), 1 if member_of is None else 2)
        return {name: value[window] for name, value in params.items()}

    def measured(params: Stack, group: int) -> Branches:
        ends = Pairs(trained.module, part(params, group, 0), part(params, group, 1))
        last = group == len(times)
        name = "independent" if last else f"{times[group]:g}"
        return measure_branches(name, group, ends, None if last else part(kept[branches[group]], group, 0), judged)

    fixed_total = [measured(trained.params, group) for group in range(len(times) + 1)]
    fixed_after = [measured(kept[branches[group] + after * per_epoch], group) for group in range(len(times))]
    return fixed_total, fixed_after


def unparted_pair(build: Callable[[], torch.nn.Module], train: Labelled, *, seed: int, batch_size: int, **recipe: Any
                  ) -> tuple[float, float]:  # fmt: skip
    """The null case: a pair that never parts. Its squared distance, and the largest value of the line above its ends.

    Args:
        build: Makes one network.
        train: Inputs and labels.
        seed: Seeds the pair.
        batch_size: Examples a step.
        recipe: Options of :func:`netatlas.core.train.fit_many`.
    """
    order = branched_orders(len(train[0]), 1, seeds=[(seed, seed + 5000)], branch=len(train[0]))
    ends = split_pairs(
        fit_many(build, *train, seeds=[seed, seed], epochs=1, batch_size=batch_size, order=order, **recipe)
    )
    path = linear_path(ends.module, ends.first, ends.second, *train, shares=[0.0, 0.5, 1.0])
    square = sum(float((ends.first[name] - ends.second[name]).square().sum()) for name in ends.first)
    return square, float(linear_barrier(path).abs().max())


def plane(x: tuple[float, float], y: tuple[float, float], points: int = 121) -> tuple[Tensor, Tensor]:
    """A grid of coordinates between two bounds in each direction."""
    axes = (torch.linspace(*bounds, points, dtype=torch.float64) for bounds in (x, y))
    first, second = torch.meshgrid(*axes, indexing="xy")
    return first, second


def fall(groups: Sequence[Branches]) -> float:
    """Rank correlation over all pairs between the time of the branch and the barrier."""
    times = np.concatenate([np.full(len(g.barrier), float(g.group)) for g in groups])
    return spearman(times, pooled(groups, "barrier"))


def mean_ratio(group: Branches) -> float:
    """Measured over predicted barrier at one half, of the means."""
    return float(group.middle.mean() / group.predicted.mean())


def branch_row(group: Branches) -> dict[str, float]:
    """A line of the table over branch times."""
    return {
        "angle, degrees": float(group.angle.mean()),
        "squared distance": float(group.square.mean()),
        "barrier": float(group.barrier.mean()),
        "at one half": float(group.middle.mean()),
        "second order": float(group.predicted.mean()),
        "curvature only": float(group.bent.mean()),
    }


def pooled(groups: Sequence[Branches], part: str) -> np.ndarray:
    """One value a pair, over all groups."""
    return torch.cat([getattr(g, part) for g in groups]).numpy()


def rank_difference(
    groups: Sequence[Branches], first: str, second: str, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Rank correlations of two predictors with the barrier at one half, and how often the first is larger.

    Returns:
        Both correlations, and the share of bootstrap samples of pairs in which the first is larger.
    """
    truth, a, b = (pooled(groups, part) for part in ("middle", first, second))
    chosen = np.random.default_rng(seed).integers(0, len(truth), (draws, len(truth)))
    ranks = [scipy.stats.rankdata(values[chosen], axis=1) - (len(truth) + 1) / 2 for values in (truth, a, b)]
    # Both correlations share the length of the true ranks, which may vanish: equal values say nothing.
    first_way, second_way = ((ranks[0] * r).sum(1) / np.maximum(np.sqrt((r * r).sum(1)), 1e-300) for r in ranks[1:])
    wins = int((first_way > second_way + 1e-12).sum())
    return spearman(a, truth), spearman(b, truth), wins / draws


def within_groups(
    groups: Sequence[Branches], part: str, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Correlation of ranks centred within groups of equal branch time, with a bootstrap interval of 95 %.

    Pairs are drawn within their groups; a pair drawn twice is tied with itself.
    """

    rows = [np.stack([getattr(g, part).numpy(), g.middle.numpy()]) for g in groups]
    generator = np.random.default_rng(seed)

    def correlations(picks: list[np.ndarray]) -> np.ndarray:
        # Mean ranks: a pair that is drawn twice is tied with itself, which says nothing about the order.
        drawn = [scipy.stats.rankdata(row[:, p], axis=-1) - (row.shape[1] + 1) / 2 for row, p in zip(rows, picks)]
        x, y = np.concatenate(drawn, -1)
        size = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
        return (x * y).sum(-1) / np.where(size > 0, size, 1.0)

    picks = [generator.integers(0, row.shape[1], (draws, row.shape[1])) for row in rows]
    low, high = np.quantile(correlations(picks), [0.025, 0.975])
    whole = correlations([np.arange(row.shape[1])[None] for row in rows])
    return float(whole[0]), float(low), float(high)


def layer_rank_correlations(groups: Sequence[Branches], part: str) -> np.ndarray:
    """For each pair, the rank correlation over layers between a predictor and the measured rise."""
    return np.array(
        [
            spearman(getattr(g, part)[:, pair].numpy(), g.layers[:, pair].numpy())
            for g in groups
            for pair in range(g.layers.shape[1])
        ]
    )


# ---------------------------------------------------------------- ensembles


class Splits(NamedTuple):
    """One data set in several random splits, ``[S, N, ...]`` each.

    Attributes:
        name: Of the data set.
        task: ``"classification"`` or ``"regression"``.
        train, validation, test: Inputs and targets.
    """

    name: str
    task: Task
    train: Labelled
    validation: Labelled
    test: Labelled

    @property
    def outputs(self) -> int:
        """Number of outputs a network needs."""
        return int(self.train[1].max()) + 1 if self.task == "classification" else 1


def tabular_splits(
    name: str,
    seeds: Sequence[int],
    *,
    noise: float = 1.0,
    shares: Sequence[float] = (0.6, 0.2),
    device: str | torch.device = "cpu",
) -> Splits:
    """A table that comes with scikit-learn, split at random, standardised by its training part, with noise added.

    Args:
        name: ``"digits"``, ``"breast_cancer"``, ``"wine"`` or ``"diabetes"``.
        seeds: One a split; also of the noise.
        noise: Standard deviation of the noise on standardised inputs: clean tables are learnt to the last example.
        shares: Shares of training and validation examples.
        device: Where the parts are put; drawing is done on the CPU, so it does not change them.
    """
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    x, task = torch.from_numpy(bunch.data).double(), "regression" if name == "diabetes" else "classification"
    y = torch.from_numpy(bunch.target)
    parts: list[list[Tensor]] = [[] for _ in range(6)]
    cuts = [round(len(x) * shares[0]), round(len(x) * (shares[0] + shares[1]))]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=generator)
        mean, std = x[order[: cuts[0]]].mean(0), x[order[: cuts[0]]].std(0)
        inputs = (x - mean) / torch.where(std > 0, std, torch.ones_like(std))
        inputs = (inputs + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)).float()
        targets = y
        if task == "regression":
            known = y[order[: cuts[0]]].double()
            targets = ((y.double() - known.mean()) / known.std()).float()[:, None]
        for number, rows in enumerate(order.tensor_split(cuts)):
            parts[2 * number].append(inputs[rows])
            parts[2 * number + 1].append(targets[rows])
    train, validation, test = (
        (torch.stack(a).to(device), torch.stack(b).to(device)) for a, b in zip(parts[::2], parts[1::2])
    )
    return Splits(name, task, train, validation, test)  # type: ignore[arg-type]


def _repeated(part: Labelled, members: int) -> Labelled:
    x, y = (value[:, None].expand(len(value), members, *value.shape[1:]).flatten(0, 1) for value in part)
    return x, y


class Arm(NamedTuple):
    """Outputs of all members of an arm, ``[S, M, N, C]``, and the trained networks.

    Attributes:
        validation, test: Outputs.
        trained: The networks, split by split.
    """

    validation: Tensor
    test: Tensor
    trained: Ensemble


def train_arm(
    build: Callable[[], torch.nn.Module],
    splits: Splits,
    *,
    members: int,
    steps: int,
    seed: int,
    batch_size: int = 64,
    snapshots: Sequence[int] = (),
    **recipe: Any,
) -> tuple[Arm, dict[int, Arm]]:
    """Train the members of every split at once, each from its own start and with its own batches.

    Args:
        build: Makes one member.
        splits: The data.
        members: Members a split.
        steps: Training length, rounded up to whole epochs.
        seed: Seeds the members.
        batch_size: Examples a step.
        snapshots: Steps at which the outputs are wanted too.
        recipe: Options of :func:`netatlas.core.train.fit_many`.

    Returns:
        The trained arm, and the arm as it was at each snapshot.
    """
    count = len(splits.train[0])
    x, y = _repeated(splits.train, members)
    epochs = -(-steps // -(-x.shape[1] // batch_size))
    kept: dict[int, dict[str, Tensor]] = {}

    def observe(step: int, params: dict[str, Tensor]) -> None:
        if step in snapshots:
            kept[step] = {name: value.detach().clone() for name, value in params.items()}

    trained = fit_many(
        build, x, y, seeds=[seed + m for m in range(count * members)], epochs=epochs, batch_size=batch_size,
        per_member_data=True, loss="cross_entropy" if splits.task == "classification" else "mse",
        observe=observe, device=x.device, **recipe,
    )  # fmt: skip

    def outputs(ensemble: Ensemble, part: Labelled) -> Tensor:
        found = ensemble.predict(_repeated(part, members)[0], per_member_data=True)
        return found.unflatten(0, (count, members))

    def arm(params: dict[str, Tensor]) -> Arm:
        ensemble = Ensemble(trained.module, params, trained.buffers)
        return Arm(outputs(ensemble, splits.validation), outputs(ensemble, splits.test), ensemble)

    return arm(trained.params), {step: arm(params) for step, params in kept.items()}


def scores(arm: Arm, splits: Splits, sizes: Sequence[int], *, part: str = "test") -> Tensor:
    """Scores of ensembles of growing size, ``[splits, sizes]``."""
    targets = getattr(splits, part)[1]
    return torch.stack(
        [ensemble_score(o, y, sizes, task=splits.task) for o, y in zip(getattr(arm, part), targets)]
    ).cpu()


def one_split(splits: Splits, index: int = 0) -> Splits:
    """The data of one split alone."""
    first, second, third = ((x[index : index + 1], y[index : index + 1]) for x, y in splits[2:])
    return Splits(splits.name, splits.task, first, second, third)


def interpolated_score(arm: Arm, splits: Splits) -> Tensor:
    """Score of the one network whose weights are the mean over all members of a split, ``[splits]``."""
    count, members = arm.test.shape[:2]
    mean = {name: value.unflatten(0, (count, members)).mean(1) for name, value in arm.trained.params.items()}
    buffers = {name: value[::members] for name, value in arm.trained.buffers.items()}
    outputs = Ensemble(arm.trained.module, mean, buffers).predict(splits.test[0], per_member_data=True)
    found = [ensemble_score(o[None], y, [1], task=splits.task) for o, y in zip(outputs, splits.test[1])]
    return torch.cat(found).cpu()


class EnsembleStudy(NamedTuple):
    """What ensembles of each arm reach on one data set.

    Attributes:
        name: Of the data set.
        sizes: Ensemble sizes.
        scores: Arm to ``[splits, sizes]``.
        single_average: Arm to the score of the averaged network ``[splits]``.
        disagreement: Arm to the mean disagreement of members (NaN for regression).
        settings: Arm to the setting that validation chose.
        weak_steps: Steps after which the plain network's single score came closest to the asymmetric one's.
    """

    name: str
    sizes: list[int]
    scores: dict[str, Tensor]
    single_average: dict[str, Tensor]
    disagreement: dict[str, float]
    settings: dict[str, float]
    weak_steps: int

    def gain(self, arm: str) -> Tensor:
        """Score of the largest ensemble over that of a single network, minus one, ``[splits]``."""
        return self.scores[arm][:, -1] / self.scores[arm][:, 0] - 1


def asymmetric_builder(
    inputs: int, outputs: int, *, width: int, scale: float, shared: bool = True, activation: str = "gelu"
) -> Callable[[], torch.nn.Module]:
    """Makes asymmetric networks: with one set of frozen weights for all, or with one for each.

    Args:
        inputs, outputs: Sizes at the ends.
        width: Of three hidden layers.
        scale: Of the frozen weights.
        shared: Whether all networks share their frozen weights.
        activation: Between layers.
    """
    widths = [inputs, width, width, width, outputs]
    fixed = [min(f, w) for f, w in zip((2, 3, 3, 3), widths)]

    def build() -> torch.nn.Module:
        seed = 0 if shared else int(torch.randint(1, 2**20, ()))
        return AsymmetricMLP(widths, fixed=fixed, scale=scale, seed=seed, activation=activation)  # type: ignore[arg-type]

    return build


def ensemble_study(
    splits: Splits,
    *,
    width: int,
    members: int,
    steps: int,
    seed: int,
    decays: Sequence[float] = (0.03, 1.0),
    scales: Sequence[float] = (0.3, 1.0),
    ablations: bool = False,
    lr: float = 1e-3,
) -> EnsembleStudy:
    """Deep ensembles of plain and of asymmetric networks, both tuned on the first split with equally many settings.

    The plain arm has twice the members; its second half is the null. The weak arm is the plain one stopped early,
    where a single network is about as good as a single asymmetric one with scale 1.

    Args:
        splits: The data.
        width: Of the hidden layers.
        members: Members an ensemble.
        steps: Training length.
        seed: Seeds the members.
        decays: Weight decays tried for the plain arm.
        scales: Scales of the frozen weights tried for the asymmetric arm; its decay is the first of ``decays``.
        ablations: Whether to train also frozen zeros and masks of their own for each member.
        lr: AdamW's rate.
    """
    inputs, outputs = splits.train[0].shape[-1], splits.outputs
    sizes = [2**k for k in range(members.bit_length()) if 2**k <= members]
    plain = partial(MLP, [inputs, width, width, width, outputs], activation="gelu")
    options = {"steps": steps, "optimizer": "adamw", "lr": lr}
    first = one_split(splits)

    def best(settings: Sequence[float], train: Callable[[float, Splits, int], Arm]) -> float:
        reached = [float(scores(train(s, first, members), first, [members], part="validation")) for s in settings]
        return settings[int(np.argmax(reached))]

    def asymmetric(scale: float, on: Splits, count: int, shared: bool = True) -> Arm:
        build = asymmetric_builder(inputs, outputs, width=width, scale=scale, shared=shared)
        return train_arm(build, on, members=count, seed=seed, weight_decay=decays[0], **options)[0]

    def symmetric(decay: float, on: Splits, count: int) -> Arm:
        return train_arm(plain, on, members=count, seed=seed, weight_decay=decay, **options)[0]

    decay, scale = best(decays, symmetric), best(scales, asymmetric)
    moments = list(range(10, steps, 10))
    both, early = train_arm(
        plain, splits, members=2 * members, seed=seed, weight_decay=decay, snapshots=moments, **options
    )
    arms = {"plain": _half(both, 0, members), "plain, other seeds": _half(both, 1, members)}
    arms["asymmetric"] = asymmetric(scale, splits, members)
    full = arms["asymmetric"] if scale == 1 else asymmetric(1.0, splits, members)
    level = float(scores(full, splits, [1], part="validation").mean())
    weak = {step: float(scores(arm, splits, [1], part="validation").mean()) for step, arm in early.items()}
    weak_steps = min(weak, key=lambda step: abs(weak[step] - level))
    arms["asymmetric, scale 1"], arms["weak plain"] = full, _half(early[weak_steps], 0, members)
    if ablations:
        arms["frozen zeros"] = asymmetric(0.0, splits, members)
        arms["own masks"] = asymmetric(1.0, splits, members, shared=False)
    regression = splits.task == "regression"
    return EnsembleStudy(
        splits.name,
        sizes,
        {name: scores(arm, splits, sizes) for name, arm in arms.items()},
        {name: interpolated_score(arm, splits) for name, arm in arms.items()},
        {
            name: float("nan") if regression else float(np.mean([member_disagreement(o) for o in arm.test]))
            for name, arm in arms.items()
        },
        {"plain": decay, "asymmetric": scale},
        weak_steps,
    )


def _half(arm: Arm, half: int, members: int) -> Arm:
    """The first or second half of the members of every split."""
    count, window = len(arm.test), slice(half * members, (half + 1) * members)

    def cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.unflatten(0, (count, -1))[:, window].flatten(0, 1) for name, value in tensors.items()}

    ensemble = Ensemble(arm.trained.module, cut(arm.trained.params), cut(arm.trained.buffers))
    return Arm(arm.validation[:, window], arm.test[:, window], ensemble)


def exact_checks(seed: int) -> dict[str, float]:
    """Errors of what must hold exactly for asymmetric networks and mixtures; the last entry must *not* vanish."""
    torch.manual_seed(seed)
    widths, fixed = [8, 12, 12, 3], [2, 3, 3]
    x = torch.randn(30, 8, dtype=torch.float64)
    first, second = (AsymmetricMLP(widths, fixed=fixed, seed=1, activation="relu").double() for _ in range(2))
    middle = interpolate_parameters(dict(first.named_parameters()), dict(second.named_parameters()), 0.5)
    between = AsymmetricMLP(widths, fixed=fixed, seed=1, activation="relu").double()
    between.load_state_dict(dict(between.named_buffers()) | middle)
    kept = max(
        float(((a.weight() - b.weight()) * (1 - a.mask)).detach().abs().max())
        for a, b in zip(between.layers, first.layers)
    )
    weights = {f"{i}.weight": layer.weight().detach() for i, layer in enumerate(first.layers)}
    weights |= {f"{i}.bias": layer.linear.bias.detach() for i, layer in enumerate(first.layers)}
    weights = {name: weights[name] for i in range(3) for name in (f"{i}.weight", f"{i}.bias")}
    moved = permute_network(weights, random_permutations(weights, seed=seed))
    restored = dict(moved)
    for i, layer in enumerate(first.layers):
        restored[f"{i}.weight"] = layer.mask * moved[f"{i}.weight"] + layer.frozen

    def run(state: dict[str, Tensor]) -> Tensor:
        h = x
        for i in range(3):
            h = torch.nn.functional.linear(torch.relu(h) if i else h, state[f"{i}.weight"], state[f"{i}.bias"])
        return h

    experts = [MLP(widths).double() for _ in range(3)]
    gate = Gate(8, 3).double()
    chosen = _FixedGate(torch.eye(3, dtype=torch.float64)[1])
    twins = [experts[0], copy.deepcopy(experts[0]), copy.deepcopy(experts[0])]

    def error(a: Tensor, b: Tensor) -> float:
        return float((a - b).detach().abs().max())

    return {
        "averaging keeps the frozen weights": kept,
        "places exchanged with their masks: same function": error(run(moved), first(x)),
        "one expert chosen: that expert": error(MixtureOfInterpolatedExperts(experts, chosen)(x), experts[1](x)),
        "equal experts, any gate: that expert": error(MixtureOfInterpolatedExperts(twins, gate)(x), experts[0](x)),
        "places exchanged, frozen weights restored: another function": error(run(restored), first(x)),
    }


class _FixedGate(torch.nn.Module):
    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.weights.expand(len(x), -1)


def mixture_study(
    splits: Splits, *, width: int, experts: int, members: int, steps: int, seed: int, scale: float,
    temperature: float | None = None, lr: float = 1e-3,
) -> dict[str, Tensor]:  # fmt: skip
    """Mean accuracy of mixtures of plain and of asymmetric experts, of outputs and of weights, ``[splits]`` each.

    Args:
        splits: The data.
        width: Of the experts' hidden layers.
        experts: Experts a mixture.
        members: Mixtures a split, averaged.
        steps: Training length.
        seed: Seeds the mixtures.
        scale: Of the asymmetric experts' frozen weights.
        temperature: Of the Gumbel-softmax gate; ``None`` for the plain softmax.
        lr: AdamW's rate.
    """
    inputs, outputs = splits.train[0].shape[-1], splits.outputs
    makers = {
        "plain": partial(MLP, [inputs, width, width, width, outputs]),
        "asymmetric": asymmetric_builder(inputs, outputs, width=width, scale=scale, activation="relu"),
    }
    kinds = {"outputs": MixtureOfExperts, "weights": MixtureOfInterpolatedExperts}
    found = {}
    for kind, mixture in kinds.items():
        for name, maker in makers.items():

            def build(mixture=mixture, maker=maker) -> torch.nn.Module:
                gate = Gate(inputs, experts, temperature=temperature)
                return mixture([maker() for _ in range(experts)], gate)

            arm, _ = train_arm(
                build, splits, members=members, steps=steps, seed=seed, optimizer="adamw", lr=lr, weight_decay=0.03
            )
            found[f"{kind}, {name}"] = scores(arm, splits, [1])[:, 0]
    return found


def one_sided_lead(difference: Tensor, *, level: float = 0.95) -> tuple[float, float]:
    """Mean of paired differences, and how large it must be to be positive by a one-sided t test.

    Args:
        difference: One value a split.
        level: Of the test.
    """
    count = len(difference)
    bound = scipy.stats.t.ppf(level, count - 1) * float(difference.double().std()) / count**0.5
    return float(difference.double().mean()), float(bound)


def interval(difference: Tensor, *, level: float = 0.95) -> tuple[float, float]:
    """Ends of the two-sided interval of a mean of paired differences.

    Args:
        difference: One value a split.
        level: Of the interval.
    """
    found = mean_interval(difference, level)
    return float(found.mean - found.half_width), float(found.mean + found.half_width)


def conclusion(low: float, high: float, *, margin: float = 0.02) -> str:
    """What an interval of a difference says: a difference, none to a margin, or not enough data."""
    if low > 0 or high < 0:
        return f"differ ({low:+.3f} to {high:+.3f})"
    inside = -margin < low and high < margin
    return f"{'do not differ' if inside else 'leave it open'} ({low:+.3f} to {high:+.3f})"


# ---------------------------------------------------------------- portrait


def alignment_portrait(
    train: Labelled,
    judged: Labelled,
    *,
    widths: Sequence[int],
    depths: Sequence[int],
    pairs: int,
    seed: int,
    steps: int,
    **recipe: Any,
) -> list[dict[str, Any]]:
    """Barriers of the same pairs of networks by every way of bringing them together, over width and depth.

    Args:
        train: Labelled examples.
        judged: Those on which the barrier is measured; alignment sees only ``train``.
        widths: Of the hidden layers.
        depths: Numbers of hidden layers.
        pairs: Pairs a size.
        seed: Seeds the pairs.
        steps: Steps of the straight-through search.
        recipe: Options of :func:`netatlas.core.train.fit_many`.

    Returns:
        One row a size and method: ``width``, ``depth``, ``method``, ``barrier`` (``[pairs]``, loss at one half) and
        ``error`` (of the middle network).
    """
    rows = []
    samples, inputs = train[0][:500], train[0].flatten(1).shape[1]
    for depth in depths:
        for width in widths:
            build = partial(he_network, [inputs, *[width] * depth, 10])
            seeds = [seed + i for i in range(2 * pairs)]
            ends = train_pairs(build, train, seeds, shared_start=False, **recipe)
            alike = train_pairs(build, train, seeds, shared_start=True, **recipe)
            moved = _aligned(ends, train, samples, seed=seed, steps=steps)
            lines = {name: (state, ends.second) for name, state in moved.items()}
            lines["same start, as they are"] = (alike.first, alike.second)
            for method, (a, b) in lines.items():
                path = linear_path(ends.module, a, b, *judged, shares=[0.0, 0.5, 1.0])
                rows.append({"width": width, "depth": depth, "method": method, "barrier": linear_barrier(path),
                             "error": path.error[1]})  # fmt: skip
    return rows


def _aligned(pairs: Pairs, train: Labelled, samples: Tensor, *, seed: int, steps: int) -> dict[str, Stack]:
    """The first networks, as they are and with their neurons reordered by each method."""
    arms: dict[str, list[dict[str, Tensor]]] = {}
    skeleton = Ensemble(pairs.module, dict(pairs.first)), Ensemble(pairs.module, dict(pairs.second))
    for index in range(len(pairs)):
        a, b = member(pairs.first, index), member(pairs.second, index)
        values = [preactivations(side.member(index), samples) for side in skeleton]
        relu = torch.nn.functional.relu
        by_activation = {
            name.removesuffix(".weight"): activation_matching(relu(values[0][name]), relu(values[1][name]))
            for name in list(values[0])[:-1]
        }
        orders = {
            "as they are": {},
            "random order": random_permutations(a, seed=seed + index),
            "activation matching": by_activation,
            "weight matching": weight_matching(a, b, seed=seed),
            "straight-through": straight_through_matching(
                pairs.module, a, b, *train, steps=steps, seed=seed, batch_size=200
            ),
        }
        for name, order in orders.items():
            arms.setdefault(name, []).append(permute_network(a, order))
    return {name: stack(states) for name, states in arms.items()}
