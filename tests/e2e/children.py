"""A process that runs a short script, and says a line when it has come to a point: `with child(script, ...) as one`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STAGING = """
import sys, time
from motools.cache import SyncCache, files

def hold(source, file, check):
    print("staging", flush=True)
    sys.stdin.readline()
    return copied(source, file, check)

copied, files._copied = files._copied, hold
entry = SyncCache(sys.argv[1]).put_dataset(sys.argv[2].encode())
print(entry.dataset_hash, flush=True)
"""
"""Says that it is in the middle of staging, and goes on when it is told to."""

USING = """
import sys
from motools.cache import SyncCache

with SyncCache(sys.argv[1]) as cache, cache.using(*cache.list_models()):
    print("using", flush=True)
    sys.stdin.readline()
"""

INTERRUPTED = """
import os, signal, sys
from motools.cache import SyncCache

def interrupt(progress):
    print(progress.done, progress.total, flush=True)
    if progress.done < progress.total:
        os.kill(os.getpid(), signal.SIGINT)

try:
    with SyncCache(sys.argv[1]) as cache:
        cache.clear_datasets(delete_files=True, on_progress=interrupt)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""

MEASURED = """
import resource, sys
from motools.cache import SyncCache

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

with SyncCache(sys.argv[1]) as cache:
    cache.put_dataset(b"small")
    before = peak()
    entry = cache.put_dataset(sys.argv[2])
    print(entry.dataset_hash, entry.size_bytes, peak() - before, flush=True)
"""


class Child:
    """The other end of the pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wrap a started process."""
        self.process = process
        self.pid = process.pid

    def tell(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def child(script: str, *arguments: object) -> Iterator[Child]:
    """A running script; killed when the block is left."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
