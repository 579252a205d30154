"""A failed fsync: the batch is refused as unknown or found, nothing is synced again on that descriptor, and it goes on.

Linux reports a failed write-back once, and forgets the pages: who syncs again and believes the answer loses them
("fsyncgate", 2018; Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
"""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from random import Random
from typing import Final

from motools.cache import SyncCache
from motools.cache.errors import CacheError, StorageFailed
from tests.daemons import TIMEOUT_S, DaemonProcess, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.kills import check_database
from tests.faults.shim import Shim, open_shim, unavailable
from tests.faults.state import Ledger

WRITERS: Final = 4
WRITES: Final = 30
KEYS: Final = 5
FAILS_BEFORE: Final = 60
"""The sync that fails is one of so many."""
ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
CALL_TIMEOUT_S: Final = 10.0


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Let one sync fail, or several, while writers write; then look, go on, kill, and look again."""
    with open_shim() as shim:
        for number in rounds:
            with scratch() as top:
                _round(report, number, top / ".motools", shim, bug)
            report.rounds += 1


def _round(report: Report, number: int, directory: Path, shim: Shim, bug: str | None) -> None:
    random, ledger, where = Random(number), Ledger(), f"round {number}"
    directory.mkdir()
    shim.disarm()
    before = shim.synced_again
    with running(directory, bug=bug, environment=shim.environment) as daemon:
        _write(directory, ledger, report, f"{number}.a", where)
        # Once in the log, sometimes in the database itself, sometimes twice in a row.
        path = random.choice(["cache.db-wal", "cache.db-wal", "cache.db"])
        shim.arm({"sync"}, random.choice(ERRORS), k=random.randint(1, FAILS_BEFORE), path=path)
        _write(directory, ledger, report, f"{number}.b", where)
        report.count("failed syncs", shim.fired)
        report.count("batches of unknown outcome", daemon.log.count("outcome unknown"))
        shim.disarm()
        report.expect(daemon.process.poll() is None, f"{where}: the daemon has ended")
        again = shim.synced_again - before
        report.count("syncs of a descriptor that had failed", again)
        report.expect(again == 0, f"{where}: a descriptor was synced {again} times after it had failed")
        _look(directory, ledger, report, where)
        refused = _write(directory, ledger, report, f"{number}.c", where)
        report.expect(refused == 0, f"{where}: {refused} writes were refused after it was over")
        daemon.kill()
    after = DaemonProcess(directory)
    try:
        _look(directory, ledger, report, f"{where}, after a kill")
        after.stop()
    finally:
        if after.process.poll() is None:
            after.kill()
    check_database(directory, report)


def _write(directory: Path, ledger: Ledger, report: Report, name: str, where: str) -> int:
    """Some writers, each with keys of its own; how many writes were refused."""
    refused: list[CacheError] = []

    def write(writer: int) -> None:
        with SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0) as cache:
            for step in range(WRITES):
                key, value = f"w{writer}-{step % KEYS}", f"{name}.{step}"
                ledger.began(key, value)
                try:
                    cache.set_file_id(key, value)
                except StorageFailed as error:
                    refused.append(error)
                except CacheError as error:
                    refused.append(error)
                    report.violate(f"{where}: a write ended in {type(error).__name__}: {error}")
                else:
                    ledger.acknowledged(key, value)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
        report.expect(not thread.is_alive(), f"{where}: a write did not come back")
    report.count("refused as unknown", sum(not getattr(error, "outcome_known", True) for error in refused))
    report.count("refused", sum(getattr(error, "outcome_known", True) for error in refused))
    return len(refused)


def _look(directory: Path, ledger: Ledger, report: Report, where: str) -> None:
    with SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0) as cache:
        found = [(key, cache.get_file_id(key)) for key in ledger.keys]
    ledger.judge(found, report, where)
    report.count("keys compared", len(found))
    report.count("lost or wrong", 0)


ATTACK = Attack(
    name="failed-fsync",
    promise="a failed fsync",
    says="a sync of log or database fails once with EIO, ENOSPC or EDQUOT under four writers",
    wanted="200 rounds: the batch is refused as unknown or stored, never synced again on that descriptor, 0 lost",
    rounds=200,
    chunk=10,
    run=attack,
    unavailable=unavailable,
)
