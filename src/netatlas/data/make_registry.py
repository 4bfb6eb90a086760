"""Make ``registry.json`` from a manifest of data files.

A manifest is a JSON list of objects with ``dataset``, ``file``, ``bytes``, ``sha256``, ``url`` (null where no single
public file exists) and, for ``.gz`` files whose compressed bytes may differ between mirrors, ``sha256_decompressed``.
Usage::

    python -m netatlas.data.make_registry MANIFEST.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePosixPath

KEPT = ("file", "bytes", "sha256", "sha256_decompressed", "url")
TARGET = Path(__file__).with_name("registry.json")


def registry_from_manifest(entries: list[dict]) -> dict[str, list[dict]]:
    """Group a manifest by dataset, keep what a loader needs, and refuse unsafe or repeated paths.

    Raises:
        ValueError: an absolute path, one that leaves the data folder, a repeated one, or a malformed checksum.
    """
    seen: set[str] = set()
    registry: dict[str, list[dict]] = {}
    for entry in sorted(entries, key=lambda item: (item["dataset"], item["file"])):
        path = PurePosixPath(entry["file"])
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"expected a path inside the data folder, got {entry['file']!r}")
        if entry["file"] in seen:
            raise ValueError(f"expected every file once, got {entry['file']!r} again")
        for key in ("sha256", "sha256_decompressed"):
            if key in entry and (len(entry[key]) != 64 or set(entry[key]) - set("0123456789abcdef")):
                raise ValueError(f"{entry['file']}: expected 64 hexadecimal digits as {key}, got {entry[key]!r}")
        seen.add(entry["file"])
        registry.setdefault(entry["dataset"], []).append({key: entry[key] for key in KEPT if key in entry})
    return registry


def main(arguments: list[str]) -> None:
    """Write the registry made from the manifest named on the command line."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m netatlas.data.make_registry MANIFEST.json")
    registry = registry_from_manifest(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    TARGET.write_text(json.dumps(registry, indent=1) + "\n", encoding="utf-8")
    print(f"{TARGET.name}: {len(registry)} datasets, {sum(map(len, registry.values()))} files")


if __name__ == "__main__":
    main(sys.argv[1:])
