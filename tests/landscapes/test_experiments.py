"""The chapter's experiments: controls, ties, groups, collapse at every layer, diverged runs."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from netatlas.core.nn import MLP
from netatlas.landscapes import effective_model_complexity
from netatlas.landscapes import experiments as ex


def split(n=60, seed=0):
    g = torch.Generator().manual_seed(seed)
    return ex.split_digits(
        torch.rand(n, 6, generator=g), torch.randint(3, (n,), generator=g), train=40, held_out=10, seed=0
    )


def test_selection_data_are_training_data_and_test_data_are_not():
    x = torch.arange(60.0)[:, None]
    parts = ex.split_digits(x, torch.arange(60), train=40, held_out=10, seed=3)
    train, held_out, test = (set(labels.tolist()) for _, labels in parts)
    assert held_out < train and not train & test and len(train | test) == 60
    for inputs, labels in parts:
        assert torch.equal(inputs[:, 0].long(), labels)


def test_shuffled_labels_do_not_change_the_other_members():
    build, options = partial(MLP, [6, 5, 3]), {"seeds": [0, 1], "steps": 5, "tune_at": 4}
    with_control = ex.subspace_sweep(build, split(), [2, 4], **options)
    without = ex.subspace_sweep(build, split(), [2, 4], **options, control=False)
    np.testing.assert_array_equal(with_control.accuracy, without.accuracy)
    assert with_control.rates == without.rates and with_control.shuffled.shape == (2,)
    assert ((with_control.shuffled >= 0) & (with_control.shuffled <= 1)).all() and np.isnan(without.shuffled).all()


def test_permutations_of_tied_values():
    error = np.repeat([0.0, 0.1, 0.2, 0.3], 6)
    rng = np.random.default_rng(0)
    study = ex.ShiftStudy(error, {"k": rng.random(24), "loss": rng.random(24)}, ["a"] * 24)
    overall, _ = ex.permutation_quantiles(study, "k", seed=0, draws=4000)
    drawn = [abs(spearmanr(rng.permutation(24), error).statistic) for _ in range(4000)]
    assert overall == pytest.approx(np.quantile(drawn, 0.95), abs=0.03)


def test_correlations_inside_groups_do_not_see_shifts_between_them():
    inside, groups = np.arange(4.0), ["a"] * 4 + ["b"] * 4
    outcome = np.concatenate([inside, inside + 100])
    values = {"falls": np.concatenate([-inside, -inside + 50]), "rises": outcome**3}
    assert ex.correlations_apart(values, outcome, groups) == {"falls": pytest.approx(-1), "rises": pytest.approx(1)}


@pytest.mark.parametrize("layers", [1, 2])
def test_cases_straddle_their_threshold(layers):
    for case, limit in zip(ex.straddling_cases((9, 5), layers, [4.0, 6.0]), [4.0, 6.0]):
        found = ex.collapse_optimum(case.counts, [case.weight_decay] * layers, case.feature_decay)
        assert found.alive.tolist() == [True, limit < 5]


def test_two_layers_collapse_at_every_layer():
    (found,) = ex.train_linear([ex.LinearCase((12, 6, 3), 5e-3, 2e-3)], 2, inits=3, seed=0, width=5, steps=1500)
    assert found.off_diagonal < 1e-6 and found.within < 1e-6 and found.value_gap < 1e-4


def test_wrong_labels_are_as_many_as_asked_for():
    labels = torch.arange(10).repeat(500)
    wrong = ex.noisy_labels(labels, 0.3, 10, seed=0)
    assert float((wrong != labels).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(ex.noisy_labels(labels, 0.0, 10, seed=0), labels)


def test_scatter_of_draws_and_draws_below_the_ladder():
    fitted = np.array([[[True], [True]], [[False], [False]], [[True], [False]]])
    ends = ex.capacity_module.Minimum(*(torch.zeros(3, 2, 1),) * 3)
    found = ex.capacity_module.Capacity(np.array([20.0, 0, 10]), fitted, 1, 0, ends)
    result = ex.CapacityResult(5, found, np.ones(1), (0.0, 0.0), 0.0, 10)
    np.testing.assert_allclose(result.log, np.log([20, 10 / 1.26, 10]))
    assert result.scatter == pytest.approx((np.log(2.52) + np.log(2) + np.log(1.26)) / 3)


def lost_network():
    net = MLP([4, 3, 2])
    torch.nn.init.constant_(net.layers[0].weight, torch.nan)
    return net


def test_a_diverged_run_fits_nothing():
    # The largest of NaN is the first class, which all labels are.
    x, y = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 6, dtype=torch.int64)
    found = effective_model_complexity(lost_network, x, y, [3, 6], seeds=[0], steps=2, batch_size=None, rates=(0.1,))
    assert found.capacity.tolist() == [0] and not found.fitted.any()
