"""What the disk refuses fails one request, never the daemon."""

from __future__ import annotations

import pytest

from motoolsd.core.errors import StorageFailed
from motoolsd.core.ports import DiskFull, PathChanged, ReadOnly, TreeError
from motoolsd.engine.disk import run_on_disk


async def test_what_works_gives_its_answer() -> None:
    """As if it had been called here."""
    assert await run_on_disk(lambda: 42) == 42


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DiskFull(b"runs/a", "no room is left"), r"disk is full \(runs/a: no room is left\): .*cache trash empty"),
        (ReadOnly(b"runs/a", "it is so"), r"read-only \(runs/a: it is so\)"),
        (TreeError(b"runs/\xff", "Input/output error"), r"refuses: runs/\\xff: Input/output error"),
        (PathChanged(b"runs/a", "it is another"), r"refuses: runs/a: it is another"),
    ],
)
async def test_every_error_of_the_tree_is_a_refusal(error: TreeError, expected: str) -> None:
    """It names the path, and what to do about a full disk."""

    def fail() -> None:
        raise error

    with pytest.raises(StorageFailed, match=expected):
        await run_on_disk(fail)


async def test_defect_stays_one() -> None:
    """Only what the port promises is told to clients."""
    with pytest.raises(ZeroDivisionError):
        await run_on_disk(lambda: 1 // 0)
