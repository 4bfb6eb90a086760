"""node2vec: second-order walks, skip-gram, edge features, and the exact law of a walk's next step."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numba import njit
from scipy.stats import chi2

from netatlas.core.graph import as_csr
from netatlas.embeddings._random import check_seed
from netatlas.embeddings.sgns import Embedding, skip_gram
from netatlas.embeddings.walks import _position, node2vec_walks, walk_graph


def node2vec(
    graph,
    *,
    p: float = 1.0,
    q: float = 1.0,
    dimension: int = 128,
    walks_per_node: int = 10,
    length: int = 80,
    window: int = 10,
    negatives: int = 5,
    epochs: int = 1,
    learning_rate: float = 0.025,
    seed: int = 0,
) -> Embedding:
    r"""Node embeddings from biased walks; :math:`p = q = 1` is DeepWalk with negative sampling.

    Args:
        graph: anything that :func:`netatlas.embeddings.walks.walk_graph` reads.
        p, q: return and in-out parameter of the walk.
        dimension, window, negatives, epochs, learning_rate: of the skip-gram learner.
        walks_per_node, length: of the walks.
        seed: the result is a function of the seed alone.

    Returns:
        :class:`~netatlas.embeddings.sgns.Embedding`; ``input`` holds the node embeddings ``[n, dimension]``.

    Raises:
        ValueError: for a bad graph or a parameter out of range.

    Source: ``grover2016node2vec``, the node2vec algorithm.
    """
    walker = walk_graph(graph)
    walks = node2vec_walks(walker, p=p, q=q, walks_per_node=walks_per_node, length=length, seed=seed)
    return skip_gram(
        walks, walker.num_nodes, dimension=dimension, window=window, negatives=negatives, epochs=epochs,
        learning_rate=learning_rate, seed=seed,
    )  # fmt: skip


def edge_features(
    embedding: Float[np.ndarray, "n d"],
    pairs: Int[np.ndarray, "m 2"],
    operator: Literal["average", "hadamard", "l1", "l2"] = "hadamard",
) -> Float[np.ndarray, "m d"]:
    r"""Features of node pairs from the embeddings of their ends.

    .. math::
        \text{average } \tfrac12 (f_u + f_v), \quad \text{hadamard } f_u \odot f_v, \quad
        \text{l1 } |f_u - f_v|, \quad \text{l2 } (f_u - f_v)^2

    Args:
        embedding: ``[n, d]``.
        pairs: node indices ``[m, 2]``.
        operator: one of the four names.

    Raises:
        ValueError: for an unknown operator, or pairs that are not ``[m, 2]`` indices of rows.

    Source: ``grover2016node2vec``, edge features.
    """
    embedding, pairs = np.asarray(embedding), np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"pairs must be node indices of shape [m, 2], got {pairs.dtype} {pairs.shape}")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= len(embedding)):
        raise ValueError(f"pairs must lie in 0..{len(embedding) - 1}, got {pairs.min()}..{pairs.max()}")
    left, right = embedding[pairs[:, 0]], embedding[pairs[:, 1]]
    if operator == "average":
        return (left + right) / 2
    if operator == "hadamard":
        return left * right
    if operator == "l1":
        return np.abs(left - right)
    if operator == "l2":
        return (left - right) ** 2
    raise ValueError(f"operator must be one of average, hadamard, l1, l2, got {operator!r}")


class LinkSplit(NamedTuple):
    """Edges hidden from a graph and as many pairs that are no edges.

    Attributes:
        train: adjacency matrix without the hidden edges, ``csr_array [n, n]``.
        pairs: hidden edges, then non-edges, ``[2 m, 2]``.
        labels: 1 for an edge and 0 for a non-edge, ``[2 m]``.
    """

    train: sp.csr_array
    pairs: np.ndarray
    labels: np.ndarray


def link_split(graph, fraction: float = 0.5, *, seed: int = 0) -> LinkSplit:
    """Hide a share of the edges of an undirected graph without cutting any component in two.

    A random spanning forest stays, so fewer edges than asked are hidden when too few lie outside it.

    Args:
        graph: undirected, anything that ``netatlas.core.graph.as_csr`` reads.
        fraction: share of the edges to hide, between 0 and 1.
        seed: random seed.

    Raises:
        ValueError: for a directed graph, a fraction outside (0, 1), or a graph in which no edge can be hidden.

    Source: ``grover2016node2vec``, link prediction.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    adjacency = as_csr(graph)
    if (adjacency != adjacency.T).nnz:
        raise ValueError("expected an undirected graph: its adjacency matrix must be symmetric")
    rng = np.random.default_rng(check_seed(seed))
    upper = sp.coo_array(sp.triu(adjacency, 1))
    weights = sp.coo_array((rng.uniform(1, 2, upper.nnz), (upper.row, upper.col)), shape=upper.shape)
    forest = sp.csr_array(sp.csgraph.minimum_spanning_tree(sp.csr_array(weights)))
    n = adjacency.shape[0]
    tree = sp.coo_array(forest)
    keys = upper.row.astype(np.int64) * n + upper.col
    loose = np.flatnonzero(~np.isin(keys, tree.row.astype(np.int64) * n + tree.col))
    hidden = rng.permutation(loose)[: round(fraction * upper.nnz)]
    if hidden.size == 0:
        raise ValueError("no edge can be hidden without cutting the graph")
    kept = np.setdiff1d(np.arange(upper.nnz), hidden)
    half = sp.coo_array((upper.data[kept], (upper.row[kept], upper.col[kept])), shape=upper.shape)
    non_edges = np.empty(0, np.int64)
    while len(non_edges) < len(hidden):
        draw = rng.integers(0, n, size=(2, 4 * len(hidden)))
        low, high = draw.min(axis=0), draw.max(axis=0)
        fresh = low[low != high] * n + high[low != high]
        fresh = np.unique(np.concatenate([non_edges, fresh[~np.isin(fresh, keys)]]))
        non_edges = rng.permutation(fresh)
        if n * (n - 1) // 2 - len(keys) < len(hidden):
            raise ValueError("the graph is too dense: it has fewer non-edges than hidden edges")
    non_edges = non_edges[: len(hidden)]
    pairs = np.concatenate([keys[hidden], non_edges])
    pairs = np.stack([pairs // n, pairs % n], axis=1)
    return LinkSplit(sp.csr_array(half + half.T), pairs, np.repeat([1, 0], len(hidden)))


@njit(cache=True)
def _law(indptr, indices, weights, p, q, offsets, out):
    for t in range(len(indptr) - 1):
        for e in range(indptr[t], indptr[t + 1]):
            v = indices[e]
            total = 0.0
            for k in range(indptr[v], indptr[v + 1]):
                x = indices[k]
                bias = 1.0 / q
                if x == t:
                    bias = 1.0 / p
                elif _position(indices, indptr[t], indptr[t + 1], x) >= 0:
                    bias = 1.0
                out[offsets[e] + k - indptr[v]] = bias * weights[k]
                total += bias * weights[k]
            for k in range(indptr[v + 1] - indptr[v]):
                out[offsets[e] + k] /= total


@njit(cache=True)
def _tally(walks, indptr, indices, offsets, out):
    for w in range(walks.shape[0]):
        for i in range(2, walks.shape[1]):
            if walks[w, i] < 0:
                break
            t, v, x = walks[w, i - 2], walks[w, i - 1], walks[w, i]
            e = _position(indices, indptr[t], indptr[t + 1], v)
            k = _position(indices, indptr[v], indptr[v + 1], x)
            out[offsets[e] + k - indptr[v]] += 1


class StepTable(NamedTuple):
    """One row of numbers for every directed edge (t, v), rows of unequal length laid end to end.

    Attributes:
        offsets: where the row of directed edge e (in CSR order) starts, ``int64 [m + 1]``.
        values: one number per neighbour of v, in CSR order.
    """

    offsets: np.ndarray
    values: np.ndarray


def _offsets(walker) -> np.ndarray:
    degrees = np.diff(walker.indptr)
    return np.concatenate([[0], np.cumsum(degrees[walker.indices])]).astype(np.int64)


def second_order_law(graph, *, p: float, q: float) -> StepTable:
    r"""Exact distribution of the next step of a node2vec walk for every directed edge just crossed.

    .. math:: \Pr(x \mid t, v) = \frac{\alpha_{pq}(t, x)\, w_{vx}}{\sum_y \alpha_{pq}(t, y)\, w_{vy}}

    Args:
        graph: anything that :func:`netatlas.embeddings.walks.walk_graph` reads.
        p, q: positive.

    Returns:
        :class:`StepTable` whose rows sum to one. It has :math:`\sum_v d_v^2` entries in an undirected graph: the memory
        that rejection sampling saves.

    Raises:
        ValueError: for a bad graph, or p or q not positive.

    Source: ``grover2016node2vec``, the search bias.
    """
    if not (p > 0 and q > 0):
        raise ValueError(f"p and q must be positive, got {p}, {q}")
    walker = walk_graph(graph)
    offsets = _offsets(walker)
    values = np.empty(offsets[-1])
    _law(walker.indptr, walker.indices, walker.weights, float(p), float(q), offsets, values)
    return StepTable(offsets, values)


def second_order_counts(graph, walks: Int[np.ndarray, "w length"]) -> StepTable:
    """How often each neighbour followed each directed edge on the walks, laid out as :func:`second_order_law`.

    Raises:
        ValueError: for a bad graph.

    Source: ``grover2016node2vec``, the search bias.
    """
    walker = walk_graph(graph)
    offsets = _offsets(walker)
    values = np.zeros(offsets[-1])
    _tally(np.asarray(walks), walker.indptr, walker.indices, offsets, values)
    return StepTable(offsets, values)


class ChiSquare(NamedTuple):
    """A chi-square statistic, its degrees of freedom, and the probability of a larger one under the null."""

    statistic: float
    df: int
    p_value: float


def transition_test(counts: StepTable, law: StepTable, *, least: float = 5.0) -> ChiSquare:
    r"""Pearson's test of counted next steps against a law, pooled over all directed edges.

    .. math:: \chi^2 = \sum_{(t,v)} \sum_{x} \frac{(O_{tvx} - E_{tvx})^2}{E_{tvx}}, \qquad
        E_{tvx} = N_{tv} \Pr(x \mid t, v)

    Cells of a row with an expectation below ``least`` are merged into one; if that one is still too small it joins the
    smallest of the others. The degrees of freedom are the cells left, minus one a row.

    Args:
        counts: from :func:`second_order_counts`.
        law: from :func:`second_order_law`.
        least: smallest expectation a cell may have.

    Raises:
        ValueError: for tables of two different graphs.

    Source: ``grover2016node2vec`` (check of the sampler).
    """
    if not np.array_equal(counts.offsets, law.offsets):
        raise ValueError("counts and law must belong to the same graph")
    statistic, df = 0.0, 0
    for start, stop in zip(law.offsets[:-1], law.offsets[1:]):
        observed, share = counts.values[start:stop], law.values[start:stop]
        expected = observed.sum() * share
        small = expected < least
        if small.any():
            observed = np.append(observed[~small], observed[small].sum())
            expected = np.append(expected[~small], expected[small].sum())
            if expected[-1] < least and len(expected) > 1:
                host = int(expected[:-1].argmin())
                observed[host] += observed[-1]
                expected[host] += expected[-1]
                observed, expected = observed[:-1], expected[:-1]
        if len(expected) < 2:
            continue
        statistic += float(((observed - expected) ** 2 / expected).sum())
        df += len(expected) - 1
    return ChiSquare(statistic, df, float(chi2.sf(statistic, df)) if df else 1.0)
