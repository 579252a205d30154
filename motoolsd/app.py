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
from motoolsd.adapters.memory import give_back
from motoolsd.adapters.processes import SystemProcesses, host_name
from motoolsd.adapters.readiness import ReadinessPipe
from motoolsd.adapters.replacement import finish_replacement
from motoolsd.adapters.signals import Signals
from motoolsd.adapters.socket import open_listener, peer_credentials
from motoolsd.adapters.stamps import Stamps, map_stamps
from motoolsd.adapters.systemd import ServiceManager, check_listener
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
from motoolsd.server.running import Running
from motoolsd.store.allocation import stop_counting
from motoolsd.store.connection import SQLITE_VERSION
from motoolsd.store.filtering import select_row_range
from motoolsd.store.migration import prepare_database
from motoolsd.store.store import Store, open_store
from motoolsd.tasks.backups import run_backups
from motoolsd.tasks.records import run_folding, run_signing
from motoolsd.tasks.reloading import Reloading
from motoolsd.tasks.upkeep import run_budget, run_checkpoints, run_pins, run_reserve, run_trimming, run_usage_flush
from motoolsd.tasks.watch import run_edit_watch, run_idle_watch, run_ownership_watch, run_watchdog
from motoolsd.wire.keys import Kind
from motoolsd.wire.names import CONFIG, RUNS, SOCKET
from motoolsd.wire.version import __version__

logger = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 64
"""Open files that are not connections: database, log, lock, directories of a walk."""

TAKE_OVER_S = 60.0
"""How long a daemon whose socket was replaced may take to end, before the start fails."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    cache_dir: str
    """Absolute."""
    started_by: str = "command"
    idle_timeout_s: float | None = None
    """Overrides the setting; only a daemon that the next client starts again ends when idle."""


async def run_daemon(
    options: Options,
    manager: ServiceManager,
    readiness: ReadinessPipe,
    prepare_log: Callable[[CacheDirectory], None],
) -> None:
    """Serve one cache directory until told to stop.

    Args:
        options: what to serve.
        manager: whose socket is served, and who is told how we are, if it started us.
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
        # The manager's socket has replaced that of a daemon that may live, and nobody else answers on it.
        takes_over_s = 0.0 if manager.listener is None else TAKE_OVER_S
        lock = outermost.enter_context(hold_lock(directory, now=clock.utc_text(), takes_over_s=takes_over_s))
        stamps = map_stamps(directory)
        for note in directory.notes:
            logger.warning("%s", note)
        settings = _read_settings(directory, options)
        await _finish_restore(directory)
        stop_counting()
        reserve = Reserve(BallastFile(directory), settings.ballast_bytes)
        # Opened before any task group: what keeps the socket from being made is one error, not a group of them.
        async with AsyncExitStack() as opened:
            store, listening = await _open(opened, directory, settings, reserve, manager)
            with suppress(RequestError):  # the look that follows soon says so
                await reserve.keep()
            daemon = _build(directory, lock, stamps, store, settings, options, clock, reserve, manager)
            await _serve(daemon, listening, readiness, signals)
    signals.ignore()
    logger.info("stopped")


async def _open(
    opened: AsyncExitStack,
    directory: CacheDirectory,
    settings: Settings,
    reserve: Reserve,
    manager: ServiceManager,
) -> tuple[Store, socket.socket]:
    """Open database and socket; on a full disk once more, with the room that is kept for that."""

    async def attempt() -> tuple[Store, socket.socket]:
        async with AsyncExitStack() as attempted:
            backup = await anyio.to_thread.run_sync(prepare_database, directory.database, directory.names_in(RUNS))
            if backup is not None:
                logger.info("cache.db was migrated; what it was before lies in %s", backup)
            opening = open_store(directory.database, synchronous=settings.durability.upper())
            store = await attempted.enter_async_context(opening)
            if manager.listener is not None:
                check_listener(manager.listener, directory)
                listening = manager.listener
            else:
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
    manager: ServiceManager


def _build(
    directory: CacheDirectory,
    lock: DirectoryLock,
    stamps: Stamps | None,
    store: Store,
    settings: Settings,
    options: Options,
    clock: SystemClock,
    reserve: Reserve,
    manager: ServiceManager,
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
    running = Running(
        listener,
        settings,
        socket_path=os.fsencode(os.path.join(directory.path, SOCKET)),
        # The next client, or the manager at the next connection, starts it again.
        ends_when_idle=options.started_by == "client" or manager.listener is not None,
        on_stop=manager.say_stopping,
    )
    built = (writer, engine, processes, users, slots, listener, running, reserve, manager)
    return Parts(directory, lock, store, settings, options, clock, *built)


async def _serve(parts: Parts, listening: socket.socket, readiness: ReadinessPipe, signals: Signals) -> None:
    def on_ready() -> None:
        signals.take()
        serving = (__version__, parts.directory.path, os.getpid(), SQLITE_VERSION)
        logger.info("motoolsd %s serves %s, pid %d, SQLite %s", *serving)
        # What is there now stays for good: the collector need not look at it again at each of its rounds.
        gc.freeze()
        readiness.say_ready()
        parts.manager.say_ready(_status_text(parts))

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
    group.start_soon(_watch_signals, signals, parts)
    if parts.manager.is_there:
        feed_interval_s = parts.manager.feed_interval_s or settings.budget_interval_s
        group.start_soon(run_watchdog, partial(_feed, parts), clock, feed_interval_s)
    group.start_soon(engine.run_loader)
    group.start_soon(engine.run_disposal)
    group.start_soon(engine.claims.run_expiry)
    group.start_soon(run_ownership_watch, parts.lock, clock, interval_s, partial(_abandon, parts.slots))
    group.start_soon(run_edit_watch, engine, clock, interval_s)
    group.start_soon(run_usage_flush, engine, clock, settings.usage_flush_s)
    group.start_soon(engine.census.run_scans, settings.scan_interval_s)
    group.start_soon(run_budget, engine.budget, clock, settings.budget_interval_s)
    group.start_soon(run_reserve, parts.reserve, clock, settings.budget_interval_s)
    group.start_soon(run_trimming, give_back, clock, settings.budget_interval_s)
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


async def _feed(parts: Parts) -> None:
    """Tell the manager that we are well: the loop turns, and the database answers, if only with an error."""
    with suppress(RequestError):
        await parts.store.read(select_row_range, Kind.DATASET)
    parts.manager.say_alive(_status_text(parts))


def _status_text(parts: Parts) -> str:
    """One line for `systemctl status`."""
    return (
        f"{parts.running.clients:,} clients, {parts.engine.claims.held:,} leases, {parts.engine.entries:,} entries"
        f" in {parts.directory.path}"
    )


async def _watch_signals(signals: Signals, parts: Parts) -> None:
    running, manager = parts.running, parts.manager

    def apply(settings: Settings) -> None:
        running.apply(settings)
        parts.engine.apply_settings(settings)

    read = partial(_read_settings, parts.directory, parts.options)
    reloading = Reloading(parts.settings, read, apply, parts.store.set_durability)
    while True:
        if (number := await signals.receive()) == signal.SIGHUP:
            manager.say_reloading()
            await reloading.reload()
            manager.say_ready(_status_text(parts))
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
