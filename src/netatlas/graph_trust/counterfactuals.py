r"""Counterfactuals that survive a re-training: stability of a classifier around a point, and searches that raise it.

A probability function maps points ``[..., d]`` to probabilities ``[...]`` of the wanted class; leading axes may run
over networks, each with points of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from netatlas.core.checks import require, require_finite, require_same_device
from netatlas.core.train import minimize

Function = Callable[[Tensor], Tensor]


class AscentPath(NamedTuple):
    """What an ascent found for each level asked for.

    Attributes:
        points: The first point whose score reaches the level, ``[levels, ..., d]``; the last point where none does.
        reached: Whether it was reached, ``[levels, ...]``.
        score: Score of every point of the path, ``[steps + 1, ...]``.
    """

    points: Tensor
    reached: Tensor
    score: Tensor


def _check_points(points: Tensor, name: str = "points") -> None:
    require(points.ndim >= 1 and points.numel() > 0, f"at least one of {name} [..., d]", tuple(points.shape))
    require(points.is_floating_point(), f"floating {name}", points.dtype)
    require_finite(name, points)


def _check_noise(points: Tensor, noise: Tensor) -> None:
    _check_points(points)
    require(noise.ndim == 2 and noise.shape[0] > 0 and noise.shape[1] == points.shape[-1],
            f"noise [samples, {points.shape[-1]}]", tuple(noise.shape))  # fmt: skip
    require_same_device([("points", points), ("noise", noise)])
    require_finite("noise", noise)


def _around(points: Tensor, noise: Tensor, scale: float) -> Tensor:
    """Points moved by the noise, ``[..., samples, d]``."""
    require(scale > 0, "a positive scale", scale)
    return points[..., None, :] + scale * noise


def stability(
    probability: Function,
    points: Float[Tensor, "*P d"],
    noise: Float[Tensor, "k d"],
    lipschitz: float | Tensor,
    scale: float = 0.1,
) -> Float[Tensor, "*P"]:
    r"""Stability of a classifier around a point: mean output minus local variation.

    .. math:: R_{k,\sigma^2}(x, m) = \frac1k\sum_i \bigl(m(x_i) - \gamma_x \lVert x - x_i \rVert_2\bigr),
        \qquad x_i = x + \sigma e_i

    Args:
        probability: The classifier :math:`m`.
        points: The points :math:`x`.
        noise: Standard normal draws :math:`e_i`, the same for all points.
        lipschitz: Local Lipschitz constant :math:`\gamma_x \ge 0`, one or one a point.
        scale: :math:`\sigma > 0`, in the units of the features.

    Raises:
        ValueError: For NaN, noise that does not fit, a negative constant or a scale that is not positive.

    Source: hamman2023robust.
    """
    _check_noise(points, noise)
    gamma = torch.as_tensor(lipschitz, dtype=points.dtype, device=points.device)
    if gamma.device.type != "meta":
        require(bool((gamma >= 0).all()), "a Lipschitz constant of at least 0", float(gamma.min()))
    shape = tuple(points.shape[:-1])
    require(gamma.ndim == 0 or tuple(gamma.shape) == shape, f"one constant or constants {shape}", tuple(gamma.shape))
    values = probability(_around(points, noise, scale))
    return values.mean(-1) - gamma * scale * noise.norm(dim=-1).mean()


def relaxed_stability(
    probability: Function, points: Float[Tensor, "*P d"], noise: Float[Tensor, "k d"], scale: float = 0.1
) -> Float[Tensor, "*P"]:
    r"""Stability without a Lipschitz constant, differentiable in the points.

    .. math:: \hat R_{k,\sigma^2}(x, m) = \frac1k\sum_i \bigl(m(x_i) - |m(x) - m(x_i)|\bigr) \le m(x)

    Arguments and errors as :func:`stability`.

    Source: hamman2023robust.
    """
    _check_noise(points, noise)
    near, here = probability(_around(points, noise, scale)), probability(points)
    return (near - (here[..., None] - near).abs()).mean(-1)


def stability_deviation(
    probability: Function,
    changed: Function,
    points: Float[Tensor, "*P d"],
    noise: Float[Tensor, "k d"],
    scale: float = 0.1,
) -> Float[Tensor, "*P"]:
    r"""How far a changed model falls below the given one around a point, :math:`Z = \frac1k\sum_i (m(x_i) - M(x_i))`.

    Args:
        probability: The given classifier :math:`m`.
        changed: The changed one :math:`M`.
        points, noise, scale: As :func:`stability`.

    Raises:
        ValueError: As :func:`stability`.

    Source: hamman2023robust (the variable whose tails its guarantee bounds).
    """
    _check_noise(points, noise)
    near = _around(points, noise, scale)
    return (probability(near) - changed(near)).mean(-1)


def stability_tail_bound(
    epsilon: float, samples: int, lipschitz: float, scale: float = 0.1, *, drift: float = 0.0
) -> float:
    r"""Upper bound on the chance that the deviation :math:`Z` exceeds :math:`\epsilon`, given the changed model.

    .. math:: P(Z \ge \epsilon \mid M) \le \exp\Bigl(-\frac{k\,(\epsilon - \epsilon')^2}{2\,\gamma^2\sigma^2}\Bigr)

    for :math:`m - M` with Lipschitz constant :math:`\gamma` (at most the sum of the two) and
    :math:`\mathbb E[Z \mid M] \le \epsilon'`. With :math:`\epsilon > 2\epsilon'` it is at most
    :math:`\exp(-k\epsilon^2 / (8\gamma^2\sigma^2))`, the published form.

    Args:
        epsilon: The deviation :math:`\epsilon`, at least ``drift``.
        samples: Draws ``k``.
        lipschitz: :math:`\gamma > 0`.
        scale: :math:`\sigma > 0`.
        drift: :math:`\epsilon' \ge 0`.

    Raises:
        ValueError: For a number out of range.

    Source: hamman2023robust (concentration of Lipschitz functions of Gaussians).
    """
    require(samples >= 1 and lipschitz > 0 and scale > 0, "positive samples, constant and scale",
            (samples, lipschitz, scale))  # fmt: skip
    require(0 <= drift <= epsilon < math.inf, "0 <= drift <= epsilon", (drift, epsilon))
    return math.exp(-samples * (epsilon - drift) ** 2 / (2 * lipschitz**2 * scale**2))


def bisect_to_boundary(
    probability: Function,
    inside: Float[Tensor, "*P d"],
    outside: Float[Tensor, "*P d"],
    level: float = 0.5,
    *,
    steps: int = 40,
) -> Float[Tensor, "*P d"]:
    """A point between two others at which the probability crosses a level; its own side is that of ``inside``.

    Args:
        probability: The classifier.
        inside: Points at or above the level; where they are not, they are returned unchanged.
        outside: Points below it.
        level: The level.
        steps: Halvings.

    Raises:
        ValueError: For shapes that differ, NaN, or no step.
    """
    _check_points(inside, "inside")
    require(inside.shape == outside.shape, f"points of shape {tuple(inside.shape)}", tuple(outside.shape))
    require_finite("outside", outside)
    require(math.isfinite(level) and steps >= 1, "a finite level and at least one step", (level, steps))
    with torch.no_grad():
        low = torch.zeros_like(inside[..., :1])
        high = torch.ones_like(low)
        for _ in range(steps):
            middle = (low + high) / 2
            above = (probability(outside + middle * (inside - outside)) >= level)[..., None]
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        found = outside + high * (inside - outside)
        return torch.where((probability(found) >= level)[..., None], found, inside)


def closest_counterfactual(
    logit: Function,
    points: Float[Tensor, "*P d"],
    *,
    penalty: float = 0.1,
    steps: int = 200,
    lr: float = 0.02,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Float[Tensor, "*P d"]:
    r"""The customary counterfactual: a near point of the wanted class, on the decision boundary.

    .. math:: \min_c\; -\log\sigma(z(c)) + \lambda\lVert c - x\rVert_1

    by Adam within the bounds; the last point of the wanted class is
    bisected on the segment to :math:`x` until the probability is one half. It works on
    logits: a saturated probability has no gradient.

    Args:
        logit: The classifier's logit :math:`z`.
        points: Points :math:`x` of the other class.
        penalty: :math:`\lambda \ge 0`.
        steps, lr: Of Adam.
        bounds: Range of every feature.

    Returns:
        Counterfactuals; where the search did not reach the class, its last point.

    Raises:
        ValueError: For NaN, a negative penalty, or bounds the wrong way round.

    Source: hamman2023robust (the base counterfactual, after Wachter et al., 2017).
    """
    _check_points(points)
    require(penalty >= 0 and bounds[0] < bounds[1], "a penalty of at least 0 and increasing bounds", (penalty, bounds))
    bound = points.detach()
    best = [bound.clone()]
    found = torch.zeros(bound.shape[:-1], dtype=torch.bool, device=bound.device)

    def loss(params: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        c = params["c"].clamp(*bounds)
        z = logit(c)
        with torch.no_grad():
            # The last point of the class is kept: the penalty pulls the path back towards x after the first crossing.
            kept = (z >= 0) | ~found
            best[0] = torch.where(kept[..., None], c.detach(), best[0])
            found.logical_or_(z >= 0)
        return (F.softplus(-z) + penalty * (c - bound).abs().sum(-1)).sum()

    minimize(loss, {"c": bound.clone()}, steps=steps, lr=lr)
    return bisect_to_boundary(lambda c: torch.sigmoid(logit(c)), best[0], bound)


def ascend(
    score: Function,
    start: Float[Tensor, "*P d"],
    levels: Sequence[float],
    *,
    step: float = 0.01,
    steps: int = 200,
    bounds: tuple[float, float] = (0.0, 1.0),
    halvings: int = 12,
) -> AscentPath:
    r"""Gradient ascent of a score from a start, recorded where it first reaches each level.

    .. math:: c \leftarrow \mathrm{clip}\bigl(c + \eta\, \nabla R(c) / \lVert\nabla R(c)\rVert_2\bigr)

    Steps have one length, so that a flat or a steep score takes a path of the same grain. The crossing is bisected on
    the step that crosses.

    Args:
        score: Differentiable score of points, such as :func:`relaxed_stability` with its noise fixed.
        start: Starting points.
        levels: Increasing levels.
        step: Length :math:`\eta` of a step.
        steps: Most steps.
        bounds: Range of every feature.
        halvings: Bisections of the crossing step.

    Raises:
        ValueError: For no levels, levels that do not increase, or NaN starts.

    Source: hamman2023robust (T-Rex:I).
    """
    _check_points(start, "start")
    finite = len(levels) > 0 and all(map(math.isfinite, levels))
    require(finite and all(a < b for a, b in zip(levels, levels[1:])), "increasing levels", list(levels))
    require(step > 0 and steps >= 1 and bounds[0] < bounds[1], "a positive step, steps and increasing bounds",
            (step, steps, bounds))  # fmt: skip
    wanted = torch.tensor(list(levels), dtype=start.dtype, device=start.device).reshape(-1, *[1] * (start.ndim - 1))
    here = start.detach().clone()
    reached = torch.zeros((len(levels), *start.shape[:-1]), dtype=torch.bool, device=start.device)
    before = here.expand(len(levels), *here.shape).clone()
    after = before.clone()
    scores, last = [], here
    for _ in range(steps + 1):
        point = here.requires_grad_(True)
        value = score(point)
        (slope,) = torch.autograd.grad(value.sum(), point)
        value, point = value.detach(), point.detach()
        scores.append(value)
        new = (value >= wanted) & ~reached
        before, after = torch.where(new[..., None], last, before), torch.where(new[..., None], point, after)
        reached = reached | new
        last = point
        if bool(reached.all()):
            break
        move = slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        here = (point + step * move).clamp(*bounds)
    with torch.no_grad():
        low, high = torch.zeros_like(after[..., :1]), torch.ones_like(after[..., :1])
        for _ in range(halvings):
            middle = (low + high) / 2
            trial = before + middle * (after - before)
            above = torch.stack([score(t) >= w for t, w in zip(trial, wanted)])[..., None]
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        points = torch.where(reached[..., None], before + high * (after - before), last)
    return AscentPath(points, reached, torch.stack(scores))


def nearest_stable(
    points: Float[Tensor, "*B P d"], candidates: Float[Tensor, "*B N d"], scores: Float[Tensor, "*B N"], level: float
) -> tuple[Float[Tensor, "*B P d"], Bool[Tensor, "*B P"]]:
    """The candidate nearest to each point in the 2-norm among those whose score reaches a level.

    Args:
        points: Points.
        candidates: Training points of the wanted class.
        scores: Score of each, such as :func:`relaxed_stability`.
        level: The level.

    Returns:
        Counterfactuals and whether there is one; a point without one is returned itself.

    Raises:
        ValueError: For no candidates, shapes that do not fit, or NaN.

    Source: hamman2023robust (T-Rex:NN).
    """
    _check_points(points)
    _check_points(candidates, "candidates")
    require(points.shape[-1] == candidates.shape[-1], f"candidates of {points.shape[-1]} features",
            candidates.shape[-1])  # fmt: skip
    require(scores.shape == candidates.shape[:-1], f"scores of shape {tuple(candidates.shape[:-1])}",
            tuple(scores.shape))  # fmt: skip
    batch = tuple(candidates.shape[:-2])
    require(points.ndim >= 2 and tuple(points.shape[:-2]) == batch, f"points {(*batch, 'P', 'd')}", tuple(points.shape))
    require_finite("scores", scores)
    allowed = (scores >= level)[..., None, :]
    distance = torch.cdist(points, candidates).masked_fill(~allowed, torch.inf)
    index = distance.argmin(-1)
    found = torch.take_along_dim(candidates, index[..., None], -2)
    solved = allowed.any(-1).expand(index.shape)
    return torch.where(solved[..., None], found, points), solved


def counterfactual_validity(
    logits: Float[Tensor, "*B M P"],
) -> Float[Tensor, "*B P"]:
    """Share of changed models that still put a counterfactual into the wanted class.

    Args:
        logits: Logit of each changed model at each counterfactual.

    Raises:
        ValueError: For no model or NaN.

    Source: hamman2023robust.
    """
    require(logits.ndim >= 2 and logits.shape[-2] > 0, "logits [..., models, points]", tuple(logits.shape))
    require(logits.is_floating_point(), "floating logits", logits.dtype)
    require_finite("logits", logits)
    return (logits >= 0).to(logits.dtype).mean(-2)
