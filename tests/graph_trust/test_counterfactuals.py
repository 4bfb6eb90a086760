import math

import pytest
import torch

from netatlas.graph_trust import counterfactuals as cf

W = torch.tensor([0.6, -0.3, 0.2], dtype=torch.float64)


def affine(x, w=W, b=0.4):
    return x @ w + b


def curved(x):
    return torch.sigmoid(4 * (x @ W) + torch.sin(3 * x).sum(-1) - 1)


def points(n=6, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(k=500, d=3, seed=1):
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_against_loops():
    x, e, s = points(), noise(20), 0.2
    stable, relaxed = cf.stability(curved, x, e, 1.5, s), cf.relaxed_stability(curved, x, e, s)
    for i in range(6):
        near = [x[i] + s * n for n in e]
        by_hand = sum(float(curved(p)) - 1.5 * float((p - x[i]).norm()) for p in near) / 20
        assert float(stable[i]) == pytest.approx(by_hand)
        here = float(curved(x[i]))
        assert float(relaxed[i]) == pytest.approx(
            sum(float(curved(p)) - abs(here - float(curved(p))) for p in near) / 20
        )
    assert bool((relaxed <= curved(x) + 1e-12).all())


def test_affine_closed_forms():
    k, s = 400_000, 0.1
    x, e = points(2), noise(k)
    expected = affine(x) - s * W.norm() * math.sqrt(2 / math.pi)
    torch.testing.assert_close(cf.relaxed_stability(affine, x, e, s), expected, atol=2e-4, rtol=0)
    length = math.sqrt(2) * math.gamma(2) / math.gamma(1.5)
    torch.testing.assert_close(cf.stability(affine, x, e, 0.7, s), affine(x) - 0.7 * s * length, atol=5e-4, rtol=0)


def test_deviation_of_affine_models_is_the_normal_of_the_closed_form():
    other, s, k, draws = torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64), 0.3, 16, 4000
    x = points(1)
    e = noise(k * draws).unflatten(0, (draws, k))
    z = torch.stack([cf.stability_deviation(affine, lambda p: affine(p, other, 0.35), x, one, s)[0] for one in e])
    mean, variance = affine(x)[0] - affine(x, other, 0.35)[0], s**2 * float((W - other).square().sum()) / k
    assert abs(float(z.mean() - mean)) < 3.5 * math.sqrt(variance / draws)
    assert abs(float(z.var()) / variance - 1) < 3.5 * math.sqrt(2 / draws)


def test_the_bound_and_its_published_form():
    bound = cf.stability_tail_bound(0.2, 100, 1.5, 0.1)
    assert bound == pytest.approx(math.exp(-100 * 0.04 / (2 * 2.25 * 0.01)))
    published = math.exp(-100 * 0.04 / (8 * 2.25 * 0.01))
    assert cf.stability_tail_bound(0.2, 100, 1.5, 0.1, drift=0.1) == pytest.approx(published)
    assert cf.stability_tail_bound(0.2, 100, 1.5, 0.1, drift=0.2) == 1


def test_bisection_meets_the_boundary():
    inside, outside = torch.ones(4, 3).double(), torch.zeros(4, 3).double()
    found = cf.bisect_to_boundary(affine, inside, outside, 0.6)
    torch.testing.assert_close(affine(found), torch.full((4,), 0.6).double())
    assert bool((affine(found) >= 0.6).all())


def test_closest_counterfactual_of_a_linear_model_moves_the_cheapest_feature():
    logit = lambda x: 10 * (x @ torch.tensor([1.0, 0.2, -0.1]).double() - 0.5)  # noqa: E731
    start = torch.full((3, 3), 0.1).double()
    found = cf.closest_counterfactual(logit, start, steps=400)
    assert bool((logit(found) >= 0).all()) and float(logit(found).max()) < 1e-6
    # The cheapest way in the 1-norm changes the first feature alone, by .41.
    assert float((found - start).abs().sum(-1).max()) < 1.25 * 0.41
    with_edge = cf.closest_counterfactual(lambda x: x.sum(-1) - 10, start)
    assert bool((with_edge <= 1).all())


