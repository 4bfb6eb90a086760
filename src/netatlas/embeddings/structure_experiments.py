"""Experiments on roles and positions: PhUSION, IRWE and orbit adjacencies, with sizes left to the caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.extmath import randomized_svd

from netatlas.core.graph import as_csr, normalized_adjacency
from netatlas.embeddings.anonymous_walks import anonymous_patterns, anonymous_walk_ids, anonymous_walk_law
from netatlas.embeddings.cooccurrence import ppmi
from netatlas.embeddings.graphlets import (
    PARTNERS,
    orbit_adjacency,
    orbit_adjacency_bruteforce,
    symmetrised,
    walk_identities,
)
from netatlas.embeddings.irwe import TrainedIRWE, WalkStatistics
from netatlas.embeddings.node2vec import node2vec
from netatlas.embeddings.phusion import characteristic_function_embedding, positional_embedding
from netatlas.embeddings.probes import LogisticProbe, kmeans_nmi
from netatlas.embeddings.proximity import PROXIMITIES, log_filter, proximity_heat, relative_proximity
from netatlas.embeddings.walks import uniform_walks


def ridge_accuracy(embedding: np.ndarray, labels: np.ndarray, *, folds: int = 3, seed: int = 0) -> float:
    """Stratified cross-validated accuracy of a ridge classifier on standardised columns, its penalty chosen inside.

    Args:
        embedding: ``[n, d]``.
        labels: classes ``[n]``.
        folds: folds.
        seed: seed of the folds.

    Source: ``zhu2021phusion`` (linear read-out of an embedding).
    """
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-3, 3, 7)))
    cuts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(embedding, labels)
    hits = [(probe.fit(embedding[a], labels[a]).predict(embedding[b]) == labels[b]).mean() for a, b in cuts]
    return float(np.mean(hits))


def proximity_table(graph: Any, *, dimension: int = 32, seed: int = 0, device: Any = "cpu") -> pd.DataFrame:
    """Community and role accuracy of both embedding functions on each of the seven proximities.

    Args:
        graph: ``Data`` with ``community`` and ``role``.
        dimension: of the SVD embedding; the characteristic function has 50.
        seed: seed of the folds.
        device: where the proximities are computed.

    Returns:
        One row a proximity and function, columns ``community`` and ``role``.

    Source: ``zhu2021phusion``, nodes' positions and roles.
    """
    rows = []
    community, role = graph.community.numpy(), graph.role.numpy()
    for name, proximity in PROXIMITIES.items():
        matrix = proximity(graph, device=device)
        found = {
            "SVD": positional_embedding(matrix, dimension),
            "CF": characteristic_function_embedding(matrix).cpu().numpy(),
        }
        for function, embedding in found.items():
            scores = (ridge_accuracy(embedding, y, seed=seed) for y in (community, role))
            rows.append((name, function, *scores))
    return pd.DataFrame(rows, columns=["proximity", "function", "community", "role"])


def degree_accuracy(graph: Any, *, seed: int = 0) -> float:
    """Role accuracy of one-hot degrees alone.

    Args:
        graph: ``Data`` with ``role``.
        seed: seed of the folds.

    Source: ``zhu2021phusion`` (control of this book).
    """
    degree = np.asarray(as_csr(graph).sum(1)).ravel().astype(int)
    return ridge_accuracy(np.eye(degree.max() + 1)[degree], graph.role.numpy(), seed=seed)


def filter_table(graph: Any, *, dimension: int = 32, seed: int = 0, device: Any = "cpu") -> pd.DataFrame:
    """Community accuracy of the SVD embedding without a filter, relative to chance, and with the log filter on that.

    Args:
        graph, dimension, seed, device: as in :func:`proximity_table`.

    Returns:
        One row a proximity, a column for each filter.

    Source: ``zhu2021phusion``, ablation of the filter.
    """
    rows = {}
    for name in ("PPMI", "PPR", "heat", "FaBP"):
        matrix = PROXIMITIES[name](graph, device=device)
        relative = relative_proximity(matrix)
        arms = {"none": matrix, "relative": relative, "log": log_filter(relative)}
        rows[name] = {
            arm: ridge_accuracy(positional_embedding(m, dimension), graph.community.numpy(), seed=seed)
            for arm, m in arms.items()
        }
    return pd.DataFrame(rows).T.rename_axis("proximity")


def automorphism_errors(graph: Any, communities: int, *, dimension: int = 32) -> pd.DataFrame:
    r"""What the rotation by one community, an automorphism, does to each proximity and its two embeddings.

    Args:
        graph: rings of houses without noise.
        communities: number of communities.
        dimension: of the SVD embedding.

    Returns:
        One row a proximity: largest :math:`|M_{\pi i, \pi j} - M_{ij}|` over the largest entry, largest change of a
        row of the characteristic function and of the SVD embedding.

    Source: ``zhu2021phusion`` (roles as orbits of automorphisms).
    """
    n = graph.num_nodes
    turn = (torch.arange(n) + n // communities) % n
    rows = {}
    for name, proximity in PROXIMITIES.items():
        matrix = proximity(graph)
        roles = characteristic_function_embedding(matrix)
        places = positional_embedding(matrix, dimension)
        rows[name] = {
            "proximity": float((matrix[turn][:, turn] - matrix).abs().max() / matrix.abs().max()),
            "CF rows": float((roles[turn] - roles).abs().max()),
            "SVD rows": float(np.abs(places[turn.numpy()] - places).max()),
        }
    return pd.DataFrame(rows).T.rename_axis("proximity")


def pattern_test(steps: int, *, walks: int, seed: int = 0) -> tuple[int, float, float]:
    """Anonymous walks on the complete graph of ``steps + 1`` nodes against their law.

    Args:
        steps: steps of a walk.
        walks: number of walks.
        seed: random seed.

    Returns:
        Patterns that occurred, chi-square p-value, and the p-value against equal frequencies (which must be rejected).

    Source: ``qin2024irwe`` (check of its sampler).
    """
    nodes = steps + 1
    drawn = uniform_walks(nx.complete_graph(nodes), walks_per_node=-(-walks // nodes), length=nodes, seed=seed)
    counts = np.bincount(anonymous_walk_ids(drawn), minlength=len(anonymous_patterns(steps)))
    law = anonymous_walk_law(steps, nodes)
    fit = stats.chisquare(counts, law * counts.sum()).pvalue
    return int((counts > 0).sum()), float(fit), float(stats.chisquare(counts).pvalue)


def _across(train: np.ndarray, labels: np.ndarray, test: np.ndarray, answers: np.ndarray) -> float:
    return float((LogisticProbe().fit(train, labels).predict(test) == answers).mean())


def inductive_arms(
    trained: TrainedIRWE, member: int, seen: Any, unseen: Any, first: WalkStatistics, second: WalkStatistics,
    *, walks: int = 32, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Every arm of one pair of graphs: roles across graphs, communities inside the unseen one.

    Args:
        trained: trained models.
        member: the one that was trained on ``seen``.
        seen, unseen: two graphs with ``role`` and ``community``.
        first, second: their statistics, degree buckets from ``seen``.
        walks: walks of each node that the encoder reads.
        seed: random seed.

    Returns:
        Scores by arm; names begin with ``role`` (accuracy across graphs), ``nmi`` (communities), or ``probe``
        (accuracy on communities of a classifier trained inside the unseen graph).

    Source: ``qin2024irwe``, inductive inference across graphs.
    """
    roles, answers = seen.role.numpy(), unseen.role.numpy()
    community = unseen.community.numpy()
    psi_seen, _ = trained.embed(member, first, walks=1)
    psi, gamma = (x.cpu().numpy() for x in trained.embed(member, second, walks=walks))
    psi_seen = psi_seen.cpu().numpy()
    refit = node2vec(unseen, p=1, q=1, dimension=32, walks_per_node=10, length=20, window=5, epochs=5,
                     learning_rate=0.05, seed=seed).input  # fmt: skip
    wave = [characteristic_function_embedding(proximity_heat(g)).numpy() for g in (seen, unseen)]
    degree = [np.asarray(as_csr(g).sum(1)).ravel().astype(int).clip(max=15) for g in (seen, unseen)]
    onehot = [np.eye(16)[d] for d in degree]
    shuffled = np.random.default_rng(seed).permutation(roles)
    visits = second.visits.cpu().numpy()
    root = np.sqrt(visits)
    theta = np.linalg.lstsq(visits, second.position.cpu().numpy(), rcond=None)[0]
    return {
        "role psi": _across(psi_seen, roles, psi, answers),
        "role shuffled": _across(psi_seen, shuffled, psi, answers),
        "role statistics": _across(first.features.cpu().numpy(), roles, second.features.cpu().numpy(), answers),
        "role CF": _across(wave[0], roles, wave[1], answers),
        "role degree": _across(onehot[0], roles, onehot[1], answers),
        "role DeepWalk": ridge_accuracy(refit, answers, seed=seed),
        "nmi gamma": kmeans_nmi(gamma, community, seed=seed),
        "nmi psi": kmeans_nmi(psi, community, seed=seed),
        "nmi DeepWalk": kmeans_nmi(refit, community, seed=seed),
        "nmi r Theta": kmeans_nmi(second.position.cpu().numpy(), community, seed=seed),
        "nmi sqrt(r) Theta": kmeans_nmi(root @ theta, community, seed=seed),
        "nmi sqrt(r)": kmeans_nmi(root, community, seed=seed),
        "probe gamma": ridge_accuracy(gamma, community, seed=seed),
        "probe r Theta": ridge_accuracy(second.position.cpu().numpy(), community, seed=seed),
    }


