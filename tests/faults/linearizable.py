"""What processes with warm caches see has an order, over `kill -9` and SIGSTOP; a lease is held by one at a time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import msgspec

from motools.cache import SyncCache
from motools.cache.errors import CacheError
from tests.daemons import TIMEOUT_S, DaemonProcess
from tests.e2e.daemons import end_daemon
from tests.e2e.histories import by_key, carry_out, plans
from tests.faults.attack import Attack, Report, scratch
from tests.linearizability import Operation, UndecidedError, find_violation

OPERATIONS: Final = 10_100
KILLS: Final = 5
PAUSES: Final = 5
CLAIMERS: Final = 4
GENERATIONS: Final = 150
"""Keys that each of them claims, one after the other."""
GIVES_UP: Final = 0.2
"""Of those that got a lease: they leave without a value, and the next one gets it."""
CALL_TIMEOUT_S: Final = 60.0
POOL_TIMEOUT_S: Final = 200.0

spawn = multiprocessing.get_context("spawn")


class Turn(msgspec.Struct, frozen=True):
    """What one claim came to."""

    key: str
    began_ns: int
    """When the lease was granted, or the value given."""
    ended_ns: int
    """When it was about to be given back."""
    is_owner: bool
    value: str | None
    """What was stored, or was given; None: it was left without one."""
    token: int = 0
    """The lease's fencing token; 0 of who had none."""
    failure: str = ""


class Claims(NamedTuple):
    """What one claiming process does; importable by spawn."""

    directory: str
    seed: int
    generations: int


def run_claims(claims: Claims) -> list[Turn]:
    """Claim key after key, as the others do; sometimes give up."""
    random, turns = Random(claims.seed), list[Turn]()
    with SyncCache(claims.directory, timeout_s=CALL_TIMEOUT_S, autostart=True) as cache:
        for generation in range(claims.generations):
            key = f"lease {generation}"
            try:
                with cache.claim_dataset(key, timeout_s=CALL_TIMEOUT_S) as claim:
                    began_ns = time.monotonic_ns()
                    if not claim.is_owner:
                        turns.append(Turn(key, began_ns, began_ns, is_owner=False, value=claim.value))
                        continue
                    token = claim._token  # noqa: SLF001 - the client shows it to nobody
                    time.sleep(random.uniform(0, 0.01))
                    value = None if random.random() < GIVES_UP else f"{claims.seed}.{generation}"
                    turns.append(Turn(key, began_ns, time.monotonic_ns(), is_owner=True, value=value, token=token))
                    if value is not None:
                        claim.fulfil(value)
            except CacheError as error:
                failure = f"{type(error).__name__}: {error}"
                turns.append(Turn(key, 0, 0, is_owner=False, value=None, failure=failure))
    return turns


def judge_turns(turns: Sequence[Turn], report: Report, where: str) -> None:
    """One holds a key at a time, each by a larger token, one stores it, and everybody who did not is given that."""
    by: dict[str, list[Turn]] = {}
    for turn in turns:
        report.expect(not turn.failure, f"{where}: a claim of {turn.key} ended in {turn.failure}")
        by.setdefault(turn.key, []).append(turn)
    for key, all_turns in by.items():
        held = sorted((turn for turn in all_turns if turn.is_owner), key=lambda turn: turn.began_ns)
        for one, other in pairwise(held):
            report.expect(one.ended_ns <= other.began_ns, f"{where}: two held {key} at once: {one} and {other}")
            report.expect(one.token < other.token, f"{where}: the tokens of {key} do not rise: {one} and {other}")
        stored = [turn for turn in held if turn.value is not None]
        report.expect(len(stored) <= 1, f"{where}: {key} was computed {len(stored)} times")
        given = {turn.value for turn in all_turns if not turn.is_owner and not turn.failure}
        wanted = {turn.value for turn in stored}
        report.expect(given <= wanted, f"{where}: {key} was given as {given}, and stored as {wanted}")
        given_at = [turn.began_ns for turn in all_turns if not turn.is_owner and not turn.failure]
        early = [began_ns for began_ns in given_at if stored and began_ns < stored[0].ended_ns]
        report.expect(not early, f"{where}: {key} was given before it was stored")
    report.count("claims", len(turns))


def attack(
    report: Report, rounds: range, bug: str | None = None, operations: int = OPERATIONS, kills: int = KILLS
) -> None:
    """Registers and leases at the same time, in one directory, while the daemon is killed and stopped."""
    for number in rounds:
        where = f"round {number}"
        with scratch() as top:
            directory = top / ".motools"
            directory.mkdir()
            planted = None if bug is None else DaemonProcess(directory, bug=bug)
            try:
                _round(report, where, directory, number, operations, kills if bug is None else 0)
            finally:
                if planted is None:
                    end_daemon(directory)
                else:
                    planted.kill()
        report.rounds += 1


def _round(report: Report, where: str, directory: Path, number: int, operations: int, kills: int) -> None:
    made = plans(directory, operations=operations)
    made = [msgspec.structs.replace(plan, seed=plan.seed + 100 * number) for plan in made]
    made[0] = msgspec.structs.replace(made[0], kills=kills)
    made[1] = msgspec.structs.replace(made[1], pauses=PAUSES if kills else 0)
    claims = [Claims(str(directory), 10 * number + one, GENERATIONS) for one in range(CLAIMERS)]
    with ThreadPoolExecutor(1) as beside:
        claimed = beside.submit(_claim, claims)
        records = carry_out(made)
        # What it raises is raised here: a round without its claims has shown nothing.
        turns = claimed.result(POOL_TIMEOUT_S + TIMEOUT_S)
    report.count("kills", sum(record.kills for record in records))
    report.count("pauses", sum(record.pauses for record in records))
    judge_histories(by_key(records), report, where)
    judge_turns(turns, report, where)
    report.expect(len(turns) == CLAIMERS * GENERATIONS, f"{where}: there are {len(turns)} claims")


def _claim(claims: Sequence[Claims]) -> list[Turn]:
    with spawn.Pool(len(claims)) as pool:
        found = pool.map_async(run_claims, claims, chunksize=1).get(POOL_TIMEOUT_S)
    return [turn for turns in found for turn in turns]


def judge_histories(histories: Mapping[str, Sequence[Operation]], report: Report, where: str) -> None:
    """Each key's by itself: one that leaves too much open keeps no other from being judged, and counts for nothing."""
    for key, history in histories.items():
        try:
            violation = find_violation({key: history})
        except UndecidedError:
            report.count("histories that could not be judged")
            continue
        report.count("operations", len(history))
        report.expect(violation is None, f"{where}: {violation}")
    report.count("histories that could not be judged", 0)


ATTACK = Attack(
    name="linearizable",
    promise="linearizable",
    says="gets, sets, clears and claims of twelve processes with warm caches, over `kill -9` and SIGSTOP of the daemon",
    wanted="100,000 operations judged, 50 kills, 50 pauses, 0 violations; one holder a lease, rising tokens",
    rounds=10,
    chunk=1,
    run=attack,
)
