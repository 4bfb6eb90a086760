"""Recipe of the stored metanetworks: a population of small classifiers, and graph networks trained on a part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.func import functional_call

from netatlas.core.checks import require
from netatlas.core.sparsity import apply_masks
from netatlas.core.train import Params, minimize

from .metanetwork import Metanetwork, group_norms, group_sparsity, keep_for_cost, unit_masks
from .stacked import initial_parameters, member_cross_entropy, stacked_accuracy, stacked_logits, train_stacked

SIZES = (64, 32, 32, 10)
TRAINED, TUNING, HELD_OUT = 12, 2, 16
REGS = (3e-3, 1e-2, 3e-2)
RATES = (0.03, 0.1, 0.3)
CUTS = (2.0, 4.0, 8.0)
META_SEEDS = (0, 1, 2)


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Training, validation and test vectors ``[N, 64]`` with labels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(images))
    x, y = torch.from_numpy(images[order] / 16).float(), torch.from_numpy(labels[order])
    return x[:900], y[:900], x[900:1200], y[900:1200], x[1200:], y[1200:]


def population(seed: int) -> Params:
    """Trained networks: other seeds and other rates; the first :data:`TRAINED` are for meta-training."""
    x, y, *_ = digits()
    count = TRAINED + TUNING + HELD_OUT
    seeds = [seed * 1000 + i for i in range(count)]
    rates = [(0.05, 0.1, 0.2)[i % 3] for i in range(count)]
    return train_stacked(initial_parameters(SIZES, seeds), x, y, seeds=seeds, epochs=15, batch_size=50, lr=rates)[0]


def unseen(count: int, *, sizes: Sequence[int] = SIZES, seed: int = 0) -> Params:
    """Networks trained as those of :func:`population`, with seeds that no recipe uses.

    Args:
        count: How many.
        sizes: Inputs, hidden and output widths; other hidden widths make a family the metanetworks have not seen.
        seed: Seed of the population they must be different from.

    Raises:
        ValueError: For no network.
    """
    require(count >= 1, "at least one network", count)
    x, y, *_ = digits()
    seeds = [seed * 1000 + 500 + i for i in range(count)]
    rates = [(0.05, 0.1, 0.2)[i % 3] for i in range(count)]
    return train_stacked(initial_parameters(sizes, seeds), x, y, seeds=seeds, epochs=15, batch_size=50, lr=rates)[0]


def part(params: Mapping[str, Tensor], rows: slice | Sequence[int]) -> Params:
    """Some networks of a stack."""
    return {n: p[rows] for n, p in params.items()}


def shuffled_edges(params: Mapping[str, Tensor], generator: torch.Generator) -> Params:
    """Weights permuted inside each layer of each network; biases stay."""
    found = dict(params)
    for name, value in params.items():
        if name.endswith("weight"):
            flat = value.flatten(1)
            found[name] = flat.gather(1, torch.rand(flat.shape, generator=generator).argsort(1)).reshape(value.shape)
    return found


def meta_train(nets: Mapping[str, Tensor], *, reg: float, shuffle: bool, seed: int, steps: int = 150) -> Params:
    """Train a metanetwork: cross-entropy of the changed networks plus their weighted group decay.

    Args:
        nets: Networks for meta-training.
        reg: Weight of the decay.
        shuffle: Whether it reads shuffled weights (ablation).
        seed: Of the metanetwork, the networks drawn and the shuffles.
        steps: Steps, four networks and 250 examples each.
    """
    x, y, *_ = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Metanetwork()
    generator, count = torch.Generator().manual_seed(seed), len(next(iter(nets.values())))

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        rows = torch.randperm(count, generator=generator)[:4]
        index = torch.randint(len(x), (250,), generator=generator)
        own = {n: v[rows] for n, v in nets.items()}
        seen = shuffled_edges(own, generator) if shuffle else None
        changed = functional_call(model, p, (own, seen))
        return (
            member_cross_entropy(stacked_logits(changed, x[index]), y[index]) + reg * group_sparsity(changed)
        ).mean()

    start = dict(model.named_parameters())
    return minimize(loss, start, steps=steps, optimizer="adamw", lr=3e-3, weight_decay=5e-4, schedule="cosine")[0]


class Pruned(NamedTuple):
    """What pruning at each cut leaves: test accuracy before and after fine-tuning, ``[cuts, nets]``."""

    before: Tensor
    after: Tensor


def tune_and_prune(
    nets: Mapping[str, Tensor], *, lr: float, cuts: Sequence[float] = CUTS, epochs: int = 5, reg: float = 0.0,
    seed: int = 0, validation: bool = False,
) -> Pruned:  # fmt: skip
    """Fine-tune, prune by group norms to each cut, fine-tune again; every arm gets the same epochs.

    Args:
        nets: Stacked networks.
        lr: Rate of all fine-tuning.
        cuts: Speedups.
        epochs: Of either fine-tuning.
        reg: Group decay in the first fine-tuning (direct group-sparse training).
        seed: Order of the batches.
        validation: Judge on validation instead of test data.
    """
    x, y, vx, vy, tx, ty = digits()
    judge = (vx, vy) if validation else (tx, ty)
    seeds = [seed * 100 + i for i in range(len(next(iter(nets.values()))))]

    def decayed(p: Params, bx: Tensor, by: Tensor, _: Tensor) -> Tensor:
        return member_cross_entropy(stacked_logits(p, bx), by) + reg * group_sparsity(p)

    make = {"seeds": seeds, "epochs": epochs, "batch_size": 50, "lr": lr}
    tuned, _ = train_stacked(dict(nets), x, y, loss=decayed if reg else None, **make)
    sizes = [x.shape[1], *(tuned[f"layers.{i}.bias"].shape[1] for i in range(len(tuned) // 2))]
    before, after = [], []
    for cut in cuts:
        masks = unit_masks(tuned, keep_for_cost(group_norms(tuned), sizes, cut))
        before.append(stacked_accuracy(apply_masks(tuned, masks), *judge))
        final, _ = train_stacked(tuned, x, y, masks=masks, **make)
        after.append(stacked_accuracy(final, *judge))
    return Pruned(torch.stack(before), torch.stack(after))


@torch.no_grad()
def change(model: Mapping[str, Tensor], nets: Mapping[str, Tensor], *, shuffle: bool = False, seed: int = 0) -> Params:
    """Networks after a stored metanetwork."""
    generator = torch.Generator().manual_seed(seed)
    seen = shuffled_edges(nets, generator) if shuffle else None
    return functional_call(Metanetwork(), dict(model), (dict(nets), seen))


def random_residual(nets: Mapping[str, Tensor], changed: Mapping[str, Tensor], seed: int) -> Params:
    """Networks changed by noise of the same norm as a metanetwork's change, in every tensor of every network."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for n, p in nets.items():
        noise = torch.randn(p.shape, generator=generator)
        axes = tuple(range(1, p.ndim))
        size = (changed[n] - p).square().sum(axes, keepdim=True).sqrt()
        found[n] = p + noise * size / noise.square().sum(axes, keepdim=True).sqrt()
    return found


