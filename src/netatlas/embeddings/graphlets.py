"""Orbit adjacencies: how often two nodes hold two given places of a small induced subgraph, counted for all pairs."""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int
from numba import njit

from netatlas.core.checks import require
from netatlas.core.graph import as_csr
from netatlas.embeddings.cooccurrence import ppmi, truncated_svd_embedding


class Orbits(NamedTuple):
    """A pair of orbits at a distance: u at orbit ``first``, v at orbit ``second``, ``hops`` apart in the graphlet."""

    first: int
    second: int
    hops: int

    @property
    def transposed(self) -> Orbits:
        return Orbits(self.second, self.first, self.hops)

    def __str__(self) -> str:
        return f"({self.first},{self.second}) at {self.hops}"


#: The 28 orbit adjacencies of graphlets with two to four nodes, orbits numbered as by ORCA, with the number of partners
#: at the second orbit that a node at the first orbit has in one graphlet.
PARTNERS: dict[Orbits, int] = {
    Orbits(*key): partners
    for key, partners in {
        (0, 0, 1): 1,
        (1, 2, 1): 1, (2, 1, 1): 2, (1, 1, 2): 1,
        (3, 3, 1): 2,
        (4, 5, 1): 1, (5, 4, 1): 1, (5, 5, 1): 1, (4, 5, 2): 1, (5, 4, 2): 1, (4, 4, 3): 1,
        (6, 7, 1): 1, (7, 6, 1): 3, (6, 6, 2): 2,
        (8, 8, 1): 2, (8, 8, 2): 1,
        (9, 11, 1): 1, (11, 9, 1): 1, (10, 11, 1): 1, (11, 10, 1): 2, (10, 10, 1): 1, (9, 10, 2): 2, (10, 9, 2): 1,
        (12, 13, 1): 2, (13, 12, 1): 2, (13, 13, 1): 1, (12, 12, 2): 1,
        (14, 14, 1): 3,
    }.items()
}  # fmt: skip

#: The 20 orbit adjacencies up to transposition.
UNORDERED: tuple[Orbits, ...] = tuple(key for key in PARTNERS if key.first <= key.second)

_EDGE_KEYS = [Orbits(*k) for k in (
    (0, 0, 1), (1, 2, 1), (2, 1, 1), (3, 3, 1), (4, 5, 1), (5, 4, 1), (5, 5, 1), (6, 7, 1), (7, 6, 1), (8, 8, 1),
    (9, 11, 1), (11, 9, 1), (10, 11, 1), (11, 10, 1), (10, 10, 1), (12, 13, 1), (13, 12, 1), (13, 13, 1), (14, 14, 1),
)]  # fmt: skip
_SECOND_KEYS = [Orbits(*k) for k in (
    (1, 1, 2), (4, 5, 2), (5, 4, 2), (6, 6, 2), (8, 8, 2), (9, 10, 2), (10, 9, 2), (12, 12, 2),
)]  # fmt: skip
_PATH_KEY = Orbits(4, 4, 3)

# Which orbit a node of a connected four-node subgraph holds follows from the degrees inside the subgraph.
_FOUR = {
    (1, 1, 2, 2): {1: 4, 2: 5},
    (1, 1, 1, 3): {1: 6, 3: 7},
    (2, 2, 2, 2): {2: 8},
    (1, 2, 2, 3): {1: 9, 2: 10, 3: 11},
    (2, 2, 3, 3): {2: 12, 3: 13},
    (3, 3, 3, 3): {3: 14},
}
_SMALLER = {(1, 1): {1: 0}, (1, 1, 2): {1: 1, 2: 2}, (2, 2, 2): {2: 3}}


def _simple(graph: Any) -> sp.csr_array:
    adjacency = as_csr(graph)
    adjacency.eliminate_zeros()
    require(bool((adjacency.data == 1).all()), "an unweighted graph", "weights other than 1")
    require(adjacency.diagonal().sum() == 0, "a graph without loops", f"{int(adjacency.diagonal().sum())} loops")
    require((adjacency != adjacency.T).nnz == 0, "an undirected graph", "an asymmetric adjacency matrix")
    return adjacency


