"""Rewiring against exhaustive search, and against what each method promises."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.graph import as_csr
from netatlas.core.resistance import commute_times, effective_resistance, laplacian_pinv, total_resistance
from netatlas.propagation import (
    RelationalNetwork,
    clique_path,
    crossed_ring,
    curvature_edges,
    dumbbell,
    forman_curvature,
    fosr_edges,
    gtr_edges,
    marked_tokens,
    random_edges,
    resistance_gain,
    rewired_adjacency,
    ring,
)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_first_edge_of_gtr_is_the_best_of_all(seed):
    graph = nx.connected_watts_strogatz_graph(12, 4, 0.5, seed=seed)
    found = gtr_edges(graph, 1)
    best = min(total_resistance(nx.Graph([*graph.edges, e])) for e in nx.non_edges(graph))
    assert found.total[1] == pytest.approx(best, rel=1e-9)
    gain = resistance_gain(laplacian_pinv(graph))
    u, v = found.edges[0]
    assert found.total[0] - found.total[1] == pytest.approx(gain[u, v], rel=1e-8)


@pytest.mark.parametrize("method", [gtr_edges, fosr_edges, curvature_edges, random_edges])
def test_added_edges_are_new_and_totals_true(method):
    graph = nx.barbell_graph(5, 3)
    found = method(graph, 6)
    keys = {tuple(e) for e in found.edges.tolist()}
    assert len(keys) == 6 and not any(graph.has_edge(*e) for e in keys) and all(u < v for u, v in keys)
    assert (np.diff(found.total) < 0).all()
    expected = [total_resistance(rewired_adjacency(graph, found.edges[:k])) for k in range(7)]
    np.testing.assert_allclose(found.total, expected, rtol=1e-9)


def test_order_of_the_methods():
    graph = nx.barbell_graph(10, 4)
    gtr, fosr = gtr_edges(graph, 10).total[-1], fosr_edges(graph, 10).total[-1]
    assert gtr < fosr and gtr < np.mean([random_edges(graph, 10, seed=s).total[-1] for s in range(10)])
    assert curvature_edges(graph, 10).total[-1] > gtr


def test_components_are_never_joined():
    graph = nx.disjoint_union(nx.cycle_graph(5), nx.path_graph(4))
    found = gtr_edges(graph, 3)
    assert np.isinf(found.total).all() and ((found.edges < 5).all(1) | (found.edges >= 5).all(1)).all()
    with pytest.raises(ValueError, match="room"):
        gtr_edges(nx.complete_graph(4), 1)
    with pytest.raises(ValueError, match="self-loops"):
        gtr_edges(np.eye(3), 1)
    with pytest.raises(ValueError, match="count"):
        random_edges(graph, -1)


def test_many_updates_do_not_drift():
    graph = nx.cycle_graph(30)
    found = gtr_edges(graph, 60)
    assert found.total[-1] == pytest.approx(total_resistance(rewired_adjacency(graph, found.edges)), rel=1e-10)


def test_curvature():
    a = as_csr(nx.complete_graph(4)).toarray()
    assert forman_curvature(a)[0, 1] == pytest.approx(2 / 3 + 2 / 3 - 2 + 4 / 3 + 2 / 3)
    path = forman_curvature(as_csr(nx.path_graph(4)).toarray())
    assert path[1, 2] == 0 and np.isnan(path[0, 2])
    with pytest.raises(ValueError, match="simple"):
        forman_curvature(2 * a)


def test_bottleneck_graphs():
    for r in (3, 5, 8):
        for graph, resistance, edges in (
            (ring(r), r / 2, 2 * r),
            (crossed_ring(r), (r + 2) / 4, 4 * r - 4),
            (clique_path(r), r - 1 + 2 / r, r * (r - 1) / 2 + r),
        ):
            distances = nx.single_source_shortest_path_length(nx.Graph(graph.edge_index.T.tolist()), graph.source)
            assert distances[graph.target] == r and graph.num_nodes == 2 * r
            assert effective_resistance(graph)[graph.source, graph.target] == pytest.approx(resistance)
            assert graph.edge_index.shape[1] == 2 * edges
            assert commute_times(graph)[graph.source, graph.target] == pytest.approx(2 * edges * resistance)
    bell = dumbbell(5, 3)
    assert nx.shortest_path_length(nx.Graph(bell.edge_index.T.tolist()), bell.source, bell.target) == 6
    for call in (lambda: ring(0), lambda: crossed_ring(2), lambda: clique_path(1), lambda: dumbbell(2, 1)):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_relational_network_sees_no_further_than_its_layers():
    graph = dumbbell(4, 2)
    a = torch.from_numpy(as_csr(graph).toarray())
    x, y = marked_tokens(graph.num_nodes, graph.source, graph.target, 6, seed=0)
    assert x.shape == (6, 10, 6) and (x[:, graph.source, :4].argmax(-1) == y).all()
    torch.manual_seed(0)
    net = RelationalNetwork(a, torch.zeros_like(a), 6, 8, 4, 4, graph.target)
    changed = x.clone()
    changed[:, graph.source, :4] = changed[:, graph.source, :4].roll(1, -1)
    torch.testing.assert_close(net(x), net(changed))
    added = torch.zeros_like(a)
    added[graph.source, graph.target] = added[graph.target, graph.source] = 1
    near = RelationalNetwork(a, added, 6, 8, 4, 4, graph.target)
    assert (near(x) - near(changed)).abs().max() > 1e-3
    for call in (
        lambda: RelationalNetwork(a, a[:2], 6, 8, 4, 4, 0),
        lambda: RelationalNetwork(a, a, 6, 8, 4, 4, 99),
        lambda: marked_tokens(5, 0, 9, 3),
        lambda: marked_tokens(5, 0, 1, 0),
        lambda: rewired_adjacency(graph, np.array([[0, 99]])),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
