"""The propagation kernels beside networkx, SciPy, PyTorch Geometric and plain loops."""

from __future__ import annotations

import sys
from importlib import metadata

import networkx as nx
import numpy as np
import scipy
import scipy.sparse as sp
import torch
from harness import ROOT, compare, grow, random_graph, timed

sys.path.append(str(ROOT / ".bench-venv" / "pyg"))

from torch_geometric.nn import APPNP, GCN2Conv
from torch_geometric.typing import WITH_TORCH_SPARSE
from torch_geometric.utils import from_scipy_sparse_matrix, k_hop_subgraph, to_torch_csr_tensor

from netatlas.core.graph_operators import laplacian, propagation_limit, undirected_edges
from netatlas.core.message_passing import GCN, gcn_operator
from netatlas.core.resistance import effective_resistance, laplacian_pinv, resistance_sketch
from netatlas.propagation import (
    SheafDiffusion,
    approximate_ppr,
    combined_features,
    cross_class_similarity,
    gtr_edges,
    influence,
    khop_scopes,
    neighbor_label_histograms,
    node_adaptive_weights,
    propagated_features,
    scope_union,
)


def _close(tolerance: float):
    def agree(a, b):
        a, b = (v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (a, b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    return agree


def _resistance(_):
    graph = random_graph(3000, 12)
    n = graph.shape[0]
    network = nx.from_scipy_sparse_array(graph)

    def theirs():
        def run():
            found = nx.resistance_distance(network)
            return np.array([[found[u][v] for v in range(n)] for u in range(n)])

        return timed(run)

    big = random_graph(9000, 12)
    dense = laplacian(big).toarray()
    yield compare(
        "effective_resistance", f"all pairs of {n} nodes", "networkx resistance_distance", nx.__version__,
        lambda: timed(lambda: effective_resistance(graph)), theirs, _close(1e-7), 5,
    )  # fmt: skip
    yield compare(
        "laplacian_pinv", f"{big.shape[0]} nodes", "scipy.linalg.pinvh", scipy.__version__,
        lambda: timed(lambda: laplacian_pinv(big)), lambda: timed(lambda: scipy.linalg.pinvh(dense)), _close(1e-7), 3,
    )  # fmt: skip

    def greedy():
        adjacency, found = graph.toarray(), []
        for _ in range(10):
            pinv = np.linalg.pinv(np.diag(adjacency.sum(1)) - adjacency)
            square = pinv @ pinv
            r, b = (m.diagonal()[:, None] + m.diagonal() - 2 * m for m in (pinv, square))
            score = np.where(np.triu(adjacency == 0, 1), b / (1 + r), -1)
            u, v = np.unravel_index(score.argmax(), score.shape)
            adjacency[u, v] = adjacency[v, u] = 1
            found.append((u, v))
        return np.array(found)

    yield compare(
        "gtr_edges", f"10 edges, {n} nodes", "a new numpy pseudo-inverse an edge", np.__version__,
        lambda: timed(lambda: gtr_edges(graph, 10).edges), lambda: timed(greedy), _close(0), 3,
    )  # fmt: skip


def _layers(_):
    graph, width = random_graph(200_000), 64
    n = graph.shape[0]
    edge_index, _ = from_scipy_sparse_matrix(graph.tocoo())
    x = torch.randn(n, width)
    version = metadata.version("torch_geometric")
    operator = gcn_operator(graph)
    appnp = APPNP(K=10, alpha=0.1, cached=True)

    def ours():
        def run():
            h, start = x, 0.1 * x
            for _ in range(10):
                h = torch.add(start, operator(h), alpha=0.9)
            return h

        return timed(run)

    yield compare(
        "SparseOperator, 10 steps", f"{n} nodes, {edge_index.shape[1]} entries, {width} columns",
        "PyG APPNP on edge_index, cached", version, ours, lambda: timed(lambda: appnp(x, edge_index)), _close(1e-4), 5,
    )  # fmt: skip
    sparse = to_torch_csr_tensor(edge_index, size=(n, n))
    on_sparse = APPNP(K=10, alpha=0.1, cached=True)
    on_sparse(x, sparse)
    yield compare(
        "SparseOperator, 10 steps", f"{n} nodes, {edge_index.shape[1]} entries, {width} columns",
        "PyG APPNP on a CSR tensor, cached (MKL's product on both sides)", version, ours,
        lambda: timed(lambda: on_sparse(x, sparse)), _close(1e-4), 25,
    )  # fmt: skip
    layer = GCN2Conv(width, alpha=0.1, theta=0.5, layer=1, cached=True)
    beta = np.log(0.5 + 1)

    def second():
        h = 0.9 * operator(x) + 0.1 * x
        return torch.addmm(h, h, layer.weight1, beta=1 - beta, alpha=beta)

    yield compare(
        "SparseOperator, GCNII layer", f"{n} nodes, forward and backward",
        "PyG GCN2Conv on edge_index, cached", version,
        lambda: timed(lambda: (second().square().sum().backward(), second())[1]),
        lambda: timed(lambda: (layer(x, x, edge_index).square().sum().backward(), layer(x, x, edge_index))[1]),
        _close(1e-4), 5,
    )  # fmt: skip


def _loop_sheaf(edges: np.ndarray, maps: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The augmented normalised sheaf Laplacian in reference form: one edge after the other."""
    nodes, d = x.shape[:2]
    count = edges.shape[1]
    block = [torch.zeros(d, d) for _ in range(nodes)]
    for k, (u, v) in enumerate(edges.T):
        block[u] = block[u] + maps[k].T @ maps[k]
        block[v] = block[v] + maps[k + count].T @ maps[k + count]
    roots = []
    for b in block:
        values, vectors = torch.linalg.eigh(b + torch.eye(d))
        roots.append(vectors @ torch.diag(values.rsqrt()) @ vectors.T)
    scaled = [r @ x[v] for v, r in enumerate(roots)]
    out = [block[v] @ scaled[v] for v in range(nodes)]
    for k, (u, v) in enumerate(edges.T):
        out[u] = out[u] - maps[k].T @ maps[k + count] @ scaled[v]
        out[v] = out[v] - maps[k + count].T @ maps[k] @ scaled[u]
    return torch.stack([roots[v] @ out[v] for v in range(nodes)])


def _sheaf(_):
    graph = random_graph(3000, 12)
    edges = undirected_edges(graph)
    net = SheafDiffusion(graph, 8, 16, 3, stalk=3, maps="general")
    x = torch.randn(graph.shape[0], 3, 16)
    maps = net.edge_maps(x, 0).detach()
    yield compare(
        "SheafDiffusion.diffuse", f"{graph.shape[0]} nodes, {edges.shape[1]} edges, general maps, d = 3, 16 channels",
        "a loop over edges in torch", torch.__version__,
        lambda: timed(lambda: net.diffuse(x, 0)), lambda: timed(lambda: _loop_sheaf(edges, maps, x)), _close(1e-3), 3,
    )  # fmt: skip


def _jacobians(_):
    graph = random_graph(400, 8)
    n = graph.shape[0]
    net = GCN([8, 16, 16, 4], gcn_operator(graph))
    x = torch.randn(n, 8)

    def loop():
        found = torch.zeros(n, n)
        for v in range(n):
            total = torch.zeros(n)
            for c in range(4):
                point = x.clone().requires_grad_(True)
                (row,) = torch.autograd.grad(net(point)[v, c], point)
                total += row.square().sum(1)
            found[v] = total.sqrt()
        return found

    yield compare(
        "influence", f"all pairs of {n} nodes, 3 layers", "a loop of backward passes", torch.__version__,
        lambda: timed(lambda: influence(net, x)), lambda: timed(loop), _close(1e-4), 3,
    )  # fmt: skip


def _scopes(_):
    graph = random_graph(1_000_000)
    n = graph.shape[0]
    edge_index, _ = from_scipy_sparse_matrix(graph.tocoo())
    few = np.arange(20)

    def theirs():
        def run():
            return [np.sort(k_hop_subgraph(int(t), 1, edge_index, num_nodes=n)[0].numpy()) for t in few]

        return timed(run)

    def ours():
        def run():
            scopes = khop_scopes(graph, few, 1)
            scope_union(graph, scopes)
            return [np.sort(s) for s in np.split(scopes.nodes, scopes.pointer[1:-1])]

        return timed(run)

    def agree(a, b):
        assert all((u == v).all() for u, v in zip(a, b))

    version = metadata.version("torch_geometric")
    yield compare(
        "khop_scopes + scope_union", f"20 targets, 1 hop, {n} nodes, 2e6 entries", "PyG k_hop_subgraph", version,
        ours, theirs, agree, 3,
    )  # fmt: skip
    if not WITH_TORCH_SPARSE:
        print("torch-sparse is not built: PyG's ShaDowKHopSampler is left out")
    else:
        from torch_geometric.data import Data
        from torch_geometric.loader import ShaDowKHopSampler

        many = torch.arange(2000)
        loader = ShaDowKHopSampler(
            Data(edge_index=edge_index, num_nodes=n, x=torch.zeros(n, 1)), depth=2, num_neighbors=10, node_idx=many,
            batch_size=500, replace=True,
        )  # fmt: skip

        def sampled():
            return timed(lambda: np.array([batch.num_nodes for batch in loader]).sum())

        def ours_many():
            def run():
                scopes = khop_scopes(graph, many.numpy(), 2, budget=10)
                scope_union(graph, scopes)
                return len(scopes.nodes)

            return timed(run)

        # PyG draws again for a neighbour that was drawn twice, so that its scopes are a tenth larger.
        yield compare(
            "khop_scopes + scope_union", f"2000 targets, 2 hops of 10 draws, {n} nodes",
            "PyG ShaDowKHopSampler", version, ours_many, sampled, _close(0.15), 3,
        )  # fmt: skip
    step = sp.csr_array(sp.diags_array(1 / graph.sum(1)) @ graph).T.tocsr()
    targets = np.arange(50)

    def power():
        def run():
            state = np.zeros((n, len(targets)))
            state[targets, np.arange(len(targets))] = 1
            total, spread = np.zeros_like(state), state
            for _ in range(40):
                total += 0.15 * spread
                spread = 0.85 * (step @ spread)
            # Nodes by score, as many as a scope takes.
            return np.sort(np.partition(total, -32, axis=0)[-32:], axis=0)[::-1].T

        return timed(run)

    def pushed():
        def run():
            scopes, values = approximate_ppr(graph, targets, 32, epsilon=1e-6)
            return np.stack([np.sort(v)[::-1] for v in np.split(values, scopes.pointer[1:-1])])

        return timed(run)

    yield compare(
        "approximate_ppr", f"50 targets, 32 nodes each, {n} nodes, precision 1e-6", "SciPy power iteration, 40 steps",
        scipy.__version__, pushed, power, _close(3e-3), 3,
    )  # fmt: skip


def _similarity(_):
    graph = random_graph(40_000)
    y = np.random.default_rng(0).integers(5, size=graph.shape[0])

    def pairwise():
        d = neighbor_label_histograms(graph, y)
        unit = d / np.linalg.norm(d, axis=1, keepdims=True)
        found = np.zeros((5, 5))
        for a in range(5):
            for b in range(5):
                found[a, b] = (unit[y == a] @ unit[y == b].T).mean()
        return found

    yield compare(
        "cross_class_similarity", f"{graph.shape[0]} nodes, 5 classes", "numpy over all pairs", np.__version__,
        lambda: timed(lambda: cross_class_similarity(graph, y)), lambda: timed(pairwise), _close(1e-9), 5,
    )  # fmt: skip
    x = np.random.default_rng(1).standard_normal((graph.shape[0], 16))
    hops = 10

    def by_node():
        def run():
            stack = propagated_features(graph, x, hops)
            limit = propagation_limit(graph, x, "row")
            weights = node_adaptive_weights(stack, limit)
            return np.stack([sum(weights[k, v] * stack[k, v] for k in range(hops + 1)) for v in range(len(x))])

        return timed(run)

    yield compare(
        "combined_features", f"{graph.shape[0]} nodes, {hops} hops", "combination by a loop over nodes",
        np.__version__, lambda: timed(lambda: combined_features(graph, x, hops)), by_node, _close(1e-9), 3,
    )  # fmt: skip


def rows(peers):
    """Every comparison of the chapter."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = (_resistance, _layers, _sheaf, _jacobians, _scopes, _similarity)
    return [row for part in parts for row in part(peers)]


def growth():
    """Time against size, to a million edges."""
    torch.set_num_threads(1)
    edges = [1e4, 1e5, 1e6]

    def sketch(size):
        graph = random_graph(int(size))
        return lambda: resistance_sketch(graph, 64)

    def scopes(size):
        graph = random_graph(int(size))
        targets = np.arange(0, graph.shape[0], 100)

        def run():
            found, _ = approximate_ppr(graph, targets, 32)
            return scope_union(graph, found)

        return run

    def diffusion(size):
        graph = random_graph(int(size))
        net = SheafDiffusion(graph, 8, 8, 3, stalk=2, maps="diagonal")
        x = torch.randn(graph.shape[0], 2, 8)

        def run():
            with torch.no_grad():
                return net.diffuse(x, 0)

        return run

    return [
        grow("resistance_sketch", "edges, 64 dimensions", edges, sketch, 1),
        grow("approximate_ppr + scope_union", "edges, scopes of every 100th node", edges, scopes, 2),
        grow("SheafDiffusion.diffuse", "edges, diagonal maps", edges, diffusion, 2),
    ]
