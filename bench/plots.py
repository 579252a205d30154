"""Pictures of a run, as SVG."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.cells import QUANTILES, Cell, Results
from bench.peers.protocol import missing_modules
from bench.peers.servers import temporary_directory
from bench.report import summarize
from bench.workloads import SOME

SIZE_INCHES: Final = (10.0, 5.0)
COLOURS: Final = "tab20"


def available() -> str | None:
    """Why nothing can be drawn; None if it can."""
    return missing_modules("matplotlib")


def draw_all(results: Results, directory: Path) -> list[str]:
    """Draw what was measured; the names of the files, in `directory`."""
    with temporary_directory() as scratch:
        # Where matplotlib keeps its list of fonts; or else it makes a folder in the user's home.
        os.environ.setdefault("MPLCONFIGDIR", str(scratch))
        return _draw_all(results, directory)


def _draw_all(results: Results, directory: Path) -> list[str]:
    import matplotlib as mpl

    # No display is needed; ids that are the same in every run keep differences between two runs to what differs.
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "motoolsd"
    pictures: dict[str, Callable[[Results, Any, Any], bool]] = {
        "bench-throughput.svg": draw_throughput,
        "bench-latency.svg": draw_latency,
        "bench-writes.svg": draw_writes,
    }
    return [name for name, draw in pictures.items() if _draw(draw, results, directory / name)]


def _draw(draw: Callable[[Results, Any, Any], bool], results: Results, path: Path) -> bool:
    from matplotlib import pyplot as plt

    picture, axes = plt.subplots(1, 2, figsize=SIZE_INCHES, layout="constrained")
    try:
        is_drawn = draw(results, picture, axes)
        if is_drawn:
            picture.savefig(path, metadata={"Date": None})
    finally:
        plt.close(picture)
    return is_drawn


def draw_throughput(results: Results, picture: Any, axes: Any) -> bool:  # noqa: ANN401 - matplotlib's
    """Lookups a second against processes."""
    workloads = ("hits", "misses")
    for plot, workload in zip(axes, workloads, strict=True):
        if _is_empty(plot, results, workload):
            continue
        for place, peer in enumerate(_peers_of(results, *workloads)):
            cells = sorted(cell for cell in results if (cell.workload, cell.peer) == (workload, peer))
            rates = [summarize(results[cell]).median for cell in cells]
            plot.plot([cell.processes for cell in cells], rates, marker="o", label=peer, color=_colour(place))
        plot.set(title=workload, xlabel="processes", ylabel="lookups/s", xscale="log", yscale="log")
        counts = sorted({cell.processes for cell in results if cell.workload in workloads})
        plot.set_xticks(counts, labels=[str(count) for count in counts], minor=False)
        plot.minorticks_off()
    return _finish(picture, axes)


def draw_latency(results: Results, picture: Any, axes: Any) -> bool:  # noqa: ANN401 - matplotlib's
    """How many of the lookups took no longer."""
    workloads = ("hits", "misses")
    processes = _middle(results, *workloads)
    for plot, workload in zip(axes, workloads, strict=True):
        if _is_empty(plot, results, workload):
            continue
        for place, peer in enumerate(_peers_of(results, *workloads)):
            samples = results.get(Cell(workload, processes, peer))
            if samples:
                shares = [share * 100 for share in QUANTILES]
                plot.plot(summarize(samples).latencies_us, shares, label=peer, color=_colour(place))
        plot.set(title=f"{workload}, {processes} processes", xlabel="latency, us", ylabel="% of lookups", xscale="log")
    return _finish(picture, axes)


def draw_writes(results: Results, _picture: Any, axes: Any) -> bool:  # noqa: ANN401 - matplotlib's
    """Writes a second, with the quartiles of the rounds."""
    counts = sorted({cell.processes for cell in results if cell.workload == "writes"})
    for plot, processes in zip(axes, counts, strict=False):
        cells = [cell for cell in results if (cell.workload, cell.processes) == ("writes", processes)]
        summaries = sorted(((summarize(results[cell]), cell.peer) for cell in cells), key=lambda pair: pair[0].median)
        spread = [
            [summary.median - summary.low for summary, _ in summaries],
            [summary.high - summary.median for summary, _ in summaries],
        ]
        plot.barh([peer for _, peer in summaries], [summary.median for summary, _ in summaries], xerr=spread)
        plot.set(title=f"writes, {processes} processes", xlabel="writes/s")
    return bool(counts)


def _is_empty(plot: Any, results: Results, workload: str) -> bool:  # noqa: ANN401 - matplotlib's
    """Take a plot out that nothing was measured for: a logarithmic scale without a value cannot be drawn."""
    is_empty = not any(cell.workload == workload for cell in results)
    plot.set_visible(not is_empty)
    return is_empty


def _finish(picture: Any, axes: Any) -> bool:  # noqa: ANN401 - matplotlib's
    handles, labels = next((plot.get_legend_handles_labels() for plot in axes if plot.get_visible()), ([], []))
    if not handles:
        return False
    picture.legend(handles, labels, loc="outside right center", fontsize="small")
    return True


def _peers_of(results: Results, *workloads: str) -> list[str]:
    """In the order in which they were measured; the same in all pictures beside each other."""
    return list(dict.fromkeys(cell.peer for cell in results if cell.workload in workloads))


def _middle(results: Results, *workloads: str) -> int:
    """The number of processes that latencies are shown for."""
    counts = {cell.processes for cell in results if cell.workload in workloads}
    return SOME if SOME in counts else max(counts, default=0)


def _colour(place: int) -> Any:  # noqa: ANN401 - matplotlib's
    import matplotlib as mpl

    return mpl.colormaps[COLOURS](place)
