"""Propagated features and weights against loops over nodes, and the corner cases of decoupled depth."""

import networkx as nx
import numpy as np
import pytest
import torch

from netatlas.core.graph import normalized_adjacency
from netatlas.core.graph_operators import propagation_limit
from netatlas.core.message_passing import GCN, gcn_operator
from netatlas.propagation import (
    DecoupledGCN,
    TransferNetwork,
    combined_features,
    fit_transfer,
    node_adaptive_weights,
    node_entropy,
    propagated_features,
    random_splits,
    ring,
    smoothing_level,
    transfer_inputs,
    tune_nodes,
)
from netatlas.propagation.portrait import bottleneck_task, portrait_rows

GRAPH = nx.connected_watts_strogatz_graph(15, 4, 0.3, seed=0)
X = np.random.default_rng(0).normal(size=(15, 4)) ** 2


def test_weights_by_a_loop_over_nodes():
    stack = propagated_features(GRAPH, X, 6)
    step = normalized_adjacency(GRAPH, "sym", self_loops=True).toarray()
    np.testing.assert_allclose(stack[5], np.linalg.matrix_power(step, 5) @ X, atol=1e-12)
    limit = propagation_limit(GRAPH, X, "row")
    found = node_adaptive_weights(stack, limit)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for v in range(15):
        score = [cosine(stack[0, v], s[v]) * (1 - cosine(limit[v], s[v])) for s in stack]
        np.testing.assert_allclose(found[:, v], np.exp(score) / np.exp(score).sum(), rtol=1e-7)
    expected = np.einsum("kn,knf->nf", found, stack)
    np.testing.assert_allclose(combined_features(GRAPH, X, 6), expected, rtol=1e-10)
    for kind in ("own", "unsmoothed", "uniform", "last"):
        np.testing.assert_allclose(node_adaptive_weights(stack, limit, kind).sum(0), 1)
    np.testing.assert_allclose(combined_features(GRAPH, X, 6, "last"), stack[6])
    np.testing.assert_allclose(combined_features(GRAPH, X, 6, "uniform"), stack.mean(0))


def test_smoothing_tends_to_one():
    stack = propagated_features(GRAPH, X, 200)
    level = smoothing_level(stack, propagation_limit(GRAPH, X))
    assert level[-1] == pytest.approx(1, abs=1e-9) and level[0] < level[10] < level[-1]
    alone = nx.empty_graph(3)
    weights = node_adaptive_weights(propagated_features(alone, X[:3], 4), propagation_limit(alone, X[:3], "row"))
    np.testing.assert_allclose(weights, 0.2, atol=1e-9)
    assert propagated_features(GRAPH, X.astype(np.float32), 2).dtype == np.float32


def test_equal_depths_are_the_usual_gcn():
    operator = gcn_operator(GRAPH)
    torch.manual_seed(0)
    plain = GCN([4, 6, 6, 3], operator).double()
    ours = DecoupledGCN(4, 6, 3, operator, propagations=3, transformations=3).double()
    ours.load_state_dict(plain.state_dict())
    x = torch.from_numpy(X)
    torch.testing.assert_close(ours(x), plain(x))
    linear = DecoupledGCN(4, 6, 3, operator, propagations=5, transformations=1).double()
    expected = torch.from_numpy(propagated_features(GRAPH, X, 5)[5]) @ linear.layers[0].weight.T + linear.layers[0].bias
    torch.testing.assert_close(linear(x), expected)
    assert DecoupledGCN(4, 6, 3, operator, propagations=5, transformations=2).steps == [3, 2]
    assert DecoupledGCN(4, 6, 3, operator, propagations=0, transformations=2, skip=True)(x.float()).shape == (15, 3)
    meta = DecoupledGCN(4, 6, 3, operator, propagations=2, transformations=4, skip=True).to("meta")
    assert meta(torch.empty(15, 4, device="meta")).shape == (15, 3)


@pytest.mark.parametrize("kind", ["gin", "gcn", "sage"])
def test_transfer(kind):
    graph = ring(3)
    x, _ = transfer_inputs(6, 0)
    torch.manual_seed(0)
    short = TransferNetwork(graph, 5, 16, 2, 5, kind=kind)
    assert torch.allclose(short(x), short(x[:1]).expand(5, 5), atol=1e-6), "two layers do not reach"
    assert (TransferNetwork(graph, 5, 16, 3, 5, kind=kind)(x).std(0) > 0).any()
    near = ring(2)
    near.target = near.source
    accuracy, loss, members = fit_transfer(
        near, layers=1, width=16, seeds=[0, 1], lrs=[0.001, 0.03], steps=80, kind=kind
    )
    assert accuracy.shape == (2,) and (accuracy > 0.7).all() and (loss < 1).all() and len(members) == 4


