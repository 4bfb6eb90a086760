"""The solvable model: pinned to closed forms, explicit steps, mpmath and eigenlearning theory."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.eigenlearning import test_risk as eigenlearning_risk
from netatlas.scaling_laws import (
    FeatureSpectrum,
    compute_optimal_frontier,
    ensemble_loss,
    finite_data_loss,
    mean_field_loss,
    mean_field_transfer,
    power_law_spectrum,
    response,
    simulate_finite_data,
    simulate_flow,
    simulate_sgd,
    static_kappa,
    static_loss,
    talbot_nodes,
)

LAW = power_law_spectrum(1.5, 1.25, features=400)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 50), st.floats(0.1, 3))
def test_the_inverse_transform_of_a_pole_is_an_exponential(time, rate):
    points, weights = talbot_nodes(np.array([time]))
    found = (weights / (points + rate)).real.sum()
    assert found == pytest.approx(np.exp(-rate * time), abs=1e-9)


def test_the_inverse_transform_is_mpmaths():
    times = np.array([0.5, 3.0])
    points, weights = talbot_nodes(times)
    found = (weights * np.exp(-np.sqrt(points)) / points).real.sum(1)
    peer = [float(mpmath.invertlaplace(lambda s: mpmath.exp(-mpmath.sqrt(s)) / s, t, method="talbot")) for t in times]
    assert np.allclose(found, peer, atol=1e-8)


def test_the_response_of_equal_eigenvalues_solves_a_quadratic():
    isotropic = power_law_spectrum(1.5, 0.0, features=100)
    z = np.array([0.3 + 0.2j, 2.0 + 0j])
    r = response(isotropic, 25, z)
    # R (1 + 4 / (z + R)) = 1
    assert np.allclose(r * r + r * (z + 4 - 1) - z, 0, atol=1e-10)


def test_infinite_width_learns_every_feature_at_its_own_rate():
    times = np.array([0.3, 5.0, 200.0])
    exact = (LAW.power * np.exp(-2 * LAW.eigenvalues * times[:, None])).sum(1)
    assert np.allclose(mean_field_loss(LAW, np.inf, times), exact, rtol=1e-7)
    assert np.allclose(mean_field_transfer(LAW, np.inf, times), np.exp(-LAW.eigenvalues * times[:, None]), atol=1e-8)


def test_late_loss_is_the_static_loss():
    assert mean_field_loss(LAW, 20, np.array([1e9]))[0] == pytest.approx(static_loss(LAW, 20), rel=1e-4)
    assert static_loss(LAW, 400) == 0.0


def test_isotropic_features_leave_their_missing_share():
    isotropic = power_law_spectrum(1.5, 0.0, features=100)
    assert static_loss(isotropic, 30) == pytest.approx(0.7 * isotropic.target_power, rel=1e-9)
    assert static_kappa(isotropic, 30) == pytest.approx(70 / 30, rel=1e-9)


def test_bins_change_nothing_that_matters():
    exact = power_law_spectrum(1.5, 1.25, features=20_000)
    binned = power_law_spectrum(1.5, 1.25, features=20_000, bins=400)
    assert binned.features == 20_000 and len(binned.counts) < 600
    assert np.allclose(
        mean_field_loss(binned, 50, np.array([3.0, 300.0])),
        mean_field_loss(exact, 50, np.array([3.0, 300.0])),
        rtol=2e-4,
    )


def test_simulation_agrees_with_theory_within_its_error():
    times = [2.0, 50.0, 1e4]
    losses = simulate_flow(LAW, 24, times, draws=150, seed=0).numpy()
    theory = mean_field_loss(LAW, 24, np.array(times))
    assert (np.abs(losses.mean(0) - theory) < 3 * losses.std(0) / 150**0.5 + theory / 24).all()


def test_the_flow_is_the_limit_of_explicit_small_steps():
    small = power_law_spectrum(1.5, 1.25, features=60)
    generator = torch.Generator().manual_seed(3)
    b = (
        torch.randn(1, 8, 60, generator=generator, dtype=torch.float64)[0]
        * torch.from_numpy(small.eigenvalues**0.5)
        / 8**0.5
    )
    u = torch.from_numpy(small.power**0.5)
    for _ in range(20_000):
        u = u - 1e-4 * (b.mT @ (b @ u))
    assert float(simulate_flow(small, 8, [2.0], draws=1, seed=3)) == pytest.approx(float(u @ u), rel=1e-4)


def test_averaged_models_follow_the_ensemble_theory():
    times = [3.0, 300.0]
    losses = simulate_flow(LAW, 24, times, draws=60, seed=1, members=3).numpy()
    theory = ensemble_loss(LAW, 24, np.array(times), 3)
    assert np.allclose(losses.mean(0), theory, rtol=0.06)
    assert np.allclose(ensemble_loss(LAW, 24, np.array(times), 1), mean_field_loss(LAW, 24, np.array(times)))
    alone = simulate_flow(LAW, 24, times, draws=60, seed=1).numpy()
    assert (losses.mean(0) < alone.mean(0)).all()


def test_large_batches_follow_the_flow_and_small_ones_lie_above():
    small = power_law_spectrum(1.5, 1.25, features=100)
    theory = mean_field_loss(small, 32, np.array([4.0]))[0]
    large = simulate_sgd(small, 32, [4.0], batch=64, rate=0.05, draws=40, seed=0).mean().item()
    little = simulate_sgd(small, 32, [4.0], batch=1, rate=0.05, draws=40, seed=0).mean().item()
    assert large == pytest.approx(theory, rel=0.08) and little > 1.05 * large
    with pytest.raises(ValueError, match="lower the rate"):
        simulate_sgd(small, 32, [4000.0], batch=1, rate=4.0, draws=2, seed=0)


def test_finite_data_end_where_kernel_theory_says():
    test, train = simulate_finite_data(LAW, 20, [1e9], draws=120, seed=0)
    values, power = torch.from_numpy(LAW.eigenvalues), torch.from_numpy(LAW.power)
    theory = float(eigenlearning_risk(values, None, power, 20.0, 0.0))
    assert float(test.mean()) == pytest.approx(theory, rel=0.08)
    assert float(train.max()) < 1e-6


def test_the_finite_data_theory_has_its_known_limits():
    times = np.array([0.3, 3.0, 30.0])
    test, train = finite_data_loss(LAW, np.inf, times)
    exact = np.array([(LAW.power * np.exp(-2 * LAW.eigenvalues * t)).sum() for t in times])
    assert np.allclose(test, exact, rtol=1e-6) and np.allclose(train, exact, rtol=1e-6)
    late, _ = finite_data_loss(LAW, 20, np.array([1e8]))
    values, power = torch.from_numpy(LAW.eigenvalues), torch.from_numpy(LAW.power)
    assert late[0] == pytest.approx(float(eigenlearning_risk(values, None, power, 20.0, 0.0)), rel=1e-5)


def test_the_finite_data_theory_follows_simulated_curves():
    times = [0.3, 3.0, 30.0]
    losses = simulate_finite_data(LAW, 40, times, draws=200, seed=0)
    for simulated, theory in zip(losses, finite_data_loss(LAW, 40, np.array(times))):
        error = simulated.std(0).numpy() / 200**0.5
        assert (np.abs(simulated.mean(0).numpy() - theory) < 4 * error + theory / 40).all()


def test_the_frontier_is_the_minimum_over_widths():
    far = power_law_spectrum(1.5, 1.25, features=1e9, bins=200)
    found = compute_optimal_frontier(far, np.array([1e6]), grid=13, span=10)
    widths = np.geomspace(found.width[0] / 3, found.width[0] * 3, 41)
    losses = [mean_field_loss(far, n, np.array([1e6 / n]))[0] for n in widths]
    assert found.bracketed and found.loss[0] == pytest.approx(min(losses), rel=2e-3)
    assert found.width[0] * found.time[0] == pytest.approx(1e6)


def test_width_one_and_one_draw_are_allowed():
    assert simulate_flow(LAW, 1, [1.0], draws=1, seed=0).shape == (1, 1)
    assert mean_field_loss(LAW, 1, np.array([1.0]))[0] > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_law_spectrum(0.0, 1.0, features=10), "task exponent"),
        (lambda: power_law_spectrum(1.5, 1.0, features=0), "one feature"),
        (lambda: FeatureSpectrum(np.ones(3), np.ones(2), np.ones(3)), "power"),
        (lambda: FeatureSpectrum(np.array([np.nan]), np.ones(1), np.ones(1)), "finite"),
        (lambda: FeatureSpectrum(np.zeros(1), np.ones(1), np.ones(1)), "positive eigenvalues"),
        (lambda: response(LAW, 0, np.array([1.0])), "width"),
        (lambda: talbot_nodes(np.array([0.0])), "positive times"),
        (lambda: finite_data_loss(LAW, 0, np.array([1.0])), "width of at least 1"),
        (lambda: static_kappa(LAW, 400), "width in"),
        (lambda: ensemble_loss(LAW, 8, np.array([1.0]), 0), "one member"),
        (
            lambda: simulate_flow(power_law_spectrum(1.5, 1, features=1e4, bins=20), 4, [1.0], draws=1, seed=0),
            "without bins",
        ),
        (lambda: simulate_flow(LAW, 0, [1.0], draws=1, seed=0), "at least 1"),
        (lambda: simulate_finite_data(LAW, 0, [1.0], draws=1, seed=0), "one sample"),
        (lambda: compute_optimal_frontier(LAW, np.array([0.5])), "budgets"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
