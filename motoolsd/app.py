"""The composition root: the only place that builds the parts and says how long each lives.

Layer: app. Imports everything below; imported by cli alone.
Invariant: lifetimes nest. The lock is outermost, then the store, then the writer, then connections, then the
periodic tasks: what is inside ends before what it stands on.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup

from motoolsd.adapters.ballast import BallastFile
from motoolsd.adapters.clock import SystemClock
from motoolsd.adapters.directory import CacheDirectory, open_directory
from motoolsd.adapters.filetree import DirectoryTree
from motoolsd.adapters.lock import DirectoryLock, hold_lock
from motoolsd.adapters.processes import SystemProcesses, host_name
from motoolsd.adapters.readiness import ReadinessPipe
from motoolsd.adapters.replacement import finish_replacement
from motoolsd.adapters.signals import Signals
from motoolsd.adapters.socket import open_listener, peer_credentials
from motoolsd.adapters.stamps import Stamps, map_stamps
from motoolsd.core.errors import NoRoom, RequestError
from motoolsd.core.settings import Settings, parse_settings
from motoolsd.core.slots import ALL, Slots
from motoolsd.engine.disk import run_on_disk
from motoolsd.engine.engine import Engine
from motoolsd.engine.index import Index
from motoolsd.engine.reserve import Reserve
from motoolsd.engine.writer import Writer
from motoolsd.server.dispatch import Dispatcher
from motoolsd.server.listener import Listener
from motoolsd.store.allocation import stop_counting
from motoolsd.store.connection import SQLITE_VERSION
from motoolsd.store.migration import prepare_database
from motoolsd.store.store import Store, open_store
from motoolsd.tasks.backups import run_backups
from motoolsd.tasks.records import run_folding, run_signing
from motoolsd.tasks.upkeep import run_budget, run_checkpoints, run_pins, run_reserve, run_usage_flush
from motoolsd.tasks.watch import run_edit_watch, run_idle_watch, run_ownership_watch
from motoolsd.wire.names import CONFIG, RUNS, SOCKET
from motoolsd.wire.version import __version__

logger = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 64
"""Open files that are not connections: database, log, lock, directories of a walk."""

RELOADABLE = frozenset(
    {
        "backup_interval",
        "backups_keep",
        "durability",
        "idle_timeout_s",
        "low_water",
        "max_size",
        "min_free",
        "trash_keep",
        "trash_share",
    }
)
"""Settings that take effect on SIGHUP; the others are read once, at the start."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    cache_dir: str
    """Absolute."""
    started_by: str = "command"
    idle_timeout_s: float | None = None
    """Overrides the setting; only an auto-started daemon ends when idle."""


class Running:
    """What the dispatcher may know of, and do to, the whole daemon."""

    def __init__(self, directory: CacheDirectory, listener: Listener, settings: Settings, options: Options) -> None:
        """Nothing asked to stop yet."""
        self._listener = listener
        self.started_by = options.started_by
        self.socket_path = os.fsencode(os.path.join(directory.path, SOCKET))
        self.stop = anyio.Event()
        self.apply(settings)

    @property
    def clients(self) -> int:
        """Open connections."""
        return self._listener.clients

    def apply(self, settings: Settings) -> None:
        """Take over what the settings say of the whole."""
        self.idle_timeout_s = settings.idle_timeout_s if self.started_by == "client" else 0.0
        self.durability: str = settings.durability

    def request_stop(self, reason: str) -> None:
        """Begin to drain; only the first reason counts."""
        if not self.stop.is_set():
            logger.info("stopping: %s", reason)
            self.stop.set()


async def run_daemon(options: Options, readiness: ReadinessPipe, prepare_log: Callable[[CacheDirectory], None]) -> None:
    """Serve one cache directory until told to stop.

    Args:
        options: what to serve.
        readiness: told once connections are accepted.
        prepare_log: opens the log file, once the directory is known to be ours.

    Raises:
        RequestError: the daemon cannot start; `AlreadyRunning` if another one serves the directory.
    """
    clock = SystemClock()
    signals = Signals()
    with ExitStack() as outermost:
        directory = outermost.enter_context(open_directory(options.cache_dir))
        prepare_log(directory)
        lock = outermost.enter_context(hold_lock(directory, now=clock.utc_text()))
        stamps = map_stamps(directory)
        for note in directory.notes:
            logger.warning("%s", note)
        settings = _read_settings(directory, options)
        await _finish_restore(directory)
        stop_counting()
        reserve = Reserve(BallastFile(directory), settings.ballast_bytes)
        # Opened before any task group: what keeps the socket from being made is one error, not a group of them.
        async with AsyncExitStack() as opened:
            store, listening = await _open(opened, directory, settings, reserve)
            with suppress(RequestError):  # the look that follows soon says so
                await reserve.keep()
            daemon = _build(directory, lock, stamps, store, settings, options, clock, reserve)
            await _serve(daemon, listening, readiness, signals)
    signals.ignore()
    logger.info("stopped")


