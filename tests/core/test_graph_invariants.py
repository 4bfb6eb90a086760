"""Graph invariants against networkx, brute force, and what theory says that they tell apart."""

import itertools

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networkx.generators.atlas import graph_atlas_g
from torch_geometric.data import Data

from netatlas.core import graph_invariants as gi
from netatlas.core.graph_invariants import (
    ContractionProgram,
    MarkedGraph,
    canonical_form,
    collect_graphs,
    colour_histogram,
    colour_refinement,
    dense_adjacency,
    folklore_refinement,
    homomorphism_counts,
    marked_graph,
    multiset_classes,
    subgraph_counts,
)

ATLAS = graph_atlas_g()
CYCLES = (nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3)))


def rook():
    return nx.line_graph(nx.complete_bipartite_graph(4, 4))


def shrikhande():
    steps = [(0, 1), (1, 0), (1, 1), (0, 3), (3, 0), (3, 3)]
    cells = list(itertools.product(range(4), repeat=2))
    return nx.Graph([(c, ((c[0] + a) % 4, (c[1] + b) % 4)) for c in cells for a, b in steps])


def random_graph(seed, nodes, chance):
    return nx.gnp_random_graph(nodes, chance, seed=seed)


graphs = st.builds(random_graph, st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([0.0, 0.2, 0.5, 0.9]))


def refinement_by_dictionaries(graph_list, rounds):
    """Colour refinement from its definition, with nested tuples instead of hashes."""
    colours = [dict.fromkeys(g, 0) for g in graph_list]
    for _ in range(rounds):
        names = {}
        signs = [{v: (c[v], tuple(sorted(c[u] for u in g[v]))) for v in g} for g, c in zip(graph_list, colours)]
        for sign in sorted({s for one in signs for s in one.values()}):
            names[sign] = len(names)
        colours = [{v: names[s] for v, s in one.items()} for one in signs]
    return np.array([c[v] for g, c in zip(graph_list, colours) for v in g])


def same_partition(a, b):
    both = len(set(zip(a.tolist(), b.tolist())))
    return both == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_refinement_is_the_definition(rounds):
    some = [g for g in ATLAS if len(g) in (4, 5, 6)]
    refined = colour_refinement(some)
    assert same_partition(refined.at(rounds), refinement_by_dictionaries(some, rounds))


def test_class_counts_of_all_small_graphs():
    found = {n: colour_refinement([g for g in ATLAS if len(g) == n]) for n in (5, 6, 7)}
    counts = {n: [len(set(r.classes(t))) for t in (1, 2, 3, None)] for n, r in found.items()}
    assert counts[5] == [31, 34, 34, 34] and counts[6] == [102, 152, 152, 152]
    assert counts[7] == [342, 952, 1018, 1022]


