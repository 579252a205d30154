"""`motools cache prune`, `clear --delete-files`, `undo`, `trash` and `verify`: what they ask, print and end with."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import Any

import pytest

from motools.cache.cleaning import CleanupPlan, CleanupResult, Finding, KeptPath
from motools.cache.errors import EntryNotFound, PlanOutdated
from motools.cli import cache as cache_commands
from tests.cli.conftest import Motools, without_filters
from tests.cli.scripted import PINNED, ScriptedUtils
from tests.cli.test_cache import type_in


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> ScriptedUtils:
    """What the commands ask."""
    utils = ScriptedUtils()
    monkeypatch.setattr(cache_commands, "open_utils", lambda _directory: utils)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return utils


DIR = ("-d", "/somewhere")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--older-than", "30d"], {"older_than": "30d"}),
        (
            ["--unused-for", "14d", "--kind", "model", "--kind", "eval"],
            {"unused_for": "14d", "kinds": ["model", "eval"]},
        ),
        (["--to", "50GB", "--force"], {"to": "50GB", "force": True}),
        (["--orphans", "--orphan-age", "1h", "--dangling"], {"orphans": True, "orphan_age": "1h", "dangling": True}),
    ],
)
def test_prune_passes_on_what_is_to_go(
    utils: ScriptedUtils, motools: Motools, words: list[str], expected: dict[str, Any]
) -> None:
    """And nothing that was not said: the defaults are the API's."""
    assert motools("cache", "prune", *words, "--yes", *DIR).code == 0
    assert utils.asked[0] == ("prune", {"dry_run": True, **expected})
    assert utils.asked[1] == ("apply_plan", {"plan_id": "abc123", "to_trash": True})


def test_prune_says_what_went_stayed_and_how_to_have_it_back(utils: ScriptedUtils, motools: Motools) -> None:
    """On stderr: stdout is for data."""
    utils.result = CleanupResult(removal_id=7, models=1, freed_bytes=4_096, left=[KeptPath(path="runs/x", why="busy")])
    done = motools("cache", "prune", "--orphans", "--yes", *DIR)
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [
        "stays: model k2: pinned: paper",
        "stays: runs/x: busy",
        "removed 1 model, 4.0 KiB (still in the trash), from /somewhere",
        "to put it back: `motools cache undo 7`",
    ]


def test_prune_without_trash_frees_at_once(utils: ScriptedUtils, motools: Motools) -> None:
    """There is nothing to undo then, and nobody is told of it."""
    utils.result = CleanupResult(models=1, freed_bytes=4_096, is_complete=False)
    done = motools("cache", "prune", "--orphans", "--yes", "--no-trash", *DIR)
    assert utils.asked[1][1]["to_trash"] is False
    assert done.err.splitlines()[1:] == [
        "removed 1 model, 4.0 KiB, from /somewhere",
        "it was interrupted before its end",
    ]


def test_dry_run_shows_the_plan_and_how_to_carry_it_out(utils: ScriptedUtils, motools: Motools) -> None:
    """It needs no terminal, asks nothing, and changes nothing."""
    done = motools("cache", "prune", "--orphans", "--dry-run", *DIR)
    assert (done.code, utils.names()) == (0, ["prune"])
    assert re.split(" {2,}", done.out.splitlines()[1]) == ["model", "4.0 KiB", "asked for", "ft-1", "k1"]
    assert done.err.splitlines() == [
        "stays: model k2: pinned: paper",
        "would remove 1 model, 4.0 KiB",
        "to remove exactly this: `motools cache prune --plan abc123`",
    ]


def test_dry_run_for_programs(utils: ScriptedUtils, motools: Motools) -> None:
    """One object with items, what is protected, and what would be freed."""
    document = json.loads(motools("cache", "prune", "--orphans", "--dry-run", "--json", *DIR).out)
    assert (document["schema_version"], document["plan_id"], document["freed_bytes"]) == (1, "abc123", 4_096)
    assert document["items"] == [
        {
            "kind": "model",
            "key": "k1",
            "value": "ft-1",
            "paths": ["runs/1"],
            "size_bytes": 5,
            "allocated_bytes": 4_096,
            "reason": "asked for",
        }
    ]
    assert document["protected"] == [{"kind": "model", "key": "k2", "why": "pinned: paper"}]


def test_result_for_programs_names_what_is_protected(utils: ScriptedUtils, motools: Motools) -> None:
    """Though the plan was made by another call."""
    done = motools("cache", "prune", "--orphans", "--yes", "--json", *DIR)
    document = json.loads(done.out)
    assert (document["removal_id"], document["models"], document["protected"]) == (
        7,
        1,
        [{"kind": "model", "key": "k2", "why": "pinned: paper"}],
    )


