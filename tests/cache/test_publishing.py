"""Datasets with their content, files of other entries, and entries that end: what the daemon is asked for."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from motools.cache import (
    Cache,
    CacheRequestError,
    DaemonNotRunning,
    InMemoryCache,
    StorageFailed,
    SyncCache,
    hash_content,
)
from motools.cache.files import CHUNK_SIZE_BYTES
from motoolsd.wire.entries import KeyState
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.leases import Claim, Claimed
from motoolsd.wire.messages import Failure, Found, Lookup, PutDataset, PutEvals, PutModel
from tests.cache.scripted import Talk, answer_to, scripted_daemon
from tests.cache.stamped import StampsFile, next_question
from tests.cache.twins import TWINS, run_twin

DIGEST = hash_content(b"content")


@pytest.fixture(params=TWINS, ids="-".join)
def twin(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A client and its event loop."""
    found: tuple[str, str] = request.param
    return found


def staged(directory: Path) -> list[str]:
    """What lies in staging."""
    place = directory / "staging"
    return [path.name for path in place.iterdir()] if place.exists() else []


def granting(talk: Talk) -> None:
    """A daemon that gives every lease."""
    talk.greet()
    while (request := talk.next()) is not None:
        is_claim = isinstance(request.body, Claim)
        talk.reply(request, Claimed(states=[KeyState(token=5)]) if is_claim else answer_to(request.body))


