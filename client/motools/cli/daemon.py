"""`motools daemon`: start, stop and look at the daemon of a cache directory.

Layer: motools.cli. Imports options, output, exits and motools.cache.control.
Invariant: jobs need none of this; a daemon starts with the first of them.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import Annotated, TextIO

import typer

from motools.cli import exits
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, FormatOption, JsonOption, chosen
from motools.cli.output import print_document, shown

app = typer.Typer(
    no_args_is_help=True, help="Start, stop and look at the daemon. Jobs need not: the first one starts it."
)

FOLLOW_PAUSE_S = 0.25


def _absolute(directory: Path) -> str:
    return os.path.abspath(directory)


@app.command()
def start(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Start the daemon, and make the directory if it is missing.

    Example: motools daemon start --cache-dir .motools
    """
    from motools.cache.control import start_daemon

    status, was_running = start_daemon(_absolute(cache_dir))
    exits.say(f"{'already running' if was_running else 'started'}: pid {status.pid} serves {cache_dir}")


@app.command()
def stop(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Stop the daemon; returns when its process is gone. The next job starts a new one.

    Example: motools daemon stop
    """
    from motools.cache.control import stop_daemon

    pid = stop_daemon(_absolute(cache_dir))
    exits.say(f"no daemon serves {cache_dir}" if pid is None else f"stopped: pid {pid}")


@app.command()
def restart(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Stop the daemon if one runs, and start one of this version.

    Example: motools daemon restart
    """
    from motools.cache.control import start_daemon, stop_daemon

    stop_daemon(_absolute(cache_dir))
    status, _ = start_daemon(_absolute(cache_dir))
    exits.say(f"started: pid {status.pid} serves {cache_dir}")


@app.command()
def status(
    *, cache_dir: CacheDir = DEFAULT_DIR, output: FormatOption = Format.TABLE, as_json: JsonOption = False
) -> None:
    """Show the running daemon; never starts one. Exit code 69 if there is none.

    Example: motools daemon status --json
    """
    from motools.cache.control import get_status

    output = chosen(output, json=as_json)
    found = get_status(_absolute(cache_dir))
    document = {
        "pid": found.pid,
        "version": found.version,
        "socket": os.fsdecode(found.socket),
        "uptime_s": found.uptime_s,
        "clients": found.clients,
        "entries": found.entries,
        "started_by": found.started_by,
        "idle_timeout_s": found.idle_timeout_s,
        "durability": found.durability,
        "sqlite_version": found.sqlite_version,
    }
    rows = [(name, shown(value)) for name, value in document.items()]
    print_document(document, rows, output)


@app.command()
def logs(
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Print the end of the daemon's log.

    Example: motools daemon logs -n 20 --follow
    """
    from motools.cache.control import log_path

    try:
        file = log_path(_absolute(cache_dir)).open(encoding="utf-8", errors="replace")
    except OSError as error:
        exits.say(f"motools: error: no log to show: {error.strerror}: {log_path(str(cache_dir))}")
        raise typer.Exit(exits.NOT_FOUND) from error
    with file:
        sys.stdout.writelines(deque(file, maxlen=lines))
        sys.stdout.flush()
        if follow:
            _follow(file)


def _follow(file: TextIO) -> None:
    from motools.cache.clock import pause

    while True:
        for line in file:
            sys.stdout.write(line)
        sys.stdout.flush()
        pause(FOLLOW_PAUSE_S)


@app.command()
def run(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Run the daemon in the foreground, until Ctrl-C.

    Example: motools daemon run --cache-dir .motools
    """
    command = [sys.executable, "-P", "-m", "motoolsd", "serve", "--cache-dir", _absolute(cache_dir)]
    sys.stderr.flush()
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted
