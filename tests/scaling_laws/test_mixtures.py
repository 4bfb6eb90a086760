"""Mixtures of sources: pinned to POT, finite differences, scikit-learn and exact rules."""

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from netatlas.scaling_laws import (
    fit_performance,
    gaussian_label_distance,
    labelled_cost,
    log_linear_projection,
    mixture_grid,
    mixture_transport,
    project_to_simplex,
    regressors,
    simplex_ascent,
)
from netatlas.scaling_laws import selection_experiment as selection


def problem(seed=0, kept=6, m=15):
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(c, 1, (kept, 2)) for c in (-1, 0, 1)])
    return ot.dist(points, rng.normal(0.3, 1, (m, 2)), metric="euclidean"), np.repeat([0, 1, 2], kept)


def test_the_grid_has_every_mixture_once():
    grid = mixture_grid(3, 10)
    assert grid.shape == (66, 3) and np.allclose(grid.sum(1), 1) and len(np.unique(grid, axis=0)) == 66
    with pytest.raises(ValueError, match="two sources"):
        mixture_grid(1, 3)


@pytest.mark.parametrize("mixture", [[0.2, 0.3, 0.5], [0.0, 0.4, 0.6], [0.0, 0.0, 1.0]])
def test_transport_is_pots(mixture):
    cost, source = problem()
    a = np.array(mixture)[source] / 6
    keep = a > 0
    solved = mixture_transport(cost, source, np.array([mixture, [1 / 3] * 3]), regularization=0.2, tolerance=1e-12)
    plan = ot.sinkhorn(a[keep], np.full(15, 1 / 15), cost[keep], 0.2, stopThr=1e-13, numItermax=20_000)
    assert solved.transport[0] == pytest.approx((plan * cost[keep]).sum(), rel=1e-8)
    entropy = (plan * np.log(plan / (a[keep, None] / 15))).sum()
    assert solved.cost[0] == pytest.approx((plan * cost[keep]).sum() + 0.2 * entropy, rel=1e-8)


def test_little_regularization_comes_near_exact_transport():
    cost, source = problem()
    a = np.array([0.2, 0.3, 0.5])[source] / 6
    exact = ot.emd2(a, np.full(15, 1 / 15), cost)
    near = mixture_transport(cost, source, np.array([0.2, 0.3, 0.5]), regularization=0.02, steps=100_000).transport[0]
    assert exact <= near < 1.01 * exact


def test_the_calibrated_gradient_is_the_derivative_of_the_regularised_cost():
    cost, source = problem()
    distances = selection.SourceDistances(cost, source, 0.3)
    assert selection.gradient_check(distances, np.array([0.2, 0.3, 0.5])) < 1e-6


def test_an_absent_source_has_a_one_sided_derivative():
    cost, source = problem()
    start, step = np.array([0.0, 0.4, 0.6]), 1e-6
    ahead = np.array([step, 0.4 * (1 - step), 0.6 * (1 - step)])
    tight = {"regularization": 0.3, "tolerance": 1e-13}
    both = mixture_transport(cost, source, np.stack([start, ahead]), **tight)
    assert both.gradient[0, 0] == pytest.approx((both.cost[1] - both.cost[0]) / step, rel=1e-3)


def test_the_potentials_constant_cancels_in_the_calibrated_gradient():
    cost, source = problem()
    p = np.array([0.2, 0.3, 0.5])
    solved = mixture_transport(cost, source, p, regularization=0.3)
    centred = solved.potential[0] - p @ solved.potential[0]
    assert np.allclose(solved.gradient[0], centred / (1 - p))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proportions": np.array([0.5, 0.5, 0.5])}, "sum 1"),
        ({"proportions": np.array([-0.5, 0.5, 1.0])}, "not negative"),
        ({"regularization": 0.0}, "positive regularization"),
        ({"regularization": 1e-4}, "underflows"),
        ({"cost": np.full((18, 15), np.nan)}, "finite"),
        ({"source": np.repeat([0, 1, 1], 6)}, "every source"),
        ({"source": np.array([0, 1, 2])}, "one source a row"),
        ({"steps": 1, "tolerance": 1e-14}, "settle"),
    ],
)
def test_bad_transport_is_refused(change, message):
    cost, source = problem()
    given = {"cost": cost, "source": source, "proportions": np.array([0.2, 0.3, 0.5]), "regularization": 0.3} | change
    with pytest.raises(ValueError, match=message):
        mixture_transport(given.pop("cost"), given.pop("source"), given.pop("proportions"), **given)


def test_label_distances_of_gaussians_on_a_line():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, (4000, 1)), rng.normal(3, 2, (4000, 1))
    zero = np.zeros(4000, dtype=int)
    found = gaussian_label_distance(first, zero, second, zero, 2)
    closed = np.hypot(first.mean() - second.mean(), first.std(ddof=1) - second.std(ddof=1))
    assert found[0, 0] == pytest.approx(closed, rel=2e-3)
    assert (found == found.max()).all()
    with pytest.raises(ValueError, match="labels in"):
        gaussian_label_distance(first, zero + 5, second, zero, 2)


