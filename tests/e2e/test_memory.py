"""What clients remember, against a real daemon: answered without it, and never what is true no more."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from motools.cache import Cache, SyncCache
from motools.cache.errors import DaemonBusy
from motoolsd.wire.names import STAMPS
from tests.e2e.daemons import daemon_pid, end_daemon
from tests.samples import execute, query

TIMEOUT_S = 30.0
SHORT_TIMEOUT_S = 0.3
NO_TIME_S = 2.0
"""What takes no time, on a busy machine."""
LOOK_EVERY = 1_000
"""Hits between two looks at where the path leads."""
SOON_S = 5.0
"""What the daemon does every second or oftener; a busy machine may take longer over it."""

Body = Callable[[Any], Awaitable[None]]
Run = Callable[..., None]


class Awaiting:
    """A SyncCache whose methods can be awaited."""

    def __init__(self, cache: SyncCache) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """A method, so that it is called when it is awaited."""
        method = getattr(self._cache, "close" if name == "aclose" else name)

        async def call(*args: object, **kwargs: object) -> object:
            return method(*args, **kwargs)

        return call


@pytest.fixture(params=[("SyncCache", "asyncio"), ("Cache", "asyncio"), ("Cache", "trio")], ids="-".join)
def run(request: pytest.FixtureRequest, shared_dir: Path) -> Run:
    """Runs a test's body with an open cache, once for each client and loop."""
    name, loop = request.param

    def run_whole(body: Body, **options: Any) -> None:  # noqa: ANN401 - the client's own
        async def whole() -> None:
            options.setdefault("timeout_s", TIMEOUT_S)
            cache = Cache(shared_dir, **options) if name == "Cache" else Awaiting(SyncCache(shared_dir, **options))
            with anyio.fail_after(2 * TIMEOUT_S):
                await body(cache)
                await cache.aclose()

        anyio.run(whole, backend=loop)

    return run_whole


def until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Wait for what another process does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


async def soon(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what the daemon does by itself."""
    deadline_s = time.monotonic() + SOON_S
    is_so = await condition()
    while not is_so and time.monotonic() < deadline_s:
        await anyio.sleep(0.02)
        is_so = await condition()
    assert is_so, "it did not happen in time"


def is_stopped(pid: int) -> bool:
    """Whether a process is suspended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextlib.contextmanager
def stopped(directory: Path) -> Iterator[None]:
    """The daemon neither reads nor answers for as long as the block lasts."""
    pid = daemon_pid(directory)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: is_stopped(pid))
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def elsewhere(directory: Path, statement: str) -> None:
    """What another process does with the cache; done when this returns."""
    script = f"import sys\nfrom motools.cache import SyncCache\nwith SyncCache(sys.argv[1]) as cache:\n    {statement}"
    subprocess.run([sys.executable, "-c", script, str(directory)], check=True, timeout=TIMEOUT_S)


def set_here(directory: Path, dataset_hash: str, file_id: str) -> None:
    """What another client does."""
    with SyncCache(directory) as other:
        other.set_file_id(dataset_hash, file_id)


async def fill(cache: Any) -> None:  # noqa: ANN401 - any client
    """One entry of each kind."""
    await cache.set_file_id("d", "file")
    await cache.set_model_id("d", {"lr": 0.1}, "model")
    await cache.set_eval_log_paths("m", {"t": "/log"}, "inspect", {"limit": 3})


QUESTIONS: list[Callable[[Any], Awaitable[object]]] = [
    lambda cache: cache.get_file_id("d"),
    lambda cache: cache.get_file_id("missing"),
    lambda cache: cache.get_model_id("d", {"lr": 0.1}),
    lambda cache: cache.get_model_id("d", {"lr": 0.2}),
    lambda cache: cache.get_evals("m", ["t", "u"], "inspect", {"limit": 3}),
    lambda cache: cache.get_eval_log_paths("m", ["t"], "inspect", {"limit": 3}),
    lambda cache: cache.get_eval_log_paths("m", ["t", "u"], "inspect", {"limit": 3}),
    lambda cache: cache.get_many("dataset", ["missing", "d", "d"]),
    lambda cache: cache.get_many("model", [("d", {"lr": 0.1}), ("e", {})]),
    lambda cache: cache.get_many("eval", [("m", "t", "inspect", {"limit": 3}), ("m", "t", "inspect")]),
]


