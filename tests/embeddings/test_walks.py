"""Walks against exact transition laws."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.embeddings import (
    PAD,
    alias_table,
    node2vec_walks,
    second_order_counts,
    second_order_law,
    stationary_starts,
    transition_test,
    uniform_walks,
    walk_graph,
)


@pytest.fixture(scope="module")
def karate():
    return sp.csr_array((nx.to_scipy_sparse_array(nx.karate_club_graph(), weight=None) > 0).astype(float))


@pytest.fixture(scope="module")
def weighted_directed():
    rng = np.random.default_rng(3)
    dense = rng.exponential(size=(12, 12)) * (rng.random((12, 12)) < 0.4)
    np.fill_diagonal(dense, 0)
    dense[:, 0] += 0.3
    dense[0, 1] = 0.7
    return sp.csr_array(dense)


def brute_force_law(dense, t, v, p, q):
    bias = np.where(dense[t] > 0, 1.0, 1 / q)
    bias[t] = 1 / p
    mass = bias * dense[v]
    return mass / mass.sum()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40).filter(lambda w: sum(w) > 1e-3))
@settings(deadline=None, max_examples=25)
def test_alias_table_implies_the_weights(weights):
    threshold, alias = alias_table(np.array(weights))
    implied = threshold.copy()
    np.add.at(implied, alias, 1 - threshold)
    np.testing.assert_allclose(implied / len(weights), np.array(weights) / np.sum(weights), atol=1e-12)


@pytest.mark.parametrize("weights", [[], [-1.0, 2.0], [0.0, 0.0], [np.nan], [[1.0]]])
def test_alias_table_refuses(weights):
    with pytest.raises(ValueError, match="weights"):
        alias_table(np.array(weights))


@pytest.mark.parametrize("p, q", [(0.25, 4.0), (4.0, 0.25), (1.0, 0.5), (0.3, 1.0), (2.0, 1.0)])
@pytest.mark.parametrize("kind", ["karate", "weighted_directed"])
def test_second_order_law_is_the_definition(kind, p, q, request):
    graph = request.getfixturevalue(kind)
    dense, law, edge = graph.toarray(), second_order_law(graph, p=p, q=q), 0
    for t in range(len(dense)):
        for v in np.flatnonzero(dense[t]):
            row = law.values[law.offsets[edge] : law.offsets[edge + 1]]
            if len(row):
                np.testing.assert_allclose(row, brute_force_law(dense, t, v, p, q)[dense[v] > 0], atol=1e-14)
            edge += 1


@pytest.mark.parametrize("p, q", [(0.25, 4.0), (4.0, 0.25), (1.0, 0.5), (0.3, 1.0), (0.2, 0.5), (2.0, 1.0)])
@pytest.mark.parametrize("kind", ["karate", "weighted_directed"])
def test_walks_follow_the_second_order_law(kind, p, q, request):
    graph = request.getfixturevalue(kind)
    walks = node2vec_walks(graph, p=p, q=q, walks_per_node=200, length=30, seed=5)
    counts = second_order_counts(graph, walks)
    assert transition_test(counts, second_order_law(graph, p=p, q=q)).p_value > 1e-4
    wrong = second_order_law(graph, p=1 / p, q=q) if p != 1 else second_order_law(graph, p=p, q=1 / q)
    assert transition_test(counts, wrong).p_value < 1e-10


@pytest.mark.parametrize("kind", ["karate", "weighted_directed"])
def test_first_order_walks_follow_the_weights(kind, request):
    graph = request.getfixturevalue(kind)
    counts = second_order_counts(graph, uniform_walks(graph, walks_per_node=200, length=30, seed=1))
    assert transition_test(counts, second_order_law(graph, p=1, q=1)).p_value > 1e-4


def test_first_step_of_a_biased_walk_is_unbiased(weighted_directed):
    walks = node2vec_walks(weighted_directed, p=0.1, q=10, starts=np.zeros(20000, int), length=2, seed=0)
    share = np.bincount(walks[:, 1], minlength=12) / 20000
    row = weighted_directed.toarray()[0]
    np.testing.assert_allclose(share, row / row.sum(), atol=0.015)


@given(st.integers(2, 25), st.floats(0.05, 0.6), st.integers(0, 100), st.sampled_from([(1, 1), (0.2, 3), (5, 0.1)]))
@settings(deadline=None, max_examples=25)
def test_every_step_is_an_edge_and_dead_ends_stay_dead(n, density, seed, parameters):
    dense = (np.random.default_rng(seed).random((n, n)) < density).astype(float)
    walks = node2vec_walks(dense, p=parameters[0], q=parameters[1], walks_per_node=2, length=8, seed=seed)
    assert walks.shape == (2 * n, 8) and sorted(walks[:n, 0]) == list(range(n))
    for walk in walks:
        stop = np.flatnonzero(walk == PAD)
        end = stop[0] if stop.size else len(walk)
        assert (walk[end:] == PAD).all()
        assert (dense[walk[: end - 1], walk[1:end]] > 0).all()
        assert end == len(walk) or dense[walk[end - 1]].sum() == 0


def test_a_walk_depends_on_its_seed_alone(karate):
    first = node2vec_walks(karate, p=2, q=0.5, length=10, seed=4)
    assert (first == node2vec_walks(walk_graph(karate), p=2, q=0.5, length=10, seed=4)).all()
    assert (first != node2vec_walks(karate, p=2, q=0.5, length=10, seed=5)).any()
    roots = first[:, 0]
    assert (node2vec_walks(karate, p=2, q=0.5, length=10, seed=4, starts=roots[:7]) == first[:7]).all()


def test_stationary_starts_are_stationary(karate):
    starts = stationary_starts(karate, 40000, seed=0)
    degree = np.asarray(karate.sum(axis=1)).ravel()
    end = uniform_walks(karate, starts=starts, length=4, seed=1)[:, -1]
    np.testing.assert_allclose(np.bincount(end, minlength=34) / 40000, degree / degree.sum(), atol=0.006)


def test_walks_refuse_bad_input(karate):
    with pytest.raises(ValueError, match="length"):
        uniform_walks(karate, length=0)
    with pytest.raises(ValueError, match="walks_per_node"):
        uniform_walks(karate, walks_per_node=0)
    with pytest.raises(ValueError, match="seed"):
        uniform_walks(karate, seed=-1)
    with pytest.raises(ValueError, match="starts"):
        uniform_walks(karate, starts=np.array([34]))
    with pytest.raises(ValueError, match="starts"):
        uniform_walks(karate, starts=np.array([0.5]))
    with pytest.raises(ValueError, match="p must"):
        node2vec_walks(karate, p=0, q=1)
    with pytest.raises(ValueError, match="q must"):
        node2vec_walks(karate, p=1, q=np.inf)
    with pytest.raises(ValueError):
        walk_graph(np.ones((2, 3)))
    with pytest.raises(ValueError):
        walk_graph(np.array([[0.0, -1.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="no edge"):
        stationary_starts(np.zeros((3, 3)), 2)
    with pytest.raises(ValueError, match="count"):
        stationary_starts(karate, 0)
    with pytest.raises(ValueError, match="positive"):
        second_order_law(karate, p=-1, q=1)
    with pytest.raises(ValueError, match="same graph"):
        transition_test(second_order_law(karate, p=1, q=1), second_order_law(np.ones((3, 3)), p=1, q=1))
