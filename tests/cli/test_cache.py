"""`motools cache`: what each command prints, removes and refuses."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sys
from typing import Any

import pytest

from motools.cache import CacheUtils, InMemoryCache
from tests.cli.conftest import Motools

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
COMMON = [
    *("created_at", "last_used_at", "hits", "size_bytes", "version", "labels", "pinned", "allocated_bytes", "files"),
    *("missing_since", "pin_reason", "pinned_until", "expires_at"),
    *("void_since", "void_reason", "void_detail", "seconds", "metadata"),
]
FIELDS = {
    "datasets": ["dataset_hash", "file_id", *COMMON],
    "models": ["cache_key", "model_id", "dataset_hash", "config", "backend_type", *COMMON],
    "evals": [
        *("id", "model_id", "task_id", "backend_type", "log_file_path", "inspect_kwargs_hash", "inspect_kwargs"),
        *COMMON,
    ],
}
IDS = {"datasets": "dataset_hash", "models": "model_id", "evals": "log_file_path"}
ALL = {
    "datasets": ["hash-a", "hash-b"],
    "models": ["ft-1", "ft-2", "ft-3"],
    "evals": ["one.eval", "two.eval", "three.eval"],
}


class Keyboard(io.StringIO):
    """A terminal's input: what somebody types."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have somebody at the terminal type this."""
    monkeypatch.setattr(sys, "stdin", Keyboard(text))


def ids(memory: InMemoryCache, kind: str) -> list[str]:
    """What is in the cache."""
    utils = CacheUtils(memory)
    entries: list[Any] = getattr(utils, f"list_{kind}")()
    return [getattr(entry, IDS[kind]) for entry in entries]


def everything(memory: InMemoryCache) -> dict[str, list[str]]:
    """What is in the cache, of all kinds."""
    return {kind: ids(memory, kind) for kind in IDS}


@pytest.mark.parametrize("kind", list(IDS))
def test_list_prints_json_with_a_head_and_the_fields_of_the_api(
    filled: InMemoryCache, motools: Motools, kind: str
) -> None:
    """`list --json` is one object: schema version, time, and items in insertion order, identity first."""
    done = motools("cache", "list", kind, "--json")
    document = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert list(document) == ["schema_version", "as_of", "items"]
    assert document["schema_version"] == 1
    assert re.fullmatch(STAMP, document["as_of"])
    assert [item[IDS[kind]] for item in document["items"]] == ALL[kind]
    assert list(document["items"][0]) == FIELDS[kind]


def test_models_are_listed_with_what_they_were_trained_from(filled: InMemoryCache, motools: Motools) -> None:
    """Configuration, dataset hash and backend are there, the configuration as an object."""
    last = json.loads(motools("cache", "list", "models", "--json").out)["items"][-1]
    assert (last["config"], last["dataset_hash"], last["backend_type"]) == ({"lr": 2e-4}, "hash-b", "dummy")


@pytest.mark.parametrize("kind", list(IDS))
def test_list_prints_one_json_text_a_line(filled: InMemoryCache, motools: Motools, kind: str) -> None:
    """`--format jsonl` has no head: each line is an item."""
    lines = motools("cache", "list", kind, "--format", "jsonl").out.splitlines()
    assert [json.loads(line)[IDS[kind]] for line in lines] == ALL[kind]


@pytest.mark.parametrize("kind", list(IDS))
def test_list_prints_csv_with_a_heading(filled: InMemoryCache, motools: Motools, kind: str) -> None:
    """`--format csv` has the same fields as JSON; objects are JSON texts, what is unknown is empty."""
    rows = list(csv.DictReader(io.StringIO(motools("cache", "list", kind, "--format", "csv").out)))
    assert [row[IDS[kind]] for row in rows] == ALL[kind]
    assert list(rows[0]) == FIELDS[kind]
    assert rows[0]["labels"] == "{}"
    assert rows[0]["last_used_at"] == ""


