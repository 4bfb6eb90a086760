"""Execute a chapter a second time with nbval and compare every output with the stored one."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from netatlas.lab.timings import SANITIZE
from netatlas.pipeline.execute import KERNEL
from netatlas.pipeline.progress import Progress, explain_os_error, fail, report, run_folder, write_json

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _command(notebook: Path, rules: Path, settings: Path) -> list[str]:
    options = ["--nbval", "--nbval-sanitize-with", str(rules), "--nbval-kernel-name", KERNEL]
    options += ["--nbval-cell-timeout", "900", "-vv", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(settings),
        "--rootdir",
        str(notebook.parent),
        *options,
        str(notebook),
    ]


def _reason(lines: list[str]) -> str:
    """What differs, from nbval's report."""
    text = "\n".join(lines)
    for pattern in (
        r"((?:mismatch|Missing output|Unexpected output|disagrees?)[^\n]*)",
        r"Cell execution caused an exception[\s\S]*?\n(\w*Error: [^\n]*)",
        r"(Timeout[^\n]*|[Kk]ernel died[^\n]*)",
    ):
        found = re.search(pattern, text)
        if found:
            return found.group(1).strip()[:300]
    return "the second execution failed; nbval's report is in the log"


def validate(executed: Path, output: Path) -> None:
    """Run nbval on an executed notebook; write a stamp with the notebook's digest only if every output agrees.

    Args:
        executed: The executed notebook.
        output: The stamp.
    """
    chapter, folder = executed.stem, run_folder(output)
    started = time.perf_counter()
    notebook = nbformat.read(executed, as_version=4)
    made = notebook.metadata["netatlas"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    threads = (
        {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} if made["profile"] == "ci" else {}
    )
    report(folder, Progress(chapter, "validating", 0, len(code)))
    lines: list[str] = []
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="tmp-") as work:
            rules, settings = Path(work) / "sanitize.cfg", Path(work) / "pytest.ini"
            rules.write_text(SANITIZE, encoding="utf-8")
            settings.write_text("[pytest]\n", encoding="utf-8")
            process = subprocess.Popen(
                _command(executed, rules, settings),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | threads | {"PYTHONHASHSEED": "0", "COLUMNS": "300"},
            )
            assert process.stdout is not None
            done, failed = 0, 0
            for line in process.stdout:
                lines.append(ESCAPES.sub("", line.rstrip()))
                outcome = re.search(r"::Cell (\d+)\s+(PASSED|FAILED|SKIPPED|XFAIL)", lines[-1])
                if outcome:
                    done += 1
                    failed = failed or (done if outcome.group(2) == "FAILED" else 0)
                    report(folder, Progress(chapter, "validating", done, len(code), time.perf_counter() - started))
        log = folder / "logs" / f"{chapter}.nbval.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if process.wait() != 0:
            source = code[failed - 1].source.strip().splitlines() if failed else []
            where = f"cell {failed} ({source[0][:60] if source else ''})" if failed else "the notebook"
            words = f"{where} gave another output when executed again: {_reason(lines)}; see {log}"
            fail(folder, chapter, words, failed, len(code))
        stamp = {"chapter": chapter, "sha256": file_digest(executed), "cells": len(code), "sources": made["sources"]}
        write_json(output, stamp)
    except OSError as error:
        fail(folder, chapter, explain_os_error(error))
    seconds = made["seconds"] + time.perf_counter() - started
    report(folder, Progress(chapter, "validated", len(code), len(code), seconds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("executed", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    validate(arguments.executed, arguments.output)
