"""The family portrait: one data set, every kernel of the chapter, and the finite networks that they are limits of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.empirical_ntk import empirical_ntk
from netatlas.core.infinite import AvgPool, Conv, Dense, Flatten, GlobalAvgPool, Relu, serial
from netatlas.core.kernel_ridge import fit, select_ridge

from .deep_classifiers import deep_kernel_table, singular_dual
from .linearized import descend, tangent_mlp

RIDGES = [10.0**k for k in range(-6, 1)]


class Portrait(NamedTuple):
    """Finite arms ``[widths, seeds]``; limits, their alignment and cost by name; cost of finite arms ``[widths]``.

    Costs are multiply-adds to predict one new example.
    """

    widths: list[int]
    accuracy: dict[str, Float[Tensor, "widths seeds"]]
    alignment: dict[str, Float[Tensor, "widths seeds"]]
    cost: dict[str, list[int]]
    limits: dict[str, float]
    limit_alignment: dict[str, float]
    limit_cost: dict[str, int]


def alignment(gram: Float[Tensor, "n n"], labels: Int[Tensor, " n"]) -> float:
    r"""Centred alignment of a kernel with the labels' kernel, :math:`\langle \bar K, \bar Y \rangle / \lVert\bar
    K\rVert \lVert\bar Y\rVert`.

    Args:
        gram: Kernel.
        labels: Classes.
    """
    same = (labels[:, None] == labels[None]).to(gram.dtype)
    a, b = (m - m.mean(0) - m.mean(1, keepdim=True) + m.mean() for m in (gram, same))
    return float((a * b).sum() / (a.norm() * b.norm()))


def _regress(gram: Tensor, cross: Tensor, targets: Tensor) -> Tensor:
    """Ridge regression, the ridge relative to the mean diagonal and chosen by exact leave-one-out errors."""
    size = gram.diagonal().mean()
    chosen = select_ridge(gram / size, targets, RIDGES)
    return (cross / size) @ fit(gram / size, targets, chosen.ridge)


def portrait(
    train: tuple[Float[Tensor, "n 1 8 8"], Int[Tensor, " n"]],
    test: tuple[Float[Tensor, "m 1 8 8"], Int[Tensor, " m"]],
    widths: Sequence[int],
    seeds: Sequence[int],
    *,
    steps: int = 300,
) -> Portrait:
    """Accuracy, alignment and cost of finite networks and of their kernels, and of all limits, on the same digits.

    Dense networks see centred images; what the network computes before training is subtracted from what it computes
    after, so that networks and kernels start alike. Deep singular kernels see raw images, whose inner products are
    positive.

    Args:
        train: Images and classes.
        test: Images and classes.
        widths: Widths of the one hidden layer.
        seeds: Seeds of the networks.
        steps: Steps of full-batch gradient descent of the trained arm.
    """
    (images, labels), (unseen, answers) = train, test
    classes, n = int(labels.max()) + 1, len(images)
    centre = images.flatten(1).mean(0)
    x, z = (8 * torch.nn.functional.normalize(i.flatten(1) - centre) for i in (images, unseen))
    y = torch.nn.functional.one_hot(labels, classes).double() - 1 / classes
    d = x.shape[1]

    def score(prediction: Tensor) -> float:
        return float((prediction.argmax(1) == answers).double().mean())

    accuracy: dict[str, list[list[float]]] = {}
    aligned: dict[str, list[list[float]]] = {}
    cost: dict[str, list[int]] = {}
    for width in widths:
        net = tangent_mlp(width, 1, classes)
        rows: dict[str, list[float]] = {}
        fits: dict[str, list[float]] = {}
        for seed in seeds:
            params = net.init((d,), [seed])
            module = net.module((d,), seed=seed)
            with torch.no_grad():
                f0, g0 = module(x), module(z)
                hidden = [module[:2](part).double() / width**0.5 for part in (x, z)]
            kinds = {"empirical NTK": "trace", "pseudo-NTK": "sum_of_logits"}
            grams = {
                k: (empirical_ntk(module, x, outputs=o), empirical_ntk(module, z, x, outputs=o))
                for k, o in kinds.items()
            }
            grams["random features"] = hidden[0] @ hidden[0].mT, hidden[1] @ hidden[0].mT
            for name, (gram, cross) in grams.items():
                prediction = _regress(gram.double(), cross.double(), y)
                rows.setdefault(name, []).append(score(prediction))
                fits.setdefault(name, []).append(alignment(gram.double(), labels))
            top = torch.linalg.eigvalsh(grams["empirical NTK"][0])[-1]
            run = descend(net, params, x, y.float() + f0, learning_rate=float(n / top), steps=steps)
            final = {k: v[0] for k, v in run.params.items()}
            rows.setdefault("trained network", []).append(score(net.apply(final, z) - g0))
            moved = empirical_ntk(module, x, outputs="trace", params=final)
            fits.setdefault("trained network", []).append(alignment(moved.double(), labels))
        for name in rows:
            accuracy.setdefault(name, []).append(rows[name])
            aligned.setdefault(name, []).append(fits[name])
        through = width * (d + classes)
        prices = {
            "empirical NTK": 2 * through + n * (d + classes * width),
            "pseudo-NTK": 2 * through + n * (d + width),
            "random features": through,
            "trained network": through,
        }
        for name, price in prices.items():
            cost.setdefault(name, []).append(price)
    limits = _limits(images, unseen, x, z)
    found = {name: score(_regress(gram, cross, y)) for name, (gram, cross, _) in limits.items()}
    return Portrait(
        list(widths),
        {k: torch.tensor(v, dtype=torch.float64) for k, v in accuracy.items()},
        {k: torch.tensor(v, dtype=torch.float64) for k, v in aligned.items()},
        cost,
        found,
        {name: alignment(gram, labels) for name, (gram, _, _) in limits.items()},
        {name: n * price for name, (_, _, price) in limits.items()},
    )


def _limits(images: Tensor, unseen: Tensor, x: Tensor, z: Tensor) -> dict[str, tuple[Tensor, Tensor, int]]:
    """Gram matrix, cross matrix, and multiply-adds of one entry."""
    dense, d = tangent_mlp(1, 1), x.shape[1]
    flat = serial(Conv(1, 1.0, 0.1), Relu(), Conv(1, 2**0.5, 0.1), Relu(), Flatten(), Dense(1, 2**0.5))
    pooled = serial(
        AvgPool(2), Conv(1, 1.0, 0.1), Relu(), Conv(1, 2**0.5, 0.1), Relu(), GlobalAvgPool(), Dense(1, 2**0.5)
    )
    found = {}
    both = dense.kernel(x, get=("nngp", "ntk")), dense.kernel(z, x, get=("nngp", "ntk"))
    for name, gram, cross in zip(("NNGP, dense", "NTK, dense"), *both):
        found[name] = gram, cross, d
    pixels = 8 * 8
    for name, net, price in (
        ("NTK, convolutional", flat, 2 * 6 * pixels),
        ("NTK, conv. pooled", pooled, 2 * 6 * 16 * 16),
    ):
        # The same centred images as for the dense networks.
        a, b = (part.reshape(len(part), 1, 8, 8) for part in (x, z))
        found[name] = net.kernel(a), net.kernel(b, a), price
    unit, other = (torch.nn.functional.normalize(i.flatten(1).double()) for i in (images, unseen))
    table = deep_kernel_table(singular_dual(8.0), 20)
    gram = table(unit @ unit.mT).exp()
    gram.diagonal().fill_(1.0)
    found["deep singular, a = 8"] = gram, table(other @ unit.mT).exp(), d
    return found
