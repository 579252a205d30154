"""Both sessions, fed whole and byte by byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.wire.entries import DatasetRow
from motoolsd.wire.errors import LocalProtocolError, RemoteProtocolError
from motoolsd.wire.frames import HEADER
from motoolsd.wire.keys import Kind
from motoolsd.wire.messages import (
    PROTOCOL,
    DatasetPage,
    Drain,
    Failure,
    Found,
    GetStats,
    Hello,
    ListEntries,
    Lookup,
    Reply,
    Request,
    RequestEnvelope,
    Stored,
    Welcome,
)
from motoolsd.wire.session import ClientSession, Refused, ServerSession, State, encode_frame, encode_reply

Feed = Callable[[bytes], Iterable[bytes]]
HELLO = Hello(protocol=PROTOCOL, version="0.1.0")
LOOKUP = Lookup(kind=Kind.DATASET, keys=["a"])


def whole(data: bytes) -> Iterable[bytes]:
    """All at once."""
    return [data]


def bytewise(data: bytes) -> Iterable[bytes]:
    """One byte after another."""
    return [data[position : position + 1] for position in range(len(data))]


@pytest.fixture(params=[whole, bytewise], ids=["whole", "byte by byte"])
def feed(request: pytest.FixtureRequest) -> Feed:
    """How bytes arrive."""
    chosen: Feed = request.param
    return chosen


def raw(request_id: int, body: object) -> bytes:
    """A frame with any body."""
    payload = msgspec.msgpack.encode([request_id, body])
    return HEADER.pack(len(payload)) + payload


def asked(*bodies: Request) -> bytes:
    """Requests 0, 1, 2... as frames."""
    return b"".join(bytes(encode_frame(RequestEnvelope(number, body))) for number, body in enumerate(bodies))


def received(session: ServerSession, data: bytes, feed: Feed = whole) -> list[RequestEnvelope | Refused]:
    """What a server makes of bytes; a Hello among them is welcomed."""
    events = []
    for part in feed(data):
        session.receive_data(part)
        while (event := session.next_event()) is not None:
            events.append(event)
            if session.state is State.HELLO:
                session.welcome(version="0.1.0", pid=1, started_by="command")
    return events


def open_server() -> ServerSession:
    """A server that has welcomed its client."""
    session = ServerSession()
    received(session, asked(HELLO))
    return session


def open_client() -> ClientSession:
    """A client that was welcomed."""
    session = ClientSession()
    session.hello(HELLO)
    session.receive_data(bytes(encode_reply(0, Welcome(protocol=PROTOCOL, version="0.1.0", pid=1))))
    assert session.next_event() is not None
    return session


def test_server_gives_requests_in_their_order(feed: Feed) -> None:
    """Pipelined requests come out one by one."""
    events = received(ServerSession(), asked(HELLO, LOOKUP, GetStats()), feed)
    assert [event.body for event in events if isinstance(event, RequestEnvelope)] == [HELLO, LOOKUP, GetStats()]


def test_first_message_must_be_a_hello(feed: Feed) -> None:
    """Anything else ends the conversation before it began."""
    with pytest.raises(RemoteProtocolError, match="hello"):
        received(ServerSession(), asked(GetStats()), feed)


def test_other_protocol_is_refused_in_words() -> None:
    """A client of another protocol is told which both speak, and what to do."""
    session = ServerSession()
    session.receive_data(asked(Hello(protocol=99, version="9.0")))
    session.next_event()
    answer = session.welcome(version="0.1.0", pid=1, started_by="command")
    assert isinstance(answer, Failure)
    assert answer.code == "version_mismatch"
    assert session.state is State.CLOSED


def test_hello_of_a_later_version_is_understood() -> None:
    """New fields of a greeting do not keep an older daemon from answering it."""
    session = ServerSession()
    later = {"op": "hello", "protocol": PROTOCOL, "version": "9.0", "colour": "red", "features": ["telepathy"]}
    (event,) = received(session, raw(0, later))
    assert isinstance(event, RequestEnvelope)
    assert session.state is State.OPEN


def test_unknown_operation_is_refused_and_the_session_goes_on(feed: Feed) -> None:
    """A newer client's request is answered by its id; the connection stays."""
    session = open_server()
    unknown, known = received(session, raw(5, {"op": "teleport", "to": {"x": [1]}}) + raw(6, {"op": "get_stats"}), feed)
    assert isinstance(unknown, Refused)
    assert (unknown.id, unknown.failure.code) == (5, "unknown_operation")
    assert known == RequestEnvelope(6, GetStats())