# Without the daemon.


@pytest.mark.slow
def test_second_lookup_of_any_kind_is_answered_without_the_daemon(run: Run, shared_dir: Path) -> None:
    """Hits and misses, one by one and in lists, with the same results."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await fill(cache)
        first = [await ask(cache) for ask in QUESTIONS]
        with stopped(shared_dir):
            assert [await ask(cache) for ask in QUESTIONS] == first
        assert first[:3] == ["file", None, "model"]

    run(body)


@pytest.mark.slow
def test_what_was_asked_in_a_list_is_remembered_one_by_one(run: Run, shared_dir: Path) -> None:
    """And the other way round; one key that is not known has the daemon asked."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await fill(cache)
        await cache.get_many("dataset", ["d", "missing"])
        await cache.get_evals("m", ["t", "u"], "inspect", {"limit": 3})
        with stopped(shared_dir):
            assert [await cache.get_file_id(key) for key in ("d", "missing")] == ["file", None]
            assert await cache.get_eval_log_paths("m", ["t"], "inspect", {"limit": 3}) == {"t": "/log"}
            with pytest.raises(DaemonBusy):
                await cache.get_many("dataset", ["d", "unknown"])

    with SyncCache(shared_dir) as starter:
        starter.get_status()  # on a busy machine a start takes longer than what is to time out
    run(body, timeout_s=3.0)


@pytest.mark.slow
def test_without_memory_every_lookup_asks(run: Run, shared_dir: Path) -> None:
    """memory_entries=0."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        set_here(shared_dir, "d", "file")
        assert [await cache.get_file_id("d") for _ in range(2)] == ["file"] * 2
        with stopped(shared_dir), pytest.raises(DaemonBusy):
            await cache.get_file_id("d")

    with SyncCache(shared_dir) as starter:
        starter.get_status()
    run(body, memory_entries=0, timeout_s=3.0)


@pytest.mark.slow
def test_stopped_daemon_makes_neither_hits_nor_the_end_wait(run: Run, shared_dir: Path) -> None:
    """However much there is to tell it."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        keys = [str(number) for number in range(1_000)]
        await cache.get_many("dataset", keys)
        with stopped(shared_dir):
            begun_s = time.monotonic()
            for key in keys * 20:
                assert await cache.get_file_id(key) is None
            await cache.aclose()
            assert time.monotonic() - begun_s < NO_TIME_S

    run(body)


@pytest.mark.slow
def test_hits_go_on_after_kill_9_and_changes_are_seen_after_a_restart(run: Run, shared_dir: Path) -> None:
    """No daemon is started for what is remembered; a new one, on the same file of stamps, ends what it cannot know."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await fill(cache)
        for key in ("d", "missing"):
            await cache.get_file_id(key)
        inode = (shared_dir / STAMPS).stat().st_ino
        assert end_daemon(shared_dir, signal.SIGKILL) is not None
        for _ in range(2 * LOOK_EVERY):
            assert await cache.get_file_id("d") == "file"
        assert daemon_pid(shared_dir) is None
        set_here(shared_dir, "d", "new")
        assert [await cache.get_file_id(key) for key in ("d", "missing")] == ["new", None]
        assert (shared_dir / STAMPS).stat().st_ino == inode
        with stopped(shared_dir):
            assert [await cache.get_file_id(key) for key in ("d", "missing")] == ["new", None]

    run(body)


# Changes of others.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "file_id"),
    [
        ("cache.set_file_id('d', 'new')", "new"),
        ("cache.clear_datasets(['d'])", None),
        ("cache.clear_datasets()", None),
        ("cache.clear_all()", None),
    ],
)
def test_change_of_another_process_is_seen_at_once(
    statement: str, file_id: str | None, run: Run, shared_dir: Path
) -> None:
    """Whatever was remembered: a lookup that starts after the change was acknowledged does not give the old answer."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await cache.set_file_id("d", "old")
        assert [await cache.get_file_id("d") for _ in range(2)] == ["old"] * 2
        elsewhere(shared_dir, statement)
        assert await cache.get_file_id("d") == file_id

    run(body)


