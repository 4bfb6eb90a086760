"""Functional dimension: against automatic differentiation, a full-rank computation, and counts done by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.connectivity import experiments as ex
from netatlas.connectivity import (
    functional_dimension,
    max_functional_dimension,
    plant_mechanism,
    planted_deficit,
    random_relu_layers,
    relu_jacobian_rows,
    representatives,
    streaming_qr_rank,
)


def points(count, size, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(flat, shapes, x, slope):
    start = 0
    for number, (n, m) in enumerate(shapes):
        block = flat[start : start + n * (m + 1)].reshape(n, m + 1)
        start += block.numel()
        x = block[:, :m] @ (torch.nn.functional.leaky_relu(x, slope) if number else x) + block[:, m]
    return x


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("widths", [(3, 4, 2), (2, 5, 3, 1), (1, 1, 1), (4, 1, 2)])
def test_rows_are_those_of_automatic_differentiation(widths, slope):
    layers = random_relu_layers(widths, seed=1)
    flat = torch.cat([torch.cat([w, b[:, None]], 1).flatten() for w, b in layers])
    shapes = [tuple(w.shape) for w, _ in layers]
    x = points(7, widths[0])
    expected = torch.stack([torch.func.jacrev(run)(flat, shapes, z, slope) for z in x])
    torch.testing.assert_close(relu_jacobian_rows(layers, x, slope=slope), expected)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 1000), hidden=st.integers(1, 3))
def test_keeping_a_few_points_of_each_piece_loses_no_rank(seed, hidden):
    layers, x = random_relu_layers([3, *[4] * hidden, 1], seed=seed), points(2000, 3, seed)
    rows = relu_jacobian_rows(layers, x).flatten(0, 1)
    norms = rows.norm(dim=0)
    values = torch.linalg.svdvals(rows / torch.where(norms > 0, norms, torch.ones_like(norms)))
    found = functional_dimension(layers, x)
    assert found.ranks == [int((values > 1e-9 * values[0]).sum())]
    assert found.dropped < 1e-12 < 1e-9 < found.kept


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 1000), slope=st.sampled_from([0.0, 0.1]))
def test_the_bound_holds_ranks_grow_with_points_and_symmetries_do_not_matter(seed, slope):
    widths = [3, 4, 4, 2]
    found = functional_dimension(
        random_relu_layers(widths, seed=seed), points(600, 3, seed), checkpoints=[50, 200, 600], slope=slope
    )
    assert found.ranks == sorted(found.ranks)
    assert found.ranks[-1] <= max_functional_dimension(widths)
    assert ex.ranks_moved_by_symmetries([3, 4, 4, 1], [seed]) == 0


def test_the_bound_is_parameters_minus_hidden_neurons():
    for widths in ([5, 7, 1], [2, 3, 4, 5], [3, 2]):
        parameters = sum(n * (m + 1) for m, n in zip(widths, widths[1:]))
        assert max_functional_dimension(widths) == parameters - sum(widths[1:-1])


def test_one_hidden_layer_has_no_hidden_symmetry_and_tanh_none_at_all():
    sample = ex.sample_ranks([4, 6, 1], range(5))
    assert sample.full().tolist() == [1.0] * 5 and sample.deficit().tolist() == [0] * 5
    assert sample.still_growing() == 0
    rank, parameters = ex.smooth_rank([3, 4, 1], 0)
    assert rank == parameters


@pytest.mark.parametrize("kind", ["dead", "linear"])
@pytest.mark.parametrize("widths", [(5, 8, 1), (3, 4, 3)])
def test_planted_mechanisms_lose_what_a_count_by_hand_says(kind, widths):
    layers, x = random_relu_layers(widths, seed=3), points(4000, widths[0])
    before, after = (functional_dimension(net, x).ranks[0] for net in (layers, plant_mechanism(layers, kind)))
    assert before == max_functional_dimension(widths)
    assert before - after == planted_deficit(widths, kind)


def test_neurons_that_are_never_active_together_free_one_weight():
    row = next(row for row in ex.planted_table([0, 1]) if row["widths"] == (5, 8, 8, 1))
    assert set(row["lost"]) == {1}


def test_a_folded_factor_has_the_singular_values_of_all_rows():
    rows = points(500, 12)
    triangle = streaming_qr_rank(streaming_qr_rank(None, rows[:100]), rows[100:], chunk=37)
    torch.testing.assert_close(torch.linalg.svdvals(triangle), torch.linalg.svdvals(rows))
    assert streaming_qr_rank(None, rows[:0]).shape[1] == 12


def test_representatives_are_the_first_of_each_pattern():
    patterns = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0], [1, 0], [0, 1]])
    assert representatives(patterns, 1).tolist() == [0, 1, 5]
    assert representatives(patterns, 2).tolist() == [0, 1, 2, 4, 5]
    assert representatives(patterns[:0], 2).tolist() == []


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), neurons=st.sampled_from([1, 5, 62, 63, 130]), each=st.integers(1, 3))
def test_representatives_of_many_neurons_are_those_of_a_plain_loop(seed, neurons, each):
    generator = torch.Generator().manual_seed(seed)
    # Few different patterns that may differ in a single place, also in the last one.
    different = torch.randint(0, 2, (1, neurons), generator=generator).repeat(4, 1)
    different[1, -1], different[2, 0] = 1 - different[1, -1], 1 - different[2, 0]
    patterns = different[torch.randint(0, 4, (40,), generator=generator)]
    seen, expected = {}, []
    for index, row in enumerate(map(tuple, patterns.tolist())):
        seen[row] = seen.get(row, 0) + 1
        if seen[row] <= each:
            expected.append(index)
    assert representatives(patterns, each).tolist() == expected


def test_the_bias_and_the_spread_of_inputs_reach_the_sample():
    plain, cones, far = (ex.sample_ranks([3, 4, 4, 1], range(6), **o) for o in ({}, {"bias_std": 0.0}, {"spread": 9.0}))
    assert cones.deficit().mean() > plain.deficit().mean()
    assert far.deficit().tolist() != plain.deficit().tolist() or far.gap != plain.gap


def test_a_network_of_zeros_and_a_network_without_hidden_layer():
    zero = [
        (torch.zeros(3, 2).double(), torch.zeros(3).double()),
        (torch.zeros(1, 3).double(), torch.zeros(1).double()),
    ]
    assert functional_dimension(zero, points(50, 2)).ranks == [1]
    linear = [(torch.ones(2, 3).double(), torch.zeros(2).double())]
    assert functional_dimension(linear, points(50, 3)).ranks == [8]


def test_bad_input_is_refused():
    layers, x = random_relu_layers([2, 3, 1], seed=0), points(10, 2)
    with pytest.raises(ValueError, match="three positive widths"):
        random_relu_layers([2, 3], seed=0)
    with pytest.raises(ValueError, match="non-negative bias_std"):
        random_relu_layers([2, 3, 1], seed=0, bias_std=-1)
    with pytest.raises(ValueError, match="double precision"):
        functional_dimension(layers, x.float())
    with pytest.raises(ValueError, match="at least one point"):
        functional_dimension(layers, x[:0])
    with pytest.raises(ValueError, match="checkpoints that grow"):
        functional_dimension(layers, x, checkpoints=[5, 5])
    with pytest.raises(ValueError, match="checkpoints that grow"):
        functional_dimension(layers, x, checkpoints=[11])
    with pytest.raises(ValueError, match="points"):
        relu_jacobian_rows(layers, points(4, 3))
    broken = [(layers[0][0] * float("nan"), layers[0][1]), layers[1]]
    with pytest.raises(ValueError, match="finite values in the weight of layer 0"):
        functional_dimension(broken, x)
    with pytest.raises(ValueError, match="inputs of layer 1"):
        relu_jacobian_rows([layers[0], (torch.ones(1, 4).double(), torch.ones(1).double())], x)
    with pytest.raises(ValueError, match="a kind out of"):
        plant_mechanism(layers, "asleep")
    with pytest.raises(ValueError, match="enough hidden layers"):
        plant_mechanism(layers, "apart")
    with pytest.raises(ValueError, match="at least one point a pattern"):
        representatives(torch.zeros(2, 1), 0)
    with pytest.raises(ValueError, match="columns"):
        streaming_qr_rank(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="two positive widths"):
        max_functional_dimension([3])
