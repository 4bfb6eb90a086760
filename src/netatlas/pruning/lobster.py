r"""LOBSTER: weights shrink where the loss is insensitive to them, and small ones are cut by a threshold of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.sparsity import apply_masks, insensitivity, remaining
from netatlas.core.train import Params, batch_order, minimize

from .stacked import (
    initial_parameters,
    member_cross_entropy,
    stacked_accuracy,
    stacked_logits,
    weight_names,
    with_gradient,
)

Rule = Literal["LOBSTER", "rescaled", "L2", "shuffled", "shuffled rescaled", "L1", "none"]
RULES: tuple[Rule, ...] = ("LOBSTER", "rescaled", "L2", "shuffled", "shuffled rescaled", "L1", "none")


def lobster_step(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    *,
    lr: float,
    decay: float | Tensor,
    rescaled: bool = False,
    batch_dims: int = 0,
) -> Float[Tensor, "*shape"]:
    r"""One step of gradient descent, then the shrinkage with the same gradient.

    .. math:: w' = w - \eta g, \qquad w'' = w' - \lambda\, w' \max(0, 1 - |g|)

    Args:
        weight: :math:`w`.
        gradient: Gradient :math:`g` of the mini-batch mean loss at :math:`w`.
        lr: :math:`\eta`.
        decay: :math:`\lambda`, a number or a tensor that broadcasts.
        rescaled: Use :math:`1 - |g| / \max|g|` instead.
        batch_dims: Leading member axes, for ``rescaled``.

    Returns:
        :math:`w''`.

    Raises:
        ValueError: For shapes that differ, or a gradient that is not finite.

    Source:
        tartaglione2020lobster.
    """
    require(weight.shape == gradient.shape, f"a gradient of shape {tuple(weight.shape)}", tuple(gradient.shape))
    moved = weight - lr * gradient
    return moved - decay * moved * insensitivity(gradient, rescaled=rescaled, batch_dims=batch_dims)


def shrinkage(
    gradient: Float[Tensor, "members *shape"], rule: Rule, generator: torch.Generator
) -> Float[Tensor, "members *shape"]:
    """Factor on the decay of every weight under a rule; shuffled rules permute it inside the tensor of each member."""
    if rule == "L2":
        return torch.ones_like(gradient)
    if rule == "none":
        return torch.zeros_like(gradient)
    factor = insensitivity(gradient, rescaled="rescaled" in rule, batch_dims=1)
    if "shuffled" in rule:
        flat = factor.flatten(1)
        order = torch.rand(flat.shape, generator=generator).argsort(1)
        factor = flat.gather(1, order).reshape(factor.shape)
    return factor


def largest_threshold(
    params: Mapping[str, Tensor],
    names: Sequence[str],
    inputs: Tensor,
    labels: Tensor,
    *,
    tolerance: float,
    probes: int = 20,
) -> Float[Tensor, " members"]:
    r"""Largest threshold that the validation loss tolerates: :math:`L(w\,[|w| \ge T]) \le (1 + \mathrm{TWT})\,L(w)`.

    Bisection on :math:`[0, \max|w|]` for all members at once; the loss need not be monotone in :math:`T`, so what is
    found is a threshold within the bound, not always the largest of all.

    Args:
        params: Stacked parameters.
        names: The tensors that share the threshold.
        inputs: Validation inputs; never test data.
        labels: Validation labels.
        tolerance: :math:`\mathrm{TWT} \ge 0`.
        probes: Halvings.

    Raises:
        ValueError: For a negative tolerance, no probe, or weights that are not finite.

    Source:
        tartaglione2020lobster.
    """
    require(tolerance >= 0, "a tolerance of at least 0", tolerance)
    require(probes >= 1, "at least one probe", probes)
    for name in names:
        require_finite(name, params[name])

    @torch.no_grad()
    def loss(threshold: Tensor) -> Tensor:
        cut = {n: p * (p.abs() >= threshold[:, None, None]) if n in names else p for n, p in params.items()}
        return member_cross_entropy(stacked_logits(cut, inputs), labels)

    high = torch.stack([params[n].abs().flatten(1).amax(1) for n in names]).amax(0) * (1 + 1e-6)
    low = torch.zeros_like(high)
    bound = (1 + tolerance) * loss(low)
    for _ in range(probes):
        middle = (low + high) / 2
        fine = loss(middle) <= bound
        low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
    return low


class Plateau:
    """Tells for each member when its validation loss has not improved for some epochs; reset after every pruning.

    Args:
        members: Members.
        patience: Epochs without improvement.

    Raises:
        ValueError: For a patience below 1.
    """

    def __init__(self, members: int, patience: int) -> None:
        require(patience >= 1, "a patience of at least 1", patience)
        self.patience = patience
        self.best = torch.full((members,), torch.inf)
        self.waited = torch.zeros(members, dtype=torch.long)

    def update(self, loss: Float[Tensor, " members"]) -> Tensor:
        """Take an epoch's loss; True where the plateau is reached."""
        better = loss < self.best
        self.best = torch.where(better, loss, self.best)
        self.waited = torch.where(better, 0, self.waited + 1)
        return self.waited >= self.patience

    def reset(self, which: Tensor) -> None:
        """Forget the best loss of some members."""
        self.best = torch.where(which, torch.inf, self.best)
        self.waited = torch.where(which, 0, self.waited)


