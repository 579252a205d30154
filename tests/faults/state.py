"""What must be true of keys after changes that were acknowledged, refused, or of unknown outcome."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from tests.faults.attack import Report


class Ledger:
    """The values that each key may have. Safe to be used from several threads, each with keys of its own."""

    def __init__(self) -> None:
        """Nothing was stored."""
        self._allowed: dict[str, set[str | None]] = {}
        self._lock = threading.Lock()

    def began(self, key: str, value: str | None) -> None:
        """A change is on its way: from now on the key may have this value, too; None: no value."""
        with self._lock:
            self._allowed.setdefault(key, {None}).add(value)

    def acknowledged(self, key: str, value: str | None) -> None:
        """The change was answered: the key has this value, and no other."""
        with self._lock:
            self._allowed[key] = {value}

    def refused(self, key: str, value: str | None, before: str | None) -> None:
        """The change was refused with a known outcome: nothing has changed."""
        with self._lock:
            if before != value:
                self._allowed[key].discard(value)

    def forget(self) -> None:
        """Begin anew, in a new directory."""
        with self._lock:
            self._allowed.clear()

    @property
    def keys(self) -> list[str]:
        """All that were changed."""
        return list(self._allowed)

    def certain(self, key: str) -> str | None:
        """The only value that a key may have.

        Raises:
            KeyError: there are several.
        """
        allowed = self._allowed.get(key, {None})
        if len(allowed) > 1:
            raise KeyError(key)
        return next(iter(allowed))

    def judge(self, found: Iterable[tuple[str, str | None]], report: Report, where: str) -> None:
        """Compare with what is found now; from here on that is what stands."""
        for key, value in found:
            allowed = self._allowed.get(key, {None})
            if value not in allowed:
                report.count("lost or wrong")
                may_have = sorted(_shortened(one) for one in allowed)
                report.violate(f"{where}: {key} has {_shortened(value)}, and may have {' or '.join(may_have)}")
            self._allowed[key] = {value}


def _shortened(value: str | None) -> str:
    return "nothing" if value is None else repr(value[:40])
