r"""Graph networks on padded dense graphs, so that many small graphs and many seeds are one batch of matrix products."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.graph_invariants import collect_graphs, dense_adjacency
from netatlas.core.message_passing import SparseOperator

Convolution = Literal["gin", "gcn", "sage", "gat"]


def pack_graphs(graphs: Iterable[Any], *, features: bool = True) -> Float[Tensor, "G n n+1+F"]:
    """Graphs as one tensor: adjacency matrix, node mask and node features side by side, padded by zeros.

    Args:
        graphs: PyG ``Data`` with features ``x`` ``[n, F]``, or other graphs that
            :func:`~netatlas.core.graph_invariants.collect_graphs` takes.
        features: Whether to use ``x``; otherwise, and where there is none, the only feature is 1.

    Returns:
        float32 ``[G, n, n + 1 + F]``.

    Raises:
        ValueError: For a bad graph, or features that are NaN or of several widths.
    """
    graphs = list(graphs)
    adjacency, sizes = dense_adjacency(graphs)
    count, n = adjacency.shape[:2]
    mask = (torch.arange(n) < sizes[:, None]).float()
    given = [getattr(g, "x", None) if features else None for g in graphs]
    if any(x is None for x in given):
        x = mask[:, :, None]
    else:
        widths = {tuple(v.shape[1:]) for v in given}
        require(len(widths) == 1 and len(next(iter(widths))) == 1, "features [n, F] of one width", sorted(widths))
        x = torch.zeros(count, n, given[0].shape[1])
        for i, value in enumerate(given):
            require(len(value) == int(sizes[i]), f"features of {int(sizes[i])} nodes", len(value))
            x[i, : len(value)] = value
    require_finite("features", x)
    return torch.cat([adjacency.float(), mask[:, :, None], x], dim=2)


def unpack_graphs(packed: Float[Tensor, "*B n w"]) -> tuple[Tensor, Tensor, Tensor]:
    """Adjacency ``[*B, n, n]``, mask ``[*B, n]`` and features ``[*B, n, F]`` of packed graphs.

    Raises:
        ValueError: For a tensor that is too narrow to be a pack of graphs.
    """
    n = packed.shape[-2]
    require(packed.shape[-1] > n + 1, f"packed graphs of width above {n + 1}", tuple(packed.shape))
    return packed[..., :n], packed[..., n], packed[..., n + 1 :]


class MaskedNorm(nn.Module):
    """Batch normalisation over the nodes that are no padding, always by the statistics of the batch.

    Args:
        width: Number of features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        require(width >= 1, "a width of at least 1", width)
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "G n F"], mask: Float[Tensor, "G n"]) -> Tensor:
        """Normalise ``x``; padding stays zero."""
        weight = mask[..., None]
        count = weight.sum().clamp_min(1)
        mean = (x * weight).sum((0, 1)) / count
        variance = ((x - mean).square() * weight).sum((0, 1)) / count
        return ((x - mean) * (variance + 1e-5).rsqrt() * self.scale + self.shift) * weight


class DenseConv(nn.Module):
    r"""One convolution of a standard kind on padded dense graphs.

    .. math::
        \text{gin:}\ & \mathrm{MLP}\bigl((1 + \epsilon) h_v + \textstyle\sum_{u \in N(v)} h_u\bigr) \\
        \text{gcn:}\ & W \textstyle\sum_{u \in N(v) \cup v} h_u / \sqrt{(1 + d_u)(1 + d_v)} \\
        \text{sage:}\ & W_1 h_v + W_2\, \mathrm{mean}_{u \in N(v)} h_u \\
        \text{gat:}\ & \textstyle\sum_{u \in N(v) \cup v} \alpha_{vu} W h_u, \quad
        \alpha_{vu} \propto \exp \mathrm{LeakyReLU}(a^\top W h_v + b^\top W h_u)

    Args:
        kind: ``"gin"``, ``"gcn"``, ``"sage"`` or ``"gat"``.
        inputs: Width of the input.
        outputs: Width of the output.

    Raises:
        ValueError: For an unknown kind.
    """

    def __init__(self, kind: Convolution, inputs: int, outputs: int) -> None:
        super().__init__()
        require(kind in ("gin", "gcn", "sage", "gat"), "a kind out of gin, gcn, sage, gat", repr(kind))
        require(inputs >= 1 and outputs >= 1, "widths of at least 1", (inputs, outputs))
        self.kind = kind
        if kind == "gin":
            self.eps = nn.Parameter(torch.zeros(1))
            self.net = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))
        elif kind == "sage":
            self.own, self.other = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)
        else:
            self.linear = nn.Linear(inputs, outputs, bias=kind == "gcn")
            if kind == "gat":
                self.attend = nn.Parameter(torch.randn(2, outputs) * outputs**-0.5)

    def forward(
        self, adjacency: Float[Tensor, "G n n"], mask: Float[Tensor, "G n"], h: Float[Tensor, "G n F"]
    ) -> Tensor:
        """Update ``h``; entry ``[u, v]`` of the adjacency is the edge from u to v. Padding is zero."""
        incoming = adjacency.mT
        if self.kind == "gin":
            h = self.net((1 + self.eps) * h + incoming @ h)
        elif self.kind == "gcn":
            loops = incoming + torch.diag_embed(mask)
            scale = loops.sum(-1).clamp_min(1).rsqrt()
            h = self.linear(scale[..., None] * (loops @ (scale[..., None] * h)))
        elif self.kind == "sage":
            h = self.own(h) + self.other(incoming @ h / incoming.sum(-1, keepdim=True).clamp_min(1))
        else:
            values = self.linear(h)
            scores = nn.functional.leaky_relu(
                (values @ self.attend[0])[..., :, None] + (values @ self.attend[1])[..., None, :], 0.2
            )
            loops = incoming + torch.diag_embed(mask)
            scores = scores.masked_fill(loops == 0, -torch.inf).masked_fill(mask[..., None] == 0, 0.0)
            h = torch.softmax(scores, -1) @ values
        return h * mask[..., None]


