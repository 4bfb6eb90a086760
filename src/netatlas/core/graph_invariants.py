r"""Invariants of graphs: colour refinement, folklore refinement of pairs and triples, homomorphism and subgraph counts.

All graphs of a call share one palette: equal colours mean equal refinements within that call, and colours of different
calls must not be compared. Colours are ranks of 64-bit hashes, and every hash is checked against the multiset that it
stands for, so that a collision is repaired and never seen.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import networkx as nx
import numba
import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite


class GraphCollection(NamedTuple):
    """Graphs as one disjoint union, rows of the compressed sparse matrix being the receiving nodes.

    Attributes:
        indptr: Start of each node's incoming edges, ``[N + 1]`` int64.
        indices: Sending node of each edge, ``[E]`` int64.
        edge_labels: Label of each edge, ``[E]`` int64.
        node_labels: Label of each node, ``[N]`` int64.
        offsets: First node of each graph, ``[G + 1]`` int64.
    """

    indptr: np.ndarray
    indices: np.ndarray
    edge_labels: np.ndarray
    node_labels: np.ndarray
    offsets: np.ndarray

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.offsets) - 1

    @property
    def graph(self) -> np.ndarray:
        """Graph of each node, ``[N]`` int64."""
        return np.repeat(np.arange(self.num_graphs), np.diff(self.offsets))


@dataclass(frozen=True)
class Refinement:
    """The rounds of a colour refinement.

    Attributes:
        colours: Colour of each node (or tuple) after each round, ``[T + 1, N]`` int64, shared by all graphs.
        stable: Whether the last round's partition is stable: further rounds would not refine it.
        owner: Graph of each node (or tuple), ``[N]``.
        num_graphs: Number of graphs.
    """

    colours: np.ndarray
    stable: bool
    owner: np.ndarray
    num_graphs: int

    def at(self, rounds: int | None = None) -> np.ndarray:
        """Colours after a number of rounds; ``None``, or more rounds than were needed, gives the last.

        Raises:
            ValueError: For a negative number, or one beyond the last round of a refinement that was cut short.
        """
        last = len(self.colours) - 1
        if rounds is None:
            return self.colours[last]
        require(rounds >= 0, "a non-negative number of rounds", rounds)
        require(rounds <= last or self.stable, f"at most {last} rounds, which were computed", rounds)
        return self.colours[min(rounds, last)]

    def classes(self, rounds: int | None = None) -> np.ndarray:
        """Class of each graph by the multiset of its colours after a number of rounds, ``[G]`` int64."""
        return multiset_classes(self.at(rounds), self.owner, self.num_graphs)


def _labels(values: Any, count: int, what: str) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    require(array.ndim >= 1 and len(array) == count, f"one {what} label for each of {count}", array.shape)
    require_finite(f"{what} labels", array)
    return array.reshape(count, -1)


def _edges_of(graph: Any) -> tuple[np.ndarray, int, Any, Any]:
    """Edges [2, E], number of nodes, node labels and edge labels of one graph in any of the usual forms."""
    if isinstance(graph, nx.Graph):
        place = {node: i for i, node in enumerate(graph)}
        pairs = np.array([[place[u], place[v]] for u, v in graph.edges()], dtype=np.int64).reshape(-1, 2).T
        if not graph.is_directed():
            loops = pairs[0] == pairs[1]
            pairs = np.concatenate([pairs, pairs[::-1, ~loops]], axis=1)
        return pairs, len(graph), None, None
    if hasattr(graph, "edge_index"):
        edges = graph.edge_index.detach().cpu().numpy()
        return edges, graph.num_nodes, getattr(graph, "x", None), getattr(graph, "edge_attr", None)
    if isinstance(graph, Tensor) and not graph.is_floating_point() and graph.ndim == 2 and graph.shape[0] == 2:
        edges = graph.cpu().numpy()
        return edges, int(edges.max()) + 1 if edges.size else 0, None, None
    matrix = graph if sp.issparse(graph) else np.asarray(graph.cpu() if isinstance(graph, Tensor) else graph)
    require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "a square adjacency matrix", matrix.shape)
    coo = sp.coo_array(matrix)
    require_finite("adjacency", coo.data)
    values = None if coo.nnz == 0 or (coo.data == 1).all() else coo.data
    return np.stack([coo.row, coo.col]).astype(np.int64), coo.shape[0], None, values


def collect_graphs(
    graphs: Iterable[Any] | GraphCollection, *, node_labels: bool = True, edge_labels: bool = True
) -> GraphCollection:
    """Lay graphs side by side as one disjoint union with integer labels that all graphs share.

    Args:
        graphs: PyG ``Data`` (``x`` and ``edge_attr`` are labels, one row each), networkx graphs, ``edge_index``
            tensors, or adjacency matrices, dense or sparse (entries other than 1 are edge labels). Parallel edges
            count with their multiplicity, a self-loop makes a node its own neighbour, and of a directed graph a node
            sees the senders of its incoming edges.
        node_labels: Whether to use the node features; otherwise all nodes look alike.
        edge_labels: Whether to use the edge features.

    Returns:
        The collection.

    Raises:
        ValueError: For no graph, a graph without nodes, a node index out of range, labels of the wrong number or that
            are NaN, or graphs of which only some have labels.
    """
    if isinstance(graphs, GraphCollection):
        return graphs
    parts = [_edges_of(graph) for graph in graphs]
    require(len(parts) > 0, "at least one graph", 0)
    for edges, nodes, _, _ in parts:
        require(nodes is not None and nodes > 0, "graphs with at least one node", nodes)
        require(edges.ndim == 2 and edges.shape[0] == 2, "edge_index of shape [2, E]", edges.shape)
        bad = edges.size and (edges.min() < 0 or edges.max() >= nodes)
        require(not bad, f"node indices in [0, {nodes})", (int(edges.min()), int(edges.max())) if bad else "")
    offsets = np.concatenate([[0], np.cumsum([nodes for _, nodes, _, _ in parts])]).astype(np.int64)
    edges = np.concatenate([e + start for (e, _, _, _), start in zip(parts, offsets)], axis=1).astype(np.int64)
    order = np.lexsort((edges[0], edges[1]))
    sizes = [(e.shape[1], nodes) for e, nodes, _, _ in parts]
    of_nodes = _shared_labels([p[2] for p in parts] if node_labels else [None], [n for _, n in sizes], "node")
    of_edges = _shared_labels([p[3] for p in parts] if edge_labels else [None], [e for e, _ in sizes], "edge")
    counts = np.bincount(edges[1], minlength=offsets[-1])
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return GraphCollection(indptr, edges[0][order], of_edges[order], of_nodes, offsets)


def _shared_labels(values: Sequence[Any], sizes: Sequence[int], what: str) -> np.ndarray:
    given = [v is not None for v, size in zip(values, sizes) if size]
    if not any(given):
        return np.zeros(sum(sizes), dtype=np.int64)
    if what == "edge" and not all(given):
        # Matrices of zeros and ones carry no edge labels: beside labelled ones theirs is 1.
        values = [np.ones(size) if v is None else v for v, size in zip(values, sizes)]
    else:
        require(all(given), f"{what} labels on all graphs or on none", f"{sum(given)} of {len(given)} graphs")
    rows = [_labels(v, size, what) for v, size in zip(values, sizes) if size]
    widths = {row.shape[1] for row in rows}
    require(len(widths) == 1, f"{what} labels of one width", sorted(widths))
    return _row_ids(np.concatenate(rows))


def _row_ids(table: np.ndarray) -> np.ndarray:
    """Equal numbers for equal rows; hashed, and checked row by row."""
    # Adding zero turns -0.0 into 0.0, which must be equal words as well.
    words = np.ascontiguousarray(table.astype(np.float64) + 0.0).view(np.uint64)
    for seed in range(8):
        odd = np.random.default_rng(seed).integers(0, 1 << 63, size=table.shape[1], dtype=np.uint64) * 2 + 1
        hashes = ((words ^ words >> np.uint64(32)) * odd).sum(1, dtype=np.uint64)
        ids, first = _ranks(hashes)
        if np.array_equal(words[first][ids], words):
            return ids
    return np.unique(table, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


@numba.njit(cache=True, inline="always")
def _mix(x):
    """The finalizer of splitmix64: a bijection of 64-bit words that scatters neighbours."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True)
