"""Run every benchmark: ``make bench``. Writes ``results/bench.json``, from which the book's speed page is made."""

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

from harness import ROOT, PeerProcess, as_json


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
    peers, rows, growth = PeerProcess(), [], []
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        if wanted and path.stem.removeprefix("bench_") not in wanted:
            continue
        module = importlib.import_module(path.stem)
        rows += module.rows(peers)
        growth += module.growth() if hasattr(module, "growth") else []
    peers.close()
    if wanted:
        print("only a part ran, so results/bench.json stays as it was")
    else:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        text = as_json(
            rows, growth, version=1, device=processor(), threads=1, date=today, python=platform.python_version()
        )
        (ROOT / "results" / "bench.json").write_text(text, encoding="utf-8")
        print(f"{len(rows)} comparisons in results/bench.json")
