"""Storing a dataset with its content: what the blocking and the async client have in common.

Layer: motools.cache. Imports calls, clock, entries, errors, files and motoolsd.wire.
Invariant: the content is on disk, under a name that only this call knows, before the daemon hears of it. Asking again
after a lost connection is answered by the request's key, also when the staged name has been taken over by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from motools.cache import calls
from motools.cache.arguments import text, value_bytes
from motools.cache.calls import Call
from motools.cache.clock import utc_text, wall_s
from motools.cache.entries import DatasetEntry
from motools.cache.errors import UNAVAILABLE, CacheRequestError
from motools.cache.files import Content, Staged, Staging, digest_of
from motools.cache.recording import PLAIN, Owned, Provenance, Record
from motoolsd.wire.names import DATASET_SUFFIX, DATASETS

if TYPE_CHECKING:
    from motools.cache.sync import SyncCache


class DatasetPut:
    """One dataset that is to be stored with its content."""

    def __init__(
        self,
        content: Content,
        file_id: str | None,
        provenance: Provenance,
        record: Record = PLAIN,
        *,
        token: int = 0,
        dataset_hash: str | None = None,
    ) -> None:
        """Check what can be checked before anything is read.

        Args:
            content: a path, or bytes.
            file_id: None: the hash of the content.
            provenance: labels and version.
            record: what else is stored with it.
            token: of the lease that this fulfils.
            dataset_hash: what the hash has to be; None: whatever it is.

        Raises:
            CacheRequestError: an argument is none.
        """
        if file_id is not None:
            value_bytes(file_id, "file_id")
        self.content = content
        self._file_id = file_id
        self._provenance = provenance
        self._record = record
        self._fields = record.fields(provenance)
        self._token = token
        self._hash = None if dataset_hash is None else text(dataset_hash, "dataset_hash")

    def call(self, digest: str, name: bytes | None) -> Call[bool]:
        """The call that stores it; False: there is no daemon, and misses were asked for.

        Raises:
            CacheRequestError: the content is not that of the dataset it is for.
        """
        if self._hash not in (None, digest):
            raise CacheRequestError(
                f"the content's hash is {digest}, but the claim is for {self._hash}: a dataset's key is the SHA-256 of"
                " its content, see hash_content()"
            )
        owned = Owned(staged=name, record=self._record)
        call = calls.set_file_id(self._provenance, digest, self._file_id or digest, self._token, owned)
        return Call(None, call.expects, _stored, fallback=False, make=call.make)

    def entry(self, digest: str, staged: Staged | None) -> DatasetEntry:
        """What is stored now; `staged` None: without its content."""
        entry = DatasetEntry(
            dataset_hash=digest,
            file_id=self._file_id or digest,
            labels=dict(self._fields["labels"]),
            version=self._provenance.version,
            expires_at=None if self._record.ttl_s is None else utc_text(wall_s() + self._record.ttl_s),
        )
        if staged is None:
            return entry
        return msgspec.structs.replace(
            entry,
            size_bytes=staged.size_bytes,
            allocated_bytes=staged.allocated_bytes,
            files=(f"{DATASETS}/{digest}{DATASET_SUFFIX}",),
        )


def _stored(_reply: object) -> bool:
    return True


def put_dataset(cache: SyncCache, put: DatasetPut) -> DatasetEntry:
    """Store a dataset with its content.

    Raises:
        CacheError: as `SyncCache.put_dataset`.
    """
    try:
        # It may be the daemon that makes the directory.
        cache._reach()  # noqa: SLF001 - one object, in two parts
        with Staging(cache.directory) as staging:
            staged = staging.stage(put.content)
            is_stored = cache._call(put.call(staged.digest, staged.name))  # noqa: SLF001
            return put.entry(staged.digest, staged if is_stored else None)
    except UNAVAILABLE as error:
        cache._drop_write(error)  # noqa: SLF001
    digest, _ = digest_of(put.content)
    put.call(digest, None)
    return put.entry(digest, None)
