"""Messages keep their bytes: what one version wrote, every later one reads."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from motoolsd.wire import messages as m
from motoolsd.wire.cleaning import Criteria, MakePlan
from motoolsd.wire.envelopes import OPERATIONS, ReplyEnvelope, RequestEnvelope
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.fields import FILES_PER_ENTRY_MAX, KEYS_PER_REQUEST_MAX, TEXT_SIZE_MAX, Message
from motoolsd.wire.frames import FRAME_SIZE_MAX, HEADER_SIZE, REQUEST_SIZE_MAX
from motoolsd.wire.keys import Kind
from motoolsd.wire.session import encode_frame
from motoolsd.wire.sizes import TOP_MAX
from tests.wire.samples import REPLIES, REQUESTS, name_of, structs_in

GOLDEN = Path(__file__).parent / "golden"
EARLIER = Path(__file__).parent / "golden_earlier"
"""Frames of messages that have more fields now."""
ROOT = Path(__file__).resolve().parents[2]
EVERY = [*REQUESTS, *REPLIES]
CHANGED = """the bytes of this message are no longer those of {}: clients of other versions would misread them.
Give a new field a default and put it behind the others, then move the file to golden_earlier, run the test twice and
look at the difference: it may only add. For any other change raise PROTOCOL."""
LIMITS = [
    *(FRAME_SIZE_MAX, REQUEST_SIZE_MAX, TEXT_SIZE_MAX, KEYS_PER_REQUEST_MAX, m.OUTSTANDING_MAX),
    *(FILES_PER_ENTRY_MAX, TOP_MAX, m.PROTECTED_NAMED_MAX),
]
STRUCTS = sorted({type(part) for message in EVERY for part in structs_in(message)}, key=lambda struct: struct.__name__)


PUT = {"op": "put_dataset", "dataset_hash": "a", "file_id": b"x", "request_key": [bytes(16), 1, 1]}
CLAIM = {"op": "claim", "claim_id": bytes(16), "context": b"c", "kind": "model", "keys": ["k"]}


def envelope_of(message: m.Request | m.Reply) -> RequestEnvelope | ReplyEnvelope:
    """The message in its envelope, as request 3."""
    if isinstance(message, m.Request):
        return RequestEnvelope(3, message)
    return ReplyEnvelope(3, message)


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


def left_out(struct: msgspec.Struct) -> set[str]:
    """The fields that are at their default."""
    return {
        field.name
        for field in msgspec.structs.fields(struct)
        if getattr(struct, field.name)
        == (field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
    }


@pytest.mark.parametrize("message", EVERY, ids=name_of)
def test_sample_fills_every_field(message: Message) -> None:
    """A field that is left at its default would not show in the golden bytes."""
    assert left_out(message) == set()


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_samples_fill_every_field_of_what_messages_hold(struct: type[msgspec.Struct]) -> None:
    """The same for rows, items and criteria: between them, all samples of one fill all its fields."""
    held = [part for message in EVERY for part in structs_in(message) if type(part) is struct]
    assert set.intersection(*map(left_out, held)) == set()


@pytest.mark.parametrize("path", sorted(EARLIER.iterdir()), ids=lambda path: path.stem)
def test_earlier_frame_means_what_it_meant(path: Path) -> None:
    """What was sent before a message had some of its fields is still read, and says nothing more than it said."""
    (message,) = (message for message in EVERY if name_of(message) == path.name.split(".")[0])
    payload = bytes.fromhex(path.read_text())[HEADER_SIZE:]
    envelope = msgspec.msgpack.decode(payload, type=type(envelope_of(message)))
    assert type(envelope.body) is type(message)
    again = msgspec.msgpack.decode(bytes(encode_frame(envelope))[HEADER_SIZE:])
    assert again == msgspec.msgpack.decode(payload)


def test_operations_are_all_requests() -> None:
    """What is no operation of ours is refused as unknown, so none may be missing there."""
    assert {name_of(message) for message in REQUESTS} == OPERATIONS


def test_fields_of_a_later_version_are_skipped() -> None:
    """A request with a field that we do not know is understood without it."""
    later = msgspec.msgpack.encode([3, {"op": "drain", "reason": "upgrade", "grace_s": [1, {"deep": True}]}, "more"])
    assert msgspec.msgpack.decode(later, type=RequestEnvelope).body == m.Drain(reason="upgrade")


def test_fields_of_an_earlier_version_have_defaults() -> None:
    """A welcome of the first version, with nothing but what it had to have, is understood."""
    earlier = msgspec.msgpack.encode([0, {"op": "welcome", "protocol": 1, "version": "0.1.0", "pid": 4}])
    assert isinstance(msgspec.msgpack.decode(earlier, type=ReplyEnvelope).body, m.Welcome)


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
        {**PUT, "files": [b"x"] * (FILES_PER_ENTRY_MAX + 1)},
        {**PUT, "files": [b""]},
        {**PUT, "staged": b""},
        {**PUT, "ttl_s": -0.5},
        {**PUT, "ttl_s": 1.1e10},
        {**PUT, "ttl_s": float("nan")},
        {**CLAIM, "work_dir": b""},
        {**CLAIM, "dataset_hash": ""},
        {"op": "get_sizes", "top": -1},
        {"op": "get_sizes", "top": TOP_MAX + 1},
        {"op": "make_plan"},
        {"op": "make_plan", "criteria": {"kinds": ["orphan"]}},
        {"op": "make_plan", "criteria": {"older_than_s": -1}},
        {"op": "make_plan", "criteria": {"unused_for_s": float("inf")}},
        {"op": "make_plan", "criteria": {"to_bytes": -1}},
        {"op": "make_plan", "criteria": {"to_bytes": 2**63}},
        {"op": "make_plan", "criteria": {"to_bytes": 1.5}},
        {"op": "make_plan", "criteria": {"orphan_age_s": float("nan")}},
        {"op": "make_plan", "criteria": {"keys": "abc"}},
        {"op": "apply_plan", "plan_id": ""},
        {"op": "apply_plan", "plan_id": "a" * 65},
        {"op": "undo", "removal_id": 0},
        {"op": "undo", "removal_id": 2**63},
        {"op": "empty_trash", "removal_ids": [1, 0]},
        {"op": "pin", "key": ""},
        {"op": "pin", "key": "k", "until_s": -1},
        {"op": "use", "use_id": bytes(15), "kind": "model", "keys": ["k"]},
        {"op": "use", "use_id": bytes(16), "kind": "model", "keys": []},
        {"op": "use", "use_id": bytes(16), "kind": "model", "keys": ["k"] * (KEYS_PER_REQUEST_MAX + 1)},
        {"op": "end_use", "use_id": bytes(17)},
    ],
    ids=lambda body: str(body)[:60],
)
def test_bounds_are_checked_while_decoding(body: dict[str, object]) -> None:
    """What breaks a bound never reaches the engine."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode([1, body]), type=RequestEnvelope)


