"""Second-order barriers on landscapes where they are known, orders that part when they should, and the toy ridge."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from netatlas.connectivity import (
    SecondOrder,
    barrier_second_order,
    branch_angle,
    branched_orders,
    directional_curvature,
    layer_second_order,
    ridge_landscape,
    ridge_walks,
)
from netatlas.connectivity import experiments as ex
from netatlas.core.curvature import flatten_params, hessian_operator
from netatlas.core.nn import MLP, ConvNet
from netatlas.core.train import stack_members


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.95))
def test_on_a_quadratic_the_prediction_is_the_barrier(seed, share):
    generator = torch.Generator().manual_seed(seed)
    root, linear, a, b = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, 4), (4,), (4,), (4,)))
    h = root @ root.T

    def loss(t):
        return t @ h @ t / 2 + linear @ t

    d = b - a
    slopes = torch.stack([d @ (h @ t + linear) for t in (a, b)]).reshape(2, 1, 1)
    found = SecondOrder(slopes, (d @ h @ d).expand(2, 1, 1), d.square().sum().reshape(1, 1))
    truth = loss(a + share * d) - (1 - share) * loss(a) - share * loss(b)
    assert float(barrier_second_order(found, share=share)) == pytest.approx(float(truth), rel=1e-9, abs=1e-9)
    if abs(share - 0.5) < 1e-12:
        assert float(truth) == pytest.approx(-float(d @ h @ d) / 8)


def test_a_double_well_is_overestimated_by_the_curvature_of_its_floors():
    # (x^2 - 1)^2 between -1 and 1: no slope, curvature 8, distance 2.
    found = SecondOrder(torch.zeros(2, 1, 1), torch.full((2, 1, 1), 8.0 * 4), torch.full((1, 1), 4.0))
    assert float(barrier_second_order(found)) == 4.0
    assert float(barrier_second_order(found, gradient=False)) == 4.0


def test_slopes_and_curvatures_agree_with_differences_of_the_loss():
    modules = []
    for seed in range(4):
        torch.manual_seed(seed)
        modules.append(MLP([4, 6, 3], activation="tanh").double())
    first, second = (stack_members(modules[i::2])[0] for i in range(2))
    x, y = torch.randn(30, 4).double(), torch.randint(0, 3, (30,))
    found = directional_curvature(modules[0], first, second, x, y)
    assert found.curvature.shape == (2, 3, 2)
    assert not any(part.requires_grad for part in found)

    def loss(state):
        return float(torch.nn.functional.cross_entropy(functional_call(modules[0], state, (x,)), y))

    eps = 1e-4
    for m in range(2):
        for k, names in enumerate([list(first), *(list(g) for g in (["layers.0.weight", "layers.0.bias"],))]):
            ends = [{n: v[m] for n, v in side.items()} for side in (first, second)]
            d = {n: (ends[1][n] - ends[0][n]) * (n in names) for n in ends[0]}
            for e, end in enumerate(ends):
                up, down = (loss({n: v + s * eps * d[n] for n, v in end.items()}) for s in (1, -1))
                assert float(found.slope[e, k, m]) == pytest.approx((up - down) / (2 * eps), rel=1e-4, abs=1e-6)
                bend = (up - 2 * loss(end) + down) / eps**2
                assert float(found.curvature[e, k, m]) == pytest.approx(bend, rel=1e-3, abs=1e-4)
    rise = found.slope[0, 1:] / 2 + found.curvature[0, 1:] / 8
    torch.testing.assert_close(layer_second_order(found), rise)
    torch.testing.assert_close(layer_second_order(found, gradient=False), found.curvature[0, 1:] / 8)


@settings(deadline=None, max_examples=20)
@given(branch=st.integers(0, 36), seed=st.integers(0, 99))
def test_orders_agree_up_to_the_branch_and_are_orders(branch, seed):
    found = branched_orders(12, 3, seeds=[(seed, seed + 100)], branch=branch)
    assert found.shape == (3, 2, 12)
    assert torch.equal(found.sort(-1).values, torch.arange(12).expand(3, 2, 12))
    first, second = found[:, 0].flatten(), found[:, 1].flatten()
    assert torch.equal(first[:branch], second[:branch])
    if branch <= 24:
        assert not torch.equal(first, second)


def test_order_inside_groups_ignores_the_groups_and_a_pair_tied_with_itself():
    none = torch.zeros(4)

    def group(number, middle, predicted):
        values = (torch.tensor(v, dtype=torch.float64) for v in (middle, predicted))
        middle, predicted = (v + 100 * number for v in values)
        return ex.Branches("", number, none, middle, predicted, none, none, none, none, none, none)

    up = [group(g, [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]) for g in range(2)]
    down = [group(g, [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]) for g in range(2)]
    assert ex.within_groups(up, "predicted", draws=50)[0] == pytest.approx(1)
    # A pair drawn twice must not be taken for two pairs in the right order.
    assert ex.within_groups(down, "predicted", draws=200) == pytest.approx((-1, -1, -1))
    ours, other, wins = ex.rank_difference(up, "predicted", "middle", draws=50)
    assert (ours, other, wins) == (pytest.approx(1), pytest.approx(1), 0)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_curvature_of_convolutions_agrees_with_the_hessian_operator(norm):
    modules = []
    for seed in range(2):
        torch.manual_seed(seed)
        modules.append(ConvNet([4], 3, in_channels=1, norm=norm).double())
    first, second = (stack_members(modules[i::2])[0] for i in range(2))
    x, y = torch.randn(5, 1, 6, 6).double(), torch.randint(0, 3, (5,))
    found = directional_curvature(modules[0], first, second, x, y)

    def loss(p):
        return torch.nn.functional.cross_entropy(functional_call(modules[0], p, (x,)), y)

    plain = {k: v[0] for k, v in first.items()}
    d = flatten_params({k: second[k][0] - v for k, v in plain.items()})
    expected = float(d @ hessian_operator(loss, plain)(d))
    assert float(found.curvature[0, 0, 0]) == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_angles_of_known_ways():
    start = {"w": torch.zeros(4, 2)}
    first = {"w": torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])}
    second = {"w": torch.tensor([[0.0, 3.0], [5.0, 0.0], [-1.0, 0.0], [1.0, 1.0]])}
    torch.testing.assert_close(branch_angle(start, first, second), torch.tensor([90.0, 0.0, 180.0, 0.0]).double())


def test_the_toy_has_a_ridge_of_the_height_it_says():
    y = torch.linspace(-1, 2, 13).double()
    s = y.clamp(0, 1)
    ridge = ridge_landscape(torch.zeros_like(y), y) - ridge_landscape(s.sqrt(), y)
    torch.testing.assert_close(ridge, s.square())
    runs = ridge_walks(0, pairs=30, seed=1)
    assert 0.2 < float(runs.apart.double().mean()) < 0.8
    torch.testing.assert_close(runs.barrier[runs.apart], torch.ones(int(runs.apart.sum())).double(), atol=0.01, rtol=0)
    assert float(runs.barrier[~runs.apart].max()) < 0.01
    assert runs.branch_height == -1.0


def test_a_pair_that_never_parts_is_one_network():
    x, y = torch.randn(24, 4), torch.randint(0, 3, (24,))
    square, barrier = ex.unparted_pair(
        lambda: MLP([4, 5, 3]), x_y := (x, y), seed=0, batch_size=6, lr=0.1, momentum=0.9
    )
    assert square == 0 and barrier == 0 and x_y[0] is x


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="a branch between"):
        branched_orders(10, 2, seeds=[(0, 1)], branch=21)
    with pytest.raises(ValueError, match="at least one pair"):
        branched_orders(10, 2, seeds=[], branch=0)
    with pytest.raises(ValueError, match="at least one pair"):
        ridge_walks(0, pairs=0)
    with pytest.raises(ValueError, match="NaN"):
        branch_angle({"w": torch.zeros(1, 2)}, {"w": torch.full((1, 2), math.nan)}, {"w": torch.zeros(1, 2)})
