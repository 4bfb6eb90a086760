"""MUSAE and AE: embeddings of attributed nodes at separate or pooled distances, and the matrices they factorise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numba import njit

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.embeddings.cooccurrence import truncated_svd_embedding
from netatlas.embeddings.sgns import skip_gram_features


@njit(cache=True)
def _count_features(walks, indptr, features, scale, out):
    for w in range(walks.shape[0]):
        for i in range(walks.shape[1] - scale):
            u, v = walks[w, i], walks[w, i + scale]
            if u < 0 or v < 0:
                break
            for e in range(indptr[v], indptr[v + 1]):
                out[u, features[e]] += 1
            for e in range(indptr[u], indptr[u + 1]):
                out[v, features[e]] += 1


class AttributedEmbedding(NamedTuple):
    """Node vectors and the feature vectors that they were fitted with.

    Attributes:
        nodes: ``[n, total dimension]``, the blocks of the scales side by side.
        features: one matrix ``[f, dimension]`` for every block of ``nodes``.
    """

    nodes: np.ndarray
    features: tuple[np.ndarray, ...]


def musae(
    walks: Int[np.ndarray, "w length"],
    features,
    *,
    scales: tuple[int, ...] = (1, 2, 3),
    dimension: int = 32,
    ego: bool = False,
    fixed: tuple[Float[np.ndarray, "f d"], ...] | None = None,
    seed: int = 0,
    **learner,
) -> AttributedEmbedding:
    r"""Multi-scale attributed node embedding: one skip-gram per distance, the blocks side by side.

    .. math:: g(v) = \big[\, g_1(v) \,;\, \ldots \,;\, g_T(v) \,\big], \qquad
        g_r \text{ from the corpus } D_r \text{ alone}

    Args:
        walks: node indices ``[walks, length]``.
        features: binary features ``[n, f]``, sparse or dense.
        scales: the distances r.
        dimension: of every block.
        ego: put a block of the nodes' own features (r = 0) in front, the ``-EGO`` variant.
        fixed: feature vectors of another fit, one matrix a block: they stay, only the node vectors are fitted.
        seed: block number r of the call uses ``seed + r``.
        learner: passed to :func:`netatlas.embeddings.sgns.skip_gram_features`.

    Returns:
        :class:`AttributedEmbedding`, ``nodes`` of width ``dimension * blocks``.

    Raises:
        ValueError: as :func:`~netatlas.embeddings.sgns.skip_gram_features`; if ``fixed`` has another number of blocks.

    Source: ``rozemberczki2019musae``, the MUSAE algorithm.
    """
    blocks = ((0,) if ego else ()) + tuple(scales)
    if not blocks:
        raise ValueError("at least one scale is needed")
    if fixed is not None and len(fixed) != len(blocks):
        raise ValueError(f"fixed must hold {len(blocks)} matrices, one for every block, got {len(fixed)}")
    fits = [
        skip_gram_features(
            walks, features, scales=(r,), dimension=dimension, seed=seed + i,
            fixed_features=None if fixed is None else fixed[i], **learner,
        )
        for i, r in enumerate(blocks)
    ]  # fmt: skip
    return AttributedEmbedding(
        np.concatenate([fit.input for fit in fits], axis=1), tuple(fit.output for fit in fits)
    )  # fmt: skip


def attributed_embedding(
    walks: Int[np.ndarray, "w length"],
    features,
    *,
    scales: tuple[int, ...] = (1, 2, 3),
    dimension: int = 96,
    seed: int = 0,
    **learner,
) -> AttributedEmbedding:
    r"""AE: one skip-gram on the pooled corpus :math:`D_1 \cup \ldots \cup D_T`.

    Args:
        walks, features, scales, seed, learner: as in :func:`musae`.
        dimension: of the single block.

    Raises:
        ValueError: as :func:`~netatlas.embeddings.sgns.skip_gram_features`.

    Source: ``rozemberczki2019musae``, the AE algorithm.
    """
    fit = skip_gram_features(walks, features, scales=tuple(scales), dimension=dimension, seed=seed, **learner)
    return AttributedEmbedding(fit.input, (fit.output,))


def node_feature_counts(walks: Int[np.ndarray, "w length"], features, scale: int) -> Float[np.ndarray, "n f"]:
    r"""The corpus of one distance as a matrix of counts, both directions included.

    .. math:: C_{vf} = \sum_u (N_{vu} + N_{uv})\, F_{uf}, \qquad N_{vu} = \#\{x_i = v,\ x_{i+r} = u\}

    Args:
        walks: node indices ``[walks, length]``; negative entries end a walk.
        features: binary features ``[n, f]``.
        scale: r, at least 1.

    Raises:
        ValueError: for a scale below 1 or not shorter than the walks.

    Source: ``rozemberczki2019musae``, the node-feature corpus.
    """
    walks = np.asarray(walks)
    if walks.ndim != 2 or not 1 <= scale < walks.shape[1]:
        raise ValueError(f"expected walks [w, length] longer than the scale, got {walks.shape} and scale {scale}")
    matrix = sp.csr_array(sp.csr_array(features) != 0).astype(np.float64)
    out = np.zeros(matrix.shape)
    _count_features(walks, matrix.indptr, matrix.indices, scale, out)
    return out


def fit_nodes(
    counts: Float[np.ndarray, "n f"],
    features: Float[np.ndarray, "f d"],
    *,
    negatives: float = 5.0,
    ns_exponent: float = 0.75,
    penalty: float = 1.0,
    iterations: int = 50,
) -> Float[np.ndarray, "n d"]:
    r"""Node vectors for given feature vectors, exactly: one concave problem a node, all solved together by Newton.

    .. math::
        g_v = \arg\max_g \sum_f C_{vf} \log \sigma(g^\top h_f) + K\, C_v \sum_f q_f \log \sigma(-g^\top h_f)
        - \tfrac{\lambda}{2} \lVert g \rVert^2, \qquad q_f \propto \Big(\sum_v C_{vf}\Big)^{\eta}

    This is the objective of the skip-gram learner in expectation, with the feature vectors held fixed.

    Args:
        counts: C, pairs counted by :func:`node_feature_counts`.
        features: h.
        negatives: K.
        ns_exponent: :math:`\eta`.
        penalty: :math:`\lambda > 0`, in units of one pair; it decides the directions that no feature vector spans.
        iterations: largest number of Newton steps.

    Raises:
        ValueError: for shapes that do not match, counts that are negative or not finite, a penalty that is not
            positive.

    Source: ``rozemberczki2019musae`` (transfer with fixed feature vectors).
    """
    counts, features = np.asarray(counts, dtype=np.float64), np.asarray(features, dtype=np.float64)
    if counts.ndim != 2 or features.ndim != 2 or counts.shape[1] != len(features):
        raise ValueError(f"expected counts [n, f] and features [f, d], got {counts.shape} and {features.shape}")
    if not (np.isfinite(counts).all() and np.isfinite(features).all()) or (counts < 0).any() or counts.sum() == 0:
        raise ValueError("counts must be finite, non-negative and not all zero, features finite")
    if not penalty > 0:
        raise ValueError(f"penalty must be positive, got {penalty}")
    total = counts.sum(axis=0)
    noise = np.where(total > 0, total, 0.0) ** ns_exponent * (total > 0)
    against = negatives * counts.sum(axis=1, keepdims=True) * (noise / noise.sum())
    mass = counts + against
    g = np.zeros((len(counts), features.shape[1]))

    def value(g):
        score = g @ features.T
        return (mass * np.logaddexp(0, score) - counts * score).sum(axis=1) + penalty / 2 * (g * g).sum(axis=1)

    reached = value(g)
    for _ in range(iterations):
        p = 1 / (1 + np.exp(-np.clip(g @ features.T, -500, 500)))
        slope = (mass * p - counts) @ features + penalty * g
        if np.abs(slope).max() < 1e-6 * max(counts.max(), 1):
            break
        bend = (features.T * (mass * p * (1 - p))[:, None, :]) @ features + penalty * np.eye(features.shape[1])
        step = np.linalg.solve(bend, slope[..., None])[..., 0]
        length = np.ones((len(g), 1))
        for _ in range(30):
            trial = g - length * step
            new = value(trial)
            worse = new > reached + 1e-9 * np.abs(reached)
            if not worse.any():
                break
            length[worse] *= 0.5
        g, reached = trial, new
    return g


def empirical_pmi(counts: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n f"]:
    r"""Pointwise mutual information of counted pairs, minus infinity where nothing was counted.

    .. math:: \mathrm{PMI}_{vf} = \log \frac{C_{vf}\, |D|}{C_v\, C_f}

    Raises:
        ValueError: for negative or non-finite counts, or none at all.

    Source: ``rozemberczki2019musae``, the pointwise mutual information.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
        raise ValueError("counts must be finite, non-negative and not all zero")
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, np.log(counts / expected), -np.inf)


