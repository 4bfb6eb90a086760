"""Experiments on mixtures of experts: nodes that know themselves, nodes that their neighbours know."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from netatlas.core.checks import require
from netatlas.core.message_passing import GCN, NodeFit, SparseOperator, fit_nodes, gcn_operator
from netatlas.propagation.experts import MixtureFit, fit_mixture, masked_accuracy, mix
from netatlas.propagation.tuning import NodeTask, node_entropy


def self_and_structure(
    nodes: int,
    *,
    classes: int = 4,
    degree: int = 6,
    features: int = 8,
    signal: float = 2.5,
    homophily: float = 0.85,
    seed: int = 0,
) -> Data:
    """A graph of two kinds of nodes: those whose features tell their class, and those whose neighbours do.

    Nodes of the first kind have informative features and neighbours drawn from all nodes. Nodes of the second have
    features of noise, and draw neighbours of the first kind that share their class with a probability.

    Args:
        nodes: Number of nodes, half of each kind.
        classes: Number of classes.
        degree: Mean number of neighbours; every node draws half of them.
        features: Number of features.
        signal: Norm of the class means.
        homophily: Probability that a neighbour of a structural node shares its class.
        seed: Draws the graph.

    Returns:
        ``Data`` with ``structural``, a mask of the second kind.

    Raises:
        ValueError: For fewer than four nodes a class or a probability outside [0, 1].

    Source: zeng2023mowst (our ground truth for its claim).
    """
    require(nodes >= 4 * classes and classes >= 2, "four nodes a class or more", (nodes, classes))
    require(0 <= homophily <= 1, "a probability in [0, 1]", homophily)
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=nodes)
    structural = np.arange(nodes) % 2 == 1
    means = rng.standard_normal((classes, features))
    means *= signal / np.linalg.norm(means, axis=1, keepdims=True)
    x = rng.standard_normal((nodes, features)) + np.where(structural[:, None], 0.0, means[y])
    known = np.flatnonzero(~structural)
    by_class = [known[y[known] == c] for c in range(classes)]
    require(min(map(len, by_class)) > 0, "a knowing node of every class", list(map(len, by_class)))
    head = np.repeat(np.arange(nodes), degree // 2)
    tail = rng.choice(nodes, len(head))
    own = structural[head]
    same = rng.random(len(head)) < homophily
    classed = np.where(same, y[head], (y[head] + rng.integers(1, classes, len(head))) % classes)
    pick = rng.random(len(head))
    for c in range(classes):
        here = own & (classed == c)
        tail[here] = by_class[c][(pick[here] * len(by_class[c])).astype(int)]
    kept = head != tail
    keys = np.unique(np.concatenate([head[kept] * nodes + tail[kept], tail[kept] * nodes + head[kept]]))
    return Data(
        x=torch.from_numpy(x).float(),
        y=torch.from_numpy(y),
        edge_index=torch.from_numpy(np.stack([keys // nodes, keys % nodes])),
        structural=torch.from_numpy(structural),
        num_nodes=nodes,
    )


class SkipGCN(torch.nn.Module):
    """A GCN plus the logits of a network on the node alone, trained as one.

    Args:
        widths: Features, hidden widths, classes.
        operator: The propagation.
        dropout: Share of entries dropped before every layer.

    Source: zeng2023mowst (a baseline of the same size).
    """

    def __init__(self, widths: list[int], operator: SparseOperator, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.near, self.far = GCN(widths, dropout=dropout), GCN(widths, operator, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every node."""
        return self.near(x) + self.far(x)


class ExpertRun(NamedTuple):
    """Test accuracy of every arm on one graph, one value a split, and what the gate does.

    Attributes:
        test: By arm.
        chosen: Of the two objectives of the mixture, the one with the better validation accuracy.
        gap: Mean confidence on nodes that know themselves minus that on structural ones, by arm; empty if unknown.
        permuted: Accuracy of the chosen mixture with its confidences permuted over the nodes.
    """

    test: dict[str, np.ndarray]
    chosen: np.ndarray
    gap: dict[str, np.ndarray]
    permuted: np.ndarray


