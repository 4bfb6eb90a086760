"""Jacobians against a loop of backward passes, bounds that hold, and limits in depth in closed form."""

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from netatlas.core.graph import as_csr
from netatlas.core.message_passing import GCN, gcn_operator
from netatlas.core.resistance import access_times, effective_resistance
from netatlas.propagation import (
    PathNetwork,
    dirichlet_energy,
    influence,
    influence_from,
    jacobian_obstruction,
    linear_obstruction_limit,
    node_jacobian,
    partial_spearman,
    path_jacobians,
    resistance_bound,
    walk_bound,
    width_bound,
)
from netatlas.propagation.squashing_experiments import (
    bound_checks,
    farthest_node,
    marked_features,
    sensitivity_beside_bounds,
    trained_path_weights,
)

GRAPH = nx.connected_watts_strogatz_graph(9, 4, 0.4, seed=2)


def network(seed=0):
    torch.manual_seed(seed)
    return GCN([3, 5, 4, 2], gcn_operator(GRAPH)).double()


def test_jacobian_by_a_loop_of_backward_passes():
    net, x = network(), torch.randn(9, 3, dtype=torch.float64)
    found = node_jacobian(net, x)
    for v in range(9):
        for c in range(2):
            point = x.clone().requires_grad_(True)
            net(point)[v, c].backward()
            torch.testing.assert_close(found[v, c], point.grad)
    norms = influence(net, x)
    torch.testing.assert_close(norms[4, 7], torch.linalg.matrix_norm(found[4, :, 7]))
    torch.testing.assert_close(influence(net, x, "entrywise")[4, 7], found[4, :, 7].abs().sum())
    torch.testing.assert_close(influence_from(net, x, torch.tensor([4, 0])), norms[[4, 0]])


def test_nothing_arrives_from_beyond_the_layers():
    path = nx.path_graph(7)
    torch.manual_seed(0)
    norms = influence(GCN([2, 4, 4, 2], gcn_operator(path)), torch.randn(7, 2))
    distance = np.abs(np.subtract.outer(range(7), range(7)))
    assert not norms.numpy()[distance > 3].any()


def test_bounds_hold_and_are_ordered():
    graph = nx.Graph(nx.barbell_graph(4, 1))
    n, layers = 9, 5
    rng = np.random.default_rng(0)
    step = as_csr(graph).toarray()
    step /= np.sqrt(np.outer(step.sum(1), step.sum(1)))
    # Updates phi(h, m) = tanh(a + m) with contractions a: both gradients have norm at most 1.
    blocks = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2 * layers)]

    def run(h):
        for k in range(layers):
            own, far = (torch.from_numpy(b) for b in blocks[2 * k : 2 * k + 2])
            h = torch.tanh(h @ own + torch.from_numpy(step) @ h @ far)
        return h

    jacobian = node_jacobian(run, torch.from_numpy(rng.normal(size=(n, 3))))
    actual = torch.linalg.matrix_norm(jacobian.transpose(1, 2), 2).numpy()
    walks, resistances = walk_bound(graph, layers), resistance_bound(graph, layers)
    assert (actual <= walks + 1e-12).all() and (walks <= resistances + 1e-9).all()


def test_width_bound_holds():
    width, layers, weight = 6, 4, 0.3
    rng = np.random.default_rng(1)
    a = as_csr(GRAPH).toarray()
    a /= np.sqrt(np.outer(a.sum(1), a.sum(1)))
    own, far = (torch.from_numpy(rng.uniform(-weight, weight, (layers, width, width))) for _ in range(2))

    def run(h):
        for k in range(layers):
            h = torch.relu(0.4 * h @ own[k] + 0.6 * torch.from_numpy(a) @ h @ far[k])
        return h

    jacobian = node_jacobian(run, torch.from_numpy(rng.normal(size=(9, width))))
    actual = jacobian.abs().sum(1).amax(-1).numpy()
    bound = width_bound(GRAPH, layers, width=width, weight=weight, residual=0.4, aggregate=0.6)
    assert (actual <= bound + 1e-12).all()


def test_bounds_beside_networks_and_broken_by_another_graph():
    found = bound_checks({"barbell": nx.barbell_graph(4, 2)}, layers=4, width=4, steps=60, draws=2, seed=0)
    assert (found.table["largest measured / bound"] <= 1).all() and found.error < 0.9
    assert (found.table["median bound / measured"] > 1).all() and (found.hops.loose > 1).all()
    broken = found.table["broken if renamed"].unstack()
    assert (broken["walks"] > 0.05).all() and (broken["walks"] >= broken["resistance"]).all()


