r"""Judging a graph network on a test graph without labels: how far its weights move when it learns its own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.core.message_passing import SparseOperator
from netatlas.core.train import Params, minimize


class GraphEncoder(nn.Module):
    r"""Two graph convolutions and a linear head.

    .. math:: H = \mathrm{relu}(S X W_1 + b_1), \qquad Z = S H W_2 + b_2, \qquad \text{logits} = Z W_3 + b_3

    Args:
        widths: Features, hidden width, width of the embedding, classes.
        operator: The propagation :math:`S`.

    Raises:
        ValueError: For other than four widths, or one below 1.
    """

    def __init__(self, widths: Sequence[int], operator: SparseOperator) -> None:
        super().__init__()
        require(len(widths) == 4 and min(widths) >= 1, "four widths of at least 1", tuple(widths))
        self.operator = operator
        self.first, self.second, self.head = (nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def embed(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n E"]:
        """The embedding ``Z`` of every node."""
        features = self.first.in_features
        require(x.ndim == 2 and x.shape[1] == features, f"{features} features of a node", tuple(x.shape))
        hidden = torch.relu(self.operator(x @ self.first.weight.T) + self.first.bias)
        return self.operator(hidden @ self.second.weight.T) + self.second.bias

    def forward(self, x: Float[Tensor, "n F"]) -> Float[Tensor, "n C"]:
        """Class scores of every node."""
        return self.head(self.embed(x))


class ShiftedGraph(NamedTuple):
    """A test graph after a shift.

    Attributes:
        family: Kind of shift: ``"none"``, ``"noise"``, ``"mask"``, ``"drop"`` or ``"add"``.
        level: Its strength.
        graph: PyG ``Data`` with ``x``, ``edge_index`` and ``y``.
    """

    family: str
    level: float
    graph: Data


class Retraining(NamedTuple):
    """Re-training of every network on every test graph, members ordered graph by graph.

    Attributes:
        distance: Distance to the given weights after each epoch, ``[graphs, networks, epochs + 1]``.
        link_loss: Link reconstruction loss after each epoch, likewise.
        reference: The given network's link loss, ``[graphs, networks]``.
        stop: Epoch at which the criterion stops, ``[graphs, networks]``.
        score: The distance there, ``[graphs, networks]``: the LeBeD score.
    """

    distance: Tensor
    link_loss: Tensor
    reference: Tensor
    stop: Tensor
    score: Tensor


DEFAULT_SHIFTS: dict[str, tuple[float, ...]] = {
    "none": (0.0,),
    "noise": (0.5, 1.0, 1.5, 2.0, 3.0),
    "mask": (0.2, 0.4, 0.6, 0.8, 0.9),
    "drop": (0.3, 0.6, 0.9),
    "add": (1.0, 2.0, 4.0),
}


def _check_features(graph: Data, nodes: int) -> None:
    x = getattr(graph, "x", None)
    require(x is not None, "a graph with features x", "none")
    require(x.ndim == 2 and x.shape[0] == nodes, f"features of {nodes} nodes", tuple(x.shape))
    require_finite("features", x)


def _undirected(matrix: sp.csr_array) -> np.ndarray:
    """Both ends of every undirected edge once, without loops."""
    upper = sp.coo_array(sp.triu(matrix + matrix.T, 1))
    return np.stack([upper.row, upper.col]).astype(np.int64)


def graph_shift_suite(
    graph: Data, shifts: dict[str, tuple[float, ...]] | None = None, *, seed: int = 0
) -> list[ShiftedGraph]:
    """Shifted copies of a graph: Gaussian noise on features, masked features, dropped edges, added random edges.

    Args:
        graph: PyG ``Data`` with ``x`` and ``edge_index``; edges are taken as undirected, loops are left out.
        shifts: Levels of each family: standard deviation of the noise, share of masked entries, share of dropped
            edges, random edges for each edge; default 17 graphs.
        seed: Seeds everything; the levels of a family share their draws.

    Raises:
        ValueError: For a graph without features or edges, NaN features, an unknown family or a level out of range.
    """
    shifts = DEFAULT_SHIFTS if shifts is None else shifts
    matrix = as_csr(graph)
    _check_features(graph, matrix.shape[0])
    edges = _undirected(matrix)
    require(edges.shape[1] > 0, "a graph with edges", 0)
    rng = np.random.default_rng(seed)
    n = matrix.shape[0]
    noise = torch.from_numpy(rng.standard_normal(tuple(graph.x.shape))).to(graph.x)
    mask = torch.from_numpy(rng.random(tuple(graph.x.shape))).to(graph.x)
    keep = rng.random(edges.shape[1])
    found = []
    for family, levels in shifts.items():
        known = ("none", "noise", "mask", "drop", "add")
        require(family in known, f"a family out of {', '.join(known)}", repr(family))
        for level in levels:
            high = 1.0 if family in ("mask", "drop") else np.inf
            require(0 <= level <= high, f"a level of {family} in [0, {high}]", level)
            x, kept = graph.x, edges
            if family == "noise":
                x = x + level * noise
            elif family == "mask":
                x = x * (mask >= level)
            elif family == "drop":
                kept = edges[:, keep >= level]
            elif family == "add":
                extra = np.random.default_rng([seed, 1]).integers(0, n, (2, round(level * edges.shape[1])))
                kept = np.concatenate([edges, extra[:, extra[0] != extra[1]]], 1)
            both = torch.from_numpy(np.concatenate([kept, kept[::-1]], 1).astype(np.int64))
            found.append(ShiftedGraph(family, float(level), Data(x=x, edge_index=both, y=graph.y, num_nodes=n)))
    return found


def negative_pairs(graph: Data, seed: int = 0) -> Int[Tensor, "2 E"]:
    """As many random pairs of distinct nodes without an edge as the graph has undirected edges.

    Args:
        graph: PyG ``Data``.
        seed: Seeds the draw.

    Raises:
        ValueError: For a graph whose nodes are all joined, or a bad graph.
    """
    matrix = as_csr(graph)
    n = matrix.shape[0]
    joined = sp.coo_array(matrix + matrix.T + sp.eye_array(n))
    taken = np.unique(joined.row.astype(np.int64) * n + joined.col)
    require(len(taken) < n * n, "a pair of nodes without an edge", "a complete graph")
    count = sp.triu(matrix + matrix.T, 1).nnz
    rng, found = np.random.default_rng(seed), np.zeros(0, np.int64)
    while len(found) < count:
        draw = rng.integers(0, n * n, 2 * count + 16)
        found = np.append(found, draw[~np.isin(draw, taken)])
    return torch.from_numpy(np.stack([found[:count] // n, found[:count] % n]))


def link_reconstruction_loss(
    embedding: Float[Tensor, "n *M E"], edges: Int[Tensor, "2 P"], negatives: Int[Tensor, "2 Q"]
) -> Float[Tensor, "*M"]:
    r"""Cross-entropy of telling edges from non-edges by the cosine of the embeddings.

    .. math:: \frac{1}{P + Q} \sum_{(u,v)} \mathrm{BCE}\bigl(\sigma(\cos(z_u, z_v)),\, 1[(u, v) \in E]\bigr)

    Args:
        embedding: Embedding of every node, perhaps by several networks.
        edges: Pairs joined by an edge.
        negatives: Pairs that are not.

    Raises:
        ValueError: For no pairs, pairs of another shape or out of range, or NaN embeddings.

    Source: zheng2024lebed (structure reconstruction discrepancy).
    """
    for name, part in (("edges", edges), ("negatives", negatives)):
        require(part.ndim == 2 and part.shape[0] == 2, f"{name} of shape [2, P]", tuple(part.shape))
    require(embedding.ndim >= 2, "an embedding [nodes, ..., features]", tuple(embedding.shape))
    require_finite("embedding", embedding)
    pairs = torch.cat([edges, negatives], 1)
    require(pairs.shape[1] > 0, "at least one pair", 0)
    if pairs.device.type != "meta":
        low, high = int(pairs.min()), int(pairs.max())
        require(low >= 0 and high < len(embedding), f"nodes in [0, {len(embedding)})", (low, high))
    truth = torch.zeros(pairs.shape[1], dtype=embedding.dtype, device=embedding.device)
    truth[: edges.shape[1]] = 1
    return _pair_entropies(embedding, pairs, truth).mean(0)


def _pair_entropies(embedding: Tensor, pairs: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of every pair by the cosine of its embeddings, unchecked: taken at every step of a re-training."""
    flat = F.normalize(embedding, dim=-1, eps=1e-8)
    similar = (flat[pairs[0]] * flat[pairs[1]]).sum(-1)
    expected = truth.reshape(-1, *[1] * (similar.ndim - 1)).expand_as(similar)
    return F.binary_cross_entropy_with_logits(similar, expected, reduction="none")


