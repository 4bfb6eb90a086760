r"""What sum, mean and maximum as aggregation can compute, on graphs of any size: stars, exact nets, integer tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.aggr import MultiAggregation

from netatlas.core.checks import require, require_finite

Aggregation = Literal["sum", "mean", "max", "sqrt"]
AGGREGATIONS = ("sum", "mean", "max", "sqrt")


class SkipMLP(nn.Module):
    r"""A ReLU network with a linear skip, :math:`W_0 x + W_L\,\mathrm{relu}(\dots \mathrm{relu}(W_1 x + b_1))`.

    Piecewise linear, and exactly linear functions cost it nothing.

    Args:
        inputs: Width of the input.
        width: Width of the hidden layers.
        outputs: Width of the output.
        hidden: Number of hidden layers.
    """

    def __init__(self, inputs: int, width: int, outputs: int, hidden: int = 1) -> None:
        super().__init__()
        require(min(inputs, width, outputs, hidden) >= 1, "widths and a depth of at least 1", (inputs, width, outputs))
        sizes = [inputs] + [width] * hidden
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.out, self.skip = nn.Linear(width, outputs), nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Apply the network along the last axis."""
        hidden = x
        for layer in self.layers:
            hidden = torch.relu(layer(hidden))
        return self.out(hidden) + self.skip(x)


def _check_aggregations(aggregations: Sequence[str]) -> None:
    known = len(aggregations) > 0 and all(a in AGGREGATIONS for a in aggregations)
    require(known, f"aggregations out of {', '.join(AGGREGATIONS)}", list(aggregations))


class AggregationConv(MessagePassing):
    r"""A layer that hands its update several aggregations of the neighbours.

    .. math:: h_v' = \mathrm{MLP}\bigl(h_v,\ \Vert_a\, \mathrm{agg}_a \{\!\{ h_u : u \in N(v) \}\!\}\bigr)

    ``"sqrt"`` is the sum over the square root of the degree. Isolated nodes receive zeros.

    Args:
        update: Module for the concatenation of width ``(1 + len(aggregations)) * F``.
        aggregations: Out of ``"sum"``, ``"mean"``, ``"max"``, ``"sqrt"``.

    Raises:
        ValueError: For no or an unknown aggregation.

    Source: rosenbluth2023sum.
    """

    def __init__(self, update: nn.Module, aggregations: Sequence[Aggregation] = ("sum",)) -> None:
        _check_aggregations(aggregations)
        self.kinds = tuple(aggregations)
        super().__init__(aggr=MultiAggregation(["sum" if a == "sqrt" else a for a in aggregations], mode="cat"))
        self.combine = update

    def forward(self, x: Float[Tensor, "n F"], edge_index: Int[Tensor, "2 E"]) -> Tensor:
        """Update node states ``x`` along ``edge_index``."""
        bad = edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= len(x))
        require(not bad, f"node indices in [0, {len(x)})", edge_index.flatten()[:8].tolist() if bad else "")
        found = list(self.propagate(edge_index, x=x).split(x.shape[1], dim=1))
        if "sqrt" in self.kinds:
            degree = torch.zeros(len(x), dtype=x.dtype, device=x.device).index_add_(
                0, edge_index[1], torch.ones(edge_index.shape[1], dtype=x.dtype, device=x.device)
            )
            scale = degree.clamp_min(1).rsqrt()[:, None]
            found = [f * scale if kind == "sqrt" else f for f, kind in zip(found, self.kinds)]
        return self.combine(torch.cat([x, *found], dim=1))

    def message(self, x_j: Tensor) -> Tensor:
        """The neighbour's state."""
        return x_j


