import math

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.conformal import conformal_quantile
from netatlas.graph_trust import naps


def random_graph(n=30, p=0.08, seed=0):
    return nx.gnp_random_graph(n, p, seed=seed)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 25), st.floats(0.0, 0.3), st.integers(1, 4), st.integers(0, 1000))
def test_distances_against_networkx(n, p, hops, seed):
    graph = random_graph(n, p, seed)
    found = naps.hop_distances(graph, hops).toarray()
    lengths = dict(nx.all_pairs_shortest_path_length(graph, cutoff=hops))
    expected = np.array([[lengths[i].get(j, 0) for j in range(n)] for i in range(n)])
    assert np.array_equal(found, expected)


def test_loops_multi_edges_and_directions_do_not_matter():
    edges = torch.tensor([[0, 0, 0, 1], [1, 1, 0, 2]])
    found = naps.hop_distances(edges, 2).toarray()
    assert np.array_equal(found, [[0, 1, 2], [1, 0, 1], [2, 1, 0]])
    assert naps.hop_distances(sp.csr_array((3, 3)), 2).nnz == 0


def test_weights_by_distance():
    distances = naps.hop_distances(nx.path_graph(5), 3)
    for decay, rho in {"uniform": [1, 1, 1], "linear": [1, 1 / 2, 1 / 3], "geometric": [1, 0.5, 0.25]}.items():
        assert naps.khop_calibration_weights(distances, decay).toarray()[0, 1:4] == pytest.approx(rho)
    assert naps.khop_calibration_weights(distances).toarray()[0, 4] == 0


def test_all_nodes_near_give_the_plain_quantile():
    n = 40
    scores = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = naps.khop_calibration_weights(naps.hop_distances(nx.complete_graph(n), 1))
    calibration = torch.arange(n) < 25
    found = naps.neighbourhood_quantiles(scores, weights, calibration)
    assert torch.equal(found[25:], conformal_quantile(scores[:25]).expand(15))


def test_quantiles_against_a_loop_and_too_few_neighbours():
    graph = random_graph(60, 0.1)
    scores = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    calibration = torch.rand(60, generator=torch.Generator().manual_seed(2)) < 0.6
    distances = naps.hop_distances(graph, 2)
    for decay in ("uniform", "linear", "geometric"):
        weights = naps.khop_calibration_weights(distances, decay)
        found = naps.neighbourhood_quantiles(scores, weights, calibration, 0.2)
        for v in range(60):
            row = weights.toarray()[v] * calibration.numpy()
            order = np.argsort(scores.numpy())
            reach = np.cumsum(row[order]) >= 0.8 * (row.sum() + 1) - 1e-9
            expected = scores[order[reach.argmax()]] if reach.any() and row.sum() >= 4 - 1e-9 else math.inf
            assert float(found[v]) == pytest.approx(float(expected))


def test_coverage_of_small_neighbourhoods_is_the_closed_form():
    # Independent scores on a ring of cliques: every node has the same number of calibration neighbours.
    draws, m = 400, 10
    graph = sp.block_diag([np.ones((m + 1, m + 1)) - np.eye(m + 1)] * draws).tocsr()
    n = graph.shape[0]
    scores = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calibration = torch.arange(n) % (m + 1) > 0
    weights = naps.khop_calibration_weights(naps.hop_distances(graph, 1))
    q = naps.neighbourhood_quantiles(scores, weights, calibration)
    covered = (scores <= q)[~calibration].double().mean()
    assert abs(float(covered) - 10 / 11) < 3.5 * (10 / 121 / draws) ** 0.5


def test_random_neighbourhoods_keep_sizes_and_lose_place():
    weights = naps.khop_calibration_weights(naps.hop_distances(random_graph(50, 0.1), 2), "linear")
    drawn = naps.random_neighbourhoods(weights, np.arange(50), 0)
    assert np.array_equal(drawn.indptr, weights.indptr)
    assert drawn.sum(1) == pytest.approx(weights.sum(1))
    assert all(len(set(r)) == len(r) for r in np.split(drawn.indices, drawn.indptr[1:-1]))
    assert not np.array_equal(drawn.indices, weights.indices)


def test_balls_are_disjoint_and_round():
    graph = random_graph(80, 0.03)
    nodes = np.arange(0, 80, 2)
    balls = naps.neighbourhood_balls(graph, nodes, hops=2, count=100)
    assert sorted(np.concatenate(balls)) == list(nodes)
    coverage = torch.full((80,), 0.9, dtype=torch.float64)
    coverage[balls[0]] = 0.7
    assert naps.neighbourhood_coverage_violation(coverage, balls) == pytest.approx(0.2)


W = sp.csr_array(np.ones((3, 3)) - np.eye(3))
BAD = {
    "no hop": lambda: naps.hop_distances(nx.path_graph(3), 0),
    "empty graph": lambda: naps.hop_distances(nx.Graph(), 1),
    "index out of range": lambda: naps.hop_distances(sp.csr_array((2, 3)), 1),
    "decay": lambda: naps.khop_calibration_weights(W, "other"),
    "dense": lambda: naps.khop_calibration_weights(np.ones((2, 2))),
    "distance": lambda: naps.khop_calibration_weights(W * 0.5),
    "few candidates": lambda: naps.random_neighbourhoods(W, np.arange(1), 0),
    "own neighbourhood": lambda: naps.neighbourhood_quantiles(
        torch.rand(3), sp.csr_array(np.eye(3)), torch.ones(3) > 0
    ),
    "shape": lambda: naps.neighbourhood_quantiles(torch.rand(4), W, torch.ones(4) > 0),
    "mask": lambda: naps.neighbourhood_quantiles(torch.rand(3), W, torch.ones(4) > 0),
    "no node": lambda: naps.neighbourhood_balls(nx.path_graph(3), np.zeros(0, int)),
    "no ball": lambda: naps.neighbourhood_coverage_violation(torch.rand(3), []),
    "untested": lambda: naps.neighbourhood_coverage_violation(torch.full((3,), math.nan), [np.arange(3)]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()
