r"""Logarithmic pruning: every small network sleeps in a random one that is only a logarithm larger.

A target weight is written as a sum of random products, as a number is written in a positional system whose base is the
golden ratio. Nothing is trained: all that is chosen is which random weights stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.integrate import quad
from torch import Tensor

from netatlas.core.checks import require, require_finite

GOLDEN = (math.sqrt(5) - 1) / 2
Law = Literal["hyperbolic", "uniform"]


def greedy_decomposition(
    weights: Float[Tensor, " N"], parts: Float[Tensor, "N k"]
) -> tuple[Bool[Tensor, "N k"], Float[Tensor, " N"]]:
    r"""Write weights as sums of given parts: go through them in order, keep each that still fits.

    With :math:`x_i \in (\gamma^{i+1}, \gamma^i]`, golden :math:`\gamma` and :math:`0\le w\le 1`, at most
    :math:`\gamma^k` is left. For then :math:`r_i \le \gamma^{i-1}` stays true: a kept part leaves at most
    :math:`\gamma^{i-1} - \gamma^{i+1} = \gamma^i`, because :math:`1-\gamma^2=\gamma`.

    Args:
        weights: Non-negative numbers.
        parts: For each, the parts in the order in which they are tried.

    Returns:
        Which parts are kept, and what is left of each weight.

    Raises:
        ValueError: For negative or non-finite weights, or shapes that do not fit.

    Source:
        orseau2020logarithmic.
    """
    require(parts.ndim == 2 and weights.shape == parts.shape[:1], f"parts [{len(weights)}, k]", tuple(parts.shape))
    require_finite("weights", weights)
    require_finite("parts", parts)
    require(bool((weights >= 0).all()), "non-negative weights", float(weights.min()) if len(weights) else 0)
    left = weights.clone()
    kept = torch.zeros_like(parts, dtype=torch.bool)
    for i in range(parts.shape[1]):
        kept[:, i] = left >= parts[:, i]
        left = left - parts[:, i] * kept[:, i]
    return kept, left


def largest_first(
    weights: Float[Tensor, " N"], candidates: Float[Tensor, "N M"]
) -> tuple[Bool[Tensor, "N M"], Float[Tensor, " N"]]:
    """The same greedy rule on whatever was drawn: always keep the largest candidate that still fits.

    Equal to :func:`greedy_decomposition` on sorted candidates; here one step a *kept* candidate, found by bisection.

    Args:
        weights: Non-negative numbers.
        candidates: Random numbers for each; those that are not positive are never kept.

    Returns:
        Which candidates are kept, in their own places, and what is left.

    Raises:
        ValueError: As :func:`greedy_decomposition`.
    """
    require(candidates.ndim == 2 and weights.shape == candidates.shape[:1], f"candidates [{len(weights)}, M]",
            tuple(candidates.shape))  # fmt: skip
    require_finite("weights", weights)
    require_finite("candidates", candidates)
    require(bool((weights >= 0).all()), "non-negative weights", float(weights.min()) if len(weights) else 0)
    ascending, order = candidates.sort(1)
    kept = torch.zeros_like(candidates, dtype=torch.bool)
    left, rows = weights.clone(), torch.arange(len(weights), device=weights.device)
    free = torch.full_like(rows, candidates.shape[1])
    while len(rows):
        # The last candidate that is not larger than what is left, among those not passed yet.
        place = torch.searchsorted(ascending[rows], left[rows, None], right=True)[:, 0]
        place = torch.minimum(place, free[rows]) - 1
        fits = place >= 0
        value = ascending[rows, place.clamp_min(0)]
        fits &= value > 0
        rows, place, value = rows[fits], place[fits], value[fits]
        kept[rows, order[rows, place]] = True
        left[rows] = left[rows] - value
        free[rows] = place
    return kept, left


def sample_magnitudes(
    shape: Sequence[int], law: Law, *, low: float, high: float, generator: torch.Generator
) -> Float[Tensor, "..."]:
    r"""Random magnitudes: hyperbolic, :math:`p(x)\propto 1/x` on ``[low, high]``, or uniform on ``(0, high]``.

    Args:
        shape: Of the result.
        law: ``"hyperbolic"`` or ``"uniform"``.
        low, high: Ends of the range; the uniform law uses the upper one.
        generator: Source of randomness.

    Returns:
        Numbers in double precision.

    Raises:
        ValueError: For an unknown law or a range that is not positive and increasing.

    Source:
        orseau2020logarithmic.
    """
    require(law in ("hyperbolic", "uniform"), "a law out of hyperbolic, uniform", repr(law))
    require(0 < low < high < math.inf, "a range 0 < low < high", (low, high))
    drawn = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    if law == "uniform":
        return high * (1 - drawn)
    return low * torch.exp(drawn * math.log(high / low))


def golden_bins(values: Float[Tensor, "..."], bins: int) -> Tensor:
    r"""Number ``i`` of the bin :math:`(\gamma^{i+1}, \gamma^i]` of each value, from 1 to ``bins``; 0 outside.

    Args:
        values: Positive numbers.
        bins: Number of bins.
    """
    exponent = torch.log(values.clamp_min(1e-300)) / math.log(GOLDEN)
    number = torch.floor(exponent * (1 + 1e-15) + 1e-12).long()
    return torch.where((number >= 1) & (number <= bins), number, torch.zeros_like(number))


def bin_probabilities(bins: int, law: Literal["hyperbolic", "uniform", "product", "centred product"]) -> np.ndarray:
    r"""Probability of each golden bin :math:`(\gamma^{i+1}, \gamma^i]`, :math:`i = 1..k`.

    The hyperbolic law on :math:`[\gamma^{k+1}, \gamma]` hits all bins alike. The product of two of its numbers on
    :math:`[\gamma^{k+1}, 1]` has a triangular logarithm, and bins near 1 become rare; with the factors on
    :math:`[\gamma^{3k/4}, \gamma^{-k/4}]` ("centred", our own choice) the rare ones lie outside of what is needed. The
    uniform law on :math:`(0, 1]` hits bin :math:`i` with :math:`\gamma^i - \gamma^{i+1}`.

    Args:
        bins: Number of bins k.
        law: Which law.

    Returns:
        Probabilities, whose sum may be below one.

    Raises:
        ValueError: For no bins or an unknown law.

    Source:
        orseau2020logarithmic; the product laws are worked out here.
    """
    require(bins >= 1, "at least one bin", bins)
    i = np.arange(1, bins + 1, dtype=float)
    if law == "hyperbolic":
        return np.full(bins, 1 / bins)
    if law == "uniform":
        return GOLDEN**i - GOLDEN ** (i + 1)
    require(law in ("product", "centred product"), "a known law", repr(law))
    low, high = (0.0, bins + 1.0) if law == "product" else (-bins / 4, 3 * bins / 4)
    length = high - low

    def below(t: np.ndarray) -> np.ndarray:
        """Distribution of the sum of two exponents, each uniform on ``[low, high]``."""
        u = np.clip((t - 2 * low) / length, 0, 2)
        return np.where(u <= 1, u**2 / 2, 1 - (2 - u) ** 2 / 2)

    return below(i + 1) - below(i)


def coupon_collector_expectation(probabilities: Sequence[float] | np.ndarray) -> float:
    r"""Mean number of draws until every bin was hit.

    .. math:: E = \int_0^\infty \Bigl[1 - \prod_i \bigl(1 - e^{-p_i t}\bigr)\Bigr]\,dt

    For :math:`k` equal bins that fill the law this is :math:`k H_k`.

    Args:
        probabilities: Of the bins; their sum may be below one.

    Raises:
        ValueError: For no bins, a probability that is not positive, or a sum above one.

    Source:
        orseau2020logarithmic counts samples this way; the integral is the classical one for unequal coupons.
    """
    p = np.asarray(probabilities, dtype=float)
    require(p.ndim == 1 and len(p) > 0 and bool((p > 0).all()) and p.sum() <= 1 + 1e-9,
            "positive probabilities with a sum of at most one", p)  # fmt: skip

    def missing(t: float) -> float:
        return float(-np.expm1(np.log1p(-np.exp(-p * t)).sum())) if t > 0 else 1.0

    end = (math.log(len(p)) + 40) / p.min()
    points = np.geomspace(1 / p.max() / 10, end, 60)
    return quad(missing, 0, points[0])[0] + sum(
        quad(missing, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in zip(points, points[1:])
    )


def draws_until_filled(
    bins: int,
    law: Literal["hyperbolic", "uniform", "product", "centred product"],
    *,
    repetitions: int,
    generator: torch.Generator,
    block: int = 256,
) -> Float[Tensor, " repetitions"]:
    """Simulated number of draws until every golden bin was hit; never cut short.

    Args:
        bins: Number of bins.
        law: As in :func:`bin_probabilities`; products are drawn as two numbers and multiplied.
        repetitions: Independent runs.
        generator: Source of randomness.
        block: Draws at once.

    Raises:
        ValueError: For no repetitions.
    """
    require(repetitions >= 1, "at least one repetition", repetitions)
    ends = {
        "hyperbolic": (GOLDEN ** (bins + 1), GOLDEN),
        "product": (GOLDEN ** (bins + 1), 1.0),
        "centred product": (GOLDEN ** (0.75 * bins), GOLDEN ** (-0.25 * bins)),
    }
    first = torch.full((repetitions, bins + 1), torch.iinfo(torch.long).max)
    first[:, 0] = 0
    drawn, open_rows = 0, torch.arange(repetitions)
    while len(open_rows):
        shape = (len(open_rows), block)
        if law == "uniform":
            values = sample_magnitudes(shape, "uniform", low=0.5, high=1.0, generator=generator)
        else:
            low, high = ends[law]
            values = sample_magnitudes(shape, "hyperbolic", low=low, high=high, generator=generator)
            if law != "hyperbolic":
                values = values * sample_magnitudes(shape, "hyperbolic", low=low, high=high, generator=generator)
        number = torch.arange(drawn + 1, drawn + block + 1).expand(shape)
        seen = first[open_rows].scatter_reduce(1, golden_bins(values, bins), number, "amin")
        seen[:, 0] = 0
        first[open_rows] = seen
        drawn += block
        open_rows = open_rows[seen.max(1).values > drawn]
    return first[:, 1:].max(1).values.double()


def subset_sum_error(weights: Float[Tensor, " N"], parts: Float[Tensor, "N k"]) -> Float[Tensor, " N"]:
    """Smallest distance between a weight and any sum of some of its parts, by trying all ``2^k``.

    Args:
        weights: Numbers.
        parts: At most 20 parts a number.

    Raises:
        ValueError: For more than 20 parts or shapes that do not fit.
    """
    require(parts.ndim == 2 and weights.shape == parts.shape[:1], f"parts [{len(weights)}, k]", tuple(parts.shape))
    require(parts.shape[1] <= 20, "at most 20 parts", parts.shape[1])
    sums = torch.zeros(len(weights), 1, dtype=parts.dtype)
    for i in range(parts.shape[1]):
        sums = torch.cat([sums, sums + parts[:, i : i + 1]], 1)
    return (sums - weights[:, None]).abs().min(1).values


class PrunedLayer(NamedTuple):
    """A layer of the large random network, and what pruning left of it.

    Attributes:
        into: Random in-weights of the intermediate neurons, ``[out, in + 1, M]``; the last input is the constant one.
        out: Random out-weights, of the same shape.
        mask: Which intermediate neurons stay.
    """

    into: Tensor
    out: Tensor
    mask: Tensor

    def weights(self, side: int = 1) -> Float[Tensor, "out in+1"]:
        """The weights that the kept neurons add up to, on ``relu(x)`` (side 1) or on ``relu(-x)`` (side -1)."""
        # Few neurons are kept: only those are looked at.
        kept = self.mask.nonzero(as_tuple=True)
        products = (side * self.into[kept]).clamp_min(0) * self.out[kept]
        return self.out.new_zeros(self.out.shape[:-1]).index_put_(kept[:-1], products, accumulate=True)

    def run(self, x: Float[Tensor, "N in"]) -> Float[Tensor, "N out"]:
        """The layer as it stands: every kept intermediate neuron with its own ReLU."""
        one = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        hidden = torch.relu(one[:, None, :, None] * (self.into * self.mask))
        return (hidden * (self.out * self.mask)).sum((-1, -2))


def prune_to_target(
    layers: Sequence[tuple[Tensor, Tensor]],
    samples: int,
    *,
    law: Law,
    precision: float,
    generator: torch.Generator,
    products: bool = True,
    signed_input: bool = False,
) -> list[PrunedLayer]:
    r"""Prune a random network of twice the depth until it computes nearly what a target network does.

    Between every two layers of the target stands a layer of random neurons, ``samples`` of them for each weight. A
    kept neuron with in-weight :math:`a > 0` and out-weight :math:`b` adds :math:`b\,\mathrm{relu}(a x) = (ab)\,x` for
    :math:`x \ge 0`; neurons with :math:`a < 0` are dead there and wasted, but for a first layer with signed inputs,
    where they carry :math:`x < 0`. Of each weight's neurons with the right sign, the largest products that fit are
    kept. Biases are weights of a constant input.

    Args:
        layers: Weight ``[n, m]`` and bias ``[n]`` of each layer.
        samples: Random neurons for each weight.
        law: Of both factors' magnitudes; signs are fair coins.
        precision: Smallest product worth having, relative to the layer's largest weight: it sets the range of the
            hyperbolic law.
        generator: Source of randomness.
        products: ``False`` fixes the in-weight at one: the out-weight alone must do (an ablation).
        signed_input: Whether the first layer has to serve negative inputs too.

    Returns:
        The random weights and the mask of each layer, in double precision.

    Raises:
        ValueError: For no samples, a precision outside of (0, 1), or weights that are not finite.

    Source:
        orseau2020logarithmic.
    """
    require(samples >= 1, "at least one sample a weight", samples)
    require(0 < precision < 1, "a precision between 0 and 1", precision)
    bins = math.log(precision) / math.log(GOLDEN)
    factor = (GOLDEN ** (0.75 * bins), GOLDEN ** (-0.25 * bins))
    found = []
    for number, (weight, bias) in enumerate(layers):
        require_finite(f"layer {number}", weight)
        target = torch.cat([weight, bias[:, None]], 1).double()
        largest = float(target.abs().max())
        scale = largest if largest > 0 else 1.0
        shape = (*target.shape, samples)

        def draw(shape: tuple[int, ...] = shape) -> Tensor:
            low, high = factor if law == "hyperbolic" and products else (precision, 1.0)
            sign = 2 * torch.randint(0, 2, shape, generator=generator) - 1
            return sign * sample_magnitudes(shape, law, low=low, high=high, generator=generator)

        into = draw() if products else torch.ones(shape, dtype=torch.float64)
        out = draw() * scale
        mask = torch.zeros(shape, dtype=torch.bool)
        for side in (1, -1) if signed_input and number == 0 else (1,):
            usable = (side * into > 0) & (side * out.sign() == target.sign()[..., None])
            candidates = torch.where(usable, (into * out).abs(), torch.zeros_like(out))
            mask |= largest_first(target.abs().flatten(), candidates.flatten(0, 1))[0].reshape(shape)
        found.append(PrunedLayer(into, out, mask))
    return found


def run_pruned(layers: Sequence[PrunedLayer], x: Float[Tensor, "N in"], *, explicit: bool = False) -> Tensor:
    """Outputs of the pruned random network.

    Args:
        layers: As :func:`prune_to_target` returns them.
        x: Inputs; non-negative, unless the layers were made for signed ones.
        explicit: Whether to run every intermediate neuron instead of the weights they add up to.

    Raises:
        ValueError: For no layers.
    """
    require(len(layers) > 0, "at least one layer", 0)
    for number, layer in enumerate(layers):
        if number:
            x = torch.relu(x)
        if explicit:
            x = layer.run(x)
            continue
        up = layer.weights()
        y = torch.relu(x) @ up[:, :-1].T + up[:, -1]
        x = y + torch.relu(-x) @ layer.weights(-1)[:, :-1].T if bool((x < 0).any()) else y
    return x
