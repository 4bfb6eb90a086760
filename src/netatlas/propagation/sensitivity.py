"""Sensitivity of one node's output to another's input: exact Jacobians, their bounds, and their limits in depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import comb
from torch import Tensor, nn
from torch.func import jacrev, vjp, vmap

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import require_undirected
from netatlas.core.resistance import effective_resistance

Norm = Literal["frobenius", "entrywise"]


def node_jacobian(function: Callable[[Tensor], Tensor], x: Float[Tensor, "n F"]) -> Float[Tensor, "n C n F"]:
    r"""The Jacobian of every node's outputs with respect to every node's inputs, in one batch of backward passes.

    .. math:: J_{v c, u f} = \partial h_{v c} / \partial x_{u f}

    Args:
        function: From features ``[n, F]`` to outputs ``[n, C]``.
        x: Where to differentiate.

    Raises:
        ValueError: For features that are not a finite matrix.

    Source: digiovanni2023oversquashing, black2023resistance.
    """
    require(x.ndim == 2 and x.is_floating_point(), "floating-point features [n, F]", tuple(x.shape))
    require_finite("x", x)
    return jacrev(function)(x)


def influence(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n F"], norm: Norm = "frobenius"
) -> Float[Tensor, "n n"]:
    r"""How much each node's input moves each node's output, :math:`\lVert \partial h_v / \partial x_u \rVert`.

    Args:
        function: From features ``[n, F]`` to outputs ``[n, C]``.
        x: Where to differentiate.
        norm: ``"frobenius"``, or ``"entrywise"`` for the sum of absolute values.

    Returns:
        ``[n, n]``, output node in the row, input node in the column.

    Raises:
        ValueError: For an unknown norm, and as :func:`node_jacobian`.

    Source: digiovanni2023oversquashing, black2023resistance.
    """
    require(norm in ("frobenius", "entrywise"), "a norm out of frobenius, entrywise", repr(norm))
    jacobian = node_jacobian(function, x).detach()
    return jacobian.square().sum((1, 3)).sqrt() if norm == "frobenius" else jacobian.abs().sum((1, 3))


def influence_from(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n F"], targets: Int[Tensor, " t"]
) -> Float[Tensor, "t n"]:
    r"""Frobenius norms of the Jacobian of some nodes' outputs with respect to all nodes' inputs.

    Like :func:`influence`, with one backward pass for every output of the targets only: for large graphs.

    Args:
        function: From features ``[n, F]`` to outputs ``[n, C]``.
        x: Where to differentiate.
        targets: Nodes whose outputs are differentiated.

    Raises:
        ValueError: For features that are not a finite matrix, or targets out of range.

    Source: digiovanni2023oversquashing, black2023resistance.
    """
    require(x.ndim == 2 and x.is_floating_point(), "floating-point features [n, F]", tuple(x.shape))
    require_finite("x", x)
    require(targets.ndim == 1 and len(targets) > 0, "at least one target", tuple(targets.shape))
    require(int(targets.min()) >= 0 and int(targets.max()) < len(x), f"targets in [0, {len(x)})", targets.tolist())
    outputs, back = vjp(lambda value: function(value)[targets], x)
    seeds = torch.eye(outputs.numel(), dtype=outputs.dtype, device=outputs.device).reshape(-1, *outputs.shape)
    (rows,) = vmap(back)(seeds)
    return rows.detach().reshape(*outputs.shape, *x.shape).square().sum((1, 3)).sqrt()


def dirichlet_energy(graph: Any, x: Float[np.ndarray, "n F"]) -> float:
    r"""Dirichlet energy of features on a graph as a share of their size; 0 where neighbours agree up to degree.

    .. math:: \frac{\operatorname{tr} X^\top (I - \hat A) X}{\lVert X \rVert_F^2}, \qquad
        \hat A = \tilde D^{-1/2} (A + I) \tilde D^{-1/2}

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        x: Features; NaN is returned where all are zero.

    Raises:
        ValueError: For a bad graph, or features of another length or not finite.

    Source: zhang2021dgmlp and zeng2021shadow measure smoothness; the quotient is the usual one.
    """
    step = normalized_adjacency(require_undirected(as_csr(graph)), "sym", self_loops=True)
    x = np.asarray(x, dtype=float)
    require(x.ndim == 2 and len(x) == step.shape[0], f"features [{step.shape[0]}, F]", x.shape)
    require_finite("x", x)
    size = float(np.square(x).sum())
    return float((x * (x - step @ x)).sum() / size) if size > 0 else float("nan")


def width_bound(
    graph: Any, layers: int, *, width: int, weight: float, slope: float = 1.0, residual: float, aggregate: float
) -> Float[np.ndarray, "n n"]:
    r"""Bound on the sensitivity of a message-passing network in terms of its width and its graph.

    .. math:: \Bigl\lVert \frac{\partial h_v^{(m)}}{\partial h_u^{(0)}} \Bigr\rVert_1 \le (c_\sigma w p)^m (S^m)_{vu},
        \qquad S = c_r I + c_a \hat A,\quad \hat A = D^{-1/2} A D^{-1/2}

    with :math:`\lVert \cdot \rVert_1` the largest column sum, weights whose entries are at most :math:`w`, and width p.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        layers: :math:`m`.
        width: :math:`p`.
        weight: :math:`w`.
        slope: Largest slope :math:`c_\sigma` of the nonlinearity.
        residual: :math:`c_r`.
        aggregate: :math:`c_a`.

    Raises:
        ValueError: For negative or non-positive constants, or a bad graph.

    Source: digiovanni2023oversquashing, Theorem 3.2.
    """
    require(layers >= 0 and width >= 1, "layers of at least 0 and a width of at least 1", (layers, width))
    require(min(weight, slope, residual, aggregate) >= 0, "constants of at least 0", (weight, slope))
    step = normalized_adjacency(require_undirected(as_csr(graph)), "sym").toarray()
    mixing = residual * np.eye(len(step)) + aggregate * step
    return (slope * weight * width) ** layers * np.linalg.matrix_power(mixing, layers)


def resistance_bound(graph: Any, layers: int, *, alpha: float = 1.0, beta: float = 1.0) -> Float[np.ndarray, "n n"]:
    r"""Bound on the sensitivity of a message-passing network in terms of effective resistance.

    .. math:: \Bigl\lVert \frac{\partial h_v^{(r)}}{\partial h_u^{(0)}} \Bigr\rVert \le (2 \alpha \beta)^r
        \frac{d_{\max}}{2} \Bigl( \frac{2}{d_{\min}} \Bigl(r + 1 + \frac{\mu^{r+1}}{1 - \mu}\Bigr) - R_{uv} \Bigr)

    for updates :math:`h_u \leftarrow \phi(h_u, \sum_v \hat A_{uv} \psi(h_v))` with
    :math:`\lVert \nabla \phi \rVert \le \alpha`, :math:`\lVert \nabla \psi \rVert \le \beta`, :math:`\beta \ge 1`, and
    :math:`\mu < 1` the largest modulus of the other eigenvalues of :math:`\hat A = D^{-1/2} A D^{-1/2}`.

    Args:
        graph: Undirected, connected, not bipartite.
        layers: :math:`r`.
        alpha: :math:`\alpha`, positive.
        beta: :math:`\beta`, at least 1.

    Raises:
        ValueError: For constants out of range, or a graph that is disconnected, bipartite, or bad.

    Source: black2023resistance; the constant :math:`\beta \ge 1` is what the derivation needs.
    """
    require(layers >= 0 and alpha > 0 and beta >= 1, "layers >= 0, alpha > 0 and beta >= 1", (layers, alpha, beta))
    matrix = require_undirected(as_csr(graph))
    resistance = effective_resistance(matrix)
    require(
        bool(np.isfinite(resistance).all()) and len(resistance) > 1, "a connected graph of two nodes or more", "other"
    )
    values = np.linalg.eigvalsh(normalized_adjacency(matrix, "sym").toarray())
    mu = float(np.abs(values[:-1]).max())
    require(mu < 1 - 1e-12, "a graph that is not bipartite", mu)
    degree = matrix.sum(1)
    head = 2 / degree.min() * (layers + 1 + mu ** (layers + 1) / (1 - mu))
    return (2 * alpha * beta) ** layers * degree.max() / 2 * (head - resistance)


def walk_bound(graph: Any, layers: int, *, alpha: float = 1.0, beta: float = 1.0) -> Float[np.ndarray, "n n"]:
    r"""The sharper bound from which that by resistance follows.

    .. math:: \Bigl\lVert \frac{\partial h_v^{(r)}}{\partial h_u^{(0)}} \Bigr\rVert
        \le \alpha^r \sum_{l=0}^{r} \binom{r}{l} \beta^l (\hat A^l)_{vu}

    Args:
        graph: Undirected.
        layers: :math:`r`.
        alpha: :math:`\alpha`, positive.
        beta: :math:`\beta`, positive.

    Raises:
        ValueError: For constants out of range or a bad graph.

    Source: black2023resistance.
    """
    require(layers >= 0 and alpha > 0 and beta > 0, "layers >= 0 and positive constants", (layers, alpha, beta))
    step = normalized_adjacency(require_undirected(as_csr(graph)), "sym").toarray()
    power, total = np.eye(len(step)), np.zeros_like(step)
    for l in range(layers + 1):
        total += comb(layers, l, exact=True) * beta**l * power
        power = power @ step
    return alpha**layers * total


class PathLimits(NamedTuple):
    """Both sides of the linear obstruction after infinitely many layers.

    Attributes:
        one_sided: ``[n, n]``: equals the access time from the column's node to the row's, over the sum of degrees.
        symmetric: ``[n, n]``: equals the effective resistance.
    """

    one_sided: np.ndarray
    symmetric: np.ndarray


def linear_obstruction_limit(graph: Any) -> PathLimits:
    r"""The obstruction of a linear network with identity weights, summed over infinitely many layers.

    .. math:: O_{vu} = c_a \sum_{k=0}^{\infty} \Bigl[ \frac{(S^k)_{vv}}{d_v} - \frac{(S^k)_{vu}}{\sqrt{d_v d_u}} \Bigr],
        \qquad S = c_r I + c_a D^{-1/2} A D^{-1/2},\quad c_r + c_a = 1,\ c_r > 0

    The series is solved, not cut: with :math:`G = (I - \hat A)^+` the projections of :math:`S^k` on its top eigenvector
    cancel, and :math:`c_a` with them, so that :math:`O_{vu} = G_{vv} / d_v - G_{vu} / \sqrt{d_v d_u}`.

    Args:
        graph: Undirected and connected, two nodes or more.

    Raises:
        ValueError: For a directed, disconnected or bad graph.

    Source: digiovanni2023oversquashing. One side gives access times; only both together give commute times.
    """
    matrix = require_undirected(as_csr(graph))
    degree = matrix.sum(1)
    require(matrix.shape[0] > 1 and bool((degree > 0).all()), "a connected graph of two nodes or more", "other")
    require(bool(np.isfinite(effective_resistance(matrix)).all()), "a connected graph", "several components")
    root = np.sqrt(degree)
    unit = root / np.linalg.norm(root)
    step = normalized_adjacency(matrix, "sym").toarray()
    inverse = np.linalg.inv(np.eye(len(step)) - step + np.outer(unit, unit)) - np.outer(unit, unit)
    scaled = inverse / np.outer(root, root)
    one = scaled.diagonal()[:, None] - scaled
    return PathLimits(one, one + one.T)


class PathNetwork(nn.Module):
    r"""A message-passing network with separate weights for a node itself and for its neighbours.

    .. math:: h^{(t+1)} = g\,\sigma\bigl(c_r\, h^{(t)} W_r^{(t)\top} + c_a \hat A\, h^{(t)} W_a^{(t)\top}\bigr)

    with :math:`\hat A = D^{-1/2} A D^{-1/2}`, rectifier :math:`\sigma`, gain :math:`g = \sqrt 2`, and random orthogonal
    weights, one pair a layer.

    Args:
        graph: Undirected.
        width: Width :math:`p`.
        layers: Number of layers :math:`m`.
        shared: Whether :math:`W_r = W_a` in every layer.
        residual: :math:`c_r`; :math:`c_a = 1 - c_r`.
        seed: Draws the weights.

    Raises:
        ValueError: For widths or layers below 1, a share outside (0, 1), or a bad graph.

    Source: digiovanni2023oversquashing, eq. (1) with our normalisation of the weights.
    """

    def __init__(
        self, graph: Any, width: int, layers: int, *, shared: bool = True, residual: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__()
        require(width >= 1 and layers >= 1, "a width and layers of at least 1", (width, layers))
        require(0 < residual < 1, "a residual share in (0, 1)", residual)
        step = normalized_adjacency(require_undirected(as_csr(graph)), "sym").toarray()
        self.register_buffer("step", torch.from_numpy(step))
        generator = torch.Generator().manual_seed(seed)
        raw = torch.randn(2, layers, width, width, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(raw)
        weights = q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[..., None, :]
        if shared:
            weights = torch.stack([weights[0], weights[0]])
        self.register_buffer("weights", weights)
        self.residual = residual

    def states(self, x: Float[Tensor, "n p"]) -> list[Float[Tensor, "n p"]]:
        """Features before every layer, and after the last."""
        found = [x]
        for own, along in zip(*self.weights):
            x = found[-1]
            mixed = self.residual * x @ own.T + (1 - self.residual) * self.step @ (x @ along.T)
            found.append(2**0.5 * torch.relu(mixed))
        return found

    def forward(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
        """Features after the last layer."""
        return self.states(x)[-1]


def path_jacobians(network: PathNetwork, x: Float[Tensor, "n p"]) -> Float[Tensor, "m1 n p n p"]:
    r"""Jacobians of the last layer with respect to every layer, exact, by one backward sweep of products.

    .. math:: J^{(m)}_k = J^{(m)}_{k+1} \cdot \frac{\partial h^{(k+1)}}{\partial h^{(k)}}, \qquad J^{(m)}_m = I

    Args:
        network: The network.
        x: Features, one row a node.

    Returns:
        ``[m + 1, n, p, n, p]``: output node and channel, then input node and channel of layer k.

    Raises:
        ValueError: For features of another shape or not finite.

    Source: digiovanni2023oversquashing.
    """
    n, p = network.step.shape[0], network.weights.shape[-1]
    require(tuple(x.shape) == (n, p), f"features of shape ({n}, {p})", tuple(x.shape))
    require_finite("x", x)
    states = network.states(x)
    current = torch.eye(n * p, dtype=x.dtype, device=x.device).reshape(n * p, n, p)
    found = [current]
    for layer in range(network.weights.shape[1] - 1, -1, -1):
        own, along = network.weights[:, layer]
        gated = current * (2**0.5 * (states[layer + 1] > 0))
        spread = network.step.T @ gated
        current = network.residual * gated @ own + (1 - network.residual) * spread @ along
        found.append(current)
    return torch.stack(found[::-1]).reshape(-1, n, p, n, p)


def jacobian_obstruction(
    jacobians: Float[Tensor, "m1 n p n p"], degree: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    r"""How much two nodes fail to influence each other over all layers, from one side and from both.

    .. math:: J_k(v, u) = \frac1{d_v} \frac{\partial h_v^{(m)}}{\partial h_v^{(k)}}
        - \frac1{\sqrt{d_v d_u}} \frac{\partial h_v^{(m)}}{\partial h_u^{(k)}}, \qquad
        O(v, u) = \sum_k \lVert J_k(v, u) \rVert,\quad \tilde O(v, u) = \sum_k \lVert J_k(v, u) + J_k(u, v) \rVert

    Args:
        jacobians: From :func:`path_jacobians`, or their mean over draws.
        degree: Degrees of the nodes, positive.

    Returns:
        One-sided and symmetric obstruction, ``[n, n]`` each.

    Raises:
        ValueError: For degrees of another number or not positive.

    Source: digiovanni2023oversquashing.
    """
    nodes = jacobians.shape[1]
    require(tuple(degree.shape) == (nodes,), f"{nodes} degrees", tuple(degree.shape))
    require(bool((degree > 0).all()), "positive degrees", float(degree.min()))
    cross = jacobians.transpose(2, 3)  # [m1, v, u, p, p]
    own = torch.diagonal(cross, dim1=1, dim2=2).permute(0, 3, 1, 2)
    root = degree.sqrt()
    one = (own / degree[:, None, None])[:, :, None] - cross / (root[:, None] * root)[:, :, None, None]
    both = one + one.transpose(1, 2)
    return one.square().sum((-1, -2)).sqrt().sum(0), both.square().sum((-1, -2)).sqrt().sum(0)


def centred_ranks(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Ranks with ties shared, centred: the ingredients of rank correlations.

    Args:
        values: A vector.

    Raises:
        ValueError: For another number of axes, or NaN.
    """
    from scipy.stats import rankdata

    values = np.asarray(values, dtype=float)
    require(values.ndim == 1, "a vector", values.shape)
    require(not np.isnan(values).any(), "numbers", "NaN")
    ranks = rankdata(values)
    return ranks - ranks.mean()


def partial_spearman(
    first: Float[np.ndarray, " k"], second: Float[np.ndarray, " k"], given: Float[np.ndarray, " k"]
) -> float:
    r"""Rank correlation of two vectors with a third held fixed; NaN where one of them is constant.

    .. math:: \frac{\rho_{12} - \rho_{13} \rho_{23}}{\sqrt{(1 - \rho_{13}^2)(1 - \rho_{23}^2)}}

    Where the third vector is constant, this is the plain rank correlation.

    Args:
        first: A vector.
        second: A vector of the same length.
        given: The vector that is held fixed.

    Raises:
        ValueError: For vectors of different lengths.
    """
    require(len(first) == len(second) == len(given), "vectors of one length", (len(first), len(second), len(given)))
    a, b, c = (centred_ranks(v) for v in (first, second, given))
    if c @ c > 0:
        a, b = a - (a @ c) / (c @ c) * c, b - (b @ c) / (c @ c) * c
    size = np.sqrt((a @ a) * (b @ b))
    scale = len(a) * (len(a) ** 2 - 1) / 12
    return float(a @ b / size) if size > 1e-9 * scale else float("nan")
