"""Checks of the shared kernels, small experiments of single sections, and the family portrait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.nn import ConvNet
from netatlas.core.sparsity import (
    Blocks,
    Channels,
    NOfM,
    Pruner,
    RowBalanced,
    SparseLinear,
    Unstructured,
    polynomial_sparsity,
    remove_channels,
    zeros_of,
)
from netatlas.core.stats import stderr

from .control import CartPole
from .dqn import bootstrap_iqm_difference, train_dqn
from .dress import Levels, NestedRows, nested_row_order, prefix_mask, train_levels
from .lobster import RULES, SparseRun, lobster_step, train_and_cut
from .lottery import train_sparse
from .meta_recipe import change, stored
from .metanetwork import Metanetwork, graph_to_network, group_norms, keep_for_cost, network_to_graph, unit_masks
from .stacked import initial_parameters, stacked_accuracy, train_stacked, weight_names
from .tas import (
    channel_wise_interpolation,
    expected_cost,
    mlp_cost,
    prefix_networks,
    scale_into_band,
    search_architecture,
)

Data = tuple[Tensor, Tensor]


def split_digits(seed: int) -> tuple[Data, Data, Data]:
    """Training (900), validation (400) and test data (497): scikit-learn's digits as vectors, in an order by seed."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    x, y = torch.from_numpy(images[order] / 16).float(), torch.from_numpy(labels[order])
    return (x[:900], y[:900]), (x[900:1300], y[900:1300]), (x[1300:], y[1300:])


def points(values: Tensor | np.ndarray) -> str:
    """Mean and standard error in percentage points."""
    array = 100 * np.asarray(values, dtype=float)
    return f"{array.mean():+.1f} ± {stderr(array):.1f}"


