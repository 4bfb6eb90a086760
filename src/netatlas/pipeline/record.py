"""Record a ledger under ``results/``: what was measured on a machine that not every reader has."""

from __future__ import annotations

import json
from pathlib import Path

from netatlas.pipeline.progress import write_json


def record(ledger: Path, folder: Path) -> list[Path]:
    """Split the last build's ledger into one file a chapter.

    Claims of the ``ci`` profile are left out: every build measures them again.

    Args:
        ledger: ``build/ledger.json``.
        folder: Where the files go.

    Returns:
        The files written.
    """
    collected = json.loads(ledger.read_text(encoding="utf-8"))
    by_chapter: dict[str, list[dict]] = {}
    for entry in collected["claims"]:
        if entry["profile"] != "ci":
            by_chapter.setdefault(entry["chapter"], []).append(entry)
    written = []
    for chapter, claims in by_chapter.items():
        path = folder / f"{chapter}.json"
        write_json(path, {"version": collected["version"], "claims": claims})
        written.append(path)
    return written
