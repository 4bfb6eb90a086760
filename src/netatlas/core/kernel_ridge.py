r"""Kernel ridge regression from a Gram matrix, with exact leave-one-out predictions for every ridge at once.

The ridge is added to the Gram matrix as it is, :math:`(K + \delta I)^{-1} y`: it is not multiplied by the number of
samples. All functions take leading batch axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite, require_same_device

Ridges = float | Sequence[float] | Tensor


class RidgeSelection(NamedTuple):
    """The ridge of least leave-one-out error, its place in the grid, and the error of every ridge.

    The ridge and its place have the Gram matrix's batch shape; errors have the ridges in front of it.
    """

    ridge: Float[Tensor, "*batch"]
    place: Tensor
    errors: Float[Tensor, "ridges *batch"]


def _checked(gram: Tensor, targets: Tensor | None) -> None:
    require(gram.is_floating_point(), "a Gram matrix of floating-point numbers", gram.dtype)
    require(
        gram.ndim >= 2 and gram.shape[-1] == gram.shape[-2] and gram.shape[-1] > 0,
        "a square Gram matrix [..., N, N] with N >= 1",
        tuple(gram.shape),
    )
    require_finite("gram", gram)
    if targets is None:
        return
    require(targets.is_floating_point(), "targets of floating-point numbers", targets.dtype)
    require(targets.dtype == gram.dtype, f"targets of the Gram matrix's type {gram.dtype}", targets.dtype)
    require(
        targets.ndim >= 2 and targets.shape[-2] == gram.shape[-1],
        f"targets [..., {gram.shape[-1]}, C]",
        tuple(targets.shape),
    )
    require_same_device([("gram", gram), ("targets", targets)])
    require_finite("targets", targets)


def _ridges(ridges: Ridges, like: Tensor) -> Tensor:
    grid = torch.as_tensor(ridges, dtype=like.dtype, device=like.device)
    require(grid.ndim <= 1 and grid.numel() > 0, "one ridge or a list of ridges", tuple(grid.shape))
    require_finite("ridge", grid)
    if grid.device.type != "meta":
        require(bool((grid >= 0).all()), "ridges of at least 0", float(grid.min()))
    return grid


def fit(
    gram: Float[Tensor, "*batch N N"], targets: Float[Tensor, "*batch N C"], ridge: float | Tensor
) -> Float[Tensor, "*batch N C"]:
    r"""Dual coefficients of kernel ridge regression.

    .. math:: \alpha = (K + \delta I)^{-1} Y

    Args:
        gram: Kernel matrix of the training points, symmetric positive semi-definite.
        targets: One row a training point, one column an output.
        ridge: The ridge :math:`\delta \ge 0`, one for all or one for each batch entry.

    Returns:
        The coefficients :math:`\alpha`.

    Raises:
        ValueError: For shapes, types or devices that do not fit, NaN, a negative ridge, or a matrix
            :math:`K + \delta I` that is singular to working precision (duplicated points without a ridge).

    Source:
        simon2023more (kernel ridge regression).
    """
    _checked(gram, targets)
    delta = torch.as_tensor(ridge, dtype=gram.dtype, device=gram.device)
    require_finite("ridge", delta)
    if delta.device.type != "meta":
        require(bool((delta >= 0).all()), "a ridge of at least 0", float(delta.min()))
    regular = gram + delta[..., None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, info = torch.linalg.cholesky_ex(regular)
    if gram.device.type != "meta":
        pivots = factor.diagonal(dim1=-2, dim2=-1) ** 2
        floor = gram.shape[-1] * torch.finfo(gram.dtype).eps * regular.diagonal(dim1=-2, dim2=-1).amax(-1)
        singular = (info != 0) | (pivots.amin(-1) <= floor)
        if bool(singular.any()):
            lowest = float(torch.linalg.eigvalsh(gram).amin())
            raise ValueError(
                f"expected K + ridge I to be positive definite, got a smallest eigenvalue of K of {lowest:.3g} "
                f"with ridge {float(delta.min()):.3g}: remove duplicated points or use a larger ridge"
            )
    return torch.cholesky_solve(targets, factor)


def predict(cross_gram: Float[Tensor, "*batch T N"], dual: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch T C"]:
    r"""Predictions :math:`K(X_*, X)\,\alpha` at new points.

    Args:
        cross_gram: Kernel between new points (rows) and training points (columns).
        dual: Coefficients from :func:`fit`.

    Raises:
        ValueError: For shapes, types or devices that do not fit.

    Source:
        simon2023more (kernel ridge regression).
    """
    require(
        cross_gram.ndim >= 2 and dual.ndim >= 2 and cross_gram.shape[-1] == dual.shape[-2],
        f"a cross Gram matrix [..., T, {dual.shape[-2] if dual.ndim >= 2 else 'N'}]",
        tuple(cross_gram.shape),
    )
    require(cross_gram.dtype == dual.dtype, f"a cross Gram matrix of type {dual.dtype}", cross_gram.dtype)
    require_same_device([("cross_gram", cross_gram), ("dual", dual)])
    return cross_gram @ dual


def leave_one_out(
    gram: Float[Tensor, "*batch N N"], targets: Float[Tensor, "*batch N C"], ridges: Ridges
) -> Float[Tensor, "ridges *batch N C"]:
    r"""Exact leave-one-out predictions for every ridge, from one eigendecomposition.

    With :math:`G = (K + \delta I)^{-1}` and :math:`\alpha = G Y`, the model that was trained without point :math:`i`
    predicts at it

    .. math:: \hat y_{-i} = y_i - \frac{\alpha_i}{G_{ii}} .

    Args:
        gram: Kernel matrix of the training points.
        targets: One row a training point.
        ridges: R ridges :math:`\delta \ge 0`.

    Returns:
        The predictions, ridges first. One sample leaves an empty training set, whose prediction is 0.

    Raises:
        ValueError: As :func:`fit`; for a ridge of 0 too if the Gram matrix is singular to working precision.

    Source:
        simon2023more (kernel ridge regression); the identity is the Sherman-Morrison formula.
    """
    _checked(gram, targets)
    grid = torch.atleast_1d(_ridges(ridges, gram))
    values, vectors = torch.linalg.eigh(gram)
    if gram.device.type != "meta":
        top = values.abs().amax(-1)
        lowest = values.amin(-1)
        eps = gram.shape[-1] * torch.finfo(gram.dtype).eps
        require(
            bool((lowest + grid.min() > eps * (top + grid.min())).all()),
            "K + ridge I positive definite for every ridge (remove duplicated points or use larger ridges)",
            f"a smallest eigenvalue of K of {float(lowest.min()):.3g} with ridge {float(grid.min()):.3g}",
        )
    shrink = 1 / (values[None] + grid.reshape(-1, *[1] * values.ndim))
    dual = vectors @ (shrink[..., None] * (vectors.mT @ targets)[None])
    diagonal = (vectors**2 @ shrink[..., None])[..., 0]
    return targets[None] - dual / diagonal[..., None]


def select_ridge(
    gram: Float[Tensor, "*batch N N"], targets: Float[Tensor, "*batch N C"], ridges: Ridges
) -> RidgeSelection:
    r"""The ridge of least mean squared leave-one-out error.

    .. math:: \hat\delta = \arg\min_\delta \frac{1}{N C} \sum_{i} \lVert \hat y_{-i}(\delta) - y_i \rVert^2

    Args:
        gram: Kernel matrix of the training points.
        targets: One row a training point.
        ridges: R ridges to choose from.

    Returns:
        The chosen ridge of every batch entry and all errors. An optimum at an end of the grid shows in ``place``.

    Raises:
        ValueError: As :func:`leave_one_out`.

    Source:
        simon2023more (optimal ridge).
    """
    grid = torch.atleast_1d(_ridges(ridges, gram))
    errors = ((leave_one_out(gram, targets, grid) - targets) ** 2).mean((-1, -2))
    index = errors.argmin(0)
    return RidgeSelection(grid[index], index, errors)


def ridge_path(
    gram: Float[Tensor, "*batch N N"],
    targets: Float[Tensor, "*batch N C"],
    cross_gram: Float[Tensor, "*batch T N"],
    ridges: Ridges,
) -> tuple[Float[Tensor, "ridges *batch N C"], Float[Tensor, "ridges *batch T C"]]:
    r"""Predictions on training and new points for every ridge, from one eigendecomposition.

    .. math:: \hat Y_*(\delta) = K_* U (\Lambda + \delta)^{-1} U^\top Y, \qquad K = U \Lambda U^\top

    Args:
        gram: Kernel matrix of the training points.
        targets: One row a training point.
        cross_gram: Kernel between new points (rows) and training points (columns).
        ridges: R ridges. With ridge 0, directions whose eigenvalue is zero to working precision are left out.

    Returns:
        Predictions on the training points and on the new ones, ridges first.

    Raises:
        ValueError: For shapes, types or devices that do not fit, NaN, or a negative ridge.

    Source:
        simon2023more (test error along the ridge).
    """
    _checked(gram, targets)
    require(cross_gram.shape[-1] == gram.shape[-1], f"a cross Gram matrix [..., T, {gram.shape[-1]}]", cross_gram.shape)
    require(cross_gram.dtype == gram.dtype, f"a cross Gram matrix of type {gram.dtype}", cross_gram.dtype)
    require_same_device([("gram", gram), ("cross_gram", cross_gram)])
    require_finite("cross_gram", cross_gram)
    grid = torch.atleast_1d(_ridges(ridges, gram))
    values, vectors = torch.linalg.eigh(gram)
    floor = gram.shape[-1] * torch.finfo(gram.dtype).eps * values.abs().amax(-1, keepdim=True)
    known = values > floor
    total = values[None] + grid.reshape(-1, *[1] * values.ndim)
    shrink = torch.where(known | (total > 2 * floor), 1 / torch.where(total > 0, total, torch.ones_like(total)), 0.0)
    coefficients = shrink[..., None] * (vectors.mT @ targets)[None]
    train = vectors @ (torch.where(known, values, torch.zeros_like(values))[..., None] * coefficients)
    return train, (cross_gram @ vectors) @ coefficients