def orbit_adjacency_bruteforce(graph: Any) -> tuple[dict[Orbits, Int[np.ndarray, "n n"]], Int[np.ndarray, "n 15"]]:
    r"""All orbit adjacencies and orbit counts, by looking at every set of two, three and four nodes.

    .. math::
        A^h_{ab}(u, v) = \#\{S \ni u, v : G[S] \text{ connected},\ |S| \le 4,\ u \text{ at orbit } a,\
        v \text{ at orbit } b,\ \mathrm{dist}_{G[S]}(u, v) = h\}

    Args:
        graph: undirected, unweighted, without loops; at most a few dozen nodes.

    Returns:
        The 28 dense matrices by :class:`Orbits`, and the graphlet degree vectors ``[n, 15]``.

    Raises:
        ValueError: for a bad, weighted or directed graph, or one with loops.

    Source: ``windels2024graphlets``, definition of orbit adjacency.
    """
    adjacency = _simple(graph).toarray().astype(np.int64)
    n = len(adjacency)
    matrices = {key: np.zeros((n, n), np.int64) for key in PARTNERS}
    counts = np.zeros((n, 15), np.int64)
    for size in (2, 3, 4):
        for nodes in combinations(range(n), size):
            inside = adjacency[np.ix_(nodes, nodes)]
            degree = inside.sum(0)
            orbit = (_FOUR | _SMALLER).get(tuple(sorted(degree.tolist())))
            # Sets that are not connected have degrees that are not listed, such as (1, 1, 1, 1) for two disjoint edges.
            if orbit is None:
                continue
            two = inside @ inside
            for i in range(size):
                counts[nodes[i], orbit[degree[i]]] += 1
                for j in range(size):
                    if i != j:
                        hops = 1 if inside[i, j] else 2 if two[i, j] else 3
                        matrices[Orbits(orbit[degree[i]], orbit[degree[j]], hops)][nodes[i], nodes[j]] += 1
    return matrices, counts


@njit(cache=True)
def _triangles(indptr, indices):
    """Common neighbours of the ends of each directed edge: their number, and a list for edges (x, y) with x < y."""
    n = len(indptr) - 1
    shared = np.zeros(len(indices), np.int64)
    mark = np.full(n, -1, np.int64)
    start = np.zeros(len(indices) + 1, np.int64)
    total = 0
    for x in range(n):
        for e in range(indptr[x], indptr[x + 1]):
            mark[indices[e]] = x
        for e in range(indptr[x], indptr[x + 1]):
            y = indices[e]
            found = 0
            for f in range(indptr[y], indptr[y + 1]):
                if mark[indices[f]] == x:
                    found += 1
            shared[e] = found
            if x < y:
                total += found
            start[e + 1] = total
    third = np.empty(total, np.int32)
    mark[:] = -1
    for x in range(n):
        for e in range(indptr[x], indptr[x + 1]):
            mark[indices[e]] = x
        for e in range(indptr[x], indptr[x + 1]):
            y = indices[e]
            if x < y:
                k = start[e]
                for f in range(indptr[y], indptr[y + 1]):
                    if mark[indices[f]] == x:
                        third[k] = indices[f]
                        k += 1
    return shared, start, third


@njit(cache=True)
def _grown(values, need):
    if values.shape[-1] >= need:
        return values
    out = np.empty((values.shape[0], max(need, 2 * values.shape[1])), values.dtype)
    out[:, : values.shape[1]] = values
    return out


@njit(cache=True)
def _ascending(found, count, seen):
    """Put the first `count` entries of `found`, the indices where `seen` is positive, in increasing order."""
    # A full pass over the nodes is cheaper than sorting once a fair share of them is there.
    if 8 * count > len(seen):
        k = 0
        for v in range(len(seen)):
            if seen[v] > 0:
                found[k] = v
                k += 1
    else:
        found[:count].sort()


