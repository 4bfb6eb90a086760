"""Experiments on deep kernel machines: the limit, what is learned, and inducing points."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from netatlas.core.stats import Slope, loglog_slope
from netatlas.random_features import deep_kernel_machine as dkm


class Limit(NamedTuple):
    """Relative distances of sampled mean Gram matrices from the maximiser and from the prior's, by width."""

    table: pd.DataFrame
    slope: Slope
    learned: float
    control_prior: float
    control_learned: float


def finite_width_limit(
    widths: list[int], *, points: int, outputs: int, noise: float, chains: int, steps: int, seed: int
) -> Limit:
    """Sampled finite linear deep Gaussian processes beside the deep kernel machine, with and without the replicated
    likelihood.

    Args:
        widths: Numbers of features N.
        points: Data points.
        outputs: Output columns.
        noise: Variance.
        chains, steps: Of the sampler.
        seed: Seeds everything.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(points, points, generator=g, dtype=torch.float64)
    gram = x @ x.T / points + 0.3 * torch.eye(points, dtype=torch.float64)
    root = torch.randn(points, 1, generator=g, dtype=torch.float64)
    y = 2 * root + 0.5 * torch.randn(points, outputs, generator=g, dtype=torch.float64)
    fitted = dkm.fit(gram, y, layers=1, nu=1.0, noise=noise, kernel="linear", steps=600, rate=3e-2, jitter=0.0)
    target = dkm.layer_grams(gram, fitted.factors, kernel="linear", jitter=0.0)[0]
    rows = {}

    def distance(a: Tensor, b: Tensor) -> float:
        return float((a - b).norm() / b.norm())

    for width in widths:
        mean, kurtosis, accepted = dkm.hamiltonian_gram(
            gram,
            y,
            width,
            replicas=float(width),
            noise=noise,
            chains=chains,
            steps=steps,
            burn=steps // 4,
            rate=0.03,
            leapfrog=12,
            generator=g,
        )
        half = chains // 2
        rows[width] = {
            "distance from the maximiser": distance(mean.mean(0), target),
            "Monte Carlo error": distance(mean[:half].mean(0), mean[half:].mean(0)) / 2,
            "distance from the prior": distance(mean.mean(0), gram),
            "excess kurtosis": float(kurtosis.mean()),
            "accepted": accepted,
        }
    # The usual limit is reached like 1/N times the likelihood's pull, so its control needs a larger width.
    once, _, _ = dkm.hamiltonian_gram(
        gram,
        y,
        8 * max(widths),
        replicas=1.0,
        noise=noise,
        chains=chains,
        steps=steps // 3,
        burn=steps // 10,
        rate=0.08,
        leapfrog=18,
        generator=g,
    )
    table = pd.DataFrame(rows).T.rename_axis("width")
    slope = loglog_slope(table.index.to_numpy(dtype=float), table["distance from the maximiser"].to_numpy())
    return Limit(table, slope, distance(target, gram), distance(once.mean(0), gram), distance(once.mean(0), target))


class Sweep(NamedTuple):
    """Held-out alignment and test scores ``[nu, splits]`` at settings chosen on validation data, and these settings."""

    nus: list[float]
    alignment: Tensor
    train_alignment: Tensor
    score: Tensor
    accuracy: Tensor
    validation: Tensor
    settings: list[list[str]]
    chosen: Tensor
    at_end: float


def centred_alignment(gram: Tensor, target: Tensor) -> Tensor:
    r"""Cosine between two centred Gram matrices.

    .. math:: \frac{\langle H G H, H S H \rangle}{\lVert H G H \rVert\, \lVert H S H \rVert}

    Args:
        gram: ``[..., P, P]``.
        target: ``[..., P, P]``.
    """
    p = gram.shape[-1]
    h = torch.eye(p, dtype=gram.dtype) - 1 / p
    a, b = h @ gram @ h, h @ target @ h
    return (a * b).sum((-1, -2)) / (a.norm(dim=(-1, -2)) * b.norm(dim=(-1, -2)))


class Problem(NamedTuple):
    """Inputs ``[S, A, d]``, targets ``[S, A, C]`` of splits: ``train`` points first, then ``valid``, then test."""

    inputs: Tensor
    targets: Tensor
    train: int
    valid: int
    classes: bool


def digits_problem(
    images: Tensor, labels: Tensor, *, splits: int, train: int, rest: int, seed: int, permuted: bool = False
) -> Problem:
    """Splits of a classification as one-hot regression.

    Args:
        images: N images.
        labels: Classes.
        splits: Splits.
        train, rest: Training points; validation and test points each.
        seed: Orders the set.
        permuted: Whether training labels are permuted (the null).
    """
    x, y = images.flatten(1).double(), torch.nn.functional.one_hot(labels).double()
    x = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    inputs, targets = [], []
    for s in range(splits):
        g = torch.Generator().manual_seed(seed + s)
        order = torch.randperm(len(x), generator=g)[: train + 2 * rest]
        t = y[order] - y[order[:train]].mean(0)
        if permuted:
            t[:train] = t[:train][torch.randperm(train, generator=g)]
        inputs.append(x[order])
        targets.append(t / t[:train].std())
    return Problem(torch.stack(inputs), torch.stack(targets), train, rest, True)


def single_index_problem(
    *, splits: int, train: int, rest: int, dim: int = 10, noise: float = 0.1, seed: int
) -> Problem:
    """Splits of a target that depends on one direction of the input.

    Args:
        splits: Splits.
        train, rest: Training points; validation and test points each.
        dim: Inputs.
        noise: Deviation of the labels' noise.
        seed: Seeds them.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(splits, train + 2 * rest, dim, generator=g, dtype=torch.float64)
    y = torch.sin(2 * x[..., :1]) + noise * torch.randn(splits, train + 2 * rest, 1, generator=g, dtype=torch.float64)
    y = y - y[:, :train].mean(1, keepdim=True)
    return Problem(x / dim**0.5, y / y[:, :train].std(1, keepdim=True), train, rest, False)


