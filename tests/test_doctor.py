"""The examination as a whole, in this process, where no daemon runs. tests/crash has it beside daemons and faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from motoolsd.adapters import lock as lock_module
from motoolsd.adapters.directory import open_directory
from motoolsd.adapters.examination import look_at_lock
from motoolsd.adapters.lock import hold_lock
from motoolsd.core.diagnosis import LockFacts
from motoolsd.doctor import examine, mend
from motoolsd.store import examination
from motoolsd.store.migration import prepare_database
from motoolsd.wire.diagnosis import Mend, Verdict


@pytest.fixture
def made_dir(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as a daemon leaves it."""
    monkeypatch.setattr(lock_module, "PAUSE_S", 0)
    with open_directory(str(cache_dir)) as directory:
        prepare_database(directory.database)
    return cache_dir


def statuses(path: Path) -> dict[str, Verdict]:
    """What is not well."""
    return {check.name: check.status for check in examine(str(path)).checks if check.status is not Verdict.OK}


def test_fresh_directory_is_well(made_dir: Path) -> None:
    """Every check is there, each once."""
    found = examine(str(made_dir))
    assert found.is_well
    assert statuses(made_dir) == {}
    names = [check.name for check in found.checks]
    assert ",".join(names) == (
        "directory,permissions,path,filesystem,space,lock,socket,leftovers,stamps,database,wal,rows,void,files,leases,"
        "trash,clock,staging,settings,log,backups,sqlite"
    )


def test_staging_that_is_no_directory_is_no_error(made_dir: Path) -> None:
    """Whatever lies there, the examination comes to its end."""
    for name in ("staging", "trash", "backups"):
        (made_dir / name).write_bytes(b"")
    assert statuses(made_dir) == {}


def test_daemon_that_comes_up_meanwhile_is_read_with_locks(made_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that looked for no locks may have read pages of two times: it reads again."""
    looks = iter([LockFacts(is_held=False), LockFacts(is_held=True)])
    modes: list[bool] = []
    read = examination.read_database

    def reading(database: str, *, is_still: bool, now: str, look: object) -> object:
        modes.append(is_still)
        return read(database, is_still=is_still, now=now, look=lambda _item: None)

    monkeypatch.setattr("motoolsd.doctor.looks.look_at_lock", lambda _directory: next(looks))
    monkeypatch.setattr("motoolsd.doctor.reading.read_database", reading)
    examine(str(made_dir))
    assert modes == [True, False]


def test_mends_are_told_one_by_one(made_dir: Path) -> None:
    """What was done, that there was nothing to do, why not; one that is refused keeps no other from being done."""
    made_dir.chmod(0o777)
    (made_dir / "stamps.new").write_bytes(b"")
    with open_directory(str(made_dir)) as directory, hold_lock(directory, now="noon"):
        made_dir.chmod(0o777)
        done = mend(str(made_dir), [Mend.LEFTOVERS, Mend.PERMISSIONS])
        assert look_at_lock(directory).is_held
    assert [(one.mend, one.is_done) for one in done] == [(Mend.LEFTOVERS, False), (Mend.PERMISSIONS, True)]
    assert "another daemon" in done[0].detail
    assert "777" in done[1].detail
    done = mend(str(made_dir), [Mend.LEFTOVERS, Mend.STAMPS])
    assert [one.detail for one in done] == ["removed stamps.new", "there was nothing left to do"]


def test_mending_what_is_not_there_is_told(short_dir: Path) -> None:
    """The system's own words."""
    (done,) = mend(str(short_dir / "none"), [Mend.PERMISSIONS])
    assert (done.is_done, done.detail) == (False, "the system refuses it: No such file or directory")
