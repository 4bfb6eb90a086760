"""Refinements, polynomials and layers beside the libraries that compute the same."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from importlib import metadata

import networkx as nx
import numpy as np
import scipy.sparse as sp
import torch
from harness import ROOT, compare, grow, timed

# GraKeL, with its own dependencies, lies in a folder of its own (see peers.txt).
sys.path.append(str(ROOT / ".bench-venv" / "expressivity"))

from netatlas import data
from netatlas.core.graph_invariants import (
    ContractionProgram,
    collect_graphs,
    colour_histogram,
    colour_refinement,
)
from netatlas.expressivity import (
    DenseGNN,
    GeneralizedNormAggregation,
    UnionGIN,
    chain_resolvent_diagonal,
    circular_fingerprint,
    isomorphism_classes,
    missing_polynomials,
    node_features,
)


def _molecules(count: int):
    """Graphs of molecules, repeated to the count."""
    graphs = data.load("nci1", stand_in=data.labelled_graphs)
    return [graphs[i % len(graphs)] for i in range(count)]


def _networkx(graphs):
    found = []
    for g in graphs:
        one = nx.Graph()
        one.add_nodes_from((v, {"label": str(int(k))}) for v, k in enumerate(g.x.argmax(1)))
        one.add_edges_from(g.edge_index.T.tolist())
        found.append(one)
    return found


def _same_classes(ours, theirs):
    pairs = set(zip(ours, theirs))
    assert len(pairs) == len(set(ours)) == len(set(theirs)), "the two sides split the graphs differently"


def _refinement():
    graphs = _molecules(2000)
    theirs = _networkx(graphs)
    many = collect_graphs(graphs)

    def ours():
        return timed(lambda: colour_refinement(many, rounds=4).classes().tolist())

    def peer():
        return timed(
            lambda: [
                nx.weisfeiler_lehman_graph_hash(g, node_attr="label", iterations=4, digest_size=16) for g in theirs
            ]
        )

    work = f"{len(graphs)} molecules, 4 rounds, node labels, classes of graphs"
    return [compare("colour_refinement", work, "networkx WL graph hash", nx.__version__, ours, peer, _same_classes, 3)]


def _isomorphism():
    graphs = data.load("mutag", stand_in=data.labelled_graphs)
    theirs = _networkx(graphs)

    def ours():
        return timed(lambda: isomorphism_classes(graphs).tolist())

    def peer():
        def run():
            kinds, found = [], []
            match = nx.isomorphism.categorical_node_match("label", None)
            for g in theirs:
                place = next((k for k, h in enumerate(kinds) if nx.faster_could_be_isomorphic(g, h)
                              and nx.is_isomorphic(g, h, node_match=match)), None)  # fmt: skip
                if place is None:
                    place = len(kinds)
                    kinds.append(g)
                found.append(place)
            return found

        return timed(run)

    work = f"{len(graphs)} graphs of MUTAG with node labels"
    return [
        compare(
            "isomorphism_classes", work, "networkx is_isomorphic (VF2)", nx.__version__, ours, peer, _same_classes, 3
        )
    ]


def _kernel():
    try:
        from grakel import Graph
        from grakel.kernels import VertexHistogram, WeisfeilerLehman
    except ImportError:
        print("GraKeL is not installed: its WL kernel is left out")
        return []
    graphs = _molecules(1000)
    given = [
        Graph([tuple(e) for e in g.edge_index.T.tolist()], node_labels=dict(enumerate(g.x.argmax(1).tolist())))
        for g in graphs
    ]

    def ours():
        def run():
            # GraKeL takes graphs as they come; so does this.
            table = colour_histogram(colour_refinement(graphs, rounds=4), 4)
            return (table @ table.T).toarray()

        return timed(run)

    def peer():
        return timed(lambda: WeisfeilerLehman(n_iter=4, base_graph_kernel=VertexHistogram).fit_transform(given))

    work = f"{len(graphs)} molecules, 4 rounds, whole kernel matrix"
    version = metadata.version("grakel")
    return [
        compare("colour_histogram", work, "GraKeL WeisfeilerLehman", version, ours, peer, np.testing.assert_allclose, 3)
    ]


def _polynomials():
    graphs = missing_polynomials()
    generator = torch.Generator().manual_seed(0)
    a = (torch.rand(100, 30, 30, generator=generator) < 0.3).double().triu(1)
    a = a + a.mT
    program = ContractionProgram(graphs, symmetric=True)
    letters = "abcdefgh"
    strings = [
        ",".join(f"z{letters[u]}{letters[v]}" for u, v in g.edges) + "->z" + "".join(letters[m] for m in g.marked)
        for g in graphs
    ]
    paths = [np.einsum_path(s, *[a.numpy()] * len(g.edges), optimize="optimal")[0]
             for s, g in zip(strings, graphs)]  # fmt: skip

    def along(string, factors, path):
        """torch.einsum pair by pair along a path, as opt_einsum does it."""
        terms, out = string.split("->")
        left = list(zip(terms.split(","), factors))
        for pick in path[1:]:
            chosen = [left.pop(i) for i in sorted(pick, reverse=True)]
            kept = set(out).union(*(t for t, _ in left)) if left else set(out)
            letters = out if not left else "".join(sorted(set("".join(t for t, _ in chosen)) & kept))
            value = torch.einsum(",".join(t for t, _ in chosen) + "->" + letters, *(v for _, v in chosen))
            left.append((letters, value))
        return left[0][1]

    def ours():
        return timed(lambda: program(a))

    def optimal():
        return timed(lambda: [along(s, [a] * len(g.edges), p) for s, g, p in zip(strings, graphs, paths)])

    def agree(mine, other):
        for x, y in zip(mine, other):
            torch.testing.assert_close(x, y)

    few = a[:2, :12, :12].contiguous()

    def ours_few():
        return timed(lambda: program(few))

    def plain():
        return timed(lambda: [torch.einsum(s, *[few] * len(g.edges)) for s, g in zip(strings, graphs)])

    work = "the 12 polynomials of degree 5 and 6 out of PPGN's reach, {}"
    version = torch.__version__
    return [
        compare(
            "ContractionProgram", work.format("100 graphs of 30 nodes"), "torch.einsum along optimal paths", version,
            ours, optimal, agree, 3,
        ),
        compare(
            "ContractionProgram", work.format("2 graphs of 12 nodes"), "torch.einsum as written", version, ours_few,
            plain, agree, 3,
        ),
    ]  # fmt: skip


def _gin():
    from torch_geometric.data import Batch
    from torch_geometric.nn import GINConv, global_add_pool

    graphs = data.load("mutag", stand_in=data.labelled_graphs)
    x, batch = node_features(graphs), Batch.from_data_list(graphs)
    features = graphs[0].x.shape[1]
    torch.manual_seed(0)
    model = DenseGNN(features, 2, norm=False)
    # PyG's layer draws its network's weights anew, so it comes before the weights are copied.
    convs = [GINConv(c.net, train_eps=True) for c in model.convs]
    union = UnionGIN(graphs, model)

    def step(out):
        model.zero_grad()
        union.zero_grad()
        out.square().mean().backward()
        return out.detach()

    def ours():
        return timed(lambda: step(union(x)))

    def pyg():
        def run():
            h, sums = batch.x, [global_add_pool(batch.x, batch.batch)]
            for conv in convs:
                h = torch.relu(conv(h, batch.edge_index))
                sums.append(global_add_pool(h, batch.batch))
            return step(model.head(torch.cat(sums, 1)))

        return timed(run)

    def agree(a, b):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)

    work = f"{len(graphs)} graphs of MUTAG, 3 layers of width 32, forward and backward, one seed"
    version = metadata.version("torch_geometric")
    return [compare("UnionGIN", work, "PyG GINConv on a disjoint union", version, ours, pyg, agree, 15)]


def _seeds():
    """Ten seeds at once beside ten in turn with PyG: members share each sparse product."""
    from torch.func import functional_call, stack_module_state, vmap
    from torch_geometric.data import Batch
    from torch_geometric.nn import GINConv, global_add_pool

    graphs = data.load("mutag", stand_in=data.labelled_graphs)[:64]
    x, batch = node_features(graphs), Batch.from_data_list(graphs)
    models = []
    for seed in range(10):
        torch.manual_seed(seed)
        models.append(DenseGNN(graphs[0].x.shape[1], 2, norm=False, width=16))
    # PyG's layer draws its network's weights anew, so it comes before the weights are stacked.
    convs = [[GINConv(c.net, train_eps=True) for c in m.convs] for m in models]
    unions = [UnionGIN(graphs, m) for m in models]
    params, _ = stack_module_state(unions)
    names = list(params)

    def ours():
        def run():
            outputs = vmap(lambda p: functional_call(unions[0], p, (x,)))(params)
            found = torch.autograd.grad(outputs.square().mean((1, 2)).sum(), [params[n] for n in names])
            return found[names.index("head.0.weight")]

        return timed(run)

    def pyg():
        def run():
            found = []
            for model, own in zip(models, convs):
                model.zero_grad()
                h, sums = batch.x, [global_add_pool(batch.x, batch.batch)]
                for conv in own:
                    h = torch.relu(conv(h, batch.edge_index))
                    sums.append(global_add_pool(h, batch.batch))
                model.head(torch.cat(sums, 1)).square().mean().backward()
                found.append(model.head[0].weight.grad.clone())
            return torch.stack(found)

        return timed(run)

    def agree(a, b):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)

    work = f"{len(graphs)} graphs of MUTAG, 3 layers of width 16, gradients of 10 seeds"
    return [
        compare(
            "UnionGIN",
            work,
            "PyG GINConv, one seed after the other",
            metadata.version("torch_geometric"),
            ours,
            pyg,
            agree,
            15,
        )
    ]


def _morgan():
    from rdkit import Chem, DataStructs, rdBase
    from rdkit.Chem import rdFingerprintGenerator

    smiles = list(data.load("esol", stand_in=data.molecule_table)["smiles"])

    def ours():
        return timed(lambda: circular_fingerprint(smiles, radius=2, size=2048).numpy())

    def rdkit():
        def run():
            generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
            table = np.zeros((len(smiles), 2048), dtype=np.float32)
            for row, text in zip(table, smiles):
                DataStructs.ConvertToNumpyArray(generator.GetCountFingerprint(Chem.MolFromSmiles(text)), row)
            return table

        return timed(run)

    work = f"{len(smiles)} molecules of ESOL, radius 2, 2048 counts, from SMILES; RDKit on both sides"
    return [
        compare(
            "circular_fingerprint",
            work,
            "RDKit, one array a molecule",
            rdBase.rdkitVersion,
            ours,
            rdkit,
            np.testing.assert_array_equal,
            5,
        )
    ]


def _pooling():
    from torch_geometric.nn.aggr import PowerMeanAggregation

    torch.manual_seed(0)
    x = torch.rand(200_000, 32) + 0.5
    index = torch.randint(0, 20_000, (200_000,)).sort().values
    mine = GeneralizedNormAggregation(32, signs="plus", p=2.0, q=0.5, mix=False)
    theirs = PowerMeanAggregation(p=2.0, learn=True)

    def run(module):
        def call():
            v = x.clone().requires_grad_()
            out = module(v, index, dim_size=20_000)
            out.sum().backward()
            return out.detach()

        return lambda: timed(call)

    def agree(a, b):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)

    # Powers by logarithms do not overflow at |p| = 200, where PyG's do; sums of segments are sparse products.
    work = "200,000 rows of 32 in 20,000 segments, p = 2, q = 1/p, forward and backward; by stable logarithms"
    version = metadata.version("torch_geometric")
    return [
        compare(
            "GeneralizedNormAggregation", work, "PyG PowerMeanAggregation", version, run(mine), run(theirs), agree, 9
        )
    ]


def _chains():
    generator = torch.Generator().manual_seed(0)
    m, k = 128, 2
    blocks = torch.randn(4, m, k, k, dtype=torch.float64, generator=generator)
    blocks = (blocks + blocks.mT) / 2
    links = torch.randn(4, m - 1, k, k, dtype=torch.float64, generator=generator)
    poles = 1j * torch.logspace(-1, 0.6, 16, dtype=torch.float64)
    dense = torch.stack([torch.block_diag(*b) for b in blocks])
    for i in range(m - 1):
        rows, columns = slice(k * i, k * i + k), slice(k * i + k, k * i + 2 * k)
        dense[:, rows, columns] = links[:, i]
        dense[:, columns, rows] = links[:, i].mT

    def ours():
        return timed(lambda: chain_resolvent_diagonal(blocks, links, poles).diagonal(dim1=-2, dim2=-1).flatten(-2))

    def inverse():
        eye = torch.eye(m * k, dtype=poles.dtype)
        return timed(lambda: torch.linalg.inv(poles[:, None, None] * eye - dense[:, None]).diagonal(dim1=-2, dim2=-1))

    work = f"4 chains of {m} blocks of 2, 16 poles, diagonal of the resolvent"
    return [
        compare(
            "chain_resolvent_diagonal",
            work,
            "torch.linalg.inv",
            torch.__version__,
            ours,
            inverse,
            torch.testing.assert_close,
            3,
        )
    ]


def rows(peers):
    """All comparisons of this file."""
    parts = (_refinement, _isomorphism, _kernel, _polynomials, _gin, _seeds, _morgan, _pooling, _chains)
    return [row for part in parts for row in part()]


def _random_graph(edges: int, mean_degree: int = 20) -> sp.csr_array:
    n = 2 * edges // mean_degree
    a, b = np.random.default_rng(0).integers(n, size=(2, edges))
    half = sp.coo_array((np.ones(edges), (a, b)), shape=(n, n)).tocsr()
    whole = sp.csr_array(half + half.T)
    whole.data[:] = 1
    return whole


def _refine(edges: float):
    many = collect_graphs([_random_graph(int(edges))])
    return lambda: colour_refinement(many)


def growth():
    """Colour refinement against the number of edges, to 10^5 nodes and 10^6 edges, in time and in memory."""
    sizes = [62_500, 125_000, 250_000, 500_000, 1_000_000]
    found = grow("colour_refinement, until stable", "edges", sizes, _refine)
    call = _refine(sizes[-1])
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return [replace(found, kernel=f"{found.kernel}, {peak / 2**20:.0f} MiB at the largest size")]
