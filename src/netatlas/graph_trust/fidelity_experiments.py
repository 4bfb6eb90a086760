"""Which measure of fidelity ranks explanations as their distance to the planted motif does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from netatlas.core.stats import spearman
from netatlas.core.train import Ensemble, fit_many
from netatlas.graph_trust.explainers import gradient_scores, mask_scores, motif_auc, occlusion_scores, top_edges
from netatlas.graph_trust.explanations import (
    DenseGIN,
    Fidelity,
    MotifGraphs,
    decoy_explanations,
    exchanged_explanations,
    explanation_edit_distance,
    fidelity,
    motif_graphs,
    perturbed_explanations,
    random_subgraphs,
    robust_fidelity,
)

SIGNS = {"plus": -1.0, "minus": 1.0, "delta": -1.0}
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8)


class Lines(NamedTuple):
    """Measures of one network along perturbations of the true explanation, means over graphs.

    Attributes:
        grid: For each kind and measure, ``[beta1, beta2]``: ``grid["robust"]["delta"]``.
        path: The same with motif edges exchanged for others, ``[edges exchanged]``.
        decoy: The same starting from edges outside of the motif.
        distance: Mean edit distance to the motif on the path from the decoy.
    """

    grid: dict[str, dict[str, np.ndarray]]
    path: dict[str, dict[str, np.ndarray]]
    decoy: dict[str, dict[str, np.ndarray]]
    distance: np.ndarray


def train_classifiers(graphs: MotifGraphs, seeds: Sequence[int], *, hidden: int = 32, epochs: int = 32) -> Ensemble:
    """Graph classifiers of several seeds, all at once.

    Args:
        graphs: Training graphs.
        seeds: One a network.
        hidden: Width.
        epochs: Passes in batches of 64.
    """
    return fit_many(lambda: DenseGIN(hidden), graphs.adjacency, graphs.label, seeds=list(seeds), epochs=epochs,
                    batch_size=64, optimizer="adam", lr=5e-3, clip_norm=1.0, schedule="cosine")  # fmt: skip


def fine_tune_on_subgraphs(
    trained: Ensemble, graphs: MotifGraphs, seeds: Sequence[int], *, epochs: int = 8
) -> Ensemble:
    """The same classifiers after more training on graphs and random parts of them, which removes the shift.

    Args:
        trained: Classifiers.
        graphs: Training graphs; each comes whole and as one random part, drawn once.
        seeds: Order of the data.
        epochs: Passes over both.
    """
    parts = random_subgraphs(graphs.adjacency, generator=torch.Generator().manual_seed(int(seeds[0])))
    # A part that has lost an edge of the motif keeps its label, as in the paper's augmentation.
    inputs, labels = torch.cat([graphs.adjacency, parts]), graphs.label.repeat(2)
    return fit_many(lambda: DenseGIN(trained.params["head.weight"].shape[2] // 2), inputs, labels, seeds=list(seeds),
                    epochs=epochs, batch_size=64, optimizer="adam", lr=2e-3, clip_norm=1.0, init=trained)  # fmt: skip


def classifier(trained: Ensemble, index: int):
    """One member as a function from adjacency to logits."""
    params = {name: value[index] for name, value in trained.params.items()}
    return lambda adjacency: functional_call(trained.module, params, (adjacency,))


def untrained_classifiers(seeds: Sequence[int], hidden: int = 32) -> Ensemble:
    """Classifiers as they are initialised.

    Args:
        seeds: One a network.
        hidden: Width.
    """
    graphs = motif_graphs(2)
    return fit_many(lambda: DenseGIN(hidden), graphs.adjacency, graphs.label, seeds=list(seeds), epochs=1,
                    batch_size=2, lr=0.0)  # fmt: skip


def _kinds(
    function, graphs: MotifGraphs, explanations: Tensor, alphas: dict[str, tuple[float, float]], samples: int, seed: int
) -> dict[str, Fidelity]:
    # The activations of more graphs at once do not fit a processor's cache.
    options = {"chunk": 256}
    found = {"classic": fidelity(function, graphs.adjacency, explanations, graphs.label, **options)}
    for name, (plus, minus) in alphas.items():
        generator = torch.Generator().manual_seed(seed)
        found[name] = robust_fidelity(function, graphs.adjacency, explanations, graphs.label, plus, minus,
                                      samples=samples, generator=generator, **options)  # fmt: skip
    return found


def measure_lines(
    function,
    graphs: MotifGraphs,
    *,
    samples: int,
    seed: int,
    alphas: dict[str, tuple[float, float]] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Lines:
    """Every measure on the grid of perturbations, on the path of equal size and on the decoy's path.

    Args:
        function: A classifier.
        graphs: Test graphs.
        samples: Random removals.
        seed: Seeds explanations and removals.
        alphas: Shares of the robust kinds.
        levels: Dropped and added shares of the grid.
    """
    alphas = {"robust": (0.1, 0.9)} if alphas is None else alphas
    generator = torch.Generator().manual_seed(seed)
    grid = torch.stack([perturbed_explanations(graphs, a, b, generator=generator) for a in levels for b in levels])
    # One order of swaps for the whole path: larger counts extend smaller ones.
    path = torch.stack([
        exchanged_explanations(graphs, graphs.motif, j, generator=torch.Generator().manual_seed(seed + 1))
        for j in range(6)
    ])  # fmt: skip
    start = decoy_explanations(graphs, generator=generator)
    decoy = torch.stack([
        exchanged_explanations(graphs, start, j, generator=torch.Generator().manual_seed(seed + 2)) for j in range(6)
    ])  # fmt: skip
    found = _kinds(function, graphs, torch.cat([grid, path, decoy]), alphas, samples, seed)
    tables = {}
    for kind, values in found.items():
        tables[kind] = {name: getattr(values, name).double().mean(-1).numpy() for name in SIGNS}
    n = len(levels) ** 2
    return Lines(
        {k: {m: v[:n].reshape(len(levels), -1) for m, v in t.items()} for k, t in tables.items()},
        {k: {m: v[n : n + 6] for m, v in t.items()} for k, t in tables.items()},
        {k: {m: v[n + 6 :] for m, v in t.items()} for k, t in tables.items()},
        explanation_edit_distance(decoy, graphs.motif).double().mean(-1).numpy(),
    )


class Ranks(NamedTuple):
    """Spearman correlations of one kind of measure with the distance from the truth, for plus, minus and delta.

    Attributes:
        beta1: With dropped edges, mean over the added share.
        beta2: With added edges, mean over the dropped share.
        total: With the sum of both over the whole grid.
        size_matched: With exchanged edges.
        decoy: With exchanged edges from the decoy.
        spread: Range of the measure on the path of equal size.
    """

    beta1: dict[str, float]
    beta2: dict[str, float]
    total: dict[str, float]
    size_matched: dict[str, float]
    decoy: dict[str, float]
    spread: dict[str, float]


def _rho(x: np.ndarray, y: np.ndarray) -> float:
    # A measure that does not move ranks nothing.
    return spearman(x, y) if len(x) > 2 and np.ptp(y) > 0 else 0.0


def ranks(lines: Lines, kind: str) -> Ranks:
    """Rank correlations of a kind of measure on every line.

    Args:
        lines: Measures.
        kind: ``"classic"`` or a robust kind.
    """
    grid, path, decoy = lines.grid[kind], lines.path[kind], lines.decoy[kind]
    levels, steps = np.arange(len(grid["plus"])), np.arange(6)
    total = (levels[:, None] + levels[None]).ravel()
    return Ranks(
        {m: float(np.mean([_rho(levels, grid[m][:, b]) for b in range(len(levels))])) for m in SIGNS},
        {m: float(np.mean([_rho(levels, grid[m][a]) for a in range(len(levels))])) for m in SIGNS},
        {m: _rho(total, grid[m].ravel()) for m in SIGNS},
        {m: _rho(steps, path[m]) for m in SIGNS},
        {m: _rho(steps, decoy[m]) for m in SIGNS},
        {m: float(np.ptp(path[m])) for m in SIGNS},
    )


def right_sign(values: dict[str, float]) -> dict[str, float]:
    """Correlations turned so that the right direction is positive."""
    return {m: SIGNS[m] * v for m, v in values.items()}


class FidelityStudy(NamedTuple):
    """Everything about one network.

    Attributes:
        accuracy: On the test graphs.
        lines: Its measures.
        ranks: Rank correlations of each kind.
    """

    accuracy: float
    lines: Lines
    ranks: dict[str, Ranks]


@torch.no_grad()
def study(
    trained: Ensemble, graphs: MotifGraphs, *, samples: int, seed: int, alphas=None, levels: Sequence[float] = LEVELS
) -> list[FidelityStudy]:
    """Measures and rank correlations of every member.

    Args:
        trained: Classifiers.
        graphs: Test graphs.
        samples: Random removals.
        seed: Seeds explanations and removals.
        alphas: Shares of the robust kinds.
        levels: Dropped and added shares of the grid; a single one leaves the grid out.
    """
    found = []
    for index in range(len(trained)):
        function = classifier(trained, index)
        lines = measure_lines(function, graphs, samples=samples, seed=seed + index, alphas=alphas, levels=levels)
        accuracy = float((function(graphs.adjacency).argmax(-1) == graphs.label).double().mean())
        found.append(FidelityStudy(accuracy, lines, {k: ranks(lines, k) for k in lines.path}))
    return found


@torch.no_grad()
def exactness(function, graphs: MotifGraphs, *, seed: int = 0) -> dict[str, float]:
    """Errors of the cases whose answer is known.

    Args:
        function: A classifier.
        graphs: Graphs.
        seed: Seeds the removals.
    """
    a, y, n = graphs.adjacency, graphs.label, graphs.adjacency.shape[-1]
    one, classic = robust_fidelity(function, a, graphs.motif, y, 1.0, 0.0), fidelity(function, a, graphs.motif, y)
    nothing = robust_fidelity(function, a, graphs.motif, y, 0.0, 1.0)
    weights = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) / n**2
    base = 0.1

    def linear(adjacency: Tensor) -> Tensor:
        p = base + (adjacency * weights).sum((-1, -2))
        return torch.stack([p, 1 - p], -1).log()

    zero = torch.zeros_like(y)
    whole = fidelity(linear, a, graphs.motif, zero)
    parts = robust_fidelity(linear, a, graphs.motif, zero, 0.1, 0.9, samples=400,
                            generator=torch.Generator().manual_seed(seed))  # fmt: skip
    relative = max(float((parts.plus.mean() / (0.1 * whole.plus.mean()) - 1).abs()),
                   float((parts.minus.mean() / (0.1 * whole.minus.mean()) - 1).abs()))  # fmt: skip
    return {
        "removing everything is the classic pair": max(float((p - q).abs().max()) for p, q in zip(one, classic)),
        "removing nothing gives zero": max(float(p.abs().max()) for p in nothing),
        "empty explanation, plus": float(
            robust_fidelity(function, a, torch.zeros_like(graphs.motif), y, samples=2).plus.abs().max()),
        "whole graph, minus": float(robust_fidelity(function, a, a > 0, y, samples=2).minus.abs().max()),
        "linear classifier, relative Monte Carlo error": relative,
    }  # fmt: skip


class ExplainerStudy(NamedTuple):
    """Explainers of trained networks against the planted motif, and what fidelity says of their explanations.

    Attributes:
        auc: Area under the ROC curve of the edges' scores, mean over graphs, ``[networks]`` by explainer.
        edits: Edges by which the best edges (as many as the motif has) differ from it.
        classic, robust: Fidelity (delta) of these edges.
        agreement: By kind of fidelity, ``[networks]``: Spearman's correlation over explainers within each graph of
            fidelity with edits, mean over graphs where both vary.
    """

    auc: dict[str, np.ndarray]
    edits: dict[str, np.ndarray]
    classic: dict[str, np.ndarray]
    robust: dict[str, np.ndarray]
    agreement: dict[str, np.ndarray]


def explainer_study(trained: Ensemble, graphs: MotifGraphs, *, samples: int, seed: int) -> ExplainerStudy:
    """Score the edges of every graph by several explainers, and judge the explanations with and without the truth.

    Args:
        trained: Classifiers.
        graphs: Test graphs.
        samples: Random removals of the robust fidelity.
        seed: Seeds masks, random scores and removals.
    """
    size = graphs.motif.triu(1).flatten(1).sum(1)
    tables: list[dict[str, list[float]]] = [{}, {}, {}, {}]
    agreement: dict[str, list[float]] = {"classic": [], "robust": []}
    for index in range(len(trained)):
        function, generator = classifier(trained, index), torch.Generator().manual_seed(seed + index)
        noise = torch.rand(graphs.adjacency.shape, generator=generator)
        scores = {
            "the motif itself": graphs.motif.float(),
            "GNNExplainer": mask_scores(trained.member(index), graphs.adjacency, graphs.label, seed=seed + index),
            "gradient": gradient_scores(function, graphs.adjacency, graphs.label),
            "one edge removed": occlusion_scores(function, graphs.adjacency, graphs.label),
            "random": noise + noise.transpose(1, 2),
        }
        chosen = torch.stack([top_edges(s, graphs.adjacency, size) for s in scores.values()])
        edits = explanation_edit_distance(chosen, graphs.motif).double()
        found = _kinds(function, graphs, chosen, {"robust": (0.1, 0.9)}, samples, seed + index)
        for row, (name, score) in enumerate(scores.items()):
            values = (motif_auc(score, graphs), edits[row], found["classic"].delta[row], found["robust"].delta[row])
            for table, value in zip(tables, values):
                table.setdefault(name, []).append(float(value.mean()))
        for kind, rows in agreement.items():
            delta = found[kind].delta.double().numpy()
            pairs = [(delta[:, g], edits[:, g].numpy()) for g in range(delta.shape[1])]
            rows.append(float(np.mean([spearman(a, b) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0])))
    return ExplainerStudy(*({k: np.array(v) for k, v in table.items()} for table in (*tables, agreement)))
