"""Feature subspaces against dense polynomials, ranks and angles against known matrices."""

import networkx as nx
import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from scipy.special import comb

from netatlas.core.graph import normalized_adjacency
from netatlas.propagation import (
    FeatureExpansion,
    effective_rank,
    expanded_features,
    polynomial_basis,
    principal_angles,
    propagated_noise,
    rank_growth,
    reduced_features,
    structural_components,
    unit_columns,
)

GRAPH = nx.connected_watts_strogatz_graph(20, 4, 0.3, seed=1)
X = np.random.default_rng(0).normal(size=(20, 3))


@pytest.mark.parametrize("kind", ["gcn", "monomial", "chebyshev", "bernstein"])
def test_bases_are_matrix_polynomials(kind):
    order = 5
    step = normalized_adjacency(GRAPH, "sym", self_loops=kind == "gcn").toarray()
    h = X / np.linalg.norm(X, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(step)

    def scalar(k):
        if kind in ("gcn", "monomial"):
            return values**k
        if kind == "chebyshev":
            return chebyshev.chebval(-values, np.eye(order + 1)[k])
        return comb(order, k) * 2.0**-order * (1 - values) ** k * (1 + values) ** (order - k)

    found = polynomial_basis(GRAPH, X, order, kind)
    for k in range(order + 1):
        np.testing.assert_allclose(found[k], unit_columns(vectors * scalar(k) @ vectors.T @ h), atol=1e-10)


def test_order_zero_and_zero_columns():
    assert polynomial_basis(GRAPH, X, 0, "chebyshev").shape == (1, 20, 3)
    assert not polynomial_basis(GRAPH, np.zeros((20, 2)), 2).any()
    np.testing.assert_allclose(np.linalg.norm(polynomial_basis(GRAPH, X, 3), axis=1), 1)


def test_structural_components_span_the_leading_directions():
    found = structural_components(GRAPH, 4)
    u = np.linalg.svd(normalized_adjacency(GRAPH, "row").toarray())[0][:, :4]
    assert principal_angles(found, u).max() < 1e-6
    with pytest.raises(ValueError, match="rank"):
        structural_components(GRAPH, 21)


def test_effective_rank_and_angles():
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert effective_rank(np.outer(np.arange(1, 9), [1, 2, 3.0])) == pytest.approx(1, abs=1e-6)
    tall = np.random.default_rng(1).normal(size=(50, 4))
    s = np.linalg.svd(tall, compute_uv=False)
    p = s / s.sum()
    assert effective_rank(tall) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    angle = 0.3
    plane = np.array([[1.0, 0], [0, np.cos(angle)], [0, np.sin(angle)]])
    np.testing.assert_allclose(principal_angles(np.eye(3)[:, :2], plane), [0, angle], atol=1e-7)
    growth = rank_growth(polynomial_basis(GRAPH, X, 4))
    assert (np.diff(growth) > -1e-9).all() and growth[0] <= 3 + 1e-9


def test_shared_model_is_a_special_case_of_the_flattened():
    torch.manual_seed(0)
    shared = FeatureExpansion(4, 3, 2, 8, 5, shared=True)
    flat = FeatureExpansion(4, 3, 2, 8, 5)
    with torch.no_grad():
        shared.theta.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        flat.weight.weight.copy_(torch.cat([t * shared.weight.weight for t in shared.theta], 1))
        flat.weight.bias.copy_(shared.weight.bias)
        flat.structural.load_state_dict(shared.structural.state_dict())
        flat.head.load_state_dict(shared.head.state_dict())
    x = torch.randn(10, 14)
    torch.testing.assert_close(shared(x), flat(x), atol=1e-5, rtol=1e-5)
    assert FeatureExpansion(0, 3, 2, 8, 5)(x[:, :2]).shape == (10, 5)
    assert FeatureExpansion(4, 3, 0, 8, 5).to("meta")(torch.empty(9, 12, device="meta")).shape == (9, 5)


def test_helpers():
    columns = expanded_features(polynomial_basis(GRAPH, X, 2), structural_components(GRAPH, 4))
    assert columns.shape == (20, 13) and columns.square().mean() == pytest.approx(1, abs=0.05)
    assert propagated_noise(GRAPH, 5, power=0, seed=1).shape == (20, 5)
    smooth, rough = (propagated_noise(GRAPH, 5, power=p, seed=1) for p in (6, 0))
    assert effective_rank(smooth) < effective_rank(rough)
    reduced = reduced_features(X, 9)
    np.testing.assert_allclose(
        reduced @ reduced.T,
        (X / np.linalg.norm(X, axis=1, keepdims=True)) @ (X / np.linalg.norm(X, axis=1, keepdims=True)).T,
        atol=1e-10,
    )


def test_refusals():
    for call in (
        lambda: polynomial_basis(GRAPH, X, -1),
        lambda: polynomial_basis(GRAPH, X, 2, "legendre"),
        lambda: polynomial_basis(GRAPH, X[:3], 2),
        lambda: polynomial_basis(GRAPH, X * np.nan, 2),
        lambda: effective_rank(np.zeros((3, 3))),
        lambda: effective_rank(np.zeros(3)),
        lambda: principal_angles(X, X[:4]),
        lambda: FeatureExpansion(0, 3, 0, 8, 5),
        lambda: FeatureExpansion(2, 3, 0, 0, 5),
        lambda: expanded_features(None),
        lambda: propagated_noise(GRAPH, 0),
        lambda: reduced_features(X, 0),
        lambda: unit_columns(np.zeros(3)),
        lambda: rank_growth(X),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()
