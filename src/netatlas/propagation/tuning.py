"""One budget for every model: the same grid of learning rates and weight decays, chosen on validation nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import symmetrized
from netatlas.core.message_passing import NodeFit, fit_nodes
from netatlas.propagation.feature_expansion import reduced_features

#: Learning rates and weight decays that every model of the chapter may choose from, unless said otherwise.
GRID: tuple[tuple[float, float], ...] = ((0.01, 5e-4), (0.03, 5e-4), (0.01, 5e-3), (0.03, 5e-3))


@dataclass
class TunedNodes:
    """Classifiers of one kind, one a split, each at the setting that its validation nodes chose.

    Attributes:
        test: Accuracy on the test nodes, ``[S]``.
        validation: Accuracy on the validation nodes, ``[S]``.
        train: Accuracy on the training nodes, ``[S]``.
        setting: The chosen learning rate and weight decay of each split.
        logits: Outputs ``[S, n, C]``.
        fit: All members that were trained.
        member: Which member of ``fit`` each split chose, ``[S]``.
    """

    test: Float[Tensor, " S"]
    validation: Float[Tensor, " S"]
    train: Float[Tensor, " S"]
    setting: list[tuple[float, float]]
    logits: Float[Tensor, "S n C"]
    fit: NodeFit
    member: Int[Tensor, " S"]

    def model(self, split: int = 0) -> nn.Module:
        """The chosen classifier of a split."""
        return self.fit.ensemble.member(int(self.member[split]))


@dataclass
class NodeTask:
    """A node classification task with its splits.

    Attributes:
        graph: Undirected adjacency.
        x: Features ``[n, F]``.
        y: Labels ``[n]``.
        train: Training nodes, one row a split.
        validation: Validation nodes, likewise.
        test: Test nodes, likewise.
    """

    graph: sp.csr_array
    x: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.y.max()) + 1

    @property
    def masks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Training, validation and test nodes."""
        return self.train, self.validation, self.test


def node_task(
    data: Any,
    *,
    rank: int,
    seeds: Sequence[int],
    per_class: int | None = None,
    fixed: bool = False,
    shares: tuple[float, float] = (0.6, 0.2),
) -> NodeTask:
    """A task from labelled graph data: features on their principal directions, undirected edges, splits.

    Args:
        data: PyG ``Data`` with ``x`` and ``y``; edges are symmetrised, self-loops left out.
        rank: Number of directions of the features, scaled to unit mean square.
        seeds: One a split.
        per_class: Training nodes of each class, with 500 validation and 1000 test nodes or fewer; by default a random
            split.
        fixed: Whether to take the first columns of the data's own masks instead.
        shares: Shares of training and validation nodes of a random split.

    Raises:
        ValueError: For data without features or labels, or fewer own splits than seeds.
    """
    require(getattr(data, "x", None) is not None and getattr(data, "y", None) is not None, "data with x and y", data)
    graph = symmetrized(data)
    graph = as_csr(graph - sp.diags_array(graph.diagonal()))
    graph.eliminate_zeros()
    reduced = reduced_features(data.x, rank)
    scale = np.sqrt(np.square(reduced).mean())
    x = torch.from_numpy(reduced / (scale if scale > 0 else 1.0)).float()
    y = data.y.long()
    if fixed:
        require(data.train_mask.ndim == 2 and data.train_mask.shape[1] >= len(seeds), "a split a seed", len(seeds))
        masks = [m.T[: len(seeds)].bool().contiguous() for m in (data.train_mask, data.val_mask, data.test_mask)]
    elif per_class is None:
        masks = list(random_splits(y, shares, seeds=seeds))
    else:
        masks = list(sparse_splits(y, per_class, seeds=seeds))
    return NodeTask(graph, x, y, *masks)


