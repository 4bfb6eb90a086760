"""Graphs in every usual form give one matrix; operators and segment sums against brute force."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from netatlas.core import graph

EDGES = torch.tensor([[0, 1, 1, 2, 0], [1, 0, 2, 1, 1]])


def test_every_form_gives_the_same_matrix():
    dense = np.zeros((4, 4))
    np.add.at(dense, tuple(EDGES.numpy()), 1)
    networkx_graph = nx.from_numpy_array(dense, create_using=nx.DiGraph)
    forms = [dense, sp.coo_array(dense), networkx_graph, Data(edge_index=EDGES, num_nodes=4)]
    for form in forms:
        matrix = graph.as_csr(form)
        assert np.array_equal(matrix.toarray(), dense) and matrix.has_sorted_indices
    assert np.array_equal(graph.as_csr(EDGES, num_nodes=4).toarray(), dense)
    weighted = Data(edge_index=EDGES, edge_weight=torch.arange(5.0), num_nodes=3)
    assert graph.as_csr(weighted)[0, 1] == 4.0


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 3)),
        np.zeros((0, 0)),
        nx.Graph(),
        np.array([[0.0, -1.0], [1.0, 0.0]]),
        np.array([[0.0, np.nan], [1.0, 0.0]]),
        Data(edge_index=torch.tensor([[0, 5], [1, 0]]), num_nodes=2),
        Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=0),
        Data(edge_index=EDGES, edge_weight=torch.ones(2), num_nodes=3),
    ],
)
def test_bad_graphs_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        graph.as_csr(bad)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.floats(0.01, 1), st.integers(0, 99), st.booleans())
def test_normalised_adjacency_is_its_formula(nodes, density, seed, loops):
    dense = nx.to_numpy_array(nx.fast_gnp_random_graph(nodes, density, seed=seed))
    total = dense + np.eye(nodes) * loops
    degree = total.sum(1)
    inverse = np.divide(1, degree, where=degree > 0, out=np.zeros(nodes))
    row = graph.normalized_adjacency(dense, "row", self_loops=loops).toarray()
    sym = graph.normalized_adjacency(dense, "sym", self_loops=loops).toarray()
    np.testing.assert_allclose(row, inverse[:, None] * total)
    np.testing.assert_allclose(sym, np.sqrt(inverse)[:, None] * total * np.sqrt(inverse))
    assert np.abs(np.linalg.eigvalsh(sym)).max() <= 1 + 1e-9
    np.testing.assert_allclose(row.sum(1), (degree > 0).astype(float))


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="row, sym"):
        graph.normalized_adjacency(np.eye(2), "column")


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 20), st.integers(1, 6), st.integers(0, 99))
def test_segments_are_their_loops(rows, segments, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    index = torch.randint(0, segments, (rows,), generator=generator)
    total = graph.segment_sum(values, index, segments)
    for k in range(segments):
        torch.testing.assert_close(total[k], values[index == k].sum(0))


def test_segments_out_of_range_and_on_two_devices_are_refused():
    with pytest.raises(ValueError, match="segment indices"):
        graph.segment_sum(torch.ones(2, 1), torch.tensor([0, 3]), 2)
    with pytest.raises(ValueError, match="one segment for each"):
        graph.segment_sum(torch.ones(2, 1), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="one device"):
        graph.segment_sum(torch.ones(2, 1), torch.zeros(2, dtype=torch.long, device="meta"), 2)
    out = graph.segment_sum(torch.ones(2, 1, device="meta"), torch.zeros(2, dtype=torch.long, device="meta"), 2)
    assert out.device.type == "meta" and out.shape == (2, 1)
