"""The starter hears once whether the daemon is ready, and its read ends."""

from __future__ import annotations

import os

import msgspec
import pytest

from motoolsd.adapters.readiness import ReadinessPipe
from motoolsd.wire.messages import Failure
from motoolsd.wire.readiness import Readiness

FAILURE = Failure(code="corrupt_database", message="cache.db is damaged")


def read(descriptor: int) -> Readiness:
    """All that was said, as the starter reads it."""
    with os.fdopen(descriptor, "rb") as pipe:
        return msgspec.json.decode(pipe.read(), type=Readiness)


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        (ReadinessPipe.say_ready, Readiness(pid=os.getpid())),
        (ReadinessPipe.say_already_running, Readiness(pid=os.getpid(), already_running=True)),
        (lambda pipe: pipe.say_failed(FAILURE), Readiness(pid=os.getpid(), failure=FAILURE)),
    ],
)
def test_what_is_said_is_read_to_its_end(say: object, expected: Readiness) -> None:
    """One JSON text, then the end of the stream."""
    assert callable(say)
    reader, writer = os.pipe()
    say(ReadinessPipe(writer))
    assert read(reader) == expected


def test_only_the_first_word_counts() -> None:
    """A failure after readiness is no matter of the starter."""
    reader, writer = os.pipe()
    pipe = ReadinessPipe(writer)
    pipe.say_ready()
    pipe.say_failed(FAILURE)
    assert read(reader).failure is None


def test_pipe_is_kept_from_children() -> None:
    """A child that held it would keep the starter waiting."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    pipe = ReadinessPipe(writer)
    assert not os.get_inheritable(writer)
    pipe.say_ready()
    os.close(reader)


def test_starter_that_gave_up_is_no_error() -> None:
    """Somebody else may still want the daemon."""
    reader, writer = os.pipe()
    os.close(reader)
    ReadinessPipe(writer).say_ready()


def test_nobody_waits() -> None:
    """Without a pipe nothing is said."""
    ReadinessPipe(None).say_ready()
