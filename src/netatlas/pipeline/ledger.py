"""Collect the ledger: one entry a claim, from validated notebooks and from runs recorded on a GPU.

``build/ledger.json`` is an object whose first member is ``version`` (1), followed by ``claims``, a list of objects:

``key, chapter, statement, verdict``
    The paper, its chapter, the claim in a sentence, and *reproduced*, *partly* or *not reproduced here*.
``conditions``
    ``[{name, holds, figures}]``, the main condition first.
``measured``
    ``[{name, role, values, mean, half_width, n, volatile, each}]``; ``role`` is ``measured`` or ``control``,
    ``half_width`` that of the 95 % interval, ``volatile`` true for times, ``each`` true for values of different things,
    which have no interval.
``scaled, data, reason``
    What is scaled down, the kind of data, and why a condition fails.
``n``
    Largest number of repetitions among the measured arms.
``profile, device, seed, seconds, commit, date``
    How and where it ran; ``seconds`` is the time of the cells since the previous claim.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import nbformat

from netatlas import registry
from netatlas.lab.claims import MIME
from netatlas.pipeline.progress import write_json
from netatlas.pipeline.validate import file_digest

VERSION = 1
FIELDS = (
    *("key", "chapter", "statement", "verdict", "conditions", "measured", "scaled", "data", "reason"),
    *("n", "profile", "device", "seed", "seconds", "commit", "date"),
)
Entry = dict[str, Any]


class LedgerError(Exception):
    """A ledger that must not be published, with the reason."""


def _seconds(cell: Any) -> float:
    timing = cell.metadata.get("papermill", {})
    if not (timing.get("start_time") and timing.get("end_time")):
        return 0.0
    start, end = (datetime.datetime.fromisoformat(timing[name]) for name in ("start_time", "end_time"))
    return (end - start).total_seconds()


def entries_of(path: Path) -> list[Entry]:
    """The claims of an executed notebook, as entries of the ledger.

    Raises:
        LedgerError: If a paper of the chapter has no claim, a key is claimed twice, or a key is unknown.
    """
    notebook = nbformat.read(path, as_version=4)
    made, found, seconds = notebook.metadata["netatlas"], [], 0.0
    for cell in notebook.cells:
        seconds += _seconds(cell)
        for output in cell.get("outputs", []):
            payload = output.get("data", {}).get(MIME)
            if payload is None:
                continue
            changing = output.get("metadata", {}).get("netatlas", {})
            entry = {name: payload.get(name, made.get(name)) for name in FIELDS} | {"seconds": round(seconds, 1)}
            entry["measured"] = payload["measured"] + changing.get("volatile", [])
            entry["n"] = max(row["n"] for row in entry["measured"])
            shown = changing.get("figures", {})
            entry["conditions"] = [c | {"figures": shown.get(c["name"], c["figures"])} for c in payload["conditions"]]
            found.append(entry)
            seconds = 0.0
    keys = [entry["key"] for entry in found]
    expected = [paper.key for paper in registry.chapter_papers(made["chapter"])]
    for text, wrong in (
        ("claims a paper that papers.yml lacks for it", sorted(set(keys) - set(expected))),
        ("has no claim for", [key for key in expected if key not in keys]),
        ("claims twice", sorted({key for key in keys if keys.count(key) > 1})),
    ):
        if wrong:
            raise LedgerError(f"{made['chapter']} {text}: {', '.join(wrong)}")
    return found


def validated_notebook(folder: Path, chapter: str) -> Path:
    """The executed notebook of a chapter whose validation stamp fits it.

    Raises:
        LedgerError: If the stamp is missing or belongs to another execution.
    """
    executed, stamp = folder / "executed" / f"{chapter}.ipynb", folder / "validated" / f"{chapter}.json"
    if not stamp.exists() or not executed.exists():
        raise LedgerError(f"{chapter} has not been validated, so it cannot be published")
    if json.loads(stamp.read_text(encoding="utf-8"))["sha256"] != file_digest(executed):
        raise LedgerError(f"{chapter} changed after its validation, so it cannot be published")
    return executed


def recorded_entries(folder: Path) -> list[Entry]:
    """Claims recorded on other machines, one JSON file a chapter below ``folder`` (``bench.json`` is another thing)."""
    found: list[Entry] = []
    for path in sorted(folder.glob("*.json")):
        if path.name != "bench.json":
            found += json.loads(path.read_text(encoding="utf-8"))["claims"]
    return found


def collect(folder: Path, chapters: list[str], recorded: Path = Path("results")) -> dict[str, Any]:
    """The whole ledger: this run's claims, then the recorded ones.

    Args:
        folder: The run's folder, ``build/PROFILE``.
        chapters: Chapters to collect.
        recorded: Folder of recorded ledgers.

    Raises:
        LedgerError: As :func:`entries_of` and :func:`validated_notebook`.
    """
    claims = [entry for chapter in chapters for entry in entries_of(validated_notebook(folder, chapter))]
    return {"version": VERSION, "claims": claims + recorded_entries(recorded)}


if __name__ == "__main__":
    from netatlas.pipeline.sources import chapters

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    try:
        write_json(arguments.output, collect(arguments.folder, chapters()))
    except LedgerError as error:
        raise SystemExit(f"ledger: {error}") from None
