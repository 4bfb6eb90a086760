"""Routers and experts: pinned to a loop over experts, to POT's transport plans, and to a grammar's own entropy."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.scaling_laws import (
    RoutedModel,
    entropy_floor,
    equal_parameters,
    grouped_expert_mlp,
    hash_table,
    random_grammar,
    sinkhorn_assignment,
    train_routed,
)


def experts(count, dim=5, hidden=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*s, generator=g, dtype=torch.float64)
        for s in ((count, dim, hidden), (count, hidden), (count, hidden, dim))
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 100))
def test_grouped_experts_are_a_loop_over_tokens(count, tokens, seed):
    up, bias, down = experts(count)
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 5, generator=g, dtype=torch.float64)
    chosen = torch.randint(count, (tokens,), generator=g)
    loop = torch.stack([(x[i] @ up[e] + bias[e]).relu() @ down[e] for i, e in enumerate(chosen.tolist())])
    assert torch.allclose(grouped_expert_mlp(x, chosen, up, bias, down), loop, atol=1e-12)


def test_gradients_reach_the_experts_that_were_used_and_no_other():
    up, bias, down = (w.requires_grad_() for w in experts(3))
    grouped_expert_mlp(
        torch.ones(4, 5, dtype=torch.float64), torch.tensor([0, 2, 2, 0]), up, bias, down
    ).sum().backward()
    assert down.grad[1].abs().sum() == 0 and down.grad[0].abs().sum() > 0 and down.grad[2].abs().sum() > 0


def test_no_tokens_pass_and_wrong_experts_do_not():
    weights = experts(2)
    assert grouped_expert_mlp(
        torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, dtype=torch.long), *weights
    ).shape == (0, 5)
    with pytest.raises(ValueError, match="experts in"):
        grouped_expert_mlp(torch.zeros(1, 5, dtype=torch.float64), torch.tensor([2]), *weights)
    with pytest.raises(ValueError, match="tokens of shape"):
        grouped_expert_mlp(torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0]), *weights)
    with pytest.raises(ValueError, match="one a token"):
        grouped_expert_mlp(torch.zeros(2, 5, dtype=torch.float64), torch.tensor([0]), *weights)


def test_balanced_assignment_is_the_plan_of_entropic_transport():
    scores = torch.randn(40, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spread = float(scores.std())
    plan = ot.sinkhorn(np.full(40, 1 / 40), np.full(4, 1 / 4), -scores.numpy(), spread, stopThr=1e-12, numItermax=5000)
    assert (sinkhorn_assignment(scores, steps=500).numpy() == plan.argmax(1)).all()


def test_balanced_assignment_balances_where_greedy_choice_collapses():
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(400, 4, generator=g) + torch.tensor([3.0, 0.0, 0.0, 0.0])
    greedy = torch.bincount(scores.argmax(1), minlength=4)
    balanced = torch.bincount(sinkhorn_assignment(scores, steps=50, temperature=0.2), minlength=4)
    assert greedy.max() > 350 and balanced.max() < 150 and balanced.min() > 50


def test_one_token_and_one_expert_are_assigned():
    assert sinkhorn_assignment(torch.zeros(1, 3)).shape == (1,)
    assert (sinkhorn_assignment(torch.randn(5, 1)) == 0).all()
    with pytest.raises(ValueError, match="positive temperature"):
        sinkhorn_assignment(torch.zeros(2, 2), temperature=0)


def test_every_expert_hashes_equally_many_tokens():
    loads = torch.bincount(hash_table(64, 16, 0))
    assert (loads == 4).all()
    assert not torch.equal(hash_table(64, 16, 0), hash_table(64, 16, 1))
    with pytest.raises(ValueError, match="one expert"):
        hash_table(64, 0, 0)


def test_the_grammar_is_a_distribution_and_its_text_follows_it():
    grammar = random_grammar(6, hidden=8, gain=1.0, seed=2)
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    probability = grammar.log_probability(pairs[:, 0], pairs[:, 1]).exp()
    assert torch.allclose(probability.sum(1), torch.ones(36), atol=1e-5)
    text = grammar.sample(20_000, 3, torch.Generator().manual_seed(0))
    here = (text[0] == 0) & (text[1] == 1)
    if here.sum() < 200:
        here = (text[0] == text[0].mode().values) & (text[1] == text[1].mode().values)
    before, last = text[0][here][0], text[1][here][0]
    seen = torch.bincount(text[2][here], minlength=6).double() / here.sum()
    assert (seen - grammar.log_probability(before[None], last[None]).exp()[0]).abs().max() < 5 / here.sum().sqrt()
    with pytest.raises(ValueError, match="two tokens"):
        random_grammar(1, hidden=2, gain=1.0)


@pytest.mark.parametrize("router", ["hash", "sinkhorn", "reinforce", "position", "soft"])
def test_every_router_learns_something_and_nothing_beats_the_entropy(router):
    grammar = random_grammar(16, hidden=8, gain=2.0, seed=0)
    model = RoutedModel(16, 8, 4, router)
    short, long = (train_routed(model, grammar, seeds=[0, 1], steps=s, batch=64, tests=256) for s in (2, 80))
    assert (long.loss < short.loss).all()
    assert (long.loss > entropy_floor(grammar, 256) - 0.02).all()
    assert 0 < long.largest_load <= 1


def test_members_take_the_steps_that_they_would_take_alone():
    grammar = random_grammar(16, hidden=8, gain=2.0, seed=0)
    model = RoutedModel(16, 4)
    both = train_routed(model, grammar, seeds=[0, 1], steps=20, batch=32, tests=128)
    alone = train_routed(model, grammar, seeds=[0], steps=20, batch=32, tests=128)
    assert float(both.loss[0]) == pytest.approx(float(alone.loss[0]), rel=1e-4)


def test_equal_parameters_and_dense_size():
    model = RoutedModel(16, 8, 4, "sinkhorn", dim=24)
    assert equal_parameters(model).hidden == 32 and equal_parameters(model).experts == 1
    assert model.dense_size == 2 * (2 * 24 * 8 + 8)


def test_bad_training_is_refused():
    grammar = random_grammar(16, hidden=8, gain=2.0)
    with pytest.raises(ValueError, match="vocabulary"):
        train_routed(RoutedModel(8, 4), grammar, seeds=[0], steps=1, batch=8)
    with pytest.raises(ValueError, match="one seed"):
        train_routed(RoutedModel(16, 4), grammar, seeds=[], steps=1, batch=8)
