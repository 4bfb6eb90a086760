import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core import conformal as con


def probabilities(n=60, classes=4, seed=0):
    return torch.rand(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)


def test_adaptive_scores_against_a_loop():
    p = probabilities()
    u = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = con.adaptive_scores(p, u)
    for i in range(60):
        for k in range(4):
            expected = sum(q for q in p[i].tolist() if q > p[i, k]) + (1 - u[i]) * p[i, k]
            assert float(scores[i, k]) == pytest.approx(float(expected))


def test_adaptive_scores_of_an_oracle_are_uniform():
    # Labels drawn from p itself: the randomised score is exactly uniform.
    p, generator = probabilities(20_000), torch.Generator().manual_seed(2)
    y = torch.multinomial(p, 1, generator=generator)[:, 0]
    u = torch.rand(20_000, generator=generator, dtype=torch.float64)
    s = con.label_scores(con.adaptive_scores(p, u), y).sort().values
    gap = (s - (torch.arange(20_000) + 0.5) / 20_000).abs().max()
    assert float(gap) < 1.63 / 20_000**0.5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 60), st.sampled_from([0.05, 0.1, 0.2, 0.5]))
def test_equal_weights_give_the_plain_quantile(n, alpha):
    s = torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    plain = con.conformal_quantile(s, alpha)
    weighted = con.weighted_conformal_quantile(s, np.ones((3, n)), alpha)
    assert torch.equal(weighted, plain.expand(3))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(0, 10**6))
def test_weighted_quantile_against_a_loop(n, seed):
    rng = np.random.default_rng(seed)
    s, w = rng.random(n), rng.integers(0, 4, (5, n)).astype(float)
    found = con.weighted_conformal_quantile(torch.from_numpy(s), sp.csr_array(w), 0.1).numpy()
    for row, q in zip(w, found):
        total, expected = 0.0, math.inf
        for i in np.argsort(s):
            total += row[i]
            if row[i] > 0 and total >= 0.9 * (row.sum() + 1) - 1e-9:
                expected = s[i]
                break
        assert q == expected


def test_ties_at_the_level_are_not_lost_to_rounding():
    # Nine neighbours of weight one tenth short: nine of ten parts is exactly the level.
    for m in (9, 29, 69, 79):
        s = torch.linspace(0, 1, m, dtype=torch.float64)
        assert bool(con.weighted_conformal_quantile(s, np.ones((1, m))).isfinite().all())
        assert con.conformal_quantile(s).isfinite()
    assert con.weighted_conformal_quantile(torch.rand(8), np.ones((1, 8)))[0] == math.inf


@pytest.mark.parametrize("n", [0, 1, 8, 9, 10, 18, 19, 50])
def test_finite_sample_coverage_by_simulation(n):
    generator = torch.Generator().manual_seed(n)
    scores = torch.rand(40_000, n + 1, generator=generator, dtype=torch.float64)
    q = con.conformal_quantile(scores[:, :n])
    covered = (scores[:, n] <= q).double()
    exact = float(con.exchangeable_coverage(n))
    assert exact >= 0.9
    assert abs(float(covered.mean()) - exact) <= 3.5 * (max(exact * (1 - exact), 1e-12) / 40_000) ** 0.5
    assert exact == pytest.approx({0: 1.0, 1: 1.0, 8: 1.0, 9: 0.9, 10: 10 / 11, 18: 18 / 19, 19: 0.9}.get(n, exact))


def test_diffusion_keeps_coverage_and_isolated_nodes():
    rng = np.random.default_rng(0)
    n = 60
    a = np.triu(rng.random((n, n)) < 0.08, 1)
    a[0] = a[:, 0] = 0
    graph = (a + a.T).astype(float)
    p = probabilities(n)
    scores = con.adaptive_scores(p)
    mixed = con.diffused_scores(scores, graph, 0.4)
    torch.testing.assert_close(mixed[0], scores[0])
    v = int(graph.sum(1).argmax())
    near = torch.from_numpy(np.flatnonzero(graph[v]))
    torch.testing.assert_close(mixed[v], 0.6 * scores[v] + 0.4 * scores[near].mean(0))
    assert torch.equal(con.diffused_scores(scores, graph, 0.0), scores)
    y = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(3))[:, 0]
    own, generator, hits = con.label_scores(mixed, y), torch.Generator().manual_seed(4), []
    for _ in range(2000):
        order = torch.randperm(n, generator=generator)
        q = con.conformal_quantile(own[order[:30]])
        hits.append(float((own[order[30:]] <= q).double().mean()))
    # Random splits of fixed scores are exchangeable; ties only add coverage.
    assert np.mean(hits) >= 0.9 - 3.5 * np.std(hits) / len(hits) ** 0.5


def test_sets_sizes_and_violations():
    scores = torch.tensor([[0.1, 0.5, 0.9], [0.2, 0.3, 0.95]])
    assert con.prediction_sets(scores, 0.5).sum(-1).tolist() == [2, 2]
    assert con.prediction_sets(scores, torch.tensor([0.0, math.inf])).sum(-1).tolist() == [0, 3]
    sizes, covered = torch.tensor([1, 1, 3, 9]), torch.tensor([True, False, True, True])
    assert con.size_stratified_violation(sizes, covered) == pytest.approx(0.4)


def test_runs_on_the_meta_device():
    p = torch.empty(7, 3, device="meta")
    assert con.adaptive_scores(p).device.type == "meta"
    assert con.conformal_quantile(p[:, 0]).shape == ()
    assert con.prediction_sets(p, torch.tensor(0.5)).shape == (7, 3)


