r"""Fidelity of explanations: what a classifier loses when an explanation is removed, whole or in small random parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite, require_same_device

Classifier = Callable[[Tensor], Tensor]


class MotifGraphs(NamedTuple):
    """Graphs of one size with a planted motif each, as a dense batch.

    Attributes:
        adjacency: 0/1 symmetric adjacency, ``[G, n, n]`` float32.
        motif: Which entries belong to the motif, symmetric, ``[G, n, n]`` bool.
        label: 0 for a ring of five nodes, 1 for a ring with a chord, ``[G]``.
    """

    adjacency: Tensor
    motif: Tensor
    label: Tensor


class Fidelity(NamedTuple):
    """Fidelity of each explanation.

    Attributes:
        plus: Loss of the class probability when (parts of) the explanation are removed; large is good.
        minus: Loss when (parts of) everything else are removed; small is good.
        delta: ``plus - minus``; large is good.
    """

    plus: Tensor
    minus: Tensor
    delta: Tensor


def motif_graphs(count: int, *, tree: int = 20, seed: int = 0) -> MotifGraphs:
    """Random trees grown by preferential attachment, each joined by one edge to a ring of five nodes.

    In class 1 the ring has a chord. The nodes of every graph are shuffled.

    Args:
        count: Number of graphs; classes alternate.
        tree: Nodes of the tree, at least 2.
        seed: Seeds everything.

    Raises:
        ValueError: For no graphs or a tree of fewer than two nodes.

    Source: zheng2023fidelity (its synthetic graph classification, after BA-2motifs).
    """
    require(count >= 1 and tree >= 2, "at least one graph and two nodes a tree", (count, tree))
    rng = np.random.default_rng(seed)
    n, rows = tree + 5, np.arange(count)
    adjacency = np.zeros((count, n, n), dtype=bool)
    ends = np.zeros((count, 2 * (tree - 1)), dtype=np.int64)
    for node in range(1, tree):
        # A uniformly drawn end of an earlier edge is a node drawn by its degree.
        target = np.zeros(count, np.int64) if node == 1 else ends[rows, rng.integers(0, 2 * (node - 1), count)]
        adjacency[rows, node, target] = True
        ends[:, 2 * node - 2], ends[:, 2 * node - 1] = node, target
    label = rows % 2
    motif = np.zeros_like(adjacency)
    for step in range(5):
        motif[:, tree + step, tree + (step + 1) % 5] = True
    motif[label == 1, tree, tree + 2] = True
    adjacency |= motif
    adjacency[rows, rng.integers(0, tree, count), tree + rng.integers(0, 5, count)] = True
    order = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
    both = [m | m.transpose(0, 2, 1) for m in (adjacency, motif)]
    moved = [m[rows[:, None, None], order[:, :, None], order[:, None, :]] for m in both]
    return MotifGraphs(
        torch.from_numpy(moved[0]).float(), torch.from_numpy(moved[1]), torch.from_numpy(label.astype(np.int64))
    )


class DenseGIN(nn.Module):
    r"""Graph classifier with sum aggregation on dense adjacency, read out by mean and maximum over nodes.

    .. math:: H_{l+1} = \mathrm{MLP}_l\bigl((1 + \epsilon_l) H_l + A H_l\bigr), \qquad
        f = W\,[\mathrm{mean}_v H_L,\; \max_v H_L] + b, \qquad H_0 = 1

    Args:
        hidden: Width.
        layers: Rounds of messages.
        classes: Outputs.

    Shapes:
        ``[G, n, n]`` to ``[G, classes]``. All nodes stay where edges are removed.

    Raises:
        ValueError: For sizes below 1.

    Source: Xu et al. (2019), arXiv:1810.00826.
    """

    def __init__(self, hidden: int = 32, layers: int = 3, classes: int = 2) -> None:
        super().__init__()
        require(min(hidden, layers, classes) >= 1, "sizes of at least 1", (hidden, layers, classes))
        self.first = nn.ModuleList(nn.Linear(1 if i == 0 else hidden, hidden) for i in range(layers))
        self.second = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.epsilon = nn.Parameter(torch.zeros(layers))
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, adjacency: Float[Tensor, "G n n"]) -> Float[Tensor, "G C"]:
        """Class scores of every graph."""
        square = adjacency.ndim >= 2 and adjacency.shape[-1] == adjacency.shape[-2] > 0
        require(square, "adjacency [G, n, n] of at least one node", tuple(adjacency.shape))
        h = adjacency.new_ones((*adjacency.shape[:-1], 1))
        for i, (first, second) in enumerate(zip(self.first, self.second)):
            h = torch.relu(second(torch.relu(first((1 + self.epsilon[i]) * h + adjacency @ h))))
        return self.head(torch.cat([h.mean(-2), h.amax(-2)], -1))


def _check(adjacency: Tensor, explanation: Tensor, labels: Tensor) -> None:
    require(
        adjacency.ndim == 3 and adjacency.shape[1] == adjacency.shape[2], "adjacency [G, n, n]", tuple(adjacency.shape)
    )
    require(adjacency.shape[0] > 0 and adjacency.shape[1] > 0, "at least one graph with a node", tuple(adjacency.shape))
    require(adjacency.is_floating_point(), "floating adjacency", adjacency.dtype)
    require(
        explanation.dtype == torch.bool and explanation.shape[-3:] == adjacency.shape,
        f"a boolean explanation of shape [..., {adjacency.shape}]",
        (explanation.dtype, tuple(explanation.shape)),
    )
    require(
        tuple(labels.shape) == (adjacency.shape[0],) and not labels.is_floating_point(),
        f"{adjacency.shape[0]} integer labels",
        (tuple(labels.shape), labels.dtype),
    )
    require_same_device([("adjacency", adjacency), ("explanation", explanation), ("labels", labels)])
    check_undirected("graphs", adjacency)
    check_undirected("explanations", explanation)


def check_undirected(name: str, values: Tensor) -> None:
    """Refuse square matrices ``[..., n, n]`` that are not finite and symmetric."""
    require_finite(name, values)
    if values.device.type != "meta":
        require(bool((values == values.transpose(-1, -2)).all()), f"undirected {name}", "a directed one")


def check_motifs(graphs: MotifGraphs) -> None:
    """Refuse graphs and motifs that are no batch of undirected sets of edges."""
    adjacency, motif = graphs.adjacency, graphs.motif
    square = adjacency.ndim == 3 and adjacency.shape[1] == adjacency.shape[2] and adjacency.numel() > 0
    require(square, "adjacency [G, n, n] of at least one node", tuple(adjacency.shape))
    fits = motif.dtype == torch.bool and motif.shape == adjacency.shape
    require(fits, f"boolean motifs {tuple(adjacency.shape)}", (motif.dtype, tuple(motif.shape)))
    check_undirected("graphs", adjacency)
    check_undirected("motifs", motif)


def sample_edges(
    edges: Bool[Tensor, "*S n n"], keep: float, *, generator: torch.Generator | None = None
) -> Bool[Tensor, "*S n n"]:
    r"""Keep each undirected edge with probability :math:`a`, both directions together.

    Args:
        edges: Symmetric sets of edges; leading axes are independent draws.
        keep: The probability :math:`a`.
        generator: Draws.

    Raises:
        ValueError: For a probability outside [0, 1], or sets that are not boolean and square.

    Source: zheng2023fidelity.
    """
    require(0 <= keep <= 1, "a probability in [0, 1]", keep)
    require(
        edges.dtype == torch.bool and edges.ndim >= 2 and edges.shape[-1] == edges.shape[-2],
        "boolean sets [..., n, n]",
        (edges.dtype, tuple(edges.shape)),
    )
    if keep in (0, 1):
        return edges & bool(keep)
    draw = (torch.rand(edges.shape, generator=generator, device=edges.device) < keep).triu()
    return edges & (draw | draw.transpose(-1, -2))


def label_probability(classifier: Classifier, graphs: Tensor, labels: Tensor, chunk: int) -> Tensor:
    """Probability of each graph's label, ``[..., G]``, from ``[..., G, n, n]``, ``chunk`` graphs in one call."""
    flat = graphs.reshape(-1, *graphs.shape[-2:])
    outputs = torch.cat([classifier(part) for part in flat.split(chunk)]).softmax(-1)
    if labels.device.type != "meta" and labels.numel():
        classes, low, high = outputs.shape[-1], int(labels.min()), int(labels.max())
        require(low >= 0 and high < classes, f"labels in [0, {classes})", (low, high))
    index = labels.expand(graphs.shape[:-2]).reshape(-1, 1)
    return outputs.gather(-1, index)[:, 0].reshape(graphs.shape[:-2])