def counter_checks(graphs: Sequence[Any]) -> pd.DataFrame:
    """Fast counter against brute force, walk identities, and row sums, as largest integer deviations.

    Args:
        graphs: small graphs.

    Returns:
        One row a check, one column a graph.

    Source: ``windels2024graphlets``, definition and walk identities.
    """
    columns = {}
    for i, graph in enumerate(graphs):
        slow, counts = orbit_adjacency_bruteforce(graph)
        fast = orbit_adjacency(graph)
        sums = max(
            int(np.abs(np.asarray(fast[k].sum(1)).ravel() - m * counts[:, k.first]).max()) for k, m in PARTNERS.items()
        )
        columns[f"graph {i}"] = {
            "28 matrices, fast against brute force": max(int(np.abs(fast[k].toarray() - slow[k]).max()) for k in slow),
            **walk_identities(graph, fast),
            "row sums against orbit counts": sums,
        }
    return pd.DataFrame(columns)


def span_ranks(graph: Any) -> tuple[int, int, float]:
    """Rank of the 20 orbit adjacencies, rank of three powers of A, and how far the powers are outside their span.

    Args:
        graph: a small graph.

    Returns:
        The two ranks (pairs of distinct nodes only) and the largest residual of a power on the span.

    Source: ``windels2024graphlets``, what walks see.
    """
    adjacency = as_csr(graph).toarray()
    upper = np.triu_indices(len(adjacency), 1)
    orbits = np.stack([m.toarray()[upper] for m in symmetrised(orbit_adjacency(graph)).values()], axis=1).astype(float)
    powers = np.stack([np.linalg.matrix_power(adjacency, k)[upper] for k in (1, 2, 3)], axis=1)
    fit = np.linalg.lstsq(orbits, powers, rcond=None)[0]
    residual = float(np.abs(orbits @ fit - powers).max())
    return int(np.linalg.matrix_rank(orbits)), int(np.linalg.matrix_rank(powers)), residual