@given(graphs, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_numbering_of_nodes_does_not_matter(graph, random):
    order = list(graph)
    random.shuffle(order)
    other = nx.relabel_nodes(graph, dict(zip(graph, order)))
    shuffled = nx.Graph()
    shuffled.add_nodes_from(range(len(graph)))
    shuffled.add_edges_from(other.edges)
    first, second = colour_refinement([graph]).at(), colour_refinement([shuffled]).at()
    assert np.array_equal(first, second[order])
    for k in (2, 3):
        classes = folklore_refinement([graph, shuffled], k).classes()
        assert classes[0] == classes[1]
    patterns = [nx.path_graph(3), nx.complete_graph(3), nx.cycle_graph(4)]
    counts = homomorphism_counts(patterns, [graph, shuffled])
    assert torch.equal(counts[0], counts[1])


@given(st.lists(graphs, min_size=2, max_size=6))
@settings(deadline=None, max_examples=20)
def test_refinement_agrees_with_networkx_and_folklore_refines_it(many):
    classes = colour_refinement(many).classes()
    hashes = [nx.weisfeiler_lehman_graph_hash(g, iterations=12, digest_size=16) for g in many]
    pairs = folklore_refinement(many, 2, check="exact").classes()
    for i, j in itertools.combinations(range(len(many)), 2):
        same_size = len(many[i]) == len(many[j])
        assert (classes[i] == classes[j]) == (hashes[i] == hashes[j] and same_size)
        assert pairs[i] != pairs[j] or classes[i] == classes[j]
        # On at most nine nodes, equal 2-FWL classes are isomorphic.
        assert (pairs[i] == pairs[j]) == nx.is_isomorphic(many[i], many[j])


def test_what_each_dimension_tells_apart():
    strongly_regular = (rook(), shrikhande())
    assert len(set(colour_refinement(CYCLES).classes())) == 1
    assert len(set(folklore_refinement(CYCLES, 2).classes())) == 2
    for check in ("independent", "exact"):
        assert len(set(folklore_refinement(strongly_regular, 2, check=check).classes())) == 1
        assert len(set(folklore_refinement(strongly_regular, 3, check=check).classes())) == 2


def test_labels_edges_and_directions_count():
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    plain = Data(edge_index=path, num_nodes=3)
    middle = Data(edge_index=path, x=torch.tensor([[0], [1], [0]]))
    end = Data(edge_index=path, x=torch.tensor([[1], [0], [0]]))
    assert len(set(colour_refinement([middle, end]).classes(0))) == 1
    assert len(set(colour_refinement([middle, end]).classes())) == 2
    assert len(set(colour_refinement([middle, end], node_labels=False).classes())) == 1
    single = Data(edge_index=path, edge_attr=torch.tensor([1, 1, 2, 2]), num_nodes=3)
    double = Data(edge_index=path, edge_attr=torch.tensor([1, 1, 1, 1]), num_nodes=3)
    for refine in (colour_refinement, folklore_refinement):
        assert len(set(refine([single, double]).classes())) == 2
        assert len(set(refine([single, double], edge_labels=False).classes())) == 1
    twice = Data(edge_index=torch.cat([path, path[:, :2]], 1), num_nodes=3)
    loop = Data(edge_index=torch.cat([path, torch.tensor([[0], [0]])], 1), num_nodes=3)
    assert len(set(colour_refinement([plain, twice, loop]).classes())) == 3
    assert len(set(folklore_refinement([plain, twice, loop]).classes())) == 3
    out, into = torch.tensor([[0, 0], [1, 2]]), torch.tensor([[1, 2], [0, 0]])
    assert len(set(colour_refinement([out, into]).classes())) == 2
    weighted = np.array([[0, 2.0], [2.0, 0]])
    assert len(set(colour_refinement([weighted, weighted > 0]).classes())) == 2


def test_forms_of_one_graph_agree_and_isolated_nodes_stay():
    graph = nx.path_graph(4)
    graph.add_node(4)
    dense = nx.to_numpy_array(graph)
    edges = torch.tensor(np.stack(np.nonzero(dense)))
    forms = [graph, dense, sp.csr_array(dense), torch.tensor(dense), Data(edge_index=edges, num_nodes=5)]
    assert len(set(colour_refinement(forms).classes())) == 1
    refined = colour_refinement(forms)
    assert refined.colours.shape[1] == 25 and len(set(refined.at()[:5].tolist())) == 3
    edgeless = colour_refinement([nx.empty_graph(3), nx.empty_graph(2)])
    assert edgeless.stable and len(set(edgeless.classes())) == 2


def test_rounds_are_kept_and_can_be_cut():
    cut = colour_refinement([nx.path_graph(9)], rounds=1)
    assert not cut.stable and cut.colours.shape[0] == 2
    with pytest.raises(ValueError, match="at most 1 rounds"):
        cut.at(2)
    whole = colour_refinement([nx.path_graph(9)])
    assert whole.stable and np.array_equal(whole.at(50), whole.at())


def test_collisions_are_repaired(monkeypatch):
    some = [g for g in ATLAS if len(g) == 6]
    honest = colour_refinement(some).at()
    real, calls = gi._neighbour_hashes, []

    def poor(*arguments):
        calls.append(1)
        hashes = real(*arguments)
        return hashes % np.uint64(3) if len(calls) % 3 else hashes

    monkeypatch.setattr(gi, "_neighbour_hashes", poor)
    assert same_partition(colour_refinement(some).at(), honest) and len(calls) > 3
    monkeypatch.setattr(gi, "_neighbour_hashes", lambda *a: real(*a) % np.uint64(3))
    with pytest.raises(RuntimeError, match="collisions"):
        colour_refinement(some)


@pytest.mark.parametrize("check", ["independent", "exact"])
def test_collisions_of_tuples_are_repaired(monkeypatch, check):
    honest = folklore_refinement(CYCLES, 2).classes()
    real = gi._tuple_hashes
    monkeypatch.setattr(gi, "_tuple_hashes", lambda c, p, s: real(c, p, s) % np.uint64(2 if s < 3 else 1 << 63))
    assert same_partition(folklore_refinement(CYCLES, 2, check=check).classes(), honest)


def test_refinement_may_end_once_all_graphs_are_apart():
    cycles = [nx.cycle_graph(12), nx.disjoint_union(nx.cycle_graph(5), nx.cycle_graph(7))]
    for k in (2, 3):
        whole = folklore_refinement(cycles, k)
        short = folklore_refinement(cycles, k, until_apart=True)
        assert len(short.colours) < len(whole.colours) and not short.stable
        assert len(set(short.classes())) == len(set(whole.classes())) == 2
        same = folklore_refinement([cycles[0], cycles[0]], k, until_apart=True)
        assert same.stable and len(set(same.classes())) == 1


def test_histogram_is_the_subtree_kernel_of_its_definition():
    some = [g for g in ATLAS if len(g) in (3, 4)]
    refined = colour_refinement(some, rounds=2)
    histogram = colour_histogram(refined).toarray()
    assert np.array_equal(histogram.sum(1), [len(g) * len(refined.colours) for g in some])
    kernel = np.zeros((len(some), len(some)))
    for colours in refined.colours:
        parts = np.split(colours, np.cumsum([len(g) for g in some])[:-1])
        kernel += [[sum((a == c) * (b == c) for a in x for b in y for c in [a]) for y in parts] for x in parts]
    assert np.array_equal(histogram @ histogram.T, kernel)
    assert colour_histogram(refined, 0).shape == (len(some), 1)


@pytest.mark.parametrize("shift", [0, 1 << 61])
def test_multisets_of_small_and_of_large_numbers(shift):
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.repeat(np.arange(40), 3))
    values = rng.integers(0, 3, 120)
    classes = gi.multiset_classes(values + shift, owner, 40)
    spelled = [tuple(sorted(values[owner == k])) for k in range(40)]
    for a, b in itertools.combinations(range(40), 2):
        assert (classes[a] == classes[b]) == (spelled[a] == spelled[b])


