"""Making a file in the pool's directory a volume of ours, and letting go of one. Everything here blocks.

The file gets a second name in a directory `.adopt-UUID`, which then becomes the volume in one rename; only then does the file
lose its first name. Whatever cuts that off, the data has a name all the time, and what is left over is one more name of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading

from onelun.errors import Busy, CommandFailed, Conflict, Rejected
from onelun.model import Owner, Volume
from onelun.nas.backends import rules
from onelun.nas.backends.file.copying import exchange, rename_new
from onelun.nas.backends.file.directory import PoolDirectory
from onelun.nas.backends.file.names import DATA_FILE
from onelun.nas.backends.file.sidecar import VOLUME_FILE, VolumeFacts, write_volume
from onelun.nas.backends.file.tree import Entry, Tree

ADOPT = ".adopt-"
_RELEASED = ".raw"
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The first bytes of formats that are not what a guest would see (QEMU's block/qcow2.c, block/vmdk.c, block/vhdx.c).
_FORMATS = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx"}


class FileAdopting:
    """What comes into a pool's volumes, and leaves them, with its data."""

    def __init__(self, directory: PoolDirectory, tree: Tree) -> None:
        self._directory = directory
        self._tree = tree
        # Steps run in threads. Data that is about to get or to lose a name is nothing for the tidying of another step: each
        # would leave it the name that the other one takes.
        self._naming = threading.Lock()

    def foreign(self, name: str) -> bool:
        """Whether a file of that name is in the pool's directory."""
        if not rules.is_foreign(name):
            return False
        with self._directory.root() as root:
            told = _status(root, name)
        return told is not None and stat.S_ISREG(told.st_mode)

    def adopt(self, found: str, name: str, uuid: str, owner: Owner) -> Volume:
        """Make it a volume."""
        with self._naming, self._directory.owned() as root:
            self.tidy(root)
            self._check_kind(root, found)
            if found != name and _status(root, name) is not None:
                holder = self._tree.visible(root, name)
                rules.check_free(self._directory.pool, name, holder.volume if holder is not None else None, None)
                raise Conflict(f"{name} in pool {self._directory.pool} is taken by something that is no volume of ours")
            descriptor = os.open(found, _FILE, dir_fd=root)
            try:
                size = _size(descriptor, found)
                volume = rules.adopted(self._directory.pool, found, name, uuid, size, owner)
                self._directory.serve(root, owner.cloud)
                try:
                    self._move_in(root, found, volume, os.fstat(descriptor).st_ino)
                except BaseException:
                    self.tidy(root)
                    raise
            finally:
                os.close(descriptor)
            return volume

    def release(self, volume: Volume) -> str:
        """Give the data a name in the pool's directory, then remove the volume."""
        with self._naming, self._directory.owned() as root:
            entry = self._tree.by_uuid(root, volume.uuid, volume.name)
            rules.check_ready(volume, entry.volume if entry is not None else None)
            assert entry is not None
            released = entry.volume.name + _RELEASED
            with self._tree.opened(root, entry.directory) as directory:
                self._tree.settle(directory)
                data = os.stat(DATA_FILE, dir_fd=directory, follow_symlinks=False)
                try:
                    os.link(DATA_FILE, released, src_dir_fd=directory, dst_dir_fd=root)
                except FileExistsError:
                    told = _status(root, released)
                    if told is None or told.st_ino != data.st_ino:
                        raise Conflict(f"there is a {released} in the place of pool {self._directory.pool}") from None
            os.fsync(root)
            self._tree.remove(root, entry.directory, volume.uuid)
            return released

    def finish(self) -> None:
        """End what an interruption left half done."""
        with self._naming, self._directory.owned() as root:
            self.tidy(root)

    def tidy(self, root: int) -> None:
        """Take away what an interrupted adoption left: further names of data that has another one. The caller has the turn."""
        for entry in self._tree.entries(root):
            self._unname(root, entry)
        for name in os.listdir(root):
            if not name.startswith(ADOPT):
                continue
            told = _status(root, name)
            if told is not None and stat.S_ISREG(told.st_mode):
                _unlink_name(root, name)
            elif told is not None:
                with self._tree.opened(root, name) as directory:
                    _unlink_name(directory, DATA_FILE)
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(VOLUME_FILE, dir_fd=directory)
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=root)

    def _unname(self, root: int, entry: Entry) -> None:
        """Take the first name from the file of an adopted volume, if it still has it."""
        word, _, found = (entry.volume.filled_from or "").partition(" ")
        if word != "adopted" or found == entry.volume.name:
            return
        told = _status(root, found)
        with contextlib.suppress(FileNotFoundError), self._tree.opened(root, entry.directory) as directory:
            data = os.stat(DATA_FILE, dir_fd=directory, follow_symlinks=False)
            if told is not None and (told.st_dev, told.st_ino) == (data.st_dev, data.st_ino):
                _unlink_name(root, found)

    def _check_kind(self, root: int, found: str) -> None:
        pool = self._directory.pool
        told = _status(root, found)
        if told is None:
            raise rules.no_foreign(pool, found, f"{self._directory.path} has no such file")
        if self._tree.visible(root, found) is not None:
            raise rules.ours_already(pool, found)
        if not stat.S_ISREG(told.st_mode):
            raise Rejected(f"{self._directory.path}/{found} is no regular file: only those are adopted")

    def _move_in(self, root: int, found: str, volume: Volume, inode: int) -> None:
        aside = ADOPT + volume.uuid
        os.mkdir(aside, 0o700, dir_fd=root)
        with self._tree.opened(root, aside) as directory:
            os.link(found, DATA_FILE, src_dir_fd=root, dst_dir_fd=directory, follow_symlinks=False)
            if os.stat(DATA_FILE, dir_fd=directory, follow_symlinks=False).st_ino != inode:
                raise Busy(f"{found} was replaced meanwhile")
            os.chmod(DATA_FILE, 0o600, dir_fd=directory)
            write_volume(directory, VolumeFacts(volume=volume))
            os.fsync(directory)
        if found == volume.name:
            exchange(aside, found, dir_fd=root)
            _unlink_name(root, aside)
        else:
            rename_new(aside, volume.name, dir_fd=root)
            os.fsync(root)
            _unlink_name(root, found)
        os.fsync(root)


def _size(descriptor: int, found: str) -> int:
    """The size of an open file that nobody else has open. Raises Busy, Rejected."""
    try:
        # A lease for writing is given only to who alone has the file open, also by the kernel (fcntl(2), "Leases").
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise Busy(f"{found} is open: a process, a target or a mount has it") from None
        raise CommandFailed(f"whether {found} is open cannot be told: {error.strerror}") from error
    head = os.pread(descriptor, 8, 0)
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            raise Rejected(
                f"{found} is a {name}, and a volume is raw: convert it first (qemu-img convert -O raw), or register it"
                " with oneimage create --path"
            )
    told = os.fstat(descriptor)
    if told.st_nlink > 1:
        raise Rejected(f"{found} has other names (hard links), by which it could be written to: remove those first")
    return told.st_size


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _unlink_name(directory: int, name: str) -> None:
    """Remove one of several names of a file; its last one stays."""
    told = _status(directory, name)
    if told is not None and told.st_nlink > 1:
        os.unlink(name, dir_fd=directory)
