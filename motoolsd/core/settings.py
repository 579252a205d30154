"""What can be set, with every limit of the daemon in one place.

Layer: core. Imports errors and wire.frames.
Invariant: a setting that is unknown or wrong is refused with its name, never ignored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from motoolsd.core.errors import StartFailed
from motoolsd.wire.frames import FRAME_SIZE_MAX
from motoolsd.wire.quantities import parse_duration, parse_size

# The upper bounds are what the kernel and the event loop take: 32 bits, and thirty years.
PositiveInt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=1e9)]
Duration = str | float
"""Seconds, or a text with units."""
ByteSize = str | int
"""Bytes, or a text with a unit."""
SCAN_INTERVAL_MIN_S = 1.0
PageSize = Annotated[int, Meta(ge=1, le=FRAME_SIZE_MAX // 4)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon's settings, as `config.toml` in the cache directory may set them."""

    durability: Literal["full", "normal"] = "full"
    """`full`: an acknowledged write survives a power cut. `normal`: it survives a crash of the daemon only."""
    idle_timeout_s: PositiveSeconds = 900.0
    """An auto-started daemon ends after this long without connections."""
    index_entries_max: PositiveInt = 1_000_000
    """Entries kept in memory; those above are read from SQLite when asked for."""
    connections_max: PositiveInt = 10_000
    """Connections beyond it are closed; less where the limit of open files is lower."""
    writer_queue_max: PositiveInt = 8_192
    """Writes that wait for a commit; above it connections are not read, and their callers wait."""
    batch_max: PositiveInt = 1_024
    """Writes in one transaction."""
    page_rows_max: PositiveInt = 1_000
    page_size_bytes: PageSize = 262_144
    """A page of a listing ends after this many rows, or bytes of text, whichever comes first."""
    load_rows: PositiveInt = 5_000
    """Rows read at once while the index is loaded."""
    usage_flush_s: PositiveSeconds = 30.0
    usage_entries_max: PositiveInt = 10_000
    """Usage counts are written this often, or when so many different entries were used."""
    watch_interval_s: PositiveSeconds = 1.0
    """How often the lock, the directory and outside edits are looked at."""
    drain_timeout_s: PositiveSeconds = 3.0
    """How long a stopping daemon lets requests in flight finish."""
    backlog: PositiveInt = 1_024
    """Connections that may wait to be accepted."""
    scan_interval: Duration = "1h"
    """How often all files are counted anew."""
    max_size: ByteSize | None = None
    """The budget: above it the daemon removes the least recently used entries by itself. None: no budget."""
    low_water: Annotated[float, Meta(gt=0, le=1)] = 0.9
    """Down to this share of `max_size`."""
    min_free: ByteSize | None = None
    """What is to stay free on the disk; less counts as a budget that is exceeded."""
    trash_keep: Duration = "7d"
    """How long what was removed can be put back."""
    trash_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """What of `max_size` the trash may take; the oldest goes above it."""
    budget_interval_s: PositiveSeconds = 10.0
    """How often the budget and the trash are looked at."""
    ballast: ByteSize = "4MiB"
    """Room that is kept for clean-ups on a full disk, in a file of this size. 0: none."""

    backup_interval: Duration = "1d"
    """How often cache.db is copied to `backups/`, if something changed since; "0": never."""
    backups_keep: Annotated[int, Meta(ge=1, le=1_000)] = 3
    """So many of these copies stay."""

    def __post_init__(self) -> None:
        """Read what has a unit.

        Raises:
            ValueError: it cannot be read.
        """
        for name in ("scan_interval", "trash_keep", "backup_interval"):
            _named(name, parse_duration, getattr(self, name))
        for name in ("max_size", "min_free"):
            if (size := getattr(self, name)) is not None:
                _named(name, parse_size, size)
        _named("ballast", parse_size, self.ballast)
        if self.max_size_bytes == 0:
            message = "a budget of 0 would evict every entry: leave it out for no budget - at `$.max_size`"
            raise ValueError(message)

    @property
    def scan_interval_s(self) -> float:
        """`scan_interval` in seconds."""
        return max(parse_duration(self.scan_interval), SCAN_INTERVAL_MIN_S)

    @property
    def max_size_bytes(self) -> int | None:
        """`max_size` in bytes."""
        return None if self.max_size is None else parse_size(self.max_size)

    @property
    def min_free_bytes(self) -> int | None:
        """`min_free` in bytes."""
        return None if self.min_free is None else parse_size(self.min_free)

    @property
    def ballast_bytes(self) -> int:
        """`ballast` in bytes."""
        return parse_size(self.ballast)

    @property
    def trash_keep_s(self) -> float:
        """`trash_keep` in seconds."""
        return parse_duration(self.trash_keep)

    @property
    def backup_interval_s(self) -> float:
        """`backup_interval` in seconds; 0: no backups are made."""
        return parse_duration(self.backup_interval)


def _named(name: str, parse: Callable[[str | float], float], value: str | float) -> None:
    try:
        parse(value)
    except ValueError as error:
        message = f"{error} - at `$.{name}`"
        raise ValueError(message) from error


def parse_settings(text: str, *, source: str) -> Settings:
    """Settings from the text of a config.toml.

    Args:
        text: the file's content.
        source: its path, for messages.

    Raises:
        StartFailed: it is no TOML, or names an unknown or wrong setting; the text says which.
    """
    found: dict[str, object] = {}
    try:
        found = tomllib.loads(text)
        return msgspec.convert(found, Settings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        message = f"{source}: {error}{_meant(found)} Mend the file, or remove it to run with the defaults"
        raise StartFailed(message) from error


def _meant(found: dict[str, object]) -> str:
    """The setting whose name is the nearest to the first that is none."""
    unknown = next((name for name in found if name not in Settings.__struct_fields__), None)
    nearest = [] if unknown is None else get_close_matches(unknown, Settings.__struct_fields__, 1)
    return f". Did you mean `{nearest[0]}`?" if nearest else "."
