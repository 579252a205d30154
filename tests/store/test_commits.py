"""A batch commits as a whole; a bad request in it fails alone; nobody is told before the COMMIT."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, cast

import pytest

from motoolsd.core.errors import NoRoom, StorageFailed
from motoolsd.store import commits
from motoolsd.store.commits import CommitUnknown, commit_batch, commit_waiting, frees_room
from motoolsd.store.facts import SetFact
from motoolsd.store.outcomes import Applied, Outcome
from motoolsd.store.removals import DropRemoval, SetRemovalState, State
from motoolsd.store.statistics import UseReport
from motoolsd.store.writes import BatchItem, apply_batch
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import Cleared, Stored
from tests.fakes import FailingConnection
from tests.samples import NOW, Batches, applied, as_retry, clear, execute, put_dataset, put_evals, put_model


def commit(raw: sqlite3.Connection, *items: BatchItem) -> list[Outcome]:
    """Commit a batch."""
    return list(commit_batch(raw, items, NOW, "cache.db"))


def datasets(raw: sqlite3.Connection) -> dict[bytes, bytes]:
    """All datasets."""
    return dict(raw.execute("SELECT dataset_hash, file_id FROM dataset_files").fetchall())


@pytest.fixture
def transactions(raw: sqlite3.Connection) -> Iterator[list[str]]:
    """Every COMMIT and ROLLBACK of the connection, as they come."""
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement in {"COMMIT", "ROLLBACK"}:
            seen.append(statement)

    raw.set_trace_callback(trace)
    yield seen
    raw.set_trace_callback(None)


@pytest.fixture
def picky(raw: sqlite3.Connection, database: str) -> sqlite3.Connection:
    """A database that refuses the dataset 'bad'."""
    execute(
        database,
        "CREATE TRIGGER picky BEFORE INSERT ON dataset_files WHEN NEW.dataset_hash = 'bad'"
        " BEGIN SELECT RAISE(ABORT, 'planted'); END;",
    )
    return raw


def test_batch_is_one_transaction(raw: sqlite3.Connection, transactions: list[str]) -> None:
    """However many requests wait, the disk is waited for once."""
    outcomes = commit(raw, put_dataset("a"), put_model(lr=1), put_evals({"t": b"log"}), clear(Kind.EVAL))
    assert transactions == ["COMMIT"]
    assert [applied(outcome).reply for outcome in outcomes] == [Stored(), Stored(), Stored(), Cleared(evals=1)]


def test_bad_request_fails_alone(picky: sqlite3.Connection) -> None:
    """Its batch mates are applied and answered as if it had not been there."""
    good, bad, also_good = commit(picky, put_dataset("a"), put_dataset("bad"), put_dataset("b"))
    assert applied(good).reply == applied(also_good).reply == Stored()
    assert isinstance(bad, StorageFailed)
    assert bad.outcome_known
    assert "planted" in bad.message
    assert datasets(picky).keys() == {b"a", b"b"}


def test_failed_request_is_carried_out_when_it_is_retried(picky: sqlite3.Connection, database: str) -> None:
    """A failure is not stored as a reply: once the cause is gone, the same request works."""
    bad = put_dataset("bad")
    commit(picky, put_dataset("a"), bad)
    execute(database, "DROP TRIGGER picky;")
    assert applied(commit(picky, as_retry(bad))[0]).reply == Stored()
    assert b"bad" in datasets(picky)


def test_failed_request_takes_nothing_along(picky: sqlite3.Connection, database: str) -> None:
    """Of one request with several rows, either all are stored or none."""
    execute(
        database,
        "CREATE TRIGGER picky_evals BEFORE INSERT ON eval_results WHEN NEW.task_id = 'bad'"
        " BEGIN SELECT RAISE(ABORT, 'planted'); END;",
    )
    (outcome,) = commit(picky, put_evals({"good": b"1", "bad": b"2"}))
    assert isinstance(outcome, StorageFailed)
    assert picky.execute("SELECT count(*) FROM eval_results").fetchone() == (0,)


def test_failing_commit_is_an_unknown_outcome(raw: sqlite3.Connection) -> None:
    """Whether the batch is on disk is not known: everybody in it is told so, and a retry finds what was stored."""
    request = put_dataset("a")
    with pytest.raises(CommitUnknown) as caught:
        commit_batch(FailingConnection(raw, "COMMIT"), [request], NOW, "cache.db")  # type: ignore[arg-type]
    assert caught.value.failure.detail == {"outcome_known": False}
    assert applied(commit(raw, as_retry(request))[0]).stored == []
    assert datasets(raw) == {b"a": b"file"}


def test_defect_leaves_no_transaction_open(raw: sqlite3.Connection) -> None:
    """An exception that is none of SQLite's rolls back and goes on up; the next batch works."""
    usage = UseReport(hour=0, hits={Kind.EVAL: None})  # type: ignore[dict-item]
    with pytest.raises(AttributeError):
        commit(raw, put_dataset("a"), usage)
    assert not raw.in_transaction
    assert isinstance(commit(raw, put_dataset("b"))[0], Applied)
    assert datasets(raw).keys() == {b"b"}


