"""Datasets with content and files of entries, with a real daemon: whole or not at all, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from motools.cache import (
    Cache,
    CacheRequestError,
    CacheUtils,
    DatasetEntry,
    StorageFailed,
    SyncCache,
    hash_content,
)
from motools.cache.files import CHUNK_SIZE_BYTES
from tests.adapters.places import mounted
from tests.cache.twins import TWINS, run_twin
from tests.e2e.children import MEASURED, STAGING, child
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.e2e.processes import put_content, remember_barrier

WAIT_S = 20.0
POOL_TIMEOUT_S = 60.0
SPARSE_SIZE_BYTES = 200 * CHUNK_SIZE_BYTES
PEAK_SIZE_BYTES = 32 * CHUNK_SIZE_BYTES
spawn = multiprocessing.get_context("spawn")


@pytest.fixture(params=TWINS, ids="-".join)
def twin(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A client and its event loop."""
    found: tuple[str, str] = request.param
    return found


def staged(directory: Path) -> list[str]:
    """What lies in staging."""
    place = directory / "staging"
    return [path.name for path in place.iterdir()] if place.exists() else []


def wait_until_unstaged(directory: Path) -> None:
    """The daemon takes a name of its own away a moment after it has answered."""
    deadline_s = time.monotonic() + WAIT_S
    while staged(directory):
        assert time.monotonic() < deadline_s, staged(directory)
        time.sleep(0.01)


def without_times(entry: DatasetEntry) -> DatasetEntry:
    """What a put can know of an entry."""
    return msgspec.structs.replace(entry, created_at=None, last_used_at=None, hits=0)


@pytest.mark.slow
def test_content_is_kept_beside_its_entry(twin: tuple[str, str], shared_dir: Path, tmp_path: Path) -> None:
    """The first call of all makes the directory; the entry is the one that is listed."""
    data = os.urandom(3 * CHUNK_SIZE_BYTES + 11)
    source = tmp_path / "data.jsonl"
    source.write_bytes(data)

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        for content, file_id in ((b"", None), (b"bytes", "file-1"), (source, "file-2"), (str(source), "file-3")):
            entry = await cache.put_dataset(content, file_id, labels={"of": "test"})
            assert entry.file_id == (file_id or entry.dataset_hash)
            assert await cache.get_file_id(entry.dataset_hash) == entry.file_id
            (listed,) = [one for one in await cache.list_datasets() if one.dataset_hash == entry.dataset_hash]
            assert without_times(listed) == entry
        assert entry.dataset_hash == hash_content(data)
        assert (shared_dir / entry.files[0]).read_bytes() == data
        source.write_bytes(b"changed")
        assert (shared_dir / entry.files[0]).read_bytes() == data
        assert (await cache.verify(deep=True)).findings == []

    run_twin(twin, shared_dir, body)
    assert staged(shared_dir) == []


@pytest.mark.slow
def test_utilities_store_content_too(shared_dir: Path) -> None:
    """In a cache that is there."""
    with SyncCache(shared_dir) as cache:
        cache.get_status()
    with CacheUtils(shared_dir) as utils:
        assert utils.put_dataset(b"content", ttl_s=60).dataset_hash == hash_content(b"content")
        assert utils.list_datasets()[0].expires_at is not None


@pytest.mark.slow
def test_file_larger_than_the_memory_it_may_take_streams(shared_dir: Path, tmp_path: Path) -> None:
    """The peak of a process that stores it is that of one that stores nothing."""
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(SPARSE_SIZE_BYTES)
    with child(MEASURED, shared_dir, source) as one:
        digest, size, grown = one.hear().split()
    assert int(size) == SPARSE_SIZE_BYTES
    assert int(grown) < PEAK_SIZE_BYTES
    assert (shared_dir / "datasets" / f"{digest}.jsonl").stat().st_size == SPARSE_SIZE_BYTES


@pytest.mark.slow
def test_processes_that_store_the_same_content_at_once_agree(shared_dir: Path) -> None:
    """One file, one entry, nobody fails."""
    data = b"x" * 2 * CHUNK_SIZE_BYTES
    with spawn.Pool(4, remember_barrier, (spawn.Barrier(4),)) as pool:
        found = pool.starmap_async(put_content, [(str(shared_dir), data)] * 4, chunksize=1).get(POOL_TIMEOUT_S)
    assert found == [hash_content(data)] * 4
    with SyncCache(shared_dir) as cache:
        (entry,) = cache.list_datasets()
        assert (shared_dir / entry.files[0]).read_bytes() == data
        assert cache.verify(deep=True).findings == []
    wait_until_unstaged(shared_dir)


