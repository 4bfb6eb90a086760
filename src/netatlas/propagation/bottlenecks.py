"""Graphs on which information must travel far: rings, cliques at the end of a path, barbells, dumbbells."""

from __future__ import annotations

import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Data

from netatlas.core.checks import require


def _data(graph: nx.Graph, source: int, target: int) -> Data:
    pairs = np.array(graph.edges, dtype=np.int64).reshape(-1, 2).T
    both = np.concatenate([pairs, pairs[::-1]], axis=1)
    both = both[:, np.lexsort(both[::-1])]
    return Data(edge_index=torch.from_numpy(both), num_nodes=graph.number_of_nodes(), source=source, target=target)


def ring(distance: int) -> Data:
    r"""A ring of :math:`2 r` nodes with source and target opposite each other, at distance :math:`r`.

    Args:
        distance: :math:`r`, at least 1; 1 is a single edge.

    Raises:
        ValueError: For a distance below 1.

    Source: digiovanni2023oversquashing.
    """
    require(distance >= 1, "a distance of at least 1", distance)
    return _data(nx.cycle_graph(2 * distance), 0, distance)


def crossed_ring(distance: int) -> Data:
    r"""A ring of :math:`2 r` nodes whose two arms are joined by crossing edges; source and target stay at distance r.

    Node 0 is the source and node :math:`r` the target; nodes :math:`i` and :math:`2 r - i` face each other, and edges
    :math:`\{i, 2 r - 1 - i\}` and :math:`\{i, 2 r + 1 - i\}` cross between the arms. The resistance between source and
    target is :math:`(r + 2) / 4` with :math:`4 r - 4` edges.

    Args:
        distance: :math:`r`, at least 3.

    Raises:
        ValueError: For a distance below 3.

    Source: digiovanni2023oversquashing; the edges are ours, as the text does not list them.
    """
    require(distance >= 3, "a distance of at least 3", distance)
    n = 2 * distance
    graph = nx.cycle_graph(n)
    graph.add_edges_from((i, n - 1 - i) for i in range(1, distance - 1))
    graph.add_edges_from((i, n + 1 - i) for i in range(2, distance))
    return _data(graph, 0, distance)


def clique_path(distance: int) -> Data:
    r"""A clique of :math:`r` nodes holding the source, and a path from it to the target at distance :math:`r`.

    Like the ring it has :math:`2 r` nodes; one node of the path lies behind the target.

    Args:
        distance: :math:`r`, at least 2.

    Raises:
        ValueError: For a distance below 2.

    Source: digiovanni2023oversquashing.
    """
    require(distance >= 2, "a distance of at least 2", distance)
    graph = nx.complete_graph(distance)
    # One step inside the clique to the gate, the others along the path, whose last node lies behind the target.
    nx.add_path(graph, range(distance - 1, 2 * distance))
    return _data(graph, 0, 2 * distance - 2)


def dumbbell(clique: int, path: int) -> Data:
    """Two cliques joined by a path; source and target are inner nodes of either.

    Args:
        clique: Nodes of each clique, at least 3.
        path: Nodes between the cliques, at least 0; source and target are ``path + 3`` hops apart.

    Raises:
        ValueError: For cliques below 3 nodes or a negative path.

    Source: black2023resistance.
    """
    require(clique >= 3 and path >= 0, "cliques of at least 3 nodes and a path of at least 0", (clique, path))
    return _data(nx.barbell_graph(clique, path), 0, 2 * clique + path - 1)
