r"""Hidden symmetries of ReLU networks: how many directions of parameter space the function cannot see.

Every hidden neuron of a ReLU network can be scaled, which costs one direction a neuron. Where the function is blind to
*more* directions than these, the network has a hidden symmetry. The test is a rank: that of the derivatives of the
outputs by the parameters, over many inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite

Layers = list[tuple[Tensor, Tensor]]


class FunctionalDimension(NamedTuple):
    """Ranks of the parameter Jacobian over growing sets of inputs.

    Attributes:
        points: How many inputs had been used.
        ranks: The rank at each of them.
        kept: Smallest singular value that counts, as a share of the largest, at the last.
        dropped: Largest that does not count, as a share; 0 at full column rank.
    """

    points: list[int]
    ranks: list[int]
    kept: float
    dropped: float


def random_relu_layers(
    widths: Sequence[int], *, seed: int, bias_std: float = 0.1, dtype: torch.dtype = torch.float64
) -> Layers:
    r"""A network at random initialisation: weights :math:`N(0, 2/n_{\ell-1})`, biases :math:`N(0, \sigma^2)`.

    Args:
        widths: Input, hidden and output widths, at least three.
        seed: Seeds the weights.
        bias_std: Standard deviation of the biases. Zero makes every linear piece a cone, another ensemble.
        dtype: Of the parameters.

    Returns:
        Weight ``[n_l, n_{l-1}]`` and bias ``[n_l]`` of each layer.

    Raises:
        ValueError: For fewer than three widths, a width below 1, or a negative deviation.
    """
    require(len(widths) >= 3 and min(widths) >= 1, "at least three positive widths", list(widths))
    require(bias_std >= 0, "a non-negative bias_std", bias_std)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return [(draw(n, m) * (2 / m) ** 0.5, draw(n) * bias_std) for m, n in zip(widths, widths[1:])]


def _check_layers(layers: Layers) -> None:
    require(len(layers) >= 1, "at least one layer", 0)
    for number, (weight, bias) in enumerate(layers):
        require(weight.ndim == 2 and bias.shape == weight.shape[:1], f"a weight [n, m], a bias [n] in layer {number}",
                (tuple(weight.shape), tuple(bias.shape)))  # fmt: skip
        require_finite(f"the weight of layer {number}", weight)
        require_finite(f"the bias of layer {number}", bias)
        fits = number == 0 or weight.shape[1] == layers[number - 1][0].shape[0]
        require(fits, f"{layers[number - 1][0].shape[0]} inputs of layer {number}", weight.shape[1])


def _forward(layers: Layers, points: Tensor, slope: float) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of each layer, and which hidden neurons are active."""
    inputs, active = [points], []
    for weight, bias in layers[:-1]:
        z = inputs[-1] @ weight.T + bias
        active.append(z > 0)
        inputs.append(torch.where(active[-1], z, slope * z))
    return inputs, active


def relu_jacobian_rows(
    layers: Layers, points: Float[Tensor, "m n0"], *, slope: float = 0.0
) -> Float[Tensor, "m outputs D"]:
    r"""Derivatives of a network's outputs by all its parameters, at many inputs.

    .. math:: \frac{\partial f_k}{\partial (W_\ell, b_\ell)} = \delta^{(k)}_\ell\, (a_{\ell-1}^\top, 1),\qquad
              \delta^{(k)}_{\ell-1} = \phi'(z_{\ell-1}) \odot W_\ell^\top \delta^{(k)}_\ell,\qquad \delta^{(k)}_L = e_k

    Args:
        layers: Weight ``[n_l, n_{l-1}]`` and bias ``[n_l]`` of each layer; the last one is linear.
        points: Inputs.
        slope: Slope of the activation left of zero: 0 for ReLU, more for leaky ReLU.

    Returns:
        One row a point and output; columns run layer by layer, each neuron's incoming weights with its bias last.

    Raises:
        ValueError: For layers that do not fit together or to the points, or values that are not finite.

    Source:
        grigsby2023hidden.
    """
    _check_layers(layers)
    require(points.ndim == 2 and points.shape[1] == layers[0][0].shape[1],
            f"points [m, {layers[0][0].shape[1]}]", tuple(points.shape))  # fmt: skip
    require_finite("points", points)
    inputs, active = _forward(layers, points, slope)
    outputs = layers[-1][0].shape[0]
    delta = torch.eye(outputs, dtype=points.dtype, device=points.device).expand(len(points), outputs, outputs)
    blocks = []
    for number in range(len(layers) - 1, -1, -1):
        a = torch.cat([inputs[number], torch.ones_like(inputs[number][:, :1])], 1)
        blocks.append((delta[..., :, None] * a[:, None, None, :]).flatten(2))
        if number:
            delta = delta @ layers[number][0]
            delta = torch.where(active[number - 1][:, None, :], delta, slope * delta)
    return torch.cat(blocks[::-1], 2)


