"""The chapter's kernels against closed forms, brute force and limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

import netatlas.wide_kernels as wk
from netatlas.core.empirical_ntk import empirical_ntk
from netatlas.core.infinite import Conv, Dense, Flatten, Relu, serial
from netatlas.wide_kernels import experiments
from netatlas.wide_kernels.edgeworth import READOUTS
from netatlas.wide_kernels.effective_theory import CLASSES


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Edgeworth


def test_hermite_polynomials_are_orthogonal():
    u = torch.linspace(-12, 12, 4001).double()
    table = wk.hermite_he(u, 6)
    weight = torch.exp(-u * u / 2) / math.sqrt(2 * math.pi)
    gram = torch.trapezoid((table[:, :, None] * table[:, None] * weight[:, None, None]), u, dim=0)
    assert torch.allclose(gram, torch.diag(torch.tensor([math.factorial(k) for k in range(7)]).double()), atol=1e-6)


def test_known_corrections():
    assert wk.moment(torch.relu, 2) == pytest.approx(0.5, abs=1e-12)
    assert wk.fourth_coefficient(torch.relu, 3, 10) == pytest.approx(5 / 80, rel=1e-10)
    assert wk.fourth_coefficient(torch.relu, 9 / 5, 1) == pytest.approx(7.8 / 24, rel=1e-10)
    assert wk.fourth_coefficient(lambda h: h, 3, 1) == pytest.approx(6 / 24, rel=1e-10)
    assert wk.third_coefficient(torch.relu, 2, 1) == pytest.approx(0.752, abs=1e-3)
    assert wk.third_coefficient(torch.tanh, 2, 1) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["Gaussian", "uniform", "Rademacher"])
def test_conditional_identity_equals_the_mean_over_readouts(name):
    phi = torch.relu(draw(1, 3))
    law = READOUTS[name]
    v = law.draw((400_000, 3), torch.Generator().manual_seed(1)).double()
    u = (v * phi).sum(1) / math.sqrt(3 * 0.5)
    he4 = (u**4 - 6 * u**2 + 3) / 24
    mine = wk.conditional_coefficients(phi, 0.5, {name: law.fourth})
    assert abs(float(mine.c4[name]) - float(he4.mean())) < 4 * float(he4.std()) / 400_000**0.5 + 1e-12


def test_output_density_of_linear_units_has_the_known_fourth_cumulant():
    found = wk.output_density(lambda h: h, READOUTS["Gaussian"], 4)
    mass = torch.trapezoid(found.density, found.u)
    fourth = torch.trapezoid(found.density * (found.u**4 - 6 * found.u**2 + 3), found.u) / 24
    assert float(mass) == pytest.approx(1, abs=2e-3) and found.atom == 0
    assert float(fourth) == pytest.approx(6 / 24 / 4, rel=0.2)


def test_dead_networks_are_an_atom():
    found = wk.output_density(torch.relu, READOUTS["Gaussian"], 8)
    assert found.atom == 2**-8
    assert float(torch.trapezoid(found.density, found.u)) == pytest.approx(1 - 2**-8, abs=2e-3)
    assert wk.total_variation(found, found.density) == pytest.approx(2**-9)


# Linearised training


def test_linearized_outputs_are_gradient_descent_of_a_linear_model():
    phi, psi, y, w = draw(5, 9), draw(3, 9, seed=1), draw(5, 2, seed=2), draw(9, 2, seed=3)
    start = phi @ w, psi @ w
    expected = wk.linearized_outputs(phi @ phi.mT, psi @ phi.mT, y, *start, learning_rate=0.2, steps=30)
    for _ in range(30):
        w = w - 0.2 / 5 * phi.mT @ (phi @ w - y)
    assert torch.allclose(expected, psi @ w)


def test_duplicated_points_need_no_ridge():
    phi = draw(3, 2)[[0, 1, 1, 2]]
    out = wk.linearized_outputs(
        phi @ phi.mT,
        phi @ phi.mT,
        draw(4, 1),
        torch.zeros(4, 1).double(),
        torch.zeros(4, 1).double(),
        learning_rate=0.5,
        steps=10,
    )
    assert torch.isfinite(out).all() and torch.allclose(out[1], out[2])


def test_descend_is_autograd_descent():
    net = wk.tangent_mlp(7, 2, 2)
    params = net.init((3,), [0, 1], dtype=torch.float64)
    x, y = draw(4, 3), draw(4, 2, seed=4)
    run = wk.descend(net, params, x, y, learning_rate=0.3, steps=5)
    module = net.module((3,), seed=1, dtype=torch.float64)
    for _ in range(5):
        loss = (module(x) - y).square().sum() / (2 * len(x))
        grads = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for p, g in zip(module.parameters(), grads):
                p -= 0.3 * g
    for name, value in module.named_parameters():
        assert torch.allclose(run.params[name][1], value, atol=1e-12)
    assert torch.allclose(run.outputs[-1, 1], module(x), atol=1e-12)


def test_wide_networks_follow_the_kernel_in_time():
    x, y = wk.equispaced(4), torch.tensor([[1.0], [-1.0], [0.5], [0.0]]).double()
    gaps = []
    for width in (64, 1024):
        net = wk.tangent_mlp(width, 1)
        params = net.init((2,), range(12), dtype=torch.float64)
        run = wk.descend(net, params, x, y, learning_rate=1.0, steps=30)
        kernels = [empirical_ntk(net.module((2,), seed=s, dtype=torch.float64), x, outputs="trace") for s in range(12)]
        for s, kernel in enumerate(kernels):
            path = wk.linearized_outputs(
                kernel, kernel, y, run.outputs[0, s], run.outputs[0, s], learning_rate=1.0, steps=30
            )
            gaps.append(float((run.outputs[-1, s] - path).norm()))
    assert np.mean(gaps[12:]) < np.mean(gaps[:12]) / 4


# Pseudo-NTK


def test_gram_error_and_regression_by_hand():
    full = (draw(6, 6) @ draw(6, 6).mT).reshape(3, 2, 3, 2).permute(0, 2, 1, 3).contiguous()
    scalar = draw(3, 3)
    scalar = scalar @ scalar.mT
    error = wk.gram_error(full, scalar)
    big = wk.flat_gram(full)
    right = torch.linalg.norm(big - torch.kron(scalar, torch.eye(2).double())) / torch.linalg.norm(big)
    assert error.frobenius == pytest.approx(float(right))
    assert wk.largest_eigenvalue(scalar, iterations=500) == pytest.approx(float(torch.linalg.eigvalsh(scalar)[-1]))
    gram = draw(5, 8)
    gram = gram @ gram.mT
    y, f, g = draw(5, 2), draw(5, 2, seed=5), draw(5, 2, seed=6)
    blocks = gram[..., None, None] * torch.eye(2).double()
    assert torch.allclose(wk.residual_regression(gram, gram, y, f, g), g + y - f)
    assert torch.allclose(wk.residual_regression(blocks, blocks, y, f, g), g + y - f)
    with pytest.raises(ValueError, match="positive definite"):
        wk.residual_regression(torch.ones(5, 5).double(), gram, y, f, g)


# Effective theory


def test_flow_of_scale_invariant_classes_in_closed_form():
    for kind, slope in (("ReLU", 5), ("linear", 2)):
        flow = wk.kernel_flow(CLASSES[kind], CLASSES[kind].critical, 6, start=0.7)
        assert torch.allclose(flow.kernel, torch.full((6,), 0.7).double())
        assert torch.allclose(flow.vertex / flow.kernel**2, slope * torch.arange(6).double(), atol=1e-8)
        assert torch.allclose(flow.parallel, torch.ones(6).double()) and torch.allclose(
            flow.perpendicular, torch.ones(6).double()
        )


def test_tanh_and_sin_decay_and_grow_as_their_class():
    flow = wk.kernel_flow(CLASSES["tanh"], 1.0, 400)
    assert 400 * float(flow.kernel[-1]) == pytest.approx(0.5, abs=0.02)
    ratio = flow.vertex / flow.kernel**2
    assert float(ratio[-1] - ratio[-2]) == pytest.approx(2 / 3, abs=0.01)


def test_the_sampler_has_the_law_of_whole_networks():
    generator = torch.Generator().manual_seed(0)
    fast = wk.sample_scales(CLASSES["ReLU"], 2.0, 8, 4, 40_000, generator=generator)[-1].numpy()
    z = torch.randn(20_000, 8, generator=generator)
    for _ in range(2):
        w = torch.randn(20_000, 8, 8, generator=generator) * (2 / 8) ** 0.5
        z = (w @ torch.relu(z)[..., None])[..., 0]
    slow = (2 * torch.relu(z).square().mean(1)).numpy()
    assert scipy_stats.ks_2samp(fast, slow).pvalue > 1e-3


@pytest.mark.parametrize("reduced", [True, False])
def test_residual_vertex_after_one_block(reduced):
    for keep in (0.0, 0.5, 0.9):
        generator = torch.Generator().manual_seed(1)
        values = wk.residual_vertex(keep, 32, 2, 40_000, generator=generator, reduced=reduced)
        c = 1 - keep
        error = float(values[1].std()) / 200
        assert float(values[0].abs().max()) == 0
        assert abs(float(values[1].mean()) - 4 * c - c * c) < 5 * error


def test_exponent_of_a_power_law_and_its_error():
    sizes, generator = [8, 32, 128], torch.Generator().manual_seed(0)
    exact = experiments.exponent(sizes, [torch.full((5,), 3.0 * n**-0.5) for n in sizes])
    assert exact.slope == pytest.approx(-0.5) and exact.stderr == pytest.approx(0, abs=1e-6)
    found = []
    for _ in range(300):
        rows = [n**-0.5 * (1 + 0.2 * torch.randn(20, generator=generator)) for n in sizes]
        found.append(experiments.exponent(sizes, rows))
    slopes = torch.tensor([f.slope for f in found])
    assert float(slopes.std()) == pytest.approx(sum(f.stderr for f in found) / 300, rel=0.15)


def test_error_of_a_stand_in():
    full = torch.einsum("nm,ab->nmab", torch.eye(3), torch.eye(2)).double()
    assert wk.frobenius_error(full, torch.eye(3).double()) == 0
    assert wk.frobenius_error(full, 0.5 * torch.eye(3).double()) == pytest.approx(0.5)
    assert wk.frobenius_error(full, 0.5 * torch.eye(3).double()) == wk.gram_error(full, 0.5 * torch.eye(3)).frobenius


# Deep classifiers


@pytest.mark.parametrize("a", [0.5, 1.0, 2.0, 4.0, 8.0, 3.3])
def test_singular_duals_have_their_order(a):
    dual = wk.singular_dual(a)
    assert dual.exponent == pytest.approx(a) and dual.regime == "singular kernel"
    assert float(dual(torch.ones(1).double())) == pytest.approx(1)


def test_published_duals():
    assert dict(zip(wk.singular_dual(1).powers.tolist(), wk.singular_dual(1).weights.tolist())) == {1: 0.5, 7: 0.5}
    four = wk.singular_dual(4)
    assert torch.allclose(four.weights, torch.tensor([0.25, 0.5, 0.25]).double()) and four.powers.tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_table_against_direct_iteration(kind):
    dual, xi = wk.singular_dual(2.0), torch.rand(200, generator=torch.Generator().manual_seed(0)).double() * 0.98 + 0.01
    k, theta = xi.clone(), xi.clone()
    for _ in range(12):
        slope = (dual.weights * dual.powers * k[:, None] ** (dual.powers - 1)).sum(1)
        k = dual(k)
        theta = k + theta * slope
    right = k if kind == "nngp" else theta
    mine = wk.deep_kernel_table(dual, 12, kind=kind)(xi).exp()
    assert torch.allclose(mine, right, rtol=1e-5)


def test_very_deep_squares_do_not_underflow():
    table = wk.deep_kernel_table(wk.PowerSeries({2: 1.0}), 60)
    values = table(torch.tensor([0.5, 0.9]).double())
    assert torch.allclose(values, 2.0**60 * torch.tensor([0.5, 0.9]).double().log(), rtol=1e-5)


def test_votes_of_one_class_and_one_sample():
    assert wk.kernel_vote(draw(1, 4), torch.ones(1).double()).tolist() == [[1.0] * 4]
    assert wk.kernel_vote(draw(5, 4), -torch.ones(5).double()).tolist() == [[-1.0] * 4]


def test_posterior_of_the_sphere_problem_is_calibrated():
    problem = wk.dirichlet_sphere((1.0, 2.0), (2.0, 1.0), 40_000, seed=0)
    for low, high in ((0.2, 0.3), (0.5, 0.6)):
        part = (problem.posterior > low) & (problem.posterior < high)
        rate = (problem.labels[part] > 0).double().mean()
        assert abs(float(rate - problem.posterior[part].mean())) < 4 * 0.5 / int(part.sum()) ** 0.5
    assert torch.allclose(problem.points.norm(dim=1), torch.ones(40_000).double())
    assert float(wk.excess_risk(torch.sign(problem.posterior - 0.5), problem.posterior)) == 0
    assert 0.07 < wk.cover_hart_excess(problem.posterior) < 0.095


# Scale mixtures


@settings(deadline=None, max_examples=15)
@given(st.floats(0.5, 50), st.integers(1, 5), st.integers(0, 99))
def test_t_density_is_scipys(df, n, seed):
    a = draw(n, n + 2, seed=seed)
    scale, y = a @ a.mT, draw(n, seed=seed + 100)
    right = scipy_stats.multivariate_t(np.zeros(n), scale.numpy(), df=df).logpdf(y.numpy())
    assert float(wk.multivariate_t_logpdf(y, df, scale)) == pytest.approx(float(right), rel=1e-9, abs=1e-9)


def test_t_density_is_the_scale_mixture():
    y = torch.tensor([0.7, -1.1]).double()
    law = scipy_stats.invgamma(2, scale=2)
    mixed = integrate.quad(lambda s: law.pdf(s) * math.exp(-float(y @ y) / 2 / s) / (2 * math.pi * s), 0, np.inf)[0]
    assert float(wk.multivariate_t_logpdf(y, 4.0, torch.eye(2).double())) == pytest.approx(math.log(mixed), rel=1e-8)


def test_posterior_mean_is_scikit_learns_and_chains():
    x, z, y = draw(6, 2), draw(4, 2, seed=1), draw(6, seed=2)
    peer = GaussianProcessRegressor(RBF(1.0), alpha=0.1, optimizer=None).fit(x.numpy(), y.numpy())
    mean, std = peer.predict(z.numpy(), return_std=True)
    gram = torch.exp(-(torch.cdist(x, x) ** 2) / 2) + 0.1 * torch.eye(6).double()
    cross = torch.exp(-(torch.cdist(z, x) ** 2) / 2)
    mine = wk.process_posterior(gram, cross, torch.ones(4).double(), y)
    assert np.allclose(mine.mean, mean) and np.allclose(mine.squared_scale.sqrt(), std)
    # The conditional density is the ratio of joint densities.
    student = wk.process_posterior(gram, cross[:1], torch.ones(1).double() + 0.1, y, shape=2.0, scale=3.0)
    joint = torch.cat([torch.cat([gram, cross[:1].mT], 1), torch.cat([cross[:1], torch.ones(1, 1).double() + 0.1], 1)])
    new = torch.tensor([0.4]).double()
    ratio = wk.multivariate_t_logpdf(torch.cat([y, new]), 4.0, 1.5 * joint) - wk.multivariate_t_logpdf(
        y, 4.0, 1.5 * gram
    )
    assert float(student.logpdf(new)) == pytest.approx(float(ratio), rel=1e-9)


def test_feature_sampler_has_the_law_of_networks():
    first = torch.tensor([[1.0, 0.3], [0.3, 1.0]]).double()
    gram = wk.sample_relu_features(first, 6, 4000, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    z = torch.linalg.cholesky(first).float() @ torch.randn(4000, 2, 6, generator=generator)
    hidden = torch.relu(z) @ torch.randn(4000, 6, 6, generator=generator) * (2 / 6) ** 0.5
    slow = torch.relu(hidden) @ torch.relu(hidden).mT * 2 / 6
    assert scipy_stats.ks_2samp(gram[:, 0, 1].numpy(), slow[:, 0, 1].numpy()).pvalue > 1e-3


def test_divergence_by_sampling():
    generator = torch.Generator().manual_seed(0)
    a = draw(3, 5)
    k = a @ a.mT
    mean, log_var = draw(2, 3, seed=1), 0.3 * draw(2, 3, seed=2)
    q, prior = (
        (torch.tensor(2.5).double(), torch.tensor(1.5).double()),
        (torch.tensor(2.0).double(), torch.tensor(2.0).double()),
    )
    mine = wk.variational_kl(mean, log_var, torch.linalg.inv(k), torch.logdet(k), q, prior)
    s2 = wk.inverse_gamma(100_000, 2.5, 1.5, generator=generator)
    noise = torch.randn(100_000, 2, 3, generator=generator).double()
    u = mean + noise * (s2[:, None, None] * log_var.exp()).sqrt()
    log_q = (-noise.square() / 2 - (log_var + s2[:, None, None].log()) / 2).sum((1, 2))
    quadratic = torch.einsum("sci,ij,scj->s", u, torch.linalg.inv(k), u) / s2
    log_p = -quadratic / 2 - (2 * torch.logdet(k) + 6 * s2.log()) / 2
    laws = scipy_stats.invgamma(2.5, scale=1.5).logpdf(s2), scipy_stats.invgamma(2, scale=2).logpdf(s2)
    terms = (log_q - log_p).numpy() + laws[0] - laws[1]
    assert abs(float(mine) - terms.mean()) < 5 * terms.std() / 100_000**0.5


# Hierarchical kernels


def test_hierarchical_kernel_is_the_general_convolutional_one():
    x = wk.circle_patches(7, 4, seed=0)
    flat = x.flatten(1)[:, None] * 2**0.5
    conv = {"window": 2, "stride": 2, "padding": "valid"}
    net = serial(Conv(1, **conv), Relu(), Conv(1, 2**0.5, **conv), Relu(), Flatten(), Dense(1, 2**0.5))
    assert torch.allclose(net.kernel(flat, get="nngp"), wk.hierarchical_kernel(x, x, (2, 2), "nngp"))
    assert torch.allclose(net.kernel(flat), wk.hierarchical_kernel(x, x, (2, 2)), atol=1e-7)


def test_exact_diagonals_and_tiles():
    x = wk.circle_patches(600, 4, seed=0)
    for filters in ((2,), (2, 2), (2, 2, 2)):
        gram = wk.hierarchical_kernel(x, x, filters)
        assert torch.allclose(gram.diagonal(), torch.full((600,), len(filters) + 1.0).double(), atol=1e-6)
        assert torch.allclose(gram, wk.hierarchical_kernel(x, x.clone(), filters))
        assert torch.equal(gram, gram.mT)
    assert torch.allclose(wk.dense_sphere_kernel(x, x, 3).diagonal(), torch.full((600,), 4.0).double(), atol=1e-6)


def test_teacher_average_is_the_mean_over_sampled_teachers():
    x = wk.circle_patches(40, 2, seed=0)
    student, field = wk.hierarchical_kernel(x, x, (2, 2)), wk.hierarchical_kernel(x, x, (2,))
    a, b = slice(0, 25), slice(25, 40)
    mine = wk.teacher_average_error(student[a, a], student[a, b], [(field[a, a], field[a, b], field[b, b].diagonal())])[
        0
    ]
    root = torch.linalg.cholesky(field + 1e-9 * torch.eye(40).double())
    f = root @ draw(40, 20_000)
    gram = student[a, a] + 1e-10 * student.diagonal().mean() * torch.eye(25).double()
    miss = f[b] - student[a, b].mT @ torch.linalg.solve(gram, f[a])
    assert float(miss.square().mean() / field[b, b].diagonal().mean()) == pytest.approx(mine, rel=0.05)


def test_exponents():
    assert [wk.effective_dimension(f) for f in ((2,), (2, 2), (2, 2, 2))] == [1, 2, 4]
    assert [wk.predicted_exponent(4, d) for d in (1, 2, 4)] == pytest.approx([5 / 8, 5 / 12, 1 / 4])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: wk.hermite_he(torch.ones(1), -1), "a degree of at least 0"),
        (lambda: wk.fourth_coefficient(torch.relu, 3, 0), "a width of at least 1"),
        (lambda: wk.output_density(torch.relu, READOUTS["skewed"], 4), "a symmetric readout"),
        (lambda: wk.conditional_coefficients(torch.full((1, 2), float("nan")), 0.5, {}), "finite values"),
        (lambda: wk.tangent_mlp(4, 0), "at least one hidden layer"),
        (lambda: wk.linearized_outputs(*[torch.eye(2)] * 5, learning_rate=9.0, steps=1), "a learning rate below"),
        (
            lambda: wk.descend(wk.tangent_mlp(2, 1), {}, torch.ones(1, 2), torch.ones(1, 1), learning_rate=1, steps=0),
            "one step",
        ),
        (lambda: wk.largest_eigenvalue(torch.ones(2, 3)), "a square matrix"),
        (lambda: wk.gram_error(torch.ones(2, 2, 3, 3), torch.ones(3, 3)), "a scalar kernel"),
        (lambda: wk.kernel_flow(CLASSES["ReLU"], -1.0, 3), "positive depth"),
        (lambda: wk.residual_vertex(1.0, 4, 2, 3, generator=torch.Generator()), "a kept share"),
        (lambda: wk.PowerSeries({1: 0.5}), "sum to 1"),
        (lambda: wk.PowerSeries({1: 1.5, 2: -0.5}), "coefficients of at least 0"),
        (lambda: wk.PowerSeries({2: 1.0}).exponent, "nearest neighbour"),
        (lambda: wk.singular_dual(0.0), "a positive exponent"),
        (lambda: wk.deep_kernel_table(wk.singular_dual(1), -1), "a depth of at least 0"),
        (lambda: wk.kernel_vote(torch.ones(2, 2), torch.tensor([0.0, 1.0])), r"labels of \+-1"),
        (lambda: wk.dirichlet_sphere((1.0,), (1.0, 2.0), 3, seed=0), "positive parameters"),
        (lambda: wk.multivariate_t_logpdf(torch.ones(2), 0.0, torch.eye(2)), "positive degrees"),
        (lambda: wk.multivariate_t_logpdf(torch.ones(2), 3.0, torch.ones(2, 2)), "positive definite"),
        (lambda: wk.process_posterior(*[torch.eye(2)] * 2, torch.ones(2), torch.ones(2), scale=-1.0), "positive shape"),
        (lambda: wk.hierarchical_kernel(torch.ones(2, 4, 2), torch.ones(2, 4, 2), (2,)), "unit patches"),
        (lambda: wk.hierarchical_kernel(*[wk.circle_patches(2, 4, seed=0)] * 2, (2, 3)), "filters that divide"),
        (lambda: wk.hierarchical_kernel(*[wk.circle_patches(2, 4, seed=0)] * 2, (3,)), "a first filter"),
        (lambda: wk.teacher_average_error(torch.ones(3, 3), torch.ones(3, 1), [], ridge=0.0), "positive definite"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
