"""What volumes and snapshots take from a thin pool. Only a walk through the pool's metadata tells which blocks are shared."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from onelun import command
from onelun.errors import ProtocolError
from onelun.model import Snapshot, Usage, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.lvm.listing import VISIBLE, Entry, Kept
from onelun.nas.backends.lvm.moment import Moments
from onelun.nas.backends.lvm.thinpool import ThinPool
from onelun.numbers import is_number

# thin_ls reads 16 bytes or more for each chunk that is mapped: 256 MiB for 1 TiB in chunks of 64 KiB.
_WALK_S = 100.0


class Taken(NamedTuple):
    """The bytes that one LV maps, and those that it alone holds."""

    mapped: int
    alone: int


class LvmUsage:
    """What is in a thin pool, measured."""

    def __init__(self, pool: ThinPool, moments: Moments) -> None:
        self._pool = pool
        self._moments = moments

    async def of(self, volume: Volume) -> int:
        """The bytes that the volume maps, and those that its snapshots alone hold. Raises NotFound."""
        found = await self._pool.numbered()
        if volume.uuid not in found.volumes:
            raise rules.no_volume(volume)
        entry = found.volumes[volume.uuid]
        taken = await self._walk(entry, *found.snapshots.get(volume.uuid, []))
        return taken.pop(entry.lv).mapped + sum(each.alone for each in taken.values())

    async def snapshots(self, volume: Volume) -> list[Snapshot]:
        """The volume's snapshots, the oldest first, with what each alone holds. Raises NotFound."""
        found = await self._pool.numbered()
        if volume.uuid not in found.volumes:
            raise rules.no_volume(volume)
        kept = found.snapshots.get(volume.uuid, [])
        taken = await self._walk(*kept) if kept else {}
        return [msgspec.structs.replace(each.facts.snapshot, used_bytes=taken[each.lv].alone) for each in kept]

    async def all(self) -> dict[str, Usage]:
        """What every visible volume maps, and what each snapshot of it alone holds, by the volume's UUID."""
        found = await self._pool.numbered()
        volumes = {uuid: entry for uuid, entry in found.volumes.items() if entry.volume.state in VISIBLE}
        kept = {uuid: found.snapshots.get(uuid, []) for uuid in volumes}
        taken = await self._walk(*volumes.values(), *(one for each in kept.values() for one in each))
        return {
            uuid: Usage(taken[entry.lv].mapped, {one.facts.snapshot.name: taken[one.lv].alone for one in kept[uuid]})
            for uuid, entry in volumes.items()
        }

    async def _walk(self, *things: Entry | Kept) -> dict[str, Taken]:
        """What each takes, by its LV; one that is gone meanwhile takes nothing."""
        async with self._moments.one() as metadata:
            columns = ("--no-headers", "--format", "DEV,MAPPED_BYTES,EXCLUSIVE_BYTES")
            told = await command.run("thin_ls", "--metadata-snap", *columns, metadata, timeout_s=_WALK_S)
        taken = parsed(told.stdout)
        return {thing.lv: taken.get(thing.number, Taken(0, 0)) for thing in things}


def parsed(printed: str) -> dict[str, Taken]:
    """What thin_ls printed, by the number of the thin device. Raises ProtocolError."""
    taken = {}
    for line in printed.splitlines():
        words = line.split()
        if len(words) != 3 or not all(is_number(word) for word in words):
            raise ProtocolError(f"thin_ls printed {line[:80]!r}")
        taken[words[0]] = Taken(int(words[1]), int(words[2]))
    return taken
