"""Hints: which there are. That they never say no where a condition holds is tested with the conditions."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.where import Condition, Operator, parse_where
from motoolsd.store.hints import name_hint, text_hint
from motoolsd.wire.keys import Kind


def condition_of(text: str) -> Condition:
    """A condition on a model."""
    return parse_where(text, Kind.MODEL, 0.0)


def says(raw: sqlite3.Connection, text: str, config: str) -> tuple[bool | None, bool | None]:
    """What the hints of a condition say of a configuration: by its text, by its name; None: there is no hint."""
    condition = condition_of(text)
    said: list[bool | None] = []
    for hint in (text_hint(condition), name_hint(condition)):
        if hint is None:
            said.append(None)
            continue
        statement = f"SELECT {hint.sql} FROM (SELECT ? AS config)"
        (found,) = raw.execute(statement, (*hint.parameters, config)).fetchone()
        said.append(bool(found))
    return said[0], said[1]


@pytest.mark.parametrize(
    ("text", "config", "said"),
    [
        ("config.a=b", '{"a":"b"}', (True, True)),
        ("config.a=b", '{"a":"bc"}', (False, True)),
        ("config.a=b", '{"c":"b"}', (True, False)),
        ("config.a~b", '{"a":"abc"}', (True, True)),
        ("config.a~b", '{"a":"c"}', (False, True)),
        ("config.a=é", '{"a":"\\u00e9"}', (True, True)),
        ("config.a=é", '{"a":"e"}', (False, True)),
        ("config.a=é", '{"a":"\\n"}', (False, True)),
        ("config.a=é", '{"a":"é"}', (True, True)),
        ("config.é", '{"\\u00E9":1}', (None, True)),
        ("config.é", '{"e":1}', (None, False)),
        ("config.a=x/y", '{"a":"x\\/y"}', (True, True)),
        ("config.a=x/y", '{"a":"x\\u002fy"}', (True, True)),
        ("config.a=x/y", '{"a":"x\\ny"}', (False, True)),
        (r'config.a~"\""', '{"a":"\\u0022"}', (True, True)),
        ("config.a=qu[e]s*t?", '{"a":"qu[e]s*t?"}', (True, True)),
        ("config.a=qu[e]s*t?", '{"a":"quest"}', (False, True)),
        ("config.a=qu[e]s*t?", '{"a":"qu[e]sTt?"}', (False, True)),
        ("config.a~*", '{"a":"b"}', (False, True)),
        ("config.a~*", '{"a":"b*"}', (True, True)),
        ("config.long_names", '{"long_names":1}', (None, True)),
        ("config.long_names", '{"Long_Names":1}', (None, False)),
        ("config.a=77", '{"a":77.0}', (True, True)),
        ("config.a=77", '{"a":78}', (False, True)),
        ("config.a=7", '{"a":8}', (None, True)),
        ("config.a=10000000", '{"a":1E7}', (None, True)),
        ("config.a>77", '{"a":8}', (None, True)),
        ("config[0]", "[1]", (None, None)),
        ("!config.a", "{}", (None, None)),
    ],
)
def test_hints_look_at_the_text(
    raw: sqlite3.Connection, text: str, config: str, said: tuple[bool | None, bool | None]
) -> None:
    """For what is found in it, and never for what may be written in other letters."""
    assert says(raw, text, config) == said


def test_plain_fields_have_no_hints() -> None:
    """They are compared as they are."""
    condition = parse_where("model_id=a", Kind.MODEL, 0.0)
    assert text_hint(condition) is name_hint(condition) is None


@pytest.mark.parametrize("text", ["config.quote=b", "config.quote~b", "config.quote=77", "config.quote=b/c"])
def test_bytes_count_as_the_text_that_they_are(raw: sqlite3.Connection, text: str) -> None:
    """Somebody may have written a configuration so by hand, and SQLite reads it; its GLOB may refuse to."""
    (hint, name), value = (text_hint(condition_of(text)), name_hint(condition_of(text))), text[13:]
    assert hint is not None
    assert name is not None
    config = f'{{"quote":"{value}"}}'.encode()
    for term in (hint, name):
        (found,) = raw.execute(f"SELECT {term.sql} FROM (SELECT ? AS config)", (*term.parameters, config)).fetchone()
        assert found == 1


@given(st.text(min_size=1, max_size=12), st.booleans(), st.booleans())
def test_text_is_found_however_it_is_written(text: str, is_escaped: bool, has_slashes: bool) -> None:  # noqa: FBT001
    """In other letters too, and whatever it holds that a pattern has a meaning for."""
    if "\0" in text:
        return  # no condition has it
    config = json.dumps({"a": f"x{text}y", text: text}, ensure_ascii=is_escaped)
    if has_slashes:
        config = config.replace("/", "\\/")
    with closing(sqlite3.connect(":memory:")) as raw:
        for steps, operator in ((("a",), Operator.CONTAINS), ((text,), Operator.EQUAL)):
            condition = Condition("config", steps, operator, text)
            for hint in (text_hint(condition), name_hint(condition)):
                assert hint is not None
                statement = f"SELECT {hint.sql} FROM (SELECT ? AS config)"
                assert raw.execute(statement, (*hint.parameters, config)).fetchone() == (1,)
