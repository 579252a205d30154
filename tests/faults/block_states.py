"""Every state that a power cut may leave a disk in: writes since the last flush came, did not come, or came in part.

A real ext4 is recorded block by block under a real daemon; then states are built, mounted, and read by SQLite, by our
own reader, and now and then by a daemon.
"""

from __future__ import annotations

import sqlite3
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from motools.cache import SyncCache, hash_content
from motools.cache.errors import CacheError
from motoolsd.store.reads import select_values
from motoolsd.wire.keys import Kind
from tests.daemons import TIMEOUT_S, DaemonProcess
from tests.faults.attack import Attack, Report, needs, scratch
from tests.faults.disk import MAKE, unmount
from tests.faults.shim import COMPILER

SOURCE: Final = Path(__file__).with_name("blockrec.c")
SIZE_BYTES: Final = 24 << 20
WRITERS: Final = 4
WORK_S: Final = 0.6
STATES: Final = 100
DAEMON_EVERY: Final = 50
DROPPED, TORN = 0.4, 0.15
"""Of the writes since the last flush: those that did not come, and those that came in part."""
SECTOR_BYTES: Final = 512
_HEAD: Final = struct.Struct("<cQI")


def unavailable() -> str | None:
    """Why nothing can be recorded here."""
    if (reason := needs(COMPILER, "pkg-config", "mount", "mkfs.ext4", root=True)()) is not None:
        return reason
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        return "needs /dev/fuse and loop devices"
    found = subprocess.run(["pkg-config", "--exists", "fuse3"], check=False)
    return None if found.returncode == 0 else "needs libfuse3-dev"


class Record(NamedTuple):
    """One step of the device: W a write, F a flush, M a mark: somebody had an answer by then."""

    kind: bytes
    offset: int
    data: bytes


class Recording(NamedTuple):
    """What came to a device, beginning with an image of it."""

    base: Path
    records: list[Record]


# ------------------------------------------------------------------------------------------------------- recording


def record(top: Path, seed: int, bug: str | None) -> Recording:
    """Let a daemon work on a recorded ext4, and kill it."""
    image, base, log, fuse, mounted = (top / name for name in ("image", "base", "log", "fuse", "mounted"))
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    _run(*MAKE["ext4"], str(image))
    _copy(image, base)
    with (
        _recorder(top, image, log, fuse),
        _mounted(fuse / "disk", mounted),
        (fuse / "mark").open("wb", buffering=0) as marks,
    ):
        daemon = DaemonProcess(_made(mounted), bug=bug)
        try:
            assert daemon.readiness is not None, daemon.wait()
            assert daemon.readiness.failure is None, daemon.readiness
            _work(mounted / ".motools", seed, marks.write)
        finally:
            daemon.kill()
    return Recording(base, list(_records(log)))


def _made(mounted: Path) -> Path:
    directory = mounted / ".motools"
    directory.mkdir(mode=0o700)
    # The ballast is a quarter of the device.
    (directory / "config.toml").write_text("ballast = 0\n")
    return directory


@contextmanager
def _recorder(top: Path, image: Path, log: Path, mount_point: Path) -> Iterator[None]:
    mount_point.mkdir()
    program = top / "blockrec"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True)
    _run(COMPILER, "-O2", "-Wall", "-Werror", str(SOURCE), "-o", str(program), *flags.stdout.split())
    process = subprocess.Popen([str(program), str(image), str(log), str(mount_point)])
    try:
        ends_s = time.monotonic() + TIMEOUT_S
        while not (mount_point / "disk").exists():
            assert process.poll() is None, "the recorder has ended"
            assert time.monotonic() < ends_s, "the recorder does not come up"
            time.sleep(0.01)
        yield
    finally:
        if process.poll() is None:
            unmount(mount_point)
        process.wait(TIMEOUT_S)


@contextmanager
def _mounted(image: Path, mount_point: Path) -> Iterator[None]:
    mount_point.mkdir(exist_ok=True)
    _run("mount", "-t", "ext4", "-o", "loop", str(image), str(mount_point))
    try:
        yield
    finally:
        unmount(mount_point)


def _work(directory: Path, seed: int, mark: Callable[[bytes], object]) -> None:
    """Writers with keys of their own; after each answer its mark is in the log."""
    ends_s = time.monotonic() + WORK_S

    def write(writer: int) -> None:
        random, step = Random(f"{seed}/{writer}"), 0
        with SyncCache(directory, autostart=False, timeout_s=TIMEOUT_S, memory_entries=0) as cache:
            while time.monotonic() < ends_s:
                step += 1
                if random.random() < 0.2:
                    content = f"{seed} {writer} {step}\n" + "x" * random.choice([10, 5_000])
                    cache.put_dataset(content.encode(), file_id="kept")
                    said = f"file {hash_content(content)} kept"
                else:
                    key, value = f"{writer}.{step}", f"{seed}." * random.choice([1, 40, 1_000])
                    cache.set_file_id(key, value)
                    said = f"row {key} {value}"
                mark(said.encode())

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * TIMEOUT_S)
        assert not thread.is_alive(), "a write did not come back"


def _records(log: Path) -> Iterator[Record]:
    with log.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, offset, size = _HEAD.unpack(head)
            yield Record(kind, offset, file.read(size))


# ---------------------------------------------------------------------------------------------------------- states


