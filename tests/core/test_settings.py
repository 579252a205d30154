"""Settings are right, or refused with their name."""

from __future__ import annotations

import pytest

from motoolsd.core.errors import StartFailed
from motoolsd.core.settings import Settings, parse_settings


def test_empty_file_means_defaults() -> None:
    """Nothing needs to be set."""
    assert parse_settings("", source="config.toml") == Settings()


def test_known_settings_are_taken() -> None:
    """By their names, in TOML's types."""
    settings = parse_settings('durability = "normal"\nidle_timeout_s = 60.5', source="config.toml")
    assert (settings.durability, settings.idle_timeout_s) == ("normal", 60.5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("durabilty = 'full'", "durabilty"),
        ("durability = 'off'", "durability"),
        ("batch_max = 0", "batch_max"),
        ("idle_timeout_s = '15m'", "idle_timeout_s"),
        ("idle_timeout_s = nan", "idle_timeout_s"),
        ("idle_timeout_s = inf", "idle_timeout_s"),
        ("backlog = 4294967296", "backlog"),
        ("batch_max = true", "batch_max"),
        ("page_size_bytes = 16777216", "page_size_bytes"),
        ("batch_max = ", "Invalid value"),
        ("batch_max = " + "[" * 5000, "recursion"),
    ],
    ids=lambda text: str(text)[:30],
)
def test_wrong_setting_is_refused_by_name(text: str, named: str) -> None:
    """The refusal says which file and which setting."""
    with pytest.raises(StartFailed, match=r"/c/config\.toml") as caught:
        parse_settings(text, source="/c/config.toml")
    assert named in caught.value.message


def test_whole_seconds_are_seconds() -> None:
    """TOML tells 60 from 60.0; people do not."""
    assert parse_settings("idle_timeout_s = 60", source="config.toml").idle_timeout_s == 60.0
