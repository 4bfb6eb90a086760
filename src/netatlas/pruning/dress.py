r"""DRESS: nested sparse subnetworks in the rows of one stored network, trained together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.sparsity import RowBalanced, global_masks
from netatlas.core.train import Params, batch_order, minimize

from .stacked import initial_parameters, member_cross_entropy

Scheme = Literal["rows", "global", "random rows", "slim"]
SCHEMES: tuple[Scheme, ...] = ("rows", "global", "random rows", "slim")


def nested_row_order(weight: Float[Tensor, "*members rows columns"]) -> Int[Tensor, "*members rows columns"]:
    """Columns of every row in falling order of magnitude; equal magnitudes in order of columns.

    Args:
        weight: A layer's matrix.

    Raises:
        ValueError: For fewer than two axes, or weights that are not finite.

    Source:
        qu2022dress.
    """
    require(weight.ndim >= 2, "a matrix", tuple(weight.shape))
    require_finite("weight", weight)
    return weight.detach().abs().sort(dim=-1, descending=True, stable=True).indices


def prefix_mask(order: Int[Tensor, "*members rows columns"], kept: int) -> Tensor:
    """The mask that keeps the first ``kept`` columns of an order, in every row.

    Args:
        order: Of :func:`nested_row_order`.
        kept: Entries a row.

    Raises:
        ValueError: For a count outside ``[0, columns]``.
    """
    require(0 <= kept <= order.shape[-1], f"entries a row in [0, {order.shape[-1]}]", kept)
    mask = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
    return mask.scatter(-1, order[..., :kept], True)


class NestedRows:
    """One stored matrix, many sparse ones: values and columns of the densest, ordered so that each is a prefix.

    Args:
        weight: ``[rows, columns]``.
        sparsities: Levels, falling (sparsest first).

    Raises:
        ValueError: For levels that do not fall or lie outside [0, 1].
    """

    def __init__(self, weight: Float[Tensor, "rows columns"], sparsities: Sequence[float]) -> None:
        require(all(a > b for a, b in zip(sparsities, sparsities[1:])), "falling sparsities", list(sparsities))
        columns = weight.shape[1]
        self.counts = [RowBalanced().kept(s, columns) for s in sparsities]
        order = nested_row_order(weight)[:, : self.counts[-1]]
        self.columns, self.values, self.shape = order, weight.detach().gather(1, order), tuple(weight.shape)

    def dense(self, level: int) -> Tensor:
        """The matrix of a level, zeros included."""
        kept = self.counts[level]
        matrix = self.values.new_zeros(self.shape)
        return matrix.scatter(1, self.columns[:, :kept], self.values[:, :kept])

    def product(self, x: Float[Tensor, "batch columns"], level: int) -> Float[Tensor, "batch rows"]:
        """The product with a level's matrix, from the stored prefix alone."""
        kept = self.counts[level]
        return torch.einsum("brk,rk->br", x[:, self.columns[:, :kept]], self.values[:, :kept])

    def stored_bytes(self) -> float:
        """Bytes of the values in single precision and of the column indices, packed."""
        return self.values.numel() * (4 + math.ceil(math.log2(max(self.shape[1], 2))) / 8)


class Levels(NamedTuple):
    """Joint subnetworks.

    Attributes:
        params: Stacked dense parameters.
        masks: For each level (sparsest first), masks by name.
        accuracy: Test accuracy, ``[levels, members]``, with batch statistics of each subnetwork's own.
        shared: The same with the statistics of the densest level for all (ablation).
    """

    params: Params
    masks: list[dict[str, Tensor]]
    accuracy: Tensor
    shared: Tensor


def slim_widths(hidden: int, inputs: int, classes: int, sparsities: Sequence[float]) -> list[int]:
    r"""Width :math:`n` of two hidden layers with as many weights as a sparse net whose output layer is dense.

    .. math:: n^2 + (n_0 + K)\,n = (1 - s)(n_0 H + H^2) + K H

    Args:
        hidden: :math:`H`.
        inputs: :math:`n_0`.
        classes: :math:`K`.
        sparsities: :math:`s`.
    """
    ends = inputs + classes
    goals = [(1 - s) * (inputs * hidden + hidden**2) + classes * hidden for s in sparsities]
    return [min(round((-ends + (ends**2 + 4 * g) ** 0.5) / 2), hidden) for g in goals]


