"""Making zvols: empty ones, and clones of a moment of another, in time that does not depend on the size."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping

from onelun.errors import Rejected
from onelun.model import Attributes, Owner, State, Volume, Wipe
from onelun.nas.backends import rules
from onelun.nas.backends.zfs.command import Missing, Present, Zfs
from onelun.nas.backends.zfs.places import CLONE, NEW
from onelun.nas.backends.zfs.properties import settings
from onelun.nas.backends.zfs.tree import Entry, Tree

MIB = 1 << 20
_BLOCKS = {"512": 512, **{f"{number}k": number << 10 for number in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)}, "1m": MIB}
# 16K is what OpenZFS 2.2 chose after 8K had wasted space on raidz and on disks with 4K sectors.
_BLOCK = "16K"
_SETTABLE = (
    *("checksum", "compression", "copies", "dedup", "logbias", "primarycache", "redundant_metadata", "refreservation"),
    *("secondarycache", "sync", "volblocksize"),
)
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.,-]*")


class Builder:
    """Builds the volumes of one pool with the configured properties."""

    def __init__(self, zfs: Zfs, tree: Tree, properties: Mapping[str, str]) -> None:
        """Raises Rejected for a property that a volume of ours cannot have."""
        self._zfs = zfs
        self._tree = tree
        checked = _checked(zfs.pool, properties)
        self._block = checked.pop("volblocksize", _BLOCK)
        self._thick = checked.pop("refreservation", "none") == "auto"
        self._given = checked

    async def accept(self, attributes: Attributes) -> None:
        """Raises Rejected for what no zvol can have."""
        if attributes.wipe is Wipe.ZERO:
            reason = "ZFS writes zeros elsewhere than over the blocks that it frees, and nobody reads those; use none or discard"
            raise rules.refused(self._zfs.pool, "zfs", "WIPE", "zero", reason)
        if attributes.wipe is Wipe.DISCARD and await self._zfs.zpool_facts("autotrim") != ["on"]:
            reason = (
                f"its zpool does not discard what is freed: run zpool set autotrim=on {self._zfs.zpool}, or use none"
            )
            raise rules.refused(self._zfs.pool, "zfs", "WIPE", "discard", reason)

    def given(self, attributes: Attributes) -> tuple[str, ...]:
        """`property=value` for what a zvol with these attributes is given when it is made, but for its size and blocks."""
        asked = {"compression": attributes.compression} if attributes.compression is not None else {}
        return tuple(f"{name}={value}" for name, value in (self._given | asked).items())

    def is_thick(self, attributes: Attributes) -> bool:
        """Whether all of its size is set aside: as it asks, or else as the pool is configured."""
        if attributes.provisioning is None:
            return self._thick
        return attributes.thick

    def volume(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes, origin: str | None = None
    ) -> Volume:
        """The facts of one that is to be built."""
        return Volume(
            pool=self._zfs.pool,
            name=name,
            uuid=uuid,
            size_bytes=size_bytes,
            state=State.BUILDING,
            owner=owner,
            origin=origin,
            made_at=time.time(),
            attributes=attributes,
        )

    async def empty(self, volume: Volume, agent: str) -> None:
        """A new zvol, thin unless it or the pool's `refreservation` asks for another."""
        thin = () if self.is_thick(volume.attributes) else ("-s",)
        block = volume.attributes.volblocksize_bytes or self._block
        given = (*self.given(volume.attributes), f"volblocksize={block}")
        options = _options((*given, *settings(volume, made_by=agent)))
        await self._zfs.run("create", *thin, *options, "-V", str(volume.size_bytes), self._tree.path(NEW + volume.uuid))
        self._tree.remember(volume)

    async def clone(self, volume: Volume, agent: str, origin: Entry, at: str | None, of_bytes: int) -> None:
        """A clone of the origin's content of now, or of its snapshot `at` (its name behind the pool's dataset)."""
        options = [*self.given(volume.attributes), *settings(volume, made_by=agent)]
        if volume.size_bytes != of_bytes:
            options.append(f"volsize={volume.size_bytes}")
        new = self._tree.path(NEW + volume.uuid)
        async with contextlib.AsyncExitStack() as undo:
            if at is None:
                at = f"{origin.leaf}@{CLONE}{volume.uuid}"
                await self._moment(self._tree.path(at))
                # Marked at once: it lives exactly as long as the clone does, and goes when there is none.
                undo.push_async_callback(self._mark, self._tree.path(at))
            await self._zfs.run("clone", *_options(options), self._tree.path(at), new)
        await self.reserve(new, volume.attributes)
        self._tree.remember(volume)

    async def reserve(self, path: str, attributes: Attributes) -> None:
        """Set the whole size of a clone aside, where that is asked: a clone itself never has a reservation."""
        if self.is_thick(attributes):
            await self._zfs.run("set", "refreservation=auto", path)

    async def _moment(self, path: str) -> None:
        try:
            await self._zfs.run("snapshot", path)
        except Present:
            # Of an attempt that was interrupted, and older than the origin's content of now.
            await self._mark(path)
            await self._zfs.run("snapshot", path)

    async def _mark(self, path: str) -> None:
        with contextlib.suppress(Missing):
            await self._zfs.run("destroy", "-d", path)


def rounded(size_bytes: int) -> int:
    """The next whole MiB: a multiple of any volblocksize, so that a later one changes no size."""
    return -(-size_bytes // MIB) * MIB


def _options(settings_: Iterable[str]) -> list[str]:
    return [word for one in settings_ for word in ("-o", one)]


def _checked(pool: str, properties: Mapping[str, str]) -> dict[str, str]:
    for name, value in properties.items():
        if name not in _SETTABLE:
            raise Rejected(f"pool {pool}: {name} is no property for a volume; there are: {', '.join(_SETTABLE)}")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise Rejected(f"pool {pool}: {value!r} is no value for the property {name}")
    if properties.get("volblocksize", _BLOCK).lower() not in (*_BLOCKS, *map(str, _BLOCKS.values())):
        raise Rejected(f"pool {pool}: volblocksize must be a power of two from 512 to 1M, such as {_BLOCK}")
    if properties.get("sync") == "disabled":
        raise Rejected(f"pool {pool}: sync=disabled would lose what a guest has flushed")
    if properties.get("refreservation", "auto") not in ("auto", "none"):
        raise Rejected(f"pool {pool}: refreservation must be auto (every volume's size is set aside) or none")
    return dict(properties)
