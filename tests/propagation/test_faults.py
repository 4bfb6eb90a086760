"""Every public function that takes a graph, on graphs that are broken, directed, lonely, looped or given twice."""

import numpy as np
import pytest
import torch

from netatlas.core import graph_operators as operators
from netatlas.core import resistance
from netatlas.core.graph import as_csr
from netatlas.core.message_passing import gcn_operator
from netatlas.propagation import (
    DirectedGCN,
    MagNet,
    PathNetwork,
    SheafDiffusion,
    TwoHopGCN,
    add_targeted_edges,
    approximate_ppr,
    combined_features,
    cross_class_similarity,
    curvature_edges,
    cyclic_targets,
    direction_operators,
    direction_score,
    dirichlet_energy,
    edge_homophily,
    fosr_edges,
    gtr_edges,
    khop_scopes,
    linear_obstruction_limit,
    magnetic_operator,
    neighbor_label_histograms,
    polynomial_basis,
    propagated_features,
    propagated_noise,
    random_edges,
    random_scopes,
    randomly_oriented,
    resistance_bound,
    rewired_adjacency,
    scope_union,
    scoped_propagation,
    shuffled_directions,
    structural_components,
    tune_nodes,
    walk_bound,
)
from netatlas.propagation.homophily_experiments import largest_of
from netatlas.propagation.shadow_experiments import ScopedGCN, deep_gcn
from netatlas.propagation.tuning import NodeTask, random_splits

N = 6
X = np.random.default_rng(0).normal(size=(N, 3))
Y = np.arange(N) % 3
ONE = np.array([0])
TRAIN = torch.ones(N, dtype=torch.bool)

UNDIRECTED = {
    "laplacian": lambda g: operators.laplacian(g, "sym"),
    "undirected_edges": operators.undirected_edges,
    "propagation_limit": lambda g: operators.propagation_limit(g, X),
    "effective_resistance": resistance.effective_resistance,
    "laplacian_pinv": resistance.laplacian_pinv,
    "solve_laplacian": lambda g: resistance.solve_laplacian(g, X),
    "total_resistance": resistance.total_resistance,
    "commute_times": resistance.commute_times,
    "access_times": resistance.access_times,
    "resistance_sketch": lambda g: resistance.resistance_sketch(g, 4, seed=0),
    "propagated_features": lambda g: propagated_features(g, X, 2),
    "combined_features": lambda g: combined_features(g, X, 2),
    "approximate_ppr": lambda g: approximate_ppr(g, ONE, 3),
    "scoped_propagation": lambda g: scoped_propagation(g, khop_scopes(g, ONE, 1), X, [2, None]),
    "gtr_edges": lambda g: gtr_edges(g, 1),
    "fosr_edges": lambda g: fosr_edges(g, 1),
    "curvature_edges": lambda g: curvature_edges(g, 1),
    "random_edges": lambda g: random_edges(g, 1),
    "SheafDiffusion": lambda g: SheafDiffusion(g, 3, 2, 2)(torch.from_numpy(X).float()),
    "linear_obstruction_limit": linear_obstruction_limit,
    "resistance_bound": lambda g: resistance_bound(g, 2),
    "walk_bound": lambda g: walk_bound(g, 2),
    "dirichlet_energy": lambda g: dirichlet_energy(g, X),
    "polynomial_basis": lambda g: polynomial_basis(g, X, 2),
    "PathNetwork": lambda g: PathNetwork(g, 2, 2),
    "add_targeted_edges": lambda g: add_targeted_edges(g, Y, cyclic_targets(3), 1),
    "propagated_noise": lambda g: propagated_noise(g, 2),
    "randomly_oriented": randomly_oriented,
}
ANY = {
    "symmetrized": operators.symmetrized,
    "reciprocity": operators.reciprocity,
    "directed_adjacency": operators.directed_adjacency,
    "magnetic_laplacian": operators.magnetic_laplacian,
    "edge_homophily": lambda g: edge_homophily(g, Y),
    "neighbor_label_histograms": lambda g: neighbor_label_histograms(g, Y),
    "cross_class_similarity": lambda g: cross_class_similarity(g, Y),
    "structural_components": lambda g: structural_components(g, 2),
    "khop_scopes": lambda g: khop_scopes(g, ONE, 2),
    "random_scopes": lambda g: random_scopes(g, ONE, np.array([3])),
    "scope_union": lambda g: scope_union(g, khop_scopes(g, ONE, 2)),
    "shuffled_directions": shuffled_directions,
    "direction_operators": direction_operators,
    "magnetic_operator": magnetic_operator,
    "direction_score": lambda g: direction_score(g, torch.from_numpy(Y), TRAIN, folds=2),
    "rewired_adjacency": lambda g: rewired_adjacency(g, np.array([[0, 1]])),
}
EVERY = UNDIRECTED | ANY
#: These refuse self-loops, isolated nodes or unconnected graphs; the others have a right answer there.
NO_LOOPS = {"gtr_edges", "fosr_edges", "curvature_edges", "random_edges"}