def exact_checks(seed: int) -> dict[str, float]:
    """Largest error of each kernel against what is known exactly.

    Args:
        seed: Of the random cases.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found: dict[str, float] = {}
    pruner = Pruner(lambda t: polynomial_sparsity(t, start=0, end=30, final=0.95))
    masks, wrong = None, 0
    for step in range(32):
        new = pruner.masks({"w": draw(20, 31).abs()}, step, previous=masks)
        wrong = max(wrong, abs(int((~new["w"]).sum()) - zeros_of(pruner.schedule(step), 620)))
        wrong = wrong if masks is None else max(wrong, int((new["w"] & ~masks["w"]).sum()))
        masks = new
    found["schedule: wrong zeros, or zeros that return"] = wrong
    found["schedule: midpoint is 7/8 of the end"] = abs(pruner.schedule(15) - 0.875 * 0.95)
    weight, x = draw(64, 48), draw(5, 48)
    sparse = weight * Unstructured().mask(weight.abs(), 0.9)
    tiles = weight * Blocks((16, 16)).mask(weight.abs(), 0.5)
    gaps = [SparseLinear(sparse)(x) - x @ sparse.T, SparseLinear(tiles, layout="block")(x) - x @ tiles.T]
    found["sparse products: CSR and tiles against dense"] = float(torch.stack([g.abs().max() for g in gaps]).max())
    net = ConvNet([6, 5], 4, norm="batch").double().eval()
    kept = [torch.tensor([0, 2, 5]), torch.tensor([1, 4])]
    small = remove_channels(net, kept)
    with torch.no_grad():
        for norm, own in zip(net.norms, kept):
            gone = torch.ones(len(norm.weight), dtype=torch.bool)
            gone[own] = False
            norm.weight[gone], norm.bias[gone] = 0, 0
        image = draw(3, 3, 8, 8)
        found["surgery: small network against masked one"] = float((small(image) - net(image)).abs().max())
    constant = channel_wise_interpolation(torch.full((2, 16), 3.0, dtype=torch.float64), 11)
    found["interpolation: constants are kept"] = float((constant - 3).abs().max())
    p, q = draw(2, 3).softmax(-1), draw(2).softmax(-1)
    listed = sum(
        p[0, i] * p[1, j] * (q[0] * mlp_cost([a], 5, 4) + q[1] * mlp_cost([a, b], 5, 4))
        for i, a in enumerate((2, 3, 7))
        for j, b in enumerate((2, 3, 7))
    )
    ours = expected_cost(p, q, candidates=(2, 3, 7), depth_choices=(1, 2), inputs=5, classes=4)
    found["search: expected cost against enumeration"] = float(abs(ours - listed) / listed)
    w, g = draw(9), draw(9) * 2
    by_hand = torch.stack([(a - 0.1 * b) * (1 - 0.01 * max(0.0, 1 - abs(float(b)))) for a, b in zip(w, g)])
    found["LOBSTER: one step by hand"] = float((lobster_step(w, g, lr=0.1, decay=0.01) - by_hand).abs().max())
    rows = NestedRows(weight, [0.95, 0.8, 0.0])
    order = nested_row_order(weight)
    gap = [rows.product(x, k) - x @ (weight * prefix_mask(order, rows.counts[k])).T for k in range(3)]
    found["DRESS: stored prefixes against masks"] = float(torch.stack([v.abs().max() for v in gap]).max())
    return found | _metanetwork_checks(seed)


def _metanetwork_checks(seed: int) -> dict[str, float]:
    params = {n: v.double() for n, v in initial_parameters([6, 5, 4, 3], [seed, seed + 1]).items()}
    back = graph_to_network(network_to_graph(params))
    found = {"metanetwork: network to graph and back": max(float((back[n] - params[n]).abs().max()) for n in params)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, order = Metanetwork(8, 2).double(), torch.randperm(5)

    def permuted(p: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(p) | {
            "layers.0.weight": p["layers.0.weight"][:, order],
            "layers.0.bias": p["layers.0.bias"][:, order],
            "layers.1.weight": p["layers.1.weight"][:, :, order],
        }

    with torch.no_grad():
        one, two = permuted(model(params)), model(permuted(params))
    found["metanetwork: neurons permuted before or after"] = max(float((one[n] - two[n]).abs().max()) for n in one)
    return found


class Speed(NamedTuple):
    """Products of a batch with a masked matrix: seconds dense and sparse, and the largest difference."""

    dense: float
    sparse: float
    error: float


def sparse_speed(sparsity: float, layout: str, *, size: int = 1024, batch: int = 64, repeats: int = 5) -> Speed:
    """Best time of several products.

    Args:
        sparsity: Share of zeros.
        layout: ``"csr"`` or ``"block"`` (tiles of 32 x 32).
        size: Side of the matrix.
        batch: Inputs.
        repeats: Products timed.
    """
    import time

    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(size, size, generator=generator), torch.randn(batch, size, generator=generator)
    structure = Blocks((32, 32)) if layout == "block" else Unstructured()
    weight = weight * structure.mask(weight.abs(), sparsity)
    product = SparseLinear(weight, layout=layout, block=(32, 32))  # type: ignore[arg-type]

    def best(run: Callable[[], Tensor]) -> float:
        run()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    error = float((product(x) - x @ weight.T).abs().max())
    return Speed(best(lambda: x @ weight.T), best(lambda: product(x)), error)


# ---- agents ---------------------------------------------------------------------------------------------------------


class AgentGain(NamedTuple):
    """Differences of interquartile means, each with its 95 % bootstrap interval: value, low, high."""

    widest: tuple[float, float, float]
    narrowest: tuple[float, float, float]
    static: tuple[float, float, float]
    narrow_net: tuple[float, float, float]
    chosen: str

    def growth_in_errors(self) -> float:
        """Gain at the greatest minus at the least width, over its standard error (from the bootstrap intervals)."""
        errors = [(high - low) / (2 * 1.96) for _, low, high in (self.widest, self.narrowest)]
        return (self.widest[0] - self.narrowest[0]) / float(np.hypot(*errors))


def agent_gains(state: Mapping[str, Tensor], task: str, widths: Sequence[int]) -> AgentGain:
    """Pruned minus dense at both ends of width, and pruned minus its two controls at the widest.

    The sparsity of the widest pruned arm is the better one on the tuning seeds.

    Args:
        state: Stored agents.
        task: Name of the task.
        widths: Widths, increasing.
    """
    wide, thin = widths[-1], widths[0]

    def final(width: int, arm: str) -> np.ndarray:
        return state[f"{task}/{width}/{arm}/returns"][:, -5:].mean(1).double().numpy()

    chosen = max(("pruned 90 %", "pruned 95 %"), key=lambda a: float(state[f"{task}/{wide}/{a}/tuning"].max()))
    best = final(wide, chosen)
    return AgentGain(
        bootstrap_iqm_difference(best, final(wide, "dense")),
        bootstrap_iqm_difference(final(thin, "pruned 90 %"), final(thin, "dense")),
        bootstrap_iqm_difference(best, final(wide, "random mask 90 %")),
        bootstrap_iqm_difference(best, final(wide, "narrow")),
        chosen,
    )


class LiveAgents(NamedTuple):
    """A short training seen from inside: steps of the masks, sparsity of the hidden matrix, and broken rules."""

    steps: list[int]
    sparsity: list[float]
    wrong: int
    returns: Tensor


def live_agents(*, steps: int, width: int, seeds: Sequence[int], sparsity: float = 0.9) -> LiveAgents:
    """Train a few pruned agents on CartPole, and count zeros that are too few, too many, or came back.

    Args:
        steps: Updates.
        width: Hidden units.
        seeds: One an agent.
        sparsity: Final sparsity.
    """
    name, times, shares = "layers.1.weight", [], []
    last: dict[str, Tensor] = {}
    wrong = 0

    def watch(step: int, params: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
        nonlocal wrong
        level = polynomial_sparsity(step, start=steps // 5, end=4 * steps // 5, final=sparsity)
        zeros = (params[name] == 0).flatten(1).sum(1)
        wrong += int((zeros != zeros_of(level, width * width)).sum())
        if last:
            wrong += int((masks[name] & ~last[name]).sum())
        last.update(masks)
        times.append(step)
        shares.append(float(zeros[0]) / width**2)

    agents = train_dqn(CartPole(), width, seeds=seeds, steps=steps, lr=2e-3, sparsity=sparsity, watch=watch, episodes=4)
    return LiveAgents(times, shares, wrong, agents.returns)


# ---- LOBSTER --------------------------------------------------------------------------------------------------------


class Front(NamedTuple):
    """A rule's runs, ``[decays, seeds]``, and the decay chosen for every seed on validation data."""

    remaining: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    chosen: np.ndarray

    def at_choice(self, part: str) -> np.ndarray:
        """Values at the chosen decay, one a seed."""
        return getattr(self, part)[self.chosen, np.arange(self.remaining.shape[1])]


