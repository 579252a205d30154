"""Both ends of a connection as state machines: bytes in, events out, bytes to send.

Layer: wire. Imports frames, messages and errors.
Invariant: a session never reads, writes or waits. After a RemoteProtocolError it is closed, and it alone.
Modelled on h11 and on the sans-IO core of websockets.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from motoolsd.wire.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from motoolsd.wire.frames import FRAME_SIZE_MAX, HEADER, HEADER_SIZE, FrameBuffer
from motoolsd.wire.messages import (
    FEATURES,
    OPERATIONS,
    OUTSTANDING_MAX,
    PROTOCOL,
    Failure,
    Hello,
    OperationName,
    Page,
    RawEnvelope,
    Reply,
    ReplyEnvelope,
    Request,
    RequestEnvelope,
    Welcome,
)


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

# Deep nesting makes msgspec raise RecursionError, and a map of a million empty maps MemoryError on a small machine;
# neither is a MsgspecError. No message has a field of free type, so nothing nested is ever built: it is skipped.
_UNREADABLE = (msgspec.MsgspecError, RecursionError, MemoryError)


def encode_frame(envelope: RequestEnvelope | ReplyEnvelope) -> bytearray:
    """One envelope as a frame, ready to send.

    Raises:
        LocalProtocolError: it is larger than `FRAME_SIZE_MAX`.
    """
    frame = bytearray(HEADER_SIZE)
    _encoder.encode_into(envelope, frame, HEADER_SIZE)
    size = len(frame) - HEADER_SIZE
    if size > FRAME_SIZE_MAX:
        message = f"a message of {size} bytes does not fit into a frame of {FRAME_SIZE_MAX}"
        raise LocalProtocolError(message)
    HEADER.pack_into(frame, 0, size)
    return frame


def encode_reply(request_id: int, body: Reply) -> bytearray:
    """A reply as a frame; one that is too large becomes a Failure, because its request must have an answer."""
    try:
        return encode_frame(ReplyEnvelope(request_id, body))
    except LocalProtocolError as error:
        return encode_frame(ReplyEnvelope(request_id, Failure(code=ErrorCode.INVALID_REQUEST, message=str(error))))


class Refused(msgspec.Struct, frozen=True):
    """A request that cannot be carried out as it stands; the connection goes on."""

    id: int
    failure: Failure


class ServerSession:
    """The daemon's end: takes a Hello, then requests in any number."""

    __slots__ = ("_frames", "peer", "state")

    def __init__(self) -> None:
        """Expect a Hello."""
        self._frames = FrameBuffer()
        self.state = State.HELLO
        self.peer: Hello | None = None

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._frames.feed(data)

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

    def welcome(self, *, version: str, pid: int, started_by: str) -> Reply:
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
        return Welcome(protocol=PROTOCOL, version=version, pid=pid, features=FEATURES, started_by=started_by)

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

    __slots__ = ("_frames", "_next_id", "_open", "outstanding_max", "peer", "state")

    def __init__(self) -> None:
        """Nothing sent yet."""
        self._frames = FrameBuffer()
        self._next_id = 1
        self._open: set[int] = set()
        self.state = State.HELLO
        self.outstanding_max = OUTSTANDING_MAX
        self.peer: Welcome | None = None

    @property
    def outstanding(self) -> int:
        """How many requests wait for a reply."""
        return len(self._open)

    def hello(self, greeting: Hello) -> bytearray:
        """The frame that opens the conversation."""
        frame = encode_frame(RequestEnvelope(0, greeting))
        self._open.add(0)
        return frame

    def request(self, body: Request) -> tuple[int, bytearray]:
        """A request's number, and its frame to send.

        Raises:
            LocalProtocolError: the session is not open, or has `outstanding_max` requests open already.
        """
        if self.state is not State.OPEN or len(self._open) >= self.outstanding_max:
            message = f"cannot send: {self.state.name}, {len(self._open)} requests open"
            raise LocalProtocolError(message)
        request_id = self._next_id
        frame = encode_frame(RequestEnvelope(request_id, body))
        self._next_id += 1
        self._open.add(request_id)
        return request_id, frame

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; an empty `data` means that the daemon closed.

        Raises:
            RemoteProtocolError: the stream ended inside a frame.
        """
        if data:
            self._frames.feed(data)
            return
        self.state = State.CLOSED
        if not self._frames.is_empty():
            message = "the daemon closed the connection in the middle of a message"
            raise RemoteProtocolError(message)

    def next_event(self) -> ReplyEnvelope | None:
        """The next reply, or None until more bytes come.

        Raises:
            RemoteProtocolError: the bytes are no reply, or a reply to nothing that was asked.
        """
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
        if reply.id not in self._open or (self.state is State.HELLO) != (reply.id == 0):
            message = f"the daemon answered request {reply.id}, which is not open"
            raise RemoteProtocolError(message)
        body = reply.body
        if not isinstance(body, Page) or body.is_last:
            self._open.remove(reply.id)
        if isinstance(body, Welcome):
            self._open_with(body)

    def _open_with(self, welcome: Welcome) -> None:
        self.peer = welcome
        self.state = State.OPEN
        self.outstanding_max = max(1, min(OUTSTANDING_MAX, welcome.outstanding_max))
