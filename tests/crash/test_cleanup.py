"""`kill -9` at every named point of a clean-up, an undo and a purge."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from motoolsd.adapters.points import KILL_AT, POINTS_FILE
from motoolsd.wire.cleaning import Cleaned
from motoolsd.wire.keys import Kind
from tests.crash import scene
from tests.daemons import BlockingGuest, DaemonProcess

Act = Callable[[BlockingGuest], Cleaned]

ACTS: dict[str, Sequence[Act]] = {
    "clean-up": (scene.clean_up,),
    "undo": (scene.clean_up, scene.undo),
    "purge": (scene.clean_up, scene.empty_trash),
    "freed at once": (scene.free_at_once,),
}
"""What is done; a kill may hit the last of each."""
LONG = os.environ.get("MOTOOLSD_TORTURE") == "1"


def prepared(directory: Path, acts: Sequence[Act]) -> None:
    """A cache in which everything but the last act was done."""
    daemon = DaemonProcess(directory)
    with daemon.connect() as guest:
        scene.build(directory, guest)
        for act in acts[:-1]:
            act(guest)
    daemon.stop()


def points_of(template: Path, act: Act, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The points that the last act comes by, each as often as it does."""
    directory = template.parent / "points"
    shutil.copytree(template, directory)
    file = template.parent / "points.txt"
    monkeypatch.setenv(POINTS_FILE, str(file))
    daemon = DaemonProcess(directory)
    with daemon.connect() as guest:
        act(guest)
    daemon.stop()
    monkeypatch.delenv(POINTS_FILE)
    return file.read_text().splitlines()


def chosen(points: list[str]) -> list[str]:
    """Of each point the first and the last time; all of them in the long form."""
    if LONG:
        return points
    first = {point.rpartition(":")[0]: point for point in reversed(points)}
    last = {point.rpartition(":")[0]: point for point in points}
    return list(dict.fromkeys([*first.values(), *last.values()]))


def killed_at(directory: Path, act: Act, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be killed at a point of the last act."""
    monkeypatch.setenv(KILL_AT, point)
    daemon = DaemonProcess(directory)
    with suppress(OSError), daemon.connect() as guest:
        act(guest)
    code, _ = daemon.wait()
    monkeypatch.delenv(KILL_AT)
    assert code == -signal.SIGKILL, f"the daemon came by {point} alive"


def check(directory: Path, *, may_be_gone: bool) -> None:
    """After the next start every entry is whole, in its place or in the trash; undone, all is as it was."""
    daemon = DaemonProcess(directory)
    with daemon.connect() as guest:
        found = {
            (kind, number): scene.is_hit(guest, kind, number) for kind, number in product(Kind, range(scene.ENTRIES))
        }
        removals = scene.settled_trash(guest)
        assert all(row.state == "trashed" for row in removals), removals
        for (kind, number), is_found in found.items():
            scene.check_entry(directory, kind, number, is_found=is_found, may_be_gone=may_be_gone)
        if not may_be_gone:
            for _ in removals:
                scene.undo(guest)
            assert all(scene.is_hit(guest, kind, number) for kind, number in found)
    daemon.stop()
    if not may_be_gone:
        for kind, number in found:
            assert scene.is_whole_at(directory / scene.path_of(kind, number), kind, number)
        assert all((directory / name).read_bytes() == b"nobody's" for name in scene.ORPHANS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTS)
def test_killed_clean_up_leaves_every_entry_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill -9` at each named point: afterwards each entry is whole in its place, or whole in the trash."""
    acts, template = ACTS[name], tmp_path / "template"
    prepared(template, acts)
    for number, point in enumerate(chosen(points_of(template, acts[-1], monkeypatch))):
        directory = tmp_path / str(number)
        shutil.copytree(template, directory)
        killed_at(directory, acts[-1], point, monkeypatch)
        check(directory, may_be_gone=name in ("purge", "freed at once"))


@pytest.mark.slow
def test_there_are_at_least_twenty_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named points are many enough to mean "at every step"."""
    points = []
    for name, acts in ACTS.items():
        template = tmp_path / name.replace(" ", "-") / "template"
        prepared(template, acts)
        points += [f"{name} {point}" for point in points_of(template, acts[-1], monkeypatch)]
    assert len(set(points)) >= 20, points
