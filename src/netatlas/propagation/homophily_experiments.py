"""Experiments on homophily: theorem against simulation, and accuracy as heterophilous edges are added."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

from netatlas.core.checks import require
from netatlas.core.message_passing import GCN, gcn_operator
from netatlas.propagation.homophily import (
    add_targeted_edges,
    aggregated_error,
    critical_degree,
    cross_class_similarity,
    cyclic_targets,
    edge_homophily,
    feature_error,
    sample_aggregated_errors,
    similarity_contrast,
)
from netatlas.propagation.tuning import GRID, NodeTask, TunedNodes, tune_nodes


def theorem_cells(
    shares: list[float], degrees: list[int], *, distance: float, nodes: int, band_nodes: int, seed: int
) -> pd.DataFrame:
    """Simulated and predicted errors for every share and degree, and for the degrees on which the formulas disagree.

    Args:
        shares: Probabilities that a neighbour has the node's class.
        degrees: Degrees for every share.
        distance: Distance of the class means.
        nodes: Nodes simulated a cell.
        band_nodes: Nodes in cells between the paper's crossing and the exact one, where differences are small.
        seed: Draws the cells.

    Source: ma2021homophily.
    """
    rows = []
    for number, share in enumerate(shares):
        low, high = critical_degree(share, distance, "paper"), critical_degree(share, distance)
        inside = [] if not np.isfinite(low) else [d for d in range(1, int(min(high, 60))) if low < d]
        for degree in sorted({*degrees, *inside}):
            band = degree in inside
            count = band_nodes if band else nodes
            own, mean = sample_aggregated_errors(
                degree, share, distance, count, seed=seed * 100_003 + number * 997 + degree
            )
            exact = aggregated_error(degree, share, distance)
            bar = feature_error(distance)
            error = np.sqrt((own * (1 - own) + mean * (1 - mean)) / count)
            rows.append(
                {
                    "share": share,
                    "degree": degree,
                    "band": band,
                    "features": own,
                    "neighbours": mean,
                    "stderr": error,
                    "paper": aggregated_error(degree, share, distance, "paper"),
                    "variance": aggregated_error(degree, share, distance, "variance"),
                    "mixture": exact,
                    "z": (mean - exact) / max(np.sqrt(exact * (1 - exact) / count), 1 / count),
                    "decided": abs(own - mean) > 3 * error,
                    "helps": mean < own,
                    "paper helps": degree > low,
                    "exact helps": exact < bar,
                }
            )
    return pd.DataFrame(rows)


def largest_of(tests: int, level: float = 0.01) -> float:
    r"""Bonferroni bound on the largest of several standardised differences, :math:`\Phi^{-1}(1 - p / 2m)`.

    Args:
        tests: Number of differences :math:`m`.
        level: Probability :math:`p` that one of them or more is beyond the bound by chance.

    Raises:
        ValueError: For no differences or a probability outside (0, 1).
    """
    require(tests >= 1, "at least one difference", tests)
    require(0 < level < 1, "a probability in (0, 1)", level)
    return float(norm.isf(level / (2 * tests)))


class TheoremEvidence(NamedTuple):
    """What the cells say.

    Attributes:
        outside: Share of decided cells outside the band with the sign that both formulas give.
        inside: Share of decided cells inside the band in which averaging helps, as the paper's condition says.
        inside_cells: Number of decided cells inside the band.
        covered: Share of cells within three standard errors of the mixture.
        asymmetry: Largest difference between shares a and 1 - a, in standard errors.
        asymmetry_bound: What the largest of so many exceeds with probability 0.01 or less if all are equal.
        fixed: Largest departure from the paper's formula with the mix of labels fixed, in standard errors.
        random: The same with random labels, in the same cells.
    """

    outside: float
    inside: float
    inside_cells: int
    covered: float
    asymmetry: float
    asymmetry_bound: float
    fixed: float
    random: float


def theorem_evidence(cells: pd.DataFrame, *, distance: float, nodes: int, seed: int) -> TheoremEvidence:
    """Judge the theorem on simulated cells, and on cells in which every node has the same mix of labels.

    Args:
        cells: From :func:`theorem_cells`.
        distance: The same distance of the means.
        nodes: Nodes simulated for the fixed mixes.
        seed: Draws them.

    Source: ma2021homophily.
    """
    out = cells[~cells.band & cells.decided & (cells["paper helps"] == cells["exact helps"])]
    inside = cells[cells.band & cells.decided]
    key = cells.set_index([cells["share"].round(9), "degree"])
    gaps = []
    for (share, degree), row in key.iterrows():
        mirror = (round(1 - share, 9), degree)
        if share < 0.5 and mirror in key.index:
            other = key.loc[mirror]
            spread = np.hypot(row.stderr, other.stderr)
            gaps.append(abs(row.neighbours - other.neighbours) / spread)
    fixed, random = [], []
    for share, degree in ((0.2, 10), (0.3, 10), (0.4, 10), (0.4, 25)):
        paper = aggregated_error(degree, share, distance, "paper")
        error = np.sqrt(paper * (1 - paper) / nodes)
        for arm, frozen in ((fixed, True), (random, False)):
            found = sample_aggregated_errors(degree, share, distance, nodes, fixed_mix=frozen, seed=seed + degree)[1]
            arm.append(abs(found - paper) / error)
    return TheoremEvidence(
        float((out.helps == out["paper helps"]).mean()),
        float(inside.helps.mean()) if len(inside) else float("nan"),
        len(inside),
        float((cells.z.abs() < 3).mean()),
        float(max(gaps)),
        largest_of(len(gaps)),
        float(max(fixed)),
        float(max(random)),
    )


class EdgeSweep(NamedTuple):
    """Accuracy as edges are added.

    Attributes:
        counts: Numbers of added edges.
        homophily: Edge homophily for each arm and count.
        accuracy: Test accuracy of each arm, ``[counts, splits]``.
        mlp: Test accuracy without the graph, ``[splits]``.
        contrast: Contrast of the neighbourhood similarity for each arm and count.
    """

    counts: list[int]
    homophily: dict[str, list[float]]
    accuracy: dict[str, np.ndarray]
    mlp: np.ndarray
    contrast: dict[str, list[float]]


ARMS: dict[str, tuple[float, str]] = {
    "targeted": (0.0, "others"),
    "random, other classes": (1.0, "others"),
    "random, all classes": (1.0, "all"),
}


def edge_sweep(
    task: NodeTask,
    counts: list[int],
    *,
    seeds: list[int],
    hidden: int,
    epochs: int,
    arms: dict[str, tuple[float, Any]] = ARMS,
    targets: np.ndarray | None = None,
) -> EdgeSweep:
    """Train a GCN after edges have been added, with targets or at random, each at its own best setting.

    Args:
        task: The graph to which edges are added.
        counts: Numbers of added edges, 0 first.
        seeds: One a split.
        hidden: Hidden width.
        epochs: Training steps.
        arms: Noise and its kind of each way to add edges.
        targets: Distributions over the classes at the far end, one row a class; by default the cyclic ones.

    Source: ma2021homophily.
    """
    targets = cyclic_targets(task.classes) if targets is None else targets
    y = task.y.numpy()

    def train(graph: Any) -> Tensor:
        operator = gcn_operator(graph)
        return run(lambda: GCN([task.x.shape[1], hidden, task.classes], operator)).test

    def run(build: Any) -> TunedNodes:
        return tune_nodes(build, task.x, task.y, task.masks, seeds=seeds, epochs=epochs, grid=GRID[1::2], every=5)

    base = train(task.graph).numpy()
    accuracy, homophily, contrast = {}, {}, {}
    for name, (noise, over) in arms.items():
        found, h, s = [], [], []
        for count in counts:
            graph: Any = task.graph
            if count:
                graph = torch.from_numpy(
                    add_targeted_edges(task.graph, y, targets, count, noise=noise, noise_over=over, seed=seeds[0])
                )
            found.append(train(graph).numpy() if count else base)
            h.append(edge_homophily(graph, y))
            s.append(similarity_contrast(cross_class_similarity(graph, y)))
        accuracy[name], homophily[name], contrast[name] = np.array(found), h, s
    mlp = run(lambda: GCN([task.x.shape[1], hidden, task.classes])).test.numpy()
    return EdgeSweep(counts, homophily, accuracy, mlp, contrast)


def neighbourhood_table(tasks: dict[str, NodeTask], *, seeds: list[int], hidden: int, epochs: int) -> pd.DataFrame:
    """Homophily, contrast of the neighbourhoods, and what a GCN gains over a network without the graph.

    Args:
        tasks: Graphs by name.
        seeds: One a split.
        hidden: Hidden width.
        epochs: Training steps.

    Source: ma2021homophily.
    """
    rows = {}
    for name, task in tasks.items():
        widths, operator = [task.x.shape[1], hidden, task.classes], gcn_operator(task.graph)
        options = {"seeds": seeds, "epochs": epochs, "grid": GRID[1::2], "every": 5}
        gcn = tune_nodes(lambda w=widths, o=operator: GCN(w, o), task.x, task.y, task.masks, **options)
        mlp = tune_nodes(lambda w=widths: GCN(w), task.x, task.y, task.masks, **options)
        y = task.y.numpy()
        rows[name] = {
            "edge homophily": edge_homophily(task.graph, y),
            "contrast": similarity_contrast(cross_class_similarity(task.graph, y)),
            "GCN": float(gcn.test.mean()),
            "MLP": float(mlp.test.mean()),
            "gain": float((gcn.test - mlp.test).mean()),
        }
    return pd.DataFrame(rows).T
