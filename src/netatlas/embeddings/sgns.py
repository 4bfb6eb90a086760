"""Skip-gram with negative sampling, for nodes in walks and for node-feature pairs, compiled and single-threaded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numba import njit

from netatlas.embeddings._random import advance, below, bits, check_seed, stream_state
from netatlas.embeddings.walks import alias_table

# The logistic function is read from a table on [-8, 8]; beyond it, it differs from 0 or 1 by less than 4e-4.
_BOUND = 8.0
_CELLS = 4096
# Rows are padded with zeros to whole vector registers, so that no loop has a scalar remainder.
_LANES = 16


class Embedding(NamedTuple):
    """What the learner returns: ``input`` rows are the node embeddings, ``output`` rows the context vectors.

    Attributes:
        input: ``float32 [nodes, dimension]``.
        output: ``float32 [contexts, dimension]``.
        pairs: number of positive pairs that were trained on.
    """

    input: np.ndarray
    output: np.ndarray
    pairs: int


def _sigmoid_table() -> np.ndarray:
    centres = (np.arange(_CELLS) + 0.5) / _CELLS * (2 * _BOUND) - _BOUND
    return (1 / (1 + np.exp(-centres))).astype(np.float32)


def _noise_table(counts: np.ndarray, exponent: float) -> np.ndarray:
    """Alias table in fixed point, threshold and alias of a cell beside each other: one cache line a draw."""
    threshold, alias = alias_table(np.power(counts.astype(np.float64), exponent) * (counts > 0))
    table = np.empty((len(counts), 2), np.uint32)
    table[:, 0] = np.minimum(np.round(threshold * 2.0**32), 2.0**32 - 1).astype(np.uint32)
    # A full cell must keep its index even for the one draw in 2^32 that meets the largest threshold.
    table[:, 1] = np.where(threshold >= 1.0, np.arange(len(counts)), alias).astype(np.uint32)
    return table


@njit(inline="always")
def _negative(table, state):
    cell = below(state, table.shape[0])
    if np.uint32(bits(state) & np.uint64(0xFFFFFFFF)) >= table[cell, 0]:
        cell = np.int64(table[cell, 1])
    return cell


@njit(inline="always")
def _update(source, target, v, c, negatives, table, sigmoid, rate, targets, slope, frozen, state):
    """One positive pair and its negatives. All scores are computed before the first row changes."""
    width = source.shape[1]
    targets[0] = c
    count = 1
    for _ in range(negatives):
        state = advance(state)
        u = _negative(table, state)
        if u != c:
            targets[count] = u
            count += 1
    x = source[v]
    scale = np.float32(_CELLS / (2 * _BOUND))
    for i in range(count):
        y = target[targets[i]]
        score = np.float32(0.0)
        for k in range(width):
            score += x[k] * y[k]
        cell = np.int64((min(max(score, np.float32(-_BOUND)), np.float32(_BOUND - 1e-3)) + np.float32(_BOUND)) * scale)
        label = np.float32(1.0) if i == 0 else np.float32(0.0)
        slope[i] = (label - sigmoid[cell]) * rate
    return state, count


@njit(inline="always")
def _apply(source, target, v, targets, slope, count, grad, frozen):
    width = source.shape[1]
    x = source[v]
    for k in range(width):
        grad[k] = np.float32(0.0)
    for i in range(count):
        y = target[targets[i]]
        g = slope[i]
        if frozen:
            for k in range(width):
                grad[k] += g * y[k]
        else:
            for k in range(width):
                old = y[k]
                y[k] = old + g * x[k]
                grad[k] += g * old
    for k in range(width):
        x[k] += grad[k]


@njit(cache=True, fastmath=True, nogil=True)
def _train_walks(
    walks, source, target, table, sigmoid, window, dynamic, negatives, first_rate, last_rate, epochs, seed
):
    count, length = walks.shape
    targets = np.empty(negatives + 1, np.int64)
    slope = np.empty(negatives + 1, np.float32)
    grad = np.empty(source.shape[1], np.float32)
    pairs = 0
    state = stream_state(seed, 0)
    for epoch in range(epochs):
        for w in range(count):
            done = (epoch * count + w) / (epochs * count)
            rate = np.float32(max(last_rate, first_rate - (first_rate - last_rate) * done))
            for i in range(length):
                v = walks[w, i]
                if v < 0:
                    break
                reach = window
                if dynamic:
                    state = advance(state)
                    reach = 1 + below(state, window)
                for j in range(max(0, i - reach), min(length, i + reach + 1)):
                    if j == i:
                        continue
                    c = walks[w, j]
                    if c < 0:
                        break
                    state, found = _update(
                        source, target, v, c, negatives, table, sigmoid, rate, targets, slope, False, state
                    )
                    _apply(source, target, v, targets, slope, found, grad, False)
                    pairs += 1
    return pairs


@njit(cache=True, fastmath=True, nogil=True)
def _train_features(
    walks, indptr, features, scales, source, target, table, sigmoid, negatives, first_rate, last_rate, epochs, frozen,
    seed,
):  # fmt: skip
    count, length = walks.shape
    targets = np.empty(negatives + 1, np.int64)
    slope = np.empty(negatives + 1, np.float32)
    grad = np.empty(source.shape[1], np.float32)
    pairs = 0
    state = stream_state(seed, 0)
    for epoch in range(epochs):
        for w in range(count):
            done = (epoch * count + w) / (epochs * count)
            rate = np.float32(max(last_rate, first_rate - (first_rate - last_rate) * done))
            for i in range(length):
                if walks[w, i] < 0:
                    break
                for r in scales:
                    if i + r >= length or walks[w, i + r] < 0:
                        continue
                    for turn in range(1 if r == 0 else 2):
                        v = walks[w, i] if turn == 0 else walks[w, i + r]
                        u = walks[w, i + r] if turn == 0 else walks[w, i]
                        for e in range(indptr[u], indptr[u + 1]):
                            c = np.int64(features[e])
                            state, found = _update(
                                source, target, v, c, negatives, table, sigmoid, rate, targets, slope, frozen, state
                            )
                            _apply(source, target, v, targets, slope, found, grad, frozen)
                            pairs += 1
    return pairs


def _initial(rows: int, dimension: int, rng: np.random.Generator) -> np.ndarray:
    padded = -(-dimension // _LANES) * _LANES
    out = np.zeros((rows, padded), np.float32)
    out[:, :dimension] = (rng.random((rows, dimension), dtype=np.float32) - 0.5) / dimension
    return out


def _check(walks, num_nodes, dimension, negatives, epochs, learning_rate, min_learning_rate, ns_exponent):
    walks = np.asarray(walks)
    if walks.ndim != 2 or walks.size == 0 or not np.issubdtype(walks.dtype, np.integer):
        raise ValueError(f"walks must be an integer array [walks, length], got {walks.dtype} {walks.shape}")
    if walks.min() < -1 or walks.max() >= num_nodes:
        raise ValueError(f"walks must hold nodes 0..{num_nodes - 1} (or -1), got {walks.min()}..{walks.max()}")
    for name, value in (("dimension", dimension), ("negatives", negatives), ("epochs", epochs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not (np.isfinite(learning_rate) and learning_rate > 0 and 0 <= min_learning_rate <= learning_rate):
        raise ValueError(
            f"learning rates must satisfy 0 <= min <= first and first > 0, got {min_learning_rate}, {learning_rate}"
        )
    if not np.isfinite(ns_exponent):
        raise ValueError(f"ns_exponent must be finite, got {ns_exponent}")
    return np.ascontiguousarray(walks, dtype=np.int32)


def skip_gram(
    walks: Int[np.ndarray, "w length"],
    num_nodes: int,
    *,
    dimension: int = 128,
    window: int = 10,
    negatives: int = 5,
    epochs: int = 1,
    learning_rate: float = 0.025,
    min_learning_rate: float = 1e-4,
    ns_exponent: float = 0.75,
    dynamic_window: bool = True,
    seed: int = 0,
) -> Embedding:
    r"""Node vectors that predict the nodes around them on a walk.

    Stochastic gradient ascent, pair by pair, on

    .. math::
        \log \sigma(u_c^\top v_w) + \sum_{k=1}^{K} \log \sigma(-u_{n_k}^\top v_w), \qquad
        n_k \sim \text{count}^{\,\eta},

    over all pairs (centre w, context c) at most a window apart, the rate falling linearly from its first to its last
    value. With enough dimensions the optimum is :math:`u_c^\top v_w = \mathrm{PMI}(w, c) - \log K` at :math:`\eta = 1`.

    Args:
        walks: node indices ``[walks, length]``; a negative entry ends its walk.
        num_nodes: number of nodes n.
        dimension: embedding dimension d.
        window: largest distance k between centre and context, in steps.
        negatives: negative samples K for every pair. One that equals the context is skipped.
        epochs: passes over the walks.
        learning_rate, min_learning_rate: first and last step size.
        ns_exponent: :math:`\eta`, the power of the node counts in the noise distribution.
        dynamic_window: draw the window uniformly from 1..k for every centre, as word2vec does, so that a context at
            distance o is used with probability :math:`(k - o + 1)/k`.
        seed: the result is a function of the seed alone.

    Returns:
        :class:`Embedding` with ``input`` and ``output`` of shape ``[n, d]``.

    Raises:
        ValueError: for walks that are not a two-dimensional integer array over 0..n-1, or parameters out of range.

    Source: ``grover2016node2vec``, the objective; the learner is word2vec's.
    """
    seed = check_seed(seed)
    walks = _check(
        walks, num_nodes, dimension, negatives, epochs, learning_rate, min_learning_rate, ns_exponent
    )  # fmt: skip
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    counts = np.bincount(walks[walks >= 0], minlength=num_nodes)
    source = _initial(num_nodes, dimension, np.random.default_rng(seed))
    target = np.zeros_like(source)
    pairs = _train_walks(
        walks, source, target, _noise_table(counts, ns_exponent), _sigmoid_table(), window, dynamic_window, negatives,
        learning_rate, min_learning_rate, epochs, seed,
    )  # fmt: skip
    return Embedding(source[:, :dimension].copy(), target[:, :dimension].copy(), int(pairs))


def skip_gram_features(
    walks: Int[np.ndarray, "w length"],
    features: sp.csr_array | Float[np.ndarray, "n f"],
    *,
    scales: tuple[int, ...],
    dimension: int = 32,
    negatives: int = 5,
    epochs: int = 1,
    learning_rate: float = 0.05,
    min_learning_rate: float = 0.025,
    ns_exponent: float = 0.75,
    seed: int = 0,
    fixed_features: Float[np.ndarray, "f d"] | None = None,
) -> Embedding:
    r"""Node and feature vectors from (node, feature) pairs at given distances along the walks.

    The corpus :math:`D_r` of distance r holds, for every pair of walk positions i and i + r, each feature of the
    later node with the earlier node as source and each feature of the earlier node with the later one as source; r =
    0 pairs a node with its own features. The learner is that of :func:`skip_gram`, noise drawn from the features'
    frequencies in the walks.

    Args:
        walks: node indices ``[walks, length]``; a negative entry ends its walk.
        features: binary features of the nodes ``[n, f]``; any non-zero entry counts as present.
        scales: the distances r whose corpora are pooled.
        dimension, negatives, epochs, learning_rate, min_learning_rate, ns_exponent, seed: as in :func:`skip_gram`.
        fixed_features: feature vectors to keep as they are, so that only node vectors are fitted (transfer to a graph
            with the same vocabulary).

    Returns:
        :class:`Embedding`: ``input`` is ``[n, d]`` for nodes, ``output`` ``[f, d]`` for features.

    Raises:
        ValueError: as :func:`skip_gram`; if no scale is given or one is negative; if no node has a feature; if
            ``fixed_features`` is not ``[f, d]`` or not finite.

    Source: ``rozemberczki2019musae``, the node-feature corpus.
    """
    seed = check_seed(seed)
    matrix = sp.csr_array(features)
    if not np.isfinite(matrix.data).all():
        raise ValueError("features must be finite")
    matrix = sp.csr_array(matrix != 0)
    matrix.sort_indices()
    nodes, vocabulary = matrix.shape
    if matrix.nnz == 0:
        raise ValueError("features must have at least one non-zero entry")
    walks = _check(walks, nodes, dimension, negatives, epochs, learning_rate, min_learning_rate, ns_exponent)
    if not scales or min(scales) < 0:
        raise ValueError(f"scales must be one or more distances >= 0, got {scales}")
    visits = np.bincount(walks[walks >= 0], minlength=nodes).astype(np.float64)
    counts = visits @ matrix.astype(np.float64)
    if counts.sum() == 0:
        raise ValueError("no node on the walks has a feature")
    source = _initial(nodes, dimension, np.random.default_rng(seed))
    target = np.zeros((vocabulary, source.shape[1]), np.float32)
    if fixed_features is not None:
        fixed = np.asarray(fixed_features)
        if fixed.shape != (vocabulary, dimension) or not np.isfinite(fixed).all():
            raise ValueError(f"fixed_features must be finite, shape {(vocabulary, dimension)}, got {fixed.shape}")
        target[:, :dimension] = fixed
    pairs = _train_features(
        walks, matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), np.array(scales, np.int64), source,
        target, _noise_table(counts, ns_exponent), _sigmoid_table(), negatives, learning_rate, min_learning_rate,
        epochs, fixed_features is not None, seed,
    )  # fmt: skip
    return Embedding(source[:, :dimension].copy(), target[:, :dimension].copy(), int(pairs))
