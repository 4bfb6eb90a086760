"""The embedding kernels beside the libraries and scripts that compute the same."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata

import networkx
import numpy as np
import scipy
import scipy.sparse as sp
import torch
from harness import ROOT, compare, grow, random_graph, timed

# Torch-cluster, built against our torch, lies beside the peers (see peers.txt); PyG looks for it once, when loaded.
sys.path.append(str(ROOT / ".bench-venv" / "pyg"))

from netatlas.data import degree_corrected_sbm, stochastic_block_model
from netatlas.embeddings import (
    fastrp,
    node2vec_walks,
    node_probe,
    ppr_exact,
    ppr_power,
    skip_gram,
    uniform_walks,
    very_sparse_projection,
    walk_endpoints,
    walk_graph,
)
from netatlas.embeddings.graphlets import graphlet_degree_vectors, orbit_adjacency

P, Q = 0.5, 2.0


def _csr(data) -> sp.csr_array:
    edges, n = data.edge_index.numpy(), data.num_nodes
    adjacency = sp.csr_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(n, n))
    adjacency.sum_duplicates()
    adjacency.data[:] = 1
    return adjacency


def _statistics(walks: np.ndarray, adjacency: sp.csr_array) -> np.ndarray:
    """How often a walk turns back, and how often it steps to a neighbour of where it came from."""
    before, after = walks[:, :-2].ravel()[:400_000], walks[:, 2:].ravel()[:400_000]
    keys = np.repeat(np.arange(adjacency.shape[0]), np.diff(adjacency.indptr)) * adjacency.shape[0] + adjacency.indices
    asked = before.astype(np.int64) * adjacency.shape[0] + after
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.array([(before == after).mean(), (keys[place] == asked).mean()])


def _walks(peers):
    graphs = {
        "10^4 nodes, mean degree 20, hubs": (
            _csr(degree_corrected_sbm([2500] * 4, mean_degree=20, mixing=0.1, exponent=2.5, seed=0)),
            10,
        ),
        "10^5 nodes, mean degree 10": (random_graph(500_000, 10), 1),
    }
    found = []
    for name, (adjacency, count) in graphs.items():
        adjacency = adjacency[np.diff(adjacency.indptr) > 0][:, np.diff(adjacency.indptr) > 0]
        adjacency.sort_indices()
        graph, n = walk_graph(adjacency), adjacency.shape[0]
        starts = np.concatenate([np.random.default_rng(k).permutation(n) for k in range(count)])
        work = f"{name}: {len(starts)} walks of 80 nodes, p = {P}, q = {Q}"

        def agree(a, b, adjacency=adjacency):
            assert a.shape == b.shape
            np.testing.assert_allclose(_statistics(a, adjacency), _statistics(b, adjacency), atol=0.005)

        def ours(graph=graph, starts=starts):
            return timed(lambda: node2vec_walks(graph, p=P, q=Q, length=80, starts=starts))

        def ours_whole(adjacency=adjacency, starts=starts):
            return timed(lambda: node2vec_walks(adjacency, p=P, q=Q, length=80, starts=starts))

        def pecanpy(adjacency=adjacency, starts=starts, **options):
            return peers.call(
                "pecanpy_walks", indptr=adjacency.indptr, indices=adjacency.indices, p=P, q=Q, starts=starts,
                length=80, **options,
            )  # fmt: skip

        version = peers.version("pecanpy")
        sides = [("PecanPy SparseOTF", ours, {"precompute": False, "tables": False})]
        if count > 1:
            sides += [
                ("PecanPy PreComp, its tables built before", ours, {"precompute": True, "tables": False}),
                ("PecanPy PreComp, with its tables", ours_whole, {"precompute": True, "tables": True}),
            ]
        for peer, mine, options in sides:
            found.append(compare("node2vec_walks", work, peer, version, mine, lambda o=options: pecanpy(**o), agree, 3))
        if importlib.util.find_spec("torch_cluster") is None:
            print("torch-cluster is not built: its walks are left out")
            continue
        import torch_cluster

        pointer, column = torch.from_numpy(adjacency.indptr).long(), torch.from_numpy(adjacency.indices).long()
        roots = torch.from_numpy(starts).long()

        def cluster(pointer=pointer, column=column, roots=roots):
            walk = torch.ops.torch_cluster.random_walk
            seconds, (nodes, _) = timed(lambda: walk(pointer, column, roots, 79, P, Q))
            return seconds, nodes.numpy().astype(np.int32)

        found.append(
            compare(
                "node2vec_walks",
                work,
                "torch-cluster random_walk, as in PyG's Node2Vec",
                torch_cluster.__version__,
                ours,
                cluster,
                agree,
                5,
            )
        )
    return found


def _blocks():
    return stochastic_block_model([500] * 4, [[0.04 if i == j else 0.01 for j in range(4)] for i in range(4)], seed=0)


def _as_good_as(labels):
    """Agreement of two embeddings: ours tells the planted blocks apart at most 0.05 worse."""

    def agree(a, b):
        scores = [node_probe(x, labels, train_fraction=0.5, splits=3, metric="accuracy").mean() for x in (a, b)]
        print(f"  accuracy of a probe: ours {scores[0]:.3f}, theirs {scores[1]:.3f}")
        assert scores[0] > scores[1] - 0.05, scores

    return agree


def _node2vec(_):
    """Walks and training together, beside PyG's training loop with as many pairs an epoch."""
    if importlib.util.find_spec("torch_cluster") is None:
        print("torch-cluster is not built: PyG's Node2Vec is left out")
        return []
    import torch_cluster  # noqa: F401  (registers its operators)
    from torch_geometric.nn.models import node2vec

    # This PyG asks for pyg-lib, which the package index does not carry; earlier versions walked by torch-cluster.
    node2vec.WITH_PYG_LIB = True
    torch.ops.pyg.random_walk = torch.ops.torch_cluster.random_walk
    data = _blocks()
    n = data.num_nodes

    def ours():
        def run():
            walks = node2vec_walks(data, p=P, q=Q, walks_per_node=10, length=20, seed=0)
            return skip_gram(walks, n, dimension=128, window=3, dynamic_window=False, negatives=1, seed=0)

        seconds, found = timed(run)
        # PyG slides a window of ten nodes over a walk and pairs its first node with the nine others.
        assert found.pairs >= 10 * n * (20 - 10 + 1) * 9
        return seconds, found.input

    def theirs():
        torch.manual_seed(0)
        model = node2vec.Node2Vec(
            data.edge_index, 128, walk_length=20, context_size=10, walks_per_node=10, num_negative_samples=1, p=P, q=Q,
            num_nodes=n, sparse=True,
        )  # fmt: skip
        optimizer = torch.optim.SparseAdam(list(model.parameters()), lr=0.01)

        def run():
            for positive, negative in model.loader(batch_size=128, shuffle=True):
                optimizer.zero_grad()
                model.loss(positive, negative).backward()
                optimizer.step()

        seconds, _ = timed(run)
        return seconds, model.embedding.weight.detach().numpy()

    return [
        compare(
            "node2vec",
            f"{n} nodes, 10 walks of 20 nodes a node, at least 99 pairs a walk, 1 negative, 128 dimensions, 1 epoch",
            "PyG Node2Vec, training loop with torch-cluster's walks",
            metadata.version("torch_geometric"),
            ours,
            theirs,
            _as_good_as(data.y.numpy()),
            3,
        )
    ]


