"""Both sessions, fed whole and byte by byte."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motoolsd.wire.entries import DatasetRow
from motoolsd.wire.envelopes import ReplyEnvelope, RequestEnvelope
from motoolsd.wire.errors import LocalProtocolError, MessageTooLarge, RemoteProtocolError
from motoolsd.wire.frames import HEADER, REQUEST_SIZE_MAX
from motoolsd.wire.keys import Kind
from motoolsd.wire.listing import DatasetPage, ListEntries
from motoolsd.wire.messages import PROTOCOL, Drain, Failure, Found, Hello, Lookup, Reply, Request, Stored, Used, Welcome
from motoolsd.wire.session import ClientSession, Refused, ServerSession, State, encode_frame, encode_reply
from motoolsd.wire.sizes import GetStats
from tests.wire.conversation import Conversation

Feed = Callable[[bytes], Iterable[bytes]]
HELLO = Hello(protocol=PROTOCOL, version="0.1.0")
LOOKUP = Lookup(kind=Kind.DATASET, keys=["a"])
USED = Used(kind=Kind.DATASET, hits={"a": 3})


# All that MessagePack holds: numbers end at 64 bits.
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
GOLDEN_FRAMES = sorted(path.read_text() for path in (Path(__file__).parent / "golden").glob("*.hex"))


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


def outcome(session: ServerSession | ClientSession, data: bytes, feed: Feed = whole) -> Exception | None:
    """How a session ends that takes these bytes: with a RemoteProtocolError, or not at all."""
    try:
        for part in feed(data):
            session.receive_data(part)
            while session.next_event() is not None:
                pass
    except RemoteProtocolError as error:
        assert session.state is State.CLOSED
        return error
    return None


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
    framed = HEADER.pack(len(data) + 1) + data + b"\0"
    for bytes_ in (data + b"\0", framed):
        for session in (ServerSession(), open_server(), ClientSession(), open_client()):
            outcome(session, bytes_)


@given(st.sampled_from(GOLDEN_FRAMES), st.data())
def test_spoilt_message_raises_nothing_but_a_protocol_error(golden: str, data: st.DataObject) -> None:
    """A flipped or a changed byte in a real message, where decoding gets furthest, does no harm either."""
    frame = bytearray.fromhex(golden)
    for place in data.draw(st.lists(st.integers(HEADER.size, len(frame) - 1), min_size=1, max_size=3)):
        frame[place] = data.draw(st.integers(0, 255))
    client = open_client()
    for _ in range(3):
        client.request(LOOKUP)
    outcome(client, bytes(frame))
    outcome(open_server(), bytes(frame))


@given(BODIES)
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


@pytest.mark.parametrize(
    "declared",
    [
        b"\xdd\xff\xff\xff\xff",  # the envelope, as an array of four thousand million
        b"\x92\x01\xdf\xff\xff\xff\xff",  # the body, as such a map
        b"\x92\x01\x82\xa2op\xa5drain\xa1x\xdf\xff\xff\xff\xff",  # a field that nobody knows
        b"\x92\x01\x83\xa2op\xa6lookup\xa4kind\xa4eval\xa4keys\xdd\xff\xff\xff\xff",
        b"\x92\x01\x83\xa2op\xa5clear\xa4kind\xa4eval\xa4keys\xdd\xff\xff\xff\xff",
        b"\x92\x01\x82\xa2op\xabput_dataset\xa7file_id\xc6\xff\xff\xff\xff",
    ],
)
def test_huge_declared_size_allocates_nothing(declared: bytes) -> None:
    """What a message says it holds is believed only as far as there are bytes."""
    session = open_server()
    tracemalloc.start()
    try:
        ended = outcome(session, HEADER.pack(len(declared)) + declared)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(ended, RemoteProtocolError)
    assert peak < 1 << 20


def test_deep_nesting_in_a_known_message_ends_the_session_alone() -> None:
    """A field nested a million deep is no crash and no RecursionError; a reasonable depth is skipped."""
    shallow = b"\x92\x01\x82\xa2op\xa5drain\xa1x" + b"\x91" * 100 + b"\xc0"
    deep = b"\x92\x01\x82\xa2op\xa5drain\xa1x" + b"\x91" * 1_000_000 + b"\xc0"
    assert received(open_server(), HEADER.pack(len(shallow)) + shallow) == [RequestEnvelope(1, Drain())]
    assert isinstance(outcome(open_server(), HEADER.pack(len(deep)) + deep), RemoteProtocolError)


def test_text_that_is_no_utf_8_is_refused_alone(feed: Feed) -> None:
    """A path sent as text fails its request, not its connection."""
    payload = b"\x92\x05\x82\xa2op\xa5drain\xa6reason\xa2\xff\xfe"
    session = open_server()
    (event,) = received(session, HEADER.pack(len(payload)) + payload, feed)
    assert isinstance(event, Refused)
    assert (event.id, event.failure.code) == (5, "invalid_request")
    assert session.state is State.OPEN


def test_operation_that_is_no_utf_8_ends_the_session(feed: Feed) -> None:
    """A body without a readable name is no message."""
    payload = b"\x92\x05\x81\xa2op\xa2\xff\xfe"
    assert isinstance(outcome(open_server(), HEADER.pack(len(payload)) + payload, feed), RemoteProtocolError)
    assert isinstance(outcome(open_client(), HEADER.pack(len(payload)) + payload, feed), RemoteProtocolError)


def test_welcome_needs_a_hello() -> None:
    """A daemon that greets nobody has a defect."""
    with pytest.raises(LocalProtocolError):
        ServerSession().welcome(version="0.1.0", pid=1, started_by="command")


def test_hello_is_said_once() -> None:
    """A second greeting is a defect of ours, before the welcome and after it."""
    greeting = ClientSession()
    greeting.hello(HELLO)
    for session in (greeting, open_client()):
        with pytest.raises(LocalProtocolError, match="once"):
            session.hello(HELLO)


@pytest.mark.parametrize("reply", [Stored(), DatasetPage(items=[])])
def test_hello_is_answered_with_welcome_or_failure(reply: Reply) -> None:
    """Whoever answers a greeting with anything else is no daemon of ours."""
    session = ClientSession()
    session.hello(HELLO)
    assert isinstance(outcome(session, bytes(encode_reply(0, reply))), RemoteProtocolError)


def test_refused_hello_ends_the_client_session(feed: Feed) -> None:
    """After a failure in place of the welcome there is no conversation, whatever follows."""
    session = ClientSession()
    session.hello(HELLO)
    refusal = Failure(code="busy", message="later")
    welcome = Welcome(protocol=PROTOCOL, version="0.1.0", pid=1)
    events = []
    for part in feed(bytes(encode_reply(0, refusal) + encode_reply(0, welcome))):
        session.receive_data(part)
        while (event := session.next_event()) is not None:
            events.append(event.body)
    assert events == [refusal]
    assert session.state is State.CLOSED


def test_second_welcome_ends_the_client_session() -> None:
    """Limits do not change in the middle of a conversation."""
    session = open_client()
    number, _ = session.request(LOOKUP)
    welcome = encode_reply(number, Welcome(protocol=PROTOCOL, version="9.0", pid=2, outstanding_max=1))
    assert isinstance(outcome(session, bytes(welcome)), RemoteProtocolError)
    assert session.outstanding_max > 1


def test_closed_sessions_take_nothing_more() -> None:
    """What follows the bytes that ended a session is neither kept nor understood."""
    client = open_client()
    number, _ = client.request(LOOKUP)
    assert outcome(client, HEADER.pack(0)) is not None
    client.receive_data(bytes(encode_reply(number, Stored())))
    assert client.next_event() is None
    server = open_server()
    server.close()
    assert received(server, asked(GetStats())) == []


@pytest.mark.parametrize("body", [Drain(reason="\udcff"), Drain(reason="x" * REQUEST_SIZE_MAX)])
def test_request_that_cannot_be_sent_leaves_the_session_as_it_was(body: Request) -> None:
    """Half a character, or more than a frame holds: nothing is sent, and the next request is."""
    session = open_client()
    with pytest.raises(LocalProtocolError):
        session.request(body)
    assert session.outstanding == 0
    _, frame = session.request(LOOKUP)
    assert received(open_server(), bytes(frame))[0].id == 1


def test_largest_request_is_taken_and_one_more_byte_is_not() -> None:
    """Client and daemon draw the line at the same byte."""
    size = REQUEST_SIZE_MAX - len(encode_frame(RequestEnvelope(1, Drain(reason="x" * 70_000)))) + HEADER.size + 70_000
    _, frame = open_client().request(Drain(reason="x" * size))
    assert len(frame) == HEADER.size + REQUEST_SIZE_MAX
    assert isinstance(received(open_server(), bytes(frame))[0], RequestEnvelope)
    with pytest.raises(MessageTooLarge):
        open_client().request(Drain(reason="x" * (size + 1)))


def test_reply_that_cannot_be_encoded_becomes_a_failure() -> None:
    """A defect in a reply reaches its caller as one, and the connection goes on."""
    session = open_client()
    number, _ = session.request(LOOKUP)
    session.receive_data(bytes(encode_reply(number, Failure(code="busy", message="\udcff"))))
    event = session.next_event()
    assert event is not None
    assert isinstance(event.body, Failure)
    assert event.body.code == "protocol_error"


@given(st.integers(0, 2**64))
def test_any_interleaving_brings_every_reply_to_its_request(seed: int) -> None:
    """However requests, replies and pages overtake each other, and wherever the bytes are cut, nothing is mixed up."""
    client = ClientSession()
    conversation = Conversation(client, seed=seed)
    conversation.run()
    assert conversation.heard == conversation.said
    assert client.outstanding == 0


class EndsAtEveryPage(ClientSession):
    """A planted bug: the first page of a stream ends its request."""

    def _match(self, reply: ReplyEnvelope) -> None:
        super()._match(reply)
        self._open.discard(reply.id)


def test_planted_bug_is_found() -> None:
    """The conversation above is no formality: a client that forgets streams does not get through it."""
    conversation = Conversation(EndsAtEveryPage(), seed=0)
    with pytest.raises(RemoteProtocolError, match="not open"):
        conversation.run()


@pytest.mark.parametrize("size", [1, 7])
def test_short_way_gives_what_the_long_way_gives(size: int) -> None:
    """A reply that comes whole is given at once; one in pieces, when the last piece is there."""
    session = open_client()
    number, _ = session.request(LOOKUP)
    reply = bytes(encode_reply(number, Found(values=[b"file"])))
    assert session.receive_reply(reply[:size]) is None
    assert session.next_event() is None
    assert session.receive_reply(reply[size:]) is None
    event = session.next_event()
    assert event is not None
    assert event.body == Found(values=[b"file"])
    again, _ = session.request(LOOKUP)
    assert session.receive_reply(bytes(encode_reply(again, Stored()))) == Stored()
    assert session.outstanding == 0


def test_short_way_leaves_everything_unusual_to_the_long_way() -> None:
    """Pages, replies to nobody and garbage are not taken in passing: the next event says what they are."""
    page = DatasetPage(items=[DatasetRow(dataset_hash="a", value=b"f")])
    session = open_client()
    number, _ = session.request(ListEntries(kind=Kind.DATASET))
    assert session.receive_reply(bytes(encode_reply(number, page))) is None
    event = session.next_event()
    assert event is not None
    assert event.body == page
    for unusual in (bytes(encode_reply(77, Stored())), HEADER.pack(3) + b"abc"):
        session = open_client()
        session.request(LOOKUP)
        assert session.receive_reply(unusual) is None
        with pytest.raises(RemoteProtocolError):
            session.next_event()


@pytest.mark.parametrize("size", [1, 3, 4, 5, 20])
def test_short_way_of_the_daemon_gives_what_the_long_way_gives(size: int) -> None:
    """A request that came whole is given at once; one that came in pieces, by `next_event`, and the next one again."""
    session = greeted_server()
    frame = bytes(encode_frame(RequestEnvelope(7, LOOKUP)))
    assert session.receive_request(frame) == RequestEnvelope(7, LOOKUP)
    assert session.receive_request(frame[:size]) is None
    assert session.next_event() is None
    assert session.receive_request(frame[size:]) is None
    assert session.next_event() == RequestEnvelope(7, LOOKUP)
    assert session.next_event() is None
    assert session.receive_request(frame) == RequestEnvelope(7, LOOKUP)


def test_short_way_of_the_daemon_leaves_everything_unusual_to_the_long_way() -> None:
    """Two requests at once, a refused one, a greeting: `next_event` says what they are."""
    frame = bytes(encode_frame(RequestEnvelope(1, LOOKUP)))
    session = greeted_server()
    assert session.receive_request(frame + frame) is None
    assert [session.next_event(), session.next_event()] == [RequestEnvelope(1, LOOKUP)] * 2
    unknown = msgspec.msgpack.encode([5, {"op": "dance"}])
    assert session.receive_request(HEADER.pack(len(unknown)) + unknown) is None
    assert isinstance(session.next_event(), Refused)
    fresh = ServerSession()
    assert fresh.receive_request(bytes(encode_frame(RequestEnvelope(0, HELLO)))) is None
    assert fresh.next_event() == RequestEnvelope(0, HELLO)
    session.close()
    assert session.receive_request(frame) is None
    assert session.next_event() is None


def greeted_server() -> ServerSession:
    """A daemon's session after the greeting."""
    session = ServerSession()
    session.receive_data(bytes(encode_frame(RequestEnvelope(0, HELLO))))
    session.next_event()
    session.welcome(version="0", pid=1, started_by="command")
    return session


