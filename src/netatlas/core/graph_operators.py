"""Sparse operators of graphs: Laplacians, operators that keep direction, limits, and sheaf Laplacians."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse import csgraph

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr


def inverse_power(values: Float[np.ndarray, " n"], exponent: float) -> Float[np.ndarray, " n"]:
    r"""Entrywise :math:`v^{-p}`, and 0 where :math:`v = 0`: the degree factors of nodes without edges.

    Args:
        values: Non-negative numbers.
        exponent: The power :math:`p`, positive.

    Raises:
        ValueError: For negative or non-finite values or a power that is not positive.
    """
    values = np.asarray(values, dtype=float)
    require_finite("values", values)
    require(exponent > 0, "a positive power", exponent)
    require(bool((values >= 0).all()), "non-negative values", values.min() if values.size else 0)
    return np.where(values > 0, np.where(values > 0, values, 1.0) ** -exponent, 0.0)


def require_undirected(matrix: sp.csr_array) -> sp.csr_array:
    """The matrix itself, if it is symmetric.

    Args:
        matrix: A square sparse matrix.

    Raises:
        ValueError: If an edge has no reverse of the same weight.
    """
    gap = sp.csr_array(matrix - matrix.T)
    largest = np.abs(gap.data).max() if gap.nnz else 0.0
    scale = np.abs(matrix.data).max() if matrix.nnz else 1.0
    require(largest <= 1e-12 * scale, "an undirected graph (a symmetric matrix)", f"asymmetry {largest:.3g}")
    return matrix


def symmetrized(graph: Any) -> sp.csr_array:
    r"""The undirected graph that forgets direction.

    .. math:: A_u = \max(A, A^\top)

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.

    Raises:
        ValueError: For a bad graph.
    """
    matrix = as_csr(graph)
    return as_csr(matrix.maximum(matrix.T))


def reciprocity(graph: Any) -> float:
    r"""Share of directed edges :math:`(u, v)`, :math:`u \ne v`, whose reverse is an edge too; NaN without edges.

    .. math:: r = \frac{|\{(u, v) \in E : (v, u) \in E\}|}{|E|}

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes; weights do not matter, self-loops are left out.

    Raises:
        ValueError: For a bad graph.

    Source: sun2024directed.
    """
    matrix = as_csr(graph)
    pattern = sp.csr_array((matrix - sp.diags_array(matrix.diagonal())) > 0).astype(float)
    return float(pattern.multiply(pattern.T).sum() / pattern.sum()) if pattern.sum() else float("nan")


def laplacian(graph: Any, kind: Literal["combinatorial", "sym", "row"] = "combinatorial") -> sp.csr_array:
    r"""The Laplacian of an undirected graph.

    .. math:: L = D - A, \qquad D^{-1/2} L D^{-1/2}\ \text{(sym)}, \qquad D^{-1} L\ \text{(row)}

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes. Self-loops cancel in the
            combinatorial Laplacian.
        kind: ``"combinatorial"``, ``"sym"`` or ``"row"``.

    Returns:
        Sparse ``[n, n]``; rows of isolated nodes are zero.

    Raises:
        ValueError: For an unknown kind, a directed or a bad graph.
    """
    require(kind in ("combinatorial", "sym", "row"), "a kind out of combinatorial, sym, row", repr(kind))
    matrix = require_undirected(as_csr(graph))
    degree = matrix.sum(1)
    plain = sp.csr_array(sp.diags_array(degree) - matrix)
    if kind == "combinatorial":
        return plain
    if kind == "row":
        return sp.csr_array(sp.diags_array(inverse_power(degree, 1.0)) @ plain)
    scale = sp.diags_array(inverse_power(degree, 0.5))
    return sp.csr_array(scale @ plain @ scale)


def directed_adjacency(graph: Any) -> sp.csr_array:
    r"""The adjacency of a directed graph, normalised by the degrees at both ends of an edge.

    .. math:: S_{uv} = A_{uv} \big/ \sqrt{d^{\text{out}}_u\, d^{\text{in}}_v}

    Args:
        graph: Row :math:`u` holds the edges from :math:`u`.

    Returns:
        Sparse ``[n, n]``; equal to the symmetric normalisation where the graph is undirected.

    Raises:
        ValueError: For a bad graph.

    Source: sun2024directed (a survey), after Dir-GNN, arXiv:2305.10498.
    """
    matrix = as_csr(graph)
    out, into = inverse_power(matrix.sum(1), 0.5), inverse_power(matrix.sum(0), 0.5)
    return sp.csr_array(sp.diags_array(out) @ matrix @ sp.diags_array(into))


def magnetic_laplacian(graph: Any, charge: float = 0.25) -> sp.csr_array:
    r"""The magnetic Laplacian: a Hermitian matrix that keeps the direction of an edge as a phase.

    .. math:: L = I - D_s^{-1/2} H D_s^{-1/2},\quad H = A_s \odot e^{i \Theta},\quad A_s = \tfrac12 (A + A^\top),
        \quad \Theta = 2 \pi q\,(A - A^\top)

    Args:
        graph: Directed; row :math:`u` holds the edges from :math:`u`.
        charge: The charge :math:`q`, in [0, 1/4]. At 0 direction is forgotten; at 1/4 a single edge is imaginary.

    Returns:
        Sparse complex128 ``[n, n]``, Hermitian and positive semi-definite with eigenvalues in [0, 2]; the row of an
        isolated node is zero.

    Raises:
        ValueError: For a charge outside [0, 1/4] or a bad graph.

    Source: sun2024directed (a survey), after MagNet, arXiv:2102.11391.
    """
    require(0 <= charge <= 0.25, "a charge in [0, 0.25]", charge)
    matrix = as_csr(graph)
    both = sp.csr_array(0.5 * (matrix + matrix.T)).tocoo()
    turn = sp.csr_array(matrix - matrix.T)
    # SciPy answers an empty selection by a sparse array.
    phase = np.asarray(turn[both.row, both.col]).ravel() if both.nnz else np.zeros(0)
    hermitian = sp.csr_array((both.data * np.exp(2j * np.pi * charge * phase), (both.row, both.col)), both.shape)
    degree = np.bincount(both.row, both.data, matrix.shape[0])
    scale = sp.diags_array(inverse_power(degree, 0.5))
    return sp.csr_array(sp.diags_array((degree > 0).astype(complex)) - scale @ hermitian @ scale)


def propagation_limit(
    graph: Any, x: Float[np.ndarray, "n F"], kind: Literal["sym", "row"] = "sym"
) -> Float[np.ndarray, "n F"]:
    r"""What infinitely many propagations leave of the features, one connected component at a time.

    .. math:: \lim_k \hat A^k X = u u^\top X,\quad u_v = \sqrt{\tfrac{d_v + 1}{2 m_c + n_c}}\ \text{(sym)};\qquad
        \mathbf 1\,(u \odot u)^\top X\ \text{(row)}

    with :math:`\hat A = \tilde D^{-1/2} (A + I) \tilde D^{-1/2}` or :math:`\tilde D^{-1} (A + I)`, and
    :math:`2 m_c + n_c` the sum of :math:`d_v + 1` over the component.

    Args:
        graph: Undirected, non-negative weights.
        x: Features, one row a node.
        kind: ``"sym"`` or ``"row"``.

    Raises:
        ValueError: For an unknown kind, a directed or bad graph, or features of another length or not finite.

    Source: zeng2021shadow (sym), zhang2021dgmlp (row).
    """
    require(kind in ("sym", "row"), "a kind out of sym, row", repr(kind))
    matrix = require_undirected(as_csr(graph))
    x = np.asarray(x, dtype=float)
    require(x.ndim == 2 and len(x) == matrix.shape[0], f"features [{matrix.shape[0]}, F]", x.shape)
    require_finite("x", x)
    count, component = csgraph.connected_components(matrix, directed=False)
    degree = matrix.sum(1) + 1
    mass = np.bincount(component, degree, count)
    weight = degree if kind == "row" else np.sqrt(degree)
    member = sp.csr_array((weight, (component, np.arange(len(x)))), shape=(count, len(x)))
    mean = (member @ x) / mass[:, None]
    return mean[component] * (1.0 if kind == "row" else np.sqrt(degree)[:, None])


class SheafEdges(NamedTuple):
    """A cellular sheaf on a graph, every undirected edge once.

    Attributes:
        edges: End nodes, ``[2, E]``.
        source: Map of each edge's first node into the edge's stalk, ``[E, d, d]``.
        target: The same of its second node.
        nodes: Number of nodes.
    """

    edges: np.ndarray
    source: np.ndarray
    target: np.ndarray
    nodes: int


def sheaf(
    edges: Int[np.ndarray, "2 E"], source: Float[np.ndarray, "E *d"], target: Float[np.ndarray, "E *d"], *, nodes: int
) -> SheafEdges:
    """A cellular sheaf from its maps: numbers ``[E]``, diagonals ``[E, d]``, or matrices ``[E, d, d]``.

    Args:
        edges: Every undirected edge once, without self-loops.
        source: Maps of the first nodes into the edges' stalks.
        target: Maps of the second nodes, of the same shape.
        nodes: Number of nodes.

    Raises:
        ValueError: For indices out of range, self-loops, an edge given twice, maps of another shape, or not finite.
    """
    edges = np.asarray(edges)
    require(edges.ndim == 2 and edges.shape[0] == 2, "edges of shape [2, E]", edges.shape)
    require(edges.size == 0 or np.issubdtype(edges.dtype, np.integer), "integer edges", edges.dtype)
    require(nodes >= 1, "a graph with at least one node", nodes)
    low, high = (edges.min(), edges.max()) if edges.size else (0, 0)
    require(low >= 0 and high < nodes, f"node indices in [0, {nodes})", (low, high))
    require(not (edges[0] == edges[1]).any(), "edges without self-loops", int((edges[0] == edges[1]).sum()))
    keys = np.minimum(*edges) * nodes + np.maximum(*edges)
    require(len(np.unique(keys)) == len(keys), "every undirected edge once", f"{len(keys)} with repetitions")
    full = []
    for name, maps in (("source", source), ("target", target)):
        maps = np.asarray(maps, dtype=float)
        require(len(maps) == edges.shape[1], f"{edges.shape[1]} maps in {name}", len(maps))
        require_finite(name, maps)
        if maps.ndim == 1:
            maps = maps[:, None]
        if maps.ndim == 2:
            maps = maps[:, :, None] * np.eye(maps.shape[1])
        require(maps.ndim == 3 and maps.shape[1] == maps.shape[2], f"square maps in {name}", maps.shape)
        full.append(maps)
    require(full[0].shape == full[1].shape, "maps of one shape", [m.shape for m in full])
    return SheafEdges(edges, full[0], full[1], nodes)


def sheaf_coboundary(given: SheafEdges) -> sp.csr_array:
    r"""The coboundary of a sheaf: by how much a section disagrees along every edge.

    .. math:: (\delta x)_e = F_{v \trianglelefteq e}\, x_v - F_{u \trianglelefteq e}\, x_u, \qquad e = (v, u)

    Args:
        given: The sheaf, from :func:`sheaf`.

    Returns:
        Sparse ``[E d, n d]``; the ``d`` rows of an edge and the ``d`` columns of a node are consecutive.

    Source: bodnar2022sheaf.
    """
    edges, source, target, nodes = given
    count, d = len(source), source.shape[1]
    row = (np.arange(count)[:, None, None] * d + np.arange(d)[None, :, None]) + np.zeros((1, 1, d), int)
    column = edges[:, :, None, None] * d + np.arange(d)[None, None, None, :] + np.zeros((1, 1, d, 1), int)
    data = np.concatenate([source.ravel(), -target.ravel()])
    where = (np.concatenate([row.ravel()] * 2), column.reshape(-1))
    return sp.csr_array((data, where), shape=(count * d, nodes * d))


def sheaf_laplacian(given: SheafEdges, normalization: Literal["none", "block", "augmented"] = "none") -> sp.csr_array:
    r"""The Laplacian of a sheaf, plain or with its diagonal blocks normalised.

    .. math:: L = \delta^\top \delta, \qquad D_v^{-1/2} L_{vu} D_u^{-1/2}\ \text{(block)}, \qquad
        (D_v + I)^{-1/2} L_{vu} (D_u + I)^{-1/2}\ \text{(augmented)}

    with :math:`D_v = L_{vv} = \sum_{e \ni v} F_{v \trianglelefteq e}^\top F_{v \trianglelefteq e}`. Directions in which
    :math:`D_v` is singular get the pseudo-inverse.

    Args:
        given: The sheaf, from :func:`sheaf`.
        normalization: ``"none"``, ``"block"`` or ``"augmented"``.

    Returns:
        Sparse symmetric positive semi-definite ``[n d, n d]``.

    Raises:
        ValueError: For an unknown normalisation.

    Source: bodnar2022sheaf.
    """
    known = ("none", "block", "augmented")
    require(normalization in known, f"a normalization out of {', '.join(known)}", repr(normalization))
    boundary = sheaf_coboundary(given)
    plain = sp.csr_array(boundary.T @ boundary)
    if normalization == "none":
        return plain
    d, n = given.source.shape[1], given.nodes
    blocks = np.zeros((n, d, d))
    for ends, maps in zip(given.edges, (given.source, given.target)):
        np.add.at(blocks, ends, maps.transpose(0, 2, 1) @ maps)
    if normalization == "augmented":
        blocks += np.eye(d)
    values, vectors = np.linalg.eigh(blocks)
    floor = 1e-12 * np.maximum(values.max(-1, keepdims=True), np.finfo(float).tiny)
    root = (vectors * inverse_power(np.where(values > floor, values, 0.0).ravel(), 0.5).reshape(n, 1, d)) @ (
        vectors.transpose(0, 2, 1)
    )
    scale = sp.bsr_array((root, np.arange(n), np.arange(n + 1)), shape=(n * d, n * d)).tocsr()
    return sp.csr_array(scale @ plain @ scale)


def undirected_edges(graph: Any) -> Int[np.ndarray, "2 E"]:
    """Every edge of an undirected graph once, smaller node first, sorted; self-loops left out.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.

    Raises:
        ValueError: For a directed or bad graph.
    """
    upper = sp.triu(require_undirected(as_csr(graph)), 1).tocoo()
    order = np.lexsort((upper.col, upper.row))
    return np.stack([upper.row, upper.col])[:, order].astype(np.int64)
