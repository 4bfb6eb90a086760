r"""One expression for a network and its infinite-width limit.

A network is written once, ``serial(Dense(512), Relu(), Dense(1))``. The same object builds the finite PyTorch module
(``init``, ``apply``, ``module``) and evaluates the limit of infinite width (``kernel``): the covariance of the
network at
initialisation (NNGP) and its neural tangent kernel (NTK). Each layer knows three things: its finite module, how it maps
the NNGP covariance :math:`K`, and how it maps the tangent kernel :math:`\Theta`. For a dense layer in NTK
parameterization and an activation with dual :math:`\mathbb E\,\phi\phi`,

.. math::

    K \leftarrow \sigma_w^2 K + \sigma_b^2, \quad \Theta \leftarrow \sigma_w^2 \Theta + K; \qquad
    K \leftarrow \mathbb E\,\phi\phi, \quad \Theta \leftarrow \Theta \odot \mathbb E\,\phi'\phi' .

Variances are carried apart from covariances, so that diagonals are exact; pairs are worked off in tiles that fit the
cache and bound the memory; of a symmetric matrix each block is computed once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core import dual_activations as duals
from netatlas.core.checks import require, require_finite, require_same_device

Padding = Literal["valid", "same", "circular"]
Parameterization = Literal["ntk", "standard"]
Shape = tuple[int, ...]
Params = dict[str, Tensor]

# Entries of a tile: 2^17 numbers of eight bytes are one megabyte, which the second-level cache holds.
TILE = 2**17


class Kernels(NamedTuple):
    """Both kernels of a network, ``[n1, n2]`` each."""

    nngp: Float[Tensor, "n1 n2"]
    ntk: Float[Tensor, "n1 n2"]


@dataclass
class _Tape:
    """Variances before each activation or normalisation, in order of execution: written once, read for every tile."""

    entries: list[Tensor] = field(default_factory=list)
    position: int = 0

    def next(self) -> Tensor:
        self.position += 1
        return self.entries[self.position - 1]


@dataclass
class State:
    """Covariances between two groups of inputs on their way through the layers.

    Attributes:
        nngp: ``[a, b]`` without pixels, ``[h, w, a, b]`` for equal pixels, ``[h, h', w, w', a, b]`` for pairs of
            pixels.
        ntk: The tangent kernel in the same form; ``None`` stands for zero.
        features: Features (channels) of the finite network at this place.
        pixels: Sizes of the pixel axes; empty for vectors.
        paired: Whether all pairs of pixels are kept.
        gaussian: Whether the finite network's features are Gaussian here as width grows.
        fresh: Whether the features end in weights of their own, so that their mean over weights is zero.
        tangent: Whether the tangent kernel is wanted.
        own: Whether these are an input's covariances with itself (``b = 1``).
        tapes: Variances of the two groups.
    """

    nngp: Tensor
    ntk: Tensor | None
    features: int
    pixels: Shape
    paired: bool
    gaussian: bool
    fresh: bool
    tangent: bool
    own: bool
    tapes: tuple[_Tape, _Tape]

    def same_pixels(self, values: Tensor) -> Tensor:
        """The entries of equal pixels as a view ``[h, w, a, b]``."""
        if not self.paired:
            return values
        for axis in range(len(self.pixels)):
            values = values.diagonal(dim1=axis, dim2=axis + 1).movedim(-1, axis)
        return values

    def variances(self) -> tuple[Tensor, Tensor]:
        """Variances of both sides, in shapes that broadcast with ``nngp``; written to or read from the tapes."""
        if self.own:
            variance = self.same_pixels(self.nngp).clone()
            self.tapes[0].entries.append(variance)
            first, second = variance, variance
        else:
            first, second = self.tapes[0].next(), self.tapes[1].next().mT
        if not self.paired:
            return first, second
        for axis in range(len(self.pixels)):
            first, second = first.unsqueeze(2 * axis + 1), second.unsqueeze(2 * axis)
        return first, second

    def both(self, function) -> tuple[Tensor, Tensor | None]:
        """A linear map of both kernels."""
        return function(self.nngp), None if self.ntk is None else function(self.ntk)


class Layer:
    """A layer or a composition of layers: a finite network and its infinite limit in one object."""

    def out_shape(self, in_shape: Shape) -> Shape:
        """Shape of an output, without the batch: ``(features,)`` or ``(channels, *pixels)``.

        Args:
            in_shape: Shape of an input, in the same form.

        Raises:
            ValueError: For a shape that the layer cannot take.
        """
        return in_shape

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        """The finite PyTorch module, its weights drawn from ``generator``.

        Args:
            in_shape: Shape of an input without the batch.
            generator: Source of the weights; torch's global one without it.
            options: ``dtype`` and ``device`` of the weights.
        """
        raise NotImplementedError

    def limit(self, state: State, paired_after: bool) -> State:
        """The infinite-width map of covariances.

        Args:
            state: Covariances before the layer.
            paired_after: Whether a later layer needs all pairs of pixels.
        """
        raise NotImplementedError

    def needs_pairs(self, paired_after: bool) -> bool:
        """Whether all pairs of pixels are needed before the layer, given the need after it."""
        return paired_after

    def module(
        self, in_shape: Sequence[int], *, seed: int | None = None, dtype: torch.dtype = torch.float32, device="cpu"
    ) -> nn.Module:
        """The finite network as a PyTorch module ``[N, *in_shape] -> [N, *out_shape]``.

        Args:
            in_shape: Shape of an input without the batch: ``(features,)`` or ``(channels, *pixels)``.
            seed: Seed of the weights; drawn from torch's global generator without it.
            dtype: Of the weights.
            device: Of the weights.

        Raises:
            ValueError: For a shape that a layer cannot take.
        """
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return self.build(_shape(in_shape), generator, dtype=dtype, device=device)

    def init(
        self,
        in_shape: Sequence[int],
        seed: int | Sequence[int] = 0,
        *,
        dtype: torch.dtype = torch.float32,
        device="cpu",
    ) -> Params:
        """Draw the finite network's parameters.

        Args:
            in_shape: Shape of an input without the batch.
            seed: A seed, or ``M`` seeds for an ensemble.
            dtype: Of the parameters.
            device: Of the parameters.

        Returns:
            Parameters by name; with several seeds they are stacked along a first axis ``[M, ...]``.

        Raises:
            ValueError: For a shape that a layer cannot take, or no seed.
        """
        seeds = [seed] if isinstance(seed, int) else list(seed)
        require(len(seeds) > 0, "at least one seed", 0)
        drawn = [dict(self.module(in_shape, seed=s, dtype=dtype, device=device).named_parameters()) for s in seeds]
        if isinstance(seed, int):
            return {name: value.detach() for name, value in drawn[0].items()}
        return {name: torch.stack([d[name].detach() for d in drawn]) for name in drawn[0]}

    def apply(self, params: Params, inputs: Float[Tensor, "N *in_shape"]) -> Float[Tensor, "*members N *out_shape"]:
        """Run the finite network.

        Args:
            params: From :meth:`init`; stacked ones run all members at once.
            inputs: ``N`` inputs.

        Raises:
            ValueError: For parameters of another network.
        """
        skeleton = self.build(_shape(inputs.shape[1:]), None, dtype=inputs.dtype, device="meta")
        wanted = {name: tuple(value.shape) for name, value in skeleton.named_parameters()}
        require(set(wanted) == set(params), f"parameters {sorted(wanted)}", sorted(params))
        if all(tuple(params[name].shape) == shape for name, shape in wanted.items()):
            return functional_call(skeleton, params, (inputs,))
        given = {name: tuple(value.shape[1:]) for name, value in params.items()}
        require(given == wanted, f"parameters of shapes {wanted}", given)
        return vmap(lambda p: functional_call(skeleton, p, (inputs,)))(params)

    def kernel(
        self,
        x1: Float[Tensor, "n1 *in_shape"],
        x2: Float[Tensor, "n2 *in_shape"] | None = None,
        get: str | tuple[str, ...] = "ntk",
        *,
        dtype: torch.dtype = torch.float64,
        tile: int = TILE,
    ) -> Float[Tensor, "n1 n2"] | Kernels:
        r"""The kernels of infinite width.

        Args:
            x1: Inputs, ``[n1, features]`` or ``[n1, channels, *pixels]``.
            x2: More inputs of that shape; ``x1`` itself without them (each block is then computed once, the diagonal
                exactly).
            get: ``"nngp"``, ``"ntk"``, or ``("nngp", "ntk")`` for both at the price of one pass.
            dtype: Precision of the computation.
            tile: Numbers held at once for each array in work. Layers before a pooling keep all pairs of pixels, and a
                pair of images is never split: two :math:`H \times W` images take :math:`(HW)^2` numbers an array,
                8 MB for 32 x 32 pixels in float64, 2 GB for 128 x 128. Without pooling (``Flatten``) they take
                :math:`HW`.

        Returns:
            The Gram matrix, or :class:`Kernels` where both were asked for.

        Raises:
            ValueError: For an unknown ``get``, NaN inputs, shapes that the layers cannot take or that differ, no
                inputs,
                two devices, an output that still has pixels, or branches whose sum has no such limit.
        """
        names = (get,) if isinstance(get, str) else tuple(get)
        require(names in (("nngp",), ("ntk",), ("nngp", "ntk")), 'get "nngp", "ntk" or ("nngp", "ntk")', repr(get))
        a = _inputs("x1", x1, dtype)
        b = a if x2 is None else _inputs("x2", x2, dtype)
        require_same_device([("x1", a), ("x2", b)])
        require(a.shape[1:] == b.shape[1:], f"x2 of shape [n, {_words(a.shape[1:])}]", tuple(b.shape))
        out = self.out_shape(_shape(a.shape[1:]))
        require(len(out) == 1, "a network that ends in features (add Flatten or GlobalAvgPool)", f"output shape {out}")
        require(tile >= 1, "a tile of at least one number", tile)
        with torch.no_grad():
            nngp, ntk = _Gram(self, "ntk" in names, tile).evaluate(a, None if x2 is None else b)
        if len(names) == 2:
            assert ntk is not None
            return Kernels(nngp, ntk)
        return nngp if ntk is None else ntk


def _shape(shape: Sequence[int]) -> Shape:
    sizes = tuple(int(s) for s in shape)
    require(len(sizes) >= 1 and all(s >= 1 for s in sizes), "a shape of positive sizes without the batch", sizes)
    return sizes


def _words(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _inputs(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    require(isinstance(values, Tensor), f"a tensor for {name}", type(values).__name__)
    require(values.ndim >= 2 and len(values) >= 1, f"{name} of shape [n, ...] with n >= 1", tuple(values.shape))
    require(not values.is_complex(), f"real {name}", values.dtype)
    require_finite(name, values)
    return values.to(dtype)


class _Gram:
    """Evaluates a network's kernels tile by tile."""

    def __init__(self, net: Layer, tangent: bool, tile: int) -> None:
        self.net, self.tangent, self.tile = net, tangent, tile
        self.paired = net.needs_pairs(False)

    def _start(self, a: Tensor, b: Tensor, tapes: tuple[_Tape, _Tape], own: bool) -> State:
        pixels = _shape(a.shape[1:])[1:]
        return State(
            _input_covariance(a, b, self.paired and bool(pixels), own),
            None,
            a.shape[1],
            pixels,
            self.paired and bool(pixels),
            False,
            False,
            self.tangent,
            own,
            tapes,
        )

    def _run(self, a: Tensor, b: Tensor, tapes: tuple[_Tape, _Tape], own: bool) -> tuple[Tensor, Tensor | None]:
        state = self.net.limit(self._start(a, b, tapes, own), False)
        ntk = state.ntk if state.ntk is not None or not self.tangent else torch.zeros_like(state.nngp)
        return state.nngp, ntk

    def _own(self, x: Tensor, step: int) -> tuple[_Tape, list[Tensor]]:
        """Variances along the network and the kernels' diagonals, ``step`` inputs at a time."""
        parts, ends = [], []
        for chunk in x.split(step):
            tape = _Tape()
            ends.append(self._run(chunk, chunk, (tape, tape), True))
            parts.append(tape.entries)
        entries = [torch.cat(group, -2) for group in zip(*parts)]
        columns = [[kernel[:, 0] for kernel in end if kernel is not None] for end in ends]
        return _Tape(entries), [torch.cat(part) for part in zip(*columns)]

    def evaluate(self, a: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        pixels = math.prod(a.shape[2:])
        pair = pixels**2 if self.paired else pixels
        first, diagonals = self._own(a, max(1, self.tile // pair))
        second = first if b is None else self._own(b, max(1, self.tile // pair))[0]
        other = a if b is None else b
        side = max(1, math.isqrt(max(1, self.tile // pair)))
        rows, columns = _even(len(a), side), _even(len(other), side)
        results = [a.new_empty(len(a), len(other)) for _ in range(1 + self.tangent)]
        for (i, p), (j, q) in itertools.product(rows, columns):
            if b is None and j < i:
                continue
            tapes = _slice(first, i, p), _slice(second, j, q)
            for result, block in zip(results, self._run(a[i:p], other[j:q], tapes, False)):
                assert block is not None
                result[i:p, j:q] = block
                if b is None and i != j:
                    result[j:q, i:p] = block.mT
        if b is None:
            for result, diagonal in zip(results, diagonals):
                _mirror(result, rows)
                result.diagonal().copy_(diagonal)
        return results[0], results[1] if self.tangent else None


def _even(n: int, side: int) -> list[tuple[int, int]]:
    """Nearly equal pieces of ``range(n)``, none longer than ``side``."""
    count = -(-n // side)
    cuts = [round(i * n / count) for i in range(count + 1)]
    return list(zip(cuts[:-1], cuts[1:]))


def _mirror(matrix: Tensor, blocks: list[tuple[int, int]]) -> None:
    """Make the diagonal blocks symmetric to the last bit."""
    for i, p in blocks:
        block = matrix[i:p, i:p]
        block.copy_(torch.triu(block) + torch.triu(block, 1).mT)


def _slice(tape: _Tape, start: int, stop: int) -> _Tape:
    return _Tape([entry[..., start:stop, :] for entry in tape.entries])


def _input_covariance(a: Tensor, b: Tensor, paired: bool, own: bool) -> Tensor:
    """Mean products over features, in the layout of :class:`State`."""
    features, pixels = a.shape[1], a.shape[2:]
    if own:
        if not paired:
            return (a * b).mean(1).movedim(0, -1)[..., None].contiguous()
        flat = a.flatten(2)
        outer = (flat.mT @ flat).div_(features).reshape(len(a), *pixels, *pixels)
        order = [axis for j in range(len(pixels)) for axis in (1 + j, 1 + len(pixels) + j)]
        return outer.permute(*order, 0)[..., None].contiguous()
    if not pixels:
        return (a @ b.mT).div_(features)
    left, right = a.flatten(2).permute(2, 0, 1), b.flatten(2).permute(2, 0, 1)
    if not paired:
        return (left @ right.mT).div_(features).reshape(*pixels, len(a), len(b))
    product = (left.reshape(-1, features) @ right.reshape(-1, features).mT).div_(features)
    count = len(pixels)
    order = [axis for j in range(count) for axis in (j, count + 1 + j)]
    shaped = product.reshape(*pixels, len(a), *pixels, len(b))
    return shaped.permute(*order, count, 2 * count + 1).contiguous()


class Serial(Layer):
    """Layers one after the other; made by :func:`serial`.

    Args:
        layers: The layers, at least one.

    Raises:
        ValueError: For no layer, or something that is none.
    """

    def __init__(self, *layers: Layer) -> None:
        require(len(layers) > 0, "at least one layer", 0)
        for layer in layers:
            require(isinstance(layer, Layer), "layers", type(layer).__name__)
        self.layers = layers

    def out_shape(self, in_shape: Shape) -> Shape:
        for layer in self.layers:
            in_shape = layer.out_shape(in_shape)
        return in_shape

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        modules = []
        for layer in self.layers:
            modules.append(layer.build(in_shape, generator, **options))
            in_shape = layer.out_shape(in_shape)
        return nn.Sequential(*modules)

    def needs_pairs(self, paired_after: bool) -> bool:
        for layer in reversed(self.layers):
            paired_after = layer.needs_pairs(paired_after)
        return paired_after

    def limit(self, state: State, paired_after: bool) -> State:
        needs = [paired_after]
        for layer in reversed(self.layers[1:]):
            needs.append(layer.needs_pairs(needs[-1]))
        for layer, need in zip(self.layers, reversed(needs)):
            state = layer.limit(state, need)
        return state


def serial(*layers: Layer) -> Serial:
    """Compose layers one after the other.

    Args:
        layers: The layers, at least one; compositions may be nested.

    Returns:
        One object with ``init``, ``apply``, ``module`` and ``kernel``.

    Raises:
        ValueError: For no layer.
    """
    return Serial(*layers)


class Parallel(Layer):
    """The sum of several branches that read the same input.

    At most one branch may end without weights of its own (the skip connection): the others are then uncorrelated with
    everything else, and covariances add.

    Args:
        branches: At least two, with equal output shapes.

    Raises:
        ValueError: For fewer than two branches; when used, for output shapes that differ.
    """

    def __init__(self, *branches: Layer) -> None:
        require(len(branches) >= 2, "at least two branches", len(branches))
        self.branches = branches

    def out_shape(self, in_shape: Shape) -> Shape:
        shapes = [branch.out_shape(in_shape) for branch in self.branches]
        require(len(set(shapes)) == 1, "branches of one output shape", shapes)
        return shapes[0]

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        self.out_shape(in_shape)
        return _Sum([branch.build(in_shape, generator, **options) for branch in self.branches])

    def needs_pairs(self, paired_after: bool) -> bool:
        return any(branch.needs_pairs(paired_after) for branch in self.branches)

    def limit(self, state: State, paired_after: bool) -> State:
        ends = []
        for branch in self.branches:
            start = replace(state)
            if start.paired and not branch.needs_pairs(paired_after):
                start = _unpaired(start)
            ends.append(branch.limit(replace(start, fresh=False), paired_after))
        stale = sum(not end.fresh for end in ends)
        require(
            stale <= 1 and all(end.gaussian for end in ends if end.fresh),
            "at most one branch that ends without weights of its own",
            f"{stale} such branches",
        )
        result = ends[0]
        for end in ends[1:]:
            parts = [t for t in (result.ntk, end.ntk) if t is not None]
            result = replace(result, nngp=result.nngp + end.nngp, ntk=sum(parts[1:], parts[0]) if parts else None)
        gaussian = all(end.fresh or (state.gaussian and end.gaussian) for end in ends)
        return replace(result, gaussian=gaussian, fresh=state.fresh or stale == 0)


def residual(*body: Layer) -> Parallel:
    """A residual block :math:`x + f(x)`; the body must end in weights of its own.

    Args:
        body: The layers of :math:`f`, of equal input and output shape.
    """
    return Parallel(Identity(), serial(*body))


def _unpaired(state: State) -> State:
    """Keep equal pixels only."""
    if not state.paired:
        return state
    nngp, ntk = state.both(lambda t: state.same_pixels(t).contiguous())
    return replace(state, nngp=nngp, ntk=ntk, paired=False)


class _Sum(nn.Module):
    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        return sum(outputs[1:], outputs[0])


class FiniteLinear(nn.Module):
    r"""A dense or convolutional layer :math:`s_w\, W * x + s_b\, b` with standard Gaussian (or scaled) weights.

    Attributes:
        weight: ``[out, in]`` or ``[out, in, *window]``.
        bias: ``[out]`` or ``None``.
        weight_scale: The factor :math:`s_w` in front of the weights: 1 in standard parameterization.
        bias_scale: The factor :math:`s_b` in front of the bias.
        stride: Of a convolution.
        pads: Pixels added (before, after) along each axis of a convolution.
        circular: Whether those repeat the image; zeros otherwise.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, weight_scale: float, bias_scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.weight_scale, self.bias_scale = weight_scale, bias_scale
        self.stride: Shape = ()
        self.pads: list[tuple[int, int]] = []
        self.circular = False

    def padded(self, x: Tensor) -> Tensor:
        """The input as the convolution reads it."""
        flat = [n for pair in reversed(self.pads) for n in pair]
        return x if not any(flat) else nn.functional.pad(x, flat, mode="circular" if self.circular else "constant")

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output; see the class."""
        if not self.stride:
            out = x @ self.weight.mT
            shape: Shape = (-1,)
        else:
            convolve = nn.functional.conv2d if len(self.stride) == 2 else nn.functional.conv1d
            out = convolve(self.padded(x), self.weight, stride=self.stride)
            shape = (-1,) + (1,) * len(self.stride)
        if self.weight_scale != 1:
            out = out * self.weight_scale
        return out if self.bias is None else out + self.bias_scale * self.bias.reshape(shape)


class _Elementwise(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@dataclass(frozen=True)
class _Weights(Layer):
    """What dense and convolutional layers share."""

    width: int
    w_std: float = 1.0
    b_std: float = 0.0
    parameterization: Parameterization = "ntk"

    def __post_init__(self) -> None:
        require(self.width >= 1, "a width of at least 1", self.width)
        require(self.w_std >= 0 and self.b_std >= 0, "w_std and b_std of at least 0", (self.w_std, self.b_std))
        require(
            self.parameterization in ("ntk", "standard"),
            "a parameterization out of ntk, standard",
            repr(self.parameterization),
        )

    def _finite(self, shape: Shape, generator: torch.Generator | None, options: dict) -> FiniteLinear:
        fan_in = math.prod(shape[1:])
        scale = self.w_std / math.sqrt(fan_in)
        dtype, place = options.get("dtype", torch.float32), torch.device(options.get("device", "cpu"))
        # Drawn on the CPU, so that a seed gives the same network on every device.
        where = "meta" if place.type == "meta" else "cpu"
        weight = torch.randn(shape, generator=None if where == "meta" else generator, dtype=dtype, device=where)
        bias = None
        if self.b_std > 0:
            bias = torch.randn(shape[0], generator=None if where == "meta" else generator, dtype=dtype, device=where)
        if self.parameterization == "standard":
            weight, bias = weight * scale, None if bias is None else bias * self.b_std
        weight, bias = weight.to(place), None if bias is None else bias.to(place)
        standard = self.parameterization == "standard"
        return FiniteLinear(weight, bias, 1.0 if standard else scale, 1.0 if standard else self.b_std)

    def _mapped(self, state: State, nngp: Tensor, ntk: Tensor | None, fan_in: int, **changes) -> State:
        """New kernels from window means of the old ones."""
        k = nngp.mul(self.w_std**2)
        if self.b_std:
            k.add_(self.b_std**2)
        theta = None
        if state.tangent:
            if self.parameterization == "ntk":
                theta = k.clone() if ntk is None else torch.add(k, ntk, alpha=self.w_std**2)
            else:
                theta = nngp.mul(fan_in).add_(1.0 if self.b_std else 0.0)
                theta = theta if ntk is None else theta.add_(ntk, alpha=self.w_std**2)
        return replace(state, nngp=k, ntk=theta, features=self.width, gaussian=True, fresh=True, **changes)


@dataclass(frozen=True)
class Dense(_Weights):
    r"""A dense layer of ``width`` units.

    In NTK parameterization :math:`z = \frac{\sigma_w}{\sqrt n} W x + \sigma_b b` with standard Gaussian :math:`W, b`;
    in standard parameterization the factors are in the weights' variances instead. Its limit is
    :math:`K \leftarrow \sigma_w^2 K + \sigma_b^2` and :math:`\Theta \leftarrow \sigma_w^2 \Theta + K` (NTK), or
    :math:`\Theta \leftarrow \sigma_w^2 \Theta + n K + [\sigma_b > 0]` with the old :math:`K` (standard; it grows with
    the width :math:`n` before the layer).

    Args:
        width: Units.
        w_std: The scale :math:`\sigma_w`.
        b_std: The scale :math:`\sigma_b`; 0 means no bias.
        parameterization: ``"ntk"`` or ``"standard"``.

    Raises:
        ValueError: For a width below 1, negative scales, or an unknown parameterization.
    """

    def out_shape(self, in_shape: Shape) -> Shape:
        require(len(in_shape) == 1, "a vector before Dense (use Flatten or GlobalAvgPool)", in_shape)
        return (self.width,)

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        self.out_shape(in_shape)
        return self._finite((self.width, in_shape[0]), generator, options)

    def limit(self, state: State, paired_after: bool) -> State:
        return self._mapped(state, state.nngp, state.ntk, state.features)


@dataclass(frozen=True)
class Conv(_Weights):
    r"""A convolution of ``width`` channels over one or two pixel axes.

    The covariance of pixels :math:`p, p'` is the mean over the window's offsets of the covariances before,
    :math:`K_{pp'} \leftarrow \frac{\sigma_w^2}{|D|} \sum_{d \in D} K_{p+d,\,p'+d} + \sigma_b^2`: pairs of pixels move
    along diagonals, and each axis is summed for itself.

    Args:
        width: Channels.
        w_std: The scale :math:`\sigma_w`.
        b_std: The scale :math:`\sigma_b`; 0 means no bias.
        parameterization: ``"ntk"`` or ``"standard"``.
        window: Size of the window, a number or one for each axis.
        stride: Stride, a number or one for each axis.
        padding: ``"valid"``, ``"same"`` (zeros) or ``"circular"``.

    Raises:
        ValueError: For sizes below 1 or an unknown padding.
    """

    window: int | Shape = 3
    stride: int | Shape = 1
    padding: Padding = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self.window, self.stride, self.padding)

    def _plan(self, pixels: Shape) -> list[_Axis]:
        return _axes(pixels, self.window, self.stride, self.padding)

    def out_shape(self, in_shape: Shape) -> Shape:
        require(len(in_shape) in (2, 3), "channels and one or two pixel axes before Conv", in_shape)
        return (self.width, *(axis.out for axis in self._plan(in_shape[1:])))

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        self.out_shape(in_shape)
        plan = self._plan(in_shape[1:])
        layer = self._finite((self.width, in_shape[0], *(axis.size for axis in plan)), generator, options)
        layer.stride = tuple(axis.stride for axis in plan)
        layer.pads = [(axis.before, axis.after) for axis in plan]
        layer.circular = self.padding == "circular"
        return layer

    def limit(self, state: State, paired_after: bool) -> State:
        plan = self._plan(state.pixels)
        count = math.prod(axis.size for axis in plan)

        def smooth(values: Tensor) -> Tensor:
            for j, axis in enumerate(plan):
                dims = (2 * j, 2 * j + 1) if state.paired else (j,)
                values = _window_sum(values, dims, axis)
            return values / count

        nngp, ntk = state.both(smooth)
        pixels = tuple(axis.out for axis in plan)
        return self._mapped(state, nngp, ntk, state.features * count, pixels=pixels)


class _Axis(NamedTuple):
    """A window along one pixel axis of ``length`` pixels."""

    length: int
    size: int
    stride: int
    before: int
    after: int
    out: int
    circular: bool


def _check_window(window: int | Shape, stride: int | Shape, padding: str) -> None:
    require(padding in ("valid", "same", "circular"), "a padding out of valid, same, circular", repr(padding))
    for name, value in (("window", window), ("stride", stride)):
        sizes = (value,) if isinstance(value, int) else tuple(value)
        require(all(isinstance(s, int) and s >= 1 for s in sizes), f"a {name} of at least 1", value)


def _axes(pixels: Shape, window: int | Shape, stride: int | Shape, padding: Padding) -> list[_Axis]:
    windows = (window,) * len(pixels) if isinstance(window, int) else tuple(window)
    strides = (stride,) * len(pixels) if isinstance(stride, int) else tuple(stride)
    require(
        len(windows) == len(strides) == len(pixels), f"window and stride for {len(pixels)} axes", (windows, strides)
    )
    plan = []
    for length, size, step in zip(pixels, windows, strides):
        if padding == "valid":
            require(length >= size, f"at least {size} pixels along an axis", length)
            plan.append(_Axis(length, size, step, 0, 0, (length - size) // step + 1, False))
            continue
        out = -(-length // step)
        total = max((out - 1) * step + size - length, 0)
        require(padding == "same" or total <= length, f"at most {length} pixels of circular padding", total)
        plan.append(_Axis(length, size, step, total // 2, total - total // 2, out, padding == "circular"))
    return plan


def _at(dims: Shape, ndim: int, where: slice) -> tuple[slice, ...]:
    return tuple(where if dim in dims else slice(None) for dim in range(ndim))


def _window_sum(values: Tensor, dims: Shape, axis: _Axis) -> Tensor:
    """Sums over a window that moves along all ``dims`` together."""
    before, length = axis.before, axis.length
    if axis.circular and (axis.before or axis.after):
        index = torch.arange(-axis.before, length + axis.after, device=values.device) % length
        for dim in dims:
            values = values.index_select(dim, index)
        before, length = 0, len(index)
    result = None
    # The offset without padding first: it fills the whole result.
    for d in sorted(range(axis.size), key=lambda d: abs(d - before)):
        low = max(0, -(-(before - d) // axis.stride))
        high = min(axis.out, (length - 1 + before - d) // axis.stride + 1)
        if high <= low:
            continue
        start = low * axis.stride + d - before
        source = values[_at(dims, values.ndim, slice(start, start + (high - low - 1) * axis.stride + 1, axis.stride))]
        if result is None:
            if (low, high) == (0, axis.out):
                result = source.clone(memory_format=torch.contiguous_format)
                continue
            shape = [axis.out if dim in dims else size for dim, size in enumerate(values.shape)]
            result = values.new_zeros(shape)
        result[_at(dims, values.ndim, slice(low, high))] += source
    assert result is not None
    return result


@dataclass(frozen=True)
class AvgPool(Layer):
    r"""Mean over a window; both pixels of a pair move on their own.

    Its limit needs :math:`(HW)^2` numbers for a pair of images, as that of :class:`GlobalAvgPool`.

    Args:
        window: Size of the window, a number or one for each axis.
        stride: Stride; the window without it.
        padding: ``"valid"`` or ``"circular"``.

    Raises:
        ValueError: For sizes below 1 or another padding.
    """

    window: int | Shape = 2
    stride: int | Shape | None = None
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        _check_window(self.window, self.stride or self.window, self.padding)
        require(self.padding != "same", "valid or circular padding of a mean", self.padding)

    def _plan(self, pixels: Shape) -> list[_Axis]:
        return _axes(pixels, self.window, self.stride or self.window, self.padding)

    def out_shape(self, in_shape: Shape) -> Shape:
        require(len(in_shape) in (2, 3), "channels and one or two pixel axes before AvgPool", in_shape)
        return (in_shape[0], *(axis.out for axis in self._plan(in_shape[1:])))

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        self.out_shape(in_shape)
        plan = self._plan(in_shape[1:])
        pads = [n for axis in reversed(plan) for n in (axis.before, axis.after)]
        pool = nn.functional.avg_pool2d if len(plan) == 2 else nn.functional.avg_pool1d
        size, step = tuple(axis.size for axis in plan), tuple(axis.stride for axis in plan)

        def mean(x: Tensor) -> Tensor:
            wide = nn.functional.pad(x, pads, mode="circular") if any(pads) else x
            return pool(wide, size, step)

        return _Elementwise(mean)

    def needs_pairs(self, paired_after: bool) -> bool:
        return True

    def limit(self, state: State, paired_after: bool) -> State:
        plan = self._plan(state.pixels)

        def mean(values: Tensor) -> Tensor:
            for j, axis in enumerate(plan):
                for dim in (2 * j, 2 * j + 1):
                    values = _window_sum(values, (dim,), axis) / axis.size
            return values

        nngp, ntk = state.both(mean)
        result = replace(state, nngp=nngp, ntk=ntk, pixels=tuple(axis.out for axis in plan))
        return result if paired_after else _unpaired(result)


class GlobalAvgPool(Layer):
    r"""Mean over all pixels.

    Its limit needs the covariances of all pairs of pixels, :math:`(HW)^2` numbers for a pair of images, through every
    layer before it: pool or stride early where images are large.
    """

    def out_shape(self, in_shape: Shape) -> Shape:
        require(len(in_shape) >= 2, "channels and pixels before GlobalAvgPool", in_shape)
        return in_shape[:1]

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        self.out_shape(in_shape)
        return _Elementwise(lambda x: x.flatten(2).mean(-1))

    def needs_pairs(self, paired_after: bool) -> bool:
        return True

    def limit(self, state: State, paired_after: bool) -> State:
        axes = tuple(range(2 * len(state.pixels)))
        nngp, ntk = state.both(lambda t: t.mean(axes))
        return replace(state, nngp=nngp, ntk=ntk, pixels=(), paired=False)


class Flatten(Layer):
    """Pixels become features."""

    def out_shape(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        return nn.Flatten()

    def needs_pairs(self, paired_after: bool) -> bool:
        return False

    def limit(self, state: State, paired_after: bool) -> State:
        if not state.pixels:
            return state
        axes = tuple(range(len(state.pixels)))
        nngp, ntk = _unpaired(state).both(lambda t: t.mean(axes))
        features = state.features * math.prod(state.pixels)
        return replace(state, nngp=nngp, ntk=ntk, pixels=(), paired=False, features=features)


class Identity(Layer):
    """Nothing; the skip connection of a residual block."""

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        return nn.Identity()

    def limit(self, state: State, paired_after: bool) -> State:
        return state


@dataclass(frozen=True)
class Activate(Layer):
    """An elementwise activation with its dual.

    Args:
        activation: From :mod:`netatlas.core.dual_activations`.

    Raises:
        ValueError: When its limit is asked for directly on inputs or after another activation, where features are not
            Gaussian.
    """

    activation: duals.Activation

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        return _Elementwise(self.activation)

    def limit(self, state: State, paired_after: bool) -> State:
        require(
            state.gaussian, f"weights before the activation {self.activation.name}", "features that are not Gaussian"
        )
        first, second = state.variances()
        tangent = state.ntk is not None
        if state.own and not state.paired:
            nngp, slope = self.activation.diagonal(first, tangent)
        else:
            nngp, slope = self.activation.dual(state.nngp, first, second, tangent)
            if state.own:
                exact = self.activation.diagonal(state.same_pixels(state.nngp), tangent)
                for values, right in zip((nngp, slope), exact):
                    if values is not None and right is not None:
                        state.same_pixels(values).copy_(right)
        ntk = None if state.ntk is None or slope is None else slope.mul_(state.ntk)
        return replace(state, nngp=nngp, ntk=ntk, gaussian=False, fresh=False)


@dataclass(frozen=True)
class LayerNorm(Layer):
    r"""Normalisation of each pixel over its channels, without learned scale or shift.

    As width grows the mean over channels vanishes and the variance becomes :math:`K(x, x)`:
    :math:`K \leftarrow K / \sqrt{K(x,x) K(x',x')}`, and :math:`\Theta` is divided by the same root.

    Args:
        epsilon: Added to the variance.

    Raises:
        ValueError: When its limit is asked for where features are not Gaussian.
    """

    epsilon: float = 1e-12

    def build(self, in_shape: Shape, generator: torch.Generator | None = None, **options) -> nn.Module:
        def normalize(x: Tensor) -> Tensor:
            moved = x.movedim(1, -1)
            return nn.functional.layer_norm(moved, (in_shape[0],), eps=self.epsilon).movedim(-1, 1)

        return _Elementwise(normalize)

    def limit(self, state: State, paired_after: bool) -> State:
        require(state.gaussian, "weights before LayerNorm", "features that are not Gaussian")
        first, second = ((v + self.epsilon).rsqrt() for v in state.variances())
        nngp, ntk = state.both(lambda t: (t * first).mul_(second))
        return replace(state, nngp=nngp, ntk=ntk)


def Relu() -> Activate:
    """The ReLU."""
    return Activate(duals.relu())


def LeakyRelu(slope: float) -> Activate:
    """The leaky ReLU with ``slope`` for negative inputs."""
    return Activate(duals.ABReLU(slope, 1.0))


def Abs() -> Activate:
    """The absolute value."""
    return Activate(duals.ABReLU(-1.0, 1.0))


def Erf() -> Activate:
    """The error function."""
    return Activate(duals.Erf())


def Sin() -> Activate:
    """The sine."""
    return Activate(duals.Sin())


def Tanh() -> Activate:
    """The hyperbolic tangent (Hermite expansion)."""
    return Activate(duals.tanh())


def Gelu() -> Activate:
    """The GELU (Hermite expansion)."""
    return Activate(duals.gelu())


def Elementwise(function: duals.Elementwise, **options) -> Activate:
    """Any elementwise activation, by its Hermite expansion.

    Args:
        function: The activation.
        options: As for :class:`netatlas.core.dual_activations.Hermite`.
    """
    return Activate(duals.Hermite(function, **options))
