import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.graph_trust import explanations as rf


def linear(weights):
    """A classifier whose first probability is linear in the edges."""

    def classify(adjacency):
        p = 0.1 + (adjacency * weights).sum((-1, -2))
        return torch.stack([p, 1 - p], -1).log()

    return classify


def setting(count=12, seed=0):
    graphs = rf.motif_graphs(count, seed=seed)
    torch.manual_seed(seed)
    return graphs, rf.DenseGIN(8)


def test_graphs_are_trees_with_a_ring_or_a_ring_with_a_chord():
    graphs = rf.motif_graphs(10, tree=9)
    for a, m, y in zip(*graphs):
        g = nx.from_numpy_array(a.numpy())
        assert nx.is_connected(g) and g.number_of_nodes() == 14 and g.number_of_edges() == 8 + 5 + int(y) + 1
        motif = nx.from_numpy_array(m.numpy().astype(int))
        motif.remove_nodes_from([v for v, d in list(motif.degree) if d == 0])
        ring = nx.cycle_graph(5)
        if y:
            ring.add_edge(0, 2)
        assert nx.is_isomorphic(motif, ring) and bool((a[m] == 1).all())


def test_the_network_does_not_see_the_order_of_the_nodes():
    graphs, model = setting()
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    moved = graphs.adjacency[:, order][:, :, order]
    torch.testing.assert_close(model(moved), model(graphs.adjacency))


def test_the_classic_pair_by_hand():
    graphs, model = setting()
    explanation = rf.perturbed_explanations(graphs, 0.3, 0.3, generator=torch.Generator().manual_seed(1))
    found = rf.fidelity(model, graphs.adjacency, explanation, graphs.label)
    with torch.no_grad():
        for g in range(12):
            a, e, y = graphs.adjacency[g], explanation[g], graphs.label[g]

            def p(graph, y=y):
                return model(graph[None]).softmax(-1)[0, y]

            assert float(found.plus[g]) == pytest.approx(float(p(a) - p(a * ~e)), abs=1e-5)
            assert float(found.minus[g]) == pytest.approx(float(p(a) - p(a * e)), abs=1e-5)


def test_limits():
    graphs, model = setting()
    a, y = graphs.adjacency, graphs.label
    one = rf.robust_fidelity(model, a, graphs.motif, y, 1.0, 0.0)
    for left, right in zip(one, rf.fidelity(model, a, graphs.motif, y)):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=0)
    nothing = rf.robust_fidelity(model, a, graphs.motif, y, 0.0, 1.0)
    assert all(float(part.abs().max()) < 1e-6 for part in nothing)
    assert float(rf.robust_fidelity(model, a, torch.zeros_like(graphs.motif), y).plus.abs().max()) < 1e-6
    assert float(rf.robust_fidelity(model, a, a > 0, y).minus.abs().max()) < 1e-6


def test_a_classifier_linear_in_the_edges():
    graphs, _ = setting(4)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(25, 25, generator=generator) / 1000
    classify, a, y = linear(weights), graphs.adjacency, torch.zeros(4, dtype=torch.long)
    whole = rf.fidelity(classify, a, graphs.motif, y)
    parts = rf.robust_fidelity(classify, a, graphs.motif, y, 0.3, 0.6, samples=4000, generator=generator)
    torch.testing.assert_close(parts.plus, 0.3 * whole.plus, rtol=0.06, atol=0)
    torch.testing.assert_close(parts.minus, 0.4 * whole.minus, rtol=0.06, atol=0)


def test_many_explanations_at_once_are_each_alone_where_nothing_is_random():
    graphs, model = setting()
    generator = torch.Generator().manual_seed(1)
    many = torch.stack([rf.perturbed_explanations(graphs, 0.4, b, generator=generator) for b in (0, 0.5)])
    both = rf.fidelity(model, graphs.adjacency, many, graphs.label, chunk=5)
    for i in range(2):
        alone = rf.fidelity(model, graphs.adjacency, many[i], graphs.label)
        torch.testing.assert_close(both.delta[i], alone.delta, atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 1), st.integers(0, 100))
def test_sampled_edges_are_a_symmetric_part(keep, seed):
    graphs = rf.motif_graphs(3)
    drawn = rf.sample_edges(graphs.motif, keep, generator=torch.Generator().manual_seed(seed))
    assert bool((drawn <= graphs.motif).all()) and torch.equal(drawn, drawn.transpose(1, 2))


def test_perturbed_and_exchanged_explanations():
    graphs = rf.motif_graphs(6)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(rf.perturbed_explanations(graphs, 0.0, 0.0), graphs.motif)
    assert torch.equal(rf.perturbed_explanations(graphs, 0.0, 1.0), graphs.adjacency > 0)
    size = graphs.motif.sum((1, 2))
    for count in range(6):
        changed = rf.exchanged_explanations(graphs, graphs.motif, count, generator=generator)
        assert torch.equal(changed.sum((1, 2)), size)
        assert rf.explanation_edit_distance(changed, graphs.motif).tolist() == [2 * count] * 6
        assert bool((changed <= (graphs.adjacency > 0)).all())
    decoy = rf.decoy_explanations(graphs, generator=generator)
    assert torch.equal(decoy.sum((1, 2)), size) and not bool((decoy & graphs.motif).any())
    thin = rf.random_subgraphs(graphs.adjacency, generator=generator)
    assert torch.equal(thin, thin.transpose(1, 2)) and bool((thin <= graphs.adjacency).all())


def test_runs_on_the_meta_device():
    model, a = rf.DenseGIN(8).to("meta"), torch.empty(2, 6, 6, device="meta")
    explanation, y = (a != 0), torch.zeros(2, dtype=torch.long, device="meta")
    assert rf.fidelity(model, a, explanation, y).delta.shape == (2,)


G, MODEL = setting(2)
Y, EMPTY = G.label, torch.zeros(0, 4, 4)
BAD = {
    "no graph": lambda: rf.motif_graphs(0),
    "small tree": lambda: rf.motif_graphs(1, tree=1),
    "width": lambda: rf.DenseGIN(0),
    "empty": lambda: rf.fidelity(MODEL, EMPTY, EMPTY > 0, Y[:0]),
    "soft mask": lambda: rf.fidelity(MODEL, G.adjacency, G.motif.float(), Y),
    "directed graph": lambda: rf.fidelity(MODEL, G.adjacency.triu(), G.motif, Y),
    "directed explanation": lambda: rf.fidelity(MODEL, G.adjacency, G.motif.triu(), Y),
    "NaN": lambda: rf.fidelity(MODEL, G.adjacency * math.nan, G.motif, Y),
    "labels": lambda: rf.fidelity(MODEL, G.adjacency, G.motif, Y[:1]),
    "share": lambda: rf.robust_fidelity(MODEL, G.adjacency, G.motif, Y, 1.5),
    "samples": lambda: rf.robust_fidelity(MODEL, G.adjacency, G.motif, Y, samples=0),
    "probability": lambda: rf.sample_edges(G.motif, -0.1),
    "soft edges": lambda: rf.sample_edges(G.adjacency, 0.5),
    "count": lambda: rf.exchanged_explanations(G, G.motif, -1),
    "start": lambda: rf.exchanged_explanations(G, G.motif[:1], 1),
    "distance": lambda: rf.explanation_edit_distance(G.motif, G.motif[:, :3, :3]),
    "soft distance": lambda: rf.explanation_edit_distance(G.motif, G.adjacency),
    "subgraphs": lambda: rf.random_subgraphs(G.adjacency[0]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()
