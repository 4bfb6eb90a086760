"""Fair graphs by switching an attribute while they are generated: when, how many nodes, and compared with what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from netatlas.core.stats import spearman
from netatlas.graph_trust.edge_diffusion import (
    EdgeDenoiser,
    EdgeDiffusion,
    assortative_sum,
    attribute_switch,
    edge_independence_gap,
    fit_edge_diffusion,
    knee_point,
    node_pairs,
    profile_distance,
    sample_edges_reverse,
    switched_sum_factor,
    to_adjacency,
    topology_profile,
)
from netatlas.graph_trust.link_prediction import (
    dyadic_fairness_gaps,
    fit_link_predictors,
    link_scores,
    pair_auc,
)


class RealGraphs(NamedTuple):
    """Homophilous graphs with a sensitive attribute, one a seed.

    Attributes:
        edges: Training pairs, ``[seeds, P]``.
        held_out: Held-out edges, ``[seeds, P]`` bool.
        attributes: Noisy class indicators, ``[seeds, n, 4]``.
        sensitive: 0/1, ``[seeds, n]``.
        label: Latent class, ``[seeds, n]``.
    """

    edges: Tensor
    held_out: Tensor
    attributes: Tensor
    sensitive: Tensor
    label: Tensor


def sensitive_graphs(
    seeds: Sequence[int], nodes: int = 160, *, held_out: float = 0.2, scale: float = 1.0
) -> RealGraphs:
    """Four latent classes that attract, and a sensitive attribute that multiplies the chance of an edge.

    Edges have chance ``.02 + .13`` inside a class and ``.02`` across, times 1.5 for one sensitive value and .5 for two.

    Args:
        seeds: One a graph.
        nodes: Nodes of each.
        held_out: Share of edges kept for testing.
        scale: Factor on all chances.
    """
    i, j = node_pairs(nodes)
    rows: list[list[Tensor]] = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 4, (nodes,), generator=generator)
        s = (torch.rand(nodes, generator=generator) < 0.4).float()
        chance = (0.02 + 0.13 * (label[i] == label[j])) * torch.where(s[i] == s[j], 1.5, 0.5) * scale
        real = torch.rand(len(i), generator=generator) < chance
        out = real & (torch.rand(len(i), generator=generator) < held_out)
        x = torch.nn.functional.one_hot(label, 4) + 0.3 * torch.randn(nodes, 4, generator=generator)
        rows.append([(real & ~out).float(), out, x, s, label])
    return RealGraphs(*(torch.stack(column) for column in zip(*rows)))


class Generator(NamedTuple):
    """Trained diffusions, fixed randomness, and the runs without a switch.

    Attributes:
        model: Sees the attribute.
        blind: Does not.
        noise: Uniform numbers ``[seeds, samples, T, P]``, the same for every arm.
        order: Order in which nodes are switched, ``[seeds, samples, n]``.
        start: Pairs at step ``T``.
        plain, plain_blind: Runs without a switch: pairs and their path.
    """

    model: EdgeDiffusion
    blind: EdgeDiffusion
    noise: Tensor
    order: Tensor
    start: Tensor
    plain: tuple[Tensor, Tensor]
    plain_blind: tuple[Tensor, Tensor]


def train_generator(
    real: RealGraphs,
    seeds: Sequence[int],
    *,
    samples: int = 2,
    timesteps: int = 10,
    steps: int = 250,
    hidden: int = 48,
    pairs_per_step: int = 2048,
) -> Generator:
    """Train diffusions with and without sight of the attribute, and run them once without a switch.

    Args:
        real: Graphs.
        seeds: One a graph.
        samples: Graphs to generate for each.
        timesteps, steps, hidden, pairs_per_step: Of the diffusion.
    """
    members, n = real.sensitive.shape
    both = fit_edge_diffusion(
        lambda m: EdgeDenoiser(real.attributes.shape[-1], hidden, blind=m >= members), real.edges.repeat(2, 1),
        real.attributes.repeat(2, 1, 1), real.sensitive.repeat(2, 1), seeds=[*seeds, *seeds], steps=steps,
        timesteps=timesteps, pairs_per_step=pairs_per_step,
    )  # fmt: skip

    def half(part: slice) -> EdgeDiffusion:
        return EdgeDiffusion(both.module, {k: v[part] for k, v in both.params.items()},
                             {k: v[part] for k, v in both.buffers.items()}, both.keep, both.density[part],
                             both.history[:, part])  # fmt: skip

    model, blind = half(slice(0, members)), half(slice(members, None))
    generator = torch.Generator().manual_seed(int(seeds[0]) + 1)
    pairs = real.edges.shape[1]
    noise = torch.rand(members, samples, timesteps, pairs, generator=generator)
    order = torch.rand(members, samples, n, generator=generator).argsort(-1)
    start = (torch.rand(members, samples, pairs, generator=generator) < model.density[:, None, None]).float()
    s = real.sensitive[:, None].expand(members, samples, n)
    runs = [sample_edges_reverse(m, start, real.attributes, s, noise) for m in (model, blind)]
    return Generator(model, blind, noise, order, start, *((r.edges, r.path) for r in runs))


def switched(
    real: RealGraphs, made: Generator, fraction: float, step: int, *, blind: bool = False
) -> tuple[Tensor, Tensor]:
    """Graphs with the attribute switched at a step of the reverse process, continued from the stored state.

    Args:
        real: Graphs.
        made: Diffusions.
        fraction: Share of nodes.
        step: Reverse steps still to run; 0 is a switch after generation.
        blind: Whether the blind diffusion runs.

    Returns:
        Pairs ``[seeds, samples, P]`` and the switched attribute.
    """
    edges, path = made.plain_blind if blind else made.plain
    s = attribute_switch(real.sensitive[:, None].expand(made.order.shape).contiguous(), fraction, made.order)
    if step == 0:
        return edges, s
    model, state = made.blind if blind else made.model, path[:, :, step - 1]
    run = sample_edges_reverse(model, state, real.attributes, s, made.noise, first=step)
    return run.edges, s


class Grid(NamedTuple):
    """Both criteria over fractions and steps.

    Attributes:
        fractions, steps: The axes.
        fairness: Edge independence gap, mean over graphs, ``[fractions, steps]``.
        profile: Distance of the profile from the run without a switch.
        front: Which points are not beaten in both.
        chosen: Fraction and step of the knee.
        blind_change: Largest change of the blind diffusion's edges by any switch.
        plain: The gap without a switch, and the gap of the real graphs.
    """

    fractions: tuple[float, ...]
    steps: tuple[int, ...]
    fairness: np.ndarray
    profile: np.ndarray
    front: np.ndarray
    chosen: tuple[float, int]
    blind_change: float
    plain: tuple[float, float]


def selection_grid(
    real: RealGraphs, made: Generator, fractions: Sequence[float], steps: Sequence[int], *, blind: bool = True
) -> Grid:
    """Evaluate both criteria on generated graphs alone and choose the knee of their front.

    Args:
        real: Graphs; their test edges are not used.
        made: Diffusions.
        fractions, steps: Grid.
        blind: Whether to check the blind diffusion on every step too (at the largest fraction).
    """
    sensitive = real.sensitive[:, None].expand(made.order.shape)
    plain = made.plain[0]

    def profile(edges: Tensor, s: Tensor) -> Tensor:
        return torch.stack([topology_profile(e, x, a, g > 0) for e, x, a, g in zip(edges, real.attributes, s,
                                                                                   real.sensitive)])  # fmt: skip

    reference = profile(plain, sensitive)
    fairness, distance = np.zeros((len(fractions), len(steps))), np.zeros((len(fractions), len(steps)))
    change = 0.0
    for a, fraction in enumerate(fractions):
        for b, step in enumerate(steps):
            edges, s = switched(real, made, fraction, step)
            fairness[a, b] = float(edge_independence_gap(edges, s).mean())
            distance[a, b] = float(profile_distance(profile(edges, s), reference).mean())
            if blind and fraction == max(fractions):
                change = max(change, float((switched(real, made, fraction, step, blind=True)[0]
                                            - made.plain_blind[0]).abs().max()))  # fmt: skip
    knee, front = knee_point(torch.from_numpy(np.stack([fairness.ravel(), distance.ravel()], 1)))
    own = edge_independence_gap(plain, sensitive).mean(), edge_independence_gap(real.edges, real.sensitive).mean()
    chosen = fractions[knee // len(steps)], steps[knee % len(steps)]
    return Grid(tuple(fractions), tuple(steps), fairness, distance, front.numpy().reshape(fairness.shape), chosen,
                change, (float(own[0]), float(own[1])))  # fmt: skip


class Downstream(NamedTuple):
    """Link predictors trained on each arm's graphs, tested on the real graphs' held-out edges; ``[seeds * samples]``.

    Attributes:
        auc: Area under the ROC curve, by arm.
        parity, opportunity: Fairness gaps with the real attribute.
        density: Mean density of the training graphs relative to the real ones.
    """

    auc: dict[str, Tensor]
    parity: dict[str, Tensor]
    opportunity: dict[str, Tensor]
    density: dict[str, float]


def rewired(real: RealGraphs, made: Generator, edges: Tensor, *, seed: int) -> Tensor:
    """The unswitched graphs with as many random changes of pairs as a switched run made.

    Args:
        real: Graphs.
        made: Diffusions.
        edges: The switched run's pairs.
        seed: Seeds the choice: edges go and new pairs come in the same numbers as there.
    """
    plain = made.plain[0]
    order = torch.rand(plain.shape, generator=torch.Generator().manual_seed(seed))
    gone = ((plain > 0) & (edges == 0)).sum(-1, keepdim=True)
    come = ((plain == 0) & (edges > 0)).sum(-1, keepdim=True)

    def first(members: Tensor, count: Tensor) -> Tensor:
        return members & (torch.where(members, order, torch.inf).argsort(-1).argsort(-1) < count)

    return ((plain > 0) & ~first(plain > 0, gone)).float() + first(plain == 0, come).float()


def fair_dropped(real: RealGraphs, *, strength: float = 0.5, samples: int, seed: int) -> Tensor:
    """Real training graphs with edges inside groups dropped more often than edges across.

    Args:
        real: Graphs.
        strength: Share dropped inside; half as often across is none.
        samples: Draws of each graph.
        seed: Seeds them.
    """
    i, j = node_pairs(real.sensitive.shape[1])
    same = real.sensitive[:, i] == real.sensitive[:, j]
    draw = torch.rand(len(real.edges), samples, len(i), generator=torch.Generator().manual_seed(seed))
    return real.edges[:, None] * (draw >= strength * same[:, None])


def downstream(real: RealGraphs, arms: dict[str, tuple[Tensor, Tensor]], *, seed: int, steps: int = 150) -> Downstream:
    """Train one predictor on every graph of every arm, all at once, and test it on the real graph.

    Args:
        real: Graphs.
        arms: Pairs and attribute of each arm, ``[seeds, samples, .]``.
        seed: Seeds the predictors; a graph's arms share it.
        steps: Of Adam.
    """
    members, samples, n = next(iter(arms.values()))[1].shape
    total = members * samples
    x = real.attributes[:, None].expand(members, samples, *real.attributes.shape[1:]).flatten(0, 1)
    adjacency = torch.cat([to_adjacency(edges, n).flatten(0, 1) for edges, _ in arms.values()])
    features = torch.cat([torch.cat([x, s.flatten(0, 1)[..., None]], -1) for _, s in arms.values()])
    keys = [seed + index for index in range(total)] * len(arms)
    model, params = fit_link_predictors(adjacency, features, seeds=keys, steps=steps)
    own = torch.cat([real.attributes, real.sensitive[..., None]], -1).repeat_interleave(samples, 0)
    messages = to_adjacency(real.edges, n).repeat_interleave(samples, 0)
    i, j = node_pairs(n)
    scores = link_scores(model, params, messages.repeat(len(arms), 1, 1), own.repeat(len(arms), 1, 1))[:, i, j]
    # Pairs that are edges of the training part are neither asked for nor counted.
    asked = real.edges.repeat_interleave(samples, 0) == 0
    truth = real.held_out.repeat_interleave(samples, 0)
    same = (real.sensitive[:, i] == real.sensitive[:, j]).repeat_interleave(samples, 0)
    tables: list[dict[str, Tensor]] = [{}, {}, {}]
    density = {}
    for index, (arm, (edges, _)) in enumerate(arms.items()):
        rows = scores[index * total : (index + 1) * total]
        values = []
        for row, ask, edge, group in zip(rows, asked, truth, same):
            gaps = dyadic_fairness_gaps(row[ask], group[ask], edge[ask])
            values.append([float(pair_auc(row[ask], edge[ask])), float(gaps.parity), float(gaps.opportunity)])
        for table, column in zip(tables, torch.tensor(values, dtype=torch.float64).T):
            table[arm] = column
        density[arm] = float(edges.mean() / real.edges.mean())
    return Downstream(*tables, density)


def standard_arms(
    real: RealGraphs, made: Generator, chosen: tuple[float, int], *, steps: Sequence[int], seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Every arm that gets a predictor.

    Args:
        real: Graphs.
        made: Diffusions.
        chosen: Fraction and step that the criteria chose.
        steps: Steps of the table, 0 among them (the switch after generation).
        seed: Seeds rewiring and dropping.
    """
    s = real.sensitive[:, None].expand(made.order.shape).contiguous()
    samples = made.order.shape[1]
    arms = {"real graph": (real.edges[:, None].expand(-1, samples, -1), s), "no switch": (made.plain[0], s)}
    for fraction in (0.25, 0.5):
        for step in steps:
            name = f"after generation, {fraction:.0%}" if step == 0 else f"step {step}, {fraction:.0%}"
            arms[name] = switched(real, made, fraction, step)
    arms["chosen"] = switched(real, made, *chosen)
    # A choice after generation changes no edge: then the least switch inside the generation sets the number of changes.
    inside = f"step {min(step for step in steps if step > 0)}, 50%"
    arms["rewired"] = (rewired(real, made, arms["chosen" if chosen[1] > 0 else inside][0], seed=seed), s)
    arms["edges dropped fairly"] = (fair_dropped(real, samples=samples, seed=seed), s)
    arms["blind diffusion"] = (made.plain_blind[0], s)
    return arms


