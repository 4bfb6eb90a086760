"""The low-rank integrator: exact steps, invariance of the matrix, equality with a step by hand, adaptive ranks."""

import pytest
import torch

from netatlas.low_rank import DLRT, augmented_basis, haar_orthonormal, tail_rank
from netatlas.low_rank.integrator_experiments import (
    adaptive_rank,
    decaying_start,
    integrator_checks,
    low_rank_network,
    small_singular_values,
)


def triple(m=8, n=10, r=3, seed=0, room=None):
    g = torch.Generator().manual_seed(seed)
    u, v = (haar_orthonormal(r, side, generator=g)[0].T for side in (m, n))
    s = torch.randn(r, r, dtype=torch.float64, generator=g)
    pad = (room or r) - r
    wide = torch.nn.functional.pad
    return {"w.U": wide(u, (0, pad)), "w.S": wide(s, (0, pad, 0, pad)), "w.V": wide(v, (0, pad))}


def product(p):
    return p["w.U"] @ p["w.S"] @ p["w.V"].mT


@pytest.mark.parametrize("seed", range(3))
def test_exact_properties(seed):
    checks = integrator_checks(seed)
    assert max(checks.quadratic, checks.augmented) < 1e-12 and min(checks.fixed, checks.factors) > 1e-3


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_is_the_formulas(adaptive):
    """The three steps written out, for a linear functional of the weight plus a quadratic one."""
    p, eta = triple(), 0.1
    target = torch.randn(8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    gradient = lambda w: 2 * (w - target)  # noqa: E731
    u, s, v = p["w.U"], p["w.S"], p["w.V"]
    w = u @ s @ v.T
    k, left = u @ s - eta * gradient(w) @ v, v @ s.T - eta * gradient(w).T @ u
    if adaptive:
        k, left = torch.cat([k, u], 1), torch.cat([left, v], 1)
    u1, v1 = torch.linalg.qr(k)[0], torch.linalg.qr(left)[0]
    core = u1.T @ w @ v1
    core = core - eta * u1.T @ gradient(u1 @ core @ v1.T) @ v1
    expected = u1 @ core @ v1.T
    p = triple(r=3, room=4) if adaptive else p
    integrator = DLRT(p, {"w": 3}, lr=eta, tolerance=0.02 if adaptive else None)
    value = integrator.step(lambda q: (product(q) - target).square().sum())
    torch.testing.assert_close(value, (w - target).square().sum())
    if adaptive:
        svals = torch.linalg.svdvals(expected)
        rank = int(tail_rank(svals, 0.02, smallest=2, largest=4))
        a, d, b = torch.linalg.svd(expected)
        expected = (a[:, :rank] * d[:rank]) @ b[:rank]
        assert int(integrator.ranks["w"]) == rank
    torch.testing.assert_close(product(integrator.params), expected)


def test_bases_stay_orthonormal_and_the_rank_falls_to_the_targets():
    target = product(triple(seed=3, r=2))
    integrator = DLRT(triple(r=4), {"w": 4}, lr=0.2, tolerance=1e-3)
    for _ in range(60):
        loss = integrator.step(lambda q: (product(q) - target).square().sum())
    assert float(loss) < 1e-8 and int(integrator.ranks["w"]) == 2
    u = integrator.params["w.U"]
    torch.testing.assert_close(u.T @ u, torch.diag(torch.tensor([1.0, 1, 0, 0], dtype=torch.float64)))
    assert int(integrator.parameters_kept()) == 2 * (8 + 10)


def test_stacked_members_step_as_alone():
    parts = [triple(seed=i, r=3, room=4) for i in range(3)]
    stack = {k: torch.stack([p[k] for p in parts]) for k in parts[0]}
    target = product(triple(seed=7))
    lr = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    loss = lambda q: (product(q) - target).square().sum((-2, -1))  # noqa: E731
    for optimizer in ("sgd", "adam"):
        many = DLRT(stack, {"w": 3}, lr=lr, optimizer=optimizer, tolerance=0.05)
        alone = [DLRT(p, {"w": 3}, lr=float(r), optimizer=optimizer, tolerance=0.05) for p, r in zip(parts, lr)]
        for _ in range(5):
            many.step(loss)
            for one in alone:
                one.step(loss)
        for i, one in enumerate(alone):
            torch.testing.assert_close(product(many.params)[i], product(one.params), atol=1e-8, rtol=1e-6)


def test_other_parameters_move_once_a_step():
    p = triple() | {"bias": torch.ones(3, dtype=torch.float64)}
    integrator = DLRT(p, {"w": 3}, lr=0.1)
    integrator.step(lambda q: product(q).square().sum() + q["bias"].square().sum())
    torch.testing.assert_close(integrator.params["bias"], torch.full((3,), 0.8, dtype=torch.float64))


def test_the_old_basis_is_kept_by_augmentation():
    p = triple(room=4)
    moved = p["w.U"] + 0.1 * torch.nn.functional.pad(torch.randn(8, 3, dtype=torch.float64), (0, 1))
    basis = augmented_basis(moved, p["w.U"], torch.tensor(3))
    assert basis.shape == (8, 8) and not basis[:, 6:].any()
    for columns in (moved, p["w.U"]):
        torch.testing.assert_close(basis @ (basis.T @ columns), columns)
    same = augmented_basis(p["w.U"], p["w.U"], torch.tensor(3))
    torch.testing.assert_close(same[:, :6].T @ same[:, :6], torch.eye(6, dtype=torch.float64))


def test_the_three_forms_of_a_decaying_start_are_one_function():
    forms = decaying_start([12, 9, 8, 4], 3, 6.0)
    low, factors, dense = forms
    w = low["layers.0.U"] @ low["layers.0.S"] @ low["layers.0.V"].T
    torch.testing.assert_close(factors["layers.0.A"] @ factors["layers.0.B"].T, w)
    torch.testing.assert_close(dense["layers.0.weight"], w)
    s = torch.linalg.svdvals(w.double())[:3]
    torch.testing.assert_close(s, 3 * 10.0 ** (-6.0 * torch.arange(3).double() / 2), rtol=1e-1, atol=1e-6)
    assert set(low) == set(dict(low_rank_network([12, 9, 8, 4], 3).named_parameters()))


def test_experiments_at_tiny_sizes():
    g = torch.Generator().manual_seed(0)
    data = torch.randn(96, 12, generator=g), torch.randint(4, (96,), generator=g)
    decay = small_singular_values(
        data, widths=[12, 10, 10, 4], rank=3, decades=[0, 6], rates=[0.1, 1e4], seeds=[0, 1], steps=25, batch=16
    )
    assert decay.losses["DLRT"].shape == (2, 2, 2) and decay.best("factors").shape == (2, 2)
    assert torch.isinf(decay.losses["factors"][:, 1]).all() and decay.at_edge("DLRT") == 2
    found = adaptive_rank(
        data, data, data, widths=[12, 10, 10, 4], start=4, tolerances=[0.1, 0.5], rates=[1e-3, 1e-2], seeds=[0, 1],
        steps=6, batch=16,
    )  # fmt: skip
    assert found.test.shape == (2, 2) and found.ranks.shape == (2, 2, 2) and found.truncated.shape == (2, 2)
    assert (found.ranks >= 2).all() and found.smallest_within(1.0) == 1


def test_refusals():
    with pytest.raises(ValueError, match="low-rank layer"):
        DLRT({"bias": torch.ones(2)}, {}, lr=0.1)
    with pytest.raises(ValueError, match="rank for each"):
        DLRT(triple(), {}, lr=0.1)
    with pytest.raises(ValueError, match="ranks from 1"):
        DLRT(triple(), {"w": 0}, lr=0.1)
    with pytest.raises(ValueError, match="positive learning rate"):
        DLRT(triple(), {"w": 3}, lr=0.0)
    with pytest.raises(ValueError, match="sgd, adam"):
        DLRT(triple(), {"w": 3}, lr=0.1, optimizer="lion")
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        DLRT(triple(), {"w": 3}, lr=0.1, tolerance=1.0)
    with pytest.raises(ValueError, match="at most 4"):
        DLRT(triple(r=5), {"w": 5}, lr=0.1, tolerance=0.1)
    with pytest.raises(ValueError, match="finite"):
        DLRT(triple() | {"w.S": torch.full((3, 3), torch.nan)}, {"w": 3}, lr=0.1)