def expert_run(
    task: NodeTask,
    *,
    hidden: int,
    epochs: int,
    seeds: list[int],
    grid: tuple[tuple[float, float], ...] = ((0.01, 5e-4), (0.03, 5e-4)),
    structural: Tensor | None = None,
    turns: int = 2,
    steps: int = 20,
    ablations: bool = False,
) -> ExpertRun:
    """Train weak and strong experts, their mixtures in turns, and the baselines of the same size and budget.

    Every arm chooses among the same settings by validation accuracy. Mixtures start from the separately trained
    experts and take further steps; the baselines train as much longer.

    Args:
        task: Graph, features, labels, splits.
        hidden: Hidden width of every network.
        epochs: Steps of each separate training.
        seeds: One a split.
        grid: Pairs of learning rate and weight decay.
        structural: Mask of the nodes that only their neighbours know.
        turns: Pairs of turns.
        steps: Steps of a turn.
        ablations: Whether to add the constant gate, both experts at once, and the gradient stopped at the confidence.

    Source: zeng2023mowst.
    """
    size = len(grid)
    masks = [m.repeat_interleave(size, 0) for m in task.masks]
    lr, decay = (torch.tensor([setting[k] for _ in seeds for setting in grid]) for k in (0, 1))
    members = [s for s in seeds for _ in grid]
    operator, widths = gcn_operator(task.graph), [task.x.shape[1], hidden, task.classes]
    longer = epochs + 2 * turns * steps

    def fit(build, count: int) -> NodeFit:
        return fit_nodes(
            build,
            task.x,
            task.y,
            *masks[:2],
            seeds=members,
            epochs=count,
            lr=lr,
            weight_decay=decay,
            every=5,
            loss=node_entropy,
        )

    def choose(p: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        held = masked_accuracy(p, task.y, masks[1]).reshape(-1, size)
        best = held.argmax(1)
        out = masked_accuracy(p, task.y, masks[2]).reshape(-1, size)
        row = torch.arange(len(seeds))
        return out[row, best].numpy(), held[row, best].numpy(), (row * size + best).numpy()

    weak, strong = (
        fit(lambda: GCN(widths), epochs),
        fit(lambda: GCN(widths, operator), epochs),
    )
    p, q = weak.logits.softmax(-1), strong.logits.softmax(-1)
    found = {
        "MLP": choose(p),
        "GCN": choose(fit(lambda: GCN(widths, operator), longer).logits),
        "GCN + skip": choose(fit(lambda: SkipGCN(widths, operator), longer).logits),
        "mean of experts": choose((p + q) / 2),
    }
    options = {"lr": lr, "weight_decay": decay, "turns": turns, "steps": steps, "seed": seeds[0]}

    def mixture(**more) -> MixtureFit:
        return fit_mixture(weak, strong, task.x, task.y, *masks[:2], **(options | more))

    fits = {
        "frozen gate": mixture(turns=0),
        "Mowst": mixture(objective="expected"),
        "Mowst*": mixture(objective="mixed"),
    }
    if ablations:
        fits["constant gate"] = mixture(gate="constant")
        fits["learned gate"] = mixture(gate="learned")
        fits["not in turns"] = mixture(alternate=False)
        fits["confidence detached"] = mixture(through_confidence=False)
    found |= {name: choose(fitted.mixture) for name, fitted in fits.items()}
    first = found["Mowst"][1] > found["Mowst*"][1]
    chosen = np.where(first, found["Mowst"][0], found["Mowst*"][0])
    gap, permuted = {}, []
    rng = torch.Generator().manual_seed(seeds[0])
    for k in range(len(seeds)):
        name = "Mowst" if first[k] else "Mowst*"
        member = found[name][2][k]
        fitted = fits[name]
        order = torch.randperm(task.y.shape[0], generator=rng)
        shuffled = mix(fitted.weak[member], fitted.strong[member], fitted.confidence[member][order])
        permuted.append(float(masked_accuracy(shuffled[None], task.y, masks[2][member][None])))
    if structural is not None:
        for name in ("frozen gate", "Mowst", "Mowst*"):
            rows = torch.from_numpy(found[name][2])
            c, inside = fits[name].confidence[rows], masks[2][rows]
            means = [(c * (inside & kind)).sum(1) / (inside & kind).sum(1) for kind in (~structural, structural)]
            gap[name] = (means[0] - means[1]).numpy()
    return ExpertRun({k: v[0] for k, v in found.items()}, chosen, gap, np.array(permuted))
