"""A cache with entries, their files and orphans, and what must be true of it whatever was killed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from motoolsd.wire.cleaning import (
    ApplyPlan,
    Cleaned,
    Criteria,
    EmptyTrash,
    ListTrash,
    MakePlan,
    PlanPage,
    TrashPage,
    TrashRow,
    Undo,
)
from motoolsd.wire.fields import Page
from motoolsd.wire.keys import Kind, eval_key, model_key
from motoolsd.wire.messages import Failure, Found, Lookup, PutDataset, PutEvals, PutModel, Reply, Request, RequestKey
from tests.daemons import BlockingGuest

R = TypeVar("R", bound=Reply)

ENTRIES = 3
"""Of each kind."""
KEYS: dict[Kind, list[str]] = {
    Kind.DATASET: [f"{number:064x}" for number in range(ENTRIES)],
    Kind.MODEL: [model_key("d", f'{{"n": {number}}}', "b") for number in range(ENTRIES)],
    Kind.EVAL: [eval_key(f"m{number}", "t", "b", None) for number in range(ENTRIES)],
}
PURGE_LOOKS = 20_000
"""Questions to the daemon, one after the other, within which it has freed what was on its way out."""
ORPHANS = ("runs/nobody/checkpoint", "evals/stray.json")
EVERYTHING = Criteria(kinds=tuple(Kind), orphans=True, orphan_age_s=0)


def collect(guest: BlockingGuest, request: Request, last: type[R]) -> tuple[list[Reply], R]:
    """All replies to a request, and the last, which is of a type."""
    replies = [guest.ask(request)]
    while type(replies[-1]) is not Failure and isinstance(replies[-1], Page) and not replies[-1].is_last:
        replies.append(guest.receive())
    assert isinstance(replies[-1], last), replies[-1]
    return replies, replies[-1]


def path_of(kind: Kind, number: int) -> str:
    """What an entry owns."""
    return {
        Kind.DATASET: f"datasets/{KEYS[Kind.DATASET][number]}.jsonl",
        Kind.MODEL: f"runs/job{number}",
        Kind.EVAL: f"evals/m{number}/t.json",
    }[kind]


def files_of(kind: Kind, number: int) -> dict[str, bytes]:
    """The files of an entry with their content."""
    path = path_of(kind, number)
    if kind is Kind.MODEL:
        return {f"{path}/{name}": f"{kind} {number} {name}".encode() * 50 for name in ("a", "b/c", "b/d")}
    return {path: f"{kind} {number}".encode() * 100}


def build(directory: Path, guest: BlockingGuest) -> None:
    """Fill an empty cache."""
    for kind in Kind:
        for number in range(ENTRIES):
            for name, content in files_of(kind, number).items():
                _write(directory / name, content)
    for name in ORPHANS:
        _write(directory / name, b"nobody's")
    for request in _puts():
        assert not isinstance(guest.ask(request), Failure)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _puts() -> list[Request]:
    found: list[Request] = []
    for number in range(ENTRIES):
        owned = {kind: path_of(kind, number).encode() for kind in Kind}
        key = RequestKey(bytes(15) + bytes([number]), 1, 1)
        dataset = KEYS[Kind.DATASET][number]
        found.append(PutDataset(request_key=key, dataset_hash=dataset, file_id=b"f", files=[owned[Kind.DATASET]]))
        key = RequestKey(bytes(15) + bytes([number]), 2, 1)
        config = f'{{"n": {number}}}'.encode()
        found.append(
            PutModel(
                request_key=key,
                dataset_hash="d",
                config=config,
                backend_type="b",
                model_id=f"m{number}".encode(),
                files=[owned[Kind.MODEL]],
            )
        )
        key = RequestKey(bytes(15) + bytes([number]), 3, 1)
        log = owned[Kind.EVAL]
        found.append(
            PutEvals(request_key=key, model_id=f"m{number}", backend_type="b", logs={"t": log}, files={"t": log})
        )
    return found


def clean_up(guest: BlockingGuest) -> Cleaned:
    """Remove everything, into the trash."""
    _, plan = collect(guest, MakePlan(criteria=EVERYTHING), PlanPage)
    return collect(guest, ApplyPlan(plan_id=plan.plan_id), Cleaned)[1]


def free_at_once(guest: BlockingGuest) -> Cleaned:
    """Remove everything, for good."""
    _, plan = collect(guest, MakePlan(criteria=EVERYTHING), PlanPage)
    return collect(guest, ApplyPlan(plan_id=plan.plan_id, to_trash=False), Cleaned)[1]


def undo(guest: BlockingGuest) -> Cleaned:
    """Put back the latest."""
    return collect(guest, Undo(), Cleaned)[1]


def empty_trash(guest: BlockingGuest) -> Cleaned:
    """Free it."""
    return collect(guest, EmptyTrash(), Cleaned)[1]


def trash_of(guest: BlockingGuest) -> TrashPage:
    """What lies in the trash."""
    return collect(guest, ListTrash(), TrashPage)[1]


def settled_trash(guest: BlockingGuest) -> list[TrashRow]:
    """What lies in the trash once everything that was on its way out is gone."""
    for _ in range(PURGE_LOOKS):
        rows = trash_of(guest).items
        if all(row.state != "purging" for row in rows):
            return rows
    raise AssertionError(rows)


def is_hit(guest: BlockingGuest, kind: Kind, number: int) -> bool:
    """Whether an entry is found."""
    reply = guest.ask(Lookup(kind=kind, keys=[KEYS[kind][number]]))
    assert isinstance(reply, Found), reply
    return reply.values[0] is not None


def saved_keys(directory: Path) -> set[tuple[str, str]]:
    """The entries whose rows lie in the trash; read beside a daemon that has stopped."""
    with closing(sqlite3.connect(f"file:{directory}/cache.db?mode=ro", uri=True)) as connection:
        return set(connection.execute("SELECT kind, key FROM motoolsd_removed_entries"))


def saved_paths(directory: Path) -> dict[str, Path]:
    """Where the trash keeps what was at a path."""
    with closing(sqlite3.connect(f"file:{directory}/cache.db?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT removal, number, path FROM motoolsd_removed_paths").fetchall()
    return {path.decode(): directory / "trash" / str(removal) / str(number) for removal, number, path in rows}


def is_whole_at(place: Path, kind: Kind, number: int) -> bool:
    """Whether all files of an entry lie at a place instead of at its path."""
    path = path_of(kind, number)
    files = {place / name.removeprefix(path).lstrip("/"): content for name, content in files_of(kind, number).items()}
    return all(file.is_file() and file.read_bytes() == content for file, content in files.items())


def check_entry(directory: Path, kind: Kind, number: int, *, is_found: bool, may_be_gone: bool) -> None:
    """An entry is whole in its place, or whole in the trash, or, where that was asked for, gone without a trace."""
    place = directory / path_of(kind, number)
    trashed = saved_paths(directory).get(path_of(kind, number))
    is_saved = (kind.value, KEYS[kind][number]) in saved_keys(directory)
    state = f"{kind} {number}: found={is_found} saved={is_saved} place={place.exists()} trash={trashed}"
    if is_found:
        assert is_whole_at(place, kind, number), state
        assert not is_saved, state
        assert trashed is None, state
    elif is_saved:
        assert not place.exists(), state
        assert trashed is not None, state
        assert is_whole_at(trashed, kind, number), state
    else:
        assert may_be_gone, state
        assert not place.exists(), state
        assert trashed is None, state
