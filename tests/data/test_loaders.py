import io
import os
import pickle
from collections import Counter
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import coalesce, contains_self_loops, is_undirected

from netatlas import data
from netatlas.data import array_loaders, catalog, graph_loaders, store


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NETATLAS_CACHE", str(tmp_path_factory.getbasetemp() / "netatlas-cache"))


def real(name, **options):
    """Load, or skip if the files are not here: tests download nothing."""
    missing = [file for file in catalog.entry(name).files if store.find(file) is None]
    if missing:
        pytest.skip(f"{missing[0]} is neither in NETATLAS_DATA ({os.environ.get('NETATLAS_DATA')}) nor in the cache")
    return data.load(name, **options)


def assert_simple(graph):
    edges = graph.edge_index
    assert edges.dtype == torch.int64
    assert is_undirected(edges, num_nodes=graph.num_nodes)
    assert not contains_self_loops(edges)
    keys = edges[0] * graph.num_nodes + edges[1]
    assert (keys[1:] > keys[:-1]).all()
    assert edges.max() < graph.num_nodes


# --- images and tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "count", "first"), [("train", 60000, [5, 0, 4, 1, 9]), ("test", 10000, [7, 2, 1, 0, 4])]
)
def test_mnist(split, count, first):
    images, labels = real("mnist", split=split)
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert labels[:5].tolist() == first
    few, few_labels = real("mnist", split=split, limit=7)
    assert torch.equal(few, images[:7])
    assert torch.equal(few_labels, labels[:7])
    if split == "train":
        # The customary constants of normalisation.
        assert images.mean().item() == pytest.approx(0.1307, abs=1e-4)
        assert images.std().item() == pytest.approx(0.3081, abs=1e-4)
        assert torch.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_idx_reader_refuses_other_files(tmp_path):
    import gzip

    path = tmp_path / "x.gz"
    for content in (b"", b"\x00\x00\x0d\x01" + bytes(8), b"\x00\x00\x08\x01\x00\x00\x00\x05abc"):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(ValueError):
            array_loaders.read_idx(path)


def test_cifar10_jpeg_decodes_as_much_as_asked_and_keeps_it(monkeypatch, tmp_path):
    monkeypatch.setenv("NETATLAS_CACHE", str(tmp_path))
    images, labels = real("cifar10_jpeg", split="test", limit=300)
    assert images.shape == (300, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert len(labels.unique()) == 10
    # The order is random, not by class: 300 of a balanced 10000.
    assert torch.bincount(labels).min() >= 30 - 5 * np.sqrt(27)
    (stored,) = (tmp_path / "decoded").iterdir()
    more, more_labels = real("cifar10_jpeg", split="test", limit=400)
    assert torch.equal(more[:300], images)
    assert torch.equal(more_labels[:300], labels)
    from PIL import Image

    monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("decoded again"))
    assert torch.equal(real("cifar10_jpeg", split="test", limit=200)[0], images[:200])
    monkeypatch.undo()
    monkeypatch.setenv("NETATLAS_CACHE", str(tmp_path))
    damaged = bytearray(stored.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    stored.write_bytes(bytes(damaged))
    assert torch.equal(real("cifar10_jpeg", split="test", limit=200)[0], images[:200])


def test_cifar10_jpeg_shows_the_class_that_its_label_says():
    import zipfile

    from PIL import Image

    images, labels = real("cifar10_jpeg", split="test", limit=20)
    with zipfile.ZipFile(store.locate("cifar10_jpeg/cifar10-jpeg.zip")) as archive:
        for image, label in zip(images, labels.tolist()):
            folder = f"test/{array_loaders.CIFAR10_CLASSES[label]}/"
            wanted = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            members = (m for m in archive.namelist() if m.startswith(folder))
            assert any((np.asarray(Image.open(io.BytesIO(archive.read(m)))) == wanted).all() for m in members)


@pytest.mark.parametrize("name", ["mnist", "cifar10_jpeg", "digits"])
def test_images_refuse_bad_splits_and_limits(name):
    for options in ({"split": "validation"}, {"limit": 0}, {"limit": 2.5}, {"limit": True}):
        with pytest.raises(ValueError, match=next(iter(options))):
            real(name, **options)


def test_digits():
    images, labels = data.load("digits")
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    train, test = data.load("digits", split="train"), data.load("digits", split="test")
    assert (len(train[0]), len(test[0])) == (1437, 360)
    together = torch.cat([train[0], test[0]]).flatten(1)
    assert torch.equal(together.sum(1).sort().values, images.flatten(1).sum(1).sort().values)
    assert torch.equal(torch.bincount(torch.cat([train[1], test[1]])), torch.bincount(labels))
    assert data.kind("digits") == "real"


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("iris", (150, 4), 3), ("wine", (178, 13), 3), ("breast_cancer", (569, 30), 2), ("diabetes", (442, 10), None)],
)
def test_bundled_tables(name, shape, classes):
    x, y = data.load(name)
    assert x.shape == shape
    assert len(y) == shape[0]
    assert y.dtype == (torch.int64 if classes else torch.float32)
    assert classes is None or y.unique().tolist() == list(range(classes))


