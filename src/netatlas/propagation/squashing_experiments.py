"""Experiments on over-squashing: obstruction beside commute times, and transfer over width, depth and topology."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csgraph
from scipy.stats import spearmanr
from torch.func import functional_call, vmap

from netatlas.core.graph import as_csr
from netatlas.core.resistance import access_times, commute_times, effective_resistance
from netatlas.core.stats import loglog_slope
from netatlas.core.train import minimize
from netatlas.propagation.bottlenecks import clique_path, crossed_ring, ring
from netatlas.propagation.sensitivity import (
    PathNetwork,
    jacobian_obstruction,
    linear_obstruction_limit,
    path_jacobians,
    resistance_bound,
    walk_bound,
    width_bound,
)
from netatlas.propagation.transfer import fit_transfer

FAMILIES = {"crossed ring": crossed_ring, "ring": ring, "clique and path": clique_path}


def limit_errors(graph: Any) -> tuple[float, float]:
    """Largest relative errors of the two exact limits, access times and resistances.

    Args:
        graph: Connected and undirected.

    Source: digiovanni2023oversquashing.
    """
    matrix = as_csr(graph)
    found, off = linear_obstruction_limit(matrix), ~np.eye(matrix.shape[0], dtype=bool)
    access = access_times(matrix).T / matrix.sum()
    resistance = effective_resistance(matrix)
    return (
        float(np.abs(found.one_sided / np.where(off, access, 1) - 1)[off].max()),
        float(np.abs(found.symmetric / np.where(off, resistance, 1) - 1)[off].max()),
    )


def obstruction_table(graphs: dict[str, Any], *, layers: int, width: int, draws: int, seed: int) -> pd.DataFrame:
    """Rank correlation of the obstruction with commute times, over all pairs of each graph.

    Args:
        graphs: Connected graphs by name.
        layers: Layers of the random networks.
        width: Their width.
        draws: Networks a graph, whose Jacobians are averaged.
        seed: Draws them.

    Returns:
        One row a graph: both sides and one side with shared weights, both sides with independent ones, and the slope
        of the logarithms.

    Source: digiovanni2023oversquashing.
    """
    rows = {}
    for name, graph in graphs.items():
        matrix = as_csr(graph)
        n = matrix.shape[0]
        degree, tau = torch.from_numpy(matrix.sum(1)), commute_times(matrix)
        upper, off = np.triu_indices(n, 1), ~np.eye(n, dtype=bool)
        entry = {}
        for shared in (True, False):
            mean: torch.Tensor | float = 0.0
            for k in range(draws):
                net = PathNetwork(matrix, width, layers, shared=shared, seed=seed * 1000 + k)
                generator = torch.Generator().manual_seed(seed * 1000 + k)
                x = torch.randn(n, width, generator=generator, dtype=torch.float64)
                mean = mean + path_jacobians(net, x) / draws
            one, both = (v.numpy() for v in jacobian_obstruction(mean, degree))
            label = "shared" if shared else "independent"
            entry[f"both sides, {label}"] = _rank(both[upper], tau[upper])
            if shared:
                entry["one side, shared"] = _rank(one[off], tau[off])
                entry["slope"] = loglog_slope(tau[upper], both[upper]).slope
        rows[name] = entry
    return pd.DataFrame(rows).T


def _rank(first: np.ndarray, second: np.ndarray) -> float:
    # Pairs that a symmetry of the graph exchanges have equal times, which rounding would otherwise put in some order.
    return float(spearmanr(np.round(first, 9), np.round(second, 9))[0])


BOUNDS = ("width", "walks", "resistance")


def farthest_node(graph: Any) -> int:
    """The first of the nodes with the longest distance to any other.

    Args:
        graph: Connected.
    """
    return int(csgraph.shortest_path(as_csr(graph), unweighted=True).max(1).argmax())


def marked_features(
    nodes: int, source: int, width: int, *, draws: int, generator: torch.Generator, quiet: float = 0.1
) -> torch.Tensor:
    """Normal features of deviation 1 at the source and of a smaller one at all other nodes, ``[draws, nodes, width]``.

    Args:
        nodes: Number of nodes.
        source: The source.
        width: Features of a node.
        draws: Number of draws.
        generator: Draws them.
        quiet: Deviation at the other nodes.

    Source: our task.
    """
    scale = torch.full((nodes, 1), quiet, dtype=torch.float64)
    scale[source] = 1.0
    return scale * torch.randn(draws, nodes, width, generator=generator, dtype=torch.float64)


def trained_path_weights(
    graph: Any, width: int, layers: int, *, steps: int, seeds: list[int], lr: float = 0.03, batch: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Weights of path networks that learned to tell every node what one node holds.

    Each step draws features as :func:`marked_features`; the target at every node is
    :math:`\operatorname{relu}(x_{s1})`, the first feature of the source. Zero steps leave the random weights.

    Args:
        graph: Connected and undirected.
        width: Width.
        layers: Layers.
        steps: Steps of Adam, on new features each.
        seeds: One a network.
        lr: Learning rate.
        batch: Draws of the features a step.

    Returns:
        Weights ``[S, 2, layers, width, width]``, and the mean error of the last ten steps over that of the best
        constant, ``[S]``; NaN without steps.

    Source: the task is ours.
    """
    matrix = as_csr(graph)
    networks = [PathNetwork(matrix, width, layers, shared=False, seed=s) for s in seeds]
    start = torch.stack([net.weights for net in networks])
    source = farthest_node(matrix)

    def loss(params: dict[str, torch.Tensor], step: int, generator: torch.Generator) -> torch.Tensor:
        x = marked_features(matrix.shape[0], source, width, draws=batch, generator=generator)
        goal = torch.relu(x[:, source, 0])[:, None]
        out = vmap(lambda w: functional_call(networks[0], {"weights": w}, (x,))[..., 0])(params["weights"])
        return (out - goal).square().mean((-1, -2))

    params, trace = minimize(loss, {"weights": start}, steps=steps, lr=lr, clip_norm=1.0, seed=seeds[0])
    # The variance of a rectified standard normal number is 1/2 - 1/(2 pi).
    error = trace[-10:].mean(0) / (0.5 - 0.5 / np.pi) if steps else torch.full((len(seeds),), torch.nan)
    return params["weights"], error


