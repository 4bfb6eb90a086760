"""Counter-seeded xorshift generators that compiled loops can inline.

Every walk, worker or epoch gets its own stream from ``stream_state(seed, stream)``, so a result depends on the seed
alone and not on the order in which the work was done.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_MULTIPLIER = np.uint64(2685821657736338717)
_TO_UNIT = 1.0 / 9007199254740992.0
_LOW = np.uint64(0xFFFFFFFF)


@njit(inline="always")
def advance(state):
    state ^= state >> np.uint64(12)
    state ^= state << np.uint64(25)
    state ^= state >> np.uint64(27)
    return state


@njit(inline="always")
def bits(state):
    return state * _MULTIPLIER


@njit(inline="always")
def unit(state):
    return np.float64((state * _MULTIPLIER) >> np.uint64(11)) * _TO_UNIT


@njit(inline="always")
def below(state, bound):
    # The high half times the bound: Lemire's multiply-shift, whose bias is below bound / 2^32.
    return np.int64((((state * _MULTIPLIER) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@njit(inline="always")
def low_unit(state):
    return np.float64((state * _MULTIPLIER >> np.uint64(8)) & np.uint64(0xFFFFFF)) * (1.0 / 16777216.0)


@njit(cache=True)
def stream_state(seed, stream):
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream) + np.uint64(0x632BE59BD9B4E019)
    for _ in range(2):
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return z | np.uint64(1)


def check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed!r}")
    return int(seed)
