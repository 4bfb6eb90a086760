"""Which files a chapter depends on, and digests of their contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from netatlas import registry

SHARED = ("core", "lab", "data")
SUFFIXES = {".py", ".yml", ".json", ".md", ".css", ".js", ".mplstyle", ".svg", ".bib", ".txt"}


def chapters() -> list[str]:
    """Names of the chapters in ``chapters/``, sorted."""
    return sorted(path.stem for path in Path("chapters").glob("*.py"))


def tree(folder: str) -> list[str]:
    """Every source file below a folder, sorted; caches and hidden files are left out."""
    return sorted(
        str(path)
        for path in Path(folder).rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part == "__pycache__" or part.startswith(".") or part.endswith(".egg-info") for part in path.parts)
    )


def sources_of(chapter: str) -> list[str]:
    """Files that make a chapter stale: its family, ``core``, ``lab``, ``data``, its stored weights, the lock file."""
    files = [f for name in (chapter, *SHARED) for f in tree(f"src/netatlas/{name}")]
    files += weights_of(chapter)
    lock = Path("requirements.lock")
    return files + ([str(lock)] if lock.exists() else [])


def weights_of(chapter: str) -> list[str]:
    """Stored weights with their records, of all families, where the chapter loads any."""
    source = Path(f"chapters/{chapter}.py")
    if not source.exists() or "weights.load(" not in source.read_text(encoding="utf-8"):
        return []
    return sorted(
        str(path) for kind in ("*.json", "*.safetensors", "recipes.yml") for path in Path("weights").glob(kind)
    )


def digest(files: Iterable[str]) -> str:
    """SHA-256 over names and contents of files, first 16 hexadecimal digits."""
    total = hashlib.sha256()
    for name in files:
        total.update(name.encode() + b"\0" + hashlib.sha256(Path(name).read_bytes()).digest())
    return total.hexdigest()[:16]


def registry_digest(chapter: str | None) -> str:
    """Digest of a chapter's entries in the registry, or of the whole registry."""
    found = registry.papers().values() if chapter is None else registry.chapter_papers(chapter)
    return hashlib.sha256(json.dumps([asdict(p) for p in found]).encode()).hexdigest()[:16]
