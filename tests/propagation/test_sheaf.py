"""The layer against the dense Laplacian of the same sheaf, roots against eigendecompositions, theorems on kernels."""

import networkx as nx
import numpy as np
import pytest
import torch

from netatlas.core.graph_operators import sheaf, sheaf_laplacian, undirected_edges
from netatlas.propagation import (
    SheafDiffusion,
    class_sheaf,
    harmonic_projection,
    householder_orthogonal,
    inverse_root,
    separable_classes,
)

GRAPH = nx.connected_watts_strogatz_graph(10, 4, 0.3, seed=0)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_householder_products_are_orthogonal(dim):
    g = torch.Generator().manual_seed(0)
    q = householder_orthogonal(torch.randn(7, dim * (dim - 1) // 2, generator=g).double(), dim)
    torch.testing.assert_close(q @ q.transpose(1, 2), torch.eye(dim).double().expand(7, dim, dim))
    torch.testing.assert_close(torch.linalg.det(q), torch.full((7,), (-1.0) ** dim).double())
    with pytest.raises(ValueError, match="parameters"):
        householder_orthogonal(torch.zeros(3, 99), dim)


def test_householder_product_by_hand():
    p = 0.7
    first, second = np.array([1, p]), np.array([0, 1.0])
    product = np.eye(2)
    for v in (first, second):
        product = product @ (np.eye(2) - 2 * np.outer(v, v) / (v @ v))
    found = householder_orthogonal(torch.tensor([[p]], dtype=torch.float64), 2)[0]
    np.testing.assert_allclose(found.numpy(), product, atol=1e-15)


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_inverse_roots(dim):
    g = torch.Generator().manual_seed(1)
    a = torch.randn(9, dim, dim, generator=g).double()
    m = a @ a.transpose(1, 2) + torch.eye(dim)
    m[0] = 3 * torch.eye(dim)  # repeated eigenvalues
    values, vectors = torch.linalg.eigh(m)
    expected = vectors * values.rsqrt()[:, None] @ vectors.transpose(1, 2)
    torch.testing.assert_close(inverse_root(m), expected, atol=1e-9, rtol=1e-9)
    m.requires_grad_(True)
    inverse_root(m).sum().backward()
    assert torch.isfinite(m.grad).all()


@pytest.mark.parametrize("maps", ["trivial", "diagonal", "orthogonal", "general"])
@pytest.mark.parametrize("stalk", [1, 2, 3])
def test_layer_is_the_sheaf_laplacian(maps, stalk):
    torch.manual_seed(0)
    net = SheafDiffusion(GRAPH, 4, 3, 2, stalk=stalk, maps=maps).double()
    x = torch.randn(10, stalk, 3, dtype=torch.float64)
    edges = undirected_edges(GRAPH)
    count = edges.shape[1]
    if net.outputs:
        found = net.edge_maps(x, 0).detach().numpy()
        given = sheaf(edges, found[:count], found[count:], nodes=10)
    else:
        eye = np.tile(np.eye(stalk), (count, 1, 1))
        eye = eye if maps == "trivial" else -eye
        given = sheaf(edges, eye, eye, nodes=10)
    dense = torch.from_numpy(sheaf_laplacian(given, "augmented").toarray())
    expected = (dense @ x.reshape(10 * stalk, 3)).reshape(10, stalk, 3)
    torch.testing.assert_close(net.diffuse(x, 0), expected, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("maps", ["diagonal", "orthogonal", "general"])
def test_equivariance_gradients_and_members(maps):
    torch.manual_seed(1)
    net = SheafDiffusion(GRAPH, 4, 3, 2, maps=maps).double()
    x = torch.randn(10, 4, dtype=torch.float64)
    order = np.random.default_rng(0).permutation(10)
    other = SheafDiffusion(nx.relabel_nodes(GRAPH, dict(enumerate(order.tolist()))), 4, 3, 2, maps=maps).double()
    # networkx orders rows by insertion; the matrix must be in node order.
    renamed = nx.Graph()
    renamed.add_nodes_from(range(10))
    renamed.add_edges_from((order[u], order[v]) for u, v in GRAPH.edges)
    other = SheafDiffusion(renamed, 4, 3, 2, maps=maps).double()
    other.load_state_dict(net.state_dict())
    moved = torch.empty_like(x)
    moved[order] = x
    torch.testing.assert_close(other(moved)[order], net(x))
    net(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    from torch.func import functional_call, stack_module_state, vmap

    nets = [SheafDiffusion(GRAPH, 4, 3, 2, maps=maps).double() for _ in range(3)]
    params, _ = stack_module_state(nets)
    together = vmap(lambda p: functional_call(nets[0], p, (x,)))(params)
    torch.testing.assert_close(together, torch.stack([n(x) for n in nets]))


def test_isolated_nodes_and_refusals():
    lonely = nx.Graph([(0, 1)])
    lonely.add_node(2)
    for maps in ("trivial", "diagonal", "orthogonal", "general"):
        assert torch.isfinite(SheafDiffusion(lonely, 4, 3, 2, maps=maps)(torch.randn(3, 4))).all()
    with pytest.raises(ValueError, match="maps"):
        SheafDiffusion(GRAPH, 4, 3, 2, maps="bundle")
    with pytest.raises(ValueError, match="sizes"):
        SheafDiffusion(GRAPH, 4, 0, 2)
    with pytest.raises(ValueError, match="undirected"):
        SheafDiffusion(torch.tensor([[0], [1]]), 4, 3, 2)
    with pytest.raises(ValueError, match="square"):
        inverse_root(torch.zeros(2, 3))


def test_kernels_of_the_theorems():
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    graph = nx.gnp_random_graph(30, 0.25, seed=1)
    edges = undirected_edges(graph)
    x = rng.normal(size=(90, 4))
    for kind, dim, stalk in (("trivial", 1, 1), ("signed", 1, 1), ("diagonal", 3, 3), ("rotation", 2, 2)):
        laplacian = sheaf_laplacian(class_sheaf(edges, y, kind), "block")
        limit, found = harmonic_projection(laplacian, x[: 30 * stalk])
        assert found == dim
        # The diffusion itself gets there.
        dense, state = laplacian.toarray(), x[: 30 * stalk].copy()
        for _ in range(4000):
            state = state - 0.5 * dense @ state
        np.testing.assert_allclose(state, limit, atol=1e-6)
        np.testing.assert_allclose(laplacian @ limit, 0, atol=1e-8)
    assert separable_classes(limit.reshape(30, -1), y).all()
    trivial, _ = harmonic_projection(sheaf_laplacian(class_sheaf(edges, y, "trivial"), "block"), x[:30])
    assert not separable_classes(trivial, y).all()
    with pytest.raises(ValueError, match="kind"):
        class_sheaf(edges, y, "bundle")


def test_separability():
    x = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    assert separable_classes(x, np.array([0, 0, 1, 1])).all()
    assert not separable_classes(x, np.array([0, 1, 1, 0])).any()
    line = np.arange(6.0)[:, None]
    assert separable_classes(line, np.array([0, 0, 1, 1, 2, 2])).tolist() == [True, False, True]
    assert separable_classes(1e-9 * x, np.array([0, 0, 1, 1])).all()
    assert not separable_classes(np.ones((4, 2)), np.array([0, 0, 1, 1])).any()
    for call in (
        lambda: separable_classes(x, np.zeros(4, int)),
        lambda: separable_classes(x, np.zeros(3, int)),
        lambda: separable_classes(x * np.nan, np.array([0, 0, 1, 1])),
        lambda: harmonic_projection(np.triu(np.ones((3, 3))), np.zeros((3, 1))),
        lambda: harmonic_projection(np.eye(3), np.zeros((2, 1))),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
