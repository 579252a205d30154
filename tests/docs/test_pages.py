"""Every example of the README and the guide does what its page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks_of, check_languages, run_page

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {"README.md": 1, "docs/getting-started.md": 1, "docs/deployment.md": 1}
"""How many blocks of a page are left out, each with its reason in the page: a new one is to be noticed here."""


def name_of(path: Path) -> str:
    """The page's name, for the reports."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_do_what_the_page_says(page: Path, short_dir: Path) -> None:
    """All blocks run in order in an empty directory, and print what is shown."""
    run_page(page, short_dir)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_known_and_those_left_out_are_counted(page: Path) -> None:
    """A block is run, checked or plain text; the few that cannot be run say why."""
    blocks = blocks_of(page)
    check_languages(page, blocks)
    left_out = [block.not_run for block in blocks if block.not_run is not None]
    assert len(left_out) == NOT_RUN.get(name_of(page), 0), left_out
