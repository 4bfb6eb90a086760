"""One harness for every comparison: same machine, threads and run, repetitions interleaved, results compared first.

A peer whose pins conflict with ours lives in a virtual environment of its own (``.bench-venv``, from ``peers.txt``) and
is called through :class:`PeerProcess`. Both sides time themselves around the same work by the same clock.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = ROOT / ".bench-venv" / "bin" / "python"


@dataclass(frozen=True)
class Row:
    """One comparison: ``ratio`` is the peer's median time over ours, ``spread`` its middle 80 % over repetitions."""

    kernel: str
    work: str
    peer: str
    peer_version: str
    seconds: float
    peer_seconds: float
    ratio: float
    spread: tuple[float, float]
    repetitions: int


@dataclass(frozen=True)
class Growth:
    """Time against size: the slope on logarithmic axes, the largest size, and the seconds there."""

    kernel: str
    axis: str
    slope: float
    largest: float
    seconds: float
    sizes: list[float]
    times: list[float]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


class PeerProcess:
    """The peers' environment as a process: :meth:`call` runs a function of ``peers.py`` and returns its seconds."""

    def __init__(self) -> None:
        if not PEER_PYTHON.exists():
            subprocess.run([sys.executable, "-m", "venv", str(ROOT / ".bench-venv")], check=True)
            install = [
                str(PEER_PYTHON),
                "-m",
                "pip",
                "install",
                "--quiet",
                "-r",
                str(ROOT / "benchmarks" / "peers.txt"),
            ]
            subprocess.run(install, check=True)
        script = str(ROOT / "benchmarks" / "peers.py")
        self.process = subprocess.Popen(
            [str(PEER_PYTHON), script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def call(self, name: str, **arguments: Any) -> tuple[float, Any]:
        """Run a peer's function.

        Args:
            name: A function of ``peers.py``.
            arguments: Plain numbers, strings and arrays.

        Returns:
            The seconds that the function's timed part took, and its result.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        with tempfile.TemporaryDirectory() as work:
            given, got = Path(work) / "given.pickle", Path(work) / "got.pickle"
            given.write_bytes(pickle.dumps(arguments))
            print(json.dumps({"name": name, "given": str(given), "got": str(got)}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
            if not line or "error" in json.loads(line):
                raise RuntimeError(f"peer {name}: {line.strip() or 'ended'}")
            return pickle.loads(got.read_bytes())

    def version(self, package: str) -> str:
        """The version of a package in the peers' environment."""
        return self.call("version", package=package)[1]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(
    kernel: str,
    work: str,
    peer: str,
    peer_version: str,
    ours: Callable[[], tuple[float, Any]],
    theirs: Callable[[], tuple[float, Any]],
    agree: Callable[[Any, Any], None],
    repetitions: int = 7,
) -> Row:
    """Warm both sides up, check that they agree, then time them in turn.

    Args:
        kernel: Our kernel.
        work: What is computed, with sizes.
        peer: What a user would pick instead.
        peer_version: Its version.
        ours, theirs: Return seconds and result of one run.
        agree: Raises ``AssertionError`` if the two results do not agree.
        repetitions: Interleaved repetitions.
    """
    agree(ours()[1], theirs()[1])
    pairs = []
    for turn in range(repetitions):
        sides = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        first, second = sides[0]()[0], sides[1]()[0]
        pairs.append((first, second) if turn % 2 == 0 else (second, first))
    mine, other = np.array(pairs).T
    ratios = other / mine
    low, high = np.quantile(ratios, [0.1, 0.9])
    row = Row(
        kernel,
        work,
        peer,
        peer_version,
        float(np.median(mine)),
        float(np.median(other)),
        float(np.median(ratios)),
        (float(low), float(high)),
        repetitions,
    )
    print(
        f"{kernel:32} {row.ratio:8.2f} x  ({low:.2f} to {high:.2f})  against {peer} {peer_version}: {work}", flush=True
    )
    return row


def grow(
    kernel: str, axis: str, sizes: list[float], run: Callable[[float], Callable[[], Any]], tries: int = 3
) -> Growth:
    """Time a kernel at growing sizes, best of a few tries each, and fit the slope.

    Args:
        kernel: Our kernel.
        axis: What grows.
        sizes: The sizes.
        run: Prepares the work of a size and returns the call to time.
        tries: Repetitions of each size.
    """
    times = []
    for size in sizes:
        call = run(size)
        call()
        times.append(min(timed(call)[0] for _ in range(tries)))
    slope = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    print(f"{kernel:32} slope {slope:.2f} in {axis}, {times[-1]:.2f} s at {sizes[-1]:g}", flush=True)
    return Growth(kernel, axis, slope, sizes[-1], times[-1], list(map(float, sizes)), times)


def random_graph(edges: int, mean_degree: int = 20, seed: int = 0) -> sp.csr_array:
    """An undirected graph with about this many edges, ends drawn uniformly, and a ring so that no node is isolated."""
    n = 2 * edges // mean_degree
    rng = np.random.default_rng(seed)
    a, b = rng.integers(n, size=(2, edges - n))
    a, b = np.r_[a, np.arange(n)], np.r_[b, np.roll(np.arange(n), 1)]
    keep = a != b
    half = sp.coo_array((np.ones(keep.sum()), (a[keep], b[keep])), shape=(n, n)).tocsr()
    whole = sp.csr_array(half + half.T)
    whole.data[:] = 1
    return whole


def record(path: Path, parts: dict[str, dict[str, Any]]) -> None:
    """Write the parts that ran to the benchmark's file; parts that did not run stay as they were."""
    known = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.exists() else {}
    merged = dict(sorted((known | parts).items()))
    path.write_text(json.dumps({"version": 2, "parts": merged}, indent=1) + "\n", encoding="utf-8")


def as_part(rows: list[Row], growth: list[Growth], **where: Any) -> dict[str, Any]:
    """One file's benchmark: where and when it ran, its rows, its growth."""
    return where | {"rows": [asdict(r) for r in rows], "growth": [asdict(g) for g in growth]}
