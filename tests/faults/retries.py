"""A retry is safe: a proxy passes a request on and drops its reply, and somebody else changes the key meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

from motools.cache import SyncCache
from motools.cache.errors import CacheError
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import Clear, Found, Lookup, PutDataset, PutEvals, RequestKey
from tests.daemons import BlockingGuest, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.proxy import REAL_SOCKET, Proxy, open_proxy

TIMEOUT_S: Final = 10.0
KEYS: Final = 50
OTHER: Final = bytes(15) + b"\1"


class Other:
    """Another client, which changes what the first one has just changed."""

    def __init__(self, guest: BlockingGuest) -> None:
        """Past the proxy."""
        self._guest = guest
        self._number = 0

    def _key(self) -> RequestKey:
        self._number += 1
        return RequestKey(OTHER, self._number, self._number)

    def set(self, key: str, value: str) -> None:
        """Store a file id."""
        self._guest.ask(PutDataset(request_key=self._key(), dataset_hash=key, file_id=value.encode()))

    def clear(self, key: str) -> None:
        """Clear a dataset."""
        self._guest.ask(Clear(request_key=self._key(), kind=Kind.DATASET, keys=[key]))

    def set_eval(self, model_id: str, path: str) -> None:
        """Store a log."""
        logs = {"task": path.encode()}
        self._guest.ask(PutEvals(request_key=self._key(), model_id=model_id, backend_type="b", logs=logs))

    def get(self, kind: Kind, key: str) -> str | None:
        """What stands."""
        reply = self._guest.ask(Lookup(kind=kind, keys=[key]))
        assert isinstance(reply, Found), reply
        return None if reply.values[0] is None else reply.values[0].decode()


class Trial:
    """One change whose reply is dropped, and what must have become of it."""

    def __init__(self, number: int, cache: SyncCache, other: Other, proxy: Proxy) -> None:
        """Nothing happens before one of its methods is called."""
        self.key = f"key-{number % KEYS}"
        self.mine, self.theirs = f"mine-{number}", f"theirs-{number}"
        self.cache = cache
        self.other = other
        self.proxy = proxy

    def overwritten(self) -> str | None:
        """What somebody else stored after us is not overwritten by our retry."""
        self.proxy.arm(lambda: self.other.set(self.key, self.theirs))
        self.cache.set_file_id(self.key, self.mine)
        return self._stands(Kind.DATASET, self.key, self.theirs)

    def cleared(self) -> str | None:
        """Our clear counts once, and not what was stored after it."""
        self.other.set(self.key, "before")
        self.proxy.arm(lambda: self.other.set(self.key, self.theirs))
        if (count := self.cache.clear_datasets([self.key])) != 1:
            return f"one entry was cleared, and it says {count}"
        return self._stands(Kind.DATASET, self.key, self.theirs)

    def fulfilled(self) -> str | None:
        """A value that was stored and cleared does not come back."""
        self.other.clear(self.key)
        with self.cache.claim_dataset(self.key, timeout_s=TIMEOUT_S) as claim:
            if claim.value is not None:
                return f"it was cleared, and has {claim.value!r}"
            self.proxy.arm(lambda: self.other.clear(self.key))
            claim.fulfil(self.mine)
        return self._stands(Kind.DATASET, self.key, None)

    def evaluated(self) -> str | None:
        """The same of an evaluation's log."""
        self.proxy.arm(lambda: self.other.set_eval(self.key, self.theirs))
        self.cache.set_eval_log_paths(self.key, {"task": self.mine}, "b")
        return self._stands(Kind.EVAL, eval_key(self.key, "task", "b", None), self.theirs)

    def claimed(self) -> str | None:
        """A lease whose grant was not heard is the same lease when it is asked for again."""
        self.other.clear(self.key)
        self.proxy.arm(lambda: None)
        with self.cache.claim_dataset(self.key, timeout_s=TIMEOUT_S) as claim:
            if not claim.is_owner:
                return "nobody else had claimed it, and it is held"
            claim.fulfil(self.mine)
        return self._stands(Kind.DATASET, self.key, self.mine)

    def _stands(self, kind: Kind, key: str, wanted: str | None) -> str | None:
        found = self.other.get(kind, key)
        return None if found == wanted else f"{key} should have {wanted!r}, and has {found!r}"


TRIALS: Final[tuple[Callable[[Trial], str | None], ...]] = (
    Trial.overwritten,
    Trial.cleared,
    Trial.fulfilled,
    Trial.evaluated,
    Trial.claimed,
)


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Drop a reply in each round, and see that the retry changes nothing."""
    with _scene(bug) as (cache, other, proxy):
        for number in rounds:
            trial = Random(number).choice(TRIALS)
            before = proxy.dropped
            try:
                wrong = trial(Trial(number, cache, other, proxy))
            except CacheError as error:
                wrong = f"{type(error).__name__}: {error}"
            report.expect(wrong is None, f"round {number}, {trial.__name__}: {wrong}")
            report.expect(proxy.dropped == before + 1, f"round {number}: no reply was dropped")
            report.count("retries")
            report.count("double effects", wrong is not None)
            report.rounds += 1


@contextmanager
def _scene(bug: str | None) -> Iterator[tuple[SyncCache, Other, Proxy]]:
    with scratch() as top:
        directory = top / ".motools"
        directory.mkdir()
        with running(directory, bug=bug), open_proxy(directory) as proxy:
            guest = BlockingGuest(directory, REAL_SOCKET)
            with guest.socket, SyncCache(directory, autostart=False, memory_entries=0, timeout_s=TIMEOUT_S) as cache:
                cache.get_status()  # it is connected: what is dropped first is no welcome
                yield cache, Other(guest), proxy


ATTACK = Attack(
    name="retries",
    promise="a retry is safe",
    says="a proxy passes a request on, drops its reply, and somebody else changes the key before the retry",
    wanted="10,000 retries, 0 double effects",
    rounds=10_000,
    chunk=500,
    run=attack,
)
