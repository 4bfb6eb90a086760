"""Kernels of wide networks beside neural-tangents and torch.func's recipe, samplers beside brute force."""

from __future__ import annotations

import functools

import numpy as np
import torch
from harness import compare, grow, timed
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct
from torch.func import jacrev, vmap

from netatlas.core.empirical_ntk import empirical_ntk
from netatlas.core.infinite import Conv, Dense, GlobalAvgPool, Relu, serial
from netatlas.wide_kernels import (
    circle_patches,
    conditional_coefficients,
    deep_kernel_table,
    dirichlet_sphere,
    hierarchical_kernel,
    kernel_vote,
    process_posterior,
    sample_scales,
    singular_dual,
)
from netatlas.wide_kernels.deep_classifiers import DIRICHLET_PAIRS
from netatlas.wide_kernels.effective_theory import CLASSES

BOTH = ("nngp", "ntk")
LAYERS = {"dense": "dense", "pooled": "3 x 3 convolutions, pooled"}
METHODS = {1: "Jacobian contraction", 2: "NTK-vector products", 3: "structured derivatives"}


def _draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def _net(kind, depth):
    if kind == "dense":
        layers = [layer for _ in range(depth) for layer in (Dense(1, 2**0.5, 0.1), Relu())]
    else:
        layers = [layer for _ in range(depth) for layer in (Conv(1, 2**0.5, 0.1), Relu())] + [GlobalAvgPool()]
    return serial(*layers, Dense(1, 1.0, 0.1))


def _close(tolerance):
    def agree(a, b):
        for mine, other in zip(a, b):
            scale = np.abs(other).max()
            assert np.abs(np.asarray(mine) - other).max() < tolerance * scale, np.abs(np.asarray(mine) - other).max()

    return agree


def _limits(peers):
    version = peers.version("neural-tangents")
    dense, images = _draw(2000, 64), _draw(1000, 3, 4, 4)
    cases = [
        ("dense", 3, dense[:1000], None, None, "float64, Gram of 1000 x 1000"),
        ("dense", 3, dense[:1000], dense[1000:], None, "float64, 1000 x 1000 different points"),
        ("dense", 3, dense[:1000].float(), dense[1000:].float(), None, "float32, 1000 x 1000 different points"),
        ("dense", 3, dense, None, None, "float64, Gram of 2000 x 2000"),
        ("pooled", 2, images, None, 20, "float64, Gram of 1000 x 1000 images 4 x 4 x 3"),
        ("pooled", 2, images.float(), None, 20, "float32, Gram of 1000 x 1000 images 4 x 4 x 3"),
    ]
    found = []
    for kind, depth, x, y, rows, words in cases:
        net, precise = _net(kind, depth), x.dtype == torch.float64
        other = None if y is None else y.numpy()
        found.append(
            compare(
                "kernel",
                f"NNGP and NTK, {depth} ReLU layers, {LAYERS[kind]}: {words}",
                "neural-tangents",
                version,
                lambda net=net, x=x, y=y: timed(lambda: net.kernel(x, y, get=BOTH, dtype=x.dtype)),
                lambda k=kind, d=depth, x=x, y=other, r=rows: peers.call(
                    "nt_kernel", kind=k, depth=d, x=x.numpy(), y=y, get=BOTH, rows=r
                ),
                _close(1e-7 if precise else 2e-3),
                7 if kind == "dense" else 2,
            )
        )
    return found


def _recipe(params, x, trace):
    """torch.func's tutorial: both Jacobians, then a contraction."""

    def one(p, point):
        for i, w in enumerate(p):
            point = point @ w.mT * (2 / w.shape[1]) ** 0.5
            point = torch.relu(point) if i + 1 < len(p) else point
        return point

    jacobians = [j.flatten(2) for j in vmap(jacrev(one), (None, 0))(params, x)]
    equation = "Nap,Map->NM" if trace else "Nap,Mbp->NMab"
    total = sum(torch.einsum(equation, j, j) for j in jacobians)
    return total / len(params[-1]) if trace else total


