import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas import data


def dense(graph):
    matrix = np.zeros((graph.num_nodes, graph.num_nodes))
    matrix[tuple(graph.edge_index.numpy())] = 1
    return matrix


def within(observed, expected, deviation):
    assert abs(observed - expected) <= 5 * deviation, f"{observed} is not within 5 x {deviation} of {expected}"


def block_edges(graph, labels, blocks):
    i, j = graph.edge_index.numpy()
    once = i < j
    counts = np.zeros((blocks, blocks))
    np.add.at(counts, (np.minimum(labels[i], labels[j])[once], np.maximum(labels[i], labels[j])[once]), 1)
    return counts


def assert_simple(graph):
    i, j = graph.edge_index
    keys = i * graph.num_nodes + j
    assert (i != j).all()
    assert (keys[1:] > keys[:-1]).all()
    assert torch.equal(torch.sort(j * graph.num_nodes + i).values, keys)


GRAPHS = {
    "sbm": lambda seed: data.stochastic_block_model([30, 50], [[0.5, 0.1], [0.1, 0.2]], seed),
    "dcsbm": lambda seed: data.degree_corrected_sbm([200, 100], 8, 0.1, 2.5, seed),
    "hierarchical": lambda seed: data.hierarchical_sbm(2, 3, 20, (0.5, 0.1, 0.02), seed),
    "contextual": lambda seed: data.contextual_sbm([100, 100], 6, 0.2, 8, 1.0, seed),
    "houses": lambda seed: data.rings_of_houses(noise=0.1, bridges_noise=0.1, seed=seed),
}
SAMPLES = {
    "regression": lambda seed: data.sparse_regression(50, 20, 3, correlation=0.4, seed=seed),
    "spirals": lambda seed: data.spirals(60, 3, seed=seed),
    "mixture": lambda seed: data.gaussian_mixture(60, seed=seed),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_simple_and_functions_of_the_seed(name):
    first, again, other = GRAPHS[name](3), GRAPHS[name](3), GRAPHS[name](4)
    assert_simple(first)
    assert all(torch.equal(value, again[key]) for key, value in first.to_dict().items() if torch.is_tensor(value))
    assert first.edge_index.shape != other.edge_index.shape or not torch.equal(first.edge_index, other.edge_index)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_functions_of_the_seed(name):
    first, again, other = SAMPLES[name](3), SAMPLES[name](3), SAMPLES[name](4)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])
    assert first[0].dtype == torch.float32


@pytest.mark.parametrize("seed", range(3))
def test_block_densities(seed):
    sizes = np.array([300, 200, 1, 400])
    p = np.array([[0.02, 0.6, 0.1, 0.0], [0.6, 0.25, 0.1, 0.01], [0.1, 0.1, 1.0, 0.5], [0.0, 0.01, 0.5, 1.0]])
    graph = data.stochastic_block_model(sizes.tolist(), p, seed)
    assert_simple(graph)
    counts = block_edges(graph, graph.y.numpy(), 4)
    for a in range(4):
        for b in range(a, 4):
            pairs = sizes[a] * (sizes[a] - 1) // 2 if a == b else sizes[a] * sizes[b]
            within(counts[a, b], pairs * p[a, b], math.sqrt(pairs * p[a, b] * (1 - p[a, b])))


def test_every_pair_of_a_sparse_block_is_equally_likely():
    runs, p = 3000, 0.25
    total = sum(dense(data.stochastic_block_model([4, 3], np.full((2, 2), p), seed)) for seed in range(runs))
    upper = total[np.triu_indices(7, 1)]
    assert np.abs(upper - runs * p).max() <= 5 * math.sqrt(runs * p * (1 - p))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from([0.0, 1.0]))
def test_certain_edges(sizes, p):
    graph = data.stochastic_block_model(sizes, np.full((len(sizes),) * 2, p), 0)
    n = sum(sizes)
    assert graph.num_nodes == n
    assert graph.num_edges == p * n * (n - 1)


def test_large_graphs_cost_edges_not_pairs():
    graph = data.stochastic_block_model([50_000, 50_000], [[1e-4, 1e-5], [1e-5, 1e-4]], 0)
    expected = 2 * 50_000 * 49_999 / 2 * 1e-4 + 50_000**2 * 1e-5
    within(graph.num_edges / 2, expected, math.sqrt(expected))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("exponent", [2.2, 3.0, math.inf])
