"""Every state that a fault leaves in a directory, made for real: the doctor finds it, says what to do, and mends it.

A healthy directory, with a daemon or without one, has no warning: else none of this would mean anything.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from motools.cache import CacheUtils, Diagnosis, HealthCheck, Mend, SyncCache, Verdict, doctor
from motools.cache.control import start_daemon, stop_daemon
from motools.cache.doctor import examine, mend, planned_mends
from motoolsd.core.deadlines import Moment
from motoolsd.core.leases import Claimant, Lease, Process
from motoolsd.store.schema import SCHEMA_VERSION
from motoolsd.wire.keys import Kind
from tests.e2e.daemons import daemon_pid, end_daemon, is_alive

pytestmark = pytest.mark.slow

TIMEOUT_S = 60.0
MOUNTING = ["unshare", "--mount", "--propagation", "private"]
"""Mounts that nobody else sees, and that go with the process."""

CONTENT = b'{"prompt": "2+2"}\n' * 200


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A cache with a dataset, a model and an evaluation, each with files; made once."""
    with tempfile.TemporaryDirectory(prefix="mt-") as parent, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTOOLS_IDLE_TIMEOUT", "20")
        directory = Path(parent, "m")
        with SyncCache(directory) as cache:
            dataset = cache.put_dataset(CONTENT, "file-1")
            run = directory / "runs/ft-1"
            run.mkdir(parents=True)
            (run / "weights").write_bytes(b"w" * 5_000)
            cache.set_model_id(dataset.dataset_hash, {"epochs": 1}, "ft-1", run_dir=run)
            log = directory / "evals/t.eval"
            log.write_bytes(b"log" * 100)
            cache.set_eval_log_paths("ft-1", {"t": str(log)}, "inspect")
        stop_daemon(str(directory))
        yield directory


