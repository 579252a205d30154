"""A full disk, one without inodes, a read-only one: what is stored can be read, the rest is refused in words."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from motools.cache import SyncCache, hash_content
from motools.cache.errors import CacheError, StorageFailed
from motoolsd.wire.names import BALLAST
from tests.daemons import DaemonProcess
from tests.faults.attack import Attack, Report, scratch
from tests.faults.disk import (
    fill,
    give_inodes_back,
    loop_disk,
    memory_disk,
    take_inodes,
    unavailable,
)
from tests.faults.state import Ledger

CALL_TIMEOUT_S: Final = 10.0
ROOM_BYTES: Final = 3 << 20
"""What is left at the beginning, beside the ballast; the client's writes fill it."""
BALLAST_BYTES: Final = 4 << 20
"""The default."""
SETTINGS: Final = "budget_interval_s = 0.1\nusage_flush_s = 0.2\n"
WRITES_MAX: Final = 300
"""By then the disk must be full."""
REFUSALS: Final = 5
"""In a row, of the smallest writes: then it is full."""
FILES: Final = 6
SMALL_BYTES: Final = 200
Place = str
PLACES: Final = ("tmpfs", "inodes", "ext4", "xfs", "read-only")


class Scene(NamedTuple):
    """One round's disk and books."""

    directory: Path
    pad: Path
    """The file, or the directory of empty files, that fills the disk."""
    place: Place
    where: str
    ledger: Ledger
    report: Report
    random: Random
    bug: str | None

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take what is left."""
        if self.place == "inodes":
            take_inodes(self.pad)
        else:
            fill(self.pad, leave_bytes=leave_bytes)

    def make_room(self) -> None:
        """Somebody else removes something."""
        if self.place == "inodes":
            give_inodes_back(self.pad)
        else:
            self.pad.unlink()

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `Report.expect`
        """Violated if it is not so."""
        self.report.expect(is_so, f"{self.where}: {text}")


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Fill a disk by real writes, and do there what must be possible."""
    for number in rounds:
        place = PLACES[number % len(PLACES)]
        report.rounds += 1
        if place == "xfs" and (reason := unavailable("xfs")()) is not None:
            report.count(f"xfs skipped: {reason}")
            continue
        with scratch() as top, suppress(GivenUp):
            round_ = _read_only if place == "read-only" else _full
            round_(report, number, place, top, bug)
        report.count(place)


# ------------------------------------------------------------------------------------------------------- a full disk


def _full(report: Report, number: int, place: Place, top: Path, bug: str | None) -> None:
    with _disk(top, place) as disk:
        scene = _scene(report, number, place, disk, bug)
        with _serving(scene) as daemon, _client(scene) as cache:
            _wait((scene.directory / BALLAST).exists)
            kept = _files(cache, scene)
            scene.fill(leave_bytes=ROOM_BYTES)
            _write_until_refused(cache, scene)
            _read_all(cache, scene)
            _end(daemon, number)
        scene.fill()
        with _serving(scene) as daemon, _client(scene) as cache:
            report.count("starts on a full disk")
            _read_all(cache, scene)
            _expect_refusal(cache, scene)
            _clean_up(cache, scene, kept)
            _read_all(cache, scene)
            scene.make_room()
            _write_again(cache, scene)
            _end(daemon, number)
        _judge(scene)


@contextmanager
def _disk(top: Path, place: Place) -> Iterator[Path]:
    if place == "tmpfs":
        with memory_disk(top, size_bytes=24 << 20) as path:
            yield path
    elif place == "inodes":
        with memory_disk(top, size_bytes=64 << 20, inodes=200) as path:
            yield path
    elif place == "xfs":
        with loop_disk(top, "xfs") as disk:
            yield disk.path
    else:
        with loop_disk(top, "ext4", size_bytes=48 << 20, options="errors=remount-ro") as disk:
            yield disk.path


def _scene(report: Report, number: int, place: Place, disk: Path, bug: str | None) -> Scene:
    directory = disk / ".motools"
    directory.mkdir(mode=0o700)
    (directory / "config.toml").write_text(SETTINGS)
    where = f"round {number}, {place}"
    return Scene(directory, disk / "pad", place, where, Ledger(), report, Random(number), bug)


@contextmanager
def _serving(scene: Scene) -> Iterator[DaemonProcess]:
    began_s = time.monotonic()
    daemon = DaemonProcess(scene.directory, bug=scene.bug)
    try:
        scene.report.note("start, s", time.monotonic() - began_s)
        is_ready = daemon.readiness is not None and daemon.readiness.failure is None
        scene.expect(is_ready, f"the daemon does not start: {daemon.readiness}")
        if is_ready:
            yield daemon
            scene.expect(daemon.process.poll() is not None, "it was to be ended")
        else:
            raise GivenUp
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


