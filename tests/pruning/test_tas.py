import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from netatlas.pruning import (
    channel_wise_interpolation,
    cost_penalty,
    depth_candidates,
    distillation_loss,
    expected_cost,
    gumbel_sample,
    interpolation_matrix,
    mlp_cost,
    prefix_networks,
    scale_into_band,
    search_architecture,
    stacked_logits,
    width_candidates,
)
from netatlas.pruning.tas_experiments import compare_searches, planted_signs, planted_widths


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.integers(1, 20))
def test_interpolation_is_adaptive_average_pooling(before, after):
    x = torch.randn(3, before, 2, generator=torch.Generator().manual_seed(before), dtype=torch.float64)
    pooled = F.adaptive_avg_pool1d(x.transpose(1, 2), after).transpose(1, 2)
    torch.testing.assert_close(channel_wise_interpolation(x, after), pooled)
    torch.testing.assert_close(interpolation_matrix(before, after).sum(0), torch.ones(after, dtype=torch.float64))


def test_interpolation_passes_gradients_and_identity():
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert channel_wise_interpolation(x, 5) is x
    assert torch.autograd.gradcheck(lambda v: channel_wise_interpolation(v, 3), (x,))
    assert interpolation_matrix(3, 2, 4).shape == (4, 4) and interpolation_matrix(3, 2, 4)[3].sum() == 0


def test_candidates():
    assert width_candidates(64) == [19, 25, 32, 38, 44, 51, 57, 64]
    assert len(width_candidates(4)) == 4 and len(width_candidates(8)) == 7 and width_candidates(1) == [1]
    assert depth_candidates(4) == [1, 2, 4] and depth_candidates(9) == [3, 6, 9] and depth_candidates(1) == [1]


def test_gumbel_weights_are_the_renormalised_probabilities():
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = gumbel_sample(logits, 0.7, 2, torch.Generator().manual_seed(1))
    u = torch.rand(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    relaxed = ((logits.log_softmax(-1) - (-u.log()).log()) / 0.7).softmax(-1)
    chosen = relaxed.gather(-1, drawn.index)
    torch.testing.assert_close(drawn.weight, chosen / chosen.sum(-1, keepdim=True))
    assert (drawn.index[:, 0] != drawn.index[:, 1]).all()


def test_cold_samples_follow_the_probabilities():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3)
    index = gumbel_sample(logits, 0.01, 1, torch.Generator().manual_seed(0)).index[:, 0]
    torch.testing.assert_close(
        index.bincount().double() / 20_000, torch.tensor([0.5, 0.3, 0.2]).double(), atol=0.02, rtol=0
    )


def test_expected_cost_by_enumeration():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(3, 2, generator=generator, dtype=torch.float64).softmax(-1)
    q = torch.rand(2, generator=generator, dtype=torch.float64).softmax(-1)
    total = 0.0
    for d, depth in enumerate((2, 3)):
        for choice in itertools.product((0, 1), repeat=depth):
            chance = q[d] * torch.stack([p[i, c] for i, c in enumerate(choice)]).prod()
            total = total + chance * mlp_cost([(4, 9)[c] for c in choice], 7, 5)
    got = expected_cost(p, q, candidates=(4, 9), depth_choices=(2, 3), inputs=7, classes=5)
    torch.testing.assert_close(got, total)
    assert mlp_cost([42] * 4, 64, 10) == 3 * 42**2 + 74 * 42


def test_penalty_has_three_branches():
    e = torch.tensor([2.0, 2.0, 2.0])
    got = cost_penalty(e, torch.tensor([1.2, 1.0, 0.8]), 1.0, 0.05)
    torch.testing.assert_close(got, torch.tensor([1.0, 0.0, -1.0]) * torch.log(torch.tensor(2.0)))


def test_distillation_against_torch():
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 6, 4, generator=generator)
    y = torch.randint(4, (6,), generator=generator)
    soft = F.kl_div(F.log_softmax(s / 3, -1), F.softmax(t / 3, -1), reduction="batchmean") * 9
    expected = 0.3 * F.cross_entropy(s, y) + 0.7 * soft
    torch.testing.assert_close(distillation_loss(s, t, y, weight=0.7, temperature=3.0), expected)
    torch.testing.assert_close(distillation_loss(s, s, y, weight=1.0), torch.tensor(0.0))


def test_prefix_networks_are_small_networks():
    widths = torch.tensor([[5, 3, 4], [2, 6, 0]])
    params, free = prefix_networks(widths, channels=8, inputs=7, classes=3, seeds=[0, 1])
    x = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    out = stacked_logits(params, x)
    for m, sizes in enumerate(([7, 5, 3, 4, 3], [7, 2, 6, 3])):
        h, layer = x, 0
        for k, (a, b) in enumerate(zip(sizes, sizes[1:])):
            layer = k if k + 2 < len(sizes) else 3
            h = h @ params[f"layers.{layer}.weight"][m, :b, :a].T + params[f"layers.{layer}.bias"][m, :b]
            h = h.relu() if k + 2 < len(sizes) else h
        torch.testing.assert_close(out[m], h)
    assert not free["layers.2.weight"][1].any() and free["layers.2.weight"][0].sum() == 12


def test_scaling_reaches_the_band():
    widths, changed = scale_into_band(torch.tensor([60, 20, 0]), 3000, inputs=64, classes=10, channels=64)
    cost = 64 * widths[0] + widths[0] * widths[1] + 10 * widths[1]
    assert changed and widths[2] == 0 and abs(float(cost) / 3000 - 1) < 0.1
    same, changed = scale_into_band(torch.tensor([42] * 4), 8400, inputs=64, classes=10, channels=64)
    assert not changed and same.tolist() == [42] * 4


def test_search_prefers_cheap_networks_when_only_cost_counts():
    x, y = torch.zeros(40, 6), torch.zeros(40, dtype=torch.long)
    found = search_architecture(
        (x, y), (x, y), channels=10, layers=3, target=1.0, seeds=[0, 1], steps=60, classes=2, cost_weight=10.0
    )
    assert (found.widths[:, 0] == width_candidates(10)[0]).all()


def test_experiments_run_small():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(120, 12, generator=generator), torch.randint(10, (120,), generator=generator)
    result = compare_searches((x[:80], y[:80]), (x[80:], y[80:]), seeds=[0, 1], budget=4)
    assert len(result.arms) == 9 and all(a.accuracy.shape == (2,) for a in result.arms.values())
    assert set(planted_signs(planted_widths(seeds=[0, 1], steps=4, examples=200))) == {"A", "B"}


def test_refusals():
    with pytest.raises(ValueError, match="positive temperature"):
        gumbel_sample(torch.zeros(3), 0.0, 1, torch.Generator())
    with pytest.raises(ValueError, match=r"count in \[1, 3\]"):
        gumbel_sample(torch.zeros(3), 1.0, 4, torch.Generator())
    with pytest.raises(ValueError, match="finite"):
        gumbel_sample(torch.full((3,), torch.nan), 1.0, 1, torch.Generator())
    with pytest.raises(ValueError, match="positive channel counts"):
        channel_wise_interpolation(torch.ones(2, 3), 0)
    with pytest.raises(ValueError, match="fractions"):
        width_candidates(8, (0.0, 1.0))
    with pytest.raises(ValueError, match="teacher logits"):
        distillation_loss(torch.ones(2, 3), torch.ones(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="2 widths"):
        expected_cost(torch.ones(1, 3), torch.ones(1), candidates=(1, 2), depth_choices=(1,), inputs=1, classes=1)
