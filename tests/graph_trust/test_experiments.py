"""The experiments' own bookkeeping, on small cases whose answer is known."""

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch_geometric.data import Data

from netatlas.core.populations import Architecture, Population
from netatlas.graph_trust import calibration_experiments as calibration
from netatlas.graph_trust import counterfactual_experiments as counterfactual
from netatlas.graph_trust import edge_diffusion, motif_graphs
from netatlas.graph_trust import faros_experiments as faros
from netatlas.graph_trust import fidelity_experiments as fidelity
from netatlas.graph_trust import gats_experiments as gats
from netatlas.graph_trust import lebed_experiments as lebed
from netatlas.graph_trust import naps_experiments as naps
from netatlas.graph_trust import portrait_experiments as portrait


def clustered(n=150, classes=3, features=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    chance = torch.where(y[:, None] == y, 0.15, 0.02)
    upper = (torch.triu(torch.rand(n, n, generator=generator) < chance, 1)).nonzero().T
    x = torch.randn(classes, features, generator=generator)[y] + torch.randn(n, features, generator=generator)
    return Data(x=x, edge_index=torch.cat([upper, upper.flip(0)], 1), y=y, num_nodes=n)


def test_local_quantiles_meet_the_closed_form():
    found = naps.exactness(0, draws=4000)
    assert found.same == 0 and max(abs(v) for v in found.deviation.values()) < 3.5


def test_matched_arms_cover_what_they_are_matched_to():
    graph = clustered()
    study = naps.coverage_study(
        graph, naps.train_classifier(graph, 0, epochs=20), graph.y, graph.y % 2, seed=0, resplits=3
    )
    rows = study.rows
    assert rows["APS at the coverage of NAPS"]["coverage"] == pytest.approx(rows["NAPS uniform"]["coverage"], abs=0.02)
    assert 0 < study.eligible <= 1
    assert all(0 <= row["coverage"] <= 1 and 0 <= row["set size"] <= 3 for row in rows.values())


def test_two_regions_differ_in_noise_only():
    blocks = Data(y=torch.arange(4000) % 4, edge_index=torch.zeros(2, 0).long(), num_nodes=4000)
    graph = naps.two_region_graph(blocks, 2, 0.5, 2.5)
    for region, sd in ((0, 0.5), (1, 2.5)):
        kept = (graph.region == region) & (graph.y == 0)
        assert float(graph.x[kept].std(0).mean()) == pytest.approx(sd, rel=0.05)


def judged(seeds=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (2, 300), generator=generator)
    scale = torch.linspace(0.5, 3, 5).repeat_interleave(seeds)[:, None, None]
    parts = [scale * (torch.randn(10, 300, 3, generator=generator) + 2 * torch.eye(3)[y]) for y in labels]
    population = Population([Architecture(1, w) for w in range(1, 6) for _ in range(seeds)], [0, 1] * 5, parts)
    return calibration.judge(population, *labels, seeds=seeds)


def test_taus_of_the_population_are_scipys():
    part = judged()
    found = calibration.scaling(part, resamples=20)
    expected = [kendalltau(part.pre["ECE 15"][:, s], part.post["ECE 15"][:, s]).statistic for s in range(2)]
    assert found.tau == pytest.approx(np.mean(expected))
    same = calibration.transfer(part, part, resamples=20)
    assert same.ceiling_error <= 1 and same.difference.low <= same.difference.high
    growth = calibration.bin_growth(part)
    nested = [growth.pre[calibration.BIN_COUNTS.index(m)] for m in (5, 10, 20, 100, 500)]
    assert nested == sorted(nested)


def test_ranks_of_a_perfect_measure():
    grid = {m: fidelity.SIGNS[m] * np.add.outer(np.arange(3.0), np.zeros(3)) for m in fidelity.SIGNS}
    path = {m: fidelity.SIGNS[m] * np.arange(6.0) for m in fidelity.SIGNS}
    lines = fidelity.Lines({"x": grid}, {"x": path}, {"x": path}, np.arange(6.0))
    found = fidelity.ranks(lines, "x")
    assert fidelity.right_sign(found.beta1) == {"plus": 1, "minus": 1, "delta": 1}
    assert fidelity.right_sign(found.size_matched) == {"plus": 1, "minus": 1, "delta": 1}
    assert found.spread["plus"] == 5 and found.beta2["plus"] == 0


def test_exact_cases_of_fidelity():
    trained = fidelity.untrained_classifiers([0], hidden=4)
    found = fidelity.exactness(fidelity.classifier(trained, 0), motif_graphs(6))
    assert max(v for k, v in found.items() if "linear" not in k) < 1e-6


def test_scores_of_shifted_graphs():
    graph = clustered()
    source = lebed.train_source(graph, [0, 1], hidden=4, embedding=4, epochs=10)
    suite = lebed.suite_of(source.test, seed=0, shifts={"none": (0.0,), "noise": (1.0, 3.0), "drop": (0.2, 0.5, 0.9)})
    study = lebed.shift_study(source, suite, epochs=12, fixed=6, reinitialised=True)
    assert all(v.shape == (6, 2) for v in study.scores.values())
    study.scores["error itself"] = study.error
    assert lebed.rank_correlations(study)["error itself"] == pytest.approx([1, 1])
    assert lebed.lead(study, "error itself", ["confidence"], draws=20).value >= 0
    assert set(lebed.within_each_family(study)) == {"drop"}
    picture = portrait.trust_portrait(source, "noise", [0.0, 2.0], seed=0, splits=1, samples=2)
    assert all(v.shape == (2, 2) and np.isfinite(v).all() for v in picture.measures.values())


def test_reduced_features_keep_inner_products():
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    full = lebed.reduced_features(x, 6).double()
    centred = (x - x.mean(0)).double()
    ratio = (full @ full.T) / (centred @ centred.T)
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-3, atol=0)


