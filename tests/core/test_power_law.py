"""Power-law fits: pinned to exact laws, to SciPy's Huber least squares, and to the coverage of the bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from netatlas.core.power_law import extrapolation_error, fit_power_law, robust_least_squares

X = np.geomspace(8, 8192, 11)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.1, 3), st.floats(-2, 3))
def test_a_pure_law_is_found_exactly(exponent, log_scale):
    law = fit_power_law(X, np.exp(log_scale) * X**-exponent)
    assert law.exponent == pytest.approx(exponent, abs=1e-8)
    assert law.values["log_scale"] == pytest.approx(log_scale, abs=1e-7)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.3, 1.5), st.floats(0.02, 0.6))
def test_a_floor_is_found_exactly(exponent, floor):
    law = fit_power_law(X, floor + 3 * X**-exponent, form="saturating")
    assert law.exponent == pytest.approx(exponent, rel=1e-3)
    assert np.exp(law.values["log_floor"]) == pytest.approx(floor, rel=1e-3)


def test_both_exponents_of_a_broken_law_are_found():
    y = 2 * X**-1.0 * (1 + (X / 200) ** 2) ** (0.6 * 0.5)
    law = fit_power_law(X, y, form="broken")
    assert law.exponent == pytest.approx(1.0, abs=1e-3)
    assert law.values["late_exponent"] == pytest.approx(0.4, abs=1e-3)
    assert np.exp(law.values["log_break"]) == pytest.approx(200, rel=1e-2)
    assert np.allclose(law.predict(X), y, rtol=1e-5)


@pytest.mark.parametrize("form", ["pure", "saturating"])
def test_the_fit_is_scipys_huber_fit(form):
    generator = np.random.default_rng(0)
    y = (0.1 * (form == "saturating") + 2 * X**-0.7) * np.exp(0.05 * generator.standard_t(2, len(X)))
    law = fit_power_law(X, y, form=form, huber=0.02)

    def residual(t):
        line = t[0] - t[1] * np.log(X)
        return (line if form == "pure" else np.logaddexp(line, t[2])) - np.log(y)

    peer = least_squares(residual, list(law.values.values()), loss="huber", f_scale=0.02, xtol=1e-14, ftol=1e-14)
    assert np.allclose(list(law.values.values()), peer.x, atol=2e-5)
    far = least_squares(residual, [0.5, 0.5, -3.0][: len(law.values)], loss="huber", f_scale=0.02, max_nfev=5000)
    assert law.loss <= far.cost * (1 + 1e-6)


def test_one_outlier_hardly_moves_the_robust_exponent():
    y = X**-0.5
    y[4] *= 3
    robust = fit_power_law(X, y, huber=0.01).exponent
    plain = fit_power_law(X, y, huber=np.inf).exponent
    assert abs(robust - 0.5) < 0.3 * abs(plain - 0.5)


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    x = np.geomspace(1, 1000, 20)
    covered = 0
    for trial in range(60):
        y = x**-0.8 * np.exp(0.1 * generator.standard_normal(20))
        law = fit_power_law(x, y, huber=np.inf, bootstrap=200, seed=trial)
        low, high = np.quantile(law.samples["exponent"], [0.025, 0.975])
        covered += low <= 0.8 <= high
    assert 47 <= covered <= 60
    assert law.interval().n == 200 and law.interval().half_width > 0


def test_a_pure_law_extrapolates_itself_and_misses_a_floor():
    assert extrapolation_error(X, X**-0.5, held_out=3) < 1e-8
    assert extrapolation_error(X, 0.2 + X**-0.5, held_out=3) > 0.1
    assert extrapolation_error(X, 0.2 + X**-0.5, held_out=3, form="saturating") < 1e-3


def test_members_of_a_batch_do_not_mix():
    x = np.linspace(0, 1, 9)
    y = np.stack([2 * x + 1, -x + 3])

    def residuals(theta):
        n = len(theta)
        return theta[:, :1] * x + theta[:, 1:] - y[:n], np.stack(
            [np.broadcast_to(x, (n, 9)), np.ones((n, 9))], -1
        ).copy()

    theta, loss = robust_least_squares(residuals, np.zeros((2, 2)))
    assert np.allclose(theta, [[2, 1], [-1, 3]]) and np.allclose(loss, 0)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        ([1, 2], [1, 2, 3], {}, "2 values"),
        ([1, 2, 3], [1, 0, 2], {}, "positive"),
        ([1, 2, 3], [1, np.nan, 2], {}, "finite"),
        ([2, 2, 2], [1, 1, 2], {}, "distinct"),
        ([1, 2], [1, 2], {"form": "saturating"}, "distinct"),
        ([1, 2, 3], [1, 2, 3], {"form": "cubic"}, "form"),
        ([1, 2, 3], [1, 2, 3], {"huber": 0.0}, "Huber"),
        ([1, 2, 3], [1, 2, 3], {"bootstrap": -1}, "bootstrap"),
    ],
)
def test_bad_input_is_refused(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        fit_power_law(x, y, **options)


def test_an_interval_needs_a_bootstrap_and_a_known_name():
    law = fit_power_law(X, X**-0.5)
    with pytest.raises(ValueError, match="bootstrap"):
        law.interval()
    with pytest.raises(ValueError, match="parameter"):
        law.interval("slope")
    with pytest.raises(ValueError, match="held out"):
        extrapolation_error(X, X, held_out=0)
    with pytest.raises(ValueError, match="distinct"):
        extrapolation_error(X, X, held_out=11)