def test_bounds_take_the_constants_of_the_network():
    weights, error = trained_path_weights(GRAPH, 4, 3, steps=0, seeds=[5, 6])
    assert weights.shape == (2, 2, 3, 4, 4) and torch.isnan(error).all()
    torch.testing.assert_close(weights[0], PathNetwork(GRAPH, 4, 3, shared=False, seed=5).weights)
    x = marked_features(9, 2, 4, draws=1, generator=torch.Generator().manual_seed(0))[0]
    sides = sensitivity_beside_bounds(GRAPH, weights[0], x)
    net = PathNetwork(GRAPH, 4, 3, shared=False, seed=5)
    blocks = node_jacobian(net, x).transpose(1, 2)
    np.testing.assert_allclose(sides["walks"][0], torch.linalg.matrix_norm(blocks, 2).numpy(), atol=1e-12)
    np.testing.assert_allclose(sides["width"][0], blocks.abs().sum(2).amax(-1).numpy(), atol=1e-12)
    # Orthogonal weights: every layer has alpha = sqrt(2) / 2.
    np.testing.assert_allclose(sides["walks"][1], walk_bound(GRAPH, 3, alpha=0.5**0.5), rtol=1e-12)
    np.testing.assert_allclose(sides["resistance"][1], resistance_bound(GRAPH, 3, alpha=0.5**0.5), rtol=1e-12)
    assert farthest_node(nx.path_graph(5)) == 0 and farthest_node(nx.star_graph(3)) == 1


def test_linear_limit_is_access_time_and_resistance():
    for graph in (nx.karate_club_graph(), nx.barbell_graph(5, 2), nx.cycle_graph(8)):
        a = as_csr(nx.Graph(graph.edges))
        found = linear_obstruction_limit(a)
        np.testing.assert_allclose(found.symmetric, effective_resistance(a), atol=1e-11)
        np.testing.assert_allclose(found.one_sided, access_times(a).T / a.sum(), atol=1e-11)
    small = as_csr(nx.path_graph(4)).toarray()
    degree = small.sum(1)
    mixing = 0.5 * np.eye(4) + 0.5 * small / np.sqrt(np.outer(degree, degree))
    powers = sum(np.linalg.matrix_power(mixing, k) for k in range(400))
    series = 0.5 * (np.diag(powers) / degree)[:, None] - 0.5 * powers / np.sqrt(np.outer(degree, degree))
    np.testing.assert_allclose(linear_obstruction_limit(nx.path_graph(4)).one_sided, series, atol=1e-9)
    with pytest.raises(ValueError, match="connected"):
        linear_obstruction_limit(nx.Graph([(0, 1), (2, 3)]))


def test_path_jacobians_are_those_of_autograd():
    net = PathNetwork(GRAPH, 4, 5, shared=False, seed=1)
    x = torch.randn(9, 4, dtype=torch.float64)
    found = path_jacobians(net, x)
    torch.testing.assert_close(found[0], node_jacobian(net, x))
    torch.testing.assert_close(found[-1].reshape(36, 36), torch.eye(36, dtype=torch.float64))
    one, both = jacobian_obstruction(found, torch.tensor([d for _, d in GRAPH.degree], dtype=torch.float64))
    torch.testing.assert_close(both, both.T)
    assert one.diagonal().abs().max() < 1e-12 and (both <= one + one.T + 1e-12).all()


def test_energy():
    x = np.random.default_rng(0).normal(size=(9, 3))
    root = np.sqrt(np.array([d + 1 for _, d in GRAPH.degree]))
    assert dirichlet_energy(GRAPH, root[:, None]) == pytest.approx(0, abs=1e-12)
    assert 0 < dirichlet_energy(GRAPH, x) < 2 and np.isnan(dirichlet_energy(GRAPH, 0 * x))
    assert dirichlet_energy(GRAPH, x) == pytest.approx(dirichlet_energy(GRAPH, 10 * x))


def test_partial_spearman():
    rng = np.random.default_rng(0)
    common = rng.normal(size=4000)
    a, b = common + 0.1 * rng.normal(size=(2, 4000))
    assert spearmanr(a, b)[0] > 0.9 and abs(partial_spearman(a, b, common)) < 0.05
    assert partial_spearman(a, b, np.ones(4000)) == pytest.approx(spearmanr(a, b)[0])
    assert np.isnan(partial_spearman(a, np.ones(4000), b)) and np.isnan(partial_spearman(a, b, a))


def test_refusals():
    net, x = network(), torch.randn(9, 3, dtype=torch.float64)
    for call in (
        lambda: influence(net, x, "spectral"),
        lambda: node_jacobian(net, x * torch.nan),
        lambda: node_jacobian(net, x[0]),
        lambda: influence_from(net, x, torch.tensor([99])),
        lambda: dirichlet_energy(GRAPH, np.zeros((3, 3))),
        lambda: width_bound(GRAPH, 2, width=0, weight=1, residual=1, aggregate=1),
        lambda: resistance_bound(GRAPH, 2, beta=0.5),
        lambda: resistance_bound(nx.cycle_graph(4), 2),
        lambda: resistance_bound(nx.Graph([(0, 1), (2, 3)]), 2),
        lambda: walk_bound(GRAPH, -1),
        lambda: PathNetwork(GRAPH, 0, 2),
        lambda: PathNetwork(GRAPH, 2, 2, residual=1.0),
        lambda: path_jacobians(PathNetwork(GRAPH, 4, 2), x),
        lambda: jacobian_obstruction(torch.zeros(2, 3, 2, 3, 2), torch.zeros(3)),
        lambda: partial_spearman(np.zeros(3), np.zeros(2), np.zeros(3)),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
