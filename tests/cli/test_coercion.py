"""Options that are read without pydantic, and mean what typer would have them mean."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner, Result

from motools.cli.coercion import Command, Group, read_choice


class Colour(StrEnum):
    """Something to choose from."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"


Given = dict[str, Any]


def make_app(given: list[Given], *, plainly: bool) -> typer.Typer:
    """An app with a parameter of each type that our commands have, read plainly or as typer does."""
    app = typer.Typer(cls=Group if plainly else None, rich_markup_mode=None)

    @app.callback()
    def group(*, loud: bool = False) -> None:
        given.append({"loud": loud})

    @app.command(cls=Command if plainly else None)
    def paint(
        colour: Colour,
        *,
        name: Annotated[str, typer.Option("--name", "-n", envvar="PAINT_NAME")] = "nobody",
        title: str | None = None,
        tags: Annotated[list[str] | None, typer.Option("--tag")] = None,
        undercoat: Colour = Colour.BLUE,
        dry: Annotated[bool, typer.Option("--dry", "-y")] = False,
        coats: Annotated[int, typer.Option(min=1)] = 1,
    ) -> None:
        given.append(
            {
                "colour": colour,
                "name": name,
                "title": title,
                "tags": tags,
                "undercoat": undercoat,
                "dry": dry,
                "coats": coats,
            }
        )

    return app


def run_both(arguments: str, environment: dict[str, str] | None = None) -> tuple[Result, Result, list[Given]]:
    """What comes of a command line, plainly and typer's way, which must have called the same functions alike."""
    results, calls = [], []
    for plainly in (True, False):
        given: list[Given] = []
        app = make_app(given, plainly=plainly)
        results.append(CliRunner(env=environment).invoke(app, arguments.split(), prog_name="paint"))
        calls.append(given)
    assert calls[0] == calls[1]
    types = [[{name: type(value) for name, value in call.items()} for call in given] for given in calls]
    assert types[0] == types[1]
    return results[0], results[1], calls[0]


@pytest.mark.parametrize(
    "arguments",
    [
        "paint red",
        "--loud paint green -y",
        "--no-loud paint red --undercoat green",
        "paint --name a red",
        "paint red --name=",
        "paint red -na --coats 3",
        "paint red --tag one --tag two --tag one",
        "paint red --title x=y",
        "paint red --undercoat blue --undercoat red",
        "paint -- red",
    ],
)
@pytest.mark.parametrize("environment", [{}, {"PAINT_NAME": "from outside"}, {"PAINT_NAME": ""}])
def test_values_are_those_that_typer_gives(arguments: str, environment: dict[str, str]) -> None:
    """Whatever way an option is written, the function is called with equal values of equal types."""
    plain, typers, given = run_both(arguments, environment)
    assert plain.exit_code == typers.exit_code == 0, plain.output
    assert len(given) == 2
    assert isinstance(given[1]["colour"], Colour)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nothing",
        "paint",
        "paint mauve",
        "paint red green",
        "paint red --undercoat Red",
        "paint red --undercoat",
        "paint red --dry=yes",
        "paint red --coats 0",
        "paint red --coats many",
        "paint red --unknown",
    ],
)
def test_mistakes_are_mistakes_as_with_typer(arguments: str) -> None:
    """A bad command line calls nothing and exits 2, whoever reads it."""
    plain, typers, _ = run_both(arguments)
    assert plain.exit_code == typers.exit_code == 2


@pytest.mark.parametrize("arguments", ["--help", "paint --help"])
def test_help_is_typers(arguments: str) -> None:
    """What the help shows does not change."""
    plain, typers, _ = run_both(arguments)
    assert (plain.exit_code, plain.output) == (0, typers.output)


def test_a_bad_choice_is_told_the_good_ones() -> None:
    """The message names the value, the parameter and what it may be."""
    plain, _, _ = run_both("paint red --undercoat mauve")
    assert "'--undercoat': 'mauve' is not red, green or blue" in plain.output
    assert "Traceback" not in plain.output


def test_a_choice_is_one_of_the_words() -> None:
    """Upper case, parts and other names of a word are none."""
    assert read_choice(Colour, "red") is Colour.RED
    for text in ("RED", "re", "", "red "):
        with pytest.raises(ValueError, match="is not red, green or blue"):
            read_choice(Colour, text)


LOADED = """
import sys
from motools.cli import main
sys.argv = ["motools", *sys.argv[1:]]
try:
    main()
finally:
    names = {"motools.cli.coercion", "motools.cache.utils", "pydantic", "rich"}
    print(*sorted(names & sys.modules.keys()), file=sys.stderr)
"""
"""Runs a command line and says, on the last line, which of these modules it took."""


@pytest.mark.slow
@pytest.mark.parametrize("words", ["cache stats", "cache list evals --model-id m --json", "daemon status --json"])
def test_a_command_is_read_without_pydantic(tmp_path: Path, words: str) -> None:
    """Commands load neither pydantic nor rich to read their options, which would take longer than what they do."""
    command = [sys.executable, "-c", LOADED, *words.split(), "--cache-dir", str(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "motools.cli.coercion" in loaded
    assert not loaded & {"pydantic", "rich"}
