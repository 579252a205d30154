"""Nobody else: other users and what they have prepared, what lies where a job runs, links at paths that are opened.

Each case says what was tried, and counts a violation where a byte was sent or answered, where something outside was
read as ours, written or removed, where something planted was run, or where an error names neither reason nor remedy.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from motools.cache import CacheUtils, PeerRefused, SyncCache
from motools.cache.errors import CacheError, EntryNotFound
from motoolsd.wire.messages import PROTOCOL, Hello
from motoolsd.wire.names import (
    BACKUPS,
    BALLAST,
    CONFIG,
    DATABASE,
    DATASETS,
    EVALS,
    LOCK,
    LOG,
    RUNS,
    SOCKET,
    STAGING,
    STAMPS,
    START_LOCK,
    TRASH,
)
from motoolsd.wire.session import ClientSession
from tests.daemons import TIMEOUT_S, DaemonProcess, running
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.faults.attack import Attack, Report, needs, scratch
from tests.faults.shim import build_library

SYSTEM_PYTHON: Final = "/usr/bin/python3"
OTHER_UIDS: Final = range(20_001, 20_100)
CALL_TIMEOUT_S: Final = 10.0
SETTINGS: Final = 'backup_interval = "0.1s"\nbudget_interval_s = 0.1\ntrash_keep = "1s"\n'
FILES: Final = (
    *(LOCK, START_LOCK, SOCKET, STAMPS, f"{STAMPS}.new", CONFIG, LOG, BALLAST, f"{BALLAST}.1"),
    *(DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"),
)
DIRECTORIES: Final = (TRASH, DATASETS, RUNS, EVALS, STAGING, BACKUPS)
REMEDIES: Final = ("Remove", "remove", "Use ", "use ", "Move", "Choose", "Check", "another", "chown", "start one with")
ERRORS_MAX: Final = 2
"""After which it is as good as certain that all calls are refused."""
PRECIOUS: Final = "precious\n"


class Scene(NamedTuple):
    """One round."""

    top: Path
    """May be entered by everybody."""
    number: int
    random: Random
    report: Report
    where: str
    bug: str | None

    @property
    def directory(self) -> Path:
        """Where the cache is, or is to be."""
        return self.top / "job" / ".motools"

    @property
    def other_uid(self) -> int:
        """Somebody else."""
        return OTHER_UIDS[self.number % len(OTHER_UIDS)]

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `Report.expect`
        """Violated if it is not so."""
        self.report.expect(is_so, f"{self.where}: {text}")

    def expect_words(self, error: Exception, *names: str) -> None:
        """An error names what is wrong, and what to do."""
        text = str(error)
        self.expect(all(name in text for name in names), f"{names} are not named: {text}")
        self.expect(any(remedy in text for remedy in REMEDIES), f"no remedy is named: {text}")


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """One case in each round, in turn."""
    for number in rounds:
        case = CASES[number % len(CASES)]
        with scratch() as top:
            top.chmod(0o755)
            (top / "job").mkdir(mode=0o755)
            scene = Scene(top, number, Random(number), report, f"round {number}, {case.__name__}", bug)
            try:
                case(scene)
            finally:
                end_daemon(scene.directory, signal.SIGKILL)
        report.count(case.__name__.replace("_", " "))
        report.rounds += 1


def _ask(directory: Path, random: Random) -> CacheError | None:
    """A call that starts a daemon, or one that does not: the error that it ends with."""
    try:
        if random.random() < 0.5:
            CacheUtils(str(directory)).get_stats()
        else:
            with SyncCache(directory, timeout_s=CALL_TIMEOUT_S) as cache:
                cache.set_file_id("d", "file")
    except CacheError as error:
        return error
    return None


# ------------------------------------------------------------------------------------------------------ other users

KNOCK: Final = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
try:
    s.connect(sys.argv[1])
    s.sendall(bytes.fromhex(sys.argv[2]))
    print("received", s.recv(100))
except OSError as error:
    print(type(error).__name__)
"""
SQUAT: Final = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
s.listen()
print("listening", flush=True)
s.settimeout(10)
c, _ = s.accept()
c.settimeout(10)
print("received", c.recv(100), flush=True)
"""


def _as_other(uid: int, script: str, *arguments: str) -> list[str]:
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    return [*drop, SYSTEM_PYTHON, "-I", "-c", script, *arguments]


def stranger_knocks(scene: Scene) -> None:
    """Somebody else connects: closed without a byte, even where the permissions were opened by hand; we are served."""
    scene.directory.mkdir(mode=0o700)
    is_open = scene.random.random() < 0.8
    said = scene.random.choice(["", "00000001c0", "00000005920181a1", "ff" * 40])
    with running(scene.directory, bug=scene.bug) as daemon:
        if is_open:
            scene.directory.chmod(0o755)
            (scene.directory / SOCKET).chmod(0o666)
        # What a client of ours says first, or what is no frame.
        greeting = ClientSession().hello(Hello(protocol=PROTOCOL, version="0.1.0")).hex()
        hello = scene.random.choice([greeting, said])
        knock = _as_other(scene.other_uid, KNOCK, str(scene.directory / SOCKET), hello)
        done = subprocess.run(knock, capture_output=True, check=True, text=True, timeout=TIMEOUT_S, cwd="/")
        heard = done.stdout.strip()
        wanted = {"received b''", "ConnectionResetError", "BrokenPipeError"} if is_open else {"PermissionError"}
        scene.expect(heard in wanted, f"a stranger heard {heard}")
        if is_open:
            scene.expect(f"uid {scene.other_uid} was refused" in daemon.log, "the log does not name the stranger")
        with SyncCache(scene.directory, autostart=False, timeout_s=CALL_TIMEOUT_S) as cache:
            cache.set_file_id("d", "file")


def prepared_socket(scene: Scene) -> None:
    """Somebody else listens in a directory of ours, or in one of theirs: no byte, and it is said whose it is."""
    scene.directory.mkdir(mode=0o755)
    is_ours = scene.random.random() < 0.5
    os.chown(scene.directory, scene.other_uid, -1)
    path = scene.directory / SOCKET
    (scene.directory / DATABASE).touch()
    with subprocess.Popen(_as_other(scene.other_uid, SQUAT, str(path)), stdout=subprocess.PIPE, cwd="/") as squatter:
        assert squatter.stdout is not None
        try:
            assert squatter.stdout.readline() == b"listening\n"
            if is_ours:
                os.chown(scene.directory, os.geteuid(), -1)
            error = _ask(scene.directory, scene.random)
            scene.expect(isinstance(error, PeerRefused), f"the call ended with {error!r}")
            if error is not None:
                scene.expect_words(error, f"uid {scene.other_uid}", str(scene.directory))
            # Whoever left before a byte was sent is heard as the end; nobody came where the directory was refused.
            with suppress(OSError), socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            heard = squatter.stdout.readline()
        finally:
            squatter.kill()
    scene.expect(heard in (b"received b''\n", b""), f"somebody else heard {heard!r}")


def prepared_directory(scene: Scene) -> None:
    """A directory of somebody else is used by neither client nor daemon, and stays as it is."""
    scene.directory.mkdir(mode=scene.random.choice([0o755, 0o777]))
    os.chown(scene.directory, scene.other_uid, -1)
    if scene.random.random() < 0.5:
        (scene.directory / DATABASE).touch()
    before = _snapshot(scene.directory)
    error = _ask(scene.directory, scene.random)
    scene.expect(isinstance(error, CacheError), f"the call ended with {error!r}")
    if error is not None:
        scene.expect_words(error, str(scene.directory))
    daemon = DaemonProcess(scene.directory, bug=scene.bug)
    said = None if daemon.readiness is None else daemon.readiness.failure
    daemon.kill()
    scene.expect(said is not None and f"uid {scene.other_uid}" in said.message, f"the daemon said {said}")
    scene.expect(_snapshot(scene.directory) == before, "something was made or changed in it")


def writable_by_others(scene: Scene) -> None:
    """The right is taken away before anything is made, and said."""
    scene.directory.mkdir()
    mode = scene.random.choice([0o770, 0o775, 0o777, 0o722, 0o730])
    scene.directory.chmod(mode)
    os.chown(scene.directory, -1, scene.other_uid)
    with SyncCache(scene.directory, timeout_s=CALL_TIMEOUT_S) as cache:
        cache.set_file_id("d", "file")
        left = stat.S_IMODE(scene.directory.stat().st_mode)
        scene.expect(left == mode & ~0o022, f"mode {mode:o} became {left:o}")
        scene.expect(f"mode {mode:o}" in (scene.directory / LOG).read_text(), "it was not said")
    script = "import os, sys; os.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY))"
    made = str(scene.directory / "made")
    subprocess.run(
        _as_other(scene.other_uid, script, made), check=False, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, cwd="/"
    )
    scene.expect(not os.path.lexists(made), "somebody else made a file there")


# ------------------------------------------------------------------------------------------------ where a job runs

MODULES: Final = (
    *("sitecustomize.py", "usercustomize.py", "motoolsd.py", "motoolsd/__init__.py", "motools/__init__.py"),
    *("json.py", "msgspec.py", "sqlite3.py", "typer.py", "encodings.py", "socket.py", "asyncio/__init__.py"),
    *("uvloop.py", "aiosqlite.py", "anyio/__init__.py"),
)
TELL: Final = """
import os
with open("/proc/self/cmdline", "rb") as command, open({marks!r} + "/" + str(os.getpid()), "wb") as mark:
    mark.write(command.read())
