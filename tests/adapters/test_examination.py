"""Looking at a directory without changing anything in it."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from motoolsd.adapters import lock as lock_module
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.examination import (
    look_at_backups,
    look_at_file,
    look_at_lock,
    look_at_place,
    names_set_aside,
    names_under_construction,
    shown_path,
    users_of,
)
from motoolsd.adapters.lock import Owner, hold_lock
from motoolsd.adapters.processes import boot_id, host_name, process_state, start_time
from motoolsd.core.diagnosis import FileKind
from motoolsd.wire.names import LOCK, STAMPS


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two looks at a lock."""
    monkeypatch.setattr(lock_module, "PAUSE_S", 0)


def test_place_is_described(directory: CacheDirectory, cache_dir: Path) -> None:
    """Owner, mode, file system and room."""
    cache_dir.chmod(0o750)
    facts = look_at_place(str(cache_dir))
    assert (facts.owner, facts.user, facts.mode) == (os.geteuid(), os.geteuid(), 0o750)
    assert (facts.is_missing, facts.error, facts.network_filesystem, facts.is_read_only) == (False, None, None, False)
    assert facts.free_bytes > 0
    assert facts.path_size_bytes == len(str(cache_dir))


def test_what_is_no_directory_says_why(short_dir: Path) -> None:
    """Missing, a file, below a file."""
    (short_dir / "file").write_bytes(b"")
    assert look_at_place(str(short_dir / "none")).is_missing
    assert look_at_place(str(short_dir / "file")).error == "Not a directory"
    assert not (short_dir / "none").exists()


def test_path_that_is_no_utf8_can_be_sent(short_dir: Path) -> None:
    """Its bytes are escapes."""
    path = os.fsdecode(os.fsencode(short_dir) + b"/\xff")
    os.mkdir(path)  # noqa: PTH102 - pathlib says the same
    facts = look_at_place(path)
    assert facts.path.endswith("/\\xff")
    assert msgspec.json.encode(facts)
    assert facts.path_size_bytes == len(os.fsencode(path))
    assert shown_path("/plain") == "/plain"


def test_kinds_of_files_are_told_without_following_links(directory: CacheDirectory, cache_dir: Path) -> None:
    """Each of them; None for nothing."""
    (cache_dir / "f").write_bytes(b"abc")
    (cache_dir / "f").chmod(0o640)
    (cache_dir / "l").symlink_to("f")
    os.mkfifo(cache_dir / "p")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(cache_dir / "s"))
    found = {name: look_at_file(directory, name) for name in ("f", "l", "p", "s", "datasets")}
    kinds = [None if facts is None else facts.kind for facts in found.values()]
    assert kinds == [FileKind.FILE, FileKind.LINK, FileKind.OTHER, FileKind.SOCKET, FileKind.DIRECTORY]
    assert found["f"] is not None
    assert (found["f"].mode, found["f"].size_bytes, found["f"].owner) == (0o640, 3, os.geteuid())
    assert look_at_file(directory, "none") is None


def test_lock_tells_its_holder(directory: CacheDirectory) -> None:
    """Free without a file; held by a process that lives; free again, with the name of the last."""
    assert look_at_lock(directory) == msgspec.structs.replace(look_at_lock(directory), is_held=False, pid=0)
    with hold_lock(directory, now="noon"):
        facts = look_at_lock(directory)
        assert (facts.is_held, facts.pid, facts.is_alive, facts.is_here) == (True, os.getpid(), True, True)
        assert (facts.started_at, facts.is_stopped) == ("noon", False)
    facts = look_at_lock(directory)
    assert (facts.is_held, facts.pid) == (False, os.getpid())


def test_process_with_a_recycled_pid_is_not_the_holder(directory: CacheDirectory, cache_dir: Path) -> None:
    """Start time and boot are compared; what is no text of ours names nobody."""
    other = Owner(os.getpid(), 1, host_name(), boot_id())
    (cache_dir / LOCK).write_bytes(msgspec.json.encode(other))
    assert not look_at_lock(directory).is_alive
    (cache_dir / LOCK).write_bytes(msgspec.json.encode(Owner(os.getpid(), 1, "h2", "b2")))
    assert not look_at_lock(directory).is_here
    (cache_dir / LOCK).write_bytes(b"\xff{")
    assert look_at_lock(directory).pid == 0


def test_holder_that_is_stopped_is_told(directory: CacheDirectory, cache_dir: Path) -> None:
    """SIGSTOP."""
    program = (
        "import fcntl,os,sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX); print(flush=True); input()"
    )
    (cache_dir / LOCK).touch()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(cache_dir / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        owner = Owner(child.pid, start_time(child.pid) or 0, host_name(), boot_id())
        (cache_dir / LOCK).write_bytes(msgspec.json.encode(owner))
        assert (look_at_lock(directory).is_alive, look_at_lock(directory).is_stopped) == (True, False)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert (look_at_lock(directory).is_held, look_at_lock(directory).is_stopped) == (True, True)
        assert process_state(child.pid) == "T"
        child.kill()
    assert process_state(child.pid) is None


def test_client_that_looks_at_the_lock_does_not_count_as_a_daemon(directory: CacheDirectory, cache_dir: Path) -> None:
    """Looking takes the lock shared, as clients do: one does not see the other."""
    with (cache_dir / LOCK).open("w+b") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not look_at_lock(directory).is_held


def test_half_made_files_are_named(directory: CacheDirectory, cache_dir: Path) -> None:
    """Those that a daemon makes under another name; nothing else that looks alike."""
    for name in ("motoolsd.sock.12", "stamps.new", "motoolsd.sock.x", "stamps", "motoolsd.sock", "notes.new"):
        (cache_dir / name).write_bytes(b"")
    assert names_under_construction(directory) == ["motoolsd.sock.12", "stamps.new"]


def test_processes_that_have_a_file_mapped_are_found(directory: CacheDirectory, cache_dir: Path) -> None:
    """This one, for as long as it has it."""
    (cache_dir / STAMPS).write_bytes(bytes(4096))
    assert users_of(directory, STAMPS) == []
    with (cache_dir / STAMPS).open("rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ):
        assert users_of(directory, STAMPS) == [os.getpid()]
    assert users_of(directory, STAMPS) == []
    assert users_of(directory, "none") == []


def test_backups_are_counted_by_name(directory: CacheDirectory, cache_dir: Path) -> None:
    """The newest one's age counts."""
    assert look_at_backups(directory) == (0, None)
    (cache_dir / "backups").mkdir()
    assert look_at_backups(directory) == (0, None)
    for name in ("cache-1.db", "cache-2.db", "notes"):
        (cache_dir / "backups" / name).write_bytes(b"")
    os.utime(cache_dir / "backups/cache-1.db", (0, 0))
    count, age_s = look_at_backups(directory)
    assert count == 2
    assert age_s is not None
    assert age_s < 86_400


def test_databases_that_were_set_aside_are_named_once(directory: CacheDirectory, cache_dir: Path) -> None:
    """Without the logs beside them."""
    for name in ("cache.db", "cache.db.replaced-2", "cache.db.replaced-2-wal", "cache.db.replaced-1"):
        (cache_dir / name).write_bytes(b"")
    assert names_set_aside(directory) == ["cache.db.replaced-1", "cache.db.replaced-2"]
