"""Graphs as compressed sparse rows, their normalised operators, and sums over segments."""

from __future__ import annotations

from typing import Any, Literal

import networkx as nx
import numpy as np
import scipy.sparse as sp
import torch_geometric.utils as pyg
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite


def as_csr(graph: Any, *, num_nodes: int | None = None) -> sp.csr_array:
    """The weighted adjacency matrix of a graph in any of the usual forms.

    Args:
        graph: A PyG ``Data`` (``edge_index``, optional ``edge_weight``), an ``edge_index`` tensor ``[2, E]``, a
            networkx graph, a SciPy sparse matrix, or a dense square array.
        num_nodes: Number of nodes, where the edges alone do not tell.

    Returns:
        ``csr_array`` of float64 with sorted column indices; parallel edges are summed.

    Raises:
        ValueError: For a graph without nodes, a matrix that is not square, an index out of range, and weights that are
            negative, NaN or infinite.
    """
    if isinstance(graph, nx.Graph):
        matrix = sp.csr_array(nx.to_scipy_sparse_array(graph, dtype=float)) if len(graph) else sp.csr_array((0, 0))
    elif sp.issparse(graph):
        matrix = sp.csr_array(graph)
    elif hasattr(graph, "edge_index"):
        weight = getattr(graph, "edge_weight", None)
        return _from_edges(graph.edge_index, weight, graph.num_nodes if num_nodes is None else num_nodes)
    elif isinstance(graph, Tensor) and graph.shape[0] == 2 and not graph.is_floating_point():
        return _from_edges(graph, None, num_nodes)
    else:
        dense = np.asarray(graph, dtype=float)
        require(dense.ndim == 2, "a square matrix", f"shape {dense.shape}")
        matrix = sp.csr_array(dense)
    require(matrix.shape[0] == matrix.shape[1], "a square matrix", f"shape {matrix.shape}")
    require(matrix.shape[0] > 0, "a graph with at least one node", 0)
    matrix = matrix.astype(np.float64)
    matrix.sum_duplicates()
    matrix.sort_indices()
    require_finite("edge weights", matrix.data)
    require(
        matrix.nnz == 0 or matrix.data.min() >= 0, "non-negative edge weights", matrix.data.min() if matrix.nnz else 0
    )
    return matrix


def _from_edges(edge_index: Tensor, weight: Tensor | None, num_nodes: int | None) -> sp.csr_array:
    require(edge_index.ndim == 2 and edge_index.shape[0] == 2, "edge_index of shape [2, E]", tuple(edge_index.shape))
    edges = edge_index.cpu().numpy()
    nodes = int(num_nodes if num_nodes is not None else (edges.max() + 1 if edges.size else 0))
    require(nodes > 0, "a graph with at least one node", nodes)
    require(edges.size == 0 or (edges.min() >= 0 and edges.max() < nodes), f"node indices in [0, {nodes})", edges)
    values = np.ones(edges.shape[1]) if weight is None else weight.detach().cpu().numpy().astype(float).reshape(-1)
    require(len(values) == edges.shape[1], f"{edges.shape[1]} edge weights", len(values))
    return as_csr(sp.coo_array((values, (edges[0], edges[1])), shape=(nodes, nodes)))


def normalized_adjacency(
    adjacency: Any, kind: Literal["row", "sym"] = "row", *, self_loops: bool = False
) -> sp.csr_array:
    r"""Degree-normalised adjacency.

    .. math:: P = D^{-1} A \quad\text{(row)}, \qquad S = D^{-1/2} A D^{-1/2} \quad\text{(sym)}

    Args:
        adjacency: Any graph that :func:`as_csr` takes.
        kind: ``"row"`` or ``"sym"``.
        self_loops: Whether to normalise :math:`A + I` instead.

    Returns:
        Sparse matrix of the same shape; rows of isolated nodes are zero.

    Raises:
        ValueError: For an unknown kind or a bad graph.
    """
    require(kind in ("row", "sym"), "a kind out of row, sym", repr(kind))
    matrix = as_csr(adjacency)
    if self_loops:
        matrix = sp.csr_array(matrix + sp.eye_array(matrix.shape[0], format="csr"))
    degree = np.asarray(matrix.sum(1)).ravel()
    exponent = -1.0 if kind == "row" else -0.5
    scale = np.where(degree > 0, np.power(degree, exponent, where=degree > 0, out=np.zeros_like(degree)), 0.0)
    left = sp.diags_array(scale) @ matrix
    return sp.csr_array(left if kind == "row" else left @ sp.diags_array(scale))


def _check_segments(values: Tensor, index: Tensor, segments: int) -> None:
    require(
        index.ndim == 1 and len(index) == len(values), f"one segment for each of {len(values)} rows", tuple(index.shape)
    )
    require(segments >= 0, "a non-negative number of segments", segments)
    require(values.device == index.device, "values and index on one device", (str(values.device), str(index.device)))
    if index.device.type != "meta" and len(index):
        low, high = int(index.min()), int(index.max())
        require(low >= 0 and high < segments, f"segment indices in [0, {segments})", (low, high))


def segment_sum(values: Float[Tensor, "E *F"], index: Int[Tensor, " E"], segments: int) -> Float[Tensor, "S *F"]:
    r"""Sum of the rows of each segment, :math:`s_k = \sum_{i: \mathrm{index}_i = k} v_i`; empty segments give 0.

    Args:
        values: Rows to sum.
        index: Segment of each row, in any order.
        segments: Number of segments ``S``.

    Raises:
        ValueError: For an index out of range, lengths that differ, or two devices.
    """
    _check_segments(values, index, segments)
    return pyg.scatter(values, index, 0, segments, reduce="sum")