def _neighbour_hashes(indptr, indices, edge_labels, colours, palette, salt):
    table = np.empty(palette, np.uint64)
    for c in range(palette):
        table[c] = _mix(np.uint64(c) ^ salt)
    labelled = len(edge_labels) > 0 and edge_labels.max() > 0
    found = np.empty(len(colours), np.uint64)
    for v in range(len(colours)):
        total = np.uint64(0)
        for k in range(indptr[v], indptr[v + 1]):
            word = table[colours[indices[k]]]
            if labelled:
                word = _mix(word + np.uint64(edge_labels[k]))
            total += word
        found[v] = _mix(total) + _mix(table[colours[v]] + np.uint64(1))
    return found


@numba.njit(cache=True)
def _sorted_keys(indptr, indices, edge_labels, colours, palette):
    """(edge label, colour) of the neighbours of every node, sorted within the node."""
    keys = np.empty(len(indices), np.int64)
    for v in range(len(colours)):
        start, end = indptr[v], indptr[v + 1]
        for k in range(start, end):
            keys[k] = edge_labels[k] * palette + colours[indices[k]]
        if end - start > 24:
            keys[start:end].sort()
        else:
            for i in range(start + 1, end):
                key, j = keys[i], i - 1
                while j >= start and keys[j] > key:
                    keys[j + 1] = keys[j]
                    j -= 1
                keys[j + 1] = key
    return keys


@numba.njit(cache=True)
def _agree_with_representative(starts, keys, own, classes, representative):
    """Whether every item has the very list of keys, and the own key, of its class's representative."""
    for v in range(len(classes)):
        r = representative[classes[v]]
        if own[v] != own[r] or starts[v + 1] - starts[v] != starts[r + 1] - starts[r]:
            return False
        shift = starts[r] - starts[v]
        for k in range(starts[v], starts[v + 1]):
            if keys[k] != keys[k + shift]:
                return False
    return True


