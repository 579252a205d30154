"""A job of its own process, told by lines on its stdin what to do: `python -m tests.e2e.jobs DIR`.

Each command is one line, and each gets one line back:
    claim KEY       owner | value V | error NAME
    fulfil VALUE    done | stale V
    leave           left        (ends the innermost claim's block)
    fork            forked      (a child that keeps the connection open, and does nothing)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from motools.cache import CacheError, StaleLease, SyncCache
from motools.cache.sync_claims import SyncClaim

CHILD_LIFE_S = 20.0


class Job:
    """The other end of the pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wrap a started process."""
        self.process = process
        self.pid = process.pid

    def tell(self, command: str) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The answer to a command; it comes when it comes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        """Both."""
        self.tell(command)
        return self.hear()


@contextmanager
def job(directory: Path) -> Iterator[Job]:
    """A running job; killed when the block is left."""
    command = [sys.executable, "-m", "tests.e2e.jobs", str(directory)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Job(process)
        finally:
            process.kill()


def main(directory: str) -> None:
    """Obey."""
    cache = SyncCache(directory)
    claims: list[SyncClaim] = []
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        try:
            answer = carry_out(cache, claims, verb, argument)
        except StaleLease as error:
            answer = f"stale {error.value}"
        except CacheError as error:
            answer = f"error {type(error).__name__}"
        print(answer, flush=True)  # noqa: T201 - that is how it answers


def carry_out(cache: SyncCache, claims: list[SyncClaim], verb: str, argument: str) -> str:
    """Do what one line says."""
    match verb:
        case "claim":
            claim = cache.claim_dataset(argument)
            claim.__enter__()
            claims.append(claim)
            return "owner" if claim.is_owner else f"value {claim.value}"
        case "fulfil":
            claims[-1].fulfil(argument)
            return "done"
        case "leave":
            claims.pop().__exit__(None, None, None)
            return "left"
        case "fork":
            if os.fork() == 0:
                os.close(1)
                time.sleep(CHILD_LIFE_S)
                os._exit(0)
            return "forked"
    raise AssertionError(verb)


if __name__ == "__main__":
    main(sys.argv[1])
