"""Experiments with pooling of sets, recovery of hidden features, and networks synthesised by programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import f as f_distribution
from torch import Tensor, nn

from netatlas.core.message_passing import SparseOperator
from netatlas.core.train import fit, fit_many, minimize, stack_members
from netatlas.expressivity.pooling import (
    SET_TARGETS,
    SetNetwork,
    generalized_norm,
    random_sets,
    set_targets,
)
from netatlas.expressivity.programs import (
    GraphStructuredModule,
    ProgramGraph,
    Synthesized,
    colour_rule_puzzles,
    complete_program_graph,
    enumerate_programs,
    graph_tensors,
    random_program_graph,
    unigram_weights,
)
from netatlas.expressivity.recovery import (
    density_gradient,
    knn_graph,
    neighbourhood_scale,
    orthogonal_procrustes_distance,
    recover_features,
    two_moons,
)

FIXED = ("sum", "mean", "max", "min")


def pooling_checks(seed: int) -> dict[str, float]:
    """Relative deviations of generalised norm pooling with exponents set by hand."""
    sets = random_sets(256, (50, 100), (0.5, 10.0), seed).double()
    settings = {"sum": (1.0, 0.0), "mean": (1.0, 1.0), "L2": (2.0, 0.0), "harmonic": (-1.0, -1.0)}
    settings |= {"max": (200.0, 0.0), "min": (-200.0, 0.0)}
    found = {}
    for kind, (p, q) in settings.items():
        exact = set_targets(sets, [kind])[0].double()
        pooled = generalized_norm(sets[..., :1], sets[..., 1], p, q)[:, 0]
        found[kind] = float((pooled / exact - 1).abs().max())
    return found


class PoolingErrors(NamedTuple):
    """Errors of poolings outside the training distribution.

    Attributes:
        error: For each arm and target the mean absolute percentage error, one a seed.
        loss: The training losses of the runs that were chosen, likewise.
    """

    error: dict[str, dict[str, np.ndarray]]
    loss: dict[str, dict[str, np.ndarray]]

    def selected(self, target: str) -> np.ndarray:
        """Error of the fixed pooling with the lowest training loss, one a seed."""
        losses = np.stack([self.loss[kind][target] for kind in FIXED])
        errors = np.stack([self.error[kind][target] for kind in FIXED])
        return np.take_along_axis(errors, losses.argmin(0)[None], 0)[0]


def _set_network(arm: str) -> SetNetwork:
    """Stackable whatever it learns: what stays is kept by a buffer, and gets gradients of zero."""
    return SetNetwork(arm, width=0).requires_grad_()


def compare_poolings(
    seeds: Sequence[int], *, known: int = 3, steps: int = 800, rates: Sequence[float] = (1e-2, 3e-2),
    batch_size: int = 16,
    count: int = 256, ablations: Sequence[str] = ("plus", "p=1"),
) -> PoolingErrors:  # fmt: skip
    """Learn statistics of small sets and test them on larger sets of larger numbers.

    Training sets have 5 to 20 elements in (0.5, 5), test sets 50 to 100 in (0.5, 10). Each arm takes the step size with
    the lowest training loss, seed by seed; exponents of the generalised norm move three times as fast. Concatenation
    and ablations are trained where no fixed pooling is right.

    Args:
        seeds: One a run; all arms of a seed see the same sets.
        known: Seeds used where a fixed pooling is right.
        steps: Number of steps.
        rates: Step sizes to choose from.
        batch_size: Sets a step.
        count: Number of training sets.
        ablations: Ablations of the generalised norm, out of ``"plus"``, ``"p=1"``, ``"q=0"``.
    """
    train = [random_sets(count, (5, 20), (0.5, 5.0), 1000 + 2 * s) for s in seeds]
    test = [random_sets(256, (50, 100), (0.5, 10.0), 1001 + 2 * s) for s in seeds]
    error: dict[str, dict[str, np.ndarray]] = {}
    loss: dict[str, dict[str, np.ndarray]] = {}
    free = ("harmonic", "L2")
    # Networks with a generalised norm have one shape and train at once.
    for arms in (("gnp", *(f"gnp {a}" for a in ablations)), *((kind,) for kind in (*FIXED, "concat"))):
        pairs = [
            (arm, t, k)
            for arm in arms
            for t in (SET_TARGETS if arm in ("gnp", *FIXED) else free)
            for k in range(len(seeds) if t in free else min(known, len(seeds)))
            for _ in rates
        ]
        aims = torch.cat([set_targets(train[k], [t]) for _, t, k in pairs])
        level = aims.mean(1, keepdim=True)
        order = iter([arm for arm, _, _ in pairs])
        fitted = fit_many(
            lambda order=order: _set_network(next(order)), torch.stack([train[k] for *_, k in pairs]),
            aims / level, seeds=[seeds[k] for *_, k in pairs], lr=list(rates) * (len(pairs) // len(rates)),
            epochs=max(1, steps * batch_size // count), batch_size=batch_size, optimizer="adam", schedule="cosine",
            loss="mse", per_member_data=True, clip_norm=1.0,
            lr_scale={n: 3.0 if "raw" in n else 1.0 for n, _ in _set_network(arms[0]).named_parameters()},
        )  # fmt: skip
        final = fitted.history[-3:].mean(0).double()
        for arm in arms:
            error[arm], loss[arm] = {}, {}
            for t in dict.fromkeys(target for own, target, _ in pairs if own == arm):
                rows = [i for i, (own, target, _) in enumerate(pairs) if (own, target) == (arm, t)]
                sets = torch.stack([test[pairs[i][2]] for i in rows])
                truth = torch.cat([set_targets(test[pairs[i][2]], [t]) for i in rows])
                guess = fitted[rows].predict(sets, per_member_data=True) * level[rows]
                gaps = ((guess / truth - 1).abs().mean(1) * 100).double().reshape(-1, len(rates))
                losses = final[rows].reshape(-1, len(rates))
                best = losses.argmin(1, keepdim=True)
                error[arm][t], loss[arm][t] = (v.gather(1, best)[:, 0].numpy() for v in (gaps, losses))
    return PoolingErrors(error, loss)


class Recovered(NamedTuple):
    """Relative distances of recovered features, one a seed.

    Attributes:
        distance: By set, number of nodes and arm.
        truth: Hidden features of the last run of each set.
        found: What was recovered of them, in the same pose.
    """

    distance: dict[tuple[str, int, str], np.ndarray]
    truth: dict[str, np.ndarray]
    found: dict[str, np.ndarray]


SETS = {"two moons": two_moons, "density gradient": density_gradient}


def _neighbours(n: int) -> int:
    return int(math.sqrt(n) * math.log2(n) / 10)


def recover_all(sizes: Sequence[int], seeds: Sequence[int], landmarks: int) -> Recovered:
    """Recover hidden features with all scales of the edges, and with the true radii, on both sets.

    Args:
        sizes: Numbers of nodes.
        seeds: One a draw.
        landmarks: Largest number of landmarks; at most a quarter of the nodes.
    """
    distance: dict[tuple[str, int, str], list[float]] = {}
    truth, found = {}, {}
    for (name, draw), n, seed in ((s, n, k) for s in SETS.items() for n in sizes for k in seeds):
        points, k = draw(n, seed), _neighbours(n)
        graph = knn_graph(points, k)
        chosen = np.random.default_rng(seed).permutation(n)[: min(landmarks, n // 4)]
        scales = {"full": neighbourhood_scale(graph, 2)}
        if n == max(sizes):
            scales |= {kind: neighbourhood_scale(graph, 2, kind) for kind in ("hops", "degree", "ten rounds")}
            scales["permuted"] = np.random.default_rng(seed).permutation(scales["full"])
            ends = graph.edge_index.numpy()
            scales["true radius"] = np.sqrt(((points[ends[0]] - points[ends[1]]) ** 2).sum(1)).reshape(n, k).max(1)
        for kind, scale in scales.items():
            fitted = orthogonal_procrustes_distance(
                recover_features(graph, 2, chosen, scale=scale), points, scale="fit"
            )  # fmt: skip
            distance.setdefault((name, n, kind), []).append(fitted.relative)
            if kind == "full":
                truth[name], found[name] = points, fitted.aligned
    return Recovered({key: np.array(v) for key, v in distance.items()}, truth, found)


class NodeGIN(nn.Module):
    """GIN on one directed graph with degree and landmark identities as features, coordinates as output.

    Args:
        operator: Sums over the senders of incoming and of outgoing edges.
        width: Width of the layers.
        outputs: Number of coordinates.
        layers: Number of layers.
    """

    def __init__(self, operator: SparseOperator, width: int, outputs: int = 2, layers: int = 3) -> None:
        super().__init__()
        self.operator = operator
        nodes = operator.shape[0]
        self.identity = nn.Parameter(0.5 * torch.randn(nodes, width))
        self.enter = nn.Linear(1, width)
        self.updates = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(layers)
        )
        self.read = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of all nodes; ``x`` holds the scaled degree and whether a node is a landmark."""
        h = self.enter(x[:, :1]) + x[:, 1:2] * self.identity
        for update in self.updates:
            h = torch.relu(update(h + self.operator(h)))
        return self.read(h)


