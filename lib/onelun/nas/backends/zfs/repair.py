"""What `open` does with what an interruption left half done.

Which step was the last is told by the places of the datasets: each step is one rename, and what is to replace something
says so in its own properties first.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from onelun.errors import Busy
from onelun.nas.backends.zfs.command import Missing, Zfs
from onelun.nas.backends.zfs.places import BACK, CLONE, DELETED, GONE, NEW, PAST, TRASH, past
from onelun.nas.backends.zfs.properties import setting
from onelun.nas.backends.zfs.removal import Removal
from onelun.nas.backends.zfs.tree import Entry, Tree

log = logging.getLogger(__name__)


class Repair:
    """Settles one pool, while nobody else works on it."""

    def __init__(self, zfs: Zfs, tree: Tree, removal: Removal) -> None:
        self._zfs = zfs
        self._tree = tree
        self._removal = removal

    async def finish(self) -> None:
        """End every step that was begun, or undo it. Repeating it changes nothing more."""
        entries = {entry.leaf: entry for entry in await self._tree.entries()}
        acted = False
        for entry in entries.values():
            try:
                acted = await self._finish(entry, entries) or acted
            except Busy as error:
                log.warning("pool pool=%s dataset=%s kept: %s", self._zfs.pool, entry.leaf, error)
        await self._snapshots(entries.keys())
        await self._sweep(await self._tree.entries() if acted else list(entries.values()))

    async def sweep(self) -> None:
        """Destroy what waited for clones that are gone now, and what a destroyed volume left behind."""
        await self._sweep(await self._tree.entries())

    async def _finish(self, entry: Entry, entries: dict[str, Entry]) -> bool:
        """End or undo what the entry tells of; whether there was something."""
        if entry.place.prefix == BACK:
            await self._revert(entry, entries)
        elif entry.place.prefix == NEW and entry.volume is None:
            log.info("pool pool=%s dataset=%s removed: it was never made", self._zfs.pool, entry.leaf)
            await self._removal.drop(entry.leaf)
        elif entry.place.prefix == NEW and (replaced := entry.facts.ours("replaces")):
            await self._replace(entry, replaced, entries)
        else:
            return False
        return True

    async def _sweep(self, entries: list[Entry]) -> None:
        living = {entry.volume.uuid for entry in entries if entry.volume is not None}
        living |= {entry.place.uuid or "" for entry in entries if entry.place.prefix == BACK}
        lost = [entry.leaf for entry in entries if entry.place.prefix == PAST and entry.place.uuid not in living]
        if lost and self._tree.unreadable:
            log.warning("pool pool=%s datasets=%s kept: a volume of theirs may be unreadable", self._zfs.pool, lost)
            lost = []
        gone = [entry.leaf for entry in entries if entry.place.prefix == GONE]
        await self._removal.sweep([*lost, *gone])

    async def _revert(self, entry: Entry, entries: dict[str, Entry]) -> None:
        uuid = entry.place.uuid or ""
        there = any(other.volume is not None and other.volume.uuid == uuid for other in entries.values())
        aside = past(uuid, int(entry.facts.ours("past") or 0))
        name = entry.facts.ours("name")
        if not there and aside in entries and name is not None and name not in entries:
            log.info("pool pool=%s volume=%s revert finished", self._zfs.pool, name)
            await self._zfs.run("rename", self._tree.path(entry.leaf), self._tree.path(name))
        else:
            await self._removal.drop(entry.leaf)

    async def _replace(self, entry: Entry, replaced: str, entries: dict[str, Entry]) -> None:
        volume = entry.volume
        assert volume is not None
        if TRASH + replaced in entries and volume.name not in entries:
            log.info("pool pool=%s volume=%s publishing finished", self._zfs.pool, volume.name)
            await self._zfs.run("rename", self._tree.path(entry.leaf), self._tree.path(volume.name))
        else:
            await self._zfs.run("set", setting("replaces", None), self._tree.path(entry.leaf))

    async def _snapshots(self, ours: Collection[str]) -> None:
        """Mark the moments of clones that were not made, and deleted snapshots: they go now, or with their clones."""
        text = await self._zfs.run(
            *("list", "-Hp", "-t", "snapshot", "-r", "-d", "2", "-o", "name,defer_destroy", self._zfs.dataset)
        )
        for name, marked in (line.split("\t") for line in text.splitlines()):
            path, _, snapshot = name.partition("@")
            below = path.removeprefix(f"{self._zfs.dataset}/")
            if marked == "off" and below in ours and snapshot.startswith((CLONE, DELETED)):
                try:
                    await self._zfs.run("destroy", "-d", name)
                except (Busy, Missing) as error:
                    log.warning("pool pool=%s snapshot=%s kept: %s", self._zfs.pool, name, error)
