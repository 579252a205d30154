"""File names inside a cache directory, and the limits of the address of its socket.

Layer: wire. Imports nothing.
Invariant: both sides build every path from these names; none is spelled anywhere else.
"""

from __future__ import annotations

from typing import Final

DATABASE: Final = "cache.db"
SOCKET: Final = "motoolsd.sock"
LOCK: Final = "motoolsd.lock"
START_LOCK: Final = "motoolsd.start"
LOG: Final = "motoolsd.log"
EARLIER_LOG: Final = "motoolsd.log.1"
"""What the log was before it became too large; one before that is gone."""
STAMPS: Final = "stamps"
CONFIG: Final = "config.toml"
BALLAST: Final = "ballast"
"""Room that is kept, to be let go of where a disk is full: so that what frees room can still be written down."""
BALLAST_SPARES: Final = ("ballast.1", "ballast.2", "ballast.3")
"""Empty: each keeps an inode, as many as a daemon needs to start (-wal, -shm, socket)."""

DATASETS: Final = "datasets"
RUNS: Final = "runs"
EVALS: Final = "evals"
DATASET_SUFFIX: Final = ".jsonl"
"""A dataset's content is `datasets/<hash>.jsonl`, whatever its format: that is where the older package kept it."""
TRASH: Final = "trash"
STAGING: Final = "staging"
BACKUPS: Final = "backups"
"""The daemon's own copies of the database."""
FILE_CATEGORIES: Final = (DATASETS, RUNS, EVALS)
"""Directories of files that belong to entries, made with the cache directory."""

INVISIBLE_PID: Final = 0
"""What the kernel gives as the pid of a peer in another PID namespace."""

SOCKET_PATH_SIZE_MAX: Final = 107
"""Bytes that fit into `sockaddr_un.sun_path` beside its final NUL; longer paths go through /proc/self/fd."""
