r"""Neural collapse in deep linear networks on free features: the optimum in closed form, and how far a network is.

The *unconstrained features model* leaves the features :math:`H` free and trains them with :math:`M` linear layers,

.. math::

    \min_{W_M, \dots, W_1, H}\; \frac{1}{2N} \lVert W_M \cdots W_1 H - Y \rVert_F^2
    + \sum_{m=1}^M \frac{\lambda_m}{2} \lVert W_m \rVert_F^2 + \frac{\lambda_H}{2} \lVert H \rVert_F^2 ,

with one-hot targets :math:`Y` of :math:`n_k` examples in class k and N in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from torch import Tensor

from netatlas.core.checks import require, require_finite


class CollapseOptimum(NamedTuple):
    """The global minimum of the unconstrained features model.

    Attributes:
        singular_values: Of the product of all factors, one a class: ``[K]``.
        weight_norms: Length of each class's vector in each layer, ``[M, K]``, the first layer first.
        feature_norms: Length of one example's feature, by class ``[K]``.
        objective: The minimum.
        alive: Whether a class is not collapsed to zero, ``[K]``.
    """

    singular_values: Float[np.ndarray, " K"]
    weight_norms: Float[np.ndarray, "M K"]
    feature_norms: Float[np.ndarray, " K"]
    objective: float
    alive: np.ndarray


def _check(counts: Sequence[int], weight_decays: Sequence[float], feature_decay: float) -> None:
    require(len(counts) >= 1 and min(counts) >= 1, "at least one class of at least one example", list(counts))
    require(len(weight_decays) >= 1, "at least one layer", 0)
    decays = [*weight_decays, feature_decay]
    require(all(0 < d < math.inf for d in decays), "positive finite decays", decays)


def _effective_decay(weight_decays: Sequence[float], feature_decay: float) -> float:
    logs = [math.log(d) for d in (*weight_decays, feature_decay)]
    return math.exp(math.fsum(logs) / len(logs))


def collapse_threshold(examples: int, weight_decays: Sequence[float], feature_decay: float) -> float:
    r"""The class size up to which a class is zero at the global minimum.

    With :math:`q = 2/(M+1)` and :math:`c = (\lambda_1 \cdots \lambda_M \lambda_H)^{1/(M+1)}`,

    .. math::

        n^* = \left[\frac{N c\,(2 - q)}{q} \left(\frac{2 - q}{2 (1 - q)}\right)^{1-q}\right]^{2/(2-q)} ,

    which is :math:`N^2 \lambda_1 \lambda_H` for :math:`M = 1` and :math:`4 (N c)^{3/2}` for :math:`M = 2`.

    Args:
        examples: N.
        weight_decays: :math:`\lambda_1, \dots, \lambda_M`.
        feature_decay: :math:`\lambda_H`.

    Raises:
        ValueError: For no examples, no layers, or decays that are not positive.

    Source: dang2023deepnc.
    """
    _check([examples], weight_decays, feature_decay)
    q, c = 2 / (len(weight_decays) + 1), _effective_decay(weight_decays, feature_decay)
    ratio = ((2 - q) / (2 * (1 - q))) ** (1 - q) if q < 1 else 1.0
    return (examples * c * (2 - q) / q * ratio) ** (2 / (2 - q))


def collapse_optimum(counts: Sequence[int], weight_decays: Sequence[float], feature_decay: float) -> CollapseOptimum:
    r"""The global minimum of the unconstrained features model: one scalar problem a class.

    .. math::

        s_k = \arg\min_{s \ge 0}\; \frac{(s - \sqrt{n_k})^2}{2N} + \frac{M+1}{2}\, c\, s^{2/(M+1)}, \qquad
        c = (\lambda_1 \cdots \lambda_M \lambda_H)^{1/(M+1)} .

    For one layer :math:`s_k = \max(0, \sqrt{n_k} - N \sqrt{\lambda_1 \lambda_H})`. For more, the penalty is concave:
    zero is always a local minimum, and :math:`s_k` jumps at :func:`collapse_threshold`. All factors share the singular
    value, :math:`\lambda_m \sigma_m^2 = \lambda_H \sigma_H^2`, so that
    :math:`\sigma_m^2 = c\, s_k^{2/(M+1)} / \lambda_m`; a class's features are equal, of length
    :math:`\sigma_H / \sqrt{n_k}`.

    Args:
        counts: Class sizes :math:`n_k`.
        weight_decays: :math:`\lambda_1, \dots, \lambda_M`.
        feature_decay: :math:`\lambda_H`.

    Raises:
        ValueError: For empty classes, no layers, or decays that are not positive.

    Source: dang2023deepnc.
    """
    _check(counts, weight_decays, feature_decay)
    layers, total = len(weight_decays), sum(counts)
    q, c = 2 / (layers + 1), _effective_decay(weight_decays, feature_decay)
    threshold = collapse_threshold(total, weight_decays, feature_decay)
    roots = [math.sqrt(n) for n in counts]
    found = []
    for n, root in zip(counts, roots):
        if n <= threshold:
            found.append(0.0)
        elif layers == 1:
            found.append(root - total * c)
        else:
            # On this side of its maximum s^(1-q) (sqrt(n) - s) falls, so that the root is the local minimum.
            low = root * (1 - q) / (2 - q)
            found.append(
                brentq(lambda s, r=root: s ** (1 - q) * (r - s) - total * c, low, root, xtol=1e-300, rtol=1e-15)
            )
    s = np.array(found)
    fit = math.fsum((a - b) ** 2 for a, b in zip(found, roots)) / (2 * total)
    shared = c * s**q
    return CollapseOptimum(
        s,
        np.sqrt(shared / np.array(weight_decays)[:, None]),
        np.sqrt(shared / feature_decay / np.array(counts)),
        fit + math.fsum(a**q for a in found) * c / q,
        s > 0,
    )


def ufm_objective(
    weights: Sequence[Float[Tensor, "*B out in"]],
    features: Float[Tensor, "*B d N"],
    targets: Float[Tensor, "*B K N"],
    weight_decays: Sequence[Float[Tensor, "*B"] | float],
    feature_decay: Float[Tensor, "*B"] | float,
    examples: Float[Tensor, "*B"] | int | None = None,
) -> Float[Tensor, "*B"]:
    """The objective of the unconstrained features model, for one problem or a batch.

    Args:
        weights: The layers, first layer first.
        features: Free features, one column an example.
        targets: One-hot columns; columns of zeros pad smaller problems of a batch.
        weight_decays: One a layer.
        feature_decay: Of the features.
        examples: N of each problem; default: the number of columns.

    Raises:
        ValueError: For no layers or a number of decays that differs.
    """
    require(len(weights) >= 1 and len(weight_decays) == len(weights), "a decay for every layer", len(weight_decays))
    product = features
    for w in weights:
        product = w @ product
    count = targets.shape[-1] if examples is None else examples
    value = (product - targets).square().sum((-1, -2)) / (2 * count) + feature_decay / 2 * features.square().sum(
        (-1, -2)
    )
    for w, decay in zip(weights, weight_decays):
        value = value + decay / 2 * w.square().sum((-1, -2))
    return value


def balance_gap(
    weights: Sequence[Float[Tensor, "*B out in"]],
    features: Float[Tensor, "*B d N"],
    weight_decays: Sequence[float],
    feature_decay: float,
) -> Float[Tensor, "*B"]:
    r"""Largest entry of :math:`\lambda_m W_m W_m^\top - \lambda_{m+1} W_{m+1}^\top W_{m+1}` over all layers.

    It is zero at every critical point. The features are the factor before the first layer, with
    :math:`\lambda_0 = \lambda_H`.

    Args:
        weights: The layers, first layer first.
        features: One column an example.
        weight_decays: One a layer.
        feature_decay: Of the features.

    Raises:
        ValueError: For a number of decays that differs.

    Source: dang2023deepnc.
    """
    require(len(weight_decays) == len(weights), f"{len(weights)} decays", len(weight_decays))
    factors, decays = [features, *weights], [feature_decay, *weight_decays]
    gaps = [
        (a * f @ f.mT - b * g.mT @ g).abs().amax((-1, -2))
        for f, g, a, b in zip(factors, factors[1:], decays, decays[1:])
    ]
    return torch.stack(gaps).amax(0)


def class_means(features: Float[Tensor, "*M N d"], labels: Int[Tensor, " N"], classes: int) -> Float[Tensor, "*M K d"]:
    """Mean feature of every class.

    Args:
        features: ``[..., N, d]``.
        labels: From 0 to ``classes`` - 1.
        classes: K.

    Raises:
        ValueError: For labels out of range or a class without examples.
    """
    require(labels.shape == features.shape[-2:-1], f"{features.shape[-2]} labels", tuple(labels.shape))
    onehot = torch.nn.functional.one_hot(labels, classes).to(features.dtype)
    counts = onehot.sum(0)
    if features.device.type != "meta":
        require(bool((counts > 0).all()), "at least one example of every class", counts.tolist())
    return onehot.T @ features / counts[:, None]


class CollapseMetrics(NamedTuple):
    r"""How collapsed the last layer is, ``[...]`` each.

    Attributes:
        within: NC1, :math:`\operatorname{tr}(\Sigma_W \Sigma_B^+) / K`.
        mean_cosine: Mean :math:`|\cos|` between different class means: zero for an orthogonal frame.
        head_cosine: The same between rows of the head.
        mean_simplex: Mean :math:`|\cos + 1/(K-1)|` of class means: zero for a simplex.
        head_simplex: The same of the head's rows.
        alignment: NC3, mean of 1 - cos between a head's row and its class mean.
    """

    within: Tensor
    mean_cosine: Tensor
    head_cosine: Tensor
    mean_simplex: Tensor
    head_simplex: Tensor
    alignment: Tensor


def _cosines(rows: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(rows, dim=-1)
    classes = rows.shape[-2]
    pairs = torch.triu_indices(classes, classes, 1, device=rows.device)
    return (unit @ unit.mT)[..., pairs[0], pairs[1]]


def collapse_metrics(
    features: Float[Tensor, "*M N d"], labels: Int[Tensor, " N"], head: Float[Tensor, "*M K d"]
) -> CollapseMetrics:
    """Neural collapse of features and head, angles taken about the origin.

    Args:
        features: Features before the last layer.
        labels: Classes of the examples, each at least once.
        head: The last layer's weights, one row a class, at least two.

    Raises:
        ValueError: For one class, NaN, or shapes that do not fit.

    Source: dang2023deepnc.
    """
    classes = head.shape[-2]
    require(classes >= 2, "at least two classes", classes)
    require(features.shape[-1] == head.shape[-1], f"features of dimension {head.shape[-1]}", features.shape[-1])
    require_finite("features", features)
    require_finite("head", head)
    means = class_means(features, labels, classes)
    offset = features - means[..., labels, :]
    middle = features.mean(-2, keepdim=True)
    counts = torch.bincount(labels, minlength=classes).to(features.dtype) if features.device.type != "meta" else None
    shares = features.new_full((classes,), 1 / classes) if counts is None else counts / counts.sum()
    between = (means - middle).mT @ (shares[:, None] * (means - middle))
    inside = offset.mT @ offset / features.shape[-2]
    within = (inside * torch.linalg.pinv(between, hermitian=True)).sum((-1, -2)) / classes
    cos_means, cos_head = _cosines(means), _cosines(head)
    aligned = torch.nn.functional.cosine_similarity(means, head, dim=-1)
    return CollapseMetrics(
        within,
        cos_means.abs().mean(-1),
        cos_head.abs().mean(-1),
        (cos_means + 1 / (classes - 1)).abs().mean(-1),
        (cos_head + 1 / (classes - 1)).abs().mean(-1),
        (1 - aligned).mean(-1),
    )