@njit(cache=True)
def _count(indptr, indices, shared, start, third):
    n = len(indptr) - 1
    edges = len(indices)
    degree = np.empty(n, np.int64)
    around = np.zeros(n, np.int64)
    corner = np.zeros(n, np.int64)
    for u in range(n):
        degree[u] = indptr[u + 1] - indptr[u]
    for u in range(n):
        for e in range(indptr[u], indptr[u + 1]):
            around[u] += degree[indices[e]]
            corner[u] += shared[e]
        corner[u] //= 2
    on_edge = np.zeros((19, edges), np.int64)
    second_ptr = np.zeros(n + 1, np.int64)
    path_ptr = np.zeros(n + 1, np.int64)
    second = np.empty((8, 4 * edges + 16), np.int64)
    second_index = np.empty((1, 4 * edges + 16), np.int32)
    path = np.empty((1, 8 * edges + 16), np.int64)
    path_index = np.empty((1, 8 * edges + 16), np.int32)
    place = np.full(n, -1, np.int64)
    two = np.zeros(n, np.int64)
    three = np.zeros(n, np.int64)
    pairs = np.zeros(n, np.int64)
    near = np.zeros(n, np.int64)
    far = np.zeros(n, np.int64)
    weight = np.zeros(n, np.int64)
    reached = np.empty(n, np.int64)
    reached_three = np.empty(n, np.int64)
    for u in range(n):
        lo, hi = indptr[u], indptr[u + 1]
        for e in range(lo, hi):
            place[indices[e]] = e
        count = 0
        for e in range(lo, hi):
            x = indices[e]
            for f in range(indptr[x], indptr[x + 1]):
                v = indices[f]
                if two[v] == 0:
                    reached[count] = v
                    count += 1
                two[v] += 1
                near[v] += shared[e]
                far[v] += shared[f]
                weight[v] += degree[x]
        # A triangle (u, x, y) and a further common neighbour v of x and y: v sees an adjacent pair within N(u).
        for e in range(lo, hi):
            x = indices[e]
            if shared[e] == 0:
                continue
            for f in range(indptr[x], indptr[x + 1]):
                y = indices[f]
                if x < y and place[y] >= 0:
                    for k in range(start[f], start[f + 1]):
                        pairs[third[k]] += 1
        ends = 0
        for i in range(count):
            y = reached[i]
            for f in range(indptr[y], indptr[y + 1]):
                v = indices[f]
                if three[v] == 0:
                    reached_three[ends] = v
                    ends += 1
                three[v] += two[y]
        for e in range(lo, hi):
            v = indices[e]
            t = shared[e]
            k = pairs[v]
            s_u, s_v, d_t = near[v], far[v], weight[v]
            own, other = degree[u] - 1 - t, degree[v] - 1 - t
            walks = three[v]
            d1312 = s_u - t - 2 * k
            d1213 = s_v - t - 2 * k
            p119 = corner[u] - t - k - d1312
            p911 = corner[v] - t - k - d1213
            square = walks - (degree[u] + degree[v] - 1) - d1213 - d1312 - 2 * k
            on_edge[0, e] = 1
            on_edge[1, e] = other
            on_edge[2, e] = own
            on_edge[3, e] = t
            on_edge[4, e] = (
                (around[v] - d_t - degree[u]) - (2 * corner[v] - s_v - t) - (walks - s_u - degree[u]) + d1213
            )
            on_edge[5, e] = (
                (around[u] - d_t - degree[v]) - (2 * corner[u] - s_u - t) - (walks - s_v - degree[v]) + d1312
            )
            on_edge[6, e] = own * other - square
            on_edge[7, e] = other * (other - 1) // 2 - p911
            on_edge[8, e] = own * (own - 1) // 2 - p119
            on_edge[9, e] = square
            on_edge[10, e] = p911
            on_edge[11, e] = p119
            on_edge[12, e] = t * other - d1213
            on_edge[13, e] = t * own - d1312
            on_edge[14, e] = d_t - s_u - s_v + 2 * k
            on_edge[15, e] = d1213
            on_edge[16, e] = d1312
            on_edge[17, e] = t * (t - 1) // 2 - k
            on_edge[18, e] = k
        kept = second_ptr[u]
        second = _grown(second, kept + count)
        second_index = _grown(second_index, kept + count)
        _ascending(reached, count, two)
        for i in range(count):
            v = reached[i]
            if v == u or place[v] >= 0:
                continue
            c, m = two[v], pairs[v]
            a910, a109 = far[v] - 2 * m, near[v] - 2 * m
            second_index[0, kept] = v
            second[0, kept] = c
            second[1, kept] = c * (degree[v] - c) - a910
            second[2, kept] = c * (degree[u] - c) - a109
            second[3, kept] = weight[v] - 2 * c - near[v] - far[v] + 2 * m
            second[4, kept] = c * (c - 1) // 2 - m
            second[5, kept] = a910
            second[6, kept] = a109
            second[7, kept] = m
            kept += 1
        second_ptr[u + 1] = kept
        kept = path_ptr[u]
        path = _grown(path, kept + ends)
        path_index = _grown(path_index, kept + ends)
        _ascending(reached_three, ends, three)
        for i in range(ends):
            v = reached_three[i]
            if v != u and place[v] < 0:
                value = three[v] - near[v] - far[v] + 2 * pairs[v]
                if value > 0:
                    path[0, kept] = value
                    path_index[0, kept] = v
                    kept += 1
            three[v] = 0
        path_ptr[u + 1] = kept
        for i in range(count):
            v = reached[i]
            two[v], near[v], far[v], weight[v], pairs[v] = 0, 0, 0, 0, 0
        for e in range(lo, hi):
            v = indices[e]
            place[v] = -1
            pairs[v] = 0
        pairs[u] = 0
    return on_edge, second_ptr, second_index, second, path_ptr, path_index, path


