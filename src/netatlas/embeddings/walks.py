"""Random walks on weighted graphs: first order, and the second-order walks of node2vec by rejection.

Walks come back as one integer array of shape ``[walks, length]``; a walk that reaches a node without out-neighbours
stops there and the rest of its row is :data:`PAD`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numba import njit

from netatlas.core.graph import as_csr
from netatlas.embeddings._random import advance, below, check_seed, low_unit, stream_state, unit

PAD = -1
# Walkers that step side by side: their memory requests overlap, which hides most of the latency of a random access.
_BLOCK = 32


class WalkGraph(NamedTuple):
    r"""A graph laid out for walking: sorted CSR rows, with an alias table per row when the weights differ.

    Attributes:
        indptr: row starts, ``int64 [n + 1]``.
        indices: neighbours, ``int32 [m]``, ascending within a row.
        weights: edge weights, ``float64 [m]``.
        strength: sum of a row's weights, ``float64 [n]``.
        threshold, alias: per-row alias tables (``float64 [m]``, ``int32 [m]``); empty when every weight is the same.
        signature: one bit of 64 per neighbour (a hash of its index), ``uint64 [n]``: most edge tests fail there at
            once.
        weighted: whether the weights differ.
        symmetric: whether the adjacency matrix equals its transpose.
    """

    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    strength: np.ndarray
    threshold: np.ndarray
    alias: np.ndarray
    signature: np.ndarray
    weighted: bool
    symmetric: bool

    @property
    def num_nodes(self) -> int:
        return len(self.indptr) - 1


@njit(cache=True)
def _vose(weights, start, stop, threshold, alias, small, large):
    """Fill one alias table in place (Vose, 1991); entries of `alias` are positions relative to `start`."""
    size = stop - start
    total = 0.0
    for e in range(start, stop):
        total += weights[e]
    n_small = 0
    n_large = 0
    for i in range(size):
        threshold[start + i] = weights[start + i] * size / total
        alias[start + i] = i
        if threshold[start + i] < 1.0:
            small[n_small] = i
            n_small += 1
        else:
            large[n_large] = i
            n_large += 1
    while n_small > 0 and n_large > 0:
        n_small -= 1
        low = small[n_small]
        high = large[n_large - 1]
        alias[start + low] = high
        threshold[start + high] -= 1.0 - threshold[start + low]
        if threshold[start + high] < 1.0:
            n_large -= 1
            small[n_small] = high
            n_small += 1
    # What is left over differs from one by rounding only.
    for i in range(n_small):
        threshold[start + small[i]] = 1.0
    for i in range(n_large):
        threshold[start + large[i]] = 1.0


@njit(cache=True)
def _vose_rows(indptr, weights, threshold, alias):
    widest = 0
    for v in range(len(indptr) - 1):
        widest = max(widest, indptr[v + 1] - indptr[v])
    small = np.empty(widest, np.int64)
    large = np.empty(widest, np.int64)
    for v in range(len(indptr) - 1):
        if indptr[v + 1] > indptr[v]:
            _vose(weights, indptr[v], indptr[v + 1], threshold, alias, small, large)


@njit(inline="always")
def _signature_bit(x):
    return np.uint64(1) << ((np.uint64(x) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58))


@njit(cache=True)
def _signatures(indptr, indices):
    out = np.zeros(len(indptr) - 1, np.uint64)
    for v in range(len(indptr) - 1):
        for e in range(indptr[v], indptr[v + 1]):
            out[v] |= _signature_bit(indices[e])
    return out


def alias_table(weights: Float[np.ndarray, " k"]) -> tuple[Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    r"""Tables that draw index :math:`i` with probability :math:`w_i / \sum_j w_j` in constant time.

    Draw a cell :math:`i` uniformly and a uniform number :math:`x`; keep :math:`i` if :math:`x < \tau_i`, else take
    :math:`a_i`. The tables satisfy

    .. math:: \frac{w_i}{\sum_j w_j} = \frac1k \Big( \tau_i + \sum_{j : a_j = i} (1 - \tau_j) \Big).

    Args:
        weights: non-negative, finite, not all zero; shape ``[k]``.

    Returns:
        The thresholds :math:`\tau` and the aliases :math:`a`, each of shape ``[k]``.

    Raises:
        ValueError: if the weights are not one-dimensional, are empty, negative, not finite or all zero.

    Source: ``lin2019fullppr`` (alias sampling at large nodes); ``grover2016node2vec`` (sampling).
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"weights must be a non-empty vector, got shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError("weights must be finite, non-negative and not all zero")
    k = weights.size
    threshold, alias = np.empty(k), np.empty(k, np.int32)
    _vose(weights, 0, k, threshold, alias, np.empty(k, np.int64), np.empty(k, np.int64))
    return threshold, alias