def train(device: str = "cpu", seed: int = 0, *, steps: int = 150) -> Params:
    """Train the population, tune rate and decays on networks of their own, and train the metanetworks.

    Args:
        device: Only ``"cpu"``.
        seed: Of the population.
        steps: Meta-steps.

    Raises:
        ValueError: For another device.
    """
    require(str(device) == "cpu", "the device cpu", str(device))
    nets = population(seed)
    learn, tune = part(nets, slice(0, TRAINED)), part(nets, slice(TRAINED, TRAINED + TUNING))
    deep = CUTS[1:]

    def score(candidates: Params, lr: float, reg: float = 0.0) -> float:
        return float(tune_and_prune(candidates, lr=lr, reg=reg, cuts=deep, seed=9, validation=True).after.mean())

    rates = [score(tune, lr) for lr in RATES]
    lr = RATES[int(np.argmax(rates))]
    direct = [score(tune, lr, reg) for reg in REGS]
    trials = [meta_train(learn, reg=reg, shuffle=False, seed=77, steps=steps) for reg in REGS]
    meta = [score(change(model, tune), lr) for model in trials]
    reg = REGS[int(np.argmax(meta))]
    found: Params = {f"nets/{n}": p for n, p in nets.items()}
    found |= {
        "lr": torch.tensor(lr),
        "reg": torch.tensor(reg),
        "direct reg": torch.tensor(REGS[int(np.argmax(direct))]),
    }
    found |= {"tuning": torch.tensor([rates, direct, meta])}
    for s in META_SEEDS:
        for word, shuffle in (("meta", False), ("shuffled", True)):
            model = meta_train(learn, reg=reg, shuffle=shuffle, seed=s, steps=steps)
            found |= {f"{word}/{s}/{n}": p for n, p in model.items()}
    return {n: p.contiguous() for n, p in found.items()}


