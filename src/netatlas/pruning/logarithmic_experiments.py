"""Experiments on logarithmic pruning: the lemma, the number of samples, a whole network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from netatlas.core.nn import MLP
from netatlas.core.train import fit

from .logarithmic import (
    GOLDEN,
    Law,
    bin_probabilities,
    coupon_collector_expectation,
    draws_until_filled,
    greedy_decomposition,
    prune_to_target,
    run_pruned,
    subset_sum_error,
)


def lemma_residual(bins: int, *, seed: int, count: int = 100_000, base: float = GOLDEN) -> tuple[float, float]:
    """Largest remainder over ``base ** bins``: for random weights and parts, and in the worst case.

    Args:
        bins: Number of parts.
        seed: Seeds weights and parts.
        count: Random cases.
        base: Base of the bins; the lemma needs ``1 - base ** 2 <= base``.

    Returns:
        The random cases' largest ratio, and that of weight 1 with every part just above the bottom of its bin.
    """
    generator = torch.Generator().manual_seed(seed)
    powers = base ** torch.arange(1, bins + 2, dtype=torch.float64)
    top, bottom = powers[:-1], powers[1:]
    share = torch.rand(count, bins, generator=generator, dtype=torch.float64)
    weights = torch.rand(count, generator=generator, dtype=torch.float64)
    _, left = greedy_decomposition(weights, bottom + (1 - share) * (top - bottom))
    _, worst = greedy_decomposition(torch.ones(1, dtype=torch.float64), (bottom * (1 + 1e-9))[None])
    return float(left.max() / base**bins), float(worst / base**bins)


def bins_for(precision: float) -> int:
    """Golden bins that reach a precision."""
    return math.ceil(math.log(1 / precision) / math.log(1 / GOLDEN))


class Scaling(NamedTuple):
    """Mean numbers of samples for one weight, over precisions.

    Attributes:
        precisions: What is to be reached.
        means: Law to mean samples ``[precisions]``.
        errors: Standard errors.
        theory: Law to what the integral or a closed form says.
    """

    precisions: list[float]
    means: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    theory: dict[str, np.ndarray]

    def exponents(self, law: str) -> np.ndarray:
        """Local exponents of the theory's samples in 1 / precision, decade by decade."""
        return np.diff(np.log(self.theory[law])) / np.diff(np.log(1 / np.array(self.precisions)))

    def power(self, law: str) -> float:
        """Exponent of measured samples in 1 / precision, over all precisions that were simulated."""
        known = np.isfinite(self.means[law])
        return float(np.polyfit(np.log(1 / np.array(self.precisions)[known]), np.log(self.means[law][known]), 1)[0])


def _nearest(precision: float, repetitions: int, generator: torch.Generator) -> Tensor:
    """Draws until a uniform number lies within the precision of a random target; none is cut short."""
    targets = torch.rand(repetitions, generator=generator, dtype=torch.float64)
    width = (targets + precision).clamp(max=1) - (targets - precision).clamp(min=0)
    drawn = torch.rand(repetitions, generator=generator, dtype=torch.float64)
    return torch.ceil(torch.log1p(-drawn) / torch.log1p(-width)).clamp_min(1)


def sample_scaling(precisions: Sequence[float], *, repetitions: int, seed: int) -> Scaling:
    """Samples that one weight needs, by each law and rule.

    Golden bins: hyperbolic numbers, products of two, and such with the range centred. Nearest: one uniform number
    close enough (its waiting time is drawn from the geometric law that it has). Both factors right: a uniform pair of
    which one is close to the weight and the other to one, by its closed form. Uniform numbers in golden bins, by the
    integral.

    Args:
        precisions: What is to be reached.
        repetitions: Independent runs.
        seed: Seeds them.
    """
    generator = torch.Generator().manual_seed(seed)
    means: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    theory: dict[str, list[float]] = {}

    def add(law: str, values: Tensor | None, expected: float) -> None:
        means.setdefault(law, []).append(float(values.mean()) if values is not None else float("nan"))
        errors.setdefault(law, []).append(
            float(values.std()) / repetitions**0.5 if values is not None else float("nan")
        )
        theory.setdefault(law, []).append(expected)

    for precision in precisions:
        bins = bins_for(precision)
        for law in ("hyperbolic", "product", "centred product"):
            found = draws_until_filled(bins, law, repetitions=repetitions, generator=generator)  # type: ignore[arg-type]
            add(law, found, coupon_collector_expectation(bin_probabilities(bins, law)))  # type: ignore[arg-type]
        # A target at distance d < eps of an end is hit with probability d + eps, others with 2 eps.
        expected = (1 - 2 * precision) / (2 * precision) + 2 * math.log(2)
        add("uniform, nearest", _nearest(precision, repetitions, generator), expected)
        add("uniform, golden bins", None, coupon_collector_expectation(bin_probabilities(bins, "uniform")))
        # On [0, 1]: the second factor within eps of one has probability eps, the first as above.
        add("uniform, both factors right", None, expected / precision)
    return Scaling(
        list(precisions),
        {law: np.array(v) for law, v in means.items()},
        {law: np.array(v) for law, v in errors.items()},
        {law: np.array(v) for law, v in theory.items()},
    )


