"""A tiny book of two toy chapters in a temporary directory, built by the real pipeline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHAPTER = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: netatlas
#     language: python
#     name: netatlas
# ---

# %% [markdown]
# # Toy {name}

# %% tags=["parameters"]
profile = "ci"
seed = 0
device = "cpu"

# %%
import os, time
import numpy as np
import matplotlib.pyplot as plt
from netatlas import lab
lab.begin("{name}", profile=profile, seed=seed, device=device)
lab.papers_table()

# %%
measured = np.random.default_rng(seed).normal(1, 0.1, 5).cumsum()
open(os.environ["TOY_LOG"], "a").write("{name}\\n")

# %%
pass  # extra

# %%
fig, ax = plt.subplots()
ax.plot(measured)
ax.set(xlabel="run", ylabel="value")
lab.portrait(fig, caption=f"The value ends at {{measured[-1]:.2f}}.", alt="A line of five measured values that rises.")

# %% [markdown]
# (paper-{key})=
# ## The one paper

# %%
lab.claim("{key}", "The value grows", measured={{"value": measured}}, holds=lab.exceeds(measured[-1], 1), scaled="all")
"""

PAPERS = """
- {key: toy2020alpha, title: Alpha paper, authors: [Ann Alpha], year: 2020,
   arxiv: "", code: "", chapter: alpha, part: I Toys, claim: It grows.}
- {key: toy2021beta, title: Beta paper, authors: [Bob Beta], year: 2021,
   arxiv: "", code: "", chapter: beta, part: I Toys, claim: It grows.}
"""


class TinyBook:
    """A copy of the pipeline with two toy chapters, ``alpha`` and ``beta``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "merging", "embeddings")
        shutil.copytree(ROOT / "src", root / "src", ignore=ignore)
        shutil.copytree(ROOT / "book", root / "book")
        for name in ("Snakefile", "_config.yml", "_toc.yml"):
            shutil.copy(ROOT / name, root)
        (root / "src/netatlas/papers.yml").write_text(PAPERS)
        (root / "requirements.lock").write_text("torch==2.13.0\n")
        self.log = root / "ran.txt"
        self.log.touch()
        for name, key in (("alpha", "toy2020alpha"), ("beta", "toy2021beta")):
            package = root / "src/netatlas" / name
            package.mkdir()
            (package / "__init__.py").write_text('"""A toy family."""\n')
            (root / "chapters").mkdir(exist_ok=True)
            (root / "chapters" / f"{name}.py").write_text(CHAPTER.format(name=name, key=key))
        self.env = os.environ | {
            "PYTHONPATH": str(root / "src"),
            "TOY_LOG": str(self.log),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.env.pop("PYTEST_CURRENT_TEST", None)

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "netatlas.cli", "build", *options]

    def start(self, *options: str, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*options),
            cwd=self.root,
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def build(self, *options: str, **env: str) -> tuple[int, str]:
        process = self.start(*options, **env)
        out, _ = process.communicate(timeout=300)
        return process.returncode, out

    def ran(self) -> list[str]:
        """Chapters executed since the last call, each counted for papermill and for nbval."""
        found = sorted(self.log.read_text().split())
        self.log.write_text("")
        return found

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    @property
    def page(self) -> Path:
        return self.root / "build/html/index.html"

    def ledger(self) -> dict:
        return json.loads((self.root / "build/ledger.json").read_text())

    def wait_for(self, condition, seconds: float = 60) -> None:
        end = time.time() + seconds
        while not condition():
            assert time.time() < end, "waited too long"
            time.sleep(0.05)

    def processes(self, words: str) -> list[int]:
        """Processes of this book whose command line or environment holds the words."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                here = str(self.root).encode() in (entry / "environ").read_bytes()
            except OSError:
                continue
            if here and words in line and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        return found


@pytest.fixture(scope="session")
def built_once(tmp_path_factory) -> TinyBook:
    """A tiny book that has been built; tests take copies."""
    book = TinyBook(tmp_path_factory.mktemp("tiny") / "book")
    status, out = book.build()
    assert status == 0, out
    return book


@pytest.fixture
def tiny(tmp_path) -> TinyBook:
    """A tiny book that has not been built."""
    return TinyBook(tmp_path / "book")


@pytest.fixture
def built(built_once, tmp_path) -> TinyBook:
    """A tiny book in the state after a successful build."""
    book = object.__new__(TinyBook)
    book.root = tmp_path / "book"
    shutil.copytree(built_once.root, book.root, symlinks=True)
    book.log = book.root / "ran.txt"
    book.log.write_text("")
    book.env = built_once.env | {"PYTHONPATH": str(book.root / "src"), "TOY_LOG": str(book.log)}
    return book


@pytest.fixture
def kill():
    """Kill processes for good, and whatever a test left behind."""

    def end(*numbers: int) -> None:
        for number in numbers:
            os.kill(number, signal.SIGKILL)

    return end