@pytest.mark.parametrize("kind", list(IDS))
def test_list_prints_a_table_with_whole_ids(filled: InMemoryCache, motools: Motools, kind: str) -> None:
    """Where stdout is no terminal a table has one line an entry, however long."""
    lines = motools("cache", "list", kind).out.splitlines()
    assert len(lines) == 1 + len(ALL[kind])
    assert all(name in line for name, line in zip(ALL[kind], lines[1:], strict=True))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["datasets", "--dataset-hash", "hash-b"], ["hash-b"]),
        (["models", "--model-id", "ft-2"], ["ft-2"]),
        (["models", "--model-id", "ft-1", "--model-id", "ft-3", "--model-id", "none"], ["ft-1", "ft-3"]),
        (["models", "--dataset-hash", "hash-b"], ["ft-2", "ft-3"]),
        (["evals", "--model-id", "ft-1"], ["one.eval", "two.eval"]),
        (["evals", "--task-id", "task_1"], ["one.eval", "three.eval"]),
        (["evals", "--model-id", "ft-1", "--model-id", "ft-2", "--task-id", "task_1"], ["one.eval", "three.eval"]),
        (["evals", "--model-id", "ft-2", "--task-id", "task_2"], []),
    ],
)
def test_filters_choose_what_is_listed(
    filled: InMemoryCache, motools: Motools, words: list[str], expected: list[str]
) -> None:
    """A repeated filter means any of its values; different filters must all fit."""
    items = json.loads(motools("cache", "list", *words, "--json").out)["items"]
    assert [item[IDS[words[0]]] for item in items] == expected


@pytest.mark.parametrize(
    "words",
    [
        ["list", "datasets", "--model-id", "ft-1"],
        ["list", "datasets", "--backend", "b"],
        ["clear", "models", "--task-id", "t", "--yes"],
        ["clear", "datasets", "--backend", "b", "--yes"],
        ["clear", "all", "--task-id", "t", "--created-after", "2026-02-01", "--created-before", "2026-01-01", "--yes"],
    ],
)
def test_filter_that_makes_no_sense_is_refused(filled: InMemoryCache, motools: Motools, words: list[str]) -> None:
    """A filter that a kind does not have is a usage error that names those that it fits, and nothing is removed."""
    done = motools("cache", *words)
    assert (done.code, done.out) == (2, "")
    assert "that filter fits" in done.err or "exclude each other" in done.err
    assert everything(filled) == ALL


def test_unknown_kind_is_refused_with_those_there_are(motools: Motools) -> None:
    """A misspelled kind is a usage error that names the kinds."""
    done = motools("cache", "list", "modelz")
    assert done.code == 2
    assert "'modelz' is not datasets, models or evals" in done.err


def test_empty_list_is_said_on_stderr_only(memory: InMemoryCache, motools: Motools) -> None:
    """Nothing to list prints nothing on stdout and is no failure."""
    done = motools("cache", "list", "models", "-d", "/somewhere")
    assert done == (0, "", "no models in /somewhere\n")


def test_empty_list_that_was_filtered_says_so(filled: InMemoryCache, motools: Motools) -> None:
    """Nobody takes a filter without a match for an empty cache."""
    done = motools("cache", "list", "models", "--model-id", "none", "-d", "/somewhere")
    assert done == (0, "", "no models that fit the filters in /somewhere\n")


def test_empty_list_has_its_form_in_every_format(memory: InMemoryCache, motools: Motools) -> None:
    """Programs get an empty list, no line, or a heading alone."""
    assert json.loads(motools("cache", "list", "datasets", "--json").out)["items"] == []
    assert motools("cache", "list", "datasets", "--format", "jsonl").out == ""
    assert motools("cache", "list", "datasets", "--format", "csv").out == ",".join(FIELDS["datasets"]) + "\n"