@pytest.mark.slow
def test_what_a_killed_client_staged_goes_with_the_next_daemon(shared_dir: Path) -> None:
    """What a live one has staged stays, and is stored."""
    with child(STAGING, shared_dir, "dead") as dead, child(STAGING, shared_dir, "alive") as alive:
        assert dead.hear() == alive.hear() == "staging"
        assert len(staged(shared_dir)) == 2
        os.kill(dead.pid, signal.SIGKILL)
        dead.process.wait(WAIT_S)
        end_daemon(shared_dir, signal.SIGKILL)
        with SyncCache(shared_dir) as cache:
            cache.get_status()
            assert len(staged(shared_dir)) == 1
            alive.tell()
            assert alive.hear() == hash_content(b"alive")
            assert [entry.dataset_hash for entry in cache.list_datasets()] == [hash_content(b"alive")]
    wait_until_unstaged(shared_dir)


@pytest.mark.slow
def test_daemon_killed_while_a_client_stages_is_started_again(shared_dir: Path) -> None:
    """The client stores what it has staged with the next one."""
    with child(STAGING, shared_dir, "content") as one:
        assert one.hear() == "staging"
        first = end_daemon(shared_dir, signal.SIGKILL)
        one.tell()
        assert one.hear() == hash_content(b"content")
        assert daemon_pid(shared_dir) not in (None, first)
    wait_until_unstaged(shared_dir)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_put_cancelled_at_any_moment_leaves_staging_empty(shared_dir: Path, loop: str) -> None:
    """Whether the row came of it or not, the file is there if and only if the row is."""
    data = [os.urandom(CHUNK_SIZE_BYTES) for _ in range(12)]

    async def whole() -> None:
        async with Cache(shared_dir) as cache:
            await cache.put_dataset(b"first")
            for number, content in enumerate(data):
                with anyio.move_on_after(number / 1000):
                    await cache.put_dataset(content)
            await cache.get_status()

    anyio.run(whole, backend=loop)
    wait_until_unstaged(shared_dir)
    with SyncCache(shared_dir) as cache:
        listed = {f"{entry.dataset_hash}.jsonl" for entry in cache.list_datasets()}
    assert {path.name for path in (shared_dir / "datasets").iterdir()} == listed


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    """A file system of its own, with little room; skips where none can be mounted."""
    directory.mkdir()
    with mounted(directory, "-t", "tmpfs", "-o", f"size={size},mode=700", "none"):
        try:
            yield
        finally:
            end_daemon(directory)


@pytest.mark.slow
def test_full_disk_is_a_clear_error_without_row_or_leftover(
    twin: tuple[str, str], cache_dir: Path, tmp_path: Path
) -> None:
    """And what is smaller still fits."""
    source = tmp_path / "large"
    source.write_bytes(b"x" * 30 * CHUNK_SIZE_BYTES)

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        await cache.put_dataset(b"before")
        for content in (source, source.read_bytes()):
            with pytest.raises(StorageFailed, match=r"disk is full .* nothing of this was stored"):
                await cache.put_dataset(content)
            assert staged(cache_dir) == []
        await cache.put_dataset(b"after")
        names = {hash_content(content) for content in (b"before", b"after")}
        assert {entry.dataset_hash for entry in await cache.list_datasets()} == names
        assert {path.stem for path in (cache_dir / "datasets").iterdir()} == names

    with small_disk(cache_dir, "20M"):
        run_twin(twin, cache_dir, body)


@pytest.mark.slow
def test_entry_with_an_end_misses_after_it_in_every_client(twin: tuple[str, str], shared_dir: Path) -> None:
    """Also in one that has had the answer: it is not remembered."""
    is_over = False

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        nonlocal is_over
        await cache.set_file_id("k", "v", ttl_s=2)
        await cache.set_file_id("lasting", "v")
        await cache.set_model_id("d", {}, "m", ttl_s=2)
        await cache.set_eval_log_paths("m", {"t": "log"}, "b", ttl_s=2)
        assert await cache.get_file_id("k") == "v"
        assert await cache.get_model_id("d", {}) == "m"
        with anyio.fail_after(WAIT_S):
            while (  # noqa: ASYNC110 - no event tells that time has passed
                await cache.get_file_id("k") is not None
                or await cache.get_model_id("d", {}) is not None
                or (await cache.get_evals("m", ["t"], "b")).found
            ):
                await anyio.sleep(0.05)
        assert await cache.get_file_id("lasting") == "v"
        await cache.set_file_id("k", "again")
        assert await cache.get_file_id("k") == "again"
        is_over = True

    run_twin(twin, shared_dir, body)
    assert is_over


