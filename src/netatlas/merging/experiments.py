"""The chapter's experiments: stacks of trained networks in, accuracies by arm and seed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from netatlas.core.nn import MLP, ConvNet, ResNet
from netatlas.core.states import State, member, stack
from netatlas.core.stats import stderr
from netatlas.core.symmetry import WiredLayer, permute_network, preactivations, random_permutations, residual_wiring
from netatlas.core.train import Ensemble, fit_many, stack_members

from .average import prediction_ensemble
from .fisher import diagonal_fisher, fisher_merge, mlp_diagonal_fisher, shuffled_entries
from .ot_fusion import largest_neurons, transport_network
from .stitching import (
    Configuration,
    ResidualMLP,
    StitchableNetwork,
    VisionTransformer,
    flops_count,
    initialize_stitches,
    least_squares_stitch,
)

Labelled = tuple[Tensor, Tensor]
Params = dict[str, Tensor]


@dataclass(frozen=True)
class Comparison:
    """Merges of pairs of networks along the way from the first parent to the second.

    Attributes:
        shares: S values of the second parent's share.
        validation: accuracy on validation data by arm, ``[S, M]`` for M pairs.
        chosen: share with the best validation accuracy by arm, ``[M]``.
        test: test accuracy at the chosen share by arm, ``[M]``.
        middle: test accuracy at share one half by arm, ``[M]``; empty where it was not asked for.
    """

    shares: Tensor
    validation: dict[str, Tensor]
    chosen: dict[str, Tensor]
    test: dict[str, Tensor]
    middle: dict[str, Tensor]


def fusion_network(name: str, *, bias: bool = False, scale: float = 1) -> nn.Module:
    """A network to be fused: ``"mlp"`` (784-128-64-10), ``"vgg"`` (eight convolutions) or ``"resnet"`` (14 layers).

    None has normalisation layers; the convolutional ones start from He's initialisation, without which signals die in
    eight unnormalised layers.

    Args:
        name: the architecture.
        bias: whether layers have biases.
        scale: factor on the hidden widths.

    Raises:
        ValueError: an unknown name.
    """
    if name == "mlp":
        return MLP([784, round(128 * scale), round(64 * scale), 10], bias=bias)
    if name == "vgg":
        widths = [32, 64, 128, 128, 256, 256, 256, 256]
        network: nn.Module = ConvNet([round(width * scale) for width in widths], 10, norm="none", bias=bias)
    elif name == "resnet":
        network = ResNet(round(32 * scale), 2, 10, norm="none", bias=bias)
    else:
        raise ValueError(f"expected 'mlp', 'vgg' or 'resnet', got {name!r}")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def wiring_for(module: nn.Module) -> list[WiredLayer] | None:
    """The wiring of a network: two-stream for residual ones, the default chain (``None``) otherwise."""
    return residual_wiring(dict(module.named_parameters())) if isinstance(module, ResNet) else None


def with_weights(ensemble: Ensemble, params: Params) -> Ensemble:
    """The same architecture with other stacked weights."""
    return replace(ensemble, params=params)


def blend(start: State, end: State, shares: float | Float[Tensor, " members"]) -> Params:
    """Stacked networks between two stacks, each pair at its own share of the second."""
    blended = {}
    for name, left in start.items():
        s = torch.as_tensor(shares, dtype=left.dtype, device=left.device)
        s = s.reshape(s.shape + (1,) * (left.ndim - s.ndim)) if s.ndim else s
        blended[name] = (1 - s) * left + s * end[name]
    return blended


def _compare(
    merges: Mapping[str, Callable[[float | Tensor], Ensemble | Tensor]],
    shares: Sequence[float],
    validation: Labelled,
    test: Labelled | None,
    middle: bool = True,
) -> Comparison:
    grid = torch.as_tensor(shares, dtype=torch.float64)

    def accuracy(merge: Callable, share: float | Tensor, data: Labelled) -> Tensor:
        return merge(share, *data).cpu()

    curves = {name: torch.stack([accuracy(m, float(s), validation) for s in grid]) for name, m in merges.items()}
    chosen = {name: grid[curve.argmax(0)] for name, curve in curves.items()}
    return Comparison(
        grid,
        curves,
        chosen,
        {} if test is None else {name: accuracy(m, chosen[name], test) for name, m in merges.items()},
        {} if test is None or not middle else {name: accuracy(m, 0.5, test) for name, m in merges.items()},
    )


def aligned_sources(
    source: Ensemble, reference: Ensemble, samples: Tensor, *, seed: int = 0, **transport: Any
) -> dict[str, Params]:
    """The first parents of M pairs, as they are and moved onto the second by each kind of alignment.

    Args:
        source, reference: M pairs of networks.
        samples: unlabelled inputs for the activations.
        seed: of the random order.
        **transport: options of :func:`~netatlas.merging.transport_map`.

    Returns:
        Stacked weights by arm: ``"plain average"``, ``"random order"`` (equal widths only), ``"OT, weights"``,
        ``"OT, activations"``.
    """
    arms: dict[str, list[State]] = {"OT, weights": [], "OT, activations": []}
    wiring = wiring_for(reference.module)
    same = all(value.shape == reference.params[name].shape for name, value in source.params.items())
    if same:
        arms = {"plain average": [], "random order": [], **arms}
    for pair in range(len(source)):
        a, b = member(source.params, pair), member(reference.params, pair)
        values = [preactivations(side.member(pair), samples, wiring=wiring) for side in (source, reference)]
        if same:
            arms["plain average"].append(a)
            order = random_permutations(a, seed=seed + pair, wiring=wiring)
            arms["random order"].append(permute_network(a, order, wiring=wiring))
        arms["OT, weights"].append(transport_network(a, b, wiring=wiring, **transport)[0])
        moved, _ = transport_network(a, b, wiring=wiring, activations=tuple(values), **transport)
        arms["OT, activations"].append(moved)
    return {name: stack(states) for name, states in arms.items()}


def random_order_accuracy(
    source: Ensemble, reference: Ensemble, test: Labelled, *, orders: int = 16, share: float = 0.5, seed: int = 0
) -> Float[Tensor, " members"]:
    """Accuracy of each pair's average when the first parent's neurons are put in random orders, mean over the orders.

    Args:
        source, reference: M pairs of networks of equal widths.
        test: inputs and labels.
        orders: random orders a pair.
        share: of the second parent.
        seed: of the orders.

    Raises:
        ValueError: fewer than one order.
    """
    if orders < 1:
        raise ValueError(f"expected at least one order, got {orders}")
    wiring = wiring_for(reference.module)
    total = torch.zeros(len(source), dtype=torch.float64)
    for number in range(orders):
        states = [member(source.params, pair) for pair in range(len(source))]
        for pair, state in enumerate(states):
            order = random_permutations(state, seed=seed + number * len(states) + pair, wiring=wiring)
            states[pair] = permute_network(state, order, wiring=wiring)
        merged = with_weights(reference, blend(stack(states), reference.params, share))
        total += merged.accuracy(*test).cpu()
    return total / orders


def points(change: Float[Tensor, " members"]) -> str:
    """A difference of accuracies in percentage points, mean and standard error: ``"+1.2 ± 0.4"``.

    A standard error that would be rounded to nothing gets a second digit, and no zero has a sign of its own.
    """
    mean, error = 100 * float(change.mean()), 100 * stderr(change)
    digits = 2 if 0 < error < 0.05 else 1
    return f"{round(mean, digits) + 0.0:+.{digits}f} ± {error:.{digits}f}"


def fusion_comparison(
    arms: Mapping[str, State],
    reference: Ensemble,
    shares: Sequence[float],
    validation: Labelled,
    test: Labelled,
) -> Comparison:
    """Average each arm's first parents with the second ones at every share; choose the share on validation data.

    Args:
        arms: what :func:`aligned_sources` returns.
        reference: the second parents.
        shares: shares of the second parent to try; every arm gets the same ones.
        validation, test: inputs and labels.
    """

    def merge_of(start: State) -> Callable:
        return lambda share, x, y: with_weights(reference, blend(start, reference.params, share)).accuracy(x, y)

    return _compare({name: merge_of(start) for name, start in arms.items()}, shares, validation, test)


def ensemble_accuracy(
    parents: Sequence[Ensemble], inputs: Tensor, labels: Tensor, shares: Sequence[float] | None = None
) -> Float[Tensor, " members"]:
    """Accuracy of averaged predictions of corresponding members: as many forward passes as there are parents."""
    logits = torch.stack([parent.predict(inputs) for parent in parents])
    return (prediction_ensemble(logits, shares).argmax(-1) == labels).double().mean(-1).cpu()


def function_gap(ensemble: Ensemble, moved: State, inputs: Tensor) -> Float[Tensor, " members"]:
    """Largest change of any logit on any input when a network's weights are replaced by ``moved``."""
    change = with_weights(ensemble, dict(moved)).predict(inputs) - ensemble.predict(inputs)
    return change.abs().flatten(1).amax(1).cpu()


