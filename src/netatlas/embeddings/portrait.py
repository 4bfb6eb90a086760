"""Every embedding of the chapter on one graph whose communities and roles are both known."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from netatlas.core.graph import as_csr
from netatlas.embeddings.cooccurrence import truncated_svd_embedding
from netatlas.embeddings.fastrp import fastrp
from netatlas.embeddings.graphlets import Orbits, orbit_adjacency, orbit_pmi_embedding, symmetrised
from netatlas.embeddings.irwe import TrainedIRWE, walk_statistics
from netatlas.embeddings.musae import musae
from netatlas.embeddings.node2vec import node2vec
from netatlas.embeddings.phusion import characteristic_function_embedding, positional_embedding
from netatlas.embeddings.ppr import ppr_exact
from netatlas.embeddings.proximity import proximity_heat
from netatlas.embeddings.structure_experiments import ridge_accuracy
from netatlas.embeddings.walks import uniform_walks

_PATH_ENDS = Orbits(4, 4, 3)


def family_portrait(
    graph: Any,
    trained: TrainedIRWE,
    *,
    member: int = 0,
    dimension: int = 32,
    orbits: Orbits = _PATH_ENDS,
    seed: int = 0,
) -> pd.DataFrame:
    """Community and role accuracy of one linear read-out on every embedding, and the time each took.

    Args:
        graph: ``Data`` with ``community`` and ``role``, unseen by the trained model.
        trained: IRWE models.
        member: which of them.
        dimension: of the embeddings that let it be chosen; the characteristic function has 50.
        orbits: the orbit adjacency to embed.
        seed: random seed.

    Returns:
        Index: method; columns ``community``, ``role`` (accuracy), ``seconds`` (of the embedding alone).

    Source: this book; methods as in their own modules. MUSAE reads the node's degree, one-hot, for lack of attributes.
    """
    adjacency = as_csr(graph)
    degree = np.asarray(adjacency.sum(1)).ravel().astype(int)
    walk = {"dimension": dimension, "walks_per_node": 10, "length": 20, "window": 5, "epochs": 5, "seed": seed}

    def musae_on_degrees() -> np.ndarray:
        walks = uniform_walks(adjacency, walks_per_node=10, length=20, seed=seed)
        features = np.eye(degree.max() + 1)[degree]
        return musae(walks, features, scales=(1, 2), dimension=dimension // 2, epochs=5, seed=seed).nodes

    def irwe() -> tuple[np.ndarray, np.ndarray]:
        statistics = walk_statistics(adjacency, buckets=trained.buckets[member], dimension=dimension, seed=seed)
        return tuple(x.cpu().numpy() for x in trained.embed(member, statistics, walks=32))

    def orbit() -> np.ndarray:
        return orbit_pmi_embedding(symmetrised(orbit_adjacency(adjacency))[orbits], dimension)

    fits = {
        "DeepWalk": lambda: node2vec(adjacency, p=1, q=1, learning_rate=0.05, **walk).input,
        "node2vec, q = 1/4": lambda: node2vec(adjacency, p=4, q=0.25, learning_rate=0.05, **walk).input,
        "FastRP": lambda: fastrp(adjacency, dimension=dimension, beta=0.0, seed=seed),
        "MUSAE on degrees": musae_on_degrees,
        "full PPR, SVD": lambda: truncated_svd_embedding(ppr_exact(adjacency, alpha=0.15), dimension),
        "PhUSION heat, SVD": lambda: positional_embedding(proximity_heat(adjacency), dimension),
        "PhUSION heat, CF": lambda: characteristic_function_embedding(proximity_heat(adjacency)).numpy(),
        f"orbit PMI {orbits.first},{orbits.second}": orbit,
        "IRWE psi": irwe,
        "IRWE gamma": irwe,
        "degree alone": lambda: np.eye(degree.max() + 1)[degree],
    }
    rows = {}
    for name, fit in fits.items():
        clock = perf_counter()
        embedding = fit()
        seconds = perf_counter() - clock
        if name.startswith("IRWE"):
            embedding = embedding[0 if name.endswith("psi") else 1]
        scores = [ridge_accuracy(embedding, y.numpy(), seed=seed) for y in (graph.community, graph.role)]
        rows[name] = (*scores, seconds)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["community", "role", "seconds"])


def portrait_figure(kept: pd.DataFrame, community_chance: float, role_chance: float, *, near: float = 0.06) -> Figure:
    """Community accuracy against role accuracy, each point named; names of points that coincide stand in one column.

    Args:
        kept: index: method; columns ``community`` and ``role``, accuracies.
        community_chance, role_chance: accuracies of a guess.
        near: points closer than this share a column of names.
    """
    fig, axis = plt.subplots(figsize=(6.6, 5))
    axis.plot([community_chance, 1], [1, role_chance], linestyle=":", alpha=0.5, label="one for the other")
    axis.scatter(kept.community, kept.role, color="C1", zorder=3)
    rest = kept.sort_values("role", ascending=False)
    while len(rest):
        first = rest.iloc[0]
        close = np.hypot(rest.community - first.community, rest.role - first.role) < near
        group, rest = rest[close], rest[~close]
        right = first.community > 0.5
        below = len(group) > 1
        axis.annotate(
            "\n".join(group.index),
            (group.community.mean(), group.role.min()),
            xytext=(0, -8) if below else (-8 if right else 8, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top" if below else "center",
            fontsize=9,
        )
    axis.set(xlabel="accuracy on communities", ylabel="accuracy on roles", title="What an embedding keeps")
    axis.set(xlim=(0.1, 1.05), ylim=(-0.05, 1.03))
    axis.legend(loc="upper right")
    return fig
