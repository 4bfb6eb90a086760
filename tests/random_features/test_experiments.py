"""The experiments' own parts on small sizes: shapes, controls that must be null, and equal treatment of arms."""

import math

import pytest
import torch

from netatlas.random_features import bandit_experiments as bandit
from netatlas.random_features import deep_kernel_experiments as deep
from netatlas.random_features import permutation_experiments as perm
from netatlas.random_features import polynomial_experiments as poly
from netatlas.random_features import snnk_experiments as snnk


def task(n=120, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    return poly.Task(x, x[:, 0] * x[:, 1] + 0.05 * torch.randn(n, generator=g, dtype=torch.float64))


def test_contest_finds_an_interaction_that_a_linear_model_misses():
    found = poly.contest({"product": task()}, splits=4, seed=0, steps=60)
    assert found.passes["product"] and found.tested["product"]
    assert float(found.polynomials["product"].mean()) < 0.3 * float(
        poly.polynomial_runs(poly.splits_of(task(), 4, seed=0)).linear.mean()
    )


def test_classes_are_scored_by_errors():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(150, 3, generator=g, dtype=torch.float64)
    labels = (x[:, 0] > 0).long()
    splits = poly.splits_of(poly.Task(x, labels), 3, seed=0)
    assert float(poly.polynomial_runs(splits).tuned.mean()) < 0.15
    assert float(poly.network_runs(splits, steps=80).mean()) < 0.15


def test_collinearity_grows_without_a_nonlinearity():
    found = poly.layer_collinearity({"set": task()}, width=4, layers=2, nets=3, steps=5, seed=0)
    flat = found.factors["set", "identity", "untrained"]
    assert flat.shape == (3, 2) and bool((flat >= 1).all())
    assert set(poly.collinearity_growth(found).excess) == {"set"}
    vif, error, exact = poly.gaussian_inflation(count=30, columns=4, draws=200, seed=1)
    assert abs(vif - exact) < 4 * error


def test_adapters_count_parameters_and_start_at_the_frozen_network():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 1, 4, 4, generator=g), torch.randint(10, (400,), generator=g)
    base, parts = snnk.shifted_half(x, y, (100, 60, 40, 60), seed=0)
    assert [len(part[1]) for part in parts] == [60, 40, 60] and len(base[1]) == 100
    assert int(base[1].max()) < 5 and int(parts[0][1].min()) >= 0 and int(parts[0][1].max()) < 5
    found = snnk.adapters(base, parts, hidden=8, bottleneck=10, rates=[1e-3, 1e-2], seeds=2, steps=3, seed=0)
    counts = {name: run.parameters for name, run in found.items()}
    assert counts["bottleneck, r = 10"] == 5 * counts["SNNK, m = 4"] == 5 * counts["bottleneck, r = 2"]
    assert counts["fixed projection, m = 4"] == counts["SNNK, m = 4"] and counts["linear probe"] == 0


def test_bundling_error_falls_for_sine_only():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 6, generator=g), torch.randint(3, (200,), generator=g)
    parts = ((x[:100], y[:100]), (x[100:150], y[100:150]), (x[150:], y[150:]))
    found = snnk.bundling(parts, width=8, sizes=[64, 512, 2048], seeds=2, steps=20, seed=0)
    assert float(found.errors["sin"][2048].mean()) < 0.5 * float(found.errors["sin"][64].mean())
    assert float(found.errors["relu"][2048].mean()) > 0.3
    assert found.objectives[0] <= found.objectives[1] * (1 + 1e-8)


def test_unbiasedness_table():
    found = snnk.unbiasedness([16, 64], 60, dim=4, seed=0)
    assert len(found.cells) == 2 * 2 * 3 * 3 and found.largest_bias < 5
    assert all(-1.6 < s < -0.4 for s in found.slopes.values())


def test_growth_and_single_models():
    table = perm.models_table([20, 40], regimes=("ntk",))
    assert 0.9 < perm.growth(table, "ntk").slope.slope < 1.3
    single = perm.single_model_accuracy([5, 10])
    assert 0 < single[10] < single[5] < 1


def test_alignment_is_one_with_itself_and_free_of_means():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = x @ x.T
    assert float(deep.centred_alignment(gram, 3 * gram)) == pytest.approx(1)
    assert float(deep.centred_alignment(gram + 5, gram)) == pytest.approx(1)


def test_sweep_keeps_no_learning_as_it_is():
    problem = deep.single_index_problem(splits=2, train=12, rest=10, dim=2, seed=0)
    found = deep.sweep(problem, nus=[math.inf, 5.0], noises=[0.1, 0.3], amplitudes=[1.0], layers=1, steps=5)
    assert found.score.shape == (2, 2) and bool(torch.isfinite(found.score).all())
    assert float(found.train_alignment[1].mean()) > float(found.train_alignment[0].mean())


def test_bandit_contest_pairs_seeds():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.nn.functional.one_hot(y).float() + 0.1 * torch.randn(40, 2, generator=g)
    played = bandit.play_set(x, y, rounds=60, tuning=2, seeds=3, width=8, seed=0)
    assert all(v.shape == (3,) for v in played.final.values()) and played.uniform == 30
    found = bandit.contest({"set": played})
    assert set(found.wins.values()) <= {0, 1} and found.worst_share < 1.2
    assert bandit.sampled_signs_gap(seed=1) < 0.01
    assert max(bandit.weighting_checks(seed=1).values()) < 1e-12


def test_regret_growth_reports_every_strength():
    found = bandit.regret_growth(
        [0.0, 1.0], width=4, dim=3, rounds=60, streams=3, checkpoints=[10, 60], noise=0.1, seed=0
    )
    assert set(found.exponents) == {0.0, 1.0} and found.regret[1.0].shape == (2, 3)
