"""What a volume group holds of ours, as one `lvs` tells it, and under which names.

A volume is the thin LV `onelun-UUID`, whatever its name and state are: those are tags. Beside it there may be its
snapshots `onelun-UUID.s-HASH`, and while a revert is at work `onelun-UUID.new` (what the volume is to become) and
`onelun-UUID.was` (what it was).
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import NamedTuple

import msgspec

from onelun.errors import CommandFailed
from onelun.model import State, Volume
from onelun.nas.backends.lvm.tags import (
    PoolFacts,
    SnapshotFacts,
    UnreadableError,
    VolumeFacts,
    ours,
    read_pool,
    read_snapshot,
    read_volume,
)
from onelun.numbers import number_in

log = logging.getLogger(__name__)

NEW = ".new"
WAS = ".was"
VISIBLE = (State.READY, State.DELETING)
_OURS = re.compile(
    r"onelun-(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:(?P<snapshot>\.s-[0-9a-f]{16})|\.new|\.was)?"
)


class Row(msgspec.Struct, frozen=True):
    """One line of `lvs --units b --nosuffix`."""

    lv_name: str
    lv_size: str
    lv_tags: str
    pool_lv: str
    thin_id: str = ""


COLUMNS = ",".join(Row.__struct_fields__)


class Entry(NamedTuple):
    """A volume, the LV that it is, the tags of ours that the LV has, and its number in the pool's metadata."""

    lv: str
    facts: VolumeFacts
    tags: frozenset[str]
    number: str

    @property
    def volume(self) -> Volume:
        """The volume."""
        return self.facts.volume


class Kept(NamedTuple):
    """A snapshot, the LV that it is, and its number in the pool's metadata."""

    lv: str
    facts: SnapshotFacts
    number: str


class Listing(NamedTuple):
    """All of ours at one moment. `beside` has the LVs that an unfinished revert left, by the UUID of the volume."""

    pool: PoolFacts
    pool_tags: frozenset[str]
    volumes: dict[str, Entry]
    snapshots: dict[str, list[Kept]]
    beside: dict[str, list[str]]

    def visible(self, name: str) -> Entry | None:
        """The visible volume of that name."""
        return next((e for e in self.volumes.values() if e.volume.name == name and e.volume.state in VISIBLE), None)

    def snapshot(self, uuid: str, name: str) -> Kept | None:
        """The volume's snapshot of that name."""
        return next((kept for kept in self.snapshots.get(uuid, []) if kept.facts.snapshot.name == name), None)

    def all_of(self, uuid: str) -> list[str]:
        """Every LV of the volume; the one with its data is the last."""
        snapshots = [kept.lv for kept in self.snapshots.get(uuid, [])]
        volume = [self.volumes[uuid].lv] if uuid in self.volumes else []
        return [*snapshots, *(lv for lv in self.beside.get(uuid, []) if lv not in volume), *volume]


def volume_lv(uuid: str) -> str:
    """The LV of the volume with that UUID."""
    return f"onelun-{uuid}"


def snapshot_lv(uuid: str, name: str) -> str:
    """The LV of its snapshot of that name; hashed, because the names of LVs are short."""
    return f"{volume_lv(uuid)}.s-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


class Reader:
    """Makes listings of one thin pool out of rows; what looks like ours and is not is named in the log, once."""

    def __init__(self, pool: str, vg: str, thin_pool: str) -> None:
        self.pool = pool
        self._vg = vg
        self._thin_pool = thin_pool
        self._warned: set[str] = set()
        # Between two listings nearly all rows stay as they are, and to understand some thousands takes a while.
        self._understood: dict[Row, Entry | Kept] = {}

    def listing(self, rows: list[Row]) -> Listing:
        """What the rows tell.

        Raises CommandFailed when the thin pool is not among them, or has tags that are no facts; ProtocolError for a size of
        ours that is none.
        """
        pool = next((row for row in rows if row.lv_name == self._thin_pool), None)
        if pool is None:
            raise CommandFailed(f"pool {self.pool} is gone: {self._vg} has no thin pool {self._thin_pool} any more")
        pool_tags = ours(pool.lv_tags.split(","))
        try:
            found = Listing(read_pool(pool_tags), pool_tags, {}, {}, {})
        except UnreadableError as error:
            raise CommandFailed(
                f"the facts of pool {self.pool} cannot be read: {error}; correct the tags of {self._vg}/{self._thin_pool}"
            ) from error
        understood: dict[Row, Entry | Kept] = {}
        for row in sorted((row for row in rows if row.pool_lv == self._thin_pool), key=lambda row: row.lv_name):
            thing = self._understood.get(row) or self._understand(row)
            if thing is not None:
                understood[row] = thing
                _add(found, thing)
        self._understood = understood
        for kept in found.snapshots.values():
            kept.sort(key=lambda one: (one.facts.snapshot.made_at, one.facts.snapshot.name))
        _hide_replaced(found)
        return found

    def _understand(self, row: Row) -> Entry | Kept | None:
        match = _OURS.fullmatch(row.lv_name)
        if match is None:
            return None
        tags = ours(row.lv_tags.split(","))
        size = number_in(row.lv_size, f"lv_size of {self._vg}/{row.lv_name}")
        try:
            if match["snapshot"] is None:
                return Entry(row.lv_name, read_volume(self.pool, match["uuid"], size, tags), tags, row.thin_id)
            return Kept(row.lv_name, read_snapshot(match["uuid"], size, tags), row.thin_id)
        except UnreadableError as error:
            if row.lv_name not in self._warned:
                self._warned.add(row.lv_name)
                log.warning("pool pool=%s lv=%s/%s left alone: %s", self.pool, self._vg, row.lv_name, error)
            return None


def _add(found: Listing, thing: Entry | Kept) -> None:
    if isinstance(thing, Kept):
        found.snapshots.setdefault(thing.facts.of, []).append(thing)
        return
    uuid = thing.volume.uuid
    if thing.lv.endswith((NEW, WAS)):
        found.beside.setdefault(uuid, []).append(thing.lv)
    # They come sorted: the LV itself is the first, then what it is to become, then what it was.
    found.volumes.setdefault(uuid, thing)


def _hide_replaced(found: Listing) -> None:
    """A replaced volume is in the trash from the commit on that showed the new one, whether it says so itself yet or not."""
    for entry in list(found.volumes.values()):
        replaces = entry.facts.replaces
        old = found.volumes.get(replaces.uuid) if replaces is not None else None
        if replaces is None or entry.volume.state not in VISIBLE or old is None or old.volume.state not in VISIBLE:
            continue
        trashed = msgspec.structs.replace(old.volume, state=State.TRASH)
        facts = msgspec.structs.replace(old.facts, volume=trashed, trashed_at=replaces.at)
        found.volumes[replaces.uuid] = old._replace(facts=facts)
