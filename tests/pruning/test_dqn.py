import numpy as np
import pytest
import torch
from scipy import stats

from netatlas.core.sparsity import polynomial_sparsity, zeros_of
from netatlas.pruning import (
    CartPole,
    Catch,
    bootstrap_iqm_difference,
    dormant_fraction,
    effective_rank,
    greedy_returns,
    interquartile_mean,
    train_dqn,
)
from netatlas.pruning.agents import equal_width, final_return


def test_masks_follow_the_schedule_and_reach_the_weights():
    steps, seen = 60, []

    def watch(step, params, masks):
        level = polynomial_sparsity(step, start=steps // 5, end=4 * steps // 5, final=0.9)
        for name in ("layers.0.weight", "layers.1.weight"):
            zeros = (params[name] == 0).flatten(1).sum(1)
            assert (zeros == zeros_of(level, params[name][0].numel())).all()
        seen.append(masks["layers.1.weight"].clone())

    agents = train_dqn(Catch(), 12, seeds=[0, 1], steps=steps, lr=1e-3, sparsity=0.9, prune_every=5, watch=watch)
    assert all(not (b & ~a).any() for a, b in zip(seen, seen[1:]))
    assert ((agents.params["layers.1.weight"] != 0).flatten(1).sum(1) == 144 - zeros_of(0.9, 144)).all()
    assert agents.returns.shape == (2, 8) and set(agents.diagnostics) >= {"dormant units", "effective rank"}


def test_small_inputs_and_the_output_layer_are_exempt():
    agents = train_dqn(CartPole(), 8, seeds=[0], steps=20, lr=1e-3, sparsity=0.9)
    assert (agents.params["layers.0.weight"] != 0).all() and (agents.params["layers.2.weight"] != 0).all()
    static = train_dqn(CartPole(), 8, seeds=[0], steps=20, lr=1e-3, sparsity=0.9, static=True)
    assert ((static.params["layers.1.weight"] != 0).sum() == 64 - zeros_of(0.9, 64)).all()


def test_training_is_the_same_twice():
    one, two = (train_dqn(CartPole(), 8, seeds=[3], steps=30, lr=1e-3) for _ in range(2))
    assert all(torch.equal(one.params[n], two.params[n]) for n in one.params)


def test_greedy_returns_of_a_network_that_always_pushes_left():
    params = {
        "layers.0.weight": torch.zeros(1, 2, 4),
        "layers.0.bias": torch.zeros(1, 2),
        "layers.1.weight": torch.zeros(1, 2, 2),
        "layers.1.bias": torch.tensor([[1.0, 0.0]]),
    }
    returns = greedy_returns(params, CartPole(), episodes=5, seed=0)
    assert returns.shape == (1, 5) and ((returns >= 8) & (returns <= 11)).all()


def test_interquartile_mean_against_scipy_and_by_hand():
    values = np.random.default_rng(0).normal(size=40)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))
    assert interquartile_mean([5.0]) == 5.0
    assert interquartile_mean([0.0, 1.0, 2.0]) == pytest.approx((0.25 * 0 + 1 + 0.25 * 2) / 1.5, abs=1e-12)


def test_bootstrap_covers_a_known_difference():
    rng = np.random.default_rng(1)
    inside = 0
    for k in range(20):
        _, low, high = bootstrap_iqm_difference(rng.normal(1, 1, 30), rng.normal(0, 1, 30), draws=200, seed=k)
        inside += low <= 1 <= high
    assert inside >= 16


def test_diagnostics_of_known_features():
    features = torch.zeros(1, 6, 4)
    features[0, :, 0] = 1.0
    assert dormant_fraction(features).tolist() == [0.75] and effective_rank(features).tolist() == [1.0]
    assert effective_rank(torch.eye(5)[None]).tolist() == [5.0] and effective_rank(torch.zeros(1, 3, 3)).tolist() == [0]


def test_equal_width_has_equal_parameters():
    for task in (CartPole(), Catch()):
        kept = 0.1 if task.features >= 32 else 1.0
        pruned = 0.1 * 128**2 + (kept * task.features + task.actions + 2) * 128
        n = equal_width(task, 128, 0.9)
        assert abs(n * n + (task.features + task.actions + 2) * n - pruned) < n + 60
    assert final_return(torch.arange(8.0)[None]).tolist() == [5.0]


def test_refusals():
    with pytest.raises(ValueError, match="sparsity"):
        train_dqn(CartPole(), 4, seeds=[0], steps=5, lr=1e-3, sparsity=1.0)
    with pytest.raises(ValueError, match="at least one step"):
        train_dqn(CartPole(), 4, seeds=[0], steps=0, lr=1e-3)
    with pytest.raises(ValueError, match="finite"):
        interquartile_mean([np.nan])
    with pytest.raises(ValueError, match="at least one value"):
        interquartile_mean([])
    with pytest.raises(ValueError, match="share"):
        effective_rank(torch.ones(1, 2, 2), 0.0)
