"""What can be set, with every limit of the daemon in one place.

Layer: core. Imports errors and wire.frames.
Invariant: a setting that is unknown or wrong is refused with its name, never ignored.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from motoolsd.core.errors import StartFailed
from motoolsd.wire.frames import FRAME_SIZE_MAX

# The upper bounds are what the kernel and the event loop take: 32 bits, and thirty years.
PositiveInt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=1e9)]
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


def parse_settings(text: str, *, source: str) -> Settings:
    """Settings from the text of a config.toml.

    Args:
        text: the file's content.
        source: its path, for messages.

    Raises:
        StartFailed: it is no TOML, or names an unknown or wrong setting; the text says which.
    """
    try:
        return msgspec.convert(tomllib.loads(text), Settings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        message = f"{source}: {error}. Mend the file, or remove it to run with the defaults"
        raise StartFailed(message) from error