def walk_graph(graph) -> WalkGraph:
    r"""Prepare a graph for walking; every walk function accepts the result in place of the graph.

    Args:
        graph: a :class:`WalkGraph`, or anything that ``netatlas.core.graph.as_csr`` reads. Row :math:`v` holds the
            out-edges of :math:`v`; a walk moves along them with probability proportional to their weights.

    Raises:
        ValueError: if the adjacency matrix is empty, not square, not finite or has negative weights.
    """
    if isinstance(graph, WalkGraph):
        return graph
    adjacency = sp.csr_array(as_csr(graph))
    if (adjacency.data == 0).any():
        adjacency = adjacency.copy()
        adjacency.eliminate_zeros()
    if not adjacency.has_sorted_indices:
        adjacency = adjacency.sorted_indices()
    indptr = adjacency.indptr.astype(np.int64)
    indices = adjacency.indices.astype(np.int32)
    weights = np.ascontiguousarray(adjacency.data, dtype=np.float64)
    transposed = sp.csr_array(adjacency.T)
    symmetric = (
        np.array_equal(transposed.indptr, adjacency.indptr)
        and np.array_equal(transposed.indices, adjacency.indices)
        and np.array_equal(transposed.data, adjacency.data)
    )
    weighted = weights.size > 0 and not bool((weights == weights[0]).all())
    threshold, alias = np.empty(0), np.empty(0, np.int32)
    if weighted:
        threshold, alias = np.empty_like(weights), np.empty(len(weights), np.int32)
        _vose_rows(indptr, weights, threshold, alias)
    strength = np.asarray(adjacency.sum(axis=1), dtype=np.float64).ravel()
    signature = _signatures(indptr, indices)
    return WalkGraph(indptr, indices, weights, strength, threshold, alias, signature, weighted, symmetric)


@njit(inline="always")
def draw_neighbour(indptr, indices, threshold, alias, weighted, v, state):
    """Position in `indices` of a neighbour of `v`, drawn from the edge weights with one 64-bit number."""
    start = indptr[v]
    cell = below(state, indptr[v + 1] - start)
    # The cell uses the high half of the number, the threshold test bits of the low half.
    if weighted and low_unit(state) >= threshold[start + cell]:
        cell = np.int64(alias[start + cell])
    return start + cell


@njit(inline="always")
def _position(indices, start, stop, x):
    """Position of `x` in the sorted slice, or -1."""
    end = stop
    while start < stop:
        middle = (start + stop) >> 1
        if indices[middle] < x:
            start = middle + 1
        else:
            stop = middle
    if start < end and indices[start] == x:
        return start
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _first_order(indptr, indices, threshold, alias, weighted, starts, seed, out):
    count, length = out.shape
    state = np.empty(_BLOCK, np.uint64)
    for base in range(0, count, _BLOCK):
        block = min(_BLOCK, count - base)
        for i in range(block):
            state[i] = stream_state(seed, base + i)
            out[base + i, 0] = starts[base + i]
        for t in range(1, length):
            for i in range(block):
                v = out[base + i, t - 1]
                if v < 0 or indptr[v] == indptr[v + 1]:
                    out[base + i, t] = PAD
                    continue
                s = advance(state[i])
                state[i] = s
                out[base + i, t] = indices[draw_neighbour(indptr, indices, threshold, alias, weighted, v, s)]


