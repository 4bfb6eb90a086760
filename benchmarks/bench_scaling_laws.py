"""The scaling-law kernels beside what a user would write: a fit a sample, a solve a mixture, a step a time."""

from __future__ import annotations

import importlib.metadata

import mpmath
import numpy as np
import ot
import scipy
import torch
from harness import compare, timed
from scipy.optimize import curve_fit, least_squares
from torch.nn import functional as F

from netatlas import data
from netatlas.core.power_law import fit_power_law
from netatlas.scaling_laws import (
    arc_cosine_network,
    fit_routed_law,
    grouped_expert_mlp,
    mixture_grid,
    mixture_transport,
    nested_kernel_regression,
    power_law_spectrum,
    saturating_expert_count,
    simulate_flow,
    sphere,
    talbot_nodes,
)
from netatlas.scaling_laws.experiments import routed_runs

STARTS = [(u, v) for u in np.log([1.0, 2.0, 4.0, 8.0]) for v in np.log([10.0, 40.0, 150.0, 600.0])]


def _bootstrap():
    generator = np.random.default_rng(0)
    x = np.geomspace(10, 1e5, 24)
    y = (0.1 + 3 * x**-0.7) * np.exp(0.03 * generator.standard_normal(24))
    samples = 200

    def law(log_x, scale, exponent, floor):
        return np.logaddexp(scale - exponent * log_x, floor)

    def theirs():
        draws = np.random.default_rng(0).integers(24, size=(samples, 24))
        start = list(fit_power_law(x, y, form="saturating").values.values())
        options = {"p0": start, "method": "trf", "loss": "huber", "f_scale": 0.01}
        return [curve_fit(law, np.log(x[d]), np.log(y[d]), **options)[0][1] for d in draws]

    def agree(a, b):
        assert abs(np.median(a) - np.median(b)) < 0.02

    return compare(
        "fit_power_law",
        f"24 points, power law with a floor, Huber loss, {samples} bootstrap samples",
        "scipy.optimize.curve_fit for each sample",
        scipy.__version__,
        lambda: timed(lambda: fit_power_law(x, y, form="saturating", bootstrap=samples).samples["exponent"]),
        lambda: timed(theirs),
        agree,
        5,
    )


def _routed():
    size, experts, loss = routed_runs(data.load("routed_scaling", stand_in=data.routed_curves))["Hash"]

    def residual(t):
        count = saturating_expert_count(experts, np.exp(t[4]), np.exp(t[4]) * (1 + np.exp(t[5])))
        n, e = np.log10(size), np.log10(count)
        return t[0] * n + t[1] * e + t[2] * n * e + t[3] - np.log10(loss)

    def theirs():
        found = [least_squares(residual, [-0.1, -0.1, 0.0, 1.0, u, v], method="lm", max_nfev=5000) for u, v in STARTS]
        return min(found, key=lambda f: f.cost)

    def agree(law, peer):
        assert law.rmse <= np.sqrt(2 * peer.cost / len(size)) * (1 + 1e-4)

    return compare(
        "fit_routed_law",
        f"{len(size)} runs, six parameters, {len(STARTS)} starts",
        "scipy.optimize.least_squares (MINPACK) for each start",
        scipy.__version__,
        lambda: timed(lambda: fit_routed_law(size, experts, loss)),
        lambda: timed(theirs),
        agree,
    )


def _transport():
    generator = np.random.default_rng(0)
    points = np.concatenate([generator.normal(c, 1, (170, 20)) for c in (-0.3, 0.0, 0.3)])
    cost = ot.dist(points, generator.normal(0.1, 1, (500, 20)), metric="euclidean")
    source, grid = np.repeat([0, 1, 2], 170), mixture_grid(3, 10)
    strength = 0.05 * cost.mean()
    uniform = np.full(500, 1 / 500)
    masses = [p[source] / 170 for p in grid]

    def sinkhorn():
        values = []
        for a in masses:
            kept = a > 0
            options = {"stopThr": 1e-9, "numItermax": 5000}
            plan = ot.sinkhorn(a[kept], uniform, cost[kept], strength, **options)
            values.append(float((plan * cost[kept]).sum()))
        return np.array(values)

    def same(a, b):
        assert np.allclose(a, b, rtol=1e-5)

    def near(a, b):
        assert (a >= b - 1e-9).all() and np.corrcoef(a, b)[0, 1] > 0.95

    def ours():
        return mixture_transport(cost, source, grid, regularization=strength).transport

    return [
        compare(
            "mixture_transport",
            "66 mixtures of 510 points to 500 points, with gradients; the peer without",
            f"POT {name}",
            ot.__version__,
            lambda: timed(ours),
            lambda call=call: timed(call),
            check,
            3,
        )
        for name, call, check in (
            ("ot.sinkhorn in a loop", sinkhorn, same),
            ("ot.emd2 in a loop (exact)", lambda: np.array([ot.emd2(a, uniform, cost) for a in masses]), near),
        )
    ]


