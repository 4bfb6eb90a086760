"""Duals against closed forms in high precision, quadrature, limits and refusals."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core import dual_activations as duals

mpmath.mp.dps = 40
CASES = [(1.0, 1.0, 0.3), (0.7, 2.5, -1.1), (3.0, 0.2, 0.7), (1e-3, 5.0, 0.06), (2.0, 2.0, 1.998), (1.5, 0.5, 0.0)]


def relu_exact(q1, q2, k):
    c = k / mpmath.sqrt(q1 * q2)
    angle = mpmath.acos(c)
    mean = mpmath.sqrt(q1 * q2) * (mpmath.sin(angle) + (mpmath.pi - angle) * c) / (2 * mpmath.pi)
    return mean, (mpmath.pi - angle) / (2 * mpmath.pi)


def erf_exact(q1, q2, k):
    wide = (1 + 2 * q1) * (1 + 2 * q2)
    return 2 / mpmath.pi * mpmath.asin(2 * k / mpmath.sqrt(wide)), 4 / mpmath.pi / mpmath.sqrt(wide - 4 * k * k)


def sin_exact(q1, q2, k):
    scale = mpmath.exp(-(q1 + q2) / 2)
    return scale * mpmath.sinh(k), scale * mpmath.cosh(k)


def square_exact(q1, q2, k):
    c = k / mpmath.sqrt(q1 * q2)
    angle = mpmath.acos(c)
    third = (3 * mpmath.sin(angle) * c + (mpmath.pi - angle) * (1 + 2 * c * c)) / (2 * mpmath.pi)
    return q1 * q2 * third, 4 * relu_exact(q1, q2, k)[0]


@pytest.mark.parametrize(
    "activation, exact",
    [
        (duals.relu(), relu_exact),
        (duals.Erf(), erf_exact),
        (duals.Sin(), sin_exact),
        (duals.RectifiedSquare(), square_exact),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_closed_forms_in_high_precision(activation, exact, case):
    q1, q2, k = (torch.tensor([v], dtype=torch.float64) for v in case)
    for mine, right in zip(activation.dual(k, q1, q2), exact(*(mpmath.mpf(v) for v in case))):
        assert abs(mpmath.mpf(float(mine)) - right) <= 1e-12 * abs(right)


@pytest.mark.parametrize("q", [1e-6, 0.3, 1.0, 40.0])
@pytest.mark.parametrize(
    "activation, exact", [(duals.relu(), None), (duals.Erf(), erf_exact), (duals.Sin(), sin_exact)]
)
def test_diagonals_are_exact(activation, exact, q):
    mean, slope = activation.diagonal(torch.tensor([q], dtype=torch.float64))
    right = (
        (mpmath.mpf(q) / 2, mpmath.mpf(1) / 2) if exact is None else exact(mpmath.mpf(q), mpmath.mpf(q), mpmath.mpf(q))
    )
    assert abs(mpmath.mpf(float(mean)) - right[0]) <= 1e-12 * right[0]
    assert abs(mpmath.mpf(float(slope)) - right[1]) <= 1e-12 * right[1]


@pytest.mark.parametrize(
    "activation, nodes, tolerance",
    [
        (duals.ABReLU(-0.3, 1.2), 400, 2e-3),
        (duals.Erf(), 120, 1e-9),
        (duals.Sin(), 60, 1e-10),
        (duals.tanh(), 200, 1e-8),
        (duals.gelu(), 120, 1e-8),
        (duals.Identity(), 10, 1e-12),
        (duals.RectifiedSquare(), 300, 1e-4),
    ],
)
def test_duals_and_their_slopes_agree_with_quadrature(activation, nodes, tolerance):
    q1, q2 = torch.tensor([0.4, 1.0, 1.3]).double(), torch.tensor([0.9, 0.5]).double()
    k = torch.tensor([0.8, -0.5, 0.2]).double()[:, None] * (q1[:, None] * q2).sqrt()
    mean, slope = activation.dual(k, q1[:, None], q2[None])
    grid = (k, q1[:, None].expand_as(k), q2[None].expand_as(k))
    assert (mean - duals.gauss_hermite_dual(activation, *grid, nodes=nodes)).abs().max() < tolerance
    # E f' f' is the derivative of E f f by the covariance.
    step = 1e-5
    up, down = (activation.dual(k + d, q1[:, None], q2[None], False)[0] for d in (step, -step))
    assert (slope - (up - down) / (2 * step)).abs().max() < 1e-6


@settings(deadline=None, max_examples=25)
@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 1000))
def test_relu_family_gram_matrices_are_positive(a, b, seed):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)).double()
    cov = x @ x.mT
    var = cov.diagonal()
    mean, slope = duals.ABReLU(a, b).dual(cov, var[:, None], var[None])
    for values in (mean, slope):
        assert torch.linalg.eigvalsh(values)[0] > -1e-7 * max(1.0, float(values.abs().max()))


def test_zero_variance_and_equal_points_have_their_limits():
    zero, one = torch.zeros(1).double(), torch.ones(1).double()
    for activation in (duals.relu(), duals.Erf(), duals.Sin(), duals.tanh()):
        mean, slope = activation.dual(zero, zero, one)
        assert mean.abs().max() < 1e-12 and torch.isfinite(slope).all()
    nearly = torch.tensor([1 - 2e-16]).double()
    assert float(duals.relu().dual(nearly, one, one)[1]) == 0.5


def test_hermite_series_of_a_polynomial_is_exact():
    cube = duals.Hermite(lambda x: x**3, degree=3, nodes=20)
    k, q = torch.tensor([0.4]).double(), torch.tensor([1.7]).double()
    mean, slope = cube.dual(k, q, q)
    assert torch.allclose(mean, 6 * k**3 + 9 * q * q * k) and torch.allclose(slope, 9 * (q * q + 2 * k * k))
    assert torch.allclose(duals.hermite_coefficients(lambda x: x**2, 2.0, 3), torch.tensor([2, 0, 8**0.5, 0]).double())


def test_arc_cosines_known_values():
    c = torch.tensor([-1.0, 0.0, 1.0, 1 + 1e-12]).double()
    assert torch.allclose(duals.arc_cosine(c, 0), torch.tensor([0, 0.5, 1, 1]).double())
    assert torch.allclose(duals.arc_cosine(c, 1), torch.tensor([0, 1 / torch.pi, 1, 1]).double())


def test_refusals():
    with pytest.raises(ValueError, match="at least one node"):
        duals.hermite_nodes(0)
    with pytest.raises(ValueError, match="variances of at least 0"):
        duals.gaussian_mean(torch.tanh, -1.0)
    with pytest.raises(ValueError, match="finite values in variance"):
        duals.gaussian_mean(torch.tanh, float("nan"))
    with pytest.raises(ValueError, match="a degree from"):
        duals.hermite_coefficients(torch.tanh, 1.0, 300)
    with pytest.raises(ValueError, match="finite slopes"):
        duals.ABReLU(float("nan"))
    with pytest.raises(ValueError, match="an order out of 0, 1"):
        duals.arc_cosine(torch.zeros(1), 2)
    with pytest.raises(ValueError, match="finite values in cov"):
        duals.gauss_hermite_dual(torch.tanh, *torch.full((3, 1), float("nan")))


def test_meta_device():
    k = torch.empty(4, 3, device="meta", dtype=torch.float64)
    for activation in (duals.relu(), duals.Erf(), duals.Sin(), duals.RectifiedSquare()):
        mean, slope = activation.dual(k, k[:, :1], k[:1])
        assert mean.shape == slope.shape == k.shape
