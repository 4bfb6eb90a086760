"""Experiments on more features, more data and more overfitting: theory against draws, and real images."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from netatlas.core import eigenlearning as el
from netatlas.core import kernel_ridge
from netatlas.core.infinite import Dense, Relu, serial
from netatlas.random_features import overparameterization as op


def power_law(modes: int, alpha: float = 1.5, beta: float = 1.3) -> tuple[Tensor, Tensor]:
    """Eigenvalues :math:`i^{-\\alpha}` and squared coefficients :math:`i^{-\\beta}`.

    Args:
        modes: How many.
        alpha, beta: Exponents.
    """
    i = torch.arange(1, modes + 1, dtype=torch.float64)
    return i**-alpha, i**-beta


class Agreement(NamedTuple):
    """Every cell, median relative deviations with much and little ridge, and the worst cell over its allowance."""

    cells: pd.DataFrame
    ridged: float
    unridged: float
    worst: float


def theory_against_draws(
    cells: list[tuple[int, int]], ridges: list[float], *, modes: int, noise: float, draws: int, seed: int
) -> Agreement:
    """Closed-form risk beside the mean of drawn regressions.

    Args:
        cells: Pairs of samples and features.
        ridges: Ridges.
        modes: Modes of the power law, the same on both sides.
        noise: Variance of the labels' noise.
        draws: Draws a cell.
        seed: Seeds them.
    """
    lam, power = power_law(modes)
    g = torch.Generator().manual_seed(seed)
    grid = torch.tensor(ridges, dtype=torch.float64)
    rows = []
    for n, k in cells:
        drawn = op.simulate_random_features(lam, power, n, k, grid, noise=noise, draws=draws, generator=g)
        theory = el.test_risk(lam, None, power, n, grid, noise=noise, features=k)
        for r, ridge in enumerate(ridges):
            mean, error = float(drawn[:, r].mean()), float(drawn[:, r].std() / draws**0.5)
            rows.append(
                {
                    "n": n,
                    "k": k,
                    "ridge": ridge,
                    "theory": float(theory[r]),
                    "drawn": mean,
                    "error": error,
                    "deviation": abs(mean / float(theory[r]) - 1),
                    # Four standard errors and three percent are allowed; above 1 a cell is off.
                    "excess": abs(mean - float(theory[r])) / (4 * error + 0.03 * float(theory[r])),
                }
            )
    table = pd.DataFrame(rows)
    strong = table[table.ridge >= 0.1]
    weak = table[(table.ridge < 0.1) & ((table.k / table.n - 1).abs() >= 0.25)]
    return Agreement(
        table, float(strong.deviation.median()), float(weak.deviation.median()), float(strong.excess.max())
    )


class Monotonicity(NamedTuple):
    """Risks along features or samples: theory and draws ``[sizes, draws]`` at the best and at a tiny ridge."""

    sizes: list[int]
    theory: Tensor
    tiny_theory: Tensor
    drawn: Tensor
    tiny_drawn: Tensor
    largest_rise: float
    rise_in_errors: float


def monotonicity(
    sizes: list[int], *, vary: str, fixed: int, noise: float, modes: int, draws: int, tiny: float, seed: int
) -> Monotonicity:
    """Risk over features (or samples) at the best ridge of each size, and at one tiny ridge.

    Args:
        sizes: Values of what varies.
        vary: ``"features"`` or ``"samples"``.
        fixed: The other one.
        noise: Variance of the labels' noise.
        modes: Modes of the power law.
        draws: Draws a size.
        tiny: The fixed ridge.
        seed: Seeds the draws.
    """
    lam, power = power_law(modes)
    sweep, still = (
        torch.tensor(sizes, dtype=torch.float64),
        torch.full((len(sizes),), float(fixed), dtype=torch.float64),
    )
    n, k = (still, sweep) if vary == "features" else (sweep, still)
    theory, _ = el.optimal_risk(lam, None, power, n, noise=noise, features=k)
    ridges = torch.cat([torch.tensor([tiny], dtype=torch.float64), torch.logspace(-4, 2, 25, dtype=torch.float64)])
    best, flat = [], []
    for a, b in zip(n.int().tolist(), k.int().tolist()):
        g = torch.Generator().manual_seed(seed)
        drawn = op.simulate_random_features(lam, power, a, b, ridges, noise=noise, draws=draws, generator=g)
        oracle = int(drawn[:, 1:].mean(0).argmin()) + 1
        best.append(drawn[:, oracle])
        flat.append(drawn[:, 0])
    best, flat = torch.stack(best), torch.stack(flat)
    step = best.diff(dim=0)
    rise = step.mean(1) / (step.std(1) / draws**0.5)
    return Monotonicity(
        sizes,
        theory,
        el.test_risk(lam, None, power, n, tiny, noise=noise, features=k),
        best,
        flat,
        float(theory.diff().max()),
        float(rise.max()),
    )


def theory_of_fitting(relative_noise: list[float], *, n: int, modes: int) -> pd.DataFrame:
    """Best fitting ratio and the price of a ratio of one half, over noise relative to the noiseless ridgeless error.

    Args:
        relative_noise: Values of it.
        n: Samples.
        modes: Modes of the power law.
    """
    lam, power = power_law(modes)
    unit = float(el.test_risk(lam, None, power, n, 0.0))
    ridges = torch.logspace(-9, 3, 400, dtype=torch.float64)
    rows = []
    levels = torch.tensor(relative_noise, dtype=torch.float64)[:, None]
    found = el.risk(lam, None, power, n, ridges, noise=levels * unit)
    for level, test, train in zip(relative_noise, found.test, found.train):
        ratio = op.fitting_ratio(op.FittingCurve(ridges, test, train))
        rows.append({"relative noise": level, "best ratio": ratio.best, "price of one half": ratio.price})
    return pd.DataFrame(rows)


class ImageFitting(NamedTuple):
    """Best fitting ratios and prices ``[splits]`` for every share of random labels."""

    best: dict[float, Tensor]
    price: dict[float, Tensor]
    ridgeless: dict[float, Tensor]
    curve: tuple[Tensor, Tensor]


def image_fitting(
    images: Tensor, labels: Tensor, *, samples: int, shares: tuple[float, ...], splits: int, seed: int
) -> ImageFitting:
    """Fitting ratios of a ReLU network's infinite-width kernel on images, with shares of labels made random in
    training and test.

    Args:
        images: N images, at least twice ``samples``.
        labels: Their classes.
        samples: Training images; as many for testing.
        shares: Shares of random labels.
        splits: Random splits.
        seed: Seeds everything.
    """
    x, classes = images.flatten(1).double(), int(labels.max()) + 1
    x = torch.nn.functional.normalize(x - x.mean(0), dim=1) * x.shape[1] ** 0.5
    ridges = torch.cat([torch.logspace(-8, 3, 45, dtype=torch.float64)]).to(x.device)
    net = serial(Dense(1), Relu(), Dense(1))
    best, price, rough = ({share: [] for share in shares} for _ in range(3))
    shown = (torch.zeros(0), torch.zeros(0))
    for split in range(splits):
        g = torch.Generator().manual_seed(seed + split)
        order = torch.randperm(len(x), generator=g)[: 2 * samples].to(x.device)
        kernel = net.kernel(x[order], get="nngp")
        random = torch.randint(classes, (2 * samples,), generator=g).to(x.device)
        chance = torch.rand(2 * samples, generator=g).to(x.device)
        stacked = []
        for share in shares:
            y = torch.nn.functional.one_hot(torch.where(chance < share, random, labels[order]), classes).double()
            stacked.append(y - y[:samples].mean(0))
        y = torch.stack(stacked)
        wide = torch.cat(list(y), 1)
        train, test = kernel_ridge.ridge_path(
            kernel[:samples, :samples], wide[:samples], kernel[samples:, :samples], ridges
        )
        for s, share in enumerate(shares):
            part = slice(s * classes, (s + 1) * classes)
            curve = op.FittingCurve(
                ridges,
                (test[..., part] - y[s, samples:]).square().sum(-1).mean(-1),
                (train[..., part] - y[s, :samples]).square().sum(-1).mean(-1),
            )
            found = op.fitting_ratio(curve)
            best[share].append(found.best)
            price[share].append(found.price)
            rough[share].append(found.ridgeless / found.least)
            if s == 0 and split == 0:
                shown = ((curve.train / curve.test).cpu(), (curve.test / curve.test.min()).cpu())
    tensors = [{k: torch.tensor(v, dtype=torch.float64) for k, v in part.items()} for part in (best, price, rough)]
    return ImageFitting(*tensors, shown)


def wide_limit_gap(*, n: int, modes: int) -> float:
    """Relative difference of the risk with ten million features from the kernel's.

    Args:
        n: Samples.
        modes: Modes of the power law.
    """
    lam, power = power_law(modes)
    wide, kernel = (float(el.test_risk(lam, None, power, n, 0.1, noise=0.1, features=k)) for k in (1e7, math.inf))
    return abs(wide / kernel - 1)
