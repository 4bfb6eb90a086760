"""All models of the chapter on the same graphs: accuracy, smoothness and reach against depth, with one budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from scipy.sparse import csgraph
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import propagation_limit
from netatlas.core.message_passing import GCN, SparseOperator, gcn_operator
from netatlas.propagation.bottlenecks import dumbbell
from netatlas.propagation.depth import DecoupledGCN, node_adaptive_weights, propagated_features
from netatlas.propagation.directed import DirectedGCN, direction_operators
from netatlas.propagation.feature_expansion import FeatureExpansion
from netatlas.propagation.rewiring import gtr_edges
from netatlas.propagation.sensitivity import dirichlet_energy, influence_from
from netatlas.propagation.shadow import approximate_ppr, random_scopes, scope_union
from netatlas.propagation.sheaf import SheafDiffusion
from netatlas.propagation.tuning import NodeTask, tune_nodes

PORTRAIT_GRID = ((0.01, 5e-4), (0.03, 5e-4))


def bottleneck_task(copies: int, *, clique: int, path: int, tokens: int, seeds: list[int]) -> NodeTask:
    """Many dumbbells side by side: in each, the target node must name the token of the source.

    Args:
        copies: Number of dumbbells; 60 % of their targets train, 20 % validate, 20 % test.
        clique: Nodes of each clique.
        path: Nodes between the cliques.
        tokens: Number of tokens.
        seeds: One a split; the first draws the tokens.

    Source: black2023resistance, digiovanni2023oversquashing (our task).
    """
    graph = dumbbell(clique, path)
    n = int(graph.num_nodes)
    union = as_csr(sp.kron(sp.eye_array(copies), as_csr(graph), format="csr"))
    rng = np.random.default_rng(seeds[0])
    token = rng.integers(tokens, size=(copies, n))
    x = np.zeros((copies, n, tokens + 2))
    x[..., :tokens] = np.eye(tokens)[token]
    x[:, graph.source, tokens] = x[:, graph.target, tokens + 1] = 2.0
    y = np.repeat(token[:, graph.source], n)
    masks = torch.zeros(3, len(seeds), copies * n, dtype=torch.bool)
    cuts = [int(0.6 * copies), int(0.8 * copies)]
    for row, seed in enumerate(seeds):
        for part, chosen in enumerate(np.split(np.random.default_rng(seed).permutation(copies), cuts)):
            masks[part, row, chosen * n + graph.target] = True
    flat = torch.from_numpy(x.reshape(copies * n, -1)).float()
    return NodeTask(union, flat, torch.from_numpy(y), *masks)


def neighbourhood_of(task: NodeTask, nodes: int, *, seed: int) -> NodeTask:
    """A task on a random connected part of its graph, of the largest component.

    Args:
        task: The whole.
        nodes: Nodes to keep; all if there are no more.
        seed: Draws the part.
    """
    if nodes >= task.graph.shape[0]:
        return task
    _, component = csgraph.connected_components(task.graph, directed=False)
    inside = np.flatnonzero(component == np.bincount(component).argmax())
    start = np.random.default_rng(seed).choice(inside, 1)
    kept = np.sort(random_scopes(task.graph, start, np.array([nodes]), seed=seed).nodes)
    at = torch.from_numpy(kept)
    _, y = torch.unique(task.y[at], return_inverse=True)
    return NodeTask(as_csr(task.graph[kept][:, kept]), task.x[at], y, *(m[:, at] for m in task.masks))


class PortraitModel(NamedTuple):
    """How a model is trained and looked into.

    Attributes:
        inputs: What its trainable part sees.
        build: Makes its trainable part.
        hidden: From the trained part to a function from the features to the representation before the classifier.
        logits: From the trained part to a function from the features to the logits.
    """

    inputs: Tensor
    build: Callable[[], nn.Module]
    hidden: Callable[[nn.Module], Callable[[Tensor], Tensor]]
    logits: Callable[[nn.Module], Callable[[Tensor], Tensor]]


def _trained_whole(x: Tensor, build: Callable[[], nn.Module], hidden: Callable[..., Tensor]) -> PortraitModel:
    return PortraitModel(x, build, lambda net: lambda value: hidden(net, value), lambda net: net)


def _linear(x: Tensor, lift: Callable[[Tensor], Tensor], build: Callable[[int], nn.Module]) -> PortraitModel:
    with torch.no_grad():
        features = lift(x)
    scale = features.square().mean().sqrt().clamp_min(1e-12)

    def scaled(value: Tensor) -> Tensor:
        return lift(value) / scale

    return PortraitModel(
        features / scale, lambda: build(features.shape[1]), lambda net: scaled, lambda net: lambda v: net(scaled(v))
    )


def portrait_models(task: NodeTask, depth: int, *, hidden: int, rewired: int, scope: int) -> dict[str, PortraitModel]:
    """The chapter's models of one depth on one graph.

    Args:
        task: The graph.
        depth: Propagations.
        hidden: Hidden width.
        rewired: Edges that rewiring adds to each part of the graph; 0 leaves the rewired model out.
        scope: Nodes of a scope.
    """
    features, classes, n = task.x.shape[1], task.classes, task.graph.shape[0]
    operator = gcn_operator(task.graph)
    widths = [features, *[hidden] * (depth - 1), classes]
    x64 = task.x.numpy().astype(float)

    def before(net: Any, value: Tensor) -> Tensor:
        found = net.hidden(value)
        return found[-2] if len(found) > 1 else value

    stack = propagated_features(task.graph, x64, depth)
    adaptive = torch.from_numpy(node_adaptive_weights(stack, propagation_limit(task.graph, x64, "row"))).float()
    column = torch.from_numpy(np.linalg.norm(stack, axis=1)).float().clamp_min(1e-12)

    def powers(value: Tensor) -> list[Tensor]:
        found = [value]
        for _ in range(depth):
            found.append(operator(found[-1]))
        return found

    def combined(value: Tensor) -> Tensor:
        return torch.stack([w[:, None] * p for w, p in zip(adaptive, powers(value))]).sum(0)

    def expanded(value: Tensor) -> Tensor:
        return torch.cat([p / c for p, c in zip(powers(value), column)], -1)

    scopes, _ = approximate_ppr(task.graph, np.arange(n), scope)
    inside = SparseOperator(normalized_adjacency(scope_union(task.graph, scopes), "sym", self_loops=True))
    total, owner = len(scopes.nodes), np.repeat(np.arange(n), scopes.sizes)
    mean = SparseOperator(sp.csr_array((1 / scopes.sizes[owner], (owner, np.arange(total))), (n, total)))
    centre = SparseOperator(sp.csr_array((np.ones(n), (np.arange(n), scopes.centres)), (n, total)))
    copied = SparseOperator(sp.csr_array((np.ones(total), (np.arange(total), scopes.nodes)), (total, n)))

    def scoped(value: Tensor) -> Tensor:
        local = copied(value)
        for _ in range(depth):
            local = inside(local)
        return torch.cat([centre(local), mean(local)], -1)

    pair = direction_operators(task.graph, directed=False)

    def gcn(op: SparseOperator | None, residual: bool = False) -> PortraitModel:
        return _trained_whole(task.x, lambda: GCN(widths, op, residual=residual), before)

    found = {
        "MLP": _trained_whole(task.x, lambda: GCN([features, hidden, classes]), before),
        "GCN": gcn(operator),
        "GCN + residual": gcn(operator, True),
        "separate self weight": _trained_whole(
            task.x, lambda: DirectedGCN(widths, *pair), lambda net, value: _body(net, value)
        ),
        "decoupled, two layers": _trained_whole(
            task.x,
            lambda: DecoupledGCN(features, hidden, classes, operator, propagations=depth, transformations=2),
            before,
        ),
        "DGMLP, linear": _linear(task.x, combined, lambda f: GCN([f, classes])),
        "feature expansion": _linear(
            task.x, expanded, lambda f: FeatureExpansion(depth + 1, features, 0, hidden, classes)
        ),
        "scopes, linear": _linear(task.x, scoped, lambda f: GCN([f, classes])),
        "sheaf, diagonal": _trained_whole(
            task.x,
            lambda: SheafDiffusion(task.graph, features, hidden // 2, classes, layers=depth),
            lambda net, value: net.states(value)[-1].flatten(1),
        ),
    }
    if rewired:
        found["GCN, rewired"] = gcn(gcn_operator(rewire_parts(task.graph, rewired)))
    return found


def _body(net: Any, value: Tensor) -> Tensor:
    layers = net.layers
    net.layers = layers[:-1]
    try:
        return torch.relu(net(value)) if len(layers) > 1 else value
    finally:
        net.layers = layers


def rewire_parts(graph: sp.csr_array, count: int) -> sp.csr_array:
    """Add the edges of greedy total resistance to every component apart; equal components are solved once.

    Args:
        graph: Undirected.
        count: Edges for each component; fewer where there is no room.
    """
    _, component = csgraph.connected_components(graph, directed=False)
    order = np.argsort(component, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(component))[:-1])
    known: dict[bytes, np.ndarray] = {}
    extra = []
    for nodes in parts:
        block = as_csr(graph[nodes][:, nodes])
        room = (len(nodes) * (len(nodes) - 1) - block.nnz) // 2
        if room < 1:
            continue
        key = block.indptr.tobytes() + block.indices.tobytes()
        if key not in known:
            known[key] = gtr_edges(block, min(count, room)).edges
        extra.append(nodes[known[key]])
    edges = np.concatenate(extra) if extra else np.empty((0, 2), int)
    half = sp.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), graph.shape)
    return as_csr(graph + half + half.T)


def portrait_rows(
    name: str,
    task: NodeTask,
    depths: list[int],
    *,
    hidden: int,
    epochs: int,
    seeds: list[int],
    rewired: int,
    scope: int,
    targets: int,
    tuned_at: int,
    far: int = 3,
) -> pd.DataFrame:
    """Train every model at every depth and look into the trained network of the first split.

    Each model chooses among the same settings by validation accuracy once, split by split, at one of the depths, and
    keeps its choice at the others.

    Args:
        name: Name of the graph.
        task: The graph.
        depths: Depths.
        hidden: Hidden width.
        epochs: Training steps.
        seeds: One a split.
        rewired: As in :func:`portrait_models`.
        scope: As in :func:`portrait_models`.
        targets: Test nodes whose Jacobians are taken.
        tuned_at: The depth at which settings are chosen, one of ``depths``.
        far: Hops from which a node counts as far.

    Returns:
        One row a model and depth: accuracy over the splits, Dirichlet energy of the last representation, and the share
        of the logits' sensitivity that belongs to nodes ``far`` hops away or more. The network without a graph has one
        row.

    Raises:
        ValueError: For no targets, no hops, or a depth of tuning that is not one of the depths.
    """
    require(targets >= 1 and far >= 1, "at least one target and one hop", (targets, far))
    require(tuned_at in depths, f"a depth out of {depths}", tuned_at)
    chosen = torch.nonzero(task.test[0]).ravel()[:targets]
    hops = csgraph.dijkstra(task.graph, directed=False, unweighted=True, indices=chosen.numpy(), limit=far)
    distant = ~(hops < far)
    rows = []
    settings: dict[str, list[tuple[float, float]]] = {}
    for depth in [tuned_at, *(d for d in depths if d != tuned_at)]:
        for model, kit in portrait_models(task, depth, hidden=hidden, rewired=rewired, scope=scope).items():
            if model == "MLP" and depth != tuned_at:
                continue
            run = tune_nodes(
                kit.build,
                kit.inputs,
                task.y,
                task.masks,
                seeds=seeds,
                epochs=epochs,
                grid=PORTRAIT_GRID,
                settings=settings.get(model),
                every=5,
                clip_norm=1.0,
            )
            settings.setdefault(model, run.setting)
            net = run.model(0).eval()
            with torch.no_grad():
                state = kit.hidden(net)(task.x).numpy()
            norms = influence_from(kit.logits(net), task.x, chosen).numpy()
            mass = norms.sum(1)
            share = np.divide((norms * distant).sum(1), mass, out=np.zeros_like(mass), where=mass > 1e-12)
            rows.append(
                {
                    "graph": name,
                    "model": model,
                    "depth": depth,
                    "accuracy": float(run.test.mean()),
                    "half width": float(1.96 * run.test.std() / max(len(seeds), 1) ** 0.5) if len(seeds) > 1 else 0.0,
                    "energy": dirichlet_energy(task.graph, state),
                    "far share": float(share.mean()),
                }
            )
    return pd.DataFrame(rows).sort_values("depth", kind="stable", ignore_index=True)
