"""Settings that are read again."""

from __future__ import annotations

import logging

import msgspec
import pytest

from motoolsd.core.errors import StartFailed, StorageFailed
from motoolsd.core.settings import Settings
from motoolsd.tasks.reloading import RELOADABLE, Reloading


class Whole:
    """The daemon that settings are applied to."""

    def __init__(self) -> None:
        """With the defaults."""
        self.file: Settings | Exception = Settings()
        self.applied: list[Settings] = []
        self.durability: list[str] = []
        self.disk_fails = False

    def read(self) -> Settings:
        """The file as it is now."""
        if isinstance(self.file, Exception):
            raise self.file
        return self.file

    async def set_durability(self, synchronous: str) -> None:
        """As the store's."""
        if self.disk_fails:
            raise StorageFailed("no")
        self.durability.append(synchronous)

    def reloading(self) -> Reloading:
        """From the start on."""
        return Reloading(Settings(), self.read, self.applied.append, self.set_durability)


def test_every_reloadable_setting_is_one() -> None:
    """None is named that does not exist."""
    assert set(Settings.__struct_fields__) >= RELOADABLE


async def test_what_can_change_is_applied_and_the_rest_named(caplog: pytest.LogCaptureFixture) -> None:
    """Named again at each reload until it is as it was; durability changes once."""
    whole = Whole()
    reloading = whole.reloading()
    whole.file = Settings(durability="normal", batch_max=7)
    with caplog.at_level(logging.INFO):
        await reloading.reload()
        await reloading.reload()
    assert whole.durability == ["NORMAL"]
    assert whole.applied == [whole.file] * 2
    assert caplog.text.count("changed: durability") == 1
    assert caplog.text.count("changed: nothing") == 1
    assert caplog.text.count("need a restart of the daemon: batch_max") == 2


@pytest.mark.parametrize("failing", ["file", "disk"])
async def test_what_cannot_be_applied_changes_nothing(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bad file, or a database that refuses: the old settings stay, and the next reload tries again."""
    whole = Whole()
    reloading = whole.reloading()
    good = msgspec.structs.replace(Settings(), durability="normal")
    whole.file = StartFailed("a setting is wrong") if failing == "file" else good
    whole.disk_fails = failing == "disk"
    await reloading.reload()
    assert whole.applied == []
    assert "the settings stay as they were" in caplog.text
    whole.file, whole.disk_fails = good, False
    await reloading.reload()
    assert whole.applied == [good]
