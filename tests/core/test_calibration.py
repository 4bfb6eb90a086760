import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from netatlas.core import calibration as cal


def outputs(n=400, classes=5, batch=(), seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*batch, n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits.reshape(-1, n, classes)[0] / 1.7).softmax(-1), 1, generator=generator)[:, 0]
    return logits, labels


def pairs(n=500, seed=0, batch=()):
    logits, labels = outputs(n, seed=seed, batch=batch)
    return cal.top_label(logits.softmax(-1), labels)


@pytest.mark.parametrize("norm, ours", [("l1", cal.expected_calibration_error), ("max", cal.maximum_calibration_error)])
def test_binned_errors_against_torchmetrics(norm, ours):
    logits, labels = outputs(777)
    p = logits.softmax(-1)
    expected = multiclass_calibration_error(p, labels, num_classes=5, n_bins=13, norm=norm)
    torch.testing.assert_close(ours(*cal.top_label(p, labels), 13), expected.double(), atol=1e-6, rtol=1e-6)


def brute_bins(c, a, bins):
    total = 0.0
    for b in range(bins):
        inside = [(x, y) for x, y in zip(c, a) if (b / bins < x <= (b + 1) / bins) or (b == 0 and x == 0)]
        total += abs(sum(y - x for x, y in inside))
    return total / len(c)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40), st.integers(1, 9))
def test_bins_against_a_loop_edges_included(rows, bins):
    # Confidences on twentieths lie on the edges of many of these bins.
    c = torch.tensor([k / 20 for k, _ in rows], dtype=torch.float64)
    a = torch.tensor([float(hit) for _, hit in rows], dtype=torch.float64)
    assert float(cal.expected_calibration_error(c, a, bins)) == pytest.approx(brute_bins(c.tolist(), a.tolist(), bins))


def test_one_bin_nested_bins_and_the_order_of_measures():
    c, a = pairs()
    one = cal.expected_calibration_error(c, a, 1)
    torch.testing.assert_close(one, (a.mean() - c.mean()).abs())
    for few, many in [(5, 10), (10, 20), (20, 100), (100, 500), (5, 25), (1, 15)]:
        assert cal.expected_calibration_error(c, a, few) <= cal.expected_calibration_error(c, a, many) + 1e-12
    assert cal.ks_calibration_error(c, a) >= one - 1e-12


def test_bins_of_equal_mass_hold_equal_counts():
    c, a = pairs(503)
    count = cal.calibration_bins(c, a, 10, "mass").counts
    assert count.sum() == 503 and count.max() - count.min() <= 1
    by_hand = sum(abs(float((a[i] - c[i]).sum())) for i in np.array_split(np.argsort(c.numpy(), kind="stable"), 1))
    assert float(cal.expected_calibration_error(c, a, 1, "mass")) == pytest.approx(by_hand / 503)


def test_a_batch_is_its_rows():
    c, a = pairs(120, batch=(2, 3))
    for measure in (
        cal.expected_calibration_error,
        cal.maximum_calibration_error,
        cal.ks_calibration_error,
        cal.maximum_mean_calibration_error,
        cal.kernel_calibration_error,
    ):
        whole = measure(c, a)
        assert whole.shape == (2, 3)
        torch.testing.assert_close(whole[1, 2], measure(c[1, 2], a[1, 2]))


def test_kernel_mean_embedding_against_the_double_sum():
    c, a = pairs(200)
    r = a - c
    for scale in (0.4, 0.02):
        gram = torch.exp(-(c[:, None] - c).abs() / scale)
        torch.testing.assert_close(
            cal.maximum_mean_calibration_error(c, a, scale), (r @ gram @ r).sqrt() / 200, rtol=1e-9, atol=0
        )


def test_ks_against_a_loop_and_ties():
    c = torch.tensor([0.5, 0.5, 0.9], dtype=torch.float64)
    a = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    assert float(cal.ks_calibration_error(c, a)) == pytest.approx(0.1 / 3)


def test_kernel_error_against_direct_integration():
    c, a = pairs(300)
    h = 0.1
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)

    def kernel(u):
        return 35 / 32 / h * (1 - (u / h) ** 2).clamp_min(0) ** 3

    total = sum(kernel(t[:, None] - image) for image in (c, -c, 2 - c))
    direct = torch.trapezoid(((total * (a - c)).mean(1)).abs(), t)
    torch.testing.assert_close(cal.kernel_calibration_error(c, a, h, 2048), direct, rtol=2e-3, atol=0)


