"""A file of stamps that a test writes in place of a daemon, and a scripted daemon that names it in its welcome."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from motoolsd.wire.envelopes import RequestEnvelope
from motoolsd.wire.keys import SLOT_COUNT, STAMPS_SIZE_BYTES, Kind, slot_of
from motoolsd.wire.messages import Hello, Used
from motoolsd.wire.names import STAMPS
from motoolsd.wire.version import __version__
from tests.cache.scripted import Script, ScriptedDaemon, Talk, answer_to

BASE = 1_000
TIMEOUT_S = 5.0


class StampsFile:
    """The numbers of one directory."""

    def __init__(self, directory: Path) -> None:
        """Make the file, all numbers alike; one that was there stays with those who have mapped it."""
        directory.mkdir(exist_ok=True)
        self.path = directory / STAMPS
        made = directory / "made"
        made.write_bytes(bytes(STAMPS_SIZE_BYTES))
        made.rename(self.path)
        with self.path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), STAMPS_SIZE_BYTES)).cast("Q")
        for slot in range(SLOT_COUNT):
            self._numbers[slot] = BASE
        found = self.path.stat()
        self.identity = (found.st_dev, found.st_ino)

    def change(self, key: str, kind: Kind = Kind.DATASET) -> None:
        """What a daemon does when a key's value changes."""
        self._numbers[slot_of(kind, key)] += 1

    def greet(self, talk: Talk) -> None:
        """Welcome a client, and name this file."""
        hello = talk.next()
        if hello is None:
            return
        assert isinstance(hello.body, Hello)
        welcome = talk.session.welcome(version=__version__, pid=os.getpid(), started_by="command", stamps=self.identity)
        talk.reply(hello, welcome)

    def serve(self, talk: Talk) -> None:
        """Welcome, and answer everything but notices."""
        self.greet(talk)
        while (request := next_question(talk)) is not None:
            talk.reply(request, answer_to(request.body))

    def serve_then_hold(self, count: int) -> Script:
        """Answer so many questions; take what comes afterwards, and say nothing."""

        def script(talk: Talk) -> None:
            self.greet(talk)
            for _ in range(count):
                request = next_question(talk)
                assert request is not None
                talk.reply(request, answer_to(request.body))
            talk.wait_until_gone()

        return script


def next_question(talk: Talk) -> RequestEnvelope | None:
    """The next request that wants an answer, or None when the client has gone."""
    while (request := talk.next()) is not None:
        if not isinstance(request.body, Used):
            return request
    return None


def hits_told_at_last(daemon: ScriptedDaemon, count: int) -> dict[str, int]:
    """What all notices together say, once they say so many hits: what was told at close is read when it is read."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while sum((told := hits_told(daemon)).values()) < count and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return told


def hits_told(daemon: ScriptedDaemon) -> dict[str, int]:
    """What all notices together say."""
    told: dict[str, int] = {}
    for request in list(daemon.requests):
        if isinstance(request, Used):
            for key, count in request.hits.items():
                told[key] = told.get(key, 0) + count
    return told