@pytest.mark.parametrize(
    "body",
    [
        PUT,
        {**PUT, "files": [b"x"] * FILES_PER_ENTRY_MAX, "staged": b"\xff", "ttl_s": 0},
        {**CLAIM, "work_dir": b"runs/\xff"},
        {"op": "get_sizes", "top": TOP_MAX},
        {"op": "make_plan", "criteria": {}},
        {"op": "make_plan", "criteria": {"kinds": ["model"], "to_bytes": 2**63 - 1, "older_than_s": 0}},
        {"op": "apply_plan", "plan_id": "a" * 64},
        {"op": "undo"},
        {"op": "undo", "removal_id": 2**63 - 1},
        {"op": "empty_trash", "removal_ids": []},
        {"op": "pin", "key": "k", "until_s": 1e10},
        {"op": "use", "use_id": bytes(16), "kind": "model", "keys": ["k"]},
    ],
    ids=lambda body: str(body)[:60],
)
def test_what_keeps_to_the_bounds_is_read(body: dict[str, object]) -> None:
    """The bounds themselves are within them."""
    msgspec.msgpack.decode(msgspec.msgpack.encode([1, body]), type=RequestEnvelope)


def test_plan_request_of_nothing_takes_nothing() -> None:
    """Criteria that name no kind match no entry: a field that is forgotten never removes anything."""
    request = msgspec.msgpack.decode(
        msgspec.msgpack.encode([1, {"op": "make_plan", "criteria": {}}]), type=RequestEnvelope
    )
    assert request.body == MakePlan(criteria=Criteria())
    assert (Criteria().kinds, Criteria().orphans, Criteria().dangling, Criteria().force) == ((), False, False, False)


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
    said: list[RequestEnvelope | ReplyEnvelope] = [
        RequestEnvelope(0, m.Hello(protocol=1, version="1.0")),
        ReplyEnvelope(0, m.Welcome(protocol=1, version="0.1.0", pid=4711)),
        RequestEnvelope(1, m.Lookup(kind=Kind.DATASET, keys=["9f86", "6030"])),
        ReplyEnvelope(1, m.Found(values=[b"file-1", None])),
    ]
    example = page.split("## An example")[1].split("```")[1]
    shown = [re.sub("#.*", "", part) for part in re.split("^(?:->|<-)", example, flags=re.MULTILINE)[1:]]
    assert [bytes.fromhex(part) for part in shown] == [bytes(encode_frame(envelope)) for envelope in said]
