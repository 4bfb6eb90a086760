"""Feature expansion: the subspaces that powers of the propagation span, and weights of their own for each."""

from __future__ import annotations

from math import comb
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import require_undirected
from netatlas.core.linalg import truncated_svd

Basis = Literal["gcn", "monomial", "chebyshev", "bernstein"]


def unit_columns(x: Float[np.ndarray, "*B n F"]) -> Float[np.ndarray, "*B n F"]:
    """Columns scaled to Euclidean length one; columns of zeros stay.

    Args:
        x: Matrices in the last two axes.

    Raises:
        ValueError: For fewer than two axes, or entries that are not finite.
    """
    x = np.asarray(x, dtype=float)
    require(x.ndim >= 2, "at least two axes", x.ndim)
    require_finite("x", x)
    size = np.linalg.norm(x, axis=-2, keepdims=True)
    return x / np.where(size > 0, size, 1.0)


def polynomial_basis(
    graph: Any, x: Float[np.ndarray, "n F"], order: int, kind: Basis = "gcn"
) -> Float[np.ndarray, "K1 n F"]:
    r"""Feature subspaces of a polynomial filter, each with columns of unit length.

    With :math:`h` the features with rows of unit length, :math:`\hat A` the adjacency with self-loops normalised
    symmetrically, :math:`S = D^{-1/2} A D^{-1/2}` and :math:`L = I - S`:

    .. math::
        \text{gcn:}\ & \phi_k = \hat A^k h \qquad \text{monomial:}\ \phi_k = S^k h \\
        \text{chebyshev:}\ & \phi_k = 2 (L - I) \phi_{k-1} - \phi_{k-2},\quad \phi_1 = (L - I) h,\ \phi_0 = h \\
        \text{bernstein:}\ & \phi_k = \binom{K}{k} 2^{-K} L^k (2 I - L)^{K - k} h

    Columns are normalised after the recursion. The Chebyshev recursion is the true one.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        x: Features.
        order: Highest power :math:`K`, at least 0.
        kind: ``"gcn"``, ``"monomial"``, ``"chebyshev"`` or ``"bernstein"``.

    Returns:
        ``[K + 1, n, F]``.

    Raises:
        ValueError: For an unknown kind, a negative order, features of another length or not finite, or a directed or
            bad graph.

    Source: sun2023fegnn.
    """
    known = ("gcn", "monomial", "chebyshev", "bernstein")
    require(kind in known, f"a kind out of {', '.join(known)}", repr(kind))
    require(order >= 0, "an order of at least 0", order)
    matrix = require_undirected(as_csr(graph))
    x = np.asarray(x, dtype=float)
    require(x.ndim == 2 and len(x) == matrix.shape[0], f"features [{matrix.shape[0]}, F]", x.shape)
    require_finite("x", x)
    size = np.linalg.norm(x, axis=1, keepdims=True)
    first = x / np.where(size > 0, size, 1.0)
    step = normalized_adjacency(matrix, "sym", self_loops=kind == "gcn")
    if kind == "bernstein":
        # L = I - S and 2 I - L = I + S commute, so the powers can be taken from either end.
        powers = [first]
        for _ in range(order):
            powers.append(powers[-1] + step @ powers[-1])
        found = []
        for k in range(order + 1):
            value = powers[order - k]
            for _ in range(k):
                value = value - step @ value
            found.append(comb(order, k) * 2.0**-order * value)
    elif kind == "chebyshev":
        found = [first, -(step @ first)]
        for _ in range(order - 1):
            found.append(-2 * (step @ found[-1]) - found[-2])
        found = found[: order + 1]
    else:
        found = [first]
        for _ in range(order):
            found.append(step @ found[-1])
    return unit_columns(np.stack(found))


