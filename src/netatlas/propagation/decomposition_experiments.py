"""Experiments on parameterised decomposition: commuting matrices, a planted nonlinear filter, graph classification."""

from __future__ import annotations

from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netatlas.core.graph import normalized_adjacency
from netatlas.core.message_passing import SparseOperator
from netatlas.core.train import fit_many, minimize, stack_members
from netatlas.propagation.decomposition import (
    PaddedGraphs,
    PairwiseFilter,
    PDFNetwork,
    channel_matrices,
    commutator_norm,
    graph_matrix_basis,
    pack_graphs,
    padded_graphs,
)

#: Highest power of each exponent: the graph convolution's matrix, one between, and the adjacency.
SEVERAL = {-0.5: 3, -0.25: 3, 0.0: 2}
ONE = {-0.5: 3}


class CommutationChecks(NamedTuple):
    """Largest commutators of two channels, over draws.

    Attributes:
        polynomial: Error of a linear filter on one decomposition against the polynomial it stands for.
        fixed: Two linear filters on one decomposition.
        several: Two linear filters on several, the smallest over the draws.
        learned: Two nonlinear filters, the smallest over the draws.
    """

    polynomial: float
    fixed: float
    several: float
    learned: float


def commutation_checks(*, nodes: int, draws: int, seed: int) -> CommutationChecks:
    """Which families of filters keep one set of eigenvectors for all channels.

    Args:
        nodes: Nodes of random graphs.
        draws: Number of graphs.
        seed: Draws graphs and filters.

    Source: yang2023pdf.
    """
    found: dict[str, list[float]] = {"polynomial": [], "fixed": [], "several": [], "learned": []}
    for k in range(draws):
        graph = nx.gnp_random_graph(nodes, 0.3, seed=seed + k)
        adjacency = torch.from_numpy(nx.to_numpy_array(graph))[None]
        mask = torch.ones(1, nodes, dtype=torch.bool)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + k)
            one, several = (graph_matrix_basis(adjacency, mask, powers)[0] for powers in (ONE, SEVERAL))
            linear = PairwiseFilter(one.shape[-1], 2, linear=True).double()
            step = normalized_adjacency(graph, "sym", self_loops=True).toarray()
            weights = linear.map.weight.detach().numpy()
            polynomial = sum(w * np.linalg.matrix_power(step, p) for p, w in enumerate(weights[0]))
            fixed = channel_matrices(linear, one).detach()
            found["polynomial"].append(float(np.abs(fixed[0].numpy() - polynomial).max()))
            found["fixed"].append(float(commutator_norm(*fixed)))
            for name, straight in (("several", True), ("learned", False)):
                filter = PairwiseFilter(several.shape[-1], 2, linear=straight, hidden=32).double()
                # At its initial scale a nonlinear filter is nearly linear; both families get three times the weights.
                for parameter in filter.parameters():
                    parameter.data.mul_(3)
                found[name].append(float(commutator_norm(*channel_matrices(filter, several).detach())))
    return CommutationChecks(
        max(found["polynomial"]), max(found["fixed"]), min(found["several"]), min(found["learned"])
    )


class FilterData(NamedTuple):
    """Graphs with several draws of one feature a node, prepared for entrywise filters.

    Attributes:
        rows: Distinct rows of the basis, each column at unit deviation, ``[U, b]``.
        sums: Which rows each draw uses, with the features they multiply, ``[G k, U]``.
        linear: What a linear filter can use, ``[G k, b]``.
        one: What a linear filter on one decomposition can use, ``[G k, 4]``.
        planted: Target with an entrywise nonlinear filter, ``[G k]``.
        plain: Target that is linear in the basis, ``[G k]``.
        draws: Draws ``k`` of the feature on each graph.
    """

    rows: Tensor
    sums: SparseOperator
    linear: np.ndarray
    one: np.ndarray
    planted: np.ndarray
    plain: np.ndarray
    draws: int


