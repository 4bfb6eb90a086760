import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netatlas.pruning import (
    NestedRows,
    level_masks,
    nested_row_order,
    prefix_mask,
    slim_widths,
    stored_bytes,
    train_levels,
)

LEVELS = [0.9, 0.5, 0.0]


def matrix(rows=6, columns=10, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 7), st.integers(1, 12), st.integers(0, 99), st.booleans())
def test_levels_are_nested_balanced_and_largest(rows, columns, seed, ties):
    weight = matrix(rows, columns, seed)
    weight = weight.sign() if ties else weight
    store = NestedRows(weight, LEVELS)
    order = nested_row_order(weight)
    last = torch.zeros(rows, columns, dtype=torch.bool)
    for k, s in enumerate(LEVELS):
        mask = prefix_mask(order, store.counts[k])
        assert (mask.sum(1) == max(1, round((1 - s) * columns))).all() and not (last & ~mask).any()
        torch.testing.assert_close(store.dense(k), weight * mask)
        kept = torch.where(mask, weight.abs(), torch.inf).amin(1)
        assert (kept >= torch.where(mask, -1.0, weight.abs()).amax(1)).all()
        last = mask


def test_product_uses_the_prefix():
    weight, x = matrix(), torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    store = NestedRows(weight, LEVELS)
    for k in range(3):
        torch.testing.assert_close(store.product(x, k), x @ store.dense(k).T)
    assert store.stored_bytes() == 60 * (4 + 4 / 8)


@pytest.mark.parametrize("scheme", ["rows", "global", "random rows", "slim"])
def test_masks_of_every_scheme_are_nested(scheme):
    params = {
        "layers.0.weight": matrix(8, 5)[None],
        "layers.1.weight": matrix(8, 8)[None],
        "layers.2.weight": matrix(3, 8)[None],
    }
    noise = {n: torch.rand(p.shape, generator=torch.Generator().manual_seed(2)) for n, p in params.items()}
    masks = level_masks(params, LEVELS, scheme, noise)
    for small, large in zip(masks, masks[1:]):
        assert all(not (small[n] & ~large[n]).any() for n in small)
    assert all(masks[-1][n].all() for n in masks[-1])


def test_joint_gradient_is_the_sum_and_masked_weights_get_none():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 7, generator=generator), torch.randint(3, (96,), generator=generator)
    make = {"hidden": 12, "scheme": "rows", "seeds": [0], "epochs": 1, "batch_size": 96, "lr": 1.0}
    start = train_levels((x, y), (x, y), sparsities=LEVELS, **make | {"lr": 1e-12}).params
    both = train_levels((x, y), (x, y), sparsities=LEVELS, importance=[0.5, 0.3, 0.2], **make).params
    parts = [
        train_levels((x, y), (x, y), sparsities=LEVELS, trained=[k], importance=[0.5, 0.3, 0.2], **make).params
        for k in range(3)
    ]
    for n in start:
        moved = sum(p[n] - start[n] for p in parts)
        torch.testing.assert_close(both[n] - start[n], moved, atol=1e-5, rtol=1e-4)
    sparsest = prefix_mask(nested_row_order(start["layers.1.weight"]), 1)
    assert ((parts[0]["layers.1.weight"] - start["layers.1.weight"])[~sparsest].abs() < 1e-6).all()


def test_training_learns_and_own_statistics_beat_shared_ones():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 10, generator=generator)
    y = (x @ torch.randn(10, 3, generator=generator)).argmax(1)
    levels = train_levels(
        (x, y), (x, y), hidden=24, sparsities=LEVELS, scheme="rows", seeds=[0, 1], epochs=8, batch_size=50
    )
    assert levels.accuracy.shape == (3, 2) and float(levels.accuracy.min()) > 0.6
    assert float(levels.accuracy[0].mean()) > float(levels.shared[0].mean())


def test_slim_widths_have_equal_weights():
    (n,) = slim_widths(128, 64, 10, [0.95])
    goal = 0.05 * (64 * 128 + 128 * 128) + 1280
    assert n == 25 and abs(n * n + 74 * n - goal) < n + 40


def test_stored_bytes_by_hand():
    head, bits = 4 * 3 * 8, math.ceil(math.log2(8)) / 8
    assert stored_bytes("rows", 8, 8, 3, [0.5, 0.0]) == head + 2 * 64 * (4 + bits)
    assert stored_bytes("separate", 8, 8, 3, [0.5, 0.0]) == 2 * head + 2 * 32 * (4 + bits) + 2 * 64 * 4


def test_refusals():
    with pytest.raises(ValueError, match="falling sparsities"):
        NestedRows(matrix(), [0.5, 0.9])
    with pytest.raises(ValueError, match="entries a row"):
        prefix_mask(nested_row_order(matrix()), 11)
    with pytest.raises(ValueError, match="finite"):
        nested_row_order(matrix() * torch.nan)
    with pytest.raises(ValueError, match="a scheme out of"):
        level_masks({}, LEVELS, "nonsense", {})
    with pytest.raises(ValueError, match="importances"):
        train_levels(
            (matrix(), torch.arange(6) % 2), (matrix(), torch.arange(6) % 2), hidden=4, sparsities=LEVELS,
            scheme="rows", seeds=[0], epochs=1, importance=[1.0],
        )  # fmt: skip
    with pytest.raises(ValueError, match="slim or separate"):
        stored_bytes("nonsense", 8, 8, 3, [0.5])
