"""The command line: ``netatlas build``, ``paper KEY``, ``data ...``, ``weights ...``, ``new-chapter X``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from netatlas import registry
from netatlas.data.cli import app as data_app

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The Network Atlas: an executable research book.")
app.add_typer(data_app, name="data", help="List, fetch and verify data sets.")
weights_app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(weights_app, name="weights", help="Make stored weights again, or check that they can be made again.")


@app.command()
def build(
    profile: Annotated[str, typer.Option(help="ci or gpu")] = "ci",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(help="base seed")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="cores")] = 2,
    chapter: Annotated[str | None, typer.Option(help="only this chapter, without the site")] = None,
    dry_run: Annotated[bool, typer.Option(help="show what would run")] = False,
) -> None:
    """Execute, validate and publish what is stale."""
    from netatlas.pipeline import build as pipeline

    extra = ["--dry-run"] if dry_run else []
    raise typer.Exit(pipeline.build(profile=profile, device=device, seed=seed, jobs=jobs, chapter=chapter, extra=extra))


@app.command()
def paper(key: str) -> None:
    """Where a paper lives: chapter, module, test, page and verdict."""
    try:
        found = registry.find_paper(key)
    except KeyError as error:
        typer.echo(error.args[0], err=True)
        raise typer.Exit(1) from None
    ledger = Path("build/ledger.json")
    entries = json.loads(ledger.read_text(encoding="utf-8"))["claims"] if ledger.exists() else []
    verdicts = [f"{e['verdict']} ({e['profile']}, {e['device']})" for e in entries if e["key"] == key]
    package, tests = Path("src/netatlas") / found.chapter, Path("tests") / found.chapter
    modules = [path for path in sorted(package.glob("*.py")) if key in path.read_text(encoding="utf-8")]
    rows = {
        "paper": f"{found.title}. {found.byline}",
        "link": found.url or "none",
        "chapter": f"chapters/{found.chapter}.py",
        "module": ", ".join(map(str, modules)) or str(package),
        "test": ", ".join(str(tests / f"test_{m.name}") for m in modules if (tests / f"test_{m.name}").exists())
        or str(tests),
        "page": f"build/html/chapters/{found.chapter}.html#paper-{key}",
        "verdict": "; ".join(verdicts) or "not measured yet",
    }
    for name, value in rows.items():
        typer.echo(f"{name:>8}  {value}")


@app.command("new-chapter")
def new_chapter(name: str) -> None:
    """Scaffold a chapter's three places, with a toy method that passes until yours replaces it."""
    from netatlas.pipeline.scaffold import scaffold

    try:
        for path in scaffold(name):
            typer.echo(f"wrote {path}")
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def record() -> None:
    """Record the ledger of the last build under ``results/``, one file a chapter."""
    from netatlas.pipeline.record import record as record_ledger

    for path in record_ledger(Path("build/ledger.json"), Path("results")):
        typer.echo(f"wrote {path}")


@weights_app.command("train")
def train_weights(
    name: Annotated[str, typer.Argument(help="a name in weights/recipes.yml")],
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(help="seed of the training")] = 0,
) -> None:
    """Train, evaluate and store one set of weights."""
    from netatlas.pipeline import weights

    try:
        typer.echo(json.dumps(weights.train(name, device=device, seed=seed), indent=1))
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@weights_app.command("check")
def check_weights(name: Annotated[str, typer.Argument(help="a name in weights/recipes.yml")]) -> None:
    """Train one set of weights again, and compare what it achieves with what is stored."""
    from netatlas.pipeline import weights

    try:
        differences = weights.check(name)
    except (ValueError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    for line in differences:
        typer.echo(line, err=True)
    if differences:
        raise typer.Exit(1)
    typer.echo(f"{name}: trained again, every figure as stored")


if __name__ == "__main__":
    app()
