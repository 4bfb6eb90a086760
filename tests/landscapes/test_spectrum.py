"""Exact Hessian of two layers against autograd, its null directions, counts, barriers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from netatlas.core.curvature import dense_matrix, gauss_newton_operator, hessian_matrix
from netatlas.core.nn import MLP
from netatlas.landscapes import (
    count_above,
    linear_path_barrier,
    near_zero_fraction,
    rank_bound,
    rescaling_directions,
    shift_directions,
    spectral_gap,
    two_layer_hessian,
)

CE = torch.nn.functional.cross_entropy


def setting(d=4, h=5, k=3, n=9, seed=0):
    torch.manual_seed(seed)
    module = MLP([d, h, k]).double()
    params = {name: v.detach().clone() for name, v in module.named_parameters()}
    return module, params, torch.randn(n, d, dtype=torch.float64), torch.randint(k, (n,))


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(0, 50))
def test_both_parts_are_autograds(d, h, k, n, seed):
    module, params, x, y = setting(d, h, k, n, seed)
    parts = two_layer_hessian(params, x, y)
    full = hessian_matrix(lambda p: CE(functional_call(module, p, (x,)), y), params)
    gauss = dense_matrix(gauss_newton_operator(lambda p: functional_call(module, p, (x,)), lambda f: CE(f, y), params))
    torch.testing.assert_close(parts.gauss_newton, gauss, rtol=0, atol=1e-13)
    torch.testing.assert_close(parts.gauss_newton + parts.residual, full, rtol=0, atol=1e-13)


def test_null_directions_at_any_point():
    module, params, x, y = setting()
    h = sum(two_layer_hessian(params, x, y))
    assert float((shift_directions(params) @ h).abs().max()) < 1e-15
    leaves = {k: v.clone().requires_grad_(True) for k, v in params.items()}
    grads = torch.autograd.grad(CE(functional_call(module, leaves, (x,)), y), list(leaves.values()))
    g = torch.cat([v.flatten() for v in grads])
    directions = rescaling_directions(params)
    sign = torch.cat([torch.ones(25), -torch.ones(18)]).double()
    assert float((directions @ g).abs().max()) < 1e-15
    assert float((directions @ h + (directions != 0) * sign * g).abs().max()) < 1e-15


def test_directions_leave_the_loss_alone():
    module, params, x, y = setting()
    shift = shift_directions(params)
    flat = torch.cat([v.flatten() for v in params.values()])
    for z in shift:
        moved, at = {}, 0
        for k, v in params.items():
            moved[k] = (flat + 3 * z)[at : at + v.numel()].reshape(v.shape)
            at += v.numel()
        assert (
            abs(float(CE(functional_call(module, moved, (x,)), y) - CE(functional_call(module, params, (x,)), y)))
            < 1e-13
        )


def test_rank_within_its_bound():
    for n in (2, 5, 40):
        _, params, x, y = setting(6, 4, 3, n)
        rank = int(torch.linalg.matrix_rank(two_layer_hessian(params, x, y).gauss_newton, hermitian=True, rtol=1e-10))
        assert rank <= rank_bound(n, 6, 4, 3)
    assert rank_bound(1000, 16, 12, 4) == 12 * 17 + 4 * 13 - 25


def test_dead_units_and_one_class():
    _, params, x, y = setting()
    params["layers.0.bias"] = torch.full((5,), -100.0, dtype=torch.float64)
    parts = two_layer_hessian(params, x, y)
    assert float(parts.residual.abs().max()) == 0 and float(parts.gauss_newton[:25].abs().max()) == 0
    _, one, x, _ = setting(k=1)
    assert float(sum(two_layer_hessian(one, x, torch.zeros(9, dtype=torch.int64))).abs().max()) < 1e-15


def test_gap_counts():
    values = [10, 9, 8, 1, 0.9, 0.8, 1e-9, -0.1]
    assert spectral_gap(values, first=4) == (3, 8.0)
    assert count_above(values, 0.05) == 6 and near_zero_fraction(values) == pytest.approx(1 / 8)
    assert spectral_gap(torch.tensor([4.0, 1.0])).after == 1


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=20), st.floats(0.1, 10))
def test_counts_do_not_see_the_scale(values, scale):
    assert count_above(values, 0.1) == count_above(np.array(values) * scale, 0.1)
    assert spectral_gap(values).after == spectral_gap(values[::-1]).after


def test_barrier_of_a_double_well_and_of_a_line():
    a, b = {"w": torch.tensor([[-1.0]])}, {"w": torch.tensor([[1.0]])}
    found = linear_path_barrier(lambda p: (p["w"].flatten() ** 2 - 1) ** 2, a, b, 11)
    assert float(found.barrier) == pytest.approx(1) and found.losses.shape == (11, 1)
    assert float(linear_path_barrier(lambda p: p["w"].sum(), a, b).barrier) == pytest.approx(0, abs=1e-6)


def test_runs_on_meta():
    _, params, x, y = setting()
    parts = two_layer_hessian({k: v.to("meta") for k, v in params.items()}, x.to("meta"), y.to("meta"))
    assert parts.gauss_newton.shape == parts.residual.shape == (43, 43)


def nan(params):
    return params | {"layers.0.bias": torch.full((5,), torch.nan, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, x, y: two_layer_hessian({"w": x}, x, y), "weights"),
        (lambda p, x, y: two_layer_hessian(nan(p), x, y), "finite"),
        (lambda p, x, y: two_layer_hessian(p, x[:0], y[:0]), "inputs"),
        (lambda p, x, y: two_layer_hessian(p, x[:, :2], y), "inputs"),
        (lambda p, x, y: two_layer_hessian(p, x, y[:3]), "9 labels"),
        (lambda p, x, y: two_layer_hessian(p, x, y + 5), "labels from 0"),
        (lambda p, x, y: shift_directions({}), "weights"),
        (lambda p, x, y: spectral_gap([1.0]), "two eigenvalues"),
        (lambda p, x, y: spectral_gap([-1.0, -2.0]), "two positive"),
        (lambda p, x, y: count_above([-1.0, -2.0], 0.1), "positive largest"),
        (lambda p, x, y: count_above([1.0, 2.0], 2), "share"),
        (lambda p, x, y: rank_bound(0, 1, 1, 1), "at least 1"),
        (lambda p, x, y: linear_path_barrier(lambda q: x.sum(), p, {"a": x}), "ends of one shape"),
        (lambda p, x, y: linear_path_barrier(lambda q: x.sum(), p, p, 2), "three points"),
    ],
)
def test_refusals(call, words):
    _, params, x, y = setting()
    with pytest.raises(ValueError, match=words):
        call(params, x, y)
