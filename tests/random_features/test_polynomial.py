"""Polynomial features and regression against scikit-learn, and inflation factors against their definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import PolynomialFeatures

from netatlas.random_features import polynomial as po


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=20)
@given(p=st.integers(1, 5), degree=st.integers(1, 4), intercept=st.booleans(), seed=st.integers(0, 50))
def test_features_equal_scikit_learn(p, degree, intercept, seed):
    x = draw(6, p, seed=seed)
    ours = po.polynomial_features(x, degree, intercept=intercept)
    theirs = PolynomialFeatures(degree, include_bias=intercept).fit_transform(x.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-14)
    assert ours.shape[1] == math.comb(p + degree, degree) - (not intercept)


def test_general_and_fast_expansions_agree():
    x = draw(2, 7, 4)
    fast = po.polynomial_features(x, 3)
    slow = po.polynomial_features(x, 3, interactions=4)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-14)


def test_interactions_and_binary_inputs():
    exponents = po.polynomial_exponents(3, 3, interactions=2, binary=[True, False, False])
    assert int(exponents[:, 0].max()) == 1
    assert int((exponents > 0).sum(1).max()) == 2
    assert len({tuple(row.tolist()) for row in exponents}) == len(exponents)


def test_unregularised_fit_equals_least_squares_and_degree_one_is_linear():
    x, y = draw(60, 3), draw(60, 2, seed=1)
    fresh = draw(9, 3, seed=2)
    for degree in (1, 2):
        expand = PolynomialFeatures(degree)
        theirs = (
            LinearRegression().fit(expand.fit_transform(x.numpy()), y.numpy()).predict(expand.transform(fresh.numpy()))
        )
        ours = po.PolynomialRegression(degree).fit(x, y).predict(fresh)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-7, atol=1e-8)


def test_a_polynomial_is_recovered_and_a_constant_column_is_harmless():
    x = torch.cat([draw(80, 3), torch.ones(80, 1, dtype=torch.float64)], 1)
    y = x[:, 0] ** 2 - x[:, 1] * x[:, 2]
    fresh = torch.cat([draw(9, 3, seed=3), torch.ones(9, 1, dtype=torch.float64)], 1)
    model = po.PolynomialRegression(2).fit(x, y)
    torch.testing.assert_close(model.predict(fresh), fresh[:, 0] ** 2 - fresh[:, 1] * fresh[:, 2], rtol=1e-8, atol=1e-8)
    ridged = po.PolynomialRegression(2, ridge="loo").fit(x, y)
    assert ridged.chosen_ridge == pytest.approx(80 * 1e-7)
    assert po.PolynomialRegression(2, pca=0.5).fit(x, y).terms < model.terms


def test_one_sample_and_one_class_predict_the_constant():
    one = po.PolynomialRegression(2).fit(draw(1, 3), torch.tensor([4.0]))
    torch.testing.assert_close(one.predict(draw(5, 3)), torch.full((5,), 4.0, dtype=torch.float64))
    same = po.PolynomialRegression(2, ridge=0.1).fit(draw(9, 3), torch.ones(9, 1))
    torch.testing.assert_close(same.predict(draw(5, 3, seed=4)), torch.ones(5, 1, dtype=torch.float64))


def test_quadratic_network_is_a_polynomial_of_degree_two_to_the_depth():
    g = torch.Generator().manual_seed(0)
    x = draw(300, 2)
    for layers in (1, 2):
        y = po.quadratic_network(x, [5] * layers + [1], generator=g)
        columns = po.polynomial_features(x, 2**layers)
        residual = y - columns @ torch.linalg.lstsq(columns, y, driver="gelsd").solution
        assert float(residual.norm() / y.norm()) < 1e-10


def test_inflation_factors_equal_their_definition():
    x = draw(40, 4)
    x[:, 3] = x[:, 0] + 0.3 * x[:, 3]
    found = po.variance_inflation_factors(x)
    for j in range(4):
        rest = x[:, [i for i in range(4) if i != j]].numpy()
        score = LinearRegression().fit(rest, x[:, j].numpy()).score(rest, x[:, j].numpy())
        assert float(found[j]) == pytest.approx(1 / (1 - score), rel=1e-9)
    inverse = torch.linalg.inv(torch.corrcoef(x.T)).diagonal()
    torch.testing.assert_close(found, inverse, rtol=1e-9, atol=0)
    torch.testing.assert_close(po.variance_inflation_factors(3 - 100 * x), found, rtol=1e-8, atol=0)


def test_inflation_factors_at_the_limits():
    x = draw(30, 3)
    copied = torch.cat([x, x[:, :1]], 1)
    found = po.variance_inflation_factors(copied)
    assert float(found[0]) == float(found[3]) == 1e6
    assert 1 <= float(found[1]) < 3
    constant = po.variance_inflation_factors(torch.cat([x, torch.full((30, 1), 5.0, dtype=torch.float64)], 1))
    assert bool(constant[3].isnan())
    torch.testing.assert_close(constant[:3], po.variance_inflation_factors(x))
    torch.testing.assert_close(po.variance_inflation_factors(draw(30, 1)), torch.ones(1, dtype=torch.float64))


def test_leverages_sum_to_the_number_of_inputs():
    x = draw(50, 3)
    model = po.PolynomialRegression(1).fit(x, x[:, 0])
    leverages = model.leverage(x, x)
    assert float(leverages.sum()) == pytest.approx(3)
    assert float(po.inside_region(leverages, leverages).double().mean()) == pytest.approx(0.95, abs=0.02)
    assert not bool(po.inside_region(model.leverage(100 * x[:1], x), leverages).any())


def test_meta_device():
    assert po.polynomial_features(torch.empty(5, 3, device="meta"), 2).shape == (5, 10)


def test_refusals():
    x = draw(10, 3)
    bad = x.clone()
    bad[0, 0] = math.nan
    for call, words in (
        (lambda: po.polynomial_features(x.long(), 2), "floating-point"),
        (lambda: po.polynomial_features(bad, 2), "finite"),
        (lambda: po.polynomial_features(x, 0), "degree 1"),
        (lambda: po.polynomial_features(x, 2, interactions=0), "monomial"),
        (lambda: po.polynomial_features(x, 2, binary=[True]), "flags"),
        (lambda: po.PolynomialRegression(0), "degree"),
        (lambda: po.PolynomialRegression(2, pca=1.5), "share"),
        (lambda: po.PolynomialRegression(2, ridge=-1), "ridge"),
        (lambda: po.PolynomialRegression(2).fit(x, x[:3, 0]), "targets"),
        (lambda: po.PolynomialRegression(2).fit(x[:0], x[:0, 0]), "N >= 1"),
        (lambda: po.variance_inflation_factors(x[:3]), "observations"),
        (lambda: po.quadratic_network(x, [], generator=torch.Generator()), "layer"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
