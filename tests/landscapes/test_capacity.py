"""Capacity: the banded convolution against torch's, Cover's count, ladders, minima, refusals."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netatlas.core.nn import MLP
from netatlas.landscapes import (
    StridedConvNet,
    check_minimum,
    effective_model_complexity,
    largest_fitted,
    linearly_separable,
    prefix_loss,
    separable_probability,
    train_prefixes,
)


@pytest.mark.parametrize("side", [3, 4, 7, 8])
def test_banded_product_is_the_convolution(side):
    torch.manual_seed(0)
    net = StridedConvNet(side, (3, 5), 4).double()
    x = torch.randn(6, 1, side, side, dtype=torch.float64)
    first = net.first.weight.reshape(3, 3, 3, 1).permute(0, 3, 1, 2)
    second = net.second.weight.reshape(5, 3, 3, 3).permute(0, 3, 1, 2)
    h = torch.relu(nn.functional.conv2d(x, first, net.first.bias, stride=2, padding=1))
    h = torch.relu(nn.functional.conv2d(h, second, net.second.bias, stride=2, padding=1))
    torch.testing.assert_close(net(x), net.head(h.permute(0, 2, 3, 1).flatten(1)))
    assert sum(p.numel() for p in StridedConvNet().parameters()) == 830


def test_cover_by_brute_force():
    assert separable_probability(3, 5) == 1 and separable_probability(10, 5) == 0.5
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2))
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 5)).reshape(5, -1).T
    share = np.mean([linearly_separable(x, s) for s in signs])
    assert share == separable_probability(5, 2)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(1, 30))
def test_cover_falls_with_points_and_rises_with_dimensions(n, d):
    assert 0 <= separable_probability(n + 1, d) <= separable_probability(n, d) <= separable_probability(n, d + 1) <= 1


def test_ladder_stops_at_the_first_failure():
    fitted = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=bool)
    assert largest_fitted(fitted, [5, 6, 7, 8]).tolist() == [6, 0, 8]


def data(members=2, n=20):
    g = torch.Generator().manual_seed(0)
    return torch.randn(members, n, 5, generator=g), torch.randint(3, (members, n), generator=g)


def test_a_prefix_of_the_stack_trains_like_one_alone():
    x, y = data()
    options = {"steps": 20, "batch_size": 4, "lr": 0.01}
    build = partial(MLP, [5, 6, 3])
    both = train_prefixes(build, x, y, torch.tensor([7, 20]), seeds=[1, 2], **options)
    alone = train_prefixes(build, x[1:], y[1:], torch.tensor([20]), seeds=[2], **options)
    for name, value in alone.params.items():
        torch.testing.assert_close(both.params[name][1], value[0], rtol=1e-4, atol=1e-5)
    assert both.correct.dtype == torch.int64


def test_examples_beyond_the_prefix_do_not_matter():
    x, y = data()
    other = x.clone()
    other[:, 7:] += 100
    options = {"seeds": [1, 2], "steps": 10, "lr": 0.01}
    for batch in (4, None, 50):
        ends = [
            train_prefixes(partial(MLP, [5, 6, 3]), a, y, torch.tensor([7, 7]), batch_size=batch, **options)
            for a in (x, other)
        ]
        torch.testing.assert_close(ends[0].loss, ends[1].loss)


def test_capacity_of_a_linear_network_lies_near_covers():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 40, 10, generator=g)
    y = torch.randint(2, (2, 40), generator=g)
    found = effective_model_complexity(
        partial(MLP, [10, 2], bias=False), x, y, [8, 40], seeds=[0, 1], steps=800, batch_size=None, rates=(0.1,)
    )
    assert found.capacity.tolist() == [8, 8] and found.censored == 0 and found.fitted.shape == (2, 2, 1)


def test_wide_networks_fit_everything_and_one_class_is_trivial():
    x, y = data()
    found = effective_model_complexity(
        partial(MLP, [5, 64, 3]), x, y, [1, 20], seeds=[0, 1], steps=300, batch_size=None, rates=(0.01, 0.03)
    )
    assert found.capacity.tolist() == [20, 20] and found.censored == 2
    same = effective_model_complexity(
        partial(MLP, [5, 2, 1]), x, torch.zeros_like(y), [20], seeds=[0, 1], steps=1, batch_size=2, rates=(0.01,)
    )
    assert same.capacity.tolist() == [20, 20]


def test_minimum_of_a_saddle_and_of_a_bowl():
    point = {"w": torch.zeros(2, 3)}
    scale = torch.tensor([[1.0, 2, 3], [1.0, -2, 3]]).double()
    found = check_minimum(lambda p: (scale * p["w"].square()).sum(1) / 2, point)
    assert float(found.gradient.max()) == 0
    torch.testing.assert_close(found.lowest, torch.tensor([1.0, -2]).double())
    torch.testing.assert_close(found.highest, torch.tensor([3.0, 3]).double())


def run(**changes):
    x, y = data()
    options = {"seeds": [0, 1], "steps": 1, "batch_size": 2, "rates": (0.1,)} | changes
    return effective_model_complexity(partial(MLP, [5, 3]), x, y, options.pop("ladder", [3, 5]), **options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: run(ladder=[5, 3]), "increasing"),
        (lambda: run(ladder=[0, 3]), "sizes from 1"),
        (lambda: run(ladder=[3, 50]), "sizes from 1"),
        (lambda: run(seeds=[0]), "2 seeds"),
        (lambda: run(rates=()), "learning rates"),
        (lambda: run(steps=0), "one step"),
        (lambda: StridedConvNet(0), "at least 1"),
        (lambda: separable_probability(0, 1), "at least 1"),
        (lambda: linearly_separable(np.ones((2, 2)), np.array([0, 1])), "signs"),
        (lambda: linearly_separable(np.full((2, 2), np.nan), np.array([1, -1])), "finite"),
        (lambda: largest_fitted(np.ones((1, 2), dtype=bool), [1]), "1 columns"),
        (lambda: prefix_loss(MLP([5, 3]), *data(), torch.tensor([0, 3])), "sizes from 1"),
        (lambda: prefix_loss(MLP([5, 3]), data()[0][:, :3], data()[1], torch.tensor([1, 3])), "inputs"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