class SparseRun(NamedTuple):
    """Members trained by regularise-and-cut.

    Attributes:
        params: Parameters, cut weights at zero.
        remaining: Share of weights left, one a member.
        validation: Validation accuracy.
        test: Test accuracy.
        gradients: Quantiles .5 and .99 of ``|g|`` in the first, middle and last epoch, largest over members.
        inactive: Smallest share, over members and the three epochs, of weights whose gradient is below 0.1.
        histogram: ``|g|`` of the first member at the three epochs.
    """

    params: Params
    remaining: Tensor
    validation: Tensor
    test: Tensor
    gradients: Tensor
    inactive: float
    histogram: list[Tensor]


def train_and_cut(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    widths: Sequence[int],
    rules: Sequence[Rule],
    decays: Sequence[float],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int = 100,
    lr: float = 0.1,
    patience: int = 5,
    tolerance: float = 0.05,
    seed: int = 0,
) -> SparseRun:
    """Train with a rule of shrinkage by plain SGD; at every plateau, and at the end, cut below the largest threshold.

    All members (rule, decay, seed) run at once, in the common loop: the rule's step is handed to it as a gradient.

    Args:
        train: Inputs and labels.
        validation: For plateaus and thresholds.
        test: Looked at once, at the end.
        widths: Of the MLP.
        rules: One a member.
        decays: Shrinkage a step, one a member.
        seeds: One a member.
        epochs: Passes over the data.
        batch_size: Examples a step.
        lr: SGD's rate.
        patience: Epochs without improvement that make a plateau.
        tolerance: See :func:`largest_threshold`.
        seed: Of the shuffles.

    Raises:
        ValueError: For an unknown rule, or lengths that differ.

    Source:
        tartaglione2020lobster.
    """
    members = len(seeds)
    require(len(rules) == len(decays) == members, f"{members} rules and decays", (len(rules), len(decays)))
    require(set(rules) <= set(RULES), f"rules out of {RULES}", sorted(set(rules)))
    require(min(decays) >= 0, "decays of at least 0", min(decays))
    (x, y), params = train, initial_parameters(widths, seeds)
    names = weight_names(params)
    masks = {n: torch.ones_like(params[n], dtype=torch.bool) for n in names}
    order = torch.stack([batch_order(s, len(x), epochs) for s in seeds], 1)
    per_epoch = -(-len(x) // batch_size)
    decay = torch.tensor(decays, dtype=x.dtype)
    where = {rule: torch.tensor([r == rule for r in rules]).nonzero().flatten() for rule in dict.fromkeys(rules)}
    generator, plateau = torch.Generator().manual_seed(seed), Plateau(members, patience)
    seen: list[Tensor] = []
    looks = (0, epochs // 2, epochs - 1)

    def cut(p: Params, which: Tensor) -> None:
        nonlocal masks
        limit = largest_threshold(p, names, *validation, tolerance=tolerance)
        limit = torch.where(which, limit, torch.zeros_like(limit))
        masks = {n: m & ~((p[n].abs() < limit[:, None, None]) & which[:, None, None]) for n, m in masks.items()}

    def loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        epoch, batch = divmod(step, per_epoch)
        values = {n: v.detach() for n, v in p.items()}
        if batch == 0 and epoch:
            effective = apply_masks(values, masks)
            due = plateau.update(member_cross_entropy(stacked_logits(effective, validation[0]), validation[1]).detach())
            if bool(due.any()):
                cut(effective, due)
                plateau.reset(due)
        index = order[epoch, :, batch * batch_size : (batch + 1) * batch_size]
        effective = {n: v.requires_grad_() for n, v in apply_masks(values, masks).items()}
        fit = member_cross_entropy(stacked_logits(effective, x[index]), y[index])
        gradients = dict(zip(effective, torch.autograd.grad(fit.sum(), list(effective.values()))))
        if batch == 0 and epoch in looks:
            seen.append(torch.cat([gradients[n].abs().flatten(1) for n in names], 1))
        asked = {}
        for n, g in gradients.items():
            w = effective[n].detach()
            factor = torch.empty_like(g)
            for rule, rows in where.items():
                factor[rows] = shrinkage(g[rows], "none" if rule == "L1" else rule, generator)
            spread = decay.reshape(-1, *[1] * (g.ndim - 1))
            after = w - lr * g
            after = after - spread * after * factor
            if "L1" in where:
                rows = where["L1"]
                moved = after[rows]
                # lambda times the typical weight of a layer makes the range of lambda that of the other rules.
                shift = spread[rows] * moved.abs().flatten(1).mean(1).reshape(-1, *[1] * (g.ndim - 1))
                after[rows] = moved.sign() * (moved.abs() - shift).clamp_min(0)
            if n in masks:
                after = after * masks[n]
            asked[n] = (values[n] - after) / lr
        return with_gradient(fit, p, asked)

    params, _ = minimize(loss, params, steps=epochs * per_epoch, optimizer="sgd", lr=lr, seed=seed)
    params = apply_masks(params, masks)
    cut(params, torch.ones(members, dtype=torch.bool))
    params = apply_masks(params, masks)
    levels = torch.tensor([0.5, 0.99])
    gradients = torch.stack([torch.quantile(g, levels, dim=1).amax(1) for g in seen])
    inactive = min(float((g < 0.1).double().mean(1).min()) for g in seen)
    left = remaining({n: p != 0 for n, p in params.items() if n in names}, 1)
    return SparseRun(
        params, left, stacked_accuracy(params, *validation), stacked_accuracy(params, *test), gradients, inactive,
        [g[0] for g in seen],
    )  # fmt: skip
