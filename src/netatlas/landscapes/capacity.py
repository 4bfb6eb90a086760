"""Effective model complexity: the largest training set that a network, trained from scratch, fits without an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.checks import require, require_finite
from netatlas.core.curvature import Params, extreme_eigenvalues, hessian_operator
from netatlas.core.train import Optimizer, minimize, stack_members


class StridedConvNet(nn.Module):
    """Two 3 x 3 convolutions of stride 2 with ReLU and a linear head, as products with banded matrices.

    Each kernel's weights are laid out once a step as the matrix of its convolution. For images of a few pixels, in a
    stack of members, that is one batched product a layer, which a grouped convolution is not.

    Args:
        side: Height and width of the images, with one channel.
        channels: Output channels of both convolutions.
        classes: Number of outputs.

    Shapes:
        ``[N, 1, side, side]`` or ``[N, side^2]`` to ``[N, classes]``.

    Raises:
        ValueError: For sizes below 1.
    """

    first_index: Tensor
    second_index: Tensor

    def __init__(self, side: int = 8, channels: tuple[int, int] = (6, 8), classes: int = 10) -> None:
        super().__init__()
        require(min(side, *channels, classes) >= 1, "sizes of at least 1", (side, channels, classes))
        half = (side + 1) // 2
        quarter = (half + 1) // 2
        self.first, self.second = nn.Linear(9, channels[0]), nn.Linear(9 * channels[0], channels[1])
        self.head = nn.Linear(quarter**2 * channels[1], classes)
        self.register_buffer("first_index", _banded(side, 1, channels[0]))
        self.register_buffer("second_index", _banded(half, *channels))

    def forward(self, x: Float[Tensor, "N *image"]) -> Float[Tensor, "N classes"]:
        x = x.flatten(1)
        for index, layer in ((self.first_index, self.first), (self.second_index, self.second)):
            weights = torch.cat([layer.weight.flatten(), layer.weight.new_zeros(1)])
            places = index.shape[1] // layer.out_features
            matrix = weights.index_select(0, index.flatten()).reshape(index.shape)
            x = torch.relu(x @ matrix + layer.bias.repeat(places))
        return self.head(x)


def _banded(side: int, inputs: int, outputs: int) -> Int[Tensor, "pixels places"]:
    """Where each entry of a stride-2 convolution's matrix stands in its weights ``[outputs, 9 inputs]``; last: zero.

    Pixels and places are ordered by position first, channel second.
    """
    half = (side + 1) // 2
    row, column, up, left = torch.meshgrid(*(torch.arange(n) for n in (side, side, half, half)), indexing="ij")
    down, right = row - 2 * up + 1, column - 2 * left + 1
    inside = (down >= 0) & (down < 3) & (right >= 0) & (right < 3)
    tap = torch.where(inside, 3 * down + right, 0).reshape(side * side, 1, half * half, 1)
    channel = torch.arange(inputs).reshape(1, -1, 1, 1)
    weight = torch.arange(outputs).reshape(1, 1, 1, -1) * 9 * inputs + tap * inputs + channel
    zero = outputs * 9 * inputs
    weight = torch.where(inside.reshape(side * side, 1, half * half, 1), weight, zero)
    return weight.reshape(side * side * inputs, half * half * outputs)


class TrainedPrefixes(NamedTuple):
    """A stack of networks, each trained on the first examples of its own labelling.

    Attributes:
        params: ``[M, ...]`` each.
        correct: Examples classified correctly, ``[M]`` integers.
        loss: Mean training loss at the end, ``[M]``.
    """

    params: Params
    correct: Int[Tensor, " M"]
    loss: Float[Tensor, " M"]


def _module_call(module: nn.Module) -> Callable[[Params, Tensor], Tensor]:
    buffers = dict(module.named_buffers())
    return vmap(lambda p, x: functional_call(module, (p, buffers), (x,)))


def prefix_loss(
    module: nn.Module, inputs: Float[Tensor, "M N *features"], labels: Int[Tensor, "M N"], sizes: Int[Tensor, " M"]
) -> Callable[[Params], Float[Tensor, " M"]]:
    """Each member's mean cross-entropy over its own first examples, as a function of stacked parameters.

    Args:
        module: The architecture.
        inputs: ``[M, N, ...]``.
        labels: ``[M, N]``.
        sizes: How many examples count for each member, from 1 to N.

    Raises:
        ValueError: For sizes out of range or shapes that do not fit.
    """
    members, count = labels.shape
    require(inputs.shape[:2] == labels.shape, f"inputs [{members}, {count}, ...]", tuple(inputs.shape))
    require(sizes.shape == (members,), f"{members} sizes", tuple(sizes.shape))
    require(bool(((sizes >= 1) & (sizes <= count)).all()), f"sizes from 1 to {count}", sizes.tolist())
    call = _module_call(module)
    weight = (torch.arange(count, device=labels.device) < sizes[:, None]).to(inputs.dtype) / sizes[:, None]

    def loss(params: Params) -> Tensor:
        logits = call(params, inputs)
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return (each.reshape(members, count) * weight.to(logits.dtype)).sum(1)

    return loss


def train_prefixes(
    build: Callable[[], nn.Module],
    inputs: Float[Tensor, "M N *features"],
    labels: Int[Tensor, "M N"],
    sizes: Int[Tensor, " M"],
    *,
    seeds: Sequence[int],
    steps: int,
    batch_size: int | None,
    lr: Float[Tensor, " M"] | float,
    optimizer: Optimizer = "adam",
    momentum: float = 0.0,
) -> TrainedPrefixes:
    """Train every member on its first ``sizes[m]`` examples, with a linear decay of the rate to zero.

    Batches are drawn by passes over each member's own examples; where a member has fewer than a batch, batches
    run over the end of a pass.

    Args:
        build: Makes one network, under ``torch.manual_seed(seeds[m])``.
        inputs: ``[M, N, ...]``.
        labels: ``[M, N]``.
        sizes: Prefix lengths.
        seeds: One a member: initialisation and order of batches.
        steps: Optimizer steps.
        batch_size: Examples a step, ``None`` for the whole prefix.
        lr: Learning rate, one for all or one a member.
        optimizer: As in :func:`netatlas.core.train.minimize`.
        momentum: Of SGD.

    Raises:
        ValueError: For sizes out of range, no steps, or counts that differ.

    Source: shwartzziv2024flexible.
    """
    require(steps >= 1 and len(seeds) == len(sizes), f"{len(sizes)} seeds and at least one step", (len(seeds), steps))
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules.append(build().to(inputs.device, inputs.dtype))
    start, _ = stack_members(modules)
    module, call = modules[0], _module_call(modules[0])
    full = prefix_loss(module, inputs, labels, sizes)
    rows = torch.arange(len(sizes), device=inputs.device)[:, None] * inputs.shape[1]
    # Selecting whole rows of one matrix is many times faster than indexing by two tensors.
    examples, answers = inputs.flatten(0, 1), labels.flatten()
    order = None if batch_size is None else _passes(sizes.tolist(), seeds, steps * batch_size).to(inputs.device)

    def loss(params: Params, step: int, generator: torch.Generator) -> Tensor:
        if order is None or batch_size is None:
            return full(params)
        index = (order[:, step * batch_size : (step + 1) * batch_size] + rows).flatten()
        batch = examples.index_select(0, index).reshape(len(sizes), -1, *inputs.shape[2:])
        logits = call(params, batch)
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), answers[index], reduction="none")
        return each.reshape(len(sizes), -1).mean(1)

    params, _ = minimize(
        loss, start, steps=steps, lr=lr, optimizer=optimizer, momentum=momentum, schedule="linear", diverged="keep"
    )
    with torch.no_grad():
        inside = torch.arange(labels.shape[1], device=labels.device) < sizes[:, None]
        # Whole numbers: a mean of floats may miss one by rounding.
        correct = ((call(params, inputs).argmax(-1) == labels) & inside).sum(1)
        return TrainedPrefixes(params, correct, full(params))


def _passes(sizes: Sequence[int], seeds: Sequence[int], count: int) -> Int[Tensor, "M count"]:
    """Indices of examples: shuffled passes over each member's prefix, one after the other."""
    found = []
    for size, seed in zip(sizes, seeds):
        generator = torch.Generator().manual_seed(seed)
        keys = torch.rand(math.ceil(count / size), size, generator=generator)
        found.append(keys.argsort(1).reshape(-1)[:count])
    return torch.stack(found)