@pytest.mark.slow
def test_vanished_file_is_a_miss_until_it_is_stored_again(twin: tuple[str, str], shared_dir: Path) -> None:
    """A job that would read it computes it instead."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        entry = await cache.put_dataset(b"content", "file")
        (shared_dir / entry.files[0]).unlink()
        with SyncCache(shared_dir) as other:
            assert other.get_file_id(entry.dataset_hash) is None
        report = await cache.get_size_report(rescan=True)
        assert report.num_dangling == 1
        assert (await cache.list_datasets())[0].missing_since is not None
        assert (await cache.put_dataset(b"content", "file")).files == entry.files
        assert await cache.get_file_id(entry.dataset_hash) == "file"
        assert (await cache.list_datasets())[0].missing_since is None

    run_twin(twin, shared_dir, body)


@pytest.mark.slow
def test_files_named_through_links_belong_to_their_entries(
    twin: tuple[str, str], shared_dir: Path, tmp_path: Path
) -> None:
    """Of the cache directory, and of the caller; what lies outside is never touched."""
    outside = tmp_path / "outside.json"
    outside.write_text("precious")
    (tmp_path / "link").symlink_to(shared_dir)

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        await cache.get_status()
        (shared_dir / "runs/j").mkdir()
        (shared_dir / "runs/j/w.bin").write_bytes(b"w" * 10)
        (shared_dir / "evals/t.json").write_text("log")
        (shared_dir / "evals/link.json").symlink_to(outside)
        await cache.set_model_id("d", {}, "m", run_dir=tmp_path / "link/runs/j")
        through, to_outside = str(tmp_path / "link/evals/t.json"), str(shared_dir / "evals/link.json")
        logs = {"t": through, "o": str(outside), "l": to_outside, "s": "s3://bucket/evals/t.json"}
        await cache.set_eval_log_paths("m", logs, "b")
        assert (await cache.list_models())[0].files == ("runs/j",)
        listed = {entry.task_id: entry for entry in await cache.list_evals()}
        assert {task: entry.files for task, entry in listed.items()} == {
            "t": ("evals/t.json",),
            "o": (),
            "l": (),
            "s": (),
        }
        assert {task: entry.log_file_path for task, entry in listed.items()} == logs
        await cache.clear_all(delete_files=True, to_trash=False)
        assert not (shared_dir / "runs/j").exists()
        assert not (shared_dir / "evals/t.json").exists()
        assert outside.read_text() == "precious"

    run_twin(twin, shared_dir, body)


@pytest.mark.slow
def test_claimed_dataset_is_fulfilled_with_its_content(twin: tuple[str, str], shared_dir: Path) -> None:
    """Only with that: a hash that is not its content's cannot come about."""
    key = hash_content(b"content")

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        async with cache.claim_dataset(key) as claim:
            with pytest.raises(CacheRequestError, match="hash_content"):
                await claim.fulfil("file", b"other")
            await claim.fulfil("file", b"content")
        (entry,) = await cache.list_datasets()
        assert (entry.file_id, entry.files) == ("file", (f"datasets/{key}.jsonl",))
        assert (shared_dir / entry.files[0]).read_bytes() == b"content"

    run_twin(twin, shared_dir, body)
    assert staged(shared_dir) == []


@pytest.mark.slow
def test_claimed_work_dir_and_dataset_are_spared_while_a_job_computes(twin: tuple[str, str], shared_dir: Path) -> None:
    """From the start; the directory is no orphan before its model is stored."""
    work = shared_dir / "runs/new"

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        dataset = await cache.put_dataset(b"content")
        async with cache.claim_model(dataset.dataset_hash, {}, work_dir=work) as claim:
            work.mkdir()
            (work / "w.bin").write_bytes(b"w")
            plan = await cache.prune(older_than=0, orphans=True, orphan_age=0, dry_run=True)
            assert plan.items == []
            assert {one.kind for one in plan.protected} >= {"dataset"}
            await claim.fulfil("m", run_dir=work)
        plan = await cache.prune(older_than=0, orphans=True, orphan_age=0, dry_run=True)
        assert sorted(item.kind for item in plan.items) == ["dataset", "model"]

    run_twin(twin, shared_dir, body)
