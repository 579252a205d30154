"""docs/reliability.md, from what the attacks have found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tests.faults.attack import Attack, Report

HEAD = """# Reliability

Written by `make torture`, which attacks every promise with real faults; `make torture PART=name` runs one part,
`make test` a short form of each. Every attack is also run against a daemon with a planted bug, which it must catch.
A part that could not be run here says why.

"""
MARKS = {True: "**broken**", False: "held"}


class Result(msgspec.Struct):
    """What one attack has found in one commit."""

    commit: str
    report: Report = msgspec.field(default_factory=Report)
    duration_s: float = 0.0
    ended_at: str = ""
    skipped: str | None = None


def page(attacks: Iterable[Attack], results: Mapping[str, Result]) -> str:
    """The page: one table, then what was counted in each part."""
    attacks = list(attacks)
    lines = ["| part | promise | attack | wanted | rounds | found | commit |", "|---|---|---|---|---|---|---|"]
    lines += [_row(attack, results.get(attack.name)) for attack in attacks]
    skipped = [name for name, result in results.items() if result.skipped is not None]
    lines += ["", f"{len(attacks)} parts, {len(skipped)} of them skipped.", "", "## What was counted", ""]
    for attack in attacks:
        if (result := results.get(attack.name)) is not None and result.report.rounds:
            lines += _counted(attack, result)
    return HEAD + "\n".join(lines).rstrip() + "\n"


def _row(attack: Attack, result: Result | None) -> str:
    start = f"| `{attack.name}` | {attack.promise} | {attack.says} | {attack.wanted} |"
    if result is not None and result.skipped is not None:
        return f"{start} 0 | skipped: {result.skipped} | {result.commit} |"
    if result is None or not result.report.rounds:
        return f"{start} 0 | not run yet | |"
    report = result.report
    found = MARKS[report.violation_count > 0]
    if report.violation_count:
        found += f": {report.violation_count:,} violations"
    return f"{start} {report.rounds:,} of {attack.rounds:,} | {found} | {result.commit} |"


def _counted(attack: Attack, result: Result) -> list[str]:
    report = result.report
    seen = [f"{count:,} {name}" for name, count in report.counts.items()]
    seen += [f"highest {name}: {value:,g}" for name, value in report.worst.items()]
    lines = [f"- `{attack.name}` ({result.ended_at}, {result.duration_s:,.0f} s): {'; '.join(seen) or 'nothing'}."]
    lines += [f"    - {_cell(violation)}" for violation in report.violations[:5]]
    return lines


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")[:300]
