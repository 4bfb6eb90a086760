import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.embeddings.anonymous_walks import (
    anonymous_patterns,
    anonymous_walk_histogram,
    anonymous_walk_ids,
    anonymous_walk_law,
    degree_buckets,
    gaussian_projection,
    walk_degree_histogram,
    walk_visit_counts,
)
from netatlas.embeddings.walks import uniform_walks

GRAPH = nx.barbell_graph(5, 2)
N = GRAPH.number_of_nodes()
WALKS = uniform_walks(GRAPH, walks_per_node=30, length=5, seed=1)


def test_bell_numbers():
    assert [len(anonymous_patterns(k)) for k in range(1, 8)] == [1, 2, 5, 15, 52, 203, 877]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_ids_are_blind_to_names_and_invert_patterns(steps, seed):
    patterns = anonymous_patterns(steps)
    assert np.array_equal(anonymous_walk_ids(patterns), np.arange(len(patterns)))
    names = np.random.default_rng(seed).permutation(50)
    assert np.array_equal(anonymous_walk_ids(names[patterns]), np.arange(len(patterns)))


@pytest.mark.parametrize("steps, nodes", [(3, 4), (4, 3), (6, 7)])
def test_law_by_enumeration(steps, nodes):
    walks = np.array(list(np.ndindex(*(nodes,) * steps))) if nodes**steps < 5000 else None
    law = anonymous_walk_law(steps, nodes)
    assert law.sum() == pytest.approx(1.0)
    if walks is not None:
        walks = np.concatenate([np.zeros((len(walks), 1), int), walks], axis=1)
        walks = walks[(walks[:, 1:] != walks[:, :-1]).all(1)]
        counts = np.bincount(anonymous_walk_ids(walks), minlength=len(law))
        assert np.allclose(counts / len(walks), law)


def test_histograms_against_a_loop():
    s = anonymous_walk_histogram(WALKS, N)
    r = walk_visit_counts(WALKS, N)
    buckets = degree_buckets(GRAPH, 3)
    delta = walk_degree_histogram(GRAPH, WALKS, buckets).reshape(N, 5, 3)
    degree = np.array([d for _, d in GRAPH.degree()])
    for v in range(N):
        own = WALKS[WALKS[:, 0] == v]
        assert np.allclose(r[v], [(own == u).mean() for u in range(N)])
        assert np.allclose(s[v], np.bincount(anonymous_walk_ids(own), minlength=15) / len(own))
        for i in range(5):
            wanted = np.bincount(np.searchsorted(buckets, degree[own[:, i]]), minlength=3) / len(own)
            assert np.allclose(delta[v, i], wanted)


def test_a_walk_that_ended_has_no_pattern():
    assert anonymous_walk_ids(np.array([[0, 1, 0], [0, 1, -1]])).tolist() == [0, -1]


def test_projection_keeps_lengths_on_average():
    theta = gaussian_projection(40, 4000, seed=3)
    assert np.allclose(theta @ theta.T, np.eye(40), atol=0.12)


def test_refusals():
    for steps in (0, 10):
        with pytest.raises(ValueError, match="steps"):
            anonymous_patterns(steps)
    with pytest.raises(ValueError, match="stay"):
        anonymous_walk_ids(np.array([[0, 0, 1]]))
    with pytest.raises(ValueError, match="integer"):
        anonymous_walk_ids(np.ones((2, 3)))
    with pytest.raises(ValueError, match="below"):
        walk_visit_counts(WALKS, N - 1)
    with pytest.raises(ValueError, match="increasing"):
        walk_degree_histogram(GRAPH, WALKS, np.array([2.0, 1.0]))
    with pytest.raises(ValueError, match="edge"):
        degree_buckets(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="two nodes"):
        anonymous_walk_law(3, 1)
    with pytest.raises(ValueError, match="sizes"):
        gaussian_projection(0, 3)
