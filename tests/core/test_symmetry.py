"""Symmetries leave the function alone; matching finds what was hidden, and never more than there is."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.func import functional_call

from netatlas.core.nn import MLP, ConvNet, ResNet
from netatlas.core.symmetry import (
    WiredLayer,
    activation_matching,
    neuron_sets,
    permute_network,
    preactivations,
    random_permutations,
    rescale_network,
    residual_wiring,
    sequential_wiring,
    straight_through_matching,
    unit_neurons,
    weight_matching,
)


def network(seed, widths=(5, 7, 6, 3), **options):
    torch.manual_seed(seed)
    return MLP(list(widths), **options).double()


def state_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def inner(a, b):
    return sum(float((a[name] * b[name]).sum()) for name in a)


def factors_for(state, wiring, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = neuron_sets(wiring, state)
    return {k: torch.exp(torch.randn(n, generator=generator, dtype=torch.float64)) for k, n in sizes.items()}


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), bias=st.booleans())
def test_scaling_and_ordering_leave_a_relu_network_as_it_is(seed, bias):
    model = network(seed, bias=bias)
    state, x = state_of(model), torch.randn(20, 5, dtype=torch.float64)
    wiring = sequential_wiring(state)
    factors, orders = factors_for(state, wiring, seed), random_permutations(state, seed=seed)
    moved = permute_network(rescale_network(state, factors), orders)
    torch.testing.assert_close(functional_call(model, moved, (x,)), model(x), atol=1e-10, rtol=1e-10)
    # The group acts: undoing the factors gives the weights back, and scales commute with places.
    back = rescale_network(rescale_network(state, factors), {k: 1 / f for k, f in factors.items()})
    other = rescale_network(permute_network(state, orders), {k: f[orders[k]] for k, f in factors.items()})
    for name in state:
        torch.testing.assert_close(back[name], state[name])
        torch.testing.assert_close(other[name], moved[name])


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ConvNet([4, 6], 3, in_channels=2), (2, 8, 8)),
        (ResNet(4, 1, 3, in_channels=2, norm="none", bias=True), (2, 8, 8)),
    ],
    ids=["convolutions", "residual streams"],
)
def test_convolutions_and_residual_streams(model, shape):
    model = model.double()
    state, x = state_of(model), torch.randn(4, *shape, dtype=torch.float64)
    wiring = residual_wiring(state) if isinstance(model, ResNet) else sequential_wiring(state)
    factors, orders = factors_for(state, wiring, 1), random_permutations(state, seed=1, wiring=wiring)
    moved = permute_network(rescale_network(state, factors, wiring=wiring), orders, wiring=wiring)
    torch.testing.assert_close(functional_call(model, moved, (x,)), model(x), atol=1e-10, rtol=1e-10)
    found = weight_matching(permute_network(state, orders, wiring=wiring), state, wiring=wiring)
    assert inner(permute_network(permute_network(state, orders, wiring=wiring), found, wiring=wiring), state) == (
        pytest.approx(inner(state, state))
    )


def test_a_smooth_activation_keeps_places_but_not_scales():
    model = network(0, activation="tanh")
    state, x = state_of(model), torch.randn(9, 5, dtype=torch.float64)
    orders = random_permutations(state, seed=2)
    torch.testing.assert_close(functional_call(model, permute_network(state, orders), (x,)), model(x))
    scaled = rescale_network(state, factors_for(state, sequential_wiring(state), 0))
    assert not torch.allclose(functional_call(model, scaled, (x,)), model(x), atol=1e-3)


def test_unit_neurons_are_the_same_for_all_rescaled_copies():
    model = network(3)
    state, x = state_of(model), torch.randn(9, 5, dtype=torch.float64)
    ours = unit_neurons(state)
    again = unit_neurons(rescale_network(state, factors_for(state, sequential_wiring(state), 5)))
    for name in state:
        torch.testing.assert_close(ours[name], again[name])
    torch.testing.assert_close(functional_call(model, ours, (x,)), model(x))
    rows = torch.cat([ours["layers.1.weight"], ours["layers.1.bias"][:, None]], 1)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_a_neuron_without_weights_keeps_its_scale():
    state = state_of(network(0))
    state["layers.0.weight"][2] = 0
    state["layers.0.bias"][2] = 0
    assert all(value.isfinite().all() for value in unit_neurons(state).values())
    assert weight_matching(state, state)["layers.0"].tolist() == list(range(7))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_one_hidden_layer_is_matched_as_well_as_by_trying_all_orders(seed):
    a, b = (state_of(network(seed + i, (3, 5, 2))) for i in range(2))
    found = inner(permute_network(a, weight_matching(a, b)), b)
    every = [
        inner(permute_network(a, {"layers.0": torch.tensor(order)}), b) for order in itertools.permutations(range(5))
    ]
    assert found == pytest.approx(max(every))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_matching_never_falls_below_its_start_and_ends_where_no_set_can_improve(seed):
    a, b = state_of(network(seed)), state_of(network(seed + 1))
    start = random_permutations(a, seed=seed)
    orders = weight_matching(a, b, start=start, seed=seed)
    assert inner(permute_network(a, orders), b) >= inner(permute_network(a, start), b) - 1e-9
    again = weight_matching(a, b, start=orders, seed=seed + 7)
    assert all(torch.equal(again[name], orders[name]) for name in orders)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), bias=st.booleans())
def test_the_orders_are_those_of_a_loop_that_solves_every_set_in_every_sweep(seed, bias):
    a, b = (state_of(network(seed + i, (5, 7, 6, 8, 3), bias=bias)) for i in range(2))
    names = ["layers.0", "layers.1", "layers.2"]
    orders = {name: torch.arange(size) for name, size in zip(names, (7, 6, 8))}
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        before = {name: order.clone() for name, order in orders.items()}
        for index in torch.randperm(3, generator=generator).tolist():
            # The gain of putting neuron j at place i, from permuted copies of whole networks.
            others = permute_network(a, {k: v for k, v in orders.items() if k != names[index]})
            w, v = f"layers.{index}", f"layers.{index + 1}"
            gain = b[f"{w}.weight"] @ others[f"{w}.weight"].T + b[f"{v}.weight"].T @ others[f"{v}.weight"]
            if bias:
                gain = gain + torch.outer(b[f"{w}.bias"], others[f"{w}.bias"])
            orders[names[index]] = torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1])
        if all(torch.equal(before[name], orders[name]) for name in names):
            break
    found = weight_matching(a, b, seed=seed)
    assert all(torch.equal(found[name], orders[name]) for name in names)


def test_a_permuted_copy_is_found_by_weights_activations_and_the_loss_half_way():
    model, x = network(4), torch.randn(64, 5, dtype=torch.float64)
    state = state_of(model)
    hidden = random_permutations(state, seed=9)
    copy = permute_network(state, hidden)
    undone = {name: order.argsort() for name, order in hidden.items()}
    for orders in (
        weight_matching(copy, state, sweeps=200),
        straight_through_matching(model, copy, state, x, model(x).argmax(1), steps=3),
    ):
        assert all(torch.equal(orders[name], undone[name]) for name in undone)
    values = preactivations(model, x)["layers.0.weight"]
    assert torch.equal(activation_matching(values[:, hidden["layers.0"]], values), undone["layers.0"])


def test_the_loss_half_way_is_no_worse_than_by_weight_matching():
    a, b = network(1, (5, 16, 16, 3)), network(2, (5, 16, 16, 3))
    x, y = torch.randn(200, 5, dtype=torch.float64), torch.randint(0, 3, (200,))

    def half_way(orders):
        moved = permute_network(state_of(a), orders)
        middle = {name: (moved[name] + value) / 2 for name, value in state_of(b).items()}
        return float(torch.nn.functional.cross_entropy(functional_call(a, middle, (x,)), y))

    plain = weight_matching(state_of(a), state_of(b))
    assert half_way(straight_through_matching(a, state_of(a), state_of(b), x, y, steps=10)) <= half_way(plain) + 1e-12


def test_constant_activations_correlate_with_nothing():
    values = torch.randn(30, 4, dtype=torch.float64)
    values[:, 2] = 1.0
    assert sorted(activation_matching(values, values).tolist()) == [0, 1, 2, 3]


def test_bad_input_is_refused():
    state = state_of(network(0))
    with pytest.raises(ValueError, match="one of the neuron sets"):
        rescale_network(state, {"layers.9": torch.ones(7)})
    with pytest.raises(ValueError, match="7 factors"):
        rescale_network(state, {"layers.0": torch.ones(3)})
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive finite factors"):
            rescale_network(state, {"layers.0": torch.full((7,), bad)})
    with pytest.raises(ValueError, match="at least one sweep"):
        weight_matching(state, state, sweeps=0)
    broken = {**state, "layers.0.bias": torch.full((7,), float("nan"), dtype=torch.float64)}
    with pytest.raises(ValueError, match="NaN"):
        weight_matching(state, broken)
    with pytest.raises(ValueError, match="has shape"):
        weight_matching(state, state_of(network(0, (5, 8, 6, 3))))
    loop = [WiredLayer("layers.0.weight", "a", "a")]
    with pytest.raises(ValueError, match="do not read the neurons"):
        weight_matching({"layers.0.weight": torch.ones(3, 3)}, {"layers.0.weight": torch.ones(3, 3)}, wiring=loop)
    with pytest.raises(ValueError, match="equal shapes"):
        activation_matching(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(ValueError, match="at least two values"):
        activation_matching(torch.ones(1, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least one"):
        straight_through_matching(network(0), state, state, torch.ones(0, 5), torch.ones(0))


def test_one_layer_has_nothing_to_order():
    state = state_of(network(0, (4, 2)))
    assert weight_matching(state, state) == {}
    assert unit_neurons(state).keys() == state.keys()
