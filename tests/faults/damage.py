"""Damage is said, never made worse: flipped bits, truncation and foreign logs; no wrong value, no file removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

from motools.cache import CacheError, SyncCache, hash_content
from tests.daemons import DaemonProcess, running
from tests.faults.attack import Attack, Report, scratch

ENTRIES: Final = 60
"""Of each kind."""
CONTENTS: Final = 3
TIMEOUT_S: Final = 10.0
DATABASE: Final = "cache.db"


def value_of(kind: str, number: int) -> str:
    """What an entry has; long enough to be hit."""
    return f"{kind}-{number}-" + f"{number:03}" * 30


@contextmanager
def original(top: Path) -> Iterator[Path]:
    """A cache directory with entries and files, whose daemon has stopped."""
    directory = top / "original"
    directory.mkdir(mode=0o700)
    with running(directory), SyncCache(directory, autostart=False, timeout_s=TIMEOUT_S) as cache:
        for number in range(ENTRIES):
            cache.set_file_id(f"hash-{number}", value_of("dataset", number))
            cache.set_model_id("d", {"n": number}, value_of("model", number))
            cache.set_eval_log_paths(f"m{number}", {"t": value_of("eval", number)}, "b")
        for number in range(CONTENTS):
            cache.put_dataset(content_of(number), file_id="kept")
    yield directory


def content_of(number: int) -> bytes:
    """Of a dataset whose file the cache keeps."""
    return f"content {number}\n".encode() * 100


def harm(directory: Path, random: Random) -> str:
    """Do something to the database; in words."""
    database = directory / DATABASE
    data = bytearray(database.read_bytes())
    drawn = random.randrange(20)
    if drawn < 14:
        places = [random.randrange(len(data)) for _ in range(random.choice([1, 1, 4, 16]))]
        for place in places:
            data[place] ^= 1 << random.randrange(8)
        database.write_bytes(data)
        return f"bits flipped at {places}"
    if drawn < 17:
        size = random.choice([0, 1, 100, 4096, random.randrange(len(data)), len(data) - 1])
        database.write_bytes(data[:size])
        return f"cut to {size} of {len(data)} bytes"
    if drawn < 18:
        place = random.randrange(0, len(data), 4096)
        data[place : place + 4096] = bytes(4096)
        database.write_bytes(data)
        return f"zeros at {place}"
    log = random.randbytes(random.choice([10, 32, 4152, 50_000]))
    (directory / f"{DATABASE}-wal").write_bytes(log)
    return f"a log of {len(log)} foreign bytes"


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Harm a copy in each round, start a daemon on it, and ask for everything."""
    with scratch() as top, original(top) as source:
        for number in rounds:
            directory = top / "harmed"
            shutil.copytree(source, directory, ignore=shutil.ignore_patterns("*.sock", "ballast"))
            harmed = harm(directory, Random(number))
            _judge(directory, report, f"round {number}, {harmed}", bug)
            shutil.rmtree(directory)
            report.rounds += 1


def _judge(directory: Path, report: Report, where: str, bug: str | None) -> None:
    before = (directory / DATABASE).read_bytes()
    report.count("wrong values", 0)
    daemon = DaemonProcess(directory, bug=bug)
    try:
        if daemon.readiness is None:
            report.violate(f"{where}: the daemon ended without a word: {daemon.wait()}")
        elif daemon.readiness.failure is not None:
            report.count("refused to start")
            report.expect((directory / DATABASE).read_bytes() == before, f"{where}: refused, and changed the database")
            report.expect(len(daemon.readiness.failure.message) > 0, f"{where}: refused without a reason")
        else:
            report.count("served")
            _ask(directory, report, where)
            report.expect(daemon.process.poll() is None, f"{where}: the daemon ended while it was asked")
    finally:
        daemon.kill()
    for number in range(CONTENTS):
        path = directory / "datasets" / f"{hash_content(content_of(number).decode())}.jsonl"
        report.expect(path.is_file() and path.read_bytes() == content_of(number), f"{where}: {path.name} is gone")


def _ask(directory: Path, report: Report, where: str) -> None:
    with SyncCache(directory, autostart=False, memory_entries=0, timeout_s=TIMEOUT_S) as cache:
        for number in range(ENTRIES):
            for kind in ("dataset", "model", "eval"):
                try:
                    found = _value(cache, kind, number)
                except CacheError:
                    report.count("errors")
                    continue
                report.count("misses" if found is None else "hits")
                if found not in (None, value_of(kind, number)):
                    report.count("wrong values")
                    report.violate(f"{where}: {kind} {number} is given as {found[:60]!r}")


def _value(cache: SyncCache, kind: str, number: int) -> str | None:
    if kind == "dataset":
        return cache.get_file_id(f"hash-{number}")
    if kind == "model":
        return cache.get_model_id("d", {"n": number})
    return (cache.get_eval_log_paths(f"m{number}", ["t"], "b") or {}).get("t")


ATTACK = Attack(
    name="damage",
    promise="damage is said, never made worse",
    says="bits flipped, pages zeroed, cache.db cut, foreign logs beside it",
    wanted="1,000 rounds, 0 wrong values served, 0 files deleted",
    rounds=1_000,
    chunk=50,
    run=attack,
)
