"""Experiments of the section on the robustness lottery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .corruptions import CORRUPTIONS, SEVERITIES, corrupt
from .geometry import angular_margin, linear_cka, logit_geometry
from .lottery import Method, train_sparse
from .stacked import stacked_layers

METHODS: tuple[Method, ...] = (
    "one shot",
    "gradual",
    "rewound weights",
    "rewound rate",
    "edge-popup",
    "biprop",
    "random",
)
SPARSITIES = (0.8, 0.95)
# The cell on which fragile images are told, not one of those that are regressed.
FRAGILE: tuple[Method, float] = ("one shot", 0.9)
Data = tuple[Tensor, Tensor]


class Suite(NamedTuple):
    """Networks of every method under every corruption.

    Attributes:
        names: ``(method, sparsity)`` of each row of models; the dense one first.
        clean: Accuracy on clean images, ``[models, seeds]``.
        corrupted: Accuracy, ``[models, seeds, corruptions, severities]``.
        free: Mean length, smallest angle and gap to the next angle, of the predicted class: clean, and its change
            under every corruption and severity, ``[models, seeds, corruptions, severities, 3]``.
        labelled: Change of the angle to the true class and of its margin, ``[..., 2]``.
        confidence: Change of mean largest probability and entropy, ``[..., 2]``.
        margin: Angular margin of the dense networks, ``[seeds, images]``.
        length: Feature length of the dense networks.
        right: Correctness of every model, ``[models, seeds, images]``.
        identity: Largest error of ``z = |w||h| cos + b``, relative to the largest logit.
        agreement: Share of images on which the margin's sign is correctness, with the networks' own norms and biases.
        equalised: The same after norms are made equal and biases zero.
        fragile: Correctness of the networks of :data:`FRAGILE`, ``[seeds, images]``.
        alike: Linear CKA of the clean features of every pair of models, mean over seeds, ``[models, models]``.
    """

    names: list[tuple[str, float]]
    clean: np.ndarray
    corrupted: np.ndarray
    free: np.ndarray
    labelled: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    length: np.ndarray
    right: np.ndarray
    identity: float
    agreement: float
    equalised: float
    fragile: np.ndarray
    alike: np.ndarray


def _measure(params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    layers = stacked_layers(params, x)
    logits, head = layers[-1], params[f"layers.{len(layers) - 1}.weight"]
    geometry = logit_geometry(layers[-2], head)
    two = geometry.angles.topk(2, dim=-1, largest=False).values
    margin = angular_margin(geometry.angles, y)
    own = geometry.angles.gather(-1, y.expand(margin.shape)[..., None])[..., 0]
    log = logits.log_softmax(-1)
    return {
        "right": logits.argmax(-1) == y,
        "length": geometry.length,
        "margin": margin,
        "free": torch.stack([geometry.length.mean(1), two[..., 0].mean(1), (two[..., 1] - two[..., 0]).mean(1)], -1),
        "labelled": torch.stack([own.mean(1), margin.mean(1)], -1),
        "confidence": torch.stack([log.amax(-1).exp().mean(1), -(log.exp() * log).sum(-1).mean(1)], -1),
        "logits": logits,
        "features": layers[-2],
        "rebuilt": geometry.norms[:, None] * geometry.length[..., None] * geometry.angles.cos(),
    }


@torch.no_grad()
def _evaluate(
    params: dict[str, Tensor], clean: Data, corrupted: dict[tuple[str, int], Tensor], y: Tensor
) -> dict[str, np.ndarray]:
    base, few = _measure(params, *clean), len(y)
    start = _measure(params, clean[0][:few], y)
    found: dict[str, list[Tensor]] = {"accuracy": [], "free": [], "labelled": [], "confidence": []}
    for images in corrupted.values():
        now = _measure(params, images, y)
        found["accuracy"].append(now["right"].double().mean(1))
        for part in ("free", "labelled", "confidence"):
            found[part].append(now[part] - start[part])
    shape = (len(CORRUPTIONS), SEVERITIES)
    arrays = {k: torch.stack(v, 1).unflatten(1, shape).numpy() for k, v in found.items()}
    head = f"layers.{sum(n.endswith('weight') for n in params) - 1}"
    bias = params.get(f"{head}.bias")
    offset = 0 if bias is None else bias[:, None]
    weight = params[f"{head}.weight"]
    unit = weight / weight.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    same = (base["features"] @ unit.mT).argmax(-1) == clean[1]
    # Without a feature there is no angle, and the larger of equal angles is an accident of rounding.
    clear = (base["length"] > 0) & (base["margin"].abs() > 1e-3)
    return arrays | {
        "clean": base["right"].double().mean(1).numpy(),
        "clean few": start["right"].double().mean(1).numpy(),
        "right": base["right"].numpy(),
        "margin": base["margin"].numpy(),
        "length": base["length"].numpy(),
        "features": base["features"].numpy(),
        "identity": (
            (base["rebuilt"] + offset - base["logits"]).abs().max() / base["logits"].abs().max().clamp_min(1e-30)
        ).numpy(),
        "agreement": ((base["margin"] > 0) == base["right"]).double().mean().numpy(),
        "equalised": (((base["margin"] > 0) == same) | ~clear).double().mean().numpy(),
    }


def run_suite(
    train: Data, test: Data, *, widths: Sequence[int], seeds: Sequence[int], side: int, epochs: int = 6,
    batch_size: int = 50, few: int = 400, seed: int = 0,
) -> Suite:  # fmt: skip
    """Train every method at every sparsity, and measure accuracy and geometry under every corruption.

    Args:
        train: Inputs ``[N, side * side]`` in [0, 1] and labels.
        test: All are used for clean accuracy and margins, the first ``few`` for corruptions.
        widths: Of the MLP.
        seeds: One a network.
        side: Of the images.
        epochs: Of every method, in all.
        batch_size: Examples a step.
        few: Test images that are corrupted.
        seed: Of the corruptions.
    """
    images, y = test[0][:few].reshape(-1, 1, side, side), test[1][:few]
    corrupted = {
        (name, s): corrupt(images, name, s, seed=seed + i).flatten(1)
        for i, name in enumerate(CORRUPTIONS)
        for s in range(SEVERITIES)
    }
    cells: list[tuple[str, float]] = [("dense", 0.0), *((m, s) for m in METHODS for s in SPARSITIES)]
    rows = []
    for method, sparsity in [*cells, FRAGILE]:
        params, _ = train_sparse(
            method,
            sparsity,
            train,
            widths=widths,
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,  # type: ignore[arg-type]
        )
        rows.append(_evaluate({n: p.detach() for n, p in params.items()}, test, corrupted, y))

    fragile = rows.pop()["right"]
    features = torch.from_numpy(np.stack([row["features"] for row in rows]))
    alike = np.array([[np.mean([linear_cka(a, b) for a, b in zip(one, two)]) for two in features] for one in features])

    def stack(part: str) -> np.ndarray:
        return np.stack([row[part] for row in rows])

    return Suite(
        cells, stack("clean"), stack("accuracy"), stack("free"), stack("labelled"), stack("confidence"),
        rows[0]["margin"], rows[0]["length"], stack("right"), float(stack("identity").max()),
        float(stack("agreement").mean()), float(stack("equalised").min()), fragile, alike,
    )  # fmt: skip


def leave_one_method_out(
    features: np.ndarray, target: np.ndarray, groups: Sequence[str], *, ridge: float = 1.0
) -> float:
    r""":math:`R^2` of a ridge regression whose every method is predicted from the others.

    Args:
        features: ``[rows, k]``.
        target: ``[rows]``.
        groups: Method of each row.
        ridge: Penalty on standardised coefficients.
    """
    groups_, error = np.asarray(groups), np.zeros(len(target))
    for group in np.unique(groups_):
        out = groups_ == group
        mean, scale = features[~out].mean(0), features[~out].std(0) + 1e-12
        a, b = (features[~out] - mean) / scale, target[~out]
        weight = np.linalg.solve(a.T @ a + ridge * np.eye(a.shape[1]), a.T @ (b - b.mean()))
        error[out] = target[out] - b.mean() - (features[out] - mean) / scale @ weight
    return float(1 - (error**2).sum() / ((target - target.mean()) ** 2).sum())


class Explained(NamedTuple):
    """How well geometry predicts the drop of accuracy: leave-one-method-out ``R^2`` of each set of features."""

    free: float
    labelled: float
    confidence: float
    permuted: float


def explain_drop(suite: Suite, *, seed: int = 0) -> Explained:
    """Regress the drop of accuracy of each (method, sparsity, corruption, severity), seeds averaged.

    The control permutes features among the rows of a method.
    """
    drop = suite.clean.mean(1)[:, None, None] - suite.corrupted.mean(1)
    groups = np.repeat([m for m, _ in suite.names], drop[0].size)
    target, rng = drop.reshape(-1), np.random.default_rng(seed)
    tables = [part.mean(1).reshape(len(target), -1) for part in (suite.free, suite.labelled, suite.confidence)]
    order = np.arange(len(target))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        order[own] = rng.permutation(own)
    scores = [leave_one_method_out(table, target, groups) for table in tables]
    return Explained(*scores, leave_one_method_out(tables[0][order], target, groups))


class Fragility(NamedTuple):
    """AUC with which the dense network's margin, feature length, or shuffled margins tell which images flip."""

    margin: np.ndarray
    length: np.ndarray
    shuffled: np.ndarray
    flips: np.ndarray


