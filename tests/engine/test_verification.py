"""Verifying: what is wrong is found, by kind; repairing lets it miss, and takes no file away."""

from __future__ import annotations

import shutil
from hashlib import sha256

import pytest

from motoolsd.core.ports import TreeError
from motoolsd.wire.cleaning import FindingPage, Verify
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import PutDataset
from tests.engine.bench import Bench
from tests.engine.cleaning import files_below, models, publish_eval, publish_model, undo, write
from tests.samples import execute, put_dataset, request_key


async def findings(bench: Bench, *, deep: bool = False, repair: bool = False) -> list[tuple[str, str, bool]]:
    """Problem, path or key, and whether it was repaired."""
    parts = [part async for part in bench.engine.verification.verify(Verify(deep=deep, repair=repair))]
    pages = [part for part in parts if isinstance(part, FindingPage)]
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    return [(one.problem, one.path.decode() or one.key, one.repaired) for page in pages for one in page.items]


async def test_sound_cache_has_nothing_wrong(bench: Bench) -> None:
    """And it is told how much was looked at."""
    await publish_model(bench, "m1")
    await bench.write(put_dataset("d"))
    assert await findings(bench, deep=True) == []
    *_, last = [part async for part in bench.engine.verification.verify(Verify())]
    assert isinstance(last, FindingPage)
    assert (last.entries, last.files) == (2, 1)


async def test_missing_file_is_found_and_its_row_can_be_put_back(bench: Bench) -> None:
    """Repairing moves the row to the trash; after that there is nothing wrong."""
    key = await publish_model(bench, "m1")
    shutil.move(bench.directory / "runs/m1", bench.directory / "elsewhere")
    assert await findings(bench) == [("missing", "runs/m1", False)]
    assert await findings(bench, repair=True) == [("missing", "runs/m1", True)]
    assert (await models(bench), await findings(bench)) == ([], [])
    shutil.move(bench.directory / "elsewhere", bench.directory / "runs/m1")
    await undo(bench)
    await bench.engine.census.rescan()
    assert await bench.look_up(key, Kind.MODEL) == b"m1"


async def test_damaged_log_misses_and_is_not_told_twice(bench: Bench) -> None:
    """Its file stays, for somebody to look at; a scan in between hides nothing."""
    await publish_eval(bench, "t", "evals/t.json")
    write(bench.directory, "evals/t.json", 4_000)
    await bench.engine.census.rescan()
    assert await findings(bench) == [("corrupt", "evals/t.json", False)]
    before = files_below(bench.directory)
    assert await findings(bench, repair=True) == [("corrupt", "evals/t.json", True)]
    assert (await findings(bench), files_below(bench.directory)) == ([], before)
    assert await bench.look_up('["m","t","inspect",null]', Kind.EVAL) is None


async def test_content_is_compared_with_its_hash(bench: Bench) -> None:
    """Only when it is asked for: that reads everything."""
    content = b"c" * 100
    digest = sha256(content).hexdigest()
    (bench.directory / "staging").mkdir(exist_ok=True)
    (bench.directory / "staging/s").write_bytes(content)
    put = PutDataset(request_key=request_key(), dataset_hash=digest, file_id=b"f", staged=b"s")
    await bench.engine.publishing.publish(put)
    path = bench.directory / f"datasets/{digest}.jsonl"
    path.chmod(0o600)
    path.write_bytes(b"d" + content[1:])
    assert await findings(bench) == []
    assert await findings(bench, deep=True) == [("corrupt", f"datasets/{digest}.jsonl", False)]


async def test_row_that_does_not_fit_its_checksum_is_found(bench: Bench) -> None:
    """It misses already; repairing says so for good."""
    await bench.write(put_dataset("d", b"file"))
    execute(
        bench.directory / "cache.db",
        "DROP TRIGGER dataset_files_forget_checksum; UPDATE dataset_files SET file_id = 'flipped'",
    )
    assert await findings(bench) == [("corrupt", "d", False)]
    assert await findings(bench, repair=True) == [("corrupt", "d", True)]
    assert await findings(bench) == []


async def test_file_that_cannot_be_read_is_told_and_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what is in it."""
    await publish_eval(bench, "t", "evals/t.json")

    def unreadable(path: bytes) -> None:
        raise TreeError(path, "Input/output error")

    monkeypatch.setattr(bench.files, "measure", unreadable)
    assert await findings(bench, repair=True) == [("unreadable", "evals/t.json", False)]


async def test_orphans_are_told_and_never_removed(bench: Bench) -> None:
    """An empty directory is none."""
    write(bench.directory, "runs/left/x")
    (bench.directory / "runs/empty").mkdir()
    assert await findings(bench, repair=True) == [("orphan", "runs/left", False)]
    assert (bench.directory / "runs/left/x").exists()
