"""What the blocking and the async client have in common: address, options, fallback, forks, pickling.

Layer: motools.cache. Imports calls, errors, launch, recovery and motoolsd.wire.
Invariant: constructing a client does no I/O.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar, cast

from msgspec import structs

from motools.cache.calls import RAISES, Call, Inputs
from motools.cache.clock import monotonic_s
from motools.cache.connection import greeting
from motools.cache.errors import CacheDirectoryMissing, CacheError, CacheRequestError, UnknownOperation
from motools.cache.launch import autostart_is_on
from motools.cache.recording import CachePolicy, Provenance
from motools.cache.recovery import RequestKeys, is_outdated
from motools.cache.remembered import ENTRIES_DEFAULT, Memory
from motools.cache.scheduler import current_job
from motools.cache.unreleased import forget_all
from motoolsd.wire.cleaning import ApplyPlan
from motoolsd.wire.explaining import MISSES_TOLD_MAX, Explain, Introduce, Missed
from motoolsd.wire.leases import Claim, Claimed
from motoolsd.wire.listing import Invalidate
from motoolsd.wire.messages import Found, Hello, Lookup, Notice, Reply, Request, RequestKey, Welcome, Write
from motoolsd.wire.names import DATABASE
from motoolsd.wire.origins import Origin, origin_id

T = TypeVar("T")

OnUnavailable = Literal["raise", "miss"]
TIMEOUT_S = 30.0
TIMEOUT_MAX_S = 31_536_000
"""A year."""
EXPLAIN: Final = "explain"
"""A daemon without this feature knows neither who stores nor what keys are made from."""
INTRODUCED_S: Final = 6 * 3_600.0
"""How long a daemon surely remembers who we are."""
MISSES_TOLD_A_SECOND: Final = 64
"""Misses whose inputs are told: whoever asks for more is looking for what is there."""


class Client:
    """An address and how to use it. `SyncCache` and `Cache` add the waiting."""

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] = ".motools",
        *,
        autostart: bool = True,
        memory_entries: int = ENTRIES_DEFAULT,
        timeout_s: float = TIMEOUT_S,
        on_unavailable: OnUnavailable = "raise",
        labels: Mapping[str, str] | None = None,
        version: str | None = None,
        policy: CachePolicy | None = None,
    ) -> None:
        """Remember all of it; nothing is opened, made or started yet.

        Args:
            cache_dir: the cache directory. A relative path means what it means now, also after a change of the
                working directory.
            autostart: start a daemon where none runs, and make the directory where there is none.
            memory_entries: answers, hits and misses alike, that this client remembers and gives again without asking
                the daemon for as long as they are true; the least recently used go. 0: every lookup asks.
            timeout_s: bounds each whole call, with reconnects, the start of a daemon and retries inside it.
            on_unavailable: `"raise"`, or `"miss"`: when the daemon cannot be had, lookups miss and writes are logged
                and dropped, so that the cache never fails a job. Mistakes in the call itself raise all the same.
            labels: stored with every entry that this client stores, and what its lookups are counted for. Those of the
                environment, `MOTOOLS_LABELS="experiment=e1,owner=ann"`, are added; of two with one name these count.
            version: the version of the code that computes the values; stored with them. It is no part of their keys.
            policy: what to do with a value of another version; None: it misses. Without `version` any value will do.

        Raises:
            CacheRequestError: an option makes no sense, or `MOTOOLS_LABELS`.
            CacheDirectoryMissing: a relative path, in a working directory that was removed.
        """
        if on_unavailable not in ("raise", "miss"):
            raise CacheRequestError(f'on_unavailable is "raise" or "miss", not {on_unavailable!r}')
        _check_timeout(timeout_s)
        _check_count(memory_entries)
        if "\0" in os.fspath(cache_dir):
            raise CacheRequestError(f"cache_dir holds a NUL character: {cache_dir!r}")
        self.cache_dir = Path(cache_dir)
        self.db_path = self.cache_dir / DATABASE
        self._directory = _absolute(cache_dir)
        self._autostart = autostart
        self._creates = True
        self._may_upgrade = autostart
        self._memory_entries = memory_entries
        self._timeout_s = float(timeout_s)
        self._on_unavailable: OnUnavailable = on_unavailable
        self._provenance = Provenance(_all_labels(labels), version, policy)
        self._asks_version = self._provenance.asked_version is not None
        self._origin: Origin | None = None
        self._origin_id: bytes | None = None
        self._misses = Allowance(MISSES_TOLD_A_SECOND)
        self._held: set[bytes] = set()
        self._in_use: set[bytes] = set()
        self._keys = RequestKeys()
        self._memory = Memory(self._directory, memory_entries)
        self._start_fresh()
        _clients.add(self)

    @property
    def directory(self) -> str:
        """The absolute path, as it was meant when the client was made."""
        return self._directory

    @property
    def autostart(self) -> bool:
        """Whether it starts a daemon where none runs."""
        return self._autostart

    def __repr__(self) -> str:
        """The class and its directory."""
        return f"{type(self).__name__}({str(self.cache_dir)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled client is its address and options; the copy connects for itself."""
        options = {
            "autostart": self._autostart,
            "memory_entries": self._memory_entries,
            "timeout_s": self._timeout_s,
            "on_unavailable": self._on_unavailable,
            "labels": self._provenance.labels,
            "version": self._provenance.version,
            "policy": self._provenance.policy,
        }
        return _unpickle, (type(self), self._directory, options)

    # What every request says of who asks.

    def _greeting(self) -> Hello:
        """What is said first on every connection: lookups are counted by it."""
        return greeting(current_job(), self._provenance.labels)

    def _request(self, connection: Told, call: Call[T], key: RequestKey | None) -> Request:
        """The request of a call: a write under its key and by the name of who writes, a question under our version.

        Raises:
            UnknownOperation: the daemon would misread it.
        """
        if call.needs is not None and call.needs not in connection.peer.features:
            message = "the daemon is older than what was asked of it: `motools daemon restart` starts this version's"
            raise UnknownOperation(message)
        request = call.request_for(key)
        if key is not None or isinstance(request, ApplyPlan | Invalidate):
            return self._signed(connection, cast("Write | ApplyPlan | Invalidate", request))
        if type(request) is Lookup and (version := self._provenance.asked_version) is not None:
            return structs.replace(request, version=version, is_strict=self._provenance.is_strict)
        if type(request) is Explain and request.version is None and self._provenance.is_strict:
            return structs.replace(request, version=self._provenance.version)
        return request

    def _signed(self, connection: Told, request: Write | ApplyPlan | Invalidate) -> Request:
        if EXPLAIN not in connection.peer.features:
            return cast("Request", request)
        if monotonic_s() >= connection.introduced_until_s:
            self._gather_origin()
            assert self._origin is not None, "gathered"
            connection.hold([Introduce(origin=self._origin)])
            connection.introduced_until_s = monotonic_s() + INTRODUCED_S
        return cast("Request", structs.replace(request, origin=self._origin_id))

    @property
    def _knows_origin(self) -> bool:
        return self._origin is not None

    def _gather_origin(self) -> None:
        """Find out who we are; blocks for up to a second or so, once."""
        if self._origin is None:
            from motools.cache.origin import current_origin  # only for those that write

            origin = current_origin()
            self._origin_id = origin_id(origin)
            self._origin = origin

    def _result(self, connection: Told, call: Call[T], request: Request, reply: Reply) -> T:
        """What a reply means; says what is worth saying of a lookup's."""
        if type(reply) is Claimed and type(request) is Claim:
            self._say_versions(request, _claimed_versions(request, reply))
        elif type(reply) is Found and type(request) is Lookup:
            if reply.versions:
                self._say_versions(request, _found_versions(request, reply))
            if call.inputs is not None and None in reply.values and EXPLAIN in connection.peer.features:
                self._tell_misses(connection, call.inputs, request, reply)
        return call.decode(reply) if type(reply) is call.expects else call.result(reply)

    def _tell_misses(self, connection: Told, inputs: Inputs, request: Lookup, reply: Found) -> None:
        """Tell what keys that missed are made from; of a flood only the first."""
        missed = [place for place, value in enumerate(reply.values) if value is None]
        told = missed[: min(self._misses.take(len(missed)), MISSES_TOLD_MAX)]
        if told:
            notice = Missed(kind=request.kind, inputs={request.keys[place]: inputs(place) for place in told})
            connection.tell([notice])

    def _say_versions(self, request: Lookup | Claim, versions: Mapping[str, str]) -> None:
        if not versions:
            return
        import logging  # as in `_miss`

        text = "%s %s was computed under version %s, and is used under version %s"
        logger = logging.getLogger("motools.cache")
        for key, version in versions.items():
            logger.warning(text, request.kind.value, key, version, self._provenance.version)

    def _fall_back(self, call: Call[T], error: CacheError) -> T:
        """The result of a call that found no daemon.

        Raises:
            CacheError: the error itself, unless misses were asked for and the call can be one.
        """
        if call.fallback is RAISES:
            raise error
        self._miss(error, "dropped a write" if call.is_write else "a lookup missed")
        return cast("T", call.fallback)

    def _drop_write(self, error: CacheError) -> None:
        """Go on without a write that found no daemon.

        Raises:
            CacheError: the error itself, unless misses were asked for.
        """
        self._miss(error, "dropped a write")

    def _miss(self, error: CacheError, action: str) -> None:
        if self._on_unavailable != "miss":
            raise error
        import logging  # only when something is wrong: it is a third of this package's import time

        logging.getLogger("motools.cache").warning("%s, because the cache is unavailable: %s", action, error)

    def _asks_to_drain(self, peer: Welcome) -> bool:
        """Whether to make a daemon end, so that ours is started; at most once, should ours turn out to be old too."""
        if not is_outdated(peer):
            return False
        may_upgrade = self._may_upgrade and peer.started_by == "client" and autostart_is_on()
        if not may_upgrade and self._directory not in _warned_of:
            _warned_of.add(self._directory)
            import logging  # as above

            text = "the daemon of %s is of version %s, older than this client: restart it with `motools daemon restart`"
            logging.getLogger("motools.cache").warning(text, self._directory, peer.version)
        self._may_upgrade = False
        return may_upgrade

    def _start_fresh(self) -> None:
        """Set up what belongs to one process: at construction, and again in a forked child."""
        raise NotImplementedError

    def _drop_connection(self) -> None:
        """Close this process's end of the connection, if there is one."""
        raise NotImplementedError

    def _forget_after_fork(self) -> None:
        """In a forked child: drop what belongs to the parent, whose connection stays open."""
        self._drop_connection()
        self._held = set()
        self._in_use = set()
        self._keys = RequestKeys()
        self._memory = Memory(self._directory, self._memory_entries)
        self._origin = self._origin_id = None
        self._start_fresh()


