"""Which counterfactuals stay valid when the model is trained again, and does the guarantee hold?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats as scipy_stats
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor

from netatlas.core.nn import MLP
from netatlas.core.train import Params, fit_many
from netatlas.graph_trust.counterfactuals import (
    AscentPath,
    ascend,
    closest_counterfactual,
    counterfactual_validity,
    nearest_stable,
    relaxed_stability,
    stability_deviation,
    stability_tail_bound,
)

# The planned levels; the others give both curves of validity against cost a finer grain.
PLANNED = {"stability": (0.5, 0.6, 0.7, 0.8, 0.9), "confidence": (0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)}
STABILITY_LEVELS = (0.1, 0.2, 0.3, 0.4, *PLANNED["stability"])
CONFIDENCE_LEVELS = tuple(sorted((0.52, 0.55, 0.65, 0.75, 0.85, *PLANNED["confidence"])))


class Models(NamedTuple):
    """Base models of several seeds with their re-trained versions.

    Attributes:
        base: Parameters ``[seeds, ...]``.
        changed: Parameters ``[seeds, kinds * models, ...]``: new initialisations first, then left-out points.
        count: Models of each kind.
        accuracy: Test accuracy of the base models and of the two kinds.
        rejected: Points that every base model of its seed rejects, ``[seeds, points, d]``.
        positives: Training points that the base model accepts, ``[seeds, N, d]``, and which of them count.
        accepted: That mask, ``[seeds, N]``.
        bias: Mean over new initialisations of the change in probability at accepted training points.
    """

    base: Params
    changed: Params
    count: int
    accuracy: dict[str, float]
    rejected: Tensor
    positives: Tensor
    accepted: Tensor
    bias: float


def logits_of(params: Params, points: Tensor) -> Tensor:
    """Logit of the wanted class of stacked two-hidden-layer networks, each at points of its own.

    Args:
        params: Parameters ``[networks, ...]``.
        points: ``[networks, ..., d]``.
    """
    shape = points.shape[:-1]
    h = points.flatten(1, -2) if points.ndim > 2 else points[:, None]
    layers = sorted({int(name.split(".")[1]) for name in params})
    for depth in layers:
        h = torch.baddbmm(params[f"layers.{depth}.bias"][:, None], h, params[f"layers.{depth}.weight"].transpose(1, 2))
        h = torch.relu(h) if depth < layers[-1] else h
    return (h[..., 1] - h[..., 0]).reshape(shape)


def probability_of(params: Params):
    """The same as a probability function of points."""
    return lambda points: torch.sigmoid(logits_of(params, points))


def scaled_split(x: Tensor, y: Tensor, seed: int, *, test: float = 1 / 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features scaled to [0, 1] by their range, shuffled, and split into training and test parts.

    Args:
        x: ``[n, d]``.
        y: 0/1.
        seed: Seeds the order.
        test: Share of the test part.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order].float(), y[order].long()
    low, high = x.amin(0), x.amax(0)
    x = (x - low) / torch.where(high > low, high - low, torch.ones_like(high))
    cut = round((1 - test) * len(x))
    return x[:cut], y[:cut], x[cut:], y[cut:]


def train_models(
    x: Tensor, y: Tensor, seeds: Sequence[int], *, models: int, points: int, epochs: int = 150, left_out: float = 0.01
) -> Models:
    """Base models, models from new initialisations, and models without a few training points, all in one run.

    Every base model has a split of the data of its own, which its changed models share.

    Args:
        x, y: Data, scaled and split here.
        seeds: One a base model and split.
        models: Changed models of each kind.
        points: Rejected test points for each base model.
        epochs: Passes in batches of 128.
        left_out: Share of training points that a model of the second kind does not see.
    """
    splits = [scaled_split(x, y, seed) for seed in seeds]
    train_x, train_y, test_x, test_y = (torch.stack(parts) for parts in zip(*splits))
    n, count = train_x.shape[1], 1 + 2 * models
    keep = n - max(round(left_out * n), 1)
    generator = torch.Generator().manual_seed(int(seeds[0]))
    keys, rows = [], []
    for seed in seeds:
        # The base models and those of new initialisations see the same points; those of the second kind drop others.
        keys += [seed, *(1000 * (seed + 1) + i for i in range(models)), *[seed] * models]
        rows += [torch.arange(keep)] * (1 + models) + [
            torch.randperm(n, generator=generator)[:keep] for _ in range(models)
        ]
    own, index = torch.arange(len(seeds)).repeat_interleave(count)[:, None], torch.stack(rows)
    fit = fit_many(lambda: MLP([train_x.shape[-1], 32, 32, 2]), train_x[own, index], train_y[own, index], seeds=keys,
                   epochs=epochs, batch_size=128, optimizer="adam", lr=5e-3, per_member_data=True)  # fmt: skip
    params = {k: v.double().unflatten(0, (len(seeds), count)) for k, v in fit.params.items()}
    base, changed = ({k: v[:, part] for k, v in params.items()} for part in (0, slice(1, None)))
    train_x, test_x = train_x.double(), test_x.double()
    everyone = {k: v.flatten(0, 1) for k, v in params.items()}
    guess = logits_of(everyone, test_x.repeat_interleave(count, 0)).unflatten(0, (len(seeds), count)) >= 0
    accuracy = (guess == test_y[:, None].bool()).double().mean(-1)
    rejected = logits_of(base, test_x) < 0
    most = min(points, int(rejected.sum(1).min()))
    chosen = torch.stack([part[row][:most] for part, row in zip(test_x, rejected)])
    accepted = logits_of(base, train_x) >= 0
    fresh = {k: v[:, :models].flatten(0, 1) for k, v in changed.items()}
    p = probability_of(fresh)(train_x.repeat_interleave(models, 0)).unflatten(0, (len(seeds), models)).mean(1)
    bias = float((p - probability_of(base)(train_x))[accepted].mean())
    return Models(
        base, changed, models,
        {"base": float(accuracy[:, 0].mean()), "new initialisation": float(accuracy[:, 1 : 1 + models].mean()),
         "points left out": float(accuracy[:, 1 + models :].mean())},
        chosen, train_x, accepted, bias,
    )  # fmt: skip


class Found(NamedTuple):
    """Counterfactuals of every arm, ``[seeds, points, d]`` each, and what was asked of them.

    Attributes:
        points: By arm.
        solved: Whether the level was reached, ``[seeds, points]``.
    """

    points: dict[str, Tensor]
    solved: dict[str, Tensor]


def search(models: Models, *, seed: int, path_samples: int = 100, steps: int = 120, step: float = 0.02) -> Found:
    """Every arm's counterfactuals from the same rejected points.

    Args:
        models: Base models and points.
        seed: Seeds the noise.
        path_samples: Draws in the ascent of stability.
        steps, step: Of both ascents.
    """
    x, probability = models.rejected, probability_of(models.base)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(path_samples, x.shape[-1], generator=generator, dtype=x.dtype)
    start = closest_counterfactual(lambda c: logits_of(models.base, c), x, penalty=0.05)
    options = {"step": step, "steps": steps}
    stable: AscentPath = ascend(lambda c: relaxed_stability(probability, c, noise), start, STABILITY_LEVELS, **options)
    sure: AscentPath = ascend(probability, start, CONFIDENCE_LEVELS, **options)
    always = torch.ones(x.shape[:-1], dtype=torch.bool)
    points, solved = {"closest": start}, {"closest": probability(start) >= 0.5 - 1e-9}
    for level, c, reached in zip(STABILITY_LEVELS, stable.points, stable.reached):
        points[f"stability {level}"], solved[f"stability {level}"] = c, reached
    for level, c, reached in zip(CONFIDENCE_LEVELS, sure.points, sure.reached):
        points[f"confidence {level}"], solved[f"confidence {level}"] = c, reached
    # A random direction of the length of the ascent to .7: distance alone.
    length = (points["stability 0.7"] - start).norm(dim=-1, keepdim=True)
    way = torch.randn(start.shape, generator=generator, dtype=x.dtype)
    points["random direction"] = (start + length * way / way.norm(dim=-1, keepdim=True)).clamp(0, 1)
    solved["random direction"] = always
    many = torch.randn(200, x.shape[-1], generator=generator, dtype=x.dtype)
    with torch.no_grad():
        scores = relaxed_stability(probability, models.positives, many).masked_fill(~models.accepted, -1.0)
    for name, level in (("nearest accepted", -0.5), ("nearest stable 0.7", 0.7)):
        points[name], solved[name] = nearest_stable(x, models.positives, scores, level)
    return Found(points, solved)


class Outcome(NamedTuple):
    """What became of the counterfactuals, ``[seeds, points]`` by arm.

    Attributes:
        fresh, left_out: Share of changed models of each kind under which they stay valid.
        fresh_half: Share among the second half of the new initialisations; ``pick_half`` among the first.
        pick_half: Share among the first half.
        cost: 1-norm of the move.
        stability, probability: Relaxed stability (fresh noise) and probability under the base model.
        outlier: Local outlier factor among accepted training points; above 1 is out of the ordinary, ``[arms]`` means.
    """

    fresh: dict[str, Tensor]
    left_out: dict[str, Tensor]
    fresh_half: dict[str, Tensor]
    pick_half: dict[str, Tensor]
    cost: dict[str, Tensor]
    stability: dict[str, Tensor]
    probability: dict[str, Tensor]
    outlier: dict[str, float]


@torch.no_grad()
def judge(models: Models, found: Found, *, seed: int, samples: int = 1000) -> Outcome:
    """Validity, cost and scores of every arm.

    Args:
        models: Changed models.
        found: Counterfactuals.
        seed: Seeds fresh noise.
        samples: Draws of it.
    """
    seeds, count = len(models.rejected), models.count
    flat = {k: v.flatten(0, 1) for k, v in models.changed.items()}
    noise = torch.randn(samples, models.rejected.shape[-1], generator=torch.Generator().manual_seed(seed + 1),
                        dtype=torch.float64)  # fmt: skip
    probability = probability_of(models.base)
    tables: list[dict[str, Tensor]] = [{} for _ in range(7)]
    outlier = {}
    judges = [LocalOutlierFactor(novelty=True).fit(x[a].numpy()) for x, a in zip(models.positives, models.accepted)]
    for arm, c in found.points.items():
        z = logits_of(flat, c.repeat_interleave(2 * count, 0)).unflatten(0, (seeds, 2 * count))
        half = count // 2
        parts = (slice(0, count), slice(count, None), slice(half, count), slice(0, half))
        values = [counterfactual_validity(z[:, part]) for part in parts]
        values += [(c - models.rejected).abs().sum(-1), relaxed_stability(probability, c, noise), probability(c)]
        for table, value in zip(tables, values):
            table[arm] = value
        outlier[arm] = float(np.mean([-j.score_samples(p.numpy()).mean() for j, p in zip(judges, c)]))
    return Outcome(*tables, outlier)


class RankLead(NamedTuple):
    """How much better stability ranks validity than probability does.

    Attributes:
        stability, probability: Mean Spearman correlation with validity under new initialisations.
        difference: Of the two, with the ends of the 95 % bootstrap interval over splits and rejected points.
        low, high: These ends.
    """

    stability: float
    probability: float
    difference: float
    low: float
    high: float


def path_arms(outcome: Outcome, kind: str, *, planned: bool = False) -> list[str]:
    """The start and the points of one ascent.

    Args:
        outcome: Of a search.
        kind: ``"stability"`` or ``"confidence"``.
        planned: Whether to keep the planned levels only.
    """
    if planned:
        return ["closest", *(f"{kind} {level}" for level in PLANNED[kind])]
    return ["closest", *(arm for arm in outcome.fresh if arm.startswith(kind))]


Drawn = list[tuple[int, np.ndarray]]


def _draws(outcome: Outcome, draws: int, seed: int) -> tuple[Drawn, list[Drawn]]:
    """All points of every split, and bootstrap draws of splits and of points within each."""
    splits, count = outcome.fresh["closest"].shape
    rng = np.random.default_rng(seed)
    everyone = [(s, np.arange(count)) for s in range(splits)]
    drawn = [[(int(s), rng.integers(0, count, count)) for s in rng.integers(0, splits, splits)] for _ in range(draws)]
    return everyone, drawn


def _table(values: dict[str, Tensor], arms: Sequence[str]) -> np.ndarray:
    """``[splits, points, arms]``."""
    return torch.stack([values[arm] for arm in arms], -1).numpy()


def _ranked(scores: Sequence[np.ndarray], fresh: np.ndarray, drawn: Drawn) -> tuple[float, float]:
    rho = []
    for s, rows in drawn:
        true = scipy_stats.rankdata(fresh[s, rows])
        rho.append([np.corrcoef(scipy_stats.rankdata(score[s, rows]), true)[0, 1] for score in scores])
    first, second = np.mean(rho, 0)
    return float(first), float(second)


def rank_lead(outcome: Outcome, *, planned: bool = False, draws: int = 300, seed: int = 0) -> RankLead:
    """Rank correlation with validity, of stability and of probability, over the counterfactuals of both ascents.

    Args:
        outcome: Scores and validity.
        planned: Whether to keep the planned levels only.
        draws: Bootstrap draws of splits, and of rejected points within each.
        seed: Seeds them.
    """
    arms = path_arms(outcome, "stability", planned=planned) + path_arms(outcome, "confidence", planned=planned)[1:]
    points, drawn = _draws(outcome, draws, seed)
    scores, fresh = [_table(t, arms) for t in (outcome.stability, outcome.probability)], _table(outcome.fresh, arms)
    everyone = _ranked(scores, fresh, points)
    resampled = [_ranked(scores, fresh, rows) for rows in drawn]
    spread = np.quantile([a - b for a, b in resampled], [0.025, 0.975])
    return RankLead(*everyone, everyone[0] - everyone[1], float(spread[0]), float(spread[1]))


class EqualCost(NamedTuple):
    """Validity of the stability ascent minus that of the confidence ascent at equal mean cost.

    Attributes:
        difference: Averaged over the common range of cost.
        low, high: Ends of the 95 % bootstrap interval over splits and rejected points.
    """

    difference: float
    low: float
    high: float


def _curves(tables: Sequence[tuple[np.ndarray, np.ndarray]], drawn: Drawn) -> float:
    curves = []
    for cost, fresh in tables:
        x, y = (np.mean([table[s, rows].mean(0) for s, rows in drawn], 0) for table in (cost, fresh))
        order = np.argsort(x, kind="stable")
        curves.append((x[order], y[order]))
    low, high = curves[0][0][0], min(curve[0][-1] for curve in curves)
    at = np.linspace(low, high, 101)
    first, second = (np.interp(at, *curve) for curve in curves)
    return float((first - second).mean())


def equal_cost(outcome: Outcome, *, planned: bool = False, draws: int = 300, seed: int = 0) -> EqualCost:
    """Compare the two ascents at equal mean cost, between their levels by straight lines.

    Args:
        outcome: Validity and cost.
        planned: Whether to keep the planned levels only.
        draws: Bootstrap draws of splits, and of rejected points within each.
        seed: Seeds them.
    """
    everyone, drawn = _draws(outcome, draws, seed)
    arms = [path_arms(outcome, kind, planned=planned) for kind in ("stability", "confidence")]
    tables = [(_table(outcome.cost, names), _table(outcome.fresh, names)) for names in arms]
    found = [_curves(tables, rows) for rows in drawn]
    return EqualCost(_curves(tables, everyone), *(float(q) for q in np.quantile(found, [0.025, 0.975])))


def chosen_level(outcome: Outcome, *, aim: float = 0.97) -> str:
    """The smallest level of stability (from .5) whose counterfactuals reach an aim on the first half of the new models.

    Args:
        outcome: Validity.
        aim: Mean validity to reach; the highest level where none does.
    """
    arms = [f"stability {level}" for level in STABILITY_LEVELS if level >= 0.5]
    return next((arm for arm in arms if float(outcome.pick_half[arm].mean()) >= aim), arms[-1])


class Guarantee(NamedTuple):
    """The concentration of the deviation against closed form and bound.

    Attributes:
        mean_error, variance_error: Affine models: distance from the closed form in standard errors.
        rows: Curved models: for each number of draws and multiple of the drift, the tail and its bound.
        violations: How many tails lie above their bounds by more than three standard errors.
        targeted: Probability that a targeted model gives the most stable counterfactual.
        drift: The largest mean deviation of the curved models, and that of the targeted one.
    """

    mean_error: float
    variance_error: float
    rows: list[dict[str, float]]
    violations: int
    targeted: float
    drift: tuple[float, float]


def guarantee_check(*, seed: int, dim: int = 10, repetitions: int = 4000, scale: float = 0.1) -> Guarantee:
    """Tails of the deviation on models whose constants are known.

    The curved model is ``sigmoid(w x + b)`` with constant ``|w| / 4``, its changes add ``a sin(v x + c)`` with constant
    ``a |v|``; the targeted one subtracts a bump at the counterfactual.

    Args:
        seed: Seeds everything.
        dim: Features.
        repetitions: Draws of the whole sample of noise.
        scale: Standard deviation of the noise.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, w, other = 0.3 * normal(dim), normal(dim), normal(dim)
    other = w + 0.3 * other
    draws = 50
    noise = normal(repetitions, draws, dim)
    z = torch.stack([stability_deviation(lambda p: p @ w, lambda p: p @ other - 0.05, x[None], e, scale)[0]
                     for e in noise])  # fmt: skip
    mean, variance = float(x @ (w - other) + 0.05), scale**2 * float((w - other).square().sum()) / draws
    mean_error = abs(float(z.mean()) - mean) / (variance / repetitions) ** 0.5
    variance_error = abs(float(z.var()) / variance - 1) / (2 / (repetitions - 1)) ** 0.5
    given = lambda p: torch.sigmoid(p @ w + 0.5)  # noqa: E731
    amplitude, ways, phases = 0.02, 2 * normal(8, dim), 6 * torch.rand(8, generator=generator, dtype=torch.float64)
    gamma_given = float(w.norm()) / 4
    rows, violations, largest = [], 0, 0.0
    for k in (10, 100, 1000):
        near = x + scale * normal(repetitions * 1000 // 1000, min(k, 200), dim)
        # Large samples are means of independent small ones.
        blocks = k // min(k, 200)
        found = []
        for v, c in zip(ways, phases):
            deviation = -amplitude * torch.sin(near @ v + c)
            each = deviation.mean(1)
            found.append(each[: len(each) // blocks * blocks].reshape(-1, blocks).mean(1))
        tails = torch.stack(found)
        drift = float(tails.mean(1).abs().max())
        largest = max(largest, drift)
        gamma = float(amplitude * ways.norm(dim=1).max())
        for multiple in (2, 3, 4):
            share = (tails >= multiple * drift).double().mean(1)
            worst = float(share.max())
            tight = stability_tail_bound(multiple * drift, k, gamma, scale, drift=drift)
            stated = stability_tail_bound(multiple * drift, k, 2 * gamma_given + gamma, scale, drift=drift)
            error = (tight * (1 - tight) / tails.shape[1]) ** 0.5
            violations += worst > tight + 3 * error
            rows.append({"draws": k, "epsilon / drift": multiple, "tail": worst, "bound": tight,
                         "bound, sum of the constants": stated})  # fmt: skip
    top = x + 2.0 * w / w.norm()
    bump = lambda p: given(p) * (1 - torch.exp(-((p - top).square().sum(-1)) / (2 * scale**2 * dim)))  # noqa: E731
    shift = float(stability_deviation(given, bump, top[None], normal(2000, dim), scale)[0])
    return Guarantee(mean_error, variance_error, rows, violations, float(bump(top[None])[0]), (largest, shift))
