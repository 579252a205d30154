"""`motools cache doctor`: what is wrong with a cache directory, and mending it.

Layer: motools.cli. Imports cache, options, output, progress, tables and motools.cache.doctor.
Invariant: works whatever state the directory is in; nothing is mended without `--fix`, and `--yes` or a yes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import to_builtins

from motools.cli import cache
from motools.cli.coercion import Command
from motools.cli.exits import FAILED, USAGE
from motools.cli.options import DEFAULT_DIR, CacheDir, Format, FormatOption, JsonOption, Yes, chosen
from motools.cli.output import can_ask, confirm, print_document, say, say_error, terminal_width
from motools.cli.progress import progress
from motools.cli.tables import note_lines, shown

if TYPE_CHECKING:
    from motools.cache import Diagnosis

MEND_WORDS = {
    "permissions": "take away what others may write",
    "leftovers": "remove the socket and half-made files of a dead daemon",
    "stamps": "remove the file of stamps that no daemon can use",
    "start": "start the daemon, which ends what was half done",
    "verify": "let entries miss that are damaged or whose files are gone",
}


@cache.app.command(cls=Command)
def doctor(
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended safely.")] = False,
    yes: Yes = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read the content of datasets, too.")] = False,
    cache_dir: CacheDir = DEFAULT_DIR,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Find out what is wrong with the cache directory, whether or not the daemon runs or can run.

    Nothing is changed without --fix. The database is never removed or rebuilt. Ends with 1 if problems are left.

    Example: motools cache doctor --fix
    """
    from motools.cache.doctor import examine, mend, planned_mends

    output = chosen(output, json=as_json)
    if fix and not yes and not can_ask():
        say_error("there is no terminal to ask at: pass --yes to mend without asking")
        raise typer.Exit(USAGE)
    with progress("examining"):
        found = examine(cache_dir, deep=deep)
    mends = planned_mends(found) if fix else []
    is_refused = False
    if mends and not yes:
        for one in mends:
            say(f"  {MEND_WORDS[one.value]}")
        is_refused = not confirm(f"Mend {cache_dir}?")
    if is_refused:
        say("nothing was mended")
    elif mends:
        with progress("mending") as tell:
            found = mend(cache_dir, found, deep=deep, on_progress=tell)
    _print(found, output)
    has_failed = is_refused or any(not one.is_done for one in found.mends)
    if has_failed or not found.is_well:
        raise typer.Exit(FAILED)


def _print(found: Diagnosis, output: Format) -> None:
    fields = ("directory", "is_well", "checks", "sqlite", "versions", "mends")
    document = {name: to_builtins(getattr(found, name)) for name in fields}
    print_document(document, lambda: _lines(found), output, items=document["checks"])
    if output is not Format.TABLE:
        return
    for one in found.mends:
        say(f"{'mended' if one.is_done else 'not mended'} ({one.mend}): {one.detail}")
    counts = Counter(check.status.value for check in found.checks)
    parts = [f"{counts[word]:,} {word}{'' if counts[word] == 1 else 's'}" for word in ("problem", "warning")]
    said = "all is well" if counts["ok"] == len(found.checks) else ", ".join(parts)
    say(f"looked at {len(found.checks)} things in {shown(found.directory)}: {said}")


def _lines(found: Diagnosis) -> list[str]:
    rows: list[tuple[tuple[str, ...], str]] = []
    for check in found.checks:
        rows.append(((check.status.value, shown(check.name)), shown(check.detail)))
        if check.remedy:
            rows.append(((), f"next: {shown(check.remedy)}"))
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    rows.append((("ok", "versions"), shown(versions)))
    return note_lines(rows, width=terminal_width())
