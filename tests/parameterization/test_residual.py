"""Depth-scaled networks against their kernel's closed form."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.parameterization import DepthScaledResidualMLP, mean_field_rates, relu_depth_kernel
from netatlas.parameterization.experiments import initial_growth


@settings(deadline=None, max_examples=20)
@given(depth=st.integers(1, 40), exponent=st.sampled_from([0.0, 0.5, 1.0]), size=st.floats(0.1, 10))
def test_diagonal_is_the_closed_form(depth, exponent, size):
    h = relu_depth_kernel(torch.full((1, 1), size, dtype=torch.float64), depth, exponent=exponent)
    assert float(h) == pytest.approx(size * (1 + depth ** (-2 * exponent) / 2) ** depth, rel=1e-12)


def test_kernel_against_high_precision():
    mpmath.mp.dps = 40
    gram = torch.tensor([[1.3, 0.4], [0.4, 0.7]], dtype=torch.float64)
    a, b, c = (mpmath.mpf(float(gram[i, j])) for i, j in ((0, 0), (1, 1), (0, 1)))
    depth = 6
    for _ in range(depth):
        r = c / mpmath.sqrt(a * b)
        t = mpmath.acos(r)
        c += mpmath.sqrt(a * b) * (mpmath.sin(t) + (mpmath.pi - t) * r) / (2 * mpmath.pi) / depth
        a, b = a * (1 + mpmath.mpf(1) / (2 * depth)), b * (1 + mpmath.mpf(1) / (2 * depth))
    found = relu_depth_kernel(gram, depth)
    assert abs(float(found[0, 1]) / float(c) - 1) < 1e-12 and abs(float(found[0, 0]) / float(a) - 1) < 1e-12


def test_duplicated_points_keep_one_kernel_and_it_is_positive():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[4] = x[0]
    h = relu_depth_kernel(x @ x.T, 8)
    torch.testing.assert_close(h[0], h[4])
    assert torch.linalg.eigvalsh(h).min() > -1e-9


def test_simulation_meets_the_exact_growth():
    growth = initial_growth(8, 128, draws=200)
    assert abs(growth.mean() - (1 + 1 / 16) ** 8) < 4 * growth.std() / math.sqrt(200)
    assert initial_growth(64, 64, draws=40).mean() < 2 < initial_growth(8, 64, draws=40, exponent=0.0).mean()


def test_network_is_its_formula():
    torch.manual_seed(0)
    net = DepthScaledResidualMLP(4, 3, 2, 5, gamma=0.5)
    x = torch.randn(7, 2, 2)
    h = x.flatten(1) @ net.embedding.T / 2
    for w in net.blocks:
        h = h + h.relu() @ w.T / math.sqrt(2 * 3)
    torch.testing.assert_close(net(x), h.relu() @ net.readout.T / (0.5 * 3))
    assert DepthScaledResidualMLP(4, 3, 2, 5, layer_norm=True).to("meta")(x.to("meta")).shape == (7, 5)
    assert DepthScaledResidualMLP(1, 1, 1, 1)(torch.ones(1, 1)).shape == (1, 1)


def test_rates():
    assert set(mean_field_rates("sgd", 64, 16, gamma=2.0).values()) == {256.0}
    assert mean_field_rates("adam", 64, 16)["blocks"] == 1 / 8 / 4
    assert mean_field_rates("adam", 64, 16, depth_factor=False)["blocks"] == 1 / 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DepthScaledResidualMLP(0, 1, 1, 1), "sizes of at least 1"),
        (lambda: DepthScaledResidualMLP(1, 1, 1, 1, gamma=0), "positive richness"),
        (lambda: DepthScaledResidualMLP(1, 1, 1, 1, exponent=2), "exponent in"),
        (lambda: relu_depth_kernel(torch.ones(2, 3), 2), "square kernels"),
        (lambda: relu_depth_kernel(torch.zeros(2, 2), 2), "positive diagonal"),
        (lambda: relu_depth_kernel(torch.full((1, 1), math.nan), 2), "finite values"),
        (lambda: mean_field_rates("lion", 4, 4), "an optimizer out of"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
