"""Making a zvol that lies below the pool's dataset a volume of ours, and letting go of one.

The facts are written first, all in one act, under the name that the volume will have. Until its dataset has that name it is
seen as nobody's, and a repeat ends what was cut off.
"""

from __future__ import annotations

from onelun.errors import Conflict, Rejected
from onelun.model import Owner, State, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.zfs.command import Present, Zfs
from onelun.nas.backends.zfs.device import Devices
from onelun.nas.backends.zfs.ownership import Ownership
from onelun.nas.backends.zfs.properties import Facts, forgotten, settings, volume_of
from onelun.nas.backends.zfs.tree import Entry, Tree


class Adopting:
    """What comes into one pool, and leaves it, with its data."""

    def __init__(self, zfs: Zfs, tree: Tree, devices: Devices, owned: Ownership) -> None:
        self._zfs = zfs
        self._tree = tree
        self._devices = devices
        self._owned = owned

    async def foreign(self, name: str) -> bool:
        """Whether a zvol of that name is nobody's."""
        facts = await self._tree.facts(name) if rules.is_foreign(name) else None
        return facts is not None and facts.native("type") == "volume" and facts.ours("uuid") is None

    async def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """Make it a volume."""
        seen = await self._tree.look()
        agent = self._owned.check(seen)
        path = self._tree.path(found)
        facts = await self._tree.facts(found)
        if facts is None:
            raise rules.no_foreign(self._zfs.pool, found, f"zfs list {path} shows nothing")
        if facts.native("type") != "volume":
            raise Rejected(f"{path} is no zvol: only those are adopted")
        if found != name and await self._tree.facts(name) is not None:
            raise _taken(self._zfs.pool, name, self._tree.path(name))
        begun = self._begun(facts, found, name, owner)
        volume = begun or rules.adopted(self._zfs.pool, found, name, uuid, facts.number("volsize"), owner)
        await self._devices.check_closed(found, found)
        await self._owned.serve(seen, owner.cloud)
        if begun is None:
            await self._zfs.run("set", *settings(volume, made_by=agent), path)
        if found != name:
            try:
                await self._zfs.run("rename", path, self._tree.path(name))
            except Present:
                raise _taken(self._zfs.pool, name, self._tree.path(name)) from None
        self._tree.remember(volume)
        return volume

    async def release(self, entry: Entry) -> str:
        """Take all facts from it, in one act."""
        await self._zfs.run("set", *forgotten(), self._tree.path(entry.leaf))
        if entry.volume is not None:
            self._tree.forget(entry.volume.uuid)
        return entry.leaf

    def _begun(self, facts: Facts, found: str, name: str, owner: Owner) -> Volume | None:
        """The volume that an interrupted adoption was about to make of it. Raises Conflict for a volume of ours."""
        if facts.ours("uuid") is None:
            return None
        try:
            volume = volume_of(facts, self._zfs.pool, State.READY)
        except ValueError:
            raise rules.ours_already(self._zfs.pool, found) from None
        if found == name or (volume.name, volume.owner, volume.filled_from) != (name, owner, f"adopted {found}"):
            raise rules.ours_already(self._zfs.pool, found)
        return volume


def _taken(pool: str, name: str, path: str) -> Conflict:
    return Conflict(f"{name} in pool {pool} is taken: zfs list {path} shows by what")
