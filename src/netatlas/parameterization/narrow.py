r"""Leaky-ReLU networks of the least possible width: what they can approximate, built by hand and by training.

The building block is exact. For :math:`0 < a < 1` the inverse of :math:`\sigma_a(t) = \max(t, at)` is
:math:`-a^{-1}\sigma_a(-t)`, a leaky ReLU again; two layers therefore add a leaky-ReLU feature of one direction to
another coordinate and put everything else back. Chains of such *shears* are networks of the state's own width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite


def minimum_width(inputs: int, outputs: int, norm: str = "uniform") -> int:
    r"""The least width at which leaky-ReLU networks of any depth are dense.

    .. math::

        w_C = \max(d_x + 1, d_y) + [d_y = d_x + 1], \qquad w_{L^p} = \max(d_x, d_y, 2)

    Args:
        inputs: :math:`d_x`.
        outputs: :math:`d_y`.
        norm: ``"uniform"`` on compact sets, or ``"lp"``.

    Raises:
        ValueError: For dimensions below 1 or another norm.

    Source:
        li2023minwidth (uniform) and the earlier result it quotes (lp).
    """
    require(min(inputs, outputs) >= 1, "dimensions of at least 1", (inputs, outputs))
    require(norm in ("uniform", "lp"), "a norm out of uniform, lp", repr(norm))
    return max(inputs, outputs, 2) if norm == "lp" else max(inputs + 1, outputs) + (outputs == inputs + 1)


class NarrowNetwork(nn.Module):
    r"""Leaky-ReLU network of one width throughout: :math:`x \mapsto A_L\,\sigma_a(W_l \cdot + b_l) \cdots A_0 x`.

    Args:
        inputs, width, outputs: :math:`d_x`, the width of all hidden layers, :math:`d_y`.
        depth: Number of hidden layers.
        slope: :math:`a` in (0, 1).
        gain: Hidden weights start as random rotations times this.

    Shapes:
        ``[N, inputs]`` to ``[N, outputs]``.

    Raises:
        ValueError: For sizes below 1 or a slope outside (0, 1).

    Source:
        li2023minwidth (constructions).
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, depth: int, *, slope: float = 0.1, gain: float = 1.2
    ) -> None:
        super().__init__()
        require(min(inputs, width, outputs, depth) >= 1, "sizes of at least 1", (inputs, width, outputs, depth))
        require(0 < slope < 1, "a slope in (0, 1)", slope)
        self.slope = slope
        self.enter = nn.Linear(inputs, width)
        rotations = torch.linalg.qr(torch.randn(depth, width, width))[0]
        self.weights = nn.Parameter(gain * rotations)
        self.biases = nn.Parameter(0.5 * torch.randn(depth, width))
        self.leave = nn.Linear(width, outputs)

    def forward(self, x: Float[Tensor, "N inputs"]) -> Float[Tensor, "N outputs"]:
        # Points along the last axis: with a width of two or three the products are then long, not narrow.
        h = self.enter(x).mT
        for w, b in zip(self.weights, self.biases):
            h = nn.functional.leaky_relu(w @ h + b[:, None], self.slope)
        return self.leave(h.mT)


@dataclass(frozen=True)
class BuiltNetwork:
    """A leaky-ReLU network given by its weights, all hidden layers of one width.

    Attributes:
        enter, leave: Affine maps in and out, each ``(matrix, vector)``.
        weights: ``[depth, width, width]``.
        biases: ``[depth, width]``.
        slope: The leaky ReLU's.
    """

    enter: tuple[Tensor, Tensor]
    weights: Tensor
    biases: Tensor
    leave: tuple[Tensor, Tensor]
    slope: float

    @property
    def width(self) -> int:
        """Width of the hidden layers."""
        return self.weights.shape[-1]

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return self.weights.shape[0]

    def __call__(self, x: Float[Tensor, "N inputs"]) -> Float[Tensor, "N outputs"]:
        h = x @ self.enter[0].T + self.enter[1]
        for w, b in zip(self.weights, self.biases):
            h = nn.functional.leaky_relu(h @ w.T + b, self.slope)
        return h @ self.leave[0].T + self.leave[1]


