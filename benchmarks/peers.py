"""The peers' side: functions that prepare their input, time the work alone, and return seconds and result.

Runs in the peers' environment and answers one JSON line for one JSON line; arguments and results travel as files.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))


def timed(call):
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def version(package):
    """The installed version of a package."""
    return 0.0, metadata.version(package)


if __name__ == "__main__":
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            arguments = pickle.loads(Path(request["given"]).read_bytes())
            outcome = globals()[request["name"]](**arguments)
            Path(request["got"]).write_bytes(pickle.dumps(outcome))
            answer = {"ok": True}
        except Exception:
            answer = {"error": traceback.format_exc(limit=4)}
        print(json.dumps(answer), file=answers, flush=True)
