"""Recurrent kernels against automatic differentiation, and the linear theory's closed forms against mpmath."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.parameterization import (
    effective_rank,
    kernel_alignment,
    linear_alignment,
    linear_alignment_closed,
    low_rank_recurrent_init,
    recurrent_kernel,
    recurrent_states,
    structured_init,
    two_alternative_forced_choice,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=15)
@given(rank=st.integers(1, 12), seed=st.integers(0, 50))
def test_low_rank_init_has_its_rank_and_norm(rank, seed):
    w = low_rank_recurrent_init(12, rank, generator=generator(seed)).double()
    full = low_rank_recurrent_init(12, 12, generator=generator(seed)).double()
    assert int(torch.linalg.matrix_rank(w, rtol=1e-4)) == rank
    assert float(w.norm()) == pytest.approx(float(full.norm()), rel=1e-5)
    cut = low_rank_recurrent_init(12, rank, match="spectral", generator=generator(seed)).double()
    assert float(torch.linalg.matrix_norm(cut, 2)) == pytest.approx(float(torch.linalg.matrix_norm(full, 2)), rel=1e-5)
    assert 1 - 1e-5 <= float(effective_rank(w)) <= rank + 1e-5


def test_effective_rank_of_known_spectra():
    assert float(effective_rank(torch.eye(5))) == pytest.approx(5)
    assert float(effective_rank(torch.ones(4, 4))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["blocks", "dale", "heavy"])
def test_structured_init_has_the_norm_and_dale_its_signs(kind):
    w = structured_init(40, kind, gain=1.25, generator=generator())
    assert float(w.norm()) == pytest.approx(1.25 * math.sqrt(40), rel=1e-5)
    if kind == "dale":
        assert bool((w[:, :32] >= 0).all() and (w[:, 32:] <= 0).all())


def test_kernel_is_that_of_automatic_differentiation():
    torch.manual_seed(1)
    m, n, c, b = 2, 5, 3, 4
    params = {
        "W": torch.randn(m, n, n).double() / 2,
        "W_in": torch.randn(m, n, 3).double(),
        "V": torch.randn(m, c, n).double(),
    }
    x = two_alternative_forced_choice(b, generator=generator()).inputs.double()
    found = recurrent_kernel(params, x)
    for i in range(m):
        one = {k: v[i : i + 1] for k, v in params.items()}

        def last(w, one=one):
            return (recurrent_states(one | {"W": w[None]}, x)[0, -1] @ one["V"][0].T).flatten()

        jacobian = torch.func.jacrev(last)(one["W"][0]).reshape(b * c, -1)
        torch.testing.assert_close(found[i], jacobian @ jacobian.T, rtol=1e-10, atol=1e-12)


def test_states_follow_the_recursion():
    p = {"W": torch.randn(1, 4, 4), "W_in": torch.randn(1, 4, 3)}
    x = torch.randn(3, 2, 3)
    h = torch.zeros(2, 4)
    for t in range(3):
        h = (x[t] @ p["W_in"][0].T + h @ p["W"][0].T).relu()
    torch.testing.assert_close(recurrent_states(p, x)[0, -1], h)
    meta = {k: v.to("meta") for k, v in p.items()} | {"V": torch.empty(1, 2, 4, device="meta")}
    assert recurrent_kernel(meta, x.to("meta")).shape == (1, 4, 4)


@settings(deadline=None, max_examples=15)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 50))
def test_alignment_is_a_cosine(scale, seed):
    x = torch.randn(6, 4, generator=generator(seed), dtype=torch.float64)
    k = x @ x.T
    assert float(kernel_alignment(k, scale * k)) == pytest.approx(1.0)
    other = torch.randn(6, 3, generator=generator(seed + 1), dtype=torch.float64)
    assert 0 <= float(kernel_alignment(k, other @ other.T)) <= 1
    assert float(kernel_alignment(k, scale * k + 3.0, centred=True)) == pytest.approx(1.0)


@pytest.mark.parametrize("norm", [0.5, 1.0, 3.0])
def test_closed_forms_against_high_precision_and_simulation(norm):
    mpmath.mp.dps = 40
    d = 20
    f = mpmath.mpf(norm)
    for aligned in (True, False):
        start = f**2 if aligned else f**2 / d
        s = start / 2 + mpmath.sqrt(start**2 / 4 + 1)
        w = s - start
        if aligned:
            wanted = (s + w) / mpmath.sqrt((s + w) ** 2 + (d - 1) * w**2)
        else:
            wanted = (d * s + w) / mpmath.sqrt(d * ((d - 1) * s**2 + (s + w) ** 2))
        assert abs(linear_alignment_closed(norm, d, aligned=aligned) / float(wanted) - 1) < 1e-12
    singular = torch.zeros(2, d, dtype=torch.float64)
    singular[0, 0], singular[1] = norm, norm / math.sqrt(d)
    task = torch.eye(d, dtype=torch.float64)[[0, 0]]
    found = linear_alignment(singular, task, steps=12_000, lr=0.004)
    for value, aligned in zip(found.tolist(), (True, False)):
        assert value == pytest.approx(linear_alignment_closed(norm, d, aligned=aligned), abs=2e-3)


def test_trials():
    trials = two_alternative_forced_choice(500, noise=0.0, generator=generator())
    stronger = trials.inputs[0, :, 1:].argmax(-1)
    assert torch.equal(trials.targets[-1], stronger + 1) and not trials.targets[:-1].any()
    assert not trials.inputs[-1].any() and bool((trials.inputs[:-1, :, 0] == 1).all())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: low_rank_recurrent_init(4, 5, generator=generator()), "a rank in 1..4"),
        (lambda: low_rank_recurrent_init(4, 1, gain=0, generator=generator()), "a positive gain"),
        (lambda: low_rank_recurrent_init(4, 1, match="l1", generator=generator()), "a norm out of"),
        (lambda: structured_init(3, "dale", generator=generator()), "at least 4 neurons"),
        (lambda: structured_init(8, "lattice", generator=generator()), "a kind out of"),
        (lambda: effective_rank(torch.zeros(2, 2)), "other than zero"),
        (lambda: effective_rank(torch.full((2, 2), math.nan)), "finite values"),
        (lambda: kernel_alignment(torch.ones(2, 2), torch.ones(3, 3)), "two kernels"),
        (lambda: kernel_alignment(torch.zeros(2, 2), torch.ones(2, 2)), "other than zero"),
        (lambda: kernel_alignment(torch.ones(2, 2), torch.ones(2, 2, device="meta")), "both kernels on cpu"),
        (
            lambda: recurrent_states(
                {"W": torch.ones(1, 2, 2), "W_in": torch.ones(1, 2, 3)}, torch.ones(4, 1, 3, device="meta")
            ),
            "weights on meta",
        ),
        (lambda: linear_alignment(torch.eye(2)[0], torch.eye(2)[1:]), "with a direction"),
        (lambda: linear_alignment(torch.ones(2), torch.eye(2), readout=torch.ones(1, 2)), "readouts"),
        (lambda: linear_alignment(torch.tensor([-1.0]), torch.ones(1, 1)), "at least 0"),
        (lambda: linear_alignment_closed(0.0, 2, aligned=True), "a positive norm"),
        (lambda: two_alternative_forced_choice(0, generator=generator()), "trials, two steps"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
