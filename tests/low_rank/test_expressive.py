"""Expressive power: exact errors, ranks, lower bound, ReLU networks, attention; asymmetry's closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.low_rank import (
    AttentionBlock,
    attention_construction,
    attention_output,
    best_first_factor,
    best_second_factor,
    cca_fit,
    chain_product,
    discrepancy,
    excess_loss,
    frozen_factor_shares,
    generalization_bound,
    haar_orthonormal,
    least_error,
    lora_construction,
    random_network,
    relu_construction,
    relu_forward,
    sufficient_rank,
    well_conditioned,
)
from netatlas.low_rank import adapter_experiments as ax


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=15)
@given(rank=st.integers(0, 6), depth=st.integers(1, 3), seed=st.integers(0, 20))
def test_the_construction_reaches_the_singular_value(rank, depth, seed):
    weights, target = well_conditioned((3, depth, 6), [rank], generator=gen(seed))
    made = lora_construction(weights, target, rank)
    error = torch.linalg.matrix_norm(chain_product(weights + made.updates) - target, 2)
    torch.testing.assert_close(error, least_error(weights, target, rank), atol=1e-8, rtol=1e-8)
    for update in made.updates.flatten(0, 1):
        s = torch.linalg.svdvals(update)
        assert rank >= 6 or float(s[rank]) <= 1e-9 * max(float(s[0]), 1e-30) + 1e-12


def test_no_adapters_go_below_the_bound():
    weights, target = well_conditioned((1, 2, 6), [1], generator=gen())
    bound = float(least_error(weights, target, 1))
    for seed in range(200):
        a, b = (torch.randn(1, 2, 6, 1, dtype=torch.float64, generator=gen(seed + k)) for k in (0, 1000))
        error = torch.linalg.matrix_norm(chain_product(weights + 0.3 * a @ b.mT) - target, 2)
        assert float(error) >= bound - 1e-12


def test_product_and_discrepancy_by_hand():
    w = torch.randn(3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(chain_product(w), w[2] @ w[1] @ w[0])
    torch.testing.assert_close(discrepancy(w, torch.eye(4, dtype=torch.float64)), torch.eye(4) - w[2] @ w[1] @ w[0])
    torch.testing.assert_close(chain_product(w[:0]), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("depth, target_depth", [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_relu_networks_become_their_target_at_the_sufficient_rank(depth, target_depth):
    g = gen(1)
    width, block = 6, depth // target_depth
    weights = torch.eye(width, dtype=torch.float64) + 0.3 * random_network(2, depth, width, generator=g)[0]
    target, bias = random_network(2, target_depth, width, generator=g)
    x = torch.randn(2, 300, width, dtype=torch.float64, generator=g)
    need = sufficient_rank(width, target_depth, depth)
    assert need == math.ceil(width / block)
    made = relu_construction(weights, target, bias, need, x)
    torch.testing.assert_close(
        relu_forward(made.weights, made.biases, x)[0], relu_forward(target, bias, x)[0], atol=1e-7, rtol=1e-7
    )
    below = relu_construction(weights, target, bias, need - 1, x)
    assert (
        float((relu_forward(below.weights, below.biases, x)[0] - relu_forward(target, bias, x)[0]).abs().max()) > 1e-4
    )


def test_attention_is_exact_at_half_the_width_and_by_hand():
    found = ax.attention_errors([2, 3, 4], width=8)
    assert found[4] < 1e-6 and found[3] > 1e-4 and found[2] > 1e-4
    g = gen()
    block = AttentionBlock(*random_network(4, 2, 5, generator=g)[0], torch.eye(5, dtype=torch.float64))
    x = torch.randn(1, 5, 3, dtype=torch.float64, generator=g)
    expected = sum(
        block.out[h] @ block.value[h] @ x[0] @ torch.softmax((block.key[h] @ x[0]).T @ block.query[h] @ x[0], 0)
        for h in range(2)
    )
    torch.testing.assert_close(attention_output(block, x)[0], expected)
    same = attention_construction(block, block, 0)
    torch.testing.assert_close(attention_output(same, x), attention_output(block, x))


def test_experiments_at_tiny_sizes():
    found = ax.linear_errors(2, width=4, draws=2)
    torch.testing.assert_close(found.built, found.predicted, atol=1e-8, rtol=1e-8)
    relu = ax.relu_errors(2, width=4, draws=2, adam_ranks=[0, 2], rates=[1e-2, 3e-2], steps=60, batch=32)
    assert (
        relu.adam.shape == (2, 2) and (relu.adam[1] <= relu.adam[0] + 0.1).all() and float(relu.built[1].max()) < 1e-10
    )


# ---------------------------------------------------------------- one factor frozen


def test_haar_rows_are_orthonormal_and_unbiased():
    q = haar_orthonormal(2, 5, draws=4000, generator=gen())
    torch.testing.assert_close(q @ q.mT, torch.eye(2, dtype=torch.float64).expand(4000, 2, 2))
    torch.testing.assert_close((q.mT @ q).mean(0), 0.4 * torch.eye(5, dtype=torch.float64), atol=0.03, rtol=0)
    assert float(q.mean(0).abs().max()) < 0.05


def test_best_partners_are_least_squares_solutions():
    g = gen()
    d = torch.randn(5, 6, dtype=torch.float64, generator=g)
    x = torch.randn(200, 6, dtype=torch.float64, generator=g) * torch.arange(1, 7)
    sigma = x.T @ x / 200
    q = haar_orthonormal(2, 6, generator=g)[0]
    u = haar_orthonormal(2, 5, generator=g)[0].T
    b = torch.linalg.lstsq(x @ q.T, x @ d.T).solution.T
    torch.testing.assert_close(best_second_factor(d, sigma, q), b)
    a = torch.linalg.lstsq(u, d).solution
    torch.testing.assert_close(best_first_factor(d, u), a)
    torch.testing.assert_close(excess_loss(d, sigma, b @ q), ((d - b @ q) @ x.T).square().sum() / 200)


def test_shares_are_the_theorems_and_descent_agrees():
    g = gen()
    d = torch.randn(400, 16, 16, dtype=torch.float64, generator=g)
    iso = frozen_factor_shares(d, torch.eye(16, dtype=torch.float64), 4, generator=g)
    for part in iso:
        assert abs(float(part.mean()) - 0.75) < 4 * float(part.std()) / 20
    steep = frozen_factor_shares(d, torch.diag(torch.arange(1, 17).double() ** -1.0), 4, generator=g)
    assert float(steep[0].mean()) < float(steep[1].mean()) - 0.05
    assert ax.descent_gap(1, width=16, rank=3) < 1e-6


def test_cca_fit_of_equal_orthogonal_and_random_spaces():
    g = gen()
    x = torch.randn(6, 2, dtype=torch.float64, generator=g)
    turn = torch.randn(2, 2, dtype=torch.float64, generator=g)
    torch.testing.assert_close(cca_fit(x, x @ turn), torch.ones((), dtype=torch.float64))
    e = torch.eye(6, dtype=torch.float64)
    assert float(cca_fit(e[:, :2], e[:, 2:4])) < 1e-12
    many = cca_fit(*(torch.randn(3000, 6, 2, dtype=torch.float64, generator=g) for _ in range(2)))
    assert abs(float(many.mean()) - 2 / 6) < 4 * float(many.std()) / 3000**0.5


def test_bound_by_hand():
    assert generalization_bound([(4, 8)], 2, 100, train="B", bits=1) == pytest.approx(
        math.sqrt(2 * math.log(2) * 8 / 100)
    )
    both, b = (generalization_bound([(4, 8)], 2, 100, train=t) for t in ("both", "B"))
    assert both / b == pytest.approx(3**0.5)


def test_refusals():
    w = torch.randn(2, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="square layers"):
        lora_construction(torch.ones(2, 3, 4), torch.ones(3, 4), 1)
    with pytest.raises(ValueError, match="layers' shape"):
        lora_construction(w, torch.ones(3, 3), 1)
    with pytest.raises(ValueError, match="at least 0"):
        lora_construction(w, torch.eye(4, dtype=torch.float64), -1)
    with pytest.raises(ValueError, match="target depth"):
        sufficient_rank(4, 3, 2)
    with pytest.raises(ValueError, match="depth 1 to 2"):
        relu_construction(w, torch.ones(3, 4, 4), torch.ones(3, 4), 1, torch.ones(2, 4))
    with pytest.raises(ValueError, match="condition numbers"):
        well_conditioned((2, 1, 4), [1], generator=gen(), limit=1.0)
    with pytest.raises(ValueError, match="rows"):
        haar_orthonormal(5, 4, generator=gen())
    with pytest.raises(ValueError, match="symmetric"):
        excess_loss(torch.eye(2), torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.eye(2))
    with pytest.raises(ValueError, match="one shape"):
        cca_fit(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(ValueError, match="A, B or both"):
        generalization_bound([(1, 1)], 1, 1, train="C")
