"""How deep: propagation and transformation counted apart, and a weighting of propagation steps node by node."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.graph_operators import propagation_limit, require_undirected
from netatlas.core.message_passing import SparseOperator

Weighting = Literal["adaptive", "own", "unsmoothed", "uniform", "last"]


def propagated_features(graph: Any, x: Float[np.ndarray, "n F"], hops: int) -> Float[np.ndarray, "K1 n F"]:
    r"""Features after 0 to :math:`K` propagations, :math:`X^{(k)} = \hat A^k X`.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        x: Features.
        hops: :math:`K`, at least 0.

    Raises:
        ValueError: For negative hops, features of another length or not finite, or a directed or bad graph.

    Source: zhang2021dgmlp.
    """
    require(hops >= 0, "hops of at least 0", hops)
    step = normalized_adjacency(require_undirected(as_csr(graph)), "sym", self_loops=True)
    x = np.asarray(x)
    x = x.astype(np.float64 if x.dtype != np.float32 else np.float32)
    require(x.ndim == 2 and len(x) == step.shape[0], f"features [{step.shape[0]}, F]", x.shape)
    require_finite("x", x)
    step = step.astype(x.dtype)
    found = np.empty((hops + 1, *x.shape), x.dtype)
    found[0] = x
    for k in range(hops):
        found[k + 1] = step @ found[k]
    return found


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.einsum("...f,...f->...", first, first) * np.einsum("...f,...f->...", second, second))
    return np.einsum("...f,...f->...", first, second) / (size + 1e-10)


def node_adaptive_weights(
    propagated: Float[np.ndarray, "K1 n F"], limit: Float[np.ndarray, "n F"], kind: Weighting = "adaptive"
) -> Float[np.ndarray, "K1 n"]:
    r"""Weight of every propagation step at every node, by what it keeps and how smooth it is.

    .. math:: w_v(k) = \operatorname{softmax}_k\bigl(\alpha_v(k)\,(1 - \beta_v(k))\bigr),\qquad
        \alpha_v(k) = \cos(x_v^{(0)}, x_v^{(k)}),\quad \beta_v(k) = \cos(x_v^{(\infty)}, x_v^{(k)})

    Args:
        propagated: From :func:`propagated_features`.
        limit: The limit, from :func:`netatlas.core.graph_operators.propagation_limit`; the official code takes its
            ``"row"`` form.
        kind: ``"adaptive"``; for ablation ``"own"`` (softmax of :math:`\alpha`), ``"unsmoothed"`` (of
            :math:`1 - \beta`), ``"uniform"``; or ``"last"``, all weight on the last step.

    Returns:
        Non-negative, summing to one over the steps.

    Raises:
        ValueError: For an unknown kind or a limit of another shape.

    Source: zhang2021dgmlp.
    """
    known = ("adaptive", "own", "unsmoothed", "uniform", "last")
    require(kind in known, f"a kind out of {', '.join(known)}", repr(kind))
    steps, nodes = propagated.shape[:2]
    require(limit.shape == propagated.shape[1:], f"a limit of shape {propagated.shape[1:]}", limit.shape)
    if kind == "uniform":
        return np.full((steps, nodes), 1 / steps)
    if kind == "last":
        return np.eye(steps)[-1][:, None] * np.ones(nodes)
    score = np.ones((steps, nodes))
    if kind in ("adaptive", "own"):
        score = score * _cosine(propagated, propagated[:1])
    if kind in ("adaptive", "unsmoothed"):
        score = score * (1 - _cosine(propagated, limit[None]))
    score = np.exp(score - score.max(0))
    return score / score.sum(0)


def combined_features(
    graph: Any, x: Float[np.ndarray, "n F"], hops: int, kind: Weighting = "adaptive"
) -> Float[np.ndarray, "n F"]:
    r"""Weighted sum of the propagated features, :math:`\sum_k w_v(k)\, x_v^{(k)}`.

    Args:
        graph: Undirected; any graph that :func:`netatlas.core.graph.as_csr` takes.
        x: Features.
        hops: Largest number of propagations.
        kind: As in :func:`node_adaptive_weights`; ``"uniform"`` is S2GC without its restart, ``"last"`` is SGC.

    Raises:
        ValueError: As :func:`propagated_features` and :func:`node_adaptive_weights`.

    Source: zhang2021dgmlp.
    """
    stack = propagated_features(graph, x, hops)
    weights = node_adaptive_weights(stack, propagation_limit(graph, x, "row"), kind)
    return np.einsum("kn,knf->nf", weights.astype(stack.dtype), stack)


def smoothing_level(
    propagated: Float[np.ndarray, "K1 n F"], limit: Float[np.ndarray, "n F"]
) -> Float[np.ndarray, " K1"]:
    r"""Mean cosine between the features after each step and their limit.

    Args:
        propagated: From :func:`propagated_features`.
        limit: The limit, ``[n, F]``.

    Raises:
        ValueError: For a limit of another shape.

    Source: zhang2021dgmlp.
    """
    require(limit.shape == propagated.shape[1:], f"a limit of shape {propagated.shape[1:]}", limit.shape)
    return _cosine(propagated, limit[None]).mean(1)


class DecoupledGCN(nn.Module):
    r"""A graph network whose propagations and transformations are counted apart.

    .. math:: H \leftarrow \sigma\bigl(\hat A^{p_l} H W_l + b_l\bigr), \qquad \sum_l p_l = D_p,\quad l = 1, \dots, D_t

    Propagations are shared out evenly, what remains goes to the first layers: :math:`D_p = D_t` is the usual GCN, and
    :math:`D_t = 1` is SGC.

    Args:
        features: Features of a node.
        width: Hidden width.
        classes: Number of classes.
        operator: The propagation.
        propagations: :math:`D_p`, at least 0.
        transformations: :math:`D_t`, at least 1.
        skip: Whether hidden layers add their input.
        dropout: Share of entries dropped before every layer.

    Raises:
        ValueError: For depths or widths out of range, or a dropout outside [0, 1).

    Source: zhang2021dgmlp.
    """

    def __init__(
        self,
        features: int,
        width: int,
        classes: int,
        operator: SparseOperator,
        *,
        propagations: int,
        transformations: int,
        skip: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require(
            propagations >= 0 and transformations >= 1, "depths of at least 0 and 1", (propagations, transformations)
        )
        require(min(features, width, classes) >= 1, "widths of at least 1", (features, width, classes))
        require(0 <= dropout < 1, "a dropout in [0, 1)", dropout)
        self.operator, self.skip, self.dropout = operator, skip, dropout
        even, rest = divmod(propagations, transformations)
        self.steps = [even + (k < rest) for k in range(transformations)]
        widths = [features, *[width] * (transformations - 1), classes]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n C"]:
        """Logits of every node."""
        return self.hidden(x)[-1]

    def hidden(self, x: Float[Tensor, "n F"]) -> list[Float[Tensor, "n _"]]:
        """Features after each layer, logits last."""
        found = []
        for depth, (layer, steps) in enumerate(zip(self.layers, self.steps)):
            kept = x
            x = nn.functional.dropout(x, self.dropout, self.training)
            narrow = layer.in_features > layer.out_features
            if narrow:
                x = x @ layer.weight.T
            for _ in range(steps):
                x = self.operator(x)
            x = x + layer.bias if narrow else layer(x)
            if depth + 1 < len(self.layers):
                x = torch.relu(x)
                if self.skip and x.shape == kept.shape:
                    x = x + kept
            found.append(x)
        return found
