"""Parameterised decomposition and filtering: graph matrices made entry by entry from several normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import require_undirected


class PaddedGraphs(NamedTuple):
    """Graphs of different sizes as one dense batch.

    Attributes:
        adjacency: ``[B, n, n]``, zero beyond a graph's nodes.
        x: Features ``[B, n, F]``, zero there.
        mask: Which nodes exist, ``[B, n]``.
    """

    adjacency: Tensor
    x: Tensor
    mask: Tensor


def padded_graphs(graphs: Sequence[Any]) -> PaddedGraphs:
    """A dense batch of undirected graphs with features.

    Args:
        graphs: PyG ``Data`` with ``edge_index`` and ``x``; self-loops are left out, weights ignored.

    Raises:
        ValueError: For no graphs, a graph without features or nodes, a directed one, or features of several widths.

    Source: yang2023pdf.
    """
    require(len(graphs) > 0, "at least one graph", 0)
    require(all(getattr(g, "x", None) is not None for g in graphs), "graphs with features x", "one without")
    widths = {g.x.shape[1] for g in graphs}
    require(len(widths) == 1, "features of one width", sorted(widths))
    n = max(len(g.x) for g in graphs)
    adjacency = torch.zeros(len(graphs), n, n)
    x = torch.zeros(len(graphs), n, widths.pop())
    mask = torch.zeros(len(graphs), n, dtype=torch.bool)
    for k, graph in enumerate(graphs):
        matrix = require_undirected(as_csr(graph)).toarray() > 0
        size = len(matrix)
        require(len(graph.x) == size, f"features of {size} nodes", len(graph.x))
        np.fill_diagonal(matrix, False)
        adjacency[k, :size, :size] = torch.from_numpy(matrix).float()
        x[k, :size] = graph.x.float()
        mask[k, :size] = True
    return PaddedGraphs(adjacency, x, mask)


def graph_matrix_basis(
    adjacency: Float[Tensor, "B n n"],
    mask: Bool[Tensor, "B n"],
    powers: dict[float, int],
    *,
    standardize: bool = False,
) -> Float[Tensor, "B n n b"]:
    r"""Entries of several graph matrices for every pair of nodes: the identity, and powers of each normalisation.

    .. math:: S_\epsilon = D^\epsilon \tilde A D^\epsilon, \qquad
        b_{ij} = \bigl(I, S_{\epsilon_1}, \dots, S_{\epsilon_1}^{p_1}, S_{\epsilon_2}, \dots\bigr)_{ij}

    with :math:`\tilde A = A + I` and its degrees :math:`D`: exponent -1/2 is the matrix of a graph convolution, and 0
    counts walks.

    Args:
        adjacency: Without self-loops.
        mask: Which nodes exist.
        powers: Highest power of each exponent.
        standardize: Whether to bring every matrix but the identity to mean 0 and deviation 1 over the existing pairs.

    Returns:
        ``[B, n, n, b]``, zero where a node does not exist.

    Raises:
        ValueError: For matrices and masks of other shapes, no exponents, or a power below 1.

    Source: yang2023pdf.
    """
    require(adjacency.ndim == 3 and adjacency.shape[1] == adjacency.shape[2], "adjacencies [B, n, n]", adjacency.shape)
    require(tuple(mask.shape) == tuple(adjacency.shape[:2]), f"a mask {tuple(adjacency.shape[:2])}", tuple(mask.shape))
    require(len(powers) > 0 and min(powers.values()) >= 1, "exponents with powers of at least 1", powers)
    exists = mask.to(adjacency.dtype)
    identity = torch.diag_embed(exists)
    looped = adjacency + identity
    degree = looped.sum(-1)
    found = [identity]
    for exponent, highest in powers.items():
        scale = torch.where(degree > 0, degree.clamp_min(1e-30) ** exponent, torch.zeros_like(degree))
        matrix = scale[..., :, None] * looped * scale[..., None, :]
        power = matrix
        for k in range(highest):
            found.append(power)
            if k + 1 < highest:
                power = power @ matrix
    basis = torch.stack(found, -1)
    if standardize:
        pairs = (exists[:, :, None] * exists[:, None, :])[..., None]
        count = pairs.sum()
        mean = (basis * pairs).sum((0, 1, 2)) / count
        spread = (((basis - mean) * pairs).square().sum((0, 1, 2)) / count).sqrt().clamp_min(1e-12)
        mean[0], spread[0] = 0.0, 1.0
        basis = (basis - mean) / spread * pairs
    return basis


class PairwiseFilter(nn.Module):
    r"""From the entries of the basis at a pair of nodes to the entry of every channel's own matrix.

    .. math:: f(b) = \mathrm{gelu}\bigl(W_2\, \mathrm{gelu}(W_1 b + c_1) + c_2\bigr)\ \text{(nonlinear)}, \qquad
        f(b) = W b\ \text{(linear)}

    The linear one combines fixed matrices. The nonlinear one makes matrices with eigenvectors of their own.

    Args:
        basis: Number of matrices in the basis.
        channels: Number of output matrices; 1 is shared by all channels.
        linear: Which of the two.
        hidden: Width of the nonlinear one; by default the number of channels.

    Raises:
        ValueError: For sizes below 1.

    Source: yang2023pdf.
    """

    def __init__(self, basis: int, channels: int, *, linear: bool = False, hidden: int | None = None) -> None:
        super().__init__()
        hidden = channels if hidden is None else hidden
        require(min(basis, channels, hidden) >= 1, "sizes of at least 1", (basis, channels, hidden))
        if linear:
            self.map: nn.Module = nn.Linear(basis, channels, bias=False)
        else:
            self.map = nn.Sequential(nn.Linear(basis, hidden), nn.GELU(), nn.Linear(hidden, channels), nn.GELU())

    def forward(self, basis: Float[Tensor, "*P b"]) -> Float[Tensor, "*P c"]:
        """Entries of the channels' matrices at every pair."""
        return self.map(basis)