@njit(cache=True, nogil=True)
def _second_order(
    indptr, indices, weights, strength, threshold, alias, signature, weighted, symmetric, p, q, starts, seed, out
):
    count, length = out.shape
    back, far = 1.0 / p, 1.0 / q
    ceiling = max(1.0, far)
    # A return weight above the ceiling would raise the envelope for every neighbour. Its excess is drawn apart instead.
    excess = max(0.0, back - ceiling)
    accept_back = min(back, ceiling) / ceiling
    accept_near = 1.0 / ceiling
    accept_far = far / ceiling
    accept_least = min(accept_near, accept_far)
    constant = weights[0] if len(weights) > 0 else 1.0
    state = np.empty(_BLOCK, np.uint64)
    for base in range(0, count, _BLOCK):
        block = min(_BLOCK, count - base)
        for i in range(block):
            state[i] = stream_state(seed, base + i)
            out[base + i, 0] = starts[base + i]
        for step in range(1, length):
            for i in range(block):
                w = base + i
                v = out[w, step - 1]
                if v < 0 or indptr[v] == indptr[v + 1]:
                    out[w, step] = PAD
                    continue
                s = advance(state[i])
                if step == 1:
                    out[w, 1] = indices[draw_neighbour(indptr, indices, threshold, alias, weighted, v, s)]
                    state[i] = s
                    continue
                t = out[w, step - 2]
                mass = 0.0
                if excess > 0.0:
                    mass = constant
                    if weighted or not symmetric:
                        edge = _position(indices, indptr[v], indptr[v + 1], t)
                        mass = weights[edge] if edge >= 0 else 0.0
                    mass *= excess
                # The return's excess and the neighbours form one mixture, drawn afresh after every rejection.
                odds = mass / (mass + ceiling * strength[v])
                while True:
                    if mass > 0.0:
                        if unit(s) < odds:
                            x = t
                            break
                        s = advance(s)
                    x = indices[draw_neighbour(indptr, indices, threshold, alias, weighted, v, s)]
                    s = advance(s)
                    u = unit(s)
                    if x == t:
                        if u < accept_back:
                            break
                    elif u < accept_least:
                        break
                    elif accept_near != accept_far:
                        # Between the two acceptance levels only the edge test (t, x) can tell them apart.
                        if signature[t] & _signature_bit(x) == 0:
                            near = False
                        elif symmetric and indptr[x + 1] - indptr[x] < indptr[t + 1] - indptr[t]:
                            near = _position(indices, indptr[x], indptr[x + 1], t) >= 0
                        else:
                            near = _position(indices, indptr[t], indptr[t + 1], x) >= 0
                        if u < (accept_near if near else accept_far):
                            break
                    s = advance(s)
                out[w, step] = x
                state[i] = s


def _plan(graph, walks_per_node, length, seed, starts):
    seed = check_seed(seed)
    walker = walk_graph(graph)
    if length < 1:
        raise ValueError(f"length counts the nodes of a walk and must be at least 1, got {length}")
    n = walker.num_nodes
    if starts is None:
        if walks_per_node < 1:
            raise ValueError(f"walks_per_node must be at least 1, got {walks_per_node}")
        rng = np.random.default_rng(seed)
        starts = np.concatenate([rng.permutation(n) for _ in range(walks_per_node)])
    starts = np.asarray(starts)
    if starts.ndim != 1 or starts.size == 0 or not np.issubdtype(starts.dtype, np.integer):
        raise ValueError(f"starts must be a non-empty vector of node indices, got {starts.dtype} {starts.shape}")
    if starts.min() < 0 or starts.max() >= n:
        raise ValueError(f"starts must lie in 0..{n - 1}, got {starts.min()}..{starts.max()}")
    return walker, starts.astype(np.int32), np.empty((len(starts), length), np.int32), seed


