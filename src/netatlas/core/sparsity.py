r"""Sparsity in one frame: a score for each weight, a structure of what may be zero, a schedule of how much.

A mask keeps the entries of largest score that the structure allows; :class:`Pruner` joins the three and keeps masks
nested in time. Masks only simulate sparsity: :class:`SparseLinear` executes it, and :func:`remove_channels` takes zero
channels out of a network for good.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from netatlas.core.checks import require, require_finite
from netatlas.core.nn import MLP, ConvNet, ResNet

Masks = dict[str, Tensor]


# ---- scores ---------------------------------------------------------------------------------------------------------


def _pair(weight: Tensor, gradient: Tensor | None) -> Tensor:
    require(gradient is not None, "a gradient for this score", None)
    assert gradient is not None
    require(gradient.shape == weight.shape, f"a gradient of shape {tuple(weight.shape)}", tuple(gradient.shape))
    require(gradient.device == weight.device, f"a gradient on {weight.device}", str(gradient.device))
    require_finite("gradient", gradient)
    return gradient


def magnitude_scores(weight: Float[Tensor, "*shape"], gradient: Tensor | None = None) -> Float[Tensor, "*shape"]:
    r"""Magnitude, :math:`S = |w|`.

    Args:
        weight: Weights.
        gradient: Not used; there so that all scores are called alike.

    Raises:
        ValueError: For NaN or infinite weights.
    """
    require_finite("weight", weight)
    return weight.detach().abs()


def movement_scores(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"] | None,
    carried: Float[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    r"""Movement away from zero, accumulated over steps: :math:`S \leftarrow S - w\,\partial L/\partial w`.

    Args:
        weight: Weights.
        gradient: Gradient of the loss at them.
        carried: The sum so far; ``None`` to begin.

    Raises:
        ValueError: For no gradient, another shape or device, or values that are not finite.
    """
    require_finite("weight", weight)
    step = -(weight.detach() * _pair(weight, gradient).detach())
    return step if carried is None else carried + step


def taylor_scores(weight: Float[Tensor, "*shape"], gradient: Tensor | None) -> Float[Tensor, "*shape"]:
    r"""First-order change of the loss on removal, :math:`S = |w\,\partial L/\partial w|`.

    Arguments and errors as :func:`movement_scores`.
    """
    require_finite("weight", weight)
    return (weight.detach() * _pair(weight, gradient).detach()).abs()


def sensitivity_scores(weight: Float[Tensor, "*shape"], gradient: Tensor | None) -> Float[Tensor, "*shape"]:
    r"""Sensitivity of the loss, :math:`S = |\partial L/\partial w|`. Arguments as :func:`movement_scores`."""
    return _pair(weight, gradient).detach().abs()


def insensitivity(
    gradient: Float[Tensor, "*shape"], *, rescaled: bool = False, batch_dims: int = 0
) -> Float[Tensor, "*shape"]:
    r"""How little the loss depends on each weight.

    .. math:: \bar S = \max(0, 1 - |g|), \qquad \bar S = 1 - |g| / \max |g| \quad\text{(rescaled)}

    Args:
        gradient: Gradient :math:`g` of the mini-batch *mean* loss.
        rescaled: Divide by the largest entry of the tensor, so that the measure has no unit.
        batch_dims: Leading axes (members) that have a largest entry of their own.

    Raises:
        ValueError: For NaN or infinite gradients.

    Source:
        tartaglione2020lobster.
    """
    require_finite("gradient", gradient)
    size = gradient.detach().abs()
    if not rescaled:
        return (1 - size).clamp_min(0)
    axes = tuple(range(batch_dims, size.ndim))
    return 1 - size / size.amax(axes, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)


SCORES: dict[str, Callable[..., Tensor]] = {
    "magnitude": magnitude_scores,
    "movement": movement_scores,
    "sensitivity": sensitivity_scores,
    "taylor": taylor_scores,
}


# ---- structures -----------------------------------------------------------------------------------------------------


def zeros_of(sparsity: float, count: int) -> int:
    r"""Number of zeros among ``count`` entries at a sparsity, :math:`\lfloor s n \rfloor`.

    Args:
        sparsity: Share :math:`s` of zeros in [0, 1].
        count: Entries :math:`n`.

    Raises:
        ValueError: For a sparsity outside [0, 1] or NaN.
    """
    require(0 <= sparsity <= 1, "a sparsity in [0, 1]", sparsity)
    # .29 * 100 is 28.999999999999996 in binary; the number that was meant is 29.
    return min(math.floor(sparsity * count + 1e-9 * max(count, 1)), count)


def keep_largest(scores: Shaped[Tensor, "*batch n"], zeros: int) -> Bool[Tensor, "*batch n"]:
    """Mask over the last axis that drops exactly ``zeros`` smallest scores; of equal scores the first go.

    Args:
        scores: Finite scores.
        zeros: How many to drop a row.

    Raises:
        ValueError: For a number of zeros outside ``[0, n]``, or scores that are not finite.
    """
    count = scores.shape[-1]
    require(0 <= zeros <= count, f"zeros in [0, {count}]", zeros)
    require_finite("scores", scores)
    if zeros == 0 or zeros == count:
        return torch.full(scores.shape, zeros == 0, dtype=torch.bool, device=scores.device)
    if (
        scores.device.type == "cpu"
        and scores.dtype in (torch.float32, torch.float64)
        and scores.numel() == count > 4096
    ):
        flat = scores.detach().reshape(-1).numpy()
        # NumPy's vectorized partition finds the threshold several times faster than one that also moves indices.
        threshold = torch.from_numpy(np.partition(flat, zeros - 1)[zeros - 1 : zeros]).reshape((1,) * scores.ndim)
    else:
        threshold = scores.kthvalue(zeros, dim=-1, keepdim=True).values
    kept = scores > threshold
    if scores.device.type != "meta" and int((~kept).sum()) == zeros * (scores.numel() // count):
        return kept
    ties = scores == threshold
    spare = zeros - (count - kept.sum(-1, keepdim=True) - ties.sum(-1, keepdim=True))
    return kept | (ties & (ties.cumsum(-1) > spare))


class Structure(Protocol):
    """What may be zero together: anything with ``mask(scores, sparsity, batch_dims)``."""

    def mask(self, scores: Tensor, sparsity: float, batch_dims: int = 0) -> Tensor:
        """A Boolean mask of the scores' shape, True where a weight stays."""
        ...


