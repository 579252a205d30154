"""`motools cache leases`: who computes what, and taking it away."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest

from motools.cache import CacheUtils
from motools.cache.entries import LeaseEntry
from motools.cli import cache as cache_commands
from motools.cli import output
from tests.cli.conftest import Motools

KEY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
FIELDS = ["kind", "key", "pid", "host", "command", "since", "token", "waiters"]
COMMAND = "python train.py --lr 0.1 " + "--verbose " * 30


def lease(kind: str, key: str, *, pid: int = 123, command: str = COMMAND) -> LeaseEntry:
    """One as the daemon lists it."""
    since = "2026-01-31T12:00:00.250Z"
    return LeaseEntry(kind=kind, key=key, pid=pid, host="box", command=command, since=since, token=7, waiters=2)


class LeasesOnly(CacheUtils):
    """The management API of a cache in which others compute."""

    def __init__(self, leases: list[LeaseEntry]) -> None:
        """Without a backend: nothing else is asked."""
        self.leases = leases
        self.is_open = True

    def close(self) -> None:
        """Nothing is open, but it counts."""
        self.is_open = False

    def list_leases(self) -> list[LeaseEntry]:
        """All, the oldest first."""
        return list(self.leases)

    def break_lease(self, key: str, kind: str | None = None) -> int:
        """As the daemon."""
        kept = [lease for lease in self.leases if lease.key != key or kind not in (None, lease.kind)]
        count = len(self.leases) - len(kept)
        self.leases = kept
        return count


class Keyboard(io.StringIO):
    """A terminal's input: what somebody types."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> LeasesOnly:
    """Three leases, two of them of the same key."""
    utils = LeasesOnly([lease("dataset", KEY), lease("model", KEY, pid=0), lease("eval", "m|t|inspect|")])
    monkeypatch.setattr(cache_commands, "open_utils", lambda _directory: utils)
    return utils


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Keyboard:
    """What is typed at the terminal."""
    keyboard = Keyboard()
    monkeypatch.setattr(sys, "stdin", keyboard)
    return keyboard


def kinds(utils: LeasesOnly) -> list[str]:
    """Of the leases that are left."""
    return [lease.kind for lease in utils.leases]


def test_table_shows_who_computes_what_with_whole_keys(utils: LeasesOnly, motools: Motools) -> None:
    """One line a lease where stdout is no terminal; an owner that cannot be seen has no pid."""
    done = motools("cache", "leases")
    heading, first, second, third = done.out.splitlines()
    assert heading.split() == ["key", "kind", "pid", "host", "command", "since", "(UTC)", "waiters"]
    assert first.split()[:4] == [KEY, "dataset", "123", "box"]
    assert first.split()[-3:] == ["2026-01-31", "12:00:00", "2"]
    assert COMMAND.strip() in first
    assert second.split()[:3] == [KEY, "model", "-"]
    assert "m|t|inspect|" in third
    assert (done.code, done.err, utils.is_open) == (0, "", False)


