"""Where a run took place: processor, kernel, file system, and the version of everything."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "motoolsd",
    "redis",
    "hiredis",
    "pymemcache",
    "diskcache",
    "lmdb",
    "uvloop",
    "msgspec",
    "aiosqlite",
    "numpy",
)
SERVERS: Final = ("redis-server", "memcached")
TIMEOUT_S: Final = 10.0
BUSY_LOAD: Final = 0.5
"""Processes that want to run beside us, above which figures are not to be published."""


def describe_machine() -> dict[str, str]:
    """What the figures depend on, before the run has put any load on it."""
    load = os.getloadavg()[0]
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": platform.release(),
        "system": _system(),
        "file system": f"{_file_system(Path(tempfile.gettempdir()))} (temporary directory)",
        "load before": f"{load:.2f}{' (somebody else was at work)' if load > BUSY_LOAD else ''}",
    }


def describe_versions() -> dict[str, str]:
    """Of Python, servers and libraries; what is missing is not listed."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    found["sqlite"] = sqlite3.sqlite_version
    for name in SERVERS:
        if (text := _server_version(name)) is not None:
            found[name] = text
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _file_system(path: Path) -> str:
    """The type of the file system that a path is on: on tmpfs, a durable write costs nothing and means nothing."""
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split(" ")
        place = Path(mount.replace("\\040", " "))
        if path.resolve().is_relative_to(place) and len(place.parts) >= len(best.parts):
            best, kind = place, found
    return kind


def _server_version(name: str) -> str | None:
    if shutil.which(name) is None:
        return None
    try:
        done = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # "Redis server v=7.0.15 sha=..." and "memcached 1.6.18".
    words = done.stdout.split()
    numbers = [word.removeprefix("v=") for word in words if word.removeprefix("v=")[:1].isdigit()]
    return numbers[0] if numbers else None
