"""The entries whose inputs are nearest to those that somebody asked for and missed.

Layer: engine. Imports writer, store and core.
Invariant: no entry changes by it. What takes long is done in other threads, in slices short enough that the event loop
gets its turn between them: a thread that computes gives the interpreter's lock away only every 5 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import anyio
import anyio.to_thread

from motoolsd.core.errors import RequestError
from motoolsd.core.inputs import Difference, Inputs, differences
from motoolsd.core.signatures import rank, signature
from motoolsd.engine.writer import Writer
from motoolsd.store.nearest import (
    FROM_START,
    SIGNED_KINDS,
    Candidate,
    NearPage,
    SetSignatures,
    SignedRow,
    UnsignedRow,
    select_inputs,
    select_near,
    select_row_numbers,
    select_unsigned,
    signed,
)
from motoolsd.store.store import Store
from motoolsd.wire.keys import Kind

CANDIDATES_MAX: Final = 64
"""Entries that are near by their signatures, and are compared field by field."""
PAGE_ROWS: Final = 2_048
"""Signatures that are read and measured in one go: about 2 ms."""
UNSIGNED_MAX: Final = 256
"""Rows without a signature that one question looks at; the latest. The others wait for `sign_some`."""
UNSIGNED_SIZE_MAX_BYTES: Final = 1024 * 1024
SLICE_ROWS: Final = 32
"""Rows that are signed or compared in one go: about 2 ms."""
COMPARED_SIZE_MAX_BYTES: Final = 8 * 1024 * 1024
"""No more candidates are compared once their inputs have so many bytes."""


class NearEntry(NamedTuple):
    """An entry, and what its inputs differ in."""

    key: str
    value: bytes
    differences: list[Difference]
    """From its inputs to those that were asked for."""
    void_reason: str | None
    """Why it misses itself, as its row says it; None if it counts."""
    created_at: str | None = None


class _Compared(NamedTuple):
    candidate: Candidate
    differences: list[Difference]


class Nearest:
    """Finds entries by what they were made from."""

    def __init__(self, store: Store, writer: Writer) -> None:
        """Wire up."""
        self._store = store
        self._writer = writer
        # One question at a time: the other reading connection is there for lookups.
        self._turn = anyio.Lock()

    async def find(self, asked: Inputs, limit: int = 3) -> list[NearEntry]:
        """The nearest entries of the kind, an entry with the very same inputs included.

        The nearest by signature, of all that are signed and the latest that are not, are compared field by field: those
        with the fewest differences come first, of several with equally many the newest.

        Args:
            asked: what was asked for. Nothing is near to a dataset, nor to inputs of which nothing is known.
            limit: how many to give, at most `CANDIDATES_MAX`.

        Cancellation: leaves at the next slice.

        Raises:
            RequestError: the database cannot be read.
        """
        if asked.kind not in SIGNED_KINDS or not asked.fields:
            return []
        async with self._turn:
            wanted = await anyio.to_thread.run_sync(signature, asked)
            unsigned = await self._sign(asked.kind, UNSIGNED_MAX)
            row_numbers = await self._near(asked.kind, wanted, unsigned)
            compared = await self._compare(asked, row_numbers)
        self._keep(asked.kind, unsigned)
        compared.sort(key=lambda one: (one.candidate.created_at or "", one.candidate.row_number), reverse=True)
        compared.sort(key=lambda one: len(one.differences))
        return [
            NearEntry(found.key, found.value, differing, found.void_reason, found.created_at)
            for found, differing in compared[:limit]
        ]

    async def sign_some(self, limit: int = UNSIGNED_MAX) -> int:
        """Sign entries while nobody waits for it, the latest first.

        Args:
            limit: how many at most.

        Returns:
            How many had no signature; 0: there is nothing left to do.

        Cancellation: leaves at once; what is under way may be written down all the same.

        Raises:
            RequestError: the database cannot be read or written.
        """
        for kind in SIGNED_KINDS:
            if rows := await self._sign(kind, limit):
                await self._writer.change(SetSignatures(kind, tuple(rows)))
                return len(rows)
        return 0

    async def _sign(self, kind: Kind, limit: int) -> list[SignedRow]:
        """The latest rows without a signature, with the one that they should have."""

        def sign(part: Sequence[UnsignedRow]) -> list[SignedRow]:
            return [signed(kind, row) for row in part]

        rows = await self._store.read(select_unsigned, kind, limit, UNSIGNED_SIZE_MAX_BYTES)
        found: list[SignedRow] = []
        for start in range(0, len(rows), SLICE_ROWS):
            found += await anyio.to_thread.run_sync(sign, rows[start : start + SLICE_ROWS])
        return found

    async def _near(self, kind: Kind, wanted: bytes, unsigned: Sequence[SignedRow]) -> list[int]:
        """Row numbers of the nearest by signature."""
        found = NearPage([], FROM_START)
        while found.next_after is not None:
            found = await self._store.read(
                select_near, kind, wanted, found, rows_max=PAGE_ROWS, near_max=CANDIDATES_MAX
            )
        rows = dict(await self._store.read(select_row_numbers, kind, found.near))
        # Some may have been signed since they were looked at.
        rows.update((row.row_number, row.signature) for row in unsigned if row.signature)
        return rank(rows.items(), wanted, CANDIDATES_MAX)

    async def _compare(self, asked: Inputs, row_numbers: Sequence[int]) -> list[_Compared]:
        """What the entries behind the row numbers differ in; the nearest, if they are large."""

        def compare(candidates: Sequence[Candidate]) -> list[_Compared]:
            return [_Compared(one, differences(one.inputs, asked)) for one in candidates]

        found: list[_Compared] = []
        left_bytes = COMPARED_SIZE_MAX_BYTES
        for start in range(0, len(row_numbers), SLICE_ROWS):
            candidates = await self._store.read(select_inputs, asked.kind, row_numbers[start : start + SLICE_ROWS])
            found += await anyio.to_thread.run_sync(compare, candidates)
            left_bytes -= sum(candidate.size_bytes for candidate in candidates)
            if left_bytes <= 0:
                break
        return found

    def _keep(self, kind: Kind, rows: Sequence[SignedRow]) -> None:
        """Have signatures written down, if the writer has room; nobody waits for it."""
        if not rows:
            return
        try:
            self._writer.change_nowait(SetSignatures(kind, tuple(rows)), lambda _: None)
        except (anyio.WouldBlock, RequestError):
            pass  # the next question makes them again, or `sign_some` does