def pair_signatures(graph: Any, *, length: int = 7) -> tuple[int, int]:
    """Distinct values, over ordered pairs of nodes, of all walk counts up to a length and of all orbit adjacencies.

    Args:
        graph: a graph of a few dozen nodes.
        length: longest walk.

    Source: ``windels2024graphlets``; strongly regular graphs are this book's witness.
    """
    adjacency = as_csr(graph).toarray().astype(np.int64)
    off = ~np.eye(len(adjacency), dtype=bool)
    walks = np.stack([np.linalg.matrix_power(adjacency, k)[off] for k in range(1, length + 1)])
    orbits = np.stack([m.toarray()[off] for m in orbit_adjacency(graph).values()])
    return len(np.unique(walks.T, axis=0)), len(np.unique(orbits.T, axis=0))


def _halves(embedding: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> tuple[float, float]:
    """Macro-F1 on a validation half and on a test half of the nodes without a training label."""
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    order = rng.permutation(len(labels))
    size = max(round(fraction * len(labels) / len(classes)), 2)
    train = np.concatenate([order[labels[order] == c][:size] for c in classes])
    rest = order[~np.isin(order, train)]
    predicted = LogisticProbe().fit(embedding[train], labels[train]).predict(embedding[rest])
    scores = []
    for part in (slice(0, None, 2), slice(1, None, 2)):
        said, true = predicted[part, None] == classes, labels[rest][part, None] == classes
        scores.append((2 * (said & true).sum(0) / np.maximum(said.sum(0) + true.sum(0), 1)).mean())
    return float(scores[0]), float(scores[1])


def _factors(matrix: Any, dimension: int, seed: int) -> np.ndarray:
    # The spectra are flat, on which a Krylov method stalls; a fixed number of power iterations serves all arms alike.
    u, s, _ = randomized_svd(matrix, dimension, n_iter=4, random_state=seed)
    return u * np.sqrt(s)


def _walk_pmi(graph: Any, longest: int) -> Iterator[np.ndarray]:
    """NetMF's matrix for windows 1, 2, ..., each from the one before."""
    adjacency = as_csr(graph)
    degree = np.asarray(adjacency.sum(1)).ravel()
    step = normalized_adjacency(adjacency, "row")
    power, total = np.eye(len(degree)), np.zeros(adjacency.shape)
    for window in range(1, longest + 1):
        power = step @ power
        total += power
        yield np.log(np.maximum(total * (degree.sum() / window / degree), 1.0))


def orbit_arms(
    graph: Any, *, dimensions: Sequence[int] = (16, 32), longest: int = 10, fraction: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Test macro-F1 of the best orbit PMI, the best walk PMI, and both, each chosen on validation nodes.

    Both arms have 20 candidates: 20 orbit adjacencies at the first dimension, ten windows at both.

    Args:
        graph: ``Data`` with ``y``; nodes with -1 carry no label.
        dimensions: the orbit embeddings use the first; the walk embeddings both.
        longest: largest window.
        fraction: share of labelled nodes.
        seed: seed of the split.

    Returns:
        Index: arm; columns: chosen, validation, test.

    Source: ``windels2024graphlets``, node-label prediction.
    """
    y = graph.y.numpy()
    kept = np.flatnonzero(y >= 0)
    labels, narrow, most = y[kept], dimensions[0], max(dimensions)
    found: dict[str, list[tuple[str, np.ndarray]]] = {"orbit PMI": [], "walk PMI": []}
    for key, matrix in symmetrised(orbit_adjacency(graph)).items():
        empty = matrix.nnz == 0
        full = np.zeros((len(y), narrow)) if empty else _factors(ppmi(matrix), narrow, seed)
        found["orbit PMI"].append((f"{key}, d = {narrow}", full[kept]))
    for window, matrix in enumerate(_walk_pmi(graph, longest), 1):
        full = _factors(matrix, most, seed)[kept]
        found["walk PMI"] += [(f"window {window}, d = {d}", full[:, :d]) for d in dimensions]
    rows, best = {}, []
    for arm, candidates in found.items():
        scores = [_halves(e, labels, fraction, seed) if np.ptp(e) > 0 else (0.0, 0.0) for _, e in candidates]
        top = int(np.argmax([v for v, _ in scores]))
        rows[arm] = (candidates[top][0], *scores[top])
        best.append(candidates[top][1])
    rows["both"] = ("side by side", *_halves(np.concatenate(best, axis=1), labels, fraction, seed))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["chosen", "validation", "test"])


def run_arms(graphs: Sequence[Any], seeds: Sequence[int], **options: Any) -> pd.DataFrame:
    """:func:`orbit_arms` on several graphs.

    Args:
        graphs: one graph a seed.
        seeds: seeds of the splits.
        options: passed to :func:`orbit_arms`.

    Returns:
        All rows, with columns ``arm`` and ``seed``.

    Source: ``windels2024graphlets``, node-label prediction.
    """
    parts = [
        orbit_arms(g, seed=s, **options).rename_axis("arm").reset_index().assign(seed=s) for s, g in zip(seeds, graphs)
    ]
    return pd.concat(parts, ignore_index=True)
