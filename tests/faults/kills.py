"""An acknowledged write survives `kill -9`, at random and at named points, under all kinds of changes."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Final

from motools.cache import SyncCache, hash_content
from motools.cache.errors import CacheUnavailable, CorruptDatabase, StorageFailed
from motoolsd.adapters.points import KILL_AT
from tests.daemons import TIMEOUT_S, DaemonProcess
from tests.faults.attack import Attack, Report, scratch
from tests.faults.state import Ledger

WRITERS: Final = 4
KEYS_EACH: Final = 6
KILL_AFTER_S: Final = (0.005, 0.15)
POINT_WAIT_S: Final = 1.0
"""Within which a named point is reached, or else the daemon is killed where it is."""
CALL_TIMEOUT_S: Final = 10.0
POINTS: Final = (
    "removal begun",
    "rows about to go",
    "rows removed",
    "path moved",
    "files moved",
    "removal ended",
)


class Work:
    """One thread's changes of its own keys, until the daemon is gone."""

    def __init__(self, directory: Path, number: int, seed: int, ledger: Ledger) -> None:
        """Nothing was done yet."""
        self._cache = SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0)
        self._random = Random(f"{seed}/{number}")
        self._keys = [f"w{number}-{key}" for key in range(KEYS_EACH)]
        self._contents = [f"content {number} {key}\n".encode() for key in range(2)]
        self._name = f"{seed}.{number}"
        self._ledger = ledger
        self.counts: dict[str, int] = {}
        self.failure: str | None = None

    def run(self) -> None:
        """Change something until it fails because the daemon is gone."""
        actions: list[Callable[[int], None]] = [self._store, self._store, self._store, self._clear, self._compute]
        actions += [self._publish, self._remove]
        step = 0
        with self._cache:
            try:
                while True:
                    step += 1
                    self._random.choice(actions)(step)
            except (CacheUnavailable, StorageFailed, CorruptDatabase):
                return  # as it must be: the daemon was killed, or its disk; what cannot be read looks like damage
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer to a change
                self.failure = f"{type(error).__name__}: {error}"

    def _change(self, key: str, value: str | None, call: Callable[[], object]) -> None:
        """Carry a change out, and keep the books.

        Raises:
            CacheUnavailable: the daemon is gone, and the outcome may be unknown.
        """
        self._ledger.began(key, value)
        call()
        self._ledger.acknowledged(key, value)
        self.counts["acknowledged changes"] = self.counts.get("acknowledged changes", 0) + 1

    def _store(self, step: int) -> None:
        key, value = self._random.choice(self._keys), f"{self._name}.{step}" * self._random.choice([1, 20, 300])
        self._change(key, value, lambda: self._cache.set_file_id(key, value))

    def _clear(self, _step: int) -> None:
        key = self._random.choice(self._keys)
        self._change(key, None, lambda: self._cache.clear_datasets([key]))

    def _compute(self, step: int) -> None:
        """By a lease; whoever died with one never holds the key up."""
        key, value = self._random.choice(self._keys), f"{self._name}.{step}"
        with self._cache.claim_dataset(key, timeout_s=CALL_TIMEOUT_S) as claim:
            if claim.value is None:
                self._change(key, value, lambda: claim.fulfil(value))

    def _publish(self, _step: int) -> None:
        content = self._random.choice(self._contents)
        self._change(hash_content(content.decode()), "kept", lambda: self._cache.put_dataset(content, file_id="kept"))

    def _remove(self, _step: int) -> None:
        """Row and file, to the trash or for good."""
        key = hash_content(self._random.choice(self._contents).decode())
        self._change(key, None, lambda: self._cache.clear_datasets([key], delete_files=True))


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Kill, start again, and look for everything that was answered."""
    with scratch() as top:
        directory, ledger = top / ".motools", Ledger()
        directory.mkdir()
        with SyncCache(directory, autostart=False, timeout_s=CALL_TIMEOUT_S) as warm:
            for number in rounds:
                daemon = _started(directory, number, bug)
                try:
                    if daemon.readiness is None or daemon.readiness.failure is not None:
                        report.violate(f"round {number}: the daemon does not start: {daemon.readiness}")
                        return
                    compare(directory, warm, ledger, report, f"round {number}")
                    _work_and_kill(number, daemon, ledger, report)
                finally:
                    daemon.kill()
                report.rounds += 1
        check_database(directory, report)


def _started(directory: Path, number: int, bug: str | None) -> DaemonProcess:
    daemon = DaemonProcess(directory, bug=bug, environment=_killed_at(number))
    if daemon.readiness is None and daemon.wait()[0] == -signal.SIGKILL:
        # It came by its point while it finished what the one before had begun.
        return DaemonProcess(directory, bug=bug)
    return daemon


def _killed_at(number: int) -> dict[str, str]:
    """Every other round is killed at a named point, if it comes by it, and else at random."""
    random = Random(number)
    return {KILL_AT: f"{random.choice(POINTS)}:{random.randint(1, 3)}"} if number % 2 else {}


def _work_and_kill(number: int, daemon: DaemonProcess, ledger: Ledger, report: Report) -> None:
    def kill() -> None:
        with suppress(subprocess.TimeoutExpired):
            daemon.process.wait(POINT_WAIT_S if number % 2 else Random(number).uniform(*KILL_AFTER_S))
            report.count("killed at a named point")
        daemon.kill()

    work_until(kill, number, daemon.directory, ledger, report)


def work_until(end: Callable[[], None], number: int, directory: Path, ledger: Ledger, report: Report) -> None:
    """Let writers work until `end` has put an end to it, and all of them have noticed."""
    works = [Work(directory, writer, number, ledger) for writer in range(WRITERS)]
    threads = [threading.Thread(target=work.run) for work in works]
    for thread in threads:
        thread.start()
    end()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "a call did not come back"
    for work in works:
        report.expect(work.failure is None, f"round {number}: a call ended in {work.failure}")
        for name, count in work.counts.items():
            report.count(name, count)


def compare(directory: Path, warm: SyncCache | None, ledger: Ledger, report: Report, where: str) -> None:
    """The daemon, a client that remembers, and the database say the same, and it is what was acknowledged."""
    keys = ledger.keys
    remembered = None if warm is None else {key: warm.get_file_id(key) for key in keys}
    with SyncCache(directory, autostart=False, memory_entries=0) as cold:
        asked = {key: cold.get_file_id(key) for key in keys}
    rows = _rows(directory)
    for key in keys:
        if remembered is not None:
            report.expect(remembered[key] == asked[key], f"{where}: {key} is remembered as {remembered[key]!r}")
        report.expect(rows.get(key) == asked[key], f"{where}: {key} is {asked[key]!r}, and {rows.get(key)!r} on disk")
        if asked[key] == "kept":
            report.expect(
                _is_whole(directory / "datasets" / f"{key}.jsonl", key), f"{where}: the file of {key} is not whole"
            )
    ledger.judge(asked.items(), report, where)
    report.count("keys compared", len(keys))
    report.count("lost or wrong", 0)


def _is_whole(path: Path, key: str) -> bool:
    """Whether a dataset's file has the content that its name says."""
    return path.is_file() and hash_content(path.read_text()) == key


def _rows(directory: Path) -> dict[str, str]:
    with closing(sqlite3.connect(f"file:{directory}/cache.db?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT dataset_hash, file_id FROM dataset_files WHERE void_since IS NULL"))


def check_database(directory: Path, report: Report) -> None:
    """No page of it is damaged."""
    with closing(sqlite3.connect(f"file:{directory}/cache.db?mode=ro", uri=True)) as connection:
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
    report.expect(said == "ok", f"the database is damaged: {said}")


ATTACK = Attack(
    name="kills",
    promise="an acknowledged write survives",
    says="`kill -9` at random under writes, clears, leases, publications and removals",
    wanted="1,000 rounds, 0 lost; index, stamps and database agree",
    rounds=1_000,
    chunk=25,
    run=attack,
)