class GivenUp(Exception):
    """The round cannot go on; why stands in the report."""


def _client(scene: Scene) -> SyncCache:
    return SyncCache(scene.directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0)


def _end(daemon: DaemonProcess, number: int) -> None:
    """In every other round of a place it is killed."""
    if number // len(PLACES) % 2:
        daemon.kill()
    else:
        daemon.stop()


def _files(cache: SyncCache, scene: Scene) -> list[str]:
    """Datasets with files, two of which lie in the trash."""
    keys = []
    for number in range(FILES):
        content = f"{scene.where} {number}\n" + "x" * scene.random.randrange(10_000, 60_000)
        cache.put_dataset(content.encode(), file_id=f"file {number}")
        keys.append(hash_content(content))
        scene.ledger.acknowledged(keys[-1], f"file {number}")
    for key in keys[:2]:
        cache.clear_datasets([key], delete_files=True)
        scene.ledger.acknowledged(key, None)
    return keys[2:]


def _write_until_refused(cache: SyncCache, scene: Scene) -> None:
    """Smaller and smaller writes, until the smallest have no room."""
    size_bytes, refusals = 60_000, 0
    for number in range(WRITES_MAX):
        stored = _put(cache, scene, f"k{number}", f"{number}." * (size_bytes // 5 + 1))
        if stored:
            refusals = 0
        elif size_bytes > SMALL_BYTES:
            size_bytes //= 2
        else:
            refusals += 1
        if refusals == REFUSALS:
            return
    scene.report.violate(f"{scene.where}: {WRITES_MAX} writes, and the disk is not full")
    raise GivenUp


def _put(cache: SyncCache, scene: Scene, key: str, value: str) -> bool:
    """Store something; whether it was. Where only inodes are scarce, what is stored is a file."""
    content = f"{scene.where} {key} {value}\n"
    if scene.place == "inodes":
        key, value = hash_content(content), "stored"
    scene.ledger.began(key, value)
    began_s = time.monotonic()
    try:
        if scene.place == "inodes":
            cache.put_dataset(content.encode(), file_id=value)
        else:
            cache.set_file_id(key, value)
    except StorageFailed as error:
        scene.report.count("refused")
        scene.expect(error.outcome_known, f"refused with an unknown outcome: {error}")
        if error.outcome_known:
            scene.ledger.refused(key, value, None)
        if scene.place == "read-only":
            scene.expect("read-only" in str(error), f"the reason is not named: {error}")
        else:
            scene.expect("full" in str(error) and "motools cache" in str(error), f"no way out is named: {error}")
        return False
    except CacheError as error:
        scene.report.violate(f"{scene.where}: refused as {type(error).__name__}: {error}")
        return False
    finally:
        scene.report.note("answer, s", time.monotonic() - began_s)
    scene.ledger.acknowledged(key, value)
    scene.report.count("acknowledged")
    return True


def _read_all(cache: SyncCache, scene: Scene) -> None:
    """Every lookup, a listing, and the counts."""
    keys = scene.ledger.keys
    try:
        scene.ledger.judge([(key, cache.get_file_id(key)) for key in keys], scene.report, scene.where)
        present = {key for key in keys if scene.ledger.certain(key) is not None}
        listed = {entry.dataset_hash for entry in cache.list_datasets()}
        scene.expect(listed == present, f"{len(present)} are stored, {len(listed)} listed")
        scene.expect(cache.get_stats().num_datasets == len(present), "the counts are wrong")
    except CacheError as error:
        scene.report.violate(f"{scene.where}: a reading call failed: {type(error).__name__}: {error}")
    scene.report.count("read", len(keys))


def _expect_refusal(cache: SyncCache, scene: Scene) -> None:
    """What the start let go of is taken first."""
    for number in range(WRITES_MAX):
        if not _put(cache, scene, f"after {number}", f"{number}." * 2_000):
            return
    scene.report.violate(f"{scene.where}: after a start on a full disk nothing is refused")


def _clean_up(cache: SyncCache, scene: Scene, kept: list[str]) -> None:
    """Clear, remove with files, empty the trash, on the full disk: which comes first, the round decides."""
    actions = [_clear, _remove, _empty_trash]
    scene.random.shuffle(actions)
    scene.fill()
    for action in actions:
        try:
            action(cache, scene, kept)
        except CacheError as error:
            name = action.__name__.strip("_")
            scene.report.violate(f"{scene.where}: {name} was refused: {type(error).__name__}: {error}")
    scene.report.count("clean-ups on a full disk", len(actions))


def _clear(cache: SyncCache, scene: Scene, kept: list[str]) -> None:
    stored = [key for key in scene.ledger.keys if scene.ledger.certain(key) is not None and key not in kept]
    going = stored[: len(stored) // 4]
    scene.expect(cache.clear_datasets(going) == len(going), "a clear took not all that it was to take")
    for key in going:
        scene.ledger.acknowledged(key, None)


def _remove(cache: SyncCache, scene: Scene, kept: list[str]) -> None:
    """With files, to the trash."""
    result = cache.clear_datasets(kept[:2], delete_files=True)
    scene.expect(result.datasets == len(kept[:2]) and not result.left, f"not all was removed: {result}")
    for key in kept[:2]:
        scene.ledger.acknowledged(key, None)


def _empty_trash(cache: SyncCache, scene: Scene, _kept: list[str]) -> None:
    lying = len(cache.list_trash())
    cache.empty_trash()
    left = len(cache.list_trash())
    scene.expect(lying > 0 and not left, f"of {lying} removals {left} lie in the trash still")


def _write_again(cache: SyncCache, scene: Scene) -> None:
    """Without a restart, once there is room; the ballast comes back, too."""
    for number in range(REFUSALS):
        is_stored = _put(cache, scene, f"again {number}", "stored")
        scene.expect(is_stored, "there is room, and a write was refused")
    with suppress(TimeoutError):
        _wait(lambda: _allocated(scene.directory / BALLAST) >= BALLAST_BYTES)
    scene.expect(_allocated(scene.directory / BALLAST) >= BALLAST_BYTES, "the ballast was not made again")


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _judge(scene: Scene) -> None:
    """After another start, now with room: nothing that was answered is lost."""
    with _serving(scene) as daemon, _client(scene) as cache:
        _read_all(cache, scene)
        daemon.stop()
    with closing(sqlite3.connect(f"file:{scene.directory}/cache.db?mode=ro", uri=True)) as connection:
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
    scene.expect(said == "ok", f"the database is damaged: {said}")


# ------------------------------------------------------------------------------------------------- a read-only disk


def _read_only(report: Report, number: int, place: Place, top: Path, bug: str | None) -> None:
    with loop_disk(top, "ext4", size_bytes=48 << 20, options="errors=remount-ro") as disk:
        scene = _scene(report, number, place, disk.path, bug)
        with _serving(scene) as daemon, _client(scene) as cache:
            for step in range(20):
                _put(cache, scene, f"k{step}", f"value {step}" * scene.random.choice([1, 100]))
            disk.stop_writes()
            stored = [_put(cache, scene, f"z{step}", "value") for step in range(REFUSALS)]
            scene.expect(not any(stored), "a write was answered as stored")
            _read_all(cache, scene)
            scene.expect(daemon.process.poll() is None, "the daemon has ended")
            daemon.kill()
        disk.unmount()
        disk.mount()  # plays the journal back, which a read-only loop device does not let it do
        disk.unmount()
        disk.mount(read_only=True)
        _expect_unstartable(scene)
        disk.unmount()
        disk.mount()
        _judge(scene)


def _expect_unstartable(scene: Scene) -> None:
    """Neither socket nor lock can be made there: that is said, at once."""
    began_s = time.monotonic()
    daemon = DaemonProcess(scene.directory, bug=scene.bug)
    try:
        said = None if daemon.readiness is None else daemon.readiness.failure
        scene.expect(said is not None and "read-only" in said.message, f"said at a start: {daemon.readiness}")
        scene.expect(time.monotonic() - began_s < CALL_TIMEOUT_S, "it took its time to say so")
    finally:
        daemon.kill()
    with SyncCache(scene.directory, autostart=True, timeout_s=CALL_TIMEOUT_S) as cache:
        try:
            cache.get_file_id("k0")
        except CacheError as error:
            scene.expect("ead-only" in str(error), f"the reason is not named: {error}")
        else:
            scene.report.violate(f"{scene.where}: somebody answers")


def _wait(is_so: Callable[[], bool]) -> None:
    """Until something is so.

    Raises:
        TimeoutError: it does not come to be.
    """
    deadline_s = time.monotonic() + CALL_TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline_s:
            raise TimeoutError
        time.sleep(0.01)


ATTACK = Attack(
    name="full-disk",
    promise="full disk, no inodes, read-only",
    says="tmpfs, ext4 and xfs filled by a client's writes, inodes taken, ext4 stopped by the kernel; stops and kills",
    wanted="reads 100 %, writes refused with a typed error, clean-ups work, the daemon starts on a full disk",
    rounds=200,
    chunk=10,
    run=attack,
    unavailable=unavailable("ext4"),
)