@pytest.fixture
def used_dir(template: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it; its daemon, if a test starts one, is killed."""
    monkeypatch.setenv("MOTOOLS_IDLE_TIMEOUT", "20")
    shutil.copytree(template, cache_dir)
    yield cache_dir
    end_daemon(cache_dir, signal.SIGKILL)


def check_of(found: Diagnosis, name: str) -> HealthCheck:
    """The check that has a name."""
    return next(check for check in found.checks if check.name == name)


def not_ok(found: Diagnosis) -> dict[str, Verdict]:
    """What is wrong."""
    return {check.name: check.status for check in found.checks if check.status is not Verdict.OK}


def edit(directory: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    """Change cache.db as somebody with another program."""
    with closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement, values)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def names_in(directory: Path) -> dict[str, int]:
    """What lies in a directory, with the time of its last change."""
    return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


def mended(directory: Path) -> Diagnosis:
    """Examined, mended and examined again."""
    return mend(str(directory), examine(str(directory)))


def test_healthy_directory_has_no_warning_and_is_left_as_it_is(used_dir: Path) -> None:
    """Without a daemon, nothing is made or changed, not even beside the database; with one, all is well too."""
    before = names_in(used_dir)
    found = examine(str(used_dir), deep=True)
    assert not_ok(found) == {}
    assert found.holder is None
    assert names_in(used_dir) == before
    status, _ = start_daemon(str(used_dir))
    found = examine(str(used_dir), deep=True)
    assert not_ok(found) == {}
    assert found.holder is not None
    assert found.holder.pid == status.pid
    assert f"pid {status.pid}" in check_of(found, "daemon").detail
    assert found.sqlite.version == sqlite3.sqlite_version
    assert set(found.versions) >= {"motoolsd", "python", "sqlite", "msgspec"}


def test_killed_daemon_leaves_what_the_next_one_mends(used_dir: Path) -> None:
    """A stale socket and acknowledged writes in the log: warnings, gone after --fix, nothing lost."""
    start_daemon(str(used_dir))
    with SyncCache(used_dir) as cache:
        cache.set_file_id("d" * 64, "file-2")
    end_daemon(used_dir, signal.SIGKILL)
    found = examine(str(used_dir))
    assert not_ok(found) == {"socket": Verdict.WARNING, "wal": Verdict.WARNING}
    assert "--fix" in check_of(found, "socket").remedy
    with CacheUtils(used_dir, autostart=False) as utils:
        after = utils.doctor(fix=True)
    assert [(one.mend, one.is_done) for one in after.mends] == [(Mend.LEFTOVERS, True), (Mend.START, True)]
    assert not_ok(after) == {}
    with SyncCache(used_dir, autostart=False) as cache:
        assert cache.get_file_id("d" * 64) == "file-2"


def test_stopped_daemon_is_named_with_the_way_out(used_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: the pid, why, and the command that helps; nothing is mended through it."""
    monkeypatch.setattr(doctor, "ANSWER_TIMEOUT_S", 0.2)  # it will not answer, however long
    start_daemon(str(used_dir))
    pid = daemon_pid(used_dir)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    (used_dir / "runs/ft-1/weights").unlink()
    (used_dir / "runs/ft-1").rmdir()
    found = examine(str(used_dir))
    assert not_ok(found) == {"daemon": Verdict.PROBLEM, "files": Verdict.PROBLEM}
    daemon = check_of(found, "daemon")
    assert f"pid {pid}" in daemon.detail
    assert "SIGSTOP" in daemon.detail
    assert "motools daemon restart" in daemon.remedy
    refused = mend(str(used_dir), found).mends
    assert [(one.mend, one.is_done) for one in refused] == [(Mend.VERIFY, False)]
    assert "daemon" in refused[0].detail
    assert stop_daemon(str(used_dir)) == pid  # what `motools daemon restart` begins with
    assert not is_alive(pid)


def overwrite(directory: Path, offset: int, content: bytes) -> None:
    """Write into the middle of cache.db."""
    with (directory / "cache.db").open("r+b") as file:
        file.seek(offset)
        file.write(content)


def make_link(path: Path, to: str | None = None) -> None:
    """Put a link where a file is; None: to that file, under another name."""
    if to is None:
        to = f"{path.name}.moved"
        path.rename(path.parent / to)
    else:
        path.unlink()
    path.symlink_to(to)


def make_directory(path: Path) -> None:
    """Put a directory where a file may be."""
    path.unlink(missing_ok=True)
    path.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no database": (lambda path: (path / "cache.db").write_bytes(b"hello" * 3000), "restore-backup"),
    "zeroed page": (lambda path: overwrite(path, 4096, bytes(4096)), "restore-backup"),
    "truncated": (lambda path: os.truncate(path / "cache.db", 8192), "restore-backup"),
    "newer schema": (lambda path: edit(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}"), "pip install --upgrade"),
    "gone": (lambda path: (path / "cache.db").unlink(), "restore-backup"),
    "a link": (lambda path: make_link(path / "cache.db"), "restore"),
    "a directory": (lambda path: make_directory(path / "cache.db"), "restore-backup"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_database_is_said_and_never_touched(used_dir: Path, damage: str) -> None:
    """The remedy is named; --fix changes not a byte, and starts no daemon on it."""
    make, remedy = DAMAGES[damage]
    make(used_dir)
    (used_dir / "staging").mkdir(exist_ok=True)
    (used_dir / "staging/left").write_bytes(b"x")  # something that a start would mend
    file = used_dir / "cache.db"
    before = file.read_bytes() if file.is_file() else None
    found = examine(str(used_dir))
    assert check_of(found, "database").status is Verdict.PROBLEM
    assert remedy in check_of(found, "database").remedy
    after = mend(str(used_dir), found)
    assert [(one.mend, one.is_done) for one in after.mends] == [(Mend.START, False)]
    assert "database" in after.mends[0].detail
    assert not after.is_well
    assert daemon_pid(used_dir) is None
    assert (file.read_bytes() if file.is_file() else None) == before


def test_older_database_is_no_warning(cache_dir: Path) -> None:
    """A file of the daemon-less package: what will become of it is said."""
    cache_dir.mkdir(mode=0o700)
    edit(cache_dir, "CREATE TABLE dataset_files (dataset_hash TEXT PRIMARY KEY, file_id TEXT NOT NULL)")
    (cache_dir / "cache.db").chmod(0o600)
    found = examine(str(cache_dir))
    assert not_ok(found) == {}
    assert "migrates" in check_of(found, "database").detail


KILLED_WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = DELETE").fetchone()
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
for number in range(2_000):
    connection.execute("INSERT INTO dataset_files (dataset_hash, file_id) VALUES (?, ?)", (str(number), "x" * 200))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_transaction_of_a_program_that_died_is_undone(used_dir: Path) -> None:
    """Half of it is in the file: it is not read before the daemon has undone it."""
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(used_dir / "cache.db")], timeout=TIMEOUT_S, check=False)
    assert (used_dir / "cache.db-journal").stat().st_size
    before = (used_dir / "cache.db").read_bytes()
    found = examine(str(used_dir))
    assert not_ok(found) == {"database": Verdict.WARNING}
    assert "rows" not in {check.name for check in found.checks}
    assert (used_dir / "cache.db").read_bytes() == before
    after = mend(str(used_dir), found)
    assert not_ok(after) == {}
    assert "1 dataset," in check_of(after, "database").detail


def other_wal(path: Path, page_size: int) -> bytes:
    """The log of another database, with a write in it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("CREATE TABLE t (x)")
        return Path(f"{path}-wal").read_bytes()


def test_foreign_log_keeps_the_daemon_from_being_started(used_dir: Path, short_dir: Path) -> None:
    """The log of another database, or one whose database is gone: --fix refuses, the remedy moves it away."""
    log = used_dir / "cache.db-wal"
    log.write_bytes(other_wal(short_dir / "other.db", 8192))
    log.chmod(0o600)
    found = examine(str(used_dir))
    assert not_ok(found) == {"wal": Verdict.PROBLEM}
    assert "mv " in check_of(found, "wal").remedy
    assert not planned_mends(found)
    (used_dir / "cache.db").rename(short_dir / "aside.db")
    assert not_ok(examine(str(used_dir))) == {"database": Verdict.PROBLEM, "wal": Verdict.PROBLEM}
    (short_dir / "aside.db").rename(used_dir / "cache.db")
    log.unlink()
    assert not_ok(examine(str(used_dir))) == {}


def test_flipped_bit_in_a_row_is_found_and_mended(used_dir: Path) -> None:
    """SQLite's own check passes over it; the row's checksum does not."""
    content = (used_dir / "cache.db").read_bytes()
    overwrite(used_dir, content.index(b"file-1"), b"file-3")
    found = examine(str(used_dir))
    assert not_ok(found) == {"rows": Verdict.PROBLEM}
    after = mend(str(used_dir), found)
    assert [(one.mend, one.is_done) for one in after.mends] == [(Mend.VERIFY, True)]
    assert not_ok(after) == {}
    assert "1 damaged" in check_of(after, "void").detail


def test_missing_and_short_files_are_found_and_mended(used_dir: Path) -> None:
    """By their entries; content is compared with --deep only."""
    dataset = next((used_dir / "datasets").iterdir())
    dataset.chmod(0o600)
    dataset.write_bytes(CONTENT[::-1])
    assert not_ok(examine(str(used_dir))) == {}
    assert not_ok(examine(str(used_dir), deep=True)) == {"files": Verdict.PROBLEM}
    dataset.write_bytes(CONTENT[1:])
    (used_dir / "evals/t.eval").unlink()
    found = examine(str(used_dir))
    assert not_ok(found) == {"files": Verdict.PROBLEM}
    for part in ("1 gone", "1 damaged", "evals/t.eval"):
        assert part in check_of(found, "files").detail
    after = mend(str(used_dir), found)
    assert not_ok(after) == {}
    assert after.mends[0].is_done


def test_unusable_stamps_are_replaced_unless_somebody_has_them_mapped(used_dir: Path) -> None:
    """A job that has them mapped would go on to believe what it remembers: it is named, and nothing is done."""
    start_daemon(str(used_dir))
    with SyncCache(used_dir) as cache:
        cache.get_file_id("d" * 64)
        stop_daemon(str(used_dir))
        os.truncate(used_dir / "stamps", 1_000)
        found = examine(str(used_dir))
        assert not_ok(found) == {"stamps": Verdict.PROBLEM}
        assert str(os.getpid()) in check_of(found, "stamps").detail
        assert not planned_mends(found)
    found = examine(str(used_dir))
    if str(os.getpid()) in check_of(found, "stamps").detail:
        pytest.skip("this process still has them mapped, through a client that was not collected")
    after = mend(str(used_dir), found)
    assert [(one.mend, one.is_done) for one in after.mends] == [(Mend.STAMPS, True)]
    assert not_ok(after) == {}
    start_daemon(str(used_dir))
    assert not_ok(examine(str(used_dir))) == {}


def leave_in_staging(directory: Path) -> None:
    """As a client that was killed."""
    (directory / "staging").mkdir(exist_ok=True)
    (directory / "staging/left").write_bytes(b"x")


def interrupt_cleanup(directory: Path) -> None:
    """As a daemon that was killed in the middle."""
    edit(
        directory,
        "INSERT INTO motoolsd_removals (reason, removed_at, state) VALUES ('test', '2026-01-01 00:00:00', 'purging')",
    )


def leave_lease(directory: Path) -> None:
    """Of a process that has ended."""
    claimant = Claimant(b"c" * 16, b"x" * 16, Process(2**22 - 1, 1, "another boot"))
    lease = Lease((Kind.MODEL, "k"), 7, claimant, "2026-01-01 00:00:00", {claimant.process})
    edit(
        directory,
        "INSERT INTO motoolsd_leases (token, kind, key, lease) VALUES (7, 'model', 'k', ?)",
        values=(msgspec.msgpack.encode(lease),),
    )


def let_others_write(directory: Path) -> None:
    """As somebody who wants to share."""
    directory.chmod(0o775)
    (directory / "cache.db").chmod(0o666)


MENDED: dict[str, tuple[Callable[[Path], object], str, Mend]] = {
    "left in staging": (leave_in_staging, "staging", Mend.START),
    "half-done clean-up": (interrupt_cleanup, "trash", Mend.START),
    "lease of a dead process": (leave_lease, "leases", Mend.START),
    "others may write": (let_others_write, "permissions", Mend.PERMISSIONS),
    "half-made stamps": (lambda path: (path / "stamps.new").write_bytes(b""), "leftovers", Mend.LEFTOVERS),
    "stamps are a link": (
        lambda path: make_link(path / "stamps"),
        "stamps",
        Mend.STAMPS,
    ),
}


def test_states_are_found_and_mended(used_dir: Path) -> None:
    """One check says each, every mend is done once and said, and all is well."""
    for make, _, _ in MENDED.values():
        make(used_dir)
    found = examine(str(used_dir))
    assert set(not_ok(found)) == {name for _, name, _ in MENDED.values()}
    for _, name, how in MENDED.values():
        assert check_of(found, name).mend is how
        assert "motools cache doctor --fix" in check_of(found, name).remedy
    after = mend(str(used_dir), found)
    done = [Mend.PERMISSIONS, Mend.LEFTOVERS, Mend.STAMPS, Mend.START]
    assert [(one.mend, one.is_done) for one in after.mends] == [(one, True) for one in done]
    assert all(one.detail for one in after.mends)
    assert not_ok(after) == {}


def far_deadline(directory: Path) -> None:
    """In the trash, kept until the clock is right again."""
    expires = Moment("another boot", 0.0, 4e9 * 10).packed()
    edit(
        directory,
        "INSERT INTO motoolsd_removals (reason, removed_at, expires_at, state)"
        " VALUES ('test', '2026-01-01 00:00:00', ?, 'trashed')",
        values=(expires,),
    )


FUTURE = "UPDATE dataset_files SET created_at = '2999-01-01 00:00:00'"
SAID: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "unknown setting": (lambda path: (path / "config.toml").write_text("max_sise = 1"), "settings", "config.toml"),
    "settings are no TOML": (lambda path: (path / "config.toml").write_bytes(b"\xff"), "settings", "mend the file"),
    "settings are a directory": (lambda path: (path / "config.toml").mkdir(), "settings", "mend the file"),
    "lock is a link": (
        lambda path: make_link(path / "motoolsd.lock", "/dev/null"),
        "lock",
        "rm ",
    ),
    "log is a link": (
        lambda path: make_link(path / "motoolsd.log", "/dev/null"),
        "log",
        "rm ",
    ),
    "large log": (lambda path: os.truncate(path / "motoolsd.log", 200 * 2**20), "log", "truncate --size 0"),
    "socket is a file": (lambda path: (path / "motoolsd.sock").write_bytes(b""), "socket", "rm "),
    "socket is a directory": (lambda path: (path / "motoolsd.sock").mkdir(), "socket", "rm "),
    "stamps are a directory": (
        lambda path: make_directory(path / "stamps"),
        "stamps",
        "rm ",
    ),
    "nobody's trash": (lambda path: (path / "trash/77").mkdir(parents=True), "trash", "motools cache trash empty"),
    "row from the future": (lambda path: edit(path, FUTURE), "clock", "timedatectl"),
    "far deadline": (far_deadline, "clock", "timedatectl"),
}


TOGETHER = [
    ["unknown setting", "lock is a link", "log is a link", "socket is a file", "nobody's trash", "row from the future"],
    ["settings are no TOML", "large log", "socket is a directory", "stamps are a directory", "far deadline"],
    ["settings are a directory"],
]
"""One state of each check."""


@pytest.mark.parametrize("states", TOGETHER, ids=" & ".join)
def test_states_that_need_a_person_are_said_with_the_next_command(used_dir: Path, states: list[str]) -> None:
    """--fix does nothing about them."""
    for state in states:
        SAID[state][0](used_dir)
    before = names_in(used_dir)
    found = examine(str(used_dir))
    assert set(not_ok(found)) == {SAID[state][1] for state in states}
    for state in states:
        _, name, remedy = SAID[state]
        assert remedy in check_of(found, name).remedy or remedy in check_of(found, name).detail
    with CacheUtils(used_dir) as utils:
        assert utils.doctor(fix=True).mends == []
    assert names_in(used_dir) == before


def test_no_state_is_left_out() -> None:
    """Each is made by one of the tests above."""
    assert sorted(state for states in TOGETHER for state in states) == sorted(SAID)


def test_unknown_setting_has_its_nearest_name(used_dir: Path) -> None:
    """With the file that holds it."""
    (used_dir / "config.toml").write_text("max_sise = 1")
    assert "Did you mean `max_size`?" in check_of(examine(str(used_dir)), "settings").detail


def test_socket_and_stamps_get_their_modes_back(used_dir: Path) -> None:
    """While the daemon runs: others may not connect, nobody may write what clients map."""
    start_daemon(str(used_dir))
    (used_dir / "motoolsd.sock").chmod(0o666)
    (used_dir / "stamps").chmod(0o644)
    assert not_ok(examine(str(used_dir))) == {"socket": Verdict.PROBLEM, "stamps": Verdict.WARNING}
    assert not_ok(mended(used_dir)) == {}
    modes = [(used_dir / name).stat().st_mode & 0o777 for name in ("motoolsd.sock", "stamps")]
    assert modes == [0o600, 0o400]


def test_what_vanished_under_a_running_daemon_is_said(used_dir: Path, short_dir: Path) -> None:
    """The socket, and the database itself."""
    start_daemon(str(used_dir))
    (used_dir / "motoolsd.sock").rename(short_dir / "sock")
    found = examine(str(used_dir))
    assert not_ok(found) == {"daemon": Verdict.PROBLEM, "socket": Verdict.PROBLEM}
    assert "motools daemon restart" in check_of(found, "socket").remedy
    (short_dir / "sock").rename(used_dir / "motoolsd.sock")
    (used_dir / "cache.db").rename(short_dir / "aside.db")
    found = examine(str(used_dir))
    assert check_of(found, "database").status is Verdict.PROBLEM
    assert "restore-backup" in check_of(found, "database").remedy
    (short_dir / "aside.db").rename(used_dir / "cache.db")


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_directory_is_one_check(short_dir: Path, name: str) -> None:
    """Nothing is made; the library is looked at all the same."""
    (short_dir / "file").write_bytes(b"")
    found = examine(str(short_dir / name))
    assert not_ok(found) == {"directory": Verdict.PROBLEM}
    assert "--cache-dir" in check_of(found, "directory").remedy
    assert [check.name for check in found.checks] == ["directory", "sqlite"]
    assert not (short_dir / "missing").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_named(used_dir: Path) -> None:
    """A file of the database; the directory itself."""
    (used_dir / "cache.db").chmod(0o600)
    os.chown(used_dir / "cache.db", 65534, 65534)
    found = examine(str(used_dir))
    assert not_ok(found) == {"permissions": Verdict.PROBLEM}
    assert "sudo chown -R 0" in check_of(found, "permissions").remedy
    os.chown(used_dir, 65534, 65534)
    found = examine(str(used_dir))
    assert not_ok(found) == {"directory": Verdict.PROBLEM}
    assert "65534" in check_of(found, "directory").detail


def can_mount() -> bool:
    """Whether this process may mount anything, for itself."""
    try:
        done = subprocess.run([*MOUNTING, "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


STATES_OF_DISKS = {
    "read-only": ("size=80m", "mount -o remount,ro .", "filesystem", "dmesg"),
    "full": ("size=4m", "cat /dev/zero > filler", "space", "motools cache trash empty"),
    "without inodes": (
        "size=80m,nr_inodes=60",
        "for i in $(seq 90); do touch f$i || break; done",
        "space",
        "motools cache trash empty",
    ),
}


@pytest.mark.skipif(not can_mount(), reason="mounting is not allowed here")
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("state", STATES_OF_DISKS)
def test_disk_that_takes_nothing_is_named(used_dir: Path, state: str, *, is_killed: bool) -> None:
    """The examination needs no room, and --fix ends with what it could not do; the rows are read all the same."""
    options, spoil, name, remedy = STATES_OF_DISKS[state]
    if is_killed:
        with SyncCache(used_dir) as cache:
            cache.set_file_id("d" * 64, "file-2")
        end_daemon(used_dir, signal.SIGKILL)
    (used_dir / "ballast").unlink(missing_ok=True)  # there is no room for it on these disks
    script = f"""
        mount -t tmpfs -o {options},mode=700 t /mnt && cp -a {used_dir}/. /mnt && cd /mnt || exit 99
        {spoil}
        {sys.executable} -m motools.cli cache doctor --json -d /mnt
        {sys.executable} -m motools.cli cache doctor --fix --yes -d /mnt >&2
        exit $?
    """
    done = subprocess.run(
        [*MOUNTING, "sh", "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1, done.stderr
    found = msgspec.json.decode(done.stdout, type=Diagnosis)
    assert check_of(found, name).status is Verdict.PROBLEM
    assert remedy in check_of(found, name).remedy
    if not is_killed:
        assert list(not_ok(found)) == [name]
        assert "1 dataset, 1 model, 1 eval" in check_of(found, "database").detail
    assert "Traceback" not in done.stderr
