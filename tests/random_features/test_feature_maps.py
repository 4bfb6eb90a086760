"""Feature maps against their kernels, closed-form errors, and the layers built of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_approximation import RBFSampler
from torch import nn

from netatlas.random_features import feature_maps as fm


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(scale=0.7):
    return scale * torch.randn(2, 5, generator=gen(1), dtype=torch.float64)


def test_real_maps_estimate_their_kernels_without_bias():
    points = pair()
    x, y = points
    angle = torch.acos(x @ y / x.norm() / y.norm())
    exact = {
        "fourier": torch.exp(-(x - y).square().sum() / 2 / 1.5**2),
        "phases": torch.exp(-(x - y).square().sum() / 2 / 1.5**2),
        "arc": x.norm() * y.norm() / (2 * math.pi) * (angle.sin() + (math.pi - angle) * angle.cos()),
        "positive": torch.exp(x @ y),
    }
    estimates = {name: [] for name in exact}
    g = gen()
    for _ in range(200):
        d = fm.gaussian_directions(200, 5, generator=g)
        phases = 2 * math.pi * torch.rand(200, generator=g, dtype=torch.float64)
        maps = {
            "fourier": fm.fourier_features(points, d, 1.5),
            "phases": fm.fourier_features(points, d, 1.5, phases=phases),
            "arc": fm.arc_cosine_features(points, d),
            "positive": fm.positive_features(points, d),
        }
        for name, phi in maps.items():
            estimates[name].append(phi[0] @ phi[1])
    for name, values in estimates.items():
        values = torch.stack(values)
        assert abs(float(values.mean() - exact[name])) < 4 * float(values.std()) / 200**0.5, name


def test_fourier_features_equal_scikit_learn_given_its_draws():
    sampler = RBFSampler(gamma=0.5 / 1.5**2, n_components=40, random_state=0).fit(pair().numpy())
    directions = torch.from_numpy(sampler.random_weights_.T * 1.5)
    ours = fm.fourier_features(pair(), directions, 1.5, phases=torch.from_numpy(sampler.random_offset_))
    torch.testing.assert_close(ours, torch.from_numpy(sampler.transform(pair().numpy())), rtol=1e-10, atol=1e-12)


def test_orthogonal_directions_are_orthogonal_in_blocks_and_gaussian_alone():
    d = fm.gaussian_directions(12, 5, generator=gen(), orthogonal=True, draws=(400,))
    inner = d[:, :5] @ d[:, :5].mT
    off = inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    assert float(off.abs().max()) < 1e-10
    assert float(d.square().mean()) == pytest.approx(1, abs=0.05)
    assert float(d.pow(4).mean()) == pytest.approx(3, abs=0.3)


@settings(deadline=None, max_examples=9)
@given(kind=st.sampled_from(["sin", "cos", "gaussian"]), symmetric=st.booleans(), bias=st.floats(-1, 1))
def test_universal_features_are_unbiased(kind, symmetric, bias):
    if kind == "gaussian" and not symmetric:
        return  # infinite variance is possible there
    x, w = pair(0.35)
    g = gen(3)
    d = fm.gaussian_directions(64, 5, generator=g, draws=(1500,))
    t = fm.activation_frequencies(kind, 64, generator=g, draws=(1500,))
    phi = fm.universal_input_features(x[None], t, d, symmetric=symmetric)
    psi = fm.universal_parameter_features(w[None], t, d, bias=torch.tensor([bias]).double(), symmetric=symmetric)
    values = (phi * psi).sum(-1).real[:, 0]
    z = x @ w + bias
    exact = {"sin": z.sin(), "cos": z.cos(), "gaussian": torch.exp(-z.square() / 2)}[kind]
    assert abs(float(values.mean() - exact)) < 4.5 * float(values.std()) / 1500**0.5


def test_spread_keeps_the_mean():
    x, w = pair(0.3)
    g = gen(4)
    d = fm.gaussian_directions(64, 5, generator=g, draws=(2000,))
    t = fm.activation_frequencies("cos", 64, generator=g, draws=(2000,))
    phi = fm.universal_input_features(x[None], t, d, spread=0.05)
    psi = fm.universal_parameter_features(w[None], t, d, spread=0.05)
    values = (phi * psi).sum(-1).real[:, 0]
    assert abs(float(values.mean() - (x @ w).cos())) < 4.5 * float(values.std()) / 2000**0.5


def test_sine_error_in_closed_form():
    x, w = pair(0.3)
    g, m, draws = gen(5), 16, 6000
    d = fm.gaussian_directions(m, 5, generator=g, draws=(draws,))
    t = fm.activation_frequencies("sin", m, generator=g, draws=(draws,))
    values = (
        (fm.universal_input_features(x[None], t, d) * fm.universal_parameter_features(w[None], t, d)).sum(-1).real[:, 0]
    )
    a, b, z = float(x @ x), float(w @ w), float(x @ w)
    form = (math.exp(a + b + 2 * z) - math.cos(a + b + 4 * z)) / 2 - math.sin(z) ** 2
    square = (values - math.sin(z)).square()
    assert abs(m * float(square.mean()) - form) < 4 * m * float(square.std()) / draws**0.5


def test_bundled_layers_equal_layers_one_after_the_other():
    x, w = (
        torch.randn(7, 5, generator=gen(), dtype=torch.float64),
        torch.randn(4, 5, generator=gen(1), dtype=torch.float64),
    )
    second = torch.randn(3, 4, generator=gen(2), dtype=torch.float64)
    g = gen(6)
    d, t = fm.gaussian_directions(20, 5, generator=g), fm.activation_frequencies("sin", 20, generator=g)
    phi, psi = fm.universal_input_features(x, t, d), fm.universal_parameter_features(w, t, d)
    apart = (phi @ psi.T).real @ second.T
    merged = fm.real_features(phi) @ fm.bundle(psi, second).T
    torch.testing.assert_close(merged, apart, rtol=1e-10, atol=1e-10)
    real = fm.arc_cosine_features(x, d) @ fm.bundle(fm.arc_cosine_features(w, d), second).T
    torch.testing.assert_close(real, fm.arc_cosine_features(x, d) @ fm.arc_cosine_features(w, d).T @ second.T)


def test_closed_form_is_the_ridge_minimum_both_ways():
    for shape in ((30, 8), (8, 30)):
        phi = torch.randn(*shape, generator=gen(), dtype=torch.float64)
        y = torch.randn(shape[0], 2, generator=gen(1), dtype=torch.float64)
        b = fm.closed_form(phi, y, 0.3)
        gradient = (phi @ b.T - y).T @ phi + 0.3 * b
        assert float(gradient.abs().max()) < 1e-10


def test_relu_layer_counts_parameters_and_converges_to_the_arc_cosine_kernel():
    linear = nn.Linear(6, 4, bias=False)
    layer = fm.ReluFeatureLayer.from_linear(linear, 20_000, generator=gen())
    assert sum(p.numel() for p in layer.parameters()) == 4 * 20_000
    x = torch.randn(3, 6, generator=gen(2))
    w = linear.weight.detach()
    cos = nn.functional.normalize(x) @ nn.functional.normalize(w).T
    angle = cos.clamp(-1, 1).acos()
    exact = x.norm(dim=1)[:, None] * w.norm(dim=1) / (2 * math.pi) * (angle.sin() + (math.pi - angle) * cos)
    torch.testing.assert_close(layer(x), exact, rtol=0.1, atol=0.02)
    assert not torch.allclose(layer(x), torch.relu(linear(x)), atol=0.05)


def test_meta_device():
    x, d = torch.empty(4, 3, device="meta"), torch.empty(6, 3, device="meta")
    assert fm.fourier_features(x, d).shape == (4, 12)
    assert fm.arc_cosine_features(x, d).shape == fm.positive_features(x, d).shape == (4, 6)


def test_refusals():
    x, d = pair(), fm.gaussian_directions(6, 5, generator=gen())
    t = fm.activation_frequencies("sin", 6, generator=gen())
    for call, words in (
        (lambda: fm.fourier_features(x[:, :3], d), "dimension"),
        (lambda: fm.fourier_features(x.long(), d), "floating-point"),
        (lambda: fm.fourier_features(x.float(), d), "type"),
        (lambda: fm.fourier_features(x, d, scale=0), "scale"),
        (lambda: fm.fourier_features(x, d, phases=torch.zeros(2)), "phases"),
        (lambda: fm.arc_cosine_features(x * math.nan, d), "finite"),
        (lambda: fm.positive_features(x.to("meta"), d), "one device"),
        (lambda: fm.activation_frequencies("relu", 5, generator=gen()), "integrable"),
        (lambda: fm.gaussian_directions(0, 5, generator=gen()), "direction"),
        (lambda: fm.universal_input_features(x, t, d, spread=-1), "spread"),
        (lambda: fm.universal_parameter_features(x, t, d, bias=torch.zeros(3)), "biases"),
        (lambda: fm.bundle(torch.zeros(4, 6), torch.zeros(2, 3)), "columns"),
        (lambda: fm.closed_form(torch.zeros(4, 2), torch.zeros(3, 1), 1.0), "targets"),
        (lambda: fm.ReluFeatureLayer(0, 1, 1, generator=gen()), "sizes"),
        (lambda: fm.ReluFeatureLayer.from_linear(nn.Linear(2, 2), 3, generator=gen()), "bias"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
