"""IRWE: one model of walks, trained once, that gives roles (identity) and communities (position) on unseen graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.checks import require
from netatlas.core.graph import as_csr
from netatlas.core.nn import MLP
from netatlas.core.train import Params, minimize, stack_members
from netatlas.embeddings.anonymous_walks import (
    anonymous_patterns,
    anonymous_walk_histogram,
    degree_buckets,
    gaussian_projection,
    walk_degree_histogram,
    walk_visit_counts,
)
from netatlas.embeddings.cooccurrence import cooccurrence
from netatlas.embeddings.walks import uniform_walks


@dataclass(frozen=True)
class WalkStatistics:
    """What IRWE reads of a graph of n nodes, all of it counted on sampled walks.

    Attributes:
        anonymous: frequencies of anonymous walks ``s`` ``[n, k]``.
        degrees: high-order degree features ``delta`` ``[n, b]``.
        visits: visit statistics ``r`` ``[n, n]``.
        position: global position code ``r Theta`` ``[n, d]``.
        walks: walks from each node ``[n, w, length]``.
        pairs: co-occurrence of nodes on walks, entries summing to one ``[n, n]``.
        buckets: boundaries of the degree buckets.
    """

    anonymous: Float[Tensor, "n k"]
    degrees: Float[Tensor, "n b"]
    visits: Float[Tensor, "n n"]
    position: Float[Tensor, "n d"]
    walks: Int[Tensor, "n w length"]
    pairs: Float[Tensor, "n n"]
    buckets: np.ndarray

    @property
    def features(self) -> Float[Tensor, "n k+b"]:
        """Identity statistics side by side, ``[s, delta]``."""
        return torch.cat([self.anonymous, self.degrees], dim=1)


def walk_statistics(
    graph: Any,
    *,
    walks_per_node: int = 100,
    steps: int = 6,
    dimension: int = 32,
    buckets: np.ndarray | None = None,
    window: int = 5,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> WalkStatistics:
    r"""Sample walks and count what IRWE needs: :math:`s(v)`, :math:`\delta(v)`, :math:`r(v)` and :math:`r(v)\,\Theta`.

    Args:
        graph: anything that ``netatlas.core.graph.as_csr`` reads; every node needs a neighbour.
        walks_per_node: walks from each node.
        steps: steps of a walk; anonymous walks multiply like Bell numbers, so at most 8.
        dimension: columns d of the Gaussian matrix.
        buckets: degree boundaries of the *training* graph; by default those of this graph.
        window: largest distance of a co-occurrence.
        seed: seeds walks and :math:`\Theta`.
        device: where the tensors live (float32).

    Raises:
        ValueError: for a bad graph, one with an isolated node, or steps outside 1..8.

    Source: ``qin2024irwe``, the two kinds of walk statistics.
    """
    require(1 <= steps <= 8, "1 to 8 steps", steps)
    adjacency = as_csr(graph)
    n = adjacency.shape[0]
    require(bool((np.diff(adjacency.indptr) > 0).all()), "a graph without isolated nodes", "an isolated node")
    starts = np.repeat(np.arange(n), walks_per_node)
    walks = uniform_walks(adjacency, starts=starts, length=steps + 1, seed=seed)
    buckets = degree_buckets(adjacency) if buckets is None else np.asarray(buckets)
    visits = walk_visit_counts(walks, n)
    pairs = cooccurrence(walks, n, min(window, steps)).toarray()
    np.fill_diagonal(pairs, 0.0)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=device)

    return WalkStatistics(
        tensor(anonymous_walk_histogram(walks, n)),
        tensor(walk_degree_histogram(adjacency, walks, buckets)),
        tensor(visits),
        tensor(visits @ gaussian_projection(n, dimension, seed=seed)),
        torch.as_tensor(walks.reshape(n, walks_per_node, -1).astype(np.int64), device=device),
        tensor(pairs / pairs.sum()),
        buckets,
    )


class AttentionReadout(nn.Module):
    r"""A weighted mean of a set, weights from a query.

    .. math::
        \mathrm{out} = W_o \sum_k \mathrm{softmax}_k\Big(\frac{(W_q q)^\top W_k x_k}{\sqrt{d / H}}\Big) W_v x_k

    with one softmax for each of H heads.

    Args:
        query: width of the query.
        value: width of the elements.
        dimension: width d of the result.
        heads: H, a divisor of d.

    Shapes: queries ``[..., q]`` and elements ``[..., k, v]`` or ``[k, v]`` give ``[..., d]``.

    Raises:
        ValueError: if the heads do not divide the dimension.

    Source: ``qin2024irwe``, attention readout.
    """

    def __init__(self, query: int, value: int, dimension: int, heads: int = 1):
        super().__init__()
        require(heads >= 1 and dimension % heads == 0, f"heads that divide {dimension}", heads)
        self.heads = heads
        self.query = nn.Linear(query, dimension)
        self.key = nn.Linear(value, dimension)
        self.value = nn.Linear(value, dimension)
        self.out = nn.Linear(dimension, dimension)

    def forward(self, query: Float[Tensor, "*n q"], elements: Float[Tensor, "*m k v"]) -> Float[Tensor, "*n d"]:
        q = self.query(query).unflatten(-1, (self.heads, -1))
        k = self.key(elements).unflatten(-1, (self.heads, -1))
        v = self.value(elements).unflatten(-1, (self.heads, -1))
        score = torch.einsum("...hd,...khd->...hk", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("...hk,...khd->...hd", score.softmax(-1), v)
        return self.out(mixed.flatten(-2))


class WalkEncoder(nn.Module):
    """One transformer layer over the steps of a walk: self-attention, then a two-layer network, each with a residual.

    Args:
        dimension: width d of the steps.
        heads: attention heads.

    Shapes: ``[..., length, d]`` gives the same.

    Raises:
        ValueError: if the heads do not divide the dimension.

    Source: ``qin2024irwe``, the transformer-type encoder of walks.
    """

    def __init__(self, dimension: int, heads: int = 1):
        super().__init__()
        require(heads >= 1 and dimension % heads == 0, f"heads that divide {dimension}", heads)
        self.heads = heads
        self.project = nn.Linear(dimension, 3 * dimension)
        self.mix = nn.Linear(dimension, dimension)
        self.first, self.second = nn.LayerNorm(dimension), nn.LayerNorm(dimension)
        self.inner, self.outer = nn.Linear(dimension, 2 * dimension), nn.Linear(2 * dimension, dimension)

    def forward(self, steps: Float[Tensor, "*n length d"]) -> Float[Tensor, "*n length d"]:
        q, k, v = self.project(self.first(steps)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        score = torch.einsum("...ihd,...jhd->...hij", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("...hij,...jhd->...ihd", score.softmax(-1), v).flatten(-2)
        steps = steps + self.mix(mixed)
        return steps + self.outer(torch.relu(self.inner(self.second(steps))))


class IRWE(nn.Module):
    r"""The two embeddings: identity :math:`\psi` from walk patterns and degrees, position :math:`\gamma` from walks.

    .. math::
        \psi(v) &= \mathrm{Att}\big(\mathrm{MLP}[s(v), \delta(v)],\ \{\varphi_k\}\big), &
        \varphi_k &= \text{code of anonymous walk } k, \\
        \gamma(v) &= \mathrm{Att}\big(\psi(v) + \pi(v),\ \mathrm{Enc}\{\psi(u_i) + \pi(u_i) + \tau_i\}\big), &
        \pi(v) &= r(v)\,\Theta,

    where :math:`u_0, u_1, \ldots` are the nodes of the walks from v and :math:`\tau_i` is a learned code of the step.
    The codes :math:`\varphi_k` come from an auto-encoder of each anonymous walk's one-hot matrix.

    Args:
        steps: steps of a walk.
        features: width of ``[s, delta]``.
        dimension: d of both embeddings and of :math:`\pi`.
        code: width of the anonymous walks' codes.
        heads: attention heads everywhere.

    Source: ``qin2024irwe``; widths of the layers are this book's.
    """

    def __init__(self, steps: int, features: int, dimension: int = 32, code: int = 16, heads: int = 1):
        super().__init__()
        patterns = torch.from_numpy(anonymous_patterns(steps))
        onehot = nn.functional.one_hot(patterns, steps + 1).flatten(1).float()
        self.register_buffer("patterns", onehot)
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.encode = MLP([onehot.shape[1], 64, code], activation="relu")
        self.decode = MLP([code, 64, onehot.shape[1]], activation="relu")
        self.ask = MLP([features, 64, dimension], activation="relu")
        self.identity = AttentionReadout(dimension, code, dimension, heads)
        self.explain = MLP([dimension, 64, features], activation="relu")
        self.step_code = nn.Parameter(0.1 * torch.randn(steps + 1, dimension))
        self.encoder = WalkEncoder(dimension, heads)
        self.position = AttentionReadout(dimension, dimension, dimension, heads)

    def identities(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """Identity embedding of nodes with statistics ``[s, delta]``."""
        return self.identity(self.ask(self.standardised(features)), self.encode(self.patterns))

    def standardised(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n f"]:
        """Statistics in units of the training graph's mean and spread, so that rare walks count as much as common."""
        return (features - self.centre) / self.spread

    def positions(
        self, psi: Float[Tensor, "n d"], position: Float[Tensor, "n d"], walks: Int[Tensor, "n w length"]
    ) -> Float[Tensor, "n d"]:
        """Position embedding from identities, position codes, and walks from each node."""
        # Codes of unit size: their raw size falls with the number of nodes a walk can reach.
        both = psi + position / position.square().mean().sqrt()
        steps = self.encoder(both[walks] + self.step_code)
        return self.position(both, steps.flatten(-3, -2))

    def forward(
        self,
        features: Float[Tensor, "n f"],
        position: Float[Tensor, "n d"],
        walks: Int[Tensor, "n w length"],
        pairs: Float[Tensor, "n n"],
        negatives: float = 5.0,
    ) -> Tensor:
        """The joint loss of one graph."""
        psi = self.identities(features)
        identity = ((self.explain(psi) - self.standardised(features)) ** 2).mean()
        codes = ((self.decode(self.encode(self.patterns)) - self.patterns) ** 2).mean()
        gamma = self.positions(psi, position, walks)
        return identity + codes + contrastive_loss(gamma, pairs, negatives)


