"""Conditions that decide a claim: an inequality that keeps its figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

from netatlas.core.checks import require
from netatlas.lab.timings import Volatile


def format_number(value: float) -> str:
    """A number for a reader: four significant digits, no exponent between 1e-3 and 1e5."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def format_interval(mean: float, half_width: float, n: int) -> str:
    """A mean with its interval, to the two leading digits of the half-width: ``0.912 ± 0.0029``."""
    if n == 1:
        return format_number(mean)
    if half_width <= 0:
        return f"{format_number(mean)} ± 0"
    digits = min(max(1 - math.floor(math.log10(half_width)), 0), 8)
    return f"{mean:.{digits}f} ± {half_width:.{digits}f}"


def format_each(values: Sequence[float]) -> str:
    """Values that are no repetitions of each other: all of them up to six, beyond that how far they reach."""
    if len(values) > 6:
        return f"{format_number(min(values))} to {format_number(max(values))}"
    return ", ".join(format_number(value) for value in values)


@dataclass(frozen=True)
class Each:
    """Measured values of different things, such as one a graph."""

    values: Any


def each(values: Any) -> Each:
    """Mark values as those of different things, not repetitions of one: shown one by one, without an interval.

    Args:
        values: Numbers, such as one a data set, a depth or an arm.
    """
    return Each(values)


def rounding(error: SupportsFloat, floor: float) -> float:
    """An error for a check of exactness: errors up to ``floor`` are all shown as ``floor``.

    The last digits of an error that is rounding alone depend on where arrays lie in memory, so two executions differ.

    Args:
        error: The measured error, not negative.
        floor: What rounding may do; far below the bound that the error is checked against.

    Raises:
        ValueError: If the error is NaN or negative, or the floor is not positive.
    """
    value = float(error)
    require(value >= 0 and floor > 0, "an error of at least 0 and a positive floor", (value, floor))
    return max(value, floor)


@dataclass(frozen=True)
class Condition:
    """A measured inequality: whether it holds, and its two sides in figures.

    Attributes:
        holds: Whether it holds; also the truth value of the condition.
        figures: The inequality with its figures, such as ``0.21 > 0.05``.
        volatile: Whether a side is a time or another value that differs from run to run.
    """

    holds: bool
    figures: str = ""
    volatile: bool = False

    def __bool__(self) -> bool:
        return self.holds

    def __and__(self, other: Condition) -> Condition:
        return Condition(
            self.holds and other.holds, f"{self.figures} and {other.figures}", self.volatile or other.volatile
        )


Side = SupportsFloat | Volatile


def _number(value: Side, name: str) -> float:
    number = float(value.value if isinstance(value, Volatile) else value)
    require(not math.isnan(number), f"a number for {name}", number)
    return number


def _changes(*sides: Side) -> bool:
    return any(isinstance(side, Volatile) for side in sides)


def exceeds(left: Side, right: Side) -> Condition:
    """The condition ``left > right``.

    Args:
        left: The measured side.
        right: The bound, itself measured or fixed before the run.

    Raises:
        ValueError: If a side is NaN.
    """
    a, b = _number(left, "left"), _number(right, "right")
    return Condition(a > b, f"{format_number(a)} {'>' if a > b else '≤'} {format_number(b)}", _changes(left, right))


def below(left: Side, right: Side) -> Condition:
    """The condition ``left < right``. Arguments and errors as :func:`exceeds`."""
    a, b = _number(left, "left"), _number(right, "right")
    return Condition(a < b, f"{format_number(a)} {'<' if a < b else '≥'} {format_number(b)}", _changes(left, right))


def within(value: Side, low: Side, high: Side) -> Condition:
    """The condition ``low <= value <= high``.

    Args:
        value: The measured value.
        low: Lower bound.
        high: Upper bound, not below ``low``.

    Raises:
        ValueError: If a number is NaN or the bounds are the wrong way round.
    """
    v, a, b = _number(value, "value"), _number(low, "low"), _number(high, "high")
    require(a <= b, "low <= high", (a, b))
    inside = a <= v <= b
    figures = f"{format_number(v)} {'in' if inside else 'not in'} [{format_number(a)}, {format_number(b)}]"
    return Condition(inside, figures, _changes(value, low, high))
