"""Weightings by their invariants, online learners against plain loops, and regret against brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import Ridge

from netatlas.random_features import bandits as bd


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=25)
@given(arms=st.integers(1, 8), gamma=st.floats(0, 1e4), seed=st.integers(0, 99))
def test_weightings_are_probabilities_that_favour_smaller_losses(arms, gamma, seed):
    y = torch.rand(3, arms, generator=gen(seed), dtype=torch.float64)
    for rule in (bd.inverse_gap_weighting, bd.fast_cb_weighting):
        p = rule(y, gamma)
        torch.testing.assert_close(p.sum(1), torch.ones(3, dtype=torch.float64))
        assert bool((p >= 0).all())
        order = y.argsort(1)
        assert bool((p.gather(1, order).diff(dim=1) <= 1e-12).all())
        torch.testing.assert_close(rule(y, 0.0), torch.full_like(y, 1 / arms))
    greedy = bd.inverse_gap_weighting(y, 1e15)
    assert bool((greedy.argmax(1) == y.argmin(1)).all())


def test_fast_cb_explores_less_where_losses_are_small():
    low, high = torch.tensor([[0.01, 0.21]]).double(), torch.tensor([[0.5, 0.7]]).double()
    assert float(bd.fast_cb_weighting(low, 50.0)[0, 1]) < float(bd.fast_cb_weighting(high, 50.0)[0, 1])
    assert float(bd.inverse_gap_weighting(low, 50.0)[0, 1]) == pytest.approx(
        float(bd.inverse_gap_weighting(high, 50.0)[0, 1])
    )
    assert bool(torch.isfinite(bd.fast_cb_weighting(torch.zeros(1, 3), 5.0)).all())


def test_epsilon_greedy():
    p = bd.epsilon_greedy(torch.tensor([[0.4, 0.1, 0.3]]), 0.3)
    torch.testing.assert_close(p, torch.tensor([[0.1, 0.8, 0.1]]))


def clusters(n=60, seed=0):
    labels = torch.arange(n) % 3
    x = torch.eye(3)[labels] + 0.1 * torch.randn(n, 3, generator=gen(seed))
    return x, labels


def order_of(x, y, runs, rounds):
    return torch.stack([bd.classification_bandit(x, y, rounds, seed=s) for s in range(runs)])


def test_uniform_play_has_its_expected_regret():
    x, y = clusters()
    run = bd.play_neural(
        x, y, order_of(x, y, 40, 60), arms=3, rule="uniform", loss="kl", strength=torch.zeros(40), rate=torch.zeros(40)
    )
    assert float(run.regret[-1].mean()) == pytest.approx(40, abs=2.5)


@pytest.mark.parametrize("rule", ["square_cb", "fast_cb", "epsilon_greedy", "neural_ucb"])
@pytest.mark.parametrize("loss", bd.LOSSES)
def test_every_rule_learns_separable_classes(rule, loss):
    x, y = clusters()
    strength = torch.full((4,), {"epsilon_greedy": 0.05, "neural_ucb": 0.1}.get(rule, 100.0))
    run = bd.play_neural(
        x,
        y,
        order_of(x, y, 4, 300),
        arms=3,
        rule=rule,
        loss=loss,
        strength=strength,
        rate=torch.full((4,), 3.0 if loss == "kl" else 10.0),
        width=16,
    )
    assert float(run.regret[-1].mean()) < 90
    late = run.regret[-1] - run.regret[149]
    assert float(late.mean()) < float(run.regret[149].mean())


def test_first_update_equals_autograd():
    x, y = torch.randn(1, 4, generator=gen(5)), torch.tensor([1])
    order = torch.zeros(1, 2, dtype=torch.long)
    # One greedy round, then a second: its prediction follows from one gradient step that autograd also takes.
    for loss in bd.LOSSES:
        g = gen(0)
        w = torch.randn(2, 8, 4, generator=g).requires_grad_(True)
        v = torch.randn(8, generator=g).requires_grad_(True)
        f = (torch.relu(x[0] @ w.mT) @ v) / 8**0.5
        action = int(f.argmin())
        s, observed = torch.sigmoid(f[action]), float(action != 1)
        value = (s - observed) ** 2 if loss == "square" else -(observed * s.log() + (1 - observed) * (1 - s).log())
        gw, gv = torch.autograd.grad(value, (w, v))
        w2, v2 = w - 5.0 * gw, v - 5.0 * gv
        second = int((torch.relu(x[0] @ w2.mT) @ v2).argmin())
        run = bd.play_neural(
            x,
            y,
            order,
            arms=2,
            rule="epsilon_greedy",
            loss=loss,
            strength=torch.zeros(1),
            rate=torch.full((1,), 5.0),
            width=8,
        )
        expected = [observed, observed + float(second != 1)]
        assert run.regret[:, 0].tolist() == expected


def test_perturbed_gradient_has_the_pull_as_its_mean():
    g = gen(1)
    f, y, x = torch.randn(1, generator=g), torch.ones(1), torch.randn(1, 3, generator=g)
    moved, moved_last = 0.1 * torch.randn(1, 4, 3, generator=g), 0.1 * torch.randn(1, 4, generator=g)
    back, out = torch.zeros(1, 4), torch.zeros(1, 4)
    block, last = bd._perturbed_gradient(f, y, out, back, x, moved, moved_last, 0.05, 60_000, "kl", g)
    # With no network gradient only the tilt's own slope is left: tilt^2 s'(f) times the displacement.
    s = torch.sigmoid(f)
    torch.testing.assert_close(block, 0.05**2 * s * (1 - s) * moved, atol=3e-4, rtol=0)
    torch.testing.assert_close(last, 0.05**2 * s * (1 - s) * moved_last, atol=3e-4, rtol=0)
    x, y = clusters()
    run = bd.play_neural(
        x,
        y,
        order_of(x, y, 2, 20),
        arms=3,
        rule="fast_cb",
        loss="square",
        strength=torch.ones(2),
        rate=torch.ones(2),
        perturbation=0.5,
        perturbations=4,
    )
    assert bool(torch.isfinite(run.regret).all())


def test_linucb_without_bonus_is_ridge_regression():
    x, y = clusters(30)
    order = order_of(x, y, 1, 25)
    run = bd.play_linucb(x.double(), y, order, arms=3, strength=torch.zeros(1))
    one = torch.cat([x, torch.ones(30, 1)], 1).double().numpy()
    seen, losses, total = [[] for _ in range(3)], [[] for _ in range(3)], 0
    for t in order[0].tolist():
        predicted = [
            Ridge(1.0, fit_intercept=False).fit(np.array(seen[a]), losses[a]).predict(one[t : t + 1])[0]
            if seen[a]
            else 0.0
            for a in range(3)
        ]
        a = int(np.argmin(np.round(predicted, 9)))
        loss = float(a != int(y[t]))
        seen[a].append(one[t])
        losses[a].append(loss)
        total += loss
    assert float(run.regret[-1, 0]) == total


def test_hindsight_equals_a_constrained_minimiser():
    g = gen(2)
    phi = torch.randn(1, 12, 4, generator=g, dtype=torch.float64)
    y = torch.randn(1, 12, generator=g, dtype=torch.float64)
    known = bd.hindsight(phi, y, [12])
    for pull, radius in ((0.5, 10.0), (0.5, 0.2), (0.0, 0.3)):
        found = bd.least_total(known, 12, torch.tensor([pull]).double(), torch.tensor([radius]).double())
        a, b = phi[0].numpy(), y[0].numpy()
        exact = minimize(
            lambda d: ((a @ d - b) ** 2).sum() + 12 * pull / 2 * (d**2).sum(),  # noqa: B023
            np.zeros(4),
            constraints={"type": "ineq", "fun": lambda d: radius**2 - (d**2).sum()},  # noqa: B023
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert float(found[0]) == pytest.approx(exact.fun, rel=1e-5)


def test_online_regression_equals_a_plain_loop():
    g = gen(3)
    phi = torch.randn(2, 15, 5, generator=g, dtype=torch.float64)
    teacher, noise = (
        torch.randn(2, 5, generator=g, dtype=torch.float64),
        0.1 * torch.randn(2, 15, generator=g, dtype=torch.float64),
    )
    out = bd.online_regression(
        phi,
        teacher,
        noise,
        pull=torch.tensor([0.3], dtype=torch.float64),
        power=torch.tensor([1.0]),
        rate=torch.tensor([0.05], dtype=torch.float64),
        checkpoints=[15],
    )
    for b in range(2):
        delta, excess = torch.zeros(5, dtype=torch.float64), 0.0
        for t in range(15):
            y = phi[b, t] @ teacher[b] + noise[b, t]
            r = phi[b, t] @ delta - y
            excess += float(r**2 - noise[b, t] ** 2)
            delta = delta - min(0.05, 1 / (0.3 * (t + 1))) * (2 * r * phi[b, t] + 0.3 * delta)
            delta = delta * min(1.0, float(teacher[b].norm() / delta.norm()))
        assert float(out.excess[0, 0, b]) == pytest.approx(excess, rel=1e-10)
    assert bool((out.regret > 0).all())


def test_gradients_of_the_linearised_network_equal_autograd():
    x = torch.randn(1, 3, 2, generator=gen(4), dtype=torch.float64)
    phi = bd.network_gradients(x, 5, generator=gen(6))
    g = gen(6)
    w = (torch.randn(1, 2, 5, generator=g, dtype=torch.float64) / 2**0.5)[0].requires_grad_(True)
    v = torch.randn(1, 1, 5, generator=g, dtype=torch.float64)[0, 0].requires_grad_(True)
    for t in range(3):
        gv, gw = torch.autograd.grad((torch.tanh(x[0, t] @ w) @ v) / 5**0.5, (v, w))
        torch.testing.assert_close(phi[0, t], torch.cat([gv, gw.T.flatten()]))


def test_refusals():
    x, y = clusters(9)
    order = order_of(x, y, 2, 5)
    two = torch.ones(2)
    phi, teacher, noise = torch.ones(1, 4, 2), torch.ones(1, 2), torch.zeros(1, 4)
    one = torch.ones(1)

    def play(**changes):
        options = {"arms": 3, "rule": "fast_cb", "loss": "kl", "strength": two, "rate": two} | changes
        return bd.play_neural(x, y, order, **options)

    for call, words in (
        (lambda: bd.inverse_gap_weighting(torch.tensor([math.nan, 1.0]), 1.0), "finite"),
        (lambda: bd.inverse_gap_weighting(torch.tensor([1, 0]), 1.0), "floating-point"),
        (lambda: bd.inverse_gap_weighting(torch.ones(2), -1.0), "gamma"),
        (lambda: bd.fast_cb_weighting(-torch.ones(2), 1.0), "at least 0"),
        (lambda: bd.fast_cb_weighting(torch.ones(2), 1.0, floor=0), "floor"),
        (lambda: bd.epsilon_greedy(torch.ones(2), 2.0), "epsilon"),
        (lambda: bd.classification_bandit(x, y[:2], 5, seed=0), "labels"),
        (lambda: play(rule="thompson"), "rule"),
        (lambda: play(loss="hinge"), "loss"),
        (lambda: play(strength=one), "strengths"),
        (lambda: play(arms=2), "labels"),
        (lambda: bd.play_linucb(x, y, order, arms=3, strength=one), "strengths"),
        (lambda: bd.hindsight(phi, noise, [9]), "checkpoints"),
        (
            lambda: bd.online_regression(phi, teacher, noise, pull=0 * one, power=one, rate=one, checkpoints=[4]),
            "curvature",
        ),
        (
            lambda: bd.online_regression(phi, teacher, noise, pull=-one, power=0 * one, rate=one, checkpoints=[4]),
            "pull",
        ),
        (
            lambda: bd.online_regression(phi, teacher, noise, pull=one, power=2 * one, rate=one, checkpoints=[4]),
            "powers",
        ),
        (lambda: bd.network_gradients(phi, 0, generator=gen()), "width"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_rules_and_losses_side_by_side_play_as_alone():
    g = torch.Generator().manual_seed(0)
    x, y = torch.nn.functional.normalize(torch.randn(40, 5, generator=g), dim=1), torch.arange(40) % 3
    order = torch.stack([bd.classification_bandit(x, y, 30, seed=s) for s in range(2)])
    arms = [("square_cb", "square", 0.0), ("fast_cb", "kl", 0.3), ("epsilon_greedy", "kl", 0.0)]
    strength, rate = torch.tensor([0.2, 0.4]), torch.ones(2)
    options = {"arms": 3, "width": 4}
    alone = [
        bd.play_neural(
            x,
            y,
            order,
            rule=r,
            loss=l,
            perturbation=c,
            strength=strength,
            rate=rate,
            seeds=torch.arange(2),
            **options,
        ).regret
        for r, l, c in arms
    ]
    together = bd.play_neural(
        x,
        y,
        order.repeat(3, 1),
        rule=[r for r, *_ in arms for _ in range(2)],
        loss=[l for _, l, _ in arms for _ in range(2)],
        perturbation=torch.tensor([c for *_, c in arms]).repeat_interleave(2),
        strength=strength.repeat(3),
        rate=rate.repeat(3),
        seeds=torch.arange(2).repeat(3),
        **options,
    ).regret
    assert torch.equal(together, torch.cat(alone, 1))
    with pytest.raises(ValueError, match="neural_ucb alone"):
        bd.play_neural(x, y, order, rule=["neural_ucb", "fast_cb"], loss="kl", strength=strength, rate=rate, **options)
    with pytest.raises(ValueError, match="2 rules"):
        bd.play_neural(x, y, order, rule=["fast_cb"], loss="kl", strength=strength, rate=rate, **options)


def test_the_pull_is_the_mean_of_drawn_signs_at_an_undecided_prediction():
    # f = 0 for zero output weights: the mean over signs of the sampled gradient is the loss's own and the pull.
    for loss, bend in (("kl", 0.25), ("square", 0.125)):
        g = torch.Generator().manual_seed(1)
        moved, last = 0.3 * torch.randn(1, 2, 3, dtype=torch.float64, generator=g), torch.zeros(1, 2).double()
        zero = torch.zeros(1, 2, dtype=torch.float64)
        x = torch.randn(1, 3, dtype=torch.float64, generator=g)
        flat, half = torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
        tilt = 0.05
        block, _ = bd._perturbed_gradient(flat, half, zero, zero, x, moved, last, tilt, 400_000, loss, g)
        assert torch.allclose(block, tilt**2 * bend * moved, atol=2e-5)


def test_hindsight_with_fewer_features_than_rounds_equals_the_full_decomposition():
    g = torch.Generator().manual_seed(0)
    phi = torch.randn(3, 40, 6, generator=g, dtype=torch.float64)
    y = torch.randn(3, 40, generator=g, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(phi @ phi.mT)
    full = bd.Hindsight({40: values.clamp_min(0)}, {40: (vectors.mT @ y[..., None])[..., 0]})
    radius = torch.tensor([0.05, 0.3, 5.0], dtype=torch.float64)
    for pull in (0.0, 0.3):
        mu = torch.tensor([[pull]], dtype=torch.float64)
        short = bd.least_total(bd.hindsight(phi, y, [40]), 40, mu, radius)
        torch.testing.assert_close(short, bd.least_total(full, 40, mu, radius), rtol=1e-6, atol=0)