def contrastive_loss(
    gamma: Float[Tensor, "n d"], pairs: Float[Tensor, "n n"], negatives: float = 5.0
) -> Float[Tensor, ""]:
    r"""Skip-gram with negative sampling, its expectation over pairs instead of a sample of them.

    .. math::
        -\sum_{uv} C_{uv} \log \sigma(\gamma_u^\top \gamma_v)
        - K \sum_{uv} C_u C_v \log \sigma(-\gamma_u^\top \gamma_v), \qquad C_u = \sum_v C_{uv}

    Args:
        gamma: position embedding ``[n, d]``.
        pairs: co-occurrences C, entries summing to one.
        negatives: K.

    Source: ``qin2024irwe``, contrastive loss of positions.
    """
    score = gamma @ gamma.T
    share = pairs.sum(1)
    noise = share[:, None] * share[None, :]
    return -(pairs * nn.functional.logsigmoid(score) + negatives * noise * nn.functional.logsigmoid(-score)).sum()


@dataclass
class TrainedIRWE:
    """Members trained on graphs of their own, ready for any graph.

    Attributes:
        module: the architecture.
        params: parameters, ``[M, ...]`` each.
        buckets: degree boundaries of each member's training graph.
        history: joint loss ``[steps, M]``.
    """

    module: IRWE
    params: Params
    buffers: Params
    buckets: list[np.ndarray]
    history: Tensor

    def __len__(self) -> int:
        return len(self.buckets)

    @torch.no_grad()
    def embed(self, member: int, statistics: WalkStatistics, *, walks: int | None = None) -> tuple[Tensor, Tensor]:
        """Identity and position embedding of a graph, seen or not, without any optimisation.

        Args:
            member: which member.
            statistics: of the graph, counted with this member's ``buckets``.
            walks: how many walks of each node the encoder reads; all by default.

        Returns:
            ``psi`` and ``gamma``, each ``[n, d]``.

        Raises:
            ValueError: for statistics of another width than the member was trained with.
        """
        wanted = self.module.explain.layers[-1].out_features
        require(statistics.features.shape[1] == wanted, f"{wanted} statistics a node", statistics.features.shape[1])
        state = {k: v[member] for k, v in self.params.items()} | {k: v[member] for k, v in self.buffers.items()}
        model = self.module
        model.load_state_dict(state)
        psi = model.identities(statistics.features)
        return psi, model.positions(psi, statistics.position, statistics.walks[:, :walks])


