r"""Equivariant polynomials of a graph: their basis of marked multigraphs, what networks can compute, and PPGN."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.graph_invariants import ContractionProgram, MarkedGraph, canonical_form
from netatlas.expressivity.dense import unpack_graphs


def enumerate_marked_graphs(edges: int, *, marks: Sequence[int] = (0, 1, 2)) -> list[MarkedGraph]:
    """All connected simple graphs with so many edges and all choices of ordered marked nodes, up to isomorphism.

    Args:
        edges: Number of edges, 1 to 6.
        marks: Numbers of marked nodes to list.

    Returns:
        Canonical forms, sorted.

    Raises:
        ValueError: For a number of edges out of range, or marks out of 0, 1, 2.

    Source: puny2023polynomials.
    """
    require(1 <= edges <= 6, "1 to 6 edges", edges)
    require(len(marks) > 0 and all(m in (0, 1, 2) for m in marks), "numbers of marks out of 0, 1, 2", list(marks))
    return list(_marked_graphs(edges, tuple(marks)))


@functools.lru_cache(maxsize=32)
def _marked_graphs(edges: int, marks: tuple[int, ...]) -> tuple[MarkedGraph, ...]:
    bare = {MarkedGraph(2, ((0, 1),))}
    for _ in range(edges - 1):
        grown = set()
        for graph in bare:
            n, known = graph.nodes, set(graph.edges)
            inner = [pair for pair in itertools.combinations(range(n), 2) if pair not in known]
            for pair in inner + [(v, n) for v in range(n)]:
                grown.add(canonical_form(MarkedGraph(max(n, pair[1] + 1), (*graph.edges, pair))))
        bare = grown
    found = {
        canonical_form(MarkedGraph(g.nodes, g.edges, chosen))
        for g in bare
        for m in marks
        for chosen in itertools.permutations(range(g.nodes), m)
    }
    return tuple(sorted(found))


@functools.lru_cache(maxsize=16)
def _symmetric_program(graphs: tuple[MarkedGraph, ...]) -> ContractionProgram:
    """A program, compiled once for each list of polynomials."""
    return ContractionProgram(graphs, symmetric=True)


def contraction_reducible(graph: MarkedGraph, architecture: Literal["mpnn", "ppgn"] = "ppgn") -> bool:
    """Whether an architecture's operations can contract a marked graph to its marked nodes.

    Message passing removes unmarked nodes with at most one neighbour, PPGN's matrix products those with at most two,
    whose neighbours are then joined. The polynomial can be computed if no unmarked node is left.

    Args:
        graph: The marked graph; parallel edges count as one.
        architecture: ``"mpnn"`` or ``"ppgn"``.

    Raises:
        ValueError: For an unknown architecture or a malformed graph.

    Source: puny2023polynomials.
    """
    require(architecture in ("mpnn", "ppgn"), "an architecture out of mpnn, ppgn", repr(architecture))
    places = [v for edge in graph.edges for v in edge]
    require(all(0 <= v < graph.nodes for v in places), f"edges between nodes in [0, {graph.nodes})", graph.edges)
    most = 1 if architecture == "mpnn" else 2
    neighbours: dict[int, set[int]] = {v: set() for v in range(graph.nodes)}
    for u, v in graph.edges:
        if u != v:
            neighbours[u].add(v)
            neighbours[v].add(u)
    waiting = set(range(graph.nodes)) - set(graph.marked)
    while waiting:
        removable = [v for v in sorted(waiting) if len(neighbours[v]) <= most]
        if not removable:
            return False
        gone = removable[0]
        waiting.remove(gone)
        ends = neighbours.pop(gone)
        for v in ends:
            neighbours[v] = (neighbours[v] | ends) - {gone, v}
    return True


def missing_polynomials() -> list[MarkedGraph]:
    """The polynomials of degree 5 and 6 that PPGN cannot compute, in the order of :func:`enumerate_marked_graphs`.

    Source: puny2023polynomials.
    """
    return [g for d in (5, 6) for g in enumerate_marked_graphs(d) if not contraction_reducible(g)]


def marked_multigraphs(degree: int, marks: int) -> list[MarkedGraph]:
    """All directed multigraphs of a degree with marked nodes: the basis of polynomials of a matrix without symmetry.

    Loops, parallel edges, several components and isolated marked nodes are allowed, isolated unmarked nodes are not.

    Args:
        degree: Number of edges, 1 to 3.
        marks: Number of marked nodes, 0 to 2.

    Raises:
        ValueError: For a degree or a number of marks out of range.

    Source: puny2023polynomials.
    """
    require(1 <= degree <= 3 and marks in (0, 1, 2), "a degree of 1 to 3 and 0 to 2 marks", (degree, marks))
    found = set()
    slots = 2 * degree
    for choice in itertools.product(range(marks + slots), repeat=slots):
        fresh = [v for v in choice if v >= marks]
        # New nodes are numbered in order of first occurrence, so that every partition occurs once.
        if list(dict.fromkeys(fresh)) != list(range(marks, marks + len(set(fresh)))):
            continue
        nodes = marks + len(set(fresh))
        graph = MarkedGraph(nodes, tuple(sorted(zip(choice[::2], choice[1::2]))), tuple(range(marks)))
        found.add(canonical_form(graph, directed=True))
    return sorted(found)


def basis_outputs(matrices: Float[Tensor, "B n n"], degree: int, outputs: Literal["graph", "node", "matrix"]) -> Tensor:
    """All polynomials of a degree at random or given matrices, one column each.

    Matrix outputs are those of two marks and, on the diagonal, those of one.

    Args:
        matrices: Where to evaluate.
        degree: Number of edges.
        outputs: ``"graph"``, ``"node"`` or ``"matrix"``.

    Returns:
        ``[B * entries, polynomials]``, each column scaled to unit length; its rank is the dimension of their span.

    Raises:
        ValueError: For an unknown kind of output, or as :class:`~netatlas.core.graph_invariants.ContractionProgram`.

    Source: puny2023polynomials.
    """
    kinds = {"graph": 0, "node": 1, "matrix": 2}
    require(outputs in kinds, f"outputs out of {', '.join(kinds)}", repr(outputs))
    columns = ContractionProgram(marked_multigraphs(degree, kinds[outputs]))(matrices)
    if outputs == "matrix":
        columns += [torch.diag_embed(v) for v in ContractionProgram(marked_multigraphs(degree, 1))(matrices)]
    table = torch.stack([c.flatten() for c in columns], dim=1)
    return table / table.norm(dim=0)


def polynomial_features(
    adjacency: Float[Tensor, "B n n"],
    graphs: Sequence[MarkedGraph],
    sizes: Tensor | None = None,
    *,
    normalize: bool = True,
) -> Float[Tensor, "B n n C"]:
    r"""Polynomials as channels of pairs of nodes; marks on one node fill the diagonal, none fill all entries.

    Args:
        adjacency: Symmetric matrices, padded by zeros.
        graphs: The polynomials.
        sizes: Sizes without padding.
        normalize: Whether to divide by :math:`n^{\text{unmarked nodes}}`, with n the padded size.

    Raises:
        ValueError: As :class:`~netatlas.core.graph_invariants.ContractionProgram`.

    Source: puny2023polynomials.
    """
    n = adjacency.shape[-1]
    channels = []
    for graph, value in zip(graphs, _symmetric_program(tuple(graphs))(adjacency, sizes)):
        if value.ndim == 1:
            value = value[:, None, None].expand(-1, n, n)
        elif value.ndim == 2:
            value = torch.diag_embed(value)
        scale = float(n) ** (graph.nodes - len(graph.marked)) if normalize else 1.0
        channels.append(value / scale)
    return torch.stack(channels, dim=-1)


class PPGNBlock(nn.Module):
    r"""One block of a provably powerful graph network.

    .. math:: Y = W \bigl[X,\ \tfrac1n\, m_1([X, X^\top])\, m_2(X)\bigr] + b

    with ReLU networks :math:`m_1, m_2` on each entry and one matrix product a channel. Without the transpose it is
    PPGN, with it PPGN++.

    Args:
        inputs: Number of input channels.
        width: Number of channels of the product and of the output.
        depth: Linear layers of each network.
        transpose: Whether :math:`m_1` sees the transpose.

    Raises:
        ValueError: For sizes below 1.

    Source: puny2023polynomials.
    """

    def __init__(self, inputs: int, width: int, *, depth: int = 2, transpose: bool = True) -> None:
        super().__init__()
        require(min(inputs, width, depth) >= 1, "sizes of at least 1", (inputs, width, depth))
        self.transpose = transpose
        self.left = self._net(inputs * (2 if transpose else 1), width, depth)
        self.right = self._net(inputs, width, depth)
        self.out = nn.Linear(inputs + width, width)

    @staticmethod
    def _net(inputs: int, width: int, depth: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(inputs if i == 0 else width, width), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "*B n n C"], mask: Float[Tensor, "*B n n"]) -> Float[Tensor, "*B n n D"]:
        """Update pair features; padding is zero."""
        inside = mask[..., None]
        both = torch.cat([x, x.transpose(-2, -3)], -1) if self.transpose else x
        left, right = ((net(v) * inside).movedim(-1, -3) for net, v in ((self.left, both), (self.right, x)))
        size = mask.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1)[..., None, None]
        product = (left @ right).movedim(-3, -1) / size[..., None]
        return self.out(torch.cat([x, product], -1)) * inside


class PPGN(nn.Module):
    r"""A provably powerful graph network on packed graphs, with or without given polynomials as further inputs.

    Invariant to the numbering of nodes; without further inputs its power is that of 2-FWL.

    Args:
        features: Width of the node features.
        outputs: Width of the output.
        width: Channels.
        blocks: Number of :class:`PPGNBlock`.
        depth: Linear layers of each entrywise network.
        transpose: Whether this is PPGN++.
        extra: Number of channels of pair features handed in.
        norm: Whether to normalise the readout over the graphs of the batch, by the statistics of the batch.

    Raises:
        ValueError: For no block.

    Source: puny2023polynomials.
    """

    def __init__(
        self, features: int, outputs: int, *, width: int = 16, blocks: int = 2, depth: int = 2, transpose: bool = True,
        extra: int = 0, norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        require(blocks >= 1, "at least one block", blocks)
        self.extra, self.norm = extra, norm
        sizes = [2 + features + extra] + [width] * blocks
        options = {"depth": depth, "transpose": transpose}
        # Every block sees the identity again, as in the official code.
        self.blocks = nn.ModuleList(
            PPGNBlock(a + (i > 0), b, **options) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))
        )
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, outputs))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, packed: Float[Tensor, "G n w"], pairs: Float[Tensor, "G n n C"] | None = None) -> Tensor:
        """Outputs of packed graphs, with ``extra`` channels of pair features."""
        adjacency, mask, x = unpack_graphs(packed)
        given = 0 if pairs is None else pairs.shape[-1]
        require(given == self.extra, f"{self.extra} channels of pair features", given)
        inside = mask[..., :, None] * mask[..., None, :]
        eye = torch.diag_embed(mask)
        h = torch.cat([adjacency[..., None], eye[..., None], torch.diag_embed(x.mT).movedim(-3, -1)], -1)
        h = h if pairs is None else torch.cat([h, pairs], -1)
        for i, block in enumerate(self.blocks):
            h = block(torch.cat([h, eye[..., None]], -1) if i else h, inside)
        size = mask.sum(-1, keepdim=True).clamp_min(1)
        diagonal = h.diagonal(dim1=-3, dim2=-2).sum(-1)
        rest = h.sum((-2, -3)) - diagonal
        pooled = torch.cat([diagonal / size, rest / (size * (size - 1)).clamp_min(1)], -1)
        if self.norm:
            pooled = (pooled - pooled.mean(0)) * (pooled.var(0, correction=0) + 1e-5).rsqrt()
        return self.head(pooled)