@njit(cache=True)
def _squeeze(indptr, indices, values):
    """Rows without their zero entries."""
    size = 0
    for e in range(indptr[-1]):
        if values[e] != 0:
            size += 1
    data, columns = np.empty(size, np.int64), np.empty(size, np.int32)
    pointer = np.zeros(len(indptr), np.int64)
    k = 0
    for u in range(len(indptr) - 1):
        for e in range(indptr[u], indptr[u + 1]):
            if values[e] != 0:
                data[k], columns[k] = values[e], indices[e]
                k += 1
        pointer[u + 1] = k
    return data, columns, pointer


def orbit_adjacency(graph: Any) -> dict[Orbits, sp.csr_array]:
    r"""All 28 orbit adjacencies of graphlets with up to four nodes, row by row from walks and triangles.

    Every count follows from a few sums over the common neighbours :math:`T` of u and v. On an edge, with
    :math:`t = |T|`, :math:`k` adjacent pairs in T and :math:`t_{ux}` common neighbours of u and x, for example

    .. math::
        A_{14,14} = k, \quad A_{13,13} = \tbinom t2 - k, \quad A_{13,12} = \sum_{x \in T} t_{ux} - t - 2k, \quad
        A^{1}_{8,8} = (A^3)_{uv} - (d_u + d_v - 1) - A_{12,13} - A_{13,12} - 2k,

    and on a pair that is not adjacent, with :math:`c` common neighbours of which :math:`m` pairs are adjacent,

    .. math::
        A_{12,12} = m, \quad A^{2}_{8,8} = \tbinom c2 - m, \quad A_{10,9} = \sum_{x \in T} t_{ux} - 2m, \quad
        A_{4,4} = (A^3)_{uv} - A_{9,10} - A_{10,9} - 2m .

    The time is :math:`O(\sum_u \sum_{y \in N_2(u)} d_y + \sum_{xy \in E} t_{xy}^2)`; nothing of size :math:`n^2` is
    formed.

    Args:
        graph: undirected, unweighted, without loops, n nodes.

    Returns:
        ``csr_array [n, n]`` of int64 without stored zeros for each of the keys of :data:`PARTNERS`.

    Raises:
        ValueError: for a bad, weighted or directed graph, or one with loops.

    Source: ``windels2024graphlets``, the equations of its counter (derived anew here).
    """
    adjacency = _simple(graph)
    indptr, indices = adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32)
    on_edge, second_ptr, second_index, second, path_ptr, path_index, path = _count(
        indptr, indices, *_triangles(indptr, indices)
    )
    out = {}
    for keys, pointer, columns, values in (
        (_EDGE_KEYS, indptr, indices, on_edge),
        (_SECOND_KEYS, second_ptr, second_index[0], second),
        ([_PATH_KEY], path_ptr, path_index[0], path),
    ):
        for key, row in zip(keys, values):
            data, column, start = _squeeze(pointer, columns, row)
            out[key] = sp.csr_array((data, column, start), shape=adjacency.shape)
    return {key: out[key] for key in PARTNERS}


