"""Errors say on the wire what they are."""

from __future__ import annotations

import pytest

from motoolsd.core import errors
from motoolsd.core.errors import (
    AlreadyRunning,
    CorruptDatabase,
    EntryNotFound,
    EntryProtected,
    NoRoom,
    PlanOutdated,
    ReadOnlyDisk,
    RequestError,
    SchemaTooNew,
    StorageFailed,
)
from motoolsd.wire.messages import Failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (RequestError("no"), Failure(code="invalid_request", message="no")),
        (
            StorageFailed("full", outcome_known=False),
            Failure(code="storage_failed", message="full", detail={"outcome_known": False}),
        ),
        (CorruptDatabase("bad"), Failure(code="corrupt_database", message="bad")),
        (SchemaTooNew("new", version=9), Failure(code="schema_too_new", message="new", detail={"version": 9})),
        (EntryProtected("in use"), Failure(code="entry_protected", message="in use")),
        (EntryNotFound("none"), Failure(code="not_found", message="none")),
    ],
)
def test_failure_carries_code_text_and_attributes(error: RequestError, failure: Failure) -> None:
    """What a client is told is what the error knows."""
    assert error.to_failure() == failure


def test_path_that_is_no_utf_8_can_be_told() -> None:
    """A cache directory may have any name; its errors reach the client all the same."""
    failure = CorruptDatabase("/caf\udce9/cache.db is damaged", path="/caf\udce9").to_failure()
    assert failure == Failure(
        code="corrupt_database", message="/caf\\udce9/cache.db is damaged", detail={"path": "/caf\\udce9"}
    )
    failure.message.encode()


def test_owner_is_named() -> None:
    """Whoever finds the directory taken learns by whom."""
    assert "pid 7" in AlreadyRunning("/cache", "pid 7").message


def test_each_class_has_a_code_of_its_own() -> None:
    """Except those that say more of the same."""
    classes = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, RequestError)]
    codes = [found.code for found in classes if found not in (AlreadyRunning, NoRoom, ReadOnlyDisk)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", [NoRoom, ReadOnlyDisk])
def test_disk_that_takes_nothing_is_named_with_what_became_of_the_write(kind: type[NoRoom | ReadOnlyDisk]) -> None:
    """Whether it was stored, and that nothing else was lost by it."""
    known, unknown = kind("SQLITE_X"), kind("SQLITE_X", outcome_known=False)
    assert known.to_failure().code == unknown.to_failure().code == "storage_failed"
    assert known.outcome_known
    assert "SQLITE_X" in known.message
    assert "nothing of this was stored" in known.message
    assert not unknown.outcome_known
    assert "unknown" in unknown.message
    assert "what was stored before" in unknown.message


def test_outdated_plan_names_some_of_what_changed() -> None:
    """The first five; a hundred thousand would be no message."""
    error = PlanOutdated("p1", [f"model k{number}: it is gone" for number in range(7)])
    failure = error.to_failure()
    assert failure.code == "plan_outdated"
    assert "plan p1" in failure.message
    assert "nothing was removed" in failure.message
    assert all(f"k{number}:" in failure.message for number in range(5))
    assert "k5" not in failure.message
    assert "and 2 more" in failure.message


def test_outdated_plan_with_few_changes_names_all() -> None:
    """Nothing is said of more."""
    message = PlanOutdated("p1", [f"model k{number}: gone" for number in range(5)]).message
    assert "k4: gone" in message
    assert "more" not in message
