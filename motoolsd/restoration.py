"""Putting a backup into the place of cache.db, while no daemon serves the directory.

Layer: beside app. Imports engine, store, adapters, core and wire; imported by cli alone.
Invariant: the lock is held from before the backup is read until it is in its place, so that no daemon starts
in between. A kill at any moment leaves the old database or the new one, whole: see `adapters.replacement`.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import ExitStack
from datetime import UTC, datetime

from motoolsd.adapters.clock import SystemClock
from motoolsd.adapters.directory import CacheDirectory, open_directory
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.adapters.lock import hold_lock
from motoolsd.adapters.replacement import (
    abandon_replacement,
    begin_replacement,
    decide_replacement,
    finish_replacement,
)
from motoolsd.adapters.stamps import map_stamps
from motoolsd.core.errors import AlreadyRunning, CorruptDatabase, DirectoryMissing, EntryNotFound, RequestError
from motoolsd.core.ports import TreeError
from motoolsd.core.slots import Slots
from motoolsd.engine.disk import refusal
from motoolsd.store.copying import copy_database, count_on, glance
from motoolsd.wire.backups import BackupFile, Restoring
from motoolsd.wire.keys import Kind


def list_backups(cache_dir: str) -> Restoring:
    """The automatic backups, the newest first.

    Args:
        cache_dir: absolute.

    Raises:
        RequestError: the directory cannot be used.
    """
    with open_directory(cache_dir) as directory:
        return Restoring(backups=_automatic(directory))


def plan_restore(cache_dir: str, source: str | None) -> Restoring:
    """What a restore would replace by what; nothing is changed.

    Args:
        cache_dir: absolute.
        source: path of a backup; None: the newest automatic one.

    Raises:
        EntryNotFound: there is no such file.
        RequestError: the backup cannot be used.
    """
    with open_directory(cache_dir) as directory:
        return _planned(directory, source)


def restore(cache_dir: str, source: str | None) -> Restoring:
    """Put a backup into the place of cache.db, and set that aside.

    Args:
        cache_dir: absolute.
        source: path of a backup; None: the newest automatic one.

    Raises:
        AlreadyRunning: a daemon serves the directory.
        EntryNotFound: there is no such file.
        RequestError: the backup cannot be used, or the disk refuses; nothing was replaced.
    """
    clock = SystemClock()
    with ExitStack() as stack:
        directory = stack.enter_context(open_directory(cache_dir))
        stack.enter_context(hold_lock(directory, now=clock.utc_text()))
        # First: what cannot be mapped leaves everything as it is.
        stamps = map_stamps(directory)
        try:
            finish_replacement(directory)
            plan = _planned(directory, source)
            assert plan.chosen is not None
            target = begin_replacement(directory)
            stack.callback(abandon_replacement, directory)
            _copy(plan.chosen, target)
            trash = DirectoryTree(directory).trash_names()
            count_on(target, removals_min=max(trash, default=0))
            decide_replacement(directory, clock.utc_text().partition(".")[0].translate(_COMPACT) + "Z")
            replaced = finish_replacement(directory)
        except TreeError as error:
            raise refusal(error) from error
        if stamps is not None:
            # What clients remember is of the database that was replaced.
            Slots(secrets.randbits(62), stamps.numbers)
        return Restoring(chosen=plan.chosen, current=plan.current, replaced=_existing(replaced))


_COMPACT = str.maketrans({"-": None, ":": None, " ": "T"})


def attempt(cache_dir: str, source: str | None, *, is_list: bool, is_plan: bool) -> Restoring:
    """Do what is asked, and say it in one reply, whatever comes of it."""
    try:
        if not os.path.isdir(cache_dir):
            raise DirectoryMissing(
                f"there is no cache directory {cache_dir}: make it, or name another with --cache-dir"
            )
        if is_list:
            return list_backups(cache_dir)
        return (plan_restore if is_plan else restore)(cache_dir, source)
    except RequestError as error:
        failure = error.to_failure()
        return Restoring(code=failure.code, message=failure.message, is_busy=isinstance(error, AlreadyRunning))


def _planned(directory: CacheDirectory, source: str | None) -> Restoring:
    if source is None:
        backups = _automatic(directory)
        if not backups:
            message = f"{directory.path} has no automatic backup yet: name a file that `motools cache backup` made"
            raise EntryNotFound(message)
        chosen = backups[0]
    else:
        found = _seen(os.path.abspath(source))
        if found is None:
            raise EntryNotFound(f"there is no file {source}")
        chosen = found
    if chosen.problem:
        raise CorruptDatabase(_unusable(chosen, chosen.problem))
    return Restoring(chosen=chosen, current=_seen(directory.database))


def _copy(chosen: BackupFile, target: str) -> None:
    """Copy it, from one end to the other checked."""
    try:
        contents = copy_database(os.fsdecode(chosen.path), target)
    except CorruptDatabase as error:
        raise CorruptDatabase(_unusable(chosen, error.message)) from error
    if contents.version == 0 and not any(contents.counts.values()):
        raise CorruptDatabase(_unusable(chosen, "it is empty"))


def _unusable(chosen: BackupFile, reason: str) -> str:
    return (
        f"the backup {os.fsdecode(chosen.path)} cannot be used, and nothing was replaced: {reason}. Choose another: "
        "`motools cache restore-backup --list` shows the automatic ones"
    )


def _automatic(directory: CacheDirectory) -> list[BackupFile]:
    try:
        stored = DirectoryTree(directory).backups.automatic()
    except TreeError as error:
        raise refusal(error) from error
    found = (_seen(os.fsdecode(one.path), one.made_at) for one in stored)
    return [one for one in found if one is not None]


def _seen(path: str, made_at: str = "") -> BackupFile | None:
    """What a file holds; None if there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return BackupFile(path=os.fsencode(path), problem=str(error))
    made_at = made_at or datetime.fromtimestamp(int(found.st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not stat.S_ISREG(found.st_mode):
        return BackupFile(path=os.fsencode(path), made_at=made_at, problem="it is no regular file")
    try:
        contents = glance(path)
    except RequestError as error:
        problem = error.to_failure().message
        return BackupFile(path=os.fsencode(path), size_bytes=found.st_size, made_at=made_at, problem=problem)
    return BackupFile(
        path=os.fsencode(path),
        size_bytes=found.st_size,
        made_at=made_at,
        datasets=contents.counts[Kind.DATASET],
        models=contents.counts[Kind.MODEL],
        evals=contents.counts[Kind.EVAL],
        schema_version=contents.version,
    )


def _existing(replaced: bytes | None) -> bytes:
    """The path of what was set aside, if anything was."""
    return replaced if replaced is not None and os.path.lexists(replaced) else b""
