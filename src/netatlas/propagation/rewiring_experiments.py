"""Experiments on effective resistance: rewiring, influence beside resistance, and a task across a bottleneck."""

from __future__ import annotations

from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import pandas as pd
import torch
from scipy.sparse import csgraph
from torch import Tensor, nn

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.message_passing import SparseOperator
from netatlas.core.resistance import effective_resistance, laplacian_pinv, total_resistance
from netatlas.core.train import fit_many
from netatlas.propagation.bottlenecks import dumbbell
from netatlas.propagation.rewiring import (
    RelationalNetwork,
    curvature_edges,
    fosr_edges,
    gtr_edges,
    marked_tokens,
    random_edges,
    resistance_gain,
    rewired_adjacency,
)
from netatlas.propagation.sensitivity import influence, partial_spearman


def rewiring_totals(graphs: dict[str, Any], count: int, *, draws: int, seed: int) -> pd.DataFrame:
    """Total resistance before and after some edges of every method.

    Args:
        graphs: Graphs by name.
        count: Added edges.
        draws: Draws of random edges, averaged.
        seed: First seed of the draws.

    Source: black2023resistance.
    """
    rows = {}
    for name, graph in graphs.items():
        rows[name] = {
            "before": total_resistance(graph),
            "GTR": gtr_edges(graph, count).total[-1],
            "FoSR": fosr_edges(graph, count).total[-1],
            "curvature": curvature_edges(graph, count).total[-1],
            "random": np.mean([random_edges(graph, count, seed=seed + k).total[-1] for k in range(draws)]),
        }
    return pd.DataFrame(rows).T


class ResistanceChecks(NamedTuple):
    """Relative errors of three identities.

    Attributes:
        update: Fall of the total resistance by the formula, against a new pseudo-inverse.
        exhaustive: Best first edge by the formula, against all edges tried.
        foster: Sum of the edges' resistances, against the number of nodes minus one.
    """

    update: float
    exhaustive: float
    foster: float


def resistance_checks(graph: nx.Graph) -> ResistanceChecks:
    """Check the identities on one small graph without weights.

    Args:
        graph: Connected.

    Source: black2023resistance.
    """
    pinv, before = laplacian_pinv(graph), total_resistance(graph)
    gain = resistance_gain(pinv)
    falls = {e: before - total_resistance(nx.Graph([*graph.edges, e])) for e in nx.non_edges(graph)}
    update = max(abs(gain[e] - fall) / fall for e, fall in falls.items())
    chosen = tuple(gtr_edges(graph, 1).edges[0])
    best = max(falls.values())
    r = effective_resistance(graph)
    foster = sum(r[e] for e in graph.edges)
    return ResistanceChecks(update, abs(gain[chosen] - best) / best, abs(foster / (len(graph) - 1) - 1))


