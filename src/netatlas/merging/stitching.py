"""Stitchable networks: one network that can be run at many costs, made from a family of pre-trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from netatlas.core.states import check_finite

# Samples that are copied to double precision at once: few enough to stay in cache.
_ROWS = 2048


class Configuration(NamedTuple):
    """One way to run a stitchable network.

    Blocks ``0..block`` of anchor ``first``, the stitching layer ``layer``, then blocks ``resume..`` and the head of
    anchor ``second``. An anchor by itself has ``second = block = resume = layer = None``.
    """

    first: int
    second: int | None = None
    block: int | None = None
    resume: int | None = None
    layer: str | None = None

    @property
    def is_anchor(self) -> bool:
        """Whether this is an anchor by itself."""
        return self.second is None


class _Residual(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class ResidualMLP(nn.Module):
    r"""Pre-norm residual network on vectors: embedding, L blocks, normalised linear head.

    .. math:: h \leftarrow h + W_2\operatorname{gelu}(W_1\operatorname{LN}(h))

    Args:
        features: length of an input, flattened.
        width: length d of the residual stream.
        depth: number L of blocks.
        classes: number of outputs.
        expansion: hidden width of a block, in units of d.

    Shapes:
        ``[N, ...]`` with ``features`` entries an example in, ``[N, classes]`` out.

    Raises:
        ValueError: a size that is not positive.
    """

    def __init__(self, features: int, width: int, depth: int, classes: int, *, expansion: int = 4) -> None:
        super().__init__()
        if min(features, width, depth, classes, expansion) < 1:
            raise ValueError(
                f"expected positive sizes, got features={features}, width={width}, depth={depth}, "
                f"classes={classes}, expansion={expansion}"
            )
        self.width = width
        self.embedding = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Residual(width, expansion * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Residual stream before the first block."""
        return self.embedding(x.flatten(1))

    def head(self, h: Tensor) -> Tensor:
        """Logits from the residual stream after the last block."""
        return self.classifier(self.norm(h))

    def forward(self, x: Float[Tensor, "examples *features"]) -> Float[Tensor, "examples classes"]:
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)

    @property
    def tokens(self) -> int:
        """Positions at which a stitch is applied: one."""
        return 1

    def costs(self) -> tuple[int, list[int], int]:
        """Multiply-adds of the embedding, of each block, and of the head, for one example."""
        blocks = [block.up.weight.numel() + block.down.weight.numel() for block in self.blocks]
        return self.embedding.weight.numel(), blocks, self.classifier.weight.numel()