def representatives(patterns: Int[Tensor, "m hidden"], each: int) -> Int[Tensor, " kept"]:
    """Indices of the first ``each`` points of every activation pattern, in their order.

    Args:
        patterns: Which hidden neurons are active at a point: zero or not.
        each: How many points a pattern may keep, at least one.

    Raises:
        ValueError: For ``each`` below 1.
    """
    require(each >= 1, "at least one point a pattern", each)
    # Up to 62 neurons make one number, and numbers sort much faster than rows.
    places = 2 ** torch.arange(62, device=patterns.device)
    words = [(part.bool() * places[: part.shape[1]]).sum(1) for part in patterns.split(62, 1)]
    cell = words[0].unique(return_inverse=True)[1]
    for word in words[1:]:
        other = word.unique(return_inverse=True)[1]
        cell = (cell * len(cell) + other).unique(return_inverse=True)[1]
    order = cell.argsort(stable=True)
    sizes = cell.bincount()
    starts = sizes.cumsum(0) - sizes
    rank = torch.arange(len(cell), device=cell.device) - starts[cell[order]]
    return order[rank < each].sort().values


def streaming_qr_rank(
    triangle: Float[Tensor, "k D"] | None, rows: Float[Tensor, "m D"], *, chunk: int = 4096
) -> Float[Tensor, "k2 D"]:
    r"""Fold rows into a triangular factor with the same singular values as all rows seen so far.

    .. math:: \begin{pmatrix} R \\ J \end{pmatrix} = Q R', \qquad R'^\top R' = R^\top R + J^\top J

    Args:
        triangle: What an earlier call returned, or ``None``.
        rows: New rows.
        chunk: Rows folded at once, so that memory stays ``chunk * D``.

    Raises:
        ValueError: For rows that do not fit to the factor.
    """
    require(rows.ndim == 2, "rows [m, D]", tuple(rows.shape))
    if triangle is None:
        triangle = rows.new_zeros(0, rows.shape[1])
    require(triangle.shape[1] == rows.shape[1], f"rows of {triangle.shape[1]} columns", rows.shape[1])
    for part in rows.split(max(chunk, rows.shape[1])):
        triangle = torch.linalg.qr(torch.cat([triangle, part]), mode="r").R
    return triangle


def max_functional_dimension(widths: Sequence[int]) -> int:
    r"""The largest functional dimension: all parameters, less one scale for each hidden neuron.

    .. math:: \sum_{\ell=1}^{L} n_\ell (n_{\ell-1} + 1) - \sum_{\ell=1}^{L-1} n_\ell
              = \sum_{\ell=1}^{L} n_\ell n_{\ell-1} + n_L

    Args:
        widths: Input, hidden and output widths, at least two.

    Raises:
        ValueError: For fewer than two widths or a width below 1.

    Source:
        grigsby2023hidden.
    """
    require(len(widths) >= 2 and min(widths) >= 1, "at least two positive widths", list(widths))
    return sum(m * n for m, n in zip(widths, widths[1:])) + widths[-1]


def _rank(triangle: Tensor, tolerance: float) -> tuple[int, float, float]:
    # Unit columns take the parameters' units out of the comparison; a column of zeros is a direction lost for sure.
    norms = torch.linalg.vector_norm(triangle, dim=0)
    scaled = triangle / torch.where(norms > 0, norms, torch.ones_like(norms))
    values = torch.linalg.svdvals(scaled)
    if len(values) == 0 or float(values[0]) == 0:
        return 0, 0.0, 0.0
    shares = (values / values[0]).tolist()
    rank = sum(share > tolerance for share in shares)
    return rank, shares[rank - 1], shares[rank] if rank < len(shares) else 0.0


