"""The family portrait: every regression method of the chapter on one target, against features and against samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from netatlas.core import eigenlearning, kernel_ridge
from netatlas.core.infinite import Dense, Relu, serial
from netatlas.random_features import bandlimited as bl
from netatlas.random_features import deep_kernel_machine as dkm
from netatlas.random_features import feature_maps as fm
from netatlas.random_features.polynomial import polynomial_features

DIM = 6
NOISE = 0.1
RIDGES = tuple(10.0**e for e in range(-7, 3))

FeatureMap = Callable[[Tensor, int, torch.Generator], Tensor]


def target(x: Tensor) -> Tensor:
    """A linear part, an interaction and a wave, of unit variance each up to their weights.

    Args:
        x: Points on the sphere of radius :math:`\\sqrt d`.
    """
    return 0.7 * x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + 0.5 * torch.sin(2 * x[:, 3])


def points(count: int, generator: torch.Generator) -> Tensor:
    """Uniform points on the sphere of radius :math:`\\sqrt d`.

    Args:
        count: How many.
        generator: Draws them.
    """
    x = torch.randn(count, DIM, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1) * DIM**0.5


def _fourier(x: Tensor, k: int, g: torch.Generator) -> Tensor:
    phases = 2 * math.pi * torch.rand(k, generator=g, dtype=torch.float64)
    return fm.fourier_features(x, fm.gaussian_directions(k, DIM, generator=g), scale=2.0, phases=phases)


def _relu(x: Tensor, k: int, g: torch.Generator) -> Tensor:
    one = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    return fm.arc_cosine_features(one, fm.gaussian_directions(k, DIM + 1, generator=g))


def _positive(x: Tensor, k: int, g: torch.Generator) -> Tensor:
    return fm.positive_features(x / 2, fm.gaussian_directions(k, DIM, generator=g))


def _bandlimited(x: Tensor, k: int, g: torch.Generator) -> Tensor:
    return bl.hidden_features(x, bl.bandlimited_weights(k, DIM, 2.0, generator=g), "tanh") / k**0.5


FEATURES: dict[str, FeatureMap] = {
    "Fourier": _fourier,
    "ReLU (SNNK)": _relu,
    "positive": _positive,
    "bounded weights, tanh": _bandlimited,
}


def kernel_of(name: str, x: Tensor, z: Tensor | None = None) -> Tensor:
    """Infinite-feature kernels of the maps that have one in closed form.

    Args:
        name: ``"Fourier"``, ``"ReLU (SNNK)"`` or ``"tangent kernel"``.
        x, z: Points; ``z`` defaults to ``x``.
    """
    z = x if z is None else z
    if name == "Fourier":
        return torch.exp(-torch.cdist(x, z).square() / 8)
    one, two = (torch.cat([a, torch.ones_like(a[:, :1])], 1) for a in (x, z))
    net = serial(Dense(1), Relu(), Dense(1))
    scale = DIM + 1  # the network divides inner products by the number of inputs
    return net.kernel(one, two, get="nngp" if name == "ReLU (SNNK)" else "ntk") * scale


class Measured(NamedTuple):
    """Excess test risks ``[places, draws]`` and where, with the theory's line where there is one."""

    places: list[int]
    risk: Tensor


def _solve(gram: Tensor, cross: Tensor, y: Tensor, truth: Tensor) -> float:
    scale = float(gram.diagonal().mean())
    ridges = torch.tensor(RIDGES, dtype=gram.dtype) * len(y)
    best = float(kernel_ridge.select_ridge(gram / scale, y[:, None], ridges).ridge)
    dual = kernel_ridge.fit(gram / scale, y[:, None], best)
    return float((kernel_ridge.predict(cross / scale, dual)[:, 0] - truth).square().mean())


