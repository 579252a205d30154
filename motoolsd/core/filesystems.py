"""Which file systems a cache directory may lie on.

Layer: core. Imports errors.
Invariant: decided by the type number that statfs(2) gives, never by a path or a mount option.
"""

from __future__ import annotations

from typing import Final

from motoolsd.core.errors import UnsupportedFilesystem

NETWORK_FILESYSTEMS: Final[dict[int, str]] = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x65735546: "FUSE",
    0x65735543: "FUSE",
    0x01021997: "9P",
    0x7461636F: "OCFS2",
    0x01161970: "GFS2",
    0x61636673: "ACFS",
    0x73757245: "Coda",
    0x013111A8: "IBRIX",
    0x564C: "NCP",
    0x20030528: "OrangeFS",
    0xAAD7AAEA: "PanFS",
    0x7C7C6673: "Parallels shared folders",
    0xBEEFDEAD: "StorNext",
    0x786F4256: "VirtualBox shared folders",
    0xBACBACBC: "VMware shared folders",
}
"""f_type of statfs(2) -> name. File locks or shared memory fail there silently, between hosts or at all."""


def network_filesystem(type_number: int) -> str | None:
    """The name of a file system that cannot be used; None for a local one."""
    return NETWORK_FILESYSTEMS.get(type_number & 0xFFFFFFFF)


def check_filesystem(type_number: int, directory: str) -> None:
    """Refuse a file system on which one owner cannot be assured.

    Raises:
        UnsupportedFilesystem: with the reason and the way out.
    """
    name = network_filesystem(type_number)
    if name is None:
        return
    message = (
        f"{directory} lies on {name}. Locks and SQLite's shared memory do not hold on a network or FUSE file system, "
        "and a cache there would be damaged sooner or later. Use a directory on a local disk, for example "
        "--cache-dir /var/tmp/$USER/motools, or set MOTOOLS_CACHE_DIR to one"
    )
    raise UnsupportedFilesystem(message, filesystem=name)
