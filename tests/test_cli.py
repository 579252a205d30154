"""`motoolsd`: what it says to its starter, to its log, to stdout and stderr, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from motoolsd.wire.diagnosis import Diagnosis, Mended, Verdict
from motoolsd.wire.errors import ErrorCode
from motoolsd.wire.messages import GetStatus, Status
from motoolsd.wire.names import CONFIG, LOG, SOCKET
from motoolsd.wire.version import __version__
from tests.daemons import DaemonProcess, running, wait_for_end

pytestmark = pytest.mark.slow


def motoolsd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-P", "-m", "motoolsd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_version_is_printed() -> None:
    """On stdout, with exit code 0."""
    done = motoolsd("--version")
    assert (done.returncode, done.stdout) == (0, f"motoolsd {__version__}\n")


def test_wrong_option_is_a_usage_error(cache_dir: Path) -> None:
    """Exit code 2, and nothing is made."""
    assert motoolsd("serve", "-d", str(cache_dir), "--no-such-option").returncode == 2
    assert motoolsd("serve", "-d", str(cache_dir), "--idle-timeout", "0").returncode == 2
    assert not cache_dir.exists()


def test_readiness_is_said_when_connections_are_accepted(cache_dir: Path) -> None:
    """With the daemon's pid; the log says so too, and stderr in the foreground."""
    with running(cache_dir) as daemon:
        assert daemon.readiness is not None
        assert daemon.readiness.pid == daemon.process.pid
        with daemon.connect() as guest:
            assert isinstance(guest.ask(GetStatus()), Status)
        said = f"motoolsd {__version__} serves {cache_dir}"
        assert said in daemon.log
        assert said in daemon.stop()[1]


def test_second_daemon_in_the_foreground_fails_naming_the_owner(cache_dir: Path) -> None:
    """Exit code 1; the first is not disturbed."""
    with running(cache_dir) as first:
        second = DaemonProcess(cache_dir)
        assert second.readiness is not None
        assert second.readiness.already_running
        code, said = second.wait()
        assert code == 1
        assert f"pid {first.process.pid}" in said
        with first.connect() as guest:
            assert isinstance(guest.ask(GetStatus()), Status)


def test_second_daemon_in_the_background_is_no_failure(cache_dir: Path) -> None:
    """Somebody else was faster: the starter connects to that one."""
    with running(cache_dir):
        second = DaemonProcess(cache_dir, "--background")
        assert second.readiness is not None
        assert second.readiness.already_running
        assert second.readiness.failure is None
        assert second.wait()[0] == 0


def test_background_daemon_leaves_its_starter_and_ends_when_idle(cache_dir: Path) -> None:
    """The process that was started ends at once, without a zombie; the daemon goes on until nobody needs it."""
    daemon = DaemonProcess(cache_dir, "--background", "--idle-timeout", "0.5")
    assert daemon.process.wait(timeout=10) == 0
    assert daemon.readiness is not None
    assert daemon.readiness.pid != daemon.process.pid
    with daemon.connect() as guest:
        status = guest.ask(GetStatus())
        assert isinstance(status, Status)
        assert (status.started_by, status.idle_timeout_s) == ("client", 0.5)
    wait_for_end(daemon.readiness.pid)
    daemon.wait()
    assert not (cache_dir / SOCKET).exists()
    assert "idle for 0.5 s" in daemon.log


def fails(daemon: DaemonProcess, code: ErrorCode, text: str) -> None:
    """See that a daemon does not start, and says why to its starter and on stderr."""
    failure = daemon.failure
    assert failure.code == code
    assert text in failure.message
    exit_code, said = daemon.wait()
    assert exit_code == 1
    assert "cannot start" in said
    assert text in said
    assert "Traceback" not in said