def level_masks(
    params: Mapping[str, Tensor], sparsities: Sequence[float], scheme: Scheme, noise: Mapping[str, Tensor]
) -> list[dict[str, Tensor]]:
    """Nested masks of every level for the two hidden layers (for ``"slim"``, of all three).

    Args:
        params: Stacked parameters of an MLP with two hidden layers.
        sparsities: Levels, falling.
        scheme: ``"rows"`` by magnitude, ``"global"`` unstructured by magnitude, ``"random rows"`` by fixed noise,
            ``"slim"`` prefixes of units with as many weights in all.
        noise: Fixed scores of ``"random rows"``.

    Raises:
        ValueError: For an unknown scheme.

    Source:
        qu2022dress.
    """
    require(scheme in SCHEMES, f"a scheme out of {SCHEMES}", repr(scheme))
    hidden = ["layers.0.weight", "layers.1.weight"]
    if scheme == "slim":
        first, last = params[hidden[0]], params["layers.2.weight"]
        found = []
        for n in slim_widths(first.shape[-2], first.shape[-1], last.shape[-2], sparsities):
            unit = torch.arange(first.shape[-2]) < n
            found.append(
                {
                    hidden[0]: unit[:, None].expand_as(first),
                    hidden[1]: (unit[:, None] & unit).expand_as(params[hidden[1]]),
                    "layers.2.weight": unit.expand_as(last),
                }
            )
        return found
    scores = {n: (noise[n] if scheme == "random rows" else params[n].detach().abs()) for n in hidden}
    if scheme == "global":
        return [global_masks(scores, s, 1) for s in sparsities]
    order = {n: nested_row_order(s) for n, s in scores.items()}
    return [{n: prefix_mask(o, RowBalanced().kept(s, o.shape[-1])) for n, o in order.items()} for s in sparsities]


