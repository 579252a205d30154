"""Logging never fails and keeps nothing back, whatever the disk does."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from motoolsd.adapters.logfile import LogFile


@pytest.fixture
def path(short_dir: Path) -> Path:
    """Of the log."""
    return short_dir / "log"


@pytest.fixture
def log(path: Path) -> Iterator[LogFile]:
    """Open."""
    handler = LogFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    yield handler
    handler.close()


def say(log: LogFile, text: str) -> None:
    """Log a line."""
    log.handle(logging.LogRecord("motoolsd", logging.INFO, "", 0, text, None, None))


def test_each_record_is_a_line_at_once(log: LogFile, path: Path) -> None:
    """Names that are no UTF-8 are escaped."""
    say(log, "one")
    say(log, "caf\udce9")
    assert path.read_text() == "one\ncaf\\udce9\n"


def test_what_has_no_room_is_dropped_and_counted(log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next line that has room says how many are missing."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    say(log, "before")
    with monkeypatch.context() as full:
        full.setattr(os, "write", fail)
        say(log, "lost")
        say(log, "lost")
    say(log, "after")
    assert path.read_text() == "before\n(no room for 2 lines before this one)\nafter\n"


def test_line_after_a_torn_one_begins_a_line(log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that becomes full takes a part."""
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
        say(log, "torn apart")
    say(log, "whole")
    assert path.read_text() == "tor\nwhole\n"


def test_closed_log_takes_nothing(log: LogFile, path: Path) -> None:
    """Whoever logs while the process ends is not failed by it."""
    log.close()
    say(log, "late")
    assert path.read_text() == ""


def test_record_that_cannot_be_formatted_fails_nobody(
    log: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with every handler."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log.handle(logging.LogRecord("motoolsd", logging.INFO, "", 0, "%d", ("x",), None))
    assert path.read_text() == ""
