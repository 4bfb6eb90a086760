"""The chapter's experiments on weights of low rank: utilized rank, low-rank integrator, trained rank pruning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from netatlas.core.nn import MLP
from netatlas.core.stats import stderr
from netatlas.core.train import Ensemble, fit_many, stack_members

from .adapters import replace_linear
from .manifold import FactorizedLinear
from .utilized import (
    activation_gram,
    energy_directions,
    layer_error,
    mean_layer_utilization,
    output_directions,
    principal_directions,
    utilized_layer,
)

Data = tuple[Tensor, Tensor]
Params = dict[str, Tensor]


def points(change: Tensor) -> str:
    """A difference of accuracies over seeds in percentage points, mean and standard error: ``"+1.2 ± 0.4"``."""
    mean, error = 100 * float(change.double().mean()), 100 * stderr(change)
    return f"{round(mean, 1) + 0.0:+.1f} ± {error:.1f}"


# ---------------------------------------------------------------- utilized rank


class Projections(NamedTuple):
    """Networks whose hidden layers are projected on what data use, all by threshold and seed.

    Attributes:
        thresholds: shares of energy, as given.
        accuracy: test accuracy ``[thresholds, seeds]`` of each arm.
        input_rank, output_rank: directions kept in each hidden layer, ``[thresholds, seeds, layers]``.
        utilization: mean layer utilization, ``[thresholds, seeds]``.
        parameters: share of the hidden layers' parameters that is left, ``[thresholds, seeds]``.
        dense: accuracy of the networks as they are, ``[seeds]``.
        weight_rank: least numerical rank of a trained weight over the full one.
        order: largest relative amount by which cutting by data loses more in a layer than cutting by weights.
        identity: largest relative error of the decomposition of a layer's error into two.
    """

    thresholds: Sequence[float]
    accuracy: dict[str, Float[Tensor, "thresholds seeds"]]
    input_rank: Int[Tensor, "thresholds seeds layers"]
    output_rank: Int[Tensor, "thresholds seeds layers"]
    utilization: Float[Tensor, "thresholds seeds"]
    parameters: Float[Tensor, "thresholds seeds"]
    dense: Float[Tensor, " seeds"]
    weight_rank: float
    order: float
    identity: float


def hidden_inputs(ensemble: Ensemble, inputs: Tensor) -> list[Tensor]:
    """What each hidden layer of an ensemble of multilayer perceptrons receives, ``[M, N, n]`` each."""
    seen, x = [], inputs.flatten(1).expand(len(ensemble), -1, -1)
    for layer in range(len(ensemble.module.layers) - 1):  # type: ignore[arg-type]
        seen.append(x)
        weight, bias = ensemble.params[f"layers.{layer}.weight"], ensemble.params.get(f"layers.{layer}.bias")
        x = x @ weight.transpose(-1, -2)
        x = (x if bias is None else x + bias[:, None]).relu()
    return seen


def _directions(ensemble: Ensemble, inputs: Tensor) -> list[list[tuple[Tensor, Tensor]]]:
    """Energies and directions of every hidden layer's inputs, the first layer's computed once."""
    seen = hidden_inputs(ensemble, inputs)
    first = principal_directions(activation_gram([seen[0][0]]))
    rest = [[principal_directions(activation_gram([x])) for x in layer] for layer in seen[1:]]
    return [[first] * len(ensemble), *rest]


Directions = list[list[tuple[Tensor, Tensor]]]


def projections(
    ensemble: Ensemble, inputs: Tensor, test: Data, thresholds: Sequence[float], known: Directions | None = None
) -> Projections:
    """Project the hidden layers of trained networks at every threshold, with data and without.

    Args:
        ensemble: Multilayer perceptrons; the last layer stays as it is.
        inputs: On which the subspaces are found.
        test: Inputs and labels.
        thresholds: Shares of energy.
        known: Energies and directions of the layers' inputs, if they were found before.

    Source:
        garg2024utilized.
    """
    names = [f"layers.{i}.weight" for i in range(len(ensemble.module.layers) - 1)]  # type: ignore[arg-type]
    directions = _directions(ensemble, inputs) if known is None else known
    arms = ("projected", "SVD of equal rank", "inputs only", "outputs only")
    accuracy: dict[str, list[Tensor]] = {arm: [] for arm in arms}
    ranks_in, ranks_out, used, kept, order, identity = [], [], [], [], 0.0, 0.0
    weights = [ensemble.params[name] for name in names]
    dense_size = sum(w[0].numel() for w in weights)
    outputs = [[output_directions(w, d) for w, d in zip(ws, ds)] for ws, ds in zip(weights, directions)]
    grams = [[v * e @ v.T for e, v in layer] for layer in directions]
    # One decomposition of every weight serves all thresholds.
    singular = [torch.linalg.svd(w.double(), full_matrices=False) for w in weights]
    for threshold in thresholds:
        parts = [
            [utilized_layer(w, d, threshold, o) for w, d, o in zip(*layer)]
            for layer in zip(weights, directions, outputs)
        ]
        cut = [_cut(s, [p.rank for p in ps]).to(w.dtype) for w, s, ps in zip(weights, singular, parts)]
        deep = [_cut(s, [p.output_rank for p in ps]) for s, ps in zip(singular, parts)]
        variants = {
            "projected": [torch.stack([p.weight for p in ps]) for ps in parts],
            "SVD of equal rank": cut,
            "inputs only": [torch.stack([p.input_only for p in ps]) for ps in parts],
            "outputs only": [torch.stack([p.output_only for p in ps]) for ps in parts],
        }
        for arm, values in variants.items():
            changed = Ensemble(ensemble.module, ensemble.params | dict(zip(names, values)), ensemble.buffers)
            accuracy[arm].append(changed.accuracy(*test))
        for layer, (ws, ps) in enumerate(zip(weights, parts)):
            for member, (w, p) in enumerate(zip(ws, ps)):
                gram = grams[layer][member]
                by_data = layer_error(w, p.output_only, gram)
                by_weight = layer_error(w, deep[layer][member], gram)
                order = max(order, (by_data - by_weight) / float(outputs[layer][member][0].sum()))
        columns = list(zip(*parts))
        ranks_in.append(torch.tensor([[p.input_rank for p in member] for member in columns]))
        ranks_out.append(torch.tensor([[p.output_rank for p in member] for member in columns]))
        used.append(torch.tensor([mean_layer_utilization(member) for member in columns]))
        kept.append(torch.tensor([sum(p.parameters for p in member) / dense_size for member in columns]))
    for layer, ws in enumerate(weights):
        for member, w in enumerate(ws):
            identity = max(identity, _identity_error(w, directions[layer][member], grams[layer][member]))
    full = [torch.linalg.matrix_rank(w).double() / min(w.shape[1:]) for w in weights]
    return Projections(
        thresholds, {arm: torch.stack(rows) for arm, rows in accuracy.items()}, torch.stack(ranks_in),
        torch.stack(ranks_out), torch.stack(used), torch.stack(kept), ensemble.accuracy(*test),
        float(torch.stack(full).min()), max(order, 0.0), identity,
    )  # fmt: skip


def _cut(parts: tuple[Tensor, Tensor, Tensor], ranks: Sequence[int]) -> Tensor:
    """Matrices of given ranks from their singular value decompositions, a stack."""
    u, s, vt = parts
    keep = torch.arange(s.shape[-1], device=s.device) < torch.tensor(ranks, device=s.device)[:, None]
    return (u * (s * keep)[:, None]) @ vt


def _identity_error(weight: Tensor, directions: tuple[Tensor, Tensor], gram: Tensor) -> float:
    """Relative difference between a layer's error and the sum of its two orthogonal parts, in double precision."""
    w = weight.double()
    exact = utilized_layer(w, directions, 0.99)
    total = layer_error(w, torch.zeros_like(w), gram)
    outside, inside = layer_error(w, exact.output_only, gram), layer_error(exact.output_only, exact.weight, gram)
    return abs(layer_error(w, exact.weight, gram) - outside - inside) / total