@torch.no_grad()
def robust_fidelity(
    classifier: Classifier,
    adjacency: Float[Tensor, "G n n"],
    explanation: Bool[Tensor, "*S G n n"],
    labels: Int[Tensor, " G"],
    alpha_plus: float = 0.1,
    alpha_minus: float = 0.9,
    *,
    samples: int = 50,
    generator: torch.Generator | None = None,
    chunk: int = 4096,
) -> Fidelity:
    r"""Fidelity by random removals of small parts, all graphs, explanations and samples in one batch.

    .. math::
        \mathrm{Fid}_{\alpha_1,+} &= f(G)_y - \mathbb E\, f\bigl(G - E_{\alpha_1}(\Psi)\bigr)_y, \\
        \mathrm{Fid}_{\alpha_2,-} &= f(G)_y - \mathbb E\, f\bigl(\Psi + E_{\alpha_2}(G - \Psi)\bigr)_y, \\
        \mathrm{Fid}_\Delta &= \mathrm{Fid}_{\alpha_1,+} - \mathrm{Fid}_{\alpha_2,-},

    where :math:`E_a(S)` keeps each edge of :math:`S` with probability :math:`a`. :math:`\alpha_1` is the removed share
    of the explanation, :math:`\alpha_2` the kept share of the rest; :math:`\alpha_1 = 1, \alpha_2 = 0` is
    :func:`fidelity`.

    Args:
        classifier: Maps ``[B, n, n]`` adjacency to logits ``[B, C]``; the expectation is over its outputs.
        adjacency: Undirected graphs.
        explanation: Explanations :math:`\Psi`, symmetric; entries outside the graph do not count.
        labels: The class whose probability is followed.
        alpha_plus, alpha_minus: :math:`\alpha_1` and :math:`\alpha_2`.
        samples: Random removals a graph; 1 where nothing is random.
        generator: Draws the removals.
        chunk: Graphs in one call of the classifier.

    Returns:
        Three tensors ``[..., G]``.

    Raises:
        ValueError: For shares outside [0, 1], no samples, directed graphs or explanations, NaN, or shapes that differ.

    Source: zheng2023fidelity.
    """
    _check(adjacency, explanation, labels)
    require(0 <= alpha_plus <= 1 and 0 <= alpha_minus <= 1, "shares in [0, 1]", (alpha_plus, alpha_minus))
    require(samples >= 1 and chunk >= 1, "at least one sample and one graph a call", (samples, chunk))
    edges = adjacency != 0
    inside = explanation & edges
    rest = edges & ~explanation
    base = label_probability(classifier, adjacency, labels, chunk)

    def mean_probability(kept: Tensor, part: Tensor, keep: float) -> Tensor:
        draws = 1 if keep in (0.0, 1.0) else samples
        drawn = sample_edges(part.expand(draws, *part.shape), keep, generator=generator)
        return label_probability(classifier, adjacency * (kept | drawn), labels, chunk).mean(0)

    plus = base - mean_probability(rest, inside, 1 - alpha_plus)
    minus = base - mean_probability(inside, rest, alpha_minus)
    return Fidelity(plus, minus, plus - minus)


