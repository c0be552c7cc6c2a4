"""How a volume of files comes to be: built aside, empty or with another's content, then shown. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator

import msgspec

from onelun.errors import Conflict, NotFound
from onelun.model import Attributes, Owner, Snapshot, State, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.base import PLAIN, Progress
from onelun.nas.backends.file.copying import allocate, copy_sparse, exchange, rename_new, share_blocks
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.names import DATA_FILE, NEW, TRASH
from onelun.nas.backends.file.sidecar import VolumeFacts, write_volume
from onelun.nas.backends.file.snapshots import FileSnapshots, data_file
from onelun.nas.backends.file.tree import Entry, Tree


class FileBuilding:
    """The new volumes of a pool."""

    def __init__(self, directory: PoolDirectory, tree: Tree, snapshots: FileSnapshots) -> None:
        self._pool = directory.pool
        self._directory = directory
        self._tree = tree
        self._snapshots = snapshots

    def create(self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes = PLAIN) -> Volume:
        """Build an empty one."""
        with self._directory.owned() as root:
            present = self._tree.near(root, uuid, name)
            if present is not None:
                rules.check_same(present.volume, name, size_bytes, owner, None, attributes)
                with self._tree.opened(root, present.directory) as directory:
                    if has_size(directory, present.volume):
                        return present.volume
            return self._build(root, self._new(name, uuid, size_bytes, owner, attributes), lambda data: None)

    def clone(
        self,
        origin: Volume,
        name: str,
        uuid: str,
        size_bytes: int,
        owner: Owner,
        progress: Progress,
        stop: threading.Event,
        snapshot: str | None = None,
        attributes: Attributes = PLAIN,
    ) -> Volume:
        """Build one with the origin's content, or its snapshot's. Raises Cancelled when `stop` is set."""
        with self._directory.owned() as root:
            present = self._tree.near(root, uuid, name)
            if present is not None and present.volume.state is not State.BUILDING:
                rules.check_same(present.volume, name, size_bytes, owner, origin.uuid, attributes)
                return present.volume
            source = self._tree.by_uuid(root, origin.uuid, origin.name)
            moment = None if snapshot is None else self._snapshots.of(root, origin, snapshot)
            of_bytes = None if moment is None else moment.size_bytes
            rules.check_origin(origin, source.volume if source is not None else None, size_bytes, of_bytes=of_bytes)
            assert source is not None
            with self._opened_data(root, source, moment) as of:

                def fill(data: int) -> None:
                    # What is shared must be given a block when one side writes: that is not set aside.
                    if not attributes.thick and share_blocks(of, data):
                        size = os.fstat(of).st_size
                        progress(size, size)
                    else:
                        copy_sparse(of, data, progress, stop)

                return self._build(root, self._new(name, uuid, size_bytes, owner, attributes, origin.uuid), fill)

    def publish(self, uuid: str, replace: str | None) -> Volume:
        """Show the building volume under its name, in one rename."""
        with self._directory.owned() as root:
            entry = self._tree.by_uuid(root, uuid)
            if entry is None or entry.volume.state is State.TRASH:
                raise NotFound(f"pool {self._pool} has no volume {uuid} to publish")
            if entry.volume.state is not State.BUILDING:
                return entry.volume
            name = entry.volume.name
            holder = self._tree.visible(root, name)
            rules.check_free(self._pool, name, holder.volume if holder is not None else None, replace)
            ready = msgspec.structs.replace(entry.volume, state=State.READY)
            with self._tree.opened(root, entry.directory) as directory:
                with self._tree.data(directory) as data:
                    os.fsync(data)
                write_volume(directory, VolumeFacts(volume=ready))
            if holder is None:
                self._show(root, entry.directory, name)
            else:
                self._tree.write(root, holder, trashed_at=time.time())
                try:
                    exchange(entry.directory, name, dir_fd=root)
                    os.fsync(root)
                finally:
                    # Whatever was told: once the name leads to the new volume, a repeat finds nothing left to be done here.
                    shown = self._tree.visible(root, name)
                    if shown is not None and shown.volume.uuid == uuid:
                        self._tree.move(root, entry.directory, TRASH + holder.volume.uuid)
            return ready

    @contextlib.contextmanager
    def _opened_data(self, root: int, entry: Entry, moment: Snapshot | None) -> Iterator[int]:
        """The data of a volume, or of a snapshot of it, to be read."""
        with self._tree.opened(root, entry.directory) as directory:
            self._tree.settle(directory)
            file = DATA_FILE if moment is None else data_file(moment.name)
            with self._tree.data(directory, file) as data:
                yield data

    def _new(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes, origin: str | None = None
    ) -> Volume:
        return Volume(
            pool=self._pool,
            name=name,
            uuid=uuid,
            size_bytes=size_bytes,
            state=State.BUILDING,
            owner=owner,
            origin=origin,
            made_at=time.time(),
            attributes=attributes,
        )

    def _build(self, root: int, volume: Volume, fill: Callable[[int], None]) -> Volume:
        self._directory.admit(root, volume.name, volume.size_bytes)
        self._directory.serve(root, volume.owner.cloud)
        building = NEW + volume.uuid
        self._tree.remove(root, building, volume.uuid)
        with contextlib.ExitStack() as undo:
            undo.callback(self._tree.remove, root, building, volume.uuid)
            os.mkdir(building, 0o700, dir_fd=root)
            with self._tree.opened(root, building) as directory:
                # The facts come first: a directory without them holds no data, so that it may be dropped unseen.
                write_volume(directory, VolumeFacts(volume=volume))
                with self._tree.data(directory, create=True) as data:
                    fill(data)
                    os.ftruncate(data, volume.size_bytes)
                    if volume.attributes.thick:
                        allocate(data, volume.size_bytes)
                    os.fsync(data)
                os.fsync(directory)
            os.fsync(root)
            undo.pop_all()
        return volume

    def _show(self, root: int, directory: str, name: str) -> None:
        try:
            rename_new(directory, name, dir_fd=root)
        except FileExistsError:
            raise Conflict(f"{name} in pool {self._pool} is taken by something that is no volume of ours") from None
        os.fsync(root)


def has_size(directory: int, volume: Volume) -> bool:
    """Whether the data in the volume's open directory has its size. That comes last when one is built."""
    try:
        told = os.stat(DATA_FILE, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(told.st_mode) and told.st_size == volume.size_bytes