class Minimum(NamedTuple):
    """Whether training ended at a minimum, ``[M]`` each.

    Attributes:
        gradient: Norm of the full gradient.
        lowest: Smallest Ritz value of the Hessian.
        highest: Largest Ritz value.
    """

    gradient: Tensor
    lowest: Tensor
    highest: Tensor


def check_minimum(loss: Callable[[Params], Tensor], params: Params, *, steps: int = 25) -> Minimum:
    """Gradient and both ends of the Hessian's spectrum at the end of training, in double precision.

    Ritz values lie inside the spectrum, so that the smallest eigenvalue is at most ``lowest``.

    Args:
        loss: ``[M]`` for stacked members.
        params: ``[M, ...]`` each.
        steps: Lanczos steps.

    Raises:
        ValueError: As :func:`netatlas.core.curvature.hessian_operator`.

    Source: shwartzziv2024flexible.
    """
    point = {k: v.detach().double().requires_grad_(True) for k, v in params.items()}
    grads = torch.autograd.grad(loss(point).sum(), list(point.values()))
    norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    ends = extreme_eigenvalues(hessian_operator(loss, {k: v.detach() for k, v in point.items()}), steps=steps)
    return Minimum(norm, ends.smallest[:, 0], ends.largest[:, 0])


class Capacity(NamedTuple):
    """What a ladder of training sets says about a network.

    Attributes:
        capacity: Largest size fitted with all smaller ones, one a labelling; 0 where the smallest is not fitted.
        fitted: Which runs fit, ``[draws, sizes, rates]``.
        censored: Labellings whose largest size was still fitted: their capacity is at least that.
        above_failure: Sizes fitted although a smaller one was not.
        minimum: Of all runs, ``[draws, sizes, rates]`` each.
    """

    capacity: Float[np.ndarray, " draws"]
    fitted: Bool[np.ndarray, "draws sizes rates"]
    censored: int
    above_failure: int
    minimum: Minimum


