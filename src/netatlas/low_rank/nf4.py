r"""Four-bit NormalFloat quantisation with double quantisation, and linear layers that store their weights so.

A block of 64 weights is divided by its largest modulus, and each weight becomes the nearest of sixteen levels, the
quantiles of a normal distribution. The moduli themselves are stored in eight bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.stats import norm
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite

NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def normal_float_levels(offset: float = 0.9677083) -> Float[Tensor, "16"]:
    r"""The sixteen levels from their definition: normal quantiles over the largest, 7 negative, an exact 0, 8 positive.

    Args:
        offset: The probability of the outermost quantile.

    Raises:
        ValueError: For a probability out of (1/2, 1).
    """
    require(0.5 < offset < 1, "a probability in (1/2, 1)", offset)
    positive = norm.ppf(torch.linspace(offset, 0.5, 9, dtype=torch.float64)[:-1].numpy())
    negative = -norm.ppf(torch.linspace(offset, 0.5, 8, dtype=torch.float64)[:-1].numpy())
    levels = torch.tensor([*negative, 0.0, *positive[::-1]], dtype=torch.float64).sort()[0]
    return levels / levels.abs().max()


def uniform_levels(bits: int, *, symmetric: bool = True) -> Float[Tensor, " k"]:
    r"""Equally spaced levels.

    .. math:: \{-k, \dots, k\} / k,\; k = 2^{b-1} - 1, \qquad\text{or}\qquad \{-2^{b-1}, \dots, 2^{b-1} - 1\} / 2^{b-1}

    Args:
        bits: From 2 to 8.
        symmetric: The first of the two.

    Raises:
        ValueError: For another number of bits.
    """
    require(2 <= bits <= 8, "2 to 8 bits", bits)
    half = 2 ** (bits - 1)
    return torch.arange(1 - half, half) / (half - 1) if symmetric else torch.arange(-half, half) / half


class Quantized(NamedTuple):
    """A tensor in few bits.

    Attributes:
        packed: codes, two a byte, ``[ceil(N / 2)]`` of uint8; the last block is padded.
        scales: the blocks' largest moduli, ``[B]``: float32, or int8 codes after double quantisation.
        scale_of_scales: float32, one for each 256 of them; empty without double quantisation.
        offset: their mean, which was subtracted; 0 without double quantisation.
        levels: the code book.
        shape: the tensor's shape.
        block: weights a block.
    """

    packed: Tensor
    scales: Tensor
    scale_of_scales: Tensor
    offset: Tensor
    levels: Tensor
    shape: torch.Size
    block: int

    @property
    def bits_per_weight(self) -> float:
        """Bits of all stored arrays but the code book, over the number of weights."""
        parts = (self.packed, self.scales, self.scale_of_scales, self.offset)
        return 8 * sum(p.numel() * p.element_size() for p in parts) / max(math.prod(self.shape), 1)


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    """Position of the nearest level, as uint8; a tie goes to the lower one."""
    codes = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
    middles = ((levels[1:] + levels[:-1]) / 2).tolist()
    # Counting the midpoints below beats a binary search for so few of them; pieces of this size stay in the cache.
    for piece, code in zip(values.split(2**10), codes.split(2**10)):
        for middle in middles:
            code += piece > middle
    return codes


def quantize(
    weight: Float[Tensor, "..."], levels: Tensor | None = None, *, block: int = 64, double: bool = True
) -> Quantized:
    r"""Quantise blocks of a tensor to the nearest level of a code book.

    .. math:: k = \arg\min_k |w / c - \ell_k|, \qquad c = \max_{\text{block}} |w|

    Double quantisation subtracts the mean of the :math:`c` and stores the rest as integers from -127 to 127 times
    one float for each 256 blocks. (QLoRA stores an eight-bit float there; the integers cost the same bits.)

    Args:
        weight: Floating point, any shape, not empty; the flattened tensor is cut into blocks, the last one padded.
        levels: Code book of 2 to 16 levels in increasing order with -1 and 1 its bounds; NF4 if omitted.
        block: Weights a block, even.
        double: Whether the blocks' scales are quantised too.

    Raises:
        ValueError: For an empty or integer tensor, NaN or infinity, or an impossible block or code book.

    Source:
        ethiraj2025tslam.
    """
    require(weight.is_floating_point() and weight.numel() > 0, "floating-point weights, at least one", weight.dtype)
    require(block >= 2 and block % 2 == 0, "an even block", block)
    require_finite("weight", weight)
    book = torch.tensor(NF4_LEVELS) if levels is None else levels.float()
    require(2 <= len(book) <= 16 and bool((book.diff() > 0).all()), "2 to 16 increasing levels", book.tolist())
    book = book.to(weight.device)
    flat = weight.detach().float().flatten()
    flat = nn.functional.pad(flat, (0, -len(flat) % block)).reshape(-1, block)
    scales = flat.abs().amax(1)
    # A block of zeros has no scale to be divided by; its codes then mean zero whatever the scale.
    codes = _nearest(flat / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None], book)
    codes = codes.flatten()
    packed = (codes[0::2] << 4) | codes[1::2]
    offset, outer = scales.new_zeros(1), scales.new_zeros(0)
    if double:
        offset = scales.mean(0, keepdim=True)
        rest = nn.functional.pad(scales - offset, (0, -len(scales) % 256)).reshape(-1, 256)
        outer = rest.abs().amax(1) / 127
        integers = (rest / outer.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().clamp(-127, 127)
        scales = integers.flatten()[: len(scales)].to(torch.int8)
    return Quantized(packed, scales, outer, offset, book, weight.shape, block)


def codes_of(quantized: Quantized) -> Int[Tensor, " N"]:
    """The codes, one a weight and the padding left out.

    Args:
        quantized: From :func:`quantize`.
    """
    both = torch.stack([quantized.packed >> 4, quantized.packed & 15], 1).flatten()
    return both[: math.prod(quantized.shape)].long()


def dequantize(quantized: Quantized) -> Float[Tensor, "..."]:
    r"""The tensor that the codes stand for, :math:`\ell_{k} c`, in float32.

    Args:
        quantized: From :func:`quantize`.

    Raises:
        ValueError: If an array's length does not fit the shape, as in a truncated file.
    """
    total = math.prod(quantized.shape)
    blocks = -(-total // quantized.block)
    require(
        len(quantized.packed) * 2 == blocks * quantized.block and len(quantized.scales) == blocks,
        f"{blocks} blocks of {quantized.block} codes",
        (len(quantized.packed), len(quantized.scales)),
    )
    scales = quantized.scales.float()
    if quantized.scales.dtype == torch.int8:
        outer = quantized.scale_of_scales.repeat_interleave(256)[: len(scales)]
        scales = scales * outer + quantized.offset
    # Two levels at once: a table of all 256 bytes halves the look-ups.
    table = torch.cartesian_prod(quantized.levels, quantized.levels) if len(quantized.levels) == 16 else None
    if table is None:
        book = nn.functional.pad(quantized.levels, (0, 16 - len(quantized.levels)))
        table = torch.cartesian_prod(book, book)
    # Two floats are looked up as one integer of twice their size.
    pairs = table.float().contiguous().view(torch.int64).flatten().index_select(0, quantized.packed.int())
    values = pairs.view(torch.float32).reshape(blocks, quantized.block) * scales[:, None]
    return values.flatten()[:total].reshape(quantized.shape)


class QuantizedLinear(nn.Module):
    r"""A frozen linear layer whose weight is kept in few bits, :math:`y = \operatorname{deq}(W)\, x + b`.

    Gradients pass through to the input and never to the codes; with a :class:`~netatlas.low_rank.LoRALinear`
    around it this is QLoRA.

    Args:
        layer: The layer to be quantised, once.
        levels, block, double: As in :func:`quantize`.
    """

    def __init__(self, layer: nn.Module, levels: Tensor | None = None, *, block: int = 64, double: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
        self.stored = quantize(layer.weight, levels, block=block, double=double)  # type: ignore[arg-type]
        self.bias = None if layer.bias is None else layer.bias.detach().clone()  # type: ignore[union-attr, operator]

    def dense_weight(self) -> Float[Tensor, "m n"]:
        """The weight that the codes stand for."""
        return dequantize(self.stored)

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        return nn.functional.linear(x, self.dense_weight().to(x.dtype), self.bias)


def quantization_error(
    weight: Float[Tensor, "..."], levels: Tensor | None = None, *, block: int = 64, double: bool = False
) -> float:
    """Root mean square of what quantisation changes, over the weights' standard deviation.

    Args:
        weight, levels, block, double: As in :func:`quantize`.
    """
    difference = dequantize(quantize(weight, levels, block=block, double=double)) - weight
    return float(difference.square().mean().sqrt() / weight.std())