def filter_data(graphs: int, *, nodes: tuple[int, int], draws: int = 8, seed: int) -> FilterData:
    r"""Random graphs and two targets: one that no linear combination of the matrices makes, and one that does.

    .. math:: y = \mathbf 1^\top \bigl(S_{-1/2}^2 + \mathbf 1[S_0^2 = 2]\bigr) x, \qquad
        y = \mathbf 1^\top \bigl(S_{-1/2}^2 + 0.09\, S_0\bigr) x

    Args:
        graphs: Number of graphs.
        nodes: Smallest and largest number of nodes.
        draws: Draws of the feature on each graph; a layer is linear in it, so each is a sample of its own.
        seed: Draws graphs and features.

    Source: yang2023pdf (our case for its claim).
    """
    rng = np.random.default_rng(seed)
    sizes = rng.integers(nodes[0], nodes[1] + 1, graphs)
    n = nodes[1]
    adjacency, mask = np.zeros((graphs, n, n)), np.zeros((graphs, n), bool)
    x = np.zeros((graphs, n, draws))
    for k, size in enumerate(sizes):
        upper = np.triu(rng.random((size, size)) < 0.3, 1)
        adjacency[k, :size, :size] = upper + upper.T
        mask[k, :size] = True
        x[k, :size] = rng.standard_normal((size, draws))
    basis = graph_matrix_basis(torch.from_numpy(adjacency), torch.from_numpy(mask), SEVERAL).numpy()
    walk, square, gcn = basis[..., 7], basis[..., 8], basis[..., 2]
    pairs = mask[:, :, None] & mask[:, None, :]
    planted = np.einsum("gij,gjk->gk", gcn + (np.abs(square - 2) < 0.5) * pairs, x).ravel()
    plain = np.einsum("gij,gjk->gk", gcn + 0.09 * walk, x).ravel()
    where = np.nonzero(pairs)
    values = np.round(basis[where], 9)
    rows, index = np.unique(values, axis=0, return_inverse=True)
    spread = rows.std(0)
    scaled = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1.0)
    sample = (where[0][:, None] * draws + np.arange(draws)).ravel()
    sums = sp.csr_array(
        (x[where[0], where[2]].ravel(), (sample, np.repeat(index.ravel(), draws))), shape=(graphs * draws, len(rows))
    )
    return FilterData(
        torch.from_numpy(scaled).float(), SparseOperator(sums), sums @ rows, sums @ rows[:, :4], planted, plain, draws
    )


class FilterErrors(NamedTuple):
    """Mean absolute errors on held-out graphs over the target's deviation, one value a seed.

    Attributes:
        least_squares: Best linear filter on all decompositions, in closed form.
        one: Best linear filter on one decomposition, in closed form.
        trained: Linear filter on all decompositions by gradient descent.
        nonlinear: Nonlinear filter by gradient descent.
    """

    least_squares: np.ndarray
    one: np.ndarray
    trained: np.ndarray
    nonlinear: np.ndarray


