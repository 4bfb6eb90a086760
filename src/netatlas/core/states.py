"""Network states: dictionaries from parameter names to tensors, and what every merging method asks of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def check_states(states: Sequence[State], *, same_shapes: bool = True, least: int = 1) -> None:
    """Refuse states that cannot be merged.

    Args:
        states: the networks.
        same_shapes: also ask for equal shapes, parameter by parameter.
        least: the smallest number of networks accepted.

    Raises:
        ValueError: too few networks; different names, devices or (if asked) shapes; integer or non-finite entries.
    """
    if isinstance(states, Mapping) or not isinstance(states, Iterable):
        raise ValueError(f"expected a sequence of states (dicts of tensors), got {type(states).__name__}")
    if len(states) < least:
        raise ValueError(f"expected at least {least} networks, got {len(states)}")
    first = states[0]
    if len(first) == 0:
        raise ValueError("expected states with parameters, got an empty state")
    for number, state in enumerate(states):
        if set(state) != set(first):
            raise ValueError(f"network {number} has other parameter names: {sorted(set(state) ^ set(first))}")
        for name, value in state.items():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise ValueError(f"expected a floating-point tensor for {name!r} of network {number}")
            if value.device != first[name].device:
                raise ValueError(f"{name!r} lies on {value.device} in network {number}, on {first[name].device} in 0")
            if same_shapes and value.shape != first[name].shape:
                raise ValueError(
                    f"{name!r} has shape {tuple(value.shape)} in network {number}, {tuple(first[name].shape)} in 0"
                )
            check_finite(value, f"{name!r} of network {number}")


def check_finite(value: Tensor, name: str) -> None:
    """Raise ``ValueError`` where ``value`` holds NaN or infinity (tensors on the meta device hold nothing)."""
    if value.is_meta or value.numel() == 0:
        return
    # Extremes carry NaN and infinity along and need no mask as large as the tensor.
    if not all(math.isfinite(extreme) for extreme in torch.aminmax(value.detach())):
        raise ValueError(f"expected finite entries in {name}, got NaN or infinity")


def member(params: State, index: int) -> dict[str, Tensor]:
    """State of one network out of a stack whose tensors lead with the member axis."""
    return {name: value[index] for name, value in params.items()}


def stack(states: Sequence[State]) -> dict[str, Tensor]:
    """Stack equal-shaped states along a new leading member axis, the form :mod:`netatlas.core.train` trains."""
    check_states(states)
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def parameter_distance(a: State, b: State, *, member_axis: bool = False) -> Tensor:
    r"""Euclidean distance :math:`\lVert\theta_a-\theta_b\rVert_2` over all parameters.

    Args:
        a, b: states of equal shapes.
        member_axis: the tensors lead with a member axis of length M; one distance a member.

    Returns:
        Scalar tensor, or ``[M]``.

    Raises:
        ValueError: the states do not correspond.
    """
    check_states([a, b])
    start = 1 if member_axis else 0
    squares = [((a[name] - b[name]) ** 2).flatten(start).sum(-1) for name in a]
    return torch.stack(squares).sum(0).sqrt()
