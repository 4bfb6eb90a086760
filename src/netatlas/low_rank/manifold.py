r"""Weights on the manifold of rank-:math:`r` matrices, :math:`W = U S V^\top` with orthonormal bases.

The factors have room for ``R`` columns of which the first ``r`` are in use; the others are zero. One stack of layers
can then hold layers of different ranks.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite


def orthonormal_basis(
    columns: Float[Tensor, "*M m k"], count: Int[Tensor, "*M"] | int | None = None
) -> Float[Tensor, "*M m k"]:
    r"""Orthonormal columns that span the given ones, by Householder QR.

    Linearly dependent columns are completed to a basis, which Cholesky QR would not survive.

    Args:
        columns: ``[..., m, k]`` with ``k <= m``.
        count: How many of the leading columns are meant, one number a matrix; the columns after them come out as zero.

    Raises:
        ValueError: For more columns than rows, or NaN.
    """
    require(columns.shape[-1] <= columns.shape[-2], "at most as many columns as rows", tuple(columns.shape))
    require_finite("columns", columns)
    basis, triangle = torch.linalg.qr(columns)
    # Signs that continue the given columns: a basis must not jump when its columns move a little.
    sign = torch.where(torch.diagonal(triangle, dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(basis)
    basis = basis * sign[..., None, :]
    if count is None:
        return basis
    keep = (
        torch.arange(columns.shape[-1], device=columns.device)
        < torch.as_tensor(count, device=columns.device)[..., None]
    )
    return basis * keep[..., None, :]


def tail_rank(
    values: Float[Tensor, "*M k"], tolerance: float | Tensor, *, smallest: int = 1, largest: int | None = None
) -> Int[Tensor, "*M"]:
    r"""The least rank whose discarded singular values are small against all of them.

    .. math:: r = \min\Bigl\{ r : \bigl(\textstyle\sum_{i>r} d_i^2\bigr)^{1/2} \le \tau\, \lVert d \rVert_2 \Bigr\}

    Args:
        values: Singular values in decreasing order, ``[..., k]``.
        tolerance: The relative tolerance :math:`\tau`, at least 0, one for all or one a matrix.
        smallest: Lower bound of the rank.
        largest: Upper bound of the rank; ``k`` if omitted.

    Raises:
        ValueError: For a negative tolerance, NaN, or bounds that exclude each other.
    """
    relative = torch.as_tensor(tolerance, dtype=torch.float64, device=values.device)
    require(relative.device.type == "meta" or bool((relative >= 0).all()), "a tolerance of at least 0", tolerance)
    require_finite("values", values)
    largest = values.shape[-1] if largest is None else min(largest, values.shape[-1])
    require(0 <= smallest <= largest, f"a smallest rank from 0 to {largest}", smallest)
    square = values.double().square()
    # tails[r] is the energy of what rank r leaves out: summed from the small end, so that no digits are lost.
    tails = nn.functional.pad(square.flip(-1).cumsum(-1).flip(-1), (0, 1))
    rank = (tails[..., :-1] > relative.square()[..., None] * tails[..., :1]).sum(-1)
    return rank.clamp(smallest, largest)


def energy_rank(values: Float[Tensor, "*M k"], loss: float | Float[Tensor, "*M"]) -> Int[Tensor, "*M"]:
    r"""The least rank that keeps the share :math:`1 - e` of the squared singular values.

    .. math:: k = \min\Bigl\{ k : \textstyle\sum_{i \le k} s_i^2 \ge (1 - e) \sum_i s_i^2 \Bigr\}

    Args:
        values: Singular values in decreasing order, ``[..., k]``; not squared.
        loss: The share :math:`e` of energy that may be lost, from 0 to 1, one for all or one a matrix.

    Returns:
        Ranks ``[...]``; 0 for a matrix of zeros.

    Raises:
        ValueError: For a share out of [0, 1] or NaN.
    """
    share = torch.as_tensor(loss, dtype=torch.float64, device=values.device)
    if share.device.type != "meta":
        require(bool(((share >= 0) & (share <= 1)).all()), "a share of energy from 0 to 1", loss)
    require_finite("values", values)
    square = values.double().square()
    tails = nn.functional.pad(square.flip(-1).cumsum(-1).flip(-1), (0, 1))
    return (tails[..., :-1] > share[..., None] * tails[..., :1]).sum(-1)


def svd_truncation(matrix: Float[Tensor, "*M m n"], rank: Int[Tensor, "*M"] | int) -> Float[Tensor, "*M m n"]:
    """The best approximation of a given rank in the Frobenius and the spectral norm, for each matrix of a stack.

    Args:
        matrix: ``[..., m, n]``.
        rank: One for all or one a matrix, from 0; a rank beyond ``min(m, n)`` changes nothing.

    Raises:
        ValueError: For NaN or a negative rank.
    """
    require_finite("matrix", matrix)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    ranks = torch.as_tensor(rank, device=matrix.device)
    if ranks.device.type != "meta":
        require(bool((ranks >= 0).all()), "ranks of at least 0", rank)
    keep = torch.arange(s.shape[-1], device=s.device) < ranks[..., None]
    return (u * (s * keep)[..., None, :]) @ vt


def low_rank_factors(
    weight: Float[Tensor, "m n"], rank: int, room: int | None = None
) -> tuple[Float[Tensor, "m R"], Float[Tensor, "R R"], Float[Tensor, "n R"]]:
    r"""The factors :math:`U, S, V` of a matrix's best approximation of a given rank.

    Args:
        weight: ``[m, n]``.
        rank: The rank, from 0 to ``min(m, n)``.
        room: Columns ``R`` of the factors, at least ``rank``; ``rank`` if omitted.

    Raises:
        ValueError: For a rank or room out of range, an empty matrix, or NaN.
    """
    require(weight.ndim == 2 and weight.numel() > 0, "a matrix that is not empty", tuple(weight.shape))
    require(0 <= rank <= min(weight.shape), f"a rank from 0 to {min(weight.shape)}", rank)
    room = rank if room is None else room
    require(rank <= room <= min(weight.shape), f"room for {rank} to {min(weight.shape)} columns", room)
    require_finite("weight", weight)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    pad = nn.functional.pad
    extra = (0, room - rank)
    return pad(u[:, :rank], extra), torch.diag(pad(s[:rank], extra)), pad(vt[:rank].T, extra)


class LowRankLinear(nn.Module):
    r"""A linear layer on the manifold of low-rank matrices, :math:`y = U S V^\top x + b`; the matrix is never formed.

    Args:
        inputs: Input width ``n``.
        outputs: Output width ``m``.
        rank: Columns of the factors in use at the start.
        room: Columns there is room for; ``rank`` if omitted.
        bias: Whether there is a bias.

    Shapes:
        ``[..., n]`` to ``[..., m]``; ``U`` is ``[m, R]``, ``S`` is ``[R, R]``, ``V`` is ``[n, R]``.

    Raises:
        ValueError: For a rank below 1 or beyond ``min(m, n)``.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, room: int | None = None, bias: bool = True) -> None:
        super().__init__()
        room = rank if room is None else room
        require(1 <= rank <= room <= min(inputs, outputs), f"1 <= rank <= room <= {min(inputs, outputs)}", (rank, room))
        weight = torch.empty(outputs, inputs)
        nn.init.kaiming_uniform_(weight, a=5**0.5)
        self.U, self.S, self.V = (nn.Parameter(f) for f in low_rank_factors(weight, rank, room))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("rank", torch.tensor(rank))

    @classmethod
    def from_linear(cls, layer: nn.Linear, rank: int, *, room: int | None = None) -> LowRankLinear:
        """The layer of a given rank that is closest to a dense one."""
        made = cls(layer.in_features, layer.out_features, rank, room=room, bias=layer.bias is not None)
        made.to(layer.weight)
        with torch.no_grad():
            for own, factor in zip((made.U, made.S, made.V), low_rank_factors(layer.weight, rank, made.U.shape[1])):
                own.copy_(factor)
            if made.bias is not None:
                made.bias.copy_(layer.bias)
        return made

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        y = x @ self.V @ self.S.transpose(-1, -2) @ self.U.transpose(-1, -2)
        return y if self.bias is None else y + self.bias

    def weight(self) -> Float[Tensor, "m n"]:
        """The matrix itself, for checks."""
        return self.U @ self.S @ self.V.transpose(-1, -2)


