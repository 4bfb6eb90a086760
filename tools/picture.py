"""Write the README's picture, the family portrait of a chapter, from the last build: ``tools/picture.py merging``."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

from netatlas.pipeline.pages import portrait_of

if __name__ == "__main__":
    chapter = sys.argv[1]
    notebook = nbformat.read(Path("build/ci/executed") / f"{chapter}.ipynb", as_version=4)
    drawn = portrait_of(notebook).replace("currentColor", "#222222")
    # On a page of unknown colour the picture brings its own ground.
    start = drawn.index(">") + 1
    picture = drawn[:start] + '<rect width="100%" height="100%" fill="#ffffff"/>' + drawn[start:]
    Path("book/_static/picture.svg").write_text(picture + "\n", encoding="utf-8")
