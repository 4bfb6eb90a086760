"""Where a data file is found, how it is checked, and how it is downloaded.

Order of look-up: the folder ``$NETATLAS_DATA``, the user's cache (``$NETATLAS_CACHE`` or the system's cache folder),
the address in the registry. A file is used only after its checksum matched. ``NETATLAS_OFFLINE=1`` forbids downloads.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import os
import tempfile
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

__all__ = [
    "ChecksumError",
    "DatasetUnavailable",
    "FileState",
    "RegisteredFile",
    "cache_folder",
    "find",
    "fingerprint",
    "locate",
    "registry",
    "state",
]

CONNECT_SECONDS, READ_SECONDS = 4.0, 20.0
# A host that could not be reached is not asked again for this long, so that a loader of many files fails once.
UNREACHABLE_SECONDS = 60.0

_verified: dict[str, tuple[int, int, str]] = {}
_unreachable: dict[str, float] = {}


class DatasetUnavailable(RuntimeError):
    """A file of a dataset is neither in ``$NETATLAS_DATA`` nor in the cache, and could not be downloaded."""


class ChecksumError(RuntimeError):
    """A file in ``$NETATLAS_DATA`` does not have the bytes that the registry expects."""


@dataclass(frozen=True)
class RegisteredFile:
    """A file as the registry knows it; ``url`` is None where no single public file exists."""

    dataset: str
    file: str
    bytes: int
    sha256: str
    url: str | None
    sha256_decompressed: str | None = None

    @property
    def expected(self) -> str:
        """The checksum that decides: of the decompressed bytes where the registry has it."""
        return self.sha256_decompressed or self.sha256


@dataclass(frozen=True)
class FileState:
    """What :func:`state` found: ``status`` is "ok", "corrupt" or "absent"; ``path`` is None if absent."""

    file: str
    status: str
    path: Path | None = None


@functools.cache
def registry() -> dict[str, RegisteredFile]:
    """All known files, by relative path."""
    text = resources.files("netatlas.data").joinpath("registry.json").read_text(encoding="utf-8")
    return {
        entry["file"]: RegisteredFile(dataset=dataset, **entry)
        for dataset, entries in json.loads(text).items()
        for entry in entries
    }


def cache_folder() -> Path:
    """The folder of downloaded and decoded files."""
    import platformdirs

    return Path(os.environ.get("NETATLAS_CACHE") or platformdirs.user_cache_dir("netatlas"))


def _digest(stream: io.BufferedIOBase) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: Path, *, decompressed: bool = False) -> str:
    """SHA-256 of a file, or of what it decompresses to; "not gzip: ..." where it does not decompress."""
    if not decompressed:
        with path.open("rb") as stream:
            return _digest(stream)
    try:
        with gzip.open(path, "rb") as stream:
            return _digest(stream)
    except (OSError, EOFError, zlib.error) as error:
        return f"not gzip: {error}"


def _mismatch(path: Path, record: RegisteredFile, *, memo: bool = True) -> str | None:
    """None if the file is as registered, else the checksum found."""
    status = path.stat()
    mark = (status.st_size, status.st_mtime_ns, record.expected)
    if memo and _verified.get(str(path)) == mark:
        return None
    # Equal compressed bytes decompress to equal bytes: the cheap comparison first.
    found = fingerprint(path)
    if found != record.sha256 and record.sha256_decompressed:
        found = fingerprint(path, decompressed=True)
        if found != record.sha256_decompressed:
            return found
    elif found != record.sha256:
        return found
    _verified[str(path)] = mark
    return None


def find(file: str) -> Path | None:
    """The place where a file lies, unchecked: in ``$NETATLAS_DATA``, else in the cache, else None."""
    root = os.environ.get("NETATLAS_DATA")
    for folder in ([Path(root)] if root else []) + [cache_folder()]:
        if (folder / file).is_file():
            return folder / file
    return None


def state(file: str) -> FileState:
    """Check a file where it lies, in full, without downloading anything."""
    path = find(file)
    if path is None:
        return FileState(file, "absent")
    return FileState(file, "corrupt" if _mismatch(path, _record(file), memo=False) else "ok", path)


def _record(file: str) -> RegisteredFile:
    try:
        return registry()[file]
    except KeyError:
        raise ValueError(f"expected a registered file, got {file!r}") from None


def _unavailable(record: RegisteredFile, name: str, reasons: Iterable[str]) -> DatasetUnavailable:
    root = os.environ.get("NETATLAS_DATA")
    where = f"$NETATLAS_DATA ({root})" if root else "$NETATLAS_DATA (not set)"
    if root and not Path(root).is_dir():
        where += " (no such folder)"
    advice = (
        f"Fetch it with: netatlas data fetch {name}"
        if record.url
        else f"It has no public address, so that 'netatlas data fetch {name}' cannot get it: put it into $NETATLAS_DATA"
    )
    return DatasetUnavailable(
        f"dataset {name!r}: file {record.file} is not usable from {where} or the cache ({cache_folder()}): "
        f"{'; '.join(reasons)}. {advice}"
    )


def _download(record: RegisteredFile, target: Path) -> str | None:
    """Download to a temporary file beside the target, check, move into place. None, or why not."""
    import pooch
    import requests

    host = str(urlsplit(record.url).netloc)
    if time.monotonic() - _unreachable.get(host, -UNREACHABLE_SECONDS) < UNREACHABLE_SECONDS:
        return f"{host} could not be reached a moment ago"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        return f"the cache cannot be written ({error})"
    os.close(handle)
    try:
        # One attempt: whoever waits for a notebook wants the reason, not a fourth try.
        pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS), chunk_size=1 << 16)(record.url, partial, None)
        found = _mismatch(Path(partial), record)
        if found:
            size = os.path.getsize(partial)
            return (
                f"the download from {record.url} is truncated or has changed: {size} bytes with sha256 {found}, "
                f"expected {record.bytes} bytes with {record.expected}"
            )
        os.replace(partial, target)
        return None
    except (requests.ConnectionError, requests.Timeout) as error:
        _unreachable[host] = time.monotonic()
        return f"download from {record.url} failed ({type(error).__name__}: no network, or the host does not answer)"
    except (requests.RequestException, OSError) as error:
        return f"download from {record.url} failed ({type(error).__name__}: {error})"
    finally:
        _verified.pop(partial, None)
        Path(partial).unlink(missing_ok=True)


def locate(file: str, name: str | None = None) -> Path:
    """The path of a checked file, downloaded if need be.

    Args:
        file: relative path as in the registry.
        name: the dataset's name to put into the error's advice; the registry's by default.

    Raises:
        ChecksumError: the copy in ``$NETATLAS_DATA`` has other bytes than registered.
        DatasetUnavailable: no usable copy, and none could be downloaded.
        ValueError: the file is not registered.
    """
    record = _record(file)
    name = name or record.dataset
    root = os.environ.get("NETATLAS_DATA")
    if root and (own := Path(root) / file).is_file():
        found = _mismatch(own, record)
        if found:
            raise ChecksumError(f"{own}: expected sha256 {record.expected}, found {found}; remove or replace the file")
        return own
    reasons = []
    cached = cache_folder() / file
    if cached.is_file():
        found = _mismatch(cached, record)
        if not found:
            return cached
        reasons.append(f"the cached copy is corrupt (expected sha256 {record.expected}, found {found})")
    if record.url is None:
        reasons.append("the registry knows no address (url) for it")
    elif os.environ.get("NETATLAS_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        reasons.append("NETATLAS_OFFLINE forbids downloads")
    else:
        problem = _download(record, cached)
        if problem is None:
            return cached
        reasons.append(problem)
    raise _unavailable(record, name, reasons)
