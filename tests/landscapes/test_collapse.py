"""Neural collapse: the closed form against mpmath and brute force, thresholds, balance, metrics, refusals."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.landscapes import (
    balance_gap,
    class_means,
    collapse_metrics,
    collapse_optimum,
    collapse_threshold,
    ufm_objective,
)
from netatlas.landscapes import experiments as ex


def scalar(s, n, total, layers, c):
    return (s - math.sqrt(n)) ** 2 / (2 * total) + (layers + 1) / 2 * c * s ** (2 / (layers + 1))


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_root_against_mpmath(layers):
    counts, decay, feature = (100, 50, 20, 10), 3e-3, 2e-4
    found = collapse_optimum(counts, [decay] * layers, feature)
    with mpmath.workdps(40):
        c = (mpmath.mpf(decay) ** layers * mpmath.mpf(feature)) ** (mpmath.mpf(1) / (layers + 1))
        q = mpmath.mpf(2) / (layers + 1)
        for n, s in zip(counts, found.singular_values):
            exact = mpmath.findroot(lambda t, n=n: (t - mpmath.sqrt(n)) / 180 + c * t ** (q - 1), float(s))
            assert abs(s / exact - 1) < 1e-12


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 200), st.floats(1e-4, 0.1))
def test_optimum_is_the_least_on_a_grid(layers, n, decay):
    counts = (n, 50)
    found = collapse_optimum(counts, [decay] * layers, decay / 10)
    c = decay * 10 ** (-1 / (layers + 1))
    grid = np.linspace(0, math.sqrt(n), 4001)
    least = scalar(grid, n, n + 50, layers, c).min()
    mine = scalar(found.singular_values[0], n, n + 50, layers, c)
    assert mine <= least + 1e-12


@pytest.mark.parametrize(("layers", "jump"), [(1, 0), (2, 1 / 2), (3, 2 / 3), (4, 3 / 4)])
def test_threshold_and_jump(layers, jump):
    total, decays, feature = 10**6, [1e-3] * layers, 1e-5
    limit = collapse_threshold(total, decays, feature)
    for factor, share in ((0.999, 0), (1.001, jump)):
        n = round(limit * factor)
        found = collapse_optimum((n, total - n), decays, feature)
        assert found.singular_values[0] / math.sqrt(n) == pytest.approx(share, abs=2e-3)
    c = (1e-3**layers * 1e-5) ** (1 / (layers + 1))
    known = {1: total**2 * 1e-3 * 1e-5, 2: 4 * (total * c) ** 1.5}
    if layers in known:
        assert limit == pytest.approx(known[layers], rel=1e-12)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_factors_built_from_the_closed_form_reach_the_objective(layers):
    counts, decays, feature = (12, 7, 4), [2e-3, 5e-3, 1e-3][:layers], 3e-4
    best = collapse_optimum(counts, decays, feature)
    label = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    y = torch.nn.functional.one_hot(label).T.double()
    frames = [torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64)).Q for _ in range(layers)]
    feature_rows = torch.tensor(best.feature_norms)[label] * y
    ends = [*frames[1:], torch.eye(3, dtype=torch.float64)]
    weights = [(b * torch.tensor(w)) @ a.T for a, b, w in zip(frames, ends, best.weight_norms)]
    features = frames[0] @ feature_rows
    value = ufm_objective(weights, features, y, decays, feature)
    assert float(value) == pytest.approx(best.objective, rel=1e-12)
    assert float(balance_gap(weights, features, decays, feature)) < 1e-15
    leaves = [t.clone().requires_grad_(True) for t in (*weights, features)]
    grads = torch.autograd.grad(ufm_objective(leaves[:-1], leaves[-1], y, decays, feature), leaves)
    assert max(float(g.abs().max()) for g in grads) < 1e-14


def test_one_layer_is_a_soft_threshold_of_the_targets():
    counts, decay, feature = (9, 4, 1), 0.01, 0.003
    expected = np.maximum(0, np.sqrt(counts) - 14 * math.sqrt(decay * feature))
    np.testing.assert_allclose(collapse_optimum(counts, [decay], feature).singular_values, expected, rtol=1e-12)


def test_strong_decay_collapses_everything():
    found = collapse_optimum((3, 2), [10.0], 10.0)
    assert not found.alive.any() and found.objective == pytest.approx(0.5)


def test_training_finds_it():
    case = ex.LinearCase((12, 6, 3), 5e-3, 2e-3)
    (found,) = ex.train_linear([case], 1, inits=2, seed=0, width=5, steps=1500)
    assert found.objective_gap < 1e-6 and found.value_gap < 1e-3 and found.balance < 1e-6


def frame(classes, kind):
    eye = torch.eye(classes, dtype=torch.float64)
    return eye if kind == "orthogonal" else eye - 1 / classes


@pytest.mark.parametrize("kind", ["orthogonal", "simplex"])
def test_metrics_know_frames(kind):
    head, label = frame(4, kind), torch.arange(4).repeat(3)
    found = collapse_metrics(2 * head[label], label, head)
    assert float(found.within) < 1e-15 and float(found.alignment) < 1e-12
    zero, other = (found.mean_cosine, found.mean_simplex)[:: 1 if kind == "orthogonal" else -1]
    assert float(zero) < 1e-12 and float(other) == pytest.approx(1 / 3)


def test_metrics_of_members_and_of_spread():
    g = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat(10)
    features, head = torch.randn(2, 30, 5, generator=g), torch.randn(2, 3, 5, generator=g)
    both = collapse_metrics(features, label, head)
    alone = collapse_metrics(features[1], label, head[1])
    for a, b in zip(both, alone):
        torch.testing.assert_close(a[1], b)
    assert float(both.within.min()) > 0.5
    torch.testing.assert_close(class_means(features[0], label, 3)[1], features[0][label == 1].mean(0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: collapse_optimum((), [1.0], 1.0), "one class"),
        (lambda: collapse_optimum((3, 0), [1.0], 1.0), "at least one class"),
        (lambda: collapse_optimum((3,), [], 1.0), "one layer"),
        (lambda: collapse_optimum((3,), [0.0], 1.0), "positive"),
        (lambda: collapse_threshold(0, [1.0], 1.0), "at least one"),
        (lambda: ufm_objective([], torch.ones(2, 3), torch.ones(2, 3), [], 1.0), "every layer"),
        (lambda: balance_gap([torch.ones(2, 2)], torch.ones(2, 3), [], 1.0), "1 decays"),
        (lambda: class_means(torch.ones(3, 2), torch.tensor([0, 0, 0]), 2), "every class"),
        (lambda: class_means(torch.ones(3, 2), torch.tensor([0]), 1), "3 labels"),
        (
            lambda: collapse_metrics(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64), torch.ones(1, 2)),
            "two classes",
        ),
        (lambda: collapse_metrics(torch.ones(3, 2), torch.tensor([0, 1, 1]), torch.ones(2, 3)), "dimension 3"),
        (lambda: collapse_metrics(torch.full((2, 2), torch.nan), torch.tensor([0, 1]), torch.ones(2, 2)), "finite"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
