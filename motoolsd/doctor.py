"""Examining a cache directory, and mending what needs no daemon: the composition root of `motoolsd doctor`.

Layer: app. Imports everything below; imported by cli alone.
Invariant: an examination changes nothing, and works beside a daemon, without one, and where none can start. It runs in
a process of its own, which is no daemon's: reading the database there disturbs nobody.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

import msgspec

from motoolsd.adapters import examination as looks
from motoolsd.adapters import mending
from motoolsd.adapters.clock import SystemClock
from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.adapters.processes import SystemProcesses
from motoolsd.core import database_diagnosis as database
from motoolsd.core import diagnosis
from motoolsd.core.database_diagnosis import DatabaseFacts, LeaseFacts, RemovalFacts, RowFacts
from motoolsd.core.deadlines import CLOCK_JUMP_MAX_S
from motoolsd.core.diagnosis import FileKind, LockFacts, PlaceFacts
from motoolsd.core.errors import RequestError
from motoolsd.core.guards import DAMAGED
from motoolsd.core.ports import TreeError
from motoolsd.core.settings import parse_settings
from motoolsd.engine.verification import file_problem
from motoolsd.store import examination as reading
from motoolsd.store.connection import SQLITE_VERSION
from motoolsd.store.ownership import OwnedPath
from motoolsd.store.schema import SCHEMA_VERSION
from motoolsd.wire.diagnosis import Diagnosis, HealthCheck, LockHolder, Mend, Mended, Verdict
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.names import CONFIG, DATABASE, FILE_CATEGORIES, LOCK, LOG, SOCKET, STAMPS
from motoolsd.wire.version import __version__

DEADLINE_FAR_S: Final = 10 * 365.25 * 86_400.0
"""Nobody keeps what was removed for ten years."""
PACKAGES: Final = ("aiosqlite", "anyio", "msgspec", "uvloop")


def examine(path: str, *, deep: bool = False) -> Diagnosis:
    """Look at everything in a cache directory.

    Args:
        path: absolute.
        deep: read the content of datasets, too.

    Returns:
        What was found; whatever is wrong with the directory, it is a check and no error.
    """
    place = looks.look_at_place(path)
    checks = [diagnosis.check_place(place)]
    lock = LockFacts(is_held=False)
    if checks[0].status is Verdict.OK:
        with _opened(path) as directory:
            lock = looks.look_at_lock(directory)
            checks += _examine(place, directory, lock, deep=deep)
    sqlite = diagnosis.judge_sqlite(SQLITE_VERSION)
    checks.append(diagnosis.sqlite_check(sqlite))
    holder = LockHolder(pid=lock.pid if lock.is_alive else 0, is_stopped=lock.is_stopped) if lock.is_held else None
    return Diagnosis(directory=place.path, checks=checks, sqlite=sqlite, versions=_versions(), holder=holder)


def mend(path: str, mends: Sequence[Mend]) -> list[Mended]:
    """Mend what needs no daemon.

    Args:
        path: absolute.
        mends: which; those that need a daemon are not done here.

    Returns:
        What came of each, in order; what fails is told, and keeps no other from being done.
    """
    steps = {
        Mend.PERMISSIONS: mending.take_away_permissions,
        Mend.LEFTOVERS: mending.remove_leftovers,
        Mend.STAMPS: mending.remove_stamps,
    }
    done = []
    for one in mends:
        try:
            with _opened(path) as directory:
                what = steps[one](directory)
            done.append(Mended(mend=one, is_done=True, detail="; ".join(what) or "there was nothing left to do"))
        except RequestError as error:
            done.append(Mended(mend=one, is_done=False, detail=_shown(error.message)))
        except OSError as error:
            done.append(Mended(mend=one, is_done=False, detail=f"the system refuses it: {error.strerror}"))
    return done


@contextmanager
def _opened(path: str) -> Iterator[CacheDirectory]:
    descriptor = os.open(path, looks.DIRECTORY_FLAGS)
    try:
        yield CacheDirectory(path, descriptor)
    finally:
        os.close(descriptor)


def _examine(place: PlaceFacts, directory: CacheDirectory, lock: LockFacts, *, deep: bool) -> list[HealthCheck]:
    stamps = looks.look_at_file(directory, STAMPS)
    users: list[int] = []
    if stamps is not None and not diagnosis.is_usable_as_stamps(place, stamps):
        users = looks.users_of(directory, STAMPS)
    return [
        diagnosis.check_permissions(place, mending.watched_files(directory)),
        diagnosis.check_path(place),
        diagnosis.check_filesystem(place),
        diagnosis.check_space(place),
        diagnosis.check_lock(place, looks.look_at_file(directory, LOCK), lock),
        diagnosis.check_socket(place, looks.look_at_file(directory, SOCKET), lock),
        diagnosis.check_leftovers(place, looks.names_under_construction(directory) if not lock.is_held else []),
        diagnosis.check_stamps(place, stamps, lock, users),
        *_check_database(place, directory, lock, deep=deep),
        diagnosis.check_staging(place, _left_in_staging(directory), lock),
        _check_settings(place, directory),
        diagnosis.check_log(place, looks.look_at_file(directory, LOG)),
        diagnosis.check_backups(*looks.look_at_backups(directory), looks.names_set_aside(directory)),
    ]


def _check_settings(place: PlaceFacts, directory: CacheDirectory) -> HealthCheck:
    try:
        text = directory.read_config()
        if text is not None:
            parse_settings(text, source=f"{place.path}/{CONFIG}")
    except RequestError as error:
        return diagnosis.check_settings(place, _shown(error.message), is_there=True)
    return diagnosis.check_settings(place, None, is_there=text is not None)


def _left_in_staging(directory: CacheDirectory) -> list[str]:
    try:
        return [_shown(os.fsdecode(name)) for name, _ in DirectoryTree(directory).abandoned()]
    except (TreeError, OSError):
        # It cannot be read; that it is not ours is a check of its own.
        return []


def _check_database(place: PlaceFacts, directory: CacheDirectory, lock: LockFacts, *, deep: bool) -> list[HealthCheck]:
    facts = _look_at_database(directory, lock, deep=deep)
    checks = [database.check_database(place, facts, lock), database.check_wal(place, facts, lock)]
    if facts.rows is not None:
        checks += [
            *database.check_rows(place, facts.rows),
            database.check_leases(place, facts.rows, lock),
            database.check_trash(place, facts.rows, lock),
            database.check_clock(facts.rows),
        ]
    return checks


def _look_at_database(directory: CacheDirectory, lock: LockFacts, *, deep: bool) -> DatabaseFacts:
    headers = reading.read_headers(directory.database)
    facts = DatabaseFacts(
        file=looks.look_at_file(directory, DATABASE),
        wal=looks.look_at_file(directory, f"{DATABASE}-wal"),
        header=headers.database,
        wal_header=headers.wal,
        journal_header=headers.journal,
        supported=SCHEMA_VERSION,
        held_files=[
            name
            for name in (STAMPS, LOG, *(category for category in FILE_CATEGORIES if directory.names_in(category)))
            if looks.look_at_file(directory, name) is not None
        ],
    )
    if facts.file is None or facts.file.kind is not FileKind.FILE or database.has_open_journal(facts):
        return facts
    if database.foreign_wal(facts) is not None:
        # Together they are no database; alone it may be one.
        return _read(directory, facts, is_still=True, deep=deep)
    is_still = not lock.is_held and (facts.wal is None or facts.wal.size_bytes == 0)
    read = _read(directory, facts, is_still=is_still, deep=deep)
    if is_still and looks.look_at_lock(directory).is_held:
        # A daemon came up meanwhile, and may have changed pages under a reader that looked for no locks.
        read = _read(directory, facts, is_still=False, deep=deep)
    return read


def _read(directory: CacheDirectory, facts: DatabaseFacts, *, is_still: bool, deep: bool) -> DatabaseFacts:
    files = _Files(directory, deep=deep)
    before = files.trash_names()
    later = datetime.fromtimestamp(SystemClock().moment().wall_s + CLOCK_JUMP_MAX_S, UTC)
    now = later.strftime("%Y-%m-%d %H:%M:%S")
    try:
        inspection, found = reading.read_database(directory.database, is_still=is_still, now=now, look=files.look)
    except RequestError as error:
        return msgspec.structs.replace(facts, error=_shown(error.message), error_code=ErrorCode(error.code))
    is_empty = not inspection.tables and not inspection.version
    facts = msgspec.structs.replace(facts, version=inspection.version, is_empty=is_empty)
    if found is None:
        return facts
    return msgspec.structs.replace(facts, rows=_rows(found, files, before))


def _rows(found: reading.Found, files: _Files, before: set[int]) -> RowFacts:
    now = SystemClock().moment()
    processes = SystemProcesses()
    after = files.trash_names()
    known = {removal.id for removal, _ in found.removals}
    return RowFacts(
        counts=found.counts,
        damaged=found.damaged,
        void=found.void,
        leases=[
            LeaseFacts(
                kind=lease.key[0].value,
                key=lease.key[1],
                pid=lease.claimant.process.pid,
                is_alive=any(map(processes.is_alive, lease.processes or {lease.claimant.process})),
            )
            for lease in found.leases
        ],
        removals=[
            RemovalFacts(
                number=removal.id,
                state=removal.state,
                has_paths=has_paths,
                has_directory=removal.id in before or removal.id in after,
            )
            for removal, has_paths in found.removals
        ],
        strays=sorted((before & after) - known),
        from_future=found.from_future,
        is_deadline_far=any(reading.is_far(removal, now, DEADLINE_FAR_S) for removal, _ in found.removals),
        missing_files=files.problems["missing"],
        damaged_files=files.problems["corrupt"],
        unreadable_files=files.problems["unreadable"],
    )


class _Files:
    """Compares what entries own with what is there."""

    def __init__(self, directory: CacheDirectory, *, deep: bool) -> None:
        """Nothing found yet."""
        self._tree = DirectoryTree(directory)
        self._deep = deep
        self.problems: dict[str, list[str]] = {"missing": [], "corrupt": [], "unreadable": []}

    def look(self, item: OwnedPath) -> None:
        """At one path; what was found damaged misses already."""
        if item.void_reason == DAMAGED:
            return
        found = file_problem(self._tree, item, lambda: False, deep=self._deep)
        if found is not None:
            self.problems[found.problem].append(f"{_shown(os.fsdecode(item.path))}: {found.detail}")

    def trash_names(self) -> set[int]:
        """The numbers that lie in trash/."""
        try:
            return set(self._tree.trash_names())
        except TreeError:
            return set()


def _versions() -> dict[str, str]:
    found = {"motoolsd": __version__, "python": platform.python_version(), "sqlite": SQLITE_VERSION}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


_shown = looks.shown_path
