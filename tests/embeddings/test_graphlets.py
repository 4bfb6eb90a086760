import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.embeddings.graphlets import (
    PARTNERS,
    UNORDERED,
    Orbits,
    graphlet_degree_vectors,
    orbit_adjacency,
    orbit_adjacency_bruteforce,
    orbit_pmi_embedding,
    simple_path3_counts,
    symmetrised,
    walk_identities,
)


def test_there_are_28_and_20():
    assert len(PARTNERS) == 28 and len(UNORDERED) == 20
    assert all(key.transposed in PARTNERS for key in PARTNERS)


@settings(deadline=None, max_examples=12)
@given(st.integers(5, 11), st.floats(0.1, 0.9), st.integers(0, 10**6))
def test_fast_against_brute_force(n, p, seed):
    graph = nx.gnp_random_graph(n, p, seed=seed)
    slow, counts = orbit_adjacency_bruteforce(graph)
    fast = orbit_adjacency(graph)
    for key, partners in PARTNERS.items():
        assert np.array_equal(fast[key].toarray(), slow[key]), key
        assert np.array_equal(slow[key].sum(1), partners * counts[:, key.first]), key
    assert np.array_equal(graphlet_degree_vectors(fast), counts)
    assert set(walk_identities(graph, fast).values()) == {0}


def test_closed_forms():
    complete = orbit_adjacency(nx.complete_graph(7))
    assert set(complete[Orbits(14, 14, 1)].data) == {10}
    assert complete[Orbits(13, 13, 1)].nnz == 0
    star = orbit_adjacency(nx.star_graph(6))
    assert set(star[Orbits(6, 6, 2)].data) == {4} and set(star[Orbits(7, 6, 1)].data) == {10}
    cycle = orbit_adjacency(nx.cycle_graph(4))
    assert set(cycle[Orbits(8, 8, 1)].data) == {1} and set(cycle[Orbits(8, 8, 2)].data) == {1}


def test_large_sparse_and_dense_rows_agree_on_symmetry_and_identities():
    graph = nx.barabasi_albert_graph(300, 6, seed=0)
    fast = orbit_adjacency(graph)
    for key in PARTNERS:
        assert (fast[key] != fast[key.transposed].T).nnz == 0
        assert fast[key].has_sorted_indices and fast[key].data.min(initial=1) > 0
    assert set(walk_identities(graph, fast).values()) == {0}
    triangles = np.array(list(nx.triangles(graph).values()))
    assert np.array_equal(graphlet_degree_vectors(fast)[:, 3], triangles)


def test_simple_paths_by_enumeration():
    graph = nx.gnp_random_graph(9, 0.4, seed=2)
    counts = simple_path3_counts(graph).toarray()
    for u in graph:
        for v in graph:
            if u != v:
                assert counts[u, v] == sum(len(p) == 4 for p in nx.all_simple_paths(graph, u, v, cutoff=3))


def test_pmi_embedding_finds_blocks_and_takes_emptiness():
    graph = nx.disjoint_union(nx.complete_graph(6), nx.complete_graph(6))
    matrices = symmetrised(orbit_adjacency(graph))
    found = orbit_pmi_embedding(matrices[Orbits(14, 14, 1)], 2)
    assert np.abs(found[:6] @ found[6:].T).max() < 1e-9 and np.linalg.norm(found[:6], axis=1).min() > 0
    assert not orbit_pmi_embedding(matrices[Orbits(6, 6, 2)], 2).any()


def test_refusals():
    for bad, words in (
        (np.array([[0, 2], [2, 0]]), "unweighted"),
        (np.array([[1, 1], [1, 0]]), "loops"),
        (np.array([[0, 1], [0, 0]]), "undirected"),
        (np.zeros((0, 0)), "at least one node"),
    ):
        with pytest.raises(ValueError, match=words):
            orbit_adjacency(bad)
    with pytest.raises(ValueError, match="dimension"):
        orbit_pmi_embedding(orbit_adjacency(nx.path_graph(3))[Orbits(0, 0, 1)], 4)
    with pytest.raises(ValueError, match="orbit 0"):
        graphlet_degree_vectors({})
