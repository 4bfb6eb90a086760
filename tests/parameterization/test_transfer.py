"""Sweeps and optima against parabolas that are known."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.nn import MLP
from netatlas.parameterization import learning_rate_sweep, optimal_rate, optimum_drift

GRID = [-4, -3, -2, -1, 0, 1]


def parabola(vertex, bend=0.3, floor=0.2, seeds=3):
    y = floor * np.exp(bend * (np.array(GRID) - vertex) ** 2)
    return torch.tensor(np.repeat(y[:, None], seeds, 1))


@settings(deadline=None, max_examples=25)
@given(vertex=st.floats(-2.9, 0.0), bend=st.floats(0.05, 1.0))
def test_a_parabola_is_found_exactly(vertex, bend):
    found = optimal_rate(GRID, parabola(vertex, bend))
    assert found.position == pytest.approx(vertex, abs=1e-6)
    assert found.loss == pytest.approx(0.2, rel=1e-9) and not found.censored


@settings(deadline=None, max_examples=10)
@given(slope=st.floats(-0.9, 0.9))
def test_drift_recovers_a_slope(slope):
    sizes = [4, 8, 16]
    tables = [parabola(-1.5 + slope * (math.log2(n) - 3)) for n in sizes]
    drift = optimum_drift(sizes, GRID, tables, resamples=20)
    assert drift.slope == pytest.approx(slope, abs=1e-6) and drift.low == pytest.approx(drift.high, abs=1e-6)


def test_divergence_and_ends():
    losses = parabola(-1.0)
    losses[4:] = torch.inf
    found = optimal_rate(GRID, losses)
    assert not found.censored and -2 < found.position < -0.5
    assert optimal_rate(GRID, parabola(5.0)).censored


def test_sweep_is_the_sequential_loop():
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randint(0, 3, (32,))
    build = partial(MLP, [4, 6, 3])
    options = {"epochs": 2, "batch_size": 8, "optimizer": "adam"}
    table = learning_rate_sweep(build, x, y, log2_rates=[-8, -5, 60], seeds=[0, 1], last=4, **options)
    alone = learning_rate_sweep(build, x, y, log2_rates=[-5], seeds=[1], last=4, **options)
    torch.testing.assert_close(table[1, 1], alone[0, 0])
    assert table.shape == (3, 2)
    blown = learning_rate_sweep(
        build,
        x,
        y,
        log2_rates=[60],
        seeds=[0],
        epochs=2,
        batch_size=8,
        optimizer="sgd",
        loss=lambda o, t: o.square().sum(),
    )
    assert torch.isinf(blown).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: optimal_rate([0, 1], torch.ones(2, 1)), "three equally spaced"),
        (lambda: optimal_rate([0, 1, 3], torch.ones(3, 1)), "three equally spaced"),
        (lambda: optimal_rate([0, 1, 2], torch.full((3, 1), math.nan)), "positive losses"),
        (lambda: optimal_rate([0, 1, 2], torch.full((3, 1), math.inf)), "does not diverge"),
        (lambda: optimum_drift([4], GRID, [parabola(0)]), "at least two sizes"),
        (lambda: learning_rate_sweep(MLP, torch.ones(1), torch.ones(1), log2_rates=[], seeds=[0]), "at least one rate"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
