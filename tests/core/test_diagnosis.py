"""What is said of a directory, from what was seen of it: facts in, checks out."""

from __future__ import annotations

import msgspec
import pytest

from motoolsd.core.diagnosis import (
    FREE_LOW_BYTES,
    LOG_LARGE_BYTES,
    FileFacts,
    FileKind,
    LockFacts,
    PlaceFacts,
    check_backups,
    check_filesystem,
    check_leftovers,
    check_lock,
    check_log,
    check_path,
    check_permissions,
    check_place,
    check_settings,
    check_socket,
    check_space,
    check_staging,
    check_stamps,
    has_wal_reset_bug,
    judge_sqlite,
    named,
    size_text,
    sqlite_check,
)
from motoolsd.wire.diagnosis import HealthCheck, Mend, Verdict
from motoolsd.wire.keys import STAMPS_SIZE_BYTES

US, OTHER = 1000, 1001
PLACE = PlaceFacts(path="/c", path_size_bytes=2, user=US, owner=US, mode=0o700, free_bytes=2**40, free_inodes=10**6)
FREE = LockFacts(is_held=False)
RUNNING = LockFacts(is_held=True, pid=7, version="1", started_at="noon", is_alive=True)


def place(**changes: object) -> PlaceFacts:
    """A healthy place, but for that."""
    return msgspec.structs.replace(PLACE, **changes)


def file(
    name: str = "f", kind: FileKind = FileKind.FILE, owner: int = US, mode: int = 0o600, size: int = 0
) -> FileFacts:
    """A name in the directory."""
    return FileFacts(name=name, kind=kind, owner=owner, mode=mode, size_bytes=size)


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.44.5", "3.44.7", "3.50.6", "3.50.8", "3.51.0", "3.51.2"])
def test_versions_with_the_wal_reset_bug(version: str) -> None:
    """From 3.7.0 to 3.51.2; motoolsd is safe from it, and the check says why."""
    assert has_wal_reset_bug(version)
    health = judge_sqlite(version)
    assert (health.has_wal_reset_bug, health.is_safe) == (True, True)
    assert "one connection writes" in health.detail
    assert sqlite_check(health).status is Verdict.OK


@pytest.mark.parametrize("version", ["3.6.23", "3.44.6", "3.50.7", "3.51.3", "3.52.0", "4.0.0", "3.44.6.1"])
def test_versions_without_it(version: str) -> None:
    """Older, newer, and those that it was mended in."""
    assert not has_wal_reset_bug(version)
    assert not judge_sqlite(version).has_wal_reset_bug


PLACES = [
    (place(), check_place, Verdict.OK, ""),
    (place(is_missing=True), check_place, Verdict.PROBLEM, "`motools daemon start -d /c`"),
    (place(error="Not a directory"), check_place, Verdict.PROBLEM, "--cache-dir"),
    (place(owner=OTHER), check_place, Verdict.PROBLEM, "its owner"),
    (place(), check_path, Verdict.OK, ""),
    (place(path_size_bytes=200), check_path, Verdict.OK, ""),
    (place(), check_filesystem, Verdict.OK, ""),
    (place(network_filesystem="NFS"), check_filesystem, Verdict.PROBLEM, "local disk"),
    (place(is_read_only=True), check_filesystem, Verdict.PROBLEM, "`dmesg`"),
    (place(), check_space, Verdict.OK, ""),
    (place(free_inodes=None), check_space, Verdict.OK, ""),
    (place(free_bytes=FREE_LOW_BYTES - 1), check_space, Verdict.WARNING, "`motools cache trash empty -d /c`"),
    (place(free_bytes=0), check_space, Verdict.PROBLEM, "`motools cache prune --to SIZE -d /c`"),
    (place(free_inodes=500), check_space, Verdict.WARNING, "trash"),
    (place(free_inodes=0), check_space, Verdict.PROBLEM, "trash"),
]


@pytest.mark.parametrize(("facts", "check", "status", "remedy"), PLACES)
def test_place_is_judged(facts: PlaceFacts, check: object, status: Verdict, remedy: str) -> None:
    """What is not well has a remedy, and what is well has none."""
    assert callable(check)
    said: HealthCheck = check(facts)
    assert said.status is status
    assert remedy in said.remedy
    assert bool(said.remedy) == (status is not Verdict.OK)
    assert said.mend is None


def test_long_path_is_a_note_about_systemd() -> None:
    """The daemon knows a way round it."""
    assert "systemd" in check_path(place(path_size_bytes=94)).detail
    assert "systemd" not in check_path(place(path_size_bytes=93)).detail


def test_command_names_the_directory_as_a_shell_takes_it() -> None:
    """A blank in a path does not split it."""
    assert check_place(place(path="/a b", is_missing=True)).remedy.startswith("`motools daemon start -d '/a b'`")


def test_permissions_of_the_directory_weigh_more_than_those_of_files() -> None:
    """Owner first, then the directory, then files; a socket is judged elsewhere, a link has none."""
    others = [file("cache.db", mode=0o666)]
    assert check_permissions(PLACE, [file(mode=0o644), file(kind=FileKind.LINK, mode=0o777)]).status is Verdict.OK
    assert check_permissions(PLACE, [file(kind=FileKind.SOCKET, mode=0o777)]).status is Verdict.OK
    said = check_permissions(PLACE, others)
    assert (said.status, said.mend) == (Verdict.WARNING, Mend.PERMISSIONS)
    said = check_permissions(place(mode=0o775), others)
    assert (said.status, said.mend) == (Verdict.PROBLEM, Mend.PERMISSIONS)
    assert "directory (mode 775), cache.db (mode 666)" in said.detail
    said = check_permissions(place(mode=0o775), [file("cache.db-wal", owner=0)])
    assert (said.status, said.mend) == (Verdict.PROBLEM, None)
    assert f"sudo chown -R {US} /c" in said.remedy


