"""The command reference, by typer's own generator."""

from __future__ import annotations

import re
import subprocess
import sys

HEAD = """\
# Commands

Made by `make docs` from the commands themselves: change their help, not this page. Each is shown by `--help`, too.

Data goes to stdout, everything else to stderr. Without a terminal nothing asks: what removes something needs `--yes`.

Exit codes: 0 done, 1 failed (or the answer was no), 2 usage, 3 not found or ambiguous, 4 refused (pinned, in use), 69
no daemon, 75 timed out, 130 interrupted. `run` ends as its command does, `verify` with the sum of what it found.

"""
PROGRAMS = {"motools": "motools.cli.app", "motoolsd": "motoolsd.cli"}
TIMEOUT_S = 60

_HEADING = re.compile("^#", re.MULTILINE)
_EXAMPLE = re.compile("^(Example|Start with): (.+)$", re.MULTILINE)


def commands_page() -> str:
    """The page, as Markdown."""
    return HEAD + "\n".join(_program(name, module) for name, module in PROGRAMS.items())


def _program(name: str, module: str) -> str:
    command = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", timeout=TIMEOUT_S)
    text = _HEADING.sub("##", done.stdout.strip())
    return _EXAMPLE.sub(r"\1: `\2`", text) + "\n"
