"""Criteria of negative curvature by hand, scale invariance, normalised axes, surfaces, partial correlation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.landscapes import curvature_criteria, loss_surface, normalized_axis, partial_spearman


def test_criteria_by_hand():
    nodes = torch.tensor([[-1.0, 0.0, 4.0], [-4.0, 1.0, 9.0]])
    weights = torch.tensor([[0.25, 0.5, 0.25], [0.0, 0.75, 0.25]])
    found = curvature_criteria(nodes, weights)
    assert float(found.extremes) == pytest.approx((0.25 + 1 / 9) / 2)
    assert float(found.negative_mass) == pytest.approx(0.25)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_criteria_do_not_see_the_scale(seed, scale):
    g = torch.Generator().manual_seed(seed)
    nodes = torch.randn(2, 3, 6, generator=g, dtype=torch.float64)
    nodes[..., 0] = nodes[..., 0].abs() + 0.1
    weights = torch.rand(2, 3, 6, generator=g, dtype=torch.float64)
    for a, b in zip(curvature_criteria(nodes, weights), curvature_criteria(scale * nodes, weights)):
        torch.testing.assert_close(a, b)


def test_a_positive_spectrum_has_no_negative_mass():
    assert float(curvature_criteria(torch.ones(1, 3), torch.full((1, 3), 1 / 3)).negative_mass) == 0


def params():
    g = torch.Generator().manual_seed(0)
    return {"w": torch.randn(3, 2, 2, generator=g), "b": torch.randn(3, generator=g)}


def direction():
    return {"w": torch.ones(3, 2, 2), "b": -torch.ones(3)}


def test_norms_of_blocks():
    w = params()
    model = normalized_axis(direction(), w, "model")
    assert sum(float(v.square().sum()) for v in model.values()) == pytest.approx(
        sum(float(v.square().sum()) for v in w.values())
    )
    layer = normalized_axis(direction(), w, "layer")
    torch.testing.assert_close(layer["w"].norm(), w["w"].norm())
    filters = normalized_axis(direction(), w, "filter")
    torch.testing.assert_close(filters["w"].flatten(1).norm(dim=1), w["w"].flatten(1).norm(dim=1))
    torch.testing.assert_close(filters["b"], -w["b"].abs())
    torch.testing.assert_close(normalized_axis(direction(), w, "weight")["w"], w["w"].abs())
    assert normalized_axis(direction(), w, "none")["w"] is not None


def test_zero_blocks_stay_zero():
    zero = {k: torch.zeros_like(v) for k, v in params().items()}
    for norm in ("weight", "layer", "model", "filter"):
        assert all(float(v.abs().max()) == 0 for v in normalized_axis(zero, params(), norm).values())
        assert all(float(v.abs().max()) == 0 for v in normalized_axis(direction(), zero, norm).values())


def test_surface_of_a_quadratic():
    point, grid = {"w": torch.tensor([1.0, 2.0])}, torch.tensor([-1.0, 0.0, 2.0])
    axes = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 3.0])}
    found = loss_surface(lambda p: p["w"].square().sum(1), point, *axes, grid)
    expected = (1 + grid[:, None]) ** 2 + (2 + 3 * grid[None]) ** 2
    torch.testing.assert_close(found, expected)


def test_partial_correlation_is_that_of_residual_ranks():
    rng = np.random.default_rng(0)
    z = rng.standard_normal(50)
    x, y = z + rng.standard_normal(50), z + rng.standard_normal(50)
    ranks = [v.argsort().argsort().astype(float) for v in (x, y, z)]
    rest = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    assert partial_spearman(x, y, z) == pytest.approx(np.corrcoef(*rest)[0, 1])
    assert np.isnan(partial_spearman(x, y, x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: curvature_criteria(torch.ones(1, 2), torch.ones(1, 3)), "one shape"),
        (lambda: curvature_criteria(torch.ones(1, 2), torch.ones(1, 2), 1.0), "power"),
        (lambda: curvature_criteria(-torch.ones(1, 2), torch.ones(1, 2)), "positive Ritz"),
        (lambda: curvature_criteria(torch.full((1, 2), torch.nan), torch.ones(1, 2)), "finite"),
        (lambda: normalized_axis(direction(), params(), "other"), "a norm"),
        (lambda: normalized_axis({"w": torch.ones(2)}, params()), "shaped"),
        (lambda: loss_surface(lambda p: p["w"], params(), direction(), {}, torch.zeros(2)), "an axis"),
        (lambda: loss_surface(lambda p: p["w"], params(), direction(), direction(), torch.zeros(0)), "a grid"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()
