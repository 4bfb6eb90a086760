"""Sum, mean and maximum: star networks against real graphs, exact constructions, exact obstructions."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import SAGEConv

from netatlas.expressivity import (
    AggregationConv,
    IntegerStarGNN,
    SkipMLP,
    StarGNN,
    exact_share_product,
    extrapolate_to_zero,
    polynomial_order,
    ratio_by_relu_steps,
)


@pytest.mark.parametrize("kinds", [("sum",), ("mean",), ("max",), ("sqrt",), ("sum", "mean"), ("sqrt", "max")])
def test_a_star_is_the_graph_that_it_stands_for(kinds):
    torch.manual_seed(0)
    star = StarGNN(kinds, features=2, layers=3, width=5).double()
    counts, features = [3, 2], torch.randn(3, 2, dtype=torch.float64)
    x = torch.cat([features[:1], features[1:2].expand(3, 2), features[2:].expand(2, 2)])
    leaves = torch.arange(1, 6)
    edges = torch.cat(
        [
            torch.stack([leaves, torch.zeros(5, dtype=torch.int64)]),
            torch.stack([torch.zeros(5, dtype=torch.int64), leaves]),
        ],
        1,
    )
    for update in star.updates:
        x = AggregationConv(update, kinds)(x, edges)
    packed = torch.cat([features[0], torch.tensor([3.0]), features[1], torch.tensor([2.0]), features[2]])
    torch.testing.assert_close(star(packed[None]), star.read(x[0]))
    # A kind of leaf that does not occur changes nothing.
    absent = torch.cat([packed, torch.tensor([0.0, 9.0, 9.0])])
    torch.testing.assert_close(star(absent[None]), star(packed[None]))
    assert counts == [3, 2]


def test_mean_layer_is_sage():
    torch.manual_seed(0)
    theirs = SAGEConv(3, 4)
    update = torch.nn.Linear(6, 4)
    with torch.no_grad():
        update.weight.copy_(torch.cat([theirs.lin_r.weight, theirs.lin_l.weight], 1))
        update.bias.copy_(theirs.lin_l.bias)
    x, edges = torch.randn(5, 3), torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 1, 1]])
    torch.testing.assert_close(AggregationConv(update, ["mean"])(x, edges), theirs(x, edges))


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_layers_do_not_see_the_numbering(seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    conv = AggregationConv(SkipMLP(15, 4, 4), ["sum", "mean", "max", "sqrt"]).double()
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    edges = torch.randint(0, 6, (2, 9), generator=generator)
    order = torch.randperm(6, generator=generator)
    torch.testing.assert_close(conv(x, edges)[order], conv(x[order], order.argsort()[edges]))


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_the_share_of_a_colour_by_sums_alone(steps):
    a, b = (v.flatten().double() for v in torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij"))
    a, b = a[1:], b[1:]
    found = ratio_by_relu_steps(a, b, steps)
    exact = torch.tensor(
        [float(Fraction(int(steps * x) // int(x + y), steps)) for x, y in zip(a, b)], dtype=torch.float64
    )
    assert torch.equal(found, exact)
    error = a / (a + b) - found
    assert error.min() >= -1e-15 and error.max() < 1 / steps
    assert ratio_by_relu_steps(torch.empty(4, device="meta"), torch.empty(4, device="meta"), steps).shape == (4,)


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_three_layers_with_a_mean_multiply(a, b):
    if a + b:
        exact = Fraction(a * a, a + b)
        assert exact_share_product(torch.tensor(float(a)).double(), torch.tensor(float(b))).item() == pytest.approx(
            float(exact)
        )


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_far_out_a_sum_network_is_a_polynomial_that_forgets_the_value_at_n_zero(layers):
    order, far, depends = 2 + (layers + 1) // 2, 10**9, 0
    for seed in range(8):
        net = IntegerStarGNN(layers, aggregation="sum", seed=seed)
        line = net([far + k for k in range(order + 3)], [far + 2 * k for k in range(order + 3)])
        assert polynomial_order(line) <= order
        mean = IntegerStarGNN(layers, aggregation="mean", seed=seed)
        ends = [
            {
                extrapolate_to_zero(one([far + k for k in range(order + 2)], [c] * (order + 2)), far)
                for c in (far, far + 7)
            }
            for one in (net, mean)
        ]
        assert len(ends[0]) == 1
        depends += len(ends[1]) > 1
    assert depends >= 4


def test_integer_network_is_its_floating_twin():
    net = IntegerStarGNN(3, aggregation="sum", seed=4)
    n, c = [1, 2, 5], [3, 0, 2]
    for k in range(3):
        centre, leaf = np.zeros((1, 1)), np.full((1, 1), float(c[k]))
        for first, bias, second, shift in (tuple(m.astype(float) for m in layer) for layer in net.layers):
            new = [
                second @ np.maximum(first @ np.concatenate(pair) + bias, 0) + shift
                for pair in ((centre, leaf * n[k]), (leaf, centre))
            ]
            centre, leaf = new
        assert net(n, c)[k] == centre[0, 0]


def test_differences_and_extrapolation_of_a_known_polynomial():
    values = [3 * k**3 - k + 5 for k in range(10**6, 10**6 + 7)]
    assert polynomial_order(values) == 4 and extrapolate_to_zero(values, 10**6) == 5
    assert polynomial_order([0, 0]) == 0 and polynomial_order([1]) == 1
    assert polynomial_order([2**k for k in range(6)]) == 6


def test_bad_input_is_refused():
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match="aggregations out of"):
        AggregationConv(SkipMLP(6, 4, 4), ["median"])
    with pytest.raises(ValueError, match="aggregations out of"):
        StarGNN([])
    with pytest.raises(ValueError, match="at least one layer"):
        StarGNN(["sum"], layers=0)
    with pytest.raises(ValueError, match="node indices"):
        AggregationConv(SkipMLP(6, 4, 4))(x, torch.tensor([[0], [2]]))
    with pytest.raises(ValueError, match="at least 1"):
        SkipMLP(0, 1, 1)
    for a, b, words in (
        (-1.0, 2.0, "whole counts"),
        (0.5, 1.0, "whole counts"),
        (0.0, 0.0, "sum of at least 1"),
        (float("nan"), 1.0, "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            ratio_by_relu_steps(torch.tensor(a), torch.tensor(b), 3)
    with pytest.raises(ValueError, match="at least one step"):
        ratio_by_relu_steps(torch.tensor(1.0), torch.tensor(1.0), 0)
    with pytest.raises(ValueError, match="at least one leaf"):
        exact_share_product(torch.tensor(0.0), torch.tensor(0.0))
    with pytest.raises(ValueError, match="at least one layer"):
        IntegerStarGNN(0)
    with pytest.raises(ValueError, match="sum, mean"):
        IntegerStarGNN(1, aggregation="max")
    for function in (polynomial_order, lambda v: extrapolate_to_zero(v, 0)):
        with pytest.raises(ValueError, match="at least one value"):
            function([])


def test_isolated_nodes_hear_nothing():
    conv = AggregationConv(torch.nn.Identity(), ["sum", "mean", "max", "sqrt"])
    out = conv(torch.ones(2, 1), torch.tensor([[0], [0]]))
    assert out.tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