def _empirical(peers):
    version = peers.version("neural-tangents")
    found = []
    cases = [
        ((512, 512, 10), 300, False, 5, (3,)),
        ((512, 512, 10), 300, True, 7, (3,)),
        ((1024, 1024, 1024, 1), 200, False, 7, (1, 3)),
        ((128, 128, 10), 100, False, 5, (1, 2)),
    ]
    for widths, n, trace, repetitions, implementations in cases:
        net = serial(*[la for w in widths[:-1] for la in (Dense(w, 2**0.5), Relu())], Dense(widths[-1], 2**0.5))
        model, x = net.module((64,), seed=0), _draw(n, 64, dtype=torch.float32)
        weights = [p.detach() for p in model.parameters()]
        outputs = "trace" if trace else "full"
        name = "mean over outputs" if trace else "all outputs"
        work = f"dense 64-{'-'.join(map(str, widths))}, {n} points, {name}, float32"
        alike = trace or widths[-1] == 1

        def ours(model=model, x=x, outputs=outputs):
            seconds, kernel = timed(lambda: empirical_ntk(model, x, outputs=outputs))
            return seconds, [kernel.numpy()]

        for implementation in implementations:
            words = METHODS[implementation]
            # With one product of cotangents a layer little is left to save: passes through the network dominate.
            passes = " (forward and backward passes, left to BLAS by both, are two thirds)" if alike else ""
            done = work + passes if implementation == 3 else work

            def theirs(widths=widths, weights=weights, x=x, implementation=implementation, trace=trace):
                seconds, kernel = peers.call(
                    "nt_empirical", widths=widths, weights=[w.numpy() for w in weights], x=x.numpy(),
                    implementation=implementation, trace=trace,
                )  # fmt: skip
                return seconds, [kernel]

            found.append(
                compare(
                    "empirical_ntk", done, f"neural-tangents, {words}", version, ours, theirs, _close(1e-4), repetitions
                )
            )
        if n * widths[-1] * sum(w.numel() for w in weights) < 1.5e9:

            def plain(weights=weights, x=x, trace=trace):
                seconds, kernel = timed(lambda: _recipe(weights, x, trace))
                return seconds, [kernel.numpy()]

            found.append(
                compare(
                    "empirical_ntk", work, "torch.func Jacobian recipe", torch.__version__, ours, plain, _close(1e-4), 2
                )
            )
    return found


def _samplers():
    """The chapter's estimators at equal standard error: seconds are scaled to the same precision."""

    def conditional():
        def run():
            h = torch.relu(torch.randn(100_000, 16, generator=torch.Generator().manual_seed(1)))
            return conditional_coefficients(h, 0.5, {"Gaussian": 3.0}).c4["Gaussian"]

        seconds, c4 = timed(run)
        return seconds * float(c4.var()) / len(c4) * 1e6, float(c4.mean())

    def direct():
        def run():
            generator = np.random.default_rng(1)
            h, v = (generator.standard_normal((100_000, 16), np.float32) for _ in range(2))
            u = (np.maximum(h, 0) * v).sum(1, dtype=np.float64) / np.sqrt(8)
            return (u**4 - 6 * u**2 + 3) / 24

        seconds, c4 = timed(run)
        return seconds * c4.var() / len(c4) * 1e6, c4.mean()

    def near(a, b):
        assert abs(a - 0.625 / 16) < 0.003 and abs(b - 0.625 / 16) < 0.02, (a, b)

    def row_iid():
        generator = torch.Generator().manual_seed(2)
        seconds, scales = timed(lambda: sample_scales(CLASSES["ReLU"], 2.0, 128, 32, 200, generator=generator))
        return seconds, scales[-1].double().log().numpy()

    def whole():
        generator = torch.Generator().manual_seed(3)

        def run():
            z = torch.randn(200, 128, generator=generator)
            for _ in range(30):
                w = torch.randn(200, 128, 128, generator=generator)
                z = torch.bmm(w, torch.relu(z)[..., None])[..., 0] * (2 / 128) ** 0.5
            return 2 * torch.relu(z).square().mean(1)

        seconds, scales = timed(run)
        return seconds, scales.double().log().numpy()

    def same_law(a, b):
        assert stats.ks_2samp(a, b).pvalue > 1e-3

    return [
        compare(
            "conditional_coefficients", "c4 of 16 ReLU units, seconds for a standard error of 0.001",
            "NumPy, whole networks",
            np.__version__, conditional, direct, near, 7,
        ),
        compare(
            "sample_scales", "200 ReLU networks of width 128 and depth 32", "torch, all weight matrices",
            torch.__version__,
            row_iid, whole, same_law, 5,
        ),
    ]  # fmt: skip


