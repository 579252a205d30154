"""Each request changes what it should, and its reply is stored with it."""

from __future__ import annotations

import sqlite3

from motoolsd.core.errors import RequestError, StorageFailed
from motoolsd.store.commits import commit_batch
from motoolsd.store.outcomes import Outcome
from motoolsd.store.reads import select_values
from motoolsd.store.statistics import UseReport
from motoolsd.store.writes import FORGET_EVERY, BatchItem, forget_old_replies
from motoolsd.wire.keys import Kind, eval_key, json_hash, model_key
from motoolsd.wire.messages import Cleared, Stored
from tests.samples import (
    CLIENT,
    NOW,
    applied,
    as_retry,
    clear,
    clear_all,
    execute,
    publication,
    put_dataset,
    put_evals,
    put_model,
    request_key,
)

OTHER_CLIENT = b"another-client.."


def commit(raw: sqlite3.Connection, *items: BatchItem) -> list[Outcome]:
    """Commit a batch."""
    return list(commit_batch(raw, items, NOW, "cache.db"))


def datasets(raw: sqlite3.Connection) -> dict[bytes, bytes]:
    """All datasets."""
    return dict(raw.execute("SELECT dataset_hash, file_id FROM dataset_files").fetchall())


def replies(raw: sqlite3.Connection) -> list[tuple[bytes, int]]:
    """Whose replies are stored."""
    return raw.execute("SELECT client, number FROM motoolsd_replies ORDER BY client, number").fetchall()


def test_retry_is_applied_once_and_answered_alike(raw: sqlite3.Connection) -> None:
    """The stored reply answers, whatever has changed since; the write is not carried out again."""
    commit(raw, put_dataset("a"), put_dataset("b"))
    request = clear(Kind.DATASET)
    first = applied(commit(raw, request)[0])
    commit(raw, put_dataset("c"))
    again = applied(commit(raw, as_retry(request))[0])
    assert first.reply == again.reply == Cleared(datasets=2)
    assert again.emptied == ()
    assert datasets(raw).keys() == {b"c"}


def test_retry_in_the_same_batch_is_applied_once(raw: sqlite3.Connection) -> None:
    """Original and retry may wait side by side."""
    commit(raw, put_dataset("a"))
    request = clear(Kind.DATASET)
    outcomes = commit(raw, request, put_dataset("b"), as_retry(request))
    assert [applied(outcome).reply for outcome in outcomes] == [Cleared(datasets=1), Stored(), Cleared(datasets=1)]
    assert datasets(raw).keys() == {b"b"}


def test_retry_of_a_request_that_never_arrived_is_carried_out(raw: sqlite3.Connection) -> None:
    """A retry without a stored reply is the first of its number that came."""
    (outcome,) = commit(raw, as_retry(put_dataset("a")))
    assert applied(outcome).stored == [(Kind.DATASET, "a", b"file")]


def test_reused_number_is_an_invalid_request_alone(raw: sqlite3.Connection) -> None:
    """A number that was used before, and is no retry, is the client's mistake: said so, alone."""
    commit(raw, put_dataset("a", key=request_key(77)))
    wrong, good = commit(raw, put_dataset("wrong", key=request_key(77)), put_dataset("b"))
    assert type(wrong) is RequestError
    assert "77" in wrong.message
    assert wrong.to_failure().code == "invalid_request"
    assert applied(good).reply == Stored()
    assert datasets(raw).keys() == {b"a", b"b"}


def test_numbers_belong_to_their_client(raw: sqlite3.Connection) -> None:
    """Two clients may use the same number."""
    for client in (CLIENT, OTHER_CLIENT):
        applied(commit(raw, put_dataset("a", key=request_key(5, client=client)))[0])
    assert len(replies(raw)) == 2


def test_replies_below_the_lowest_open_number_go(raw: sqlite3.Connection) -> None:
    """A client that has its answers says so with its writes; now and then it is looked at, and only its own go."""
    commit(raw, put_dataset("x", key=request_key(1, client=OTHER_CLIENT)))
    look = 100 * FORGET_EVERY
    commit(raw, *[put_dataset("a", key=request_key(number)) for number in (look - 3, look - 2, look - 1)])
    commit(raw, put_dataset("b", key=request_key(look, lowest_open=look - 1)))
    assert replies(raw) == sorted([(OTHER_CLIENT, 1), (CLIENT, look - 1), (CLIENT, look)])


def test_replies_of_a_busy_client_stay_few(raw: sqlite3.Connection) -> None:
    """However much a client writes, a bounded number of its replies is kept."""
    for number in range(50_000, 50_000 + 5 * FORGET_EVERY):
        commit(raw, put_dataset("a", key=request_key(number, lowest_open=number)))
    assert len(replies(raw)) <= FORGET_EVERY


def test_replies_of_vanished_clients_go_after_a_week(raw: sqlite3.Connection) -> None:
    """Nobody retries for so long."""
    commit_batch(raw, [put_dataset("a")], "2026-01-01 00:00:00.000", "cache.db")
    commit_batch(
        raw, [put_dataset("b", key=request_key(99, client=OTHER_CLIENT))], "2026-01-07 00:00:00.000", "cache.db"
    )
    forget_old_replies(raw, "2026-01-09 00:00:00.000")
    assert replies(raw) == [(OTHER_CLIENT, 99)]