class ClosedForms(NamedTuple):
    """Random switches of the attribute against their closed forms.

    Attributes:
        rows: For each kind and fraction: mean factor, closed form, and their distance in standard errors.
        worst: Largest of these distances.
    """

    rows: list[dict[str, float | str]]
    worst: float


def closed_forms(real: RealGraphs, *, draws: int = 2000, seed: int = 0) -> ClosedForms:
    """By what factor a switch after generation shrinks the edges inside groups less those across.

    Args:
        real: Graphs; the first is used.
        draws: Random switches.
        seed: Seeds them.
    """
    s, edges = real.sensitive[0].double(), real.edges[0].double()
    n, generator = len(s), torch.Generator().manual_seed(seed)
    base = float(assortative_sum(edges, s))
    rows: list[dict[str, float | str]] = []
    for fraction in (0.1, 0.25, 0.5):
        order = torch.rand(draws, n, generator=generator).argsort(-1)
        flips = (torch.rand(draws, n, generator=generator) < fraction).double()
        kinds = {
            "exact count": attribute_switch(s.expand(draws, n), fraction, order),
            "independent": s + flips - 2 * s * flips,
        }
        for kind, changed in kinds.items():
            factor = torch.cat([assortative_sum(edges, part) for part in changed.split(250)]) / base
            closed = switched_sum_factor(fraction, n, exact_count=kind == "exact count")
            error = float(factor.std()) / draws**0.5
            mean = float(factor.mean())
            rows.append({"kind": kind, "fraction": fraction, "mean factor": mean, "closed form": closed,
                         "distance in s.e.": abs(mean - closed) / error})  # fmt: skip
    return ClosedForms(rows, max(float(row["distance in s.e."]) for row in rows))


def spearman_by_fraction(grid: Grid, *, lowest: float, skip_zero: bool = False) -> np.ndarray:
    """Rank correlation of the gap with the steps left, one for each fraction.

    Args:
        grid: Criteria.
        lowest: Least fraction.
        skip_zero: Whether to leave out the switch after generation.
    """
    kept = [k for k, step in enumerate(grid.steps) if step > 0 or not skip_zero]
    steps = [grid.steps[k] for k in kept]
    rows = [row[kept] for row, fraction in zip(grid.fairness, grid.fractions) if fraction >= lowest]
    return np.array([spearman(steps, row) for row in rows])
