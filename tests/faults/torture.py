"""`python -m tests.faults.torture [PART...]`: the long form of every attack, resuming; writes docs/reliability.md.

What a part has found is saved after each chunk of rounds, in `build/torture/PART.json`, under the commit that was
attacked: another commit begins anew. `docs/reliability.json` keeps the latest of each part, for the page.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from tests.faults.attack import Attack
from tests.faults.table import Result, page

ROOT: Final = Path(__file__).resolve().parents[2]
SAVED: Final = ROOT / "build" / "torture"
PAGE: Final = ROOT / "docs" / "reliability.md"
FIGURES: Final = PAGE.with_suffix(".json")
PART_MAX_S: Final = 30 * 60.0

app = typer.Typer(add_completion=False)


def find_attacks() -> dict[str, Attack]:
    """All there are, by name, in the order of their names."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("test_"))
    this = Path(__file__).stem
    found = (importlib.import_module(f"tests.faults.{name}") for name in modules if name not in (this, "planted"))
    attacks = [module.ATTACK for module in found if hasattr(module, "ATTACK")]
    return {attack.name: attack for attack in attacks}


def current_commit() -> str:
    """What is attacked; a tree with changes is marked."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+changes", "--abbrev=10", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.strip()


def saved(name: str, commit: str) -> Result:
    """What was found so far in this commit."""
    try:
        result = msgspec.json.decode((SAVED / f"{name}.json").read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError):
        return Result(commit=commit)
    return result if result.commit == commit else Result(commit=commit)


def save(name: str, result: Result) -> None:
    """For the next time, and for the page."""
    SAVED.mkdir(parents=True, exist_ok=True)
    (SAVED / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))


def carry_out(attack: Attack, result: Result, rounds: int, part_max_s: float = PART_MAX_S) -> None:
    """The rounds that are missing, chunk by chunk, for so long at most; the next call goes on from there."""
    if (reason := attack.unavailable()) is not None:
        result.skipped = reason
        save(attack.name, result)
        return
    result.skipped = None
    ends_s = time.monotonic() + part_max_s
    while result.report.rounds < rounds and time.monotonic() < ends_s:
        started_s = time.monotonic()
        first = result.report.rounds
        chunk = range(first, min(first + attack.chunk, rounds))
        attack.run(result.report, chunk)
        # A chunk that had to stop early is not begun again: it would do the same.
        result.report.rounds = max(result.report.rounds, chunk.stop)
        result.duration_s += time.monotonic() - started_s
        result.ended_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        save(attack.name, result)
        _say(attack, result, rounds)


def _say(attack: Attack, result: Result, rounds: int) -> None:
    report = result.report
    counts = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
    typer.echo(
        f"{attack.name}: {report.rounds:,} of {rounds:,} rounds in {result.duration_s:,.0f} s,"
        f" {report.violation_count:,} violations; {counts}",
        err=True,
    )


def write_page(attacks: Iterable[Attack], results: Mapping[str, Result]) -> None:
    """docs/reliability.md, whole; of what was not attacked now, the latest that is known."""
    try:
        known = msgspec.json.decode(FIGURES.read_bytes(), type=dict[str, Result])
    except (OSError, msgspec.MsgspecError):
        known = {}
    attacks = list(attacks)
    known.update({name: result for name, result in results.items() if result.report.rounds or result.skipped})
    known = {attack.name: known[attack.name] for attack in attacks if attack.name in known}
    FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")
    PAGE.write_text(page(attacks, known), encoding="utf-8")


@app.command()
def main(
    parts: Annotated[list[str] | None, typer.Argument(help="Which attacks; all of them unless named.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Instead of the long form's.")] = None,
    *,
    listed: Annotated[bool, typer.Option("--list", help="Say which attacks there are.")] = False,
    again: Annotated[bool, typer.Option(help="Forget what was found before.")] = False,
) -> None:
    """Attack the promises, and write down what came of it.

    Example: python -m tests.faults.torture kills --rounds 50
    """
    attacks = find_attacks()
    if listed:
        for attack in attacks.values():
            typer.echo(f"{attack.name:14} {attack.rounds:>9,} rounds   {attack.promise}: {attack.says}")
        return
    chosen = _chosen(attacks, parts)
    commit = current_commit()
    results = {name: saved(name, commit) for name in attacks}
    for attack in chosen:
        if again:
            results[attack.name] = Result(commit=commit)
        carry_out(attack, results[attack.name], rounds or attack.rounds)
        write_page(attacks.values(), {attack.name: results[attack.name] for attack in chosen})
    broken = [attack.name for attack in chosen if results[attack.name].report.violation_count]
    for name in broken:
        for violation in results[name].report.violations:
            typer.echo(f"{name}: {violation}", err=True)
    raise typer.Exit(1 if broken else 0)


def _chosen(attacks: dict[str, Attack], parts: Sequence[str] | None) -> list[Attack]:
    unknown = [part for part in parts or () if part not in attacks]
    if unknown:
        typer.echo(f"there is no attack {', '.join(unknown)}; there are {', '.join(attacks)}", err=True)
        raise typer.Exit(2)
    return [attack for attack in attacks.values() if not parts or attack.name in parts]


if __name__ == "__main__":
    sys.exit(app())
