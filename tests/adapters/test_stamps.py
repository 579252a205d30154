"""The file of stamps: whole, ours alone, and the same file for as long as anybody may have it mapped."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from motoolsd.adapters.directory import CacheDirectory, open_directory
from motoolsd.adapters.stamps import Stamps, map_stamps
from motoolsd.core.errors import StartFailed
from motoolsd.wire.keys import SLOT_COUNT, STAMPS_SIZE_BYTES
from motoolsd.wire.names import STAMPS

ROOT = Path(__file__).resolve().parents[2]
OTHER_UID = 20_001
TIMEOUT_S = 30.0
BLOCK_SIZE_BYTES = 512
"""What st_blocks counts, whatever the file system."""

WAY_OUT = "Stop the jobs that use this directory, remove it, try again"


def mapped(directory: CacheDirectory) -> Stamps:
    """The file, which must be there afterwards."""
    stamps = map_stamps(directory)
    assert stamps is not None, directory.notes
    return stamps


def seen_by_a_client(path: Path) -> memoryview[int]:
    """The numbers as another process maps them: read-only."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), STAMPS_SIZE_BYTES, prot=mmap.PROT_READ)).cast("Q")


def allocated_bytes(path: Path) -> int:
    """What a file takes on the disk."""
    return path.stat().st_blocks * BLOCK_SIZE_BYTES


def test_new_file_has_all_of_its_blocks(directory: CacheDirectory, cache_dir: Path) -> None:
    """A hole, on a disk that is full by then, would be a SIGBUS in whoever reads it."""
    stamps = mapped(directory)
    path = cache_dir / STAMPS
    assert (len(stamps.numbers), stamps.numbers.itemsize) == (SLOT_COUNT, 8)
    assert path.stat().st_size == STAMPS_SIZE_BYTES
    assert allocated_bytes(path) >= STAMPS_SIZE_BYTES
    assert directory.notes == []


def test_nobody_but_the_daemon_writes_it(directory: CacheDirectory, cache_dir: Path) -> None:
    """Mode 0400, whatever the umask, when it was made and when it was opened again."""
    modes = []
    before = os.umask(0)
    try:
        for _ in range(2):
            mapped(directory)
            modes.append((cache_dir / STAMPS).stat().st_mode & 0o7777)
    finally:
        os.umask(before)
    assert modes == [0o400, 0o400]


def test_only_the_file_itself_is_left(directory: CacheDirectory, cache_dir: Path) -> None:
    """What it was made as has its name now, also where an earlier daemon died while making it."""
    (cache_dir / f"{STAMPS}.new").write_bytes(b"half of it")
    mapped(directory)
    assert sorted(path.name for path in cache_dir.glob("stamps*")) == [STAMPS]
    assert allocated_bytes(cache_dir / STAMPS) >= STAMPS_SIZE_BYTES


def test_identity_is_that_of_the_file(directory: CacheDirectory, cache_dir: Path) -> None:
    """Device and inode: what a client compares with what its path leads to."""
    stamps = mapped(directory)
    found = (cache_dir / STAMPS).stat()
    assert stamps.identity == (found.st_dev, found.st_ino)


def test_file_keeps_its_inode_and_its_numbers_over_a_second_opening(cache_dir: Path) -> None:
    """It is neither replaced nor truncated: clients that mapped it under the daemon before go on to read it."""
    with open_directory(str(cache_dir)) as directory:
        first = mapped(directory)
        first.numbers[0], first.numbers[SLOT_COUNT - 1] = 7, 2**64 - 1
        client = seen_by_a_client(cache_dir / STAMPS)
    with open_directory(str(cache_dir)) as directory:
        second = mapped(directory)
        assert second.identity == first.identity
        assert (second.numbers[0], second.numbers[SLOT_COUNT - 1]) == (7, 2**64 - 1)
        second.numbers[0] = 8
    assert client[0] == 8


def test_another_mapping_sees_what_is_written(directory: CacheDirectory, cache_dir: Path) -> None:
    """At once, and without a system call on either side."""
    stamps = mapped(directory)
    client = seen_by_a_client(cache_dir / STAMPS)
    for number in (1, 2**62, 2**64 - 1):
        stamps.numbers[4711] = number
        assert client[4711] == number


def test_hole_in_an_existing_file_is_filled(directory: CacheDirectory, cache_dir: Path) -> None:
    """A backup may leave holes; what stands beside them stays."""
    path = cache_dir / STAMPS
    with path.open("wb") as file:
        file.write((7).to_bytes(8, sys.byteorder))
        file.truncate(STAMPS_SIZE_BYTES)
    assert allocated_bytes(path) < STAMPS_SIZE_BYTES
    stamps = mapped(directory)
    assert allocated_bytes(path) >= STAMPS_SIZE_BYTES
    assert (stamps.numbers[0], stamps.numbers[1]) == (7, 0)


def test_larger_file_is_used_as_far_as_it_is_ours(directory: CacheDirectory, cache_dir: Path) -> None:
    """That of a later version; it is not cut."""
    path = cache_dir / STAMPS
    path.write_bytes(bytes(2 * STAMPS_SIZE_BYTES))
    assert len(mapped(directory).numbers) == SLOT_COUNT
    assert path.stat().st_size == 2 * STAMPS_SIZE_BYTES


# What may not be used.


def link(path: Path) -> None:
    """A link to a file that would do."""
    path.with_name("elsewhere").write_bytes(bytes(STAMPS_SIZE_BYTES))
    path.symlink_to("elsewhere")


def short(path: Path) -> None:
    """One byte is missing: reading it would be a SIGBUS."""
    path.write_bytes(bytes(STAMPS_SIZE_BYTES - 1))


