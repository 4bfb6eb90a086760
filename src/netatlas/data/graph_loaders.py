"""Loaders of graphs: each turns checked files into :class:`torch_geometric.data.Data`.

A loader's first argument is ``get``, which maps a file of the registry to the path of its checked copy.
``edge_index`` lists both directions of an undirected edge, sorted, without self-loops or repetitions unless said
otherwise.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch_geometric.data import Data

Get = Callable[[str], Path]


def restricted_unpickle(payload: bytes, *, encoding: str = "latin1") -> Any:
    """Unpickle arrays, CSR matrices and plain containers; refuse every other class or function.

    Raises:
        pickle.UnpicklingError: the pickle names anything but the few types below.
    """
    return _RestrictedUnpickler(io.BytesIO(payload), encoding=encoding).load()


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        import collections

        from numpy._core import multiarray
        from scipy.sparse import csr_matrix

        allowed = {
            ("builtins", "list"): list,
            ("__builtin__", "list"): list,
            ("collections", "defaultdict"): collections.defaultdict,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("scipy.sparse.csr", "csr_matrix"): csr_matrix,
            ("scipy.sparse._csr", "csr_matrix"): csr_matrix,
        }
        try:
            return allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}: not a type of plain data") from None


def undirected(pairs: np.ndarray, nodes: int) -> np.ndarray:
    """Both directions of the distinct pairs, without self-loops, sorted: [2, 2E] int64."""
    pairs = np.asarray(pairs, dtype=np.int64).reshape(2, -1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    keys = np.unique(np.concatenate([pairs[0] * nodes + pairs[1], pairs[1] * nodes + pairs[0]]))
    return np.stack([keys // nodes, keys % nodes])


def _data(edge_index: np.ndarray, nodes: int, **attributes) -> Data:
    import torch
    from torch_geometric.data import Data

    tensors = {
        key: torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        for key, value in attributes.items()
    }
    return Data(
        edge_index=torch.from_numpy(np.ascontiguousarray(edge_index, dtype=np.int64)), num_nodes=nodes, **tensors
    )


def _mask(index: np.ndarray, nodes: int) -> np.ndarray:
    mask = np.zeros(nodes, dtype=bool)
    mask[index] = True
    return mask


def planetoid(get: Get, *, graph: str) -> Data:
    """Citation network with the public split: ``x`` [N, F] float32 (0/1 words), ``y`` [N], three masks [N].

    Cora: 2708 nodes, 5278 edges, 1433 words, 7 classes. Citeseer: 3327 nodes, 4552 edges, 3703 words, 6 classes; 15
    of its test
    nodes have no features in the files: they get zeros and label 0, and belong to no mask.
    Training nodes are 20 a class, validation nodes 500, test nodes 1000.

    Source: Yang, Cohen and Salakhutdinov (2016), arXiv:1603.08861. Licence: not stated by the authors.
    """
    from scipy import sparse

    def read(part):
        return restricted_unpickle(get(f"planetoid/{graph}/ind.{graph}.{part}").read_bytes())

    parts = {part: read(part) for part in ("x", "tx", "allx", "y", "ty", "ally", "graph")}
    order = np.loadtxt(get(f"planetoid/{graph}/ind.{graph}.test.index"), dtype=np.int64)
    known = parts["allx"].shape[0]
    nodes = max(int(order.max()) + 1, known, len(parts["graph"]))
    x = np.zeros((nodes, parts["allx"].shape[1]), dtype=np.float32)
    labels = np.zeros((nodes, parts["ally"].shape[1]))
    for place, features, target in [(np.arange(known), "allx", "ally"), (order, "tx", "ty")]:
        block = parts[features]
        x[place] = sparse.csr_array((block.data, block.indices, block.indptr), shape=block.shape).toarray()
        labels[place] = parts[target]
    neighbours = parts["graph"]
    lengths = [len(row) for row in neighbours.values()]
    heads = np.repeat(np.fromiter(neighbours.keys(), dtype=np.int64), lengths)
    tails = np.concatenate([np.asarray(row, dtype=np.int64) for row in neighbours.values()])
    train = parts["y"].shape[0]
    return _data(
        undirected(np.stack([heads, tails]), nodes),
        nodes,
        x=x,
        y=labels.argmax(1),
        train_mask=_mask(np.arange(train), nodes),
        val_mask=_mask(np.arange(train, train + 500), nodes),
        test_mask=_mask(order, nodes),
    )


def heterophilous(get: Get, *, graph: str, directed: bool = False) -> Data:
    """Heterophilous benchmark graph: ``x`` [N, F] float32, ``y`` [N], and masks [N, 10], one column a split.

    ``directed=True`` (filtered chameleon and squirrel only) keeps the direction of the links, and self-loops.

    Source: Platonov, Kuznedelev, Diskin, Babenko and Prokhorenkova (2023), arXiv:2302.11640; actor, cornell, texas
    and wisconsin: Pei
    et al. (2020), arXiv:2002.05287. Licence: MIT for the benchmark's repository.
    """
    if directed and not graph.endswith("_filtered"):
        raise ValueError(f"directed: expected False for {graph}, of which only an undirected version exists")
    with np.load(get(f"heterophilous/{graph}{'_directed' if directed else ''}.npz"), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    nodes, pairs = len(arrays["node_labels"]), arrays["edges"].T
    if directed:
        keys = np.unique(pairs[0] * nodes + pairs[1])
        edge_index = np.stack([keys // nodes, keys % nodes])
    else:
        edge_index = undirected(pairs, nodes)
    masks = {f"{part}_mask": arrays[f"{part}_masks"].T for part in ("train", "val", "test")}
    return _data(edge_index, nodes, x=arrays["node_features"], y=arrays["node_labels"], **masks)


def musae(get: Get, *, graph: str, sparse: bool = False) -> Data:
    """Social or web graph with multi-hot features ``x`` [N, F] float32 and target ``y`` [N].

    Chameleon (2277 Wikipedia articles, 31371 edges): ``y`` float32, mean monthly visits. Facebook (22470 pages,
    170823 edges): ``y`` int64, the page's type, with names in ``classes``. Twitch ENGB (7126 streamers, 35324 edges):
    ``y`` int64, 1 for mature content; ``views`` and ``days`` float32. Features are as wide as the largest feature
    number says; 625 columns of Twitch are empty. ``sparse=True`` gives ``x`` as a sparse COO tensor (dense, Facebook's
    takes 424 MB).

    Source: rozemberczki2019musae. Licence: GPL-3.0 for the repository.
    """
    import pandas as pd
    import torch

    file = {"chameleon": "chameleon", "facebook": "facebook", "twitch_engb": "ENGB"}[graph]
    pairs = pd.read_csv(get(f"musae/edges/{file}_edges.csv")).to_numpy(dtype=np.int64).T
    table = pd.read_csv(get(f"musae/target/{file}_target.csv"))
    table = table.sort_values("new_id" if graph == "twitch_engb" else "id")
    features = json.loads(get(f"musae/features/{file}.json").read_text(encoding="utf-8"))
    nodes = len(table)
    rows = np.repeat(np.fromiter(map(int, features), dtype=np.int64), [len(row) for row in features.values()])
    columns = np.fromiter((column for row in features.values() for column in row), dtype=np.int64)
    shape = (nodes, int(columns.max()) + 1)
    if sparse:
        x: Any = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([rows, columns])), torch.ones(len(rows)), shape, check_invariants=True
        ).coalesce()
        x.values().fill_(1.0)
    else:
        x = np.zeros(shape, dtype=np.float32)
        x[rows, columns] = 1
    if graph == "chameleon":
        target = {"y": table["target"].to_numpy(dtype=np.float32)}
    elif graph == "facebook":
        kinds = table["page_type"].astype("category").cat
        target = {"y": kinds.codes.to_numpy(dtype=np.int64), "classes": list(map(str, kinds.categories))}
    else:
        target = {"y": table["mature"].to_numpy(dtype=np.int64)}
        target |= {key: table[key].to_numpy(dtype=np.float32) for key in ("views", "days")}
    return _data(undirected(pairs, nodes), nodes, x=x, **target)


def _network(path: Path, *keys: str) -> list:
    from scipy.io import loadmat

    content = loadmat(path)
    return [content[key] for key in keys]


def blogcatalog(get: Get) -> Data:
    """BlogCatalog: 10312 bloggers, 333983 friendships, ``y`` [N, 39] float32 multi-hot interests. No features.

    Source: Tang and Liu (2009), as distributed with perozzi2014deepwalk. Licence: not stated.
    """
    network, group = _network(get("blogcatalog/blogcatalog.mat"), "network", "group")
    coo, nodes = network.tocoo(), network.shape[0]
    return _data(undirected(np.stack([coo.row, coo.col]), nodes), nodes, y=group.toarray().astype(np.float32))


def links(get: Get, *, graph: str, split: int | None = None) -> Data | dict[str, Any]:
    """Network of the link-prediction literature, without features; or one of its three fixed splits.

    USAir 332 nodes, 2126 edges; NS 1589, 2742; PB 1222, 16714; Yeast 2375, 11693; Celegans 297, 2148; Power 4941, 6594;
    Router 5022, 6258; Ecoli 1805, 14660. With ``split`` 1, 2 or 3 (USAir, NS, PB, Celegans, Power): a dict of
    ``train_pos``, ``train_neg``, ``test_pos``, ``test_neg`` ([2, E] int64 node pairs, numbered from 0 and each once;
    10 % of the edges are test edges) and ``graph`` (Data of the training edges).

    Source: Zhang and Chen (2018), arXiv:1802.09691; the splits: those of pan2022walkpooling's repository. Licence:
    not stated.
    """
    import torch

    if split is None:
        (network,) = _network(get(f"links/{graph}.mat"), "net")
        coo = network.tocoo()
        return _data(undirected(np.stack([coo.row, coo.col]), network.shape[0]), network.shape[0])
    if graph not in ("USAir", "NS", "PB", "Celegans", "Power") or split not in (1, 2, 3):
        raise ValueError(f"split: expected 1, 2 or 3 for USAir, NS, PB, Celegans or Power, got {split!r} for {graph}")
    (network,) = _network(get(f"links/{graph}.mat"), "net")
    keys = ("train_pos", "train_neg", "test_pos", "test_neg")
    # The files number nodes from 1, in unsigned integers that would wrap.
    arrays = [pairs.astype(np.int64).T - 1 for pairs in _network(get(f"link_splits/{graph}_split_{split}.mat"), *keys)]
    result: dict[str, Any] = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in zip(keys, arrays)}
    result["graph"] = _data(undirected(arrays[0], network.shape[0]), network.shape[0])
    return result


def tu(get: Get, *, graph: str) -> list[Data]:
    """Graph classification set: a list of Data with ``x`` [n, F] float32, one-hot node tags, and ``y`` [1].

    Where all tags are equal (IMDB), ``x`` is a column of ones.

    MUTAG 188 graphs, PTC 344, PROTEINS 1113, ENZYMES 600, NCI1 4110, IMDB-BINARY 1000, IMDB-MULTI 1500. Tags and
    labels are numbered from 0 in the order of the file's values.

    Source: Morris et al. (2020), arXiv:2007.08663, in the text form of Zhang et al. (2018), An end-to-end deep
    learning architecture for
    graph classification. Licence: not stated.
    """
    import torch
    from torch_geometric.data import Data

    lines = iter(get(f"tu/{graph}.txt").read_text(encoding="ascii").splitlines())
    graphs = []
    for _ in range(int(next(lines))):
        nodes, label = map(int, next(lines).split())
        rows = [list(map(int, next(lines).split())) for _ in range(nodes)]
        heads = np.repeat(np.arange(nodes), [row[1] for row in rows])
        tails = np.fromiter((v for row in rows for v in row[2 : 2 + row[1]]), dtype=np.int64)
        graphs.append((label, [row[0] for row in rows], undirected(np.stack([heads, tails]), nodes)))
    labels = sorted({label for label, _, _ in graphs})
    tags = {tag: k for k, tag in enumerate(sorted({tag for _, row, _ in graphs for tag in row}))}
    one_hot = torch.eye(len(tags))
    return [
        Data(
            x=one_hot[[tags[tag] for tag in row]],
            edge_index=torch.from_numpy(np.ascontiguousarray(edge_index)),
            y=torch.tensor([labels.index(label)]),
        )
        for label, row, edge_index in graphs
    ]


def read_graph6(text: str | bytes) -> tuple[int, np.ndarray]:
    """Number of nodes and both directions of the edges [2, 2E] of a graph in graph6.

    Raises:
        ValueError: bytes outside the format, or a length that does not fit the number of nodes.
    """
    raw = text.encode("ascii") if isinstance(text, str) else text
    codes = np.frombuffer(raw.strip().removeprefix(b">>graph6<<"), dtype=np.uint8).astype(np.int64) - 63
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63:
        raise ValueError(f"expected a graph in graph6, got {raw[:20]!r}")
    if codes[0] < 63:
        nodes, codes = int(codes[0]), codes[1:]
    elif codes.size >= 4 and codes[1] < 63:
        nodes, codes = int(codes[1] << 12 | codes[2] << 6 | codes[3]), codes[4:]
    else:
        raise ValueError("expected a graph6 graph of at most 258047 nodes")
    pairs = nodes * (nodes - 1) // 2
    if codes.size != -(-pairs // 6):
        raise ValueError(f"expected {-(-pairs // 6)} bytes of edges for {nodes} nodes, got {codes.size}")
    bits = (codes[:, None] >> np.arange(5, -1, -1) & 1).ravel()[:pairs].astype(bool)
    # The format lists the upper triangle by columns, that is the lower triangle by rows.
    rows, columns = np.tril_indices(nodes, -1)
    return nodes, undirected(np.stack([columns[bits], rows[bits]]), max(nodes, 1))


def _from_graph6(text: str | bytes) -> Data:
    nodes, edge_index = read_graph6(text)
    return _data(edge_index, nodes)


STRONGLY_REGULAR = {
    "sr16622": (16, 6, 2, 2),
    "sr251256": (25, 12, 5, 6),
    "sr261034": (26, 10, 3, 4),
    "sr281264": (28, 12, 6, 4),
    "sr291467": (29, 14, 6, 7),
    "sr351899": (35, 18, 9, 9),
    "sr361446": (36, 14, 4, 6),
    "sr401224": (40, 12, 2, 4),
}


def strongly_regular(get: Get, *, family: str | None = None) -> dict[str, list[Data]] | list[Data]:
    """All or some strongly regular graphs of eight parameter sets, none isomorphic to another of its family.

    A dict from family to list of graphs; the list alone if ``family`` is given. Names read as (n, k, lambda, mu):
    sr251256 is (25, 12, 5, 6). Families: 2, 15, 10, 4, 41, 227, 180 and 28 graphs.

    Source: the collections of Brendan McKay and of Edward Spence. Licence: not stated.
    """
    if family is not None and family not in STRONGLY_REGULAR:
        raise ValueError(f"family: expected one of {', '.join(STRONGLY_REGULAR)}, got {family!r}")
    wanted = STRONGLY_REGULAR if family is None else [family]
    found = {
        key: [_from_graph6(line) for line in get(f"strongly_regular/{key}.g6").read_bytes().split()] for key in wanted
    }
    return found if family is None else found[family]


BREC = {
    "basic": "basic",
    "regular": "regular",
    "strongly_regular": "str",
    "extension": "extension",
    "cfi": "cfi",
    "4vtx": "4vtx",
    "distance_regular": "dr",
}


def brec(get: Get, *, category: str | None = None) -> dict[str, list[tuple[Data, Data]]] | list[tuple[Data, Data]]:
    """BREC: 400 pairs of non-isomorphic graphs that colour refinement (1-WL) cannot tell apart.

    A dict from category to list of pairs; the list alone if ``category`` is given: basic (60 pairs), regular (50),
    strongly_regular (50), extension (100), cfi (100), 4vtx (20), distance_regular (20).

    Source: Wang and Zhang (2024), arXiv:2304.07702. Licence: MIT for the repository.
    """
    if category is not None and category not in BREC:
        raise ValueError(f"category: expected one of {', '.join(BREC)}, got {category!r}")
    found = {}
    for key in BREC if category is None else [category]:
        strings = np.load(get(f"brec/{BREC[key]}.npy"), allow_pickle=False).reshape(-1, 2)
        found[key] = [(_from_graph6(first), _from_graph6(second)) for first, second in strings.tolist()]
    return found if category is None else found[category]


def karate() -> Data:
    """Zachary's karate club (networkx): 34 members, 78 ties, ``y`` [N] int64, 1 for those who followed the officer."""
    import networkx as nx

    graph = nx.karate_club_graph()
    y = np.array([int(club != "Mr. Hi") for _, club in graph.nodes(data="club")])
    return _data(undirected(np.array(graph.edges).T, 34), 34, y=y)


def les_miserables() -> Data:
    """Characters of Les Miserables (networkx): 77 nodes, 254 ties with ``edge_weight`` float32, the common scenes."""
    import networkx as nx

    matrix = nx.to_scipy_sparse_array(nx.les_miserables_graph(), weight="weight", dtype=np.float32).tocsr()
    coo = matrix.tocoo()
    order = np.lexsort((coo.col, coo.row))
    return _data(np.stack([coo.row, coo.col])[:, order], 77, edge_weight=coo.data[order])
