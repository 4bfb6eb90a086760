"""Effective resistance of undirected graphs: exact, sketched, and updated edge by edge."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.linalg import lapack
from scipy.sparse import csgraph

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import laplacian, require_undirected

# Right-hand sides that one conjugate-gradient run carries along.
_BLOCK = 64


def _components(matrix: sp.csr_array) -> tuple[int, np.ndarray]:
    return csgraph.connected_components(matrix, directed=False)


def laplacian_pinv(graph: Any) -> Float[np.ndarray, "n n"]:
    r"""Pseudo-inverse of the Laplacian, by one Cholesky factorisation for each connected component.

    .. math:: L^+ = \bigl(L + \tfrac1n \mathbf 1 \mathbf 1^\top\bigr)^{-1} - \tfrac1n \mathbf 1 \mathbf 1^\top

    Args:
        graph: Undirected with non-negative weights (conductances).

    Returns:
        Dense ``[n, n]``, zero between components.

    Raises:
        ValueError: For a directed or bad graph.
    """
    matrix = require_undirected(as_csr(graph))
    plain = laplacian(matrix)
    count, component = _components(matrix)
    result = np.zeros(matrix.shape)
    for number in range(count):
        inside = np.flatnonzero(component == number)
        size = len(inside)
        if size == 1:
            continue
        block = plain[inside][:, inside].toarray()
        # The scale keeps the added eigenvalue among the others, whatever the unit of the weights.
        scale = block.diagonal().mean()
        factor, info = lapack.dpotrf(block + scale / size, lower=1, overwrite_a=1)
        require(info == 0, "a Laplacian that is positive definite on a component", f"LAPACK info {info}")
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        result[np.ix_(inside, inside)] = inverse - 1 / (scale * size)
    return result


def _square(pinv: Any) -> np.ndarray:
    pinv = np.asarray(pinv, dtype=float)
    require(pinv.ndim == 2 and pinv.shape[0] == pinv.shape[1] > 0, "a square matrix with rows", pinv.shape)
    require_finite("pinv", pinv)
    return pinv


def _node_pairs(pairs: Any, nodes: int) -> np.ndarray:
    pairs = np.asarray(pairs)
    require(pairs.ndim == 2 and pairs.shape[1] == 2, "pairs of shape [p, 2]", pairs.shape)
    require(pairs.size == 0 or np.issubdtype(pairs.dtype, np.integer), "integer pairs", pairs.dtype)
    low, high = (pairs.min(), pairs.max()) if pairs.size else (0, 0)
    require(low >= 0 and high < nodes, f"node indices in [0, {nodes})", (low, high))
    return pairs.astype(np.int64)


def resistance_matrix(pinv: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    r"""Resistances between all pairs from the Laplacian's pseudo-inverse, finite within a component only.

    .. math:: R_{uv} = L^+_{uu} + L^+_{vv} - 2 L^+_{uv}

    Args:
        pinv: Pseudo-inverse of the Laplacian of a *connected* graph; :func:`effective_resistance` knows components.

    Raises:
        ValueError: For a matrix that is not square or not finite.
    """
    pinv = _square(pinv)
    own = pinv.diagonal()
    result = own[:, None] + own[None, :] - 2 * pinv
    np.fill_diagonal(result, 0.0)
    return result


def solve_laplacian(
    graph: Any, rhs: Float[np.ndarray, "n k"], *, tolerance: float = 1e-10, max_steps: int | None = None
) -> Float[np.ndarray, "n k"]:
    r"""Solve :math:`L x = b` for many right-hand sides by conjugate gradients, preconditioned by the degrees.

    All columns advance together, each with its own step lengths, so that a step is one sparse product. Solution and
    right-hand side are centred on every connected component: :math:`x = L^+ b`.

    Args:
        graph: Undirected with non-negative weights.
        rhs: Right-hand sides, one a column; what does not sum to zero on a component is projected out.
        tolerance: Largest residual of a column relative to its right-hand side, in the Euclidean norm.
        max_steps: Most steps; by default ten times the number of nodes.

    Raises:
        ValueError: For a directed or bad graph, right-hand sides of another length or not finite, a tolerance outside
            (0, 1), or no convergence.
    """
    matrix = require_undirected(as_csr(graph))
    rhs = np.asarray(rhs, dtype=float)
    require(rhs.ndim == 2 and len(rhs) == matrix.shape[0], f"right-hand sides [{matrix.shape[0]}, k]", rhs.shape)
    require_finite("rhs", rhs)
    require(0 < tolerance < 1, "a tolerance in (0, 1)", tolerance)
    plain = laplacian(matrix)
    count, component = _components(matrix)
    size = np.bincount(component, minlength=count).astype(float)
    average = sp.csr_array((1 / size[component], (component, np.arange(len(component)))), (count, len(component)))

    def centred(values: np.ndarray) -> np.ndarray:
        return values - (average @ values)[component] if count > 1 else values - values.mean(0)

    degree = plain.diagonal()
    inverse = np.where(degree > 0, 1 / np.where(degree > 0, degree, 1.0), 0.0)[:, None]
    limit = 10 * len(rhs) if max_steps is None else max_steps
    solution = np.empty_like(rhs)
    for start in range(0, rhs.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        residual = centred(rhs[:, columns])
        goal = tolerance * np.linalg.norm(residual, axis=0)
        x = np.zeros_like(residual)
        z = inverse * residual
        direction = z.copy()
        rho = np.einsum("ij,ij->j", residual, z)
        for _ in range(limit):
            norm = np.linalg.norm(residual, axis=0)
            if (norm <= goal).all():
                break
            moved = plain @ direction
            curvature = np.einsum("ij,ij->j", direction, moved)
            # A column that is done has no direction left: its step is 0, not 0 / 0.
            step = np.where(curvature > 0, rho / np.where(curvature > 0, curvature, 1.0), 0.0)
            x += step * direction
            residual -= step * moved
            z = inverse * residual
            fresh = np.einsum("ij,ij->j", residual, z)
            direction *= np.where(rho > 0, fresh / np.where(rho > 0, rho, 1.0), 0.0)
            direction += z
            rho = fresh
        norm = np.linalg.norm(residual, axis=0)
        require(bool((norm <= goal).all()), f"convergence within {limit} steps", f"residual {norm.max():.3g}")
        solution[:, columns] = centred(x)
    return solution


def effective_resistance(
    graph: Any,
    pairs: Int[np.ndarray, "p 2"] | None = None,
    *,
    method: Literal["auto", "cholesky", "cg"] = "auto",
    tolerance: float = 1e-12,
) -> Float[np.ndarray, " p"] | Float[np.ndarray, "n n"]:
    r"""Effective resistance between nodes, the potential difference that drives one unit of current.

    .. math:: R_{uv} = (\mathbf 1_u - \mathbf 1_v)^\top L^+ (\mathbf 1_u - \mathbf 1_v)

    Args:
        graph: Undirected; weights are conductances.
        pairs: Node pairs, one a row; all pairs by default.
        method: ``"cholesky"`` factorises every component densely, ``"cg"`` solves one sparse system a pair (pairs
            only), ``"auto"`` takes the first up to 2000 nodes or without pairs.
        tolerance: Relative residual of ``"cg"``.

    Returns:
        ``[p]``, or ``[n, n]`` for all pairs; infinite between components, 0 from a node to itself.

    Raises:
        ValueError: For a directed or bad graph, pairs of another shape or out of range, an unknown method, or ``"cg"``
            without pairs.

    Source: black2023resistance.
    """
    require(method in ("auto", "cholesky", "cg"), "a method out of auto, cholesky, cg", repr(method))
    matrix = require_undirected(as_csr(graph))
    n = matrix.shape[0]
    _, component = _components(matrix)
    if pairs is None:
        require(method != "cg", "pairs for the method cg", None)
        result = resistance_matrix(laplacian_pinv(matrix))
        result[component[:, None] != component[None, :]] = np.inf
        return result
    u, v = _node_pairs(pairs, n).T
    apart = component[u] != component[v]
    if method == "cholesky" or (method == "auto" and n <= 2000):
        found = resistance_matrix(laplacian_pinv(matrix))[u, v]
    else:
        found = np.zeros(len(pairs))
        wanted = np.flatnonzero(~apart & (u != v))
        for start in range(0, len(wanted), _BLOCK):
            block = wanted[start : start + _BLOCK]
            rhs, place = np.zeros((n, len(block))), np.arange(len(block))
            rhs[u[block], place], rhs[v[block], place] = 1.0, -1.0
            potential = solve_laplacian(matrix, rhs, tolerance=tolerance)
            found[block] = potential[u[block], place] - potential[v[block], place]
    return np.where(apart, np.inf, found)


class ResistanceSketch(NamedTuple):
    """Node vectors whose squared distances approximate effective resistances.

    Attributes:
        vectors: ``[n, k]``.
        component: Connected component of every node, ``[n]``.
    """

    vectors: np.ndarray
    component: np.ndarray

    def __call__(self, pairs: Int[np.ndarray, "p 2"]) -> Float[np.ndarray, " p"]:
        """Approximate resistances of node pairs, infinite between components.

        Raises:
            ValueError: For pairs of another shape, not integers, or out of range.
        """
        u, v = _node_pairs(pairs, len(self.vectors)).T
        squared = np.square(self.vectors[u] - self.vectors[v]).sum(1)
        return np.where(self.component[u] == self.component[v], squared, np.inf)


def resistance_sketch(graph: Any, dimensions: int, *, seed: int = 0, tolerance: float = 1e-4) -> ResistanceSketch:
    r"""Johnson-Lindenstrauss sketch of all effective resistances: one sparse solve a dimension.

    .. math:: R_{uv} = \lVert W^{1/2} B L^+ (\mathbf 1_u - \mathbf 1_v)\rVert^2 \approx \lVert z_u - z_v \rVert^2,
        \qquad Z^\top = Q W^{1/2} B L^+

    with the incidence matrix :math:`B`, weights :math:`W` and random signs :math:`Q \in \{\pm k^{-1/2}\}^{k \times m}`.
    A resistance is off by a factor :math:`1 \pm \epsilon` with :math:`k = O(\epsilon^{-2} \log n)`; its relative
    standard deviation is at most :math:`\sqrt{2 / k}`.

    Args:
        graph: Undirected; weights are conductances.
        dimensions: Number of dimensions :math:`k`.
        seed: Draws the signs.
        tolerance: Relative residual of the solves.

    Raises:
        ValueError: For a directed or bad graph or fewer than one dimension.

    Source: black2023resistance uses the quantity; the sketch is Spielman and Srivastava's, arXiv:0803.0929.
    """
    require(dimensions >= 1, "at least one dimension", dimensions)
    matrix = require_undirected(as_csr(graph))
    upper = sp.triu(matrix, 1).tocoo()
    rng, n = np.random.default_rng(seed), matrix.shape[0]
    edge = np.arange(upper.nnz)
    root = np.sqrt(upper.data)
    incidence = sp.csr_array(
        (np.concatenate([root, -root]), (np.concatenate([upper.row, upper.col]), np.concatenate([edge, edge]))),
        shape=(n, upper.nnz),
    )
    vectors = np.empty((n, dimensions))
    for start in range(0, dimensions, _BLOCK):
        width = min(_BLOCK, dimensions - start)
        signs = rng.integers(0, 2, (upper.nnz, width), dtype=np.int8) * 2.0 - 1.0
        vectors[:, start : start + width] = solve_laplacian(matrix, incidence @ signs, tolerance=tolerance)
    return ResistanceSketch(vectors / np.sqrt(dimensions), _components(matrix)[1])


def total_resistance(graph: Any) -> float:
    r"""Sum of the resistances of all pairs, infinite for a graph that is not connected.

    .. math:: R_{\text{tot}} = \sum_{u < v} R_{uv} = n \operatorname{tr} L^+

    Args:
        graph: Undirected; weights are conductances.

    Raises:
        ValueError: For a directed or bad graph.

    Source: black2023resistance.
    """
    matrix = require_undirected(as_csr(graph))
    if _components(matrix)[0] > 1:
        return float("inf")
    return float(matrix.shape[0] * laplacian_pinv(matrix).trace())


def biharmonic_squared(pinv: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    r"""Squared biharmonic distances of all pairs.

    .. math:: B_{uv}^2 = (\mathbf 1_u - \mathbf 1_v)^\top (L^+)^2 (\mathbf 1_u - \mathbf 1_v)

    Args:
        pinv: Pseudo-inverse of the Laplacian.

    Raises:
        ValueError: For a matrix that is not square or not finite.

    Source: black2023resistance.
    """
    pinv = _square(pinv)
    return resistance_matrix(pinv @ pinv)


def add_edge(pinv: Float[np.ndarray, "n n"], u: int, v: int, weight: float = 1.0) -> Float[np.ndarray, "n n"]:
    r"""Pseudo-inverse of the Laplacian after an edge is added (Sherman-Morrison), in quadratic time.

    .. math:: (L + w\, b b^\top)^+ = L^+ - \frac{w\, y y^\top}{1 + w\, b^\top y},\quad b = \mathbf 1_u - \mathbf 1_v,
        \ y = L^+ b

    Args:
        pinv: Pseudo-inverse of the Laplacian.
        u: One end.
        v: The other end, in the same component.
        weight: Conductance; negative takes away, as long as the graph stays connected.

    Raises:
        ValueError: For nodes out of range, equal or of two components, NaN, or a weight that would disconnect the
            graph.

    Source: black2023resistance.
    """
    pinv = _square(pinv)
    n = len(pinv)
    require(0 <= u < n and 0 <= v < n and u != v, f"two nodes in [0, {n})", (u, v))
    # Rows of two components have no entry in common; a rank-one update cannot join these.
    require(bool((pinv[u] * pinv[v]).any()), "two nodes of one component", (u, v))
    y = pinv[:, u] - pinv[:, v]
    scale = 1 + weight * (y[u] - y[v])
    require(bool(scale > 1e-12), "a weight that leaves the graph connected", weight)
    return pinv - (weight / scale) * np.outer(y, y)


def commute_times(graph: Any) -> Float[np.ndarray, "n n"]:
    r"""Expected steps of the random walk from one node to another and back.

    .. math:: \tau_{uv} = \operatorname{vol}(c)\, R_{uv}, \qquad \operatorname{vol}(c) = \sum_{w \in c} d_w

    The volume is that of the pair's component; without weights it is twice its number of edges.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes, without self-loops.

    Raises:
        ValueError: For a directed or bad graph, or self-loops.

    Source: digiovanni2023oversquashing.
    """
    matrix = require_undirected(as_csr(graph))
    require(not matrix.diagonal().any(), "a graph without self-loops", int((matrix.diagonal() > 0).sum()))
    count, component = _components(matrix)
    volume = np.bincount(component, matrix.sum(1), count)
    times = effective_resistance(matrix) * np.maximum(volume, np.finfo(float).tiny)[component][:, None]
    np.fill_diagonal(times, 0.0)
    return times


def access_times(graph: Any) -> Float[np.ndarray, "n n"]:
    r"""Expected steps of the random walk from a node until it first reaches another.

    .. math:: H_{uv} = \sum_w d_w \bigl(L^+_{uw} - L^+_{uv} - L^+_{vw} + L^+_{vv}\bigr)

    Args:
        graph: Undirected and connected, without self-loops.

    Returns:
        ``[n, n]`` with start in the row and goal in the column; :math:`H + H^\top` are the commute times.

    Raises:
        ValueError: For a directed, disconnected or bad graph, or self-loops.

    Source: digiovanni2023oversquashing.
    """
    matrix = require_undirected(as_csr(graph))
    require(not matrix.diagonal().any(), "a graph without self-loops", int((matrix.diagonal() > 0).sum()))
    require(_components(matrix)[0] == 1, "a connected graph", _components(matrix)[0])
    pinv, degree = laplacian_pinv(matrix), matrix.sum(1)
    reach = pinv @ degree
    times = reach[:, None] - reach[None, :] + degree.sum() * (pinv.diagonal()[None, :] - pinv)
    np.fill_diagonal(times, 0.0)
    return times
