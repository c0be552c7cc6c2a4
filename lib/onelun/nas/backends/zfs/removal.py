"""Removing datasets on which snapshots and clones hang.

A dataset that has clones cannot be destroyed, but a snapshot can be marked (`zfs destroy -d`): it goes with its last
clone. So a destroyed volume with clones is renamed to a place where nobody sees it, its snapshots are marked, its own
content is given up, and the dataset itself goes once nothing hangs on it: when a clone is destroyed, at `purge`, at `open`.
Nothing is ever promoted: that would move the burden to a VM's disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from onelun.errors import Busy, OnelunError
from onelun.nas.backends.zfs.command import Dependents, Missing, Zfs
from onelun.nas.backends.zfs.device import Devices
from onelun.nas.backends.zfs.places import GONE, PAST, place_of
from onelun.nas.backends.zfs.places import gone as gone_leaf
from onelun.nas.backends.zfs.tree import Entry, Tree

log = logging.getLogger(__name__)

# udev looks into a device for a few ms after each change; until it has closed it, nothing destroys the zvol.
_RETRY_S = 0.05


class Removal:
    """Removes what is below one pool's dataset."""

    def __init__(self, zfs: Zfs, tree: Tree, devices: Devices) -> None:
        self._zfs = zfs
        self._tree = tree
        self._devices = devices

    async def volume(self, entry: Entry) -> None:
        """Destroy a volume with its snapshots; what was cloned from it lives on. Raises Busy while it is open."""
        name = entry.volume.name if entry.volume is not None else entry.leaf
        try:
            await self._destroy(entry.leaf, name)
        except Dependents:
            await self._devices.check_closed(entry.leaf, name)
            await self._put_away(entry.leaf)
        for leaf in reversed(entry.pasts):
            with contextlib.suppress(Missing):
                await self._put_away(leaf)
        await self.above(entry.facts.native("origin"))

    async def drop(self, leaf: str) -> None:
        """Destroy a dataset that nothing hangs on, one that was being built. Absent: nothing. Raises Busy while it is open."""
        with contextlib.suppress(Missing):
            await self._destroy(leaf, leaf)

    async def above(self, origin: str | None) -> None:
        """Destroy what a destroyed clone came from, and what that came from, where it waited for that.

        `origin` is the clone's property, a snapshot's full name.
        """
        while origin is not None:
            leaf = origin.partition("@")[0].removeprefix(f"{self._zfs.dataset}/")
            place = place_of(leaf)
            if place is None or place.prefix not in (GONE, PAST):
                return
            seen = (await self._tree.look(leaf)).entries.get(leaf)
            if seen is None or not await self.useless(leaf):
                return
            origin = seen.facts.native("origin")

    async def useless(self, leaf: str) -> bool:
        """Destroy what was put aside or away, when nothing hangs on it; whether it is gone."""
        try:
            await self._destroy(leaf, leaf)
        except Missing:
            return True
        except Busy as error:
            # Dependents is one: it waits for them. The next round meets it again.
            log.debug("pool pool=%s dataset=%s kept: %s", self._zfs.pool, leaf, error)
            return False
        return True

    async def spare(self, leaf: str) -> None:
        """Keep of it only its snapshots, or nothing when it has none. A failure is logged: the space comes back later."""
        try:
            if not await self._empty(leaf):
                await self.useless(leaf)
        except OnelunError as error:
            log.warning("pool pool=%s dataset=%s keeps its content: %s", self._zfs.pool, leaf, error)

    async def sweep(self, leaves: list[str]) -> None:
        """Put these away that an interruption left, or that waited for their clones."""
        for leaf in leaves:
            try:
                with contextlib.suppress(Missing):
                    await self._put_away(leaf)
            except OnelunError as error:
                log.warning("pool pool=%s dataset=%s kept: %s", self._zfs.pool, leaf, error)

    async def _put_away(self, leaf: str) -> None:
        """Destroy it with its snapshots, or as much of it as clones allow."""
        if not leaf.startswith(GONE):
            away = gone_leaf()
            await self._zfs.run("rename", self._tree.path(leaf), self._tree.path(away))
            leaf = away
        with contextlib.suppress(Missing):
            # "%" alone is every snapshot, also somebody else's: they go with their volume.
            await self._zfs.run("destroy", "-d", f"{self._tree.path(leaf)}@%")
        try:
            await self._destroy(leaf, leaf)
        except Dependents:
            await self._empty(leaf)

    async def _destroy(self, leaf: str, name: str) -> None:
        """`zfs destroy`, tried again while udev looks into it. Raises Missing, Dependents, Busy when it is really open."""
        end = time.monotonic() + self._devices.limit_s
        while True:
            try:
                await self._zfs.run("destroy", self._tree.path(leaf))
            except Dependents:
                raise
            except Busy as error:
                await self._devices.check_closed(leaf, name)
                if time.monotonic() > end:
                    raise Busy(f"{name} in pool {self._zfs.pool} is open: {error}", zvol=name) from error
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _empty(self, leaf: str) -> bool:
        """Give up what only the dataset itself holds, beyond its newest snapshot; whether it has one."""
        path = self._tree.path(leaf)
        text = await self._zfs.run("list", "-Hp", "-t", "snapshot", "-d", "1", "-o", "createtxg,name", path)
        snapshots = [line.split("\t") for line in text.splitlines()]
        if snapshots:
            _, newest = max(snapshots, key=lambda snapshot: int(snapshot[0]))
            await self._zfs.run("rollback", newest)
            # Nobody writes to it any more, however it was provisioned.
            await self._zfs.run("set", "refreservation=none", path)
        return bool(snapshots)
