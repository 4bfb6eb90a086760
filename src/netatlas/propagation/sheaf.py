"""Sheaf diffusion: neighbours compared through learned maps, and what its limit can separate."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linprog
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.graph_operators import SheafEdges, sheaf, undirected_edges

Maps = Literal["trivial", "diagonal", "orthogonal", "general"]
ClassSheaf = Literal["trivial", "weighted", "signed", "diagonal", "rotation", "projection"]


def householder_orthogonal(parameters: Float[Tensor, "*B p"], dim: int) -> Float[Tensor, "*B d d"]:
    r"""Orthogonal matrices as products of Householder reflections.

    .. math:: Q = H_1 \cdots H_d, \qquad H_i = I - 2 \frac{v_i v_i^\top}{\lVert v_i \rVert^2}, \quad
        v_i = e_i + (\text{parameters below the diagonal in column } i)

    The determinant is :math:`(-1)^d`.

    Args:
        parameters: ``d (d - 1) / 2`` numbers a matrix.
        dim: Size ``d``.

    Raises:
        ValueError: For another number of parameters.

    Source: bodnar2022sheaf.
    """
    require(dim >= 1, "a size of at least 1", dim)
    count = dim * (dim - 1) // 2
    require(parameters.shape[-1] == count, f"{count} parameters a matrix", parameters.shape[-1])
    if dim == 2:
        # The second reflection flips an axis; the two of them are a rotation.
        p = parameters[..., 0]
        sine = 2 * p / (1 + p.square())
        cosine = p * sine - 1
        return torch.stack([cosine, sine, -sine, cosine], -1).unflatten(-1, (2, 2))
    rows, columns = torch.tril_indices(dim, dim, -1)
    scatter = torch.zeros(count, dim, dim, dtype=parameters.dtype, device=parameters.device)
    scatter[torch.arange(count), rows, columns] = 1.0
    eye = torch.eye(dim, dtype=parameters.dtype, device=parameters.device)
    vectors = eye + torch.einsum("...p,pij->...ij", parameters, scatter)
    result = eye.expand_as(vectors)
    for i in range(dim):
        v = vectors[..., i]
        reflected = result @ v[..., None]
        result = result - 2 * reflected * v[..., None, :] / v.square().sum(-1)[..., None, None]
    return result


def inverse_root(matrix: Float[Tensor, "*B d d"], *, steps: int = 14) -> Float[Tensor, "*B d d"]:
    r"""Inverse square roots of symmetric positive definite matrices, with gradients where eigenvalues repeat.

    For two rows the closed form
    :math:`M^{1/2} = (M + \sqrt{\det M}\, I) / \sqrt{\operatorname{tr} M + 2 \sqrt{\det M}}` is inverted; beyond, the
    coupled Newton-Schulz iteration :math:`Y \leftarrow \tfrac12 Y (3 I - Z Y)`,
    :math:`Z \leftarrow \tfrac12 (3 I - Z Y) Z` from :math:`Y = M / \lVert M \rVert`, :math:`Z = I`.
    Derivatives of eigenvectors, which repeated eigenvalues blow up, do not occur.

    Args:
        matrix: Symmetric positive definite, eigenvalues not below 1 as in an augmented Laplacian.
        steps: Steps of the iteration.

    Raises:
        ValueError: For matrices that are not square.

    Source: bodnar2022sheaf takes this root by an eigendecomposition of perturbed blocks.
    """
    d = matrix.shape[-1]
    require(matrix.ndim >= 2 and matrix.shape[-2] == d, "square matrices", tuple(matrix.shape))
    eye = torch.eye(d, dtype=matrix.dtype, device=matrix.device)
    if d == 1:
        return matrix.rsqrt()
    if d == 2:
        det = matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
        root_det = det.sqrt()[..., None, None]
        trace = (matrix[..., 0, 0] + matrix[..., 1, 1])[..., None, None]
        # Cayley-Hamilton: the adjugate of 2 x 2 matrices is (tr M) I - M, and so of the root.
        return ((trace + root_det) * eye - matrix) / (root_det * (trace + 2 * root_det).sqrt())
    size = matrix.square().sum((-1, -2), keepdim=True).sqrt()
    y, z = matrix / size, eye.expand_as(matrix)
    for _ in range(steps):
        correction = 1.5 * eye - 0.5 * z @ y
        y, z = y @ correction, correction @ z
    return z / size.sqrt()


class SheafDiffusion(nn.Module):
    r"""Neural sheaf diffusion: maps learned from the features at both ends of an edge, diffusion along them.

    .. math:: F_{v \trianglelefteq e} = \tanh\bigl(V [x_v \Vert x_u]\bigr), \qquad
        X \leftarrow (1 + \tanh \varepsilon) X - \mathrm{elu}\bigl(\Delta_F (I \otimes W_1) X W_2\bigr)

    with the augmented normalised sheaf Laplacian
    :math:`\Delta_F = (D + I)^{-1/2} L_F (D + I)^{-1/2}`. The sheaf is learned anew in every layer.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        features: Features of a node.
        width: Channels ``f``.
        classes: Number of classes.
        layers: Number of layers.
        stalk: Dimension ``d`` of the stalks.
        maps: ``"diagonal"``, ``"orthogonal"`` (Householder), ``"general"``, or ``"trivial"``: identity maps, the same
            model on the graph alone.
        dropout: Share of entries dropped before the first and after the last layer.

    Raises:
        ValueError: For unknown maps, sizes below 1, or a directed or bad graph.

    Source: bodnar2022sheaf.
    """

    def __init__(
        self,
        graph: Any,
        features: int,
        width: int,
        classes: int,
        *,
        layers: int = 2,
        stalk: int = 2,
        maps: Maps = "diagonal",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        known = ("trivial", "diagonal", "orthogonal", "general")
        require(maps in known, f"maps out of {', '.join(known)}", repr(maps))
        require(min(features, width, classes, layers, stalk) >= 1, "sizes of at least 1", (width, layers, stalk))
        edges = undirected_edges(graph)
        count = edges.shape[1]
        # Plain attributes, not buffers: members share one graph, and buffers would be stacked.
        self.head = torch.from_numpy(np.concatenate([edges[0], edges[1]]))
        self.tail = torch.from_numpy(np.concatenate([edges[1], edges[0]]))
        self.reverse = torch.from_numpy(np.concatenate([np.arange(count) + count, np.arange(count)]))
        self.maps, self.stalk, self.width, self.dropout = maps, stalk, width, dropout
        sizes = {"trivial": 0, "diagonal": stalk, "orthogonal": stalk * (stalk - 1) // 2, "general": stalk**2}
        self.outputs = sizes[maps]
        self.embed = nn.Linear(features, stalk * width)
        # [x_v || x_u] V = x_v V_1 + x_u V_2: projected once a node instead of once an edge.
        inside = stalk * width
        self.near = nn.ModuleList(
            nn.Linear(inside, self.outputs, bias=False) for _ in range(layers if self.outputs else 0)
        )
        self.far = nn.ModuleList(
            nn.Linear(inside, self.outputs, bias=False) for _ in range(layers if self.outputs else 0)
        )
        for layer in (*self.near, *self.far):
            layer.weight.data.mul_(0.5**0.5)
        self.stalk_weight = nn.Parameter(torch.eye(stalk).repeat(layers, 1, 1))
        channel = torch.empty(layers, width, width)
        for block in channel:
            nn.init.orthogonal_(block)
        self.channel_weight = nn.Parameter(channel)
        self.epsilon = nn.Parameter(torch.zeros(layers, stalk))
        self.classify = nn.Linear(inside, classes)

    def edge_maps(self, x: Float[Tensor, "n d f"], layer: int) -> Float[Tensor, "E2 d d"] | Float[Tensor, "E2 d"]:
        """The map of each directed edge's first node, diagonal ones as vectors."""
        flat = x.flatten(-2)
        head, tail = self.head.to(x.device), self.tail.to(x.device)
        raw = torch.tanh(self.near[layer](flat)[head] + self.far[layer](flat)[tail])
        if self.maps == "diagonal":
            return raw
        if self.maps == "orthogonal":
            return householder_orthogonal(raw, self.stalk)
        return raw.unflatten(-1, (self.stalk, self.stalk))

    def diffuse(self, x: Float[Tensor, "n d f"], layer: int) -> Float[Tensor, "n d f"]:
        r"""The product :math:`\Delta_F X` with the sheaf that a layer learns from ``source`` features ``x``."""
        return self._apply_laplacian(x, self.edge_maps(x, layer) if self.outputs else None)

    def _apply_laplacian(self, x: Tensor, maps: Tensor | None) -> Tensor:
        head, tail = self.head.to(x.device), self.tail.to(x.device)
        reverse, nodes = self.reverse.to(x.device), x.shape[0]

        def gather(values: Tensor) -> Tensor:
            return values.new_zeros(nodes, *values.shape[1:]).index_add(0, head, values)

        if maps is None or self.maps == "orthogonal":
            degree = gather(x.new_ones(len(head)))
            scale = (degree + 1).rsqrt()[:, None, None]
            scaled = scale * x
            moved = scaled[tail]
            if maps is not None:
                moved = maps.transpose(-1, -2) @ (maps[reverse] @ moved)
            return scale * (degree[:, None, None] * scaled - gather(moved))
        if self.maps == "diagonal":
            block = gather(maps.square())
            scale = (block + 1).rsqrt()[..., None]
            scaled = scale * x
            moved = (maps * maps[reverse])[..., None] * scaled[tail]
            return scale * (block[..., None] * scaled - gather(moved))
        block = gather(maps.transpose(-1, -2) @ maps)
        root = inverse_root(block + torch.eye(self.stalk, dtype=x.dtype, device=x.device))
        scaled = root @ x
        across = maps.transpose(-1, -2) @ maps[reverse]
        return root @ (block @ scaled - gather(across @ scaled[tail]))

    def states(self, x: Float[Tensor, "n F"]) -> list[Float[Tensor, "n d f"]]:
        """Features before the first layer and after each."""
        x = nn.functional.dropout(x, self.dropout, self.training)
        found = [nn.functional.elu(self.embed(x)).unflatten(-1, (self.stalk, self.width))]
        for layer in range(len(self.epsilon)):
            x = found[-1]
            maps = self.edge_maps(x, layer) if self.outputs else None
            mixed = self.stalk_weight[layer] @ x @ self.channel_weight[layer]
            moved = nn.functional.elu(self._apply_laplacian(mixed, maps))
            found.append((1 + torch.tanh(self.epsilon[layer]))[:, None] * x - moved)
        return found

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n C"]:
        """Logits of every node."""
        last = self.states(x)[-1].flatten(-2)
        return self.classify(nn.functional.dropout(last, self.dropout, self.training))


