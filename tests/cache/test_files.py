"""Content on its way into a cache directory: whole, hashed, locked, and gone on every way out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from motools.cache import files, hash_content
from motools.cache.errors import CacheDirectoryMissing, CacheRequestError, StorageFailed
from motools.cache.files import CHUNK_SIZE_BYTES, Content, Staging, digest_of

SIZES = [0, 1, CHUNK_SIZE_BYTES - 1, CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES + 1, 3 * CHUNK_SIZE_BYTES]


class Halt(Exception):
    """What a check raises."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A cache directory without anything in it."""
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def staging(directory: Path) -> Iterator[Staging]:
    """One piece on its way into it."""
    with Staging(str(directory)) as one:
        yield one


def in_staging(directory: Path) -> list[str]:
    """The names that lie there."""
    place = directory / "staging"
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", ["bytes", "bytearray", "memoryview", "path", "text"])
def test_content_is_copied_and_hashed_as_hash_content_does(
    directory: Path, staging: Staging, tmp_path: Path, size: int, form: str
) -> None:
    """Whatever its form, over every edge of a chunk."""
    data = os.urandom(size)
    source = tmp_path / "source"
    source.write_bytes(data)
    forms: dict[str, Content] = {
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "path": source,
        "text": str(source),
    }
    staged = staging.stage(forms[form])
    assert (staged.digest, staged.size_bytes) == (hash_content(data), size)
    copy = directory / "staging" / staged.name.decode()
    assert copy.read_bytes() == data
    assert copy.stat().st_mode & 0o777 == 0o600
    assert digest_of(forms[form]) == (staged.digest, size)


def test_views_of_every_shape_are_content(staging: Staging) -> None:
    """Of words, and with steps: their bytes."""
    assert staging.stage(memoryview(b"abcdef")[::2]).digest == hash_content(b"ace")
    assert digest_of(memoryview(b"abcdefgh").cast("I"))[0] == hash_content(b"abcdefgh")


def test_copy_is_no_second_name_of_the_callers_file(directory: Path, staging: Staging, tmp_path: Path) -> None:
    """What the caller does to the original later does not reach the copy."""
    source = tmp_path / "source"
    source.write_bytes(b"before")
    staged = staging.stage(source)
    source.write_bytes(b"after!")
    copy = directory / "staging" / staged.name.decode()
    assert copy.read_bytes() == b"before"
    assert source.stat().st_nlink == 1