class ShearBuilder:
    r"""Composes affine maps and shears on a state of fixed width into one leaky-ReLU network of that width.

    A shear adds :math:`c\,\sigma_a(u^\top h - t)` to coordinates of the state. It costs two layers: the first turns the
    direction :math:`u` into a coordinate and bends it while the others are held positive by their biases, hence
    unchanged; the second bends it back.

    Args:
        points: ``[N, width]``, states between which all inputs lie (the box around them is kept unbent).
        slope: :math:`a` in (0, 1).

    Raises:
        ValueError: For a slope outside (0, 1), no points, or NaN.

    Source:
        li2023minwidth, the discretisation of flows by coordinate-wise leaky-ReLU maps.
    """

    def __init__(self, points: Float[Tensor, "N width"], slope: float = 0.1) -> None:
        require(0 < slope < 1, "a slope in (0, 1)", slope)
        require(points.ndim == 2 and points.numel() > 0, "points [N, width]", tuple(points.shape))
        require_finite("points", points)
        self.slope, self.state = slope, points.double().clone()
        width = points.shape[1]
        self.matrix, self.vector = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
        self.layers: list[tuple[Tensor, Tensor]] = []

    def affine(self, matrix: Float[Tensor, "width width"], vector: Float[Tensor, " width"] | None = None) -> None:
        """Apply an affine map (it costs no layer: the next one absorbs it)."""
        vector = torch.zeros(len(matrix), dtype=torch.float64) if vector is None else vector
        self.state = self.state @ matrix.T + vector
        self.matrix, self.vector = matrix @ self.matrix, matrix @ self.vector + vector

    def _bend(self, coordinate: int) -> None:
        lift = (1.0 - self.state.min(0).values).clamp_min(0.0)
        lift[coordinate] = 0.0
        self.layers.append((self.matrix, self.vector + lift))
        bent = self.state[:, coordinate]
        self.state = self.state.clone()
        self.state[:, coordinate] = torch.where(bent > 0, bent, self.slope * bent)
        self.matrix, self.vector = torch.eye(len(lift), dtype=torch.float64), -lift

    def shear(self, coordinate: int, threshold: float, amounts: Float[Tensor, " width"]) -> None:
        r"""Add ``amounts`` times :math:`\sigma_a(h_\text{coordinate} - \text{threshold})` to the other coordinates.

        Raises:
            ValueError: If the bent coordinate would be added to itself.
        """
        require(float(amounts[coordinate]) == 0, "no amount on the bent coordinate", float(amounts[coordinate]))
        eye, shift = torch.eye(len(amounts), dtype=torch.float64), torch.zeros(len(amounts), dtype=torch.float64)
        shift[coordinate] = -threshold
        self.affine(eye, shift)
        self._bend(coordinate)
        add = eye.clone()
        add[:, coordinate] += amounts
        # The inverse is bent on the negative side: min(y, y / a) = -a^{-1} max(-y, -a y).
        add[coordinate] *= -1
        self.affine(add)
        self._bend(coordinate)
        back = eye.clone()
        back[coordinate, coordinate] = -1 / self.slope
        self.affine(back, -shift)

    def add_piecewise_linear(
        self, source: int, target: int, knots: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
    ) -> None:
        r"""Add a continuous piecewise-linear function of one coordinate to another.

        Args:
            source: The coordinate it depends on; it is left as it was.
            target: The coordinate it is added to.
            knots: Increasing positions, at least two; beyond the ends the outer pieces go on.
            values: The function at the knots.

        Raises:
            ValueError: For knots that do not increase, or lengths that differ.
        """
        t, y = np.asarray(knots, float), np.asarray(values, float)
        require(
            len(t) == len(y) >= 2 and bool((np.diff(t) > 0).all()), "values at two or more increasing knots", len(t)
        )
        require(source != target, "different source and target", (source, target))
        slopes = np.diff(y) / np.diff(t)
        width = len(self.vector)
        linear = torch.eye(width, dtype=torch.float64)
        linear[target, source] += float(slopes[0])
        constant = torch.zeros(width, dtype=torch.float64)
        constant[target] = float(y[0] - slopes[0] * t[0])
        self.affine(linear, constant)
        for position, change in zip(t[1:-1], np.diff(slopes)):
            if change == 0:
                continue
            # (1 - a) relu = sigma - a identity, so a bend of slope c is c / (1 - a) shears and a linear part.
            amount = torch.zeros(width, dtype=torch.float64)
            amount[target] = float(change) / (1 - self.slope)
            self.shear(source, float(position), amount)
            line, offset = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
            line[target, source] = -self.slope * float(amount[target])
            offset[target] = self.slope * float(amount[target]) * float(position)
            self.affine(line, offset)

    def network(self, enter: tuple[Tensor, Tensor], leave: tuple[Tensor, Tensor]) -> BuiltNetwork:
        """The network, with affine maps from the inputs to the first state and from the last state to the outputs."""
        require(len(self.layers) > 0, "at least one shear", 0)
        weights, biases = torch.stack([w for w, _ in self.layers]), torch.stack([b for _, b in self.layers])
        out = (leave[0] @ self.matrix, leave[0] @ self.vector + leave[1])
        return BuiltNetwork(enter, weights, biases, out, self.slope)


