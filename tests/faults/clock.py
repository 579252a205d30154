"""Nothing expires early or late: the wall clock of the daemon and of its clients is set while it runs.

What is to last for so long is measured here by the monotonic clock: before the time is over it must be there, after it
it must be gone, whatever the wall clock says, and over a restart of the daemon.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from motools.cache import ClaimTimeout, ComputationFailed, SyncCache
from motools.cache.errors import CacheError
from tests.daemons import ROOT, TIMEOUT_S, running, wait_for_end
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.faults.attack import Attack, Report, scratch
from tests.faults.shim import build_library, unavailable

SOURCE: Final = Path(__file__).with_suffix(".c")
PAGE_SIZE_BYTES: Final = 4096
HOUR_S: Final = 3_600
JUMPS_S: Final = (HOUR_S, -24 * HOUR_S)
"""In turn; each third one is drawn."""
JUMP_MAX_S: Final = 30 * 24 * HOUR_S
KEEP_S: Final = 1
"""How long what was removed stays in the trash."""
SETTINGS: Final = f"""\
trash_keep = "{KEEP_S}s"
budget_interval_s = 0.1
backup_interval = "0.3s"
backups_keep = 1
"""
LASTS_S: Final = (0.8, 1.4)
"""What is to last is given a time between these."""
ON_DEMAND_S: Final = 0.02
"""How late an answer may be that looks at the clock itself."""
LATE_S: Final = 5.0
"""How late it may be where somebody looks now and then only, on a busy machine."""
WAIT_S: Final = 0.6
"""After which a waiting client gives up."""
IDLE_S: Final = 0.8
LOOK_PAUSE_S: Final = 0.01
STAYS_S: Final = 0.2
"""After which what was to stay would be gone."""
SEEN_WITHIN_S: Final = 600.0
"""A time stamp this near to the moved clock was made by it."""
HELD: Final = "held"
CALL_TIMEOUT_S: Final = 10.0


class WallClock:
    """Sets the wall clock of every process with this environment."""

    def __init__(self, library: Path, orders: Path) -> None:
        """It shows the time."""
        orders.write_bytes(bytes(PAGE_SIZE_BYTES))
        with orders.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_SIZE_BYTES)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_ORDERS": str(orders)}
        self.ahead_s = 0

    def set_ahead(self, seconds: int) -> None:
        """Let it show another time; a negative number: an earlier one."""
        self._page[:8] = struct.pack("<q", seconds)
        self.ahead_s = seconds

    def close(self) -> None:
        """Give the page back."""
        self._page.close()


@contextmanager
def open_clock() -> Iterator[WallClock]:
    """One, compiled; its library and page are removed in the end."""
    with scratch() as top:
        clock = WallClock(build_library(SOURCE, top), top / "orders")
        try:
            yield clock
        finally:
            clock.close()


class Lasting(NamedTuple):
    """Something that is to be there for so long, and not longer."""

    name: str
    is_there: Callable[[], bool]
    not_before_s: float
    """It may be gone from here on; all by the monotonic clock."""
    not_after_s: float
    """It must be gone from here on."""


class Scene(NamedTuple):
    """One round."""

    directory: Path
    clock: WallClock
    random: Random
    report: Report
    where: str

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `Report.expect`
        """Violated if it is not so."""
        self.report.expect(is_so, f"{self.where}: {text}")

    def lasting(
        self, name: str, begin: Callable[[float], object], is_there: Callable[[], bool], late_s: float
    ) -> Lasting:
        """Begin something that lasts for a while."""
        lasts_s = KEEP_S if name == "trash" else round(self.random.uniform(*LASTS_S), 2)
        began_s = time.monotonic()
        begin(lasts_s)
        return Lasting(name, is_there, began_s + lasts_s, time.monotonic() + lasts_s + late_s)


def jump_of(number: int) -> int:
    """By how many seconds the clock is set in a round."""
    if number % 3 < len(JUMPS_S):
        return JUMPS_S[number % 3]
    return Random(number).randint(-JUMP_MAX_S, JUMP_MAX_S)


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Begin what is to last, set the clock, and look."""
    with open_clock() as clock:
        for number in rounds:
            where = f"round {number}, {jump_of(number):+,} s"
            with scratch() as top:
                directory = top / ".motools"
                directory.mkdir(mode=0o700)
                (directory / "config.toml").write_text(SETTINGS)
                clock.set_ahead(0)
                try:
                    KINDS[number % len(KINDS)](Scene(directory, clock, Random(number), report, where), number, bug)
                except CacheError as error:
                    report.violate(f"{where}: {type(error).__name__}: {error}")
            report.count("early or late", 0)
            report.rounds += 1