def fidelity(
    classifier: Classifier,
    adjacency: Float[Tensor, "G n n"],
    explanation: Bool[Tensor, "*S G n n"],
    labels: Int[Tensor, " G"],
    *,
    chunk: int = 4096,
) -> Fidelity:
    r"""The classic pair: the whole explanation removed, and the whole rest removed.

    .. math:: \mathrm{Fid}_+ = f(G)_y - f(G - \Psi)_y, \qquad \mathrm{Fid}_- = f(G)_y - f(\Psi)_y,
        \qquad \mathrm{Fid}_\Delta = \mathrm{Fid}_+ - \mathrm{Fid}_-

    Arguments and errors as :func:`robust_fidelity`.

    Source: zheng2023fidelity (the measures that it examines).
    """
    return robust_fidelity(classifier, adjacency, explanation, labels, 1.0, 0.0, samples=1, chunk=chunk)


def perturbed_explanations(
    graphs: MotifGraphs, drop: float, add: float, *, generator: torch.Generator | None = None
) -> Bool[Tensor, "G n n"]:
    r"""The motif less each of its edges with probability :math:`\beta_1`, plus each other with :math:`\beta_2`.

    The expected edit distance to the ground truth grows with both.

    Args:
        graphs: Graphs with their motifs.
        drop, add: :math:`\beta_1` and :math:`\beta_2`.
        generator: Draws.

    Raises:
        ValueError: For probabilities outside [0, 1], or motifs that do not fit their graphs.

    Source: zheng2023fidelity.
    """
    check_motifs(graphs)
    kept = sample_edges(graphs.motif, 1 - drop, generator=generator)
    others = (graphs.adjacency != 0) & ~graphs.motif
    return kept | sample_edges(others, add, generator=generator)