# --- graphs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes"),
    [("cora", 2708, 5278, 1433, 7), ("citeseer", 3327, 4552, 3703, 6)],
)
def test_planetoid_equals_the_reader_of_pyg(name, nodes, edges, features, classes):
    from torch_geometric.io import read_planetoid_data

    graph = real(name)
    assert (graph.num_nodes, graph.num_edges, graph.x.shape[1]) == (nodes, 2 * edges, features)
    assert_simple(graph)
    assert [int(m.sum()) for m in (graph.train_mask, graph.val_mask, graph.test_mask)] == [20 * classes, 500, 1000]
    assert torch.bincount(graph.y[graph.train_mask]).tolist() == [20] * classes
    reference = read_planetoid_data(str(store.locate(f"planetoid/{name}/ind.{name}.x").parent), name)
    assert torch.equal(graph.edge_index, coalesce(reference.edge_index))
    for key in ("x", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(graph[key], reference[key]), key


def test_isolated_test_nodes_of_citeseer():
    graph = real("citeseer")
    empty = graph.x.sum(1) == 0
    assert empty.sum() == 15
    masked = graph.train_mask | graph.val_mask | graph.test_mask
    assert not (empty & masked).any()


class Attack:
    def __reduce__(self):
        return os.system, ("echo taken over",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_unpickler_refuses_code(protocol):
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        graph_loaders.restricted_unpickle(pickle.dumps(Attack(), protocol))
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        graph_loaders.restricted_unpickle(pickle.dumps({"x": [eval]}, protocol))


@pytest.mark.parametrize(
    "name", ["builtins getattr", "numpy load", "numpy.core.multiarray scalar", "collections OrderedDict"]
)
def test_unpickler_refuses_what_the_files_do_not_need(name):
    module, attribute = name.split()
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        graph_loaders.restricted_unpickle(f"c{module}\n{attribute}\n.".encode())


def test_unpickler_reads_plain_data():
    content = {"a": [1, (2.5, "b")], "c": np.arange(6).reshape(2, 3)}
    found = graph_loaders.restricted_unpickle(pickle.dumps(content, 4))
    assert found["a"] == content["a"]
    np.testing.assert_array_equal(found["c"], content["c"])


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes"),
    [
        ("minesweeper", 10000, 39402, 7, 2),
        ("tolokers", 11758, 519000, 10, 2),
        ("chameleon_filtered", 890, 8854, 2325, 5),
        ("squirrel_filtered", 2223, 46998, 2089, 5),
        ("actor", 7600, 26659, 932, 5),
        ("cornell", 183, 277, 1703, 5),
        ("texas", 183, 279, 1703, 5),
        ("wisconsin", 251, 450, 1703, 5),
    ],
)
def test_heterophilous(name, nodes, edges, features, classes):
    graph = real(name)
    assert (graph.num_nodes, graph.num_edges) == (nodes, 2 * edges)
    assert graph.x.shape == (nodes, features)
    assert graph.y.unique().tolist() == list(range(classes))
    assert_simple(graph)
    together = graph.train_mask.int() + graph.val_mask.int() + graph.test_mask.int()
    assert together.shape == (nodes, 10)
    assert (together == 1).all()


def test_directed_heterophilous():
    graph = real("squirrel_filtered", directed=True)
    assert graph.num_edges == 65718
    assert not is_undirected(graph.edge_index)
    kept = graph_loaders.undirected(graph.edge_index.numpy(), 2223)
    np.testing.assert_array_equal(kept, real("squirrel_filtered").edge_index.numpy())
    with pytest.raises(ValueError, match="directed"):
        real("texas", directed=True)


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features"),
    [
        ("musae_chameleon", 2277, 31371, 3132),
        ("musae_facebook", 22470, 170823, 4714),
        ("musae_twitch_engb", 7126, 35324, 3170),
    ],
)
def test_musae(name, nodes, edges, features):
    graph = real(name, sparse=True)
    assert (graph.num_nodes, graph.num_edges) == (nodes, 2 * edges)
    assert graph.x.shape == (nodes, features)
    assert (graph.x.values() == 1).all()
    assert_simple(graph)
    assert len(graph.y) == nodes
    if name == "musae_facebook":
        sizes = dict(zip(graph.classes, torch.bincount(graph.y).tolist()))
        assert sizes == {"company": 6495, "government": 6880, "politician": 5768, "tvshow": 3327}
    elif name == "musae_twitch_engb":
        assert graph.y.sum() == 3888
        assert len(graph.views) == nodes
    else:
        assert graph.y[:3].tolist() == [171, 8089, 8568]
        assert torch.equal(real(name).x, graph.x.to_dense())


