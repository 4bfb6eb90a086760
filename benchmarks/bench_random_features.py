"""The random-feature kernels beside scikit-learn's estimators, a naive neural bandit, and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import sklearn
import torch
from harness import compare, timed
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, LeaveOneOut
from sklearn.preprocessing import PolynomialFeatures
from torch import nn

from netatlas.core import eigenlearning, kernel_ridge
from netatlas.random_features import (
    bit_law,
    classification_bandit,
    fourier_features,
    gaussian_directions,
    play_neural,
    polynomial_features,
    simulate_random_features,
    train_ensemble,
)

RIDGES = [10.0**e for e in range(-4, 3)]


def _problem(n, d=8):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = torch.sin(x).sum(1, keepdim=True) + 0.1 * torch.randn(n, 1, generator=g, dtype=torch.float64)
    return x, y


def _selection():
    found = []
    for n, folds, word in ((60, LeaveOneOut(), "leave-one-out"), (800, 5, "5 folds")):
        x, y = _problem(n)

        def ours(x=x, y=y):
            gram = torch.exp(-torch.cdist(x, x).square() / 8)
            chosen = kernel_ridge.select_ridge(gram, y, RIDGES)
            dual = kernel_ridge.fit(gram, y, chosen.ridge)
            return float(chosen.ridge), (gram @ dual)[:, 0].numpy()

        def theirs(x=x, y=y, folds=folds):
            search = GridSearchCV(
                KernelRidge(kernel="rbf", gamma=1 / 8), {"alpha": RIDGES}, cv=folds, scoring="neg_mean_squared_error"
            ).fit(x.numpy(), y.numpy()[:, 0])
            return search.best_params_["alpha"], search.predict(x.numpy())

        def agree(a, b, exact=word == "leave-one-out"):
            # Five folds estimate what leave-one-out computes: a neighbouring ridge may win.
            assert abs(math.log10(a[0] / b[0])) < (0.01 if exact else 1.01), (a[0], b[0])
            if exact:
                np.testing.assert_allclose(a[1], b[1], rtol=1e-6, atol=1e-8)

        found.append(
            compare(
                "select_ridge (exact leave-one-out)",
                f"{n} points, {len(RIDGES)} ridges, Gaussian kernel, fit included",
                f"scikit-learn GridSearchCV of KernelRidge, {word}",
                sklearn.__version__,
                lambda ours=ours: timed(ours),
                lambda theirs=theirs: timed(theirs),
                agree,
                5,
            )
        )
    return found


def _features():
    x, _ = _problem(5000, 64)
    directions = gaussian_directions(1024, 64, generator=torch.Generator().manual_seed(0))
    phases = 2 * math.pi * torch.rand(1024, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = x[:200]
    exact = torch.exp(-torch.cdist(points, points).square() / 2 / 64)

    def ours():
        return fourier_features(x, directions, 8.0, phases=phases)

    def rbf():
        return RBFSampler(gamma=1 / 128, n_components=1024, random_state=0).fit(x.numpy()).transform(x.numpy())

    def nystroem():
        return Nystroem(gamma=1 / 128, n_components=1024, random_state=0).fit(x.numpy()).transform(x.numpy())

    def agree(a, b):
        for phi in (torch.as_tensor(a)[:200], torch.as_tensor(b)[:200]):
            assert float((phi @ phi.T - exact).square().mean().sqrt()) < 0.05

    return [
        compare(
            "fourier_features",
            "5000 points of dimension 64, 1024 features",
            f"scikit-learn {name}",
            sklearn.__version__,
            lambda: timed(ours),
            lambda peer=peer: timed(peer),
            agree,
            5,
        )
        for name, peer in (("RBFSampler", rbf), ("Nystroem", nystroem))
    ]


def _polynomials():
    found = []
    for n, p, degree in ((5000, 30, 2), (5000, 12, 4)):
        x = _problem(n, p)[0]
        found.append(
            compare(
                "polynomial_features",
                f"{n} points, {p} inputs, degree {degree}",
                "scikit-learn PolynomialFeatures",
                sklearn.__version__,
                lambda x=x, degree=degree: timed(lambda: polynomial_features(x, degree)),
                lambda x=x, degree=degree: timed(lambda: PolynomialFeatures(degree).fit_transform(x.numpy())),
                lambda a, b: np.testing.assert_allclose(a.numpy(), b, rtol=1e-10, atol=1e-12),
                5,
            )
        )
    return found


def _naive_neural_ucb(x, y, order, arms, width, strength, rate, seed):
    """One run: a forward and a backward pass an arm for its bound, then a gradient step on the arm played."""
    g = torch.Generator().manual_seed(seed)
    first = torch.randn(arms, width, x.shape[1], generator=g).requires_grad_(True)
    last = torch.randn(width, generator=g).requires_grad_(True)
    diagonal = [torch.ones_like(first), torch.ones_like(last)]
    mistakes = 0
    for t in order.tolist():
        scores, slopes = [], []
        for a in range(arms):
            f = (torch.relu(first[a] @ x[t]) @ last) / width**0.5
            gradient = torch.autograd.grad(f, (first, last))
            bonus = sum((v.square() / d).sum() for v, d in zip(gradient, diagonal)).sqrt()
            scores.append(float((torch.sigmoid(f) - strength * bonus).detach()))
            slopes.append(gradient)
        a = int(np.argmin(scores))
        loss = float(a != int(y[t]))
        mistakes += loss
        for d, v in zip(diagonal, slopes[a]):
            d += v.square()
        f = (torch.relu(first[a] @ x[t]) @ last) / width**0.5
        value = nn.functional.binary_cross_entropy_with_logits(f, torch.tensor(loss))
        steps = torch.autograd.grad(value, (first, last))
        with torch.no_grad():
            first -= rate * steps[0]
            last -= rate * steps[1]
    return mistakes


def _bandit():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 4
    x = nn.functional.normalize(torch.eye(4)[y].repeat(1, 8) + 0.7 * torch.randn(200, 32, generator=g), dim=1)
    order = torch.stack([classification_bandit(x, y, 200, seed=s) for s in range(10)])

    def ours():
        run = play_neural(
            x,
            y,
            order,
            arms=4,
            rule="neural_ucb",
            loss="kl",
            strength=torch.full((10,), 0.1),
            rate=torch.full((10,), 1.0),
            width=32,
        )
        return run.regret[-1].numpy()

    def theirs():
        return np.array([_naive_neural_ucb(x, y, order[s], 4, 32, 0.1, 1.0, s) for s in range(10)])

    def agree(a, b):
        # A rounding error may turn a single tie; the course after it differs.
        assert (a == b).mean() >= 0.7 and abs(a.mean() - b.mean()) < 5, (a, b)

    return [
        compare(
            "play_neural",
            "NeuralUCB, 10 runs of 200 rounds, 4 arms, width 32",
            "a loop over runs, rounds and arms with autograd",
            torch.__version__,
            lambda: timed(ours),
            lambda: timed(theirs),
            agree,
            3,
        )
    ]


def _nested(lam, n, k, ridge, steps=60):
    """The published pair of equations by nested bisection, all cells at once."""
    low, high = np.log(ridge / n), np.log((lam.sum() + ridge) / n) + 10
    for _ in range(steps):
        kappa = np.exp((low + high) / 2)
        a, b = np.full_like(n, -60.0), np.full_like(n, 60.0)
        for _ in range(steps):
            gamma = np.exp((a + b) / 2)
            gap = (lam / (lam + gamma[:, None])).sum(1) + ridge / kappa - n
            a, b = np.where(gap > 0, (a + b) / 2, a), np.where(gap > 0, b, (a + b) / 2)
        z = (lam / (lam + gamma[:, None])).sum(1)
        total = z + k * kappa / gamma - k
        low, high = np.where(total < 0, np.log(kappa), low), np.where(total < 0, high, np.log(kappa))
    return kappa


def _theory():
    g = np.random.default_rng(0)
    lam = np.arange(1, 2001) ** -1.5
    n, k = g.integers(20, 400, (2, 20)).astype(float)
    ridge = 10.0 ** g.uniform(-2, 0, 20)
    values = [torch.from_numpy(v) for v in (lam, n, ridge, k)]
    power = torch.arange(1, 2001, dtype=torch.float64) ** -1.3

    def ours():
        return eigenlearning.solve(values[0], None, values[1], values[2], values[3]).kappa.numpy()

    def monte_carlo():
        return simulate_random_features(
            values[0],
            power,
            128,
            256,
            torch.ones(1, dtype=torch.float64),
            noise=0.1,
            draws=20,
            generator=torch.Generator().manual_seed(0),
        ).mean()

    def closed():
        return eigenlearning.test_risk(values[0], None, power, 128, 1.0, noise=0.1, features=256)

    return [
        compare(
            "eigenlearning.solve",
            "20 cells of samples, features and ridge, 2000 modes",
            "nested bisection of the published equations, NumPy",
            np.__version__,
            lambda: timed(ours),
            lambda: timed(lambda: _nested(lam, n, k, ridge)),
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            3,
        ),
        compare(
            "eigenlearning.test_risk",
            "one cell, 2000 modes",
            "Monte Carlo, 20 draws",
            torch.__version__,
            lambda: timed(closed),
            lambda: timed(monte_carlo),
            lambda a, b: np.testing.assert_allclose(float(a), float(b), rtol=0.05),
            3,
        ),
    ]


def _ensembles():
    def ours():
        first, last, loss = train_ensemble(5, 256, 40, generator=torch.Generator().manual_seed(0))
        return float(loss.max()), float(
            ((torch.relu(first[:, :, :2].sum(2) / 10**0.5) * last[:, 0]).sum(1) / 16).mean()
        )

    def theirs():
        worst, outputs = 0.0, []
        torch.manual_seed(0)
        eye, rate = torch.eye(5), None
        for _ in range(40):
            w, v = torch.randn(256, 5).requires_grad_(True), torch.randn(5, 256).requires_grad_(True)
            if rate is None:
                u = 1 / (2 * math.pi)
                rate = 0.8 * 5 / (1 - u + 5 * u)
            for _ in range(100):
                out = torch.relu(eye @ w.T / 5**0.5) @ v.T / 16
                loss = (out - eye).square().sum() / 2
                for p, step in zip((w, v), torch.autograd.grad(loss, (w, v))):
                    p.data -= rate * step
            worst = max(worst, 2 * float(loss.detach()))
            x = torch.tensor([1.0, 1.0, 0, 0, 0]) / 2**0.5
            outputs.append(float((v @ torch.relu(w @ x / 5**0.5) / 16)[0].detach()))
        return worst, float(np.mean(outputs))

    law = bit_law(torch.tensor(5.0), torch.tensor(2.0))

    def agree(a, b):
        for loss, mean in (a, b):
            assert loss < 1e-6 and abs(mean - float(law.one)) < 5 * float(law.deviation) / 40**0.5

    return [
        compare(
            "train_ensemble",
            "40 networks of width 256 on 5 bits, 100 steps",
            "one network at a time with autograd",
            torch.__version__,
            lambda: timed(ours),
            lambda: timed(theirs),
            agree,
            3,
        )
    ]


def rows(_):
    """Comparisons of this file."""
    return _selection() + _features() + _polynomials() + _bandit() + _theory() + _ensembles()
