"""Who stores an entry: all that is known of the process, once for everything that it writes.

Layer: wire. Imports nothing.
Invariant: an origin holds no credentials and nothing of the environment beside the job's number: its client masks the
command before it builds one. Fields are only ever added, with a default, so that an old id stays what it was.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

ORIGIN_ID_SIZE_BYTES: Final = 16
NAME_SIZE_MAX: Final = 256
"""Characters in a user, host, branch, scheduler or job."""
DIRECTORY_SIZE_MAX: Final = 4096
ARGUMENTS_MAX: Final = 200
COMMAND_SIZE_MAX_BYTES: Final = 8 * 1024
"""Of all arguments together, in UTF-8."""
COMMIT_SIZE_MAX: Final = 64
"""A SHA-256 in hexadecimal."""

Name = Annotated[str, Meta(max_length=NAME_SIZE_MAX)]
Argument = Annotated[str, Meta(max_length=COMMAND_SIZE_MAX_BYTES)]

_encoder = msgspec.msgpack.Encoder()


class Origin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process that stores entries. What could not be had is left out: empty, 0 or None.

    Raises:
        ValueError: the command is longer than `COMMAND_SIZE_MAX_BYTES`; a decoder makes a ValidationError of it.
    """

    user: Name = ""
    uid: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    host: Name = ""
    pid: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """As the process sees itself, which in a container is not how the daemon sees it."""
    started_at: Annotated[str, Meta(max_length=64)] = ""
    """When the process began, RFC 3339 UTC."""
    command: Annotated[tuple[Argument, ...], Meta(max_length=ARGUMENTS_MAX)] = ()
    """Its arguments, the program first, with credentials masked."""
    cwd: Annotated[str, Meta(max_length=DIRECTORY_SIZE_MAX)] = ""
    git_commit: Annotated[str, Meta(max_length=COMMIT_SIZE_MAX)] = ""
    git_branch: Name = ""
    """Empty for a detached head."""
    git_dirty: bool | None = None
    """Whether followed files differed from the commit; None: not known."""
    scheduler: Name = ""
    """`slurm`, `pbs`, `lsf`, `sge`, `kubernetes`, `ray`, `flux`."""
    job_id: Name = ""
    """With its scheduler in front: `slurm:1234_5`."""
    package: Name = ""
    """The version of the package."""

    def __post_init__(self) -> None:
        """Hold the limit that no single argument can."""
        size_bytes = sum(len(argument.encode("utf-8", "surrogatepass")) for argument in self.command)
        if size_bytes > COMMAND_SIZE_MAX_BYTES:
            raise ValueError(f"a command of {size_bytes} bytes: at most {COMMAND_SIZE_MAX_BYTES} are kept")


def origin_id(origin: Origin) -> bytes:
    """The name of an origin: 16 bytes, the same on both sides and in every process for the same content."""
    return blake2b(_encoder.encode(origin), digest_size=ORIGIN_ID_SIZE_BYTES).digest()
