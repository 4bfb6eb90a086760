import numpy as np
import pytest
import torch

from netatlas.pruning import Metanetwork
from netatlas.pruning import experiments as ex


def test_every_exact_check_is_rounding():
    for seed in (0, 1):
        checks = ex.exact_checks(seed)
        assert len(checks) >= 10 and max(checks.values()) < 1e-10


def test_live_share_drops_what_nobody_hears():
    params = {"layers.0.weight": torch.ones(1, 3, 4), "layers.1.weight": torch.ones(1, 2, 3)}
    assert ex.live_share(params).tolist() == [1.0]
    params["layers.1.weight"][:, :, 0] = 0
    assert ex.live_share(params).item() == pytest.approx((8 + 4) / 18)
    params["layers.0.weight"][:, 1] = 0
    assert ex.live_share(params).item() == pytest.approx((4 + 2) / 18)


def test_sparse_speed_computes_the_right_product():
    for layout in ("csr", "block"):
        speed = ex.sparse_speed(0.9, layout, size=64, batch=8, repeats=1)
        assert speed.error < 1e-4 and speed.dense > 0 and speed.sparse > 0


def test_live_agents_keep_to_the_schedule():
    live = ex.live_agents(steps=40, width=8, seeds=[0, 1])
    assert live.wrong == 0 and live.sparsity[0] == 0 and live.sparsity[-1] > 0.7


def test_gain_in_errors():
    gain = ex.AgentGain((2.0, 1.02, 2.98), (0.0, -0.98, 0.98), (0, 0, 0), (0, 0, 0), "x")
    assert gain.growth_in_errors() == pytest.approx(2 / (0.5 * 2**0.5))


def test_dress_arms_and_portrait_run_small(monkeypatch):
    arms, _ = ex.dress_arms(0, hidden=12, sparsities=[0.8, 0.0], seeds=[0], epochs=1, rates=ex.DRESS_RATES)
    assert {"DRESS", "slimmable", "separate networks", "dense, then masks"} <= set(arms)
    assert all(v.shape == (2, 1) for v in arms.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Metanetwork().state_dict()
    stored = {f"meta/0/{n}": v for n, v in model.items()} | {"lr": torch.tensor(0.1)}
    points = ex.portrait_points(0, seeds=[0], sparsities=(0.8,), epochs=3, metanetworks=stored)
    wanted = {"LOBSTER", "DRESS", "channels (gradual)", "small from the start", "metanetwork, then units"}
    assert wanted <= {p.method for p in points}
    assert all(0 < float(p.remaining) <= 1 for p in points)


def test_lobster_takes_other_data_and_lenet_shows_its_gradients():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(60, 1, 5, 5, generator=generator), torch.arange(60) % 3
    splits = ex.cut_in_three(images, labels)
    assert [len(part[0]) for part in splits] == [40, 10, 10]
    assert torch.equal(torch.cat([part[0] for part in splits]), images.flatten(1))
    fronts, _ = ex.lobster_fronts(
        0, splits, rules=["L2"], decays=[1e-3, 1e-2], seeds=[0, 1], epochs=2, widths=[25, 6, 3]
    )
    assert fronts["L2"].remaining.shape == (2, 2) and fronts["none"].remaining.shape == (1, 2)
    lenet = ex.lenet_gradients(splits, seed=0, epochs=2)
    assert lenet.params["layers.1.weight"].shape == (1, 100, 300) and 0 <= lenet.inactive <= 1
    with pytest.raises(ValueError, match="six examples"):
        ex.cut_in_three(images[:3], labels[:3])


def test_words_and_distances():
    assert ex.points(np.array([0.01, 0.01])) == "+1.0 ± 0.0"
    assert ex.welch(np.array([0.0, 2.0]), np.array([4.0, 6.0])) == pytest.approx(4 / 2**0.5)