class PDFNetwork(nn.Module):
    r"""Layers that mix every channel by its own graph matrix, for graph classification or regression.

    .. math:: v_j = \mathrm{gelu}(W x_j + c), \qquad y_i = \sum_j f(b_{ij}) \odot v_j, \qquad x \leftarrow x + y,\quad
        x \leftarrow x + \mathrm{ffn}(x)

    with :math:`\mathrm{ffn}` two linear layers, each followed by a GELU. Matrices are made once and shared by the
    layers; pairs with a missing node are left out. Readout is the mean and the sum over nodes.

    Args:
        basis: Number of matrices in the basis.
        features: Features of a node.
        width: Channels.
        layers: Number of layers.
        outputs: Outputs of a graph.
        filter: ``"shared"`` (one linear combination for all channels), ``"linear"`` (one a channel), ``"nonlinear"``.
        keep: Which matrices of the basis are used; all by default.

    Raises:
        ValueError: For an unknown filter or sizes below 1.

    Source: yang2023pdf; batch normalisation in the feed-forward part is left out.
    """

    def __init__(
        self,
        basis: int,
        features: int,
        width: int,
        layers: int,
        outputs: int,
        *,
        filter: str = "nonlinear",
        keep: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require(filter in ("shared", "linear", "nonlinear"), "a filter out of shared, linear, nonlinear", repr(filter))
        require(min(features, width, layers, outputs) >= 1, "sizes of at least 1", (features, width, layers, outputs))
        self.keep = list(range(basis)) if keep is None else list(keep)
        channels = 1 if filter == "shared" else width
        self.filter = PairwiseFilter(len(self.keep), channels, linear=filter != "nonlinear", hidden=width)
        self.embed = nn.Linear(features, width)
        self.value = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.ffn = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()) for _ in range(layers)
        )
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, packed: Float[Tensor, "B n m"]) -> Float[Tensor, "B o"]:
        """Outputs of each graph; ``packed`` is what :func:`pack_graphs` makes."""
        n = packed.shape[1]
        mask, rest = packed[..., :1], packed[..., 1:]
        features = self.embed.in_features
        x, basis = rest[..., :features], rest[..., features:].reshape(len(packed), n, n, -1)
        matrix = self.filter(basis[..., self.keep]) * mask[:, :, None] * mask[:, None]
        matrix = matrix.permute(0, 3, 1, 2)
        x = self.embed(x)
        for value, ffn in zip(self.value, self.ffn):
            v = nn.functional.gelu(value(x)).transpose(1, 2).unsqueeze(-1)
            x = x + (matrix @ v).squeeze(-1).transpose(1, 2)
            x = x + ffn(x)
        x = x * mask
        pooled = torch.cat([x.sum(1) / mask.sum(1), x.sum(1) / n**0.5], -1)
        return self.head(pooled)


def pack_graphs(graphs: PaddedGraphs, basis: Float[Tensor, "B n n b"]) -> Float[Tensor, "B n m"]:
    """Mask, features and basis entries of every node side by side, so that a graph is one row of a batch.

    Args:
        graphs: From :func:`padded_graphs`.
        basis: From :func:`graph_matrix_basis`.

    Raises:
        ValueError: For a basis of other graphs.
    """
    b, n = graphs.mask.shape
    require(tuple(basis.shape[:3]) == (b, n, n), f"a basis of shape ({b}, {n}, {n}, b)", tuple(basis.shape))
    return torch.cat([graphs.mask[..., None].to(basis.dtype), graphs.x, basis.reshape(b, n, -1)], -1)


def channel_matrices(
    filter: PairwiseFilter, basis: Float[Tensor, "n n b"], channels: Sequence[int] | None = None
) -> Float[Tensor, "c n n"]:
    """The channels' own matrices on one graph.

    Args:
        filter: The filter.
        basis: Basis of one graph.
        channels: Which channels; all by default.

    Raises:
        ValueError: For a basis of another number of axes.

    Source: yang2023pdf.
    """
    require(basis.ndim == 3, "the basis of one graph, [n, n, b]", tuple(basis.shape))
    found = filter(basis).permute(2, 0, 1)
    return found if channels is None else found[list(channels)]


def commutator_norm(first: Float[Tensor, "*B n n"], second: Float[Tensor, "*B n n"]) -> Float[Tensor, "*B"]:
    r"""How far two matrices are from sharing eigenvectors, 0 for symmetric matrices that do.

    .. math:: \frac{\lVert C_1 C_2 - C_2 C_1 \rVert_F}{\lVert C_1 \rVert_F \lVert C_2 \rVert_F}

    Args:
        first: Square matrices.
        second: Square matrices of the same size.

    Returns:
        One number a pair; 0 where a matrix is zero.

    Raises:
        ValueError: For matrices of other shapes or not finite.

    Source: yang2023pdf.
    """
    require(first.ndim >= 2 and first.shape[-1] == first.shape[-2] == second.shape[-1], "square matrices", first.shape)
    require_finite("first", first)
    require_finite("second", second)
    gap = torch.linalg.matrix_norm(first @ second - second @ first)
    size = torch.linalg.matrix_norm(first) * torch.linalg.matrix_norm(second)
    return torch.where(size > 0, gap / size.clamp_min(torch.finfo(gap.dtype).tiny), torch.zeros_like(gap))
