"""What lies below the pool's dataset, read with one `zfs get`, and where a UUID is without reading all of it.

A volume keeps its name for life, so that its UUID, its name and its place are enough to find it: the name of every volume
is remembered, and believed only as far as the storage confirms it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import NamedTuple

from onelun.errors import CommandFailed
from onelun.model import Capacity, State, Volume
from onelun.nas.backends.zfs.command import Missing, Zfs
from onelun.nas.backends.zfs.places import NEW, TRASH, Place, is_uuid, past, place_of
from onelun.nas.backends.zfs.properties import COLUMNS, Facts, count_in, parse, seconds_in, volume_of

log = logging.getLogger(__name__)

# Each revert leaves one at most, for a snapshot that is kept.
_MOST_PASTS = 100_000
_GET = ("get", "-Hp", "-o", "name,property,value,source")


class Gone(CommandFailed):
    """The pool's own dataset is not there."""


class Entry(NamedTuple):
    """A dataset in a place of ours. `volume` is None for what is no volume, or none yet."""

    place: Place
    facts: Facts
    volume: Volume | None

    @property
    def leaf(self) -> str:
        """The last part of the dataset's name."""
        return self.place.leaf

    @property
    def pasts(self) -> list[str]:
        """The leaves of what reverts put aside; some may be gone since."""
        uuid = self.facts.ours("uuid") or ""
        return [past(uuid, number) for number in range(1, count_in(self.facts.ours("past") or "0") + 1)]

    @property
    def trashed_at(self) -> float:
        """When it was put into the trash, in seconds since the epoch."""
        return seconds_in(self.facts.ours("trashed-at"))


class Seen(NamedTuple):
    """One look at the pool: the pool's own dataset, those above it, and some of those below."""

    pool: Facts
    above: tuple[Facts, ...]
    entries: dict[str, Entry]

    def by_uuid(self, uuid: str) -> Entry | None:
        """The volume with that UUID, when it was looked for."""
        found = (entry for entry in self.entries.values() if entry.volume is not None and entry.volume.uuid == uuid)
        return next(found, None)

    def visible(self, name: str) -> Entry | None:
        """The visible volume of that name, when it was looked for."""
        entry = self.entries.get(name)
        return entry if entry is not None and entry.volume is not None else None

    def capacity(self) -> Capacity:
        """What the pool can give: `available` has quotas, reservations and what others use of the zpool taken off.

        The total is the zpool's, or the least quota above.
        """
        datasets = (*self.above, self.pool)
        quotas = [facts.number("quota") for facts in datasets if facts.number("quota")]
        whole = datasets[0].number("used") + datasets[0].number("available")
        used = self.pool.number("used")
        return Capacity(min([whole, *quotas]), used, self.pool.number("available"))


