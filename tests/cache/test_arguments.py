"""Arguments: what is let through can be sent; all else is refused as the caller's mistake, by name."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motools.cache.arguments import json_bytes, optional_text, optional_texts, text, texts, value_bytes
from motools.cache.errors import CacheRequestError
from motoolsd.wire.fields import TEXT_SIZE_MAX

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANYTHING = st.none() | st.integers() | st.binary() | ANY_TEXT | st.lists(ANY_TEXT | st.none())


@given(ANYTHING)
def test_text_that_is_let_through_can_be_encoded(value: object) -> None:
    """Everything else is a CacheRequestError, and nothing else is raised."""
    try:
        accepted = text(value, "name")
    except CacheRequestError:
        pass
    else:
        assert accepted == value
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(accepted)) == value


@given(ANYTHING)
def test_value_that_is_let_through_comes_back_as_it_was(value: object) -> None:
    """Half surrogate pairs that stand for a file name's odd bytes included."""
    try:
        accepted = value_bytes(value, "value")
    except CacheRequestError:
        pass
    else:
        assert accepted.decode("utf-8", "surrogateescape") == value


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_every_file_name_can_be_a_value(name: bytes) -> None:
    """As the operating system knows it."""
    path = Path(os.fsdecode(name))
    assert value_bytes(path, "path") == os.fsencode(path)


@given(ANYTHING)
def test_list_is_never_taken_apart_from_a_bare_text(value: object) -> None:
    """A text where a list is asked for would mean its letters."""
    try:
        accepted = texts(value, "names")
    except CacheRequestError:
        pass
    else:
        assert isinstance(value, list)
        assert accepted == value


def test_none_is_kept_where_it_means_all() -> None:
    """And nowhere else."""
    assert optional_text(None, "name") is None
    assert optional_texts(None, "names") is None
    assert optional_texts([], "names") == []
    for check in (text, texts, value_bytes):
        with pytest.raises(CacheRequestError):
            check(None, "name")


def test_longest_text_is_let_through_and_one_more_is_not() -> None:
    """The limit is the wire's."""
    longest = "x" * TEXT_SIZE_MAX
    assert text(longest, "name") == longest
    assert value_bytes(longest, "value") == longest.encode()
    assert len(json_bytes("x" * (TEXT_SIZE_MAX - 2), "config")) == TEXT_SIZE_MAX
    for check in (text, value_bytes, json_bytes):
        with pytest.raises(CacheRequestError, match="longer"):
            check(longest + "x", "name")