def _skip_gram(peers):
    data = _blocks()
    n = data.num_nodes
    walks = uniform_walks(data, walks_per_node=5, length=40, seed=0)

    def ours():
        return timed(lambda: skip_gram(walks, n, dimension=128, window=5, negatives=5, epochs=1, seed=0).input)

    def gensim():
        return peers.call(
            "gensim_skip_gram", walks=walks, num_nodes=n, dimension=128, window=5, negatives=5, learning_rate=0.025,
            seed=1,
        )  # fmt: skip

    work = f"{n} nodes, {walks.size} words, 128 dimensions, window 5, 5 negatives, 1 epoch, 1 worker"
    return [
        compare(
            "skip_gram", work, "gensim Word2Vec", peers.version("gensim"), ours, gensim, _as_good_as(data.y.numpy()), 5
        )
    ]


def _fastrp_script(adjacency, dimension, weights, beta):
    """FastRP as a SciPy script: one sparse product, then sparse times dense."""
    n = adjacency.shape[0]
    degree = np.asarray(adjacency.sum(1)).ravel()
    scale = sp.diags_array((degree / degree.sum()) ** beta)
    transition = sp.csr_array(sp.diags_array(1 / degree) @ adjacency).astype(np.float32)
    projection = very_sparse_projection(n, dimension, seed=0)
    current = (transition @ (scale @ projection).astype(np.float32)).toarray()
    total = np.float32(weights[0]) * current
    for weight in weights[1:]:
        current = transition @ current
        total += np.float32(weight) * current
    total -= total.mean(0)
    return total / total.std(0)


def _fastrp(_):
    adjacency = random_graph(1_000_000, 20)
    weights = (0.1, 0.3, 1.0, 1.0)

    def agree(a, b):
        np.testing.assert_allclose(a, b, atol=1e-3)

    return [
        compare(
            "fastrp",
            f"{adjacency.shape[0]} nodes, {adjacency.nnz // 2} edges, 128 dimensions, 4 powers",
            "SciPy script (csr @ dense, single precision)",
            scipy.__version__,
            lambda: timed(lambda: fastrp(adjacency, dimension=128, weights=weights, seed=0)),
            lambda: timed(lambda: _fastrp_script(adjacency, 128, weights, -0.5)),
            agree,
            3,
        )
    ]


