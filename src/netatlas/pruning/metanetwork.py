r"""Meta-pruning: a graph network that changes a network's weights so that pruning by norms hurts it less.

A multilayer perceptron is a layered graph: a node a neuron (its bias the feature), an edge a weight. Edges between two
layers are held as dense tensors, so that messages are products and reductions without any list of edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.train import Params

from .stacked import layer_count


class LayeredGraph(NamedTuple):
    """Graphs of a batch of networks of one shape.

    Attributes:
        nodes: For each layer of neurons ``[nets, units, features]``: the bias, 0 for inputs.
        edges: For each layer of weights ``[nets, inputs, outputs, features]``.
    """

    nodes: list[Tensor]
    edges: list[Tensor]


def network_to_graph(params: Mapping[str, Tensor]) -> LayeredGraph:
    """Stacked perceptrons as graphs.

    Args:
        params: Weights ``[nets, out, in]`` and biases ``[nets, out]``.

    Raises:
        ValueError: For no layer, a layer without bias, or values that are not finite.

    Source:
        liu2025metapruning.
    """
    depth = layer_count(params)
    require(depth >= 1, "at least one layer", depth)
    for name, value in params.items():
        require_finite(name, value)
    first = params["layers.0.weight"]
    nodes = [first.new_zeros(len(first), first.shape[2], 1)]
    edges = []
    for i in range(depth):
        require(f"layers.{i}.bias" in params, "a bias in every layer", sorted(params))
        nodes.append(params[f"layers.{i}.bias"][..., None])
        edges.append(params[f"layers.{i}.weight"].mT[..., None])
    return LayeredGraph(nodes, edges)


def graph_to_network(graph: LayeredGraph) -> Params:
    """The inverse of :func:`network_to_graph`.

    Args:
        graph: With one feature a node and an edge.

    Raises:
        ValueError: For other numbers of features, or of layers.
    """
    require(len(graph.nodes) == len(graph.edges) + 1, f"{len(graph.edges) + 1} layers of nodes", len(graph.nodes))
    require(all(v.shape[-1] == 1 for v in [*graph.nodes, *graph.edges]), "one feature each", graph.edges[0].shape)
    found: Params = {}
    for i, (edge, node) in enumerate(zip(graph.edges, graph.nodes[1:])):
        found[f"layers.{i}.weight"], found[f"layers.{i}.bias"] = edge[..., 0].mT, node[..., 0]
    return found


def aggregate(messages: Float[Tensor, "nets senders receivers h"]) -> Float[Tensor, "nets receivers four_h"]:
    """Mean, standard deviation, maximum and minimum of what each receiver is sent, side by side."""
    mean = messages.mean(1)
    spread = (messages - mean[:, None]).square().mean(1).add(1e-6).sqrt()
    return torch.cat([mean, spread, messages.amax(1), messages.amin(1)], -1)


class MetanetworkLayer(nn.Module):
    r"""One round of messages along the edges and against them, the same weights for both directions.

    .. math:: m_{ij} = f_2(x_i) \odot f_1(x_j) \odot e_{ij}, \qquad e_{ij}' = f_3(x_j) \odot f_4(x_i) \odot e_{ij}

    with :math:`j` the sender, :math:`i` the receiver. Against the edges, :math:`e` is multiplied by a vector of which
    one half is 1 and the other -1, and so is the edges' update.

    Args:
        width: Hidden features, even.

    Source:
        liu2025metapruning.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        require(width >= 2 and width % 2 == 0, "an even width", width)
        self.sender, self.receiver, self.edge_sender, self.edge_receiver = (nn.Linear(width, width) for _ in range(4))
        self.merge = nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.register_buffer("inverter", torch.cat([torch.ones(width // 2), -torch.ones(width // 2)]))

    def _send(self, senders: Tensor, receivers: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        act = nn.functional.silu
        pair = act(self.receiver(receivers))[:, None] * act(self.sender(senders))[:, :, None] * edges
        change = act(self.edge_sender(senders))[:, :, None] * act(self.edge_receiver(receivers))[:, None] * edges
        return self.merge(aggregate(pair)), change

    def forward(self, nodes: list[Tensor], edges: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """New features of nodes and edges, lists as in :class:`LayeredGraph`."""
        calm = [self.norm(x) for x in nodes]
        new_nodes, new_edges = list(nodes), []
        for i, e in enumerate(edges):
            ahead, change = self._send(calm[i], calm[i + 1], e)
            back, reverse = self._send(calm[i + 1], calm[i], (e * self.inverter).transpose(1, 2))
            new_nodes[i + 1] = new_nodes[i + 1] + ahead
            new_nodes[i] = new_nodes[i] + back
            new_edges.append(e + change + self.inverter * reverse.transpose(1, 2))
        return new_nodes, new_edges


class Metanetwork(nn.Module):
    r"""Weights in, weights out: :math:`W' = W + \rho\,\mathrm{decode}(\mathrm{layers}(\mathrm{encode}(W)))`.

    Args:
        width: Hidden features.
        layers: Rounds of messages.
        ratio: :math:`\rho`.

    Source:
        liu2025metapruning.
    """

    def __init__(self, width: int = 16, layers: int = 3, ratio: float = 0.01) -> None:
        super().__init__()
        self.ratio = ratio
        self.node_in, self.edge_in = nn.Linear(1, width), nn.Linear(1, width)
        self.layers = nn.ModuleList(MetanetworkLayer(width) for _ in range(layers))
        self.node_out, self.edge_out = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
            for _ in range(2)
        )

    def forward(self, params: Mapping[str, Tensor], seen: Mapping[str, Tensor] | None = None) -> Params:
        """New parameters.

        Args:
            params: Stacked perceptrons, to which the change is added.
            seen: Parameters whose graph is read instead (for ablations).
        """
        graph = network_to_graph(params if seen is None else seen)
        nodes, edges = [self.node_in(x) for x in graph.nodes], [self.edge_in(e) for e in graph.edges]
        for layer in self.layers:
            nodes, edges = layer(nodes, edges)
        change = graph_to_network(LayeredGraph([self.node_out(x) for x in nodes], [self.edge_out(e) for e in edges]))
        return {n: p + self.ratio * change[n] for n, p in params.items()}


def group_norms(params: Mapping[str, Tensor]) -> list[Float[Tensor, "nets units"]]:
    r"""Norm of everything that belongs to a hidden unit: weights in, bias, weights out.

    Args:
        params: Stacked perceptrons.
    """
    found = []
    for i in range(layer_count(params) - 1):
        square = params[f"layers.{i}.weight"].square().sum(-1) + params[f"layers.{i + 1}.weight"].square().sum(-2)
        if f"layers.{i}.bias" in params:
            square = square + params[f"layers.{i}.bias"].square()
        found.append((square + 1e-20).sqrt())
    return found


def group_sparsity(params: Mapping[str, Tensor], *, base: float = 16.0) -> Float[Tensor, " nets"]:
    r"""Weighted group decay: :math:`\tfrac12 \sum_g \gamma_g \|w_g\|^2`, :math:`\gamma_g = 16^{(I_{\max}-I_g)/(I_{\max}-I_{\min})}`.

    :math:`I_g` is :func:`group_norms`, its extremes are taken in each layer, and no gradient flows through
    :math:`\gamma`. The strongest group decays with factor 1, the weakest with 16.

    Args:
        params: Stacked perceptrons.
        base: 16 above.

    Returns:
        One value a network; a layer whose groups are all equal counts with factor 1.

    Raises:
        ValueError: For a base below 1.

    Source:
        liu2025metapruning.
    """  # noqa: E501
    require(base >= 1, "a base of at least 1", base)
    total: Tensor = torch.zeros(1)
    for norm in group_norms(params):
        size = norm.detach()
        high, low = size.amax(1, keepdim=True), size.amin(1, keepdim=True)
        spread = (high - low).clamp_min(torch.finfo(size.dtype).tiny)
        factor = base ** ((high - size) / spread)
        total = total.to(norm.device) + 0.5 * (factor * norm.square()).sum(1)
    return total


def keep_for_cost(
    norms: Sequence[Float[Tensor, "nets units"]], sizes: Sequence[int], speedup: float
) -> list[Bool[Tensor, "nets units"]]:
    """Hidden units that stay when the weakest groups of all layers go, one by one, until the cost is low enough.

    Args:
        norms: Of :func:`group_norms`.
        sizes: Inputs, hidden and output widths.
        speedup: Multiply-adds of the full network over those of the pruned one, at least 1.

    Returns:
        Masks; every layer keeps at least one unit.

    Raises:
        ValueError: For a speedup below 1, or norms that are not finite.
    """
    require(speedup >= 1, "a speedup of at least 1", speedup)
    for norm in norms:
        require_finite("norms", norm)
    inputs, classes, widths = sizes[0], sizes[-1], [n.shape[1] for n in norms]
    kept = [torch.ones_like(n, dtype=torch.bool) for n in norms]
    full = sum(a * b for a, b in zip(sizes, sizes[1:]))
    for net in range(len(norms[0])):
        order = torch.cat([n[net] for n in norms]).argsort(stable=True).tolist()
        left = list(widths)
        for unit in order:
            chain = [inputs, *left, classes]
            if sum(a * b for a, b in zip(chain, chain[1:])) * speedup <= full:
                break
            layer = 0
            while unit >= widths[layer]:
                unit, layer = unit - widths[layer], layer + 1
            if left[layer] > 1:
                kept[layer][net, unit] = False
                left[layer] -= 1
    return kept


def unit_masks(params: Mapping[str, Tensor], kept: Sequence[Tensor]) -> dict[str, Tensor]:
    """Masks of weights and biases that switch hidden units off.

    Args:
        params: Stacked perceptrons.
        kept: For each hidden layer ``[nets, units]``.
    """
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in params.items()}
    for i, units in enumerate(kept):
        masks[f"layers.{i}.weight"] = masks[f"layers.{i}.weight"] & units[..., None]
        masks[f"layers.{i + 1}.weight"] = masks[f"layers.{i + 1}.weight"] & units[:, None]
        if f"layers.{i}.bias" in masks:
            masks[f"layers.{i}.bias"] = units
    return masks
