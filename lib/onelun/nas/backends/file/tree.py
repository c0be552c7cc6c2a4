"""How a pool of files lies on disk, and the single steps that change it. Everything here blocks.

A volume is a directory with `data` and `volume.json`; the directory's name tells where the volume is in its life:
`NAME` visible, `.new-UUID` being built, `.trash-UUID` in the trash, `.gone-UUID` half removed. Every step is one
rename, so that a crash leaves a volume in one of them. Its snapshots lie beside its data (snapshots.py) and go where it
goes. Nothing is opened through a symbolic link.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import msgspec

from onelun.errors import Rejected
from onelun.model import State, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.file.kept import Kept
from onelun.nas.backends.file.names import DATA_FILE, GONE, NEW, TRASH, could_be_ours, has_uuid, is_file_of_ours
from onelun.nas.backends.file.sidecar import (
    VOLUME_FILE,
    UnreadableError,
    VolumeFacts,
    read_volume,
    write_volume,
)

log = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """A volume and the directory that it is in."""

    directory: str
    volume: Volume
    trashed_at: float | None


class Tree:
    """The volumes of one pool, in its open directory."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self._warned: set[str] = set()
        # By UUID, where each visible volume was when it was last read: a place to look at first, no more.
        self._seen_in: dict[str, str] = {}
        self._kept: Kept[Entry] = Kept(VOLUME_FILE)

    @contextlib.contextmanager
    def opened(self, root: int, directory: str) -> Iterator[int]:
        """One volume's directory, open."""
        descriptor = os.open(directory, _DIRECTORY, dir_fd=root)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def entries(self, root: int) -> list[Entry]:
        """Every volume of ours; what is not one is named in the log, once, and left alone.

        Facts are read again only where their file is another one since: a walk through thousands is for looking at all of
        them. Whoever asks for one volume has its facts read.
        """
        return self._kept.walked(root, partial(self.entry, root))

    def entry(self, root: int, directory: str) -> Entry | None:
        """The volume in that directory; None when there is none, or none of ours."""
        if not could_be_ours(directory):
            return None
        try:
            with self.opened(root, directory) as descriptor:
                facts = read_volume(descriptor)
        except FileNotFoundError:
            return None
        except (OSError, UnreadableError) as error:
            self._leave_alone(directory, str(error))
            return None
        if facts is None:
            # A directory that was being built when the machine stopped has no facts yet, and no data either.
            if not directory.startswith(NEW):
                self._leave_alone(directory, f"it has no {VOLUME_FILE}")
            return None
        state = _state(directory, facts.volume)
        if state is None:
            self._leave_alone(directory, f"its {VOLUME_FILE} is of {facts.volume.name}, {facts.volume.uuid}")
            return None
        volume = msgspec.structs.replace(facts.volume, pool=self.pool, state=state)
        if directory == volume.name:
            self._seen_in[volume.uuid] = directory
        return Entry(directory, volume, facts.trashed_at)

    def by_uuid(self, root: int, uuid: str, hint: str | None = None) -> Entry | None:
        """The volume with that UUID, wherever it is; `hint` is the visible name that it may have."""
        return self.near(root, uuid, hint) or next(
            (entry for entry in self.entries(root) if entry.volume.uuid == uuid), None
        )

    def near(self, root: int, uuid: str, hint: str | None = None) -> Entry | None:
        """Like `by_uuid`, where it should be alone: it costs the same in a pool of thousands."""
        for directory in (NEW + uuid, hint, self._seen_in.get(uuid), TRASH + uuid):
            entry = self.entry(root, directory) if directory else None
            if entry is not None and entry.volume.uuid == uuid:
                return entry
        return None

    def visible(self, root: int, name: str) -> Entry | None:
        """The visible volume of that name."""
        return None if name.startswith(".") else self.entry(root, name)

    def present(self, root: int, volume: Volume) -> Entry:
        """The volume with that UUID. Raises NotFound."""
        entry = self.by_uuid(root, volume.uuid, volume.name)
        if entry is None:
            raise rules.no_volume(volume)
        return entry

    def write(self, root: int, entry: Entry, *, trashed_at: float | None) -> None:
        """Replace the volume's facts by the entry's."""
        with self.opened(root, entry.directory) as directory:
            self.settle(directory)
            write_volume(directory, VolumeFacts(volume=entry.volume, trashed_at=trashed_at))

    def settle(self, directory: int) -> None:
        """Let a revert that was cut off, with its facts written, come to its end. To be called before the data is touched."""
        facts = read_volume(directory)
        if facts is not None and facts.incoming is not None:
            with contextlib.suppress(FileNotFoundError):
                os.rename(facts.incoming, DATA_FILE, src_dir_fd=directory, dst_dir_fd=directory)
                os.fsync(directory)

    @contextlib.contextmanager
    def data(
        self, directory: int, name: str = DATA_FILE, *, create: bool = False, write: bool = False
    ) -> Iterator[int]:
        """A data file of an open volume directory. Raises OSError, Rejected when it is no regular file."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR if create else os.O_RDWR if write else os.O_RDONLY
        # Without O_NONBLOCK a named pipe put there would hang the open.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Rejected(f"the data of a volume in pool {self.pool} is no regular file: somebody replaced it")
            yield descriptor
        finally:
            os.close(descriptor)

    def move(self, root: int, directory: str, to: str) -> None:
        """Rename a volume's directory, durably. To where it is already: nothing."""
        if directory != to:
            self._seen_in.pop(to.removeprefix(TRASH), None)
            os.rename(directory, to, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)

    def remove(self, root: int, directory: str, uuid: str) -> None:
        """Take the directory out of sight in one step, then remove what is in it."""
        gone = GONE + uuid
        self._seen_in.pop(uuid, None)
        self.clear(root, gone)
        with contextlib.suppress(FileNotFoundError):
            os.rename(directory, gone, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)
        self.clear(root, gone)

    def clear(self, root: int, directory: str) -> None:
        """Remove the directory with the files that we make. Another file in it is kept, and so is the directory."""
        try:
            with self.opened(root, directory) as descriptor:
                # The facts go last: they tell whose the rest is.
                ours = filter(is_file_of_ours, os.listdir(descriptor))
                for name in sorted(ours, key=lambda name: name == VOLUME_FILE):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=descriptor)
            os.rmdir(directory, dir_fd=root)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("pool pool=%s directory=%s kept: %s", self.pool, directory, error.strerror)

    def sweep(self, root: int) -> None:
        """Finish removals that were interrupted, and drop what was begun and has no facts yet."""
        for directory in os.listdir(root):
            if directory.startswith(GONE) and has_uuid(directory, GONE):
                self.clear(root, directory)
            elif directory.startswith(NEW) and has_uuid(directory, NEW):
                with contextlib.suppress(OSError, UnreadableError), self.opened(root, directory) as descriptor:
                    empty = read_volume(descriptor) is None
                    if empty and DATA_FILE not in os.listdir(descriptor):
                        self.clear(root, directory)

    def _leave_alone(self, directory: str, reason: str) -> None:
        if directory not in self._warned:
            self._warned.add(directory)
            log.warning("pool pool=%s directory=%s left alone: %s", self.pool, directory, reason)


def _state(directory: str, volume: Volume) -> State | None:
    """The state that the place tells; None when place and facts contradict each other."""
    if directory.startswith(NEW):
        # Publishing swaps the new directory with the one it replaces, which waits here to be put into the trash.
        return State.BUILDING if directory == NEW + volume.uuid else State.TRASH
    if directory.startswith(TRASH):
        return State.TRASH if directory == TRASH + volume.uuid else None
    if directory != volume.name:
        return None
    return State.DELETING if volume.state is State.DELETING else State.READY
