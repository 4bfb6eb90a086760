"""The chapter's experiments at a tiny size: shapes, controls that are null, and statistics that are calibrated."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from netatlas.data import labelled_graphs, molecule_table, strongly_regular_graphs, wl_pairs
from netatlas.expressivity import experiments as ex
from netatlas.expressivity import molecule_experiments as me
from netatlas.expressivity import synthesis_experiments as se


def test_exact_checks_are_exact():
    assert max(ex.exact_checks().values()) < 1e-9
    forms = me.matrix_function_checks()
    assert all(v < (0.02 if "slope" in k else 1e-8) for k, v in forms.items())
    hand = se.pooling_checks(0)
    assert max(hand[k] for k in ("sum", "mean", "L2", "harmonic")) < 1e-5


def test_the_strongly_regular_pair_is_one():
    rook, shrikhande = ex.strongly_regular_pair()
    for graph in (rook, shrikhande):
        assert nx.is_strongly_regular(graph) and set(dict(graph.degree).values()) == {6}
    assert not nx.is_isomorphic(rook, shrikhande)


def test_sets_under_refinement_and_fitting():
    graphs = labelled_graphs()[:30]
    labels = np.array([int(g.y) for g in graphs])
    seen = ex.refine_set(graphs, labels)
    assert seen.identified == sorted(seen.identified) and seen.bound == sorted(seen.bound)
    assert seen.bound[-1] <= seen.perfect
    fitted = ex.fit_to_bound(graphs, labels, seeds=[0, 1], steps=5)
    assert all(len(a) == 2 and a.max() <= fitted.bound + 1e-12 for a in fitted.accuracy.values())
    regular, coins = ex.regular_graphs(12, 0)
    assert ex.refine_set(regular, coins).identified[-1] < 0.5


def test_stars():
    exact = ex.star_obstruction(2, 0)
    assert exact.share_error == 0 and exact.not_polynomial == exact.sum_depends == 0 and exact.product_error < 1e-9
    trained = ex.train_stars([0, 1], 4, all_arms=True)
    assert all(v.shape == (len(ex.GROWTH), 2) for v in (trained.errors | trained.additive).values())


def test_cliques_and_counts():
    hard = ex.cliques_on_regular(strongly_regular_graphs(family="any"), [0, 1], 1)
    assert np.isfinite(hard.score).all() and hard.spread["PPGN++"].max() < 1e-10
    easy = ex.learn_counts([0], 16, 1)
    assert all(v.shape == (2, 1) for v in easy.values())


def test_no_model_sees_more_than_theory_allows():
    pairs = wl_pairs()
    some = {k: pairs[k] for k in ("basic", "strongly_regular")}
    told = ex.separate_pairs(some, each={"basic": 2}, largest_triple=20, copies=1, seed=0)
    assert sum(told.outside.values()) == 0 and sum(told.false.values()) == 0
    assert told.pairs == {"basic": 2, "strongly_regular": 1}
    assert told.count["2-FWL"] == {"basic": 2, "strongly_regular": 0}
    assert told.count["3-FWL"]["basic"] == 2 and told.tried["3-FWL"] == {"basic": 2, "strongly_regular": 0}
    assert told.count["PPGN++"] == {"basic": 2, "strongly_regular": 0} and told.count["GIN"]["basic"] == 0
    assert told.count["PPGN++ and 12 polynomials"]["strongly_regular"] == 1
    assert all(told.tried[name] == told.pairs for name in ex.THEORY if name != "3-FWL")
    # What a pair looks like does not depend on the pairs beside it.
    alone = ex.separate_pairs({"basic": pairs["basic"][:1]}, largest_triple=20, copies=0, seed=0)
    whole = ex.separate_pairs({"basic": pairs["basic"]}, largest_triple=20, copies=0, seed=0)
    assert all(whole.count[m]["basic"] == 6 * alone.count[m]["basic"] for m in ("GIN", "2-FWL", "3-FWL"))
    graphs = labelled_graphs()[:40]
    scores = ex.portrait_scores(graphs, [int(g.y) for g in graphs], 0, folds=1, epochs=1)
    assert all(0 <= v.accuracy.mean() <= 1 and v.seconds >= 0 for v in scores.values())


def test_molecules():
    frame = molecule_table(limit=60)
    molecules = me.read_molecules(frame, 0)
    assert torch.bincount(molecules.folds).tolist() == [12] * 5
    errors = me.compare_fingerprints(molecules, folds=[0], epochs=1, seed=0, circular=((1, 64),))
    assert all(len(v) == 12 for v in errors.squared.values()) and errors.mass_error < 1e-5
    limit = me.random_limit(molecules, [0, 1], count=20, size=128)
    assert limit.small_error < 5e-3 and limit.ceiling.mean() > limit.correlation[0.01].mean()
    fragments = me.telling_fragments(molecules, 0, 1)
    assert len(fragments) == 2 and fragments[0].weight > fragments[1].weight
    with pytest.raises(ValueError, match="molecule"):
        me.read_molecules(pd.DataFrame({"smiles": ["nonsense"], "target": [0.0]}), 0)


def test_cumulenes():
    found = me.compare_cumulenes([0, 1], each=6, pole_steps=2, epochs=1, layers=(1,), width=2)
    assert all(v.shape == (2,) for v in (*found.fresh.values(), *found.longer.values()))
    assert found.local_powers.max() < 1e-5 < found.local_poles.min()


def test_poolings():
    pools = se.compare_poolings([0, 1], steps=4, count=32)
    assert set(pools.error["gnp"]) == set(se.SET_TARGETS) and set(pools.error["gnp p=1"]) == {"harmonic", "L2"}
    for target in se.SET_TARGETS:
        assert (pools.selected(target) >= np.min([pools.error[k][target] for k in se.FIXED], axis=0)).all()


def test_recovery():
    found = se.recover_all([120, 200], [0], 40)
    assert all(0 < v[0] < 1.01 for v in found.distance.values()) and set(found.truth) == set(se.SETS)
    gin = se.gin_recovery(120, [0], landmarks=30, width=4, steps=2)
    assert all(len(v) == 1 for v in gin.distance.values())
    use = se.downstream(120, [0, 1], landmarks=30, steps=2)
    assert all(0 <= v.min() <= v.max() <= 1 for v in (*use.accuracy.values(), *use.permuted.values()))


def test_evolution_keeps_half_and_draws_new_programs():
    evolved = se.evolve_programs(0, population=4, generations=2, repeats=2, steps=8, draws=2, controls=True)
    before, after = ([p.graph for p in g] for g in evolved.programs)
    assert len(set(before) & set(after)) == 2 and len(set(after)) == 4
    rank = np.argsort(-evolved.train[0].mean(1), kind="stable")[:2]
    assert [before[i] for i in rank] == after[:2]
    np.testing.assert_allclose(evolved.test[0][rank], evolved.test[1][:2])


def test_statistics_are_calibrated_on_noise():
    rng = np.random.default_rng(0)
    tails = np.array(
        [
            se.one_way([rng.normal(size=(12, 4)) + k for k in range(2)], [np.arange(12.0)] * 2).p_value
            for _ in range(400)
        ]
    )
    assert 0.02 < (tails < 0.05).mean() < 0.09
    told = se.one_way([rng.normal(size=(12, 4)) + 5 * np.arange(12)[:, None]])
    assert told.p_value < 1e-6 and told.between > 0.9
    ramp = rng.normal(size=(12, 4)) * 0.1 + 5 * np.arange(12.0)[:, None]
    assert se.one_way([ramp], [np.arange(12.0)]).p_value > 1e-4
    one = [rng.normal(size=(5, 3))]
    f = scipy.stats.f_oneway(*one[0])
    assert se.one_way(one).p_value == pytest.approx(f.pvalue)
    passes = 0
    for _ in range(300):
        values, base = rng.normal(size=(12, 4)), rng.normal(size=12)
        q = se.cross_fitted_quarters(values[:, :2], values[:, 2:], base)
        passes += q.best > 2 * q.best_error and q.worst < -2 * q.worst_error
    assert passes / 300 < 0.03
