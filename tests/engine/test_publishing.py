"""Entries with files: whole, on disk and in place before their row, or nothing of them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.core.ports import DiskFull, TreeError
from motoolsd.engine.publishing import has_files
from motoolsd.store.writes import BatchItem
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import PutDataset, Stored
from tests.engine.bench import Bench
from tests.engine.cleaning import publish_model, sizes, with_files, write
from tests.engine.conftest import OpenBench
from tests.samples import as_retry, clear, put_dataset, put_evals, put_model, request_key

CONTENT = b"content"


def staged(directory: Path, name: str = "s1") -> bytes:
    """Content that a client has brought."""
    (directory / "staging").mkdir(exist_ok=True)
    (directory / "staging" / name).write_bytes(CONTENT)
    return name.encode()


def names_in(directory: Path) -> list[str]:
    """What lies there."""
    return [path.name for path in directory.iterdir()]


def put_staged(name: bytes, dataset_hash: str = "h") -> PutDataset:
    """A dataset with its content."""
    return PutDataset(request_key=request_key(), dataset_hash=dataset_hash, file_id=b"file", staged=name)


async def test_content_is_published_with_its_row(bench: Bench) -> None:
    """It lies under its hash, and nothing is left in staging."""
    assert await bench.engine.publishing.publish(put_staged(staged(bench.directory))) == Stored()
    assert (bench.directory / "datasets/h.jsonl").read_bytes() == CONTENT
    assert names_in(bench.directory / "staging") == []
    assert await bench.look_up("h") == b"file"


async def test_retry_is_answered_though_the_content_was_taken_over(bench: Bench) -> None:
    """Only its reply was lost."""
    request = put_staged(staged(bench.directory))
    await bench.engine.publishing.publish(request)
    again = as_retry(request)
    assert isinstance(again, PutDataset)
    assert await bench.engine.publishing.publish(again) == Stored()


@pytest.mark.parametrize(
    "path", ["cache.db", "trash/x", "runs", "runs/../cache.db", "/etc/passwd", "runs//x", "staging/x", "runs/missing"]
)
async def test_path_that_no_entry_may_own_is_refused(bench: Bench, path: str) -> None:
    """Nothing is stored."""
    put = put_model("d", b"m", x=1)
    with pytest.raises(RequestError):
        await bench.engine.publishing.publish(with_files(put, path))
    assert (await bench.engine.stats()).num_models == 0


async def test_row_that_is_refused_leaves_no_file(bench: Bench) -> None:
    """A lease that was lost: the content is taken back."""
    request = put_staged(staged(bench.directory))
    stale = PutDataset(request_key=request_key(), dataset_hash="h", file_id=b"f", staged=request.staged, token=99)
    with pytest.raises(RequestError, match="lease"):
        await bench.engine.publishing.publish(stale)
    assert names_in(bench.directory / "datasets") == names_in(bench.directory / "staging") == []


async def test_full_disk_is_said_and_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free some space, then try again."""

    def full(staged: bytes, path: bytes) -> bool:
        raise DiskFull(path, f"no room for {staged!r}")

    monkeypatch.setattr(bench.files, "publish", full)
    with pytest.raises(StorageFailed, match="disk is full"):
        await bench.engine.publishing.publish(put_staged(staged(bench.directory)))
    assert await bench.look_up("h") is None
    assert names_in(bench.directory / "datasets") == []