def filter_errors(
    given: FilterData,
    target: np.ndarray,
    *,
    seeds: list[int],
    hidden: int,
    steps: int,
    lrs: tuple[float, ...] = (0.01, 0.03),
) -> FilterErrors:
    """Fit every filter family to a target; gradient fits choose among the same learning rates on validation graphs.

    Args:
        given: From :func:`filter_data`.
        target: One of its targets.
        seeds: Seeds of weights and of the split into 60 % training, 20 % validation and 20 % test graphs.
        hidden: Hidden width of the nonlinear filter.
        steps: Steps of Adam on all training graphs.
        lrs: Learning rates.

    Source: yang2023pdf.
    """
    count, spread = len(target), target.std()
    y = torch.from_numpy(target / spread).float()
    graphs, parts = count // given.draws, []
    for s in seeds:
        order = np.random.default_rng(s).permutation(graphs)[:, None] * given.draws + np.arange(given.draws)
        parts.append([part.ravel() for part in np.split(order, [int(0.6 * graphs), int(0.8 * graphs)])])
    closed = {"all": [], "one": []}
    for train, validation, test in parts:
        fit = np.concatenate([train, validation])
        for name, design in (("all", given.linear), ("one", given.one)):
            weights = np.linalg.lstsq(design[fit], target[fit], rcond=None)[0]
            closed[name].append(np.abs(design[test] @ weights - target[test]).mean() / spread)

    def train_family(build) -> np.ndarray:
        members = [(k, lr) for k in range(len(seeds)) for lr in lrs]
        modules = []
        for k, _ in members:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seeds[k])
                modules.append(build())
        params, _ = stack_members(modules)
        weight = torch.zeros(len(members), count)
        for row, (k, _) in enumerate(members):
            weight[row, parts[k][0]] = 1 / len(parts[k][0])

        def predict(p: dict[str, Tensor]) -> Tensor:
            entries = vmap(lambda q: functional_call(modules[0], q, (given.rows,))[:, 0])(p)
            return given.sums(entries.T).T

        def loss(p: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
            return ((predict(p) - y).square() * weight).sum(-1)

        found, _ = minimize(loss, params, steps=steps, lr=torch.tensor([lr for _, lr in members]), schedule="cosine")
        with torch.no_grad():
            error = (predict(found) - y).abs().numpy()
        best = []
        for k, (_, validation, test) in enumerate(parts):
            rows = error[k * len(lrs) : (k + 1) * len(lrs)]
            best.append(rows[rows[:, validation].mean(1).argmin(), test].mean())
        return np.array(best)

    basis = given.rows.shape[1]
    return FilterErrors(
        np.array(closed["all"]),
        np.array(closed["one"]),
        train_family(lambda: nn.Linear(basis, 1, bias=False)),
        train_family(lambda: nn.Sequential(nn.Linear(basis, hidden), nn.GELU(), nn.Linear(hidden, 1))),
    )


#: Arms of the hierarchy: filter, and whether only one decomposition is used.
HIERARCHY: dict[str, tuple[str, bool]] = {
    "one matrix, shared": ("shared", True),
    "one decomposition, linear": ("linear", True),
    "several, linear": ("linear", False),
    "several, nonlinear (PDF)": ("nonlinear", False),
}


class GraphScores(NamedTuple):
    """Accuracy on validation and test graphs, one value a seed.

    Attributes:
        validation: On the validation graphs.
        test: On the test graphs.
    """

    validation: np.ndarray
    test: np.ndarray


def gain_over_others(scores: dict[str, GraphScores], arm: str) -> np.ndarray:
    """Test accuracy of an arm minus that of the other arm with the best validation accuracy, one value a seed.

    Args:
        scores: From :func:`classify_graphs`.
        arm: The arm in question.

    Source: yang2023pdf.
    """
    others = [s for name, s in scores.items() if name != arm]
    held = np.stack([s.validation for s in others]).argmax(0)
    return scores[arm].test - np.stack([s.test for s in others])[held, np.arange(len(held))]


def classify_graphs(
    graphs: list[Any], *, arms: list[str], width: int, layers: int, epochs: int, seeds: list[int], lr: float = 0.005
) -> dict[str, GraphScores]:
    """Accuracy of the arms on a set of labelled graphs, each at its best validation epoch.

    Args:
        graphs: PyG ``Data`` with ``x`` and ``y``.
        arms: Names of :data:`HIERARCHY`.
        width: Channels.
        layers: Layers.
        epochs: Passes over the training graphs.
        seeds: Seeds of weights and of the split into 60 / 20 / 20 %.
        lr: Learning rate of Adam.

    Source: yang2023pdf.
    """
    batch: PaddedGraphs = padded_graphs(graphs)
    basis = graph_matrix_basis(batch.adjacency, batch.mask, SEVERAL, standardize=True)
    packed = pack_graphs(batch, basis)
    y = torch.cat([g.y for g in graphs]).long()
    classes, features = int(y.max()) + 1, batch.x.shape[-1]
    splits = [torch.randperm(len(y), generator=torch.Generator().manual_seed(s)) for s in seeds]
    cuts = int(0.6 * len(y)), int(0.8 * len(y))
    result = {}
    for arm in arms:
        filter, single = HIERARCHY[arm]
        keep = list(range(4 if single else basis.shape[-1]))
        # Linear filters have fewer weights; a little more width brings the counts together.
        own = (
            width
            if filter == "nonlinear"
            else _matched_width(width, basis.shape[-1], features, layers, classes, filter, keep)
        )
        scores = []
        for seed, order in zip(seeds, splits):
            train, validation, test = (part.tolist() for part in order.tensor_split(cuts))
            best: list[float] = [-1.0, 0.0]
            net = PDFNetwork(basis.shape[-1], features, own, layers, classes, filter=filter, keep=keep)

            def watch(step: int, params: dict[str, Tensor], net=net, best=best, parts=(validation, test)) -> None:
                if step % 10:
                    return
                with torch.no_grad():
                    logits = functional_call(
                        net, {k: v[0].detach() for k, v in params.items()}, (packed[parts[0] + parts[1]],)
                    )
                right = (logits.argmax(-1) == y[parts[0] + parts[1]]).double()
                held, out = right[: len(parts[0])].mean(), right[len(parts[0]) :].mean()
                if float(held) > best[0]:
                    best[:] = [float(held), float(out)]

            fit_many(
                lambda a=(features, own, layers, classes), f=filter, k=keep: PDFNetwork(
                    basis.shape[-1], *a, filter=f, keep=k
                ),
                packed[train],
                y[train],
                seeds=[seed],
                epochs=epochs,
                batch_size=max(16, len(train) // 2),
                optimizer="adam",
                lr=lr,
                observe=watch,
            )
            scores.append(best)
        result[arm] = GraphScores(*np.array(scores).T)
    return result


def _size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _matched_width(
    width: int, basis: int, features: int, layers: int, classes: int, filter: str, keep: list[int]
) -> int:
    goal = _size(PDFNetwork(basis, features, width, layers, classes))
    found = width
    while _size(PDFNetwork(basis, features, found + 1, layers, classes, filter=filter, keep=keep)) <= goal:
        found += 1
    return found
