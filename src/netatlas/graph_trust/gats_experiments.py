"""Calibrators of graph networks on the same splits, with one design removed at a time, and on planted temperatures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from netatlas.core.calibration import (
    apply_mixed_temperature,
    apply_vector_scaling,
    expected_calibration_error,
    fit_mixed_temperature,
    fit_temperature,
    fit_vector_scaling,
)
from netatlas.core.message_passing import SparseOperator, fit_nodes, gcn_operator
from netatlas.core.stats import paired
from netatlas.graph_trust.gats import (
    GATS,
    CaGCN,
    TemperatureScaling,
    distance_to_set,
    fit_calibrator,
    neighbour_edges,
)

# The decay is fixed beforehand for every trained calibrator; it moves the error as much as the method does.
WEIGHT_DECAY = 5e-3


class Splits(NamedTuple):
    """One trained GCN a split, with everything a calibrator needs.

    Attributes:
        graph: The graph.
        logits: ``[splits, n, C]``.
        train, validation, test: Masks ``[splits, n]``.
        distance: Hops to the training nodes, 0, 1 or 2 (or more).
        edges: Messages, see :func:`netatlas.graph_trust.gats.neighbour_edges`.
    """

    graph: Data
    logits: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    distance: Tensor
    edges: Tensor

    def part(self, members: slice) -> Splits:
        """Some of the splits."""
        own = (self.logits, self.train, self.validation, self.test, self.distance)
        return Splits(self.graph, *(value[members] for value in own), self.edges)


class Scores(NamedTuple):
    """A calibrator's scores on the test nodes of each split.

    Attributes:
        error: Expected calibration error, 15 bins, ``[splits]``.
        nll: Negative log-likelihood.
        brier: Brier score.
        accuracy: Accuracy.
        lowest: Lowest temperature of any node; 1 where there is none.
    """

    error: Tensor
    nll: Tensor
    brier: Tensor
    accuracy: Tensor
    lowest: float


def train_splits(
    graph: Data, seeds: list[int], *, hidden: int = 64, epochs: int = 120, labelled: float = 0.15, dropout: float = 0.5,
    normalised: bool = True,
) -> Splits:  # fmt: skip
    """A GCN on every split: two thirds of the labelled nodes train it, one third validates, the rest test.

    The defaults are those of the paper's code: each node's features sum to one, dropout acts on the hidden layer.

    Args:
        graph: ``x``, ``y``, ``edge_index``.
        seeds: One a split and network.
        hidden: Width.
        epochs: Steps of Adam.
        labelled: Share of labelled nodes.
        dropout: On the hidden layer.
        normalised: Whether the features of each node are divided by their sum.

    Source: hsu2022gats.
    """
    n, classes = len(graph.y), int(graph.y.max()) + 1
    masks = torch.zeros(3, len(seeds), n, dtype=torch.bool)
    count = round(labelled * n)
    for row, seed in enumerate(seeds):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        for part, nodes in enumerate((order[: 2 * count // 3], order[2 * count // 3 : count], order[count:])):
            masks[part, row, nodes] = True
    operator, features = gcn_operator(graph), SparseOperator(_features(graph.x, normalised))
    fit = fit_nodes(lambda: _SparseGCN(features, operator, hidden, classes, dropout), graph.x[:, :1], graph.y, masks[0],
                    masks[1], seeds=seeds, epochs=epochs, lr=0.01, weight_decay=5e-4, every=4)  # fmt: skip
    distance = torch.stack([distance_to_set(graph, mask) for mask in masks[0]])
    return Splits(graph, fit.logits, *masks, distance, neighbour_edges(graph))


def _features(x: Tensor, normalised: bool) -> sp.csr_array:
    matrix = sp.csr_array(x.double().numpy())
    if not normalised:
        return matrix
    total = np.asarray(matrix.sum(1)).ravel()
    return sp.csr_array(sp.diags_array(1 / np.where(total != 0, total, 1)) @ matrix)


class _SparseGCN(nn.Module):
    """A two-layer GCN whose fixed features are a sparse operator too: their product with the weights is sparse."""

    def __init__(self, features: SparseOperator, operator: SparseOperator, hidden: int, classes: int, dropout: float):
        super().__init__()
        self.features, self.operator, self.dropout = features, operator, dropout
        self.first = nn.Linear(features.shape[1], hidden)
        self.second = nn.Linear(hidden, classes)
        for layer in (self.first, self.second):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.operator(self.features(self.first.weight.T)) + self.first.bias)
        h = nn.functional.dropout(h, self.dropout, self.training)
        return self.operator(h @ self.second.weight.T) + self.second.bias


def score(probabilities: Tensor, splits: Splits, labels: Tensor, mask: Tensor, lowest: float = 1.0) -> Scores:
    """Scores of calibrated probabilities on some nodes of each split.

    Args:
        probabilities: ``[splits, n, C]``.
        splits: For the number of splits.
        labels: Labels, shared or one row a split.
        mask: Nodes of each split.
        lowest: Lowest temperature.
    """
    labels = labels.expand(mask.shape)
    rows = []
    for p, y, kept in zip(probabilities, labels, mask):
        p, y = p[kept], y[kept]
        confidence, guess = p.max(-1)
        right = (guess == y).to(p)
        own = p.gather(-1, y[:, None])[:, 0]
        brier = (p.square().sum(-1) - 2 * own + 1).mean()
        rows.append([expected_calibration_error(confidence.clamp(0, 1), right), -own.clamp_min(1e-12).log().mean(),
                     brier, right.mean()])  # fmt: skip
    table = torch.tensor([[float(v) for v in row] for row in rows], dtype=torch.float64).T
    return Scores(*table, lowest)


def _trained(build: Callable[[], nn.Module], splits: Splits, labels: Tensor, fit: Tensor, stop: Tensor, **options: Any):
    settings = {"steps": 400, "patience": 50, "weight_decay": WEIGHT_DECAY} | options
    return fit_calibrator(build, splits.logits, labels, fit, stop, splits.distance,
                          seeds=list(range(len(splits.logits))), **settings)  # fmt: skip


def gats_builder(splits: Splits, **switches: Any) -> Callable[[], nn.Module]:
    """Makes GATS for a graph, with some of its designs switched."""
    return partial(GATS, splits.logits.shape[-1], splits.edges, **switches)


def compare(splits: Splits, *, cagcn: bool = True, **options: Any) -> dict[str, Scores]:
    """Every calibrator on every split: fitted on validation nodes, stopped on training nodes, scored on test nodes.

    Args:
        splits: Trained networks.
        cagcn: Whether the GCN calibrator and one temperature fitted in steps are among them.
        options: Of :func:`netatlas.graph_trust.gats.fit_calibrator`.
    """
    z, y = splits.logits, splits.graph.y
    found = {"uncalibrated": score(z.softmax(-1), splits, y, splits.test)}
    ts = fit_temperature(z, y, splits.validation)
    found["TS"] = score((z / ts[:, None, None]).softmax(-1), splits, y, splits.test, float(ts.min()))
    vs = fit_vector_scaling(z, y, splits.validation, penalty=WEIGHT_DECAY)
    found["VS"] = score(apply_vector_scaling(z, vs).softmax(-1), splits, y, splits.test)
    ets = fit_mixed_temperature(z, y, splits.validation)
    found["ETS"] = score(apply_mixed_temperature(z, ets), splits, y, splits.test)
    builders = {"GATS": gats_builder(splits)}
    if cagcn:
        # One temperature by the steps and the stopping of the others: what the fitting alone does.
        network = partial(CaGCN, z.shape[-1], gcn_operator(splits.graph))
        builders = {"TS, in steps": TemperatureScaling, "CaGCN": network} | builders
    for name, build in builders.items():
        t = _trained(build, splits, y, splits.validation, splits.train, **options).temperature
        found[name] = score((z / t[..., None]).softmax(-1), splits, y, splits.test, float(t.min()))
    return found


class BaseNetwork(NamedTuple):
    """Calibrators on base networks of one kind, means over splits.

    Attributes:
        uncalibrated, one, gats, ensemble: Calibration error without, with one temperature, with GATS and with the
            ensemble of temperatures.
        one_sided: One-sided p of a paired t test that GATS has a lower error than one temperature.
        accuracy: On test nodes.
    """

    uncalibrated: float
    one: float
    gats: float
    ensemble: float
    one_sided: float
    accuracy: float


def base_network(scores: dict[str, Scores]) -> BaseNetwork:
    """The main numbers of a comparison.

    Args:
        scores: From :func:`compare`.
    """
    error = {arm: s.error for arm, s in scores.items()}
    difference = paired(error["TS"], error["GATS"])
    p = difference.p_value / 2 if difference.mean > 0 else 1 - difference.p_value / 2
    means = (float(error[arm].mean()) for arm in ("uncalibrated", "TS", "GATS", "ETS"))
    return BaseNetwork(*means, p, float(scores["GATS"].accuracy.mean()))


ABLATIONS: dict[str, dict[str, Any]] = {
    "no bias": {"bias": False},
    "unsorted logits": {"sort": False},
    "no distance factor": {"gamma": False},
    "no relative confidence": {"relative": False},
    "uniform attention": {"attention": False},
    "one head": {"heads": 1},
}


def ablate(splits: Splits, **options: Any) -> dict[str, Scores]:
    """GATS with one design removed at a time.

    Args:
        splits: Trained networks.
        options: Of :func:`netatlas.graph_trust.gats.fit_calibrator`.
    """
    z, y, found = splits.logits, splits.graph.y, {}
    for name, switches in {"GATS": {}, **ABLATIONS}.items():
        t = _trained(
            gats_builder(splits, **switches), splits, y, splits.validation, splits.train, **options
        ).temperature
        found[name] = score((z / t[..., None]).softmax(-1), splits, y, splits.test, float(t.min()))
    return found


class Factors(NamedTuple):
    """Mean of right minus confidence after temperature scaling, on test nodes, ``[splits, groups]`` each.

    Attributes:
        distance: At distance 1 and 2 or more from the training nodes.
        agreement: By the share of neighbours with the same label: below a half, a half or more, all.
        relative: By confidence relative to the neighbours: below, about equal, above.
    """

    distance: Tensor
    agreement: Tensor
    relative: Tensor


def relative_confidence(logits: Tensor, edges: Tensor) -> Tensor:
    """Own confidence minus the mean over neighbours and self, ``[splits, n]``."""
    confidence = logits.softmax(-1).amax(-1)
    count = torch.bincount(edges[0], minlength=logits.shape[1]).to(logits)
    near = torch.zeros_like(confidence).index_add(1, edges[0], confidence[:, edges[1]])
    return confidence - near / count


def factor_study(splits: Splits) -> Factors:
    """Which groups of test nodes stay under- or over-confident under one temperature.

    Args:
        splits: Trained networks.
    """
    z, y = splits.logits, splits.graph.y
    t = fit_temperature(z, y, splits.validation)
    p = (z / t[:, None, None]).softmax(-1)
    confidence, guess = p.max(-1)
    gap = (guess == y).to(z) - confidence
    i, j = splits.edges[:, splits.edges[0] != splits.edges[1]]
    degree = torch.bincount(i, minlength=len(y)).to(z)
    same = torch.zeros_like(degree).index_add(0, i, (y[i] == y[j]).to(z)) / degree.clamp_min(1)
    same = same.expand(z.shape[:2])
    dc = relative_confidence(z, splits.edges)
    groups = {
        "distance": [splits.distance == 1, splits.distance >= 2],
        "agreement": [same < 0.5, (same >= 0.5) & (same < 1), same == 1],
        "relative": [dc < -0.05, dc.abs() <= 0.05, dc > 0.05],
    }

    def mean(group: Tensor) -> Tensor:
        kept = (group & splits.test).to(z)
        return (gap * kept).sum(1) / kept.sum(1).clamp_min(1)

    return Factors(*(torch.stack([mean(g) for g in parts], 1) for parts in groups.values()))


class Planted(NamedTuple):
    """Calibrators on labels drawn with a known temperature at each node; means over splits.

    Attributes:
        correlation: Of the fitted with the true temperature, over test nodes.
        gain: Share of the oracle's gain in likelihood over one temperature that GATS reaches.
        difference: Negative log-likelihood of GATS minus that of one temperature.
        spread: Standard deviation of the fitted log temperature over test nodes.
        error: Calibration error of one temperature, GATS and the oracle.
    """

    correlation: float
    gain: float
    difference: float
    spread: float
    error: tuple[float, float, float]


def planted(splits: Splits, *, seed: int = 0, fit: int = 1200, stop: int = 500, **options: Any) -> dict[str, Planted]:
    """Labels re-drawn with planted temperatures: from relative confidence, from distance, permuted, and constant.

    Args:
        splits: Trained networks.
        seed: Seeds labels and nodes.
        fit, stop: Nodes to fit on and to stop on; the rest test.
        options: Of :func:`netatlas.graph_trust.gats.fit_calibrator`.
    """
    z, n = splits.logits, splits.logits.shape[1]
    members = len(z)
    generator = torch.Generator().manual_seed(seed)
    relative = 0.5 + nn.functional.softplus(8 * relative_confidence(z, splits.edges))
    permuted = torch.stack([row[torch.randperm(n, generator=generator)] for row in relative])
    truths = {
        "relative confidence": relative,
        "distance to training": torch.where(splits.distance <= 1, 1.0, 2.5),
        "permuted over nodes": permuted,
        "constant": torch.full_like(relative, 1.4),
    }
    order = torch.rand(members, n, generator=generator).argsort(1)
    masks = torch.zeros(3, members, n, dtype=torch.bool)
    share = (fit + stop) / n
    fit, stop = (fit, stop) if share < 0.8 else (n // 2, n // 5)
    for part, nodes in enumerate((order[:, :fit], order[:, fit : fit + stop], order[:, fit + stop :])):
        masks[part].scatter_(1, nodes, True)
    # All planted cases are members of one run.
    cases = len(truths)
    truth = torch.cat(list(truths.values()))
    wide = Splits(splits.graph, z.repeat(cases, 1, 1), *(torch.zeros(0),) * 3, splits.distance.repeat(cases, 1),
                  splits.edges)  # fmt: skip
    labels = torch.multinomial((wide.logits / truth[..., None]).softmax(-1).flatten(0, 1), 1, generator=generator)
    labels = labels.reshape(truth.shape)
    fit_on, stop_on, test = (mask.repeat(cases, 1) for mask in masks)
    gats = _trained(gats_builder(splits), wide, labels, fit_on, stop_on, **options).temperature
    one = fit_temperature(wide.logits, labels, fit_on)[:, None].expand(truth.shape)
    scores = [score((wide.logits / t[..., None]).softmax(-1), wide, labels, test) for t in (one, gats, truth)]
    found = {}
    for index, name in enumerate(truths):
        rows = slice(index * members, (index + 1) * members)
        t, true, kept = gats[rows], truth[rows], test[rows]
        nll = [float(s.nll[rows].mean()) for s in scores]
        same = name == "constant"
        pairs = [torch.corrcoef(torch.stack([a[k], b[k]]))[0, 1] for a, b, k in zip(t, true, kept)]
        found[name] = Planted(
            float("nan") if same else float(torch.stack(pairs).mean()),
            float("nan") if same else (nll[0] - nll[1]) / (nll[0] - nll[2]),
            nll[1] - nll[0],
            float(torch.stack([a[k].log().std() for a, k in zip(t, kept)]).mean()),
            tuple(float(s.error[rows].mean()) for s in scores),  # type: ignore[arg-type]
        )
    return found
