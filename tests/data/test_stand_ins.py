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
