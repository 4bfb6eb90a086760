"""Kernel ridge regression against brute force and scikit-learn, and its refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge

from netatlas.core import kernel_ridge as kr


def problem(n=30, t=7, outputs=2, batch=(), seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, n, 3, generator=g, dtype=torch.float64)
    z = torch.randn(*batch, t, 3, generator=g, dtype=torch.float64)
    y = torch.randn(*batch, n, outputs, generator=g, dtype=torch.float64)
    return torch.exp(-(torch.cdist(x, x) ** 2)), torch.exp(-(torch.cdist(z, x) ** 2)), y


def test_fit_and_predict_equal_scikit_learn():
    gram, cross, y = problem()
    theirs = KernelRidge(alpha=0.3, kernel="precomputed").fit(gram.numpy(), y.numpy())
    dual = kr.fit(gram, y, 0.3)
    np.testing.assert_allclose(kr.predict(cross, dual).numpy(), theirs.predict(cross.numpy()), rtol=1e-10)


@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 9), outputs=st.integers(1, 3), ridge=st.floats(1e-3, 10), seed=st.integers(0, 99))
def test_leave_one_out_equals_brute_force(n, outputs, ridge, seed):
    gram, _, y = problem(n=n, outputs=outputs, seed=seed)
    found = kr.leave_one_out(gram, y, ridge)[0]
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        brute = torch.zeros(outputs, dtype=torch.float64)
        if rest:
            brute = gram[i, rest] @ kr.fit(gram[rest][:, rest], y[rest], ridge)
        torch.testing.assert_close(found[i], brute, rtol=1e-8, atol=1e-10)


def test_batches_are_solved_entry_by_entry():
    gram, _, y = problem(batch=(3,))
    ridges = [0.01, 0.1, 1.0]
    whole = kr.leave_one_out(gram, y, ridges)
    assert whole.shape == (3, 3, 30, 2)
    for b in range(3):
        torch.testing.assert_close(whole[:, b], kr.leave_one_out(gram[b], y[b], ridges))
    each = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    dual = kr.fit(gram, y, each)
    torch.testing.assert_close(dual[1], kr.fit(gram[1], y[1], 0.1))
    chosen = kr.select_ridge(gram, y, ridges)
    assert chosen.ridge.shape == (3,) and chosen.errors.shape == (3, 3)
    torch.testing.assert_close(chosen.errors[chosen.place, torch.arange(3)], chosen.errors.min(0).values)


def test_ridge_path_equals_a_fit_per_ridge():
    gram, cross, y = problem()
    train, new = kr.ridge_path(gram, y, cross, [1e-3, 0.5])
    for r, ridge in enumerate([1e-3, 0.5]):
        dual = kr.fit(gram, y, ridge)
        torch.testing.assert_close(train[r], gram @ dual, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(new[r], cross @ dual, rtol=1e-8, atol=1e-9)


def test_duplicated_points_need_a_ridge_and_share_it():
    gram, cross, y = problem(n=6)
    twice = torch.cat([torch.arange(6), torch.tensor([0])])
    doubled, labels = gram[twice][:, twice], y[twice]
    with pytest.raises(ValueError, match="duplicated points"):
        kr.fit(doubled, labels, 0.0)
    with pytest.raises(ValueError, match="duplicated points"):
        kr.leave_one_out(doubled, labels, [0.0, 1.0])
    predictions = doubled @ kr.fit(doubled, labels, 0.1)
    torch.testing.assert_close(predictions[0], predictions[-1])
    # Two equal noisy points are one point of half the ridge.
    weights = torch.full((6,), 0.1, dtype=torch.float64)
    weights[0] = 0.05
    single = torch.linalg.solve(gram + weights.diag(), y)
    torch.testing.assert_close(cross @ single, cross[:, twice] @ kr.fit(doubled, labels, 0.1))
    train, _ = kr.ridge_path(doubled, labels, cross[:, twice], [0.0])
    torch.testing.assert_close(train[0], labels, rtol=1e-6, atol=1e-6)


def test_limits():
    one = torch.ones(1, 1, dtype=torch.float64)
    torch.testing.assert_close(kr.fit(one, 3 * one, 0.5), 2 * one)
    assert kr.leave_one_out(one, 3 * one, 0.5).item() == 0
    gram, _, y = problem()
    assert float(kr.fit(gram, torch.zeros_like(y), 1.0).abs().max()) == 0
    huge = kr.fit(gram, y, 1e12)
    torch.testing.assert_close(huge * 1e12, y, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(kr.leave_one_out(gram, y, 1e12)[0], torch.zeros_like(y), rtol=0, atol=1e-9)


def test_meta_device():
    gram = torch.empty(5, 5, device="meta")
    y = torch.empty(5, 2, device="meta")
    assert kr.fit(gram, y, 1.0).shape == (5, 2)
    assert kr.leave_one_out(gram, y, [0.1, 1.0]).shape == (2, 5, 2)


def test_refusals():
    gram, cross, y = problem(n=4)
    bad = gram.clone()
    bad[0, 0] = float("nan")
    for call, words in (
        (lambda: kr.fit(gram[:3], y, 1.0), "square Gram"),
        (lambda: kr.fit(gram.long(), y, 1.0), "floating-point"),
        (lambda: kr.fit(gram, y.float(), 1.0), "type"),
        (lambda: kr.fit(gram, y.long(), 1.0), "floating-point"),
        (lambda: kr.fit(gram, y[:2], 1.0), "targets"),
        (lambda: kr.fit(gram, y[:, 0], 1.0), "targets"),
        (lambda: kr.fit(bad, y, 1.0), "finite"),
        (lambda: kr.fit(gram, y, -1.0), "at least 0"),
        (lambda: kr.fit(gram, y, float("nan")), "finite"),
        (lambda: kr.fit(gram, y.to("meta"), 1.0), "one device"),
        (lambda: kr.leave_one_out(gram, y, []), "ridge"),
        (lambda: kr.predict(cross[:, :2], y), "cross Gram"),
        (lambda: kr.predict(cross.float(), y), "type"),
        (lambda: kr.ridge_path(gram, y, cross[:, :2], [1.0]), "cross Gram"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