class Diary(Batches):
    """Batches that write down when one was told of, beside what the connection did."""

    def __init__(self, diary: list[str], *batches: Sequence[BatchItem]) -> None:
        """Write into the list of a connection's transactions."""
        super().__init__(*batches)
        self._diary = diary

    def done(self, outcomes: Sequence[Outcome]) -> None:
        """Write it down."""
        self._diary.append("told")
        super().done(outcomes)


def test_batch_is_told_of_after_its_commit_and_before_the_next(
    raw: sqlite3.Connection, transactions: list[str]
) -> None:
    """Telling falls into the time in which the disk is busy with the next batch; the last is told of at once."""
    source = Diary(transactions, [put_dataset("a"), put_dataset("b")], [put_dataset("c")], [put_dataset("d")])
    commit_waiting(raw, source, "cache.db")
    assert transactions == ["COMMIT", "told", "COMMIT", "told", "COMMIT", "told"]
    assert [len(outcomes) for outcomes in source.told] == [2, 1, 1]


@pytest.mark.parametrize(
    "slow",
    [clear(Kind.MODEL), UseReport(hour=0, hits={Kind.MODEL: {"k": 1}}), put_evals({f"t{n}": b"1" for n in range(100)})],
)
def test_nobody_waits_for_the_statements_of_a_slow_request(
    raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, slow: BatchItem
) -> None:
    """What is committed is told of before a table is cleared, which may take seconds."""
    seen: list[int] = []
    source = Batches([put_dataset("a")], [slow])

    def apply(connection: sqlite3.Connection, items: Sequence[BatchItem], now: str) -> list[Outcome]:
        seen.append(len(source.told))
        return apply_batch(connection, items, now)

    monkeypatch.setattr(commits, "apply_batch", apply)
    commit_waiting(raw, source, "cache.db")
    assert seen == [0, 1]


def test_transaction_that_cannot_begin_is_refused_alone(raw: sqlite3.Connection) -> None:
    """The batch before it is told of, the batch after it is committed."""
    source = Batches([put_dataset("a")], [put_dataset("b")])
    commit_waiting(FailingConnection(raw, "BEGIN IMMEDIATE"), source, "cache.db")  # type: ignore[arg-type]
    (refused,), (good,) = source.told
    assert isinstance(refused, StorageFailed)
    assert refused.outcome_known
    assert applied(good).reply == Stored()
    assert datasets(raw) == {b"b": b"file"}


def test_unknown_commit_leaves_its_own_batch_untold(raw: sqlite3.Connection) -> None:
    """What was committed before it is told of; the thread takes nothing after it."""

    class Second(FailingConnection):
        def execute(self, statement: str, parameters: object = ()) -> object:
            if statement == "COMMIT" and not datasets(raw).keys() >= {b"b"}:
                return raw.execute(statement)
            return super().execute(statement, parameters)

    source = Batches([put_dataset("a")], [put_dataset("b")], [put_dataset("c")])
    with pytest.raises(CommitUnknown):
        commit_waiting(Second(raw, "COMMIT"), source, "cache.db")  # type: ignore[arg-type]
    assert len(source.told) == 1
    assert datasets(raw).keys() == {b"a", b"b"}