@pytest.mark.parametrize("option", [[], ["--background"]])
def test_corrupt_database_is_said_to_the_starter(cache_dir: Path, option: list[str]) -> None:
    """With its code and what to do; the file is left as it was."""
    cache_dir.mkdir(mode=0o700)
    (cache_dir / "cache.db").write_bytes(b"no database at all\n" * 100)
    daemon = DaemonProcess(cache_dir, *option)
    assert daemon.failure.code == ErrorCode.CORRUPT_DATABASE
    assert ".recover" in daemon.failure.message
    daemon.wait()
    assert (cache_dir / "cache.db").read_bytes() == b"no database at all\n" * 100
    assert not (cache_dir / SOCKET).exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [("no_such_setting = 1", "no_such_setting"), ('durability = "sometimes"', "durability"), ("= 1", "config.toml")],
)
def test_wrong_setting_is_refused_by_name(cache_dir: Path, text: str, named: str) -> None:
    """A daemon never runs with settings that nobody asked for."""
    cache_dir.mkdir(mode=0o700)
    (cache_dir / CONFIG).write_text(text)
    fails(DaemonProcess(cache_dir), ErrorCode.NOT_RUNNING, named)


def test_directory_that_cannot_be_made_is_refused(cache_dir: Path) -> None:
    """A file stands in the way."""
    cache_dir.write_text("a file")
    fails(DaemonProcess(cache_dir / "below"), ErrorCode.DIRECTORY_MISSING, "cannot be used as a cache directory")


@pytest.mark.parametrize("name", [SOCKET, LOG])
def test_name_that_is_taken_is_refused(cache_dir: Path, name: str) -> None:
    """A directory where the socket or the log should be is nothing that we would remove."""
    (cache_dir / name).mkdir(parents=True)
    fails(DaemonProcess(cache_dir), ErrorCode.NOT_RUNNING, name)


def test_relative_directory_is_taken_from_where_one_stands(cache_dir: Path) -> None:
    """And a link in its path stays a link: the path is the user's, not the file system's."""
    cache_dir.mkdir(mode=0o700)
    link = cache_dir.with_name("link")
    link.symlink_to(cache_dir)
    with running(link) as daemon:
        assert f"serves {link}," in daemon.log


def test_doctor_prints_json_and_makes_nothing(cache_dir: Path) -> None:
    """Exit code 0, whatever it finds; what needs a daemon it does not mend."""
    done = motoolsd("doctor", "-d", str(cache_dir))
    assert done.returncode == 0
    assert msgspec.json.decode(done.stdout, type=Diagnosis).checks[0].status is Verdict.PROBLEM
    assert not cache_dir.exists()
    cache_dir.mkdir()
    cache_dir.chmod(0o777)
    done = motoolsd("doctor", "-d", str(cache_dir), "--mend", "permissions")
    assert msgspec.json.decode(done.stdout, type=list[Mended])[0].is_done
    assert cache_dir.stat().st_mode & 0o777 == 0o755
    refused = motoolsd("doctor", "-d", str(cache_dir), "--mend", "start")
    assert refused.returncode == 2
    assert "motools cache doctor --fix" in refused.stderr


def test_restore_says_what_it_did(cache_dir: Path) -> None:
    """Without `--json` in words; a refusal on stderr, with exit code 1, while a daemon runs among others."""
    with running(cache_dir):
        refused = motoolsd("restore-backup", "-d", str(cache_dir), str(cache_dir / "cache.db"))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "served by another daemon" in refused.stderr
    shown = motoolsd("restore-backup", "-d", str(cache_dir), "--dry-run", str(cache_dir / "cache.db"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "0 datasets, 0 models, 0 evals" in shown.stdout
    done = motoolsd("restore-backup", "-d", str(cache_dir), str(cache_dir / "cache.db"))
    assert done.returncode == 0
    (aside,) = [path for path in cache_dir.glob("cache.db.replaced-*") if path.name.endswith("Z")]
    assert f"what was replaced: {aside}" in done.stdout
    assert motoolsd("restore-backup", "-d", str(cache_dir), "--list").returncode == 0
