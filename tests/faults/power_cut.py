"""An acknowledged write survives a power cut, and no entry points at a file that is not whole: on real file systems."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from tests.daemons import DaemonProcess
from tests.faults.attack import Attack, Report, scratch
from tests.faults.disk import Kind, LoopDisk, loop_disk, unavailable
from tests.faults.kills import check_database, compare, work_until
from tests.faults.state import Ledger

CUT_AFTER_S: Final = (0.02, 0.3)
SIZE_BYTES: Final = 320 << 20


def attack(report: Report, rounds: range, bug: str | None = None, kind: Kind = "ext4") -> None:
    """Cut the power under writers, play the journal back, and look for everything that was answered."""
    with scratch() as top, loop_disk(top, kind, size_bytes=SIZE_BYTES) as disk:
        directory, ledger = disk.path / ".motools", Ledger()
        directory.mkdir(mode=0o700)
        for number in rounds:
            _round(number, disk, directory, ledger, report, bug)
            report.rounds += 1
        check_database(directory, report)


def attack_both(report: Report, rounds: range) -> None:
    """ext4 and xfs in turn, a chunk of rounds each."""
    attack(report, rounds, kind="xfs" if _has_xfs() and rounds.start // ATTACK.chunk % 2 else "ext4")


def _has_xfs() -> bool:
    return shutil.which("mkfs.xfs") is not None


def _round(number: int, disk: LoopDisk, directory: Path, ledger: Ledger, report: Report, bug: str | None) -> None:
    where = f"round {number}"
    daemon = DaemonProcess(directory, bug=bug)
    try:
        if daemon.readiness is None or daemon.readiness.failure is not None:
            report.violate(f"{where}: the daemon does not start: {daemon.readiness}, {daemon.wait()}")
            return
        # Nobody remembers anything here: a client that has the stamps mapped would keep the disk busy.
        compare(directory, None, ledger, report, where)
        work_until(partial(_cut, disk, daemon, Random(number).uniform(*CUT_AFTER_S)), number, directory, ledger, report)
    finally:
        daemon.kill()
        disk.unmount()
        disk.mount()
    report.count("power cuts")


def _cut(disk: LoopDisk, daemon: DaemonProcess, after_s: float) -> None:
    time.sleep(after_s)
    disk.cut_power()
    daemon.kill()


ATTACK = Attack(
    name="power_cut",
    promise="an acknowledged write survives a power cut, and no entry points at a file that is not whole",
    says="ext4 and xfs shut down unflushed under writes, clears, leases, publications and removals",
    wanted="200 cuts, 0 lost, 0 corrupt, 0 dangling",
    rounds=200,
    chunk=10,
    run=attack_both,
    unavailable=unavailable("ext4"),
)