def sparse_splits(
    y: Int[Tensor, " n"], per_class: int, *, seeds: Sequence[int]
) -> tuple[Bool[Tensor, "S n"], Bool[Tensor, "S n"], Bool[Tensor, "S n"]]:
    """A few training nodes of each class, at most 500 validation and 1000 test nodes of the rest, in shares of 1 to 2.

    Args:
        y: Labels.
        per_class: Training nodes of a class.
        seeds: One a split.

    Raises:
        ValueError: For a class with too few nodes, or none left for validation and test.
    """
    count = torch.bincount(y)
    require(per_class >= 1 and int(count[count > 0].min()) >= per_class, f"{per_class} nodes a class", count.tolist())
    masks = torch.zeros(3, len(seeds), len(y), dtype=torch.bool)
    for row, seed in enumerate(seeds):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        for c in torch.unique(y):
            masks[0, row, order[y[order] == c][:per_class]] = True
        rest = order[~masks[0, row, order]]
        require(len(rest) >= 2, "nodes left for validation and test", len(rest))
        cut = min(500, max(1, len(rest) // 3))
        masks[1, row, rest[:cut]] = True
        masks[2, row, rest[cut : cut + 1000]] = True
    return masks[0], masks[1], masks[2]


def random_splits(
    y: Int[Tensor, " n"], shares: tuple[float, float], *, seeds: Sequence[int]
) -> tuple[Bool[Tensor, "S n"], Bool[Tensor, "S n"], Bool[Tensor, "S n"]]:
    """Random training, validation and test nodes, one split a seed.

    Args:
        y: Labels; only their number matters.
        shares: Shares of training and of validation nodes; the rest is for the test.
        seeds: One a split.

    Raises:
        ValueError: For shares that leave a part without nodes.
    """
    nodes = len(y)
    first, second = int(shares[0] * nodes), int((shares[0] + shares[1]) * nodes)
    require(0 < first < second < nodes, "shares that leave nodes in every part", shares)
    masks = torch.zeros(3, len(seeds), nodes, dtype=torch.bool)
    for row, seed in enumerate(seeds):
        order = torch.randperm(nodes, generator=torch.Generator().manual_seed(seed))
        for part, chosen in enumerate((order[:first], order[first:second], order[second:])):
            masks[part, row, chosen] = True
    return masks[0], masks[1], masks[2]


def centred_logits(logits: Float[Tensor, "*n C"]) -> tuple[Float[Tensor, "*n C"], Float[Tensor, "*n"]]:
    r"""Logits less their largest, and the logarithm of their exponentials' sum, :math:`(z', \ln \sum_c e^{z'_c})`.

    Log-probabilities are the difference. With few classes torch's softmax over the last axis costs more than a graph
    convolution; this costs a quarter to a third of it.

    Args:
        logits: :math:`z`.
    """
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return shifted, shifted.exp().sum(-1).log()


def node_entropy(logits: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    r"""Cross-entropy of every node, :math:`\ell_v = \ln \sum_c e^{z_{vc}} - z_{v y_v}`.

    The values are those of ``torch.nn.functional.cross_entropy``, by :func:`centred_logits`.

    Args:
        logits: :math:`z`.
        y: Labels.

    Raises:
        ValueError: For another number of labels.
    """
    require(logits.ndim == 2 and y.shape == logits.shape[:1], f"{len(logits)} labels", tuple(y.shape))
    shifted, total = centred_logits(logits)
    return total - shifted.gather(-1, y[:, None])[:, 0]


def tune_nodes(
    build: Callable[[], nn.Module],
    x: Tensor,
    y: Int[Tensor, " n"],
    masks: tuple[Bool[Tensor, "S n"], Bool[Tensor, "S n"], Bool[Tensor, "S n"]],
    *,
    seeds: Sequence[int],
    epochs: int,
    grid: Sequence[tuple[float, float]] = GRID,
    settings: Sequence[tuple[float, float]] | None = None,
    **options: Any,
) -> TunedNodes:
    """Train one kind of classifier on every split with every setting at once, and choose by validation accuracy.

    Args:
        build: Makes one member.
        x: Features ``[n, ...]``.
        y: Labels.
        masks: Training, validation and test nodes, one row a split, as from :func:`random_splits`.
        seeds: One a split; all settings of a split start from the same weights.
        epochs: Steps of every member.
        grid: Pairs of learning rate and weight decay.
        settings: One pair a split that was chosen elsewhere, in place of the grid.
        options: Passed to :func:`netatlas.core.message_passing.fit_nodes`; the loss defaults to :func:`node_entropy`.

    Raises:
        ValueError: For masks and seeds of different numbers, an empty grid, and what ``fit_nodes`` refuses.
    """
    splits = len(seeds)
    require(settings is None or len(settings) == splits, f"{splits} settings", len(settings or ()))
    choices = [list(grid)] * splits if settings is None else [[pair] for pair in settings]
    require(splits > 0 and len(choices[0]) > 0, "at least one setting", 0)
    require(all(m.ndim == 2 and len(m) == splits for m in masks), f"masks of {splits} rows", [m.shape for m in masks])
    train, validation, test = (mask.repeat_interleave(len(choices[0]), 0) for mask in masks)
    options.setdefault("loss", node_entropy)
    members = [(seed, pair) for seed, row in zip(seeds, choices) for pair in row]
    fitted = fit_nodes(
        build,
        x,
        y,
        train,
        validation,
        seeds=[seed for seed, _ in members],
        epochs=epochs,
        lr=torch.tensor([lr for _, (lr, _) in members]),
        weight_decay=torch.tensor([decay for _, (_, decay) in members]),
        **options,
    )
    scores = fitted.validation.cpu().reshape(splits, len(choices[0]))
    best = scores.argmax(1)
    member = torch.arange(splits) * len(choices[0]) + best
    y_cpu = y.cpu()
    logits = fitted.logits[member.to(fitted.logits.device)].cpu()
    right = (logits.argmax(-1) == y_cpu).double()

    def accuracy(mask: Tensor) -> Tensor:
        chosen = mask.cpu()[member].double()
        return (right * chosen).sum(-1) / chosen.sum(-1)

    return TunedNodes(
        accuracy(test),
        accuracy(validation),
        accuracy(train),
        [row[int(b)] for row, b in zip(choices, best)],
        logits,
        fitted,
        member,
    )
