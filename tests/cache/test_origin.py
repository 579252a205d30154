"""Who stores is gathered once, lazily, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from motools.cache import origin as tested
from motools.cache.origin import current_origin, shortened_command
from motools.cache.scheduler import current_job, shortened
from motoolsd.wire.origins import ARGUMENTS_MAX, COMMAND_SIZE_MAX_BYTES, Origin
from motoolsd.wire.version import __version__

SCHEDULER_VARIABLES = (
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "PBS_JOBID", "LSB_JOBID"),
    *("LSB_JOBINDEX", "JOB_ID", "SGE_TASK_ID", "KUBERNETES_SERVICE_HOST", "RAY_JOB_ID", "FLUX_JOB_ID"),
    "MOTOOLS_JOB_ID",
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing remembered, no scheduler around."""
    for name in SCHEDULER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    tested.origin_of.cache_clear()
    yield
    tested.origin_of.cache_clear()


def decoded(origin: Origin) -> Origin:
    """As a daemon would take it, which checks the limits."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(origin), type=Origin)


def run(script: str, *arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> Origin:
    """The origin that a fresh process prints."""
    command = [sys.executable, "-c", script, *arguments]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | path | (environment or {}), capture_output=True, timeout=60, check=True
    )
    return msgspec.json.decode(done.stdout, type=Origin)


PRINT = "import msgspec; from motools.cache.origin import current_origin;"
PRINT += " print(msgspec.json.encode(current_origin()).decode())"


def test_origin_tells_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User, machine, process, directory and package, within the wire's limits."""
    monkeypatch.chdir(tmp_path)
    origin = current_origin()
    assert (origin.uid, origin.pid, origin.host) == (os.getuid(), os.getpid(), os.uname().nodename)
    assert (origin.cwd, origin.package) == (str(tmp_path), __version__)
    assert origin.user
    assert origin.command
    assert (origin.scheduler, origin.job_id) == ("", "")
    assert decoded(origin) == origin


def test_start_is_this_process_s() -> None:
    """After the machine's, and not after now; RFC 3339 in UTC."""
    started_at = current_origin().started_at
    assert started_at.endswith("Z")
    started = datetime.fromisoformat(started_at)
    # The time of boot that the kernel tells is cut to the second.
    assert started.timestamp() <= datetime.now(UTC).timestamp() + 2
    assert datetime.now(UTC).timestamp() - started.timestamp() < 24 * 3600


def test_it_is_gathered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each working directory: what a write costs is a look at where it is."""
    monkeypatch.chdir(tmp_path)
    first = current_origin()
    assert current_origin() is first
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert current_origin().cwd == str(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert current_origin() is first


def test_forked_child_is_a_process_of_its_own() -> None:
    """It inherits what its parent remembered, and does not take it for itself."""
    parent = current_origin()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, str(current_origin().pid).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told == str(child)
    assert current_origin() is parent


@pytest.mark.slow
def test_import_is_light() -> None:
    """Neither a program runner nor an event loop nor SQLite is loaded before the first write, nor anything gathered."""
    script = (
        "import motools.cache, motools.cache.origin, motools.cache.labels, sys;"
        " heavy = {'subprocess', 'anyio', 'asyncio', 'sqlite3', 'pwd', 'shutil'};"
        " print(sorted(heavy.intersection(sys.modules)),"
        " motools.cache.origin.origin_of.cache_info().currsize)"
    )
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env=os.environ | path, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.strip() == b"[] 0"


@pytest.mark.slow
def test_command_is_as_it_was_given_without_its_credentials(tmp_path: Path) -> None:
    """And nothing of the environment comes along."""
    arguments = ("--api-key", "hunter2xyz", "--lr", "1e-4", "\udcff")
    origin = run(PRINT, *arguments, cwd=tmp_path, environment={"MY_SETTING": "from-the-environment"})
    assert origin.command == (sys.executable, "-c", PRINT, "--api-key", "***", "--lr", "1e-4", "\\udcff")
    packed = msgspec.json.encode(origin)
    assert b"hunter2xyz" not in packed
    assert b"from-the-environment" not in packed


@pytest.mark.slow
def test_directory_that_is_gone_is_left_out(tmp_path: Path) -> None:
    """A job whose scratch directory was removed stores all the same."""
    (tmp_path / "gone").mkdir()
    origin = run(f"import os; os.chdir('gone'); os.rmdir('../gone'); {PRINT}", cwd=tmp_path)
    assert (origin.cwd, origin.git_commit, origin.git_dirty) == ("", "", None)
    assert origin.pid


def test_directory_s_name_that_is_no_text_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any byte may stand in a path."""
    directory = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(directory)  # noqa: PTH102 - the name is bytes
    monkeypatch.chdir(os.fsdecode(directory))
    assert current_origin().cwd == f"{tmp_path}/\\udcff"
    assert decoded(current_origin()) == current_origin()


