r"""Symmetries of networks of ReLUs: which weights write the same function, and how to bring two networks together.

A hidden neuron can change its place, and it can be scaled: its incoming weights by :math:`c>0`, its outgoing ones by
:math:`1/c`. Both act on a network's *state* (its parameters by name) through a *wiring* that says which layer reads and
which writes a set of neurons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.func import functional_call

from netatlas.core.checks import require, require_finite
from netatlas.core.states import State, check_states
from netatlas.core.train import minimize

Orders = dict[str, Tensor]


class WiredLayer(NamedTuple):
    """One layer in a wiring: which parameters it has, which neurons it reads and which it writes.

    ``source`` and ``target`` name sets of neurons; ``None`` marks the network's inputs or outputs, which are never
    moved. Two layers that write the same set (the branches of a residual block) have their maps averaged.
    """

    weight: str
    source: str | None
    target: str | None
    bias: str | None = None


def sequential_wiring(state: State) -> list[WiredLayer]:
    """Wiring of a chain of layers, read off the order of the state's ``*.weight`` (and ``*.bias``) entries.

    Args:
        state: weights of shape ``[out, in]`` or ``[out, in, *kernel]``, biases of shape ``[out]``.

    Returns:
        One :class:`WiredLayer` a weight, in order.

    Raises:
        ValueError: no layers, a bias without weight, or a parameter with one axis that is not a bias.
    """
    weights = [name for name in state if name.endswith("weight") and state[name].ndim >= 2]
    biases = {name: name.removesuffix("weight") + "bias" for name in weights}
    other = set(state) - set(weights) - set(biases.values())
    if other:
        raise ValueError(f"expected a chain of weights and biases, got also {sorted(other)}: pass a wiring")
    if not weights:
        raise ValueError("expected at least one weight with two axes or more, got none")
    ends = [None, *(name.removesuffix(".weight") for name in weights[:-1]), None]
    return [
        WiredLayer(name, ends[number], ends[number + 1], biases[name] if biases[name] in state else None)
        for number, name in enumerate(weights)
    ]


def residual_wiring(state: State) -> list[WiredLayer]:
    """Wiring of :class:`netatlas.core.nn.ResNet` without normalisation: one stream of neurons a stage.

    A block whose shortcut is the identity writes to the stream it reads; a block that changes the shape starts a new
    stream, which its shortcut and its second convolution both write.

    Args:
        state: the network's parameters.

    Returns:
        Layers in the order in which they run.

    Raises:
        ValueError: no stem, or a parameter that is neither a weight nor a bias of a convolution or of the head.
    """
    if "stem.weight" not in state or "head.weight" not in state:
        raise ValueError(f"expected a residual network with a stem and a head, got parameters {sorted(state)}")

    def layer(prefix: str, source: str | None, target: str | None) -> WiredLayer:
        bias = f"{prefix}.bias"
        return WiredLayer(f"{prefix}.weight", source, target, bias if bias in state else None)

    stream = "stream0"
    layers = [layer("stem", None, stream)]
    block = 0
    while f"blocks.{block}.first.weight" in state:
        prefix = f"blocks.{block}"
        changes = f"{prefix}.shortcut.weight" in state
        target = f"stream{block + 1}" if changes else stream
        layers.append(layer(f"{prefix}.first", stream, f"{prefix}.inside"))
        if changes:
            layers.append(layer(f"{prefix}.shortcut", stream, target))
        layers.append(layer(f"{prefix}.second", f"{prefix}.inside", target))
        stream = target
        block += 1
    layers.append(layer("head", stream, None))
    named = {name for item in layers for name in (item.weight, item.bias) if name is not None}
    if named != set(state):
        raise ValueError(f"expected convolutions and a head only, got also {sorted(set(state) - named)}")
    return layers


def permute_network(
    state: State,
    permutations: Mapping[str, Int[Tensor, " neurons"]],
    *,
    wiring: Sequence[WiredLayer] | None = None,
) -> dict[str, Tensor]:
    r"""Reorder hidden neurons without changing the function: neuron :math:`\pi(j)` becomes neuron j.

    Args:
        state: the network.
        permutations: one permutation a neuron set named in the wiring; sets left out stay as they are.
        wiring: see :class:`WiredLayer`; default: a chain.

    Returns:
        The permuted state.

    Raises:
        ValueError: an unknown set, or indices that are no permutation of its neurons.
    """
    check_states([state])
    layers = sequential_wiring(state) if wiring is None else list(wiring)
    known = {layer.target: len(state[layer.weight]) for layer in layers if layer.target is not None}
    for name, order in permutations.items():
        if name not in known:
            raise ValueError(f"expected one of the neuron sets {sorted(known)}, got {name!r}")
        if sorted(order.tolist()) != list(range(known[name])):
            raise ValueError(f"expected a permutation of {known[name]} neurons for {name!r}")
    permuted = dict(state)
    for layer in layers:
        if layer.source is not None and layer.source in permutations:
            order = permutations[layer.source]
            weight = permuted[layer.weight]
            blocks = weight.reshape(weight.shape[0], len(order), -1)[:, order]
            permuted[layer.weight] = blocks.reshape(weight.shape)
        if layer.target is not None and layer.target in permutations:
            order = permutations[layer.target]
            for part in (layer.weight, layer.bias):
                if part is not None:
                    permuted[part] = permuted[part][order]
    return permuted


def random_permutations(
    state: State, *, seed: int, wiring: Sequence[WiredLayer] | None = None
) -> dict[str, Int[Tensor, " neurons"]]:
    """A random order for every hidden neuron set: the control of an alignment.

    Args:
        state: the network.
        seed: seed of the generator.
        wiring: see :class:`WiredLayer`; default: a chain.

    Returns:
        One permutation a neuron set, for :func:`permute_network`.
    """
    check_states([state])
    generator = torch.Generator().manual_seed(seed)
    layers = sequential_wiring(state) if wiring is None else list(wiring)
    widths = {layer.target: state[layer.weight] for layer in layers if layer.target is not None}
    return {name: torch.randperm(len(weight), generator=generator).to(weight.device) for name, weight in widths.items()}


@torch.no_grad()
def preactivations(
    model: nn.Module, inputs: Tensor, *, wiring: Sequence[WiredLayer] | None = None
) -> dict[str, Float[Tensor, "samples neurons *space"]]:
    """Outputs of a network's linear and convolutional layers, before the non-linearity.

    Args:
        model: the network, its layers being modules.
        inputs: the samples; no labels are needed.
        wiring: see :class:`WiredLayer`; default: a chain.

    Returns:
        Dictionary from weight name to the layer's outputs.

    Raises:
        ValueError: no samples, or a weight whose module was not called.
    """
    if len(inputs) == 0:
        raise ValueError("expected at least one sample, got none")
    layers = sequential_wiring(dict(model.named_parameters())) if wiring is None else list(wiring)
    modules = dict(model.named_modules())
    found: dict[str, Tensor] = {}
    hooks = [
        modules[layer.weight.removesuffix(".weight")].register_forward_hook(
            lambda _module, _inputs, output, name=layer.weight: found.__setitem__(name, output)
        )
        for layer in layers
    ]
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    missing = [layer.weight for layer in layers if layer.weight not in found]
    if missing:
        raise ValueError(f"expected every layer to be called as a module, these were not: {missing}")
    return found


def neuron_sets(layers: Sequence[WiredLayer], state: State) -> dict[str, int]:
    """Hidden neuron sets of a wiring with their sizes, in the order in which they are first written."""
    return {layer.target: len(state[layer.weight]) for layer in layers if layer.target is not None}


def _columns(weight: Tensor, neurons: int) -> Tensor:
    """A weight as ``[out, neurons, rest]``, whether it reads channels, neurons or flattened channels."""
    return weight.reshape(weight.shape[0], neurons, -1)


def rescale_network(
    state: State, factors: Mapping[str, Float[Tensor, " neurons"]], *, wiring: Sequence[WiredLayer] | None = None
) -> dict[str, Tensor]:
    r"""Scale hidden neurons without changing the function of a network of ReLUs.

    .. math:: W_\ell[i,:], b_\ell[i] \to c_i W_\ell[i,:], c_i b_\ell[i], \qquad
              W_{\ell+1}[:,i] \to W_{\ell+1}[:,i] / c_i, \qquad c_i > 0

    Args:
        state: The network.
        factors: Positive factors, one a neuron, for any of the neuron sets named in the wiring.
        wiring: See :class:`WiredLayer`; default: a chain.

    Returns:
        The rescaled state.

    Raises:
        ValueError: For an unknown set, a wrong number of factors, or factors that are not positive and finite.

    Source:
        grigsby2023hidden.
    """
    check_states([state])
    layers = sequential_wiring(state) if wiring is None else list(wiring)
    known = neuron_sets(layers, state)
    for name, factor in factors.items():
        require(name in known, f"one of the neuron sets {sorted(known)}", repr(name))
        require(tuple(factor.shape) == (known[name],), f"{known[name]} factors for {name!r}", tuple(factor.shape))
        require(bool(((factor > 0) & factor.isfinite()).all()), "positive finite factors", f"{float(factor.min())}")
    scaled = dict(state)
    for layer in layers:
        if layer.source is not None and layer.source in factors:
            weight = scaled[layer.weight]
            columns = _columns(weight, known[layer.source]) / factors[layer.source].to(weight)[:, None]
            scaled[layer.weight] = columns.reshape(weight.shape)
        if layer.target is not None and layer.target in factors:
            for part in (layer.weight, layer.bias):
                if part is not None:
                    rows = factors[layer.target].to(scaled[part])
                    scaled[part] = scaled[part] * rows.reshape((-1,) + (1,) * (scaled[part].ndim - 1))
    return scaled


def unit_neurons(state: State, *, wiring: Sequence[WiredLayer] | None = None) -> dict[str, Tensor]:
    r"""The one rescaled copy of a network of ReLUs whose hidden neurons all have incoming weights of norm one.

    .. math:: c_i = \Bigl(\sum_{\ell \text{ writes } i} \lVert W_\ell[i,:]\rVert^2 + b_\ell[i]^2\Bigr)^{-1/2}

    Sets are treated in the order in which they are written, each after the scales of the earlier ones have been moved
    into its columns. A neuron without any incoming weight keeps its scale.

    Args:
        state: The network.
        wiring: See :class:`WiredLayer`; default: a chain.

    Returns:
        The rescaled state: the same for all rescaled copies of a network.

    Raises:
        ValueError: For a state that is no network of this wiring.
    """
    layers = sequential_wiring(state) if wiring is None else list(wiring)
    for name in neuron_sets(layers, state):
        parts = [part for layer in layers if layer.target == name for part in (layer.weight, layer.bias)]
        squares = torch.stack(
            [state[part].reshape(len(state[part]), -1).square().sum(1) for part in parts if part is not None]
        ).sum(0)
        factor = torch.where(squares > 0, squares, torch.ones_like(squares)).rsqrt()
        state = rescale_network(state, {name: factor}, wiring=layers)
    return dict(state)


def _inner(name: str, layer: WiredLayer, source: State, reference: State, orders: Orders) -> Tensor:
    """Inner products ``[reference neuron, source neuron]`` of one layer's weights around one set, others as ordered."""
    ours, theirs = reference[layer.weight], source[layer.weight]
    if layer.target == name:
        if layer.source in orders:
            order = orders[layer.source]
            theirs = _columns(theirs, len(order))[:, order]
        size = len(ours)
        return ours.reshape(size, -1) @ theirs.reshape(size, -1).T
    size = len(orders[name])
    if layer.target in orders:
        theirs = theirs[orders[layer.target]]
    ours, theirs = (_columns(w, size).transpose(0, 1).reshape(size, -1) for w in (ours, theirs))
    return ours @ theirs.T


