"""What one connection may have open, and may make us hold, is bounded; nothing is refused for it."""

from __future__ import annotations

import asyncio
import logging

import anyio
import msgspec
import pytest

from motoolsd.server.connection import FLUSH_SIZE_BYTES
from motoolsd.wire.envelopes import ReplyEnvelope
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.frames import HEADER
from motoolsd.wire.messages import OUTSTANDING_MAX, Failure, Found, Welcome
from tests.server.scripted import Conversation, frames, lookup, waiting


async def settle() -> None:
    """Let what was called soon run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_hello_is_answered_with_welcome() -> None:
    """The first message is greeted before anything else is taken."""
    talk = Conversation(greet=False)
    talk.connection.data_received(talk.hello())
    (welcome,) = talk.read()
    assert isinstance(welcome.body, Welcome)
    assert welcome.body.started_by == "command"


@pytest.mark.parametrize("stamps", [(2049, 2**63), None])
async def test_welcome_says_which_file_of_stamps_is_ours(stamps: tuple[int, int] | None) -> None:
    """A client maps that one and no other; without one it asks at every lookup."""
    talk = Conversation(greet=False)
    talk.guests.stamps = stamps
    talk.connection.data_received(talk.hello())
    (welcome,) = talk.read()
    assert isinstance(welcome.body, Welcome)
    assert welcome.body.stamps == stamps


async def test_other_protocol_is_told_why_and_closed() -> None:
    """A client of another protocol number gets a reason, not silence."""
    talk = Conversation(greet=False)
    talk.connection.data_received(talk.hello(protocol=99))
    (failure,) = talk.read()
    assert isinstance(failure.body, Failure)
    assert failure.body.code == ErrorCode.VERSION_MISMATCH
    assert talk.transport.closed


async def test_pipelined_requests_are_answered_in_one_write() -> None:
    """Requests that came together leave together, in data_received itself."""
    talk = Conversation()
    numbers = talk.send(*[lookup() for _ in range(50)])
    assert len(talk.transport.writes) == 1
    assert [reply.id for reply in talk.read()] == numbers


async def test_replies_of_one_wake_up_leave_in_one_write() -> None:
    """A batch that commits answers all of its requests at once."""
    talk = Conversation()
    numbers = talk.send(*[waiting() for _ in range(20)])
    for number in numbers:
        talk.dispatcher.finish(number)
    await settle()
    assert len(talk.transport.writes) == 1
    assert [reply.id for reply in talk.read()] == numbers


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_bytes_may_arrive_in_any_pieces(size: int) -> None:
    """Frames are cut as they are, not as they came."""
    talk = Conversation()
    data = b"".join(bytes(talk.session.request(lookup())[1]) for _ in range(5))
    for start in range(0, len(data), size):
        talk.connection.data_received(data[start : start + size])
    assert len(talk.read()) == 5


async def test_reading_stops_above_the_outstanding_limit_and_goes_on_below_it() -> None:
    """Nothing is refused: what came too early waits in the buffer, and is taken when there is room."""
    talk = Conversation()
    talk.flood(*[waiting() for _ in range(OUTSTANDING_MAX + 5)])
    assert len(talk.dispatcher.taken) == OUTSTANDING_MAX
    assert not talk.transport.is_reading()
    first = talk.dispatcher.taken[0]
    talk.dispatcher.finish(first)
    await settle()
    assert len(talk.dispatcher.taken) == OUTSTANDING_MAX + 1
    assert not talk.transport.is_reading()
    for number in list(talk.dispatcher.open)[:10]:
        talk.dispatcher.finish(number)
    await settle()
    assert len(talk.dispatcher.taken) == OUTSTANDING_MAX + 5
    assert talk.transport.is_reading()


async def test_full_queue_stops_reading_instead_of_refusing() -> None:
    """With a full writer the request is held, nothing after it is taken, and it goes on when there is room."""
    talk = Conversation()
    talk.dispatcher.is_full = True
    write, following = talk.send(waiting(), lookup())
    assert talk.dispatcher.taken == []
    assert not talk.transport.is_reading()
    assert talk.read() == []
    talk.dispatcher.announce_space()
    assert talk.dispatcher.taken == [write, following]
    assert talk.transport.is_reading()
    assert [reply.id for reply in talk.read()] == [following]


async def test_held_request_asks_for_space_once() -> None:
    """Other wake-ups do not pile up callbacks."""
    talk = Conversation()
    (open_one,) = talk.send(waiting())
    talk.dispatcher.is_full = True
    talk.send(waiting())
    for _ in range(3):
        talk.connection.resume_writing()
    talk.dispatcher.finish(open_one)
    await settle()
    assert len(talk.dispatcher.callbacks) == 1
    talk.dispatcher.announce_space()
    assert len(talk.dispatcher.taken) == 2


async def test_held_request_of_a_lost_connection_is_not_carried_out() -> None:
    """Nobody waits for it any more; its client may have retried it elsewhere by now."""
    talk = Conversation()
    talk.dispatcher.is_full = True
    talk.send(waiting())
    talk.connection.connection_lost(None)
    talk.dispatcher.announce_space()
    assert talk.dispatcher.taken == []
    assert talk.guests.left == 1


async def test_client_that_never_reads_bounds_memory() -> None:
    """Thousands of small requests with large answers, in one read: taking stops as soon as the answers pile up."""
    value = b"x" * 100_000
    talk = Conversation(value=value)
    talk.flood(*[lookup() for _ in range(5000)])
    assert talk.transport.unread_max < 2 * FLUSH_SIZE_BYTES
    assert not talk.transport.is_reading()
    answered = len(talk.read())
    assert 0 < answered < 10


async def test_client_that_reads_at_last_gets_everything() -> None:
    """What was not taken is taken when there is room for its answer."""
    talk = Conversation(value=b"x" * 100_000)
    sent = talk.flood(*[lookup() for _ in range(100)])
    answered: list[int] = []
    while replies := talk.read():
        answered += [reply.id for reply in replies]
    assert answered == sent
    assert talk.transport.is_reading()


async def test_garbage_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no frame close it, after what was asked before was answered; the log says why."""
    talk = Conversation()
    frame = bytes(talk.session.request(lookup())[1])
    with caplog.at_level(logging.WARNING):
        talk.connection.data_received(frame + b"\xff" * 64)
    assert len(talk.read()) == 1
    assert talk.transport.closed
    assert "a connection was closed" in caplog.text
    talk.connection.data_received(frame)
    assert len(talk.dispatcher.taken) == 1


