"""Profiles, seeds, figures, tables and glue."""

import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from netatlas import lab
from netatlas.lab import experiment, show, timings


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    for module in (show, timings):
        monkeypatch.setattr(module, "display", lambda data, raw=True, metadata=None: outputs.append((data, metadata)))
    lab.begin("merging", profile="ci", seed=2, device="cpu")
    return outputs


def line(label="x"):
    fig, ax = plt.subplots()
    ax.plot([1, 2], [3, 4])
    ax.set(xlabel=label, ylabel="y")
    return fig


def test_sizes_and_seeds_come_from_the_profile():
    lab.begin("merging", profile="ci", seed=2, device="cpu")
    assert lab.pick(ci=1, gpu=2) == 1 and lab.profile() == "ci" and lab.device() == torch.device("cpu")
    assert lab.seeds(3) == lab.seeds(5)[:3] and len(set(lab.seeds(5))) == 5
    lab.begin("merging", profile="gpu", seed=0, device="cpu")
    assert lab.pick(ci=1, gpu=2) == 2


def test_begin_refuses_what_is_not_there(monkeypatch):
    with pytest.raises(ValueError, match="profile"):
        lab.begin("merging", profile="large", seed=0, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="no CUDA device"):
            lab.begin("merging", profile="gpu", seed=0, device="cuda")
    monkeypatch.setattr(experiment, "_current", None)
    with pytest.raises(RuntimeError, match=r"lab[.]begin"):
        lab.seeds(1)


def test_a_figure_is_inline_svg_that_takes_the_pages_ink(shown):
    for _ in range(2):
        lab.figure(line(), caption="The line goes up by one unit.", alt="A line from (1, 3) to (2, 4), rising.")
    first, second = (data["text/html"] for data, _ in shown)
    assert first == second, "the same figure twice gives the same bytes"
    assert 'role="img"' in first and 'aria-label="A line from (1, 3)' in first
    assert "currentColor" in first and "#222222" not in first and "<figcaption>" in first
    for reference in re.findall(r'href="#([^"]+)"', first):
        assert f'id="{reference}"' in first


@pytest.mark.parametrize(
    "show_it",
    [
        lambda: lab.figure(line(), caption="short", alt="A line from (1, 3) to (2, 4), rising."),
        lambda: lab.figure(line(), caption="The line goes up by one unit.", alt=""),
        lambda: lab.figure(line(""), caption="The line goes up by one unit.", alt="A line from (1, 3) to (2, 4)."),
        lambda: lab.table(pd.DataFrame(), caption="A table that has no rows at all."),
    ],
)
def test_figures_and_tables_without_words_are_refused(shown, show_it):
    with pytest.raises(ValueError, match="expected"):
        show_it()


def test_tables_align_numbers_and_escape_text(shown):
    frame = pd.DataFrame({"arm": ["<b>", "OT"], "gain": [0.12345, float("nan")], "s": [lab.volatile(2.0)] * 2})
    lab.table(frame, caption="Two arms and what they gain here.", fmt="{:.2f}", index=False)
    markup = shown[0][0]["text/html"]
    assert "&lt;b&gt;" in markup and '<td class="number">0.12</td>' in markup and "–" in markup
    assert '<span class="volatile">2.00</span>' in markup


def test_glue_and_timing(shown):
    lab.glue("gain", 0.1234, ".1%")
    data, metadata = shown[0]
    assert data == {"application/papermill.record/text/plain": "'12.3%'"}
    assert metadata["scrapbook"]["name"] == "gain"
    with lab.timing("a block") as timer:
        pass
    assert timer.seconds > 0 and "volatile" in shown[1][0]["text/html"]


def test_the_papers_table_lists_the_chapters_papers(shown):
    lab.papers_table()
    markup = shown[0][0]["text/html"]
    for key in ("singh2020otfusion", "matena2021fisher", "pan2023snnet"):
        assert f'href="#paper-{key}"' in markup


def test_what_setters_return_is_hidden_with_the_artists_among_it():
    from netatlas.lab.experiment import _holds_artists

    axes = plt.figure().add_subplot()
    assert _holds_artists(axes.set(title="t", xlabel="x", xlim=(0, 1), xscale="linear"))
    assert _holds_artists(axes.plot([1, 2]))
    assert not any(_holds_artists(value) for value in ([], [None], [(0.0, 1.0)], 3, "text", [1, 2]))
    plt.close()