class RandomNetwork(nn.Module):
    """A random GCN with tanh and a fixed width, for the sensitivity of untrained networks.

    Args:
        operator: The propagation.
        width: Width of every layer.
        layers: Number of layers.
        generator: Draws the weights, normal with variance one over the width.
    """

    def __init__(self, operator: SparseOperator, width: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.operator = operator
        weights = torch.randn(layers, width, width, generator=generator, dtype=torch.float64) / width**0.5
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        """Features after the last layer."""
        for weight in self.weights:
            x = torch.tanh(self.operator(x @ weight))
        return x


def influence_correlations(
    graphs: dict[str, list[Any]], *, layers: int, width: int, draws: int, seed: int
) -> pd.DataFrame:
    """Rank correlation of measured influence with effective resistance over pairs of equal distance.

    Args:
        graphs: Connected graphs by kind.
        layers: Layers of the random networks.
        width: Their width.
        draws: Networks a graph; their influence is averaged.
        seed: Draws networks and the null.

    Returns:
        One row a graph and distance of 20 pairs or more with resistances that differ: ``plain``, ``partial`` (given
        the product of degrees) and ``null`` (resistances permuted among the pairs).

    Source: black2023resistance.
    """
    rows = []
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    for kind, members in graphs.items():
        for number, graph in enumerate(members):
            matrix = as_csr(graph)
            n = matrix.shape[0]
            operator = SparseOperator(normalized_adjacency(matrix, "sym", self_loops=True))
            norms = np.zeros((n, n))
            for _ in range(draws):
                net = RandomNetwork(operator, width, layers, generator)
                x = torch.randn(n, width, generator=generator, dtype=torch.float64)
                norms += influence(net, x).numpy() / draws
            norms = (norms + norms.T) / 2
            resistance, hops = effective_resistance(matrix), csgraph.shortest_path(matrix, unweighted=True)
            degree = matrix.sum(1)
            upper = np.triu(np.ones((n, n), bool), 1) & (hops <= layers)
            for distance in range(1, layers + 1):
                pairs = np.nonzero(upper & (hops == distance))
                r = np.round(resistance[pairs], 9)
                if len(r) < 20 or np.ptp(r) == 0:
                    continue
                j, d = norms[pairs], np.round(degree[pairs[0]] * degree[pairs[1]], 9)
                flat = np.ones(len(r))
                rows.append(
                    {
                        "kind": kind,
                        "graph": number,
                        "distance": distance,
                        "plain": partial_spearman(j, r, flat),
                        "partial": partial_spearman(j, r, d),
                        "null": partial_spearman(j, rng.permutation(r), flat),
                    }
                )
    return pd.DataFrame(rows)


def graph_means(rows: pd.DataFrame, column: str, least: int) -> np.ndarray:
    """Mean over the distances from ``least`` on, one value a graph.

    Args:
        rows: From :func:`influence_correlations`.
        column: Which correlation.
        least: Smallest distance.
    """
    kept = rows[rows.distance >= least].dropna(subset=[column])
    return kept.groupby(["kind", "graph"])[column].mean().to_numpy()


def bootstrap_upper(values: np.ndarray, *, draws: int = 2000, level: float = 0.975, seed: int = 0) -> float:
    """Upper end of a bootstrap interval for a mean.

    Args:
        values: One value a unit.
        draws: Resamples.
        level: Quantile.
        seed: Draws them.
    """
    rng = np.random.default_rng(seed)
    return float(np.quantile(rng.choice(values, (draws, len(values))).mean(1), level))


class BottleneckRun(NamedTuple):
    """Accuracy of each arm across the bottleneck.

    Attributes:
        test: Test accuracy, one value a seed (random edges: the mean over the draws).
        train: Training accuracy, likewise.
        resistance: Resistance between source and target after rewiring.
    """

    test: dict[str, np.ndarray]
    train: dict[str, np.ndarray]
    resistance: dict[str, float]


def bottleneck_run(
    arms: dict[str, tuple[str, int, int]],
    *,
    clique: int,
    path: int,
    layers: int,
    width: int,
    draws: int,
    epochs: int,
    seeds: list[int],
    lrs: tuple[float, float] = (0.003, 0.01),
) -> BottleneckRun:
    """Train relational networks to carry a token across a dumbbell, with and without added edges.

    Args:
        arms: By name, the method (``"none"``, ``"gtr"``, ``"fosr"`` or ``"random"``), its edges, and draws a seed.
        clique: Nodes of each clique.
        path: Nodes between them.
        layers: Layers.
        width: Width.
        draws: Training draws; as many for validation and for the test.
        epochs: Passes over them.
        seeds: Seeds of weights and random edges.
        lrs: Learning rates; each member takes the one with the better validation accuracy.

    Source: black2023resistance.
    """
    graph = dumbbell(clique, path)
    n, source, target = graph.num_nodes, graph.source, graph.target
    plain = as_csr(graph).toarray()
    x, y = marked_tokens(n, source, target, 3 * draws, seed=seeds[0])
    test, train, resistance = {}, {}, {}
    for name, (method, count, repeats) in arms.items():
        networks, members, ends = [], [], []
        for seed in seeds:
            for k in range(repeats):
                if method == "random":
                    edges = random_edges(graph, count, seed=1000 * seed + k).edges
                else:
                    edges = {"none": lambda *_: np.empty((0, 2), int), "gtr": _gtr, "fosr": _fosr}[method](graph, count)
                whole = rewired_adjacency(graph, edges)
                ends.append(effective_resistance(whole, np.array([[source, target]]))[0])
                for _ in lrs:
                    networks.append((torch.from_numpy(plain), torch.from_numpy(whole - plain)))
                    members.append(seed)
        stock = iter(networks)
        fitted = fit_many(
            lambda stock=stock: RelationalNetwork(*next(stock), x.shape[-1], width, layers, 4, target),
            x[:draws],
            y[:draws],
            seeds=members,
            epochs=epochs,
            batch_size=max(draws // 4, 1),
            optimizer="adam",
            lr=torch.tensor(lrs).repeat(len(members) // len(lrs)),
            clip_norm=1.0,
        )
        right = (fitted.predict(x).argmax(-1) == y).double().reshape(len(seeds) * repeats, len(lrs), 3, draws).mean(-1)
        best = right[:, :, 1].argmax(1)
        chosen = right[torch.arange(len(best)), best].reshape(len(seeds), repeats, 3).mean(1)
        test[name], train[name] = chosen[:, 2].numpy(), chosen[:, 0].numpy()
        resistance[name] = float(np.mean(ends))
    return BottleneckRun(test, train, resistance)


def _gtr(graph: Any, count: int) -> np.ndarray:
    return gtr_edges(graph, count).edges


def _fosr(graph: Any, count: int) -> np.ndarray:
    return fosr_edges(graph, count).edges


def sample_graphs(molecules: list[Any], count: int, *, nodes: int, seed: int) -> dict[str, list[Any]]:
    """Molecules and random graphs for :func:`influence_correlations`.

    Args:
        molecules: PyG ``Data``; connected ones of 14 nodes or more are taken, first come.
        count: Graphs of each kind.
        nodes: Nodes of the random graphs.
        seed: Draws them.
    """
    wide = [g for g in molecules if len(g.x) >= 14 and csgraph.connected_components(as_csr(g))[0] == 1][:count]
    half = (count + 1) // 2
    return {
        "molecules": wide,
        "small worlds": [nx.connected_watts_strogatz_graph(nodes, 4, 0.2, seed=seed + k) for k in range(half)],
        "scale-free": [nx.barabasi_albert_graph(nodes, 2, seed=seed + k) for k in range(count - half)],
    }
