"""Every measure of trust on the same trained networks, while their test graph drifts away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from netatlas.core.calibration import expected_calibration_error, fit_temperature, top_label
from netatlas.core.conformal import adaptive_scores, conformal_quantile, diffused_scores, label_scores
from netatlas.graph_trust.lebed import encoder_outputs, graph_shift_suite, retrain_on_test_graphs
from netatlas.graph_trust.lebed_experiments import Source
from netatlas.graph_trust.naps import hop_distances, khop_calibration_weights, neighbourhood_quantiles


class TrustPortrait(NamedTuple):
    """Measures at each level of shift and network, ``[levels, networks]`` each.

    Attributes:
        levels: Strength of the shift.
        measures: By name.
    """

    levels: list[float]
    measures: dict[str, np.ndarray]


def _explained(graph: Data, same: bool, remove: float, samples: int, generator: torch.Generator) -> list[Data]:
    """Graphs with a share of the edges inside (or across) classes removed at random."""
    first, second = graph.edge_index
    upper = first < second
    pairs = graph.edge_index[:, upper]
    chosen = (graph.y[pairs[0]] == graph.y[pairs[1]]) == same
    found = []
    for _ in range(samples):
        kept = pairs[:, ~(chosen & (torch.rand(pairs.shape[1], generator=generator) < remove))]
        found.append(Data(x=graph.x, edge_index=torch.cat([kept, kept.flip(0)], 1), y=graph.y, num_nodes=len(graph.y)))
    return found


@torch.no_grad()
def _fidelity(graph: Data, source: Source, remove: float, samples: int, seed: int) -> np.ndarray:
    """Fidelity (delta) of the edges inside classes as the explanation, by removals of a share of the edges."""
    generator = torch.Generator().manual_seed(seed)
    samples = 1 if remove == 1 else samples
    graphs = [graph, *_explained(graph, True, remove, samples, generator),
              *_explained(graph, False, remove, samples, generator)]  # fmt: skip
    p = encoder_outputs(graphs, source.trained).softmax(-1)
    own = p.gather(-1, graph.y.expand(p.shape[:-1])[..., None])[..., 0].mean(-1)
    return ((own[0] - own[1 : 1 + samples].mean(0)) - (own[0] - own[1 + samples :].mean(0))).double().numpy()


def trust_portrait(
    source: Source, family: str, levels: Sequence[float], *, seed: int, splits: int = 10, samples: int = 5
) -> TrustPortrait:
    """Accuracy, calibration, coverage, set size, fidelity and label-free estimates under a growing shift.

    Temperature and quantiles are fitted on calibration nodes of the unshifted graph; the test nodes are seen shifted.

    Args:
        source: Networks and the graph that they never saw.
        family: Kind of shift, see :func:`netatlas.graph_trust.lebed.graph_shift_suite`.
        levels: Its strengths.
        seed: Seeds shifts and splits.
        splits: Random halves into calibration and test nodes.
        samples: Random removals of the robust fidelity.
    """
    clean = graph_shift_suite(source.test, {"none": (0.0,)}, seed=seed)[0].graph
    suite = [s.graph for s in graph_shift_suite(source.test, {family: tuple(levels)}, seed=seed)]
    y, n = source.test.y, len(source.test.y)
    logits = encoder_outputs([clean, *suite], source.trained).double()
    p = logits.softmax(-1)
    networks = p.shape[1]
    rng = np.random.default_rng(seed)
    names = ("ECE", "ECE, temperature of the clean graph", "coverage, APS", "coverage, NAPS", "coverage, diffused APS",
             "set size, APS", "set size, NAPS", "set size, diffused APS")  # fmt: skip
    table = {name: np.zeros((len(suite), networks)) for name in names}
    weights = khop_calibration_weights(hop_distances(clean, 2))
    for _ in range(splits):
        order = torch.from_numpy(rng.permutation(n))
        calibration = torch.zeros(n, dtype=torch.bool)
        calibration[order[: n // 2]] = True
        u = torch.from_numpy(rng.random(n))
        for m in range(networks):
            t = fit_temperature(logits[0, m][calibration], y[calibration])
            base = adaptive_scores(p[0, m], u)
            own, mixed = label_scores(base, y), label_scores(diffused_scores(base, clean), y)
            bounds = {"APS": conformal_quantile(own[calibration]).expand(n),
                      "NAPS": neighbourhood_quantiles(own, weights, calibration),
                      "diffused APS": conformal_quantile(mixed[calibration]).expand(n)}  # fmt: skip
            enough = torch.isfinite(bounds["NAPS"]) & ~calibration
            for level, graph in enumerate(suite):
                raw, test = p[1 + level, m], ~calibration
                table["ECE"][level, m] += float(_ece(raw[test], y[test]))
                scaled = (logits[1 + level, m] / t).softmax(-1)
                table["ECE, temperature of the clean graph"][level, m] += float(_ece(scaled[test], y[test]))
                scores = adaptive_scores(raw, u)
                for arm, bound in bounds.items():
                    values = diffused_scores(scores, graph) if arm == "diffused APS" else scores
                    sets = values <= bound[:, None]
                    inside = sets.gather(1, y[:, None])[:, 0]
                    table[f"coverage, {arm}"][level, m] += float(inside[enough].double().mean())
                    table[f"set size, {arm}"][level, m] += float(sets.sum(1)[enough].double().mean())
    found = {name: value / splits for name, value in table.items()}
    found["accuracy"] = (p[1:].argmax(-1) == y).double().mean(-1).numpy()
    found["confidence"] = p[1:].amax(-1).mean(-1).numpy()
    found["LeBeD"] = (
        retrain_on_test_graphs(suite, source.trained, source.initial, epochs=40, lr=0.01).score.double().numpy()
    )
    found["fidelity, all edges removed"] = np.stack([_fidelity(g, source, 1.0, 1, seed) for g in suite])
    found["fidelity, a tenth removed"] = np.stack([_fidelity(g, source, 0.1, samples, seed) for g in suite])
    return TrustPortrait(list(levels), found)


def _ece(p: Tensor, y: Tensor) -> Tensor:
    return expected_calibration_error(*top_label(p, y))
