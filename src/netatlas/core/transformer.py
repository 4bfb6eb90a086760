r"""A small transformer whose parts can be exchanged: every projection is a ``Linear``, every sub-layer a module.

Blocks are of the pre-normalised kind, :math:`x \leftarrow x + f(\mathrm{LN}(x))` for attention and feed-forward part in
turn. Prompts are padded on the left, so that the last position is always the one that answers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from netatlas.core.checks import require
from netatlas.core.nn import ACTIVATIONS


def attend(
    query: Float[Tensor, "... Q D"],
    key: Float[Tensor, "... K D"],
    value: Float[Tensor, "... K E"],
    mask: Bool[Tensor, "... Q K"] | None = None,
) -> Float[Tensor, "... Q E"]:
    r"""Scaled dot-product attention :math:`\operatorname{softmax}(q k^\top / \sqrt D)\, v`.

    A query that may look at nothing gets the plain mean of all values instead of NaN.

    Args:
        query: ``[..., Q, D]``.
        key: ``[..., K, D]``.
        value: ``[..., K, E]``.
        mask: True where a query may look; everywhere if omitted.

    Returns:
        ``[..., Q, E]``.

    Raises:
        ValueError: For no keys, or keys whose width is not the queries'.
    """
    require(key.shape[-2] > 0, "at least one key", 0)
    require(query.shape[-1] == key.shape[-1], f"keys of width {query.shape[-1]}", key.shape[-1])
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        # Not minus infinity: a row with nothing to look at would be NaN, in the gradient too.
        logits = torch.where(mask, logits, torch.finfo(logits.dtype).min / 2)
    return logits.softmax(-1) @ value


class Attention(nn.Module):
    r"""Multi-head self-attention, with places for a prefix and for an adapter of the heads' outputs.

    .. math:: h = \bigl[\operatorname{attend}(x W_q^{(i)},\, [P_k^{(i)}; x W_k^{(i)}],\, [P_v^{(i)}; x W_v^{(i)}])
        \bigr]_i\, W_o

    Attributes ``prefix`` (a module with ``keys`` and ``values``, ``[l, d]`` each) and ``on_heads`` (a module from the
    input to what is added to the joined heads) are empty unless an adapter fills them.

    Args:
        width: The width ``d`` of the stream.
        heads: Number of heads; divides the width.
        bias: Whether projections have biases.

    Raises:
        ValueError: If the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        require(heads >= 1 and width >= 1 and width % heads == 0, f"heads that divide the width {width}", heads)
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=bias) for _ in range(4))
        self.prefix: nn.Module | None = None
        self.on_heads: nn.Module | None = None

    def split(self, x: Float[Tensor, "... T d"]) -> Float[Tensor, "... H T e"]:
        """Heads as an axis of their own."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def forward(
        self, x: Float[Tensor, "N T d"], mask: Bool[Tensor, "N T T"] | None = None, last_only: bool = False
    ) -> Float[Tensor, "N Q d"]:
        """Attention's output at every position, or at the last one only."""
        asking = x[:, -1:] if last_only else x
        query, key, value = self.split(self.query(asking)), self.split(self.key(x)), self.split(self.value(x))
        if mask is not None:
            mask = mask[:, None, -1:] if last_only else mask[:, None]
        if self.prefix is not None:
            parts: tuple[Any, Any] = (self.prefix.keys, self.prefix.values)
            keys, values = (self.split(p).expand(*key.shape[:-2], -1, -1) for p in parts)
            key, value = torch.cat([keys, key], -2), torch.cat([values, value], -2)
            if mask is not None:
                seen = torch.ones_like(mask[..., :1]).expand(*mask.shape[:-1], keys.shape[-2])
                mask = torch.cat([seen, mask], -1)
        joined = attend(query, key, value, mask).transpose(-2, -3).flatten(-2)
        if self.on_heads is not None:
            joined = joined + self.on_heads(asking)
        return self.out(joined)