def structural_components(graph: Any, rank: int, *, seed: int = 0) -> Float[np.ndarray, "n r"]:
    r"""Principal components of the row-normalised adjacency, columns of unit length.

    .. math:: D^{-1} A \approx U \operatorname{diag}(s) V^\top, \qquad S = U \operatorname{diag}(s)

    Unit columns leave of :math:`U \operatorname{diag}(s)` the left singular vectors, up to columns with :math:`s = 0`.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.
        rank: Number of components.
        seed: Seeds the iteration's start.

    Raises:
        ValueError: For a rank out of range or a bad graph.

    Source: sun2023fegnn.
    """
    matrix = normalized_adjacency(graph, "row")
    u, s, _ = truncated_svd(matrix, rank, seed=seed)
    return unit_columns(u * s)


def effective_rank(matrix: Float[np.ndarray, "n F"]) -> float:
    r"""Effective rank: the exponential of the entropy of the normalised singular values.

    .. math:: \exp\Bigl(-\sum_i p_i \ln p_i\Bigr), \qquad p_i = \sigma_i \Big/ \sum_j \sigma_j

    Args:
        matrix: Not zero.

    Raises:
        ValueError: For a matrix of another number of axes, not finite, or zero.

    Source: sun2023fegnn asks how correlated the subspaces are; the measure is Roy and Vetterli's (2007).
    """
    matrix = np.asarray(matrix, dtype=float)
    require(matrix.ndim == 2, "a matrix", matrix.shape)
    require_finite("matrix", matrix)
    if matrix.shape[0] > 2 * matrix.shape[1]:
        # The triangular factor has the same singular values at the price of the smaller side.
        matrix = np.linalg.qr(matrix, mode="r")
    values = np.linalg.svd(matrix, compute_uv=False)
    require(bool(values.sum() > 0), "a matrix that is not zero", "zeros")
    p = values / values.sum()
    return float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()))


def rank_growth(basis: Float[np.ndarray, "K1 n F"]) -> Float[np.ndarray, " K1"]:
    r"""Effective rank of the first :math:`k + 1` subspaces side by side, for every :math:`k`.

    Args:
        basis: From :func:`polynomial_basis`.

    Raises:
        ValueError: As :func:`effective_rank`.

    Source: sun2023fegnn.
    """
    require(np.ndim(basis) == 3, "a basis [K + 1, n, F]", np.shape(basis))
    return np.array([effective_rank(np.concatenate(list(basis[: k + 1]), axis=1)) for k in range(len(basis))])


def principal_angles(first: Float[np.ndarray, "n F"], second: Float[np.ndarray, "n G"]) -> Float[np.ndarray, " k"]:
    r"""Principal angles between two column spaces, increasing, in radians.

    .. math:: \cos \theta_i = \sigma_i(Q_1^\top Q_2)

    Small angles are taken from the sine, of which the cosine would lose half of the digits.

    Args:
        first: Columns span the first space.
        second: Columns span the second.

    Raises:
        ValueError: For different numbers of rows, or entries that are not finite.

    Source: sun2023fegnn.
    """
    from scipy.linalg import subspace_angles

    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    require(first.ndim == 2 and second.ndim == 2 and len(first) == len(second), "matrices of as many rows", "others")
    require_finite("first", first)
    require_finite("second", second)
    return np.sort(subspace_angles(first, second))


