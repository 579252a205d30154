"""What the kernel knows of processes."""

from __future__ import annotations

import os
import subprocess
import sys

from motoolsd.adapters.processes import boot_id, host_name, reset_inherited_state, start_time


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
