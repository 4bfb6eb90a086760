"""What a reader sees: figures, tables, and numbers in prose."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

from IPython.display import display

from netatlas import registry
from netatlas.core.checks import require
from netatlas.lab.conditions import format_number
from netatlas.lab.experiment import current
from netatlas.lab.timings import Volatile, mark

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

INK = "#222222"


def _svg(fig: Figure, alt: str) -> str:
    """The figure as inline SVG that takes its ink from the page, so that it reads in light and dark."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: m.group(0) if m.group(1) in used else "", text)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = text.replace(INK, "currentColor")
    label = html.escape(alt, quote=True)
    opening = re.match(r"<svg[^>]*>", text)
    assert opening is not None
    sized = re.sub(r' (?:width|height)="[^"]*"', "", opening.group(0))
    width = fig.get_size_inches()[0]
    sized = sized[:-1] + f' role="img" aria-label="{label}" style="max-width:{width * 96:.0f}px">'
    return sized + text[opening.end() :]


def _framed(content: str, caption: str, kind: str = "") -> str:
    """Content that scrolls within its frame where the page is narrow, with its caption."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    classes = f"na-figure {kind}".strip()
    return f'<figure class="{classes}"><div class="na-scroll" tabindex="0">{content}</div>{below}</figure>'


def _check_words(caption: str, alt: str) -> None:
    require(len(caption.strip()) >= 20, "a caption that states the finding", repr(caption))
    require(len(alt.strip()) >= 20, "alternative text that says what is drawn", repr(alt))


def figure(fig: Figure, *, caption: str, alt: str) -> None:
    """Show a figure in house style with a caption and alternative text.

    Args:
        fig: A matplotlib figure; closed afterwards.
        caption: What was found, in a sentence or two; may hold ``<em>`` and other inline HTML.
        alt: What is drawn, for a reader who cannot see it.

    Raises:
        ValueError: For a caption or an alternative text of fewer than 20 characters, or an axis without a label.
    """
    _show(fig, caption, alt, {})


def portrait(fig: Figure, *, caption: str, alt: str) -> None:
    """Show the family portrait: a figure that also becomes the chapter's picture on the landing page.

    Arguments and errors as :func:`figure`.
    """
    _show(fig, caption, alt, {"portrait": current().chapter})


def _show(fig: Figure, caption: str, alt: str, tags: dict[str, str]) -> None:
    _check_words(caption, alt)
    for axes in fig.axes:
        drawn = axes.axison and axes.has_data() and axes.get_label() != "<colorbar>"
        labels = (axes.get_xlabel() or not axes.get_xticks().size) and (axes.get_ylabel() or not axes.get_yticks().size)
        shared = axes.get_subplotspec() is not None and fig.axes.index(axes) > 0
        require(not drawn or bool(labels) or shared, "axis labels with units", repr(axes.get_title()))
    svg = _svg(fig, alt)
    body = _framed(svg, caption)
    display({"text/html": body, "text/plain": f"Figure: {alt}"}, raw=True, metadata={"netatlas": tags})


def _cell(value: Any, fmt: str) -> str:
    if isinstance(value, Volatile):
        return mark(_cell(value.value, fmt))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return fmt.format(value) if value == value else "–"
    return html.escape(str(value))


def table(frame: pd.DataFrame, *, caption: str, fmt: str = "{:.3f}", index: bool = True) -> None:
    """Show a data frame with a caption; numbers align right, and a wide table scrolls on a phone.

    Args:
        frame: The table; a :class:`Volatile` entry is shown and not compared.
        caption: What was found, in a sentence or two.
        fmt: Format of floating-point entries; NaN is shown as a dash.
        index: Whether to show the index.

    Raises:
        ValueError: For an empty table or a caption of fewer than 20 characters.
    """
    require(len(frame) > 0, "a table with at least one row", len(frame))
    require(len(caption.strip()) >= 20, "a caption that states the finding", repr(caption))
    names = ([frame.index.name or ""] if index else []) + [str(c) for c in frame.columns]
    head = "".join(f'<th scope="col">{html.escape(str(n))}</th>' for n in names)
    rows = []
    for label, row in zip(frame.index, frame.itertuples(index=False, name=None)):
        first = f'<th scope="row">{html.escape(str(label))}</th>' if index else ""
        cells = "".join(
            f'<td class="{"text" if isinstance(v, str) else "number"}">{_cell(v, fmt)}</td>'
            for v in (x.item() if hasattr(x, "item") else x for x in row)
        )
        rows.append(f"<tr>{first}{cells}</tr>")
    body = _framed(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>", caption, "na-table")
    display({"text/html": body, "text/plain": f"Table: {caption}"}, raw=True)


def papers_table() -> None:
    """Show the running chapter's papers, each with its link and its section.

    Raises:
        ValueError: If the registry has no paper of this chapter.
    """
    found = registry.chapter_papers(current().chapter)
    require(len(found) > 0, "a chapter with papers in papers.yml", repr(current().chapter))
    rows = "".join(
        f'<tr><td><a href="#paper-{p.key}">{html.escape(p.title)}</a></td><td>{html.escape(p.byline)}</td>'
        f"<td>{html.escape(p.claim)}</td>"
        f"<td>{f'<a href={chr(34)}{p.url}{chr(34)}>arXiv:{p.arxiv}</a>' if p.url else '–'}</td></tr>"
        for p in found
    )
    head = "".join(f'<th scope="col">{n}</th>' for n in ("Paper", "Authors", "What it claims", "Source"))
    body = _framed(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>", "", "na-table na-papers")
    plain = "\n".join(f"{p.key}: {p.title}. {p.byline}" for p in found)
    display({"text/html": body, "text/plain": plain}, raw=True)


def glue(name: str, value: Any, fmt: str | None = None) -> None:
    """Keep a measured number under a name, so that prose can show it with ``{glue:text}`name```.

    Args:
        name: The name, unique in the chapter.
        value: The value.
        fmt: A format such as ``".1%"`` or ``".3f"``; numbers default to four significant digits.
    """
    text = value if isinstance(value, str) else format(float(value), fmt) if fmt else format_number(float(value))
    key = "application/papermill.record/text/plain"
    display(
        {key: repr(text)}, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": key[: -len("text/plain")]}}
    )
