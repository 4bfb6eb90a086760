"""A Sphinx extension: under each documented kernel, the papers and chapters that use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def drop_scripts(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Leave out what Jupyter Book adds to every page: a live-code service's scripts, and MathJax a second time.

    The book works offline, and Sphinx has added MathJax already, deferred, where a page has formulas.
    """
    kept = []
    for script in context.get("script_files", []):
        words = str(script).lower()
        if "thebe" not in words and ("mathjax/" not in words or "defer" in words):
            kept.append(script)
    context["script_files"] = kept


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    places: dict[str, list[list[str]]] = {}
    path = Path(app.srcdir) / "kernels" / "usage.json"
    if path.exists():
        places = json.loads(path.read_text(encoding="utf-8"))

    def add_usage(_: Any, what: str, name: str, *rest: Any) -> None:
        lines: list[str] = rest[-1]
        short = name.rsplit(".", 1)[-1]
        if what not in ("function", "class", "exception") or short not in places:
            return
        links = [
            f"`{chapter}{': ' + key if key else ''} <../chapters/{chapter}.html{'#paper-' + key if key else ''}>`__"
            for chapter, key in places[short]
        ]
        lines += ["", "**Used by** " + ", ".join(links), ""]

    app.connect("autodoc-process-docstring", add_usage, priority=900)
    app.connect("html-page-context", drop_scripts, priority=999)
    return {"version": "1", "parallel_read_safe": True}