@pytest.mark.parametrize(
    "body", [{"op": "lookup", "kind": 7, "keys": ["a"]}, {"op": "lookup"}, {"op": "drain", "reason": 1}]
)
def test_known_operation_with_wrong_fields_is_refused_alone(body: object) -> None:
    """The failure names the operation and what is wrong with it."""
    session = open_server()
    (event,) = received(session, raw(5, body))
    assert isinstance(event, Refused)
    assert event.failure.code == "invalid_request"
    assert received(session, raw(6, {"op": "get_stats"})) == [RequestEnvelope(6, GetStats())]


@pytest.mark.parametrize(
    "payload", [b"\xc1", b"\x93\x01", b"hello", b"\x92\xa1x\x80", b"\x92\x01\x80", b"\x91" * 100_000]
)
def test_what_is_no_envelope_ends_the_session(payload: bytes, feed: Feed) -> None:
    """Bytes that are no message close the connection, also deeply nested ones, and nothing else is raised."""
    if len(payload) > 1000:
        feed = whole
    session = open_server()
    with pytest.raises(RemoteProtocolError):
        received(session, HEADER.pack(len(payload)) + payload, feed)
    assert session.state is State.CLOSED
    assert session.next_event() is None


@given(st.binary(max_size=400))
def test_garbage_raises_nothing_but_a_protocol_error(data: bytes) -> None:
    """Whatever comes, a session gives events or a RemoteProtocolError."""
    for session in (open_server(), open_client()):
        try:
            session.receive_data(data or b"\0")
            while session.next_event() is not None:
                pass
        except RemoteProtocolError:
            assert session.state is State.CLOSED


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4), max_leaves=20
    )
)
def test_any_body_is_answered_or_refused(body: object) -> None:
    """Well-formed MessagePack of any shape does no harm."""
    session = open_server()
    try:
        for event in received(session, raw(1, {"op": "drain", "extra": body})):
            assert event == RequestEnvelope(1, Drain())
        received(session, raw(2, body))
    except RemoteProtocolError:
        assert session.state is State.CLOSED


def test_client_matches_replies_in_any_order(feed: Feed) -> None:
    """Replies come as they are ready."""
    session = open_client()
    first, _ = session.request(LOOKUP)
    second, _ = session.request(LOOKUP)
    events = []
    for part in feed(bytes(encode_reply(second, Stored()) + encode_reply(first, Found(values=[None])))):
        session.receive_data(part)
        while (event := session.next_event()) is not None:
            events.append(event.id)
    assert events == [second, first]
    assert session.outstanding == 0


def test_pages_keep_a_request_open_until_the_last() -> None:
    """A stream ends with its last page, or with a failure."""
    session = open_client()
    number, _ = session.request(ListEntries(kind=Kind.DATASET))
    replies: list[Reply] = [
        DatasetPage(items=[DatasetRow(dataset_hash="a", value=b"f")]),
        DatasetPage(items=[], is_last=True),
    ]
    open_counts = []
    for reply in replies:
        session.receive_data(bytes(encode_reply(number, reply)))
        session.next_event()
        open_counts.append(session.outstanding)
    assert open_counts == [1, 0]


@pytest.mark.parametrize("request_id", [0, 77])
def test_reply_to_nothing_ends_the_client_session(request_id: int) -> None:
    """A daemon that answers what was not asked cannot be trusted with the next answer."""
    session = open_client()
    session.request(LOOKUP)
    session.receive_data(bytes(encode_reply(request_id, Stored())))
    with pytest.raises(RemoteProtocolError, match=str(request_id)):
        session.next_event()


def test_client_sends_no_more_than_may_be_outstanding() -> None:
    """The bound that the daemon named is kept on our side."""
    session = ClientSession()
    session.hello(HELLO)
    session.receive_data(bytes(encode_reply(0, Welcome(protocol=PROTOCOL, version="0", pid=1, outstanding_max=2))))
    session.next_event()
    session.request(LOOKUP)
    session.request(LOOKUP)
    with pytest.raises(LocalProtocolError):
        session.request(LOOKUP)


def test_client_asks_nothing_before_the_welcome() -> None:
    """A request before the greeting is a defect of ours."""
    with pytest.raises(LocalProtocolError):
        ClientSession().request(LOOKUP)


def test_end_inside_a_message_is_told_from_a_clean_one() -> None:
    """Half a reply and then nothing is an error; nothing at all is an end."""
    clean = open_client()
    clean.receive_data(b"")
    assert clean.state is State.CLOSED
    torn = open_client()
    torn.receive_data(bytes(encode_reply(1, Stored()))[:-1])
    with pytest.raises(RemoteProtocolError, match="middle"):
        torn.receive_data(b"")


def test_reply_too_large_for_a_frame_becomes_a_failure() -> None:
    """Every request has an answer, if only that the answer does not fit."""
    session = open_client()
    number, _ = session.request(LOOKUP)
    session.receive_data(bytes(encode_reply(number, Found(values=[b"x" * (4 << 20)] * 5))))
    event = session.next_event()
    assert event is not None
    assert isinstance(event.body, Failure)
