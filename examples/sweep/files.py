"""Files of the cache directory: a reader sees a whole file or none, also after a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file under another name, bring it to the disk, then give it its name.

    Args:
        path: where it will stand; missing folders are made.
        content: all of it.

    Raises:
        OSError: the disk is full, or the folder is not ours. Nothing stands at `path` that was not there before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Bring a folder's list of names to the disk: a renamed file is safe only then."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
