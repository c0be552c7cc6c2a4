"""The nouns of onelun, as frozen values. Sizes are bytes; times are seconds since the epoch."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

# zfsprops(7), "compression".
_COMPRESSION = re.compile(
    r"on|off|lz4|lzjb|zle|gzip(?:-[1-9])?|zstd(?:-(?:[1-9]|1[0-9]))?|zstd-fast(?:-(?:[1-9]|[1-9]0|100|500|1000))?"
)
_BLOCK_BYTES = tuple(1 << exponent for exponent in range(9, 21))


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


class Provisioning(StrEnum):
    """When a volume takes its size from the pool."""

    THIN = "thin"  # block by block, as they are written
    THICK = "thick"  # all of it at once: what was promised can be written


class Wipe(StrEnum):
    """What is done with a volume's blocks when it is destroyed. Another volume never reads them, whatever this says."""

    NONE = "none"
    DISCARD = "discard"  # the disks below are told that the blocks are free
    ZERO = "zero"  # the blocks are written over


class Attributes(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a volume is kept, as far as somebody asked for something; what is None is left to its pool.

    `volblocksize_bytes` is a power of two from 512 bytes to 1 MiB, `compression` one of ZFS's words for it; else ValueError.
    """

    volblocksize_bytes: int | None = None
    compression: str | None = None
    provisioning: Provisioning | None = None
    wipe: Wipe | None = None

    def __post_init__(self) -> None:
        if self.volblocksize_bytes is not None and self.volblocksize_bytes not in _BLOCK_BYTES:
            raise ValueError("it should be a power of two from 512 bytes to 1M, such as 16K")
        if self.compression is not None and not _COMPRESSION.fullmatch(self.compression):
            raise ValueError("it should be on, off, lz4, lzjb, zle, gzip, gzip-N, zstd, zstd-N or zstd-fast-N")

    def over(self, other: Attributes) -> Attributes:
        """These, and the other's where these ask for nothing."""
        mine = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(other, **mine)

    def of_clone(self, origin: Attributes) -> Attributes:
        """What a clone has for which these are asked: what is not asked, and the size of its blocks, is its origin's."""
        return msgspec.structs.replace(self.over(origin), volblocksize_bytes=origin.volblocksize_bytes)

    @property
    def thick(self) -> bool:
        """Whether all of its size is asked for at once."""
        return self.provisioning is Provisioning.THICK

    @property
    def wiped(self) -> bool:
        """Whether destroying takes more than giving the blocks back."""
        return self.wipe not in (None, Wipe.NONE)


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
    snapshot it was flattened, and `last_epoch` is the highest epoch it had. `attributes` are those that it was made with.
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
    attributes: Attributes = Attributes()


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
