"""The chapter's experiments at tiny sizes: what they hold fixed, and what they must return."""

import math

import numpy as np
import pytest
import torch

from netatlas.core.parameterization import abc_regime
from netatlas.parameterization import analogy_corpus, optimal_rate
from netatlas.parameterization import experiments as ex
from netatlas.parameterization.narrow import CROSSING, polyline


def digits(count=128, inputs=196, classes=10):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, inputs, generator=generator), torch.randint(classes, (count,), generator=generator)


def test_the_networks_start_has_the_variance_asked_for():
    torch.manual_seed(0)
    for variance in (2.0, 1 / 3):
        model = ex.network(400, variance=variance)
        for value in model.parameters():
            assert float(value.detach().var()) * value.shape[1] == pytest.approx(variance, rel=0.1)


def test_all_rules_are_one_network_at_the_base_width():
    arms = [ex.WidthArm("standard"), ex.WidthArm("mup"), ex.WidthArm("standard", global_rate=0.0)]
    tables = [ex.width_sweep(digits(), 8, arm, [-7, -6], [0, 1], base=8, epochs=1) for arm in arms]
    for table in tables[1:]:
        torch.testing.assert_close(table, tables[0])
    assert tables[0].shape == (2, 2)


def test_tuned_constants_pair_their_seeds():
    options = {"base": 8, "largest": 16, "epochs": 1}
    arm = ex.WidthArm("mup")
    tuned = ex.tuned_constants(digits(), arm, [-8, -7, -6], [0], [1, 2], **options)
    again = ex.width_sweep(digits(), 16, arm, [tuned.position], [1, 2], base=8, constants=tuned.constants, epochs=1)
    torch.testing.assert_close(tuned.transferred, again[0])
    assert tuned.losses.shape == (2,) and (tuned.shift != 0 or torch.equal(tuned.losses, tuned.transferred))


def test_constants_act_at_the_base_width_too():
    arm = ex.WidthArm("mup")
    plain = ex.width_sweep(digits(), 8, arm, [-6], [0], base=8, epochs=1)
    for kind in ("embedding", "hidden", "readout"):
        changed = ex.width_sweep(digits(), 8, arm, [-6], [0], base=8, constants={kind: 4.0}, epochs=1)
        assert float((changed - plain).abs()) > 1e-4
    both = ex.width_sweep(digits(), 8, arm, [-8], [0], base=8, constants=dict.fromkeys(ex.KINDS, 4.0), epochs=1)
    torch.testing.assert_close(both, plain)


def test_equivalent_rules_and_scaled_losses_are_exact():
    assert max(ex.equivalent_trajectories(digits(), width=16, base=8)) < 1e-9
    scaled = ex.loss_scaling(digits(), "adam_atan2", [0, -30], width=16, base=8)
    assert float((scaled[0] - scaled[-30]).abs().max()) < 1e-6


def test_alignments_lie_between_their_limits():
    found = ex.measured_alignment(digits(), ex.WidthArm("mup"), [16, 32], [0, 1], base=16, lr=0.01, probes=32)
    assert set(found.ratio) == {"hidden 1", "hidden 2", "readout"}
    for ratio in found.ratio.values():
        assert ratio.shape == (2, 2) and (ratio <= 1 + 1e-6).all()


def test_one_class_has_no_best_rate():
    x, _ = digits(64, 12)
    losses = ex.depth_sweep((x, torch.zeros(64, dtype=torch.int64)), 4, 2, [-2, -1, 0], [0], epochs=1)
    assert not losses.any()
    with pytest.raises(ValueError, match="positive losses"):
        optimal_rate([-2, -1, 0], losses)


def test_growth_has_the_exact_mean():
    growth = ex.initial_growth(8, 32, draws=400)
    assert abs(float(growth.mean()) - (1 + 1 / 16) ** 8) < 4 * float(growth.std()) / 20


def test_random_rules_are_stable_and_some_have_r_zero():
    grid = ex.random_abc_grid(5, [16, 32], seeds=1, seed=0, at_zero=2)
    assert (grid.r >= -1e-9).all() and (np.abs(grid.r) < 1e-9).sum() >= 2 and np.isfinite(grid.measured).all()
    assert abc_regime([-0.5, 0, 0.5], [0.5] * 3, 0.0).feature_learning


def test_diverged_rates_answer_nothing_and_ends_are_counted():
    corpus = analogy_corpus(attributes=3, entities=4, windows=500, questions=40)
    found = ex.analogy_curve(corpus, [4, None], [4, 8, 1e9], [0, 1], rule="mup", steps=20)
    assert found.accuracy.shape == (2, 2) and 1e9 not in found.rates
    assert found.at_end == sum(r == 4 for r in found.rates)


def test_few_shot_reports_seen_and_unseen_classes():
    x, y = digits(200, 6)
    x[torch.arange(200), y % 6] += 3
    found = ex.few_shot(x, y, seeds=[0], steps=2, inner=[0.1], outer=[0.1], batch=2, widths=[8])
    assert set(found) >= {"muP limit", "muP limit, seen classes", "muP, n = 8"}
    assert all(0 <= float(v) <= 1 for v in found.values())


def test_problems_are_finer_than_their_training_points():
    _, y, (fine, wanted) = ex.curve_problem(CROSSING, 16)
    assert len(fine) == 40 * 16 + 5 and wanted.shape == (len(fine), 2) and y.shape == (16, 2)
    torch.testing.assert_close(wanted[-5:], polyline(CROSSING, fine[-5:, 0]))
    grid, value, (dense, _) = ex.bump_problem(5)
    assert len(dense) == 41**2 and float(value.min()) == 0 and float(grid[value[:, 0].argmin()].norm()) == 0


def test_width_one_never_folds():
    t = torch.linspace(-1, 1, 33)[:, None]
    runs = ex.train_restarts(t, t.abs(), (t, t.abs()), width=1, depth=3, restarts=4, steps=40)
    assert runs.sup.shape == (4,) and (runs.sup >= 0.5 - 1e-6).all() and (runs.rms <= runs.sup).all()


def test_coding_errors_fall_in_the_mean():
    found = ex.coding_errors([3, 6])
    assert found["rms"][1] < found["rms"][0] and (found["sup"] >= 0.5).all() and (found["width"] == 2).all()


def test_recurrent_networks_stop_at_one_loss():
    study = ex.rank_study(12, (1, 12), [0, 1], steps=40)
    assert study.kernel.shape == (2, 2) and 0 <= study.p_weights <= 1 and study.loss < math.log(3) + 0.5
    frobenius = study.spectral[0] ** 2
    assert (frobenius > study.spectral[1] ** 2).all()
    kinds = ex.structure_study(12, [0], steps=20)
    assert set(kinds) == {"blocks", "dale", "heavy"} and all(1 <= float(m.rank.max()) <= 12 for m in kinds.values())


def test_linear_theory_knows_its_starts():
    found = ex.linear_theory(1.0, dimension=6, tasks=4, ranks=(1, 3, 6))
    assert found.closed_error < 1e-3
    np.testing.assert_allclose(found.expected[-1], found.from_zero[-1], atol=2e-3)