def stored(state: Mapping[str, Tensor], prefix: str) -> Params:
    """Tensors under a prefix of the stored names.

    Raises:
        ValueError: If there are none.
    """
    found = {n.removeprefix(prefix + "/"): p for n, p in state.items() if n.startswith(prefix + "/")}
    require(len(found) > 0, f"tensors under {prefix}", sorted(state)[:5])
    return found


class Arms(NamedTuple):
    """Held-out networks by arm, and how much the metanetworks changed them.

    Attributes:
        before: Accuracy after pruning, before the last fine-tuning, ``[cuts, nets]`` by arm.
        after: Accuracy after it.
        moved: ``|W' - W| / |W|`` of the metanetworks.
        spread: Largest over smallest group norm, before and after the metanetwork.
    """

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    moved: float
    spread: tuple[float, float]


def compare_arms(
    state: Mapping[str, Tensor],
    nets: Mapping[str, Tensor] | None = None,
    *,
    meta_seeds: Sequence[int] = META_SEEDS,
    epochs: int = 5,
    tuning_seeds: int = 1,
    only: Sequence[str] = (),
) -> Arms:
    """Prune networks by every arm; unit is the network, seeds of metanetworks and tuning are averaged.

    Args:
        state: What :func:`train` returned.
        nets: Stacked networks that no metanetwork has seen; default those that the recipe holds out.
        meta_seeds: Metanetworks used.
        epochs: Of either fine-tuning.
        tuning_seeds: Fine-tunings an arm.
        only: Names of arms; default all.

    Raises:
        ValueError: For an unknown arm.
    """
    nets = part(stored(state, "nets"), slice(TRAINED + TUNING, None)) if nets is None else dict(nets)
    lr, direct = float(state["lr"]), float(state["direct reg"])
    changed = {s: change(stored(state, f"meta/{s}"), nets) for s in meta_seeds}
    arms: dict[str, list[tuple[Params, float]]] = {
        "plain": [(nets, 0.0)],
        "direct group sparsity": [(nets, direct)],
        "metanetwork": [(c, 0.0) for c in changed.values()],
        "shuffled edges": [
            (change(stored(state, f"shuffled/{s}"), nets, shuffle=True, seed=s), 0.0) for s in meta_seeds
        ],
        "random residual": [(random_residual(nets, c, s), 0.0) for s, c in changed.items()],
    }
    require(set(only) <= set(arms), f"arms out of {list(arms)}", list(only))
    before, after = {}, {}
    for name, starts in arms.items():
        if only and name not in only:
            continue
        runs = [
            tune_and_prune(start, lr=lr, reg=reg, epochs=epochs, seed=k)
            for start, reg in starts
            for k in range(tuning_seeds * (len(meta_seeds) if len(starts) == 1 else 1))
        ]
        before[name] = torch.stack([r.before for r in runs]).mean(0)
        after[name] = torch.stack([r.after for r in runs]).mean(0)

    def size(p: Params) -> Tensor:
        return torch.sqrt(torch.stack([v.square().sum() for v in p.values()]).sum())

    def ratio(p: Params) -> float:
        return float(np.mean([float((n.amax(1) / n.amin(1)).mean()) for n in group_norms(p)]))

    moved = [float(size({n: c[n] - nets[n] for n in nets}) / size(nets)) for c in changed.values()]
    return Arms(
        before, after, float(np.mean(moved)), (ratio(nets), float(np.mean([ratio(c) for c in changed.values()])))
    )


def evaluate(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Accuracy of every arm at every cut after two epochs of fine-tuning.

    Args:
        state: What :func:`train` returned.
    """
    arms = compare_arms(state, meta_seeds=META_SEEDS[:1], epochs=2)
    return {f"{name}, {cut:g}x": float(arms.after[name][i].mean()) for name in arms.after for i, cut in enumerate(CUTS)}
