"""Renaming that never replaces anything.

Layer: adapters. Imports nothing of motoolsd.
Invariant: names are looked up in open directories, and no link is followed; where the kernel can, in one step.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

RENAME_NOREPLACE: Final = 1
_NO_SUCH_CALL: Final = frozenset({errno.ENOSYS, errno.EINVAL})
"""An older kernel; a file system that knows no flags."""

_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
"""None: a C library without it (before glibc 2.28)."""
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    _renameat2.restype = ctypes.c_int


def rename(source: int, name: bytes, target: int, new_name: bytes) -> None:
    """Move an entry of one open directory into another.

    Where the kernel has no renameat2 (Linux 3.15) or the file system does not take its flag, whether the place is
    free is looked up first: what comes into it between the two would be replaced.

    Raises:
        FileExistsError: there is something of the new name.
        OSError: rename failed otherwise.
    """
    if _renameat2 is not None:
        if _renameat2(source, name, target, new_name, RENAME_NOREPLACE) == 0:
            return
        if (number := ctypes.get_errno()) not in _NO_SUCH_CALL:
            raise OSError(number, os.strerror(number))
    try:
        os.stat(new_name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