class Tree:
    """The datasets below the pool's."""

    def __init__(self, zfs: Zfs) -> None:
        self._zfs = zfs
        self._names: dict[str, str] = {}
        self._listing: asyncio.Task[list[Entry]] | None = None
        self._complete = False
        self._warned: set[str] = set()
        parts = zfs.dataset.split("/")
        self._above = ["/".join(parts[:count]) for count in range(1, len(parts))]

    @property
    def unreadable(self) -> bool:
        """Whether a dataset was met that says it is ours and whose facts cannot be read."""
        return bool(self._warned)

    def path(self, leaf: str) -> str:
        """The name of the dataset `leaf` below the pool's."""
        return f"{self._zfs.dataset}/{leaf}"

    def remember(self, volume: Volume) -> None:
        """That a volume of that UUID has that name."""
        self._names[volume.uuid] = volume.name

    def forget(self, uuid: str) -> None:
        """That there was a volume of that UUID."""
        self._names.pop(uuid, None)

    def name_of(self, uuid: str) -> str | None:
        """The name of the volume with that UUID, as far as it is known here."""
        return self._names.get(uuid)

    async def look(self, *leaves: str) -> Seen:
        """Read the pool's dataset and these below it. Raises Gone."""
        paths = [*self._above, self._zfs.dataset, *(self.path(leaf) for leaf in dict.fromkeys(leaves))]
        read = parse(await self._zfs.read(*_GET, "-t", "filesystem,volume", ",".join(COLUMNS), *paths))
        pool = read.get(self._zfs.dataset)
        above = tuple(read[path] for path in self._above if path in read)
        if pool is None or len(above) != len(self._above):
            raise self._gone()
        found = (self._entry(read[path]) for leaf in leaves if (path := self.path(leaf)) in read)
        return Seen(pool, above, {entry.leaf: entry for entry in found if entry is not None})

    async def facts(self, leaf: str) -> Facts | None:
        """What ZFS says of the dataset `leaf`, whosever it is; None when there is none."""
        path = self.path(leaf)
        return parse(await self._zfs.read(*_GET, "-t", "filesystem,volume", ",".join(COLUMNS), path)).get(path)

    async def seek(self, *uuids: str, hints: tuple[str, ...] = (), new: str | None = None) -> Seen:
        """Look where volumes with these UUIDs can be; `hints` are names that they may have.

        Before one is said to be absent the whole pool is read: somebody may have renamed it. A `new` UUID is one that
        nobody is expected to have: for it, the pool is read only the first time.
        """
        wanted = [uuid for uuid in uuids if is_uuid(uuid)]
        leaves = (*self._candidates([*wanted, *filter(None, (new,))]), *hints)
        seen = await self.look(*leaves)
        if all(seen.by_uuid(uuid) is not None for uuid in wanted) and (new is None or self._complete):
            return seen
        await self.entries()
        return await self.look(*self._candidates([*wanted, *filter(None, (new,))]), *hints)

    def _candidates(self, uuids: Iterable[str]) -> list[str]:
        """In the order in which a volume lives, so that one that moves on meanwhile is met all the same."""
        places = ((NEW + uuid, self._names.get(uuid), TRASH + uuid) for uuid in uuids)
        return [leaf for three in places for leaf in three if leaf is not None]

    async def entries(self) -> list[Entry]:
        """Everything of ours below the pool's dataset. Callers at the same time share one reading, begun after they asked."""
        running = self._listing
        if running is not None and not running.done():
            await asyncio.wait([running])
        if self._listing is None or self._listing is running:
            self._listing = asyncio.ensure_future(self._list())
        return await asyncio.shield(self._listing)

    async def _list(self) -> list[Entry]:
        try:
            text = await self._zfs.run(*_GET, "-t", "volume", "-r", "-d", "1", ",".join(COLUMNS), self._zfs.dataset)
        except Missing:
            raise self._gone() from None
        read = (self._entry(facts) for facts in parse(text).values())
        entries = {entry.leaf: entry for entry in read if entry is not None}
        for entry in entries.values():
            if entry.volume is not None:
                self.remember(entry.volume)
        listed = {entry.volume.uuid for entry in entries.values() if entry.volume is not None}
        if unseen := tuple(uuid for uuid in self._names if uuid not in listed):
            # A dataset that is renamed while `zfs get -r` goes through them may be passed over.
            again = await self.look(*self._candidates(unseen))
            for uuid in unseen:
                if (met := again.by_uuid(uuid)) is not None:
                    entries[met.leaf] = met
                else:
                    self.forget(uuid)
        self._complete = True
        return list(entries.values())

    def _entry(self, facts: Facts) -> Entry | None:
        """The entry in a dataset; None when it is none of ours."""
        place = place_of(facts.path.removeprefix(f"{self._zfs.dataset}/"))
        if place is None or facts.native("type") != "volume":
            return None
        if place.prefix not in ("", NEW, TRASH):
            return Entry(place, facts, None)
        if facts.ours("uuid") is None:
            # Properties are written after the dataset is made: a machine that stopped in between leaves none.
            return Entry(place, facts, None) if place.prefix == NEW else None
        try:
            volume = volume_of(facts, self._zfs.pool, _state(place, facts))
            seconds_in(facts.ours("trashed-at"))
            if count_in(facts.ours("past") or "0") > _MOST_PASTS:
                raise ValueError("no volume was reverted so often")
        except ValueError as error:
            self._leave_alone(facts.path, str(error))
            return None
        if place.leaf not in (volume.name, NEW + volume.uuid, TRASH + volume.uuid):
            self._leave_alone(facts.path, f"its properties are of {volume.name}, {volume.uuid}")
            return None
        return Entry(place, facts, volume)

    def _gone(self) -> Gone:
        return Gone(
            f"dataset {self._zfs.dataset} of pool {self._zfs.pool} is not there:"
            f" import its zpool, or make it with: zfs create -p {self._zfs.dataset}",
            command="zfs",
        )

    def _leave_alone(self, path: str, reason: str) -> None:
        if path not in self._warned:
            self._warned.add(path)
            log.warning("pool pool=%s dataset=%s left alone: %s", self._zfs.pool, path, reason)


def _state(place: Place, facts: Facts) -> State:
    if place.prefix == NEW:
        return State.BUILDING
    if place.prefix == TRASH:
        return State.TRASH
    return State.DELETING if facts.ours("state") == State.DELETING else State.READY