def class_sheaf(edges: Int[np.ndarray, "2 E"], y: Int[np.ndarray, " n"], kind: ClassSheaf) -> SheafEdges:
    r"""Sheaves built from known classes, of which theory says what their diffusion separates.

    ``"trivial"``: all maps 1. ``"weighted"``: equal maps at both ends, :math:`\sqrt{10}` on edges inside class 0 and 1
    elsewhere. ``"signed"``: +1 for class 0, -1 for the others. ``"diagonal"``:
    :math:`F_v = \operatorname{diag}(s)` with :math:`s_i = 1` for the node's class and -1 elsewhere. ``"rotation"``: by
    :math:`2 \pi y_v / C` in the plane. ``"projection"``: on the coordinate of the class, whose kernel is far larger.

    Args:
        edges: Every undirected edge once.
        y: Classes from 0.
        kind: Which sheaf.

    Raises:
        ValueError: For an unknown kind, and as :func:`netatlas.core.graph_operators.sheaf`.

    Source: bodnar2022sheaf, section 3.
    """
    known = ("trivial", "weighted", "signed", "diagonal", "rotation", "projection")
    require(kind in known, f"a kind out of {', '.join(known)}", repr(kind))
    y = np.asarray(y)
    classes, (u, v) = int(y.max()) + 1, np.asarray(edges)
    if kind in ("trivial", "weighted"):
        inside = (y[u] == 0) & (y[v] == 0) & (kind == "weighted")
        both = np.where(inside, 10**0.5, 1.0)
        return sheaf(edges, both, both, nodes=len(y))
    if kind == "signed":
        node = np.where(y == 0, 1.0, -1.0)
    elif kind in ("diagonal", "projection"):
        node = np.where(y[:, None] == np.arange(classes), 1.0, -1.0 if kind == "diagonal" else 0.0)
    else:
        angle = 2 * np.pi * y / classes
        node = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    return sheaf(edges, node[u], node[v], nodes=len(y))


