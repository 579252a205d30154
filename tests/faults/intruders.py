"""Nobody else: other users, prepared sockets and directories, planted modules, links at every path that is opened."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from motools.cache import SyncCache
from motools.cache.errors import CacheError, PeerRefused
from motoolsd.wire import names
from motoolsd.wire.messages import PROTOCOL, Hello
from motoolsd.wire.session import ClientSession
from tests.daemons import TIMEOUT_S, DaemonProcess, running, wait_for_end
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.faults.attack import Attack, Report, needs

OTHER_UID: Final = 20_001
SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""One that others may run, too."""
FILES: Final = (
    *(names.DATABASE, f"{names.DATABASE}-wal", f"{names.DATABASE}-shm", names.LOCK, names.START_LOCK),
    *(names.LOG, names.STAMPS, names.CONFIG, names.BALLAST, *names.BALLAST_SPARES, names.SOCKET),
)
DIRECTORIES: Final = (names.DATASETS, names.RUNS, names.EVALS, names.TRASH, names.STAGING, names.BACKUPS)
PRECIOUS: Final = b"precious\n"

KNOCK: Final = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
try:
    s.sendall(bytes.fromhex(sys.argv[2]))
    print("received", s.recv(100))
except ConnectionError:
    print("received", b"")
"""
SQUAT: Final = """
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
JOB: Final = """
import sys
sys.path[:0] = {path!r}
from motools.cache import SyncCache
with SyncCache({directory!r}) as cache:
    cache.set_file_id("d", "file")
    print(cache.get_status().pid)
"""
PLANTED: Final = """
import pathlib, sys
if "motoolsd" in " ".join(sys.orig_argv):
    pathlib.Path({marker!r}).write_text(__name__)
"""


class Scene(NamedTuple):
    """One round: a place that others may walk through, and the directory in it."""

    top: Path
    directory: Path
    report: Report
    where: str
    bug: str | None

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `Report.expect`
        """Violated if it is not so."""
        self.report.expect(is_so, f"{self.where}: {text}")


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """One case after the other, each in a directory of its own."""
    for number in rounds:
        case = CASES[number % len(CASES)]
        name = " ".join(str(getattr(part, "__name__", part)).strip("_").replace("_", " ") for part in case)
        with _public_scratch() as top:
            scene = Scene(top, top / ".motools", report, f"round {number}, {name}", bug)
            act, *arguments = case
            act(scene, *arguments)
            end_daemon(scene.directory)
        report.count(str(getattr(act, "__name__", "")).strip("_").replace("_", " "))
        report.rounds += 1


@contextmanager
def _public_scratch() -> Iterator[Path]:
    """A directory that other users may walk through."""
    top = Path(tempfile.mkdtemp(prefix="mt-", dir="/tmp"))
    top.chmod(0o755)
    try:
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _as_other(*command: str) -> list[str]:
    return ["setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups", "--", *command]


# ------------------------------------------------------------------------------------------------------- other users


def _another_user_connects(scene: Scene) -> None:
    """Though somebody has opened the permissions: closed without a byte, and the others are served."""
    scene.directory.mkdir()
    with running(scene.directory, bug=scene.bug), SyncCache(scene.directory, autostart=False) as cache:
        cache.set_file_id("d", "file")
        scene.directory.chmod(0o755)
        (scene.directory / names.SOCKET).chmod(0o666)
        hello = bytes(ClientSession().hello(Hello(protocol=PROTOCOL, version="0.1.0"))).hex()
        knock = _as_other(SYSTEM_PYTHON, "-c", KNOCK, str(scene.directory / names.SOCKET), hello)
        done = subprocess.run(knock, capture_output=True, text=True, timeout=TIMEOUT_S, cwd="/", check=False)
        scene.expect(done.stdout.strip() == "received b''", f"another user got {done.stdout!r} {done.stderr[-200:]}")
        scene.expect(cache.get_file_id("d") == "file", "the owner is not served any more")


def _another_user_has_prepared_a_socket(scene: Scene) -> None:
    """In a directory of theirs: they get no byte, and the caller is told whose it is. Root is not excepted."""
    scene.directory.mkdir()
    os.chown(scene.directory, OTHER_UID, OTHER_UID)
    squat = _as_other(SYSTEM_PYTHON, "-c", SQUAT, str(scene.directory / names.SOCKET))
    with subprocess.Popen(squat, stdout=subprocess.PIPE, text=True, cwd="/") as squatter:
        assert squatter.stdout is not None
        squatter.stdout.readline()
        with SyncCache(scene.directory, timeout_s=TIMEOUT_S) as cache:
            try:
                cache.set_file_id("d", "secret")
            except PeerRefused as error:
                scene.expect(str(OTHER_UID) in str(error), f"the owner is not named: {error}")
            else:
                scene.expect(is_so=False, text="somebody else's daemon was used")
        # Should nobody have come, somebody does now, and says nothing.
        with suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
            knock.connect(str(scene.directory / names.SOCKET))
        said = squatter.communicate(timeout=TIMEOUT_S)[0]
        scene.expect(said == "received b''\n", f"they were sent {said!r}")


