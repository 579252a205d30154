"""The files of backups."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from motoolsd.adapters.backups import BackupFiles
from motoolsd.adapters.descent import Descent
from motoolsd.core.files import PathRefused
from motoolsd.core.ports import PathMissing, PathTaken, TreeError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A cache directory."""
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def files(place: Path) -> Iterator[BackupFiles]:
    """Its backups."""
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    yield BackupFiles(Descent(root), os.fsencode(place))
    os.close(root)


def names_in(path: Path) -> list[str]:
    """What lies right in a directory."""
    return sorted(found.name for found in path.iterdir())


def make(files: BackupFiles, path: Path, text: str = "whole", *, force: bool = False) -> int:
    """Write a file through a draft."""
    with files.draft_at(os.fsencode(path)) as (draft, name):
        Path(draft.path).write_text(text)
        return draft.publish(name, force=force)


def make_automatic(files: BackupFiles, made_at: str) -> bytes:
    """The same in backups/."""
    with files.draft_automatic() as draft:
        Path(draft.path).write_text(made_at)
        return files.publish_automatic(draft, made_at)


def test_file_appears_whole_and_private(files: BackupFiles, tmp_path: Path) -> None:
    """Under its own name only once it is written; nobody else reads it; nothing else stays."""
    path = tmp_path / "out" / "b\udcff.db"
    path.parent.mkdir()
    with files.draft_at(os.fsencode(path)) as (draft, name):
        Path(draft.path).write_text("whole")
        assert not path.exists()
        assert draft.publish(name, force=False) == 5
    assert path.read_text() == "whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names_in(path.parent) == [path.name]


def test_file_that_is_there_stays(files: BackupFiles, tmp_path: Path) -> None:
    """Unless it is to be replaced; a link is replaced itself, not what it leads to."""
    path = tmp_path / "b.db"
    path.write_text("precious")
    with pytest.raises(PathTaken):
        make(files, path)
    assert path.read_text() == "precious"
    make(files, path, force=True)
    assert path.read_text() == "whole"
    link = tmp_path / "link.db"
    link.symlink_to(path)
    make(files, link, "other", force=True)
    assert (path.read_text(), link.read_text(), link.is_symlink()) == ("whole", "other", False)
    assert names_in(tmp_path) == ["b.db", "cache", "link.db"]


def test_what_is_no_file_is_never_replaced(files: BackupFiles, tmp_path: Path) -> None:
    """A device that was named by mistake, a directory."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("directory", "pipe"):
        with pytest.raises(PathTaken):
            make(files, tmp_path / name, force=True)
        assert not (tmp_path / name).is_file()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_half_written_file_goes(files: BackupFiles, tmp_path: Path, error: type[BaseException]) -> None:
    """With what SQLite makes beside it."""

    def fail() -> None:
        with files.draft_at(os.fsencode(tmp_path / "b.db")) as (draft, _):
            Path(draft.path).write_text("ha")
            Path(f"{draft.path}-journal").write_text("lf")
            raise error

    with pytest.raises(error):
        fail()
    assert names_in(tmp_path) == ["cache"]


@pytest.mark.parametrize("name", ["cache.db", "datasets/b.db", "../cache/b.db", "../link/b.db"])
def test_nothing_is_made_in_the_cache_directory(files: BackupFiles, place: Path, name: str) -> None:
    """By whatever way it is named: there everything has its own place, the database too."""
    (place / "datasets").mkdir()
    (place.parent / "link").symlink_to(place)
    before = names_in(place)
    with pytest.raises(PathRefused, match="outside"):
        make(files, place / name, force=True)
    assert names_in(place) == before


def test_missing_directory_is_not_made(files: BackupFiles, tmp_path: Path) -> None:
    """It is said."""
    with pytest.raises(PathMissing):
        make(files, tmp_path / "none" / "b.db")
    assert not (tmp_path / "none").exists()


def test_automatic_backups_are_named_after_their_time(files: BackupFiles, place: Path) -> None:
    """The newest first, two of one second told apart; what else lies there is no backup."""
    assert files.automatic() == []
    names = [make_automatic(files, made) for made in ("20260131T235959Z", "20260201T000000Z", "20260131T235959Z")]
    assert names == [b"cache-20260131T235959Z.db", b"cache-20260201T000000Z.db", b"cache-20260131T235959Z-2.db"]
    (place / "backups" / "notes.db").write_text("mine")
    (place / "backups" / "cache-20260301T000000Z.db").mkdir()
    found = files.automatic()
    assert [one.made_at for one in found] == ["2026-02-01T00:00:00Z", "2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z"]
    assert found[0].path == os.fsencode(place / "backups" / "cache-20260201T000000Z.db")
    assert stat.S_IMODE((place / "backups").stat().st_mode) == 0o700


def test_oldest_automatic_backups_go(files: BackupFiles, place: Path) -> None:
    """And nothing that is none."""
    for day in range(1, 6):
        make_automatic(files, f"2026020{day}T000000Z")
    (place / "backups" / "notes.db").write_text("mine")
    assert files.remove_automatic(2) == 3
    assert [one.made_at[:10] for one in files.automatic()] == ["2026-02-05", "2026-02-04"]
    assert (place / "backups" / "notes.db").exists()
    assert files.remove_automatic(2) == 0


def test_backup_of_a_clock_that_was_set_back_is_not_the_oldest(files: BackupFiles, place: Path) -> None:
    """It was made last, whatever its name says: of the others the oldest go."""
    for day in range(1, 4):
        make_automatic(files, f"2026020{day}T000000Z")
    latest = make_automatic(files, "20260101T000000Z")
    assert files.remove_automatic(2, latest=latest) == 2
    assert names_in(place / "backups") == ["cache-20260101T000000Z.db", "cache-20260203T000000Z.db"]
    assert files.remove_automatic(1, latest=latest) == 1
    assert names_in(place / "backups") == ["cache-20260101T000000Z.db"]


def test_what_a_kill_left_goes_with_the_next_backup(files: BackupFiles, place: Path) -> None:
    """It is no backup, and takes room."""
    (place / "backups").mkdir()
    left = place / "backups" / ".motools-0123.partial"
    left.write_text("ha")
    assert files.automatic() == []
    make_automatic(files, "20260131T235959Z")
    assert names_in(place / "backups") == ["cache-20260131T235959Z.db"]


def test_link_in_place_of_backups_leads_nowhere(files: BackupFiles, place: Path, tmp_path: Path) -> None:
    """Nothing is made, listed or removed where it leads."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "cache-20260131T235959Z.db").write_text("not ours")
    (place / "backups").symlink_to(elsewhere)
    with pytest.raises(TreeError):
        make_automatic(files, "20260201T000000Z")
    assert files.automatic() == []
    assert files.remove_automatic(0) == 0
    assert names_in(elsewhere) == ["cache-20260131T235959Z.db"]