def test_notice_is_sent_in_an_open_session_only() -> None:
    """Before the welcome, and after the end, there is nobody to tell."""
    greeting, ended = ClientSession(), open_client()
    greeting.hello(HELLO)
    ended.receive_data(b"")
    for session in (ClientSession(), greeting, ended):
        with pytest.raises(LocalProtocolError, match="cannot send"):
            session.notice(USED)


def test_notice_arrives_with_a_number_of_its_own() -> None:
    """What comes before and after it has other numbers."""
    session = open_client()
    first, asked_first = session.request(LOOKUP)
    told = bytes(session.notice(USED))
    second, asked_second = session.request(LOOKUP)
    events = received(open_server(), bytes(asked_first) + told + bytes(asked_second))
    assert [event.body for event in events if isinstance(event, RequestEnvelope)] == [LOOKUP, USED, LOOKUP]
    assert len({first, second, *(event.id for event in events)}) == 3


def test_notice_is_not_outstanding() -> None:
    """Nothing is the answer to it: it takes no place, is sent where none is left, and the short way stays open."""
    session = open_client()
    numbers = [session.request(LOOKUP)[0] for _ in range(session.outstanding_max)]
    session.notice(USED)
    assert session.outstanding == len(numbers)
    session = open_client()
    number, _ = session.request(LOOKUP)
    session.notice(USED)
    assert session.receive_reply(bytes(encode_reply(number, Found(values=[None])))) == Found(values=[None])


