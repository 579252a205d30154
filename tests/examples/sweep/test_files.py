"""Files of the sweep: whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.sweep.files import write_durably


def test_file_is_written_with_its_folders(tmp_path: Path) -> None:
    """The file has its content, and no other file is left beside it."""
    path = tmp_path / "runs" / "job" / "model"
    write_durably(path, b"content")
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way changes nothing that a reader can see."""
    path = tmp_path / "log"
    write_durably(path, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