def test_degree_corrected_rates(seed, exponent):
    sizes = [300, 500]
    graph = data.degree_corrected_sbm(sizes, 10, 0.2, exponent, seed)
    theta, y = graph.propensity.numpy(), graph.y.numpy()
    np.testing.assert_allclose(np.bincount(y, theta), sizes)
    shape = np.outer(theta, theta) * np.where(y[:, None] == y, 1.0, 0.2)
    np.fill_diagonal(shape, 0)
    rate = 10 * 800 / shape.sum()
    chance = 1 - np.exp(-rate * shape)
    variance = chance * (1 - chance)
    counts = block_edges(graph, y, 2)
    for a, b in [(0, 0), (0, 1), (1, 1)]:
        block = np.triu(np.ones((800, 800)), 1) * ((y[:, None] == a) & (y == b))
        within(counts[a, b], (chance * block).sum(), math.sqrt((variance * block).sum()))
    degrees = np.bincount(graph.edge_index[0].numpy(), minlength=800)
    assert (np.abs(degrees - chance.sum(1)) <= 6 * np.sqrt(variance.sum(1)) + 1).all()


def test_power_law_of_propensities():
    theta = data.degree_corrected_sbm([100_000], 3, 1.0, 3.0, 0).propensity.numpy()
    theta = theta / theta.min()
    for x in (2.0, 5.0):
        tail = (x**-2 - 1e-5) / (1 - 1e-5)
        within((theta > x).mean(), tail, math.sqrt(tail / 1e5))


