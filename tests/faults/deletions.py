"""Deletes only its own: directories swapped for links in a loop; deep, looping, mounted-over trees; hostile names."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final
from unittest import mock

from motools.cache import SyncCache
from motools.cache.errors import CacheError
from tests.adapters.places import nothing
from tests.crash import attacker
from tests.crash.arena import KINDS, Arena, naive, opened
from tests.daemons import TIMEOUT_S, running
from tests.faults.attack import Attack, Report, scratch

SWAPPING_S: Final = 6.0
"""A round's: ten of each operation make the minute."""
DEPTH: Final = 400
NAMES: Final = (
    *(b"-rf", b"--", b"\xff\xfe", b"new\nline", b"\x1b[2J", b"a b", b"*"),
    *(b"..hidden", b"\xe2\x80\xaegpj.exe", b"x" * 255),
)
PRECIOUS: Final = b"precious"


def attack(report: Report, rounds: range, bug: str | None = None, swapping_s: float = SWAPPING_S) -> None:
    """Swap in most rounds, and build hostile trees in the others."""
    kinds: list[Callable[[Report, int, str | None, float], None]] = [_swapped(kind) for kind in range(len(KINDS))]
    kinds += [_hostile_tree]
    for number in rounds:
        kinds[number % len(kinds)](report, number, bug, swapping_s)
        report.rounds += 1


def _swapped(kind: int) -> Callable[[Report, int, str | None, float], None]:
    """An operation under the swapping attacker, again and again."""

    def swap(report: Report, number: int, bug: str | None, swapping_s: float) -> None:
        name = KINDS[kind].__name__
        told: Counter[str] = Counter()
        # Not the disk is attacked.
        with scratch() as top, mock.patch.object(os, "fsync", nothing):
            arena = Arena(top)
            arena.build()
            ends_s = time.monotonic() + swapping_s
            with arena.attacked() as wake:
                while time.monotonic() < ends_s:
                    arena.build()
                    report.count(f"operations under swapping ({name})")
                    if bug is not None:
                        wake()
                        with suppress(OSError):
                            naive(f"{arena.cache}/runs/job")
                        arena.rest()
                    else:
                        with opened(arena) as tree:
                            try:
                                KINDS[kind](arena, tree, told, wake)
                            except AssertionError as error:
                                report.violate(f"round {number}, {name}: {str(error)[:300]}")
                                arena.rest()
                    if arena.all_outside() != arena.before:
                        report.count("lost outside")
                        report.violate(f"round {number}, {name}: a file outside was changed or lost")
                        return
        report.count("lost outside", 0)

    return swap


def _hostile_tree(report: Report, number: int, bug: str | None, _swapping_s: float) -> None:
    """A run with everything that a file system allows, cleared with its files, and the trash emptied."""
    where = f"round {number}, a hostile tree"
    random = Random(number)
    with scratch() as top:
        outside, directory = top / "outside", top / ".motools"
        (outside / "sub").mkdir(parents=True)
        for path in (outside / "file", outside / "sub" / "file"):
            path.write_bytes(PRECIOUS)
        before = _state(outside)
        directory.mkdir()
        with running(directory), SyncCache(directory, autostart=False, timeout_s=4 * TIMEOUT_S) as cache:
            run = directory / "runs" / "hostile"
            run.mkdir(parents=True)
            mounted = _build(run, outside, random)
            try:
                if bug is not None:
                    shutil.rmtree(outside)  # what a clean-up that follows links would do
                cache.set_model_id("d", {"seed": number}, "m", run_dir=run)
                told = cache.clear_models(["m"], delete_files=True)
                cache.empty_trash()
                report.count("hostile trees")
                left = sorted(_names_left(directory))
                is_told = bool(told.left) or bool(cache.list_trash()) or run.exists()
                report.expect(not left or is_told, f"{where}: {left[:3]} stay, and nobody was told")
                report.expect(mounted is not None or not left, f"{where}: {left[:3]} stay")
            except CacheError as error:
                report.expect(mounted is not None, f"{where}: {type(error).__name__}: {error}")
                report.count("refused in words")
            finally:
                if mounted is not None:
                    _unmount(directory)
        report.expect(_state(outside) == before, f"{where}: a file outside was changed or lost")
        report.count("lost outside", _state(outside) != before)


def _build(run: Path, outside: Path, random: Random) -> Path | None:
    """Fill a run; where something is mounted in it, if anything."""
    deep = os.open(run, os.O_DIRECTORY)
    for _ in range(DEPTH):
        os.mkdir(b"d", dir_fd=deep)
        below = os.open(b"d", os.O_DIRECTORY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.symlink(os.fsencode(outside), b"out", dir_fd=deep)
    os.close(deep)
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(run) + b"/" + name)).write_bytes(name)
    (run / "loop").symlink_to(run)
    (run / "up").symlink_to("..")
    (run / "outside").symlink_to(outside)
    (run / "file outside").symlink_to(outside / "file")
    (run / "nowhere").symlink_to("/nonexistent/\n")
    os.mkfifo(run / "fifo")
    with socket.socket(socket.AF_UNIX) as bound, suppress(OSError):
        bound.bind(str(run / "socket"))
    with (run / "sparse").open("wb") as sparse:
        sparse.truncate(2**40)
    os.link(outside / "file", run / "linked")  # its other name, not the file, is what goes
    sealed = run / "sealed"
    sealed.mkdir()
    (sealed / "file").write_bytes(b"x")
    sealed.chmod(0o500)
    if random.random() < 0.5 or os.geteuid() != 0:
        return None
    mounted = run / "mounted"
    mounted.mkdir()
    done = subprocess.run(["mount", "--bind", str(outside), str(mounted)], capture_output=True, check=False)
    return mounted if done.returncode == 0 else None


def _unmount(directory: Path) -> None:
    """Wherever it was moved to."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    for path in (line.split()[4] for line in mounts):
        if path.startswith(str(directory)):
            subprocess.run(["umount", "--lazy", path.encode().decode("unicode_escape")], check=False)


def _names_left(directory: Path) -> list[str]:
    """Everything that is still in runs and in the trash."""
    return [str(path) for place in ("runs", "trash") for path in (directory / place).glob("*")]


def _state(top: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below: inode and content."""
    return {str(path): (path.stat().st_ino, path.read_bytes()) for path in sorted(top.rglob("*")) if path.is_file()}


ATTACK = Attack(
    name="deletions",
    promise="deletes only its own",
    says="directories swapped for links in a loop; deep, looping, mounted-over trees; hostile names, links, pipes",
    wanted="a minute for each operation, 10 hostile trees, 0 lost outside",
    rounds=10 * (len(KINDS) + 1),
    chunk=len(KINDS) + 1,
    run=attack,
    unavailable=lambda: None if attacker.can_exchange() else "this C library cannot exchange two paths",
)
