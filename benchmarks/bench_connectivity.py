"""Symmetries and barriers beside the loops that users write."""

from __future__ import annotations

import copy
import importlib.metadata
from functools import partial

import numpy as np
import torch
from harness import compare, timed
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.func import functional_call, jacrev, vmap

from netatlas.connectivity import (
    barrier_second_order,
    directional_curvature,
    functional_dimension,
    layer_groups,
    layerwise_barrier,
    random_direction_control,
    random_relu_layers,
)
from netatlas.connectivity.experiments import he_network
from netatlas.core.nn import MLP
from netatlas.core.symmetry import weight_matching
from netatlas.core.train import batch_order, fit_many, stack_members


def _close(a, b):
    torch.testing.assert_close(torch.as_tensor(a).double(), torch.as_tensor(b).double(), atol=2e-3, rtol=2e-2)


def _same(a, b):
    assert a == b, (a, b)


def _functional_dimension(widths):
    layers = random_relu_layers(widths, seed=0)
    parameters = sum(n * (m + 1) for m, n in zip(widths, widths[1:]))
    points = torch.randn(100 * parameters, widths[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    params = {f"{kind}{i}": v for i, pair in enumerate(layers) for kind, v in zip("wb", pair)}

    def output(p, x):
        for i in range(len(layers)):
            x = p[f"w{i}"] @ (torch.relu(x) if i else x) + p[f"b{i}"]
        return x

    def theirs():
        jacobian = vmap(jacrev(output), in_dims=(None, 0))(params, points)
        rows = torch.cat([part.flatten(2) for part in jacobian.values()], 2).flatten(0, 1)
        norms = rows.norm(dim=0)
        return int(torch.linalg.matrix_rank(rows / torch.where(norms > 0, norms, 1.0), rtol=1e-9))

    work = f"{'-'.join(map(str, widths))} ({parameters} parameters), {len(points)} inputs, float64"
    return compare(
        "functional_dimension", work, "torch.func.jacrev + matrix_rank", torch.__version__,
        lambda: timed(lambda: functional_dimension(layers, points).ranks[0]), lambda: timed(theirs), _same, 3,
    )  # fmt: skip


def _rebasin_loop(a, b, seed):
    """Git Re-Basin's coordinate descent as it is usually written: permutation matrices, one layer after the other."""
    weights = [[s[f"layers.{i}.weight"].double().numpy() for i in range(len(s) // 2)] for s in (a, b)]
    biases = [[s[f"layers.{i}.bias"].double().numpy() for i in range(len(s) // 2)] for s in (a, b)]
    sizes = [len(w) for w in weights[0][:-1]]
    orders = [np.eye(n) for n in sizes]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(100):
        changed = False
        for i in torch.randperm(len(sizes), generator=generator).tolist():
            before = orders[i - 1] if i else np.eye(weights[0][0].shape[1])
            after = orders[i + 1] if i + 1 < len(sizes) else np.eye(len(weights[0][-1]))
            gain = weights[1][i] @ (weights[0][i] @ before.T).T
            gain = gain + np.outer(biases[1][i], biases[0][i])
            gain = gain + weights[1][i + 1].T @ (after @ weights[0][i + 1])
            found = np.eye(sizes[i])[linear_sum_assignment(gain, maximize=True)[1]]
            better = (found * gain).sum() - (orders[i] * gain).sum()
            if better > 1e-9 * np.abs(gain).max():
                orders[i], changed = found, True
        if not changed:
            break
    return [order.argmax(1).tolist() for order in orders]


def _weight_matching(width, depth):
    nets = []
    for seed in range(2):
        torch.manual_seed(seed)
        net = he_network([784, *[width] * depth, 10])
        nets.append({name: value.detach() for name, value in net.named_parameters()})

    def ours():
        return [order.tolist() for order in weight_matching(*nets, seed=0).values()]

    work = f"{depth} hidden layers of {width}, 784 inputs"
    return compare(
        "weight_matching", work, "loop over permutation matrices (SciPy)", importlib.metadata.version("scipy"),
        lambda: timed(ours), lambda: timed(lambda: _rebasin_loop(*nets, 0)), _same, 3,
    )  # fmt: skip


def _pairs(count, widths):
    modules = []
    for seed in range(2 * count):
        torch.manual_seed(seed)
        modules.append(he_network(widths))
    return modules, *(stack_members(modules[i::2])[0] for i in range(2))


def _layerwise(count=3):
    modules, first, second = _pairs(count, [196, *[64] * 5, 10])
    x, y = torch.randn(500, 196), torch.randint(0, 10, (500,))
    groups = layer_groups(list(first))

    def ours():
        found = layerwise_barrier(modules[0], first, second, x, y)
        random_direction_control(modules[0], first, second, x, y, draws=5)
        return found.loss.flatten().tolist()

    @torch.no_grad()
    def evaluated(net):
        total = 0.0
        for rows in torch.arange(500).split(64):
            total += float(nn.functional.cross_entropy(net(x[rows]), y[rows], reduction="sum"))
        return total / 500

    def theirs():
        table = torch.zeros(2, len(groups), count, dtype=torch.float64)
        for m in range(count):
            nets = modules[2 * m], modules[2 * m + 1]
            level = sum(evaluated(net) for net in nets) / 2
            for side in range(2):
                a, b = nets[side], nets[1 - side]
                for i, names in enumerate(groups.values()):
                    net = copy.deepcopy(a)
                    state = {k: (v + b.state_dict()[k]) / 2 if k in names else v for k, v in a.state_dict().items()}
                    net.load_state_dict(state)
                    table[side, i, m] = evaluated(net) - level
                    for _ in range(5):
                        noise = {k: torch.randn_like(v) for k, v in a.state_dict().items() if k in names}
                        net.load_state_dict({k: v + 0.01 * noise.get(k, 0) for k, v in a.state_dict().items()})
                        evaluated(net)
        return table.flatten().tolist()

    work = f"{count} pairs of six layers, both sides, five random directions a layer, 500 inputs of 196"
    return compare(
        "layerwise_barrier", work, "one state_dict and data pass a point", torch.__version__,
        lambda: timed(ours), lambda: timed(theirs), _close, 3,
    )  # fmt: skip


def _second_order(count=28):
    modules, first, second = _pairs(count, [64, 32, 32, 10])
    x, y = torch.randn(500, 64), torch.randint(0, 10, (500,))

    def ours():
        found = directional_curvature(modules[0], first, second, x, y, groups={})
        return barrier_second_order(found, gradient=False).argsort().tolist()

    def theirs():
        found = []
        for m in range(count):
            ends = [{k: v[m] for k, v in side.items()} for side in (first, second)]
            d = {k: ends[1][k] - ends[0][k] for k in ends[0]}
            total = 0.0
            for end in ends:
                leaves = {k: v.clone().requires_grad_(True) for k, v in end.items()}
                loss = nn.functional.cross_entropy(functional_call(modules[0], leaves, (x,)), y)
                slope = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
                along = sum((g * v).sum() for g, v in zip(slope, d.values()))
                product = torch.autograd.grad(along, list(leaves.values()))
                total += float(sum((h * v).sum() for h, v in zip(product, d.values())))
            found.append(total / 16)
        return torch.tensor(found).argsort().tolist()

    work = f"curvature along {count} lines at both ends, 500 inputs of 64"
    return compare(
        "directional_curvature", work, "loop over pairs, double backward", torch.__version__,
        lambda: timed(ours), lambda: timed(theirs), _same, 3,
    )  # fmt: skip


def _ensemble(members=32):
    x, y = torch.randn(1024, 64), torch.randint(0, 10, (1024,))
    build = partial(MLP, [64, 64, 64, 64, 10], activation="gelu")

    def ours():
        trained = fit_many(
            build,
            x,
            y,
            seeds=list(range(members)),
            epochs=6,
            batch_size=64,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.03,
        )
        return trained.trace[-1].tolist()

    def theirs():
        found = []
        for seed in range(members):
            torch.manual_seed(seed)
            net = build()
            optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.03)
            for order in batch_order(seed, len(x), 6):
                for rows in order.split(64):
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
                    loss.backward()
                    optimizer.step()
            found.append(float(loss.detach()))
        return found

    work = f"{members} members of width 64, 96 steps of 64"
    return compare(
        "fit_many", work, "one run a member (torch.optim.AdamW)", torch.__version__,
        lambda: timed(ours), lambda: timed(theirs), _close, 3,
    )  # fmt: skip


def rows(_):
    """Comparisons of this file."""
    return [
        _functional_dimension((5, 10, 10, 1)),
        _functional_dimension((5, 15, 15, 1)),
        _weight_matching(128, 4),
        _weight_matching(512, 3),
        _layerwise(),
        _second_order(),
        _ensemble(),
    ]