def node_feature_pmi(graph, features, scales: tuple[int, ...]) -> Float[np.ndarray, "n f"]:
    r"""The node-feature PMI that MUSAE (one scale) or AE (several) factorises, in closed form.

    .. math::
        M_{vf} = \log
        \frac{(\bar P F)_{vf}\; \mathbf 1^\top D F \mathbf 1}{(\bar P F \mathbf 1)_v\,(\mathbf 1^\top D F)_f},
        \qquad \bar P = \frac1{|T|} \sum_{r \in T} P^r

    If every node has the same number of features this is the paper's :math:`\log(c\, \bar P F E^{-1})` with
    :math:`c = \mathrm{vol}(G)` and :math:`E = \mathrm{diag}(\mathbf 1^\top D F)`; the form above also holds when the
    numbers differ. Skip-gram with b negatives reaches it minus :math:`\log b`.

    Args:
        graph: undirected, anything that ``netatlas.core.graph.as_csr`` reads.
        features: binary features ``[n, f]``.
        scales: the distances r, all at least 1.

    Returns:
        Dense ``[n, f]``; minus infinity where a feature cannot be reached.

    Raises:
        ValueError: for a bad graph, features with another number of rows, or scales below 1.

    Source: ``rozemberczki2019musae``, the factorisation theorems.
    """
    adjacency = as_csr(graph)
    matrix = sp.csr_array(sp.csr_array(features) != 0).astype(np.float64).toarray()
    if len(matrix) != adjacency.shape[0]:
        raise ValueError(f"expected {adjacency.shape[0]} rows of features, got {len(matrix)}")
    if not scales or min(scales) < 1:
        raise ValueError(f"scales must be distances of at least 1, got {scales}")
    step = normalized_adjacency(adjacency, "row")
    reached, power = np.zeros_like(matrix), matrix
    for r in range(1, max(scales) + 1):
        power = step @ power
        if r in scales:
            reached += power / len(scales)
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    mass = degree @ matrix
    per_node = reached.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = reached * mass.sum() / (per_node[:, None] * mass)
        return np.where(ratio > 0, np.log(ratio), -np.inf)


def pmi_factors(graph, features, *, scales: tuple[int, ...], dimension: int) -> Float[np.ndarray, "n d"]:
    r"""The closed form's own factors: :math:`U_d S_d^{1/2}` of :math:`\max(0, M)`, the learner without sampling.

    Args:
        graph, features, scales: as in :func:`node_feature_pmi`.
        dimension: d, at most the number of features.

    Raises:
        ValueError: as :func:`node_feature_pmi`, and for a dimension out of range.

    Source: ``rozemberczki2019musae``, the factorisation theorems (after Levy and Goldberg, 2014).
    """
    return truncated_svd_embedding(np.maximum(node_feature_pmi(graph, features, scales), 0.0), dimension)