@pytest.mark.slow
def test_what_others_store_ends_a_remembered_miss(run: Run, shared_dir: Path) -> None:
    """Of each kind."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        for ask in QUESTIONS:
            await ask(cache)
        with SyncCache(shared_dir) as other:
            await fill(Awaiting(other))
        assert await cache.get_file_id("d") == "file"
        assert await cache.get_model_id("d", {"lr": 0.1}) == "model"
        assert await cache.get_eval_log_paths("m", ["t"], "inspect", {"limit": 3}) == {"t": "/log"}
        assert await cache.get_many("dataset", ["missing", "d"]) == [None, "file"]

    run(body)


@pytest.mark.slow
def test_edit_by_hand_is_seen_soon(run: Run, shared_dir: Path) -> None:
    """The daemon looks every second, and its clients see what it saw."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await fill(cache)
        assert [await cache.get_file_id(key) for key in ("d", "missing")] == ["file", None]
        execute(shared_dir / "cache.db", "UPDATE dataset_files SET file_id = 'by hand';")
        execute(shared_dir / "cache.db", "INSERT INTO dataset_files (dataset_hash, file_id) VALUES ('missing', 'not');")

        async def is_seen() -> bool:
            return [await cache.get_file_id(key) for key in ("d", "missing")] == ["by hand", "not"]

        await soon(is_seen)

    run(body)


@pytest.mark.slow
@pytest.mark.parametrize("daemon", ["killed", "stopped"])
def test_replaced_directory_is_noticed_within_a_thousand_hits(daemon: str, run: Run, shared_dir: Path) -> None:
    """Its daemon can tell nobody, and the remembered numbers do not change: the path is looked at all the same."""
    moved = shared_dir.with_name("moved")

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await cache.set_file_id("d", "old")
        await cache.get_file_id("d")
        with stopped(shared_dir) if daemon == "stopped" else contextlib.nullcontext():
            if daemon == "killed":
                end_daemon(shared_dir, signal.SIGKILL)
            os.rename(shared_dir, moved)  # noqa: PTH104 - a Path's own would be taken for blocking the loop
            set_here(shared_dir, "d", "new")
            for _ in range(LOOK_EVERY):
                await cache.get_file_id("d")
            assert [await cache.get_file_id("d") for _ in range(2)] == ["new", "new"]

    with contextlib.ExitStack() as last:
        last.callback(end_daemon, moved)
        run(body)


# Forks and threads.


