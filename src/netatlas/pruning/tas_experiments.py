"""Experiments of the section on transformable architecture search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from netatlas.core.sparsity import Channels, apply_masks
from netatlas.core.train import Params, minimize

from .stacked import member_cross_entropy, stacked_accuracy, stacked_logits
from .tas import (
    distillation_loss,
    mlp_cost,
    prefix_networks,
    scale_into_band,
    search_architecture,
    width_candidates,
)

Data = tuple[Tensor, Tensor]
CHANNELS, LAYERS, CLASSES = 64, 4, 10


class SearchedArm(NamedTuple):
    """An arm's test accuracy, cost and widths, one a seed."""

    accuracy: Tensor
    cost: Tensor
    widths: Tensor


def _fit(
    params: Params, free: dict[str, Tensor], data: Data, *, seeds: Sequence[int], steps: int, lr: float,
    teacher: Params | None, batch: int = 32,
) -> Params:  # fmt: skip
    """Train prefixes, with distillation from a teacher of the same member where one is given."""
    x, y = data
    # Weights beyond a prefix are zero and get no gradient; only the identities of skipped layers have to be held.
    held = [n for n, p in params.items() if bool(((p != 0) & ~free[n]).any())]
    generators = [torch.Generator().manual_seed(7000 + s) for s in seeds]

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        effective = dict(p) | {n: torch.where(free[n], p[n], p[n].detach()) for n in held}
        index = torch.stack([torch.randint(len(x), (batch,), generator=g) for g in generators])
        out = stacked_logits(effective, x[index])
        if teacher is None:
            return member_cross_entropy(out, y[index])
        with torch.no_grad():
            known = stacked_logits(teacher, x[index])
        return distillation_loss(out, known, y[index])

    return minimize(loss, params, steps=steps, optimizer="adam", lr=lr, schedule="cosine")[0]


def _costs(widths: Tensor, inputs: int) -> Tensor:
    depth = (widths > 0).sum(-1)
    return torch.stack([torch.tensor(mlp_cost(w[:d].tolist(), inputs, CLASSES)) for w, d in zip(widths, depth)])


def _repeat(params: Params, times: int) -> Params:
    return {n: v.repeat(times, *[1] * (v.ndim - 1)) for n, v in params.items()}


def _random_widths(seeds: Sequence[int], target: float, inputs: int) -> Tensor:
    """Uniform draws from the candidate widths, one a seed, scaled into the band of cost."""
    choices = torch.tensor(width_candidates(CHANNELS))
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(90_000 + seed)
        drawn = choices[torch.randint(len(choices), (LAYERS,), generator=generator)]
        found.append(scale_into_band(drawn, target, inputs=inputs, classes=CLASSES, channels=CHANNELS)[0])
    return torch.stack(found)


def _thin_by_l1(teacher: Params, width: int) -> tuple[Params, dict[str, Tensor]]:
    """The teacher without the hidden units of smallest L1 norm, ``width`` left in each layer."""
    params = {n: v.clone() for n, v in teacher.items()}
    masks: dict[str, Tensor] = {n: torch.ones_like(v, dtype=torch.bool) for n, v in params.items()}
    for layer in range(LAYERS):
        norm = params[f"layers.{layer}.weight"].abs().sum(-1)
        kept = Channels().mask(norm[..., None], 1 - width / norm.shape[-1], 1)[..., 0]
        masks[f"layers.{layer}.weight"] = masks[f"layers.{layer}.weight"] & kept[..., None]
        masks[f"layers.{layer}.bias"] = kept
        masks[f"layers.{layer + 1}.weight"] = masks[f"layers.{layer + 1}.weight"] & kept[:, None, :]
    return apply_masks(params, masks), masks


def tune_rate(train: Data, *, seeds: Sequence[int], budget: int) -> dict[float, float]:
    """Validation accuracy (last fifth of the data) of three rates, for uniform widths with distillation."""
    x, y = train
    kept, inputs, found = int(0.8 * len(x)), x.shape[1], {}
    make = {"channels": CHANNELS, "inputs": inputs, "classes": CLASSES, "seeds": seeds}
    part = (x[:kept], y[:kept])
    for lr in (3e-3, 1e-2, 3e-2):
        full = torch.full((len(seeds), LAYERS), CHANNELS)
        teacher = _fit(*prefix_networks(full, **make), part, seeds=seeds, steps=budget, lr=lr, teacher=None)
        student = prefix_networks(torch.full_like(full, 42), **make)
        params = _fit(*student, part, seeds=seeds, steps=3 * budget, lr=lr, teacher=teacher)
        found[lr] = float(stacked_accuracy(params, x[kept:], y[kept:]).mean())
    return found