def harmonic_projection(
    laplacian: Any, x: Float[np.ndarray, "m f"], *, tolerance: float = 1e-8
) -> tuple[Float[np.ndarray, "m f"], int]:
    r"""Limit of the diffusion :math:`\dot X = -\Delta X`: the projection on the kernel, and the kernel's dimension.

    Args:
        laplacian: Symmetric positive semi-definite ``[m, m]``, sparse or dense.
        x: Start, one column a channel.
        tolerance: Eigenvalues below this share of the largest count as zero.

    Raises:
        ValueError: For a matrix that is not symmetric, or features of another length or not finite.

    Source: bodnar2022sheaf.
    """
    dense = laplacian.toarray() if hasattr(laplacian, "toarray") else np.asarray(laplacian, dtype=float)
    x = np.asarray(x, dtype=float)
    require(dense.ndim == 2 and dense.shape[0] == dense.shape[1], "a square matrix", dense.shape)
    require(bool(np.allclose(dense, dense.T, atol=1e-10)), "a symmetric matrix", "another")
    require(x.ndim == 2 and len(x) == len(dense), f"features [{len(dense)}, f]", x.shape)
    require_finite("x", x)
    values, vectors = np.linalg.eigh(dense)
    kernel = vectors[:, values < tolerance * max(values[-1], np.finfo(float).tiny)]
    return kernel @ (kernel.T @ x), kernel.shape[1]


