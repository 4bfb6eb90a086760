"""FastRP: multi-hop transition features through one very sparse random projection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numba import njit
from scipy.sparse.linalg import LinearOperator

from netatlas.core.graph import as_csr
from netatlas.core.linalg import truncated_svd
from netatlas.embeddings._random import check_seed


@njit(inline="always")
def _add_row(row, alpha, unit, total):
    factor = np.float32(alpha)
    if unit:
        square = np.float32(0.0)
        for k in range(len(row)):
            square += row[k] * row[k]
        if square > 0:
            factor /= np.sqrt(square)
    for k in range(len(row)):
        total[k] += factor * row[k]


@njit(cache=True, fastmath=True, nogil=True)
def _standardize(x):
    """Zero mean and unit variance in every column, in place; sums in double precision."""
    n, d = x.shape
    mean, square = np.zeros(d), np.zeros(d)
    for v in range(n):
        row = x[v]
        for k in range(d):
            mean[k] += row[k]
    for k in range(d):
        mean[k] /= n
    shift = mean.astype(np.float32)
    for v in range(n):
        row = x[v]
        for k in range(d):
            row[k] -= shift[k]
            square[k] += np.float64(row[k]) * row[k]
    scale = np.ones(d, np.float32)
    for k in range(d):
        if square[k] > 0:
            scale[k] = 1 / np.sqrt(square[k] / n)
    for v in range(n):
        row = x[v]
        for k in range(d):
            row[k] *= scale[k]


@njit(cache=True, fastmath=True, nogil=True)
def _mean_of_neighbours(indptr, indices, weights, inverse, weighted, dense, out, alpha, unit, total):
    """out = D^-1 S @ dense, and total += alpha * out (rows of out at unit length if asked) while the row is in cache.

    Four neighbours a pass, so that the accumulator is read and written a quarter as often.
    """
    d = dense.shape[1]
    row = np.empty(d, np.float32)
    one = np.float32(1.0)
    for v in range(len(indptr) - 1):
        for k in range(d):
            row[k] = np.float32(0.0)
        e, stop = indptr[v], indptr[v + 1]
        while e + 4 <= stop:
            x0, x1, x2, x3 = dense[indices[e]], dense[indices[e + 1]], dense[indices[e + 2]], dense[indices[e + 3]]
            if weighted:
                w0, w1, w2, w3 = weights[e], weights[e + 1], weights[e + 2], weights[e + 3]
                for k in range(d):
                    row[k] += (w0 * x0[k] + w1 * x1[k]) + (w2 * x2[k] + w3 * x3[k])
            else:
                for k in range(d):
                    row[k] += (x0[k] + x1[k]) + (x2[k] + x3[k])
            e += 4
        while e < stop:
            x0 = dense[indices[e]]
            w0 = weights[e] if weighted else one
            for k in range(d):
                row[k] += w0 * x0[k]
            e += 1
        scale = inverse[v]
        y = out[v]
        for k in range(d):
            y[k] = row[k] * scale
        if alpha != 0:
            _add_row(y, alpha, unit, total[v])


@njit(cache=True, nogil=True)
def _first_hop(indptr, indices, weights, inverse, weighted, r_indptr, r_indices, r_data, out, alpha, unit, total):
    """out = D^-1 S @ R for a sparse R: the first of the products costs a factor sqrt(n) less than the others."""
    for v in range(len(indptr) - 1):
        y = out[v]
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            w = weights[e] * inverse[v] if weighted else inverse[v]
            for k in range(r_indptr[u], r_indptr[u + 1]):
                y[r_indices[k]] += w * r_data[k]
        if alpha != 0:
            _add_row(y, alpha, unit, total[v])


def very_sparse_projection(n: int, dimension: int, *, sparsity: float | None = None, seed: int = 0) -> sp.csr_array:
    r"""Very sparse random projection: entries of mean zero and variance one, nearly all of them zero.

    .. math::
        R_{ij} = \sqrt{s} \times \begin{cases} +1 & \text{with probability } 1/(2s) \\ 0 & 1 - 1/s \\ -1 & 1/(2s)
        \end{cases}

    Args:
        n: number of rows.
        dimension: number of columns d.
        sparsity: s, at least 1; :math:`\sqrt n` by default, 3 below 500 rows, where empty rows would be frequent.
        seed: random seed.

    Returns:
        ``csr_array [n, d]`` of float64.

    Raises:
        ValueError: for sizes below 1 or a sparsity below 1.

    Source: ``chen2019fastrp``, the projection (after Li, Hastie and Church, 2006).
    """
    if n < 1 or dimension < 1:
        raise ValueError(f"sizes must be at least 1, got {n} x {dimension}")
    s = (float(np.sqrt(n)) if n >= 500 else 3.0) if sparsity is None else float(sparsity)
    if not (np.isfinite(s) and s >= 1):
        raise ValueError(f"sparsity must be at least 1, got {sparsity}")
    rng = np.random.default_rng(check_seed(seed))
    cells = n * dimension
    # Gaps between non-zero entries are geometric, so the cost is that of the non-zero entries alone.
    positions = np.empty(0, np.int64)
    last = -1
    while last < cells:
        gaps = rng.geometric(1 / s, size=int(1.1 * cells / s) + 64)
        more = last + np.cumsum(gaps)
        positions, last = np.concatenate([positions, more]), int(more[-1])
    positions = positions[positions < cells]
    data = np.where(rng.random(len(positions)) < 0.5, np.sqrt(s), -np.sqrt(s))
    row = positions // dimension
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
    return sp.csr_array((data, positions % dimension, indptr), shape=(n, dimension))


def _setup(graph, weights: Sequence[float], beta: float):
    if not -1 <= beta <= 0:
        raise ValueError(f"beta must lie in [-1, 0], got {beta}")
    if len(weights) == 0 or not np.isfinite(np.asarray(weights, dtype=float)).all() or not any(weights):
        raise ValueError(f"weights must be finite and not all zero, got {tuple(weights)}")
    adjacency = as_csr(graph)
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    if degree.sum() <= 0:
        raise ValueError("the graph has no edge")
    inverse = np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)
    column = np.zeros_like(degree)
    column[degree > 0] = (degree[degree > 0] / degree.sum()) ** beta
    return adjacency, inverse, column


def fastrp(
    graph,
    *,
    dimension: int = 128,
    weights: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
    beta: float = -0.5,
    sparsity: float | None = None,
    normalize_rows: bool = False,
    standardize: bool = True,
    seed: int = 0,
) -> Float[np.ndarray, "n d"]:
    r"""Project a weighted sum of transition powers without ever forming one.

    .. math::
        N_1 = P (L R), \quad N_k = P N_{k-1}, \quad N = \sum_k \alpha_k N_k, \qquad
        P = D^{-1} S, \quad L = \mathrm{diag}\big((d_j / 2m)^\beta\big)

    All powers share one projection R. The cost is :math:`O(q\, m\, d)` for q powers, m edges and d dimensions; the
    arithmetic is in single precision.

    Args:
        graph: undirected, anything that ``netatlas.core.graph.as_csr`` reads.
        dimension: d.
        weights: :math:`\alpha_1, \ldots, \alpha_q`.
        beta: degree normalisation in [-1, 0]; -1 removes the stationary part, which is common to all nodes.
        sparsity: of R, see :func:`very_sparse_projection`.
        normalize_rows: scale every row of each :math:`N_k` to unit length before summing.
        standardize: give every column of N zero mean and unit variance, as the published code does.
        seed: random seed of R.

    Returns:
        ``float32 [n, d]``; rows of isolated nodes are zero before standardisation.

    Raises:
        ValueError: for a bad or empty graph, beta outside [-1, 0], weights that are all zero or not finite.

    Source: ``chen2019fastrp``, the FastRP algorithm.
    """
    adjacency, inverse, column = _setup(graph, weights, beta)
    n = adjacency.shape[0]
    projection = very_sparse_projection(n, dimension, sparsity=sparsity, seed=seed)
    scaled = (projection.data * np.repeat(column, np.diff(projection.indptr))).astype(np.float32)
    edge = adjacency.data.astype(np.float32)
    weighted = bool((edge != 1).any())
    indptr, indices = adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32)
    inverse = inverse.astype(np.float32)
    current, total = np.zeros((n, dimension), np.float32), np.zeros((n, dimension), np.float32)
    last = max(k for k, alpha in enumerate(weights) if alpha)
    alphas = [float(alpha) for alpha in weights[: last + 1]]
    _first_hop(
        indptr, indices, edge, inverse, weighted, projection.indptr.astype(np.int64),
        projection.indices.astype(np.int32), scaled, current, alphas[0], normalize_rows, total,
    )  # fmt: skip
    spare = np.empty_like(current)
    for alpha in alphas[1:]:
        _mean_of_neighbours(
            indptr, indices, edge, inverse, weighted, current, spare, alpha, normalize_rows, total
        )  # fmt: skip
        current, spare = spare, current
    if standardize:
        _standardize(total)
    return total


def hop_operator(graph, *, weights: Sequence[float], beta: float) -> LinearOperator:
    r"""The similarity matrix that FastRP projects, as an operator: :math:`M = \sum_k \alpha_k P^k L`.

    Args:
        graph, weights, beta: as in :func:`fastrp`.

    Returns:
        A SciPy ``LinearOperator`` of shape ``[n, n]`` in double precision, with its transpose.

    Raises:
        ValueError: as :func:`fastrp`.

    Source: ``chen2019fastrp``, the similarity matrix.
    """
    adjacency, inverse, column = _setup(graph, weights, beta)
    step = sp.csr_array(sp.diags_array(inverse) @ adjacency)
    back = sp.csr_array(step.T)

    def forward(x):
        # Horner's scheme: one product a power.
        x = column.reshape((-1,) + (1,) * (x.ndim - 1)) * x
        total = np.zeros_like(x)
        for alpha in reversed(weights):
            total = step @ (total + alpha * x)
        return total

    def transposed(x):
        total = np.zeros_like(x)
        for alpha in reversed(weights):
            total = back @ (total + alpha * x)
        return column.reshape((-1,) + (1,) * (x.ndim - 1)) * total

    return LinearOperator(
        adjacency.shape, matvec=forward, rmatvec=transposed, matmat=forward, rmatmat=transposed, dtype=np.float64
    )


def similarity_svd(
    graph,
    *,
    dimension: int = 128,
    weights: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
    beta: float = -0.5,
    standardize: bool = True,
    seed: int = 0,
) -> Float[np.ndarray, "n d"]:
    r"""FastRP's similarity matrix reduced by a truncated SVD instead of a projection: :math:`U_d S_d^{1/2}`.

    Args:
        graph, dimension, weights, beta, standardize: as in :func:`fastrp`.
        seed: seeds the iteration's start vector.

    Returns:
        ``float64 [n, d]``.

    Raises:
        ValueError: as :func:`fastrp`, and for a dimension above n.

    Source: ``chen2019fastrp`` (the dimension reduction that it replaces).
    """
    u, s, _ = truncated_svd(hop_operator(graph, weights=weights, beta=beta), dimension, seed=seed)
    out = u * np.sqrt(np.maximum(s, 0))
    if standardize:
        out = out - out.mean(axis=0)
        spread = out.std(axis=0)
        out /= np.where(spread > 0, spread, 1)
    return out
