"""Closed forms in double precision against mpmath."""

import mpmath
import pytest
import torch

from netatlas.core.calibration import calibrated_bias
from netatlas.core.conformal import exchangeable_coverage
from netatlas.graph_trust import stability_tail_bound, switched_sum_factor

mpmath.mp.dps = 40


def close(found, exact):
    assert abs(mpmath.mpf(float(found)) - exact) <= abs(exact) * mpmath.mpf("1e-12")


@pytest.mark.parametrize(("epsilon", "draws", "lipschitz", "drift"), [(0.1, 100, 1.5, 0.02), (0.05, 200, 1.7, 0.0)])
def test_tail_bound(epsilon, draws, lipschitz, drift):
    e, d, g, s = (mpmath.mpf(v) for v in (epsilon, drift, lipschitz, 0.1))
    close(
        stability_tail_bound(epsilon, draws, lipschitz, 0.1, drift=drift),
        mpmath.exp(-draws * (e - d) ** 2 / (2 * g**2 * s**2)),
    )


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.45])
def test_switched_sums(fraction):
    p, n = mpmath.mpf(fraction), 160
    square = (1 - 2 * p) ** 2
    close(switched_sum_factor(fraction, n, exact_count=False), square)
    count = round(fraction * n)
    exact = ((n - 2 * count) ** 2 - n) / mpmath.mpf(n * (n - 1))
    close(switched_sum_factor(fraction, n, exact_count=True), exact)


@pytest.mark.parametrize("m", [9, 10, 18, 19])
def test_coverage_of_small_neighbourhoods(m):
    close(exchangeable_coverage(m), mpmath.ceil(mpmath.mpf(9) / 10 * (m + 1) - mpmath.mpf("1e-20")) / (m + 1))


def test_bias_of_a_calibrated_network():
    c = torch.tensor([0.61, 0.66, 0.9, 0.95], dtype=torch.float64)
    one = (
        mpmath.sqrt(2 / mpmath.pi) * mpmath.sqrt(sum(mpmath.mpf(float(v)) * (1 - mpmath.mpf(float(v))) for v in c)) / 4
    )
    close(calibrated_bias(c, 1), one)