def lobster_fronts(
    seed: int,
    splits: tuple[Data, Data, Data] | None = None,
    *,
    rules: Sequence[str],
    decays: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    widths: Sequence[int],
) -> tuple[dict[str, Front], SparseRun]:
    """Train every rule with every decay, and choose for each seed the sparsest run within half a point of no decay.

    Args:
        seed: Of the split and the shuffles.
        splits: Training, validation and test data; default :func:`split_digits`.
        rules: Out of :data:`netatlas.pruning.lobster.RULES`; ``"none"`` is added as the reference.
        decays: Grid.
        seeds: One a run.
        epochs: Of every run.
        widths: Of the MLP.
    """
    grid = [(r, d, s) for r in rules for d in decays for s in seeds] + [("none", 0.0, s) for s in seeds]
    run = train_and_cut(
        *(splits or split_digits(seed)), widths=widths, rules=[c[0] for c in grid], decays=[c[1] for c in grid],  # type: ignore[misc]
        seeds=[c[2] for c in grid], epochs=epochs, batch_size=60, seed=seed,
    )  # fmt: skip
    found, start = {}, 0
    reference = run.validation[-len(seeds) :].numpy()
    for rule in [*rules, "none"]:
        shape = (1 if rule == "none" else len(decays), len(seeds))
        rows = slice(start, start + shape[0] * shape[1])
        left, valid, test = (v[rows].numpy().reshape(shape) for v in (run.remaining, run.validation, run.test))
        start = rows.stop
        fine = valid >= reference - 0.005
        # Where no decay is that accurate, the most accurate one stands for the rule.
        chosen = np.where(fine.any(0), np.where(fine, left, np.inf).argmin(0), valid.argmax(0))
        found[rule] = Front(left, valid, test, chosen)
    assert set(found) <= set(RULES)
    return found, run


