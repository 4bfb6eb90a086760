"""Does the way a network's weights move on a shifted test graph tell its error there?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats as scipy_stats
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from netatlas.core.message_passing import fit_nodes, gcn_operator
from netatlas.core.train import Params, stack_members
from netatlas.graph_trust.lebed import (
    GraphEncoder,
    Retraining,
    ShiftedGraph,
    average_thresholded_confidence,
    confidence_score,
    encoder_outputs,
    entropy_score,
    graph_shift_suite,
    retrain_on_test_graphs,
)


class Source(NamedTuple):
    """Networks trained on one part of a graph, and the part that they never saw.

    Attributes:
        trained, initial, fresh: Their weights, where they started, and another random start, ``[networks, ...]``.
        test: The unseen part.
        confidence, correct: On validation nodes of the source, ``[networks, n]``.
    """

    trained: Params
    initial: Params
    fresh: Params
    test: Data
    confidence: Tensor
    correct: Tensor


def reduced_features(x: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors times values of the centred features, scaled to unit deviation over all entries.

    Args:
        x: ``[n, F]``.
        rank: Columns kept.
    """
    centred = (x - x.mean(0)).double().numpy()
    # The Gram matrix of the features is small; its eigenvectors give the same projection as a full decomposition.
    values, vectors = np.linalg.eigh(centred.T @ centred) if centred.shape[1] <= 2000 else (None, None)
    rank = min(rank, centred.shape[1])
    top = vectors[:, np.argsort(values)[::-1][:rank]]
    top = top * np.sign(top[np.abs(top).argmax(0), np.arange(rank)])
    found = torch.from_numpy(centred @ top)
    return (found / found.std()).float()


def part_of(graph: Data, nodes: Tensor) -> Data:
    """The induced subgraph of some nodes."""
    edges, _ = subgraph(nodes, graph.edge_index, relabel_nodes=True, num_nodes=len(graph.y))
    return Data(x=graph.x[nodes], edge_index=edges, y=graph.y[nodes], num_nodes=len(nodes))


def train_source(
    graph: Data, seeds: Sequence[int], *, hidden: int = 32, embedding: int = 32, epochs: int = 100, seed: int = 0
) -> Source:
    """Train encoders on a third of a graph; a sixth is for validation, half is the test graph.

    Args:
        graph: ``x``, ``y``, ``edge_index``.
        seeds: One a network.
        hidden, embedding: Widths.
        epochs: Steps of Adam.
        seed: Seeds the split.
    """
    n, classes = len(graph.y), int(graph.y.max()) + 1
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    source, test = order[: n // 2].sort().values, order[n // 2 :].sort().values
    near = part_of(graph, source)
    train = torch.rand(len(source), generator=torch.Generator().manual_seed(seed + 1)) < 2 / 3
    operator = gcn_operator(near)
    widths = [graph.x.shape[1], hidden, embedding, classes]

    def start(key: int) -> GraphEncoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key)
            return GraphEncoder(widths, operator)

    fit = fit_nodes(lambda: GraphEncoder(widths, operator), near.x, near.y, train, ~train, seeds=list(seeds),
                    epochs=epochs, lr=0.01, weight_decay=5e-4, every=5)  # fmt: skip
    p = fit.logits[:, ~train].softmax(-1)
    return Source(
        fit.ensemble.params, stack_members([start(s) for s in seeds])[0],
        stack_members([start(s + 10_000) for s in seeds])[0], part_of(graph, test),
        p.amax(-1), p.argmax(-1) == near.y[~train],
    )  # fmt: skip


class ShiftStudy(NamedTuple):
    """Scores of every test graph under every network, each ``[graphs, networks]``.

    Attributes:
        error: True error.
        scores: Estimates by name; larger should mean a larger error.
        families: Family of each graph.
        levels: Level of each.
        path: The re-training from the networks' own start.
    """

    error: np.ndarray
    scores: dict[str, np.ndarray]
    families: list[str]
    levels: list[float]
    path: Retraining