def _another_user_owns_the_directory(scene: Scene) -> None:
    """Neither a client nor a daemon makes anything there."""
    scene.directory.mkdir()
    os.chown(scene.directory, OTHER_UID, OTHER_UID)
    with SyncCache(scene.directory, timeout_s=TIMEOUT_S) as cache:
        try:
            cache.get_file_id("d")
        except PeerRefused as error:
            scene.expect("--cache-dir" in str(error) or "MOTOOLS" in str(error) or "shared" in str(error), str(error))
        else:
            scene.expect(is_so=False, text="a client uses somebody else's directory")
    daemon = DaemonProcess(scene.directory, bug=scene.bug)
    failed = daemon.readiness is not None and daemon.readiness.failure is not None
    scene.expect(failed, "a daemon serves somebody else's directory")
    if daemon.process.poll() is None:
        daemon.kill()
    daemon.wait()
    scene.expect(list(scene.directory.iterdir()) == [], "something was made there")


def _group_may_write(scene: Scene) -> None:
    """The right is taken away at the start, and that is said."""
    scene.directory.mkdir()
    scene.directory.chmod(0o777)
    with running(scene.directory, bug=scene.bug) as daemon:
        mode = stat.S_IMODE(scene.directory.stat().st_mode)
        scene.expect(not mode & 0o022, f"the directory has mode {mode:o}")
        scene.expect("was writable by others" in daemon.log, "nothing was said of it")


# ---------------------------------------------------------------------------------------------------- planted modules


def _planted_modules(scene: Scene) -> None:
    """A job runs among files that are named like modules, with variables that load more: its daemon runs none of it."""
    planted, marker = scene.top / "job", scene.top / "marker"
    planted.mkdir()
    for name in ("sitecustomize", "usercustomize", "motoolsd", "msgspec", "json", "uvloop", "aiosqlite", "typer"):
        (planted / f"{name}.py").write_text(PLANTED.format(marker=str(marker)))
    home = scene.top / "home"
    home.mkdir()
    path = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "client")]
    environment = {
        **os.environ,
        "PYTHONPATH": str(planted),
        "PYTHONSTARTUP": str(planted / "sitecustomize.py"),
        "PYTHONUSERBASE": str(planted),
        "LD_PRELOAD": "",
        "MOTOOLS_IDLE_TIMEOUT": "20",
    }
    script = scene.top / "job.py"
    script.write_text(JOB.format(path=path, directory=str(scene.directory)))
    # The job itself has a clean path (-I): what it is made to import is its own affair.
    done = subprocess.run(
        [sys.executable, "-I", str(script)],
        cwd=planted,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    scene.expect(done.returncode == 0, f"the job failed: {done.stderr[-300:]}")
    scene.expect(not marker.exists(), f"the daemon ran what was planted: {marker.exists() and marker.read_text()}")
    if (pid := daemon_pid(scene.directory)) is not None:
        seen = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        leaked = [name for name in ("PYTHONPATH=", "PYTHONUSERBASE=", "PYTHONSTARTUP=") if name in seen]
        scene.expect(not leaked, f"the daemon was given {leaked}")
        scene.expect(os.readlink(f"/proc/{pid}/cwd") == "/", "the daemon runs where the job does")  # noqa: PTH115
        end_daemon(scene.directory)
        wait_for_end(pid)


# --------------------------------------------------------------------------------------------------------------- links


def _link_at(scene: Scene, name: str) -> None:
    """A link in the place of one of its files or directories, which leads outside: nothing there is touched."""
    outside = scene.top / "outside"
    outside.mkdir()
    target = outside / "target"
    if name in DIRECTORIES:
        target.mkdir()
        (target / "file").write_bytes(PRECIOUS)
    else:
        target.write_bytes(PRECIOUS)
    target.chmod(0o640 if target.is_file() else 0o750)
    before = _state(outside)
    scene.directory.mkdir(mode=0o700)
    (scene.directory / name).symlink_to(target)
    daemon = DaemonProcess(scene.directory, bug=scene.bug)
    said = None if daemon.readiness is None else daemon.readiness.failure
    if daemon.process.poll() is None and said is None:
        with suppress(CacheError), SyncCache(scene.directory, autostart=False, timeout_s=TIMEOUT_S) as cache:
            cache.set_file_id("d", "file")
            cache.put_dataset(b"content", file_id="file")
            cache.clear_datasets(["d"], delete_files=True)
            cache.empty_trash()
        daemon.stop()
        scene.report.count("served beside a link")
    else:
        daemon.wait()
        scene.report.count("refused to start at a link")
        scene.expect(
            said is not None and name.split("-", maxsplit=1)[0] in said.message, f"the link is not named: {said}"
        )
    scene.expect(_state(outside) == before, "something outside was changed")


def _state(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below: mode, inode, content."""
    return {
        str(path.relative_to(top)): (
            path.stat().st_mode,
            path.stat().st_ino,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(top.rglob("*"))
    }


CASES: Final[tuple[tuple[Any, ...], ...]] = (
    (_another_user_connects,),
    (_another_user_has_prepared_a_socket,),
    (_another_user_owns_the_directory,),
    (_group_may_write,),
    (_planted_modules,),
    *((_link_at, name) for name in (*FILES, *DIRECTORIES)),
)
ATTACK = Attack(
    name="intruders",
    promise="nobody else",
    says="another uid, root among them; prepared sockets and directories; planted modules; links at every path opened",
    wanted="every case ten times: refused before a byte is sent or run, with the remedy; nothing outside touched",
    rounds=10 * len(CASES),
    chunk=len(CASES),
    run=attack,
    unavailable=needs("setpriv", SYSTEM_PYTHON, root=True),
)
