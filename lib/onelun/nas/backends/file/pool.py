"""What the backend `file` does, step by step. Everything here blocks; `file` runs it in threads."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import msgspec

from onelun.errors import Conflict, NotFound, Rejected
from onelun.model import Attributes, Owner, Snapshot, State, Usage, Volume, Wipe
from onelun.nas.backends import rules
from onelun.nas.backends.base import PLAIN, Change, Progress
from onelun.nas.backends.file.changes import FileChanges
from onelun.nas.backends.file.copying import allocate, copy_sparse, exchange, rename_new, share_blocks
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.sidecar import VolumeFacts, write_volume
from onelun.nas.backends.file.snapshots import FileSnapshots, data_file
from onelun.nas.backends.file.tree import DATA_FILE, NEW, SNAPSHOT_DATA, TRASH, Entry, Tree, holds_content
from onelun.nas.backends.file.wiping import write_over

log = logging.getLogger(__name__)


class FilePool:
    """The volumes of a pool."""

    def __init__(self, directory: PoolDirectory) -> None:
        self.pool = directory.pool
        self._directory = directory
        self.tree = Tree(directory.pool)
        self.snapshots = FileSnapshots(directory, self.tree)
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

    def create(self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes = PLAIN) -> Volume:
        """Build an empty one."""
        with self._directory.owned() as root:
            present = self.tree.near(root, uuid, name)
            if present is not None:
                rules.check_same(present.volume, name, size_bytes, owner, None, attributes)
                if self._has_size(root, present):
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
            present = self.tree.near(root, uuid, name)
            if present is not None and present.volume.state is not State.BUILDING:
                rules.check_same(present.volume, name, size_bytes, owner, origin.uuid, attributes)
                return present.volume
            source = self.tree.by_uuid(root, origin.uuid, origin.name)
            moment = None if snapshot is None else self.snapshots.of(root, origin, snapshot)
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
            entry = self.tree.by_uuid(root, uuid)
            if entry is None or entry.volume.state is State.TRASH:
                raise NotFound(f"pool {self.pool} has no volume {uuid} to publish")
            if entry.volume.state is not State.BUILDING:
                return entry.volume
            name = entry.volume.name
            holder = self.tree.visible(root, name)
            rules.check_free(self.pool, name, holder.volume if holder is not None else None, replace)
            ready = msgspec.structs.replace(entry.volume, state=State.READY)
            with self.tree.opened(root, entry.directory) as directory:
                with self.tree.data(directory) as data:
                    os.fsync(data)
                write_volume(directory, VolumeFacts(volume=ready))
            if holder is None:
                self._show(root, entry.directory, name)
            else:
                self.tree.write(root, holder, trashed_at=time.time())
                try:
                    exchange(entry.directory, name, dir_fd=root)
                    os.fsync(root)
                finally:
                    # Whatever was told: once the name leads to the new volume, a repeat finds nothing left to be done here.
                    shown = self.tree.visible(root, name)
                    if shown is not None and shown.volume.uuid == uuid:
                        self.tree.move(root, entry.directory, TRASH + holder.volume.uuid)
            return ready

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
            self._admit(root, entry.volume.name, size_bytes)
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

    @contextlib.contextmanager
    def _opened_data(self, root: int, entry: Entry, moment: Snapshot | None) -> Iterator[int]:
        """The data of a volume, or of a snapshot of it, to be read."""
        with self.tree.opened(root, entry.directory) as directory:
            self.tree.settle(directory)
            file = DATA_FILE if moment is None else data_file(moment.name)
            with self.tree.data(directory, file) as data:
                yield data

    def _new(
        self, name: str, uuid: str, size_bytes: int, owner: Owner, attributes: Attributes, origin: str | None = None
    ) -> Volume:
        return Volume(
            pool=self.pool,
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
        self._admit(root, volume.name, volume.size_bytes)
        self._directory.serve(root, volume.owner.cloud)
        building = NEW + volume.uuid
        self.tree.remove(root, building, volume.uuid)
        with contextlib.ExitStack() as undo:
            undo.callback(self.tree.remove, root, building, volume.uuid)
            os.mkdir(building, 0o700, dir_fd=root)
            with self.tree.opened(root, building) as directory:
                # The facts come first: a directory without them holds no data, so that it may be dropped unseen.
                write_volume(directory, VolumeFacts(volume=volume))
                with self.tree.data(directory, create=True) as data:
                    fill(data)
                    os.ftruncate(data, volume.size_bytes)
                    if volume.attributes.thick:
                        allocate(data, volume.size_bytes)
                    os.fsync(data)
                os.fsync(directory)
            os.fsync(root)
            undo.pop_all()
        return volume

    def _admit(self, root: int, name: str, size_bytes: int) -> None:
        told = os.fstatvfs(root)
        rules.check_room(self.pool, name, size_bytes, told.f_blocks * told.f_frsize)

    def _has_size(self, root: int, entry: Entry) -> bool:
        """Whether building it was finished: its data comes last."""
        try:
            with self.tree.opened(root, entry.directory) as directory, self.tree.data(directory) as data:
                return os.fstat(data).st_size == entry.volume.size_bytes
        except FileNotFoundError:
            return False

    def _show(self, root: int, directory: str, name: str) -> None:
        try:
            rename_new(directory, name, dir_fd=root)
        except FileExistsError:
            raise Conflict(f"{name} in pool {self.pool} is taken by something that is no volume of ours") from None
        os.fsync(root)

    def _finish(self, root: int, entry: Entry) -> None:
        with self.tree.opened(root, entry.directory) as directory:
            self.tree.settle(directory)
            self.snapshots.tidy(directory)
        if entry.volume.state is State.TRASH:
            self.tree.move(root, entry.directory, TRASH + entry.volume.uuid)
        elif entry.volume.state is not State.BUILDING and not self._has_size(root, entry):
            with self.tree.opened(root, entry.directory) as directory, self.tree.data(directory) as data:
                size = os.fstat(data).st_size
            if size > entry.volume.size_bytes and size % rules.BLOCK_BYTES == 0:
                grown = msgspec.structs.replace(entry.volume, size_bytes=size)
                self.tree.write(root, entry._replace(volume=grown), trashed_at=None)
