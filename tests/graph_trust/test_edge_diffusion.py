import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.graph_trust import edge_diffusion as ed

N, FEATURES = 12, 3
PAIRS = N * (N - 1) // 2


def problem(members=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    edges = (torch.rand(members, PAIRS, generator=generator) < 0.3).float()
    x = torch.randn(members, N, FEATURES, generator=generator)
    s = (torch.rand(members, N, generator=generator) < 0.4).float()
    return edges, x, s


def model(blind=False, members=2, steps=5):
    edges, x, s = problem(members)
    return ed.fit_edge_diffusion(
        lambda m: ed.EdgeDenoiser(FEATURES, 8, blind=blind), edges, x, s, seeds=[3] * members, steps=steps,
        pairs_per_step=40,
    )  # fmt: skip


def test_pairs_and_adjacency():
    edges, _, _ = problem()
    a = ed.to_adjacency(edges, N)
    assert torch.equal(a, a.transpose(1, 2)) and float(a.diagonal(dim1=1, dim2=2).sum()) == 0
    i, j = ed.node_pairs(N)
    assert torch.equal(a[:, i, j], edges) and bool((i < j).all())


def test_posterior_against_bayes():
    keep, before, rho = 0.3, 0.7, 0.2

    def forward(to, start, share):
        return share * (to == start) + (1 - share) * (rho if to else 1 - rho)

    for now, p in itertools.product([0, 1], [0.0, 0.35, 1.0]):
        total = 0.0
        for clean, weight in ((0, 1 - p), (1, p)):
            joint = [forward(mid, clean, before) * forward(now, mid, keep / before) for mid in (0, 1)]
            total += weight * joint[1] / sum(joint)
        found = ed.posterior_edge_probability(
            torch.tensor([float(now)]).double(), torch.tensor([p], dtype=torch.float64), keep, before, rho
        )
        assert float(found) == pytest.approx(total, rel=1e-12)


def test_last_step_is_the_prediction_and_steps_compose():
    p = torch.rand(20, generator=torch.Generator().manual_seed(0)).double()
    now = (p > 0.5).double()
    torch.testing.assert_close(ed.posterior_edge_probability(now, p, 0.4, 1.0, 0.3), p)
    keep = ed.cosine_keep_probability(10)
    assert keep[0] == 1 and keep[-1] == 0 and bool((keep.diff() < 0).all())
    # Summed over the noisy state, the posterior of the true graph is the forward marginal one step earlier.
    edges = torch.tensor([0.0, 1.0]).double()
    for t in range(1, 11):
        one = ed.noised_edge_probability(edges, float(keep[t]), 0.3)
        mixed = sum(
            (one if a else 1 - one)
            * ed.posterior_edge_probability(
                torch.full((2,), float(a)).double(), edges, float(keep[t]), float(keep[t - 1]), 0.3
            )
            for a in (0, 1)
        )
        torch.testing.assert_close(mixed, ed.noised_edge_probability(edges, float(keep[t - 1]), 0.3))


def test_denoiser_does_not_see_the_order_and_chosen_pairs_are_a_part():
    edges, x, s = (part[0] for part in problem())
    torch.manual_seed(0)
    net = ed.EdgeDenoiser(FEATURES, 8)
    time = torch.tensor(0.5)
    full = net(edges, x, s, time)
    some = torch.tensor([3, 0, 17])
    torch.testing.assert_close(net(edges, x, s, time, some), full[some])
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    i, j = ed.node_pairs(N)
    moved = ed.to_adjacency(edges, N)[order][:, order][i, j]
    back = ed.to_adjacency(full, N)[order][:, order][i, j]
    torch.testing.assert_close(net(moved, x[order], s[order], time), back)


def test_a_blind_denoiser_ignores_the_attribute_bit_by_bit():
    _, x, s = problem()
    noise = torch.rand(2, 3, 10, PAIRS, generator=torch.Generator().manual_seed(4))
    start = (noise[:, :, 9] < 0.3).float()
    both = torch.stack([s, 1 - s, torch.ones_like(s)], 1)
    blind = ed.sample_edges_reverse(
        model(True), start[:, :1].expand(2, 3, PAIRS), x, both, noise[:, :1].expand_as(noise)
    )
    assert torch.equal(blind.edges[:, 0], blind.edges[:, 1]) and torch.equal(blind.edges[:, 0], blind.edges[:, 2])
    seeing = ed.sample_edges_reverse(
        model(False, steps=60), start[:, :1].expand(2, 3, PAIRS), x, both, noise[:, :1].expand_as(noise)
    )
    assert not torch.equal(seeing.edges[:, 0], seeing.edges[:, 1])


def test_restarting_from_a_stored_state_is_the_same_run():
    _, x, s = problem()
    noise = torch.rand(2, 2, 10, PAIRS, generator=torch.Generator().manual_seed(4))
    start, attribute = (noise[:, :, 9] < 0.3).float(), s[:, None].expand(2, 2, N)
    trained = model()
    whole = ed.sample_edges_reverse(trained, start, x, attribute, noise)
    for first in (10, 4, 1):
        part = ed.sample_edges_reverse(trained, whole.path[:, :, first - 1], x, attribute, noise, first=first)
        assert torch.equal(part.edges, whole.edges)
    assert torch.equal(ed.sample_edges_reverse(trained, whole.edges, x, attribute, noise, first=0).edges, whole.edges)


def test_a_member_trains_as_it_would_alone():
    edges, x, s = problem()
    both = model()
    alone = ed.fit_edge_diffusion(
        lambda m: ed.EdgeDenoiser(FEATURES, 8), edges[1:], x[1:], s[1:], seeds=[3], steps=5, pairs_per_step=40
    )
    torch.testing.assert_close(
        both.params["product.weight"][1], alone.params["product.weight"][0], atol=1e-5, rtol=1e-4
    )


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 1), st.integers(0, 50))
def test_switch_counts_and_nests(fraction, seed):
    s = (torch.rand(N, generator=torch.Generator().manual_seed(seed)) < 0.4).float()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed + 1))
    changed = ed.attribute_switch(s, fraction, order)
    assert float((changed != s).sum()) == round(fraction * N)
    assert torch.equal(ed.attribute_switch(changed, fraction, order), s)
    assert torch.equal(ed.attribute_switch(s, 1.0, order), 1 - s)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_switched_sum_in_expectation(fraction):
    edges, _, s = (part[0] for part in problem())
    generator = torch.Generator().manual_seed(0)
    draws = 20_000
    order = torch.rand(draws, N, generator=generator).argsort(1)
    exact = ed.attribute_switch(s.expand(draws, N), fraction, order)
    flips = (torch.rand(draws, N, generator=generator) < fraction).float()
    independent = s + flips - 2 * s * flips
    q = ed.assortative_sum(edges, s)
    for found, kind in ((exact, True), (independent, False)):
        ratio = ed.assortative_sum(edges, found) / q
        expected = ed.switched_sum_factor(fraction, N, exact_count=kind)
        assert abs(float(ratio.mean()) - expected) < 3.5 * float(ratio.std()) / math.sqrt(draws)


