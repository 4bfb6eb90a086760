r"""Calibrators of trained graph networks: one temperature a node, from attention (GATS) or from a GCN (CaGCN)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from netatlas.core.checks import require, require_finite
from netatlas.core.graph import as_csr
from netatlas.core.message_passing import GCN, SparseOperator
from netatlas.core.train import minimize, stack_members
from netatlas.graph_trust.naps import hop_distances


def neighbour_edges(graph: Any) -> Int[Tensor, "2 E"]:
    """Receiver and sender of every message: both directions of each edge once, and a self-loop at every node.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes.

    Raises:
        ValueError: For a bad graph.
    """
    reach = hop_distances(graph, 1)
    n = reach.shape[0]
    rows = np.repeat(np.arange(n), np.diff(reach.indptr))
    pairs = np.stack([np.append(rows, np.arange(n)), np.append(reach.indices, np.arange(n))])
    order = np.lexsort((pairs[1], pairs[0]))
    return torch.from_numpy(pairs[:, order].astype(np.int64))


def distance_to_set(graph: Any, members: Bool[Tensor, " n"], limit: int = 2) -> Int[Tensor, " n"]:
    r"""Hops from every node to the nearest node of a set, cut off: :math:`\min(d(v, S), \ell)`.

    Args:
        graph: Any graph that :func:`netatlas.core.graph.as_csr` takes; directions are ignored.
        members: The set, a boolean mask.
        limit: Distances from here on are all :math:`\ell`.

    Raises:
        ValueError: For a limit below 1, a mask of another length, or a bad graph.
    """
    require(limit >= 1, "a limit of at least 1", limit)
    matrix = as_csr(graph)
    boolean = tuple(members.shape) == (matrix.shape[0],) and members.dtype == torch.bool
    require(boolean, f"a boolean mask of {matrix.shape[0]} nodes", (tuple(members.shape), members.dtype))
    step = matrix + matrix.T
    reached = members.cpu().numpy().astype(bool)
    distance = np.where(reached, 0, limit)
    for hop in range(1, limit):
        new = (step @ reached.astype(np.float64) > 0) & ~reached
        distance[new] = hop
        reached = reached | new
    return torch.from_numpy(distance)


def minmax_sorted(logits: Float[Tensor, "*n C"]) -> Float[Tensor, "*n C"]:
    r"""Logits of each node scaled to [0, 1] and sorted upwards; constant logits give zeros.

    .. math:: u_i = \mathrm{sort}\Bigl(\frac{z_i - \min z_i}{\max z_i - \min z_i}\Bigr)

    Args:
        logits: Class scores.

    Raises:
        ValueError: For logits without classes, or NaN.
    """
    require(logits.ndim >= 1 and logits.shape[-1] > 0, "logits [..., classes]", tuple(logits.shape))
    require_finite("logits", logits)
    return _scaled(logits, True)


class TemperatureScaling(nn.Module):
    r"""One temperature for all nodes, :math:`T_i = T`; the learnt parameter is :math:`\log T`."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Float[Tensor, "n C"], distance: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Temperature of every node."""
        require(logits.ndim == 2, "logits [nodes, classes]", tuple(logits.shape))
        return self.log_temperature.exp().expand(logits.shape[0])


