"""Named points do nothing, unless a test has asked for it."""

from __future__ import annotations

import pytest

from motoolsd.core.points import Points, reached


def test_point_does_nothing_by_itself() -> None:
    """There is no hook in a daemon that nobody tests."""
    assert Points.hook is None
    reached("anywhere")


def test_hook_is_told_each_point_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name."""
    seen: list[str] = []
    monkeypatch.setattr(Points, "hook", staticmethod(seen.append))
    reached("rows removed")
    reached("files moved")
    assert seen == ["rows removed", "files moved"]


def test_what_a_hook_raises_goes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may let a step fail there."""

    def fail(name: str) -> None:
        raise OSError(28, name)

    monkeypatch.setattr(Points, "hook", staticmethod(fail))
    with pytest.raises(OSError, match="files moved"):
        reached("files moved")
