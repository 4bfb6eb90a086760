"""Homophily measures against loops over pairs, errors against simulation and arbitrary precision."""

import mpmath
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import homophily

from netatlas.core.graph import as_csr
from netatlas.propagation import (
    add_targeted_edges,
    aggregated_error,
    critical_degree,
    cross_class_similarity,
    cyclic_targets,
    edge_homophily,
    feature_error,
    neighbor_label_histograms,
    sample_aggregated_errors,
    similarity_contrast,
)


def labelled(seed, n=25, classes=3):
    graph = nx.gnp_random_graph(n, 0.2, seed=seed)
    return graph, np.random.default_rng(seed).permutation(np.arange(n) % classes)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_measures_by_brute_force(seed):
    graph, y = labelled(seed)
    edges = torch.tensor(list(graph.edges)).T
    assert edge_homophily(graph, y) == pytest.approx(homophily(edges, torch.from_numpy(y), method="edge"))
    d = neighbor_label_histograms(graph, y)
    assert (d.sum(1) == [graph.degree(v) for v in graph]).all()
    found = cross_class_similarity(graph, y)
    for c in range(3):
        for e in range(3):
            pairs = [
                d[i] @ d[j] / np.linalg.norm(d[i]) / np.linalg.norm(d[j])
                for i in np.flatnonzero(y == c)
                for j in np.flatnonzero(y == e)
                if d[i].any() and d[j].any()
            ]
            assert found[c, e] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_limits_of_the_measures():
    empty = as_csr(np.zeros((3, 3)))
    assert np.isnan(edge_homophily(empty, np.array([0, 1, 2])))
    assert np.isnan(cross_class_similarity(empty, np.array([0, 1, 2]))).all()
    bipartite = nx.complete_bipartite_graph(3, 3)
    y = np.array([0, 0, 0, 1, 1, 1])
    assert edge_homophily(bipartite, y) == 0 and similarity_contrast(cross_class_similarity(bipartite, y)) == 1
    assert edge_homophily(torch.tensor([[0, 1, 1], [1, 0, 1]]), np.array([0, 0])) == 1, "self-loops are left out"


def test_measures_refuse():
    graph, y = labelled(0)
    for bad, message in ((y[:3], "labels"), (y - 1, "at least 0"), (y + 0.5, "integer")):
        with pytest.raises(ValueError, match=message):
            edge_homophily(graph, bad)
    with pytest.raises(ValueError, match="labels below"):
        neighbor_label_histograms(graph, y, classes=2)
    with pytest.raises(ValueError, match="two classes"):
        similarity_contrast(np.ones((1, 1)))
    with pytest.raises(ValueError, match="3 classes"):
        cyclic_targets(2)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]))
def test_added_edges_are_new_simple_and_targeted(seed, noise):
    graph, y = labelled(seed, n=60, classes=4)
    targets = cyclic_targets(4)
    edges = add_targeted_edges(graph, y, targets, 100, noise=noise, seed=seed)
    matrix = as_csr(torch.from_numpy(edges), num_nodes=60)
    assert matrix.nnz == 2 * (graph.number_of_edges() + 100) and matrix.data.max() == 1
    assert not matrix.diagonal().any() and (matrix != matrix.T).nnz == 0
    assert (matrix - as_csr(graph)).data.min() >= 0, "old edges stay"
    if noise == 0:
        new = (matrix - as_csr(graph)).tocoo()
        new.eliminate_zeros()
        step = (y[new.row] - y[new.col]) % 4
        assert np.isin(step, (1, 3)).all()
    assert (edges == add_targeted_edges(graph, y, targets, 100, noise=noise, seed=seed)).all()


def test_added_edges_follow_the_distribution():
    y = np.arange(1600) % 4
    targets = np.array([[0, 0.8, 0.2, 0], [0.8, 0, 0, 0.2], [0.2, 0, 0, 0.8], [0, 0.2, 0.8, 0]])
    edges = add_targeted_edges(np.zeros((1600, 1600)), y, targets, 10000, seed=1)
    counts = neighbor_label_histograms(torch.from_numpy(edges), y)
    share = np.stack([counts[y == c].sum(0) for c in range(4)])
    np.testing.assert_allclose(share / share.sum(1, keepdims=True), targets, atol=0.03)