def both(*pairs):
    half = np.array(pairs).T
    return torch.from_numpy(np.concatenate([half, half[::-1]], 1))


def data(edges, nodes=N):
    from torch_geometric.data import Data

    return Data(edge_index=edges, num_nodes=nodes)


TWO_PARTS = data(both((0, 1), (1, 2), (3, 4)))  # node 5 is alone


@pytest.mark.parametrize("name", EVERY)
def test_broken_graphs_are_refused(name):
    for graph in (np.zeros((0, 0)), data(torch.tensor([[0, 1], [1, N]])), data(torch.tensor([[0, -1], [-1, 0]]))):
        with pytest.raises(ValueError, match="expected"):
            EVERY[name](graph)
    broken = np.ones((N, N))
    broken[0, 1] = np.nan
    with pytest.raises(ValueError, match="expected"):
        EVERY[name](broken)


@pytest.mark.parametrize("name", UNDIRECTED)
def test_directed_graphs_are_refused(name):
    with pytest.raises(ValueError, match="expected"):
        UNDIRECTED[name](data(torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])))


def arrays(value):
    if hasattr(value, "toarray"):
        return [value.toarray()]
    if hasattr(value, "matrix"):
        return [value.matrix.toarray()]
    if isinstance(value, torch.Tensor):
        return [value.detach().numpy()]
    if isinstance(value, np.ndarray | float):
        return [np.asarray(value)]
    if isinstance(value, dict):
        return [a for v in value.values() for a in arrays(v)]
    return [a for v in value for a in arrays(v)] if isinstance(value, tuple | list) else []


@pytest.mark.parametrize("name", EVERY)
def test_unconnected_graphs_with_a_lonely_node(name):
    try:
        found = arrays(EVERY[name](TWO_PARTS))
    except ValueError as error:
        assert "expected" in str(error)
        return
    for value in found:
        if name in ("effective_resistance", "commute_times", "access_times", "total_resistance", "resistance_sketch"):
            assert not np.isnan(value).any(), "no path is an infinite resistance"
        elif name not in ("cross_class_similarity", *NO_LOOPS):
            assert np.isfinite(value).all()


def test_resistance_between_parts_is_infinite():
    found = resistance.effective_resistance(TWO_PARTS)
    assert np.isinf(found[0, 3]) and np.isinf(found[5, 0]) and found[0, 2] == pytest.approx(2)
    assert np.isinf(resistance.total_resistance(TWO_PARTS)) and np.isinf(gtr_edges(TWO_PARTS, 1).total).all()


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"scoped_propagation", "resistance_sketch"}))
def test_edges_given_twice_count_twice_or_once_but_never_break(name):
    ring = [(k, (k + 1) % N) for k in range(N)]
    once = as_csr(data(both(*ring, (0, 2)))).toarray()
    doubled = data(both(*ring, (0, 2), (0, 2)))
    assert np.count_nonzero(as_csr(doubled).toarray() != once) in (0, 2), "a sum or a simple graph, not another edge"
    first, second = EVERY[name](doubled), EVERY[name](as_csr(doubled))
    for a, b in zip(arrays(first), arrays(second), strict=True):
        if name not in ("SheafDiffusion",):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", EVERY)