class DenseGNN(nn.Module):
    r"""A message-passing network on packed graphs: convolutions, the sums over nodes of all layers, a linear head.

    .. math:: y = W \,\bigl\Vert_{t=0}^{T} \textstyle\sum_v h_v^{(t)} + b

    Invariant to the numbering of nodes, and bounded in power by colour refinement.

    Args:
        features: Width of the node features.
        outputs: Width of the output.
        conv: Kind of :class:`DenseConv`.
        width: Width of the hidden layers.
        layers: Number of convolutions; 0 is a bag of features.
        norm: Whether to apply :class:`MaskedNorm` after each convolution.
        head: Hidden widths of the head; none is a linear head.

    Raises:
        ValueError: For an unknown convolution or a negative number of layers.
    """

    def __init__(
        self, features: int, outputs: int, *, conv: Convolution = "gin", width: int = 32, layers: int = 3,
        norm: bool = True, head: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        require(layers >= 0, "a non-negative number of layers", layers)
        widths = [features] + [width] * layers
        self.convs = nn.ModuleList(DenseConv(conv, a, b) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(MaskedNorm(width) for _ in range(layers)) if norm else None
        sizes = [sum(widths), *head, outputs]
        linear = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
        self.head = nn.Sequential(*[m for layer in linear for m in (layer, nn.ReLU())][:-1])

    def embed(self, packed: Float[Tensor, "G n w"]) -> Float[Tensor, "G E"]:
        """The sums over nodes of all layers."""
        adjacency, mask, h = unpack_graphs(packed)
        sums = [h.sum(-2)]
        for i, conv in enumerate(self.convs):
            h = conv(adjacency, mask, h)
            h = torch.relu(self.norms[i](h, mask) if self.norms is not None else h)
            sums.append(h.sum(-2))
        return torch.cat(sums, -1)

    def forward(self, packed: Float[Tensor, "G n w"]) -> Float[Tensor, "G C"]:
        """Outputs of packed graphs."""
        return self.head(self.embed(packed))


class UnionGIN(nn.Module):
    r"""The network of :class:`DenseGNN` with ``conv="gin"``, by sparse products on the disjoint union of graphs.

    Parameters have the same names, shapes and initial values, and outputs agree up to rounding. There is no padding,
    which pays where the whole set is one batch; members that share the set share each product.

    Args:
        graphs: As :func:`pack_graphs` takes them; ``forward`` gets the features of their nodes, one after the other.
        model: The network whose parameters and shape are taken over, as a copy.

    Raises:
        ValueError: For a bad graph, or a network of another convolution.
    """

    def __init__(self, graphs: Iterable[Any], model: DenseGNN) -> None:
        super().__init__()
        require(all(c.kind == "gin" for c in model.convs), "a network of gin", [c.kind for c in model.convs])
        many = collect_graphs(list(graphs), node_labels=False, edge_labels=False)
        entries = (np.ones(len(many.indices), dtype=np.float32), many.indices, many.indptr)
        nodes = int(many.offsets[-1])
        adjacency = sp.csr_array(entries, shape=(nodes, nodes))
        self.closed = SparseOperator(adjacency + sp.eye_array(nodes, dtype=np.float32, format="csr"))
        ones = (np.ones(nodes, dtype=np.float32), np.arange(nodes), many.offsets)
        self.members = SparseOperator(sp.csr_array(ones, shape=(many.num_graphs, nodes)))
        own = copy.deepcopy(model)
        self.convs, self.norms, self.head = own.convs, own.norms, own.head

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "G C"]:
        """Outputs of all graphs."""
        require(x.shape[-2] == self.closed.shape[0], f"features of {self.closed.shape[0]} nodes", x.shape[-2])
        sums, h = [self.members(x)], x
        for i, conv in enumerate(self.convs):
            first, _, second = conv.net
            h = second(first(torch.addcmul(self.closed(h), h, conv.eps)).relu_())
            if self.norms is not None:
                norm, mean = self.norms[i], h.mean(-2, keepdim=True)
                spread = (h.var(-2, correction=0, keepdim=True) + 1e-5).rsqrt()
                h = (h - mean) * (spread * norm.scale) + norm.shift
            h = torch.relu(h)
            sums.append(self.members(h))
        return self.head(torch.cat(sums, -1))


def node_features(graphs: Iterable[Any]) -> Float[Tensor, "n F"]:
    """Features of the nodes of all graphs, one graph after the other; 1 where a graph has none.

    Args:
        graphs: As :func:`pack_graphs` takes them.

    Raises:
        ValueError: For graphs with features beside graphs without.
    """
    graphs = list(graphs)
    given = [getattr(g, "x", None) for g in graphs]
    if all(x is None for x in given):
        return torch.ones(int(collect_graphs(graphs, node_labels=False, edge_labels=False).offsets[-1]), 1)
    require(all(x is not None for x in given), "features for all graphs or none", "a mixture")
    return torch.cat([torch.as_tensor(x, dtype=torch.float32) for x in given])
