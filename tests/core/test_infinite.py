"""The expression language: limits against recursions by hand, Monte Carlo, symmetries and refusals."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.core.empirical_ntk import empirical_ntk
from netatlas.core.infinite import (
    Abs,
    AvgPool,
    Conv,
    Dense,
    Elementwise,
    Erf,
    Flatten,
    Gelu,
    GlobalAvgPool,
    Identity,
    LayerNorm,
    LeakyRelu,
    Parallel,
    Relu,
    Sin,
    Tanh,
    residual,
    serial,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_relu_recursion_in_high_precision():
    mpmath.mp.dps = 40
    net = serial(Dense(1, 1.3, 0.2), Relu(), Dense(1, 1.1, 0.3), Relu(), Dense(1, 0.9, 0.1))
    x = torch.tensor([[0.3, -1.2, 0.7], [1.1, 0.4, -0.2]], dtype=torch.float64)
    both = net.kernel(x, get=("nngp", "ntk"))
    for i, j in ((0, 1), (0, 0)):

        def inner(a, b):
            return sum(mpmath.mpf(float(u)) * mpmath.mpf(float(v)) for u, v in zip(x[a], x[b])) / 3

        k, p, q, theta = inner(i, j), inner(i, i), inner(j, j), mpmath.mpf(0)
        for number, (w, b) in enumerate(((1.3, 0.2), (1.1, 0.3), (0.9, 0.1))):
            w, b = mpmath.mpf(w), mpmath.mpf(b)
            if number:
                root = mpmath.sqrt(p * q)
                angle = mpmath.acos(k / root) if i != j else mpmath.mpf(0)
                theta *= (mpmath.pi - angle) / (2 * mpmath.pi)
                k = root * (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)) / (2 * mpmath.pi)
                p, q = p / 2, q / 2
            k, p, q = (w * w * v + b * b for v in (k, p, q))
            theta = w * w * theta + k
        assert abs(mpmath.mpf(float(both.nngp[i, j])) - k) < 1e-12 * abs(k)
        assert abs(mpmath.mpf(float(both.ntk[i, j])) - theta) < 1e-12 * abs(theta)


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize(
    "name, build, shape",
    [
        ("dense", lambda w, o: serial(
                Dense(w, 1.4, 0.3, **o), Relu(), Dense(w, 1.3, **o), Erf(), Dense(8, 1, 0.5, **o)
            ), (3,)),
        ("residual", lambda w, o: serial(Dense(w, **o), residual(Relu(), Dense(w, **o)), Sin(), Dense(8, **o)), (3,)),
        ("norm", lambda w, o: serial(Dense(w, 1.3, 0.4, **o), LayerNorm(), Tanh(), Dense(8, **o)), (3,)),
        (
            "valid, strided, flat",
            lambda w, o: serial(
                Conv(w, 1.4, 0.2, padding="valid", **o), Relu(), Conv(w, stride=2, **o), Abs(), Flatten(), Dense(8, **o)
            ),
            (2, 6, 5),
        ),
        (
            "circular, pooled",
            lambda w, o: serial(
                Conv(w, 1.4, padding="circular", **o), LeakyRelu(0.2), AvgPool((2, 1)), Conv(w, window=2, **o),
                Relu(), GlobalAvgPool(), Dense(8, **o),
            ),
            (2, 4, 3),
        ),
        ("one axis", lambda w, o: serial(Conv(w, 1.2, **o), Relu(), GlobalAvgPool(), Dense(8, **o)), (2, 5)),
    ],
)  # fmt: skip
def test_monte_carlo(name, build, shape, parameterization):
    net, x = build(96, {"parameterization": parameterization}), draw(3, *shape)
    limit = net.kernel(x, get=("nngp", "ntk"))
    nngp, ntk = [], []
    for seed in range(24):
        module = net.module(shape, seed=seed, dtype=torch.float64)
        f = module(x).detach()
        nngp.append(f @ f.mT / f.shape[1])
        ntk.append(empirical_ntk(module, x, outputs="trace"))
    for samples, right in ((nngp, limit.nngp), (ntk, limit.ntk)):
        values = torch.stack(samples)
        error = values.std(0) / len(values) ** 0.5
        # Five standard errors, and what a width of 96 leaves of order 1/n.
        assert ((values.mean(0) - right).abs() < 5 * error + 0.03 * right.abs().max()).all(), name


def test_error_falls_as_one_over_the_root_of_the_width_with_the_predicted_constant():
    # Theta(x, x) of a linear hidden layer is K times two chi-squares over n, of variance 4 K^2 / n.
    x = draw(1, 4)
    for width in (64, 1024):
        net = serial(Dense(width), Identity(), Dense(1))
        k = float((x @ x.mT) / 4)
        values = torch.stack(
            [empirical_ntk(net.module((4,), seed=s, dtype=torch.float64), x)[0, 0, 0, 0] for s in range(400)]
        )
        assert abs(float(values.mean()) / (2 * k) - 1) < 5 * (1 / width / 400) ** 0.5
        assert abs(float(values.var()) * width / (4 * k * k) - 1) < 0.35


def test_linear_networks_in_closed_form():
    x, depth = draw(5, 3), 4
    net = serial(*[Dense(2) for _ in range(depth)])
    assert torch.allclose(net.kernel(x), depth * x @ x.mT / 3)
    standard = serial(Dense(7, 1.5, 0.2, "standard"))
    assert torch.allclose(standard.kernel(x), x @ x.mT + 1)


@pytest.mark.parametrize("padding", ["valid", "same", "circular"])
def test_convolution_of_linear_network_by_brute_force(padding):
    # A linear convolution, pooled: the limit is the mean over weights, here one product of unfolded inputs.
    x = draw(3, 2, 5, 4)
    net = serial(Conv(1, 1.3, 0.2, window=3, padding=padding), GlobalAvgPool(), Dense(1))
    pad = torch.nn.functional.pad
    wide = {"valid": x, "same": pad(x, (1, 1, 1, 1)), "circular": pad(x, (1, 1, 1, 1), mode="circular")}[padding]
    mean = torch.nn.functional.unfold(wide, 3).mean(2)
    nngp = 1.3**2 * mean @ mean.mT / (2 * 9) + 0.2**2
    both = net.kernel(x, get=("nngp", "ntk"))
    assert torch.allclose(both.nngp, nngp) and torch.allclose(both.ntk, 2 * nngp)


def test_shifts_change_nothing_under_circular_padding_and_pooling():
    x = draw(3, 2, 4, 4)
    net = serial(Conv(1, padding="circular"), Relu(), Conv(1, padding="circular"), Relu(), GlobalAvgPool(), Dense(1))
    assert torch.allclose(net.kernel(x, torch.roll(x, (1, 2), (2, 3))), net.kernel(x), atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 400), st.integers(0, 99))
def test_tiles_change_nothing(n, m, tile, seed):
    x, y = draw(n, 3, seed=seed), draw(m, 3, seed=seed + 100)
    net = serial(Dense(1, 1.4, 0.1), Relu(), Dense(1, 1.4, 0.1), Erf(), Dense(1))
    assert torch.allclose(net.kernel(x, y, tile=tile), net.kernel(x, y), rtol=1e-12)
    gram = net.kernel(x, tile=tile)
    assert torch.equal(gram, gram.mT) and torch.allclose(gram, net.kernel(x, x.clone()), rtol=1e-10)
    assert torch.linalg.eigvalsh(gram)[0] > -1e-10


def test_images_in_tiles():
    x = draw(5, 2, 4, 4)
    net = serial(Conv(1), Relu(), AvgPool(2), Conv(1), Relu(), Flatten(), Dense(1))
    assert torch.allclose(net.kernel(x, tile=300), net.kernel(x), rtol=1e-12)
    assert torch.allclose(net.kernel(x, x[:2]), net.kernel(x)[:, :2], rtol=1e-9)


def test_apply_of_one_member_and_of_many():
    net, x = serial(Dense(16, 1.0, 0.1), Gelu(), Dense(2)), draw(4, 3).float()
    params = net.init((3,), seed=[5, 6])
    many = net.apply(params, x)
    assert many.shape == (2, 4, 2) and torch.allclose(many[1], net.apply(net.init((3,), seed=6), x), atol=1e-6)
    assert torch.allclose(many[0], net.module((3,), seed=5)(x), atol=1e-6)


def test_layer_norm_limit_has_unit_variance_and_residual_adds():
    x = draw(4, 3)
    normed = serial(Dense(1, 2.0), LayerNorm()).kernel(x, get="nngp")
    assert torch.allclose(normed.diagonal(), torch.ones(4).double(), atol=1e-9)
    plain, body = serial(Dense(1)), serial(Dense(1), Relu(), Dense(1))
    joined = serial(Dense(1), residual(Relu(), Dense(1)))
    parts = plain.kernel(x, get="nngp") + body.kernel(x, get="nngp")
    assert torch.allclose(joined.kernel(x, get="nngp"), parts)


def test_odd_inputs_have_the_right_limit():
    net = serial(Dense(1), Relu(), Dense(1), Relu(), Dense(1))
    x = torch.tensor([[1, 2], [1, 2], [0, 0]])
    gram = net.kernel(x)
    assert gram.dtype == torch.float64 and torch.isfinite(gram).all()
    assert torch.allclose(gram[0, 0], gram[0, 1], rtol=1e-14) and float(gram[2].abs().max()) == 0
    assert torch.allclose(gram, net.kernel(x.float(), x.double()), rtol=1e-7)
    assert serial(Dense(1)).kernel(torch.ones(1, 1)).shape == (1, 1)
    assert net.kernel(x, dtype=torch.float32).dtype == torch.float32


def test_any_activation_by_its_series():
    x = draw(4, 3)
    mine = serial(Dense(1), Elementwise(torch.erf, degree=80), Dense(1)).kernel(x)
    assert torch.allclose(mine, serial(Dense(1), Erf(), Dense(1)).kernel(x), atol=1e-6)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: serial(), "at least one layer"),
        (lambda: serial(torch.nn.ReLU()), "layers"),
        (lambda: Dense(0), "a width of at least 1"),
        (lambda: Dense(3, -1.0), "of at least 0"),
        (lambda: Dense(3, parameterization="mup"), "a parameterization out of"),
        (lambda: Conv(3, padding="reflect"), "a padding out of"),
        (lambda: Conv(3, window=0), "a window of at least 1"),
        (lambda: AvgPool(2, padding="same"), "valid or circular"),
        (lambda: Parallel(Dense(1)), "at least two branches"),
        (lambda: serial(Dense(1)).kernel(torch.ones(2, 3), torch.ones(2, 4)), r"x2 of shape \[n, 3\]"),
        (lambda: serial(Dense(1)).kernel(torch.full((2, 3), float("nan"))), "finite values in x1"),
        (lambda: serial(Dense(1)).kernel(torch.ones(0, 3)), "n >= 1"),
        (lambda: serial(Dense(1)).kernel(torch.ones(3)), r"x1 of shape \[n, ...\]"),
        (lambda: serial(Dense(1)).kernel([[1.0]]), "a tensor for x1"),
        (lambda: serial(Dense(1)).kernel(torch.ones(2, 3), get="cov"), 'get "nngp"'),
        (lambda: serial(Dense(1)).kernel(torch.ones(2, 3), torch.ones(2, 3, device="meta")), "one device"),
        (lambda: serial(Dense(1)).kernel(torch.ones(2, 3, 4)), "a vector before Dense"),
        (lambda: serial(Conv(1)).kernel(torch.ones(2, 3, 4, 4)), "ends in features"),
        (lambda: serial(Conv(1, padding="valid"), Flatten()).kernel(torch.ones(2, 3, 2, 2)), "at least 3 pixels"),
        (lambda: serial(Conv(1, window=(3, 3)), Flatten()).kernel(torch.ones(2, 3, 4)), "window and stride for 1 axes"),
        (lambda: serial(Relu(), Dense(1)).kernel(torch.ones(2, 3)), "weights before the activation"),
        (lambda: serial(LayerNorm(), Dense(1)).kernel(torch.ones(2, 3)), "weights before LayerNorm"),
        (lambda: serial(Dense(1), Parallel(Identity(), Identity())).kernel(torch.ones(2, 3)), "at most one branch"),
        (lambda: serial(Dense(4), Parallel(Identity(), Dense(3))).kernel(torch.ones(2, 3)), "one output shape"),
        (lambda: serial(Dense(1)).init((3,), seed=[]), "at least one seed"),
        (lambda: serial(Dense(2)).apply({"weight": torch.ones(2, 3)}, torch.ones(1, 3)), "parameters"),
        (lambda: serial(Dense(2)).module((0,)), "positive sizes"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
