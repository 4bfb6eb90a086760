r"""The tangent kernel of a finite network, three ways.

For a network :math:`f : \mathbb R^d \to \mathbb R^O` with parameters :math:`\theta` the empirical NTK is

.. math::

    \Theta(x, x')_{oo'} = \sum_p \frac{\partial f_o(x)}{\partial \theta_p}\,
    \frac{\partial f_{o'}(x')}{\partial \theta_p} .

*Jacobian contraction* forms both Jacobians and multiplies them; *NTK-vector products* pull a cotangent back at
:math:`x'` and push the result forward at :math:`x`, and never hold a Jacobian; *structured derivatives* use that the
gradient of a dense layer is an outer product of its input and its output's cotangent, so that the kernel is a sum over
layers of products of two small Gram matrices. All work for any module whose outputs do not mix examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from netatlas.core.checks import require, require_finite, require_same_device
from netatlas.core.infinite import FiniteLinear

Method = Literal["structured", "jacobian", "ntk_vector"]
Outputs = Literal["full", "trace", "sum_of_logits", "first"]
Params = dict[str, Tensor]

# Numbers of a tile of the structured method: small enough for the cache, large enough for fast products.
_TILE = 2**19
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def _cotangents(outputs: Outputs | Tensor, count: int, like: Tensor) -> Tensor:
    """The combinations of outputs whose gradients are taken, ``[R, O]``."""
    if isinstance(outputs, Tensor):
        require(outputs.ndim == 2 and outputs.shape[1] == count, f"combinations [R, {count}]", tuple(outputs.shape))
        return outputs.to(like.device, like.dtype)
    kinds = ("full", "trace", "sum_of_logits", "first")
    require(outputs in kinds, f"outputs out of {', '.join(kinds)}, or a matrix", repr(outputs))
    if outputs == "sum_of_logits":
        return like.new_full((1, count), count**-0.5)
    eye = torch.eye(count, dtype=like.dtype, device=like.device)
    return eye[:1] if outputs == "first" else eye


def _call(model: nn.Module, params: Params) -> Callable[[Params, Tensor], Tensor]:
    buffers = dict(model.named_buffers())

    def one(weights: Params, x: Tensor) -> Tensor:
        return functional_call(model, (weights, buffers), (x[None],))[0]

    return one


def _finish(kernel: Tensor, outputs: Outputs | Tensor) -> Tensor:
    """``[R, n1, R, n2]`` as the caller asked for it."""
    if isinstance(outputs, Tensor) or outputs == "full":
        return kernel.permute(1, 3, 0, 2)
    if outputs == "trace":
        return kernel.diagonal(dim1=0, dim2=2).mean(-1)
    return kernel[0, :, 0]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def empirical_ntk(
    model: nn.Module,
    x1: Float[Tensor, "n1 *in_shape"],
    x2: Float[Tensor, "n2 *in_shape"] | None = None,
    *,
    method: Method = "structured",
    outputs: Outputs | Float[Tensor, "R O"] = "full",
    params: Params | None = None,
    chunk: int = 64,
) -> Float[Tensor, "n1 n2 *R"]:
    r"""Empirical neural tangent kernel of any PyTorch module.

    ``outputs`` says which kernel:

    - ``"full"``: :math:`\Theta(x, x')_{oo'}`, ``[n1, n2, O, O]``;
    - ``"trace"``: :math:`\frac1O \sum_o \Theta_{oo}`, ``[n1, n2]``;
    - ``"sum_of_logits"`` (the pseudo-NTK): :math:`\frac1O \sum_{oo'} \Theta_{oo'}`, ``[n1, n2]``, one backward pass;
    - ``"first"``: :math:`\Theta_{11}`, ``[n1, n2]``;
    - a matrix :math:`C` of ``R`` combinations: :math:`C\, \Theta\, C^\top`, ``[n1, n2, R, R]``.

    Args:
        model: Maps ``[N, *in_shape]`` to ``[N, O]`` or ``[N]``, evaluated in eval mode; must not mix examples.
        x1: ``n1`` inputs.
        x2: ``n2`` inputs; ``x1`` itself without them, and each pair is then computed once.
        method: ``"structured"`` (dense and convolutional layers by factors, other parameters by Jacobians),
            ``"jacobian"`` or ``"ntk_vector"``.
        outputs: Which kernel, see above.
        params: Parameters to use instead of the model's own.
        chunk: Examples whose gradients are held at once (``"jacobian"``), or whose products are (``"ntk_vector"``).

    Raises:
        ValueError: For no inputs, NaN, inputs on two devices or of different shapes, no parameters, an unknown method
            or
            kind of outputs, or a module whose output is not ``[N, O]``.

    Source:
        jacot2018ntk; mohamadi2022pntk for the pseudo-NTK.
    """
    require(
        method in ("structured", "jacobian", "ntk_vector"), "a method out of structured, jacobian, ntk_vector", method
    )
    require(chunk >= 1, "a chunk of at least 1", chunk)
    require(x1.ndim >= 2 and len(x1) >= 1, "x1 of shape [n, ...] with n >= 1", tuple(x1.shape))
    other = x1 if x2 is None else x2
    require(other.shape[1:] == x1.shape[1:] and len(other) >= 1, f"x2 like x1, {tuple(x1.shape)}", tuple(other.shape))
    for name, values in (("x1", x1), ("x2", other)):
        require_finite(name, values)
    state = {name: value.detach() for name, value in (params or dict(model.named_parameters())).items()}
    require(len(state) > 0, "a model with parameters", 0)
    first = next(iter(state.values()))
    require_same_device([("x1", x1), ("x2", other), ("parameters", first)])
    a, b = x1.to(first.dtype), None if x2 is None else x2.to(first.dtype)
    with _evaluating(model), torch.no_grad():
        shape = functional_call(model, (state, dict(model.named_buffers())), (a[:1],)).shape
        require(len(shape) in (1, 2) and shape[0] == 1, "outputs of shape [N, O] or [N]", tuple(shape))
        scalar = len(shape) == 1
        net = _Scalar(model) if scalar else model
        state = {f"model.{name}": value for name, value in state.items()} if scalar else state
        combos = _cotangents(outputs, 1 if scalar else shape[1], first)
        if method == "structured":
            kernel = _structured(net, state, a, b, combos, chunk, outputs == "trace")
            if kernel.ndim == 2:
                return kernel if outputs != "full" and not isinstance(outputs, Tensor) else kernel[..., None, None]
        elif method == "jacobian":
            kernel = _by_jacobian(net, state, a, b, combos, chunk)
        else:
            kernel = _by_products(net, state, a, b, combos, chunk)
        return _finish(kernel, outputs)


class _Scalar(nn.Module):
    """A model of one output without an axis for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)[:, None]