def test_self_loops(name):
    ring = data(both(*[(k, (k + 1) % N) for k in range(N)], (0, 3), (2, 2)))
    if name in NO_LOOPS:
        with pytest.raises(ValueError, match="self-loops"):
            EVERY[name](ring)
        return
    try:
        for value in arrays(EVERY[name](ring)):
            assert np.isfinite(value).all()
    except ValueError as error:
        assert "expected" in str(error)


def test_features_that_are_not_numbers():
    bad = X.copy()
    bad[2, 1] = np.nan
    ring = data(both(*[(k, (k + 1) % N) for k in range(N)]))
    for call in (
        lambda: propagated_features(ring, bad, 1),
        lambda: combined_features(ring, bad, 1),
        lambda: operators.propagation_limit(ring, bad),
        lambda: scoped_propagation(ring, khop_scopes(ring, ONE, 1), bad, [1]),
        lambda: polynomial_basis(ring, bad, 1),
        lambda: resistance.solve_laplacian(ring, bad),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_one_class():
    y = np.zeros(N, int)
    ring = data(both(*[(k, (k + 1) % N) for k in range(N)]))
    assert edge_homophily(ring, y) == 1 and cross_class_similarity(ring, y).shape == (1, 1)
    with pytest.raises(ValueError, match="expected at least two classes"):
        direction_score(ring, torch.from_numpy(y), TRAIN, folds=2)


@pytest.mark.parametrize("model", ["directed", "magnetic", "two hops"])
def test_directed_models_on_a_graph_without_edges(model):
    empty = data(torch.empty(2, 0, dtype=torch.long))
    built = {
        "directed": lambda: DirectedGCN([3, 4, 2], *direction_operators(empty)),
        "magnetic": lambda: MagNet([3, 4, 2], magnetic_operator(empty)),
        "two hops": lambda: TwoHopGCN([3, 4, 2], *direction_operators(empty)),
    }[model]()
    assert torch.isfinite(built(torch.from_numpy(X).float())).all()


def test_network_in_scopes_by_hand():
    ring = as_csr(data(both(*[(k, (k + 1) % N) for k in range(N)], (0, 3))))
    scopes = khop_scopes(ring, np.array([0, 4]), 1)
    torch.manual_seed(0)
    net = ScopedGCN([3, 4, 4], 2, scope_union(ring, scopes), scopes).double()
    x = torch.from_numpy(X)
    found = net(x[torch.from_numpy(scopes.nodes)])
    for target, (low, high) in enumerate(zip(scopes.pointer, scopes.pointer[1:])):
        inside = scopes.nodes[low:high]
        net.body.operator = gcn_operator(ring[inside][:, inside])
        h = torch.relu(net.body(x[inside]))
        expected = net.head(torch.cat([h[0], h.mean(0)]))
        torch.testing.assert_close(found[scopes.centres[target]], expected)
        others = [k for k in range(low, high) if k != scopes.centres[target]]
        assert not found[others].any()


def test_deep_networks_in_scopes_and_outside():
    graph = operators.symmetrized(data(both(*[(k, (k + 1) % 40) for k in range(40)], (0, 9), (5, 30)), 40))
    y = torch.arange(40) // 20
    x = torch.nn.functional.one_hot(y).float()
    masks = random_splits(y, (0.5, 0.25), seeds=[0, 1])
    task = NodeTask(graph, x, y, *masks)
    found = deep_gcn(task, size=6, layers=2, hidden=8, epochs=30, seeds=[0, 1], held=5)
    assert found.scoped.shape == found.whole.shape == (2,) and min(found.scoped.mean(), found.whole.mean()) > 0.8
    with pytest.raises(ValueError, match="expected at least one layer"):
        deep_gcn(task, size=6, layers=0, hidden=8, epochs=30, seeds=[0, 1], held=5)
    with pytest.raises(ValueError, match="expected"):
        tune_nodes(lambda: torch.nn.Linear(2, 2), x, y, masks, seeds=[0], epochs=1)


def test_bound_on_the_largest_of_many():
    rng = np.random.default_rng(0)
    for tests in (1, 24):
        share = (np.abs(rng.standard_normal((40_000, tests))).max(1) > largest_of(tests, 0.05)).mean()
        assert 0.04 < share < 0.053
    for call in (lambda: largest_of(0), lambda: largest_of(3, 0.0)):
        with pytest.raises(ValueError, match="expected"):
            call()
