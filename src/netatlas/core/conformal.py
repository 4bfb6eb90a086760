r"""Prediction sets with a coverage that holds for every sample size: split, adaptive, weighted and diffused.

A score :math:`S(x, k)` says how badly class :math:`k` fits; the set keeps the classes whose score is at most a quantile
of the scores of held-out examples with their true labels. If these and the new example are exchangeable, the true class
is in the set with probability at least :math:`1 - \alpha`, whatever the classifier.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite, require_same_device
from netatlas.core.graph import normalized_adjacency

# Sums of weights that reach the level up to rounding count as reaching it: ten tenths must be one.
LEVEL_TOLERANCE = 1e-9


def _check_alpha(alpha: float) -> None:
    require(0 < alpha < 1, "alpha in (0, 1)", alpha)


def _check_numbers(name: str, values: Tensor) -> None:
    """Scores and bounds may be infinite (a full set), but not NaN."""
    if values.device.type != "meta":
        require(not bool(values.isnan().any()), f"{name} that are numbers", "NaN")


def _check_probabilities(probabilities: Tensor) -> None:
    require(
        probabilities.ndim >= 1 and probabilities.is_floating_point(),
        "floating probabilities [..., classes]",
        (tuple(probabilities.shape), probabilities.dtype),
    )
    require(probabilities.shape[-1] > 0, "at least one class", 0)
    require_finite("probabilities", probabilities)
    if probabilities.device.type != "meta" and probabilities.numel():
        require(float(probabilities.min()) >= -1e-6, "non-negative probabilities", float(probabilities.min()))
        off = float((probabilities.sum(-1) - 1).abs().max())
        require(off < 1e-3, "probabilities that sum to 1", f"a sum off by {off:.2g}")


def adaptive_scores(
    probabilities: Float[Tensor, "*n C"], u: Float[Tensor, "*n"] | None = None
) -> Float[Tensor, "*n C"]:
    r"""Randomised adaptive score of every class: the mass of the more likely classes and a random part of its own.

    .. math:: S(x, k, u) = \sum_{j:\,p_j > p_k} p_j + (1 - u)\,p_k, \qquad u \sim U(0, 1)

    One ``u`` serves all classes of an example. Classes of equal probability are ordered by their index.

    Args:
        probabilities: Class probabilities.
        u: One number in [0, 1] an example; default 0, the conservative score without randomisation.

    Raises:
        ValueError: For bad probabilities, or ``u`` of another shape or outside [0, 1].

    Source: clarkson2022naps (the base score).
    """
    _check_probabilities(probabilities)
    if u is None:
        u = probabilities.new_zeros(probabilities.shape[:-1])
    require(
        tuple(u.shape) == tuple(probabilities.shape[:-1]),
        f"u of shape {tuple(probabilities.shape[:-1])}",
        tuple(u.shape),
    )
    require_same_device([("probabilities", probabilities), ("u", u)])
    if u.device.type != "meta" and u.numel():
        require(bool(((u >= 0) & (u <= 1)).all()), "u in [0, 1]", (float(u.min()), float(u.max())))
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    ranked = before + (1 - u.to(probabilities.dtype))[..., None] * ordered
    return torch.zeros_like(probabilities).scatter(-1, order, ranked)


def label_scores(scores: Float[Tensor, "*n C"], labels: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The score of each example's own label.

    Args:
        scores: Scores of all classes.
        labels: Class indices.

    Raises:
        ValueError: For shapes that do not fit, NaN, floating labels or labels out of range.
    """
    require(scores.ndim >= 1, "scores [..., classes]", tuple(scores.shape))
    _check_numbers("scores", scores)
    require(not labels.is_floating_point() and labels.dtype != torch.bool, "integer labels", labels.dtype)
    require(
        tuple(labels.shape) == tuple(scores.shape[:-1]),
        f"labels of shape {tuple(scores.shape[:-1])}",
        tuple(labels.shape),
    )
    require_same_device([("scores", scores), ("labels", labels)])
    if labels.device.type != "meta" and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        require(low >= 0 and high < scores.shape[-1], f"labels in [0, {scores.shape[-1]})", (low, high))
    return scores.gather(-1, labels[..., None])[..., 0]


