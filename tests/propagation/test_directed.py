"""Directed models against dense formulas, twins that see no direction, and a selector that can say no."""

import numpy as np
import pytest
import torch

from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import magnetic_laplacian, reciprocity, symmetrized
from netatlas.propagation import (
    DirectedGCN,
    MagNet,
    TwoHopGCN,
    cyclic_flow_graph,
    direction_operators,
    direction_score,
    magnetic_operator,
    randomly_oriented,
    shuffled_directions,
)
from netatlas.propagation.directed_experiments import flow_runs

GRAPH = cyclic_flow_graph(4, 60, 0.9, seed=0)


def test_flow_graph():
    graph = cyclic_flow_graph(4, 2000, 0.8, mean_degree=12, seed=1)
    u, v = graph.y[graph.edge_index]
    step = (v - u) % 4
    assert not (step == 2).any() and graph.edge_index.shape[1] == pytest.approx(12 * 2000 / 2, rel=0.05)
    across = step[step != 0]
    assert (across == 1).float().mean() == pytest.approx(0.8, abs=0.02)
    assert reciprocity(graph) == 0
    null = cyclic_flow_graph(4, 2000, 0.5, seed=1)
    step = (null.y[null.edge_index[1]] - null.y[null.edge_index[0]]) % 4
    assert (step == 1).sum() == pytest.approx(int((step == 3).sum()), rel=0.06)
    for call in (
        lambda: cyclic_flow_graph(2, 60, 0.9),
        lambda: cyclic_flow_graph(4, 60, 1.9),
        lambda: cyclic_flow_graph(4, 60, 0.9, mean_degree=100),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_controls_keep_the_undirected_graph():
    both = symmetrized(GRAPH)
    for other in (shuffled_directions(GRAPH, seed=3), randomly_oriented(both, seed=3)):
        assert (symmetrized(other) != both).nnz == 0 and other.nnz == GRAPH.edge_index.shape[1]
        assert (other != as_csr(GRAPH)).nnz > 0
    pair = torch.tensor([[0, 1, 1], [1, 0, 2]])
    assert shuffled_directions(pair, seed=1)[0, 1] == 1 and shuffled_directions(pair, seed=1)[1, 0] == 1


def test_layers_by_dense_formulas():
    torch.manual_seed(0)
    a = as_csr(GRAPH).toarray()
    with np.errstate(divide="ignore"):
        scale = [np.where(d > 0, d**-0.5, 0) for d in (a.sum(1), a.sum(0))]
    s = torch.from_numpy(scale[0][:, None] * a * scale[1])
    net = DirectedGCN([8, 3], *direction_operators(GRAPH), balance=0.3).double()
    x = GRAPH.x.double()
    own, out, into = (x @ w.T for w in net.layers[0].weight.chunk(3))
    b = net.layers[0].bias.chunk(3)
    expected = own + b[0] + 0.7 * s @ (out + b[1]) + 0.3 * s.T @ (into + b[2])
    torch.testing.assert_close(net(x), expected)
    two = TwoHopGCN([8, 3], *direction_operators(GRAPH)).double()
    parts = [x @ w.T + b for w, b in zip(two.layers[0].weight.chunk(5), two.layers[0].bias.chunk(5))]
    mats = [s @ s, s @ s.T, s.T @ s, s.T @ s.T]
    torch.testing.assert_close(two(x), parts[0] + 0.25 * sum(m @ p for m, p in zip(mats, parts[1:])))
    mag = MagNet([8, 4, 3], magnetic_operator(GRAPH, 0.2)).double()
    moved = torch.from_numpy(magnetic_laplacian(GRAPH, 0.2) - np.eye(60)).to(torch.complex128)
    own, far = mag.layers[0](x).chunk(2, -1)
    z = own + moved @ far.to(torch.complex128)
    z = z * (z.real >= 0)
    torch.testing.assert_close(mag(x), torch.cat([z.real, z.imag], -1) @ mag.head.weight.T + mag.head.bias)


def test_twins_do_not_see_direction():
    other = shuffled_directions(GRAPH, seed=5)
    for first, second in zip(direction_operators(GRAPH, directed=False), direction_operators(other, directed=False)):
        np.testing.assert_allclose(first.matrix.toarray(), second.matrix.toarray())
    np.testing.assert_allclose(
        magnetic_operator(GRAPH, 0.0).matrix.toarray(), magnetic_operator(other, 0.0).matrix.toarray(), atol=1e-14
    )


def test_selector_says_yes_and_no():
    for seed in range(3):
        flow, null = (cyclic_flow_graph(4, 600, beta, seed=seed) for beta in (0.95, 0.5))
        train = torch.zeros(600, dtype=torch.bool)
        train[torch.randperm(600, generator=torch.Generator().manual_seed(seed))[:300]] = True
        assert direction_score(flow, flow.y, train).use_direction
        assert not direction_score(null, null.y, train).use_direction
        # Labels outside of the training nodes are not read.
        hidden = torch.where(train, flow.y, 0)
        assert direction_score(flow, hidden, train).scores == direction_score(flow, flow.y, train).scores


def test_refusals():
    train = torch.ones(60, dtype=torch.bool)
    for call in (
        lambda: direction_score(GRAPH, GRAPH.y[:3], train),
        lambda: direction_score(GRAPH, GRAPH.y, train, folds=1),
        lambda: direction_score(GRAPH, torch.zeros(60, dtype=torch.long), train),
        lambda: DirectedGCN([8], *direction_operators(GRAPH)),
        lambda: DirectedGCN([8, 3], *direction_operators(GRAPH), balance=2.0),
        lambda: MagNet([8, 3], magnetic_operator(GRAPH)),
        lambda: TwoHopGCN([8], *direction_operators(GRAPH)),
        lambda: magnetic_operator(GRAPH, 1.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_arms_of_a_run():
    found = flow_runs(
        [0.5, 0.9], classes=4, nodes=80, models=["Dir-GNN"], hidden=4, epochs=3, seeds=[0, 1], shuffle=False
    )
    assert {"GCN", "Dir-GNN, tied"} <= set(found[0.5].test) and "GCN" not in found[0.9].test
    for run in found.values():
        np.testing.assert_allclose(run.gain, run.test["Dir-GNN"] - run.test["Dir-GNN, twin"])
        assert np.isnan(run.shuffled).all() and run.selector.shape == (2,)
