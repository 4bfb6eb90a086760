"""Narrow networks: constructions against the functions they are to be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.parameterization import (
    NarrowNetwork,
    ShearBuilder,
    absolute_value_network,
    coding_network,
    corner_times,
    minimum_width,
    polyline,
    polyline_network,
    ridge_network,
    sup_error,
)
from netatlas.parameterization.narrow import CROSSING


def test_the_theorems_table():
    wanted = {(1, 1): 2, (1, 2): 3, (1, 3): 3, (2, 1): 3, (2, 2): 3, (2, 3): 4, (3, 7): 7}
    assert {shape: minimum_width(*shape) for shape in wanted} == wanted
    assert [minimum_width(*s, "lp") for s in ((1, 1), (2, 1), (1, 3))] == [2, 2, 3]


@settings(deadline=None, max_examples=20)
@given(slope=st.floats(0.05, 0.95), dimension=st.integers(1, 4), count=st.integers(3, 7), seed=st.integers(0, 99))
def test_any_polyline_is_drawn_exactly(slope, dimension, count, seed):
    corners = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    net = polyline_network(corners, corner_times(corners).tolist(), slope=slope)
    t = torch.linspace(-2, 2, 1001, dtype=torch.float64)
    assert float(sup_error(net(t[:, None]), polyline(corners, t))) < 1e-12
    assert net.width == dimension + 1 and net.depth == 2 * (count - 2)


@settings(deadline=None, max_examples=20)
@given(slope=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_a_shear_adds_a_piecewise_linear_function_and_nothing_else(slope, seed):
    rng = np.random.default_rng(seed)
    knots = np.sort(rng.uniform(-1, 1, 6))
    values = rng.normal(size=6)
    points = torch.tensor(rng.uniform(-1, 1, (200, 3)))
    builder = ShearBuilder(points, slope)
    builder.add_piecewise_linear(1, 2, knots, values)
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    out = builder.network((eye, zero), (eye, zero))(points)
    inside = torch.tensor((points[:, 1].numpy() >= knots[0]) & (points[:, 1].numpy() <= knots[-1]))
    added = torch.tensor(np.interp(points[:, 1].numpy(), knots, values))
    torch.testing.assert_close(out[:, :2], points[:, :2], rtol=0, atol=1e-11)
    torch.testing.assert_close((out - points)[inside, 2], added[inside], rtol=0, atol=1e-9)


def test_absolute_value():
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
    for slope in (0.01, 0.5, 0.99):
        torch.testing.assert_close(absolute_value_network(slope)(x), x.abs(), atol=1e-13, rtol=1e-12)


def test_ridge_network_is_the_wide_layer_it_lays_out():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.sin(x[:, 0]) * x[:, 1]
    few, many = (float((ridge_network(x, y, units=u)(x)[:, 0] - y).abs().max()) for u in (4, 200))
    assert many < 0.01 < few
    one = torch.nn.functional.leaky_relu(x @ torch.tensor([0.6, 0.8], dtype=torch.float64), 0.1)
    assert ridge_network(x, one, units=64).width == 3


def test_coding_network_converges_in_the_mean_and_not_in_the_maximum():
    def bump(p):
        return (3 * (p - 0.5)).norm(dim=1).clamp_max(1.0)[:, None]

    def pair(p):
        return torch.stack([p.prod(1), 0.5 + 0.4 * torch.sin(3 * p[:, 0])], 1)

    points = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for f, outputs in ((bump, 1), (pair, 2)):
        errors = [
            float(
                (coding_network(f, cells=m, levels=2 * m, outputs=outputs, jump=0.2 / m)(points) - f(points))
                .square()
                .mean()
            )
            for m in (4, 12)
        ]
        assert errors[1] < errors[0] / 3
        assert coding_network(f, cells=4, outputs=outputs).width == 2


def test_narrow_network_is_the_chain_of_its_formula():
    torch.manual_seed(0)
    net, x = NarrowNetwork(2, 3, 4, 5), torch.randn(7, 2)
    h = x @ net.enter.weight.T + net.enter.bias
    for w, b in zip(net.weights, net.biases):
        z = h @ w.T + b
        h = torch.where(z > 0, z, net.slope * z)
    torch.testing.assert_close(net(x), h @ net.leave.weight.T + net.leave.bias)


def test_narrow_network_shapes_and_width_one_is_monotone():
    net = NarrowNetwork(1, 1, 1, 6)
    out = net(torch.linspace(-3, 3, 50)[:, None])[:, 0].diff()
    assert bool((out >= -1e-6).all() or (out <= 1e-6).all())
    assert NarrowNetwork(2, 3, 4, 5).to("meta")(torch.empty(7, 2, device="meta")).shape == (7, 4)


def test_polyline_passes_its_corners():
    torch.testing.assert_close(polyline(CROSSING, corner_times(CROSSING)), CROSSING, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: minimum_width(0, 1), "dimensions of at least 1"),
        (lambda: minimum_width(1, 1, "sup"), "a norm out of"),
        (lambda: NarrowNetwork(1, 1, 1, 1, slope=1.0), "a slope in"),
        (lambda: absolute_value_network(0.0), "a slope in"),
        (lambda: ShearBuilder(torch.full((1, 2), math.nan)), "finite values"),
        (lambda: ShearBuilder(torch.zeros(0, 2)), "points"),
        (lambda: ShearBuilder(torch.ones(1, 2)).add_piecewise_linear(0, 1, [0, 0], [1, 2]), "increasing knots"),
        (lambda: ShearBuilder(torch.ones(1, 2)).add_piecewise_linear(0, 0, [0, 1], [1, 2]), "different source"),
        (lambda: ShearBuilder(torch.ones(1, 2)).shear(0, 0.0, torch.ones(2)), "no amount"),
        (lambda: polyline_network(CROSSING, [0, 1, 2, 2, 3]), "increasing times"),
        (lambda: polyline_network(CROSSING[:2], [0, 1]), "three corners"),
        (lambda: coding_network(lambda p: p[:, :1], cells=1), "two cells"),
        (lambda: coding_network(lambda p: 2 + p[:, :1], cells=2), "values in"),
        (lambda: sup_error(torch.ones(3, 2), torch.ones(2, 2)), "outputs"),
        (lambda: sup_error(torch.ones(3, 2), torch.ones(3, 2, device="meta")), "targets on cpu"),
        (lambda: ridge_network(torch.ones(2, 1), torch.ones(3), units=1), "one target an input"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
