"""Effective resistance against networkx, closed forms, arbitrary precision, and its own identities."""

import mpmath
import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import laplacian
from netatlas.core.resistance import (
    access_times,
    add_edge,
    biharmonic_squared,
    commute_times,
    effective_resistance,
    laplacian_pinv,
    resistance_matrix,
    resistance_sketch,
    solve_laplacian,
    total_resistance,
)


def connected(seed, n=14):
    graph = nx.connected_watts_strogatz_graph(n, 4, 0.4, seed=seed)
    rng = np.random.default_rng(seed)
    for _, _, edge in graph.edges(data=True):
        edge["weight"] = float(rng.uniform(0.2, 3))
    return graph


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_against_networkx_and_numpy(seed):
    graph = connected(seed)
    np.testing.assert_allclose(laplacian_pinv(graph), np.linalg.pinv(laplacian(graph).toarray()), atol=1e-11)
    found = effective_resistance(graph)
    theirs = nx.resistance_distance(graph, weight="weight", invert_weight=False)
    expected = np.array([[theirs[u][v] for v in graph] for u in graph])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    pairs = np.array([[0, 5], [3, 3], [2, 13]])
    for method in ("cholesky", "cg"):
        np.testing.assert_allclose(effective_resistance(graph, pairs, method=method), found[tuple(pairs.T)], rtol=1e-9)


def test_closed_forms():
    n = 11
    path = effective_resistance(nx.path_graph(n))
    np.testing.assert_allclose(path, np.abs(np.subtract.outer(np.arange(n), np.arange(n))), rtol=1e-12)
    ring = effective_resistance(nx.cycle_graph(n))[0]
    np.testing.assert_allclose(ring, np.arange(n) * (n - np.arange(n)) / n, rtol=1e-12, atol=1e-15)
    full = effective_resistance(nx.complete_graph(n))
    np.testing.assert_allclose(full[~np.eye(n, dtype=bool)], 2 / n, rtol=1e-12)
    assert abs(total_resistance(nx.complete_graph(n)) - (n - 1)) < 1e-11


def test_arbitrary_precision():
    graph = connected(1, n=8)
    exact = mpmath.matrix(laplacian(graph).toarray().tolist())
    with mpmath.workdps(40):
        inverse = (exact + mpmath.ones(8) / 8) ** -1
        expected = [[inverse[u, u] + inverse[v, v] - 2 * inverse[u, v] for v in range(8)] for u in range(8)]
    np.testing.assert_allclose(effective_resistance(graph), np.array(expected, dtype=float), rtol=1e-12, atol=1e-15)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_identities(seed):
    graph = connected(seed)
    matrix, found = as_csr(graph), effective_resistance(graph)
    n = len(found)
    # Foster: over all edges, weight times resistance adds to n - 1.
    assert abs((matrix.toarray() * found).sum() / 2 - (n - 1)) < 1e-9
    assert abs(total_resistance(graph) - found.sum() / 2) < 1e-8
    assert (found[:, :, None] + found[None] - found[:, None] > -1e-10).all(), "a metric"
    unit = (matrix > 0).astype(float)
    h = access_times(unit)
    np.testing.assert_allclose(h + h.T, commute_times(unit), rtol=1e-9)


def test_access_times_are_hitting_times():
    graph = nx.barbell_graph(4, 2)
    step = as_csr(graph).toarray()
    step /= step.sum(1, keepdims=True)
    found = access_times(graph)
    for goal in range(len(step)):
        others = np.delete(np.arange(len(step)), goal)
        expected = np.linalg.solve(np.eye(len(others)) - step[np.ix_(others, others)], np.ones(len(others)))
        np.testing.assert_allclose(found[others, goal], expected, rtol=1e-10)


def test_rank_one_updates():
    graph = connected(4)
    pinv = laplacian_pinv(graph)
    before, squared, r = np.trace(pinv), biharmonic_squared(pinv), resistance_matrix(pinv)
    u, v = next(iter(nx.non_edges(graph)))
    after = add_edge(pinv, u, v)
    graph.add_edge(u, v, weight=1.0)
    np.testing.assert_allclose(after, laplacian_pinv(graph), atol=1e-11)
    assert abs(before - np.trace(after) - squared[u, v] / (1 + r[u, v])) < 1e-11
    np.testing.assert_allclose(add_edge(after, u, v, -1.0), pinv, atol=1e-11)
    with pytest.raises(ValueError, match="connected"):
        add_edge(laplacian_pinv(nx.path_graph(3)), 0, 1, -1.0)
    with pytest.raises(ValueError, match="two nodes"):
        add_edge(pinv, 2, 2)


def test_disconnected_graphs():
    graph = nx.disjoint_union(nx.path_graph(3), nx.cycle_graph(4))
    graph.add_node(7)
    found = effective_resistance(graph)
    assert np.isinf(found[0, 4]) and np.isinf(found[7, 0]) and found[7, 7] == 0 and abs(found[0, 2] - 2) < 1e-12
    pairs = np.array([[0, 2], [0, 4], [3, 5], [7, 7]])
    expected = [2, np.inf, 1, 0]
    np.testing.assert_allclose(effective_resistance(graph, pairs, method="cg"), expected, rtol=1e-9)
    np.testing.assert_allclose(effective_resistance(graph, pairs), expected, rtol=1e-12)
    assert total_resistance(graph) == np.inf
    sketch = resistance_sketch(graph, 2000)
    np.testing.assert_allclose(sketch(pairs), expected, rtol=0.15)
    assert commute_times(graph)[0, 2] == pytest.approx(8) and np.isinf(commute_times(graph)[0, 3])
    with pytest.raises(ValueError, match="connected"):
        access_times(graph)


