"""Claims: a paper's statement, what was measured, and the verdict that follows."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, Literal

from IPython.display import display

from netatlas import registry
from netatlas.core.checks import require
from netatlas.core.stats import as_array, mean_interval
from netatlas.lab.conditions import Condition, Each, format_each, format_interval
from netatlas.lab.experiment import current
from netatlas.lab.timings import Volatile, mark

MIME = "application/vnd.netatlas.claim+json"
DataKind = Literal["real", "generated", "stand-in"]
Measured = Mapping[str, Any]
VERDICT_CLASS = {"reproduced": "yes", "partly": "partly", "not reproduced here": "no"}
DATA_WORDS = {"real": "real data", "generated": "generated data", "stand-in": "stand-in data"}


class Verdict(str):
    """A verdict: *reproduced*, *partly* or *not reproduced here*. A cell that ends in one shows nothing more."""

    __slots__ = ()

    def _ipython_display_(self) -> None:
        """The card has been shown already."""


def verdict_of(conditions: Mapping[str, Condition]) -> Verdict:
    """The verdict that conditions imply: all hold, the first (main) one only, or not even that.

    Args:
        conditions: Named conditions, the main one first.

    Raises:
        ValueError: For no condition.
    """
    require(len(conditions) > 0, "at least one condition", 0)
    values = [bool(c) for c in conditions.values()]
    return Verdict("reproduced" if all(values) else "partly" if values[0] else "not reproduced here")


def _rows(measured: Measured, role: str) -> list[dict[str, Any]]:
    rows = []
    for name, value in measured.items():
        changing, different = isinstance(value, Volatile), isinstance(value, Each)
        given = as_array(value.value if changing else value.values if different else value, name)
        # The last bits of a sum depend on where arrays lie in memory; six digits are equal in every execution.
        values = [float(f"{v:.6g}") for v in given]
        interval = mean_interval(values)
        rows.append(
            {
                "name": name,
                "role": role,
                "volatile": changing,
                "each": different,
                "values": values,
                "mean": interval.mean,
                "half_width": 0.0 if different else interval.half_width,
                "n": interval.n,
            }
        )
    return rows


def format_row(row: Mapping[str, Any]) -> str:
    """What was measured, for a reader: a mean with its interval, or each value where they are of different things."""
    if row.get("each"):
        return format_each(row["values"])
    return format_interval(row["mean"], row["half_width"], row["n"])


def _shown(row: dict[str, Any]) -> str:
    text = format_row(row)
    return mark(text) if row["volatile"] else text


def _figures(condition: Condition) -> str:
    text = html.escape(condition.figures)
    return mark(text) if condition.volatile else text


def _card(payload: dict[str, Any], rows: list[dict[str, Any]], conditions: Mapping[str, Condition]) -> str:
    paper = registry.find_paper(payload["key"])
    source = f'<a href="{paper.url}">{html.escape(paper.byline)}</a>' if paper.url else html.escape(paper.byline)
    lines = "".join(
        f'<tr class="{row["role"]}"><th scope="row">{html.escape(row["name"])}'
        f"{' <em>control</em>' if row['role'] == 'control' else ''}</th>"
        f'<td class="number">{_shown(row)}</td><td class="number">{row["n"]}</td></tr>'
        for row in rows
    )
    checks = "".join(
        f'<li class="{"holds" if c.holds else "fails"}"><span class="tick">{"✓" if c.holds else "✗"}'
        f'<span class="sr-only">{"holds: " if c.holds else "fails: "}</span></span> {html.escape(name)}'
        + (f' <span class="figures">({_figures(c)})</span>' if c.figures else "")
        + "</li>"
        for name, c in conditions.items()
    )
    reason = (
        f'<p class="reason"><strong>Why not:</strong> {html.escape(payload["reason"])}</p>' if payload["reason"] else ""
    )
    scaled = f'<p class="scaled"><strong>Scaled down:</strong> {html.escape(payload["scaled"])}</p>'
    return (
        f'<div class="na-claim {VERDICT_CLASS[payload["verdict"]]}" id="claim-{payload["key"]}">'
        f'<p class="verdict"><span class="badge">{payload["verdict"]}</span> {source}'
        f' <span class="kind">{DATA_WORDS[payload["data"]]}</span></p>'
        f'<p class="statement">{html.escape(payload["statement"])}</p>'
        f'<div class="na-scroll" tabindex="0"><table><thead><tr><th scope="col">Measured</th>'
        f'<th scope="col">mean ± 95 % interval</th><th scope="col">n</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
        f'<ul class="conditions">{checks}</ul>{reason}{scaled}</div>'
    )


def claim(
    key: str,
    statement: str,
    *,
    measured: Measured,
    holds: Condition | bool | Mapping[str, Condition | bool],
    scaled: str,
    control: Measured | None = None,
    data: DataKind = "generated",
    reason: str = "",
) -> Verdict:
    """State a paper's claim, decide it by what was measured, and record it for the ledger.

    Args:
        key: The paper's key in ``papers.yml``.
        statement: The claim in one sentence.
        measured: Values over seeds for each arm; a :class:`~netatlas.lab.timings.Volatile` value is not compared,
            those of :func:`~netatlas.lab.conditions.each` are of different things and have no interval.
        holds: The deciding condition, or named conditions with the main one first. All hold: *reproduced*. Only some,
            the first among them: *partly*. Else: *not reproduced here*.
        scaled: What is smaller or simpler than in the paper.
        control: The same measurement where the effect must be absent.
        data: ``"real"``, ``"generated"`` or ``"stand-in"``; ``data.kind(name)`` tells.
        reason: Why a condition fails, as far as the evidence goes; shown only then.

    Returns:
        The verdict.

    Raises:
        ValueError: For a key of another chapter, nothing measured,
            NaN values, or an unknown kind of data.
        KeyError: For a key that the registry lacks.
    """
    experiment, paper = current(), registry.find_paper(key)
    require(
        paper.chapter == experiment.chapter, f"a paper of chapter {experiment.chapter}", f"{key} of {paper.chapter}"
    )
    require(len(measured) > 0, "at least one measured arm", 0)
    require(data in DATA_WORDS, f"a kind of data out of {sorted(DATA_WORDS)}", repr(data))
    require(bool(scaled.strip()), "words on what is scaled down", repr(scaled))
    named = holds if isinstance(holds, Mapping) else {"the deciding inequality": holds}
    conditions = {n: c if isinstance(c, Condition) else Condition(bool(c)) for n, c in named.items()}
    verdict = verdict_of(conditions)
    rows = _rows(measured, "measured") + _rows(control or {}, "control")
    payload = {
        "key": key,
        "chapter": experiment.chapter,
        "statement": statement,
        "verdict": str(verdict),
        "conditions": [
            {"name": n, "holds": c.holds, "figures": "" if c.volatile else c.figures} for n, c in conditions.items()
        ],
        "measured": [row for row in rows if not row["volatile"]],
        "scaled": scaled,
        "data": data,
        "reason": "" if verdict == "reproduced" else reason,
        "profile": experiment.profile,
        "seed": experiment.seed,
    }
    display(
        {MIME: payload, "text/html": _card(payload, rows, conditions), "text/plain": f"{key}: {verdict}"},
        raw=True,
        metadata={
            "netatlas": {
                "claim": key,
                "volatile": [row for row in rows if row["volatile"]],
                "figures": {n: c.figures for n, c in conditions.items() if c.volatile},
            }
        },
    )
    return verdict
