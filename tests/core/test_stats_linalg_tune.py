"""Statistics against SciPy and closed forms; matrix-free algebra against dense; the search keeps its budget."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from scipy.sparse.linalg import aslinearoperator

from netatlas.core import checks, linalg, stats, tune

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


@settings(deadline=None, max_examples=25)
@given(VALUES)
def test_intervals_are_students(values):
    found = stats.mean_interval(values)
    error = reference.sem(values)
    assert stats.stderr(torch.tensor(values, dtype=torch.float64)) == pytest.approx(error, abs=1e-9)
    if error > 1e-9:
        low, high = reference.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
    assert found.n == len(values)


def test_intervals_cover_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(3, 2, (4000, 5))
    inside = [abs(i.mean - 3) <= i.half_width for i in map(stats.mean_interval, draws)]
    assert abs(np.mean(inside) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_paired_is_scipys_paired_test():
    a, b = np.random.default_rng(1).normal(size=(2, 9))
    found = stats.paired(a, b)
    assert found.p_value == pytest.approx(reference.ttest_rel(a, b).pvalue)
    assert found.mean == pytest.approx((a - b).mean())
    assert stats.paired([1, 2], [1, 2]).p_value == 1.0 and stats.paired([2, 3], [1, 2]).p_value == 0.0


def test_crossings_slopes_and_ranks():
    x = [0.0, 1.0, 2.0, 3.0]
    assert stats.crossing(x, x, [1.5] * 4) == pytest.approx(1.5)
    assert np.isnan(stats.crossing(x, [0] * 4, [1] * 4)) and stats.crossing(x, x, [0] * 4) == 0.0
    grid = np.logspace(0, 3, 9)
    slope = stats.loglog_slope(grid, 5 * grid**-0.5)
    assert slope.slope == pytest.approx(-0.5) and np.exp(slope.intercept) == pytest.approx(5)
    assert stats.spearman([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.mean_interval([]),
        lambda: stats.mean_interval([1, float("nan")]),
        lambda: stats.mean_interval(np.zeros((2, 2))),
        lambda: stats.mean_interval([1, 2], level=1.0),
        lambda: stats.paired([1, 2], [1]),
        lambda: stats.crossing([1, 0], [1, 2], [2, 1]),
        lambda: stats.loglog_slope([1, 2], [0, 1]),
        lambda: stats.loglog_slope([1, 1], [1, 2]),
        lambda: stats.spearman([1, 2], [1, 2]),
    ],
)
def test_bad_statistics_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()


@settings(deadline=None, max_examples=20)
@given(st.integers(3, 90), st.integers(3, 90), st.integers(1, 3), st.integers(0, 99))
def test_truncated_svd_is_the_best_approximation_with_fixed_signs(rows, columns, rank, seed):
    matrix = np.random.default_rng(seed).normal(size=(rows, columns))
    exact = np.linalg.svd(matrix, compute_uv=False)
    for form in (matrix, sp.csr_array(matrix), aslinearoperator(matrix)):
        u, s, vt = linalg.truncated_svd(form, rank, seed=seed)
        np.testing.assert_allclose(s, exact[:rank], rtol=1e-6)
        residual = np.linalg.norm(matrix - (u * s) @ vt)
        assert residual == pytest.approx(np.sqrt((exact[rank:] ** 2).sum()), abs=1e-6)
        assert (u[np.abs(u).argmax(0), np.arange(rank)] > 0).all()


def test_truncated_svd_refuses_bad_ranks_and_values():
    for bad in (0, 4):
        with pytest.raises(ValueError, match="rank"):
            linalg.truncated_svd(np.eye(3), bad)
    with pytest.raises(ValueError, match="finite"):
        linalg.truncated_svd(np.full((3, 3), np.nan), 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 30), st.integers(0, 99))
def test_full_lanczos_finds_every_eigenvalue(n, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(n, n, dtype=torch.float64, generator=generator)
    matrix = matrix + matrix.T
    found = linalg.lanczos(lambda v: matrix @ v, torch.randn(n, dtype=torch.float64, generator=generator), n)
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(matrix), atol=1e-6, rtol=1e-6)
    gram = found.vectors.T @ found.vectors
    torch.testing.assert_close(gram, torch.eye(len(found.values), dtype=torch.float64), atol=1e-9, rtol=0)


def test_lanczos_stops_in_an_invariant_subspace():
    found = linalg.lanczos(lambda v: 3 * v, torch.ones(5, dtype=torch.float64), 5)
    assert len(found.values) == 1 and found.values[0] == pytest.approx(3)
    for bad in (torch.zeros(3), torch.full((3,), float("nan")), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="expected"):
            linalg.lanczos(lambda v: v, bad, 2)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(0, 9))
def test_a_search_keeps_its_budget_and_finds_the_best_it_tried(budget, seed):
    tried = []

    def evaluate(setting):
        tried.append(setting)
        return -((setting["a"] - 2) ** 2) - setting["b"]

    found = tune.grid_search(evaluate, {"a": range(5), "b": [0, 1, 2]}, budget=budget, seed=seed)
    assert len(tried) == min(budget, 15) and len({tuple(t.items()) for t in tried}) == len(tried)
    assert found.score == max(score for _, score in found.trials) and found.best in tried
    if budget >= 15:
        assert found.best == {"a": 2, "b": 0}
    assert tune.grid_search(lambda s: s["a"], [{"a": 3}, {"a": 1}], maximize=False).best == {"a": 1}


def test_bad_searches_are_refused():
    for call in (
        lambda: tune.grid_search(lambda s: 0, []),
        lambda: tune.grid_search(lambda s: 0, {"a": [1]}, budget=0),
        lambda: tune.grid_search(lambda s: float("nan"), {"a": [1]}),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_checks_say_what_was_expected_and_what_came():
    with pytest.raises(ValueError, match="expected a cat, got dog"):
        checks.require(False, "a cat", "dog")
    checks.require_finite("x", torch.empty(2, device="meta"))
    checks.require_finite("x", np.array([1, 2]))
    with pytest.raises(ValueError, match="1 entries"):
        checks.require_finite("x", np.array([1, np.inf]))
    with pytest.raises(ValueError, match="one device"):
        checks.require_same_device([("a", torch.ones(1)), ("b", torch.ones(1, device="meta"))])
