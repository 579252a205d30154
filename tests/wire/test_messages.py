"""Messages keep their bytes: what one version wrote, every later one reads."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from motoolsd.wire import messages as m
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.fields import KEYS_PER_REQUEST_MAX, TEXT_SIZE_MAX, Message
from motoolsd.wire.frames import FRAME_SIZE_MAX, HEADER_SIZE, REQUEST_SIZE_MAX
from motoolsd.wire.keys import Kind
from motoolsd.wire.session import encode_frame
from motoolsd.wire.sizes import Size
from tests.wire.samples import REPLIES, REQUESTS, name_of

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
EVERY = [*REQUESTS, *REPLIES]
CHANGED = """the bytes of this message are no longer those of {}: clients of other versions would misread them.
Give a new field a default and put it behind the others, then remove the file, run the test twice and look at the
difference: it may only add. For any other change raise PROTOCOL."""
LIMITS = [FRAME_SIZE_MAX, REQUEST_SIZE_MAX, TEXT_SIZE_MAX, KEYS_PER_REQUEST_MAX, m.OUTSTANDING_MAX]
STRUCTS = [type(message) for message in EVERY] + [DatasetRow, ModelRow, EvalRow, Size, m.RequestKey]


def envelope_of(message: m.Request | m.Reply) -> m.RequestEnvelope | m.ReplyEnvelope:
    """The message in its envelope, as request 3."""
    if isinstance(message, m.Request):
        return m.RequestEnvelope(3, message)
    return m.ReplyEnvelope(3, message)


@pytest.mark.parametrize("message", EVERY, ids=name_of)
def test_frame_is_the_golden_one(message: m.Request | m.Reply) -> None:
    """A changed encoding breaks clients of other versions: fields are added with defaults, never changed.

    The file of a new message is written by the first run of this test, which fails; look at it, and commit it.
    """
    path = GOLDEN / f"{name_of(message)}.hex"
    frame = bytes(encode_frame(envelope_of(message)))
    if not path.exists():
        path.write_text(frame.hex(" ", 16) + "\n")
        pytest.fail(f"{path} was written: look at it and commit it")
    assert frame == bytes.fromhex(path.read_text()), CHANGED.format(path)


@pytest.mark.parametrize("message", EVERY, ids=name_of)
def test_golden_frame_is_read_as_the_message(message: m.Request | m.Reply) -> None:
    """What an earlier version sent means what it meant."""
    payload = bytes.fromhex((GOLDEN / f"{name_of(message)}.hex").read_text())[HEADER_SIZE:]
    assert msgspec.msgpack.decode(payload, type=type(envelope_of(message))).body == message


def test_every_message_has_a_sample() -> None:
    """No message is left out of the golden bytes, and none that has some is taken away."""
    assert {type(message) for message in EVERY} == {*m.Request.__args__, *m.Reply.__args__}
    assert {path.stem for path in GOLDEN.iterdir()} == {name_of(message) for message in EVERY}


@pytest.mark.parametrize("message", EVERY, ids=name_of)
def test_sample_fills_every_field(message: Message) -> None:
    """A field that is left at its default would not show in the golden bytes."""
    omitted = {
        field.name
        for field in msgspec.structs.fields(message)
        if getattr(message, field.name) == (field.default if field.default_factory is msgspec.NODEFAULT else {})
    }
    assert omitted == set()


def test_operations_are_all_requests() -> None:
    """What is no operation of ours is refused as unknown, so none may be missing there."""
    assert {name_of(message) for message in REQUESTS} == m.OPERATIONS


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
        {"op": "lookup", "kind": "dataset", "keys": ["a"] * (KEYS_PER_REQUEST_MAX + 1)},
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
    names = {name_of(message) for message in EVERY} | {code.value for code in ErrorCode} | set(m.FEATURES)
    fields = {field for struct in STRUCTS for field in struct.__struct_fields__}
    assert (names | fields) - words == set()


@pytest.mark.parametrize("limit", LIMITS)
def test_protocol_page_gives_every_limit(limit: int) -> None:
    """A client in another language can keep to the bounds without reading Python."""
    assert f"{limit:,}" in (ROOT / "docs" / "protocol.md").read_text()


def test_example_of_the_protocol_page_is_what_we_send() -> None:
    """The annotated bytes are those of a real conversation."""
    page = (ROOT / "docs" / "protocol.md").read_text()
    said: list[m.RequestEnvelope | m.ReplyEnvelope] = [
        m.RequestEnvelope(0, m.Hello(protocol=1, version="1.0")),
        m.ReplyEnvelope(0, m.Welcome(protocol=1, version="0.1.0", pid=4711)),
        m.RequestEnvelope(1, m.Lookup(kind=Kind.DATASET, keys=["9f86", "6030"])),
        m.ReplyEnvelope(1, m.Found(values=[b"file-1", None])),
    ]
    example = page.split("## An example")[1].split("```")[1]
    shown = [re.sub("#.*", "", part) for part in re.split("^(?:->|<-)", example, flags=re.MULTILINE)[1:]]
    assert [bytes.fromhex(part) for part in shown] == [bytes(encode_frame(envelope)) for envelope in said]
