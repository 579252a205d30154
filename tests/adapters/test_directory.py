"""The cache directory: made private, ours alone, on a local disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from motoolsd.adapters import directory as directory_module
from motoolsd.adapters.directory import CONFIG_SIZE_MAX_BYTES, CacheDirectory, filesystem_type, open_directory
from motoolsd.core.errors import DirectoryMissing, PeerRefused, StartFailed, UnsupportedFilesystem
from motoolsd.wire.names import CONFIG, DATABASE, FILE_CATEGORIES, LOCK, LOG, STAMPS


def mode_of(path: Path) -> int:
    """Permissions of a path."""
    return path.stat().st_mode & 0o777


def test_missing_directory_is_made_private(cache_dir: Path) -> None:
    """With its parts, all of them for us alone; parents as well."""
    path = cache_dir / "below" / ".motools"
    with open_directory(str(path)) as directory:
        assert directory.notes == []
    assert mode_of(path) == 0o700
    assert {child.name for child in path.iterdir()} == set(FILE_CATEGORIES)
    assert {mode_of(child) for child in path.iterdir()} == {0o700}


@pytest.mark.parametrize(("before", "after"), [(0o775, 0o755), (0o777, 0o755), (0o702, 0o700)])
def test_write_permission_of_others_is_taken_away_and_said_once(cache_dir: Path, before: int, after: int) -> None:
    """What others may read stays readable; the second start has nothing to say."""
    cache_dir.mkdir()
    cache_dir.chmod(before)
    with open_directory(str(cache_dir)) as directory:
        assert [f"mode {before:o}" in note for note in directory.notes] == [True]
    assert mode_of(cache_dir) == after
    with open_directory(str(cache_dir)) as directory:
        assert directory.notes == []


def test_existing_directory_is_used_as_it_is(cache_dir: Path) -> None:
    """Nothing in it is touched, its permissions neither."""
    (cache_dir / "runs" / "job").mkdir(parents=True)
    cache_dir.chmod(0o755)
    with open_directory(str(cache_dir)):
        pass
    assert mode_of(cache_dir) == 0o755
    assert (cache_dir / "runs" / "job").is_dir()


def test_directory_of_another_user_is_refused(cache_dir: Path) -> None:
    """A cache belongs to one user; nothing is made in somebody else's directory."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    cache_dir.mkdir(mode=0o777)
    os.chown(cache_dir, 12345, 12345)
    with pytest.raises(PeerRefused, match="uid 12345") as caught, open_directory(str(cache_dir)):
        pass
    assert caught.value.detail == {"owner": 12345}
    assert list(cache_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "name"), [(0x6969, "NFS"), (0xFF534D42, "CIFS"), (-0xACB2BE, "CIFS"), (0x65735546, "FUSE")]
)
def test_network_file_system_is_refused(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    """With the reason and the way out; type numbers may come with their sign."""
    monkeypatch.setattr(directory_module, "filesystem_type", lambda _descriptor: number)
    with pytest.raises(UnsupportedFilesystem, match="--cache-dir") as caught, open_directory(str(cache_dir)):
        pass
    assert caught.value.detail == {"filesystem": name}
    assert list(cache_dir.iterdir()) == []


def test_type_of_the_file_system_is_that_of_the_kernel() -> None:
    """/proc has a number that never changes."""
    descriptor = os.open("/proc", os.O_RDONLY)
    try:
        assert filesystem_type(descriptor) == 0x9FA0
    finally:
        os.close(descriptor)


def test_path_that_is_no_directory_is_refused(cache_dir: Path) -> None:
    """A file, a path through a file, a dangling link: each with its reason."""
    cache_dir.write_text("a file")
    link = cache_dir.parent / "link"
    link.symlink_to("nowhere")
    for path in (cache_dir, cache_dir / "below", link):
        with pytest.raises(DirectoryMissing, match="cannot be used"), open_directory(str(path)):
            pass


def test_replaced_directory_is_noticed(directory: CacheDirectory, cache_dir: Path) -> None:
    """Renamed, replaced or removed: the path leads elsewhere, the descriptor does not."""
    assert directory.is_intact()
    cache_dir.rename(cache_dir.with_name("moved"))
    assert not directory.is_intact()
    cache_dir.mkdir()
    assert not directory.is_intact()
    cache_dir.rmdir()
    cache_dir.with_name("moved").rename(cache_dir)
    assert directory.is_intact()


def test_configuration_is_read(directory: CacheDirectory, cache_dir: Path) -> None:
    """None where there is none, else its text."""
    assert directory.read_config() is None
    (cache_dir / CONFIG).write_text("durability = 'normal'")
    assert directory.read_config() == "durability = 'normal'"


def test_configuration_that_cannot_be_read_is_refused(directory: CacheDirectory, cache_dir: Path) -> None:
    """Ignoring it would run with settings that nobody asked for."""
    path = cache_dir / CONFIG
    path.mkdir()
    with pytest.raises(StartFailed, match="no regular file"):
        directory.read_config()
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(StartFailed, match="no regular file"):
        directory.read_config()
    path.unlink()
    path.write_bytes(b"# caf\xe9")
    with pytest.raises(StartFailed, match="UTF-8"):
        directory.read_config()
    path.write_bytes(b"#" * (CONFIG_SIZE_MAX_BYTES + 1))
    with pytest.raises(StartFailed, match="larger"):
        directory.read_config()
    path.unlink()
    path.symlink_to(CONFIG)
    with pytest.raises(StartFailed, match="cannot be read"):
        directory.read_config()


@pytest.mark.parametrize("name", [DATABASE, f"{DATABASE}-wal", CONFIG, LOCK, LOG, STAMPS])
def test_link_that_somebody_has_planted_keeps_the_daemon_from_starting(name: str, cache_dir: Path) -> None:
    """Nothing is read or written where it leads, and what to do is said."""
    cache_dir.mkdir()
    outside = cache_dir.parent / "outside"
    outside.write_text("precious")
    (cache_dir / name).symlink_to(outside)
    with pytest.raises(StartFailed, match=f"{name} is a link.* Remove it"), open_directory(str(cache_dir)):
        pass
    assert [path.name for path in cache_dir.iterdir()] == [name]
    assert outside.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_that_another_user_has_planted_keeps_the_daemon_from_starting(cache_dir: Path) -> None:
    """A budget of one byte would evict everything."""
    cache_dir.mkdir()
    (cache_dir / CONFIG).write_text('max_size = "1B"\n')
    os.chown(cache_dir / CONFIG, 20_001, -1)
    with pytest.raises(PeerRefused, match=r"belongs to uid 20001. Remove it"), open_directory(str(cache_dir)):
        pass
