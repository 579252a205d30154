"""Runs the examples of a Markdown page in order, as a reader would who copies them, and compares what they print.

Sybil finds the fenced blocks and the comments between them; `driver.py` runs them in one process for a page, so that a
later Python block knows the names of an earlier one. What each language means:

- `python`: run; `sh`, `bash`: run by `bash -e`; a `text` block directly after it is what it prints.
- `console`: what stands behind `$ ` is run, the lines below it are what it prints. A command may fail only if
  `$ echo $?` follows.
- `toml`, `json`, `yaml`: must be valid. Behind `<!-- file: NAME -->` it is written to that file.
- `text`, or no language: shown, not run.

In what is printed, `...` stands for anything within a line, alone on a line for any lines; white space counts as one
blank. `<!-- not run: REASON -->` right before a block leaves it out; what stands in a comment that begins with
`<!-- invisible-code-block: bash` is run and not shown.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from sybil import Document, Region
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer

ROOT: Final = Path(__file__).resolve().parents[2]
DRIVER: Final = Path(__file__).with_name("driver.py")
BIN: Final = Path(sys.executable).parent
PAGE_TIMEOUT_S: Final = 55
STOP_TIMEOUT_S: Final = 30

SHELLS: Final = frozenset({"bash", "sh"})
RUN: Final = SHELLS | {"console", "python"}
SHOWN: Final = frozenset({"", "text"})
DATA: Final[Mapping[str, Callable[[str], object]]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}


class BrokenExampleError(AssertionError):
    """An example that does not do what its page says."""

    def __init__(self, page: Path, line: int, problem: str) -> None:
        """Name the place as editors and terminals link it."""
        super().__init__(f"{page}:{line}: {problem}")


class Block(NamedTuple):
    """A fenced block, or one in a comment."""

    line: int
    """Of its first line of content, from 1."""
    language: str
    source: str
    not_run: str | None = None
    """Why it is left out."""
    file: str | None = None
    """Where it is written to."""
    printed: str | None = None
    """What the block directly after it shows."""


class Command(NamedTuple):
    """A line behind a `$`, and what stands below it."""

    line: int
    source: str
    printed: str


def blocks_of(path: Path) -> list[Block]:
    """The blocks of a page, in order.

    Raises:
        BrokenExampleError: a comment belongs to no block, or has no reason.
    """
    document = Document.parse(
        str(path),
        FencedCodeBlockLexer(language=r"[^\n]*?[ \t]*"),
        DirectiveInHTMLCommentLexer(r"not run|file", arguments=r"[^\n]*?"),
        DirectiveInHTMLCommentLexer(r"invisible-code-block", arguments=r"\w+"),
    )
    regions = [(example.line, example.region) for example in document]
    return list(_joined(path, document, regions))


def _joined(path: Path, document: Document, regions: list[tuple[int, Region]]) -> Iterator[Block]:
    """Blocks with the comments before them and what they print after them."""
    place = 0
    while place < len(regions):
        line, region = regions[place]
        place += 1
        notes: dict[str, str | None] = {}
        if (directive := region.lexemes.get("directive")) in ("not run", "file"):
            notes[directive.replace(" ", "_")] = region.lexemes["arguments"].strip()
            if not all(notes.values()) or place == len(regions) or not _touch(document, region, regions[place][1]):
                raise BrokenExampleError(path, line, f"<!-- {directive}: ... --> says what, right before a block")
            line, region = regions[place]
            place += 1
        block = _block(line, region, notes)
        if block.language in RUN and place < len(regions) and block.not_run is None:
            after = regions[place][1]
            if "language" in after.lexemes and _touch(document, region, after):
                shown = _block(place, after, {})
                if shown.language in SHOWN:
                    block = block._replace(printed=shown.source)
                    place += 1
        yield block


def _block(line: int, region: Region, notes: Mapping[str, str | None]) -> Block:
    language = region.lexemes.get("language") or region.lexemes.get("arguments") or ""
    return Block(line + 1, language.strip(), region.lexemes["source"] or "", **notes)


def _touch(document: Document, before: Region, after: Region) -> bool:
    """Whether there is nothing between two regions but the end of a comment."""
    return document.text[before.end : after.start].strip() in ("", "-->")


def check_languages(path: Path, blocks: list[Block]) -> None:
    """Make sure that each block is one that is run, checked, or known to be only shown.

    Raises:
        BrokenExampleError: it is not.
    """
    for block in blocks:
        if block.language not in {*RUN, *SHOWN, *DATA}:
            known = ", ".join(sorted({*RUN, *SHOWN, *DATA} - {""}))
            raise BrokenExampleError(path, block.line, f"nobody runs ```{block.language}: known are {known}")
        if block.language in SHOWN and block.source.startswith("$ "):
            raise BrokenExampleError(path, block.line, "this shows commands: write ```console, and it is run")
        if block.language in DATA and block.not_run is None:
            try:
                DATA[block.language](block.source)
            except (ValueError, yaml.YAMLError) as error:
                raise BrokenExampleError(path, block.line, f"no valid {block.language}: {error}") from error


def commands_of(block: Block) -> list[Command]:
    """The commands of a `console` block; a line that begins with `> ` goes on with the one above."""
    commands: list[Command] = []
    for number, line in enumerate(block.source.splitlines(), block.line):
        if line.startswith("$ "):
            commands.append(Command(number, line[2:], ""))
        elif not commands:
            raise ValueError(f"line {number}: a console block begins with a command: $ ...")
        elif line.startswith("> ") and not commands[-1].printed:
            commands[-1] = commands[-1]._replace(source=f"{commands[-1].source}\n{line[2:]}")
        else:
            commands[-1] = commands[-1]._replace(printed=f"{commands[-1].printed}{line}\n")
    return commands


def run_page(path: Path, scratch: Path) -> list[Block]:
    """Run everything that a page shows.

    Args:
        path: the page.
        scratch: an empty directory with a short path, for everything that the examples touch.

    Returns:
        The blocks that were left out.

    Raises:
        BrokenExampleError: an example failed, or printed something else.
    """
    blocks = blocks_of(path)
    check_languages(path, blocks)
    wanted = [block for block in blocks if block.not_run is None and (block.language in RUN or block.file)]
    environment = _environment(scratch)
    work = scratch / "w"
    try:
        results = _drive(path, [_step(path, block) for block in wanted], scratch, environment)
    finally:
        _stop_daemons(work, environment)
    for block, result in zip(wanted, results, strict=False):
        _check(path, block, result)
    assert len(results) == len(wanted), "the driver ends early only after a failure"
    return [block for block in blocks if block.not_run is not None]


def _step(path: Path, block: Block) -> dict[str, Any]:
    """A block as the driver takes it."""
    step: dict[str, Any] = {"line": block.line, "language": block.language, "source": block.source, "file": block.file}
    if block.language == "console":
        try:
            step["commands"] = [command.source for command in commands_of(block)]
        except ValueError as error:
            raise BrokenExampleError(path, block.line, str(error)) from error
    return step


def _environment(scratch: Path) -> dict[str, str]:
    """Nothing of the developer's, and directories of its own."""
    for name in ("w", "h", "t"):
        (scratch / name).mkdir()
    return {
        "HOME": str(scratch / "h"),
        "LANG": "C.UTF-8",
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(scratch / "t"),
        "TZ": "UTC",
        "USER": "ann",
    }