def _data(n: int, fresh: int, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x = points(n + fresh, g)
    f = target(x)
    y = f[:n] + NOISE**0.5 * torch.randn(n, generator=g, dtype=torch.float64)
    return x, y, f[n:]


def measure(cells: list[tuple[int, int]], *, draws: int, fresh: int, seed: int) -> dict[str, Tensor]:
    """Excess risk of every feature map at pairs of samples and features, the ridge chosen by exact leave-one-out.

    Args:
        cells: Pairs (samples, features).
        draws: Draws of data and features.
        fresh: Test points.
        seed: Seeds them.

    Returns:
        ``[cells, draws]`` for every map.
    """
    found = {name: torch.zeros(len(cells), draws, dtype=torch.float64) for name in FEATURES}
    for c, (n, k) in enumerate(cells):
        for draw in range(draws):
            g = torch.Generator().manual_seed(seed + draw)
            x, y, truth = _data(n, fresh, g)
            for name, feature_map in FEATURES.items():
                phi = feature_map(x, k, g)
                found[name][c, draw] = _solve(phi[:n] @ phi[:n].T, phi[n:] @ phi[:n].T, y, truth)
    return found


def measure_kernels(samples: list[int], *, draws: int, fresh: int, seed: int) -> dict[str, Tensor]:
    """Excess risk of infinite-width kernels and of polynomials of degree two and three.

    Args:
        samples: Numbers of samples.
        draws: Draws.
        fresh: Test points.
        seed: Seeds them.

    Returns:
        ``[samples, draws]`` for every method.
    """
    names = ["Fourier", "ReLU (SNNK)", "tangent kernel"]
    found = {
        name: torch.zeros(len(samples), draws, dtype=torch.float64)
        for name in [*names, "polynomial, degree 2", "polynomial, degree 3"]
    }
    for c, n in enumerate(samples):
        for draw in range(draws):
            x, y, truth = _data(n, fresh, torch.Generator().manual_seed(seed + draw))
            for name in names:
                k = kernel_of(name, x, x[:n])
                found[name][c, draw] = _solve((k[:n] + k[:n].T) / 2, k[n:], y, truth)
            for degree in (2, 3):
                columns = polynomial_features(x, degree)
                columns = columns / columns[:n].square().mean(0).sqrt()
                found[f"polynomial, degree {degree}"][c, draw] = _solve(
                    columns[:n] @ columns[:n].T, columns[n:] @ columns[:n].T, y, truth
                )
    return found


def measure_deep(samples: list[int], *, draws: int, fresh: int, steps: int, seed: int) -> Tensor:
    """Excess risk of a deep kernel machine with one learned layer.

    Args:
        samples: Numbers of samples.
        draws: Draws.
        fresh: Test points.
        steps: Adam steps.
        seed: Seeds them.

    Returns:
        ``[samples, draws]``.
    """
    found = torch.zeros(len(samples), draws, dtype=torch.float64)
    for c, n in enumerate(samples):
        sets = [_data(n, fresh, torch.Generator().manual_seed(seed + draw)) for draw in range(draws)]
        x = torch.stack([s[0] for s in sets])
        gram = (x @ x.mT + 1) / (DIM + 1)
        y = torch.stack([s[1] for s in sets])[..., None]
        options = {"noise": NOISE, "amplitude": 4.0, "jitter": 1e-4}
        fitted = dkm.fit(gram[:, :n, :n], y, layers=1, nu=3.0, steps=steps, rate=3e-2, **options)
        mean = dkm.predict(gram, y, fitted.factors, **options).mean[..., 0]
        found[c] = (mean - torch.stack([s[2] for s in sets])).square().mean(1)
    return found


@cache
def _spectrum(name: str, pool: int, seed: int) -> tuple[Tensor, Tensor]:
    x = points(pool, torch.Generator().manual_seed(seed + 999))
    values, vectors = torch.linalg.eigh(kernel_of(name, x) / pool)
    return values, (vectors.T @ target(x)).square() / pool


def theory(name: str, samples: Tensor, features: Tensor, *, pool: int, seed: int) -> Tensor:
    """Excess risk at the best ridge by the closed form, from the spectrum of the kernel on a pool of points.

    Args:
        name: ``"Fourier"`` or ``"ReLU (SNNK)"``.
        samples, features: Of the cells; infinite features are the kernel.
        pool: Points on which the spectrum is taken.
        seed: Draws them.
    """
    values, power = _spectrum(name, pool, seed)
    keep = values > 1e-12 * values.max()
    lost = float(power[~keep].sum())
    lam, power = values[keep], power[keep]
    best, _ = eigenlearning.optimal_risk(
        lam, None, power, samples, noise=NOISE + lost, features=features, low=1e-7 * float(lam.sum())
    )
    return best - NOISE


def summary(curves: dict[str, Tensor], place: int) -> dict[str, float]:
    """Mean risks at one place.

    Args:
        curves: ``[places, draws]`` by method.
        place: Which.
    """
    return {name: float(v[place].mean()) for name, v in curves.items()}


def theory_gap(measured: Tensor, line: Tensor) -> float:
    """Median relative deviation of measured means from a theory line.

    Args:
        measured: ``[places, draws]``.
        line: ``[places]``.
    """
    deviation = (measured.mean(1) / line - 1).abs()
    return float(deviation.median()) if len(deviation) else math.nan
