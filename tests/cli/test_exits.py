"""Exit codes: every error has one, and each code one meaning."""

from __future__ import annotations

import pytest

from motools.cache import errors
from motools.cache.errors import CacheError
from motools.cli import exits
from motools.cli.exits import exit_code

CODES = {
    errors.CacheDirectoryMissing: 3,
    errors.PeerRefused: 4,
    errors.DaemonNotRunning: 69,
    errors.DaemonBusy: 75,
    errors.ConnectionLost: 75,
    errors.CacheRequestError: 2,
    errors.StorageFailed: 1,
    errors.VersionMismatch: 1,
    errors.CorruptDatabase: 1,
    errors.SchemaTooNew: 1,
    errors.UnsupportedFilesystem: 1,
    errors.ClaimTimeout: 75,
    errors.ClaimDeadlock: 1,
    errors.ComputationFailed: 1,
    errors.StaleLease: 1,
}


@pytest.mark.parametrize(("kind", "code"), list(CODES.items()))
def test_error_ends_with_its_code(kind: type[CacheError], code: int) -> None:
    """What scripts rely on."""
    assert exit_code(kind("what went wrong")) == code


def test_error_of_a_newer_kind_is_a_failure() -> None:
    """An error that nobody thought of here is not taken for something else."""

    class NewError(CacheError):
        pass

    assert exit_code(NewError()) == exits.FAILED


def test_input_that_breaks_a_rule_is_a_usage_error() -> None:
    """A subclass means what its parent means."""
    assert exit_code(errors.UncacheableConfigError("config.lr", "is nan")) == exits.USAGE