def test_sketch_error_is_that_of_its_theory():
    graph = nx.random_regular_graph(4, 60, seed=0)
    exact = effective_resistance(graph)
    pairs = np.stack(np.triu_indices(60, 1), 1)
    k = 400
    ratio = resistance_sketch(graph, k, seed=1)(pairs) / exact[tuple(pairs.T)]
    assert ratio.std() < 1.3 * np.sqrt(2 / k) and abs(ratio.mean() - 1) < 0.02


def test_weights_are_conductances_and_scale():
    graph = connected(2)
    matrix = as_csr(graph)
    for factor in (1e-6, 1e6):
        np.testing.assert_allclose(
            effective_resistance(matrix * factor) * factor, effective_resistance(matrix), rtol=1e-10
        )
    doubled = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])
    assert effective_resistance(doubled)[0, 1] == pytest.approx(0.5)


def test_solver():
    graph = connected(3)
    rhs = np.random.default_rng(0).normal(size=(14, 70))
    expected = laplacian_pinv(graph) @ rhs
    np.testing.assert_allclose(solve_laplacian(graph, rhs), expected, atol=1e-8)
    assert not solve_laplacian(graph, np.ones((14, 1))).any()
    with pytest.raises(ValueError, match="convergence"):
        solve_laplacian(graph, rhs, max_steps=1)
    with pytest.raises(ValueError, match="right-hand sides"):
        solve_laplacian(graph, rhs[:3])
    with pytest.raises(ValueError, match="finite"):
        solve_laplacian(graph, rhs * np.nan)
    with pytest.raises(ValueError, match="tolerance"):
        solve_laplacian(graph, rhs, tolerance=0.0)


def test_single_node():
    alone = as_csr(np.zeros((1, 1)))
    assert effective_resistance(alone).tolist() == [[0.0]] and total_resistance(alone) == 0


def test_refusals():
    graph = nx.path_graph(4)
    with pytest.raises(ValueError, match="undirected"):
        effective_resistance(torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(ValueError, match="at least one node"):
        total_resistance(nx.Graph())
    with pytest.raises(ValueError, match="node indices"):
        effective_resistance(graph, np.array([[0, 9]]))
    with pytest.raises(ValueError, match="shape"):
        effective_resistance(graph, np.array([0, 1]))
    with pytest.raises(ValueError, match="integer"):
        effective_resistance(graph, np.array([[0.0, 1.0]]))
    with pytest.raises(ValueError, match="method"):
        effective_resistance(graph, method="qr")
    with pytest.raises(ValueError, match="pairs"):
        effective_resistance(graph, method="cg")
    with pytest.raises(ValueError, match="dimension"):
        resistance_sketch(graph, 0)
    with pytest.raises(ValueError, match="square"):
        resistance_matrix(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="finite"):
        resistance_matrix(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="self-loops"):
        commute_times(np.eye(2))


PINV = laplacian_pinv(nx.path_graph(4))
PARTS = laplacian_pinv(nx.disjoint_union(nx.path_graph(3), nx.cycle_graph(4)))
SKETCH = resistance_sketch(nx.path_graph(4), 3)
BAD = {
    "no node": lambda: resistance_matrix(np.zeros((0, 0))),
    "a number": lambda: biharmonic_squared(1.0),
    "NaN distances": lambda: biharmonic_squared(np.full((2, 2), np.nan)),
    "a row to update": lambda: add_edge(np.zeros(3), 0, 1),
    "NaN to update": lambda: add_edge(PINV * np.nan, 0, 1),
    "NaN weight": lambda: add_edge(PINV, 0, 1, np.nan),
    "nodes out of range": lambda: add_edge(PINV, 0, 4),
    "a negative node": lambda: add_edge(PINV, -1, 0),
    "an edge between parts": lambda: add_edge(PARTS, 0, 5),
    "pairs of the sketch": lambda: SKETCH(np.array([[0, 4]])),
    "negative pairs of the sketch": lambda: SKETCH(np.array([[0, -1]])),
    "flat pairs of the sketch": lambda: SKETCH(np.array([0, 1])),
    "no tolerance": lambda: resistance_sketch(nx.path_graph(4), 3, tolerance=np.nan),
    "NaN right-hand side": lambda: solve_laplacian(nx.path_graph(2), np.full((2, 1), np.nan)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()


def test_an_edge_within_a_part_updates_that_part_alone():
    graph = nx.disjoint_union(nx.path_graph(3), nx.cycle_graph(4))
    graph.add_edge(0, 2)
    np.testing.assert_allclose(add_edge(PARTS, 0, 2), laplacian_pinv(graph), atol=1e-12)