def test_classwise_is_the_mean_of_one_against_the_rest():
    logits, labels = outputs(200)
    p = logits.softmax(-1)
    each = [cal.expected_calibration_error(p[:, k], (labels == k).double(), 15) for k in range(5)]
    torch.testing.assert_close(cal.classwise_calibration_error(p, labels), torch.stack(each).mean())


def test_the_bias_of_a_calibrated_net_by_simulation():
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    c = torch.from_numpy(rng.beta(6, 2, (200, 1000)))
    a = (torch.rand(c.shape, generator=generator, dtype=c.dtype) < c).double()
    for bins, slack in [(5, 0.1), (15, 0.06), (100, 0.06)]:
        simulated = cal.expected_calibration_error(c, a, bins).mean()
        assert float(cal.calibrated_bias(c, bins).mean()) == pytest.approx(float(simulated), rel=slack)
    debiased = cal.debiased_calibration_error(c, a, 15, generator=generator)
    assert abs(float(debiased.mean())) < 4 * float(debiased.std()) / 200**0.5


def test_scores_against_definitions():
    logits, labels = outputs(50)
    p = logits.softmax(-1)
    torch.testing.assert_close(cal.brier_score(p, labels), ((p - F.one_hot(labels, 5)) ** 2).sum(1).mean())
    torch.testing.assert_close(cal.negative_log_likelihood(logits, labels), F.cross_entropy(logits, labels))
    mask = torch.arange(50) < 20
    torch.testing.assert_close(
        cal.negative_log_likelihood(logits, labels, mask), F.cross_entropy(logits[:20], labels[:20])
    )


def test_temperature_against_scipy_and_invariances():
    logits, labels = outputs(600)
    found = cal.fit_temperature(logits, labels)
    peer = minimize_scalar(lambda s: float(F.cross_entropy(logits / math.exp(s), labels)), bounds=(-3, 3)).x
    assert float(found) == pytest.approx(math.exp(peer), rel=1e-3)
    torch.testing.assert_close(cal.fit_temperature(3 * logits, labels), 3 * found)
    assert F.cross_entropy(logits / found, labels) <= F.cross_entropy(logits, labels)
    mask = torch.arange(600) < 300
    torch.testing.assert_close(
        cal.fit_temperature(logits, labels, mask), cal.fit_temperature(logits[:300], labels[:300])
    )


def test_a_perfect_classifier_ends_at_the_limit():
    logits = 5 * F.one_hot(torch.arange(4), 4).double()
    assert float(cal.fit_temperature(logits, torch.arange(4))) == pytest.approx(math.exp(-3))
    assert float(cal.fit_temperature(logits, torch.zeros(4, dtype=torch.long) + 3)) <= math.exp(3)


def test_vector_scaling_against_scipy():
    logits, labels = outputs(300, 3)

    def objective(theta, penalty):
        z = logits.numpy() * theta[:3] + theta[3:]
        own = z[np.arange(300), labels.numpy()]
        loss = np.log(np.exp(z).sum(1)) - own
        return loss.mean() + penalty / 2 * (((theta[:3] - 1) ** 2).sum() + (theta[3:] ** 2).sum())

    for penalty in (0.0, 0.05):
        fitted = cal.fit_vector_scaling(logits, labels, penalty=penalty)
        peer = minimize(objective, np.r_[np.ones(3), np.zeros(3)], args=(penalty,), tol=1e-12)
        assert objective(torch.cat(fitted).numpy(), penalty) <= peer.fun + 1e-9
    strong = cal.fit_vector_scaling(logits, labels, penalty=1e6)
    torch.testing.assert_close(cal.apply_vector_scaling(logits, strong), logits, atol=1e-4, rtol=1e-4)


