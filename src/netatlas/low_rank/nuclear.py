"""Trained rank pruning's rule by which ranks cannot rise."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


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
