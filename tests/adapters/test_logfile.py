"""Logging never fails and keeps nothing back, whatever the disk does."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from motoolsd.adapters.logfile import LogFile, open_log
from motoolsd.wire.names import EARLIER_LOG, LOG


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


@pytest.fixture
def directory(short_dir: Path) -> Iterator[int]:
    """Where a log is made."""
    descriptor = os.open(short_dir, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_full_log_is_set_aside_and_begun_anew(directory: int, short_dir: Path) -> None:
    """No line is lost or torn; the one before the last is gone."""
    log = LogFile(open_log(directory), directory, size_max_bytes=100)
    for number in range(30):
        say(log, f"line {number:03}")
    log.close()
    said = (short_dir / EARLIER_LOG).read_text() + (short_dir / LOG).read_text()
    assert said == "".join(f"line {number:03}\n" for number in range(30 - len(said) // 9, 30))
    assert (short_dir / EARLIER_LOG).stat().st_size == 108
    assert (short_dir / LOG).stat().st_mode & 0o777 == 0o600


def test_log_that_cannot_be_set_aside_grows(directory: int, short_dir: Path) -> None:
    """Lines count more than its size; nor is anybody else's file set aside."""
    log = LogFile(open_log(directory), directory, size_max_bytes=10)
    (short_dir / EARLIER_LOG).mkdir()
    for _ in range(3):
        say(log, "a line of some length")
    assert (short_dir / LOG).read_text().count("\n") == 3
    (short_dir / EARLIER_LOG).rmdir()
    (short_dir / LOG).rename(short_dir / "moved")
    (short_dir / LOG).write_text("somebody else's")
    say(log, "a line of some length")
    log.close()
    assert (short_dir / LOG).read_text() == "somebody else's"
    assert not (short_dir / EARLIER_LOG).exists()