def _orbits(peers):
    found = []
    for n, degree in ((1000, 10), (5000, 5)):
        graph = networkx.barabasi_albert_graph(n, degree, seed=0)
        adjacency = sp.csr_array(networkx.to_scipy_sparse_array(graph, dtype=np.float64))
        edges = np.array(graph.edges)
        rows, columns = adjacency.nonzero()
        name = f"Barabasi-Albert, {n} nodes, {len(edges)} edges, graphlets of 2 to 4 nodes"

        def counts(adjacency=adjacency):
            return timed(lambda: graphlet_degree_vectors(orbit_adjacency(adjacency)))

        def orca(edges=edges, n=n):
            return peers.call("orca_counts", edges=edges, num_nodes=n)

        def matrices(adjacency=adjacency):
            seconds, orbits = timed(lambda: orbit_adjacency(adjacency))
            return seconds, {(k.hops, k.first, k.second): np.asarray(m.sum(1)).ravel() for k, m in orbits.items()}

        def gradco(rows=rows, columns=columns, n=n):
            return peers.call("gradco_orbits", rows=rows, columns=columns, num_nodes=n)

        def same_matrices(a, b):
            for key, sums in b.items():
                hops, first, second = key
                choices = (a[key], a[hops, second, first])
                assert any(np.array_equal(sums, mine) for mine in choices), key

        found.append(
            compare(
                "orbit_adjacency",
                name + ": all orbit adjacencies",
                "GRADCO",
                peers.version("gradco"),
                matrices,
                gradco,
                same_matrices,
                3,
            )
        )
        if n == 1000:
            found.append(
                compare(
                    "graphlet_degree_vectors",
                    name + ": orbit counts",
                    "orca-graphlets, ORCA translated to Python",
                    peers.version("orca-graphlets"),
                    counts,
                    orca,
                    np.testing.assert_array_equal,
                    3,
                )
            )
    return found


def _pagerank(peers):
    adjacency = random_graph(20_000, 20)
    n = adjacency.shape[0]
    edges = np.stack(sp.triu(adjacency).nonzero(), axis=1)
    exact = ppr_exact(adjacency, alpha=0.2)
    work = f"all {n} sources, {len(edges)} edges, damping 0.8"

    def within(tolerance):
        def agree(a, b):
            for side, result in (("ours", a), ("theirs", b)):
                error = np.abs(result - exact).sum(1).max()
                assert error < tolerance, (side, error)

        return agree

    def network():
        # A step smaller than this leaves an L1 error below 1e-6, as 0.8 / 0.2 = 4.
        return peers.call(
            "scikit_network_pagerank", indptr=adjacency.indptr, indices=adjacency.indices, damping=0.8,
            tolerance=2.5e-7,
        )  # fmt: skip

    def igraph():
        return peers.call("igraph_pagerank", edges=edges, num_nodes=n, damping=0.8)

    return [
        compare(
            "ppr_power",
            work + ", L1 error below 1e-6",
            "scikit-network PageRank, a call a source",
            peers.version("scikit-network"),
            lambda: timed(lambda: ppr_power(adjacency, alpha=0.2, tolerance=1e-6)),
            network,
            within(1.01e-6),
            3,
        ),
        compare(
            "ppr_exact",
            work + ", L1 error below 1e-9",
            "igraph personalized_pagerank, a call a source",
            peers.version("igraph"),
            lambda: timed(lambda: ppr_exact(adjacency, alpha=0.2)),
            igraph,
            within(1e-9),
            3,
        ),
    ]


def rows(peers):
    """Comparisons of this file."""
    return [row for part in (_walks, _node2vec, _skip_gram, _fastrp, _orbits, _pagerank) for row in part(peers)]


def growth():
    """Time against size, to a million edges or pairs."""
    edges = [1e4, 3e4, 1e5, 3e5, 1e6]

    def graph(size):
        return walk_graph(random_graph(int(size)))

    def walks(size):
        walker = graph(size)
        return lambda: node2vec_walks(walker, p=P, q=Q, walks_per_node=1, length=20)

    def projection(size):
        adjacency = random_graph(int(size))
        return lambda: fastrp(adjacency, dimension=64, weights=(0.0, 1.0, 1.0))

    corpus = uniform_walks(random_graph(100_000), walks_per_node=10, length=40, seed=0)
    nodes = int(corpus.max()) + 1

    def pairs(size):
        # A window of 5, drawn from 1 to 5, gives about 6 pairs a word.
        part = corpus[: max(1, int(size / 6 / corpus.shape[1]))]
        return lambda: skip_gram(part, nodes, dimension=64, window=5)

    def endpoints(size):
        walker = graph(size)
        sources = np.arange(0, walker.num_nodes, 20)
        return lambda: walk_endpoints(walker, walks=1000, sources=sources)

    return [
        grow("node2vec_walks", "edges, one walk a node", edges, walks),
        grow("fastrp", "edges", edges, projection),
        grow("skip_gram", "pairs", [1e4, 3e4, 1e5, 3e5, 1e6], pairs),
        grow("walk_endpoints", "edges, 1000 walks from every 20th node", edges, endpoints),
    ]
