r"""What colour refinement leaves to be desired on a data set: identifiability, the accuracy bound, true isomorphism."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Int

from netatlas.core.checks import require
from netatlas.core.graph_invariants import (
    GraphCollection,
    Refinement,
    collect_graphs,
    colour_refinement,
    folklore_refinement,
)


class Identifiability(NamedTuple):
    """How far a descriptor tells the graphs of a set apart.

    Attributes:
        classes: Number of different descriptors.
        graphs: Number of isomorphism classes, the most that any descriptor can have.
        share: Ratio of the two.
        alone: Share of the isomorphism classes that have their descriptor for themselves.
    """

    classes: int
    graphs: int
    share: float
    alone: float


def identifiability(descriptor: Int[np.ndarray, " G"], isomorphism: Int[np.ndarray, " G"]) -> Identifiability:
    r"""Number of descriptors over number of isomorphism classes.

    .. math:: I = \frac{|\{D(G)\}|}{|\{[G]\}|}

    Args:
        descriptor: Class of each graph by the descriptor, one for isomorphic graphs.
        isomorphism: Isomorphism class of each graph.

    Raises:
        ValueError: For no graph, lengths that differ, or a descriptor that splits an isomorphism class.

    Source: zopf2022wl.
    """
    descriptor, isomorphism = np.asarray(descriptor), np.asarray(isomorphism)
    require(descriptor.ndim == 1 and len(descriptor) > 0, "at least one graph", descriptor.shape)
    require(
        descriptor.shape == isomorphism.shape, "one class of each kind a graph", (descriptor.shape, isomorphism.shape)
    )
    pairs = np.unique(np.stack([descriptor, isomorphism]), axis=1)
    total = len(np.unique(isomorphism))
    require(pairs.shape[1] == total, "a descriptor that is equal on isomorphic graphs", "one that is not")
    _, counts = np.unique(pairs[0], return_counts=True)
    return Identifiability(len(counts), total, len(counts) / total, float((counts == 1).sum() / total))


def accuracy_bound(descriptor: Int[np.ndarray, " G"], labels: Int[np.ndarray, " G"]) -> float:
    r"""The best training accuracy of any function of a descriptor: a majority vote in each class.

    .. math:: U = \frac1N \sum_{D} \max_y |\{G : D(G) = D,\ y(G) = y\}|

    Args:
        descriptor: Class of each graph.
        labels: Label of each graph.

    Raises:
        ValueError: For no graph or lengths that differ.

    Source: zopf2022wl.
    """
    descriptor, labels = np.asarray(descriptor).ravel(), np.asarray(labels).ravel()
    require(
        len(descriptor) > 0 and len(descriptor) == len(labels), "as many labels as graphs, at least one", len(labels)
    )
    cells, counts = np.unique(np.stack([descriptor, labels]), axis=1, return_counts=True)
    order = np.lexsort((-counts, cells[0]))
    first = np.unique(cells[0][order], return_index=True)[1]
    return float(counts[order][first].sum() / len(descriptor))


def isomorphism_classes(
    graphs: Iterable[Any] | GraphCollection, refinement: Refinement | None = None, *, node_labels: bool = True,
    edge_labels: bool = True,
) -> Int[np.ndarray, " G"]:  # fmt: skip
    """Class of each graph up to isomorphism that keeps labels: colour refinement first, VF2 within its classes.

    Where refinement leaves several small graphs in a class, 2-FWL splits it before, and VF2 may only map nodes of equal
    colour onto each other.

    Args:
        graphs: A collection, or graphs that :func:`~netatlas.core.graph_invariants.collect_graphs` takes.
        refinement: Its stable refinement, if known.
        node_labels: Whether node features must agree.
        edge_labels: Whether edge features must agree.

    Returns:
        ``[G]`` int64, numbered in order of first occurrence.

    Raises:
        ValueError: For a bad graph, or a refinement that is not stable.

    Source: zopf2022wl.
    """
    many = collect_graphs(graphs, node_labels=node_labels, edge_labels=edge_labels)
    refinement = colour_refinement(many) if refinement is None else refinement
    require(refinement.stable, "a stable refinement", "one that was cut short")
    colours, classes = refinement.at(), refinement.classes()
    found = np.full(many.num_graphs, -1, dtype=np.int64)
    fresh = 0
    for members in np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1]):
        finer, own = _finer(many, colours, members)
        if len(members) == 1:
            found[members[0]], fresh = fresh, fresh + 1
            continue
        kinds: list[tuple[int, int, nx.DiGraph]] = []
        seen: dict[tuple[int, bytes], int] = {}
        for i, kind, colour in zip(members, finer, own):
            # Equal edge lists, nodes being in order of their colours, are an isomorphism; unequal ones decide nothing.
            listed = (int(kind), _edge_list(many, colour, int(i)))
            if listed in seen:
                found[i] = seen[listed]
                continue
            graph = _as_networkx(many, colour, int(i))
            match = next((k for k, other, g in kinds if other == kind and _isomorphic(graph, g)), None)
            if match is None:
                match, fresh = fresh, fresh + 1
                kinds.append((match, kind, graph))
            found[i] = seen[listed] = match
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.reshape(-1)]


def _finer(many: GraphCollection, colours: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Classes and node colours of graphs that colour refinement cannot tell apart: by 2-FWL where there are several."""
    starts, ends = many.offsets[members], many.offsets[members + 1]
    own = [colours[a:b] for a, b in zip(starts, ends)]
    n = int(ends[0] - starts[0])
    if len(members) < 4 or n > 60:
        return np.zeros(len(members), dtype=np.int64), own
    nodes = (starts[:, None] + np.arange(n)).ravel()
    edges = np.concatenate([np.arange(many.indptr[a], many.indptr[b]) for a, b in zip(starts, ends)])
    new = np.full(len(colours), -1, dtype=np.int64)
    new[nodes] = np.arange(len(nodes))
    counts = np.diff(many.indptr)[nodes]
    part = GraphCollection(
        np.concatenate([[0], np.cumsum(counts)]), new[many.indices[edges]], many.edge_labels[edges], colours[nodes],
        np.arange(len(members) + 1) * n,
    )  # fmt: skip
    refined = folklore_refinement(part)
    return refined.classes(), list(refined.at().reshape(len(members), n, n).diagonal(axis1=1, axis2=2))