class _Batch(NamedTuple):
    """Test graphs of one size side by side: features propagated once, one block-diagonal operator."""

    propagated: Tensor
    operator: SparseOperator


class _Pairs(NamedTuple):
    """Edges and as many non-edges of all graphs of a batch, as rows of its nodes."""

    nodes: Tensor
    truth: Tensor
    owner: Tensor


def _batch(graphs: Sequence[Data], trained: Params) -> _Batch:
    require(len(graphs) > 0, "at least one graph", 0)
    names = {f"{layer}.{part}" for layer in ("first", "second", "head") for part in ("weight", "bias")}
    require(set(trained) == names, f"the parameters {sorted(names)}", sorted(trained))
    blocks = [normalized_adjacency(g, "sym", self_loops=True) for g in graphs]
    for graph, block in zip(graphs, blocks):
        _check_features(graph, block.shape[0])
    sizes = {tuple(g.x.shape) for g in graphs}
    require(len(sizes) == 1, "graphs of one size and one number of features", sizes)
    like, features = trained["head.weight"], trained["first.weight"].shape[2]
    require(features == graphs[0].x.shape[1], f"graphs with {features} features", graphs[0].x.shape[1])
    propagated = torch.stack([torch.from_numpy(b @ g.x.double().cpu().numpy()) for b, g in zip(blocks, graphs)])
    return _Batch(propagated.to(like.dtype).to(like.device), SparseOperator(sp.block_diag(blocks, format="csr")))


