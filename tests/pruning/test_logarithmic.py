"""Logarithmic pruning: the lemma, the counts of samples, and a network that was there already."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from netatlas.pruning import logarithmic_experiments as ge
from netatlas.pruning.logarithmic import (
    GOLDEN,
    bin_probabilities,
    coupon_collector_expectation,
    draws_until_filled,
    golden_bins,
    greedy_decomposition,
    largest_first,
    prune_to_target,
    run_pruned,
    sample_magnitudes,
    subset_sum_error,
)


@settings(deadline=None, max_examples=25)
@given(bins=st.integers(1, 30), seed=st.integers(0, 10_000))
def test_the_golden_lemma_is_never_broken_and_nearly_tight(bins, seed):
    random, worst = ge.lemma_residual(bins, seed=seed, count=500)
    assert random <= 1 + 1e-9
    assert worst <= 1 + 1e-9
    if bins < 20:
        assert worst > 0.99


def test_smaller_bases_break_the_lemma_and_larger_ones_do_not():
    assert ge.lemma_residual(10, seed=0, base=0.6)[1] > 1
    assert ge.lemma_residual(10, seed=0, base=0.5)[1] > 1
    assert ge.lemma_residual(10, seed=0, base=0.7)[1] < 1


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40))
def test_the_bisected_rule_is_the_greedy_rule_on_sorted_parts(seed, count):
    generator = torch.Generator().manual_seed(seed)
    weights = 2 * torch.rand(6, generator=generator, dtype=torch.float64)
    candidates = torch.rand(6, count, generator=generator, dtype=torch.float64) - 0.2
    kept, left = largest_first(weights, candidates)
    ordered, order = candidates.sort(1, descending=True)
    expected, rest = greedy_decomposition(weights, torch.where(ordered > 0, ordered, torch.full_like(ordered, 9.0)))
    torch.testing.assert_close(left, rest)
    assert torch.equal(kept.gather(1, order), expected & (ordered > 0))
    torch.testing.assert_close((candidates * kept).sum(1) + left, weights)


@pytest.mark.parametrize("law", ["hyperbolic", "product", "centred product", "uniform"])
def test_bins_are_hit_as_often_as_their_law_says(law):
    bins, generator = 6, torch.Generator().manual_seed(0)
    shape = (200_000,)
    if law == "uniform":
        values = sample_magnitudes(shape, "uniform", low=0.1, high=1.0, generator=generator)
    else:
        low, high = {
            "hyperbolic": (GOLDEN ** (bins + 1), GOLDEN),
            "product": (GOLDEN ** (bins + 1), 1.0),
            "centred product": (GOLDEN ** (0.75 * bins), GOLDEN ** (-0.25 * bins)),
        }[law]
        values = sample_magnitudes(shape, "hyperbolic", low=low, high=high, generator=generator)
        if law != "hyperbolic":
            values = values * sample_magnitudes(shape, "hyperbolic", low=low, high=high, generator=generator)
    share = torch.bincount(golden_bins(values, bins), minlength=bins + 1)[1:] / shape[0]
    p = bin_probabilities(bins, law)
    assert np.abs(share.numpy() - p).max() < 5 * math.sqrt(p.max() / shape[0])


def test_equal_coupons_are_counted_by_harmonic_numbers():
    for k in (1, 2, 7, 30):
        harmonic = sum(1 / i for i in range(1, k + 1))
        assert coupon_collector_expectation(np.full(k, 1 / k)) == pytest.approx(k * harmonic, rel=1e-8)
    assert coupon_collector_expectation([0.25]) == pytest.approx(4)


def test_unequal_coupons_agree_with_inclusion_and_exclusion():
    p = [0.5, 0.2, 0.05]
    expected = sum((-1) ** (size + 1) / sum(chosen) for size in (1, 2, 3) for chosen in itertools.combinations(p, size))
    assert coupon_collector_expectation(p) == pytest.approx(expected, rel=1e-8)
    assert quad(lambda t: 1 - math.prod(1 - math.exp(-q * t) for q in p), 0, 600)[0] == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("law", ["hyperbolic", "centred product", "uniform"])
def test_simulated_draws_agree_with_the_integral(law):
    drawn = draws_until_filled(6, law, repetitions=2000, generator=torch.Generator().manual_seed(1), block=16)
    expected = coupon_collector_expectation(bin_probabilities(6, law))
    assert float(drawn.mean()) == pytest.approx(expected, abs=5 * float(drawn.std()) / 2000**0.5)
    assert float(drawn.min()) >= 6


def test_all_subsets_are_tried():
    generator = torch.Generator().manual_seed(0)
    weights, parts = (torch.rand(*s, generator=generator, dtype=torch.float64) for s in ((4,), (4, 6)))
    for i in range(4):
        sums = [sum(c) for n in range(7) for c in itertools.combinations(parts[i].tolist(), n)]
        assert float(subset_sum_error(weights, parts)[i]) == pytest.approx(
            min(abs(s - float(weights[i])) for s in sums)
        )
    assert float(subset_sum_error(weights, parts[:, :0])[0]) == float(weights[0])


def target(seed=0, widths=(5, 4, 3)):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, m, generator=generator).double(), torch.randn(n, generator=generator).double())
        for m, n in zip(widths, widths[1:])
    ]


@pytest.mark.parametrize("signed", [False, True])
def test_a_large_random_network_contains_the_target(signed):
    layers = target()
    found = prune_to_target(
        layers, 400, law="hyperbolic", precision=1e-5, generator=torch.Generator().manual_seed(0), signed_input=signed
    )
    x = torch.rand(50, 5, dtype=torch.float64) - (0.5 if signed else 0)
    truth = torch.relu(x @ layers[0][0].T + layers[0][1]) @ layers[1][0].T + layers[1][1]
    torch.testing.assert_close(run_pruned(found, x), truth, atol=1e-3, rtol=0)
    torch.testing.assert_close(run_pruned(found, x), run_pruned(found, x, explicit=True))
    # Neurons with a negative in-weight are of use for negative inputs only.
    assert bool((found[0].into[found[0].mask] < 0).any()) == signed
    assert not bool((found[1].into[found[1].mask] < 0).any())


def test_pruning_only_masks():
    error, changed = ge.untouched(target(), samples=30, seed=0)
    assert error < 1e-12 and changed == 0


def test_no_product_needs_fewer_samples_and_a_search_that_fails_says_so():
    layers, x = target(), torch.rand(20, 5, dtype=torch.float64)
    with_product, without = (
        ge.smallest_network(layers, x, law="hyperbolic", error=0.1, seed=0, draws=2, products=p) for p in (True, False)
    )
    assert 0 < without.samples < with_product.samples
    assert with_product.error < 0.1
    assert ge.smallest_network(layers, x, law="uniform", error=1e-9, seed=0, draws=1, most=20).samples == 0


def test_weights_of_zero_keep_nothing():
    layers = [(torch.zeros(2, 3).double(), torch.zeros(2).double())]
    found = prune_to_target(layers, 10, law="uniform", precision=0.01, generator=torch.Generator().manual_seed(0))
    assert not bool(found[0].mask.any())
    assert float(run_pruned(found, torch.rand(4, 3).double()).abs().max()) == 0


def test_bad_input_is_refused():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="non-negative weights"):
        greedy_decomposition(-torch.ones(1), torch.ones(1, 2))
    with pytest.raises(ValueError, match="parts"):
        greedy_decomposition(torch.ones(2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="finite values in candidates"):
        largest_first(torch.ones(1), torch.full((1, 2), float("nan")))
    with pytest.raises(ValueError, match="a law out of"):
        sample_magnitudes((2,), "normal", low=0.1, high=1, generator=generator)
    with pytest.raises(ValueError, match="a range"):
        sample_magnitudes((2,), "hyperbolic", low=1, high=0.5, generator=generator)
    with pytest.raises(ValueError, match="at least one bin"):
        bin_probabilities(0, "hyperbolic")
    with pytest.raises(ValueError, match="positive probabilities"):
        coupon_collector_expectation([0.5, 0.0])
    with pytest.raises(ValueError, match="at least one repetition"):
        draws_until_filled(3, "hyperbolic", repetitions=0, generator=generator)
    with pytest.raises(ValueError, match="at most 20 parts"):
        subset_sum_error(torch.ones(1), torch.ones(1, 21))
    with pytest.raises(ValueError, match="at least one sample"):
        prune_to_target(target(), 0, law="uniform", precision=0.1, generator=generator)
    with pytest.raises(ValueError, match="a precision between"):
        prune_to_target(target(), 3, law="uniform", precision=1.0, generator=generator)
    with pytest.raises(ValueError, match="at least one layer"):
        run_pruned([], torch.ones(1, 2))
