"""The routed law: pinned to its own limits, to exact data, to SciPy's optimizer, and to deletion of runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from netatlas.scaling_laws import (
    RoutedLaw,
    bootstrap_laws,
    fit_routed_law,
    fit_routed_laws,
    jackknife_sizes,
    predict_held_out_size,
    saturating_expert_count,
)

SIZES = np.repeat([1e7, 3e7, 1e8, 3e8, 1e9], 8)
EXPERTS = np.tile([1, 2, 4, 8, 16, 64, 128, 512], 5).astype(float)
TRUE = RoutedLaw("full", -0.083, -0.12, 0.010, 1.11, 1.9, 300.0, 0.0)


def noisy(scale, seed=0):
    return 10 ** (TRUE.log_loss(SIZES, EXPERTS) + scale * np.random.default_rng(seed).standard_normal(len(SIZES)))


@settings(deadline=None, max_examples=25)
@given(st.floats(0.5, 5), st.floats(20, 500))
def test_the_expert_count_starts_and_saturates_where_it_should(start, limit):
    count = saturating_expert_count(np.array([1.0, 2.0, 10.0, 1e12]), start, limit)
    assert count[0] == pytest.approx(start) and count[-1] == pytest.approx(limit, rel=1e-6)
    assert (np.diff(count) > 0).all()


def test_without_a_limit_the_count_grows_one_by_one():
    assert np.allclose(saturating_expert_count(np.array([1, 2, 5]), 1.0, np.inf), [1, 2, 5])


def test_an_exact_law_is_found_again():
    law = fit_routed_law(SIZES, EXPERTS, noisy(0))
    for name in ("a", "b", "c", "d", "start", "limit"):
        assert getattr(law, name) == pytest.approx(getattr(TRUE, name), rel=1e-3)
    assert law.rmse < 1e-6
    assert law.cutoff == pytest.approx(10**12, rel=0.05)


@pytest.mark.parametrize("form", ["separable", "bilinear"])
def test_linear_forms_are_ordinary_least_squares(form):
    loss = noisy(0.003)
    n, e = np.log10(SIZES), np.log10(EXPERTS)
    columns = [n, e, np.ones_like(n)] + ([n * e] if form == "bilinear" else [])
    expected = np.linalg.lstsq(np.stack(columns, 1), np.log10(loss), rcond=None)[0]
    law = fit_routed_law(SIZES, EXPERTS, loss, form=form)
    assert np.allclose([law.a, law.b, law.d], expected[:3], rtol=1e-5)
    assert law.c == pytest.approx(expected[3] if form == "bilinear" else 0.0, rel=1e-5)


def test_the_full_fit_is_no_worse_than_scipys():
    loss = noisy(0.003)

    def residual(t):
        start, limit = np.exp(t[4]), np.exp(t[4]) * (1 + np.exp(t[5]))
        e = np.log10(saturating_expert_count(EXPERTS, start, limit))
        return t[0] * np.log10(SIZES) + t[1] * e + t[2] * np.log10(SIZES) * e + t[3] - np.log10(loss)

    start = [TRUE.a, TRUE.b, TRUE.c, TRUE.d, np.log(1.9), np.log(150)]
    peer = least_squares(residual, start, method="lm", max_nfev=20_000, xtol=1e-14, ftol=1e-14)
    law = fit_routed_law(SIZES, EXPERTS, loss)
    assert law.rmse <= np.sqrt(2 * peer.cost / len(SIZES)) * (1 + 1e-5)
    assert law.c == pytest.approx(peer.x[2], rel=2e-2)


def test_effective_parameters_have_the_same_loss():
    same = TRUE.effective_parameters(SIZES, EXPERTS)
    assert np.allclose(TRUE.log_loss(same, np.ones_like(same)), TRUE.log_loss(SIZES, EXPERTS))
    assert np.allclose(same[EXPERTS == 1], SIZES[EXPERTS == 1])


def test_a_weight_of_zero_is_a_run_left_out():
    loss, out = noisy(0.003), SIZES == 1e9
    by_weight = fit_routed_laws(SIZES, EXPERTS, loss, weights=(~out).astype(float)[None])[0]
    by_deletion = predict_held_out_size(SIZES, EXPERTS, loss, held_out=1e9).laws["full"]
    assert by_weight.c == pytest.approx(by_deletion.c, rel=1e-3)
    laws, errors = jackknife_sizes(SIZES, EXPERTS, loss)
    assert laws[-1].c == pytest.approx(by_deletion.c, rel=1e-3) and errors["c"] > 0


def test_held_out_prediction_needs_the_product_term():
    held = predict_held_out_size(SIZES, EXPERTS, noisy(0.001), held_out=1e9)
    assert held.rmse["full"] < 0.5 * held.rmse["separable saturating"]
    assert held.scatter["full"] < held.scatter["separable"]


def test_the_bootstrap_is_seeded():
    loss = noisy(0.003)
    first, second = (bootstrap_laws(SIZES, EXPERTS, loss, samples=5, seed=3) for _ in range(2))
    assert [law.c for law in first] == [law.c for law in second]
    assert len({law.c for law in first}) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: saturating_expert_count(np.array([0.5]), 1, 10), "at least 1"),
        (lambda: saturating_expert_count(np.array([2.0]), 10, 10), "start < limit"),
        (lambda: fit_routed_law(SIZES, EXPERTS, -noisy(0)), "positive"),
        (lambda: fit_routed_law(SIZES, EXPERTS, noisy(0)[:-1]), "values of loss"),
        (lambda: fit_routed_law(SIZES, EXPERTS, np.full(40, np.nan)), "finite"),
        (lambda: fit_routed_law(SIZES, EXPERTS, noisy(0), form="cubic"), "form"),
        (lambda: fit_routed_law(SIZES[:4], EXPERTS[:4], noisy(0)[:4]), "at least 6 runs"),
        (lambda: predict_held_out_size(SIZES, EXPERTS, noisy(0), held_out=5.0), "among the runs"),
        (lambda: jackknife_sizes(SIZES[:16], EXPERTS[:16], noisy(0)[:16]), "three dense sizes"),
        (lambda: bootstrap_laws(SIZES, EXPERTS, noisy(0), samples=0), "one sample"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
