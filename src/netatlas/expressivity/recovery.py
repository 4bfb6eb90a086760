r"""Hidden features recovered from the wiring of a neighbourhood graph: global scale, shortest paths, scaling."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import gmres
from scipy.spatial import cKDTree
from torch_geometric.data import Data

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr, normalized_adjacency

Scale = Literal["full", "hops", "degree", "ten rounds", "permuted"]


def knn_graph(points: Float[np.ndarray, "n d"], k: int) -> Data:
    """The directed graph from every point to its k nearest others.

    Args:
        points: Coordinates.
        k: Number of neighbours.

    Returns:
        ``Data`` with ``edge_index`` ``[2, n k]``, sorted by sender, and ``num_nodes``.

    Raises:
        ValueError: For NaN, fewer than two points, or k out of range.

    Source: sato2023recover.
    """
    points = np.asarray(points, dtype=np.float64)
    require(points.ndim == 2 and len(points) >= 2, "points of shape [n, d] with n of at least 2", points.shape)
    require_finite("points", points)
    require(1 <= k < len(points), f"k in [1, {len(points)})", k)
    _, found = cKDTree(points).query(points, k + 1)
    own = found == np.arange(len(points))[:, None]
    # Among duplicates a point need not come first in its own list; then the farthest is dropped instead.
    own[~own.any(1), -1] = True
    heads = found[~own].reshape(len(points), k)
    tails = np.repeat(np.arange(len(points)), k)
    return Data(edge_index=torch.from_numpy(np.stack([tails, np.sort(heads, 1).ravel()])), num_nodes=len(points))


def stationary_distribution(
    graph: Any, *, rounds: int | None = None, teleport: float = 1e-3, tolerance: float = 1e-12
) -> Float[np.ndarray, " n"]:
    r"""Stationary distribution of the random walk with a little teleportation, by rounds of sum aggregation.

    .. math:: \pi \leftarrow (1 - \epsilon)\, P^\top \pi + \epsilon / n, \qquad P = D_{\mathrm{out}}^{-1} A

    Nodes without outgoing edges teleport always. The limit solves a linear system,
    :math:`\pi \propto (I - (1 - \epsilon) P^\top)^{-1} 1`; a Krylov method comes near it, and rounds finish.

    Args:
        graph: Any graph that :func:`~netatlas.core.graph.as_csr` takes; edges point from row to column.
        rounds: Number of rounds from the uniform distribution; default: until it no longer changes.
        teleport: The share :math:`\epsilon`, which keeps nodes that nobody points to above zero.
        tolerance: Largest total change at the end.

    Returns:
        Probabilities, sum 1.

    Raises:
        ValueError: For a bad graph, teleport out of (0, 1], or a negative number of rounds.

    Source: sato2023recover.
    """
    require(0 < teleport <= 1, "teleport in (0, 1]", teleport)
    require(rounds is None or rounds >= 0, "a non-negative number of rounds", rounds)
    walk = normalized_adjacency(graph, "row")
    n = walk.shape[0]
    stuck, step = np.diff(walk.indptr) == 0, sp.csr_array(walk.T)
    current = np.full(n, 1 / n)
    if rounds is None:
        # Both ways to teleport add the same to all nodes, so that the limit is one solution up to its sum.
        near, _ = gmres(
            sp.eye_array(n, format="csr") - (1 - teleport) * step, current, rtol=1e-13, restart=60, maxiter=5
        )
        if (near > 0).all():
            current = near / near.sum()
    # Each round shrinks the error by 1 - teleport at least, which bounds the number of rounds.
    limit = rounds if rounds is not None else math.ceil(math.log(tolerance / 4) / math.log1p(-min(teleport, 1 - 1e-9)))
    for _ in range(limit):
        following = (1 - teleport) * (step @ current + current[stuck].sum() / n) + teleport / n
        change = np.abs(following - current).sum()
        current = following
        if rounds is None and change < tolerance:
            break
    return current / current.sum()


def neighbourhood_scale(graph: Any, dimension: int, kind: Scale = "full", *, seed: int = 0) -> Float[np.ndarray, " n"]:
    r"""Radius of each node's neighbourhood up to a constant, from the wiring alone.

    The stationary probability is proportional to density over squared radius, :math:`\pi \propto p / r^2`, and the
    degree to :math:`n\,p\,r^d`, so that

    .. math:: r_v \propto \Bigl(\frac{\deg_v}{n^2\, \tilde\pi_v}\Bigr)^{1/(d + 2)}, \qquad \tilde\pi = n \pi.

    Args:
        graph: The directed neighbourhood graph.
        dimension: Dimension d of the hidden features.
        kind: ``"full"``; ``"hops"`` gives every node 1; ``"degree"`` and ``"ten rounds"`` replace the stationary
            distribution by one and ten rounds of the walk; ``"permuted"`` shuffles the full result among the nodes.
        seed: Seeds the shuffle.

    Raises:
        ValueError: For an unknown kind or a dimension below 1.

    Source: sato2023recover.
    """
    kinds = ("full", "hops", "degree", "ten rounds", "permuted")
    require(kind in kinds, f"a kind out of {', '.join(kinds)}", repr(kind))
    require(dimension >= 1, "a dimension of at least 1", dimension)
    matrix = as_csr(graph)
    n = matrix.shape[0]
    if kind == "hops":
        return np.ones(n)
    walk = stationary_distribution(matrix, rounds={"degree": 1, "ten rounds": 10}.get(kind))
    degree = np.maximum(np.asarray(matrix.sum(1)).ravel(), 1)
    scale = (degree / (n**2 * n * walk)) ** (1 / (dimension + 2))
    return np.random.default_rng(seed).permutation(scale) if kind == "permuted" else scale


def landmark_shortest_paths(
    graph: Any, scale: Float[np.ndarray, " n"], landmarks: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m n"]:
    """Lengths of shortest directed paths from the landmarks, an edge being as long as the scale of its sender.

    The fixed point of minimum aggregation (Bellman-Ford), computed by Dijkstra's algorithm.

    Args:
        graph: Directed graph.
        scale: Positive length of each node's outgoing edges.
        landmarks: Nodes to start from.

    Returns:
        Distances; a node that cannot be reached gets the largest finite one.

    Raises:
        ValueError: For lengths that are not positive and finite, or landmarks out of range.

    Source: sato2023recover.
    """
    matrix = as_csr(graph)
    n = matrix.shape[0]
    scale, landmarks = np.asarray(scale, dtype=np.float64), np.asarray(landmarks)
    require(scale.shape == (n,), f"one length a node, {n}", scale.shape)
    require(bool(np.isfinite(scale).all() and (scale > 0).all()), "positive finite lengths", scale.min())
    inside = len(landmarks) > 0 and landmarks.min() >= 0 and landmarks.max() < n
    require(bool(inside), f"landmarks in [0, {n}), at least one", landmarks)
    weighted = sp.csr_array((np.repeat(scale, np.diff(matrix.indptr)), matrix.indices, matrix.indptr), shape=(n, n))
    found = dijkstra(weighted, indices=landmarks)
    finite = np.isfinite(found)
    return np.where(finite, found, found[finite].max())


def classical_mds(distances: Float[np.ndarray, "m m"], dimension: int) -> Float[np.ndarray, "m d"]:
    r"""Classical scaling: coordinates whose distances are nearest, in the sense of inner products, to those given.

    .. math:: B = -\tfrac12 H \bigl(\tfrac12 (D + D^\top)\bigr)^{\circ 2} H, \quad H = I - \tfrac1m 1 1^\top, \qquad
        Y = V_d \Lambda_d^{1/2}

    Args:
        distances: Non-negative, made symmetric by the mean of both directions.
        dimension: Number of coordinates.

    Returns:
        Centred coordinates, each with its largest absolute entry positive; a negative eigenvalue counts as 0.

    Raises:
        ValueError: For a matrix that is not square or has negative or NaN entries, or a dimension out of range.

    Source: sato2023recover (with the square root of the eigenvalues and the centring that classical scaling asks for).
    """
    distances = np.asarray(distances, dtype=np.float64)
    require(distances.ndim == 2 and distances.shape[0] == distances.shape[1], "a square matrix", distances.shape)
    require_finite("distances", distances)
    require(bool((distances >= 0).all()), "non-negative distances", distances.min() if distances.size else 0)
    m = len(distances)
    require(1 <= dimension <= m, f"a dimension in [1, {m}]", dimension)
    squares = ((distances + distances.T) / 2) ** 2
    centred = squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    values, vectors = values[::-1][:dimension], vectors[:, ::-1][:, :dimension]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(dimension)])
    return vectors * signs * np.sqrt(np.maximum(values, 0))


class Procrustes(NamedTuple):
    """The best orthogonal map of one point set onto another.

    Attributes:
        distance: Mean squared distance after the map.
        relative: The same, over the mean squared distance of the target from its mean.
        aligned: The mapped points, with the target's mean.
    """

    distance: float
    relative: float
    aligned: Float[np.ndarray, "n d"]


def orthogonal_procrustes_distance(
    points: Float[np.ndarray, "n d"], target: Float[np.ndarray, "n d"], *, scale: float | Literal["fit"] = 1.0
) -> Procrustes:
    r"""Distance of point sets up to translations, rotations and reflections.

    .. math:: d_G(A, B) = \min_{R^\top R = I} \frac1n \sum_v \|s R (a_v - \bar a) - (b_v - \bar b)\|^2

    Args:
        points: Points A.
        target: Points B.
        scale: The factor s, or ``"fit"`` for the best one.

    Raises:
        ValueError: For shapes that differ, no point, or NaN.

    Source: sato2023recover.
    """
    points, target = np.asarray(points, dtype=np.float64), np.asarray(target, dtype=np.float64)
    require(
        points.ndim == 2 and points.shape == target.shape, "two point sets of one shape", (points.shape, target.shape)
    )
    require(len(points) > 0, "at least one point", 0)
    require_finite("points", points)
    require_finite("target", target)
    a, b = points - points.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    energy = (a**2).sum()
    factor = (s.sum() / energy if energy > 0 else 0.0) if scale == "fit" else float(scale)
    aligned = factor * a @ (u @ vt)
    distance = float(((aligned - b) ** 2).sum(1).mean())
    spread = float((b**2).sum(1).mean())
    return Procrustes(distance, distance / spread if spread > 0 else math.inf, aligned + target.mean(0))


def recover_features(
    graph: Any, dimension: int, landmarks: Int[np.ndarray, " m"], *, scale: Float[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, "n d"]:
    """Hidden features of a neighbourhood graph up to scale, translation, rotation and reflection.

    Weighted shortest paths between landmarks, classical scaling of the landmarks, and for every other node the place
    of its nearest landmark.

    Args:
        graph: The directed neighbourhood graph.
        dimension: Dimension of the hidden features.
        landmarks: Nodes that serve as landmarks.
        scale: Length of each node's edges; default: :func:`neighbourhood_scale`.

    Raises:
        ValueError: As the functions that it is made of.

    Source: sato2023recover.
    """
    scale = neighbourhood_scale(graph, dimension) if scale is None else scale
    paths = landmark_shortest_paths(graph, scale, landmarks)
    places = classical_mds(paths[:, landmarks], dimension)
    return places[paths.argmin(0)]


def two_moons(count: int, seed: int, noise: float = 1.0) -> Float[np.ndarray, "n 2"]:
    """Two interleaved semicircles of radius 6 with Gaussian noise, times 0.15.

    Args:
        count: Number of points.
        seed: Seeds the draw.
        noise: Standard deviation before scaling.

    Raises:
        ValueError: For fewer than two points.

    Source: sato2023recover (our own arrangement of its generator).
    """
    require(count >= 2, "at least two points", count)
    rng = np.random.default_rng(seed)
    angle, upper = rng.uniform(0, math.pi, count), rng.random(count) < 0.5
    moon = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(upper, 1, -1)[:, None] * 6
    moon += np.where(upper[:, None], [0.0, 0.0], [6.0, 2.0])
    return (moon + noise * rng.normal(size=(count, 2))) * 0.15


def density_gradient(count: int, seed: int, rate: float = 3.0) -> Float[np.ndarray, "n 2"]:
    r"""Points of the unit square with density proportional to :math:`e^{\text{rate}\, z_1}`.

    Args:
        count: Number of points.
        seed: Seeds the draw.
        rate: Rate of growth, not 0.

    Raises:
        ValueError: For fewer than two points or a rate of 0.

    Source: sato2023recover (the set is ours).
    """
    require(count >= 2 and rate != 0, "at least two points and a rate other than 0", (count, rate))
    rng = np.random.default_rng(seed)
    first = np.log1p(rng.random(count) * math.expm1(rate)) / rate
    return np.stack([first, rng.random(count)], 1)