def test_lease_is_a_block_of_lines_at_a_narrow_terminal(
    utils: LeasesOnly, motools: Motools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset's key takes most of 80 columns; it stands first, whole, and the rest below each other."""
    monkeypatch.setattr(output, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    blocks = motools("cache", "leases").out.split("\n\n")
    names = ["key", "kind", "pid", "host", "command", "since", "waiters"]
    assert [[line.split()[0] for line in block.splitlines()] for block in blocks] == [names] * 3
    assert blocks[0].startswith(f"key          {KEY}\n")


def test_command_line_cannot_trick_the_terminal(utils: LeasesOnly, motools: Motools) -> None:
    """Whoever computes chooses what stands there."""
    utils.leases = [lease("dataset", "\x1b[2Jkey", command="train\n\x1b[31mred")]
    (line,) = motools("cache", "leases").out.splitlines()[1:]
    assert r"\x1b[2Jkey" in line
    assert r"train\n\x1b[31mred" in line
    done = motools("cache", "leases", "--break", "\x1b[2Jkey", "--yes")
    assert (done.code, "\x1b" in done.err) == (0, False)


def test_leases_for_programs(utils: LeasesOnly, motools: Motools) -> None:
    """Every field of the API, in JSON with a head, in JSON lines and in CSV."""
    document = json.loads(motools("cache", "leases", "--json").out)
    assert list(document) == ["schema_version", "as_of", "items"]
    assert [list(item) for item in document["items"]] == [FIELDS] * 3
    assert (document["items"][0]["pid"], document["items"][1]["pid"]) == (123, 0)
    lines = motools("cache", "leases", "--format", "jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == document["items"]
    rows = list(csv.DictReader(io.StringIO(motools("cache", "leases", "--format", "csv").out)))
    assert (list(rows[0]), rows[0]["key"]) == (FIELDS, KEY)


def test_one_kind_alone_is_listed(utils: LeasesOnly, motools: Motools) -> None:
    """`--kind` chooses; a kind that there is none of is named."""
    items = json.loads(motools("cache", "leases", "--kind", "model", "--json").out)["items"]
    assert [item["kind"] for item in items] == ["model"]
    done = motools("cache", "leases", "--kind", "song")
    assert done.code == 2
    assert "'song' is not dataset, model or eval" in done.err


def test_no_lease_is_said_on_stderr_only(utils: LeasesOnly, motools: Motools) -> None:
    """Nothing on stdout for people, an empty list for programs, and no failure."""
    utils.leases = []
    assert motools("cache", "leases", "-d", "/cache") == (0, "", "nobody computes anything in /cache\n")
    assert json.loads(motools("cache", "leases", "--json").out)["items"] == []
    assert motools("cache", "leases", "--format", "csv").out == ",".join(FIELDS) + "\n"


@pytest.mark.parametrize(
    ("words", "left", "said"),
    [
        ((KEY,), ["eval"], "broke 2 leases: "),
        ((KEY, "--kind", "dataset"), ["model", "eval"], f"broke 1 lease: dataset {KEY} of pid 123 (python train.py"),
        (("m|t|inspect|",), ["dataset", "model"], "broke 1 lease: eval m|t|inspect| of pid 123"),
    ],
)
def test_lease_is_broken_without_asking(
    utils: LeasesOnly, motools: Motools, words: tuple[str, ...], left: list[str], said: str
) -> None:
    """`--yes` is the answer; whose lease it was is said."""
    done = motools("cache", "leases", "--break", *words, "--yes")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(said)
    assert kinds(utils) == left


@pytest.mark.parametrize("words", [("unknown",), (KEY, "--kind", "eval"), (KEY[:8],)])
def test_key_that_nobody_holds_is_not_found(utils: LeasesOnly, motools: Motools, words: tuple[str, ...]) -> None:
    """Exit code 3, and where to look; the beginning of a key is not the key."""
    done = motools("cache", "leases", "--break", *words, "--yes")
    assert (done.code, done.out) == (3, "")
    assert f"nobody holds a lease of {words[0]}: see `motools cache leases`" in done.err
    assert len(kinds(utils)) == 3


def test_break_without_a_terminal_refuses(utils: LeasesOnly, motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script must say `--yes`; a `y` in a pipe is no answer."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    done = motools("cache", "leases", "--break", KEY)
    assert (done.code, done.out) == (2, "")
    assert "pass --yes" in done.err
    assert len(kinds(utils)) == 3


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 1), ("n\n", 1, 3), ("\n", 1, 3), ("", 1, 3)])
def test_break_asks_at_a_terminal(
    utils: LeasesOnly, typed: Keyboard, motools: Motools, answer: str, code: int, left: int
) -> None:
    """The question names the owners; anything but a yes breaks nothing."""
    typed.write(answer)
    typed.seek(0)
    done = motools("cache", "leases", "--break", KEY)
    assert done.code == code
    assert f"Break the lease of dataset {KEY} of pid 123" in done.err
    assert ("nothing was broken" in done.err) == (code != 0)
    assert len(kinds(utils)) == left