def test_mixed_temperature_against_scipy():
    logits, labels = outputs(400)
    fitted = cal.fit_mixed_temperature(logits, labels, steps=3000)
    own = torch.stack([F.softmax(logits / fitted.temperature, -1), logits.softmax(-1), torch.full_like(logits, 0.2)])[
        :, torch.arange(400), labels
    ].numpy()
    peer = minimize(
        lambda w: -np.log(w @ own).mean(),
        [1 / 3] * 3,
        method="SLSQP",
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    assert -np.log(fitted.weights.numpy() @ own).mean() <= peer.fun + 1e-6
    p = cal.apply_mixed_temperature(logits, fitted)
    torch.testing.assert_close(p.sum(-1), torch.ones(400, dtype=torch.float64))
    assert torch.equal(p.argmax(-1), logits.argmax(-1))


def test_batched_fits_are_their_rows():
    logits, labels = outputs(100, batch=(3,))
    weights = (torch.rand(3, 100, generator=torch.Generator().manual_seed(1)) < 0.6).double()
    for row in range(3):
        kept = weights[row] > 0
        one, y = logits[row][kept], labels[kept]
        torch.testing.assert_close(cal.fit_temperature(logits, labels, weights)[row], cal.fit_temperature(one, y))
        torch.testing.assert_close(
            cal.fit_vector_scaling(logits, labels, weights, penalty=0.1).scale[row],
            cal.fit_vector_scaling(one, y, penalty=0.1).scale,
            atol=1e-6,
            rtol=1e-6,
        )
        torch.testing.assert_close(
            cal.fit_mixed_temperature(logits, labels, weights).weights[row], cal.fit_mixed_temperature(one, y).weights
        )


def test_one_class_is_always_right():
    p = torch.ones(4, 1)
    c, a = cal.top_label(p, torch.zeros(4, dtype=torch.long))
    assert float(cal.expected_calibration_error(c, a)) == 0 and float(cal.brier_score(p, torch.zeros(4).long())) == 0


def test_runs_on_the_meta_device():
    p, y = torch.empty(7, 3, device="meta"), torch.zeros(7, dtype=torch.long, device="meta")
    c, a = cal.top_label(p, y)
    assert cal.expected_calibration_error(c, a).shape == () and cal.brier_score(p, y).device.type == "meta"
    assert cal.fit_temperature(p, y, steps=2).shape == ()


VECTOR = cal.VectorScaling(torch.ones(3), torch.zeros(3))
MIXTURE = cal.MixedTemperature(torch.ones(()), torch.tensor([1.0, 0.0, 0.0]))
BAD = {
    "no examples": lambda: cal.expected_calibration_error(torch.zeros(0), torch.zeros(0)),
    "no bin": lambda: cal.expected_calibration_error(torch.ones(3), torch.ones(3), 0),
    "a scheme": lambda: cal.calibration_bins(torch.ones(3), torch.ones(3), 5, "other"),
    "NaN": lambda: cal.expected_calibration_error(torch.tensor([math.nan]), torch.ones(1)),
    "above one": lambda: cal.ks_calibration_error(torch.tensor([1.5]), torch.ones(1)),
    "half right": lambda: cal.ks_calibration_error(torch.tensor([0.5]), torch.tensor([0.5])),
    "lengths": lambda: cal.maximum_calibration_error(torch.ones(3), torch.ones(2)),
    "integers": lambda: cal.maximum_mean_calibration_error(torch.ones(3).long(), torch.ones(3)),
    "a small scale": lambda: cal.maximum_mean_calibration_error(torch.ones(3), torch.ones(3), 1e-3),
    "a bandwidth": lambda: cal.kernel_calibration_error(torch.ones(3), torch.ones(3), 0.0),
    "few cells": lambda: cal.kernel_calibration_error(torch.ones(3), torch.ones(3), cells=3),
    "no resample": lambda: cal.debiased_calibration_error(torch.ones(3), torch.ones(3), resamples=0),
    "no bin for the bias": lambda: cal.calibrated_bias(torch.ones(3), 0),
    "label out of range": lambda: cal.top_label(torch.ones(2, 3) / 3, torch.tensor([0, 3])),
    "floating labels": lambda: cal.brier_score(torch.ones(2, 3) / 3, torch.zeros(2)),
    "label count": lambda: cal.classwise_calibration_error(torch.ones(2, 3) / 3, torch.zeros(3).long()),
    "flat logits": lambda: cal.fit_temperature(torch.ones(3), torch.zeros(3).long()),
    "negative weights": lambda: cal.fit_temperature(torch.ones(2, 3), torch.zeros(2).long(), -torch.ones(2)),
    "no weight": lambda: cal.fit_mixed_temperature(torch.ones(2, 3), torch.zeros(2).long(), torch.zeros(2)),
    "negative penalty": lambda: cal.fit_vector_scaling(torch.ones(2, 3), torch.zeros(2).long(), penalty=-1.0),
    "devices": lambda: cal.expected_calibration_error(torch.ones(3), torch.ones(3, device="meta")),
    "integer logits": lambda: cal.negative_log_likelihood(torch.ones(2, 3).long(), torch.zeros(2).long()),
    "equal mass of NaN": lambda: cal.expected_calibration_error(torch.tensor([math.nan]), torch.ones(1), 5, "mass"),
    "NaN of the bias": lambda: cal.calibrated_bias(torch.full((3,), math.nan)),
    "NaN to resample": lambda: cal.debiased_calibration_error(torch.full((3,), math.nan), torch.ones(3)),
    "NaN under a kernel": lambda: cal.maximum_mean_calibration_error(torch.ones(3), torch.full((3,), math.nan)),
    "nobody under a kernel": lambda: cal.kernel_calibration_error(torch.ones(0), torch.ones(0)),
    "no class": lambda: cal.top_label(torch.ones(2, 0), torch.zeros(2).long()),
    "no class to calibrate": lambda: cal.classwise_calibration_error(torch.ones(2, 0), torch.zeros(2).long()),
    "NaN probabilities": lambda: cal.brier_score(torch.full((2, 3), math.nan), torch.zeros(2).long()),
    "negative labels": lambda: cal.negative_log_likelihood(torch.ones(2, 3), torch.full((2,), -1)),
    "labels of other networks": lambda: cal.top_label(torch.ones(2, 4, 3) / 3, torch.zeros(3, 4).long()),
    "weights of other networks": lambda: cal.fit_temperature(
        torch.ones(2, 4, 3), torch.zeros(4).long(), torch.ones(3, 4)
    ),
    "nobody to fit": lambda: cal.fit_temperature(torch.ones(0, 3), torch.zeros(0).long()),
    "nobody to fit a vector": lambda: cal.fit_vector_scaling(torch.ones(0, 3), torch.zeros(0).long()),
    "nobody to fit a mixture": lambda: cal.fit_mixed_temperature(torch.ones(0, 3), torch.zeros(0).long()),
    "no bisection": lambda: cal.fit_temperature(torch.ones(2, 3), torch.zeros(2).long(), steps=0),
    "NaN penalty": lambda: cal.fit_vector_scaling(torch.ones(2, 3), torch.zeros(2).long(), penalty=math.nan),
    "another vector": lambda: cal.apply_vector_scaling(torch.ones(2, 4), VECTOR),
    "NaN to scale": lambda: cal.apply_vector_scaling(torch.full((2, 3), math.nan), VECTOR),
    "vectors of other networks": lambda: cal.apply_vector_scaling(
        torch.ones(5, 2, 3), cal.VectorScaling(VECTOR.scale.expand(4, 3), VECTOR.bias.expand(4, 3))
    ),
    "NaN to mix": lambda: cal.apply_mixed_temperature(torch.full((2, 3), math.nan), MIXTURE),
    "flat logits to mix": lambda: cal.apply_mixed_temperature(torch.ones(3), MIXTURE),
    "mixtures of other networks": lambda: cal.apply_mixed_temperature(
        torch.ones(5, 2, 3), cal.MixedTemperature(torch.ones(4), torch.ones(4, 3) / 3)
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()


@pytest.mark.parametrize("n", [1, 5])
def test_one_class_is_calibrated_and_one_example_is_enough(n):
    p, y = torch.ones(n, 1), torch.zeros(n, dtype=torch.long)
    c, a = cal.top_label(p, y)
    for measure in (
        cal.expected_calibration_error, cal.maximum_calibration_error, cal.debiased_calibration_error,
        cal.ks_calibration_error, cal.maximum_mean_calibration_error, cal.kernel_calibration_error,
    ):  # fmt: skip
        assert float(measure(c, a)) == pytest.approx(0, abs=1e-6)
    assert float(cal.calibrated_bias(c)) == float(cal.classwise_calibration_error(p, y)) == 0
    assert float(cal.brier_score(p, y)) == float(cal.negative_log_likelihood(p, y)) == 0
    assert torch.isfinite(cal.fit_temperature(p, y))
    assert torch.equal(cal.apply_vector_scaling(p, cal.fit_vector_scaling(p, y)).softmax(-1), p)
    torch.testing.assert_close(cal.apply_mixed_temperature(p, cal.fit_mixed_temperature(p, y)), p)