class Utilization(NamedTuple):
    """Everything that the section on utilized rank measures, by seed.

    Attributes:
        projections: of the trained networks.
        untrained: mean layer utilization before training, ``[thresholds, seeds]``.
        self_supervised: of the trunk of masked autoencoders, ``[thresholds, seeds]``.
        white_rank: output directions of the first layer on white inputs, over its width, ``[seeds]``.
        tuned: accuracy after fine-tuning the factors, ``[seeds]``.
        dense_tuned: accuracy of the dense networks after the same steps, ``[seeds]``.
    """

    projections: Projections
    untrained: Float[Tensor, "thresholds seeds"]
    self_supervised: Float[Tensor, "thresholds seeds"]
    white_rank: Float[Tensor, " seeds"]
    tuned: Float[Tensor, " seeds"]
    dense_tuned: Float[Tensor, " seeds"]


def _mean_utilization(ensemble: Ensemble, inputs: Tensor, thresholds: Sequence[float], first: tuple) -> Tensor:
    seen = hidden_inputs(ensemble, inputs)
    layers = [[first] * len(ensemble), *[[principal_directions(activation_gram([x])) for x in s] for s in seen[1:]]]
    table = torch.zeros(len(thresholds), len(ensemble), dtype=torch.float64)
    for depth, directions in enumerate(layers):
        for member, (w, d) in enumerate(zip(ensemble.params[f"layers.{depth}.weight"], directions)):
            # The ranks need the energies alone, and those do not depend on the threshold.
            inside, outside = d[0], output_directions(w, d)[0]
            for row, threshold in enumerate(thresholds):
                rank = min(energy_directions(inside, threshold), energy_directions(outside, threshold))
                table[row, member] += rank / min(w.shape) / len(layers)
    return table


