"""Which versions are development versions, and which go together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.core.versions import are_compatible, is_development

DEVELOPMENT = [
    "dev",
    "DEV",
    " dev\n",
    "develop",
    "unknown",
    "dirty",
    "untagged",
    "0+unknown",
    "0+untagged.3.g1a2b3c4",
    "1.dev0",
    "1.2.dev3",
    "1.2dev",
    "1.2-dev",
    "1.2_DEV_3",
    "v1.2.dev3",
    "1!2.0.dev1",
    "1.2a1.dev2",
    "1.2rc1.dev0",
    "1.2.post1.dev2",
    "1.2.dev3+g1a2b3c4",
    "1.2.dev3+g1a2b3c4.d20260131",
    "1.2+dirty",
    "1.2+g1234",
    "1.2.0+3.g1a2b3c4.dirty",
    "2.1.0+cu118",
    "v1.2-3-g1a2b3c4",
    "v1.2-3-g1a2b3c4-dirty",
    "release-candidate-12-gdeadbeef",
    "1.2-dirty",
    "1a2b3c4-dirty",
    "1a2b3c4-broken",
    "1.2.dirty",
]
RELEASES = [
    "",
    "1",
    "1.2",
    "v1.2",
    "1.2.0",
    "1.2a1",
    "1.2rc1",
    "1.2.post1",
    "1.2-1",
    "1!2.0",
    "2026-01-31",
    "20260131",
    "prompt-7",
    "1a2b3c4",
    "3-g1a2b3c4",
    "deadbeef",
    "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b",
    "device",
    "devices-2",
    "my-dev",
    "g++",
    "1.2+",
    "1.2+-x",
    "1.2-gold",
    "v1.2-3-gold",
    "unknown-7",
    "not dirty",
    "1.2.dev3 and more",
    "1.٢.dev3",
]


@pytest.mark.parametrize("version", DEVELOPMENT)
def test_development_version_is_one(version: str) -> None:
    """Every spelling of the table is one."""
    assert is_development(version)


@pytest.mark.parametrize("version", RELEASES)
def test_other_version_is_none(version: str) -> None:
    """A release, a date, a commit, a label: whoever gives it wants its results apart."""
    assert not is_development(version)


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        ("1.0", "1.0", True),
        ("1.0", "1.1", False),
        ("1.0", "1.0.0", False),
        ("1.0", "v1.0", False),
        ("a", "A", False),
        (None, None, True),
        (None, "1.0", True),
        ("1.0", None, True),
        ("1.0", "1.1.dev0", True),
        ("0+unknown", "1.0", True),
        ("1.0.dev1", "1.0.dev2", True),
        ("", "1.0", False),
        ("", "", True),
    ],
)
def test_versions_go_together_or_not(stored: str | None, asked: str | None, *, expected: bool) -> None:
    """The rule, in whichever order."""
    assert are_compatible(stored, asked) is expected
    assert are_compatible(asked, stored) is expected


@given(st.text(), st.text())
def test_any_two_texts_are_answered(stored: str, asked: str) -> None:
    """Nothing that somebody calls a version is an error, and the order does not matter."""
    assert are_compatible(stored, asked) is are_compatible(asked, stored)


@pytest.mark.parametrize("version", ["1." * 50_000, "1.2" + "-" * 50_000, "1-" * 50_000 + "g1", "+a" * 50_000])
def test_long_version_is_answered(version: str) -> None:
    """The expressions do not go back and forth over a long text until the end of time."""
    assert not is_development(version)
