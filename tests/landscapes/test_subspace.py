"""Random subspaces: Hadamard and Fastfood against matrices, unit columns, exact gradients, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from netatlas.landscapes import (
    dense_projection,
    fastfood_projection,
    intrinsic_dimension,
    matrix_projection,
    sparse_projection,
    subspace_params,
    train_in_subspace,
    walsh_hadamard,
)
from netatlas.landscapes import experiments as ex

KINDS = [dense_projection, sparse_projection, fastfood_projection]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [1, 2, 8, 64, 512])
def test_transform_is_scipys_matrix(size):
    x = torch.randn(3, 2, size, generator=generator(), dtype=torch.float64)
    expected = x @ torch.tensor(hadamard(size), dtype=torch.float64)
    torch.testing.assert_close(walsh_hadamard(x), expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10), st.integers(0, 100))
def test_transform_twice_is_a_multiple(power, seed):
    x = torch.randn(2**power, generator=generator(seed), dtype=torch.float64)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), 2**power * x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 7, 64, 1500, 5000])
def test_columns_have_unit_length(kind, rows):
    columns = min(rows, 40)
    matrix = kind(rows, columns, generator=generator(), dtype=torch.float64).matrix()
    lengths = matrix.norm(dim=0)
    exact = kind is not fastfood_projection or rows & (rows - 1) == 0
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-12 if exact else 0.5)
    if kind is not fastfood_projection and rows > 1000:
        assert float((matrix.T @ matrix - torch.eye(columns, dtype=torch.float64)).abs().max()) < 0.25


def test_fastfood_is_its_formula():
    rows, columns, size = 50, 20, 64
    p = fastfood_projection(rows, columns, generator=generator(3), dtype=torch.float64)
    g = generator(3)
    signs = torch.randint(0, 2, (columns,), generator=g).double() * 2 - 1
    order, gauss = torch.randperm(size, generator=g), torch.randn(size, generator=g, dtype=torch.float64)
    h = torch.tensor(hadamard(size), dtype=torch.float64)
    full = h @ torch.diag(gauss) @ h[order][:, :columns] @ torch.diag(signs)
    torch.testing.assert_close(p.matrix(), full[:rows] / (rows * gauss.square().sum()).sqrt())


def test_sparse_keeps_one_entry_in_root_d():
    matrix = sparse_projection(10_000, 50, generator=generator(), dtype=torch.float64).matrix()
    filled = (matrix != 0).double().mean()
    assert abs(float(filled) * 100 - 1) < 0.05
    entries = matrix[matrix != 0]
    assert abs(float((entries > 0).double().mean()) - 0.5) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_transposed_map(kind):
    p = kind(300, 30, generator=generator(), dtype=torch.float64)
    v = torch.randn(2, 30, generator=generator(), dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 300, generator=generator(1), dtype=torch.float64)
    (p(v) * w).sum().backward()
    torch.testing.assert_close(v.grad, w @ p.matrix())


@pytest.mark.parametrize("kind", KINDS)
def test_maps_run_on_meta_inputs_shapes(kind):
    p = kind(100, 10, generator=generator())
    assert p(torch.zeros(0, 10)).shape == (0, 100)
    assert walsh_hadamard(torch.empty(4, 64, device="meta")).shape == (4, 64)


def start(members=2):
    return {
        "w": torch.randn(members, 3, 4, generator=generator()),
        "b": torch.randn(members, 5, generator=generator(1)),
    }


def dense():
    return dense_projection(17, 2, generator=generator())


def squares(params, *_):
    return params["w"].square().sum((1, 2)) + params["b"].square().sum(1)


def test_the_origin_of_the_subspace_is_the_start():
    p = sparse_projection(17, 6, generator=generator())
    found = subspace_params(start(), [p], torch.zeros(2, 6))
    assert all(torch.equal(found[k], v) for k, v in start().items())


def test_training_moves_only_in_the_subspace_and_nothing_at_dimension_zero():
    p = dense_projection(17, 6, generator=generator())
    params, v, history = train_in_subspace(squares, start(), [p], torch.tensor([0, 4]), steps=30, lr=0.1)
    assert torch.equal(params["w"][0], start()["w"][0]) and bool((v[1, 4:] == 0).all())
    assert history[-1, 1] < history[0, 1] and history[-1, 0] == history[0, 0]
    moved = torch.cat([(params[k] - start()[k])[1].flatten() for k in ("w", "b")])
    torch.testing.assert_close(moved, p.matrix(torch.float32)[:, :4] @ v[1, :4], rtol=1e-4, atol=1e-5)


def test_full_dimension_reaches_the_unrestricted_minimum():
    target = torch.randn(1, 6, generator=generator(), dtype=torch.float64)
    p = dense_projection(6, 6, generator=generator(1), dtype=torch.float64)
    point = {"w": torch.zeros(1, 6, dtype=torch.float64)}
    params, _, _ = train_in_subspace(
        lambda q, *_: (q["w"] - target).square().sum(1), point, [p], torch.tensor([6]), steps=4000, lr=0.02
    )
    assert float((params["w"] - target).abs().max()) < 1e-2


def test_group_sums_have_dimension_ten():
    residual = ex.group_sum_residuals([8, 9, 10, 11], seed=1)
    assert residual[:2].min() > 1e-3 and residual[2:].max() < 1e-15


def test_permuted_pixels_change_nothing():
    data = torch.rand(64, 20, generator=generator()), torch.arange(64) % 10
    assert ex.permuted_pixels_gap(data, seed=0) < 1e-12


def test_dimension_by_interpolation():
    assert intrinsic_dimension([10, 100], [0.0, 1.0], 0.5) == pytest.approx(10**1.5)
    assert intrinsic_dimension([10, 100], [0.6, 1.0], 0.5) == 10
    assert intrinsic_dimension([10, 100], [0.1, 0.4], 0.5) == math.inf


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.01, 1))
def test_dimension_lies_between_the_neighbours(scores, target):
    dims = [2**k for k in range(len(scores))]
    found = intrinsic_dimension(dims, scores, target)
    hit = [d for d, s in zip(dims, scores) if s >= target]
    assert found == math.inf if not hit else (hit[0] / 2 <= found <= hit[0] or found == dims[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: walsh_hadamard(torch.ones(3)), "power of two"),
        (lambda: walsh_hadamard(torch.ones(4, dtype=torch.int64)), "floating-point"),
        (lambda: walsh_hadamard(torch.ones(0)), "power of two"),
        (lambda: dense_projection(5, 6, generator=generator()), "1 to 5"),
        (lambda: sparse_projection(5, 0, generator=generator()), "1 to 5"),
        (lambda: fastfood_projection(5, 6, generator=generator()), "1 to 5"),
        (lambda: dense_projection(5, 2, generator=generator())(torch.ones(3)), r"\[\.\.\., 2\]"),
        (lambda: matrix_projection(torch.tensor([[1.0], [torch.nan]])), "finite"),
        (lambda: subspace_params(start(), [], torch.zeros(2, 3)), "divisor"),
        (lambda: subspace_params(start(), [dense_projection(5, 2, generator=generator())], torch.zeros(2, 2)), "to 17"),
        (lambda: train_in_subspace(squares, start(), [dense()], torch.tensor([1, 3]), steps=1, lr=1), "0 to 2"),
        (lambda: intrinsic_dimension([2, 1], [0, 1], 0.5), "increasing"),
        (lambda: intrinsic_dimension([1, 2], [0], 0.5), "2 scores"),
        (lambda: intrinsic_dimension([1, 2], [0, math.nan], 0.5), "finite"),
    ],
)  # fmt: skip
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
