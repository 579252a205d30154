"""A failed fsync: the batch is refused as unknown or found, nothing is synced again on that descriptor, and it goes on.

Linux reports a failed write-back once, and forgets the pages: who syncs again and believes the answer loses them
("fsyncgate", 2018; Rebello et al., "Can Applications Recover from fsync Failures?", 2020). The database is the one file
whose descriptor may be synced again: SQLite keeps it while its own readers hold it locked, and a checkpoint that is
repeated writes all pages anew, from a log that stays. That it does is counted here.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, Literal, NamedTuple, get_args

from motools.cache import SyncCache
from motools.cache.errors import CacheError, StorageFailed
from motoolsd.wire.keys import Kind, eval_key
from motoolsd.wire.messages import Failure, Found, Lookup, PutEvals, RequestKey, Stored
from tests.daemons import TIMEOUT_S, BlockingGuest, DaemonProcess, running
from tests.faults.attack import Attack, Report, scratch
from tests.faults.kills import check_database
from tests.faults.shim import Shim, open_shim, unavailable
from tests.faults.state import Ledger

WRITERS: Final = 4
WRITES: Final = 30
KEYS: Final = 5
FAILS_BEFORE: Final = 40
"""The sync that fails is one of so many; a round has some more."""
ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
CALL_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 0.1
"""After which the daemon makes a checkpoint."""
CHECKPOINT_WAIT_S: Final = 5.0
TASKS: Final = ("one", "other")
OTHER: Final = bytes(15) + b"\1"
Place = Literal["commit", "checkpoint's log", "checkpoint's database"]
LOG: Final = "cache.db-wal$"
DATABASE: Final = "cache.db$"


class Scene(NamedTuple):
    """One round."""

    directory: Path
    ledger: Ledger
    report: Report
    shim: Shim
    where: str

    def expect(self, is_so: bool, text: str) -> None:  # noqa: FBT001 - as `assert`
        """Violated if it is not so."""
        self.report.expect(is_so, f"{self.where}: {text}")


def attack(report: Report, rounds: range, bug: str | None = None) -> None:
    """Let one sync fail while writers write, or in the checkpoint after; then look, go on, kill, and look again."""
    with open_shim() as shim:
        for number in rounds:
            with scratch() as top:
                directory = top / ".motools"
                directory.mkdir()
                (directory / "config.toml").write_text(f"watch_interval_s = {IDLE_S}\n")
                place = get_args(Place)[number % len(get_args(Place))]
                _round(Scene(directory, Ledger(), report, shim, f"round {number}, {place}"), number, place, bug)
            report.rounds += 1


def _round(scene: Scene, number: int, place: Place, bug: str | None) -> None:
    shim = scene.shim
    shim.disarm()
    again, rewritten = shim.synced_again, shim.synced_rewritten
    with running(scene.directory, bug=bug, environment=shim.environment) as daemon:
        _write(scene, f"{number}.a")
        _fail_a_sync(scene, number, place)
        scene.report.count(f"failed syncs of a {place}", shim.fired)
        scene.report.count("batches of unknown outcome", daemon.log.count("outcome unknown"))
        shim.disarm()
        _look(scene, "")
        refused = _write(scene, f"{number}.c")
        scene.expect(refused == 0, f"{refused} writes were refused after it was over")
        scene.expect(daemon.process.poll() is None, "the daemon has ended")
        again, rewritten = shim.synced_again - again, shim.synced_rewritten - rewritten
        if place == "checkpoint's database":
            scene.report.count("checkpoints repeated, all pages written anew", rewritten)
            again -= rewritten
        scene.report.count("syncs of a descriptor that had failed", again)
        scene.expect(again == 0, f"a descriptor was synced {again} times after it had failed")
        daemon.kill()
    after = DaemonProcess(scene.directory)
    try:
        _look(scene, ", after a kill")
        after.stop()
    finally:
        if after.process.poll() is None:
            after.kill()
    check_database(scene.directory, scene.report)


def _fail_a_sync(scene: Scene, number: int, place: Place) -> None:
    random = Random(number)
    error = random.choice(ERRORS)
    if place == "commit":
        scene.shim.arm({"sync"}, error, k=random.randint(1, FAILS_BEFORE), path=LOG)
        _write(scene, f"{number}.b")
        return
    if place == "checkpoint's database":
        scene.shim.arm({"sync"}, error, path=DATABASE)
        _write(scene, f"{number}.b")
    else:
        # Whoever was answered has been synced: the next sync of the log is the checkpoint's.
        _write(scene, f"{number}.b")
        scene.shim.arm({"sync"}, error, path=LOG)
    calls = scene.shim.count
    ends_s = time.monotonic() + CHECKPOINT_WAIT_S
    # The one that failed, and the one that is made instead of it.
    while scene.shim.count < calls + 2 and time.monotonic() < ends_s:
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------- writers


def _write(scene: Scene, name: str) -> int:
    """Some writers, each with keys of its own, one of them with pairs; how many writes were refused."""
    refused: list[bool] = []
    calls: list[Callable[[], None]] = [partial(_write_rows, scene, name, one, refused) for one in range(WRITERS)]
    calls.append(partial(_write_pairs, scene, name, refused))
    works = [threading.Thread(target=_carry_out, args=(scene, call)) for call in calls]
    for thread in works:
        thread.start()
    for thread in works:
        thread.join(2 * TIMEOUT_S)
        scene.expect(not thread.is_alive(), "a write did not come back")
    scene.report.count("refused as unknown", refused.count(False))
    scene.report.count("refused", refused.count(True))
    return len(refused)


def _carry_out(scene: Scene, call: Callable[[], None]) -> None:
    """What a thread raises would be lost with it."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer to a write
        scene.report.violate(f"{scene.where}: a writer ended in {type(error).__name__}: {error}")