def shift_study(
    source: Source, suite: Sequence[ShiftedGraph], *, epochs: int = 60, lr: float = 0.01, fixed: int = 10,
    reinitialised: bool = False,
) -> ShiftStudy:  # fmt: skip
    """The error on every shifted graph and what each score makes of it.

    Args:
        source: Trained networks.
        suite: Test graphs.
        epochs, lr: Of the re-training.
        fixed: The epoch of the arm without a stopping rule.
        reinitialised: Whether to re-train from a fresh start too, for as many epochs as the rule chose.
    """
    graphs = [shifted.graph for shifted in suite]
    p = encoder_outputs(graphs, source.trained).softmax(-1)
    y = torch.stack([g.y for g in graphs])[:, None]
    error = (p.argmax(-1) != y).double().mean(-1)
    path = retrain_on_test_graphs(graphs, source.trained, source.initial, epochs=epochs, lr=lr)
    scores = {
        "LeBeD": path.score,
        "stopping epoch alone": path.stop.double(),
        f"distance at epoch {fixed}": path.distance[..., fixed],
        "distance at the last epoch": path.distance[..., -1],
    }
    if reinitialised:
        last = int(path.stop.max())
        other = retrain_on_test_graphs(graphs, source.trained, source.fresh, epochs=last, lr=lr, at_least=0)
        scores["LeBeD, fresh start"] = other.distance.gather(-1, path.stop[..., None])[..., 0]
    scores |= {
        "confidence": confidence_score(p),
        "entropy": entropy_score(p),
        "ATC": average_thresholded_confidence(source.confidence, source.correct, p.amax(-1)),
    }
    return ShiftStudy(
        error.numpy(), {name: v.double().numpy() for name, v in scores.items()}, [s.family for s in suite],
        [s.level for s in suite], path,
    )  # fmt: skip


def rank_correlations(study: ShiftStudy, graphs: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Spearman's correlation of every score with the error, one a network.

    Args:
        study: Scores.
        graphs: Which graphs count; repeated ones are ties.
    """
    graphs = np.arange(len(study.error)) if graphs is None else graphs
    true = scipy_stats.rankdata(study.error[graphs], axis=0)
    found = {}
    for name, values in study.scores.items():
        rank = scipy_stats.rankdata(values[graphs], axis=0)
        a, b = rank - rank.mean(0), true - true.mean(0)
        scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
        found[name] = np.where(scale > 0, (a * b).sum(0) / np.where(scale > 0, scale, 1), 0.0)
    return found


def squared_correlations(study: ShiftStudy) -> dict[str, float]:
    """Share of the error's variance that a line in the score explains, mean over networks."""
    return {
        name: float(np.mean([np.corrcoef(v[:, m], study.error[:, m])[0, 1] ** 2 if np.ptp(v[:, m]) > 0 else 0.0
                             for m in range(v.shape[1])]))
        for name, v in study.scores.items()
    }  # fmt: skip


class Lead(NamedTuple):
    """A score's correlation minus another's, with a bootstrap over graphs within families.

    Attributes:
        value: On all graphs, mean over networks.
        p_value: Share of draws in which the lead is not positive.
    """

    value: float
    p_value: float


def lead(study: ShiftStudy, score: str, others: Sequence[str], *, draws: int = 1000, seed: int = 0) -> Lead:
    """How far a score's mean rank correlation is ahead of the best of some others.

    Args:
        study: Scores.
        score: The one in question.
        others: The others.
        draws: Bootstrap draws; a draw serves every network and score.
        seed: Seeds them.
    """

    def difference(graphs: np.ndarray | None) -> float:
        rho = {name: float(v.mean()) for name, v in rank_correlations(study, graphs).items()}
        return rho[score] - max(rho[name] for name in others)

    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(np.array(study.families) == f) for f in dict.fromkeys(study.families)]
    found = [difference(np.concatenate([rng.choice(m, len(m)) for m in members])) for _ in range(draws)]
    return Lead(difference(None), float(np.mean(np.array(found) <= 0)))


def without_each_family(study: ShiftStudy) -> dict[str, dict[str, float]]:
    """Mean rank correlations with one family of shifts left out, by that family."""
    found = {}
    for family in dict.fromkeys(study.families):
        kept = np.flatnonzero(np.array(study.families) != family)
        found[family] = {name: float(v.mean()) for name, v in rank_correlations(study, kept).items()}
    return found


def within_each_family(study: ShiftStudy) -> dict[str, dict[str, float]]:
    """Mean rank correlations inside each family of at least three graphs."""
    found: dict[str, dict[str, float]] = {}
    for family in dict.fromkeys(study.families):
        kept = np.flatnonzero(np.array(study.families) == family)
        if len(kept) >= 3:
            found[family] = {name: float(v.mean()) for name, v in rank_correlations(study, kept).items()}
    return found


def null_suite(test: Data, count: int, *, share: float = 0.7, seed: int = 0) -> list[ShiftedGraph]:
    """Unshifted random parts of a test graph: errors differ by sampling only.

    Args:
        test: The graph.
        count: How many parts.
        share: Nodes in each.
        seed: Seeds the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    size = round(share * len(test.y))
    parts = [torch.randperm(len(test.y), generator=generator)[:size].sort().values for _ in range(count)]
    return [ShiftedGraph("null", float(i), part_of(test, nodes)) for i, nodes in enumerate(parts)]


def suite_of(test: Data, *, seed: int, shifts: Any = None) -> list[ShiftedGraph]:
    """The suite of shifts of a test graph, see :func:`netatlas.graph_trust.lebed.graph_shift_suite`."""
    return graph_shift_suite(test, shifts, seed=seed)
