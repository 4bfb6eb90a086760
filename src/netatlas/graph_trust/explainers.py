r"""Explainers of graph classifiers: edges scored by gradients, by removing one at a time, or by a learnt mask."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import GINConv, global_max_pool, global_mean_pool

from netatlas.core.checks import require, require_finite
from netatlas.graph_trust.explanations import (
    Classifier,
    DenseGIN,
    MotifGraphs,
    check_motifs,
    check_undirected,
    label_probability,
)


class SparseGIN(nn.Module):
    """A :class:`netatlas.graph_trust.DenseGIN` on PyTorch Geometric's layers, with the same weights and outputs.

    Args:
        dense: The trained network; its weights are shared.

    Shapes:
        Node features ``[N, 1]``, ``edge_index [2, E]`` and graph numbers ``[N]`` to ``[G, classes]``.

    Raises:
        ValueError: In the forward pass, for features that are NaN or do not fit, or nodes out of range.
    """

    def __init__(self, dense: DenseGIN) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        for i, (first, second) in enumerate(zip(dense.first, dense.second)):
            # The layer draws the weights of what it is given anew, so the trained ones are put in afterwards.
            layer = GINConv(nn.Identity())
            layer.nn = nn.Sequential(first, nn.ReLU(), second)
            layer.eps = dense.epsilon[i].detach().clone()
            self.convolutions.append(layer)
        self.head = dense.head

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """Class scores of every graph."""
        nodes = len(x)
        require(tuple(batch.shape) == (nodes,), f"graph numbers of {nodes} nodes", tuple(batch.shape))
        require_finite("features", x)
        low, high = (int(edge_index.min()), int(edge_index.max())) if edge_index.numel() else (0, -1)
        require(low >= 0 and high < nodes, f"nodes in [0, {nodes})", (low, high))
        for layer in self.convolutions:
            x = torch.relu(layer(x, edge_index))
        return self.head(torch.cat([global_mean_pool(x, batch), global_max_pool(x, batch)], -1))


def _check(adjacency: Tensor, labels: Tensor) -> None:
    require(adjacency.ndim == 3 and adjacency.shape[1] == adjacency.shape[2] and adjacency.numel() > 0,
            "adjacency [G, n, n] of at least one node", tuple(adjacency.shape))  # fmt: skip
    require(tuple(labels.shape) == (len(adjacency),) and not labels.is_floating_point(),
            f"{len(adjacency)} integer labels", (tuple(labels.shape), labels.dtype))  # fmt: skip
    require(adjacency.is_floating_point(), "floating adjacency", adjacency.dtype)
    check_undirected("adjacency", adjacency)


def gradient_scores(
    classifier: Classifier, adjacency: Float[Tensor, "G n n"], labels: Int[Tensor, " G"]
) -> Float[Tensor, "G n n"]:
    r"""How much the class probability reacts to the weight of each edge.

    .. math:: s_{uv} = A_{uv}\,\Bigl|\frac{\partial f_y}{\partial A_{uv}} + \frac{\partial f_y}{\partial A_{vu}}\Bigr|

    Args:
        classifier: Maps adjacency to logits.
        adjacency: Undirected graphs.
        labels: The class :math:`y` of each.

    Raises:
        ValueError: For another shape, directed graphs, labels that are not integers or out of range, or NaN.
    """
    _check(adjacency, labels)
    weights = adjacency.detach().clone().requires_grad_()
    with torch.enable_grad():
        p = label_probability(classifier, weights, labels, len(weights)).sum()
        (slope,) = torch.autograd.grad(p, weights)
    return adjacency * (slope + slope.transpose(1, 2)).abs()


@torch.no_grad()
def occlusion_scores(
    classifier: Classifier, adjacency: Float[Tensor, "G n n"], labels: Int[Tensor, " G"], *, chunk: int = 4096
) -> Float[Tensor, "G n n"]:
    r"""What the class probability loses when one edge alone is removed, :math:`s_{uv} = f(G)_y - f(G - uv)_y`.

    Args:
        classifier: Maps adjacency to logits.
        adjacency: Undirected graphs.
        labels: The class :math:`y` of each.
        chunk: Graphs in one call.

    Raises:
        ValueError: For another shape, directed graphs, labels that are not integers or out of range, or NaN.
    """
    _check(adjacency, labels)
    g, u, v = adjacency.triu().nonzero().T
    scores = torch.zeros_like(adjacency)
    base = label_probability(classifier, adjacency, labels, len(adjacency))
    for part in torch.arange(len(g), device=g.device).split(chunk):
        cut, row = adjacency[g[part]], torch.arange(len(part), device=g.device)
        cut[row, u[part], v[part]] = cut[row, v[part], u[part]] = 0
        p = label_probability(classifier, cut, labels[g[part]], chunk)
        scores[g[part], u[part], v[part]] = scores[g[part], v[part], u[part]] = base[g[part]] - p
    return scores


def mask_scores(
    model: DenseGIN, adjacency: Float[Tensor, "G n n"], labels: Int[Tensor, " G"], *, epochs: int = 100, seed: int = 0
) -> Float[Tensor, "G n n"]:
    """Edge masks learnt by PyTorch Geometric's ``GNNExplainer``, all graphs as one disjoint graph.

    Its defaults hold for every graph: the penalty on the size of the mask is divided by the number of graphs, since the
    loss is a mean over these. The score of an edge is the mean of its two directions.

    Args:
        model: The trained network.
        adjacency: Undirected graphs.
        labels: The class of each.
        epochs: Steps.
        seed: Seeds the initial masks.

    Raises:
        ValueError: As :func:`gradient_scores`, and for no edges.

    Source: Ying et al. (2019), arXiv:1903.03894.
    """
    _check(adjacency, labels)
    classes, low, high = model.head.out_features, int(labels.min()), int(labels.max())
    require(low >= 0 and high < classes, f"labels in [0, {classes})", (low, high))
    count, n = adjacency.shape[:2]
    g, u, v = adjacency.nonzero().T
    require(len(g) > 0, "at least one edge", 0)
    explainer = Explainer(
        SparseGIN(model).eval(),
        GNNExplainer(epochs=epochs, edge_size=GNNExplainer.default_coeffs["edge_size"] / count),
        explanation_type="phenomenon",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "graph", "return_type": "raw"},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = explainer(adjacency.new_ones(count * n, 1), torch.stack([g * n + u, g * n + v]), target=labels,
                          batch=torch.arange(count).repeat_interleave(n))  # fmt: skip
    scores = torch.zeros_like(adjacency)
    scores[g, u, v] = found.edge_mask
    return (scores + scores.transpose(1, 2)) / 2


def top_edges(
    scores: Float[Tensor, "G n n"], adjacency: Float[Tensor, "G n n"], count: Int[Tensor, " G"]
) -> Bool[Tensor, "G n n"]:
    """The edges of highest score; among equal ones the earlier in row order.

    Args:
        scores: Symmetric.
        adjacency: Undirected graphs.
        count: Edges to keep in each; all where there are fewer.

    Raises:
        ValueError: For shapes that differ, directed scores or graphs, NaN, or negative counts.
    """
    require(
        scores.shape == adjacency.shape and scores.ndim == 3, f"scores {tuple(adjacency.shape)}", tuple(scores.shape)
    )
    require(tuple(count.shape) == (len(scores),) and bool((count >= 0).all()), f"{len(scores)} counts from 0 on", count)
    check_undirected("scores", scores)
    check_undirected("graphs", adjacency)
    n = scores.shape[-1]
    members = (adjacency != 0).triu().flatten(1)
    rank = torch.where(members, scores.flatten(1), -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
    chosen = (members & (rank < count[:, None])).unflatten(1, (n, n))
    return chosen | chosen.transpose(1, 2)


def motif_auc(scores: Float[Tensor, "G n n"], graphs: MotifGraphs) -> Float[Tensor, " G"]:
    r"""Area under the ROC curve of edge scores against the planted motif,
    :math:`P(s_{\text{in}} > s_{\text{out}}) + \tfrac12 P(s_{\text{in}} = s_{\text{out}})`.

    Args:
        scores: Symmetric.
        graphs: Graphs with motifs.

    Raises:
        ValueError: For another shape, directed scores or graphs, NaN, or a graph whose edges all are, or are not, in
            its motif.
    """
    check_motifs(graphs)
    require(scores.shape == graphs.adjacency.shape, f"scores {tuple(graphs.adjacency.shape)}", tuple(scores.shape))
    check_undirected("scores", scores)
    edges = (graphs.adjacency != 0).triu().flatten(1)
    most = int(edges.sum(1).max())
    order = edges.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    real, inside, value = (t.flatten(1).gather(1, order) for t in (edges, graphs.motif, scores))
    pairs = (real & inside)[:, :, None] & (real & ~inside)[:, None]
    require(bool(pairs.any(-1).any(-1).all()), "edges inside and outside of each motif", "a graph without")
    wins = (value[:, :, None] > value[:, None]).to(scores) + 0.5 * (value[:, :, None] == value[:, None]).to(scores)
    return (wins * pairs).sum((1, 2)) / pairs.sum((1, 2))
