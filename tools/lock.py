"""Make ``requirements.lock`` and ``environment.yml`` from ``pyproject.toml``: ``make lock``.

pip-tools resolves the package with its extras ``book`` and ``test``. A local build tag (``torch==2.13.0+cpu``) is cut
to the public version, so that the lock file serves every platform.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = "# Made from pyproject.toml by `make lock`; the exact versions that make and CI install.\n"


def compile_lock() -> list[str]:
    """Resolve and return the pinned lines, without comments."""
    with tempfile.TemporaryDirectory() as work:
        target = Path(work) / "lock.txt"
        options = ["--extra", "book", "--extra", "test", "--allow-unsafe", "--strip-extras", "--no-annotate"]
        quiet = ["--no-header", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--quiet"]
        command = [sys.executable, "-m", "piptools", "compile", *options, *quiet, "--output-file", str(target)]
        subprocess.run([*command, str(ROOT / "pyproject.toml")], check=True)
        lines = target.read_text(encoding="utf-8").splitlines()
    pins = [re.sub(r"\+[\w.]+$", "", line.strip()) for line in lines if "==" in line and not line.startswith("#")]
    return sorted(pins, key=str.lower)


def environment(pins: list[str]) -> str:
    """The conda environment with the same pins."""
    listed = "".join(f"      - {pin}\n" for pin in pins)
    return (
        "# The same environment for conda users; made by `make lock`.\nname: netatlas\nchannels: [conda-forge]\n"
        f"dependencies:\n  - python=3.11\n  - pip\n  - pip:\n{listed}      - -e .\n"
    )


if __name__ == "__main__":
    found = compile_lock()
    (ROOT / "requirements.lock").write_text(HEAD + "\n".join(found) + "\n", encoding="utf-8")
    (ROOT / "environment.yml").write_text(environment(found), encoding="utf-8")
    print(f"{len(found)} packages pinned")