def _check_scores(scores: Tensor, batch_dims: int, least: int) -> None:
    require(
        scores.ndim - batch_dims >= least, f"at least {least} axes beside {batch_dims} of members", tuple(scores.shape)
    )
    require(scores.is_floating_point(), "floating-point scores", str(scores.dtype))


@dataclass(frozen=True)
class Unstructured:
    """Any weight of a tensor may be zero; exactly ``floor(s n)`` are."""

    def mask(self, scores: Tensor, sparsity: float, batch_dims: int = 0) -> Tensor:
        """Mask of ``scores``; arguments as :class:`Structure`.

        Raises:
            ValueError: For a sparsity outside [0, 1], integer scores or scores that are not finite.
        """
        _check_scores(scores, batch_dims, 0)
        flat = scores.reshape(*scores.shape[:batch_dims], -1)
        return keep_largest(flat, zeros_of(sparsity, flat.shape[-1])).reshape(scores.shape)


@dataclass(frozen=True)
class RowBalanced:
    """Every row (output unit, flattened) keeps the same number ``max(least, round((1 - s) columns))`` of weights.

    Attributes:
        least: Fewest weights a row keeps.
    """

    least: int = 1

    def kept(self, sparsity: float, columns: int) -> int:
        """Weights that a row of ``columns`` keeps."""
        require(0 <= sparsity <= 1, "a sparsity in [0, 1]", sparsity)
        return min(max(self.least, round((1 - sparsity) * columns)), columns)

    def mask(self, scores: Tensor, sparsity: float, batch_dims: int = 0) -> Tensor:
        """Mask of ``scores [*members, rows, ...]``; errors as :class:`Unstructured`."""
        _check_scores(scores, batch_dims, 2)
        flat = scores.reshape(*scores.shape[: batch_dims + 1], -1)
        columns = flat.shape[-1]
        return keep_largest(flat, columns - self.kept(sparsity, columns)).reshape(scores.shape)


