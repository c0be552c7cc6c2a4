"""Snapshots of volumes: made, listed, deleted, and gone back to.

A revert puts a clone of the snapshot in the volume's place and keeps the volume as it was, out of sight, because its
snapshots live there: `zfs rollback` would destroy the younger ones. So a volume's snapshots may lie in several datasets.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import msgspec

from onelun.model import Snapshot, State, Usage, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.zfs.building import Builder
from onelun.nas.backends.zfs.command import Dependents, Missing, Present, Zfs
from onelun.nas.backends.zfs.device import Devices
from onelun.nas.backends.zfs.places import BACK, PAST, SNAP, deleted, past
from onelun.nas.backends.zfs.properties import rows, settings
from onelun.nas.backends.zfs.removal import Removal
from onelun.nas.backends.zfs.tree import Entry, Tree
from onelun.numbers import number_in


class Kept(NamedTuple):
    """A snapshot and the dataset that it lies in."""

    leaf: str
    snapshot: Snapshot

    @property
    def at(self) -> str:
        """What stands behind the pool's dataset in its name."""
        return f"{self.leaf}@{SNAP}{self.snapshot.name}"


class Snapshots:
    """The snapshots of one pool's volumes."""

    def __init__(self, zfs: Zfs, tree: Tree, devices: Devices, removal: Removal, builder: Builder) -> None:
        self._zfs = zfs
        self._tree = tree
        self._devices = devices
        self._removal = removal
        self._builder = builder

    async def of(self, entry: Entry) -> list[Kept]:
        """The volume's, the oldest first."""
        paths = [self._tree.path(leaf) for leaf in (*entry.pasts, entry.leaf)]
        columns = "name,creation,createtxg,volsize,used"
        text = await self._zfs.read("list", "-Hp", "-t", "snapshot", "-d", "1", "-o", columns, *paths)
        found = []
        for name, *facts in rows(text, 5):
            path, _, snapshot = name.partition("@")
            if snapshot.startswith(SNAP):
                creation, txg, size, used = (number_in(fact, f"what zfs list printed of {name}") for fact in facts)
                made = Snapshot(snapshot.removeprefix(SNAP), float(creation), size, used)
                found.append((txg, Kept(path.removeprefix(f"{self._zfs.dataset}/"), made)))
        return [kept for _, kept in sorted(found, key=lambda pair: pair[0])]

    async def usages(self) -> dict[str, Usage]:
        """What every visible volume takes, by UUID: two listings, whatever their number."""
        entries = await self._tree.entries()
        snapshots: dict[str, dict[str, int]] = {}
        text = await self._zfs.run(
            "list", "-Hp", "-t", "snapshot", "-r", "-d", "2", "-o", "name,used", self._zfs.dataset
        )
        for name, used in rows(text, 2):
            path, _, snapshot = name.partition("@")
            if snapshot.startswith(SNAP):
                leaf = path.removeprefix(f"{self._zfs.dataset}/")
                snapshots.setdefault(leaf, {})[snapshot.removeprefix(SNAP)] = number_in(used, f"used of {name}")
        return {
            entry.volume.uuid: Usage(
                entry.facts.number("usedbydataset"),
                {name: used for leaf in (*entry.pasts, entry.leaf) for name, used in snapshots.get(leaf, {}).items()},
            )
            for entry in entries
            if entry.volume is not None and entry.volume.state in (State.READY, State.DELETING)
        }

    async def one(self, entry: Entry, name: str) -> Kept | None:
        """The volume's snapshot of that name."""
        return next((kept for kept in await self.of(entry) if kept.snapshot.name == name), None)

    async def make(self, entry: Entry, name: str) -> Snapshot:
        """Keep the volume's content of now."""
        kept = await self.one(entry, name) if entry.pasts else None
        if kept is None:
            with contextlib.suppress(Present):
                await self._zfs.run("snapshot", f"{self._tree.path(entry.leaf)}@{SNAP}{name}")
            kept = await self.one(entry, name)
        if kept is None:
            assert entry.volume is not None
            raise rules.no_snapshot(entry.volume, name)
        return kept.snapshot

    async def delete(self, entry: Entry, name: str) -> None:
        """Remove it; its clones keep what they need of it."""
        kept = await self.one(entry, name)
        if kept is None:
            return
        path = self._tree.path(kept.at)
        try:
            await self._zfs.run("destroy", path)
        except Dependents:
            # It lives as long as its clones, but its name is free.
            aside = self._tree.path(f"{kept.leaf}@{deleted()}")
            await self._zfs.run("rename", path, aside)
            await self._zfs.run("destroy", "-d", aside)
        except Missing:
            return
        if kept.leaf.startswith(PAST):
            await self._removal.useless(kept.leaf)

    async def revert(self, entry: Entry, name: str) -> Volume:
        """Put a clone of the snapshot in the volume's place, by two renames; `open` finishes them after a crash."""
        volume = entry.volume
        assert volume is not None
        kept = await self.one(entry, name)
        if kept is None:
            raise rules.no_snapshot(volume, name)
        await self._devices.check_closed(entry.leaf, volume.name)
        back, aside = BACK + volume.uuid, past(volume.uuid, len(entry.pasts) + 1)
        try:
            await self._clone(kept, back, volume, len(entry.pasts) + 1)
        except Present:
            # Of a revert that did not come to its end.
            await self._removal.drop(back)
            await self._clone(kept, back, volume, len(entry.pasts) + 1)
        await self._exchange(entry.leaf, back, aside)
        await self._removal.spare(aside)
        return msgspec.structs.replace(volume, size_bytes=kept.snapshot.size_bytes)

    async def _clone(self, kept: Kept, back: str, volume: Volume, reverts: int) -> None:
        facts = settings(volume, past=str(reverts))
        options = [word for setting in (*self._builder.given(volume.attributes), *facts) for word in ("-o", setting)]
        await self._zfs.run("clone", *options, self._tree.path(kept.at), self._tree.path(back))
        await self._builder.reserve(self._tree.path(back), volume.attributes)

    async def _exchange(self, leaf: str, new: str, aside: str) -> None:
        await self._zfs.run("rename", self._tree.path(leaf), self._tree.path(aside))
        try:
            await self._zfs.run("rename", self._tree.path(new), self._tree.path(leaf))
        except BaseException:
            await self._zfs.run("rename", self._tree.path(aside), self._tree.path(leaf))
            raise
