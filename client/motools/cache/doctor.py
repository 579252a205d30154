"""Examining a cache directory, whatever state it is in, and mending what can be mended.

Layer: motools.cache. Imports control, spawn, utils and motoolsd.wire.
Invariant: the database is read by a process of its own, `motoolsd doctor`; it is never removed, replaced or rebuilt.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from shlex import quote
from typing import TypeVar

import msgspec

from motools.cache.cleaning import OnProgress
from motools.cache.control import ANSWER_TIMEOUT_S, get_status, start_daemon
from motools.cache.errors import CacheDirectoryMissing, CacheError, DaemonNotRunning
from motools.cache.spawn import clean_environment, interpreter_command
from motools.cache.utils import CacheUtils
from motoolsd.wire.diagnosis import (
    DIRECT_MENDS,
    Diagnosis,
    HealthCheck,
    LockHolder,
    Mend,
    Mended,
    SqliteHealth,
    Verdict,
)
from motoolsd.wire.messages import Status

__all__ = [
    "Diagnosis",
    "HealthCheck",
    "LockHolder",
    "Mend",
    "Mended",
    "SqliteHealth",
    "Verdict",
    "examine",
    "mend",
    "planned_mends",
]

T = TypeVar("T")

EXAMINATION_TIMEOUT_S = 3_600.0
"""Reading every page, row and, with `deep`, dataset."""
SAID_MAX = 2_000
"""Characters of what a failed examination said."""
BLOCKING = ("directory", "filesystem", "database", "wal", "daemon")
"""While one of these checks is a problem, a daemon cannot mend anything, or would make it worse."""


def examine(directory: str, *, deep: bool = False) -> Diagnosis:
    """Look at everything; nothing is changed, and no daemon is started.

    Args:
        directory: absolute path, of whatever is there.
        deep: read the content of datasets, too.

    Raises:
        CacheError: the examination itself could not be run.
    """
    # First, because it waits for a daemon that is only just starting: half started, it would look broken.
    answer = _ask(directory)
    found = _run(["doctor", "--cache-dir", directory, *["--deep"] * deep], Diagnosis)
    if found.checks[0].status is not Verdict.OK:
        return found
    if found.holder is not None and isinstance(answer, DaemonNotRunning):
        # It came up in between.
        answer = _ask(directory)
    place = next((number for number, check in enumerate(found.checks) if check.name == "lock"), 0) + 1
    checks = [*found.checks[:place], _check_daemon(found, answer), *found.checks[place:]]
    return msgspec.structs.replace(found, checks=checks)


def planned_mends(found: Diagnosis) -> list[Mend]:
    """What would be done about it, in order."""
    wanted = {check.mend for check in found.checks}
    return [one for one in Mend if one in wanted]


def mend(directory: str, found: Diagnosis, *, deep: bool = False, on_progress: OnProgress | None = None) -> Diagnosis:
    """Mend what can be mended, and look again.

    Args:
        directory: absolute path.
        found: what `examine` found.
        deep: read the content of datasets, too.
        on_progress: told how far verifying has come.

    Returns:
        How it is now, with what came of each mend.

    Raises:
        CacheError: the examination itself could not be run.
    """
    mends = planned_mends(found)
    direct = [one for one in mends if one in DIRECT_MENDS]
    done: list[Mended] = []
    if direct:
        options = [word for one in direct for word in ("--mend", one.value)]
        done += _run(["doctor", "--cache-dir", directory, *options], list[Mended])
    for one in mends:
        if one not in DIRECT_MENDS:
            done.append(_mend_by_daemon(directory, one, found, deep=deep, on_progress=on_progress))
    return msgspec.structs.replace(examine(directory, deep=deep), mends=done)


def _mend_by_daemon(
    directory: str, one: Mend, found: Diagnosis, *, deep: bool, on_progress: OnProgress | None
) -> Mended:
    blocking = [check.name for check in found.checks if check.name in BLOCKING and check.status is Verdict.PROBLEM]
    if blocking:
        return Mended(mend=one, is_done=False, detail=f"not before this is mended: {', '.join(blocking)}")
    try:
        status, was_running = start_daemon(directory)
        if one is Mend.START:
            said = "runs already" if was_running else "was started, and ended what was half done"
            return Mended(mend=one, is_done=True, detail=f"the daemon (pid {status.pid}) {said}")
        with CacheUtils(directory) as utils:
            report = utils.verify(deep=deep, repair=True, on_progress=on_progress)
    except CacheError as error:
        return Mended(mend=one, is_done=False, detail=str(error))
    count = sum(finding.repaired for finding in report.findings)
    return Mended(mend=one, is_done=True, detail=f"{count:,} entries miss now, and are made anew when asked for")


def _ask(directory: str) -> Status | CacheError:
    """What the daemon says of itself, or why it does not."""
    try:
        return get_status(directory, timeout_s=ANSWER_TIMEOUT_S)
    except CacheError as error:
        return error


def _check_daemon(found: Diagnosis, answer: Status | CacheError) -> HealthCheck:
    """Whether the daemon answers."""
    if isinstance(answer, Status):
        detail = f"version {answer.version}, pid {answer.pid}, with SQLite {answer.sqlite_version}, answers"
        return HealthCheck(name="daemon", status=Verdict.OK, detail=detail)
    if found.holder is None and isinstance(answer, DaemonNotRunning | CacheDirectoryMissing):
        return HealthCheck(name="daemon", status=Verdict.OK, detail="none runs; the next job starts one")
    return _silent(found, found.holder or LockHolder(), str(answer))


def _silent(found: Diagnosis, holder: LockHolder, reason: str) -> HealthCheck:
    who = f"the daemon (pid {holder.pid})" if holder.pid else "a daemon that cannot be seen from here"
    state = "is stopped by a signal (SIGSTOP)" if holder.is_stopped else "runs"
    return HealthCheck(
        name="daemon",
        status=Verdict.PROBLEM,
        detail=f"{who} {state}, and does not answer: {reason}",
        remedy=f"`motools daemon restart -d {quote(found.directory)}`; nothing that was acknowledged is lost by that",
    )


def _run(words: Sequence[str], kind: type[T]) -> T:
    """Run motoolsd, and read what it prints.

    Raises:
        CacheError: it cannot be run, or fails.
    """
    try:
        done = subprocess.run(
            [*interpreter_command(), *words],
            cwd="/",
            env=clean_environment(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=EXAMINATION_TIMEOUT_S,
            check=False,
        )
        return msgspec.json.decode(done.stdout, type=kind)
    except (OSError, subprocess.TimeoutExpired, DaemonNotRunning) as error:
        raise CacheError(f"the examination cannot be run: {error}") from error
    except msgspec.MsgspecError as error:
        said = done.stderr.decode("utf-8", "replace").strip()[-SAID_MAX:]
        raise CacheError(f"the examination ended with code {done.returncode}: {said}") from error
