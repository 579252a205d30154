"""The command `motools`.

Layer: motools.cli, the topmost of the client. Imports motools.cache and typer.
Invariant: data goes to stdout, everything else to stderr; every exit code has a meaning (see `exits`).
"""

from __future__ import annotations


def main() -> None:
    """The script `motools`."""
    from motools.cli.app import run

    run()
