"""A change is its own content: it says what it may touch, and is refused or carried out as a whole."""

from __future__ import annotations

import sqlite3

import pytest

from motoolsd.core.errors import EntryProtected
from motoolsd.store.commits import commit_batch
from motoolsd.store.facts import SetFact, select_fact
from motoolsd.store.outcomes import Applied, Change, Outcome
from tests.samples import NOW, applied, put_dataset


class Refused(Change, frozen=True):
    """A change that is refused before it changes anything."""

    def apply(self, connection: sqlite3.Connection, now: str, /) -> Outcome:
        """Say why."""
        return EntryProtected(f"not at {now}: {connection.execute('SELECT count(*) FROM dataset_files').fetchone()}")


def test_change_touches_no_key_unless_it_says_so() -> None:
    """Then no slot moves for it."""
    assert list(SetFact("f", b"v").keys) == []


def test_refused_change_leaves_its_batch_alone(raw: sqlite3.Connection) -> None:
    """It sees what stands before it, and says why; the others are committed."""
    put, refused, fact = commit_batch(raw, [put_dataset("d"), Refused(), SetFact("f", b"v")], NOW, "cache.db")
    assert isinstance(refused, EntryProtected)
    assert refused.message == f"not at {NOW}: (1,)"
    assert applied(put).stored
    assert applied(fact) == Applied()
    assert select_fact(raw, "f") == b"v"


def test_change_without_content_is_a_defect(raw: sqlite3.Connection) -> None:
    """It goes up, and the transaction is rolled back."""
    with pytest.raises(NotImplementedError):
        commit_batch(raw, [put_dataset("d"), Change()], NOW, "cache.db")
    assert not raw.in_transaction
    assert raw.execute("SELECT count(*) FROM dataset_files").fetchone() == (0,)
