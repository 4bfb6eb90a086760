r"""Seven ways to a sparse network at one budget of epochs, all members of a method at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.sparsity import (
    Pruner,
    Structure,
    Unstructured,
    apply_masks,
    geometric_sparsity,
    magnitude_scores,
    movement_scores,
    polynomial_sparsity,
)
from netatlas.core.train import Params

from .stacked import (
    initial_parameters,
    member_cross_entropy,
    stacked_logits,
    train_stacked,
    weight_names,
)

Method = Literal[
    "dense", "one shot", "gradual", "rewound weights", "rewound rate", "movement", "edge-popup", "biprop", "random"
]
# Rates chosen on validation images out of GRID by `tune_rates`.
GRID = (0.1, 0.3, 0.6)
RATES: dict[str, float] = {"movement": 0.1}


def signed_constant(like: Float[Tensor, "members out in"], seeds: Sequence[int]) -> Float[Tensor, "members out in"]:
    r"""Weights of equal size and random sign, :math:`\pm\sqrt{2/n_{\text{in}}}`.

    Args:
        like: A tensor of the shape wanted.
        seeds: One a member.
    """
    signs = [torch.randint(2, like.shape[1:], generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in seeds]
    return torch.stack(signs).to(like.dtype) * (2 / like.shape[-1]) ** 0.5


def popup_weights(
    scores: Float[Tensor, "members out in"],
    weights: Float[Tensor, "members out in"],
    sparsity: float,
    *,
    binary: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Weights chosen by learned scores, with a straight-through gradient to the scores.

    .. math:: w^{\text{eff}} = W \odot M + W \odot (|s| - \mathrm{sg}(|s|)),
        \qquad M = \text{the } k \text{ largest } |s|

    With ``binary``, :math:`W` is replaced by :math:`\alpha\operatorname{sign}(W)`,
    :math:`\alpha = \|W \odot M\|_1 / \|M\|_1`.

    Args:
        scores: Learned scores :math:`s`.
        weights: Random weights :math:`W`, never trained.
        sparsity: Share of zeros in each tensor.
        binary: Binary weights with a gain.

    Returns:
        Effective weights and the mask.

    Raises:
        ValueError: For a sparsity outside [0, 1], or scores that are not finite.

    Source:
        li2022robustness (edge-popup and biprop are among the methods it compares).
    """
    mask = Unstructured().mask(scores.detach().abs(), sparsity, 1)
    if binary:
        gain = (weights.abs() * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)
        weights = gain[:, None, None] * weights.sign()
    size = scores.abs()
    return weights * mask + weights * (size - size.detach()), mask


