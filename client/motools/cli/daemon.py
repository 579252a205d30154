"""`motools daemon`: start, stop and look at the daemon of a cache directory.

Layer: motools.cli. Imports logs, options, output, tables and motools.cache.control.
Invariant: jobs need none of this; a daemon starts with the first of them.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from motools.cli.coercion import Command, Group
from motools.cli.exits import FAILED
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, FormatOption, JsonOption, chosen
from motools.cli.output import pairs, print_document, say, say_error, write
from motools.cli.tables import duration_text, shown, shown_lines

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Start, stop and look at the daemon. Jobs start it by themselves."
)


@app.command(cls=Command)
def start(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Start the daemon, and make the directory if it is missing.

    Example: motools daemon start --cache-dir .motools
    """
    from motools.cache import units
    from motools.cache.control import start_daemon

    if units.is_managed(cache_dir):
        units.start(cache_dir)
    found, was_running = start_daemon(cache_dir)
    text = f"motoolsd {found.version}, pid {found.pid}, serves {cache_dir}{_idle_text(found.idle_timeout_s)}"
    say(f"{'already running' if was_running else 'started'}: {text}")


@app.command(cls=Command)
def stop(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Stop the daemon, and wait until it is gone. The next job starts a new one.

    Example: motools daemon stop
    """
    from motools.cache import units
    from motools.cache.control import stop_daemon

    if units.is_managed(cache_dir) and units.stop(cache_dir):
        say(f"stopped: the service that served {cache_dir}")
        if units.is_listening(cache_dir):
            say(f"its socket unit starts it again for the next job; to end that: {_uninstall_command(cache_dir)}")
        return
    pid = stop_daemon(cache_dir)
    say(f"not running: no daemon serves {cache_dir}" if pid is None else f"stopped: pid {pid} served {cache_dir}")


@app.command(cls=Command)
def restart(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Stop the daemon if one runs, and start one of this version.

    Example: motools daemon restart
    """
    from motools.cache import units

    if units.is_managed(cache_dir):
        units.restart(cache_dir)
    else:
        stop(cache_dir=cache_dir)
    start(cache_dir=cache_dir)


@app.command(cls=Command)
def status(
    *, cache_dir: CacheDir = DEFAULT_DIR, output: FormatOption = Format.TABLE, as_json: JsonOption = False
) -> None:
    """Show the running daemon; never starts one. Exit code 69 if none runs.

    Example: motools daemon status --json
    """
    from motools.cache.control import get_status

    output = chosen(output, json=as_json)
    found = get_status(cache_dir)
    document: dict[str, Any] = {name: getattr(found, name) for name in found.__struct_fields__}
    document["socket"] = os.fsdecode(found.socket)
    rows = {name.removesuffix("_s").replace("_", " "): shown(value) for name, value in document.items()}
    rows["uptime"] = duration_text(found.uptime_s)
    rows["idle timeout"] = duration_text(found.idle_timeout_s) if found.idle_timeout_s else "none"
    print_document(document, pairs([*rows.items()]), output)


@app.command(cls=Command)
def logs(
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, help="How many of the last lines.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Print the end of the daemon's log.

    Example: motools daemon logs -n 100 --follow
    """
    from motools.cache.clock import pause
    from motools.cache.control import log_path
    from motools.cli.logs import follow as added_to
    from motools.cli.logs import open_log, read_last_lines

    path = log_path(cache_dir)
    with open_log(path) as file:
        write(shown_lines(read_last_lines(file, lines).decode("utf-8", "backslashreplace")))
        if follow:
            for text in added_to(path, file, pause):
                write(shown_lines(text))


@app.command(cls=Command)
def run(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Run the daemon in the foreground, until Ctrl-C.

    Example: motools daemon run --cache-dir .motools
    """
    command = [sys.executable, "-P", "-m", "motoolsd", "serve", "--cache-dir", cache_dir]
    try:
        os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        say_error(f"{sys.executable or 'this Python'} cannot be run: {error.strerror}")
        raise typer.Exit(FAILED) from error


@app.command(cls=Command)
def install(
    *,
    enable: Annotated[bool, typer.Option("--enable", help="Listen from now on, and after every login.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
) -> None:
    """Write systemd user units for a cache directory: its daemon starts with the first connection.

    Jobs need none: they start the daemon by themselves. Units keep it out of a job's limits, restart it when it
    hangs, and put its log into the journal.

    Example: motools daemon install --enable --cache-dir .motools
    """
    from motools.cache import units

    done = units.install(cache_dir, enable=enable)
    say(f"installed: {done.unit} in {done.directory}")
    if not enable:
        say(f"to listen from now on: systemctl --user enable --now '{done.unit}'")
    if not done.linger.is_on:
        say(
            f"lingering is off for {done.linger.user}: units end with your last session, and jobs that go on then start"
            f" a daemon by themselves. To keep them: loginctl enable-linger {done.linger.user}"
        )


@app.command(cls=Command)
def uninstall(*, cache_dir: CacheDir = DEFAULT_DIR) -> None:
    """Stop the units of a cache directory, and remove them. The cache itself stays as it is.

    Example: motools daemon uninstall --cache-dir .motools
    """
    from motools.cache import units

    if units.uninstall(cache_dir):
        say(f"uninstalled: no unit serves {cache_dir}; jobs start the daemon by themselves")
    else:
        say(f"not installed: no unit serves {cache_dir}")


def _uninstall_command(cache_dir: str) -> str:
    from shlex import quote

    return f"motools daemon uninstall --cache-dir {quote(cache_dir)}"


def _idle_text(idle_timeout_s: float) -> str:
    if not idle_timeout_s:
        return ""
    return f"; it ends by itself after {duration_text(idle_timeout_s)} without clients"
