"""Experiments on neural bandits: what the perturbation does to online regret, and which part of a bandit wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from netatlas.core.stats import paired, stderr
from netatlas.random_features import bandits as bd


class RegretGrowth(NamedTuple):
    """Exponents ``[streams]`` of surrogate regret by strength, with its best step rule, and the final excess loss."""

    exponents: dict[float, Tensor]
    excess: dict[float, Tensor]
    regret: dict[float, Tensor]
    steps: dict[float, str]
    checkpoints: list[int]


RATES = (0.03, 0.1, 0.3, 1.0)
GUESSES = (0.02, 0.1, 0.5)


def regret_growth(
    strengths: list[float],
    *,
    width: int,
    dim: int,
    rounds: int,
    streams: int,
    checkpoints: list[int],
    noise: float,
    seed: int,
    scaling_width: int = 64,
) -> RegretGrowth:
    r"""Online regression of linearised networks on a teacher of the same class, over the perturbation's strength.

    Every strength tries its rules of steps at four rates on other streams than those it is measured on, and keeps
    those of least final
    surrogate regret. With a perturbation the rule is the theory's, steps of :math:`1/\mu t`. Without one, constant
    steps, :math:`1/\sqrt t` and
    :math:`1/h t` with three guesses :math:`h` of the data's own curvature are tried.

    Args:
        strengths: Values of :math:`c_p`.
        width, dim: Of the network; it has ``width * (dim + 1)`` weights.
        rounds: :math:`T`.
        streams: Streams to measure on, and as many to tune on.
        checkpoints: Rounds at which regret is taken.
        noise: Deviation of the labels' noise.
        seed: Seeds them.
        scaling_width: The width in :math:`\mu = 2 c_p^2/\sqrt m`, so that equal strengths are equal pulls.
    """
    g = torch.Generator().manual_seed(seed)
    tuning = max(2, streams // 2)
    total = streams + tuning
    x = torch.nn.functional.normalize(torch.randn(total, rounds, dim, generator=g), dim=2) * dim**0.5
    phi = bd.network_gradients(x, width, generator=g)
    # One scale for all streams, so that one step size can be stable on all of them.
    phi = phi / phi.square().sum(2).mean(1).sqrt()[:, None, None]
    # A random member of the class, scaled to outputs of variance one.
    teacher = torch.randn(total, phi.shape[2], generator=g) / phi.square().sum(2).mean().sqrt()
    xi = noise * torch.randn(total, rounds, generator=g)
    labels = (phi @ teacher[..., None])[..., 0] + xi
    known = bd.hindsight(phi, labels, checkpoints)
    own_pull = {c: 2 * c**2 / scaling_width**0.5 for c in strengths}
    rules = {
        c: [(1.0, own_pull[c])] if c else [(0.0, 1.0), (0.5, 1.0), *((1.0, h) for h in GUESSES)] for c in strengths
    }
    arms = [(c, power, h, rate) for c in strengths for power, h in rules[c] for rate in RATES]
    out = bd.online_regression(
        phi,
        teacher,
        xi,
        pull=torch.tensor([own_pull[c] for c, *_ in arms]),
        power=torch.tensor([p for _, p, *_ in arms]),
        curvature=torch.tensor([h for *_, h, _ in arms]),
        rate=torch.tensor([r for *_, r in arms]),
        checkpoints=checkpoints,
        known=known,
    )

    def words(c: float, power: float, h: float, rate: float) -> str:
        rule = {0.0: "constant", 0.5: "1/√t"}.get(power, "1/(μt)" if c else f"1/({h:g} t)")
        return f"{rule}, η = {rate:g}"

    exponents, excess, regret, steps = {}, {}, {}, {}
    t = torch.tensor(checkpoints, dtype=torch.float64).log()
    t = t - t.mean()
    for c in strengths:
        own = [i for i, arm in enumerate(arms) if arm[0] == c]
        best = min(own, key=lambda i: float(out.regret[-1, i, :tuning].mean()))
        course = out.regret[:, best, tuning:].double().clamp_min(1e-6)
        exponents[c] = (t[:, None] * course.log()).sum(0) / t.square().sum()
        regret[c], excess[c] = course, out.excess[-1, best, tuning:].double()
        steps[c] = words(*arms[best])
    return RegretGrowth(exponents, excess, regret, steps, checkpoints)


def sampled_signs_gap(*, seed: int) -> float:
    """Largest relative difference of the final excess loss with ten drawn signs a round from their exact mean.

    Args:
        seed: Seeds a small stream.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 200, 4, generator=g, dtype=torch.float64)
    phi = bd.network_gradients(x, 8, generator=g)
    teacher, xi = (
        torch.randn(4, phi.shape[2], generator=g, dtype=torch.float64),
        0.2 * torch.randn(4, 200, generator=g, dtype=torch.float64),
    )
    arm = {
        "pull": torch.tensor([0.02]),
        "power": torch.tensor([0.0]),
        "rate": torch.tensor([0.05]),
        "checkpoints": [200],
    }
    exact, drawn = (bd.online_regression(phi, teacher, xi, sampled=s, **arm).excess for s in (0, 10))
    return float(((drawn - exact).mean() / exact.mean()).abs())


