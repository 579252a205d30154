"""The end of a log, and what is added to it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motools.cache import CacheDirectoryMissing
from motools.cli.logs import BLOCK_SIZE_BYTES, follow, open_log, read_last_lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log that does not exist yet."""
    return tmp_path / "motoolsd.log"


class Events:
    """Stands in for the pauses: what happens to the log during each of them."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        """One happening a pause; more pauses than that are a failure."""
        self._happenings = list(happenings)

    def __call__(self, seconds: float) -> None:
        """Pause."""
        assert seconds > 0
        self._happenings.pop(0)()


def append(path: Path, data: bytes) -> Callable[[], object]:
    """Write to the end of the log, later."""

    def happen() -> None:
        with path.open("ab") as file:
            file.write(data)

    return happen


def nothing() -> None:
    """Let time pass."""


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.translate(None, b"\r\n")), max_size=30),
    is_whole=st.booleans(),
    count=st.integers(0, 40),
)
def test_the_last_lines_are_those_of_the_whole_text(lines: list[bytes], is_whole: bool, count: int) -> None:  # noqa: FBT001
    """However many lines there are, and with or without a line's end at the end: the last ones, as they are."""
    text = b"\n".join(lines) + (b"\n" if is_whole else b"")
    expected = text.splitlines(keepends=True)
    file = io.BytesIO(text)
    assert read_last_lines(file, count) == b"".join(expected[len(expected) - min(count, len(expected)) :])
    assert file.tell() == len(text), "what is added is read next"


class CountingFile(io.BytesIO):
    """Counts the bytes that are read."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read."""
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def test_the_end_of_a_large_log_is_read_without_the_rest() -> None:
    """The last line of a log of many blocks costs one block."""
    file = CountingFile(b"a line of a log\n" * BLOCK_SIZE_BYTES)
    assert read_last_lines(file, 1) == b"a line of a log\n"
    assert file.read_bytes == BLOCK_SIZE_BYTES


def test_many_lines_of_a_large_log_are_read_in_linear_time() -> None:
    """Asking for more lines than there are reads the log a few times, not once for each of its blocks."""
    text = b"a line of a log\n" * (4 * BLOCK_SIZE_BYTES)
    file = CountingFile(text)
    assert read_last_lines(file, 10**9) == text
    assert file.read_bytes <= 3 * len(text)


def test_lines_longer_than_a_block_stay_whole() -> None:
    """A line is found back to its beginning, however far that is."""
    long = b"x" * (3 * BLOCK_SIZE_BYTES) + b"\n"
    assert read_last_lines(io.BytesIO(b"first\n" + long), 1) == long


def test_what_is_added_is_followed(log: Path) -> None:
    """Text that comes later is given when it has come."""
    log.write_bytes(b"before\n")
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        followed = follow(log, file, Events(append(log, b"one\n"), nothing, append(log, b"two\n")))
        assert [next(followed), next(followed)] == ["one\n", "two\n"]


def test_a_character_that_comes_in_two_parts_is_one(log: Path) -> None:
    """Bytes are decoded over the borders of what was read; bytes that are no UTF-8 are shown as escapes."""
    log.touch()
    with log.open("rb") as file:
        followed = follow(log, file, Events(append(log, b"\xc3"), append(log, b"\xa9 \xff\n")))
        assert next(followed) + next(followed) == "é \\xff\n"


def test_a_log_that_was_replaced_is_read_from_its_beginning(log: Path) -> None:
    """Somebody moves the log away and the daemon makes a new one: following goes on there."""
    log.write_bytes(b"old, and longer than the new one\n")

    def move() -> None:
        log.rename(log.with_suffix(".1"))

    with log.open("rb") as file:
        followed = follow(log, file, Events(move, append(log, b"new\n"), nothing))
        assert next(followed) == "old, and longer than the new one\n"
        assert next(followed) == "new\n"
        followed.close()


def test_the_last_words_of_a_log_that_is_replaced_are_not_missed(log: Path) -> None:
    """What came between the last look and the replacement is given first."""
    log.touch()

    def replace() -> None:
        append(log, b"last words\n")()
        log.rename(log.with_suffix(".1"))
        log.write_bytes(b"new\n")

    with log.open("rb") as file:
        followed = follow(log, file, Events(replace, nothing))
        assert [next(followed), next(followed)] == ["last words\n", "new\n"]
        followed.close()


def test_a_log_that_was_emptied_is_read_from_its_beginning(log: Path) -> None:
    """Somebody truncates the log: what is written then is not missed."""
    log.write_bytes(b"old, and longer than the new one\n")
    with log.open("rb") as file:
        followed = follow(log, file, Events(lambda: os.truncate(log, 0), append(log, b"new\n")))
        assert next(followed) == "old, and longer than the new one\n"
        assert next(followed) == "new\n"


def test_a_missing_log_is_an_error_that_says_what_to_do(log: Path) -> None:
    """No log means that no daemon has run there; the text names the place and the command."""
    with pytest.raises(CacheDirectoryMissing, match=r"no log .*motoolsd\.log.*motools daemon start"):
        open_log(log)


def test_a_log_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    """No OSError reaches the user; reading a folder instead of a file is one."""
    (tmp_path / "file").touch()
    with pytest.raises(CacheDirectoryMissing, match="cannot be read"):
        open_log(tmp_path / "file" / "motoolsd.log")