def _experts():
    torch.manual_seed(0)
    found = []
    for count in (16, 64):
        tokens, dim, hidden = 4096, 64, 64
        x, chosen = torch.randn(tokens, dim), torch.randint(count, (tokens,))
        weights = [torch.randn(count, dim, hidden) / 8, torch.randn(count, hidden), torch.randn(count, hidden, dim) / 8]

        def gradients(call, weights=weights):
            leaves = [w.clone().requires_grad_() for w in weights]
            out = call(*leaves)
            out.square().mean().backward()
            return [out.detach(), *(leaf.grad for leaf in leaves)]

        def loop(up, bias, down, x=x, chosen=chosen, count=count):
            out = torch.zeros_like(x)
            for e in range(count):
                mask = chosen == e
                out[mask] = F.relu(x[mask] @ up[e] + bias[e]) @ down[e]
            return out

        def grouped(up, bias, down, x=x, chosen=chosen):
            return grouped_expert_mlp(x, chosen, up, bias, down)

        def agree(a, b):
            for one, other in zip(a, b):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)

        found.append(
            compare(
                "grouped_expert_mlp",
                f"{tokens} tokens, {count} experts of {dim} to {hidden}, forward and backward",
                "a masked loop over experts",
                torch.__version__,
                lambda grouped=grouped, gradients=gradients: timed(lambda: gradients(grouped)),
                lambda loop=loop, gradients=gradients: timed(lambda: gradients(loop)),
                agree,
                9,
            )
        )
    return found


def _flow():
    spectrum, width, times = power_law_spectrum(1.5, 1.25, features=2000), 64, [4.0, 40.0, 400.0]

    def theirs():
        generator = torch.Generator().manual_seed(0)
        root, start = (torch.from_numpy(np.sqrt(v)) for v in (spectrum.eigenvalues, spectrum.power))
        b = torch.randn(1, width, 2000, generator=generator, dtype=torch.float64)[0] * root / width**0.5
        weights, rate, losses = torch.zeros(width, dtype=torch.float64), 0.04, []
        target = b @ start
        for step in range(1, 10_001):
            weights = weights + rate * (target - b @ (b.mT @ weights))
            if step in (100, 1000, 10_000):
                losses.append(float(((start - b.mT @ weights) ** 2).sum()))
        return losses

    def agree(a, b):
        assert np.allclose(a[0].numpy(), b, rtol=0.02)

    return compare(
        "simulate_flow",
        "width 64, 2000 features, time 400",
        "10,000 explicit gradient steps",
        torch.__version__,
        lambda: timed(lambda: simulate_flow(spectrum, width, times, draws=1, seed=0)),
        lambda: timed(theirs),
        agree,
        3,
    )


def _inverse():
    times = np.geomspace(0.1, 100, 20)

    def ours():
        points, weights = talbot_nodes(times)
        return (weights * np.exp(-np.sqrt(points)) / points).real.sum(1)

    def theirs():
        call = lambda s: mpmath.exp(-mpmath.sqrt(s)) / s  # noqa: E731
        return np.array([float(mpmath.invertlaplace(call, t, method="talbot")) for t in times])

    def agree(a, b):
        assert np.allclose(a, b, atol=1e-8)

    return compare(
        "talbot_nodes",
        "20 times, to eight digits",
        "mpmath.invertlaplace",
        importlib.metadata.version("mpmath"),
        lambda: timed(ours),
        lambda: timed(theirs),
        agree,
    )


def _nested():
    generator = torch.Generator().manual_seed(0)
    x, sizes = sphere(2500, 4, generator), list(range(100, 2001, 100))
    kernel = arc_cosine_network().kernel(x)
    gram, cross = kernel[:2000, :2000], kernel[2000:, :2000]
    y = torch.randn(2000, 1, generator=generator, dtype=torch.float64)
    shift = 1e-6 * float(gram.diagonal().mean())

    def theirs():
        eye = shift * torch.eye(2000, dtype=torch.float64)
        parts = []
        for n in sizes:
            factor = torch.linalg.cholesky(gram[:n, :n] + eye[:n, :n])
            parts.append((cross[:, :n] @ torch.cholesky_solve(y[:n], factor)).mT)
        return torch.stack(parts)

    def agree(a, b):
        assert torch.allclose(a, b, atol=1e-5)

    return compare(
        "nested_kernel_regression",
        "learning curve of 20 sizes up to 2000, 500 tests",
        "a Cholesky solve for each size",
        torch.__version__,
        lambda: timed(lambda: nested_kernel_regression(gram, cross, y, sizes, ridge=1e-6).predictions),
        lambda: timed(theirs),
        agree,
        5,
    )


def rows(_):
    """Comparisons of this file."""
    return [_bootstrap(), _routed(), *_transport(), *_experts(), _flow(), _inverse(), _nested()]
