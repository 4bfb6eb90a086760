r"""Utilized rank: how much of its space a trained layer uses, by projecting the weight on where data are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


class UtilizedLayer(NamedTuple):
    """A layer's weight on the subspaces that data use.

    Attributes:
        weight: the projected weight, ``[m, n]``.
        output_only: the weight with its outputs projected alone, ``[m, n]``.
        input_only: the weight with its inputs projected alone, ``[m, n]``.
        input_rank: directions of the inputs that are kept.
        output_rank: directions of the outputs that are kept.
        factors: two matrices ``[m, r]`` and ``[r, n]`` whose product is the projected weight.
    """

    weight: Float[Tensor, "m n"]
    output_only: Float[Tensor, "m n"]
    input_only: Float[Tensor, "m n"]
    input_rank: int
    output_rank: int
    factors: tuple[Float[Tensor, "m r"], Float[Tensor, "r n"]]

    @property
    def rank(self) -> int:
        """The utilized rank, the smaller of the two."""
        return min(self.input_rank, self.output_rank)

    @property
    def utilization(self) -> float:
        """The utilized rank over the full one."""
        return self.rank / min(self.weight.shape)

    @property
    def parameters(self) -> int:
        """Numbers stored: two factors where that is less than the matrix, else the matrix."""
        m, n = self.weight.shape
        return min(self.rank * (m + n), m * n)


def activation_gram(batches: Iterable[Float[Tensor, "N ..."]]) -> Float[Tensor, "n n"]:
    r"""The Gram matrix of a layer's inputs, :math:`G = \sum_x x x^\top`, summed in double precision over batches.

    Tokens or patches count as rows of their own: all axes but the last are flattened.

    Args:
        batches: Inputs ``[N, ..., n]``; they are not kept.

    Raises:
        ValueError: For no batch, NaN, or widths that differ.
    """
    gram: Tensor | None = None
    for batch in batches:
        require_finite("batch", batch)
        require(batch.ndim >= 2, "batches of at least two axes", tuple(batch.shape))
        rows = batch.flatten(0, -2)
        # The product in the input's own precision is fast; its sum over batches is where digits would be lost.
        part = (rows.T @ rows).double()
        require(gram is None or gram.shape == part.shape, "batches of one width", tuple(batch.shape))
        gram = part if gram is None else gram + part
    if gram is None:
        raise ValueError("expected at least one batch, got none")
    return gram


def principal_directions(gram: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Energies in decreasing order and their directions as columns.

    Args:
        gram: Symmetric, positive semi-definite, ``[n, n]``.

    Raises:
        ValueError: For a matrix that is not square, or NaN.
    """
    require(gram.ndim == 2 and gram.shape[0] == gram.shape[1], "a square matrix", tuple(gram.shape))
    require_finite("gram", gram)
    values, vectors = torch.linalg.eigh(gram.double())
    return values.flip(0).clamp_min(0), vectors.flip(1)


def energy_directions(values: Float[Tensor, " n"], threshold: float) -> int:
    r"""Fewest leading directions with the share :math:`\tau` of the energy.

    .. math:: k = \min\{ k : \textstyle\sum_{i\le k} \lambda_i \ge \tau \sum_i \lambda_i \}

    Args:
        values: Energies in decreasing order ``[n]``, not negative.
        threshold: The share :math:`\tau`, in (0, 1].

    Raises:
        ValueError: For a share out of range or NaN.
    """
    require(0 < threshold <= 1, "a share of energy in (0, 1]", threshold)
    require_finite("values", values)
    tails = values.double().flip(0).cumsum(0).flip(0)
    if len(tails) == 0 or float(tails[0]) == 0:
        return 0
    # With the whole energy asked for, eigenvalues that are rounding errors must not count.
    floor = max(1 - threshold, len(tails) * torch.finfo(torch.float64).eps)
    return int((tails > floor * tails[0]).sum())


