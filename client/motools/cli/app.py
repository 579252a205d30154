"""The tree of commands.

Layer: motools.cli. Imports the command modules.
Invariant: building the tree loads neither rich nor the cache's async face: a command loads what it needs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from motools.cli import cache, daemon

app = typer.Typer(
    name="motools",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cache.app, name="cache")
app.add_typer(daemon.app, name="daemon")


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