def test_multisets_are_compared_with_multiplicity():
    values, owner = [1, 2, 2, 2, 1, 2, 1, 1, 2], [0, 0, 0, 1, 1, 1, 2, 2, 2]
    classes = multiset_classes(np.array(values), np.array(owner), 4)
    assert classes[0] == classes[1] != classes[2] and len(set(classes)) == 3


def brute_force(graph, matrix):
    n = len(matrix)
    shape = (n,) * len(graph.marked)
    total = np.zeros(shape)
    for choice in itertools.product(range(n), repeat=graph.nodes):
        value = np.prod([matrix[choice[u], choice[v]] for u, v in graph.edges])
        total[tuple(choice[m] for m in graph.marked)] += value
    return total


@st.composite
def marked_graphs(draw):
    nodes = draw(st.integers(1, 4))
    node = st.integers(0, nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=5))
    marked = draw(st.lists(node, unique=True, max_size=2))
    return MarkedGraph(nodes, tuple(edges), tuple(marked))


@given(st.lists(marked_graphs(), min_size=1, max_size=4), st.integers(0, 100), st.booleans())
@settings(deadline=None, max_examples=25)
def test_program_is_the_sum_over_all_indices(graphs, seed, symmetric):
    matrix = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    matrix = matrix + matrix.mT if symmetric else matrix
    for graph, value in zip(graphs, ContractionProgram(graphs, symmetric=symmetric)(matrix)):
        for i in range(2):
            np.testing.assert_allclose(value[i].numpy(), brute_force(graph, matrix[i].numpy()), rtol=1e-11, atol=1e-11)


