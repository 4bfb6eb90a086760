"""The chapter's experiments at toy size: what they return, and that known structure is found."""

import numpy as np
import pytest
import torch

from netatlas import data
from netatlas.scaling_laws import experiments as ex
from netatlas.scaling_laws import power_law_spectrum
from netatlas.scaling_laws import selection_experiment as selection
from netatlas.scaling_laws.routing import RATES, random_grammar


def test_published_runs_are_filtered_and_their_law_recovered():
    frame = data.routed_curves()
    runs = ex.routed_runs(frame)
    assert set(runs) == set(ex.PUBLISHED)
    assert all((run.experts == 1).sum() == 5 for run in runs.values())
    evidence = ex.routed_evidence(runs, samples=4, seed=0)
    assert all(e.law.c > 0 and e.interaction_stderr > 0 for e in evidence.values())
    null = ex.separable_null(runs, samples=2, seed=0)
    assert null.shape == (6,) and null.mean() < min(
        e.held.rmse["separable saturating"] - e.held.rmse["full"] for e in evidence.values()
    )
    later = frame.assign(step=frame.step - 10, loss_validation=99.0)
    import pandas as pd

    assert ex.routed_runs(pd.concat([frame, later]))["Hash"].loss.max() < 99


def test_gains_are_paired_over_seeds():
    losses = np.array([[[2.0, 2.1, 2.2], [1.9, 2.01, 2.09]], [[2.0, 2.0, 2.0], [2.0, 2.1, 1.9]]])
    gain = ex.routing_gain(losses)
    assert gain[0] > 10 and abs(gain[1]) < 1e-6
    assert ex.falls_everywhere(losses) == 1


def test_a_made_interaction_is_found_in_small_losses():
    sizes, experts = [100.0, 1000.0, 10_000.0], [1, 4, 16]
    n, e = np.log10(sizes)[:, None], np.log10(experts)[None]
    losses = 10 ** (0.5 - 0.05 * n - 0.08 * e + 0.015 * n * e)
    found = ex.small_scale_interaction(np.repeat(losses[..., None], 2, -1), sizes, experts, samples=3, seed=0)
    assert np.allclose(found, 0.015, rtol=1e-4)


def test_selection_runs_and_every_predictor_is_scored():
    images, labels = data.digit_images(limit=1500)
    check = data.digit_images(split="test", limit=200)
    sources = selection.make_sources(images, labels, *check, size=160, seed=0)
    assert (sources.labels[2] != sources.labels[0]).mean() > 0.5 and sources.points[0].shape == (160, 196)
    run = selection.selection_run(sources, sizes=(40, 80, 160), repetitions=1, kept=20, validation=40, seed=0, parts=10)
    arms = {
        "transport",
        "transport alone",
        "label distributions",
        "proportions",
        "shuffled transport",
        "without labels",
    }
    assert set(run.error) == arms | {"official form"}
    assert run.design["transport alone"] == "transport" and run.selected["uniform"] > 0.2
    assert run.mixture.sum() == pytest.approx(1) and run.selected["best"] >= 0.2
    assert all(len(a) == 66 for a in run.accuracy.values())


def test_measured_exponents_have_intervals_over_draws():
    x = np.array([10.0, 100.0, 1000.0])
    curves = np.stack([c * x**-0.7 for c in (0.9, 1.0, 1.1)])
    found = ex.measure_exponent("a", "b", x, curves, 0.7)
    assert (
        found.fitted.mean == pytest.approx(0.7) and found.fitted.half_width < 1e-6 and found.ratio == pytest.approx(1)
    )
    assert ex.measure_exponent("a", "b", x, curves[:1], 0.7).fitted.n == 1


def test_theory_is_compared_with_simulation_and_width():
    one = ex.mean_field_agreement([(1.5, 1.25)], {16: 30}, [3.0, 30.0], features=200, seed=0)[0]
    assert one.excess < 1 and one.ratio.shape == (2,)
    table = ex.exponent_table([(1.75, 1.5)], features=1e10, bins=120, budgets=3)
    assert all(law == pytest.approx(got, abs=0.03) for law, got in table[1.75, 1.5].values())
    early, late = ex.width_corrections(1.5, 1.25, features=1e10, bins=120)
    assert early == pytest.approx(1, abs=0.15) and late == pytest.approx(0.5, abs=0.1)
    both = ex.ensemble_against_width(
        power_law_spectrum(1.5, 1.25, features=200), 8, [100.0], members=4, draws=20, seed=0
    )
    assert both.ratio[0] > 1 and both.separation[0] > 2


def test_real_spectra_and_merged_classes_at_toy_size():
    images, labels = data.digit_images(limit=160)
    real = ex.real_spectrum(images, labels, [16], [1.0, 100.0], draws=3, seed=0)
    assert np.allclose(real.losses[16].mean(0), real.theory[16], rtol=0.25)
    fold = ex.merged_classes(images, labels, [20, 40, 80], tests=60, draws=2, seed=0)
    assert set(fold.losses) == {10, 5, 2} and fold.dimension > 1
    with pytest.raises(ValueError, match="at least"):
        ex.merged_classes(torch.zeros(10, 1, 2, 2), torch.zeros(10, dtype=torch.long), [8], tests=8, draws=1, seed=0)


def test_a_source_with_wrong_labels_is_further_by_the_looks_of_its_labels():
    images, labels = data.digit_images(limit=1500)
    check = data.digit_images(split="test", limit=300)
    found = []
    for wrong in (0.0, 0.5):
        sources = selection.make_sources(images, labels, *check, size=200, seed=0, wrong=wrong, noise=0.0)
        solved = selection.label_distribution_distances(sources, kept=40, validation=60, disclosed=200)
        found.append(solved.solve(np.eye(3)).cost[2])
    assert found[1] > found[0]


def test_repeated_data_follow_the_theory():
    found = ex.finite_data_agreement(
        power_law_spectrum(1.5, 1.25, features=300), [16, 32], [1.0, 10.0, 1e4], draws=40, seed=0
    )
    assert max(found.excess.values()) < 1 and found.final().shape == (40, 2)


def test_a_sweep_shares_its_dense_models_and_chooses_from_the_rates():
    grammar = random_grammar(12, hidden=6, gain=1.0)
    losses, rates = ex.routing_sweep(
        grammar, [2, 4], [1, 2], seeds=[0, 1], steps=4, batch=16, routers=("hash", "position")
    )
    assert losses["hash"].shape == (2, 2, 2) and np.isin(rates["hash"], RATES).all()
    assert np.array_equal(losses["hash"][:, 0], losses["position"][:, 0])
    with pytest.raises(ValueError, match="begin with 1"):
        ex.routing_sweep(grammar, [2], [2], seeds=[0], steps=1, batch=4)
