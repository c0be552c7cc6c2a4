"""What a pool in memory keeps: its volumes by UUID, each with its blocks and those of its snapshots."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from onelun.errors import OutOfSpace, Rejected
from onelun.model import Attributes, Owner, Snapshot, State, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.memory.blocks import Blocks, bytes_alone, bytes_of, read, written

_VISIBLE = (State.READY, State.DELETING)


@dataclass
class Moment:
    """A snapshot and what it holds."""

    snapshot: Snapshot
    blocks: Blocks


@dataclass
class Kept:
    """A volume and what it holds."""

    volume: Volume
    blocks: Blocks = field(default_factory=dict)
    trashed_at: float = 0.0
    moments: dict[str, Moment] = field(default_factory=dict)

    def visible(self) -> bool:
        """Whether its name is taken by it."""
        return self.volume.state in _VISIBLE

    def layers(self) -> list[Blocks]:
        """The volume's own blocks and those of its snapshots."""
        return [self.blocks, *(moment.blocks for moment in self.moments.values())]

    def read(self, offset: int, length: int) -> bytes:
        """Its content, up to its end."""
        return read(self.blocks, offset, max(0, min(length, self.volume.size_bytes - offset)))

    def to_trash(self) -> None:
        """Take it out of sight."""
        self.volume = msgspec.structs.replace(self.volume, state=State.TRASH)
        self.trashed_at = time.time()


class Shelf:
    """The volumes of the pool `pool`, which has `total_bytes`."""

    def __init__(self, pool: str, total_bytes: int) -> None:
        self._pool = pool
        self.total_bytes = total_bytes
        self.by_uuid: dict[str, Kept] = {}
        self.foreign: dict[str, tuple[int, Blocks]] = {}  # name → size and content of what is nobody's

    def used_bytes(self) -> int:
        """What all of it takes; blocks that are shared count once."""
        return bytes_of(self._layers())

    def named(self, name: str) -> Kept | None:
        """The visible one of that name."""
        return next((kept for kept in self.by_uuid.values() if kept.visible() and kept.volume.name == name), None)

    def present(self, volume: Volume) -> Kept:
        """What is kept of it. Raises NotFound."""
        if volume.uuid not in self.by_uuid:
            raise rules.no_volume(volume)
        return self.by_uuid[volume.uuid]

    def ready(self, volume: Volume) -> Kept:
        """Like `present`. Raises Conflict, too, when it is not ready."""
        kept = self.by_uuid.get(volume.uuid)
        rules.check_ready(volume, kept.volume if kept is not None else None)
        return self.present(volume)

    def build(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, origin: str | None, attributes: Attributes
    ) -> Volume:
        """Keep a new volume, invisible and empty."""
        volume = Volume(
            pool=self._pool,
            name=name,
            uuid=uuid,
            size_bytes=size_bytes,
            state=State.BUILDING,
            owner=owner,
            origin=origin,
            made_at=time.time(),
            attributes=attributes,
        )
        self.by_uuid[uuid] = Kept(volume)
        return volume

    def write(self, kept: Kept, offset: int, content: bytes) -> None:
        """Write into it. Raises Rejected beyond the end, OutOfSpace when the pool is full."""
        if offset < 0 or offset + len(content) > kept.volume.size_bytes:
            raise Rejected(f"{kept.volume.name} ends at {kept.volume.size_bytes}")
        before = kept.blocks
        kept.blocks = written(kept.blocks, offset, content)
        if self.used_bytes() > self.total_bytes:
            kept.blocks = before
            raise OutOfSpace(f"pool {self._pool} is full", pool=self._pool)

    def measured(self, moment: Moment) -> Snapshot:
        """The snapshot with the bytes that would be free without it."""
        others = (layer for layer in self._layers() if layer is not moment.blocks)
        return msgspec.structs.replace(moment.snapshot, used_bytes=bytes_alone(moment.blocks, others))

    def _layers(self) -> Iterator[Blocks]:
        return (layer for kept in self.by_uuid.values() for layer in kept.layers())
