"""Copying one file into another, and the system calls for files that Python does not have.

A copy shares blocks where the filesystem can, else it keeps holes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import threading

from onelun.errors import Cancelled, CommandFailed
from onelun.nas.backends.base import Progress

# linux/fs.h: FICLONE is _IOW(0x94, 9, int).
_FICLONE = 0x40049409
# linux/fs.h.
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2

# What a filesystem says that cannot share blocks between these two files (ioctl_ficlone(2)); EPERM and ETXTBSY are
# said of immutable and swap files, which a volume is not.
_NO_SHARING = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS)

PIECE_BYTES = 8 << 20
# A cancelled copy waits for at most this much write-back.
_SYNC_BYTES = 256 << 20


def share_blocks(source: int, target: int) -> bool:
    """Make the file `target` a reflink of `source`; False when the filesystem cannot. Raises OSError otherwise."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_SHARING:
            return False
        raise
    return True


def allocate(file: int, size_bytes: int) -> None:
    """Give the open file all of its blocks, up to that size; what it holds stays.

    Raises OSError, with EOPNOTSUPP where the filesystem cannot: posix_fallocate would write then, and promise nothing.
    """
    while _libc().fallocate(file, 0, ctypes.c_long(0), ctypes.c_long(size_bytes)) != 0:
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))


def copy_sparse(source: int, target: int, progress: Progress, stop: threading.Event) -> None:
    """Copy the data of `source` into the empty file `target`, leaving its holes out.

    `progress` counts holes as done, so that it ends at the file's size. Raises Cancelled when `stop` is set, OSError.
    """
    size = os.fstat(source).st_size
    unsynced = 0
    done = 0
    while done < size:
        start, end = data_after(source, done, size)
        for offset in range(start, end, PIECE_BYTES):
            if stop.is_set():
                raise Cancelled("the copy was cancelled")
            length = min(PIECE_BYTES, end - offset)
            _copy_piece(source, target, offset, length)
            unsynced += length
            if unsynced >= _SYNC_BYTES:
                os.fdatasync(target)
                unsynced = 0
            progress(offset + length, size)
        done = end
    progress(size, size)


def data_after(source: int, offset: int, size: int) -> tuple[int, int]:
    """The next stretch of data at or after `offset`; an empty one at the end when only a hole follows."""
    try:
        start = os.lseek(source, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        raise
    return min(start, size), min(os.lseek(source, start, os.SEEK_HOLE), size)


def _copy_piece(source: int, target: int, offset: int, length: int) -> None:
    while length > 0:
        try:
            copied = os.copy_file_range(source, target, length, offset, offset)
        except OSError as error:
            if error.errno not in _NO_SHARING:
                raise
            copied = os.pwrite(target, os.pread(source, length, offset), offset)
        if copied == 0:
            raise CommandFailed("the volume that is copied became shorter meanwhile")
        offset += copied
        length -= copied


def rename_new(old: str, new: str, *, dir_fd: int) -> None:
    """Rename within one directory; unlike os.rename never over anything. Raises FileExistsError, OSError."""
    _renameat2(dir_fd, old, new, _RENAME_NOREPLACE)


def exchange(one: str, other: str, *, dir_fd: int) -> None:
    """Swap two names of one directory in one step, so that each always names something. Raises OSError."""
    _renameat2(dir_fd, one, other, _RENAME_EXCHANGE)


@functools.cache
def _libc() -> ctypes.CDLL:
    """The C library. Each CDLL makes a class, which only the collector of cycles takes away."""
    return ctypes.CDLL(None, use_errno=True)


def _renameat2(dir_fd: int, old: str, new: str, flags: int) -> None:
    if _libc().renameat2(dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)
