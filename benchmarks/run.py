"""Run every benchmark: ``make bench``. Writes ``results/bench.json``, from which the book's speed page is made.

``python benchmarks/run.py merging`` runs one file and replaces its part alone.
"""

from __future__ import annotations

import os

os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
)

import argparse
import datetime
import importlib
import platform
from pathlib import Path

from harness import ROOT, PeerProcess, as_part, record


def processor() -> str:
    """The processor's model name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="names of benchmark files without bench_, such as merging")
    wanted = parser.parse_args().only
    import torch

    torch.set_num_threads(1)
    peers, parts = PeerProcess(), {}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    where = {"device": processor(), "threads": 1, "date": today, "python": platform.python_version()}
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        name = path.stem.removeprefix("bench_")
        if wanted and name not in wanted:
            continue
        module = importlib.import_module(path.stem)
        parts[name] = as_part(module.rows(peers), module.growth() if hasattr(module, "growth") else [], **where)
    peers.close()
    record(ROOT / "results" / "bench.json", parts)
    print(f"{sum(len(part['rows']) for part in parts.values())} comparisons in results/bench.json")
