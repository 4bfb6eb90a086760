"""The chapter's experiments: what is fitted, tuned and scored, with sizes left to the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from netatlas.core.graph import as_csr
from netatlas.core.stats import mean_interval
from netatlas.core.tune import Search, grid_search
from netatlas.embeddings.cooccurrence import cooccurrence, netmf, ppmi, truncated_svd_embedding
from netatlas.embeddings.fastrp import fastrp, hop_operator, similarity_svd, very_sparse_projection
from netatlas.embeddings.musae import (
    attributed_embedding,
    empirical_pmi,
    fit_nodes,
    musae,
    node_feature_counts,
    node_feature_pmi,
    pmi_factors,
)
from netatlas.embeddings.node2vec import (
    edge_features,
    link_split,
    node2vec,
    second_order_counts,
    second_order_law,
    transition_test,
)
from netatlas.embeddings.ppr import (
    Schedule,
    big_moves,
    endpoint_frequencies,
    expected_l1,
    expected_l2,
    ppr_exact,
    ppr_power,
    run_workers,
    walk_endpoints,
    walk_lengths,
)
from netatlas.embeddings.probes import LogisticProbe, macro_f1, node_probe
from netatlas.embeddings.sgns import skip_gram, skip_gram_features
from netatlas.embeddings.walks import node2vec_walks, stationary_starts, uniform_walks, walk_graph

Setting = Mapping[str, Any]


def exact_checks(*, seed: int = 0) -> pd.DataFrame:
    """The shared kernels against closed forms on Zachary's karate club.

    Args:
        seed: random seed.

    Returns:
        Index: what is checked; columns: deviation, what kind of deviation it is, and the bound that it must meet.

    Source: ``grover2016node2vec``, ``chen2019fastrp``, ``lin2019fullppr``.
    """
    graph = nx.to_scipy_sparse_array(nx.karate_club_graph(), weight=None, dtype=float)
    n = graph.shape[0]
    walks = uniform_walks(graph, starts=stationary_starts(graph, 60_000, seed=seed), length=20, seed=seed)
    counts = cooccurrence(walks, n, 3, weighting="flat")
    often = counts.toarray() > 2000
    form = netmf(graph, window=3)
    fit = skip_gram(
        walks[:4000], n, dimension=32, window=3, dynamic_window=False, negatives=1, epochs=5, learning_rate=0.1,
        ns_exponent=1.0, seed=seed,
    )  # fmt: skip
    product = fit.input.astype(float) @ fit.output.astype(float).T
    kept = often & (form > 0)
    weights, beta = (0, 0, 1, 1), -0.5
    dense = hop_operator(graph, weights=weights, beta=beta) @ np.eye(n)
    projected = fastrp(graph, dimension=16, weights=weights, beta=beta, standardize=False, seed=seed)
    target = dense @ very_sparse_projection(n, 16, seed=seed)
    exact = ppr_exact(graph)
    ends = endpoint_frequencies(walk_endpoints(graph, walks=2000, seed=seed), n)
    ratio = float(np.sqrt(((ends - exact) ** 2).sum(axis=1).mean()) / expected_l2(exact, 2000))
    rows = {
        "counted PMI of walks, closed form": (np.abs(ppmi(counts).toarray() - form)[kept].max(), "largest", 0.1),
        "skip-gram inner products, closed form": (1 - np.corrcoef(product[kept], form[kept])[0, 1], "1 - r", 0.1),
        "projected powers, dense product": (np.abs(projected - target).max() / np.abs(target).max(), "relative", 1e-5),
        "PageRank by series, by a solve": (np.abs(ppr_power(graph, tolerance=1e-12) - exact).max(), "largest", 1e-11),
        "error of stopping walks, predicted": (abs(ratio - 1), "relative", 0.15),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["deviation", "kind", "bound"]).astype(
        {"deviation": float, "bound": float}
    )


def check_transitions(graph, settings: Sequence[tuple[float, float]], *, steps: int, seed: int = 0) -> pd.DataFrame:
    """Chi-square of counted next steps against the law of (p, q), and against the law with p and 1/p exchanged.

    Args:
        graph: the graph to walk on.
        settings: pairs (p, q).
        steps: walk steps to count, at least.
        seed: random seed.

    Returns:
        One row a pair: p, q, statistic, degrees of freedom, p-value, and the p-value of the exchanged law.

    Source: ``grover2016node2vec``, the search bias.
    """
    walker, rows = walk_graph(graph), []
    for p, q in settings:
        count = -(-steps // (78 * walker.num_nodes))
        walks = node2vec_walks(walker, p=p, q=q, walks_per_node=count, length=80, seed=seed)
        counts = second_order_counts(walker, walks)
        own = transition_test(counts, second_order_law(walker, p=p, q=q))
        swapped = transition_test(counts, second_order_law(walker, p=1 / p, q=q))
        rows.append((p, q, own.statistic, own.df, own.p_value, swapped.p_value))
    return pd.DataFrame(rows, columns=["p", "q", "chi-square", "degrees of freedom", "p-value", "p-value, 1/p for p"])


def _halves(embedding, labels, fraction, splits, seed) -> tuple[float, float]:
    """Macro-F1 on a validation half and on a test half of the nodes that carry no training label."""
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    size = max(round(fraction * len(labels) / len(classes)), 1)
    scores = []
    for _ in range(splits):
        order = rng.permutation(len(labels))
        train = np.concatenate([order[labels[order] == c][:size] for c in classes])
        rest = order[~np.isin(order, train)]
        predicted = LogisticProbe().fit(embedding[train], labels[train]).predict(embedding[rest])
        hit, said = labels[rest, None] == classes, predicted[:, None] == classes
        half = len(rest) // 2
        scores.append((macro_f1(hit[:half], said[:half]), macro_f1(hit[half:], said[half:])))
    return tuple(np.mean(scores, axis=0))


def task_dependence(
    graph,
    labels: Mapping[str, np.ndarray],
    fractions: Mapping[str, float],
    settings: Mapping[str, Setting],
    *,
    dimension: int = 20,
    walks_per_node: int = 5,
    length: int = 20,
    epochs: int = 5,
    learning_rate: float = 0.05,
    splits: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Macro-F1 of every walk setting on every label set, by skip-gram and by PPMI-SVD on the same walks.

    Args:
        graph: one graph.
        labels: label sets of that graph, by name.
        fractions: share of labelled nodes for each label set.
        settings: name to ``{"p": ..., "q": ..., "window": ...}``.
        dimension, walks_per_node, length, epochs, learning_rate: of walks and learner.
        splits: random splits; unlabelled nodes are halved into validation and test.
        seed: seed of walks, learner and splits.

    Returns:
        Columns: learner, setting, labels, validation, test, shuffled (test score after a permutation of
        the labels), pairs (distinct pairs of nodes that share a window).

    Source: ``grover2016node2vec``, multi-label classification.
    """
    walker, rows, walked = walk_graph(graph), [], {}
    permuted = {name: np.random.default_rng(seed).permutation(y) for name, y in labels.items()}
    for setting, s in settings.items():
        bias = (s["p"], s["q"])
        if bias not in walked:
            walked[bias] = node2vec_walks(
                walker, p=bias[0], q=bias[1], walks_per_node=walks_per_node, length=length, seed=seed
            )
        fit = skip_gram(
            walked[bias], walker.num_nodes, dimension=dimension, window=s["window"], epochs=epochs,
            learning_rate=learning_rate, seed=seed,
        ).input  # fmt: skip
        counts = cooccurrence(walked[bias], walker.num_nodes, s["window"])
        factors = truncated_svd_embedding(ppmi(counts), dimension, seed=seed)
        for learner, embedding in (("skip-gram", fit), ("PPMI-SVD", factors)):
            for name, y in labels.items():
                validation, test = _halves(embedding, y, fractions[name], splits, seed)
                _, null = _halves(embedding, permuted[name], fractions[name], splits, seed)
                rows.append((learner, setting, name, validation, test, null, counts.nnz // 2))
    return pd.DataFrame(rows, columns=["learner", "setting", "labels", "validation", "test", "shuffled", "pairs"])


def chosen_on_validation(scores: pd.DataFrame, settings: Sequence[str]) -> pd.Series:
    """Test score of the setting with the best validation score, for every group of (seed, learner, labels).

    Args:
        scores: tables of :func:`task_dependence` with a column ``seed``.
        settings: the settings to choose from.

    Source: ``grover2016node2vec``, multi-label classification (p and q tuned on a share of the labels).
    """
    kept = scores[scores.setting.isin(settings)]
    best = kept.loc[kept.groupby(["seed", "learner", "labels"]).validation.idxmax()]
    return best.set_index(["learner", "labels", "seed"]).test.sort_index()


def link_prediction(
    graph,
    *,
    fraction: float = 0.3,
    operators: Sequence[str] = ("average", "hadamard", "l1", "l2"),
    seed: int = 0,
    **fit,
) -> dict[str, float]:
    """Area under the ROC curve of hidden edges against non-edges, one value for every edge operator.

    Half of the hidden pairs train the probe and half test it.

    Args:
        graph: undirected.
        fraction: share of the edges to hide.
        operators: names that ``edge_features`` takes.
        seed: random seed.
        fit: passed to ``node2vec``.

    Source: ``grover2016node2vec``, link prediction.
    """
    split = link_split(graph, fraction, seed=seed)
    embedding = node2vec(split.train, seed=seed, **fit).input
    order = np.random.default_rng(seed).permutation(len(split.labels))
    train, test = order[::2], order[1::2]
    scores = {}
    for operator in operators:
        features = edge_features(embedding, split.pairs, operator)
        probe = LogisticProbe().fit(features[train], split.labels[train])
        scores[operator] = float(roc_auc_score(split.labels[test], probe.decision_function(features[test])[:, 1]))
    return scores


def fastrp_bias(graph, *, weights: Sequence[float], beta: float, dimension: int, draws: int, seed: int = 0) -> float:
    r"""Largest standardised deviation of the mean of :math:`N N^\top / d` over projections from :math:`M M^\top`.

    Args:
        graph, weights, beta: the similarity matrix M.
        dimension: columns d of a projection.
        draws: number of projections.
        seed: seed of the first.

    Source: ``chen2019fastrp``, the projection.
    """
    matrix = hop_operator(graph, weights=weights, beta=beta) @ np.eye(as_csr(graph).shape[0])
    n = len(matrix)
    total, squares = np.zeros((n, n)), np.zeros((n, n))
    for i in range(draws):
        image = matrix @ very_sparse_projection(n, dimension, seed=seed + i).toarray()
        gram = image @ image.T / dimension
        total += gram
        squares += gram * gram
    mean = total / draws
    spread = np.sqrt((squares / draws - mean**2) / draws)
    return float(np.abs((mean - matrix @ matrix.T) / spread).max())


def _walk_embedding(graph, dimension, walks_per_node, length, window, rate, seed):
    walker = walk_graph(graph)
    walks = uniform_walks(walker, walks_per_node=walks_per_node, length=length, seed=seed)
    return skip_gram(
        walks, walker.num_nodes, dimension=dimension, window=window, learning_rate=rate, seed=seed
    ).input  # fmt: skip


def tune_fastrp(graph, labels: np.ndarray, *, dimension: int, fraction: float, seed: int = 0) -> Search:
    """The better of six settings of FastRP (three degree exponents, with and without a fourth power) on one graph.

    Args:
        graph, labels: a graph that is not used again.
        dimension: of the embedding.
        fraction: share of labelled nodes.
        seed: random seed.

    Source: ``chen2019fastrp``, the comparison of methods.
    """

    def score(setting):
        embedding = fastrp(
            graph, dimension=dimension, weights=(0, 0, 1, setting["alpha"]), beta=setting["beta"], seed=seed
        )
        return node_probe(embedding, labels, train_fraction=fraction, splits=2, seed=seed).mean()

    return grid_search(score, {"beta": [-1.0, -0.5, 0.0], "alpha": [0.0, 1.0]})


def tune_deepwalk(
    graph, labels: np.ndarray, *, dimension: int, fraction: float, walks_per_node: int, length: int, seed: int = 0
) -> Search:
    """The better of six settings of DeepWalk (three windows, two rates) on one graph, FastRP's budget.

    Args:
        graph, labels, dimension, fraction, seed: as in :func:`tune_fastrp`.
        walks_per_node, length: of the walks.

    Source: ``chen2019fastrp``, the comparison of methods (baseline).
    """

    def score(setting):
        embedding = _walk_embedding(
            graph, dimension, walks_per_node, length, setting["window"], setting["rate"], seed
        )  # fmt: skip
        return node_probe(embedding, labels, train_fraction=fraction, splits=2, seed=seed).mean()

    return grid_search(score, {"window": [3, 5, 10], "rate": [0.025, 0.05]})


def fastrp_arms(
    graph,
    labels: np.ndarray,
    *,
    projection: Setting,
    walking: Setting,
    dimension: int,
    fraction: float,
    walks_per_node: int,
    length: int,
    splits: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Every arm of the FastRP comparison on one graph: score, score after a permutation of the labels, seconds of the
    fit.

    Args:
        graph, labels: the graph to embed.
        projection, walking: settings chosen by :func:`tune_fastrp` and :func:`tune_deepwalk`.
        dimension, fraction, walks_per_node, length: as there.
        splits: random splits of the probe.
        seed: random seed.

    Returns:
        Index: arm; columns: macro-F1, shuffled, seconds.

    Source: ``chen2019fastrp``, the comparison of methods.
    """
    weights, beta = (0.0, 0.0, 1.0, projection["alpha"]), projection["beta"]
    other = 0.0 if beta < 0 else -0.5
    size = {"dimension": dimension, "seed": seed}
    adjacency = as_csr(graph)
    arms = {
        "FastRP": lambda: fastrp(adjacency, weights=weights, beta=beta, **size),
        "same matrix, SVD": lambda: similarity_svd(adjacency, weights=weights, beta=beta, **size),
        f"FastRP, beta = {other:g}": lambda: fastrp(adjacency, weights=weights, beta=other, **size),
        "FastRP, one hop": lambda: fastrp(adjacency, weights=(1.0,), beta=beta, **size),
        "one hop, SVD": lambda: similarity_svd(adjacency, weights=(1.0,), beta=beta, **size),
        "DeepWalk": lambda: _walk_embedding(
            adjacency, dimension, walks_per_node, length, walking["window"], walking["rate"], seed
        ),
    }
    mixed = np.random.default_rng(seed).permutation(labels)
    rows = {}
    for name, fit in arms.items():
        clock = perf_counter()
        embedding = fit()
        seconds = perf_counter() - clock
        score = node_probe(embedding, labels, train_fraction=fraction, splits=splits, seed=seed).mean()
        null = node_probe(embedding, mixed, train_fraction=fraction, splits=1, seed=seed).mean()
        rows[name] = (score, null, seconds)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["macro-F1", "shuffled", "seconds"])


def pmi_agreement(
    graph, features, *, steps: int, learner_steps: int, scales: Sequence[int] = (1, 2, 3), dimension: int = 32,
    epochs: int = 3, length: int = 80, least: float = 20.0, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Correlation of counted and of learned node-feature scores with the closed form, over well-visited entries.

    Args:
        graph, features: an undirected graph and its binary features.
        steps: walk steps counted, from degree-proportional starts.
        learner_steps: walk steps the learner sees.
        scales: distances.
        dimension, epochs: of the learner.
        length: of a walk.
        least: entries with a smaller expected count are left out.
        seed: random seed.

    Returns:
        One row a scale: correlation of the counted PMI, of the counted PMI at the next scale with this closed form,
        of the learned inner products with a rate that decays to zero, and with the usual final rate.

    Source: ``rozemberczki2019musae``, the factorisation theorems.
    """
    walker = walk_graph(graph)
    starts = stationary_starts(walker, -(-steps // length), seed=seed)
    walks = uniform_walks(walker, starts=starts, length=length, seed=seed)
    few = walks[: -(-learner_steps // length)]
    share = walker.strength / walker.strength.sum()
    mass = share @ np.asarray(features, dtype=float)

    def agree(measured, form, pairs):
        expected = np.exp(form) * np.outer(share, mass / mass.sum()) * pairs
        kept = (expected > least) & np.isfinite(measured)
        return float(np.corrcoef(measured[kept], form[kept])[0, 1])

    rows = []
    counts = {r: node_feature_counts(walks, features, r) for r in (*scales, max(scales) + 1)}
    for r in scales:
        form = node_feature_pmi(graph, features, (r,))
        learned = []
        # The theorem speaks of the optimum, which the usual final rate does not reach; both are shown.
        for last_rate in ({"min_learning_rate": 1e-4}, {}):
            fit = skip_gram_features(
                few, features, scales=(r,), dimension=dimension, epochs=epochs, ns_exponent=1.0, seed=seed, **last_rate
            )
            product = fit.input.astype(float) @ fit.output.astype(float).T
            learned.append(agree(product, form, fit.pairs / epochs))
        counted = [agree(empirical_pmi(counts[k]), form, counts[k].sum()) for k in (r, r + 1)]
        rows.append((r, *counted, *learned))
    columns = ["distance", "counted PMI", "counted at distance + 1", "skip-gram", "skip-gram, usual final rate"]
    return pd.DataFrame(rows, columns=columns).set_index("distance")


def scales_apart(
    graph, features, labels: np.ndarray, *, dimension: int, walks_per_node: int, length: int, epochs: int,
    fraction: float = 0.1, splits: int = 4, scales: tuple[int, ...] = (1, 2), seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Accuracy with distances apart (MUSAE) and pooled (AE), for the learner and for the closed form's factors.

    Args:
        graph, features: an undirected graph and its binary features.
        labels: classes, negative where a node has none.
        dimension: in all; MUSAE splits it over the scales.
        walks_per_node, length, epochs: of walks and learner.
        fraction, splits: of the probe.
        scales: distances.
        seed: random seed.

    Returns:
        Accuracy for ``MUSAE``, ``AE``, ``MUSAE, factors``, ``AE, factors``, and ``own features`` (no walk at all).

    Source: ``rozemberczki2019musae``, the evaluation.
    """
    known = np.flatnonzero(labels >= 0)
    walks = uniform_walks(graph, walks_per_node=walks_per_node, length=length, seed=seed)
    apart, width = dimension // len(scales), np.asarray(features).shape[1]
    learner = {"scales": scales, "epochs": epochs, "seed": seed}
    form = [
        pmi_factors(graph, features, scales=(r,), dimension=min(apart, width))
        for r in scales
    ]  # fmt: skip
    embeddings = {
        "MUSAE": musae(walks, features, dimension=apart, **learner).nodes,
        "AE": attributed_embedding(walks, features, dimension=dimension, **learner).nodes,
        "MUSAE, factors": np.concatenate(form, axis=1),
        "AE, factors": pmi_factors(graph, features, scales=scales, dimension=min(dimension, width)),
        "own features": np.asarray(features),
    }
    return {
        name: node_probe(
            x[known], labels[known], train_fraction=fraction, splits=splits, seed=seed, metric="accuracy"
        ).mean()
        for name, x in embeddings.items()
    }


def real_attributed(
    graph,
    features,
    target: np.ndarray,
    *,
    dimension: int,
    walks_per_node: int,
    length: int,
    epochs: int,
    scales: tuple[int, ...] = (1, 2, 3),
    splits: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of a node's target that a ridge regression explains from each embedding, on the same splits.

    Args:
        graph, features: an undirected graph and its binary features.
        target: one number a node.
        dimension: in all; MUSAE splits it over the scales.
        walks_per_node, length, epochs: of walks and learner. DeepWalk gets ten times the walks, four times as long: it
            makes one update where a feature learner makes one for each of a node's features.
        scales: distances.
        splits: random halves into training and test nodes.
        seed: random seed.

    Returns:
        One row a split: R^2 on test nodes for ``MUSAE``, ``AE``, ``DeepWalk`` (no features), ``own features``, and
        ``MUSAE, target shuffled``.

    Source: ``rozemberczki2019musae``, the regression of page traffic.
    """
    walks = uniform_walks(graph, walks_per_node=walks_per_node, length=length, seed=seed)
    longer = uniform_walks(graph, walks_per_node=10 * walks_per_node, length=4 * length, seed=seed)
    learner = {"scales": scales, "epochs": epochs, "seed": seed}
    apart = musae(walks, features, dimension=dimension // len(scales), **learner).nodes
    embeddings = {
        "MUSAE": apart,
        "AE": attributed_embedding(walks, features, dimension=dimension, **learner).nodes,
        "DeepWalk": skip_gram(
            longer, len(target), dimension=dimension, window=max(scales), epochs=epochs, learning_rate=0.05, seed=seed
        ).input,
        "own features": np.asarray(features.todense() if hasattr(features, "todense") else features),
        "MUSAE, target shuffled": apart,
    }
    mixed = np.random.default_rng(seed).permutation(target)
    rows = []
    for train, test in ShuffleSplit(splits, train_size=0.5, random_state=seed).split(apart):
        row = {}
        for name, x in embeddings.items():
            y = mixed if "shuffled" in name else target
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
            row[name] = float(ridge.fit(x[train], y[train]).score(x[test], y[test]))
        rows.append(row)
    return pd.DataFrame(rows)


def transfer(
    first, second, *, dimension: int, walks_per_node: int, length: int, epochs: int, fraction: float = 0.1,
    splits: int = 4, scales: tuple[int, ...] = (1, 2), permutations: int = 8, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Accuracy on a second graph of a probe trained on the first, the feature vectors kept or kept with permuted rows.

    Feature vectors are learned on the first graph. With them fixed, the node vectors of both graphs are the exact
    optimum of the learner's objective, so that nothing but the graph differs between the two.

    Args:
        first, second: attributed graphs with one vocabulary (``x`` and ``y``; negative classes are unlabelled).
        dimension, walks_per_node, length, epochs, fraction, splits, scales, seed: as in :func:`scales_apart`.
        permutations: how many permutations of the rows are averaged; a single one may map classes to classes.

    Returns:
        Accuracy ``in the first graph``, ``transferred``, ``permuted features``.

    Source: ``rozemberczki2019musae``, transfer.
    """
    x1, x2, y1, y2 = first.x.numpy(), second.x.numpy(), first.y.numpy(), second.y.numpy()
    size, rng = {"walks_per_node": walks_per_node, "length": length}, np.random.default_rng(seed)
    walks = [uniform_walks(first, seed=seed, **size), uniform_walks(second, seed=seed + 1, **size)]
    learned = musae(
        walks[0], x1, scales=scales, dimension=dimension // len(scales), epochs=epochs, seed=seed
    ).features  # fmt: skip
    known, other = np.flatnonzero(y1 >= 0), np.flatnonzero(y2 >= 0)
    counts = [
        [node_feature_counts(w, x, r)[rows] for r in scales] for w, x, rows in zip(walks, (x1, x2), (known, other))
    ]

    def embed(which, vectors):
        return np.concatenate([fit_nodes(c, h) for c, h in zip(counts[which], vectors)], axis=1)

    home, classes = embed(0, learned), np.unique(y1[known])
    away = {"transferred": [embed(1, learned)], "permuted features": []}
    for _ in range(permutations):
        away["permuted features"].append(embed(1, [h[rng.permutation(len(h))] for h in learned]))
    y1, y2 = y1[known], y2[other]
    count = max(round(fraction * len(y1)) // len(classes), 1)
    scores = {name: [] for name in ("in the first graph", *away)}
    for _ in range(splits):
        order = rng.permutation(len(y1))
        train = np.concatenate([order[y1[order] == c][:count] for c in classes])
        rest = np.setdiff1d(order, train)
        probe = LogisticProbe().fit(home[train], y1[train])
        scores["in the first graph"].append((probe.predict(home[rest]) == y1[rest]).mean())
        for name, embeddings in away.items():
            scores[name] += [(probe.predict(nodes) == y2).mean() for nodes in embeddings]
    return {name: float(np.mean(values)) for name, values in scores.items()}


def ppr_errors(
    graph, exact: np.ndarray, walk_counts: Sequence[int], *, alpha: float, l1_sources: int = 200, seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray]:
    """Error of the Monte Carlo estimate over all sources for growing numbers of walks, beside its closed forms.

    Args:
        graph: the graph.
        exact: personalised PageRank of all sources ``[n, n]``.
        walk_counts: numbers of walks a source, increasing; smaller samples are prefixes of the largest.
        alpha: stopping probability.
        l1_sources: sources over which the L1 error and its closed form are averaged.
        seed: random seed.

    Returns:
        A table (index: walks; L2, its closed form, L1, its closed form, largest error), and z-scores of one entry
        with an expected count of at least 20 from each of 200 sources at the largest number of walks.

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    n = len(exact)
    ends = walk_endpoints(graph, walks=max(walk_counts), alpha=alpha, seed=seed)
    rows, some = [], exact[:l1_sources]
    for walks in walk_counts:
        error = endpoint_frequencies(ends[:, :walks], n) - exact
        rows.append(
            (
                walks,
                float(np.sqrt((error**2).sum(axis=1).mean())),
                expected_l2(exact, walks),
                float(np.abs(error[:l1_sources]).sum(axis=1).mean()),
                expected_l1(some, walks),
                float(np.abs(error).max()),
            )
        )
    rng, walks = np.random.default_rng(seed), max(walk_counts)
    sources = rng.permutation(n)[:200]
    usable = (walks * exact[sources] >= 20) & (exact[sources] < 1 - 1e-9)
    # The largest random key among the usable entries picks one of them uniformly.
    entry = np.where(usable.any(axis=1), (rng.random(usable.shape) * usable).argmax(axis=1), -1)
    sources, entry = sources[entry >= 0], entry[entry >= 0]
    pi = exact[sources, entry]
    z = error[sources, entry] / np.sqrt(pi * (1 - pi) / walks)
    columns = ["L2", "L2, closed form", "L1", "L1, closed form", "largest"]
    return pd.DataFrame(rows, columns=["walks", *columns]).set_index("walks"), z


def big_move_table(
    graph, exact: np.ndarray, *, walks: int, alpha: float, etas: Sequence[int], shares: Sequence[float], pool: int,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Rounds and messages of big moves beside step-by-step walks of the same lengths, and the error of their end
    points.

    Args:
        graph: the graph.
        exact: personalised PageRank of all sources ``[n, n]``.
        walks: walks a source.
        alpha: stopping probability.
        etas: steps of a piece.
        shares: shares of the nodes, by degree, that count as large.
        pool: pieces of every small node.
        seed: random seed.

    Returns:
        Columns: large nodes, eta, rounds, jumps per walk, ratio (of jumps to steps), from large, bound
        (:math:`1 / (\\eta - (\\eta - 1) h)`), error (L2 over its closed form).

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    adjacency = as_csr(graph)
    n = len(exact)
    degree = np.diff(adjacency.indptr)
    starts = np.repeat(np.arange(n), walks)
    lengths = walk_lengths(len(starts), alpha=alpha, seed=seed)
    rank = np.argsort(np.argsort(-degree, kind="stable"), kind="stable")
    rows, steps = [], None
    for share in shares:
        for eta in etas:
            if eta == 1 and steps is not None:
                continue
            large = rank < round(share * n)
            run = big_moves(adjacency, starts=starts, lengths=lengths, eta=eta, pool=pool, large=large, seed=seed)
            jumps = run.jumps.mean()
            steps = jumps if eta == 1 else steps
            error = endpoint_frequencies(run.endpoints.reshape(n, walks), n) - exact
            l2 = np.sqrt((error**2).sum(axis=1).mean()) / expected_l2(exact, walks)
            h = run.from_large
            rows.append(
                (share, eta, int(run.jumps.max()), jumps, jumps / steps, h, 1 / (eta - (eta - 1) * h), float(l2))
            )
    columns = ["large nodes", "eta", "rounds", "jumps per walk", "ratio", "from large", "bound", "error"]
    return pd.DataFrame(rows, columns=columns)


def pool_variance(
    graph, exact: np.ndarray, *, walks: int, alpha: float, eta: int, pools: Sequence[int], seed: int = 0
) -> pd.Series:
    """Mean squared L2 error over its closed form as the pool of pieces shrinks and walks share pieces.

    Args:
        graph, exact, walks, alpha, eta, seed: as in :func:`big_move_table`, every node small.
        pools: pieces of every node.

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    n = len(exact)
    starts, out = np.repeat(np.arange(n), walks), {}
    lengths = walk_lengths(len(starts), alpha=alpha, seed=seed)
    for pool in pools:
        run = big_moves(graph, starts=starts, lengths=lengths, eta=eta, pool=pool, seed=seed)
        error = endpoint_frequencies(run.endpoints.reshape(n, walks), n) - exact
        out[pool] = float((error**2).sum(axis=1).mean() / expected_l2(exact, walks) ** 2)
    return pd.Series(out, name="variance ratio")


def worker_times(
    graph, *, walks: int, cap: int, alpha: float, workers: int = 2, repeats: int = 3, seed: int = 0
) -> dict[str, list]:
    """Rounds, peak and seconds of sequential and of pipelined worker processes under one cap.

    Args:
        graph, walks, cap, alpha, workers, seed: as in ``run_workers``.
        repeats: runs of each kind; seconds are a list of that length.

    Source: ``lin2019fullppr``, the walk-based estimator.
    """
    out = {}
    for name, pipelined in (("sequential", False), ("pipelined", True)):
        runs = [
            run_workers(graph, walks=walks, cap=cap, pipelined=pipelined, alpha=alpha, workers=workers, seed=seed)
            for _ in range(repeats)
        ]
        out[name] = [runs[0].rounds, runs[0].peak, [run.seconds for run in runs]]
    return out


def walk_figure(test: pd.DataFrame, settings: Sequence[str], labels: Sequence[str]) -> Figure:
    """Test scores of both learners for every walk, a panel for each label set, with 95 % intervals over graphs.

    Args:
        test: columns (learner, labels, setting), a row for every graph.
        settings: walks, in the order to draw.
        labels: label sets, one panel each.
    """
    fig, axes = plt.subplots(1, len(labels), figsize=(8, 3.6), sharey=True)
    for axis, name in zip(axes, labels):
        for offset, learner in zip((-0.1, 0.1), ("skip-gram", "PPMI-SVD")):
            bars = [mean_interval(test[learner, name, k]) for k in settings]
            x = np.arange(len(bars)) + offset
            axis.errorbar(x, [b.mean for b in bars], [b.half_width for b in bars], fmt="o", label=learner)
        axis.set(title=f"{name} labels", xlabel="walk", xticks=range(len(settings)), xticklabels=settings)
        axis.tick_params(axis="x", rotation=30)
    axes[0].set_ylabel("macro-F1 on test nodes")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def accuracy_figure(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy of every embedding on every graph, a panel for each design, the mean as a bar.

    Args:
        frames: title to a table with a column for each embedding and a row for each graph.
    """
    fig, axes = plt.subplots(1, len(frames), figsize=(8, 3.4), sharey=True)
    for axis, (title, frame) in zip(axes, frames.items()):
        for i, name in enumerate(frame):
            axis.plot([i] * len(frame), frame[name], "o", alpha=0.5)
            axis.plot([i - 0.25, i + 0.25], [frame[name].mean()] * 2, color="#222222", ls="-")
        axis.set(title=title, xlabel="embedding", xticks=range(frame.shape[1]), xticklabels=frame.columns)
        axis.tick_params(axis="x", rotation=30)
    axes[0].set_ylabel("accuracy (10 % labels)")
    return fig


def pagerank_figure(errors: pd.DataFrame, plans: Mapping[str, Schedule], cap: int) -> Figure:
    """Left: measured errors on their closed forms. Right: walks in flight, round by round, for every schedule.

    Args:
        errors: from :func:`ppr_errors`.
        plans: name to schedule.
        cap: largest number of walks in flight.
    """
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    for name in ("L2", "L1"):
        axes[0].loglog(errors.index, errors[name], "o", label=f"{name} error")
        axes[0].loglog(errors.index, errors[f"{name}, closed form"], color="#222222", lw=1, ls="-")
    axes[0].set(title="Error of the estimate", xlabel="walks per node", ylabel="error (probability)")
    for name, plan in plans.items():
        axes[1].plot(plan.live, label=f"{name}: {plan.rounds} rounds")
    axes[1].set(title="Walks in flight", xlabel="round", ylabel="walks in flight", ylim=(0, 1.35 * cap))
    for axis in axes:
        axis.legend()
    return fig