async def _open(
    opened: AsyncExitStack, directory: CacheDirectory, settings: Settings, reserve: Reserve
) -> tuple[Store, socket.socket]:
    """Open database and socket; on a full disk once more, with the room that is kept for that."""

    async def attempt() -> tuple[Store, socket.socket]:
        async with AsyncExitStack() as attempted:
            backup = await anyio.to_thread.run_sync(prepare_database, directory.database, directory.names_in(RUNS))
            if backup is not None:
                logger.info("cache.db was migrated; what it was before lies in %s", backup)
            opening = open_store(directory.database, synchronous=settings.durability.upper())
            store = await attempted.enter_async_context(opening)
            listening = attempted.enter_context(open_listener(directory, backlog=settings.backlog))
            await opened.enter_async_context(attempted.pop_all())
            return store, listening

    try:
        return await attempt()
    except NoRoom:
        if not reserve.release_to_start():
            raise
    return await attempt()


async def _finish_restore(directory: CacheDirectory) -> None:
    """Bring to its end what a `restore-backup` that was killed had decided."""
    replaced = await run_on_disk(partial(finish_replacement, directory))
    if replaced is not None:
        logger.warning("an interrupted restore was brought to its end; what was replaced: %s", os.fsdecode(replaced))


def _read_settings(directory: CacheDirectory, options: Options) -> Settings:
    text = directory.read_config()
    source = os.path.join(directory.path, CONFIG)
    settings = Settings() if text is None else parse_settings(text, source=source)
    if options.idle_timeout_s is not None:
        settings = msgspec.structs.replace(settings, idle_timeout_s=options.idle_timeout_s)
    return settings


class Parts(NamedTuple):
    """Everything that is built once and lives as long as the daemon serves."""

    directory: CacheDirectory
    lock: DirectoryLock
    store: Store
    settings: Settings
    options: Options
    clock: SystemClock
    writer: Writer
    engine: Engine
    processes: SystemProcesses
    users: SystemProcesses
    slots: Slots
    listener: Listener
    running: Running
    reserve: Reserve


def _build(
    directory: CacheDirectory,
    lock: DirectoryLock,
    stamps: Stamps | None,
    store: Store,
    settings: Settings,
    options: Options,
    clock: SystemClock,
    reserve: Reserve,
) -> Parts:
    index = Index(settings.index_entries_max)
    # Random, so that the numbers of an earlier daemon do not come back; small enough never to overflow.
    slots = Slots(secrets.randbits(62), None if stamps is None else stamps.numbers)
    limits = {"queue_max": settings.writer_queue_max, "batch_max": settings.batch_max}
    writer = Writer(store, index, slots, clock, **limits, make_room=reserve.release)
    files = DirectoryTree(directory)
    processes = SystemProcesses()
    users = SystemProcesses()
    engine = Engine(
        store=store,
        index=index,
        slots=slots,
        writer=writer,
        files=files,
        settings=settings,
        processes=processes,
        users=users,
        clock=clock,
        host=host_name(),
    )
    listener = Listener(
        peer_of=peer_credentials,
        connections_max=_connections_max(settings),
        started_by=options.started_by,
        monotonic_s=clock.monotonic_s,
        stamps=None if stamps is None else stamps.identity,
    )
    running = Running(directory, listener, settings, options)
    return Parts(
        directory,
        lock,
        store,
        settings,
        options,
        clock,
        writer,
        engine,
        processes,
        users,
        slots,
        listener,
        running,
        reserve,
    )


async def _serve(parts: Parts, listening: socket.socket, readiness: ReadinessPipe, signals: Signals) -> None:
    def on_ready() -> None:
        signals.take()
        serving = (__version__, parts.directory.path, os.getpid(), SQLITE_VERSION)
        logger.info("motoolsd %s serves %s, pid %d, SQLite %s", *serving)
        # What is there now stays for good: the collector need not look at it again at each of its rounds.
        gc.freeze()
        readiness.say_ready()

    try:
        await parts.store.forget_old_replies(parts.clock.utc_text())
    except NoRoom as error:
        logger.warning("replies that are older than any retry stay for now: %s", error.message)
    parts.engine.claims.start(*await parts.store.leases())
    async with anyio.create_task_group() as writing:
        writing.start_soon(parts.writer.run)
        try:
            await parts.engine.recover()
        except BaseException:
            parts.writer.close()
            raise
        async with anyio.create_task_group() as requests:
            dispatcher = Dispatcher(parts.engine, parts.running, parts.clock, requests)
            async with anyio.create_task_group() as periodic:
                _start_periodic(periodic, parts, signals)
                await parts.listener.serve(
                    listening,
                    dispatcher,
                    stop=parts.running.stop,
                    drain_timeout_s=parts.settings.drain_timeout_s,
                    on_ready=on_ready,
                )
                periodic.cancel_scope.cancel()
            requests.cancel_scope.cancel()
        parts.processes.close()
        parts.users.close()
        parts.engine.flush_usage_nowait()
        parts.writer.close()


