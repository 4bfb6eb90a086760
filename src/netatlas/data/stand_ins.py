"""Stand-ins: generated replacements of the same form, for a machine that has neither the files nor a network.

Give one to :func:`netatlas.data.load` as ``stand_in=``; it gets the same options. Claims made with it say *stand-in
data*. A stand-in shows that a method runs. It says little about the real data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch_geometric.data import Data

TRAIN, TEST = 14_000, 5_000


def _check_split(split: str | None, limit: int | None) -> tuple[bool, int]:
    if split not in (None, "train", "test"):
        raise ValueError(f"expected split train or test, got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"expected a limit of at least 1, got {limit}")
    test = split == "test"
    size = TEST if test else TRAIN
    return test, min(limit or size, size)


def digit_images(*, split: str | None = None, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Stand-in for MNIST: scikit-learn's 8 x 8 digits, enlarged, shifted at random and slightly noisy.

    Training and test images come from different originals (1400 and 397), so that a network must generalise.

    Args:
        split: ``"train"`` (also ``None``) or ``"test"``.
        limit: At most so many images.

    Returns:
        Images ``[N, 1, 28, 28]`` float32 in [0, 1] and labels ``[N]`` int64.

    Raises:
        ValueError: For an unknown split or a limit below 1.
    """
    import torch
    from sklearn.datasets import load_digits

    test, count = _check_split(split, limit)
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(1 if test else 0)
    own = np.arange(1400, len(images)) if test else np.arange(1400)
    chosen = rng.choice(own, count)
    small = torch.from_numpy(images[chosen].reshape(-1, 1, 8, 8) / 16).float()
    large = torch.nn.functional.interpolate(small, size=20, mode="bilinear", align_corners=False)
    shifts = torch.from_numpy(rng.integers(0, 9, (count, 2)))
    rows = torch.arange(20)[None, :, None] + shifts[:, :1, None]
    columns = torch.arange(20)[None, None, :] + shifts[:, 1:, None]
    canvas = torch.zeros(count, 28, 28)
    canvas[torch.arange(count)[:, None, None], rows, columns] = large[:, 0]
    noise = torch.from_numpy(rng.normal(0, 0.05, canvas.shape)).float()
    return (canvas + noise).clamp(0, 1)[:, None], torch.from_numpy(labels[chosen]).long()


