"""An origin is small whatever it is made of, and has one name."""

from __future__ import annotations

import msgspec
import pytest

from motoolsd.wire.origins import ARGUMENTS_MAX, COMMAND_SIZE_MAX_BYTES, Origin, origin_id

FULL = Origin(
    user="ann",
    uid=1000,
    host="node-1",
    pid=42,
    started_at="2026-01-31T23:59:59.123Z",
    command=("python", "train.py", "--lr", "1e-4", "\0\x1b[31m\u202e"),
    cwd="/home/ann/\\udcff",
    git_commit="0" * 40,
    git_branch="main",
    git_dirty=False,
    scheduler="slurm",
    job_id="slurm:1234_5",
    package="0.1.0",
)


@pytest.mark.parametrize("origin", [Origin(), FULL])
def test_origin_survives_the_wire(origin: Origin) -> None:
    """To the last character, and under the same id."""
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(origin), type=Origin)
    assert decoded == origin
    assert origin_id(decoded) == origin_id(origin)


def test_id_is_what_it_always_was() -> None:
    """Rows of earlier versions name origins by it: a new field with a default leaves it alone."""
    assert origin_id(Origin()).hex() == "ac69880be8c04c40e2fe726341145871"
    assert origin_id(FULL).hex() == "81e79637c99b5ae923bfcb6bef4f3d56"


@pytest.mark.parametrize("name", Origin.__struct_fields__)
def test_every_field_counts_for_the_id(name: str) -> None:
    """Two processes that differ in anything are two."""
    values = {field: getattr(FULL, field) for field in Origin.__struct_fields__ if field != name}
    other = Origin(**values)
    assert other != FULL
    assert origin_id(other) != origin_id(FULL)
    assert len(origin_id(other)) == 16


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "x" * 257),
        ("host", "x" * 257),
        ("uid", -1),
        ("uid", 2**32),
        ("pid", -1),
        ("pid", 2**31),
        ("started_at", "x" * 65),
        ("command", ["x"] * (ARGUMENTS_MAX + 1)),
        ("command", ["x" * (COMMAND_SIZE_MAX_BYTES + 1)]),
        ("command", ["x" * 100] * 100),
        ("command", ["ä" * 100] * 41),
        ("cwd", "x" * 4097),
        ("git_commit", "x" * 65),
        ("git_branch", "x" * 257),
        ("git_dirty", "yes"),
        ("scheduler", "x" * 257),
        ("job_id", "x" * 257),
        ("package", "x" * 257),
    ],
)
def test_too_much_is_refused(field: str, value: object) -> None:
    """Whatever decodes is bounded, the command in all as well as each of its arguments."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode({field: value}), type=Origin)


def test_largest_command_is_taken() -> None:
    """The limits are part of what is allowed."""
    command = ("x" * (COMMAND_SIZE_MAX_BYTES // ARGUMENTS_MAX),) * ARGUMENTS_MAX
    origin = Origin(command=command)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(origin), type=Origin) == origin


def test_newer_fields_are_passed_over() -> None:
    """A newer client may tell more."""
    packed = msgspec.msgpack.encode({"user": "ann", "gpu": "eight of them"})
    assert msgspec.msgpack.decode(packed, type=Origin) == Origin(user="ann")
