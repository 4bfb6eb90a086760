import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.nn import ConvNet
from netatlas.core.sparsity import count_flops
from netatlas.core.stats import spearman
from netatlas.pruning import (
    flops_per_parameter,
    judge_space,
    layer_costs,
    quadratic_interior_optimum,
    sample_widths_at_flops,
)
from netatlas.pruning import population as pop

MAPS = (8, 4, 2, 1)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_costs_are_those_counted_by_hooks(widths):
    net = ConvNet(widths, 10, in_channels=1)
    costs = layer_costs(np.array([widths]), MAPS, 10)
    assert costs.flops.sum() == count_flops(net, torch.zeros(1, 1, 8, 8))
    assert costs.params.sum() == sum(p.numel() for n, p in net.named_parameters() if "weight" in n)
    area = np.array([64, 16, 4, 1, 1])
    np.testing.assert_allclose(flops_per_parameter(costs), (costs.params * area).sum(1) / costs.params.sum(1))


def test_samples_lie_in_the_band_and_differ():
    full = (8, 16, 24, 32)
    widths = sample_widths_at_flops(full, MAPS, classes=10, share=0.5, count=100, seed=0)
    whole = layer_costs(np.array([full]), MAPS, 10).flops.sum()
    flops = layer_costs(widths, MAPS, 10).flops.sum(1)
    assert (np.abs(flops / (0.5 * whole) - 1) <= 0.02).all() and len(np.unique(widths, axis=0)) == 100
    assert (widths >= 1).all() and (widths <= np.array(full)).all()
    assert np.array_equal(widths, sample_widths_at_flops(full, MAPS, classes=10, share=0.5, count=100, seed=0))
    costs = layer_costs(widths, MAPS, 10)
    assert spearman(flops_per_parameter(costs), costs.params.sum(1)) < -0.95


def test_quadratic_finds_a_planted_optimum():
    rng = np.random.default_rng(0)
    q = np.exp(rng.uniform(0, 3, 150))
    law = quadratic_interior_optimum(q, 0.1 + 0.05 * (np.log(q) - 1.2) ** 2 + 0.005 * rng.normal(size=150))
    assert law.optimum == pytest.approx(np.exp(1.2), rel=0.1) and np.isfinite(law.bootstrap).all()
    assert np.isnan(quadratic_interior_optimum(q, -(np.log(q) ** 2)).optimum)


def test_judgement_tells_a_law_from_noise():
    rng = np.random.default_rng(1)
    widths = rng.integers(1, 30, (200, 4))
    q = np.exp(rng.uniform(0, 3, 200))
    real = judge_space(q, (np.log(q) - 1.5) ** 2 + 0.05 * rng.normal(size=200), widths, (30,) * 4)
    noise = judge_space(q, rng.normal(size=200), widths, (30,) * 4)
    assert real.rank > 0.8 and real.better[0] > 0 and real.inside > 0.99 and abs(real.shuffled_rank) < 0.5
    # Shuffled ratios pick at random: what they pick is neither better nor worse than all.
    spread = real.refined["all"].std() / len(real.refined["shuffled ratios"]) ** 0.5
    assert abs(real.refined["shuffled ratios"].mean() - real.refined["all"].mean()) < 4 * spread
    assert noise.rank < 0.4 and real.refined["nearest to q*"].mean() < real.refined["all"].mean()


def test_stored_vectors_are_networks():
    widths = np.array([2, 3, 2, 4])
    net = ConvNet(widths.tolist(), 10, in_channels=1, norm="layer")
    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(pop.network(widths, flat.half())(x), net.eval()(x), atol=1e-2, rtol=1e-2)
    with pytest.raises(ValueError, match="weights, got 3"):
        pop.network(widths, flat[:3])


def test_refusals():
    with pytest.raises(ValueError, match="4 widths"):
        layer_costs(np.ones((1, 3)), MAPS, 10)
    with pytest.raises(ValueError, match="widths of at least 1"):
        layer_costs(np.zeros((1, 4)), MAPS, 10)
    with pytest.raises(ValueError, match="a space with 500 networks"):
        sample_widths_at_flops((2, 2, 2, 2), MAPS, classes=10, share=0.5, count=500, seed=0, attempts=1000)
    with pytest.raises(ValueError, match="share in"):
        sample_widths_at_flops((2, 2, 2, 2), MAPS, classes=10, share=0.0, count=1, seed=0)
    with pytest.raises(ValueError, match="at least five"):
        quadratic_interior_optimum(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="positive ratios"):
        quadratic_interior_optimum(np.zeros(9), np.ones(9))
    with pytest.raises(ValueError, match="finite"):
        quadratic_interior_optimum(np.ones(9), np.full(9, np.nan))
    with pytest.raises(ValueError, match="at least 50 networks"):
        judge_space(np.ones(9), np.ones(9), np.ones((9, 4)), (1,) * 4)
    with pytest.raises(ValueError, match="device cpu"):
        pop.train("cuda")