def functional_dimension(
    layers: Layers,
    points: Float[Tensor, "m n0"],
    *,
    checkpoints: Sequence[int] | None = None,
    slope: float = 0.0,
    tolerance: float = 1e-9,
) -> FunctionalDimension:
    r"""Functional dimension of a ReLU network on the sampled inputs: the rank of its parameter Jacobian.

    .. math:: \dim_{\mathrm{fun}}(\theta) = \sup_Z \operatorname{rank}\,
              \bigl[\partial f_\theta(z) / \partial\theta\bigr]_{z\in Z}

    A finite sample gives a lower bound that can only grow with more points. Inside one linear piece of the network the
    rows are an affine function of the input, so :math:`n_0 + 1` points of a piece span what all of them span, and the
    others are not computed.

    Args:
        layers: Weight and bias of each layer, in double precision.
        points: Inputs, in the order in which they are used.
        checkpoints: Numbers of points after which the rank is taken; default: all.
        slope: Slope of the activation left of zero.
        tolerance: Singular values below this share of the largest do not count, with columns scaled to unit norm.

    Raises:
        ValueError: For single precision, no points, or checkpoints that do not grow up to the number of points.

    Source:
        grigsby2023hidden.
    """
    require(points.dtype == torch.float64, "points in double precision (a rank needs it)", points.dtype)
    require(len(points) > 0, "at least one point", 0)
    checkpoints = [len(points)] if checkpoints is None else list(checkpoints)
    growing = all(a < b for a, b in zip([0, *checkpoints], [*checkpoints, len(points) + 1]))
    require(growing, f"checkpoints that grow, up to {len(points)}", checkpoints)
    _check_layers(layers)
    _, active = _forward(layers, points, slope)
    patterns = torch.cat(active, 1) if active else torch.zeros(len(points), 1, dtype=torch.bool, device=points.device)
    kept = representatives(patterns.int(), points.shape[1] + 1)
    triangle, ranks, start = None, [], 0
    found = (0, 0.0, 0.0)
    for stop in checkpoints:
        chosen = kept[(kept >= start) & (kept < stop)]
        rows = relu_jacobian_rows(layers, points[chosen], slope=slope).flatten(0, 1)
        triangle = streaming_qr_rank(triangle, rows)
        found = _rank(triangle, tolerance)
        ranks.append(found[0])
        start = stop
    return FunctionalDimension(checkpoints, ranks, found[1], found[2])


def plant_mechanism(layers: Layers, kind: Literal["dead", "linear", "apart"], *, far: float = 1e3) -> Layers:
    r"""Build a hidden symmetry into a network by hand.

    ``"dead"`` moves the hyperplane of the first hidden neuron so far away that it is never active; ``"linear"`` so
    far that it always is; ``"apart"`` gives the first neuron of the second hidden layer so negative a weight from the
    first neuron of the first layer that the two are hardly ever active together.

    Args:
        layers: The network; not changed. ``"apart"`` needs two hidden layers.
        kind: Which mechanism.
        far: The bias, or the size of the weight.

    Raises:
        ValueError: For an unknown kind, or too few layers.
    """
    require(kind in ("dead", "linear", "apart"), "a kind out of dead, linear, apart", repr(kind))
    require(len(layers) >= (3 if kind == "apart" else 2), "enough hidden layers", len(layers) - 1)
    planted = [(weight.clone(), bias.clone()) for weight, bias in layers]
    if kind == "apart":
        planted[1][0][0, 0] = -far
    else:
        planted[0][1][0] = far if kind == "linear" else -far
    return planted


def planted_deficit(widths: Sequence[int], kind: Literal["dead", "linear", "apart"]) -> int:
    """Directions that a planted mechanism takes from the functional dimension, at the least.

    A dead neuron: its incoming weights and its outgoing ones, ``n_0 + n_2`` (the bias it loses is the scale that was
    already counted). A neuron that is always active adds an affine function of the input, so its bias does what the
    next layer's biases can do: 1. Neurons that are never active together: the weight between them, 1.

    Args:
        widths: Widths of the network.
        kind: As in :func:`plant_mechanism`.

    Source:
        Own count, by the chain rule; exact for one hidden layer.
    """
    return widths[0] + widths[2] if kind == "dead" else 1