def _all_labels(labels: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The client's labels over those of the environment."""
    if not os.environ.get("MOTOOLS_LABELS"):
        return labels
    from motools.cache.labels import labels_from_environment, merged_labels

    return merged_labels(labels_from_environment(), labels)


class Allowance:
    """So many in a second, and no more."""

    __slots__ = ("_left", "_rate", "_until_s")

    def __init__(self, rate: int) -> None:
        """Nothing is taken yet."""
        self._rate = self._left = rate
        self._until_s = 0.0

    def take(self, count: int) -> int:
        """How many of these there may be now."""
        if monotonic_s() >= self._until_s:
            self._left, self._until_s = self._rate, monotonic_s() + 1.0
        taken = min(count, self._left)
        self._left -= taken
        return taken


class Told(Protocol):
    """A connection, as far as it is told who asks."""

    peer: Welcome
    introduced_until_s: float

    def hold(self, notices: Sequence[Notice]) -> None:
        """Send notices with the next request."""
        ...

    def tell(self, notices: Sequence[Notice]) -> None:
        """Send notices now, as far as the socket takes them."""
        ...


def _found_versions(request: Lookup, found: Found) -> dict[str, str]:
    """Those of the found values that do not go with the asked version, by key."""
    values = found.values
    named = {place: version for place, version in found.versions.items() if 0 <= place < len(values)}
    return {request.keys[place]: version for place, version in named.items() if values[place] is not None}


def _claimed_versions(request: Claim, claimed: Claimed) -> dict[str, str]:
    """The same, of a claim's."""
    states = zip(request.keys, claimed.states, strict=False)
    return {key: state.version for key, state in states if state.version is not None}


def _check_timeout(timeout_s: object) -> None:
    # None, a text, NaN and infinity too: each would come out as a bare error of the socket, and late.
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= TIMEOUT_MAX_S:
        raise CacheRequestError(f"timeout_s must be a number above 0 and up to {TIMEOUT_MAX_S}, not {timeout_s!r}")


def _check_count(memory_entries: object) -> None:
    if not isinstance(memory_entries, int) or isinstance(memory_entries, bool) or memory_entries < 0:
        raise CacheRequestError(f"memory_entries must be a whole number, 0 or more, not {memory_entries!r}")


def _absolute(cache_dir: str | os.PathLike[str]) -> str:
    try:
        return os.path.abspath(cache_dir)
    except OSError as error:
        message = f"{os.fspath(cache_dir)!r} is relative to the working directory, which is gone: name it from the root"
        raise CacheDirectoryMissing(message) from error


def _unpickle(kind: type[Client], directory: str, options: dict[str, Any]) -> Client:
    return kind(directory, **options)


_warned_of: set[str] = set()
"""Directories whose older daemon was named already: said once is enough."""

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    forget_all()
    for client in list(_clients):
        client._forget_after_fork()  # noqa: SLF001 - the hook is this module's


os.register_at_fork(after_in_child=_after_fork_in_child)