def _log_score(found: dkm.Prediction, targets: Tensor) -> Tensor:
    v = found.variance[..., None]
    return (-0.5 * ((found.mean - targets).square() / v + v.log() + math.log(2 * math.pi))).mean((-1, -2))


def sweep(
    problem: Problem,
    *,
    nus: list[float],
    noises: list[float],
    amplitudes: list[float],
    layers: int,
    steps: int,
    rate: float = 2e-2,
) -> Sweep:
    """Deep kernel machines over the weight of the divergence, noise and amplitude tuned alike for each, all fits in
    one batch.

    Args:
        problem: Splits of a data set.
        nus: Weights, infinity (no learning) first.
        noises, amplitudes: The grid every weight is tuned on.
        layers: Hidden layers.
        steps, rate: Of Adam.
    """
    splits, p, v = len(problem.inputs), problem.train, problem.valid
    joint = problem.inputs @ problem.inputs.mT
    joint = joint / joint[:, :p, :p].diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    y, grid = problem.targets, [(s, a) for s in noises for a in amplitudes]
    noise = torch.tensor([s for s, _ in grid], dtype=torch.float64)[:, None].expand(-1, splits)
    amplitude = torch.tensor([a for _, a in grid], dtype=torch.float64)[:, None].expand(-1, splits)
    options = {"noise": noise, "amplitude": amplitude}
    eye = torch.eye(p, dtype=torch.float64).expand(len(grid), splits, p, p)
    rows = {"alignment": [], "train": [], "score": [], "accuracy": [], "validation": []}
    settings, end = [], 0.0
    wide, held = joint.expand(len(grid), *joint.shape), y.expand(len(grid), *y.shape)
    for nu in nus:
        factors = [eye] * layers
        if math.isfinite(nu):
            factors = dkm.fit(
                wide[..., :p, :p],
                held[..., :p, :],
                layers=layers,
                nu=nu,
                steps=steps,
                rate=rate,
                jitter=1e-4,
                **options,
            ).factors
        found = dkm.predict(wide, held[..., :p, :], factors, jitter=1e-4, **options)
        first, second = (
            dkm.Prediction(found.mean[..., s, :], found.variance[..., s]) for s in (slice(0, v), slice(v, None))
        )
        valid, test = _log_score(first, held[..., p : p + v, :]), _log_score(second, held[..., p + v :, :])
        # One setting for all splits, as a practitioner tunes; its mean over splits decides.
        best = int(valid.mean(1).argmax())
        last = dkm.gram_kernel(dkm.propagate(wide[best], [f[best] for f in factors], jitter=1e-4))
        truth = y @ y.mT
        rows["alignment"].append(centred_alignment(last[:, p + v :, p + v :], truth[:, p + v :, p + v :]))
        rows["train"].append(centred_alignment(last[:, :p, :p], truth[:, :p, :p]))
        rows["score"].append(test[best])
        rows["validation"].append(valid[best])
        right = second.mean[best].argmax(-1) == y[:, p + v :].argmax(-1)
        error = (second.mean[best] - y[:, p + v :]).square().mean((1, 2)).sqrt()
        rows["accuracy"].append(right.double().mean(1) if problem.classes else error)
        settings.append([f"noise {grid[best][0]:g}, amplitude {grid[best][1]:g}"])
        end = max(
            end,
            float(grid[best][0] in (min(noises), max(noises)) or grid[best][1] in (min(amplitudes), max(amplitudes))),
        )
    stacked = {k: torch.stack(part) for k, part in rows.items()}
    pick = int(stacked["validation"].mean(1).argmax())
    return Sweep(
        nus,
        stacked["alignment"],
        stacked["train"],
        stacked["score"],
        stacked["accuracy"],
        stacked["validation"],
        settings,
        torch.tensor(pick),
        end,
    )


