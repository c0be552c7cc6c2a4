"""The nouns of onelun, as frozen values. Sizes are bytes; times are seconds since the epoch."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What a volume is for, which decides who may destroy it."""

    IMAGE = "image"  # an image of a datastore: only `rm` destroys it, through the trash
    DISK = "disk"  # a VM's own disk: `delete` destroys it
    VOLATILE = "volatile"  # a VM's disk without an image
    CHECKPOINT = "checkpoint"  # a VM's memory while the VM is nowhere
    PLAIN = "plain"  # made by a caller of the bare protocol, of no cloud


OF_A_VM = frozenset({Kind.DISK, Kind.VOLATILE, Kind.CHECKPOINT})
"""What goes with its VM: one of an earlier life of the same ids makes way."""


class State(StrEnum):
    """How far a volume is. Only a ready one is cloned, or exported to anybody but its builder."""

    BUILDING = "building"
    READY = "ready"
    DELETING = "deleting"
    TRASH = "trash"


class Filesystem(StrEnum):
    """What a new volume can be formatted with, on the whole device."""

    EXT2 = "ext2"
    EXT3 = "ext3"
    EXT4 = "ext4"
    XFS = "xfs"
    BTRFS = "btrfs"
    VFAT = "vfat"
    NTFS = "ntfs"
    SWAP = "swap"


class Owner(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a volume belongs to, as it is written in the volume's own properties.

    An image is told apart from a later one of the same id by `regtime` (OpenNebula's REGTIME); a disk is named by
    the ids of its VM and disk.
    """

    kind: Kind
    cloud: str | None = None
    image_id: int | None = None
    regtime: int | None = None
    vm_id: int | None = None
    disk_id: int | None = None


class Attachment(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fact that one host may hold a device for a volume, written into the volume before its export.

    `epoch` is never used twice for one volume. `initiator` is the iSCSI name that the target is bound to. `beside` is
    the host that has the volume too while a migration from it runs.
    """

    host: str
    initiator: str
    epoch: int
    readonly: bool = False
    beside: str | None = None


class Volume(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named block device in a pool, as its storage tells it.

    A building volume has no place under its name yet: `name` is the name it will have. `origin` is the UUID of the
    volume it was cloned from. `connected` is true once any host was ever given the volume. `filled_from` says
    which VM's disk was last saved into this one (cloud, VM, disk, UUID, and for a copy its moment), or to which
    snapshot it was flattened, and `last_epoch` is the highest epoch it had.
    """

    pool: str
    name: str
    uuid: str
    size_bytes: int
    state: State
    owner: Owner
    origin: str | None = None
    filled_from: str | None = None
    made_at: float = 0.0
    connected: bool = False
    last_epoch: int = 0
    attachments: tuple[Attachment, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """A read-only moment of a volume. `size_bytes` is the volume's size then, `used_bytes` what only it holds."""

    name: str
    made_at: float
    size_bytes: int
    used_bytes: int = 0


class Usage(msgspec.Struct, frozen=True):
    """What a volume takes of its pool, in bytes, and beside that, by name, what each of its snapshots alone holds."""

    used_bytes: int
    snapshots: dict[str, int] = {}


class Extent(msgspec.Struct, frozen=True):
    """A range of a volume that may differ between two of its snapshots, in bytes.

    Without `data` it reads as zeros in the later one: it was written with zeros, or discarded.
    """

    offset: int
    length: int
    data: bool

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


class Capacity(msgspec.Struct, frozen=True):
    """What a pool can really give. `free_bytes` may be less than total minus used (reservations, snapshots)."""

    total_bytes: int
    used_bytes: int
    free_bytes: int


class Portal(msgspec.Struct, frozen=True):
    """Where a target listens."""

    address: str
    port: int = 3260

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Target(msgspec.Struct, frozen=True):
    """One export as an iSCSI target: of one volume, for one initiator, with an account of its own.

    `device` is the path that the exporter opens, `uuid` the volume's, which becomes the LUN's SCSI identity. `user` is
    `naming.target_account(iqn)`.
    """

    iqn: str
    device: str
    uuid: str
    size_bytes: int
    initiator: str
    user: str
    secret: str
    readonly: bool = False

    def __repr__(self) -> str:
        return f"Target({self.iqn!r} of {self.device!r} for {self.initiator!r})"