def _assigned(gain: Tensor) -> Tensor:
    return torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1])


def weight_matching(
    source: State,
    reference: State,
    *,
    wiring: Sequence[WiredLayer] | None = None,
    start: Mapping[str, Int[Tensor, " neurons"]] | None = None,
    sweeps: int = 100,
    seed: int = 0,
) -> Orders:
    r"""Order the hidden neurons of one network so that its weights come close to those of another.

    .. math:: \max_{\pi}\ \sum_\ell \bigl\langle W^{\text{ref}}_\ell,\, P_\ell W_\ell P_{\ell-1}^\top \bigr\rangle
              + \langle b^{\text{ref}}_\ell, P_\ell b_\ell \rangle

    The problem is hard for all sets at once, and a linear assignment for one set while the others stay: sets are
    solved in random order, each again only after a neighbour has changed, until none is left. The sum never falls, so
    the result is a local optimum, and for one hidden layer the optimum.

    Args:
        source: The network whose neurons are ordered.
        reference: The network to come close to, of the same shapes.
        wiring: See :class:`WiredLayer`; default: a chain.
        start: Orders to start from; default: the neurons as they are.
        sweeps: Largest number of sweeps.
        seed: Seeds the order of the sets in a sweep.

    Returns:
        Orders for :func:`permute_network`: entry ``j`` of a set is the source's neuron that goes to place ``j``.

    Raises:
        ValueError: For states that do not correspond, a layer that reads the set it writes, or ``sweeps`` below 1.

    Source:
        The weight matching of Git Re-Basin (arXiv 2209.04836).
    """
    check_states([source, reference])
    require(sweeps >= 1, "at least one sweep", sweeps)
    layers = sequential_wiring(reference) if wiring is None else list(wiring)
    loops = [layer.weight for layer in layers if layer.source is not None and layer.source == layer.target]
    require(not loops, "layers that do not read the neurons that they write", loops)
    sizes = neuron_sets(layers, reference)
    device = next(iter(source.values())).device
    orders = {name: torch.arange(size) for name, size in sizes.items()}
    if start is not None:
        orders |= {name: order.cpu() for name, order in start.items()}
    source, reference = ({k: v.double().cpu() for k, v in state.items()} for state in (source, reference))
    around = {name: [layer for layer in layers if name in (layer.source, layer.target)] for name in sizes}
    fixed, loose = {}, {}
    for name, touching in around.items():
        # Layers that only this set reorders keep their inner products, above all the one that reads the inputs.
        loose[name] = [layer for layer in touching if layer.source in sizes and layer.target in sizes]
        fixed[name] = torch.zeros(sizes[name], sizes[name], dtype=torch.float64)
        for layer in touching:
            if layer not in loose[name]:
                fixed[name] += _inner(name, layer, source, reference, orders)
            if layer.target == name and layer.bias is not None:
                fixed[name] += torch.outer(reference[layer.bias], source[layer.bias])
    generator = torch.Generator().manual_seed(seed)
    names, stale = list(sizes), set(sizes)
    for _ in range(sweeps):
        for index in torch.randperm(len(names), generator=generator).tolist():
            name = names[index]
            if name not in stale:
                continue
            stale.discard(name)
            gain = sum((_inner(name, layer, source, reference, orders) for layer in loose[name]), fixed[name])
            found, places = _assigned(gain), torch.arange(sizes[name])
            better = gain[places, found].sum() - gain[places, orders[name]].sum()
            # Equal sums are left alone, or two equally good orders would take turns.
            if better > 1e-9 * gain.abs().max().clamp_min(torch.finfo(gain.dtype).tiny):
                orders[name] = found
                stale |= {
                    end for layer in loose[name] for end in (layer.source, layer.target) if end not in (None, name)
                }
        if not stale:
            break
    return {name: order.to(device) for name, order in orders.items()}