@dataclass(frozen=True)
class NOfM:
    """Of every ``m`` neighbours in a row, ``m - floor(s m)`` stay (2:4 at sparsity one half).

    Attributes:
        m: Neighbours a group; columns must be a multiple of it.
    """

    m: int = 4

    def mask(self, scores: Tensor, sparsity: float, batch_dims: int = 0) -> Tensor:
        """Mask of ``scores [*members, rows, ...]``; also refuses columns that ``m`` does not divide."""
        _check_scores(scores, batch_dims, 2)
        flat = scores.reshape(*scores.shape[: batch_dims + 1], -1)
        require(self.m >= 1 and flat.shape[-1] % self.m == 0, f"columns that {self.m} divides", flat.shape[-1])
        groups = flat.reshape(*flat.shape[:-1], -1, self.m)
        return keep_largest(groups, zeros_of(sparsity, self.m)).reshape(scores.shape)


@dataclass(frozen=True)
class Channels:
    """Whole output units stay or go; a unit's score is the root of the sum of its squared entries.

    Attributes:
        least: Fewest units that stay.
    """

    least: int = 1

    def mask(self, scores: Tensor, sparsity: float, batch_dims: int = 0) -> Tensor:
        """Mask of ``scores [*members, units, ...]``; errors as :class:`Unstructured`."""
        _check_scores(scores, batch_dims, 1)
        flat = scores.reshape(*scores.shape[: batch_dims + 1], -1)
        units = flat.shape[-2]
        kept = keep_largest(flat.norm(dim=-1), min(zeros_of(sparsity, units), units - min(self.least, units)))
        return kept[..., None].expand(flat.shape).reshape(scores.shape)


