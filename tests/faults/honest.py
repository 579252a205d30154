"""A client that behaves, beside those that do not: how long its lookups take, and what the daemon uses meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Final

from motools.cache import SyncCache
from motools.cache.errors import CacheError
from tests.daemons import TIMEOUT_S

PAUSE_S: Final = 0.002
"""Between its lookups: it is no load itself."""
KEY, VALUE = "honest", "file"


class HonestClient:
    """Looks a key up, again and again, each time with a round trip."""

    def __init__(self, directory: Path) -> None:
        """Not started yet."""
        self._directory = directory
        self._ended = threading.Event()
        self.took_s: list[float] = []
        self.failures: list[str] = []

    def _run(self) -> None:
        with SyncCache(self._directory, autostart=False, memory_entries=0, timeout_s=TIMEOUT_S) as cache:
            while not self._ended.is_set():
                began_s = time.perf_counter()
                try:
                    value = cache.get_file_id(KEY)
                except CacheError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    if value != VALUE:
                        self.failures.append(f"a lookup gave {value!r}")
                self.took_s.append(time.perf_counter() - began_s)
                self._ended.wait(PAUSE_S)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """From before the block until after it."""
        with SyncCache(self._directory, autostart=False, timeout_s=TIMEOUT_S) as cache:
            cache.set_file_id(KEY, VALUE)
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            # It is connected before anything happens: who comes later has to wait as everybody.
            ends_s = time.monotonic() + TIMEOUT_S
            while not self.took_s and time.monotonic() < ends_s:
                time.sleep(PAUSE_S)
            yield
        finally:
            self._ended.set()
            thread.join(2 * TIMEOUT_S)

    @property
    def p99_s(self) -> float:
        """99 of 100 lookups took at most this long."""
        took_s = sorted(self.took_s)
        return took_s[ceil(0.99 * len(took_s)) - 1]


class Usage:
    """What a process uses, as the kernel counts it."""

    def __init__(self, pid: int) -> None:
        """Of a process that lives."""
        self._process = Path(f"/proc/{pid}")

    @property
    def resident_mib(self) -> float:
        """Memory in RAM."""
        fields = (line.split() for line in (self._process / "status").read_text().splitlines())
        return next(int(field[1]) for field in fields if field[0] == "VmRSS:") / 1024

    @property
    def descriptors(self) -> int:
        """Open files."""
        return len(list((self._process / "fd").iterdir()))

    @property
    def threads(self) -> int:
        """Threads."""
        return len(list((self._process / "task").iterdir()))

    @property
    def cpu_ticks(self) -> int:
        """User and system time, in hundredths of a second."""
        fields = (self._process / "stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