def diffused_scores(scores: Float[Tensor, "n C"], graph: Any, weight: float = 0.5) -> Float[Tensor, "n C"]:
    r"""Scores mixed with the mean over neighbours; an isolated node keeps its own.

    .. math:: \hat S(v, k) = (1 - \lambda)\, S(v, k) + \frac{\lambda}{\deg v}\sum_{w \sim v} S(w, k)

    The map treats all nodes alike, so that scores which are exchangeable over nodes stay so.

    Args:
        scores: Scores of all classes at every node.
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes, with ``n`` nodes.
        weight: The neighbours' share :math:`\lambda` in [0, 1].

    Raises:
        ValueError: For a weight outside [0, 1], a bad graph, or another number of nodes.
    """
    require(0 <= weight <= 1, "a weight in [0, 1]", weight)
    require(scores.ndim == 2, "scores [nodes, classes]", tuple(scores.shape))
    require_finite("scores", scores)
    walk = normalized_adjacency(graph)
    require(walk.shape[0] == scores.shape[0], f"a graph of {scores.shape[0]} nodes", walk.shape[0])
    values = scores.detach().cpu().numpy()
    share = np.where(np.diff(walk.indptr) > 0, weight, 0.0)[:, None]
    mixed = (1 - share) * values + share * (walk @ values)
    return torch.from_numpy(mixed).to(scores)


def conformal_quantile(scores: Float[Tensor, "*M n"], alpha: float = 0.1) -> Float[Tensor, "*M"]:
    r"""The :math:`\lceil (1-\alpha)(n+1) \rceil`-th smallest calibration score, :math:`+\infty` if there are too few.

    Args:
        scores: Calibration scores; batch axes lead. No score at all gives :math:`+\infty`: the full set.
        alpha: Allowed share of misses, in (0, 1).

    Raises:
        ValueError: For ``alpha`` outside (0, 1), or NaN scores.
    """
    _check_alpha(alpha)
    require(scores.ndim >= 1 and scores.is_floating_point(), "floating scores along an axis", tuple(scores.shape))
    require_finite("scores", scores)
    n = scores.shape[-1]
    rank = conformal_rank(n, alpha)
    if rank > n:
        return scores.new_full(scores.shape[:-1], math.inf)
    return scores.kthvalue(rank, -1).values


def conformal_rank(n: int, alpha: float = 0.1) -> int:
    r"""The rank :math:`\lceil (1-\alpha)(n+1) \rceil` of the calibration score that bounds the set.

    Args:
        n: Calibration examples.
        alpha: Allowed share of misses, in (0, 1).

    Raises:
        ValueError: For a number of examples that is negative or not whole, or ``alpha`` outside (0, 1).
    """
    _check_alpha(alpha)
    require(n >= 0 and n == int(n), "a non-negative number of examples", n)
    return math.ceil((1 - alpha) * (n + 1) - LEVEL_TOLERANCE)


def exchangeable_coverage(n: Any, alpha: float = 0.1) -> np.ndarray:
    r"""Exact coverage with ``n`` exchangeable continuous calibration scores.

    .. math:: P(S_{n+1} \le q) = \frac{\lceil (1-\alpha)(n+1) \rceil}{n+1},
        \qquad \text{and } 1 \text{ if the rank exceeds } n

    Args:
        n: Numbers of calibration examples, at least 0.
        alpha: Allowed share of misses, in (0, 1).

    Raises:
        ValueError: For a number that is negative or not whole, or ``alpha`` outside (0, 1).

    Source: clarkson2022naps (the discreteness of small neighbourhoods).
    """
    _check_alpha(alpha)
    n = np.asarray(n, dtype=np.float64)
    require(bool(((n >= 0) & (n == np.floor(n))).all()), "non-negative numbers of examples", n)
    return np.ceil((1 - alpha) * (n + 1) - LEVEL_TOLERANCE) / (n + 1)


