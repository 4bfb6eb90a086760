"""Experiments on over-squashing: obstruction beside commute times, and transfer over width, depth and topology."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from netatlas.core.graph import as_csr
from netatlas.core.resistance import access_times, commute_times, effective_resistance
from netatlas.core.stats import loglog_slope
from netatlas.propagation.bottlenecks import clique_path, crossed_ring, ring
from netatlas.propagation.sensitivity import (
    PathNetwork,
    jacobian_obstruction,
    linear_obstruction_limit,
    path_jacobians,
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