def test_commit_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read without git; what only git can tell is left out where there is none."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ab" * 20)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("PATH", str(tmp_path))
    origin = current_origin()
    assert (origin.git_commit, origin.git_branch, origin.git_dirty) == ("ab" * 20, "", None)


def test_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run with any."""
    monkeypatch.setattr(os, "getuid", lambda: 2**32 - 2)
    origin = current_origin()
    assert (origin.user, origin.uid) == ("", 2**32 - 2)


def test_worker_of_multiprocessing_tells_what_its_parent_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own command line says how it was started, which is nobody's question."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "from multiprocessing.spawn ...", "--multiprocessing-fork"])
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", "hunter2xyz"])
    assert current_origin().command == ("train.py", "--token", "***")


def test_python_without_a_command_line_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedded in another program."""
    monkeypatch.setattr(sys, "orig_argv", [])
    monkeypatch.delattr(sys, "argv")
    assert current_origin().command == ()


def test_enormous_command_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell's star may stand for 100,000 files; a credential among the first is masked all the same."""
    monkeypatch.setattr(sys, "orig_argv", ["x.py", "--token", "hunter2xyz", "s" * 10**6, *["ä" * 100] * 10**5])
    command = current_origin().command
    assert command[:3] == ("x.py", "--token", "***")
    assert command[-1] == "…"
    assert decoded(current_origin()).command == command


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x"] * ARGUMENTS_MAX,
        ["x"] * (ARGUMENTS_MAX + 1),
        ["ä" * 1500] * 10,
        ["\udcff" * 5000],
        ["\ud800"],
        ["x" * 2000] * 4 + ["y" * 188],
        ["x" * 2000] * 4 + ["y" * 190],
        [""] * 1000,
    ],
)
def test_shortened_command_is_within_the_limits(arguments: list[str]) -> None:
    """As long as may be, and marked where it was longer."""
    command = shortened_command(arguments)
    assert decoded(Origin(command=command)).command == command
    fits = len(arguments) <= ARGUMENTS_MAX and all(len(one) <= tested.ARGUMENT_SIZE_MAX for one in arguments)
    size_bytes = sum(len(one.encode("utf-8", "backslashreplace")) for one in arguments)
    if fits and size_bytes <= COMMAND_SIZE_MAX_BYTES - 3:
        assert len(command) == len(arguments)
        assert "…" not in command
    else:
        assert command[-1].endswith("…")


def test_shortened_text_is_marked() -> None:
    """It has at most so many characters, the mark included."""
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"
    assert shortened("\udcff", 10) == "\\udcff"


@pytest.mark.parametrize(
    ("variables", "scheduler", "job_id"),
    [
        ({}, "", ""),
        ({"SLURM_JOB_ID": "1234"}, "slurm", "slurm:1234"),
        (
            {"SLURM_JOB_ID": "1239", "SLURM_ARRAY_JOB_ID": "1234", "SLURM_ARRAY_TASK_ID": "5", "SLURM_PROCID": "3"},
            "slurm",
            "slurm:1234_5",
        ),
        ({"SLURM_JOB_ID": "1234", "SLURM_PROCID": "3"}, "slurm", "slurm:1234"),
        ({"PBS_JOBID": "12[5].server"}, "pbs", "pbs:12[5].server"),
        ({"LSB_JOBID": "12", "LSB_JOBINDEX": "0"}, "lsf", "lsf:12"),
        ({"LSB_JOBID": "12", "LSB_JOBINDEX": "5"}, "lsf", "lsf:12[5]"),
        ({"JOB_ID": "12"}, "", ""),
        ({"JOB_ID": "12", "SGE_TASK_ID": "undefined"}, "sge", "sge:12"),
        ({"JOB_ID": "12", "SGE_TASK_ID": "5"}, "sge", "sge:12.5"),
        ({"FLUX_JOB_ID": "f12"}, "flux", "flux:f12"),
        ({"RAY_JOB_ID": "01"}, "ray", "ray:01"),
        ({"RAY_JOB_ID": "01", "SLURM_JOB_ID": "12"}, "slurm", "slurm:12"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "pod-1"}, "kubernetes", "kubernetes:pod-1"),
        ({"HOSTNAME": "laptop"}, "", ""),
        ({"MOTOOLS_JOB_ID": "mine"}, "", "mine"),
        ({"MOTOOLS_JOB_ID": "mine", "SLURM_JOB_ID": "12"}, "slurm", "mine"),
        ({"MOTOOLS_JOB_ID": " ", "SLURM_JOB_ID": "12"}, "slurm", "slurm:12"),
        ({"MOTOOLS_JOB_ID": "x" * 300}, "", "x" * 255 + "…"),
        ({"MOTOOLS_JOB_ID": "\udcff"}, "", "\\udcff"),
    ],
)
def test_job_is_told_by_its_scheduler(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], scheduler: str, job_id: str
) -> None:
    """All processes of a job have one id, tasks of an array each its own."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert current_job() == job_id
    origin = decoded(current_origin())
    assert (origin.scheduler, origin.job_id) == (scheduler, job_id)
