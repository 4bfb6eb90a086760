import networkx as nx
import numpy as np
import pytest
import torch
from scipy.linalg import expm

from netatlas.embeddings.cooccurrence import netmf
from netatlas.embeddings.proximity import (
    PROXIMITIES,
    log_filter,
    proximity_a2,
    proximity_fabp,
    proximity_heat,
    proximity_laplacian_pinv,
    proximity_ppmi,
    proximity_ppr,
    proximity_rwtm,
    relative_proximity,
)

KARATE = nx.karate_club_graph()
for _, _, attributes in KARATE.edges(data=True):
    attributes["weight"] = 1.0
A = nx.to_numpy_array(KARATE)
DEGREE = A.sum(1)


def test_against_other_libraries_and_definitions():
    assert np.allclose(log_filter(proximity_ppmi(KARATE)).numpy(), netmf(KARATE, window=10))
    laplacian = nx.laplacian_matrix(KARATE).toarray().astype(float)
    assert np.allclose(proximity_heat(KARATE, scale=0.3).numpy(), expm(-0.3 * laplacian))
    assert np.allclose(proximity_laplacian_pinv(KARATE).numpy(), np.linalg.pinv(laplacian))
    assert np.array_equal(proximity_a2(KARATE).numpy(), A @ A)
    assert np.allclose(proximity_rwtm(KARATE).numpy(), A / DEGREE[:, None])
    ranks = nx.pagerank(KARATE, alpha=0.85, personalization={3: 1.0}, tol=1e-12, max_iter=1000)
    assert np.allclose(proximity_ppr(KARATE)[3].numpy(), [ranks[v] for v in KARATE], atol=1e-9)


def test_fabp_is_the_sum_of_its_series():
    h = 0.02
    a, c = 4 * h**2 / (1 - 4 * h**2), 2 * h / (1 - 4 * h**2)
    step = c * A - a * np.diag(DEGREE)
    series = sum(np.linalg.matrix_power(step, k) for k in range(80))
    assert np.allclose(proximity_fabp(KARATE, homophily=h).numpy(), series)


@pytest.mark.parametrize("name", PROXIMITIES)
def test_relabelling_moves_rows_and_columns(name):
    order = np.random.default_rng(0).permutation(len(A))
    moved = PROXIMITIES[name](A[order][:, order], dtype=torch.float64)
    assert torch.allclose(moved, PROXIMITIES[name](A)[order][:, order], atol=1e-9)


def test_filters():
    matrix = torch.tensor([[0.5, 1.0], [float(np.e), 0.0]])
    assert torch.allclose(log_filter(matrix), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    independent = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert torch.allclose(relative_proximity(independent), torch.ones(2, 2))
    assert log_filter(torch.empty(3, 3, device="meta")).shape == (3, 3)


def test_refusals():
    with pytest.raises(ValueError, match="undirected"):
        proximity_a2(np.array([[0, 1], [0, 0]]))
    with pytest.raises(ValueError, match="beta"):
        proximity_ppr(KARATE, beta=1.0)
    with pytest.raises(ValueError, match="window"):
        proximity_ppmi(KARATE, window=0)
    with pytest.raises(ValueError, match="scale"):
        proximity_heat(KARATE, scale=0)
    with pytest.raises(ValueError, match="convergence"):
        proximity_fabp(KARATE, homophily=0.3)
    with pytest.raises(ValueError, match="square"):
        log_filter(torch.ones(2, 3))
    with pytest.raises(ValueError, match="finite"):
        log_filter(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="non-negative"):
        relative_proximity(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
