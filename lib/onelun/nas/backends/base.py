"""What every backend does. This file is the specification; tests/contract runs one suite on every implementation.

A volume is built invisibly, under its UUID, and becomes visible by `publish`, its last act, which is atomic: a reader
sees no volume of that name, or a complete one. Every fact about a volume lives in the volume's own properties, so that a
lost catalogue loses no volume.

All methods may be repeated. Raised anywhere: CommandFailed (a tool or the storage failed), Rejected for a pool that is not
ours to change. A cancelled method leaves at most a building volume, which `destroy` removes. A size is a positive multiple of
512 bytes, else Rejected. A pool that is gone is CommandFailed, never a pool without volumes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from onelun.model import Attributes, Capacity, Extent, Owner, Snapshot, Usage, Volume

Progress = Callable[[int, int], None]
# What a volume is to say of itself, made of what it says.
Change = Callable[[Volume], Volume]
"""Called by the work itself with bytes done and bytes in all; from any thread."""
# As its pool keeps everything.
PLAIN = Attributes()

MAX_EXTENTS = 16384
"""So many extents `changed` returns at most: a reply of half a MiB."""


class Backend(ABC):
    """The volumes of one pool."""

    pool: str

    @abstractmethod
    async def check(self, agent: str, cloud: str | None) -> list[str]:
        """What stands in the way of this pool, or soon will, each as one sentence that says what to do; changes nothing.

        It finds what `open` would raise with the same arguments, and more: a pool close to full, a service or a module that
        is missing.
        """

    @abstractmethod
    async def open(self, agent: str, cloud: str | None) -> None:
        """Check that the pool is usable and belongs to this agent (a UUID); an unowned pool becomes its.

        The cloud of the first volume that has one is the pool's; `cloud`, and every later volume's, must be the same one or
        none. Repeating it succeeds. Raises Conflict for another cloud's pool and when another agent owns it (`take`
        changes that), NotFound when there is no pool, Rejected when it cannot be written.
        """

    @abstractmethod
    async def take(self, agent: str) -> None:
        """Make `agent` the owner of the pool, whoever was."""

    @abstractmethod
    async def serial(self) -> int:
        """The catalogue serial number that the pool holds; 0 for a new pool."""

    @abstractmethod
    async def set_serial(self, serial: int) -> None:
        """Keep the catalogue's serial number, durably."""

    @abstractmethod
    async def capacity(self) -> Capacity:
        """What the pool can really give, now."""

    def rounded(self, size_bytes: int) -> int:
        """The size that a volume gets for which `size_bytes` are asked: the next one that the open pool can give.

        Create, clone and grow round so themselves; who asks whether a volume has a size compares with this one. It is
        `size_bytes` itself where the pool gives any size.
        """
        return size_bytes

    @abstractmethod
    async def volumes(self) -> list[Volume]:
        """Every volume of ours in the pool: visible ones, building ones, and those in the trash. Foreign ones are not listed."""

    @abstractmethod
    async def find(self, name: str) -> Volume | None:
        """The visible volume (ready or deleting) of that name."""

    @abstractmethod
    async def find_uuid(self, uuid: str) -> Volume | None:
        """The volume with that UUID, in whichever state."""

    @abstractmethod
    async def accept(self, attributes: Attributes) -> None:
        """Raise Rejected, naming the attribute and the kind of the pool, when no volume here can have them.

        Who creates or clones with attributes has had them accepted.
        """

    @abstractmethod
    async def create(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes = PLAIN
    ) -> Volume:
        """Build an empty volume that reads as zeros; it is building. Repeated with equal facts it returns the one there is.

        Raises OutOfSpace, Conflict when the UUID exists with other facts.
        """

    @abstractmethod
    async def clone(
        self,
        origin: Volume,
        name: str,
        uuid: str,
        size_bytes: int,
        owner: Owner,
        progress: Progress,
        *,
        snapshot: str | None = None,
        attributes: Attributes = PLAIN,
    ) -> Volume:
        """Build a volume with the content of `origin`, which must be ready; bytes beyond the origin's read as zeros.

        With `snapshot`, the content that the origin's snapshot of that name has; NotFound without it. `attributes` are all
        that it has: nothing is taken from the origin but the size of its blocks, which cannot be another one.

        `size_bytes` is at least the origin's (the snapshot's), else Rejected; an origin that is there and not ready is a
        Conflict. Without copying where the storage can; else a copy that keeps holes and calls `progress`. Repeated for the
        same UUID while it is building it starts anew. Raises NotFound, OutOfSpace.
        """

    @abstractmethod
    async def publish(self, uuid: str, *, replace: str | None = None) -> Volume:
        """Make the building volume `uuid` durable, ready and visible under its name, atomically.

        Publishing a ready one returns it.
        With `replace`, the UUID of the volume that has the name now, that one goes to the trash in the same step.
        Raises NotFound without such a building volume, Conflict when the name is taken by another UUID.
        """

    @abstractmethod
    async def record(self, name: str, uuid: str, change: Change, *, idle: bool = False) -> Volume:
        """Change the volume's facts (attachments, connected, last_epoch, state, filled_from, owner), durably and in one act.

        `change` is given what the pool says now and returns what it is to say, so that nobody's facts are written over.
        Name, UUID and size are not changed by it; the same facts again write nothing. `idle`: the device is about to be
        deactivated when no attachment is left, which may be done with it. Raises NotFound when no volume has that UUID.
        """

    @abstractmethod
    async def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """Make it `size_bytes` long, the new bytes being zeros. The same size again succeeds; a smaller one is Rejected."""

    @abstractmethod
    async def trash(self, volume: Volume) -> None:
        """Take the volume, visible or building, out of sight, keeping its data until `purge`.

        Absent, or another UUID of that name: nothing.
        """

    @abstractmethod
    async def destroy(self, volume: Volume) -> None:
        """Remove the volume with that UUID, whatever its state, with its data and its snapshots; its clones live on.

        Its blocks are wiped first as its attributes ask, but for those that others share, which may take as long as writing
        them. Interrupted, it is there still, and a repeat begins anew. Absent: nothing. Raises Busy while it is open.
        """

    @abstractmethod
    async def purge(self, older_than: float) -> int:
        """Destroy what was put into the trash before that time (seconds since the epoch); return how many.

        What is no image and only waits there to be wiped is destroyed whenever it was put there.
        """

    @abstractmethod
    async def snapshot(self, volume: Volume, name: str) -> Snapshot:
        """Keep the ready volume's content of now as the snapshot `name`, without copying where the storage can.

        There already: that one is returned. What an initiator has not flushed is not in it. Raises OutOfSpace, NotFound
        without the volume, Conflict when it is not ready, Busy when it can only be copied and somebody writes meanwhile.
        """

    @abstractmethod
    async def snapshots(self, volume: Volume) -> list[Snapshot]:
        """The snapshots of a volume in whichever state, the oldest first. Raises NotFound without the volume."""

    @abstractmethod
    async def revert(self, volume: Volume, name: str) -> Volume:
        """Give the ready volume the content and the size that it had at the snapshot; atomic, and all snapshots live on.

        Name, UUID, owner and attachments stay. The caller sees to it that nobody has the device. Raises NotFound without
        the snapshot, Busy while the device is open.
        """

    @abstractmethod
    async def delete_snapshot(self, volume: Volume, name: str) -> None:
        """Remove the snapshot. It, or the volume, absent: nothing. What was cloned from it, or reverted to it, lives on."""

    @abstractmethod
    async def changed(self, volume: Volume, since: str, until: str) -> list[Extent]:
        """What may differ between two snapshots of the volume, as the storage tells it; nothing of their content is compared.

        Sorted, not overlapping, at most MAX_EXTENTS, none beyond the end of `until`. They cover every byte that differs. A
        range with data may be unchanged; one without reads as zeros in `until`. Where `until` is the longer one, what lies
        beyond the end of `since` counts as having been zeros. The same snapshot twice: nothing.

        It changes nothing, may be repeated, runs beside other work, and ends early when it is cancelled. Raises NotFound
        without the volume or one of the snapshots, Conflict when the storage cannot tell (a full backup is needed then),
        Busy when the storage was moving its blocks meanwhile.
        """

    @abstractmethod
    def device(self, volume: Volume) -> str:
        """The path that an exporter opens for it, building or ready, once `activate` has returned."""

    @abstractmethod
    async def activate(self, volume: Volume) -> str:
        """Make the device ready to be opened and return its path, as `device` tells it.

        Raises NotFound without the volume, Stalled when the device does not appear in time.
        """

    @abstractmethod
    async def deactivate(self, volume: Volume) -> None:
        """Nobody needs the device now. An open, an absent or an inactive one stays as it is."""

    @abstractmethod
    async def usage(self, volume: Volume) -> int:
        """The bytes that the volume takes from the pool, with its snapshots."""

    @abstractmethod
    async def usages(self) -> dict[str, Usage]:
        """What every visible volume takes, by UUID, read for all of them at once; what others share is counted as by `usage`."""

    @abstractmethod
    async def foreign(self, name: str) -> bool:
        """Whether something lies in the pool's place under that name that is nobody's, and that `adopt` might take."""

    @abstractmethod
    async def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """Make what lies in the pool's place as `found`, and is nobody's, the ready volume `name`. Its data is not touched.

        Until the last act it is what it was. One that was cut off is ended by a repeat, which may bring another UUID than it
        is given. The volume counts as connected, and `filled_from` says what it was, so that nobody takes it for an empty one.

        Raises NotFound, Conflict when it is ours already or the name is taken, Busy while it is open or mounted, Rejected
        for what is no block device of this kind of pool or has a size that no volume has.
        """

    @abstractmethod
    async def release(self, volume: Volume) -> str:
        """Let go of the ready volume with its data, as something that is nobody's, and return its name in the pool's place.

        The caller sees to it that it has no snapshots and that no host has it. Raises NotFound, Conflict when it is not ready.
        """
