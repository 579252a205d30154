"""SyncCache against a daemon that misbehaves as told."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import pytest

from motools.cache import SyncCache
from motools.cache.errors import (
    CacheProtocolError,
    CacheRequestError,
    CacheUnavailable,
    CorruptDatabase,
    DaemonBusy,
    DaemonNotRunning,
    StorageFailed,
    VersionMismatch,
)
from motoolsd.wire.envelopes import ReplyEnvelope
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.listing import DatasetPage
from motoolsd.wire.messages import Failure, Hello, Lookup, Stored, Welcome
from motoolsd.wire.names import SOCKET
from motoolsd.wire.session import encode_frame
from tests.cache.scripted import Script, Talk, answer_to, scripted_daemon, serve, silent
from tests.cache.stamped import StampsFile

TIMEOUT_S = 0.3
SLACK_S = 0.1
TALK_TIMEOUT_S = 10.0


class Options(TypedDict, total=False):
    """The other options of a client."""

    on_unavailable: Literal["raise", "miss"]


def client(
    directory: Path, *, timeout_s: float = TALK_TIMEOUT_S, autostart: bool = False, **options: Unpack[Options]
) -> SyncCache:
    """A client of a scripted daemon."""
    return SyncCache(directory, autostart=autostart, timeout_s=timeout_s, **options)


def took(function: Callable[[], object], error: type[Exception]) -> float:
    """Seconds until the error comes."""
    begun_s = time.monotonic()
    with pytest.raises(error):
        function()
    return time.monotonic() - begun_s


def answer_with(data: bytes) -> Script:
    """Welcome, then answer the first request with these bytes, and nothing more."""

    def script(talk: Talk) -> None:
        talk.greet()
        if talk.next() is not None:
            talk.send(data)
            talk.wait_until_gone()

    return script


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\0",
        b"\0\0\0\1\xc1",
        b"\0\0\0\2\x91\1",
        bytes(encode_frame(ReplyEnvelope(999, Stored()))),
    ],
    ids=["http", "empty frame", "no MessagePack", "no envelope", "reply to nothing"],
)
def test_garbage_is_a_protocol_error_and_the_next_call_connects_anew(garbage: bytes, cache_dir: Path) -> None:
    """What listens is no motoolsd: said at once, and the connection is not used again."""
    with scripted_daemon(cache_dir, answer_with(garbage), serve) as daemon, client(cache_dir) as cache:
        with pytest.raises(CacheProtocolError, match="no motoolsd"):
            cache.get_file_id("d")
        assert cache.get_file_id("d") == "value of d"
        assert daemon.accepted == 2


def test_garbage_in_place_of_a_welcome_is_a_protocol_error(cache_dir: Path) -> None:
    """Already the greeting shows that something else listens."""

    def script(talk: Talk) -> None:
        talk.next()
        talk.send(b"SSH-2.0-OpenSSH_9.2\r\n")

    with scripted_daemon(cache_dir, script), client(cache_dir) as cache, pytest.raises(CacheProtocolError):
        cache.get_file_id("d")


def test_connection_closed_in_mid_frame_repeats_the_write_under_its_key(cache_dir: Path) -> None:
    """A reply that was cut off leaves the outcome open: the same request key again, marked as a retry."""

    def cut_off(talk: Talk) -> None:
        talk.greet()
        talk.next()
        talk.send(b"\0\0\0\x20part")

    with scripted_daemon(cache_dir, cut_off, serve) as daemon, client(cache_dir) as cache:
        cache.set_file_id("d", "file")
        first, second = (request for request in daemon.requests if not isinstance(request, Hello))
    keys: list[Any] = [first, second]
    one, two = (request.request_key for request in keys)
    assert (one.client, one.number, one.is_retry) == (two.client, two.number, False)
    assert two.is_retry


def test_write_whose_reply_was_dropped_returns_once_it_is_answered(cache_dir: Path) -> None:
    """The daemon applied it and died before the reply: the retry is answered, and the caller sees nothing of it."""

    def applied_and_gone(talk: Talk) -> None:
        talk.greet()
        talk.next()

    with scripted_daemon(cache_dir, applied_and_gone, applied_and_gone, serve) as daemon, client(cache_dir) as cache:
        cache.set_file_id("d", "file")
        cache.set_file_id("e", "file")
        puts: list[Any] = [request for request in daemon.requests if not isinstance(request, Hello)]
    assert [(put.dataset_hash, put.request_key.number, put.request_key.is_retry) for put in puts] == [
        ("d", 1, False),
        ("d", 1, True),
        ("d", 1, True),
        ("e", 2, False),
    ]
    assert puts[-1].request_key.lowest_open == 2


def test_lost_write_says_that_it_may_have_been_applied(cache_dir: Path) -> None:
    """When the time is over, the outcome is not known, and repeating is safe."""

    def hang_up(talk: Talk) -> None:
        talk.greet()
        talk.next()

    # Which of its errors was the last one depends on the moment at which the time was over.
    lost = pytest.raises(CacheUnavailable, match="may have been applied")
    with scripted_daemon(cache_dir, hang_up), client(cache_dir, timeout_s=TIMEOUT_S) as cache, lost as caught:
        cache.set_file_id("d", "file")
    assert not caught.value.outcome_known


def test_silent_daemon_is_busy_within_the_timeout(cache_dir: Path) -> None:
    """A call never takes longer than `timeout_s`, and the next one is none the worse."""
    with scripted_daemon(cache_dir, silent, silent, serve), client(cache_dir, timeout_s=TIMEOUT_S) as cache:
        for _ in range(2):
            assert TIMEOUT_S - SLACK_S < took(lambda: cache.get_file_id("d"), DaemonBusy) < TIMEOUT_S + SLACK_S
        assert cache.get_file_id("d") == "value of d"


def test_daemon_that_never_welcomes_is_busy_within_the_timeout(cache_dir: Path) -> None:
    """The greeting is part of the call."""
    mute = Talk.wait_until_gone
    with scripted_daemon(cache_dir, mute), client(cache_dir, timeout_s=TIMEOUT_S) as cache:
        assert took(lambda: cache.get_file_id("d"), DaemonBusy) < TIMEOUT_S + SLACK_S


@pytest.mark.parametrize("pause_s", [0.01, TIMEOUT_S * 0.9], ids=["many drops", "one late drop"])
def test_reply_that_comes_in_drops_does_not_outlast_the_timeout(pause_s: float, cache_dir: Path) -> None:
    """The time is for the whole reply, not for each byte of it."""
    gone = threading.Event()

    def drip(talk: Talk) -> None:
        talk.greet()
        talk.next()
        for byte in b"\0\0\4\0" + b"x" * 200:
            gone.wait(pause_s)
            talk.send(bytes([byte]))

    with scripted_daemon(cache_dir, drip), client(cache_dir, timeout_s=TIMEOUT_S) as cache:
        assert took(lambda: cache.get_file_id("d"), DaemonBusy) < TIMEOUT_S + SLACK_S
        gone.set()


def test_listing_that_never_ends_does_not_outlast_the_timeout(cache_dir: Path) -> None:
    """A stream of pages is one call too."""
    gone = threading.Event()

    def page_after_page(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        while request is not None and not gone.wait(0.02):
            talk.reply(request, DatasetPage(items=[]))

    with scripted_daemon(cache_dir, page_after_page), client(cache_dir, timeout_s=TIMEOUT_S) as cache:
        assert took(cache.list_datasets, DaemonBusy) < TIMEOUT_S + SLACK_S
        gone.set()


def test_threads_that_wait_for_each_other_share_the_time(cache_dir: Path) -> None:
    """Eight threads and a silent daemon: each is back in its own timeout, not in eight."""
    with scripted_daemon(cache_dir, silent), client(cache_dir, timeout_s=TIMEOUT_S) as cache:
        times: list[float] = []
        ask = lambda: times.append(took(lambda: cache.get_file_id("d"), DaemonBusy))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TALK_TIMEOUT_S)
    assert len(times) == 8
    assert max(times) < TIMEOUT_S + 2 * SLACK_S


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.INVALID_REQUEST, CacheRequestError),
        (ErrorCode.CORRUPT_DATABASE, CorruptDatabase),
        (ErrorCode.STORAGE_FAILED, StorageFailed),
        ("code of tomorrow", CacheProtocolError),
    ],
)
def test_failure_is_raised_as_its_class_and_the_connection_goes_on(
    code: str, kind: type[Exception], cache_dir: Path
) -> None:
    """One bad request is one error."""

    def refuse_once(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        talk.reply(request, Failure(code=code, message="do this next"))
        talk.serve()

    with scripted_daemon(cache_dir, refuse_once) as daemon, client(cache_dir) as cache:
        with pytest.raises(kind, match="do this next"):
            cache.get_file_id("d")
        assert cache.get_file_id("d") == "value of d"
        assert daemon.accepted == 1


def test_commit_of_unknown_outcome_is_repeated_under_its_key(cache_dir: Path) -> None:
    """The daemon does not know whether the batch is on disk; its key makes a retry safe."""

    def unsure_once(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        detail: dict[str, Any] = {"outcome_known": False}
        talk.reply(request, Failure(code=ErrorCode.STORAGE_FAILED, message="I/O error", detail=detail))
        talk.serve()

    with scripted_daemon(cache_dir, unsure_once) as daemon, client(cache_dir) as cache:
        cache.set_file_id("d", "file")
        puts: list[Any] = daemon.requests[1:]
    assert [put.request_key.is_retry for put in puts] == [False, True]


def test_daemon_of_another_protocol_is_a_version_mismatch(cache_dir: Path) -> None:
    """Nothing is retried: both sides must be of the same version."""

    def other_protocol(talk: Talk) -> None:
        request = talk.next()
        assert request is not None
        talk.reply(request, Failure(code=ErrorCode.VERSION_MISMATCH, message="install the same version"))

    with scripted_daemon(cache_dir, other_protocol) as daemon, client(cache_dir) as cache:
        with pytest.raises(VersionMismatch, match="install the same version"):
            cache.get_file_id("d")
        assert daemon.accepted == 1


def welcoming_as(version: str, started_by: str) -> Script:
    """A daemon of some version."""

    def script(talk: Talk) -> None:
        talk.greet(version=version, started_by=started_by)
        talk.serve()

    return script


def test_older_daemon_of_a_client_is_asked_to_drain_once(cache_dir: Path) -> None:
    """A newer client wants its own daemon; should it find an old one again, that one serves."""
    with scripted_daemon(cache_dir, welcoming_as("0.0.1", "client")) as daemon:
        with client(cache_dir, autostart=True) as cache:
            assert cache.get_file_id("d") == "value of d"
        assert daemon.kinds() == ["Drain", "Lookup"]
        assert daemon.accepted == 2


@pytest.mark.parametrize(("version", "started_by"), [("0.0.1", "command"), ("0.0.1", "systemd"), ("999.0", "client")])
def test_other_daemons_are_left_alone(version: str, started_by: str, cache_dir: Path) -> None:
    """Never a newer one, never one that somebody started on purpose."""
    with scripted_daemon(cache_dir, welcoming_as(version, started_by)) as daemon:
        with client(cache_dir, autostart=True) as cache:
            assert cache.get_file_id("d") == "value of d"
        assert daemon.kinds() == ["Lookup"]


def test_client_without_autostart_uses_an_older_daemon(cache_dir: Path) -> None:
    """Who may not start a daemon does not end one either."""
    with scripted_daemon(cache_dir, welcoming_as("0.0.1", "client")) as daemon, client(cache_dir) as cache:
        assert cache.get_file_id("d") == "value of d"
        assert daemon.kinds() == ["Lookup"]


def test_environment_without_autostart_keeps_an_older_daemon(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MOTOOLS_AUTOSTART=0 means the same: no daemon is ended that could not be started again."""
    monkeypatch.setenv("MOTOOLS_AUTOSTART", "0")
    with scripted_daemon(cache_dir, welcoming_as("0.0.1", "client")) as daemon:
        with client(cache_dir, autostart=True) as cache:
            assert cache.get_file_id("d") == "value of d"
        assert daemon.kinds() == ["Lookup"]


