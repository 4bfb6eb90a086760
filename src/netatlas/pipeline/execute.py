"""Execute a chapter's notebook with papermill, reporting each cell."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from netatlas.pipeline.progress import Progress, explain_os_error, fail, report, run_folder

KERNEL = "netatlas"


class _ReportingEngine(NBClientEngine):
    """Papermill's engine, telling the build which cell runs."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        folder, chapter = Path(options.pop("progress_folder")), options.pop("chapter")
        started, start_cell = time.perf_counter(), nb_man.cell_start
        cells = sum(cell.cell_type == "code" for cell in nb_man.nb.cells)

        def cell_start(cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
            done = sum(c.cell_type == "code" for c in nb_man.nb.cells[: (cell_index or 0) + 1])
            if cell.cell_type == "code":
                report(folder, Progress(chapter, "running", done, cells, time.perf_counter() - started))
            start_cell(cell, cell_index, **kwargs)

        nb_man.cell_start = cell_start
        super().execute_managed_notebook(nb_man, kernel_name, **options)


def source_commit() -> str:
    """The commit that is checked out, with ``+changes`` if files differ from it; empty outside a repository."""
    git = ["git", "--no-optional-locks"]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode:
        return ""
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def device_name(device: str) -> str:
    """The device in words: the GPU's model, or the processor's architecture."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def _first_error(path: Path) -> tuple[int, int, str] | None:
    """The failed cell of a partly executed notebook: its number, the number of cells, the error."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate((c for c in code if "papermill-error-cell-tag" not in c.metadata.get("tags", [])), 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                line = next((text for text in cell.source.splitlines() if text.strip()), "")
                return number, len(code), f"cell {number} ({line.strip()[:60]}): {output.ename}: {output.evalue}"
    return None


def execute(source: Path, output: Path, *, profile: str, device: str, seed: int, sources: str) -> None:
    """Execute a notebook and store it with what it was made from; on failure leave nothing behind.

    Args:
        source: The notebook that jupytext wrote.
        output: Where the executed notebook goes, in one step at the end.
        profile: ``"ci"`` or ``"gpu"``.
        device: ``"cpu"`` or ``"cuda"``.
        seed: Base seed.
        sources: Digest of the files the chapter depends on, stored for later checks.
    """
    chapter, folder = source.stem, run_folder(output)
    papermill_engines.register("netatlas", _ReportingEngine)
    started = time.perf_counter()
    report(folder, Progress(chapter, "running"))
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} if profile == "ci" else {}
    os.environ.update(threads | {"PYTHONHASHSEED": "0"})
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="tmp-") as work:
            partial = Path(work) / source.name
            try:
                papermill.execute_notebook(
                    source,
                    partial,
                    parameters={"profile": profile, "seed": seed, "device": device},
                    engine_name="netatlas",
                    kernel_name=KERNEL,
                    progress_bar=False,
                    autosave_cell_every=0,
                    request_save_on_cell_execute=False,
                    chapter=chapter,
                    progress_folder=str(folder),
                )
            except PapermillExecutionError as error:
                found = _first_error(partial) if partial.exists() else None
                number, cells, text = found or (0, 0, f"{error.ename}: {error.evalue}")
                fail(folder, chapter, text, number, cells)
            seconds = time.perf_counter() - started
            notebook = nbformat.read(partial, as_version=4)
            notebook.metadata["netatlas"] = {
                "chapter": chapter,
                "profile": profile,
                "device": device_name(device),
                "seed": seed,
                "seconds": round(seconds, 1),
                "commit": source_commit(),
                "sources": sources,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            }
            nbformat.write(notebook, partial)
            os.replace(partial, output)
    except OSError as error:
        fail(folder, chapter, explain_os_error(error))
    except RuntimeError as error:
        fail(folder, chapter, f"the kernel died: {error}" if "ernel" in str(error) else f"RuntimeError: {error}")
    report(folder, Progress(chapter, "executed", seconds=time.perf_counter() - started))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    for name in ("profile", "device", "sources"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    execute(options.pop("source"), options.pop("output"), **options)
