"""Curvature: products against autograd's full matrices, quadratures against eigenvalues, traces, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, vmap

from netatlas.core.curvature import (
    dense_matrix,
    extreme_eigenvalues,
    fisher_operator,
    fisher_vector_product,
    flatten_params,
    gauss_newton_operator,
    gauss_newton_vector_product,
    hessian_matrix,
    hessian_operator,
    hessian_vector_product,
    hutch_plus_plus,
    hutchinson,
    lanczos_quadrature,
    matrix_curvature,
    random_signs,
    stochastic_lanczos_quadrature,
    unflatten_params,
)
from netatlas.core.linalg import lanczos
from netatlas.core.nn import MLP, ResNet
from netatlas.core.train import stack_members

CE = nn.functional.cross_entropy
X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(12) % 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0, activation="tanh"):
    torch.manual_seed(seed)
    return MLP([4, 5, 3], activation=activation).double()


MODULE = network()


def weights(module):
    return {k: v.detach().clone() for k, v in module.named_parameters()}


def logits(params):
    return functional_call(MODULE, params, (X,))


def loss(params):
    return CE(logits(params), Y)


def three():
    return stack_members([network(s) for s in range(3)])[0]


def stacked_logits(params):
    return vmap(logits)(params)


def stacked_loss(params):
    return vmap(lambda f: CE(f, Y))(stacked_logits(params))


def reference(params):
    flat = flatten_params(params)
    return torch.autograd.functional.hessian(lambda f: loss(unflatten_params(f, params)), flat)


def symmetric(n, seed=0, rank=None, values=None):
    q = torch.linalg.qr(torch.randn(n, n, generator=generator(seed), dtype=torch.float64)).Q
    spectrum = torch.linspace(-1, 3, n, dtype=torch.float64) if values is None else values
    if rank is not None:
        spectrum = torch.where(torch.arange(n) < rank, spectrum.abs() + 0.1, 0)
    matrix = (q * spectrum) @ q.T
    return (matrix + matrix.T) / 2


def test_hessian_is_autograds():
    params = weights(network())
    torch.testing.assert_close(hessian_matrix(loss, params, chunk=7), reference(params), rtol=0, atol=1e-14)


def test_members_have_their_own_hessians():
    found = hessian_matrix(stacked_loss, three())
    for i in range(3):
        torch.testing.assert_close(found[i], reference({k: v[i] for k, v in three().items()}), rtol=0, atol=1e-14)


def test_product_of_dicts_one_and_many():
    params = weights(network())
    many = {k: torch.randn(2, *v.shape, generator=generator(), dtype=v.dtype) for k, v in params.items()}
    one = hessian_vector_product(loss, params, {k: v[1] for k, v in many.items()})
    both = hessian_vector_product(loss, params, many)
    expected = reference(params) @ flatten_params({k: v[1] for k, v in many.items()})
    torch.testing.assert_close(flatten_params(one), expected)
    torch.testing.assert_close(flatten_params(one), flatten_params({k: v[1] for k, v in both.items()}))


def test_product_on_stacked_members():
    params = three()
    vectors = {k: torch.ones_like(v) for k, v in params.items()}
    found = hessian_vector_product(stacked_loss, params, vectors)
    expected = hessian_matrix(stacked_loss, params).sum(-1)
    torch.testing.assert_close(flatten_params(found, stacked=True), expected)


def test_gauss_newton_from_jacobians():
    params = weights(network())
    flat = flatten_params(params)
    jacobian = torch.autograd.functional.jacobian(lambda f: logits(unflatten_params(f, params)), flat)
    p = logits(params).softmax(-1)
    middle = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    expected = torch.einsum("nap,nab,nbq->pq", jacobian, middle, jacobian) / len(X)
    found = dense_matrix(gauss_newton_operator(logits, lambda f: CE(f, Y), params))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(dense_matrix(fisher_operator(logits, params)), expected, rtol=0, atol=1e-14)
    gaussian = dense_matrix(fisher_operator(logits, params, kind="gaussian"))
    torch.testing.assert_close(gaussian, torch.einsum("nap,naq->pq", jacobian, jacobian) / len(X))


def test_empirical_fisher_is_a_sum_of_outer_products():
    params = weights(network())

    def losses(p):
        return CE(logits(p), Y, reduction="none")

    gradients = torch.autograd.functional.jacobian(
        lambda f: losses(unflatten_params(f, params)), flatten_params(params)
    )
    found = dense_matrix(fisher_operator(losses, params, kind="empirical"))
    torch.testing.assert_close(found, gradients.T @ gradients / len(X))


def test_stacked_gauss_newton_and_fisher():
    params = three()
    g = dense_matrix(gauss_newton_operator(stacked_logits, lambda f: vmap(lambda a: CE(a, Y))(f), params))
    f = dense_matrix(fisher_operator(stacked_logits, params, stacked=True))
    alone = dense_matrix(fisher_operator(logits, {k: v[2] for k, v in params.items()}))
    torch.testing.assert_close(g, f)
    torch.testing.assert_close(g[2], alone)
    ones = {k: torch.ones_like(v) for k, v in params.items()}
    both = [
        gauss_newton_vector_product(stacked_logits, lambda f: vmap(lambda a: CE(a, Y))(f), params, ones),
        fisher_vector_product(stacked_logits, params, ones, stacked=True),
    ]
    for found in both:
        torch.testing.assert_close(flatten_params(found, stacked=True), g.sum(-1))


def test_hessian_of_a_linear_model_is_its_gauss_newton_matrix():
    params = weights(nn.Linear(4, 3).double())

    def outputs(p):
        return X @ p["weight"].T + p["bias"]

    h = hessian_matrix(lambda p: CE(outputs(p), Y), params)
    g = dense_matrix(gauss_newton_operator(outputs, lambda f: CE(f, Y), params))
    torch.testing.assert_close(h, g)


def test_unused_and_dead_parameters_have_zero_rows():
    params = weights(network(activation="relu")) | {"spare": torch.ones(2, dtype=torch.float64)}
    params["layers.0.bias"] = params["layers.0.bias"] - 100

    def dead(p):
        return CE(functional_call(network(activation="relu"), {k: v for k, v in p.items() if k != "spare"}, (X,)), Y)

    h = hessian_matrix(dead, params)
    assert h[-2:].abs().max() == 0 and h[:25].abs().max() == 0 and h.abs().max() > 0


def test_constant_and_linear_losses_have_no_curvature():
    params = {"w": torch.ones(3)}
    assert hessian_matrix(lambda p: torch.tensor(1.0), params).abs().max() == 0
    assert hessian_matrix(lambda p: p["w"].sum(), params).abs().max() == 0


@pytest.mark.parametrize("norm", ["none", "layer", "group"])
def test_convolutions_and_normalisation(norm):
    torch.manual_seed(0)
    model = ResNet(4, 1, 3, norm=norm).double()
    x, y = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 2])
    params = weights(model)
    operator = hessian_operator(lambda p: CE(functional_call(model, p, (x,)), y), params)
    a, b = torch.randn(2, operator.dim, generator=generator(), dtype=torch.float64)
    both = operator(torch.stack([a, b]))
    torch.testing.assert_close(both[0], operator(a))
    assert abs(float(b @ both[0] - a @ both[1])) < 1e-10


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 24), st.integers(0, 100))
def test_all_steps_give_all_eigenvalues(n, seed):
    matrix = symmetric(n, seed)
    start = torch.randn(2, n, generator=generator(seed), dtype=torch.float64)
    found = lanczos_quadrature(matrix_curvature(matrix), start, n)
    torch.testing.assert_close(found.nodes[0], torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("k", [1, 2, 5, 15])
def test_quadrature_is_exact_up_to_degree_2m_minus_1(k):
    matrix = symmetric(30)
    v = torch.randn(4, 30, generator=generator(), dtype=torch.float64)
    v = v / v.norm(dim=1, keepdim=True)
    found = lanczos_quadrature(matrix_curvature(matrix), v, 8)
    expected = (v @ torch.linalg.matrix_power(matrix, k) * v).sum(1)
    torch.testing.assert_close((found.weights * found.nodes**k).sum(-1), expected, rtol=1e-10, atol=1e-10)


def test_batched_iteration_is_the_single_one():
    matrix = symmetric(20)
    start = torch.randn(3, 20, generator=generator(), dtype=torch.float64)
    found = lanczos_quadrature(matrix_curvature(matrix), start, 6)
    for i in range(3):
        torch.testing.assert_close(found.nodes[i], lanczos(lambda v: matrix @ v, start[i], 6).values)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_iteration_ends_in_an_invariant_subspace(rank):
    matrix = symmetric(12, rank=rank)
    start = torch.randn(2, 12, generator=generator(), dtype=torch.float64)
    found = lanczos_quadrature(matrix_curvature(matrix), start, 12)
    for nodes, used in zip(found.nodes, found.weights > 1e-12):
        assert len(nodes[used].round(decimals=9).abs().unique()) <= rank + 1
    exact = torch.linalg.eigvalsh(matrix)
    assert found.nodes.min() >= exact.min() - 1e-10 and found.nodes.max() <= exact.max() + 1e-10
    v = start / start.norm(dim=1, keepdim=True)
    torch.testing.assert_close((found.weights * found.nodes**2).sum(-1), (v @ matrix @ matrix * v).sum(1))


def test_probes_that_end_early_beside_probes_that_do_not():
    matrix = torch.diag(torch.arange(1.0, 9, dtype=torch.float64))
    start = torch.stack([torch.eye(8, dtype=torch.float64)[3], torch.ones(8, dtype=torch.float64)])
    found = lanczos_quadrature(matrix_curvature(matrix), start, 8)
    torch.testing.assert_close((found.weights * found.nodes)[0].sum(), torch.tensor(4.0, dtype=torch.float64))
    torch.testing.assert_close(found.nodes[1], matrix.diag())


def test_float32_keeps_orthogonality_where_plain_lanczos_makes_ghosts():
    values = torch.cat([torch.linspace(0, 1, 199), torch.tensor([100.0])])
    found = lanczos_quadrature(matrix_curvature(torch.diag(values)), torch.ones(1, 200), 60)
    assert (found.nodes > 50).sum() == 1


def test_density_integrates_to_one_and_counts_eigenvalues():
    matrix = torch.diag(torch.cat([torch.zeros(90), torch.full((10,), 5.0)]).double())
    found = stochastic_lanczos_quadrature(matrix_curvature(matrix), probes=20, steps=10, generator=generator())
    grid = torch.linspace(-2, 7, 2001, dtype=torch.float64)
    mean, spread = found.density(grid, 0.1)
    assert abs(float(torch.trapezoid(mean, grid)) - 1) < 1e-6
    share, error = float(torch.trapezoid(mean[grid > 2.5], grid[grid > 2.5])), float(spread.max())
    assert abs(share - 0.1) < 1e-9 and error >= 0  # signs weigh every coordinate alike
    trace, stderr = found.mean(lambda t: t)
    assert abs(float(trace) * 100 - 50) < 1e-8 and float(stderr) < 1e-10


def test_members_share_probes():
    matrices = torch.stack([symmetric(10, s) for s in range(3)])
    operator = matrix_curvature(matrices)
    found = stochastic_lanczos_quadrature(operator, probes=2, steps=10, generator=generator())
    assert found.nodes.shape == (2, 3, 10)
    torch.testing.assert_close(found.nodes[0], torch.linalg.eigvalsh(matrices), rtol=0, atol=1e-9)
    assert found.density(torch.linspace(-1, 3, 5).double(), 0.2)[0].shape == (3, 5)


def test_traces_within_their_errors_and_hutch_plus_plus_better_on_low_rank():
    matrix = symmetric(200, rank=8)
    operator, exact = matrix_curvature(matrix), float(matrix.trace())
    plain, better = [], []
    for seed in range(10):
        one = hutchinson(operator, probes=60, generator=generator(seed))
        two = hutch_plus_plus(operator, products=60, generator=generator(seed))
        plain.append(float(one.mean) - exact)
        better.append(float(two.mean) - exact)
        assert abs(plain[-1]) < 5 * float(one.stderr)
    assert max(map(abs, better)) < 1e-10 < max(map(abs, plain))


def test_hutchinson_is_exact_on_diagonals_and_its_variance_is_the_formula():
    diagonal = matrix_curvature(torch.diag(torch.arange(5.0)))
    assert float(hutchinson(diagonal, probes=2, generator=generator()).mean) == 10
    matrix = symmetric(30)
    found = hutchinson(matrix_curvature(matrix), probes=4000, generator=generator())
    off = matrix - matrix.diag().diag()
    variance = 2 * off.square().sum()
    assert abs(float(found.stderr) ** 2 * 4000 / float(variance) - 1) < 0.1


def test_hutch_plus_plus_without_bias_on_members():
    matrices = torch.stack([symmetric(40, s) for s in range(2)])
    runs = [hutch_plus_plus(matrix_curvature(matrices), products=30, generator=generator(s)).mean for s in range(60)]
    mean = torch.stack(runs).mean(0)
    error = torch.stack(runs).std(0) / 60**0.5
    assert bool(((mean - torch.vmap(torch.trace)(matrices)).abs() < 4 * error).all())


def test_extremes():
    matrix = symmetric(50)
    found = extreme_eigenvalues(matrix_curvature(matrix), 2, steps=50)
    exact = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(found.largest, exact[-2:].flip(0))
    torch.testing.assert_close(found.smallest, exact[:2])
    one = extreme_eigenvalues(matrix_curvature(torch.tensor([[2.0]])))
    assert float(one.largest) == float(one.smallest) == 2
    shifted = matrix_curvature(matrix).shifted(10)
    torch.testing.assert_close(extreme_eigenvalues(shifted, steps=50).largest[0], exact[-1] + 10)


def test_runs_on_meta():
    params = {k: v.to("meta") for k, v in weights(network()).items()}
    x, y, module = X.to("meta"), Y.to("meta"), network().to("meta")
    operator = hessian_operator(lambda p: CE(functional_call(module, p, (x,)), y), params)
    assert operator(torch.empty(2, operator.dim, device="meta", dtype=torch.float64)).shape == (2, operator.dim)
    matrix = torch.empty(9, 9, device="meta")
    found = lanczos_quadrature(matrix_curvature(matrix), torch.empty(2, 9, device="meta"), 4)
    assert found.nodes.shape == (2, 4)


def test_flattening_goes_there_and_back():
    params = three()
    flat = flatten_params(params, stacked=True)
    back = unflatten_params(flat, params, stacked=True)
    assert all(torch.equal(back[k], params[k]) for k in params)
    empty = {"a": torch.zeros(0, 3), "b": torch.ones(2)}
    assert flatten_params(empty).shape == (2,) and unflatten_params(torch.ones(2), empty)["a"].shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: flatten_params({}), "at least one parameter"),
        (lambda: flatten_params({"a": torch.ones(2), "b": torch.ones(2).double()}), "one dtype"),
        (lambda: flatten_params({"a": torch.arange(3)}), "floating-point"),
        (lambda: flatten_params({"a": torch.ones(2), "b": torch.ones(3)}, stacked=True), "equal numbers"),
        (lambda: unflatten_params(torch.ones(3), {"a": torch.ones(2)}), "2 entries"),
        (lambda: hessian_operator(lambda p: p["a"].sum(), {"a": torch.tensor([torch.nan])}), "finite values in a"),
        (lambda: hessian_operator(lambda p: p["a"], {"a": torch.ones(2, 2)}), r"scalar or \[M\]"),
        (lambda: hessian_vector_product(loss, weights(network()), {"x": torch.ones(1)}), "vectors for"),
        (lambda: matrix_curvature(torch.ones(2, 3)), "square"),
        (lambda: matrix_curvature(torch.tensor([[0.0, 1], [0, 0]])), "symmetric"),
        (lambda: matrix_curvature(torch.eye(3))(torch.ones(2)), "vectors"),
        (lambda: matrix_curvature(torch.eye(3))(torch.ones(3).double()), "dtype"),
        (lambda: matrix_curvature(torch.eye(3))(torch.ones(3, device="meta")), "vectors on cpu"),
        (lambda: lanczos_quadrature(matrix_curvature(torch.eye(3)), torch.zeros(1, 3), 2), "not zero"),
        (lambda: lanczos_quadrature(matrix_curvature(torch.eye(3)), torch.ones(1, 3), 0), "one step"),
        (lambda: lanczos_quadrature(matrix_curvature(torch.eye(3)), torch.ones(1, 4), 2), "start vectors"),
        (lambda: hutchinson(matrix_curvature(torch.eye(3)), probes=1, generator=generator()), "two probes"),
        (lambda: hutch_plus_plus(matrix_curvature(torch.eye(3)), products=5, generator=generator()), "6 products"),
        (lambda: random_signs(matrix_curvature(torch.eye(3)), 0, generator()), "one probe"),
        (lambda: extreme_eigenvalues(matrix_curvature(torch.eye(3)), 4), "a count from 1 to 3"),
        (lambda: fisher_operator(logits, weights(network()), kind="other"), "a kind"),
        (lambda: fisher_operator(lambda p: logits(p)[0], weights(network())), "2 axes"),
        (lambda: dense_matrix(matrix_curvature(torch.eye(3)), chunk=0), "a chunk"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_one_probe_has_no_error_bar_and_widths_are_positive():
    found = lanczos_quadrature(matrix_curvature(torch.eye(3)), torch.ones(1, 3), 2)
    assert torch.isnan(found.mean(lambda t: t)[1])
    with pytest.raises(ValueError, match="positive width"):
        found.density(torch.zeros(1), 0.0)
