r"""One factor of an adapter frozen: least squares for :math:`W_0 + B A` with a random :math:`A` or :math:`B`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


def haar_orthonormal(rows: int, columns: int, *, draws: int = 1, generator: torch.Generator) -> Float[Tensor, "k r n"]:
    """Orthonormal rows in directions of equal probability.

    Args:
        rows: At most ``columns``.
        columns: Their length.
        draws: How many matrices.
        generator: Draws them.

    Raises:
        ValueError: For more rows than columns or fewer than one.
    """
    require(1 <= rows <= columns, f"1 to {columns} rows", rows)
    normal = torch.randn(draws, columns, rows, dtype=torch.float64, generator=generator, device=generator.device)
    q, r = torch.linalg.qr(normal)
    # The factor's signs follow the algorithm; with a positive diagonal the distribution is Haar's.
    return (q * torch.sgn(torch.diagonal(r, dim1=-2, dim2=-1))[..., None, :]).transpose(-1, -2)


def best_second_factor(
    change: Float[Tensor, "*M m n"], covariance: Float[Tensor, "n n"], frozen: Float[Tensor, "*M r n"]
) -> Float[Tensor, "*M m r"]:
    r"""The best :math:`B` for a frozen :math:`A = Q`: :math:`B^* = D \Sigma Q^\top (Q \Sigma Q^\top)^{-1}`.

    Args:
        change: What is to be learned, :math:`D` ``[..., m, n]``.
        covariance: Of the inputs, :math:`\Sigma` ``[n, n]``.
        frozen: :math:`Q` ``[..., r, n]``.

    Source:
        zhu2024asymmetry.
    """
    right = change @ covariance @ frozen.transpose(-1, -2)
    return torch.linalg.solve(frozen @ covariance @ frozen.transpose(-1, -2), right, left=False)


def best_first_factor(change: Float[Tensor, "*M m n"], frozen: Float[Tensor, "*M m r"]) -> Float[Tensor, "*M r n"]:
    r"""The best :math:`A` for a frozen orthonormal :math:`B = U`: :math:`A^* = U^\top D`, whatever the inputs.

    Args:
        change: What is to be learned, :math:`D` ``[..., m, n]``.
        frozen: :math:`U` ``[..., m, r]``.

    Source:
        zhu2024asymmetry.
    """
    return frozen.transpose(-1, -2) @ change


def excess_loss(
    change: Float[Tensor, "*M m n"], covariance: Float[Tensor, "n n"], update: Float[Tensor, "*M m n"]
) -> Float[Tensor, "*M"]:
    r"""Expected squared error that remains, :math:`\operatorname{tr}[(D - BA) \Sigma (D - BA)^\top]`.

    Args:
        change: :math:`D` ``[..., m, n]``.
        covariance: :math:`\Sigma` ``[n, n]``, symmetric.
        update: :math:`BA` ``[..., m, n]``.

    Raises:
        ValueError: For shapes that do not fit, NaN, or a covariance that is not symmetric.
    """
    require(change.shape[-2:] == update.shape[-2:], "an update of the change's shape", tuple(update.shape))
    require(
        tuple(covariance.shape) == (change.shape[-1],) * 2,
        f"a covariance of side {change.shape[-1]}",
        tuple(covariance.shape),
    )
    require_finite("covariance", covariance)
    symmetric = covariance.device.type == "meta" or torch.allclose(covariance, covariance.T)
    require(symmetric, "a symmetric covariance", "one that is not")
    rest = change - update
    return torch.einsum("...ij,jk,...ik->...", rest, covariance, rest)


def frozen_factor_shares(
    change: Float[Tensor, "k m n"], covariance: Float[Tensor, "n n"], rank: int, *, generator: torch.Generator
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    r"""The share of the loss that remains with a random frozen :math:`A`, and with a random frozen :math:`B`.

    For isotropic inputs the means are :math:`1 - r/n` and :math:`1 - r/m`; the second holds for any inputs.

    Args:
        change: Draws of :math:`D`, ``[k, m, n]``.
        covariance: :math:`\Sigma` ``[n, n]``.
        rank: :math:`r`.
        generator: Draws the frozen factors.

    Source:
        zhu2024asymmetry.
    """
    draws, m, n = change.shape
    total = excess_loss(change, covariance, torch.zeros_like(change))
    q = haar_orthonormal(rank, n, draws=draws, generator=generator)
    u = haar_orthonormal(rank, m, draws=draws, generator=generator).transpose(-1, -2)
    freeze_a = excess_loss(change, covariance, best_second_factor(change, covariance, q) @ q)
    freeze_b = excess_loss(change, covariance, u @ best_first_factor(change, u))
    return freeze_a / total, freeze_b / total


def generalization_bound(
    shapes: list[tuple[int, int]], rank: int, samples: int, *, train: str, bits: int = 16, spread: float = 1.0
) -> float:
    r"""The information-theoretic bound on the generalisation gap.

    .. math:: \sqrt{2 s^2 \ln 2 \cdot q\, r \textstyle\sum_l d_l / n}

    Args:
        shapes: ``(outputs, inputs)`` of the adapted layers.
        rank: :math:`r`.
        samples: :math:`n`.
        train: ``"B"`` counts outputs, ``"A"`` inputs, ``"both"`` their sum.
        bits: :math:`q` a parameter.
        spread: Sub-Gaussian constant :math:`s` of the loss.

    Raises:
        ValueError: For sizes below 1 or an unknown choice of factors.

    Source:
        zhu2024asymmetry.
    """
    require(min(rank, samples, bits) >= 1 and len(shapes) > 0, "positive sizes", (rank, samples, bits, len(shapes)))
    sums = {"B": sum(m for m, _ in shapes), "A": sum(n for _, n in shapes), "both": sum(m + n for m, n in shapes)}
    require(train in sums, "A, B or both", repr(train))
    return math.sqrt(2 * spread**2 * math.log(2) * bits * rank * sums[train] / samples)


def cca_fit(first: Float[Tensor, "*M n r"], second: Float[Tensor, "*M n r"]) -> Float[Tensor, "*M"]:
    r"""How far two :math:`r`-dimensional spaces agree, :math:`\tfrac1r \lVert Q_1^\top Q_2 \rVert_F^2`, from 0 to 1.

    Independent random spaces give :math:`r/n` in the mean.

    Args:
        first, second: Columns that span the spaces, ``[..., n, r]``.

    Raises:
        ValueError: For shapes that differ, more columns than rows, or NaN.
    """
    require(first.shape == second.shape, "two spaces of one shape", (tuple(first.shape), tuple(second.shape)))
    require(first.shape[-1] <= first.shape[-2], "at most as many columns as rows", tuple(first.shape))
    require_finite("first", first)
    require_finite("second", second)
    q1, q2 = torch.linalg.qr(first)[0], torch.linalg.qr(second)[0]
    return (q1.transpose(-1, -2) @ q2).square().sum((-2, -1)) / first.shape[-1]
