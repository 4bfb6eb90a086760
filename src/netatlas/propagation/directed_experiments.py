"""Experiments on direction: directed models beside their undirected twins, and a selector that decides beforehand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from netatlas.core.graph import as_csr
from netatlas.core.graph_operators import directed_adjacency, reciprocity, symmetrized
from netatlas.core.message_passing import GCN, SparseOperator, gcn_operator
from netatlas.core.stats import mean_interval
from netatlas.propagation.directed import (
    DirectedGCN,
    MagNet,
    TwoHopGCN,
    cyclic_flow_graph,
    direction_operators,
    direction_score,
    magnetic_operator,
    randomly_oriented,
    shuffled_directions,
)
from netatlas.propagation.tuning import NodeTask, TunedNodes, node_task, tune_nodes

DIRECTED_GRID = ((0.01, 5e-4), (0.03, 5e-4), (0.03, 5e-3))


class DirectionRun(NamedTuple):
    """Accuracy with and without direction on one graph, one value a split.

    Attributes:
        test: Test accuracy by arm: each model, its twin, its shuffled and its tied form, and a plain GCN.
        gain: Directed model minus its own twin, the model chosen by validation accuracy.
        shuffled: Shuffled form minus twin, of the same model.
        selector: Whether the selector wanted direction, decided before the training, one value a split.
        advantage: Its statistic, likewise.
        reciprocity: Share of the graph's edges that run both ways, likewise.
    """

    test: dict[str, np.ndarray]
    gain: np.ndarray
    shuffled: np.ndarray
    selector: np.ndarray
    advantage: np.ndarray
    reciprocity: np.ndarray


def direction_run(
    task: NodeTask,
    directed: Any,
    *,
    models: list[str],
    hidden: int,
    epochs: int,
    seeds: list[int],
    shuffle: bool = True,
    tied: bool = False,
) -> DirectionRun:
    """Train every model with direction, without, and with directions drawn anew.

    Args:
        task: Features, labels and splits; its graph is the symmetrised one.
        directed: The directed adjacency on the same nodes.
        models: Out of ``"Dir-GNN"``, ``"MagNet"``, ``"two hops"``.
        hidden: Hidden width.
        epochs: Training steps.
        seeds: One a split.
        shuffle: Whether to train the shuffled arm.
        tied: Whether to train a plain GCN, and Dir-GNN with the mean of both directed operators in both places, which
            keeps their normalisation and forgets direction.

    Source: sun2024directed.
    """
    decisions = [direction_score(directed, task.y, mask, seed=s) for mask, s in zip(task.train, seeds)]
    widths = [task.x.shape[1], hidden, task.classes]

    def run(build) -> TunedNodes:
        return tune_nodes(build, task.x, task.y, task.masks, seeds=seeds, epochs=epochs, grid=DIRECTED_GRID, every=5)

    def train(model: str, graph: Any, keep: bool) -> TunedNodes:
        if model == "MagNet":
            operator = magnetic_operator(graph, 0.25 if keep else 0.0)
            return run(lambda: MagNet(widths, operator))
        pair = direction_operators(graph, directed=keep)
        kind = DirectedGCN if model == "Dir-GNN" else TwoHopGCN
        return run(lambda: kind(widths, *pair))

    matrix = as_csr(directed)
    anew = shuffled_directions(matrix, seed=seeds[0])
    arms: dict[str, TunedNodes] = {}
    for model in models:
        arms[model] = train(model, matrix, True)
        arms[f"{model}, twin"] = train(model, matrix, False)
        if shuffle:
            arms[f"{model}, shuffled"] = train(model, anew, True)
    if tied:
        step = directed_adjacency(matrix)
        mean = SparseOperator(0.5 * (step + step.T))
        arms["Dir-GNN, tied"] = run(lambda: DirectedGCN(widths, mean, mean))
        operator = gcn_operator(symmetrized(matrix))
        arms["GCN"] = run(lambda: GCN(widths, operator))
    held = torch.stack([arms[m].validation for m in models]).argmax(0)
    row = torch.arange(len(seeds))

    def pick(suffix: str) -> np.ndarray:
        return torch.stack([arms[f"{m}{suffix}"].test for m in models])[held, row].numpy()

    twin = pick(", twin")
    return DirectionRun(
        {name: arm.test.numpy() for name, arm in arms.items()},
        pick("") - twin,
        pick(", shuffled") - twin if shuffle else np.full(len(seeds), np.nan),
        np.array([d.use_direction for d in decisions]),
        np.array([d.advantage for d in decisions]),
        np.full(len(seeds), reciprocity(matrix)),
    )


def joined(runs: list[DirectionRun]) -> DirectionRun:
    """Runs on several graphs as one, a value a graph and split.

    Args:
        runs: From :func:`direction_run`, with the same arms.
    """
    return DirectionRun(
        {name: np.concatenate([r.test[name] for r in runs]) for name in runs[0].test},
        *(np.concatenate([getattr(r, field) for r in runs]) for field in DirectionRun._fields[1:]),
    )


def flow_runs(
    forward: list[float],
    *,
    classes: int,
    nodes: int,
    models: list[str],
    hidden: int,
    epochs: int,
    seeds: list[int],
    shuffle: bool = True,
) -> dict[float, DirectionRun]:
    """Cyclic-flow graphs of several strengths of direction, one graph a seed.

    Where direction means nothing, the tied arm and a plain GCN are trained too.

    Args:
        forward: Probabilities that an edge between classes points forward.
        classes: Number of classes.
        nodes: Number of nodes.
        models: As in :func:`direction_run`.
        hidden: Hidden width.
        epochs: Training steps.
        seeds: One a graph.
        shuffle: Whether to train the shuffled arm.

    Source: sun2024directed.
    """
    found = {}
    for beta in forward:
        runs = []
        for seed in seeds:
            graph = cyclic_flow_graph(classes, nodes, beta, seed=seed)
            task = node_task(graph, rank=graph.x.shape[1], seeds=[seed], shares=(0.4, 0.2))
            runs.append(
                direction_run(
                    task,
                    graph,
                    models=models,
                    hidden=hidden,
                    epochs=epochs,
                    seeds=[seed],
                    shuffle=shuffle,
                    tied=beta == 0.5 and "Dir-GNN" in models,
                )
            )
        found[beta] = joined(runs)
    return found


def oriented_control(task: NodeTask, *, models: list[str], hidden: int, epochs: int, seeds: list[int]) -> DirectionRun:
    """An undirected graph with random directions, on which a directed model must not gain.

    Args:
        task: The undirected graph with its splits.
        models: As in :func:`direction_run`.
        hidden: Hidden width.
        epochs: Training steps.
        seeds: One a split; the first draws the directions.

    Source: sun2024directed.
    """
    graph = randomly_oriented(task.graph, seed=seeds[0])
    return direction_run(task, graph, models=models, hidden=hidden, epochs=epochs, seeds=seeds, shuffle=False)


def agreement(runs: dict[Any, DirectionRun], *, bar: float = 0.03) -> tuple[float, int]:
    """Share of decided cells in which the selector agrees with the measured gain.

    A cell is decided if the 95 % interval of its gain leaves out the bar.

    Args:
        runs: Cells by name.
        bar: Gain from which direction is worth having.

    Returns:
        The share, and the number of decided cells.

    Source: sun2024directed.
    """
    right: list[bool] = []
    for run in runs.values():
        interval = mean_interval(run.gain)
        if abs(interval.mean - bar) > interval.half_width:
            right.append(bool((run.selector.mean() > 0.5) == (interval.mean > bar)))
    return (float(np.mean(right)) if right else float("nan")), len(right)
