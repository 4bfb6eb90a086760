"""What colour refinement leaves open, against brute force and networkx."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networkx.generators.atlas import graph_atlas_g
from torch_geometric.data import Data

from netatlas.core.graph_invariants import colour_refinement
from netatlas.expressivity import accuracy_bound, identifiability, isomorphism_classes

ATLAS = [g for g in graph_atlas_g() if len(g) == 6]


def shuffled(graph, seed):
    order = np.random.default_rng(seed).permutation(len(graph))
    other = nx.Graph()
    other.add_nodes_from(range(len(graph)))
    other.add_edges_from((int(order[u]), int(order[v])) for u, v in graph.edges)
    return other


def test_atlas_graphs_are_all_different_and_copies_the_same():
    copies = [shuffled(g, i) for i, g in enumerate(ATLAS)]
    classes = isomorphism_classes(ATLAS + copies)
    assert classes[: len(ATLAS)].tolist() == list(range(len(ATLAS)))
    assert np.array_equal(classes[: len(ATLAS)], classes[len(ATLAS) :])
    found = identifiability(colour_refinement(ATLAS + copies).classes(), classes)
    assert (found.classes, found.graphs) == (152, 156) and found.share == 152 / 156


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30))
@settings(deadline=None, max_examples=25)
def test_bound_is_the_best_function_of_the_descriptor(pairs):
    descriptor, labels = np.array(pairs).T
    functions = itertools.product(range(3), repeat=4)
    best = max(np.mean([f[d] == y for d, y in pairs]) for f in functions)
    assert accuracy_bound(descriptor, labels) == pytest.approx(best)
    assert accuracy_bound(np.arange(len(labels)), labels) == 1


def test_labels_and_edge_labels_make_graphs_different():
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    tags = [torch.eye(3)[[0, 1, 0]], torch.eye(3)[[1, 0, 0]], torch.eye(3)[[1, 1, 0]]]
    graphs = [Data(x=x, edge_index=path) for x in (*tags, tags[1].flip(0))]
    assert isomorphism_classes(graphs).tolist() == [0, 1, 2, 1]
    assert isomorphism_classes(graphs, node_labels=False).tolist() == [0] * 4
    square = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
    bonds = [torch.tensor(b).repeat_interleave(2) for b in ([1, 2, 1, 2], [1, 1, 2, 2], [2, 1, 2, 1])]
    rings = [Data(edge_index=square, edge_attr=b, num_nodes=4) for b in bonds]
    assert isomorphism_classes(rings).tolist() == [0, 1, 0]


def test_regular_graphs_fall_into_one_class_that_vf2_splits():
    regular = [
        nx.cycle_graph(6),
        nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)),
        shuffled(nx.cycle_graph(6), 1),
    ]
    assert isomorphism_classes(regular).tolist() == [0, 1, 0]
    found = identifiability(colour_refinement(regular).classes(), isomorphism_classes(regular))
    assert found.share == 0.5 and found.alone == 0


@given(st.integers(0, 1000), st.integers(2, 3))
@settings(deadline=None, max_examples=10)
def test_copies_of_graphs_whose_nodes_look_alike_are_found_by_lists_or_by_vf2(seed, degree):
    graphs = [nx.random_regular_graph(degree, 8, seed=seed + i) for i in range(4)]
    classes = isomorphism_classes([h for g in graphs for h in (g, g, shuffled(g, seed))]).reshape(4, 3)
    assert (classes == classes[:, :1]).all()
    for a, b in itertools.combinations(range(4), 2):
        assert (classes[a, 0] == classes[b, 0]) == nx.is_isomorphic(graphs[a], graphs[b])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least one graph"):
        identifiability(np.array([], dtype=int), np.array([], dtype=int))
    with pytest.raises(ValueError, match="one class of each kind"):
        identifiability(np.zeros(2, dtype=int), np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="equal on isomorphic"):
        identifiability(np.arange(2), np.zeros(2, dtype=int))
    for descriptor, labels in (([], []), ([0], [0, 1])):
        with pytest.raises(ValueError, match="as many labels"):
            accuracy_bound(np.array(descriptor), np.array(labels))
    with pytest.raises(ValueError, match="stable"):
        isomorphism_classes([nx.path_graph(5)], colour_refinement([nx.path_graph(5)], rounds=0))
    with pytest.raises(ValueError, match="at least one node"):
        isomorphism_classes([nx.Graph()])