def output_directions(
    weight: Float[Tensor, "m n"], inputs: tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]
) -> tuple[Float[Tensor, " m"], Float[Tensor, "m m"]]:
    r"""Energies and directions of a layer's outputs, of :math:`G_T = W G_S W^\top`, from those of its inputs.

    Args:
        weight: ``[m, n]``.
        inputs: From :func:`principal_directions`.

    Raises:
        ValueError: For an empty matrix, shapes that do not fit, or NaN.
    """
    require(weight.ndim == 2 and weight.numel() > 0, "a matrix that is not empty", tuple(weight.shape))
    require_finite("weight", weight)
    values, directions = inputs
    require(len(values) == weight.shape[1], f"inputs of width {weight.shape[1]}", len(values))
    through = weight.double() @ (directions * values.sqrt())
    return principal_directions(through @ through.T)


def utilized_layer(
    weight: Float[Tensor, "m n"],
    gram: Float[Tensor, "n n"] | tuple[Float[Tensor, " n"], Float[Tensor, "n n"]],
    threshold: float,
    outputs: tuple[Float[Tensor, " m"], Float[Tensor, "m m"]] | None = None,
) -> UtilizedLayer:
    r"""Project a weight on the subspaces where it meets the data.

    .. math:: W' = P_T\, W\, P_S, \qquad G_S = \sum_x x x^\top,\qquad G_T = W G_S W^\top

    :math:`P_S` and :math:`P_T` project on the leading eigenvectors of :math:`G_S` and :math:`G_T` that hold the
    share :math:`\tau` of their energy. The bias is no part of :math:`G_T`.

    Args:
        weight: ``[m, n]``; a convolution's as ``[channels out, channels in x kernel]``.
        gram: The inputs' Gram matrix (:func:`activation_gram`) or its energies and directions
            (:func:`principal_directions`), which saves the decomposition when many weights meet the same inputs.
        threshold: The share :math:`\tau`, in (0, 1].
        outputs: From :func:`output_directions`, to be reused at many thresholds; found here if omitted.

    Raises:
        ValueError: For shapes that do not fit, NaN, or a share out of range.

    Source:
        garg2024utilized.
    """
    values, directions = gram if isinstance(gram, tuple) else principal_directions(gram)
    out_values, out_directions = output_directions(weight, (values, directions)) if outputs is None else outputs
    require(len(out_values) == weight.shape[0], f"outputs of width {weight.shape[0]}", len(out_values))
    w = weight.double()
    k_s, k_t = energy_directions(values, threshold), energy_directions(out_values, threshold)
    source, target = directions[:, :k_s], out_directions[:, :k_t]
    input_only = (w @ source) @ source.T
    output_only = target @ (target.T @ w)
    factors = (target, target.T @ input_only) if k_t <= k_s else (target @ (target.T @ (w @ source)), source.T)
    parts = (factors[0] @ factors[1], output_only, input_only)
    left, right = (f.to(weight.dtype) for f in factors)
    return UtilizedLayer(*(part.to(weight.dtype) for part in parts), k_s, k_t, (left, right))


def mean_layer_utilization(layers: Iterable[UtilizedLayer]) -> float:
    """The mean over layers of utilized rank over full rank.

    Args:
        layers: At least one.

    Raises:
        ValueError: For no layers.
    """
    shares = [layer.utilization for layer in layers]
    require(len(shares) > 0, "at least one layer", 0)
    return sum(shares) / len(shares)


def layer_error(weight: Tensor, other: Tensor, gram: Float[Tensor, "n n"]) -> float:
    r"""Squared error of a layer's outputs on the data.

    .. math:: \lVert (W - W') X \rVert_F^2 = \operatorname{tr}[(W - W')\, G\, (W - W')^\top]

    Args:
        weight, other: ``[m, n]``.
        gram: ``[n, n]``.
    """
    difference = (weight.double() - other.double()).to(gram.device)
    return float((difference @ gram * difference).sum())
