"""Times: shown and recorded, never compared between executions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from IPython.display import display

VOLATILE_OPEN, VOLATILE_CLOSE = '<span class="volatile">', "</span>"
# What nbval replaces in both executions before it compares them (the file that --nbval-sanitize-with names).
SANITIZE = r"""[volatile]
regex: <span class="volatile">[^<]*</span>
replace: VOLATILE

[volatile-text]
regex: ⏱ [^\n]*
replace: VOLATILE
"""


@dataclass(frozen=True)
class Volatile:
    """A measured value that differs from run to run, such as a time."""

    value: Any


def volatile(value: Any) -> Volatile:
    """Mark a measured value as one that differs from run to run: shown and recorded, not compared.

    Args:
        value: A number or an array of numbers.
    """
    return Volatile(value)


def mark(text: str) -> str:
    """Wrap text for HTML output so that the comparison of two executions skips it."""
    return f"{VOLATILE_OPEN}{text}{VOLATILE_CLOSE}"


@dataclass
class Timing:
    """Seconds that a block took; 0 until it ends."""

    label: str
    seconds: float = field(default=0.0)


@contextmanager
def timing(label: str) -> Iterator[Timing]:
    """Time a block and show the seconds as a volatile output.

    Args:
        label: What is timed.

    Yields:
        A :class:`Timing` whose ``seconds`` are set when the block ends.
    """
    timer, start = Timing(label), time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - start
    shown = f"{timer.seconds:.2f} s"
    display(
        {"text/plain": f"⏱ {label}: {shown}", "text/html": f'<p class="na-timing">{label}: {mark(shown)}</p>'},
        raw=True,
        metadata={"netatlas": {"timing": {"label": label, "seconds": timer.seconds}}},
    )
