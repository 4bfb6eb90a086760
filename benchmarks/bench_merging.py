"""The merging kernels beside what a user would write: loops over layers, backward calls, a pseudo-inverse."""

from __future__ import annotations

import numpy as np
import ot
import scipy
import torch
from harness import compare, timed
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from netatlas.core.nn import MLP, ConvNet
from netatlas.merging import (
    ResidualMLP,
    StitchableNetwork,
    block_features,
    diagonal_fisher,
    fuse,
    initialize_stitches,
    least_squares_stitch,
    mlp_diagonal_fisher,
    stitching_space,
)


def _networks(widths):
    """Two networks that share structure, as two trained ones do: a common part, noise, another order of neurons."""
    torch.manual_seed(0)
    first, second = MLP(widths), MLP(widths)
    with torch.no_grad():
        order = None
        for number, (a, b) in enumerate(zip(first.layers, second.layers)):
            weight = a.weight if order is None else a.weight[:, order]
            rows = torch.randperm(len(weight)) if number + 1 < len(first.layers) else torch.arange(len(weight))
            b.weight.copy_(0.7 * weight[rows] + 0.7 * b.weight)
            b.bias.copy_(0.7 * a.bias[rows] + 0.7 * b.bias)
            order = rows
    return [{k: v.detach() for k, v in net.state_dict().items()} for net in (first, second)]


def _pot_loop(a, b):
    """Layer by layer with ot.dist and ot.emd, columns first; the two networks are averaged at the end."""
    layers, columns, fused = len(a) // 2, None, {}
    for layer in range(layers):
        weight, bias = f"layers.{layer}.weight", f"layers.{layer}.bias"
        own = a[weight].numpy().astype(np.float64)
        own_bias = a[bias].numpy().astype(np.float64)
        other, other_bias = b[weight].numpy().astype(np.float64), b[bias].numpy().astype(np.float64)
        if columns is not None:
            own = own @ columns
        if layer + 1 < layers:
            cost = ot.dist(np.c_[own, own_bias], np.c_[other, other_bias], metric="euclidean")
            plan = ot.emd(ot.unif(len(own)), ot.unif(len(other)), cost, numItermax=10_000_000)
            columns = plan * len(other)
            own, own_bias = columns.T @ own, columns.T @ own_bias
        fused[weight] = torch.from_numpy((own + other) / 2).float()
        fused[bias] = torch.from_numpy((own_bias + other_bias) / 2).float()
    return fused


def _assignment_loop(a, b):
    """The same with a linear assignment a layer: squared distances rank permutations as inner products do."""
    layers, order, fused = len(a) // 2, None, {}
    for layer in range(layers):
        weight, bias = f"layers.{layer}.weight", f"layers.{layer}.bias"
        own, own_bias = a[weight].numpy().astype(np.float64), a[bias].numpy().astype(np.float64)
        other, other_bias = b[weight].numpy().astype(np.float64), b[bias].numpy().astype(np.float64)
        if order is not None:
            own = own[:, order]
        if layer + 1 < layers:
            x, y = np.c_[own, own_bias], np.c_[other, other_bias]
            squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
            row, column = linear_sum_assignment(np.sqrt(np.maximum(squares, 0)))
            order = np.empty(len(row), np.int64)
            order[column] = row
            own, own_bias = own[order], own_bias[order]
        fused[weight] = torch.from_numpy((own + other) / 2).float()
        fused[bias] = torch.from_numpy((own_bias + other_bias) / 2).float()
    return fused


def _same(a, b):
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


def _fusion():
    found = []
    for width in (256, 1024):
        a, b = _networks([784, width, width, width, 10])
        work = f"MLP 784, 3 x {width}, 10: weights, exact transport"
        peers = (
            ("loop of ot.dist and ot.emd", ot.__version__, _pot_loop),
            ("loop of linear_sum_assignment", scipy.__version__, _assignment_loop),
        )
        for peer, version, loop in peers:
            found.append(
                compare(
                    "fuse",
                    work,
                    peer,
                    version,
                    lambda a=a, b=b: timed(lambda: fuse([a, b])),
                    lambda a=a, b=b, loop=loop: timed(lambda: loop(a, b)),
                    _same,
                    25 if width < 1000 else 5,
                )
            )
    return found


def _fisher_loop(model, inputs):
    """One backward call an example and class, as in the paper's official code."""
    total = [torch.zeros_like(p) for p in model.parameters()]
    for x in inputs:
        logs = F.log_softmax(model(x[None]), -1)[0]
        for k, log in enumerate(logs):
            grads = torch.autograd.grad(log, list(model.parameters()), retain_graph=k + 1 < len(logs))
            for sum_, g in zip(total, grads):
                sum_.add_(g**2, alpha=float(log.detach().exp()))
    return {name: value / len(inputs) for (name, _), value in zip(model.named_parameters(), total)}


