"""Messages keep their bytes: what one version wrote, every later one reads."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from motoolsd.wire import messages as m
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.frames import HEADER_SIZE
from motoolsd.wire.session import encode_frame
from tests.wire.samples import REPLIES, REQUESTS, name_of

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
EVERY = [*REQUESTS, *REPLIES]


def envelope_of(message: m.Request | m.Reply) -> m.RequestEnvelope | m.ReplyEnvelope:
    """The message in its envelope, as request 3."""
    if isinstance(message, m.Request):
        return m.RequestEnvelope(3, message)
    return m.ReplyEnvelope(3, message)


@pytest.mark.parametrize("message", EVERY, ids=name_of)
def test_frame_is_the_golden_one(message: m.Request | m.Reply) -> None:
    """A changed encoding breaks clients of other versions: fields are added with defaults, never changed.

    A new message's golden file is written by deleting nothing and running this test twice.
    """
    path = GOLDEN / f"{name_of(message)}.hex"
    frame = bytes(encode_frame(envelope_of(message)))
    if not path.exists():
        path.write_text(frame.hex(" ", 16) + "\n")
        pytest.fail(f"{path} was written: look at it and commit it")
    assert frame == bytes.fromhex(path.read_text())


@pytest.mark.parametrize("message", EVERY, ids=name_of)
def test_golden_frame_is_read_as_the_message(message: m.Request | m.Reply) -> None:
    """What an earlier version sent means what it meant."""
    payload = bytes.fromhex((GOLDEN / f"{name_of(message)}.hex").read_text())[HEADER_SIZE:]
    assert msgspec.msgpack.decode(payload, type=type(envelope_of(message))).body == message


def test_every_message_has_a_sample() -> None:
    """No message is left out of the golden bytes."""
    declared = {*m.Request.__args__, *m.Reply.__args__}
    assert {type(message) for message in EVERY} == declared


def test_fields_of_a_later_version_are_skipped() -> None:
    """A request with a field that we do not know is understood without it."""
    later = msgspec.msgpack.encode([3, {"op": "drain", "reason": "upgrade", "grace_s": [1, {"deep": True}]}, "more"])
    assert msgspec.msgpack.decode(later, type=m.RequestEnvelope).body == m.Drain(reason="upgrade")


def test_fields_of_an_earlier_version_have_defaults() -> None:
    """A welcome of the first version, with nothing but what it had to have, is understood."""
    earlier = msgspec.msgpack.encode([0, {"op": "welcome", "protocol": 1, "version": "0.1.0", "pid": 4}])
    assert isinstance(msgspec.msgpack.decode(earlier, type=m.ReplyEnvelope).body, m.Welcome)


@pytest.mark.parametrize(
    "body",
    [
        {"op": "lookup", "kind": "dataset", "keys": [""]},
        {"op": "lookup", "kind": "nothing", "keys": ["a"]},
        {"op": "lookup", "kind": "dataset", "keys": ["a"] * (m.KEYS_PER_REQUEST_MAX + 1)},
        {"op": "put_dataset", "dataset_hash": "a", "file_id": b"x"},
        {"op": "put_dataset", "dataset_hash": "a", "file_id": b"", "request_key": [bytes(16), 1, 1]},
        {"op": "put_dataset", "dataset_hash": "a", "file_id": b"x", "request_key": [bytes(15), 1, 1]},
        {"op": "put_dataset", "dataset_hash": "a", "file_id": b"x", "request_key": [bytes(16), 2**63, 1]},
    ],
)
def test_bounds_are_checked_while_decoding(body: dict[str, object]) -> None:
    """What breaks a bound never reaches the engine."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode([1, body]), type=m.RequestEnvelope)


def test_protocol_page_names_everything() -> None:
    """docs/protocol.md tells of every operation, every field and every error code."""
    page = (ROOT / "docs" / "protocol.md").read_text()
    words = set(re.findall(r"`([a-z_0-9]+)`", page))
    messages = [type(message) for message in EVERY]
    names = {name_of(message) for message in EVERY} | {code.value for code in ErrorCode}
    fields = {field for message in messages for field in message.__struct_fields__}
    assert (names | fields) - words == set()