class StarGNN(nn.Module):
    r"""The network of :class:`AggregationConv` layers on stars, evaluated without the graph.

    All leaves of one kind share their state, so a star with :math:`n_k` leaves of kind :math:`k` takes constant time,
    however many there are. The output is read at the centre by a linear map.

    Args:
        aggregations: As in :class:`AggregationConv`.
        features: Width of a node's features.
        layers: Number of message-passing layers.
        width: Width of states and hidden layers.
        hidden: Hidden layers of each update.

    Raises:
        ValueError: For an unknown aggregation or no layers.

    Source: rosenbluth2023sum.
    """

    def __init__(
        self,
        aggregations: Sequence[Aggregation],
        *,
        features: int = 1,
        layers: int = 2,
        width: int = 32,
        hidden: int = 1,
    ) -> None:
        super().__init__()
        _check_aggregations(aggregations)
        require(layers >= 1 and features >= 1, "at least one layer and one feature", (layers, features))
        self.aggregations = tuple(aggregations)
        # Sum, mean and sum over root differ by a power of the count, kept as a buffer so that members may differ in it.
        self.register_buffer("powers", torch.tensor([{"mean": 1.0, "sqrt": 0.5}.get(a, 0.0) for a in aggregations]))
        widths = [features] + [width] * layers
        fan = 1 + len(aggregations)
        self.updates = nn.ModuleList(SkipMLP(fan * a, width, b, hidden) for a, b in zip(widths, widths[1:]))
        self.read = nn.Linear(width, 1)

    def forward(self, stars: Float[Tensor, "B w"]) -> Float[Tensor, " B"]:
        """Outputs at the centres.

        Args:
            stars: For each star the centre's features, then for each kind of leaf its count and its features:
                ``w = F + K (1 + F)``.
        """
        features = (self.updates[0].skip.in_features) // (1 + len(self.aggregations))
        centre, rest = stars[..., :features], stars[..., features:]
        rest = rest.unflatten(-1, (-1, 1 + features))
        count, leaves = rest[..., :1], rest[..., 1:]
        total, present = count.sum(-2), count > 0
        for i, update in enumerate(self.updates):
            summed = (count * leaves).sum(-2)
            found = [summed / total.clamp_min(1) ** power for power in self.powers]
            if "max" in self.aggregations:
                largest = leaves.masked_fill(~present, -torch.inf).amax(-2)
                found[self.aggregations.index("max")] = torch.where(total > 0, largest, 0.0)
            heard = torch.cat([centre, *found], -1)
            if i + 1 < len(self.updates):
                # A leaf's only neighbour is the centre: all aggregations give the centre's state.
                seen = centre[..., None, :].expand(*leaves.shape[:-1], centre.shape[-1])
                leaves = update(torch.cat([leaves] + [seen] * len(self.aggregations), -1))
            centre = update(heard)
        return self.read(centre)[..., 0]


def ratio_by_relu_steps(
    a: Float[Tensor, "*B"], b: Float[Tensor, "*B"], steps: int
) -> Float[Tensor, "*B"]:  # fmt: skip
    r"""The share :math:`a / (a + b)`, rounded down to a multiple of 1/K, by one layer of 2K ReLU units.

    .. math:: g(a, b) = \frac1K \sum_{j=1}^{K} \bigl[\mathrm{relu}(K a - j (a + b) + 1)
        - \mathrm{relu}(K a - j (a + b))\bigr]
        = \frac1K \Bigl\lfloor \frac{K a}{a + b} \Bigr\rfloor

    A sum network computes it from the counts of two colours; the price of accuracy 1/K is a width of 2K.

    Args:
        a: Counts, whole numbers of at least 0.
        b: Counts, with ``a + b`` at least 1.
        steps: The number of steps :math:`K`.

    Raises:
        ValueError: For a negative or fractional count, an empty pair, or fewer than one step.

    Source: rosenbluth2023sum (the construction is ours).
    """
    require(steps >= 1, "at least one step", steps)
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    require_finite("a", a)
    require_finite("b", b)
    if a.device.type != "meta":
        whole = bool((a >= 0).all() and (b >= 0).all() and (a == a.floor()).all() and (b == b.floor()).all())
        require(whole and bool((a + b >= 1).all()), "whole counts of at least 0 with a sum of at least 1", (a, b))
    j = torch.arange(1, steps + 1, dtype=a.dtype, device=a.device)
    inner = steps * a[..., None] - j * (a + b)[..., None]
    return (torch.relu(inner + 1) - torch.relu(inner)).sum(-1) / steps