@dataclass(frozen=True)
class Blocks:
    """Tiles of a matrix stay or go together, by the root of the sum of their squared scores.

    Attributes:
        shape: Rows and columns of a tile; both must divide the matrix.
    """

    shape: tuple[int, int] = (16, 16)

    def mask(self, scores: Tensor, sparsity: float, batch_dims: int = 0) -> Tensor:
        """Mask of ``scores [*members, rows, columns]``; also refuses a matrix that the tile does not divide."""
        _check_scores(scores, batch_dims, 2)
        (a, b), (rows, columns) = self.shape, scores.shape[-2:]
        require(rows % a == 0 and columns % b == 0, f"a matrix that tiles of {a} x {b} fill", (rows, columns))
        lead = scores.shape[:-2]
        tiles = scores.reshape(*lead, rows // a, a, columns // b, b)
        norm = tiles.square().sum((-3, -1)).sqrt()
        flat = norm.reshape(*lead, -1)
        kept = keep_largest(flat, zeros_of(sparsity, flat.shape[-1])).reshape(norm.shape)
        return kept[..., :, None, :, None].expand(tiles.shape).reshape(scores.shape)


def global_masks(
    scores: Mapping[str, Tensor], sparsity: float, batch_dims: int = 0, exempt: Sequence[str] = ()
) -> Masks:
    """Unstructured masks with one threshold over all tensors: ``floor(s n)`` zeros of all ``n`` entries together.

    Args:
        scores: Scores of each tensor.
        sparsity: Share of zeros over all tensors that are not exempt.
        batch_dims: Leading axes (members) that have a threshold of their own.
        exempt: Names that keep every weight and are not counted.

    Raises:
        ValueError: For no tensors, different devices or dtypes, or as :class:`Unstructured`.
    """
    names = [name for name in scores if name not in exempt]
    require(len(names) > 0, "at least one tensor to prune", 0)
    kinds = {(str(scores[name].device), str(scores[name].dtype)) for name in names}
    require(len(kinds) == 1, "scores of one device and dtype", sorted(kinds))
    flat = [scores[name].reshape(*scores[name].shape[:batch_dims], -1) for name in names]
    joint = Unstructured().mask(torch.cat(flat, -1), sparsity, batch_dims)
    parts = joint.split([f.shape[-1] for f in flat], -1)
    found = {name: part.reshape(scores[name].shape) for name, part in zip(names, parts)}
    return {name: found.get(name, torch.ones_like(s, dtype=torch.bool)) for name, s in scores.items()}


# ---- schedules ------------------------------------------------------------------------------------------------------


def polynomial_sparsity(
    step: int, *, start: int, end: int, final: float, initial: float = 0.0, power: float = 3
) -> float:
    r"""Gradual schedule: :math:`s_t = s_F + (s_0 - s_F)\bigl(1 - \tfrac{t - t_0}{t_1 - t_0}\bigr)^p`, flat outside.

    Args:
        step: Update :math:`t`.
        start: :math:`t_0`, the first update that prunes.
        end: :math:`t_1`, from where the sparsity is final.
        final: :math:`s_F` in [0, 1].
        initial: :math:`s_0` in [0, ``final``].
        power: :math:`p`; 3 is usual.

    Raises:
        ValueError: For ``end < start``, or sparsities out of range.

    Source:
        obandoceron2024pruned.
    """
    require(start <= end, "start <= end", (start, end))
    require(0 <= initial <= final <= 1, "0 <= initial <= final <= 1", (initial, final))
    require(power > 0, "a positive power", power)
    if step < start:
        return initial
    if step >= end:
        return final
    return final + (initial - final) * (1 - (step - start) / (end - start)) ** power


def geometric_sparsity(round_: int, rounds: int, final: float) -> float:
    r"""Iterative schedule: each round keeps the same share, :math:`s_k = 1 - (1 - s_F)^{k/K}`.

    Args:
        round_: :math:`k` in [0, K].
        rounds: :math:`K`.
        final: :math:`s_F` in [0, 1).

    Raises:
        ValueError: For numbers out of range.
    """
    require(rounds >= 1 and 0 <= round_ <= rounds, "a round in [0, rounds]", (round_, rounds))
    require(0 <= final < 1, "a final sparsity in [0, 1)", final)
    return 1 - (1 - final) ** (round_ / rounds)


@dataclass(frozen=True)
class Pruner:
    """Structure x schedule x scores: the masks of a dict of tensors at a step.

    Attributes:
        schedule: Sparsity at a step.
        structure: Per tensor; ``None`` for one threshold over all tensors.
        exempt: Names that keep every weight.
        nested: Whether what is zero stays zero.
    """

    schedule: Callable[[int], float]
    structure: Structure | None = field(default_factory=Unstructured)
    exempt: tuple[str, ...] = ()
    nested: bool = True

    def masks(
        self,
        scores: Mapping[str, Tensor],
        step: int,
        *,
        previous: Mapping[str, Tensor] | None = None,
        batch_dims: int = 0,
    ) -> Masks:
        """Masks at a step.

        Args:
            scores: A score for every weight.
            step: The step.
            previous: Masks of an earlier step, for ``nested``.
            batch_dims: Leading member axes.

        Returns:
            Boolean masks by name.

        Raises:
            ValueError: For unknown exempt names, or as the structure's ``mask``.
        """
        unknown = set(self.exempt) - set(scores)
        require(not unknown, f"exempt names out of {sorted(scores)}", sorted(unknown))
        if previous is not None and self.nested:
            # Every surviving score lies above every dropped one, whatever the scores' sign.
            scores = {
                name: torch.where(previous[name], s - s.amin() + 1, torch.zeros_like(s)) if s.numel() else s
                for name, s in scores.items()
            }
        sparsity = self.schedule(step)
        if self.structure is None:
            return global_masks(scores, sparsity, batch_dims, self.exempt)
        return {
            name: torch.ones_like(s, dtype=torch.bool)
            if name in self.exempt
            else self.structure.mask(s, sparsity, batch_dims)
            for name, s in scores.items()
        }


def apply_masks(params: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters with masked entries set to zero; names without a mask as they are.

    Args:
        params: Tensors by name.
        masks: Boolean masks of the same shapes.

    Raises:
        ValueError: For a mask of an unknown name or another shape.
    """
    for name, mask in masks.items():
        require(name in params, f"a mask of one of {sorted(params)}", name)
        require(mask.shape == params[name].shape, f"a mask of shape {tuple(params[name].shape)}", tuple(mask.shape))
    return {name: p * masks[name].to(p.dtype) if name in masks else p for name, p in params.items()}


def remaining(masks: Mapping[str, Tensor], batch_dims: int = 0) -> Tensor:
    """Share of weights that masks keep, over all tensors together; one value a member.

    Args:
        masks: Boolean masks.
        batch_dims: Leading member axes.

    Raises:
        ValueError: For no masked entries.
    """
    flat = [m.reshape(*m.shape[:batch_dims], -1) for m in masks.values()]
    total = sum(f.shape[-1] for f in flat)
    require(total > 0, "at least one masked entry", 0)
    return sum(f.sum(-1) for f in flat).double() / total  # type: ignore[union-attr]


# ---- execution ------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def _csr_product(pointers, columns, values, inputs, output):  # pragma: no cover
    """output[r] = sum_k values[k] inputs[columns[k]] over the row's entries; inputs, output: [features, batch]."""
    width = inputs.shape[1]
    for row in range(len(pointers) - 1):
        target = output[row]
        k, end = pointers[row], pointers[row + 1]
        # Four rows of inputs a pass: the output row is read and written a quarter as often.
        while k + 4 <= end:
            a, b, c, d = values[k], values[k + 1], values[k + 2], values[k + 3]
            p, q, r, s = inputs[columns[k]], inputs[columns[k + 1]], inputs[columns[k + 2]], inputs[columns[k + 3]]
            for j in range(width):
                target[j] += a * p[j] + b * q[j] + c * r[j] + d * s[j]
            k += 4
        while k < end:
            a, p = values[k], inputs[columns[k]]
            for j in range(width):
                target[j] += a * p[j]
            k += 1


class SparseLinear:
    r"""A sparse matrix that is executed as one, for inference on the CPU: :math:`y = x W^\top + b`.

    ``"csr"`` keeps values and column indices of each row; ``"block"`` keeps dense tiles and multiplies those. Both
    do work in proportion to what is kept.

    Args:
        weight: ``[out, in]``, zeros included; float32 or float64 on the CPU.
        bias: ``[out]`` or ``None``.
        layout: ``"csr"`` or ``"block"``.
        block: Tile of ``"block"``; must divide the matrix.

    Raises:
        ValueError: For another device or dtype, values that are not finite, or tiles that do not fill the matrix.
    """

    def __init__(
        self,
        weight: Float[Tensor, "out in"],
        bias: Float[Tensor, " out"] | None = None,
        *,
        layout: Literal["csr", "block"] = "csr",
        block: tuple[int, int] = (16, 16),
    ) -> None:
        require(weight.ndim == 2, "a matrix", tuple(weight.shape))
        require(weight.device.type == "cpu", "a weight on the cpu", str(weight.device))
        require(weight.dtype in (torch.float32, torch.float64), "float32 or float64", str(weight.dtype))
        require_finite("weight", weight)
        require(layout in ("csr", "block"), "a layout out of csr, block", repr(layout))
        require(bias is None or bias.shape == weight.shape[:1], f"a bias of {weight.shape[0]} entries", bias)
        self.shape, self.layout = tuple(weight.shape), layout
        self.bias = None if bias is None else bias.detach().clone()
        weight = weight.detach()
        if layout == "csr":
            kept = weight != 0
            counts = kept.sum(1)
            self.pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).numpy()
            self.columns = kept.nonzero()[:, 1].to(torch.int32).numpy()
            self.values = weight[kept].numpy()
            self.stored = len(self.values)
        else:
            (a, b), (rows, columns) = block, weight.shape
            require(rows % a == 0 and columns % b == 0, f"a matrix that tiles of {a} x {b} fill", (rows, columns))
            tiles = weight.reshape(rows // a, a, columns // b, b).transpose(1, 2)
            self.block = block
            # One product a row of tiles: its tiles side by side against the inputs that they read, gathered.
            self.row_tiles = [
                (
                    columns_.reshape(-1),
                    tiles[i, columns_].transpose(0, 1).reshape(a, -1).contiguous(),
                )
                for i in range(rows // a)
                for columns_ in [(tiles[i] != 0).any(-1).any(-1).nonzero().flatten()]
            ]
            self.stored = sum(t.numel() for _, t in self.row_tiles)

    def __call__(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """The product.

        Args:
            x: ``[batch, in]`` of the weight's dtype.

        Raises:
            ValueError: For another shape, dtype or device.
        """
        require(x.ndim == 2 and x.shape[1] == self.shape[1], f"inputs [batch, {self.shape[1]}]", tuple(x.shape))
        require(x.device.type == "cpu", "inputs on the cpu", str(x.device))
        columns = x.detach().T.contiguous()
        if self.layout == "csr":
            kind = torch.from_numpy(self.values).dtype
            require(x.dtype == kind, f"inputs of {kind}", str(x.dtype))
            output = np.zeros((self.shape[0], len(x)), dtype=self.values.dtype)
            _csr_product(self.pointers, self.columns, self.values, columns.numpy(), output)
            product = torch.from_numpy(output)
        else:
            (a, b), batch = self.block, len(x)
            tiles = columns.reshape(-1, b, batch)
            product = torch.empty(self.shape[0], batch, dtype=x.dtype)
            for i, (where, values) in enumerate(self.row_tiles):
                if len(where):
                    torch.mm(values, tiles[where].reshape(-1, batch), out=product[i * a : (i + 1) * a])
                else:
                    product[i * a : (i + 1) * a] = 0
        return product.T if self.bias is None else product.T + self.bias


# ---- surgery --------------------------------------------------------------------------------------------------------


def _index(kept: Tensor, units: int, where: str) -> Tensor:
    kept = torch.as_tensor(kept)
    if kept.dtype == torch.bool:
        require(kept.shape == (units,), f"a mask of {units} units for {where}", tuple(kept.shape))
        kept = kept.nonzero().flatten()
    require(kept.ndim == 1 and len(kept) >= 1, f"at least one unit to keep in {where}", tuple(kept.shape))
    inside = bool(((kept >= 0) & (kept < units)).all()) and len(kept.unique()) == len(kept)
    require(inside, f"different units in [0, {units}) for {where}", kept.tolist())
    return kept


def _bare(module: nn.Module) -> Any:
    """A copy of a layer that shares its tensors until they are replaced."""
    new = copy.copy(module)
    new._parameters, new._buffers = dict(module._parameters), dict(module._buffers)
    return new


def _cut(layer: Any, rows: Tensor | None, columns: Tensor | None) -> Any:
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach().clone()
    if rows is not None:
        weight, bias = weight[rows.to(weight.device)], None if bias is None else bias[rows.to(weight.device)]
    if columns is not None:
        weight = weight[:, columns.to(weight.device)]
    new = _bare(layer)
    new.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        new.bias = nn.Parameter(bias)
    if isinstance(new, nn.Linear):
        new.out_features, new.in_features = weight.shape
    else:
        new.out_channels, new.in_channels = weight.shape[:2]
    return new


def _cut_norm(norm: nn.Module, kept: Tensor) -> Any:
    if isinstance(norm, nn.Identity):
        return norm
    require(isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d), "batch or no normalisation", type(norm).__name__)
    new = _bare(norm)
    for name, value in [*norm.named_parameters(), *norm.named_buffers()]:
        part = value.detach()[kept.to(value.device)] if value.ndim else value.detach().clone()
        setattr(new, name, nn.Parameter(part) if isinstance(value, nn.Parameter) else part)
    new.num_features = len(kept)
    return new


def prunable_units(model: nn.Module) -> list[int]:
    """Units of each group that :func:`remove_channels` can cut: hidden layers, convolutions, inner channels of blocks.

    Args:
        model: An ``MLP``, ``ConvNet`` or ``ResNet`` of :mod:`netatlas.core.nn`.

    Raises:
        ValueError: For another kind of model.
    """
    require(isinstance(model, MLP | ConvNet | ResNet), "an MLP, ConvNet or ResNet", type(model).__name__)
    known: Any = model
    if isinstance(model, MLP):
        return [layer.out_features for layer in known.layers[:-1]]
    if isinstance(model, ConvNet):
        return [c.out_channels for c in known.convolutions]
    return [block.first.out_channels for block in known.blocks]


def remove_channels(model: nn.Module, kept: Sequence[Tensor]) -> nn.Module:
    """A smaller copy of a network without the units that are not kept.

    It computes what the original computes with those units' outputs at zero. In a ``ResNet`` only the channels between
    a block's two convolutions can go: all others are tied by the shortcuts.

    Args:
        model: An ``MLP``, ``ConvNet`` or ``ResNet`` with batch or no normalisation.
        kept: For each group of :func:`prunable_units`, a Boolean mask or the indices of units to keep (at least one).

    Returns:
        A new module; the original is not changed.

    Raises:
        ValueError: For another kind of model, another number of groups, indices out of range, or an empty layer.
    """
    units = prunable_units(model)
    require(len(kept) == len(units), f"units to keep in {len(units)} groups", len(kept))
    index = [_index(k, n, f"group {i}") for i, (k, n) in enumerate(zip(kept, units))]
    # What is cut anyway is not copied first.
    known: Any = model
    cut = (
        [part for b in known.blocks for part in (b.first, b.second, b.norms[0])]
        if isinstance(model, ResNet)
        else [model]
    )
    shared = {id(v): v for part in cut for v in [*part.parameters(), *part.buffers()]}
    small = copy.deepcopy(model, shared)
    if isinstance(small, MLP):
        ends: list[Tensor | None] = [None, *index, None]
        small.layers = nn.ModuleList(_cut(layer, ends[i + 1], ends[i]) for i, layer in enumerate(small.layers))
    elif isinstance(small, ConvNet):
        starts: list[Tensor | None] = [None, *index]
        small.convolutions = nn.ModuleList(_cut(c, index[i], starts[i]) for i, c in enumerate(small.convolutions))
        small.norms = nn.ModuleList(_cut_norm(norm, index[i]) for i, norm in enumerate(small.norms))
        small.head = _cut(small.head, None, index[-1])
    else:
        for block, own in zip(small.blocks, index):  # type: ignore[arg-type]
            block.first, block.second = _cut(block.first, own, None), _cut(block.second, None, own)
            block.norms[0] = _cut_norm(block.norms[0], own)
    return small


def count_flops(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of linear and convolutional layers for one example, counted by hooks; biases and norms are free.

    Args:
        model: Any module.
        example: A batch of one input.

    Raises:
        ValueError: For a batch that is not one.
    """
    require(len(example) == 1, "a batch of one example", len(example))
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        positions = out.shape[2:].numel() if isinstance(layer, nn.Conv2d) else out.shape[:-1].numel()
        total += layer.weight.numel() * positions  # type: ignore[union-attr, operator]

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return total