def uniform_walks(
    graph, *, walks_per_node: int = 10, length: int = 80, seed: int = 0, starts: Int[np.ndarray, " w"] | None = None
) -> Int[np.ndarray, "w length"]:
    r"""First-order random walks, the walks of DeepWalk.

    .. math:: \Pr(x_{i+1} = x \mid x_i = v) = \frac{w_{vx}}{\sum_y w_{vy}}

    Args:
        graph: anything that :func:`walk_graph` reads.
        walks_per_node: passes over the nodes, each in a new random order; ignored when ``starts`` is given.
        length: number of nodes in a walk, the root included.
        seed: the result is a function of the seed alone.
        starts: roots to use instead, one walk each.

    Returns:
        Node indices, ``int32 [walks, length]``, padded with :data:`PAD` after a node without out-neighbours.

    Raises:
        ValueError: for a bad graph, a length or a number of walks below 1, a negative seed, or roots outside the graph.

    Source: ``grover2016node2vec``, the walk with :math:`p = q = 1`.
    """
    walker, starts, out, seed = _plan(graph, walks_per_node, length, seed, starts)
    _first_order(walker.indptr, walker.indices, walker.threshold, walker.alias, walker.weighted, starts, seed, out)
    return out


def node2vec_walks(
    graph,
    *,
    p: float,
    q: float,
    walks_per_node: int = 10,
    length: int = 80,
    seed: int = 0,
    starts: Int[np.ndarray, " w"] | None = None,
) -> Int[np.ndarray, "w length"]:
    r"""Second-order random walks, sampled by rejection: no table per edge, so hubs cost no memory.

    Having come from :math:`t` to :math:`v`,

    .. math::
        \Pr(x \mid t, v) \propto \alpha_{pq}(t, x)\, w_{vx}, \qquad
        \alpha_{pq}(t, x) = \begin{cases} 1/p & x = t \\ 1 & (t, x) \in E \\ 1/q & \text{otherwise} \end{cases}

    and the first step from the root is drawn from the weights alone.

    Args:
        graph: anything that :func:`walk_graph` reads.
        p: return parameter, positive; large values keep a walk from turning back.
        q: in-out parameter, positive; below one the walk moves away, above one it stays near.
        walks_per_node, length, seed, starts: as in :func:`uniform_walks`.

    Returns:
        Node indices, ``int32 [walks, length]``, padded with :data:`PAD`.

    Raises:
        ValueError: as :func:`uniform_walks`, and if p or q is not positive and finite.

    Source: ``grover2016node2vec``, the search bias.
    """
    for name, value in (("p", p), ("q", q)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if p == 1 and q == 1:
        return uniform_walks(graph, walks_per_node=walks_per_node, length=length, seed=seed, starts=starts)
    g, starts, out, seed = _plan(graph, walks_per_node, length, seed, starts)
    _second_order(
        g.indptr, g.indices, g.weights, g.strength, g.threshold, g.alias, g.signature, g.weighted, g.symmetric,
        float(p), float(q), starts, seed, out,
    )  # fmt: skip
    return out


def stationary_starts(graph, count: int, *, seed: int = 0) -> Int[np.ndarray, " count"]:
    r"""Roots drawn with probability proportional to a node's total edge weight, so that walks start stationary.

    .. math:: \Pr(v) = \frac{d_v}{\sum_u d_u}

    Args:
        graph: anything that :func:`walk_graph` reads; the statement is true of undirected graphs.
        count: number of roots.
        seed: random seed.

    Raises:
        ValueError: if ``count`` is below 1 or the graph has no edge.

    Source: ``rozemberczki2019musae`` (the assumption of its factorisation theorem).
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    strength = walk_graph(graph).strength
    if strength.sum() <= 0:
        raise ValueError("the graph has no edge, so no root can be drawn by degree")
    return np.random.default_rng(check_seed(seed)).choice(len(strength), size=count, p=strength / strength.sum())
