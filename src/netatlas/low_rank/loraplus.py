r"""LoRA+: a larger learning rate for :math:`B` than for :math:`A`, and why width asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require


def loraplus_scales(names: Iterable[str], ratio: float) -> dict[str, float]:
    r"""Factors on the geometric mean of two rates: :math:`\lambda^{-1/2}` for A, :math:`\lambda^{1/2}` for the rest.

    Args:
        names: Trainable parameters; the last part of the name of a first factor is ``A``.
        ratio: :math:`\lambda = \eta_B / \eta_A`.

    Returns:
        A factor for every name, as ``lr_scale`` of :func:`netatlas.core.train.fit_many` takes it.

    Raises:
        ValueError: For a ratio that is not positive.

    Source:
        hayou2024loraplus.
    """
    require(0 < ratio < float("inf"), "a positive ratio", ratio)
    return {name: ratio**-0.5 if name.rpartition(".")[2] == "A" else ratio**0.5 for name in names}


def loraplus_param_groups(module: nn.Module, lr: float, ratio: float, *, weight_decay: float = 0.0) -> list[dict]:
    r"""Groups for ``torch.optim``: A at :math:`\eta`, B at :math:`\lambda\eta`, biases with B and without decay.

    Args:
        module: With trainable low-rank factors named ``A`` and ``B``.
        lr: :math:`\eta`.
        ratio: :math:`\lambda`.
        weight_decay: Of A and B.

    Raises:
        ValueError: For a rate or ratio that is not positive, or nothing to train.

    Source:
        hayou2024loraplus.
    """
    require(lr > 0 and ratio > 0, "a positive rate and ratio", (lr, ratio))
    named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
    require(len(named) > 0, "at least one trainable parameter", 0)
    first = [p for n, p in named if n.rpartition(".")[2] == "A"]
    flat = [p for n, p in named if p.ndim < 2]
    second = [p for n, p in named if n.rpartition(".")[2] != "A" and p.ndim >= 2]
    groups = [
        {"params": first, "lr": lr, "weight_decay": weight_decay},
        {"params": second, "lr": lr * ratio, "weight_decay": weight_decay},
        {"params": flat, "lr": lr * ratio, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class OutputChange(NamedTuple):
    r"""Parts of the change of an output by one step, ``[draws]`` each.

    Attributes:
        first: by A alone, :math:`\delta^1`.
        second: by B alone, :math:`\delta^2`.
        both: by their product, :math:`\delta^3`.
    """

    first: Float[Tensor, " draws"]
    second: Float[Tensor, " draws"]
    both: Float[Tensor, " draws"]


def output_change(
    width: int,
    rates: tuple[float, float],
    *,
    draws: int,
    generator: torch.Generator,
    optimizer: str = "sgd",
    rank: int = 1,
) -> OutputChange:
    r"""One step of :math:`f(x) = (w^* + b^\top A)\, x` from :math:`A_{ij} \sim N(0, 1/n)` and :math:`b` of order one.

    With gradient descent and :math:`r = 1`,

    .. math:: \delta^1 = -\eta_A b^2 \lVert x \rVert^2 (f - y),\quad \delta^2 = -\eta_B (a \cdot x)^2 (f - y),\quad
        \delta^3 = \eta_A \eta_B (f - y)^2\, b\, (a \cdot x)\, \lVert x \rVert^2 .

    With ``"adam"`` every entry moves by its rate against the sign of its gradient.

    Args:
        width: :math:`n`.
        rates: :math:`(\eta_A, \eta_B)`.
        draws: Independent draws of all that is random; inputs and the error :math:`f - y` are standard normal.
        generator: Draws them.
        optimizer: ``"sgd"`` or ``"adam"``.
        rank: :math:`r`.

    Raises:
        ValueError: For sizes below 1 or an unknown optimizer.

    Source:
        hayou2024loraplus.
    """
    require(min(width, draws, rank) >= 1, "positive sizes", (width, draws, rank))
    require(optimizer in ("sgd", "adam"), "an optimizer out of sgd, adam", repr(optimizer))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator, device=generator.device)

    x, a = normal(draws, width), normal(draws, rank, width) / width**0.5
    b, error = normal(draws, rank) / rank**0.5, normal(draws)
    inner = torch.einsum("krn,kn->kr", a, x)
    if optimizer == "sgd":
        # The gradient of A is an outer product, so that its effect on A x needs no matrix.
        moved = -rates[0] * error[:, None] * b * x.square().sum(1, keepdim=True)
        step = -rates[1] * error[:, None] * inner
    else:
        moved = -rates[0] * torch.sgn(error[:, None] * b) * x.abs().sum(1, keepdim=True)
        step = -rates[1] * torch.sgn(error[:, None] * inner)
    return OutputChange((b * moved).sum(1), (step * inner).sum(1), (step * moved).sum(1))


def steps_to_reach(
    losses: Float[Tensor, "steps M"], target: Float[Tensor, " M"] | float, every: int = 1
) -> Float[Tensor, " M"]:
    """The first evaluation at or below a target, in steps; infinite for a member that never gets there.

    Args:
        losses: At each evaluation, ``[E, M]``.
        target: One for all or one a member.
        every: Steps between evaluations.

    Raises:
        ValueError: For no evaluations.
    """
    require(losses.ndim == 2 and len(losses) > 0, "losses [E, M] of at least one evaluation", tuple(losses.shape))
    reached = losses <= torch.as_tensor(target, dtype=losses.dtype, device=losses.device)
    first = reached.to(torch.int64).argmax(0) + 1
    return torch.where(reached.any(0), (first * every).to(torch.float64), torch.tensor(torch.inf, dtype=torch.float64))
