"""Linear probes and clusterings that read labels off an embedding, over many random splits."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from sklearn.model_selection import StratifiedShuffleSplit


def _one_hot(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    classes, index = np.unique(labels, return_inverse=True)
    return np.eye(len(classes))[index], classes


def _newton(features, targets, penalty, tolerance, iterations):
    """All one-vs-rest problems at once: w = argmin sum log(1 + exp(-y (x w + b))) + penalty/2 |w|^2, b free."""
    n, d = features.shape
    x = np.concatenate([features, np.ones((n, 1))], axis=1)
    sign = 2.0 * targets.T - 1.0
    ridge = np.full(d + 1, penalty)
    # A class without a positive example would send its intercept to minus infinity.
    ridge[-1] = 1e-6
    weights = np.zeros((sign.shape[0], d + 1))

    def objective(w):
        return np.logaddexp(0.0, -sign * (w @ x.T)).sum(axis=1) + 0.5 * (w * w * ridge).sum(axis=1)

    value = objective(weights)
    for _ in range(iterations):
        probability = 1.0 / (1.0 + np.exp(-np.clip(weights @ x.T, -500, 500)))
        gradient = (probability - targets.T) @ x + ridge * weights
        if np.abs(gradient).max() < tolerance:
            break
        curvature = probability * (1.0 - probability)
        hessian = (x.T * curvature[:, None, :]) @ x
        hessian[:, np.arange(d + 1), np.arange(d + 1)] += ridge
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        length = np.ones((len(weights), 1))
        for _ in range(30):
            trial = weights - length * step
            reached = objective(trial)
            worse = reached > value + 1e-10
            if not worse.any():
                break
            length[worse] *= 0.5
        weights, value = trial, reached
    return weights[:, :-1], weights[:, -1]


class LogisticProbe(ClassifierMixin, BaseEstimator):
    r"""One-vs-rest logistic regression on standardised features, every class solved together by Newton's method.

    .. math::
        \min_{w_c, b_c} \; \sum_i \log\big(1 + e^{-y_{ic}(w_c^\top z_i + b_c)}\big) + \frac{1}{2C}\lVert w_c \rVert^2,
        \qquad z = \frac{x - \bar x}{\mathrm{std}(x)}

    Mean and standard deviation come from the training rows, so the scale of an embedding does not act as a penalty.

    Args:
        C: inverse strength of the penalty, positive.
        standardize: whether to standardise the columns.
        tolerance: largest entry of the gradient at which the iteration stops.
        iterations: largest number of Newton steps.

    Source: ``grover2016node2vec``, multi-label classification (one-vs-rest logistic regression with an L2 penalty).
    """

    def __init__(self, C: float = 1.0, standardize: bool = True, tolerance: float = 1e-5, iterations: int = 50):
        self.C = C
        self.standardize = standardize
        self.tolerance = tolerance
        self.iterations = iterations

    def fit(self, X: Float[np.ndarray, "n d"], y: Int[np.ndarray, " n"] | Int[np.ndarray, "n c"]) -> LogisticProbe:
        """Fit to class labels ``[n]`` or to a 0/1 matrix ``[n, classes]``.

        Raises:
            ValueError: for features that are not a finite matrix, a different number of labels, or C not positive.
        """
        X = np.asarray(X, dtype=np.float64)
        y = np.asarray(y)
        if X.ndim != 2 or not np.isfinite(X).all():
            raise ValueError(f"features must be a finite matrix [n, d], got shape {X.shape}")
        if len(y) != len(X):
            raise ValueError(f"expected one label a row, got {len(X)} rows and {len(y)} labels")
        if not self.C > 0:
            raise ValueError(f"C must be positive, got {self.C}")
        self.multilabel_ = y.ndim == 2
        targets, self.classes_ = (y.astype(np.float64), np.arange(y.shape[1])) if self.multilabel_ else _one_hot(y)
        if not self.multilabel_ and len(self.classes_) < 2:
            raise ValueError("expected at least two classes")
        self.mean_ = X.mean(axis=0) if self.standardize else np.zeros(X.shape[1])
        spread = X.std(axis=0) if self.standardize else np.ones(X.shape[1])
        self.scale_ = np.where(spread > 1e-12, spread, 1.0)
        self.coef_, self.intercept_ = _newton(
            (X - self.mean_) / self.scale_, targets, 1.0 / self.C, self.tolerance, self.iterations
        )
        return self

    def decision_function(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n c"]:
        """Log-odds of every class, ``[n, classes]``."""
        return ((np.asarray(X, dtype=np.float64) - self.mean_) / self.scale_) @ self.coef_.T + self.intercept_

    def predict(self, X: Float[np.ndarray, "n d"]) -> np.ndarray:
        """The most likely class ``[n]``; for a 0/1 target the classes with positive log-odds ``[n, classes]``."""
        scores = self.decision_function(X)
        return (scores > 0).astype(np.int64) if self.multilabel_ else self.classes_[scores.argmax(axis=1)]


def macro_f1(truth: Int[np.ndarray, "n c"], predicted: Int[np.ndarray, "n c"]) -> float:
    r"""Unweighted mean over classes of :math:`2\,\mathrm{TP} / (2\,\mathrm{TP} + \mathrm{FP} + \mathrm{FN})`.

    Args:
        truth, predicted: 0/1 matrices ``[n, classes]``; classes without any example in either are left out.

    Raises:
        ValueError: for shapes that differ.

    Source: ``grover2016node2vec``, multi-label classification.
    """
    truth, predicted = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise ValueError(f"expected two matrices of one shape, got {truth.shape} and {predicted.shape}")
    hits = (truth & predicted).sum(axis=0)
    size = truth.sum(axis=0) + predicted.sum(axis=0)
    return float((2 * hits[size > 0] / size[size > 0]).mean())


def node_probe(
    embedding: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n c"],
    *,
    train_fraction: float = 0.5,
    splits: int = 10,
    seed: int = 0,
    metric: Literal["macro_f1", "accuracy"] = "macro_f1",
    probe: ClassifierMixin | None = None,
) -> Float[np.ndarray, " splits"]:
    """Test score of a linear probe on an embedding, one score for every random split.

    Single labels are split class by class. With several labels a node, the number of labels of a test node is given and
    its highest-scoring classes are predicted, as in DeepWalk and node2vec.

    Args:
        embedding: ``[n, d]``.
        labels: classes ``[n]`` or a 0/1 matrix ``[n, classes]``.
        train_fraction: share of the nodes whose labels are seen.
        splits: number of random splits.
        seed: equal seeds give equal splits, so that two embeddings can be compared in pairs.
        metric: ``"macro_f1"`` or ``"accuracy"`` (single labels only).
        probe: any scikit-learn classifier; :class:`LogisticProbe` by default.

    Returns:
        Scores ``[splits]``.

    Raises:
        ValueError: for shapes that do not match, a fraction outside (0, 1), an unknown metric.

    Source: ``grover2016node2vec``, multi-label classification.
    """
    embedding, labels = np.asarray(embedding, dtype=np.float64), np.asarray(labels)
    if embedding.ndim != 2 or len(embedding) != len(labels):
        raise ValueError(f"expected one row a label, got shapes {embedding.shape} and {labels.shape}")
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must lie between 0 and 1, got {train_fraction}")
    if metric not in ("macro_f1", "accuracy") or (metric == "accuracy" and labels.ndim == 2):
        raise ValueError(f"metric must be 'macro_f1', or 'accuracy' with single labels, got {metric!r}")
    probe = LogisticProbe() if probe is None else probe
    n = len(labels)
    if labels.ndim == 1:
        hot, classes = _one_hot(labels)
        size = max(round(train_fraction * n), len(classes))
        cuts = StratifiedShuffleSplit(splits, train_size=size, random_state=seed).split(embedding, labels)
    else:
        rng = np.random.default_rng(seed)
        size = round(train_fraction * n)
        cuts = ((order[:size], order[size:]) for order in (rng.permutation(n) for _ in range(splits)))
    scores = []
    for train, test in cuts:
        model = clone(probe).fit(embedding[train], labels[train])
        if labels.ndim == 2:
            ranked = np.argsort(-model.decision_function(embedding[test]), axis=1, kind="stable")
            rank = np.empty_like(ranked)
            np.put_along_axis(rank, ranked, np.arange(labels.shape[1])[None, :].repeat(len(test), 0), axis=1)
            scores.append(macro_f1(labels[test], rank < labels[test].sum(axis=1, keepdims=True)))
            continue
        predicted = model.predict(embedding[test])
        if metric == "accuracy":
            scores.append(float((predicted == labels[test]).mean()))
        else:
            scores.append(macro_f1(hot[test], predicted[:, None] == classes))
    return np.array(scores)


def kmeans_nmi(
    embedding: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], *, restarts: int = 10, seed: int = 0
) -> float:
    r"""Normalised mutual information between k-means clusters and labels, k the number of labels.

    .. math:: \mathrm{NMI}(A, B) = \frac{2\, I(A; B)}{H(A) + H(B)}

    Args:
        embedding: ``[n, d]``.
        labels: classes ``[n]``.
        restarts: k-means starts; the one of least inertia counts.
        seed: random seed.

    Raises:
        ValueError: for a different number of rows and labels.

    Source: ``qin2024irwe`` (position evaluation).
    """
    embedding, labels = np.asarray(embedding), np.asarray(labels)
    if embedding.ndim != 2 or labels.ndim != 1 or len(embedding) != len(labels):
        raise ValueError(f"expected one row a label, got shapes {embedding.shape} and {labels.shape}")
    clusters = KMeans(len(np.unique(labels)), n_init=restarts, random_state=seed).fit_predict(embedding)
    return float(normalized_mutual_info_score(labels, clusters))