def factor_ensemble(ensemble: Ensemble, inputs: Tensor, threshold: float, known: Directions | None = None) -> Ensemble:
    """The projected networks with their hidden layers as two factors, padded with zeros to one rank.

    Zero columns have zero gradients, so that training leaves each network at its own rank.

    Args:
        ensemble: Multilayer perceptrons.
        inputs: On which the subspaces are found.
        threshold: Share of energy.
        known: As in :func:`projections`.
    """
    params = dict(ensemble.params)
    ranks = []
    for depth, directions in enumerate(_directions(ensemble, inputs) if known is None else known):
        weights = params.pop(f"layers.{depth}.weight")
        factors = [utilized_layer(w, d, threshold).factors for w, d in zip(weights, directions)]
        room = max(a.shape[1] for a, _ in factors)
        ranks.append(room)
        pad = nn.functional.pad
        params[f"layers.{depth}.A"] = torch.stack([pad(a, (0, room - a.shape[1])) for a, _ in factors])
        params[f"layers.{depth}.B"] = torch.stack([pad(b.T, (0, room - b.shape[0])) for _, b in factors])
    module = ensemble.member(0)

    def factored(name: str, layer: nn.Linear) -> nn.Module | None:
        depth = int(name.rpartition(".")[2])
        return FactorizedLinear(layer.in_features, layer.out_features, ranks[depth]) if depth < len(ranks) else None

    return Ensemble(replace_linear(module, factored), params, {})


def utilization_experiment(
    train: Data, test: Data, *, seeds: Sequence[int], thresholds: Sequence[float], width: int = 256,
    epochs: int = 4, tune: float = 0.99, fine_steps: int = 50, device: str = "cpu",
) -> Utilization:  # fmt: skip
    """Train networks on labels, without labels and not at all, and measure how much of their space they use.

    Args:
        train, test: Images ``[N, 1, h, w]`` in [0, 1] and labels.
        seeds: One network each.
        thresholds: Shares of energy.
        width: Of the two hidden layers.
        epochs: Of both trainings, batches of 64.
        tune: The threshold at which the projected networks are fine-tuned.
        fine_steps: Steps of fine-tuning, for the projected and for the dense networks.
        device: Where to train.

    Source:
        garg2024utilized.
    """
    x, y = train[0].flatten(1), train[1]
    pixels, widths = x.shape[1], [x.shape[1], width, width]
    options = {"seeds": seeds, "batch_size": 64, "optimizer": "adam", "lr": 1e-3, "device": device}
    trained = fit_many(partial(MLP, [*widths, 10]), x, y, epochs=epochs, **options)
    directions = _directions(trained, x)
    found = projections(trained, x, (test[0].flatten(1), test[1]), thresholds, directions)
    first = directions[0][0]
    members = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            members.append(MLP([*widths, 10]))
    start = Ensemble(members[0].to(device), {k: v.to(device) for k, v in stack_members(members)[0].items()})
    generator = torch.Generator().manual_seed(seeds[0])
    # One mask an epoch and image: the masks are part of the data, so that the one training loop serves.
    seen = x.cpu().repeat(epochs, 1)
    masked = (seen * (torch.rand(seen.shape, generator=generator) < 0.25)).to(device)
    blind = fit_many(partial(MLP, [*widths, pixels]), masked, seen.to(device), epochs=1, loss="mse", **options)
    white = torch.randn(len(x), pixels, generator=generator).to(device)
    gram = principal_directions(activation_gram([white]))
    ranks = [utilized_layer(w, gram, 0.99).output_rank / width for w in trained.params["layers.0.weight"]]
    few = fine_steps * 64
    again = options | {"lr": 1e-4}
    part = factor_ensemble(trained, x, tune, directions)
    flat = test[0].flatten(1), test[1]
    tuned = fit_many(lambda: part.module, x[:few], y[:few], epochs=1, init=part, **again)
    dense = fit_many(partial(MLP, [*widths, 10]), x[:few], y[:few], epochs=1, init=trained, **again)
    return Utilization(
        found, _mean_utilization(start, x, thresholds, first), _mean_utilization(blind, x, thresholds, first),
        torch.tensor(ranks), tuned.accuracy(*flat), dense.accuracy(*flat),
    )  # fmt: skip
