"""Codes stay what they are, and it is always clear who broke the rules."""

from __future__ import annotations

from motoolsd.wire.errors import ErrorCode, LocalProtocolError, MessageTooLarge, ProtocolError, RemoteProtocolError

CODES = """busy peer_refused protocol_error unknown_operation version_mismatch invalid_request storage_failed
corrupt_database schema_too_new unsupported_filesystem directory_missing not_running stale_lease claim_deadlock
entry_protected plan_outdated not_found"""


def test_codes_of_earlier_versions_remain() -> None:
    """Clients of every version act on them: a code may be added, never renamed or taken away."""
    assert set(CODES.split()) <= {code.value for code in ErrorCode}


def test_codes_are_plain_text() -> None:
    """A code is sent and logged as it is."""
    assert f"{ErrorCode.BUSY}" == "busy"


def test_our_fault_is_told_from_theirs() -> None:
    """What we cannot send leaves the connection whole; what they sent ends it."""
    assert issubclass(MessageTooLarge, LocalProtocolError)
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert not issubclass(RemoteProtocolError, LocalProtocolError)


def test_too_large_says_how_much() -> None:
    """Both sizes stand in the text and in attributes."""
    error = MessageTooLarge(17, 16)
    assert (error.size_bytes, error.size_max_bytes) == (17, 16)
    assert "17 bytes" in str(error)
