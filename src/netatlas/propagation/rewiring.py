"""Rewiring: edges added where they relieve a bottleneck, by resistance, spectral gap, curvature or chance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csgraph
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import inverse_power, require_undirected
from netatlas.core.resistance import add_edge, biharmonic_squared, laplacian_pinv, resistance_matrix

# Rank-one updates drift in the last digits; the inverse is made anew after so many.
_REFRESH = 50


class Rewired(NamedTuple):
    """Edges that were added to a graph.

    Attributes:
        edges: The new edges in the order of their choice, ``[k, 2]``, smaller node first.
        total: Total effective resistance before and after each, ``[k + 1]``; infinite for a disconnected graph.
    """

    edges: np.ndarray
    total: np.ndarray


def _start(graph: Any, count: int) -> tuple[np.ndarray, np.ndarray, bool]:
    matrix = require_undirected(as_csr(graph))
    require(not matrix.diagonal().any(), "a graph without self-loops", int((matrix.diagonal() > 0).sum()))
    require(count >= 0, "a count of at least 0", count)
    parts, component = csgraph.connected_components(matrix, directed=False)
    adjacency = matrix.toarray()
    allowed = (adjacency == 0) & (component[:, None] == component[None, :])
    allowed = np.triu(allowed, 1)
    require(int(allowed.sum()) >= count, f"room for {count} edges inside components", int(allowed.sum()))
    return adjacency, allowed, parts == 1


def _first_best(score: np.ndarray, allowed: np.ndarray) -> tuple[int, int]:
    """The allowed pair of the largest score; of scores equal up to rounding, the first by index."""
    masked = np.where(allowed, score, -np.inf)
    best = masked.max()
    flat = int(np.argmax(masked >= best - 1e-9 * max(abs(best), 1e-300)))
    return flat // len(score), flat % len(score)


def resistance_gain(pinv: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    r"""By how much an edge between any two nodes lowers the total effective resistance.

    .. math:: R_{\text{tot}}(G) - R_{\text{tot}}(G + uv) = n\, \frac{B_{uv}^2}{1 + R_{uv}}

    Args:
        pinv: Pseudo-inverse of the Laplacian of a connected graph.

    Raises:
        ValueError: For a matrix that is not square or not finite.

    Source: black2023resistance.
    """
    return len(pinv) * biharmonic_squared(pinv) / (1 + resistance_matrix(pinv))


def gtr_edges(graph: Any, count: int) -> Rewired:
    r"""Greedy total resistance: one edge after the other, each the one that lowers the total resistance most.

    Scores are those of :func:`resistance_gain` inside a component; the pseudo-inverse follows by Sherman-Morrison. Ties
    go to the first pair by index.

    Args:
        graph: Undirected, without self-loops; weights are conductances, new edges have weight 1.
        count: Number of edges :math:`k`. Nodes of different components are never joined.

    Raises:
        ValueError: For a directed or bad graph, self-loops, a negative count, or too few free pairs.

    Source: black2023resistance, Algorithm GTR.
    """
    adjacency, allowed, connected = _start(graph, count)
    pinv, chosen = laplacian_pinv(adjacency), []
    totals = [len(pinv) * pinv.trace()]
    for step in range(count):
        u, v = _first_best(resistance_gain(pinv), allowed)
        chosen.append((u, v))
        allowed[u, v] = False
        adjacency[u, v] = adjacency[v, u] = 1.0
        pinv = laplacian_pinv(adjacency) if (step + 1) % _REFRESH == 0 else add_edge(pinv, u, v)
        totals.append(len(pinv) * pinv.trace())
    return Rewired(np.array(chosen, np.int64).reshape(-1, 2), _totals(totals, connected))


def _totals(totals: list[float], connected: bool) -> np.ndarray:
    return np.array(totals) if connected else np.full(len(totals), np.inf)


def _totals_of(graph: Any, edges: np.ndarray) -> Rewired:
    adjacency, _, connected = _start(graph, 0)
    pinv = laplacian_pinv(adjacency)
    totals = [len(pinv) * pinv.trace()]
    for u, v in edges:
        pinv = add_edge(pinv, int(u), int(v))
        totals.append(len(pinv) * pinv.trace())
    return Rewired(edges, _totals(totals, connected))


def fosr_edges(graph: Any, count: int) -> Rewired:
    r"""First-order spectral rewiring: edges that raise the spectral gap to first order.

    .. math:: \arg\min_{u, v}\; \frac{x_u x_v}{\sqrt{(1 + d_u)(1 + d_v)}}

    with :math:`x` the eigenvector of :math:`D^{-1/2} A D^{-1/2}` for its second largest eigenvalue, computed exactly
    after each edge.

    Args:
        graph: Undirected, without self-loops.
        count: Number of edges.

    Raises:
        ValueError: As :func:`gtr_edges`.

    Source: a peer in black2023resistance; FoSR is arXiv:2210.11790.
    """
    adjacency, allowed, _ = _start(graph, count)
    chosen = []
    for _ in range(count):
        degree = adjacency.sum(1)
        scale = inverse_power(degree, 0.5)
        x = np.linalg.eigh(scale[:, None] * adjacency * scale)[1][:, -2] if len(adjacency) > 1 else np.ones(1)
        side = x / np.sqrt(1 + degree)
        u, v = _first_best(-np.outer(side, side), allowed)
        chosen.append((u, v))
        allowed[u, v] = False
        adjacency[u, v] = adjacency[v, u] = 1.0
    return _totals_of(graph, np.array(chosen, np.int64).reshape(-1, 2))


def forman_curvature(adjacency: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    r"""Balanced Forman curvature of the edges without its term of four-cycles; NaN where there is no edge.

    .. math:: \kappa_{ij} = \frac{2}{d_i} + \frac{2}{d_j} - 2 + \frac{2 t_{ij}}{\max(d_i, d_j)}
        + \frac{t_{ij}}{\min(d_i, d_j)}

    with :math:`t_{ij}` triangles on the edge.

    Args:
        adjacency: Symmetric, 0 or 1, zero diagonal.

    Raises:
        ValueError: For another matrix.

    Source: after the curvature of SDRF, arXiv:2111.14522, a peer in black2023resistance.
    """
    a = np.asarray(adjacency, dtype=float)
    require(a.ndim == 2 and a.shape[0] == a.shape[1], "a square matrix", a.shape)
    require(bool(np.isin(a, (0, 1)).all() and (a == a.T).all() and not a.diagonal().any()), "a simple graph", "other")
    degree = np.maximum(a.sum(1), 1)
    low, high = np.minimum.outer(degree, degree), np.maximum.outer(degree, degree)
    triangles = a @ a
    value = 2 / degree[:, None] + 2 / degree[None, :] - 2 + 2 * triangles / high + triangles / low
    return np.where(a > 0, value, np.nan)


def curvature_edges(graph: Any, count: int) -> Rewired:
    """Edges across the most negatively curved edge, one after the other.

    Each step takes the edge of lowest :func:`forman_curvature` that has a free pair of neighbours, one of either end,
    and joins the pair that raises that curvature most; a deterministic form of SDRF without removals.

    Args:
        graph: Undirected, unweighted, without self-loops.
        count: Number of edges.

    Raises:
        ValueError: As :func:`gtr_edges`, and where no edge has a free pair left.

    Source: after SDRF, arXiv:2111.14522, a peer in black2023resistance.
    """
    adjacency, allowed, _ = _start(graph, count)
    adjacency = (adjacency > 0).astype(float)
    free = allowed | allowed.T
    chosen = []
    for _ in range(count):
        curvature = forman_curvature(adjacency)
        rows, columns = np.nonzero(np.triu(adjacency, 1))
        found = None
        for edge in np.argsort(np.round(curvature[rows, columns], 9), kind="stable"):
            i, j = int(rows[edge]), int(columns[edge])
            ends = [np.append(np.flatnonzero(adjacency[k]), k) for k in (i, j)]
            pairs = free[np.ix_(*ends)]
            if not pairs.any():
                continue
            gains = np.full(pairs.shape, -np.inf)
            for a, b in zip(*np.nonzero(pairs)):
                trial = adjacency.copy()
                trial[ends[0][a], ends[1][b]] = trial[ends[1][b], ends[0][a]] = 1.0
                gains[a, b] = forman_curvature(trial)[i, j]
            a, b = _first_best_rectangular(gains)
            found = int(ends[0][a]), int(ends[1][b])
            break
        require(found is not None, "an edge with a free pair of neighbours", "none")
        u, v = sorted(found)
        chosen.append((u, v))
        free[u, v] = free[v, u] = False
        adjacency[u, v] = adjacency[v, u] = 1.0
    return _totals_of(graph, np.array(chosen, np.int64).reshape(-1, 2))


def _first_best_rectangular(gains: np.ndarray) -> tuple[int, int]:
    flat = int(np.argmax(gains >= gains.max() - 1e-12))
    return flat // gains.shape[1], flat % gains.shape[1]


def random_edges(graph: Any, count: int, *, seed: int = 0) -> Rewired:
    """Edges between free pairs of one component, drawn uniformly without replacement.

    Args:
        graph: Undirected, without self-loops.
        count: Number of edges.
        seed: Draws the pairs.

    Raises:
        ValueError: As :func:`gtr_edges`.

    Source: black2023resistance (a control).
    """
    _, allowed, _ = _start(graph, count)
    pairs = np.argwhere(allowed)
    chosen = pairs[np.random.default_rng(seed).choice(len(pairs), count, replace=False)]
    return _totals_of(graph, chosen.astype(np.int64).reshape(-1, 2))


def rewired_adjacency(graph: Any, edges: Int[np.ndarray, "k 2"]) -> Float[np.ndarray, "n n"]:
    """Dense adjacency of the graph with the edges added, both directions, weight 1.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        edges: Pairs of nodes, as in :class:`Rewired`.

    Raises:
        ValueError: For a directed or bad graph or nodes out of range.
    """
    adjacency = require_undirected(as_csr(graph)).toarray()
    edges = np.asarray(edges, np.int64).reshape(-1, 2)
    require(edges.size == 0 or (edges.min() >= 0 and edges.max() < len(adjacency)), "nodes of the graph", edges)
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1.0
    return adjacency


class RelationalNetwork(nn.Module):
    r"""Residual message passing in which original and added edges have weights of their own, read out at one node.

    .. math:: h \leftarrow h
        + \mathrm{relu}\bigl(h W_0 + b + \hat A_{\text{old}}\, h W_1 + \hat A_{\text{new}}\, h W_2\bigr)

    with adjacencies divided by the degree of the whole graph. Dense, for many draws of features on one small graph.

    Args:
        adjacency: The original graph, ``[n, n]``.
        added: The added edges, ``[n, n]``.
        features: Features of a node.
        width: Hidden width.
        layers: Number of layers.
        classes: Number of classes.
        target: The node at which the class is read.

    Raises:
        ValueError: For matrices of other shapes, widths or layers below 1, or a target out of range.

    Source: black2023resistance (relational networks, as in FoSR).
    """

    old: Tensor
    new: Tensor

    def __init__(
        self,
        adjacency: Float[Tensor, "n n"],
        added: Float[Tensor, "n n"],
        features: int,
        width: int,
        layers: int,
        classes: int,
        target: int,
    ) -> None:
        super().__init__()
        n = len(adjacency)
        require(tuple(adjacency.shape) == tuple(added.shape) == (n, n), "two square matrices", tuple(added.shape))
        require(min(features, width, layers, classes) >= 1, "widths and layers of at least 1", (width, layers))
        require(0 <= target < n, f"a target in [0, {n})", target)
        degree = (adjacency + added).sum(1, keepdim=True).clamp_min(1)
        self.register_buffer("old", (adjacency / degree).float())
        self.register_buffer("new", (added / degree).float())
        self.target = target
        self.embed = nn.Linear(features, width)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.along = nn.ModuleList(nn.Linear(width, 2 * width, bias=False) for _ in range(layers))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "B n F"]) -> Float[Tensor, "B C"]:
        """Logits at the target, one row a draw of the features."""
        h = self.embed(x)
        for own, along in zip(self.own, self.along):
            first, second = along(h).chunk(2, -1)
            h = h + torch.relu(own(h) + self.old @ first + self.new @ second)
        return self.head(h[:, self.target])


def marked_tokens(
    nodes: int, source: int, target: int, draws: int, *, tokens: int = 4, seed: int = 0
) -> tuple[Float[Tensor, "B n F"], Int[Tensor, " B"]]:
    """Draws of a task in which one node must learn another's token.

    Every node has a random token (one-hot); two more features mark the source and the target. The label is the
    source's token.

    Args:
        nodes: Number of nodes.
        source: The node that is asked about.
        target: The node that answers.
        draws: Number of draws.
        tokens: Number of tokens.
        seed: Draws the tokens.

    Raises:
        ValueError: For nodes out of range, no draws, or fewer than two tokens.

    Source: black2023resistance (our task for its claim).
    """
    require(0 <= source < nodes and 0 <= target < nodes, f"nodes in [0, {nodes})", (source, target))
    require(draws >= 1 and tokens >= 2, "at least one draw and two tokens", (draws, tokens))
    label = torch.randint(tokens, (draws, nodes), generator=torch.Generator().manual_seed(seed))
    x = torch.zeros(draws, nodes, tokens + 2)
    x[..., :tokens] = nn.functional.one_hot(label, tokens).float()
    x[:, source, tokens] = x[:, target, tokens + 1] = 1.0
    return x, label[:, source]