def test_calibrators_keep_accuracy_and_find_a_planted_temperature():
    graph = clustered(300)
    splits = gats.train_splits(graph, [0, 1], hidden=8, epochs=20, labelled=0.4)
    scores = gats.compare(splits, steps=30, patience=10)
    for arm in ("TS", "ETS", "GATS", "TS, in steps"):
        assert torch.equal(scores[arm].accuracy, scores["uncalibrated"].accuracy)
    assert scores["TS"].nll.mean() < scores["uncalibrated"].nll.mean() + 0.05
    found = gats.planted(splits, fit=150, stop=50, steps=20, patience=20)
    assert set(found) == {"relative confidence", "distance to training", "permuted over nodes", "constant"}
    assert gats.factor_study(splits).distance.shape == (2, 2)
    assert set(gats.ablate(splits, steps=3)) == {"GATS", *gats.ABLATIONS}


def test_counterfactual_arms():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(120, 4, generator=generator)
    y = (x[:, 0] + 0.3 * torch.randn(120, generator=generator) > 0.5).long()
    models = counterfactual.train_models(x, y, [0, 1], models=4, points=6, epochs=20)
    found = counterfactual.search(models, seed=0, path_samples=20, steps=40)
    value = counterfactual.probability_of(models.base)(found.points["closest"])
    assert float((value - 0.5).abs()[found.solved["closest"]].max()) < 1e-3
    outcome = counterfactual.judge(models, found, seed=0, samples=50)
    assert bool((outcome.stability["closest"] <= outcome.probability["closest"] + 1e-9).all())
    assert counterfactual.chosen_level(outcome).startswith("stability")
    assert counterfactual.rank_lead(outcome, draws=10).low <= counterfactual.rank_lead(outcome, draws=10).high
    same = outcome._replace(fresh={k: v * 0 + 1 for k, v in outcome.fresh.items()})
    assert counterfactual.equal_cost(same, draws=5).difference == pytest.approx(0)


def test_the_guarantee_holds_where_it_must():
    found = counterfactual.guarantee_check(seed=0, repetitions=1000)
    assert found.violations == 0 and found.targeted < 0.5 and found.mean_error < 4


