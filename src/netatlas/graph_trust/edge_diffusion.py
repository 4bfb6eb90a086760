r"""Discrete diffusion of a graph's edges given its nodes' attributes, and switching an attribute on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from netatlas.core.checks import require, require_finite
from netatlas.core.train import Params, minimize, stack_members


class SampledGraphs(NamedTuple):
    """Graphs from a reverse diffusion, as values of their node pairs.

    Attributes:
        edges: 0/1 for every pair, ``[..., P]``.
        path: Edges before every reverse step, ``[..., T, P]``; entry ``t - 1`` is the state at step ``t``.
    """

    edges: Tensor
    path: Tensor


def _check_pairs(edges: Tensor, nodes: int) -> None:
    count = nodes * (nodes - 1) // 2
    require(nodes >= 2, "at least two nodes", nodes)
    require(edges.ndim >= 1 and edges.shape[-1] == count, f"{count} pairs of {nodes} nodes", tuple(edges.shape))
    require_finite("pairs", edges)


def _check_binary(name: str, values: Tensor) -> None:
    if values.device.type != "meta":
        require(bool(((values == 0) | (values == 1)).all()), f"{name} of 0 or 1", "other values")


def _check_probability(name: str, value: float | Tensor) -> None:
    value = torch.as_tensor(value)
    if value.device.type != "meta":
        require(bool(((value >= 0) & (value <= 1)).all()), f"{name} in [0, 1]", "other values")


def node_pairs(nodes: int) -> Int[Tensor, "2 P"]:
    r"""Every unordered pair of nodes once, :math:`P = n(n-1)/2`.

    Args:
        nodes: Number of nodes, at least 2.

    Raises:
        ValueError: For fewer than two nodes.
    """
    require(nodes >= 2, "at least two nodes", nodes)
    return torch.triu_indices(nodes, nodes, 1)


def to_adjacency(edges: Float[Tensor, "*B P"], nodes: int) -> Float[Tensor, "*B n n"]:
    """Symmetric adjacency without diagonal from the values of all pairs.

    Args:
        edges: A value for each pair, in the order of :func:`node_pairs`.
        nodes: Number of nodes.

    Raises:
        ValueError: For another number of pairs, or NaN.
    """
    _check_pairs(edges, nodes)
    i, j = node_pairs(nodes)
    matrix = edges.new_zeros((*edges.shape[:-1], nodes, nodes))
    matrix[..., i, j] = edges
    return matrix + matrix.transpose(-1, -2)


def cosine_keep_probability(steps: int) -> Float[Tensor, " T1"]:
    r"""The share of pairs untouched after each step, :math:`\bar\alpha_t = \cos^2(\tfrac\pi2\, t / T)`.

    Args:
        steps: Steps :math:`T`, at least 1.

    Returns:
        :math:`\bar\alpha_0 = 1, \dots, \bar\alpha_T = 0`, float64.

    Raises:
        ValueError: For no steps.
    """
    require(steps >= 1, "at least one step", steps)
    keep = torch.cos(math.pi / 2 * torch.arange(steps + 1, dtype=torch.float64) / steps) ** 2
    keep[0], keep[-1] = 1.0, 0.0
    return keep


def noised_edge_probability(
    edges: Float[Tensor, "*B P"], keep: float | Tensor, density: float | Tensor
) -> Float[Tensor, "*B P"]:
    r"""Chance that a pair is an edge after the forward process, :math:`\bar\alpha_t A_0 + (1 - \bar\alpha_t)\rho`.

    Each pair is kept with probability :math:`\bar\alpha_t` and else drawn anew from Bernoulli(:math:`\rho`).

    Args:
        edges: The graph's pairs, 0/1.
        keep: :math:`\bar\alpha_t` in [0, 1].
        density: :math:`\rho` in [0, 1].

    Raises:
        ValueError: For pairs or a probability outside [0, 1].
    """
    for name, value in (("pairs", edges), ("keep", keep), ("density", density)):
        _check_probability(name, value)
    return keep * edges + (1 - keep) * density


def posterior_edge_probability(
    edges: Float[Tensor, "*B P"],
    clean: Float[Tensor, "*B P"],
    keep: float,
    keep_before: float,
    density: float | Tensor,
) -> Float[Tensor, "*B P"]:
    r"""Chance of an edge one step earlier, given the noisy pair and a prediction of the clean one.

    .. math:: p(A_{t-1} = 1 \mid A_t) = \sum_{a \in \{0,1\}} \hat p(A_0 = a)\,
        \frac{q(A_t \mid A_{t-1} = 1)\; q(A_{t-1} = 1 \mid A_0 = a)}{q(A_t \mid A_0 = a)}

    Args:
        edges: :math:`A_t`, 0/1.
        clean: :math:`\hat p(A_0 = 1)`.
        keep, keep_before: :math:`\bar\alpha_t \le \bar\alpha_{t-1}`, the latter positive.
        density: :math:`\rho` in (0, 1).

    Raises:
        ValueError: For probabilities out of range or out of order.
    """
    require(0 <= keep <= keep_before <= 1 and keep_before > 0, "0 <= keep <= keep_before <= 1", (keep, keep_before))
    rho = torch.as_tensor(density, dtype=edges.dtype, device=edges.device)
    require(bool(((rho > 0) & (rho < 1)).all()), "a density in (0, 1)", rho)
    _check_probability("pairs", edges)
    _check_probability("clean", clean)
    step = keep / keep_before
    drawn = edges * rho + (1 - edges) * (1 - rho)
    from_edge = step * edges + (1 - step) * drawn
    total = torch.zeros_like(edges)
    for value, weight in ((0.0, 1 - clean), (1.0, clean)):
        before = keep_before * value + (1 - keep_before) * rho
        now = keep * value + (1 - keep) * rho
        evidence = edges * now + (1 - edges) * (1 - now)
        # Evidence is zero only where the state cannot come from this value; its share is then zero too.
        total = total + weight * from_edge * before / evidence.clamp_min(torch.finfo(edges.dtype).tiny)
    return total.clamp(0, 1)


class EdgeDenoiser(nn.Module):
    r"""Predicts the clean pairs from the noisy graph: one round of messages, then a network on every pair.

    .. math:: u = \mathrm{relu}(W_1 f + W_2 \bar A_t f + w\,t/T), \qquad
        \mathrm{logit}_{ij} = v^\top \mathrm{relu}\bigl(V[u_i \odot u_j,\; u_i + u_j,\; A_{t,ij},\; c_{ij},\; t/T]\bigr)

    with :math:`f` the attributes, the sensitive one and the relative degree, :math:`\bar A_t` the mean over neighbours
    and :math:`c_{ij}` the number of common neighbours over the mean degree.

    Args:
        features: Attributes of a node besides the sensitive one.
        hidden: Width.
        blind: Whether the sensitive attribute is hidden.

    Raises:
        ValueError: For sizes below 1.
    """

    def __init__(self, features: int, hidden: int = 48, *, blind: bool = False) -> None:
        super().__init__()
        require(features >= 1 and hidden >= 1, "features and hidden of at least 1", (features, hidden))
        self.own = nn.Linear(features + 3, hidden)
        self.near = nn.Linear(features + 2, hidden, bias=False)
        self.product = nn.Linear(hidden, hidden)
        self.sum = nn.Linear(hidden, hidden, bias=False)
        self.pair = nn.Linear(3, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)
        self.register_buffer("sees", torch.tensor(0.0 if blind else 1.0))

    def forward(
        self,
        edges: Float[Tensor, " P"],
        attributes: Float[Tensor, "n F"],
        sensitive: Float[Tensor, " n"],
        time: Float[Tensor, ""],
        chosen: Int[Tensor, " Q"] | None = None,
    ) -> Float[Tensor, " Q"]:
        """Logits of the clean pairs; of all of them, or of the chosen ones."""
        n = attributes.shape[0]
        require(edges.shape[-1] == n * (n - 1) // 2, f"{n * (n - 1) // 2} pairs of {n} nodes", edges.shape[-1])
        features = self.near.in_features - 2
        require(attributes.shape[1] == features, f"{features} attributes of a node", attributes.shape[1])
        require(tuple(sensitive.shape) == (n,), f"a sensitive attribute of {n} nodes", tuple(sensitive.shape))
        i, j = node_pairs(n).to(edges.device)
        zero = edges.new_zeros(n * n)
        adjacency = zero.index_put((i * n + j,), edges).reshape(n, n)
        adjacency = adjacency + adjacency.T
        degree = adjacency.sum(1)
        mean = degree.mean().clamp_min(1e-6)
        f = torch.cat([attributes, (self.sees * sensitive)[:, None], (degree / mean)[:, None]], 1)
        near = adjacency @ f / degree.clamp_min(1)[:, None]
        u = torch.relu(self.own(torch.cat([f, time.expand(n, 1)], 1)) + self.near(near))
        common = ((adjacency @ adjacency) / mean).reshape(-1)
        if chosen is not None:
            i, j, edges = i[chosen], j[chosen], edges[chosen]
        pair = torch.stack([edges, common[i * n + j], time.expand(len(i))], 1)
        summed = self.sum(u)
        return self.out(torch.relu(self.product(u[i] * u[j]) + summed[i] + summed[j] + self.pair(pair)))[:, 0]


class EdgeDiffusion(NamedTuple):
    """Trained edge diffusions, one a member.

    Attributes:
        module: The denoiser's architecture.
        params: Its parameters, ``[M, ...]``.
        buffers: Its buffers, ``[M, ...]``.
        keep: :math:`\\bar\\alpha_0 \\dots \\bar\\alpha_T`.
        density: :math:`\\rho` of each member's graph, ``[M]``.
        history: Training loss, ``[steps, M]``.
    """

    module: nn.Module
    params: Params
    buffers: Params
    keep: Tensor
    density: Tensor
    history: Tensor


def fit_edge_diffusion(
    build: Callable[[int], EdgeDenoiser],
    edges: Float[Tensor, "M P"],
    attributes: Float[Tensor, "M n F"],
    sensitive: Float[Tensor, "M n"],
    *,
    seeds: Sequence[int],
    steps: int = 250,
    timesteps: int = 10,
    pairs_per_step: int = 2048,
    lr: float = 5e-3,
) -> EdgeDiffusion:
    r"""Train one denoiser for each graph, all at once, on cross-entropy of the clean pairs at random times.

    .. math:: \min\; \mathbb E_{t,\,A_t}\, \frac1{|Q|}\sum_{(i,j) \in Q}
        \mathrm{BCE}\bigl(\hat p_{ij}(A_t, t),\, A_{0,ij}\bigr)

    Args:
        build: Makes member ``m``'s denoiser, under its seed.
        edges: Pairs of each graph, 0/1.
        attributes: Attributes of its nodes.
        sensitive: Sensitive attribute, 0/1.
        seeds: One a member; equal seeds see equal noise.
        steps, lr: Of Adam.
        timesteps: :math:`T`.
        pairs_per_step: Random pairs ``Q`` whose loss is taken at a step.

    Raises:
        ValueError: For shapes that do not fit, edges that are not 0/1, a graph without edges or without a missing pair.
    """
    require(edges.ndim == 2 and edges.shape[0] == len(seeds) > 0, f"pairs of {len(seeds)} graphs", tuple(edges.shape))
    graphs = attributes.ndim == 3 and len(attributes) == len(edges)
    require(graphs, f"attributes [{len(edges)}, n, F]", tuple(attributes.shape))
    _check_pairs(edges, attributes.shape[1])
    shape = tuple(attributes.shape[:2])
    require(tuple(sensitive.shape) == shape, f"an attribute of shape {shape}", tuple(sensitive.shape))
    _check_binary("pairs", edges)
    require_finite("attributes", attributes)
    _check_binary("a sensitive attribute", sensitive)
    density = edges.mean(1)
    require(bool(((density > 0) & (density < 1)).all()), "graphs with an edge and with a missing pair", density)
    require(steps >= 1 and pairs_per_step >= 1, "positive steps and pairs", (steps, pairs_per_step))
    modules = []
    for member, seed in enumerate(seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(build(member).to(edges))
    params, buffers = stack_members(modules)
    skeleton = modules[0]
    keep = cosine_keep_probability(timesteps).to(edges)
    pairs = edges.shape[1]
    size = min(pairs_per_step, pairs)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def one(
        p: Params, b: Params, noisy: Tensor, x: Tensor, s: Tensor, time: Tensor, q: Tensor, truth: Tensor
    ) -> Tensor:
        return F.binary_cross_entropy_with_logits(functional_call(skeleton, (p, b), (noisy, x, s, time, q)), truth[q])

    def loss(p: Params, step: int, generator: torch.Generator) -> Tensor:
        draws = [(torch.randint(1, timesteps + 1, (1,), generator=g), torch.rand(pairs, generator=g),
                  torch.randint(0, pairs, (size,), generator=g)) for g in generators]  # fmt: skip
        t = torch.cat([d[0] for d in draws]).to(edges.device)
        uniform, chosen = (torch.stack([d[k] for d in draws]).to(edges.device) for k in (1, 2))
        noisy = (uniform < noised_edge_probability(edges, keep[t][:, None], density[:, None])).to(edges)
        return vmap(one)(p, buffers, noisy, attributes, sensitive, t.to(edges) / timesteps, chosen, edges)

    params, history = minimize(loss, params, steps=steps, lr=lr)
    return EdgeDiffusion(skeleton, params, buffers, keep, density, history)


@torch.no_grad()
def sample_edges_reverse(
    model: EdgeDiffusion,
    start: Float[Tensor, "M B P"],
    attributes: Float[Tensor, "M n F"],
    sensitive: Float[Tensor, "M B n"],
    noise: Float[Tensor, "M B T P"],
    *,
    first: int | None = None,
) -> SampledGraphs:
    r"""Run the reverse process from step ``first`` down to 1, every member and graph at once.

    Args:
        model: Trained diffusions.
        start: Pairs at step ``first``, ``B`` graphs a member.
        attributes: Attributes of each member's nodes.
        sensitive: Sensitive attribute of each graph.
        noise: Uniform numbers; step ``t`` uses entry ``t - 1``, so that runs from different steps share them.
        first: Step to start from; default :math:`T`. With 0 the start is returned.

    Raises:
        ValueError: For shapes that do not fit, NaN, or a step out of range.
    """
    last = len(model.keep) - 1
    first = last if first is None else first
    require(0 <= first <= last, f"a first step in [0, {last}]", first)
    require(noise.shape[:2] == start.shape[:2] and noise.shape[2] >= first and noise.shape[3] == start.shape[2],
            f"noise of shape {(*start.shape[:2], last, start.shape[2])}", tuple(noise.shape))  # fmt: skip
    members = attributes.ndim == 3 and len(attributes) == len(start) == len(model.density)
    require(members, f"attributes [{len(model.density)}, n, F]", tuple(attributes.shape))
    shape = (*start.shape[:2], attributes.shape[1])
    require(tuple(sensitive.shape) == shape, f"an attribute of shape {shape}", tuple(sensitive.shape))
    _check_pairs(start, attributes.shape[1])
    # A comparison with NaN is false: it would give a graph without edges, not an error.
    for name, values in (("attributes", attributes), ("the sensitive attribute", sensitive), ("noise", noise)):
        require_finite(name, values)

    def clean(p: Params, b: Params, edges: Tensor, x: Tensor, s: Tensor, time: Tensor) -> Tensor:
        return functional_call(model.module, (p, b), (edges, x, s, time)).sigmoid()

    over_graphs = vmap(clean, in_dims=(None, None, 0, None, 0, None))
    over_members = vmap(over_graphs, in_dims=(0, 0, 0, 0, 0, None))
    edges, path = start, []
    for t in range(first, 0, -1):
        path.append(edges)
        time = torch.tensor(t / last, dtype=start.dtype, device=start.device)
        prediction = over_members(model.params, model.buffers, edges, attributes, sensitive, time)
        chance = posterior_edge_probability(edges, prediction, float(model.keep[t]), float(model.keep[t - 1]),
                                            model.density[:, None, None])  # fmt: skip
        edges = (noise[:, :, t - 1] < chance).to(start)
    states = torch.stack(path[::-1], 2) if path else start.new_zeros((*start.shape[:2], 0, start.shape[2]))
    return SampledGraphs(edges, states)


def attribute_switch(
    sensitive: Float[Tensor, "*B n"], fraction: float, order: Int[Tensor, "*B n"]
) -> Float[Tensor, "*B n"]:
    r"""Replace a binary attribute by its opposite on exactly :math:`\mathrm{round}(p n)` nodes.

    Args:
        sensitive: Attribute, 0/1.
        fraction: :math:`p` in [0, 1].
        order: A permutation of the nodes; the first ones are switched, so that larger fractions extend smaller ones.

    Raises:
        ValueError: For a fraction outside [0, 1], values other than 0 and 1, shapes that differ, or an order that is no
            permutation.

    Source: badaoui2025faros (the switch; how the nodes are chosen is ours).
    """
    require(0 <= fraction <= 1, "a fraction in [0, 1]", fraction)
    require(order.shape == sensitive.shape, f"an order of shape {tuple(sensitive.shape)}", tuple(order.shape))
    _check_binary("an attribute", sensitive)
    if order.device.type != "meta":
        every = torch.arange(order.shape[-1], device=order.device)
        require(bool((order.sort(-1).values == every).all()), "a permutation of the nodes", "a node twice or none")
    count = round(fraction * sensitive.shape[-1])
    chosen = torch.zeros_like(sensitive).scatter(-1, order[..., :count], 1.0)
    return sensitive + chosen - 2 * sensitive * chosen


def edge_independence_gap(edges: Float[Tensor, "*B P"], sensitive: Float[Tensor, "*B n"]) -> Float[Tensor, "*B"]:
    r"""How far edges depend on sharing the attribute, relative to the density.

    .. math:: F = \frac{|P(A = 1 \mid s_i = s_j) - P(A = 1 \mid s_i \ne s_j)|}{P(A = 1)}

    Args:
        edges: Values of all pairs.
        sensitive: Attribute, 0/1.

    Returns:
        The gap; 0 for a graph without edges or with one group only (nothing to compare).

    Raises:
        ValueError: For shapes that do not fit, or NaN.

    Source: badaoui2025faros (the edge-independence criterion; this form is derived here).
    """
    _check_pairs(edges, sensitive.shape[-1])
    _check_binary("an attribute", sensitive)
    i, j = node_pairs(sensitive.shape[-1]).to(sensitive.device)
    same = (sensitive[..., i] == sensitive[..., j]).to(edges.dtype)
    inside = (edges * same).sum(-1) / same.sum(-1).clamp_min(1)
    across = (edges * (1 - same)).sum(-1) / (1 - same).sum(-1).clamp_min(1)
    mean = edges.mean(-1)
    mixed = (same.mean(-1) > 0) & (same.mean(-1) < 1) & (mean > 0)
    return torch.where(mixed, (inside - across).abs() / mean.clamp_min(torch.finfo(edges.dtype).tiny), 0.0)


def assortative_sum(edges: Float[Tensor, "*B P"], sensitive: Float[Tensor, "*B n"]) -> Float[Tensor, "*B"]:
    r"""Edges inside groups minus edges across, :math:`\sum_{i<j} \sigma_i\sigma_j A_{ij}` with :math:`\sigma = 2s - 1`.

    Args:
        edges: Values of all pairs.
        sensitive: Attribute, 0/1.

    Raises:
        ValueError: For shapes that do not fit, or NaN.
    """
    _check_pairs(edges, sensitive.shape[-1])
    _check_binary("an attribute", sensitive)
    i, j = node_pairs(sensitive.shape[-1]).to(sensitive.device)
    sign = 2 * sensitive - 1
    return (edges * sign[..., i] * sign[..., j]).sum(-1)


def switched_sum_factor(fraction: float, nodes: int, *, exact_count: bool) -> float:
    r"""By what factor a random switch shrinks :func:`assortative_sum`, in expectation.

    .. math:: (1 - 2p)^2 \;\text{(independent flips)}, \qquad
        \frac{n(1-2p)^2 - 1}{n - 1} \;\text{(exactly } pn \text{ random nodes)}

    Args:
        fraction: :math:`p` in [0, 1].
        nodes: :math:`n \ge 2`.
        exact_count: Whether exactly :math:`pn` nodes are switched.

    Raises:
        ValueError: For a fraction outside [0, 1] or fewer than two nodes.
    """
    require(0 <= fraction <= 1 and nodes >= 2, "a fraction in [0, 1] and two nodes", (fraction, nodes))
    square = (1 - 2 * fraction) ** 2
    return (nodes * square - 1) / (nodes - 1) if exact_count else square


def topology_profile(
    edges: Float[Tensor, "*B P"],
    attributes: Float[Tensor, "*B n F"],
    sensitive: Float[Tensor, "*B n"],
    groups: Bool[Tensor, " n"],
) -> Float[Tensor, "*B two K"]:
    r"""Means over two fixed groups of nodes: degree, neighbours' attributes, own and neighbours' sensitive attribute.

    Args:
        edges: Values of all pairs.
        attributes: Attributes of the nodes.
        sensitive: Sensitive attribute of the graph, perhaps switched.
        groups: The groups of comparison (the attribute before switching).

    Returns:
        ``K = F + 3`` means in each group; an empty group gives zeros.

    Raises:
        ValueError: For shapes that do not fit, or NaN.

    Source: badaoui2025faros (its node-topology profile; the statistics are chosen here).
    """
    n = sensitive.shape[-1]
    boolean = tuple(groups.shape) == (n,) and groups.dtype == torch.bool
    require(boolean, f"boolean groups of {n} nodes", (tuple(groups.shape), groups.dtype))
    require_finite("attributes", attributes)
    require_finite("the sensitive attribute", sensitive)
    require(attributes.shape[-2] == n, f"attributes of {n} nodes", tuple(attributes.shape))
    adjacency = to_adjacency(edges, n)
    degree = adjacency.sum(-1)
    own = torch.cat([attributes.expand(*sensitive.shape, attributes.shape[-1]), sensitive[..., None]], -1)
    near = adjacency @ own / degree.clamp_min(1)[..., None]
    scaled = degree / degree.mean(-1, keepdim=True).clamp_min(1e-12)
    table = torch.cat([scaled[..., None], near, sensitive[..., None]], -1)
    members = torch.stack([~groups, groups]).to(table)
    return members @ table / members.sum(1).clamp_min(1)[:, None]


def profile_distance(profile: Float[Tensor, "*B two K"], reference: Float[Tensor, "*B two K"]) -> Float[Tensor, "*B"]:
    r"""Root mean squared difference of two profiles.

    Args:
        profile, reference: From :func:`topology_profile`.

    Raises:
        ValueError: For shapes that do not fit, or NaN.
    """
    require(profile.shape[-2:] == reference.shape[-2:], f"profiles of shape {tuple(reference.shape)}",
            tuple(profile.shape))  # fmt: skip
    require_finite("profile", profile)
    require_finite("reference", reference)
    return (profile - reference).square().mean((-1, -2)).sqrt()


def knee_point(costs: Float[Tensor, "N two"]) -> tuple[int, Bool[Tensor, " N"]]:
    """The Pareto front of two costs, and its point nearest to the ideal after scaling both to [0, 1] on the front.

    Args:
        costs: Two costs of each candidate, both to be small.

    Returns:
        Index of the knee (the first among equals) and the mask of the front.

    Raises:
        ValueError: For no candidates, other than two costs, or NaN.

    Source: badaoui2025faros (multi-criteria selection; the knee rule is ours).
    """
    require(costs.ndim == 2 and costs.shape[0] > 0 and costs.shape[1] == 2, "costs [N, 2]", tuple(costs.shape))
    require_finite("costs", costs)
    beaten = (costs[None] <= costs[:, None]).all(-1) & (costs[None] < costs[:, None]).any(-1)
    front = ~beaten.any(1)
    low, high = costs[front].amin(0), costs[front].amax(0)
    scaled = (costs - low) / torch.where(high > low, high - low, torch.ones_like(high))
    distance = scaled.square().sum(1).masked_fill(~front, torch.inf)
    return int(distance.argmin()), front