def exchanged_explanations(
    graphs: MotifGraphs, start: Bool[Tensor, "G n n"], count: int, *, generator: torch.Generator | None = None
) -> Bool[Tensor, "G n n"]:
    """An explanation with some edges exchanged for as many random ones of the graph outside of it: size stays.

    Args:
        graphs: Graphs.
        start: Explanations to change (the motif, or a decoy).
        count: Edges to exchange; where fewer are there, all are.
        generator: Draws; one draw orders the edges of every graph, so that larger counts extend smaller ones.

    Raises:
        ValueError: For a negative count, or graphs, motifs or explanations of another shape or directed.
    """
    require(count >= 0, "a non-negative count", count)
    require(
        start.dtype == torch.bool and start.shape == graphs.adjacency.shape,
        f"a boolean {graphs.adjacency.shape}",
        (start.dtype, tuple(start.shape)),
    )
    check_motifs(graphs)
    check_undirected("explanations", start)
    n = start.shape[-1]
    upper = torch.ones(n, n, dtype=torch.bool, device=start.device).triu()
    inside = (start & upper).flatten(1)
    outside = ((graphs.adjacency != 0) & upper & ~start).flatten(1)
    order = torch.rand(inside.shape, generator=generator, device=start.device)
    swaps = torch.minimum(inside.sum(1), outside.sum(1)).clamp(max=count)

    def first(members: Tensor) -> Tensor:
        rank = torch.where(members, order, torch.inf).argsort(1).argsort(1)
        return members & (rank < swaps[:, None])

    changed = ((inside & ~first(inside)) | first(outside)).unflatten(1, (n, n))
    return changed | changed.transpose(1, 2)


def decoy_explanations(graphs: MotifGraphs, *, generator: torch.Generator | None = None) -> Bool[Tensor, "G n n"]:
    """As many random edges outside of the motif as the motif has.

    Args:
        graphs: Graphs with their motifs.
        generator: Draws.

    Raises:
        ValueError: For graphs or motifs that are directed or do not fit.
    """
    check_motifs(graphs)
    n = graphs.motif.shape[-1]
    upper = torch.ones(n, n, dtype=torch.bool, device=graphs.motif.device).triu()
    others = ((graphs.adjacency != 0) & upper & ~graphs.motif).flatten(1)
    order = torch.rand(others.shape, generator=generator, device=others.device)
    rank = torch.where(others, order, torch.inf).argsort(1).argsort(1)
    size = (graphs.motif & upper).flatten(1).sum(1, keepdim=True)
    chosen = (others & (rank < size)).unflatten(1, (n, n))
    return chosen | chosen.transpose(1, 2)


def explanation_edit_distance(explanation: Bool[Tensor, "*S n n"], truth: Bool[Tensor, "*S n n"]) -> Int[Tensor, "*S"]:
    r"""Undirected edges in one set but not in the other, :math:`|\Psi \,\triangle\, \Psi^*|`.

    Args:
        explanation, truth: Symmetric sets of edges.

    Raises:
        ValueError: For shapes that do not fit, or sets that are not boolean or directed.

    Source: zheng2023fidelity (the gold standard).
    """
    require(
        explanation.dtype == torch.bool and truth.dtype == torch.bool, "boolean sets", (explanation.dtype, truth.dtype)
    )
    require(explanation.shape[-2:] == truth.shape[-2:], f"sets over {truth.shape[-1]} nodes", tuple(explanation.shape))
    check_undirected("explanations", explanation)
    check_undirected("truth", truth)
    return (explanation ^ truth).triu().flatten(-2).sum(-1)


def random_subgraphs(
    adjacency: Float[Tensor, "G n n"], *, generator: torch.Generator | None = None
) -> Float[Tensor, "G n n"]:
    r"""Each graph with a share of its edges kept that is drawn for it, :math:`a \sim U(0, 1)`.

    Training on these puts the graphs that fidelity looks at into the training distribution.

    Args:
        adjacency: Undirected graphs.
        generator: Draws.

    Raises:
        ValueError: For another shape or NaN.
    """
    require(
        adjacency.ndim == 3 and adjacency.shape[1] == adjacency.shape[2], "adjacency [G, n, n]", tuple(adjacency.shape)
    )
    require_finite("adjacency", adjacency)
    share = torch.rand(len(adjacency), 1, 1, generator=generator, device=adjacency.device)
    draw = (torch.rand(adjacency.shape, generator=generator, device=adjacency.device) < share).triu()
    return adjacency * (draw | draw.transpose(1, 2))
