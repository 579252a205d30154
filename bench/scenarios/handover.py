"""How long a key whose owner has let go, or is dead, waits for its next owner."""

from __future__ import annotations

import os
import secrets
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np

from bench.cells import QUANTILES, Cell, Sample
from bench.peers.motools import FULL
from bench.processes import Worker, WorkerFailed, open_worker
from bench.scale import Scale
from motools.cache import SyncCache

NAME: Final = "hand-over"
SAYS: Final = (
    "One process has a lease, a second one waits for it: milliseconds from the end of the first one's (it leaves its"
    " block, or is killed with SIGKILL) to the second one's grant."
)
TIMEOUT_S: Final = 20.0
PAUSE_S: Final = 0.001


def measure_hand_over(scale: Scale) -> dict[Cell, Sample]:
    """Both kinds, one after the other.

    Raises:
        WorkerFailed: a process failed, or never got the lease.
    """
    released = [_hand_over(FULL.directory, is_killed=False) for _ in range(scale.hand_overs)]
    killed = [_hand_over(FULL.directory, is_killed=True) for _ in range(scale.hand_overs)]
    return {
        Cell(NAME, 2, "motoolsd, released"): _sample(released),
        Cell(NAME, 2, "motoolsd, owner killed"): _sample(killed),
    }


def _sample(latencies_s: list[float]) -> Sample:
    quantiles = np.quantile(latencies_s, QUANTILES) * 1e6
    return Sample(float(np.median(latencies_s)) * 1e3, "ms", tuple(round(float(q), 1) for q in quantiles))


def _hand_over(directory: Path, *, is_killed: bool) -> float:
    key = f"hand-over-{secrets.token_hex(16)}"

    def hold(connection: Connection) -> float:
        with SyncCache(directory) as cache, cache.claim_dataset(key) as claim:
            assert claim.is_owner, "nobody else asks for it yet"
            connection.send(os.getpid())
            _read(connection)
            return time.perf_counter()

    def wait(connection: Connection) -> float:
        _read(connection)
        with SyncCache(directory) as cache, cache.claim_dataset(key) as claim:
            got_s = time.perf_counter()
            assert claim.is_owner, "the first owner stored nothing"
        return got_s

    with open_worker("hand-over, owner", hold) as owner, open_worker("hand-over, waiter", wait) as waiter:
        pid = owner.receive(TIMEOUT_S)
        waiter.connection.send(None)
        _await_waiter(directory, key)
        end_s = _kill(pid) if is_killed else _release(owner)
        got_s: float = waiter.receive(TIMEOUT_S)
    return got_s - end_s


def _read(connection: Connection) -> None:
    if not connection.poll(TIMEOUT_S):
        raise EOFError
    connection.recv()


def _kill(pid: int) -> float:
    end_s = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    return end_s


def _release(owner: Worker[float]) -> float:
    owner.connection.send(None)
    end_s: float = owner.receive(TIMEOUT_S)
    return end_s


def _await_waiter(directory: Path, key: str) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    with SyncCache(directory) as cache:
        while not any(lease.waiters for lease in cache.list_leases() if lease.key == key):
            if time.monotonic() > deadline_s:
                raise WorkerFailed(f"{NAME}: nobody waits for the lease within {TIMEOUT_S:.0f} s")
            time.sleep(PAUSE_S)
