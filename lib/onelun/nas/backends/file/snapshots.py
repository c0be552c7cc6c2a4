"""Snapshots of a volume of files: reflinks, or copies, beside its data. Everything here blocks.

`snapshot-NAME.data` is the content, `snapshot-NAME.json` the facts: with the facts, which come last and go first, the
snapshot exists. A revert puts a copy of the content in the data's place by one rename, after the facts have told of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid as uuids
from collections.abc import Iterator

import msgspec

from onelun.errors import Busy
from onelun.model import Snapshot, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.file.copying import allocate, copy_sparse, share_blocks
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.extents import exclusive_bytes
from onelun.nas.backends.file.names import DATA_FILE, REVERT, SNAPSHOT, SNAPSHOT_DATA, SNAPSHOT_FACTS, is_revert
from onelun.nas.backends.file.sidecar import (
    NEW_SUFFIX,
    VOLUME_FILE,
    SnapshotFacts,
    VolumeFacts,
    read_snapshot,
    read_volume,
    write_snapshot,
    write_volume,
)
from onelun.nas.backends.file.tree import Tree

# Times of files advance with the kernel's clock interrupt, every 10 ms at the slowest.
_TICK_S = 0.02


def data_file(name: str) -> str:
    """The content of the snapshot of that name."""
    return f"{SNAPSHOT}{name}{SNAPSHOT_DATA}"


class FileSnapshots:
    """The snapshots of a pool's volumes."""

    def __init__(self, directory: PoolDirectory, tree: Tree) -> None:
        self._directory = directory
        self._tree = tree

    def make(self, volume: Volume, name: str, stop: threading.Event) -> Snapshot:
        """Keep the volume's content of now. Raises Cancelled when `stop` is set, Busy when it changed while it was copied."""
        with self._directory.owned() as root:
            present = self._tree.by_uuid(root, volume.uuid, volume.name)
            rules.check_ready(volume, present.volume if present is not None else None)
            assert present is not None
            with self._tree.opened(root, present.directory) as directory:
                found = _find(directory, name)
                if found is None:
                    found = Snapshot(name=name, made_at=time.time(), size_bytes=present.volume.size_bytes)
                    self._tree.settle(directory)
                    self._keep(directory, found, stop)
                return self._measured(directory, found)

    def listed(self, volume: Volume) -> list[Snapshot]:
        """Its snapshots, the oldest first."""
        with self._directory.root() as root:
            entry = self._tree.present(root, volume)
            with self._tree.opened(root, entry.directory) as directory:
                found = self.in_directory(directory)
        return sorted(found, key=lambda snapshot: (snapshot.made_at, snapshot.name))

    def in_directory(self, directory: int) -> list[Snapshot]:
        """The snapshots in an open volume directory."""
        return [self._measured(directory, snapshot) for snapshot in _all(directory)]

    def of(self, root: int, volume: Volume, name: str) -> Snapshot:
        """The volume's snapshot of that name. Raises NotFound without the one or the other."""
        entry = self._tree.by_uuid(root, volume.uuid, volume.name)
        if entry is not None:
            with self._tree.opened(root, entry.directory) as directory:
                found = _find(directory, name)
            if found is not None:
                return found
        raise rules.no_snapshot(volume, name)

    def revert(self, volume: Volume, name: str, stop: threading.Event) -> Volume:
        """Put the snapshot's content in the place of the data. Raises Cancelled when `stop` is set."""
        with self._directory.owned() as root:
            present = self._tree.by_uuid(root, volume.uuid, volume.name)
            rules.check_ready(volume, present.volume if present is not None else None)
            assert present is not None
            found = self.of(root, volume, name)
            reverted = msgspec.structs.replace(present.volume, size_bytes=found.size_bytes)
            with self._tree.opened(root, present.directory) as directory:
                self._tree.settle(directory)
                self._put_back(directory, found, reverted, stop)
            return reverted

    def remove(self, volume: Volume, name: str) -> None:
        """Remove it, its facts first."""
        with self._directory.owned() as root:
            entry = self._tree.by_uuid(root, volume.uuid, volume.name)
            if entry is not None:
                with self._tree.opened(root, entry.directory) as directory:
                    for file in (_facts_file(name), data_file(name)):
                        _unlink(directory, file)

    def tidy(self, directory: int) -> None:
        """Remove what an interruption left half made or half removed in an open volume directory."""
        files = set(os.listdir(directory))
        for file in files:
            name = file.removeprefix(SNAPSHOT)
            begun = file.endswith(SNAPSHOT_DATA) and _facts_file(name.removesuffix(SNAPSHOT_DATA)) not in files
            aside = file.endswith(SNAPSHOT_FACTS + NEW_SUFFIX)
            if (name != file and (begun or aside)) or file == VOLUME_FILE + NEW_SUFFIX or is_revert(file):
                _unlink(directory, file)

    def _keep(self, directory: int, snapshot: Snapshot, stop: threading.Event) -> None:
        _unlink(directory, data_file(snapshot.name))
        with contextlib.ExitStack() as undo:
            undo.callback(_unlink, directory, _facts_file(snapshot.name))
            self._fill(directory, snapshot, stop)
            undo.pop_all()

    def _fill(self, directory: int, snapshot: Snapshot, stop: threading.Event) -> None:
        file = data_file(snapshot.name)
        with self._tree.data(directory) as source, self._new(directory, file) as target:
            _copy_moment(source, target, stop)
            os.ftruncate(target, snapshot.size_bytes)
            os.fsync(target)
            write_snapshot(directory, _facts_file(snapshot.name), SnapshotFacts(snapshot))

    def _put_back(self, directory: int, snapshot: Snapshot, reverted: Volume, stop: threading.Event) -> None:
        before = read_volume(directory)
        assert before is not None
        # Never used again, so that facts of long ago mean no other file.
        file = f"{REVERT}{uuids.uuid4()}"
        with self._tree.data(directory, data_file(snapshot.name)) as source, self._new(directory, file) as target:
            thick = reverted.attributes.thick
            if thick or not share_blocks(source, target):
                copy_sparse(source, target, lambda done, total: None, stop)
            os.ftruncate(target, snapshot.size_bytes)
            if thick:
                allocate(target, snapshot.size_bytes)
            os.fsync(target)
            os.fsync(directory)
            try:
                write_volume(directory, VolumeFacts(volume=reverted, incoming=file))
                os.rename(file, DATA_FILE, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError:
                # What is told to have failed must not come true at the next start.
                with contextlib.suppress(OSError):
                    write_volume(directory, before)
                raise
            os.fsync(directory)

    @contextlib.contextmanager
    def _new(self, directory: int, file: str) -> Iterator[int]:
        """A new data file, which goes again when the body fails and it still has that name."""
        with contextlib.ExitStack() as undo:
            descriptor = undo.enter_context(self._tree.data(directory, file, create=True))
            with contextlib.ExitStack() as failing:
                failing.callback(_unlink, directory, file)
                yield descriptor
                failing.pop_all()

    def _measured(self, directory: int, snapshot: Snapshot) -> Snapshot:
        with self._tree.data(directory, data_file(snapshot.name)) as data:
            return msgspec.structs.replace(snapshot, used_bytes=exclusive_bytes(data))


def _copy_moment(source: int, target: int, stop: threading.Event) -> None:
    """Copy what the file `source` holds at one moment. Raises Busy when it was written to meanwhile."""
    if share_blocks(source, target):
        return
    # A write in the same tick as an earlier one does not show in the times.
    time.sleep(_TICK_S)
    before = os.fstat(source).st_mtime_ns
    copy_sparse(source, target, lambda done, total: None, stop)
    if os.fstat(source).st_mtime_ns != before:
        raise Busy(
            "the volume was written to while its snapshot was copied, because its filesystem cannot share blocks:"
            " repeat it when the VM is off"
        )


def _find(directory: int, name: str) -> Snapshot | None:
    facts = read_snapshot(directory, _facts_file(name))
    return facts.snapshot if facts is not None else None


def _all(directory: int) -> Iterator[Snapshot]:
    for file in os.listdir(directory):
        if file.startswith(SNAPSHOT) and file.endswith(SNAPSHOT_FACTS):
            found = _find(directory, file.removeprefix(SNAPSHOT).removesuffix(SNAPSHOT_FACTS))
            if found is not None:
                yield found


def _facts_file(name: str) -> str:
    return f"{SNAPSHOT}{name}{SNAPSHOT_FACTS}"


def _unlink(directory: int, file: str) -> None:
    """Remove the file, durably. Absent: nothing."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file, dir_fd=directory)
        os.fsync(directory)
