"""The same search, with the same budget, for a method and for its baseline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netatlas.core.checks import require

Setting = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        best: The best setting; the first tried among equals.
        score: Its score.
        trials: Every setting tried with its score, in order.
    """

    best: Setting
    score: float
    trials: list[tuple[Setting, float]]


def grid_search(
    evaluate: Callable[[Setting], float],
    grid: Mapping[str, Sequence[Any]] | Sequence[Setting],
    *,
    budget: int | None = None,
    seed: int = 0,
    maximize: bool = True,
) -> Search:
    """Try settings of a grid and keep the best on a validation score.

    Args:
        evaluate: Validation score of a setting. Never a test score.
        grid: Values for each name (their product is searched), or the settings themselves.
        budget: How many settings at most; a larger grid is sampled without replacement.
        seed: Seeds that sample.
        maximize: Whether a higher score is better.

    Raises:
        ValueError: For an empty grid, a budget below 1, or a score that is NaN (the message names the setting).
    """
    if isinstance(grid, Mapping):
        settings = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    else:
        settings = [dict(setting) for setting in grid]
    require(len(settings) > 0, "at least one setting", 0)
    require(budget is None or budget >= 1, "a budget of at least 1", budget)
    if budget is not None and budget < len(settings):
        chosen = np.random.default_rng(seed).choice(len(settings), budget, replace=False)
        settings = [settings[i] for i in sorted(chosen)]
    trials = [(setting, float(evaluate(setting))) for setting in settings]
    for setting, score in trials:
        require(score == score, f"a score for {setting}", score)
    best, score = (max if maximize else min)(trials, key=lambda trial: trial[1])
    return Search(best, score, trials)
