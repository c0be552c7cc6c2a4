"""Which blocks of a file are its own, and not shared with a reflink of it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

# linux/fiemap.h: struct fiemap, struct fiemap_extent, and FS_IOC_FIEMAP, _IOWR('f', 11, struct fiemap).
_HEADER = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_FIEMAP = 0xC020660B
_LAST = 0x1
_SHARED = 0x2000
_AT_ONCE = 128


def exclusive_bytes(file: int) -> int:
    """The bytes of blocks that only this open file has; all of its blocks where the filesystem does not tell.

    btrfs tells of compressed blocks how long they are when read. Raises OSError.
    """
    own = 0
    start = 0
    while True:
        answer = bytearray(_HEADER.pack(start, (1 << 64) - 1 - start, 0, 0, _AT_ONCE, 0))
        answer += bytes(_EXTENT.size * _AT_ONCE)
        try:
            fcntl.ioctl(file, _FIEMAP, answer)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
                return os.fstat(file).st_blocks * 512
            raise
        mapped = _HEADER.unpack_from(answer)[3]
        for number in range(mapped):
            logical, _, length, flags = _EXTENT.unpack_from(answer, _HEADER.size + number * _EXTENT.size)
            own += 0 if flags & _SHARED else length
            start = logical + length
            if flags & _LAST:
                return own
        if mapped == 0:
            return own
