"""What commands that remove something have in common: showing, asking, carrying out, saying what came of it.

Layer: motools.cli. Imports exits, output, plans, progress and motools.cache.
Invariant: exactly what was shown is removed; nothing without `--yes` or a yes at the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import typer

from motools.cli.exits import FAILED, REFUSED, USAGE
from motools.cli.options import Format
from motools.cli.output import can_ask, confirm, print_document, say, say_error
from motools.cli.plans import (
    PLAN_COLUMNS,
    largest_text,
    plan_document,
    plan_items,
    plan_text,
    result_document,
    result_text,
    staying_text,
)
from motools.cli.progress import progress
from motools.cli.tables import table_lines

if TYPE_CHECKING:
    from motools.cache.cleaning import CleanupPlan, CleanupResult
    from motools.cache.utils import CacheUtils


class Removal(NamedTuple):
    """How something is to be removed."""

    yes: bool
    dry_run: bool = False
    to_trash: bool = True
    as_json: bool = False

    def check(self) -> None:
        """Make sure that there is somebody to ask, where asking is needed.

        Raises:
            typer.Exit: there is not.
        """
        if not self.dry_run:
            check_can_ask(yes=self.yes)


def check_can_ask(*, yes: bool) -> None:
    """Refuse where nobody said yes, and nobody can be asked.

    Raises:
        typer.Exit: so it is.
    """
    if not yes and not can_ask():
        say_error("there is no terminal to ask at: pass --yes to remove without asking")
        raise typer.Exit(USAGE)


def ask(question: str, *, yes: bool) -> None:
    """Go on only after a yes.

    Raises:
        typer.Exit: it was a no.
    """
    if not yes and not confirm(question):
        say("nothing was removed")
        raise typer.Exit(FAILED)


def show_plan(plan: CleanupPlan, directory: str, *, as_json: bool) -> None:
    """Print what would go, and how to let it go."""
    if as_json:
        print_document(plan_document(plan), list, Format.JSON)
        return
    if plan.items:
        items = plan_items(plan.items)
        print_document({}, lambda: table_lines(PLAN_COLUMNS, items, width=None), Format.TABLE)
    for line in staying_text(plan.protected, plan.kept):
        say(line)
    if not plan.items:
        say(f"nothing would be removed from {directory}")
        return
    say(f"would remove {plan_text(plan)}")
    say(f"to remove exactly this: `motools cache prune --plan {plan.plan_id}`")


def carry_out(utils: CacheUtils, plan: CleanupPlan, directory: str, how: Removal) -> None:
    """Show a plan, ask, apply it, and say what came of it.

    Raises:
        typer.Exit: it was only to be shown; or the answer was no; or all of it is protected.
        CacheError: it could not be applied.
    """
    if how.dry_run:
        show_plan(plan, directory, as_json=how.as_json)
        return
    if not how.as_json:
        for line in staying_text(plan.protected, plan.kept):
            say(line)
    if not plan.items:
        _nothing(plan, directory, as_json=how.as_json)
        return
    if not how.yes:
        for line in largest_text(plan):
            say(line)
        forever = "" if how.to_trash else " for ever"
        ask(f"Remove {plan_text(plan)} from {directory}{forever}?", yes=False)
    apply(utils, plan.plan_id, directory, how, plan=plan)


def apply(utils: CacheUtils, plan_id: str, directory: str, how: Removal, *, plan: CleanupPlan | None = None) -> None:
    """Carry out a plan by its name, and say what came of it."""
    with interruptible(), progress("removing") as tell:
        result = utils.apply_plan(plan_id, to_trash=how.to_trash, on_progress=tell)
    if how.as_json:
        document = result_document(result)
        if plan is not None:
            document["protected"] = plan_document(plan)["protected"]
        print_document(document, list, Format.JSON)
    else:
        say_result(result, directory)


def say_result(result: CleanupResult, directory: str) -> None:
    """What went, and how to have it back."""
    for line in staying_text(result.protected, result.left):
        say(line)
    freed = "" if result.removal_id is None else " (still in the trash)"
    say(f"removed {result_text(result)}{freed}, from {directory}")
    if not result.is_complete:
        say("it was interrupted before its end")
    if result.removal_id is not None:
        say(f"to put it back: `motools cache undo {result.removal_id}`")


@contextmanager
def interruptible() -> Iterator[None]:
    """Says on Ctrl-C what that means."""
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted: what was removed by now lies in the trash; `motools cache undo` puts it back")
        raise


def _nothing(plan: CleanupPlan, directory: str, *, as_json: bool) -> None:
    if as_json:
        print_document(plan_document(plan), list, Format.JSON)
    if plan.protected:
        say_error(f"all of it is protected: nothing was removed from {directory}")
        raise typer.Exit(REFUSED)
    say(f"nothing to remove from {directory}")