def cut_in_three(inputs: Tensor, labels: Tensor) -> tuple[Data, Data, Data]:
    """Training (two thirds), validation and test data (a sixth each), in the order given, inputs as vectors.

    Args:
        inputs: ``[N, ...]``.
        labels: ``[N]``.

    Raises:
        ValueError: For fewer than six examples.
    """
    x, count = inputs.flatten(1), len(inputs)
    require(count >= 6, "at least six examples", count)
    a, b = 2 * count // 3, 5 * count // 6
    return (x[:a], labels[:a]), (x[a:b], labels[a:b]), (x[b:], labels[b:])


def lenet_gradients(splits: tuple[Data, Data, Data], *, seed: int, epochs: int = 5) -> SparseRun:
    """A short training of LeNet-300 (hidden layers of 300 and 100) by LOBSTER, for the sizes of its gradients.

    Args:
        splits: Training, validation and test data.
        seed: Of the network.
        epochs: Passes over the data.
    """
    widths = [splits[0][0].shape[1], 300, 100, int(splits[0][1].max()) + 1]
    return train_and_cut(*splits, widths=widths, rules=["LOBSTER"], decays=[1e-4], seeds=[seed], epochs=epochs)


def welch(low: np.ndarray, high: np.ndarray) -> float:
    """How many standard errors the mean of the first sample lies below that of the second."""
    error = float(np.hypot(stderr(low), stderr(high)))
    return float((np.mean(high) - np.mean(low)) / error) if error > 0 else 0.0


# ---- DRESS ----------------------------------------------------------------------------------------------------------


# Chosen by `tune_dress_rates` out of 0.03, 0.1 and 0.3.
DRESS_RATES = {"DRESS": 0.1, "global masks": 0.3, "random nested rows": 0.1, "slimmable": 0.3, "separate": 0.3}


def tune_dress_rates(
    seed: int, *, hidden: int, sparsities: Sequence[float], seeds: Sequence[int], epochs: int
) -> dict[str, dict[float, float]]:
    """Validation accuracy, averaged over levels, of three rates for every arm of :func:`dress_arms`.

    Args:
        seed: Of the split.
        hidden: Units of both hidden layers.
        sparsities: Levels, falling.
        seeds: One a member; other ones than those of the comparison.
        epochs: Of every arm.
    """
    train, validation, _ = split_digits(seed)
    found: dict[str, dict[float, float]] = {}
    schemes = {"DRESS": "rows", "global masks": "global", "random nested rows": "random rows", "slimmable": "slim"}
    for rate in (0.03, 0.1, 0.3):
        make = {"hidden": hidden, "sparsities": sparsities, "seeds": seeds, "lr": rate, "epochs": epochs}
        for arm, scheme in schemes.items():
            levels = train_levels(train, validation, scheme=scheme, **make)  # type: ignore[arg-type]
            found.setdefault(arm, {})[rate] = float(levels.accuracy.mean())
        own = [
            train_levels(train, validation, scheme="rows", trained=[k], **make).accuracy[k].mean()  # type: ignore[arg-type]
            for k in range(len(sparsities))
        ]
        found.setdefault("separate", {})[rate] = float(torch.stack(own).mean())
    return found