class SearchComparison(NamedTuple):
    """All arms at equal cost and equal gradients, the share of searches that had to be scaled, the full network."""

    arms: dict[str, SearchedArm]
    scaled: float
    full: Tensor


def compare_searches(
    train: Data, test: Data, *, seeds: Sequence[int], budget: int = 300, lr: float = 1e-2
) -> SearchComparison:
    """Test accuracy of searched, preset, random and norm-pruned widths at half the cost of the full network.

    With ``u = budget`` steps: a teacher takes ``u``, a search ``2 u`` gradients (``u`` steps), the last training after
    both ``u``. An arm without one of them trains that much longer; the random arm tries two width vectors, ``3 u / 2``
    each.

    Args:
        train: Inputs and labels; searches use halves for weights and logits.
        test: Test data.
        seeds: One a member.
        budget: Steps ``u``.
        lr: Adam's rate of all final trainings.
    """
    x, y = train
    inputs, count, u = x.shape[1], len(seeds), budget
    half = len(x) // 2
    full = torch.full((count, LAYERS), CHANNELS)
    target = float(_costs(full[:1], inputs)[0]) / 2
    make = {"channels": CHANNELS, "inputs": inputs, "classes": CLASSES}
    teacher = _fit(*prefix_networks(full, seeds=seeds, **make), train, seeds=seeds, steps=u, lr=lr, teacher=None)
    kinds = {"search": {}, "no interpolation": {"interpolate": False}, "one sample": {"samples": 1}}
    searched, scaled = {}, []
    for name, options in kinds.items():
        found = search_architecture(
            (x[:half], y[:half]), (x[half:], y[half:]), channels=CHANNELS, layers=LAYERS, target=target, seeds=seeds,
            steps=u, classes=CLASSES, seed=seeds[0], batch_size=32, **options,
        )  # fmt: skip
        fitted = [scale_into_band(w, target, inputs=inputs, classes=CLASSES, channels=CHANNELS) for w in found.widths]
        searched[name] = torch.stack([w for w, _ in fitted])
        if name == "search":
            scaled = [float(changed) for _, changed in fitted]
    n = int((-(inputs + CLASSES) + ((inputs + CLASSES) ** 2 + 12 * target) ** 0.5) / 6)
    uniform = torch.full((count, LAYERS), n)
    arms: dict[str, SearchedArm] = {}

    def run(names: list[str], widths: list[Tensor], steps: int, distil: bool) -> None:
        joint, own = torch.cat(widths), list(seeds) * len(names)
        params, free = prefix_networks(joint, seeds=own, **make)
        known = _repeat(teacher, len(names)) if distil else None
        params = _fit(params, free, train, seeds=own, steps=steps, lr=lr, teacher=known)
        for name, w, accuracy in zip(names, widths, stacked_accuracy(params, *test).split(count)):
            arms[name] = SearchedArm(accuracy, _costs(w, inputs), w)

    names = ["search, distilled", "search without interpolation, distilled", "search with one sample, distilled"]
    run(names, list(searched.values()), u, True)
    run(["search, not distilled"], [searched["search"]], 2 * u, False)
    free_draw = _random_widths(seeds, target, inputs)
    thin, masks = _thin_by_l1(teacher, n)
    params, free = prefix_networks(torch.cat([uniform, free_draw]), seeds=list(seeds) * 2, **make)
    # Norm pruning starts from the teacher's weights, but trains as long as the two arms beside it: all three at once.
    params = {name: torch.cat([params[name], thin[name]]) for name in params}
    free = {name: torch.cat([free[name], masks[name]]) for name in free}
    params = _fit(params, free, train, seeds=list(seeds) * 3, steps=3 * u, lr=lr, teacher=_repeat(teacher, 3))
    three = ["uniform, distilled", "untrained logits, distilled", "L1 norm, fine-tuned"]
    for name, w, score in zip(three, (uniform, free_draw, uniform), stacked_accuracy(params, *test).split(count)):
        arms[name] = SearchedArm(score, _costs(w, inputs), w)
    run(["uniform, not distilled"], [uniform], 4 * u, False)

    tries = [_random_widths([s + 1000 * k for s in seeds], target, inputs) for k in (1, 2)]
    own = list(seeds) * 2
    kept = int(0.8 * len(x))
    params, free = prefix_networks(torch.cat(tries), seeds=own, **make)
    params = _fit(params, free, (x[:kept], y[:kept]), seeds=own, steps=3 * u // 2, lr=lr, teacher=_repeat(teacher, 2))
    score = stacked_accuracy(params, x[kept:], y[kept:]).reshape(2, count)
    pick = score.argmax(0)
    accuracy = stacked_accuracy(params, *test).reshape(2, count)[pick, torch.arange(count)]
    widths = torch.stack(tries)[pick, torch.arange(count)]
    arms["best of two random, distilled"] = SearchedArm(accuracy, _costs(widths, inputs), widths)
    return SearchComparison(arms, float(np.mean(scaled)), stacked_accuracy(teacher, *test))


class Planted(NamedTuple):
    """Searched widths where the answer is known, ``[seeds, layers]``, and the error of two fixed nets a case."""

    widths: dict[str, Tensor]
    fixed: dict[str, dict[str, float]]


def planted_widths(*, seeds: Sequence[int], steps: int = 400, channels: int = 32, examples: int = 8000) -> Planted:
    """Teachers whose first (A) or second (B) hidden layer has 4 units, the others 32: the search should tell which.

    There are as many inputs and outputs as channels, so that a channel costs the same in either layer and both cases
    have one target.

    Args:
        seeds: One a search.
        steps: Steps of a search.
        channels: Width of every hidden layer at the start.
        examples: Inputs drawn.
    """
    found, fixed = {}, {}
    for case, hidden in (("A", (4, channels, channels)), ("B", (channels, 4, channels))):
        generator = torch.Generator().manual_seed(seeds[0])
        sizes, h = (channels, *hidden, channels), torch.randn(examples, channels, generator=generator)
        x = h
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            h = h @ torch.randn(a, b, generator=generator) * (2 / a) ** 0.5
            h = h.relu() if i + 2 < len(sizes) else h
        y = (h - h.mean(0)) / h.std()
        half, least = examples // 2, width_candidates(channels)[0]
        right = (least, channels, channels) if case == "A" else (channels, least, channels)
        wrong = (right[1], right[0], right[2])
        target = float(mlp_cost(right, channels, channels))
        found[case] = search_architecture(
            (x[:half], y[:half]), (x[half:], y[half:]), channels=channels, layers=3, target=target, seeds=seeds,
            steps=steps, classes=channels, depths=[3], regression=True, seed=seeds[0],
        ).widths  # fmt: skip
        widths = torch.tensor([right] * 3 + [wrong] * 3)
        params, free = prefix_networks(
            widths, channels=channels, inputs=channels, classes=channels, seeds=[0, 1, 2] * 2
        )
        draw = torch.Generator().manual_seed(seeds[0])

        def loss(p: Params, step: int, _: torch.Generator, free=free, x=x, y=y, draw=draw, half=half) -> Tensor:
            index = torch.randint(half, (64,), generator=draw)
            effective = {n: torch.where(free[n], v, v.detach()) for n, v in p.items()}
            return (stacked_logits(effective, x[index]) - y[index]).square().mean((1, 2))

        params, _ = minimize(loss, params, steps=2 * steps, optimizer="adam", lr=5e-3, schedule="cosine")
        with torch.no_grad():
            error = (stacked_logits(params, x[half:]) - y[half:]).square().mean((1, 2)).reshape(2, 3).mean(1)
        fixed[case] = {"right": float(error[0]), "wrong": float(error[1])}
    return Planted(found, fixed)


def planted_signs(planted: Planted) -> dict[str, Tensor]:
    """Width of layer 2 minus width of layer 1, one a seed; above 0 is right for A, below 0 for B."""
    return {case: (w[:, 1] - w[:, 0]).double() for case, w in planted.widths.items()}
