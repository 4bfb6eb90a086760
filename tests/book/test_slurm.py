"""The same Snakefile plans its jobs for Slurm under the documented profile."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]
PROFILE = Path(__file__).parents[2] / "profiles" / "slurm"


def test_dry_run_under_the_slurm_profile(tiny):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--workflow-profile",
            str(PROFILE),
            "--dry-run",
            "--config",
            f"python={sys.executable}",
        ],
        cwd=tiny.root,
        env=tiny.env,
        capture_output=True,
        text=True,
    )
    out = done.stdout + done.stderr
    assert done.returncode == 0, out
    for rule in ("notebook", "execute", "validate", "ledger", "site"):
        assert f"rule {rule}" in out or f"{rule} " in out
    assert "slurm_partition" in out or "runtime" in out
