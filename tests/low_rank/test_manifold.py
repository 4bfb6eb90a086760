"""Matrices of low rank: against full SVD, closed forms and torch's own layers."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netatlas.low_rank import (
    FactorizedLinear,
    LowRankConv,
    LowRankLinear,
    energy_rank,
    low_rank_factors,
    orthonormal_basis,
    svd_truncation,
    tail_rank,
)


def matrix(m=7, n=5, seed=0):
    return torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=20)
@given(rank=st.integers(0, 6), seed=st.integers(0, 50))
def test_truncation_meets_eckart_and_young(rank, seed):
    w = matrix(seed=seed)
    s = torch.linalg.svdvals(w)
    low = svd_truncation(w, rank)
    torch.testing.assert_close((w - low).norm() ** 2, s[rank:].square().sum(), atol=1e-10, rtol=1e-10)
    assert int(torch.linalg.matrix_rank(low)) == min(rank, 5)
    best = s[rank] if rank < 5 else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.matrix_norm(w - low, 2), best, atol=1e-10, rtol=1e-9)


def test_truncation_takes_a_rank_for_each_matrix():
    stack = torch.stack([matrix(seed=i) for i in range(3)])
    low = svd_truncation(stack, torch.tensor([0, 2, 5]))
    assert not low[0].any()
    torch.testing.assert_close(low[1], svd_truncation(stack[1], 2))
    torch.testing.assert_close(low[2], stack[2])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.floats(0, 1))
def test_energy_rank_is_the_brute_force(values, loss):
    s = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    square = s.square()
    kept = [float(square[k:].sum()) <= loss * float(square.sum()) for k in range(len(s) + 1)]
    found = int(energy_rank(s, loss))
    # Where rounding decides, either neighbour is right.
    assert abs(found - kept.index(True)) <= 1
    if found < len(s):
        assert float(square[found:].sum()) <= (loss + 1e-12) * float(square.sum())


def test_tail_rank_in_high_precision():
    s = [mpmath.mpf(3) / 2**i for i in range(12)]
    norm = mpmath.sqrt(sum(v**2 for v in s))
    for tau in (0.5, 0.1, 1e-2, 1e-3):
        want = next(r for r in range(13) if mpmath.sqrt(sum(v**2 for v in s[r:])) <= tau * norm)
        assert int(tail_rank(torch.tensor([float(v) for v in s], dtype=torch.float64), tau)) == want
    values = torch.tensor([[3.0, 2.0, 1.0]] * 2)
    assert tail_rank(values, torch.tensor([0.0, 0.9])).tolist() == [3, 1]
    assert int(tail_rank(values[0], 0.9, smallest=2)) == 2 and int(tail_rank(values[0], 0.0, largest=2)) == 2


def test_zero_matrices_have_rank_zero():
    assert int(energy_rank(torch.zeros(4), 0.1)) == 0 and int(tail_rank(torch.zeros(4), 0.1, smallest=0)) == 0
    assert not svd_truncation(torch.zeros(3, 3), 2).any()


def test_a_basis_spans_its_columns_and_survives_dependence():
    a = matrix()
    a[:, 3] = a[:, 1]
    q = orthonormal_basis(a)
    torch.testing.assert_close(q.T @ q, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(q @ (q.T @ a), a)
    cut = orthonormal_basis(matrix(), 3)
    assert not cut[:, 3:].any()
    torch.testing.assert_close(cut.T @ cut, torch.diag(torch.tensor([1.0, 1, 1, 0, 0], dtype=torch.float64)))
    continued = orthonormal_basis(q + 1e-6 * matrix(seed=5))
    assert float((continued - q).abs().max()) < 1e-4


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_low_rank_layer_is_the_dense_one_of_its_matrix(rank):
    torch.manual_seed(0)
    dense = nn.Linear(5, 7).double()
    layer = LowRankLinear.from_linear(dense, rank, room=5).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight(), layer.bias))
    torch.testing.assert_close(layer.weight(), svd_truncation(dense.weight.detach(), rank), atol=1e-6, rtol=1e-5)
    if rank == 5:
        torch.testing.assert_close(layer(x), dense(x), atol=1e-6, rtol=1e-5)
    assert int(layer.rank) == rank


def test_a_low_rank_convolution_is_the_dense_one_of_its_kernel():
    torch.manual_seed(0)
    dense = nn.Conv2d(3, 6, 3, padding=1).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    full = LowRankConv.from_conv(dense, 6).double()
    torch.testing.assert_close(full(x), dense(x), atol=1e-5, rtol=1e-4)
    low = LowRankConv.from_conv(dense, 2).double()
    kernel = svd_truncation(dense.weight.detach().flatten(1), 2).reshape(dense.weight.shape)
    torch.testing.assert_close(low(x), nn.functional.conv2d(x, kernel, dense.bias, padding=1), atol=1e-5, rtol=1e-4)


def test_two_factors_start_as_the_truncated_matrix():
    torch.manual_seed(0)
    layer = FactorizedLinear(5, 7, 2)
    assert int(torch.linalg.matrix_rank(layer.A @ layer.B.T)) == 2
    x = torch.randn(3, 5)
    torch.testing.assert_close(layer(x), x @ (layer.A @ layer.B.T).T)


def test_meta_shapes():
    with torch.device("meta"):
        x = torch.zeros(2, 5)
        low = svd_truncation(torch.zeros(4, 7, 5), 2)
        assert low.shape == (4, 7, 5) and energy_rank(torch.zeros(4, 5), 0.1).shape == (4,)
        assert FactorizedLinear(5, 7, 2, bias=False)(x).shape == (2, 7)


def test_width_one():
    layer = LowRankLinear(1, 1, 1)
    torch.testing.assert_close(layer(torch.ones(1, 1)), layer.weight() + layer.bias)


def test_rank_zero_and_full_rank():
    w = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert not svd_truncation(w, 0).any() and low_rank_factors(w, 0)[0].shape == (4, 0)
    torch.testing.assert_close(svd_truncation(w, 4), w)
    torch.testing.assert_close(svd_truncation(w, 99), w)
    dense = nn.Linear(6, 4, dtype=torch.float64)
    x = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(LowRankLinear.from_linear(dense, 4)(x), dense(x))
    kernel = nn.Conv2d(2, 3, 3, padding=1, dtype=torch.float64)
    image = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(LowRankConv.from_conv(kernel, 3)(image), kernel(image))


def test_refusals():
    with pytest.raises(ValueError, match="1 <= rank"):
        LowRankLinear(5, 7, 0)
    with pytest.raises(ValueError, match="1 <= rank"):
        LowRankLinear(5, 7, 6)
    with pytest.raises(ValueError, match="rank from 1"):
        LowRankConv(3, 6, 3, 7)
    with pytest.raises(ValueError, match="stride 1"):
        LowRankConv.from_conv(nn.Conv2d(3, 6, 3, stride=2), 2)
    for options in ({"padding": (1, 0)}, {"padding": 1, "padding_mode": "circular"}, {"padding": "same"}):
        with pytest.raises(ValueError, match="zeros for padding"):
            LowRankConv.from_conv(nn.Conv2d(3, 6, 3, **options), 2)
    broken = nn.Linear(5, 7)
    nn.init.constant_(broken.weight, torch.nan)
    with pytest.raises(ValueError, match="finite"):
        LowRankLinear.from_linear(broken, 2)
    with pytest.raises(ValueError, match="rank from 1"):
        FactorizedLinear(5, 7, 0)
    with pytest.raises(ValueError, match="finite"):
        svd_truncation(torch.tensor([[float("nan")]]), 1)
    with pytest.raises(ValueError, match="at least 0"):
        svd_truncation(matrix(), -1)
    with pytest.raises(ValueError, match="share of energy"):
        energy_rank(torch.ones(3), 1.5)
    with pytest.raises(ValueError, match="tolerance"):
        tail_rank(torch.ones(3), -0.1)
    with pytest.raises(ValueError, match="smallest"):
        tail_rank(torch.ones(3), 0.1, smallest=4)
    with pytest.raises(ValueError, match="not empty"):
        low_rank_factors(torch.zeros(0, 3), 0)
    with pytest.raises(ValueError, match="room"):
        low_rank_factors(matrix(), 3, 2)
    with pytest.raises(ValueError, match="columns"):
        orthonormal_basis(torch.zeros(2, 3))