def better_mode(comparison: Comparison, modes: Sequence[str], share: float | None = None) -> str:
    """The arm with the best mean validation accuracy: at one share, or (default) each pair at its own best share."""
    if share is None:
        scores = [float(comparison.validation[mode].amax(0).mean()) for mode in modes]
    else:
        row = int((comparison.shares - share).abs().argmin())
        scores = [float(comparison.validation[mode][row].mean()) for mode in modes]
    return modes[scores.index(max(scores))]


def comparison_rows(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Table rows: accuracy at one half, accuracy at the chosen share, and that share, all means over pairs."""
    return {
        arm: {
            "at one half": float(comparison.middle[arm].mean()),
            "share chosen": float(comparison.test[arm].mean()),
            "mean share of B": float(comparison.chosen[arm].mean()),
        }
        for arm in comparison.validation
    }


def skill_split(
    labels: Int[Tensor, " examples"], *, digit: int = 4, share: float = 0.1, seed: int = 0
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Indices of two training sets: A holds all of one class and a share of the others, B the rest of the others.

    Source:
        singh2020otfusion, section 5.1.

    Raises:
        ValueError: a share outside (0, 1), or a class that does not occur.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share in (0, 1), got {share}")
    special = (labels == digit).nonzero()[:, 0]
    if len(special) == 0:
        raise ValueError(f"expected examples of class {digit}, got none")
    others = (labels != digit).nonzero()[:, 0]
    others = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).to(others.device)]
    cut = round(share * len(others))
    return torch.cat([special, others[:cut]]), others[cut:]


def narrowed_sources(source: Ensemble, widths: Sequence[int]) -> Params:
    """The wide networks' largest neurons, as networks of the given hidden widths."""
    return stack([largest_neurons(member(source.params, index), widths) for index in range(len(source))])


def rotate(images: Float[Tensor, "n c h w"], degrees: float) -> Float[Tensor, "n c h w"]:
    """Rotate images about their centre, counter-clockwise, bilinear; outside lies the darkest value of all."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    c, s = float(angle.cos()), float(angle.sin())
    matrix = images.new_tensor([[c, -s, 0], [s, c, 0]]).expand(len(images), 2, 3)
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    dark = images.min()
    return nn.functional.grid_sample(images - dark, grid, align_corners=False) + dark


def standardized(
    train: Float[Tensor, "n c h w"], test: Float[Tensor, "m c h w"]
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "m c h w"]]:
    """Images in units of the training pixels' standard deviation, about their mean."""
    centre, spread = train.mean(), train.std()
    return (train - centre) / spread, (test - centre) / spread


def blur(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Average over 5 by 5 pixels."""
    return nn.functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)


def noisy(images: Tensor, std: float, *, seed: int) -> Tensor:
    """Add white noise of the given standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    return images + std * torch.randn(images.shape, generator=generator).to(images)


def shifted(images: Tensor, side: int, *, seed: int = 0) -> Tensor:
    """One of two shifts of a domain: grey images are rotated by 45 degrees either way, colour ones blurred or noisy."""
    if images.shape[1] == 1:
        return rotate(images, -45 if side == 0 else 45)
    return blur(images) if side == 0 else noisy(images, 0.8, seed=seed)


def both_shifts(images: Tensor, labels: Tensor, *, seed: int = 0) -> Labelled:
    """The images under both shifts, one after the other, with their labels."""
    return torch.cat([shifted(images, 0, seed=seed), shifted(images, 1, seed=seed)]), torch.cat([labels, labels])


def stacked_fisher(ensemble: Ensemble, inputs: Tensor, **options: Any) -> Params:
    """Diagonal Fisher information of every member, factorised where the network is an MLP."""
    if isinstance(ensemble.module, MLP):
        every = [mlp_diagonal_fisher(member(ensemble.params, i), inputs, **options) for i in range(len(ensemble))]
    else:
        every = [diagonal_fisher(ensemble.member(i), inputs, **options) for i in range(len(ensemble))]
    return stack(every)


def fisher_arms(
    first: Ensemble,
    second: Ensemble,
    data: tuple[Labelled, Labelled],
    *,
    arms: Sequence[str] = ("isotropic", "Fisher", "shuffled Fisher", "one sampled label", "empirical Fisher"),
    seed: int = 0,
) -> dict[str, tuple[Params, Params]]:
    """Weights of each parent's parameters, by arm: ones, the Fisher and three variants of it.

    Args:
        first, second: M pairs of networks.
        data: each parent's own training examples, inputs and labels; labels serve the empirical Fisher only.
        arms: which of them to make.
        seed: of the shuffles and of the sampled labels.

    Raises:
        ValueError: an unknown arm.
    """
    parents = (first, second)
    generator = torch.Generator(device=data[0][0].device).manual_seed(seed)
    exact = [stacked_fisher(parent, x) for parent, (x, _) in zip(parents, data)]
    makers: dict[str, Callable[[int], Params]] = {
        "isotropic": lambda i: {name: torch.ones_like(value) for name, value in parents[i].params.items()},
        "Fisher": lambda i: exact[i],
        "shuffled Fisher": lambda i: shuffled_entries(exact[i], seed=seed + i, member_axis=True),
        "one sampled label": lambda i: stacked_fisher(parents[i], data[i][0], labels="sampled", generator=generator),
        "empirical Fisher": lambda i: stacked_fisher(parents[i], data[i][0], labels="empirical", truth=data[i][1]),
    }
    unknown = set(arms) - set(makers)
    if unknown:
        raise ValueError(f"expected arms out of {list(makers)}, got {sorted(unknown)}")
    return {arm: (makers[arm](0), makers[arm](1)) for arm in arms}


def fisher_comparison(
    first: Ensemble,
    second: Ensemble,
    arms: Mapping[str, tuple[State, State]],
    shares: Sequence[float],
    validation: Labelled,
    test: Labelled | None,
    **options: Any,
) -> Comparison:
    """Merge M pairs under every arm's weights and every coefficient; choose the coefficient on validation data.

    The ensemble of predictions is added as an arm of its own, with the same choice of coefficient.

    Args:
        first, second: M pairs of networks with a common initialisation.
        arms: what :func:`fisher_arms` returns.
        shares: coefficients of the second parent; every arm gets the same ones.
        validation, test: inputs and labels; without test data only the validation curves are made.
        **options: of :func:`~netatlas.merging.fisher_merge`.
    """

    def merge_of(fishers: tuple[State, State]) -> Callable:
        def merge(share: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
            if isinstance(share, float):
                params = _merged(first.params, second.params, fishers, share, **options)
                return with_weights(first, params).accuracy(x, y)
            singles = []
            for i, s in enumerate(share):
                a, b, weights = member(first.params, i), member(second.params, i), _members(fishers, i)
                singles.append(_merged(a, b, weights, float(s), member_axis=False, **options))
            return with_weights(first, stack(singles)).accuracy(x, y)

        return merge

    def vote(share: float | Tensor, x: Tensor, y: Tensor) -> Tensor:
        p, q = first.predict(x).softmax(-1), second.predict(x).softmax(-1)
        s = torch.as_tensor(share).to(p).reshape(-1, 1, 1)
        return (((1 - s) * p + s * q).argmax(-1) == y).double().mean(-1)

    merges = {name: merge_of(fishers) for name, fishers in arms.items()} | {"ensemble": vote}
    return _compare(merges, shares, validation, test, middle=False)


def _members(fishers: tuple[State, State], index: int) -> tuple[State, State]:
    return tuple(member(fisher, index) for fisher in fishers)


def _merged(
    a: State, b: State, fishers: tuple[State, State], share: float, *, member_axis: bool = True, **options: Any
) -> Params:
    return fisher_merge([a, b], list(fishers), [1 - share, share], member_axis=member_axis, **options)


def merge_copies(copies: Ensemble, groups: int, fishers: State | None, **options: Any) -> Params:
    """Merge a stack of K copies for each of ``groups`` seeds (members in the order seed, then copy), equal shares.

    Args:
        copies: ``groups * K`` networks.
        groups: number of merged networks.
        fishers: their Fishers, or ``None`` for the plain average.
        **options: of :func:`~netatlas.merging.fisher_merge`.
    """
    split = {name: value.unflatten(0, (groups, -1)) for name, value in copies.params.items()}
    count = next(iter(split.values())).shape[1]
    states = [{name: value[:, k] for name, value in split.items()} for k in range(count)]
    if fishers is None:
        weights = [{name: torch.ones_like(value) for name, value in states[0].items()}] * count
    else:
        parts = {name: value.unflatten(0, (groups, -1)) for name, value in fishers.items()}
        weights = [{name: value[:, k] for name, value in parts.items()} for k in range(count)]
    return fisher_merge(states, weights, member_axis=True, **options)


def repeat_members(ensemble: Ensemble, copies: int) -> Ensemble:
    """Every member ``copies`` times, as a start for fine-tuning runs that differ in the order of the data only."""
    params = {name: value.repeat_interleave(copies, 0) for name, value in ensemble.params.items()}
    buffers = {name: value.repeat_interleave(copies, 0) for name, value in ensemble.buffers.items()}
    return replace(ensemble, params=params, buffers=buffers)


def shift_members(ensemble: Ensemble) -> Ensemble:
    """Hand every network to the next pair: the same networks, but partners no longer share an initialisation."""
    return ensemble[[*range(1, len(ensemble)), 0]]


def _layers(net: nn.Module) -> int:
    return len(net.layers) if isinstance(net, MLP) else len(net.convolutions) + 1


def _until(net: nn.Module, x: Tensor, cut: int) -> Tensor:
    if isinstance(net, MLP):
        return net.activation(net(x, True)[cut - 1])
    for convolution, norm in zip(net.convolutions[:cut], net.norms[:cut]):
        x = nn.functional.relu(norm(convolution(x)))
        x = nn.functional.max_pool2d(x, 2) if x.shape[-1] > 1 else x
    return x


def _onward(net: nn.Module, h: Tensor, cut: int) -> Tensor:
    if isinstance(net, MLP):
        for layer in net.layers[cut:-1]:
            h = net.activation(layer(h))
        return net.layers[-1](h)
    for convolution, norm in zip(net.convolutions[cut:], net.norms[cut:]):
        h = nn.functional.relu(norm(convolution(h)))
        h = nn.functional.max_pool2d(h, 2) if h.shape[-1] > 1 else h
    return net.head(h.mean((-2, -1)))


@torch.no_grad()
def stitch_accuracy(
    first: Ensemble, second: Ensemble, samples: Tensor, inputs: Tensor, labels: Tensor
) -> tuple[list[float], Float[Tensor, "stitches members"], float]:
    """Accuracy of stitched chains: first layers of one parent, a least-squares stitch, last layers of the other.

    Args:
        first, second: M pairs of MLPs, or of ConvNets, with the same number of layers.
        samples: unlabelled inputs that fit the stitch.
        inputs, labels: test data.

    Returns:
        The share of layers that come from the second parent, accuracies, and the mean cost of a prediction in units of
        a parent's multiply-adds.
    """
    depth = _layers(first.module)
    shares, results, extra = [], [], []
    for cut in reversed(range(1, depth)):
        scores = []
        for pair in range(len(first)):
            a, b = first.member(pair), second.member(pair)
            left, right = (_until(net, samples, cut).movedim(1, -1) for net in (a, b))
            weight, bias = least_squares_stitch(left.flatten(0, -2), right.flatten(0, -2))
            h = nn.functional.linear(_until(a, inputs, cut).movedim(1, -1), weight, bias).movedim(-1, 1)
            scores.append((_onward(b, h, cut).argmax(-1) == labels).double().mean())
        shares.append(1 - cut / depth)
        results.append(torch.stack(scores).cpu())
        extra.append(weight.numel() * left[0, ..., 0].numel())
    net = first.member(0)
    outputs = preactivations(net, inputs[:1])
    base = sum(net.get_parameter(name).numel() * out[0, 0].numel() for name, out in outputs.items())
    return shares, torch.stack(results), 1 + sum(extra) / len(extra) / base


@dataclass(frozen=True)
class PortraitLine:
    """One method on the way from parent to parent: positions, accuracies ``[S, M]``, and its cost at inference."""

    shares: Sequence[float]
    accuracy: Tensor
    cost: float


def portrait(
    first: Ensemble,
    second: Ensemble,
    data: tuple[Tensor, Tensor],
    samples: Tensor,
    shares: Sequence[float],
    test: Labelled,
) -> dict[str, PortraitLine]:
    """Every method of the family on the same pairs of MLPs or ConvNets.

    Args:
        first, second: M pairs of networks.
        data: each parent's training inputs, for its Fisher.
        samples: unlabelled inputs, for activations and stitches.
        shares: shares of the second parent.
        test: inputs and labels.

    Returns:
        Lines by method; costs are in forward passes of one parent.
    """
    aligned = aligned_sources(first, second, samples)
    aligned.pop("random order")
    fishers = [stacked_fisher(parent, x) for parent, x in zip((first, second), data)]
    moved = with_weights(first, aligned["OT, activations"])
    lines = {}
    for name, start in aligned.items():
        curve = [with_weights(first, blend(start, second.params, s)).accuracy(*test) for s in shares]
        lines[name] = PortraitLine(shares, torch.stack(curve).cpu(), 1.0)
    arms = {"Fisher": (first, fishers[0]), "OT, then Fisher": (moved, stacked_fisher(moved, data[0]))}
    for name, (parent, fisher) in arms.items():
        curve = [
            with_weights(first, _merged(parent.params, second.params, (fisher, fishers[1]), s)).accuracy(*test)
            for s in shares
        ]
        lines[name] = PortraitLine(shares, torch.stack(curve).cpu(), 1.0)
    cuts, scores, cost = stitch_accuracy(first, second, samples, *test)
    ends = [parent.accuracy(*test).cpu() for parent in (first, second)]
    lines["stitching"] = PortraitLine([0.0, *cuts, 1.0], torch.stack([ends[0], *scores, ends[1]]), cost)
    p, q = (parent.predict(test[0]).softmax(-1) for parent in (first, second))
    votes = [(((1 - s) * p + s * q).argmax(-1) == test[1]).double().mean(-1).cpu() for s in shares]
    lines["ensemble"] = PortraitLine(shares, torch.stack(votes), 2.0)
    return lines


def half_way(line: PortraitLine) -> Float[Tensor, " members"]:
    """Accuracy at share one half; without a point there, the mean of the two points nearest to it."""
    nearest = sorted(range(len(line.shares)), key=lambda i: abs(line.shares[i] - 0.5))[:2]
    if abs(line.shares[nearest[0]] - 0.5) < 1e-9:
        return line.accuracy[nearest[0]]
    return line.accuracy[nearest].mean(0)


def best_inside(line: PortraitLine) -> float:
    """Best mean accuracy strictly between the parents."""
    inside = [i for i, share in enumerate(line.shares) if 0 < share < 1]
    return float(line.accuracy.mean(1)[inside].max())


def stitchable(
    anchors: Sequence[Ensemble],
    space: Sequence[Configuration],
    samples: Tensor | None,
    *,
    seed: int = 0,
    shuffle: bool = False,
) -> Ensemble:
    """Stitch corresponding members of trained anchors into stitchable networks, one a seed.

    Args:
        anchors: K ensembles of M members, small to large.
        space: configurations.
        samples: unlabelled inputs for the least-squares solution; ``None`` leaves Kaiming's random initialisation.
        seed: of the random initialisation.
        shuffle: fit to shuffled samples (a control).
    """
    networks = []
    for index in range(len(anchors[0])):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + index)
            network = StitchableNetwork([anchor.member(index).cpu() for anchor in anchors], space)
        network = network.to(next(iter(anchors[0].params.values())).device)
        if samples is not None:
            initialize_stitches(network, samples, shuffle_seed=seed if shuffle else None)
        networks.append(network)
    params, buffers = stack_members(networks)
    return Ensemble(networks[0], params, buffers)


def configuration_schedule(configurations: int, *, seed: int) -> Callable[[int], dict[str, int]]:
    """One configuration a training step, uniform over all; a function of the step, for ``forward_kwargs``.

    Raises:
        ValueError: no configurations.
    """
    if configurations < 1:
        raise ValueError(f"expected at least one configuration, got {configurations}")
    order = torch.randint(configurations, (100_003,), generator=torch.Generator().manual_seed(seed)).tolist()
    return lambda step: {"configuration": order[step % len(order)]}


def configuration_accuracy(
    stitched: Ensemble, inputs: Tensor, labels: Tensor, configurations: Sequence[int] | None = None
) -> Float[Tensor, "configurations members"]:
    """Accuracy of every configuration of every member."""
    return configuration_hits(stitched, inputs, labels, configurations).double().mean(-1)


def configuration_hits(
    stitched: Ensemble, inputs: Tensor, labels: Tensor, configurations: Sequence[int] | None = None
) -> Bool[Tensor, "configurations members examples"]:
    """Whether every configuration of every member classifies each input correctly."""
    indices = range(len(stitched.module.configurations)) if configurations is None else configurations
    outputs = (stitched.predict(inputs, batch_size=256, configuration=i) for i in indices)
    return torch.stack([(output.argmax(-1) == labels).cpu() for output in outputs])


def configuration_flops(stitched: Ensemble) -> Int[Tensor, " configurations"]:
    """Multiply-adds of every configuration."""
    network = stitched.module
    return torch.tensor([flops_count(network, item) for item in network.configurations])


def matched_stitches(
    space: Sequence[Configuration], flops: Int[Tensor, " configurations"], fractions: Sequence[float] = (1 / 3, 2 / 3)
) -> list[int]:
    """Stitches to compare with individually trained networks, fixed by cost alone.

    Args:
        space: configurations.
        flops: their multiply-adds.
        fractions: where in each pair's range of costs to look.

    Returns:
        Index of the stitch nearest to each fraction, pair by pair.
    """
    pairs = sorted({(item.first, item.second) for item in space if not item.is_anchor})
    chosen = []
    for pair in pairs:
        index = [i for i, item in enumerate(space) if (item.first, item.second) == pair]
        costs = flops[index].double()
        for fraction in fractions:
            goal = costs.min() + fraction * (costs.max() - costs.min())
            chosen.append(index[int((costs - goal).abs().argmin())])
    return chosen


def width_for_flops(build: Callable[[int], nn.Module], flops: int, *, step: int = 1, largest: int = 1024) -> int:
    """Width, a multiple of ``step``, whose network's multiply-adds are nearest to a number."""

    def cost(width: int) -> int:
        with torch.device("meta"):
            embed, blocks, head = build(width).costs()
        return embed + sum(blocks) + head

    low, high = 1, largest // step
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if cost(step * middle) < flops else (low, middle)
    return step * min((w for w in (low - 1, low) if w > 0), key=lambda w: abs(cost(step * w) - flops))


def within_pairs_spearman(
    space: Sequence[Configuration], flops: Tensor, accuracy: Float[Tensor, " configurations"]
) -> dict[tuple[int, int], float]:
    """Rank correlation of accuracy with cost over the stitches of each pair of anchors."""
    from scipy.stats import spearmanr

    result = {}
    for pair in sorted({(item.first, item.second) for item in space if not item.is_anchor}):
        index = [i for i, item in enumerate(space) if (item.first, item.second) == pair]
        result[pair] = float(spearmanr(flops[index].numpy(), accuracy[index].numpy()).statistic)
    return result


def bootstrap_spearman(
    space: Sequence[Configuration],
    flops: Tensor,
    hits: Bool[Tensor, "configurations members examples"],
    *,
    repeats: int = 200,
    level: float = 0.9,
    seed: int = 0,
) -> dict[tuple[int, int], tuple[float, float]]:
    """Percentile interval of :func:`within_pairs_spearman` over resampled test images, the networks held fixed.

    Args:
        space: configurations.
        flops: their multiply-adds.
        hits: what :func:`configuration_hits` returns; accuracy is averaged over members.
        repeats: bootstrap samples.
        level: coverage.
        seed: of the resampling.

    Returns:
        Lower and upper end by pair of anchors.

    Raises:
        ValueError: fewer than two samples or a level outside (0, 1).
    """
    if repeats < 2 or not 0 < level < 1:
        raise ValueError(f"expected two samples or more and a level in (0, 1), got {repeats} and {level}")
    generator = torch.Generator().manual_seed(seed)
    count = hits.shape[-1]
    drawn = [torch.randint(count, (count,), generator=generator).bincount(minlength=count) for _ in range(repeats)]
    resampled = hits.double().mean(1) @ torch.stack(drawn, 1).double() / count
    # Weighted sums of equal accuracies differ in their last digits, and ranks would take that for an order.
    every = [within_pairs_spearman(space, flops, accuracy.round(decimals=9)) for accuracy in resampled.unbind(1)]
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    ends = {
        pair: torch.tensor([values[pair] for values in every], dtype=torch.float64).quantile(tails) for pair in every[0]
    }
    return {pair: (float(low), float(high)) for pair, (low, high) in ends.items()}


def shuffled_spearman(
    space: Sequence[Configuration], flops: Tensor, accuracy: Tensor, *, repeats: int = 200, seed: int = 0
) -> float:
    """Rank correlation over all configurations when accuracies are shuffled inside each pair of anchors, on average."""
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(seed)
    groups: dict[tuple, list[int]] = {}
    for i, item in enumerate(space):
        groups.setdefault((item.first, item.second), []).append(i)
    values = []
    for _ in range(repeats):
        mixed = accuracy.clone()
        for index in groups.values():
            mixed[index] = accuracy[index][torch.randperm(len(index), generator=generator)]
        values.append(float(spearmanr(flops.numpy(), mixed.numpy()).statistic))
    return sum(values) / len(values)


def by_pair(
    space: Sequence[Configuration], values: Float[Tensor, " configurations"], widths: Sequence[int]
) -> dict[str, float]:
    """Mean of a value over the stitches of each pair of anchors, under names such as ``"8 → 24"``."""
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(space):
        if not item.is_anchor:
            groups.setdefault(f"{widths[item.first]} → {widths[item.second]}", []).append(i)
    return {name: float(values[index].double().mean()) for name, index in groups.items()}


def joined(first: Ensemble, second: Ensemble) -> Ensemble:
    """Two ensembles of one architecture as one; training histories are dropped."""
    params = {name: torch.cat([value, second.params[name]]) for name, value in first.params.items()}
    buffers = {name: torch.cat([value, second.buffers[name]]) for name, value in first.buffers.items()}
    return Ensemble(first.module, params, buffers)


def individually_trained(
    train: Callable[..., Ensemble],
    groups: Sequence[Sequence[int]],
    epochs: Sequence[int],
    pick: Labelled,
    *,
    seeds: Sequence[int],
) -> tuple[list[Ensemble], list[int]]:
    """Networks trained by themselves, as long as does best on validation data.

    Each group of widths is trained for the first length; its last width then tries the other lengths with every seed,
    and where one of them does better on validation data on average the whole group is trained for that long instead.

    Args:
        train: ``train(width, epochs, seeds=...)`` returns an ensemble.
        groups: groups of widths.
        epochs: training lengths to try.
        pick: validation inputs and labels.
        seeds: seeds of every width.

    Returns:
        Ensembles, one a width, and the chosen length of each group.

    Raises:
        ValueError: no widths or no training lengths.
    """
    if not epochs or not groups or not all(groups):
        raise ValueError(f"expected widths and training lengths, got {groups} and {epochs}")
    chosen, lengths = [], []
    for widths in groups:
        trained = [train(width, epochs[0], seeds=seeds) for width in widths]
        tried = [trained[-1], *(train(widths[-1], length, seeds=seeds) for length in epochs[1:])]
        scores = [float(network.accuracy(*pick).mean()) for network in tried]
        best = scores.index(max(scores))
        if best:
            trained = [*(train(width, epochs[best], seeds=seeds) for width in widths[:-1]), tried[best]]
        chosen += trained
        lengths.append(epochs[best])
    return chosen, lengths


def distillation_targets(
    teacher: Ensemble, inputs: Tensor, labels: Tensor, weight: float
) -> Float[Tensor, "members examples classes"]:
    """Class probabilities to train on: the label's, mixed with each member's own teacher's predictions.

    Args:
        teacher: M networks.
        inputs, labels: training data.
        weight: share of the teacher, in [0, 1]; 0 leaves the labels.

    Raises:
        ValueError: a weight outside [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"expected a weight in [0, 1], got {weight}")
    predicted = teacher.predict(inputs).softmax(-1)
    truth = nn.functional.one_hot(labels, predicted.shape[-1]).to(predicted)
    return (1 - weight) * truth + weight * predicted


def vision_transformer(width: int, depth: int = 8) -> VisionTransformer:
    """A transformer anchor for 32 by 32 colour images, patches of 4 by 4 pixels, ten classes."""
    return VisionTransformer(32, 4, 3, width, depth, 10)


def stitching_anchor(kind: str, width: int) -> nn.Module:
    """An anchor of a stitchable family: ``"mlp"``, six residual blocks on 28 by 28 pixels, or ``"vit"``, eight blocks.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "mlp":
        return ResidualMLP(784, width, 6, 10)
    if kind == "vit":
        return vision_transformer(width)
    raise ValueError(f"expected 'mlp' or 'vit', got {kind!r}")


def exact_checks(seed: int = 0) -> dict[str, float]:
    """Largest errors of the family's kernels against closed forms, on small random networks in double precision.

    Returns:
        By name of the check: errors, all but the last two of them zero up to rounding.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MLP([12, 10, 8, 4]).double()
        logistic = nn.Linear(6, 4).double()
        anchor = ResidualMLP(12, 8, 3, 4).double()
        x, z = torch.randn(200, 12, dtype=torch.float64), torch.randn(200, 6, dtype=torch.float64)
    state = {name: value.detach().clone() for name, value in model.named_parameters()}
    copy = permute_network(state, random_permutations(state, seed=seed))
    returned, _ = transport_network(copy, state)
    twisted = deepcopy(model)
    twisted.load_state_dict(copy)
    values = preactivations(twisted, x), preactivations(model, x)
    returned_by_activations, _ = transport_network(copy, state, activations=values)
    doubled = _doubled(state)
    corrected, _ = transport_network(doubled, state, corrected=True)
    published, _ = transport_network(doubled, state)
    p = logistic(z).softmax(-1).detach()
    fisher = diagonal_fisher(logistic, z)["weight"]
    general, factorised = diagonal_fisher(model, x), mlp_diagonal_fisher(state, x)
    twin = StitchableNetwork([anchor], [Configuration(0), Configuration(0, 0, 0, 1, "self")]).double()
    initialize_stitches(twin, x)
    summed, normalised = _least_squares_merge(seed)
    return {
        "OT: permuted copy transported back, weights": _gap(returned, state),
        "OT: permuted copy transported back, activations": _gap(returned_by_activations, state),
        "OT: doubled neurons, corrected maps": _gap(corrected, state),
        "Fisher: logistic regression, closed form": float((fisher - (p * (1 - p)).T @ z**2 / len(z)).abs().max()),
        "Fisher: layer products against per-example gradients": _gap(factorised, general),
        "Fisher: merged least squares, summed Fishers": summed,
        "Stitching: anchor with itself, logits": float((twin(x, configuration=1) - anchor(x)).abs().max().detach()),
        "OT: doubled neurons, published single map": _gap(published, state),
        "Fisher: merged least squares, normalised Fishers": normalised,
    }


def _gap(a: State, b: State) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in b)


def _doubled(state: State) -> Params:
    """Every hidden neuron twice, its outgoing weights halved: the same function at twice the width."""
    result: Params = {}
    weights = [name for name in state if name.endswith("weight")]
    for number, name in enumerate(weights):
        weight, bias = state[name], state[name.removesuffix("weight") + "bias"]
        if number:
            weight = torch.cat([weight, weight], 1) / 2
        last = number + 1 == len(weights)
        result[name] = weight if last else torch.cat([weight, weight])
        result[name.removesuffix("weight") + "bias"] = bias if last else torch.cat([bias, bias])
    return result


def _least_squares_merge(seed: int) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(seed)
    designs, targets = [], []
    for rows in (20, 60):
        basis = torch.linalg.qr(torch.randn(rows, 4, generator=generator, dtype=torch.float64)).Q
        designs.append(basis * (0.5 + 2 * torch.rand(4, generator=generator, dtype=torch.float64)))
        targets.append(torch.randn(rows, generator=generator, dtype=torch.float64))
    states = [{"w": torch.linalg.lstsq(x, y[:, None]).solution[:, 0]} for x, y in zip(designs, targets)]
    joint = torch.linalg.lstsq(torch.cat(designs), torch.cat(targets)[:, None]).solution[:, 0]
    fishers = [{"w": (x**2).sum(0)} for x in designs]
    errors = [
        float((fisher_merge(states, fishers, normalize=normalize, floor=0.0)["w"] - joint).abs().max())
        for normalize in (False, True)
    ]
    return errors[0], errors[1]


def train_anchor(
    kind: str, inputs: Tensor, labels: Tensor, width: int, epochs: int, *, seeds: Sequence[int], **options: Any
) -> Ensemble:
    """Train one anchor, all seeds at once; options as for :func:`netatlas.core.train.fit_many`."""
    return fit_many(partial(stitching_anchor, kind, width), inputs, labels, seeds=seeds, epochs=epochs, **options)


def shift_accuracy(
    parents: Sequence[Ensemble], images: Tensor, labels: Tensor, *, swapped: bool = False, seed: int = 0
) -> Float[Tensor, " members"]:
    """Mean accuracy of two parents, each on its own shift of the images, or (``swapped``) on the other's."""
    scores = []
    for side, parent in enumerate(parents):
        seen = shifted(images, 1 - side if swapped else side, seed=seed)
        scores.append(parent.accuracy(seen, labels).cpu())
    return torch.stack(scores).mean(0)


def mean_accuracy(parents: Sequence[Ensemble], inputs: Tensor, labels: Tensor) -> Float[Tensor, " members"]:
    """Mean accuracy of corresponding members of several ensembles."""
    return torch.stack([parent.accuracy(inputs, labels).cpu() for parent in parents]).mean(0)


def robust_finetuning(
    base: Ensemble,
    child: Ensemble,
    data: tuple[Labelled, Labelled],
    shares: Sequence[float],
    domains: tuple[Labelled, Labelled],
    *,
    seed: int = 0,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Merge networks with their own fine-tuned children, and test on the old and on the new domain.

    Args:
        base, child: M networks and their children.
        data: training examples of each, for the Fishers.
        shares: coefficients of the child.
        domains: test data of the old and of the new domain.
        seed: of the shuffled Fisher.

    Returns:
        By arm (``"isotropic"``, ``"Fisher"``, ``"shuffled Fisher"``, ``"ensemble"``): accuracy on the old and on the
        new domain, ``[S, M]`` each.
    """
    arms = fisher_arms(base, child, data, arms=("isotropic", "Fisher", "shuffled Fisher"), seed=seed)
    old, new = (fisher_comparison(base, child, arms, shares, part, None).validation for part in domains)
    return {arm: (old[arm], new[arm]) for arm in old}


def accuracy_at_loss(
    old: Float[Tensor, "shares members"], new: Float[Tensor, "shares members"], loss: float = 0.05
) -> Float[Tensor, " members"]:
    """Accuracy on the new domain where the old domain's has just fallen by ``loss``, between the points of the curve.

    Each member's curve starts at its first share; the first crossing counts, interpolated linearly. Where the old
    domain never loses that much, it is the new domain's accuracy at the last share.

    Args:
        old, new: accuracies on the two domains along the shares.
        loss: accepted loss on the old domain.

    Raises:
        ValueError: curves of different shapes or fewer than two shares, or a negative loss.
    """
    if old.shape != new.shape or old.ndim != 2 or len(old) < 2 or loss < 0:
        raise ValueError(
            f"expected two curves [shares, members] and a loss of 0 or more, got {tuple(old.shape)}, "
            f"{tuple(new.shape)} and {loss}"
        )
    fallen = old < old[0] - loss
    after = torch.where(fallen.any(0), fallen.int().argmax(0), len(old) - 1)[None]
    ends = [curve.gather(0, index)[0] for curve in (old, new) for index in (after - 1, after)]
    old_before, old_after, new_before, new_after = ends
    part = torch.where(fallen.any(0), (old_before - old[0] + loss) / (old_before - old_after), 1.0)
    return new_before + part * (new_after - new_before)