def _forward(
    params: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    x: Tensor,
    statistics: list[tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Logits [members, batch, classes], and the batch statistics of every hidden layer."""
    seen = []
    for i in range(3):
        weight, bias = params[f"layers.{i}.weight"], params[f"layers.{i}.bias"]
        weight = weight * masks[f"layers.{i}.weight"] if f"layers.{i}.weight" in masks else weight
        x = torch.baddbmm(bias[:, None], x if x.ndim == 3 else x.expand(len(weight), -1, -1), weight.mT)
        if i == 2:
            break
        mean, var = (x.mean(1, keepdim=True), x.var(1, keepdim=True)) if statistics is None else statistics[i]
        seen.append((mean.detach(), var.detach()))
        x = (x - mean) / (var + 1e-5).sqrt() * params[f"norm.{i}.weight"][:, None] + params[f"norm.{i}.bias"][:, None]
        x = x.relu()
    return x, seen


def train_levels(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    hidden: int,
    sparsities: Sequence[float],
    scheme: Scheme,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int = 64,
    lr: float = 0.1,
    importance: Sequence[float] | None = None,
    trained: Sequence[int] | None = None,
) -> Levels:
    r"""Minimise :math:`\sum_k \pi_k L(W \odot b_k(W))` over nested masks that are drawn anew once an epoch.

    Batch normalisation uses the batch's statistics in training; afterwards every subnetwork gets the statistics of the
    training data under its own mask.

    Args:
        train: Inputs and labels.
        test: Looked at once, at the end.
        hidden: Units of both hidden layers.
        sparsities: Levels, falling.
        scheme: As :func:`level_masks`.
        seeds: One a member.
        epochs: Passes over the data.
        batch_size: Examples a step.
        lr: Rate of SGD with momentum and cosine decay.
        importance: :math:`\pi_k`; default equal.
        trained: Levels in the sum; default all. ``[K - 1]`` is dense training, a single other one a separate net.

    Raises:
        ValueError: For importances that are negative or not one a level.

    Source:
        qu2022dress.
    """
    (x, y), levels = train, list(range(len(sparsities))) if trained is None else list(trained)
    share = [1 / len(levels)] * len(sparsities) if importance is None else list(importance)
    require(len(share) == len(sparsities) and min(share) >= 0, f"{len(sparsities)} importances of at least 0", share)
    classes = int(y.max()) + 1
    params = initial_parameters([x.shape[1], hidden, hidden, classes], seeds)
    for i in range(2):
        params[f"norm.{i}.weight"] = torch.ones(len(seeds), hidden)
        params[f"norm.{i}.bias"] = torch.zeros(len(seeds), hidden)
    noise = {
        f"layers.{i}.weight": torch.stack(
            [
                torch.rand(params[f"layers.{i}.weight"].shape[1:], generator=torch.Generator().manual_seed(s + i))
                for s in seeds
            ]
        )
        for i in range(2)
    }
    order = torch.stack([batch_order(s, len(x), epochs) for s in seeds], 1)
    per_epoch = len(x) // batch_size
    masks: list[dict[str, Tensor]] = []

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        nonlocal masks
        epoch, batch = divmod(step, per_epoch)
        if batch == 0:
            masks = level_masks({n: v.detach() for n, v in p.items()}, sparsities, scheme, noise)
        index = order[epoch, :, batch * batch_size : (batch + 1) * batch_size]
        bx, by = x[index], y[index]
        return sum(share[k] * member_cross_entropy(_forward(p, masks[k], bx)[0], by) for k in levels)  # type: ignore[return-value]

    params, _ = minimize(
        loss, params, steps=epochs * per_epoch, optimizer="sgd", momentum=0.9, lr=lr, schedule="cosine"
    )
    masks = level_masks(params, sparsities, scheme, noise)
    with torch.no_grad():
        own = [_forward(params, m, x)[1] for m in masks]
        right = [
            [(_forward(params, m, test[0], s)[0].argmax(-1) == test[1]).double().mean(-1) for m, s in zip(masks, stats)]
            for stats in (own, [own[-1]] * len(masks))
        ]
    return Levels(params, masks, torch.stack(right[0]), torch.stack(right[1]))


def stored_bytes(scheme: str, hidden: int, inputs: int, classes: int, sparsities: Sequence[float]) -> float:
    """Bytes that hold all levels: single-precision weights and packed indices; biases and norms are left out.

    Args:
        scheme: ``"rows"``, ``"global"``, ``"slim"`` or ``"separate"``.
        hidden: Units of both hidden layers.
        inputs: Inputs.
        classes: Outputs.
        sparsities: Levels, falling.

    Raises:
        ValueError: For an unknown scheme.
    """
    require(scheme in ("rows", "global", "slim", "separate"), "rows, global, slim or separate", repr(scheme))
    shapes = [(hidden, inputs), (hidden, hidden)]

    def bits(columns: int) -> int:
        return math.ceil(math.log2(max(columns, 2)))

    head = 4.0 * classes * hidden
    if scheme == "slim":
        n = slim_widths(hidden, inputs, classes, sparsities)[-1]
        return 4.0 * (n * inputs + n * n + classes * n)
    if scheme == "rows":
        return head + sum(r * RowBalanced().kept(sparsities[-1], c) * (4 + bits(c) / 8) for r, c in shapes)
    if scheme == "separate":
        kept = [[r * RowBalanced().kept(s, c) for r, c in shapes] for s in sparsities]
        return sum(
            head + sum(k * (4 + (bits(c) / 8 if k < r * c else 0)) for k, (r, c) in zip(row, shapes)) for row in kept
        )
    # Unnested positions: the densest level's values, and for every entry the level from which it counts.
    total = sum(r * c for r, c in shapes)
    return head + (1 - sparsities[-1]) * total * 4 + total * math.ceil(math.log2(len(sparsities) + 1)) / 8