def build(recording: Recording, cut: int, random: Random, image: Path) -> None:
    """The image as it may be when the power goes after so many records."""
    _copy(recording.base, image)
    came = recording.records[:cut]
    flushed = max((number for number, step in enumerate(came) if step.kind == b"F"), default=-1)
    with image.open("r+b") as file:
        for number, step in enumerate(came):
            if step.kind != b"W":
                continue
            data = step.data
            if number > flushed:
                drawn = random.random()
                if drawn < DROPPED:
                    continue
                if drawn < DROPPED + TORN:
                    data = data[: SECTOR_BYTES * random.randrange(len(data) // SECTOR_BYTES + 1)]
            file.seek(step.offset)
            file.write(data)


def acknowledged(records: Sequence[Record]) -> tuple[dict[str, str], list[str]]:
    """What must be there: rows, and datasets whose files must be whole."""
    rows, files = {}, []
    for step in records:
        if step.kind == b"M":
            what, key, value = step.data.decode().split(" ", 2)
            rows[key] = value
            if what == "file":
                files.append(key)
    return rows, files


def check(directory: Path, rows: dict[str, str], files: Sequence[str], report: Report, where: str) -> None:
    """As SQLite and as our reader see it."""
    with closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        try:
            (said,) = connection.execute("PRAGMA integrity_check").fetchone()
            connection.text_factory = bytes
            found = select_values(connection, Kind.DATASET, list(rows)).found
        except sqlite3.DatabaseError as error:
            report.count("corrupt")
            report.violate(f"{where}: {error}")
            return
    report.count("corrupt", said != "ok")
    report.expect(said == "ok", f"{where}: {said}")
    lost = [key for key, value in rows.items() if found.get(key) != value.encode()]
    report.count("lost", len(lost))
    report.expect(
        not lost, f"{where}: {len(lost)} of {len(rows)} acknowledged rows are lost or wrong, such as {lost[:2]}"
    )
    broken = [key for key in files if not _is_whole(directory / "datasets" / f"{key}.jsonl", key)]
    report.count("dangling", len(broken))
    report.expect(not broken, f"{where}: {len(broken)} files are not whole, such as {broken[:2]}")


def _is_whole(path: Path, key: str) -> bool:
    return path.is_file() and hash_content(path.read_text()) == key


def _check_by_a_daemon(directory: Path, rows: dict[str, str], report: Report, where: str) -> None:
    daemon = DaemonProcess(directory)
    try:
        is_ready = daemon.readiness is not None and daemon.readiness.failure is None
        report.expect(is_ready, f"{where}: the daemon does not start: {daemon.readiness}")
        if is_ready:
            with SyncCache(directory, autostart=False, timeout_s=TIMEOUT_S, memory_entries=0) as cache:
                lost = [key for key, value in rows.items() if cache.get_file_id(key) != value]
            report.expect(not lost, f"{where}: the daemon knows nothing of {len(lost)} rows")
            report.count("states opened by a daemon")
    except CacheError as error:
        report.violate(f"{where}: {type(error).__name__}: {error}")
    finally:
        daemon.kill()


def attack(report: Report, rounds: range, bug: str | None = None, states: int = STATES) -> None:
    """A recording each round, and many states of it."""
    for number in rounds:
        with scratch() as top:
            recording = record(top, number, bug)
            first = next(at for at, step in enumerate(recording.records) if step.kind == b"M")
            random = Random(number)
            for state in range(states):
                cut = random.randrange(first, len(recording.records)) + 1
                where = f"round {number}, state {state}, cut after {cut} of {len(recording.records)} steps"
                _state(recording, cut, random, top, report, where, by_daemon=state % DAEMON_EVERY == 0)
            report.count("block writes recorded", sum(step.kind == b"W" for step in recording.records))
        report.rounds += 1


def _state(
    recording: Recording, cut: int, random: Random, top: Path, report: Report, where: str, *, by_daemon: bool
) -> None:
    rows, files = acknowledged(recording.records[:cut])
    report.count("states")
    report.count("rows compared", len(rows))
    mounted = top / "mounted"
    with _own_image(top) as image:
        build(recording, cut, random, image)
        with _mounted(image, mounted):
            if by_daemon:
                _check_by_a_daemon(mounted / ".motools", rows, report, where)
            check(mounted / ".motools", rows, files, report, where)


@contextmanager
def _own_image(top: Path) -> Iterator[Path]:
    """A file of its own for each state.

    A mount namespace that is made meanwhile, by whomever, keeps the file system of the state before. Mounted from the
    same file once more it would be that one again: a stale state would be judged in place of all later ones.
    """
    with tempfile.NamedTemporaryFile(prefix="state-", dir=top) as file:
        yield Path(file.name)


def _copy(source: Path, target: Path) -> None:
    _run("cp", "--sparse=always", str(source), str(target))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


ATTACK = Attack(
    name="block_states",
    promise="an acknowledged write survives a power cut, and no entry points at a file that is not whole",
    says="recorded block writes of ext4: any prefix, unflushed writes dropped or torn; read by SQLite, us, a daemon",
    wanted="200 cuts, 100 states each, every 50th opened by a daemon: 0 lost, 0 corrupt, 0 dangling",
    rounds=200,
    chunk=1,
    run=attack,
    unavailable=unavailable,
)
