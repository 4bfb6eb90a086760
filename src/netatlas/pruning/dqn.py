r"""Deep Q-learning with networks that are pruned while they learn, many agents at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.sparsity import Pruner, apply_masks, magnitude_scores, polynomial_sparsity
from netatlas.core.train import Params, minimize

from .control import CartPole, Catch
from .stacked import initial_parameters, stacked_layers, stacked_logits

Task = CartPole | Catch
# Evaluations of the greedy policy, as shares of training; those from .9 on count as the result.
CHECKPOINTS = (0.3, 0.6, 0.8, 0.9, 0.925, 0.95, 0.975, 1.0)


class Agents(NamedTuple):
    """Trained agents.

    Attributes:
        params: Stacked parameters, pruned weights at zero.
        masks: Masks of the pruned matrices.
        returns: Mean return of greedy play at :data:`CHECKPOINTS`, ``[agents, checkpoints]``.
        diagnostics: At the end: share of dormant units, effective rank, norm of the parameters, variance of Q.
    """

    params: Params
    masks: dict[str, Tensor]
    returns: Tensor
    diagnostics: dict[str, Tensor]


@torch.no_grad()
def greedy_returns(
    params: Mapping[str, Tensor], task: Task, *, episodes: int, seed: int
) -> Float[Tensor, "agents episodes"]:
    """Undiscounted returns of greedy play.

    Args:
        params: Stacked Q-networks.
        task: The task.
        episodes: Episodes an agent; all agents begin them in the same states.
        seed: Of the starting states.
    """
    first = next(iter(params.values()))
    generator = torch.Generator().manual_seed(seed)
    state = task.reset((episodes,), generator, first.dtype).expand(len(first), -1, -1)
    running = torch.ones(state.shape[:2], dtype=torch.bool)
    total = torch.zeros(state.shape[:2], dtype=first.dtype)
    for _ in range(task.limit):
        action = stacked_logits(params, task.observe(state)).argmax(-1)
        state, reward, ended = task.step(state, action)
        total += reward * running
        running = running & ~ended
        if not bool(running.any()):
            break
    return total


def dormant_fraction(
    features: Float[Tensor, "members examples units"], tau: float = 0.025
) -> Float[Tensor, " members"]:
    r"""Share of units with :math:`\overline{|h_i|} \,/\, \tfrac1n\sum_j \overline{|h_j|} \le \tau`.

    Args:
        features: Activations of a layer.
        tau: The threshold.

    Raises:
        ValueError: For a negative threshold or activations that are not finite.
    """
    require(tau >= 0, "a threshold of at least 0", tau)
    require_finite("features", features)
    size = features.abs().mean(1)
    return (size <= tau * size.mean(1, keepdim=True)).double().mean(1)


def effective_rank(features: Float[Tensor, "members examples units"], share: float = 0.99) -> Float[Tensor, " members"]:
    r"""Smallest :math:`k` with most of the singular values' sum: :math:`\sum_{i\le k}\sigma_i \ge .99 \sum\sigma_i`.

    Args:
        features: Activations of a layer.
        share: The share, in (0, 1].

    Raises:
        ValueError: For a share out of range or activations that are not finite.
    """
    require(0 < share <= 1, "a share in (0, 1]", share)
    require_finite("features", features)
    values = torch.linalg.svdvals(features.double())
    mass = values.cumsum(-1) / values.sum(-1, keepdim=True).clamp_min(1e-300)
    found = (mass < share - 1e-12).sum(-1) + 1
    return torch.where(values.sum(-1) > 0, found, torch.zeros_like(found)).double()


def interquartile_mean(values: Sequence[float] | np.ndarray | Tensor) -> float:
    """Mean of the middle half, with fractional weights at its ends, so that it is defined for any number of values.

    Args:
        values: At least one value.

    Raises:
        ValueError: For no value or values that are not finite.
    """
    array = np.sort(np.asarray(values, dtype=np.float64).reshape(-1))
    require(array.size > 0, "at least one value", 0)
    require_finite("values", array)
    edges = np.arange(len(array) + 1) / len(array)
    weight = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return float(weight @ array / weight.sum())


def bootstrap_iqm_difference(
    a: Sequence[float] | np.ndarray | Tensor,
    b: Sequence[float] | np.ndarray | Tensor,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """IQM(a) - IQM(b) with its bootstrap interval over seeds, both samples resampled on their own.

    Args:
        a: Returns, one a seed.
        b: Returns, one a seed.
        draws: Bootstrap samples.
        seed: Seeds the resampling.
        level: Coverage.

    Returns:
        The difference, lower and upper end.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    rng = np.random.default_rng(seed)
    found = [
        interquartile_mean(rng.choice(left, len(left))) - interquartile_mean(rng.choice(right, len(right)))
        for _ in range(draws)
    ]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return interquartile_mean(left) - interquartile_mean(right), float(low), float(high)


