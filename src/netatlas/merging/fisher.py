"""Fisher-weighted averaging: each parameter counts by how sure its network is of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from netatlas.core.states import State, check_finite, check_states

from .average import check_coefficients

LABELS = ("exact", "sampled", "empirical")

_SLOPES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (torch.relu, lambda z: (z > 0).to(z.dtype)),
    "tanh": (torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
    "gelu": (
        nn.functional.gelu,
        lambda z: 0.5 * (1 + torch.erf(z / 2**0.5)) + z * torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5,
    ),
}


def _targets(
    logits: Tensor, labels: str, truth: Tensor | None, samples: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Labels [N, K] and their weights [N, K] that make the Fisher a weighted sum of squared gradients."""
    if labels == "exact":
        classes = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape)
        return classes, logits.softmax(-1)
    if labels == "sampled":
        drawn = torch.multinomial(logits.softmax(-1), samples, replacement=True, generator=generator)
        return drawn, torch.full(drawn.shape, 1.0 / samples, dtype=logits.dtype, device=logits.device)
    return truth[:, None], torch.ones_like(truth, dtype=logits.dtype)[:, None]


def _check_request(inputs: Tensor, labels: str, truth: Tensor | None, samples: int) -> None:
    if len(inputs) == 0:
        raise ValueError("expected at least one example, got none")
    check_finite(inputs, "inputs")
    if labels not in LABELS:
        raise ValueError(f"expected labels to be one of {LABELS}, got {labels!r}")
    if (labels == "empirical") != (truth is not None):
        raise ValueError("expected the data's labels (truth) with labels='empirical', and only then")
    if truth is not None and truth.shape != (len(inputs),):
        raise ValueError(f"expected truth of shape ({len(inputs)},), got {tuple(truth.shape)}")
    if samples < 1:
        raise ValueError(f"expected at least one sampled label, got {samples}")


