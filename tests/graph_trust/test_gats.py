import math

import networkx as nx
import pytest
import torch
from torch.nn import functional as F

from netatlas.core.calibration import fit_temperature
from netatlas.core.message_passing import gcn_operator
from netatlas.graph_trust import gats


def setting(n=40, classes=4, seed=0, members=2):
    graph = nx.gnp_random_graph(n, 0.1, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(members, n, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (n,), generator=generator)
    train = torch.rand(members, n, generator=generator) < 0.3
    distance = torch.stack([gats.distance_to_set(graph, t) for t in train])
    return graph, logits, labels, train, distance


def test_edges_have_both_directions_and_loops_once():
    edges = gats.neighbour_edges(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
    assert edges.T.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_distances_against_networkx():
    graph, _, _, train, _ = setting()
    sources = set(torch.nonzero(train[0])[:, 0].tolist())
    lengths = nx.multi_source_dijkstra_path_length(graph, sources)
    for limit in (1, 2, 4):
        expected = [min(lengths.get(v, limit), limit) for v in range(40)]
        assert gats.distance_to_set(graph, train[0], limit).tolist() == expected
    assert gats.distance_to_set(graph, torch.zeros(40) > 0).tolist() == [2] * 40


def literal_temperature(model, graph, z, distance):
    """The formula, node by node."""
    gamma = [float(model.gamma[int(d)]) if d < 2 else 1.0 for d in distance]
    confidence = z.softmax(-1).amax(-1)
    found = []
    for i in range(len(z)):
        near = [*graph.neighbors(i), i]
        energy = torch.stack([F.leaky_relu((z[i] / gamma[i]) @ (z[j] / gamma[j]), 0.2) for j in near])
        alpha = energy.softmax(0)
        tau = [model.weight.detach() @ ((z[j] - z[j].min()) / (z[j].max() - z[j].min())).sort().values for j in near]
        dc = sum(confidence[i] - confidence[j] for j in near) / len(near)
        heads = sum(a * gamma[j] * t for a, j, t in zip(alpha, near, tau)) + model.relative * dc
        found.append(model.offset + F.softplus(heads).mean())
    return torch.stack(found)


def test_temperature_against_the_formula_node_by_node():
    graph, logits, _, _, distance = setting()
    torch.manual_seed(0)
    model = gats.GATS(4, gats.neighbour_edges(graph), heads=3).double()
    with torch.no_grad():
        model.gamma.copy_(torch.tensor([0.7, 1.4]))
        model.relative.fill_(2.0)
        model.offset.fill_(0.3)
    with torch.no_grad():
        torch.testing.assert_close(
            model(logits[0], distance[0]), literal_temperature(model, graph, logits[0], distance[0])
        )


def test_without_weights_it_is_temperature_scaling():
    graph, logits, _, _, distance = setting()
    model = gats.GATS(4, gats.neighbour_edges(graph)).double()
    torch.nn.init.zeros_(model.weight)
    t = model(logits[0], distance[0])
    torch.testing.assert_close(t, torch.full_like(t, 1 + math.log(2)))


def test_order_of_the_nodes_does_not_matter():
    graph, logits, _, _, distance = setting()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    place = order.argsort()
    moved = nx.Graph()
    moved.add_nodes_from(range(40))
    moved.add_edges_from((int(place[a]), int(place[b])) for a, b in graph.edges)
    torch.manual_seed(0)
    model = gats.GATS(4, gats.neighbour_edges(graph)).double()
    torch.manual_seed(0)
    other = gats.GATS(4, gats.neighbour_edges(moved)).double()
    torch.testing.assert_close(other(logits[0][order], distance[0][order]), model(logits[0], distance[0])[order])


def test_a_shift_of_a_nodes_logits_matters_and_constant_logits_do_not_fail():
    graph, logits, _, _, distance = setting()
    model = gats.GATS(4, gats.neighbour_edges(graph)).double()
    shifted = logits[0] + torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(model(shifted, distance[0]), model(logits[0], distance[0]))
    assert bool(torch.isfinite(model(torch.zeros(40, 4).double(), distance[0])).all())
    assert gats.minmax_sorted(torch.ones(3, 2)).tolist() == [[0, 0]] * 3


def test_temperature_scaling_by_steps_meets_the_root():
    _, logits, _, train, distance = setting(members=3)
    generator = torch.Generator().manual_seed(5)
    labels = torch.multinomial((logits / 1.6).softmax(-1).flatten(0, 1), 1, generator=generator).reshape(3, -1)
    fit = gats.fit_calibrator(
        gats.TemperatureScaling, logits, labels, train, train, distance, seeds=[0, 1, 2], steps=800, patience=800,
        weight_decay=0.0, lr=0.02,
    )  # fmt: skip
    expected = fit_temperature(logits, labels, train)
    inner = expected < math.exp(2.5)
    assert bool(inner.any())
    torch.testing.assert_close(fit.temperature[inner, 0], expected[inner], rtol=2e-2, atol=0)


@pytest.mark.parametrize("kind", ["gats", "cagcn", "fixed bias"])
def test_members_are_fitted_as_they_would_be_alone(kind):
    graph, logits, labels, train, distance = setting(members=3)
    edges, operator = gats.neighbour_edges(graph), gcn_operator(graph)
    build = {
        "gats": lambda: gats.GATS(4, edges),
        "cagcn": lambda: gats.CaGCN(4, operator),
        "fixed bias": lambda: gats.GATS(4, edges, bias=False, gamma=False, relative=False, sort=False, attention=False),
    }[kind]
    options = {"steps": 40, "patience": 10}
    fit = gats.fit_calibrator(build, logits, labels, ~train, train, distance, seeds=[0, 1, 2], **options)
    alone = gats.fit_calibrator(
        build, logits[1:2], labels, ~train[1:2], train[1:2], distance[1:2], seeds=[1], **options
    )
    torch.testing.assert_close(fit.temperature[1:2], alone.temperature)
    assert int(fit.step[1]) == int(alone.step[0])
    if kind == "fixed bias":
        assert torch.equal(fit.params["offset"], torch.ones(3, dtype=torch.float64))


def test_early_stopping_keeps_the_best_step_within_patience():
    _, logits, labels, train, distance = setting()
    fit = gats.fit_calibrator(
        gats.TemperatureScaling, logits, labels, ~train, train, distance, seeds=[0, 1], steps=60, patience=5
    )
    start = [F.cross_entropy(z[m], labels[m]) for z, m in zip(logits, train)]
    assert all(float(a) <= float(b) + 1e-12 for a, b in zip(fit.loss, start))


E = gats.neighbour_edges(nx.path_graph(3))
M = torch.ones(1, 3) > 0
Z, D = torch.zeros(1, 3, 2), torch.zeros(1, 3).long()
BAD = {
    "empty graph": lambda: gats.neighbour_edges(nx.Graph()),
    "limit": lambda: gats.distance_to_set(nx.path_graph(3), M[0], 0),
    "mask": lambda: gats.distance_to_set(nx.path_graph(3), torch.ones(4) > 0),
    "no head": lambda: gats.GATS(2, E, 0),
    "no loops": lambda: gats.GATS(2, torch.tensor([[0, 1], [1, 0]])),
    "unsorted": lambda: gats.GATS(2, E.flip(1)),
    "edge shape": lambda: gats.GATS(2, E[0]),
    "other graph": lambda: gats.GATS(2, E)(torch.zeros(4, 2), torch.zeros(4)),
    "NaN": lambda: gats.minmax_sorted(torch.tensor([[math.nan]])),
    "members": lambda: gats.fit_calibrator(lambda: gats.GATS(2, E), Z, D[0], M, M, D, seeds=[0, 1]),
    "NaN logits": lambda: gats.fit_calibrator(lambda: gats.GATS(2, E), Z * math.nan, D[0], M, M, D, seeds=[0]),
    "no fit nodes": lambda: gats.fit_calibrator(lambda: gats.GATS(2, E), Z, D[0], ~M, M, D, seeds=[0]),
    "mask shape": lambda: gats.fit_calibrator(lambda: gats.GATS(2, E), Z, D[0], M[0], M, D, seeds=[0]),
    "no step": lambda: gats.fit_calibrator(lambda: gats.GATS(2, E), Z, D[0], M, M, D, seeds=[0], steps=0),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()
