"""Which file systems are refused."""

from __future__ import annotations

import pytest

from motoolsd.core.errors import UnsupportedFilesystem
from motoolsd.core.filesystems import NETWORK_FILESYSTEMS, check_filesystem, network_filesystem

EXT4, XFS, BTRFS, TMPFS, OVERLAY = 0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630


@pytest.mark.parametrize("number", [EXT4, XFS, BTRFS, TMPFS, OVERLAY])
def test_local_file_systems_are_taken(number: int) -> None:
    """What keeps locks and shared memory within one machine is fine."""
    check_filesystem(number, "/cache")


@pytest.mark.parametrize("number", NETWORK_FILESYSTEMS)
def test_network_file_systems_are_refused_with_the_way_out(number: int) -> None:
    """The refusal names the directory, the kind of file system and what to do."""
    with pytest.raises(UnsupportedFilesystem, match=r"/cache lies on .*local disk"):
        check_filesystem(number, "/cache")


def test_sign_extended_number_is_the_same_file_system() -> None:
    """Statfs gives a signed word: CIFS comes out negative on some machines."""
    with pytest.raises(UnsupportedFilesystem, match="CIFS"):
        check_filesystem(0xFF534D42 - 2**32, "/cache")


def test_name_alone_can_be_asked_for() -> None:
    """None for a local one."""
    assert network_filesystem(0x6969) == "NFS"
    assert network_filesystem(EXT4) is None
