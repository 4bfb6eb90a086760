"""Experiments on depth and scope: limits in closed form, linear networks of any depth, graphs that 1-WL confuses."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse import csgraph
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import propagation_limit
from netatlas.core.message_passing import GCN, SparseOperator, gcn_operator
from netatlas.propagation.depth import propagated_features
from netatlas.propagation.shadow import (
    Scopes,
    approximate_ppr,
    khop_scopes,
    random_scopes,
    scope_union,
    scoped_propagation,
)
from netatlas.propagation.tuning import NodeTask, tune_nodes

LINEAR_GRID = ((0.03, 5e-4), (0.03, 5e-3))


def make_scopes(task: NodeTask, *, size: int, budget: int, seed: int) -> dict[str, Scopes]:
    """Scopes of every node by PageRank, by hops, and by a random connected set of the size of PageRank's.

    Args:
        task: The graph.
        size: Nodes of a PageRank scope.
        budget: Neighbours of each node in a two-hop scope.
        seed: Draws hops and sets.

    Source: zeng2021shadow.
    """
    nodes = np.arange(task.graph.shape[0])
    ppr, _ = approximate_ppr(task.graph, nodes, size, epsilon=1e-4)
    return {
        "PPR": ppr,
        "two hops": khop_scopes(task.graph, nodes, 2, budget=budget, seed=seed),
        "random": random_scopes(task.graph, nodes, ppr.sizes, seed=seed),
    }


class LimitErrors(NamedTuple):
    """Relative errors of the closed-form limits against long propagation.

    Attributes:
        whole: On the largest component.
        scopes: On all scopes.
        normalisation: Of the sum of the squared limit weights, against one.
        same_whole: Share of node pairs whose limits point in one direction, on the whole component.
        same_scopes: The same with the targets' scopes.
    """

    whole: float
    scopes: float
    normalisation: float
    same_whole: float
    same_scopes: float


def limit_errors(task: NodeTask, scopes: Scopes, *, steps: int, columns: int, seed: int) -> LimitErrors:
    """Compare both closed forms with propagation to the end, on a few random columns.

    Args:
        task: The graph.
        scopes: Scopes of its nodes.
        steps: Propagations on the whole component; scopes take a quarter.
        columns: Random feature columns.
        seed: Draws them.

    Source: zeng2021shadow.
    """
    _, component = csgraph.connected_components(task.graph, directed=False)
    inside = np.flatnonzero(component == np.bincount(component).argmax())
    graph = as_csr(task.graph[inside][:, inside])
    x = np.random.default_rng(seed).standard_normal((task.graph.shape[0], columns))
    step, state = normalized_adjacency(graph, "sym", self_loops=True), x[inside]
    for _ in range(steps):
        state = step @ state
    limit = propagation_limit(graph, x[inside])
    # The first scopes are enough: their limits are the same formula.
    few = Scopes(scopes.nodes[: scopes.pointer[200]], scopes.pointer[:201])
    found = scoped_propagation(task.graph, few, x, [steps // 4, None])
    weights = np.sqrt(graph.sum(1) + 1)
    square = (weights**2 / (weights**2).sum()).sum()

    def same(rows: np.ndarray) -> float:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosine = unit @ unit.T
        return float((cosine[np.triu_indices(len(unit), 1)] > 1 - 1e-6).mean())

    def gap(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b).max() / np.abs(b).max())

    return LimitErrors(
        gap(state, limit),
        gap(found[steps // 4], found[None]),
        abs(float(square) - 1),
        same(limit[:200]),
        same(found[None][:, :columns]),
    )


def linear_depths(
    task: NodeTask, scopes: dict[str, Scopes], depths: list[int | None], *, seeds: list[int], epochs: int
) -> dict[str, dict[int | None, tuple[np.ndarray, np.ndarray]]]:
    """Test and validation accuracy of linear networks on the whole graph and on scopes, for every depth.

    Args:
        task: Graph, features, labels, splits.
        scopes: Scopes by name.
        depths: Depths; ``None`` is the limit. The whole graph is also run at its shallow depths 2 and 4.
        seeds: One a split.
        epochs: Steps of the linear classifiers.

    Source: zeng2021shadow.
    """
    x = task.x.numpy().astype(float)
    finite = [d for d in depths if d is not None]
    whole = propagated_features(task.graph, x, max(finite))
    features: dict[str, dict[int | None, np.ndarray]] = {"whole graph": {d: whole[d] for d in {2, 4, *finite}}}
    if None in depths:
        features["whole graph"][None] = propagation_limit(task.graph, x)
    features |= {name: scoped_propagation(task.graph, s, x, depths) for name, s in scopes.items()}
    result: dict[str, dict[int | None, tuple[np.ndarray, np.ndarray]]] = {}
    for name, by_depth in features.items():
        result[name] = {}
        for depth, values in by_depth.items():
            # Deep features have grown alike and small; the classifier sees them at unit scale all the same.
            scaled = torch.from_numpy(values / np.sqrt(np.square(values).mean())).float()
            width = scaled.shape[1]
            run = tune_nodes(
                lambda w=width: GCN([w, task.classes]),
                scaled,
                task.y,
                task.masks,
                seeds=seeds,
                epochs=epochs,
                grid=LINEAR_GRID,
                every=10,
            )
            result[name][depth] = run.test.numpy(), run.validation.numpy()
    return result


class ScopedGCN(nn.Module):
    """A residual GCN on a union of scopes, read out at the targets: their own row beside the scope's mean.

    Args:
        widths: Features, hidden widths of every layer.
        classes: Number of classes.
        union: The scopes' subgraphs as one graph, from :func:`netatlas.propagation.shadow.scope_union`.
        scopes: The scopes.

    Source: zeng2021shadow.
    """

    def __init__(self, widths: list[int], classes: int, union: sp.csr_array, scopes: Scopes) -> None:
        super().__init__()
        targets, total = len(scopes.sizes), len(scopes.nodes)
        owner = np.repeat(np.arange(targets), scopes.sizes)
        where = (owner, np.arange(total))
        self.body = GCN(widths, gcn_operator(union), residual=True)
        self.mean = SparseOperator(sp.csr_array((1 / scopes.sizes[owner], where), (targets, total)))
        centre = sp.csr_array((np.ones(targets), (np.arange(targets), scopes.centres)), (targets, total))
        self.centre, self.spread = SparseOperator(centre), SparseOperator(sp.csr_array(centre.T))
        self.head = nn.Linear(2 * widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits in the targets' rows of the union, zero in the others, from the features of the union's rows."""
        h = torch.relu(self.body(x))
        return self.spread(self.head(torch.cat([self.centre(h), self.mean(h)], -1)))


