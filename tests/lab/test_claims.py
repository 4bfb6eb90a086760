"""Verdicts follow conditions, and a card shows what was measured."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from netatlas import lab
from netatlas.lab import claims
from netatlas.lab.claims import MIME, verdict_of
from netatlas.lab.conditions import Condition

KEY = "singh2020otfusion"


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(claims, "display", lambda data, raw, metadata: outputs.append((data, metadata)))
    lab.begin("merging", profile="ci", seed=3, device="cpu")
    return outputs


def make(**changes):
    given_ = {
        "measured": {"fused": [0.9, 0.92, 0.94], "plain": torch.tensor([0.7, 0.6, 0.65])},
        "control": {"shuffled": np.array([0.6, 0.7, 0.65])},
        "holds": {"fused beats plain": lab.exceeds(0.92, 0.65), "by half": lab.exceeds(0.27, 0.5)},
        "scaled": "a small network",
        "data": "real",
        "reason": "the gap is smaller than half",
    }
    return lab.claim(KEY, "Fusing keeps accuracy", **(given_ | changes))


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_verdict_is_what_the_conditions_say(values):
    verdict = verdict_of({str(i): Condition(v) for i, v in enumerate(values)})
    expected = "reproduced" if all(values) else "partly" if values[0] else "not reproduced here"
    assert verdict == expected


def test_the_payload_has_figures_and_intervals(shown):
    assert make() == "partly"
    (data, _), payload = shown[0], shown[0][0][MIME]
    assert payload["verdict"] == "partly" and payload["reason"] == "the gap is smaller than half"
    fused = payload["measured"][0]
    expected = stats.t.interval(0.95, 2, np.mean(fused["values"]), stats.sem(fused["values"]))
    assert fused["mean"] - fused["half_width"] == pytest.approx(expected[0])
    assert [row["role"] for row in payload["measured"]] == ["measured", "measured", "control"]
    assert payload["seed"] == 3 and payload["profile"] == "ci"
    assert json.loads(json.dumps(payload)) == payload
    for words in ("0.92 &gt; 0.65", "0.27 ≤ 0.5", "control", "real data", "a small network", "Why not"):
        assert words in data["text/html"]


def test_a_reason_is_shown_only_where_something_fails(shown):
    assert make(holds=lab.exceeds(0.92, 0.65)) == "reproduced"
    assert shown[0][0][MIME]["reason"] == "" and "Why not" not in shown[0][0]["text/html"]


def test_values_of_different_things_have_no_interval(shown):
    make(measured={"by graph": lab.each([0.5, -0.25]), "by depth": lab.each(range(9)), "seeds": [1.0, 2.0]})
    data, _ = shown[0]
    graphs, depths, seeds = data[MIME]["measured"][:3]
    assert (graphs["values"], graphs["half_width"], graphs["n"]) == ([0.5, -0.25], 0.0, 2)
    assert [row["each"] for row in (graphs, depths, seeds)] == [True, True, False]
    for words in ("0.5, -0.25<", "0 to 8<", "1.5 ± 6.4<"):
        assert words in data["text/html"]


def test_volatile_values_stay_out_of_what_is_compared(shown):
    times = lab.volatile([1.0, 2.0])
    make(measured={"a": [7.0, 8.0], "seconds": times}, holds={"fast": lab.below(lab.volatile(1.5), 3)})
    data, metadata = shown[0]
    assert [row["name"] for row in data[MIME]["measured"]] == ["a", "shuffled"]
    assert data[MIME]["conditions"] == [{"name": "fast", "holds": True, "figures": ""}]
    assert metadata["netatlas"]["volatile"][0]["values"] == [1.0, 2.0]
    assert metadata["netatlas"]["figures"] == {"fast": "1.5 < 3"}
    import re

    from netatlas.lab.timings import SANITIZE

    rule = re.search(r"regex: (<span.*)", SANITIZE).group(1)
    assert "1.5" not in re.sub(rule, "VOLATILE", data["text/html"])


@pytest.mark.parametrize(
    "changes",
    [
        {"measured": {}},
        {"measured": {"a": [float("nan")]}},
        {"measured": {"a": np.zeros((2, 2))}},
        {"data": "imagined"},
        {"scaled": " "},
        {"holds": {}},
    ],
)
def test_bad_claims_are_refused(shown, changes):
    with pytest.raises(ValueError, match="expected"):
        make(**changes)


def test_keys_must_be_known_and_of_this_chapter(shown):
    with pytest.raises(KeyError, match="singh2020otfusion"):
        lab.claim("singh2020otfusio", "x", measured={"a": [1]}, holds=True, scaled="x")
    with pytest.raises(ValueError, match="chapter merging"):
        lab.claim("grover2016node2vec", "x", measured={"a": [1]}, holds=True, scaled="x")


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_conditions_are_their_inequalities(a, b):
    assert bool(lab.exceeds(a, b)) == (a > b) and bool(lab.below(a, b)) == (a < b)
    low, high = min(a, b), max(a, b)
    assert lab.within((low + high) / 2, low, high)
    assert bool(lab.exceeds(a, b) & lab.below(a, b)) is False


def test_conditions_refuse_nan():
    for make_condition in (lambda: lab.exceeds(float("nan"), 0), lambda: lab.within(0, 2, 1)):
        with pytest.raises(ValueError, match="expected"):
            make_condition()


def test_rounding_errors_are_shown_as_their_floor():
    assert lab.rounding(3e-17, 1e-12) == lab.rounding(0.0, 1e-12) == 1e-12
    assert lab.rounding(1e-3, 1e-12) == 1e-3
    for bad in (float("nan"), -1.0):
        with pytest.raises(ValueError, match="expected"):
            lab.rounding(bad, 1e-12)
