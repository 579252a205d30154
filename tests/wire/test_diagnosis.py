"""What an examination says, on its way to whoever asked."""

from __future__ import annotations

import msgspec

from motoolsd.wire.diagnosis import (
    DIRECT_MENDS,
    Diagnosis,
    HealthCheck,
    LockHolder,
    Mend,
    Mended,
    SqliteHealth,
    Verdict,
)

SQLITE = SqliteHealth(version="3.40.1", has_wal_reset_bug=True, is_safe=True, detail="safe")


def diagnosis(*statuses: Verdict) -> Diagnosis:
    """With a check of each status."""
    checks = [HealthCheck(name="n", status=status, detail="d") for status in statuses]
    return Diagnosis(directory="/c", checks=checks, sqlite=SQLITE)


def test_only_a_problem_is_unwell() -> None:
    """A warning is none."""
    assert diagnosis(Verdict.OK, Verdict.WARNING).is_well
    assert not diagnosis(Verdict.OK, Verdict.PROBLEM).is_well


def test_it_comes_through_a_pipe_whole() -> None:
    """As JSON."""
    whole = Diagnosis(
        directory="/c",
        checks=[HealthCheck(name="n", status=Verdict.PROBLEM, detail="d", remedy="r", mend=Mend.STAMPS)],
        sqlite=SQLITE,
        versions={"python": "3"},
        holder=LockHolder(pid=7, is_stopped=True),
        mends=[Mended(mend=Mend.START, is_done=False, detail="why")],
    )
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Diagnosis) == whole


def test_mends_have_an_order() -> None:
    """What needs no daemon comes before what does: a daemon could not start on the former's faults."""
    mends = list(Mend)
    assert set(mends[: len(DIRECT_MENDS)]) == DIRECT_MENDS
    assert mends[-2:] == [Mend.START, Mend.VERIFY]
