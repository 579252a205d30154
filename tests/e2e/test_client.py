"""The client and a real daemon where something is in the way: settings, files, permissions, other users."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from motools.cache import Cache, CacheUtils, SyncCache
from motools.cache.errors import (
    CacheDirectoryMissing,
    CacheError,
    CacheUnavailable,
    CorruptDatabase,
    DaemonNotRunning,
    PeerRefused,
    SchemaTooNew,
)
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.samples import execute

TIMEOUT_S = 30.0
SLACK_S = 0.1
OTHER_UID = 20_001
SYSTEM_PYTHON = "/usr/bin/python3"

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None or not Path(SYSTEM_PYTHON).exists(),
    reason="only root can become another user (with setpriv and a Python that everybody may run)",
)


def names_in(directory: Path) -> list[str]:
    """What the directory holds."""
    return sorted(path.name for path in directory.iterdir())


def wait_until_gone(directory: Path) -> None:
    """Wait for the end of a daemon that said why it does not start."""
    pid = daemon_pid(directory)
    if pid is None:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(TIMEOUT_S * 1000)
    os.close(descriptor)


# Starting.


def test_environment_keeps_clients_from_starting_a_daemon(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MOTOOLS_AUTOSTART=0 nothing is started, nothing made, and the text says what to type."""
    monkeypatch.setenv("MOTOOLS_AUTOSTART", "0")
    with SyncCache(shared_dir) as cache:
        with pytest.raises(CacheDirectoryMissing, match="motools daemon start"):
            cache.get_file_id("d")
        assert not shared_dir.exists()
        shared_dir.mkdir()
        with pytest.raises(DaemonNotRunning, match="motools daemon start"):
            cache.get_file_id("d")
    assert names_in(shared_dir) == []


def test_utilities_make_nothing(shared_dir: Path) -> None:
    """Neither in a missing directory nor in an empty one; both are a FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        CacheUtils(shared_dir)
    assert not shared_dir.exists()
    shared_dir.mkdir()
    with pytest.raises(CacheDirectoryMissing):
        CacheUtils(shared_dir)
    assert names_in(shared_dir) == []


@pytest.mark.slow
def test_nothing_of_the_job_changes_what_the_daemon_imports(
    shared_dir: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A msgspec.py in the working directory and on PYTHONPATH, and a PYTHONHOME: the daemon starts all the same."""
    planted = short_dir / "project"
    planted.mkdir()
    for name in ("msgspec", "aiosqlite", "sitecustomize"):
        (planted / f"{name}.py").write_text("raise SystemExit('the planted module was imported')\n")
    monkeypatch.chdir(planted)
    monkeypatch.setenv("PYTHONPATH", str(planted))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with SyncCache(shared_dir, timeout_s=TIMEOUT_S) as cache:
        cache.set_file_id("d", "file")
        pid = cache.get_status().pid
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PYTHON" not in environment
    assert b"planted" not in (shared_dir / "motoolsd.log").read_bytes()


@pytest.mark.slow
def test_daemon_is_left_with_nothing_of_the_jobs_process(shared_dir: Path, short_dir: Path) -> None:
    """Own session, and none of the job's open files: the job's pipes end when the job does."""
    with (short_dir / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        with SyncCache(shared_dir, timeout_s=TIMEOUT_S) as cache:
            pid = cache.get_status().pid
    assert os.getsid(pid) != os.getsid(0)
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # The daemon opens and closes files meanwhile.
        with contextlib.suppress(FileNotFoundError):
            assert path.readlink() != short_dir / "held"


# Damaged and foreign databases.


def not_a_database(path: Path) -> None:
    """Somebody's text file."""
    path.write_text("precious notes, and not a database\n" * 200)


def foreign_database(path: Path) -> None:
    """Another program's database."""
    execute(path, "CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('x');")


def newer_database(path: Path) -> None:
    """What a motoolsd of next year leaves."""
    execute(path, "CREATE TABLE dataset_files (dataset_hash TEXT, file_id TEXT); PRAGMA user_version = 999;")


def torn_database(path: Path) -> None:
    """The first page of a database, and then noise."""
    execute(path, "CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL);")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (path.stat().st_size - 100))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (not_a_database, CorruptDatabase),
        (foreign_database, CorruptDatabase),
        (torn_database, CorruptDatabase),
        (newer_database, SchemaTooNew),
    ],
)
def test_database_that_is_not_ours_to_read_is_refused_untouched(
    make: Callable[[Path], None], kind: type[CacheError], shared_dir: Path
) -> None:
    """Quickly, by its class, with what to do; the bytes stay as they are."""
    shared_dir.mkdir(mode=0o700)
    database = shared_dir / "cache.db"
    make(database)
    before = database.read_bytes()
    begun_s = time.monotonic()
    with SyncCache(shared_dir, timeout_s=TIMEOUT_S) as cache, pytest.raises(kind, match=r"cache\.db"):
        cache.set_file_id("d", "file")
    assert time.monotonic() - begun_s < TIMEOUT_S / 3
    assert database.read_bytes() == before
    wait_until_gone(shared_dir)