def _fisher():
    torch.manual_seed(0)
    dense, convolutional = MLP([784, 128, 64, 10]).eval(), ConvNet([16, 32, 64], 10, in_channels=1).eval()
    vectors, images = torch.randn(1000, 784), torch.randn(200, 1, 28, 28)
    state = {k: v.detach() for k, v in dense.named_parameters()}

    def agree(a, b):
        for name in b:
            torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-3)

    work = "MLP 784-128-64-10, 1000 examples, 10 classes"
    cases = [
        ("mlp_diagonal_fisher", work, dense, vectors, lambda: mlp_diagonal_fisher(state, vectors)),
        ("diagonal_fisher", work, dense, vectors, lambda: diagonal_fisher(dense, vectors)),
        (
            "diagonal_fisher",
            "convolutions of 16, 32, 64 channels, 200 images 28 x 28, 10 classes",
            convolutional,
            images,
            lambda: diagonal_fisher(convolutional, images),
        ),
    ]
    return [
        compare(
            kernel,
            work,
            "loop of torch backward calls",
            torch.__version__,
            lambda run=run: timed(run),
            lambda model=model, inputs=inputs: timed(lambda: _fisher_loop(model, inputs)),
            agree,
            3,
        )
        for kernel, work, model, inputs, run in cases
    ]


def _stitch():
    found = []
    for width_a, width_b in ((192, 384), (384, 768)):
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(20_000, width_a, generator=generator) @ torch.randn(width_a, width_a, generator=generator)
        b = torch.tanh(a @ torch.randn(width_a, width_b, generator=generator) / width_a)

        def solve(solver, dtype, a=a, b=b):
            x = torch.cat([a, torch.ones(len(a), 1)], 1).to(dtype)
            y = b.to(dtype)
            solution = torch.linalg.pinv(x) @ y if solver == "pinv" else torch.linalg.lstsq(x, y).solution
            return solution[:-1].T.float(), solution[-1].float()

        def agree(ours, theirs, a=a, b=b):
            residuals = [float((a @ w.T + c - b).square().mean()) for w, c in (ours, theirs)]
            assert abs(residuals[0] / residuals[1] - 1) < 1e-3, residuals

        for solver, precision, dtype in (
            ("pinv", "single", torch.float32),
            ("pinv", "double", torch.float64),
            ("lstsq", "single", torch.float32),
        ):
            found.append(
                compare(
                    "least_squares_stitch",
                    f"20000 samples, {width_a} to {width_b} features; ours in double precision",
                    f"torch.linalg.{solver}, {precision} precision",
                    torch.__version__,
                    lambda a=a, b=b: timed(lambda: least_squares_stitch(a, b)),
                    lambda solve=solve, solver=solver, dtype=dtype: timed(lambda: solve(solver, dtype)),
                    agree,
                    3,
                )
            )
    return found


@torch.no_grad()
def _pinv_stitches(network, inputs):
    """A pseudo-inverse for every hand-over, then the mean of those that share a layer."""
    streams = [block_features(anchor, inputs) for anchor in network.anchors]
    found = {name: [] for name in network.stitches}
    for item in network.configurations:
        if not item.is_anchor:
            a, b = streams[item.first][item.block + 1], streams[item.second][item.resume]
            solution = torch.linalg.pinv(torch.cat([a, torch.ones(len(a), 1)], 1)) @ b
            found[item.layer].append(solution)
    return {name: torch.stack(parts).mean(0) for name, parts in found.items()}


def _initialization():
    torch.manual_seed(0)
    anchors = [ResidualMLP(784, width, 6, 10) for width in (96, 192)]
    network = StitchableNetwork(anchors, stitching_space([6, 6]))
    inputs = torch.randn(4000, 784)
    layers = sum(not item.is_anchor for item in network.configurations)

    def ours():
        seconds, _ = timed(lambda: initialize_stitches(network, inputs))
        return seconds, {
            k: torch.cat([v.weight.detach().T, v.bias.detach()[None]]) for k, v in network.stitches.items()
        }

    def agree(a, b):
        for name in b:
            torch.testing.assert_close(a[name], b[name], atol=1e-3, rtol=1e-3)

    return [
        compare(
            "initialize_stitches",
            f"two anchors of 6 blocks, widths 96 and 192, {layers} hand-overs, 4000 samples",
            "torch.linalg.pinv for every hand-over",
            torch.__version__,
            ours,
            lambda: timed(lambda: _pinv_stitches(network, inputs)),
            agree,
            5,
        )
    ]


def rows(_):
    """Comparisons of this file."""
    return _fusion() + _fisher() + _stitch() + _initialization()
