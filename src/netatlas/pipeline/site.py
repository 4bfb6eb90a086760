"""Render the book from validated notebooks and swap it in, in one step, at the end."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from netatlas.pipeline import pages
from netatlas.pipeline.ledger import LedgerError, validated_notebook
from netatlas.pipeline.progress import explain_os_error, write_json
from netatlas.pipeline.sources import chapters as all_chapters


def stage(run: Path, source: Path, ledger: Path, chapters: list[str]) -> None:
    """Gather everything that Jupyter Book reads.

    Args:
        run: The run's folder, ``build/PROFILE``.
        source: Empty folder to fill.
        ledger: The collected ledger.
        chapters: Chapters to publish.

    Raises:
        LedgerError: If a chapter has not been validated.
    """
    shutil.copytree("book", source, dirs_exist_ok=True)
    shutil.copy("_config.yml", source)
    (source / "chapters").mkdir()
    downloads = source / "_static" / "notebooks"
    downloads.mkdir(parents=True)
    notebooks = {}
    for chapter in chapters:
        executed = validated_notebook(run, chapter)
        notebooks[chapter] = pages.prepare_chapter(executed, chapter)
        nbformat.write(notebooks[chapter], source / "chapters" / f"{chapter}.ipynb")
        shutil.copy(executed, downloads)
        shutil.copy(f"chapters/{chapter}.py", downloads)
    claims = json.loads(ledger.read_text(encoding="utf-8"))["claims"]
    titles = {name: pages.chapter_title(notebook) for name, notebook in notebooks.items()}
    kernel_pages = pages.kernel_pages(Path(), chapters, titles, source / "kernels")
    (source / "_toc.yml").write_text(
        pages.table_of_contents(Path("_toc.yml"), chapters, kernel_pages), encoding="utf-8"
    )
    (source / "_static" / "references.bib").write_text(pages.bibliography(), encoding="utf-8")
    shutil.copy(ledger, source / "_static" / "ledger.json")
    filled = {
        "cards": pages.landing_cards(notebooks, claims),
        "ledger": pages.ledger_table(claims),
        "ledger_summary": pages.ledger_summary(claims),
        "speed": pages.speed_table(Path("results/bench.json")),
        "references": pages.references_page(chapters),
    }
    for page in source.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name, content in filled.items():
            text = text.replace(f"<!-- {name} -->", content)
        page.write_text(text, encoding="utf-8")


def render(source: Path, work: Path) -> Path:
    """Run Jupyter Book with warnings as errors.

    Args:
        source: The staged book.
        work: Folder for its output.

    Returns:
        The folder of the rendered pages.

    Raises:
        LedgerError: With the warnings, if there is one.
    """
    start = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*start, "build", str(source), "--path-output", str(work)]
    done = subprocess.run([*command, "-W", "-n", "--keep-going"], capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if "No space left on device" in output:
        raise OSError(errno.ENOSPC, "No space left on device", str(work))
    if done.returncode:
        told = [line for line in output.splitlines() if "WARNING" in line or "ERROR" in line]
        raise LedgerError(
            "Jupyter Book does not accept the pages:\n" + "\n".join(told[:20] or output.splitlines()[-20:])
        )
    return work / "_build" / "html"


def swap_in(rendered: Path, published: Path) -> None:
    """Make ``published`` a link to the rendered pages in one step; earlier pages are removed afterwards.

    Args:
        rendered: The new pages, on the same file system.
        published: The link that readers open.
    """
    sites = published.parent / "sites"
    sites.mkdir(exist_ok=True)
    target = Path(tempfile.mkdtemp(dir=sites, prefix="site-"))
    os.replace(rendered, target)
    os.chmod(target, 0o755)
    link = published.with_name(f".{published.name}.{os.getpid()}")
    os.symlink(Path("sites") / target.name, link)
    os.replace(link, published)
    for old in sites.iterdir():
        if old.name != target.name:
            shutil.rmtree(old, ignore_errors=True)


def publish(run: Path, stamp: Path) -> None:
    """Stage, render and swap in the book, then write the stamp.

    Args:
        run: The run's folder, ``build/PROFILE``.
        stamp: Written last.
    """
    chapters = all_chapters()
    build = stamp.parent
    with tempfile.TemporaryDirectory(dir=run, prefix="tmp-") as work:
        source = Path(work) / "source"
        stage(run, source, build / "ledger.json", chapters)
        swap_in(render(source, Path(work) / "out"), build / "html")
    write_json(stamp, {"chapters": chapters, "page": str(build / "html" / "index.html")})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("stamp", type=Path)
    arguments = parser.parse_args()
    try:
        publish(arguments.run, arguments.stamp)
    except LedgerError as error:
        raise SystemExit(f"site: {error}") from None
    except OSError as error:
        raise SystemExit(f"site: {explain_os_error(error)}") from None