def sensitivity_beside_bounds(
    graph: Any, weights: torch.Tensor, x: torch.Tensor, *, residual: float = 0.5
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    r"""Measured sensitivity of a path network and its bounds, each in the norm that the bound is about.

    The constants are those of the network at hand. By width: slope :math:`\sqrt 2`, and :math:`w` the largest weight.
    By walks and by resistance: :math:`\beta = 1` and
    :math:`\alpha = \sqrt 2 \max(c_r \lVert W_r \rVert, c_a \lVert W_a \rVert)` over layers.

    Args:
        graph: Connected, undirected, not bipartite.
        weights: ``[2, layers, width, width]``.
        x: Features ``[n, width]``.
        residual: :math:`c_r`.

    Returns:
        For each of :data:`BOUNDS` the measured norms and the bound, ``[n, n]``: largest column sums for the first,
        spectral norms for the others.

    Source: digiovanni2023oversquashing, black2023resistance.
    """
    layers, width = weights.shape[1:3]
    net = PathNetwork(graph, width, layers, shared=False, residual=residual)
    net.weights = weights
    blocks = path_jacobians(net, x)[0].transpose(1, 2)
    column = blocks.abs().sum(-2).amax(-1).numpy()
    spectral = torch.linalg.matrix_norm(blocks, 2).numpy()
    share = torch.tensor([residual, 1 - residual], dtype=weights.dtype)[:, None]
    alpha = float(2**0.5 * (share * torch.linalg.matrix_norm(weights, 2)).max())
    largest = float(weights.abs().max())
    by_width = width_bound(
        graph, layers, width=width, weight=largest, slope=2**0.5, residual=residual, aggregate=1 - residual
    )
    return {
        "width": (column, by_width),
        "walks": (spectral, walk_bound(graph, layers, alpha=alpha)),
        "resistance": (spectral, resistance_bound(graph, layers, alpha=alpha)),
    }


class BoundChecks(NamedTuple):
    """Bounds on sensitivity beside what they bound.

    Attributes:
        table: One row a kind of weights and bound: the largest measured value over its bound, over all pairs; the
            median of bound over measured value over pairs within reach; their rank correlation there, over all pairs
            and over pairs of equal distance; and the share of ordered pairs that break the bound of the graph with
            nodes renamed, which is no bound of this network. The first is a maximum, the others means over graphs.
        hops: Median of bound over measured value by weights, bound and distance, over the graphs.
        error: Error of the trained networks over that of the best constant, mean over graphs and networks.
    """

    table: pd.DataFrame
    hops: pd.DataFrame
    error: float


def bound_checks(graphs: dict[str, Any], *, layers: int, width: int, steps: int, draws: int, seed: int) -> BoundChecks:
    """Measure the sensitivities of random and of trained networks and hold every bound against them.

    Args:
        graphs: Connected graphs by name, none bipartite.
        layers: Layers.
        width: Width.
        steps: Steps of training.
        draws: Networks a graph; ranks are those of the mean over them.
        seed: Draws networks, features and new names.

    Source: digiovanni2023oversquashing, black2023resistance.
    """
    cells, hops, errors = [], [], []
    seeds = [seed * 1000 + k for k in range(draws)]
    for graph in graphs.values():
        matrix = as_csr(graph)
        n = matrix.shape[0]
        distance = csgraph.shortest_path(matrix, unweighted=True)
        near = (distance > 0) & (distance <= layers)
        renamed = np.random.default_rng([seed, n]).permutation(n)
        generator = torch.Generator().manual_seed(seed)
        x = marked_features(n, farthest_node(matrix), width, draws=draws, generator=generator)
        for kind, count in (("random", 0), ("trained", steps)):
            weights, error = trained_path_weights(matrix, width, layers, steps=count, seeds=seeds)
            errors += error.tolist() if count else []
            found = [sensitivity_beside_bounds(matrix, w, at) for w, at in zip(weights, x)]
            for bound in BOUNDS:
                measured, limit = (np.stack([f[bound][k] for f in found]) for k in (0, 1))
                over = _quotient(measured, limit)
                other = _quotient(measured, limit[:, renamed][:, :, renamed])
                loose = _quotient(limit, measured)
                mean, least = (v.mean(0) / v.mean(0).max() for v in (measured, limit))
                at = [(near & (distance == d)) for d in range(1, layers + 1)]
                ranks = [(_rank(mean[m], least[m]), m.sum()) for m in at if m.any() and np.ptp(least[m].round(9)) > 0]
                cells.append(
                    {
                        "weights": kind,
                        "bound": bound,
                        "largest measured / bound": over.max(),
                        "median bound / measured": np.median(loose[:, near]),
                        "rank correlation": _rank(mean[near], least[near]),
                        "at equal distance": np.dot(*np.array(ranks).T) / sum(k for _, k in ranks) if ranks else np.nan,
                        "broken if renamed": (other[:, ~np.eye(n, dtype=bool)] > 1 + 1e-9).mean(),
                    }
                )
                hops += [
                    {"weights": kind, "bound": bound, "hops": d, "loose": np.median(loose[:, m])}
                    for d, m in enumerate(at, 1)
                    if m.any()
                ]
    rows = pd.DataFrame(cells).groupby(["weights", "bound"], sort=False)
    table = rows.mean()
    table["largest measured / bound"] = rows["largest measured / bound"].max()
    medians = pd.DataFrame(hops).groupby(["weights", "bound", "hops"], sort=False, as_index=False).median()
    return BoundChecks(table, medians, float(np.mean(errors)))


def _quotient(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # Beyond the reach of the network both sides are zero, and nothing is broken.
    return np.divide(first, second, out=np.where(first > 0, np.inf, 0.0), where=second > 0)


class TransferCell(NamedTuple):
    """One arm of the transfer task.

    Attributes:
        family: Graph family.
        distance: Distance of source and target.
        width: Width.
        layers: Layers.
        accuracy: One value a seed.
        loss: Final loss, likewise.
        resistance: Effective resistance between source and target.
        commute: Commute time between them.
    """

    family: str
    distance: int
    width: int
    layers: int
    accuracy: np.ndarray
    loss: np.ndarray
    resistance: float
    commute: float


def transfer_cells(
    cells: list[tuple[str, int, int, int]],
    *,
    seeds: list[int],
    steps: int,
    lrs: tuple[float, float] = (0.001, 0.01),
    kind: str = "gin",
) -> list[TransferCell]:
    """Train every arm of the transfer task.

    Args:
        cells: Family, distance, width and layers of each arm.
        seeds: Seeds of the weights.
        steps: Steps on all inputs.
        lrs: Learning rates, one chosen an arm by its final loss.
        kind: Layer, as in :class:`netatlas.propagation.transfer.TransferNetwork`.

    Source: digiovanni2023oversquashing.
    """
    found = []
    for family, distance, width, layers in dict.fromkeys(cells):
        graph = FAMILIES[family](distance)
        accuracy, loss, _ = fit_transfer(
            graph, layers=layers, width=width, seeds=seeds, lrs=list(lrs), steps=steps, kind=kind
        )
        pair = np.array([[graph.source, graph.target]])
        resistance = float(effective_resistance(graph, pair)[0])
        found.append(
            TransferCell(
                family,
                distance,
                width,
                layers,
                accuracy.double().numpy(),
                loss.double().numpy(),
                resistance,
                resistance * graph.edge_index.shape[1],
            )
        )
    return found


def pick_cell(cells: list[TransferCell], family: str, distance: int, width: int, layers: int) -> TransferCell:
    """The arm with these settings.

    Args:
        cells: From :func:`transfer_cells`.
        family: Graph family.
        distance: Distance.
        width: Width.
        layers: Layers.

    Raises:
        ValueError: If there is none.
    """
    for cell in cells:
        if cell[:4] == (family, distance, width, layers):
            return cell
    raise ValueError(f"expected one of {[c[:4] for c in cells]}, got {(family, distance, width, layers)}")
