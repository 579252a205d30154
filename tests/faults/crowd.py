"""`python crowd.py DIRECTORY COUNT [BUG]`: so many processes that all call at the same moment; prints what each got.

The processes are forked and wait before they are let go: it is not their start that is measured.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from motools.cache import SyncCache, spawn

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0
PLANTED = (
    "import runpy, sys; sys.path.insert(0, {!r}); runpy.run_module('tests.faults.planted', {{}}, '__main__', True)"
)


def call(directory: str) -> dict[str, object]:
    """The first call of a job."""
    began_s = time.monotonic()
    try:
        with SyncCache(directory, timeout_s=TIMEOUT_S) as cache:
            pid: int | None = cache.get_status().pid
            error = ""
    except Exception as failure:  # noqa: BLE001 - whatever it is, it is told
        pid, error = None, f"{type(failure).__name__}: {failure}"
    return {"pid": pid, "error": error, "took_s": time.monotonic() - began_s}


def plant(bug: str) -> None:
    """Let this process start daemons with a bug, and believe that nobody else starts one."""

    def never_held(*_: Any) -> None:  # noqa: ANN401
        """Take no lock."""

    command = [sys.executable, "-P", "-c", PLANTED.format(str(ROOT)), bug]
    setattr(spawn, "interpreter_command", lambda: command)  # noqa: B010 - modules are not assigned to, says mypy
    setattr(spawn, "user_manager_answers", lambda: False)  # noqa: B010
    setattr(fcntl, "flock", never_held)  # noqa: B010


def main() -> None:
    """Fork, let go, and collect."""
    directory, count = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3:
        plant(sys.argv[3])
    start_reader, start_writer = os.pipe()
    result_reader, result_writer = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(start_writer)
            os.read(start_reader, 1)  # until its other end is closed
            os.write(result_writer, json.dumps(call(directory)).encode() + b"\n")
            os._exit(0)
    os.close(result_writer)
    time.sleep(0.2)
    os.close(start_writer)
    with os.fdopen(result_reader) as results:
        sys.stdout.write(results.read())
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
