"""The house's own files agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from netatlas.registry import papers

ROOT = Path(__file__).parents[1]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_lock_environment_and_project_agree():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {canonical(name): version for name, version in pins().items()}
    wanted = project["dependencies"] + [r for x in ("book", "test") for r in project["optional-dependencies"][x]]
    for text in wanted:
        requirement = Requirement(text)
        assert canonical(requirement.name) in locked, f"{text} is not locked: make lock"
        assert requirement.specifier.contains(locked[canonical(requirement.name)]), text
    assert locked["torch"] == "2.13.0"
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert [line for line in listed if "==" in line] == [f"{n}=={v}" for n, v in pins().items()]


def test_the_plan_names_every_chapter_of_the_registry_once():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    planned = [e["file"].split("/")[1] for part in toc["parts"] for e in part["chapters"] if "chapters/" in e["file"]]
    assert sorted(planned) == sorted({p.chapter for p in papers().values()}) and len(planned) == 35


def test_import_contracts_name_every_planned_family():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    families = " ".join(layer for contract in contracts for layer in contract["layers"])
    for chapter in {p.chapter for p in papers().values()}:
        assert re.search(rf"netatlas\.{chapter}\b", families), chapter


def test_the_snakefile_stays_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 150


def test_make_alone_lists_the_targets():
    out = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("book", "test", "lab", "bench", "data", "clean", "chapter"):
        assert re.search(rf"^{target}\b", out, re.M), target


def run(*words):
    return subprocess.run([sys.executable, "-m", "netatlas.cli", *words], cwd=ROOT, capture_output=True, text=True)


def test_netatlas_paper_tells_where_a_paper_lives():
    out = run("paper", "grover2016node2vec").stdout
    for words in (
        "chapters/embeddings.py",
        "src/netatlas/embeddings/node2vec.py",
        "#paper-grover2016node2vec",
        "verdict",
    ):
        assert words in out
    near = run("paper", "grover2016node2vek")
    assert near.returncode == 1 and "grover2016node2vec" in near.stderr


def test_a_scaffolded_chapter_passes(tmp_path):
    from netatlas.lab.honesty import check_file
    from netatlas.pipeline.scaffold import scaffold

    files = scaffold("pruning", tmp_path)
    assert check_file(files[0]) == []
    (tmp_path / "netatlas").symlink_to(tmp_path / "src" / "netatlas")
    init = f"__path__.append({str(ROOT / 'src' / 'netatlas')!r})\n"
    (tmp_path / "src" / "netatlas" / "__init__.py").write_text(init)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(files[-1])],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lint = [sys.executable, "-m", "ruff", "check", "--config", "pyproject.toml", "--ignore", "E402,I001"]
    assert subprocess.run([*lint, *files], cwd=ROOT).returncode == 0
    with pytest.raises(ValueError, match="exists"):
        scaffold("pruning", tmp_path)
    with pytest.raises(ValueError, match="no paper of a chapter"):
        scaffold("nonsense", tmp_path)