def in_fork(function: Callable[[], bool]) -> bool:
    """What a forked child says."""
    pid = os.fork()
    if pid == 0:
        said = False
        try:
            said = function()
        finally:
            os._exit(0 if said else 1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.slow
def test_forked_child_remembers_nothing_and_the_parent_goes_on(shared_dir: Path) -> None:
    """Which pages of the parent it would compare is nobody's business; the parent's answers and connection stay."""
    with SyncCache(shared_dir, timeout_s=TIMEOUT_S) as cache:
        cache.set_file_id("d", "file")
        cache.get_file_id("d")

        def asks() -> bool:
            cache._timeout_s = SHORT_TIMEOUT_S  # noqa: SLF001 - else the child would wait as long as the parent may
            try:
                cache.get_file_id("d")
            except DaemonBusy:
                return True
            return False

        with stopped(shared_dir):
            assert in_fork(asks)
            assert cache.get_file_id("d") == "file"
        assert in_fork(lambda: [cache.get_file_id("d") for _ in range(3)] == ["file"] * 3)
        cache.set_file_id("d", "new")
        assert cache.get_file_id("d") == "new"


def hits_in(directory: Path) -> list[tuple[int]]:
    """What stands in the rows, once the daemon has written what it counted."""
    end_daemon(directory)
    tables = ("dataset_files", "trained_models", "eval_results")
    return [row for table in tables for row in query(directory / "cache.db", f"SELECT hits FROM {table}")]


@pytest.mark.slow
def test_forked_childs_counts_are_its_own(shared_dir: Path) -> None:
    """What the parent had not told yet is told by the parent alone."""
    with SyncCache(shared_dir, timeout_s=TIMEOUT_S) as cache:
        cache.set_file_id("d", "file")
        for _ in range(4):
            cache.get_file_id("d")

        def ask_and_close() -> bool:
            answers = [cache.get_file_id("d") for _ in range(2)]
            cache.close()
            return answers == ["file"] * 2

        assert in_fork(ask_and_close)
        cache.get_file_id("d")
    assert hits_in(shared_dir) == [(7,)]


@pytest.mark.slow
def test_threads_of_one_client_never_see_an_older_answer(shared_dir: Path) -> None:
    """Seven look up while another client writes: nobody gets less than was acknowledged before the lookup began."""
    acknowledged, is_over = [0], threading.Event()
    wrong: list[object] = []
    with SyncCache(shared_dir, timeout_s=TIMEOUT_S) as cache, SyncCache(shared_dir) as writer:
        writer.set_file_id("d", "0")

        def look_up() -> None:
            try:
                while not is_over.is_set():
                    floor = acknowledged[0]
                    found = int(cache.get_file_id("d") or -1)
                    if found < floor:
                        wrong.append((floor, found))
            except Exception as error:  # noqa: BLE001 - shown below
                wrong.append(error)

        threads = [threading.Thread(target=look_up) for _ in range(7)]
        try:
            for thread in threads:
                thread.start()
            for number in range(1, 101):
                writer.set_file_id("d", str(number))
                acknowledged[0] = number
        finally:
            is_over.set()
            for thread in threads:
                thread.join(TIMEOUT_S)
    assert wrong == []


# Counts of use.


@pytest.mark.slow
def test_hits_from_memory_are_counted_in_the_rows(run: Run, shared_dir: Path) -> None:
    """Each lookup is a hit, whoever answered it: the first one the daemon, the others the client."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await fill(cache)
        for _ in range(50):
            await cache.get_file_id("d")
            await cache.get_file_id("missing")
            await cache.get_model_id("d", {"lr": 0.1})
            await cache.get_evals("m", ["t", "u"], "inspect", {"limit": 3})

    run(body)
    assert hits_in(shared_dir) == [(50,), (50,), (50,)]


@pytest.mark.slow
def test_hits_from_memory_show_in_listings(run: Run, shared_dir: Path) -> None:
    """When the daemon has written them, which it does every `usage_flush_s`; those that the listing itself tells."""
    shared_dir.mkdir(mode=0o700)
    (shared_dir / "config.toml").write_text("usage_flush_s = 0.1\n")

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        await cache.set_file_id("d", "file")
        for _ in range(500):
            await cache.get_file_id("d")

        async def are_shown() -> bool:
            (entry,) = await cache.list_datasets()
            return bool(entry.hits == 500)

        await soon(are_shown)

    run(body)


@pytest.mark.slow
def test_lookups_after_very_much_use_are_none_the_worse(run: Run, shared_dir: Path) -> None:
    """More different keys than one message holds were answered from memory; then a question is asked."""

    async def body(cache: Any) -> None:  # noqa: ANN401 - any client
        parts = [[f"{part}-{number}" for number in range(6_000)] for part in range(2)]
        for part in [*parts, *parts]:
            await cache.get_many("dataset", part)
        assert await cache.get_file_id("d") is None

    run(body)


# Restart.


@pytest.mark.slow
def test_file_of_stamps_is_one_for_all_daemons_of_a_directory(shared_dir: Path) -> None:
    """Its inode stays, nobody may write it, and no block of it is missing; its numbers are new ones each time."""
    path, seen = shared_dir / STAMPS, []
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        set_here(shared_dir, "d", number.name)
        found = path.stat()
        assert found.st_blocks * 512 >= found.st_size
        seen.append((found.st_ino, found.st_mode & 0o7777, path.read_bytes()[:8]))
        end_daemon(shared_dir, number)
    assert len({(inode, mode) for inode, mode, _ in seen}) == 1
    assert seen[0][1] == 0o400
    assert len({first for _, _, first in seen}) == 3