def test_blogcatalog():
    graph = real("blogcatalog")
    assert (graph.num_nodes, graph.num_edges) == (10312, 2 * 333983)
    assert graph.y.shape == (10312, 39)
    assert graph.y.sum() == 14476
    assert graph.y.sum(1).min() == 1
    assert_simple(graph)


@pytest.mark.parametrize(
    ("name", "nodes", "edges"),
    [
        ("usair", 332, 2126),
        ("ns", 1589, 2742),
        ("pb", 1222, 16714),
        ("yeast", 2375, 11693),
        ("celegans", 297, 2148),
        ("power", 4941, 6594),
        ("router", 5022, 6258),
        ("ecoli", 1805, 14660),
    ],
)
def test_links(name, nodes, edges):
    graph = real(name)
    assert (graph.num_nodes, graph.num_edges) == (nodes, 2 * edges)
    assert_simple(graph)


@pytest.mark.parametrize("name", ["usair", "ns", "pb", "power", "celegans"])
@pytest.mark.parametrize("split", [1, 2, 3])
def test_link_splits_partition_the_edges(name, split):
    graph, parts = real(name), real(name, split=split)
    n = graph.num_nodes

    def keys(pairs):
        return {(min(a, b), max(a, b)) for a, b in pairs.T.tolist()}

    edges = keys(graph.edge_index)
    train, test = keys(parts["train_pos"]), keys(parts["test_pos"])
    assert train | test == edges
    assert len(train) + len(test) == len(edges) == parts["train_pos"].shape[1] + parts["test_pos"].shape[1]
    assert len(test) / len(edges) == pytest.approx(0.1, abs=0.01)
    for part in ("train_neg", "test_neg"):
        assert not keys(parts[part]) & edges
        assert parts[part].shape == parts[part.replace("neg", "pos")].shape
        assert 0 <= parts[part].min() <= parts[part].max() < n
    assert keys(parts["graph"].edge_index) == train


def test_links_refuse_splits_that_do_not_exist():
    for name, split in [("usair", 4), ("yeast", 1), ("usair", "train")]:
        with pytest.raises(ValueError, match="split"):
            real(name, split=split)


@pytest.mark.parametrize(
    ("name", "graphs", "nodes", "edges", "tags", "classes"),
    [
        ("mutag", 188, 3371, 3721, 7, 2),
        ("ptc", 344, 8792, 8931, 19, 2),
        ("proteins", 1113, 43471, 81044, 3, 2),
        ("enzymes", 600, 19580, 37282, 3, 6),
        ("nci1", 4110, 122747, 132753, 37, 2),
        ("imdb_binary", 1000, 19773, 96531, 1, 2),
        ("imdb_multi", 1500, 19502, 98903, 1, 3),
    ],
)
def test_tu(name, graphs, nodes, edges, tags, classes):
    found = real(name)
    assert len(found) == graphs
    assert sum(g.num_nodes for g in found) == nodes
    assert sum(g.num_edges for g in found) == 2 * edges
    assert {g.x.shape[1] for g in found} == {tags}
    assert all((g.x.sum(1) == 1).all() for g in found)
    assert sorted({int(g.y) for g in found}) == list(range(classes))
    for g in found[::97]:
        assert_simple(g)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 70), st.integers(0, 2**31))
