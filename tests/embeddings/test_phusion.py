import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.embeddings.phusion import characteristic_function_embedding, positional_embedding


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(2, 30), st.integers(0, 1000))
def test_characteristic_function_against_its_definition(n, m, points, seed):
    matrix = np.random.default_rng(seed).normal(size=(n, m))
    scaled = matrix / np.abs(matrix).max()
    times = np.linspace(0, 100, points)
    expected = np.exp(1j * scaled[:, :, None] * times).mean(1)
    found = characteristic_function_embedding(torch.from_numpy(matrix), points=points).numpy()
    assert np.allclose(found[:, 0::2], expected.real, atol=1e-11)
    assert np.allclose(found[:, 1::2], expected.imag, atol=1e-11)
    assert np.array_equal(found[:, :2], np.tile([1.0, 0.0], (n, 1)))


def test_order_of_columns_is_forgotten_and_of_rows_kept():
    matrix = torch.rand(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shuffled = matrix[:, torch.randperm(30, generator=torch.Generator().manual_seed(1))]
    first, second = (characteristic_function_embedding(m) for m in (matrix, shuffled))
    assert torch.allclose(first, second, atol=1e-12)
    assert torch.allclose(characteristic_function_embedding(matrix.float()).double(), first, atol=1e-4)


def test_svd_embedding_rebuilds_a_positive_matrix():
    matrix = torch.from_numpy(nx.to_numpy_array(nx.karate_club_graph(), weight=None))
    gram = matrix @ matrix
    found = positional_embedding(gram, 34)
    assert np.allclose(found @ found.T, gram.numpy())


def test_meta_device():
    assert characteristic_function_embedding(torch.empty(5, 7, device="meta")).shape == (5, 50)


def test_refusals():
    square = torch.ones(3, 3)
    for bad in (torch.ones(3), torch.ones(0, 3), torch.ones(3, 3, dtype=torch.int64), square * torch.nan):
        with pytest.raises(ValueError, match="expected"):
            characteristic_function_embedding(bad)
    with pytest.raises(ValueError, match="two points"):
        characteristic_function_embedding(square, points=1)
    with pytest.raises(ValueError, match="horizon"):
        characteristic_function_embedding(square, horizon=-1.0)
    with pytest.raises(ValueError, match="rank"):
        positional_embedding(square, 4)
