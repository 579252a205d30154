"""The long form's runner: goes on where it stopped, says what is broken, and never what was not run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.faults import torture
from tests.faults.attack import Attack, Report
from tests.faults.table import Result


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the checkout is written to."""
    monkeypatch.setattr(torture, "SAVED", tmp_path / "torture")
    monkeypatch.setattr(torture, "PAGE", tmp_path / "reliability.md")
    monkeypatch.setattr(torture, "FIGURES", tmp_path / "reliability.json")


class Recorded:
    """An attack that remembers which rounds it was asked for."""

    def __init__(self, broken_at: int = -1) -> None:
        """Broken at a round, or never."""
        self.rounds: list[range] = []
        self.broken_at = broken_at
        self.reason: str | None = None

    def run(self, report: Report, rounds: range) -> None:
        """Count."""
        self.rounds.append(rounds)
        report.count("done", len(rounds))
        report.expect(self.broken_at not in rounds, f"round {self.broken_at}")

    @property
    def attack(self) -> Attack:
        """The record of it."""
        return Attack("part", "promise", "attack", "wanted", 10, 4, self.run, lambda: self.reason)


def carry_out(recorded: Recorded, commit: str = "a", rounds: int = 10) -> Result:
    """As the command does."""
    result = torture.saved("part", commit)
    torture.carry_out(recorded.attack, result, rounds)
    return result


def test_rounds_go_on_where_they_stopped() -> None:
    """In chunks; what was done is not done again, in this commit."""
    recorded = Recorded()
    assert carry_out(recorded, rounds=4).report.rounds == 4
    assert carry_out(recorded).report.counts == {"done": 10}
    assert recorded.rounds == [range(4), range(4, 8), range(8, 10)]
    assert carry_out(recorded, commit="b", rounds=2).report.counts == {"done": 2}


def test_time_is_bounded() -> None:
    """A part that has had its time begins no further chunk."""
    recorded, result = Recorded(), Result(commit="a")
    torture.carry_out(recorded.attack, result, 10, part_max_s=0.0)
    assert recorded.rounds == []


def test_page_tells_what_is_broken_and_what_was_not_run(tmp_path: Path) -> None:
    """Each part with its commit; what an earlier run has found stays."""
    recorded = Recorded(broken_at=5)
    torture.write_page([recorded.attack], {"part": carry_out(recorded)})
    text = (tmp_path / "reliability.md").read_text()
    assert "| `part` | promise | attack | wanted | 10 of 10 | **broken**: 1 violations | a |" in text
    assert "    - round 5" in text
    other = Recorded().attack._replace(name="other")
    torture.write_page([recorded.attack, other], {"other": Result(commit="b")})
    text = (tmp_path / "reliability.md").read_text()
    assert "**broken**" in text
    assert "| `other` | promise | attack | wanted | 0 | not run yet | |" in text


def test_what_cannot_be_run_says_why(tmp_path: Path) -> None:
    """And is counted."""
    recorded = Recorded()
    recorded.reason = "needs root"
    torture.write_page([recorded.attack], {"part": carry_out(recorded)})
    text = (tmp_path / "reliability.md").read_text()
    assert "skipped: needs root" in text
    assert "1 parts, 1 of them skipped." in text
    assert recorded.rounds == []


def test_unknown_part_is_refused_with_the_names() -> None:
    """Before anything is attacked."""
    said = CliRunner().invoke(torture.app, ["nothing"])
    assert said.exit_code == 2
    assert "there is no attack nothing; there are" in said.output
    assert "kills" in said.output


def test_every_attack_has_its_short_form() -> None:
    """A test beside it, which says that planted bugs are caught."""
    for name, attack in torture.find_attacks().items():
        module = Path(attack.run.__code__.co_filename)
        test = module.with_name(f"test_{module.name}")
        assert "planted" in test.read_text(), name
