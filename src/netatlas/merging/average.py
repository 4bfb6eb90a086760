"""Averages of weights and of predictions: the plain merge, the path between two networks, and the ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.states import State, check_finite, check_states


def check_coefficients(coefficients: Sequence[float] | Tensor | None, models: int) -> list[float]:
    """Coefficients as a list of ``models`` non-negative numbers with sum one; ``None`` means equal shares.

    Raises:
        ValueError: wrong number, a negative or non-finite entry, or a sum that is not positive.
    """
    if coefficients is None:
        return [1.0 / models] * models
    values = [float(value) for value in coefficients]
    if len(values) != models:
        raise ValueError(f"expected {models} coefficients, one a network, got {len(values)}")
    if any(not 0 <= value < float("inf") for value in values):
        raise ValueError(f"expected non-negative finite coefficients, got {values}")
    total = sum(values)
    if total <= 0:
        raise ValueError("expected coefficients with a positive sum, got zero")
    return [value / total for value in values]


def average_weights(states: Sequence[State], coefficients: Sequence[float] | Tensor | None = None) -> dict[str, Tensor]:
    r"""Average of networks, parameter by parameter (the isotropic merge).

    .. math:: \theta = \sum_i \lambda_i\,\theta_i,\qquad \lambda_i \ge 0,\ \sum_i \lambda_i = 1

    Args:
        states: K networks with equal names and shapes; any leading axes (members, seeds) are carried along.
        coefficients: K non-negative numbers, scaled to sum one; default equal.

    Returns:
        The merged state, shapes as given.

    Raises:
        ValueError: states that do not correspond, or invalid coefficients.

    Source:
        matena2021fisher, eq. (1); the "vanilla average" of singh2020otfusion.
    """
    check_states(states)
    shares = check_coefficients(coefficients, len(states))
    merged = {}
    for name in states[0]:
        total = shares[0] * states[0][name]
        for share, state in zip(shares[1:], states[1:]):
            total = torch.add(total, state[name], alpha=share)
        merged[name] = total
    return merged


def prediction_ensemble(
    logits: Float[Tensor, "models *batch classes"], coefficients: Sequence[float] | Tensor | None = None
) -> Float[Tensor, "*batch classes"]:
    r"""Average of the networks' predicted probabilities: the reference that costs K networks at inference.

    .. math:: p(y\mid x) = \sum_i \lambda_i \operatorname{softmax}(f_i(x))_y

    Args:
        logits: outputs of K networks, the networks first, the classes last.
        coefficients: K non-negative numbers, scaled to sum one; default equal.

    Returns:
        Probabilities, without the model axis.

    Raises:
        ValueError: fewer than two axes, non-finite logits, invalid coefficients.
    """
    if logits.ndim < 2:
        raise ValueError(f"expected logits of shape [models, ..., classes], got {tuple(logits.shape)}")
    check_finite(logits, "logits")
    shares = logits.new_tensor(check_coefficients(coefficients, len(logits)))
    return torch.tensordot(shares, logits.softmax(-1), dims=1)
