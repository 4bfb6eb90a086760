"""Explainers against finite differences, single removals, scikit-learn and the dense network."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from netatlas.graph_trust import (
    DenseGIN,
    MotifGraphs,
    SparseGIN,
    fidelity,
    gradient_scores,
    mask_scores,
    motif_auc,
    motif_graphs,
    occlusion_scores,
    top_edges,
)


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    return DenseGIN(8), motif_graphs(4, tree=6, seed=0)


def random_scores(graphs, seed=0):
    draw = torch.rand(graphs.adjacency.shape, generator=torch.Generator().manual_seed(seed))
    return draw + draw.transpose(1, 2)


def test_the_sparse_network_is_the_dense_one(case):
    model, graphs = case
    with torch.no_grad():
        model.epsilon += torch.tensor([0.1, -0.2, 0.3])
        expected = model(graphs.adjacency)
    count, n = graphs.adjacency.shape[:2]
    g, u, v = graphs.adjacency.nonzero().T
    batch = torch.arange(count).repeat_interleave(n)
    found = SparseGIN(model)(torch.ones(count * n, 1), torch.stack([g * n + u, g * n + v]), batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(graphs.adjacency), expected)


def test_the_slope_is_that_of_finite_differences(case):
    model, graphs = case
    model = model.double()
    a, y = graphs.adjacency.double(), graphs.label
    found = gradient_scores(model, a, y)
    u, v = a[0].triu(1).nonzero()[3].tolist()
    step = torch.zeros_like(a)
    step[0, u, v] = step[0, v, u] = 1e-6
    with torch.no_grad():
        p = [model(a + s * step).softmax(-1)[0, y[0]] for s in (1, -1)]
    assert float(found[0, u, v]) == pytest.approx(abs(float(p[0] - p[1])) / 2e-6, rel=1e-5)
    assert float((found * (a == 0)).abs().max()) == 0
    model.float()


def test_removing_one_edge_is_fidelity_of_one_edge(case):
    model, graphs = case
    found = occlusion_scores(model, graphs.adjacency, graphs.label, chunk=3)
    u, v = graphs.adjacency[2].triu(1).nonzero()[1].tolist()
    one = torch.zeros_like(graphs.motif)
    one[2, u, v] = one[2, v, u] = True
    classic = fidelity(model, graphs.adjacency, one, graphs.label).plus[2]
    torch.testing.assert_close(found[2, u, v], classic, rtol=1e-5, atol=1e-7)
    assert torch.equal(found, found.transpose(1, 2))


def test_masks_are_seeded_shares_on_edges_only(case):
    model, graphs = case
    first, again = (mask_scores(model, graphs.adjacency, graphs.label, epochs=5, seed=3) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(first, first.transpose(1, 2))
    assert (
        float((first * (graphs.adjacency == 0)).abs().max()) == 0 and 0 <= float(first.min()) <= float(first.max()) <= 1
    )


def test_the_area_is_that_of_scikit_learn(case):
    graphs = case[1]
    scores = (4 * random_scores(graphs)).round()
    for index, found in enumerate(motif_auc(scores, graphs)):
        upper = (graphs.adjacency[index] != 0).triu(1)
        expected = roc_auc_score(graphs.motif[index][upper].numpy(), scores[index][upper].numpy())
        assert float(found) == pytest.approx(expected)
    assert motif_auc(graphs.motif.float(), graphs).tolist() == [1.0] * 4


def test_top_edges_are_the_best(case):
    graphs = case[1]
    scores, count = random_scores(graphs), torch.tensor([0, 1, 3, 1000])
    chosen = top_edges(scores, graphs.adjacency, count)
    sizes = chosen.triu(1).flatten(1).sum(1).tolist()
    assert sizes == [0, 1, 3, int(graphs.adjacency[3].sum()) // 2]
    best = torch.where(graphs.adjacency[2] != 0, scores[2], -1).triu(1).flatten().sort(descending=True).values[:3]
    np.testing.assert_allclose(sorted(scores[2][chosen[2].triu(1)].tolist()), sorted(best.tolist()))


@pytest.mark.parametrize("explain", [gradient_scores, occlusion_scores, mask_scores])
def test_bad_graphs_are_refused(case, explain):
    model, graphs = case
    with pytest.raises(ValueError, match="adjacency"):
        explain(model, graphs.adjacency[0], graphs.label)
    with pytest.raises(ValueError, match="adjacency"):
        explain(model, torch.zeros(0, 3, 3), graphs.label[:0])
    with pytest.raises(ValueError, match="integer labels"):
        explain(model, graphs.adjacency, graphs.label.float())
    with pytest.raises(ValueError, match="adjacency"):
        explain(model, graphs.adjacency * torch.nan, graphs.label)


def test_graphs_without_edges(case):
    model, _ = case
    empty, labels = torch.zeros(2, 3, 3), torch.zeros(2, dtype=torch.long)
    assert float(gradient_scores(model, empty, labels).abs().max()) == 0
    assert float(occlusion_scores(model, empty, labels).abs().max()) == 0
    assert not top_edges(empty, empty, torch.tensor([1, 0])).any()
    with pytest.raises(ValueError, match="at least one edge"):
        mask_scores(model, empty, labels)
    with pytest.raises(ValueError, match="inside and outside"):
        motif_auc(empty, MotifGraphs(empty, empty > 0, labels))


def test_bad_scores_are_refused(case):
    graphs = case[1]
    with pytest.raises(ValueError, match="scores"):
        top_edges(graphs.adjacency[:1], graphs.adjacency, torch.ones(4))
    with pytest.raises(ValueError, match="counts"):
        top_edges(graphs.adjacency, graphs.adjacency, torch.tensor([1, -1, 0, 0]))
    with pytest.raises(ValueError, match="scores"):
        motif_auc(graphs.adjacency[0], graphs)
