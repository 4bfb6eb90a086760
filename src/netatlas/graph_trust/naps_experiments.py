"""Prediction sets on graphs: coverage and size of global and local quantiles, on the same nodes and random numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch_geometric.data import Data

from netatlas.core.conformal import (
    adaptive_scores,
    conformal_quantile,
    exchangeable_coverage,
    label_scores,
    size_stratified_violation,
    weighted_conformal_quantile,
)
from netatlas.core.message_passing import GCN, fit_nodes, gcn_operator
from netatlas.graph_trust.naps import (
    hop_distances,
    khop_calibration_weights,
    neighbourhood_balls,
    neighbourhood_coverage_violation,
    neighbourhood_quantiles,
    random_neighbourhoods,
)

ARMS = ("APS", "NAPS uniform", "NAPS linear", "NAPS geometric", "NAPS uniform, 1 hop", "NAPS uniform, 3 hops",
        "random neighbourhoods", "APS at the coverage of NAPS", "APS at NAPS's hard region")  # fmt: skip


class Fitted(NamedTuple):
    """A trained network's probabilities on a graph, and which nodes it never saw.

    Attributes:
        probabilities: ``[n, C]``.
        free: Nodes used neither for training nor for its stopping.
        accuracy: On these.
    """

    probabilities: Tensor
    free: Tensor
    accuracy: float


class CoverageStudy(NamedTuple):
    """Means over resplits of calibration and test nodes, on eligible nodes.

    Attributes:
        rows: For each arm: coverage, in the easy and the hard region, their gap, set size, and two violations.
        eligible: Share of test nodes with enough calibration nodes near them.
        excess: Coverage of uniform NAPS minus the closed form of its neighbourhood sizes.
    """

    rows: dict[str, dict[str, float]]
    eligible: float
    excess: float


def two_region_graph(graph: Data, classes: int, easy: float, hard: float, *, features: int = 8, seed: int = 0) -> Data:
    """Features and regions for a block model whose blocks are classes within regions.

    Args:
        graph: Blocks ``y`` of ``2 * classes``; block ``b`` is class ``b % classes`` in region ``b // classes``.
        classes: Number of classes.
        easy, hard: Standard deviations of the features' noise in the two regions, around standard normal class means.
        features: Number of features.
        seed: Seeds the features.

    Returns:
        Data with ``x``, ``y`` (classes) and ``region`` (0 easy, 1 hard).
    """
    generator = torch.Generator().manual_seed(seed)
    region, y = graph.y // classes, graph.y % classes
    means = torch.randn(classes, features, generator=generator)
    noise = torch.randn(len(y), features, generator=generator)
    scale = torch.where(region == 0, easy, hard)[:, None]
    return Data(x=means[y] + scale * noise, edge_index=graph.edge_index, y=y, region=region, num_nodes=len(y))


def train_classifier(graph: Data, seed: int, *, hidden: int = 32, epochs: int = 100) -> Fitted:
    """A two-layer GCN on a random fifth of the nodes, stopped on a tenth.

    Args:
        graph: ``x``, ``y`` and ``edge_index``.
        seed: Seeds split and network.
        hidden: Width.
        epochs: Steps of Adam.
    """
    n, classes = len(graph.y), int(graph.y.max()) + 1
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    train, stop = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    train[order[: n // 5]], stop[order[n // 5 : 3 * n // 10]] = True, True
    operator = gcn_operator(graph)
    fit = fit_nodes(
        lambda: GCN([graph.x.shape[1], hidden, classes], operator, dropout=0.5), graph.x, graph.y, train, stop,
        seeds=[seed], epochs=epochs, lr=0.01, weight_decay=5e-4, every=5,
    )  # fmt: skip
    free = ~(train | stop)
    return Fitted(fit.logits[0].double().softmax(-1), free, float(fit.accuracy(graph.y, free)[0]))


def coverage_study(
    graph: Any, fitted: Fitted, labels: Tensor, region: Tensor, *, seed: int, resplits: int = 20, alpha: float = 0.1
) -> CoverageStudy:
    """Every arm's coverage and size over random halves of the free nodes.

    All arms share nodes, scores and the numbers that randomise these. Eligible are test nodes with at least
    ``(1 - alpha) / alpha`` calibration nodes within two hops.

    Args:
        graph: The graph.
        fitted: Probabilities.
        labels: Classes.
        region: 0 or 1 for each node.
        seed: Seeds splits and random numbers.
        resplits: Random halves.
        alpha: Allowed share of misses.
    """
    free = torch.nonzero(fitted.free)[:, 0].numpy()
    rng = np.random.default_rng(seed)
    weights = {hops: khop_calibration_weights(hop_distances(graph, hops)) for hops in (1, 3)}
    distances = hop_distances(graph, 2)
    weights |= {decay: khop_calibration_weights(distances, decay) for decay in ("uniform", "linear", "geometric")}
    named = {"NAPS uniform": "uniform", "NAPS linear": "linear", "NAPS geometric": "geometric",
             "NAPS uniform, 1 hop": 1, "NAPS uniform, 3 hops": 3}  # fmt: skip
    n = len(labels)
    hits = {arm: torch.full((resplits, n), torch.nan, dtype=torch.float64) for arm in ARMS}
    sizes = {arm: torch.full((resplits, n), torch.nan, dtype=torch.float64) for arm in ARMS}
    eligible, excess, tested = [], [], 0
    for split in range(resplits):
        order = rng.permutation(free)
        calibration, test = np.sort(order[: len(free) // 2]), np.sort(order[len(free) // 2 :])
        mask = torch.zeros(n, dtype=torch.bool)
        mask[calibration] = True
        scores = adaptive_scores(fitted.probabilities, torch.from_numpy(rng.random(n)))
        own = label_scores(scores, labels)
        near = weights["uniform"][:, calibration]
        count = np.diff(near.indptr)[test]
        kept = test[count >= (1 - alpha) / alpha - 1e-9]
        tested += len(test)
        eligible.append(len(kept))
        bounds = {"APS": conformal_quantile(own[mask], alpha).expand(n)}
        for arm, key in named.items():
            bounds[arm] = neighbourhood_quantiles(own, weights[key], mask, alpha)
        random = random_neighbourhoods(near, np.arange(len(calibration)), int(rng.integers(2**31)))
        bounds["random neighbourhoods"] = weighted_conformal_quantile(own[mask], random, alpha)
        naps = own <= bounds["NAPS uniform"]
        bounds["APS at the coverage of NAPS"] = _quantile_for(own[kept], naps[kept]).expand(n)
        hard = kept[(region[kept] == 1).numpy()]
        hard = hard if len(hard) else kept
        bounds["APS at NAPS's hard region"] = _quantile_for(own[hard], naps[hard]).expand(n)
        for arm, bound in bounds.items():
            hits[arm][split, kept] = (own <= bound)[kept].double()
            sizes[arm][split, kept] = (scores <= bound[:, None]).sum(1).double()[kept]
        closed = exchangeable_coverage(count[count >= (1 - alpha) / alpha - 1e-9], alpha)
        excess.append(float(naps[kept].double().mean()) - closed.mean())
    balls = neighbourhood_balls(graph, free, seed=seed)
    rows = {arm: _row(hits[arm], sizes[arm], region, balls, alpha) for arm in ARMS}
    return CoverageStudy(rows, sum(eligible) / tested, float(np.mean(excess)))


def _quantile_for(scores: Tensor, covered: Tensor) -> Tensor:
    """The bound that covers as many of these scores as were covered."""
    count = int(covered.sum())
    return scores.sort().values[max(count - 1, 0)] if count else scores.new_tensor(-1.0)


def _row(hits: Tensor, sizes: Tensor, region: Tensor, balls: list[np.ndarray], alpha: float) -> dict[str, float]:
    known = ~hits.isnan()
    shares = [float(hits[:, region == side][known[:, region == side]].mean()) if bool(known[:, region == side].any())
              else float("nan") for side in (0, 1)]  # fmt: skip
    return {
        "coverage": float(hits[known].mean()),
        "easy region": shares[0],
        "hard region": shares[1],
        "gap": abs(shares[0] - shares[1]),
        "set size": float(sizes[known].mean()),
        "SSCV": size_stratified_violation(sizes[known].long(), hits[known] > 0, alpha),
        "NCCV, pooled": neighbourhood_coverage_violation(hits.nanmean(0), balls, alpha),
    }


class Exactness(NamedTuple):
    """Prediction sets where the answer is known.

    Attributes:
        same: Largest difference of the quantile with equal weights over all nodes from the plain one.
        deviation: Coverage minus the closed form, in standard errors, for each size of neighbourhood.
        coverage: That coverage.
        closed: The closed form.
    """

    same: float
    deviation: dict[int, float]
    coverage: dict[int, float]
    closed: dict[int, float]


def exactness(seed: int, *, sizes: tuple[int, ...] = (9, 10, 18, 19), draws: int = 20_000) -> Exactness:
    """Coverage of local quantiles under exchangeable scores, against the closed form.

    Args:
        seed: Seeds the scores.
        sizes: Calibration neighbours.
        draws: Test points, each with neighbours of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(500, generator=generator, dtype=torch.float64)
    local = weighted_conformal_quantile(scores, np.ones((3, 500)))
    same = float((local - conformal_quantile(scores)).abs().max())
    covered, closed, deviation = {}, {}, {}
    for m in sizes:
        around = torch.rand(draws * m, generator=generator, dtype=torch.float64)
        pointers, columns = np.arange(draws + 1) * m, np.arange(draws * m)
        weights = sp.csr_array((np.ones(draws * m), columns, pointers), (draws, draws * m))
        bound = weighted_conformal_quantile(around, weights)
        covered[m] = float((torch.rand(draws, generator=generator, dtype=torch.float64) <= bound).double().mean())
        closed[m] = float(exchangeable_coverage(m))
        deviation[m] = (covered[m] - closed[m]) / (closed[m] * (1 - closed[m]) / draws) ** 0.5
    return Exactness(same, deviation, covered, closed)
