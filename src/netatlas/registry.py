"""The registry of papers: one source for tables, cards, the ledger and the bibliography."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass
from importlib import resources

import yaml


@dataclass(frozen=True)
class Paper:
    """One paper of the book.

    Attributes:
        key: Its key, ``firstauthorYEARword``.
        title, authors, year, arxiv: As published; ``arxiv`` may be empty.
        code: The authors' repository, ``owner/name``, or empty.
        chapter: The chapter that reproduces it.
        part: The part of the book.
        claim: The central claim in the book's own words; empty until the chapter is written.
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str
    code: str
    chapter: str
    part: str
    claim: str = ""

    @property
    def url(self) -> str:
        """The paper's page at arXiv, or an empty string."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def byline(self) -> str:
        """Authors as a reader cites them, such as ``Grover and Leskovec (2016)``."""
        if not self.authors:
            return f"{self.key} ({self.year})"
        last = [name.split()[-1] for name in self.authors]
        names = last[0] if len(last) == 1 else " and ".join(last) if len(last) == 2 else f"{last[0]} et al."
        return f"{names} ({self.year})"


@functools.cache
def papers() -> dict[str, Paper]:
    """Every paper of the book by its key."""
    text = resources.files("netatlas").joinpath("papers.yml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load(text, Loader=loader)  # CSafeLoader is the safe loader in C
    return {e["key"]: Paper(**{**e, "authors": tuple(e["authors"])}) for e in entries}


def chapter_papers(chapter: str) -> list[Paper]:
    """The papers of a chapter, in the book's order; none for a chapter that the registry lacks."""
    return [paper for paper in papers().values() if paper.chapter == chapter]


def find_paper(key: str) -> Paper:
    """The paper with this key.

    Raises:
        KeyError: For an unknown key; the message suggests near ones.
    """
    if key in papers():
        return papers()[key]
    near = difflib.get_close_matches(key, papers(), n=3, cutoff=0.5)
    raise KeyError(f"no paper has the key {key!r}" + (f"; near ones are {', '.join(near)}" if near else ""))
