import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Data

from netatlas.core.message_passing import gcn_operator
from netatlas.core.train import minimize, stack_members
from netatlas.graph_trust import lebed


def graph(n=24, features=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    upper = torch.triu(torch.rand(n, n, generator=generator) < 0.15, 1).nonzero().T
    x = torch.randn(n, features, generator=generator, dtype=dtype)
    y = torch.randint(0, 3, (n,), generator=generator)
    return Data(x=x, edge_index=torch.cat([upper, upper.flip(0)], 1), y=y, num_nodes=n)


def network(data, seed=0):
    torch.manual_seed(seed)
    return lebed.GraphEncoder([5, 8, 6, 3], gcn_operator(data)).double()


def trained(data, seeds=(0, 1), steps=15):
    """Networks trained on the labels of the graph, and where they started."""
    initial = stack_members([network(data, s) for s in seeds])[0]
    model = network(data)

    def loss(params, step, generator):
        return torch.stack(
            [
                F.cross_entropy(torch.func.functional_call(model, {k: v[m] for k, v in params.items()}, data.x), data.y)
                for m in range(len(seeds))
            ]
        )

    return minimize(loss, initial, steps=steps, lr=0.01, weight_decay=5e-4)[0], initial


def test_batched_outputs_are_the_modules():
    graphs = [graph(seed=0), graph(seed=1)]
    params, _ = trained(graphs[0])
    found = lebed.encoder_outputs(graphs, params)
    for t, data in enumerate(graphs):
        for m in range(2):
            member = {k: v[m] for k, v in params.items()}
            expected = torch.func.functional_call(network(data), member, data.x)
            torch.testing.assert_close(found[t, m], expected)


def test_the_training_graph_with_its_labels_gives_distance_zero():
    data = graph()
    params, initial = trained(data, steps=15)
    path = lebed.retrain_on_test_graphs(
        [data, graph(seed=3)], params, initial, epochs=15, lr=0.01, labels=torch.stack([data.y, data.y])
    )
    assert float(path.distance[0, :, 15].max()) < 1e-10 < float(path.distance[1, :, 15].min())
    torch.testing.assert_close(path.link_loss[0, :, 15], path.reference[0])


def test_no_information_before_the_first_step():
    graphs = [graph(seed=s) for s in range(3)]
    path = lebed.retrain_on_test_graphs(graphs, *trained(graphs[0]), epochs=6)
    start = path.distance[..., 0]
    torch.testing.assert_close(start, start[:1].expand_as(start))


def test_the_order_of_the_nodes_does_not_matter():
    data = graph()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    moved = Data(x=data.x[order], edge_index=order.argsort()[data.edge_index], y=data.y[order], num_nodes=24)
    both = lebed.retrain_on_test_graphs([data, moved], *trained(data), epochs=8, lr=0.01)
    torch.testing.assert_close(both.distance[0], both.distance[1])


def test_the_stopping_rule():
    data = graph()
    path = lebed.retrain_on_test_graphs([data], *trained(data), epochs=20, lr=0.01, margin=0.05, at_least=3)
    for m in range(2):
        near = (path.link_loss[0, m] - path.reference[0, m]).abs() < 0.05
        expected = next((q for q in range(3, 21) if near[q]), 20)
        assert int(path.stop[0, m]) == expected
        assert float(path.score[0, m]) == float(path.distance[0, m, expected])


def test_link_loss_against_the_definition():
    data = graph()
    z = torch.randn(24, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    upper = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    negatives = lebed.negative_pairs(data, 3)
    joined = {tuple(e) for e in data.edge_index.T.tolist()} | {(v, v) for v in range(24)}
    assert negatives.shape == upper.shape and not any(tuple(p) in joined for p in negatives.T.tolist())
    total = 0.0
    for sign, pairs in ((1, upper), (-1, negatives)):
        for u, v in pairs.T.tolist():
            total += math.log1p(math.exp(-sign * float(z[u] @ z[v] / z[u].norm() / z[v].norm())))
    expected = total / (2 * upper.shape[1])
    assert float(lebed.link_reconstruction_loss(z, upper, negatives)) == pytest.approx(expected)


def test_shifts_do_what_they_say():
    data = graph()
    suite = {(s.family, s.level): s.graph for s in lebed.graph_shift_suite(data)}
    assert len(suite) == 17
    clean = suite["none", 0.0]
    assert torch.equal(clean.x, data.x) and clean.edge_index.shape == data.edge_index.shape
    assert float((suite["noise", 2.0].x - data.x).std()) == pytest.approx(2, rel=0.2)
    torch.testing.assert_close(suite["noise", 2.0].x - data.x, 4 * (suite["noise", 0.5].x - data.x))
    assert float((suite["mask", 0.8].x == 0).double().mean()) == pytest.approx(0.8, abs=0.12)
    edges = data.edge_index.shape[1]
    assert suite["drop", 0.9].edge_index.shape[1] < 0.3 * edges < edges < suite["add", 4.0].edge_index.shape[1]


def test_confidence_scores():
    p = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(lebed.confidence_score(p), 1 - p.max(-1).values.mean(-1))
    torch.testing.assert_close(lebed.entropy_score(p), torch.distributions.Categorical(p).entropy().mean(-1))
    certain = F.one_hot(torch.zeros(4).long(), 3).double()
    assert float(lebed.entropy_score(certain)) == 0
    c = p.max(-1).values
    right = torch.rand(2, 50, generator=torch.Generator().manual_seed(1)) < 0.7
    own = lebed.average_thresholded_confidence(c, right, c)
    torch.testing.assert_close(own, 1 - right.double().mean(-1))
    assert float(lebed.average_thresholded_confidence(c[0], torch.ones(50) > 0, c[0])) == 0
    assert float(lebed.average_thresholded_confidence(c[0], torch.zeros(50) > 0, c[0])) == 1


DATA = graph()
P, I = trained(DATA, steps=1)
FULL = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), x=torch.ones(2, 5), num_nodes=2)
BAD = {
    "widths": lambda: lebed.GraphEncoder([3, 2], gcn_operator(DATA)),
    "no graph": lambda: lebed.retrain_on_test_graphs([], P, I),
    "sizes": lambda: lebed.retrain_on_test_graphs([DATA, graph(20)], P, I),
    "features": lambda: lebed.retrain_on_test_graphs([graph(features=4)], P, I),
    "no features": lambda: lebed.retrain_on_test_graphs([Data(edge_index=DATA.edge_index, num_nodes=24)], P, I),
    "NaN": lambda: lebed.retrain_on_test_graphs(
        [Data(edge_index=DATA.edge_index, x=DATA.x * math.nan, num_nodes=24)], P, I
    ),
    "parameters": lambda: lebed.retrain_on_test_graphs([DATA], {"w": P["head.bias"]}, I),
    "margin": lambda: lebed.retrain_on_test_graphs([DATA], P, I, margin=0.0),
    "at least": lambda: lebed.retrain_on_test_graphs([DATA], P, I, epochs=3, at_least=4),
    "no outputs": lambda: lebed.encoder_outputs([], P),
    "complete graph": lambda: lebed.negative_pairs(FULL),
    "family": lambda: lebed.graph_shift_suite(DATA, {"other": (1.0,)}),
    "level": lambda: lebed.graph_shift_suite(DATA, {"mask": (1.5,)}),
    "no edges": lambda: lebed.graph_shift_suite(
        Data(x=torch.ones(3, 1), edge_index=torch.zeros(2, 0).long(), num_nodes=3)
    ),
    "no pair": lambda: lebed.link_reconstruction_loss(torch.ones(2, 2), *2 * [torch.zeros(2, 0).long()]),
    "pair out of range": lambda: lebed.link_reconstruction_loss(torch.ones(2, 2), *2 * [torch.full((2, 1), 5)]),
    "no examples": lambda: lebed.confidence_score(torch.zeros(0, 3)),
    "no entropy": lambda: lebed.entropy_score(torch.zeros(0, 3)),
    "no source": lambda: lebed.average_thresholded_confidence(torch.zeros(0), torch.zeros(0) > 0, torch.ones(3)),
    "no test": lambda: lebed.average_thresholded_confidence(torch.ones(3), torch.ones(3) > 0, torch.zeros(0)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()


def test_multi_edges_and_loops_are_left_out():
    noisy = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 0, 1], [1, 1, 1]]), num_nodes=3)
    clean = lebed.graph_shift_suite(noisy, {"none": (0.0,)})[0].graph
    assert np.array_equal(clean.edge_index.numpy(), [[0, 1], [1, 0]])