def test_generated_graphs():
    real = faros.sensitive_graphs([0, 1], 30, scale=2.0)
    made = faros.train_generator(real, [0, 1], samples=2, timesteps=4, steps=10, hidden=8)
    grid = faros.selection_grid(real, made, (0.2, 0.5), (0, 1, 4))
    assert grid.blind_change == 0 and grid.fairness.shape == (2, 3)
    edges, s = faros.switched(real, made, 0.0, 4)
    assert torch.equal(edges, made.plain[0])
    assert torch.equal(s, real.sensitive[:, None].expand_as(s))
    changed = faros.switched(real, made, 0.5, 4)[0]
    other = faros.rewired(real, made, changed, seed=0)
    assert torch.equal(other.sum(-1), changed.sum(-1))
    assert torch.equal((other != made.plain[0]).sum(-1), (changed != made.plain[0]).sum(-1))
    arms = faros.standard_arms(real, made, grid.chosen, steps=(0, 4), seed=0)
    result = faros.downstream(real, arms, seed=0, steps=10)
    assert all(v.shape == (4,) for v in result.auc.values())
    alone = faros.downstream(real, {"no switch": arms["no switch"]}, seed=0, steps=10)
    torch.testing.assert_close(result.auc["no switch"], alone.auc["no switch"], atol=0.02, rtol=0)
    assert faros.spearman_by_fraction(grid, lowest=0.1).shape == (2,)
    assert faros.closed_forms(real, draws=500).worst < 4
    held = real.held_out & (real.edges > 0)
    assert not bool(held.any())


def test_fair_dropping_drops_inside_groups_only():
    real = faros.sensitive_graphs([0], 40, scale=2.0)
    i, j = edge_diffusion.node_pairs(40)
    same = real.sensitive[0, i] == real.sensitive[0, j]
    dropped = faros.fair_dropped(real, samples=3, seed=0)
    assert torch.equal(dropped[0, 0][~same], real.edges[0][~same])
    assert float(dropped[0][:, same].mean()) == pytest.approx(float(real.edges[0][same].mean()) / 2, rel=0.3)


def test_planned_levels_are_part_of_the_finer_path():
    levels = counterfactual.STABILITY_LEVELS
    fresh = {"closest": torch.zeros(1)} | {f"stability {level}": torch.zeros(1) for level in levels}
    outcome = counterfactual.Outcome(fresh, *[{}] * 7)
    planned, finer = (counterfactual.path_arms(outcome, "stability", planned=p) for p in (True, False))
    assert planned[0] == finer[0] == "closest" and set(planned) < set(finer) and len(finer) == 1 + len(levels)


def test_every_base_model_has_a_split_of_its_own():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(90, 3, generator=generator)
    models = counterfactual.train_models(x, (x[:, 0] > 0.5).long(), [0, 1], models=2, points=5, epochs=3)
    assert not torch.equal(models.positives[0], models.positives[1])
    for rejected, positives in zip(models.rejected, models.positives):
        assert float(torch.cdist(rejected, positives).min()) > 1e-9


def test_main_numbers_of_a_comparison():
    def scores(error):
        error = torch.tensor(error, dtype=torch.float64)
        return gats.Scores(error, error, error, torch.ones(3), 1.0)

    arms = {"uncalibrated": scores([0.3, 0.2, 0.1]), "TS": scores([0.05, 0.06, 0.07]), "ETS": scores([0.1, 0.1, 0.1])}
    ahead = gats.base_network(arms | {"GATS": scores([0.03, 0.05, 0.04])})
    behind = gats.base_network(arms | {"GATS": scores([0.07, 0.07, 0.1])})
    assert ahead.uncalibrated == pytest.approx(0.2) and ahead.one == pytest.approx(0.06) and ahead.accuracy == 1
    assert ahead.one_sided < 0.05 and behind.one_sided == pytest.approx(1 - ahead.one_sided)
