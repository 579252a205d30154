"""What is known of one entry, and of those that it was made from and for.

Layer: engine. Imports claims, store and core.
Invariant: nothing is changed, and nothing is counted.
"""

from __future__ import annotations

from typing import Final

import anyio.to_thread

from motoolsd.core.errors import AmbiguousName, EntryNotFound, RequestError
from motoolsd.core.inputs import (
    Inputs,
    differences,
    inputs_of_dataset,
)
from motoolsd.engine.claims import Claims
from motoolsd.engine.explaining import told_difference
from motoolsd.store.lineage import (
    Named,
    count_products,
    select_beginning,
    select_named,
    select_products,
    select_row,
    select_sources,
)
from motoolsd.store.nearest import select_inputs_of
from motoolsd.store.origins import select_origin
from motoolsd.store.store import Store
from motoolsd.wire.entries import DatasetRow, EvalRow, ModelRow
from motoolsd.wire.explaining import (
    CANDIDATES_MAX,
    LINEAGE_MAX,
    Compare,
    Comparison,
    Details,
    EntryName,
    GetLineage,
    Lineage,
    LineageNode,
    Show,
)
from motoolsd.wire.keys import Kind

NAMED_MAX: Final = 5
"""Of the entries that a name may mean, those that an error names."""


class Showing:
    """Looks at entries that somebody names."""

    def __init__(self, store: Store, claims: Claims) -> None:
        """Wire up."""
        self._store = store
        self._claims = claims

    async def show(self, request: Show) -> Details:
        """Everything about one entry; where the name means several, which.

        Raises:
            EntryNotFound: it means none.
        """
        found = await self._resolved(request.name, request.kind)
        if len(found) > 1:
            return Details(candidates=[_name(one) for one in found])
        kind, key = found[0].kind, found[0].key
        row = await self._store.read(select_row, kind, key)
        if row is None:
            raise EntryNotFound(f"{kind.value} {key} is gone")
        made = await self._store.read(select_products, kind, key, CANDIDATES_MAX)
        return Details(
            kind=kind,
            key=key,
            dataset=row if isinstance(row, DatasetRow) else None,
            model=row if isinstance(row, ModelRow) else None,
            evaluation=row if isinstance(row, EvalRow) else None,
            origin=None if row.origin is None else await self._store.read(select_origin, row.origin),
            holder=self._claims.holder((kind, key)),
            made_from=[_name(one) for one in await self._store.read(select_sources, kind, key)],
            made=[_name(one) for one in made],
            num_made=await self._store.read(count_products, kind, key),
        )

    async def lineage(self, request: GetLineage) -> Lineage:
        """What an entry was made from, and what was made from it.

        Raises:
            EntryNotFound: the name means none.
            AmbiguousName: it means several.
        """
        found = await self._resolved(request.name, request.kind)
        root = self._only(request.name, found)
        tree = _Tree(root)
        level = [root] if request.up else []
        while level:
            for one in level:
                for source in await self._store.read(select_sources, one.kind, one.key):
                    tree.add(source, below=one)
            level = tree.take_fresh()
        level = [root] if request.down else []
        while level:
            for one in level:
                for product in await self._store.read(select_products, one.kind, one.key, tree.room):
                    tree.add(product, above=one)
            level = tree.take_fresh()
        return tree.told()

    async def compare(self, request: Compare) -> Comparison:
        """In what the inputs of two entries differ.

        Raises:
            EntryNotFound: one of the names means none.
            AmbiguousName: one means several.
            RequestError: they are of two kinds.
        """
        first = self._only(request.name, await self._resolved(request.name, request.kind))
        second = self._only(request.other, await self._resolved(request.other, request.kind))
        if first.kind is not second.kind:
            message = f"{request.name} is of kind {first.kind.value}, {request.other} of kind {second.kind.value}"
            raise RequestError(message)
        known: list[Inputs] = []
        for one in (first, second):
            if one.kind is Kind.DATASET:
                known.append(inputs_of_dataset(one.key))
                continue
            if (found := await self._store.read(select_inputs_of, one.kind, one.key)) is None:
                raise EntryNotFound(f"{one.kind.value} {one.key} is gone")
            known.append(found)
        differing = await anyio.to_thread.run_sync(differences, known[0], known[1])
        return Comparison(
            first=_name(first), second=_name(second), differences=[told_difference(one) for one in differing]
        )

    @staticmethod
    def _only(name: str, found: list[Named]) -> Named:
        """The entry that is meant; of several with one value the latest."""
        if len({one.key for one in found}) > 1 and not _have_one_value(found):
            named = ", ".join(f"{one.kind.value} {one.key}" for one in found[:NAMED_MAX])
            more = " ..." if len(found) > NAMED_MAX else ""
            raise AmbiguousName(f"{name} means several entries: {named}{more}; give more of the name, or its kind")
        return found[0]

    async def _resolved(self, name: str, kind: Kind | None) -> list[Named]:
        kinds = tuple(Kind) if kind is None else (kind,)
        # What has the very name comes before what begins so, of whatever kind it is.
        for select in (select_named, select_beginning):
            if found := [one for each in kinds for one in await self._store.read(select, each, name, CANDIDATES_MAX)]:
                return found
        message = f"no entry has the key or value {name}, nor one that begins with it: see `motools cache list`"
        raise EntryNotFound(message)


def _name(named: Named) -> EntryName:
    return EntryName(kind=named.kind, key=named.key, value=named.value or b"")


def _have_one_value(found: list[Named]) -> bool:
    return len({one.value for one in found}) == 1 and len({one.kind for one in found}) == 1


class _Tree:
    """A lineage while it is gathered."""

    def __init__(self, root: Named) -> None:
        self._nodes = [root]
        self._places = {(root.kind, root.key): 0}
        self._sources: dict[int, set[int]] = {}
        self._fresh: list[Named] = []

    @property
    def room(self) -> int:
        """How many more there may be, and one that shows that there are more."""
        return LINEAGE_MAX - len(self._nodes) + 1

    def add(self, named: Named, *, above: Named | None = None, below: Named | None = None) -> None:
        """Add an entry that was made from `above`, or that `below` was made from."""
        place = self._places.get((named.kind, named.key))
        if place is None:
            if len(self._nodes) > LINEAGE_MAX:
                return
            place = self._places[named.kind, named.key] = len(self._nodes)
            self._nodes.append(named)
            self._fresh.append(named)
        for other, is_source in ((above, True), (below, False)):
            if other is not None:
                place_of_other = self._places[other.kind, other.key]
                source, product = (place_of_other, place) if is_source else (place, place_of_other)
                self._sources.setdefault(product, set()).add(source)

    def take_fresh(self) -> list[Named]:
        """What was added since."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def told(self) -> Lineage:
        """As it is sent."""
        is_cut = len(self._nodes) > LINEAGE_MAX
        nodes = [
            LineageNode(
                kind=named.kind,
                key=named.key,
                value=named.value,
                made_from=tuple(sorted(one for one in self._sources.get(place, ()) if one < LINEAGE_MAX)),
                detail=named.detail,
            )
            for place, named in enumerate(self._nodes[:LINEAGE_MAX])
        ]
        return Lineage(nodes=nodes, is_cut=is_cut)
