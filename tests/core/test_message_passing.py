"""Message passing: the sparse product against dense algebra, and node classifiers against a plain loop and PyG."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GCNConv

from netatlas import data
from netatlas.core.message_passing import GCN, SparseOperator, fit_nodes, gcn_operator


def random_operator(rows=5, columns=7, seed=0, imaginary=False):
    matrix = sp.random_array((rows, columns), density=0.5, rng=np.random.default_rng(seed))
    return SparseOperator(matrix + 2j * matrix if imaginary else matrix)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 3), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_the_product_is_that_of_the_dense_matrix_and_members_do_not_mix(rows, columns, features, seed):
    operator = random_operator(rows, columns, seed)
    dense = torch.from_numpy(operator.matrix.toarray())
    x = torch.randn(4, columns, features, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(operator(x[0]), dense @ x[0])
    torch.testing.assert_close(torch.vmap(operator)(x), dense @ x)
    torch.testing.assert_close(
        operator @ x[0, :, :1].squeeze(1) if features else operator(x[0]),
        (dense @ x[0])[:, 0] if features else dense @ x[0],
    )


@pytest.mark.parametrize("imaginary", [False, True])
def test_derivatives_of_first_and_second_order_agree_with_differences(imaginary):
    operator = random_operator(imaginary=imaginary)
    kind = torch.complex128 if imaginary else torch.float64
    x = torch.randn(7, 2, dtype=kind, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: torch.tanh(operator(x)), x, check_forward_ad=not imaginary)
    assert torch.autograd.gradgradcheck(lambda x: torch.tanh(operator(x)), x)


def test_jacobians_by_forward_and_backward_mode_are_the_matrix():
    operator = random_operator()
    x, dense = torch.randn(7, dtype=torch.float64), torch.from_numpy(operator.matrix.toarray())
    torch.testing.assert_close(torch.func.jacrev(operator)(x), dense)
    torch.testing.assert_close(torch.func.jacfwd(operator)(x), dense)


def test_bad_operators_and_features_are_refused():
    with pytest.raises(ValueError, match="rows and columns"):
        SparseOperator(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="finite"):
        SparseOperator(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="7 rows"):
        random_operator()(torch.zeros(5, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="floating-point"):
        random_operator()(torch.zeros(7, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="complex features"):
        random_operator(imaginary=True)(torch.zeros(7))
    with pytest.raises(ValueError, match="widths"):
        GCN([3])
    with pytest.raises(ValueError, match="dropout"):
        GCN([3, 2], dropout=1.0)


def test_an_operator_without_entries_gives_zeros_and_the_meta_device_gives_shapes():
    assert not SparseOperator(sp.csr_array((3, 4)))(torch.ones(4, 2)).any()
    assert random_operator()(torch.empty(7, 3, 2, device="meta")).shape == (5, 3, 2)
    network = GCN([4, 3, 2], gcn_operator(np.ones((6, 6)))).to("meta")
    assert network(torch.empty(6, 4, device="meta")).shape == (6, 2)


def small_problem():
    graph = data.contextual_sbm([30, 30, 30], 6, 0.1, 8, 1.0, 0)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    train, validation, test = (torch.zeros(90, dtype=torch.bool) for _ in range(3))
    train[order[:30]], validation[order[30:60]], test[order[60:]] = True, True, True
    return graph, train, validation, test


@pytest.mark.parametrize("widths", [[8, 16, 3], [8, 4, 6, 3]])
def test_the_network_is_that_of_pytorch_geometric(widths):
    graph, *_ = small_problem()
    network = GCN(widths, gcn_operator(graph))
    expected = graph.x.float()
    for depth, layer in enumerate(network.layers):
        peer = GCNConv(layer.in_features, layer.out_features)
        peer.lin.weight.data, peer.bias.data = layer.weight.data, layer.bias.data
        expected = peer(expected, graph.edge_index)
        expected = expected if depth + 2 == len(widths) else expected.relu()
    torch.testing.assert_close(network(graph.x.float()), expected, rtol=1e-4, atol=1e-5)


def test_residuals_join_layers_of_equal_width_only():
    network = GCN([4, 4, 4, 2], residual=True)
    for layer in network.layers:
        torch.nn.init.zeros_(layer.weight)
    x = torch.randn(5, 4)
    torch.testing.assert_close(network.hidden(x)[1], x)


def test_training_is_that_of_a_plain_loop_and_members_do_not_mix():
    graph, train, validation, _ = small_problem()
    x, operator = graph.x.float(), gcn_operator(graph)
    fitted = fit_nodes(
        lambda: GCN([8, 16, 3], operator), x, graph.y, train, validation,
        seeds=[3, 5], epochs=12, lr=torch.tensor([0.01, 0.03]), weight_decay=torch.tensor([1e-3, 0.0]),
    )  # fmt: skip
    for member, (seed, lr, decay) in enumerate([(3, 0.01, 1e-3), (5, 0.03, 0.0)]):
        torch.manual_seed(seed)
        network = GCN([8, 16, 3], operator)
        optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=decay)
        states = []
        for step in range(13):
            with torch.no_grad():
                outputs = network(x)
                loss = torch.nn.functional.cross_entropy(outputs[validation], graph.y[validation])
                states.append(
                    (float((outputs.argmax(1) == graph.y)[validation].double().mean()), -float(loss), outputs)
                )
            if step < 12:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(x)[train], graph.y[train]).backward()
                optimizer.step()
        best = max(range(13), key=lambda step: states[step][:2])
        assert int(fitted.epoch[member]) == best
        assert float(fitted.validation[member]) == pytest.approx(states[best][0])
        torch.testing.assert_close(fitted.logits[member], states[best][2], rtol=1e-3, atol=1e-4)


def test_a_graph_network_learns_and_dropout_repeats():
    graph, train, validation, test = small_problem()
    runs = [
        fit_nodes(
            lambda: GCN([8, 16, 3], gcn_operator(graph), dropout=0.3), graph.x.float(), graph.y, train, validation,
            seeds=[0, 1], epochs=60, every=5,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert torch.equal(runs[0].logits, runs[1].logits)
    assert bool((runs[0].accuracy(graph.y, test) > 0.7).all())
    assert bool((runs[0].epoch % 5 == 0).all())


def test_members_may_have_splits_and_features_of_their_own():
    graph, train, validation, _ = small_problem()
    features = torch.stack([graph.x.float(), torch.zeros(90, 8)])
    fitted = fit_nodes(
        lambda: GCN([8, 4, 3], gcn_operator(graph)), features, graph.y, torch.stack([train, validation]),
        torch.stack([validation, train]), seeds=[0, 0], epochs=20, per_member_data=True,
    )  # fmt: skip
    assert float(fitted.logits[1].std(0).max()) < 1e-6 < float(fitted.logits[0].std(0).max())


def test_bad_masks_and_features_are_refused():
    graph, train, validation, _ = small_problem()
    options = {"seeds": [0], "epochs": 1}
    build = lambda: GCN([8, 3])  # noqa: E731
    for x, y, first, second, message in (
        (graph.x.float(), graph.y, train.long(), validation, "boolean mask"),
        (graph.x.float(), graph.y, train[:5], validation, "shape"),
        (graph.x.float(), graph.y, torch.zeros_like(train), validation, "at least one training"),
        (graph.x.float() * torch.nan, graph.y, train, validation, "finite values in features"),
        (graph.x.float()[:5], graph.y, train, validation, "features of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_nodes(build, x, y, first, second, **options)
    with pytest.raises(ValueError, match="at least one seed"):
        fit_nodes(build, graph.x.float(), graph.y, train, validation, seeds=[], epochs=1)


def fitted(y, x=None, **options):
    graph, train, validation, _ = small_problem()
    settings = {"seeds": [0], "epochs": 1} | options
    operator = gcn_operator(graph)
    x = graph.x.float() if x is None else x
    return fit_nodes(lambda: GCN([8, 3], operator), x, y, train, validation, **settings)


NODES = torch.ones(90, dtype=torch.bool)
BAD = {
    "not square": lambda: gcn_operator(np.ones((2, 3))),
    "empty graph": lambda: gcn_operator(np.zeros((0, 0))),
    "out of range": lambda: gcn_operator(torch.tensor([[0, -1], [-1, 0]])),
    "text": lambda: SparseOperator(np.array([["a"]])),
    "no width": lambda: GCN([3, 0]),
    "features of the network": lambda: GCN([3, 2])(torch.zeros(4, 5)),
    "label out of range": lambda: fitted(small_problem()[0].y + 1),
    "negative label": lambda: fitted(small_problem()[0].y - 1),
    "floating labels": lambda: fitted(small_problem()[0].y.float()),
    "label matrix": lambda: fitted(small_problem()[0].y[:, None]),
    "no epoch": lambda: fitted(small_problem()[0].y, epochs=0),
    "NaN": lambda: fitted(small_problem()[0].y, torch.full((90, 8), torch.nan)),
    "accuracy on nobody": lambda: fitted(small_problem()[0].y).accuracy(small_problem()[0].y, ~NODES),
    "accuracy on a floating mask": lambda: fitted(small_problem()[0].y).accuracy(small_problem()[0].y, NODES.float()),
    "accuracy of other labels": lambda: fitted(small_problem()[0].y).accuracy(small_problem()[0].y[:5], NODES),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()


def test_one_class_is_learnt_at_once_and_lonely_nodes_keep_themselves():
    assert float(fitted(torch.zeros(90, dtype=torch.long)).accuracy(torch.zeros(90).long(), NODES)) >= 0
    lonely = gcn_operator(np.zeros((3, 3)))
    x = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(lonely(x), x)
    assert not gcn_operator(np.zeros((3, 3)), self_loops=False)(x).any()
