"""The trained law against kernels, brute force, high precision and real networks."""

import math

import mpmath
import pytest
import torch

from netatlas.random_features import permutations as pm


def test_closed_form_equals_the_kernels():
    inputs = pm.binary_inputs(6)
    for regime in ("ntk", "last"):
        law = pm.trained_law(inputs, regime=regime)
        bits = pm.bit_law(torch.tensor(6.0), inputs.sum(1), regime=regime)
        means = torch.where(inputs > 0, bits.one[:, None], bits.zero[:, None])
        torch.testing.assert_close(law.weights, means, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(
            law.covariance.diagonal().clamp_min(0), bits.deviation.square(), rtol=1e-8, atol=1e-14
        )


def test_against_fifty_digits():
    mpmath.mp.dps = 50
    for k, m in ((7, 2), (30, 11), (200, 199)):
        u = 1 / (2 * mpmath.pi)
        theta = mpmath.acos(1 / mpmath.sqrt(m))
        plain = u * (mpmath.sin(theta) + (mpmath.pi - theta) * mpmath.cos(theta))
        g = plain + u * (mpmath.pi - theta) * mpmath.cos(theta) - u
        b = u * (1 - u - m * g) / ((1 - u) * (1 - u + k * u))
        a = b + g / (1 - u)
        r = [a] * m + [b] * (k - m)
        c = [plain] * m + [u] * (k - m)
        quad = (mpmath.mpf(1) / 2 - u) * sum(x * x for x in r) + u * sum(r) ** 2
        s = mpmath.sqrt((mpmath.mpf(1) / 2 - 2 * sum(x * y for x, y in zip(r, c)) + quad) / k)
        law = pm.bit_law(torch.tensor(float(k)), torch.tensor(float(m)))
        for ours, exact in zip(law, (a, b, s)):
            assert abs(float(ours) / float(exact) - 1) < 1e-12


def test_signs_reveal_the_bits():
    for k in (3, 10, 100):
        m = torch.arange(1, k + 1)
        law = pm.bit_law(torch.tensor(float(k)), m)
        assert bool((law.one > 0).all()) and bool((law.zero[1:] < 0).all())
        assert float(law.one[0]) == pytest.approx(1) and float(law.zero[0]) == 0 and float(law.deviation[0]) == 0


def test_models_needed_is_the_smallest_sufficient_number():
    n = pm.models_needed(10, 2)
    law = pm.bit_law(torch.tensor(10.0), torch.tensor(2.0))

    def right(count):
        z = torch.special.ndtr(torch.stack([law.one, -law.zero]) * math.sqrt(count) / law.deviation)
        return float(z[0] ** 2 * z[1] ** 8)

    assert right(n) >= 0.9 > right(n - 1)
    assert pm.models_needed(10, 1) == 1
    assert pm.models_needed(10, 2, confidence=0.99) > n


def test_all_inputs_need_the_quantile_of_draws():
    inputs = pm.binary_inputs(4, fewest=2)
    law = pm.trained_law(inputs)
    needed = pm.models_for_all_inputs(law, inputs, 400, generator=torch.Generator().manual_seed(0))
    bits = pm.ensemble_bits(law, round(needed), 1500, generator=torch.Generator().manual_seed(1))
    exact = (bits == (inputs > 0)).flatten(1).all(1).double().mean()
    assert float(exact) == pytest.approx(0.9, abs=0.05)


def test_erf_has_no_overlap_between_orthogonal_inputs():
    law = pm.trained_law(pm.binary_inputs(5, fewest=2), activation="erf")
    inputs = pm.binary_inputs(5, fewest=2)
    assert float(law.weights[inputs == 0].abs().max()) < 1e-12
    assert float(law.covariance.diagonal().min()) > 1e-4


def test_real_networks_obey_the_law_and_homogeneity():
    g = torch.Generator().manual_seed(0)
    first, last, loss = pm.train_ensemble(4, 600, 120, generator=g)
    assert float(loss.max()) < 1e-8
    x = pm.binary_inputs(4, fewest=2).float()
    unit = x / x.norm(dim=1, keepdim=True)
    out = pm.ensemble_outputs(first, last, unit)
    torch.testing.assert_close(pm.ensemble_outputs(first, last, 3 * unit), 3 * out, rtol=1e-4, atol=1e-4)
    law = pm.bit_law(torch.tensor(4.0), x.sum(1))
    means = torch.where(x > 0, law.one[:, None], law.zero[:, None])
    error = (out.mean(0).double() - means).abs() / (law.deviation[:, None] / 120**0.5)
    assert float(error.max()) < 4.5
    trained = pm.ensemble_outputs(first, last, torch.eye(4))
    torch.testing.assert_close(trained, torch.eye(4).expand_as(trained), atol=1e-3, rtol=0)


def test_width_one_and_one_bit():
    g = torch.Generator().manual_seed(0)
    first, last, loss = pm.train_ensemble(1, 1, 3, generator=g, steps=2)
    assert first.shape == last.shape == (3, 1, 1) and bool(torch.isfinite(loss).all())
    assert pm.trained_law(torch.ones(1, 1)).weights.item() == pytest.approx(1)


def test_refusals():
    g = torch.Generator()
    law = pm.trained_law(pm.binary_inputs(3))
    for call, words in (
        (lambda: pm.bit_law(torch.tensor(4.0), torch.tensor(5.0)), "ones"),
        (lambda: pm.bit_law(torch.tensor(4.0), torch.tensor(2.0), regime="rich"), "regime"),
        (lambda: pm.models_needed(4, 2, confidence=1.0), "confidence"),
        (lambda: pm.binary_inputs(30), "bits"),
        (lambda: pm.two_layer(5, 5, "tanh"), "activation"),
        (lambda: pm.trained_law(torch.zeros(1, 3)), "other than zero"),
        (lambda: pm.ensemble_bits(law, 0, 1, generator=g), "model"),
        (lambda: pm.models_for_all_inputs(law, pm.binary_inputs(3), 5, generator=g), "other than zero"),
        (lambda: pm.train_ensemble(0, 1, 1, generator=g), "sizes"),
        (lambda: pm.ensemble_outputs(torch.zeros(1, 2, 3), torch.zeros(1, 3, 2), torch.zeros(1, 4)), "length"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
