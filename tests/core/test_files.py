"""Which paths an entry may own: whatever a row, a client or a name says, never one outside the categories."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.files import (
    PATH_SIZE_MAX_BYTES,
    PathRefused,
    ancestors_of,
    category_of,
    check_path,
    dataset_of,
    dataset_path,
    is_within,
    overlaps,
    relative_of,
    spellings,
)
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.names import FILE_CATEGORIES

DIRECTORY = b"/home/u/project/.motools"
PARTS = st.sampled_from(
    [b"", b".", b"..", b"a", b"b", b"datasets", b"runs", b"evals", b"trash", b"\0", b"\xff", b"..."]
)
ANY_PATH = st.lists(PARTS, max_size=6).map(b"/".join)
GOOD_PART = st.binary(min_size=1, max_size=8).map(lambda part: part.replace(b"/", b"_").replace(b"\0", b"_"))
GOOD_PATH = st.builds(
    lambda category, parts: b"/".join([category.encode(), *parts]),
    st.sampled_from(FILE_CATEGORIES),
    st.lists(GOOD_PART.filter(lambda part: part not in {b".", b".."}), min_size=1, max_size=4),
)


@pytest.mark.parametrize(
    "path",
    [b"datasets/d.jsonl", b"runs/job", b"runs/job/deep/er", b"evals/caf\xe9\n/x", b"runs/...", b"runs/..a", b"runs/ "],
)
def test_what_lies_below_a_category_may_be_owned(path: bytes) -> None:
    """Any name that the kernel takes, at any depth."""
    check_path(path)
    assert category_of(path) == path.split(b"/")[0].decode()


@pytest.mark.parametrize(
    "path",
    [
        *(b"", b"/", b".", b"..", b"runs", b"runs/", b"runs/.", b"runs/..", b"runs//a", b"runs/a/", b"runs/./a"),
        *(b"/runs/a", b"//runs/a", b"./runs/a", b"../runs/a", b"runs/../evals/a", b"runs/a/..", b"runs/a/../../../x"),
        *(b"runs/../../etc/passwd", b"/etc/passwd", b"etc/passwd", b"~/x", b"file:///x", b"RUNS/a", b"runs2/a"),
        *(b"runs\\a", b"runs/a\0b", b"\0", b"runs\0/a", b"cache.db", b"stamps", b"motoolsd.sock", b"config.toml"),
        *(b"trash/1/0", b"staging/x", b"runs /a", b" runs/a", b"runs/" + b"a" * PATH_SIZE_MAX_BYTES, b"runs\n/a"),
    ],
)
def test_every_other_path_is_refused(path: bytes) -> None:
    """The refusal reaches the client, whatever bytes are in the path."""
    with pytest.raises(PathRefused) as caught:
        check_path(path)
    failure = caught.value.to_failure()
    assert failure.code == ErrorCode.INVALID_REQUEST
    assert len(failure.message.encode()) < 1_000


def test_refusal_says_which_rule_is_broken() -> None:
    """So that its reader knows what to change."""
    for path, why in (
        (b"elsewhere/a", "lie below datasets/, runs/, evals/"),
        (b"runs", "lie below"),
        (b"runs/a/", "simplest form"),
        (b"runs/\0", "no file of the cache can have the path"),
    ):
        with pytest.raises(PathRefused, match=why):
            check_path(path)


@given(ANY_PATH | st.binary(max_size=40))
def test_path_that_passes_stays_below_its_category(path: bytes) -> None:
    """Resolved as the kernel would, it is where it says it is: below one of the categories, inside the directory."""
    try:
        check_path(path)
    except PathRefused:
        return
    assert b"\0" not in path
    resolved = os.path.normpath(os.path.join(DIRECTORY, path))  # noqa: PTH118 - paths as bytes
    assert resolved == DIRECTORY + b"/" + path
    assert resolved.startswith(tuple(DIRECTORY + b"/" + name.encode() + b"/" for name in FILE_CATEGORIES))


def test_longest_path_is_what_the_kernel_takes() -> None:
    """4096 bytes with its NUL."""
    longest = b"runs/" + b"a/" * ((PATH_SIZE_MAX_BYTES - 6) // 2) + b"a"
    check_path(longest)
    with pytest.raises(PathRefused):
        check_path(longest + b"a" * (PATH_SIZE_MAX_BYTES - len(longest) + 1))


@pytest.mark.parametrize(
    ("path", "other", "within", "overlap"),
    [
        (b"runs/a", b"runs/a", True, True),
        (b"runs/a/b", b"runs/a", True, True),
        (b"runs/a", b"runs/a/b", False, True),
        (b"runs/ab", b"runs/a", False, False),
        (b"runs/a", b"runs/ab", False, False),
        (b"runs/a-b", b"runs/a", False, False),
        (b"runs/a0", b"runs/a", False, False),
        (b"evals/a", b"runs/a", False, False),
        (b"runs/a/b", b"runs/a/c", False, False),
    ],
)
def test_paths_overlap_by_whole_names(path: bytes, other: bytes, *, within: bool, overlap: bool) -> None:
    """A name that begins alike is another name."""
    assert is_within(path, other) is within
    assert overlaps(path, other) is overlaps(other, path) is overlap


@given(GOOD_PATH, GOOD_PATH)
def test_overlap_is_being_an_ancestor_or_the_same(path: bytes, other: bytes) -> None:
    """All three functions tell the same story."""
    assert is_within(path, other) == (other in [*ancestors_of(path), path])
    assert overlaps(path, other) == (is_within(path, other) or is_within(other, path))


def test_ancestors_begin_with_the_outermost() -> None:
    """The category first; the path itself is none of them."""
    assert ancestors_of(b"runs/a/b") == [b"runs", b"runs/a"]
    assert ancestors_of(b"runs") == []


def test_datasets_lie_where_the_older_package_kept_them() -> None:
    """`datasets/<hash>.jsonl`, and back."""
    assert dataset_path("a" * 64) == b"datasets/" + b"a" * 64 + b".jsonl"
    assert dataset_of(b"datasets/" + b"a" * 64 + b".jsonl") == "a" * 64


@pytest.mark.parametrize(
    "dataset_hash", ["../x", "a/b", "/", "a\0b", "/etc/passwd", "a/../../b", "x" * PATH_SIZE_MAX_BYTES]
)
def test_hash_that_is_no_file_name_has_no_path(dataset_hash: str) -> None:
    """Hashes come from clients: none leads out of datasets/, or deeper into it."""
    assert dataset_path(dataset_hash) is None


@given(st.text(max_size=20))
def test_path_of_a_dataset_leads_back_to_it(dataset_hash: str) -> None:
    """Or there is none."""
    path = dataset_path(dataset_hash)
    if path is not None:
        check_path(path)
        assert path.count(b"/") == 1
        assert dataset_of(path) == dataset_hash


@pytest.mark.parametrize(
    "path",
    [
        b"runs/a.jsonl",
        b"datasets/a.json",
        b"datasets/a",
        b"datasets/b/a.jsonl",
        b"datasets/\xff.jsonl",
        b"datasets",
        b"",
    ],
)
def test_other_paths_are_no_datasets(path: bytes) -> None:
    """A name that no hash can have belongs to none."""
    assert dataset_of(path) is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (DIRECTORY + b"/evals/m/log.eval", b"evals/m/log.eval"),
        (b".motools/evals/m/log.eval", b"evals/m/log.eval"),
        (b"./.motools/evals/m/log.eval", b"evals/m/log.eval"),
        (b"evals/m/log.eval", b"evals/m/log.eval"),
        (DIRECTORY + b"/evals/../../../../etc/passwd", None),
        (DIRECTORY + b"/../.motools/evals/m", None),
        (DIRECTORY + b"/logs/m", None),
        (DIRECTORY + b"/trash/1/0", None),
        (DIRECTORY + b"/cache.db", None),
        (DIRECTORY + b"/evals", None),
        (DIRECTORY + b"/evals/", None),
        (DIRECTORY + b"//evals/m", None),
        (DIRECTORY + b"2/evals/m", None),
        (b"/elsewhere/.motools/evals/m", None),
        (b"/elsewhere/evals/m", None),
        (b"logs/m", None),
        (b"s3://bucket/evals/m", None),
        (b"../.motools/evals/m", None),
        (DIRECTORY, None),
        (b"", None),
    ],
)
def test_log_of_an_older_row_is_recognised_by_its_text(value: bytes, path: bytes | None) -> None:
    """Absolute, or relative as jobs had it; everything else is remembered and never touched."""
    assert relative_of(value, DIRECTORY) == path


@given(GOOD_PATH)
def test_every_spelling_names_its_path(path: bytes) -> None:
    """What is looked for in rows is what is understood of them."""
    assert {relative_of(spelling, DIRECTORY) for spelling in spellings(path, DIRECTORY)} == {path}


@given(ANY_PATH | st.binary(max_size=60), st.sampled_from([b"", DIRECTORY + b"/", b".motools/", b"./.motools/"]))
def test_value_names_a_path_that_passes_or_none(value: bytes, prefix: bytes) -> None:
    """Whatever stands in a row."""
    path = relative_of(prefix + value, DIRECTORY)
    if path is not None:
        check_path(path)
