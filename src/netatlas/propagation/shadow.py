"""Scope apart from depth: a small subgraph around every target, on which a network of any depth runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numba import njit

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import propagation_limit, require_undirected


class Scopes(NamedTuple):
    """The nodes around several targets, each target's own list beginning with itself.

    Attributes:
        nodes: Node numbers of all scopes one after the other.
        pointer: Where each scope begins, ``[T + 1]``.
    """

    nodes: np.ndarray
    pointer: np.ndarray

    @property
    def sizes(self) -> Int[np.ndarray, " T"]:
        """Nodes in every scope."""
        return np.diff(self.pointer)

    @property
    def centres(self) -> Int[np.ndarray, " T"]:
        """Place of each target in the disjoint union of the scopes."""
        return self.pointer[:-1]


def _targets(targets: Any, nodes: int) -> np.ndarray:
    targets = np.asarray(targets)
    require(targets.ndim == 1 and targets.size > 0, "at least one target", targets.shape)
    require(np.issubdtype(targets.dtype, np.integer), "integer targets", targets.dtype)
    require(targets.min() >= 0 and targets.max() < nodes, f"targets in [0, {nodes})", (targets.min(), targets.max()))
    return targets.astype(np.int64)


@njit(cache=True)
def _push(indptr, indices, weights, degree, targets, alpha, epsilon, size):
    n = len(indptr) - 1
    score, residual = np.zeros(n), np.zeros(n)
    seen, queued = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    touched = np.empty(n, np.int64)
    queue = np.empty(n, np.int64)
    nodes = np.empty(len(targets) * size, np.int64)
    values = np.empty(len(targets) * size)
    pointer = np.zeros(len(targets) + 1, np.int64)
    filled = 0
    for t in range(len(targets)):
        target, count = targets[t], 1
        touched[0] = target
        seen[target] = True
        residual[target] = 1.0
        queue[0] = target
        queued[target] = True
        head, waiting = 0, 1
        while waiting > 0:
            u = queue[head]
            head = head + 1 if head + 1 < n else 0
            waiting -= 1
            queued[u] = False
            if degree[u] == 0.0:
                score[u] += residual[u]
                residual[u] = 0.0
                continue
            mass = residual[u]
            residual[u] = 0.0
            score[u] += alpha * mass
            share = (1.0 - alpha) * mass / degree[u]
            for e in range(indptr[u], indptr[u + 1]):
                v = indices[e]
                residual[v] += share * weights[e]
                if not seen[v]:
                    seen[v] = True
                    touched[count] = v
                    count += 1
                if residual[v] > epsilon * degree[v] and not queued[v]:
                    queued[v] = True
                    tail = head + waiting
                    queue[tail if tail < n else tail - n] = v
                    waiting += 1
        # Equal scores go by node number, so that the order of the queue cannot show.
        order = np.sort(touched[:count])
        rank = np.argsort(-score[order], kind="mergesort")
        nodes[filled] = target
        values[filled] = score[target]
        filled += 1
        kept = 1
        for k in rank:
            v = order[k]
            if kept == size or score[v] <= 0.0:
                break
            if v != target:
                nodes[filled] = v
                values[filled] = score[v]
                filled += 1
                kept += 1
        for k in range(count):
            v = touched[k]
            score[v] = residual[v] = 0.0
            seen[v] = False
        pointer[t + 1] = filled
    return nodes[:filled].copy(), values[:filled].copy(), pointer


def approximate_ppr(
    graph: Any, targets: Int[np.ndarray, " T"], size: int, *, alpha: float = 0.15, epsilon: float = 1e-4
) -> tuple[Scopes, Float[np.ndarray, " total"]]:
    r"""The nodes of largest approximate personalised PageRank around every target, by local pushes.

    A push at :math:`u` moves :math:`\alpha r_u` of its residual into its score and shares the rest among its
    neighbours; it ends when :math:`r_u \le \epsilon d_u` everywhere, so that every score is short of the exact one by
    at most :math:`\epsilon d_v`, and the work for a target is :math:`O(1 / (\alpha \epsilon))`, whatever the graph.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        targets: Target nodes.
        size: Most nodes of a scope, the target included.
        alpha: Probability :math:`\alpha` that the walk stops, in (0, 1).
        epsilon: Precision :math:`\epsilon`, positive.

    Returns:
        The scopes, nodes by falling score after the target, and the scores.

    Raises:
        ValueError: For targets out of range, sizes or precisions that are not positive, a probability outside (0, 1),
            or a directed or bad graph.

    Source: zeng2021shadow; the push is that of Andersen, Chung and Lang (2006).
    """
    matrix = require_undirected(as_csr(graph))
    targets = _targets(targets, matrix.shape[0])
    require(size >= 1, "a size of at least 1", size)
    require(0 < alpha < 1, "a stopping probability in (0, 1)", alpha)
    require(epsilon > 0, "a positive precision", epsilon)
    degree = matrix.sum(1)
    arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data
    nodes, values, pointer = _push(*arrays, degree, targets, float(alpha), float(epsilon), min(size, matrix.shape[0]))
    return Scopes(nodes, pointer), values


@njit(cache=True)
def _next(state):
    # splitmix64: one stream a target, whatever the order of the targets.
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@njit(cache=True)
def _hops(indptr, indices, targets, hops, budget, seed, limit):
    n = len(indptr) - 1
    mark = np.full(n, -1, np.int64)
    nodes = np.empty(1024, np.int64)
    pointer = np.zeros(len(targets) + 1, np.int64)
    filled = 0
    for t in range(len(targets)):
        state = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(targets[t])
        start = filled
        if filled + n > len(nodes):
            grown = np.empty(2 * len(nodes) + n, np.int64)
            grown[:filled] = nodes[:filled]
            nodes = grown
        nodes[filled] = targets[t]
        mark[targets[t]] = t
        filled += 1
        first = start
        for _ in range(hops):
            last = filled
            for place in range(first, last):
                u = nodes[place]
                low, high = indptr[u], indptr[u + 1]
                many = budget >= 0 and high - low > budget
                for k in range(budget if many else high - low):
                    e = low + k
                    if many:
                        state, word = _next(state)
                        e = low + np.int64(word % np.uint64(high - low))
                    v = indices[e]
                    if mark[v] != t and (limit < 0 or filled - start < limit):
                        mark[v] = t
                        nodes[filled] = v
                        filled += 1
            first = last
        pointer[t + 1] = filled
    return nodes[:filled].copy(), pointer


def khop_scopes(graph: Any, targets: Int[np.ndarray, " T"], hops: int, *, budget: int = -1, seed: int = 0) -> Scopes:
    """The nodes within some hops of every target, at most ``budget`` random neighbours of each.

    A node with more neighbours than the budget draws so many with replacement and keeps the distinct ones. Each target
    has a stream of its own, so that its scope does not depend on the other targets.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.
        targets: Target nodes.
        hops: Number of hops, at least 0.
        budget: Most neighbours of a node; -1 takes all.
        seed: Draws the neighbours.

    Raises:
        ValueError: For targets out of range, negative hops, a budget of 0 or below -1, or a bad graph.

    Source: zeng2021shadow.
    """
    matrix = as_csr(graph)
    targets = _targets(targets, matrix.shape[0])
    require(hops >= 0, "hops of at least 0", hops)
    require(budget == -1 or budget >= 1, "a budget of at least 1, or -1", budget)
    require(seed >= 0, "a seed of at least 0", seed)
    arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    return Scopes(*_hops(*arrays, targets, hops, budget, seed, -1))


@njit(cache=True)
def _grow(indptr, indices, targets, sizes, seed):
    n = len(indptr) - 1
    mark = np.full(n, -1, np.int64)
    border = np.empty(n, np.int64)
    nodes = np.empty(sizes.sum(), np.int64)
    pointer = np.zeros(len(targets) + 1, np.int64)
    filled = 0
    for t in range(len(targets)):
        state = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(targets[t])
        border[0] = targets[t]
        mark[targets[t]] = t
        waiting, taken = 1, 0
        while waiting > 0 and taken < sizes[t]:
            state, word = _next(state)
            k = np.int64(word % np.uint64(waiting)) if taken else 0
            u = border[k]
            waiting -= 1
            border[k] = border[waiting]
            nodes[filled] = u
            filled += 1
            taken += 1
            for e in range(indptr[u], indptr[u + 1]):
                v = indices[e]
                if mark[v] != t:
                    mark[v] = t
                    border[waiting] = v
                    waiting += 1
        pointer[t + 1] = filled
    return nodes[:filled].copy(), pointer


def random_scopes(graph: Any, targets: Int[np.ndarray, " T"], sizes: Int[np.ndarray, " T"], *, seed: int = 0) -> Scopes:
    """Connected node sets around every target, grown by uniformly drawn nodes from the border: a scope without choice.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.
        targets: Target nodes.
        sizes: Nodes of each scope; fewer where the component is smaller.
        seed: Draws the nodes.

    Raises:
        ValueError: For targets out of range, sizes below 1 or of another number, or a bad graph.

    Source: zeng2021shadow (a control).
    """
    matrix = as_csr(graph)
    targets = _targets(targets, matrix.shape[0])
    sizes = np.broadcast_to(np.asarray(sizes, np.int64), targets.shape).copy()
    require(bool((sizes >= 1).all()), "sizes of at least 1", sizes.min())
    require(seed >= 0, "a seed of at least 0", seed)
    arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
    return Scopes(*_grow(*arrays, targets, sizes, seed))


@njit(cache=True)
def _induce(indptr, indices, data, nodes, pointer):
    n = len(indptr) - 1
    place = np.full(n, -1, np.int64)
    rows = np.zeros(len(nodes) + 1, np.int64)
    columns = np.empty(0, np.int64)
    values = np.empty(0)
    for turn in range(2):
        if turn == 1:
            for k in range(len(nodes)):
                rows[k + 1] += rows[k]
            columns = np.empty(rows[-1], np.int64)
            values = np.empty(rows[-1])
        for t in range(len(pointer) - 1):
            low, high = pointer[t], pointer[t + 1]
            for k in range(low, high):
                place[nodes[k]] = k
            for k in range(low, high):
                u = nodes[k]
                at = rows[k]
                for e in range(indptr[u], indptr[u + 1]):
                    v = place[indices[e]]
                    if v >= 0:
                        if turn == 1:
                            columns[at] = v
                            values[at] = data[e]
                        at += 1
                if turn == 0:
                    rows[k + 1] = at - rows[k]
            for k in range(low, high):
                place[nodes[k]] = -1
    return rows, columns, values


def scope_union(graph: Any, scopes: Scopes) -> sp.csr_array:
    """The subgraphs that the scopes induce, as one graph of disjoint parts.

    A node in several scopes is a separate copy in each.

    Args:
        graph: The graph that the scopes were taken from.
        scopes: The scopes.

    Returns:
        Adjacency ``[total, total]``, rows in the order of ``scopes.nodes``.

    Raises:
        ValueError: For scopes with nodes beyond the graph, or a bad graph.

    Source: zeng2021shadow.
    """
    matrix = as_csr(graph)
    require(
        scopes.nodes.size > 0 and scopes.nodes.max() < matrix.shape[0], "scopes inside the graph", len(scopes.nodes)
    )
    arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data
    rows, columns, values = _induce(*arrays, scopes.nodes, scopes.pointer)
    return as_csr(sp.csr_array((values, columns, rows), shape=(len(scopes.nodes),) * 2))


def scope_means(values: Float[np.ndarray, "total F"], scopes: Scopes) -> Float[np.ndarray, "T F"]:
    """Mean over the nodes of each scope.

    Args:
        values: One row a node of the union.
        scopes: The scopes.

    Raises:
        ValueError: For another number of rows.
    """
    require(len(values) == len(scopes.nodes), f"{len(scopes.nodes)} rows", len(values))
    return np.add.reduceat(values, scopes.pointer[:-1], axis=0) / scopes.sizes[:, None]


def scoped_propagation(
    graph: Any, scopes: Scopes, x: Float[np.ndarray, "n F"], depths: list[int | None]
) -> dict[int | None, Float[np.ndarray, "T G"]]:
    r"""Features of the targets after propagation inside their scopes: the target's own row beside the scope's mean.

    .. math:: \bigl[ (\hat A_{[v]}^L X_{[v]})_v \,\Vert\,
        \tfrac{1}{|G_{[v]}|} \mathbf 1^\top \hat A_{[v]}^L X_{[v]} \bigr]

    with degrees counted inside the scope.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        scopes: Scopes of the targets.
        x: Features.
        depths: Depths :math:`L`; ``None`` is the limit, in closed form.

    Returns:
        For each depth ``[T, 2 F]``.

    Raises:
        ValueError: For features of another length or not finite, or a negative depth.

    Source: zeng2021shadow.
    """
    union = scope_union(graph, scopes)
    x = np.asarray(x, dtype=float)
    require(x.ndim == 2 and len(x) == as_csr(graph).shape[0], "features of the graph's nodes", x.shape)
    require_finite("x", x)
    finite = sorted({d for d in depths if d is not None})
    require(not finite or finite[0] >= 0, "depths of at least 0", finite)
    step = normalized_adjacency(union, "sym", self_loops=True)
    found: dict[int | None, np.ndarray] = {}
    if None in depths:
        limit = propagation_limit(union, x[scopes.nodes])
        found[None] = np.concatenate([limit[scopes.centres], scope_means(limit, scopes)], axis=1)
    # The propagation is symmetric: instead of all features, the two readouts travel, one column for all scopes.
    readout = np.zeros((len(scopes.nodes), 2))
    readout[scopes.centres, 0] = 1
    readout[:, 1] = np.repeat(1 / scopes.sizes, scopes.sizes)
    shape, taken = (len(scopes.sizes), len(x)), 0
    for depth in finite:
        for _ in range(depth - taken):
            readout = step @ readout
        taken = depth
        weights = [sp.csr_array((np.ascontiguousarray(c), scopes.nodes, scopes.pointer), shape) for c in readout.T]
        found[depth] = np.concatenate([w @ x for w in weights], axis=1)
    return found
