"""What the worker processes of the end-to-end tests do; importable by `multiprocessing`'s spawn."""

from __future__ import annotations

import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

from motools.cache import SyncCache

START_TIMEOUT_S = 60.0


def write_many(directory: str, worker: int, count: int) -> list[str]:
    """Store `count` datasets; the errors met."""
    errors = []
    with SyncCache(directory) as cache:
        for number in range(count):
            try:
                cache.set_file_id(f"dataset-{worker}-{number}", f"file-{worker}-{number}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                errors.append(repr(error))
    return errors


_barrier: Barrier | None = None


def remember_barrier(barrier: Barrier) -> None:
    """A pool's initializer: a barrier can only be inherited by a pool's processes, not sent to them."""
    global _barrier  # noqa: PLW0603
    _barrier = barrier


def first_call(directory: str, worker: int) -> str:
    """Be one of many that find no daemon at the same moment; the error met, or nothing."""
    assert _barrier is not None, "the pool's initializer sets it"
    _barrier.wait(START_TIMEOUT_S)
    try:
        with SyncCache(directory) as cache:
            cache.set_file_id(f"dataset-{worker}", f"file-{worker}")
    except Exception as error:  # noqa: BLE001 - as above
        return repr(error)
    return ""


def write_and_note(directory: str, worker: int, count: int, notes: str) -> list[str]:
    """Store entries, noting each one in a file once it is acknowledged; the errors met."""
    errors = []
    path = Path(notes) / f"{worker}.txt"
    with SyncCache(directory) as cache, path.open("a") as file:
        for number in range(count):
            try:
                cache.set_file_id(f"dataset-{worker}-{number}", f"file-{number}")
            except Exception as error:  # noqa: BLE001 - as above
                errors.append(repr(error))
            else:
                file.write(f"{number}\n")
                file.flush()
    return errors


def ask_in_fork(cache: SyncCache, dataset_hash: str) -> str | None:
    """What a forked child gets from the client it inherited."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, (cache.get_file_id(dataset_hash) or "").encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer.decode() or None


def claim_each(directory: str, rounds: int) -> list[tuple[str, bool]]:
    """Claim one key after another with many others; each value, and whether it was computed here."""
    answers = []
    with SyncCache(directory) as cache:
        for number in range(rounds):
            with cache.claim_dataset(f"key-{number}") as claim:
                is_owner = claim.is_owner
                if is_owner:
                    claim.fulfil(f"{os.getpid()}-{number}")
                assert claim.value is not None
                answers.append((claim.value, is_owner))
    return answers


def put_content(directory: str, content: bytes) -> str:
    """Store content at the same moment as others; its hash."""
    assert _barrier is not None, "the pool's initializer sets it"
    with SyncCache(directory) as cache:
        cache.get_status()
        _barrier.wait(START_TIMEOUT_S)
        return cache.put_dataset(content).dataset_hash
