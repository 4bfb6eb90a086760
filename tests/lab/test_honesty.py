"""The honesty check catches what it exists for, and lets an honest claim pass."""

import re
from pathlib import Path

import pytest

from netatlas.lab.honesty import check, check_file

CHAPTERS = sorted((Path(__file__).parents[2] / "chapters").glob("*.py"))

MEASURE = """
import numpy as np
import torch
from netatlas import data, lab
from netatlas.merging import fuse, train
images, labels = data.load("mnist")
result = train(images, labels)
fused = fuse(result)
plain = result["plain"]
bound = 0.05
"""


def claim(holds: str, before: str = "", measured: str = '{"fused": fused, "plain": plain}') -> str:
    call = f'lab.claim("singh2020otfusion", "It holds", measured={measured}, holds={holds}, scaled="x")'
    return f"{MEASURE}\n{before}\n{call}\n"


HOSTILE = {
    "a literal": (claim("True"), "is a literal"),
    "a literal among honest ones": (claim('{"a": fused.mean() > plain.mean(), "b": True}'), "'b' is a literal"),
    "arithmetic of literals": (claim("1.0 > 0.5"), "is a literal"),
    "a name bound to a literal": (claim("verdict", "verdict = True"), "bound to a literal"),
    "a name rebound after the measurement": (
        claim("verdict", "verdict = fused.mean() > plain.mean()\nverdict = True"),
        "bound to a literal",
    ),
    "a literal laundered through an array": (
        claim("lab.exceeds(np.array([0.9]).mean(), bound)"),
        "nothing that was computed",
    ),
    "a computed value that is not what was measured": (claim("len(images) > 0"), "no measured value"),
    "a constant that decides": (claim("fused.mean() > plain.mean() or True"), "constant that decides"),
    "a comparison with itself": (claim("lab.exceeds(fused.mean(), fused.mean())"), "with itself"),
    "nothing measured": (claim("fused.mean() > 0.5", measured='{"fused": [0.9, 0.95]}'), "nothing in measured="),
    "conditions in a dict of literals": (claim("conditions", 'conditions = {"a": True}'), "is a literal"),
    "a literal added to a dict later": (
        claim("holds", 'holds = {"a": fused.mean() > plain.mean()}\nholds |= {"b": True}'),
        "'b' is a literal",
    ),
    "a dict of arms that has nothing to do with the conditions": (
        claim("lab.exceeds(len(images), 3)", 'measured = {"fused": fused} | {"plain": plain}', measured="measured"),
        "no measured value",
    ),
    "a name that is measured only after the condition was made": (
        claim("holds", 'late = 0.9\nholds = {"a": lab.exceeds(late, 0.5)}\nlate = fused.mean()'),
        "nothing that was computed",
    ),
}

HONEST = {
    "directly": claim("lab.exceeds(fused.mean(), plain.mean())"),
    "through a derived name": claim("lab.exceeds(gain.mean(), bound)", "gain = fused - plain"),
    "by a shared maker": claim('{"a": lab.exceeds(result["gain"].mean(), 0.1)}'),
    "in a loop": claim(
        "lab.exceeds(min(gaps), bound)", "gaps = []\nfor arm in (fused, plain):\n    gaps += [arm.mean() - bound]"
    ),
    "by appending": claim(
        'lab.exceeds(paired(rows["a"], rows["b"]).mean, 0)',
        "rows = []\nfor s in range(3):\n    rows.append(fuse(s))\nimport pandas as pd\nrows = pd.DataFrame(rows)",
        measured="{k: rows[k] for k in rows}",
    ),
    "through a dict": claim("conditions", 'conditions = {"a": lab.exceeds(fused.mean(), plain.mean())}'),
    "with arms and conditions in cells of their own": claim(
        "holds",
        'measured = {"fused": fused} | {"plain": plain}\nholds = {"a": lab.exceeds(fused.mean(), plain.mean())}\n'
        'holds |= {"b": lab.below(plain.mean(), bound)}',
        measured="measured",
    ),
    "by statistics": claim("lab.exceeds(torch.as_tensor(fused).mean(), 2 * np.std(plain))"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_claims_are_caught(name):
    source, problem = HOSTILE[name]
    findings = check(source)
    assert findings, f"not caught: {name}"
    assert problem in str(findings[0])


@pytest.mark.parametrize("name", HONEST)
def test_honest_claims_pass(name):
    assert check(HONEST[name]) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_are_honest(chapter):
    assert [str(f) for f in check_file(chapter)] == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_keep_to_their_form(chapter):
    text = chapter.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(def|class) ", text, re.M), "methods live in src/netatlas"
    for cell in re.split(r"^# %%", text, flags=re.M)[1:]:
        head, _, body = cell.partition("\n")
        lines = [x for x in body.splitlines() if x.strip() and not x.lstrip().startswith("#")]
        assert "markdown" in head or len(lines) <= 18, f"a cell of {len(lines)} lines: {lines[0]}"
