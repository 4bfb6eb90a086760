"""Barriers against a plain loop, against what convexity forces, and against copies that have none."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from netatlas.connectivity import (
    cumulative_barrier,
    evaluate_points,
    interpolate_parameters,
    joint_direction_control,
    layer_groups,
    layerwise_barrier,
    linear_barrier,
    linear_path,
    random_direction_control,
    segment_barrier,
    stack_points,
)
from netatlas.connectivity import experiments as ex
from netatlas.connectivity.barriers import Path, _measured
from netatlas.core.nn import MLP
from netatlas.core.train import stack_members


def pairs(count=2, widths=(4, 6, 5, 3), seed=0):
    modules = []
    for i in range(2 * count):
        torch.manual_seed(seed + i)
        modules.append(MLP(list(widths)).double())
    first, second = (stack_members(modules[i::2])[0] for i in range(2))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, widths[0], generator=generator, dtype=torch.float64)
    return modules, first, second, x, torch.randint(0, widths[-1], (40,), generator=generator)


def loss_of(module, x, y):
    with torch.no_grad():
        return float(F.cross_entropy(module(x), y))


def mixed(a, b, share, only=None):
    net = copy.deepcopy(a)
    state = a.state_dict()
    net.load_state_dict(
        {k: v + share * (b.state_dict()[k] - v) if only is None or k in only else v for k, v in state.items()}
    )
    return net


def test_every_point_agrees_with_a_loop_over_modules():
    modules, first, second, x, y = pairs()
    path = linear_path(modules[0], first, second, x, y, shares=[0.0, 0.3, 1.0])
    found = layerwise_barrier(modules[0], first, second, x, y)
    for m in range(2):
        a, b = modules[2 * m], modules[2 * m + 1]
        ends = (loss_of(a, x, y) + loss_of(b, x, y)) / 2
        assert float(path.loss[1, m]) == pytest.approx(loss_of(mixed(a, b, 0.3), x, y))
        assert float(path.error[1, m]) == pytest.approx(float((mixed(a, b, 0.3)(x).argmax(1) != y).double().mean()))
        assert float(found.full[m]) == pytest.approx(loss_of(mixed(a, b, 0.5), x, y) - ends)
        for i, names in enumerate(layer_groups(list(first)).values()):
            assert float(found.loss[0, i, m]) == pytest.approx(loss_of(mixed(a, b, 0.5, names), x, y) - ends)
            assert float(found.loss[1, i, m]) == pytest.approx(loss_of(mixed(b, a, 0.5, names), x, y) - ends)


@pytest.mark.parametrize("bias", [True, False])
def test_points_that_share_layers_have_the_losses_of_points_that_do_not(bias):
    modules = []
    for i in range(4):
        torch.manual_seed(i)
        modules.append(MLP([4, 6, 5, 3], bias=bias, activation="tanh").double())
    first, second = (stack_members(modules[i::2])[0] for i in range(2))
    x, y = torch.randn(1500, 4).double(), torch.randint(0, 3, (1500,))
    layers = list(layer_groups(list(first)).values())
    points = [first, second, *(interpolate_parameters(first, second, 0.5, only=names) for names in layers)]
    points += [interpolate_parameters(second, first, 0.2, only=layers[-1]), first]
    found = _measured(modules[0], points, x, y, 2)
    expected = evaluate_points(modules[0], stack_points(points), x, y)
    for ours, plain in zip(found, expected):
        torch.testing.assert_close(ours, plain.reshape(len(points), 2))


def test_equal_copies_of_tensors_change_nothing():
    modules, first, second, x, y = pairs(seed=8)
    copied = {name: value.clone() for name, value in first.items()}
    torch.testing.assert_close(
        layerwise_barrier(modules[0], copied, second, x, y).loss,
        layerwise_barrier(modules[0], first, second, x, y).loss,
    )


def test_other_modules_are_evaluated_as_they_are():
    class Twice(MLP):
        def forward(self, x):
            return 2 * super().forward(x)

    modules, first, second, x, y = pairs(seed=2)
    net = Twice([4, 6, 5, 3]).double()
    path = linear_path(net, first, second, x, y, shares=[0.0, 1.0])
    assert float(path.loss[0, 0]) == pytest.approx(float(F.cross_entropy(2 * modules[0](x).detach(), y)))


def test_copies_compute_the_same_and_the_undone_one_is_the_network():
    rows = {row["copy"]: row for row in ex.copy_table([0])}
    assert max(row["change of the outputs"] for row in rows.values()) < 1e-12
    assert rows["in another order"]["barrier"] > 0.1 < rows["scaled, in another order"]["barrier"]
    assert rows["the same, undone"]["squared distance"] < 1e-20
    assert abs(rows["the same, undone"]["barrier"]) < 1e-12


def test_growing_sets_end_at_nothing_and_at_everything():
    modules, first, second, x, y = pairs(seed=3)
    found = layerwise_barrier(modules[0], first, second, x, y)
    for order in (list(layer_groups(list(first))), list(layer_groups(list(first)))[::-1]):
        curve = cumulative_barrier(modules[0], first, second, x, y, order=order)
        torch.testing.assert_close(curve[0], (found.ends[0] - found.ends[1]) / 2)
        torch.testing.assert_close(curve[-1], found.full)
    torch.testing.assert_close(curve[1], found.loss[0, -1])


def test_a_network_has_no_barrier_with_itself():
    modules, first, _, x, y = pairs()
    ends = (modules[0], first, first, x, y)
    for values in (layerwise_barrier(*ends).loss, joint_direction_control(*ends), segment_barrier(*ends)):
        assert float(values.abs().max()) < 1e-12
    assert float(random_direction_control(*ends, draws=1).abs().max()) < 1e-12


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_the_last_layer_is_convex_and_so_is_every_layer_of_a_linear_network(seed):
    modules, first, second, x, y = pairs(seed=seed)
    assert float(segment_barrier(modules[0], first, second, x, y)[-1].max()) <= 1e-12
    assert ex.linear_network_bend(seed) >= -1e-9


def test_the_random_control_goes_as_far_as_the_layer():
    modules, first, second, x, y = pairs()
    again = random_direction_control(modules[0], first, second, x, y, draws=2, seed=5)
    torch.testing.assert_close(again, random_direction_control(modules[0], first, second, x, y, draws=2, seed=5))
    # On a flat piece of a quadratic the rise is half the squared radius: one layer, squared norm for a loss.
    net = torch.nn.Linear(3, 2, bias=False).double()
    a, b = {"weight": torch.zeros(1, 2, 3).double()}, {"weight": torch.ones(1, 2, 3).double()}
    points = [
        random_direction_control(net, a, b, torch.eye(3).double(), torch.zeros(3).long(), draws=1, seed=s)
        for s in range(3)
    ]
    assert all(p.shape == (2, 1, 1) for p in points)


def test_the_joint_control_of_one_layer_is_its_barrier():
    modules, first, second, x, y = pairs(widths=(4, 3))
    ends = (modules[0], first, second, x, y)
    torch.testing.assert_close(joint_direction_control(*ends), layerwise_barrier(*ends).loss)


def test_a_barrier_is_measured_from_the_line_between_the_ends():
    shares = torch.linspace(0, 1, 5).double()
    loss = torch.stack([1 + shares, 3 - 2 * shares + 4 * shares * (1 - shares)], 1)
    barrier = linear_barrier(Path(shares, loss, loss))
    torch.testing.assert_close(barrier, torch.tensor([0.0, 1.0]).double())


def test_interpolation_moves_only_what_it_is_told_to():
    _, first, second, _, _ = pairs()
    moved = interpolate_parameters(first, second, torch.tensor([0.0, 1.0]), only=["layers.0.weight"])
    torch.testing.assert_close(moved["layers.0.weight"][0], first["layers.0.weight"][0])
    torch.testing.assert_close(moved["layers.0.weight"][1], second["layers.0.weight"][1])
    assert moved["layers.1.weight"] is first["layers.1.weight"]
    assert len(stack_points([first, second])["layers.0.bias"]) == 4


def test_bad_input_is_refused():
    modules, first, second, x, y = pairs()
    with pytest.raises(ValueError, match="names out of"):
        interpolate_parameters(first, second, 0.5, only=["head"])
    with pytest.raises(ValueError, match="as many labels"):
        evaluate_points(modules[0], first, x[:0], y[:0])
    with pytest.raises(ValueError, match="as many labels"):
        evaluate_points(modules[0], first, x, y[:3])
    with pytest.raises(ValueError, match="every layer"):
        cumulative_barrier(modules[0], first, second, x, y, order=["layers.0"])
    with pytest.raises(ValueError, match="at least one draw"):
        random_direction_control(modules[0], first, second, x, y, draws=0)
    with pytest.raises(ValueError, match="at least one parameter name"):
        layer_groups([])
    with pytest.raises(ValueError, match="at least one point"):
        stack_points([])
    with pytest.raises(ValueError, match="has shape"):
        layerwise_barrier(modules[0], first, {k: v[..., :1] for k, v in second.items()}, x, y)
    with pytest.raises(ValueError, match="at least one share"):
        linear_path(modules[0], first, second, x, y, shares=[])
    broken = {k: v * float("nan") for k, v in second.items()}
    with pytest.raises(ValueError, match="NaN"):
        linear_path(modules[0], first, broken, x, y, shares=[0.5])
    path = Path(torch.tensor([0.0, 1.0]), torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="a point between"):
        linear_barrier(path)
    with pytest.raises(ValueError, match="a measure out of"):
        linear_barrier(path, measure="time")
