r"""The geometry of a classifier's last layer: length of features, angles to class directions, margins."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite


class LogitGeometry(NamedTuple):
    """Parts of the logits :math:`z_k = |w_k|\\,|h|\\cos\\theta_k + b_k`.

    Attributes:
        length: ``|h|``, ``[..., examples]``.
        angles: ``theta_k`` in radians, ``[..., examples, classes]``; a right angle where ``h`` or ``w_k`` is zero.
        norms: ``|w_k|``, ``[..., classes]``.
    """

    length: Tensor
    angles: Tensor
    norms: Tensor


def logit_geometry(
    features: Float[Tensor, "*batch examples units"], weight: Float[Tensor, "*batch classes units"]
) -> LogitGeometry:
    r"""Length of the features and their angles to the class directions.

    .. math:: \cos\theta_k = \frac{\langle w_k, h\rangle}{|w_k|\,|h|}

    Args:
        features: Input :math:`h` of the last layer.
        weight: Its weight, one row :math:`w_k` a class.

    Raises:
        ValueError: For other numbers of units, or values that are not finite.

    Source:
        li2022robustness.
    """
    require(features.shape[-1] == weight.shape[-1], f"{features.shape[-1]} units a class", weight.shape[-1])
    require_finite("features", features)
    require_finite("weight", weight)
    length, norms = features.norm(dim=-1), weight.norm(dim=-1)
    scale = length[..., None] * norms[..., None, :]
    cosine = torch.where(scale > 0, (features @ weight.mT) / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0)
    return LogitGeometry(length, cosine.clamp(-1, 1).acos(), norms)


def angular_margin(
    angles: Float[Tensor, "*batch examples classes"], labels: Int[Tensor, "*batch examples"]
) -> Float[Tensor, "*batch examples"]:
    r"""Margin :math:`m = \min_{k\ne y}\theta_k - \theta_y`, above 0 iff correct when norms are equal and biases zero.

    Args:
        angles: Of :func:`logit_geometry`.
        labels: Class indices.

    Raises:
        ValueError: For fewer than two classes, or labels out of range.
    """
    classes = angles.shape[-1]
    require(classes >= 2, "at least two classes", classes)
    require(bool(((labels >= 0) & (labels < classes)).all()), f"labels in [0, {classes})", labels.unique().tolist())
    labels = labels.expand(angles.shape[:-1])
    own = angles.gather(-1, labels[..., None])
    others = angles.scatter(-1, labels[..., None], torch.inf).amin(-1)
    return others - own[..., 0]


def linear_cka(x: Float[Tensor, "examples a"], y: Float[Tensor, "examples b"]) -> float:
    r"""Linear centred kernel alignment, :math:`\|Y^\top X\|_F^2 / (\|X^\top X\|_F\,\|Y^\top Y\|_F)` of centred columns.

    Args:
        x: Features of one network.
        y: Features of another on the same examples.

    Returns:
        In [0, 1]; 0 where a network's features do not vary.

    Raises:
        ValueError: For other numbers of examples, or values that are not finite.
    """
    require(len(x) == len(y) and len(x) > 1, "the same examples, at least two", (len(x), len(y)))
    require_finite("x", x)
    require_finite("y", y)
    x, y = (v.double() - v.double().mean(0) for v in (x, y))
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).norm() ** 2 / scale) if float(scale) > 0 else 0.0