# A daemon that cannot be had.


def hanging(short_dir: Path) -> str:
    """A program that starts and never says a word."""
    path = short_dir / "python"
    path.write_text("#!/bin/sh\nexec sleep 2\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("obstacle", ["damaged database", "hanging start", "stopped daemon"])
def test_cache_that_cannot_be_had_never_holds_a_job(
    obstacle: str, shared_dir: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With on_unavailable="miss" each call is back within its timeout, whatever is wrong with the daemon."""
    shared_dir.mkdir()
    if obstacle == "damaged database":
        not_a_database(shared_dir / "cache.db")
    elif obstacle == "hanging start":
        monkeypatch.setattr(sys, "executable", hanging(short_dir))
    timeout_s = 0.5
    with (
        stopped_daemon(shared_dir, obstacle),
        SyncCache(shared_dir, timeout_s=timeout_s, on_unavailable="miss") as cache,
    ):
        for number in range(4):
            begun_s = time.monotonic()
            if number % 2:
                cache.set_file_id("d", "file")
            else:
                assert cache.get_file_id("d") is None
            assert time.monotonic() - begun_s < timeout_s + SLACK_S


@contextlib.contextmanager
def stopped_daemon(directory: Path, obstacle: str) -> Iterator[None]:
    """A daemon that was stopped (SIGSTOP) for as long as the block lasts, if that is the obstacle."""
    if obstacle != "stopped daemon":
        yield
        return
    with SyncCache(directory) as cache:
        pid = cache.get_status().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# Permissions and other users.


@pytest.mark.slow
def test_new_directory_is_private_and_an_existing_one_loses_write_for_others(shared_dir: Path) -> None:
    """Whatever the umask: 0700; and nobody else may plant files in what was there already."""
    before = os.umask(0)
    try:
        with SyncCache(shared_dir) as cache:
            cache.set_file_id("d", "file")
        assert stat.S_IMODE(shared_dir.stat().st_mode) == 0o700
        for name in ("cache.db", "motoolsd.sock", "motoolsd.lock", "motoolsd.start", "motoolsd.log"):
            assert stat.S_IMODE((shared_dir / name).stat().st_mode) & 0o077 == 0, name
        end_daemon(shared_dir)
        shared_dir.chmod(0o777)
        with SyncCache(shared_dir) as cache:
            assert cache.get_file_id("d") == "file"
        assert stat.S_IMODE(shared_dir.stat().st_mode) == 0o755
    finally:
        os.umask(before)
    assert (shared_dir / "motoolsd.log").read_text().count("was writable by others") == 1


def without_privileges(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command for which permissions count, also where we are root."""
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search", "--"]
    prefix = drop if os.geteuid() == 0 else []
    return subprocess.run([*prefix, *command], capture_output=True, check=False, text=True, timeout=TIMEOUT_S)


ASK = """
import sys
from motools.cache import Cache, CacheUtils, SyncCache
from motools.cache.errors import CacheError
for make in (lambda: SyncCache(sys.argv[1]).get_file_id("d"), lambda: CacheUtils(sys.argv[1]).get_stats()):
    try:
        make()
    except CacheError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root without setpriv reads everything"
)
@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_directory_that_may_not_be_used_is_named_with_the_reason(mode: int, shared_dir: Path) -> None:
    """No bare OSError, no waiting, and nothing left in it."""
    shared_dir.mkdir()
    (shared_dir / "cache.db").touch()
    shared_dir.chmod(mode)
    begun_s = time.monotonic()
    done = without_privileges(sys.executable, "-c", ASK, str(shared_dir))
    shared_dir.chmod(0o700)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("Permission denied" in line and str(shared_dir) in line for line in lines), lines
    assert time.monotonic() - begun_s < TIMEOUT_S / 3
    assert names_in(shared_dir) == ["cache.db"]


def as_other(*command: str) -> list[str]:
    """A command of another user."""
    return ["setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups", "--", *command]


KNOCK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
try:
    s.sendall(b"\\0\\0\\0\\1\\xc0")
    print("received", s.recv(100))
except ConnectionError as error:
    print("received", b"")
"""


@as_root
@pytest.mark.slow
def test_daemon_says_nothing_to_another_user(shared_dir: Path) -> None:
    """Not even where somebody opened the permissions by hand: closed without a byte, and the others are served."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("d", "file")
        for path in (shared_dir.parent, shared_dir):
            path.chmod(0o755)
        (shared_dir / "motoolsd.sock").chmod(0o666)
        knock = as_other(SYSTEM_PYTHON, "-c", KNOCK, str(shared_dir / "motoolsd.sock"))
        done = subprocess.run(knock, capture_output=True, check=True, text=True, timeout=TIMEOUT_S, cwd="/")
        assert done.stdout.strip() == "received b''"
        assert cache.get_file_id("d") == "file"
    assert f"uid {OTHER_UID} was refused" in (shared_dir / "motoolsd.log").read_text()


SQUAT = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
s.listen()
print("listening", flush=True)
c, _ = s.accept()
c.settimeout(10)
print("received", c.recv(100), flush=True)
"""


@as_root
@pytest.mark.slow
def test_client_says_nothing_to_another_users_daemon(shared_dir: Path) -> None:
    """Whoever squats in a shared place gets no byte, and the caller is told whose it is."""
    shared_dir.parent.chmod(0o755)
    shared_dir.mkdir()
    os.chown(shared_dir, OTHER_UID, OTHER_UID)
    squat = as_other(SYSTEM_PYTHON, "-c", SQUAT, str(shared_dir / "motoolsd.sock"))
    with subprocess.Popen(squat, stdout=subprocess.PIPE, text=True, cwd="/") as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == "listening\n"
        refused = pytest.raises(PeerRefused, match=f"belongs to uid {OTHER_UID}")
        with SyncCache(shared_dir, timeout_s=TIMEOUT_S) as cache, refused as caught:
            cache.get_file_id("d")
        assert isinstance(caught.value, CacheUnavailable)
        assert squatter.communicate(timeout=TIMEOUT_S)[0] == "received b''\n"


@as_root
def test_directory_of_another_user_is_refused_and_stays_as_it_is(shared_dir: Path) -> None:
    """Though root could write there."""
    shared_dir.mkdir()
    os.chown(shared_dir, OTHER_UID, OTHER_UID)
    with SyncCache(shared_dir) as cache, pytest.raises(PeerRefused, match="cannot be shared by a group"):
        cache.get_file_id("d")
    assert names_in(shared_dir) == []


@pytest.mark.slow
def test_daemon_that_ends_between_two_calls_is_started_again(shared_dir: Path) -> None:
    """Stopped or killed: the next call starts another one, and finds what was stored."""
    with SyncCache(shared_dir) as cache:
        cache.set_file_id("d", "file")
        for number in (signal.SIGTERM, signal.SIGKILL):
            assert end_daemon(shared_dir, number) is not None
            assert cache.get_file_id("d") == "file"


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_async_tasks_carry_on_over_kill_9(loop: str, shared_dir: Path) -> None:
    """32 tasks write while the daemon is killed: what was acknowledged is there, and no task sees an error."""

    async def run() -> list[str]:
        async with Cache(shared_dir, timeout_s=TIMEOUT_S) as cache:
            async with anyio.create_task_group() as group:

                async def write(worker: int) -> None:
                    for number in range(20):
                        await cache.set_file_id(f"{worker}-{number}", "file")

                for worker in range(32):
                    group.start_soon(write, worker)
                while (await cache.get_stats()).num_datasets == 0:
                    pass
                await anyio.to_thread.run_sync(end_daemon, shared_dir, signal.SIGKILL)
            return [entry.dataset_hash for entry in await cache.list_datasets()]

    stored = anyio.run(run, backend=loop)
    assert sorted(stored) == sorted(f"{worker}-{number}" for worker in range(32) for number in range(20))