def dress_arms(
    seed: int,
    *,
    hidden: int,
    sparsities: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    rates: Mapping[str, float],
) -> tuple[dict[str, Tensor], Levels]:
    """Test accuracy of every arm at every level, ``[levels, seeds]``.

    Joint arms see every batch once for each level; a separate network has the passes of one level, dense training
    those of all.

    Args:
        seed: Of the split.
        hidden: Units of both hidden layers.
        sparsities: Levels, falling.
        seeds: One a member.
        epochs: Of the joint arms.
        rates: Rate of every arm.
    """
    train, _, test = split_digits(seed)

    def make(arm: str) -> dict[str, object]:
        return {"hidden": hidden, "sparsities": sparsities, "seeds": seeds, "lr": rates[arm]}

    found, joint = {}, None
    schemes = {"DRESS": "rows", "global masks": "global", "random nested rows": "random rows", "slimmable": "slim"}
    for arm, scheme in schemes.items():
        levels = train_levels(train, test, scheme=scheme, epochs=epochs, **make(arm))  # type: ignore[arg-type]
        joint = joint or levels
        found[arm] = levels.accuracy
    found["DRESS, shared statistics"] = joint.shared  # type: ignore[union-attr]
    weighted = [1 - s for s in sparsities]
    total = sum(weighted)
    found["DRESS, weights by density"] = train_levels(
        train,
        test,
        scheme="rows",
        epochs=epochs,
        importance=[v / total for v in weighted],
        **make("DRESS"),  # type: ignore[arg-type]
    ).accuracy
    own = [
        train_levels(train, test, scheme="rows", epochs=epochs, trained=[k], **make("separate")).accuracy[k]  # type: ignore[arg-type]
        for k in range(len(sparsities))
    ]
    found["separate networks"] = torch.stack(own)
    found["dense, then masks"] = train_levels(
        train,
        test,
        scheme="rows",
        epochs=epochs * len(sparsities),
        trained=[len(sparsities) - 1],
        **make("separate"),  # type: ignore[arg-type]
    ).accuracy
    return found, joint  # type: ignore[return-value]


# ---- portrait -------------------------------------------------------------------------------------------------------


def live_share(params: Mapping[str, Tensor]) -> Tensor:
    """Share of weights that matter: those that are not zero between units that are reached and heard; one a member."""
    names = weight_names(params)
    weights = [params[n] != 0 for n in names]
    for i in range(1, len(weights)):
        weights[i] = weights[i] & weights[i - 1].any(-1)[:, None]
    for i in range(len(weights) - 2, -1, -1):
        weights[i] = weights[i] & weights[i + 1].any(1)[..., None]
    total = sum(w[0].numel() for w in weights)
    return sum(w.flatten(1).sum(1) for w in weights).double() / total  # type: ignore[union-attr]


class Point(NamedTuple):
    """A method's place in the portrait: share of weights left and test accuracy, one a seed."""

    method: str
    structured: bool
    remaining: Tensor
    accuracy: Tensor

    def place(self) -> float:
        """Mean share of weights left."""
        return float(self.remaining.mean())

    def height(self) -> float:
        """Mean accuracy."""
        return float(self.accuracy.mean())


