"""Graph transfer: one node must tell another, far away, what it holds."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Data

from netatlas.core.checks import require
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.train import Ensemble, fit_many

Layer = Literal["gin", "gcn", "sage"]


def transfer_inputs(nodes: int, source: int, *, classes: int = 5) -> tuple[Float[Tensor, "C n F"], Int[Tensor, " C"]]:
    """All inputs of the transfer task: a one-hot class at the source, ones at every other node.

    There are as many different inputs as classes, so that training and test are the same rows.

    Args:
        nodes: Number of nodes.
        source: The node that holds the class.
        classes: Number of classes.

    Raises:
        ValueError: For a source out of range or fewer than two classes.

    Source: digiovanni2023oversquashing.
    """
    require(0 <= source < nodes, f"a source in [0, {nodes})", source)
    require(classes >= 2, "at least two classes", classes)
    x = torch.ones(classes, nodes, classes)
    x[:, source] = torch.eye(classes)
    return x, torch.arange(classes)


class TransferNetwork(nn.Module):
    r"""Message passing without residuals or normalisation layers, read out at one node.

    .. math:: h \leftarrow \mathrm{mlp}\bigl((1 + \epsilon) h + A h\bigr)\ \text{(gin)}, \quad
        \mathrm{relu}(\hat A h W)\ \text{(gcn)}, \quad \mathrm{relu}(h W_1 + D^{-1} A h W_2)\ \text{(sage)}

    with :math:`\mathrm{mlp}` two linear layers, each followed by a rectifier.

    Args:
        graph: The graph, with the node to read in ``graph.target``.
        features: Features of a node.
        width: Hidden width.
        layers: Number of layers.
        classes: Number of classes.
        kind: ``"gin"``, ``"gcn"`` or ``"sage"``.

    Raises:
        ValueError: For an unknown kind or sizes below 1.

    Source: digiovanni2023oversquashing.
    """

    def __init__(
        self, graph: Data, features: int, width: int, layers: int, classes: int, *, kind: Layer = "gin"
    ) -> None:
        super().__init__()
        require(kind in ("gin", "gcn", "sage"), "a kind out of gin, gcn, sage", repr(kind))
        require(min(features, width, layers, classes) >= 1, "sizes of at least 1", (features, width, layers, classes))
        matrix = as_csr(graph)
        if kind != "gin":
            matrix = normalized_adjacency(matrix, "sym" if kind == "gcn" else "row", self_loops=kind == "gcn")
        # Not a buffer: all members share one graph.
        self.step, self.target, self.kind = torch.from_numpy(matrix.toarray()).float(), int(graph.target), kind
        sizes = [features, *[width] * layers]
        outputs = 2 if kind == "sage" else 1
        self.first = nn.ModuleList(nn.Linear(a, outputs * b) for a, b in zip(sizes, sizes[1:]))
        self.second = nn.ModuleList(nn.Linear(b, b) for b in sizes[1:]) if kind == "gin" else None
        self.epsilon = nn.Parameter(torch.zeros(layers)) if kind == "gin" else None
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "B n F"]) -> Float[Tensor, "B C"]:
        """Logits at the target."""
        step = self.step.to(x.device)
        for depth, first in enumerate(self.first):
            if self.kind == "gin":
                mixed = torch.relu(first((1 + self.epsilon[depth]) * x + step @ x))
                x = torch.relu(self.second[depth](mixed))
            elif self.kind == "gcn":
                x = torch.relu(step @ first(x))
            else:
                own, far = first(x).chunk(2, -1)
                x = torch.relu(own + step @ far)
        return self.head(x[:, self.target])


def fit_transfer(
    graph: Data, *, layers: int, width: int, seeds: list[int], lrs: list[float], steps: int, kind: Layer = "gin"
) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"], Ensemble]:
    """Train on the transfer task, every seed with every learning rate at once.

    Args:
        graph: From :mod:`netatlas.propagation.bottlenecks`.
        layers: Number of layers.
        width: Hidden width.
        seeds: Seeds of the weights.
        lrs: Learning rates of Adam; one is chosen for the arm, that of the lowest mean final loss.
        steps: Steps on all inputs.
        kind: As in :class:`TransferNetwork`.

    Returns:
        Accuracy and final loss of each seed at the chosen rate, and all members.

    Raises:
        ValueError: For no seeds or rates.

    Source: digiovanni2023oversquashing.
    """
    require(len(seeds) > 0 and len(lrs) > 0, "at least one seed and one rate", (len(seeds), len(lrs)))
    x, y = transfer_inputs(int(graph.num_nodes), int(graph.source))
    ensemble = fit_many(
        lambda: TransferNetwork(graph, x.shape[-1], width, layers, len(y), kind=kind),
        x,
        y,
        seeds=[s for s in seeds for _ in lrs],
        epochs=steps,
        batch_size=len(y),
        optimizer="adam",
        lr=torch.tensor(lrs).repeat(len(seeds)),
        diverged="keep",
    )
    logits = ensemble.predict(x)
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none")
    losses = losses.reshape(len(seeds), len(lrs), -1).mean(-1).nan_to_num(torch.inf)
    best = int(losses.mean(0).argmin())
    right = (logits.argmax(-1) == y).float().mean(-1).reshape(len(seeds), len(lrs))
    return right[:, best], losses[:, best], ensemble
