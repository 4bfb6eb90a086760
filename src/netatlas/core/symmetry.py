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
from torch import Tensor, nn

from netatlas.core.states import State, check_states


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
        if layer.source in permutations:
            order = permutations[layer.source]
            weight = permuted[layer.weight]
            blocks = weight.reshape(weight.shape[0], len(order), -1)[:, order]
            permuted[layer.weight] = blocks.reshape(weight.shape)
        if layer.target in permutations:
            order = permutations[layer.target]
            for name in (layer.weight, layer.bias):
                if name is not None:
                    permuted[name] = permuted[name][order]
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