def _pairs(graphs: Sequence[Data], seed: int, like: Tensor) -> _Pairs:
    pairs, truth, owner = [], [], []
    for index, graph in enumerate(graphs):
        edges = torch.from_numpy(_undirected(as_csr(graph)))
        require(edges.shape[1] > 0, "graphs with an edge", f"graph {index} without")
        negatives = negative_pairs(graph, seed)
        pairs.append(torch.cat([edges, negatives], 1) + index * graph.x.shape[0])
        truth.append(torch.cat([torch.ones(edges.shape[1]), torch.zeros(negatives.shape[1])]))
        owner.append(torch.full((pairs[-1].shape[1],), index))
    return _Pairs(
        torch.cat(pairs, 1).to(like.device), torch.cat(truth).to(like), torch.cat(owner).to(like.device)
    )  # fmt: skip


def _forward(params: Params, batch: _Batch, networks: int) -> tuple[Tensor, Tensor]:
    """Logits and embeddings ``[graphs, n, networks, .]`` of parameters ``[graphs * networks, ...]``."""
    graphs, n, _ = batch.propagated.shape
    view = {name: p.unflatten(0, (graphs, networks)) for name, p in params.items()}
    # Networks side by side in the columns: one product a graph serves all of them.
    weight = view["first.weight"].flatten(1, 2).transpose(1, 2)
    hidden = (batch.propagated @ weight).unflatten(2, (networks, -1)) + view["first.bias"][:, None]
    hidden = torch.relu(hidden).transpose(1, 2)
    mixed = (hidden @ view["second.weight"].transpose(2, 3)).transpose(1, 2)
    embedding = batch.operator(mixed.reshape(graphs * n, -1)).reshape(mixed.shape) + view["second.bias"][:, None]
    logits = embedding.transpose(1, 2) @ view["head.weight"].transpose(2, 3) + view["head.bias"][:, :, None]
    return logits.transpose(1, 2), embedding


def _link_losses(embedding: Tensor, pairs: _Pairs) -> Tensor:
    graphs, _, networks, _ = embedding.shape
    each = _pair_entropies(embedding.flatten(0, 1), pairs.nodes, pairs.truth)
    total = each.new_zeros(graphs, networks).index_add(0, pairs.owner, each)
    return total / torch.bincount(pairs.owner, minlength=graphs)[:, None]


