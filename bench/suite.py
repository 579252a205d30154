"""What a run consists of: the stores it serves, the steps of each round, and who was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bench.cells import Cell, Sample, Step
from bench.measure import measure
from bench.peers import PEERS, Peer, Store
from bench.peers.motools import FULL, Daemon
from bench.proof import prove_right
from bench.scale import Scale
from bench.scenarios import commands, handover, million, sizes, stampede
from bench.workloads import BY_NAME, WORKLOADS, Workload

SCENARIOS: Final = {
    stampede.NAME: stampede.SAYS,
    handover.NAME: handover.SAYS,
    million.NAME: million.SAYS,
    commands.NAME: commands.SAYS,
    sizes.NAME: sizes.SAYS,
}
NAMES: Final = {**{workload.name: workload.says for workload in WORKLOADS}, **SCENARIOS}
"""Every workload and what it is, in the order in which they are run."""


@dataclass
class Suite:
    """A run in the making.

    Attributes:
        steps: of each round.
        skipped: peers that cannot be measured here, and why.
        unable: by workload, peers that cannot do it.
    """

    scale: Scale
    stack: ExitStack
    say: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unable: dict[str, list[str]] = field(default_factory=dict)
    _served: set[int] = field(default_factory=set)
    _batches: dict[str, bool] = field(default_factory=dict)
    """Of every peer that was proved right, whether it takes many questions at once."""

    def prepare(self, names: Iterable[str]) -> None:
        """Serve what the workloads need, and prove it right.

        Raises:
            WrongAnswer: a peer is not right.
            RuntimeError: a peer's server does not start.
        """
        commands.compile_sources()
        wanted = set(names)
        for name in NAMES:
            if name not in wanted:
                continue
            if name in BY_NAME:
                self._add_workload(BY_NAME[name])
            else:
                self._add_scenario(name)

    def _add_workload(self, workload: Workload) -> None:
        peers = [PEERS[name] for name in workload.peers if self._is_ready(PEERS[name])]
        if workload.batch > 1:
            self.unable[workload.name] = [peer.name for peer in peers if not self._batches[peer.name]]
            peers = [peer for peer in peers if self._batches[peer.name]]
        for processes in dict.fromkeys(min(count, self.scale.processes_max) for count in workload.processes):
            for peer in peers:
                label = f"{workload.name}, {processes} processes, {peer.name}"
                self.steps.append(Step(label, partial(self._measure, peer, workload, processes)))

    def _measure(self, peer: Peer, workload: Workload, processes: int, number: int) -> dict[Cell, Sample]:
        sample = measure(
            peer,
            workload,
            processes=processes,
            seconds=self.scale.slice_s,
            entries=self.scale.entries,
            number=number,
        )
        return {Cell(workload.name, processes, peer.name): sample}

    def _add_scenario(self, name: str) -> None:
        scale = self.scale
        if name == stampede.NAME:
            for peer in stampede.peers_of():
                if self._is_ready(peer):
                    run = partial(_ignoring, partial(stampede.measure_stampede, peer, scale))
                    self.steps.append(Step(f"{name}, {peer.name}", run))
        elif name == handover.NAME:
            self._serve(FULL, scale.entries, "motoolsd")
            self.steps.append(Step(name, partial(_ignoring, partial(handover.measure_hand_over, scale))))
        elif name == million.NAME:
            many = million.ColdAmongMany(scale.many_entries)
            self._serve(FULL, scale.entries, "motoolsd")
            self._serve(many.store, scale.many_entries, f"motoolsd, {scale.many_entries:,} entries")
            self.steps.append(Step(name, partial(million.measure_million, many, scale)))
        elif name == commands.NAME:
            daemon = Daemon()
            self._serve(daemon, 1, "motoolsd, for commands")
            self.steps.append(Step(name, partial(_ignoring, partial(commands.measure_commands, daemon, scale))))
        else:
            assert name == sizes.NAME, "that is all there are"
            files = sizes.scaled(scale)
            self._serve(files, 1, f"motoolsd, {scale.files:,} files")
            self.steps.append(Step(name, partial(_ignoring, partial(sizes.measure_sizes, files))))

    def _is_ready(self, peer: Peer) -> bool:
        """Whether a peer is served and right; or else it is skipped."""
        if peer.name in self.skipped:
            return False
        reason = peer.store.available() or peer.available()
        if reason is not None:
            self.skipped[peer.name] = reason
            self.say(f"skipped {peer.name}: {reason}")
            return False
        self._serve(peer.store, self.scale.entries, peer.name)
        if peer.name not in self._batches:
            self._batches[peer.name] = prove_right(peer)
        return True

    def _serve(self, store: Store, entries: int, name: str) -> None:
        if id(store) in self._served:
            return
        self.say(f"preparing {name}")
        try:
            self.stack.enter_context(store.serve(entries))
        except Exception as error:
            raise RuntimeError(f"{name} cannot be served: {error}") from error
        self._served.add(id(store))


def _ignoring(run: Callable[[], dict[Cell, Sample]], _number: int) -> dict[Cell, Sample]:
    """A step that is the same in each round."""
    return run()
