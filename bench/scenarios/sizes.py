"""Adding up the size of a directory of very many files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.cells import Cell, Sample, WrongAnswer
from bench.peers.motools import Daemon
from bench.scale import Scale
from motools.cache import CacheUtils
from motoolsd.wire.names import FILE_CATEGORIES

NAME: Final = "sizes"
SAYS: Final = "`get_size_breakdown` of a directory with very many files, in folders of 1,000; files a second."
FOLDER_FILES: Final = 1_000
SIZE_BYTES: Final = 1
TIMEOUT_S: Final = 120.0


class ManyFiles(Daemon):
    """A cache directory full of files that belong to entries."""

    def __init__(self, files: int) -> None:
        """How many."""
        super().__init__()
        self.files = files

    @contextmanager
    def serve(self, entries: int) -> Iterator[None]:
        """Start the daemon and make the files, so many of each category."""
        with super().serve(entries):
            for number in range(0, self.files, FOLDER_FILES):
                category = FILE_CATEGORIES[number // FOLDER_FILES % len(FILE_CATEGORIES)]
                folder = self.directory / category / f"{number:08d}"
                folder.mkdir(parents=True)
                for name in range(min(FOLDER_FILES, self.files - number)):
                    (folder / f"{name}.jsonl").write_bytes(bytes(SIZE_BYTES))
            yield


def measure_sizes(store: ManyFiles) -> dict[Cell, Sample]:
    """Add up once.

    Raises:
        WrongAnswer: the sum is not right.
    """
    with CacheUtils(store.directory, timeout_s=TIMEOUT_S) as cache:
        begin_s = time.perf_counter()
        sizes = cache.get_size_breakdown()
        elapsed_s = time.perf_counter() - begin_s
    if sum(sizes[category] for category in FILE_CATEGORIES) != store.files * SIZE_BYTES:
        raise WrongAnswer("motoolsd", f"adds up {store.files} files to {sizes}")
    return {Cell(NAME, 1, f"motoolsd, {store.files:,} files"): Sample(store.files / elapsed_s, "files/s")}


def scaled(scale: Scale) -> ManyFiles:
    """The directory of a run."""
    return ManyFiles(scale.files)
