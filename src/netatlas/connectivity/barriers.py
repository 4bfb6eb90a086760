r"""Linear mode connectivity, whole and layer by layer: what the loss does between two trained networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.checks import require
from netatlas.core.nn import MLP
from netatlas.core.states import check_states

Stack = Mapping[str, Tensor]
Groups = dict[str, list[str]]


class Path(NamedTuple):
    r"""Losses and errors on the straight line between pairs of networks.

    Attributes:
        shares: Where on the line, from the first network (0) to the second (1).
        loss: Mean loss, ``[shares, M]``.
        error: Share of wrong answers, ``[shares, M]``.
    """

    shares: Tensor
    loss: Tensor
    error: Tensor


def layer_groups(names: Sequence[str]) -> Groups:
    """Parameters by layer: all names with the same module in front belong together, in order of appearance.

    Args:
        names: Parameter names such as ``layers.0.weight``.

    Raises:
        ValueError: For no names.
    """
    require(len(names) > 0, "at least one parameter name", 0)
    groups: Groups = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return groups


def interpolate_parameters(
    first: Stack, second: Stack, share: float | Tensor, *, only: Sequence[str] | None = None
) -> dict[str, Tensor]:
    r"""The point :math:`(1-\alpha)\,\theta_1 + \alpha\,\theta_2`, in all parameters or in some.

    Args:
        first, second: Networks, ``[M, ...]`` or plain, of the same shapes.
        share: :math:`\alpha`, a number or one a member.
        only: Names to be moved; default: all.

    Returns:
        The point; parameters that are not moved are those of ``first``.

    Raises:
        ValueError: For networks that do not correspond or an unknown name.

    Source:
        adilova2023layerwise.
    """
    check_states([first, second])
    moved = set(first) if only is None else set(only)
    require(moved <= set(first), f"names out of {sorted(first)}", sorted(moved - set(first)))
    weight = torch.as_tensor(share)

    def point(a: Tensor, b: Tensor) -> Tensor:
        w = weight.to(a).reshape(weight.shape + (1,) * (a.ndim - weight.ndim))
        return a + w * (b - a)

    return {name: point(first[name], second[name]) if name in moved else first[name] for name in first}


@torch.no_grad()
def evaluate_points(
    module: nn.Module, points: Stack, inputs: Tensor, targets: Tensor, *, batch_size: int = 1024
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"]]:
    """Mean cross-entropy and share of wrong answers of many networks at once.

    Args:
        module: The architecture.
        points: Parameters, ``[P, ...]`` each.
        inputs, targets: Examples ``[N, ...]`` and labels ``[N]``, shared by all.
        batch_size: Examples at once.

    Returns:
        Losses and errors, ``[P]`` each, in double precision.

    Raises:
        ValueError: For no examples, or as many labels as examples are not there.
    """
    _check_examples(inputs, targets)
    call = vmap(lambda p, x: functional_call(module, p, (x,)), in_dims=(0, None))
    loss: Tensor | float = 0.0
    wrong: Tensor | float = 0.0
    for x, y in zip(inputs.split(batch_size), targets.split(batch_size)):
        logits = call(dict(points), x)
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), y.repeat(len(logits)), reduction="none")
        loss = loss + each.reshape(len(logits), -1).sum(1)
        wrong = wrong + (logits.argmax(-1) != y).double().sum(1)
    assert isinstance(loss, Tensor) and isinstance(wrong, Tensor)
    return loss / len(inputs), wrong / len(inputs)


def stack_points(points: Sequence[Stack]) -> dict[str, Tensor]:
    """Many stacks of M networks as one stack of ``len(points) * M``."""
    require(len(points) > 0, "at least one point", 0)
    return {name: torch.cat([point[name] for point in points]) for name in points[0]}


def linear_path(
    module: nn.Module, first: Stack, second: Stack, inputs: Tensor, targets: Tensor, *, shares: Sequence[float]
) -> Path:
    """Losses and errors on the line between pairs of networks, all points in one batch.

    Args:
        module: The architecture.
        first, second: Pairs of networks, ``[M, ...]`` each.
        inputs, targets: Labelled examples.
        shares: Where to evaluate.

    Raises:
        ValueError: For no shares, or networks that do not correspond.
    """
    require(len(shares) > 0, "at least one share", 0)
    points: list[Stack] = [interpolate_parameters(first, second, share) for share in shares]
    loss, error = _measured(module, points, inputs, targets, len(next(iter(first.values()))))
    return Path(torch.tensor(list(shares), dtype=torch.float64), loss, error)


def linear_barrier(path: Path, *, measure: str = "loss") -> Float[Tensor, " M"]:
    r"""How far the line rises above the straight line between the values at its ends.

    .. math:: B = \max_\alpha \bigl[ L(\theta_\alpha) - (1-\alpha) L(\theta_1) - \alpha L(\theta_2) \bigr]

    Args:
        path: As :func:`linear_path` gives it, from share 0 to share 1.
        measure: ``"loss"`` or ``"error"``.

    Returns:
        One barrier a pair, over the interior points: negative where the line sags everywhere.

    Raises:
        ValueError: For an unknown measure, or a path without both ends and a point between.

    Source:
        singh2024landscaping.
    """
    require(measure in ("loss", "error"), "a measure out of loss, error", repr(measure))
    ends = len(path.shares) >= 3 and float(path.shares[0]) == 0 and float(path.shares[-1]) == 1
    require(ends, "shares from 0 to 1 with a point between", path.shares.tolist())
    values = path.loss if measure == "loss" else path.error
    a = path.shares.to(values)[:, None]
    return (values - (1 - a) * values[0] - a * values[-1])[1:-1].max(0).values


def _chain_logits(module: MLP, points: Sequence[Stack], x: Tensor) -> Tensor:
    """Outputs ``[P, M, classes, N]`` of points that may share their first layers, each shared part computed once.

    Points share a layer if they hold the very same tensors in it and in all layers before.
    """
    z: Tensor | None = None
    reads = [0] * len(points)
    for number in range(len(module.layers)):
        names = [n for n in (f"layers.{number}.weight", f"layers.{number}.bias") if n in points[0]]
        places: dict[tuple[int, ...], int] = {}
        owners: list[int] = []
        for index, point in enumerate(points):
            key = (reads[index], *(id(point[name]) for name in names))
            if key not in places:
                places[key] = len(owners)
                owners.append(index)
        before = torch.tensor([reads[index] for index in owners], device=x.device)
        reads = [places[(reads[i], *(id(point[name]) for name in names))] for i, point in enumerate(points)]
        weight = torch.stack([points[index][names[0]] for index in owners])
        if z is None:
            z = (weight.flatten(0, 2) @ x.flatten(1).T).unflatten(0, weight.shape[:3])
        else:
            z = weight @ module.activation(z)[before]
        if len(names) == 2:
            z = z + torch.stack([points[index][names[1]] for index in owners])[..., None]
    assert z is not None
    return z[torch.tensor(reads, device=x.device)]


@torch.no_grad()
def _measured(module: nn.Module, points: list[Stack], x: Tensor, y: Tensor, members: int) -> tuple[Tensor, Tensor]:
    """Losses and errors ``[P, M]`` of many stacks, on the CPU."""
    if type(module) is not MLP:
        loss, error = evaluate_points(module, stack_points(points), x, y)
        return loss.reshape(-1, members).cpu(), error.reshape(-1, members).cpu()
    _check_examples(x, y)
    total = wrong = torch.zeros(len(points), members, dtype=torch.float64, device=x.device)
    for rows, labels in zip(x.split(1024), y.split(1024)):
        logits = _chain_logits(module, points, rows).double()
        right = logits.gather(2, labels.expand(*logits.shape[:2], 1, -1))[:, :, 0]
        total = total + (logits.logsumexp(2) - right).sum(2)
        wrong = wrong + (logits.argmax(2) != labels).double().sum(2)
    return total.cpu() / len(x), wrong.cpu() / len(x)


def _check_examples(inputs: Tensor, targets: Tensor) -> None:
    require(len(inputs) > 0 and len(inputs) == len(targets), "as many labels as examples, at least one",
            (len(inputs), len(targets)))  # fmt: skip


class LayerBarriers(NamedTuple):
    """Barriers of single layers, ``[sides, layers, M]`` in loss and in error; the full barrier at one half ``[M]``."""

    layers: list[str]
    loss: Tensor
    error: Tensor
    full: Tensor
    full_error: Tensor
    ends: Tensor


def layerwise_barrier(
    module: nn.Module,
    first: Stack,
    second: Stack,
    inputs: Tensor,
    targets: Tensor,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> LayerBarriers:
    r"""Barriers of averaging one layer (or group) and leaving all others as they are.

    .. math::

        B_S^{(1)} = L\bigl(\theta_1 \text{ with } S \text{ at } \tfrac12(\theta_1+\theta_2)\bigr)
                    - \tfrac12\bigl(L(\theta_1) + L(\theta_2)\bigr)

    and :math:`B_S^{(2)}` likewise inside the second network. The end points are the two original networks.

    Args:
        module: The architecture.
        first, second: Pairs of networks, ``[M, ...]`` each.
        inputs, targets: Labelled examples.
        groups: Layers by name; default: :func:`layer_groups`.

    Raises:
        ValueError: For networks that do not correspond or an unknown name.

    Source:
        adilova2023layerwise.
    """
    groups = layer_groups(list(first)) if groups is None else groups
    members = len(next(iter(first.values())))
    sides = ((first, second), (second, first))
    points: list[Stack] = [first, second, interpolate_parameters(first, second, 0.5)]
    points += [interpolate_parameters(a, b, 0.5, only=names) for a, b in sides for names in groups.values()]
    loss, error = _measured(module, points, inputs, targets, members)
    shape = (2, len(groups), members)
    level, wrong = loss[:2].mean(0), error[:2].mean(0)
    return LayerBarriers(
        list(groups),
        loss[3:].reshape(shape) - level,
        error[3:].reshape(shape) - wrong,
        loss[2] - level,
        error[2] - wrong,
        loss[:2],
    )


def cumulative_barrier(
    module: nn.Module,
    first: Stack,
    second: Stack,
    inputs: Tensor,
    targets: Tensor,
    *,
    order: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Float[Tensor, "layers+1 M"]:
    r"""Barriers of averaging a growing set of layers inside the first network.

    Args:
        module: The architecture.
        first, second: Pairs of networks, ``[M, ...]`` each.
        inputs, targets: Labelled examples.
        order: Layers in the order in which they join, each once.
        groups: Layers by name; default: :func:`layer_groups`.

    Returns:
        Entry ``k`` averages the first ``k`` layers: the first entry is half the difference of the end losses, the last
        the full barrier.

    Raises:
        ValueError: For an order that is no list of the layers.

    Source:
        adilova2023layerwise.
    """
    groups = layer_groups(list(first)) if groups is None else groups
    require(sorted(order) == sorted(groups), f"every layer of {sorted(groups)} once", list(order))
    joined = [[name for layer in order[:k] for name in groups[layer]] for k in range(len(order) + 1)]
    points: list[Stack] = [second, *(interpolate_parameters(first, second, 0.5, only=names) for names in joined)]
    loss, _ = _measured(module, points, inputs, targets, len(next(iter(first.values()))))
    return loss[1:] - (loss[0] + loss[1]) / 2


def _norms(first: Stack, second: Stack, names: Sequence[str]) -> Tensor:
    return torch.stack([(second[n] - first[n]).flatten(1).square().sum(1) for n in names]).sum(0).sqrt()


def random_direction_control(
    module: nn.Module,
    first: Stack,
    second: Stack,
    inputs: Tensor,
    targets: Tensor,
    *,
    draws: int = 5,
    seed: int = 0,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Float[Tensor, "sides layers M"]:
    r"""The control of a layer-wise barrier: as far, in the same layer, in a random direction.

    .. math:: L\bigl(\theta_1 + \tfrac12\lVert\theta_2[S]-\theta_1[S]\rVert\, u\bigr)
              - \tfrac12\bigl(L(\theta_1)+L(\theta_2)\bigr)

    with :math:`u` uniform on the unit sphere of :math:`S`, averaged over draws.

    Args:
        module: The architecture.
        first, second: Pairs of networks, ``[M, ...]`` each.
        inputs, targets: Labelled examples.
        draws: Directions a layer.
        seed: Seeds the directions.
        groups: Layers by name; default: :func:`layer_groups`.

    Raises:
        ValueError: For fewer than one draw.

    Source:
        adilova2023layerwise.
    """
    require(draws >= 1, "at least one draw", draws)
    groups = layer_groups(list(first)) if groups is None else groups
    members = len(next(iter(first.values())))
    generator = torch.Generator().manual_seed(seed)
    points: list[Stack] = [first, second]
    for a in (first, second):
        for names in groups.values():
            radius = _norms(first, second, names) / 2
            for _ in range(draws):
                noise = {n: torch.randn(a[n].shape, generator=generator).to(a[n]) for n in names}
                length = torch.stack([v.flatten(1).square().sum(1) for v in noise.values()]).sum(0).sqrt()
                factor = radius / length
                points.append(
                    dict(a) | {n: a[n] + v * factor.reshape((-1,) + (1,) * (v.ndim - 1)) for n, v in noise.items()}
                )
    loss, _ = _measured(module, points, inputs, targets, members)
    return loss[2:].reshape(2, len(groups), draws, members).mean(2) - loss[:2].mean(0)


def joint_direction_control(
    module: nn.Module,
    first: Stack,
    second: Stack,
    inputs: Tensor,
    targets: Tensor,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Float[Tensor, "sides layers M"]:
    r"""The control of a layer-wise barrier: as far as the layer moves, but along the line of *all* layers.

    .. math:: \alpha_S = \frac{\lVert\theta_2[S]-\theta_1[S]\rVert}{2\,\lVert\theta_2-\theta_1\rVert},\qquad
              L(\theta_{\alpha_S}) - \tfrac12\bigl(L(\theta_1)+L(\theta_2)\bigr)

    A layer is only a part of the displacement, so a small layer-wise barrier is partly bookkeeping. This control takes
    that part out. Equal networks have :math:`\alpha_S = 0`.

    Args:
        module: The architecture.
        first, second: Pairs of networks, ``[M, ...]`` each.
        inputs, targets: Labelled examples.
        groups: Layers by name; default: :func:`layer_groups`.

    Source:
        Own control beside adilova2023layerwise.
    """
    groups = layer_groups(list(first)) if groups is None else groups
    total = _norms(first, second, list(first)).clamp_min(1e-30)
    points: list[Stack] = [first, second]
    for a, b in ((first, second), (second, first)):
        points += [interpolate_parameters(a, b, _norms(first, second, n) / (2 * total)) for n in groups.values()]
    members = len(total)
    loss, _ = _measured(module, points, inputs, targets, members)
    return loss[2:].reshape(2, len(groups), members) - loss[:2].mean(0)


def segment_barrier(
    module: nn.Module,
    first: Stack,
    second: Stack,
    inputs: Tensor,
    targets: Tensor,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Float[Tensor, "layers M"]:
    r"""The other sense of a layer's barrier: along the segment in that layer alone, against the ends *of the segment*.

    .. math:: L\bigl(\theta_1 \text{ with } S \text{ half way}\bigr) - \tfrac12\Bigl(L(\theta_1)
              + L\bigl(\theta_1 \text{ with } S \text{ of } \theta_2\bigr)\Bigr)

    It is at most 0 wherever the loss is convex in the layer: always for the last one, and for every layer of a linear
    network with squared loss.

    Args:
        module: The architecture.
        first, second: Pairs of networks, ``[M, ...]`` each.
        inputs, targets: Labelled examples.
        groups: Layers by name; default: :func:`layer_groups`.

    Source:
        adilova2023layerwise.
    """
    groups = layer_groups(list(first)) if groups is None else groups
    points: list[Stack] = [first]
    points += [interpolate_parameters(first, second, s, only=n) for n in groups.values() for s in (0.5, 1.0)]
    loss, _ = _measured(module, points, inputs, targets, len(next(iter(first.values()))))
    middle, end = loss[1::2], loss[2::2]
    return middle - (loss[0] + end) / 2
