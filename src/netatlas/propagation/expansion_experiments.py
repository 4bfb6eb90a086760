"""Experiments on feature expansion: weights for each subspace, structural columns, and how the subspaces align."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from netatlas.core.message_passing import GCN, gcn_operator
from netatlas.propagation.feature_expansion import (
    FeatureExpansion,
    expanded_features,
    polynomial_basis,
    principal_angles,
    propagated_noise,
    rank_growth,
    structural_components,
    unit_columns,
)
from netatlas.propagation.tuning import NodeTask, TunedNodes, tune_nodes

EXPANSION_GRID = ((0.01, 5e-4), (0.03, 5e-4), (0.01, 5e-3), (0.03, 5e-3))


def expansion_arms(
    task: NodeTask, arms: list[str], *, order: int, rank: int, hidden: int, epochs: int, seeds: list[int]
) -> dict[str, Tensor]:
    """Test accuracy of each arm on one graph, every arm tuned over the same settings.

    Arms: ``shared``, ``flat``, ``shared + S``, ``flat + S``, ``S only``, ``shared, wide`` (as many parameters as
    ``flat``), ``flat + noise``, ``flat + propagated noise`` and ``GCN``.

    Args:
        task: Graph, features, labels and splits.
        arms: Names of the arms.
        order: Highest power.
        rank: Structural columns, and noise columns of the controls.
        hidden: Hidden width.
        epochs: Training steps.
        seeds: One a split.

    Source: sun2023fegnn.
    """
    basis = polynomial_basis(task.graph, task.x.numpy(), order)
    blocks, features, classes = order + 1, task.x.shape[1], task.classes
    extras = {
        "S": lambda: structural_components(task.graph, rank),
        "noise": lambda: propagated_noise(task.graph, rank, power=0, seed=seeds[0]),
        "propagated noise": lambda: propagated_noise(task.graph, rank, power=3, seed=seeds[0]),
    }
    wide = hidden * (blocks * features + classes) // (features + classes)
    found = {}
    for arm in arms:
        if arm == "GCN":
            operator = gcn_operator(task.graph)
            found[arm] = _run(
                lambda op=operator: GCN([features, hidden, classes], op), task.x, task, epochs=epochs, seeds=seeds
            ).test
            continue
        head, _, extra = arm.partition(" + ")
        extra = "S" if arm == "S only" else extra
        structure = extras[extra]() if extra else None
        used = None if arm == "S only" else basis
        shape = (0 if used is None else blocks, features, 0 if structure is None else rank)
        width = wide if arm == "shared, wide" else hidden
        inputs = expanded_features(used, structure)
        found[arm] = _run(
            lambda s=shape, w=width, h=head: FeatureExpansion(*s, w, classes, shared=h.startswith("shared")),
            inputs,
            task,
            epochs=epochs,
            seeds=seeds,
        ).test
    return found


def _run(build, x: Tensor, task: NodeTask, *, epochs: int, seeds: list[int]) -> TunedNodes:
    return tune_nodes(build, x, task.y, task.masks, seeds=seeds, epochs=epochs, grid=EXPANSION_GRID, every=5)


class SubspaceGrowth(NamedTuple):
    """How much each further subspace adds.

    Attributes:
        increments: Growth of the effective rank with each power, ``[K]``.
        random: The same for independent random subspaces.
        angles: Smallest principal angle between each subspace and the next, in radians, ``[K]``.
    """

    increments: np.ndarray
    random: np.ndarray
    angles: np.ndarray


def subspace_growth(task: NodeTask, order: int, *, seed: int) -> SubspaceGrowth:
    """Effective ranks and angles of the subspaces of growing powers, beside independent random ones.

    Args:
        task: Graph and features.
        order: Highest power.
        seed: Draws the random subspaces.

    Source: sun2023fegnn.
    """
    basis = polynomial_basis(task.graph, task.x.numpy(), order)
    noise = unit_columns(np.random.default_rng(seed).standard_normal(basis.shape))
    angles = np.array([principal_angles(a, b).mean() for a, b in zip(basis, basis[1:])])
    return SubspaceGrowth(np.diff(rank_growth(basis)), np.diff(rank_growth(noise)), angles)


def structure_only(graphs: list, *, features: int, seeds: list[int]) -> list[NodeTask]:
    """Block models whose features are noise, as tasks: only the structure knows the labels.

    Args:
        graphs: PyG ``Data`` with labels, one a seed.
        features: Noise features.
        seeds: One a graph; draws features and split.

    Source: sun2023fegnn (our case for its third argument).
    """
    from netatlas.propagation.tuning import node_task

    tasks = []
    for data, seed in zip(graphs, seeds):
        generator = torch.Generator().manual_seed(seed)
        data.x = torch.randn(data.num_nodes, features, generator=generator)
        tasks.append(node_task(data, rank=features, seeds=[seed]))
    return tasks
