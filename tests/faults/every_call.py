"""A fault is an error, not an end: the k-th call of a kind fails, once or for good, under a script of changes."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from motools.cache import CacheError, SyncCache, hash_content
from motools.cache.errors import StorageFailed
from tests.daemons import DaemonProcess, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.shim import Call, Shim, open_shim, unavailable
from tests.faults.state import Ledger

ANSWER_S: Final = 5.0
OPERATIONS: Final = 300
KEYS: Final = 20
RESTART_EVERY: Final = 4
"""Rounds of which one is looked at by another daemon, too."""
FAULTS: Final[dict[Call, tuple[int, int, tuple[int, ...]]]] = {
    "write": (1900, errno.ENOSPC, (errno.EIO, errno.EDQUOT, errno.EROFS)),
    "sync": (420, errno.EIO, (errno.ENOSPC, errno.EDQUOT)),
    "truncate": (10, errno.EIO, (errno.ENOSPC, errno.EROFS)),
    "open": (400, errno.EMFILE, (errno.EIO, errno.ENOSPC, errno.EACCES, errno.ENOMEM)),
    "rename": (30, errno.EIO, (errno.ENOSPC, errno.EROFS)),
    "unlink": (60, errno.EIO, (errno.EROFS, errno.EBUSY)),
    "mkdir": (20, errno.ENOSPC, (errno.EIO, errno.EROFS, errno.EDQUOT)),
    "link": (40, errno.EIO, (errno.ENOSPC, errno.EMLINK)),
}
"""Of each call: more than the script makes, the error that every one of them fails with, and others that are drawn."""


class Fault(NamedTuple):
    """What fails in a round."""

    call: Call
    k: int
    sticky: bool
    error: int

    def __str__(self) -> str:
        """In words."""
        for_good = " and all after it" if self.sticky else ""
        return f"{self.call} number {self.k}{for_good} fails with {errno.errorcode[self.error]}"


def fault_of(number: int) -> Fault:
    """Every k of every call, once and for good; then others, drawn by the round's number."""
    rest = number
    for call, (most, error, _) in FAULTS.items():
        if rest < 2 * most:
            return Fault(call, rest // 2 + 1, bool(rest % 2), error)
        rest -= 2 * most
    random = Random(number)
    call = random.choice(list(FAULTS))
    return Fault(call, random.randint(1, FAULTS[call][0]), random.random() < 0.5, random.choice(FAULTS[call][2]))


class Script:
    """300 changes and questions of one client, the same in every round."""

    def __init__(self, cache: SyncCache, ledger: Ledger, report: Report, where: str) -> None:
        """Nothing was asked yet."""
        self._cache = cache
        self._ledger = ledger
        self._report = report
        self._where = where
        self._random = Random(1)
        self._contents = [f"content {number}\n".encode() for number in range(4)]

    def run(self) -> None:
        """Every operation, whatever became of those before."""
        for step in range(OPERATIONS):
            self._do(step)

    def _do(self, step: int) -> None:
        key = f"key-{self._random.randrange(KEYS)}"
        content = self._random.choice(self._contents)
        kept = hash_content(content.decode())
        value = f"value-{step}" * self._random.choice([1, 50])
        cache = self._cache
        drawn = self._random.randrange(20)
        if drawn < 9:
            self._change(key, value, lambda: cache.set_file_id(key, value))
        elif drawn < 11:
            self._change(key, None, lambda: cache.clear_datasets([key]))
        elif drawn < 13:
            self._change(kept, "kept", lambda: cache.put_dataset(content, file_id="kept"))
        elif drawn < 15:
            self._change(kept, None, lambda: cache.clear_datasets([kept], delete_files=True))
        elif drawn < 16:
            self._ask(cache.empty_trash)
        elif drawn < 18:
            self._compute(key, value)
        else:
            self._ask(cache.list_datasets)

    def _compute(self, key: str, value: str) -> None:
        def compute() -> None:
            with self._cache.claim_dataset(key, wait=False) as claim:
                if claim.is_owner:
                    self._change(key, value, lambda: claim.fulfil(value))

        self._ask(compute)

    def _change(self, key: str, value: str | None, call: Callable[[], object]) -> None:
        self._ledger.began(key, value)
        error = self._ask(call)
        if error is None:
            self._ledger.acknowledged(key, value)
            self._report.count("acknowledged")
        else:
            self._report.count("refused" if getattr(error, "outcome_known", True) else "unknown")

    def _ask(self, call: Callable[[], object]) -> CacheError | None:
        began_s = time.monotonic()
        error: CacheError | None = None
        try:
            call()
        except CacheError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - that is what must not be
            self._report.violate(f"{self._where}: {type(raised).__name__} is no CacheError: {raised}")
        took_s = time.monotonic() - began_s
        self._report.note("longest answer, s", took_s)
        self._report.expect(took_s <= ANSWER_S, f"{self._where}: answered after {took_s:.1f} s")
        return error


def attack(report: Report, rounds: Iterable[int], bug: str | None = None) -> None:
    """One fault a round."""
    for number in rounds:
        fault = fault_of(number)
        with scratch() as top, open_shim() as shim:
            directory = top / ".motools"
            directory.mkdir()
            ledger = Ledger()
            where = f"round {number}, {fault}"
            with running(directory, environment=shim.environment, bug=bug) as daemon:
                if not _break(daemon, shim, fault, ledger, report, where):
                    report.count("beyond the script")
                    continue
            if number % RESTART_EVERY == 0:
                with running(directory):
                    _compare(directory, ledger, report, f"{where}, started anew")
            _check_database(directory, report, where)
        report.rounds += 1


def _break(daemon: DaemonProcess, shim: Shim, fault: Fault, ledger: Ledger, report: Report, where: str) -> bool:
    """Run the script over the fault; False if it makes no such call."""
    directory = daemon.directory
    with SyncCache(directory, autostart=False, memory_entries=0, timeout_s=ANSWER_S) as cache:
        cache.get_status()
        shim.arm([fault.call], fault.error, k=fault.k, sticky=fault.sticky, path=str(directory))
        Script(cache, ledger, report, where).run()
        fired = shim.fired
        shim.disarm()
        if daemon.process.poll() is not None:
            report.violate(f"{where}: the daemon ended, {daemon.wait()}")
            return True
        if not fired:
            return False
        report.count("faults", fired)
        ledger.began("after", "works")
        try:
            cache.set_file_id("after", "works")
        except StorageFailed as error:
            report.violate(f"{where}: does not work again without a restart: {error}")
        _compare(directory, ledger, report, where)
    return True


def _compare(directory: Path, ledger: Ledger, report: Report, where: str) -> None:
    with SyncCache(directory, autostart=False, memory_entries=0, timeout_s=ANSWER_S) as cache:
        report.count("lost or wrong", 0)
        ledger.judge(_values(cache, ledger.keys), report, where)


def _values(cache: SyncCache, keys: list[str]) -> Iterator[tuple[str, str | None]]:
    for key in keys:
        yield key, cache.get_file_id(key)


def _check_database(directory: Path, report: Report, where: str) -> None:
    with closing(sqlite3.connect(f"file:{directory}/cache.db?mode=ro", uri=True)) as connection:
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
    report.expect(said == "ok", f"{where}: the database is damaged: {said}")


ATTACK = Attack(
    name="every_call",
    promise="a fault is an error, not an end",
    says="the k-th write, fsync, ftruncate, open, rename, unlink, mkdir or link of a script fails, once and for good",
    wanted="every k: every request answered in 5 s, 0 lost, works again without restart",
    rounds=2 * sum(most for most, _, _ in FAULTS.values()) + 200,
    chunk=20,
    run=attack,
    unavailable=unavailable,
)
