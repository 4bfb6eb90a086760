r"""A graph autoencoder that predicts links, trained on many graphs at once, and how fair its scores are to pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from netatlas.core.checks import require, require_finite
from netatlas.core.train import Params, minimize, stack_members


class DyadicFairness(NamedTuple):
    """Gaps between pairs inside and across groups.

    Attributes:
        parity: Gap of the mean score over all pairs.
        opportunity: Gap of the mean score over true edges.
    """

    parity: Tensor
    opportunity: Tensor


class DenseGAE(nn.Module):
    r"""Graph autoencoder on dense adjacency, with scores :math:`\sigma(z_i^\top z_j + b)`.

    .. math:: Z = S\,\mathrm{relu}(S X W_1 + b_1)\,W_2 + b_2

    Args:
        features: Attributes of a node.
        hidden: Hidden width.
        embedding: Width of :math:`Z`.

    Raises:
        ValueError: For sizes below 1.

    Source: Kipf and Welling (2016), arXiv:1611.07308.
    """

    def __init__(self, features: int, hidden: int = 32, embedding: int = 16) -> None:
        super().__init__()
        require(min(features, hidden, embedding) >= 1, "sizes of at least 1", (features, hidden, embedding))
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, embedding)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, operator: Float[Tensor, "n n"], x: Float[Tensor, "n F"]) -> Float[Tensor, "n n"]:
        """Logit of every pair."""
        nodes = (len(x), len(x))
        require(tuple(operator.shape) == nodes, f"an operator of shape {nodes}", tuple(operator.shape))
        features = self.first.in_features
        require(x.shape[1] == features, f"{features} attributes of a node", x.shape[1])
        z = self.second(operator @ torch.relu(self.first(operator @ x)))
        return z @ z.T + self.bias


def dense_operator(adjacency: Float[Tensor, "*B n n"]) -> Float[Tensor, "*B n n"]:
    r"""The propagation :math:`\tilde D^{-1/2}(A + I)\tilde D^{-1/2}` of a dense batch.

    Args:
        adjacency: Symmetric, non-negative adjacency.

    Raises:
        ValueError: For a batch that is not square, no nodes, NaN, negative weights, or directed graphs.
    """
    require(adjacency.ndim >= 2 and adjacency.shape[-1] == adjacency.shape[-2] > 0, "adjacency [..., n, n]",
            tuple(adjacency.shape))  # fmt: skip
    require_finite("adjacency", adjacency)
    if adjacency.device.type != "meta":
        require(bool((adjacency >= 0).all()), "non-negative weights", "a negative one")
        require(bool((adjacency == adjacency.transpose(-1, -2)).all()), "undirected graphs", "a directed one")
    full = adjacency + torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    scale = full.sum(-1).rsqrt()
    return scale[..., :, None] * full * scale[..., None, :]


def fit_link_predictors(
    adjacency: Float[Tensor, "M n n"],
    x: Float[Tensor, "M n F"],
    *,
    seeds: Sequence[int],
    steps: int = 150,
    lr: float = 0.01,
    weight_decay: float = 0.0,
    hidden: int = 32,
    embedding: int = 16,
) -> tuple[DenseGAE, Params]:
    r"""Train one autoencoder on each graph, all at once, edges weighted to balance the rest.

    Args:
        adjacency: Training graphs.
        x: Attributes of their nodes.
        seeds: Initialisations.
        steps, lr, weight_decay: Of Adam.
        hidden, embedding: Widths.

    Returns:
        The architecture and its parameters, ``[M, ...]``.

    Raises:
        ValueError: For shapes that do not fit, a graph without edges, directed or with weights above 1, or NaN.
    """
    require(adjacency.ndim == 3 and len(adjacency) == len(seeds) > 0, f"{len(seeds)} graphs", tuple(adjacency.shape))
    require(x.shape[:2] == adjacency.shape[:2], f"attributes of {tuple(adjacency.shape[:2])} nodes", tuple(x.shape))
    require_finite("x", x)
    operator = dense_operator(adjacency)
    # An adjacency is the target of a cross-entropy, which has no lower bound beyond 1.
    require(float(adjacency.max()) <= 1, "weights in [0, 1]", float(adjacency.max()))
    density = adjacency.mean((1, 2))
    require(bool((density > 0).all()), "graphs with edges", "an empty one")
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(DenseGAE(x.shape[-1], hidden, embedding).to(x))
    params, _ = stack_members(modules)
    skeleton = modules[0]
    weight = ((1 - density) / density)[:, None, None]
    off = 1 - torch.eye(adjacency.shape[-1], dtype=x.dtype, device=x.device)
    cost = torch.where(adjacency > 0, weight, torch.ones_like(weight)) * off
    cost = cost / cost.sum((1, 2), keepdim=True)

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        logits = vmap(lambda p, s, x: functional_call(skeleton, p, (s, x)))(p, operator, x)
        return (F.binary_cross_entropy_with_logits(logits, adjacency, reduction="none") * cost).sum((1, 2))

    return skeleton, minimize(loss, params, steps=steps, lr=lr, weight_decay=weight_decay)[0]


@torch.no_grad()
def link_scores(
    model: DenseGAE, params: Params, adjacency: Float[Tensor, "*M n n"], x: Float[Tensor, "*M n F"]
) -> Float[Tensor, "M n n"]:
    """Score of every pair under every predictor, with messages over a given graph.

    Args:
        model, params: From :func:`fit_link_predictors`.
        adjacency: Graph of the messages, one for all or one a predictor.
        x: Attributes, likewise.

    Raises:
        ValueError: For shapes that do not fit, NaN attributes, or as :func:`dense_operator`.
    """
    operator = dense_operator(adjacency)
    count = len(params["bias"])
    for name, values in (("adjacency", adjacency), ("attributes", x)):
        fits = values.ndim == 2 or (values.ndim == 3 and len(values) == count)
        require(fits, f"{name} for all or one for each of {count} predictors", tuple(values.shape))
    require_finite("attributes", x)
    dims = (0, 0 if operator.ndim == 3 else None, 0 if x.ndim == 3 else None)
    return vmap(lambda p, s, x: functional_call(model, p, (s, x)), in_dims=dims)(params, operator, x).sigmoid()


def pair_auc(scores: Float[Tensor, "*M P"], truth: Bool[Tensor, "*M P"]) -> Float[Tensor, "*M"]:
    r"""Area under the ROC curve, :math:`P(\text{score of an edge} > \text{of a non-edge})`, ties counting half.

    Args:
        scores: Scores of pairs.
        truth: Which are edges.

    Raises:
        ValueError: Without an edge or a non-edge, NaN, or shapes that differ.
    """
    require(scores.shape == truth.shape and scores.ndim >= 1, f"truth of shape {tuple(scores.shape)}",
            tuple(truth.shape))  # fmt: skip
    require(truth.dtype == torch.bool, "a boolean truth", truth.dtype)
    require_finite("scores", scores)
    edges, pairs = truth.sum(-1), truth.shape[-1]
    require(bool(((edges > 0) & (edges < pairs)).all()), "edges and non-edges in every row", edges)
    ordered = scores.sort(dim=-1).values.contiguous()
    low = torch.searchsorted(ordered, scores.contiguous())
    high = torch.searchsorted(ordered, scores.contiguous(), right=True)
    rank = (low + high + 1).double() / 2
    total = (rank * truth).sum(-1)
    edges = edges.double()
    return (total - edges * (edges + 1) / 2) / (edges * (pairs - edges))


def dyadic_fairness_gaps(
    scores: Float[Tensor, "*M P"], same: Bool[Tensor, "*M P"], truth: Bool[Tensor, "*M P"]
) -> DyadicFairness:
    r"""Gaps of the mean score between pairs inside and across groups.

    .. math:: \Delta_{DP} = |\mathbb E[\hat p \mid s_i = s_j] - \mathbb E[\hat p \mid s_i \ne s_j]|, \qquad
        \Delta_{EO} = |\mathbb E[\hat p \mid s_i = s_j, A] - \mathbb E[\hat p \mid s_i \ne s_j, A]|

    Args:
        scores: Scores of pairs.
        same: Whether a pair shares its group.
        truth: Whether it is an edge.

    Raises:
        ValueError: For shapes that differ, NaN, or a kind of pair without members.

    Source: badaoui2025faros (its fairness metrics; this form is derived here).
    """
    require(scores.shape[-1] == same.shape[-1] == truth.shape[-1], f"{scores.shape[-1]} pairs",
            (same.shape[-1], truth.shape[-1]))  # fmt: skip
    require(same.dtype == truth.dtype == torch.bool, "boolean kinds of pairs", (same.dtype, truth.dtype))
    require_finite("scores", scores)

    def mean(kind: Tensor) -> Tensor:
        require(bool((kind.sum(-1) > 0).all()), "pairs of every kind", "none of one")
        return (scores * kind).sum(-1) / kind.sum(-1)

    return DyadicFairness((mean(same) - mean(~same)).abs(), (mean(same & truth) - mean(~same & truth)).abs())
