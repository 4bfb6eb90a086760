"""Co-occurrence matrices of random walks, counted or in closed form, and their factors."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numba import njit

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.linalg import truncated_svd

# Above this many cells a dense count matrix no longer pays.
_DENSE_CELLS = 1 << 24


@njit(cache=True)
def _count(walks, reach, out):
    count, length = walks.shape
    for w in range(count):
        for i in range(length):
            if walks[w, i] < 0:
                break
            for o in range(1, min(len(reach), length - 1 - i) + 1):
                if walks[w, i + o] < 0:
                    break
                out[walks[w, i], walks[w, i + o]] += reach[o - 1]


def cooccurrence(
    walks: Int[np.ndarray, "w length"], num_nodes: int, window: int, *, weighting: Literal["linear", "flat"] = "linear"
) -> sp.csr_array:
    r"""How often two nodes stand within a window of each other on the walks, counted in both orders.

    .. math::
        C_{uv} = \sum_{o=1}^{k} g_o\, \#\{(w, i) : \{x^w_i, x^w_{i+o}\} = (u, v) \text{ in either order}\}, \qquad
        g_o = \frac{k - o + 1}{k} \text{ or } 1

    The linear weights are the expectation of word2vec's dynamic window.

    Args:
        walks: node indices ``[walks, length]``; a negative entry ends its walk.
        num_nodes: number of nodes n.
        window: k, at least 1.
        weighting: ``"linear"`` or ``"flat"``.

    Returns:
        Symmetric ``csr_array [n, n]`` of float64.

    Raises:
        ValueError: for walks that are not two-dimensional integers over 0..n-1, a window below 1, an unknown weighting.

    Source: ``grover2016node2vec``, the objective.
    """
    walks = np.asarray(walks)
    if walks.ndim != 2 or not np.issubdtype(walks.dtype, np.integer):
        raise ValueError(f"walks must be an integer array [walks, length], got {walks.dtype} {walks.shape}")
    if walks.size and walks.max() >= num_nodes:
        raise ValueError(f"walks must hold nodes below {num_nodes}, got {walks.max()}")
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    if weighting not in ("linear", "flat"):
        raise ValueError(f"weighting must be 'linear' or 'flat', got {weighting!r}")
    reach = (window - np.arange(window)) / window if weighting == "linear" else np.ones(window)
    if num_nodes * num_nodes <= _DENSE_CELLS:
        dense = np.zeros((num_nodes, num_nodes))
        _count(walks, reach, dense)
        total = sp.csr_array(dense)
    else:
        total = sp.csr_array((num_nodes, num_nodes))
        for offset, weight in enumerate(reach[: walks.shape[1] - 1], 1):
            left, right = walks[:, :-offset].ravel(), walks[:, offset:].ravel()
            kept = (left >= 0) & (right >= 0)
            pairs = (left[kept], right[kept])
            ones = np.full(len(pairs[0]), weight)
            total = total + sp.coo_array((ones, pairs), shape=total.shape).tocsr()
    return sp.csr_array(total + total.T)


def ppmi(counts: sp.csr_array | Float[np.ndarray, "n m"], *, shift: float = 1.0) -> sp.csr_array:
    r"""Positive pointwise mutual information of a matrix of counts.

    .. math:: M_{uv} = \max\Big(0, \log \frac{C_{uv} \sum_{ab} C_{ab}}{\sum_b C_{ub} \sum_a C_{av}} - \log K\Big)

    Args:
        counts: non-negative counts ``[n, m]``, sparse or dense.
        shift: K, the number of negative samples whose optimum is meant; 1 gives plain PPMI.

    Returns:
        ``csr_array [n, m]``; rows without counts are zero.

    Raises:
        ValueError: for negative or non-finite counts, no counts at all, or a shift that is not positive.

    Source: ``grover2016node2vec`` (the matrix its learner factorises, after Levy and Goldberg, 2014).
    """
    matrix = sp.coo_array(counts).astype(np.float64)
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise ValueError("counts must be finite and non-negative")
    if not shift > 0:
        raise ValueError(f"shift must be positive, got {shift}")
    total = matrix.data.sum()
    if total <= 0:
        raise ValueError("counts must not all be zero")
    kept = matrix.data > 0
    row, column, data = matrix.row[kept], matrix.col[kept], matrix.data[kept]
    rows = np.bincount(row, data, minlength=matrix.shape[0])
    columns = np.bincount(column, data, minlength=matrix.shape[1])
    value = np.maximum(np.log(data * total / (rows[row] * columns[column] * shift)), 0.0)
    out = sp.coo_array((value, (row, column)), shape=matrix.shape).tocsr()
    out.eliminate_zeros()
    return out


def netmf(graph, *, window: int = 10, negatives: float = 1.0) -> Float[np.ndarray, "n n"]:
    r"""The matrix that DeepWalk factorises in the limit of infinitely many walks.

    .. math::
        M = \log \max\Big(1, \frac{\mathrm{vol}(G)}{b\,T} \Big(\sum_{r=1}^{T} P^r\Big) D^{-1}\Big), \qquad P = D^{-1} A

    Args:
        graph: undirected, anything that ``netatlas.core.graph.as_csr`` reads.
        window: T.
        negatives: b.

    Returns:
        Dense matrix ``[n, n]``; columns of isolated nodes are zero.

    Raises:
        ValueError: for a bad graph, a window below 1, or b not positive.

    Source: ``grover2016node2vec`` (the closed form of its :math:`p = q = 1` case, Qiu et al., 2018).
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    if not negatives > 0:
        raise ValueError(f"negatives must be positive, got {negatives}")
    adjacency = as_csr(graph)
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    step = normalized_adjacency(adjacency, "row")
    power = step.toarray()
    total = power.copy()
    for _ in range(window - 1):
        power = step @ power
        total += power
    inverse = np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)
    return np.log(np.maximum(total * (degree.sum() / (negatives * window)) * inverse, 1.0))


def truncated_svd_embedding(
    matrix: sp.csr_array | Float[np.ndarray, "n m"], dimension: int, *, power: float = 0.5, seed: int = 0
) -> Float[np.ndarray, "n d"]:
    r"""Rows of :math:`U_d S_d^{\,p}` from the leading singular triplets of a matrix.

    Args:
        matrix: ``[n, m]``, sparse or dense.
        dimension: d, from 1 to min(n, m).
        power: p; 1/2 shares the singular values between rows and columns.
        seed: seeds the iteration's start vector.

    Raises:
        ValueError: for a dimension out of range or entries that are not finite.

    Source: ``grover2016node2vec`` (baseline); ``chen2019fastrp``.
    """
    u, s, _ = truncated_svd(matrix, dimension, seed=seed)
    return u * np.maximum(s, 0.0) ** power
