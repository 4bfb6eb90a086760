"""The table of exponents against derivations written out by hand, and its application to modules."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netatlas.core.nn import MLP, ConvNet
from netatlas.core.parameterization import (
    ABC,
    TABLE,
    abc_regime,
    alignment_exponent,
    branch_scale,
    coordinate_check,
    depth_rate,
    exponents,
    layer_kinds,
    parameterize,
    shifted,
    width_exponent,
)
from netatlas.core.train import fit_many, minimize

# Published Adam exponents: embedding, hidden, readout.
ADAM = {
    ("standard", "full"): (0, 1, 1),
    ("ntk", "full"): (0, 0.5, 0.5),
    ("mup", "full"): (0.5, 1, 0.5),
    ("mean_field", "full"): (0, 0.5, 0),
    ("standard", "none"): (0, 0.5, 0.5),
    ("ntk", "none"): (0, 0, 0),
    ("mup", "none"): (0.5, 0.5, 0),
    ("mean_field", "none"): (0, 0, -0.5),
}


@pytest.mark.parametrize("case", ADAM, ids=str)
def test_adam_exponents_are_the_published_ones(case):
    row = exponents(case[0], "adam", case[1])
    assert tuple(row[k].rate for k in ("embedding", "hidden", "readout")) == ADAM[case]


def test_sgd_exponents_of_mup_and_the_mean_field_are_single():
    assert {e.rate for e in exponents("mup", "sgd").values()} == {0.0}
    assert {e.rate for e in exponents("mean_field", "sgd").values()} == {-1.0}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adafactor"])
@pytest.mark.parametrize("alignment", ["full", "none"])
@settings(deadline=None, max_examples=20)
@given(theta=st.floats(-1, 1))
def test_rates_respect_the_symmetry(optimizer, alignment, theta):
    for left, right in (("standard", "ntk"), ("mup", "mean_field")):
        a, b = exponents(left, optimizer, alignment), exponents(right, optimizer, alignment)
        for kind, own in a.items():
            same = shifted({kind: own}, b[kind].multiplier - own.multiplier, optimizer)[kind]
            assert same == pytest.approx(b[kind])
            back = shifted(shifted({kind: own}, theta, optimizer), -theta, optimizer)[kind]
            assert back == pytest.approx(own)


def test_regimes_of_the_named_rules():
    assert [abc_regime(*ABC[r](2)).r for r in ("standard", "ntk", "mup")] == [0.5, 0.5, 0.0]
    assert abc_regime(*ABC["mup"](3)).feature_learning and not abc_regime(*ABC["ntk"](3)).feature_learning
    a, b, _ = ABC["standard"](2)
    assert not abc_regime(a, b, 0.0).stable
    assert abc_regime([0, 1], [0, 0], -1).feature_learning, "mean field with one hidden layer"


@settings(deadline=None, max_examples=25)
@given(theta=st.floats(-2, 2), rule=st.sampled_from(["standard", "ntk", "mup"]))
def test_r_does_not_see_the_symmetry(theta, rule):
    a, b, c = ABC[rule](2)
    moved = abc_regime([v + theta for v in a], [v - theta for v in b], c - 2 * theta)
    assert moved.r == pytest.approx(abc_regime(a, b, c).r, abs=1e-12)
    assert moved.stable and moved.nontrivial


@pytest.mark.parametrize("rule", TABLE)
def test_at_the_base_width_nothing_changes(rule):
    torch.manual_seed(0)
    model, other = MLP([5, 8, 8, 3]), MLP([5, 8, 8, 3])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    applied = parameterize(model, other, rule, optimizer="adam")
    assert set(applied.lr_scale.values()) == {1.0}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_sizes_and_multipliers_by_hand():
    torch.manual_seed(0)
    model = MLP([5, 32, 32, 3], bias=False)
    before = [layer.weight.clone() for layer in model.layers]
    applied = parameterize(model, MLP([5, 8, 8, 3], bias=False), "mup", optimizer="sgd")
    # Effective initial weights of muP: as standard, but the readout smaller by the root of the ratio 4.
    for layer, old, factor in zip(model.layers, before, (1, 1, 0.5)):
        torch.testing.assert_close(layer.weight, old * factor)
    stored = dict(model.named_parameters())["layers.2.parametrizations.weight.original"]
    torch.testing.assert_close(stored, before[2])
    assert list(applied.kinds.values()) == ["embedding", "hidden", "readout"]
    assert {group["lr"] for group in applied.groups(model, 0.1)} == {0.1}


def test_kinds_of_a_tree_with_convolutions_tables_and_norms():
    def build(n):
        return nn.ModuleDict(
            {"table": nn.Embedding(11, n), "net": ConvNet([n, 2 * n], 4, norm="batch"), "fixed": nn.Linear(3, 3)}
        )

    kinds = layer_kinds(build(8), build(4))
    assert kinds["table.weight"] == kinds["net.convolutions.0.weight"] == kinds["net.norms.1.weight"] == "embedding"
    assert kinds["net.convolutions.1.weight"] == "hidden" and kinds["net.head.weight"] == "readout"
    assert kinds["net.head.bias"] == kinds["fixed.weight"] == "fixed"
    applied = parameterize(build(8), build(4), "mup", optimizer="adam")
    assert applied.lr_scale["net.convolutions.1.weight"] == 0.5
    assert layer_kinds(build(8), build(4), {"table.weight": "fixed"})["table.weight"] == "fixed"


@pytest.mark.parametrize("optimizer", ["sgd", "adam_atan2", "adafactor"])
def test_equivalent_rules_train_alike(optimizer):
    torch.manual_seed(0)
    x, y = torch.randn(20, 5).double(), torch.randn(20, 2).double()
    traces = {}
    for rule in TABLE:
        scale = {}

        def build(rule=rule, scale=scale):
            model = MLP([5, 12, 12, 2], bias=False, activation="tanh").double()
            scale |= parameterize(model, MLP([5, 4, 4, 2], bias=False), rule, optimizer=optimizer).lr_scale
            return model

        build()
        traces[rule] = fit_many(
            build, x, y, seeds=[0, 1], epochs=4, batch_size=10, loss="mse", lr=0.05, lr_scale=scale, optimizer=optimizer
        ).trace
    torch.testing.assert_close(traces["standard"], traces["ntk"], rtol=1e-10, atol=0)
    torch.testing.assert_close(traces["mup"], traces["mean_field"], rtol=1e-10, atol=0)


def test_coordinate_check_tells_mup_from_a_global_rate():
    torch.manual_seed(0)
    x = torch.randn(16, 10).double()
    y = torch.sign(x[:, :1] * x[:, 1:2])
    options = {"base": 64, "optimizer": "adam", "lr": 1e-4, "steps": 2}

    def build(n):
        return MLP([10, n, n, 1], bias=False, activation="tanh")

    good = coordinate_check(build, [64, 256], x, y, rule="mup", **options).slopes()
    bad = coordinate_check(build, [64, 256], x, y, rule="standard", global_rate=0.0, **options).slopes()
    assert abs(good["layers.1"].mean) < 0.3 < 0.5 < bad["layers.1"].mean
    start = coordinate_check(build, [64, 256], x, y, rule="ntk", **options).slopes("initial")
    assert abs(start["layers.1"].mean) < 0.1


@settings(deadline=None, max_examples=10)
@given(exponent=st.floats(-2, 2), seeds=st.integers(1, 4))
def test_width_exponent_recovers_a_power(exponent, seeds):
    widths = [8, 16, 64]
    table = torch.tensor([[3.0 * (s + 1) * n**exponent for s in range(seeds)] for n in widths], dtype=torch.float64)
    found = width_exponent(widths, table)
    assert found.mean == pytest.approx(exponent, abs=1e-9) and found.half_width < 1e-9


def test_alignment_of_rank_one_and_of_independent_pairs():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 400, generator=generator)
    assert float(alignment_exponent(torch.ones(7, 1) @ z, z)) == pytest.approx(1.0, abs=1e-5)
    loose = alignment_exponent(torch.randn(300, 400, generator=generator), torch.randn(50, 400, generator=generator))
    assert float(loose) == pytest.approx(0.5, abs=0.01)
    assert alignment_exponent(torch.empty(2, 7, 4, device="meta"), torch.empty(2, 9, 4, device="meta")).shape == (2,)


def test_depth_factors():
    assert branch_scale(16) == 0.25 and branch_scale(16, 0.0) == 1.0
    assert depth_rate(16, "sgd") == 1.0 and depth_rate(16, "adam") == 0.25 and depth_rate(16, "sgd", 0.0) == 1 / 16


def test_adafactor_step_by_hand_and_zero_stays():
    w = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    g = torch.tensor([[0.5, 1.0], [-1.5, 2.0]])
    end, _ = minimize(
        lambda p, step, gen: (p["w"] * g).sum() + 3 * p["z"].sum(),
        {"w": w, "z": torch.zeros(2)}, steps=1, optimizer="adafactor", lr=0.1, lr_scale={"w": 2.0, "z": 1.0},
    )  # fmt: skip
    v = g.square().mean(1, keepdim=True) * g.square().mean(0, keepdim=True) / g.square().mean()
    u = g / v.sqrt()
    u = u / max(1.0, float(u.square().mean().sqrt()))
    torch.testing.assert_close(end["w"], w - 0.2 * u * w.square().mean().sqrt())
    assert torch.equal(end["z"], torch.zeros(2))


def test_atan2_does_not_see_scale_and_scales_rates_by_name():
    def run(scale):
        return minimize(
            lambda p, step, gen: scale * (p["a"].square().sum() + (p["b"] - 1).square().sum()),
            {"a": torch.ones(3), "b": torch.zeros(2)}, steps=5, optimizer="adam_atan2", lr=0.1,
            lr_scale={"a": 1.0, "b": 0.0},
        )[0]  # fmt: skip

    one, tiny = run(1.0), run(2.0**-30)
    assert torch.equal(one["a"], tiny["a"]) and torch.equal(one["b"], torch.zeros(2))
    assert not torch.equal(one["a"], torch.ones(3))


def test_clipping_and_kept_divergence_are_per_member():
    start = {"w": torch.tensor([[1.0], [1.0]])}
    end, trace = minimize(
        lambda p, step, gen: p["w"].square().sum(1), start, steps=400, optimizer="sgd", lr=[0.1, 3.0], diverged="keep"
    )
    assert float(end["w"][0].abs()) < 1e-6 and not torch.isfinite(trace[-1, 1])
    with pytest.raises(ValueError, match="finite loss"):
        minimize(lambda p, step, gen: p["w"].square().sum(1), start, steps=400, optimizer="sgd", lr=3.0)
    moved, _ = minimize(
        lambda p, step, gen: torch.tensor([100.0, 0.1]) * p["w"][:, 0],
        start,
        steps=1,
        optimizer="sgd",
        lr=1.0,
        clip_norm=1.0,
    )
    torch.testing.assert_close(moved["w"], torch.tensor([[0.0], [0.9]]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: exponents("mu"), "a parameterization out of"),
        (lambda: exponents("mup", "lion"), "an optimizer out of"),
        (lambda: exponents("mup", "sgd", "half"), "an alignment out of"),
        (lambda: abc_regime([0], [0], 0), "at least two layers"),
        (lambda: abc_regime([0, math.nan], [0, 0], 0), "finite exponents"),
        (lambda: branch_scale(0), "a depth of at least 1"),
        (lambda: depth_rate(2, "lion"), "an optimizer out of"),
        (lambda: parameterize(MLP([2, 3, 1]), MLP([2, 3, 3, 1]), "mup"), "a base model with parameters"),
        (lambda: layer_kinds(MLP([2, 3, 1]), MLP([2, 3, 1]), {"x": "hidden"}), "roles of parameters"),
        (lambda: width_exponent([4, 4], torch.ones(2, 1)), "two different widths"),
        (lambda: width_exponent([4, 8], torch.zeros(2, 1)), "positive values"),
        (lambda: width_exponent([4, 8], torch.full((2, 1), math.nan)), "finite values"),
        (lambda: alignment_exponent(torch.ones(2, 1), torch.ones(3, 1)), "width 1 of at least 2"),
        (lambda: alignment_exponent(torch.ones(2, 3), torch.ones(3, 3, device="meta")), "activations on cpu"),
        (lambda: minimize(lambda p, s, g: p["w"], {"w": torch.ones(1)}, steps=1, lr_scale={"v": 1.0}), "one scale"),
        (
            lambda: minimize(lambda p, s, g: p["w"], {"w": torch.ones(1)}, steps=1, clip_norm=0.0),
            "a positive clip_norm",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_module_is_parameterized_once():
    model, base = MLP([2, 8, 8, 1]), MLP([2, 4, 4, 1])
    parameterize(model, base, "ntk")
    with pytest.raises(ValueError, match="without parametrizations"):
        parameterize(model, base, "ntk")
