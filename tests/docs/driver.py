"""Runs the blocks of one page: `python driver.py STEPS RESULTS`, in the directory where they are to run.

A process of its own, so that an example can do to its environment what it likes. It ends at the first failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MARK = "--- the command above ended with"

names: dict[str, Any] = {"__name__": "__main__"}
"""What Python blocks of this page have defined."""


def main(plan: str, results: str) -> None:
    """Run the steps; one line of JSON for each that was run."""
    given = json.loads(Path(plan).read_text())
    with Path(results).open("a", buffering=1) as told:
        for step in given["steps"]:
            result = run(step, given["page"])
            told.write(json.dumps(result) + "\n")
            if result.get("status"):
                return


def run(step: dict[str, Any], page: str) -> dict[str, Any]:
    """What came of one block."""
    if step["file"]:
        Path(step["file"]).write_text(step["source"])
        return {"status": 0, "output": ""}
    if step["language"] == "console":
        return {"commands": run_commands(step["commands"])}
    if step["language"] == "python":
        status, output = captured(lambda: run_python(step["source"], step["line"], page))
    else:
        status, output = captured(lambda: run_shell(["-e", "-c", step["source"]]))
    return {"status": status, "output": output}


def run_python(source: str, line: int, page: str) -> int:
    """Run it among the names of earlier blocks; a traceback names the line of the page."""
    try:
        exec(compile("\n" * (line - 1) + source, page, "exec"), names)
    except BaseException:  # noqa: BLE001 - whatever it raises is told
        traceback.print_exc()
        return 1
    return 0


def run_shell(arguments: list[str]) -> int:
    """Run bash; its output goes where ours goes."""
    return subprocess.run(["bash", *arguments], check=False, stdin=subprocess.DEVNULL).returncode


def run_commands(commands: list[str]) -> list[tuple[int, str]]:
    """Of each command its exit code and what it printed; all run in one shell, and know the code of the one before."""
    lines = ["__code=0"]
    for command in commands:
        lines += ["(exit $__code)", command, "__code=$?", f"printf '\\n%s %d\\n' '{MARK}' $__code"]
    _, output = captured(lambda: run_shell(["-c", "\n".join(lines)]))
    *parts, rest = output.split(f"\n{MARK} ")
    codes = [part.partition("\n")[0] for part in (*parts, rest)[1:]]
    printed = [part if place == 0 else part.partition("\n")[2] for place, part in enumerate(parts)]
    results = [(int(code), text) for code, text in zip(codes, printed, strict=True)]
    # A command that ends the shell, or that bash cannot read, keeps the others from running.
    missing = len(commands) - len(results)
    return results + [(1, f"it was not run, or ended the shell:\n{rest}")] * missing


def captured(work: Callable[[], int]) -> tuple[int, str]:
    """What it returns, and what it and its children print, in the order in which they did."""
    with tempfile.TemporaryFile() as file:
        with redirected(file):
            status = work()
        file.seek(0)
        return status, file.read().decode(errors="replace")


@contextmanager
def redirected(file: BinaryIO) -> Iterator[None]:
    """Stdout and stderr into a file: no pipe, which a daemon that is started here could hold open."""
    before = os.dup(1), os.dup(2)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, kept in enumerate(before, 1):
            os.dup2(kept, descriptor)
            os.close(kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
