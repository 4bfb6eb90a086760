"""What walks say about a node without naming the others: patterns of return, degrees met, and visits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from netatlas.core.checks import require
from netatlas.core.graph import as_csr


@cache
def _patterns(steps: int) -> np.ndarray:
    rows = [[0]]
    for _ in range(steps):
        rows = [[*row, i] for row in rows for i in range(max(row) + 2) if i != row[-1]]
    return np.array(rows, np.int64)


def anonymous_patterns(steps: int) -> Int[np.ndarray, "k steps+1"]:
    r"""All anonymous walks of a number of steps on graphs without loops, in lexicographic order.

    An anonymous walk replaces every node by the index of its first occurrence: 0, then a new index or an old one, never
    the one just left. Their number is Bell's, :math:`1, 2, 5, 15, 52, 203, \ldots` for 1, 2, 3, ... steps.

    Args:
        steps: from 1 to 9 (21147 patterns).

    Raises:
        ValueError: for a number of steps out of range.

    Source: ``qin2024irwe``, anonymous walks (after Ivanov and Burnaev, 2018).
    """
    require(1 <= steps <= 9, "1 to 9 steps", steps)
    return _patterns(steps).copy()


@njit(cache=True)
def _anonymise(walks, out):
    count, length = walks.shape
    for w in range(count):
        fresh = 0
        for i in range(length):
            found = -1
            for j in range(i):
                if walks[w, j] == walks[w, i]:
                    found = out[w, j]
                    break
            if found < 0:
                found = fresh
                fresh += 1
            out[w, i] = found


def anonymous_walk_ids(walks: Int[np.ndarray, "w length"]) -> Int[np.ndarray, " w"]:
    """Index of each walk's anonymous walk in :func:`anonymous_patterns`; -1 for a walk that ended early.

    Args:
        walks: node indices ``[walks, length]``, 2 to 10 nodes a walk, negative after the end of a walk.

    Raises:
        ValueError: for walks that are not two-dimensional integers of 2 to 10 nodes, or with a node twice in a row.

    Source: ``qin2024irwe``, anonymous walks.
    """
    walks = np.asarray(walks)
    if walks.ndim != 2 or not np.issubdtype(walks.dtype, np.integer):
        raise ValueError(f"walks must be an integer array [walks, length], got {walks.dtype} {walks.shape}")
    require(2 <= walks.shape[1] <= 10, "walks of 2 to 10 nodes", walks.shape[1])
    whole = (walks >= 0).all(axis=1)
    if (walks[whole, 1:] == walks[whole, :-1]).any():
        raise ValueError("walks must not stay at a node, got the same node twice in a row (a loop in the graph)")
    named = np.zeros(walks.shape, np.int64)
    _anonymise(np.ascontiguousarray(walks), named)
    base = walks.shape[1]
    digits = base ** np.arange(base)[::-1]
    # Lexicographic order of the patterns is the numerical order of their digits.
    found = np.searchsorted(_patterns(base - 1) @ digits, named[whole] @ digits)
    out = np.full(len(walks), -1, np.int64)
    out[whole] = found
    return out


def anonymous_walk_law(steps: int, nodes: int) -> Float[np.ndarray, " k"]:
    r"""Probability of every anonymous walk on the complete graph, where it depends on its distinct nodes m alone.

    .. math:: \Pr = \frac{(N - 1)!}{(N - m)!\,(N - 1)^{\ell}}

    Args:
        steps: :math:`\ell`.
        nodes: N, at least 2.

    Returns:
        One probability for each row of :func:`anonymous_patterns`; they sum to one.

    Raises:
        ValueError: for fewer than two nodes or a number of steps out of range.

    Source: ``qin2024irwe`` (a check of this book on the sampler of its anonymous walks).
    """
    require(nodes >= 2, "at least two nodes", nodes)
    distinct = anonymous_patterns(steps).max(axis=1) + 1
    # The m-th new node is one of N - m + 1 out of N - 1 neighbours; a return is one particular neighbour.
    falling = np.cumprod(np.concatenate([[1.0], nodes - np.arange(1.0, steps + 1)]))
    return falling[distinct - 1] / float(nodes - 1) ** steps


def _by_node(walks: np.ndarray, num_nodes: int) -> np.ndarray:
    walks = np.asarray(walks)
    if walks.ndim != 2 or walks.size == 0 or not np.issubdtype(walks.dtype, np.integer):
        raise ValueError(f"walks must be a non-empty integer array [walks, length], got {walks.dtype} {walks.shape}")
    if walks.max() >= num_nodes or walks[:, 0].min() < 0:
        raise ValueError(f"walks must start at and hold nodes below {num_nodes}")
    return walks


def anonymous_walk_histogram(walks: Int[np.ndarray, "w length"], num_nodes: int) -> Float[np.ndarray, "n k"]:
    r"""Frequencies :math:`s(v)` of the anonymous walks among a node's walks.

    Args:
        walks: node indices ``[walks, length]``, any number from each node.
        num_nodes: n.

    Returns:
        ``[n, k]``; rows sum to one, or are zero for a node from which no walk went the whole length.

    Raises:
        ValueError: as :func:`anonymous_walk_ids`, and for nodes out of range.

    Source: ``qin2024irwe``, anonymous-walk statistics.
    """
    walks = _by_node(walks, num_nodes)
    ids, k = anonymous_walk_ids(walks), len(_patterns(walks.shape[1] - 1))
    whole = ids >= 0
    counts = np.bincount(walks[whole, 0] * k + ids[whole], minlength=num_nodes * k).reshape(num_nodes, k)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def degree_buckets(graph: Any, count: int = 8) -> Float[np.ndarray, " count-1"]:
    """Boundaries of log-spaced degree buckets, from the smallest to the largest positive degree of a graph.

    Fix them on the training graph and use them on every other: a bucket must mean the same degree everywhere.

    Args:
        graph: anything that ``netatlas.core.graph.as_csr`` reads.
        count: number of buckets, at least 2.

    Returns:
        ``count - 1`` increasing boundaries; a degree belongs to the bucket ``numpy.searchsorted`` says.

    Raises:
        ValueError: for a bad graph, one without edges, or fewer than two buckets.

    Source: ``qin2024irwe``, high-order degree features.
    """
    require(count >= 2, "at least two buckets", count)
    degree = np.asarray(as_csr(graph).sum(axis=1)).ravel()
    require(degree.max() > 0, "a graph with an edge", "none")
    low, high = degree[degree > 0].min(), degree.max()
    return np.geomspace(low, max(high, low * 1.001), count + 1)[1:-1]


def walk_degree_histogram(
    graph: Any, walks: Int[np.ndarray, "w length"], buckets: Float[np.ndarray, " b-1"]
) -> Float[np.ndarray, "n length*b"]:
    r"""Degrees :math:`\delta(v)` met on a node's walks: one histogram over the buckets for every step.

    Args:
        graph: the graph of the walks, n nodes.
        walks: node indices ``[walks, length]``.
        buckets: increasing boundaries, from :func:`degree_buckets` of the training graph.

    Returns:
        ``[n, length * b]``, the histograms of steps 0, 1, ... side by side, each summing to one (to zero where no walk
        came so far).

    Raises:
        ValueError: for bad walks or boundaries that do not increase.

    Source: ``qin2024irwe``, high-order degree features.
    """
    adjacency = as_csr(graph)
    n = adjacency.shape[0]
    walks, buckets = _by_node(walks, n), np.asarray(buckets, dtype=float)
    require(buckets.ndim == 1 and bool((np.diff(buckets) > 0).all()), "increasing boundaries", buckets)
    bucket = np.searchsorted(buckets, np.asarray(adjacency.sum(axis=1)).ravel())
    size, length = len(buckets) + 1, walks.shape[1]
    cell = (walks[:, :1] * length + np.arange(length)) * size + bucket[walks]
    counts = np.bincount(cell[walks >= 0], minlength=n * length * size).reshape(n, length, size)
    return (counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)).reshape(n, length * size)


def walk_visit_counts(walks: Int[np.ndarray, "w length"], num_nodes: int) -> Float[np.ndarray, "n n"]:
    r"""Visits :math:`r(v)`: the share of a node's walk positions, its own start included, at every node.

    Args:
        walks: node indices ``[walks, length]``.
        num_nodes: n.

    Returns:
        ``[n, n]``, rows summing to one (zero for a node without walks).

    Raises:
        ValueError: for bad walks.

    Source: ``qin2024irwe``, random-walk statistics of positions.
    """
    walks = _by_node(walks, num_nodes)
    cell = walks[:, :1].astype(np.int64) * num_nodes + walks
    counts = np.bincount(cell[walks >= 0], minlength=num_nodes * num_nodes).reshape(num_nodes, num_nodes)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def gaussian_projection(rows: int, dimension: int, *, seed: int = 0) -> Float[np.ndarray, "n d"]:
    r"""A Gaussian matrix :math:`\Theta` with entries of variance :math:`1/d`: it keeps lengths on average.

    Args:
        rows: number of rows, one a node.
        dimension: d.
        seed: random seed.

    Raises:
        ValueError: for sizes below one.

    Source: ``qin2024irwe``, global position code.
    """
    require(rows >= 1 and dimension >= 1, "sizes of at least 1", (rows, dimension))
    return np.random.default_rng(seed).standard_normal((rows, dimension)) / np.sqrt(dimension)
