"""Labels come from three places, the nearest wins, and a mistake in the environment is named."""

from __future__ import annotations

import pytest

from motools.cache.errors import CacheRequestError
from motools.cache.labels import (
    ENVIRONMENT_SIZE_MAX,
    LABEL_SIZE_MAX,
    LABELS_MAX,
    VARIABLE,
    labels_from_environment,
    merged_labels,
)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", {}),
        (" , ,\n", {}),
        ("experiment=e1", {"experiment": "e1"}),
        ("experiment=e1,owner=ann", {"experiment": "e1", "owner": "ann"}),
        ("experiment=e1 owner=ann", {"experiment": "e1", "owner": "ann"}),
        ("  a=1 ,\tb=2\n,c=3,", {"a": "1", "b": "2", "c": "3"}),
        ('note="two words, and a comma"', {"note": "two words, and a comma"}),
        ('"the name"=x', {"the name": "x"}),
        (r'a="say \"hi\" \\ \n"', {"a": 'say "hi" \\ n'}),
        ("a=b=c", {"a": "b=c"}),
        ("größe=groß", {"größe": "groß"}),
        ("a='x'", {"a": "'x'"}),
        ("a=1;b", {"a": "1;b"}),
    ],
)
def test_environment_is_read(text: str, labels: dict[str, str]) -> None:
    """Commas or white space between; double quotes round anything."""
    assert labels_from_environment({VARIABLE: text}) == labels


def test_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """As set when it is asked, not at import."""
    monkeypatch.setenv(VARIABLE, "a=1")
    assert labels_from_environment() == {"a": "1"}
    monkeypatch.delenv(VARIABLE)
    assert labels_from_environment() == {}


@pytest.mark.parametrize(
    "text",
    [
        "experiment",
        "=e1",
        "a=1,b",
        'a="open',
        'a=b"c',
        'a="b"c',
        '"a"',
        "a = 1",
        "a=",
        '""=x',
        "a=1,a=2",
        "a=" + "x" * (LABEL_SIZE_MAX + 1),
        ",".join(f"a{number}=1" for number in range(LABELS_MAX + 1)),
        " " * (ENVIRONMENT_SIZE_MAX + 1),
        "a=\udcff",
    ],
)
def test_mistake_names_the_variable_and_shows_the_form(text: str) -> None:
    """Whoever set it in a job script sees where, and what to write instead."""
    with pytest.raises(CacheRequestError, match=VARIABLE) as caught:
        labels_from_environment({VARIABLE: text})
    assert len(str(caught.value)) < 500
    if len(text) <= ENVIRONMENT_SIZE_MAX:
        assert "experiment=e1,owner=ann" in str(caught.value)


def test_nearest_label_wins() -> None:
    """The call over the cache, the cache over the environment; what each has alone stays."""
    environment, cache, call = {"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "2"}, {"c": "3"}
    assert merged_labels(environment, cache, call) == {"a": "1", "b": "2", "c": "3"}
    assert (environment, cache, call) == ({"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "2"}, {"c": "3"})
    assert merged_labels(None, {}, None) == {}


def test_as_many_as_allowed_are_taken() -> None:
    """The limits are part of what is allowed."""
    labels = {f"{number:0>{LABEL_SIZE_MAX}}": "ä" * LABEL_SIZE_MAX for number in range(LABELS_MAX)}
    assert merged_labels(labels) == labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": 1}, "label a must be text, not int"),
        ({1: "a"}, "a label's name must be text, not int"),
        ({"a": ""}, "label a is empty"),
        ({"": "a"}, "a label's name is empty"),
        ({"a": "x" * (LABEL_SIZE_MAX + 1)}, "label a is longer than 256"),
        ({"x" * (LABEL_SIZE_MAX + 1): "a"}, "a label's name is longer than 256"),
        ({"a": "\ud800"}, "label a holds a character"),
        ({str(number): "x" for number in range(LABELS_MAX + 1)}, "65 labels: an entry may have 64"),
        (["a=1"], "labels must be a mapping of texts, not list"),
    ],
)
def test_bad_label_is_refused(labels: dict[str, str], message: str) -> None:
    """With its name."""
    with pytest.raises(CacheRequestError, match=message):
        merged_labels(labels)


def test_credential_in_a_label_is_masked() -> None:
    """Wherever it came from."""
    environment = labels_from_environment({VARIABLE: "api_key=hunter2 experiment=e1"})
    assert merged_labels(environment, {"note": "sk-proj-abcDEF0123456789"}) == {
        "api_key": "***",
        "experiment": "e1",
        "note": "***",
    }
