"""Experiments on random weights from a bounded range: the floor, the sufficient range, and the ridgelet spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from netatlas.core.stats import spearman
from netatlas.core.train import minimize
from netatlas.random_features import bandlimited as bl


def sine(frequency: float) -> Callable[[Tensor], Tensor]:
    """The function :math:`\\sin(\\omega x)`.

    Args:
        frequency: :math:`\\omega`.
    """
    return lambda x: torch.sin(frequency * x)


def windowed_sine(frequency: float, width: float) -> Callable[[Tensor], Tensor]:
    """The function :math:`e^{-x^2/2s^2} \\sin(\\omega x)`.

    Args:
        frequency: :math:`\\omega`.
        width: :math:`s`.
    """
    return lambda x: torch.exp(-x.square() / (2 * width**2)) * torch.sin(frequency * x)


def _grid() -> tuple[Tensor, Tensor]:
    return (torch.linspace(-1, 1, n, dtype=torch.float64)[:, None] for n in (400, 1000))  # type: ignore[return-value]


class Fit(NamedTuple):
    """Root-mean-square test error ``[draws]`` and mean norms of the output weights."""

    error: Tensor
    density_norm: float
    largest_weight: float


def approximate(
    function: Callable[[Tensor], Tensor],
    n: int,
    band: float,
    *,
    ridge: float = 1e-6,
    scaled: bool = True,
    law: str = "uniform",
    activation: str = "gaussian",
    draws: int = 5,
    seed: int = 0,
) -> Fit:
    """Fit a function on [-1, 1] with random hidden weights and report the test error.

    Args:
        function: The target.
        n: Hidden units.
        band: Range of the hidden weights.
        ridge: Penalty on the density.
        scaled: Whether the penalty grows with n (a bounded density).
        law, activation: Of the hidden weights and units.
        draws: Independent networks.
        seed: Seeds them.
    """
    x, fresh = _grid()
    g = torch.Generator().manual_seed(seed)
    weights = bl.bandlimited_weights(n, 1, band, generator=g, draws=(draws,), law=law)
    y = function(x[:, 0])
    out = bl.read_out(
        bl.hidden_features(x, weights, activation), y, ridge, volume=weights.volume, per_unit=50.0 if scaled else None
    )
    guess = (bl.hidden_features(fresh, weights, activation) @ out.weights[..., None])[..., 0]
    error = (guess - function(fresh[:, 0])).square().mean(-1).sqrt()
    return Fit(error, float(out.density_norm.mean()), float(out.weights.abs().amax(-1).mean()))


def error_table(
    bands: list[float], sizes: list[int], frequencies: list[float], *, draws: int, seed: int
) -> pd.DataFrame:
    """Errors over ranges, numbers of units and frequencies, with bounded density.

    Args:
        bands: Ranges.
        sizes: Numbers of units.
        frequencies: Of the sine targets.
        draws: Networks a cell.
        seed: Seeds them.
    """
    rows = []
    for w in frequencies:
        for band in bands:
            for n in sizes:
                found = approximate(sine(w), n, band, draws=draws, seed=seed)
                for draw, error in enumerate(found.error.tolist()):
                    rows.append(
                        {"frequency": w, "band": band, "n": n, "draw": draw, "error": error, "norm": found.density_norm}
                    )
    return pd.DataFrame(rows)


def mechanism_table(sizes: list[int], *, draws: int, seed: int) -> dict[str, list[Fit]]:
    """What lifts the floor of sin(8 pi x) at range 4: weaker penalties, none, and unbounded weights of the same scale.

    Args:
        sizes: Numbers of units.
        draws: Networks a cell.
        seed: Seeds them.
    """
    target = sine(8 * math.pi)
    arms = {
        "uniform, bounded density": {},
        "Gaussian weights, same deviation": {"law": "gaussian"},
        "Cauchy weights, same scale": {"law": "cauchy"},
        "uniform, ridge not scaled": {"scaled": False},
        "uniform, no ridge": {"ridge": 0.0},
    }
    return {
        name: [
            approximate(target, n, 4.0, draws=draws if options.get("ridge", 1) else 2, seed=seed, **options)
            for n in sizes
        ]
        for name, options in arms.items()
    }


def sufficient_bands(frequencies: list[float], bands: list[float], *, n: int, draws: int, seed: int) -> pd.DataFrame:
    """The least range with an error under a tenth of the target's root mean square, and the best range.

    Args:
        frequencies: Of the sine targets.
        bands: Ranges in increasing order.
        n: Hidden units.
        draws: Networks a cell.
        seed: Seeds them.
    """
    rows = []
    for w in frequencies:
        x = torch.linspace(-1, 1, 1000, dtype=torch.float64)
        rms = float(sine(w)(x).square().mean().sqrt())
        errors = [float(approximate(sine(w), n, band, draws=draws, seed=seed).error.mean()) / rms for band in bands]
        good = [band for band, error in zip(bands, errors) if error < 0.1]
        rows.append(
            {
                "frequency / pi": w / math.pi,
                "least sufficient": good[0] if good else math.inf,
                "best": bands[errors.index(min(errors))],
            }
        )
    return pd.DataFrame(rows)


class Spectrum(NamedTuple):
    """Cells with leakage and floor, rank correlations of the floor with leakage and with the scale ratio alone."""

    cells: pd.DataFrame
    rank_leakage: float
    rank_ratio: float
    rank_width: float
    least_ratio: float


def spectrum_against_floor(*, n: int, draws: int, seed: int) -> Spectrum:
    """Floors of windowed sines against the share of their ridgelet energy outside the range.

    Args:
        n: Units; large, so that the error is the floor.
        draws: Networks a cell.
        seed: Seeds them.
    """
    rows = []
    settings = [("frequency", k * math.pi, 0.5, band) for k in (1, 1.5, 2, 3, 4, 6, 8, 16) for band in (1, 2, 4, 8, 16)]
    settings += [("width", 4 * math.pi, s, band) for s in (0.05, 0.1, 0.2, 0.5) for band in (4, 8)]
    x = torch.linspace(-1, 1, 1000, dtype=torch.float64)
    for kind, w, s, band in settings:
        f = windowed_sine(w, s)
        leak = bl.spectrum_leakage(f, band, reach=max(6 * s, 1.0) if s < 0.5 else 3.0)
        rms = float(f(x).square().mean().sqrt())
        floor = float(approximate(f, n, band, draws=draws, seed=seed).error.mean()) / rms
        rows.append({"along": kind, "frequency": w, "width": s, "band": band, "leakage": leak.total, "floor": floor})
    cells = pd.DataFrame(rows)
    open_cells = cells[(cells.along == "frequency") & (cells.leakage > 0.02) & (cells.leakage < 0.98)]
    along = cells[cells.along == "width"]
    widths = [spearman(part.leakage.to_numpy(), part.floor.to_numpy()) for _, part in along.groupby("band")]
    return Spectrum(
        cells,
        spearman(open_cells.leakage.to_numpy(), open_cells.floor.to_numpy()),
        spearman((open_cells.frequency / open_cells.band).to_numpy(), open_cells.floor.to_numpy()),
        min(widths),
        float((cells.floor / cells.leakage.clip(lower=1e-9)).min()),
    )


def trained_weights(frequency: float, *, n: int, members: int, steps: int, seed: int) -> Tensor:
    """Test error of networks of the same size whose hidden weights are trained from a range of 4.

    Args:
        frequency: Of the sine target.
        n: Hidden units.
        members: Networks.
        steps: Adam steps.
        seed: Seeds them.
    """
    x, fresh = _grid()
    f = sine(frequency)
    g = torch.Generator().manual_seed(seed)
    start = bl.bandlimited_weights(n, 1, 4.0, generator=g, draws=(members,))
    params = {"a": start.slopes, "b": start.offsets, "c": torch.zeros_like(start.offsets)}

    def out(p: dict[str, Tensor], points: Tensor) -> Tensor:
        h = bl.hidden_features(points, bl.HiddenWeights(p["a"], p["b"], 1.0))
        return (h @ p["c"][..., None])[..., 0]

    found, _ = minimize(
        lambda p, s, g: (out(p, x) - f(x[:, 0])).square().mean(-1), params, steps=steps, lr=0.05, schedule="cosine"
    )
    return (out(found, fresh) - f(fresh[:, 0])).square().mean(-1).sqrt()
