r"""Trained rank pruning: low-rank approximation again and again while training, and the decomposition at its end.

A kernel ``[N, C, kh, kw]`` becomes a matrix in one of two ways. Channel-wise it is :math:`N \times C k_h k_w`, and a
rank-:math:`k` kernel is a :math:`k_h \times k_w` convolution followed by a :math:`1 \times 1` one. Spatial-wise it is
:math:`C k_h \times N k_w`, and a rank-:math:`k` kernel is a :math:`k_h \times 1` convolution followed by a
:math:`1 \times k_w` one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite

from .manifold import energy_rank

Scheme = Literal["spatial", "channel"]


def kernel_matrix(kernel: Float[Tensor, "*M N C kh kw"], scheme: Scheme) -> Float[Tensor, "*M a b"]:
    """The matrix of a convolution's kernel in a scheme.

    Args:
        kernel: ``[..., N, C, kh, kw]``.
        scheme: ``"spatial"`` for ``[..., C kh, N kw]``, ``"channel"`` for ``[..., N, C kh kw]``.

    Raises:
        ValueError: For an unknown scheme or fewer than four axes.
    """
    require(kernel.ndim >= 4, "a kernel of at least four axes", tuple(kernel.shape))
    require(scheme in ("spatial", "channel"), "a scheme out of spatial, channel", repr(scheme))
    if scheme == "channel":
        return kernel.flatten(-3)
    return kernel.movedim(-4, -2).flatten(-2).flatten(-3, -2)


def matrix_kernel(
    matrix: Float[Tensor, "*M a b"], shape: Sequence[int], scheme: Scheme
) -> Float[Tensor, "*M N C kh kw"]:
    """The kernel of a matrix: the inverse of :func:`kernel_matrix`.

    Args:
        matrix: ``[..., a, b]``.
        shape: The kernel's ``(N, C, kh, kw)``.
        scheme: See :func:`kernel_matrix`.

    Raises:
        ValueError: For an unknown scheme.
    """
    require(scheme in ("spatial", "channel"), "a scheme out of spatial, channel", repr(scheme))
    n, c, kh, kw = shape
    if scheme == "channel":
        return matrix.unflatten(-1, (c, kh, kw))
    return matrix.unflatten(-2, (c, kh)).unflatten(-1, (n, kw)).movedim(-2, -4)


def truncate_energy(
    matrix: Float[Tensor, "*M a b"], loss: float | Float[Tensor, "*M"]
) -> tuple[Float[Tensor, "*M a b"], Int[Tensor, "*M"], Float[Tensor, "*M a b"]]:
    r"""The approximation :math:`D(W)` that loses at most a share of the squared singular values, for a stack.

    Args:
        matrix: ``[..., a, b]``.
        loss: The share :math:`e`, one for all or one a matrix.

    Returns:
        The approximation :math:`U_k S_k V_k^\top`, the ranks :math:`k`, and :math:`U_k V_k^\top`, a sub-gradient of
        the nuclear norm at the approximation.

    Raises:
        ValueError: For NaN or a share out of [0, 1].

    Source:
        xu2018trp.
    """
    require_finite("matrix", matrix)
    wide = matrix.shape[-1] > matrix.shape[-2]
    u, s, vt = torch.linalg.svd(matrix.transpose(-1, -2) if wide else matrix, full_matrices=False)
    if wide:
        u, vt = vt.transpose(-1, -2), u.transpose(-1, -2)
    rank = energy_rank(s, loss)
    keep = torch.arange(s.shape[-1], device=s.device) < rank[..., None]
    used = u * keep[..., None, :]
    return (used * s[..., None, :]) @ vt, rank, used @ vt


def decompose(layer: nn.Conv2d, rank: int, scheme: Scheme, *, padding: tuple[int, int] | None = None) -> nn.Sequential:
    """Two convolutions of lower cost in the place of one.

    Args:
        layer: A convolution of stride 1 without groups.
        rank: Channels between the two, from 1 to the matrix's full rank.
        scheme: ``"spatial"``: a vertical, then a horizontal one; ``"channel"``: a full one, then one of 1 x 1.
        padding: Rows and columns of zeros; the layer's own if omitted.

    Raises:
        ValueError: For a stride, a group, a dilation, or a rank out of range.

    Source:
        xu2018trp.
    """
    require(
        layer.stride == (1, 1)
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and not isinstance(layer.padding, str)
        and layer.padding_mode == "zeros",
        "a convolution of stride 1 without groups or dilation, its padding zeros in numbers",
        (layer.stride, layer.groups, layer.dilation, layer.padding, layer.padding_mode),
    )
    weight = layer.weight.detach()
    n, c, kh, kw = weight.shape
    matrix = kernel_matrix(weight, scheme)
    full = min(matrix.shape)
    require(1 <= rank <= full, f"a rank from 1 to {full}", rank)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    left, right = u[:, :rank] * s[:rank].sqrt(), s[:rank].sqrt()[:, None] * vt[:rank]
    ph, pw = layer.padding if padding is None else padding  # type: ignore[misc]
    bias = layer.bias is not None
    options = {"device": weight.device, "dtype": weight.dtype}
    if scheme == "spatial":
        first = nn.Conv2d(c, rank, (kh, 1), padding=(ph, 0), bias=False, **options)
        second = nn.Conv2d(rank, n, (1, kw), padding=(0, pw), bias=bias, **options)
        kernels = left.T.reshape(rank, c, kh, 1), right.reshape(rank, n, kw).movedim(0, 1)[:, :, None]
    else:
        first = nn.Conv2d(c, rank, (kh, kw), padding=(ph, pw), bias=False, **options)
        second = nn.Conv2d(rank, n, 1, bias=bias, **options)
        kernels = right.reshape(rank, c, kh, kw), left[..., None, None]
    with torch.no_grad():
        for convolution, kernel in zip((first, second), kernels):
            convolution.weight.copy_(kernel)
        if layer.bias is not None and second.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def decomposed_cost(shape: Sequence[int], rank: int | Tensor, scheme: Scheme) -> int | Tensor:
    r"""Multiplications at one output pixel of a decomposed convolution.

    .. math:: k\,(C k_h + N k_w) \quad\text{(spatial)}, \qquad k\,(C k_h k_w + N) \quad\text{(channel)}

    Args:
        shape: The kernel's ``(N, C, kh, kw)``; the dense one costs their product.
        rank: The rank :math:`k`.
        scheme: See :func:`kernel_matrix`.
    """
    n, c, kh, kw = shape
    return rank * (c * kh + n * kw if scheme == "spatial" else c * kh * kw + n)


def flops_ratio(
    shapes: Mapping[str, Sequence[int]], ranks: Mapping[str, Tensor], areas: Mapping[str, int], scheme: Scheme
) -> Tensor:
    r"""Multiplications of the dense convolutions over those of the decomposed ones.

    Args:
        shapes: Kernel shapes ``(N, C, kh, kw)`` by layer.
        ranks: Ranks by layer, each ``[...]``.
        areas: Output pixels by layer.
        scheme: See :func:`kernel_matrix`.

    Raises:
        ValueError: For layers that differ, or ranks of 0 everywhere.
    """
    require(
        set(shapes) == set(ranks) == set(areas) and len(shapes) > 0, "the same layers", (sorted(shapes), sorted(ranks))
    )
    dense = sum(areas[k] * torch.tensor(shapes[k]).prod().item() for k in shapes)
    left = sum(areas[k] * decomposed_cost(shapes[k], ranks[k].double(), scheme) for k in shapes)
    require(bool((torch.as_tensor(left) > 0).all()), "a rank of at least 1 in some layer", 0)
    return dense / torch.as_tensor(left)