@pytest.mark.parametrize(
    "words",
    [
        ["prune", "--orphans"],
        ["prune", "--plan", "abc123"],
        ["clear", "models", "--delete-files"],
        ["undo"],
        ["trash", "restore", "7"],
        ["trash", "empty"],
        ["verify", "--repair"],
    ],
)
def test_nothing_is_removed_where_nobody_can_be_asked(utils: ScriptedUtils, motools: Motools, words: list[str]) -> None:
    """Without a terminal and without `--yes`: exit 2, and the word to type."""
    done = motools("cache", *words, *DIR)
    assert (done.code, utils.asked) == (2, [])
    assert "pass --yes" in done.err


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_no_removes_nothing(
    utils: ScriptedUtils, motools: Motools, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """What would go is shown before the question."""
    type_in(monkeypatch, answer)
    done = motools("cache", "clear", "models", "--delete-files", *DIR)
    assert (done.code, utils.names()) == (1, ["clear_models"])
    assert "     4.0 KiB  model ft-1 (asked for)\n" in done.err
    assert "Remove 1 model, 4.0 KiB from /somewhere? [y/N] " in done.err
    assert done.err.endswith("nothing was removed\n")


def test_yes_removes_exactly_what_was_shown(
    utils: ScriptedUtils, motools: Motools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the plan's name."""
    type_in(monkeypatch, "y\n")
    done = motools("cache", "clear", "models", "--model-id", "ft-1", "--delete-files", "--no-trash", *DIR)
    assert "Remove 1 model, 4.0 KiB from /somewhere for ever? [y/N] " in done.err
    assert utils.asked == [
        (
            "clear_models",
            {"model_ids": ["ft-1"], "delete_files": True, "dry_run": True, "force": False, "downstream": False},
        ),
        ("apply_plan", {"plan_id": "abc123", "to_trash": False}),
    ]


def test_plan_that_was_shown_is_applied_by_name(utils: ScriptedUtils, motools: Motools) -> None:
    """Nothing is planned anew."""
    assert motools("cache", "prune", "--plan", "abc123", "--yes", *DIR).code == 0
    assert utils.names() == ["apply_plan"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PlanOutdated("plan abc123 is out of date, and nothing was removed: model k1: it was stored again"), 4),
        (EntryNotFound("there is no plan abc123"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_how_an_application_fails_shows_in_the_exit_code(
    utils: ScriptedUtils, motools: Motools, error: BaseException, code: int
) -> None:
    """Refused, not found, interrupted."""
    utils.error = error
    done = motools("cache", "prune", "--plan", "abc123", "--yes", *DIR)
    assert done.code == code
    assert str(error) in done.err
    assert ("`motools cache undo` puts it back" in done.err) is isinstance(error, KeyboardInterrupt)


@pytest.mark.parametrize(
    "words",
    [
        ["prune"],
        ["prune", "--kind", "model"],
        ["prune", "--plan", "abc123", "--orphans"],
        ["prune", "--plan", "abc123", "--dry-run"],
        ["prune", "--orphans", "--kind", "modelz"],
        ["clear", "models", "--dry-run"],
        ["clear", "models", "--no-trash"],
        ["undo", "seven"],
    ],
)
def test_options_that_make_no_sense_are_refused(utils: ScriptedUtils, motools: Motools, words: list[str]) -> None:
    """As mistakes of usage, before anything is asked of the cache."""
    assert (motools("cache", *words, "--yes", *DIR).code, utils.asked) == (2, [])


def test_nothing_to_remove_is_no_failure(utils: ScriptedUtils, motools: Motools) -> None:
    """Neither is a dry run that finds nothing."""
    utils.plan = CleanupPlan(plan_id="abc123")
    assert motools("cache", "prune", "--orphans", "--yes", *DIR) == (0, "", "nothing to remove from /somewhere\n")
    done = motools("cache", "prune", "--orphans", "--dry-run", *DIR)
    assert done == (0, "", "nothing would be removed from /somewhere\n")


def test_all_of_it_protected_is_a_refusal(utils: ScriptedUtils, motools: Motools) -> None:
    """Exit 4, and why; for programs too."""
    utils.plan = CleanupPlan(plan_id="abc123", protected=[PINNED])
    done = motools("cache", "clear", "models", "--delete-files", "--yes", *DIR)
    assert (done.code, utils.names()) == (4, ["clear_models"])
    assert done.err.splitlines() == [
        "stays: model k2: pinned: paper",
        "motools: error: all of it is protected: nothing was removed from /somewhere",
    ]
    done = motools("cache", "clear", "models", "--delete-files", "--yes", "--json", *DIR)
    assert (done.code, json.loads(done.out)["protected"][0]["why"]) == (4, "pinned: paper")


@pytest.mark.parametrize(("words", "number"), [(["undo"], 7), (["undo", "6"], 6), (["trash", "restore", "6"], 6)])
def test_removal_is_put_back(utils: ScriptedUtils, motools: Motools, words: list[str], number: int) -> None:
    """The latest, or that with a number."""
    done = motools("cache", *words, "--yes", *DIR)
    assert done == (0, "", "put back 1 model, 4.0 KiB, in /somewhere\n")
    assert utils.asked == [("undo", {"removal_id": number})]


def test_question_before_an_undo_says_what_comes_back(
    utils: ScriptedUtils, motools: Motools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it was, not by its number alone."""
    type_in(monkeypatch, "n\n")
    done = motools("cache", "undo", *DIR)
    assert (done.code, utils.asked) == (1, [])
    assert "Put removal 7 (models: 1 entry, 1 file or directories, 0 B) back into /somewhere? [y/N] " in done.err


def test_removal_that_is_not_there_is_not_found(utils: ScriptedUtils, motools: Motools) -> None:
    """Exit 3, and where to look."""
    done = motools("cache", "undo", "99", "--yes", *DIR)
    assert (done.code, utils.asked) == (3, [])
    assert "see `motools cache trash list`" in done.err
    utils.trash = []
    assert motools("cache", "undo", "--yes", *DIR).code == 3


def test_trash_is_listed(utils: ScriptedUtils, motools: Motools) -> None:
    """For people and programs; an empty one says so."""
    lines = motools("cache", "trash", "list", *DIR).out.splitlines()
    assert lines[1].split()[:3] == ["7", "2026-11-23", "12:00:00"]
    items = json.loads(motools("cache", "trash", "list", "--json", *DIR).out)["items"]
    assert [item["id"] for item in items] == [7, 6]
    utils.trash = []
    assert motools("cache", "trash", "list", *DIR) == (0, "", "the trash of /somewhere is empty\n")


def test_trash_is_emptied_in_parts_or_whole(utils: ScriptedUtils, motools: Motools) -> None:
    """No number means all."""
    assert motools("cache", "trash", "empty", "6", "--yes", *DIR) == (0, "", "freed 2.0 KiB in /somewhere\n")
    assert motools("cache", "trash", "empty", "--yes", *DIR).code == 0
    assert utils.asked == [("empty_trash", {"removal_ids": [6]}), ("empty_trash", {"removal_ids": None})]
    assert motools("cache", "trash", "empty", "5", "--yes", *DIR).code == 3


@pytest.mark.parametrize(
    ("problems", "code"),
    [
        ([], 0),
        (["corrupt"], 1),
        (["missing", "missing"], 2),
        (["corrupt", "unreadable"], 5),
        (["corrupt", "missing", "unreadable", "orphan"], 15),
    ],
)
def test_verify_ends_with_the_sum_of_what_is_wrong(
    utils: ScriptedUtils, motools: Motools, problems: list[str], code: int
) -> None:
    """Each problem once."""
    utils.findings = [
        Finding(problem=problem, kind="eval", key="k", path="evals/x", detail="gone", repaired=False)
        for problem in problems
    ]
    done = motools("cache", "verify", "--deep", *DIR)
    assert done.code == code
    assert utils.asked == [("verify", {"deep": True, "repair": False})]
    assert done.err.startswith("looked at 3 entries and 4 files in /somewhere: ")
    assert len(done.out.splitlines()) == (1 + len(problems) if problems else 0)
    items = json.loads(motools("cache", "verify", "--json", *DIR).out)["items"]
    assert [item["problem"] for item in items] == problems


def test_repair_is_asked_for(utils: ScriptedUtils, motools: Motools, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes entries."""
    type_in(monkeypatch, "n\n")
    assert (motools("cache", "verify", "--repair", *DIR).code, utils.asked) == (1, [])
    type_in(monkeypatch, "y\n")
    assert motools("cache", "verify", "--repair", *DIR).code == 0
    assert utils.asked == [("verify", {"deep": False, "repair": True})]


def test_pins_are_set_and_taken_away(utils: ScriptedUtils, motools: Motools) -> None:
    """With a reason and an end, which may be a time or a duration."""
    done = motools("cache", "pin", "ft-1", "--kind", "model", "--reason", "paper", "--until", "30d", *DIR)
    assert done == (0, "", "pinned 1 entry in /somewhere; `motools cache unpin ft-1` takes that back\n")
    assert utils.asked[0] == ("pin", {"key": "ft-1", "kind": "model", "reason": "paper", "until": "30d"})
    assert motools("cache", "pin", "ft-1", "--until", "2027-01-31", *DIR).code == 0
    until = utils.asked[1][1]["until"]
    assert (until.year, until.month, until.day) == (2027, 1, 31)
    assert motools("cache", "unpin", "ft-1", *DIR) == (0, "", "unpinned 2 entries in /somewhere\n")


COMMANDS = ["clear", "prune", "undo", "verify", "pin", "unpin", "size", "stats", "list", "leases"]
COMMANDS += ["show", "lineage", "why", "diff", "invalidate"]


@pytest.mark.parametrize("words", [[name] for name in COMMANDS] + [["trash", n] for n in ("list", "restore", "empty")])
def test_help_fits_a_small_terminal_and_has_an_example(
    motools: Motools, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """80 columns and 24 lines, filters apart."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = without_filters(motools("cache", *words, "--help").out)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.strip().startswith("Example: motools cache") for line in lines)