def exact_share_product(a: Float[Tensor, "*B"], b: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    r"""The product :math:`a \cdot a / (a + b)` on a coloured star by three layers of sums and means with set weights.

    The centre takes the mean of its leaves' colours; the leaves of colour 1 copy it, those of colour 0 keep 0
    (a ReLU of colour + mean - 1); the centre takes their sum. No sum network computes it on all sizes.

    Args:
        a: Leaves of colour 1.
        b: Leaves of colour 0.

    Raises:
        ValueError: For a star without leaves or a negative count.

    Source: rosenbluth2023sum (the weights are ours).
    """
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    require(
        bool((a >= 0).all() and (b >= 0).all() and (a + b > 0).all()), "non-negative counts, at least one leaf", (a, b)
    )
    centre = (a * 1.0 + b * 0.0) / (a + b)
    ones, zeros = torch.relu(1.0 + centre - 1.0), torch.relu(0.0 + centre - 1.0)
    return a * ones + b * zeros


class IntegerStarGNN:
    r"""A random sum or mean network on stars in exact integer arithmetic.

    Each layer is :math:`h' = W_2\, \mathrm{relu}(W_1 [h, \mathrm{agg}] + b_1) + b_2` with weights in
    :math:`\{-3, \dots, 3\}`; the leaves start with the value :math:`c`, the centre with 0.

    Args:
        layers: Number of layers.
        width: Width of states and hidden layers.
        aggregation: ``"sum"`` or ``"mean"``.
        seed: Seeds the weights, the same for both aggregations.

    Raises:
        ValueError: For no layers or another aggregation.

    Source: rosenbluth2023sum.
    """

    def __init__(
        self, layers: int, width: int = 3, *, aggregation: Literal["sum", "mean"] = "sum", seed: int = 0
    ) -> None:
        require(layers >= 1 and width >= 1, "at least one layer and a width of at least 1", (layers, width))
        require(aggregation in ("sum", "mean"), "an aggregation out of sum, mean", repr(aggregation))
        rng = np.random.default_rng(seed)
        self.aggregation, self.layers = aggregation, []
        widths = [1] + [width] * layers
        for inputs, outputs in zip(widths, widths[1:]):
            shapes = [(width, 2 * inputs), (width, 1), (outputs, width), (outputs, 1)]
            self.layers.append([rng.integers(-3, 4, size=shape).astype(object) for shape in shapes])

    def __call__(self, n: Sequence[int], c: Sequence[int]) -> list[int]:
        """First entry of the centre's state, for stars of ``n`` leaves of value ``c``; Python integers."""
        count = np.array([int(v) for v in n], dtype=object)
        leaf = np.array([[int(v) for v in c]], dtype=object)
        centre = np.zeros_like(leaf)
        for first, bias, second, shift in self.layers:
            heard = leaf * count if self.aggregation == "sum" else leaf

            def update(own: Any, other: Any, w1: Any = first, b1: Any = bias, w2: Any = second, b2: Any = shift) -> Any:
                hidden = w1.dot(np.concatenate([own, other])) + b1
                return w2.dot(np.where(hidden > 0, hidden, 0)) + b2

            centre, leaf = update(centre, heard), update(leaf, centre)
        return centre[0].tolist()


def polynomial_order(values: Sequence[int]) -> int:
    """Smallest order of finite differences that vanish along a line of equidistant exact values.

    Args:
        values: Exact numbers at consecutive points.

    Returns:
        One more than the degree of the polynomial through them; ``len(values)`` if no difference vanishes, 0 for zeros.

    Raises:
        ValueError: For no values.
    """
    require(len(values) > 0, "at least one value", 0)
    current, order = list(values), 0
    while current and any(current):
        current = [b - a for a, b in zip(current, current[1:])]
        order += 1
    return order


def extrapolate_to_zero(values: Sequence[int], start: int) -> int:
    r"""Value at 0 of the polynomial through exact values at ``start``, ``start + 1``, ...: Newton's forward formula.

    .. math:: p(0) = \sum_k \binom{-s}{k} \Delta^k p(s)

    Args:
        values: Exact integers.
        start: The first point :math:`s`.

    Raises:
        ValueError: For no values.
    """
    require(len(values) > 0, "at least one value", 0)
    current, total, factor = list(values), 0, 1
    for k in range(len(values)):
        total += factor * current[0]
        current = [b - a for a, b in zip(current, current[1:])]
        factor = factor * (-start - k) // (k + 1)
    return total