def test_notice_that_cannot_be_sent_leaves_the_session_as_it_was() -> None:
    """Half a character, or more than a frame holds: as with a request."""
    session = open_client()
    for hits in ({"\udcff": 1}, {"x" * REQUEST_SIZE_MAX: 1}):
        with pytest.raises(LocalProtocolError):
            session.notice(Used(kind=Kind.DATASET, hits=hits))
    assert session.request(LOOKUP)[0] == 1


TOO_MANY = {str(number): 1 for number in range(10_001)}


@pytest.mark.parametrize("hits", [{"a": 0}, {"a": -1}, {"a": 2**31}, {"": 1}, TOO_MANY, None], ids=range(6))
def test_notice_that_makes_no_sense_is_refused_alone(hits: dict[str, int] | None) -> None:
    """No count, no key, too many keys, no kind of ours: nothing of it is counted, and the session goes on."""
    session = open_server()
    kind, hits = ("nonsense", {"a": 1}) if hits is None else ("dataset", hits)
    (refused,) = received(session, raw(5, {"op": "used", "kind": kind, "hits": hits}))
    assert isinstance(refused, Refused)
    assert (refused.id, refused.failure.code) == (5, "invalid_request")
    assert received(session, raw(6, {"op": "get_stats"})) == [RequestEnvelope(6, GetStats())]