def _jacobian(model: nn.Module, state: Params, x: Tensor, combos: Tensor) -> Tensor:
    """Gradients of the combinations of outputs, ``[N * R, P]``."""
    one = _call(model, state)

    def rows(point: Tensor) -> Tensor:
        pull = vjp(lambda weights: one(weights, point), state)[1]
        (grads,) = vmap(pull)(combos)
        return torch.cat([g.flatten(1) for g in grads.values()], 1)

    return vmap(rows)(x).flatten(0, 1)


def _by_jacobian(model: nn.Module, state: Params, a: Tensor, b: Tensor | None, combos: Tensor, chunk: int) -> Tensor:
    r = len(combos)
    left = torch.cat([_jacobian(model, state, part, combos) for part in a.split(chunk)])
    right = left if b is None else torch.cat([_jacobian(model, state, part, combos) for part in b.split(chunk)])
    return (left @ right.mT).reshape(len(a), r, -1, r).transpose(0, 1).transpose(2, 3)


def _by_products(model: nn.Module, state: Params, a: Tensor, b: Tensor | None, combos: Tensor, chunk: int) -> Tensor:
    one = _call(model, state)

    def against(point: Tensor, others: Tensor) -> Tensor:
        pull = vjp(lambda weights: one(weights, point), state)[1]
        (grads,) = vmap(pull)(combos)

        def push(direction: Params) -> Tensor:
            def along(x: Tensor) -> Tensor:
                return jvp(lambda weights: one(weights, x), (state,), (direction,))[1]

            return vmap(along)(others)

        return torch.einsum("rno,so->snr", vmap(push)(grads), combos)

    other = a if b is None else b
    columns = [torch.cat([against(point, part) for part in a.split(chunk)], 1) for point in other]
    return torch.stack(columns, 3)


