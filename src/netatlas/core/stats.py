"""Error bars, paired differences, crossings and slopes: how a measured figure is stated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats as scipy_stats
from torch import Tensor

from netatlas.core.checks import require, require_finite

Values = Sequence[float] | np.ndarray | Tensor


class Interval(NamedTuple):
    """A mean with the half-width of its confidence interval, over ``n`` values."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


class PairedDifference(NamedTuple):
    """The mean of ``a - b`` over pairs, its standard error, interval, and the two-sided p-value of no difference."""

    mean: float
    stderr: float
    interval: Interval
    p_value: float
    n: int


class Slope(NamedTuple):
    """A fitted line's slope, the slope's standard error, and the intercept."""

    slope: float
    stderr: float
    intercept: float


def as_array(values: Values | float, name: str = "values") -> np.ndarray:
    """A finite float64 array of one axis from a list, an array, a tensor or a number.

    Args:
        values: The values.
        name: Their name, for the message.

    Raises:
        ValueError: For no values, more than one axis, NaN or infinity.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = np.atleast_1d(array.astype(np.float64))
    require(array.ndim == 1, f"{name} along one axis", f"shape {array.shape}")
    require(array.size > 0, f"at least one value in {name}", 0)
    require_finite(name, array)
    return array


def stderr(values: Values) -> float:
    r"""Standard error of the mean, :math:`s / \sqrt n` with the unbiased variance :math:`s^2`; 0 for one value.

    Args:
        values: ``n`` values.

    Raises:
        ValueError: As :func:`as_array`.
    """
    array = as_array(values)
    return float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0


def mean_interval(values: Values, level: float = 0.95) -> Interval:
    r"""Mean with Student's confidence interval, :math:`\bar x \pm t_{n-1,(1+\gamma)/2}\, s / \sqrt n`.

    Args:
        values: ``n`` values; a single one has half-width 0.
        level: The coverage :math:`\gamma`, in (0, 1).

    Raises:
        ValueError: For a level outside (0, 1), or as :func:`as_array`.
    """
    require(0 < level < 1, "a level in (0, 1)", level)
    array = as_array(values)
    if len(array) == 1:
        return Interval(float(array[0]), 0.0, 1)
    factor = scipy_stats.t.ppf((1 + level) / 2, len(array) - 1)
    return Interval(float(array.mean()), float(factor * stderr(array)), len(array))


def paired(a: Values, b: Values, level: float = 0.95) -> PairedDifference:
    r"""Student's paired comparison of ``a`` and ``b``, seed by seed.

    Args:
        a: ``n`` values.
        b: ``n`` values, in the same order.
        level: Coverage of the interval.

    Returns:
        The difference; its p-value is NaN for one pair, and 0 or 1 where the differences do not vary.

    Raises:
        ValueError: If the lengths differ, or as :func:`as_array`.
    """
    left, right = as_array(a, "a"), as_array(b, "b")
    require(len(left) == len(right), f"{len(left)} paired values", len(right))
    difference = left - right
    error = stderr(difference)
    if len(difference) < 2:
        p_value = float("nan")
    elif error == 0:
        p_value = 1.0 if difference.mean() == 0 else 0.0
    else:
        p_value = float(2 * scipy_stats.t.sf(abs(difference.mean()) / error, len(difference) - 1))
    return PairedDifference(float(difference.mean()), error, mean_interval(difference, level), p_value, len(difference))


def crossing(x: Values, first: Values, second: Values) -> float:
    """The ``x`` at which two curves first cross, by linear interpolation; NaN if they do not.

    Args:
        x: Increasing positions.
        first: Values of one curve.
        second: Values of the other.

    Raises:
        ValueError: If lengths differ or ``x`` does not increase.
    """
    position, gap = as_array(x, "x"), as_array(first, "first") - as_array(second, "second")
    require(len(position) == len(gap), f"{len(position)} values a curve", len(gap))
    require(bool((np.diff(position) > 0).all()), "increasing x", position)
    if gap[0] == 0:
        return float(position[0])
    change = np.flatnonzero(gap[:-1] * gap[1:] <= 0)
    if not len(change):
        return float("nan")
    i = change[0]
    return float(position[i] + (position[i + 1] - position[i]) * gap[i] / (gap[i] - gap[i + 1]))


def loglog_slope(x: Values, y: Values) -> Slope:
    r"""Least-squares exponent :math:`\alpha` of :math:`y = c\, x^\alpha`.

    Args:
        x: Positive positions, at least two distinct ones.
        y: Positive values.

    Raises:
        ValueError: For values that are not positive, or fewer than two distinct positions.
    """
    position, value = as_array(x, "x"), as_array(y, "y")
    require(len(position) == len(value), f"{len(position)} values", len(value))
    require(bool((position > 0).all() and (value > 0).all()), "positive x and y", (position.min(), value.min()))
    require(len(np.unique(position)) >= 2, "at least two distinct x", position)
    fit = scipy_stats.linregress(np.log(position), np.log(value))
    return Slope(float(fit.slope), float(fit.stderr), float(fit.intercept))


def spearman(x: Values, y: Values) -> float:
    """Spearman's rank correlation.

    Args:
        x: ``n`` values, at least three.
        y: ``n`` values.

    Raises:
        ValueError: If lengths differ or there are fewer than three pairs.
    """
    left, right = as_array(x, "x"), as_array(y, "y")
    require(len(left) == len(right) and len(left) >= 3, f"{len(left)} pairs, at least three", len(right))
    return float(scipy_stats.spearmanr(left, right).statistic)