def test_graph6_reader_equals_networkx(nodes, seed):
    rng = np.random.default_rng(seed)
    matrix = np.triu(rng.random((nodes, nodes)) < 0.4, 1)
    graph = nx.from_numpy_array((matrix | matrix.T).astype(int)) if nodes else nx.empty_graph(0)
    count, edges = graph_loaders.read_graph6(nx.to_graph6_bytes(graph, header=bool(seed % 2)))
    assert count == nodes
    assert {(a, b) for a, b in edges.T.tolist() if a < b} == {tuple(sorted(e)) for e in graph.edges}
    assert edges.shape[1] == 2 * graph.number_of_edges()


@pytest.mark.parametrize("text", ["", "\x1f", "D", "D??????", "~~?????", "Dhc\x7f"])
def test_graph6_reader_refuses(text):
    with pytest.raises(ValueError):
        graph_loaders.read_graph6(text)


def test_strongly_regular_graphs_are():
    families = real("strongly_regular")
    assert [len(graphs) for graphs in families.values()] == [2, 15, 10, 4, 41, 227, 180, 28]
    for key, graphs in families.items():
        n, k, both, neither = graph_loaders.STRONGLY_REGULAR[key]
        for graph in graphs:
            A = np.zeros((n, n))
            A[tuple(graph.edge_index.numpy())] = 1
            eye, ones = np.eye(n), np.ones((n, n))
            assert (k * eye + both * A + neither * (ones - eye - A) == A @ A).all()
    assert len(real("strongly_regular", family="sr251256")) == 15
    with pytest.raises(ValueError, match="family"):
        real("strongly_regular", family="sr1")


def test_brec():
    pairs = real("brec")
    counts = {"basic": 60, "regular": 50, "strongly_regular": 50, "extension": 100, "cfi": 100, "4vtx": 20}
    assert {key: len(value) for key, value in pairs.items()} == counts | {"distance_regular": 20}
    for value in pairs.values():
        for first, second in value[::7]:
            assert first.num_nodes == second.num_nodes
            one, two = (nx.Graph(graph.edge_index.T.tolist()) for graph in (first, second))
            assert nx.weisfeiler_lehman_graph_hash(one) == nx.weisfeiler_lehman_graph_hash(two)
    first, second = (nx.Graph(graph.edge_index.T.tolist()) for graph in pairs["basic"][0])
    assert not nx.is_isomorphic(first, second)
    assert len(real("brec", category="cfi")) == 100
    with pytest.raises(ValueError, match="category"):
        real("brec", category="nope")


def test_bundled_graphs():
    karate = data.load("karate")
    assert (karate.num_nodes, karate.num_edges, int(karate.y.sum())) == (34, 156, 17)
    novel = data.load("les_miserables")
    assert (novel.num_nodes, novel.num_edges, int(novel.edge_weight.sum())) == (77, 508, 1640)
    assert_simple(karate)
    assert_simple(novel)


# --- interactions, hypergraphs, series ---------------------------------------------------------------------------


def test_lastfm():
    tables = real("lastfm")
    assert {key: len(table) for key, table in tables.items()} == {"train": 42135, "test": 10533, "trust": 25434}
    train, test, trust = tables["train"], tables["test"], tables["trust"]
    assert set(trust.user) == set(range(1892))
    assert len(set(train.user) | set(test.user)) == 1880
    assert set(train.item) | set(test.item) == set(range(4489))
    assert not set(zip(train.user, train.item)) & set(zip(test.user, test.item))
    assert train.plays.max() == 324660
    ties = set(zip(trust.user, trust.friend))
    assert {(b, a) for a, b in ties} == ties
    assert train.user.nunique() == 1878