async def test_notice_of_a_kind_that_there_is_not_is_refused_and_the_connection_goes_on() -> None:
    """Whatever a client of another version counts: it is told, and its lookups are answered."""
    talk = Conversation()
    payload = msgspec.msgpack.encode([7, {"op": "used", "kind": "nonsense", "hits": {"d": 1}}])
    talk.connection.data_received(HEADER.pack(len(payload)) + payload + frames(lookup()))
    talk.session._open.update({7, 1000})  # noqa: SLF001 - else it would take the answers for strangers
    refused, answered = talk.read()
    assert isinstance(refused.body, Failure)
    assert (refused.id, refused.body.code) == (7, ErrorCode.INVALID_REQUEST)
    assert answered == ReplyEnvelope(1000, Found(values=[b"file"]))
    assert not talk.transport.closed


async def test_request_before_hello_ends_the_connection() -> None:
    """Nothing is carried out for somebody who has not said who they are."""
    talk = Conversation(greet=False)
    talk.connection.data_received(frames(lookup()))
    assert talk.transport.closed
    assert talk.dispatcher.taken == []


async def test_refused_connection_is_closed_before_a_byte() -> None:
    """Nothing is sent to it, and nothing that it sends is looked at."""
    talk = Conversation(greet=False, refusal=Failure(code="peer_refused", message="another user"))
    assert talk.transport.closed
    talk.connection.data_received(talk.hello() + frames(lookup()))
    assert talk.transport.writes == []
    assert talk.dispatcher.taken == []


async def test_draining_answers_what_is_in_flight_then_closes() -> None:
    """New requests are not taken any more; open ones get their answers."""
    talk = Conversation()
    (open_one,) = talk.send(waiting())
    talk.connection.drain()
    assert not talk.transport.closed
    talk.send(lookup())
    assert talk.dispatcher.taken == [open_one]
    talk.dispatcher.finish(open_one)
    await settle()
    assert [reply.id for reply in talk.read()] == [open_one]
    assert talk.transport.closed


async def test_draining_an_idle_connection_closes_it() -> None:
    """There is nothing to wait for."""
    talk = Conversation()
    talk.connection.drain()
    assert talk.transport.closed
    assert not talk.transport.aborted


async def test_answer_after_the_end_is_dropped() -> None:
    """A commit may outlive the connection that asked for it."""
    talk = Conversation()
    (open_one,) = talk.send(waiting())
    talk.connection.connection_lost(ConnectionResetError())
    talk.dispatcher.finish(open_one)
    await settle()
    assert talk.transport.writes == []


async def test_stream_waits_for_the_client_to_read() -> None:
    """`wait_writable` returns when there is room, and raises when the client is gone."""
    talk = Conversation()
    talk.send(waiting())
    talk.connection.reply(1, Found(values=[b"x" * 300_000]))
    await settle()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(talk.connection.wait_writable)
            await anyio.wait_all_tasks_blocked()
            talk.transport.read_all()
        talk.connection.pause_writing()
        talk.connection.connection_lost(None)
        with pytest.raises(anyio.ClosedResourceError):
            await talk.connection.wait_writable()


async def test_hot_path_does_not_block(no_blocking: object) -> None:
    """Answering from memory makes no blocking call."""
    talk = Conversation()
    talk.send(*[lookup() for _ in range(10)])
    assert len(talk.read()) == 10
