"""Who is about to store an entry: this process, gathered once.

Layer: motools.cache. Imports clock, masking, repository, scheduler and motoolsd.wire.
Invariant: nothing is gathered at import, and nothing here raises: what cannot be had is left out. Credentials in the
command are masked; of the environment nothing is recorded but the number of a scheduler's job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from motools.cache.clock import utc_text
from motools.cache.masking import mask_command
from motools.cache.repository import Head, Repository, find_repository, is_dirty, read_head
from motools.cache.scheduler import ELLIPSIS, job_of, shortened
from motoolsd.wire.origins import (
    ARGUMENTS_MAX,
    COMMAND_SIZE_MAX_BYTES,
    DIRECTORY_SIZE_MAX,
    NAME_SIZE_MAX,
    Origin,
)
from motoolsd.wire.version import __version__

ARGUMENT_SIZE_MAX: Final = 2_000
"""Characters of one argument: a long one leaves room for the others."""
DIRECTORIES_MAX: Final = 16
"""Working directories of one process that are remembered."""

_SPAWNED: Final = "--multiprocessing-fork"


def current_origin() -> Origin:
    """What is known of this process, in this working directory; the first call gathers it.

    A forked child is a process of its own. The commit is that of the first call, as is the code that runs.
    Concurrency: the first call may block for up to `GIT_TIMEOUT_S`, for git: an async caller makes it in a thread.
    """
    return origin_of(os.getpid(), _working_directory())


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it was removed


@lru_cache(maxsize=DIRECTORIES_MAX)
def origin_of(pid: int, cwd: str) -> Origin:
    """What is known of this process, which has that pid and works there: what is remembered is found by these."""
    repository = find_repository(cwd) if cwd else None
    head, dirty = _checked_out(repository)
    scheduler, job_id = job_of(os.environ)
    uid = os.getuid()
    return Origin(
        user=shortened(_user_name(uid), NAME_SIZE_MAX),
        uid=uid,
        host=shortened(os.uname().nodename, NAME_SIZE_MAX),
        pid=pid,
        started_at=_started_at(),
        command=shortened_command(mask_command(_arguments())),
        cwd=shortened(cwd, DIRECTORY_SIZE_MAX),
        git_commit=head.commit,
        git_branch=shortened(head.branch, NAME_SIZE_MAX),
        git_dirty=dirty,
        scheduler=scheduler,
        job_id=job_id,
        package=__version__,
    )


def _checked_out(repository: Repository | None) -> tuple[Head, bool | None]:
    if repository is None:
        return Head(), None
    head = read_head(repository)
    return head, is_dirty(repository) if head.commit else None


def _user_name(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError, OSError):
        return ""  # as in a container that runs with any number


def _started_at() -> str:
    """When this process began, by the kernel."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read()
        with open("/proc/stat", "rb") as file:
            boot_s = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
        # The second field is the command in parentheses and may hold anything; start time is field 22, in ticks.
        ticks = int(fields[fields.rindex(b")") + 2 :].split()[19])
        return utc_text(boot_s + ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, StopIteration, OverflowError):
        return ""


def _arguments() -> Sequence[str]:
    """The command line as it was given, no longer than can be of use."""
    arguments = sys.orig_argv
    if not arguments or _SPAWNED in arguments:
        arguments = getattr(sys, "argv", [])  # of a worker that multiprocessing started: what its parent was asked
    taken: list[str] = []
    size = 0
    for argument in arguments[: ARGUMENTS_MAX + 1]:
        if size > 4 * COMMAND_SIZE_MAX_BYTES:
            taken.append(ELLIPSIS)
            break
        taken.append(argument)
        size += len(argument)
    return taken


def shortened_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Arguments within the wire's limits; one that is cut, and where some are missing, ends in an ellipsis."""
    kept: list[str] = []
    left_bytes = COMMAND_SIZE_MAX_BYTES - len(ELLIPSIS.encode())
    if len(arguments) > ARGUMENTS_MAX:
        arguments = [*arguments[: ARGUMENTS_MAX - 1], ELLIPSIS]
    for argument in arguments:
        text = shortened(argument, ARGUMENT_SIZE_MAX)
        size_bytes = len(text.encode())
        if size_bytes > left_bytes:
            return (*kept[: ARGUMENTS_MAX - 1], ELLIPSIS)
        kept.append(text)
        left_bytes -= size_bytes
    return tuple(kept)
