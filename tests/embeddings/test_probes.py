"""The probe against scikit-learn, the scores against scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from netatlas.embeddings import LogisticProbe, kmeans_nmi, macro_f1, node_probe


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 40)
    return rng.normal(size=(4, 6))[y] * 1.5 + rng.normal(size=(160, 6)), y


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
def test_probe_is_one_vs_rest_logistic_regression(blobs, C):
    x, y = blobs
    reference = OneVsRestClassifier(LogisticRegression(C=C, tol=1e-10, max_iter=5000))
    scaled = StandardScaler().fit_transform(x)
    reference.fit(scaled, y)
    probe = LogisticProbe(C=C).fit(x, y)
    weights = np.concatenate([e.coef_ for e in reference.estimators_])
    np.testing.assert_allclose(probe.coef_, weights, atol=2e-3)
    np.testing.assert_allclose(probe.decision_function(x), reference.decision_function(scaled), atol=1e-2)
    assert (probe.predict(x) == reference.predict(scaled)).mean() > 0.99


def test_probe_survives_separable_data_and_constant_columns():
    x = np.concatenate([np.linspace(-1, 1, 20)[:, None] * 1e4, np.ones((20, 1))], axis=1)
    probe = LogisticProbe(C=1e6).fit(x, (x[:, 0] > 0).astype(int))
    assert (probe.predict(x) == (x[:, 0] > 0)).all() and np.isfinite(probe.coef_).all()


def test_macro_f1_is_scikit_learns(blobs):
    rng = np.random.default_rng(1)
    truth, predicted = rng.random((2, 50, 5)) < 0.4
    assert macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro"))
    y, z = rng.integers(0, 3, size=(2, 60))
    assert macro_f1(np.eye(3)[y], np.eye(3)[z]) == pytest.approx(f1_score(y, z, average="macro"))


def test_informative_features_beat_shuffled_labels(blobs):
    x, y = blobs
    for probe in (None, RidgeClassifier()):
        score = node_probe(x, y, train_fraction=0.3, splits=4, probe=probe)
        null = node_probe(x, np.random.default_rng(0).permutation(y), train_fraction=0.3, splits=4, probe=probe)
        assert score.shape == (4,) and score.mean() > 0.6 > 0.45 > null.mean()
    assert node_probe(x, y, splits=2, metric="accuracy").mean() > 0.6


def test_few_labels_still_show_every_class(blobs):
    x, y = blobs
    assert np.isfinite(node_probe(x, y, train_fraction=0.001, splits=3)).all()


def test_multilabel_predicts_the_given_number_of_labels():
    rng = np.random.default_rng(0)
    labels = rng.random((200, 5)) < 0.3
    x = labels @ rng.normal(size=(5, 8)) + 0.1 * rng.normal(size=(200, 8))
    assert node_probe(x, labels.astype(int), splits=3).mean() > 0.95
    assert node_probe(rng.permutation(x), labels.astype(int), splits=3).mean() < 0.6


def test_clustering(blobs):
    y = blobs[1]
    assert kmeans_nmi(np.eye(4)[y], y, restarts=2) == pytest.approx(1)
    assert kmeans_nmi(np.random.default_rng(0).normal(size=(160, 3)), y, restarts=2) < 0.15


def test_refusals(blobs):
    x, y = blobs
    for bad in (
        lambda: LogisticProbe(C=0).fit(x, y),
        lambda: LogisticProbe().fit(x[:5], y),
        lambda: LogisticProbe().fit(x * np.nan, y),
        lambda: LogisticProbe().fit(x, 0 * y),
        lambda: node_probe(x[:5], y),
        lambda: node_probe(x, y, train_fraction=1),
        lambda: node_probe(x, y, metric="auc"),
        lambda: node_probe(x, np.eye(4)[y], metric="accuracy"),
        lambda: macro_f1(np.ones((2, 2)), np.ones((3, 2))),
        lambda: kmeans_nmi(x, y[:3]),
    ):
        with pytest.raises(ValueError):
            bad()
