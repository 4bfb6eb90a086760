"""Deep kernel machines against closed forms, the plain Gaussian process, finite differences and Wishart moments."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from netatlas.core.infinite import Dense, Relu, serial
from netatlas.random_features import deep_kernel_experiments as ex
from netatlas.random_features import deep_kernel_machine as dkm


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram_of(p=6, seed=0):
    x = draw(p, p, seed=seed)
    return x @ x.T / p + 0.2 * torch.eye(p, dtype=torch.float64)


def test_kernels_are_functions_of_the_gram_matrix():
    x = draw(5, 3)
    gram = x @ x.T
    torch.testing.assert_close(dkm.gram_kernel(gram, "rbf"), torch.exp(-(torch.cdist(x, x) ** 2) / 2))
    net = serial(Dense(1), Relu(), Dense(1))
    # The network's kernel divides by the inputs and halves; ours keeps the diagonal.
    torch.testing.assert_close(dkm.gram_kernel(gram), net.kernel(x, get="nngp") * 2 * 3, rtol=1e-5, atol=1e-6)
    assert dkm.gram_kernel(gram, "linear") is gram


def test_divergence_and_likelihood_equal_their_definitions():
    k = gram_of()
    factor = torch.tril(draw(6, 6, seed=1)) * 0.3 + torch.eye(6, dtype=torch.float64)
    root = torch.linalg.cholesky(k) @ factor
    g = root @ root.T
    direct = 0.5 * (torch.trace(torch.linalg.solve(k, g)) - torch.logdet(torch.linalg.solve(k, g)) - 6)
    torch.testing.assert_close(dkm.whitened_divergence(factor), direct)
    y = draw(6, 2, seed=2)
    scipy = sum(multivariate_normal(np.zeros(6), k.numpy()).logpdf(y[:, c].numpy()) for c in range(2))
    assert float(dkm.gaussian_log_likelihood(k, y)) == pytest.approx(scipy, rel=1e-10)


def test_exact_checks():
    found = ex.exact_checks(seed=1)
    assert found["identities give the plain process"] < 1e-8
    assert found["one linear layer gives the geometric mean"] < 1e-5
    assert found["inducing points at the data give the full machine"] < 1e-4


def test_linear_inducing_points_at_the_data_are_exact():
    gram, y = gram_of(), draw(6, 2, seed=3)
    factor = torch.tril(draw(6, 6, seed=1)) * 0.3 + torch.eye(6, dtype=torch.float64)
    options = {"nu": 2.0, "noise": 0.1, "kernel": "linear", "jitter": 0.0}
    double = torch.cat([torch.cat([gram, gram], 1), torch.cat([gram, gram], 1)])
    full, sparse = dkm.objective(gram, y, [factor], **options), dkm.sparse_objective(double, y, [factor], **options)
    assert float((full - sparse).abs() / full.abs()) < 1e-6


def test_linear_solution_is_stationary_for_more_layers():
    gram, y = gram_of(5), draw(5, 9, seed=1)
    target = y @ y.T / 9
    grams = dkm.linear_solution(gram, target, 2)
    # Successive ratios are equal on the geodesic.
    first = torch.linalg.solve(gram, grams[0])
    second = torch.linalg.solve(grams[0], grams[1])
    third = torch.linalg.solve(grams[1], target)
    torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(second, third, rtol=1e-7, atol=1e-8)


def test_prediction_without_layers_equals_scikit_learn():
    x, y = draw(12, 2), draw(12, 1, seed=1)
    new = draw(4, 2, seed=2)
    both = torch.cat([x, new])
    found = dkm.predict(both @ both.T, y, [], noise=0.05, kernel="rbf")
    theirs = GaussianProcessRegressor(RBF(1.0, "fixed"), alpha=0.05, optimizer=None).fit(x.numpy(), y.numpy()[:, 0])
    mean, deviation = theirs.predict(new.numpy(), return_std=True)
    np.testing.assert_allclose(found.mean[:, 0].numpy(), mean, rtol=1e-8)
    np.testing.assert_allclose(found.variance.numpy(), deviation**2 + 0.05, rtol=1e-8)


def test_identity_factors_predict_like_the_composed_kernel():
    x = draw(9, 3)
    gram, y = x @ x.T, draw(6, 1, seed=1)
    eye = torch.eye(6, dtype=torch.float64)
    layered = dkm.predict(gram, y, [eye], noise=0.1, kernel="rbf", jitter=0.0)
    composed = dkm.predict(dkm.gram_kernel(gram, "rbf"), y, [], noise=0.1, kernel="rbf")
    torch.testing.assert_close(layered.mean, composed.mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(layered.variance, composed.variance, rtol=1e-8, atol=1e-9)


def test_training_raises_the_objective_and_less_penalty_fits_better():
    gram, y = gram_of(8), 2 * draw(8, 3, seed=5)
    fits = []
    for nu in (10.0, 3.0, 1.0):
        fitted = dkm.fit(gram, y, layers=1, nu=nu, noise=0.2, steps=200, rate=2e-2)
        assert float(fitted.objective[-1]) > float(fitted.objective[0])
        last = dkm.gram_kernel(dkm.layer_grams(gram, fitted.factors)[-1])
        fits.append(float(dkm.gaussian_log_likelihood(last + 0.2 * torch.eye(8, dtype=torch.float64), y)))
    assert fits == sorted(fits)


def test_batches_equal_single_fits():
    grams = torch.stack([gram_of(5, seed=s) for s in (0, 1)])
    y = torch.stack([draw(5, 2, seed=s) for s in (2, 3)])
    both = dkm.fit(grams, y, layers=2, nu=2.0, noise=0.1, steps=15)
    one = dkm.fit(grams[1], y[1], layers=2, nu=2.0, noise=0.1, steps=15)
    torch.testing.assert_close(both.factors[1][1], one.factors[1], rtol=1e-8, atol=1e-10)


def test_sampler_without_a_likelihood_gives_the_prior():
    gram = gram_of(3)
    mean, kurtosis, accepted = dkm.hamiltonian_gram(
        gram,
        torch.zeros(3, 1, dtype=torch.float64),
        20,
        replicas=1e-9,
        noise=0.5,
        chains=20,
        steps=60,
        burn=15,
        rate=0.3,
        leapfrog=5,
        generator=torch.Generator().manual_seed(0),
    )
    assert accepted > 0.5 and abs(float(kurtosis.mean())) < 0.2
    torch.testing.assert_close(mean.mean(0), gram, rtol=0.15, atol=0.05)


def test_sparse_prediction_with_all_points_equals_the_full_one():
    x, y = draw(7, 3), draw(5, 1, seed=1)
    gram = x @ x.T
    eye = torch.eye(5, dtype=torch.float64)
    order = torch.cat([torch.arange(5), torch.arange(7)])
    sparse = dkm.sparse_predict(gram[order][:, order], y, [eye], noise=0.1, kernel="rbf", jitter=1e-10)
    full = dkm.predict(gram, y, [eye], noise=0.1, kernel="rbf", jitter=1e-10)
    torch.testing.assert_close(sparse, full.mean, rtol=1e-4, atol=1e-4)


def test_one_point_and_duplicated_points():
    one = torch.ones(1, 1, dtype=torch.float64)
    assert math.isfinite(float(dkm.objective(one, one, [one], nu=1.0, noise=0.1)))
    twice = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="duplicated points"):
        dkm.layer_grams(twice, [torch.eye(2, dtype=torch.float64)], kernel="linear", jitter=0.0)
    assert dkm.layer_grams(twice, [torch.eye(2, dtype=torch.float64)], kernel="linear", jitter=1e-4)[0].shape == (2, 2)


def test_refusals():
    gram, y = gram_of(), draw(6, 1)
    for call, words in (
        (lambda: dkm.gram_kernel(gram, "cubic"), "kernel"),
        (lambda: dkm.gram_kernel(gram[:3]), "square"),
        (lambda: dkm.gram_kernel(gram * math.nan), "finite"),
        (lambda: dkm.gram_kernel(gram.long()), "floating-point"),
        (lambda: dkm.objective(gram, y[:2], [], nu=1.0, noise=0.1), "targets"),
        (lambda: dkm.fit(gram, y, layers=0, nu=1.0, noise=0.1), "layer"),
        (lambda: dkm.propagate(gram, [torch.eye(9, dtype=torch.float64)]), "points"),
        (lambda: dkm.sparse_objective(gram, y, [], nu=1.0, noise=0.1), "layer"),
        (lambda: dkm.linear_solution(gram, -gram, 1), "positive-definite"),
        (
            lambda: dkm.hamiltonian_gram(
                gram, y, 0, replicas=1, noise=1, chains=1, steps=2, burn=0, rate=1, generator=torch.Generator()
            ),
            "sizes",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_arc_cosine_slopes_are_those_of_the_written_out_formula():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 4, generator=g, dtype=torch.float64)
    x[0, 1] = x[0, 0]
    gram = x @ x.mT
    weights = torch.randn(2, 5, 5, generator=g, dtype=torch.float64)

    def written(v):
        d = v.diagonal(dim1=-2, dim2=-1)
        scale = (d[..., None] * d[..., None, :]).sqrt()
        cos = (v / scale).clamp(-1 + 1e-6, 1 - 1e-6)
        angle = torch.acos(cos)
        value = scale / math.pi * (torch.sin(angle) + (math.pi - angle) * cos)
        return torch.where(torch.eye(5, dtype=torch.bool), d[..., None].expand_as(v), value)

    ours, theirs = gram.clone().requires_grad_(), gram.clone().requires_grad_()
    value, exact = dkm.gram_kernel(ours), written(theirs)
    assert torch.allclose(value, exact, atol=1e-12)
    (value * weights).sum().backward()
    (exact * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-10)