BAD = {
    "alpha": lambda: con.conformal_quantile(torch.rand(3), 0.0),
    "alpha of the weighted": lambda: con.weighted_conformal_quantile(torch.rand(3), np.ones((1, 3)), 1.0),
    "NaN scores": lambda: con.conformal_quantile(torch.tensor([math.nan])),
    "NaN weighted": lambda: con.weighted_conformal_quantile(torch.tensor([math.nan]), np.ones((1, 1))),
    "integer scores": lambda: con.conformal_quantile(torch.arange(4)),
    "negative weights": lambda: con.weighted_conformal_quantile(torch.rand(3), -np.ones((1, 3))),
    "columns": lambda: con.weighted_conformal_quantile(torch.rand(3), np.ones((1, 4))),
    "not probabilities": lambda: con.adaptive_scores(torch.ones(2, 3)),
    "negative probabilities": lambda: con.adaptive_scores(torch.tensor([[1.5, -0.5]])),
    "integer probabilities": lambda: con.adaptive_scores(torch.ones(2, 1).long()),
    "u of another shape": lambda: con.adaptive_scores(probabilities(5), torch.rand(4)),
    "u out of range": lambda: con.adaptive_scores(probabilities(5), torch.full((5,), 2.0)),
    "labels out of range": lambda: con.label_scores(torch.rand(2, 3), torch.tensor([0, 5])),
    "label count": lambda: con.label_scores(torch.rand(2, 3), torch.zeros(3).long()),
    "floating labels": lambda: con.label_scores(torch.rand(2, 3), torch.zeros(2)),
    "a negative count": lambda: con.exchangeable_coverage(-1),
    "a negative rank": lambda: con.conformal_rank(-1),
    "a diffusion weight": lambda: con.diffused_scores(torch.rand(3, 2), np.ones((3, 3)), 1.5),
    "another graph": lambda: con.diffused_scores(torch.rand(3, 2), np.ones((4, 4))),
    "flat scores": lambda: con.diffused_scores(torch.rand(3), np.ones((3, 3))),
    "NaN bound": lambda: con.prediction_sets(torch.rand(2, 3), torch.tensor(math.nan)),
    "bound of another shape": lambda: con.prediction_sets(torch.rand(2, 3), torch.rand(3)),
    "nothing to stratify": lambda: con.size_stratified_violation(torch.zeros(0).long(), torch.zeros(0).bool()),
    "edges": lambda: con.size_stratified_violation(torch.ones(2).long(), torch.ones(2).bool(), edges=(2, 1)),
    "no class": lambda: con.adaptive_scores(torch.ones(2, 0)),
    "NaN u": lambda: con.adaptive_scores(probabilities(5), torch.full((5,), math.nan)),
    "scores without classes": lambda: con.label_scores(torch.tensor(1.0), torch.tensor(0)),
    "NaN of a label": lambda: con.label_scores(torch.full((2, 3), math.nan), torch.zeros(2).long()),
    "NaN to diffuse": lambda: con.diffused_scores(torch.full((3, 2), math.nan), np.ones((3, 3))),
    "a broken graph": lambda: con.diffused_scores(torch.rand(2, 2), torch.tensor([[0, -1], [-1, 0]])),
    "half an example": lambda: con.exchangeable_coverage(2.5),
    "half a rank": lambda: con.conformal_rank(2.5),
    "a NaN level": lambda: con.conformal_rank(3, math.nan),
    "NaN in the weighted scores": lambda: con.weighted_conformal_quantile(torch.full((3,), math.nan), np.ones((1, 3))),
    "NaN in the weights": lambda: con.weighted_conformal_quantile(torch.rand(3), np.full((1, 3), math.nan)),
    "NaN scores of sets": lambda: con.prediction_sets(torch.full((2, 3), math.nan), torch.tensor(0.5)),
    "sets without classes": lambda: con.prediction_sets(torch.tensor(0.5), torch.tensor(0.5)),
    "outcomes of another shape": lambda: con.size_stratified_violation(torch.ones(2).long(), torch.ones(2, 2).bool()),
    "soft outcomes": lambda: con.size_stratified_violation(torch.ones(2).long(), torch.full((2,), 0.5)),
    "fractional sizes": lambda: con.size_stratified_violation(torch.full((2,), math.nan), torch.ones(2).bool()),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()


@pytest.mark.parametrize("n", [0, 1])
def test_with_nobody_or_one_to_calibrate_on_sets_are_full(n):
    bound = con.conformal_quantile(torch.zeros(n))
    bounds = con.weighted_conformal_quantile(torch.zeros(n), np.ones((2, n)))
    assert torch.isinf(bound) and torch.isinf(bounds).all() and con.exchangeable_coverage(n) == 1
    assert con.prediction_sets(con.adaptive_scores(probabilities(2)), bounds).all()
    assert float(con.conformal_quantile(torch.zeros(1), 0.5)) == 0, "one example is enough for one half"


def test_one_class_is_always_in_its_set():
    p = torch.ones(30, 1)
    scores = con.adaptive_scores(p)
    assert con.prediction_sets(scores, con.conformal_quantile(con.label_scores(scores, torch.zeros(30).long()))).all()


def test_isolated_nodes_loops_and_directions_in_the_diffusion():
    scores = torch.tensor([[0.0], [1.0], [2.0]])
    assert torch.equal(con.diffused_scores(scores, np.zeros((3, 3)), 1.0), scores)
    assert torch.equal(con.diffused_scores(scores, np.eye(3), 1.0), scores), "a loop makes a node its own neighbour"
    one_way = torch.tensor([[0, 0], [1, 1]])  # the same edge twice, one direction only
    found = con.diffused_scores(scores[:2], one_way, 1.0)
    assert found.tolist() == [[1.0], [1.0]], "a mean over out-neighbours; without any, a node keeps its own"
