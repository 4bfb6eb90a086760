"""Matrix-free linear algebra: truncated SVD and Lanczos."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite

MatVec = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]


class Lanczos(NamedTuple):
    """Ritz values ``[k]`` in increasing order, Ritz vectors ``[n, k]``, and the tridiagonal's two diagonals."""

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    diagonal: Float[Tensor, " k"]
    off_diagonal: Float[Tensor, " k1"]


def truncated_svd(
    matrix: np.ndarray | sp.sparray | spla.LinearOperator, rank: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Leading singular triplets :math:`A \approx U \operatorname{diag}(s) V^\top`, signs fixed.

    Singular vectors have arbitrary signs. Here the entry of largest modulus in each column of :math:`U` is positive,
    so that equal input gives equal output.

    Args:
        matrix: ``[m, n]``: dense, sparse, or a SciPy ``LinearOperator`` that is never formed.
        rank: Number of triplets, from 1 to ``min(m, n)``.
        seed: Seeds the start vector of the iteration.

    Returns:
        ``U [m, rank]``, ``s [rank]`` in decreasing order, ``Vt [rank, n]``.

    Raises:
        ValueError: For a rank out of range, or entries that are NaN or infinite.
    """
    rows, columns = matrix.shape
    require(1 <= rank <= min(rows, columns), f"a rank from 1 to {min(rows, columns)}", rank)
    if sp.issparse(matrix):
        require_finite("matrix", np.asarray(matrix.data))
    elif isinstance(matrix, np.ndarray):
        require_finite("matrix", matrix)
    if isinstance(matrix, np.ndarray) and (rank > min(rows, columns) // 4 or min(rows, columns) <= 64):
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    elif rank == min(rows, columns):
        dense = np.asarray(matrix @ np.eye(columns))
        u, s, vt = np.linalg.svd(dense, full_matrices=False)
    else:
        start = np.random.default_rng(seed).standard_normal(min(rows, columns))
        u, s, vt = spla.svds(matrix, k=rank, v0=start)
    order = np.argsort(-s, kind="stable")[:rank]
    u, s, vt = u[:, order], s[order], vt[order]
    signs = np.sign(u[np.abs(u).argmax(0), np.arange(rank)])
    signs[signs == 0] = 1
    return u * signs, s, vt * signs[:, None]


def lanczos(matvec: MatVec, start: Float[Tensor, " n"], steps: int) -> Lanczos:
    r"""Lanczos iteration with full reorthogonalisation for a symmetric operator.

    After :math:`k` steps :math:`A Q_k = Q_k T_k + r_k e_k^\top` with orthonormal :math:`Q_k` and tridiagonal
    :math:`T_k`; eigenpairs of :math:`T_k` are the Ritz pairs. The iteration ends early in an invariant subspace.

    Args:
        matvec: The symmetric operator.
        start: Start vector ``[n]``, not zero; its device and dtype are used.
        steps: Largest number of steps.

    Raises:
        ValueError: For a zero or NaN start vector or fewer than one step.
    """
    require(steps >= 1, "at least one step", steps)
    require(start.ndim == 1, "a start vector", f"shape {tuple(start.shape)}")
    require_finite("start", start)
    norm = torch.linalg.vector_norm(start)
    require(bool(norm > 0), "a start vector that is not zero", float(norm))
    basis, alphas, betas = [start / norm], [], []
    scale = torch.zeros((), dtype=start.dtype, device=start.device)
    for k in range(min(steps, len(start))):
        w = matvec(basis[k])
        alphas.append(torch.dot(w, basis[k]))
        q = torch.stack(basis)
        # A second pass restores orthogonality to rounding where one leaves the square root of it.
        for _ in range(2):
            w = w - q.T @ (q @ w)
        beta = torch.linalg.vector_norm(w)
        scale = torch.maximum(scale, torch.maximum(alphas[-1].abs(), beta))
        if k + 1 == min(steps, len(start)) or beta <= 10 * torch.finfo(start.dtype).eps * scale * len(start) ** 0.5:
            break
        betas.append(beta)
        basis.append(w / beta)
    diagonal = torch.stack(alphas)
    off = torch.stack(betas) if betas else diagonal.new_zeros(0)
    tridiagonal = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return Lanczos(values, torch.stack(basis).T @ vectors, diagonal, off)