def train_dqn(
    task: Task,
    width: int,
    *,
    seeds: Sequence[int],
    steps: int,
    lr: float | Sequence[float],
    sparsity: float = 0.0,
    static: bool = False,
    copies: int = 16,
    batch: int = 32,
    gamma: float = 0.99,
    target_every: int = 100,
    prune_every: int = 20,
    capacity: int = 1000,
    warmup: int = 50,
    episodes: int = 8,
    watch: Callable[[int, Params, dict[str, Tensor]], None] | None = None,
) -> Agents:
    r"""DQN: replay, target network, :math:`\epsilon`-greedy play, Huber loss, Adam; two hidden layers of equal width.

    Each pruned matrix loses its smallest weights along the cubic schedule from 20 to 80 % of the updates. Exempt are
    the last matrix, the biases, and the first matrix of a task with fewer than 32 features. Masks hold in every
    forward pass, so the target network is masked as well, and a weight that was cut stays cut.

    Args:
        task: The task.
        width: Units of both hidden layers.
        seeds: One an agent.
        steps: Updates; each follows one step of every copy of the task.
        lr: Adam's rate, one for all or one an agent.
        sparsity: Final sparsity of the pruned matrices.
        static: A random mask of that sparsity from the start instead of pruning.
        copies: Copies of the task an agent plays.
        batch: Transitions an update.
        gamma: Discount.
        target_every: Updates between copies to the target network.
        prune_every: Updates between masks.
        capacity: Steps that the replay keeps (each holds ``copies`` transitions).
        warmup: Steps of random play before the first update.
        episodes: Episodes of each evaluation.
        watch: Called with the step, the effective parameters and the masks after every update of a mask.

    Raises:
        ValueError: For a sparsity outside [0, 1), or no step.

    Source:
        obandoceron2024pruned.
    """
    require(0 <= sparsity < 1, "a sparsity in [0, 1)", sparsity)
    require(steps >= 1, "at least one step", steps)
    agents = len(seeds)
    names = ["layers.1.weight"] + (["layers.0.weight"] if task.features >= 32 else [])
    params = initial_parameters([task.features, width, width, task.actions], seeds)
    generator = torch.Generator().manual_seed(1 + seeds[0])
    pruner = Pruner(lambda t: polynomial_sparsity(t, start=steps // 5, end=4 * steps // 5, final=sparsity))
    masks = {n: torch.ones_like(params[n], dtype=torch.bool) for n in names}
    if static:
        noise = {n: torch.rand(params[n].shape, generator=generator) for n in names}
        masks = Pruner(lambda _: sparsity).masks(noise, 0, batch_dims=1)

    shape = (agents, copies)
    state = task.reset(shape, generator, torch.float32)
    age = torch.zeros(shape, dtype=torch.long)
    store = {
        "seen": torch.zeros(agents, capacity, copies, task.features),
        "next": torch.zeros(agents, capacity, copies, task.features),
        "action": torch.zeros(agents, capacity, copies, dtype=torch.long),
        "reward": torch.zeros(agents, capacity, copies),
        "going": torch.zeros(agents, capacity, copies),
    }
    rows, filled, target = torch.arange(agents)[:, None], 0, apply_masks(params, masks)
    marks = {max(round(share * steps), 1): i for i, share in enumerate(CHECKPOINTS)}
    returns = torch.zeros(agents, len(CHECKPOINTS))

    @torch.no_grad()
    def play(effective: Params, epsilon: float) -> None:
        nonlocal state, age, filled
        seen = task.observe(state)
        greedy = stacked_logits(effective, seen).argmax(-1)
        random = torch.randint(task.actions, shape, generator=generator)
        action = torch.where(torch.rand(shape, generator=generator) < epsilon, random, greedy)
        new, reward, ended = task.step(state, action)
        slot = filled % capacity
        store["seen"][:, slot], store["next"][:, slot] = seen, task.observe(new)
        store["action"][:, slot], store["reward"][:, slot] = action, reward
        store["going"][:, slot] = (~ended).float()
        age = age + 1
        over = ended | (age >= task.limit)
        state = torch.where(over[..., None], task.reset(shape, generator, torch.float32), new)
        age, filled = torch.where(over, 0, age), filled + 1

    def sample(count: int) -> dict[str, Tensor]:
        index = torch.randint(min(filled, capacity) * copies, (agents, count), generator=generator)
        return {name: values.flatten(1, 2)[rows, index] for name, values in store.items()}

    def effective_params(p: Params) -> Params:
        return apply_masks(p, masks)

    for _ in range(warmup):
        play(effective_params(params), 1.0)

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        nonlocal masks, target
        detached = {n: v.detach() for n, v in p.items()}
        if sparsity and not static and step % prune_every == 0:
            scores = {n: magnitude_scores(detached[n]) for n in names}
            masks = pruner.masks(scores, step, previous=masks, batch_dims=1)
            if watch is not None:
                watch(step, effective_params(detached), masks)
        fixed = effective_params(detached)
        if step in marks:
            returns[:, marks[step]] = greedy_returns(fixed, task, episodes=episodes, seed=marks[step]).mean(1)
        if step % target_every == 0:
            target = {n: v.clone() for n, v in fixed.items()}
        play(fixed, max(0.05, 1 - step / (0.2 * steps)))
        drawn = sample(batch)
        with torch.no_grad():
            ahead = stacked_logits(target, drawn["next"]).amax(-1)
            goal = drawn["reward"] + gamma * drawn["going"] * ahead
        q = stacked_logits(effective_params(p), drawn["seen"]).gather(-1, drawn["action"][..., None])[..., 0]
        return torch.nn.functional.smooth_l1_loss(q, goal, reduction="none").mean(1)

    params, _ = minimize(loss, params, steps=steps, optimizer="adam", lr=lr)
    if sparsity and not static:
        scores = {n: magnitude_scores(params[n]) for n in names}
        masks = pruner.masks(scores, steps, previous=masks, batch_dims=1)
    params = apply_masks(params, masks)
    returns[:, -1] = greedy_returns(params, task, episodes=episodes, seed=len(CHECKPOINTS) - 1).mean(1)
    with torch.no_grad():
        _, features, q = stacked_layers(params, sample(256)["seen"])
        diagnostics = {
            "dormant units": dormant_fraction(features),
            "effective rank": effective_rank(features),
            "norm of the parameters": sum(v.flatten(1).square().sum(1) for v in params.values()).sqrt(),  # type: ignore[union-attr]
            "variance of Q": q.amax(-1).var(1),
        }
    return Agents(params, masks, returns, diagnostics)
