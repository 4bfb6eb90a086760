"""Drive Snakemake: one build at a time, progress a chapter, a clear last word, nothing left running."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from netatlas.pipeline.progress import Progress, explain_os_error, read_reports
from netatlas.pipeline.sources import chapters
from netatlas.pipeline.validate import file_digest

# Ends a whole process group as soon as the build that holds the other end of its standard input is gone, however it
# went; until then it keeps the lock, so that a new build cannot meet jobs of the old one.
WATCHDOG = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


@contextlib.contextmanager
def build_lock(path: Path, console: Console) -> Iterator[IO[str]]:
    """Hold the lock of a book's build folder; wait, saying for whom, while another build has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            console.print(f"another build is running here (process {lock.read().strip() or 'unknown'}); waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def sweep(folder: Path, names: list[str]) -> None:
    """Remove what an interrupted or failed build left, and every result that rests on a missing one.

    Snakemake does not make a missing intermediate file again while the final one is there; so the final ones go too.

    Args:
        folder: The run's folder, ``build/PROFILE``.
        names: Chapters of the book.
    """
    for leftover in folder.glob("tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for name in names:
        executed, stamp = folder / "executed" / f"{name}.ipynb", folder / "validated" / f"{name}.json"
        if stamp.exists() and (
            not executed.exists() or json.loads(stamp.read_text())["sha256"] != file_digest(executed)
        ):
            stamp.unlink()
        if not stamp.exists():
            for result in ("site.json", "ledger.json"):
                (folder.parent / result).unlink(missing_ok=True)


def snakemake_command(targets: list[str], settings: dict[str, str], jobs: int, extra: list[str]) -> list[str]:
    """The command line of one Snakemake run.

    Args:
        targets: Files to make.
        settings: Entries of Snakemake's ``config``.
        jobs: Cores to use.
        extra: Further options, such as a workflow profile.
    """
    gpus = 1 if settings["device"].startswith("cuda") else 0
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", "Snakefile", "--cores", str(jobs)),
        *("--keep-going", "--rerun-incomplete", "--nolock", "--resources", f"gpu={gpus}"),
        *("--rerun-triggers", "mtime", "input", "params", "--scheduler", "greedy"),
        *(() if "--dry-run" in extra else ("--quiet", "rules")),
        *("--config", *(f"{name}={value}" for name, value in settings.items())),
        *extra,
        "--",
        *targets,
    ]


WORDS = {"executed": "waiting for validation", "validated": "validated", "failed": "FAILED", "waiting": "waiting"}


class Screen:
    """Progress on a terminal as one live line a chapter, else as plain lines when a state changes."""

    def __init__(self, console: Console, names: list[str], folder: Path) -> None:
        self.console, self.names, self.folder = console, names, folder
        self.started = time.time()
        self.seen: dict[str, str] = {}
        self.live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None

    def __enter__(self) -> Screen:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        if self.live:
            self.live.stop()

    def _text(self, progress: Progress) -> str:
        if progress.state in ("running", "validating"):
            return f"{progress.state} cell {progress.cell} of {progress.cells}"
        return WORDS[progress.state] + (f": {progress.error}" if progress.error else "")

    def update(self) -> None:
        """Show the present reports."""
        reports = {
            name: r
            for name, r in read_reports(self.folder).items()
            if name in self.names and (self.folder / "progress" / f"{name}.json").stat().st_mtime >= self.started - 1
        }
        if self.live:
            grid = Table.grid(padding=(0, 2))
            for name in self.names:
                known = reports.get(name)
                grid.add_row(
                    name, self._text(known or Progress(name, "waiting")), f"{known.seconds:.0f} s" if known else ""
                )
            self.live.update(grid)
            return
        for name, known in reports.items():
            if self.seen.get(name) != known.state:
                self.seen[name] = known.state
                words = f"running ({known.cells} cells)" if known.state == "running" else self._text(known)
                self.console.print(f"{name}: {words}, {known.seconds:.0f} s", highlight=False, soft_wrap=True)


def _run(command: list[str], log: Path, lock: IO[str], screen: Screen) -> int:
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    watchdog = subprocess.Popen(
        [sys.executable, "-S", "-c", WATCHDOG, str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        pass_fds=[lock.fileno()],
    )
    try:
        with screen:
            while process.poll() is None:
                time.sleep(0.25)
                screen.update()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        screen.console.print("stopped; finished chapters are kept, the next build goes on from here")
        return 130
    finally:
        # Closing its standard input lets the watchdog sweep away whatever outlived Snakemake.
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        watchdog.wait()
    return process.returncode


def _last_word(log: Path, names: list[str], folder: Path, since: float, status: int) -> list[str]:
    failed = [
        r
        for name, r in read_reports(folder).items()
        if name in names and r.state == "failed" and (folder / "progress" / f"{name}.json").stat().st_mtime >= since
    ]
    if failed:
        kept = "; other chapters' results are kept, and what was published before stays"
        return [f"{r.chapter} failed in {r.error}" if r.cell else f"{r.chapter} failed: {r.error}" for r in failed] + [
            f"{len(failed)} chapter{'s' if len(failed) > 1 else ''} failed{kept}"
        ]
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    first = next((i for i, line in enumerate(text) if line.startswith(("ledger: ", "site: "))), None)
    if first is not None:
        end = next((i for i, line in enumerate(text) if i > first and line.startswith("RuleException")), len(text))
        return [*text[first:end], "what was published before stays"]
    if status < 0:
        name = signal.Signals(-status).name
        return [f"Snakemake was ended by {name}; finished chapters are kept, run the build again to go on"]
    return [*text[-15:], f"the build failed; the whole log is {log}"]


def build(
    *,
    profile: str = "ci",
    device: str = "cpu",
    seed: int = 0,
    jobs: int = 2,
    chapter: str | None = None,
    extra: list[str] | None = None,
) -> int:
    """Build the book in the current folder, or one chapter of it.

    Args:
        profile: ``"ci"`` or ``"gpu"``.
        device: ``"cpu"`` or ``"cuda"``.
        seed: Base seed of all chapters.
        jobs: Cores to use.
        chapter: Only execute and validate this chapter; the site is left alone.
        extra: Further options for Snakemake; ``["--dry-run"]`` shows what would run.

    Returns:
        The exit status.
    """
    console = Console(soft_wrap=True)
    names = chapters()
    if chapter is not None and chapter not in names:
        console.print(f"no chapter is called {chapter!r}; there are {', '.join(names)}")
        return 2
    folder = Path("build") / profile
    settings = {"profile": profile, "device": device, "seed": str(seed), "python": sys.executable}
    targets = [f"{folder}/validated/{chapter}.json"] if chapter else ["build/site.json"]
    try:
        with build_lock(Path("build/.lock"), console) as lock:
            sweep(folder, chapters())
            (folder / "logs").mkdir(parents=True, exist_ok=True)
            log, since = folder / "logs" / "snakemake.log", time.time() - 1
            names = [chapter] if chapter else names
            status = _run(
                snakemake_command(targets, settings, jobs, extra or []), log, lock, Screen(console, names, folder)
            )
            if extra and "--dry-run" in extra:
                console.print(log.read_text(encoding="utf-8"), highlight=False)
            elif status == 0:
                where = f"{chapter} is validated" if chapter else "the book is at build/html/index.html"
                console.print(where, highlight=False)
            elif status != 130:
                for line in _last_word(log, names, folder, since, status):
                    console.print(line, highlight=False, markup=False)
    except OSError as error:
        console.print(explain_os_error(error), highlight=False, markup=False)
        return 1
    return 0 if status == 0 else 130 if status == 130 else 1
