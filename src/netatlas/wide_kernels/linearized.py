r"""Gradient descent in function space: the linear dynamics of the tangent kernel, and wide networks that follow it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.infinite import Dense, FiniteLinear, Layer, Relu, Serial, serial

Params = dict[str, Tensor]


def tangent_mlp(
    width: int, hidden: int, outputs: int = 1, *, bias: float = 0.1, gain: float = 2**0.5, mean_field: bool = False
) -> Serial:
    r"""A ReLU network in NTK parametrization, gain :math:`\sqrt 2` after the first layer.

    Args:
        width: Units of each hidden layer.
        hidden: Hidden layers, at least 1.
        outputs: Outputs.
        bias: The factor :math:`\beta` in front of biases.
        gain: Gain of the layers after the first; the paper's ReLU has 1, and its kernel halves with every layer.
        mean_field: Divide the output by a further :math:`\sqrt n`: with learning rates ``n`` times as large, features
            then keep moving at every width.

    Raises:
        ValueError: For no hidden layer.
    """
    require(hidden >= 1, "at least one hidden layer", hidden)
    layers: list[Layer] = [Dense(width, 1.0, bias), Relu()]
    for _ in range(hidden - 1):
        layers += [Dense(width, gain, bias), Relu()]
    shrink = width**-0.5 if mean_field else 1.0
    return serial(*layers, Dense(outputs, gain * shrink, bias * shrink))


def linearized_outputs(
    gram: Float[Tensor, "n n"],
    cross: Float[Tensor, "m n"],
    targets: Float[Tensor, "n C"],
    start_train: Float[Tensor, "*members n C"],
    start_test: Float[Tensor, "*members m C"],
    *,
    learning_rate: float,
    steps: int,
) -> Float[Tensor, "*members m C"]:
    r"""Outputs of the linearised network after full-batch gradient descent on :math:`\frac1{2N}\sum (f - y)^2`.

    .. math:: f_k(x) = f_0(x) + \Theta(x, X)\,\Theta^{-1}\bigl(I - (I - \tfrac{\eta}{N}\Theta)^k\bigr)(y - f_0(X))

    Directions of eigenvalue zero are not learned; the limit :math:`\frac{1 - (1 - \eta w/N)^k}{w} \to \eta k / N` is
    used
    there, so that singular Gram matrices (duplicated points) need no ridge.

    Args:
        gram: Tangent kernel of the training points.
        cross: Of test against training points.
        targets: Targets.
        start_train: Outputs at initialisation on the training points.
        start_test: The same on the test points.
        learning_rate: :math:`\eta`.
        steps: :math:`k`.

    Raises:
        ValueError: For a learning rate at which the dynamics diverges, or NaN.

    Source:
        jacot2018ntk (kernel gradient descent with the squared loss).
    """
    for name, values in (("gram", gram), ("cross", cross), ("targets", targets)):
        require_finite(name, values)
    n = len(gram)
    w, e = torch.linalg.eigh((gram + gram.mT) / 2)
    require(float(w[-1]) * learning_rate / n < 2, f"a learning rate below {2 * n / float(w[-1]):.3g}", learning_rate)
    w = w.clamp_min(0)
    decay = (1 - learning_rate * w / n) ** steps
    small = w < 1e-13 * w[-1]
    factor = torch.where(small, learning_rate * steps / n, (1 - decay) / torch.where(small, 1, w))
    change = (e * factor) @ (e.mT @ (targets - start_train))
    return start_test + cross @ change


class Descent(NamedTuple):
    """Trained parameters and the outputs on the training points before each step and at the end."""

    params: Params
    outputs: Float[Tensor, "steps1 members n C"]


def descend(
    net: Layer,
    params: Params,
    inputs: Float[Tensor, "n d"],
    targets: Float[Tensor, "*members n C"],
    *,
    learning_rate: float | Float[Tensor, " members"],
    steps: int,
    stop: float = 0.0,
    activation: Callable[[Tensor], Tensor] = torch.relu,
    slope: Callable[[Tensor], Tensor] = lambda z: (z > 0).to(z.dtype),
) -> Descent:
    r"""Full-batch gradient descent on :math:`\frac1{2N}\sum (f - y)^2` for many members of a dense network at once.

    Gradients of a layer have rank ``n``: each step reads every weight matrix twice and updates it in place by a product
    of thin matrices, and that is all.

    Args:
        net: Dense layers with one activation between them.
        params: Stacked parameters, from ``net.init(shape, seeds)``; not changed.
        inputs: Training inputs.
        targets: Targets, shared or one set a member.
        learning_rate: One for all, or one a member.
        steps: Steps.
        stop: Members whose mean squared error is below this stop moving.
        activation: The activation of the network.
        slope: Its derivative.

    Raises:
        ValueError: For a network of other layers, parameters that are not stacked, or steps below 1.

    Source:
        jacot2018ntk (principal components).
    """
    require(steps >= 1, "at least one step", steps)
    skeleton = net.build((inputs.shape[1],), None, device="meta")
    layers = [(name, la) for name, la in skeleton.named_children() if isinstance(la, FiniteLinear)]
    require(2 * len(layers) - 1 == len(list(skeleton.children())), "dense layers with activations between", skeleton)
    state = {name: value.clone() for name, value in params.items()}
    members = len(state[f"{layers[0][0]}.weight"])
    require(state[f"{layers[0][0]}.weight"].ndim == 3, "stacked parameters", state[f"{layers[0][0]}.weight"].shape)
    x = inputs.expand(members, *inputs.shape)
    rate = torch.as_tensor(learning_rate, dtype=inputs.dtype).expand(members)[:, None, None] / len(inputs)
    trace = []
    for step in range(steps + 1):
        values, pre = [x], []
        for number, (name, la) in enumerate(layers):
            z = torch.bmm(values[-1], state[f"{name}.weight"].mT).mul_(la.weight_scale)
            if la.bias is not None:
                z.add_(state[f"{name}.bias"][:, None], alpha=la.bias_scale)
            pre.append(z)
            if number + 1 < len(layers):
                values.append(activation(z))
        trace.append(pre[-1])
        if step == steps:
            break
        delta = (pre[-1] - targets) * rate
        if stop:
            delta = delta * ((pre[-1] - targets).square().mean((1, 2), keepdim=True) > stop)
            if not bool(delta.any()):
                break
        for number in range(len(layers) - 1, -1, -1):
            name, la = layers[number]
            weight = state[f"{name}.weight"]
            back = torch.bmm(delta, weight).mul_(la.weight_scale) if number else None
            weight.baddbmm_(delta.mT, values[number], alpha=-la.weight_scale)
            if la.bias is not None:
                state[f"{name}.bias"].sub_(delta.sum(1), alpha=la.bias_scale)
            if back is not None:
                delta = back.mul_(slope(pre[number - 1]))
    return Descent(state, torch.stack(trace))


def circle(angles: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    r"""Points of the unit circle, :math:`(\cos\gamma, \sin\gamma)`.

    Args:
        angles: Angles in radians.
    """
    return torch.stack([torch.cos(angles), torch.sin(angles)], -1)


def equispaced(count: int) -> Float[Tensor, "count 2"]:
    """Equispaced points of the unit circle.

    Args:
        count: How many.
    """
    return circle(torch.arange(count, dtype=torch.float64) * (2 * math.pi / count))