def _supported(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose gradients factorise: dense ones and plain convolutions, by name."""
    found = {}
    for name, layer in model.named_modules():
        plain = isinstance(layer, _CONVOLUTIONS) and layer.groups == 1 and layer.padding_mode == "zeros"
        if isinstance(layer, nn.Linear | FiniteLinear) or (plain and not isinstance(layer.padding, str)):
            found[name] = layer
    owners: dict[int, int] = {}
    for layer in model.modules():
        for value in layer.parameters(recurse=False):
            owners[id(value)] = owners.get(id(value), 0) + 1
    return {n: la for n, la in found.items() if all(owners[id(p)] == 1 for p in la.parameters(recurse=False))}


def _columns(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's input as rows of the matrix that its weight multiplies, ``[N, pixels, fan_in]``."""
    if isinstance(layer, nn.Linear) or (isinstance(layer, FiniteLinear) and not layer.stride):
        return x.reshape(len(x), -1, x.shape[-1])
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    if isinstance(layer, FiniteLinear):
        window, stride, x = tuple(layer.weight.shape[2:]), layer.stride, layer.padded(x)
        dilation, padding = (1,) * len(window), (0,) * len(window)
    else:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d) and not isinstance(layer.padding, str)
        window, stride, dilation, padding = layer.kernel_size, layer.stride, layer.dilation, layer.padding
    if len(window) == 1:
        x, window, stride = x[:, :, None], (1, *window), (1, *stride)
        dilation, padding = (1, *dilation), (0, *padding)
    return nn.functional.unfold(x, window, dilation, padding, stride).mT


def _scales(layer: nn.Module) -> tuple[float, float]:
    """The factor of a layer's weights, and the square of that of its bias: 0 without one."""
    weight, bias = (layer.weight_scale, layer.bias_scale) if isinstance(layer, FiniteLinear) else (1.0, 1.0)
    return weight, bias**2 if layer.bias is not None else 0.0


class _Factors:
    """Inputs ``[N, pixels, fan_in]`` and output cotangents ``[R, N, pixels, width]`` of each layer."""

    def __init__(self) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.cotangents: dict[str, Tensor] = {}
        self.repeated: set[str] = set()