# ------------------------------------------------------------------------------------------------------ what lasts


def _lasting(scene: Scene, number: int, bug: str | None) -> None:
    """One daemon all the time, and a client that waits."""
    with _serving(scene, bug), _client(scene) as cache, cache.claim_dataset(HELD, wait=False) as claim:
        lasting = _begin(scene, cache, with_failure=True)
        with _waiting(scene) as waiter:
            _jump(scene, number)
            _expect_moved(scene, cache)
            _watch(scene, lasting)
            _expect_waited(scene, waiter)
        _expect_held(scene, cache)
        claim.fulfil("computed")


def _lasting_longer(scene: Scene, number: int, bug: str | None) -> None:
    """Another daemon takes over after the jump."""
    with _client(scene) as cache:
        with _serving(scene, bug, is_killed=number // len(KINDS) % 2 == 0):
            claim = cache.claim_dataset(HELD, wait=False)
            claim.__enter__()
            lasting = _begin(scene, cache, with_failure=False)
            _jump(scene, number)
        with _serving(scene, bug):
            scene.report.count("restarts")
            _expect_moved(scene, cache)
            _watch(scene, lasting)
            _expect_held(scene, cache)
            claim.fulfil("computed")
            claim.__exit__(None, None, None)


@contextmanager
def _serving(scene: Scene, bug: str | None, *, is_killed: bool = False) -> Iterator[None]:
    with running(scene.directory, bug=bug, environment=scene.clock.environment) as daemon:
        yield
        if is_killed:
            daemon.kill()


def _jump(scene: Scene, number: int) -> None:
    time.sleep(scene.random.uniform(0.0, 0.3))
    scene.clock.set_ahead(jump_of(number))


def _client(scene: Scene) -> SyncCache:
    return SyncCache(scene.directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0)


def _begin(scene: Scene, cache: SyncCache, *, with_failure: bool) -> list[Lasting]:
    """An entry, a pin, something in the trash, and a failure: that one ends with the daemon, too."""

    def fail(retry_after_s: float) -> None:
        with cache.claim_dataset("failed", wait=False) as claim:
            claim.fail("no luck", retry_after_s=retry_after_s)

    def has_failed() -> bool:
        try:
            with cache.claim_dataset("failed", wait=False):
                return False
        except ComputationFailed:
            return True

    def remove(_lasts_s: float) -> None:
        cache.clear_datasets([removed], delete_files=True)

    removed = cache.put_dataset(b"removed\n", file_id="removed").dataset_hash
    cache.set_file_id("pinned", "value")
    found = [
        scene.lasting(
            "entry",
            lambda lasts_s: cache.set_file_id("entry", "value", ttl_s=lasts_s),
            lambda: cache.get_file_id("entry") is not None,
            ON_DEMAND_S,
        ),
        scene.lasting(
            "pin",
            lambda lasts_s: cache.pin("pinned", until=lasts_s),
            lambda: any(entry.pinned for entry in cache.list_datasets() if entry.dataset_hash == "pinned"),
            LATE_S,
        ),
        scene.lasting("trash", remove, lambda: bool(cache.list_trash()), LATE_S),
    ]
    if with_failure:
        found.append(scene.lasting("failure", fail, has_failed, ON_DEMAND_S))
    return found


def _expect_moved(scene: Scene, cache: SyncCache) -> None:
    """Else nothing was attacked."""
    cache.set_file_id("stamp", "value")
    (entry,) = [entry for entry in cache.list_datasets() if entry.dataset_hash == "stamp"]
    assert entry.created_at is not None
    ahead_s = (datetime.fromisoformat(entry.created_at) - datetime.now(UTC)).total_seconds()
    scene.expect(abs(ahead_s - scene.clock.ahead_s) < SEEN_WITHIN_S, f"the clock was not moved: {ahead_s:+,.0f} s")
    scene.report.count("jumps under way")


def _watch(scene: Scene, lasting: list[Lasting]) -> None:
    """Look at all of it until all of it is gone."""
    left = list(lasting)
    while left:
        for one in list(left):
            asked_s = time.monotonic()
            is_there = one.is_there()
            answered_s = time.monotonic()
            is_early = not is_there and answered_s < one.not_before_s
            is_late = is_there and asked_s > one.not_after_s
            if is_early:
                scene.report.violate(f"{scene.where}: {one.name} is gone {one.not_before_s - answered_s:.2f} s early")
            if is_late:
                scene.report.violate(f"{scene.where}: {one.name} is there still, {LATE_S} s after its time at most")
            if not is_there or is_late:
                left.remove(one)
                scene.report.count("expiries")
                scene.report.count("early or late", is_early or is_late)
            if not is_there:
                scene.report.note(f"{one.name}, s after its time", answered_s - one.not_before_s)
        time.sleep(LOOK_PAUSE_S)


def _expect_held(scene: Scene, cache: SyncCache) -> None:
    """Its process lives."""
    holders = [lease.pid for lease in cache.list_leases() if lease.key == HELD]
    scene.expect(holders == [os.getpid()], f"the lease of a living process is held by {holders}")
    scene.report.count("leases kept")


# ------------------------------------------------------------------------------------------------------ who waits


@contextmanager
def _waiting(scene: Scene) -> Iterator[subprocess.Popen[str]]:
    """A client with the same clock, that waits for what is held; it has begun to when this yields."""
    command = [sys.executable, "-P", "-m", "tests.faults.clock", str(scene.directory)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **scene.clock.environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def _expect_waited(scene: Scene, process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=TIMEOUT_S)
    try:
        waited_s = float(said)
    except ValueError:
        scene.report.violate(f"{scene.where}: a waiting client did not time out: {said.strip()}")
        return
    scene.report.note("timeout, s late", waited_s - WAIT_S)
    is_so = WAIT_S <= waited_s < WAIT_S + LATE_S
    scene.expect(is_so, f"a timeout of {WAIT_S} s was over after {waited_s:.2f} s")
    scene.report.count("early or late", not is_so)
    scene.report.count("timeouts")


def wait(directory: Path) -> None:
    """Wait for what somebody else holds; say how long it was."""
    with SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0) as cache:
        cache.get_status()
        print("waiting", flush=True)  # noqa: T201 - it is a program of its own
        began_s = time.monotonic()
        try:
            with cache.claim_dataset(HELD, timeout_s=WAIT_S) as claim:
                print("it has", claim.value, claim.is_owner)  # noqa: T201
        except ClaimTimeout:
            print(time.monotonic() - began_s)  # noqa: T201


# -------------------------------------------------------------------------------------------------- the idle daemon


def _idle(scene: Scene, number: int, bug: str | None) -> None:
    """A daemon that a client has started ends when nobody has needed it for so long."""
    options = ("--background", "--idle-timeout", str(IDLE_S))
    with running(scene.directory, *options, bug=bug, environment=scene.clock.environment) as starter:
        starter.wait()
        try:
            with _client(scene) as cache:
                cache.set_file_id("key", "value")
                pid = daemon_pid(scene.directory)
                left_s = time.monotonic()
            assert pid is not None
            _jump(scene, number)
            wait_for_end(pid)
            idle_s = time.monotonic() - left_s
        finally:
            end_daemon(scene.directory)
    scene.report.note("idle exit, s late", idle_s - IDLE_S)
    is_so = IDLE_S <= idle_s < IDLE_S + LATE_S
    scene.expect(is_so, f"a daemon that may be idle for {IDLE_S} s ended after {idle_s:.2f} s")
    scene.report.count("early or late", not is_so)
    scene.report.count("idle exits")


# ---------------------------------------------------------------------------------------------------------- backups


def _backups(scene: Scene, number: int, bug: str | None) -> None:
    """Copies go on being made, and the one that was just made is not the oldest for its name's sake."""
    with _serving(scene, bug), _client(scene) as cache:
        for step in ("before", "after", "long after"):
            known = _copies(scene.directory)
            cache.set_file_id(step, "value")
            ends_s = time.monotonic() + LATE_S
            while not _copies(scene.directory) - known and time.monotonic() < ends_s:
                time.sleep(LOOK_PAUSE_S)
            time.sleep(STAYS_S)
            scene.expect(bool(_copies(scene.directory) - known), f"no copy was made and kept {step} the jump")
            scene.report.count("backups")
            if step == "before":
                _jump(scene, number)
                _expect_moved(scene, cache)


def _copies(directory: Path) -> set[str]:
    return {path.name for path in (directory / "backups").glob("cache-*.db")}


KINDS: Final = (_lasting, _lasting_longer, _backups, _idle)

ATTACK = Attack(
    name="clock",
    promise="time",
    says="the wall clock of daemon and clients is set by +1 h, -1 day and up to a month while it runs; restarts",
    wanted="0 early or late expiries: entries, pins, trash, failures, leases, timeouts, idle exit, backups",
    rounds=200,
    chunk=10,
    run=attack,
    unavailable=unavailable,
)


if __name__ == "__main__":
    wait(Path(sys.argv[1]))
