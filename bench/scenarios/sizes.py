"""Adding up the size of a directory of very many files, against `du -s` on the same directory."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from bench.cells import Cell, Sample, WrongAnswer
from bench.peers.motools import Daemon
from bench.scale import Scale
from motools.cache import CacheUtils
from motools.cache.control import start_daemon, stop_daemon
from motoolsd.adapters.descent import Descent
from motoolsd.adapters.scan import Scanner
from motoolsd.wire.names import DATABASE, FILE_CATEGORIES

NAME: Final = "sizes"
SAYS: Final = (
    "The files of a cache directory with very many are added up, in folders of 500, two thirds of them logs with an "
    "entry each; files a second. `rescan` is what `size --rescan` waits for, rows included; `walk` its walk alone."
)
DU, WALK, RESCAN = "du -s", "motoolsd, walk", "motoolsd, rescan"
FOLDER_FILES: Final = 500
SIZES_BYTES: Final = (0, 10, 500, 3_000, 9_000)
TIMEOUT_S: Final = 300.0
INSERT: Final = (
    "INSERT INTO eval_results (model_id, task_id, backend_type, log_file_path, inspect_kwargs_hash)"
    " VALUES (?, ?, 'bench', ?, NULL)"
)


class ManyFiles(Daemon):
    """A cache directory full of files."""

    def __init__(self, files: int) -> None:
        """How many."""
        super().__init__()
        self.files = files
        self.size_bytes = 0
        """Of all of them."""
        self.logs: list[bytes] = []
        """The paths of those that have an entry."""

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Make the files and entries; the daemon has met all of them before anything is measured."""
        with super().serve(entries):
            for number in range(self.files):
                self._make(number)
            stop_daemon(str(self.directory))
            with closing(sqlite3.connect(self.directory / DATABASE)) as connection, connection:
                names = map(os.fsdecode, self.logs)
                rows = ((str(number), name, f"{self.directory}/{name}") for number, name in enumerate(names))
                connection.executemany(INSERT, rows)
            start_daemon(str(self.directory))
            self.rescan()
            yield

    def _make(self, number: int) -> None:
        folder = number // FOLDER_FILES
        category = "runs" if folder % 3 == 0 else "evals"
        path = self.directory / category / f"{folder:08d}" / f"{number}.json"
        if number % FOLDER_FILES == 0:
            path.parent.mkdir(parents=True)
        size_bytes = SIZES_BYTES[number % len(SIZES_BYTES)]
        path.write_bytes(bytes(size_bytes))
        self.size_bytes += size_bytes
        if category == "evals":
            self.logs.append(os.fsencode(path.relative_to(self.directory)))

    def du(self) -> None:
        """What everybody else has."""
        subprocess.run(["du", "-s", self.directory], check=True, stdout=subprocess.DEVNULL)  # noqa: S607 - wherever it is

    def walk(self) -> None:
        """The scan's walk by itself, in this process."""
        root = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            scan = Scanner(
                Descent(root), self.logs, orphans_max=self.files, step=lambda _files: None, is_stopped=lambda: False
            ).run()
        finally:
            os.close(root)
        if len(scan.owned) != len(self.logs):
            raise WrongAnswer(WALK, f"finds {len(scan.owned)} of {len(self.logs)} files of entries")
        self._check(WALK, sum(scan.categories[category].size_bytes for category in FILE_CATEGORIES))

    def rescan(self) -> None:
        """All of it: the rows are read, the files are walked, the two are compared."""
        with CacheUtils(self.directory, timeout_s=TIMEOUT_S) as cache:
            report = cache.get_size_report(rescan=True)
        self._check(RESCAN, sum(report.categories[category].size_bytes for category in FILE_CATEGORIES))

    def _check(self, name: str, size_bytes: int) -> None:
        if size_bytes != self.size_bytes:
            raise WrongAnswer(name, f"adds up {self.files} files of {self.size_bytes} bytes to {size_bytes}")


def of_files(what: str, files: int) -> str:
    """The name of one way to add up so many."""
    return f"{what}, {files:,} files"


def measure_sizes(store: ManyFiles) -> dict[Cell, Sample]:
    """Add up once in each way.

    Raises:
        WrongAnswer: a sum is not right.
    """
    ways: dict[str, Callable[[], None]] = {DU: store.du, WALK: store.walk, RESCAN: store.rescan}
    samples = {}
    for name, add_up in ways.items():
        begin_s = time.perf_counter()
        add_up()
        elapsed_s = time.perf_counter() - begin_s
        samples[Cell(NAME, 1, of_files(name, store.files))] = Sample(store.files / elapsed_s, "files/s")
    return samples


def scaled(scale: Scale) -> ManyFiles:
    """The directory of a run."""
    return ManyFiles(scale.files)
