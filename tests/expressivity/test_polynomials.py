"""Polynomials: how many there are, which are in reach, and that they are a basis."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.graph_invariants import ContractionProgram, MarkedGraph
from netatlas.expressivity import (
    PPGN,
    PPGNBlock,
    basis_outputs,
    contraction_reducible,
    enumerate_marked_graphs,
    marked_multigraphs,
    missing_polynomials,
    polynomial_features,
)

DEGREE_SIX = enumerate_marked_graphs(6)


def test_numbers_of_polynomials_and_of_those_out_of_reach():
    lists = [enumerate_marked_graphs(d) for d in range(1, 7)]
    assert [len(x) for x in lists] == [3, 6, 18, 53, 174, 604]
    assert [sum(not contraction_reducible(g) for g in x) for x in lists] == [0, 0, 0, 0, 1, 11]
    assert [sum(not contraction_reducible(g, "mpnn") for g in x) for x in lists] == [0, 1, 7, 29, 118, 471]
    bare = [enumerate_marked_graphs(d, marks=[0]) for d in range(1, 7)]
    trees_and_more = [sum(nx.is_connected(nx.Graph(g.edges)) for g in x) for x in bare]
    assert trees_and_more == [len(x) for x in bare] == [1, 1, 3, 5, 12, 30]


def test_the_twelve_are_the_cliques_and_their_kin():
    twelve = missing_polynomials()
    assert len(twelve) == 12
    diamond = [g for g in twelve if len(g.edges) == 5]
    assert len(diamond) == 1 and diamond[0].nodes == 4 and tuple(sorted(diamond[0].marked)) not in diamond[0].edges
    cliques = [g for g in twelve if g.nodes == 4 and len(g.edges) == 6]
    assert sorted(len(g.marked) for g in cliques) == [0, 1, 2]


@pytest.mark.parametrize("degree, dimensions", [(1, (2, 5, 15)), (2, (11, 32, 117))])
def test_polynomials_of_a_degree_are_a_basis(degree, dimensions):
    matrices = torch.randn(
        20, 2 * degree + 3, 2 * degree + 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    for outputs, dimension in zip(("graph", "node", "matrix"), dimensions):
        table = basis_outputs(matrices, degree, outputs)
        assert table.shape[1] == dimension == torch.linalg.matrix_rank(table)
    assert [len(marked_multigraphs(degree, m)) for m in (0, 1)] == list(dimensions[:2])


@given(st.integers(0, 603))
@settings(deadline=None, max_examples=15)
def test_reducible_means_no_intermediate_of_three_axes(index):
    graph = DEGREE_SIX[index]
    axes = [
        len({a for legs in s.axes for a in legs})
        for s in ContractionProgram([graph], symmetric=True).steps
        if s.kind == "multiply"
    ]
    assert not contraction_reducible(graph) or max(axes, default=0) <= 2


def test_features_are_homomorphism_counts_in_their_places():
    graph = nx.gnp_random_graph(6, 0.6, seed=0)
    a = torch.from_numpy(nx.to_numpy_array(graph))[None]
    triangle = ((0, 1), (0, 2), (1, 2))
    patterns = [MarkedGraph(3, triangle), MarkedGraph(3, triangle, (0,)), MarkedGraph(3, ((0, 2), (2, 1)), (0, 1))]
    whole = polynomial_features(a, patterns, normalize=False)[0]
    cube = torch.linalg.matrix_power(a[0], 3)
    torch.testing.assert_close(whole[..., 0], cube.trace().expand(6, 6))
    torch.testing.assert_close(whole[..., 1], torch.diag(cube.diagonal()))
    torch.testing.assert_close(whole[..., 2], a[0] @ a[0])
    scaled = polynomial_features(a, patterns)[0]
    torch.testing.assert_close(scaled[..., 1] * 36, whole[..., 1])


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_blocks_are_equivariant(seed):
    torch.manual_seed(seed)
    block, x, order = PPGNBlock(3, 4).double(), torch.randn(2, 5, 5, 3, dtype=torch.float64), torch.randperm(5)
    mask = torch.ones(2, 5, 5, dtype=torch.float64)
    moved = block(x[:, order][:, :, order], mask)
    torch.testing.assert_close(moved, block(x, mask)[:, order][:, :, order])


def test_products_of_a_block_count_walks():
    block = PPGNBlock(1, 1, depth=1, transpose=False).double()
    with torch.no_grad():
        for net in (block.left, block.right):
            net[0].weight.fill_(1)
            net[0].bias.zero_()
        block.out.weight.copy_(torch.tensor([[0.0, 1.0]]))
        block.out.bias.zero_()
    a = torch.from_numpy(nx.to_numpy_array(nx.petersen_graph()))[None]
    found = block(a[..., None], torch.ones_like(a))[..., 0] * 10
    torch.testing.assert_close(found, a @ a)
    assert np.array_equal(np.unique(found.detach().numpy()), [0, 1, 3])


def test_bad_input_is_refused():
    for call, words in (
        (lambda: enumerate_marked_graphs(7), "1 to 6 edges"),
        (lambda: enumerate_marked_graphs(2, marks=[3]), "numbers of marks"),
        (lambda: contraction_reducible(MarkedGraph(1, ()), "gnn"), "architecture"),
        (lambda: contraction_reducible(MarkedGraph(1, ((0, 1),))), "edges between"),
        (lambda: marked_multigraphs(4, 0), "degree of 1 to 3"),
        (lambda: basis_outputs(torch.ones(1, 2, 2), 1, "edge"), "outputs out of"),
        (lambda: polynomial_features(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), missing_polynomials()), "symmetric"),
        (lambda: PPGNBlock(0, 1), "sizes of at least 1"),
        (lambda: PPGN(1, 1, blocks=0), "at least one block"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
