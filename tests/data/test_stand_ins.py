"""Stand-ins have the form of what they stand in for, and a load that uses one says so."""

import networkx as nx
import pytest
import torch
from torch_geometric.utils import to_networkx

from netatlas import data


@pytest.mark.parametrize(("make", "shape"), [(data.digit_images, (1, 28, 28)), (data.colour_images, (3, 32, 32))])
def test_images_have_the_form_of_the_real_ones(make, shape):
    images, labels = make(limit=300)
    assert images.shape == (300, *shape) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1 and labels.unique().tolist() == list(range(10))
    again, _ = make(limit=300)
    assert torch.equal(images, again)
    test, _ = make(split="test", limit=50)
    assert not torch.equal(test, images[:50])
    for bad in ({"split": "valid"}, {"limit": 0}):
        with pytest.raises(ValueError, match="expected"):
            make(**bad)


@pytest.mark.parametrize("make", [data.digit_images, data.colour_images])
def test_images_can_be_learned_but_not_for_free(make):
    from sklearn.linear_model import LogisticRegression

    (images, labels), (test, answers) = make(limit=1500), make(split="test", limit=500)
    flat = torch.nn.functional.avg_pool2d(images, 2).flatten(1), torch.nn.functional.avg_pool2d(test, 2).flatten(1)
    score = LogisticRegression(max_iter=200).fit(flat[0], labels).score(flat[1], answers)
    assert 0.3 < score < 0.99


def test_the_strongly_regular_stand_in_is_strongly_regular():
    graphs = [to_networkx(g, to_undirected=True) for g in data.strongly_regular_graphs(family="sr251256")]
    for graph in graphs:
        assert nx.is_strongly_regular(graph) and len(graph) == 25 and set(dict(graph.degree).values()) == {12}
    assert not nx.is_isomorphic(*graphs)


def test_the_labelled_graph_has_several_labels():
    graph = data.labelled_graph()
    assert graph.y.shape == (2000, 12) and 1 < graph.y.sum(1).mean() < 1.4


def test_a_stand_in_gets_the_options_and_the_kind_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("NETATLAS_DATA", str(tmp_path))
    monkeypatch.setenv("NETATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NETATLAS_OFFLINE", "1")
    monkeypatch.setattr(data.catalog, "_kinds", {})
    images, labels = data.load("mnist", split="test", limit=20, stand_in=data.digit_images)
    assert len(images) == len(labels) == 20 and data.kind("mnist") == "stand-in"


def test_graphs_with_features_have_the_form_of_the_real_ones():
    cited, pages = data.citation_graph(), data.page_graph()
    assert cited.x.shape == (2700, 200) and cited.y.unique().tolist() == list(range(7))
    assert pages.x.shape == (2000, 60) and pages.x.sum(1).min() >= 1 and (pages.y > 0).all()


def test_the_citation_stand_in_has_the_public_split():
    graph = data.citation_graph()
    masks = torch.stack([graph.train_mask, graph.val_mask, graph.test_mask])
    assert masks.sum(1).tolist() == [140, 500, 1000] and masks.sum(0).max() == 1
    assert torch.bincount(graph.y[graph.train_mask]).tolist() == [20] * 7


@pytest.mark.parametrize("directed", [False, True])
def test_the_heterophilous_stand_in_has_ten_splits_and_may_be_directed(directed):
    graph = data.heterophilous_graph(directed=directed)
    masks = torch.stack([graph.train_mask, graph.val_mask, graph.test_mask])
    assert masks.shape == (3, 900, 10) and bool((masks.sum(0) == 1).all())
    same = (graph.y[graph.edge_index[0]] == graph.y[graph.edge_index[1]]).double().mean()
    assert same < 0.2 and graph.is_undirected() is not directed
    if directed:
        assert graph.num_edges * 2 == data.heterophilous_graph().num_edges


def test_the_labelled_graphs_need_more_than_their_kinds():
    graphs = data.labelled_graphs()
    assert len(graphs) == 200 and all(graph.x.shape == (graph.num_nodes, 7) for graph in graphs)
    labels = torch.cat([graph.y for graph in graphs])
    assert 0.4 < labels.double().mean() < 0.8
    assert all(nx.is_connected(to_networkx(graph, to_undirected=True)) for graph in graphs)


def test_the_pairs_are_equal_to_colour_refinement_and_not_isomorphic():
    for pairs in data.wl_pairs().values():
        for pair in pairs:
            first, second = (to_networkx(graph, to_undirected=True) for graph in pair)
            assert len(set(dict(first.degree).values())) == 1
            assert sorted(dict(first.degree).values()) == sorted(dict(second.degree).values())
            assert not nx.faster_could_be_isomorphic(first, second) or not nx.is_isomorphic(first, second)
    assert len(data.wl_pairs(category="regular")) == 5
    with pytest.raises(ValueError, match="category"):
        data.wl_pairs(category="trees")


def test_the_molecules_can_be_read():
    from rdkit import Chem

    table = data.molecule_table()
    assert list(table.columns) == ["smiles", "target"] and len(table) > 400 and table.smiles.is_unique
    assert all(Chem.MolFromSmiles(smiles) is not None for smiles in table.smiles)
    assert len(data.molecule_table(limit=7)) == 7
