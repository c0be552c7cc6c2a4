"""What the backend `file` does, step by step. Everything here blocks; `file` runs it in threads."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

import msgspec

from onelun.errors import Rejected
from onelun.model import State, Usage, Volume, Wipe
from onelun.nas.backends import rules
from onelun.nas.backends.base import Change
from onelun.nas.backends.file.building import FileBuilding, has_size
from onelun.nas.backends.file.changes import FileChanges
from onelun.nas.backends.file.copying import allocate
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.names import DATA_FILE, SNAPSHOT_DATA, TRASH, holds_content
from onelun.nas.backends.file.sidecar import VOLUME_FILE
from onelun.nas.backends.file.snapshots import FileSnapshots
from onelun.nas.backends.file.tree import Entry, Tree
from onelun.nas.backends.file.wiping import write_over

log = logging.getLogger(__name__)

# What is in the directory of a volume without snapshots, in which nothing was cut off.
_WHOLE = frozenset({DATA_FILE, VOLUME_FILE})


class FilePool:
    """The volumes of a pool."""

    def __init__(self, directory: PoolDirectory) -> None:
        self.pool = directory.pool
        self._directory = directory
        self.tree = Tree(directory.pool)
        self.snapshots = FileSnapshots(directory, self.tree)
        self.building = FileBuilding(directory, self.tree, self.snapshots)
        self.changes = FileChanges(directory, self.tree, self.snapshots)
        # Steps run in threads, and a change of facts is a reading and a writing.
        self._changing = threading.Lock()

    def finish(self) -> None:
        """End what an interruption left half done."""
        with self._directory.owned() as root:
            self.tree.sweep(root)
            for entry in self.tree.entries(root):
                self._finish(root, entry)

    def volumes(self) -> list[Volume]:
        """All of ours."""
        with self._directory.root() as root:
            return [entry.volume for entry in self.tree.entries(root)]

    def find(self, name: str) -> Volume | None:
        """The visible one of that name."""
        with self._directory.root() as root:
            entry = self.tree.visible(root, name)
        return entry.volume if entry is not None else None

    def find_uuid(self, uuid: str) -> Volume | None:
        """The one with that UUID."""
        with self._directory.root() as root:
            entry = self.tree.by_uuid(root, uuid)
        return entry.volume if entry is not None else None

    def record(self, name: str, uuid: str, change: Change) -> Volume:
        """Change the facts that may change."""
        with self._changing, self._directory.owned() as root:
            entry = self.tree.by_uuid(root, uuid, name)
            if entry is None:
                raise rules.none_of(self.pool, name, uuid)
            facts = rules.recorded(entry.volume, change(entry.volume))
            if facts != entry.volume:
                self.tree.write(root, entry._replace(volume=facts), trashed_at=entry.trashed_at)
            return facts

    def grow(self, volume: Volume, size_bytes: int) -> Volume:
        """Make it longer. The data grows first: after a crash in between, `open` counts the new zeros in."""
        with self._directory.owned() as root:
            entry = self.tree.present(root, volume)
            rules.check_grown(entry.volume, size_bytes)
            self._directory.admit(root, entry.volume.name, size_bytes)
            with self.tree.opened(root, entry.directory) as directory:
                self.tree.settle(directory)
                with self.tree.data(directory, write=True) as data:
                    os.ftruncate(data, size_bytes)
                    if entry.volume.attributes.thick:
                        self._allocate_growth(data, entry.volume.size_bytes, size_bytes)
                    os.fsync(data)
            grown = msgspec.structs.replace(entry.volume, size_bytes=size_bytes)
            self.tree.write(root, entry._replace(volume=grown), trashed_at=entry.trashed_at)
            return grown

    def _allocate_growth(self, data: int, old_bytes: int, size_bytes: int) -> None:
        """Give the file all of its blocks; a filesystem that has not so many gets back what it gave."""
        try:
            allocate(data, size_bytes)
        except OSError:
            os.ftruncate(data, old_bytes)
            raise

    def trash(self, volume: Volume) -> None:
        """Put it into the trash."""
        with self._directory.owned() as root:
            entry = self.tree.by_uuid(root, volume.uuid, volume.name)
            if entry is not None and entry.volume.state is not State.TRASH:
                self.tree.write(root, entry, trashed_at=time.time())
                self.tree.move(root, entry.directory, TRASH + volume.uuid)

    def destroy(self, volume: Volume, stop: threading.Event | None = None) -> None:
        """Remove it. Raises Cancelled when `stop` is set while it is written over."""
        with self._directory.owned() as root:
            entry = self.tree.by_uuid(root, volume.uuid, volume.name)
            if entry is not None:
                self._remove(root, entry, stop)

    def purge(self, older_than: float, stop: threading.Event | None = None) -> int:
        """Remove what is long enough in the trash; what fails is left to the next time. Raises Cancelled as above."""
        with self._directory.owned() as root:
            trash = [entry for entry in self.tree.entries(root) if entry.volume.state is State.TRASH]
            overdue = [entry for entry in trash if rules.overdue(entry.volume, entry.trashed_at or 0.0, older_than)]
            count = 0
            for entry in overdue:
                try:
                    self._remove(root, entry, stop)
                    count += 1
                except (OSError, Rejected) as error:
                    log.warning("trash kept=%s pool=%s reason=%s", entry.volume.uuid, self.pool, error)
            return count

    def usage(self, volume: Volume) -> int:
        """The bytes of its blocks and its snapshots'."""
        with self._directory.root() as root:
            entry = self.tree.present(root, volume)
            with self.tree.opened(root, entry.directory) as directory:
                names = [name for name in os.listdir(directory) if name == DATA_FILE or name.endswith(SNAPSHOT_DATA)]
                told = [os.stat(name, dir_fd=directory, follow_symlinks=False) for name in names]
        # stat(2): st_blocks counts units of 512 bytes, whatever the filesystem's block is.
        return sum(each.st_blocks * 512 for each in told)

    def usages(self) -> dict[str, Usage]:
        """What every visible volume takes. One that goes meanwhile is left out."""
        found = {}
        with self._directory.root() as root:
            for entry in self.tree.entries(root):
                if entry.directory == entry.volume.name:
                    with contextlib.suppress(FileNotFoundError), self.tree.opened(root, entry.directory) as directory:
                        told = os.stat(DATA_FILE, dir_fd=directory, follow_symlinks=False)
                        snapshots = {one.name: one.used_bytes for one in self.snapshots.in_directory(directory)}
                        found[entry.volume.uuid] = Usage(told.st_blocks * 512, snapshots)
        return found

    def activate(self, volume: Volume) -> Volume:
        """See that the data is the volume's, and return the volume as it is now."""
        with self._directory.owned() as root:
            entry = self.tree.present(root, volume)
            with self.tree.opened(root, entry.directory) as directory:
                self.tree.settle(directory)
            return entry.volume

    def _remove(self, root: int, entry: Entry, stop: threading.Event | None) -> None:
        """Write over its content where that is asked, then remove it; cut off in between, it is still where it was."""
        if entry.volume.attributes.wipe is Wipe.ZERO:
            with self.tree.opened(root, entry.directory) as directory:
                for name in filter(holds_content, os.listdir(directory)):
                    with self.tree.data(directory, name, write=True) as data:
                        write_over(data, stop or threading.Event())
        self.tree.remove(root, entry.directory, entry.volume.uuid)

    def _finish(self, root: int, entry: Entry) -> None:
        with self.tree.opened(root, entry.directory) as directory:
            # Most volumes are whole, and there may be thousands: of these nothing is opened.
            if not _WHOLE.issuperset(os.listdir(directory)):
                self.tree.settle(directory)
                self.snapshots.tidy(directory)
            whole = has_size(directory, entry.volume)
        if entry.volume.state is State.TRASH:
            self.tree.move(root, entry.directory, TRASH + entry.volume.uuid)
        elif entry.volume.state is not State.BUILDING and not whole:
            with self.tree.opened(root, entry.directory) as directory, self.tree.data(directory) as data:
                size = os.fstat(data).st_size
            if size > entry.volume.size_bytes and size % rules.BLOCK_BYTES == 0:
                grown = msgspec.structs.replace(entry.volume, size_bytes=size)
                self.tree.write(root, entry._replace(volume=grown), trashed_at=None)
