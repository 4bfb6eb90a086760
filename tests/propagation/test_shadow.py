"""Pushes against exact PageRank, scopes against networkx, propagation inside scopes against dense matrices."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.propagation import (
    approximate_ppr,
    khop_scopes,
    random_scopes,
    scope_means,
    scope_union,
    scoped_propagation,
)


def graph(seed=0, n=40):
    return nx.gnp_random_graph(n, 0.08, seed=seed)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_push_is_within_its_bound(seed):
    g = graph(seed)
    matrix = as_csr(g)
    alpha, epsilon = 0.2, 1e-3
    step = normalized_adjacency(matrix, "row").toarray()
    stop = np.where(matrix.sum(1) > 0, alpha, 1.0)
    exact = np.linalg.inv(np.eye(40) - (1 - alpha) * step) * stop
    scopes, scores = approximate_ppr(g, np.arange(40), 40, alpha=alpha, epsilon=epsilon)
    degree = matrix.sum(1)
    for t in range(40):
        part = slice(scopes.pointer[t], scopes.pointer[t + 1])
        dense = np.zeros(40)
        dense[scopes.nodes[part]] = scores[part]
        assert (exact[t] - dense > -1e-12).all()
        assert (exact[t] - dense <= epsilon * np.maximum(degree, 1) + 1e-12).all()
        assert scopes.nodes[part][0] == t and (np.diff(scores[part][1:]) <= 1e-15).all()
    few, _ = approximate_ppr(g, np.arange(40), 5, alpha=alpha, epsilon=epsilon)
    assert few.sizes.max() <= 5


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(0, 3))
def test_hops_without_budget_are_balls(seed, hops):
    g = graph(seed)
    scopes = khop_scopes(g, np.arange(40), hops)
    for t in range(40):
        ball = nx.single_source_shortest_path_length(g, t, cutoff=hops)
        part = scopes.nodes[scopes.pointer[t] : scopes.pointer[t + 1]]
        assert sorted(part) == sorted(ball) and part[0] == t


def test_budgets_and_random_scopes():
    g = nx.star_graph(30)
    scopes = khop_scopes(g, np.array([0, 3]), 1, budget=5, seed=1)
    assert 2 <= scopes.sizes[0] <= 6 and scopes.sizes[1] == 2
    again = khop_scopes(g, np.array([3, 0]), 1, budget=5, seed=1)
    assert sorted(again.nodes[2:]) == sorted(scopes.nodes[: scopes.sizes[0]]), "no dependence on the other targets"
    g = nx.connected_watts_strogatz_graph(30, 4, 0.3, seed=0)
    grown = random_scopes(g, np.arange(30), np.full(30, 7), seed=2)
    assert (grown.sizes == 7).all()
    for t in range(30):
        assert nx.is_connected(g.subgraph(grown.nodes[grown.pointer[t] : grown.pointer[t + 1]]))
    assert random_scopes(nx.path_graph(3), np.array([0]), np.array([9])).sizes[0] == 3


def test_union_is_induced():
    g = graph(3)
    scopes = khop_scopes(g, np.array([1, 5, 1]), 2)
    union = scope_union(g, scopes).toarray()
    a = as_csr(g).toarray()
    for low, high in zip(scopes.pointer, scopes.pointer[1:]):
        inside = scopes.nodes[low:high]
        np.testing.assert_array_equal(union[low:high, low:high], a[np.ix_(inside, inside)])
        assert union[low:high].sum() == a[np.ix_(inside, inside)].sum(), "nothing leaves a scope"


def test_propagation_inside_scopes():
    g, rng = graph(4), np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    scopes = khop_scopes(g, np.arange(0, 40, 7), 2)
    found = scoped_propagation(g, scopes, x, [0, 3, 2**12, None])
    np.testing.assert_allclose(found[0][:, :3], x[::7])
    low, high = scopes.pointer[2:4]
    inside = scopes.nodes[low:high]
    a = as_csr(g).toarray()[np.ix_(inside, inside)]
    step = normalized_adjacency(a, "sym", self_loops=True).toarray()
    three = np.linalg.matrix_power(step, 3) @ x[inside]
    np.testing.assert_allclose(found[3][2], np.r_[three[0], three.mean(0)], atol=1e-12)
    np.testing.assert_allclose(found[2**12], found[None], atol=1e-8)
    np.testing.assert_allclose(scope_means(x[scopes.nodes], scopes)[2], x[inside].mean(0))


def test_isolated_target_and_loops():
    alone = as_csr(torch.tensor([[0, 1, 2], [1, 0, 2]]), num_nodes=5)
    scopes, scores = approximate_ppr(alone, np.array([4, 2, 0]), 3)
    assert scopes.sizes.tolist() == [1, 1, 2] and scores[0] == 1
    assert khop_scopes(alone, np.array([4]), 3).nodes.tolist() == [4]


def test_refusals():
    g = graph()
    ok = np.array([0])
    for call in (
        lambda: approximate_ppr(g, np.array([40]), 3),
        lambda: approximate_ppr(g, np.array([]), 3),
        lambda: approximate_ppr(g, np.array([0.5]), 3),
        lambda: approximate_ppr(g, ok, 0),
        lambda: approximate_ppr(g, ok, 3, alpha=1.0),
        lambda: approximate_ppr(g, ok, 3, epsilon=0.0),
        lambda: approximate_ppr(torch.tensor([[0], [1]]), ok, 3),
        lambda: khop_scopes(g, ok, -1),
        lambda: khop_scopes(g, ok, 1, budget=0),
        lambda: random_scopes(g, ok, np.array([0])),
        lambda: scoped_propagation(g, khop_scopes(g, ok, 1), np.zeros((3, 2)), [1]),
        lambda: scoped_propagation(g, khop_scopes(g, ok, 1), np.zeros((40, 2)), [-1]),
        lambda: scope_union(nx.path_graph(2), khop_scopes(g, np.array([39]), 1)),
        lambda: scope_means(np.zeros((2, 2)), khop_scopes(g, np.arange(5), 1)),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
