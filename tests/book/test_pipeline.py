"""The pipeline on a tiny book: what runs, what fails, what is kept, what is published."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import time

import pytest

pytestmark = pytest.mark.pipeline
FIRST, SECOND = pytest.mark.xdist_group("pipeline"), pytest.mark.xdist_group("pipeline-2")
SLEEP = "time.sleep(60) if os.environ.get('TOY_SLEEP') else None  # extra"


@FIRST
def test_nothing_runs_again_when_nothing_changed(built):
    page = built.page.read_text()
    status, out = built.build()
    assert status == 0, out
    assert built.ran() == [] and built.page.read_text() == page
    ledger = built.ledger()
    assert next(iter(ledger)) == "version"
    assert [c["key"] for c in ledger["claims"]] == ["toy2020alpha", "toy2021beta"]
    claim = ledger["claims"][0]
    assert claim["verdict"] == "reproduced" and claim["n"] == 5 and len(claim["measured"][0]["values"]) == 5
    assert {"seconds", "commit", "device", "profile", "data"} <= claim.keys()


@FIRST
def test_a_new_time_stamp_alone_is_no_change(built):
    for path in (built.root / "src").rglob("*.py"):
        os.utime(path)
    assert built.build()[0] == 0 and built.ran() == []


BOTH = {"alpha", "beta"}


@FIRST
@pytest.mark.parametrize(
    ("path", "stale"),
    [
        ("chapters/alpha.py", {"alpha"}),
        ("src/netatlas/alpha/__init__.py", {"alpha"}),
        ("src/netatlas/core/stats.py", BOTH),
        ("src/netatlas/lab/claims.py", BOTH),
        ("src/netatlas/data/__init__.py", BOTH),
        ("requirements.lock", BOTH),
        ("book/how_to_read.md", set()),
    ],
)
def test_only_stale_chapters_are_planned(built, path, stale):
    file = built.root / path
    file.write_text(file.read_text() + "\n# changed\n")
    status, out = built.build("--dry-run")
    assert status == 0, out
    planned = {name for name in BOTH if f"build/ci/executed/{name}.ipynb" in re.findall(r"output: (\S+)", out)}
    assert planned == stale, out


@FIRST
def test_only_the_stale_chapter_runs(built):
    built.edit("src/netatlas/alpha/__init__.py", "A toy family", "A toy family, changed")
    status, out = built.build()
    assert status == 0, out
    assert built.ran() == ["alpha", "alpha"]


@FIRST
def test_a_failing_cell_fails_its_chapter_and_the_next_run_resumes(built):
    page = built.page.read_text()
    built.edit("chapters/alpha.py", "pass  # extra", "raise ArithmeticError('seven is not eight')")
    built.edit("chapters/beta.py", "pass  # extra", "2 + 2  # extra")
    status, out = built.build()
    last = "\n".join(out.splitlines()[-2:])
    assert status == 1 and "alpha failed in cell" in last, out
    assert "raise ArithmeticError" in last and "seven is not eight" in last and "results are kept" in last
    assert built.page.read_text() == page
    assert built.ran() == ["alpha", "beta", "beta"]
    built.edit("chapters/alpha.py", "raise ArithmeticError('seven is not eight')", "7 + 1")
    status, out = built.build()
    assert status == 0, out
    assert built.ran() == ["alpha", "alpha"], "beta's result was kept"


@FIRST
def test_output_that_differs_between_executions_is_not_published(built):
    page = built.page.read_text()
    built.edit("chapters/alpha.py", "pass  # extra", "print(time.perf_counter())")
    status, out = built.build()
    assert status == 1 and "alpha failed in cell" in out and "gave another output when executed again" in out
    assert "print(time.perf_counter())" in out.splitlines()[-2]
    assert built.page.read_text() == page
    status, out = built.build()
    assert status == 1 and built.page.read_text() == page, "it stays unpublished"


@FIRST
def test_a_claim_that_is_missing_or_unknown_is_not_published(built):
    page = built.page.read_text()
    built.edit(
        "chapters/alpha.py", 'lab.claim("toy2020alpha"', 'str("toy2020alpha"); (lambda *a, **k: 0)("toy2020alpha"'
    )
    status, out = built.build()
    assert status == 1 and "alpha has no claim for: toy2020alpha" in out, out
    assert built.page.read_text() == page


@FIRST
def test_warnings_of_the_pages_are_errors(built):
    page = built.page.read_text()
    built.edit("book/how_to_read.md", "# How to read it", "# How to read it\n\n[nowhere](nothing.md)\n")
    status, out = built.build()
    assert status == 1 and "does not accept the pages" in out and "nothing.md" in out
    assert built.page.read_text() == page


@SECOND
@pytest.mark.parametrize("victim", ["make", "snakemake", "ipykernel"])
def test_a_kill_in_the_middle_does_no_harm(built, kill, victim):
    page = built.page.read_text()
    built.edit("chapters/alpha.py", "pass  # extra", SLEEP)
    process = built.start(TOY_SLEEP="1")
    built.wait_for(lambda: built.log.read_text() and built.processes("ipykernel"))
    time.sleep(0.5)
    kill(*([process.pid] if victim == "make" else built.processes(victim)))
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    if victim == "ipykernel":
        assert "alpha failed" in out and "kernel" in out.lower(), out
    if victim == "snakemake":
        assert "SIGKILL" in out, out
    built.wait_for(lambda: not built.processes("snakemake") and not built.processes("ipykernel"), 20)
    assert built.page.read_text() == page, "nothing wrong is published"
    built.ran()
    status, out = built.build()
    assert status == 0, out
    assert built.ran() == ["alpha", "alpha"]


@SECOND
def test_two_builds_at_once_wait_for_each_other(tiny):
    first = tiny.start()
    tiny.wait_for(lambda: (tiny.root / "build/.lock").exists() and (tiny.root / "build/.lock").read_text())
    status, out = tiny.build()
    first_out, _ = first.communicate(timeout=120)
    assert first.returncode == 0 and status == 0, first_out + out
    assert f"another build is running here (process {first.pid}); waiting for it" in out
    assert tiny.ran() == ["alpha", "alpha", "beta", "beta"], "the second had nothing left to do"


def _tmpfs(path, megabytes):
    path.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")


@SECOND
def test_a_full_disk_is_named_and_the_next_build_completes(tiny):
    _tmpfs(tiny.root / "build", 8)
    try:
        filler = tiny.root / "build" / "filler"
        filler.write_bytes(b"x" * (8 * 2**20 - 60_000))
        status, out = tiny.build()
        assert status == 1 and "disk is full" in out, out
        assert not tiny.page.exists()
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", str(tiny.root / "build")], check=True)
        status, out = tiny.build()
        assert status == 0 and tiny.page.exists(), out
    finally:
        subprocess.run(["umount", "-l", str(tiny.root / "build")], check=False)


@SECOND
def test_data_that_cannot_be_had_stop_their_chapter_with_a_clear_message(built, tmp_path):
    page = built.page.read_text()
    source = os.environ.get("NETATLAS_DATA", "")
    if not os.path.exists(os.path.join(source, "strongly_regular")):
        pytest.skip("NETATLAS_DATA has no strongly_regular data")
    built.edit(
        "chapters/alpha.py",
        "pass  # extra",
        "from netatlas import data; len(data.load('strongly_regular', family='sr16622'))",
    )
    place = tmp_path / "data"
    shutil.copytree(os.path.join(source, "strongly_regular"), place / "strongly_regular")
    no_network = {"NETATLAS_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}

    status, out = built.build(NETATLAS_DATA=str(tmp_path / "nothing"), **no_network)
    assert status == 1 and "DatasetUnavailable" in out and "netatlas data fetch strongly_regular" in out, out

    file = place / "strongly_regular" / "sr16622.g6"
    whole = file.read_bytes()
    os.chmod(file, 0o644)
    for bad in (whole[: len(whole) // 2], whole[:-1] + b"?"):
        file.write_bytes(bad)
        status, out = built.build(NETATLAS_DATA=str(place), **no_network)
        assert status == 1 and "sr16622.g6" in out and "alpha failed in cell" in out, out
        assert built.page.read_text() == page

    file.write_bytes(whole)
    status, out = built.build(NETATLAS_DATA=str(place), **no_network)
    assert status == 0, out


@FIRST
def test_progress_is_live_on_a_terminal_and_plain_in_a_pipe(built):
    (built.root / "chapters/alpha.py").write_text((built.root / "chapters/alpha.py").read_text() + "\n# changed\n")
    status, out = built.build()
    assert status == 0 and "\x1b[" not in out
    assert "alpha: running" in out and "alpha: validated, " in out and "beta" not in out
    (built.root / "chapters/alpha.py").write_text((built.root / "chapters/alpha.py").read_text() + "\n# again\n")
    parent, child = pty.openpty()
    process = subprocess.Popen(
        built.command(), cwd=built.root, env=built.env | {"TERM": "xterm", "COLUMNS": "120"}, stdout=child, stderr=child
    )
    os.close(child)
    seen = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait() == 0
    text = seen.decode(errors="replace")
    assert "\x1b[" in text and "running cell" in text and "validating cell" in text and "validated" in text


@FIRST
def test_one_chapter_alone(built):
    built.edit("chapters/alpha.py", "pass  # extra", "2 + 2  # extra")
    built.edit("chapters/beta.py", "pass  # extra", "2 + 2  # extra")
    status, out = built.build("--chapter", "alpha")
    assert status == 0 and "alpha is validated" in out and built.ran() == ["alpha", "alpha"]
    status, out = built.build("--chapter", "gamma")
    assert status == 2 and "no chapter is called" in out


@SECOND
def test_cuda_is_never_replaced_silently(built):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    status, out = built.build("--profile", "gpu", "--device", "cuda")
    assert status == 1 and "no CUDA device" in out and "alpha failed in cell" in out
