"""Co-occurrence counts by brute force, PPMI and NetMF by their formulas."""

import sys

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.embeddings import cooccurrence, netmf, ppmi, truncated_svd_embedding, uniform_walks


def brute_force(walks, n, window, weights):
    out = np.zeros((n, n))
    for walk in walks:
        walk = walk[: (np.append(walk, -1) < 0).argmax()]
        for i, u in enumerate(walk):
            for j, v in enumerate(walk):
                if 0 < abs(i - j) <= window:
                    out[u, v] += weights[abs(i - j) - 1]
    return out


@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from(["linear", "flat"]))
@settings(deadline=None, max_examples=25)
def test_counts_against_brute_force(seed, window, weighting):
    walks = np.random.default_rng(seed).integers(-1, 5, size=(4, 7))
    weights = (window - np.arange(window)) / window if weighting == "linear" else np.ones(window)
    expected = brute_force(walks, 5, window, weights)
    np.testing.assert_allclose(cooccurrence(walks, 5, window, weighting=weighting).toarray(), expected, atol=1e-12)


def test_sparse_and_dense_counting_agree(monkeypatch):
    walks = np.random.default_rng(0).integers(0, 9, size=(20, 11))
    dense = cooccurrence(walks, 9, 4).toarray()
    # The package exports the function under its module's name.
    monkeypatch.setattr(sys.modules["netatlas.embeddings.cooccurrence"], "_DENSE_CELLS", 1)
    np.testing.assert_allclose(cooccurrence(walks, 9, 4).toarray(), dense)


def test_ppmi_of_independent_counts_is_zero_and_of_a_diagonal_is_log_n():
    assert ppmi(np.outer([1, 2, 3], [4, 5])).toarray() == pytest.approx(np.zeros((3, 2)), abs=1e-12)
    np.testing.assert_allclose(ppmi(np.eye(4)).toarray(), np.log(4) * np.eye(4))
    np.testing.assert_allclose(ppmi(np.eye(4), shift=2).toarray(), np.log(2) * np.eye(4))


def test_netmf_is_the_limit_of_walk_ppmi():
    graph = nx.to_scipy_sparse_array(nx.karate_club_graph(), weight=None, dtype=float)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    starts = np.random.default_rng(0).choice(34, 40000, p=degree / degree.sum())
    counts = cooccurrence(uniform_walks(graph, starts=starts, length=20), 34, 3, weighting="flat")
    frequent = counts.toarray() > 500
    np.testing.assert_allclose(ppmi(counts).toarray()[frequent], netmf(graph, window=3)[frequent], atol=0.1)


def test_svd_embedding_reproduces_a_symmetric_positive_matrix():
    factor = np.random.default_rng(0).normal(size=(20, 3))
    embedding = truncated_svd_embedding(factor @ factor.T, 3)
    np.testing.assert_allclose(embedding @ embedding.T, factor @ factor.T, atol=1e-8)


def test_refusals():
    walks = np.zeros((1, 3), int)
    for bad in (
        lambda: cooccurrence(np.zeros(3, int), 2, 1),
        lambda: cooccurrence(walks + 5, 2, 1),
        lambda: cooccurrence(walks, 2, 0),
        lambda: cooccurrence(walks, 2, 1, weighting="cubic"),
        lambda: ppmi(np.zeros((2, 2))),
        lambda: ppmi(-np.ones((2, 2))),
        lambda: ppmi(np.ones((2, 2)), shift=0),
        lambda: netmf(np.ones((2, 2)), window=0),
        lambda: netmf(np.ones((2, 2)), negatives=0),
        lambda: truncated_svd_embedding(np.ones((2, 2)), 3),
    ):
        with pytest.raises(ValueError):
            bad()
