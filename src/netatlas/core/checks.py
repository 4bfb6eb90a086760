"""Refusals of bad input, in one voice: what was expected, what came."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def require(condition: bool, expected: str, got: object) -> None:
    """Raise ``ValueError("expected ..., got ...")`` unless ``condition`` holds.

    Args:
        condition: What must be true of the input.
        expected: What was expected, in words.
        got: What came instead; shown as it prints.

    Raises:
        ValueError: If ``condition`` is false.
    """
    if not condition:
        raise ValueError(f"expected {expected}, got {got}")


def require_finite(name: str, values: Tensor | np.ndarray) -> None:
    """Raise ``ValueError`` if ``values`` holds a NaN or an infinity.

    Args:
        name: The argument's name, for the message.
        values: Any array or tensor; tensors on the ``meta`` device have no values and pass.

    Raises:
        ValueError: Naming the argument and how many entries are not finite.
    """
    if isinstance(values, Tensor):
        if values.device.type == "meta" or not values.is_floating_point():
            return
        bad = int((~torch.isfinite(values)).sum())
    else:
        array = np.asarray(values)
        if not np.issubdtype(array.dtype, np.floating):
            return
        bad = int((~np.isfinite(array)).sum())
    require(bad == 0, f"finite values in {name}", f"{bad} entries that are NaN or infinite")


def require_same_device(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise ``ValueError`` if named tensors live on different devices.

    Args:
        tensors: Pairs of an argument's name and its tensor.

    Raises:
        ValueError: Naming each argument with its device.
    """
    places = {name: str(tensor.device) for name, tensor in tensors}
    require(len(set(places.values())) <= 1, "all tensors on one device", places)
