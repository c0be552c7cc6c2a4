"""What changed between two snapshots of files, by where their blocks lie: the same place means the same content.

A block that a snapshot has is never written again, and its place is nobody else's while the snapshot lives. So what two
snapshots share is equal; what they do not share may differ. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from onelun.errors import Busy, Cancelled
from onelun.model import Extent, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.changes import merged
from onelun.nas.backends.file.copying import share_blocks
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.extents import NO_FIEMAP, mapped
from onelun.nas.backends.file.snapshots import FileSnapshots, data_file
from onelun.nas.backends.file.tree import Tree

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR)
_UNTOLD = "its filesystem does not share blocks between files"


class Stretch(NamedTuple):
    """The bytes up to `end`: `shift` is how far behind its offset in the file each lies; None for zeros, of no block.

    What is not `sure` is equal to nothing.
    """

    end: int
    shift: int | None
    sure: bool = True


class FileChanges:
    """The changes of a pool's volumes."""

    def __init__(self, directory: PoolDirectory, tree: Tree, snapshots: FileSnapshots) -> None:
        self._directory = directory
        self._tree = tree
        self._snapshots = snapshots

    def changed(self, volume: Volume, since: str, until: str, stop: threading.Event) -> list[Extent]:
        """What may differ. Raises Cancelled when `stop` is set, Busy when the filesystem moves blocks meanwhile."""
        with self._directory.root() as root:
            entry = self._tree.present(root, volume)
            size = [self._snapshots.of(root, volume, name).size_bytes for name in (since, until)][1]
            if since == until:
                return []
            with (
                self._tree.opened(root, entry.directory) as directory,
                self._tree.data(directory, data_file(since)) as before,
                self._tree.data(directory, data_file(until)) as after,
            ):
                if not _shares(directory):
                    raise rules.untold(volume, since, _UNTOLD)
                try:
                    return _compared(before, after, size, stop)
                except OSError as error:
                    if error.errno in NO_FIEMAP:
                        raise rules.untold(volume, since, _UNTOLD) from None
                    raise


def differing(before: Iterator[Stretch], after: Iterator[Stretch]) -> Iterator[Extent]:
    """Where two files of the same length may differ, by their stretches."""
    one, other, start = next(before, None), next(after, None), 0
    while one is not None and other is not None:
        end = min(one.end, other.end)
        if not (one.sure and other.sure and one.shift == other.shift):
            yield Extent(start, end - start, data=not other.sure or other.shift is not None)
        start = end
        one = next(before, None) if one.end == end else one
        other = next(after, None) if other.end == end else other


def _compared(before: int, after: int, size: int, stop: threading.Event) -> list[Extent]:
    told = _digest(before, size, stop)
    extents = merged(differing(_stretches(before, size, stop), _stretches(after, size, stop)), size)
    # Where the one was and the other is now is no comparison: balancing and defragmenting move blocks.
    if _digest(before, size, stop) != told:
        raise Busy("the filesystem moved blocks of the snapshot while it told where they are: repeat it later")
    return extents


def _stretches(file: int, size: int, stop: threading.Event) -> Iterator[Stretch]:
    """All of the file's first `size` bytes; zeros behind its end."""
    at, last = 0, min(size, os.fstat(file).st_size)
    for extent in mapped(file, sync=True):
        if stop.is_set():
            raise Cancelled("the search for what changed was cancelled")
        if extent.start >= last:
            break
        if extent.start > at:
            yield Stretch(extent.start, None)
        at = min(extent.start + extent.length, last)
        yield Stretch(at, None if extent.unwritten else extent.physical - extent.start, sure=not extent.vague)
    if at < size:
        yield Stretch(size, None)


def _digest(file: int, size: int, stop: threading.Event) -> int:
    """A number that tells where the file's blocks lie, however the filesystem cuts them into pieces."""
    told, before = 0, None
    for stretch in _stretches(file, size, stop):
        if before is not None and before[1:] != stretch[1:]:
            told = zlib.crc32(repr(tuple(before)).encode(), told)
        before = stretch
    return zlib.crc32(repr(before).encode(), told)


def _shares(directory: int) -> bool:
    """Whether files in the open directory can share blocks, which is found out by trying with two that have no name."""
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    with contextlib.ExitStack() as opened:
        try:
            files = []
            for _ in range(2):
                files.append(os.open(".", flags, 0o600, dir_fd=directory))
                opened.callback(os.close, files[-1])
            return share_blocks(*files)
        except OSError as error:
            # Without such files (EISDIR is said by a filesystem that ignores the flag) nothing that we know shares blocks.
            if error.errno in _NO_TMPFILE:
                return False
            raise