GAMMAS = (100.0, 1000.0)
# Rule, loss, its two strengths, and the perturbation: small, as the method asks, without tuning.
NEURAL = {
    "NeuFastCB (KL)": ("fast_cb", "kl", GAMMAS, 0.1),
    "NeuSquareCB (square)": ("square_cb", "square", GAMMAS, 0.1),
    "SquareCB weights, KL": ("square_cb", "kl", GAMMAS, 0.1),
    "FastCB weights, square": ("fast_cb", "square", GAMMAS, 0.1),
    "NeuFastCB, not perturbed": ("fast_cb", "kl", GAMMAS, 0.0),
    "NeuFastCB, perturbed ten times as much": ("fast_cb", "kl", GAMMAS, 1.0),
    "ε-greedy, KL": ("epsilon_greedy", "kl", (0.0, 0.05), 0.0),
    "ε-greedy, square": ("epsilon_greedy", "square", (0.0, 0.05), 0.0),
    "NeuralUCB, KL": ("neural_ucb", "kl", (0.03, 0.3), 0.0),
}
BANDIT_RATES = {"kl": (1.0, 3.0, 10.0), "square": (3.0, 10.0, 30.0)}
BASELINES = ("ε-greedy, KL", "ε-greedy, square", "NeuralUCB, KL", "LinUCB")


class BanditSet(NamedTuple):
    """Final regrets ``[seeds]`` on one set, tuning means, chosen settings, and mean courses for a figure."""

    final: dict[str, Tensor]
    tuning: dict[str, float]
    chosen: dict[str, str]
    courses: dict[str, Tensor]
    uniform: float


def play_set(
    inputs: Tensor, labels: Tensor, *, rounds: int, tuning: int, seeds: int, width: int, seed: int
) -> BanditSet:
    """Every arm of the factorial on one classification set: six settings each, chosen on separate seeds.

    Args:
        inputs: N points.
        labels: Classes.
        rounds: :math:`T`.
        tuning, seeds: Seeds to tune on and to measure on; the orders of contexts are the same for all arms.
        width: Hidden units.
        seed: First seed.
    """
    x = (inputs - inputs.mean(0)) / inputs.std(0).clamp_min(1e-6)
    x = torch.nn.functional.normalize(x.float(), dim=1)
    arms = int(labels.max()) + 1
    tune, fresh = seed + torch.arange(tuning), seed + tuning + torch.arange(seeds)
    grids = {name: [(s, r) for s in NEURAL[name][2] for r in BANDIT_RATES[NEURAL[name][1]]] for name in NEURAL}
    alphas = [(a, 0.0) for a in (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)]

    def play(settings: list[tuple[str, float, float]], own: Tensor) -> Tensor:
        """Regret ``[rounds, settings, seeds]``; NeuralUCB keeps a Gram matrix, all other neural arms share a batch."""
        found = torch.empty(rounds, len(settings), len(own))
        orders = torch.stack([bd.classification_bandit(x, labels, rounds, seed=s) for s in own.tolist()])
        kinds = [n if n in ("LinUCB", "NeuralUCB, KL") else "batch" for n, *_ in settings]
        for kind in dict.fromkeys(kinds):
            part = [i for i, k in enumerate(kinds) if k == kind]
            names, strengths, rates = zip(*(settings[i] for i in part))
            options = {"arms": arms, "strength": torch.tensor(strengths).repeat_interleave(len(own))}
            order = orders.repeat(len(part), 1)
            if kind == "LinUCB":
                regret = bd.play_linucb(x, labels, order, **options).regret
            else:
                regret = bd.play_neural(
                    x,
                    labels,
                    order,
                    rule=[NEURAL[n][0] for n in names for _ in own],
                    loss=[NEURAL[n][1] for n in names for _ in own],
                    width=width,
                    perturbation=torch.tensor([NEURAL[n][3] for n in names]).repeat_interleave(len(own)),
                    rate=torch.tensor(rates).repeat_interleave(len(own)),
                    seeds=own.repeat(len(part)),
                    **options,
                ).regret
            found[:, part] = regret.unflatten(1, (len(part), len(own)))
        return found

    tried = [(n, s, r) for n, grid in (grids | {"LinUCB": alphas}).items() for s, r in grid]
    means = play(tried, tune)[-1].mean(1).tolist()
    best = {name: min((i for i, t in enumerate(tried) if t[0] == name), key=means.__getitem__) for name, *_ in tried}
    runs = play([tried[i] for i in best.values()], fresh)
    words = {n: f"{tried[i][1]:g}" + (f", η = {tried[i][2]:g}" if n in NEURAL else "") for n, i in best.items()}
    return BanditSet(
        {name: runs[-1, i].double() for i, name in enumerate(best)},
        {name: means[i] for name, i in best.items()},
        words,
        {name: runs[:, i].mean(1) for i, name in enumerate(best)},
        rounds * (1 - 1 / arms),
    )