def _edge_list(many: GraphCollection, colours: np.ndarray, index: int) -> bytes:
    """Colours, edges and labels of a graph whose nodes are numbered in order of colour."""
    start, end = int(many.offsets[index]), int(many.offsets[index + 1])
    order = np.argsort(colours, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    own = slice(many.indptr[start], many.indptr[end])
    receivers = np.repeat(place, np.diff(many.indptr[start : end + 1]))
    senders, labels = place[many.indices[own] - start], many.edge_labels[own]
    listed = np.lexsort((labels, senders, receivers))
    return np.concatenate([colours[order], receivers[listed], senders[listed], labels[listed]]).tobytes()


def _as_networkx(many: GraphCollection, colours: np.ndarray, index: int) -> nx.DiGraph:
    start, end = int(many.offsets[index]), int(many.offsets[index + 1])
    graph = nx.DiGraph()
    graph.add_nodes_from((v, {"c": int(c)}) for v, c in enumerate(colours))
    own = slice(many.indptr[start], many.indptr[end])
    receivers = np.repeat(np.arange(start, end), np.diff(many.indptr[start : end + 1])) - start
    bundles: dict[tuple[int, int], list[int]] = {}
    for u, v, label in zip((many.indices[own] - start).tolist(), receivers.tolist(), many.edge_labels[own].tolist()):
        bundles.setdefault((u, v), []).append(label)
    graph.add_edges_from((u, v, {"e": tuple(sorted(labels))}) for (u, v), labels in bundles.items())
    return graph


def _isomorphic(first: nx.DiGraph, second: nx.DiGraph) -> bool:
    return nx.is_isomorphic(first, second, node_match=lambda a, b: a == b, edge_match=lambda a, b: a == b)
