"""Networks on packed graphs: PyG's layers, invariance, and the bound by colour refinement."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

from netatlas.expressivity import (
    PPGN,
    DenseConv,
    DenseGNN,
    MaskedNorm,
    MatrixFunctionNetwork,
    UnionGIN,
    node_features,
    pack_graphs,
    polynomial_features,
    unpack_graphs,
)
from netatlas.expressivity.polynomials import missing_polynomials

KINDS = ("gin", "gcn", "sage", "gat")


def random_data(seed, nodes=7, chance=0.4, features=3):
    graph = nx.gnp_random_graph(nodes, chance, seed=seed)
    edges = torch.tensor([e for u, v in graph.edges for e in ((u, v), (v, u))], dtype=torch.int64).reshape(-1, 2).T
    x = torch.randn(nodes, features, generator=torch.Generator().manual_seed(seed))
    return Data(x=x, edge_index=edges, num_nodes=nodes)


def permuted(data, seed):
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(seed))
    place = order.argsort()
    return Data(x=data.x[order], edge_index=place[data.edge_index], num_nodes=data.num_nodes)


def networks():
    found = {kind: DenseGNN(3, 2, conv=kind, width=6) for kind in KINDS}
    found["matrix function"] = MatrixFunctionNetwork(3, 2, layers=2, width=6)
    found["PPGN"], found["PPGN, plain"] = PPGN(3, 2, width=6), PPGN(3, 2, width=6, transpose=False)
    return {name: net.double() for name, net in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_are_those_of_pyg(kind):
    data = random_data(3)
    torch.manual_seed(0)
    ours = DenseConv(kind, 3, 4)
    theirs = {"gin": GINConv(ours.net) if kind == "gin" else None, "gcn": GCNConv(3, 4), "sage": SAGEConv(3, 4),
              "gat": GATConv(3, 4)}[kind]  # fmt: skip
    with torch.no_grad():
        if kind == "gcn":
            theirs.lin.weight.copy_(ours.linear.weight)
            theirs.bias.copy_(ours.linear.bias)
        elif kind == "sage":
            theirs.lin_r.weight.copy_(ours.own.weight)
            theirs.lin_l.weight.copy_(ours.other.weight)
            theirs.lin_l.bias.copy_(ours.own.bias)
        elif kind == "gat":
            theirs.lin.weight.copy_(ours.linear.weight)
            theirs.bias.zero_()
            theirs.att_dst.copy_(ours.attend[0].view(1, 1, -1))
            theirs.att_src.copy_(ours.attend[1].view(1, 1, -1))
        adjacency, mask, x = unpack_graphs(pack_graphs([data, random_data(4, nodes=9)]))
        dense = ours(adjacency, mask, x)[0, :7]
        torch.testing.assert_close(dense, theirs(data.x, data.edge_index), rtol=1e-4, atol=1e-5)
        assert not ours(adjacency, mask, x)[0, 7:].any()


@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([0.0, 0.3, 0.7]))
@settings(deadline=None, max_examples=10)
def test_networks_do_not_see_the_numbering_nor_the_padding(seed, nodes, chance):
    data, largest = random_data(seed, nodes, chance), random_data(seed + 1, 10)
    torch.manual_seed(seed)
    for name, net in networks().items():
        if isinstance(net, DenseGNN):
            net.norms = None
        packed = pack_graphs([data, permuted(data, seed), largest]).double()
        out = net(packed)
        torch.testing.assert_close(out[0], out[1], rtol=1e-9, atol=1e-9, msg=name)
        torch.testing.assert_close(out[0], net(pack_graphs([data]).double())[0], rtol=1e-9, atol=1e-9, msg=name)


def test_polynomials_as_inputs_keep_the_invariance_and_separate_what_ppgn_cannot():
    rook = nx.line_graph(nx.complete_bipartite_graph(4, 4))
    steps = [(0, 1), (1, 0), (1, 1), (0, 3), (3, 0), (3, 3)]
    shrikhande = nx.Graph(
        [((a, b), ((a + x) % 4, (b + y) % 4)) for a in range(4) for b in range(4) for x, y in steps]
    )  # fmt: skip
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    packed = pack_graphs([rook, shrikhande]).double()
    moved = packed[:, order][:, :, torch.cat([order, torch.tensor([16, 17])])]
    torch.manual_seed(0)
    plain, rich = PPGN(1, 1).double(), PPGN(1, 1, extra=12).double()
    equal = plain(packed)
    torch.testing.assert_close(equal[0], equal[1], rtol=1e-12, atol=1e-12)
    graphs = missing_polynomials()
    first, second = (rich(p, polynomial_features(p[:, :, :16], graphs)) for p in (packed, moved))
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    assert (first[0] - first[1]).abs().item() > 1e-6


def test_networks_are_blind_where_colour_refinement_is():
    packed = pack_graphs([nx.cycle_graph(6), nx.disjoint_union(nx.cycle_graph(3), nx.cycle_graph(3))]).double()
    for seed in range(3):
        torch.manual_seed(seed)
        for kind in KINDS:
            out = DenseGNN(1, 2, conv=kind).double()(packed)
            torch.testing.assert_close(out[0], out[1], rtol=1e-9, atol=1e-9)
        out = PPGN(1, 2).double()(packed)
        assert (out[0] - out[1]).abs().max() > 1e-8


def test_norm_ignores_padding():
    norm, x = MaskedNorm(2), torch.randn(3, 4, 2)
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]])
    out = norm(x, mask)
    inside = out[mask > 0]
    torch.testing.assert_close(inside.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(inside.std(0, correction=0), torch.ones(2), atol=1e-3, rtol=0)
    assert not out[mask == 0].any()
    torch.testing.assert_close(out, norm(x + 100 * (1 - mask)[..., None], mask))


def test_no_layers_is_a_bag_of_features_and_meta_runs():
    packed = pack_graphs([random_data(0), random_data(1)])
    bag = DenseGNN(3, 2, layers=0)
    torch.testing.assert_close(bag.embed(packed), unpack_graphs(packed)[2].sum(1))
    with torch.device("meta"):
        for net in (DenseGNN(3, 2), DenseGNN(3, 2, conv="gat"), MatrixFunctionNetwork(3, 2), PPGN(3, 2)):
            assert net(torch.empty(5, 7, 11)).shape == (5, 2)


def test_packs_of_all_forms():
    packed = pack_graphs([nx.path_graph(3), nx.empty_graph(1)])
    adjacency, mask, x = unpack_graphs(packed)
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]] and torch.equal(x[..., 0], mask)
    assert adjacency.sum((1, 2)).tolist() == [4, 0]
    twice = Data(edge_index=torch.tensor([[0, 0], [1, 1]]), num_nodes=2)
    assert pack_graphs([twice])[0, 0, 1] == 2


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one width"):
        pack_graphs([random_data(0), random_data(0, features=2)])
    bad = random_data(0)
    bad.x[0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        pack_graphs([bad])
    with pytest.raises(ValueError, match="at least one graph"):
        pack_graphs([])
    with pytest.raises(ValueError, match="width above"):
        unpack_graphs(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="kind out of"):
        DenseConv("mean", 2, 2)
    with pytest.raises(ValueError, match="number of layers"):
        DenseGNN(2, 2, layers=-1)
    with pytest.raises(ValueError, match="width of at least 1"):
        MaskedNorm(0)
    with pytest.raises(ValueError, match="channels of pair features"):
        PPGN(3, 2, extra=1)(pack_graphs([random_data(0)]))


@pytest.mark.parametrize("norm", [False, True])
def test_the_union_computes_what_the_padded_graphs_do(norm):
    graphs = [random_data(seed, nodes=4 + seed) for seed in range(4)]
    # A directed edge tells sums over senders from sums over receivers.
    graphs.append(Data(x=torch.randn(3, 3), edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3))
    torch.manual_seed(0)
    dense = DenseGNN(3, 2, width=6, norm=norm).double()
    union, x = UnionGIN(graphs, dense), node_features(graphs).double().requires_grad_()
    packed = pack_graphs(graphs).double().requires_grad_()
    ours, padded = union(x), dense(packed)
    torch.testing.assert_close(ours, padded, rtol=1e-9, atol=1e-9)
    ours.square().sum().backward()
    padded.square().sum().backward()
    for one, other in zip(union.parameters(), dense.parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-8)
    inside = packed.grad[:, :, packed.shape[1] + 1 :][packed[:, :, packed.shape[1]] > 0]
    torch.testing.assert_close(x.grad, inside, rtol=1e-6, atol=1e-8)


def test_the_union_under_vmap_and_its_refusals():
    graphs = [random_data(seed, nodes=5) for seed in range(3)]
    models = [DenseGNN(3, 2, width=4) for _ in range(3)]
    unions, x = [UnionGIN(graphs, m) for m in models], node_features(graphs)
    params, _ = torch.func.stack_module_state(unions)
    together = torch.func.vmap(lambda p: torch.func.functional_call(unions[0], p, (x,)))(params)
    torch.testing.assert_close(together, torch.stack([u(x) for u in unions]), rtol=1e-4, atol=1e-5)
    assert node_features([nx.path_graph(2), nx.path_graph(3)]).tolist() == [[1.0]] * 5
    with pytest.raises(ValueError, match="network of gin"):
        UnionGIN(graphs, DenseGNN(3, 2, conv="gcn"))
    with pytest.raises(ValueError, match="features of 15 nodes"):
        unions[0](x[:3])
    with pytest.raises(ValueError, match="all graphs or none"):
        node_features([graphs[0], nx.path_graph(2)])