class Sparse(NamedTuple):
    """Errors ``[splits]`` of the full machine, the sparse one, and a process on the inducing points alone."""

    full: Tensor
    sparse: Tensor
    inducing_only: Tensor


def sparse_comparison(
    *, points: int, inducing: int, splits: int, nu: float, noise: float, steps: int, sparse_steps: int, seed: int
) -> Sparse:
    """Inducing points against all points on a single-index regression.

    Args:
        points: Training points.
        inducing: Inducing points, the first of them.
        splits: Splits.
        nu: Weight of the divergence.
        noise: Variance.
        steps, sparse_steps: Adam steps of the full and of the sparse machine.
        seed: Seeds them.
    """
    problem = single_index_problem(splits=splits, train=points, rest=100, dim=4, seed=seed)
    rows = []
    for x, y in zip(problem.inputs, problem.targets):
        keep = torch.cat([torch.arange(points), torch.arange(points + 100, points + 200)])
        x, y = x[keep], y[keep]
        gram = x @ x.T
        train, new = y[:points], y[points:]
        full = dkm.fit(gram[:points, :points], train, layers=1, nu=nu, noise=noise, steps=steps, rate=3e-2, jitter=1e-4)
        mean = dkm.predict(gram, train, full.factors, noise=noise, jitter=1e-4).mean
        both = torch.cat([torch.arange(inducing), torch.arange(len(x))])
        joint = gram[both][:, both]
        sparse = dkm.fit_sparse(
            joint[: inducing + points, : inducing + points],
            train,
            inducing=inducing,
            layers=1,
            nu=nu,
            noise=noise,
            steps=sparse_steps,
            rate=3e-2,
            jitter=1e-4,
        )
        guess = dkm.sparse_predict(joint, train, sparse.factors, noise=noise, jitter=1e-4)
        few = torch.cat([torch.arange(inducing), torch.arange(points, len(x))])
        alone = dkm.predict(
            gram[few][:, few], train[:inducing], [torch.eye(inducing, dtype=torch.float64)], noise=noise, jitter=1e-4
        ).mean
        rows.append([float((m - new).square().mean().sqrt()) for m in (mean, guess, alone)])
    return Sparse(*torch.tensor(rows, dtype=torch.float64).T)


def exact_checks(*, seed: int) -> dict[str, float]:
    """Cases whose answer is known: identities are the plain process, the geometric mean, inducing all points.

    Args:
        seed: Seeds small matrices.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 6, generator=g, dtype=torch.float64)
    gram = x @ x.T / 6 + 0.2 * torch.eye(8, dtype=torch.float64)
    y = torch.randn(8, 3, generator=g, dtype=torch.float64)
    eye = torch.eye(8, dtype=torch.float64)
    twice = dkm.gram_kernel(dkm.gram_kernel(gram))
    plain = dkm.gaussian_log_likelihood(twice + 0.1 * eye, y)
    found = {
        "identities give the plain process": float(
            (dkm.objective(gram, y, [eye], nu=3.0, noise=0.1, jitter=0.0) - plain).abs() / plain.abs()
        )
    }
    factor = torch.tril(torch.randn(8, 8, generator=g, dtype=torch.float64)) * 0.2 + eye
    full = dkm.objective(gram, y, [factor], nu=3.0, noise=0.1, jitter=0.0)
    double = torch.cat([torch.cat([gram, gram], 1), torch.cat([gram, gram], 1)])
    sparse = dkm.sparse_objective(double, y, [factor], nu=3.0, noise=0.1, jitter=0.0)
    found["inducing points at the data give the full machine"] = float((full - sparse).abs() / full.abs())
    wide = torch.randn(5, 12, generator=g, dtype=torch.float64)
    base = gram[:5, :5]
    fitted = dkm.fit(base, wide, layers=1, nu=12.0, noise=1e-9, kernel="linear", steps=1500, rate=3e-2, jitter=0.0)
    got = dkm.layer_grams(base, fitted.factors, kernel="linear", jitter=0.0)[0]
    exact = dkm.linear_solution(base, wide @ wide.T / 12, 1)[0]
    found["one linear layer gives the geometric mean"] = float((got - exact).norm() / exact.norm())
    return found