def _ranks(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each hash and the first place of each rank."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64), first


SALTS = tuple(np.uint64(0x243F6A8885A308D3 + 0x13198A2E03707344 * i & (1 << 64) - 1) for i in range(8))


def colour_refinement(
    graphs: Iterable[Any] | GraphCollection,
    rounds: int | None = None,
    *,
    node_labels: bool = True,
    edge_labels: bool = True,
) -> Refinement:
    r"""Colour refinement (the Weisfeiler-Leman test, 1-WL) of many graphs at once.

    .. math:: c_{t+1}(v) = \mathrm{id}\bigl(c_t(v),\ \{\!\{ (e_{uv}, c_t(u)) : u \in N(v) \}\!\}\bigr),
        \qquad c_0(v) = \mathrm{id}(x_v)

    A round takes time linear in nodes and edges, and the sorting of one word a node. Colours are ranks of hashes, so
    that they do not depend on how nodes are numbered; each hash is checked against the multiset behind it.

    Args:
        graphs: A collection, or graphs that :func:`collect_graphs` takes.
        rounds: At most so many rounds; default: until the partition is stable. It also ends there.
        node_labels: Whether to start from the node features.
        edge_labels: Whether to look at edge features.

    Returns:
        Colours of all rounds.

    Raises:
        ValueError: For a negative number of rounds, or a bad graph.

    Source: zopf2022wl.
    """
    require(rounds is None or rounds >= 0, "a non-negative number of rounds", rounds)
    many = collect_graphs(graphs, node_labels=node_labels, edge_labels=edge_labels)
    colours = [np.unique(many.node_labels, return_inverse=True)[1].reshape(-1).astype(np.int64)]
    size, stable = int(colours[0].max()) + 1, False
    while not stable and (rounds is None or len(colours) <= rounds):
        refined = _refine_nodes(many, colours[-1], size)
        now = int(refined.max()) + 1
        stable = now == size
        if not stable:
            colours.append(refined)
        size = now
    return Refinement(np.stack(colours), stable, many.graph, many.num_graphs)


def _refine_nodes(many: GraphCollection, colours: np.ndarray, palette: int) -> np.ndarray:
    keys = _sorted_keys(many.indptr, many.indices, many.edge_labels, colours, palette)
    for salt in SALTS:
        hashes = _neighbour_hashes(many.indptr, many.indices, many.edge_labels, colours, palette, salt)
        ranks, first = _ranks(hashes)
        if _agree_with_representative(many.indptr, keys, colours, ranks, first):
            return ranks
    raise RuntimeError("eight hash functions in a row had collisions")


@numba.njit(cache=True)
def _sums_of_words(values, owner, groups, salt):
    found = np.zeros(groups, np.uint64)
    for i in range(len(values)):
        found[owner[i]] += _mix(np.uint64(values[i]) ^ salt)
    return found


def multiset_classes(values: Int[np.ndarray, " N"], owner: Int[np.ndarray, " N"], groups: int) -> np.ndarray:
    """Class of each group by the multiset of its values: equal class, equal multiset.

    Args:
        values: Non-negative integers.
        owner: Group of each value.
        groups: Number of groups ``G``; a group without values has the empty multiset.

    Returns:
        ``[G]`` int64, ranks that do not depend on the order of values.

    Raises:
        ValueError: For lengths that differ or an owner out of range.
    """
    values, owner = np.asarray(values, dtype=np.int64), np.asarray(owner, dtype=np.int64)
    require(values.ndim == 1 and values.shape == owner.shape, "one owner a value", (values.shape, owner.shape))
    bad = len(owner) and (owner.min() < 0 or owner.max() >= groups)
    require(not bad, f"owners in [0, {groups})", (int(owner.min()), int(owner.max())) if bad else "")
    size = int(values.max(initial=0)) + 1
    if values.min(initial=0) >= 0 and groups * size < 1 << 62:
        # One sort of numbers is several times as fast as one of two keys.
        ordered = np.sort(owner * size + values) % size
    else:
        ordered = values[np.lexsort((values, owner))]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=groups))]).astype(np.int64)
    for salt in SALTS:
        ranks, first = _ranks(_sums_of_words(values, owner, groups, salt))
        if _agree_with_representative(starts, ordered, np.zeros(groups, np.int64), ranks, first):
            return ranks
    raise RuntimeError("eight hash functions in a row had collisions")


def colour_histogram(refinement: Refinement, rounds: int | None = None) -> sp.csr_array:
    """How often each graph has each colour, the rounds side by side: the feature map of the WL subtree kernel.

    Args:
        refinement: Result of :func:`colour_refinement`.
        rounds: Use rounds 0 to this; default: all.

    Returns:
        ``csr_array`` ``[G, colours of all used rounds]`` of float64.

    Raises:
        ValueError: For rounds that were not computed.
    """
    refinement.at(rounds)
    last = len(refinement.colours) - 1 if rounds is None else min(rounds, len(refinement.colours) - 1)
    used = refinement.colours[: last + 1]
    sizes = used.max(1) + 1
    columns = (used + np.concatenate([[0], np.cumsum(sizes)[:-1]])[:, None]).ravel()
    rows = np.tile(refinement.owner, len(used))
    shape = (refinement.num_graphs, int(sizes.sum()))
    histogram = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    histogram.sum_duplicates()
    return histogram


@functools.lru_cache(maxsize=256)
def _prime_below(limit: int) -> int:
    value = limit - 1 | 1
    while any(value % d == 0 for d in range(3, math.isqrt(value) + 1, 2)):
        value -= 2
    return value


