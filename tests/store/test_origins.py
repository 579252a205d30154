"""Origins are kept once, under their own name, for as long as anything names them."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from motoolsd.store.history import bury
from motoolsd.store.origins import FORGOTTEN_MAX, ORIGINS_KEPT, ForgetOrigins, SaveOrigin, select_origin
from motoolsd.store.rows import TABLES
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import PutDataset
from motoolsd.wire.origins import Origin, origin_id
from motoolsd.wire.reasons import Reason
from tests.samples import NOW, committed, put_dataset, put_evals, put_model

ANN = Origin(user="ann", uid=1000, host="node-1", pid=42, command=("python", "train.py"), git_dirty=True)
LONG_AGO = "2026-01-30 23:59:58.999"
"""A day before `NOW`, and a second."""
A_DAY_AGO = "2026-01-30 23:59:59.123"
LOOK = ForgetOrigins(kept=0)


def process(number: int) -> Origin:
    """One of many."""
    return Origin(pid=number)


def stored(raw: sqlite3.Connection) -> set[bytes]:
    """The ids that are there."""
    return {row[0] for row in raw.execute("SELECT id FROM motoolsd_origins")}


def age(raw: sqlite3.Connection, seen_at: str = LONG_AGO) -> None:
    """Let all origins be of then."""
    raw.execute("UPDATE motoolsd_origins SET seen_at = ?", (seen_at,))


def forget(raw: sqlite3.Connection, change: ForgetOrigins = LOOK) -> int:
    """How many were forgotten."""
    (outcome,) = committed(raw, change)
    return outcome.number


def put_by(origin: Origin, dataset_hash: str = "d") -> PutDataset:
    """A dataset of a process."""
    return msgspec.structs.replace(put_dataset(dataset_hash), origin=origin_id(origin))


def test_origin_is_read_as_it_was_told(raw: sqlite3.Connection) -> None:
    """Under the id that clients write with."""
    committed(raw, SaveOrigin(ANN))
    assert select_origin(raw, origin_id(ANN)) == ANN
    assert select_origin(raw, origin_id(process(1))) is None


def test_origin_that_is_told_again_is_kept_once(raw: sqlite3.Connection) -> None:
    """A process tells it on each connection; it is alive, and so not to be forgotten."""
    committed(raw, SaveOrigin(ANN))
    age(raw)
    committed(raw, SaveOrigin(ANN))
    assert forget(raw) == 0
    assert stored(raw) == {origin_id(ANN)}


@pytest.mark.parametrize("damage", [b"", b"\xff\xff", b"\x81\xa3pid\xff", b"\xc0", "text", 7, 1.5])
def test_damaged_origin_counts_as_absent(raw: sqlite3.Connection, damage: object) -> None:
    """It explains an entry; without it the entry still hits. Told again, it is whole."""
    committed(raw, SaveOrigin(ANN))
    raw.execute("UPDATE motoolsd_origins SET origin = ?", (damage,))
    assert select_origin(raw, origin_id(ANN)) is None
    committed(raw, SaveOrigin(ANN))
    assert select_origin(raw, origin_id(ANN)) == ANN


def test_what_nothing_names_is_forgotten_after_a_day(raw: sqlite3.Connection) -> None:
    """Not earlier: its first write may be on its way."""
    committed(raw, SaveOrigin(ANN))
    age(raw, A_DAY_AGO)
    assert forget(raw) == 0
    age(raw)
    assert forget(raw) == 1
    assert stored(raw) == set()


def test_what_an_entry_names_stays(raw: sqlite3.Connection) -> None:
    """In each of the three tables, and in the history of keys that have no entry."""
    for number in range(5):
        committed(raw, SaveOrigin(process(number)))
    dataset, model, evaluation = (origin_id(process(number)) for number in range(3))
    committed(
        raw,
        msgspec.structs.replace(put_dataset("d"), origin=dataset),
        msgspec.structs.replace(put_model(), origin=model),
        msgspec.structs.replace(put_evals({"t": b"/log"}), origin=evaluation),
    )
    bury(raw, [(Kind.MODEL, "gone")], Reason.CLEARED, NOW, origin=origin_id(process(3)))
    age(raw)
    assert forget(raw) == 1
    assert stored(raw) == {dataset, model, evaluation, origin_id(process(3))}


def test_origin_goes_when_its_last_entry_is_another_process_s(raw: sqlite3.Connection) -> None:
    """Who stored it last is who is named."""
    committed(raw, SaveOrigin(ANN), SaveOrigin(process(1)))
    committed(raw, put_by(ANN))
    committed(raw, put_by(process(1)))
    age(raw)
    assert forget(raw) == 1
    assert stored(raw) == {origin_id(process(1))}


def test_what_the_trash_names_stays(raw: sqlite3.Connection) -> None:
    """An entry that is put back still says who made it; one that is damaged names nobody."""
    committed(raw, SaveOrigin(ANN), SaveOrigin(process(1)))
    packed = msgspec.msgpack.encode({"row": {"origin": origin_id(ANN), "dataset_hash": "d"}, "files": []})
    nobody = msgspec.msgpack.encode({"row": {"origin": None}, "files": []})
    for number, entry in enumerate([packed, nobody, packed[:-30], "text"]):
        raw.execute(
            "INSERT INTO motoolsd_removed_entries (removal, number, kind, key, entry) VALUES (1, ?, 'dataset', 'd', ?)",
            (number, entry),
        )
    age(raw)
    assert forget(raw) == 1
    assert stored(raw) == {origin_id(ANN)}


def test_few_are_not_looked_at(raw: sqlite3.Connection) -> None:
    """To see what is named all rows are read: not for the sake of a thousand origins."""
    committed(raw, *(SaveOrigin(process(number)) for number in range(ORIGINS_KEPT)))
    age(raw)
    assert forget(raw, ForgetOrigins()) == 0
    committed(raw, SaveOrigin(ANN))
    age(raw)
    assert forget(raw, ForgetOrigins()) == ORIGINS_KEPT + 1


def test_those_in_use_are_not_looked_at_again_and_again(raw: sqlite3.Connection) -> None:
    """Only when as many have come as were in use at the last look."""
    for number in range(3):
        committed(raw, SaveOrigin(process(number)), put_by(process(number), f"d{number}"))
    age(raw)
    assert forget(raw) == 0
    statements: list[str] = []
    for number in range(3, 6):
        committed(raw, SaveOrigin(process(number)))
        age(raw)
        raw.set_trace_callback(statements.append)
        assert forget(raw) == 0
        raw.set_trace_callback(None)
    assert not [one for one in statements if any(table in one for table in TABLES.values())]
    committed(raw, SaveOrigin(process(6)))
    age(raw)
    assert forget(raw) == 4
    assert len(stored(raw)) == 3


def test_no_look_forgets_more_than_its_share(raw: sqlite3.Connection) -> None:
    """The writer has others waiting; the rest goes with the next look."""
    raw.executemany(
        "INSERT INTO motoolsd_origins (id, origin, seen_at) VALUES (?, x'80', ?)",
        [(number.to_bytes(16), LONG_AGO) for number in range(FORGOTTEN_MAX + 1)],
    )
    assert forget(raw) == FORGOTTEN_MAX
    assert forget(raw) == 1