def test_gap_by_hand_and_limits():
    s = torch.tensor([0.0, 0, 1, 1])
    edges = torch.tensor([1.0, 0, 0, 0, 1, 1])
    # Inside: pairs (0,1) and (2,3), both edges. Across: one edge of four. Density one half.
    assert float(ed.edge_independence_gap(edges, s)) == pytest.approx((1 - 0.25) / 0.5)
    assert float(ed.edge_independence_gap(torch.zeros(6), s)) == 0
    assert float(ed.edge_independence_gap(edges, torch.zeros(4))) == 0
    assert float(ed.assortative_sum(edges, s)) == 1


def test_profile_and_knee():
    edges, x, s = (part[0] for part in problem())
    groups = s > 0
    profile = ed.topology_profile(edges, x, s, groups)
    a = ed.to_adjacency(edges, N)
    degree = a.sum(1)
    torch.testing.assert_close(profile[1, 0], degree[groups].mean() / degree.mean())
    near = (a @ s / degree.clamp_min(1))[~groups].mean()
    torch.testing.assert_close(profile[0, 1 + FEATURES], near)
    assert profile[0, -1] == 0 and profile[1, -1] == 1
    assert float(ed.profile_distance(profile, profile)) == 0
    costs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.2, 0.3], [0.5, 0.5], [0.2, 0.9]])
    knee, front = ed.knee_point(costs)
    assert knee == 2 and front.tolist() == [True, True, True, False, False]


