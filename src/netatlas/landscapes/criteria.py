"""Numbers and pictures of a landscape: criteria of negative curvature, axes, and losses on a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.curvature import Params
from netatlas.core.stats import spearman

AxisNorm = Literal["none", "weight", "layer", "model", "filter"]


class CurvatureCriteria(NamedTuple):
    """Ratio of the extreme Ritz values, and the weighted mass of negative curvature; ``[...]`` each."""

    extremes: Tensor
    negative_mass: Tensor


def curvature_criteria(
    nodes: Float[Tensor, "probes *M m"], weights: Float[Tensor, "probes *M m"], power: float = 0.5
) -> CurvatureCriteria:
    r"""Two criteria of negative curvature from a quadrature of the spectrum, averaged over probes.

    .. math::

        r_e = \left| \frac{\min_i \theta_i}{\max_i \theta_i} \right|, \qquad
        K_{H,n} = \frac{\sum_{\theta_i < 0} |\theta_i w_i|^n}{\sum_{\theta_i > 0} (\theta_i w_i)^n} .

    Both are unchanged when the loss is multiplied by a positive number. Nodes of weight zero do not count.

    Args:
        nodes: Ritz values :math:`\theta_i`, the probes' axis first.
        weights: Their weights :math:`w_i`.
        power: The exponent n, between 0 and 1.

    Raises:
        ValueError: For shapes that differ, a power out of range, NaN, or a spectrum without positive Ritz values.

    Source: gabdullin2024lla.
    """
    require(
        nodes.shape == weights.shape and nodes.ndim >= 2, "nodes and weights of one shape", (nodes.shape, weights.shape)
    )
    require(0 < power < 1, "a power between 0 and 1", power)
    require_finite("nodes", nodes)
    require_finite("weights", weights)
    used = weights > 0
    mass = (nodes * weights).abs() ** power * used
    positive = (mass * (nodes > 0)).sum(-1)
    if nodes.device.type != "meta":
        require(bool((positive > 0).all()), "a positive Ritz value in every quadrature", "none")
    low = torch.where(used, nodes, torch.inf).amin(-1)
    high = torch.where(used, nodes, -torch.inf).amax(-1)
    return CurvatureCriteria((low / high).abs().mean(0), ((mass * (nodes < 0)).sum(-1) / positive).mean(0))


def normalized_axis(direction: Params, params: Params, norm: AxisNorm = "filter") -> Params:
    r"""A direction rescaled block by block to the size of the weights.

    .. math:: d_B \leftarrow d_B\, \lVert w_B\rVert / \lVert d_B\rVert

    Blocks are single weights (``"weight"``), tensors (``"layer"``), all parameters (``"model"``), or the weights into
    one unit (``"filter"``; of a vector, its entries). A block of zeros in the direction stays zero.

    Args:
        direction: A tensor for each parameter.
        params: The point.
        norm: The blocks, or ``"none"`` for the direction as it is.

    Raises:
        ValueError: For an unknown norm or shapes that differ.

    Source: gabdullin2024lla.
    """
    kinds = ("none", "weight", "layer", "model", "filter")
    require(norm in kinds, f"a norm out of {', '.join(kinds)}", repr(norm))
    shapes = [{k: tuple(v.shape) for k, v in part.items()} for part in (direction, params)]
    require(shapes[0] == shapes[1], f"a direction shaped as the parameters {shapes[1]}", shapes[0])
    if norm == "none":
        return dict(direction)

    def scaled(d: Tensor, size: Tensor, length: Tensor) -> Tensor:
        return torch.where(length > 0, d * size / torch.where(length > 0, length, 1), torch.zeros_like(d))

    if norm == "model":
        size, length = (
            torch.stack([v.square().sum() for v in part.values()]).sum().sqrt() for part in (params, direction)
        )
        return {k: scaled(d, size, length) for k, d in direction.items()}
    found = {}
    for name, d in direction.items():
        w = params[name]
        if norm == "weight" or (norm == "filter" and w.ndim <= 1):
            found[name] = scaled(d, w.abs(), d.abs())
        elif norm == "layer":
            found[name] = scaled(d, torch.linalg.vector_norm(w), torch.linalg.vector_norm(d))
        else:
            axes = tuple(range(1, w.ndim))
            size, length = (torch.linalg.vector_norm(t, dim=axes, keepdim=True) for t in (w, d))
            found[name] = scaled(d, size, length)
    return found


@torch.no_grad()
def loss_surface(
    loss: Callable[[Params], Tensor], params: Params, first: Params, second: Params, grid: Float[Tensor, " g"]
) -> Float[Tensor, "g g"]:
    r"""The loss :math:`L(\theta + a\, d_1 + b\, d_2)` for all a (rows) and b (columns) of a grid, in one call.

    Args:
        loss: ``loss(params)`` for stacked parameters ``[g g, ...]``, one value a member.
        params: The centre :math:`\theta`, not stacked.
        first: The axis :math:`d_1`.
        second: The axis :math:`d_2`.
        grid: Coordinates on both axes.

    Raises:
        ValueError: For an empty grid or axes of another shape.

    Source: gabdullin2024lla.
    """
    require(grid.ndim == 1 and len(grid) > 0, "a grid of at least one point", tuple(grid.shape))
    for axis in (first, second):
        wanted = {k: tuple(v.shape) for k, v in params.items()}
        got = {k: tuple(v.shape) for k, v in axis.items()}
        require(wanted == got, f"an axis shaped as the parameters {wanted}", got)
    a, b = (t.reshape(-1) for t in torch.meshgrid(grid, grid, indexing="ij"))

    def spread(t: Tensor, like: Tensor) -> Tensor:
        return t.to(like.dtype).reshape(-1, *(1,) * like.ndim)

    moved = {k: w + spread(a, w) * first[k] + spread(b, w) * second[k] for k, w in params.items()}
    return loss(moved).reshape(len(grid), len(grid))


def partial_spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], given: Float[np.ndarray, " n"]) -> float:
    r"""The rank correlation of x and y that is left when a third variable z is given.

    .. math:: \rho_{xy \cdot z} = \frac{\rho_{xy} - \rho_{xz} \rho_{yz}}{\sqrt{(1 - \rho_{xz}^2)(1 - \rho_{yz}^2)}} .

    Args:
        x: One variable.
        y: The other.
        given: The variable that is held.

    Returns:
        The correlation; NaN if z has the ranks of x or of y.

    Raises:
        ValueError: As :func:`netatlas.core.stats.spearman`.
    """
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    rest = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / rest**0.5 if rest > 1e-12 else float("nan")
