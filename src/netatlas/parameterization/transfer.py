r"""Does the best learning rate stay where it was? Sweeps, optima between grid points, and the drift of the optimum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.train import fit_many


class Optimum(NamedTuple):
    """A learning rate's optimum: its position (log2), the loss there, and whether it sits at the grid's end."""

    position: float
    loss: float
    censored: bool


class Drift(NamedTuple):
    """Slope of the optimum's position against log2 of the size, with a bootstrap interval over seeds."""

    slope: float
    low: float
    high: float
    optima: tuple[float, ...]
    losses: tuple[float, ...]
    censored: bool
    resamples: np.ndarray


def learning_rate_sweep(
    build: Callable[[], nn.Module],
    inputs: Tensor,
    targets: Tensor,
    *,
    log2_rates: Sequence[float],
    seeds: Sequence[int],
    scale: float = 1.0,
    last: int = 20,
    **options: Any,
) -> Float[Tensor, "R S"]:
    r"""Training loss after a fixed number of steps for every learning rate and seed, all trained as one stack.

    Args:
        build: Makes the model.
        inputs, targets: The training data.
        log2_rates: ``R`` learning rates as powers of two.
        seeds: ``S`` seeds; equal seeds share initial weights and batches over all rates.
        scale: A factor on every rate.
        last: The loss is the mean of so many last steps.
        options: Further options of ``fit_many``.

    Returns:
        Losses; infinite where training diverged.

    Raises:
        ValueError: For no rates, or as ``fit_many``.

    Source:
        bordelon2023depthwise and everett2024scaling, the sweeps behind every transfer figure.
    """
    require(len(log2_rates) > 0 and len(seeds) > 0, "at least one rate and one seed", (len(log2_rates), len(seeds)))
    rates = torch.tensor([scale * 2.0**r for r in log2_rates]).repeat_interleave(len(seeds))
    ensemble = fit_many(
        build, inputs, targets, seeds=list(seeds) * len(log2_rates), lr=rates, diverged="keep", **options
    )
    loss = ensemble.trace[-last:].double().mean(0).reshape(len(log2_rates), len(seeds)).cpu()
    return torch.where(torch.isfinite(loss), loss, torch.inf)


def optimal_rate(log2_rates: Sequence[float], losses: Float[Tensor, "R S"]) -> Optimum:
    r"""The best learning rate between grid points, by a parabola through the best one and its neighbours.

    .. math:: x^* = x_i + \frac{h}{2}\,\frac{y_{i-1} - y_{i+1}}{y_{i-1} - 2y_i + y_{i+1}}

    where :math:`y` is the logarithm of the mean loss over seeds.

    Args:
        log2_rates: ``R`` equally spaced positions.
        losses: Positive losses, infinite where training diverged.

    Raises:
        ValueError: For fewer than three rates, unequal spacing, NaN, or where every rate diverged.
    """
    x, table = np.asarray(log2_rates, float), torch.as_tensor(losses, dtype=torch.float64).numpy()
    require(
        len(x) >= 3 and np.allclose(np.diff(x), x[1] - x[0]), "at least three equally spaced rates", list(log2_rates)
    )
    require(table.ndim == 2 and len(table) == len(x), f"losses [{len(x)}, S]", table.shape)
    require(not np.isnan(table).any() and bool((table > 0).all()), "positive losses", "NaN or losses of at most zero")
    y = np.log(table.mean(1))
    i = int(np.argmin(y))
    require(bool(np.isfinite(y[i])), "a rate at which training does not diverge", y)
    if i in (0, len(x) - 1):
        return Optimum(float(x[i]), float(np.exp(y[i])), True)
    # A diverged neighbour counts as a steep wall: its logarithm must stay finite for the parabola.
    left, mid, right = (min(v, y[i] + 3.0) for v in y[i - 1 : i + 2])
    bend = left - 2 * mid + right
    shift = 0.0 if bend <= 0 else 0.5 * (left - right) / bend
    return Optimum(float(x[i] + shift * (x[1] - x[0])), float(np.exp(mid - 0.25 * (left - right) * shift)), False)


def optimum_drift(
    sizes: Sequence[int],
    log2_rates: Sequence[float] | Sequence[Sequence[float]],
    losses: Sequence[Float[Tensor, "R S"]],
    *,
    resamples: int = 400,
    seed: int = 0,
) -> Drift:
    r"""How the optimum moves with size: 0 is transfer, -1 halves the rate at every doubling.

    Args:
        sizes: ``K`` widths or depths.
        log2_rates: One grid for all sizes, or one a size.
        losses: One sweep a size, with the same seeds.
        resamples: Bootstrap resamples of the seeds (all sizes together, as seeds are shared).
        seed: Seeds the resampling.

    Returns:
        Slope, its 95 % percentile interval, optima, losses there, and whether any optimum is at a grid's end.

    Raises:
        ValueError: For fewer than two sizes, or as :func:`optimal_rate`.
    """
    require(len(sizes) == len(losses) >= 2, "one sweep for each of at least two sizes", (len(sizes), len(losses)))
    shared = isinstance(log2_rates[0], int | float)
    grids = [log2_rates] * len(sizes) if shared else log2_rates
    tables = [torch.as_tensor(t, dtype=torch.float64) for t in losses]
    x = np.log2(np.asarray(sizes, float))
    x = x - x.mean()

    def fitted(columns: np.ndarray) -> tuple[float, list[Optimum]]:
        best = [optimal_rate(g, t[:, columns]) for g, t in zip(grids, tables)]  # type: ignore[arg-type]
        return float(x @ np.array([b.position for b in best]) / (x @ x)), best

    count = tables[0].shape[1]
    slope, best = fitted(np.arange(count))
    draw = np.random.default_rng(seed)
    again = np.array([fitted(draw.integers(0, count, count))[0] for _ in range(resamples)])
    low, high = np.quantile(again, [0.025, 0.975])
    return Drift(
        slope,
        float(low),
        float(high),
        tuple(b.position for b in best),
        tuple(b.loss for b in best),
        any(b.censored for b in best),
        again,
    )