async def test_path_that_cannot_be_looked_at_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stored, and content that was brought with it is taken back."""

    def refuse(path: bytes) -> None:
        raise TreeError(path, "Input/output error")

    monkeypatch.setattr(bench.files, "measure", refuse)
    with pytest.raises(StorageFailed, match=r"datasets/h\.jsonl: Input/output error"):
        await bench.engine.publishing.publish(put_staged(staged(bench.directory)))
    assert await bench.look_up("h") is None
    assert names_in(bench.directory / "datasets") == names_in(bench.directory / "staging") == []


async def test_staged_name_is_a_name(bench: Bench) -> None:
    """It leads nowhere else."""
    (bench.directory / "secret").write_bytes(CONTENT)
    staged(bench.directory)
    for name in (b"../secret", b"..", b"a/b"):
        with pytest.raises(StorageFailed, match="no name in staging"):
            await bench.engine.publishing.publish(put_staged(name))
    assert (bench.directory / "secret").exists()


async def test_staging_that_cannot_be_cleared_keeps_no_daemon_from_starting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again at the next start; what can go goes."""
    staged(bench.directory, "stuck")
    staged(bench.directory, "left")
    unstage = bench.files.unstage

    def refuse(name: bytes) -> None:
        if name == b"stuck":
            raise TreeError(name, "Operation not permitted")
        unstage(name)

    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "unstage", refuse)
        await bench.engine.recover()
        assert names_in(bench.directory / "staging") == ["stuck"]
        patch.setattr(bench.files, "abandoned", lambda: refuse(b"stuck"))
        await bench.engine.recover()
    assert caplog.text.count("Operation not permitted") == 2
    await bench.engine.recover()
    assert names_in(bench.directory / "staging") == []


async def test_what_was_staged_and_is_gone_is_said(bench: Bench) -> None:
    """Store it again."""
    with pytest.raises(RequestError, match="store the dataset again"):
        await bench.engine.publishing.publish(put_staged(b"unknown"))


async def test_what_clients_left_goes_at_the_next_start(open_bench: OpenBench) -> None:
    """Not what somebody still holds; a file that got no row goes with it, one that has a row stays."""
    async with open_bench() as bench:
        staged(bench.directory, "dead")
        held = bench.directory / "staging" / staged(bench.directory, "alive").decode()
        for name, hash_ in (("half", "no-row"), ("whole", "row")):
            staged(bench.directory, name)
            os.link(bench.directory / "staging" / name, bench.directory / f"datasets/{hash_}.jsonl")
        await bench.write(put_dataset("row"))
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        async with open_bench() as bench:
            await bench.engine.recover()
            assert names_in(bench.directory / "staging") == ["alive"]
            assert names_in(bench.directory / "datasets") == ["row.jsonl"]


async def test_figures_count_a_file_once(bench: Bench) -> None:
    """One that a scan has found as an orphan, one that is stored twice, one that is new."""
    write(bench.directory, "runs/m1/weights")
    await sizes(bench, rescan=True)
    census = bench.engine.census
    for name in ("m1", "m1", "m2"):
        census._figures.duration_s = 1.0  # noqa: SLF001 - a tree that is not counted for each question
        await publish_model(bench, name)
        known = await sizes(bench)
        found = await sizes(bench, rescan=True)
        assert (known.categories["runs"], known.orphans, known.num_orphans) == (
            found.categories["runs"],
            found.orphans,
            found.num_orphans,
        )
    assert found.categories["runs"].size_bytes == 10_000


async def test_path_below_an_orphan_is_counted_once(bench: Bench) -> None:
    """What is left of the orphan stays one."""
    write(bench.directory, "runs/job/m1/weights")
    write(bench.directory, "runs/job/rest")
    bench.clock.follow_files()
    await sizes(bench, rescan=True)
    bench.engine.census._figures.duration_s = 1.0  # noqa: SLF001 - as above
    await bench.engine.publishing.publish(with_files(put_model("d", b"m1", name="m1"), "runs/job/m1"))
    known = await sizes(bench)
    assert (known.categories["runs"].size_bytes, known.orphans.size_bytes) == (10_000, 5_000)


def test_writes_without_files_take_the_short_way() -> None:
    """Only what is more than a row is published."""
    plain: list[BatchItem] = [put_dataset("d"), put_model(), put_evals({"t": b"l"}), clear(Kind.DATASET)]
    assert not any(map(has_files, plain))  # type: ignore[arg-type]
    assert has_files(put_staged(b"s"))
    assert has_files(with_files(put_model(), ttl_s=1.0))