"""
"""The command, for a daemon is the child of what loads its modules."""
PRELOADED: Final = """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void tell(void)
{
    char path[512], text[4096];
    snprintf(path, sizeof path, "%s/%d", MARKS, (int)getpid());
    int command = open("/proc/self/cmdline", O_RDONLY), mark = open(path, O_CREAT | O_WRONLY, 0600);
    ssize_t size = read(command, text, sizeof text);
    if (size < 0 || write(mark, text, size) < 0)
        _exit(99);
    close(mark);
    close(command);
}
"""
JOB: Final = """
import sys
from motools.cache import SyncCache
with SyncCache(sys.argv[1]) as cache:
    cache.set_file_id("d", "file")
    print(cache.get_status().pid)
"""


def planted_where_a_job_runs(scene: Scene) -> None:
    """Modules in its working directory and on its paths, a library to be preloaded: the daemon loads none of them."""
    marks, place = scene.top / "marks", scene.top / "job"
    marks.mkdir()
    for name in MODULES:
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(TELL.format(marks=str(marks)))
    (scene.top / "tell.c").write_text(f'#define MARKS "{marks}"\n{PRELOADED}')
    environment = {
        **os.environ,
        "LD_PRELOAD": str(build_library(scene.top / "tell.c", scene.top)),
        "PYTHONSTARTUP": str(place / "json.py"),
        "PYTHONUSERBASE": str(place),
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
    }
    # The job itself is to run: with the directory on its path, too, it loads of the planted modules only the first.
    if scene.random.random() < 0.5:
        (scene.top / "path").mkdir()
        shutil.copy(place / "sitecustomize.py", scene.top / "path")
        environment["PYTHONPATH"] = str(scene.top / "path")
    command = [sys.executable, "-P", "-c", JOB, ".motools"]
    if scene.bug == "start anywhere":
        command = [sys.executable, "-P", "-c", LOOSELY + JOB, ".motools"]
    done = subprocess.run(
        command,
        cwd=place,
        env=environment,
        check=False,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    pid = daemon_pid(scene.directory)
    told = [path.read_bytes() for path in marks.iterdir()]
    scene.expect(bool(told), "nothing planted was loaded by the job, either")
    scene.expect(pid is not None and str(pid) in done.stdout, f"no daemon came up: {done.stderr}")
    scene.expect(not any(b"\0motoolsd\0" in command for command in told), "the daemon has loaded what was planted")
    if pid is not None:
        inherited = Path(f"/proc/{pid}/environ").read_bytes()
        scene.expect(b"PYTHON" not in inherited and b"LD_PRELOAD" not in inherited, f"it was given {inherited!r}")
        scene.expect(Path(f"/proc/{pid}/cwd").readlink() == Path("/"), "it runs where the job ran")


LOOSELY: Final = """
from motools.cache import spawn
spawn.clean_environment = dict
"""
"""Planted: the daemon is given what the job was given."""

# ------------------------------------------------------------------------------------------------------------ links


def links(scene: Scene) -> None:
    """A link at a path that is opened: refused in words, or replaced; what it leads to is neither used nor changed."""
    name = scene.random.choice((*FILES, *FILES, *DIRECTORIES))
    target = _outside(scene, name)
    scene.directory.mkdir(mode=0o700)
    if scene.random.random() < 0.5:
        # A cache that was used before.
        with running(scene.directory), SyncCache(scene.directory, autostart=False) as cache:
            cache.put_dataset(b"kept\n", file_id="kept")
    if scene.random.random() < 0.5:
        (scene.directory / CONFIG).write_text(SETTINGS)
    planted = scene.directory / name
    if planted.is_dir():
        shutil.rmtree(planted)
    planted.unlink(missing_ok=True)
    planted.symlink_to(target)
    if scene.random.random() < 0.5:
        os.lchown(planted, scene.other_uid, -1)
    where = f"{scene.where}, {name} -> {target.name}"
    before = _snapshot(scene.top / "outside")
    errors = _use(scene)
    end_daemon(scene.directory)
    changed = {path for path, _ in _snapshot(scene.top / "outside").items() ^ before.items()}
    scene.report.expect(not changed, f"{where}: changed outside: {changed}")
    for error in errors:
        scene.report.count("refused in words")
        if name not in str(error):
            scene.report.violate(f"{where}: it is not named: {error}")
        scene._replace(where=where).expect_words(error)
    is_believed = name in (CONFIG, DATABASE, DATASETS, TRASH) and target.exists()
    scene.report.expect(bool(errors) or not is_believed, f"{where}: it was used")


def _outside(scene: Scene, name: str) -> Path:
    """What a link leads to: something of ours that is precious, or nothing."""
    outside = scene.top / "outside"
    (outside / "sub").mkdir(parents=True)
    for path in ("file", "sub/file"):
        (outside / path).write_text(PRECIOUS)
    (outside / "config").write_text('durability = "normal"\n')
    shutil.copytree(outside / "sub", outside / "sub" / "1")
    if name == DATABASE:
        other = scene.top / "other"
        other.mkdir()
        with running(other), SyncCache(other, autostart=False) as cache:
            cache.set_file_id("d", "another cache's")
        shutil.copy(other / DATABASE, outside / "database")
    if scene.random.random() < 0.2:
        return outside / "nothing"
    special = {DATABASE: "database", CONFIG: "config"}
    return outside / special.get(name, "sub" if name in DIRECTORIES else "file")


def _use(scene: Scene) -> list[CacheError]:
    """Everything that opens something, in a daemon that is started for it; the errors of it."""

    def remove(cache: SyncCache) -> None:
        result = cache.clear_datasets([stored[-1]], delete_files=True)
        if result.left:
            raise CacheError(f"left: {result.left}")

    def put(cache: SyncCache) -> None:
        stored.append(cache.put_dataset(b"content\n", file_id="file").dataset_hash)

    stored = ["none"]
    errors: list[CacheError] = []
    with SyncCache(scene.directory, timeout_s=CALL_TIMEOUT_S) as cache:
        for call in (lambda one: one.set_file_id("e", "f"), put, remove, SyncCache.undo, remove, SyncCache.empty_trash):
            try:
                call(cache)
            except EntryNotFound:
                continue  # nothing was removed, and why stands in another error
            except CacheError as error:
                errors.append(error)
            if len(errors) == ERRORS_MAX:
                break
    return errors


def _snapshot(top: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every name below, with its mode, inode, time of the last change and content."""
    found = {}
    for path in sorted((top, *top.rglob("*"))):
        seen = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        found[str(path.relative_to(top))] = (seen.st_mode, seen.st_ino, seen.st_ctime_ns, content)
    return found


CASES: Final[tuple[Callable[[Scene], None], ...]] = (
    stranger_knocks,
    prepared_socket,
    prepared_directory,
    writable_by_others,
    planted_where_a_job_runs,
    links,
    links,
    links,
)


def unavailable() -> str | None:
    """Why it cannot be done here."""
    missing = None if os.access(SYSTEM_PYTHON, os.X_OK) else f"needs {SYSTEM_PYTHON}, which every user may run"
    return needs("setpriv", "gcc", root=True)() or missing


ATTACK = Attack(
    name="intruders",
    promise="nobody else",
    says="other users connect and prepare sockets and directories; planted modules, libraries and links",
    wanted="0 bytes to anybody else, nothing planted run, nothing outside changed; reason and remedy in each error",
    rounds=800,
    chunk=40,
    run=attack,
    unavailable=unavailable,
)
