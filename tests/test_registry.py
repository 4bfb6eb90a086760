"""The registry of papers is whole, and finds what a reader looks for."""

import pytest

from netatlas.registry import chapter_papers, find_paper, papers


def test_every_paper_is_whole():
    assert len(papers()) == 236
    for paper in papers().values():
        assert paper.title and paper.authors and paper.chapter and paper.part
        assert 1950 < paper.year < 2030
        assert str(paper.year) in paper.key and paper.byline.endswith(f"({paper.year})")


def test_written_chapters_have_claims():
    for chapter, count in (("merging", 3), ("embeddings", 7)):
        assert len(chapter_papers(chapter)) == count
        assert all(paper.claim.endswith(".") for paper in chapter_papers(chapter))


def test_near_keys_are_suggested():
    with pytest.raises(KeyError, match="grover2016node2vec"):
        find_paper("grover2016node2vek")