def train_irwe(
    statistics: Sequence[WalkStatistics],
    *,
    seeds: Sequence[int],
    epochs: int = 150,
    lr: float = 1e-2,
    walks: int = 2,
    dimension: int = 32,
    code: int = 16,
    heads: int = 1,
    negatives: float = 5.0,
    redraw: bool = False,
) -> TrainedIRWE:
    r"""Train one IRWE for each graph by Adam on the sum of the losses, all graphs at once.

    Each step reads ``walks`` walks of every node, drawn anew from the sampled ones.

    Args:
        statistics: one training graph a member, all of one size.
        seeds: one a member: initial weights and the order of walks.
        epochs: full-batch steps.
        lr: Adam's rate, decayed to zero by a cosine.
        walks: walks of each node a step reads.
        dimension, code, heads: as in :class:`IRWE`.
        negatives: K of the contrastive loss.
        redraw: draw :math:`\Theta` anew at each step instead of fixing it, so that no member can learn its rows.

    Returns:
        :class:`TrainedIRWE`.

    Raises:
        ValueError: for no graph, graphs of different sizes, another number of seeds, or a dimension other than that of
            the position codes.

    Source: ``qin2024irwe``, joint optimisation.
    """
    require(len(statistics) > 0, "at least one graph", 0)
    require(len(seeds) == len(statistics), f"{len(statistics)} seeds, one a graph", len(seeds))
    sizes = {(tuple(s.features.shape), tuple(s.walks.shape), tuple(s.position.shape)) for s in statistics}
    require(len(sizes) == 1, "graphs of one size", sizes)
    require(statistics[0].position.shape[1] == dimension, f"position codes of width {dimension}", sizes)
    device = statistics[0].position.device
    steps = statistics[0].walks.shape[2] - 1
    members = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            members.append(IRWE(steps, statistics[0].features.shape[1], dimension, code, heads))
    skeleton = members[0].to(device)
    params, buffers = stack_members([m.to(device) for m in members])
    features = torch.stack([s.features for s in statistics])
    buffers["centre"] = features.mean(1)
    deviation = features.std(1)
    buffers["spread"] = torch.where(deviation > 1e-6, deviation, 1.0)
    position = torch.stack([s.position for s in statistics])
    visits = torch.stack([s.visits for s in statistics])
    pairs = torch.stack([s.pairs for s in statistics])
    every = torch.stack([s.walks for s in statistics])
    count, nodes, available, length = every.shape

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        pick = torch.randint(available, (count, nodes, walks), generator=generator, device=device)
        chosen = every.gather(2, pick[..., None].expand(-1, -1, -1, length))
        code_of = position
        if redraw:
            theta = torch.randn(count, nodes, dimension, generator=generator, device=device) / math.sqrt(dimension)
            code_of = visits @ theta
        call = vmap(lambda p, b, *x: functional_call(skeleton, (p, b), (*x, negatives)))
        return call(p, buffers, features, code_of, chosen, pairs)

    params, history = minimize(
        loss, params, steps=epochs, optimizer="adam", lr=lr, schedule="cosine", seed=int(seeds[0])
    )
    return TrainedIRWE(skeleton, params, buffers, [s.buckets for s in statistics], history)