@pytest.mark.parametrize(
    ("words", "left", "said"),
    [
        (["datasets"], {"datasets": []}, "2 datasets"),
        (["datasets", "--dataset-hash", "hash-a", "--dataset-hash", "none"], {"datasets": ["hash-b"]}, "1 dataset"),
        (["models"], {"models": []}, "3 models"),
        (["models", "--model-id", "ft-1"], {"models": ["ft-2", "ft-3"]}, "1 model"),
        (["evals"], {"evals": []}, "3 evals"),
        (["evals", "--model-id", "ft-1", "--task-id", "task_1"], {"evals": ["two.eval", "three.eval"]}, "1 eval"),
        (["evals", "--model-id", "none"], {}, "0 evals"),
        (["all"], {"datasets": [], "models": [], "evals": []}, "2 datasets, 3 models and 3 evals"),
    ],
)
def test_clear_removes_what_was_named_and_nothing_else(
    filled: InMemoryCache, motools: Motools, words: list[str], left: dict[str, list[str]], said: str
) -> None:
    """With `--yes` nothing is asked; how many went is said on stderr."""
    done = motools("cache", "clear", *words, "--yes", "-d", "/somewhere")
    assert done == (0, "", f"removed {said} from /somewhere\n")
    assert everything(filled) == {**ALL, **left}


def test_clear_without_a_terminal_refuses(
    filled: InMemoryCache, motools: Motools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can be asked, `clear` removes nothing, and says what to type; a `y` in a pipe is no answer."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    done = motools("cache", "clear", "evals")
    assert done.code == 2
    assert "pass --yes" in done.err
    assert everything(filled) == ALL


def test_clear_asks_at_a_terminal_and_takes_yes(
    filled: InMemoryCache, motools: Motools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question says how many entries would go, and from where."""
    type_in(monkeypatch, "y\n")
    done = motools("cache", "clear", "evals", "--task-id", "task_1", "-d", "/somewhere")
    assert done.code == 0
    assert "Remove 2 evals from /somewhere? [y/N] " in done.err
    assert ids(filled, "evals") == ["two.eval"]


@pytest.mark.parametrize("answer", ["n\n", "\n", "what?\n", ""])
def test_clear_takes_anything_else_for_a_no(
    filled: InMemoryCache, motools: Motools, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """No, nothing, something else and the end of the input remove nothing; the exit code tells."""
    type_in(monkeypatch, answer)
    done = motools("cache", "clear", "all")
    assert done.code == 1
    assert "Remove 2 datasets, 3 models and 3 evals from " in done.err
    assert done.err.endswith("nothing was removed\n")
    assert everything(filled) == ALL


def test_clear_asks_nothing_where_nothing_would_go(
    filled: InMemoryCache, motools: Motools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no question to an empty selection."""
    type_in(monkeypatch, "")
    done = motools("cache", "clear", "models", "--model-id", "none", "-d", "/somewhere")
    assert done == (0, "", "nothing to remove: 0 models in /somewhere\n")


def test_interrupted_question_removes_nothing(
    filled: InMemoryCache, motools: Motools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the question ends with 130."""

    def interrupt() -> str:
        raise KeyboardInterrupt

    type_in(monkeypatch, "")
    monkeypatch.setattr(sys.stdin, "readline", interrupt)
    assert motools("cache", "clear", "all").code == 130
    assert everything(filled) == ALL


def test_hostile_text_is_shown_escaped(memory: InMemoryCache, motools: Motools) -> None:
    """What was stored neither colours the screen nor breaks a line, and markup is text; JSON has it exactly."""
    asyncio.run(memory.set_file_id("\x1b[31mh", "a\nb [red]c[/red] \udcff"))
    line = motools("cache", "list", "datasets").out.splitlines()[1]
    assert line.split("  ")[0] == r"\x1b[31mh"
    assert r" a\nb [red]c[/red] \xff " in line
    (item,) = json.loads(motools("cache", "list", "datasets", "--json").out)["items"]
    assert (item["dataset_hash"], item["file_id"]) == ("\x1b[31mh", "a\nb [red]c[/red] \udcff")