def diagonal_fisher(
    model: nn.Module,
    inputs: Float[Tensor, "examples *features"],
    *,
    labels: str = "exact",
    truth: Int[Tensor, " examples"] | None = None,
    samples: int = 1,
    params: State | None = None,
    chunk: int = 64,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Diagonal of the Fisher information of any classifier, from per-example gradients.

    Linear and convolutional layers take one backward pass a label for all examples of a chunk; parameters of any other
    kind are differentiated example by example (vectorized).

    .. math::

        F = \frac1N\sum_{n=1}^N \mathbb E_{y\sim p_\theta(\cdot\mid x_n)}
            \bigl(\nabla_\theta \log p_\theta(y\mid x_n)\bigr)^{2}

    Args:
        model: returns logits ``[N, C]``; evaluated in eval mode (no dropout, fixed normalisation statistics).
        inputs: N examples.
        labels: ``"exact"`` sums over the C classes, ``"sampled"`` draws ``samples`` labels from the model,
            ``"empirical"`` uses the data's labels ``truth`` (another matrix, kept for comparison).
        truth: class indices, for ``"empirical"`` only.
        samples: labels drawn an example, for ``"sampled"`` only.
        params: parameters to use instead of the model's own.
        chunk: examples whose gradients are held at once.
        generator: for ``"sampled"``.

    Returns:
        Dictionary from parameter name to its Fisher diagonal, in the parameter's shape.

    Raises:
        ValueError: no examples, non-finite inputs, an unknown kind of labels, labels missing or superfluous.

    Source:
        matena2021fisher, eq. (3) and section 3.1.
    """
    _check_request(inputs, labels, truth, samples)
    if chunk < 1:
        raise ValueError(f"expected a positive chunk, got {chunk}")
    state = {name: value.detach() for name, value in (params or dict(model.named_parameters())).items()}
    buffers = dict(model.named_buffers())
    training = model.training
    model.eval()
    try:
        layers = _layers(model, state)
        total = {name: torch.zeros_like(value) for name, value in state.items()}
        for start in range(0, len(inputs), chunk):
            x = inputs[start : start + chunk]
            part = None if truth is None else truth[start : start + chunk]
            with torch.enable_grad(), _recorded(layers) as calls:
                weights = {name: value.requires_grad_() for name, value in _detached(state).items()}
                logits = functional_call(model, (weights, buffers), (x,))
            target, share = _targets(logits.detach(), labels, part, samples, generator)
            chosen = logits.log_softmax(-1).gather(1, target)
            if start == 0:
                layers = _verified(layers, calls, chosen[:, 0], weights)
            _add_layers(total, layers, calls, chosen, share)
            covered = {name for prefix, layer in layers.items() for name in _names(prefix, layer)}
            other = {name: value for name, value in state.items() if name not in covered}
            if other:
                fixed = {name: state[name] for name in covered} | buffers
                for name, value in _per_example(model, other, fixed, x, target).items():
                    total[name] += torch.einsum("nk,nk...->...", share, value**2)
    finally:
        model.train(training)
    return {name: value / len(inputs) for name, value in total.items()}


def _detached(state: State) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in state.items()}


def _names(prefix: str, layer: nn.Module) -> list[str]:
    dot = f"{prefix}." if prefix else ""
    return [dot + name for name, _ in layer.named_parameters(recurse=False)]


def _layers(model: nn.Module, state: State) -> dict[str, nn.Module]:
    """Linear and convolutional layers that share no parameter: their per-example gradients need no vmap."""
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    found = {}
    for prefix, module in model.named_modules():
        plain = type(module) is nn.Linear or (
            type(module) is nn.Conv2d
            and module.groups == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )
        if (
            plain
            and all(owners[id(p)] == 1 for p in module.parameters() if p is not None)
            and all(name in state for name in _names(prefix, module))
        ):
            found[prefix] = module
    return found


@contextmanager
def _recorded(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Inputs and outputs of every call of the layers."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {prefix: [] for prefix in layers}
    hooks = [
        layer.register_forward_hook(lambda _, args, output, prefix=prefix: calls[prefix].append((args[0], output)))
        for prefix, layer in layers.items()
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _example_gradients(layer: nn.Module, given: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a layer's weight ``[n, out, in]`` and bias ``[n, out]``, from those of its outputs."""
    slope = slope.flatten(2) if isinstance(layer, nn.Conv2d) else slope.flatten(1, -2).mT
    return slope @ given, slope.sum(-1)


def _positions(layer: nn.Module, given: Tensor) -> Tensor:
    """What a layer reads at each place of an example, ``[n, places, in]``; ``[n, in]`` where there is one place."""
    given = given.detach()
    if isinstance(layer, nn.Conv2d):
        return nn.functional.unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT
    return given if given.ndim == 2 else given.flatten(1, -2)


def _verified(
    layers: dict[str, nn.Module], calls: dict[str, list[tuple[Tensor, Tensor]]], chosen: Tensor, weights: State
) -> dict[str, nn.Module]:
    """The layers whose examples' gradients add up to what autograd finds.

    A weight that is used a second time without its layer, an output changed in place, or examples that do not lie
    along the first axis would escape the record. Unequal shares of the examples uncover all three.
    """
    once = {p: layer for p, layer in layers.items() if len(calls[p]) == 1 and len(calls[p][0][1]) == len(chosen)}
    if not once:
        return {}
    share = torch.linspace(0.5, 1.5, len(chosen), dtype=chosen.dtype, device=chosen.device)
    outputs = [calls[prefix][0][1] for prefix in once]
    slopes = torch.autograd.grad(chosen.sum(), outputs, retain_graph=True, allow_unused=True)
    wanted = [weights[_names(prefix, layer)[0]] for prefix, layer in once.items()]
    sums = torch.autograd.grad(share @ chosen, wanted, retain_graph=True, allow_unused=True)
    good = {}
    for (prefix, layer), slope, total in zip(once.items(), slopes, sums):
        if slope is None or total is None:
            continue
        given = _positions(layer, calls[prefix][0][0])
        if given.ndim == 2:
            found = (share[:, None] * slope).T @ given
        else:
            found = torch.einsum("n,noi->oi", share, _example_gradients(layer, given, slope)[0])
        if bool((found - total.flatten(1)).norm() <= 1e-3 * total.norm()):
            good[prefix] = layer
    return good


def _add_layers(
    total: dict[str, Tensor],
    layers: Mapping[str, nn.Module],
    calls: Mapping[str, list[tuple[Tensor, Tensor]]],
    chosen: Tensor,
    share: Tensor,
) -> None:
    """Add the layers' part of a chunk to the sums, one backward pass a label for all its examples."""
    outputs = [calls[prefix][0][1] for prefix in layers]
    read = {prefix: _positions(layer, calls[prefix][0][0]) for prefix, layer in layers.items()}
    squares = dict.fromkeys(layers, 0.0)
    for k in range(chosen.shape[1] if layers else 0):
        slopes = torch.autograd.grad(chosen[:, k].sum(), outputs, retain_graph=True)
        root = share[:, k].sqrt()
        for (prefix, layer), slope in zip(layers.items(), slopes):
            given = read[prefix]
            slope = slope * root.reshape(-1, *[1] * (slope.ndim - 1))
            if given.ndim == 2:
                squares[prefix] = squares[prefix] + slope**2
                continue
            for name, value in zip(_names(prefix, layer), _example_gradients(layer, given, slope)):
                total[name] += (value**2).sum(0).reshape(total[name].shape)
    for prefix, layer in layers.items():
        given = read[prefix]
        if given.ndim == 2:
            # The gradient is an outer product, so its square factorises.
            for name, value in zip(_names(prefix, layer), (squares[prefix].T @ given**2, squares[prefix].sum(0))):
                total[name] += value


def _per_example(model: nn.Module, params: State, fixed: State, inputs: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Gradients of the parameters of any kind, ``[examples, labels, ...]``."""

    def log_likelihood(weights: State, x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(model, {**fixed, **weights}, (x[None],))
        return logits.log_softmax(-1)[0].gather(0, y[None])[0]

    per_label = vmap(grad(log_likelihood), in_dims=(None, None, 0))
    return vmap(per_label, in_dims=(None, 0, 0))(params, inputs, target)


def mlp_diagonal_fisher(
    state: State,
    inputs: Float[Tensor, "examples *features"],
    *,
    labels: str = "exact",
    truth: Int[Tensor, " examples"] | None = None,
    samples: int = 1,
    activation: str = "relu",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Diagonal Fisher information of a fully connected classifier without per-example gradients.

    The gradient of a dense layer is an outer product, so its square factorises, and the sum over examples and labels
    is a product of matrices. A layer costs one product forward, one a label backward, and one for the squares:

    .. math::

        F_{W_\ell} = \frac1N\sum_n \Bigl(\sum_y p_\theta(y\mid x_n)\,\delta_{\ell,n,y}^2\Bigr)
        \bigl(a_{\ell-1,n}^2\bigr)^{\top},
        \qquad \delta_{\ell,n,y} = \partial\log p_\theta(y\mid x_n)/\partial z_{\ell,n}

    Args:
        state: ``*.weight`` of shape ``[out, in]`` in the network's order, with or without ``*.bias``.
        inputs: N examples, flattened here.
        labels, truth, samples, generator: as in :func:`diagonal_fisher`, which this equals.
        activation: ``"relu"``, ``"tanh"`` or ``"gelu"``, between layers.

    Returns:
        Dictionary from parameter name to its Fisher diagonal.

    Raises:
        ValueError: as :func:`diagonal_fisher`; an unknown activation; weights that are not matrices.

    Source:
        matena2021fisher, eq. (3).
    """
    check_states([state])
    _check_request(inputs, labels, truth, samples)
    if activation not in _SLOPES:
        raise ValueError(f"expected an activation among {sorted(_SLOPES)}, got {activation!r}")
    weights = [name for name in state if name.endswith("weight")]
    if any(state[name].ndim != 2 for name in weights) or not weights:
        raise ValueError("expected fully connected layers with weights [out, in]")
    apply, slope = _SLOPES[activation]
    hidden = inputs.flatten(1).to(state[weights[0]])
    inputs_of, sums_of = [], []
    for number, name in enumerate(weights):
        inputs_of.append(hidden)
        bias = state.get(name.removesuffix("weight") + "bias")
        sums_of.append(nn.functional.linear(hidden, state[name], bias))
        hidden = apply(sums_of[-1]) if number + 1 < len(weights) else sums_of[-1]
    target, weight = _targets(hidden, labels, truth, samples, generator)
    delta = nn.functional.one_hot(target, hidden.shape[-1]).to(hidden) - hidden.softmax(-1)[:, None]
    fisher: dict[str, Tensor] = {}
    for number in reversed(range(len(weights))):
        name = weights[number]
        squares = torch.einsum("nk,nko->no", weight, delta**2) / len(inputs)
        fisher[name] = squares.T @ inputs_of[number] ** 2
        bias_name = name.removesuffix("weight") + "bias"
        if bias_name in state:
            fisher[bias_name] = squares.sum(0)
        if number:
            delta = (delta @ state[name]) * slope(sums_of[number - 1])[:, None]
    return {name: fisher[name] for name in state}


def fisher_merge(
    states: Sequence[State],
    fishers: Sequence[State],
    coefficients: Sequence[float] | Tensor | None = None,
    *,
    normalize: bool = True,
    floor: float = 1e-6,
    floor_target_only: bool = False,
    member_axis: bool = False,
) -> dict[str, Tensor]:
    r"""Average of networks weighted by their Fisher information, the mode of a product of Gaussian posteriors.

    .. math::

        \theta_j = \frac{\sum_i \lambda_i\, \bar F_{ij}\,\theta_{ij}}{\sum_i \lambda_i\,\bar F_{ij}},
        \qquad \bar F_i = \max(F_i, \text{floor}) / \lVert F_i\rVert_2

    Args:
        states: K networks with equal names and shapes, sharing an initialisation.
        fishers: their Fisher diagonals, non-negative. Parameters that a Fisher does not name (a task's head) are not
            merged: the first network's are kept.
        coefficients: :math:`\lambda`, K non-negative numbers, scaled to sum one; default equal.
        normalize: divide each network's Fisher by its norm over all parameters, so that :math:`\lambda` compares.
        floor: smallest value an entry of a raw Fisher may have.
        floor_target_only: floor the first network's Fisher only, so that where nothing is known its value is kept.
        member_axis: tensors lead with a member axis; each member is merged by itself.

    Returns:
        The merged state. Where all weights :math:`\lambda_i\bar F_{ij}` vanish the average
        :math:`\sum_i\lambda_i\theta_{ij}` is taken.

    Raises:
        ValueError: states or Fishers that do not correspond, negative or vanishing Fishers, invalid coefficients.

    Source:
        matena2021fisher, eq. (4); flooring and normalisation as in the authors' program.
    """
    check_states(states)
    check_states(fishers)
    if len(states) != len(fishers):
        raise ValueError(f"expected one Fisher a network, got {len(fishers)} for {len(states)}")
    if not floor >= 0:
        raise ValueError(f"expected a non-negative floor, got {floor}")
    for name, value in fishers[0].items():
        if name not in states[0] or states[0][name].shape != value.shape:
            raise ValueError(f"expected the Fisher of {name!r} in the parameter's shape, got {tuple(value.shape)}")
    shares = check_coefficients(coefficients, len(states))
    weights = []
    for number, (share, fisher) in enumerate(zip(shares, fishers)):
        if any(not value.is_meta and bool((value < 0).any()) for value in fisher.values()):
            raise ValueError(f"expected a non-negative Fisher, network {number} has negative entries")
        smallest = 0.0 if floor_target_only and number else floor
        scale = _inverse_norm(fisher, member_axis, number) if normalize else None
        weights.append({name: share * _scaled(value.clamp_min(smallest), scale) for name, value in fisher.items()})
    merged = dict(states[0])
    for name in fishers[0]:
        total = sum(weight[name] for weight in weights)
        mean = sum(weight[name] * state[name] for weight, state in zip(weights, states))
        plain = sum(share * state[name] for share, state in zip(shares, states))
        known = total > 0
        merged[name] = torch.where(known, mean / torch.where(known, total, torch.ones_like(total)), plain)
    return merged


def _inverse_norm(fisher: State, member_axis: bool, number: int) -> Tensor:
    start = 1 if member_axis else 0
    norm = torch.stack([(value**2).flatten(start).sum(-1) for value in fisher.values()]).sum(0).sqrt()
    if not norm.is_meta and bool((norm == 0).any()):
        raise ValueError(f"the Fisher of network {number} vanishes: it cannot be normalised")
    return 1 / norm


def _scaled(value: Tensor, scale: Tensor | None) -> Tensor:
    return value if scale is None else value * scale.reshape(scale.shape + (1,) * (value.ndim - scale.ndim))


def shuffled_entries(fisher: State, *, seed: int, member_axis: bool = False) -> dict[str, Tensor]:
    """Shuffle a Fisher's entries inside each tensor: the same histogram, none of the information (a control).

    Args:
        fisher: non-negative tensors.
        seed: seed of the generator.
        member_axis: tensors lead with a member axis; each member is shuffled by itself.

    Returns:
        Tensors of the same shapes.
    """
    check_states([fisher])
    generator = torch.Generator().manual_seed(seed)
    shuffled = {}
    for name, value in fisher.items():
        flat = value.flatten(1) if member_axis else value.reshape(1, -1)
        order = torch.rand(flat.shape, generator=generator).argsort(1).to(value.device)
        shuffled[name] = flat.gather(1, order).reshape(value.shape)
    return shuffled