def activation_matching(
    source: Float[Tensor, "samples neurons *space"], reference: Float[Tensor, "samples neurons *space"]
) -> Int[Tensor, " neurons"]:
    r"""Order neurons so that their activations correlate with those of another network on the same samples.

    .. math:: \max_\pi \sum_j \operatorname{corr}\bigl(z^{\text{ref}}_j,\, z_{\pi(j)}\bigr)

    Args:
        source: Activations of the neurons to be ordered.
        reference: Activations of the other network on the same samples in the same order.

    Returns:
        The order: entry ``j`` is the source's neuron that goes to place ``j``. A constant neuron correlates with none.

    Raises:
        ValueError: For shapes that differ, fewer than two values a neuron, or activations that are not finite.

    Source:
        The activation matching of Git Re-Basin (arXiv 2209.04836), with correlations for inner products.
    """
    require(source.shape == reference.shape and source.ndim >= 2, "activations of equal shapes [samples, neurons, ...]",
            (tuple(source.shape), tuple(reference.shape)))  # fmt: skip
    rows = []
    for name, values in (("source", source), ("reference", reference)):
        require_finite(name, values)
        flat = values.transpose(0, 1).flatten(1).double().cpu()
        require(flat.shape[1] >= 2, "at least two values a neuron", flat.shape[1])
        flat = flat - flat.mean(1, keepdim=True)
        norm = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        rows.append(torch.where(norm > 1e-9 * norm.max(), flat / norm.clamp_min(1e-300), torch.zeros_like(flat)))
    return _assigned(rows[1] @ rows[0].T).to(source.device)


