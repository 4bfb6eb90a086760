r"""The nuclear norm in training: its sub-gradient, its proximal step, and the rule by which ranks cannot rise."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


def nuclear_subgradient(matrix: Float[Tensor, "*M a b"], tolerance: float = 1e-6) -> Float[Tensor, "*M a b"]:
    r"""The sub-gradient :math:`U_r V_r^\top` of the nuclear norm :math:`\lVert W \rVert_* = \sum_i s_i`, of least norm.

    Only the :math:`r` directions with singular values above the tolerance enter. Of all sub-gradients
    :math:`U_r V_r^\top + W_0` this is the one with :math:`W_0 = 0`.

    Args:
        matrix: ``[..., a, b]``.
        tolerance: Singular values count if they exceed this share of the largest one.

    Raises:
        ValueError: For NaN or a negative tolerance.

    Source:
        xu2020trp.
    """
    require_finite("matrix", matrix)
    require(tolerance >= 0, "a tolerance of at least 0", tolerance)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    keep = s > tolerance * s[..., :1]
    return (u * keep[..., None, :]) @ vt


def soft_threshold(matrix: Float[Tensor, "*M a b"], amount: float) -> Float[Tensor, "*M a b"]:
    r"""The proximal step of the nuclear norm, :math:`U \max(S - \lambda, 0) V^\top`.

    Args:
        matrix: ``[..., a, b]``.
        amount: The :math:`\lambda` that every singular value loses, at least 0.

    Raises:
        ValueError: For NaN or a negative amount.
    """
    require_finite("matrix", matrix)
    require(amount >= 0, "an amount of at least 0", amount)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    return (u * (s - amount).clamp_min(0)[..., None, :]) @ vt


def rank_cannot_rise(
    moved: Float[Tensor, "*M a b"], truncated: Float[Tensor, "*M a b"], loss: float | Float[Tensor, "*M"]
) -> Bool[Tensor, "*M"]:
    r"""Whether the steps since the last truncation were small enough that the next one cannot find a higher rank.

    .. math:: \lVert W - T \rVert_F \le \sqrt{e}\, \lVert W \rVert_F
        \quad\Longrightarrow\quad \operatorname{rank} D(W) \le \operatorname{rank} T

    For :math:`T` is then a matrix of its rank within the energy that :math:`D` may lose, and Eckart and Young say that
    no matrix of that rank is closer to :math:`W` than its own truncated decomposition.

    Args:
        moved: The weight :math:`W` now, ``[..., a, b]``.
        truncated: What the last truncation left, :math:`T`.
        loss: The share :math:`e` of energy.

    Raises:
        ValueError: For NaN or a share out of [0, 1].

    Source:
        xu2020trp.
    """
    require_finite("moved", moved)
    require_finite("truncated", truncated)
    share = torch.as_tensor(loss, dtype=torch.float64, device=moved.device)
    require(bool(((share >= 0) & (share <= 1)).all()), "a share of energy from 0 to 1", loss)
    norm = lambda w: torch.linalg.matrix_norm(w.double())  # noqa: E731
    return norm(moved - truncated) <= share.sqrt() * norm(moved)