def _pair_hashes(colours: np.ndarray, palette: int, seed: int) -> np.ndarray:
    """Hash of the multiset of colour pairs over the middle node, for all pairs: three products in a prime field.

    The multiset is the polynomial whose coefficient at x_a y_b counts (a, b), so that unequal ones agree at a random
    point with probability at most 2/p.
    """
    n = len(colours)
    # Products of residues, summed over n terms, stay below 2^53 and are exact in double precision.
    prime = _prime_below(min(math.isqrt((1 << 53) // n), 1 << 24))
    rng = np.random.default_rng(seed)
    total = np.zeros((n, n), np.uint64)
    for _ in range(3):
        left, right = rng.integers(prime, size=(2, palette)).astype(np.float64)
        word = np.mod(left[colours] @ right[colours], prime)
        total = total * np.uint64(0xFFFFFFFFFFFFFFC5) + word.astype(np.uint64)
    return total


@numba.njit(cache=True)
def _triple_hashes(colours, table):
    n = len(colours)
    found = np.empty((n, n, n), np.uint64)
    words = np.empty((3, n, n, n), np.uint64)
    for u in range(n):
        for v in range(n):
            for w in range(n):
                c = colours[u, v, w]
                # Laid out so that the inner loop runs along memory in all three.
                words[0, v, w, u] = table[0, c]
                words[1, u, w, v] = table[1, c]
                words[2, u, v, w] = table[2, c]
    for u in range(n):
        for v in range(n):
            for z in range(n):
                total = np.uint64(0)
                for w in range(n):
                    x = words[0, v, z, w] + words[1, u, z, w] + words[2, u, v, w]
                    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    total += x ^ (x >> np.uint64(29))
                found[u, v, z] = total
    return found


def _tuple_hashes(colours: np.ndarray, palette: int, seed: int) -> np.ndarray:
    if colours.ndim == 2:
        return _pair_hashes(colours, palette, seed)
    table = np.random.default_rng(seed).integers(0, 1 << 64, size=(3, palette), dtype=np.uint64)
    return _triple_hashes(colours, table)


def _substitutions(colours: np.ndarray) -> np.ndarray:
    """For each tuple the colours after putting w in each place: ``[n ** k, n, k]``."""
    n = len(colours)
    if colours.ndim == 2:
        pairs = (np.broadcast_to(colours[:, None, :], (n, n, n)), np.broadcast_to(colours.T[None], (n, n, n)))
        return np.stack(pairs, -1).reshape(n * n, n, 2)
    shape = (n, n, n, n)
    first = np.broadcast_to(colours.transpose(1, 2, 0)[None], shape)
    second = np.broadcast_to(colours.transpose(0, 2, 1)[:, None], shape)
    third = np.broadcast_to(colours[:, :, None, :], shape)
    return np.stack([first, second, third], -1).reshape(n**3, n, 3)


def _exactly_separated(parts: list[np.ndarray], old: list[np.ndarray], palette: int) -> bool:
    """Whether tuples of equal new colour have equal old colour and equal multisets, compared in full."""
    known: dict[tuple[int, int], np.ndarray] = {}
    for new, colours in zip(parts, old):
        n, k = len(colours), colours.ndim
        keys = _substitutions(colours) @ (palette ** np.arange(k))
        lists = np.concatenate([colours.reshape(-1, 1), np.sort(keys, axis=1)], axis=1)
        flat = new.reshape(-1)
        chosen, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
        if not np.array_equal(lists, lists[first][inverse.reshape(-1)]):
            return False
        for colour, row in zip(chosen.tolist(), lists[first]):
            if not np.array_equal(known.setdefault((n, colour), row), row):
                return False
    return True


def folklore_refinement(
    graphs: Iterable[Any] | GraphCollection,
    k: Literal[2, 3] = 2,
    rounds: int | None = None,
    *,
    node_labels: bool = True,
    edge_labels: bool = True,
    check: Literal["independent", "exact"] = "independent",
    until_apart: bool = False,
) -> Refinement:
    r"""Folklore Weisfeiler-Leman refinement of pairs (2-FWL) or triples (3-FWL) of nodes.

    .. math:: c_{t+1}(v_1, \dots, v_k) = \mathrm{id}\bigl(c_t(v),\
        \{\!\{ (c_t(v[1 \to w]), \dots, c_t(v[k \to w])) : w \in V \}\!\}\bigr)

    where :math:`v[i \to w]` has :math:`w` in place :math:`i`, and :math:`c_0` is the isomorphism type of the tuple. In
    power :math:`k`-FWL equals :math:`(k+1)`-WL. Time :math:`O(n^{k+1})` a round and graph.

    Args:
        graphs: A collection, or graphs that :func:`collect_graphs` takes.
        k: 2 or 3.
        rounds: At most so many rounds; default: until stable.
        node_labels: Whether node features are part of the isomorphism type.
        edge_labels: Whether edge features are.
        check: ``"independent"`` compares the partition of each round with that of other hash functions; ``"exact"``
            compares the multisets in full, which takes memory :math:`O(n^{k+1})`.
        until_apart: Whether to end as soon as all graphs have classes of their own, which later rounds cannot undo.

    Returns:
        Colours of all tuples, each graph's in row-major order; ``owner`` tells their graph.

    Raises:
        ValueError: For another ``k``, a negative number of rounds, an unknown check, or a bad graph.
    """
    require(k in (2, 3), "k of 2 or 3", k)
    require(rounds is None or rounds >= 0, "a non-negative number of rounds", rounds)
    require(check in ("independent", "exact"), "a check out of independent, exact", repr(check))
    many = collect_graphs(graphs, node_labels=node_labels, edge_labels=edge_labels)
    sizes = np.diff(many.offsets)
    owner = np.repeat(np.arange(many.num_graphs), sizes**k)
    cuts = np.cumsum(sizes**k)[:-1]
    shapes = [(int(n),) * k for n in sizes]
    colours = [_ranks(np.concatenate([t.ravel() for t in _tuple_types(many, k)]))[0]]
    size, stable = int(colours[0].max()) + 1, False
    while not stable and (rounds is None or len(colours) <= rounds):
        if until_apart and len(np.unique(multiset_classes(colours[-1], owner, many.num_graphs))) == many.num_graphs:
            break
        old = [part.reshape(shape) for part, shape in zip(np.split(colours[-1], cuts), shapes)]
        refined = _refine_tuples(old, colours[-1], size, cuts, shapes, check)
        now = int(refined.max()) + 1
        stable = now == size
        if not stable:
            colours.append(refined)
        size = now
    return Refinement(np.stack(colours), stable, owner, many.num_graphs)


def _refine_tuples(
    old: list[np.ndarray], flat: np.ndarray, palette: int, cuts: np.ndarray, shapes: list[tuple], check: str
) -> np.ndarray:
    own = np.random.default_rng(len(flat)).integers(0, 1 << 64, size=palette, dtype=np.uint64)[flat]

    def ranked(seed: int) -> np.ndarray:
        return _ranks(np.concatenate([_tuple_hashes(c, palette, seed).ravel() for c in old]) + own)[0]

    for seed in range(0, 16, 2):
        ranks = ranked(seed)
        if check == "exact":
            parts = [part.reshape(shape) for part, shape in zip(np.split(ranks, cuts), shapes)]
            if _exactly_separated(parts, old, palette):
                return ranks
            continue
        other = ranked(seed + 1)
        kinds = int(other.max()) + 1
        if len(np.unique(ranks * kinds + other)) == int(ranks.max()) + 1 == kinds:
            return ranks
    raise RuntimeError("eight hash functions in a row had collisions")


def _tuple_types(many: GraphCollection, k: int) -> list[np.ndarray]:
    """Isomorphism type of all k-tuples of each graph as an integer, shared by all graphs."""
    pairs, edge_sizes = [], np.diff(many.indptr)
    senders_of = np.repeat(np.arange(len(edge_sizes)), edge_sizes)
    words = _edge_words(many.edge_labels)
    for start, end in zip(many.offsets[:-1], many.offsets[1:]):
        n, own = int(end - start), slice(many.indptr[start], many.indptr[end])
        matrix = np.zeros((n, n), np.uint64)
        np.add.at(matrix, (many.indices[own] - start, senders_of[own] - start), words[own])
        pairs.append((matrix, many.node_labels[start:end]))
    codes = _ranks(np.concatenate([m.ravel() for m, _ in pairs]))[0]
    edges = [
        c.reshape(m.shape) for c, (m, _) in zip(np.split(codes, np.cumsum([m.size for m, _ in pairs])[:-1]), pairs)
    ]
    kinds, labels = int(codes.max()) + 1, int(many.node_labels.max()) + 1
    found = []
    for edge, (_, label) in zip(edges, pairs):
        n = len(edge)
        pair = (edge * kinds + edge.T) * 2 + np.eye(n, dtype=np.int64)
        pair = (pair * labels + label[:, None]) * labels + label[None, :]
        found.append(pair)
    if k == 2:
        return found
    ranks = _ranks(np.concatenate([p.ravel() for p in found]))[0]
    size = int(ranks.max()) + 1
    cut = np.split(ranks, np.cumsum([p.size for p in found])[:-1])
    ranked = [r.reshape(p.shape) for r, p in zip(cut, found)]
    return [(p[:, :, None] * size + p[:, None, :]) * size + p[None, :, :] for p in ranked]


def _edge_words(labels: np.ndarray) -> np.ndarray:
    """A random odd word a label, so that sums over parallel edges tell multisets of labels apart."""
    size = int(labels.max()) + 1 if len(labels) else 1
    return (np.random.default_rng(0).integers(0, 1 << 63, size=size, dtype=np.uint64) * np.uint64(2) + np.uint64(1))[
        labels
    ]


class MarkedGraph(NamedTuple):
    """A small directed multigraph with an ordered choice of marked nodes, the index of an equivariant polynomial.

    Attributes:
        nodes: Number of nodes.
        edges: Pairs (sender, receiver), with repetitions for parallel edges.
        marked: Marked nodes in order; all others are summed over.
    """

    nodes: int
    edges: tuple[tuple[int, int], ...]
    marked: tuple[int, ...] = ()


def marked_graph(pattern: Any, marked: Sequence[Hashable] = ()) -> MarkedGraph:
    """A networkx graph (also directed, with parallel edges and loops) as a :class:`MarkedGraph`.

    Args:
        pattern: The graph; an undirected edge is taken once, in one direction.
        marked: Nodes to mark, in order.

    Raises:
        ValueError: For a graph without nodes, or marked nodes that are not distinct nodes of it.
    """
    require(len(pattern) > 0, "a pattern with at least one node", len(pattern))
    place = {node: i for i, node in enumerate(pattern)}
    known = all(node in place for node in marked) and len(set(marked)) == len(marked)
    require(known, f"distinct marked nodes out of {list(place)}", list(marked))
    edges = tuple(sorted((place[u], place[v]) for u, v, *_ in pattern.edges))
    return MarkedGraph(len(place), edges, tuple(place[node] for node in marked))


@functools.lru_cache(maxsize=16)
def _permutations(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))), dtype=np.int64).reshape(-1, n)