def colour_images(*, split: str | None = None, limit: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Stand-in for CIFAR-10: ten classes of smooth random colour patterns, mixed with other patterns and noise.

    Args:
        split: ``"train"`` (also ``None``) or ``"test"``.
        limit: At most so many images.

    Returns:
        Images ``[N, 3, 32, 32]`` float32 in [0, 1] and labels ``[N]`` int64.

    Raises:
        ValueError: For an unknown split or a limit below 1.
    """
    import torch

    test, count = _check_split(split, limit)
    patterns = torch.randn(10, 3, 3, 6, 6, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(9 if test else 8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    weights = torch.rand(count, 3, 1, 1, 1, generator=generator)
    coarse = (weights * patterns[labels]).sum(1) + torch.randn(count, 3, 6, 6, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear", align_corners=False)
    return torch.sigmoid(images + 0.3 * torch.randn(images.shape, generator=generator)), labels


def labelled_graph() -> Data:
    """Stand-in for BlogCatalog: a degree-corrected block model of 2000 nodes in 12 groups, ``y`` ``[2000, 12]`` 0/1.

    A fifth of the nodes bear a second label besides their block's.
    """
    import torch

    from netatlas.data.generators import degree_corrected_sbm

    graph = degree_corrected_sbm([200, 200] + [160] * 10, 30, 0.15, 2.5, 0)
    rng = np.random.default_rng(0)
    labels = np.eye(12, dtype=np.float32)[graph.y.numpy()]
    second = rng.random(len(labels)) < 0.2
    labels[second, rng.integers(0, 12, second.sum())] = 1
    graph.y = torch.from_numpy(labels)
    return graph


def citation_graph() -> Data:
    """Stand-in for Cora: a contextual block model of 2700 nodes in seven classes with 200 features.

    The masks are those of the public split: 20 training nodes a class, 500 for validation, 1000 for the test.
    """
    import torch

    from netatlas.data.generators import contextual_sbm

    graph = contextual_sbm([400, 400, 400, 400, 400, 400, 300], 4, 0.04, 200, 1.0, 0)
    order = np.random.default_rng(0).permutation(graph.num_nodes)
    label = graph.y.numpy()[order]
    rank = (np.cumsum(label[:, None] == np.arange(7), 0) - 1)[np.arange(len(order)), label]
    train, rest = order[rank < 20], order[rank >= 20]
    for name, nodes in (("train", train), ("val", rest[:500]), ("test", rest[500:1500])):
        mask = np.zeros(len(order), dtype=bool)
        mask[nodes] = True
        graph[f"{name}_mask"] = torch.from_numpy(mask)
    return graph


def heterophilous_graph(*, directed: bool = False) -> Data:
    """Stand-in for a heterophilous graph: 900 nodes of five classes that link to other classes, in ten splits.

    A contextual block model in which links between classes are twice as likely as inside; the masks ``[900, 10]``
    hold 48, 32 and 20 % of the nodes.

    Args:
        directed: Whether every link keeps one direction only: between classes c and c + 1 (cyclically) from the first
            to the second in four cases out of five, otherwise at random.
    """
    import torch

    from netatlas.data.generators import contextual_sbm

    graph = contextual_sbm([180] * 5, 10, 2.0, 100, 1.5, 4)
    rng = np.random.default_rng(4)
    nodes = graph.num_nodes
    shares = rng.permuted(np.tile(np.arange(nodes)[:, None], 10), axis=0) / nodes
    graph.train_mask = torch.from_numpy(shares < 0.48)
    graph.val_mask = torch.from_numpy((shares >= 0.48) & (shares < 0.8))
    graph.test_mask = torch.from_numpy(shares >= 0.8)
    if directed:
        tail, head = graph.edge_index[:, graph.edge_index[0] < graph.edge_index[1]].numpy()
        label = graph.y.numpy()
        step = (label[head] - label[tail]) % 5
        forward = rng.random(len(tail)) < np.select([step == 1, step == 4], [0.8, 0.2], 0.5)
        edges = np.where(forward, np.stack([tail, head]), np.stack([head, tail]))
        graph.edge_index = torch.from_numpy(edges[:, np.lexsort(edges[::-1])])
    return graph


def page_graph() -> Data:
    """Stand-in for the chameleon pages of Wikipedia: 2000 pages, 60 words, traffic that grows with a page's neighbours.

    ``x`` ``[2000, 60]`` float32 0/1, each page with words of its block; ``y`` ``[2000]`` float32 visits a month.
    """
    import torch

    from netatlas.data.generators import degree_corrected_sbm

    graph = degree_corrected_sbm([200] * 10, 30, 0.2, 2.5, 1)
    rng = np.random.default_rng(1)
    block = graph.y.numpy()
    chance = np.full((2000, 60), 0.03)
    chance[np.arange(2000)[:, None], block[:, None] * 6 + np.arange(6)] = 0.4
    words = (rng.random(chance.shape) < chance).astype(np.float32)
    words[np.arange(2000), block * 6] = 1
    graph.x = torch.from_numpy(words)
    graph.y = torch.from_numpy(np.exp(0.4 * block + rng.normal(0, 0.5, 2000)).astype(np.float32))
    return graph


# The two main classes of Latin squares of order 5: one with a subsquare of order 2, and addition modulo 5.
LATIN_SQUARES = (
    ((0, 1, 2, 3, 4), (1, 0, 3, 4, 2), (2, 4, 0, 1, 3), (3, 2, 4, 0, 1), (4, 3, 1, 2, 0)),
    ((0, 1, 2, 3, 4), (1, 2, 3, 4, 0), (2, 3, 4, 0, 1), (3, 4, 0, 1, 2), (4, 0, 1, 2, 3)),
)


def strongly_regular_graphs(*, family: str | None = None) -> list[Data] | dict[str, list[Data]]:
    """Stand-in for the strongly regular families: the Latin square graphs of order 5, srg(25, 12, 5, 6).

    Nodes are the cells of a Latin square; two are adjacent that share row, column or symbol.

    Args:
        family: With a name, the list alone; otherwise a dict with the one family ``sr251256``.
    """
    import torch
    from torch_geometric.data import Data

    row, column = np.divmod(np.arange(25), 5)
    graphs = []
    for square in LATIN_SQUARES:
        symbol = np.array(square)[row, column]
        same = (row[:, None] == row) | (column[:, None] == column) | (symbol[:, None] == symbol)
        np.fill_diagonal(same, False)
        graphs.append(Data(edge_index=torch.from_numpy(np.stack(np.nonzero(same))), num_nodes=25))
    return graphs if family is not None else {"sr251256": graphs}


def _undirected(edges: list[tuple[int, int]], nodes: int) -> Data:
    import torch
    from torch_geometric.data import Data

    pairs = np.array(sorted({pair for a, b in edges for pair in ((a, b), (b, a))}), dtype=np.int64).reshape(-1, 2)
    return Data(edge_index=torch.from_numpy(np.ascontiguousarray(pairs.T)), num_nodes=nodes)


def labelled_graphs() -> list[Data]:
    """Stand-in for MUTAG: 200 chains of rings with pendant atoms, ``x`` one-hot of seven kinds, ``y`` 0 or 1.

    Graphs of label 1 have rings of six and more pendant atoms, those of label 0 rings of five or six and fewer: neither
    the kinds alone nor the rings alone give the label.
    """
    import torch

    rng = np.random.default_rng(6)
    graphs = []
    for _ in range(200):
        label = int(rng.random() < 0.6)
        edges: list[tuple[int, int]] = []
        kinds: list[int] = []
        for ring in range(int(rng.integers(1, 4))):
            size, start = (6 if label else int(rng.integers(5, 7))), len(kinds)
            edges += [(start + k, start + (k + 1) % size) for k in range(size)]
            edges += [(start - 1, start)] if ring else []
            kinds += [0] * size
        for node in range(len(kinds)):
            if rng.random() < (0.3 if label else 0.2):
                edges.append((node, len(kinds)))
                kinds.append(int(rng.integers(1, 7)))
        graph = _undirected(edges, len(kinds))
        graph.x, graph.y = torch.eye(7)[kinds], torch.tensor([label])
        graphs.append(graph)
    return graphs


def _circulant(nodes: int, steps: tuple[int, ...]) -> Data:
    return _undirected([(v, (v + step) % nodes) for v in range(nodes) for step in steps], nodes)


def wl_pairs(*, category: str | None = None) -> dict[str, list[tuple[Data, Data]]] | list[tuple[Data, Data]]:
    """Stand-in for BREC: pairs of non-isomorphic graphs that colour refinement cannot tell apart.

    ``basic``, ``extension`` and ``cfi``: one cycle against two of half its length. ``regular``: circulant graphs of
    four neighbours. ``strongly_regular``, ``4vtx`` and ``distance_regular``: the two Latin square graphs of order 5.

    Args:
        category: With a name, the list of its pairs alone; otherwise a dict.

    Raises:
        ValueError: For another category.
    """
    cycles = [
        (_circulant(2 * k, (1,)), _undirected([(i + o, (i + 1) % k + o) for o in (0, k) for i in range(k)], 2 * k))
        for k in range(3, 9)
    ]
    circulants = [(_circulant(n, (1, 2)), _circulant(n, (1, 3))) for n in (11, 13, 15, 17, 19)]
    first, second = strongly_regular_graphs(family="sr251256")
    latin = [(first, second)]
    pairs = {
        "basic": cycles, "regular": circulants, "strongly_regular": latin, "extension": cycles, "cfi": cycles,
        "4vtx": latin, "distance_regular": latin,
    }  # fmt: skip
    if category is not None and category not in pairs:
        raise ValueError(f"category: expected one of {', '.join(pairs)}, got {category!r}")
    return pairs if category is None else pairs[category]


def molecule_table(*, limit: int | None = None) -> pd.DataFrame:
    """Stand-in for the solubilities: chains and rings with one functional group, ``smiles`` and ``target``.

    The target falls by .5 a carbon atom, changes with the group, and has noise of .3.

    Args:
        limit: At most so many rows.
    """
    import pandas as pd

    groups = {"": 0.0, "O": 1.5, "N": 1.3, "Cl": -0.7, "C(=O)O": 1.6, "C#N": 0.8, "OC": 0.6, "C(=O)C": 1.0, "Br": -1.0}
    frames = {"{}": 0, "C1CCCCC1{}": 6, "c1ccccc1{}": 6, "CC(C){}": 3, "C=C{}": 2}
    rng = np.random.default_rng(7)
    rows = [
        (frame.format("C" * length + group), 1.0 - 0.5 * (carbons + length) + shift + rng.normal(0, 0.3))
        for frame, carbons in frames.items()
        for group, shift in groups.items()
        for length in range(1, 11)
    ]
    table = pd.DataFrame(rows, columns=["smiles", "target"]).drop_duplicates("smiles")
    table = table.sample(frac=1, random_state=0).reset_index(drop=True)
    return table if limit is None else table.head(limit)


def routed_curves() -> pd.DataFrame:
    """Stand-in for the routed language models: final losses by a law of the published form, with noise.

    Whatever is fitted to it finds the law that it was made with.
    """
    import pandas as pd

    rng = np.random.default_rng(5)
    sizes = [1.65e7, 2.73e7, 5.74e7, 1.32e8, 3.68e8, 1.309e9]
    laws = {"S-Base": (0.11, 0.0095, 1.9), "RL-R": (0.12, 0.0115, 1.9), "Hash": (0.13, 0.012, 4.2)}
    rows = []
    for router, (b, c, start) in laws.items():
        for size, experts in [(n, 2**k) for n in sizes for k in range(1, 10)]:
            reach = np.log10(1 / (1 / (experts - 1 + start) + 1 / 400))
            loss = 10 ** (1.11 - 0.084 * np.log10(size) - b * reach + c * reach * np.log10(size))
            rows.append((router, size, experts, loss * 10 ** rng.normal(0, 0.002)))
    rows += [("Dense", size, 1, 10 ** (1.085 - 0.0827 * np.log10(size))) for size in sizes if size != 1.32e8]
    frame = pd.DataFrame(rows, columns=["router_type", "dense_parameter_count", "num_experts", "loss_validation"])
    return frame.assign(hyper_id=range(len(frame)), step=250_000, k=1, seed=42, routing_frequency=0.5)
