"""Files below a directory, opened so that no symbolic link leads outside, and made as another user.

A check of a path before its use is a race with whoever may write there; openat2(2) has the kernel refuse instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from onelun.errors import OnelunError, Rejected

# The number is the same on every architecture (linux/include/uapi/asm-generic/unistd.h); Linux 5.6 or newer.
_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: str, flags: int, mode: int = 0, *, links: bool = True) -> int:
    """Open `path` below the directory of descriptor `root`, never outside. Without `links` no link is followed at all.

    Raises OSError as open(2) does, with EXDEV for what leads outside.
    """
    resolve = _BENEATH | _NO_MAGICLINKS | (0 if links else _NO_SYMLINKS)
    how = _How(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        arguments = (
            ctypes.c_int(root),
            os.fsencode(path or "."),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        descriptor = int(_libc.syscall(ctypes.c_long(_OPENAT2), *arguments))
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        # EAGAIN: a rename went on beside it, and the kernel could not prove that the path stays inside.
        if number not in (errno.EINTR, errno.EAGAIN):
            raise OSError(number, os.strerror(number), path)


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """The descriptor, closed at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_directories(root: int, parts: Sequence[str], mode: int = 0o755) -> int:
    """Open the directory `parts` below `root`, after making it and what is missing above it."""
    path = "/".join(parts)
    try:
        return open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        if not parts:
            raise
    with closing(make_directories(root, parts[:-1], mode)) as above, suppress(FileExistsError):
        os.mkdir(parts[-1], mode, dir_fd=above)
        # Whatever our umask is, the owner's other programs must get in.
        with closing(open_beneath(above, parts[-1], os.O_RDONLY | os.O_DIRECTORY, links=False)) as made:
            os.fchmod(made, mode)
    return open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)


def remove_at(folder: int, name: str) -> None:
    """Remove `name` and, when it is a directory, all in it. No link is followed. Absent: nothing."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        with closing(open_beneath(folder, name, os.O_RDONLY | os.O_DIRECTORY, links=False)) as inner:
            for child in os.listdir(inner):
                remove_at(inner, child)
        os.rmdir(name, dir_fd=folder)


@contextmanager
def replacing(folder: int, name: str, aside: str) -> Iterator[None]:
    """What is made as `aside` meanwhile takes the place of `name` at once, durably; after an error it is removed."""
    try:
        yield
        os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside, dir_fd=folder)
        raise
    os.fsync(folder)


class Owner(NamedTuple):
    """Whom files belong to, by number."""

    uid: int
    gid: int


def owner_of(text: str) -> Owner:
    """The owner that `text` names: a user, `uid` or `uid:gid`. Raises Rejected for a user that this machine lacks."""
    uid, _, gid = text.partition(":")
    if uid.isdecimal() and (gid.isdecimal() or ":" not in text):
        return Owner(int(uid), int(gid or uid))
    try:
        entry = pwd.getpwnam(text)
    except KeyError:
        raise Rejected(f"this machine has no user {text!r}: make it, or set `owner` to another") from None
    return Owner(entry.pw_uid, entry.pw_gid)


@contextmanager
def acting_as(owner: Owner) -> Iterator[None]:
    """Touch files as `owner` in this thread only: setfsuid(2) also drops the rights of root over files.

    Raises Rejected when we are neither root nor that user.
    """
    if os.geteuid() != 0:
        if os.geteuid() != owner.uid:
            raise Rejected(f"only root or user {owner.uid} may make files of user {owner.uid}")
        yield
        return
    try:
        _become(owner)
        yield
    finally:
        _become(Owner(0, 0))


def _become(owner: Owner) -> None:
    # Neither call tells of a failure; each returns the number that was in force before it.
    if owner.uid == 0:
        _libc.setfsuid(ctypes.c_uint(0))
    _libc.setfsgid(ctypes.c_uint(owner.gid))
    _libc.setfsuid(ctypes.c_uint(owner.uid))
    no_number = ctypes.c_uint(0xFFFFFFFF)
    if (_libc.setfsuid(no_number), _libc.setfsgid(no_number)) != (owner.uid, owner.gid):
        raise OnelunError(f"cannot touch files as user {owner.uid}:{owner.gid}")