def canonical_form(graph: MarkedGraph, *, directed: bool = False) -> MarkedGraph:
    """The representative of a marked graph's isomorphism class: smallest edge list over all numberings.

    Args:
        graph: At most eight nodes.
        directed: Whether the direction of edges counts.

    Raises:
        ValueError: For more than eight nodes, or nodes out of range.
    """
    _check_marked(graph)
    require(graph.nodes <= 8, "a graph of at most eight nodes", graph.nodes)
    n, places = graph.nodes, _permutations(graph.nodes)
    edges = np.array(graph.edges, dtype=np.int64).reshape(-1, 2)
    ends = places[:, edges]
    if not directed:
        ends = np.sort(ends, axis=2)
    codes = np.sort(ends[:, :, 0] * n + ends[:, :, 1], axis=1)
    rows = np.concatenate([places[:, list(graph.marked)], codes], axis=1)
    best = rows[np.lexsort(rows.T[::-1])[0]] if rows.shape[1] else rows[0]
    marks, codes = best[: len(graph.marked)], best[len(graph.marked) :]
    return MarkedGraph(n, tuple((int(c) // n, int(c) % n) for c in codes), tuple(int(m) for m in marks))


def _check_marked(graph: MarkedGraph) -> None:
    require(graph.nodes >= 1, "a graph with at least one node", graph.nodes)
    ends = [v for edge in graph.edges for v in edge]
    require(all(0 <= v < graph.nodes for v in ends), f"edges between nodes in [0, {graph.nodes})", graph.edges)
    sound = all(0 <= v < graph.nodes for v in graph.marked) and len(set(graph.marked)) == len(graph.marked)
    require(sound, f"distinct marked nodes in [0, {graph.nodes})", graph.marked)


class _Step(NamedTuple):
    """One instruction: ``input``, ``diagonal``, ``ones``, ``multiply`` or ``contract`` of operands with local axes."""

    kind: str
    operands: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]


class _Factor(NamedTuple):
    step: int
    legs: tuple[int, ...]


class ContractionProgram:
    r"""Polynomials of a matrix, compiled to one tensor-network program that shares its intermediate results.

    For a marked graph :math:`H` with edges :math:`E`,

    .. math:: P_H(X)_{i_{m_1} \dots i_{m_r}} = \sum_{i_v :\, v \text{ unmarked}} \ \prod_{(u, v) \in E} X_{i_u i_v}.

    Unmarked nodes are summed out one at a time, the one with the fewest neighbours first. Two intermediate tensors of
    equal structure, in one polynomial or in two, are one and computed once. For an adjacency matrix and no marks,
    :math:`P_H` counts homomorphisms.

    Args:
        graphs: The polynomials.
        symmetric: Whether all matrices will be symmetric: edges then have no direction, and more is shared.

    Raises:
        ValueError: For no graph or a malformed one.

    Source: puny2023polynomials.
    """

    def __init__(self, graphs: Sequence[MarkedGraph], *, symmetric: bool = False) -> None:
        require(len(graphs) > 0, "at least one polynomial", 0)
        self.symmetric = symmetric
        self.steps: list[_Step] = []
        self._known: dict[_Step, int] = {}
        self.graphs = [MarkedGraph(*graph) for graph in graphs]
        self.results = [self._compile(graph) for graph in self.graphs]
        used = [self.results[i].step for i in range(len(graphs))] + [o for step in self.steps for o in step.operands]
        self._uses = np.bincount(used, minlength=len(self.steps)).tolist()

    def _add(self, step: _Step) -> int:
        if step not in self._known:
            self._known[step] = len(self.steps)
            self.steps.append(step)
        return self._known[step]

    def _combine(self, kind: str, factors: Sequence[_Factor], out: Sequence[int]) -> _Factor:
        """Add a step for these factors, its axes named so that equal structures get equal steps."""
        inner = sorted({leg for f in factors for leg in f.legs} - set(out))
        best: tuple[tuple, tuple[int, ...], list[_Factor]] | None = None
        for order in itertools.permutations(sorted(out)):
            name = {leg: i for i, leg in enumerate([*order, *inner])}
            ranked = sorted(factors, key=lambda f: (f.step, tuple(name[leg] for leg in f.legs)))
            key = tuple((f.step, tuple(name[leg] for leg in f.legs)) for f in ranked)
            if best is None or key < best[0]:
                best = (key, order, ranked)
        assert best is not None
        key, order, _ = best
        step = _Step(kind, tuple(k[0] for k in key), tuple(k[1] for k in key), tuple(range(len(order))))
        return _Factor(self._add(step), tuple(order))

    def _edge(self, u: int, v: int) -> _Factor:
        if u == v:
            return _Factor(self._add(_Step("diagonal", (), (), (0,))), (u,))
        legs = (min(u, v), max(u, v)) if self.symmetric else (u, v)
        return _Factor(self._add(_Step("input", (), (), (0, 1))), legs)

    def _merge(self, factors: list[_Factor]) -> list[_Factor]:
        """Multiply factors whose axes lie within another's."""
        factors = sorted(factors, key=lambda f: (len(f.legs), f.legs, f.step))
        kept: list[_Factor] = []
        while factors:
            small = factors.pop(0)
            hosts = [f for f in factors if set(small.legs) <= set(f.legs)]
            if not hosts:
                kept.append(small)
                continue
            factors.remove(hosts[0])
            factors.append(self._combine("multiply", [small, hosts[0]], hosts[0].legs))
            factors.sort(key=lambda f: (len(f.legs), f.legs, f.step))
        return kept

    def _compile(self, graph: MarkedGraph) -> _Factor:
        _check_marked(graph)
        factors = [self._edge(u, v) for u, v in graph.edges]
        touched = {leg for f in factors for leg in f.legs}
        factors += [
            _Factor(self._add(_Step("ones", (), (), (0,))), (v,)) for v in range(graph.nodes) if v not in touched
        ]
        waiting = set(range(graph.nodes)) - set(graph.marked)
        while waiting:
            neighbours = {v: {leg for f in factors if v in f.legs for leg in f.legs} - {v} for v in waiting}
            v = min(waiting, key=lambda u: (len(neighbours[u]), u))
            waiting.remove(v)
            mine = self._merge([f for f in factors if v in f.legs])
            while len(mine) > 2:
                first, second = min(
                    itertools.combinations(mine, 2), key=lambda p: (len({*p[0].legs, *p[1].legs}), p[0].legs, p[1].legs)
                )
                mine = [f for f in mine if f not in (first, second)]
                mine.append(self._combine("multiply", [first, second], sorted({*first.legs, *second.legs})))
                mine = self._merge(mine)
            out = sorted(neighbours[v])
            factors = [f for f in factors if v not in f.legs] + [self._combine("contract", mine, out)]
        scalars = [f for f in factors if not f.legs]
        rest = self._merge([f for f in factors if f.legs])
        rest = rest if graph.marked else []
        whole = rest + scalars
        if len(whole) > 1 or set(whole[0].legs) != set(graph.marked):
            whole = [self._combine("multiply", whole, graph.marked)]
        return whole[0]

    @property
    def products(self) -> int:
        """Number of multiplications and contractions after sharing."""
        return sum(step.kind in ("multiply", "contract") for step in self.steps)

    def __call__(self, matrices: Float[Tensor, "B n n"], sizes: Int[Tensor, " B"] | None = None) -> list[Tensor]:
        """Evaluate all polynomials.

        Args:
            matrices: A batch of matrices, smaller ones padded by zeros.
            sizes: Number of rows of each that are no padding; default: all.

        Returns:
            One tensor a polynomial, ``[B]``, ``[B, n]`` or ``[B, n, n]`` by its marks; zero on padding.

        Raises:
            ValueError: For a bad shape, NaN, sizes out of range, a device that differs, or a matrix that is not
                symmetric in a symmetric program.
        """
        require(
            matrices.ndim == 3 and matrices.shape[1] == matrices.shape[2] and matrices.shape[1] > 0,
            "matrices of shape [B, n, n] with n of at least 1",
            tuple(matrices.shape),
        )
        require(matrices.is_floating_point(), "matrices of a floating-point type", matrices.dtype)
        require_finite("matrices", matrices)
        batch, n = matrices.shape[:2]
        values_known = matrices.device.type != "meta"
        if self.symmetric and values_known:
            require(bool((matrices == matrices.mT).all()), "symmetric matrices", "an asymmetric one")
        mask = torch.ones(batch, n, dtype=matrices.dtype, device=matrices.device)
        if sizes is not None:
            sizes = sizes.to(matrices.device)
            require(tuple(sizes.shape) == (batch,), f"{batch} sizes", tuple(sizes.shape))
            if values_known:
                sound = bool((sizes >= 0).all() and (sizes <= n).all())
                require(sound, f"sizes in [0, {n}]", sizes.tolist()[:8])
            mask = (torch.arange(n, device=matrices.device) < sizes[:, None]).to(matrices.dtype)
            matrices = matrices * mask[:, :, None] * mask[:, None, :]
        deepest = max((len({i for axes in step.axes for i in axes}) for step in self.steps if step.axes), default=2)
        # A chunk's largest intermediate tensor has one axis less than its widest step.
        share = max(1, (1 << 22) // n ** max(2, deepest - 1))
        if batch <= share:
            return self._run(matrices, mask)
        chunks = [self._run(m, k) for m, k in zip(matrices.split(share), mask.split(share))]
        return [torch.cat(parts) for parts in zip(*chunks)]

    def _run(self, matrices: Tensor, mask: Tensor) -> list[Tensor]:
        left = list(self._uses)
        values: dict[int, Tensor] = {}
        for i, step in enumerate(self.steps):
            values[i] = self._value(step, [values[o] for o in step.operands], matrices, mask)
            for o in step.operands:
                left[o] -= 1
                if left[o] == 0:
                    del values[o]
        return [_reorder(values[f.step], f.legs, g.marked) for f, g in zip(self.results, self.graphs)]

    @staticmethod
    def _value(step: _Step, operands: list[Tensor], matrices: Tensor, mask: Tensor) -> Tensor:
        if step.kind == "input":
            return matrices
        if step.kind == "diagonal":
            return matrices.diagonal(dim1=1, dim2=2)
        if step.kind == "ones":
            return mask
        if step.kind == "contract":
            letters = ["".join("abcdefghij"[i] for i in axes) for axes in step.axes]
            out = "".join("abcdefghij"[i] for i in step.out)
            return torch.einsum(",".join("z" + word for word in letters) + "->z" + out, *operands)
        product = None
        for value, axes in zip(operands, step.axes):
            order = sorted(range(len(axes)), key=lambda i: axes[i])
            placed = value.permute(0, *(1 + i for i in order))
            for axis in step.out:
                if axis not in axes:
                    placed = placed.unsqueeze(1 + axis)
            product = placed if product is None else product * placed
        assert product is not None
        return product


def _reorder(value: Tensor, legs: tuple[int, ...], marked: tuple[int, ...]) -> Tensor:
    return value.permute(0, *(1 + legs.index(m) for m in marked)) if marked else value


def dense_adjacency(graphs: Iterable[Any] | GraphCollection) -> tuple[Float[Tensor, "G n n"], Int[Tensor, " G"]]:
    """Adjacency matrices padded by zeros to the largest graph, and the graphs' sizes.

    Args:
        graphs: A collection, or graphs that :func:`collect_graphs` takes; labels are not used.

    Returns:
        ``[G, n, n]`` float64 with multiplicities of edges, row = sender, and ``[G]`` int64.

    Raises:
        ValueError: For a bad graph.
    """
    many = collect_graphs(graphs, node_labels=False, edge_labels=False)
    sizes = np.diff(many.offsets)
    dense = np.zeros((many.num_graphs, sizes.max(), sizes.max()))
    receiver = np.repeat(np.arange(len(many.indptr) - 1), np.diff(many.indptr))
    graph = many.graph[receiver]
    start = many.offsets[graph]
    np.add.at(dense, (graph, many.indices - start, receiver - start), 1.0)
    return torch.from_numpy(dense), torch.from_numpy(sizes)


def homomorphism_counts(
    patterns: Sequence[Any], graphs: Iterable[Any] | GraphCollection
) -> Float[Tensor, "G patterns"]:
    r"""Number of homomorphisms of each pattern into each graph.

    .. math:: \hom(F, G) = \sum_{\varphi: V(F) \to V(G)} \ \prod_{uv \in E(F)} A_{\varphi(u) \varphi(v)}

    Args:
        patterns: networkx graphs, or :class:`MarkedGraph` without marks.
        graphs: A collection, or graphs that :func:`collect_graphs` takes; parallel edges count as often as they occur.

    Returns:
        ``[G, patterns]`` float64, whole numbers, exact below :math:`2^{53}`.

    Raises:
        ValueError: For no pattern, marked nodes, a bad graph, or a count beyond :math:`2^{53}`.
    """
    marked = [p if isinstance(p, MarkedGraph) else marked_graph(p) for p in patterns]
    require(len(marked) > 0 and not any(p.marked for p in marked), "patterns without marked nodes", marked[:3])
    matrices, sizes = dense_adjacency(graphs)
    program = ContractionProgram(marked, symmetric=bool((matrices == matrices.mT).all()))
    counts = torch.stack(program(matrices, sizes), dim=1)
    require(float(counts.max()) < 2**53, "counts below 2^53, where float64 is exact", float(counts.max()))
    return counts


def _set_partitions(items: Sequence[int]) -> Iterable[list[list[int]]]:
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for smaller in _set_partitions(rest):
        for i, block in enumerate(smaller):
            yield [*smaller[:i], [first, *block], *smaller[i + 1 :]]
        yield [[first], *smaller]


def _quotients(pattern: MarkedGraph) -> Mapping[MarkedGraph, int]:
    """Loop-free quotients of a simple pattern, each with its sum of Moebius values over partitions."""
    found: dict[MarkedGraph, int] = {}
    for blocks in _set_partitions(range(pattern.nodes)):
        place = {v: i for i, block in enumerate(blocks) for v in block}
        edges = {(min(place[u], place[v]), max(place[u], place[v])) for u, v in pattern.edges}
        if any(u == v for u, v in edges):
            continue
        weight = math.prod((-1) ** (len(b) - 1) * math.factorial(len(b) - 1) for b in blocks)
        form = canonical_form(MarkedGraph(len(blocks), tuple(edges)))
        found[form] = found.get(form, 0) + weight
    return found


def subgraph_counts(
    patterns: Sequence[nx.Graph], graphs: Iterable[Any] | GraphCollection
) -> Float[Tensor, "G patterns"]:
    r"""Number of subgraphs, not necessarily induced, that are isomorphic to each pattern.

    Injective homomorphisms by Moebius inversion over the partitions :math:`\pi` of the pattern's nodes, divided by its
    automorphisms:

    .. math:: \mathrm{sub}(F, G) = \frac{1}{|\mathrm{Aut}(F)|} \sum_\pi
        \Bigl(\prod_{B \in \pi} (-1)^{|B| - 1} (|B| - 1)!\Bigr) \hom(F / \pi, G)

    Args:
        patterns: Simple undirected networkx graphs of at most eight nodes.
        graphs: Simple undirected graphs without self-loops, as :func:`collect_graphs` takes them.

    Returns:
        ``[G, patterns]`` float64, whole numbers.

    Raises:
        ValueError: For patterns or graphs that are directed, have loops or parallel edges, and for bad graphs.
    """
    simple = all(not p.is_directed() and not p.is_multigraph() and nx.number_of_selfloops(p) == 0 for p in patterns)
    require(len(patterns) > 0 and simple, "simple undirected patterns", [str(p) for p in patterns][:3])
    matrices, sizes = dense_adjacency(graphs)
    plain = bool((matrices == matrices.mT).all() and (matrices <= 1).all() and not matrices.diagonal(0, 1, 2).any())
    require(plain, "simple undirected graphs without self-loops", "a graph that is not")
    terms = [_quotients(marked_graph(p)) for p in patterns]
    forms = sorted({form for term in terms for form in term})
    place = {form: i for i, form in enumerate(forms)}
    weights = torch.zeros(len(forms), len(patterns), dtype=torch.float64)
    for j, (term, pattern) in enumerate(zip(terms, patterns)):
        whole = marked_graph(pattern)
        own = set(map(frozenset, whole.edges))
        automorphisms = sum(
            {frozenset((p[u], p[v])) for u, v in whole.edges} == own for p in _permutations(whole.nodes).tolist()
        )
        for form, weight in term.items():
            weights[place[form], j] = weight / automorphisms
    counts = torch.stack(ContractionProgram(forms, symmetric=True)(matrices, sizes), dim=1)
    require(float(counts.max()) < 2**53, "counts below 2^53, where float64 is exact", float(counts.max()))
    return (counts @ weights).round()