class FeedForward(nn.Module):
    r"""Two linear maps with an activation between: :math:`\phi(x W_1 + b_1) W_2 + b_2`.

    Args:
        width: Width of the stream.
        hidden: Width between the maps.
        activation: ``"relu"``, ``"gelu"``, ``"tanh"`` or ``"identity"``.
        bias: Whether the maps have biases.
    """

    def __init__(self, width: int, hidden: int, *, activation: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        require(width >= 1 and hidden >= 1, "positive widths", (width, hidden))
        require(activation in ACTIVATIONS, f"an activation out of {sorted(ACTIVATIONS)}", repr(activation))
        self.up, self.down = nn.Linear(width, hidden, bias=bias), nn.Linear(hidden, width, bias=bias)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """Attention, then the feed-forward part, each added to the stream after a layer normalisation of its input.

    Args:
        width: Width of the stream.
        heads: Attention heads.
        hidden: Width of the feed-forward part.
        activation: Its activation.
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention: nn.Module = Attention(width, heads)
        self.feed_forward: nn.Module = FeedForward(width, hidden, activation=activation)

    def forward(
        self, x: Float[Tensor, "N T d"], mask: Bool[Tensor, "N T T"] | None = None, last_only: bool = False
    ) -> Float[Tensor, "N Q d"]:
        h = self.attention(self.attention_norm(x), mask, last_only)
        x = (x[:, -1:] if last_only else x) + h
        return x + self.feed_forward(self.feed_forward_norm(x))


class Transformer(nn.Module):
    r"""A small transformer over tokens.

    .. math:: x^0_t = E_{w_t} + P_t \;(+\, E'_{w_{t-1}}),\qquad x^{\ell+1} = \mathrm{Block}_\ell(x^\ell),\qquad
        \mathrm{logits} = \mathrm{LN}(x^L)\, W_{\text{head}}

    Args:
        vocabulary: Number of tokens ``V``; token 0 is padding and is never looked at.
        width: Width of the stream.
        layers: Number of blocks.
        heads: Attention heads.
        length: Longest input ``T``.
        hidden: Width of the feed-forward parts; four times the width if omitted.
        causal: Whether a position sees only itself and what is before it.
        activation: Activation of the feed-forward parts.
        outputs: Width of the head; the vocabulary if omitted.
        previous: Whether a position also gets an embedding of the token before it, which spares a layer of attention
            where a task is to find what followed a word.

    Shapes:
        Tokens ``[N, T]`` to logits ``[N, T, V]``, or ``[N, V]`` with ``last_only``.

    Raises:
        ValueError: For sizes below 1, or an input that is longer than ``length`` or not of integers.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        layers: int,
        heads: int,
        length: int,
        *,
        hidden: int | None = None,
        causal: bool = True,
        activation: str = "gelu",
        outputs: int | None = None,
        previous: bool = False,
    ) -> None:
        super().__init__()
        sizes = (vocabulary, width, layers, heads, length)
        require(min(sizes) >= 1, "a positive vocabulary, width, number of layers and heads, and length", sizes)
        self.causal, self.length = causal, length
        self.embedding, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden or 4 * width, activation) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs or vocabulary, bias=False)
        self.previous = nn.Embedding(vocabulary, width) if previous else None
        for table in (self.embedding, self.position, *([self.previous] if self.previous is not None else [])):
            nn.init.normal_(table.weight, std=0.02 if width > 64 else 0.1)

    def mask(self, tokens: Int[Tensor, "N T"]) -> Bool[Tensor, "N T T"]:
        """Who may look at whom: not at padding, and backwards only if the transformer is causal."""
        seen = (tokens != 0)[:, None, :].expand(-1, tokens.shape[1], -1)
        if not self.causal:
            return seen
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        return seen & (steps[:, None] >= steps[None, :])

    def forward(self, tokens: Int[Tensor, "N T"], last_only: bool = False) -> Float[Tensor, "N ..."]:
        """Logits at every position, or at the last one only (which then costs less)."""
        require(
            tokens.ndim == 2 and 1 <= tokens.shape[1] <= self.length,
            f"tokens of shape [N, at most {self.length}]",
            tuple(tokens.shape),
        )
        require(not tokens.is_floating_point(), "integer tokens", tokens.dtype)
        # Counted from the end: left padding then moves no word of a prompt.
        places = torch.arange(self.length - tokens.shape[1], self.length, device=tokens.device)
        x, mask = self.embedding(tokens) + self.position(places), self.mask(tokens)
        if self.previous is not None:
            x = x + self.previous(nn.functional.pad(tokens, (1, 0))[:, :-1])
        for depth, block in enumerate(self.blocks):
            x = block(x, mask, last_only and depth + 1 == len(self.blocks))
        logits = self.head(self.norm(x))
        return logits[:, -1] if last_only else logits


class LastLogits(nn.Module):
    """A transformer seen as a classifier: tokens in, logits of the last position out.

    Args:
        transformer: Whose parameters are trained.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N V"]:
        return self.transformer(tokens, last_only=True)
