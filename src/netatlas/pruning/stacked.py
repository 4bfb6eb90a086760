"""Many masked networks of one shape, trained at once through :func:`netatlas.core.train.minimize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.nn import MLP
from netatlas.core.sparsity import apply_masks
from netatlas.core.train import Params, batch_order, minimize, stack_members

MaskRule = Callable[[int, Params, Mapping[str, Tensor] | None], Mapping[str, Tensor]]
MemberLoss = Callable[[Params, Tensor, Tensor, Tensor], Tensor]


def initial_parameters(widths: Sequence[int], seeds: Sequence[int], *, bias: bool = True) -> Params:
    """Stacked initial parameters of one MLP a seed.

    Args:
        widths: Input, hidden and output widths.
        seeds: One a member.
        bias: Whether layers have biases.
    """
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(MLP(widths, bias=bias))
    return stack_members(modules)[0]


def layer_count(params: Mapping[str, Tensor]) -> int:
    """Layers of a stacked MLP."""
    return sum(name.startswith("layers.") and name.endswith("weight") for name in params)


def weight_names(params: Mapping[str, Tensor]) -> list[str]:
    """Names of the weight matrices, in order of depth."""
    return [f"layers.{i}.weight" for i in range(layer_count(params))]


def stacked_layers(
    params: Mapping[str, Float[Tensor, "members out in"]], x: Float[Tensor, "..."]
) -> list[Float[Tensor, "members examples out"]]:
    """Outputs of every layer of every member: ReLU applied in hidden layers, the last one linear.

    Args:
        params: Stacked parameters of MLPs.
        x: ``[N, features]`` for all members, or ``[M, N, features]``.
    """
    depth, found = layer_count(params), []
    for i in range(depth):
        weight, bias = params[f"layers.{i}.weight"], params.get(f"layers.{i}.bias")
        x = (
            x @ weight.mT
            if bias is None
            else torch.baddbmm(bias[:, None], x if x.ndim == 3 else x.expand(len(weight), -1, -1), weight.mT)
        )
        x = x.relu() if i + 1 < depth else x
        found.append(x)
    return found


def stacked_logits(params: Mapping[str, Tensor], x: Tensor) -> Float[Tensor, "members examples classes"]:
    """Outputs of every member; arguments as :func:`stacked_layers`."""
    return stacked_layers(params, x)[-1]


def member_cross_entropy(
    logits: Float[Tensor, "members examples classes"], labels: Tensor
) -> Float[Tensor, " members"]:
    """Mean cross-entropy of every member; labels ``[N]`` or ``[M, N]``."""
    members, count, classes = logits.shape
    labels = labels.expand(members, count)
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), reduction="none")
    return loss.reshape(members, count).mean(1)


@torch.no_grad()
def stacked_accuracy(params: Mapping[str, Tensor], x: Tensor, labels: Tensor) -> Float[Tensor, " members"]:
    """Accuracy of every member."""
    return (stacked_logits(params, x).argmax(-1) == labels).double().mean(-1)


def with_gradient(value: Tensor, params: Params, gradients: Mapping[str, Tensor]) -> Tensor:
    r"""A loss of the given value whose gradient is the given one: :math:`L + \sum_i g_i (w_i - \mathrm{sg}(w_i))`.

    It lets any update rule of the form :math:`w \leftarrow w - \eta g` run in the common training loop.

    Args:
        value: ``[M]`` losses; only their value is used.
        params: Stacked parameters that are differentiated.
        gradients: The gradients wanted, by name.
    """
    linear = sum((g.detach() * (params[n] - params[n].detach())).flatten(1).sum(1) for n, g in gradients.items())
    return value.detach() + linear


def train_stacked(
    params: Params,
    inputs: Tensor,
    targets: Tensor,
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    lr: float | Sequence[float] | Tensor,
    masks: Mapping[str, Tensor] | MaskRule | None = None,
    loss: MemberLoss | None = None,
    interval: int = 1,
    **options: Any,
) -> tuple[Params, dict[str, Tensor]]:
    """Train stacked MLPs whose masked weights are zero in every forward pass and after every step.

    Args:
        params: Stacked parameters.
        inputs: ``[N, features]``.
        targets: ``[N]`` labels.
        seeds: Order of the batches, one a member.
        epochs: Passes over the data.
        batch_size: Examples a step.
        lr: One rate, or one a member.
        masks: Fixed masks, or a rule ``masks(step, params, previous)`` that is asked every ``interval`` steps.
        loss: ``loss(params, x, y, index)`` with ``index [M, B]`` of the examples; ``[M]``. Default: cross-entropy.
        interval: Steps between two masks of a rule.
        options: Of :func:`netatlas.core.train.minimize` (optimizer, momentum, schedule, weight_decay).

    Returns:
        The parameters with masks applied, and the last masks.

    Raises:
        ValueError: For other numbers of seeds than members, or no examples.
    """
    members = len(next(iter(params.values())))
    require(len(seeds) == members, f"{members} seeds, one a member", len(seeds))
    require(len(inputs) > 0 and len(inputs) == len(targets), "as many targets as examples", (len(inputs), len(targets)))
    order = torch.stack([batch_order(seed, len(inputs), epochs) for seed in seeds], 1).to(inputs.device)
    per_epoch = -(-len(inputs) // batch_size)
    current: dict[str, Tensor] = dict(masks) if isinstance(masks, Mapping) else {}

    def step_loss(p: Params, step: int, _: torch.Generator) -> Tensor:
        nonlocal current
        if callable(masks) and step % interval == 0:
            detached = {n: v.detach() for n, v in p.items()}
            current = dict(masks(step, detached, current or None))
        effective = apply_masks(p, current)
        epoch, batch = divmod(step, per_epoch)
        index = order[epoch, :, batch * batch_size : (batch + 1) * batch_size]
        x, y = inputs[index], targets[index]
        return member_cross_entropy(stacked_logits(effective, x), y) if loss is None else loss(effective, x, y, index)

    options = {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine"} | options
    steps = epochs * per_epoch
    params, _ = minimize(step_loss, params, steps=steps, lr=lr, **options)
    if callable(masks):
        current = dict(masks(steps, params, current or None))
    return apply_masks(params, current), current
