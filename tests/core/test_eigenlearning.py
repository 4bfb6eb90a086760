"""The closed-form risk against the published pair of equations, exact limits, high precision and simulation."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core import eigenlearning as el

MODES = torch.arange(1, 301, dtype=torch.float64)
LAM, POWER = MODES**-1.5, MODES**-1.3


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 200), k=st.integers(1, 200), ridge=st.floats(1e-6, 1e3))
def test_the_published_pair_of_equations_is_solved(n, k, ridge):
    found = el.solve(LAM, None, n, ridge, k)
    z = (LAM / (LAM + found.gamma)).sum()
    assert abs(float(z + ridge / found.kappa) - n) < 1e-7 * n
    assert abs(float(z + k * found.kappa / found.gamma) - k) < 1e-7 * k
    assert 0 < float(found.learned) < min(n, k)


def test_many_features_become_the_kernel():
    cells = torch.tensor([20.0, 50.0, 90.0], dtype=torch.float64)
    kernel = el.risk(LAM, None, POWER, cells, 0.1, noise=0.2)
    wide = el.risk(LAM, None, POWER, cells, 0.1, noise=0.2, features=1e9)
    torch.testing.assert_close(wide.test, kernel.test, rtol=1e-6, atol=0)
    share = LAM / (LAM + kernel.solution.kappa[:, None])
    factor = cells / (cells - share.square().sum(1))
    direct = factor * (((1 - share) ** 2 * POWER).sum(1) + 0.2)
    torch.testing.assert_close(kernel.test, direct, rtol=1e-12, atol=0)


def test_against_fifty_digits():
    mpmath.mp.dps = 50
    n, k, ridge, noise = 40, 70, mpmath.mpf("0.01"), mpmath.mpf("0.3")
    lam = [mpmath.mpf(float(x)) for x in LAM]
    power = [mpmath.mpf(float(x)) for x in POWER]

    def gap(gamma):
        z = sum(x / (x + gamma) for x in lam)
        return gamma * (n - z) * (1 - z / k) - ridge

    start = float(el.solve(LAM, None, n, 0.01, k).gamma)
    ridge = mpmath.mpf(0.01)
    noise = mpmath.mpf(0.3)
    gamma = mpmath.findroot(gap, mpmath.mpf(start))
    share = [x / (x + gamma) for x in lam]
    z, q = sum(share), sum(x * x for x in share)
    kappa = gamma * (1 - z / k)
    loss = sum((1 - s - kappa * s / (x + gamma) * k / (k - q)) * p for s, x, p in zip(share, lam, power)) + noise
    exact = loss / (1 - (q * (k - 2 * z) + z * z) / (n * (k - q)))
    got = el.risk(LAM, None, POWER, n, 0.01, noise=0.3, features=k)
    assert abs(float(got.test) / float(exact) - 1) < 1e-12
    assert abs(float(got.solution.kappa) / float(kappa) - 1) < 1e-12


def test_simulation():
    g = torch.Generator().manual_seed(0)
    for n, k, ridge in ((60, 30, 0.5), (40, 120, 0.5)):
        test, train = [], []
        for _ in range(60):
            x = torch.randn(n, 300, generator=g, dtype=torch.float64)
            f = torch.randn(k, 300, generator=g, dtype=torch.float64) / k**0.5 * LAM.sqrt()
            y = x @ POWER.sqrt() + 0.1**0.5 * torch.randn(n, generator=g, dtype=torch.float64)
            phi = x @ f.T
            w = torch.linalg.solve(phi.T @ phi + ridge * torch.eye(k, dtype=torch.float64), phi.T @ y)
            test.append((POWER.sqrt() - f.T @ w).square().sum() + 0.1)
            train.append((y - phi @ w).square().mean())
        theory = el.risk(LAM, None, POWER, n, ridge, noise=0.1, features=k)
        for values, expected in ((torch.stack(test), theory.test), (torch.stack(train), theory.train)):
            error = float(values.std() / 60**0.5)
            # Both are large-n formulas: a few percent remain at these sizes.
            assert abs(float(values.mean() - expected)) < 4 * error + 0.04 * float(expected)


def test_multiplicities_are_repeated_eigenvalues():
    lam, counts = torch.tensor([1.0, 0.2], dtype=torch.float64), torch.tensor([3.0, 10.0], dtype=torch.float64)
    power = torch.tensor([0.6, 0.4], dtype=torch.float64)
    spread = torch.repeat_interleave(lam, counts.long())
    each = torch.repeat_interleave(power / counts, counts.long())
    a = el.risk(lam, counts, power, 5, 0.1, noise=0.1, features=8).test
    b = el.risk(spread, None, each, 5, 0.1, noise=0.1, features=8).test
    torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_ridgeless_limits():
    # Without ridge, n of M equal modes are learned: L = n / M, and the bias is (1 - n / M) of the power.
    lam = torch.ones(50, dtype=torch.float64)
    power = torch.full((50,), 1 / 50, dtype=torch.float64)
    assert float(el.learnability(lam, None, 20, 0.0).sum()) == pytest.approx(20)
    assert float(el.test_risk(lam, None, power, 20, 0.0)) == pytest.approx(1 - 20 / 50)
    # More samples than modes: ordinary least squares with M parameters.
    assert float(el.test_risk(lam, None, power, 120, 0.0, noise=0.7)) == pytest.approx(0.7 * 120 / 70)
    assert math.isinf(float(el.test_risk(LAM, None, POWER, 64, 0.0, features=64)))
    exact = el.risk(LAM, None, POWER, 64, 0.0, features=[30.0, 200.0])
    small = el.risk(LAM, None, POWER, 64, 1e-10, features=[30.0, 200.0])
    torch.testing.assert_close(exact.test, small.test, rtol=1e-5, atol=0)
    assert float(exact.train[1]) == 0 and float(exact.train[0]) > 0


def test_zero_modes_are_never_learned_and_a_huge_ridge_predicts_nothing():
    lam = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    power = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert float(el.learnability(lam, None, 10, 0.0)[1]) == 0
    assert float(el.test_risk(lam, None, power, 1e9, 1e-6)) == pytest.approx(0.3, rel=1e-6)
    assert float(el.test_risk(lam, None, power, 5, 1e12, noise=0.1)) == pytest.approx(1.1, rel=1e-6)


def test_optimal_risk_falls_with_samples_and_features():
    k = torch.tensor([4.0, 16.0, 64.0, 256.0, math.inf], dtype=torch.float64)
    best, ridge = el.optimal_risk(LAM, None, POWER, 40, noise=0.1, features=k)
    assert bool((best.diff() <= 1e-9).all()) and bool((ridge > 0).all())
    best, _ = el.optimal_risk(LAM, None, POWER, k[:4], noise=0.1, features=64)
    assert bool((best.diff() <= 1e-9).all())
    grid = torch.logspace(-6, 4, 400, dtype=torch.float64)
    least = el.test_risk(LAM, None, POWER, 40, grid, noise=0.1, features=64).min()
    assert float(el.optimal_risk(LAM, None, POWER, 40, noise=0.1, features=64)[0]) <= float(least) + 1e-9


def test_meta_device():
    lam = torch.empty(7, device="meta")
    assert el.risk(lam, None, lam, [3.0, 4.0], 0.1, features=9.0).test.shape == (2,)


def test_refusals():
    for call, words in (
        (lambda: el.solve(LAM.long(), None, 5, 0.1), "floating-point"),
        (lambda: el.solve(LAM[None], None, 5, 0.1), "eigenvalues"),
        (lambda: el.solve(-LAM, None, 5, 0.1), "at least 0"),
        (lambda: el.solve(0 * LAM, None, 5, 0.1), "positive eigenvalue"),
        (lambda: el.solve(LAM, LAM[:3], 5, 0.1), "multiplicities"),
        (lambda: el.solve(LAM, None, 0, 0.1), "samples"),
        (lambda: el.solve(LAM, None, 5, -0.1), "ridge"),
        (lambda: el.solve(LAM, None, float("nan"), 0.1), "finite"),
        (lambda: el.solve(LAM, None, 5, 0.1, 0), "features"),
        (lambda: el.risk(LAM, None, POWER[:5], 5, 0.1), "coefficients"),
        (lambda: el.risk(LAM, None, -POWER, 5, 0.1), "at least 0"),
        (lambda: el.risk(LAM, None, POWER, 5, 0.1, noise=-1.0), "noise"),
        (lambda: el.optimal_risk(LAM, None, POWER, 5, low=0.0), "low"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