class DeepRun(NamedTuple):
    """A residual GCN of one depth in scopes and on the whole graph, on the same test targets, one value a split.

    Attributes:
        scoped: Test accuracy in scopes.
        whole: Test accuracy on the whole graph.
    """

    scoped: np.ndarray
    whole: np.ndarray


def deep_gcn(
    task: NodeTask, *, size: int, layers: int, hidden: int, epochs: int, seeds: list[int], held: int
) -> DeepRun:
    """Train a residual GCN in PageRank scopes and the same on the whole graph, both over the same settings.

    Args:
        task: Graph, features, labels, splits.
        size: Nodes of a scope.
        layers: Convolutions, on both sides.
        hidden: Hidden width.
        epochs: Training steps.
        seeds: One a split.
        held: Most validation nodes and most test nodes of a split; all training nodes are used.

    Raises:
        ValueError: For fewer than one layer or held node.

    Source: zeng2021shadow.
    """
    require(layers >= 1 and held >= 1, "at least one layer and one held node", (layers, held))
    features, scoped, whole = task.x.shape[1], [], []
    operator = gcn_operator(task.graph)
    options: dict[str, Any] = {"epochs": epochs, "grid": LINEAR_GRID, "every": 5, "clip_norm": 1.0}
    for row, seed in enumerate(seeds):
        parts = [torch.nonzero(m[row]).ravel() for m in task.masks]
        parts = [parts[0], parts[1][:held], parts[2][:held]]
        targets = torch.cat(parts)
        scopes, _ = approximate_ppr(task.graph, targets.numpy(), size)
        union = scope_union(task.graph, scopes)
        inside = torch.zeros(3, 1, len(scopes.nodes), dtype=torch.bool)
        around = torch.zeros(3, 1, len(task.y), dtype=torch.bool)
        for k, (ends, nodes) in enumerate(zip(torch.from_numpy(scopes.centres).split([len(p) for p in parts]), parts)):
            inside[k, 0, ends], around[k, 0, nodes] = True, True
        copies = torch.from_numpy(scopes.nodes)
        widths = [features, *[hidden] * layers]
        build = partial(ScopedGCN, widths, task.classes, union, scopes)
        scoped.append(tune_nodes(build, task.x[copies], task.y[copies], tuple(inside), seeds=[seed], **options).test)
        plain = partial(WholeGCN, widths, task.classes, operator)
        whole.append(tune_nodes(plain, task.x, task.y, tuple(around), seeds=[seed], **options).test)
    return DeepRun(torch.cat(scoped).numpy(), torch.cat(whole).numpy())


class WholeGCN(nn.Module):
    """The body of :class:`ScopedGCN` on a whole graph, with a linear classifier of every node.

    Args:
        widths: Features, hidden widths of every layer.
        classes: Number of classes.
        operator: The propagation.

    Source: zeng2021shadow (its baseline).
    """

    def __init__(self, widths: list[int], classes: int, operator: SparseOperator) -> None:
        super().__init__()
        self.body, self.head = GCN(widths, operator, residual=True), nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every node."""
        return self.head(torch.relu(self.body(x)))


def triangles_and_hexagon(*, width: int, layers: int, seed: int) -> tuple[float, float]:
    r"""How far a GIN's sums over two triangles and over a hexagon lie apart, on the graphs and on one-hop scopes.

    .. math:: h \leftarrow \mathrm{relu}\bigl((h + A h) W\bigr), \qquad \text{readout } \sum_v h_v

    Args:
        width: Width.
        layers: Layers.
        seed: Draws the weights.

    Returns:
        Relative distances on the whole graphs and on the scopes.

    Source: zeng2021shadow.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(layers, width, width, generator=generator, dtype=torch.float64).abs() / width

    def run(adjacency) -> Tensor:
        step = torch.from_numpy(adjacency.toarray())
        h = torch.ones(len(step), width, dtype=torch.float64)
        for weight in weights:
            h = torch.relu((h + step @ h) @ weight)
        return h.sum(0)

    graphs = [nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)), nx.cycle_graph(6)]
    whole = [run(as_csr(g)) for g in graphs]
    scoped = [run(scope_union(g, khop_scopes(g, np.arange(6), 1))) for g in graphs]

    def apart(pair: list[Tensor]) -> float:
        return float((pair[0] - pair[1]).norm() / pair[0].norm())

    return apart(whole), apart(scoped)
