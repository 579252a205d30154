"""`motools cache backup` and `restore-backup`: what they ask, print and end with."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from motools.cache import restoring
from motools.cache.backups import Backup
from motools.cache.restoring import RestorePlan, RestoreResult, StoredBackup
from motools.cli import cache as cache_commands
from tests.cli.conftest import Motools
from tests.cli.scripted import ScriptedUtils
from tests.cli.test_cache import type_in

MADE = Backup(
    path="/b.db", size_bytes=4_096, datasets=1, models=2, evals=3, schema_version=4, as_of="2026-01-31T23:59:59.123Z"
)
THEN = StoredBackup(path="/b.db", size_bytes=4_096, made_at="2026-01-31T23:59:59Z", datasets=1, models=2, evals=3)
NOW = StoredBackup(path="/c/cache.db", problem="it is damaged")
DIR = ("-d", "/c")


class BackingUp(ScriptedUtils):
    """Makes backups, too."""

    def backup(self, path: str, **options: Any) -> Backup:  # noqa: ANN401 - whatever the command passes
        """The same for each."""
        options.pop("on_progress")
        self.asked.append(("backup", {"path": path, **options}))
        return MADE


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> BackingUp:
    """What `backup` asks."""
    utils = BackingUp()
    monkeypatch.setattr(cache_commands, "open_utils", lambda _directory: utils)
    return utils


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What `restore-backup` asks."""
    asked: list[tuple[str, object]] = []

    def plan(_directory: str, path: str | None) -> RestorePlan:
        asked.append(("plan", path))
        return RestorePlan(backup=THEN, current=NOW)

    def restore(_directory: str, path: str | None) -> RestoreResult:
        asked.append(("restore", path))
        return RestoreResult(backup=THEN, current=NOW, replaced="/c/cache.db.replaced-x", is_started=True)

    monkeypatch.setattr(restoring, "plan_restore", plan)
    monkeypatch.setattr(restoring, "restore_backup", restore)
    monkeypatch.setattr(restoring, "list_backups", lambda _directory: [THEN])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return asked


def test_backup_says_what_is_in_it(utils: BackingUp, motools: Motools) -> None:
    """On stderr: stdout is for data."""
    done = motools("cache", "backup", "b.db", *DIR)
    assert (done.code, done.out) == (0, "")
    assert done.err == "backed up 1 dataset, 2 models and 3 evals (4.0 KiB) to /b.db\n"
    motools("cache", "backup", "b.db", "--force", *DIR)
    assert utils.asked == [
        ("backup", {"path": "b.db", "force": False}),
        ("backup", {"path": "b.db", "force": True}),
    ]


def test_backup_prints_json(utils: BackingUp, motools: Motools) -> None:
    """The version of the document and that of the database's schema are told apart."""
    document = json.loads(motools("cache", "backup", "b.db", "--json", *DIR).out)
    assert document == {
        "schema_version": 1,
        "as_of": MADE.as_of,
        "path": "/b.db",
        "size_bytes": 4_096,
        "database_schema_version": 4,
        "entries": {"datasets": 1, "models": 2, "evals": 3},
    }


def test_list_shows_time_size_and_entries(asked: list[tuple[str, object]], motools: Motools) -> None:
    """Nothing is restored by it."""
    head, row = motools("cache", "restore-backup", "--list", *DIR).out.splitlines()
    assert head.split() == ["made", "(UTC)", "size", "datasets", "models", "evals", "path"]
    assert row.split() == ["2026-01-31", "23:59:59", "4.0", "KiB", "1", "2", "3", "/b.db"]
    (item,) = json.loads(motools("cache", "restore-backup", "--list", "--json", *DIR).out)["items"]
    assert (item["path"], item["made_at"], item["problem"]) == ("/b.db", THEN.made_at, None)
    assert motools("cache", "restore-backup", "b.db", "--list", *DIR).code == 2
    assert asked == []


def test_restore_without_terminal_needs_a_yes(asked: list[tuple[str, object]], motools: Motools) -> None:
    """Exit 2, and nothing was asked of anybody."""
    done = motools("cache", "restore-backup", *DIR)
    assert done.code == 2
    assert "--yes" in done.err
    assert asked == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_restore_says_what_is_replaced_and_asks(
    asked: list[tuple[str, object]], motools: Motools, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """A damaged database is said to be one."""
    type_in(monkeypatch, answer)
    done = motools("cache", "restore-backup", *DIR)
    assert done.code == code
    lines = done.err.splitlines()
    assert lines[:2] == [
        "the database now: it cannot be read: it is damaged",
        "the backup of 2026-01-31 23:59:59 UTC, /b.db: 1 dataset, 2 models and 3 evals",
    ]
    assert asked == [("plan", None), *([("restore", "/b.db")] if not code else [])]
    assert ("nothing was replaced" in done.err) is bool(code)


def test_restore_tells_where_the_old_one_is(asked: list[tuple[str, object]], motools: Motools) -> None:
    """And the way back."""
    done = motools("cache", "restore-backup", "/b.db", "--yes", *DIR)
    assert done.err.splitlines()[-1] == (
        "what was replaced: /c/cache.db.replaced-x; to go back: `motools cache restore-backup /c/cache.db.replaced-x`"
    )
    document = json.loads(motools("cache", "restore-backup", "/b.db", "--yes", "--json", *DIR).out)
    assert document["backup"]["path"] == "/b.db"
    assert document["replaced"] == "/c/cache.db.replaced-x"
    assert asked == [("plan", "/b.db"), ("restore", "/b.db")] * 2
