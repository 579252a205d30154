"""The project's own framing under a coverage-guided fuzzer (libFuzzer, through atheris).

`python -m tests.faults.framing -runs=N -seed=N [--planted]` is what each round runs: a fuzzer ends its process.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.faults.attack import Attack, Report
from tests.faults.malformed import golden_frames

ROOT: Final = Path(__file__).resolve().parents[2]
RUNS_PER_ROUND: Final = 20_000
TIMEOUT_S: Final = 300.0
PLANTED: Final = "--planted"


def unavailable() -> str | None:
    """Why there is no fuzzer here."""
    return None if importlib.util.find_spec("atheris") else "needs atheris: pip install 'motoolsd[fuzz]'"


def attack(report: Report, rounds: range, bug: str | None = None, runs: int = RUNS_PER_ROUND) -> None:
    """Each round begins with real frames and another seed."""
    for number in rounds:
        with tempfile.TemporaryDirectory(prefix="mt-") as corpus:
            for name, frame in golden_frames().items():
                Path(corpus, name).write_bytes(b"\x80" + frame)
            arguments = [f"-runs={runs}", f"-seed={number + 1}", "-max_len=600", f"-artifact_prefix={corpus}/", corpus]
            done = subprocess.run(
                [sys.executable, "-m", "tests.faults.framing", *([PLANTED] if bug else []), *arguments],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=False,
            )
        report.count("runs", runs)
        said = (done.stdout + done.stderr)[-600:]
        report.expect(done.returncode == 0, f"round {number}: the framing fails: {said}")
        report.rounds += 1


def _fuzz() -> None:
    atheris: Any = importlib.import_module("atheris")  # not everybody has it

    with atheris.instrument_imports(include=["motoolsd.wire"]):
        import motoolsd.wire.frames
        import motoolsd.wire.session
    from tests.faults.malformed import feed_framing

    if PLANTED in sys.argv:
        sys.argv.remove(PLANTED)

        def announced(self: motoolsd.wire.frames.FrameBuffer) -> int | None:
            """Take any length for one."""
            return 600 // len(self._buffer[3:4].rstrip(b"\0")) if len(self._buffer) >= 4 else None

        setattr(motoolsd.wire.frames.FrameBuffer, "_announced_size", announced)  # noqa: B010
    atheris.Setup(sys.argv, feed_framing)
    atheris.Fuzz()


ATTACK = Attack(
    name="framing",
    promise="malformed input",
    says="the project's own framing under a coverage-guided fuzzer, beginning with real frames",
    wanted="100 rounds of 20,000 runs: nothing but protocol errors",
    rounds=100,
    chunk=5,
    run=attack,
    unavailable=unavailable,
)


if __name__ == "__main__":
    _fuzz()
