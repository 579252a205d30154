"""Eight processes with warm caches and a daemon that is killed under them: what they see has an order for each key."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic_ns
from typing import Any, NamedTuple

import msgspec
import pytest

from motools.cache import SyncCache
from tests.e2e.histories import OPERATIONS, by_key, carry_out, plans, with_kills
from tests.e2e.history import Record
from tests.linearizability import Operation, find_violation, read

STALE_MAX_NS = 2_000_000_000
"""How long after another program's commit an older answer may still be given."""
OPERATIONS_MIN = 100_000
LOCAL_SHARE_MIN = 0.2
"""Of each process's lookups, those that are answered from its own memory; seen are 0.35 and more."""
EDITS = 4
WATCH_S = 11.0
"""Each edit is noticed within two seconds, and answers are looked at for more than two after the last."""
WATCHED = ["watched-0", "watched-1"]


def check_meaning(records: Sequence[Record], *, kills: int, operations_min: int = OPERATIONS_MIN) -> None:
    """Assert that the history is one that could show a mistake: long, memory was used, and changes came in between."""
    assert sum(record.kills for record in records) == kills
    counts = Counter(each.action for record in records for _, each in record.operations)
    assert counts.total() >= operations_min
    assert counts["read"] > 5 * counts["write"] > 0
    check_memory_was_used(records)


def check_memory_was_used(records: Sequence[Record]) -> None:
    """Assert that each process asked the daemon for clearly fewer lookups than it got answers to."""
    for record in records:
        assert record.asked > 0, "what is remembered was asked for first"
        assert record.lookups - record.asked > LOCAL_SHARE_MIN * record.lookups


def check_order(histories: Mapping[str, Sequence[Operation]]) -> None:
    """Assert that each key's history has an order."""
    violation = find_violation(histories)
    assert violation is None, str(violation)


@pytest.mark.slow
def test_warm_caches_are_linearizable_over_kill_9(shared_dir: Path) -> None:
    """100,000 lookups, writes and clears of twelve keys, the daemon killed four times: each key's have an order."""
    records = carry_out(with_kills(plans(shared_dir), 4))
    check_meaning(records, kills=4)
    check_order(by_key(records))


@pytest.mark.slow
def test_clearing_tables_is_linearizable(shared_dir: Path) -> None:
    """The same where every tenth clear empties the table, or everything."""
    records = carry_out(with_kills(plans(shared_dir, table_clears_per_1000=100), 3))
    check_meaning(records, kills=3)
    check_order(by_key(records))


@pytest.mark.slow
def test_small_index_is_linearizable(shared_dir: Path) -> None:
    """The same where the daemon holds eight of 64 entries in memory, and reads the others while it commits."""
    shared_dir.mkdir()
    (shared_dir / "config.toml").write_text("index_entries_max = 8\n")
    # Nearly each lookup is a question to SQLite: fewer of them take as long.
    few = OPERATIONS_MIN // 3
    records = carry_out(with_kills(plans(shared_dir, operations=few + 1_000, keys=64, clears_per_1000=2), 3))
    check_meaning(records, kills=3, operations_min=few)
    check_order(by_key(records))


@pytest.mark.slow
def test_client_that_does_not_compare_stamps_is_found(shared_dir: Path) -> None:
    """Planted into one of eight processes, it is seen: the check is no formality."""
    made = plans(shared_dir, operations=4000)
    records = carry_out([*made[:-1], msgspec.structs.replace(made[-1], is_blind=True)])
    violation = find_violation(by_key(records))
    assert violation is not None
    assert made[-1].process in {each.process for each in violation.operations if each.action == "read"}


# A row that another program changes.


class Edit(NamedTuple):
    """A value that another program stored, or the one before it."""

    value: str
    begun_ns: int
    committed_ns: int


def stale_reads(edits: Sequence[Edit], operations: Sequence[Operation]) -> list[Operation]:
    """The reads that began two seconds after an edit and show an older one, or one that was still to come."""
    found = []
    for each in operations:
        promised = sum(edit.committed_ns + STALE_MAX_NS < each.invoked_ns for edit in edits) - 1
        if each.value not in {edit.value for edit in edits[max(0, promised) :] if edit.begun_ns < each.responded_ns}:
            found.append(each)
    return found


def edit_again_and_again(directory: Path, edits: list[Edit]) -> None:
    """Change the watched rows as somebody does with a program of their own; again as soon as the daemon has noticed."""
    with SyncCache(directory, memory_entries=0) as cache:
        for number in range(EDITS):
            value = f"edited-{number}"
            begun_ns = monotonic_ns()
            with closing(sqlite3.connect(directory / "cache.db")) as connection, connection:
                connection.execute("UPDATE dataset_files SET file_id = ? WHERE dataset_hash LIKE 'watched-%'", (value,))
            edits.append(Edit(value, begun_ns, monotonic_ns()))
            while cache.get_file_id(WATCHED[0]) != value:
                assert monotonic_ns() < edits[-1].committed_ns + STALE_MAX_NS
                cache.set_file_id("pace", value)  # waits for the disk: no need to look more often


@pytest.mark.slow
def test_row_changed_by_another_program_is_not_stale_after_two_seconds(shared_dir: Path) -> None:
    """UPDATE in cache.db under warm clients: each answer two seconds later is the new one, in every process."""
    with SyncCache(shared_dir) as cache:
        for key in WATCHED:
            cache.set_file_id(key, "before")
    edits = [Edit("before", 0, 0)]
    options: dict[str, Any] = {"watched_keys": WATCHED, "clears_per_1000": 0, "duration_s": WATCH_S, "timeout_s": 30.0}
    made = plans(shared_dir, operations=100 * OPERATIONS, **options)
    records = carry_out(made, lambda: edit_again_and_again(shared_dir, edits))
    check_memory_was_used(records)
    histories = by_key(records)
    for key in WATCHED:
        operations = histories.pop(key)
        assert stale_reads(edits, operations) == []
        after_all = [each for each in operations if each.invoked_ns > edits[-1].committed_ns + STALE_MAX_NS]
        assert {each.process for each in after_all} == {plan.process for plan in made}
    check_order(histories)


def test_stale_answer_after_an_edit_is_found() -> None:
    """A read that began later than two seconds after an edit shows it, or a later one that has begun."""
    second_ns = 1_000_000_000
    edits = [Edit("a", 0, 0), Edit("b", 5 * second_ns, 6 * second_ns), Edit("c", 9 * second_ns, 10 * second_ns)]

    def is_stale(value: str, invoked_s: int, responded_s: int) -> bool:
        return stale_reads(edits, [read(value, invoked_s * second_ns, responded_s * second_ns)]) != []

    assert is_stale("b", 3, 4)
    assert not is_stale("b", 4, 6)
    assert not is_stale("a", 7, 20)
    assert is_stale("a", 9, 20)
    assert not is_stale("b", 11, 12)
    assert is_stale("b", 13, 14)
    assert not is_stale("c", 13, 14)