def subset_sum_samples(precisions: Sequence[float], *, seed: int, repetitions: int = 100, most: int = 18) -> list[int]:
    """Uniform samples whose best subset comes within each precision of a random weight, in at least half of the runs.

    Args:
        precisions: What is to be reached.
        seed: Seeds the runs.
        repetitions: Independent runs.
        most: Largest number tried; a precision that is not reached gives 0.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(repetitions, generator=generator, dtype=torch.float64)
    parts = torch.rand(repetitions, most, generator=generator, dtype=torch.float64)
    medians = [float(subset_sum_error(weights, parts[:, :n]).median()) for n in range(1, most + 1)]
    return [next((n + 1 for n, error in enumerate(medians) if error <= precision), 0) for precision in precisions]


class SmallestNetwork(NamedTuple):
    """The smallest large network that does.

    Attributes:
        samples: Random neurons a weight.
        error: Largest logit error over draws and inputs at that size.
        kept_labels: Share of inputs with a clear target label that keep it, over draws.
        kept: Neurons kept a weight, mean.
    """

    samples: int
    error: float
    kept_labels: float
    kept: float


def smallest_network(
    layers: Sequence[tuple[Tensor, Tensor]],
    inputs: Tensor,
    *,
    law: Law,
    error: float,
    seed: int,
    draws: int = 5,
    precision: float | None = None,
    products: bool = True,
    start: int = 8,
    ratio: float = 1.15,
    most: int = 20_000,
) -> SmallestNetwork:
    """Fewest random neurons a weight with which every draw comes within an error of the target's logits.

    Args:
        layers: The target network.
        inputs: Non-negative inputs ``[N, m]``.
        law: Of the random weights.
        error: Largest allowed difference of a logit.
        seed: Seeds the draws.
        draws: Independent large networks, all of which have to succeed.
        precision: As in :func:`netatlas.pruning.prune_to_target`; default: a hundredth of the error.
        products: As there.
        start, ratio: The grid of sizes.
        most: Where the search gives up; the result then has ``samples = 0``.
    """
    precision = error / 100 if precision is None else precision
    truth = _target(layers, inputs)
    top = truth.topk(2, 1).values
    clear = top[:, 0] - top[:, 1] > 0.1
    samples = start
    while samples <= most:
        worst, agree, kept = 0.0, 1.0, []
        for draw in range(draws):
            generator = torch.Generator().manual_seed(seed + draw)
            found = prune_to_target(
                layers, samples, law=law, precision=precision, generator=generator, products=products
            )
            outputs = run_pruned(found, inputs)
            worst = max(worst, float((outputs - truth).abs().max()))
            agree = min(agree, float((outputs.argmax(1) == truth.argmax(1))[clear].double().mean()))
            kept.append(sum(int(f.mask.sum()) for f in found) / sum(f.mask.shape[0] * f.mask.shape[1] for f in found))
            if worst >= error:
                break
        if worst < error:
            return SmallestNetwork(samples, worst, agree, float(np.mean(kept)))
        samples = max(samples + 1, math.ceil(samples * ratio))
    return SmallestNetwork(0, worst, agree, float(np.mean(kept)))


def _target(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for number, (weight, bias) in enumerate(layers):
        x = (torch.relu(x) if number else x) @ weight.T + bias
    return x


def untouched(layers: Sequence[tuple[Tensor, Tensor]], *, samples: int, seed: int) -> tuple[float, float]:
    """Two exact checks of the construction: explicit neurons against summed weights, and masks that change nothing.

    For the second, the same random network is pruned to another target: the given one with its weights in another
    order, so that the largest weight of a layer, which sets the scale, stays. If pruning did more than mask, the two
    would differ in their random weights; that their masks differ shows that there was something to choose.

    Args:
        layers: The target network.
        samples: Random neurons a weight.
        seed: Seeds the random weights.

    Returns:
        Largest difference of an output between both ways to run the pruned network, and the largest difference of a
        random weight between the two pruned networks (infinite if their masks are the same).
    """
    shuffle = torch.Generator().manual_seed(seed + 1)
    other = [(w.flatten()[torch.randperm(w.numel(), generator=shuffle)].reshape(w.shape), b.flip(0)) for w, b in layers]
    found, again = (
        prune_to_target(
            target, samples, law="hyperbolic", precision=1e-4, generator=torch.Generator().manual_seed(seed)
        )
        for target in (layers, other)
    )
    x = torch.rand(20, layers[0][0].shape[1], generator=shuffle, dtype=torch.float64)
    error = float((run_pruned(found, x) - run_pruned(found, x, explicit=True)).abs().max())
    moved = max(float((a.into - b.into).abs().max() + (a.out - b.out).abs().max()) for a, b in zip(found, again))
    alike = all(torch.equal(a.mask, b.mask) for a, b in zip(found, again))
    return error, math.inf if alike else moved


def trained_target(images: Tensor, labels: Tensor, *, seed: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """A trained perceptron with 16 hidden neurons, and the quarter of the images that it has not seen.

    Args:
        images: ``[N, ...]``, values between 0 and 1.
        labels: ``[N]``.
        seed: Seeds the split, the start and the batches.

    Returns:
        Weight and bias of each layer, and the unseen inputs, in double precision.
    """
    x = images.flatten(1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, test = order[: 3 * len(x) // 4], order[3 * len(x) // 4 :]
    torch.manual_seed(seed)
    network = MLP([x.shape[1], 16, int(labels.max()) + 1])
    fit(network, x[train], labels[train], seed=seed, epochs=40, batch_size=64, optimizer="adam", lr=3e-3)
    layers = [(layer.weight.detach().double(), layer.bias.detach().double()) for layer in network.layers]
    return layers, x[test].double()
