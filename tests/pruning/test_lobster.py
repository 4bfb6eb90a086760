import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.train import minimize
from netatlas.pruning import (
    Plateau,
    initial_parameters,
    largest_threshold,
    lobster_step,
    member_cross_entropy,
    shrinkage,
    stacked_logits,
    train_and_cut,
    with_gradient,
)
from netatlas.pruning.experiments import lobster_fronts


@settings(deadline=None, max_examples=25)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 0.5), st.floats(0, 0.5))
def test_step_by_hand(w, g, lr, decay):
    one, two = (torch.tensor([v], dtype=torch.float64) for v in (w, g))
    got = lobster_step(one, two, lr=lr, decay=decay)
    moved = w - lr * g
    assert float(got) == pytest.approx(moved - decay * moved * max(0.0, 1 - abs(g)), abs=1e-12)


def test_limits_of_the_step():
    w = torch.randn(5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(lobster_step(w, torch.zeros(5).double(), lr=0.1, decay=0.01), 0.99 * w)
    big = torch.full((5,), 2.0).double()
    torch.testing.assert_close(lobster_step(w, big, lr=0.1, decay=0.01), w - 0.2)


def test_shuffling_keeps_the_factors_of_every_member():
    g = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    plain = shrinkage(g, "rescaled", torch.Generator())
    mixed = shrinkage(g, "shuffled rescaled", torch.Generator().manual_seed(1))
    torch.testing.assert_close(plain.flatten(1).sort().values, mixed.flatten(1).sort().values)
    assert not torch.equal(plain, mixed)
    assert (shrinkage(g, "L2", torch.Generator()) == 1).all() and (shrinkage(g, "none", torch.Generator()) == 0).all()


def test_with_gradient_runs_any_rule_in_the_common_loop():
    start = {"w": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()}
    goal = torch.ones(3).double()

    def loss(p, step, _):
        w = p["w"]
        g = 2 * (w.detach() - goal)
        after = lobster_step(w.detach(), g, lr=0.1, decay=0.05)
        return with_gradient((w - goal).square().sum(1), p, {"w": (w.detach() - after) / 0.1})

    final, trace = minimize(loss, start, steps=7, optimizer="sgd", lr=0.1)
    w = start["w"]
    for step in range(7):
        torch.testing.assert_close(trace[step], (w - goal).square().sum(1))
        w = lobster_step(w, 2 * (w - goal), lr=0.1, decay=0.05)
    torch.testing.assert_close(final["w"], w)


def test_threshold_is_within_the_bound_and_the_next_is_not():
    generator = torch.Generator().manual_seed(0)
    params = {n: 3 * p for n, p in initial_parameters([6, 12, 3], [0]).items()}
    x = torch.randn(80, 6, generator=generator)
    y = stacked_logits(params, x)[0].argmax(-1)
    names = ["layers.0.weight", "layers.1.weight"]
    found = largest_threshold(params, names, x, y, tolerance=0.02, probes=25)

    def loss(threshold):
        cut = {n: p * (p.abs() >= threshold[:, None, None]) if n in names else p for n, p in params.items()}
        return member_cross_entropy(stacked_logits(cut, x), y)

    bound = 1.02 * loss(torch.zeros(1))
    assert (loss(found) <= bound + 1e-6).all()
    sizes = torch.cat([params[n].abs().flatten(1) for n in names], 1)
    above = torch.where(sizes > found[:, None] + 1e-6, sizes, torch.inf).amin(1) + 1e-6
    assert (loss(above) > bound).all()


def test_plateau_waits_and_forgets():
    plateau = Plateau(2, 2)
    assert plateau.update(torch.tensor([1.0, 1.0])).tolist() == [False, False]
    assert plateau.update(torch.tensor([2.0, 0.5])).tolist() == [False, False]
    due = plateau.update(torch.tensor([2.0, 0.4]))
    assert due.tolist() == [True, False]
    plateau.reset(due)
    assert plateau.update(torch.tensor([9.0, 0.3])).tolist() == [False, False]


def test_pruned_weights_stay_and_all_rules_run():
    fronts, run = lobster_fronts(0, rules=["LOBSTER", "L1"], decays=[1e-3], seeds=[0], epochs=3, widths=[64, 8, 10])
    assert set(fronts) == {"LOBSTER", "L1", "none"} and len(run.histogram) == 3
    for n in ("layers.0.weight", "layers.1.weight"):
        assert (run.params[n] == 0).any()
    assert ((run.remaining > 0) & (run.remaining < 1)).all()


def test_refusals():
    ones = torch.ones(2)
    with pytest.raises(ValueError, match="gradient of shape"):
        lobster_step(ones, torch.ones(3), lr=0.1, decay=0.1)
    with pytest.raises(ValueError, match="finite"):
        lobster_step(ones, ones * torch.nan, lr=0.1, decay=0.1)
    with pytest.raises(ValueError, match="patience"):
        Plateau(1, 0)
    params = initial_parameters([2, 3, 2], [0])
    x, y = torch.ones(2, 2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="tolerance"):
        largest_threshold(params, ["layers.0.weight"], x, y, tolerance=-1)
    bad = params | {"layers.0.weight": params["layers.0.weight"] * torch.nan}
    with pytest.raises(ValueError, match="finite values in layers"):
        largest_threshold(bad, ["layers.0.weight"], x, y, tolerance=0.1)
    with pytest.raises(ValueError, match="rules out of"):
        train_and_cut((x, y), (x, y), (x, y), widths=[2, 2], rules=["x"], decays=[0.0], seeds=[0], epochs=1)
