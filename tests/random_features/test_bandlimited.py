"""Random weights, the density penalty, and the ridgelet transform against quadrature and Parseval."""

import math

import pytest
import torch

from netatlas.random_features import bandlimited as bl
from netatlas.random_features import bandlimited_experiments as ex


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_weights_stay_in_their_box_and_other_laws_share_its_scale():
    w = bl.bandlimited_weights(2000, 2, 3.0, generator=gen())
    assert float(w.slopes.abs().max()) <= 3 and float(w.offsets.abs().max()) <= 3 and w.volume == 6.0**3
    assert float(w.slopes.std()) == pytest.approx(3**0.5, rel=0.05)
    assert float(bl.bandlimited_weights(4000, 1, 3.0, generator=gen(), law="gaussian").slopes.std()) == pytest.approx(
        3**0.5, rel=0.05
    )
    cauchy = bl.bandlimited_weights(4000, 1, 3.0, generator=gen(), law="cauchy").slopes
    assert float(cauchy.abs().median()) == pytest.approx(3**0.5, rel=0.1)


def test_read_out_is_the_ridge_minimum_in_both_forms():
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    for n in (10, 90):
        h = bl.hidden_features(x, bl.bandlimited_weights(n, 1, 2.0, generator=gen()))
        out = bl.read_out(h, x[:, 0], 1e-3)
        gradient = h.T @ (h @ out.weights - x[:, 0]) / 40 + 1e-3 * n / 50 * out.weights
        assert float(gradient.abs().max()) < 1e-9
    assert float(out.density_norm) == pytest.approx(90**0.5 * float(out.weights.norm()))
    bare = bl.read_out(h, x[:, 0], 0.0)
    assert float((h @ bare.weights - x[:, 0]).norm()) < 1e-5


def test_features_are_the_activation_of_an_affine_map():
    x = torch.randn(5, 2, generator=gen(), dtype=torch.float64)
    w = bl.bandlimited_weights(3, 2, 1.0, generator=gen(1))
    z = x @ w.slopes.T - w.offsets
    torch.testing.assert_close(bl.hidden_features(x, w, "tanh"), z.tanh())
    torch.testing.assert_close(bl.hidden_features(x, w), torch.exp(-z.square() / 2))


def test_ridgelet_transform_of_a_gaussian_in_closed_form():
    # The second derivative of a Gaussian smoothed by a Gaussian is one of a wider Gaussian.
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    a, b = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64), torch.linspace(-2, 2, 7, dtype=torch.float64)
    found = bl.ridgelet_transform_1d(torch.exp(-x.square() / 2), x, a, b)
    s2 = 1 + a[:, None] ** 2
    exact = math.sqrt(2 * math.pi) * (b**2 / s2 - 1) * torch.exp(-(b**2) / (2 * s2)) / s2**1.5
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-8)


def test_parseval_over_offsets():
    x = torch.linspace(-4, 4, 2001, dtype=torch.float64)
    f = torch.exp(-2 * x.square()) * torch.sin(5 * x)
    b = torch.linspace(-25, 25, 2001, dtype=torch.float64)
    a = torch.tensor([3.0], dtype=torch.float64)
    direct = torch.trapezoid(bl.ridgelet_transform_1d(f, x, a, b).square(), b, dim=1)
    w = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    power = torch.trapezoid(f * torch.exp(-1j * w[:, None] * x), x, dim=1).abs().square()
    ratio = w / 3
    parseval = torch.trapezoid(power * ratio**4 * torch.exp(-ratio.square()), w) / 3
    assert float(direct) == pytest.approx(float(parseval), rel=1e-4)


def test_leakage_falls_with_the_range_and_rises_with_frequency():
    f = ex.windowed_sine(2 * math.pi, 0.5)
    shares = [bl.spectrum_leakage(f, band, reach=3.0) for band in (2.0, 4.0, 8.0, 16.0)]
    totals = [s.total for s in shares]
    assert totals == sorted(totals, reverse=True) and 0 <= totals[-1] < 0.05
    assert all(s.total >= s.slopes - 0.02 for s in shares)
    # The part along slopes, by the one-dimensional integral.
    assert [round(s.slopes, 2) for s in shares[1:]] == pytest.approx([0.67, 0.145, 0.0135], abs=0.02)
    fast = bl.spectrum_leakage(ex.windowed_sine(4 * math.pi, 0.5), 8.0, reach=3.0)
    assert fast.total > shares[2].total


def test_floor_and_its_absence():
    low = ex.approximate(ex.sine(8 * math.pi), 400, 4.0, draws=2)
    high = ex.approximate(ex.sine(8 * math.pi), 400, 16.0, draws=2)
    free = ex.approximate(ex.sine(8 * math.pi), 400, 4.0, ridge=0.0, draws=1)
    assert float(low.error.min()) > 0.6 and float(high.error.max()) < 0.05
    assert float(free.error.max()) < 0.01 and free.largest_weight > 1e5


def test_refusals():
    w = bl.bandlimited_weights(3, 1, 1.0, generator=gen())
    x = torch.zeros(4, 1, dtype=torch.float64)
    for call, words in (
        (lambda: bl.bandlimited_weights(0, 1, 1.0, generator=gen()), "unit"),
        (lambda: bl.bandlimited_weights(3, 1, 0.0, generator=gen()), "band"),
        (lambda: bl.bandlimited_weights(3, 1, math.inf, generator=gen()), "band"),
        (lambda: bl.bandlimited_weights(3, 1, 1.0, generator=gen(), law="levy"), "law"),
        (lambda: bl.hidden_features(torch.zeros(4, 2, dtype=torch.float64), w), "inputs"),
        (lambda: bl.hidden_features(x * math.nan, w), "finite"),
        (lambda: bl.hidden_features(x, w, "step"), "activation"),
        (lambda: bl.read_out(bl.hidden_features(x, w), x[:2, 0], 1.0), "targets"),
        (lambda: bl.read_out(bl.hidden_features(x, w), x[:, 0], -1.0), "ridge"),
        (lambda: bl.ridgelet_transform_1d(x[:, 0], torch.tensor([0.0, 1.0, 3.0, 4.0]), x[:, 0], x[:, 0]), "even grid"),
        (lambda: bl.spectrum_leakage(torch.sin, 0.0), "band"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
