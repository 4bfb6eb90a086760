"""Graphs built so that one mechanism, and no other, carries the label."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch_geometric.data import Data

from netatlas.embeddings._random import check_seed


def _data(low: np.ndarray, high: np.ndarray, n: int, **attributes) -> Data:
    keys = np.unique(np.concatenate([low * n + high, high * n + low]))
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in attributes.items()}
    return Data(edge_index=torch.from_numpy(np.stack([keys // n, keys % n])), num_nodes=n, **tensors)


def hub_attributed_graph(
    *,
    label_nodes: int = 400,
    hubs_per_type: int = 20,
    leaves_per_hub: int = 30,
    hubs_per_node: int = 4,
    pool: int = 8,
    features_per_node: int = 4,
    seed: int = 0,
) -> Data:
    r"""An attributed graph whose labels can be read only by a method that keeps distances apart.

    A label node of class :math:`(a, b) \in \{0, 1\}^2` is tied to hubs of type (a, b). A hub's features come from
    pool a. All leaves of a hub share one feature set, drawn from pool b, and a label node carries one feature of each
    of its hubs' leaf sets. So the features one step from a label node come from pool a and those two steps away from
    pool b; pooled over both distances, classes (0, 1) and (1, 0) show nearly the same mixture. All label nodes have
    one degree, all hubs have one degree, and the four classes are of equal size.

    Args:
        label_nodes: number of labelled nodes, a multiple of 4.
        hubs_per_type, leaves_per_hub, hubs_per_node: sizes of the three layers.
        pool: features in each of the two disjoint pools.
        features_per_node: features of every node.
        seed: random seed.

    Returns:
        ``Data`` with ``x`` float32 ``[n, 2 pool]`` (0/1), ``y`` int64 ``[n]`` (class 0..3, -1 for hubs and leaves);
        label nodes come first.

    Raises:
        ValueError: if hubs cannot be shared out evenly, or a node needs more features than a pool has.

    Source: ``rozemberczki2019musae`` (a design of this book, to test the separation of scales).
    """
    per_class, remainder = divmod(label_nodes, 4)
    if remainder or (per_class * hubs_per_node) % hubs_per_type or hubs_per_type % hubs_per_node:
        raise ValueError(
            "expected label_nodes divisible by 4, hubs_per_type by hubs_per_node, and "
            f"label_nodes / 4 * hubs_per_node by hubs_per_type, got {label_nodes}, {hubs_per_type}, {hubs_per_node}"
        )
    if features_per_node > pool or hubs_per_node > features_per_node:
        raise ValueError(
            f"expected hubs_per_node <= features_per_node <= pool, got {hubs_per_node}, {features_per_node}, {pool}"
        )
    rng = np.random.default_rng(check_seed(seed))
    hubs = 4 * hubs_per_type
    n = label_nodes + hubs * (1 + leaves_per_hub)
    first_hub, first_leaf = label_nodes, label_nodes + hubs
    x = np.zeros((n, 2 * pool), np.float32)
    y = np.full(n, -1, np.int64)
    low, high = [], []
    kind = np.repeat(np.arange(4), hubs_per_type)
    leaf_sets = np.empty((hubs, features_per_node), np.int64)
    for h in range(hubs):
        a, b = divmod(int(kind[h]), 2)
        x[first_hub + h, a * pool + rng.choice(pool, features_per_node, replace=False)] = 1
        leaf_sets[h] = b * pool + rng.choice(pool, features_per_node, replace=False)
        leaves = first_leaf + h * leaves_per_hub + np.arange(leaves_per_hub)
        x[leaves[:, None], leaf_sets[h]] = 1
        low.append(np.full(leaves_per_hub, first_hub + h))
        high.append(leaves)
    share = hubs_per_type // hubs_per_node
    for c in range(4):
        nodes = c * per_class + np.arange(per_class)
        y[nodes] = c
        # Every pass deals each hub of the type out once, so that all hubs end with the same number of label nodes.
        dealt = np.concatenate([rng.permutation(hubs_per_type) for _ in range(-(-per_class // share))])
        chosen = c * hubs_per_type + dealt[: per_class * hubs_per_node].reshape(per_class, hubs_per_node)
        low.append(np.repeat(nodes, hubs_per_node))
        high.append(first_hub + chosen.ravel())
        for v, own in zip(nodes, chosen):
            while x[v].sum() < features_per_node:
                x[v] = 0
                x[v, [rng.choice(leaf_sets[h]) for h in own]] = 1
                # Two hubs may offer the same feature; top up from the pool so that every node has the same number.
                if x[v].sum() < features_per_node and rng.random() < 0.2:
                    own_pool = (c % 2) * pool + rng.permutation(pool)
                    missing = int(features_per_node - x[v].sum())
                    x[v, [f for f in own_pool if x[v, f] == 0][:missing]] = 1
    return _data(np.concatenate(low), np.concatenate(high), n, x=x, y=y)


def attributed_sbm(
    *,
    blocks: int = 4,
    size: int = 75,
    mean_degree: float = 10.0,
    mixing: float = 0.1,
    pool: int = 10,
    features_per_node: int = 4,
    own: int = 3,
    seed: int = 0,
) -> Data:
    r"""A homophilous block model whose nodes carry a fixed number of discrete features, most from their block's pool.

    Args:
        blocks, size: number of blocks and of nodes in each.
        mean_degree: expected degree.
        mixing: edge probability between blocks over that inside.
        pool: features in each block's pool.
        features_per_node: features of every node.
        own: how many of them come from the pool of the node's block; the others come from the other pools.
        seed: random seed.

    Returns:
        ``Data`` with ``x`` float32 ``[n, blocks * pool]`` (0/1) and ``y`` int64 ``[n]``.

    Raises:
        ValueError: if the features do not fit the pools or an edge probability exceeds one.

    Source: ``rozemberczki2019musae`` (a homophilous control).
    """
    if (
        not 0 <= own <= features_per_node <= pool * blocks
        or own > pool
        or features_per_node - own > (blocks - 1) * pool
    ):
        raise ValueError(f"features do not fit: own {own}, per node {features_per_node}, pool {pool}, blocks {blocks}")
    n = blocks * size
    inside = mean_degree / (size - 1 + mixing * (n - size))
    if not 0 < inside <= 1 or mixing * inside > 1:
        raise ValueError(f"mean_degree {mean_degree} and mixing {mixing} need an edge probability above one")
    rng = np.random.default_rng(check_seed(seed))
    y = np.repeat(np.arange(blocks), size)
    low, high = np.triu_indices(n, 1)
    kept = rng.random(len(low)) < np.where(y[low] == y[high], inside, mixing * inside)
    key = rng.random((n, blocks * pool))
    mine = (np.arange(blocks * pool) // pool)[None, :] == y[:, None]
    x = np.zeros((n, blocks * pool), np.float32)
    for part, count in ((mine, own), (~mine, features_per_node - own)):
        if count:
            chosen = np.argsort(np.where(part, key, 2.0), axis=1)[:, :count]
            np.put_along_axis(x, chosen, 1.0, axis=1)
    return _data(low[kept], high[kept], n, x=x, y=y)


def weighted_powerlaw_graph(
    n: int = 2000, edges: int = 20000, *, exponent: float = 2.2, sinks: bool = True, seed: int = 0
) -> sp.csr_array:
    r"""A directed graph with power-law degrees and unequal edge weights.

    Both ends of an edge are drawn with probability proportional to :math:`\theta_i \propto r_i^{-1/(\gamma - 1)}`, r a
    random ranking, so that a hub has many edges in both directions; weights are exponential with mean one. Loops are
    dropped and parallel edges merged, and drawing goes on until the number of edges is reached.

    Args:
        n: number of nodes.
        edges: number of directed edges.
        exponent: :math:`\gamma > 2`, the tail exponent of the degrees.
        sinks: whether nodes without out-edges may remain; otherwise every node is first given one out-edge.
        seed: random seed.

    Returns:
        ``csr_array [n, n]`` of float64.

    Raises:
        ValueError: for an exponent of 2 or less, more than n (n - 1) / 4 edges, or fewer edges than nodes without
            sinks.

    Source: ``lin2019fullppr`` (its weighted graphs, in small).
    """
    if not exponent > 2:
        raise ValueError(f"exponent must exceed 2, got {exponent}")
    if n < 2 or not 1 <= edges <= n * (n - 1) // 4:
        raise ValueError(f"expected 1..{n * (n - 1) // 4} edges on {n} nodes, got {edges}")
    rng = np.random.default_rng(check_seed(seed))
    if not sinks and edges < n:
        raise ValueError(f"{n} nodes without sinks need at least {n} edges, got {edges}")
    theta = rng.permutation((np.arange(n) + 1.0) ** (-1 / (exponent - 1)))
    theta /= theta.sum()
    keys = np.empty(0, np.int64)
    if not sinks:
        target = rng.choice(n, size=n, p=theta)
        target = np.where(target == np.arange(n), (target + 1) % n, target)
        keys = np.arange(n) * n + target
    while len(keys) < edges:
        u, v = rng.choice(n, size=(2, 2 * edges), p=theta)
        every = np.concatenate([keys, (u * n + v)[u != v]])
        _, first = np.unique(every, return_index=True)
        keys = every[np.sort(first)][:edges]
    weights = rng.exponential(size=edges) + 1e-3
    return sp.coo_array((weights, (keys // n, keys % n)), shape=(n, n)).tocsr()
