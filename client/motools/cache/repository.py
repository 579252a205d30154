"""Which commit a directory is at, read from the repository's files; and whether it was changed since, asked of git.

Layer: motools.cache. Imports nothing.
Invariant: only regular files are read, each bounded, and never outside the repository's own directories; git runs for
at most `GIT_TIMEOUT_S`, in a repository that belongs to this user, and changes nothing there. Nothing here raises:
what cannot be had is not known.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import subprocess

PARENTS_MAX: Final = 64
"""Directories above that are looked at."""
REFERENCES_MAX: Final = 5
"""Steps from HEAD to a commit."""
LINE_SIZE_MAX: Final = 4096
"""Bytes of a file that holds one line."""
PACKED_SIZE_MAX: Final = 32 * 1024 * 1024
"""Bytes of packed-refs that are read: some 400,000 references."""
BRANCH_SIZE_MAX: Final = 256
GIT_TIMEOUT_S: Final = 1.0
END_WAIT_S: Final = 0.2
"""How long git may take to end when it has nothing more to say, or was killed."""

_COMMIT: Final = re.compile(rb"(?:[0-9a-f]{40}|[0-9a-f]{64})")
_REFERENCE: Final = re.compile(rb"refs/(?!.*(?:\.\.|//|/\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]{1,1024}")
_BRANCH_PREFIX: Final = b"refs/heads/"
_PACKED_BLOCK_SIZE: Final = 1024 * 1024


class Repository(NamedTuple):
    """Where a working tree and its administrative files lie."""

    tree: str
    git_dir: str
    common_dir: str
    """The same, but for a further working tree of one repository."""


class Head(NamedTuple):
    """What is checked out."""

    commit: str = ""
    """Empty: there is none yet, or it cannot be told."""
    branch: str = ""
    """Empty: it is detached."""


def find_repository(directory: str) -> Repository | None:
    """The repository that a directory lies in; None if there is none, or it cannot be read."""
    directory = os.path.abspath(directory)
    for _ in range(PARENTS_MAX):
        git_dir = _git_dir(directory)
        if git_dir is not None and _read(os.path.join(git_dir, "HEAD"), LINE_SIZE_MAX):
            return Repository(directory, git_dir, _common_dir(git_dir))
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent
    return None


def _git_dir(directory: str) -> str | None:
    """What `.git` is or points at: a file in submodules and further working trees."""
    path = os.path.join(directory, ".git")
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return path
    except (OSError, ValueError):
        return None
    prefix, _, target = _read(path, LINE_SIZE_MAX).partition(b"gitdir: ")
    if prefix or not target or b"\0" in target:
        return None
    return os.path.normpath(os.path.join(directory, os.fsdecode(target.rstrip(b"\r\n"))))


def _common_dir(git_dir: str) -> str:
    target = _read(os.path.join(git_dir, "commondir"), LINE_SIZE_MAX).rstrip(b"\r\n")
    if not target or b"\0" in target:
        return git_dir
    return os.path.normpath(os.path.join(git_dir, os.fsdecode(target)))


def read_head(repository: Repository) -> Head:
    """The commit that is checked out, and its branch."""
    line = _read(os.path.join(repository.git_dir, "HEAD"), LINE_SIZE_MAX).strip()
    branch = ""
    for _ in range(REFERENCES_MAX):
        if _COMMIT.fullmatch(line) is not None:
            return Head(line.decode("ascii"), branch)
        marker, _, name = line.partition(b"ref: ")
        if marker or _REFERENCE.fullmatch(name) is None:
            return Head("", branch)
        if name.startswith(_BRANCH_PREFIX):
            branch = name.removeprefix(_BRANCH_PREFIX).decode("utf-8", "backslashreplace")[:BRANCH_SIZE_MAX]
        line = _read_reference(repository, name)
    return Head("", branch)


def _read_reference(repository: Repository, name: bytes) -> bytes:
    for directory in dict.fromkeys((repository.git_dir, repository.common_dir)):
        line = _read(os.path.join(directory, os.fsdecode(name)), LINE_SIZE_MAX).strip()
        if line:
            return line
    return _find_packed(os.path.join(repository.common_dir, "packed-refs"), name)


def _find_packed(path: str, name: bytes) -> bytes:
    """The commit of a reference in packed-refs; empty if it is not in what is read of it."""
    descriptor = _open(path)
    if descriptor is None:
        return b""
    pattern = re.compile(rb"^(" + _COMMIT.pattern + rb") " + re.escape(name) + rb"\r?$", re.MULTILINE)
    rest = b""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        for _ in range(PACKED_SIZE_MAX // _PACKED_BLOCK_SIZE):
            try:
                block = file.read(_PACKED_BLOCK_SIZE)
            except OSError:
                return b""
            lines, newline, rest = (rest[-LINE_SIZE_MAX:] + (block or b"\n")).rpartition(b"\n")
            if (found := pattern.search(lines + newline)) is not None:
                return found[1]
            if not block:
                break
    return b""


def _open(path: str) -> int | None:
    """A regular file, opened to be read; whatever else stands there is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
    except OSError:
        pass  # as if it were none
    os.close(descriptor)
    return None


def _read(path: str, size_max: int) -> bytes:
    """What a small file holds; empty if it cannot be read, or holds more."""
    descriptor = _open(path)
    if descriptor is None:
        return b""
    try:
        content = os.read(descriptor, size_max + 1)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return content if len(content) <= size_max else b""


def is_dirty(repository: Repository, *, timeout_s: float = GIT_TIMEOUT_S) -> bool | None:
    """Whether files that git follows differ from the commit; None if it cannot be told in time.

    Not asked where the repository belongs to another user: its configuration names programs that git would run.
    Concurrency: blocks for up to `timeout_s`; an async caller is to call it in a thread.
    """
    import shutil

    if not _is_own(repository) or (git := shutil.which("git")) is None:
        return None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = [git, "-c", "core.fsmonitor=false", "status", "--porcelain", "--untracked-files=no"]
    return _has_output(command, repository.tree, environment, timeout_s)


def _is_own(repository: Repository) -> bool:
    try:
        return all(os.stat(path).st_uid == os.geteuid() for path in dict.fromkeys(repository))
    except (OSError, ValueError):
        return False


def _has_output(command: list[str], directory: str, environment: dict[str, str], timeout_s: float) -> bool | None:
    """Whether a program says anything; None if it fails, or is silent for too long. It is ended as soon as it has."""
    import select
    import subprocess

    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    assert process.stdout is not None, "it was asked for"
    with process.stdout as output:
        try:
            poll = select.poll()
            poll.register(output, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                return None
            if os.read(output.fileno(), 1):
                return True
            return False if process.wait(END_WAIT_S) == 0 else None
        except (OSError, subprocess.SubprocessError):
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program, with what it started itself: a filter, a look into a submodule."""
    import signal
    import subprocess

    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(END_WAIT_S)
        except (OSError, subprocess.SubprocessError):
            pass  # somebody else has waited for it, or the disk holds it: nobody waits for that