class LowRankConv(nn.Module):
    r"""A convolution whose kernel, as a matrix of :math:`N \times C k_h k_w`, is :math:`U S V^\top`: two convolutions.

    Args:
        inputs: Input channels ``C``.
        outputs: Output channels ``N``.
        kernel: Side of the square kernel.
        rank: Columns of the factors.
        padding: Zeros on each side.
        bias: Whether there is a bias.

    Shapes:
        ``[B, C, H, W]`` to ``[B, N, H', W']``.

    Raises:
        ValueError: For a rank below 1 or beyond the matrix's.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, rank: int, *, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        full = min(outputs, inputs * kernel * kernel)
        require(1 <= rank <= full, f"a rank from 1 to {full}", rank)
        weight = torch.empty(outputs, inputs * kernel * kernel)
        nn.init.kaiming_uniform_(weight, a=5**0.5)
        self.U, self.S, self.V = (nn.Parameter(f) for f in low_rank_factors(weight, rank))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.shape, self.padding = (inputs, kernel, kernel), padding
        self.register_buffer("rank", torch.tensor(rank))

    @classmethod
    def from_conv(cls, layer: nn.Conv2d, rank: int) -> LowRankConv:
        """The convolution of a given rank whose kernel is closest to a dense one's; of stride 1 and square kernels."""
        require(
            layer.stride == layer.dilation == (1, 1) and len(set(layer.kernel_size)) == 1 and layer.groups == 1,
            "a square kernel of stride 1 without groups or dilation",
            (layer.kernel_size, layer.stride, layer.groups, layer.dilation),
        )
        plain = not isinstance(layer.padding, str) and len(set(layer.padding)) == 1 and layer.padding_mode == "zeros"
        require(plain, "one number of zeros for padding on all sides", (layer.padding, layer.padding_mode))
        made = cls(
            layer.in_channels, layer.out_channels, layer.kernel_size[0], rank,
            padding=int(layer.padding[0]), bias=layer.bias is not None,
        ).to(layer.weight)  # fmt: skip
        with torch.no_grad():
            for own, factor in zip((made.U, made.S, made.V), low_rank_factors(layer.weight.flatten(1), rank)):
                own.copy_(factor)
            if made.bias is not None:
                made.bias.copy_(layer.bias)
        return made

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N H2 W2"]:
        inner = nn.functional.conv2d(x, self.V.transpose(-1, -2).unflatten(-1, self.shape), padding=self.padding)
        return nn.functional.conv2d(inner, (self.U @ self.S)[..., None, None], self.bias)


class FactorizedLinear(nn.Module):
    r"""A linear layer as a plain product of two trained factors, :math:`y = A B^\top x + b`.

    Args:
        inputs: Input width ``n``.
        outputs: Output width ``m``.
        rank: Columns of the factors ``A [m, r]`` and ``B [n, r]``.
        bias: Whether there is a bias.

    Raises:
        ValueError: For a rank below 1 or beyond ``min(m, n)``.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        require(1 <= rank <= min(inputs, outputs), f"a rank from 1 to {min(inputs, outputs)}", rank)
        weight = torch.empty(outputs, inputs)
        nn.init.kaiming_uniform_(weight, a=5**0.5)
        u, s, v = low_rank_factors(weight, rank)
        root = s.diagonal().sqrt()
        self.A, self.B = nn.Parameter(u * root), nn.Parameter(v * root)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        y = x @ self.B @ self.A.transpose(-1, -2)
        return y if self.bias is None else y + self.bias
