r"""Many architectures trained at once: networks of one width differ by masks, so that one batched pass trains them all.

A population is a list of :class:`Architecture`. Members of equal width are stacked: a layer that a member does not have
is the identity, and activation, skip connection and normalisation are chosen by buffers that differ between members.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.train import fit_many


class Architecture(NamedTuple):
    """One fully connected network.

    Attributes:
        depth: Hidden layers, at least 1.
        width: Units of each.
        activation: ``"relu"`` or ``"tanh"``.
        skip: Whether hidden layers after the first add their input.
        norm: ``"none"`` or ``"layer"`` (layer normalisation before the activation).
    """

    depth: int
    width: int
    activation: str = "relu"
    skip: bool = False
    norm: str = "none"


@dataclass(frozen=True)
class Population:
    """Architectures that were trained, and what they say.

    Attributes:
        architectures: One a network and seed, in the order of the outputs.
        seeds: The seed of each.
        outputs: Logits of every network on every set asked for, ``[members, n, classes]`` each.
    """

    architectures: list[Architecture]
    seeds: list[int]
    outputs: list[Tensor]

    def column(self, name: str) -> list[Any]:
        """One attribute of all architectures, such as ``"width"``."""
        return [getattr(a, name) for a in self.architectures]


def architecture_grid(
    depths: Sequence[int],
    widths: Sequence[int],
    activations: Sequence[str] = ("relu",),
    skips: Sequence[bool] = (False,),
    norms: Sequence[str] = ("none",),
) -> list[Architecture]:
    """Every combination of the given choices, as a list of :class:`Architecture`.

    Args:
        depths, widths, activations, skips, norms: The choices of each attribute.

    Raises:
        ValueError: For an empty choice or an unknown value.
    """
    found = [Architecture(*values) for values in itertools.product(depths, widths, activations, skips, norms)]
    require(len(found) > 0, "at least one value of each attribute", "none")
    for architecture in found:
        _check(architecture)
    return found


def _check(architecture: Architecture) -> None:
    require(architecture.depth >= 1 and architecture.width >= 1, "depth and width of at least 1", architecture)
    require(architecture.activation in ("relu", "tanh"), "an activation out of relu, tanh", architecture.activation)
    require(architecture.norm in ("none", "layer"), "a norm out of none, layer", architecture.norm)


class MaskedMLP(nn.Module):
    r"""A fully connected network whose depth, activation, skips and norms are buffers.

    .. math:: h_{l+1} = h_l + m_l\bigl(s\,h_l + \phi(\nu(W_l h_l + b_l)) - h_l\bigr), \qquad m_l = 1[l < \mathrm{depth}]

    with :math:`s` the skip, :math:`\nu` the norm and :math:`\phi` the activation; the first layer has no skip.

    Args:
        inputs: Features, counted after flattening.
        architecture: The member's own choices.
        classes: Outputs.
        depth: Layers of the stack, at least the architecture's depth; layers beyond it are the identity.

    Shapes:
        ``[N, ...]`` to ``[N, classes]``.

    Raises:
        ValueError: For a bad architecture, or a stack that is too shallow.
    """

    present: Tensor
    smooth: Tensor
    skip: Tensor
    normed: Tensor

    def __init__(self, inputs: int, architecture: Architecture, classes: int, *, depth: int | None = None) -> None:
        super().__init__()
        _check(architecture)
        depth = architecture.depth if depth is None else depth
        require(depth >= architecture.depth, f"a stack of at least {architecture.depth} layers", depth)
        require(inputs >= 1 and classes >= 1, "at least one input and one class", (inputs, classes))
        sizes = [inputs] + [architecture.width] * depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.head = nn.Linear(architecture.width, classes)
        self.register_buffer("present", (torch.arange(depth) < architecture.depth).float())
        self.register_buffer("smooth", torch.tensor(float(architecture.activation == "tanh")))
        self.register_buffer("skip", torch.tensor(float(architecture.skip)))
        self.register_buffer("normed", torch.tensor(float(architecture.norm == "layer")))

    def forward(self, x: Float[Tensor, "N *features"]) -> Float[Tensor, "N classes"]:
        """Class scores."""
        h = x.flatten(1)
        features = self.layers[0].in_features
        require(h.shape[1] == features, f"{features} features", h.shape[1])
        for index, layer in enumerate(self.layers):
            z = layer(h)
            scale = torch.nn.functional.layer_norm(z, z.shape[-1:])
            z = z + self.normed * (scale - z)
            new = torch.where(self.smooth > 0, z.tanh(), z.relu())
            h = new if index == 0 else h + self.present[index] * (self.skip * h + new - h)
        return self.head(h)


def _next_member(features: int, plans: Iterator[Architecture], classes: int, depth: int) -> MaskedMLP:
    return MaskedMLP(features, next(plans), classes, depth=depth)


def train_population(
    architectures: Sequence[Architecture],
    inputs: Tensor,
    targets: Tensor,
    evaluate: Sequence[Tensor],
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    classes: int | None = None,
    **options: Any,
) -> Population:
    """Train every architecture with every seed, one batched run for each width.

    Args:
        architectures: The population.
        inputs: Training inputs ``[N, ...]``, shared.
        targets: Class indices ``[N]``.
        evaluate: Sets of inputs whose logits are wanted.
        seeds: Seeds of each architecture (initialisation and order of the data).
        epochs, batch_size, options: As :func:`netatlas.core.train.fit_many`.
        classes: Number of classes; default the largest label plus one.

    Returns:
        The logits, members ordered by architecture, then seed.

    Raises:
        ValueError: For no architecture, seed or input, labels that are not integers from 0 on or out of range, sets of
            other or NaN features, or as :func:`netatlas.core.train.fit_many`.
    """
    require(len(architectures) > 0 and len(seeds) > 0, "architectures and seeds", (len(architectures), len(seeds)))
    members = [(a, s) for a in architectures for s in seeds]
    require(len(inputs) == len(targets) > 0, "as many inputs as targets, at least one", (len(inputs), len(targets)))
    require(not targets.is_floating_point(), "integer labels", targets.dtype)
    low, high = int(targets.min()), int(targets.max())
    classes = high + 1 if classes is None else classes
    require(low >= 0 and high < classes, f"labels in [0, {classes})", (low, high))
    for x in evaluate:
        require(x.shape[1:] == inputs.shape[1:], f"inputs of shape {tuple(inputs.shape[1:])}", tuple(x.shape[1:]))
        require_finite("inputs to evaluate", x)
    features = inputs[0].numel()
    results: dict[int, list[Tensor]] = {}
    for width in sorted({a.width for a in architectures}):
        chosen = [i for i, (a, _) in enumerate(members) if a.width == width]
        depth = max(members[i][0].depth for i in chosen)
        plans = iter([members[i][0] for i in chosen])
        trained = fit_many(
            partial(_next_member, features, plans, classes, depth),
            inputs,
            targets,
            seeds=[members[i][1] for i in chosen],
            epochs=epochs,
            batch_size=batch_size,
            **options,
        )
        logits = [trained.predict(x.to(trained.params["head.weight"].device)) for x in evaluate]
        for place, i in enumerate(chosen):
            results[i] = [part[place] for part in logits]
    outputs = [torch.stack([results[i][k] for i in range(len(members))]) for k in range(len(evaluate))]
    return Population([a for a, _ in members], [s for _, s in members], outputs)


def kendall_tau(first: Float[Tensor, "*M n"], second: Float[Tensor, "*M n"]) -> Float[Tensor, "*M"]:
    r"""Kendall's rank correlation with correction for ties (tau-b), over the last axis of whole batches.

    .. math:: \tau_b = \frac{\sum_{i<j} \mathrm{sgn}(x_i - x_j)\,\mathrm{sgn}(y_i - y_j)}
        {\sqrt{\#\{i<j : x_i \ne x_j\}\;\#\{i<j : y_i \ne y_j\}}}

    Args:
        first, second: Values of ``n`` objects, at least two; batch axes broadcast.

    Returns:
        The correlations; NaN where one side is constant.

    Raises:
        ValueError: For fewer than two objects, numbers of objects that differ, or NaN.
    """
    require(first.ndim >= 1 and first.shape[-1] >= 2, "at least two objects", tuple(first.shape))
    objects = first.shape[-1]
    require(second.ndim >= 1 and second.shape[-1] == objects, f"{objects} objects", tuple(second.shape))
    require_finite("first", first)
    require_finite("second", second)
    a = (first[..., :, None] - first[..., None, :]).sign().double().flatten(-2)
    b = (second[..., :, None] - second[..., None, :]).sign().double().flatten(-2)
    return (a * b).sum(-1) / (a.abs().sum(-1) * b.abs().sum(-1)).sqrt()
