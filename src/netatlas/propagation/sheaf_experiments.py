"""Experiments on sheaf diffusion: what limits can separate, and learned sheaves beside the trivial one."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data

from netatlas.core.checks import require
from netatlas.core.graph_operators import sheaf_laplacian, undirected_edges
from netatlas.core.message_passing import GCN, gcn_operator
from netatlas.propagation.sheaf import SheafDiffusion, class_sheaf, harmonic_projection, separable_classes
from netatlas.propagation.tuning import NodeTask, TunedNodes, tune_nodes

#: Stalk dimension of each sheaf, given the number of classes.
STALKS = {"trivial": 1, "weighted": 1, "signed": 1, "rotation": 2, "diagonal": None, "projection": None}


def heterophilous_graph(nodes: int, classes: int, homophily: float, *, mean_degree: float, seed: int) -> nx.Graph:
    """A connected random graph in which edges join nodes of one class with a given probability.

    Args:
        nodes: Number of nodes; node ``v`` has class ``v % classes``.
        classes: Number of classes.
        homophily: Expected share of edges inside classes.
        mean_degree: Expected degree.
        seed: Draws the graph; graphs that are not connected are drawn again.

    Raises:
        ValueError: For a share outside [0, 1], or no connected graph in 200 draws.

    Source: bodnar2022sheaf.
    """
    require(0 <= homophily <= 1, "a share in [0, 1]", homophily)
    rng = np.random.default_rng(seed)
    y = np.arange(nodes) % classes
    u, v = np.triu_indices(nodes, 1)
    same = y[u] == y[v]
    edges = mean_degree * nodes / 2
    chance = np.where(same, homophily * edges / max(same.sum(), 1), (1 - homophily) * edges / (~same).sum())
    for _ in range(200):
        kept = rng.random(len(u)) < chance
        graph = nx.Graph()
        graph.add_nodes_from(range(nodes))
        graph.add_edges_from(zip(u[kept].tolist(), v[kept].tolist()))
        if nx.is_connected(graph):
            return graph
    raise ValueError(f"expected a connected graph in 200 draws, got none of mean degree {mean_degree}")


def separation_table(
    classes: list[int], *, nodes: int, graphs: int, starts: int, channels: int, seed: int, homophily: float = 0.1
) -> pd.DataFrame:
    """How often the limit of diffusion separates the classes, for every sheaf with known classes.

    Args:
        classes: Numbers of classes.
        nodes: Nodes of each graph.
        graphs: Graphs a number of classes.
        starts: Random starts a graph.
        channels: Channels of the start.
        seed: Draws graphs and starts.
        homophily: Share of edges inside classes.

    Returns:
        One row a sheaf and number of classes: share of draws in which every class is separated, the same for permuted
        labels, smallest and largest dimension of the kernel, and largest rank of the limit.

    Source: bodnar2022sheaf.
    """
    rows = []
    for count in classes:
        for kind, stalk in STALKS.items():
            d = count if stalk is None else stalk
            hits, null, kernels, ranks = [], [], [], []
            for k in range(graphs):
                rng = np.random.default_rng([seed, count, k])
                graph = heterophilous_graph(nodes, count, homophily, mean_degree=6, seed=int(rng.integers(2**31)))
                y = np.arange(nodes) % count
                laplacian = sheaf_laplacian(class_sheaf(undirected_edges(graph), y, kind), "block")
                for _ in range(starts):
                    limit, kernel = harmonic_projection(laplacian, rng.standard_normal((nodes * d, channels)))
                    flat = limit.reshape(nodes, d * channels)
                    hits.append(separable_classes(flat, y).all())
                    null.append(separable_classes(flat, rng.permutation(y)).all())
                    kernels.append(kernel)
                    ranks.append(np.linalg.matrix_rank(limit, tol=1e-8 * np.abs(limit).max()))
            rows.append(
                {
                    "classes": count,
                    "sheaf": kind,
                    "separated": np.mean(hits),
                    "permuted labels": np.mean(null),
                    "least kernel": min(kernels),
                    "largest kernel": max(kernels),
                    "largest rank": max(ranks),
                }
            )
    return pd.DataFrame(rows)


def noisy_heterophily(nodes: int, classes: int, homophily: float, *, features: int, signal: float, seed: int) -> Data:
    """A random graph of given homophily with weak features, for learned sheaves.

    Args:
        nodes: Number of nodes.
        classes: Number of classes.
        homophily: Expected share of edges inside classes.
        features: Number of features.
        signal: Standard deviation of the class means; the noise has 1.
        seed: Draws graph and features.

    Source: bodnar2022sheaf.
    """
    graph = heterophilous_graph(nodes, classes, homophily, mean_degree=8, seed=seed)
    rng = np.random.default_rng([seed, 1])
    y = np.arange(nodes) % classes
    x = signal * rng.standard_normal((classes, features))[y] + rng.standard_normal((nodes, features))
    edges = undirected_edges(graph)
    both = np.concatenate([edges, edges[::-1]], axis=1)
    return Data(
        x=torch.from_numpy(x).float(),
        y=torch.from_numpy(y),
        edge_index=torch.from_numpy(both[:, np.lexsort(both[::-1])]),
        num_nodes=nodes,
    )


SHEAF_GRID = ((0.01, 5e-4), (0.03, 5e-4))


def sheaf_arms(
    task: NodeTask,
    arms: list[str],
    *,
    layers: int,
    width: int,
    epochs: int,
    seeds: list[int],
    stalk: int = 2,
    dropout: float = 0.0,
) -> dict[str, TunedNodes]:
    """Train sheaf networks and baselines of the same width with the same settings to choose from.

    Arms: ``trivial``, ``diagonal``, ``orthogonal``, ``general`` (sheaves), ``GCN``, ``GCN residual``, ``MLP``.

    Args:
        task: Graph, features, labels, splits.
        arms: Names of the arms.
        layers: Layers of propagation.
        width: Channels of a stalk dimension; baselines have ``stalk * width``.
        epochs: Training steps.
        seeds: One a split.
        stalk: Stalk dimension.
        dropout: Share of entries dropped, in every arm.

    Source: bodnar2022sheaf.
    """
    features, classes = task.x.shape[1], task.classes
    operator = gcn_operator(task.graph)
    found = {}
    for arm in arms:
        if arm in ("GCN", "GCN residual", "MLP"):
            widths = [features, *[stalk * width] * layers, classes]
            used = None if arm == "MLP" else operator

            def build(w=widths, o=used, r=arm != "GCN") -> torch.nn.Module:
                return GCN(w, o, residual=r, dropout=dropout)

        else:

            def build(a=arm) -> torch.nn.Module:
                return SheafDiffusion(
                    task.graph, features, width, classes, layers=layers, stalk=stalk, maps=a, dropout=dropout
                )

        found[arm] = tune_nodes(
            build, task.x, task.y, task.masks, seeds=seeds, epochs=epochs, grid=SHEAF_GRID, every=5, clip_norm=1.0
        )
    return found


def best_sheaf(found: dict[str, TunedNodes]) -> np.ndarray:
    """Test accuracy of the learned sheaf that the validation nodes of each split choose.

    Args:
        found: From :func:`sheaf_arms`, with the three learned sheaves.

    Source: bodnar2022sheaf.
    """
    kinds = [k for k in ("diagonal", "orthogonal", "general") if k in found]
    held = torch.stack([found[k].validation for k in kinds])
    test = torch.stack([found[k].test for k in kinds])
    return test[held.argmax(0), torch.arange(test.shape[1])].numpy()


def mean_accuracy(found: dict[str, TunedNodes]) -> dict[str, float]:
    """Mean test accuracy of every arm.

    Args:
        found: From :func:`sheaf_arms`.
    """
    return {name: float(run.test.mean()) for name, run in found.items()}
