"""What is required of motoolsd, as ratios within one run, and whether it is met.

A ratio is the median of the ratios of each round: what slows the machine for a while slows both sides of one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from bench.cells import Cell, Results
from bench.scale import FULL
from bench.scenarios import million, sizes
from bench.workloads import MANY, SOME

WARM, COLD, ASYNC_WARM, ASYNC_COLD = "motoolsd, warm", "motoolsd, cold", "motoolsd async, warm", "motoolsd async, cold"
BARE, LABELLED = "motoolsd, bare", "motoolsd, labelled"
OLDER, REDIS, REDIS_ASYNC = "older way", "redis", "redis.asyncio"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One line of the table."""

    name: str
    ours: Cell
    theirs: tuple[Cell, ...] = ()
    """What it is divided by: the best of them in each round; nothing, where a figure stands for itself."""
    at_least: float | None = None
    at_most: float | None = None
    """Neither: for information."""
    unit: str = "x"


class Verdict(NamedTuple):
    """What a run says to one requirement."""

    name: str
    required: str
    measured: float | None
    """The median of the rounds; None if it was not measured."""
    low: float | None
    high: float | None
    """The quartiles."""
    unit: str
    verdict: str
    """`pass`, `below`, `above`, `not measured`, or empty where nothing is required."""


def _ratio(
    name: str, workload: str, ours: str, *theirs: str, processes: int = SOME, least: float | None
) -> Requirement:
    return Requirement(
        name=name,
        ours=Cell(workload, processes, ours),
        theirs=tuple(Cell(workload, processes, peer) for peer in theirs),
        at_least=least,
    )


def _warm() -> list[Requirement]:
    what = "warm hit, 8 processes"
    return [
        _ratio(f"{what} / redis-py + hiredis", "hits", WARM, REDIS, least=100),
        _ratio(f"{what} / LMDB in process", "hits", WARM, "lmdb", least=2),
        _ratio(f"{what}, labels and version / without", "hits", LABELLED, WARM, least=0.9),
        _ratio(f"{what} / diskcache", "hits", WARM, "diskcache", least=20),
        _ratio(f"{what}, `await` / redis.asyncio", "hits", ASYNC_WARM, REDIS_ASYNC, least=40),
    ]


def _cold() -> list[Requirement]:
    lines = []
    for workload, word in (("hits", "hit"), ("misses", "miss")):
        for processes, least in ((SOME, 1.8), (MANY, 2.2)):
            name = f"cold {word}, {processes} processes / redis-py + hiredis"
            lines.append(_ratio(name, workload, COLD, REDIS, processes=processes, least=least))
        lines.append(_ratio(f"cold {word}, 8 processes / older way", workload, COLD, OLDER, least=4))
        lines.append(_ratio(f"cold {word}, 8 processes / older way, WAL", workload, COLD, f"{OLDER}, WAL", least=None))
    return lines


def _writes() -> list[Requirement]:
    lines = []
    for processes, redis, older in ((SOME, 0.6, 7), (MANY, 0.9, 12)):
        what = f"durable writes, {processes} processes"
        for peer, least in (("redis, AOF always", redis), (OLDER, older), (f"{OLDER}, WAL", None)):
            lines.append(_ratio(f"{what} / {peer}", "writes", COLD, peer, processes=processes, least=least))
        recording = f"{what}, recording who / not"
        lines.append(_ratio(recording, "writes", COLD, BARE, processes=processes, least=0.9))
        lines.append(_ratio(f"{recording}, labels", "writes", LABELLED, BARE, processes=processes, least=None))
    return lines


def _others() -> list[Requirement]:
    name, tasks = million.NAME, "64 tasks, one client"
    redis = (REDIS_ASYNC, f"{REDIS_ASYNC}, one connection")
    return [
        Requirement(
            name="batch of 100, a key / one round trip a key",
            ours=Cell("batch", 1, COLD),
            theirs=(Cell("hits", 1, COLD),),
            at_least=15,
        ),
        _ratio(f"{tasks} / redis.asyncio, the faster way", "tasks", ASYNC_WARM, *redis, processes=1, least=10),
        _ratio(f"{tasks}, cold / the same", "tasks", ASYNC_COLD, *redis, processes=1, least=None),
        Requirement(
            name="lookups, 1,000,000 entries / 10,000",
            ours=Cell(name, SOME, million.among(million.LOOKUPS, FULL.many_entries)),
            theirs=(Cell(name, SOME, million.among(million.LOOKUPS, FULL.entries)),),
            at_least=0.8,
        ),
        Requirement(
            name="daemon's memory, 1,000,000 entries",
            ours=Cell(name, 1, million.among(million.MEMORY, FULL.many_entries)),
            at_most=450,
            unit="MiB",
        ),
        Requirement(
            name="start to first answer, 1,000,000 entries",
            ours=Cell(name, 1, million.among(million.STARTUP, FULL.many_entries)),
            at_most=1,
            unit="s",
        ),
        *_sizes(),
    ]


def _sizes() -> list[Requirement]:
    du = Cell(sizes.NAME, 1, sizes.of_files(sizes.DU, FULL.files))
    return [
        Requirement(
            name=f"{what}, {FULL.files:,} files / du -s",
            ours=Cell(sizes.NAME, 1, sizes.of_files(what, FULL.files)),
            theirs=(du,),
            at_least=least,
        )
        for what, least in ((sizes.WALK, 0.5), (sizes.RESCAN, None))
    ]


REQUIREMENTS: Final = (*_warm(), *_cold(), *_writes(), *_others())


def judge(results: Results, requirements: Sequence[Requirement] = REQUIREMENTS) -> list[Verdict]:
    """What a run says to each requirement."""
    return [_judge(results, requirement) for requirement in requirements]


def _judge(results: Results, requirement: Requirement) -> Verdict:
    required = _required(requirement)
    values = _values(results, requirement)
    if not values:
        return Verdict(requirement.name, required, None, None, None, requirement.unit, "not measured")
    low, measured, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    verdict = "pass" if required else ""
    if requirement.at_least is not None and measured < requirement.at_least:
        verdict = "below"
    if requirement.at_most is not None and measured > requirement.at_most:
        verdict = "above"
    return Verdict(requirement.name, required, measured, low, high, requirement.unit, verdict)


def _required(requirement: Requirement) -> str:
    if requirement.at_least is not None:
        return f">= {requirement.at_least:g} {requirement.unit}"
    return "" if requirement.at_most is None else f"<= {requirement.at_most:g} {requirement.unit}"


def _values(results: Results, requirement: Requirement) -> list[float]:
    ours = results.get(requirement.ours)
    if ours is None:
        return []
    if not requirement.theirs:
        return [sample.value for sample in ours]
    theirs = [results[cell] for cell in requirement.theirs if cell in results]
    if not theirs:
        return []
    best = [max(sample.value for sample in samples) for samples in zip(*theirs, strict=True)]
    return [sample.value / other for sample, other in zip(ours, best, strict=True)]
