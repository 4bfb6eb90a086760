r"""Pruning spaces: populations of subnetworks at one cost, and how their errors depend on computation per parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from netatlas.core.checks import require, require_finite


class LayerCosts(NamedTuple):
    """Multiply-adds and parameters of every layer, ``[nets, layers]``; the last layer is the linear head."""

    flops: np.ndarray
    params: np.ndarray


def layer_costs(
    widths: np.ndarray, maps: Sequence[int], classes: int, in_channels: int = 1, kernel: int = 3
) -> LayerCosts:
    r"""Costs of convolutions and head: :math:`\text{params}_l = k^2 c_{l-1}c_l`, :math:`\text{FLOPs}_l = h_l^2\,\text{params}_l`.

    Args:
        widths: ``[nets, layers]`` channels :math:`c_l \ge 1`.
        maps: Side :math:`h_l` of each layer's map.
        classes: Outputs of the head.
        in_channels: Channels of the input.
        kernel: Side :math:`k` of a kernel.

    Raises:
        ValueError: For widths below 1 or another number of maps than layers.
    """  # noqa: E501
    widths = np.atleast_2d(np.asarray(widths))
    require(widths.shape[1] == len(maps), f"{len(maps)} widths", widths.shape)
    require(bool((widths >= 1).all()), "widths of at least 1", widths.min())
    before = np.concatenate([np.full((len(widths), 1), in_channels), widths[:, :-1]], 1)
    convolutions = kernel**2 * before * widths
    params = np.concatenate([convolutions, classes * widths[:, -1:]], 1)
    area = np.array([m * m for m in maps] + [1])
    return LayerCosts(params * area, params)


def flops_per_parameter(costs: LayerCosts) -> np.ndarray:
    r"""The ratio :math:`q = \sum_l \text{FLOPs}_l / \sum_l \text{params}_l`, the parameter-weighted mean map area."""
    return costs.flops.sum(1) / costs.params.sum(1)


def sample_widths_at_flops(
    full: Sequence[int],
    maps: Sequence[int],
    *,
    classes: int,
    share: float,
    count: int,
    seed: int,
    tolerance: float = 0.02,
    lowest: float = 0.15,
    attempts: int = 200_000,
) -> np.ndarray:
    """Different width vectors whose multiply-adds are a given share of the full network's.

    Kept shares are drawn uniformly for each layer and scaled by one factor to the cost; vectors that then leave the
    band or the network are rejected.

    Args:
        full: Widths of the original network.
        maps: Sides of the maps.
        classes: Outputs.
        share: Share of the original's multiply-adds, in (0, 1].
        count: How many.
        seed: Of the draws.
        tolerance: Half-width of the band, relative.
        lowest: Least share drawn.
        attempts: Draws at most.

    Returns:
        ``[count, layers]``, integers.

    Raises:
        ValueError: For a share out of range, or a space too small for so many networks.
    """
    require(0 < share <= 1, "a share in (0, 1]", share)
    require(count >= 1, "at least one network", count)
    whole, rng = np.asarray(full), np.random.default_rng(seed)
    target = share * layer_costs(whole[None], maps, classes).flops.sum()
    found: dict[tuple[int, ...], None] = {}
    factors = np.geomspace(0.3, 3.0, 120)
    for _ in range(-(-attempts // 500)):
        drawn = rng.uniform(lowest, 1.0, (500, len(whole)))
        options = np.rint(drawn[:, None] * factors[:, None] * whole).astype(int)
        valid = ((options >= 1) & (options <= whole)).all(-1)
        flat = np.clip(options, 1, None).reshape(-1, len(whole))
        gap = np.abs(layer_costs(flat, maps, classes).flops.sum(1) / target - 1).reshape(options.shape[:2])
        gap[~valid] = np.inf
        best = gap.argmin(1)
        for i in np.flatnonzero(gap[np.arange(500), best] <= tolerance):
            found.setdefault(tuple(options[i, best[i]].tolist()))
        if len(found) >= count:
            break
    require(len(found) >= count, f"a space with {count} networks in the band", len(found))
    return np.array(list(found)[:count])


class QuadraticLaw(NamedTuple):
    """Fit of ``error = a + b z + c z^2`` with ``z = log q``: coefficients, and the bootstrap of the minimum ``q*``.

    Attributes:
        coefficients: ``a, b, c``.
        linear: ``a, b`` of the straight line.
        optimum: ``exp(-b / 2c)``; NaN for a concave fit.
        bootstrap: The optimum in bootstrap samples, NaN where concave.
    """

    coefficients: np.ndarray
    linear: np.ndarray
    optimum: float
    bootstrap: np.ndarray

    def predict(self, q: np.ndarray) -> np.ndarray:
        """Error predicted by the quadratic."""
        z = np.log(q)
        return self.coefficients[0] + self.coefficients[1] * z + self.coefficients[2] * z**2


def quadratic_interior_optimum(q: np.ndarray, errors: np.ndarray, *, draws: int = 400, seed: int = 0) -> QuadraticLaw:
    """Fit the error as a quadratic in ``log q``, and find where it is least.

    Args:
        q: Positive ratios.
        errors: Errors.
        draws: Bootstrap samples.
        seed: Of the bootstrap.

    Raises:
        ValueError: For fewer than five networks, ratios that are not positive, or values that are not finite.
    """
    q, errors = np.asarray(q, dtype=float), np.asarray(errors, dtype=float)
    require(len(q) == len(errors) >= 5, "at least five networks", len(q))
    require(bool((q > 0).all()), "positive ratios", q.min())
    require_finite("errors", errors)
    z, rng = np.log(q), np.random.default_rng(seed)

    def fit(rows: np.ndarray) -> tuple[np.ndarray, float]:
        c, b, a = np.polyfit(z[rows], errors[rows], 2)
        return np.array([a, b, c]), float(np.exp(np.clip(-b / (2 * c), -50, 50))) if c > 0 else float("nan")

    everything = np.arange(len(q))
    coefficients, optimum = fit(everything)
    boot = np.array([fit(rng.choice(everything, len(q)))[1] for _ in range(draws)])
    return QuadraticLaw(coefficients, np.polyfit(z, errors, 1)[::-1], optimum, boot)


class SpaceTest(NamedTuple):
    """A population's two halves: the law fitted on one, tested on the other.

    Attributes:
        law: Fitted on half A.
        curvature: Its quadratic coefficient.
        better: Bootstrap interval, over half B, of the linear fit's minus the quadratic's squared error.
        inside: Share of bootstrap optima inside the central 80 % of sampled ratios.
        rank: Spearman's correlation of predicted and measured error in B.
        shuffled_rank: The same with ratios shuffled among networks of A, mean of 20 shuffles.
        refined: Errors of the networks of B picked by each rule, ``"all"`` for the whole half.
    """

    law: QuadraticLaw
    curvature: float
    better: tuple[float, float]
    inside: float
    rank: float
    shuffled_rank: float
    refined: dict[str, np.ndarray]


def judge_space(
    q: np.ndarray, errors: np.ndarray, widths: np.ndarray, full: Sequence[int], *, picks: int = 25, seed: int = 0
) -> SpaceTest:
    """Fit the law on a random half of a population and judge it on the other.

    Args:
        q: Ratios.
        errors: Errors.
        widths: ``[n, layers]``.
        full: Widths of the original network.
        picks: Networks that each rule may pick from B: nearest to ``q*``, the same after the ratios of B are shuffled
            among its networks, with the largest smallest share kept, with the least spread of shares.
        seed: Of halves and shuffles.

    Raises:
        ValueError: For fewer networks than twice the picks.
    """
    from netatlas.core.stats import spearman

    require(len(q) >= 2 * picks, f"at least {2 * picks} networks", len(q))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(q))
    a, b = order[: len(q) // 2], order[len(q) // 2 :]
    law = quadratic_interior_optimum(q[a], errors[a], seed=seed)
    shuffles = [quadratic_interior_optimum(rng.permutation(q[a]), errors[a], draws=1, seed=seed) for _ in range(20)]
    z = np.log(q[b])
    gain = (law.linear[0] + law.linear[1] * z - errors[b]) ** 2 - (law.predict(q[b]) - errors[b]) ** 2
    boot = [rng.choice(gain, len(gain)).mean() for _ in range(1000)]
    low, high = np.quantile(q, [0.1, 0.9])
    shares = widths[b] / np.asarray(full)

    def pick(score: np.ndarray) -> np.ndarray:
        return errors[b][np.argsort(score, kind="stable")[:picks]]

    refined = {
        "all": errors[b],
        "nearest to q*": pick(law.predict(q[b])),
        "shuffled ratios": pick(rng.permutation(law.predict(q[b]))),
        "largest smallest share": pick(-shares.min(1)),
        "least spread of shares": pick(shares.std(1)),
    }
    return SpaceTest(
        law,
        float(law.coefficients[2]),
        (float(np.quantile(boot, 0.025)), float(np.quantile(boot, 0.975))),
        float(((law.bootstrap >= low) & (law.bootstrap <= high)).mean()),
        spearman(law.predict(q[b]), errors[b]),
        float(np.mean([spearman(other.predict(q[b]), errors[b]) for other in shuffles])),
        refined,
    )
