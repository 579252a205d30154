"""The reference is what the docstrings and the commands say, and the guide knows every word that they use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

import motools.cache
from docs._generate.api import api_page
from docs._generate.commands import commands_page
from motoolsd.wire.filters import FIELDS
from motoolsd.wire.reasons import Reason
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make"), [("api", api_page), ("commands", commands_page)])
def test_reference_is_up_to_date(name: str, make: Callable[[], str]) -> None:
    """What is committed is what the generator gives."""
    committed = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
    assert committed == make(), "run `make docs`"


def test_reference_names_everything_public() -> None:
    """Each name of the package has an entry."""
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    public = [name for name in motools.cache.__all__ if not name.startswith("_")]
    assert [name for name in public if f"### `{name}`\n" not in text] == []


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    """A script that reads `why --json` finds each of its words in the guide's table, with what to do."""
    rows = re.findall(rf"^\| `{reason.value}` \|(.+)\|(.+)\|$", (DOCS / "explaining.md").read_text(), re.MULTILINE)
    assert len(rows) == 1
    assert all(cell.strip() for cell in rows[0])


@pytest.mark.parametrize("field", sorted({name for fields in FIELDS.values() for name in fields}))
def test_every_field_of_conditions_is_listed(field: str) -> None:
    """What `--where` and `--sort` take stands in the guide."""
    assert f"`{field}`" in (DOCS / "filters.md").read_text()


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the repository finds it, and its heading."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target, heading in LINK.findall(text):
        if "://" in target:
            continue
        path = (page.parent / unquote(target)).resolve() if target else page
        if not path.exists() or (heading and heading not in headings_of(path)):
            broken.append(f"{target}#{heading}")
    assert broken == []


def headings_of(path: Path) -> set[str]:
    """The names by which a page's headings are linked."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