def _factors(model: nn.Module, state: Params, layers: dict[str, nn.Module], x: Tensor, combos: Tensor) -> _Factors:
    found, outputs, handles = _Factors(), {}, []
    if not layers:
        return found

    def note(name: str, layer: nn.Module) -> Callable:
        def hook(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            if name in outputs:
                found.repeated.add(name)
            outputs[name] = result
            found.inputs[name] = _columns(layer, given[0].detach())

        return hook

    for name, layer in layers.items():
        handles.append(layer.register_forward_hook(note(name, layer)))
    try:
        with torch.enable_grad():
            weights = {name: value.requires_grad_() for name, value in _fresh(state).items()}
            result = functional_call(model, (weights, dict(model.named_buffers())), (x,))
            names = [name for name, value in outputs.items() if value.requires_grad]
            cotangents = combos[:, None, :].expand(len(combos), len(x), -1)
            wanted = [outputs[name] for name in names]
            grads = torch.autograd.grad(result, wanted, cotangents, is_grads_batched=True, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    for name, grad in zip(names, grads):
        if grad is None:
            found.inputs.pop(name)
            continue
        layer = layers[name]
        convolves = isinstance(layer, _CONVOLUTIONS) or (isinstance(layer, FiniteLinear) and layer.stride)
        # [R, N, width, *pixels] of a convolution, [R, N, *pixels, width] of a dense layer.
        flat = grad.flatten(3).mT if convolves else grad.reshape(*grad.shape[:2], -1, grad.shape[-1])
        found.cotangents[name] = flat.detach()
    return found


def _fresh(state: Params) -> Params:
    return {name: value.detach().clone() if value.requires_grad else value.detach() for name, value in state.items()}


def _structured(
    model: nn.Module, state: Params, a: Tensor, b: Tensor | None, combos: Tensor, chunk: int, trace: bool
) -> Tensor:
    """``[R, n1, R, n2]``; ``[n1, n2]`` for the mean over equal combinations, or for a single one."""
    candidates, r = _supported(model), len(combos)
    left = _factors(model, state, candidates, a, combos)
    right = left if b is None else _factors(model, state, candidates, b, combos)
    layers = {n: la for n, la in candidates.items() if n not in left.repeated and n in left.cotangents}
    n, m = len(a), len(a if b is None else b)
    trace = trace or r == 1
    kernel = a.new_zeros((n, m) if trace else (r, n, r, m))
    vectors: Vectors = []
    for name, layer in layers.items():
        if left.inputs[name].shape[1] > 1:
            _add_pixels(kernel, layer, name, left, right, trace)
            continue
        weight_scale, shift = _scales(layer)
        x, y = left.inputs[name][:, 0], right.inputs[name][:, 0]
        inputs = _product(x, x if b is None else y).mul_(weight_scale**2).add_(shift)
        g, h = (side.cotangents[name][:, :, 0].contiguous() for side in (left, right))
        vectors.append((inputs, g, h))
    (_add_traces if trace else _add_vectors)(kernel, vectors, b is None)
    covered = {f"{name}.{part}" if name else part for name in layers for part in ("weight", "bias")}
    rest = {name: value for name, value in state.items() if name not in covered}
    if rest:
        fixed = {name: value for name, value in state.items() if name in covered}
        jac = [_rest_jacobian(model, fixed, rest, x, combos, chunk) for x in ([a] if b is None else [a, b])]
        added = (jac[0] @ jac[-1].mT).reshape(n, r, m, r)
        kernel += added.diagonal(dim1=1, dim2=3).mean(-1) if trace else added.transpose(0, 1).transpose(2, 3)
    return kernel


def _rest_jacobian(model: nn.Module, fixed: Params, rest: Params, x: Tensor, combos: Tensor, chunk: int) -> Tensor:
    buffers = dict(model.named_buffers())

    def rows(point: Tensor) -> Tensor:
        def some(weights: Params) -> Tensor:
            return functional_call(model, ({**fixed, **weights}, buffers), (point[None],))[0]

        pull = vjp(some, rest)[1]
        (grads,) = vmap(pull)(combos)
        return torch.cat([g.flatten(1) for g in grads.values()], 1)

    return torch.cat([vmap(rows)(part).flatten(0, 1) for part in x.split(chunk)])


# One dense layer: products of inputs [n1, n2], and output cotangents [R, n1, width] and [R, n2, width].
Vectors = list[tuple[Tensor, Tensor, Tensor]]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.mT``."""
    if a.device.type == "cpu" and a.dtype in (torch.float32, torch.float64):
        # Of a matrix times its own transpose NumPy computes one half (BLAS syrk), torch both.
        left = a.numpy()
        return torch.from_numpy(np.matmul(left, left.T if b is a else b.numpy().T))
    return a @ b.mT


def _add_vectors(kernel: Tensor, layers: Vectors, symmetric: bool) -> None:
    """Add dense layers to ``[R, n, R, m]``, all layers of a pair of outputs while the cache holds it."""
    r, n, _, m = kernel.shape
    step = max(1, _TILE // (n * m))
    for o in range(r):
        for inputs, g, _ in layers if symmetric else []:
            own = g[o]
            kernel[o, :, o].addcmul_(_product(own, own), inputs)
        # Of a symmetric kernel the pairs of outputs o < o'; the others are their transposes.
        for other in range(o + 1 if symmetric else 0, r, step):
            columns = slice(other, other + step)
            block = kernel[o, :, columns]
            for inputs, g, h in layers:
                product = _product(g[o], h[columns].flatten(0, 1)).view(block.shape)
                block.addcmul_(product, inputs[:, None])
            if symmetric:
                kernel[columns, :, o] = block.permute(1, 2, 0)


def _add_traces(kernel: Tensor, layers: Vectors, symmetric: bool) -> None:
    """Add the means over outputs of dense layers to ``[n, m]``: one product over outputs and units together."""
    for inputs, g, h in layers:
        left = g.transpose(0, 1).flatten(1)
        right = left if symmetric else h.transpose(0, 1).flatten(1)
        kernel.addcmul_(_product(left, right), inputs, value=1 / len(g))


def _add_pixels(kernel: Tensor, layer: nn.Module, name: str, left: _Factors, right: _Factors, trace: bool) -> None:
    """A layer with several pixels: its weight gradients are sums over pixels, formed for one block of examples."""
    weight_scale, shift = _scales(layer)
    x, y, g, h = left.inputs[name], right.inputs[name], left.cotangents[name], right.cotangents[name]
    r, size = len(g), g.shape[3] * x.shape[2]
    step = max(1, 2**24 // (r * size))

    def gradients(values: Tensor, deltas: Tensor) -> Tensor:
        weights = torch.einsum("rnpw,npf->nrwf", deltas, values).flatten(2).mul_(weight_scale)
        return weights if not shift else torch.cat([weights, deltas.sum(2).transpose(0, 1) * shift**0.5], 2)

    for i in range(0, len(x), step):
        first = gradients(x[i : i + step], g[:, i : i + step])
        for j in range(0, len(y), step):
            same = x is y and i == j
            second = first if same else gradients(y[j : j + step], h[:, j : j + step])
            if trace:
                kernel[i : i + step, j : j + step] += first.flatten(1) @ second.flatten(1).mT / r
            else:
                block = (first.flatten(0, 1) @ second.flatten(0, 1).mT).reshape(len(first), r, len(second), r)
                kernel[:, i : i + step, :, j : j + step] += block.transpose(0, 1).transpose(2, 3)


def ntk_vector_product(
    model: nn.Module,
    x: Float[Tensor, "n *in_shape"],
    vector: Float[Tensor, "n O"],
    *,
    params: Params | None = None,
) -> Float[Tensor, "n O"]:
    r"""The empirical NTK times a vector, without the kernel: :math:`J (J^\top v)`, one backward and one forward pass.

    Args:
        model: Maps ``[n, *in_shape]`` to ``[n, O]``.
        x: Inputs.
        vector: One number for each input and output.
        params: Parameters to use instead of the model's own.

    Raises:
        ValueError: For a vector of another shape than the output.
    """
    state = {name: value.detach() for name, value in (params or dict(model.named_parameters())).items()}
    buffers = dict(model.named_buffers())

    def outputs(weights: Params) -> Tensor:
        return functional_call(model, (weights, buffers), (x,))

    with _evaluating(model):
        result, pull = vjp(outputs, state)[:2]
        require(vector.shape == result.shape, f"a vector of shape {tuple(result.shape)}", tuple(vector.shape))
        (direction,) = pull(vector)
        return jvp(outputs, (state,), (direction,))[1]
