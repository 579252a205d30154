"""What the kernel knows of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
import pytest

from motoolsd.adapters import processes as processes_module
from motoolsd.adapters.processes import SystemProcesses, boot_id, host_name, reset_inherited_state, start_time
from motoolsd.core.leases import Process


def test_a_process_is_its_pid_and_start_time() -> None:
    """The start time stays as long as the process, and differs from that of one started before the test."""
    own = start_time(os.getpid())
    assert own is not None
    assert own == start_time(os.getpid())
    assert own > (start_time(1) or 0)


def test_no_process_has_no_start_time() -> None:
    """A pid that nobody has gives None, not an error."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert start_time(child.pid) is None


def test_command_with_parentheses_and_spaces_does_not_confuse() -> None:
    """The command stands in the middle of the line and may hold anything."""
    script = "import sys; open('/proc/self/comm', 'w').write(') R 1 (2'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert (start_time(child.pid) or 0) >= (start_time(os.getpid()) or 0)


def test_machine_is_named() -> None:
    """The boot id changes with each boot, the host has a name."""
    assert boot_id() == boot_id() != ""
    assert host_name() != ""


def test_what_a_job_set_for_itself_is_undone() -> None:
    """Mask and affinity of the starter are not the daemon's."""
    script = (
        "import os; from motoolsd.adapters.processes import reset_inherited_state as reset\n"
        "everything = os.sched_getaffinity(0); os.umask(0); os.sched_setaffinity(0, {min(everything)})\n"
        "reset(); print(os.umask(0), os.sched_getaffinity(0) == everything)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(0o077), "True"]
    assert callable(reset_inherited_state)


@pytest.fixture
async def processes() -> AsyncIterator[SystemProcesses]:
    """Those of this machine; nothing is watched when the test ends."""
    watching = SystemProcesses()
    yield watching
    watching.close()


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        try:
            yield child
        finally:
            child.kill()


async def test_end_of_a_watched_process_is_told_once(processes: SystemProcesses) -> None:
    """A zombie has ended: nobody has asked for its exit status yet."""
    told: list[Process] = []
    ended = anyio.Event()

    def on_end(process: Process) -> None:
        told.append(process)
        ended.set()

    with sleeper() as child, anyio.fail_after(5):
        process = processes.identify(child.pid)
        assert process is not None
        assert processes.is_alive(process)
        processes.watch(process, on_end)
        processes.watch(process, on_end)
        os.kill(child.pid, signal.SIGKILL)
        await ended.wait()
        assert not processes.is_alive(process)
    assert told == [process]


async def test_process_that_has_ended_already_is_told_soon(processes: SystemProcesses) -> None:
    """Before it could be watched."""
    with sleeper() as child:
        process = processes.identify(child.pid)
        assert process is not None
    ended = anyio.Event()
    with anyio.fail_after(5):
        processes.watch(process, lambda _: ended.set())
        assert not ended.is_set()
        await ended.wait()
    assert processes.identify(child.pid) is None


async def test_recycled_pid_is_another_process(processes: SystemProcesses) -> None:
    """The start time differs: whoever has the pid now has not claimed anything."""
    own = processes.identify(os.getpid())
    assert own is not None
    earlier = Process(own.pid, own.start_time - 1, own.boot_id)
    assert not processes.is_alive(earlier)
    assert not processes.is_alive(Process(own.pid, own.start_time, "another boot"))
    ended = anyio.Event()
    with anyio.fail_after(5):
        processes.watch(earlier, lambda _: ended.set())
        await ended.wait()


async def test_process_is_looked_at_where_there_is_no_pidfd(
    processes: SystemProcesses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An old kernel, or no descriptor left: later, but told."""

    def refuse(_pid: int) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    monkeypatch.setattr(processes_module, "POLL_INTERVAL_S", 0.01)
    ended = anyio.Event()
    with sleeper() as child, anyio.fail_after(5):
        process = processes.identify(child.pid)
        assert process is not None
        processes.watch(process, lambda _: ended.set())
        os.kill(child.pid, signal.SIGKILL)
        await ended.wait()
    assert "looked at every" in caplog.text


async def test_unwatched_process_is_not_told(processes: SystemProcesses) -> None:
    """And its descriptor is closed."""
    with sleeper() as child:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not read
        process = processes.identify(child.pid)
        assert process is not None
        processes.watch(process, lambda _: pytest.fail("it was told"))
        assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208
        processes.unwatch(process)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        os.kill(child.pid, signal.SIGKILL)
    await anyio.wait_all_tasks_blocked()


async def test_process_of_another_namespace_counts_as_alive(processes: SystemProcesses) -> None:
    """What cannot be seen cannot be missed."""
    process = processes.identify(0)
    assert process is not None
    assert not process.is_visible
    assert processes.is_alive(process)
    processes.watch(process, lambda _: pytest.fail("it was told"))


def test_command_line_is_read() -> None:
    """As it was started; nothing for a process that is gone."""
    with sleeper() as child:
        assert SystemProcesses().command(child.pid).endswith("-c import time; time.sleep(60)")
    assert SystemProcesses().command(child.pid) == ""
