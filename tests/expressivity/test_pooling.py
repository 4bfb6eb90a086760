"""Generalised norm pooling against closed forms, SciPy and its special cases."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from netatlas.expressivity import (
    GeneralizedNormAggregation,
    SetNetwork,
    fixed_pooling,
    generalized_norm,
    random_sets,
    segment_logsumexp,
    set_targets,
)
from netatlas.expressivity.pooling import POOLINGS, SET_TARGETS

SETS = random_sets(20, (1, 7), (0.5, 5.0), 0).double()
X, MASK = SETS[..., :1], SETS[..., 1]


@pytest.mark.parametrize("kind, p, q", [("sum", 1, 0), ("mean", 1, 1), ("L2", 2, 0), ("harmonic", -1, -1)])
def test_special_cases_are_exact(kind, p, q):
    found = generalized_norm(X, MASK, float(p), float(q))[:, 0]
    torch.testing.assert_close(found.float(), set_targets(SETS, [kind])[0], rtol=1e-5, atol=0)


def test_large_exponents_are_the_extremes_up_to_a_known_bias():
    size = MASK.sum(1)
    for kind, p in (("max", 200.0), ("min", -200.0)):
        found, exact = generalized_norm(X, MASK, p, 0.0)[:, 0], set_targets(SETS, [kind])[0].double()
        ratio = (found / exact).log() * abs(p) * (1 if kind == "max" else -1)
        assert (ratio >= -1e-4).all() and (ratio <= size.log() + 1e-4).all()


def test_precision_against_mpmath():
    mpmath.mp.dps = 40
    values = [0.3, 1.7, 4.2, 0.9]
    for p, q in ((3.7, 0.4), (-2.3, 1.1), (150.0, 0.0), (-80.0, -0.5)):
        found = generalized_norm(torch.tensor(values).double()[:, None], torch.ones(4).double(), p, q)
        terms = [mpmath.mpf(float(torch.tensor(v).double())) ** p for v in torch.tensor(values).tolist()]
        exact = mpmath.mpf(4) ** (-mpmath.mpf(q)) * sum(terms) ** (1 / mpmath.mpf(p))
        assert found.item() == pytest.approx(float(exact), rel=1e-12)


@given(st.permutations(range(7)), st.floats(0.1, 30), st.sampled_from([1, -1]), st.floats(-1, 1))
@settings(deadline=None, max_examples=25)
def test_order_padding_and_scale(order, p, sign, q):
    p = sign * p
    first = generalized_norm(X, MASK, p, q)
    torch.testing.assert_close(first, generalized_norm(X[:, order], MASK[:, order], p, q))
    dirty = torch.where(MASK[..., None] > 0, X, -7.0)
    torch.testing.assert_close(first, generalized_norm(dirty, MASK, p, q))
    torch.testing.assert_close(3 * first, generalized_norm(3 * X, MASK, p, q))


def test_aggregation_is_the_padded_pool_and_keeps_halves_apart():
    torch.manual_seed(0)
    aggregation = GeneralizedNormAggregation(6, p=2.5, q=0.3).double()
    values = torch.randn(20, 7, 6, dtype=torch.float64)
    index = torch.arange(20).repeat_interleave(7)[MASK.flatten() > 0]
    rows = values.flatten(0, 1)[MASK.flatten() > 0]
    torch.testing.assert_close(aggregation(rows, index, dim_size=20), aggregation.pool(values, MASK))
    p, q = aggregation.exponents()
    assert p.tolist() == pytest.approx([2.5] * 3 + [-2.5] * 3) and q.tolist() == pytest.approx([0.3] * 6)
    capped = GeneralizedNormAggregation(2, p=5.0, largest=5.0)
    with torch.no_grad():
        capped.raw_p.fill_(100.0)
    assert capped.exponents()[0].tolist() == [5.0, -5.0]
    empty = aggregation(torch.ones(2, 6).double(), torch.tensor([0, 2]), dim_size=3)
    assert not empty[1].any() and torch.isfinite(empty).all()


def test_gradients_are_right_and_frozen_exponents_stay():
    torch.manual_seed(0)
    aggregation = GeneralizedNormAggregation(4, p=1.5).double()
    x = torch.rand(5, 4, dtype=torch.float64).add(0.5).requires_grad_()
    index = torch.tensor([0, 0, 1, 1, 1])
    assert torch.autograd.gradcheck(lambda v: aggregation(v, index, dim_size=2), (x,))
    frozen = SetNetwork("gnp p=1")
    frozen(SETS.float()).sum().backward()
    assert frozen.gnp.raw_p.grad is None or not frozen.gnp.raw_p.grad.any()
    dead = SetNetwork("gnp")
    torch.nn.init.zeros_(dead.skip.weight)
    dead(SETS.float()).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in dead.parameters() if p.grad is not None)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_set_networks_do_not_see_order_or_padding(pooling):
    torch.manual_seed(0)
    net, sets = SetNetwork(pooling, width=4), SETS.float()
    out = net(sets)
    torch.testing.assert_close(out, net(sets.flip(1)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out, net(torch.nn.functional.pad(sets, (0, 0, 0, 3))), rtol=1e-4, atol=1e-5)
    with torch.device("meta"):
        assert SetNetwork(pooling, width=4)(torch.empty(5, 6, 2)).shape == (5,)


def test_segment_logsumexp_is_scipys():
    values, index = torch.randn(9, 3, dtype=torch.float64) * 100, torch.tensor([0, 0, 1, 3, 3, 3, 1, 0, 3])
    found = segment_logsumexp(values, index, 4)
    for k in (0, 1, 3):
        np.testing.assert_allclose(found[k], logsumexp(values[index == k].numpy(), axis=0), rtol=1e-12)
    assert torch.isinf(found[2]).all()


@given(st.integers(0, 10_000), st.sampled_from([1.0, 60.0, 3000.0]), st.booleans())
@settings(deadline=None, max_examples=20)
def test_segment_logsumexp_near_and_far_in_any_order(seed, spread, single):
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(30, 2, generator=generator, dtype=torch.float64) * spread).requires_grad_()
    index = torch.randint(0, 6, (30,), generator=generator)
    inputs = values.detach().float() if single else values
    found = segment_logsumexp(inputs, index, 6)
    one = torch.stack([torch.logsumexp(inputs[index == k], 0) for k in range(6)])
    torch.testing.assert_close(found, one)
    if not single:
        filled = torch.isfinite(one)
        ours, theirs = (torch.autograd.grad(v[filled].sum(), values)[0] for v in (found, one))
        torch.testing.assert_close(ours, theirs)


def test_segment_logsumexp_has_second_derivatives_and_runs_without_values():
    values = torch.randn(5, 2, dtype=torch.float64).requires_grad_()
    index = torch.tensor([2, 0, 0, 2, 2])

    def pooled(v):
        return segment_logsumexp(v, index, 3)[[0, 2]]

    assert torch.autograd.gradgradcheck(pooled, (values,))
    fixed, direction = values.detach(), torch.randn(5, 2, dtype=torch.float64)
    along = torch.func.jvp(pooled, (fixed,), (direction,))[1]
    torch.testing.assert_close(along.sum(), (torch.func.grad(lambda v: pooled(v).sum())(fixed) * direction).sum())
    with torch.device("meta"):
        assert segment_logsumexp(torch.empty(5, 2), torch.empty(5, dtype=torch.long), 3).shape == (3, 2)
    assert torch.isinf(segment_logsumexp(torch.empty(0, 2), torch.empty(0, dtype=torch.long), 3)).all()


def test_settings_are_buffers_so_that_members_of_all_of_them_stack():
    nets = [SetNetwork(kind, width=0).requires_grad_() for kind in ("gnp", "gnp plus", "gnp p=1")]
    params, buffers = torch.func.stack_module_state(nets)
    outputs = torch.func.vmap(lambda p, b: torch.func.functional_call(nets[0], (p, b), (SETS.float(),)))(
        params, buffers
    )
    for net, out in zip(nets, outputs):
        torch.testing.assert_close(out, net(SETS.float()))
    grads = torch.autograd.grad(outputs.sum(), params["gnp.raw_p"])[0]
    assert grads[0].all() and grads[1, 0] and not grads[1, 1] and not grads[2].any()


def test_fixed_poolings_and_targets():
    h = torch.randn(20, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(fixed_pooling(h, MASK, "mean")[0], h[0, MASK[0] > 0].mean(0))
    parts = torch.cat([fixed_pooling(c, MASK, k) for c, k in zip(h.chunk(4, -1), ("sum", "mean", "max", "min"))], -1)
    torch.testing.assert_close(fixed_pooling(h, MASK, "concat"), parts)
    one = set_targets(torch.tensor([[[2.0, 1.0], [4.0, 1.0], [9.0, 0.0]]]))[:, 0].tolist()
    assert dict(zip(SET_TARGETS, one)) == pytest.approx(
        {"sum": 6, "mean": 3, "max": 4, "min": 2, "harmonic": 8 / 3, "L2": 20**0.5}
    )
    assert not fixed_pooling(h, torch.zeros_like(MASK), "max").any()
    assert not generalized_norm(X, torch.zeros_like(MASK), 2.0, 0.5).any()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="other than 0"):
        generalized_norm(X, MASK, 0.0, 0.0)
    with pytest.raises(ValueError, match="positive elements"):
        generalized_norm(X - 10, MASK, 1.0, 0.0)
    with pytest.raises(ValueError, match="mask of shape"):
        generalized_norm(X, MASK[:, :2], 1.0, 0.0)
    with pytest.raises(ValueError, match="even number"):
        GeneralizedNormAggregation(3)
    with pytest.raises(ValueError, match="signs out of"):
        GeneralizedNormAggregation(2, signs="none")
    with pytest.raises(ValueError, match="p in"):
        GeneralizedNormAggregation(2, p=0.0)
    with pytest.raises(ValueError, match="pooling out of"):
        SetNetwork("median")
    with pytest.raises(ValueError, match="pooling out of"):
        fixed_pooling(X, MASK, "median")
    with pytest.raises(ValueError, match="statistics out of"):
        set_targets(SETS, ["median"])
    with pytest.raises(ValueError, match="at least one element"):
        random_sets(3, (0, 2), (0.0, 1.0), 0)
    with pytest.raises(ValueError, match="range of values"):
        random_sets(3, (1, 2), (1.0, 1.0), 0)
    with pytest.raises(ValueError, match="segment indices"):
        segment_logsumexp(torch.ones(2, 1), torch.tensor([0, 5]), 2)
    with pytest.raises(ValueError, match="finite"):
        GeneralizedNormAggregation(2)(torch.full((1, 2), float("nan")), torch.tensor([0]))
