"""Utilized rank: the projection's optimality, its error identity, and data whose rank is known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.nn import MLP
from netatlas.core.train import fit_many
from netatlas.low_rank import (
    activation_gram,
    energy_directions,
    layer_error,
    mean_layer_utilization,
    output_directions,
    principal_directions,
    svd_truncation,
    utilized_layer,
)
from netatlas.low_rank import rank_experiments as rx


def case(seed=0, rank=None):
    g = torch.Generator().manual_seed(seed)
    w, x = torch.randn(6, 9, dtype=torch.float64, generator=g), torch.randn(50, 9, dtype=torch.float64, generator=g)
    x = x * torch.arange(1, 10).double() ** -1.5
    if rank:
        x = x @ svd_truncation(torch.randn(9, 9, dtype=torch.float64, generator=g), rank)
    return w, x


def test_gram_is_a_sum_over_batches_and_tokens():
    x = torch.randn(12, 4, 9)
    rows = x.reshape(-1, 9).double()
    torch.testing.assert_close(activation_gram(x.split(5)), rows.T @ rows, atol=1e-4, rtol=1e-5)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 50), threshold=st.sampled_from([0.5, 0.9, 0.99]))
def test_error_identity_and_optimality(seed, threshold):
    w, x = case(seed)
    gram = activation_gram([x])
    part = utilized_layer(w, gram, threshold)
    error = layer_error(w, part.weight, gram)
    torch.testing.assert_close(error, float(((w - part.weight) @ x.T).square().sum()), rtol=1e-9, atol=1e-9)
    outside = layer_error(w, part.output_only, gram)
    inside = layer_error(part.output_only, part.weight, gram)
    torch.testing.assert_close(error, outside + inside, rtol=1e-9, atol=1e-9)
    total = layer_error(w, torch.zeros_like(w), gram)
    assert outside <= (1 - threshold) * total + 1e-9
    assert outside <= layer_error(w, svd_truncation(w, part.output_rank), gram) + 1e-9 * total
    left, right = part.factors
    torch.testing.assert_close(left @ right, part.weight)
    assert left.shape[1] == part.rank and part.parameters <= w.numel()


def test_data_of_low_rank_are_kept_exactly():
    w, x = case(rank=3)
    part = utilized_layer(w, activation_gram([x]), 1.0)
    assert part.input_rank == 3 and part.output_rank == 3 and part.utilization == 0.5
    torch.testing.assert_close(x @ part.weight.T, x @ w.T)
    assert mean_layer_utilization([part, part]) == 0.5


def test_the_best_output_projection_is_the_svd_of_the_outputs():
    w, x = case(3)
    part = utilized_layer(w, activation_gram([x]), 0.9)
    torch.testing.assert_close(part.output_only @ x.T, svd_truncation(w @ x.T, part.output_rank))


def test_energy_directions_by_hand():
    values = torch.tensor([6.0, 3.0, 1.0])
    assert [energy_directions(values, t) for t in (0.5, 0.59, 0.61, 0.89, 0.91, 1.0)] == [1, 1, 2, 2, 3, 3]
    assert energy_directions(torch.zeros(3), 0.9) == 0


def test_experiment_at_tiny_size():
    g = torch.Generator().manual_seed(0)
    images, labels = torch.rand(192, 1, 6, 6, generator=g), torch.randint(10, (192,), generator=g)
    found = rx.utilization_experiment(
        (images, labels), (images, labels), seeds=[0, 1], thresholds=[0.9, 0.999], width=16, epochs=1, fine_steps=2
    )
    p = found.projections
    assert p.accuracy["projected"].shape == (2, 2) and p.output_rank.shape == (2, 2, 2)
    assert p.order < 1e-9 and p.identity < 1e-8 and p.weight_rank == 1
    assert (p.utilization[1] >= p.utilization[0]).all() and found.untrained.shape == (2, 2)


def test_factored_networks_are_the_projected_ones():
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(64, 12, generator=g), torch.randint(3, (64,), generator=g)
    nets = fit_many(lambda: MLP([12, 10, 8, 3]), x, y, seeds=[0, 1], epochs=1, batch_size=32)
    parts = rx.factor_ensemble(nets, x, 0.95)
    found = rx.projections(nets, x, (x, y), [0.95])
    torch.testing.assert_close(parts.accuracy(x, y), found.accuracy["projected"][0])


def test_output_directions_serve_all_thresholds():
    w, x = case()
    inputs = principal_directions(activation_gram([x]))
    outputs = output_directions(w, inputs)
    torch.testing.assert_close(outputs[0].sum(), (x @ w.T).square().sum())
    for threshold in (0.5, 0.9, 1.0):
        once, again = utilized_layer(w, inputs, threshold, outputs), utilized_layer(w, inputs, threshold)
        torch.testing.assert_close(once.weight, again.weight)
        assert once.rank == again.rank


def test_dead_inputs_and_dead_weights_use_nothing():
    w, x = case()
    for weight, gram in ((w * 0, activation_gram([x])), (w, torch.zeros(9, 9))):
        dead = utilized_layer(weight, gram, 0.9)
        assert dead.rank == 0 and dead.parameters == 0 and not dead.weight.any()
        assert (dead.factors[0] @ dead.factors[1]).shape == w.shape
    unit = w.clone()
    unit[2] = 0
    full = utilized_layer(unit, activation_gram([x]), 1.0)
    assert full.output_rank == 5
    torch.testing.assert_close(x @ full.weight.T, x @ unit.T)


def test_utilization_alone_is_that_of_the_projection():
    data = torch.rand(40, 12), torch.randint(0, 3, (40,))
    nets = fit_many(lambda: MLP([12, 8, 8, 3]), *data, seeds=[0, 1], epochs=1, batch_size=8)
    table = rx._mean_utilization(nets, data[0], [0.8, 0.99], principal_directions(activation_gram([data[0]])))
    torch.testing.assert_close(table, rx.projections(nets, data[0], data, [0.8, 0.99]).utilization, check_dtype=False)


def test_refusals():
    w, x = case()
    with pytest.raises(ValueError, match="share of energy"):
        utilized_layer(w, activation_gram([x]), 0.0)
    with pytest.raises(ValueError, match="width 9"):
        utilized_layer(w, torch.eye(5), 0.9)
    with pytest.raises(ValueError, match="finite"):
        utilized_layer(w * torch.nan, activation_gram([x]), 0.9)
    with pytest.raises(ValueError, match="outputs of width 6"):
        utilized_layer(w, activation_gram([x]), 0.9, principal_directions(torch.eye(5)))
    with pytest.raises(ValueError, match="one batch"):
        activation_gram([])
    with pytest.raises(ValueError, match="one width"):
        activation_gram([torch.ones(2, 3), torch.ones(2, 4)])
    with pytest.raises(ValueError, match="square"):
        principal_directions(torch.ones(2, 3))
    with pytest.raises(ValueError, match="one layer"):
        mean_layer_utilization([])