def test_older_daemon_that_is_left_alone_is_named_once(cache_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the command to type; not at every connection."""
    with scripted_daemon(cache_dir, welcoming_as("0.0.1", "systemd")):
        for _ in range(2):
            with client(cache_dir) as cache:
                cache.get_file_id("d")
    assert [record.name for record in caplog.records] == ["motools.cache"]
    assert "motools daemon restart" in caplog.text


def test_interrupt_in_a_waiting_call_leaves_the_client_usable(cache_dir: Path) -> None:
    """Ctrl-C passes through; the next call gets its own answer, not the interrupted one's."""

    def interrupting(talk: Talk) -> None:
        talk.greet()
        talk.next()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        talk.wait_until_gone()

    with scripted_daemon(cache_dir, interrupting, serve), client(cache_dir) as cache:
        with pytest.raises(KeyboardInterrupt):
            cache.get_file_id("d")
        assert cache.get_file_id("e") == "value of e"


def test_closed_client_refuses_calls(cache_dir: Path) -> None:
    """Closing twice does nothing."""
    with scripted_daemon(cache_dir):
        with client(cache_dir) as cache:
            cache.get_file_id("d")
        cache.close()
        with pytest.raises(CacheRequestError, match="closed"):
            cache.get_file_id("d")


def test_forgotten_client_gives_no_warning_and_leaves_no_descriptor(cache_dir: Path) -> None:
    """Nobody has to close it: the connection goes with the client."""
    with scripted_daemon(cache_dir, serve):
        cache = client(cache_dir)
        cache.get_file_id("d")
        held = cache._connection  # noqa: SLF001 - what becomes of it is the promise
        assert held is not None
        descriptor = held._socket.fileno()  # noqa: SLF001 - as above
        del cache, held
        gc.collect()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_forked_child_is_another_client_with_a_connection_of_its_own(cache_dir: Path) -> None:
    """The child gets a new client id; the parent's connection stays as it was."""
    with scripted_daemon(cache_dir) as daemon, client(cache_dir) as cache:
        cache.set_file_id("d", "file")
        pid = os.fork()
        if pid == 0:
            try:
                cache.set_file_id("e", "file")
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        cache.set_file_id("f", "file")
        puts: list[Any] = [request for request in daemon.requests if not isinstance(request, Hello)]
        assert daemon.accepted == 2
    parent, child, parent_again = (put.request_key for put in puts)
    assert child.client != parent.client
    assert (parent_again.client, parent_again.number) == (parent.client, 2)


def test_request_larger_than_a_frame_is_the_callers_mistake(cache_dir: Path) -> None:
    """Said before anything is sent, and the connection goes on."""
    logs = {f"task {number}": "/" + "x" * 4_000_000 for number in range(5)}
    with scripted_daemon(cache_dir) as daemon, client(cache_dir) as cache:
        with pytest.raises(CacheRequestError, match="does not fit"):
            cache.set_eval_log_paths("m", logs, "inspect")
        assert cache.get_file_id("d") == "value of d"
        assert daemon.accepted == 1


def test_without_daemon_and_autostart_the_error_says_what_to_type(cache_dir: Path) -> None:
    """At once: nobody will start one."""
    cache_dir.mkdir()
    with client(cache_dir) as cache, pytest.raises(DaemonNotRunning, match="motools daemon start"):
        cache.get_file_id("d")


def test_welcome_in_place_of_an_answer_is_a_protocol_error(cache_dir: Path) -> None:
    """A reply of the wrong kind is not believed."""

    def script(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        talk.reply(request, Welcome(protocol=1, version="1", pid=1))

    with scripted_daemon(cache_dir, script), client(cache_dir) as cache, pytest.raises(CacheProtocolError):
        cache.get_file_id("d")


def test_daemon_that_is_gone_is_told_at_every_call_and_found_when_it_is_back(cache_dir: Path) -> None:
    """A client whose connection ended never says "cannot send": it looks for a daemon each time."""

    def serve_twice(talk: Talk) -> None:
        talk.greet()
        for _ in range(2):
            request = talk.next()
            assert request is not None
            talk.reply(request, answer_to(request.body))
        talk.next()
        (cache_dir / SOCKET).unlink()

    with client(cache_dir) as cache:
        with scripted_daemon(cache_dir, serve_twice):
            assert [cache.get_file_id("d") for _ in range(2)] == ["value of d"] * 2
            for _ in range(3):
                with pytest.raises(DaemonNotRunning, match="motools daemon start"):
                    cache.get_file_id("d")
        with scripted_daemon(cache_dir):
            assert cache.get_file_id("d") == "value of d"


def test_signal_handler_in_a_call_is_refused_and_does_not_wait_for_itself(cache_dir: Path) -> None:
    """A handler that uses the interrupted client gets an error at once; the interrupted call goes on."""
    caught: list[BaseException] = []

    def use(*_: object) -> None:
        for function in (cache.get_stats, cache.close):
            try:
                function()
            except CacheRequestError as error:
                caught.append(error)
        handled.set()

    def interrupt(talk: Talk) -> None:
        talk.greet()
        request = talk.next()
        assert request is not None
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert handled.wait(TALK_TIMEOUT_S)
        talk.reply(request, answer_to(request.body))

    handled = threading.Event()
    with scripted_daemon(cache_dir, interrupt), client(cache_dir) as cache:
        previous = signal.signal(signal.SIGUSR1, use)
        try:
            assert cache.get_file_id("d") == "value of d"
        finally:
            signal.signal(signal.SIGUSR1, previous)
    assert ["signal handler" in str(error) for error in caught] == [True, True]


@pytest.mark.parametrize("wrong", [["d"], {"d": 1}, {"d"}, 7, None, b"d", "", ()], ids=repr)
def test_dataset_hash_that_is_none_is_the_callers_mistake(wrong: Any, cache_dir: Path) -> None:  # noqa: ANN401 - anything
    """Also where answers are remembered, and where it cannot be looked for among them."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve) as daemon, client(cache_dir) as cache:
        cache.get_file_id("d")
        with pytest.raises(CacheRequestError, match="dataset_hash"):
            cache.get_file_id(wrong)
        assert daemon.kinds() == ["Lookup"]


# Many at once.


def test_many_questions_are_one_request(cache_dir: Path) -> None:
    """As they were asked, also where some of them are remembered."""
    stamps = StampsFile(cache_dir)
    keys = [str(number) for number in range(10_000)]
    with scripted_daemon(cache_dir, stamps.serve) as daemon, client(cache_dir) as cache:
        cache.get_file_id("7")
        assert cache.get_many("dataset", keys) == [f"value of {key}" for key in keys]
        with pytest.raises(CacheRequestError, match="in parts"):
            cache.get_many("dataset", [*keys, "one more"])
        lookups = [request for request in daemon.requests if isinstance(request, Lookup)]
    assert [len(lookup.keys) for lookup in lookups] == [1, 10_000]


EVERY_LOOKUP: list[Callable[[SyncCache], object]] = [
    lambda cache: cache.get_file_id("d"),
    lambda cache: cache.get_model_id("d", {}),
    lambda cache: cache.get_evals("m", ["t"], "inspect"),
    lambda cache: cache.get_evals("m", [], "inspect"),
    lambda cache: cache.get_eval_log_paths("m", ["t"], "inspect"),
    lambda cache: cache.get_many("dataset", ["d"]),
    lambda cache: cache.get_many("dataset", []),
]


@pytest.mark.parametrize("ask", EVERY_LOOKUP)
def test_closed_client_gives_nothing_from_memory(ask: Callable[[SyncCache], object], cache_dir: Path) -> None:
    """What was remembered, and what has no keys to ask for, is refused as all else is."""
    stamps = StampsFile(cache_dir)
    with scripted_daemon(cache_dir, stamps.serve):
        with client(cache_dir) as cache:
            for _ in range(2):
                ask(cache)
        with pytest.raises(CacheRequestError, match="closed"):
            ask(cache)
