"""What changed between two snapshots in a thin pool, as its metadata tells it: no data is read."""

from __future__ import annotations

import re

from onelun import command
from onelun.errors import Busy, CommandFailed
from onelun.model import Extent, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.lvm.delta import Delta
from onelun.nas.backends.lvm.listing import Kept, Listing
from onelun.nas.backends.lvm.moment import Moments
from onelun.nas.backends.lvm.thinpool import ThinPool

# Of each volume 16 bytes or more are read for each chunk that is mapped: 512 MiB for 2 x 1 TiB in chunks of 64 KiB.
_WALK_S = 300.0
_TRIES = 3
_ABSENT = re.compile(r"Unable to find mapping tree")


class LvmChanges:
    """The changes of a pool's volumes."""

    def __init__(self, pool: ThinPool, moments: Moments) -> None:
        self._pool = pool
        self._moments = moments

    async def changed(self, volume: Volume, since: str, until: str) -> list[Extent]:
        """What may differ between the volume's two snapshots."""
        external = await self._external()
        found = await self._pool.numbered()
        for _ in range(_TRIES):
            before, after = (_kept(volume, name, found) for name in (since, until))
            if since == until:
                return []
            delta = Delta(after.facts.snapshot.size_bytes, zeros=not external)
            result = await self._walk(before.number, after.number, delta)
            found = await self._pool.numbered()
            # Somebody beside us may have removed one before the moment that was read: its number is another LV's then.
            if [before, after] != [_kept(volume, name, found) for name in (since, until)]:
                continue
            if _ABSENT.search(result.stderr):
                raise rules.no_snapshot(volume, f"{since} or {until}")
            if result.status != 0:
                raise CommandFailed(result.failure("thin_delta"), command="thin_delta", status=result.status)
            return delta.extents()
        raise Busy(f"the snapshots {since} and {until} of {volume.name} are made anew all the time: ask again later")

    async def _walk(self, before: str, after: str, delta: Delta) -> command.Result:
        """Give `delta` what differs between the thin devices of those numbers."""
        async with self._moments.one() as metadata:
            argv = ("thin_delta", "--metadata-snap", "--snap1", before, "--snap2", after, metadata)
            return await command.run(*argv, timeout_s=_WALK_S, check=False, on_output=delta.feed)

    async def _external(self) -> bool:
        """Whether thin volumes of the group may show another LV where they have no chunk: adopted ones may be so.

        Such an LV has a role of its own (lvs(8), lv_role; lvmthin(7), "Thin snapshots of an external origin").
        """
        rows = await self._pool.lvm.report("lvs", "lv_role", self._pool.vg)
        return any("extthinorigin" in row["lv_role"] for row in rows)


def _kept(volume: Volume, name: str, found: Listing) -> Kept:
    if volume.uuid not in found.volumes:
        raise rules.no_volume(volume)
    kept = found.snapshot(volume.uuid, name)
    if kept is None:
        raise rules.no_snapshot(volume, name)
    return kept