def test_stay_in_the_thread_is_bounded(raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under constant writes others have their turn on the connection; what was committed is told of before."""
    monkeypatch.setattr(commits, "BURST_BATCHES_MAX", 2)
    source = Batches(*([put_dataset(name)] for name in "abc"))
    commit_waiting(raw, source, "cache.db")
    assert len(source.told) == 2
    commit_waiting(raw, source, "cache.db")
    assert len(source.told) == 3


FULL = "database or disk is full"


def fill_disk(raw: sqlite3.Connection) -> None:
    """Let the database take no further page."""
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    raw.execute(f"PRAGMA max_page_count = {pages}")


def room_maker(raw: sqlite3.Connection, asked: list[int]) -> Callable[[], bool]:
    """Gives room back, once."""

    def make_room() -> bool:
        asked.append(1)
        raw.execute("PRAGMA max_page_count = 100000")
        return len(asked) == 1

    return make_room


def test_put_on_a_full_disk_is_refused_and_takes_nothing_of_what_is_kept(raw: sqlite3.Connection) -> None:
    """Nor does it take others along: what has room is stored."""
    fill_disk(raw)
    asked: list[int] = []
    items = [put_dataset("large", b"x" * 100_000), put_dataset("small")]
    large, small = commit_batch(raw, items, NOW, "cache.db", make_room=room_maker(raw, asked))
    assert isinstance(large, NoRoom)
    assert large.outcome_known
    assert isinstance(small, Applied)
    assert not asked
    assert list(datasets(raw)) == [b"small"]


def test_what_frees_room_has_a_second_try_with_what_is_kept(raw: sqlite3.Connection) -> None:
    """A clean-up has to be written down before it frees anything."""
    fill_disk(raw)
    asked: list[int] = []
    plan = SetFactThatFrees("plan", b"x" * 100_000)
    (outcome,) = commit_batch(raw, [plan], NOW, "cache.db", make_room=room_maker(raw, asked))
    assert isinstance(outcome, Applied)
    assert len(asked) == 1


def test_what_frees_room_is_refused_where_nothing_is_kept(raw: sqlite3.Connection) -> None:
    """It is tried once."""
    fill_disk(raw)
    (outcome,) = commit_batch(raw, [SetFactThatFrees("plan", b"x" * 100_000)], NOW, "cache.db")
    assert isinstance(outcome, NoRoom)


class SetFactThatFrees(SetFact, frozen=True):
    """Needs as much room as one likes."""

    frees_room: ClassVar[bool] = True


class FullAtCommit:
    """A connection whose COMMIT finds no room, so many times. SQLite rolls back by itself then."""

    def __init__(self, raw: sqlite3.Connection, times: int) -> None:
        """Wrap a connection."""
        self._raw = raw
        self._times = times

    def __getattr__(self, name: str) -> object:
        """Everything else is the connection's own."""
        return getattr(self._raw, name)

    def execute(self, statement: str, parameters: object = ()) -> object:
        """Execute, or fail."""
        if statement != "COMMIT" or not self._times:
            return self._raw.execute(statement, parameters)  # type: ignore[arg-type]
        self._times -= 1
        self._raw.execute("ROLLBACK")
        error = sqlite3.OperationalError(FULL)
        error.sqlite_errorname = "SQLITE_FULL"
        raise error


def test_commit_without_room_has_stored_nothing_for_sure(raw: sqlite3.Connection) -> None:
    """Each request has a try of its own then, and what is refused is refused with a known outcome."""
    full = cast("sqlite3.Connection", FullAtCommit(raw, times=2))
    first, second = commit_batch(full, [put_dataset("a"), put_dataset("b")], NOW, "cache.db")
    assert isinstance(first, NoRoom)
    assert first.outcome_known
    assert isinstance(second, Applied)
    assert list(datasets(raw)) == [b"b"]


def test_only_what_frees_room_may_take_of_it() -> None:
    """Plain writes, leases and counts never."""
    freeing: list[BatchItem] = [clear(Kind.EVAL), DropRemoval(1), SetRemovalState(1, State.PURGING)]
    others: list[BatchItem] = [put_dataset("a"), put_model(lr=1), SetFact("a", b"b")]
    assert [*map(frees_room, freeing), *map(frees_room, others)] == [True, True, True, False, False, False]
