"""Both ends of a connection as state machines: bytes in, events out, bytes to send.

Layer: wire. Imports frames, messages and errors.
Invariant: a session never reads, writes or waits. After a RemoteProtocolError it is closed, and it alone.
Modelled on h11 and on the sans-IO core of websockets.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from motoolsd.wire.envelopes import OPERATIONS, OperationName, RawEnvelope, ReplyEnvelope, RequestEnvelope
from motoolsd.wire.errors import ErrorCode, LocalProtocolError, MessageTooLarge, RemoteProtocolError
from motoolsd.wire.fields import Page
from motoolsd.wire.frames import FRAME_SIZE_MAX, HEADER, HEADER_SIZE, REQUEST_SIZE_MAX, FrameBuffer
from motoolsd.wire.leases import Claim
from motoolsd.wire.messages import FEATURES, OUTSTANDING_MAX, PROTOCOL, Failure, Hello, Notice, Reply, Request, Welcome


class State(Enum):
    """Where a session stands."""

    HELLO = auto()
    """Nothing but the greeting may come."""
    OPEN = auto()
    CLOSED = auto()


_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(RequestEnvelope)
_reply_decoder = msgspec.msgpack.Decoder(ReplyEnvelope)
_raw_decoder = msgspec.msgpack.Decoder(RawEnvelope)
_name_decoder = msgspec.msgpack.Decoder(OperationName)

# What decoding may raise beside MsgspecError: a text that is no UTF-8 gives UnicodeDecodeError, deep nesting
# RecursionError, and millions of entries MemoryError on a small machine. No message has a field of free type, so
# nothing nested is ever built: it is skipped.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MemoryError)


def encode_frame(envelope: RequestEnvelope | ReplyEnvelope, size_max: int = FRAME_SIZE_MAX) -> bytearray:
    """One envelope as a frame, ready to send.

    Args:
        envelope: what to send.
        size_max: bytes of payload that the other side takes.

    Raises:
        MessageTooLarge: it is larger than that.
        LocalProtocolError: it holds what no message can: a text with half a character, or a number over 64 bits.
    """
    frame = bytearray(HEADER_SIZE)
    try:
        _encoder.encode_into(envelope, frame, HEADER_SIZE)
    except (UnicodeEncodeError, OverflowError) as error:
        message = f"a message cannot be sent: {error}"
        raise LocalProtocolError(message) from error
    size = len(frame) - HEADER_SIZE
    if size > size_max:
        raise MessageTooLarge(size, size_max)
    HEADER.pack_into(frame, 0, size)
    return frame


def encode_reply(request_id: int, body: Reply) -> bytearray:
    """A reply as a frame; one that cannot be sent becomes a Failure, because its request must have an answer."""
    try:
        return encode_frame(ReplyEnvelope(request_id, body))
    except LocalProtocolError as error:
        # Too large is what the caller asked for; anything else is our own defect.
        code = ErrorCode.INVALID_REQUEST if isinstance(error, MessageTooLarge) else ErrorCode.PROTOCOL_ERROR
        return encode_frame(ReplyEnvelope(request_id, Failure(code=code, message=str(error))))


class Refused(msgspec.Struct, frozen=True):
    """A request that cannot be carried out as it stands; the connection goes on."""

    id: int
    failure: Failure


class ServerSession:
    """The daemon's end: takes a Hello, then requests in any number."""

    __slots__ = ("_frames", "peer", "state")

    def __init__(self) -> None:
        """Expect a Hello."""
        self._frames = FrameBuffer(REQUEST_SIZE_MAX)
        self.state = State.HELLO
        self.peer: Hello | None = None

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; once closed, drop them."""
        if self.state is not State.CLOSED:
            self._frames.feed(data)

    def receive_request(self, data: bytes) -> RequestEnvelope | None:
        """Take bytes, and give the request if they are exactly that: one frame, and nothing before it.

        The short way of a client that asks one thing at a time. On None, `next_event` goes on with the same bytes.
        """
        if (
            self.state is State.OPEN
            and self._frames.is_empty()
            and HEADER_SIZE < len(data) <= REQUEST_SIZE_MAX
            and HEADER.unpack_from(data)[0] == len(data) - HEADER_SIZE
        ):
            try:
                return _request_decoder.decode(memoryview(data)[HEADER_SIZE:])
            except _UNREADABLE:
                # What is wrong with it is said by `next_event`.
                pass
        self.receive_data(data)
        return None

    def next_event(self) -> RequestEnvelope | Refused | None:
        """The next request, a request to be refused, or None until more bytes come.

        Raises:
            RemoteProtocolError: the bytes are no frame, the frame no envelope, or the first message no Hello.
        """
        if self.state is State.CLOSED:
            return None
        try:
            frame = self._frames.next_frame()
            if frame is None:
                return None
            try:
                envelope: RequestEnvelope | Refused = _request_decoder.decode(frame)
            except _UNREADABLE as error:
                envelope = _explain_unreadable(frame, error)
            return envelope if self.state is State.OPEN else self._greet(envelope)
        except RemoteProtocolError:
            self.state = State.CLOSED
            raise

    def welcome(
        self,
        *,
        version: str,
        pid: int,
        started_by: str,
        stamps: tuple[int, int] | None = None,
        peer_pid: int | None = None,
    ) -> Reply:
        """The answer to the Hello that was received: Welcome, or why there can be no conversation.

        Raises:
            LocalProtocolError: no Hello was received.
        """
        if self.peer is None:
            message = "welcome() before a Hello was received"
            raise LocalProtocolError(message)
        if self.peer.protocol != PROTOCOL:
            self.state = State.CLOSED
            text = (
                f"the client ({self.peer.version}) speaks protocol {self.peer.protocol}, "
                f"this daemon ({version}) speaks {PROTOCOL}: install the same version of motoolsd on both sides"
            )
            return Failure(code=ErrorCode.VERSION_MISMATCH, message=text)
        self.state = State.OPEN
        return Welcome(
            protocol=PROTOCOL,
            version=version,
            pid=pid,
            features=FEATURES,
            started_by=started_by,
            stamps=stamps,
            peer_pid=peer_pid,
        )

    def close(self) -> None:
        """Take no more events."""
        self.state = State.CLOSED

    def _greet(self, envelope: RequestEnvelope | Refused) -> RequestEnvelope:
        if isinstance(envelope, Refused) or not isinstance(envelope.body, Hello):
            message = "the first message was no hello"
            raise RemoteProtocolError(message)
        self.peer = envelope.body
        return envelope


def _explain_unreadable(frame: memoryview, error: BaseException) -> Refused:
    try:
        raw = _raw_decoder.decode(frame)
        operation = _name_decoder.decode(raw.body).op
    except _UNREADABLE as cause:
        message = f"a frame of {len(frame)} bytes holds no request"
        raise RemoteProtocolError(message) from cause
    if operation not in OPERATIONS:
        text = f"this daemon does not know the operation {operation[:80]!r}: it may be older than the client"
        return Refused(raw.id, Failure(code=ErrorCode.UNKNOWN_OPERATION, message=text))
    return Refused(raw.id, Failure(code=ErrorCode.INVALID_REQUEST, message=f"{operation}: {error}"))


class ClientSession:
    """A client's end: greets, sends requests, matches replies to them."""

    __slots__ = ("_frames", "_next_id", "_open", "_uncounted", "outstanding_max", "peer", "state")

    def __init__(self) -> None:
        """Nothing sent yet."""
        self._frames = FrameBuffer()
        self._next_id = 1
        self._open: set[int] = set()
        self._uncounted: set[int] = set()
        self.state = State.HELLO
        self.outstanding_max = OUTSTANDING_MAX
        self.peer: Welcome | None = None

    @property
    def outstanding(self) -> int:
        """How many requests wait for a reply, those that wait for somebody else's work apart."""
        return len(self._open) - len(self._uncounted)

    def hello(self, greeting: Hello) -> bytearray:
        """The frame that opens the conversation.

        Raises:
            LocalProtocolError: it was opened already.
        """
        if self.state is not State.HELLO or self._open:
            message = "hello is said once, and first"
            raise LocalProtocolError(message)
        frame = encode_frame(RequestEnvelope(0, greeting), REQUEST_SIZE_MAX)
        self._open.add(0)
        return frame

    def request(self, body: Request) -> tuple[int, bytearray]:
        """A request's number, and its frame to send.

        Raises:
            LocalProtocolError: the session is not open, has `outstanding_max` requests open already, or the request
                cannot be sent (`MessageTooLarge`).
        """
        is_counted = not (type(body) is Claim and body.wait)
        if self.state is not State.OPEN or (is_counted and self.outstanding >= self.outstanding_max):
            message = f"cannot send: {self.state.name}, {self.outstanding} requests open"
            raise LocalProtocolError(message)
        request_id = self._next_id
        frame = encode_frame(RequestEnvelope(request_id, body), REQUEST_SIZE_MAX)
        self._next_id += 1
        self._open.add(request_id)
        if not is_counted:
            self._uncounted.add(request_id)
        return request_id, frame

    def notice(self, body: Notice) -> bytearray:
        """The frame of what nobody answers.

        Raises:
            LocalProtocolError: the session is not open, or the message cannot be sent.
        """
        if self.state is not State.OPEN:
            message = f"cannot send: {self.state.name}"
            raise LocalProtocolError(message)
        frame = encode_frame(RequestEnvelope(self._next_id, body), REQUEST_SIZE_MAX)
        self._next_id += 1
        return frame

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; an empty `data` means that the daemon closed. Once closed, drop them.

        Take all events before the end is told: what is left then counts as cut off.

        Raises:
            RemoteProtocolError: the stream ended inside a frame.
        """
        if self.state is State.CLOSED:
            return
        if data:
            self._frames.feed(data)
            return
        self.state = State.CLOSED
        if not self._frames.is_empty():
            message = "the daemon closed the connection in the middle of a message"
            raise RemoteProtocolError(message)

    def receive_reply(self, data: bytes) -> Reply | None:
        """Take bytes, and give the reply if they are exactly that: one frame, final, to the only open request.

        The short way of a client that asks one thing at a time. On None, `next_event` goes on with the same bytes.
        """
        if (
            len(self._open) == 1
            and self._frames.is_empty()
            and len(data) > HEADER_SIZE
            and HEADER.unpack_from(data)[0] == len(data) - HEADER_SIZE
        ):
            try:
                reply = _reply_decoder.decode(memoryview(data)[HEADER_SIZE:])
            except _UNREADABLE:
                # What is wrong with it is said by `next_event`.
                pass
            else:
                if reply.id in self._open and self.state is State.OPEN and not isinstance(reply.body, Page | Welcome):
                    self._open.clear()
                    self._uncounted.clear()
                    return reply.body
        self.receive_data(data)
        return None

    def receive_replies(self, data: bytes) -> list[ReplyEnvelope]:
        """Take bytes, and give the replies at their front that are whole.

        The short way of a client that asks much at a time. `next_event` goes on with what is left, and says what is
        wrong with it.
        """
        replies: list[ReplyEnvelope] = []
        offset = 0
        if self.state is State.OPEN and self._frames.is_empty():
            view = memoryview(data)
            while len(data) - offset > HEADER_SIZE:
                begin = offset + HEADER_SIZE
                end = begin + HEADER.unpack_from(data, offset)[0]
                if not begin < end <= len(data):
                    break
                try:
                    reply = _reply_decoder.decode(view[begin:end])
                    self._match(reply)
                except (*_UNREADABLE, RemoteProtocolError):
                    break
                replies.append(reply)
                offset = end
        if offset < len(data):
            self.receive_data(data[offset:])
        return replies

    def next_event(self) -> ReplyEnvelope | None:
        """The next reply, or None until more bytes come.

        Raises:
            RemoteProtocolError: the bytes are no reply, or a reply to nothing that was asked.
        """
        if self.state is State.CLOSED:
            return None
        try:
            frame = self._frames.next_frame()
            if frame is None:
                return None
            try:
                reply = _reply_decoder.decode(frame)
            except _UNREADABLE as error:
                message = f"the daemon sent a frame of {len(frame)} bytes that is no reply: {error}"
                raise RemoteProtocolError(message) from error
            self._match(reply)
        except RemoteProtocolError:
            self.state = State.CLOSED
            raise
        return reply

    def _match(self, reply: ReplyEnvelope) -> None:
        """Close the request that a reply ends."""
        body = reply.body
        if reply.id not in self._open:
            message = f"the daemon answered request {reply.id}, which is not open"
            raise RemoteProtocolError(message)
        if not isinstance(body, Page) or body.is_last:
            self._open.remove(reply.id)
            self._uncounted.discard(reply.id)
        if self.state is State.HELLO:
            self._take_greeting(body)
        elif isinstance(body, Welcome):
            message = f"the daemon answered request {reply.id} with a welcome"
            raise RemoteProtocolError(message)

    def _take_greeting(self, body: Reply) -> None:
        if isinstance(body, Welcome):
            self.peer = body
            self.state = State.OPEN
            self.outstanding_max = max(1, min(OUTSTANDING_MAX, body.outstanding_max))
        elif isinstance(body, Failure):
            self.state = State.CLOSED
        else:
            message = f"the daemon answered a hello with {type(body).__name__}"
            raise RemoteProtocolError(message)
