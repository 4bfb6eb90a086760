"""Edge features and the link-prediction split."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from netatlas.embeddings import edge_features, link_split, node2vec


def test_edge_features_are_the_table():
    f = np.array([[1.0, -2.0], [3.0, 4.0]])
    pairs = np.array([[0, 1]])
    expected = {"average": [2, 1], "hadamard": [3, -8], "l1": [2, 6], "l2": [4, 36]}
    for operator, value in expected.items():
        assert edge_features(f, pairs, operator).tolist() == [value]
        assert (edge_features(f, pairs, operator) == edge_features(f, pairs[:, ::-1], operator)).all()


def test_link_split_keeps_components_and_hides_real_edges():
    graph = nx.disjoint_union(nx.karate_club_graph(), nx.cycle_graph(6))
    adjacency = (nx.to_scipy_sparse_array(graph, weight=None) > 0).astype(float)
    split = link_split(adjacency, 0.3, seed=1)
    hidden, absent = split.pairs[split.labels == 1], split.pairs[split.labels == 0]
    assert len(hidden) == len(absent) == round(0.3 * graph.number_of_edges())
    dense = adjacency.toarray()
    assert (dense[hidden[:, 0], hidden[:, 1]] == 1).all() and (dense[absent[:, 0], absent[:, 1]] == 0).all()
    assert (absent[:, 0] < absent[:, 1]).all() and len(np.unique(absent, axis=0)) == len(absent)
    assert sp.csgraph.connected_components(split.train)[0] == 2
    assert split.train.nnz == adjacency.nnz - 2 * len(hidden)


def test_embedding_finds_the_planted_halves():
    adjacency = nx.to_scipy_sparse_array(nx.planted_partition_graph(2, 25, 0.4, 0.03, seed=0), dtype=float)
    found = node2vec(adjacency, p=0.5, q=2, dimension=8, length=20, window=4, epochs=2, seed=0).input
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    similarity = unit @ unit.T
    assert similarity[:25, :25].mean() > similarity[:25, 25:].mean() + 0.2


def test_refusals():
    f = np.ones((3, 2))
    for bad in (
        lambda: edge_features(f, np.array([[0, 1]]), "sum"),
        lambda: edge_features(f, np.array([[0, 3]])),
        lambda: edge_features(f, np.array([0, 1])),
        lambda: link_split(np.array([[0, 1], [0, 0]])),
        lambda: link_split(np.ones((3, 3)) - np.eye(3), 0),
        lambda: link_split(np.array([[0, 1], [1, 0]]), 0.5),
        lambda: link_split(np.ones((9, 9)) - np.eye(9), 0.5),
    ):
        with pytest.raises(ValueError):
            bad()