def _unfolded(x, filters):
    """The recursion with five-dimensional arrays and both arc-cosine functions computed apart."""
    c = torch.einsum("ips,jps->ijp", x, x).clamp(-1, 1)
    n = c
    for layer in range(len(filters)):
        group = filters[layer + 1] if layer + 1 < len(filters) else c.shape[-1]
        slope = (torch.pi - torch.acos(c)) / torch.pi
        r = ((1 - c**2).clamp_min(0).sqrt() + (torch.pi - torch.acos(c)) * c) / torch.pi
        fold = (*c.shape[:2], -1, group)
        r, n = r.reshape(fold).mean(-1), (slope * n).reshape(fold).mean(-1)
        n, c = n + r, r
    return n[..., 0]


def _classifiers():
    patches = circle_patches(2000, 4, seed=0)
    train = dirichlet_sphere(*DIRICHLET_PAIRS[2], 4000, seed=0)
    exam = dirichlet_sphere(*DIRICHLET_PAIRS[2], 1000, seed=1)
    dual, xi = singular_dual(2.0), train.points @ exam.points.mT

    def iterated():
        k = xi
        for _ in range(100):
            k = (k**3 + k) / 2
        return torch.sign(train.labels @ k)

    def same_votes(a, b):
        assert float((a == b).double().mean()) > 0.999

    x, y = _draw(500, 8), _draw(500)
    gram = x @ x.mT + 1.0 + 0.1 * torch.eye(500)
    cross, own = _draw(100, 8) @ x.mT + 1.0, _draw(100, 8).square().sum(1) + 1.0

    def process():
        found = process_posterior(gram, cross, own, y, shape=2.0, scale=2.0)
        return [found.mean.numpy()]

    def gaussian():
        peer = GaussianProcessRegressor(DotProduct(1.0), alpha=0.1, optimizer=None).fit(x.numpy(), y.numpy())
        return [peer.predict(_draw(100, 8).numpy(), return_std=True)[0]]

    return [
        compare(
            "hierarchical_kernel", "Gram of 2000 inputs of dimension 8, filters 2, 2, 2",
            "torch, five-dimensional arrays",
            torch.__version__, lambda: timed(lambda: [hierarchical_kernel(patches, patches, (2, 2, 2)).numpy()]),
            lambda: timed(lambda: [_unfolded(patches, (2, 2, 2)).numpy()]), _close(1e-6), 5,
        ),
        compare(
            "deep_kernel_table", "4000 x 1000 points, depth 100, table included", "torch, depth passes over the matrix",
            torch.__version__, lambda: timed(lambda: kernel_vote(deep_kernel_table(dual, 100)(xi), train.labels)[0]),
            lambda: timed(iterated), same_votes, 3,
        ),
        compare(
            "process_posterior", "t-process, 500 training and 100 test points, from the Gram matrix",
            "scikit-learn GaussianProcessRegressor", _sklearn(), lambda: timed(process), lambda: timed(gaussian),
            _close(1e-6), 7,
        ),
    ]  # fmt: skip


@functools.cache
def _sklearn():
    import sklearn

    return sklearn.__version__


def rows(peers):
    """Comparisons of this file."""
    return _limits(peers) + _empirical(peers) + _samplers() + _classifiers()


def growth():
    """Time against the number of points."""

    def prepare(n):
        x, net = _draw(int(n), 64), _net("dense", 3)
        return lambda: net.kernel(x, get=BOTH)

    return [grow("kernel", "points", [500, 1000, 2000, 4000], prepare)]
