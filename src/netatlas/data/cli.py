"""Commands about data files: list, fetch, verify."""

from __future__ import annotations

from collections import Counter

import typer

from netatlas.data import catalog, store

app = typer.Typer(help="Data files: list, fetch and verify.", no_args_is_help=True, add_completion=False)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count else "bundled"


@app.command("list")
def list_() -> None:
    """List the datasets, their size, and whether their files are here."""
    here = set(catalog.available())
    for name in catalog.names():
        item = catalog.entry(name)
        size = _size(sum(store.registry()[file].bytes for file in item.files))
        typer.echo(f"{name:24} {size:>9}  {'here' if name in here else 'not here':8}  {item.summary}")


@app.command()
def fetch(name: str = typer.Argument(help="a dataset's name, or 'all'")) -> None:
    """Download the files of a dataset that are not here yet, and check them."""
    try:
        paths = catalog.fetch(name)
    except (store.DatasetUnavailable, store.ChecksumError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{name}: {len(paths)} files, all checked" if paths else f"{name}: bundled with a library, no files")


@app.command()
def verify(name: str = typer.Argument(None, help="a dataset's name; all by default")) -> None:
    """Check the files that are here against the registry; fail if any is corrupt."""
    try:
        states = catalog.verify(name)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    for found in states:
        if found.status == "corrupt":
            typer.echo(f"corrupt: {found.path}", err=True)
    counts = Counter(found.status for found in states)
    typer.echo(", ".join(f"{counts[status]} {status}" for status in ("ok", "corrupt", "absent")))
    if counts["corrupt"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
