"""Model fusion by optimal transport: align the neurons of one network with another's, layer by layer, then average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ot
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from netatlas.core.states import State, check_finite, check_states
from netatlas.core.symmetry import WiredLayer, sequential_wiring

from .average import average_weights, check_coefficients


class TransportMap(NamedTuple):
    r"""How the neurons of A are moved onto those of B.

    ``rows`` (shape ``[n_A, n_B]``, columns sum to one) averages what a neuron *has*: its incoming weights and its
    activation. ``columns`` (same shape, rows sum to one) distributes what a neuron *sends*: its outgoing weights.
    With uniform masses and equal widths both are the same permutation; where the solver says so, ``order`` names the
    neuron of A that goes to each place, and is ``None`` otherwise.
    """

    rows: Tensor
    columns: Tensor
    order: Tensor | None = None


def weight_cost(
    source: Float[Tensor, "n_a *incoming"], reference: Float[Tensor, "n_b *incoming"]
) -> Float[Tensor, "n_a n_b"]:
    r"""Distances between neurons by their incoming weights.

    .. math:: C_{ij} = \lVert \hat W^A_{i\cdot} - W^B_{j\cdot}\rVert_2

    Args:
        source: incoming weights of A's neurons, columns already aligned; a kernel's entries count as inputs.
        reference: incoming weights of B's neurons.

    Returns:
        Cost matrix; its unit is that of the weights.

    Raises:
        ValueError: a missing axis, different incoming shapes, or non-finite entries.

    Source:
        singh2020otfusion, section 4, weight-based alignment.
    """
    if source.ndim < 2 or reference.ndim < 2 or source.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"expected neurons with equal incoming shapes, got {tuple(source.shape)} and {tuple(reference.shape)}"
        )
    check_finite(source, "the source weights")
    check_finite(reference, "the reference weights")
    return _distances(source.flatten(1), reference.flatten(1))


def activation_cost(
    source: Float[Tensor, "samples n_a *space"], reference: Float[Tensor, "samples n_b *space"]
) -> Float[Tensor, "n_a n_b"]:
    r"""Distances between neurons by their pre-activations on the same samples.

    .. math:: C_{ij} = \Bigl(\sum_n \lvert x^A_{ni} - x^B_{nj}\rvert^2\Bigr)^{1/2}

    Args:
        source: pre-activations of A, ``[samples, neurons]`` or ``[samples, channels, height, width]``.
        reference: pre-activations of B on the same samples in the same order.

    Returns:
        Cost matrix.

    Raises:
        ValueError: different samples or spatial shapes, or non-finite entries.

    Source:
        singh2020otfusion, section 4, activation-based alignment.
    """
    if (
        source.ndim < 2
        or source.ndim != reference.ndim
        or source.shape[0] != reference.shape[0]
        or source.shape[2:] != reference.shape[2:]
    ):
        raise ValueError(
            "expected pre-activations [samples, neurons, ...] on the same samples, "
            f"got {tuple(source.shape)} and {tuple(reference.shape)}"
        )
    check_finite(source, "the source activations")
    check_finite(reference, "the reference activations")
    return _distances(source.transpose(0, 1).flatten(1), reference.transpose(0, 1).flatten(1))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    def summed_squares(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vector_norm(a, dim=1).square()[:, None] + torch.linalg.vector_norm(b, dim=1).square()

    if a.dtype == b.dtype == torch.float32 and not a.is_meta:
        norms = summed_squares(a, b)
        squares = torch.addmm(norms, a, b.T, alpha=-2)
        # The squares nearly cancel for neurons that almost coincide, which single precision would not resolve.
        near = (squares < 0.1 * norms).nonzero()
        if len(near) <= len(a) + len(b):
            i, j = near.T
            squares[i, j] = torch.linalg.vector_norm(a[i] - b[j], dim=1).square()
            return squares.clamp_min_(0).sqrt_()
    a64, b64 = a.double(), b.double()
    return torch.addmm(summed_squares(a64, b64), a64, b64.T, alpha=-2).clamp_min_(0).sqrt_().to(a.dtype)


def transport_map(
    cost: Float[Tensor, "n_a n_b"],
    *,
    method: str = "exact",
    regularization: float = 0.05,
    source_mass: Float[Tensor, " n_a"] | None = None,
    reference_mass: Float[Tensor, " n_b"] | None = None,
    corrected: bool = False,
) -> TransportMap:
    r"""Optimal transport plan between two layers' neurons, as maps for rows and columns.

    .. math::

        P = \arg\min_{P\ge 0} \langle P, C\rangle,\quad P\mathbf 1=\mu,\ P^\top\mathbf 1=\nu,\qquad
        T_{\text{rows}} = P\operatorname{diag}(\nu)^{-1},\quad
        T_{\text{columns}} = \operatorname{diag}(\mu)^{-1}P

    The published algorithm moves the columns by :math:`T_{\text{rows}}` too. That is the same thing at equal widths;
    otherwise it averages outgoing weights which have to be added, and A's share of every later layer shrinks by
    :math:`n_B/n_A`.

    Args:
        cost: ground cost between A's neurons and B's, non-negative.
        method: ``"exact"`` (network simplex; an assignment for uniform masses on equally many neurons) or
            ``"sinkhorn"`` (entropic, in the log domain).
        regularization: entropic regularisation as a fraction of the mean cost (``"sinkhorn"`` only).
        source_mass, reference_mass: positive neuron measures; scaled to sum one; default uniform.
        corrected: give the columns their own map; otherwise both fields hold the published one.

    Returns:
        :class:`TransportMap` on the cost's device and of its dtype.

    Raises:
        ValueError: a cost that is not a non-negative finite matrix, masses that do not fit, an unknown method.

    Source:
        singh2020otfusion, algorithm 1, lines 5-7; solvers from POT and SciPy.
    """
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"expected a cost matrix [n_a, n_b], got shape {tuple(cost.shape)}")
    check_finite(cost, "the cost")
    if bool((cost < 0).any()):
        raise ValueError(f"expected non-negative costs, got {float(cost.min())}")
    mu = _mass(source_mass, cost.shape[0], "source_mass")
    nu = _mass(reference_mass, cost.shape[1], "reference_mass")
    ground = cost.detach().double().cpu()
    if method == "exact" and source_mass is None and reference_mass is None and cost.shape[0] == cost.shape[1]:
        # The vertices of the doubly stochastic matrices are the permutations: an assignment solves the problem.
        found = torch.from_numpy(linear_sum_assignment(ground.numpy())[1]).to(cost.device)
        rows = torch.zeros_like(cost)
        rows[torch.arange(len(found), device=cost.device), found] = 1
        order = torch.empty_like(found)
        order[found] = torch.arange(len(found), device=cost.device)
        return TransportMap(rows, rows, order)
    if method == "exact":
        plan = torch.from_numpy(ot.emd(mu.numpy(), nu.numpy(), ground.numpy(), numItermax=10_000_000))
    elif method == "sinkhorn":
        if not regularization > 0:
            raise ValueError(f"expected a positive regularization, got {regularization}")
        scale = regularization * max(float(ground.mean()), torch.finfo(torch.float64).tiny)
        plan = ot.sinkhorn(mu, nu, ground, scale, method="sinkhorn_log", numItermax=5000, stopThr=1e-9, warn=False)
        # The iteration stops with the second marginal met and the first one nearly so.
        plan = plan * (nu / plan.sum(0))
    else:
        raise ValueError(f"expected method 'exact' or 'sinkhorn', got {method!r}")
    rows = (plan / nu).to(cost)
    columns = (plan / plan.sum(1, keepdim=True)).to(cost) if corrected else rows
    return TransportMap(rows, columns)


def _mass(mass: Tensor | None, neurons: int, name: str) -> Tensor:
    if mass is None:
        return torch.full((neurons,), 1.0 / neurons, dtype=torch.float64)
    if mass.shape != (neurons,):
        raise ValueError(f"expected {name} of shape ({neurons},), got {tuple(mass.shape)}")
    check_finite(mass, name)
    values = mass.detach().double().cpu()
    if bool((values <= 0).any()):
        raise ValueError(f"expected a positive {name}, got {float(values.min())}")
    return values / values.sum()


def move_columns(weight: Float[Tensor, "out in *kernel"], columns: Float[Tensor, "n_a n_b"]) -> Tensor:
    r"""Re-express a layer's incoming weights in the reference network's neurons, :math:`\hat W = W T`.

    Args:
        weight: ``[out, n_a, *kernel]``; or ``[out, n_a * r]`` for a dense layer that reads ``n_a`` flattened channels.
        columns: map of the neurons the layer reads.

    Returns:
        Weight with ``n_b`` in place of ``n_a``.

    Raises:
        ValueError: the input axis is no multiple of ``n_a``.
    """
    n_a = columns.shape[0]
    if weight.ndim < 2 or weight.shape[1] % n_a or (weight.ndim > 2 and weight.shape[1] != n_a):
        raise ValueError(f"expected a weight that reads {n_a} neurons, got shape {tuple(weight.shape)}")
    blocks = weight.reshape(weight.shape[0], n_a, -1)
    moved = torch.einsum("oik,ij->ojk", blocks, columns)
    if weight.ndim == 2:
        return moved.flatten(1)
    return moved.reshape(weight.shape[0], columns.shape[1], *weight.shape[2:])


def _moved(weight: Tensor, maps: TransportMap) -> Tensor:
    """Columns moved by a map, by index where it is a permutation."""
    if (
        maps.order is None
        or weight.shape[1] % len(maps.order)
        or (weight.ndim > 2 and weight.shape[1] != len(maps.order))
    ):
        return move_columns(weight, maps.columns)
    return weight.unflatten(1, (len(maps.order), -1)).index_select(1, maps.order).reshape(weight.shape)


def _mean_map(a: TransportMap, b: TransportMap) -> TransportMap:
    return TransportMap((a.rows + b.rows) / 2, (a.columns + b.columns) / 2)


def align_layer(
    weight: Float[Tensor, "n_a in_a *kernel"],
    reference: Float[Tensor, "n_b in_b *kernel"],
    incoming: TransportMap | None = None,
    *,
    bias: Float[Tensor, " n_a"] | None = None,
    reference_bias: Float[Tensor, " n_b"] | None = None,
    activations: tuple[Tensor, Tensor] | None = None,
    **transport: object,
) -> tuple[Tensor, Tensor | None, TransportMap]:
    r"""Align one layer of A with B's: columns first, then the cost, the plan and the rows.

    .. math:: \hat W = W^A T_{\ell-1},\qquad \tilde W = T_\ell^\top \hat W

    A bias is one more incoming weight: it counts in the cost and moves with the rows.

    Args:
        weight, reference: the layer's weights in A and in B.
        incoming: map of the neurons the layer reads; ``None`` for the network's inputs.
        bias, reference_bias: biases; both or neither.
        activations: pre-activations of A and of B on the same samples; ``None`` compares weights.
        **transport: options of :func:`transport_map`.

    Returns:
        Moved weight, moved bias (or ``None``), and the map of this layer's neurons.

    Raises:
        ValueError: shapes that do not fit, one bias only, or invalid transport options.

    Source:
        singh2020otfusion, algorithm 1.
    """
    if (bias is None) != (reference_bias is None):
        raise ValueError("expected biases in both networks or in neither, got one")
    if weight.device != reference.device:
        raise ValueError(f"expected both networks on one device, got {weight.device} and {reference.device}")
    aligned = weight if incoming is None else _moved(weight, incoming)
    if activations is None:
        if bias is None:
            cost = weight_cost(aligned, reference)
        else:
            cost = weight_cost(
                torch.cat([aligned.flatten(1), bias[:, None]], 1),
                torch.cat([reference.flatten(1), reference_bias[:, None]], 1),
            )
    else:
        cost = activation_cost(*activations)
        if cost.shape != (len(weight), len(reference)):
            raise ValueError(
                f"expected activations of {len(weight)} and {len(reference)} neurons, got {tuple(cost.shape)}"
            )
    maps = transport_map(cost, **transport)
    if maps.order is not None:
        return aligned[maps.order], None if bias is None else bias[maps.order], maps
    moved = torch.tensordot(maps.rows.T, aligned, dims=1)
    return moved, None if bias is None else maps.rows.T @ bias, maps


def transport_network(
    source: State,
    reference: State,
    *,
    wiring: Sequence[WiredLayer] | None = None,
    activations: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
    **transport: object,
) -> tuple[dict[str, Tensor], dict[str, TransportMap]]:
    """Move network A onto network B: every layer's columns by its source's map, its rows by its own.

    At equal widths with exact transport the result computes the same function as A (ReLU networks, and any activation
    applied neuron by neuron, do not care about the order of their neurons).

    Args:
        source: state of A.
        reference: state of B, the same architecture up to the hidden widths.
        wiring: see :class:`WiredLayer`; default: a chain, in the order of the state.
        activations: pre-activations of A and of B, dictionaries from weight name to ``[samples, neurons, ...]``,
            computed on the same samples (:func:`preactivations`); ``None`` compares weights.
        **transport: options of :func:`transport_map`; ``corrected=True`` for networks of different widths.

    Returns:
        The transported state, in B's shapes, and the map of every neuron set.

    Raises:
        ValueError: states that do not correspond, a wiring that misses or repeats parameters, missing activations.

    Source:
        singh2020otfusion, algorithm 1.
    """
    check_states([source, reference], same_shapes=False)
    layers = sequential_wiring(source) if wiring is None else list(wiring)
    used = [name for layer in layers for name in (layer.weight, layer.bias) if name is not None]
    if sorted(used) != sorted(source):
        raise ValueError(f"expected a wiring that names each parameter once, it differs in {set(used) ^ set(source)}")
    maps: dict[str, TransportMap] = {}
    moved: dict[str, Tensor] = {}
    for layer in layers:
        if layer.source is not None and layer.source not in maps:
            raise ValueError(f"layer {layer.weight!r} reads {layer.source!r}, which no earlier layer writes")
        incoming = None if layer.source is None else maps[layer.source]
        weight, bias = source[layer.weight], None if layer.bias is None else source[layer.bias]
        if layer.target is None:
            moved[layer.weight] = weight if incoming is None else _moved(weight, incoming)
            if moved[layer.weight].shape != reference[layer.weight].shape:
                raise ValueError(f"the networks' outputs differ: {tuple(weight.shape)} in {layer.weight!r}")
            if layer.bias is not None:
                moved[layer.bias] = bias
            continue
        samples = None if activations is None else tuple(side[layer.weight] for side in activations)
        moved[layer.weight], moved_bias, new = align_layer(
            weight,
            reference[layer.weight],
            incoming,
            bias=bias,
            reference_bias=None if layer.bias is None else reference[layer.bias],
            activations=samples,
            **transport,
        )
        if layer.bias is not None:
            moved[layer.bias] = moved_bias
        old = maps.get(layer.target)
        maps[layer.target] = new if old is None else _mean_map(old, new)
    return {name: moved[name] for name in source}, maps


def fuse(
    states: Sequence[State],
    coefficients: Sequence[float] | Tensor | None = None,
    *,
    reference: int = -1,
    wiring: Sequence[WiredLayer] | None = None,
    activations: Sequence[Mapping[str, Tensor]] | None = None,
    **transport: object,
) -> dict[str, Tensor]:
    r"""Fuse networks in one shot: transport all onto one of them, then average.

    .. math:: W_\ell = \sum_k \lambda_k\, T_{k,\ell}^\top\, W^{(k)}_\ell\, T_{k,\ell-1}

    Args:
        states: K networks, the same architecture up to the hidden widths.
        coefficients: K non-negative numbers, scaled to sum one; default equal.
        reference: which network keeps its neurons (and gives the result its widths).
        wiring, activations, transport: as in :func:`transport_network`; ``activations`` holds one dictionary a
            network.

    Returns:
        The fused state, in the reference's shapes.

    Raises:
        ValueError: fewer than two networks, or whatever :func:`transport_network` refuses.

    Source:
        singh2020otfusion, algorithm 1 and section 4 (several models).
    """
    check_states(states, same_shapes=False, least=2)
    if not -len(states) <= reference < len(states):
        raise ValueError(f"expected reference to index one of {len(states)} networks, got {reference}")
    if activations is not None and len(activations) != len(states):
        raise ValueError(f"expected activations of {len(states)} networks, got {len(activations)}")
    shares = check_coefficients(coefficients, len(states))
    anchor = reference % len(states)
    aligned = []
    for number, state in enumerate(states):
        if number == anchor:
            aligned.append(state)
            continue
        samples = None if activations is None else (activations[number], activations[anchor])
        aligned.append(transport_network(state, states[anchor], wiring=wiring, activations=samples, **transport)[0])
    return average_weights(aligned, shares)


def largest_neurons(
    state: State, widths: Sequence[int], *, wiring: Sequence[WiredLayer] | None = None
) -> dict[str, Tensor]:
    """Narrow a network by keeping, in each neuron set, those with the largest incoming weights (Euclidean norm).

    Args:
        state: the wide network.
        widths: neurons to keep, one number a neuron set, in the wiring's order.
        wiring: see :class:`WiredLayer`; default: a chain.

    Returns:
        State of the narrow network; kept neurons stay in their order.

    Raises:
        ValueError: wrong number of widths, or more neurons than there are.
    """
    check_states([state])
    layers = sequential_wiring(state) if wiring is None else list(wiring)
    norms: dict[str, Tensor] = {}
    for layer in layers:
        if layer.target is not None:
            squares = (state[layer.weight].flatten(1) ** 2).sum(1)
            norms[layer.target] = norms.get(layer.target, 0) + squares
    if len(widths) != len(norms):
        raise ValueError(f"expected {len(norms)} widths, one a neuron set, got {len(widths)}")
    kept = {}
    for width, (name, values) in zip(widths, norms.items()):
        if not 0 < width <= len(values):
            raise ValueError(f"expected between 1 and {len(values)} neurons to keep in {name!r}, got {width}")
        kept[name] = values.topk(width).indices.sort().values
    narrow = {}
    for layer in layers:
        weight = state[layer.weight]
        if layer.source is not None:
            blocks = weight.reshape(weight.shape[0], len(norms[layer.source]), -1)[:, kept[layer.source]]
            weight = blocks.flatten(1) if weight.ndim == 2 else blocks.reshape(len(weight), -1, *weight.shape[2:])
        rows = slice(None) if layer.target is None else kept[layer.target]
        narrow[layer.weight] = weight[rows]
        if layer.bias is not None:
            narrow[layer.bias] = state[layer.bias][rows]
    return {name: narrow[name] for name in state}
