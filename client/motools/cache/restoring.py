"""Restoring a backup: the daemon is stopped, its own program replaces the database, the daemon is started again.

Layer: motools.cache. Imports control, entries, errors, spawn and motoolsd.wire.
Invariant: no client opens a database. What is replaced is set aside, never removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import msgspec
from msgspec import Struct

from motools.cache.client import TIMEOUT_S
from motools.cache.clock import pause
from motools.cache.control import start_daemon, stop_daemon
from motools.cache.endpoint import check_owner
from motools.cache.errors import CacheError, DaemonBusy, DaemonNotRunning, error_from
from motools.cache.spawn import clean_environment
from motoolsd.wire.backups import BackupFile, Restoring
from motoolsd.wire.messages import Failure

ATTEMPTS: Final = 10
"""A job may start a daemon between its stop and the restore, which is refused then: stop that one, too."""
PAUSE_S: Final = 0.05


class StoredBackup(Struct, frozen=True, kw_only=True):
    """A backup, or the database itself, as it lies there.

    Attributes:
        path: absolute.
        made_at: RFC 3339 UTC.
        datasets, models, evals: how many entries are in it.
        problem: why it cannot be used; the counts say nothing then.
    """

    path: str
    size_bytes: int = 0
    made_at: str = ""
    datasets: int = 0
    models: int = 0
    evals: int = 0
    schema_version: int = 0
    problem: str | None = None


class RestorePlan(Struct, frozen=True, kw_only=True):
    """What a restore puts into place.

    Attributes:
        backup: the file.
        current: what is replaced; None: there is no database.
    """

    backup: StoredBackup
    current: StoredBackup | None = None


class RestoreResult(RestorePlan, frozen=True, kw_only=True):
    """What a restore did.

    Attributes:
        replaced: where the present database was set aside; None: there was none.
        is_started: whether a daemon ran before, and runs again.
    """

    replaced: str | None = None
    is_started: bool = False


def list_backups(directory: str) -> list[StoredBackup]:
    """The automatic backups, the newest first.

    Args:
        directory: absolute path of the cache directory.

    Raises:
        CacheDirectoryMissing: there is no such directory.
        CacheError: the daemon's program cannot be run, or refuses.
    """
    return [_stored(one) for one in _run(directory, "--list").backups]


def plan_restore(directory: str, path: str | None) -> RestorePlan:
    """What a restore would put into place; nothing is changed.

    Args:
        directory: absolute path of the cache directory.
        path: absolute, of a backup; None: the newest automatic one.

    Raises:
        EntryNotFound: there is no such file.
        CorruptDatabase, SchemaTooNew: it cannot be used.
    """
    return _plan(_run(directory, "--dry-run", *_named(path)))


def restore_backup(directory: str, path: str | None, *, timeout_s: float = TIMEOUT_S) -> RestoreResult:
    """Stop the daemon, put a backup into the place of the database, and start the daemon again if one ran.

    Args:
        directory: as `plan_restore`.
        path: as `plan_restore`.
        timeout_s: for stopping, and for starting.

    Raises:
        EntryNotFound, CorruptDatabase, SchemaTooNew: as `plan_restore`; nothing was replaced.
        DaemonBusy: a daemon does not end, or others start one again and again.
    """
    was_running = False
    try:
        done = None
        for _ in range(ATTEMPTS):
            was_running = stop_daemon(directory, timeout_s) is not None or was_running
            done = _run(directory, *_named(path))
            if not done.is_busy:
                break
            pause(PAUSE_S)
        assert done is not None
        if done.is_busy:
            raise DaemonBusy(f"nothing was replaced: jobs start a daemon for {directory} again and again. Stop them")
    finally:
        if was_running:
            start_daemon(directory, timeout_s)
    plan = _plan(done)
    return RestoreResult(
        backup=plan.backup,
        current=plan.current,
        replaced=os.fsdecode(done.replaced) or None,
        is_started=was_running,
    )


def _plan(done: Restoring) -> RestorePlan:
    assert done.chosen is not None, "a reply that is no failure names the backup"
    return RestorePlan(backup=_stored(done.chosen), current=None if done.current is None else _stored(done.current))


def _stored(found: BackupFile) -> StoredBackup:
    return StoredBackup(
        path=os.fsdecode(found.path),
        size_bytes=found.size_bytes,
        made_at=found.made_at,
        datasets=found.datasets,
        models=found.models,
        evals=found.evals,
        schema_version=found.schema_version,
        problem=found.problem or None,
    )


def _named(path: str | None) -> list[str]:
    # Behind the dashes: a name may begin with one.
    return [] if path is None else ["--", path]


def _run(directory: str, *words: str) -> Restoring:
    """What `motoolsd restore-backup` says. Not bounded in time: a large database takes as long as it takes.

    Raises:
        CacheError: it refused; being busy is no refusal.
    """
    check_owner(directory)
    command = [sys.executable, "-P", "-m", "motoolsd", "restore-backup", "--cache-dir", directory, "--json", *words]
    try:
        ended = subprocess.run(
            command,
            cwd="/",
            env=clean_environment(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            umask=0o077,
        )
        done = msgspec.json.decode(ended.stdout, type=Restoring)
    except OSError as error:
        raise DaemonNotRunning(f"{sys.executable or 'this Python'} cannot be run: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        said = ended.stderr.decode("utf-8", "backslashreplace")[-2_000:]
        raise CacheError(f"`motoolsd restore-backup` ended with {ended.returncode} and said: {said}") from error
    if done.code and not done.is_busy:
        raise error_from(Failure(code=done.code, message=done.message))
    return done
