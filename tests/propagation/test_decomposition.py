"""Bases against matrix powers, the filter's special cases, and masks that keep padding out."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.propagation import (
    PairwiseFilter,
    PDFNetwork,
    channel_matrices,
    commutator_norm,
    graph_matrix_basis,
    pack_graphs,
    padded_graphs,
)


def graphs(sizes=(5, 8, 1)):
    found = []
    for k, n in enumerate(sizes):
        data = from_networkx(nx.gnp_random_graph(n, 0.5, seed=k))
        data.edge_index = data.edge_index.reshape(2, -1)
        data.num_nodes = n
        data.x = torch.randn(n, 2, generator=torch.Generator().manual_seed(k))
        found.append(data)
    return found


def test_padding_and_basis():
    data = graphs()
    batch = padded_graphs(data)
    basis = graph_matrix_basis(batch.adjacency, batch.mask, {-0.5: 3, 0.0: 2})
    assert basis.shape == (3, 8, 8, 6)
    for k, graph in enumerate(data):
        n = graph.num_nodes
        gcn = normalized_adjacency(graph, "sym", self_loops=True).toarray()
        loops = as_csr(graph).toarray() + np.eye(n)
        expected = [np.eye(n), gcn, gcn @ gcn, gcn @ gcn @ gcn, loops, loops @ loops]
        np.testing.assert_allclose(basis[k, :n, :n].permute(2, 0, 1), np.array(expected), atol=1e-5)
        assert not basis[k, n:].any() and not basis[k, :, n:].any()
    z = graph_matrix_basis(batch.adjacency, batch.mask, {0.0: 2}, standardize=True)
    pairs = (batch.mask[:, :, None] & batch.mask[:, None])[..., None].expand_as(z)
    values = z[pairs].reshape(-1, 3)
    torch.testing.assert_close(values[:, 1:].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(values[:, 1:].std(0, unbiased=False), torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("filter", ["shared", "linear", "nonlinear"])
def test_network_ignores_padding_and_order(filter):
    data = graphs()
    torch.manual_seed(0)
    net = PDFNetwork(3, 2, 6, 2, 4, filter=filter)
    alone = data[0]

    def run(given):
        batch = padded_graphs(given)
        return net(pack_graphs(batch, graph_matrix_basis(batch.adjacency, batch.mask, {-0.5: 2})))

    # The sum over nodes is divided by the batch's size, so the same padding on both sides.
    together = run(data)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    turned = Data(x=alone.x[order], edge_index=place[alone.edge_index], num_nodes=5)
    torch.testing.assert_close(run([turned, *data[1:]]), together, atol=1e-5, rtol=1e-4)
    batch = padded_graphs(data)
    packed = pack_graphs(batch, graph_matrix_basis(batch.adjacency, batch.mask, {-0.5: 2}))
    packed[0, 5:, 1:] = 7.0
    torch.testing.assert_close(net(packed), together)
    assert net.to("meta")(packed.to("meta")).shape == (3, 4)


def test_linear_filters_commute_on_one_decomposition_only():
    batch = padded_graphs(graphs((9,)))
    torch.manual_seed(1)
    one = graph_matrix_basis(batch.adjacency.double(), batch.mask, {-0.5: 3})[0]
    several = graph_matrix_basis(batch.adjacency.double(), batch.mask, {-0.5: 3, 0.0: 2})[0]
    fixed = channel_matrices(PairwiseFilter(4, 2, linear=True).double(), one)
    assert commutator_norm(*fixed) < 1e-12
    for basis, linear in ((several, True), (one, False), (several, False)):
        c = channel_matrices(PairwiseFilter(basis.shape[-1], 2, linear=linear, hidden=16).double(), basis)
        torch.testing.assert_close(c, c.transpose(1, 2))
        assert commutator_norm(*c) > 1e-5
    assert commutator_norm(torch.zeros(3, 3), torch.eye(3)) == 0


def test_refusals():
    data = graphs()
    batch = padded_graphs(data)
    directed = Data(x=torch.ones(2, 2), edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    for call in (
        lambda: padded_graphs([]),
        lambda: padded_graphs([Data(edge_index=data[0].edge_index, num_nodes=5)]),
        lambda: padded_graphs([directed]),
        lambda: graph_matrix_basis(batch.adjacency, batch.mask[:, :2], {0.0: 1}),
        lambda: graph_matrix_basis(batch.adjacency, batch.mask, {}),
        lambda: graph_matrix_basis(batch.adjacency, batch.mask, {0.0: 0}),
        lambda: PairwiseFilter(0, 1),
        lambda: PDFNetwork(3, 2, 6, 2, 4, filter="cubic"),
        lambda: pack_graphs(batch, torch.zeros(1, 2, 2, 3)),
        lambda: commutator_norm(torch.zeros(2, 3), torch.zeros(3, 3)),
        lambda: commutator_norm(torch.full((2, 2), torch.nan), torch.zeros(2, 2)),
        lambda: channel_matrices(PairwiseFilter(3, 2), torch.zeros(2, 3)),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