def largest_fitted(fitted: Bool[np.ndarray, "draws sizes"], ladder: Sequence[int]) -> Float[np.ndarray, " draws"]:
    """The largest size below the first failure, one a row.

    Args:
        fitted: Whether each size was fitted.
        ladder: Increasing sizes.

    Raises:
        ValueError: For sizes that do not increase or a table of another width.
    """
    require(all(a < b for a, b in zip(ladder, ladder[1:])) and len(ladder) > 0, "increasing sizes", list(ladder))
    require(fitted.ndim == 2 and fitted.shape[1] == len(ladder), f"{len(ladder)} columns", fitted.shape)
    run = np.cumprod(fitted, 1).sum(1)
    return np.array([0, *ladder], dtype=float)[run]


def effective_model_complexity(
    build: Callable[[], nn.Module],
    inputs: Float[Tensor, "draws N *features"],
    labellings: Int[Tensor, "draws N"],
    ladder: Sequence[int],
    *,
    seeds: Sequence[int],
    steps: int,
    batch_size: int | None,
    rates: Sequence[float],
    optimizer: Optimizer = "adam",
    momentum: float = 0.0,
) -> Capacity:
    """The largest number of examples that training from scratch fits, by a ladder of nested training sets.

    Every size of every labelling is tried at each learning rate, from another initialisation each, and counts as
    fitted if one run classifies all its examples correctly: small networks depend on their start, and a lower bound on
    flexibility should not. All runs are one stack, and all are checked for being at a minimum.

    Args:
        build: Makes one network.
        inputs: Examples of every draw; each size takes the first ones.
        labellings: Labels, one row a draw.
        ladder: Increasing sizes.
        seeds: One a draw.
        steps: Optimizer steps.
        batch_size: Examples a step, ``None`` for all.
        rates: Learning rates, one a run; repeat one to try it again.
        optimizer: As in :func:`netatlas.core.train.minimize`.
        momentum: Of SGD.

    Raises:
        ValueError: For sizes that do not increase or exceed the examples, no rates, or a number of seeds that differs.

    Source: shwartzziv2024flexible.
    """
    draws, count = labellings.shape
    require(len(seeds) == draws, f"{draws} seeds", len(seeds))
    require(all(a < b for a, b in zip(ladder, ladder[1:])) and len(ladder) > 0, "increasing sizes", list(ladder))
    require(inputs.shape[:2] == (draws, count), f"inputs [{draws}, {count}, ...]", tuple(inputs.shape))
    require(ladder[0] >= 1 and ladder[-1] <= count, f"sizes from 1 to {count}", list(ladder))
    require(len(rates) > 0 and min(rates) > 0, "positive learning rates", list(rates))
    shape, each = (draws, len(ladder), len(rates)), len(ladder) * len(rates)
    sizes = torch.tensor(ladder, device=inputs.device).repeat_interleave(len(rates)).repeat(draws)
    data = inputs[:, : ladder[-1]].repeat_interleave(each, 0)
    labels = labellings[:, : ladder[-1]].repeat_interleave(each, 0)
    trained = train_prefixes(
        build,
        data,
        labels,
        sizes,
        seeds=[1000 * seed + run for seed in seeds for run in range(each)],
        steps=steps,
        batch_size=batch_size,
        lr=torch.tensor(rates, device=inputs.device).repeat(draws * len(ladder)),
        optimizer=optimizer,
        momentum=momentum,
    )
    # A diverged run's outputs are NaN, and their first class may be the right answer.
    fitted = ((trained.correct == sizes) & trained.loss.isfinite()).reshape(shape).cpu().numpy()
    with torch.random.fork_rng(devices=[]):
        module = build().to(inputs.device)
    finite = {k: v.nan_to_num(0.0, 0.0, 0.0) for k, v in trained.params.items()}
    ends = check_minimum(prefix_loss(module, data.double(), labels, sizes), finite)
    cells = np.asarray(fitted.any(2))
    capacity = largest_fitted(cells, ladder)
    beyond = int((cells & (np.array(ladder) > capacity[:, None])).sum())
    minimum = Minimum(*(v.reshape(shape) for v in ends))
    return Capacity(capacity, fitted, int(cells.all(1).sum()), beyond, minimum)


