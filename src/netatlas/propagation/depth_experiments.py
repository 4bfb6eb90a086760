"""Experiments on depth: propagation against transformation, node-adaptive weights, and graphs with little left."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from netatlas.core.graph_operators import propagation_limit
from netatlas.core.message_passing import GCN, gcn_operator
from netatlas.propagation.depth import (
    DecoupledGCN,
    combined_features,
    node_adaptive_weights,
    propagated_features,
    smoothing_level,
)
from netatlas.propagation.tuning import NodeTask, TunedNodes, sparse_splits, tune_nodes

#: Settings of the deep arms: learning rates for every dropout.
DEEP_GRID = ((0.003, 5e-4), (0.01, 5e-4))
HEAD_GRID = ((0.03, 5e-4), (0.03, 5e-3))


def depth_arms(
    task: NodeTask,
    arms: dict[str, tuple[int, int, bool]],
    *,
    hidden: int,
    epochs: int,
    seeds: list[int],
    dropouts: tuple[float, ...] = (0.0, 0.5),
) -> dict[str, TunedNodes]:
    """Train networks of chosen depths, each at its best learning rate and dropout on validation nodes.

    Args:
        task: Graph, features, labels, splits.
        arms: Propagations, transformations and skips by name.
        hidden: Hidden width.
        epochs: Training steps.
        seeds: One a split.
        dropouts: Dropouts to choose from.

    Source: zhang2021dgmlp.
    """
    operator = gcn_operator(task.graph)
    found = {}
    for name, (steps, layers, skip) in arms.items():
        runs = []
        for dropout in dropouts:

            def build(p=steps, t=layers, s=skip, d=dropout) -> torch.nn.Module:
                return DecoupledGCN(
                    task.x.shape[1],
                    hidden,
                    task.classes,
                    operator,
                    propagations=p,
                    transformations=t,
                    skip=s,
                    dropout=d,
                )

            runs.append(
                tune_nodes(build, task.x, task.y, task.masks, seeds=seeds, epochs=epochs, grid=DEEP_GRID, every=5)
            )
        held = torch.stack([r.validation for r in runs])
        best = held.argmax(0)
        row = torch.arange(len(seeds))
        pick = {f: torch.stack([getattr(r, f) for r in runs])[best, row] for f in ("test", "train", "validation")}
        first = runs[int(best[0])]
        found[name] = TunedNodes(
            pick["test"], pick["validation"], pick["train"], first.setting, first.logits, first.fit, first.member
        )
    return found


class HeadRun(NamedTuple):
    """Linear heads on combined features.

    Attributes:
        test: Test accuracy by name, one value a split.
        validation: Likewise.
        entropy: Mean entropy of the adaptive weights over that of uniform ones.
        smoothing: Mean cosine to the limit after each step.
    """

    test: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    entropy: float
    smoothing: np.ndarray


def head_run(task: NodeTask, heads: dict[str, tuple[str, int]], *, epochs: int, seeds: list[int]) -> HeadRun:
    """Linear classifiers on propagated features, combined in several ways.

    Args:
        task: Graph, features, labels, splits.
        heads: By name, the weighting of :func:`netatlas.propagation.depth.node_adaptive_weights` and the hops.
        epochs: Training steps.
        seeds: One a split.

    Source: zhang2021dgmlp.
    """
    x = task.x.numpy().astype(float)
    test, validation = {}, {}
    for name, (kind, hops) in heads.items():
        run = _head(task, combined_features(task.graph, x, hops, kind), epochs=epochs, seeds=seeds)
        test[name], validation[name] = run.test.numpy(), run.validation.numpy()
    most = max(hops for _, hops in heads.values())
    stack, limit = propagated_features(task.graph, x, most), propagation_limit(task.graph, x, "row")
    weights = node_adaptive_weights(stack, limit)
    entropy = -(weights * np.log(weights)).sum(0).mean() / np.log(len(weights))
    return HeadRun(test, validation, float(entropy), smoothing_level(stack, propagation_limit(task.graph, x)))


def _head(task: NodeTask, values: np.ndarray, *, epochs: int, seeds: list[int]) -> TunedNodes:
    scaled = torch.from_numpy(values / np.sqrt(np.square(values).mean())).float()
    return tune_nodes(
        lambda: GCN([scaled.shape[-1], task.classes]),
        scaled,
        task.y,
        task.masks,
        seeds=seeds,
        epochs=epochs,
        grid=HEAD_GRID,
        every=5,
    )


def sparsity_gains(
    task: NodeTask, kinds: list[str], *, shallow: int, deep: int, epochs: int, seeds: list[int], per_class: int
) -> dict[str, np.ndarray]:
    """What deep propagation gains over shallow one when edges, labels or features are few, one value a draw.

    Kinds: ``full``, ``again`` (a second full graph with other seeds), ``edges`` (30 % kept), ``labels`` (5 a class),
    ``features`` (half of the nodes' features hidden).

    Args:
        task: The full graph.
        kinds: Which cases.
        shallow: Few propagations.
        deep: Many.
        epochs: Training steps.
        seeds: One a draw.
        per_class: Training nodes of each class in all cases but ``labels``.

    Source: zhang2021dgmlp.
    """
    x = task.x.numpy().astype(float)
    found = {}
    for kind in kinds:
        stacks, masks = [], []
        for seed in seeds:
            rng = np.random.default_rng([seed, 7])
            split = seed + 10_000 if kind == "again" else seed
            masks.append(sparse_splits(task.y, 5 if kind == "labels" else per_class, seeds=[split]))
            graph: Any = task.graph
            values = x
            if kind == "edges":
                upper = sp.triu(graph, 1).tocoo()
                kept = rng.random(upper.nnz) < 0.3
                half = sp.coo_array((upper.data[kept], (upper.row[kept], upper.col[kept])), upper.shape)
                graph = sp.csr_array(half + half.T)
            elif kind == "features":
                values = x * (rng.random(len(x)) < 0.5)[:, None]
            stack = propagated_features(graph, values, deep)
            stacks.append(stack[[shallow, deep]])
        joined = tuple(torch.cat([m[part] for m in masks]) for part in range(3))
        scores = []
        for place in range(2):
            each = [s[place] / np.sqrt(np.square(s[place]).mean()) for s in stacks]
            inputs = torch.from_numpy(np.stack(each)).float().repeat_interleave(len(HEAD_GRID), 0)
            run = tune_nodes(
                lambda: GCN([x.shape[1], task.classes]),
                inputs,
                task.y,
                joined,
                seeds=seeds,
                epochs=epochs,
                grid=HEAD_GRID,
                every=5,
                per_member_data=True,
            )
            scores.append(run.test.numpy())
        found[kind] = scores[1] - scores[0]
    return found