def _write_rows(scene: Scene, name: str, writer: int, refused: list[bool]) -> None:
    """By a client, which asks again by itself where the outcome is unknown."""
    with SyncCache(scene.directory, autostart=False, timeout_s=CALL_TIMEOUT_S, memory_entries=0) as cache:
        for step in range(WRITES):
            key, value = f"w{writer}-{step % KEYS}", f"{name}.{step}"
            scene.ledger.began(key, value)
            try:
                cache.set_file_id(key, value)
            except CacheError as error:
                is_known = getattr(error, "outcome_known", True)
                refused.append(is_known)
                scene.expect(isinstance(error, StorageFailed), f"a write ended in {type(error).__name__}: {error}")
                if is_known:
                    scene.ledger.refused(key, value, None)
            else:
                scene.ledger.acknowledged(key, value)
                _read_back(scene, cache, key, value)


def _read_back(scene: Scene, cache: SyncCache, key: str, value: str) -> None:
    """At once: a few writes later this key has another value, and what was lost would not be missed."""
    try:
        found = cache.get_file_id(key)
    except CacheError as error:
        scene.report.violate(f"{scene.where}: a lookup ended in {type(error).__name__}: {error}")
    else:
        scene.report.count("lost or wrong", found != value)
        scene.expect(found == value, f"{key} was stored as {value}, and is {found}")


def _write_pairs(scene: Scene, name: str, refused: list[bool]) -> None:
    """By hand, so that what the daemon says is seen; each second refused request is asked again, as the same."""
    guest = BlockingGuest(scene.directory)
    with guest.socket:
        for step in range(WRITES):
            number = 1 + step + 1_000 * "abc".index(name[-1])
            model_id, value = f"m{step % KEYS}", f"{name}.{step}"
            request = PutEvals(
                request_key=RequestKey(OTHER, number, number),
                model_id=model_id,
                backend_type="b",
                logs=dict.fromkeys(TASKS, value.encode()),
            )
            _began(scene, model_id, value)
            reply = guest.ask(request)
            if isinstance(reply, Failure):
                is_known = reply.detail.get("outcome_known") is not False
                refused.append(is_known)
                scene.expect(not is_known, f"a batch that may be on disk is refused as not stored: {reply.message}")
                if step % 2:
                    continue
                reply = guest.ask(request)
            scene.expect(isinstance(reply, Stored), f"a pair was answered with {reply}")
            for key in _pair(model_id):
                scene.ledger.acknowledged(key, value)


def _began(scene: Scene, model_id: str, value: str) -> None:
    for key in _pair(model_id):
        scene.ledger.began(key, value)


def _pair(model_id: str) -> list[str]:
    return [eval_key(model_id, task, "b", None) for task in TASKS]


def _look(scene: Scene, when: str) -> None:
    models = [f"m{number}" for number in range(KEYS)]
    pairs = [key for model_id in models for key in _pair(model_id)]
    rows = [key for key in scene.ledger.keys if key not in set(pairs)]
    guest = BlockingGuest(scene.directory)
    with guest.socket:
        found = _found(guest, Kind.DATASET, rows) | _found(guest, Kind.EVAL, pairs)
    for model_id in models:
        values = {found[key] for key in _pair(model_id)}
        scene.expect(len(values) == 1, f"a write is half there{when}: {model_id} has {values}")
    scene.ledger.judge(found.items(), scene.report, scene.where + when)
    scene.report.count("keys compared", len(found))
    scene.report.count("lost or wrong", 0)


def _found(guest: BlockingGuest, kind: Kind, keys: list[str]) -> dict[str, str | None]:
    reply = guest.ask(Lookup(kind=kind, keys=keys))
    assert isinstance(reply, Found), reply
    values = [None if value is None else value.decode() for value in reply.values]
    return dict(zip(keys, values, strict=True))


ATTACK = Attack(
    name="failed-fsync",
    promise="a failed fsync",
    says="a sync fails once with EIO, ENOSPC or EDQUOT: of a commit under five writers, of the log or database in a"
    " checkpoint",
    wanted="200 rounds: the batch is refused as unknown or stored, whole or not at all, 0 lost; no descriptor is synced"
    " again (the database's only after all pages were written anew)",
    rounds=200,
    chunk=10,
    run=attack,
    unavailable=unavailable,
)