def retrain_on_test_graphs(
    graphs: Sequence[Data],
    trained: Params,
    initial: Params,
    *,
    epochs: int = 200,
    lr: float = 1e-3,
    weight_decay: float = 5e-4,
    margin: float = 1e-2,
    at_least: int = 5,
    labels: Int[Tensor, "graphs n"] | None = None,
    seed: int = 0,
) -> Retraining:
    r"""Learning behaviour discrepancy of every network on every test graph, all re-trained at once.

    Each copy starts from its network's *initial* weights and learns, by full-batch Adam, the labels that the network
    gives to the test graph. It stops at the first epoch :math:`q \ge q_0` at which its link reconstruction loss is
    within a margin of the given network's; the score is the distance of the two weight vectors,

    .. math:: \mathrm{LeBeD} = \lVert \theta^* - \theta_q \rVert_2, \qquad
        q = \min\{q \ge q_0 : |\ell_q - \ell_{\mathrm{ref}}| < \epsilon\},

    and the last epoch's distance where the criterion is never met. At :math:`q = 0` the distance does not depend on the
    graph: all information is in the path.

    Args:
        graphs: Test graphs of one size with features ``x``.
        trained: Weights of the given networks, a :class:`GraphEncoder`'s parameters stacked ``[networks, ...]``.
        initial: The weights from which these were trained, likewise.
        epochs, lr, weight_decay: Of the re-training.
        margin: :math:`\epsilon`.
        at_least: :math:`q_0`.
        labels: Learnt instead of the networks' own answers, for checks.
        seed: Seeds the pairs without an edge, the same for :math:`\ell_q` and :math:`\ell_{\mathrm{ref}}`.

    Raises:
        ValueError: For no graphs, graphs of different sizes, without an edge or with all of them, parameters or labels
            that do not fit, NaN features, or settings out of range.

    Source: zheng2024lebed.
    """
    require(epochs >= 1 and margin > 0 and 0 <= at_least <= epochs, "epochs of at least 1, a positive margin, "
            "at_least in [0, epochs]", (epochs, margin, at_least))  # fmt: skip
    batch = _batch(graphs, trained)
    require(set(trained) == set(initial), f"the parameters {sorted(trained)}", sorted(initial))
    for name in trained:
        require(trained[name].shape == initial[name].shape, f"{name} of one shape", initial[name].shape)
    like = trained["head.weight"]
    networks, nodes = like.shape[0], batch.propagated.shape[1]
    pairs = _pairs(graphs, seed, like)
    if labels is not None:
        shape = (len(graphs), nodes)
        require(tuple(labels.shape) == shape, f"labels of shape {shape}", tuple(labels.shape))
        low, high = int(labels.min()), int(labels.max())
        require(low >= 0 and high < like.shape[1], f"labels in [0, {like.shape[1]})", (low, high))
    given = {name: p.detach().repeat(len(graphs), *[1] * (p.ndim - 1)) for name, p in trained.items()}
    start = {name: p.detach().repeat(len(graphs), *[1] * (p.ndim - 1)) for name, p in initial.items()}
    with torch.no_grad():
        logits, embedding = _forward(given, batch, networks)
        answers = logits.argmax(-1) if labels is None else labels[:, :, None].expand(logits.shape[:-1])
        reference = _link_losses(embedding, pairs)
    distances, losses = [], []

    def loss(params: Params, step: int, generator: torch.Generator) -> Tensor:
        logits, embedding = _forward(params, batch, networks)
        with torch.no_grad():
            square = torch.stack([(params[k] - given[k]).square().flatten(1).sum(1) for k in params]).sum(0)
            distances.append(square.sqrt().unflatten(0, (len(graphs), networks)))
            losses.append(_link_losses(embedding, pairs))
        entropy = logits.logsumexp(-1) - logits.gather(-1, answers[..., None])[..., 0]
        return entropy.mean(1).flatten()

    # One step more than epochs: the forward pass of a step looks at the weights before it.
    minimize(loss, start, steps=epochs + 1, lr=lr, weight_decay=weight_decay)
    distance, link_loss = torch.stack(distances, -1), torch.stack(losses, -1)
    near = (link_loss - reference[..., None]).abs() < margin
    near[..., :at_least] = False
    near[..., -1] = True
    stop = near.int().argmax(-1)
    return Retraining(distance, link_loss, reference, stop, distance.gather(-1, stop[..., None])[..., 0])


