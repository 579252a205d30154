"""Soak: a mixed load for half an hour; memory, descriptors, threads and the write-ahead log stay as they are."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import median
from typing import Final, NamedTuple

from motools.cache import SyncCache, hash_content
from motools.cache.errors import CacheError, StaleLease
from motoolsd.store.connection import AUTOCHECKPOINT_PAGES
from tests.daemons import TIMEOUT_S, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.honest import Usage

CLIENTS: Final = 6
KEYS: Final = 200
WARM_SHARE: Final = 1 / 6
"""Of the rounds; what is used after it is what is used for ever."""
GROWTH: Final = 0.10
GROWTH_MIB: Final = 8.0
SPARE: Final = 8
"""Descriptors and threads that may be more in one look than in another."""
WAL_MIB: Final = 16.0
"""What the write-ahead log may be larger at one moment than at another."""
CHECKPOINT_MIB: Final = AUTOCHECKPOINT_PAGES * 4_096 / 2**20
"""While nobody pauses it is begun anew at this size."""
LOOKS_PER_ROUND: Final = 5
SETTINGS: Final = "scan_interval = 20\nusage_flush_s = 2\n"


class Look(NamedTuple):
    """What the daemon used at one moment."""

    resident_mib: float
    descriptors: int
    threads: int
    wal_mib: float


class Worker:
    """One client that does a bit of everything, and comes and goes."""

    def __init__(self, directory: Path, number: int, report: Report, ended: threading.Event) -> None:
        """Nothing was done yet."""
        self._directory = directory
        self._number = number
        self._random = Random(number)
        self._report = report
        self._ended = ended
        self.calls = 0

    def run(self) -> None:
        """Connect, work for a while, go, and come again."""
        actions: list[Callable[[SyncCache, int], object]] = [self._look_up] * 12
        actions += [self._store, self._store, self._publish, self._compute, self._clear, self._list, self._clean]
        steps = itertools.count()
        while not self._ended.is_set():
            memory = self._random.choice([0, 10_000])
            with SyncCache(self._directory, autostart=False, timeout_s=TIMEOUT_S, memory_entries=memory) as cache:
                for _ in range(self._random.randint(20, 300)):
                    if self._ended.is_set():
                        break
                    try:
                        self._random.choice(actions)(cache, next(steps))
                    except CacheError as error:
                        self._report.violate(f"a call failed: {type(error).__name__}: {error}")
                        return
                    self.calls += 1

    def _key(self) -> str:
        return f"key {self._random.randrange(KEYS)}"

    def _look_up(self, cache: SyncCache, _step: int) -> None:
        cache.get_file_id(self._key())

    def _store(self, cache: SyncCache, step: int) -> None:
        cache.set_file_id(self._key(), f"file {step}" * self._random.choice([1, 1, 50]))

    def _publish(self, cache: SyncCache, step: int) -> None:
        cache.put_dataset(f"content {self._number} {step % 20}".encode(), file_id="file")

    def _compute(self, cache: SyncCache, step: int) -> None:
        with suppress(StaleLease):  # a clear takes the lease away
            cache.get_or_upload(f"computed {step % KEYS}", lambda: f"file {step}")

    def _clear(self, cache: SyncCache, _step: int) -> None:
        cache.clear_datasets([self._key(), f"computed {self._random.randrange(KEYS)}"])

    def _list(self, cache: SyncCache, _step: int) -> None:
        cache.list_datasets()
        cache.get_stats()

    def _clean(self, cache: SyncCache, step: int) -> None:
        cache.clear_datasets([hash_content(f"content {self._number} {step % 20}")], delete_files=True)
        if step % 50 == 0:
            cache.empty_trash()


def attack(report: Report, rounds: range, bug: str | None = None, round_s: float = 60.0) -> None:
    """Work for all rounds on one daemon, look at what it uses, and judge the end of it by what was after the start."""
    looks: list[Look] = []
    ended = threading.Event()
    with scratch() as top:
        directory = top / ".motools"
        directory.mkdir()
        (directory / "config.toml").write_text(SETTINGS)
        with running(directory, bug=bug) as daemon:
            workers = [Worker(directory, number, report, ended) for number in range(CLIENTS)]
            threads = [threading.Thread(target=worker.run) for worker in workers]
            for thread in threads:
                thread.start()
            usage = Usage(daemon.process.pid)
            try:
                for _ in rounds:
                    for _ in range(LOOKS_PER_ROUND):
                        time.sleep(round_s / LOOKS_PER_ROUND)
                        looks.append(_look(usage, directory))
                    report.rounds += 1
            finally:
                ended.set()
                for thread in threads:
                    thread.join(2 * TIMEOUT_S)
            report.count("calls", sum(worker.calls for worker in workers))
    _judge(report, looks)


def _look(usage: Usage, directory: Path) -> Look:
    try:
        wal_mib = (directory / "cache.db-wal").stat().st_size / 2**20
    except FileNotFoundError:
        wal_mib = 0.0
    return Look(usage.resident_mib, usage.descriptors, usage.threads, wal_mib)


def _judge(report: Report, looks: list[Look]) -> None:
    """The last third against the third after the warm-up."""
    warm = looks[round(len(looks) * WARM_SHARE) :]
    third = max(1, len(warm) // 3)
    before, after = warm[:third], warm[-third:]
    was_mib, is_mib = (median(look.resident_mib for look in part) for part in (before, after))
    report.note("memory after the warm-up, MiB", was_mib)
    report.note("memory at the end, MiB", is_mib)
    report.expect(is_mib <= was_mib * (1 + GROWTH) + GROWTH_MIB, f"memory grew from {was_mib:.1f} to {is_mib:.1f} MiB")
    for name, values in {
        "descriptors": [[look.descriptors for look in part] for part in (before, after)],
        "threads": [[look.threads for look in part] for part in (before, after)],
    }.items():
        was, now = (median(part) for part in values)
        report.note(f"{name} at the end", now)
        report.expect(now <= was + SPARE, f"{name} grew from {was:g} to {now:g}")
    wal_was_mib, wal_mib = (max(look.wal_mib for look in part) for part in (before, after))
    report.note("write-ahead log, MiB", wal_mib)
    report.expect(
        wal_mib <= max(wal_was_mib, CHECKPOINT_MIB) + WAL_MIB,
        f"the log grew from {wal_was_mib:.1f} to {wal_mib:.1f} MiB",
    )


ATTACK = Attack(
    name="soak",
    promise="soak",
    says="lookups, writes, files, leases, clears, clean-ups, listings and scans by six clients that come and go",
    wanted="30 minutes: memory, descriptors, threads, write-ahead log flat after minute 5",
    rounds=30,
    chunk=30,
    run=attack,
)