def test_the_label_term_adds_to_the_distance():
    x, y = np.zeros((2, 3)), np.ones((2, 3))
    cost = labelled_cost(x, np.array([0, 1]), y, np.array([0, 0]), label_weight=2.0)
    assert np.allclose(cost, np.sqrt(3) + np.array([[0, 0], [2, 2]]))
    table = np.array([[0.0, 5.0], [5.0, 1.0]])
    assert labelled_cost(x, np.array([1, 1]), y, np.array([1, 0]), label_weight=1.0, label_distance=table)[0, 1] == (
        pytest.approx(np.sqrt(3) + 5)
    )
    with pytest.raises(ValueError, match="label weight"):
        labelled_cost(x, np.array([0, 1]), y, np.array([0, 0]), label_weight=-1)


def test_designs_have_the_published_columns():
    p, d = mixture_grid(3, 4), np.arange(15.0)
    assert regressors("linear", p, d).shape[1] == 3
    assert regressors("quadratic", p, d).shape[1] == 6
    assert regressors("transport", p, d).shape[1] == 2
    columns = regressors("pseudo-quadratic", p, d)
    expected = np.stack(
        [np.ones(15), d, p[:, 0], p[:, 1], p[:, 0] * d, p[:, 1] * d, p[:, 0] ** 2 * d, p[:, 1] ** 2 * d], 1
    )
    assert np.allclose(columns, expected)
    with pytest.raises(ValueError, match="design"):
        regressors("cubic", p, d)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_fit_is_ridge_on_standardized_columns(ridge):
    rng = np.random.default_rng(0)
    p, d = mixture_grid(3, 10), rng.random(66)
    y = 0.5 + p[:, 0] - 0.3 * d + 0.05 * rng.standard_normal(66)
    x = regressors("pseudo-quadratic", p, d)[:, 1:]
    z = (x - x.mean(0)) / x.std(0)
    peer = Ridge(alpha=max(ridge * 66, 1e-10)).fit(z, y).predict(z)
    assert np.allclose(fit_performance("pseudo-quadratic", p, d, y, ridge=ridge).predict(p, d), peer, atol=1e-6)
    with pytest.raises(ValueError, match="ridge"):
        fit_performance("linear", p, d, y, ridge=-1)


def test_projection_is_exact_on_a_logarithmic_law():
    law = lambda n: 0.2 + 0.1 * np.log(n)  # noqa: E731
    assert log_linear_projection(law(300), law(600), (300, 600), 2400) == pytest.approx(law(2400))
    with pytest.raises(ValueError, match="N_0 < N_1"):
        log_linear_projection(0.1, 0.2, (600, 300), 2400)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=5), st.integers(0, 50))
def test_the_projection_is_the_nearest_mixture(point, seed):
    values = np.array(point)
    found = project_to_simplex(values)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    others = np.random.default_rng(seed).dirichlet(np.ones(len(values)), 200)
    assert np.linalg.norm(found - values) <= np.linalg.norm(others - values, axis=1).min() + 1e-9
    with pytest.raises(ValueError, match="finite"):
        project_to_simplex(np.array([np.nan, 1.0]))


def test_ascent_finds_the_top_of_a_concave_function():
    top = np.array([0.6, 0.3, 0.1])
    path = simplex_ascent(lambda p: (-((p - top) ** 2).sum(), -2 * (p - top)), np.full(3, 1 / 3), steps=60, rate=0.3)
    assert np.allclose(path[-1], top, atol=1e-4)
    assert np.allclose(path.sum(1), 1)


def test_accuracies_are_those_of_a_ridge_classifier_on_the_same_points():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 3, (10, 4))
    labels = [rng.integers(0, 10, 80) for _ in range(2)]
    points = [centres[y] + rng.normal(0, 1, (80, 4)) for y in labels]
    check = rng.integers(0, 10, 300)
    sources = selection.Sources(tuple(points), tuple(labels), centres[check] + rng.normal(0, 1, (300, 4)), check)
    counts = np.array([[80, 0], [80, 80], [30, 50]])
    found = selection.mixture_accuracies(sources, counts, seed=0)
    hot = np.eye(10)[np.concatenate(labels)]
    peer = Ridge(alpha=1.0).fit(np.concatenate(points), hot).predict(sources.validation).argmax(1)
    assert found[1] == pytest.approx((peer == check).mean(), abs=0.01)
    assert found[1] > 0.5
    with pytest.raises(ValueError, match="at most 80"):
        selection.mixture_accuracies(sources, np.array([[81, 0]]), seed=0)


def test_counts_sum_to_the_total():
    counts = selection.mixture_counts(mixture_grid(3, 7), 100)
    assert (counts.sum(1) == 100).all() and (np.abs(counts - 100 * mixture_grid(3, 7)) < 1).all()
