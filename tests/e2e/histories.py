"""Eight processes that make histories together, and what all of them saw."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.e2e.history import START_TIMEOUT_S, Plan, Record, remember_barrier, run_plan
from tests.linearizability import Operation

POOL_TIMEOUT_S = 100.0
OPERATIONS = 101_000
"""A lookup that fails leaves nothing to judge."""
SYNC_SHARE = 0.10
ASYNC_SHARE = 0.15
"""Of the operations, for each of four processes: an async one has two tasks."""
HURRIED_S = 0.3
"""A client with so little patience sees some of its writes fail, of unknown outcome, when the daemon is killed."""

spawn = multiprocessing.get_context("spawn")


def plans(directory: Path, *, operations: int = OPERATIONS, keys: int = 12, **values: Any) -> list[Plan]:  # noqa: ANN401
    """Four processes with a SyncCache, the first of which kills, and four with a Cache; one of each is in a hurry."""
    made = []
    for number in range(8):
        is_async = number >= 4
        name = f"{'async' if is_async else 'sync'}-{number}"
        plan = Plan(
            directory=str(directory),
            process=name,
            seed=number,
            is_async=is_async,
            tasks=2 if is_async else 1,
            keys=[f"key-{key}" for key in range(keys)],
            operations=round(operations * (ASYNC_SHARE if is_async else SYNC_SHARE)),
            clears_per_1000=20,
            timeout_s=HURRIED_S if number in (3, 7) else 30.0,
            path=str(directory.parent / f"{name}.history"),
        )
        made.append(msgspec.structs.replace(plan, **values))
    return made


def with_kills(made: list[Plan], kills: int) -> list[Plan]:
    """The same, and the first of them kills the daemon so often."""
    return [msgspec.structs.replace(made[0], kills=kills), *made[1:]]


def carry_out(made: Sequence[Plan], meanwhile: Callable[[], None] = lambda: None) -> list[Record]:
    """Carry plans out, all at the same time and with something else; what each process saw."""
    barrier = spawn.Barrier(len(made) + 1)
    with spawn.Pool(len(made), initializer=remember_barrier, initargs=(barrier,)) as pool:
        outcome = pool.map_async(run_plan, made, chunksize=1)
        barrier.wait(START_TIMEOUT_S)
        meanwhile()
        outcome.get(POOL_TIMEOUT_S)
    return [msgspec.msgpack.decode(Path(plan.path).read_bytes(), type=Record) for plan in made]


def by_key(records: Sequence[Record]) -> dict[str, list[Operation]]:
    """The histories to judge."""
    histories: dict[str, list[Operation]] = {}
    for record in records:
        for key, operation in record.operations:
            histories.setdefault(key, []).append(operation)
    return histories