class GINRecovery(NamedTuple):
    """What a trained GIN recovers, one a seed.

    Attributes:
        distance: Relative distance on test nodes, by set.
        rates: The step size of each set.
    """

    distance: dict[str, np.ndarray]
    rates: dict[str, float]


def gin_recovery(
    n: int,
    seeds: Sequence[int],
    *,
    landmarks: int,
    width: int = 32,
    steps: int = 100,
    rates: Sequence[float] = (3e-3, 1e-2),
) -> GINRecovery:
    """Train GIN to output the hidden features of 70 % of the nodes and judge it on the others.

    It gets degrees and learned identities of the landmarks; the step size is chosen on the test nodes of the first
    seed, in its favour.

    Args:
        n: Number of nodes.
        seeds: One a draw.
        landmarks: Number of landmarks.
        width: Width of the network.
        steps: Number of steps.
        rates: Step sizes to choose from.
    """
    import scipy.sparse as sp

    found, chosen = {}, {}
    for name, draw in SETS.items():
        scores = []
        for index, seed in enumerate(seeds):
            points, k = draw(n, seed), _neighbours(n)
            ends = knn_graph(points, k).edge_index.numpy()
            matrix = sp.csr_array((np.full(ends.shape[1], 1 / k), (ends[1], ends[0])), shape=(n, n))
            operator = SparseOperator(sp.csr_array((matrix + matrix.T) / 2))
            rng = np.random.default_rng(seed)
            order = rng.permutation(n)
            degree = torch.from_numpy(np.asarray(matrix.sum(1)).ravel()).float()
            x = torch.stack([degree, torch.zeros(n)], 1)
            x[order[:landmarks], 1] = 1
            train, test = order[: 7 * n // 10], order[7 * n // 10 :]
            target = torch.from_numpy((points - points.mean(0)) / points.std()).float()
            used = list(rates) if index == 0 else [chosen[name]]
            models = []
            for _ in used:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    models.append(NodeGIN(operator, width))
            skeleton, (params, _) = models[0], stack_members(models)

            def outputs(p: dict[str, Tensor], skeleton: nn.Module = skeleton, x: Tensor = x) -> Tensor:
                return torch.func.vmap(lambda q: torch.func.functional_call(skeleton, q, (x,)))(p)

            def loss(p: dict, step: int, _: torch.Generator, rows: np.ndarray = train, aim: Tensor = target) -> Tensor:
                return (outputs(p)[:, rows] - aim[rows]).square().mean((1, 2))

            trained, _ = minimize(loss, params, steps=steps, lr=used, schedule="cosine", clip_norm=1.0)
            with torch.no_grad():
                out = outputs(trained).double().numpy()
            values = [
                orthogonal_procrustes_distance(o[test], target.double().numpy()[test], scale="fit").relative
                for o in out
            ]  # fmt: skip
            if index == 0:
                chosen[name] = used[int(np.argmin(values))]
            scores.append(min(values))
        found[name] = np.array(scores)
    return GINRecovery(found, chosen)


class Downstream(NamedTuple):
    """Accuracy on nodes whose labels depend on hidden features, one a seed.

    Attributes:
        accuracy: By arm.
        permuted: The same with permuted labels.
        majority: Share of the larger class among test nodes.
        scale_error: Relative distance with the scale learned from smaller graphs, over that with the best scale.
    """

    accuracy: dict[str, np.ndarray]
    permuted: dict[str, np.ndarray]
    majority: np.ndarray
    scale_error: np.ndarray


def downstream(n: int, seeds: Sequence[int], *, landmarks: int, steps: int = 150) -> Downstream:
    """Classify nodes by a rule on the hidden features, from recovered features and from degrees by a GIN.

    The label is whether z_1 z_2 exceeds its median. Both arms are networks with two hidden layers of 32, or three GIN
    layers of 32, trained on 70 % of the nodes with the better of two step sizes on the first seed.

    Args:
        n: Number of nodes.
        seeds: One a draw.
        landmarks: Number of landmarks.
        steps: Number of steps.
    """
    import scipy.sparse as sp

    accuracy: dict[str, list[float]] = {"recovered features": [], "GIN": []}
    permuted: dict[str, list[float]] = {"recovered features": [], "GIN": []}
    majority, ratios = [], []
    learned = _learned_scale((n // 2, 7 * n // 10, 9 * n // 10), seeds[:2], landmarks)
    for seed in seeds:
        points, k = density_gradient(n, seed), _neighbours(n)
        graph = knn_graph(points, k)
        rng = np.random.default_rng(seed)
        order = rng.permutation(n)
        chosen, train, test = order[:landmarks], order[: 7 * n // 10], order[7 * n // 10 :]
        raw = recover_features(graph, 2, chosen)
        best = orthogonal_procrustes_distance(raw, points, scale="fit").relative
        ratios.append(orthogonal_procrustes_distance(raw, points, scale=learned(n)).relative / best)
        # The frame is free, so the products that the rule needs are given in any frame by a small network.
        x = torch.from_numpy(raw / raw.std()).float()
        product = points[:, 0] * points[:, 1]
        label = torch.from_numpy((product > np.median(product)).astype(np.int64))
        shuffled = label[torch.from_numpy(rng.permutation(n))]
        ends = graph.edge_index.numpy()
        matrix = sp.csr_array((np.full(ends.shape[1], 1 / k), (ends[1], ends[0])), shape=(n, n))
        operator = SparseOperator(sp.csr_array((matrix + matrix.T) / 2))
        degree = torch.from_numpy(np.asarray(matrix.sum(1)).ravel()).float()[:, None]
        plain = torch.cat([degree, torch.zeros(n, 1)], 1)
        arms = {
            "recovered features": (
                lambda: nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)), x,
            ),
            "GIN": (lambda operator=operator: NodeGIN(operator, 32), plain),
        }  # fmt: skip
        for name, (build, inputs) in arms.items():
            right = _classify(build, inputs, torch.stack([label, shuffled]), train, test, steps, seed)
            for store, value in zip((accuracy, permuted), right):
                store[name].append(value)
        for_test = label[test].double().mean().item()
        majority.append(max(for_test, 1 - for_test))
    return Downstream(
        {k: np.array(v) for k, v in accuracy.items()}, {k: np.array(v) for k, v in permuted.items()},
        np.array(majority), np.array(ratios),
    )  # fmt: skip


def _classify(
    build: Callable[[], nn.Module], x: Tensor, labels: Tensor, train: np.ndarray, test: np.ndarray, steps: int,
    seed: int,
) -> list[float]:  # fmt: skip
    """Test accuracy for each row of labels, with the better of two step sizes on a seventh of the training nodes."""
    rates = [3e-3, 1e-2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        skeleton = build()
    params, _ = stack_members([skeleton] * (len(rates) * len(labels)))
    aims = labels.repeat_interleave(len(rates), 0)
    cut = len(train) * 6 // 7

    def outputs(p: dict[str, Tensor]) -> Tensor:
        return torch.func.vmap(lambda q: torch.func.functional_call(skeleton, q, (x,)))(p)

    def loss(p: dict[str, Tensor], step: int, _: torch.Generator) -> Tensor:
        rows = train[:cut]
        return nn.functional.cross_entropy(outputs(p)[:, rows].mT, aims[:, rows], reduction="none").mean(1)

    trained, _ = minimize(loss, params, steps=steps, lr=rates * len(labels), schedule="cosine", clip_norm=1.0)
    with torch.no_grad():
        right = (outputs(trained).argmax(-1) == aims).double().unflatten(0, (len(labels), len(rates)))
    best = right[..., train[cut:]].mean(-1).argmax(1)
    return [float(own[k][test].mean()) for own, k in zip(right, best)]


def _learned_scale(sizes: Sequence[int], seeds: Sequence[int], landmarks: int):
    """The learned part of the recovery: a network from the number of nodes to the scale of the coordinates."""
    rows = []
    for n in sizes:
        for seed in seeds:
            points = density_gradient(n, 100 + seed)
            graph = knn_graph(points, _neighbours(n))
            chosen = np.random.default_rng(seed).permutation(n)[: min(landmarks, n // 4)]
            raw = recover_features(graph, 2, chosen)
            a, b = raw - raw.mean(0), points - points.mean(0)
            rows.append((n, np.linalg.svd(a.T @ b)[1].sum(), (a**2).sum(), (b**2).sum()))
    table = torch.tensor(rows, dtype=torch.float32)
    size = table[:, :1].log() - math.log(1000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seeds[0]))
        net = nn.Sequential(nn.Linear(1, 32), nn.LeakyReLU(), nn.Linear(32, 1), nn.Softplus())

    def distance(out: Tensor, y: Tensor) -> Tensor:
        s = out[:, 0]
        return ((y[:, 2] - 2 * s * y[:, 0] + s * s * y[:, 1]) / y[:, 2]).mean()

    fit(
        net,
        size,
        table[:, 1:],
        seed=int(seeds[0]),
        epochs=300,
        batch_size=len(table),
        optimizer="adam",
        lr=1e-2,
        loss=distance,
    )
    with torch.no_grad():
        return lambda n: float(net(torch.tensor([[math.log(n / 1000)]], dtype=torch.float32)).detach())


class PanelEncoder(nn.Module):
    """Panels of a puzzle through shared layers, rows through shared layers, then a code and a head.

    Args:
        head: Module from the code to one logit.
        dim: Width of the code.
    """

    def __init__(self, head: nn.Module, dim: int) -> None:
        super().__init__()
        self.panel, self.row, self.code = nn.Linear(16, 8), nn.Linear(24, 16), nn.Linear(48, dim)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits of puzzles given as 144 pixels."""
        panels = x.unflatten(-1, (3, 4, 3, 4)).transpose(-3, -2).flatten(-2)
        rows = torch.relu(self.panel(panels)).flatten(-2)
        code = torch.relu(self.code(torch.relu(self.row(rows)).flatten(-2)))
        return self.head(code)[..., 0]


class Variance(NamedTuple):
    """One-way analysis of variance.

    Attributes:
        ratio: F ratio of the variance between groups to that within.
        p_value: Its tail probability where groups do not matter.
        between: Estimated share of the variance that lies between groups, not below 0.
    """

    ratio: float
    p_value: float
    between: float


def one_way(draws: Sequence[np.ndarray], covariates: Sequence[np.ndarray] | None = None) -> Variance:
    """Whether groups differ by more than their members, also beyond a linear effect of a covariate of the groups.

    Sums of squares and degrees of freedom are pooled over independent draws, each with groups and a mean of its own.

    Args:
        draws: ``[groups, members]`` each.
        covariates: For each draw one number a group; its linear effect is regressed out first, at the price of a degree
            of freedom.
    """
    across = inside = 0.0
    free, spare, members = 0, 0, draws[0].shape[1]
    for k, values in enumerate(draws):
        means = values.mean(1)
        rest, lost = means - means.mean(), 1
        if covariates is not None and np.ptp(covariates[k]) > 0:
            c = covariates[k] - covariates[k].mean()
            rest, lost = rest - c * (c @ rest) / (c @ c), 2
        across += members * float(rest @ rest)
        inside += float(((values - means[:, None]) ** 2).sum())
        free, spare = free + len(values) - lost, spare + len(values) * (members - 1)
    between, within = across / free, inside / spare
    ratio = between / within
    tail = float(f_distribution.sf(ratio, free, spare))
    share = max(0.0, (between - within) / members)
    return Variance(ratio, tail, share / (share + within))


class Evolution(NamedTuple):
    """Populations of programs and their accuracies.

    Attributes:
        base: Test accuracy of the base network, one a seed.
        test: Test accuracy of every generation, ``[programs, seeds]`` each.
        train: Training accuracy, likewise.
        chance: Test accuracy of the generations that survive by chance.
        null: Test accuracy of one program under several names.
        perceptron: Test accuracy with a perceptron of as many parameters in place of the graph.
        complete: Test accuracy with the complete graph.
        random: Test accuracy with random graphs of the programs' sizes, ``[graphs, seeds]``.
        shuffled: Test accuracy with chunks given to elements at random, ``[programs, seeds]``.
        programs: The programs of every generation.
        others: Test accuracy of first generations on other draws of puzzles and programs.
        other_programs: Their programs.
    """

    base: np.ndarray
    test: list[np.ndarray]
    train: list[np.ndarray]
    chance: list[np.ndarray]
    null: np.ndarray
    perceptron: np.ndarray
    complete: np.ndarray
    random: np.ndarray
    shuffled: np.ndarray
    programs: list[list[Synthesized]]
    others: list[np.ndarray]
    other_programs: list[list[Synthesized]]


def evolve_programs(
    seed: int, *, population: int = 12, generations: int = 3, repeats: int = 4, steps: int = 200, dim: int = 24,
    examples: int = 128, noise: float = 0.1, rate: float = 3e-3, largest: int = 16, draws: int = 3,
    controls: bool = False,
) -> Evolution:  # fmt: skip
    """Evolve programs whose graphs wire a module, with selection by training accuracy and with selection by chance.

    Half of a generation survives; the rest is drawn anew by the weights of the survivors' instructions.

    Args:
        seed: Seeds data, programs and weights.
        population: Programs a generation.
        generations: Number of generations.
        repeats: Weight seeds for each program.
        steps: Steps of Adam on batches of 16.
        dim: Width of the code.
        examples: Number of training images.
        noise: Noise of the pixels.
        rate: Step size, chosen on the base network alone.
        largest: Largest number of nodes and edges of a graph.
        draws: Number of draws of puzzles and programs for the first generation; one of them evolves.
        controls: Whether to train random graphs, the complete graph and chunks at random as well.
    """
    train, test = (
        colour_rule_puzzles(examples, 2 * seed, noise=noise),
        colour_rule_puzzles(512, 2 * seed + 1, noise=noise),
    )
    options = {
        "epochs": max(1, steps * 16 // examples), "batch_size": 16, "optimizer": "adam", "lr": rate,
        "loss": nn.functional.binary_cross_entropy_with_logits,
    }  # fmt: skip
    used = 0

    def accuracies(build, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        fitted = fit_many(build, *train, seeds=list(seeds), **options)
        return tuple(((fitted.predict(x) > 0) == (y > 0.5)).double().mean(1).numpy() for x, y in (test, train))

    def judge(graphs: Sequence[ProgramGraph], shuffle: bool = False) -> tuple[np.ndarray, np.ndarray]:
        nonlocal used
        nodes, edges = max(g.nodes for g in graphs), max(len(g.edges) for g in graphs)
        padded = [
            graph_tensors(g, dim, nodes=nodes, edges=edges, shuffle=i if shuffle else None)
            for i, g in enumerate(graphs)
        ]
        order = iter([t for t in padded for _ in range(repeats)])
        seeds = range(1000 * seed + used, 1000 * seed + used + len(graphs) * repeats)
        used += len(graphs) * repeats
        found = accuracies(lambda: PanelEncoder(GraphStructuredModule(next(order)), dim), seeds)
        return tuple(v.reshape(len(graphs), repeats) for v in found)

    base = accuracies(lambda: PanelEncoder(nn.Linear(dim, 1), dim), range(9000 + 1000 * seed, 9012 + 1000 * seed))[0]

    def mlp() -> nn.Module:
        hidden = [nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1)]
        return PanelEncoder(nn.Sequential(*hidden), dim)

    perceptron = accuracies(mlp, range(9100 + 1000 * seed, 9112 + 1000 * seed))[0]
    first = enumerate_programs(population, largest=largest, seed=seed)
    start = judge([p.graph for p in first])
    histories: dict[str, list] = {}
    for kind in ("selected", "chance"):
        programs, (tests, trains) = list(first), start
        history = [(programs, tests, trains)]
        rng = np.random.default_rng(seed + 1)
        for generation in range(1, generations):
            keep = population // 2
            rank = np.argsort(-trains.mean(1), kind="stable") if kind == "selected" else rng.permutation(population)
            alive = [programs[i] for i in rank[:keep]]
            fresh = enumerate_programs(
                population - keep, largest=largest, known=[p.graph for p in programs], seed=seed + 17 * generation,
                weights=unigram_weights(alive),
            )  # fmt: skip
            new = judge([p.graph for p in fresh])
            programs = alive + fresh
            tests, trains = (np.concatenate([old[rank[:keep]], n]) for old, n in zip((tests, trains), new))
            history.append((programs, tests, trains))
        histories[kind] = history
    null = judge([first[0].graph] * population)[0]
    sizes = [(p.graph.nodes, len(p.graph.edges)) for p in first]
    four, empty, random = complete_program_graph(4), np.zeros((0, repeats)), np.zeros((0, repeats))
    if controls:
        random = judge([random_program_graph(v, max(v - 1, e), seed + i) for i, (v, e) in enumerate(sizes)])[0]
    else:
        # What comes after keeps its seeds, with and without these controls.
        used += len(first) * repeats
    complete = judge([four] * 3)[0].ravel() if controls else empty.ravel()
    shuffled = judge([p.graph for p in first], shuffle=True)[0] if controls else empty
    others, other_programs = [], []
    for draw in range(1, draws):
        own = 500 + 10 * seed + draw
        train, test = (colour_rule_puzzles(n, 2 * own + i, noise=noise) for i, n in enumerate((examples, 512)))
        other_programs.append(enumerate_programs(population, largest=largest, seed=own))
        others.append(judge([p.graph for p in other_programs[-1]])[0])
    return Evolution(
        base, [h[1] for h in histories["selected"]], [h[2] for h in histories["selected"]],
        [h[1] for h in histories["chance"]], null, perceptron, complete, random, shuffled,
        [h[0] for h in histories["selected"]], others, other_programs,
    )  # fmt: skip


class Quarters(NamedTuple):
    """The best and the worst quarter of programs, chosen on some runs and judged on others, minus the base.

    Attributes:
        best: Difference of the best quarter from the base.
        best_error: Its standard error.
        worst: Difference of the worst quarter.
        worst_error: Its standard error.
    """

    best: float
    best_error: float
    worst: float
    worst_error: float


def cross_fitted_quarters(choose: np.ndarray, judge: np.ndarray, base: np.ndarray) -> Quarters:
    """Choose the best and the worst quarter of programs by one set of runs and judge them by another.

    Args:
        choose: Accuracies that rank, ``[programs, runs]``.
        judge: Accuracies of other runs.
        base: Accuracies of the base network.
    """
    order = np.argsort(-choose.mean(1), kind="stable")
    quarter = max(1, len(order) // 4)
    found = []
    for picked in (order[:quarter], order[-quarter:]):
        values = judge[picked].mean(1)
        error = np.sqrt(judge[picked].ravel().var(ddof=1) / judge[picked].size + base.var(ddof=1) / len(base))
        found += [float(values.mean() - base.mean()), float(error)]
    return Quarters(*found)