def polyline_network(corners: Float[Tensor, "K d"], times: Sequence[float], *, slope: float = 0.1) -> BuiltNetwork:
    r"""The network of width :math:`d + 1` whose output runs along a polyline, exactly.

    The state is the point and the time; each interior corner bends the time once and adds it to the point.

    Args:
        corners: ``K`` corners in :math:`\mathbb R^d`.
        times: When each is reached, increasing.
        slope: The leaky ReLU's.

    Returns:
        A network from ``[N, 1]`` (time) to ``[N, d]``.

    Raises:
        ValueError: For fewer than three corners, or times that do not increase.

    Source:
        li2023minwidth, the case of one input, where :math:`w = d + 1`.
    """
    corners = corners.double()
    t = torch.as_tensor(times, dtype=torch.float64)
    require(corners.ndim == 2 and len(corners) >= 3, "at least three corners [K, d]", tuple(corners.shape))
    require(len(t) == len(corners) and bool((t.diff() > 0).all()), f"{len(corners)} increasing times", t.tolist())
    d = corners.shape[1]
    velocity = corners.diff(dim=0) / t.diff()[:, None]
    enter = torch.cat([velocity[0], torch.ones(1, dtype=torch.float64)])[:, None]
    start = torch.cat([corners[0] - velocity[0] * t[0], torch.zeros(1, dtype=torch.float64)])
    builder = ShearBuilder(t[:, None] @ enter.T + start, slope)
    for k in range(1, len(t) - 1):
        amount = torch.zeros(d + 1, dtype=torch.float64)
        amount[:d] = (velocity[k] - velocity[k - 1]) / (1 - slope)
        builder.shear(d, float(t[k]), amount)
        line = torch.eye(d + 1, dtype=torch.float64)
        line[:d, d] = -slope * amount[:d]
        offset = torch.zeros(d + 1, dtype=torch.float64)
        offset[:d] = slope * amount[:d] * t[k]
        builder.affine(line, offset)
    select = torch.eye(d, d + 1, dtype=torch.float64)
    return builder.network((enter, start), (select, torch.zeros(d, dtype=torch.float64)))


def absolute_value_network(slope: float = 0.1) -> BuiltNetwork:
    r"""The network of width 2 and one layer that is :math:`|x| = (\sigma_a(x) + \sigma_a(-x)) / (1 - a)`.

    Args:
        slope: :math:`a` in (0, 1).

    Raises:
        ValueError: For a slope outside (0, 1).

    Source:
        li2023minwidth, one input and one output.
    """
    require(0 < slope < 1, "a slope in (0, 1)", slope)
    one, zero = torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    leave = torch.full((1, 2), 1 / (1 - slope), dtype=torch.float64)
    return BuiltNetwork(
        (one, zero), torch.eye(2, dtype=torch.float64)[None], zero[None], (leave, torch.zeros(1).double()), slope
    )


