"""Writing zeros over the blocks of a file before it is deleted, where that reaches the very blocks.

A filesystem never shows the blocks of a deleted file to another one; this is for what lies below it, such as a disk that
is given away. Blocks that a clone shares stay: they are the clone's, and are written over when that is destroyed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterator

from onelun.errors import Cancelled
from onelun.nas.backends.file.copying import PIECE_BYTES, data_after
from onelun.nas.backends.file.extents import exclusive

# linux/magic.h: XFS, ext2 to ext4, tmpfs. Others, such as btrfs and ZFS, write what is new to another place.
_IN_PLACE = (0x58465342, 0xEF53, 0x01021994)
_SYNC_BYTES = 256 << 20
_ZEROS = bytes(PIECE_BYTES)


def writes_in_place(descriptor: int) -> bool:
    """Whether the filesystem of the open file or directory writes over the blocks that are there. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    # statfs(2): f_type is the first field, as wide as a register; the rest is not read.
    told = ctypes.create_string_buffer(256)
    if libc.fstatfs(descriptor, told) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_ulong.from_buffer(told).value & 0xFFFFFFFF in _IN_PLACE


def write_over(file: int, stop: threading.Event) -> None:
    """Write zeros over each block that only this open file has, durably. Raises Cancelled when `stop` is set, OSError."""
    # Before, blocks that were written late may still be told as never written.
    os.fsync(file)
    unsynced = 0
    for start, length in _own(file):
        for offset in range(start, start + length, PIECE_BYTES):
            if stop.is_set():
                raise Cancelled("writing zeros over a volume was cut off; it is done anew")
            unsynced += os.pwrite(file, _ZEROS[: min(PIECE_BYTES, start + length - offset)], offset)
            if unsynced >= _SYNC_BYTES:
                os.fdatasync(file)
                unsynced = 0
    os.fsync(file)


def _own(file: int) -> Iterator[tuple[int, int]]:
    """Offset and length of what is written in the file and not shared."""
    try:
        yield from exclusive(file, written=True)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        # A filesystem that does not tell where blocks lie cannot share them either.
        size, done = os.fstat(file).st_size, 0
        while done < size:
            start, end = data_after(file, done, size)
            yield start, end - start
            done = end
