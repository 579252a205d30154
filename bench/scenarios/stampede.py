"""Many processes miss the same key at once: one computes, the others get its value."""

from __future__ import annotations

import secrets
import time
from typing import Final, NamedTuple

from bench.cells import Cell, Sample, WrongAnswer
from bench.measure import thinned
from bench.peers import PEERS, Peer, Session
from bench.processes import Gate, run_workers
from bench.scale import Scale

NAME: Final = "stampede"
SAYS: Final = (
    "All processes ask for the same key that nobody has, and whoever may computes it (in no time): keys a second, each"
    " known to all. motoolsd by `get_or_upload`, redis and diskcache by their own locks, with a second lookup inside."
)
PEERS_ASKED: Final = ("motoolsd, cold", "redis", "diskcache")
PROCESSES: Final = 32


class Outcome(NamedTuple):
    """What one process saw."""

    values: list[str]
    computed: int
    latencies_s: list[float]
    end_s: float
    start_s: float


def measure_stampede(peer: Peer, scale: Scale) -> dict[Cell, Sample]:
    """Ask for new keys, one after the other.

    Raises:
        WrongAnswer: a key was computed twice, or two processes have different values.
        WorkerFailed: a process failed.
    """
    prefix = secrets.token_hex(16)
    count = min(PROCESSES, scale.processes_max)

    def work(index: int, gate: Gate) -> Outcome:
        session = peer.connect()
        assert isinstance(session, Session), "the peers of this workload block"
        try:
            return _work(session, [f"{prefix}-{number}" for number in range(scale.stampede_keys)], index, gate)
        finally:
            session.close()

    outcomes = run_workers(f"{peer.name}, {NAME}", count, work)
    computed = sum(outcome.computed for outcome in outcomes)
    if computed != scale.stampede_keys:
        raise WrongAnswer(peer.name, f"let {computed} processes compute {scale.stampede_keys} keys")
    if any(outcome.values != outcomes[0].values for outcome in outcomes):
        raise WrongAnswer(peer.name, "gave different values of one key")
    elapsed_s = max(outcome.end_s for outcome in outcomes) - outcomes[0].start_s
    return {Cell(NAME, count, peer.name): Sample(scale.stampede_keys / elapsed_s, "keys/s")}


def _work(session: Session, keys: list[str], index: int, gate: Gate) -> Outcome:
    compute_once = session.compute_once
    assert compute_once is not None, "asked only of peers that have it"
    computed: list[str] = []
    values: list[str] = []
    latencies: list[float] = []

    def compute() -> str:
        value = f"file-{index}-{len(computed)}"
        computed.append(value)
        return value

    session.get(keys[0])
    start_s = gate.wait()
    last_s = time.perf_counter()
    for key in keys:
        values.append(compute_once(key, compute))
        done_s = time.perf_counter()
        latencies.append(done_s - last_s)
        last_s = done_s
    return Outcome(values, len(computed), thinned(latencies), last_s, start_s)


def peers_of() -> list[Peer]:
    """Who is asked."""
    return [PEERS[name] for name in PEERS_ASKED]