LOCKS = [
    (None, FREE, Verdict.OK, "no daemon runs"),
    (file(), LockFacts(is_held=False, pid=7), Verdict.OK, "has ended"),
    (file(), RUNNING, Verdict.OK, "held by the daemon, pid 7"),
    (file(), LockFacts(is_held=True), Verdict.OK, "not named itself"),
    (file(), LockFacts(is_held=True, pid=7), Verdict.WARNING, "container"),
    (file(), LockFacts(is_held=True, pid=7, host="h2", is_here=False), Verdict.WARNING, "h2"),
    (file(kind=FileKind.LINK), FREE, Verdict.PROBLEM, "symbolic link"),
]


@pytest.mark.parametrize(("found", "lock", "status", "said"), LOCKS)
def test_lock_is_judged(found: FileFacts | None, lock: LockFacts, status: Verdict, said: str) -> None:
    """A lock file that stays after its daemon is how it should be."""
    check = check_lock(PLACE, found, lock)
    assert check.status is status
    assert said in check.detail


SOCKET = file("motoolsd.sock", FileKind.SOCKET)
SOCKETS = [
    (None, FREE, Verdict.OK, None),
    (SOCKET, RUNNING, Verdict.OK, None),
    (None, RUNNING, Verdict.PROBLEM, None),
    (None, LockFacts(is_held=True), Verdict.OK, None),
    (SOCKET, FREE, Verdict.WARNING, Mend.LEFTOVERS),
    (file(), FREE, Verdict.PROBLEM, None),
    (msgspec.structs.replace(SOCKET, owner=OTHER), RUNNING, Verdict.PROBLEM, None),
    (msgspec.structs.replace(SOCKET, mode=0o660), RUNNING, Verdict.PROBLEM, Mend.PERMISSIONS),
]


@pytest.mark.parametrize(("found", "lock", "status", "mend"), SOCKETS)
def test_socket_is_judged_by_the_lock(
    found: FileFacts | None, lock: LockFacts, status: Verdict, mend: Mend | None
) -> None:
    """A socket without a daemon is stale; one of somebody else is not ours to remove."""
    check = check_socket(PLACE, found, lock)
    assert (check.status, check.mend) == (status, mend)


STAMPS = file("stamps", mode=0o400, size=STAMPS_SIZE_BYTES)
SHORT = msgspec.structs.replace(STAMPS, size_bytes=1)
STAMP_FILES = [
    (None, FREE, [], Verdict.OK, None),
    (None, RUNNING, [], Verdict.WARNING, None),
    (STAMPS, RUNNING, [], Verdict.OK, None),
    (msgspec.structs.replace(STAMPS, mode=0o600), RUNNING, [], Verdict.WARNING, Mend.PERMISSIONS),
    (msgspec.structs.replace(STAMPS, mode=0o600), FREE, [], Verdict.OK, None),
    (SHORT, FREE, [], Verdict.PROBLEM, Mend.STAMPS),
    (SHORT, FREE, [9], Verdict.PROBLEM, None),
    (SHORT, RUNNING, [], Verdict.PROBLEM, None),
    (msgspec.structs.replace(STAMPS, owner=OTHER), FREE, [], Verdict.PROBLEM, Mend.STAMPS),
    (msgspec.structs.replace(STAMPS, kind=FileKind.DIRECTORY), FREE, [], Verdict.PROBLEM, None),
]


@pytest.mark.parametrize(("found", "lock", "users", "status", "mend"), STAMP_FILES)
def test_stamps_are_judged(
    found: FileFacts | None, lock: LockFacts, users: list[int], status: Verdict, mend: Mend | None
) -> None:
    """What a daemon could not map is removed only where nobody has it mapped."""
    check = check_stamps(PLACE, found, lock, users)
    assert (check.status, check.mend) == (status, mend)
    assert bool(check.remedy) == (status is not Verdict.OK)


def test_log_settings_staging_leftovers_and_backups_are_judged() -> None:
    """Each with its remedy."""
    assert check_log(PLACE, None).status is Verdict.OK
    assert check_log(PLACE, file(size=LOG_LARGE_BYTES)).status is Verdict.OK
    assert check_log(PLACE, file(size=LOG_LARGE_BYTES + 1)).remedy.endswith("`truncate --size 0 /c/motoolsd.log`")
    assert check_log(PLACE, file(kind=FileKind.LINK)).status is Verdict.PROBLEM
    assert check_settings(PLACE, None, is_there=False).status is Verdict.OK
    assert check_settings(PLACE, "it is wrong", is_there=True).detail == "it is wrong"
    assert check_staging(PLACE, [], FREE).status is Verdict.OK
    assert check_staging(PLACE, ["x"], RUNNING).status is Verdict.OK
    assert check_staging(PLACE, ["x"], FREE).mend is Mend.START
    assert check_leftovers(PLACE, []).status is Verdict.OK
    assert check_leftovers(PLACE, ["stamps.new"]).mend is Mend.LEFTOVERS
    assert check_backups(0, None).status is Verdict.OK
    assert "2, the newest 1.5 hours old" in check_backups(2, 5_400.0).detail
    assert check_backups(0, None, ["cache.db.replaced-1"]).detail.endswith("when you are sure: cache.db.replaced-1")


def test_names_and_sizes_are_short() -> None:
    """A thousand names are three and a number."""
    assert named(["a", "b", "c"]) == "a, b, c"
    assert named([*"abcde"]) == "a, b, c and 2 more"
    assert [size_text(size) for size in (0, 1023, 1024, 3 * 2**19, 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "1,024.0 GiB",
    ]
