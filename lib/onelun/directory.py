"""The directories of VMs below OpenNebula's datastore directory, as one owner sees them.

Everything is opened beneath the root (see `beneath`), by a path of the wire such as /var/lib/one//datastores/103/0. All
calls block: an asyncio caller uses a thread. All may be repeated.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple

from onelun.beneath import acting_as, closing, make_directories, open_beneath, owner_of, remove_at, replacing
from onelun.errors import Busy, Conflict, NotFound, OnelunError, OutOfSpace, Rejected
from onelun.paths import ASIDE, DEEPEST, components, controls, names, shown

LONGEST_LIST = 10_000
LONGEST_PIECE = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class Found(NamedTuple):
    """One thing in a directory. `name` is relative to it, `size` a file's in bytes, `target` a link's text."""

    name: str
    kind: Literal["file", "link", "dir"]
    mode: int
    size: int = 0
    target: str | None = None


class Directory:
    """The directories below `root`, whose files belong to `owner` (a user, `uid` or `uid:gid`).

    Raises from every call: Rejected (the path or name cannot be, leads outside, or the owner may not), NotFound, Conflict
    (something else is in the way), OutOfSpace, Busy (a mount; a change at the same time).
    """

    def __init__(self, root: str, owner: str, *, depth: int = 2) -> None:
        """`depth` is how many numbers lead to a VM's directory: system datastore and VM, or the VM alone."""
        self._root = "/" + "/".join(filter(None, root.split("/")))
        self._owner = owner_of(owner)
        self._depth = depth

    def has(self, path: str) -> bool:
        """Whether the path is below this root."""
        above = components(self._root)
        return path.startswith("/") and components(path)[: len(above)] == above

    def split(self, path: str) -> tuple[str, str]:
        """The directory and the name of a thing in it, such as the `disk.N` that `path` names."""
        parts = self._parts(path)
        if len(parts) <= self._depth:
            raise Rejected(f"{shown(path)} names no file of a VM's directory")
        return "/".join((self._root, *parts[:-1])), parts[-1]

    def entries(self, path: str) -> list[Found] | None:
        """What the directory holds, recursively and sorted; None when it is absent. Sockets, pipes and devices are left out."""
        with self._beneath(path) as root:
            try:
                folder = open_beneath(root, "/".join(self._parts(path)), _FOLDER)
            except FileNotFoundError:
                return None
            found: list[Found] = []
            with closing(folder):
                _collect(folder, "", found)
        return sorted(found)

    def read(self, path: str, name: str, offset: int = 0, limit: int = LONGEST_PIECE) -> bytes:
        """At most `limit` (1 MiB) bytes of a file from `offset` on; none at its end."""
        if offset < 0 or not 0 < limit <= LONGEST_PIECE:
            raise Rejected(f"a piece of {shown(name)} cannot begin at {offset} and have {limit} bytes")
        with self._beneath(path, name), closing(self.open_file(path, name)) as descriptor:
            return os.pread(descriptor, limit, offset)

    def link_text(self, path: str, name: str) -> str | None:
        """Where the link `name` leads; None when there is no such link."""
        parts = [*self._parts(path), *names(name)]
        with self._beneath(path, name) as root, suppress(FileNotFoundError):
            folder = open_beneath(root, "/".join(parts[:-1]), _FOLDER)
            with closing(folder):
                if stat.S_ISLNK(os.lstat(parts[-1], dir_fd=folder).st_mode):
                    return os.readlink(parts[-1], dir_fd=folder)
        return None

    def put_directory(self, path: str, name: str | None = None, mode: int = 0o755) -> None:
        """Make the directory `path`, or `name` in it, with all above it. An existing one gets the mode."""
        parts = [*self._parts(path), *(names(name, put=True) if name is not None else ())]
        with self._beneath(path, name) as root, closing(make_directories(root, parts)) as folder:
            os.fchmod(folder, mode & 0o777 | stat.S_IRWXU)

    def put_link(self, path: str, name: str, text: str) -> None:
        """Make the link `name` to `text`, or turn an existing link there at once. Only a link is replaced."""
        parts = [*self._parts(path), *names(name, put=True)]
        if not text or len(os.fsencode(text)) > 4095 or controls(text):
            raise Rejected(f"{shown(text)} is no text of a link")
        with self._beneath(path, name) as root, closing(make_directories(root, parts[:-1])) as folder:
            with suppress(FileNotFoundError):
                if not stat.S_ISLNK(os.lstat(parts[-1], dir_fd=folder).st_mode):
                    raise Conflict(f"{shown(path)}/{name} is no link: it is not replaced by one")
                if os.readlink(parts[-1], dir_fd=folder) == text:
                    return
            aside = ASIDE + parts[-1]
            remove_at(folder, aside)
            with replacing(folder, parts[-1], aside):
                os.symlink(text, aside, dir_fd=folder)

    def put_piece(
        self, path: str, name: str, data: bytes, *, offset: int = 0, last: bool = True, mode: int = 0o640
    ) -> None:
        """Write one piece of the file `name`. It is written aside, and takes its name with its `last` piece.

        Pieces come in order; one may be repeated. Raises Rejected when the pieces before it are missing.
        """
        parts = [*self._parts(path), *names(name, put=True)]
        if offset < 0 or len(data) > LONGEST_PIECE:
            raise Rejected(f"a piece of {shown(name)} cannot begin at {offset} and have {len(data)} bytes")
        with self._beneath(path, name) as root, closing(make_directories(root, parts[:-1])) as folder:
            aside = ASIDE + parts[-1]
            if offset == 0:
                remove_at(folder, aside)
            elif last and _ends_with(folder, parts[-1], data, offset):
                return
            try:
                _write_piece(folder, aside, data, offset)
            except OSError:
                # Whoever gets this error begins again, if at all, and perhaps with another file.
                with suppress(OSError):
                    remove_at(folder, aside)
                raise
            if last:
                with replacing(folder, parts[-1], aside):
                    _finish(folder, aside, mode)

    def open_file(self, path: str, name: str) -> int:
        """A descriptor of a file, to read; the caller closes it."""
        parts = [*self._parts(path), *names(name)]
        with self._beneath(path, name) as root:
            # O_NONBLOCK: to open a pipe would wait for its writer.
            descriptor = open_beneath(root, "/".join(parts), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise Rejected(f"{shown(path)}/{name} is no file")
            return descriptor

    def begin_file(self, path: str, name: str) -> int:
        """A descriptor of a new, empty file, to write, which is aside until `end_file`; the caller closes it."""
        parts = [*self._parts(path), *names(name, put=True)]
        with self._beneath(path, name) as root, closing(make_directories(root, parts[:-1])) as folder:
            aside = ASIDE + parts[-1]
            remove_at(folder, aside)
            return open_beneath(folder, aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, links=False)

    def end_file(self, path: str, name: str, mode: int = 0o640) -> None:
        """Give the file that was begun its name, durably, in place of the file that had it. Raises NotFound without one."""
        parts = [*self._parts(path), *names(name, put=True)]
        with (
            self._beneath(path, name) as root,
            closing(open_beneath(root, "/".join(parts[:-1]), _FOLDER)) as folder,
            replacing(folder, parts[-1], ASIDE + parts[-1]),
        ):
            _finish(folder, ASIDE + parts[-1], mode)

    def drop_file(self, path: str, name: str) -> None:
        """Remove the file that was begun. None was: nothing."""
        parts = [*self._parts(path), *names(name, put=True)]
        with (
            self._beneath(path, name) as root,
            suppress(FileNotFoundError),
            closing(open_beneath(root, "/".join(parts[:-1]), _FOLDER)) as folder,
        ):
            remove_at(folder, ASIDE + parts[-1])

    def remove(self, path: str, name: str | None = None) -> None:
        """Remove the directory, or one entry of it, with all that is in it. No link is followed. Absent: nothing."""
        parts = [*self._parts(path), *(names(name) if name is not None else ())]
        with (
            self._beneath(path, name) as root,
            suppress(FileNotFoundError),
            closing(open_beneath(root, "/".join(parts[:-1]), _FOLDER)) as folder,
        ):
            remove_at(folder, parts[-1])

    def _parts(self, path: str) -> list[str]:
        """The components below the root; Rejected unless they are those of a VM's directory or of something in it."""
        parts, above = components(path), components(self._root)
        if not path.startswith("/") or parts[: len(above)] != above:
            raise Rejected(f"{shown(path)} is not below the datastore directory {self._root}")
        below = parts[len(above) :]
        numbers = below[: self._depth]
        if len(numbers) < self._depth or not all(part.isascii() and part.isdecimal() for part in numbers):
            below_root = "<datastore>/<VM>" if self._depth == 2 else "<VM>"
            raise Rejected(f"{shown(path)} is no VM's directory: it should be {self._root}/{below_root}")
        return below

    @contextmanager
    def _beneath(self, path: str, name: str | None = None) -> Iterator[int]:
        """A descriptor of the root, with the rights of the owner, and the system's errors as ours."""
        what = shown(path if name is None else f"{path.rstrip('/')}/{name}")
        with acting_as(self._owner):
            try:
                root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise Rejected(f"cannot open the datastore directory {self._root}: {error.strerror}") from error
            with closing(root):
                try:
                    yield root
                except OSError as error:
                    raise self._told(error, what) from error

    def _told(self, error: OSError, what: str) -> OnelunError:
        if error.errno == errno.ENOENT:
            return NotFound(f"{what} does not exist")
        if error.errno in (errno.EXDEV, errno.ELOOP):
            return Rejected(f"{what} is a link, or leads by a link outside {self._root}")
        if error.errno in (errno.EACCES, errno.EPERM):
            return Rejected(f"user {self._owner.uid} may not touch {what}: {error.strerror}")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutOfSpace(f"no space is left for {what}")
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return Busy(f"{what} is in use, or was changed at the same time: {error.strerror}")
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            return Conflict(f"something else is in the way of {what}: {error.strerror}")
        if error.errno == errno.ENOSYS:
            return Rejected("this kernel has no openat2: Linux 5.6 or newer is needed")
        return OnelunError(f"cannot touch {what}: {error.strerror}")


def _collect(folder: int, prefix: str, found: list[Found]) -> None:
    for name in os.listdir(folder):
        if name.startswith(ASIDE):
            continue
        status = os.lstat(name, dir_fd=folder)
        whole, mode = prefix + name, stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            found.append(Found(whole, "link", mode, target=os.readlink(name, dir_fd=folder)))
        elif stat.S_ISREG(status.st_mode):
            found.append(Found(whole, "file", mode, size=status.st_size))
        elif stat.S_ISDIR(status.st_mode):
            found.append(Found(whole, "dir", mode))
            if whole.count("/") >= DEEPEST:
                raise Rejected(f"{shown(whole)} is nested too deep: at most {DEEPEST} directories")
            with closing(open_beneath(folder, name, _FOLDER, links=False)) as inner:
                _collect(inner, whole + "/", found)
        if len(found) > LONGEST_LIST:
            raise Rejected(f"the directory has more than {LONGEST_LIST} entries")


def _write_piece(folder: int, aside: str, data: bytes, offset: int) -> None:
    descriptor = open_beneath(folder, aside, os.O_WRONLY | os.O_CREAT, 0o600, links=False)
    with closing(descriptor):
        if os.fstat(descriptor).st_size < offset:
            raise Rejected(
                f"the pieces of {shown(aside.removeprefix(ASIDE))} before {offset} are missing: begin again at 0"
            )
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)
        os.ftruncate(descriptor, offset + len(data))


def _finish(folder: int, aside: str, mode: int) -> None:
    with closing(open_beneath(folder, aside, os.O_WRONLY, links=False)) as descriptor:
        os.fchmod(descriptor, mode & 0o777)
        os.fsync(descriptor)


def _ends_with(folder: int, name: str, data: bytes, offset: int) -> bool:
    """Whether the file is there and this was its last piece: a repeat after the file took its name."""
    if _present(folder, ASIDE + name) or not _present(folder, name):
        return False
    with closing(open_beneath(folder, name, os.O_RDONLY | os.O_NONBLOCK, links=False)) as descriptor:
        same_size = os.fstat(descriptor).st_size == offset + len(data)
        return same_size and os.pread(descriptor, len(data), offset) == data


def _present(folder: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True