def test_program_shares_pads_and_runs_on_meta():
    path = MarkedGraph(4, ((0, 1), (1, 2), (2, 3)), (0, 3))
    square = MarkedGraph(3, ((0, 1), (1, 2)), (0, 2))
    apart = sum(ContractionProgram([g], symmetric=True).products for g in (path, square))
    assert ContractionProgram([path, square], symmetric=True).products < apart
    graphs = [
        MarkedGraph(2, (), (0,)),
        MarkedGraph(2, ()),
        path,
        MarkedGraph(4, tuple(itertools.combinations(range(4), 2))),
    ]
    program = ContractionProgram(graphs)
    small = torch.rand(1, 3, 3, dtype=torch.float64)
    padded = torch.nn.functional.pad(small, (0, 2, 0, 2), value=7.0)
    for a, b in zip(program(small), program(padded, torch.tensor([3]))):
        slices = (slice(None), *[slice(0, 3)] * (a.ndim - 1))
        torch.testing.assert_close(a, b[slices])
        assert b.abs().sum() == pytest.approx(float(b[slices].abs().sum()))
    shapes = [tuple(v.shape) for v in program(torch.empty(5, 6, 6, device="meta"))]
    assert shapes == [(5, 6), (5,), (5, 6, 6), (5,)]
    small.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(program(x)[2:]), small)


def test_chunks_do_not_change_the_result():
    clique = marked_graph(nx.complete_graph(4), (0, 1))
    matrix = torch.rand(20, 70, 70, dtype=torch.float64)
    whole = ContractionProgram([clique])(matrix)[0]
    torch.testing.assert_close(whole[7:8], ContractionProgram([clique])(matrix[7:8])[0])


def test_homomorphisms_and_subgraphs_against_networkx():
    some = [random_graph(s, 7, 0.5) for s in range(4)] + [nx.empty_graph(3), nx.complete_graph(5)]
    patterns = [nx.path_graph(3), nx.cycle_graph(4), nx.complete_graph(4), nx.star_graph(3), nx.cycle_graph(5)]
    patterns.append(nx.disjoint_union(nx.path_graph(2), nx.path_graph(2)))
    homs, subs = homomorphism_counts(patterns, some), subgraph_counts(patterns, some)
    for i, graph in enumerate(some):
        adjacency = nx.to_numpy_array(graph)
        for j, pattern in enumerate(patterns):
            if len(graph) ** len(pattern) < 20000:
                assert homs[i, j] == brute_force(marked_graph(pattern), adjacency)
            matcher = nx.isomorphism.GraphMatcher(graph, pattern)
            found = {
                frozenset(frozenset((m[u], m[v])) for u, v in pattern.edges)
                for m in ({b: a for a, b in one.items()} for one in matcher.subgraph_monomorphisms_iter())
            }
            assert subs[i, j] == len(found), (i, pattern)


def test_closed_forms_of_counts():
    walks = homomorphism_counts([nx.cycle_graph(k) for k in (3, 4, 5, 6)], [rook(), shrikhande()])
    assert torch.equal(walks[0], walks[1])
    cliques = homomorphism_counts([nx.complete_graph(4)], [rook(), shrikhande()])
    assert cliques.flatten().tolist() == [192, 0]
    assert homomorphism_counts([nx.star_graph(3)], [nx.star_graph(5)]).item() == 5**3 + 5
    colourings = homomorphism_counts([nx.petersen_graph().subgraph(range(5)), nx.path_graph(4)], [nx.complete_graph(3)])
    assert colourings.tolist() == [[30, 24]]


