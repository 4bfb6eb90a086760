import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import nn

from netatlas.core.nn import MLP, ConvNet
from netatlas.core.symmetry import WiredLayer, permute_network, preactivations, random_permutations, sequential_wiring
from netatlas.merging import (
    activation_cost,
    align_layer,
    average_weights,
    fuse,
    largest_neurons,
    move_columns,
    transport_map,
    transport_network,
    weight_cost,
)


def mlp(seed, widths=(6, 9, 7, 4), bias=True, dtype=torch.float32):
    torch.manual_seed(seed)
    return MLP(list(widths), bias=bias).to(dtype)


def state_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def run(model, state, x):
    return torch.func.functional_call(model, state, (x,))


class Flattening(nn.Module):
    """Convolution, then a dense layer that reads the flattened channels."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 5, 3)
        self.dense = nn.Linear(5 * 4, 3)

    def forward(self, x):
        return self.dense(self.second(self.first(x).relu()).relu().flatten(1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 6, bias=False)
        self.inner = nn.Linear(6, 5, bias=False)
        self.outer = nn.Linear(5, 6, bias=False)
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, x):
        h = self.stem(x).relu()
        return self.head((h + self.outer(self.inner(h).relu())).relu())


RESIDUAL = [
    WiredLayer("stem.weight", None, "stream"),
    WiredLayer("inner.weight", "stream", "inside"),
    WiredLayer("outer.weight", "inside", "stream"),
    WiredLayer("head.weight", "stream", None),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_costs_against_brute_force(dtype):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, 3, 2, 2, generator=generator, dtype=dtype)
    b = torch.randn(4, 3, 2, 2, generator=generator, dtype=dtype)
    brute = torch.tensor([[float((x - y).norm()) for y in b] for x in a], dtype=dtype)
    torch.testing.assert_close(weight_cost(a, b), brute)
    torch.testing.assert_close(activation_cost(a.transpose(0, 1), b.transpose(0, 1)), brute)
    assert weight_cost(a, a).diagonal().abs().max() < 1e-6


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 10_000))
def test_plan_has_its_marginals_and_maps_their_sums(n_a, n_b, seed):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(n_a, n_b, generator=generator, dtype=torch.float64)
    mu = torch.rand(n_a, generator=generator, dtype=torch.float64) + 0.1
    nu = torch.rand(n_b, generator=generator, dtype=torch.float64) + 0.1
    for method in ("exact", "sinkhorn"):
        maps = transport_map(cost, method=method, source_mass=mu, reference_mass=nu, corrected=True)
        torch.testing.assert_close(maps.rows.sum(0), torch.ones(n_b, dtype=torch.float64))
        torch.testing.assert_close(maps.columns.sum(1), torch.ones(n_a, dtype=torch.float64))
        tolerance = 1e-9 if method == "exact" else 1e-5
        torch.testing.assert_close(maps.rows @ (nu / nu.sum()), mu / mu.sum(), rtol=0, atol=tolerance)
    published = transport_map(cost)
    assert torch.equal(published.rows, published.columns)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 15), st.integers(0, 10_000))
def test_equal_widths_are_an_assignment(n, seed):
    cost = torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = transport_map(cost).rows
    i, j = linear_sum_assignment(cost.numpy())
    expected = np.zeros((n, n))
    expected[i, j] = 1
    np.testing.assert_allclose(rows.numpy(), expected, atol=1e-9)


def test_weak_regularization_approaches_the_exact_plan():
    cost = torch.rand(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact, loose, tight = (
        transport_map(cost).rows,
        transport_map(cost, method="sinkhorn", regularization=1.0).rows,
        transport_map(cost, method="sinkhorn", regularization=0.01).rows,
    )
    assert (tight - exact).norm() < 0.1 * (loose - exact).norm()


@pytest.mark.parametrize("mode", ["weights", "activations"])
def test_transport_keeps_the_function_at_equal_widths(mode):
    a, b = mlp(0), mlp(1)
    x = torch.randn(50, 6)
    activations = (preactivations(a, x), preactivations(b, x)) if mode == "activations" else None
    moved, maps = transport_network(state_of(a), state_of(b), activations=activations)
    assert (run(a, moved, x) - a(x)).abs().max() < 1e-5
    assert set(maps) == {"layers.0", "layers.1"}


@pytest.mark.parametrize("mode", ["weights", "activations"])
@pytest.mark.parametrize("build", [mlp, lambda seed: (torch.manual_seed(seed), Flattening())[1]])
def test_fusing_with_a_permuted_copy_returns_the_network(mode, build):
    model = build(0)
    state = state_of(model)
    copy = permute_network(state, random_permutations(state, seed=3))
    assert any(not torch.equal(copy[name], state[name]) for name in state)
    x = torch.randn(30, 6) if build is mlp else torch.randn(30, 2, 4, 4)
    torch.testing.assert_close(run(model, copy, x), model(x), rtol=1e-5, atol=1e-5)
    activations = None
    if mode == "activations":
        twin = build(0)
        twin.load_state_dict(copy)
        activations = [preactivations(twin, x), preactivations(model, x)]
    fused = fuse([copy, state], activations=activations)
    for name in state:
        torch.testing.assert_close(fused[name], state[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_doubled_neurons(bias):
    narrow = state_of(mlp(0, bias=bias, dtype=torch.float64))
    doubled = {}
    for layer in range(3):
        weight = narrow[f"layers.{layer}.weight"]
        if layer:
            weight = torch.cat([weight, weight], 1) / 2
        doubled[f"layers.{layer}.weight"] = torch.cat([weight, weight]) if layer < 2 else weight
        if bias:
            value = narrow[f"layers.{layer}.bias"]
            doubled[f"layers.{layer}.bias"] = torch.cat([value, value]) if layer < 2 else value
    x = torch.randn(20, 6, dtype=torch.float64)
    wide = MLP([6, 18, 14, 4], bias=bias).double()
    torch.testing.assert_close(run(wide, doubled, x), run(mlp(0, bias=bias).double(), narrow, x))
    corrected, _ = transport_network(doubled, narrow, corrected=True)
    published, _ = transport_network(doubled, narrow)
    for name in narrow:
        torch.testing.assert_close(corrected[name], narrow[name], rtol=0, atol=1e-6)
    error = (published["layers.2.weight"] - narrow["layers.2.weight"]).norm() / narrow["layers.2.weight"].norm()
    assert 0.4 < error < 0.6


def test_bias_decides_where_weights_do_not():
    weight = torch.ones(2, 3)
    maps = align_layer(
        weight, weight, bias=torch.tensor([0.0, 5.0]), reference_bias=torch.tensor([5.0, 0.0]), corrected=True
    )[2]
    torch.testing.assert_close(maps.rows, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_columns_of_flattened_channels_move_together():
    weight = torch.arange(12.0).reshape(2, 6)
    swapped = move_columns(weight, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(swapped, weight[:, [3, 4, 5, 0, 1, 2]])


def test_convolutions_keep_the_function():
    torch.manual_seed(0)
    a, b = ConvNet([6, 8], 3), ConvNet([6, 8], 3)
    x = torch.randn(10, 3, 8, 8)
    moved, _ = transport_network(state_of(a), state_of(b), activations=(preactivations(a, x), preactivations(b, x)))
    assert (run(a, moved, x) - a(x)).abs().max() < 1e-5


def test_residual_wiring_recovers_a_permuted_copy():
    torch.manual_seed(0)
    model = Residual()
    state = state_of(model)
    copy = permute_network(state, random_permutations(state, seed=1, wiring=RESIDUAL), wiring=RESIDUAL)
    x = torch.randn(20, 4)
    torch.testing.assert_close(run(model, copy, x), model(x), rtol=1e-5, atol=1e-5)
    fused = fuse([copy, state], wiring=RESIDUAL)
    for name in state:
        torch.testing.assert_close(fused[name], state[name], rtol=0, atol=1e-6)


def test_three_permuted_copies_fuse_to_one_and_coefficients_count():
    state = state_of(mlp(0))
    copies = [permute_network(state, random_permutations(state, seed=seed)) for seed in (1, 2)]
    fused = fuse([*copies, state], [0.2, 0.3, 0.5])
    for name in state:
        torch.testing.assert_close(fused[name], state[name], rtol=0, atol=1e-6)
    other = state_of(mlp(1))
    kept = fuse([state, other], [1, 0], reference=0)
    assert all(torch.equal(kept[name], state[name]) for name in state)
    plain = average_weights([transport_network(other, state)[0], state], [0.25, 0.75])
    fused = fuse([state, other], [0.75, 0.25], reference=0)
    for name in state:
        torch.testing.assert_close(fused[name], plain[name])


def test_different_widths_give_the_reference_shapes():
    wide, narrow = state_of(mlp(0, (6, 20, 12, 4))), state_of(mlp(1))
    for corrected in (False, True):
        fused = fuse([wide, narrow], corrected=corrected)
        assert {n: v.shape for n, v in fused.items()} == {n: v.shape for n, v in narrow.items()}


def test_largest_neurons_keeps_the_function_when_the_rest_is_zero():
    state = state_of(mlp(0))
    narrow_model = mlp(0, (6, 4, 3, 4))
    for layer, kept in ((0, [1, 3, 5, 8]), (1, [0, 2, 6])):
        mask = torch.zeros(len(state[f"layers.{layer}.weight"]))
        mask[kept] = 1
        state[f"layers.{layer}.weight"] *= mask[:, None]
        state[f"layers.{layer}.bias"] *= mask
    x = torch.randn(10, 6)
    narrow = largest_neurons(state, [4, 3])
    torch.testing.assert_close(run(narrow_model, narrow, x), run(mlp(0), state, x))


def test_refusals():
    a, b = state_of(mlp(0)), state_of(mlp(1))
    cost = torch.rand(3, 4)
    for bad, message in [
        (torch.rand(3), "matrix"),
        (torch.rand(0, 3), "matrix"),
        (cost * float("nan"), "NaN"),
        (-cost, "non-negative"),
    ]:
        with pytest.raises(ValueError, match=message):
            transport_map(bad)
    with pytest.raises(ValueError, match="source_mass of shape"):
        transport_map(cost, source_mass=torch.ones(4))
    with pytest.raises(ValueError, match="positive reference_mass"):
        transport_map(cost, reference_mass=torch.tensor([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="method"):
        transport_map(cost, method="greedy")
    with pytest.raises(ValueError, match="regularization"):
        transport_map(cost, method="sinkhorn", regularization=0)
    with pytest.raises(ValueError, match="incoming shapes"):
        weight_cost(torch.rand(3, 4), torch.rand(3, 5))
    with pytest.raises(ValueError, match="same samples"):
        activation_cost(torch.rand(3, 4), torch.rand(4, 4))
    with pytest.raises(ValueError, match="reads 4 neurons"):
        move_columns(torch.rand(3, 6), torch.rand(4, 4))
    with pytest.raises(ValueError, match="both networks or in neither"):
        align_layer(torch.rand(3, 4), torch.rand(3, 4), bias=torch.rand(3))
    with pytest.raises(ValueError, match="one device"):
        align_layer(torch.rand(3, 4), torch.rand(3, 4, device="meta"))
    with pytest.raises(ValueError, match="activations of 3 and 3"):
        align_layer(torch.rand(3, 4), torch.rand(3, 4), activations=(torch.rand(5, 2), torch.rand(5, 3)))
    with pytest.raises(ValueError, match="at least 2"):
        fuse([a])
    with pytest.raises(ValueError, match="reference"):
        fuse([a, b], reference=2)
    with pytest.raises(ValueError, match="activations of 2"):
        fuse([a, b], activations=[{}])
    with pytest.raises(ValueError, match="outputs differ"):
        fuse([state_of(mlp(0, (6, 9, 7, 5))), b])
    with pytest.raises(ValueError, match="wiring"):
        transport_network(a, b, wiring=sequential_wiring(a)[:-1])
    with pytest.raises(ValueError, match="no earlier layer"):
        transport_network(state_of(Residual()), state_of(Residual()), wiring=RESIDUAL[::-1])
    with pytest.raises(ValueError, match="pass a wiring"):
        sequential_wiring({**a, "scale": torch.ones(3)})
    with pytest.raises(ValueError, match="at least one weight"):
        sequential_wiring({})
    with pytest.raises(ValueError, match="permutation of 9"):
        permute_network(a, {"layers.0": torch.zeros(9, dtype=torch.long)})
    with pytest.raises(ValueError, match="neuron sets"):
        permute_network(a, {"layers.2": torch.arange(4)})
    with pytest.raises(ValueError, match="2 widths"):
        largest_neurons(a, [3])
    with pytest.raises(ValueError, match="neurons to keep"):
        largest_neurons(a, [10, 3])
    with pytest.raises(ValueError, match="at least one sample"):
        preactivations(mlp(0), torch.rand(0, 6))


def test_meta_device():
    assert weight_cost(torch.empty(3, 5, device="meta"), torch.empty(4, 5, device="meta")).shape == (3, 4)
    assert activation_cost(torch.empty(9, 3, device="meta"), torch.empty(9, 4, device="meta")).shape == (3, 4)
    assert move_columns(torch.empty(2, 3, 5, 5, device="meta"), torch.empty(3, 4, device="meta")).shape == (2, 4, 5, 5)


def test_distances_of_neurons_that_almost_coincide():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 400, generator=generator)
    b = a[torch.randperm(30, generator=generator)] + 1e-4 * torch.randn(30, 400, generator=generator)
    exact = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(weight_cost(a, b).double(), exact, rtol=5e-6, atol=0)


def test_assignment_is_the_transport_of_uniform_masses():
    cost = torch.rand(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assigned, transported = transport_map(cost), transport_map(cost, source_mass=torch.ones(12))
    torch.testing.assert_close(assigned.rows, transported.rows)
    assert transported.order is None
    torch.testing.assert_close(assigned.rows.T @ cost, cost[assigned.order])