@pytest.mark.parametrize(
    ("name", "count", "nodes", "largest", "ordered"),
    [
        ("email_enron", 10883, 143, 18, False),
        ("ndc_classes", 49724, 1161, 24, False),
        ("contact_primary_school", 106879, 242, 5, True),
        ("contact_high_school", 172035, 327, 5, True),
    ],
)
def test_simplices(name, count, nodes, largest, ordered):
    found = real(name)
    assert len(found["simplices"]) == len(found["times"]) == count
    assert len(np.unique(found["nodes"])) == nodes
    assert max(map(len, found["simplices"])) == largest
    assert all(len(set(simplex)) == len(simplex) for simplex in found["simplices"])
    assert found["nodes"].min() == 0
    assert all(a <= b for a, b in pairwise(found["times"])) == ordered
    for k in (0, 1, count - 1):
        assert found["simplices"][k] == tuple(found["nodes"][found["offsets"][k] : found["offsets"][k + 1]])
    if name == "email_enron":
        assert found["labels"][0] == "phillip.allen@enron.com"
    if name == "ndc_classes":
        assert set(found["labels"]) == set(range(1161))


def test_email_eu():
    found = real("email_eu")
    assert len(found["hyperedges"]) == 209508
    assert all(len(a) == len(b) for a, b in zip(found["hyperedges"], found["roles"]))
    assert len({v for hyperedge in found["hyperedges"] for v in hyperedge}) == 986
    assert Counter(role for roles in found["roles"] for role in roles) == {0: 209508, 1: 332334}
    assert all(roles.count(0) == 1 for roles in found["roles"])
    parts = np.concatenate([found[part] for part in ("train", "val", "test")])
    assert np.array_equal(np.sort(parts), np.arange(209508))
    assert len(found["val"]) == len(found["test"]) == 41902


@pytest.mark.parametrize(("name", "rows"), [("esol", 1128), ("malaria", 9999)])
def test_molecules(name, rows):
    table = real(name)
    assert len(table) == rows
    assert list(table.columns[:2]) == ["smiles", "target"]
    assert not table[["smiles", "target"]].isna().any().any()
    assert table.smiles.is_unique
    assert real(name, limit=5).equals(table.head(5))


@pytest.mark.parametrize("name", ["etth1", "etth2"])
def test_ett(name):
    import pandas as pd

    table = real(name)
    assert table.shape == (17420, 7)
    assert list(table.columns) == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    assert (np.diff(table.index) == pd.Timedelta("1h")).all()
    assert table.index[0] == pd.Timestamp("2016-07-01")
    parts = [real(name, split=split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [8640, 2880, 2880]
    assert pd.concat(parts).equals(table.iloc[:14400])
    with pytest.raises(ValueError, match="split"):
        real(name, split="all")


def test_los_loop():
    found = real("los_loop")
    speed, graph = found["speed"], found["graph"]
    assert speed.shape == (2016, 207)
    assert speed.min().min() > 0 and speed.max().max() == 70
    assert str(speed.index[-1]) == "2012-03-07 23:55:00"
    assert (graph.num_nodes, graph.num_edges) == (207, 2833)
    assert graph.edge_weight.max() == 1
    assert is_undirected(graph.edge_index, graph.edge_weight)


def test_shenzhen():
    graph = real("shenzhen")
    assert (graph.num_nodes, graph.num_edges) == (156, 532)
    assert (graph.edge_weight == 1).all()
    ties = set(map(tuple, graph.edge_index.T.tolist()))
    assert len([tie for tie in ties if tie[::-1] not in ties]) == 2


def test_routed_scaling():
    table = real("routed_scaling")
    assert table.shape == (5799, 22)
    assert table.hyper_id.nunique() == 223
    assert set(table.router_type) == {"Dense", "S-Base", "Hash", "RL-R"}


def test_seismic():
    found = real("seismic")
    waveforms = found["waveforms"]
    assert waveforms.shape == (154, 3, 9001)
    assert np.isfinite(waveforms).all()
    assert (found["p"] == 3000).all()
    assert (found["s"].min(), found["s"].max()) == (3036, 4285)
    silent = (waveforms == 0).all(axis=2)
    assert silent.sum(axis=0).tolist() == [39, 39, 0]
    assert [c.count("_") for c in found["channels"]] == [0 if s else 2 for s in silent[:, 0]]
    assert len(set(found["station"])) == 108
    few = real("seismic", limit=4)
    np.testing.assert_array_equal(few["waveforms"], waveforms[:4])


def test_collections_come_as_dicts():
    found = real("planetoid")
    assert list(found) == ["cora", "citeseer"]
    assert found["cora"].num_nodes == 2708
    assert data.kind("planetoid") == data.kind("cora") == "real"
    assert data.load("Contact-High-School" if "simplices" in data.available() else "iris") is not None
