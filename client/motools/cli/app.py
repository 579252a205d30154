"""The tree of commands, and how a run of one ends.

Layer: motools.cli. Imports the command modules, exits and output.
Invariant: no CacheError ends in a traceback. Building the tree loads no client: a command loads what it needs.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from motools.cache.errors import CacheError
from motools.cli import (
    backups,
    cache,
    cleaning,
    daemon,
    doctor,
    explaining,
    invalidating,
    leases,
    pins,
    showing,
    sizes,
    statistics,
)
from motools.cli.coercion import Command, Group
from motools.cli.exits import INTERRUPTED, exit_code
from motools.cli.output import OutputFailed, say_error
from motools.cli.run import run as run_command

app = typer.Typer(
    name="motools",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help and plain errors: they can be searched and copied, and cost no import of rich.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)
assert all((statistics, sizes, showing, explaining, invalidating, cleaning, pins, leases, backups, doctor)), (
    "importing them adds their commands to the group below"
)
app.add_typer(cache.app, name="cache")
app.add_typer(daemon.app, name="daemon")
# Options end at the first word of the command: what follows is the command's own.
app.command("run", cls=Command, context_settings={"allow_interspersed_args": False})(run_command)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        from motools.cache import __version__

        typer.echo(f"motools {__version__}")
        raise typer.Exit


@app.callback()
def motools(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Share one cache of datasets, trained models and evaluations between jobs.

    Start with: motools cache stats
    """


def run() -> None:
    """Run the command line and end the process."""
    try:
        app(prog_name="motools")
    except (CacheError, OutputFailed) as error:
        say_error(str(error))
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        # Only before or after typer is in charge.
        sys.exit(INTERRUPTED)