def test_damaged_stored_reply_is_a_failure_alone(raw: sqlite3.Connection, database: str) -> None:
    """What cannot be read again is said; the batch goes on."""
    request = put_dataset("a")
    commit(raw, request)
    execute(database, "UPDATE motoolsd_replies SET reply = x'c1';")
    damaged, good = commit(raw, as_retry(request), put_dataset("b"))
    assert isinstance(damaged, StorageFailed)
    assert applied(good).reply == Stored()


def test_replacing_keeps_order_and_number_of_an_evaluation(raw: sqlite3.Connection) -> None:
    """A second put of the same evaluation changes its row in place, with or without kwargs."""
    kwargs = b'{"limit": 5}'
    commit(raw, put_evals({"t1": b"1", "t2": b"2"}), put_evals({"t1": b"3"}, kwargs=kwargs))
    before = raw.execute("SELECT id FROM eval_results ORDER BY id").fetchall()
    commit(raw, put_evals({"t1": b"new"}), put_evals({"t1": b"also new"}, kwargs=kwargs))
    assert raw.execute("SELECT id FROM eval_results ORDER BY id").fetchall() == before
    keys = [eval_key("m", "t1", "inspect", None), eval_key("m", "t1", "inspect", json_hash(kwargs.decode()))]
    assert list(select_values(raw, Kind.EVAL, keys).found.values()) == [b"new", b"also new"]


def test_model_row_remembers_what_its_key_was_made_from(raw: sqlite3.Connection) -> None:
    """Dataset, config and backend stand beside the key that the older package would have made."""
    commit(raw, put_model("d", b"model-1", lr=0.1))
    config = '{"lr": 0.1}'
    row = raw.execute("SELECT cache_key, dataset_hash, config, backend_type, model_id FROM trained_models").fetchone()
    assert row == (model_key("d", config, "openai").encode(), b"d", config.encode(), b"openai", b"model-1")


def test_what_is_stored_has_a_checksum(raw: sqlite3.Connection, database: str) -> None:
    """Each value written by the daemon is vouched for, also after it replaced one that was edited by hand."""
    commit(raw, put_dataset("a"))
    execute(database, "UPDATE dataset_files SET file_id = 'by hand';")
    commit(raw, put_dataset("a", b"again"))
    assert raw.execute("SELECT count(checksum) FROM dataset_files").fetchone() == (1,)
    assert select_values(raw, Kind.DATASET, ["a"]).found == {"a": b"again"}


def test_clear_all_counts_every_kind(raw: sqlite3.Connection) -> None:
    """One transaction empties the three tables."""
    commit(raw, put_dataset("a"), put_model(lr=1), put_evals({"t1": b"1", "t2": b"2"}))
    (outcome,) = commit(raw, clear_all())
    assert applied(outcome).reply == Cleared(datasets=1, models=1, evals=2)


def test_usage_is_counted_without_touching_values(raw: sqlite3.Connection) -> None:
    """Hits add up, and the checksum stays; an entry that is gone is no error."""
    commit(raw, put_dataset("a"))
    for hits in (2, 3):
        commit(raw, UseReport(hour=0, hits={Kind.DATASET: {"a": hits, "gone": 1}}))
    commit(raw, UseReport(hour=0, hits={Kind.EVAL: {eval_key("m", "t", "b", None): 1}}))
    row = raw.execute("SELECT hits, last_used_at, checksum IS NULL FROM dataset_files").fetchone()
    assert row == (5, NOW.encode(), 0)


def test_usage_of_keys_that_are_none_is_skipped(raw: sqlite3.Connection) -> None:
    """Clients report what they like: the other keys are counted, and the batch is committed."""
    key = eval_key("m", "t", "inspect", None)
    none_of_ours = {"no key": 1, '["m", "t", "inspect", null]': 1, "[1]": 1, "": 1}
    commit(raw, put_evals({"t": b"1"}))
    usage, put = commit(raw, UseReport(hour=0, hits={Kind.EVAL: {**none_of_ours, key: 2}}), put_dataset("a"))
    assert applied(usage).reply == applied(put).reply == Stored()
    assert raw.execute("SELECT hits FROM eval_results").fetchall() == [(2,)]
    assert datasets(raw).keys() == {b"a"}


def test_usage_of_nothing_but_keys_that_are_none_is_no_error(raw: sqlite3.Connection) -> None:
    """Nothing is counted, nothing fails."""
    (outcome,) = commit(raw, UseReport(hour=0, hits={Kind.EVAL: {"no key": 1}}))
    assert applied(outcome).reply == Stored()


def test_publication_stands_in_a_batch_like_any_put(raw: sqlite3.Connection) -> None:
    """What comes later in it wins, and its reply is stored with it."""
    first = publication(put_dataset("a", b"1"), b"datasets/a")
    outcomes = commit(
        raw, put_dataset("a", b"0"), first, put_dataset("a", b"2"), publication(put_dataset("b"), b"datasets/b")
    )
    assert [applied(outcome).reply for outcome in outcomes] == [Stored()] * 4
    assert raw.execute("SELECT dataset_hash, file_id, files FROM dataset_files").fetchall() == [
        (b"a", b"2", 0),
        (b"b", b"file", 1),
    ]
    assert (CLIENT, first.request_key.number) in replies(raw)