def train_sparse(
    method: Method,
    sparsity: float,
    train: tuple[Tensor, Tensor],
    *,
    widths: Sequence[int],
    seeds: Sequence[int],
    epochs: int = 6,
    batch_size: int = 100,
    lr: float | None = None,
    rounds: int = 3,
    structure: Structure | None = None,
) -> tuple[Params, dict[str, Tensor]]:
    """Sparse MLPs by one method within a number of epochs; the output layer stays dense but for learned scores.

    Args:
        method: ``"one shot"``: train two thirds, cut, train the rest. ``"gradual"``: cubic schedule between a fifth
            and four fifths. ``"rewound weights"`` and ``"rewound rate"``: ``rounds`` rounds of training and cutting,
            after which weights go back to their start, or only the rate does. ``"movement"``: gradual, by accumulated
            movement. ``"edge-popup"`` and ``"biprop"``: scores of random weights. ``"random"``: one shot, of random
            weights.
        sparsity: Share of zeros in every pruned matrix.
        train: Inputs ``[N, features]`` and labels.
        widths: Of the MLP.
        seeds: One a member.
        epochs: In all.
        batch_size: Examples a step.
        lr: Rate of SGD; default the tuned one.
        rounds: Of the iterative methods; must divide ``epochs``.
        structure: Of the magnitude masks; default unstructured.

    Returns:
        Stacked parameters with masks applied, and masks.

    Raises:
        ValueError: For an unknown method or epochs that rounds do not divide.
    """
    structure = structure or Unstructured()
    known = Method.__args__  # type: ignore[attr-defined]
    require(method in known, f"a method out of {known}", repr(method))
    rate = RATES.get(method, 0.3) if lr is None else lr
    (x, y), params = train, initial_parameters(widths, seeds)
    names = weight_names(params)
    pruned, make = names[:-1], {"seeds": seeds, "batch_size": batch_size, "lr": rate}
    if method in ("edge-popup", "biprop"):
        # Fan-in counts the weights that are kept, else signals die out in a few layers.
        random = {n: signed_constant(params[n], seeds) / (1 - sparsity) ** 0.5 for n in names}

        def loss(p: Params, bx: Tensor, by: Tensor, _: Tensor) -> Tensor:
            chosen = {n: popup_weights(p[n], random[n], sparsity, binary=method == "biprop")[0] for n in names}
            return member_cross_entropy(stacked_logits(chosen, bx), by)

        scores, _ = train_stacked({n: params[n] for n in names}, x, y, epochs=epochs, loss=loss, **make)
        final = {n: popup_weights(scores[n], random[n], sparsity, binary=method == "biprop") for n in names}
        return {n: w.detach() for n, (w, _) in final.items()}, {n: m for n, (_, m) in final.items()}
    if method == "dense":
        return train_stacked(params, x, y, epochs=epochs, **make)

    def cut(p: Mapping[str, Tensor], share: float, previous: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        scores = {n: magnitude_scores(p[n]) for n in pruned}
        if method == "random":
            scores = {n: torch.rand(p[n].shape, generator=torch.Generator().manual_seed(seeds[0])) for n in pruned}
        return Pruner(lambda _: share, structure).masks(scores, 0, previous=previous, batch_dims=1)

    if method in ("one shot", "random"):
        first = max(2 * epochs // 3, 1)
        params, _ = train_stacked(params, x, y, epochs=first, **make)
        return train_stacked(params, x, y, epochs=max(epochs - first, 1), masks=cut(params, sparsity), **make)
    if method in ("rewound weights", "rewound rate"):
        require(epochs % rounds == 0, f"epochs that {rounds} rounds divide", epochs)
        start, masks = dict(params), None
        for k in range(rounds):
            params, _ = train_stacked(params, x, y, epochs=epochs // rounds, masks=masks, **make)
            if k + 1 < rounds:
                masks = cut(params, geometric_sparsity(k + 1, rounds - 1, sparsity), masks)
                params = start if method == "rewound weights" else params
        return params, dict(masks or {})

    steps = epochs * -(-len(x) // batch_size)
    pruner = Pruner(lambda t: polynomial_sparsity(t, start=steps // 5, end=4 * steps // 5, final=sparsity), structure)
    carried: dict[str, Tensor] = {}

    def rule(step: int, p: Params, previous: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        scores = {n: carried.get(n, torch.zeros_like(p[n])) for n in pruned}
        if method == "gradual":
            scores = {n: magnitude_scores(p[n]) for n in pruned}
        return pruner.masks(scores, step, previous=previous, batch_dims=1)

    def follow(p: Params, bx: Tensor, by: Tensor, _: Tensor) -> Tensor:
        value = member_cross_entropy(stacked_logits(p, bx), by)
        gradients = torch.autograd.grad(value.sum(), [p[n] for n in pruned], retain_graph=True)
        for n, g in zip(pruned, gradients):
            carried[n] = movement_scores(p[n], g, carried.get(n))
        return value

    loss_rule = follow if method == "movement" else None
    return train_stacked(params, x, y, epochs=epochs, masks=rule, interval=5, loss=loss_rule, **make)


def tune_rates(
    method: Method, sparsity: float, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor],
    *, widths: Sequence[int], seeds: Sequence[int], **options: int,
) -> dict[float, float]:  # fmt: skip
    """Validation accuracy of the three rates of :data:`GRID`."""
    found = {}
    for rate in GRID:
        params, masks = train_sparse(method, sparsity, train, widths=widths, seeds=seeds, lr=rate, **options)
        out = stacked_logits(apply_masks(params, {n: m for n, m in masks.items() if n in params}), validation[0])
        found[rate] = float((out.argmax(-1) == validation[1]).double().mean())
    return found
