"""Operators of graphs against dense formulas, spectra that are known, and limits reached by multiplication."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import (
    directed_adjacency,
    inverse_power,
    laplacian,
    magnetic_laplacian,
    propagation_limit,
    reciprocity,
    require_undirected,
    sheaf,
    sheaf_coboundary,
    sheaf_laplacian,
    symmetrized,
    undirected_edges,
)


def random_graph(seed, n=12, p=0.3, directed=False):
    return nx.gnp_random_graph(n, p, seed=seed, directed=directed)


def random_sheaf(seed, n=9, d=3):
    rng = np.random.default_rng(seed)
    edges = undirected_edges(nx.connected_watts_strogatz_graph(n, 4, 0.3, seed=seed))
    return sheaf(edges, *rng.normal(size=(2, edges.shape[1], d, d)), nodes=n)


def test_inverse_power_keeps_zero():
    np.testing.assert_allclose(inverse_power(np.array([0.0, 4.0]), 0.5), [0, 0.5])
    with pytest.raises(ValueError, match="non-negative"):
        inverse_power(np.array([-1.0]), 0.5)
    with pytest.raises(ValueError, match="positive power"):
        inverse_power(np.array([1.0]), 0.0)
    with pytest.raises(ValueError, match="finite"):
        inverse_power(np.array([np.nan]), 0.5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_laplacians_agree_with_networkx(seed):
    graph = random_graph(seed)
    np.testing.assert_allclose(laplacian(graph).toarray(), nx.laplacian_matrix(graph).toarray(), atol=1e-14)
    np.testing.assert_allclose(
        laplacian(graph, "sym").toarray(), nx.normalized_laplacian_matrix(graph).toarray(), atol=1e-13
    )
    row = laplacian(graph, "row").toarray()
    np.testing.assert_allclose(row.sum(1), 0, atol=1e-13)


def test_laplacian_refuses():
    with pytest.raises(ValueError, match="undirected"):
        laplacian(torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(ValueError, match="kind"):
        laplacian(nx.path_graph(3), "magnetic")
    with pytest.raises(ValueError, match="at least one node"):
        laplacian(nx.Graph())
    with pytest.raises(ValueError, match="non-negative"):
        laplacian(np.array([[0.0, -1.0], [-1.0, 0.0]]))


def test_isolated_nodes_loops_and_parallel_edges():
    graph = Data(edge_index=torch.tensor([[0, 1, 0, 1, 2], [1, 0, 1, 0, 2]]), num_nodes=4)
    plain = laplacian(graph).toarray()
    np.testing.assert_allclose(plain, [[2, -2, 0, 0], [-2, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert np.isfinite(laplacian(graph, "sym").toarray()).all()
    assert undirected_edges(graph).tolist() == [[0], [1]]
    with pytest.raises(ValueError, match="node indices"):
        laplacian(Data(edge_index=torch.tensor([[0], [7]]), num_nodes=3))


def test_direction_statistics():
    one_way = torch.tensor([[0, 1, 2], [1, 2, 0]])
    assert reciprocity(one_way) == 0 and reciprocity(symmetrized(one_way)) == 1
    assert np.isnan(reciprocity(sp.csr_array((3, 3))))
    assert require_undirected(symmetrized(one_way)).sum() == 6
    with pytest.raises(ValueError, match="undirected"):
        require_undirected(as_csr(one_way))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0, 0.25))
def test_magnetic_laplacian_is_hermitian_and_bounded(seed, charge):
    graph = random_graph(seed, directed=True)
    matrix = magnetic_laplacian(graph, charge).toarray()
    np.testing.assert_allclose(matrix, matrix.conj().T, atol=1e-14)
    values = np.linalg.eigvalsh(matrix)
    assert values.min() > -1e-12 and values.max() < 2 + 1e-12


def test_magnetic_laplacian_special_charges():
    graph = random_graph(3, directed=True)
    plain = magnetic_laplacian(graph, 0.0).toarray()
    both = as_csr(graph) + as_csr(graph).T
    np.testing.assert_allclose(plain, laplacian(both, "sym").toarray(), atol=1e-13)
    quarter = magnetic_laplacian(torch.tensor([[0], [1]]), 0.25).toarray()
    np.testing.assert_allclose(quarter, [[1, -1j], [1j, 1]], atol=1e-15)
    # Around a directed cycle of length n the phases add to 2 pi q n: eigenvalues 1 - cos((2 pi k + 2 pi q n) / n).
    n, q = 7, 0.1
    cycle = np.linalg.eigvalsh(magnetic_laplacian(nx.cycle_graph(n, create_using=nx.DiGraph), q).toarray())
    np.testing.assert_allclose(cycle, np.sort(1 - np.cos(2 * np.pi * (np.arange(n) / n + q))), atol=1e-12)
    with pytest.raises(ValueError, match="charge"):
        magnetic_laplacian(graph, 0.3)


def test_directed_adjacency():
    graph = random_graph(1, directed=True)
    a = as_csr(graph).toarray()
    out, into = a.sum(1), a.sum(0)
    expected = np.divide(a, np.sqrt(np.outer(out, into)), out=np.zeros_like(a), where=a > 0)
    np.testing.assert_allclose(directed_adjacency(graph).toarray(), expected, atol=1e-14)
    undirected = symmetrized(graph)
    np.testing.assert_allclose(
        directed_adjacency(undirected).toarray(), normalized_adjacency(undirected, "sym").toarray(), atol=1e-14
    )


@pytest.mark.parametrize("kind", ["sym", "row"])
def test_propagation_limit_is_what_multiplication_reaches(kind):
    graph = nx.disjoint_union(nx.barbell_graph(4, 1), nx.path_graph(3))
    graph.add_node(99)
    x = np.random.default_rng(0).normal(size=(13, 4))
    step = normalized_adjacency(graph, kind, self_loops=True).toarray()
    np.testing.assert_allclose(propagation_limit(graph, x, kind), np.linalg.matrix_power(step, 2**14) @ x, atol=1e-10)


def test_propagation_limit_refuses():
    graph = nx.path_graph(3)
    with pytest.raises(ValueError, match="features"):
        propagation_limit(graph, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="finite"):
        propagation_limit(graph, np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="kind"):
        propagation_limit(graph, np.zeros((3, 2)), "walk")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_sheaf_laplacian_from_its_definition(seed, d):
    found = random_sheaf(seed, d=d)
    n = found.nodes
    plain = np.zeros((n, n, d, d))
    for (u, v), s, t in zip(found.edges.T, found.source, found.target):
        plain[u, u] += s.T @ s
        plain[v, v] += t.T @ t
        plain[u, v] -= s.T @ t
        plain[v, u] -= t.T @ s
    dense = plain.transpose(0, 2, 1, 3).reshape(n * d, n * d)
    np.testing.assert_allclose(sheaf_laplacian(found).toarray(), dense, atol=1e-10)
    block = sheaf_laplacian(found, "block").toarray()
    own = block.reshape(n, d, n, d)[np.arange(n), :, np.arange(n)]
    np.testing.assert_allclose(own, np.broadcast_to(np.eye(d), own.shape), atol=1e-8)
    values = np.linalg.eigvalsh(sheaf_laplacian(found, "augmented").toarray())
    assert values.min() > -1e-9 and values.max() < 2 + 1e-9


def test_trivial_sheaf_is_the_graph():
    graph = nx.karate_club_graph()
    edges = undirected_edges(graph)
    ones = np.ones(edges.shape[1])
    weightless = as_csr(torch.from_numpy(np.concatenate([edges, edges[::-1]], 1)))
    found = sheaf(edges, ones, ones, nodes=34)
    np.testing.assert_allclose(sheaf_laplacian(found).toarray(), laplacian(weightless).toarray(), atol=1e-12)
    np.testing.assert_allclose(
        sheaf_laplacian(found, "block").toarray(), laplacian(weightless, "sym").toarray(), atol=1e-12
    )
    section = np.arange(34.0)
    np.testing.assert_allclose(sheaf_coboundary(found) @ section, section[edges[0]] - section[edges[1]])


def test_singular_blocks_get_the_pseudo_inverse():
    found = sheaf(np.array([[0], [1]]), np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), nodes=3)
    block = sheaf_laplacian(found, "block").toarray()
    np.testing.assert_allclose(block[:4, :4], [[1, 0, -1, 0], [0] * 4, [-1, 0, 1, 0], [0] * 4], atol=1e-12)
    assert not block[4:].any()
    empty = sheaf(np.zeros((2, 0), int), np.zeros((0, 2, 2)), np.zeros((0, 2, 2)), nodes=2)
    assert sheaf_laplacian(empty, "block").nnz == 0


def test_sheaf_refuses():
    maps = np.ones((1, 2, 2))
    for edges, message in (
        (np.array([[0], [5]]), "node indices"),
        (np.array([[1], [1]]), "self-loops"),
        (np.array([[0.0], [1.0]]), "integer"),
        (np.array([0, 1]), "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            sheaf(edges, maps, maps, nodes=3)
    with pytest.raises(ValueError, match="once"):
        sheaf(np.array([[0, 1], [1, 0]]), np.ones(2), np.ones(2), nodes=3)
    with pytest.raises(ValueError, match="one shape"):
        sheaf(np.array([[0], [1]]), maps, np.ones((1, 3, 3)), nodes=3)
    with pytest.raises(ValueError, match="finite"):
        sheaf(np.array([[0], [1]]), maps * np.nan, maps, nodes=3)
    with pytest.raises(ValueError, match="1 maps"):
        sheaf(np.array([[0], [1]]), np.ones(2), np.ones(2), nodes=3)
    with pytest.raises(ValueError, match="normalization"):
        sheaf_laplacian(random_sheaf(0), "row")


def test_no_edges_and_one_node():
    for n in (1, 3):
        empty = np.zeros((n, n))
        for matrix in (
            magnetic_laplacian(empty, 0.1),
            directed_adjacency(empty),
            laplacian(empty, "sym"),
            symmetrized(empty),
        ):
            assert matrix.shape == (n, n) and abs(matrix).sum() == 0
        np.testing.assert_allclose(propagation_limit(empty, np.ones((n, 2))), 1)
        assert undirected_edges(empty).shape == (2, 0) and np.isnan(reciprocity(empty))