def test_hierarchy():
    graph = data.hierarchical_sbm(3, 4, 40, (0.4, 0.1, 0.02), 1)
    micro, macro = graph.micro.numpy(), graph.macro.numpy()
    assert graph.num_nodes == 480
    assert (macro == micro // 4).all()
    A = dense(graph)
    same_micro, same_macro = micro[:, None] == micro, macro[:, None] == macro
    upper = np.triu(np.ones_like(A, dtype=bool), 1)
    for mask, p in [(same_micro, 0.4), (same_macro & ~same_micro, 0.1), (~same_macro, 0.02)]:
        pairs = (mask & upper).sum()
        within(A[mask & upper].sum(), pairs * p, math.sqrt(pairs * p * (1 - p)))


@pytest.mark.parametrize("mixing", [0.1, 1.0, 5.0])
def test_contextual_features_and_degrees(mixing):
    graph = data.contextual_sbm([400, 600], 8, mixing, 12, 2.0, 0)
    edges = graph.num_edges / 2
    within(edges, 4000, math.sqrt(4000))
    counts = block_edges(graph, graph.y.numpy(), 2)
    pairs_in, pairs_out = 400 * 399 / 2 + 600 * 599 / 2, 400 * 600
    p_in = 4000 / (pairs_in + mixing * pairs_out)
    within(counts[0, 1], mixing * p_in * pairs_out, math.sqrt(mixing * p_in * pairs_out))
    means = graph.means.double()
    torch.testing.assert_close(means @ means.T, 4.0 * torch.eye(2, dtype=torch.float64), atol=1e-5, rtol=0)
    for block, size in enumerate((400, 600)):
        x = graph.x[graph.y == block].double()
        assert (x.mean(0) - means[block]).abs().max() < 5 / math.sqrt(size)
        assert (x.std(0) - 1).abs().max() < 5 / math.sqrt(2 * size)


def test_houses_at_defaults():
    graph = data.rings_of_houses(noise=0)
    assert graph.num_nodes == 210
    assert graph.num_edges == 2 * (5 * 66 + 5)
    assert torch.bincount(graph.community).tolist() == [42] * 5
    roles = dict(zip(data.HOUSE_ROLES, torch.bincount(graph.role).tolist()))
    assert roles == {"ring": 30, "ring anchor": 30, "wall": 60, "floor": 30, "anchored floor": 30, "roof": 30}
    one = nx.from_numpy_array(dense(graph)[:42, :42])
    role = graph.role.tolist()
    for k in range(6):
        a, b, c, d, e = range(12 + 5 * k, 17 + 5 * k)
        assert [role[v] for v in (a, b, c, d, e)] == [2, 2, 4, 3, 5]
        assert set(one.subgraph([a, b, c, d, e]).edges) == {(a, b), (b, c), (c, d), (a, d), (a, e), (b, e)}
        assert set(one[c]) == {b, d, 2 * k}
        assert role[2 * k] == 1
    ring = one.subgraph(range(12))
    assert nx.is_isomorphic(ring, nx.circulant_graph(12, [1, 2]))
    between = graph.community[graph.edge_index[0]] != graph.community[graph.edge_index[1]]
    assert between.sum() == 10
    assert (graph.role[graph.edge_index[0, between]] == 0).all()


@pytest.mark.parametrize(("communities", "houses"), [(5, 6), (2, 3), (3, 5), (1, 4)])
def test_rotation_by_a_community_is_an_automorphism(communities, houses):
    graph = data.rings_of_houses(communities, houses, noise=0)
    n = graph.num_nodes
    turned = (np.arange(n) + n // communities) % n
    A = dense(graph)
    assert (A[np.ix_(turned, turned)] == A).all()
    assert nx.is_connected(nx.from_numpy_array(A))
    assert_simple(graph)


def test_noise_edges_of_houses():
    clean = dense(data.rings_of_houses(noise=0))
    for seed in range(3):
        graph = data.rings_of_houses(noise=0.1, bridges_noise=0.2, seed=seed)
        added = np.triu(dense(graph) - clean)
        assert added.min() == 0
        community = graph.community.numpy()
        inside = community[:, None] == community
        assert [added[np.ix_(community == c, community == c)].sum() for c in range(5)] == [7] * 5
        assert added[~inside].sum() == round(0.2 * 335)


def test_sparse_regression():
    x, y, w = data.sparse_regression(20_000, 12, 4, noise=0.5, correlation=0.6, magnitude=2.0, seed=0)
    assert (w != 0).sum() == 4
    assert set(w.abs().tolist()) == {0.0, 2.0}
    covariance = (x.T @ x / len(x)).numpy()
    wanted = 0.6 ** np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    assert np.abs(covariance - wanted).max() < 5 * math.sqrt(2 / 20_000)
    residual = y - x @ w
    within(residual.std().item(), 0.5, 0.5 / math.sqrt(40_000))
    assert (torch.linalg.lstsq(x, y[:, None]).solution[:, 0] - w).abs().max() < 0.05


def test_spirals_lie_on_their_arms():
    x, y = data.spirals(300, 3, turns=1.25, noise=0.0)
    radius = x.norm(dim=1)
    assert radius.max() <= 1
    angle = torch.atan2(x[:, 1], x[:, 0]) - 2 * math.pi * (1.25 * radius + y / 3)
    assert (torch.sin(angle / 2).abs() < 1e-4).all()
    assert torch.bincount(y).tolist() == [100] * 3
    noisy, _ = data.spirals(20_000, 2, noise=0.1)
    clean, _ = data.spirals(20_000, 2, noise=0.0)
    within((noisy - clean).std().item(), 0.1, 0.1 / math.sqrt(80_000))


def test_gaussian_mixture_moments():
    means = [[0.0, 5.0, 1.0], [3.0, -1.0, 0.0]]
    x, y, m = data.gaussian_mixture(20_000, weights=[1, 3], means=means, scale=0.5, seed=2)
    assert m.tolist() == means
    within((y == 1).float().mean().item(), 0.75, math.sqrt(0.75 * 0.25 / 20_000))
    for k in range(2):
        part = x[y == k]
        assert (part.mean(0) - m[k]).abs().max() < 5 * 0.5 / math.sqrt(len(part))
        assert (part.std(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(2 * len(part))


def test_separation_of_random_means():
    m = data.gaussian_mixture(1, 500, 10, separation=3.0).means.double()
    squares = torch.pdist(m).square().mean().item()
    assert squares == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: data.stochastic_block_model([], []),
        lambda: data.stochastic_block_model([3, 0], np.eye(2)),
        lambda: data.stochastic_block_model([3.5], [[0.5]]),
        lambda: data.stochastic_block_model([3, 3], np.eye(3)),
        lambda: data.stochastic_block_model([3, 3], [[0.1, 0.2], [0.3, 0.1]]),
        lambda: data.stochastic_block_model([3], [[1.5]]),
        lambda: data.stochastic_block_model([3], [[math.nan]]),
        lambda: data.degree_corrected_sbm([10], 0, 0.1),
        lambda: data.degree_corrected_sbm([10], math.inf, 0.1),
        lambda: data.degree_corrected_sbm([10], 2, -0.1),
        lambda: data.degree_corrected_sbm([10], 2, 0.1, 1.0),
        lambda: data.degree_corrected_sbm([1, 1], 2, 0.0),
        lambda: data.hierarchical_sbm(0, 2, 3),
        lambda: data.hierarchical_sbm(2, 2, 3, (0.1, 0.2)),
        lambda: data.hierarchical_sbm(2, 2, 3, (0.1, 0.2, 1.2)),
        lambda: data.contextual_sbm([5, 5], 20, 0.1, 4, 1.0),
        lambda: data.contextual_sbm([5, 5], 2, 0.1, 0, 1.0),
        lambda: data.contextual_sbm([5, 5], 2, 0.1, 4, math.nan),
        lambda: data.rings_of_houses(0),
        lambda: data.rings_of_houses(5, 2),
        lambda: data.rings_of_houses(noise=-0.1),
        lambda: data.rings_of_houses(noise=100.0),
        lambda: data.rings_of_houses(bridges_noise=1000.0),
        lambda: data.rings_of_houses(1, bridges_noise=0.5),
        lambda: data.sparse_regression(10, 5, 6),
        lambda: data.sparse_regression(10, 5, 2, correlation=1.0),
        lambda: data.sparse_regression(10, 5, 2, noise=-1),
        lambda: data.spirals(0),
        lambda: data.spirals(10, turns=0),
        lambda: data.gaussian_mixture(10, means=[1.0, 2.0]),
        lambda: data.gaussian_mixture(10, 3, weights=[1, 1]),
        lambda: data.gaussian_mixture(10, 2, weights=[1, -1]),
        lambda: data.gaussian_mixture(10, 2, scale=0),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()