def _start_periodic(group: TaskGroup, parts: Parts, signals: Signals) -> None:
    engine, clock, running, settings = parts.engine, parts.clock, parts.running, parts.settings
    interval_s = settings.watch_interval_s
    group.start_soon(_watch_signals, signals, running, Reloading(parts))
    group.start_soon(engine.run_loader)
    group.start_soon(engine.run_disposal)
    group.start_soon(engine.claims.run_expiry)
    group.start_soon(run_ownership_watch, parts.lock, clock, interval_s, partial(_abandon, parts.slots))
    group.start_soon(run_edit_watch, engine, clock, interval_s)
    group.start_soon(run_usage_flush, engine, clock, settings.usage_flush_s)
    group.start_soon(engine.census.run_scans, settings.scan_interval_s)
    group.start_soon(run_budget, engine.budget, clock, settings.budget_interval_s)
    group.start_soon(run_reserve, parts.reserve, clock, settings.budget_interval_s)
    group.start_soon(run_signing, engine.nearest, clock, settings.budget_interval_s)
    group.start_soon(run_folding, engine.reporting, clock)
    group.start_soon(run_backups, engine.backups, clock)
    group.start_soon(run_pins, engine.protection, clock, settings.budget_interval_s)
    group.start_soon(run_checkpoints, engine, parts.store, clock, interval_s)
    if running.idle_timeout_s:
        group.start_soon(
            run_idle_watch,
            lambda: _idle_s(parts),
            clock,
            lambda: running.idle_timeout_s,
            interval_s,
            running.request_stop,
        )


def _idle_s(parts: Parts) -> float:
    """Seconds since anybody needed the daemon: a job that computes needs it, though it says nothing for hours."""
    return 0.0 if parts.engine.is_needed else parts.listener.idle_s


def _abandon(slots: Slots, reason: str) -> None:
    """End at once, without closing the database; clients that remember something of the directory ask again.

    SQLite would remove its `-wal` by path, and the path may lead to somebody else's by now. What was acknowledged is
    in the write-ahead log beside the database, wherever the directory is.
    """
    slots.bump(ALL)
    logger.critical("ended without touching anything: %s", reason)
    logging.shutdown()
    os._exit(1)


class Reloading:
    """Reads config.toml again and applies what can change while the daemon runs."""

    def __init__(self, parts: Parts) -> None:
        """Begin with the settings of the start."""
        self._parts = parts
        self._settings = parts.settings

    async def reload(self) -> None:
        """Apply the file as it is now; a bad one is logged, and the old settings stay."""
        try:
            settings = _read_settings(self._parts.directory, self._parts.options)
            if settings.durability != self._settings.durability:
                await self._parts.store.set_durability(settings.durability.upper())
        except RequestError as error:
            logger.error("the settings stay as they were: %s", error.message)
            return
        applied = _differing(self._settings, settings) & RELOADABLE
        waiting = _differing(self._parts.settings, settings) - RELOADABLE
        self._settings = settings
        self._parts.running.apply(settings)
        self._parts.engine.apply_settings(settings)
        logger.info("settings read again, changed: %s", ", ".join(sorted(applied)) or "nothing")
        if waiting:
            logger.warning("these settings need a restart of the daemon: %s", ", ".join(sorted(waiting)))


def _differing(one: Settings, other: Settings) -> set[str]:
    return {name for name in Settings.__struct_fields__ if getattr(one, name) != getattr(other, name)}


async def _watch_signals(signals: Signals, running: Running, reloading: Reloading) -> None:
    while True:
        if (number := await signals.receive()) == signal.SIGHUP:
            await reloading.reload()
        else:
            running.request_stop(number.name)


def _connections_max(settings: Settings) -> int:
    """As many as set, or as the limit of open files leaves; the soft limit is raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return settings.connections_max
    return max(1, min(settings.connections_max, soft - RESERVED_DESCRIPTORS))
