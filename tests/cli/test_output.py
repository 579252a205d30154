"""Printing: encodings, closed pipes, full disks, terminals."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
import typer

from motools.cli import output
from motools.cli.options import Format
from motools.cli.output import confirm, pairs, print_document, print_items, say, say_error, write
from motools.cli.tables import Column, Item, plain

TIMEOUT_S = 60.0
COLUMNS = (Column("name", plain("name")), Column("value", plain("value"), is_number=True))
ITEM = {"name": "a", "value": 1}


class Stdout:
    """Stands for sys.stdout with an encoding of the test's choice, and keeps the bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
        """Replace stdout until the test ends."""
        self._raw = io.BytesIO()
        self._text = io.TextIOWrapper(self._raw, encoding=encoding)
        monkeypatch.setattr(sys, "stdout", self._text)

    @property
    def bytes(self) -> bytes:
        """What arrived."""
        return self._raw.getvalue()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Takes stdout for a terminal of 80 columns; the patch, to change more."""
    monkeypatch.setattr(output, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


def in_process(program: str, **options: int) -> subprocess.CompletedProcess[bytes]:
    """Run a program that prints, with a stdout of the test's choice."""
    command = [sys.executable, "-c", f"from motools.cli.output import *; {program}"]
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_file_name_that_is_no_utf8_leaves_as_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that came as bytes goes as the same bytes."""
    stdout = Stdout(monkeypatch, "utf-8")
    write(b"evals/\xff\xc3\xa9.eval\n".decode("utf-8", "surrogateescape"))
    assert stdout.bytes == b"evals/\xff\xc3\xa9.eval\n"


def test_character_that_stdout_cannot_hold_leaves_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow locale is no reason to fail."""
    stdout = Stdout(monkeypatch, "latin-1")
    write("é 日\n")
    assert stdout.bytes == b"\xe9 \\u65e5\n"


@pytest.mark.slow
def test_closed_pipe_ends_quietly() -> None:
    """A reader that has seen enough ends the command with 0 and without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = in_process("import typer; typer.run(lambda: write('x' * 100_000))", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_full_disk_is_an_error_with_words() -> None:
    """What cannot be written is said, once."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = in_process("write('x')", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.endswith(b"OutputFailed: the output cannot be written: No space left on device\n")
    assert done.stderr.count(b"No space left") == 2, "as the cause, and as our error; not once more at exit"


def test_closed_stdout_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command started with `>&-` has nowhere to print."""
    monkeypatch.setattr(sys, "stdout", None)
    write("nobody reads this")
    print_items([ITEM], ["name", "value"], COLUMNS, Format.TABLE)


def test_reader_that_is_gone_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is computed for nobody."""
    discarded: list[bool] = []
    monkeypatch.setattr(output, "_discard_stdout", lambda: discarded.append(True))

    class Closed(io.TextIOWrapper):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed(io.BytesIO(), "utf-8"))
    with pytest.raises(typer.Exit) as end:
        write("x")
    monkeypatch.undo()
    assert (end.value.exit_code, discarded) == (0, [True])


def test_json_is_ascii_and_one_item_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A list is one JSON text whose items can be searched line by line, in any locale."""
    print_items([ITEM, {"name": "é\x9b\n", "value": None}], ["name", "value"], COLUMNS, Format.JSON)
    text = capsys.readouterr().out
    assert text.isascii()
    assert text.splitlines()[1:] == [
        '{"name": "a", "value": 1},',
        '{"name": "\\u00e9\\u009b\\n", "value": null}',
        "]}",
    ]
    assert json.loads(text)["items"][1]["name"] == "é\x9b\n"


def test_csv_quotes_what_it_must(capsys: pytest.CaptureFixture[str]) -> None:
    """Commas, quotes and line ends survive; nothing known is empty; objects and truth values are JSON."""
    items: list[Item] = [{"name": 'a,"b"\nc', "value": None}, {"name": {"lr": 1e-4}, "value": True}]
    print_items(items, ["name", "value"], COLUMNS, Format.CSV)
    assert capsys.readouterr().out == 'name,value\n"a,""b""\nc",\n"{""lr"": 0.0001}",true\n'


def test_csv_at_a_terminal_is_escaped(terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was stored is not obeyed by a terminal, whatever the format."""
    print_items([{"name": "\x1b[2J", "value": 1}], ["name", "value"], COLUMNS, Format.CSV)
    assert capsys.readouterr().out == "name,value\n\\x1b[2J,1\n"


def test_heading_stands_out_at_a_terminal(terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A table's heading is bold, and nothing else is."""
    print_items([ITEM], ["name", "value"], COLUMNS, Format.TABLE)
    assert capsys.readouterr().out == "\x1b[1mname  value\x1b[0m\na         1\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_style_where_none_is_wanted(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """NO_COLOR is honoured, and so is a terminal that can do nothing."""
    terminal.setenv(name, value)
    print_items([ITEM], ["name", "value"], COLUMNS, Format.TABLE)
    assert "\x1b" not in capsys.readouterr().out


def test_table_too_wide_for_the_terminal_becomes_blocks(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids stay whole at 80 columns."""
    print_items([{"name": "n" * 64, "value": "v" * 64}], ["name", "value"], COLUMNS, Format.TABLE)
    assert capsys.readouterr().out == f"name   {'n' * 64}\nvalue  {'v' * 64}\n"


def test_nothing_is_cut_where_stdout_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe has no width, whatever COLUMNS says."""
    monkeypatch.setenv("COLUMNS", "20")
    print_items([{"name": "n" * 500, "value": 1}], ["name", "value"], COLUMNS, Format.TABLE)
    assert capsys.readouterr().out.splitlines()[1] == f"{'n' * 500}      1"


def test_document_is_pairs_for_people_and_flat_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """One object: names and values, one JSON object with a head, or one line without."""
    for form in (Format.TABLE, Format.JSON, Format.JSONL, Format.CSV):
        print_document({"num": 2}, pairs([("number", "2")]), form)
    table, *rest = capsys.readouterr().out.split("\n", 1)
    assert table == "number  2"
    document, _, lines = rest[0].partition("\n}\n")
    assert json.loads(f"{document}}}")["num"] == 2
    assert lines == '{"num": 2}\nnum\n2\n'


def test_messages_go_to_stderr_and_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A message with a hostile path in it cannot move the cursor; its line ends stay."""
    say("first\nsecond \x1b[2J")
    say_error("no such thing")
    assert capsys.readouterr() == ("", "first\nsecond \\x1b[2J\nmotools: error: no such thing\n")


def test_messages_at_a_terminal_break_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody with 20 columns reads whole words; a file or a pipe gets the line as it is."""
    monkeypatch.setenv("COLUMNS", "20")
    say("one two three four five")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say("one two three four five")
    assert capsys.readouterr().err == "one two three four five\none two three four\nfive\n"


@pytest.mark.parametrize(
    ("typed", "answer"), [("y\n", "yes"), (" YES \n", "yes"), ("n\n", "no"), ("\n", "no"), ("yep\n", "no")]
)
def test_only_yes_is_a_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, answer: str
) -> None:
    """The question stands on stderr and has No for its answer unless yes is typed."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert confirm("Remove it?") is (answer == "yes")
    assert capsys.readouterr() == ("", "Remove it? [y/N] ")


def test_end_of_input_is_a_no_and_ends_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-D the next message begins on a line of its own."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert confirm("Remove it?") is False
    assert capsys.readouterr().err == "Remove it? [y/N] \n"
