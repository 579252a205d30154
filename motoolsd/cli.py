"""`motoolsd serve`, `motoolsd doctor` and `motoolsd restore-backup`: options, log, exit code.

Layer: cli, the topmost. Imports app, doctor and restoration.
Invariant: whatever keeps the daemon from starting is said once: to the starter's pipe, to the log, to stderr.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.logfile import LogFile, open_log
from motoolsd.adapters.loglimit import LineLimit
from motoolsd.adapters.points import arm
from motoolsd.adapters.processes import reset_inherited_state
from motoolsd.adapters.readiness import ReadinessPipe
from motoolsd.adapters.systemd import ServiceManager
from motoolsd.app import Options, run_daemon
from motoolsd.core.errors import AlreadyRunning, RequestError, StartFailed
from motoolsd.doctor import examine, mend
from motoolsd.restoration import attempt
from motoolsd.wire.diagnosis import DIRECT_MENDS, Mend
from motoolsd.wire.names import LOG
from motoolsd.wire.version import __version__

logger = logging.getLogger(__name__)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"motoolsd {__version__}")
        raise typer.Exit


@app.callback()
def motoolsd(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The daemon that owns a .motools cache directory.

    Jobs start it by themselves; `motools daemon` controls it.
    """


@app.command()
def serve(
    *,
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", "-d", envvar="MOTOOLS_CACHE_DIR", help="The directory to serve.")
    ] = Path(".motools"),
    idle_timeout: Annotated[
        float | None, typer.Option(min=0.1, help="End after this many seconds without connections (with --background).")
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Detach from the starting process, and end when idle.")
    ] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve one cache directory until SIGTERM.

    Example: motoolsd serve --cache-dir .motools
    """
    readiness = ReadinessPipe(ready_fd)
    manager = _service_manager()
    options = Options(
        cache_dir=os.path.abspath(cache_dir),
        started_by="client" if background else "systemd" if manager.is_there else "command",
        idle_timeout_s=idle_timeout,
    )
    if background and os.fork():
        # The starter waits for this process alone, so that no zombie of the daemon is left with it.
        os._exit(0)
    reset_inherited_state()
    arm(os.environ)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    raise typer.Exit(_run(options, manager, readiness, in_foreground=not background))


@app.command()
def doctor(
    *,
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", "-d", envvar="MOTOOLS_CACHE_DIR", help="The directory to look at.")
    ] = Path(".motools"),
    deep: Annotated[bool, typer.Option("--deep", help="Read the content of datasets, too.")] = False,
    mends: Annotated[
        list[Mend] | None, typer.Option("--mend", help="Mend this instead: permissions, leftovers or stamps.")
    ] = None,
) -> None:
    """Look at everything in a cache directory, beside a daemon or without one, and print it as JSON.

    Nothing is changed without --mend. `motools cache doctor` shows it for people, and mends more.

    Example: motoolsd doctor --cache-dir .motools
    """
    path = os.path.abspath(cache_dir)
    if mends is None:
        found = examine(path, deep=deep)
        typer.echo(msgspec.json.encode(found))
        return
    if unfit := set(mends) - DIRECT_MENDS:
        raise typer.BadParameter(f"{', '.join(sorted(unfit))}: that needs a daemon; see `motools cache doctor --fix`")
    typer.echo(msgspec.json.encode(mend(path, mends)))


@app.command(name="restore-backup")
def restore_backup(
    file: Annotated[str | None, typer.Argument(help="A backup; else the newest of the daemon's own.")] = None,
    *,
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", "-d", envvar="MOTOOLS_CACHE_DIR", help="The directory to restore.")
    ] = Path(".motools"),
    is_list: Annotated[bool, typer.Option("--list", help="Only show the daemon's own backups.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be replaced by what.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON text; paths are base64.")] = False,
) -> None:
    """Put a backup into the place of cache.db, while no daemon runs; `motools cache restore-backup` sees to that.

    The present database is set aside as cache.db.replaced-TIME, never removed.

    Example: motoolsd restore-backup --cache-dir .motools /backups/cache.db
    """
    arm(os.environ)
    done = attempt(os.path.abspath(cache_dir), file, is_list=is_list, is_plan=dry_run)
    if as_json:
        typer.echo(msgspec.json.encode(done))
    elif done.code:
        typer.echo(f"motoolsd: {done.message}", err=True)
    else:
        for one in done.backups or [one for one in (done.chosen,) if one is not None]:
            entries = one.problem or f"{one.datasets} datasets, {one.models} models, {one.evals} evals"
            typer.echo(f"{os.fsdecode(one.path)}: made {one.made_at}, {one.size_bytes} bytes, {entries}")
        if done.replaced:
            typer.echo(f"what was replaced: {os.fsdecode(done.replaced)}")
    raise typer.Exit(1 if done.code else 0)


def _service_manager() -> ServiceManager:
    try:
        return ServiceManager(os.environ)
    except StartFailed as error:
        typer.echo(f"motoolsd: cannot start: {error.message}", err=True)
        raise typer.Exit(1) from error


def _run(options: Options, manager: ServiceManager, readiness: ReadinessPipe, *, in_foreground: bool) -> int:
    try:
        anyio.run(
            run_daemon,
            options,
            manager,
            readiness,
            lambda directory: _open_log(directory, in_foreground=in_foreground),
            backend_options={"use_uvloop": _has_uvloop()},
        )
    except AlreadyRunning as error:
        readiness.say_already_running()
        typer.echo(f"motoolsd: already running: {error.message}", err=True)
        return 1 if in_foreground else 0
    except RequestError as error:
        readiness.say_failed(error.to_failure())
        manager.say_failed(error.message)
        typer.echo(f"motoolsd: cannot start: {error.message}", err=True)
        return 1
    except Exception as error:
        # The supervisor of all tasks: whatever ends the daemon by a defect stands in its log, in full.
        logger.exception("ended by a defect of motoolsd")
        readiness.say_failed(StartFailed(f"a defect of motoolsd: {error!r}; its log has the details").to_failure())
        raise
    return 0


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415 - not to be had on every platform
    except ImportError:
        return False
    return True


def _open_log(directory: CacheDirectory, *, in_foreground: bool) -> None:
    try:
        handlers: list[logging.Handler] = [LogFile(open_log(directory.descriptor), directory.descriptor)]
    except OSError as error:
        if error.errno not in _NO_ROOM:
            message = f"{directory.path}/{LOG} cannot be opened: {error.strerror}"
            raise StartFailed(message) from error
        # A log is no reason not to serve.
        handlers = []
        directory.notes.append(f"there is no log: {LOG} cannot be made ({error.strerror})")
    if in_foreground or not handlers:
        handlers.append(logging.StreamHandler(sys.stderr))
    limit = LineLimit()
    for handler in handlers:
        handler.addFilter(limit)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, handlers=handlers)


def main() -> None:
    """The script `motoolsd`."""
    app()
