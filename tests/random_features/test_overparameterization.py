"""Simulated random-feature regression against explicit fits, and the fitting ratio on curves that are known."""

import pytest
import torch

from netatlas.core import eigenlearning
from netatlas.random_features import overparameterization as op
from netatlas.random_features import overparameterization_experiments as ex
from netatlas.random_features import portrait


def test_risk_of_a_draw_equals_an_explicit_fit_with_a_test_set():
    lam, power = ex.power_law(20)
    ridges = torch.tensor([0.1, 1.0], dtype=torch.float64)
    for n, k in ((12, 8), (8, 12)):
        found = op.simulate_random_features(
            lam, power, n, k, ridges, noise=0.2, draws=1, generator=torch.Generator().manual_seed(0)
        )
        g = torch.Generator().manual_seed(0)
        x = torch.randn(n, 20, generator=g, dtype=torch.float64)
        f = torch.randn(k, 20, generator=g, dtype=torch.float64) * (lam.sqrt() / k**0.5)
        y = x @ power.sqrt() + 0.2**0.5 * torch.randn(n, generator=g, dtype=torch.float64)
        fresh = torch.randn(200_000, 20, generator=g, dtype=torch.float64)
        for r, ridge in enumerate(ridges):
            phi = x @ f.T
            w = torch.linalg.solve(phi.T @ phi + ridge * torch.eye(k, dtype=torch.float64), phi.T @ y)
            error = (fresh @ (power.sqrt() - f.T @ w)).square().mean() + 0.2
            assert float(found[0, r]) == pytest.approx(float(error), rel=0.02)


def test_fitting_curve_and_ratio():
    g = torch.Generator().manual_seed(1)
    x, z = torch.randn(40, 3, generator=g, dtype=torch.float64), torch.randn(30, 3, generator=g, dtype=torch.float64)
    y, t = x.sin().sum(1, keepdim=True), z.sin().sum(1, keepdim=True)
    gram, cross = torch.exp(-(torch.cdist(x, x) ** 2) / 4), torch.exp(-(torch.cdist(z, x) ** 2) / 4)
    ridges = torch.logspace(-6, 3, 30, dtype=torch.float64)
    curve = op.fitting_curve(gram, y, cross, t, ridges)
    dual = torch.linalg.solve(gram + ridges[10] * torch.eye(40, dtype=torch.float64), y)
    assert float(curve.test[10]) == pytest.approx(float((cross @ dual - t).square().mean()), rel=1e-6)
    assert bool((curve.train.diff() >= -1e-12).all())
    ratio = op.fitting_ratio(curve)
    assert ratio.best < 0.3 and ratio.price > 1 and ratio.least == pytest.approx(float(curve.test.min()))


def test_price_is_interpolated_between_ridges():
    test = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    curve = op.FittingCurve(
        torch.tensor([0.1, 1.0, 10.0]), test, test * torch.tensor([0.0, 0.4, 0.8], dtype=torch.float64)
    )
    found = op.fitting_ratio(curve)
    assert found.best == 0 and found.price == pytest.approx(2.5) and found.ridgeless == 1


def test_theory_needs_overfitting_only_with_little_noise():
    table = ex.theory_of_fitting([0.0, 10.0], n=50, modes=600)
    assert table["best ratio"][0] < 0.1 < 0.5 < table["best ratio"][1]
    assert ex.wide_limit_gap(n=50, modes=300) < 1e-4


def test_monotonicity_reads_both_directions():
    run = ex.monotonicity([8, 64], vary="samples", fixed=32, noise=0.1, modes=100, draws=4, tiny=1e-3, seed=0)
    assert run.theory.shape == (2,) and run.drawn.shape == (2, 4)
    assert run.largest_rise < 0


def test_portrait_theory_meets_measured_kernels():
    samples = torch.tensor([64.0], dtype=torch.float64)
    line = portrait.theory(
        "ReLU (SNNK)", samples, torch.full((1,), float("inf"), dtype=torch.float64), pool=600, seed=0
    )
    found = portrait.measure_kernels([64], draws=4, fresh=300, seed=0)["ReLU (SNNK)"]
    assert float(found.mean()) == pytest.approx(float(line), rel=0.35)
    few = portrait.measure([(64, 16)], draws=2, fresh=200, seed=0)
    assert set(few) == set(portrait.FEATURES) and float(few["ReLU (SNNK)"].mean()) > float(found.mean())


def test_refusals():
    lam, power = ex.power_law(5)
    g = torch.Generator()
    ridge = torch.ones(1, dtype=torch.float64)
    flat = op.FittingCurve(ridge, torch.ones(1, 2), torch.ones(1, 2))
    for call, words in (
        (lambda: op.simulate_random_features(lam, power, 0, 3, ridge, noise=0.1, draws=1, generator=g), "sizes"),
        (
            lambda: op.simulate_random_features(lam, power[:2], 3, 3, ridge, noise=0.1, draws=1, generator=g),
            "coefficients",
        ),
        (lambda: op.simulate_random_features(lam, power, 3, 3, ridge, noise=-1, draws=1, generator=g), "noise"),
        (lambda: op.fitting_ratio(flat), "one curve"),
        (lambda: op.fitting_ratio(op.FittingCurve(ridge, ridge, ridge), at=1.0), "ratio"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert float(eigenlearning.test_risk(lam, None, power, 3, 0.1)) > 0
