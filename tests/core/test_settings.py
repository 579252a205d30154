"""Settings are right, or refused with their name."""

from __future__ import annotations

import pytest

from motoolsd.core.errors import StartFailed
from motoolsd.core.settings import SCAN_INTERVAL_MIN_S, Settings, parse_settings


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
        ("scan_interval = 'often'", "scan_interval"),
        ("scan_interval = -1", "scan_interval"),
        ("scan_interval = true", "scan_interval"),
        ("scan_interval = nan", "scan_interval"),
        ("scan_interval = 1" + "0" * 400, "scan_interval"),
        ("trash_keep = '7y'", "trash_keep"),
        ("trash_keep = ''", "trash_keep"),
        ("trash_keep = 2026-01-01", "trash_keep"),
        ("max_size = 'much'", "max_size"),
        ("max_size = '50 GB or so'", "max_size"),
        ("max_size = 1.5", "max_size"),
        ("max_size = -1", "max_size"),
        ("max_size = 0", "evict every entry"),
        ("max_size = []", "max_size"),
        ("max_size = 1" + "0" * 30, "max_size"),
        ("min_free = '-1GB'", "min_free"),
        ("min_free = false", "min_free"),
        ("low_water = 0", "low_water"),
        ("low_water = 1.01", "low_water"),
        ("low_water = '90%'", "low_water"),
        ("trash_share = -0.1", "trash_share"),
        ("trash_share = 2", "trash_share"),
        ("budget_interval_s = 0", "budget_interval_s"),
        ("ballast = 'some'", "ballast"),
        ("ballast = -1", "ballast"),
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


def test_budget_is_off_unless_it_is_set() -> None:
    """Nothing goes by itself, and what was removed can be put back for a week."""
    settings = Settings()
    assert (settings.max_size_bytes, settings.min_free_bytes) == (None, None)
    assert (settings.trash_keep_s, settings.scan_interval_s) == (7 * 86_400, 3_600)
    assert 0 < settings.trash_share < settings.low_water < 1


def test_sizes_and_durations_have_units() -> None:
    """As people write them."""
    text = """
        max_size = "50GB"
        min_free = "1.5 GiB"
        low_water = 1
        scan_interval = "1d12h"
        trash_keep = "2w"
        trash_share = 0
    """
    settings = parse_settings(text, source="config.toml")
    assert (settings.max_size_bytes, settings.min_free_bytes) == (50 * 10**9, 3 * 2**29)
    assert (settings.scan_interval_s, settings.trash_keep_s) == (129_600, 1_209_600)
    assert (settings.low_water, settings.trash_share) == (1, 0)


def test_numbers_are_bytes_and_seconds() -> None:
    """A number needs no quotes."""
    settings = parse_settings("max_size = 1000\nscan_interval = 90\ntrash_keep = 0.5", source="config.toml")
    assert (settings.max_size_bytes, settings.scan_interval_s, settings.trash_keep_s) == (1000, 90, 0.5)


def test_scan_never_follows_upon_itself() -> None:
    """An interval of nothing is a second."""
    assert parse_settings("scan_interval = 0", source="config.toml").scan_interval_s == SCAN_INTERVAL_MIN_S


def test_refusal_says_how_it_is_written() -> None:
    """With an example, as well as the name."""
    with pytest.raises(StartFailed, match=r"'often' is no duration: .*24h.* - at `\$\.scan_interval`"):
        parse_settings("scan_interval = 'often'", source="config.toml")
    with pytest.raises(StartFailed, match=r"'much' is no size: .*50GB.* - at `\$\.max_size`"):
        parse_settings("max_size = 'much'", source="config.toml")


def test_settings_made_in_code_are_checked_too() -> None:
    """A test or an embedding program makes the same mistakes."""
    with pytest.raises(ValueError, match="trash_keep"):
        Settings(trash_keep="7y")


def test_ballast_may_be_turned_off() -> None:
    """By a zero, as text or number."""
    assert Settings().ballast_bytes == 4 << 20
    assert [parse_settings(f"ballast = {value}", source="").ballast_bytes for value in ("0", "'0'", "'1MiB'")] == [
        0,
        0,
        1 << 20,
    ]


def test_unknown_setting_is_named_with_the_nearest_that_there_is() -> None:
    """A slip of the pen is told; what resembles nothing is only refused."""
    with pytest.raises(StartFailed, match="Did you mean `max_size`"):
        parse_settings("max_sise = 1", source="config.toml")
    with pytest.raises(StartFailed, match="zzz") as raised:
        parse_settings("zzz = 1", source="config.toml")
    assert "Did you mean" not in str(raised.value)
