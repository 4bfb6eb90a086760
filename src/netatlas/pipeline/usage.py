"""Which papers and chapters use a kernel: read from the chapters' code, through the family's own functions."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

Section = tuple[str, str]
ANCHOR = re.compile(r"^# \(paper-(\w+)\)=", re.M)


def _names(tree: ast.AST) -> set[str]:
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return found | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def sections(chapter: Path) -> dict[str, set[str]]:
    """Identifiers that each section of a chapter uses, by the paper's key; ``""`` for what precedes or follows them."""
    found: dict[str, set[str]] = defaultdict(set)
    key = ""
    for cell in re.split(r"^# %%", chapter.read_text(encoding="utf-8"), flags=re.M)[1:]:
        head, _, body = cell.partition("\n")
        if "markdown" in head:
            anchor = ANCHOR.search(body)
            if anchor:
                key = anchor.group(1)
            elif re.search(r"^# # |^# ## ", body, re.M):
                key = ""
        else:
            found[key] |= _names(ast.parse(body))
    return dict(found)


def definitions(package: Path) -> dict[str, set[str]]:
    """Identifiers that each top-level function or class below a package uses."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = _names(node)
    return found


def usage(root: Path) -> dict[str, list[Section]]:
    """For each public name of the package, the ``(chapter, paper key)`` pairs whose code reaches it.

    Args:
        root: The repository's root.
    """
    source = root / "src" / "netatlas"
    shared = {k: v for name in ("core", "data", "lab") for k, v in definitions(source / name).items()}
    found: dict[str, set[Section]] = defaultdict(set)
    for chapter in sorted((root / "chapters").glob("*.py")):
        known = shared | definitions(source / chapter.stem)
        for key, names in sections(chapter).items():
            reached, frontier = set(), names & known.keys()
            while frontier:
                reached |= frontier
                frontier = {n for name in frontier for n in known[name]} & known.keys() - reached
            for name in reached:
                found[name].add((chapter.stem, key))
    return {name: sorted(places) for name, places in found.items()}
