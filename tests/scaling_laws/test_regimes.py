"""The four regimes: pinned to separate solves, Monte Carlo, known dimensions and eigenvalues."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.stats import loglog_slope
from netatlas.scaling_laws import regimes
from netatlas.scaling_laws.regimes import arc_cosine_network, sphere


def points(count, dim, seed=0):
    return sphere(count, dim, torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(1, 20))
def test_points_lie_on_the_sphere(dim, count):
    assert torch.allclose(points(count, dim).norm(dim=1), torch.full((count,), (dim + 1) ** 0.5, dtype=torch.float64))


def test_one_factor_gives_the_fits_of_all_subsets():
    x, test = points(60, 3), points(9, 3, 1)
    net = arc_cosine_network()
    gram, cross = net.kernel(x), net.kernel(test, x)
    y = torch.randn(60, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fit = regimes.nested_kernel_regression(gram, cross, y, [1, 7, 30, 60], ridge=1e-6)
    shift = 1e-6 * gram.diagonal().mean()
    for size, got in zip(fit.sizes, fit.predictions):
        dual = torch.linalg.solve(gram[:size, :size] + shift * torch.eye(size, dtype=torch.float64), y[:size])
        assert torch.allclose(got, (cross[:, :size] @ dual).mT, atol=1e-7)


def test_one_factor_gives_the_fits_of_all_feature_counts():
    g = torch.Generator().manual_seed(0)
    phi, test = (torch.randn(n, 12, generator=g, dtype=torch.float64) for n in (80, 5))
    y = torch.randn(80, 1, generator=g, dtype=torch.float64)
    fit = regimes.nested_feature_regression(phi, test, y, [3, 12], ridge=1e-13)
    for size, got in zip(fit.sizes, fit.predictions):
        weights = torch.linalg.lstsq(phi[:, :size], y).solution
        assert torch.allclose(got, (test[:, :size] @ weights).mT, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [3, 3]}, "increasing sizes"),
        ({"sizes": [11]}, "increasing sizes"),
        ({"sizes": []}, "increasing sizes"),
        ({"gram": torch.zeros(10, 9, dtype=torch.float64)}, "square"),
        ({"gram": torch.ones(10, 10, dtype=torch.float64), "ridge": 0.0}, "raise the ridge"),
        ({"gram": torch.full((10, 10), float("nan"), dtype=torch.float64)}, "finite"),
        ({"targets": torch.zeros(9, 1, dtype=torch.float64)}, "targets"),
        ({"cross": torch.zeros(2, 9, dtype=torch.float64)}, "cross"),
    ],
)
def test_bad_regressions_are_refused(change, message):
    given = {
        "gram": torch.eye(10, dtype=torch.float64),
        "cross": torch.zeros(2, 10, dtype=torch.float64),
        "targets": torch.zeros(10, 1, dtype=torch.float64),
        "sizes": [2, 10],
    } | change
    with pytest.raises(ValueError, match=message):
        regimes.nested_kernel_regression(**given)


def test_duplicated_points_are_fitted_with_a_ridge():
    x = points(5, 2).repeat(2, 1)
    gram = arc_cosine_network().kernel(x)
    fit = regimes.nested_kernel_regression(gram, gram, x[:, :1], [10], ridge=1e-6)
    assert torch.allclose(fit.predictions[0, 0], x[:, 0], atol=1e-3)


def test_population_moments_are_means_over_the_sphere():
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 4, generator=g, dtype=torch.float64)
    teacher = regimes.relu_teacher(6, 4, g)
    gram, cross, power = regimes.population_moments(hidden, teacher)
    x = points(200_000, 3, 5)
    phi, f = regimes.relu_features(x, hidden), regimes.relu_features(x, teacher[0]) @ teacher[1]
    assert torch.allclose(phi.mT @ phi / len(x), gram, rtol=0.03, atol=0.005)
    assert torch.allclose(phi.mT @ f / len(x), cross, rtol=0.05, atol=0.01)
    assert float((f**2).mean()) == pytest.approx(power, rel=0.03)


def test_random_features_average_to_the_arc_cosine_kernel():
    x = points(6, 2)
    hidden = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    phi = regimes.relu_features(x, hidden)
    assert torch.allclose(phi @ phi.mT / len(hidden), arc_cosine_network().kernel(x, get="nngp"), atol=0.01)


def test_the_control_variate_changes_the_noise_and_not_the_mean():
    options = {"dim": 3, "units": 8, "ridge": 0.1, "tests": 50, "seed": 0}
    excess = regimes.feature_variance_excess(8, [40], draws=4000, **options)[:, 0]
    g = torch.Generator().manual_seed(0)
    x, test = sphere(8, 3, g), sphere(50, 3, g)
    teacher = regimes.relu_teacher(8, 4, g)
    y, truth = (regimes.relu_features(v, teacher[0]) @ teacher[1] for v in (x, test))
    net, eye = arc_cosine_network(), 0.1 * torch.eye(8, dtype=torch.float64)
    limit = ((net.kernel(test, x, "nngp") @ torch.linalg.solve(net.kernel(x, get="nngp") + eye, y) - truth) ** 2).mean()
    hidden = torch.randn(4000, 40, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    phi, phi_test = regimes.relu_features(x, hidden), regimes.relu_features(test, hidden)
    dual = torch.linalg.solve(phi @ phi.mT / 40 + eye, y.expand(4000, -1))
    plain = (((phi_test @ phi.mT / 40 @ dual[..., None])[..., 0] - truth) ** 2).mean(1) - limit
    error = 3 * (plain.std() + excess.std()) / 4000**0.5
    assert abs(float(plain.mean() - excess.mean())) < float(error)
    assert excess.std() < 0.7 * plain.std()


def test_variance_limited_excess_is_inverse_to_the_margin():
    sizes = [200, 400, 800]
    excess = regimes.data_variance_excess(12, sizes, dim=4, units=16, draws=60, seed=0)
    assert loglog_slope([s - 13 for s in sizes], excess.mean(0)).slope == pytest.approx(-1, abs=0.12)
    with pytest.raises(ValueError, match="more than 13"):
        regimes.data_variance_excess(12, [13], dim=4, units=16, draws=1, seed=0)


@pytest.mark.parametrize("dim", [2, 3])
def test_interpolation_of_a_linear_function_would_be_exact_and_of_a_smooth_one_converges(dim):
    found = regimes.interpolation_losses([300, 3000], dim=dim, tests=300, seed=0)
    assert (found["piecewise linear"] < found["nearest neighbour"]).all()
    assert found["piecewise linear"][1] < found["piecewise linear"][0]
    with pytest.raises(ValueError, match="dimension 2"):
        regimes.interpolation_losses([300], dim=1, tests=10, seed=0)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_two_neighbours_find_the_dimension_of_an_embedded_sphere(dim):
    flat = points(3000, dim).numpy() @ np.random.default_rng(0).normal(size=(dim + 1, 12))
    assert regimes.two_nn_dimension(flat) == pytest.approx(dim, rel=0.12)
    with pytest.raises(ValueError, match="three distinct"):
        regimes.two_nn_dimension(np.ones((5, 2)))


@pytest.mark.parametrize("dim", [2, 4])
def test_exact_eigenvalues_are_those_of_large_gram_matrices(dim):
    net = arc_cosine_network()
    exact = regimes.sphere_spectrum(net, dim, 60)
    empirical = torch.linalg.eigvalsh(net.kernel(points(3000, dim)) / 3000).flip(0).numpy()
    order = np.argsort(-exact.eigenvalues)
    values = np.repeat(exact.eigenvalues[order], exact.multiplicities[order].astype(int))
    assert np.allclose(empirical[:6], values[:6], rtol=0.12)
    assert exact.trace == pytest.approx(float(net.kernel(points(1, dim))[0, 0]))
    assert exact.multiplicities[:3].tolist() == ([1, 3, 5] if dim == 2 else [1, 5, 14])


def test_tails_add_up_to_the_trace():
    net = arc_cosine_network()
    tail = regimes.sphere_spectrum_tail(net, 2, [1, 4, 200])
    found = regimes.sphere_spectrum(net, 2, 4)
    assert tail[0] == pytest.approx(found.trace - found.eigenvalues.max())
    assert (np.diff(tail) < 0).all() and tail[-1] > 0
    gram = net.kernel(points(300, 2))
    assert regimes.spectrum_tail(gram)[0] == pytest.approx(float(gram.diagonal().mean()))


def test_theory_predicts_the_interpolation_of_process_draws():
    sizes = [32, 128]
    curve = regimes.kernel_learning_curve(
        arc_cosine_network(), sizes, dim=2, teacher="process", draws=20, tests=200, seed=0
    )
    assert np.allclose(curve.mean(0), regimes.process_learning_curve(arc_cosine_network(), 2, sizes), rtol=0.12)


def test_many_teachers_leave_the_mean_and_take_the_scatter():
    options = {"dim": 2, "draws": 12, "tests": 100, "seed": 0}
    for kind in ("relu", "process"):
        one, many = (
            regimes.kernel_learning_curve(arc_cosine_network(), [32], teacher=kind, teachers=n, **options)[:, 0]
            for n in (1, 24)
        )
        assert many.std() < 0.7 * one.std()
        assert abs(float(one.mean() - many.mean())) < 4 * float(one.std()) / 12**0.5
    with pytest.raises(ValueError, match="one teacher"):
        regimes.kernel_learning_curve(arc_cosine_network(), [4], teacher="relu", teachers=0, **options)
    with pytest.raises(ValueError, match="one teacher"):
        regimes.feature_learning_curve([4], dim=2, samples=40, draws=1, tests=4, seed=0, teachers=0)


def test_a_smooth_teacher_is_learned_faster_than_a_rough_one_and_noise_slows_learning():
    options = {"dim": 2, "draws": 3, "tests": 200, "seed": 0}
    sizes, net = [50, 400], arc_cosine_network()
    ratio = {}
    for teacher in ("smooth", "relu", "process"):
        curve = regimes.kernel_learning_curve(net, sizes, teacher=teacher, **options).mean(0)
        ratio[teacher] = float(curve[1] / curve[0])
    assert ratio["smooth"] < ratio["relu"] < ratio["process"] < 1
    thick = regimes.kernel_learning_curve(net, sizes, teacher="relu", noise_dimensions=4, noise=0.5, **options).mean(0)
    assert float(thick[1] / thick[0]) > ratio["relu"]
    with pytest.raises(ValueError, match="teacher"):
        regimes.kernel_learning_curve(net, sizes, teacher="cubic", **options)


def test_many_features_learn_like_many_examples():
    curve = regimes.feature_learning_curve([16, 64], dim=2, samples=640, draws=3, tests=300, seed=0)
    assert (curve[:, 1] < curve[:, 0]).all()
    with pytest.raises(ValueError, match="at least 640"):
        regimes.feature_learning_curve([64], dim=2, samples=100, draws=1, tests=10, seed=0)
