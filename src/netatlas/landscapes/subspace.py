r"""Training in a random subspace: :math:`\theta = \theta_0 + P v`, a frozen random :math:`P`, few numbers :math:`v`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from netatlas.core.checks import require, require_finite
from netatlas.core.curvature import Params, flatten_params, unflatten_params
from netatlas.core.train import PerMember, minimize

# Sizes of the small Hadamard matrices that the transform is made of.
_RADIX = 16


def _hadamard(order: int, like: Tensor) -> Tensor:
    matrix = torch.ones(1, 1, dtype=like.dtype, device=like.device)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def walsh_hadamard(x: Float[Tensor, "*batch L"]) -> Float[Tensor, "*batch L"]:
    r"""The Walsh-Hadamard transform :math:`H_L x`, not normalised, in :math:`O(L \log L)`.

    .. math:: H_1 = 1, \qquad H_{2n} = \begin{pmatrix} H_n & H_n \\ H_n & -H_n \end{pmatrix}, \qquad H_L^2 = L\, I .

    :math:`H_{rs} = H_r \otimes H_s`, so that the transform is a few products with matrices of order up to 16.

    Args:
        x: ``[..., L]`` with L a power of two.

    Raises:
        ValueError: If L is not a power of two, or x is not floating-point.
    """
    size = x.shape[-1] if x.ndim else 0
    require(size >= 1 and size & (size - 1) == 0, "a length that is a power of two", size)
    require(x.is_floating_point(), "floating-point values", x.dtype)
    shape, done = x.shape, 1
    x = x.reshape(-1, size)
    while done < size:
        radix = min(_RADIX, size // done)
        # Each product turns the axes by one factor; after all factors they are back in their order.
        x = (x.reshape(-1, size // radix, radix) @ _hadamard(radix, x)).mT.reshape(-1, size)
        done *= radix
    return x.reshape(shape)


@dataclass(frozen=True)
class Projection:
    r"""A frozen random map :math:`v \mapsto P v` from d numbers to D parameters.

    Attributes:
        apply: ``[..., d]`` to ``[..., D]``, linear and differentiable.
        rows: The number of parameters D.
        columns: The dimension of the subspace d.
    """

    apply: Callable[[Tensor], Tensor]
    rows: int
    columns: int

    def __call__(self, v: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch D"]:
        """The product with one vector or many.

        Args:
            v: ``[..., d]``.

        Raises:
            ValueError: If the last axis is not d.
        """
        require(v.ndim >= 1 and v.shape[-1] == self.columns, f"vectors [..., {self.columns}]", tuple(v.shape))
        return self.apply(v)

    def matrix(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "D d"]:
        """The map as a matrix, for small cases.

        Args:
            dtype: Of the identity that is mapped; the map's own dtype.
        """
        return self(torch.eye(self.columns, dtype=dtype)).T


def _check_sizes(rows: int, columns: int) -> None:
    require(1 <= columns <= rows, f"a subspace of 1 to {rows} dimensions", columns)


def matrix_projection(matrix: Float[Tensor, "D d"]) -> Projection:
    """A given matrix as a projection, as it is.

    Args:
        matrix: ``[D, d]`` with d from 1 to D.

    Raises:
        ValueError: For another shape or NaN.
    """
    require(matrix.ndim == 2, "a matrix", tuple(matrix.shape))
    _check_sizes(*matrix.shape)
    require_finite("matrix", matrix)
    return Projection(lambda v: v @ matrix.T, *matrix.shape)


def dense_projection(
    rows: int, columns: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Projection:
    r"""Gaussian columns of unit length: :math:`P_{ij} \sim \mathcal N(0, 1)`, divided by :math:`\lVert P_{:j}\rVert`.

    Memory and time are :math:`O(D d)`. The length is taken over the whole parameter vector, so that a step of
    :math:`v` moves every network equally far.

    Args:
        rows: Parameters D.
        columns: Dimension d of the subspace, at most D.
        generator: Draws the entries.
        dtype: Of the matrix.

    Raises:
        ValueError: For a dimension out of range.

    Source: li2018intrinsic.
    """
    _check_sizes(rows, columns)
    matrix = torch.randn(rows, columns, generator=generator, device=generator.device, dtype=dtype)
    return matrix_projection(matrix / torch.linalg.vector_norm(matrix, dim=0))


class _SparseProduct(torch.autograd.Function):
    """P v and its gradient by gathers and one scatter each, in memory proportional to the entries."""

    @staticmethod
    def forward(ctx, v: Tensor, row: Tensor, column: Tensor, value: Tensor, rows: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(row, column, value)
        ctx.columns = v.shape[-1]
        return v.new_zeros(*v.shape[:-1], rows).index_add_(-1, row, v.index_select(-1, column) * value)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        row, column, value = ctx.saved_tensors
        back = grad.new_zeros(*grad.shape[:-1], ctx.columns)
        return back.index_add_(-1, column, grad.index_select(-1, row) * value), None, None, None, None


def sparse_projection(
    rows: int, columns: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Projection:
    r"""A very sparse projection: entries :math:`\pm 1` with probability :math:`1/\sqrt D`; columns of unit length.

    About :math:`d \sqrt D` entries are kept. A column that would be empty gets one entry.

    Args:
        rows: Parameters D.
        columns: Dimension d of the subspace, at most D.
        generator: Draws entries and signs.
        dtype: Of the entries.

    Raises:
        ValueError: For a dimension out of range.

    Source: li2018intrinsic.
    """
    _check_sizes(rows, columns)
    device = generator.device
    mean, spread = rows**0.5, (rows**0.5 - 1) ** 0.5
    counts = torch.randn(columns, generator=generator, device=device, dtype=torch.float64) * spread + mean
    # The binomial number of entries of a column is drawn by its normal approximation, above about 25 entries a
    # column; below, one uniform number an entry is cheap.
    if rows <= 1024:
        hit = torch.rand(columns, rows, generator=generator, device=device) * rows**0.5 < 1
        spare = torch.randint(rows, (columns,), generator=generator, device=device)
        hit[torch.arange(columns, device=device), spare] |= ~hit.any(1)
        column, row = hit.nonzero(as_tuple=True)
    else:
        counts = counts.round().long().clamp(1, rows)
        column = torch.repeat_interleave(torch.arange(columns, device=device), counts)
        row = torch.randint(rows, (len(column),), generator=generator, device=device)
        flat = torch.unique(column * rows + row)
        column, row = flat // rows, flat % rows
    sign = torch.randint(0, 2, (len(row),), generator=generator, device=device).to(dtype) * 2 - 1
    filled = torch.bincount(column, minlength=columns).to(dtype)
    value = sign / filled[column].sqrt()

    def apply(v: Tensor) -> Tensor:
        return _SparseProduct.apply(v, row, column, value, rows)

    return Projection(apply, rows, columns)


def fastfood_projection(
    rows: int, columns: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Projection:
    r"""The Fastfood transform: a random matrix that is never formed, in :math:`O(D \log D)` time.

    .. math:: P v = \frac{1}{\sqrt{D \sum_i g_i^2}}\; \bigl[H\, G\, \Pi\, H\, B\, (v, 0)\bigr]_{1..D}

    with the Walsh-Hadamard matrix :math:`H` of order :math:`L = 2^{\lceil \log_2 D \rceil}`, random signs :math:`B`, a
    random permutation :math:`\Pi` and a Gaussian diagonal :math:`G`: :math:`O(D)` numbers. Columns have length 1
    exactly for :math:`D = L`, nearly otherwise.

    Args:
        rows: Parameters D.
        columns: Dimension d of the subspace, at most D.
        generator: Draws signs, permutation and diagonal.
        dtype: Of the diagonals.

    Raises:
        ValueError: For a dimension out of range.

    Source: li2018intrinsic.
    """
    _check_sizes(rows, columns)
    device = generator.device
    size = 1 << max(rows - 1, 0).bit_length()
    signs = torch.randint(0, 2, (columns,), generator=generator, device=device).to(dtype) * 2 - 1
    order = torch.randperm(size, generator=generator, device=device)
    gauss = torch.randn(size, generator=generator, device=device, dtype=dtype)
    scaled = gauss / (rows * gauss.square().sum()).sqrt()
    period = 1 << max(columns - 1, 0).bit_length()

    def apply(v: Tensor) -> Tensor:
        short = torch.nn.functional.pad(v * signs, (0, period - columns))
        # Padding with zeros repeats the shorter transform: H_L (x, 0) = (H x, H x, ...).
        mixed = walsh_hadamard(short)[..., order % period]
        return walsh_hadamard(mixed * scaled)[..., :rows]

    return Projection(apply, rows, columns)


PROJECTIONS = {"dense": dense_projection, "sparse": sparse_projection, "fastfood": fastfood_projection}


def subspace_params(start: Params, projections: Sequence[Projection], v: Float[Tensor, "M d"]) -> Params:
    r"""Stacked parameters :math:`\theta_0 + P v`; consecutive members share a projection.

    Args:
        start: :math:`\theta_0`, ``[M, ...]`` each.
        projections: S of them, with S a divisor of M; the first serves the first M / S members, and so on.
        v: Coordinates ``[M, d]``.

    Raises:
        ValueError: If S does not divide M, or a projection does not fit the parameters.
    """
    origin = flatten_params(start, stacked=True)
    members, count = origin.shape
    require(
        len(projections) > 0 and members % len(projections) == 0,
        f"a divisor of {members} projections",
        len(projections),
    )
    require(all(p.rows == count for p in projections), f"projections to {count}", [p.rows for p in projections])
    groups = v.reshape(len(projections), -1, v.shape[-1])
    moved = torch.cat([projection(part) for projection, part in zip(projections, groups)])
    return unflatten_params(origin + moved, start, stacked=True)


def train_in_subspace(
    loss: Callable[[Params, int, torch.Generator], Tensor],
    start: Params,
    projections: Sequence[Projection],
    dims: Int[Tensor, " M"],
    *,
    steps: int,
    lr: PerMember,
    seed: int = 0,
) -> tuple[Params, Float[Tensor, "M d"], Float[Tensor, "steps M"]]:
    r"""Train only the coordinates :math:`v` of :math:`\theta_0 + P v`, from :math:`v = 0`, by Adam.

    Member m uses the first ``dims[m]`` columns of its projection, so that sweeps over d are one stack. The gradient is
    :math:`P^\top \nabla_\theta L`, by automatic differentiation.

    Args:
        loss: ``loss(params, step, generator)`` for stacked parameters, ``[M]``.
        start: The frozen :math:`\theta_0`, ``[M, ...]`` each.
        projections: As in :func:`subspace_params`.
        dims: Each member's dimension, from 0 (nothing is trained) to the projections' columns.
        steps: Adam steps.
        lr: Learning rate of :math:`v`, one for all or one a member.
        seed: Seeds the generator handed to ``loss``.

    Returns:
        Trained parameters, coordinates, and the losses of every step.

    Raises:
        ValueError: For dimensions out of range or counts that differ.

    Source: li2018intrinsic.
    """
    columns = projections[0].columns
    members = next(iter(start.values())).shape[0]
    require(len(dims) == members, f"{members} dimensions", len(dims))
    require(bool((dims >= 0).all() and (dims <= columns).all()), f"dimensions from 0 to {columns}", dims.tolist())
    like = next(iter(start.values()))
    mask = (torch.arange(columns, device=like.device) < dims.to(like.device)[:, None]).to(like.dtype)
    origin = flatten_params(start, stacked=True)

    def at(v: Tensor) -> Params:
        groups = (v * mask).reshape(len(projections), -1, columns)
        moved = torch.cat([projection(part) for projection, part in zip(projections, groups)])
        return unflatten_params(origin + moved, start, stacked=True)

    subspace_params(start, projections, torch.zeros_like(mask))
    found, history = minimize(
        lambda p, step, generator: loss(at(p["v"]), step, generator),
        {"v": torch.zeros_like(mask)},
        steps=steps,
        optimizer="adam",
        lr=lr,
        seed=seed,
    )
    v = found["v"] * mask
    return at(v), v, history


def intrinsic_dimension(dims: Sequence[int], scores: Sequence[float] | Float[np.ndarray, " n"], target: float) -> float:
    r"""The dimension at which a score first reaches its target, by interpolation in :math:`\log d`.

    Args:
        dims: Increasing subspace dimensions.
        scores: Score (accuracy) of each.
        target: For :math:`d_{int90}`, 0.9 times the score of training without a subspace.

    Returns:
        The dimension; ``inf`` if no score reaches the target, the first dimension if already that one does.

    Raises:
        ValueError: For dimensions that do not increase, lengths that differ, or NaN.

    Source: li2018intrinsic.
    """
    values = np.asarray(scores, dtype=float)
    require(len(dims) == len(values) and len(dims) > 0, f"{len(dims)} scores, one a dimension", len(values))
    require(all(a < b for a, b in zip(dims, dims[1:])) and dims[0] >= 1, "increasing dimensions", list(dims))
    require_finite("scores", values)
    reached = np.flatnonzero(values >= target)
    if len(reached) == 0:
        return math.inf
    first = int(reached[0])
    if first == 0:
        return float(dims[0])
    share = (target - values[first - 1]) / (values[first] - values[first - 1])
    return math.exp(math.log(dims[first - 1]) + share * math.log(dims[first] / dims[first - 1]))
