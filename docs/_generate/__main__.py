"""`python -m docs._generate`: write docs/reference anew from the docstrings and the commands."""

from __future__ import annotations

from pathlib import Path

from docs._generate.api import api_page
from docs._generate.commands import commands_page

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def main() -> None:
    """Write both pages."""
    REFERENCE.mkdir(exist_ok=True)
    (REFERENCE / "api.md").write_text(api_page(), encoding="utf-8")
    (REFERENCE / "commands.md").write_text(commands_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
