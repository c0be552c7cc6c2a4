"""What was read of the directories of a pool, kept for as long as the files that it was read from are the very same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

_Read = TypeVar("_Read")

# Of a file that changed so recently, another change may not show: times of files advance in steps, and inodes come back.
_SETTLED_NS = 2_000_000_000


class _Stamp(NamedTuple):
    """What tells a file from any other one that ever had its name: facts are replaced by a rename, never written over."""

    device: int
    inode: int
    size: int
    changed_ns: int


class Kept(Generic[_Read]):
    """What is read of each directory, and depends on its `file` alone."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._known: dict[str, tuple[_Stamp, _Read]] = {}

    def walked(self, root: int, read: Callable[[str], _Read | None]) -> list[_Read]:
        """What `read` tells of each directory in the open one, sorted by name, but for those that it tells None of.

        Several threads may walk at once. Raises OSError, and what `read` raises.
        """
        found: list[_Read] = []
        known, seen = self._known, {}
        settled_ns = time.time_ns() - _SETTLED_NS
        for directory in sorted(os.listdir(root)):
            stamp = self._stamp(root, directory)
            before = known.get(directory) if stamp is not None else None
            if before is not None and before[0] == stamp:
                seen[directory] = before
                found.append(before[1])
                continue
            # The stamp is older than what is read now: if the file is another one already, the next walk reads it again.
            told = read(directory)
            if told is not None:
                found.append(told)
                if stamp is not None and stamp.changed_ns < settled_ns:
                    seen[directory] = (stamp, told)
        self._known = seen
        return found

    def _stamp(self, root: int, directory: str) -> _Stamp | None:
        try:
            told = os.stat(f"{directory}/{self._file}", dir_fd=root, follow_symlinks=False)
        except OSError:
            return None
        return _Stamp(told.st_dev, told.st_ino, told.st_size, told.st_ctime_ns)