def fragility(suite: Suite, *, seed: int = 0) -> Fragility:
    """Images that the dense network gets right and that of :data:`FRAGILE` does not, told by the former alone."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"margin": [], "length": [], "shuffled": [], "flips": []}
    for s in range(suite.right.shape[1]):
        right = suite.right[0, s]
        flipped = ~suite.fragile[s][right]
        margin, length = suite.margin[s][right], suite.length[s][right]
        # Where nothing flips, or everything, no order of the images tells anything.
        plain = flipped.all() or not flipped.any()
        for name, score in (("margin", -margin), ("length", -length), ("shuffled", rng.permutation(margin))):
            found[name].append(0.5 if plain else roc_auc_score(flipped, score))
        found["flips"].append(flipped.sum())
    return Fragility(*(np.array(v, dtype=float) for v in found.values()))


class Redundancy(NamedTuple):
    """Principal components for 90 % of the variance, measured and with columns permuted; the cumulative shares."""

    components: int
    permuted: np.ndarray
    shares: np.ndarray


def _shares(table: np.ndarray) -> np.ndarray:
    table = table - table.mean(1, keepdims=True)
    table = (table - table.mean(0)) / table.std(0)
    values = np.linalg.svd(table, compute_uv=False) ** 2
    return values.cumsum() / values.sum()


def redundancy(suite: Suite, *, draws: int = 20, seed: int = 0) -> Redundancy:
    """Components of the models x corruptions accuracies, each model's mean subtracted, columns standardised."""
    table, rng = suite.corrupted.mean(-1).reshape(-1, suite.corrupted.shape[2]), np.random.default_rng(seed)
    shares = _shares(table)
    null = [int((_shares(np.stack([rng.permutation(c) for c in table.T], 1)) < 0.9).sum()) + 1 for _ in range(draws)]
    return Redundancy(int((shares < 0.9).sum()) + 1, np.array(null), shares)


class WinningHand(NamedTuple):
    """The method most robust on half of the seeds, and its lead over dense on the other half, one a seed."""

    name: tuple[str, float]
    lead: np.ndarray


def winning_hand(suite: Suite) -> WinningHand:
    """Choose (method, sparsity) by mean corrupted accuracy on the first half of the seeds; judge it on the rest."""
    mean = suite.corrupted.mean((2, 3))
    half = mean.shape[1] // 2
    best = 1 + int(mean[1:, :half].mean(1).argmax())
    return WinningHand(suite.names[best], mean[best, half:] - mean[0, half:])
