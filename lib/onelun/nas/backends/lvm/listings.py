"""Listings of a thin pool: LVM is asked for one only when its metadata is not what the last one was of."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from onelun.nas.backends.lvm.areas import COLUMNS as STATE
from onelun.nas.backends.lvm.areas import Areas, Marks, State, state_of
from onelun.nas.backends.lvm.listing import COLUMNS, Listing, Reader, Row
from onelun.nas.backends.lvm.tool import Lvm, Shared


class _Known(NamedTuple):
    """What the group's logical volumes are in that state, and, once somebody asked, its marks and what it means."""

    state: State
    rows: list[Row]
    marks: Marks | None = None
    listing: Listing | None = None


class Listings:
    """The listings of the thin pool that `reader` understands."""

    def __init__(self, lvm: Lvm, areas: Areas, reader: Reader) -> None:
        self._lvm = lvm
        self._areas = areas
        self._reader = reader
        self._shared: Shared[Listing] = Shared(self._read)
        self._known: _Known | None = None

    async def now(self) -> Listing:
        """What the pool holds now. Raises as LVM's report does, and as the reader does."""
        return await self._shared.get()

    async def numbered(self) -> Listing:
        """Like `now`, with the number of each thin LV, which LVM alone tells."""
        found = await self.now()
        numbers = [entry.number for entry in found.volumes.values()]
        numbers += [kept.number for each in found.snapshots.values() for kept in each]
        if not all(numbers):
            self._known = None
            found = await self.now()
        return found

    async def of(self, rows: list[Row]) -> Listing:
        """What rows with all of COLUMNS tell."""
        return await asyncio.to_thread(self._reader.listing, rows)

    @property
    def known(self) -> _Known | None:
        """What is known before a change, for those below."""
        return self._known

    def tags_changed(self, known: _Known | None, lv: str, gone: Collection[str], come: Collection[str]) -> None:
        """One commit has changed these tags of an LV. Unless it was the only one since `known`, the next look shows that."""
        if known is not None:
            rows = [_retagged(row, gone, come) if row.lv_name == lv else row for row in known.rows]
            self._known = _Known(known.state.after(1), rows)

    def made(self, known: _Known | None, row: Row, commits: int) -> None:
        """So many commits have made that LV, whose number is not known. See `tags_changed`."""
        if known is not None:
            self._known = _Known(known.state.after(commits), [*known.rows, row])

    async def _read(self) -> Listing:
        known = self._known
        marks = None if known is None else await self._areas.look(known.state)
        if known is not None and marks is not None and known.marks in (None, marks):
            if known.listing is not None:
                return known.listing
            return await self._keep(_Known(known.state, known.rows, marks))
        report = await self._lvm.report("lvs", f"{COLUMNS},{STATE}", self._lvm.vg)
        rows = msgspec.convert(report, list[Row])
        state = state_of(report[0]) if report else None
        marks = None if state is None else await self._areas.look_anew(state)
        if state is None or marks is None:
            return await self.of(rows)
        return await self._keep(_Known(state, rows, marks))

    async def _keep(self, known: _Known) -> Listing:
        found = await self.of(known.rows)
        self._known = known._replace(listing=found)
        return found


def _retagged(row: Row, gone: Collection[str], come: Collection[str]) -> Row:
    tags = [tag for tag in row.lv_tags.split(",") if tag and tag not in gone]
    return msgspec.structs.replace(row, lv_tags=",".join((*tags, *come)))
