"""Skip-gram against the optimum that theory names."""

import numpy as np
import pytest
import scipy.sparse as sp

from netatlas.embeddings import (
    cooccurrence,
    empirical_pmi,
    node_feature_counts,
    skip_gram,
    skip_gram_features,
    uniform_walks,
)


@pytest.fixture(scope="module")
def two_blocks():
    rng = np.random.default_rng(0)
    block = np.repeat([0, 1], 15)
    upper = np.triu(rng.random((30, 30)) < np.where(block[:, None] == block, 0.5, 0.1), 1)
    return (upper + upper.T + np.eye(30, k=1) + np.eye(30, k=-1) > 0).astype(float)


@pytest.fixture(scope="module")
def walks(two_blocks):
    return uniform_walks(two_blocks, walks_per_node=60, length=30, seed=0)


@pytest.mark.parametrize("negatives", [1, 5])
def test_optimum_is_shifted_pmi(walks, negatives):
    fit = skip_gram(
        walks, 30, dimension=32, window=2, negatives=negatives, epochs=40, learning_rate=0.1, ns_exponent=1.0, seed=0
    )
    joint = cooccurrence(walks, 30, 2).toarray()
    frequent = joint > 300
    joint /= joint.sum()
    noise = np.bincount(walks.ravel(), minlength=30) / walks.size
    # A negative that equals the context is skipped, so word w meets noise c in its other pairs only.
    with np.errstate(divide="ignore"):
        optimum = np.log(joint / (negatives * (joint.sum(axis=1, keepdims=True) - joint) * noise))
    product = fit.input.astype(float) @ fit.output.astype(float).T
    assert frequent.sum() > 100
    assert np.corrcoef(product[frequent], optimum[frequent])[0, 1] > 0.95
    assert abs((product - optimum)[frequent].mean()) < 0.02


def test_bipartite_optimum_is_shifted_node_feature_pmi(walks):
    features = np.zeros((30, 6))
    features[np.arange(30), np.arange(30) // 5] = 1
    fit = skip_gram_features(
        walks, features, scales=(2,), dimension=16, negatives=1, epochs=10, learning_rate=0.1,
        min_learning_rate=1e-3, ns_exponent=1.0,
    )  # fmt: skip
    counts = node_feature_counts(walks, features, 2)
    assert fit.pairs == 10 * counts.sum()
    pmi, frequent = empirical_pmi(counts), counts > 100
    product = fit.input.astype(float) @ fit.output.astype(float).T
    assert np.corrcoef(product[frequent], pmi[frequent])[0, 1] > 0.95


def test_number_of_pairs(walks):
    fixed = skip_gram(walks, 30, dimension=4, window=3, dynamic_window=False)
    length = walks.shape[1]
    assert fixed.pairs == len(walks) * 2 * sum(length - o for o in (1, 2, 3))
    dynamic = skip_gram(walks, 30, dimension=4, window=3, epochs=2)
    expected = 2 * len(walks) * 2 * sum((length - o) * (4 - o) / 3 for o in (1, 2, 3))
    assert abs(dynamic.pairs / expected - 1) < 0.01


def test_padding_ends_a_walk():
    cut = np.array([[0, 1, -1, 2]])
    assert skip_gram(cut, 3, dimension=2, window=3, dynamic_window=False).pairs == 2
    assert skip_gram_features(cut, np.eye(3), scales=(1,), dimension=2).pairs == 2


def test_result_is_a_function_of_the_seed(walks):
    one, two = (skip_gram(walks, 30, dimension=8, window=2, seed=s) for s in (1, 1))
    assert (one.input == two.input).all() and (one.output == two.output).all()
    assert (one.input != skip_gram(walks, 30, dimension=8, window=2, seed=2).input).any()


def test_only_node_vectors_move_with_fixed_features(walks):
    features = sp.csr_array(np.eye(30))
    fixed = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    fit = skip_gram_features(walks, features, scales=(1,), dimension=8, fixed_features=fixed)
    assert (fit.output == fixed).all() and np.abs(fit.input).max() > 0.1


def test_blocks_separate(walks):
    product = skip_gram(walks, 30, dimension=16, window=2, epochs=3, seed=0).input
    unit = product / np.linalg.norm(product, axis=1, keepdims=True)
    similarity = unit @ unit.T
    assert similarity[:15, :15].mean() > similarity[:15, 15:].mean() + 0.2


@pytest.mark.parametrize(
    "change",
    [
        {"walks": np.zeros((2, 2))},
        {"walks": np.zeros(3, int)},
        {"walks": np.full((2, 2), 30)},
        {"walks": np.full((2, 2), -2)},
        {"dimension": 0},
        {"window": 0},
        {"negatives": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"min_learning_rate": 1.0},
        {"ns_exponent": np.nan},
        {"seed": -1},
    ],
)
def test_skip_gram_refuses(walks, change):
    arguments = {"walks": walks, "num_nodes": 30, "dimension": 4, **change}
    with pytest.raises(ValueError):
        skip_gram(arguments.pop("walks"), arguments.pop("num_nodes"), **arguments)


@pytest.mark.parametrize(
    "features, change",
    [
        (np.zeros((30, 2)), {}),
        (np.full((30, 2), np.nan), {}),
        (np.ones((20, 2)), {}),
        (np.ones((30, 2)), {"scales": ()}),
        (np.ones((30, 2)), {"scales": (-1,)}),
        (np.ones((30, 2)), {"fixed_features": np.ones((2, 3))}),
    ],
)
def test_skip_gram_features_refuses(walks, features, change):
    with pytest.raises(ValueError):
        skip_gram_features(walks, features, **{"scales": (1,), "dimension": 4, **change})
