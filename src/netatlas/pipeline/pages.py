"""The generated pages: landing cards, ledger, speed, references, kernels, table of contents."""

from __future__ import annotations

import ast
import html
import json
import re
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
import yaml

from netatlas import registry
from netatlas.lab.claims import DATA_WORDS, MIME, VERDICT_CLASS, format_row
from netatlas.lab.conditions import format_number
from netatlas.pipeline.usage import usage

Entry = dict[str, Any]
SHARED_TITLES = {
    "core": "Core: what families share",
    "lab": "Lab: how a chapter experiments",
    "data": "Data: named sets and generators",
}


def raw(markup: str) -> str:
    """HTML as a block of MyST Markdown."""
    return f"```{{raw}} html\n{markup}\n```"


def escape(text: Any) -> str:
    """Text for HTML."""
    return html.escape(str(text), quote=True)


def chapter_title(notebook: Any) -> str:
    """The first heading of a notebook."""
    for cell in notebook.cells:
        found = re.search(r"^# (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None
        if found:
            return found.group(1).strip()
    return "Untitled"


def portrait_of(notebook: Any) -> str:
    """The family portrait's SVG, or an empty string."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("netatlas", {}).get("portrait"):
                markup = "".join(output["data"]["text/html"])
                return markup[markup.index("<svg") : markup.rindex("</svg>") + len("</svg>")]
    return ""


def table_of_contents(plan: Path, chapters: list[str], kernels: list[str]) -> str:
    """The plan ``_toc.yml`` with the chapters that exist, those it does not name, and the kernels' pages.

    Args:
        plan: The table of contents of the whole book.
        chapters: Chapters that exist.
        kernels: Pages below ``kernels/``.
    """
    toc = yaml.safe_load(plan.read_text(encoding="utf-8"))
    planned = {entry["file"] for part in toc["parts"] for entry in part["chapters"]}
    unplanned = [{"file": f"chapters/{c}"} for c in chapters if f"chapters/{c}" not in planned]
    if unplanned:
        toc["parts"].insert(0, {"caption": "Chapters", "chapters": unplanned})
    for part in toc["parts"]:
        part["chapters"] = [
            entry
            for entry in part["chapters"]
            if not entry["file"].startswith("chapters/") or entry["file"].removeprefix("chapters/") in chapters
        ]
        for entry in part["chapters"]:
            if entry["file"] == "kernels/index":
                entry["sections"] = [{"file": f"kernels/{name}"} for name in kernels]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    return yaml.safe_dump(toc, sort_keys=False, allow_unicode=True)


def landing_cards(notebooks: dict[str, Any], claims: list[Entry]) -> str:
    """A card a chapter, in the registry's order: its picture, title, papers and verdicts."""
    cards = []
    order = list(dict.fromkeys(paper.chapter for paper in registry.papers().values()))
    for chapter in sorted(notebooks, key=lambda name: order.index(name) if name in order else len(order)):
        notebook = notebooks[chapter]
        found = registry.chapter_papers(chapter)
        verdicts = Counter(e["verdict"] for e in claims if e["chapter"] == chapter and e.get("here", True))
        counts = " ".join(
            f'<span class="badge {VERDICT_CLASS[v]}">{n} {escape(v)}</span>' for v, n in sorted(verdicts.items())
        )
        part = f"Part {found[0].part}" if found else "Appendix"
        papers = f"{len(found)} paper{'s' if len(found) != 1 else ''}"
        cards.append(
            f'<a class="na-card" href="chapters/{chapter}.html"><div class="picture">{portrait_of(notebook)}</div>'
            f'<p class="part">{escape(part)}</p><p class="title">{escape(chapter_title(notebook))}</p>'
            f'<p class="counts">{papers} {counts}</p></a>'
        )
    return raw(f'<div class="na-cards">{"".join(cards)}</div>')


def _folded(items: list[str], shown: int, words: str) -> str:
    """A list whose first items are in sight and whose others open at a click."""
    rest = f"<details><summary>{len(items) - shown} more {words}</summary><ul>{''.join(items[shown:])}</ul></details>"
    return f"<ul>{''.join(items[:shown])}</ul>" + (rest if len(items) > shown else "")


def _measured_cell(entry: Entry) -> str:
    items = []
    for row in entry["measured"]:
        value = format_row(row)
        role = ' <em class="control">control</em>' if row["role"] == "control" else ""
        items.append(f"<li>{escape(row['name'])}{role}: <strong>{value}</strong></li>")
    return _folded(items, min(3, len(items)), f"figures, n ≤ {entry['n']}")


def _condition_cell(entry: Entry) -> str:
    items = []
    for condition in entry["conditions"]:
        mark, word = ("✓", "holds") if condition["holds"] else ("✗", "fails")
        figures = f" ({escape(condition['figures'])})" if condition["figures"] else ""
        items.append(
            f'<li class="{word}"><span aria-hidden="true">{mark}</span><span class="sr-only">{word}: </span> '
            f"{escape(condition['name'])}{figures}</li>"
        )
    return _folded(items, 1, "conditions")


def ledger_table(claims: list[Entry]) -> str:
    """The ledger as a table that a script makes sortable and filterable; each row leads to its section."""
    rows = []
    for entry in claims:
        paper = registry.find_paper(entry["key"])
        target = f"chapters/{entry['chapter']}.html#paper-{entry['key']}"
        seconds = f"{entry['seconds']:.1f}"
        where = f"{escape(entry['profile'])}, {escape(entry['device'])}"
        kind = VERDICT_CLASS[entry["verdict"]]
        rows.append(
            f'<tr data-chapter="{entry["chapter"]}" data-verdict="{escape(entry["verdict"])}" '
            f'data-device="{where}"><td><a href="chapters/{entry["chapter"]}.html">{entry["chapter"]}</a></td>'
            f'<td data-sort="{paper.year} {escape(paper.byline)}"><a href="{target}">{escape(paper.byline)}</a><br>'
            f"<code>{entry['key']}</code></td><td>{escape(entry['statement'])}</td>"
            f'<td><span class="badge {kind}">{escape(entry["verdict"])}</span></td>'
            f"<td>{_measured_cell(entry)}</td><td>{_condition_cell(entry)}</td>"
            f'<td>{DATA_WORDS[entry["data"]]}</td><td data-sort="{seconds}">{where}<br>{seconds} s<br>'
            f"<code>{escape(entry['commit'] or 'no commit')}</code></td></tr>"
        )
    names = ("Chapter", "Paper", "Claim", "Verdict", "Measured", "Conditions", "Data", "Where, how long, commit")
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" class="sort">{name}</button></th>' for name in names
    )
    filters = "".join(
        f'<label>{label} <select data-filter="{field}"><option value="">all</option>'
        + "".join(f'<option value="{escape(v)}">{escape(v)}</option>' for v in values)
        + "</select></label>"
        for label, field, values in (
            ("Chapter", "chapter", sorted({e["chapter"] for e in claims})),
            ("Verdict", "verdict", [v for v in VERDICT_CLASS if any(e["verdict"] == v for e in claims)]),
            ("Where", "device", sorted({f"{e['profile']}, {e['device']}" for e in claims})),
        )
    )
    return raw(
        f'<form class="na-filters" aria-label="Filter the ledger">{filters}'
        '<label>Text <input type="search" data-filter="text" placeholder="words of a claim"></label>'
        f'<output aria-live="polite"></output></form><div class="na-scroll na-ledger" tabindex="0"><table id="ledger">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def ledger_summary(claims: list[Entry]) -> str:
    """One sentence on how many claims hold."""
    counts = Counter(e["verdict"] for e in claims)
    return f"{len(claims)} claims measured: " + ", ".join(f"{counts[v]} {v}" for v in VERDICT_CLASS) + "."


def _table(heads: tuple[str, ...], rows: list[list[str]], kind: str) -> str:
    """A table whose first column names the rows; entries are HTML, numbers to the right."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'<div class="na-scroll" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _number_cell(text: str, kind: str = "") -> str:
    return f'<td class="number {kind}">{text}</td>'


def speed_table(bench: Path) -> str:
    """The benchmark's rows as a table, or a sentence where none has been recorded."""
    if not bench.exists():
        return "No benchmark has been recorded yet: `make bench` writes `results/bench.json`."
    parts = json.loads(bench.read_text(encoding="utf-8"))["parts"]
    out = []
    for name, part in parts.items():
        ratios = [r["ratio"] for r in part["rows"]]
        threads = f"{part['threads']} thread{'s' if part['threads'] > 1 else ''}"
        out += ["", f"## {name.replace('_', ' ').capitalize()}", ""]
        out.append(
            f"Median ratio {median(ratios):.2f}, least {min(ratios):.2f}. "
            f"Measured on {escape(part['device'])}, {threads}, {part['date']}."
        )
        out += ["", raw(_comparisons(part["rows"]))]
    growth = [g for part in parts.values() for g in part["growth"]]
    if growth:
        out += ["", "## Growth", "", "Time against size on logarithmic axes: a slope of 1 is linear.", ""]
        out.append(raw(_growth(growth)))
    return "\n".join(out)


def _comparisons(recorded: list[dict]) -> str:
    rows = [
        [
            f'<th scope="row">{escape(r["kernel"])}</th><td>{escape(r["work"])}</td>',
            f"<td>{escape(r['peer'])} {escape(r['peer_version'])}</td>",
            _number_cell(format_number(r["seconds"])),
            _number_cell(format_number(r["peer_seconds"])),
            _number_cell(f"{r['ratio']:.2f}", "win" if r["ratio"] >= 1 else "loss"),
            _number_cell(f"{r['spread'][0]:.2f} to {r['spread'][1]:.2f}"),
        ]
        for r in recorded
    ]
    heads = ("Kernel", "Work", "Peer", "Ours (s)", "Peer (s)", "Ratio", "Spread of the ratio")
    return _table(heads, rows, "na-speed")


def _growth(recorded: list[dict]) -> str:
    rows = [
        [
            f'<th scope="row">{escape(g["kernel"])}</th><td>{escape(g["axis"])}</td>',
            _number_cell(f"{g['slope']:.2f}"),
            _number_cell(format_number(g["largest"])),
            _number_cell(format_number(g["seconds"])),
        ]
        for g in recorded
    ]
    return _table(("Kernel", "Grows with", "Slope (log-log)", "Largest", "Seconds there"), rows, "na-speed")


def references_page(chapters: list[str]) -> str:
    """Every paper of the book by part and chapter, with its key, its link, and its section where it is written."""
    lines, part, chapter = [], "", ""
    for paper in registry.papers().values():
        if paper.part != part:
            part = paper.part
            lines += ["", f"## Part {part}"]
        if paper.chapter != chapter:
            chapter = paper.chapter
            title = chapter.replace("_", " ").capitalize()
            lines += ["", f"### {title}" + ("" if chapter in chapters else " (to come)"), ""]
        authors = ", ".join(paper.authors)
        link = f" [arXiv:{paper.arxiv}]({paper.url})." if paper.url else ""
        here = f' <a href="chapters/{chapter}.html#paper-{paper.key}">In this book</a>.' if chapter in chapters else ""
        lines.append(f"- {authors} ({paper.year}). *{paper.title}*.{link}{here} `{paper.key}`")
    return "\n".join(lines)


def bibliography() -> str:
    """The registry as BibTeX."""
    return "\n".join(
        f"@misc{{{p.key},\n  title = {{{p.title}}},\n  author = {{{' and '.join(p.authors)}}},\n  year = {{{p.year}}}"
        + (f",\n  eprint = {{{p.arxiv}}},\n  archivePrefix = {{arXiv}}" if p.arxiv else "")
        + "\n}\n"
        for p in registry.papers().values()
    )


def _public_modules(package: Path) -> dict[str, list[str]]:
    """Public functions and classes of each public module of a package that has any, in the order of the source."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        if path.name.startswith("_") or path.name == "cli.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node)
        ]
        if names:
            module = ".".join(path.relative_to(package.parent.parent).with_suffix("").parts)
            found[module] = names
    return found


# scikit-learn writes these into every estimator, with references that only its own pages resolve.
ROUTING = "set_fit_request, set_partial_fit_request, set_predict_request, set_score_request, set_transform_request"


def kernel_pages(root: Path, chapters: list[str], titles: dict[str, str], folder: Path) -> list[str]:
    """Write the *Kernels* section: a page a package and an index of what is shared.

    Args:
        root: The repository's root.
        chapters: Chapters that exist.
        titles: Their titles.
        folder: Where the pages go.

    Returns:
        The pages' names, without suffix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = usage(root)
    (folder / "usage.json").write_text(json.dumps(places), encoding="utf-8")
    pages, shared_rows = [], []
    for package in [*SHARED_TITLES, *chapters]:
        modules = _public_modules(root / "src" / "netatlas" / package)
        if not modules:
            continue
        pages.append(package)
        lines = [
            f"# {SHARED_TITLES.get(package, titles.get(package, package))}",
            "",
            f"The public names of `netatlas.{package}`.",
            "",
        ]
        for module, names in modules.items():
            lines += [
                f"## {module.rsplit('.', 1)[-1]}",
                "",
                "```{eval-rst}",
                f".. automodule:: {module}",
                "   :no-members:",
                "",
            ]
            lines += [f".. currentmodule:: {module}", "", ".. autosummary::", "   :nosignatures:", ""]
            lines += [f"   {name}" for name in names] + [""]
            for name in names:
                kind = "autoclass" if name[0].isupper() else "autofunction"
                lines += [
                    f".. {kind}:: {name}",
                    *(["   :members:", f"   :exclude-members: {ROUTING}"] if kind == "autoclass" else []),
                    "",
                ]
                used = places.get(name, [])
                if package in ("core", "data") and used:
                    links = {f'<a href="../chapters/{c}.html">{c}</a>' for c, _ in used}
                    users = ", ".join(sorted(links))
                    keys = ", ".join(sorted({f"`{k}`" for _, k in used if k})) or "–"
                    shared_rows.append(
                        f'| <a href="{package}.html#{module}.{name}"><code>{module}.{name}</code></a> '
                        f"| {users} | {keys} |"
                    )
            lines += ["```", ""]
        (folder / f"{package}.md").write_text("\n".join(lines), encoding="utf-8")
    listing = [f"- [{SHARED_TITLES.get(p, titles.get(p, p))}]({p}.md)" for p in pages]
    index = [
        "# Kernels",
        "",
        "Methods live in the package, one module a method, and chapters import them. These pages are made from the",
        "docstrings: the formula, the shapes, the errors, the source, and who uses it.",
        "",
        *listing,
        "",
        "## What is shared",
        "",
        "| Kernel | Chapters | Papers |",
        "|---|---|---|",
        *shared_rows,
        "",
    ]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")
    return pages


# Cells that only show what was computed: readers of the page want the result first, and the code at a click.
SHOWS = re.compile(r"lab\.(claim|figure|portrait|table|papers_table)\(|^(measured|control|holds|reason) \|?= ", re.M)


def prepare_chapter(path: Path, chapter: str) -> Any:
    """An executed notebook as a page: downloads on top, papermill's cell out of sight, presenting code folded."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        tags = cell.metadata.setdefault("tags", [])
        if "injected-parameters" in tags:
            tags.append("remove-cell")
        if cell.cell_type == "code" and SHOWS.search(cell.source):
            tags.append("hide-input")
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(MIME, None)
    made = notebook.metadata["netatlas"]
    where = f"{made['profile']} profile, {made['device']}, {made['seconds']:.0f} s"
    files = f"../_static/notebooks/{chapter}"
    offer = raw(
        f'<p class="na-downloads"><a href="{files}.py" download>{chapter}.py</a> <a href="{files}.ipynb" download>'
        f"{chapter}.ipynb</a> <span>Executed and validated: {escape(where)}. To run it yourself: "
        f"<code>make lab</code>, then open <code>chapters/{chapter}.py</code> with “Open With → Notebook”.</span></p>"
    )
    first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown")
    notebook.cells.insert(first + 1, nbformat.v4.new_markdown_cell(offer))
    notebook.cells[first + 1].pop("id", None)
    notebook.cells[first + 1]["id"] = "downloads"
    return notebook
