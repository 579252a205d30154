"""The cache never fails or stalls a job: whatever became of the daemon, every call is back in time.

As a miss or a dropped write, or as a typed error, as the caller chose.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, get_args

import anyio

from motools.cache import Cache, CacheError, SyncCache
from motoolsd.wire.names import SOCKET
from tests.daemons import DaemonProcess, running
from tests.faults.attack import Attack, Report, scratch

TIMEOUT_S: Final = 0.4
MARGIN_S: Final = 0.1
"""Within which a call must be back after its timeout."""
CALLS_EACH: Final = 3
PIECE_SIZE_BYTES: Final = 65_536
CONFIG: Final = {"epochs": 3}
Face = Literal["blocking", "async"]
OnUnavailable = Literal["raise", "miss"]


# ------------------------------------------------------------------------------------------------ what became of it


@contextmanager
def absent(directory: Path) -> Iterator[None]:
    """None runs, and none is started."""
    directory.mkdir()
    yield


@contextmanager
def stopped(directory: Path) -> Iterator[None]:
    """It is there, and does not run: SIGSTOP, as by a debugger or a frozen container."""
    directory.mkdir()
    with running(directory) as daemon:
        daemon.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            daemon.signal(signal.SIGCONT)


@contextmanager
def crashing(directory: Path) -> Iterator[None]:
    """Each dies a moment after it has started, and the next one is started at once."""
    directory.mkdir()
    ended = threading.Event()

    def crash() -> None:
        while not ended.is_set():
            daemon = DaemonProcess(directory)
            ended.wait(0.05)
            daemon.kill()

    thread = threading.Thread(target=crash)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def unstartable(directory: Path) -> Iterator[None]:
    """Each client starts one, and none comes up: its settings are wrong."""
    directory.mkdir()
    (directory / "config.toml").write_text("nonsense = 1\n")
    yield


def _answering(answer: Callable[[socket.socket], object]) -> Callable[[Path], Any]:
    """Something else listens there."""

    @contextmanager
    def listening(directory: Path) -> Iterator[None]:
        directory.mkdir(mode=0o700)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / SOCKET))
        (directory / SOCKET).chmod(0o600)
        listener.listen(64)
        open_ones: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    open_ones.append(connection)
                    with suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            listener.close()
            for connection in open_ones:
                connection.close()

    return listening


def _garbage(connection: socket.socket) -> None:
    connection.settimeout(1.0)
    connection.recv(PIECE_SIZE_BYTES)
    connection.sendall(os.urandom(4096))


def _truncated(connection: socket.socket) -> None:
    connection.settimeout(1.0)
    connection.recv(PIECE_SIZE_BYTES)
    connection.sendall((1000).to_bytes(4) + b"\x82")


STATES: Final[dict[str, Callable[[Path], Any]]] = {
    "absent": absent,
    "stopped": stopped,
    "crashing": crashing,
    "unstartable": unstartable,
    "silent": _answering(lambda _connection: None),
    "closing": _answering(socket.socket.close),
    "garbage": _answering(_garbage),
    "truncated": _answering(_truncated),
}

# ---------------------------------------------------------------------------------------------------- what is called


def _train() -> str:
    return "model"


async def _trained() -> str:
    return "model"


Made = Any
CALLS: Final[dict[str, Callable[[Made], Any]]] = {
    "get_file_id": lambda cache: cache.get_file_id("d"),
    "get_model_id": lambda cache: cache.get_model_id("d", CONFIG),
    "get_eval_log_paths": lambda cache: cache.get_eval_log_paths("m", ["t"], "b"),
    "get_many": lambda cache: cache.get_many("dataset", ["a", "b"]),
    "set_file_id": lambda cache: cache.set_file_id("d", "file"),
    "set_model_id": lambda cache: cache.set_model_id("d", CONFIG, "model"),
    "set_eval_log_paths": lambda cache: cache.set_eval_log_paths("m", {"t": "log"}, "b"),
    "get_or_train": lambda cache: cache.get_or_train("d", CONFIG, _train if isinstance(cache, SyncCache) else _trained),
    "list_models": lambda cache: cache.list_models(),
    "get_stats": lambda cache: cache.get_stats(),
    "clear_datasets": lambda cache: cache.clear_datasets(["d"]),
}
ALWAYS_RAISE: Final = {"list_models", "get_stats", "clear_datasets"}
"""There is no miss for them: they say that there is no daemon."""
MISSES: Final = {"get_many": [None, None], "get_or_train": "model"}


def attack(report: Report, rounds: range, margin_s: float = MARGIN_S) -> None:
    """A few calls in each round, in one state of the daemon."""
    for number in rounds:
        random = Random(number)
        state = list(STATES)[number % len(STATES)]
        with scratch() as top:
            directory = top / ".motools"
            with STATES[state](directory):
                for name in random.sample(list(CALLS), CALLS_EACH):
                    face: Face = random.choice(get_args(Face))
                    on_unavailable: OnUnavailable = random.choice(get_args(OnUnavailable))
                    where = f"round {number}, {state}, {face}, {on_unavailable}, {name}"
                    _call(report, directory, name, face, on_unavailable, where, margin_s, state)
        report.rounds += 1


def _call(
    report: Report,
    directory: Path,
    name: str,
    face: Face,
    on_unavailable: OnUnavailable,
    where: str,
    margin_s: float,
    state: str,
) -> None:
    options: dict[str, Any] = {
        "autostart": state == "unstartable",
        "timeout_s": TIMEOUT_S,
        "on_unavailable": on_unavailable,
    }
    began_s = time.monotonic()
    raised: CacheError | None
    try:
        result = (
            _blocking(directory, name, options) if face == "blocking" else anyio.run(_async, directory, name, options)
        )
        raised = None
    except CacheError as error:
        result, raised = None, error
    except Exception as error:  # noqa: BLE001 - that is what must not be
        report.violate(f"{where}: {type(error).__name__} is no CacheError: {error}")
        return
    took_s = time.monotonic() - began_s
    allowed_s = TIMEOUT_S * (2 if name == "get_or_train" and on_unavailable == "miss" else 1) + margin_s
    report.count("calls")
    report.note("longest call, s", took_s)
    report.expect(took_s <= allowed_s, f"{where}: back after {took_s:.2f} s")
    if state == "crashing" and raised is None:
        return  # one of them may have answered
    if on_unavailable == "miss" and name not in ALWAYS_RAISE:
        report.expect(raised is None, f"{where}: raised {raised!r}")
        report.expect(result == MISSES.get(name), f"{where}: gave {result!r}")
    else:
        report.expect(raised is not None, f"{where}: gave {result!r}")


def _blocking(directory: Path, name: str, options: dict[str, Any]) -> object:
    cache = SyncCache(directory, **options)
    try:
        return CALLS[name](cache)
    finally:
        cache._drop_connection()  # noqa: SLF001 - closing is a call of its own


async def _async(directory: Path, name: str, options: dict[str, Any]) -> object:
    cache = Cache(directory, **options)
    called = CALLS[name](cache)
    return await called if isinstance(called, Awaitable) else called


ATTACK = Attack(
    name="unavailable",
    promise="the cache never fails or stalls a job",
    says="the daemon absent, stopped, in a crash loop, unable to start, silent, or replaced by what sends garbage",
    wanted="every call back within its timeout + 100 ms, as a miss or a typed error, as the caller chose",
    rounds=960,
    chunk=16,
    run=attack,
)