def graphlet_degree_vectors(matrices: dict[Orbits, sp.csr_array]) -> Int[np.ndarray, "n 15"]:
    r"""How often each node holds each of the orbits 0 to 14: row sums of orbit adjacencies over the partners.

    .. math:: \mathrm{GDV}_a(u) = \frac{1}{\#\text{partners}} \sum_v A_{ab}(u, v)

    Args:
        matrices: result of :func:`orbit_adjacency`.

    Raises:
        ValueError: if an orbit has no matrix.

    Source: ``windels2024graphlets`` (graphlet degree vectors as by ORCA).
    """
    columns = []
    for orbit in range(15):
        key = next((k for k in matrices if k.first == orbit), None)
        require(key is not None, f"an orbit adjacency from orbit {orbit}", "none")
        columns.append(np.asarray(matrices[key].sum(1)).ravel() // PARTNERS[key])
    return np.stack(columns, axis=1)


def simple_path3_counts(graph: Any) -> sp.csr_array:
    r"""Number of paths of three edges and four distinct nodes between two distinct nodes.

    .. math:: P_4(u, v) = (A^3)_{uv} - A_{uv}\,(d_u + d_v - 1), \qquad u \ne v

    Args:
        graph: undirected, unweighted, without loops.

    Returns:
        ``csr_array [n, n]`` of int64.

    Raises:
        ValueError: for a bad, weighted or directed graph, or one with loops.

    Source: ``windels2024graphlets``, relation of walks to orbit adjacencies.
    """
    adjacency = _simple(graph).astype(np.int64)
    degree = np.asarray(adjacency.sum(1)).ravel()
    scale = sp.diags_array(degree, dtype=np.int64)
    cube = sp.csr_array(adjacency @ adjacency @ adjacency)
    cube = cube - sp.diags_array(cube.diagonal(), dtype=np.int64)
    out = sp.csr_array(cube - (scale @ adjacency + adjacency @ scale - adjacency)).astype(np.int64)
    out.eliminate_zeros()
    return out


def walk_identities(graph: Any, matrices: dict[Orbits, sp.csr_array]) -> dict[str, int]:
    r"""Largest deviation of each identity between walks and orbit adjacencies; all are zero for right counts.

    For :math:`u \ne v`: :math:`(A^2)_{uv} = A_{1,1} + A_{3,3}`, :math:`A_{uv}(d_u - 1) = A_{2,1} + A_{3,3}`, and

    .. math::
        P_4 = A_{4,4} + A^1_{8,8} + A_{9,10} + A_{10,9} + 2 A_{12,12} + A_{12,13} + A_{13,12} + 2 A_{14,14}.

    Args:
        graph: the graph.
        matrices: result of :func:`orbit_adjacency` on it.

    Raises:
        ValueError: for a bad, weighted or directed graph, or one with loops.

    Source: ``windels2024graphlets``, relation of walks to orbit adjacencies.
    """
    adjacency = _simple(graph).astype(np.int64)
    get = {(k.first, k.second, k.hops): m for k, m in matrices.items()}
    square = sp.csr_array(adjacency @ adjacency)
    square = square - sp.diags_array(square.diagonal(), dtype=np.int64)
    degree = sp.diags_array(np.asarray(adjacency.sum(1)).ravel() - 1, dtype=np.int64)
    four = get[4, 4, 3] + get[8, 8, 1] + get[9, 10, 2] + get[10, 9, 2] + get[12, 13, 1] + get[13, 12, 1]
    sides = {
        "walks of two steps": (square, get[1, 1, 2] + get[3, 3, 1]),
        "edges times degree": (degree @ adjacency, get[2, 1, 1] + get[3, 3, 1]),
        "paths of three steps": (simple_path3_counts(graph), four + 2 * get[12, 12, 2] + 2 * get[14, 14, 1]),
    }
    return {name: int(abs(left - right).max()) for name, (left, right) in sides.items()}


def symmetrised(matrices: dict[Orbits, sp.csr_array]) -> dict[Orbits, sp.csr_array]:
    r"""The 20 orbit adjacencies up to transposition, :math:`A_{ab} + A_{ba}` where the orbits differ.

    Args:
        matrices: result of :func:`orbit_adjacency`.

    Source: ``windels2024graphlets``, before its embedding.
    """
    return {k: matrices[k] if k.first == k.second else matrices[k] + matrices[k.transposed] for k in UNORDERED}


def orbit_pmi_embedding(matrix: sp.csr_array, dimension: int, *, seed: int = 0) -> np.ndarray:
    r"""Factors of the positive pointwise mutual information of a symmetric orbit adjacency (GOPMI).

    .. math::
        M_{uv} = \max\Big(0, \log \frac{\mathrm{vol}(A)\, A_{uv}}{s_u s_v}\Big), \quad s = A \mathbf 1, \quad
        \mathrm{vol}(A) = \mathbf 1^\top s, \qquad Y = U_d S_d^{1/2}

    Args:
        matrix: symmetric counts ``[n, n]``; one without any count gives zeros, since there is nothing to embed.
        dimension: d.
        seed: seeds the iteration's start vector.

    Returns:
        ``[n, d]``.

    Raises:
        ValueError: for negative counts or a dimension out of range.

    Source: ``windels2024graphlets``, graphlet-orbit PMI (its exact normalisation is not confirmed).
    """
    n = matrix.shape[0]
    require(1 <= dimension <= n, f"a dimension from 1 to {n}", dimension)
    if matrix.nnz == 0:
        return np.zeros((n, dimension))
    positive = ppmi(matrix)
    return truncated_svd_embedding(positive, dimension, seed=seed) if positive.nnz else np.zeros((n, dimension))
