"""Recovery: what is tried again, how soon, and what is said at the end."""

from __future__ import annotations

import pytest

from motools.cache.errors import (
    CacheError,
    CacheProtocolError,
    CacheRequestError,
    ConnectionLost,
    CorruptDatabase,
    DaemonBusy,
    DaemonNotRunning,
    PeerRefused,
    StorageFailed,
)
from motools.cache.recovery import PAUSE_FIRST_S, PAUSE_LAST_S, RENEWALS_MAX, Recovery, RequestKeys, is_outdated
from motoolsd.wire.messages import PROTOCOL, Welcome
from motoolsd.wire.version import __version__


def recovery(*, is_write: bool = False) -> Recovery:
    """Of a call that began at 100 s and has 10 s."""
    return Recovery(10.0, 100.0, is_write=is_write)


def test_pauses_double_up_to_a_limit() -> None:
    """A daemon that is starting is asked soon, and not hammered."""
    patience = recovery()
    pauses = [patience.after(ConnectionLost("gone"), 100.0) for _ in range(10)]
    assert pauses[:3] == [PAUSE_FIRST_S, PAUSE_FIRST_S * 2, PAUSE_FIRST_S * 4]
    assert max(pauses) == pauses[-1] == PAUSE_LAST_S


def test_pause_never_outlasts_the_call() -> None:
    """The last pause ends when the time does."""
    patience = recovery()
    assert patience.after(ConnectionLost("gone"), 109.998) == pytest.approx(0.002)


def test_last_error_is_raised_when_the_time_is_over() -> None:
    """What failed last is what the caller gets."""
    with pytest.raises(DaemonNotRunning, match="nobody"):
        recovery().after(DaemonNotRunning("nobody"), 110.0)


@pytest.mark.parametrize(
    "error",
    [
        PeerRefused("another user"),
        CacheProtocolError("garbage"),
        CacheRequestError("no such kind"),
        CorruptDatabase("damaged"),
        StorageFailed("disk full", True),
    ],
)
def test_errors_that_say_the_same_again_are_not_retried(error: CacheError) -> None:
    """Time does not mend these."""
    with pytest.raises(type(error)):
        recovery().after(error, 100.0)


def test_final_errors_are_not_retried() -> None:
    """A daemon that said why it does not start is not started again within the call."""
    error = DaemonNotRunning("bad configuration")
    error.is_final = True
    with pytest.raises(DaemonNotRunning):
        recovery().after(error, 100.0)


@pytest.mark.parametrize(
    "error", [DaemonBusy("b"), DaemonNotRunning("n"), ConnectionLost("l"), StorageFailed("s", False)]
)
def test_passing_errors_are_retried(error: CacheError) -> None:
    """These may be over in a moment; a commit of unknown outcome may be repeated under its key."""
    assert recovery(is_write=True).after(error, 100.0) > 0


def test_write_that_was_once_sent_says_that_it_may_have_been_applied() -> None:
    """Whatever fails last, a write that reached a daemon before has an unknown outcome."""
    patience = recovery(is_write=True)
    patience.after(ConnectionLost("gone", False), 101.0)
    with pytest.raises(DaemonNotRunning, match="may have been applied") as caught:
        patience.after(DaemonNotRunning("nobody"), 110.0)
    assert not caught.value.outcome_known


def test_read_never_says_that_something_was_applied() -> None:
    """A lookup changes nothing, however it ends."""
    patience = recovery()
    patience.after(ConnectionLost("gone", False), 101.0)
    with pytest.raises(DaemonNotRunning) as caught:
        patience.after(DaemonNotRunning("nobody"), 110.0)
    assert caught.value.outcome_known


def test_request_keys_count_up_and_name_the_lowest_open_one() -> None:
    """The daemon may forget the replies of all numbers below it."""
    keys = RequestKeys()
    first, second = keys.new(), keys.new()
    assert (first.number, second.number, second.lowest_open) == (1, 2, 1)
    keys.done(first)
    assert keys.new().lowest_open == 2


def test_retry_is_the_same_write_marked() -> None:
    """Client and number stay, so that it is applied once."""
    keys = RequestKeys()
    first, second = keys.new(), keys.new()
    keys.done(first)
    again = keys.retry(second)
    assert (again.client, again.number, again.lowest_open, again.is_retry) == (second.client, 2, 2, True)


def test_two_clients_never_have_the_same_keys() -> None:
    """A client id is 16 random bytes."""
    assert RequestKeys().new().client != RequestKeys().new().client


@pytest.mark.parametrize(
    ("version", "expected"), [("0.0.9", True), (__version__, False), (f"{__version__}rc1", False), ("999.0", False)]
)
def test_only_a_daemon_of_an_older_release_is_outdated(version: str, *, expected: bool) -> None:
    """Never a newer one: it would be asked to go for the sake of an older client."""
    assert is_outdated(Welcome(protocol=PROTOCOL, version=version, pid=1)) is expected


def test_sent_write_keeps_its_doubt_when_no_daemon_can_be_had_again() -> None:
    """A daemon that died before it answered and cannot be started again may have applied the write."""
    recovery = Recovery(30, 0, is_write=True)
    recovery.after(ConnectionLost("gone", False), 1)
    final = DaemonNotRunning("none runs, and none may be started")
    final.is_final = True
    with pytest.raises(DaemonNotRunning, match="may have been applied") as caught:
        recovery.after(final, 2)
    assert not caught.value.outcome_known


def test_answer_to_a_retry_settles_the_outcome() -> None:
    """What a daemon refuses at the second try was not applied at the first."""
    recovery = Recovery(30, 0, is_write=True)
    recovery.after(ConnectionLost("gone", False), 1)
    refusal = CacheRequestError("no")
    with pytest.raises(CacheRequestError) as caught:
        recovery.after(refusal, 2)
    assert caught.value is refusal


def test_disk_that_fails_again_is_not_tried_for_the_whole_time() -> None:
    """A retry settles what became of the first; afterwards the caller hears of it, through renewals too."""
    patience = recovery(is_write=True)
    error = StorageFailed("fsync", False)
    patience.after(error, 100.0)
    patience = patience.anew(100.0)
    patience.after(error, 100.0)
    with pytest.raises(StorageFailed) as caught:
        patience.anew(100.0).after(error, 100.0)
    assert not caught.value.outcome_known


def test_patience_is_renewed_so_often_and_not_for_ever() -> None:
    """A daemon that begins to answer and dies of it each time."""
    patience = recovery()
    for renewal in range(RENEWALS_MAX + 5):
        patience = patience.anew(100.0 + renewal)
    assert patience.left_s(100.0) == recovery().left_s(100.0) + RENEWALS_MAX - 1