def separable_classes(x: Float[np.ndarray, "n f"], y: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " C"]:
    r"""Whether a hyperplane separates each class from the rest, decided by a linear programme.

    .. math:: \exists\, w, b: \quad s_i (w^\top x_i + b) \ge 1 \ \text{for all } i, \qquad s_i = \pm 1

    Args:
        x: Points.
        y: Classes from 0; every class and its complement must have a point.

    Raises:
        ValueError: For another number of labels, one class, or points that are not finite.

    Source: bodnar2022sheaf (linear separation power).
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y)
    require(x.ndim == 2 and y.shape == (len(x),), f"{len(x)} labels", y.shape)
    require_finite("x", x)
    classes = int(y.max()) + 1
    require(classes >= 2 and len(np.unique(y)) == classes, "two classes or more, none empty", np.unique(y).tolist())
    # Directions without variance carry rounding alone, in which a solver may find a hyperplane.
    left, size, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    points = left[:, size > 1e-9 * max(size.max(), np.abs(x).max(), np.finfo(float).tiny)] * len(x) ** 0.5
    points = np.concatenate([points, np.ones((len(x), 1))], axis=1)
    found = []
    for c in range(classes):
        side = np.where(y == c, 1.0, -1.0)[:, None]
        bounds = [(None, None)] * points.shape[1]
        answer = linprog(np.zeros(points.shape[1]), -side * points, -np.ones(len(x)), bounds=bounds, method="highs")
        found.append(answer.status == 0)
    return np.array(found)
