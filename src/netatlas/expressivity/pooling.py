r"""Generalised norm pooling: one trainable aggregation with sum, mean, maximum and minimum among its settings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn.aggr import Aggregation as PyGAggregation
from torch_geometric.utils import scatter

from netatlas.core.checks import require, require_finite

EPS = 1e-6


class _SegmentSum(torch.autograd.Function):
    """Sums of rows by one sparse product; the gradient is a selection of rows, which is differentiable again."""

    @staticmethod
    def forward(rows: Tensor, index: Tensor, segments: int) -> Tensor:
        ascending = bool((index[1:] >= index[:-1]).all())
        place = torch.arange(len(index)) if ascending else index.argsort(stable=True)
        ends = torch.bincount(index, minlength=segments).cumsum(0)
        with warnings.catch_warnings():
            # Torch announces once a process that its CSR tensors are young and that nobody checks them.
            warnings.filterwarnings("ignore", "Sparse", UserWarning)
            matrix = torch.sparse_csr_tensor(
                nn.functional.pad(ends, (1, 0)), place, rows.new_ones(len(rows)), size=(segments, len(rows)),
                check_invariants=False,
            )  # fmt: skip
            return matrix @ rows

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        _, index, ctx.segments = inputs
        ctx.save_for_backward(index)
        ctx.save_for_forward(index)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # type: ignore[override]
        (index,) = ctx.saved_tensors
        return _SegmentSum.apply(tangent, index, ctx.segments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (index,) = ctx.saved_tensors
        return grad.index_select(0, index), None, None


def _segment_sum(rows: Tensor, index: Tensor, segments: int) -> Tensor:
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64) and rows.numel():
        return _SegmentSum.apply(rows, index, segments)
    return scatter(rows, index, 0, segments, reduce="sum")


def segment_logsumexp(values: Float[Tensor, "E F"], index: Int[Tensor, " E"], segments: int) -> Float[Tensor, "S F"]:
    r"""Stable :math:`\log \sum_{i \in k} e^{v_i}` of the rows of each segment; an empty segment gives :math:`-\infty`.

    The largest value of a column is subtracted first, or that of each segment where values are so far apart that
    exponentials would lose precision.

    Args:
        values: Rows.
        index: Segment of each row.
        segments: Number of segments.

    Raises:
        ValueError: For lengths that differ, NaN, or an index out of range.

    Source: ko2021gnp.
    """
    require(values.ndim == 2 and index.ndim == 1 and len(index) == len(values), "one segment a row", tuple(index.shape))
    _require_finite("values", values)
    if values.device.type == "meta" or not values.numel():
        return values.new_full((segments, values.shape[1]), -torch.inf)
    low, high = int(index.min()), int(index.max())
    require(low >= 0 and high < segments, f"segment indices in [0, {segments})", (low, high))
    fixed = values.detach()
    shift = fixed.amax(0, keepdim=True)
    # Within this range every exponential is a normal number, and one shift a column loses next to nothing.
    if bool((shift - fixed.amin(0) < -0.9 * math.log(torch.finfo(values.dtype).tiny)).all()):
        return _segment_sum((values - shift).exp(), index, segments).log() + shift
    largest = scatter(fixed, index, 0, segments, reduce="max")
    return _segment_sum((values - largest.index_select(0, index)).exp(), index, segments).log() + largest


def _require_finite(name: str, values: Tensor) -> None:
    """The check of :func:`require_finite` at the price of one sum, which no NaN and no infinity leaves finite."""
    if values.device.type == "meta" or not bool(torch.isfinite(values.detach().sum())):
        require_finite(name, values)


def generalized_norm(
    values: Float[Tensor, "*B n F"], mask: Float[Tensor, "*B n"], p: Float[Tensor, "..."], q: Float[Tensor, "..."]
) -> Float[Tensor, "*B F"]:
    r"""Generalised norm of positive features over the elements of padded sets.

    .. math:: \mathrm{GNP}(V; p, q) = |V|^{-q} \Bigl(\sum_{v \in V} v^p\Bigr)^{1/p}

    computed as :math:`\exp(\mathrm{logsumexp}(p \log v)/p - q \log |V|)`. Sum: p = 1, q = 0; mean: p = q = 1;
    maximum and minimum: p to plus and minus infinity, q = 0; harmonic mean: p = q = -1.

    Args:
        values: Positive features; on padding anything.
        mask: 1 for elements, 0 for padding.
        p: Exponent, not 0; a number or one a feature.
        q: Exponent of the size.

    Returns:
        One row a set; zero for an empty set.

    Raises:
        ValueError: For a mask of another shape, p of 0, or elements that are not positive.

    Source: ko2021gnp.
    """
    p, q = torch.as_tensor(p, dtype=values.dtype), torch.as_tensor(q, dtype=values.dtype)
    require(mask.shape == values.shape[:-1], f"a mask of shape {tuple(values.shape[:-1])}", tuple(mask.shape))
    inside = mask[..., None] > 0
    plain = not torch._C._functorch.is_batchedtensor(values) and not torch._C._functorch.is_batchedtensor(p)
    if plain and values.device.type != "meta":
        require(bool((p != 0).all()), "exponents p other than 0", p.tolist())
        require(bool(((values > 0) | ~inside).all()), "positive elements", "one that is zero, negative or NaN")
    logs = torch.where(inside, values, 1.0).log()
    powers = (p * logs).masked_fill(~inside, -torch.inf)
    size = mask.sum(-1)[..., None]
    # An empty set has no largest element; its logarithm is never used.
    total = torch.logsumexp(torch.where(size[..., None] > 0, powers, 0.0), dim=-2)
    return torch.where(size > 0, (total / p - q * size.clamp_min(1).log()).exp(), 0.0)


def _raw(p: float) -> float:
    """Where softplus takes the value p."""
    return p + math.log(-math.expm1(-p))


class GeneralizedNormAggregation(PyGAggregation):
    r"""Generalised norm pooling as an aggregation of PyTorch Geometric.

    Half of the features is pooled with :math:`p = +\mathrm{softplus}(\pi_+)`, half with
    :math:`p = -\mathrm{softplus}(\pi_-)`, since learning through p = 0 is singular; a linear layer
    mixes the halves. One p and one q a half; with one sign alone, the first of each.

    Args:
        features: Width of the input, even unless one sign is left out.
        signs: ``"both"``, ``"plus"`` or ``"minus"``.
        p: Initial absolute value of both exponents.
        q: Initial exponent of the size.
        largest: Cap of the absolute value of p.
        learn_p: Whether p is learned.
        learn_q: Whether q is learned.
        mix: Whether a linear layer mixes the pooled features.

    Raises:
        ValueError: For an odd width with both signs, an unknown sign, or p out of range.

    Source: ko2021gnp.
    """

    def __init__(
        self, features: int, *, signs: Literal["both", "plus", "minus"] = "both", p: float = 1.0, q: float = 0.0,
        largest: float = 200.0, learn_p: bool = True, learn_q: bool = True, mix: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        require(signs in ("both", "plus", "minus"), "signs out of both, plus, minus", repr(signs))
        require(features >= 1 and (features % 2 == 0 or signs != "both"), "an even number of features", features)
        require(0 < p <= largest, f"p in (0, {largest}]", p)
        halves = {"both": [1.0, -1.0], "plus": [1.0], "minus": [-1.0]}[signs]
        # Settings are buffers and shapes never differ, so that members of every setting train at once.
        self.register_buffer("sign", torch.tensor(halves).repeat_interleave(features // len(halves)))
        self.register_buffer("side", torch.arange(len(halves)).repeat_interleave(features // len(halves)))
        self.register_buffer("learns", torch.tensor([float(learn_p), float(learn_q)]))
        self.largest = largest
        self.raw_p = nn.Parameter(torch.full((2,), _raw(p)), requires_grad=learn_p)
        self.raw_q = nn.Parameter(torch.full((2,), float(q)), requires_grad=learn_q)
        self.mix = nn.Linear(features, features, bias=False) if mix else nn.Identity()

    def exponents(self) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
        """The exponents p and q of every feature."""
        # A frozen exponent must also stay where stacked parameters are all given gradients.
        raw_p, raw_q = (v.detach() + k * (v - v.detach()) for v, k in zip((self.raw_p, self.raw_q), self.learns))
        p = nn.functional.softplus(raw_p).clamp_max(self.largest)
        return self.sign * p[self.side], raw_q[self.side]

    def pool(self, values: Float[Tensor, "*B n F"], mask: Float[Tensor, "*B n"]) -> Float[Tensor, "*B F"]:
        """Pool padded sets; features pass through an absolute value and a floor first."""
        return self.mix(generalized_norm(values.abs() + EPS, mask, *self.exponents()))

    def forward(
        self, x: Tensor, index: Tensor | None = None, ptr: Tensor | None = None, dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:  # fmt: skip
        """Pool the rows of each segment; an empty segment gives the mix of zeros."""
        require(index is not None and x.ndim == 2 and dim in (-2, 0), "rows [E, F] and their segments", tuple(x.shape))
        _require_finite("x", x)
        assert index is not None
        count = int(index.max()) + 1 if dim_size is None and len(index) else int(dim_size or 0)
        p, q = self.exponents()
        total = segment_logsumexp(p * (x.abs() + EPS).log(), index, count)
        size = torch.bincount(index, minlength=count).to(x.dtype)[:, None]
        pooled = (total / p - q * size.clamp_min(1).log()).exp()
        return self.mix(torch.where(size > 0, pooled, 0.0))


POOLINGS = ("gnp", "gnp plus", "gnp q=0", "gnp p=1", "sum", "mean", "max", "min", "concat")


class SetNetwork(nn.Module):
    r"""A network on sets: elementwise ReLU network, pooling, linear readout.

    Args:
        pooling: One of ``POOLINGS``: generalised norm (also with p > 0 only, q = 0, p = 1), a fixed pooling, or a
            quarter of the features for each of the four fixed ones.
        features: Number of pooled features.
        width: Width of the elementwise ReLU network beside a linear map; 0 for the linear map alone.

    Raises:
        ValueError: For an unknown pooling.

    Source: ko2021gnp.
    """

    def __init__(self, pooling: str, *, features: int = 8, width: int = 32) -> None:
        super().__init__()
        require(pooling in POOLINGS, f"a pooling out of {', '.join(POOLINGS)}", repr(pooling))
        self.pooling = pooling
        self.skip = nn.Linear(1, features)
        self.enter, self.leave = (nn.Linear(1, width), nn.Linear(width, features)) if width else (None, None)
        options = {
            "gnp": {},
            "gnp plus": {"signs": "plus"},
            "gnp q=0": {"learn_q": False},
            "gnp p=1": {"learn_p": False},
        }
        self.gnp = GeneralizedNormAggregation(features, **options[pooling]) if pooling in options else None
        self.read = nn.Linear(features, 1)

    def forward(self, sets: Float[Tensor, "N n 2"]) -> Float[Tensor, " N"]:
        """Outputs of sets given as values and mask side by side."""
        x, mask = sets[..., :1], sets[..., 1]
        h = self.skip(x)
        if self.enter is not None and self.leave is not None:
            h = h + self.leave(torch.relu(self.enter(x)))
        return self.read(self.gnp.pool(h, mask) if self.gnp is not None else fixed_pooling(h, mask, self.pooling))[
            ..., 0
        ]


def fixed_pooling(h: Float[Tensor, "*B n F"], mask: Float[Tensor, "*B n"], kind: str) -> Float[Tensor, "*B F"]:
    """Sum, mean, maximum or minimum over the elements of padded sets, or a quarter of the features for each.

    Args:
        h: Features.
        mask: 1 for elements, 0 for padding.
        kind: ``"sum"``, ``"mean"``, ``"max"``, ``"min"`` or ``"concat"``.

    Raises:
        ValueError: For another kind.
    """
    inside = mask[..., None] > 0
    if kind == "sum":
        return torch.where(inside, h, 0.0).sum(-2)
    if kind == "mean":
        return torch.where(inside, h, 0.0).sum(-2) / mask.sum(-1)[..., None].clamp_min(1)
    if kind in ("max", "min"):
        fill = -torch.inf if kind == "max" else torch.inf
        found = h.masked_fill(~inside, fill)
        found = found.amax(-2) if kind == "max" else found.amin(-2)
        return torch.where(mask.sum(-1)[..., None] > 0, found, 0.0)
    require(kind == "concat", "a pooling out of sum, mean, max, min, concat", repr(kind))
    parts = h.chunk(4, dim=-1)
    return torch.cat([fixed_pooling(part, mask, k) for part, k in zip(parts, ("sum", "mean", "max", "min"))], -1)


SET_TARGETS = ("sum", "mean", "max", "min", "harmonic", "L2")


def set_targets(sets: Float[Tensor, "N n 2"], kinds: Sequence[str] = SET_TARGETS) -> Float[Tensor, "T N"]:
    r"""Statistics of padded sets of positive numbers.

    Args:
        sets: Values and mask side by side.
        kinds: Out of ``SET_TARGETS``; harmonic is the harmonic mean :math:`|V| / \sum_v v^{-1}`.

    Raises:
        ValueError: For an unknown statistic.
    """
    x, mask = sets[..., 0].double(), sets[..., 1].double()
    size = mask.sum(-1)
    found = {
        "sum": (x * mask).sum(-1),
        "mean": (x * mask).sum(-1) / size,
        "max": x.masked_fill(mask == 0, -torch.inf).amax(-1),
        "min": x.masked_fill(mask == 0, torch.inf).amin(-1),
        "harmonic": size / (mask / torch.where(mask > 0, x, 1.0)).sum(-1),
        "L2": (x.square() * mask).sum(-1).sqrt(),
    }
    require(all(k in found for k in kinds), f"statistics out of {', '.join(SET_TARGETS)}", list(kinds))
    return torch.stack([found[k] for k in kinds]).float()


def random_sets(
    count: int, sizes: tuple[int, int], values: tuple[float, float], seed: int
) -> Float[Tensor, "N n 2"]:  # fmt: skip
    """Sets of uniform numbers of uniformly drawn size, padded: values and mask side by side.

    Args:
        count: Number of sets.
        sizes: Smallest and largest size.
        values: Range of the numbers.
        seed: Seeds the draw.

    Raises:
        ValueError: For no set, or a range that is empty.
    """
    require(count >= 1 and 1 <= sizes[0] <= sizes[1], "sets of at least one element", (count, sizes))
    require(values[0] < values[1], "a range of values", values)
    generator = torch.Generator().manual_seed(seed)
    size = torch.randint(sizes[0], sizes[1] + 1, (count, 1), generator=generator)
    x = values[0] + (values[1] - values[0]) * torch.rand(count, sizes[1], generator=generator)
    mask = (torch.arange(sizes[1]) < size).float()
    return torch.stack([x * mask, mask], dim=-1)
