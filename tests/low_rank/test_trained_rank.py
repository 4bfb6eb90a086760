"""Trained rank pruning: decompositions against the convolution they replace, truncation, the rank theorem."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netatlas.low_rank import (
    decompose,
    decomposed_cost,
    flops_ratio,
    kernel_matrix,
    matrix_kernel,
    rank_cannot_rise,
    truncate_energy,
)
from netatlas.low_rank import pruning_experiments as px


@pytest.mark.parametrize("scheme", ["spatial", "channel"])
def test_matrix_and_kernel_are_inverse(scheme):
    kernel = torch.randn(2, 5, 4, 3, 3)
    matrix = kernel_matrix(kernel, scheme)
    assert matrix.shape == ((2, 12, 15) if scheme == "spatial" else (2, 5, 36))
    torch.testing.assert_close(matrix_kernel(matrix, (5, 4, 3, 3), scheme), kernel)


@pytest.mark.parametrize("scheme", ["spatial", "channel"])
@pytest.mark.parametrize("bias", [False, True])
def test_decomposition_is_the_convolution_of_the_truncated_kernel(scheme, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 5, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    full = min(kernel_matrix(layer.weight, scheme).shape)
    torch.testing.assert_close(decompose(layer, full, scheme)(x), layer(x))
    low, rank, _ = truncate_energy(kernel_matrix(layer.weight.detach(), scheme), 0.3)
    kernel = matrix_kernel(low, layer.weight.shape, scheme)
    expected = nn.functional.conv2d(x, kernel, layer.bias, padding=1)
    pair = decompose(layer, int(rank), scheme)
    torch.testing.assert_close(pair(x), expected)
    numbers = sum(c.weight.numel() for c in pair)
    assert numbers == int(decomposed_cost((5, 4, 3, 3), int(rank), scheme))


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 0.9), st.integers(0, 30))
def test_truncation_loses_at_most_its_share(loss, seed):
    w = torch.randn(3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    low, rank, sub = truncate_energy(w, loss)
    lost = (w - low).square().sum((-2, -1)) / w.square().sum((-2, -1))
    assert (lost <= loss + 1e-12).all() and (torch.linalg.matrix_rank(low) == rank).all()
    nuclear = torch.linalg.svdvals(low).sum(-1)
    torch.testing.assert_close((sub * low).sum((-2, -1)), nuclear)


def test_subgradient_inequality_and_derivative():
    g = torch.Generator().manual_seed(0)
    w, other = (torch.randn(5, 4, dtype=torch.float64, generator=g) for _ in range(2))
    norm = lambda m: torch.linalg.svdvals(m).sum()  # noqa: E731
    sub = truncate_energy(w, 0.0)[2]
    assert float(norm(other)) >= float(norm(w) + (sub * (other - w)).sum()) - 1e-12
    slope = (norm(w + 1e-6 * other) - norm(w - 1e-6 * other)) / 2e-6
    torch.testing.assert_close(slope, (sub * other).sum(), rtol=1e-6, atol=1e-6)
    assert not truncate_energy(torch.zeros(3, 3), 0.0)[2].any()


def test_ranks_cannot_rise_within_the_premise():
    found = px.random_rank_rises(draws=100)
    assert found.within == 0 and found.beyond == 1
    t = torch.eye(3)
    assert bool(rank_cannot_rise(1.05 * t, t, 0.01)) and not bool(rank_cannot_rise(2 * t, t, 0.01))


def test_flops_ratio_by_hand():
    shapes, areas = {"a": (4, 2, 3, 3)}, {"a": 10}
    assert float(flops_ratio(shapes, {"a": torch.tensor(3)}, areas, "spatial")) == pytest.approx(72 / (3 * (6 + 12)))
    assert float(flops_ratio(shapes, {"a": torch.tensor(3)}, areas, "channel")) == pytest.approx(72 / (3 * (18 + 4)))


def tiny(arms):
    g = torch.Generator().manual_seed(0)
    images, labels = torch.rand(96, 1, 8, 8, generator=g), torch.randint(10, (96,), generator=g)
    return (images, labels), px.train_pruned((images, labels), arms, [0, 1], steps=9, batch=32)


def test_all_arms_train_as_one_stack():
    arms = {"plain": px.RankArm(), "trp": px.RankArm(0.1, every=3), "nuclear": px.RankArm(nuclear=1e-2, every=3)}
    data, nets = tiny(arms)
    alone = tiny({"trp": arms["trp"]})[1]
    for name in px.AREAS:
        torch.testing.assert_close(nets.params[name][nets.rows("trp")], alone.params[name], atol=1e-4, rtol=1e-3)
    assert nets.premise["plain"].pairs == 0 and nets.premise["trp"].violations == 0
    assert (nets.norms["nuclear"] < nets.norms["plain"]).all()
    ranks = px.ranks_at_energy(nets, nets.rows("trp"), 0.1)
    found = px.cut_arm(nets, "trp", ranks, data, data, data)
    assert found.after.shape == (2,) and (found.ratio > 0).all()
    reached = px.ratio(nets, px.ranks_at_ratio(nets, nets.rows("plain"), 2.0))
    assert (reached >= 2).all() and (reached < 2.3).all()
    assert px.fine_tuned(nets, "plain", ranks, data, data, steps=2).shape == (2,)
    curve = px.accuracy_curve(nets, ["plain", "trp"], [1.5, 3], data, data, data)
    torch.testing.assert_close(curve.area, curve.test.mean(0))


def test_decomposing_the_small_network_keeps_its_function():
    torch.manual_seed(0)
    net = px.SmallConvNet().eval()
    x = torch.rand(3, 1, 8, 8)
    before = net(x)
    for i in (1, 2, 3):
        net.convolutions[i] = decompose(
            net.convolutions[i], min(kernel_matrix(net.convolutions[i].weight, "spatial").shape), "spatial"
        )
    torch.testing.assert_close(net(x), before, atol=1e-5, rtol=1e-4)


def test_a_layer_cut_both_ways():
    data, nets = tiny({"plain": px.RankArm()})
    rows = px.decomposed_layer(nets, "plain", data[0], [2, 24])
    assert max(row.distance for row in rows.values()) < 1e-12
    assert rows[24].channel_loss < 1e-12 < rows[2].channel_loss and rows[24].spatial_loss < rows[2].spatial_loss
    assert rows[2].channel_cost == 2 * (16 * 9 + 24) / (16 * 24 * 9)
    assert rows[2].spatial_cost == 2 * (16 * 3 + 24 * 3) / (16 * 24 * 9)


def test_rank_zero_by_energy_and_all():
    w = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    none, rank, pull = truncate_energy(w, 1.0)
    assert not none.any() and not pull.any() and rank.tolist() == [0, 0, 0]
    every, rank, _ = truncate_energy(w, 0.0)
    torch.testing.assert_close(every, w)
    assert rank.tolist() == [4, 4, 4]


def test_refusals():
    with pytest.raises(ValueError, match="four axes"):
        kernel_matrix(torch.ones(3, 3), "spatial")
    with pytest.raises(ValueError, match="scheme"):
        kernel_matrix(torch.ones(1, 1, 3, 3), "diagonal")
    with pytest.raises(ValueError, match="stride 1"):
        decompose(nn.Conv2d(2, 2, 3, stride=2), 1, "spatial")
    with pytest.raises(ValueError, match="rank from 1"):
        decompose(nn.Conv2d(2, 2, 3), 0, "spatial")
    with pytest.raises(ValueError, match="finite"):
        truncate_energy(torch.full((2, 2), torch.nan), 0.1)
    with pytest.raises(ValueError, match="same layers"):
        flops_ratio({"a": (1, 1, 3, 3)}, {}, {"a": 1}, "spatial")
    with pytest.raises(ValueError, match="one arm"):
        px.train_pruned((torch.ones(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)), {}, [0], steps=1)