def ridge_network(
    inputs: Float[Tensor, "N d"], targets: Float[Tensor, " N"], *, units: int, slope: float = 0.1, seed: int = 0
) -> BuiltNetwork:
    r"""A scalar function by least squares on random ridge features, laid out one after another at width :math:`d + 1`.

    The state is the input and a running sum; each unit turns its direction into a coordinate, bends it, adds it to the
    sum, and turns back. One wide hidden layer thus becomes a deep network of the least width for one output.

    Args:
        inputs: Points to fit at.
        targets: Values there.
        units: Number of ridge features.
        slope: The leaky ReLU's.
        seed: Seeds directions and thresholds.

    Raises:
        ValueError: For no units, lengths that differ, or NaN.

    Source:
        li2023minwidth, upper bound for one output.
    """
    require(units >= 1 and inputs.ndim == 2 and len(inputs) == len(targets), "units and one target an input", units)
    require_finite("inputs", inputs)
    x, y = inputs.double(), targets.double()
    generator = torch.Generator().manual_seed(seed)
    d = x.shape[1]
    directions = torch.linalg.qr(torch.randn(units, d, d, generator=generator, dtype=torch.float64))[0]
    reach = (x @ directions[:, 0].T).abs().amax(0)
    thresholds = (2 * torch.rand(units, generator=generator, dtype=torch.float64) - 1) * reach
    bent = nn.functional.leaky_relu(x @ directions[:, 0].T - thresholds, slope)
    features = torch.cat([bent, x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    ridge = 1e-6 * len(x) * torch.eye(features.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(features.T @ features + ridge, features.T @ y)
    box = torch.cartesian_prod(*(torch.stack([c.min(), c.max()]) for c in x.T)).reshape(-1, d)
    # The running sum is never bent, but its bounds decide the bias that keeps it positive: states on all inputs.
    padded = torch.cat([torch.cat([x, box]), torch.zeros(len(x) + len(box), 1, dtype=torch.float64)], 1)
    builder = ShearBuilder(padded, slope)
    rotate = torch.eye(d + 1, dtype=torch.float64)
    for basis, threshold, weight in zip(directions, thresholds, weights):
        rotate[:d, :d] = basis
        builder.affine(rotate.clone())
        amount = torch.zeros(d + 1, dtype=torch.float64)
        amount[d] = weight
        builder.shear(0, float(threshold), amount)
        builder.affine(rotate.T.clone())
    leave = torch.cat([weights[units : units + d], torch.ones(1, dtype=torch.float64)])[None]
    enter = torch.eye(d + 1, d, dtype=torch.float64)
    return builder.network((enter, torch.zeros(d + 1, dtype=torch.float64)), (leave, weights[-1:]))


def _staircase(
    cells: int, jump: float, scale: float = 1.0, levels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Knots and values of a staircase on [0, 1] with ``cells`` treads and risers of width ``jump / cells``."""
    levels = np.arange(cells) * scale if levels is None else levels
    edges = np.arange(1, cells) / cells
    knots = np.sort(np.concatenate([[0.0, 1.0], edges - jump / cells, edges]))
    return knots, np.repeat(levels, 2)


def coding_network(
    function: object, *, cells: int, levels: int = 8, outputs: int = 1, jump: float = 0.02, slope: float = 0.5
) -> BuiltNetwork:
    r"""Encoder, memorizer and decoder on the unit square, at width 2: small error in :math:`L^p`, not in the maximum.

    *Encoder*: :math:`z = q(x_1) + x_2 / m`, the first coordinate rounded down to one of :math:`m` cells, the second in
    the digits below. *Memorizer*: one piecewise-linear function of the single number :math:`z`, through the values of
    :math:`f` on a grid. *Decoder* (two outputs): the memorizer wrote :math:`z' = Q(f_1) + f_2 / m'`, whose staircase
    part is the first output, and what is left over the second. Each stage is a chain of exact shears; the error comes
    from rounding, and from the risers of the staircases, which have measure ``jump``.

    Args:
        function: ``f(points [P, 2]) -> [P, outputs]`` with values in [0, 1].
        cells: :math:`m`, cells along each axis.
        levels: :math:`m'`, levels of the first output where there are two.
        outputs: 1 or 2.
        jump: Width of a riser as a share of a cell.
        slope: The leaky ReLU's.

    Raises:
        ValueError: For fewer than two cells, other numbers of outputs, or a jump outside (0, 1/2).

    Source:
        li2023minwidth, the critical width :math:`\max(d_x, d_y, 2)` for :math:`L^p`, which it quotes.
    """
    require(cells >= 2 and levels >= 2, "at least two cells and levels", (cells, levels))
    require(outputs in (1, 2), "one or two outputs", outputs)
    require(0 < jump < 0.5, "a jump in (0, 1/2)", jump)
    corners = torch.cartesian_prod(*[torch.linspace(0, 1, 65, dtype=torch.float64)] * 2)
    builder = ShearBuilder(corners, slope)
    zero, eye = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    # The second coordinate keeps a margin inside its cell so that the next cell's code does not touch it.
    builder.affine(torch.diag(torch.tensor([1.0, (1 - jump) / cells], dtype=torch.float64)))
    builder.add_piecewise_linear(0, 1, *_staircase(cells, jump, 1 / cells))
    rows = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    columns = rows if outputs == 2 else torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    grid = torch.cartesian_prod(rows, columns)
    values = function(grid).double().reshape(len(grid), outputs)  # type: ignore[operator]
    require(bool(((values >= 0) & (values <= 1)).all()), "values in [0, 1]", (float(values.min()), float(values.max())))
    starts = (grid[:, 0] * cells).floor() / cells
    width = (1 - jump) / cells
    codes, memory = starts + grid[:, 1] * width, values[:, 0]
    if outputs == 2:
        # A level must not be interpolated: between two of its values lie the codes of other pairs.
        step = (values[:, 0] * levels).floor().clamp_max(levels - 1)
        memory = ((step + (1 - jump) * values[:, 1]) / levels).repeat_interleave(2)
        column = (grid[:, 1] * cells).floor() / cells
        ends = torch.tensor([0.0, (1 - jump) / cells], dtype=torch.float64)
        codes = (starts[:, None] + (column[:, None] + ends) * width).flatten()
    builder.affine(torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    builder.add_piecewise_linear(1, 0, codes.tolist(), memory.tolist())
    if outputs == 1:
        return builder.network((eye, zero), (eye[:1], zero[:1]))
    builder.affine(torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)))
    builder.add_piecewise_linear(0, 1, *_staircase(levels, jump, 1 / levels))
    left = torch.tensor([[0.0, 1.0], [levels / (1 - jump), -levels / (1 - jump)]], dtype=torch.float64)
    return builder.network((eye, zero), (left, torch.tensor([0.5 / levels, 0.0], dtype=torch.float64)))


def sup_error(outputs: Float[Tensor, "*members N d"], targets: Float[Tensor, "N d"]) -> Float[Tensor, "*members"]:
    r"""Uniform error, :math:`\max_{i,j} |f_j(x_i) - y_{ij}|`, for each member.

    Args:
        outputs: Outputs, leading axes carried along.
        targets: ``[N, d]``.

    Raises:
        ValueError: For shapes that do not fit, or different devices.
    """
    require(outputs.device == targets.device, f"targets on {outputs.device}", targets.device)
    require(outputs.shape[-2:] == targets.shape, f"outputs [..., {tuple(targets.shape)}]", tuple(outputs.shape))
    return (outputs - targets).abs().amax((-2, -1))


def polyline(corners: Float[Tensor, "K d"], t: Float[Tensor, " N"]) -> Float[Tensor, "N d"]:
    """Points along a polyline at the times ``t`` in [-2, 2], by length.

    Args:
        corners: ``K`` corners.
        t: Times.

    Raises:
        ValueError: For fewer than two corners.
    """
    require(corners.ndim == 2 and len(corners) >= 2, "at least two corners", tuple(corners.shape))
    corners = corners.to(t)
    knots = corner_times(corners).to(t)
    left = (torch.searchsorted(knots, t.contiguous(), right=True) - 1).clamp(0, len(corners) - 2)
    share = ((t - knots[left]) / (knots[left + 1] - knots[left]))[:, None]
    return corners[left] * (1 - share) + corners[left + 1] * share


def corner_times(corners: Float[Tensor, "K d"]) -> Float[Tensor, " K"]:
    """When a polyline that is walked at constant speed from -2 to 2 reaches its corners."""
    length = torch.cat([torch.zeros(1).to(corners), corners.diff(dim=0).norm(dim=1).cumsum(0)])
    return 4 * length / length[-1] - 2


CROSSING = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
SIMPLE = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.3]])
