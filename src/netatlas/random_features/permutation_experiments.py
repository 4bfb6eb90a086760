"""Experiments on exact learning of permutations: the law, real networks, and the null of a kernel without overlap."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from netatlas.core.stats import Slope, loglog_slope
from netatlas.random_features import permutations as pm


def models_table(bits: list[int], *, regimes: tuple[str, ...] = ("ntk", "last")) -> pd.DataFrame:
    """Models needed for one input, over bits, numbers of ones and regimes.

    Args:
        bits: Lengths of the inputs.
        regimes: As in :func:`~netatlas.random_features.permutations.bit_law`.
    """
    rows = []
    for regime in regimes:
        for k in bits:
            for name, m in (("2", 2), ("k/2", k // 2), ("k-1", k - 1)):
                n = pm.models_needed(k, m, regime=regime)
                rows.append(
                    {"regime": regime, "bits": k, "ones": name, "models": n, "per k log k": n / (k * math.log(k))}
                )
    return pd.DataFrame(rows)


class Growth(NamedTuple):
    """Exponent of the models needed on the bits, and the range of models per k log k."""

    slope: Slope
    spread: float


def growth(table: pd.DataFrame, regime: str, ones: str = "2", least: int = 20) -> Growth:
    """Exponent and spread in one regime.

    Args:
        table: From :func:`models_table`.
        regime: Which regime.
        ones: Which inputs.
        least: Bits from which on.
    """
    part = table[(table.regime == regime) & (table.ones == ones) & (table.bits >= least)]
    return Growth(
        loglog_slope(part.bits.to_numpy(), part.models.to_numpy()),
        part["per k log k"].max() / part["per k log k"].min(),
    )


def all_inputs(bits: list[int], *, draws: int, seed: int) -> dict[int, float]:
    """Models needed for all inputs at once, sampled from the exact joint law.

    Args:
        bits: Lengths.
        draws: Draws of the noise.
        seed: Seeds them.
    """
    g, found = torch.Generator().manual_seed(seed), {}
    for k in bits:
        inputs = pm.binary_inputs(k, fewest=2)
        found[k] = pm.models_for_all_inputs(pm.trained_law(inputs), inputs, draws, generator=g)
    return found


class Exactness(NamedTuple):
    """Ensembles without a wrong bit, and shares of right zero bits at two ones with ReLU and erf."""

    exact: Tensor
    relu_zeros: Tensor
    erf_zeros: Tensor
    erf_error: float
    fewer: Tensor


def exact_learning(bits: int, models: float, *, ensembles: int, seed: int) -> Exactness:
    """Ensembles at four times the models needed, and the same with an activation whose kernel has no overlap at right
    angles.

    Args:
        bits: Length of the inputs.
        models: Models needed for all inputs.
        ensembles: Ensembles.
        seed: Seeds them.
    """
    g = torch.Generator().manual_seed(seed)
    inputs, count = pm.binary_inputs(bits), math.ceil(4 * models)
    relu = pm.ensemble_bits(pm.trained_law(inputs), count, ensembles, generator=g)
    few = pm.ensemble_bits(pm.trained_law(inputs), max(1, count // 400), ensembles, generator=g)
    wanted = inputs > 0
    two = inputs.sum(1) == 2
    pair = inputs[two]
    erf = pm.ensemble_bits(pm.trained_law(pair, activation="erf"), count, ensembles, generator=g)
    zero = ~wanted[two]
    share = (~erf[:, zero]).double().mean(1)
    # Zero bits of one input and of inputs that share ones are correlated: the error is taken over ensembles.
    return Exactness(
        (relu == wanted).flatten(1).all(1).double(),
        (~relu[:, two][:, zero]).double().mean(1),
        share,
        float(share.std() / ensembles**0.5),
        (few == wanted).flatten(1).all(1).double(),
    )


class RealNetworks(NamedTuple):
    """Deviations of trained networks from the law, in standard errors, and whether raw inputs give the same bits.

    ``right`` is the share of inputs with two ones or more all of whose bits the networks' mean has right, ``alone``
    that of every single network.
    """

    table: pd.DataFrame
    mean_error: float
    variance_error: float
    loss: float
    raw_bits_differ: float
    right: float
    alone: Tensor


def real_networks(bits: int, width: int, models: int, *, seed: int) -> RealNetworks:
    """Means and variances of trained networks' outputs beside the law, at inputs with two to four ones.

    Args:
        bits: Length of the inputs.
        width: Hidden units.
        models: Networks.
        seed: Seeds them.
    """
    g = torch.Generator().manual_seed(seed)
    first, last, loss = pm.train_ensemble(bits, width, models, generator=g)
    rows = []
    everything = pm.binary_inputs(bits, fewest=2).float()
    raw = pm.ensemble_outputs(first, last, everything).mean(0) > 0
    outputs = pm.ensemble_outputs(first, last, everything / everything.norm(dim=1, keepdim=True))
    unit, wanted = outputs.mean(0) > 0, everything > 0
    for m in range(2, bits):
        x = torch.zeros(1, bits)
        x[0, :m] = 1
        out = pm.ensemble_outputs(first, last, x / m**0.5)[:, 0].double()
        law = pm.bit_law(torch.tensor(float(bits)), torch.tensor(float(m)))
        for name, part, mean in (("one", out[:, :m], law.one), ("zero", out[:, m:], law.zero)):
            count = part.shape[1]
            average = part.mean(1)
            variance = float(part.var(0).mean())
            rows.append(
                {
                    "ones": m,
                    "bit": name,
                    "mean": float(average.mean()),
                    "law's mean": float(mean),
                    "mean, standard errors off": abs(float(average.mean() - mean)) / float(average.std() / models**0.5),
                    "variance / law": variance / float(law.deviation) ** 2,
                    "variance, errors off": abs(variance / float(law.deviation) ** 2 - 1)
                    / math.sqrt(2 / ((models - 1) * count)),
                }
            )
    table = pd.DataFrame(rows)
    return RealNetworks(
        table,
        float(table["mean, standard errors off"].max()),
        float(table["variance, errors off"].max()),
        float(loss.max()),
        float((raw != unit).double().mean()),
        float((unit == wanted).all(1).double().mean()),
        ((outputs > 0) == wanted).all(2).double().mean(1),
    )


def single_model_accuracy(bits: list[int], ones: int = 2) -> dict[int, float]:
    """Probability that one model has every bit of one input right.

    Args:
        bits: Lengths.
        ones: Ones of the input.
    """
    found = {}
    for k in bits:
        law = pm.bit_law(torch.tensor(float(k)), torch.tensor(float(ones)))
        z = torch.special.ndtr(torch.stack([law.one, -law.zero]) / law.deviation)
        found[k] = float(z[0] ** ones * z[1] ** (k - ones))
    return found
