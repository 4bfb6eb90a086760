r"""Random-feature ridge regression on Gaussian eigenfeatures, and how closely a kernel should fit its training data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core import kernel_ridge
from netatlas.core.checks import require, require_finite


class FittingCurve(NamedTuple):
    """Test and training error along the ridge, ``[R]`` each or with batch axes behind."""

    ridges: Float[Tensor, " R"]
    test: Float[Tensor, "R *batch"]
    train: Float[Tensor, "R *batch"]


def simulate_random_features(
    eigenvalues: Float[Tensor, " M"],
    coefficients: Float[Tensor, " M"],
    n: int,
    features: int,
    ridges: Float[Tensor, " R"],
    *,
    noise: float,
    draws: int,
    generator: torch.Generator,
) -> Float[Tensor, "draws R"]:
    r"""Exact test risk of random-feature ridge regression on drawn data, for every ridge from one decomposition a draw.

    Samples are :math:`\phi \sim \mathcal N(0, I_M)`, labels :math:`y = \phi \cdot v + \xi`, features
    :math:`k^{-1/2} F \Lambda^{1/2} \phi` with Gaussian :math:`F`. The risk of
    weights :math:`w` needs no test set:

    .. math:: \mathcal E = \lVert v - k^{-1/2} \Lambda^{1/2} F^\top w \rVert^2 + \sigma^2

    Args:
        eigenvalues: :math:`\Lambda`.
        coefficients: :math:`v_i^2`.
        n: Samples.
        features: :math:`k`.
        ridges: R ridges.
        noise: :math:`\sigma^2`.
        draws: Draws of data and features.
        generator: Draws them.

    Returns:
        The risks.

    Raises:
        ValueError: For sizes below 1, shapes that differ, or negative values.

    Source:
        simon2023more (experiments on Gaussian data).
    """
    require(min(n, features, draws) >= 1, "sizes of at least 1", (n, features, draws))
    require(eigenvalues.shape == coefficients.shape, f"{len(eigenvalues)} coefficients", tuple(coefficients.shape))
    require(noise >= 0, "a noise variance of at least 0", noise)
    require_finite("eigenvalues", eigenvalues)
    options = {"generator": generator, "dtype": eigenvalues.dtype, "device": eigenvalues.device}
    root, target, rows = eigenvalues.sqrt(), coefficients.sqrt(), []
    for _ in range(draws):
        x = torch.randn(n, len(root), **options)
        f = torch.randn(features, len(root), **options) * (root / features**0.5)
        y = x @ target + noise**0.5 * torch.randn(n, **options)
        design = x @ f.T
        if n <= features:
            values, vectors = torch.linalg.eigh(design @ design.T)
            right = vectors.T @ y
            back = design.T @ vectors
        else:
            values, back = torch.linalg.eigh(design.T @ design)
            right = back.T @ (design.T @ y)
        weights = back @ (right[:, None] / (values.clamp_min(0)[:, None] + ridges))
        rows.append((target[:, None] - f.T @ weights).square().sum(0) + noise)
    return torch.stack(rows)


def fitting_curve(
    gram: Float[Tensor, "*batch N N"],
    targets: Float[Tensor, "*batch N C"],
    cross_gram: Float[Tensor, "*batch T N"],
    answers: Float[Tensor, "*batch T C"],
    ridges: Float[Tensor, " R"],
) -> FittingCurve:
    r"""Test and training error of kernel ridge regression along the ridge.

    Args:
        gram, targets: Training data.
        cross_gram, answers: Test data.
        ridges: From small to large.

    Raises:
        ValueError: As :func:`netatlas.core.kernel_ridge.ridge_path`.

    Source:
        simon2023more (test error along the ridge).
    """
    train, test = kernel_ridge.ridge_path(gram, targets, cross_gram, ridges)
    return FittingCurve(ridges, (test - answers).square().sum(-1).mean(-1), (train - targets).square().sum(-1).mean(-1))


class FittingRatio(NamedTuple):
    """Fitting ratio of the best ridge, and the price of a training error half the test error."""

    best: float
    price: float
    least: float
    ridgeless: float


def fitting_ratio(curve: FittingCurve, at: float = 0.5) -> FittingRatio:
    r"""Ratio :math:`R = \mathcal E_{\text{train}}/\mathcal E_{\text{test}}` at the best ridge, and what another ratio
    costs.

    .. math::

        R^* = R\bigl(\arg\min_\delta \mathcal E_{\text{test}}\bigr),
        \qquad \text{price} = \mathcal E_{\text{test}}(R = \tfrac12) / \min \mathcal E_{\text{test}}

    Args:
        curve: From :func:`fitting_curve`, ridges increasing, one batch entry.
        at: The ratio whose price is asked.

    Returns:
        Both, the least test error, and that at the smallest ridge. The price is read by interpolation along the path.

    Raises:
        ValueError: For a curve with batch axes, or a ratio outside (0, 1).

    Source:
        simon2023more (fitting ratio and obligatory overfitting).
    """
    require(curve.test.ndim == 1, "one curve", tuple(curve.test.shape))
    require(0 < at < 1, "a ratio in (0, 1)", at)
    ratio = curve.train / curve.test
    best = int(curve.test.argmin())
    rising = torch.cummax(ratio, 0).values
    place = int((rising < at).sum())
    if place in (0, len(ratio)):
        cost = curve.test[min(place, len(ratio) - 1)]
    else:
        share = (at - rising[place - 1]) / (rising[place] - rising[place - 1]).clamp_min(1e-300)
        cost = curve.test[place - 1] + share * (curve.test[place] - curve.test[place - 1])
    return FittingRatio(
        float(ratio[best]), float(cost / curve.test[best]), float(curve.test[best]), float(curve.test[0])
    )
