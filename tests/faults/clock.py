"""Time: the wall clock of the daemon is set an hour ahead, or a day back, and nothing expires early or late."""

from __future__ import annotations

import mmap
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from motools.cache import SyncCache, hash_content
from motools.cache.errors import CacheError, ClaimTimeout
from tests.daemons import running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.shim import COMPILER, unavailable

SOURCE: Final = Path(__file__).with_name("clockshim.c")
PAGE_SIZE_BYTES: Final = 4096
JUMPS_S: Final = (3_600, -86_400, 86_400 * 400, -3_600)
"""Of which the second and later ones come on top of the first."""
SOON_S: Final = 1.5
MARGIN_S: Final = 0.7
"""How early or late is neither: the machine is shared."""
LATER_S: Final = 600.0
WAIT_S: Final = 0.5
CALL_TIMEOUT_S: Final = 15.0
SETTINGS: Final = 'watch_interval_s = 0.1\nbudget_interval_s = 0.1\nscan_interval = 3600\nbackup_interval = "0"\n'


class WallClock:
    """The wall clock of the daemons that are started with its environment."""

    def __init__(self, library: Path, page: Path) -> None:
        """As everybody's."""
        page.write_bytes(bytes(PAGE_SIZE_BYTES))
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_SIZE_BYTES)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(page)}

    def set(self, offset_s: int) -> None:
        """Move it by so much against everybody's."""
        self._page[:8] = struct.pack("<q", offset_s)

    def close(self) -> None:
        """Give the page back."""
        self._page.close()


@contextmanager
def open_clock() -> Iterator[WallClock]:
    """A clock, compiled; removed in the end."""
    with scratch() as top:
        library = top / "clock.so"
        command = [COMPILER, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        clock = WallClock(library, top / "offset")
        try:
            yield clock
        finally:
            clock.close()


class Scene(NamedTuple):
    """One round."""

    directory: Path
    clock: WallClock
    cache: SyncCache
    report: Report
    where: str

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `Report.expect`
        """Violated, as an early or late expiry, if it is not so."""
        self.report.count("looks")
        self.report.count("early or late", not is_so)
        self.report.expect(is_so, f"{self.where}: {text}")


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Set the clock under way, and look at everything that has a time."""
    with open_clock() as clock:
        for number in rounds:
            clock.set(0)
            with scratch() as top:
                directory = top / ".motools"
                directory.mkdir()
                (directory / "config.toml").write_text(SETTINGS)
                with (
                    running(directory, bug=bug, environment=clock.environment),
                    SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0) as cache,
                ):
                    _round(Scene(directory, clock, cache, report, f"round {number}"), number)
            report.rounds += 1


def _round(scene: Scene, number: int) -> None:
    random, cache = Random(number), scene.cache
    jump_s = JUMPS_S[number % len(JUMPS_S)]
    with cache.claim_dataset("held") as held:
        scene.expect(held.is_owner, "nobody else has claimed it")
        began_s = time.monotonic()
        cache.put_dataset(b"soon", file_id="soon", ttl_s=SOON_S)
        cache.put_dataset(b"later", file_id="later", ttl_s=LATER_S)
        cache.set_file_id("pinned", "file")
        cache.pin("pinned", until=LATER_S)
        cache.put_dataset(b"trashed", file_id="trashed")
        cache.clear_datasets([hash_content("trashed")], delete_files=True)
        waiting = _Waiting(scene)
        time.sleep(random.uniform(0.0, 0.3))
        scene.clock.set(jump_s)
        scene.report.count("jumps")
        waiting.judge()
        _expect_kept(scene, jump_s, began_s)
        if random.random() < 0.5:
            scene.clock.set(jump_s + random.choice(JUMPS_S))
            scene.report.count("jumps")
        time.sleep(max(0.0, began_s + SOON_S + MARGIN_S - time.monotonic()))
        scene.expect(cache.get_file_id(hash_content("soon")) is None, "an entry outlives its time")
        _expect_kept(scene, jump_s, began_s)
        held.fulfil("value")
    scene.expect(cache.get_file_id("held") == "value", "a lease was lost")


def _expect_kept(scene: Scene, jump_s: int, began_s: float) -> None:
    """What lasts for minutes is there."""
    cache = scene.cache
    soon = cache.get_file_id(hash_content("soon"))
    if time.monotonic() < began_s + SOON_S - 0.1:
        scene.expect(soon == "soon", f"an entry has expired early by {jump_s} s of the wall clock")
    scene.expect(cache.get_file_id(hash_content("later")) == "later", "an entry of ten minutes has expired")
    scene.expect(len(cache.list_trash()) == 1, "the trash was emptied early")
    cleared = cache.clear_datasets(["pinned"])
    scene.expect(cleared == 0, "a pin of ten minutes has ended")
    _Waiting(scene).judge()


class _Waiting:
    """A claim that waits while the clock is set."""

    def __init__(self, scene: Scene) -> None:
        """Begin to wait."""
        self._scene = scene
        self._took_s = 0.0
        self._ended_with = ""
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def _wait(self) -> None:
        began_s = time.monotonic()
        with SyncCache(self._scene.directory, autostart=False, timeout_s=CALL_TIMEOUT_S) as other:
            try:
                with other.claim_dataset("held", timeout_s=WAIT_S):
                    self._ended_with = "the lease that is held"
            except ClaimTimeout:
                self._took_s = time.monotonic() - began_s
            except CacheError as error:
                self._ended_with = f"{type(error).__name__}: {error}"

    def judge(self) -> None:
        """It waited as long as it said."""
        self._thread.join(CALL_TIMEOUT_S)
        self._scene.expect(not self._ended_with, f"a claim of what is held was given {self._ended_with}")
        in_time = WAIT_S - 0.05 <= self._took_s <= WAIT_S + MARGIN_S
        self._scene.expect(in_time, f"a claim of {WAIT_S} s gave up after {self._took_s:.2f} s")


ATTACK = Attack(
    name="clock",
    promise="time",
    says="the daemon's wall clock is set +1 h, -1 h, -1 day, +400 days under way",
    wanted="100 rounds, 0 early or late expiries",
    rounds=100,
    chunk=10,
    run=attack,
    unavailable=unavailable,
)
