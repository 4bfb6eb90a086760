r"""Neighbourhood adaptive prediction sets: each node's quantile comes from the calibration nodes near it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.conformal import weighted_conformal_quantile
from netatlas.core.graph import as_csr

Decay = Literal["uniform", "linear", "geometric"]


def hop_distances(graph: Any, hops: int) -> sp.csr_array:
    r"""Shortest-path lengths up to a number of hops, as a sparse matrix without diagonal.

    Entry :math:`(v, i)` is :math:`d(v, i) \in \{1, \dots, k\}`; pairs farther apart are not stored. Directions are
    ignored, and so are self-loops and edge weights. Memory is the number of pairs within reach.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.
        hops: Largest distance :math:`k \ge 1`.

    Raises:
        ValueError: For fewer than one hop or a bad graph.
    """
    require(hops >= 1, "at least one hop", hops)
    matrix = as_csr(graph)
    step = ((matrix + matrix.T) != 0).astype(np.float64)
    reached = sp.csr_array(sp.eye_array(step.shape[0], format="csr"))
    frontier, found = reached, sp.csr_array(step.shape)
    for distance in range(1, hops + 1):
        ball = ((reached + frontier @ step) != 0).astype(np.float64)
        frontier = sp.csr_array(ball - reached)
        frontier.eliminate_zeros()
        found = found + distance * frontier
        reached = ball
    found = sp.csr_array(found)
    found.sort_indices()
    return found


def khop_calibration_weights(distances: sp.csr_array, decay: Decay = "uniform") -> sp.csr_array:
    r"""Weights of the nodes near each node, by their distance.

    .. math:: \rho(d) = 1 \;\text{(uniform)}, \qquad \rho(d) = 1/d \;\text{(linear)},
        \qquad \rho(d) = 2^{-(d-1)} \;\text{(geometric)}

    Args:
        distances: From :func:`hop_distances`.
        decay: Which :math:`\rho`.

    Raises:
        ValueError: For an unknown decay or distances below 1.

    Source: clarkson2022naps.
    """
    require(decay in ("uniform", "linear", "geometric"), "a decay out of uniform, linear, geometric", repr(decay))
    require(sp.issparse(distances), "a sparse matrix of distances", type(distances).__name__)
    require_finite("distances", distances.data)
    require(distances.nnz == 0 or distances.data.min() >= 1, "distances of at least 1", "a smaller one")
    weights = sp.csr_array(distances, dtype=np.float64, copy=True)
    d = weights.data
    weights.data = {"uniform": np.ones_like, "linear": np.reciprocal, "geometric": lambda d: 0.5 ** (d - 1)}[decay](d)
    return weights


def _check_nodes(nodes: np.ndarray, count: int) -> np.ndarray:
    nodes = np.asarray(nodes)
    require(nodes.ndim == 1 and (nodes.size == 0 or nodes.dtype.kind in "iu"), "integer node numbers", nodes.dtype)
    low, high = (nodes.min(), nodes.max()) if nodes.size else (0, -1)
    require(low >= 0 and high < count, f"nodes in [0, {count})", (low, high))
    return nodes


def random_neighbourhoods(weights: sp.csr_array, candidates: np.ndarray, seed: int) -> sp.csr_array:
    """The same weights on nodes drawn at random: neighbourhoods of equal sizes without locality.

    Every row takes a window of one random order of the candidates, from a start of its own.

    Args:
        weights: Weights ``[v, n]``.
        candidates: Columns that may be drawn (the calibration nodes).
        seed: Seeds the draw; a row's columns are distinct.

    Raises:
        ValueError: For weights that are not sparse, candidates that are no columns or come twice, or a row with more
            weights than there are candidates.
    """
    require(sp.issparse(weights), "a sparse matrix of weights", type(weights).__name__)
    candidates = _check_nodes(candidates, weights.shape[1])
    require(len(np.unique(candidates)) == len(candidates), "distinct candidates", "one that comes twice")
    lengths = np.diff(weights.indptr)
    widest = int(lengths.max(initial=0))
    require(widest <= len(candidates), f"at least {widest} candidates", len(candidates))
    rng = np.random.default_rng(seed)
    order = rng.permutation(candidates)
    place = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], lengths)
    start = np.repeat(rng.integers(0, max(len(candidates), 1), len(lengths)), lengths)
    columns = order[(start + place) % max(len(candidates), 1)].astype(weights.indices.dtype)
    drawn = sp.csr_array((weights.data.copy(), columns, weights.indptr.copy()), weights.shape)
    drawn.sort_indices()
    return drawn


def neighbourhood_quantiles(
    scores: Float[Tensor, " n"], weights: sp.csr_array, calibration: Bool[Tensor, " n"], alpha: float = 0.1
) -> Float[Tensor, " n"]:
    r"""Every node's own conformal quantile, from the calibration nodes that its row of weights reaches.

    .. math:: q_v = \mathrm{Quantile}_{1-\alpha}\Bigl(\sum_i \tilde w_{vi}\,\delta_{S_i}
        + \tilde w_v\,\delta_{+\infty}\Bigr),
        \qquad \tilde w_{vi} = \frac{w_{vi}}{\sum_j w_{vj} + 1}

    A node with :math:`\sum_i w_{vi} < (1-\alpha)/\alpha` has :math:`q_v = +\infty`, the full set.

    Args:
        scores: Score of every node's own label; only those of calibration nodes are used.
        weights: Weights ``[n, n]`` without diagonal.
        calibration: Which nodes may be used.
        alpha: Allowed share of misses.

    Raises:
        ValueError: For weights that are not sparse, shapes that do not fit, a node that counts for itself, or as
            :func:`netatlas.core.conformal.weighted_conformal_quantile`.

    Source: clarkson2022naps.
    """
    require(sp.issparse(weights), "a sparse matrix of weights", type(weights).__name__)
    require(weights.shape == (len(scores),) * 2, f"weights of shape {(len(scores),) * 2}", weights.shape)
    boolean = tuple(calibration.shape) == (len(scores),) and calibration.dtype == torch.bool
    require(boolean, f"a boolean mask of {len(scores)} nodes", (tuple(calibration.shape), calibration.dtype))
    require(not weights.diagonal().any(), "weights without a diagonal", "a node in its own neighbourhood")
    kept = np.flatnonzero(calibration.cpu().numpy())
    near = sp.csr_array(weights)[:, kept]
    return weighted_conformal_quantile(scores[torch.from_numpy(kept).to(scores.device)], near, alpha)


def neighbourhood_balls(
    graph: Any, nodes: np.ndarray, *, hops: int = 2, count: int = 10, seed: int = 0
) -> list[np.ndarray]:
    """Disjoint balls of a subset of nodes: a random root takes its neighbourhood, which is then removed, and so on.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.
        nodes: The nodes that the balls may hold.
        hops: Radius.
        count: How many of the largest balls to return.
        seed: Orders the roots.

    Raises:
        ValueError: For no nodes, nodes out of range, a count below 1, or as :func:`hop_distances`.

    Source: clarkson2022naps (NCCV).
    """
    require(len(nodes) > 0 and count >= 1, "at least one node and one ball", (len(nodes), count))
    reach = hop_distances(graph, hops)
    nodes = _check_nodes(nodes, reach.shape[0])
    free = np.zeros(reach.shape[0], dtype=bool)
    free[nodes] = True
    balls = []
    for root in np.random.default_rng(seed).permutation(nodes):
        if free[root]:
            near = reach.indices[reach.indptr[root] : reach.indptr[root + 1]]
            ball = np.append(near[free[near]], root)
            free[ball] = False
            balls.append(np.sort(ball))
    return sorted(balls, key=len, reverse=True)[:count]


def neighbourhood_coverage_violation(
    coverage: Float[Tensor, " n"], balls: list[np.ndarray], alpha: float = 0.1
) -> float:
    r"""Largest gap to the nominal coverage over balls, :math:`\max_B |\overline{\mathrm{cov}}(B) - (1 - \alpha)|`.

    Args:
        coverage: Coverage of each node (averaged over splits, say); NaN where a node was never tested.
        balls: From :func:`neighbourhood_balls`.
        alpha: Allowed share of misses.

    Raises:
        ValueError: For no balls, balls with nodes out of range, or balls without any tested node.

    Source: clarkson2022naps (NCCV).
    """
    require(0 < alpha < 1, "alpha in (0, 1)", alpha)
    require(len(balls) > 0, "at least one ball", 0)
    values = coverage.detach().cpu().numpy()
    balls = [_check_nodes(ball, len(values)) for ball in balls]
    means = [values[ball][~np.isnan(values[ball])] for ball in balls]
    require(any(len(part) for part in means), "a ball with tested nodes", "none")
    return float(max(abs(part.mean() - (1 - alpha)) for part in means if len(part)))