class FeatureExpansion(nn.Module):
    r"""A linear model on a fixed feature space: powers of the propagation, and structural components.

    .. math:: Z = \sum_{k=0}^{K} \phi_k W_k + S W_s,\qquad \text{or shared:}\ \sum_k \theta_k \phi_k W + S W_s;
        \qquad \text{logits} = Z W_2 + b_2

    Args:
        blocks: Number of subspaces :math:`K + 1`; 0 leaves the structural components alone.
        features: Features of each subspace.
        structure: Number of structural columns.
        hidden: Columns of :math:`Z`.
        classes: Number of classes.
        shared: Whether all subspaces share :math:`W`, up to a factor :math:`\theta_k` that starts at 1.

    Raises:
        ValueError: For no inputs at all, or widths below 1.

    Source: sun2023fegnn.
    """

    def __init__(
        self, blocks: int, features: int, structure: int, hidden: int, classes: int, *, shared: bool = False
    ) -> None:
        super().__init__()
        require(blocks >= 0 and structure >= 0 and blocks + structure > 0, "some input", (blocks, structure))
        require(min(features, hidden, classes) >= 1, "widths of at least 1", (features, hidden, classes))
        self.blocks, self.features, self.shared = blocks, features, shared
        rows = features if shared else blocks * features
        self.weight = nn.Linear(rows, hidden) if blocks else None
        self.theta = nn.Parameter(torch.ones(blocks)) if shared and blocks else None
        self.structural = nn.Linear(structure, hidden) if structure else None
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n C"]:
        """Logits from the columns :math:`[\\phi_0, \\dots, \\phi_K, S]` side by side."""
        cut = self.blocks * self.features
        total = 0.0
        if self.weight is not None:
            weight = self.weight.weight
            if self.theta is not None:
                # The factors go to the weights: members then multiply the same columns, in one product.
                weight = (weight[:, None] * self.theta[:, None]).flatten(1)
            total = total + nn.functional.linear(x[:, :cut], weight, self.weight.bias)
        if self.structural is not None:
            total = total + self.structural(x[:, cut:])
        return self.head(total)


def expanded_features(
    basis: Float[np.ndarray, "K1 n F"] | None, structure: Float[np.ndarray, "n r"] | None = None
) -> Float[Tensor, "n D"]:
    r"""The columns :math:`[\phi_0, \dots, \phi_K, S]` side by side, scaled so that an entry is of the order of one.

    Columns of unit length have entries of the order of :math:`n^{-1/2}`; times :math:`\sqrt n` they fit the usual
    learning rates.

    Args:
        basis: From :func:`polynomial_basis`, or ``None``.
        structure: Structural columns, or ``None``.

    Raises:
        ValueError: For neither, or different numbers of nodes.

    Source: sun2023fegnn.
    """
    parts = [] if basis is None else list(np.asarray(basis))
    parts += [] if structure is None else [np.asarray(structure)]
    require(len(parts) > 0, "a basis or structural columns", "neither")
    require(len({len(p) for p in parts}) == 1, "as many nodes in every part", [len(p) for p in parts])
    columns = np.concatenate(parts, axis=1)
    return torch.from_numpy(np.ascontiguousarray(columns * len(columns) ** 0.5)).float()


def propagated_noise(graph: Any, columns: int, *, power: int = 3, seed: int = 0) -> Float[np.ndarray, "n r"]:
    r"""Gaussian columns propagated a few times, :math:`\hat A^p G`: structure without principal components.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        columns: Number of columns.
        power: Propagations :math:`p`; 0 is plain noise.
        seed: Draws the columns.

    Raises:
        ValueError: For no columns, a negative power or a directed or bad graph.

    Source: sun2023fegnn (a control).
    """
    require(columns >= 1 and power >= 0, "columns of at least 1 and a power of at least 0", (columns, power))
    step = normalized_adjacency(require_undirected(as_csr(graph)), "sym", self_loops=True)
    value = np.random.default_rng(seed).standard_normal((step.shape[0], columns))
    for _ in range(power):
        value = step @ value
    return unit_columns(value)


def reduced_features(x: Any, rank: int, *, seed: int = 0) -> Float[np.ndarray, "n r"]:
    r"""Features on their leading principal directions, :math:`U \operatorname{diag}(s)`, rows of length one first.

    Args:
        x: Features ``[n, F]``, dense.
        rank: Number of directions; at most F is used.
        seed: Seeds the iteration's start.

    Raises:
        ValueError: For features that are not a finite matrix, or a rank below 1.
    """
    require(rank >= 1, "a rank of at least 1", rank)
    x = np.asarray(x, dtype=float)
    require(x.ndim == 2, "features [n, F]", x.shape)
    require_finite("x", x)
    size = np.linalg.norm(x, axis=1, keepdims=True)
    rows = x / np.where(size > 0, size, 1.0)
    rank = min(rank, *x.shape)
    u, s, _ = truncated_svd(sp.csr_array(rows) if rank <= min(x.shape) // 4 else rows, rank, seed=seed)
    return u * s
