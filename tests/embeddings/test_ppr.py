"""Personalised PageRank: three algorithms, one answer; rounds against brute force and closed forms."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from netatlas.embeddings import (
    big_moves,
    draw_weighted,
    endpoint_frequencies,
    expected_l1,
    expected_l2,
    expected_rounds,
    ppr_exact,
    ppr_power,
    run_workers,
    schedule,
    walk_endpoints,
    walk_lengths,
    weighted_powerlaw_graph,
)


@pytest.fixture(scope="module")
def graph():
    return weighted_powerlaw_graph(120, 500, seed=0)


@pytest.fixture(scope="module")
def exact(graph):
    return ppr_exact(graph, alpha=0.2)


def test_exact_is_networkx_pagerank_without_dead_ends():
    graph = nx.gnp_random_graph(30, 0.3, seed=0, directed=True)
    for u, v in graph.edges:
        graph[u][v]["weight"] = 1 + (u * v) % 5
    assert min(d for _, d in graph.out_degree) > 0
    reference = nx.pagerank(graph, alpha=0.7, personalization={4: 1}, tol=1e-14, max_iter=1000)
    np.testing.assert_allclose(
        ppr_exact(graph, alpha=0.3, sources=np.array([4]))[0], list(reference.values()), atol=1e-10
    )


def test_exact_sums_the_series(graph, exact):
    np.testing.assert_allclose(exact.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(ppr_power(graph, tolerance=1e-13), exact, atol=1e-12)
    assert (np.diag(exact) >= 0.2 - 1e-12).all() and (np.diff(graph.indptr) == 0).any()
    dead = np.flatnonzero(np.diff(graph.indptr) == 0)
    np.testing.assert_allclose(exact[dead], np.eye(120)[dead], atol=1e-12)


def test_power_iteration_keeps_its_tolerance(graph, exact):
    assert np.abs(ppr_power(graph, tolerance=0.01) - exact).sum(axis=1).max() < 0.01


def test_walks_have_the_predicted_error(graph, exact):
    found = endpoint_frequencies(walk_endpoints(graph, walks=400, seed=1), 120)
    assert np.sqrt(((found - exact) ** 2).sum(axis=1).mean()) / expected_l2(exact, 400) == pytest.approx(1, abs=0.12)
    assert np.abs(found - exact).sum(axis=1).mean() / expected_l1(exact, 400) == pytest.approx(1, abs=0.05)
    source = 3
    ends = np.bincount(walk_endpoints(graph, walks=50000, sources=np.array([source]))[0], minlength=120)
    often = exact[source] * 50000 > 10
    observed, expected = np.append(ends[often], ends[~often].sum()), exact[source][often] * 50000
    assert chisquare(observed, np.append(expected, 50000 - expected.sum())).pvalue > 1e-4


def test_expected_l1_is_the_binomial_sum():
    exact = np.array([[0.5, 0.3, 0.2, 0.0]])
    x = np.arange(8)
    brute = sum((np.abs(x / 7 - p) * binom.pmf(x, 7, p)).sum() for p in exact[0])
    assert expected_l1(exact, 7) == pytest.approx(brute)


def test_a_source_has_its_own_stream(graph):
    every = walk_endpoints(graph, walks=5, seed=2)
    assert (walk_endpoints(graph, walks=5, seed=2, sources=np.arange(7)) == every[:7]).all()


@given(st.integers(1, 6), st.integers(0, 50))
@settings(deadline=None, max_examples=20)
def test_big_moves_divide_the_rounds(eta, seed):
    ring = np.roll(np.eye(9), 1, axis=1)
    lengths = walk_lengths(40, alpha=0.2, seed=seed)
    starts = np.arange(40) % 9
    found = big_moves(ring, starts=starts, lengths=lengths, eta=eta, pool=2, seed=seed)
    assert found.jumps.max() == -(-lengths.max() // eta)
    assert (found.endpoints == (starts + lengths) % 9).all() and found.from_large == 0


def test_big_moves_leave_the_distribution_alone(graph, exact):
    starts = np.repeat(np.arange(120), 300)
    lengths = walk_lengths(len(starts), alpha=0.2, seed=3)
    large = np.diff(graph.indptr) >= 8
    found = big_moves(graph, starts=starts, lengths=lengths, eta=3, pool=2000, large=large, seed=3)
    error = endpoint_frequencies(found.endpoints.reshape(120, 300), 120) - exact
    assert np.sqrt((error**2).sum(axis=1).mean()) / expected_l2(exact, 300) == pytest.approx(1, abs=0.12)
    assert 0 < found.from_large < 1
    assert (big_moves(graph, starts=starts, lengths=lengths, eta=3, pool=1, large=large | True).from_large) == 1


def brute_force_rounds(durations, cap, policy, chunk):
    waiting, live, rounds, peak = list(durations), [], 0, 0
    while waiting or live:
        room = cap - len(live)
        if policy == "sequential" and live:
            room = 0
        count = min(room, len(waiting))
        if policy == "pipelined":
            want = min(chunk, len(waiting))
            count = want if want <= room else 0
        live += waiting[:count]
        waiting = waiting[count:]
        peak = max(peak, len(live))
        live = [d - 1 for d in live if d > 1]
        rounds += 1
    return rounds, peak


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.integers(1, 12),
    st.sampled_from(["sequential", "pipelined", "filled"]),
    st.integers(1, 12),
)
@settings(deadline=None, max_examples=25)
def test_schedule_against_brute_force(durations, cap, policy, chunk):
    chunk = min(chunk, cap)
    found = schedule(np.array(durations), cap=cap, policy=policy, chunk=chunk)
    assert (found.rounds, found.live.max()) == brute_force_rounds(durations, cap, policy, chunk)
    assert found.live.sum() == sum(durations) and found.live.max() <= cap


@pytest.mark.parametrize("policy", ["sequential", "filled"])
def test_rounds_near_their_closed_form(policy):
    durations = walk_lengths(40000, alpha=0.2, seed=0) + 1
    rounds = schedule(durations, cap=2000, policy=policy).rounds
    assert rounds == pytest.approx(expected_rounds(40000, cap=2000, alpha=0.2, policy=policy), rel=0.15)


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_agree_with_the_solve(graph, exact, pipelined, workers):
    run = run_workers(graph, walks=200, cap=3000, pipelined=pipelined, workers=workers, seed=1)
    np.testing.assert_allclose(run.frequencies.sum(axis=1), 1)
    error = np.sqrt(((run.frequencies - exact) ** 2).sum(axis=1).mean()) / expected_l2(exact, 200)
    assert error == pytest.approx(1, abs=0.15) and run.peak <= 3000
    again = run_workers(graph, walks=200, cap=3000, pipelined=pipelined, workers=workers, seed=1)
    assert (again.frequencies == run.frequencies).all() and again.rounds == run.rounds


@pytest.mark.parametrize("method", ["alias", "binary", "linear"])
def test_draws_follow_the_weights(method):
    weights = np.array([1.0, 0.0, 3.0, 6.0])
    drawn, seconds = draw_weighted(weights, 20000, method=method, repeats=2, seed=1)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 20000, weights / 10, atol=0.02)
    assert seconds.shape == (2,)


def test_powerlaw_graph_has_what_was_asked_for():
    graph = weighted_powerlaw_graph(400, 3000, seed=1)
    assert graph.nnz == 3000 and graph.diagonal().sum() == 0 and graph.data.min() > 0
    degree = np.diff(graph.indptr)
    assert degree.max() > 10 * degree.mean() and (degree == 0).any()
    whole = weighted_powerlaw_graph(400, 3000, sinks=False, seed=1)
    assert whole.nnz == 3000 and np.diff(whole.indptr).min() == 1


def test_refusals(graph):
    ones = np.ones(3, int)
    for bad in (
        lambda: ppr_exact(graph, alpha=0),
        lambda: ppr_exact(graph, sources=np.array([120])),
        lambda: ppr_power(graph, tolerance=0),
        lambda: walk_endpoints(graph, walks=0),
        lambda: walk_endpoints(graph, walks=1, alpha=1.0),
        lambda: endpoint_frequencies(np.array([[5]]), 5),
        lambda: endpoint_frequencies(np.array([5]), 9),
        lambda: walk_lengths(0),
        lambda: big_moves(graph, starts=ones, lengths=ones[:2], eta=1, pool=1),
        lambda: big_moves(graph, starts=ones, lengths=ones, eta=0, pool=1),
        lambda: big_moves(graph, starts=ones, lengths=ones, eta=1, pool=1, large=np.zeros(3)),
        lambda: schedule(np.array([0]), cap=1),
        lambda: schedule(ones, cap=0),
        lambda: schedule(ones, cap=1, policy="lifo"),
        lambda: schedule(ones, cap=1, policy="pipelined"),
        lambda: expected_rounds(9, cap=3, alpha=0.2, policy="pipelined"),
        lambda: run_workers(graph, walks=0, cap=9, pipelined=True),
        lambda: run_workers(graph, walks=1, cap=1, pipelined=True),
        lambda: draw_weighted(np.ones(3), 0),
        lambda: draw_weighted(np.ones(3), 1, method="guess"),
        lambda: weighted_powerlaw_graph(exponent=2),
        lambda: weighted_powerlaw_graph(4, 9),
        lambda: weighted_powerlaw_graph(50, 9, sinks=False),
    ):
        with pytest.raises(ValueError):
            bad()
