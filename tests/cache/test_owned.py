"""Which paths an entry owns, and that they are brought to disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from motools.cache.errors import CacheRequestError, StorageFailed
from motools.cache.owned import make_durable, own_logs, own_run, owned_path, run_path, work_path


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """A cache directory with files of every category, and one elsewhere."""
    cache = tmp_path / "cache"
    for name in ("datasets/a.jsonl", "evals/m/t.json", "runs/j/sub/w.bin", "logs/x.json", "cache.db"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("content")
    (tmp_path / "outside.json").write_text("content")
    (tmp_path / "cache-of-another").mkdir()
    (tmp_path / "link").symlink_to(cache)
    (cache / "evals" / "out").symlink_to(tmp_path / "outside.json")
    (cache / "evals" / "in").symlink_to(cache / "evals" / "m" / "t.json")
    return str(cache)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cache/evals/m/t.json", b"evals/m/t.json"),
        ("cache/evals/m", b"evals/m"),
        ("cache/datasets/a.jsonl", b"datasets/a.jsonl"),
        ("cache/./evals/../evals/m//t.json", b"evals/m/t.json"),
        ("link/evals/m/t.json", b"evals/m/t.json"),
        ("cache/evals/in", b"evals/m/t.json"),
        ("cache/evals/out", None),
        ("cache/evals/m/../../../outside.json", None),
        ("outside.json", None),
        ("cache-of-another", None),
        ("cache/evals", None),
        ("cache", None),
        ("cache/logs/x.json", None),
        ("cache/cache.db", None),
        ("cache/evals/none.json", None),
    ],
)
def test_only_what_lies_below_a_category_is_owned(
    directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: bytes | None
) -> None:
    """Links resolved on both sides; by its absolute path and by a relative one."""
    assert owned_path(directory, tmp_path / path) == expected
    monkeypatch.chdir(tmp_path)
    assert owned_path(directory, path) == expected
    assert owned_path(str(tmp_path / "link"), path) == expected


@pytest.mark.parametrize("value", ["s3://bucket/evals/t.json", "file:///x", "a\0b", 7, None])
def test_what_is_no_path_is_not_owned(directory: str, value: object) -> None:
    """It is remembered as it stands, or refused by the table of calls."""
    assert owned_path(directory, value) is None


def test_path_that_is_no_utf8_survives(directory: str) -> None:
    """File names are bytes."""
    name = os.fsdecode(b"evals/\xff.json")
    Path(directory, name).write_text("x")
    assert owned_path(directory, Path(directory, name)) == b"evals/\xff.json"


def test_run_dir_elsewhere_is_refused_with_the_remedy(directory: str, tmp_path: Path) -> None:
    """It names where it must lie."""
    for path in (tmp_path, "s3://b/run", Path(directory, "logs"), Path(directory, "runs"), "/", 7):
        with pytest.raises(CacheRequestError, match="run_dir must"):
            run_path(directory, path)
    with pytest.raises(CacheRequestError, match=r"Make it there, as in .*/runs/my-run"):
        run_path(directory, tmp_path)


def test_run_dir_must_be_a_directory(directory: str) -> None:
    """A missing one would be a dangling entry from the start."""
    assert run_path(directory, Path(directory, "runs/j")) == b"runs/j"
    for name in ("runs/none", "runs/j/sub/w.bin"):
        with pytest.raises(CacheRequestError, match="no directory"):
            run_path(directory, Path(directory, name))


def test_work_dir_need_not_be_there(directory: str, tmp_path: Path) -> None:
    """It protects a directory from before it is made."""
    assert work_path(directory, Path(directory, "runs/new/deep")) == b"runs/new/deep"
    with pytest.raises(CacheRequestError, match="work_dir must lie below"):
        work_path(directory, tmp_path)


def test_everything_below_is_brought_to_disk_and_no_link_followed(
    directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, directories, and those above up to the category."""
    run = Path(directory, "runs/j")
    (run / "out").symlink_to(tmp_path / "outside.json")
    (run / "up").symlink_to("..")
    os.mkfifo(run / "pipe")
    synced: list[str] = []
    monkeypatch.setattr(
        "motools.cache.owned.os.fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    assert own_run(directory, run) == (b"runs/j",)
    wanted = ["runs/j", "runs/j/sub", "runs/j/sub/w.bin", "runs"]
    assert sorted(synced) == sorted(str(Path(directory, name)) for name in wanted)


def test_logs_that_are_owned_are_brought_to_disk(
    directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are not touched."""
    synced: list[int] = []
    monkeypatch.setattr("motools.cache.owned.os.fsync", synced.append)
    logs = {"t": Path(directory, "evals/m/t.json"), "o": tmp_path / "outside.json", "s": "s3://b/x"}
    assert own_logs(directory, logs) == {"t": b"evals/m/t.json"}
    assert len(synced) == 3
    assert own_logs(directory, ["no", "mapping"]) == {}


def test_check_ends_a_long_walk(directory: str) -> None:
    """A cancelled task's thread does not go through a hundred thousand files."""

    def halt() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        make_durable(directory, b"runs/j", halt)


def test_failing_disk_is_said(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not on disk is not stored."""

    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("motools.cache.owned.os.fsync", fail)
    with pytest.raises(StorageFailed, match="Input/output error"):
        make_durable(directory, b"runs/j")


def test_file_that_cannot_be_opened_is_named(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may open everything, so the refusal is made up."""
    real_open = os.open

    def refuse(path: bytes, flags: int) -> int:
        if path.endswith(b"w.bin"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags)

    monkeypatch.setattr("motools.cache.owned.os.open", refuse)
    with pytest.raises(CacheRequestError, match=r"w\.bin.* cannot be read: Permission denied"):
        make_durable(directory, b"runs/j")