def test_tuning_chooses_by_validation():
    y = torch.from_numpy(np.arange(15) % 3)
    masks = random_splits(y, (0.4, 0.3), seeds=[0, 1, 2])
    assert (sum(m.int() for m in masks) == 1).all()
    operator = gcn_operator(GRAPH)
    tuned = tune_nodes(
        lambda: GCN([4, 4, 3], operator), torch.from_numpy(X).float(), y, masks, seeds=[0, 1, 2], epochs=10
    )
    assert tuned.test.shape == (3,) and tuned.logits.shape == (3, 15, 3)
    assert (tuned.validation == tuned.fit.validation.reshape(3, 4).max(1).values).all()
    torch.testing.assert_close(tuned.model(1)(torch.from_numpy(X).float()), tuned.logits[1], atol=1e-5, rtol=1e-4)
    again = tune_nodes(
        lambda: GCN([4, 4, 3], operator),
        torch.from_numpy(X).float(),
        y,
        masks,
        seeds=[0, 1, 2],
        epochs=10,
        settings=tuned.setting,
    )
    assert again.setting == tuned.setting and len(again.fit.ensemble) == 3
    torch.testing.assert_close(again.logits, tuned.logits, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="3 settings"):
        tune_nodes(lambda: None, torch.zeros(15, 4), y, masks, seeds=[0, 1, 2], epochs=1, settings=[(0.1, 0.0)])
    with pytest.raises(ValueError, match="setting"):
        tune_nodes(lambda: None, torch.zeros(15, 4), y, masks, seeds=[0, 1, 2], epochs=1, grid=[])
    with pytest.raises(ValueError, match="rows"):
        tune_nodes(lambda: None, torch.zeros(15, 4), y, masks, seeds=[0], epochs=1)
    with pytest.raises(ValueError, match="shares"):
        random_splits(y, (0.5, 0.5), seeds=[0])


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_entropy_of_nodes_and_its_gradient(scale):
    logits = scale * torch.randn(15, 3, generator=torch.Generator().manual_seed(0)).double()
    logits.requires_grad_(True)
    y = torch.arange(15) % 3
    ours, theirs = node_entropy(logits, y), torch.nn.functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(ours, theirs)
    (a,), (b,) = (torch.autograd.grad(v.sum(), logits, retain_graph=True) for v in (ours, theirs))
    torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="15 labels"):
        node_entropy(logits, y[:3])


def test_portrait_keeps_the_settings_of_one_depth():
    task = bottleneck_task(10, clique=3, path=0, tokens=2, seeds=[0, 1])
    options = {"hidden": 4, "epochs": 3, "seeds": [0, 1], "rewired": 1, "scope": 4, "targets": 1}
    rows = portrait_rows("bells", task, [1, 2], tuned_at=2, **options)
    assert rows.depth.is_monotonic_increasing and (rows.model == "MLP").sum() == 1
    assert set(rows.groupby("model").size()) == {1, 2} and np.isfinite(rows["far share"]).all()
    with pytest.raises(ValueError, match="depth out of"):
        portrait_rows("bells", task, [1, 2], tuned_at=4, **options)


def test_refusals():
    operator = gcn_operator(GRAPH)
    stack = propagated_features(GRAPH, X, 2)
    for call in (
        lambda: propagated_features(GRAPH, X, -1),
        lambda: propagated_features(GRAPH, X[:3], 1),
        lambda: propagated_features(GRAPH, X * np.nan, 1),
        lambda: propagated_features(torch.tensor([[0], [1]]), X[:2], 1),
        lambda: node_adaptive_weights(stack, X[:3]),
        lambda: node_adaptive_weights(stack, X, "learned"),
        lambda: smoothing_level(stack, X[:3]),
        lambda: DecoupledGCN(4, 6, 3, operator, propagations=-1, transformations=2),
        lambda: DecoupledGCN(4, 6, 3, operator, propagations=2, transformations=0),
        lambda: DecoupledGCN(4, 6, 3, operator, propagations=2, transformations=1, dropout=1.0),
        lambda: transfer_inputs(5, 9),
        lambda: transfer_inputs(5, 0, classes=1),
        lambda: TransferNetwork(ring(3), 5, 8, 3, 5, kind="gat"),
        lambda: fit_transfer(ring(3), layers=3, width=8, seeds=[], lrs=[0.1], steps=1),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
