"""NF4: the published code book from its definition, nearest levels by brute force, round trips, bits, gradients."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netatlas.low_rank import (
    NF4_LEVELS,
    LoRALinear,
    QuantizedLinear,
    codes_of,
    dequantize,
    normal_float_levels,
    quantization_error,
    quantize,
    uniform_levels,
)


def test_the_levels_are_normal_quantiles():
    levels = normal_float_levels()
    torch.testing.assert_close(levels, torch.tensor(NF4_LEVELS, dtype=torch.float64), atol=2e-7, rtol=0)
    ppf = lambda p: mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1)  # noqa: E731
    offset = mpmath.mpf("0.9677083")
    top = [ppf(offset + (0.5 - offset) * i / 8) for i in range(8)]
    low = [-ppf(offset + (0.5 - offset) * i / 7) for i in range(7)]
    exact = sorted([*(v / top[0] for v in top), mpmath.mpf(0), *(v / top[0] for v in low)])
    assert max(abs(v - float(e)) for v, e in zip(levels.tolist(), exact)) < 1e-12
    assert NF4_LEVELS[7] == 0 and sum(v < 0 for v in NF4_LEVELS) == 7


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100), count=st.integers(1, 300), block=st.sampled_from([2, 16, 64]))
def test_codes_are_the_nearest_levels(seed, count, block):
    w = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    stored = quantize(w, block=block, double=False)
    padded = nn.functional.pad(w, (0, -count % block)).reshape(-1, block)
    scaled = (padded / padded.abs().amax(1, keepdim=True)).flatten()[:count]
    book = torch.tensor(NF4_LEVELS)
    distance = (scaled[:, None] - book).abs()
    codes = codes_of(stored)
    assert float((distance.gather(1, codes[:, None])[:, 0] - distance.amin(1)).max()) < 1e-6
    torch.testing.assert_close(dequantize(stored), book[codes] * padded.abs().amax(1).repeat_interleave(block)[:count])


def test_quantising_again_changes_nothing_and_levels_are_fixed_points():
    w = torch.randn(40, 64)
    once = dequantize(quantize(w, double=False))
    torch.testing.assert_close(dequantize(quantize(once, double=False)), once)
    book = torch.tensor(NF4_LEVELS).repeat(4)
    torch.testing.assert_close(dequantize(quantize(3 * book, double=False)), 3 * book)


def test_double_quantisation_costs_bits_as_told_and_little_accuracy():
    w = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    double, single = quantize(w), quantize(w, double=False)
    assert single.bits_per_weight == pytest.approx(4.5, abs=1e-4)
    assert double.bits_per_weight == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)
    scales = double.scales.float() * double.scale_of_scales.repeat_interleave(256)[: len(double.scales)] + double.offset
    assert float((scales - single.scales).abs().max()) <= float(double.scale_of_scales.max()) / 2 * 1.001
    assert quantization_error(w, double=True) / quantization_error(w) < 1.001


def test_errors_on_normal_and_uniform_weights():
    g = torch.Generator().manual_seed(0)
    normal, uniform = torch.randn(2**18, generator=g), torch.rand(2**18, generator=g) - 0.5
    assert quantization_error(normal) == pytest.approx(0.092, abs=1e-3)
    assert quantization_error(normal) < quantization_error(normal, uniform_levels(4))
    assert quantization_error(uniform) > quantization_error(uniform, uniform_levels(4)) + 0.01


@pytest.mark.parametrize("shape", [(1,), (3, 5), (64,), (2, 3, 7)])
def test_shapes_tails_zeros_and_small_books(shape):
    w = torch.randn(shape)
    assert dequantize(quantize(w)).shape == shape
    zero = dequantize(quantize(torch.zeros(shape), double=False))
    assert not zero.any()
    book = uniform_levels(2, symmetric=False)
    found = dequantize(quantize(w, book, double=False))
    assert torch.isfinite(found).all() and quantize(w.double()).shape == shape


def test_a_truncated_array_is_refused():
    stored = quantize(torch.randn(128))
    with pytest.raises(ValueError, match="blocks of 64"):
        dequantize(stored._replace(packed=stored.packed[:-1]))
    with pytest.raises(ValueError, match="blocks of 64"):
        dequantize(stored._replace(scales=stored.scales[:-1]))


def test_adapters_over_a_quantised_layer_have_the_gradients_of_the_dequantised_one():
    torch.manual_seed(0)
    dense = nn.Linear(64, 10)
    stored = QuantizedLinear(dense)
    layer = LoRALinear(stored, 4)
    nn.init.normal_(layer.B)
    x = torch.randn(5, 64, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, x @ (stored.dense_weight() + layer.B @ layer.A).T + dense.bias, atol=1e-5, rtol=1e-5)
    grads = torch.autograd.grad(y.square().sum(), (layer.A, layer.B, x))
    z = x @ (stored.dense_weight() + layer.B @ layer.A).T + dense.bias
    for a, b in zip(grads, torch.autograd.grad(z.square().sum(), (layer.A, layer.B, x))):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
    assert len(list(stored.parameters())) == 0


def test_refusals():
    with pytest.raises(ValueError, match="floating-point"):
        quantize(torch.ones(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one"):
        quantize(torch.zeros(0))
    with pytest.raises(ValueError, match="finite"):
        quantize(torch.tensor([1.0, torch.inf]))
    with pytest.raises(ValueError, match="even block"):
        quantize(torch.ones(4), block=3)
    with pytest.raises(ValueError, match="increasing levels"):
        quantize(torch.ones(4), torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="2 to 8 bits"):
        uniform_levels(1)
    with pytest.raises(ValueError, match=r"\(1/2, 1\)"):
        normal_float_levels(0.4)
