"""Asymmetric layers: masks that differ by row, weights that stay, mixtures that reduce to what they must."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, r2_score

from netatlas.connectivity import (
    AsymmetricLinear,
    AsymmetricMLP,
    Gate,
    MixtureOfExperts,
    MixtureOfInterpolatedExperts,
    asymmetry_mask,
    ensemble_score,
    member_disagreement,
)
from netatlas.connectivity import experiments as ex
from netatlas.core.nn import MLP


@settings(deadline=None, max_examples=25)
@given(columns=st.integers(3, 12), seed=st.integers(0, 10_000), data=st.data())
def test_every_row_freezes_its_own_set(columns, seed, data):
    fixed = data.draw(st.integers(1, columns - 1))
    rows = data.draw(st.integers(1, min(20, columns)))
    mask = asymmetry_mask(rows, columns, fixed, seed=seed)
    assert torch.equal((~mask).sum(1), torch.full((rows,), fixed))
    assert len({tuple(row.tolist()) for row in mask}) == rows
    assert torch.equal(mask, asymmetry_mask(rows, columns, fixed, seed=seed))


def test_all_sets_can_be_used_up():
    assert len({tuple(r.tolist()) for r in asymmetry_mask(10, 5, 2, seed=0)}) == 10
    with pytest.raises(ValueError, match="at least 11 different sets"):
        asymmetry_mask(11, 5, 2, seed=0)


def test_frozen_weights_get_no_gradient_and_training_leaves_them():
    layer = AsymmetricLinear(6, 5, fixed=2, scale=1.0, seed=3)
    before = layer.weight().detach().clone()
    layer(torch.randn(9, 6)).square().sum().backward()
    assert float((layer.linear.weight.grad * (1 - layer.mask)).abs().max()) == 0
    with torch.no_grad():
        layer.linear.weight += torch.randn(5, 6)
    frozen = (1 - layer.mask).bool()
    assert torch.equal(layer.weight()[frozen], before[frozen])
    assert torch.equal(layer.weight()[frozen], layer.frozen[frozen])
    assert float(AsymmetricLinear(6, 5, fixed=2, scale=0.0, seed=3).frozen.abs().max()) == 0


def test_exact_cases_and_the_one_that_must_not_vanish():
    found = ex.exact_checks(1)
    broken = found.pop("places exchanged, frozen weights restored: another function")
    assert max(found.values()) < 1e-12 < 0.1 < broken


def test_mixtures_of_one_expert_are_that_expert():
    expert, x = MLP([4, 6, 3]), torch.randn(8, 4)
    for mixture in (MixtureOfExperts, MixtureOfInterpolatedExperts):
        torch.testing.assert_close(mixture([expert], Gate(4, 1))(x), expert(x))


def test_outputs_are_mixed_by_the_gate_and_weights_before_the_activation():
    experts, gate, x = [MLP([4, 6, 3]) for _ in range(3)], Gate(4, 3), torch.randn(8, 4)
    g = gate(x)
    expected = sum(g[:, k : k + 1] * e(x) for k, e in enumerate(experts))
    torch.testing.assert_close(MixtureOfExperts(experts, gate)(x), expected)
    rows = []
    for i in range(8):
        merged = {
            n: sum(g[i, k] * dict(e.named_parameters())[n] for k, e in enumerate(experts))
            for n in dict(experts[0].named_parameters())
        }
        rows.append(torch.func.functional_call(experts[0], merged, (x[i : i + 1],))[0])
    torch.testing.assert_close(MixtureOfInterpolatedExperts(experts, gate)(x), torch.stack(rows), atol=1e-5, rtol=1e-5)


def test_gates_are_shares_and_the_noisy_one_is_repeatable_in_evaluation():
    x = torch.randn(50, 4)
    noisy = Gate(4, 3, temperature=2.0)
    for gate in (Gate(4, 3), noisy, noisy.eval()):
        torch.testing.assert_close(gate(x).sum(-1), torch.ones(50))
    assert torch.equal(noisy(x), noisy(x))
    noisy.train()
    assert not torch.equal(noisy(x), noisy(x))


def test_scores_are_those_of_scikit_learn():
    outputs, labels = torch.randn(4, 30, 3), torch.randint(0, 3, (30,))
    found = ensemble_score(outputs, labels, [1, 2, 4])
    pairs = [outputs[i : i + 2].mean(0).argmax(1) for i in (0, 2)]
    assert float(found[1]) == pytest.approx(sum(accuracy_score(labels, p) for p in pairs) / 2)
    assert float(found[2]) == pytest.approx(accuracy_score(labels, outputs.mean(0).argmax(1)))
    values, targets = torch.randn(2, 30, 1), torch.randn(30, 1)
    expected = r2_score(targets.numpy(), values.mean(0).numpy())
    assert float(ensemble_score(values, targets, [2], task="regression")) == pytest.approx(expected, rel=1e-5)


def test_disagreement_of_known_answers():
    answers = torch.nn.functional.one_hot(torch.tensor([[0, 0], [0, 1], [1, 1]]), 2).float()
    assert member_disagreement(answers) == pytest.approx((0.5 + 1.0 + 0.5) / 3)


def test_a_small_study_runs_and_its_null_has_no_mechanism():
    splits = ex.tabular_splits("wine", [0, 1])
    study = ex.ensemble_study(splits, width=8, members=4, steps=20, seed=0, ablations=True)
    assert study.sizes == [1, 2, 4]
    assert all(v.shape == (2, 3) for v in study.scores.values())
    assert study.settings["asymmetric"] in (0.3, 1.0)
    assert study.gain("plain").shape == (2,)
    mean, bound = ex.one_sided_lead(torch.tensor([1.0, 1.1, 0.9]))
    assert mean == pytest.approx(1.0) and 0 < bound < mean


def test_verdicts_on_intervals():
    assert ex.conclusion(0.01, 0.03).startswith("differ")
    assert ex.conclusion(-0.01, 0.01).startswith("do not differ")
    assert ex.conclusion(-0.05, 0.01).startswith("leave it open")


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="frozen weights a row"):
        asymmetry_mask(2, 3, 4, seed=0)
    with pytest.raises(ValueError, match="finite scale"):
        AsymmetricLinear(3, 2, fixed=1, scale=-1.0, seed=0)
    with pytest.raises(ValueError, match="one number of frozen weights a layer"):
        AsymmetricMLP([3, 2], fixed=[1, 1])
    with pytest.raises(ValueError, match="an activation out of"):
        AsymmetricMLP([3, 2], fixed=[1], activation="tanh")
    with pytest.raises(ValueError, match="at least one expert"):
        MixtureOfExperts([], Gate(3, 1))
    with pytest.raises(ValueError, match="experts of one depth"):
        MixtureOfInterpolatedExperts([MLP([3, 2]), MLP([3, 2, 2])], Gate(3, 2))
    with pytest.raises(ValueError, match="a positive temperature"):
        Gate(3, 2, temperature=0.0)
    with pytest.raises(ValueError, match="sizes between 1 and 2"):
        ensemble_score(torch.zeros(2, 3, 2), torch.zeros(3).long(), [3])
    with pytest.raises(ValueError, match="finite values"):
        ensemble_score(torch.full((2, 3, 2), float("nan")), torch.zeros(3).long(), [1])
    with pytest.raises(ValueError, match="at least two members"):
        member_disagreement(torch.zeros(1, 3, 2))