def straight_through_matching(
    model: nn.Module,
    source: State,
    reference: State,
    inputs: Tensor,
    targets: Tensor,
    *,
    steps: int = 40,
    batch_size: int = 256,
    lr: float = 0.01,
    wiring: Sequence[WiredLayer] | None = None,
    seed: int = 0,
) -> Orders:
    r"""Order neurons by the loss half way between the two networks, with a straight-through gradient.

    .. math:: \min_{\tilde\theta}\ L\Bigl(\tfrac12\bigl(\theta_{\text{ref}}
              + \pi_{\tilde\theta}(\theta)\bigr)\Bigr),\qquad
              \pi_{\tilde\theta} = \arg\max_\pi \langle \tilde\theta, \pi(\theta) \rangle

    The search starts at :math:`\tilde\theta=\theta_{\text{ref}}`, which is weight matching. The gradient treats the
    projection :math:`\tilde\theta \to \pi_{\tilde\theta}(\theta)` as the identity.

    Args:
        model: The architecture, for its forward pass.
        source: The network whose neurons are ordered.
        reference: The network to come close to.
        inputs, targets: Labelled examples, ``[N, ...]`` and ``[N]``.
        steps: Steps of Adam; each solves the assignments again from the last orders.
        batch_size: Examples a step.
        lr: Learning rate.
        wiring: See :class:`WiredLayer`; default: a chain.
        seed: Seeds batches and sweeps.

    Returns:
        The orders with the smallest loss half way on all examples, among those of weight matching and all steps.

    Raises:
        ValueError: As :func:`weight_matching`; for no examples.

    Source:
        The straight-through estimator of Git Re-Basin (arXiv 2209.04836).
    """
    require(len(inputs) > 0 and len(inputs) == len(targets), "as many targets as inputs, at least one",
            (len(inputs), len(targets)))  # fmt: skip
    layers = sequential_wiring(reference) if wiring is None else list(wiring)
    current = weight_matching(source, reference, wiring=layers, seed=seed)
    seen: dict[tuple[int, ...], Orders] = {}

    def half_way(moved: State) -> dict[str, Tensor]:
        return {name: (reference[name] + moved[name]) / 2 for name in reference}

    def loss(shadow: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        nonlocal current
        fixed = {name: value.detach() for name, value in shadow.items()}
        current = weight_matching(source, fixed, wiring=layers, start=current, seed=seed + step)
        seen[tuple(index for order in current.values() for index in order.tolist())] = current
        moved = permute_network(source, current, wiring=layers)
        through = {name: moved[name] + (shadow[name] - fixed[name]) for name in shadow}
        rows = torch.randint(len(inputs), (min(batch_size, len(inputs)),), generator=generator, device=inputs.device)
        return nn.functional.cross_entropy(functional_call(model, half_way(through), (inputs[rows],)), targets[rows])

    minimize(loss, dict(reference), steps=steps, lr=lr, seed=seed)
    best, lowest = current, float("inf")
    with torch.no_grad():
        for orders in seen.values():
            moved = half_way(permute_network(source, orders, wiring=layers))
            value = float(nn.functional.cross_entropy(functional_call(model, moved, (inputs,)), targets))
            if value < lowest:
                best, lowest = orders, value
    return best