def test_canonical_forms_are_isomorphism_classes():
    some = [g for g in ATLAS if len(g) == 5]
    forms = {canonical_form(marked_graph(g)) for g in some}
    assert len(forms) == len(some)
    directed = MarkedGraph(2, ((0, 1),), (0,))
    turned = MarkedGraph(2, ((1, 0),), (0,))
    assert canonical_form(directed) == canonical_form(turned)
    assert canonical_form(directed, directed=True) != canonical_form(turned, directed=True)


@pytest.mark.parametrize("refine", [colour_refinement, folklore_refinement, dense_adjacency])
def test_bad_graphs_are_refused(refine):
    with pytest.raises(ValueError, match="at least one graph"):
        refine([])
    with pytest.raises(ValueError, match="at least one node"):
        refine([nx.Graph()])
    with pytest.raises(ValueError, match="node indices"):
        refine([Data(edge_index=torch.tensor([[0], [5]]), num_nodes=2)])
    with pytest.raises(ValueError, match="square"):
        refine([np.ones((2, 3))])
    with pytest.raises(ValueError, match="finite"):
        refine([np.full((2, 2), np.nan)])


def test_bad_arguments_are_refused():
    graph = nx.path_graph(3)
    labelled = Data(edge_index=torch.tensor([[0], [1]]), x=torch.tensor([[0.0], [float("nan")]]))
    with pytest.raises(ValueError, match="finite"):
        colour_refinement([labelled])
    with pytest.raises(ValueError, match="labels on all graphs"):
        collect_graphs([Data(edge_index=torch.tensor([[0], [1]]), x=torch.ones(2, 1)), graph])
    with pytest.raises(ValueError, match="one node label"):
        collect_graphs([Data(edge_index=torch.tensor([[0], [1]]), x=torch.ones(3, 1), num_nodes=2)])
    with pytest.raises(ValueError, match="k of 2 or 3"):
        folklore_refinement([graph], 4)
    with pytest.raises(ValueError, match="check"):
        folklore_refinement([graph], check="none")
    for refine in (colour_refinement, folklore_refinement):
        with pytest.raises(ValueError, match="non-negative number of rounds"):
            refine([graph], rounds=-1)
    with pytest.raises(ValueError, match="one owner"):
        multiset_classes(np.ones(3), np.zeros(2), 1)
    with pytest.raises(ValueError, match="owners in"):
        multiset_classes(np.ones(2), np.array([0, 3]), 2)
    with pytest.raises(ValueError, match="distinct marked"):
        marked_graph(graph, [0, 0])
    with pytest.raises(ValueError, match="at least one node"):
        marked_graph(nx.Graph())
    with pytest.raises(ValueError, match="eight nodes"):
        canonical_form(marked_graph(nx.path_graph(9)))
    with pytest.raises(ValueError, match="edges between"):
        ContractionProgram([MarkedGraph(2, ((0, 2),))])
    with pytest.raises(ValueError, match="at least one polynomial"):
        ContractionProgram([])
    program = ContractionProgram([MarkedGraph(2, ((0, 1),))], symmetric=True)
    for bad, words in (
        (torch.rand(2, 3), "shape"),
        (torch.ones(1, 2, 2, dtype=torch.int64), "floating-point"),
        (torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), "symmetric"),
        (torch.full((1, 2, 2), float("nan")), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            program(bad)
    with pytest.raises(ValueError, match="sizes in"):
        program(torch.ones(1, 2, 2), torch.tensor([3]))
    with pytest.raises(ValueError, match="without marked"):
        homomorphism_counts([MarkedGraph(1, (), (0,))], [graph])
    with pytest.raises(ValueError, match="2\\^53"):
        homomorphism_counts([nx.star_graph(9)], [nx.complete_graph(60)])
    with pytest.raises(ValueError, match="simple undirected patterns"):
        subgraph_counts([nx.DiGraph([(0, 1)])], [graph])
    with pytest.raises(ValueError, match="without self-loops"):
        subgraph_counts([graph], [np.ones((2, 2))])