def separable_probability(examples: int, dimension: int) -> float:
    r"""Cover's probability that random signs on points in general position are separated by a plane through the origin.

    .. math:: P(n, d) = 2^{1-n} \sum_{k=0}^{d-1} \binom{n-1}{k}

    It is 1 for :math:`n \le d` and one half at :math:`n = 2d`: a linear classifier's capacity is two bits a parameter.

    Args:
        examples: n.
        dimension: d.

    Raises:
        ValueError: For sizes below 1.

    Source: shwartzziv2024flexible compares networks with their parameter count; the count is Cover's.
    """
    require(examples >= 1 and dimension >= 1, "sizes of at least 1", (examples, dimension))
    total = sum(math.comb(examples - 1, k) for k in range(min(dimension, examples)))
    return total / 2 ** (examples - 1)


def linearly_separable(inputs: Float[np.ndarray, "n d"], signs: Float[np.ndarray, " n"]) -> bool:
    r"""Whether some :math:`w` has :math:`y_i\, w \cdot x_i \ge 1` for all i, decided by linear programming.

    Args:
        inputs: ``[n, d]``.
        signs: +1 or -1.

    Raises:
        ValueError: For signs that are neither, or no examples.
    """
    x, y = np.asarray(inputs, dtype=float), np.asarray(signs, dtype=float)
    require(x.ndim == 2 and len(x) > 0 and y.shape == (len(x),), "inputs [n, d] and n signs", (x.shape, y.shape))
    require(bool(np.isin(y, (-1, 1)).all()), "signs of +1 or -1", np.unique(y).tolist())
    require_finite("inputs", x)
    found = linprog(np.zeros(x.shape[1]), A_ub=-y[:, None] * x, b_ub=-np.ones(len(x)), bounds=(None, None))
    return bool(found.status == 0)