def test_ascent_reaches_levels_in_order_and_bisects():
    path = cf.ascend(curved, 0.3 * points(), [0.5, 0.6, 0.7], step=0.05, steps=100)
    at = torch.stack([curved(p) for p in path.points])
    assert bool(path.reached.all())
    expected = torch.tensor([[0.5], [0.6], [0.7]]).double().maximum(curved(0.3 * points()))
    torch.testing.assert_close(at, expected, atol=2e-3, rtol=0)
    never = cf.ascend(curved, points(), [2.0], steps=3)
    assert not bool(never.reached.any()) and never.score.shape == (4, 6)


def test_ascents_of_networks_side_by_side_are_each_alone():
    scale = torch.tensor([2.0, 5.0]).double()
    both = cf.ascend(lambda x: torch.sigmoid(scale.reshape(2, *[1] * (x.ndim - 2)) * (x @ W)),
                     points().expand(2, 6, 3), [0.6], step=0.02, steps=30)  # fmt: skip
    for m in range(2):
        alone = cf.ascend(lambda x, m=m: torch.sigmoid(scale[m] * (x @ W)), points(), [0.6], step=0.02, steps=30)
        torch.testing.assert_close(both.points[0, m], alone.points[0])


def test_nearest_stable_against_a_loop():
    x, c = points(), points(40, 3)
    s = cf.relaxed_stability(curved, c, noise(50))
    found, solved = cf.nearest_stable(x, c, s, float(s.median()))
    kept = c[s >= s.median()]
    for i in range(6):
        assert torch.equal(found[i], kept[(kept - x[i]).norm(dim=1).argmin()])
    none, solved = cf.nearest_stable(x, c, s, 2.0)
    assert torch.equal(none, x) and not bool(solved.any())


def test_validity_is_a_share():
    assert cf.counterfactual_validity(torch.tensor([[1.0, -1], [0, -2], [-1, 3]])).tolist() == pytest.approx(
        [2 / 3, 1 / 3]
    )


def test_runs_on_the_meta_device():
    x, e = torch.empty(2, 3, device="meta"), torch.empty(5, 3, device="meta")
    assert cf.relaxed_stability(lambda p: p.sum(-1), x, e).shape == (2,)
    assert cf.stability(lambda p: p.sum(-1), x, e, torch.empty(2, device="meta")).shape == (2,)


X, E = points(), noise(5)
BAD = {
    "NaN": lambda: cf.relaxed_stability(affine, X * math.nan, E),
    "integers": lambda: cf.relaxed_stability(affine, X.long(), E),
    "no points": lambda: cf.relaxed_stability(affine, X[:0], E),
    "noise": lambda: cf.relaxed_stability(affine, X, E[:, :2]),
    "no noise": lambda: cf.stability(affine, X, E[:0], 1.0),
    "scale": lambda: cf.stability(affine, X, E, 1.0, 0.0),
    "constant": lambda: cf.stability(affine, X, E, -1.0),
    "deviation": lambda: cf.stability_deviation(affine, affine, X, E * math.nan),
    "bound": lambda: cf.stability_tail_bound(0.1, 10, 1.0, drift=0.2),
    "no samples": lambda: cf.stability_tail_bound(0.1, 0, 1.0),
    "bisection": lambda: cf.bisect_to_boundary(affine, X, X[:2]),
    "penalty": lambda: cf.closest_counterfactual(affine, X, penalty=-1.0),
    "bounds": lambda: cf.closest_counterfactual(affine, X, bounds=(1.0, 0.0)),
    "levels": lambda: cf.ascend(affine, X, [0.5, 0.4]),
    "no level": lambda: cf.ascend(affine, X, []),
    "step": lambda: cf.ascend(affine, X, [0.5], step=0.0),
    "no candidate": lambda: cf.nearest_stable(X, X[:0], X[:0, 0], 0.5),
    "features": lambda: cf.nearest_stable(X, X[:, :2], X[:, 0], 0.5),
    "score": lambda: cf.nearest_stable(X, X, X[:2, 0], 0.5),
    "no model": lambda: cf.counterfactual_validity(torch.zeros(0, 3)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()
