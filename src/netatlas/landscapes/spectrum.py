"""The exact Hessian of a two-layer classifier in its two parts, its symmetries' null directions, and its gap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.curvature import Params


class HessianParts(NamedTuple):
    """Gauss-Newton part and residual part, ``[D, D]`` each; the Hessian is their sum."""

    gauss_newton: Tensor
    residual: Tensor


def _two_layers(params: Params) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = list(params.values())
    shapes = [tuple(v.shape) for v in values]
    fits = (
        len(values) == 4
        and [v.ndim for v in values] == [2, 1, 2, 1]
        and values[1].shape[0] == values[0].shape[0] == values[2].shape[1]
        and values[3].shape[0] == values[2].shape[0]
    )
    require(fits, "weights [h, d], biases [h], weights [K, h], biases [K]", shapes)
    for name, value in params.items():
        require_finite(name, value)
    return values[0], values[1], values[2], values[3]


def two_layer_hessian(params: Params, inputs: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> HessianParts:
    r"""The exact Hessian of softmax cross-entropy for a network of one hidden ReLU layer, by matrix products.

    With :math:`p = \operatorname{softmax}(W_2 a + b_2)`, :math:`a = \max(0, W_1 x + b_1)`, :math:`m_k = [a_k > 0]` and
    :math:`A = \operatorname{diag} p - p p^\top`, an example's Gauss-Newton block between incoming weights is

    .. math:: G_{(k i), (l j)} = m_k m_l\, (W_2^\top A\, W_2)_{kl}\, x_i x_j ,

    and the residual part :math:`\sum_c (p_c - y_c) \nabla^2 f_c` has only the blocks
    :math:`R_{(k i), (c k)} = (p_c - y_c)\, m_k\, x_i` between weights into and out of one unit. No Jacobian is formed:
    its n K rows would cost a factor of up to K more.

    Args:
        params: Weights and biases of two layers, in this order, as :class:`netatlas.core.nn.MLP` names them.
        inputs: Examples ``[n, d]``.
        labels: Classes ``[n]``, from 0 to K - 1.

    Returns:
        Both parts, in the order of :func:`netatlas.core.curvature.flatten_params`.

    Raises:
        ValueError: For other layers, no examples, NaN, or labels out of range.

    Source: sagun2017hessian.
    """
    first, bias, second, _ = weights = _two_layers(params)
    (hidden, features), classes, count = first.shape, second.shape[0], len(inputs)
    require(count > 0 and inputs.shape[1:] == (features,), f"inputs [n, {features}]", tuple(inputs.shape))
    require(labels.shape == (count,), f"{count} labels", tuple(labels.shape))
    require_finite("inputs", inputs)
    if labels.device.type != "meta":
        require(bool(((labels >= 0) & (labels < classes)).all()), f"labels from 0 to {classes - 1}", labels.unique())
    ones = inputs.new_ones(count, 1)
    x = torch.cat([inputs.to(first.dtype), ones.to(first.dtype)], 1)
    before = x @ torch.cat([first, bias[:, None]], 1).T
    on = (before > 0).to(first.dtype)
    a = torch.cat([before * on, torch.ones_like(x[:, :1])], 1)
    p = (a @ torch.cat([second, weights[3][:, None]], 1).T).softmax(-1)
    q = p @ second

    def pairs(u: Tensor, v: Tensor) -> Tensor:
        return (u[:, :, None] * v[:, None, :]).reshape(count, -1)

    outer = (second[:, :, None] * second[:, None, :]).reshape(classes, -1)
    middle = (p @ outer - pairs(q, q)) * pairs(on, on)
    into = (middle.T @ pairs(x, x)).reshape(hidden, hidden, features + 1, features + 1).permute(0, 2, 1, 3)
    mixed = (p[:, None] * second.T - q[..., None] * p[:, None]) * on[..., None]
    across = mixed.reshape(count, -1).T @ pairs(x, a)
    across = across.reshape(hidden, classes, features + 1, hidden + 1).permute(0, 2, 1, 3)
    cov = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    out = (cov.reshape(count, -1).T @ pairs(a, a)).reshape(classes, classes, hidden + 1, hidden + 1).permute(0, 2, 1, 3)
    slope = p - torch.nn.functional.one_hot(labels, classes).to(p.dtype)
    kinks = (pairs(on, slope).T @ x).reshape(hidden, classes, features + 1).permute(0, 2, 1)

    inner, outer_size = hidden * (features + 1), classes * (hidden + 1)
    gauss = p.new_zeros(inner + outer_size, inner + outer_size)
    gauss[:inner, :inner] = into.reshape(inner, inner)
    gauss[:inner, inner:] = across.reshape(inner, outer_size)
    gauss[inner:, :inner] = gauss[:inner, inner:].T.clone()
    gauss[inner:, inner:] = out.reshape(outer_size, outer_size)
    rest = torch.zeros_like(gauss)
    block = p.new_zeros(hidden, features + 1, classes, hidden + 1)
    unit = torch.arange(hidden, device=p.device)
    block[unit, :, :, unit] = kinks
    rest[:inner, inner:] = block.reshape(inner, outer_size)
    rest[inner:, :inner] = rest[:inner, inner:].T.clone()
    order = _bias_last(hidden, features, classes, p.device)
    return HessianParts(gauss[order][:, order] / count, rest[order][:, order] / count)


def _bias_last(hidden: int, features: int, classes: int, device: torch.device) -> Tensor:
    """Where each parameter of the module's order lies when every unit's bias follows its weights."""
    rows = torch.arange(hidden * (features + 1), device=device).reshape(hidden, -1)
    tops = rows.numel() + torch.arange(classes * (hidden + 1), device=device).reshape(classes, -1)
    return torch.cat([rows[:, :-1].reshape(-1), rows[:, -1], tops[:, :-1].reshape(-1), tops[:, -1]])


def shift_directions(params: Params) -> Float[Tensor, "h1 D"]:
    """Directions that add one number to the same output weight (or the bias) of all classes: softmax does not see them.

    The loss is constant along them, so that the Hessian maps each of them to zero at every point.

    Args:
        params: As in :func:`two_layer_hessian`.

    Raises:
        ValueError: For other layers.
    """
    first, bias, second, _ = _two_layers(params)
    hidden, classes = len(first), len(second)
    eye = torch.eye(hidden + 1, dtype=first.dtype, device=first.device)
    inner = first.new_zeros(hidden + 1, first.numel() + bias.numel())
    return torch.cat([inner, eye[:, :-1].repeat(1, classes), eye[:, -1:].repeat(1, classes)], 1)


def rescaling_directions(params: Params) -> Float[Tensor, "h D"]:
    r"""Generators of the units' rescalings: :math:`+w` into a unit and :math:`-w` out of it.

    A ReLU network does not change when a unit's incoming weights and bias are multiplied by :math:`c` and its outgoing
    weights by :math:`1/c`. Differentiating :math:`\nabla L \cdot x_k = 0` gives :math:`H x_k = -s_k \odot \nabla L`,
    where :math:`s_k` is 1 on the unit's incoming parameters, -1 on its outgoing ones, 0 elsewhere.

    Args:
        params: As in :func:`two_layer_hessian`.

    Raises:
        ValueError: For other layers.
    """
    first, bias, second, last = _two_layers(params)
    eye = torch.eye(len(first), dtype=first.dtype, device=first.device)
    return torch.cat(
        [
            (eye[:, :, None] * first).flatten(1),
            eye * bias,
            -(eye[:, None, :] * second).flatten(1),
            last.new_zeros(len(first), len(last)),
        ],
        1,
    )


def rank_bound(examples: int, features: int, hidden: int, classes: int) -> int:
    r"""The largest rank of the Gauss-Newton matrix, :math:`\min(n (K - 1),\; D - (2h + 1))`.

    Each example's logits have :math:`K - 1` directions that softmax sees; shifts take :math:`h + 1` directions,
    rescalings :math:`h`.

    Args:
        examples: n.
        features: Input dimension d.
        hidden: Units h.
        classes: Classes K.

    Raises:
        ValueError: For sizes below 1.

    Source: sagun2017hessian; the count of symmetries is elementary.
    """
    require(min(examples, features, hidden, classes) >= 1, "sizes of at least 1", (examples, features, hidden, classes))
    total = hidden * (features + 1) + classes * (hidden + 1)
    return min(examples * (classes - 1), total - (2 * hidden + 1))


class SpectralGap(NamedTuple):
    """After how many eigenvalues the largest ratio of neighbours comes, and that ratio."""

    after: int
    ratio: float


def _descending(eigenvalues: Tensor | np.ndarray | Sequence[float]) -> np.ndarray:
    values = np.asarray(eigenvalues, dtype=float)
    require(values.ndim == 1 and len(values) >= 2, "at least two eigenvalues", values.shape)
    require_finite("eigenvalues", values)
    return np.sort(values)[::-1]


def spectral_gap(eigenvalues: Tensor | np.ndarray | Sequence[float], first: int = 15) -> SpectralGap:
    r"""The largest ratio :math:`\lambda_i / \lambda_{i+1}` among the leading eigenvalues, and its index i.

    Args:
        eigenvalues: In any order.
        first: How many ratios are looked at; those of eigenvalues that are not positive are left out.

    Raises:
        ValueError: For fewer than two eigenvalues, NaN, or no two positive ones.

    Source: sagun2017hessian (outliers are counted there by eye).
    """
    values = _descending(eigenvalues)[: first + 1]
    values = values[values > 0]
    require(len(values) >= 2, "two positive eigenvalues", len(values))
    ratios = values[:-1] / values[1:]
    return SpectralGap(int(ratios.argmax()) + 1, float(ratios.max()))


def count_above(eigenvalues: Tensor | np.ndarray | Sequence[float], share: float) -> int:
    r"""How many eigenvalues have :math:`|\lambda|` above a share of :math:`\lambda_{\max}`.

    Args:
        eigenvalues: In any order.
        share: Between 0 and 1.

    Raises:
        ValueError: For a share out of range, or no positive eigenvalue.
    """
    require(0 <= share <= 1, "a share from 0 to 1", share)
    values = _descending(eigenvalues)
    require(values[0] > 0, "a positive largest eigenvalue", values[0])
    return int((np.abs(values) > share * values[0]).sum())


def near_zero_fraction(eigenvalues: Tensor | np.ndarray | Sequence[float], share: float = 1e-3) -> float:
    r"""The fraction of eigenvalues with :math:`|\lambda| \le` a share of :math:`\lambda_{\max}`.

    Args:
        eigenvalues: In any order.
        share: What counts as zero.

    Raises:
        ValueError: As :func:`count_above`.
    """
    return 1 - count_above(eigenvalues, share) / len(np.asarray(eigenvalues))


class PathBarrier(NamedTuple):
    """Losses along a straight path ``[points, *M]``, and the highest rise above the line between its ends ``[*M]``."""

    losses: Tensor
    barrier: Tensor


@torch.no_grad()
def linear_path_barrier(
    loss: Callable[[Params], Tensor], first: Params, second: Params, points: int = 11
) -> PathBarrier:
    r"""The barrier :math:`\max_t L(\theta_t) - (1 - t) L(\theta_0) - t L(\theta_1)` on the straight path.

    Args:
        loss: A scalar, or ``[M]`` for stacked members.
        first: One end :math:`\theta_0`.
        second: The other end :math:`\theta_1`.
        points: Points on the path, ends included.

    Raises:
        ValueError: For fewer than three points or parameters that differ in name or shape.

    Source: sagun2017hessian.
    """
    require(points >= 3, "at least three points", points)
    shapes = [{k: tuple(v.shape) for k, v in ends.items()} for ends in (first, second)]
    require(shapes[0] == shapes[1], f"ends of one shape {shapes[0]}", shapes[1])
    shares = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    losses = torch.stack([loss({k: torch.lerp(first[k], second[k], t) for k in first}) for t in shares])
    line = torch.stack([(1 - t) * losses[0] + t * losses[-1] for t in shares])
    return PathBarrier(losses, (losses - line).max(0).values)
