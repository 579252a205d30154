"""`motools cache stats` and `motools cache size`: what they print, for people and for programs."""

from __future__ import annotations

import json
import re

from motools.cache import InMemoryCache
from tests.cli.conftest import Motools


def test_stats_counts_for_people(filled: InMemoryCache, motools: Motools) -> None:
    """`stats` is a short table with a readable size."""
    lines = [line.split(maxsplit=1) for line in motools("cache", "stats").out.splitlines()]
    assert lines[:3] == [["datasets", "2"], ["models", "3"], ["evals", "3"]]
    assert re.fullmatch(r"size\s+[\d.]+ (B|KiB)", lines[3][1])


def test_stats_counts_for_programs(filled: InMemoryCache, motools: Motools) -> None:
    """`stats --json` has the names of the API; JSON lines and CSV the same without the head."""
    document = json.loads(motools("cache", "stats", "--json").out)
    names = ["num_datasets", "num_models", "num_evals", "total_size_bytes", "scanned_at"]
    assert list(document) == ["schema_version", "as_of", *names, "lookups"]
    assert [document[name] for name in names[:3]] == [2, 3, 3]
    assert isinstance(document["total_size_bytes"], int)
    assert list(json.loads(motools("cache", "stats", "--format", "jsonl").out)) == names
    assert motools("cache", "stats", "--format", "csv").out.startswith(",".join(names) + "\n2,3,3,")


def test_size_is_one_number(memory: InMemoryCache, motools: Motools) -> None:
    """`size` adds up; categories are shown only where they are asked for."""
    assert motools("cache", "size").out == "total size  1.0 MiB\n"
    total, allocated = 1_500 + 10 + 2**20, 2 * 4_096 + 2**20
    document = json.loads(motools("cache", "size", "--json").out)
    assert (document["total_size_bytes"], document["total_allocated_bytes"]) == (total, allocated)
    expected = f"total_size_bytes,total_allocated_bytes\n{total},{allocated}\n"
    assert motools("cache", "size", "--format", "csv").out == expected


def test_breakdown_for_people(memory: InMemoryCache, motools: Motools) -> None:
    """A line for each category and their sum; orphans apart, because the categories have them already."""
    lines = motools("cache", "size", "--breakdown").out.splitlines()
    table = [line.split() for line in lines[: lines.index("")]]
    assert table[0] == ["category", "size", "on", "disk"]
    assert [line[0] for line in table[1:]] == ["datasets", "runs", "evals", "database", "trash", "staging", "total"]
    assert table[1][1:] == ["1.5", "KiB", "4.0", "KiB"]
    assert table[-1][1:] == ["1.0", "MiB", "1.0", "MiB"]
    assert [line.split(maxsplit=1) for line in lines[lines.index("") + 1 :]] == [
        ["orphans", "2 (4.0 KiB on disk, counted above)"],
        ["dangling", "1 entries"],
        ["counted", "(UTC)  2026-11-23 12:00:00"],
    ]


def test_breakdown_for_programs(memory: InMemoryCache, motools: Motools) -> None:
    """Integers in bytes, by category: an object in JSON, a line each in JSON lines and CSV."""
    document = json.loads(motools("cache", "size", "--breakdown", "--json").out)
    assert document["categories"]["datasets"] == {"size_bytes": 1_500, "allocated_bytes": 4_096}
    assert document["total_size_bytes"] == sum(size["size_bytes"] for size in document["categories"].values())
    assert document["orphans"] == {"size_bytes": 500, "allocated_bytes": 4_096, "count": 2}
    assert (document["num_dangling"], document["scanned_at"]) == (1, "2026-11-23T12:00:00.123Z")
    lines = motools("cache", "size", "--breakdown", "--format", "jsonl").out.splitlines()
    assert json.loads(lines[2]) == {"category": "evals", "size_bytes": 10, "allocated_bytes": 4_096}
    rows = motools("cache", "size", "--breakdown", "--format", "csv").out.splitlines()
    assert rows[:2] == ["category,size_bytes,allocated_bytes", "datasets,1500,4096"]


def test_largest_entries_are_named(memory: InMemoryCache, motools: Motools) -> None:
    """With a table of their own; JSON has them under `top`."""
    lines = motools("cache", "size", "--top", "5").out.splitlines()
    assert lines[1].split() == ["10", "B", "4.0", "KiB", "eval", "one.eval", "k"]
    (entry,) = json.loads(motools("cache", "size", "--top", "5", "--json").out)["top"]
    assert (entry["kind"], entry["allocated_bytes"]) == ("eval", 4_096)
    assert motools("cache", "size", "--top", "1001").code == 2


def test_rescan_that_is_quick_says_nothing(memory: InMemoryCache, motools: Motools) -> None:
    """Progress is for what takes long."""
    done = motools("cache", "size", "--rescan")
    assert (done.code, done.err) == (0, "")
