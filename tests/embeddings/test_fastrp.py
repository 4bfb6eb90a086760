"""FastRP against dense algebra."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from netatlas.embeddings import fastrp, hop_operator, similarity_svd, very_sparse_projection


@pytest.fixture(scope="module")
def karate():
    return sp.csr_array(nx.to_scipy_sparse_array(nx.karate_club_graph(), dtype=float))


def dense_similarity(graph, weights, beta):
    a = graph.toarray()
    degree = a.sum(axis=1)
    p = a / degree[:, None]
    return sum(w * np.linalg.matrix_power(p, k) for k, w in enumerate(weights, 1)) * (degree / degree.sum()) ** beta


def test_projection_has_the_stated_law():
    r = very_sparse_projection(2000, 60, sparsity=20, seed=0)
    assert np.allclose(np.abs(r.data), np.sqrt(20))
    cells = r.shape[0] * r.shape[1]
    assert abs(r.nnz / cells - 1 / 20) < 5 * np.sqrt(1 / 20 / cells)
    assert abs((r.data > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(r.nnz)
    assert very_sparse_projection(40, 5, sparsity=1).nnz == 200
    assert very_sparse_projection(10000, 8).nnz / 80000 == pytest.approx(0.01, rel=0.2)
    r.check_format()


@pytest.mark.parametrize("unweighted", [True, False])
@pytest.mark.parametrize("weights, beta", [((0, 0, 1, 0.5), -0.5), ((1,), 0.0), ((0.5, 0, 0, 2), -1.0)])
def test_recursion_is_the_projected_matrix(karate, weights, beta, unweighted):
    graph = (karate > 0).astype(float) if unweighted else karate
    found = fastrp(graph, dimension=16, weights=weights, beta=beta, standardize=False, seed=3)
    expected = dense_similarity(graph, weights, beta) @ very_sparse_projection(34, 16, seed=3)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())


def test_operator_and_its_transpose(karate):
    m, dense = hop_operator(karate, weights=(0, 1, 0.3), beta=-0.7), dense_similarity(karate, (0, 1, 0.3), -0.7)
    np.testing.assert_allclose(m @ np.eye(34), dense, atol=1e-10)
    np.testing.assert_allclose(m.rmatmat(np.eye(34)), dense.T, atol=1e-10)
    np.testing.assert_allclose(m.matvec(np.ones(34)), dense.sum(axis=1), atol=1e-10)


def test_float64_recursion_equals_the_product(karate):
    r = very_sparse_projection(34, 8, seed=0).toarray()
    found = hop_operator(karate, weights=(0, 0, 1, 1), beta=-0.5) @ r
    np.testing.assert_allclose(found, dense_similarity(karate, (0, 0, 1, 1), -0.5) @ r, atol=1e-10)


def test_projection_preserves_inner_products_on_average(karate):
    d, draws = 8, 600
    target = dense_similarity(karate, (0, 0, 1), 0.0)
    grams = []
    for seed in range(draws):
        n = fastrp(karate, dimension=d, weights=(0, 0, 1), beta=0.0, standardize=False, seed=seed) / np.sqrt(d)
        grams.append(n @ n.T)
    grams = np.array(grams, dtype=float)
    error = (grams.mean(axis=0) - target @ target.T) / (grams.std(axis=0) / np.sqrt(draws))
    assert np.abs(error).max() < 5


def test_beta_minus_one_removes_the_stationary_part(karate):
    m = hop_operator(karate, weights=(0,) * 199 + (1,), beta=-1.0) @ np.eye(34)
    np.testing.assert_allclose(m, np.ones((34, 34)), atol=1e-6)


def test_row_normalisation_and_standardisation(karate):
    rows = fastrp(karate, dimension=16, weights=(0, 0, 1), normalize_rows=True, standardize=False)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    columns = fastrp(karate, dimension=16)
    np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(columns.std(axis=0), 1, atol=1e-5)


def test_isolated_nodes_stay_zero():
    graph = np.zeros((6, 6))
    graph[:5, :5] = 1 - np.eye(5)
    found = fastrp(graph, dimension=4, standardize=False)
    assert (found[5] == 0).all() and np.isfinite(found).all()


def test_svd_factors_the_similarity(karate):
    found = similarity_svd(karate, dimension=34, weights=(0, 0, 1), beta=0.0, standardize=False)
    singular = np.linalg.svd(dense_similarity(karate, (0, 0, 1), 0.0), compute_uv=False)
    np.testing.assert_allclose((found**2).sum(axis=0), singular, atol=1e-8)


def test_refusals(karate):
    for bad in (
        lambda: fastrp(karate, beta=0.5),
        lambda: fastrp(karate, weights=()),
        lambda: fastrp(karate, weights=(0, 0)),
        lambda: fastrp(karate, weights=(np.nan,)),
        lambda: fastrp(np.zeros((3, 3))),
        lambda: fastrp(karate, dimension=0),
        lambda: very_sparse_projection(5, 5, sparsity=0.5),
        lambda: similarity_svd(karate, dimension=35),
    ):
        with pytest.raises(ValueError):
            bad()
