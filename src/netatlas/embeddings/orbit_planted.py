"""A graph whose labels are plain to one orbit adjacency, while two steps of a walk favour neither class."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from netatlas.core.checks import require


def orbit_planted_graph(
    label_nodes: int = 240, *, classes_in_hubs: bool = True, hubs: int = 2, middles: int = 3, seed: int = 0
) -> Data:
    r"""Two classes with equal degrees and equal orbit counts, told apart only by *which* pairs share a star.

    Every label node joins ``hubs`` hubs, each of four label nodes of its own class, and ``middles`` middles, each of
    degree two with one label node of either class. Two steps from a label node lead with probability
    :math:`\frac25 \cdot \frac34 = 0.3` to another node of its class and with :math:`\frac35 \cdot \frac12 = 0.3`
    to one of the other (at the default sizes), so that two steps favour neither class (single
    entries of :math:`P^2` still differ: a hub gives less than a middle). The leaves of a
    star share a centre of degree three or more: a hub, never a middle. The orbit adjacency (6,6) joins label nodes of
    equal class only.

    Args:
        label_nodes: number of label nodes, a multiple of 8; nodes 0 to ``label_nodes`` - 1.
        classes_in_hubs: False fills hubs without regard to class, the null case.
        hubs: hubs of every label node.
        middles: middles of every label node.
        seed: random seed.

    Returns:
        ``Data`` with ``y`` int64 ``[n]``: class 0 or 1, and -1 for hubs and middles.

    Raises:
        ValueError: for a number of label nodes that is not a positive multiple of 8, or fewer than one hub or middle.

    Source: ``windels2024graphlets`` (a design of this book: label nodes whose pairing only a star shows).
    """
    require(label_nodes >= 16 and label_nodes % 8 == 0, "a multiple of 8 label nodes, at least 16", label_nodes)
    require(hubs >= 1 and middles >= 1, "at least one hub and one middle", (hubs, middles))
    rng = np.random.default_rng(seed)
    half = label_nodes // 2
    pools = [np.arange(half), half + np.arange(half)] if classes_in_hubs else [np.arange(label_nodes)]
    groups = np.concatenate([rng.permutation(pool).reshape(-1, 4) for _ in range(hubs) for pool in pools])
    first_hub = label_nodes
    first_middle = first_hub + len(groups)
    left = np.tile(np.arange(half), middles)
    right = np.concatenate([half + rng.permutation(half) for _ in range(middles)])
    middle = first_middle + np.arange(len(left))
    ends = np.concatenate([groups.ravel(), left, right])
    centres = np.concatenate([first_hub + np.repeat(np.arange(len(groups)), 4), middle, middle])
    n = first_middle + len(left)
    keys = np.sort(np.concatenate([ends * n + centres, centres * n + ends]))
    y = np.full(n, -1)
    y[:label_nodes] = np.arange(label_nodes) // half
    return Data(edge_index=torch.from_numpy(np.stack([keys // n, keys % n])), num_nodes=n, y=torch.from_numpy(y))
