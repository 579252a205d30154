"""Orders for `shim.c`: let the system calls of a live daemon fail, fall short, take long, or be its last.

Start the daemon with `environment=shim.environment`, then `shim.arm({"write"}, errno.ENOSPC, k=3, path="cache.db")`.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from tests.faults.attack import scratch

SOURCE: Final = Path(__file__).with_name("shim.c")
COMPILER: Final = "gcc"
Call = Literal["write", "sync", "truncate", "open", "rename", "unlink", "mkdir", "link", "read"]
CALLS: Final[dict[Call, int]] = {
    "write": 1,
    "sync": 2,
    "truncate": 4,
    "open": 8,
    "rename": 16,
    "unlink": 32,
    "mkdir": 64,
    "link": 128,
    "read": 256,
}
Action = Literal["fail", "shorten", "delay", "kill before", "kill after", "lie"]
ACTIONS: Final[dict[Action, int]] = {"fail": 1, "shorten": 2, "delay": 3, "kill before": 4, "kill after": 5, "lie": 6}
PAGE_SIZE_BYTES: Final = 4096
PATH_SIZE_BYTES: Final = 512
_HEAD: Final = struct.Struct("<6I3Q")
_COUNT_AT: Final = 32
_FIRED_AT: Final = 40
_SYNCED_AGAIN_AT: Final = _HEAD.size + PATH_SIZE_BYTES


def unavailable() -> str | None:
    """Why it cannot be built here."""
    return None if shutil.which(COMPILER) else f"needs {COMPILER}"


def build_library(source: Path, top: Path) -> Path:
    """Compile something for LD_PRELOAD into a directory; its path."""
    library = top / f"{source.stem}.so"
    command = [COMPILER, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "LC_ALL": "C"})
    return library


class Shim:
    """The shared page of one daemon; a daemon that is started later finds the same orders."""

    def __init__(self, library: Path, orders: Path) -> None:
        """Nothing is armed."""
        orders.write_bytes(bytes(PAGE_SIZE_BYTES))
        with orders.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_SIZE_BYTES)
        self.environment = {"LD_PRELOAD": str(library), "FAULT_ORDERS": str(orders)}

    def arm(
        self,
        ops: Iterable[Call],
        error: int = errno.EIO,
        *,
        k: int = 1,
        sticky: bool = False,
        path: str = "",
        action: Action = "fail",
        delay_ms: int = 0,
    ) -> None:
        """Count calls from now on, and do something at the k-th.

        Args:
            ops: which calls.
            error: that they fail with.
            k: at which of them; 0: only count.
            sticky: at all later ones, too.
            path: only calls on paths that hold this text; one that ends in `$`: only on paths that end so.
            action: what to do.
            delay_ms: of the action "delay".
        """
        self.disarm()
        self._page[_HEAD.size : _HEAD.size + PATH_SIZE_BYTES] = path.encode().ljust(PATH_SIZE_BYTES, b"\0")
        calls = sum(CALLS[one] for one in ops)
        self._page[: _HEAD.size] = _HEAD.pack(0, calls, ACTIONS[action], error, delay_ms, sticky, k, 0, 0)
        self._page[:4] = struct.pack("<I", 1)

    def disarm(self) -> None:
        """Let everything through."""
        self._page[:4] = bytes(4)

    @property
    def count(self) -> int:
        """Calls since it was armed."""
        return self._number(_COUNT_AT)

    @property
    def fired(self) -> int:
        """Calls at which something was done."""
        return self._number(_FIRED_AT)

    @property
    def synced_again(self) -> int:
        """Syncs of a descriptor on which a sync had failed before, since the daemon was started."""
        return self._number(_SYNCED_AGAIN_AT)

    @property
    def synced_rewritten(self) -> int:
        """Those of them before which as much was written as the failed sync had lost."""
        return self._number(_SYNCED_AGAIN_AT + 8)

    def _number(self, at: int) -> int:
        return int.from_bytes(self._page[at : at + 8], "little")

    def close(self) -> None:
        """Give the page back."""
        self._page.close()


@contextmanager
def open_shim() -> Iterator[Shim]:
    """A shim, compiled; its library and page are removed in the end."""
    with scratch() as top:
        shim = Shim(build_library(SOURCE, top), top / "orders")
        try:
            yield shim
        finally:
            shim.close()