def test_added_edges_refuse():
    graph, y = labelled(0)
    with pytest.raises(ValueError, match="sum to 1"):
        add_targeted_edges(graph, y, np.ones((3, 3)), 5)
    with pytest.raises(ValueError, match="noise"):
        add_targeted_edges(graph, y, cyclic_targets(3), 5, noise=2.0)
    with pytest.raises(ValueError, match="room"):
        add_targeted_edges(graph, y, cyclic_targets(3), 10**6)
    with pytest.raises(ValueError, match="class that is a target"):
        add_targeted_edges(graph, np.zeros(25, int), cyclic_targets(3), 5)
    with pytest.raises(ValueError, match="between the classes"):
        add_targeted_edges(np.zeros((4, 4)), np.array([0, 1, 2, 2]), cyclic_targets(3), 6)


def test_errors_in_arbitrary_precision():
    degree, share, distance = 12, 0.35, 1.5
    with mpmath.workdps(40):
        total = mpmath.mpf(0)
        for k in range(degree + 1):
            weight = mpmath.binomial(degree, k) * mpmath.mpf(share) ** k * (1 - mpmath.mpf(share)) ** (degree - k)
            total += weight * mpmath.ncdf(mpmath.mpf(2 * k - degree) / (2 * degree) * mpmath.sqrt(degree) * distance)
        expected = float(total)
        plain = float(mpmath.ncdf(-mpmath.mpf(distance) / 2))
    assert aggregated_error(degree, share, distance) == pytest.approx(expected, rel=1e-12)
    assert feature_error(distance) == pytest.approx(plain, rel=1e-12)


def test_error_formulas_agree_where_labels_are_not_random():
    for share in (0.0, 1.0):
        values = [aggregated_error(7, share, 1.2, f) for f in ("paper", "variance", "mixture")]
        np.testing.assert_allclose(values, values[0], rtol=1e-12)
        np.testing.assert_allclose([critical_degree(share, 1.2, f) for f in ("paper", "variance")], 1.0)
    for formula in ("paper", "variance", "mixture"):
        assert aggregated_error(5, 0.5, 1.5, formula) == 0.5
        assert aggregated_error(9, 0.3, 1.5, formula) == pytest.approx(aggregated_error(9, 0.7, 1.5, formula))
    assert critical_degree(0.5, 1.0) == np.inf


def test_mixture_matches_simulation():
    for share, degree in ((0.2, 4), (0.35, 13), (0.9, 25)):
        _, found = sample_aggregated_errors(degree, share, 1.5, 200_000, seed=3)
        exact = aggregated_error(degree, share, 1.5)
        assert abs(found - exact) < 4 * (exact * (1 - exact) / 200_000) ** 0.5
    own, found = sample_aggregated_errors(10, 0.3, 1.5, 200_000, fixed_mix=True, seed=4)
    assert abs(found - aggregated_error(10, 0.3, 1.5, "paper")) < 0.004 and abs(own - feature_error(1.5)) < 0.004
    assert [critical_degree(a, 1.5) for a in (0.2, 0.3, 0.35)] == [4, 10, 17]


def test_errors_refuse():
    for call in (
        lambda: aggregated_error(0, 0.3, 1.0),
        lambda: aggregated_error(3, 1.3, 1.0),
        lambda: aggregated_error(3, 0.3, -1.0),
        lambda: aggregated_error(3, 0.3, 1.0, "exact"),
        lambda: critical_degree(0.3, 1.0, "exact"),
        lambda: feature_error(-1.0),
        lambda: sample_aggregated_errors(3, 0.3, 1.0, 0),
        lambda: sample_aggregated_errors(3, 0.35, 1.0, 10, fixed_mix=True),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