D = model()
S0 = torch.zeros(2, 1, PAIRS)
BAD = {
    "one node": lambda: ed.node_pairs(1),
    "pairs": lambda: ed.to_adjacency(torch.zeros(5), 4),
    "no step": lambda: ed.cosine_keep_probability(0),
    "keep": lambda: ed.noised_edge_probability(torch.zeros(3), 1.5, 0.1),
    "order of keeps": lambda: ed.posterior_edge_probability(torch.zeros(3), torch.zeros(3), 0.5, 0.4, 0.1),
    "density": lambda: ed.posterior_edge_probability(torch.zeros(3), torch.zeros(3), 0.5, 0.6, 0.0),
    "width": lambda: ed.EdgeDenoiser(3, 0),
    "empty graph": lambda: ed.fit_edge_diffusion(
        lambda m: ed.EdgeDenoiser(3), torch.zeros(1, PAIRS), torch.zeros(1, N, 3), torch.zeros(1, N), seeds=[0]
    ),
    "weights": lambda: ed.fit_edge_diffusion(
        lambda m: ed.EdgeDenoiser(3), torch.full((1, PAIRS), 0.5), torch.zeros(1, N, 3), torch.zeros(1, N), seeds=[0]
    ),
    "NaN": lambda: ed.fit_edge_diffusion(
        lambda m: ed.EdgeDenoiser(3), problem(1)[0], torch.full((1, N, 3), math.nan), torch.zeros(1, N), seeds=[0]
    ),
    "attribute": lambda: ed.fit_edge_diffusion(
        lambda m: ed.EdgeDenoiser(3), problem(1)[0], torch.zeros(1, N, 3), torch.full((1, N), 2.0), seeds=[0]
    ),
    "seeds": lambda: ed.fit_edge_diffusion(
        lambda m: ed.EdgeDenoiser(3), problem(1)[0], torch.zeros(1, N, 3), torch.zeros(1, N), seeds=[0, 1]
    ),
    "first": lambda: ed.sample_edges_reverse(
        D, S0, problem()[1], torch.zeros(2, 1, N), torch.zeros(2, 1, 10, PAIRS), first=11
    ),
    "noise": lambda: ed.sample_edges_reverse(D, S0, problem()[1], torch.zeros(2, 1, N), torch.zeros(2, 1, 3, PAIRS)),
    "graphs": lambda: ed.sample_edges_reverse(D, S0, problem()[1], torch.zeros(2, 3, N), torch.zeros(2, 1, 10, PAIRS)),
    "fraction": lambda: ed.attribute_switch(torch.zeros(3), 1.5, torch.arange(3)),
    "not binary": lambda: ed.attribute_switch(torch.full((3,), 0.5), 0.5, torch.arange(3)),
    "order": lambda: ed.attribute_switch(torch.zeros(3), 0.5, torch.arange(2)),
    "gap": lambda: ed.edge_independence_gap(torch.zeros(5), torch.zeros(4)),
    "sum": lambda: ed.assortative_sum(torch.zeros(5), torch.zeros(4)),
    "factor": lambda: ed.switched_sum_factor(0.5, 1, exact_count=True),
    "groups": lambda: ed.topology_profile(torch.zeros(6), torch.zeros(4, 2), torch.zeros(4), torch.zeros(3) > 0),
    "profile": lambda: ed.profile_distance(torch.zeros(2, 3), torch.zeros(2, 4)),
    "costs": lambda: ed.knee_point(torch.zeros(0, 2)),
    "NaN costs": lambda: ed.knee_point(torch.full((1, 2), math.nan)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    with pytest.raises(ValueError, match="expected"):
        BAD[case]()