@torch.no_grad()
def encoder_outputs(graphs: Sequence[Data], trained: Params) -> Float[Tensor, "graphs networks n C"]:
    """Class scores of stacked :class:`GraphEncoder` networks on graphs of one size, in one pass.

    Args:
        graphs: Graphs with features ``x``.
        trained: Parameters stacked ``[networks, ...]``.

    Raises:
        ValueError: For no graphs, graphs of different sizes, NaN features, or parameters that do not fit.
    """
    batch = _batch(graphs, trained)
    repeated = {name: p.repeat(len(graphs), *[1] * (p.ndim - 1)) for name, p in trained.items()}
    return _forward(repeated, batch, len(trained["head.weight"]))[0].transpose(1, 2)


def _check_probabilities(p: Tensor) -> None:
    require(p.ndim >= 2 and min(p.shape[-2:]) > 0, "probabilities [..., n, C]", tuple(p.shape))
    require_finite("probabilities", p)
    if p.device.type != "meta":
        require(bool(((p >= 0) & (p <= 1 + 1e-5)).all()), "probabilities in [0, 1]", "a value outside")


def confidence_score(probabilities: Float[Tensor, "*M n C"]) -> Float[Tensor, "*M"]:
    r"""Estimated error from confidence, :math:`1 - \frac1n\sum_i \max_k p_{ik}`.

    Args:
        probabilities: Class probabilities.

    Raises:
        ValueError: For no examples or classes, NaN, or values outside [0, 1].
    """
    _check_probabilities(probabilities)
    return 1 - probabilities.amax(-1).mean(-1)


def entropy_score(probabilities: Float[Tensor, "*M n C"]) -> Float[Tensor, "*M"]:
    r"""Mean entropy of the predictions in nats, :math:`-\frac1n\sum_i\sum_k p_{ik}\log p_{ik}`.

    Arguments and errors as :func:`confidence_score`.
    """
    _check_probabilities(probabilities)
    return -torch.xlogy(probabilities, probabilities).sum(-1).mean(-1)


def average_thresholded_confidence(
    source_confidence: Float[Tensor, "*M n"], source_correct: Bool[Tensor, "*M n"], confidence: Float[Tensor, "*M m"]
) -> Float[Tensor, "*M"]:
    r"""Share of test confidences below the threshold that gets the source's error right.

    .. math:: \mathrm{ATC} = \frac1m\sum_i 1[c_i < t],
        \qquad \frac1n\sum_i 1[c^{\mathrm{src}}_i < t] = \mathrm{err}^{\mathrm{src}}

    It needs labelled source data, which the setting of zheng2024lebed forbids.

    Args:
        source_confidence: Confidences on labelled source nodes.
        source_correct: Whether these are right.
        confidence: Confidences on the test graph.

    Raises:
        ValueError: For no examples on a side, shapes that differ, NaN, or correctness that is not boolean.

    Source: Garg et al. (2022), arXiv:2201.04234; zheng2024lebed (a baseline).
    """
    require(source_confidence.shape == source_correct.shape and source_confidence.shape[-1] > 0,
            f"correctness of shape {tuple(source_confidence.shape)}", tuple(source_correct.shape))  # fmt: skip
    require(confidence.shape[-1] > 0, "at least one test confidence", 0)
    require(source_correct.dtype == torch.bool, "boolean correctness", source_correct.dtype)
    require_finite("source_confidence", source_confidence)
    require_finite("confidence", confidence)
    n = source_confidence.shape[-1]
    wrong = (n - source_correct.sum(-1)).long()
    ordered = torch.cat(
        [source_confidence.sort(dim=-1).values, torch.full_like(source_confidence[..., :1], torch.inf)], -1
    )
    threshold = ordered.gather(-1, wrong[..., None])
    return (confidence < threshold).to(confidence.dtype).mean(-1)
