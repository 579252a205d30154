"""The tree of commands: help, version, what is loaded, and how errors end a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from motools.cache import CacheError, DaemonNotRunning, StorageFailed, __version__
from motools.cli import cache as cache_commands
from motools.cli.output import OutputFailed
from tests.cli.conftest import Motools, without_filters

COMMANDS = [
    *(["cache", name] for name in ("list", "stats", "size", "clear", "leases")),
    *(["daemon", name] for name in ("start", "stop", "restart", "status", "logs", "run")),
    ["run"],
]
WORDS_OF_PROCESS = [sys.executable, "-c", "from motools.cli import main; main()"]
TIMEOUT_S = 60.0


def failing(error: BaseException) -> Callable[[str], object]:
    """What stands in for a cache that fails."""

    def fail(_directory: str) -> object:
        raise error

    return fail


def test_version_is_that_of_the_package(motools: Motools) -> None:
    """`motools --version` prints one line."""
    assert motools("--version") == (0, f"motools {__version__}\n", "")


@pytest.mark.parametrize("words", [[], ["cache"], ["daemon"]])
def test_help_of_a_group_names_its_commands(motools: Motools, words: list[str]) -> None:
    """Somebody new finds every command, each with a line that says what it does."""
    done = motools(*words, "--help")
    assert done.code == 0
    names = [name for *group, name in COMMANDS if group == words] + ([] if words else ["cache", "daemon"])
    described = {line.split()[0] for line in done.out.splitlines() if line.startswith("  ") and "  " in line.strip()}
    assert described >= set(names)


@pytest.mark.parametrize("words", COMMANDS)
def test_help_of_a_command_has_an_example_and_fits_a_terminal(motools: Motools, words: list[str]) -> None:
    """Each command says in a line what it does and how it is typed, within 80 columns and 24 lines, filters apart."""
    done = motools(*words, "-h")
    assert done.code == 0
    assert f"Example: motools {' '.join(words)}" in done.out
    assert "--cache-dir DIR" in done.out
    lines = without_filters(done.out)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", [[], ["cache"], ["daemon"]])
def test_no_command_shows_help_and_is_a_usage_error(motools: Motools, words: list[str]) -> None:
    """A group alone shows its help, on stderr, because nothing was done."""
    done = motools(*words)
    assert (done.code, done.out) == (2, "")
    assert "Commands:" in done.err


def test_usage_error_says_where_help_is(motools: Motools) -> None:
    """An unknown option is said in plain text, with the command to type for help."""
    done = motools("cache", "stats", "--jsn")
    assert (done.code, done.out) == (2, "")
    assert "Try 'motools cache stats --help' for help." in done.err
    assert "--json" in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [(DaemonNotRunning("no daemon: type this"), 69), (StorageFailed("disk full"), 1), (CacheError("else"), 1)],
)
def test_error_is_one_line_and_a_code(
    motools: Motools, monkeypatch: pytest.MonkeyPatch, error: CacheError, code: int
) -> None:
    """A CacheError ends a command with its text and its code, without a traceback."""
    monkeypatch.setattr(cache_commands, "open_utils", failing(error))
    assert motools("cache", "stats") == (code, "", f"motools: error: {error}\n")


def test_output_that_cannot_be_written_is_an_error(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bare OSError reaches the user."""
    monkeypatch.setattr(cache_commands, "open_utils", failing(OutputFailed("disk full")))
    assert motools("cache", "stats") == (1, "", "motools: error: disk full\n")


def test_defect_keeps_its_traceback(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no CacheError is a defect of ours, and is not hidden."""
    monkeypatch.setattr(cache_commands, "open_utils", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        motools("cache", "stats")


def test_interrupt_ends_with_130(motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is told apart from failures."""
    monkeypatch.setattr(cache_commands, "open_utils", failing(KeyboardInterrupt()))
    assert motools("cache", "stats").code == 130


@pytest.mark.slow
def test_a_command_loads_little() -> None:
    """Reading a command line loads neither rich, pydantic nor an event loop: it would take longer than all the rest."""
    program = (
        "import atexit, sys; from motools.cli import main;"
        "atexit.register(lambda: print(*sorted({name.split('.')[0] for name in sys.modules})));"
        "main()"
    )
    words = ["cache", "list", "evals", "--model-id", "m", "--json", "--cache-dir", "/nowhere/.motools"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 3, done.stderr
    loaded = set(done.stdout.split())
    assert {"motools", "typer"} <= loaded
    assert not loaded & {"aiosqlite", "anyio", "asyncio", "importlib_metadata", "pydantic", "rich", "sqlite3", "uvloop"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("motools cache list ", {"datasets", "models", "evals"}),
        ("motools cache clear ", {"datasets", "models", "evals", "all"}),
        ("motools cache stats --format ", {"table", "json", "jsonl", "csv"}),
        ("motools daemon st", {"start", "stop", "status"}),
    ],
)
def test_shell_completes_commands_kinds_and_formats(typed: str, offered: set[str]) -> None:
    """What bash asks for when somebody presses Tab is answered."""
    asked = {"_MOTOOLS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    done = subprocess.run(
        WORDS_OF_PROCESS, env={**os.environ, **asked}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert set(done.stdout.split()) == offered, done.stderr
