"""Where the blocks of a file lie, as its filesystem tells it (ioctl FS_IOC_FIEMAP)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

# linux/fiemap.h: struct fiemap, struct fiemap_extent, and FS_IOC_FIEMAP, _IOWR('f', 11, struct fiemap).
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_FIEMAP = 0xC020660B
_SYNC = 0x1
_LAST = 0x1
_UNWRITTEN = 0x800
_SHARED = 0x2000
# Unknown, not given a place yet, encoded, encrypted, not of whole blocks, within metadata, packed with others.
_VAGUE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
_AT_ONCE = 128
# What a filesystem says that does not tell.
NO_FIEMAP = (errno.EOPNOTSUPP, errno.ENOTTY)


class Mapped(NamedTuple):
    """`length` bytes of a file from `start`, and where they lie: `physical`, in bytes of the filesystem's own counting."""

    start: int
    physical: int
    length: int
    flags: int

    @property
    def shared(self) -> bool:
        """Whether another file has the blocks too."""
        return bool(self.flags & _SHARED)

    @property
    def unwritten(self) -> bool:
        """Whether they are reserved only, and read as zeros."""
        return bool(self.flags & _UNWRITTEN)

    @property
    def vague(self) -> bool:
        """Whether the place does not tell the content apart, such as that of compressed blocks, which several may name."""
        return bool(self.flags & _VAGUE)


def mapped(file: int, *, sync: bool = False) -> Iterator[Mapped]:
    """The blocks of the open file in their order, holes left out; with `sync` what is not written back yet is first.

    Raises OSError, with one of NO_FIEMAP where the filesystem does not tell.
    """
    start = 0
    while True:
        answer = bytearray(_HEADER.pack(start, (1 << 64) - 1 - start, _SYNC if sync else 0, 0, _AT_ONCE, 0))
        answer += bytes(_EXTENT.size * _AT_ONCE)
        fcntl.ioctl(file, _FIEMAP, answer)
        count = _HEADER.unpack_from(answer)[3]
        for number in range(count):
            extent = Mapped(*_EXTENT.unpack_from(answer, _HEADER.size + number * _EXTENT.size))
            yield extent
            start = extent.start + extent.length
            if extent.flags & _LAST:
                return
        if count == 0:
            return


def exclusive_bytes(file: int) -> int:
    """The bytes of blocks that only this open file has; all of its blocks where the filesystem does not tell.

    btrfs tells of compressed blocks how long they are when read. Raises OSError.
    """
    try:
        return sum(length for _, length in exclusive(file))
    except OSError as error:
        if error.errno in NO_FIEMAP:
            return os.fstat(file).st_blocks * 512
        raise


def exclusive(file: int, *, written: bool = False) -> Iterator[tuple[int, int]]:
    """Offset and length, in bytes, of each stretch of blocks that only this open file has; `written` leaves out the rest.

    Raises OSError, with one of NO_FIEMAP where the filesystem does not tell.
    """
    for extent in mapped(file):
        if not (extent.shared or (written and extent.unwritten)):
            yield extent.start, extent.length
