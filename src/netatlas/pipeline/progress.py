"""What each chapter is doing, in small files that the build reads while the steps run."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn


@dataclass(frozen=True)
class Progress:
    """A chapter's state: ``running``, ``validating``, ``executed``, ``validated`` or ``failed``."""

    chapter: str
    state: str
    cell: int = 0
    cells: int = 0
    seconds: float = 0.0
    error: str = ""


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, ending in a newline."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def run_folder(step_output: Path) -> Path:
    """The run's folder, ``build/PROFILE``, of a step's output ``build/PROFILE/STEP/CHAPTER.*``."""
    return step_output.parent.parent


def report(folder: Path, progress: Progress) -> None:
    """Tell the build what a chapter is doing. A disk too full for that does not stop the step."""
    try:
        write_json(folder / "progress" / f"{progress.chapter}.json", asdict(progress) | {"time": time.time()})
    except OSError:
        return


def read_reports(folder: Path) -> dict[str, Progress]:
    """The last report of every chapter; a report that cannot be read is left out."""
    found = {}
    for path in sorted((folder / "progress").glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values.pop("time", None)
            found[path.stem] = Progress(**values)
        except (OSError, ValueError, TypeError):
            continue
    return found


def fail(folder: Path, chapter: str, error: str, cell: int = 0, cells: int = 0) -> NoReturn:
    """Report a chapter's failure and end the step with exit status 1."""
    report(folder, Progress(chapter, "failed", cell, cells, error=error))
    print(f"{chapter}: {error}", file=sys.stderr)
    raise SystemExit(1)


def explain_os_error(error: OSError) -> str:
    """An operating system's error in words that say what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" (writing {error.filename})" if error.filename else ""
        return f"the disk is full{place}: free some space and run the build again; finished chapters are kept"
    return f"{type(error).__name__}: {error}"