def weighted_conformal_quantile(scores: Float[Tensor, " n"], weights: Any, alpha: float = 0.1) -> Float[Tensor, " v"]:
    r"""A quantile of its own for every test point, from calibration scores weighted by closeness.

    .. math:: q_v = \inf\Bigl\{ s : \sum_{i:\,S_i \le s} w_{vi} \ge (1-\alpha)\Bigl(\sum_i w_{vi} + 1\Bigr) \Bigr\}

    The test point itself has weight 1 and the score :math:`+\infty`: where
    :math:`\sum_i w_{vi} < (1-\alpha)/\alpha`, the quantile is :math:`+\infty` and the set is full. Equal weights over
    all points give :func:`conformal_quantile`. All rows are one pass over the stored weights.

    Args:
        scores: Calibration scores.
        weights: Sparse or dense ``[v, n]``, non-negative; zeros are points that do not count.
        alpha: Allowed share of misses, in (0, 1).

    Raises:
        ValueError: For ``alpha`` outside (0, 1), negative or NaN weights, NaN scores, or shapes that do not fit.

    Source: clarkson2022naps (neighbourhood adaptive prediction sets); Barber et al. (2022) for the weights.
    """
    _check_alpha(alpha)
    require(scores.ndim == 1 and scores.is_floating_point(), "floating scores [n]", tuple(scores.shape))
    require_finite("scores", scores)
    matrix = sp.csr_array(weights if sp.issparse(weights) else np.atleast_2d(np.asarray(weights, dtype=np.float64)))
    require(matrix.shape[1] == len(scores), f"weights of {len(scores)} columns", matrix.shape)
    require_finite("weights", matrix.data)
    require(matrix.nnz == 0 or matrix.data.min() >= 0, "non-negative weights", "a negative one")
    values = scores.detach().cpu().numpy()
    order = np.argsort(values, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    found = np.full(matrix.shape[0], np.inf)
    if matrix.nnz:
        ranked = sp.csr_array((matrix.data.astype(np.float64), rank[matrix.indices], matrix.indptr), matrix.shape)
        # Column indices are ranks now: sorting them sorts every row by score.
        ranked.sort_indices()
        running = np.cumsum(ranked.data)
        lengths = np.diff(ranked.indptr)
        base = np.concatenate([[0.0], running])[ranked.indptr[:-1]]
        inside = running - np.repeat(base, lengths)
        total = np.concatenate([[0.0], running])[ranked.indptr[1:]] - base
        needed = (1 - alpha) * (total + 1)
        short = inside < np.repeat(needed, lengths) - LEVEL_TOLERANCE * np.repeat(total + 1, lengths)
        below = np.add.reduceat(np.append(short, 0), ranked.indptr[:-1].clip(max=ranked.nnz)) * (lengths > 0)
        finite = below < lengths
        place = ranked.indptr[:-1][finite] + below[finite]
        found[finite] = values[order[ranked.indices[place]]]
    return torch.from_numpy(found).to(scores)


def prediction_sets(scores: Float[Tensor, "*n C"], quantile: Float[Tensor, "*n"]) -> Bool[Tensor, "*n C"]:
    r"""The sets :math:`\{k : S(x, k) \le q\}`.

    Args:
        scores: Scores of all classes.
        quantile: One bound for all, or one an example.

    Raises:
        ValueError: For scores or a bound that are NaN or do not fit.
    """
    require(scores.ndim >= 1, "scores [..., classes]", tuple(scores.shape))
    quantile = torch.as_tensor(quantile, dtype=scores.dtype, device=scores.device)
    require(
        quantile.ndim == 0 or tuple(quantile.shape) == tuple(scores.shape[:-1]),
        f"one quantile or shape {tuple(scores.shape[:-1])}",
        tuple(quantile.shape),
    )
    _check_numbers("quantiles", quantile)
    _check_numbers("scores", scores)
    return scores <= quantile[..., None]


def size_stratified_violation(
    sizes: Int[Tensor, " n"], covered: Bool[Tensor, " n"], alpha: float = 0.1, edges: tuple[int, ...] = (1, 2, 3, 4)
) -> float:
    r"""Largest gap to the nominal coverage over groups of examples with sets of like size.

    .. math:: \max_g \Bigl| \frac{1}{n_g}\sum_{i \in g} 1[y_i \in C_i] - (1 - \alpha) \Bigr|

    Args:
        sizes: Size of each set.
        covered: Whether it holds the label.
        alpha: Allowed share of misses.
        edges: Upper ends of the groups; a last group takes larger sets. Empty groups do not count.

    Raises:
        ValueError: For no examples, shapes that differ, sizes that are not integers, outcomes that are not boolean, or
            edges that do not increase.

    Source: clarkson2022naps (SSCV).
    """
    _check_alpha(alpha)
    require(sizes.ndim == 1 and len(sizes) > 0, "at least one example", tuple(sizes.shape))
    require(not sizes.is_floating_point(), "integer sizes", sizes.dtype)
    boolean = covered.shape == sizes.shape and covered.dtype == torch.bool
    require(boolean, f"{len(sizes)} boolean outcomes", (tuple(covered.shape), covered.dtype))
    require(all(a < b for a, b in zip(edges, edges[1:])), "increasing edges", edges)
    group = torch.bucketize(sizes, torch.tensor(edges, device=sizes.device, dtype=sizes.dtype))
    count = torch.bincount(group, minlength=len(edges) + 1)
    hits = torch.bincount(group, weights=covered.double(), minlength=len(edges) + 1)
    share = hits[count > 0] / count[count > 0]
    return float((share - (1 - alpha)).abs().max())
