"""Real file systems that can be filled, made read-only and cut off: on loop devices, or in memory."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from tests.faults.attack import needs

GOING_DOWN: Final = 0x8004587D
"""_IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN, and XFS_IOC_GOINGDOWN."""
NO_LOG_FLUSH: Final = 2
"""From that moment on nothing more comes to the device: what was not flushed is gone."""
UNMOUNT_ATTEMPTS: Final = 100
UNMOUNT_PAUSE_S: Final = 0.05
Kind = Literal["ext4", "xfs"]
MAKE: Final[dict[Kind, list[str]]] = {
    # Without reserved blocks, which root may use and others may not.
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}
SIZE_MIN_BYTES: Final[dict[Kind, int]] = {"ext4": 16 << 20, "xfs": 320 << 20}


def unavailable(*kinds: Kind) -> Callable[[], str | None]:
    """For `Attack.unavailable`: why there are no such disks on this machine."""
    can_make = needs("mount", "umount", *(f"mkfs.{kind}" for kind in kinds), root=True)

    def reason() -> str | None:
        if (missing := can_make()) is not None:
            return missing
        return "needs loop devices" if kinds and not Path("/dev/loop-control").exists() else None

    return reason


class LoopDisk:
    """A file system in a sparse file. Made by `loop_disk`."""

    def __init__(self, image: Path, mount_point: Path, kind: Kind, options: str) -> None:
        """Not mounted yet."""
        self.path = mount_point
        """Where it is mounted."""
        self._image = image
        self._kind = kind
        self._options = options

    def mount(self, *, read_only: bool = False) -> None:
        """Mount it; its journal is played back first."""
        options = ["loop", self._options, "ro" if read_only else "rw"]
        _run("mount", "-t", self._kind, "-o", ",".join(filter(None, options)), str(self._image), str(self.path))

    def unmount(self) -> None:
        """Unmount it, as soon as nobody uses it any more."""
        unmount(self.path)

    def cut_power(self) -> None:
        """From now on nothing comes to the device: unmount and mount, and what was not flushed is gone."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def stop_writes(self) -> None:
        """As when the kernel meets an error of the file system: it is read-only from now on (ext4 only)."""
        assert self._kind == "ext4", "there is no such switch"
        assert "errors=remount-ro" in self._options, "it would go on, or the machine would end"
        device = next(line.split()[0] for line in _mounts() if line.split()[1] == str(self.path))
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("1")


@contextmanager
def loop_disk(top: Path, kind: Kind, *, size_bytes: int = 0, options: str = "") -> Iterator[LoopDisk]:
    """A mounted file system of its own; gone when the block is left, whatever happened in it.

    Args:
        top: a scratch directory for the file and the mount point.
        kind: of file system.
        size_bytes: of the device; more, where the kind needs more.
        options: for mount(8).
    """
    image, mount_point = top / f"{kind}.img", top / f"{kind}"
    with image.open("wb") as file:
        file.truncate(max(size_bytes, SIZE_MIN_BYTES[kind]))
    _run(*MAKE[kind], str(image))
    mount_point.mkdir()
    disk = LoopDisk(image, mount_point, kind, options)
    try:
        disk.mount()
        yield disk
    finally:
        if any(line.split()[1] == str(mount_point) for line in _mounts()):
            disk.unmount()
        image.unlink()


@contextmanager
def memory_disk(top: Path, *, size_bytes: int, inodes: int = 0) -> Iterator[Path]:
    """A file system in memory (tmpfs), mounted in `top`; with so many inodes, if that is given."""
    mount_point = top / "tmpfs"
    mount_point.mkdir()
    options = f"size={size_bytes}" + (f",nr_inodes={inodes}" if inodes else "")
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount_point))
    try:
        yield mount_point
    finally:
        unmount(mount_point)


def unmount(mount_point: Path) -> None:
    """Unmount; what is in use for too long is let go of all the same, and reported.

    Raises:
        AssertionError: something uses it still.
    """
    for _ in range(UNMOUNT_ATTEMPTS):
        done = subprocess.run(["umount", str(mount_point)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(UNMOUNT_PAUSE_S)
    _run("umount", "--lazy", str(mount_point))
    raise AssertionError(done.stderr)


def fill(path: Path, *, leave_bytes: int = 0) -> None:
    """Take all room of a file system, but for some, by a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        disk = os.fstatvfs(descriptor)
        left_bytes = disk.f_bavail * disk.f_frsize - leave_bytes
        piece_bytes = left_bytes
        while left_bytes >= disk.f_frsize and piece_bytes >= disk.f_frsize:
            try:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, piece_bytes)
                left_bytes -= piece_bytes
            except OSError:
                piece_bytes //= 2
            piece_bytes = min(piece_bytes, left_bytes)
        if not leave_bytes:
            _fill_with_writes(descriptor)
    finally:
        os.close(descriptor)


def _fill_with_writes(descriptor: int) -> None:
    """What the file system does not count as free, and gives all the same."""
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(512))


def take_inodes(directory: Path) -> None:
    """Make empty files until there is no inode left."""
    directory.mkdir(exist_ok=True)
    number = len(list(directory.iterdir()))
    while True:
        try:
            (directory / str(number)).touch(exist_ok=False)
        except OSError:
            return
        number += 1


def give_inodes_back(directory: Path) -> None:
    """Remove them again."""
    shutil.rmtree(directory)


def _mounts() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
