"""Progress: a bar at a terminal, a line now and then where there is none, nothing for what is quick."""

from __future__ import annotations

import io
import sys

import pytest

from motools.cache.cleaning import Progress
from motools.cli import progress as module
from motools.cli.progress import progress


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class FakeTime:
    """A clock that a test sets."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now_s = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The clock that decides when to say something."""
    clock = FakeTime()
    monkeypatch.setattr(module, "monotonic_s", clock)
    return clock


def test_log_has_a_line_every_few_seconds(clock: FakeTime, capsys: pytest.CaptureFixture[str]) -> None:
    """Not one for each step, and none for what is quick."""
    with progress("removing") as tell:
        for done in range(100):
            clock.now_s += 0.11
            tell(Progress(done=done * 1_000, total=100_000, unit="items", freed_bytes=2_048))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "removing: 45,000 of 100,000 items, 2.0 KiB",
        "removing: 91,000 of 100,000 items, 2.0 KiB",
    ]


def test_quick_work_says_nothing(clock: FakeTime, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody waits for it."""
    with progress("counting") as tell:
        tell(Progress(done=1, total=0, unit="files", freed_bytes=0))
    assert capsys.readouterr().err == ""


def test_terminal_has_a_bar_that_goes_when_it_ends(clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn with the amount, and nothing of it is left on the screen."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("counting") as tell:
        tell(Progress(done=1, total=200, unit="files", freed_bytes=0))
        assert terminal.getvalue() == "", "it may be quick"
        clock.now_s += 1
        tell(Progress(done=50, total=200, unit="files", freed_bytes=0))
    drawn = terminal.getvalue()
    assert "counting" in drawn
    assert "50 of 200 files" in drawn
    assert drawn.endswith(("\x1b[1A\x1b[2K", "\x1b[2K", "\x1b[?25h\r\x1b[1A\x1b[2K"))


def test_dumb_terminal_gets_lines(clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot move the cursor."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with progress("counting") as tell:
        clock.now_s += 6
        tell(Progress(done=5, total=0, unit="files", freed_bytes=0))
    assert terminal.getvalue() == "counting: 5 files\n"


def test_bar_is_gone_after_an_error(clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is back, whatever ended the work."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def work() -> None:
        with progress("removing") as tell:
            clock.now_s += 1
            tell(Progress(done=1, total=2, unit="items", freed_bytes=0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert "\x1b[?25h" in terminal.getvalue(), "the cursor is shown again"