class Contest(NamedTuple):
    """Wins and ties of NeuFastCB by comparison, with the table of final regrets."""

    table: pd.DataFrame
    wins: dict[str, int]
    differences: dict[str, dict[str, tuple[float, float]]]
    decided: int
    worst_share: float


def contest(sets: Mapping[str, BanditSet]) -> Contest:
    """Compare arms set by set, paired over seeds.

    Args:
        sets: From :func:`play_set`.
    """
    rows, differences = {}, {}
    pairs = {
        "the best baseline": None,
        "NeuralUCB": "NeuralUCB, KL",
        "NeuSquareCB": "NeuSquareCB (square)",
        "SquareCB weights at equal KL loss": "SquareCB weights, KL",
        "itself without perturbation": "NeuFastCB, not perturbed",
    }
    wins = dict.fromkeys([*pairs, "SquareCB weights at equal square loss"], 0)
    worst = []
    for name, played in sets.items():
        best = min(BASELINES, key=lambda a: played.tuning[a])
        rows[name] = {arm: f"{float(v.mean()):.0f} ± {stderr(v):.0f}" for arm, v in played.final.items()} | {
            "uniform play, expected": f"{played.uniform:.0f}",
            "best baseline when tuned": best,
        }
        worst.append(max(float(v.mean()) for v in played.final.values()) / played.uniform)
        found = {}
        for label, other in pairs.items():
            found[label] = paired(played.final["NeuFastCB (KL)"], played.final[other or best])
        found["SquareCB weights at equal square loss"] = paired(
            played.final["FastCB weights, square"], played.final["NeuSquareCB (square)"]
        )
        for label, d in found.items():
            wins[label] += d.mean + 2 * d.stderr < 0
        differences[name] = {label: (d.mean, d.stderr) for label, d in found.items()}
    return Contest(pd.DataFrame(rows), wins, differences, sum(w < 1 for w in worst), max(worst))


def weighting_checks(*, seed: int) -> dict[str, float]:
    """Errors of the exact properties of both weightings: sums, signs, and uniform play without exploration weight.

    Args:
        seed: Seeds random predictions.
    """
    y = torch.rand(50, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = {}
    for name, rule in (("inverse gaps", bd.inverse_gap_weighting), ("FastCB", bd.fast_cb_weighting)):
        p, flat = rule(y, 100.0), rule(y, 0.0)
        found[f"{name}: probabilities sum to one"] = float((p.sum(1) - 1).abs().max()) + float((-p).clamp_min(0).max())
        found[f"{name}: uniform at gamma = 0"] = float((flat - 1 / 6).abs().max())
    return found
