"""Leases outlive the daemon, and what an earlier version wrote of them is still read."""

from __future__ import annotations

import logging
import sqlite3

import msgspec
import pytest

from motoolsd.core.leases import Claimant, Lease, Process
from motoolsd.store.leases import LeaseChange, select_leases, take_lease
from motoolsd.wire.keys import Kind
from tests.samples import committed, execute

HERE = Process(pid=42, start_time=7, boot_id="boot")
CLAIMANT = Claimant(b"claim-1", b"context", HERE, "python train.py", "here", b"runs/\xff", "d" * 64)
LEASE = Lease((Kind.MODEL, "k"), 7, CLAIMANT, "2026-01-31T23:59:59Z", {HERE})


def test_lease_is_read_as_it_was_saved(raw: sqlite3.Connection) -> None:
    """With the directory that it protects, and what the model is made from."""
    committed(raw, LeaseChange(saved=(LEASE,)))
    assert select_leases(raw) == ([LEASE], 7)


def test_lease_of_an_earlier_version_protects_nothing(raw: sqlite3.Connection) -> None:
    """It says nothing of a directory or a dataset: an update of a running daemon's database loses no lease."""
    earlier = msgspec.msgpack.decode(msgspec.msgpack.encode(LEASE))
    del earlier["claimant"]["work_dir"], earlier["claimant"]["dataset_hash"]
    raw.execute(
        "INSERT INTO motoolsd_leases (token, kind, key, lease) VALUES (7, 'model', 'k', ?)",
        (msgspec.msgpack.encode(earlier),),
    )
    claimant = msgspec.structs.replace(CLAIMANT, work_dir=None, dataset_hash=None)
    assert select_leases(raw) == ([msgspec.structs.replace(LEASE, claimant=claimant)], 7)


def test_largest_token_is_remembered_without_its_lease(raw: sqlite3.Connection) -> None:
    """Tokens never repeat, over a restart either."""
    committed(raw, LeaseChange(saved=(LEASE,)), LeaseChange(dropped=(7,)))
    assert select_leases(raw) == ([], 7)


def test_damaged_lease_is_left_out_and_said(
    raw: sqlite3.Connection, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon starts all the same; its token is not given again."""
    committed(raw, LeaseChange(saved=(LEASE,)))
    execute(database, "UPDATE motoolsd_leases SET lease = x'c1';")
    with caplog.at_level(logging.ERROR):
        assert select_leases(raw) == ([], 7)
    assert "damaged lease" in caplog.text


@pytest.mark.parametrize(
    ("kind", "key", "token", "is_taken"),
    [
        (Kind.MODEL, "k", 7, True),
        (Kind.MODEL, "k", 8, False),
        (Kind.MODEL, "l", 7, False),
        (Kind.DATASET, "k", 7, False),
    ],
)
def test_lease_is_taken_once_by_its_own_token(
    raw: sqlite3.Connection, kind: Kind, key: str, token: int, *, is_taken: bool
) -> None:
    """Whatever memory says."""
    committed(raw, LeaseChange(saved=(LEASE,)))
    assert take_lease(raw, kind, key, token) is is_taken
    assert take_lease(raw, kind, key, token) is False