class _AttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = _Residual(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.queries_keys_values(self.attention_norm(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.mlp(x + self.project(mixed.transpose(1, 2).reshape(n, tokens, width)))


class VisionTransformer(nn.Module):
    """Small pre-norm vision transformer with average pooling, an anchor for images.

    Args:
        image: height and width of the square image, pixels.
        patch: height and width of a patch, pixels.
        channels: channels of the image.
        width: length d of a token.
        depth: number of blocks.
        classes: number of outputs.
        heads: attention heads; ``width`` must be a multiple.

    Shapes:
        ``[N, channels, image, image]`` in, ``[N, classes]`` out.

    Raises:
        ValueError: sizes that do not divide.
    """

    def __init__(
        self, image: int, patch: int, channels: int, width: int, depth: int, classes: int, *, heads: int = 4
    ) -> None:
        super().__init__()
        if min(image, patch, channels, width, depth, classes, heads) < 1 or image % patch or width % heads:
            raise ValueError(
                "expected positive sizes, image a multiple of patch and width of heads, got "
                f"image={image}, patch={patch}, width={width}, heads={heads}, depth={depth}"
            )
        self.width = width
        self.tokens = (image // patch) ** 2
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.blocks = nn.ModuleList(_AttentionBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Tokens before the first block, ``[N, tokens, width]``."""
        return self.patches(x).flatten(2).transpose(1, 2) + self.positions

    def head(self, h: Tensor) -> Tensor:
        """Logits from the tokens after the last block."""
        return self.classifier(self.norm(h).mean(1))

    def forward(self, x: Float[Tensor, "examples channels height width"]) -> Float[Tensor, "examples classes"]:
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)

    def costs(self) -> tuple[int, list[int], int]:
        """Multiply-adds of the embedding, of each block (attention's products included), and of the head."""
        dense = 12 * self.width**2 * self.tokens + 2 * self.tokens**2 * self.width
        return self.patches.weight.numel() * self.tokens, [dense] * len(self.blocks), self.classifier.weight.numel()


def paired_stitching_configs(
    depth: int, resume_depth: int | None = None, *, kernel: int = 2, stride: int = 1
) -> list[tuple[int, int, int]]:
    """Where one anchor may hand over to another: a window slides over the blocks, and in it all pairs are allowed.

    Args:
        depth: blocks of the anchor that starts.
        resume_depth: blocks of the anchor that ends; default the same. For unequal depths the window slides over the
            deeper anchor, and the other's block is the nearest one at the same relative depth.
        kernel: width of the window, in blocks.
        stride: step of the window.

    Returns:
        Triples (last block j of the first anchor, first block q of the second, stitching layer), each pair (j, q)
        once, with the layer of the first window that holds it.

    Raises:
        ValueError: sizes that are not positive, or a window wider than the anchors.

    Source:
        pan2023snnet, section 3.2 (sliding windows; unpaired stitching for unequal depths).
    """
    other = depth if resume_depth is None else resume_depth
    deepest = max(depth, other)
    if min(depth, other, kernel, stride) < 1 or kernel > deepest:
        raise ValueError(
            f"expected positive sizes and a window within {deepest} blocks, got depths {depth} and {other}, "
            f"kernel={kernel}, stride={stride}"
        )
    first = _nearest(deepest, depth)
    second = _nearest(deepest, other)
    starts = range(0, deepest - kernel + 1, stride)
    seen: set[tuple[int, int]] = set()
    found = []
    layer = 0
    for start in starts:
        window = range(start, start + kernel)
        new = sorted({(first[i], second[k]) for i in window for k in window} - seen)
        if new:
            found += [(j, q, layer) for j, q in new]
            seen.update(new)
            layer += 1
    return found


def _nearest(deepest: int, depth: int) -> list[int]:
    return [(2 * i + 1) * depth // (2 * deepest) for i in range(deepest)]


def stitching_space(
    depths: Sequence[int], *, reach: int = 1, downward: bool = False, kernel: int = 2, stride: int = 1
) -> list[Configuration]:
    """All configurations of a family of anchors, given from small to large: each anchor, then every stitch.

    Args:
        depths: blocks of each anchor.
        reach: how many sizes a stitch may span; 1 is nearest stitching.
        downward: stitch from the larger anchor to the smaller one instead.
        kernel, stride: the window of :func:`paired_stitching_configs`.

    Returns:
        Configurations; those that share a stitching layer carry the same layer name.

    Raises:
        ValueError: no anchors, or a reach below one.

    Source:
        pan2023snnet, section 3.2, nearest stitching.
    """
    if len(depths) == 0 or reach < 1:
        raise ValueError(f"expected anchors and a positive reach, got {len(depths)} anchors and reach {reach}")
    space = [Configuration(anchor) for anchor in range(len(depths))]
    for small in range(len(depths)):
        for large in range(small + 1, min(small + reach, len(depths) - 1) + 1):
            a, b = (large, small) if downward else (small, large)
            space += [
                Configuration(a, b, j, q, f"from{a}to{b}at{layer}")
                for j, q, layer in paired_stitching_configs(depths[a], depths[b], kernel=kernel, stride=stride)
            ]
    return space


class StitchableNetwork(nn.Module):
    r"""A family of anchors with stitching layers, run in any of its configurations.

    .. math::

        f_{(a\to b,\,j,\,q)} = \text{head}_b\circ\phi_{b,L-1}\circ\dots\circ\phi_{b,q}\circ S
        \circ\phi_{a,j}\circ\dots\circ\phi_{a,0}\circ\text{embed}_a

    Args:
        anchors: networks with ``embed``, ``blocks``, ``head``, ``width`` and ``costs`` (:class:`ResidualMLP`,
            :class:`VisionTransformer`).
        configurations: what :func:`stitching_space` returns; stitches that name one layer share its weights.

    Raises:
        ValueError: no anchors, or a configuration that the anchors do not have.

    Source:
        pan2023snnet, section 3.
    """

    def __init__(self, anchors: Sequence[nn.Module], configurations: Sequence[Configuration]) -> None:
        super().__init__()
        if len(anchors) == 0 or len(configurations) == 0:
            raise ValueError(f"expected anchors and configurations, got {len(anchors)} and {len(configurations)}")
        self.anchors = nn.ModuleList(anchors)
        self.configurations = list(configurations)
        self.stitches = nn.ModuleDict()
        for item in self.configurations:
            self._check(item)
            if not item.is_anchor and item.layer not in self.stitches:
                self.stitches[item.layer] = nn.Linear(self.anchors[item.first].width, self.anchors[item.second].width)

    def _check(self, item: Configuration) -> None:
        count = len(self.anchors)
        valid = 0 <= item.first < count
        if valid and not item.is_anchor:
            valid = (
                0 <= item.second < count
                and 0 <= item.block < len(self.anchors[item.first].blocks)
                and 0 <= item.resume < len(self.anchors[item.second].blocks)
            )
        if not valid:
            raise ValueError(f"expected a configuration of {count} anchors, got {item}")

    def forward(self, x: Tensor, configuration: Configuration | int = 0) -> Tensor:
        """Logits of one configuration, given itself or by its index."""
        item = self.configurations[configuration] if isinstance(configuration, int) else configuration
        anchor = self.anchors[item.first]
        h = anchor.embed(x)
        if item.is_anchor:
            for block in anchor.blocks:
                h = block(h)
            return anchor.head(h)
        for block in anchor.blocks[: item.block + 1]:
            h = block(h)
        h = self.stitches[item.layer](h)
        last = self.anchors[item.second]
        for block in last.blocks[item.resume :]:
            h = block(h)
        return last.head(h)


def flops_count(network: StitchableNetwork, configuration: Configuration | int) -> int:
    """Multiply-adds of one example in a configuration: the blocks that run, the stitch, one embedding, one head.

    Args:
        network: the stitchable network.
        configuration: one of its configurations, or its index.

    Returns:
        Multiply-adds; normalisations and non-linearities are not counted.
    """
    item = network.configurations[configuration] if isinstance(configuration, int) else configuration
    network._check(item)
    embed, blocks, head = network.anchors[item.first].costs()
    if item.is_anchor:
        return embed + sum(blocks) + head
    _, later, last_head = network.anchors[item.second].costs()
    start, end = network.anchors[item.first], network.anchors[item.second]
    stitch = start.width * end.width * start.tokens
    return embed + sum(blocks[: item.block + 1]) + stitch + sum(later[item.resume :]) + last_head


@torch.no_grad()
def block_features(anchor: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The residual stream of an anchor: after the embedding, then after each block.

    Args:
        anchor: a network with ``embed`` and ``blocks``.
        inputs: N examples.

    Returns:
        ``depth + 1`` tensors ``[N, (tokens,) width]``; entry q is the input of block q, entry j + 1 the output of
        block j.
    """
    stream = [anchor.embed(inputs)]
    for block in anchor.blocks:
        stream.append(block(stream[-1]))
    return stream


def least_squares_stitch(
    source: Float[Tensor, "*batch samples d_a"], target: Float[Tensor, "*batch samples d_b"]
) -> tuple[Float[Tensor, "*batch d_b d_a"], Float[Tensor, "*batch d_b"]]:
    r"""The linear layer that best carries one network's features to another's.

    .. math:: \min_{W,b}\ \lVert [X_a\ \mathbf 1]\,[W\ b]^\top - X_b \rVert_F^2

    Solved from the Gram matrix of :math:`[X_a\ \mathbf 1]` in double precision; directions in which the features do not
    vary get weight zero, as with a pseudo-inverse.

    Args:
        source: features :math:`X_a`; tokens count as samples.
        target: features :math:`X_b` of the same samples, the *input* of the block that runs next.

    Returns:
        Weight and bias of the layer, in the source's dtype.

    Raises:
        ValueError: different samples, too few axes, or non-finite features.

    Source:
        pan2023snnet, eq. (3).
    """
    if source.ndim < 2 or source.shape[:-1] != target.shape[:-1]:
        raise ValueError(f"expected features of the same samples, got {tuple(source.shape)} and {tuple(target.shape)}")
    check_finite(source, "the source features")
    check_finite(target, "the target features")
    *batch, samples, d_a = source.shape
    exact = {"dtype": torch.float64, "device": source.device}
    gram = torch.zeros(*batch, d_a, d_a, **exact)
    cross = torch.zeros(*batch, d_a, target.shape[-1], **exact)
    sum_a, sum_b = torch.zeros(*batch, 1, d_a, **exact), torch.zeros(*batch, 1, target.shape[-1], **exact)
    # Centering first keeps the bias from worsening the conditioning of the normal equations; the means are rounded, and
    # what they leave over is taken off at the end.
    shift_a, shift_b = (x.mean(-2, keepdim=True).double() for x in (source, target))
    for start in range(0, samples, _ROWS):
        a = source[..., start : start + _ROWS, :].double().sub(shift_a)
        b = target[..., start : start + _ROWS, :].double().sub(shift_b)
        gram += a.mT @ a
        cross += a.mT @ b
        sum_a += a.sum(-2, keepdim=True)
        sum_b += b.sum(-2, keepdim=True)
    gram -= sum_a.mT @ sum_a / samples
    cross -= sum_a.mT @ sum_b / samples
    mean_a, mean_b = shift_a + sum_a / samples, shift_b + sum_b / samples
    weight = _solve(gram, cross).mT
    bias = (mean_b - mean_a @ weight.mT).squeeze(-2)
    return weight.to(source.dtype), bias.to(source.dtype)


def _solve(gram: Tensor, cross: Tensor) -> Tensor:
    factor, failures = torch.linalg.cholesky_ex(gram)
    if not gram.is_meta:
        pivots = factor.diagonal(dim1=-2, dim2=-1)
        if bool(failures.any()) or bool((pivots.amin(-1) <= 1e-6 * pivots.amax(-1)).any()):
            return torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ cross
    return torch.cholesky_solve(cross, factor)


@torch.no_grad()
def initialize_stitches(network: StitchableNetwork, inputs: Tensor, *, shuffle_seed: int | None = None) -> None:
    """Set every stitching layer by least squares on a few examples, in place.

    A layer that serves several hand-overs gets the mean of their solutions.

    Args:
        network: its anchors are trained; its stitches are overwritten.
        inputs: a few examples (the paper uses 100 images); no labels.
        shuffle_seed: if given, the targets' samples are shuffled first, which leaves nothing to fit (a control).

    Raises:
        ValueError: no examples.

    Source:
        pan2023snnet, section 3.3.
    """
    if len(inputs) == 0:
        raise ValueError("expected at least one example, got none")
    streams = [block_features(anchor, inputs) for anchor in network.anchors]
    solutions: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in network.stitches}
    generator = torch.Generator().manual_seed(0 if shuffle_seed is None else shuffle_seed)
    groups: dict[tuple[int, int, int], list[Configuration]] = {}
    for item in network.configurations:
        if not item.is_anchor:
            groups.setdefault((item.first, item.block, item.second), []).append(item)
    # All hand-overs that leave one block share its Gram matrix: one factorisation, their targets side by side.
    for (first, block, second), items in groups.items():
        source = streams[first][block + 1]
        targets = [streams[second][item.resume] for item in items]
        if source.shape[:-1] != targets[0].shape[:-1]:
            raise ValueError(f"expected equal numbers of tokens, got {tuple(source.shape)}, {tuple(targets[0].shape)}")
        source, beside = source.flatten(0, -2), torch.cat([target.flatten(0, -2) for target in targets], 1)
        if shuffle_seed is not None:
            beside = beside[torch.randperm(len(source), generator=generator).to(source.device)]
        weight, bias = least_squares_stitch(source, beside)
        parts = zip(weight.unflatten(0, (len(items), -1)), bias.unflatten(0, (len(items), -1)))
        for item, part in zip(items, parts):
            solutions[item.layer].append(part)
    for name, found in solutions.items():
        network.stitches[name].weight.copy_(torch.stack([weight for weight, _ in found]).mean(0))
        network.stitches[name].bias.copy_(torch.stack([bias for _, bias in found]).mean(0))


def pareto_front(cost: Float[Tensor, " points"], value: Float[Tensor, " points"]) -> Bool[Tensor, " points"]:
    """Which points no other one beats: none is at most as costly and at least as good, and better in one of the two.

    Args:
        cost: to be small.
        value: to be large.

    Returns:
        Mask of the front.

    Raises:
        ValueError: empty, different lengths, or NaN.
    """
    if cost.ndim != 1 or cost.shape != value.shape or len(cost) == 0:
        raise ValueError(f"expected two vectors of one length, got {tuple(cost.shape)} and {tuple(value.shape)}")
    if not cost.is_meta and bool((torch.isnan(cost) | torch.isnan(value)).any()):
        raise ValueError("expected numbers, got NaN")
    weakly = (cost[None, :] <= cost[:, None]) & (value[None, :] >= value[:, None])
    strictly = (cost[None, :] < cost[:, None]) | (value[None, :] > value[:, None])
    return ~(weakly & strictly).any(1)
