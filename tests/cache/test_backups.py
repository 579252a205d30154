"""What is asked for a backup, and what its reply means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from motools.cache.backups import Backup, backup
from motools.cache.errors import CacheRequestError
from motoolsd.wire.backups import BackedUp, BackUp


def test_path_travels_absolute_and_as_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon works elsewhere, and a file name need not be UTF-8."""
    monkeypatch.chdir(tmp_path)
    for path in ("b\udcff.db", Path("b\udcff.db")):
        assert backup(path, force=True).request == BackUp(path=os.fsencode(tmp_path) + b"/b\xff.db", force=True)


@pytest.mark.parametrize("path", ["", "directory/", "a\0b", 3, "\ud800"])
def test_what_names_no_file_is_refused(path: object) -> None:
    """Before anything is sent."""
    with pytest.raises(CacheRequestError):
        backup(path, force=False)  # type: ignore[arg-type]


def test_reply_tells_what_is_in_the_copy() -> None:
    """With the path as text again."""
    fields = {"size_bytes": 4096, "datasets": 1, "models": 2, "evals": 3, "schema_version": 4, "as_of": "now"}
    call = backup("/b", force=False)
    assert call.result_of_pages([BackedUp(path=b"/b\xff", **fields)]) == Backup(  # type: ignore[arg-type]
        path="/b\udcff",
        **fields,  # type: ignore[arg-type]
    )
