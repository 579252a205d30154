"""`motoolsd serve`: options, log, exit code.

Layer: cli, the topmost. Imports app.
Invariant: whatever keeps the daemon from starting is said once: to the starter's pipe, to the log, to stderr.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import anyio
import typer

from motoolsd.adapters.directory import CacheDirectory
from motoolsd.adapters.points import arm
from motoolsd.adapters.processes import reset_inherited_state
from motoolsd.adapters.readiness import ReadinessPipe
from motoolsd.app import Options, run_daemon
from motoolsd.core.errors import AlreadyRunning, RequestError, StartFailed
from motoolsd.wire.names import LOG
from motoolsd.wire.version import __version__

logger = logging.getLogger(__name__)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

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
    options = Options(
        cache_dir=os.path.abspath(cache_dir),
        started_by="client" if background else "command",
        idle_timeout_s=idle_timeout,
    )
    readiness = ReadinessPipe(ready_fd)
    if background and os.fork():
        # The starter waits for this process alone, so that no zombie of the daemon is left with it.
        os._exit(0)
    reset_inherited_state()
    arm(os.environ)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    raise typer.Exit(_run(options, readiness, in_foreground=not background))


def _run(options: Options, readiness: ReadinessPipe, *, in_foreground: bool) -> int:
    try:
        anyio.run(
            run_daemon,
            options,
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
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(LOG, flags, 0o600, dir_fd=directory.descriptor)
    except OSError as error:
        message = f"{directory.path}/{LOG} cannot be opened: {error.strerror}"
        raise StartFailed(message) from error
    handlers: list[logging.Handler] = [logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8"))]
    if in_foreground:
        handlers.append(logging.StreamHandler(sys.stderr))
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, handlers=handlers)


def main() -> None:
    """The script `motoolsd`."""
    app()