def test_content_is_staged_before_the_daemon_is_asked_and_gone_afterwards(
    twin: tuple[str, str], cache_dir: Path
) -> None:
    """The daemon finds it whole."""
    seen: list[bytes] = []

    def looking(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            if isinstance(request.body, PutDataset):
                assert request.body.staged is not None
                seen.append((cache_dir / "staging" / request.body.staged.decode()).read_bytes())
            talk.reply(request, answer_to(request.body))

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        entry = await cache.put_dataset(b"content", labels={"a": "b"}, ttl_s=60)
        assert (entry.dataset_hash, entry.file_id, entry.labels) == (DIGEST, DIGEST, {"a": "b", "c": "d"})
        assert (entry.size_bytes, entry.files, entry.version) == (7, (f"datasets/{DIGEST}.jsonl",), "v")
        assert entry.expires_at is not None
        assert (await cache.put_dataset(b"content", "file")).file_id == "file"

    with scripted_daemon(cache_dir, looking) as daemon:
        run_twin(twin, cache_dir, body, labels={"c": "d"}, version="v")
    assert seen == [b"content"] * 2
    puts = [request for request in daemon.requests if isinstance(request, PutDataset)]
    assert [(put.dataset_hash, put.file_id, put.ttl_s) for put in puts] == [
        (DIGEST, DIGEST.encode(), 60.0),
        (DIGEST, b"file", None),
    ]
    assert staged(cache_dir) == []


def test_put_that_lost_its_answer_is_asked_again_under_its_key(twin: tuple[str, str], cache_dir: Path) -> None:
    """The daemon knows by that what it has done."""

    def taking(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            if isinstance(request.body, PutDataset):
                assert request.body.staged is not None
                (cache_dir / "staging" / request.body.staged.decode()).unlink()
                return
            talk.reply(request, answer_to(request.body))

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        assert (await cache.put_dataset(b"content")).dataset_hash == DIGEST

    with scripted_daemon(cache_dir, taking, granting) as daemon:
        run_twin(twin, cache_dir, body)
    first, second = [request for request in daemon.requests if isinstance(request, PutDataset)]
    assert (first.staged, first.request_key.number) == (second.staged, second.request_key.number)
    assert (first.request_key.is_retry, second.request_key.is_retry) == (False, True)


def test_refused_put_leaves_nothing(twin: tuple[str, str], cache_dir: Path) -> None:
    """The error is the daemon's."""

    def refusing(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            is_put = isinstance(request.body, PutDataset)
            full = Failure(code=ErrorCode.STORAGE_FAILED, message="the disk is full")
            talk.reply(request, full if is_put else answer_to(request.body))

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(StorageFailed, match="the disk is full"):
            await cache.put_dataset(b"content")

    with scripted_daemon(cache_dir, refusing):
        run_twin(twin, cache_dir, body)
    assert staged(cache_dir) == []


def test_mistakes_are_found_before_the_daemon_is_asked(twin: tuple[str, str], cache_dir: Path, tmp_path: Path) -> None:
    """Of arguments and of content."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        for arguments in ({"file_id": ""}, {"file_id": 7}, {"labels": {"a": 7}}, {"ttl_s": -1}, {"ttl_s": "1d"}):
            with pytest.raises(CacheRequestError):
                await cache.put_dataset(b"content", **arguments)
        for content in (tmp_path, tmp_path / "none", 7):
            with pytest.raises(CacheRequestError):
                await cache.put_dataset(content)
        for ttl_s in (-1, float("nan"), 1e12, "x", True):
            with pytest.raises(CacheRequestError):
                await cache.set_file_id("k", "v", ttl_s=ttl_s)

    with scripted_daemon(cache_dir) as daemon:
        run_twin(twin, cache_dir, body)
    assert set(daemon.kinds()) <= {"GetStatus"}
    assert staged(cache_dir) == []


def test_without_a_daemon_it_raises_or_misses(
    twin: tuple[str, str], cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dropped put gives the entry's hash all the same."""
    cache_dir.mkdir()

    async def raising(cache: Any) -> None:  # noqa: ANN401 - either client
        with pytest.raises(DaemonNotRunning):
            await cache.put_dataset(b"content")

    async def missing(cache: Any) -> None:  # noqa: ANN401 - either client
        entry = await cache.put_dataset(b"content")
        assert (entry.dataset_hash, entry.file_id, entry.files) == (DIGEST, DIGEST, ())
        with pytest.raises(CacheRequestError, match="No such file"):
            await cache.put_dataset(cache_dir / "none")

    run_twin(twin, cache_dir, raising, autostart=False, timeout_s=0.2)
    with caplog.at_level(logging.WARNING):
        run_twin(twin, cache_dir, missing, autostart=False, timeout_s=0.2, on_unavailable="miss")
    assert "dropped a write" in caplog.text
    assert staged(cache_dir) == []


def test_full_disk_is_a_miss_where_misses_are_asked_for(
    twin: tuple[str, str], cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache never fails a job."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        assert (await cache.put_dataset(b"content")).files == ()

    monkeypatch.setattr("motools.cache.files._copied", full)
    with scripted_daemon(cache_dir):
        run_twin(twin, cache_dir, body, on_unavailable="miss")
    assert staged(cache_dir) == []


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["copy", "daemon"])
def test_cancelled_put_leaves_nothing(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str, where: str
) -> None:
    """In the middle of the copy, which stops soon, and while the daemon works."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(64 * CHUNK_SIZE_BYTES)
    is_there, chunks = threading.Event(), 0
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        nonlocal chunks
        chunks += 1
        if chunks == 2 and where == "copy":
            is_there.set()
            may_go_on.wait(10)
        return real(descriptor, data)

    def silent_puts(talk: Talk) -> None:
        talk.greet()
        while (request := talk.next()) is not None:
            if isinstance(request.body, PutDataset):
                is_there.set()
            else:
                talk.reply(request, answer_to(request.body))

    may_go_on = threading.Event()
    monkeypatch.setattr("motools.cache.files.os.write", write)

    async def whole() -> None:
        async with Cache(cache_dir) as cache, anyio.create_task_group() as group:
            await cache.get_status()
            group.start_soon(cache.put_dataset, source if where == "copy" else b"content")
            assert await anyio.to_thread.run_sync(is_there.wait, 10)
            group.cancel_scope.cancel()
            may_go_on.set()

    with scripted_daemon(cache_dir, silent_puts):
        anyio.run(whole, backend=loop)
    assert staged(cache_dir) == []
    assert chunks < 10


def test_task_that_asyncio_cancels_leaves_nothing(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for its thread, which removes what it has made."""
    import asyncio

    is_there, may_go_on, is_over = threading.Event(), threading.Event(), threading.Event()
    chunks: list[int] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        chunks.append(len(data))
        is_there.set()
        may_go_on.wait(10)
        return real(descriptor, data)

    async def whole() -> None:
        async with Cache(cache_dir) as cache:
            await cache.get_status()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(cache.put_dataset(b"x" * 20 * CHUNK_SIZE_BYTES))
                assert await asyncio.to_thread(is_there.wait, 10)
                task.cancel()
            may_go_on.set()

    monkeypatch.setattr("motools.cache.files.os.write", write)
    remove = "motools.cache.files.Staging._remove"
    from motools.cache.files import Staging

    real_remove = Staging._remove  # noqa: SLF001 - looked at from outside

    def removing(self: Staging) -> None:
        real_remove(self)
        is_over.set()

    monkeypatch.setattr(remove, removing)
    with scripted_daemon(cache_dir):
        asyncio.run(whole())
        assert is_over.wait(10)
    assert len(chunks) == 1
    assert staged(cache_dir) == []


def test_what_lies_in_the_cache_directory_becomes_the_entrys(
    twin: tuple[str, str], cache_dir: Path, tmp_path: Path
) -> None:
    """Run directories and logs; other logs are remembered as they stand."""
    (cache_dir / "runs/j").mkdir(parents=True)
    (cache_dir / "evals").mkdir()
    (cache_dir / "evals/t.json").touch()
    logs = {"t": str(cache_dir / "evals/t.json"), "o": str(tmp_path), "s": "s3://b/x"}

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        await cache.set_model_id("d", {}, "m", run_dir=cache_dir / "runs/j", ttl_s=5)
        await cache.set_eval_log_paths("m", logs, "b", ttl_s=6)
        with pytest.raises(CacheRequestError, match="run_dir must lie below"):
            await cache.set_model_id("d", {}, "m", run_dir=tmp_path)

    with scripted_daemon(cache_dir) as daemon:
        run_twin(twin, cache_dir, body)
    model, evals = (request for request in daemon.requests if isinstance(request, PutModel | PutEvals))
    assert isinstance(model, PutModel)
    assert isinstance(evals, PutEvals)
    assert (model.files, model.ttl_s) == ([b"runs/j"], 5.0)
    assert (evals.files, evals.ttl_s) == ({"t": b"evals/t.json"}, 6.0)
    assert evals.logs == {task: log.encode() for task, log in logs.items()}


def test_claims_protect_and_own(twin: tuple[str, str], cache_dir: Path, tmp_path: Path) -> None:
    """The working directory and the dataset from the start, the files with the value."""
    (cache_dir / "runs/j").mkdir(parents=True)
    (cache_dir / "evals").mkdir()
    (cache_dir / "evals/t.json").touch()

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        async with cache.claim_model("d", {}, work_dir=cache_dir / "runs/new") as claim:
            for wrong in ({"run_dir": tmp_path}, {"path_or_bytes": b"x"}):
                with pytest.raises(CacheRequestError):
                    await claim.fulfil("m", **wrong)
            await claim.fulfil("m", run_dir=cache_dir / "runs/j", ttl_s=9, label="l")
        async with cache.claim_eval("m", "t", "b") as claim:
            with pytest.raises(CacheRequestError, match="run_dir is a model's"):
                await claim.fulfil("x", run_dir=cache_dir / "runs/j")
            await claim.fulfil(str(cache_dir / "evals/t.json"))
        async with cache.claim_dataset(DIGEST) as claim:
            with pytest.raises(CacheRequestError, match="the claim is for"):
                await claim.fulfil("f", b"other content")
            await claim.fulfil("f", b"content", label="l")
        with pytest.raises(CacheRequestError, match="work_dir must lie below"):
            cache.claim_dataset("d", work_dir=tmp_path) if twin[0] == "Cache" else await enter(cache)

    async def enter(cache: Any) -> None:  # noqa: ANN401 - as above
        async with cache.claim_dataset("d", work_dir=tmp_path):
            pytest.fail("the block is not entered")

    with scripted_daemon(cache_dir, granting) as daemon:
        run_twin(twin, cache_dir, body)
    claims = [request for request in daemon.requests if isinstance(request, Claim)]
    assert [(one.work_dir, one.dataset_hash) for one in claims] == [(b"runs/new", "d"), (None, None), (None, None)]
    model, evals, dataset = (one for one in daemon.requests if isinstance(one, PutModel | PutEvals | PutDataset))
    assert isinstance(model, PutModel)
    assert isinstance(evals, PutEvals)
    assert isinstance(dataset, PutDataset)
    assert (model.files, model.ttl_s, model.token, model.labels) == ([b"runs/j"], 9.0, 5, {"label": "l"})
    assert (evals.files, evals.token) == ({"t": b"evals/t.json"}, 5)
    assert (dataset.token, dataset.file_id, dataset.labels) == (5, b"f", {"label": "l"})
    assert dataset.staged is not None
    assert staged(cache_dir) == []


def test_answer_that_ends_by_itself_is_not_remembered(twin: tuple[str, str], cache_dir: Path) -> None:
    """No stamp moves when its time is over."""
    file = StampsFile(cache_dir)

    def ending(talk: Talk) -> None:
        file.greet(talk)
        while (request := next_question(talk)) is not None:
            assert isinstance(request.body, Lookup)
            talk.reply(request, Found(values=[b"v"], lasts=request.body.keys == ["lasting"]))

    async def body(cache: Any) -> None:  # noqa: ANN401 - either client
        for _ in range(3):
            assert await cache.get_file_id("ending") == "v"
            assert await cache.get_file_id("lasting") == "v"

    with scripted_daemon(cache_dir, ending) as daemon:
        run_twin(twin, cache_dir, body)
    asked = [request.keys for request in daemon.requests if isinstance(request, Lookup)]
    assert asked == [["ending"], ["lasting"], ["ending"], ["ending"]]


async def test_memory_keeps_hashes_and_forgets_in_time() -> None:
    """The same answers without files; its clock can be turned."""
    now_s = 0.0
    cache = InMemoryCache(now_s=lambda: now_s)
    entry = await cache.put_dataset(b"content", "file", ttl_s=10)
    assert (entry.dataset_hash, entry.files) == (DIGEST, ())
    await cache.set_model_id("d", {}, "m", run_dir="/nowhere", ttl_s=20)
    await cache.set_eval_log_paths("m", {"t": "log"}, "b", ttl_s=30)
    now_s = 9.9
    assert await cache.get_file_id(DIGEST) == "file"
    assert (await cache.list_datasets())[0].expires_at is not None
    now_s = 10.0
    assert await cache.get_file_id(DIGEST) is None
    assert await cache.list_datasets() == []
    await cache.set_file_id(DIGEST, "again")
    now_s = 25.0
    assert await cache.get_file_id(DIGEST) == "again"
    assert await cache.get_model_id("d", {}) is None
    assert (await cache.get_evals("m", ["t"], "b")).found == {"t": "log"}
    async with cache.claim_model("d", {}, work_dir="/anywhere") as claim:
        await claim.fulfil("m2", run_dir="/nowhere")
    async with cache.claim_dataset(hash_content(b"x")) as claim:
        await claim.fulfil("f", b"x", ttl_s=1)
    assert await cache.get_file_id(hash_content(b"x")) == "f"


def test_source_is_read_while_other_threads_use_the_client(cache_dir: Path, tmp_path: Path) -> None:
    """Only the put itself takes the client's lock."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * CHUNK_SIZE_BYTES)
    with scripted_daemon(cache_dir), SyncCache(cache_dir) as cache:
        cache.get_status()
        assert not cache._lock.locked()  # noqa: SLF001 - the point
        threads = [threading.Thread(target=cache.put_dataset, args=(source,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert cache.get_file_id("k") == "value of k"
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert staged(cache_dir) == []
