"""Whether a value that was computed under one version may be used under another.

Layer: core. Imports nothing.
Invariant: pure. A version is a text of its user's choice: it is read as it stands, and nothing is ordered by it.
"""

from __future__ import annotations

import re
from typing import Final

WORDS: Final = frozenset({"dev", "devel", "develop", "development", "dirty", "unknown", "untagged"})
"""What build tools call code of which they do not know the version."""

_NUMBERED: Final = re.compile(
    r"""
    v?
    (?:\d+!)?\d+(?:\.\d+)*                                             # epoch and release
    (?:[-_.]?(?:alpha|beta|preview|pre|rc|a|b|c)[-_.]?\d*)?            # before the release
    (?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?                            # after it
    (?P<dev>[-_.]?dev[-_.]?\d*)?
    (?P<local>\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?
    """,
    re.VERBOSE | re.ASCII,
)
"""A version as PEP 440 spells it, any of its spellings."""
_DESCRIBED: Final = re.compile(r".+-\d+-g[0-9a-f]{4,64}", re.ASCII)
"""What `git describe` says of a commit without a tag of its own: the tag before, how many commits since, the commit."""
_CHANGED_ENDS: Final = ("-dirty", ".dirty", "-broken")
"""What `git describe --dirty --broken` and its relatives add when files were changed since the commit."""


def is_development(version: str) -> bool:
    """Whether a version names code that is still being changed, and so says nothing about what a value was made by.

    It is one, whatever the case and the spaces around it, if it is

    - a word for it: `dev`, `devel`, `develop`, `development`, `dirty`, `unknown`, `untagged`;
    - a version as PEP 440 spells it with a development part: `1.2.dev3`, `1.2rc1.dev0`, `1.2-dev`;
    - one with a local part, which no package index takes: `1.2+dirty`, `1.2+g1234`, `0+unknown`, `1.2+cu118`;
    - what `git describe` says behind a tag (`v1.2-3-g1a2b3c4`), or of changed files (`v1.2-dirty`, `1a2b3c4-dirty`).

    All else is a version like any other: `1.2`, `1.2rc1`, `1.2.post1`, `2026-01-31`, `prompt-7`, the empty text, and
    a bare commit such as `1a2b3c4`: whoever gives one wants the results of each commit apart.
    """
    text = version.strip().lower()
    if text in WORDS or text.endswith(_CHANGED_ENDS) or _DESCRIBED.fullmatch(text):
        return True
    numbered = _NUMBERED.fullmatch(text)
    return numbered is not None and (numbered["dev"] is not None or numbered["local"] is not None)


def are_compatible(stored: str | None, asked: str | None) -> bool:
    """Whether a value that was stored under one version answers a question under another.

    It does if

    - both are the same text, to the letter: `1.0` and `1.0.0` are two versions, and so are `1.0` and `v1.0`;
    - one of them is None: nobody said under which version it was computed, or nobody wants to know;
    - one of them is a development version (`is_development`), which is compatible with every other.

    Args:
        stored: the version of the entry.
        asked: the version of who asks.
    """
    if stored is None or asked is None or stored == asked:
        return True
    return is_development(stored) or is_development(asked)
