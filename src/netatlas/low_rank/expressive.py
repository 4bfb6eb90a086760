r"""What low-rank adapters can express: weights that turn a frozen network into a smaller target, by construction.

For linear networks the least error with rank :math:`R` on each of :math:`L` layers is a singular value of the
discrepancy, and the adapters that reach it can be written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from netatlas.core.checks import require, require_finite


def chain_product(weights: Float[Tensor, "*M L D D"]) -> Float[Tensor, "*M D D"]:
    r"""The product :math:`W_L \cdots W_1` of a stack of matrices; the identity of an empty one.

    Args:
        weights: ``[..., L, D, D]``, the first layer first.
    """
    size = weights.shape[-1]
    product = torch.eye(size, dtype=weights.dtype, device=weights.device).expand(*weights.shape[:-3], size, size)
    for layer in range(weights.shape[-3]):
        product = weights[..., layer, :, :] @ product
    return product


def discrepancy(weights: Float[Tensor, "*M L D D"], target: Float[Tensor, "*M D D"]) -> Float[Tensor, "*M D D"]:
    r"""What the adapters have to make up for, :math:`E = \bar W - W_L \cdots W_1`.

    Args:
        weights: Frozen layers ``[..., L, D, D]``.
        target: ``[..., D, D]``.
    """
    return target - chain_product(weights)


class Construction(NamedTuple):
    """Adapters and how well their computation is conditioned.

    Attributes:
        updates: what is added to each layer, ``[..., L, D, D]``, each of rank R at most.
        condition: the worst condition number among the inverted matrices, ``[...]``.
    """

    updates: Float[Tensor, "... L D D"]
    condition: Float[Tensor, "..."]


def lora_construction(
    weights: Float[Tensor, "*M L D D"],
    target: Float[Tensor, "*M D D"],
    rank: int,
    *,
    directions: Float[Tensor, "*M D D"] | None = None,
) -> Construction:
    r"""Adapters of rank :math:`R` that bring a product of frozen matrices as near to a target as any can.

    With :math:`E = U S V^\top` the discrepancy and :math:`Q_l` the projector on the :math:`l`-th group of :math:`R`
    columns of :math:`V`,

    .. math:: \Delta_l = (W_L \cdots W_{l+1})^{-1}\, E\, Q_l\,
        \bigl( (W_{l-1} + \Delta_{l-1}) \cdots (W_1 + \Delta_1) \bigr)^{-1},

    so that :math:`\prod_l (W_l + \Delta_l) = \prod_l W_l + E \sum_l Q_l` and the spectral error is
    :math:`\sigma_{RL+1}(E)`. The products may not be singular.

    Args:
        weights: Frozen layers ``[..., L, D, D]``, the first layer first.
        target: ``[..., D, D]``.
        rank: The rank :math:`R` of every adapter, from 0.
        directions: Orthonormal columns ``[..., D, D]`` to be used in the place of :math:`V`: the ablation.

    Raises:
        ValueError: For shapes that do not fit, NaN, or a negative rank.

    Source:
        zeng2023expressive.
    """
    require(
        weights.ndim >= 3 and weights.shape[-1] == weights.shape[-2],
        "square layers [..., L, D, D]",
        tuple(weights.shape),
    )
    require(
        target.shape == weights.shape[:-3] + weights.shape[-2:], "a target of the layers' shape", tuple(target.shape)
    )
    require(rank >= 0, "a rank of at least 0", rank)
    require_finite("weights", weights)
    require_finite("target", target)
    depth, size = weights.shape[-3], weights.shape[-1]
    error = discrepancy(weights, target)
    v = torch.linalg.svd(error)[2].transpose(-1, -2) if directions is None else directions
    updates, adapted = [], torch.eye(size, dtype=weights.dtype, device=weights.device).expand_as(target)
    condition = torch.ones(target.shape[:-2], dtype=weights.dtype, device=weights.device)
    for layer in range(depth):
        group = v[..., rank * layer : rank * (layer + 1)]
        later = chain_product(weights[..., layer + 1 :, :, :])
        for inverted in (later, adapted):
            condition = torch.maximum(condition, torch.linalg.cond(inverted))
        left = torch.linalg.solve(later, error @ group)
        right = torch.linalg.solve(adapted, group.transpose(-1, -2), left=False)
        updates.append(left @ right)
        adapted = (weights[..., layer, :, :] + updates[-1]) @ adapted
    return Construction(torch.stack(updates, -3), condition)


def least_error(weights: Float[Tensor, "*M L D D"], target: Float[Tensor, "*M D D"], rank: int) -> Float[Tensor, "*M"]:
    r"""The least spectral error with adapters of rank :math:`R`, :math:`\sigma_{RL+1}(E)`; 0 where :math:`RL \ge D`.

    Args:
        weights: Frozen layers ``[..., L, D, D]``.
        target: ``[..., D, D]``.
        rank: The rank :math:`R`.
    """
    values = torch.linalg.svdvals(discrepancy(weights, target))
    position = rank * weights.shape[-3]
    return values[..., position] if position < values.shape[-1] else torch.zeros_like(values[..., 0])


def sufficient_rank(width: int, target_depth: int, depth: int) -> int:
    r"""The rank from which a frozen network can become any target, :math:`\lceil D / \lfloor L / L' \rfloor \rceil`.

    Args:
        width: Width :math:`D` of both.
        target_depth: Depth :math:`L'` of the target.
        depth: Depth :math:`L` of the frozen network, at least that of the target.

    Raises:
        ValueError: For sizes below 1 or a target that is deeper.
    """
    require(width >= 1 and 1 <= target_depth <= depth, "1 <= target depth <= depth", (width, target_depth, depth))
    return -(-width // (depth // target_depth))


def relu_forward(
    weights: Float[Tensor, "*M L D D"], biases: Float[Tensor, "*M L D"], x: Float[Tensor, "*M N D"]
) -> tuple[Float[Tensor, "*M N D"], list[Tensor]]:
    """A ReLU network with an activation after every layer: its output, and the values before each activation.

    Args:
        weights: ``[..., L, D, D]``.
        biases: ``[..., L, D]``.
        x: Inputs ``[..., N, D]``.
    """
    values = []
    for layer in range(weights.shape[-3]):
        x = x @ weights[..., layer, :, :].transpose(-1, -2) + biases[..., layer, None, :]
        values.append(x)
        x = x.relu()
    return x, values


class ReluConstruction(NamedTuple):
    """An adapted ReLU network.

    Attributes:
        weights: adapted weights, ``[..., L, D, D]``.
        biases: tuned biases, ``[..., L, D]``.
        condition: the worst condition number among the inverted matrices.
        inner: layers inside of a block, in which the activation must do nothing.
    """

    weights: Float[Tensor, "... L D D"]
    biases: Float[Tensor, "... L D"]
    condition: Float[Tensor, "..."]
    inner: list[int]


def relu_construction(
    weights: Float[Tensor, "*M L D D"],
    target_weights: Float[Tensor, "*M T D D"],
    target_biases: Float[Tensor, "*M T D"],
    rank: int,
    samples: Float[Tensor, "*M N D"],
) -> ReluConstruction:
    r"""Adapters and biases that turn a frozen ReLU network into a shallower one on a bounded region.

    Each target layer gets a block of :math:`\lfloor L / L' \rfloor` frozen layers (the last block takes the rest).
    Inside a block a bias :math:`-2 \min(\min z, 0)` keeps every pre-activation positive on the samples, so that the
    block is linear; its last layer takes the accumulated shift off again and adds the target's own bias.

    Args:
        weights: Frozen layers ``[..., L, D, D]``.
        target_weights, target_biases: ``[..., L', D, D]`` and ``[..., L', D]``.
        rank: Rank of every adapter.
        samples: Inputs that mark the region, ``[..., N, D]``.

    Raises:
        ValueError: For a target that is deeper than the frozen network, or shapes that do not fit.

    Source:
        zeng2023expressive.
    """
    depth, blocks = weights.shape[-3], target_weights.shape[-3]
    require(1 <= blocks <= depth, f"a target of depth 1 to {depth}", blocks)
    require(
        target_biases.shape == target_weights.shape[:-1], "biases of the target's shape", tuple(target_biases.shape)
    )
    size, x = depth // blocks, samples
    adapted, biases, inner = [], [], []
    condition = torch.ones(weights.shape[:-3], dtype=weights.dtype, device=weights.device)
    for block in range(blocks):
        start, stop = block * size, depth if block + 1 == blocks else (block + 1) * size
        own = weights[..., start:stop, :, :]
        built = lora_construction(own, target_weights[..., block, :, :], rank)
        condition = torch.maximum(condition, built.condition)
        shift = torch.zeros_like(biases[0]) if biases else torch.zeros_like(target_biases[..., 0, :])
        for layer in range(stop - start):
            weight = own[..., layer, :, :] + built.updates[..., layer, :, :]
            shift = (weight @ shift[..., None])[..., 0]
            z = x @ weight.transpose(-1, -2)
            if layer + 1 < stop - start:
                lift = -2 * z.amin((-2, -1)).clamp_max(0)
                bias = lift[..., None].expand(shift.shape)
                inner.append(start + layer)
                shift = shift + bias
            else:
                bias = target_biases[..., block, :] - shift
            x = (z + bias[..., None, :]).relu()
            adapted.append(weight)
            biases.append(bias)
    return ReluConstruction(torch.stack(adapted, -3), torch.stack(biases, -2), condition, inner)


class AttentionBlock(NamedTuple):
    r"""One attention of the theorem's transformer, without residual path or normalisation.

    .. math:: Z = W_1 \sum_h W_o^h W_v^h X \operatorname{softmax}(X^\top W_k^{h\top} W_q^h X)

    Attributes:
        query, key, value, out: ``[H, D, D]`` each.
        first: the first matrix :math:`W_1` of the feed-forward part, ``[D, D]``.
    """

    query: Float[Tensor, "H D D"]
    key: Float[Tensor, "H D D"]
    value: Float[Tensor, "H D D"]
    out: Float[Tensor, "H D D"]
    first: Float[Tensor, "D D"]


def attention_output(block: AttentionBlock, x: Float[Tensor, "N D T"]) -> Float[Tensor, "N D T"]:
    """What the block's attention hands to the feed-forward part's activation.

    Args:
        block: The weights.
        x: Inputs ``[N, D, T]``, a column a token.
    """
    logits = torch.einsum("ndt,hde,nes->nhts", x, block.key.transpose(-1, -2) @ block.query, x)
    mixed = torch.einsum("nds,nhst->nhdt", x, logits.softmax(-2))
    return torch.einsum("ij,hjd,nhdt->nit", block.first, block.out @ block.value, mixed)


def attention_construction(frozen: AttentionBlock, target: AttentionBlock, rank: int) -> AttentionBlock:
    r"""Adapters on query, key, value and output maps: each product of two is a linear network of depth two.

    The target's :math:`W_1` is reached with the frozen one by asking :math:`W_o W_v` for
    :math:`W_1^{-1} \bar W_1 \bar W_o \bar W_v`; rank :math:`\lceil D/2 \rceil` is enough.

    Args:
        frozen, target: Of one shape.
        rank: Rank of every adapter.

    Returns:
        The adapted block; its :math:`W_1` is the frozen one.

    Source:
        zeng2023expressive.
    """
    wanted = torch.linalg.solve(frozen.first, target.first @ target.out @ target.value)
    scores = torch.stack([frozen.query, frozen.key.transpose(-1, -2)], 1)
    new_scores = scores + lora_construction(scores, target.key.transpose(-1, -2) @ target.query, rank).updates
    values = torch.stack([frozen.value, frozen.out], 1)
    new_values = values + lora_construction(values, wanted, rank).updates
    return AttentionBlock(
        new_scores[:, 0], new_scores[:, 1].transpose(-1, -2), new_values[:, 0], new_values[:, 1], frozen.first
    )


def random_network(
    members: int, depth: int, width: int, *, generator: torch.Generator, std: float = 0.25
) -> tuple[Float[Tensor, "M L D D"], Float[Tensor, "M L D"]]:
    """Normal weights and biases of fully connected networks, in double precision.

    Args:
        members, depth, width: Sizes ``M``, ``L``, ``D``.
        generator: Draws them.
        std: Standard deviation.
    """
    options = {"generator": generator, "dtype": torch.float64}
    return std * torch.randn(members, depth, width, width, **options), std * torch.randn(
        members, depth, width, **options
    )


def well_conditioned(
    draw: Sequence[int], ranks: Sequence[int], *, generator: torch.Generator, limit: float = 1e5, std: float = 0.25
) -> tuple[Float[Tensor, "M L D D"], Float[Tensor, "M D D"]]:
    """Frozen networks and targets whose construction inverts no matrix of a condition number beyond the limit.

    Args:
        draw: Sizes ``(M, L, D)``.
        ranks: Ranks at which the construction will be made.
        generator: Draws networks until there are ``M``.
        limit: The largest condition number allowed.
        std: Standard deviation of the weights.

    Raises:
        ValueError: If hardly any draw qualifies.
    """
    members, depth, width = draw
    found: list[tuple[Tensor, Tensor]] = []
    for _ in range(50):
        weights, _ = random_network(4 * members, depth, width, generator=generator, std=std)
        target = random_network(4 * members, 1, width, generator=generator, std=std)[0][:, 0]
        worst = torch.stack([lora_construction(weights, target, rank).condition for rank in ranks]).amax(0)
        found += [(w, t) for w, t, c in zip(weights, target, worst) if float(c) < limit]
        if len(found) >= members:
            return torch.stack([w for w, _ in found[:members]]), torch.stack([t for _, t in found[:members]])
    raise ValueError(f"expected networks with condition numbers below {limit:g}, got {len(found)} of {members}")