def test_file_system_that_clones_is_hashed_from_the_clone(
    directory: Path, staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash is of what is in the copy."""
    data = os.urandom(2 * CHUNK_SIZE_BYTES + 7)
    source = tmp_path / "source"
    source.write_bytes(data)

    def clone(file: int, request: int, descriptor: int) -> int:
        assert request == 0x40049409
        os.pwrite(file, os.pread(descriptor, len(data), 0), 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr("motools.cache.files.os.write", None)  # nothing else may write
    staged = staging.stage(source)
    assert staged.digest == hash_content(data)
    assert (directory / "staging" / staged.name.decode()).read_bytes() == data


def test_what_is_no_readable_regular_file_is_refused(directory: Path, staging: Staging, tmp_path: Path) -> None:
    """Each with its reason, none waits, and nothing is left."""
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[object, str]] = [
        (tmp_path, "is a directory"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "pipe", "no regular file"),
        ("/dev/zero", "no regular file"),
        ("a\0b", "null"),
        ("", "No such file"),
        (7, "not int"),
        (None, "not NoneType"),
        ('{"prompt": 1}\n' * 100, "give content as bytes"),
    ]
    for content, reason in cases:
        with pytest.raises(CacheRequestError, match=reason):
            staging.stage(content)  # type: ignore[arg-type]
    assert in_staging(directory) == []


@pytest.mark.parametrize("change", ["append", "truncate", "rewrite"])
@pytest.mark.parametrize("way", ["read", "clone"])
def test_source_that_changes_while_it_is_copied_is_refused(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, way: str
) -> None:
    """Whichever way it is copied, and however it changes."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3 * CHUNK_SIZE_BYTES)
    os.utime(source, ns=(1, 1))
    if way == "clone":
        monkeypatch.setattr(files, "_is_cloned", lambda one, other: bool(os.pwrite(other, os.pread(one, 10**8, 0), 0)))
    rounds = 0

    def check() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            with source.open("r+b") as file:
                if change == "truncate":
                    file.truncate(10)
                else:
                    file.seek(0, os.SEEK_END if change == "append" else os.SEEK_SET)
                    file.write(b"more")

    with Staging(str(directory)) as staging, pytest.raises(CacheRequestError, match="changed while it was copied"):
        staging.stage(source, check)
    assert in_staging(directory) == []


def test_file_that_is_appended_to_for_ever_has_an_end(staging: Staging, tmp_path: Path) -> None:
    """No more is read than was there at first."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * CHUNK_SIZE_BYTES)
    rounds = 0

    def grow() -> None:
        nonlocal rounds
        rounds += 1
        assert rounds < 10, "it reads on and on"
        with source.open("ab") as file:
            file.write(b"x" * CHUNK_SIZE_BYTES)

    with pytest.raises(CacheRequestError, match="changed"):
        staging.stage(source, grow)


def test_interrupted_copy_leaves_nothing(directory: Path) -> None:
    """Whatever ends it."""

    def halt() -> None:
        raise Halt

    with pytest.raises(Halt), Staging(str(directory)) as staging:
        staging.stage(b"x" * 10, halt)
    assert in_staging(directory) == []


def test_close_in_the_middle_of_a_copy_has_the_thread_remove_it(directory: Path) -> None:
    """A task that was cancelled does not wait for its thread."""
    staging = Staging(str(directory))
    is_copying, may_go_on = threading.Event(), threading.Event()

    def check() -> None:
        is_copying.set()
        assert may_go_on.wait(10)

    thread = threading.Thread(target=staging.stage, args=(b"x" * 10, check))
    thread.start()
    assert is_copying.wait(10)
    staging.close()
    assert len(in_staging(directory)) == 1
    may_go_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert in_staging(directory) == []


def test_staged_file_is_locked_until_it_is_closed(directory: Path) -> None:
    """That is how a daemon that starts knows it from what a dead client left."""
    with Staging(str(directory)) as staging:
        path = directory / "staging" / staging.stage(b"x").name.decode()
        with path.open() as other:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            staging.close()
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_name_that_is_taken_away_before_it_is_locked_is_replaced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a daemon that just starts, and takes it for abandoned."""
    lock = fcntl.flock
    stolen: list[str] = []

    def steal_first(file: int, operation: int) -> None:
        if not stolen:
            (name,) = in_staging(directory)
            (directory / "staging" / name).unlink()
            stolen.append(name)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", steal_first)
    with Staging(str(directory)) as staging:
        staged = staging.stage(b"content")
        assert (directory / "staging" / staged.name.decode()).read_bytes() == b"content"
        assert staged.name.decode() not in stolen


def test_name_that_the_daemon_has_given_a_second_one_is_left_to_it(directory: Path) -> None:
    """Else a daemon killed in the middle could not tell a published file from a stored one."""
    with Staging(str(directory)) as staging:
        name = staging.stage(b"x").name.decode()
        os.link(directory / "staging" / name, directory / "published")
    assert in_staging(directory) == [name]


def test_forked_child_removes_nothing(directory: Path) -> None:
    """It leaves the same block as its parent."""
    with Staging(str(directory)) as staging:
        staging.stage(b"x")
        pid = os.fork()
        if pid == 0:
            staging.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert len(in_staging(directory)) == 1
    assert in_staging(directory) == []


def test_full_disk_is_said_and_leaves_nothing(directory: Path, tmp_path: Path) -> None:
    """A file size limit is the full disk that needs no root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_SIZE_BYTES, before[1]))
    try:
        with (
            Staging(str(directory)) as staging,
            pytest.raises(StorageFailed, match=r"disk is full .* nothing of this was stored"),
        ):
            staging.stage(b"x" * 3 * CHUNK_SIZE_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert in_staging(directory) == []


def test_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    """It was there when the daemon answered."""
    with Staging(str(tmp_path / "none")) as staging, pytest.raises(CacheDirectoryMissing, match="none"):
        staging.stage(b"x")


def test_staging_that_leads_elsewhere_is_not_followed(directory: Path, tmp_path: Path) -> None:
    """Nothing is written outside of the cache directory."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (directory / "staging").symlink_to(elsewhere)
    with Staging(str(directory)) as staging, pytest.raises(StorageFailed, match=r"could not be copied.*remove it"):
        staging.stage(b"x")
    assert list(elsewhere.iterdir()) == []


def test_closing_twice_and_closing_unused_do_nothing(directory: Path) -> None:
    """As everywhere."""
    staging = Staging(str(directory))
    staging.close()
    staging.close()
    with contextlib.closing(Staging(str(directory))) as used:
        used.stage(b"x")
        used.close()
    assert in_staging(directory) == []


def test_disk_that_does_not_even_tell_keeps_no_descriptor_open(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: closing raises nothing, and the disk can be unmounted."""

    def fail(_descriptor: int) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")

    before = len(list(Path("/proc/self/fd").iterdir()))
    with Staging(str(directory)) as staging:
        staging.stage(b"x")
        monkeypatch.setattr("os.fstat", fail)
    monkeypatch.undo()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