class CaGCN(nn.Module):
    r"""A temperature from a graph convolution of the logits, :math:`1 / T_i = \mathrm{softplus}(\mathrm{GCN}(z)_i)`.

    Args:
        classes: Classes ``C``.
        operator: The propagation of the GCN.
        hidden: Width of its hidden layer.

    Raises:
        ValueError: For sizes below 1.

    Source: hsu2022gats (the CaGCN baseline of Wang et al., 2021).
    """

    def __init__(self, classes: int, operator: SparseOperator, hidden: int = 16) -> None:
        super().__init__()
        self.network = GCN([classes, hidden, 1], operator)

    def forward(self, logits: Float[Tensor, "n C"], distance: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Temperature of every node."""
        return 1 / F.softplus(self.network(logits)[:, 0]).clamp_min(1e-6)


class GATS(nn.Module):
    r"""Graph attention temperature scaling.

    .. math::
        T_i = T_0 + \frac1H\sum_h \mathrm{softplus}\Bigl(\sum_{j \in N(i) \cup i} \alpha_{ij}\,\gamma_j\,\tau_{jh}
            + w\,\delta\hat c_i\Bigr), \qquad \tau_j = W u_j,

        \alpha_{ij} = \mathrm{softmax}_j\,\mathrm{LeakyReLU}_{0.2}
            \bigl(\langle z_i/\gamma_i,\, z_j/\gamma_j\rangle\bigr),
        \qquad \delta\hat c_i = \frac{1}{|N(i) \cup i|}\sum_j (\hat c_i - \hat c_j)

    with :math:`u_j` the scaled and sorted logits (:func:`minmax_sorted`), :math:`\hat c` the confidences and
    :math:`\gamma` learnt for training nodes and for their neighbours, 1 elsewhere. Five switches take the designs out
    one at a time. The attention sees raw logits: a constant added to all logits of a node changes its temperature.

    Args:
        classes: Classes ``C``.
        edges: From :func:`neighbour_edges`.
        heads: Heads ``H``.
        bias: Whether :math:`T_0` is learnt; else it stays 1.
        sort: Whether logits are sorted.
        gamma: Whether :math:`\gamma` is learnt; else it stays 1.
        relative: Whether :math:`w` is learnt; else it stays 0.
        attention: Whether neighbours are weighted by attention; else equally.

    Raises:
        ValueError: For sizes below 1, or edges of another form or without self-loops.

    Source: hsu2022gats.
    """

    def __init__(
        self,
        classes: int,
        edges: Int[Tensor, "2 E"],
        heads: int = 8,
        *,
        bias: bool = True,
        sort: bool = True,
        gamma: bool = True,
        relative: bool = True,
        attention: bool = True,
    ) -> None:
        super().__init__()
        require(classes >= 1 and heads >= 1, "at least one class and one head", (classes, heads))
        require(edges.ndim == 2 and edges.shape[0] == 2 and edges.shape[1] > 0, "edges [2, E]", tuple(edges.shape))
        integer = not edges.is_floating_point() and int(edges.min()) >= 0
        require(integer, "node numbers from 0 on", (edges.dtype, float(edges.min())))
        nodes = int(edges.max()) + 1
        loops = edges[0][edges[0] == edges[1]]
        one_each = torch.equal(loops.sort().values, torch.arange(nodes).to(loops))
        require(one_each, f"one self-loop at each of {nodes} nodes", len(loops))
        require(bool((edges[0].diff() >= 0).all()), "edges sorted by receiver", "another order")
        self.edges, self.nodes = edges, nodes
        # Sorted receivers make every sum over neighbours a difference of offsets, deterministic on any device.
        self.lengths = torch.bincount(edges[0], minlength=nodes)
        self.switches = {"sort": sort, "attention": attention}
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, classes)))
        self.offset = nn.Parameter(torch.ones(()), requires_grad=bias)
        self.gamma = nn.Parameter(torch.ones(2), requires_grad=gamma)
        self.relative = nn.Parameter(torch.zeros(()), requires_grad=relative)

    def prepare(self, logits: Float[Tensor, "n C"]) -> tuple[Tensor, Tensor, Tensor]:
        """What of the logits does not change while the parameters are fitted.

        Returns:
            Scaled (and sorted) logits ``[n, C]``, inner products along the edges ``[E]``, relative confidence ``[n]``.
        """
        shape = (self.nodes, self.weight.shape[1])
        require(tuple(logits.shape) == shape, f"logits of shape {shape}", tuple(logits.shape))
        receiver, sender = self.edges.to(logits.device)
        products = (logits.index_select(0, receiver) * logits.index_select(0, sender)).sum(-1)
        confidence = logits.softmax(-1).amax(-1)
        near = torch.zeros_like(confidence).index_add(0, receiver, confidence[sender])
        return _scaled(logits, self.switches["sort"]), products, confidence - near / self.lengths.to(logits)

    def forward(
        self, logits: Float[Tensor, "n C"] | tuple[Tensor, Tensor, Tensor], distance: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Temperature of every node, from its logits (or :meth:`prepare` of them) and its distance to the training."""
        scaled, products, relative = self.prepare(logits) if isinstance(logits, Tensor) else logits
        require(tuple(distance.shape) == (self.nodes,), f"distances of {self.nodes} nodes", tuple(distance.shape))
        receiver, sender = self.edges.to(scaled.device)
        one = torch.ones_like(self.gamma[0])
        gamma = torch.where(distance == 0, self.gamma[0], torch.where(distance == 1, self.gamma[1], one))
        tau = gamma[:, None] * (scaled @ self.weight.T)
        if self.switches["attention"]:
            energy = F.leaky_relu(products / (gamma.index_select(0, receiver) * gamma.index_select(0, sender)), 0.2)
            top = torch.full((self.nodes,), -torch.inf, dtype=energy.dtype, device=energy.device)
            top = top.scatter_reduce(0, receiver, energy.detach(), "amax")
            share = (energy - top.index_select(0, receiver)).exp()
            total = torch.zeros_like(top).index_add(0, receiver, share)
            message = share[:, None] * tau.index_select(0, sender)
            mixed = torch.zeros_like(tau).index_add(0, receiver, message) / total[:, None]
        else:
            mixed = torch.zeros_like(tau).index_add(0, receiver, tau.index_select(0, sender))
            mixed = mixed / self.lengths.to(tau)[:, None]
        return self.offset + F.softplus(mixed + self.relative * relative[:, None]).mean(-1)


def _scaled(logits: Tensor, sort: bool) -> Tensor:
    """Unchecked, for batches whose values cannot be looked at (``torch.func.vmap``)."""
    low, high = logits.amin(-1, keepdim=True), logits.amax(-1, keepdim=True)
    scaled = (logits - low) / torch.where(high > low, high - low, torch.ones_like(high))
    return scaled.sort(dim=-1).values if sort else scaled


class _Stopped(Exception):
    """Every member's patience has run out."""


@dataclass
class CalibratorFit:
    """Fitted calibrators of many networks or splits.

    Attributes:
        temperature: Temperature of every node, ``[M, n]``.
        params: Parameters at the best step of each member, ``[M, ...]``.
        step: That step, ``[M]``.
        loss: Its loss on the stopping nodes, ``[M]``.
    """

    temperature: Float[Tensor, "M n"]
    params: dict[str, Tensor]
    step: Int[Tensor, " M"]
    loss: Float[Tensor, " M"]


def fit_calibrator(
    build: Any,
    logits: Float[Tensor, "M n C"],
    labels: Int[Tensor, "*M n"],
    fit: Bool[Tensor, "M n"],
    stop: Bool[Tensor, "M n"],
    distance: Int[Tensor, "M n"],
    *,
    seeds: Sequence[int],
    steps: int = 400,
    patience: int = 50,
    lr: float = 0.01,
    weight_decay: float = 5e-3,
) -> CalibratorFit:
    r"""Fit the temperatures of all members at once: cross-entropy on one set of nodes, early stopping on another.

    The loss of member :math:`m` is the mean over its ``fit`` nodes of :math:`-\log\mathrm{softmax}(z_i / T_i)_{y_i}`;
    kept is the step of least mean loss on its ``stop`` nodes before ``patience`` steps without a better one.

    Args:
        build: Makes a module ``(logits, distance) -> temperatures``, called once a member under its seed.
        logits: Frozen outputs of every member on all nodes.
        labels: Labels, shared or one row a member.
        fit: Nodes whose loss is descended (the validation nodes, in the paper).
        stop: Nodes that stop it (the training nodes, in the paper).
        distance: Hops to the training nodes, see :func:`distance_to_set`.
        seeds: One a member.
        steps: Most steps of Adam.
        patience: Steps without a better stopping loss.
        lr, weight_decay: Of Adam, with the L2 penalty in the gradient.

    Raises:
        ValueError: For members, masks or labels that do not fit, NaN logits, or a member without nodes of a kind.

    Source: hsu2022gats.
    """
    require(len(seeds) > 0, "at least one seed", 0)
    require(logits.ndim == 3 and logits.shape[0] == len(seeds), f"logits of {len(seeds)} members", tuple(logits.shape))
    require_finite("logits", logits)
    shape = tuple(logits.shape[:2])
    for name, mask in (("fit", fit), ("stop", stop), ("distance", distance)):
        require(tuple(mask.shape) == shape, f"{name} of shape {shape}", tuple(mask.shape))
    for name, mask in (("fit", fit), ("stop", stop)):
        require(mask.dtype == torch.bool and bool(mask.any(1).all()), f"a boolean mask with {name} nodes", mask.dtype)
    require(steps >= 1 and patience >= 1, "steps and patience of at least 1", (steps, patience))
    require(tuple(labels.shape) in (shape, shape[1:]), f"labels of shape {shape[1:]} or {shape}", tuple(labels.shape))
    require(not labels.is_floating_point() and labels.dtype != torch.bool, "integer labels", labels.dtype)
    low, high = int(labels.min()), int(labels.max())
    require(low >= 0 and high < logits.shape[2], f"labels in [0, {logits.shape[2]})", (low, high))
    labels = labels.expand(shape)
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(build().to(logits))
    skeleton = modules[0]
    free = {name for name, p in skeleton.named_parameters() if p.requires_grad}
    params, buffers = stack_members(modules)
    fixed = {name: value for name, value in params.items() if name not in free}
    params = {name: value for name, value in params.items() if name in free}

    def temperatures(p: dict[str, Tensor], frozen: dict[str, Tensor], b: dict[str, Tensor], z: Any, d: Tensor):
        return functional_call(skeleton, ({**p, **frozen}, b), (z, d))

    # Sorting, inner products and confidences are of frozen logits: taken once.
    prepare = getattr(skeleton, "prepare", None)
    inputs = logits if prepare is None else vmap(prepare)(logits)

    def losses(p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        t = vmap(temperatures)(p, fixed, buffers, inputs, distance)
        scaled = logits / t[..., None]
        return scaled.logsumexp(-1) - scaled.gather(-1, labels[..., None])[..., 0], t

    weight = fit.to(logits.dtype) / fit.sum(1, keepdim=True)
    watch = stop.to(logits.dtype) / stop.sum(1, keepdim=True)
    best_loss = torch.full((len(seeds),), torch.inf, dtype=logits.dtype, device=logits.device)
    best_step = torch.zeros(len(seeds), dtype=torch.int64, device=logits.device)
    best = {name: value.clone() for name, value in params.items()}
    best_temperature = torch.ones(shape, dtype=logits.dtype, device=logits.device)

    def loss(p: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        each, t = losses(p)
        now = (each.detach() * watch).sum(1)
        # A member whose patience has run out would have stopped: later steps must not be kept.
        running = step - best_step <= patience
        if not bool(running.any()):
            raise _Stopped
        better = (now < best_loss) & running
        best_loss[better], best_step[better] = now[better], step
        best_temperature[better] = t.detach()[better]
        for name, value in p.items():
            best[name][better] = value.detach()[better]
        return (each * weight).sum(1)

    with suppress(_Stopped):
        minimize(loss, params, steps=steps, lr=lr, weight_decay=weight_decay)
    return CalibratorFit(best_temperature, best | fixed, best_step, best_loss)
