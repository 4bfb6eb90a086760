"""PhUSION: one proximity matrix, read either as positions (SVD) or as roles (distribution of each row)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.embeddings.cooccurrence import truncated_svd_embedding

# Entries held at once, small enough for a processor's cache; an accelerator wants larger pieces.
_CHUNK = {"cpu": 1 << 15}
_CHUNK_ELSEWHERE = 1 << 24


def _check(matrix: Tensor) -> None:
    require(
        matrix.ndim == 2 and len(matrix) > 0 and matrix.shape[1] > 0 and matrix.is_floating_point(),
        "a non-empty floating-point matrix [n, m]",
        f"{matrix.dtype} {tuple(matrix.shape)}",
    )
    require_finite("matrix", matrix)


def positional_embedding(matrix: Float[Tensor, "n n"], dimension: int, *, seed: int = 0) -> Float[np.ndarray, "n d"]:
    r"""Factors of a (filtered) proximity, :math:`Y = U_d S_d^{1/2}`: nodes near each other get like rows.

    Args:
        matrix: proximity ``[n, n]``, filtered or not.
        dimension: d.
        seed: seeds the iteration's start vector.

    Raises:
        ValueError: for a matrix that is not finite or a dimension out of range.

    Source: ``zhu2021phusion``, embedding function for positions.
    """
    _check(matrix)
    return truncated_svd_embedding(matrix.detach().cpu().double().numpy(), dimension, seed=seed)


def characteristic_function_embedding(
    matrix: Float[Tensor, "n m"], *, points: int = 25, horizon: float = 100.0, rescale: bool = True
) -> Float[Tensor, "n 2*points"]:
    r"""Empirical characteristic function of each row's entries: nodes whose proximities are alike *as a set* agree.

    .. math::
        \chi_i(t) = \frac1m \sum_j e^{\mathrm{i}\, t M_{ij}}, \qquad
        Y_i = \big[\mathrm{Re}\,\chi_i(t_1), \mathrm{Im}\,\chi_i(t_1), \ldots,
        \mathrm{Re}\,\chi_i(t_T), \mathrm{Im}\,\chi_i(t_T)\big]

    The points are evenly spaced on [0, horizon], so that :math:`e^{\mathrm{i} t_k x}` is the k-th power of one complex
    number and a matrix costs one sine and cosine an entry, however many points there are.

    Args:
        matrix: proximity ``[n, m]``. Row i belongs to node i (an asymmetric proximity has another embedding in its
            columns: transpose it).
        points: number T of evaluation points, at least 2.
        horizon: last point, positive. It presumes entries of the order of 0.01 to 1.
        rescale: divide the matrix by its largest absolute entry first.

    Returns:
        ``[n, 2 T]``, real and imaginary parts in turn; the first two columns are 1 and 0.

    Raises:
        ValueError: for a matrix that is empty or not finite, fewer than two points, a horizon that is not positive.

    Source: ``zhu2021phusion``, embedding function for roles (after Donnat et al., 2018).
    """
    _check(matrix)
    require(points >= 2, "at least two points", points)
    require(horizon > 0 and np.isfinite(horizon), "a positive, finite horizon", horizon)
    n, m = matrix.shape
    if rescale:
        matrix = matrix / matrix.abs().max().clamp_min(torch.finfo(matrix.dtype).tiny)
    step = horizon / (points - 1)
    rows = max(1, _CHUNK.get(matrix.device.type, _CHUNK_ELSEWHERE) // m)
    out = torch.empty(n, points, 2, dtype=matrix.dtype, device=matrix.device)
    out[:, 0, 0], out[:, 0, 1] = 1.0, 0.0
    for start in range(0, n, rows):
        angle = matrix[start : start + rows] * step
        turn = torch.complex(angle.cos(), angle.sin())
        power = torch.ones_like(turn)
        for k in range(1, points):
            power = power * turn if k == 1 else power.mul_(turn)
            out[start : start + rows, k] = torch.view_as_real(power.sum(1)) / m
    return out.reshape(n, 2 * points)