def _drive(path: Path, steps: list[dict[str, Any]], scratch: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    plan, results = scratch / "steps.json", scratch / "results.jsonl"
    plan.write_text(json.dumps({"page": str(path), "steps": steps}))
    results.touch()
    command = [sys.executable, str(DRIVER), str(plan), str(results)]
    with subprocess.Popen(
        command, cwd=scratch / "w", env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    ) as driver:
        try:
            driver.wait(PAGE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(driver.pid, signal.SIGKILL)
            line = steps[len(results.read_text().splitlines())]["line"]
            raise BrokenExampleError(path, line, f"the page was not done after {PAGE_TIMEOUT_S} s") from None
    return [json.loads(line) for line in results.read_text().splitlines()]


def _stop_daemons(work: Path, environment: dict[str, str]) -> None:
    for socket in work.rglob("motoolsd.sock"):
        command = [str(BIN / "motools"), "daemon", "stop", "--cache-dir", str(socket.parent)]
        subprocess.run(command, env=environment, check=True, timeout=STOP_TIMEOUT_S, capture_output=True)


def _check(path: Path, block: Block, result: Mapping[str, Any]) -> None:
    if block.language == "console":
        _check_commands(path, block, result["commands"])
    elif result["status"]:
        raise BrokenExampleError(path, block.line, f"it failed with {result['status']}:\n{result['output']}")
    elif block.printed is not None and not fits(block.printed, result["output"]):
        raise BrokenExampleError(path, block.line, _other(block.printed, result["output"]))


def _check_commands(path: Path, block: Block, results: list[tuple[int, str]]) -> None:
    commands = commands_of(block)
    for place, (command, (status, output)) in enumerate(zip(commands, results, strict=True)):
        is_told = place + 1 < len(commands) and commands[place + 1].source == "echo $?"
        if status and not is_told:
            raise BrokenExampleError(path, command.line, f"`{command.source}` failed with {status}:\n{output}")
        if not fits(command.printed, output):
            raise BrokenExampleError(path, command.line, _other(command.printed, output))


def _other(expected: str, printed: str) -> str:
    return f"it is said to print\n\n{expected}\nand prints\n\n{printed}"


def fits(expected: str, printed: str) -> bool:
    """Whether what was printed is what is shown, with `...` for what differs from run to run."""
    pattern = "".join(map(_line_pattern, _lines(expected)))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))) is not None


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().splitlines()]


def _line_pattern(line: str) -> str:
    if line == "...":
        return r"(?:[^\n]*\n)*?"
    return "[^\n]*?".join(map(re.escape, line.split("..."))) + r"\n"
