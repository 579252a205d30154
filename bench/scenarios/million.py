"""A cache of very many entries: its start, its memory, its lookups, its listing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from bench.cells import Cell, Sample, WrongAnswer
from bench.keys import key_of, stored, value_of
from bench.measure import measure
from bench.peers.motools import Cold, Daemon, fill
from bench.peers.servers import temporary_directory
from bench.processes import WorkerFailed, open_worker
from bench.scale import Scale
from bench.workloads import AMONG_MANY
from motools.cache import SyncCache
from motools.cache.control import start_daemon, stop_daemon

NAME: Final = AMONG_MANY.name
SAYS: Final = AMONG_MANY.says
LOAD_TIMEOUT_S: Final = 120.0
LIST_TIMEOUT_S: Final = 120.0
PAUSE_S: Final = 0.05

STARTUP, LOADED, MEMORY, LISTING = "start to first answer", "start to whole index", "daemon's memory", "listing"
LOOKUPS: Final = "motoolsd, cold"


def among(what: str, entries: int) -> str:
    """The name of a figure: it means nothing without the number of entries."""
    return f"{what}, {entries:,} entries"


class ManyEntries(Daemon):
    """A filled directory whose daemon is started and stopped in each round."""

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Only fill it."""
        with temporary_directory() as self.directory:
            try:
                # A million is what the daemon keeps in memory by default: not one more.
                fill(self.directory, stored(entries, changed=0))
                yield
            finally:
                stop_daemon(str(self.directory))


class ColdAmongMany(Cold):
    """The client of that directory."""

    def __init__(self, entries: int) -> None:
        """With a directory of its own."""
        self.name = among(LOOKUPS, entries)
        self.store = ManyEntries()


class ColdAmongFew(Cold):
    """The client of the directory that everything else is measured with."""

    def __init__(self, entries: int) -> None:
        """With the daemon of all."""
        self.name = among(LOOKUPS, entries)


def measure_million(many: ColdAmongMany, scale: Scale, number: int) -> dict[Cell, Sample]:
    """Start the daemon, ask it everything, stop it.

    Raises:
        WrongAnswer: an answer or a listing is not right.
        WorkerFailed: a process failed, or the index is never whole.
    """
    directory = many.store.directory
    entries = scale.many_entries
    samples = _measure_start(directory, entries)
    try:
        for peer, count in ((ColdAmongFew(scale.entries), scale.entries), (many, entries)):
            for processes in AMONG_MANY.processes:
                workers = min(processes, scale.processes_max)
                sample = measure(
                    peer, AMONG_MANY, processes=workers, seconds=scale.slice_s, entries=count, number=number
                )
                samples[Cell(NAME, workers, peer.name)] = sample
        if number < scale.listings:
            samples[Cell(NAME, 1, among(LISTING, entries))] = _measure_listing(directory, entries)
    finally:
        stop_daemon(str(directory))
    return samples


def _measure_start(directory: Path, entries: int) -> dict[Cell, Sample]:
    begin_s = time.perf_counter()
    start_daemon(str(directory))
    with SyncCache(directory) as cache:
        if cache.get_file_id(key_of(entries - 1)) != value_of(entries - 1):
            raise WrongAnswer(LOOKUPS, "does not find its last entry after a start")
        first_s = time.perf_counter() - begin_s
        while (status := cache.get_status()).entries < entries:
            if time.perf_counter() - begin_s > LOAD_TIMEOUT_S:
                raise WorkerFailed(f"{NAME}: {status.entries} of {entries} entries are in memory after all the time")
            time.sleep(PAUSE_S)
        loaded_s = time.perf_counter() - begin_s
    return {
        Cell(NAME, 1, among(STARTUP, entries)): Sample(first_s, "s"),
        Cell(NAME, 1, among(LOADED, entries)): Sample(loaded_s, "s"),
        Cell(NAME, 1, among(MEMORY, entries)): Sample(resident_mib(status.pid), "MiB"),
    }


def resident_mib(pid: int) -> float:
    """What a process has in memory, as the kernel counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise WorkerFailed(f"process {pid} has no memory: it ended")


def _measure_listing(directory: Path, entries: int) -> Sample:
    def listing(_: Connection) -> tuple[int, float]:
        with SyncCache(directory) as cache:
            begin_s = time.perf_counter()
            count = len(cache.list_datasets())
            return count, time.perf_counter() - begin_s

    # In a process of its own, which takes the list's memory along when it ends.
    with open_worker(f"{NAME}, {LISTING}", listing) as worker:
        count, elapsed_s = worker.receive(LIST_TIMEOUT_S)
    if count < entries:
        raise WrongAnswer(LOOKUPS, f"lists {count} of {entries} entries")
    return Sample(count / elapsed_s, "rows/s")