@pytest.mark.parametrize("make", [link, Path.mkdir, os.mkfifo, short, Path.touch])
def test_what_cannot_be_mapped_keeps_the_daemon_from_starting(
    make: Callable[[Path], object], directory: CacheDirectory, cache_dir: Path
) -> None:
    """Clients may have mapped it, and would believe it: it is named, with what to do, and left alone."""
    path = cache_dir / STAMPS
    make(path)
    before = os.lstat(path)
    refusals: list[str] = []

    def map_it() -> None:
        with pytest.raises(StartFailed) as caught:
            map_stamps(directory)
        refusals.append(caught.value.message)

    # In a thread, because opening a pipe would wait for ever.
    thread = threading.Thread(target=map_it, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    (refusal,) = refusals
    assert str(path) in refusal
    assert WAY_OUT in refusal
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


def test_file_of_another_user_is_refused(directory: CacheDirectory, cache_dir: Path) -> None:
    """Who owns it may truncate it, and kill us by that."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = cache_dir / STAMPS
    mapped(directory)
    os.chown(path, OTHER_UID, OTHER_UID)
    with pytest.raises(StartFailed, match="of ours") as caught:
        map_stamps(directory)
    assert str(path) in caught.value.message
    assert path.stat().st_uid == OTHER_UID


# Permissions.


def in_child(function: Callable[[], object]) -> int:
    """The exit code of a forked child that did this as a user for whom permissions count; 0 if all went well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(OTHER_UID, OTHER_UID, OTHER_UID)
                os.setresuid(OTHER_UID, OTHER_UID, OTHER_UID)
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_read_only_file_of_an_earlier_daemon_opens_again(cache_dir: Path) -> None:
    """Its mode 0400 keeps out a daemon that is not root, too: that daemon knows how to get in."""
    if os.geteuid() == 0:
        os.chown(cache_dir.parent, OTHER_UID, OTHER_UID)
        cache_dir.mkdir(mode=0o700)
        os.chown(cache_dir, OTHER_UID, OTHER_UID)

    def write_a_number() -> None:
        with open_directory(str(cache_dir)) as directory:
            numbers = mapped(directory).numbers
            numbers[3] += 1
        try:
            os.close(os.open(cache_dir / STAMPS, os.O_RDWR))
        except PermissionError:
            return
        raise AssertionError("permissions do not count here")

    assert [in_child(write_a_number), in_child(write_a_number)] == [0, 0]
    assert seen_by_a_client(cache_dir / STAMPS)[3] == 2
    assert (cache_dir / STAMPS).stat().st_mode & 0o7777 == 0o400


# No room.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_without_room_for_a_new_file_there_is_none(
    number: int, directory: CacheDirectory, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients ask at every lookup then: said in the log, nothing left over; with room, the next daemon makes it."""

    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fail)
        assert map_stamps(directory) is None
    assert list(cache_dir.glob("stamps*")) == []
    (note,) = directory.notes
    assert str(cache_dir / STAMPS) in note
    assert os.strerror(number) in note
    assert map_stamps(directory) is not None


def test_other_errors_in_making_it_keep_the_daemon_from_starting(
    directory: CacheDirectory, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails is not one that is full; nothing is left over here, either."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(StartFailed, match=WAY_OUT):
        map_stamps(directory)
    assert list(cache_dir.glob("stamps*")) == []


def test_existing_file_that_cannot_be_filled_keeps_the_daemon_from_starting(
    directory: CacheDirectory, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients may have it mapped: a daemon that does not write there could not tell them of a change."""
    with (cache_dir / STAMPS).open("wb") as file:
        file.truncate(STAMPS_SIZE_BYTES)  # a hole, as in a copy that saves room
    (cache_dir / STAMPS).chmod(0o400)
    monkeypatch.setattr(os, "posix_fallocate", _fail)
    with pytest.raises(StartFailed, match="No space left") as caught:
        map_stamps(directory)
    assert str(cache_dir / STAMPS) in caught.value.message
    assert (cache_dir / STAMPS).stat().st_mode & 0o7777 == 0o400


def test_whole_file_is_mapped_though_the_disk_is_full(
    directory: CacheDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full XFS refuses to allocate what is there already."""
    mapped(directory)
    monkeypatch.setattr(os, "posix_fallocate", _fail)
    assert map_stamps(directory) is not None


def _fail(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


ON_A_FULL_DISK = """
import os, sys
from motoolsd.adapters.directory import open_directory
from motoolsd.adapters.stamps import map_stamps
with open_directory(sys.argv[1]) as directory:
    print(map_stamps(directory), len(directory.notes), [n for n in os.listdir(sys.argv[1]) if "stamps" in n])
    os.truncate(os.path.join(sys.argv[1], "..", "ballast"), 0)
    print(len(map_stamps(directory).numbers), len(directory.notes))
"""


def on_a_small_disk(point: Path, command: str) -> list[str]:
    """A command in a mount namespace of its own, in which a directory is a small file system in memory."""
    script = f'mount -t tmpfs -o size=1M none "{point}" && {command}'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script]


def may_mount(point: Path) -> bool:
    """Whether such a namespace may be made here."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(on_a_small_disk(point, "true"), capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_really_full_disk_means_no_file_and_nothing_left_over(short_dir: Path) -> None:
    """As above, and the kernel says it."""
    if not may_mount(short_dir):
        pytest.skip("no mount namespace may be made here")
    fill = f'head -c 900K /dev/zero > "{short_dir}/ballast"'
    ask = f'exec "{sys.executable}" -c "$SCRIPT" "{short_dir}/.motools"'
    done = subprocess.run(
        on_a_small_disk(short_dir, f"{fill} && {ask}"),
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env={**os.environ, "SCRIPT": ON_A_FULL_DISK, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["None 1 []", f"{SLOT_COUNT} 1"]
