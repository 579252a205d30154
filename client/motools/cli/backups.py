"""`motools cache backup` and `restore-backup`: copies of the database, and going back to one.

Layer: motools.cli. Imports cache, exits, options, output, progress, removing, tables and motools.cache.
Invariant: nothing is replaced without `--yes` or a yes at the terminal, and what is replaced is set aside.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.exits import FAILED, USAGE
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, JsonOption, Yes
from motools.cli.output import can_ask, confirm, print_document, print_items, say, say_error
from motools.cli.progress import progress
from motools.cli.selection import counts_text
from motools.cli.tables import Column, plain, size_text, time_text

if TYPE_CHECKING:
    from motools.cache.backups import Backup
    from motools.cache.restoring import RestorePlan, StoredBackup

KINDS = ("datasets", "models", "evals")
FIELDS = ("path", "size_bytes", "made_at", *KINDS, "schema_version", "problem")
COLUMNS = (
    Column("made (UTC)", lambda item: time_text(item["made_at"])),
    Column("size", lambda item: size_text(item["size_bytes"]), True),
    Column("datasets", plain("datasets"), True),
    Column("models", plain("models"), True),
    Column("evals", plain("evals"), True),
    Column("path", plain("path")),
)

File = Annotated[str, typer.Argument(metavar="FILE", help="The file to make, outside of the cache directory.")]
Source = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help="A backup; else the newest of the daemon's own.", show_default=False),
]


@cache.app.command(cls=Command)
def backup(
    file: File,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Copy the database into one file, while it is in use. The files of entries are not in it.

    The daemon makes such copies by itself, too: `motools cache restore-backup --list`.

    Example: motools cache backup /backups/cache.db --force
    """
    with cache.open_utils(cache_dir) as utils, progress("copying") as tell:
        made = utils.backup(file, force=force, on_progress=tell)
    if as_json:
        document: dict[str, Any] = to_builtins(made)
        document["database_schema_version"] = document.pop("schema_version")
        document["entries"] = {kind: document.pop(kind) for kind in KINDS}
        print_document(document, list, Format.JSON)
    else:
        say(f"backed up {_counts(made)} ({size_text(made.size_bytes)}) to {made.path}")


@cache.app.command("restore-backup", cls=Command)
def restore_backup(
    file: Source = None,
    *,
    is_list: Annotated[bool, typer.Option("--list", help="Only show the daemon's own backups.")] = False,
    yes: Yes = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Put a backup into the place of the database, a damaged one included.

    The daemon is stopped, and started again if it ran. What is replaced stays, as cache.db.replaced-TIME. Entries whose
    files are gone since miss.

    Example: motools cache restore-backup --list
    """
    from motools.cache.restoring import list_backups, plan_restore
    from motools.cache.restoring import restore_backup as restore

    if is_list:
        if file is not None:
            raise typer.BadParameter("it takes no FILE", param_hint="--list")
        items: list[dict[str, Any]] = to_builtins(list_backups(cache_dir))
        print_items(items, FIELDS, COLUMNS, Format.JSON if as_json else Format.TABLE)
        return
    if not yes and not can_ask():
        say_error("there is no terminal to ask at: pass --yes to restore without asking")
        raise typer.Exit(USAGE)
    path = None if file is None else os.path.abspath(file)  # noqa: PTH100 - links stay as they were typed
    plan = plan_restore(cache_dir, path)
    if not as_json or not yes:
        _show(plan)
    if not yes and not confirm(f"Replace the database of {cache_dir}?"):
        say("nothing was replaced")
        raise typer.Exit(FAILED)
    # By name: another automatic backup may have been made since.
    done = restore(cache_dir, plan.backup.path)
    if as_json:
        print_document(to_builtins(done), list, Format.JSON)
        return
    say(f"restored {_counts(done.backup)} in {cache_dir}")
    if done.replaced is not None:
        say(f"what was replaced: {done.replaced}; to go back: `motools cache restore-backup {done.replaced}`")


def _show(plan: RestorePlan) -> None:
    found = plan.current
    if found is None:
        now = "there is none"
    elif found.problem is not None:
        now = f"it cannot be read: {found.problem}"
    else:
        now = _counts(found)
    say(f"the database now: {now}")
    say(f"the backup of {time_text(plan.backup.made_at)} UTC, {plan.backup.path}: {_counts(plan.backup)}")


def _counts(found: Backup | StoredBackup) -> str:
    return counts_text({kind: getattr(found, kind) for kind in KINDS})
