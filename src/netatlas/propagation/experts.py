"""A weak expert on features and a strong one on the graph, joined by the weak one's confidence."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.checks import require
from netatlas.core.message_passing import NodeFit
from netatlas.core.train import Params, minimize
from netatlas.propagation.tuning import centred_logits

Gate = Literal["variance", "entropy", "learned", "constant"]
Objective = Literal["expected", "mixed"]


def _class_count(p: Tensor) -> int:
    classes = p.shape[-1] if p.ndim else 0
    require(classes >= 2, "probabilities over at least two classes", tuple(p.shape))
    return classes


def dispersion_variance(p: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
    r"""Variance of a prediction's entries over that of a sure one: 0 at uniform, 1 at one-hot.

    .. math:: D(p) = \frac{\frac1C \sum_c (p_c - \frac1C)^2}{\frac1C (1 - \frac1C)}

    Args:
        p: Probabilities over two classes or more.

    Raises:
        ValueError: For fewer than two classes.

    Source: zeng2023mowst.
    """
    classes = _class_count(p)
    return (p - 1 / classes).square().mean(-1) / (1 / classes * (1 - 1 / classes))


def dispersion_entropy(p: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
    r"""One minus the entropy of a prediction over that of the uniform one: 0 at uniform, 1 at one-hot.

    .. math:: D(p) = 1 + \frac{\sum_c p_c \ln p_c}{\ln C}

    Args:
        p: Probabilities over two classes or more.

    Raises:
        ValueError: For fewer than two classes.

    Source: zeng2023mowst.
    """
    return 1 + torch.special.xlogy(p, p).sum(-1) / math.log(_class_count(p))


class ConfidenceGate(nn.Module):
    r"""From the weak expert's prediction to the share that it keeps.

    .. math:: C(p) = D(p)^\alpha, \qquad\text{or learned:}\quad
        C(p) = \mathrm{sigmoid}\bigl(w^\top \mathrm{relu}(W [D_{\mathrm{var}}, D_{\mathrm{ent}}] + b) + c\bigr)

    Args:
        kind: ``"variance"`` or ``"entropy"`` (power :math:`\alpha`), ``"learned"``, or ``"constant"`` (1/2 for all).
        power: :math:`\alpha`, positive.
        hidden: Width of the learned one.

    Raises:
        ValueError: For an unknown kind or a power that is not positive.

    Source: zeng2023mowst.
    """

    def __init__(self, kind: Gate = "variance", *, power: float = 1.0, hidden: int = 8) -> None:
        super().__init__()
        known = ("variance", "entropy", "learned", "constant")
        require(kind in known, f"a kind out of {', '.join(known)}", repr(kind))
        require(power > 0, "a positive power", power)
        self.kind, self.power = kind, power
        if kind == "learned":
            self.map = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, p: Float[Tensor, "*B C"]) -> Float[Tensor, "*B"]:
        """Confidence in [0, 1] of every prediction."""
        if self.kind == "constant":
            return torch.full_like(p[..., 0], 0.5)
        if self.kind == "learned":
            spread = torch.stack([dispersion_variance(p), dispersion_entropy(p)], -1)
            return torch.sigmoid(self.map(spread)[..., 0])
        spread = dispersion_variance(p) if self.kind == "variance" else dispersion_entropy(p)
        # At a uniform prediction the slope of a power below one is infinite.
        return spread.clamp_min(1e-12) ** self.power


def _log_softmax(logits: Tensor) -> Tensor:
    shifted, total = centred_logits(logits)
    return shifted - total.unsqueeze(-1)


def mixture_loss(
    weak: Float[Tensor, "*B C"],
    strong: Float[Tensor, "*B C"],
    confidence: Float[Tensor, "*B"],
    y: Int[Tensor, "*B"],
    objective: Objective,
) -> Float[Tensor, "*B"]:
    r"""Loss of a mixture of two experts at each node.

    .. math:: C\, \ell(p, y) + (1 - C)\, \ell(p', y)\ \text{(expected)}, \qquad
        \ell\bigl(C p + (1 - C) p', y\bigr)\ \text{(mixed)}

    with :math:`\ell` the cross-entropy. By convexity the second is never larger.

    Args:
        weak: Log-probabilities of the weak expert.
        strong: Log-probabilities of the strong expert.
        confidence: :math:`C` in [0, 1].
        y: Labels.
        objective: ``"expected"`` (Mowst) or ``"mixed"`` (Mowst*).

    Raises:
        ValueError: For an unknown objective or predictions of two shapes.

    Source: zeng2023mowst.
    """
    require(objective in ("expected", "mixed"), "an objective out of expected, mixed", repr(objective))
    require(weak.shape == strong.shape, f"predictions of shape {tuple(weak.shape)}", tuple(strong.shape))
    first, second = (part.gather(-1, y[..., None])[..., 0] for part in (weak, strong))
    if objective == "expected":
        return -(confidence * first + (1 - confidence) * second)
    tiny = torch.finfo(weak.dtype).tiny
    sides = torch.stack([first + confidence.clamp_min(tiny).log(), second + (1 - confidence).clamp_min(tiny).log()])
    return -torch.logsumexp(sides, 0)


@dataclass
class MixtureFit:
    """Trained mixtures, each at its best state on the validation nodes.

    Attributes:
        weak: Probabilities of the weak experts, ``[M, n, C]``.
        strong: Probabilities of the strong experts, ``[M, n, C]``.
        confidence: Share of the weak expert, ``[M, n]``.
        validation: Accuracy of the mixture on the validation nodes, ``[M]``.
        history: That accuracy after every turn, ``[turns + 1, M]``.
    """

    weak: Tensor
    strong: Tensor
    confidence: Tensor
    validation: Tensor
    history: Tensor

    @property
    def mixture(self) -> Float[Tensor, "M n C"]:
        """Probabilities when the weak expert answers with probability :math:`C`."""
        return mix(self.weak, self.strong, self.confidence)


def mix(
    weak: Float[Tensor, "*B C"], strong: Float[Tensor, "*B C"], confidence: Float[Tensor, "*B"]
) -> Float[Tensor, "*B C"]:
    r"""Expected prediction of the two experts, :math:`C p + (1 - C) p'`.

    Args:
        weak: Probabilities of the weak expert.
        strong: Probabilities of the strong expert.
        confidence: :math:`C` in [0, 1].

    Raises:
        ValueError: For predictions of two shapes, or confidences of another.

    Source: zeng2023mowst.
    """
    require(weak.shape == strong.shape, f"predictions of shape {tuple(weak.shape)}", tuple(strong.shape))
    require(confidence.shape == weak.shape[:-1], f"confidences {tuple(weak.shape[:-1])}", tuple(confidence.shape))
    return confidence[..., None] * weak + (1 - confidence[..., None]) * strong


def masked_accuracy(p: Float[Tensor, "M n C"], y: Int[Tensor, " n"], mask: Bool[Tensor, "M n"]) -> Float[Tensor, " M"]:
    """Share of the nodes of each member's mask whose largest entry is the label.

    Args:
        p: Predictions.
        y: Labels.
        mask: One row a member, or one for all.

    Raises:
        ValueError: For a member without a node.
    """
    weight = mask.double()
    require(bool((weight.sum(-1) > 0).all()), "at least one node a member", "none")
    return ((p.argmax(-1) == y).double() * weight).sum(-1) / weight.sum(-1)


def fit_mixture(
    weak: NodeFit,
    strong: NodeFit,
    x: Float[Tensor, "n F"],
    y: Int[Tensor, " n"],
    train: Bool[Tensor, "M n"],
    validation: Bool[Tensor, "M n"],
    *,
    gate: Gate = "variance",
    objective: Objective = "mixed",
    turns: int = 2,
    steps: int = 20,
    lr: float | Tensor = 0.01,
    weight_decay: float | Tensor = 5e-4,
    through_confidence: bool = True,
    alternate: bool = True,
    seed: int = 0,
) -> MixtureFit:
    """Train both experts on the loss of their mixture, in turns, all members at once.

    The experts start from separate trainings. In its turn the weak expert moves with its gate while the strong one
    stands; then the strong one moves while the confidence stands. Each member keeps the state of its best validation
    accuracy within a turn, and a turn that brings no gain is rolled back.

    Args:
        weak: Trained weak experts.
        strong: Trained strong experts, as many.
        x: Features.
        y: Labels.
        train: Training nodes, one row a member.
        validation: Validation nodes, one row a member.
        gate: As in :class:`ConfidenceGate`.
        objective: As in :func:`mixture_loss`.
        turns: Number of pairs of turns; 0 evaluates the gate on the experts as they are.
        steps: Steps of each turn.
        lr: Learning rate of Adam, one for all or one a member.
        weight_decay: L2 penalty, likewise.
        through_confidence: Whether gradients reach the weak expert through its confidence.
        alternate: Whether to train in turns; else both move together in turns of the same length.
        seed: Seeds a learned gate and dropout.

    Raises:
        ValueError: For experts of different numbers, or a negative number of turns or steps.

    Source: zeng2023mowst.
    """
    members = len(weak.ensemble)
    require(len(strong.ensemble) == members, f"{members} strong experts", len(strong.ensemble))
    require(turns >= 0 and steps >= 1, "turns of at least 0 and steps of at least 1", (turns, steps))
    train, validation = train.expand(members, -1), validation.expand(members, -1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = ConfidenceGate(gate)
    gate_params = {f"gate.{k}": v.detach().expand(members, *v.shape).clone() for k, v in module.named_parameters()}
    weak_net, strong_net = copy.deepcopy(weak.ensemble.module), copy.deepcopy(strong.ensemble.module)
    state: Params = {f"weak.{k}": v.clone() for k, v in weak.ensemble.params.items()} | gate_params
    state |= {f"strong.{k}": v.clone() for k, v in strong.ensemble.params.items()}

    def part(params: Params, name: str) -> Params:
        return {k.removeprefix(f"{name}."): v for k, v in params.items() if k.startswith(f"{name}.")}

    def logits(net: nn.Module, params: Params, training: bool) -> Tensor:
        net.train(training)
        run: Callable = vmap(lambda p: functional_call(net, p, (x,)), randomness="different")
        return run(params)

    def confidence(params: Params, p: Tensor) -> Tensor:
        own = part(params, "gate")
        return vmap(lambda g, q: functional_call(module, g, (q,)))(own, p) if own else module(p)

    @torch.no_grad()
    def evaluate(params: Params) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first = _log_softmax(logits(weak_net, part(params, "weak"), False)).exp()
        second = _log_softmax(logits(strong_net, part(params, "strong"), False)).exp()
        share = confidence(params, first)
        return first, second, share, masked_accuracy(mix(first, second, share), y, validation)

    weights = train.to(x.dtype) / train.sum(-1, keepdim=True)
    target = y.expand(members, -1)
    best = evaluate(state)[3]
    history = [best]

    def turn(moving: tuple[str, ...], number: int) -> None:
        nonlocal state, best
        first, second, share, _ = evaluate(state)
        still = {k: v for k, v in state.items() if not k.startswith(moving)}

        def loss(params: Params, step: int, generator: torch.Generator) -> Tensor:
            whole = still | params
            weak_log, strong_log, c = first.log(), second.log(), share
            if "weak" in moving:
                weak_log = _log_softmax(logits(weak_net, part(whole, "weak"), True))
                p = weak_log.exp()
                c = confidence(whole, p if through_confidence else p.detach())
            if "strong" in moving:
                strong_log = _log_softmax(logits(strong_net, part(whole, "strong"), True))
            return (mixture_loss(weak_log, strong_log, c, target, objective) * weights).sum(-1)

        start = {k: v for k, v in state.items() if k.startswith(moving)}
        kept = {k: v.clone() for k, v in start.items()}

        @torch.no_grad()
        def watch(step: int, params: Params) -> None:
            nonlocal best
            if step % 5:
                return
            score = evaluate(still | {k: v.detach() for k, v in params.items()})[3]
            better = score > best
            best = torch.where(better, score, best)
            for name, value in params.items():
                kept[name][better] = value.detach()[better]

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + number)
            minimize(loss, start, steps=steps, lr=lr, weight_decay=weight_decay, observe=watch)
        state = still | kept
        history.append(best)

    for number in range(turns):
        for order, moving in enumerate(
            [("weak", "gate"), ("strong",)] if alternate else [("weak", "gate", "strong")] * 2
        ):
            turn(moving, 2 * number + order)
    first, second, share, _ = evaluate(state)
    return MixtureFit(first, second, share, best, torch.stack(history))
