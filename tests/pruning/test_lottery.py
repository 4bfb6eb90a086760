import numpy as np
import pytest
import torch

from netatlas.core.sparsity import Channels, NOfM, zeros_of
from netatlas.pruning import (
    angular_margin,
    corrupt,
    linear_cka,
    logit_geometry,
    popup_weights,
    signed_constant,
    stacked_layers,
    train_sparse,
)
from netatlas.pruning import lottery_experiments as le
from netatlas.pruning.corruptions import CORRUPTIONS, SEVERITIES


def data(n=120, features=9):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, features, generator=generator)
    return x, (x @ torch.randn(features, 10, generator=generator)).argmax(-1)


METHODS = ["one shot", "gradual", "rewound weights", "rewound rate", "movement", "random", "edge-popup", "biprop"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_its_sparsity_exactly(method):
    x, y = data()
    params, masks = train_sparse(method, 0.7, (x, y), widths=[9, 12, 8, 10], seeds=[0, 1], epochs=3, batch_size=40)
    for name, shape in (("layers.0.weight", 108), ("layers.1.weight", 96)):
        assert ((~masks[name]).flatten(1).sum(1) == zeros_of(0.7, shape)).all()
        assert (params[name][~masks[name]] == 0).all()
    assert all(torch.isfinite(p).all() for p in params.values())


def test_structures_and_full_sparsity():
    x, y = data()
    make = {"widths": [9, 12, 8, 10], "seeds": [0], "epochs": 3, "batch_size": 40}
    _, masks = train_sparse("gradual", 0.5, (x, y), structure=Channels(), **make)
    assert masks["layers.0.weight"].any(-1).sum() == 6
    with pytest.raises(ValueError, match="4 divides"):
        train_sparse("one shot", 0.5, (x, y), structure=NOfM(4), **make)
    params, _ = train_sparse("one shot", 1.0, (x, y), **make)
    assert (params["layers.0.weight"] == 0).all() and torch.isfinite(stacked_layers(params, x)[-1]).all()


def test_popup_never_changes_weights_and_trains_scores():
    like = torch.zeros(2, 6, 5)
    weights = signed_constant(like, [0, 1])
    before = weights.clone()
    scores = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    effective, mask = popup_weights(scores, weights, 0.5)
    assert (mask.flatten(1).sum(1) == 15).all() and torch.equal(effective.detach(), before * mask)
    (effective * 3).sum().backward()
    torch.testing.assert_close(scores.grad, 3 * weights * scores.detach().sign())
    binary, mask = popup_weights(scores.detach(), 2 * weights, 0.5, binary=True)
    kept = binary[mask].abs()
    torch.testing.assert_close(kept, kept[:1].expand_as(kept))
    assert torch.equal(weights, before)


def test_geometry_rebuilds_logits_and_margins_tell_correctness():
    generator = torch.Generator().manual_seed(0)
    h, w = torch.randn(50, 6, generator=generator).double(), torch.randn(4, 6, generator=generator).double()
    y = torch.randint(4, (50,), generator=generator)
    g = logit_geometry(h, w)
    torch.testing.assert_close(g.norms * g.length[:, None] * g.angles.cos(), h @ w.T)
    unit = w / w.norm(dim=1, keepdim=True)
    assert torch.equal(angular_margin(g.angles, y) > 0, (h @ unit.T).argmax(1) == y)
    zero = logit_geometry(torch.zeros(1, 6), torch.ones(2, 6))
    torch.testing.assert_close(zero.angles, torch.full((1, 2), torch.pi / 2))
    meta = logit_geometry(torch.zeros(3, 6, device="meta"), torch.zeros(2, 6, device="meta"))
    assert meta.angles.shape == (3, 2)


def test_cka_is_one_under_rotation_and_small_for_noise():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator)
    q = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    assert linear_cka(x, 3 * x @ q + 1) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, torch.randn(400, 5, generator=generator)) < 0.1
    assert linear_cka(x, torch.ones(400, 2)) == 0


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_corruptions_grow_with_severity_and_repeat(name):
    images = torch.rand(30, 1, 14, 14, generator=torch.Generator().manual_seed(0)) * 0.8
    gaps = []
    for severity in range(SEVERITIES):
        out = corrupt(images, name, severity, seed=3)
        assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1
        assert torch.equal(out, corrupt(images, name, severity, seed=3))
        gaps.append(float((out - images).square().mean()))
    assert gaps[0] > 0 and gaps[0] < gaps[2]


def test_leave_one_out_finds_a_line_and_not_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    groups = np.repeat(["a", "b", "c"], 30)
    assert le.leave_one_method_out(x, x @ [1, 2, 3], groups, ridge=1e-6) > 0.999
    assert le.leave_one_method_out(x, rng.normal(size=90), groups) < 0.2


def test_suite_runs_small():
    x, y = data(150, 49)
    suite = le.run_suite((x, y), (x[:60], y[:60]), widths=[49, 12, 8, 10], seeds=[0, 1], side=7, epochs=3, few=20)
    assert suite.corrupted.shape == (15, 2, 10, 3) and suite.identity < 1e-5 and suite.equalised == 1
    assert le.redundancy(suite).components <= 10 and np.isfinite(le.explain_drop(suite)).all()
    assert suite.fragile.shape == (2, 60) and suite.alike.shape == (15, 15)
    np.testing.assert_allclose(suite.alike, suite.alike.T, atol=1e-9)
    assert suite.alike.min() >= 0 and suite.alike[0, 0] == pytest.approx(1)
    assert le.winning_hand(suite).lead.shape == (1,) and le.fragility(suite).margin.shape == (2,)


def test_refusals():
    x, y = data()
    with pytest.raises(ValueError, match="a method out of"):
        train_sparse("nonsense", 0.5, (x, y), widths=[9, 4, 10], seeds=[0])
    with pytest.raises(ValueError, match="3 rounds divide"):
        train_sparse("rewound rate", 0.5, (x, y), widths=[9, 4, 10], seeds=[0], epochs=4)
    with pytest.raises(ValueError, match="a corruption out of"):
        corrupt(torch.zeros(1, 1, 4, 4), "nonsense", 0)
    with pytest.raises(ValueError, match="severity"):
        corrupt(torch.zeros(1, 1, 4, 4), "blur", 3)
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        corrupt(torch.full((1, 1, 4, 4), 2.0), "blur", 0)
    with pytest.raises(ValueError, match="at least two classes"):
        angular_margin(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="units a class"):
        logit_geometry(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="same examples"):
        linear_cka(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="finite"):
        logit_geometry(torch.full((2, 3), torch.nan), torch.ones(2, 3))
