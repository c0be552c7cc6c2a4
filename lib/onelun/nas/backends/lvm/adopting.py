"""Making a thin LV of the pool that is nobody's a volume of ours, and letting go of one. It runs inside `lvm.alone`.

The tags come first and the name last: until an LV has the name of a volume, its tags mean nothing, and a repeat ends what was
cut off. Letting go is the same backwards.
"""

from __future__ import annotations

from onelun.errors import Busy, Rejected
from onelun.model import Owner, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.lvm.listing import COLUMNS, volume_lv
from onelun.nas.backends.lvm.tags import UnreadableError, VolumeFacts, ours, read_volume, volume_tags
from onelun.nas.backends.lvm.thinpool import ThinPool
from onelun.nas.backends.lvm.volumes import INACTIVE
from onelun.numbers import number_in


class LvmAdopting:
    """What comes into a thin pool's volumes, and leaves them, with its data."""

    def __init__(self, pool: ThinPool) -> None:
        self._pool = pool
        self._lvm = pool.lvm

    async def foreign(self, name: str) -> bool:
        """Whether a thin LV of that name is in the pool."""
        row = await self._row(name) if rules.is_foreign(name) else None
        return row is not None and row["pool_lv"] == self._pool.thin_pool

    async def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """Make it a volume; it is inactive afterwards, as all are."""
        listing = await self._pool.owned()
        row = await self._row(found)
        if row is None and listing.visible(found) is not None:
            raise rules.ours_already(self._pool.pool, found)
        if row is None:
            raise rules.no_foreign(self._pool.pool, found, f"lvs {self._pool.vg}/{found} shows nothing")
        if row["pool_lv"] != self._pool.thin_pool:
            raise Rejected(f"{self._pool.vg}/{found} is no thin volume of {self._pool.path}: only those are adopted")
        if found.startswith(volume_lv("")):
            raise rules.ours_already(self._pool.pool, found)
        holder = listing.visible(name)
        rules.check_free(self._pool.pool, name, holder.volume if holder is not None else None, None)
        tags = ours(row["lv_tags"].split(","))
        volume = self._begun(row, tags, found, name, owner) or rules.adopted(
            self._pool.pool, found, name, uuid, _size(row), owner
        )
        if await self._pool.devices.opened(found):
            raise Busy(f"{self._pool.vg}/{found} is open or mounted: end that first", pool=self._pool.pool)
        await self._pool.serve(listing, owner.cloud)
        await self._lvm.change("lvchange", "--activate=n", f"{self._pool.vg}/{found}")
        await self._pool.retag(found, tags, volume_tags(VolumeFacts(volume)))
        await self._lvm.change("lvchange", *INACTIVE, f"{self._pool.vg}/{found}")
        await self._lvm.change("lvrename", self._pool.vg, found, volume_lv(volume.uuid))
        return volume

    async def release(self, volume: Volume) -> str:
        """Name the LV after the volume, then take its tags away."""
        entry = (await self._pool.owned()).volumes.get(volume.uuid)
        rules.check_ready(volume, entry.volume if entry is not None else None)
        assert entry is not None
        name = entry.volume.name
        await self._lvm.change("lvchange", "--activate=n", f"{self._pool.vg}/{entry.lv}")
        await self._lvm.change("lvrename", self._pool.vg, entry.lv, name)
        await self._pool.retag(name, entry.tags, frozenset())
        await self._lvm.change("lvchange", "--setactivationskip", "n", f"{self._pool.vg}/{name}")
        return name

    async def _row(self, lv: str) -> dict[str, str] | None:
        rows = await self._lvm.report("lvs", COLUMNS, "--select", f'vg_name="{self._pool.vg}" && lv_name="{lv}"')
        return rows[0] if rows else None

    def _begun(self, row: dict[str, str], tags: frozenset[str], found: str, name: str, owner: Owner) -> Volume | None:
        """The volume that an interrupted adoption was about to make of it; other tags of ours mean nothing."""
        uuid = next((tag.partition("=")[2] for tag in tags if tag.startswith("onelun.uuid=")), "")
        try:
            volume = read_volume(self._pool.pool, uuid, _size(row), tags).volume
        except UnreadableError:
            return None
        same = (volume.name, volume.owner, volume.filled_from) == (name, owner, f"adopted {found}")
        return volume if same else None


def _size(row: dict[str, str]) -> int:
    return number_in(row["lv_size"], f"lv_size of {row['lv_name']}")
