"""Programs, the graphs that they build, and the modules that these wire."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GINEConv

from netatlas.expressivity import (
    GraphStructuredModule,
    Instruction,
    ProgramGraph,
    colour_rule_puzzles,
    complete_program_graph,
    enumerate_programs,
    graph_tensors,
    random_program_graph,
    run_program,
    sincos_position_2d,
    unigram_weights,
)
from netatlas.expressivity.programs import LANGUAGE

NEW, LINK, BACK, REPEAT = (lambda v, n=n: Instruction(n, v) for n in ("new", "link", "back", "repeat"))


def test_known_programs():
    path = run_program([NEW(0), NEW(0)])
    assert path == ProgramGraph(3, ((0, 1, 0), (1, 2, 0))) and path.elements == 5
    triangle = run_program([NEW(0), NEW(1), LINK(2)])
    assert triangle.edges == ((0, 1, 0), (1, 2, 1), (2, 0, 2))
    assert run_program([NEW(0), REPEAT(1)]) == run_program([NEW(0)] * 3)
    star = run_program([NEW(0), BACK(1), NEW(0), BACK(2), NEW(0)])
    assert star.edges == ((0, 1, 0), (0, 2, 0), (0, 3, 0))
    assert run_program([LINK(2), BACK(1), REPEAT(3)]) == ProgramGraph(1, ())
    assert run_program([NEW(0), BACK(1), LINK(0), REPEAT(2)]).nodes == 2


@given(st.lists(st.sampled_from(LANGUAGE), max_size=10))
@settings(deadline=None, max_examples=25)
def test_every_program_builds_a_connected_simple_graph(program):
    graph = run_program(program)
    pairs = [frozenset(e[:2]) for e in graph.edges]
    assert len(set(pairs)) == len(pairs) and all(len(p) == 2 for p in pairs)
    whole = nx.Graph([e[:2] for e in graph.edges])
    whole.add_nodes_from(range(graph.nodes))
    assert len(whole) == graph.nodes and nx.is_connected(whole)


def test_enumeration_is_distinct_bounded_and_repeatable():
    found = enumerate_programs(10, largest=12, seed=3)
    assert len({p.graph for p in found}) == 10 and all(p.graph.edges and p.graph.elements <= 12 for p in found)
    assert found == enumerate_programs(10, largest=12, seed=3)
    more = enumerate_programs(5, largest=12, seed=3, known=[p.graph for p in found])
    assert not {p.graph for p in more} & {p.graph for p in found}
    weights = unigram_weights(found)
    assert weights.sum() == len(LANGUAGE) + sum(len(p.program) for p in found)
    only = np.array([float(step.name == "new") for step in LANGUAGE])
    assert all(s.name == "new" for p in enumerate_programs(4, weights=only) for s in p.program)


def test_module_is_gine_on_the_graph_with_chunks():
    torch.manual_seed(0)
    graph, dim = run_program([NEW(0), NEW(1), LINK(2), NEW(0)]), 12
    module = GraphStructuredModule(graph_tensors(graph, dim, nodes=6, edges=7), outputs=2, depth=2)
    x = torch.randn(dim)
    size = dim // graph.elements
    cuts = [0, dim - size * (graph.elements - 1)]
    while cuts[-1] < dim:
        cuts.append(cuts[-1] + size)
    chunks = [x[a:b] for a, b in zip(cuts, cuts[1:])]
    tiled = torch.stack([c.repeat(math.ceil(dim / len(c)))[:dim] for c in chunks])
    order = [[i, 0.0] for i in range(graph.nodes)] + [[graph.nodes + j, e[2] + 1.0] for j, e in enumerate(graph.edges)]
    whole = tiled + sincos_position_2d(torch.tensor(order), dim)
    h, e = whole[: graph.nodes], whole[graph.nodes :]
    ends = torch.tensor([edge[:2] for edge in graph.edges]).T
    for conv in module.convs:
        h = GINEConv(conv, edge_dim=None)(h, torch.cat([ends, ends.flip(0)], 1), torch.cat([e, e]))
    torch.testing.assert_close(module(x[None])[0], module.read(h.mean(0)), rtol=1e-4, atol=1e-5)
    plain = GraphStructuredModule(graph_tensors(graph, dim), outputs=2, depth=2)
    plain.load_state_dict(
        {k: v for k, v in module.state_dict().items() if k in dict(plain.named_parameters())}, strict=False
    )
    torch.testing.assert_close(plain(x[None]), module(x[None]), rtol=1e-4, atol=1e-5)
    with torch.device("meta"):
        assert plain.to("meta")(torch.empty(5, dim)).shape == (5, 2)


def test_position_code_and_shuffled_chunks():
    code = sincos_position_2d(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), 8)
    torch.testing.assert_close(code[0], torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1]))
    torch.testing.assert_close(code[1, [0, 4]], torch.tensor([1.0, 2.0]).sin())
    graph = run_program([NEW(0), NEW(0)])
    straight, mixed = graph_tensors(graph, 8), graph_tensors(graph, 8, shuffle=1)
    assert torch.equal(straight.chunk.sum((0, 1)).sort().values, mixed.chunk.sum((0, 1)).sort().values)
    assert straight.chunk.any(1).any(0).all() and torch.equal(straight.code, mixed.code)


def test_controls_have_the_sizes_asked_for():
    assert len(complete_program_graph(5).edges) == 10
    graph = random_program_graph(6, 8, 0)
    pairs = {frozenset(e[:2]) for e in graph.edges}
    assert len(pairs) == 8 and nx.is_connected(nx.Graph([tuple(p) for p in pairs]))


def test_puzzles_obey_their_rule():
    x, y = colour_rule_puzzles(200, 0, noise=0.0)
    panels = x.reshape(-1, 3, 4, 3, 4).amax((2, 4))
    constant = (panels.amax(2) - panels.amin(2) < 0.05).all(1)
    assert torch.equal(constant.float(), y) and 0.4 < y.mean() < 0.6


def test_bad_input_is_refused():
    path = run_program([NEW(0)])
    for call, words in (
        (lambda: run_program([Instruction("jump", 1)]), "instructions new"),
        (lambda: run_program([Instruction("new", -1)]), "at least 0"),
        (lambda: enumerate_programs(1, length=1), "length of at least 2"),
        (lambda: enumerate_programs(1, weights=[1.0]), "non-negative weights"),
        (lambda: enumerate_programs(500, length=2), "programs with graphs"),
        (lambda: unigram_weights([], -1), "smoothing"),
        (lambda: sincos_position_2d(torch.ones(1, 2), 6), "multiple of 4"),
        (lambda: sincos_position_2d(torch.ones(1, 3), 8), "positions"),
        (lambda: graph_tensors(ProgramGraph(1, ()), 8), "with an edge"),
        (lambda: graph_tensors(complete_program_graph(5), 8), "at most 8"),
        (lambda: graph_tensors(path, 8, nodes=1), "padding to at least"),
        (lambda: GraphStructuredModule(graph_tensors(path, 8), depth=0), "at least one convolution"),
        (lambda: complete_program_graph(1), "two nodes"),
        (lambda: random_program_graph(4, 2, 0), "connected simple graph"),
        (lambda: colour_rule_puzzles(0, 0), "at least one puzzle"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