def _searched_widths(train: Data, test: Data, sparsity: float, seeds: Sequence[int], epochs: int) -> Point:
    """Widths by transformable architecture search: a third of the gradients for the search, the rest for training."""
    (x, y), total = train, epochs * (len(train[0]) // 50)
    half, target = len(x) // 2, (1 - sparsity) * 17400
    found = search_architecture(
        (x[:half], y[:half]), (x[half:], y[half:]), channels=100, layers=2, target=target, seeds=seeds,
        steps=max(total // 6, 1), classes=10, batch_size=50, depths=[2],
    ).widths  # fmt: skip
    widths = torch.stack([scale_into_band(w, target, inputs=64, classes=10, channels=100)[0] for w in found])
    params, _ = prefix_networks(widths, channels=100, inputs=64, classes=10, seeds=seeds)
    rest = max(round(2 * epochs / 3), 1)
    params, _ = train_stacked(params, x, y, seeds=seeds, epochs=rest, batch_size=50, lr=0.1)
    return Point("searched widths", True, live_share(params), stacked_accuracy(params, *test))


def _meta_pruned(
    state: Mapping[str, Tensor], train: Data, test: Data, sparsities: Sequence[float], seeds: Sequence[int], epochs: int
) -> list[Point]:
    """Half of the epochs, one pass of a stored metanetwork, a sixth, units cut by group norm, and the rest.

    The metanetwork has seen neither these networks nor their widths.
    """
    widths = [64, 100, 100, 10]
    make = {"seeds": seeds, "batch_size": 50}
    first, second = max(epochs // 2, 1), max(epochs // 6, 1)
    params, _ = train_stacked(initial_parameters(widths, seeds), *train, epochs=first, lr=0.3, **make)
    params = change(stored(state, "meta/0"), params)
    # Fine-tuning takes the rate that the recipe tuned.
    make["lr"] = float(state["lr"])
    params, _ = train_stacked(params, *train, epochs=second, **make)  # type: ignore[arg-type]
    found = []
    for sparsity in sparsities:
        masks = unit_masks(params, keep_for_cost(group_norms(params), widths, 1 / (1 - sparsity)))
        final, _ = train_stacked(params, *train, epochs=max(epochs - first - second, 1), masks=masks, **make)  # type: ignore[arg-type]
        found.append(Point("metanetwork, then units", True, live_share(final), stacked_accuracy(final, *test)))
    return found


def portrait_points(
    seed: int, *, seeds: Sequence[int], sparsities: Sequence[float] = (0.5, 0.8, 0.9, 0.95), epochs: int = 12,
    metanetworks: Mapping[str, Tensor] | None = None,
) -> list[Point]:  # fmt: skip
    """Every way of pruning on one network (64-100-100-10), one data set and one number of epochs.

    Args:
        seed: Of the split.
        seeds: One a network.
        sparsities: Aimed at.
        epochs: Of every arm.
        metanetworks: What :func:`netatlas.pruning.meta_recipe.train` returned; ``None`` leaves their arm out.
    """
    train, validation, test = split_digits(seed)
    widths, found = [64, 100, 100, 10], []
    structures: dict[str, tuple[str, object]] = {
        **{
            m: (m, None)
            for m in ("one shot", "gradual", "rewound weights", "rewound rate", "movement", "edge-popup", "random")
        },
        "rows (gradual)": ("gradual", RowBalanced()),
        "N of 4 (gradual)": ("gradual", NOfM(4)),
        "tiles 4 x 4 (gradual)": ("gradual", Blocks((4, 4))),
        "channels (gradual)": ("gradual", Channels()),
        "channels (one shot)": ("one shot", Channels()),
    }
    make = {"widths": widths, "seeds": seeds, "epochs": epochs, "batch_size": 50}
    for name, (method, structure) in {"dense": ("dense", None), **structures}.items():
        for sparsity in sparsities if name != "dense" else sparsities[:1]:
            level = {0.5: 0.5, 0.8: 0.75}.get(sparsity) if name.startswith("N of 4") else sparsity
            if level is None:
                continue
            params, _ = train_sparse(method, level, train, structure=structure, **make)  # type: ignore[arg-type]
            whole = name.startswith(("tiles", "channels", "dense"))
            found.append(Point(name, whole, live_share(params), stacked_accuracy(params, *test)))
    for decay in (3e-4, 1e-3, 3e-3):
        run = train_and_cut(
            train, validation, test, widths=widths, rules=["LOBSTER"] * len(seeds), decays=[decay] * len(seeds),
            seeds=seeds, epochs=epochs, batch_size=50, patience=2, lr=0.5,
        )  # fmt: skip
        found.append(Point("LOBSTER", False, run.remaining, run.test))
    levels = [*reversed(sparsities), 0.0]
    for name, scheme in (("DRESS", "rows"), ("slimmable", "slim")):
        joint = train_levels(
            train, test, hidden=100, sparsities=levels, scheme=scheme, seeds=seeds,  # type: ignore[arg-type]
            epochs=max(epochs // len(levels), 1), lr=DRESS_RATES[name],
        )  # fmt: skip
        for k in range(len(levels) - 1):
            weights = {n: joint.params[n] * joint.masks[k].get(n, torch.ones(1)) for n in weight_names(joint.params)}
            found.append(Point(name, scheme == "slim", live_share(weights), joint.accuracy[k]))
    for sparsity in sparsities:
        width = round((-74 + (74**2 + 4 * (1 - sparsity) * 17400) ** 0.5) / 2)
        small, _ = train_sparse("dense", 0.0, train, **make | {"widths": [64, width, width, 10]})  # type: ignore[arg-type]
        left = torch.full((len(seeds),), (width**2 + 74 * width) / 17400, dtype=torch.float64)
        found.append(_searched_widths(train, test, sparsity, seeds, epochs))
        found.append(Point("small from the start", True, left, stacked_accuracy(small, *test)))
    if metanetworks is not None:
        found += _meta_pruned(metanetworks, train, test, sparsities, seeds, epochs)
    return found
