"""A pool's directory: whose it is, which cloud it serves, and what the filesystem says. Everything here blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator

import msgspec

from onelun.errors import CommandFailed, Conflict, NotFound, OnelunError, OutOfSpace, Rejected
from onelun.model import Attributes, Capacity, Wipe
from onelun.nas.backends import rules
from onelun.nas.backends.file.copying import allocate
from onelun.nas.backends.file.mounts import unmounted
from onelun.nas.backends.file.sidecar import PoolFacts, UnreadableError, read_pool, write_pool
from onelun.nas.backends.file.wiping import writes_in_place

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PoolDirectory:
    """The directory `path` of a pool, which may be a symbolic link: the operator configured it."""

    def __init__(self, pool: str, path: str) -> None:
        self.pool = pool
        self.path = path
        self._agent: str | None = None
        self._facts_lock = threading.Lock()

    def check(self, agent: str, cloud: str | None) -> list[str]:
        """What stands in the way of the pool, or soon will."""
        lacking = unmounted(self.path)
        if lacking is not None:
            return [f"the filesystem of pool {self.pool} is not mounted: mount {lacking}"]
        try:
            with self.root() as root:
                found = [str(refusal) for refusal in self._refusals(root, agent, cloud)]
            return found + rules.near_full(self.pool, self.capacity(), f"enlarge the filesystem of {self.path}")
        except OnelunError as error:
            return [str(error)]

    def open(self, agent: str, cloud: str | None) -> None:
        """Check that the pool can be used, and make an unowned one the agent's. Raises as the base says."""
        with self.root() as root:
            for refusal in self._refusals(root, agent, cloud):
                raise refusal
            if self._facts(root).owner is None:
                self._change(root, owner=agent)
            self._agent = agent

    def take(self, agent: str) -> None:
        """Make the pool the agent's."""
        with self.root() as root:
            self._change(root, owner=agent)

    def serial(self) -> int:
        """The catalogue's serial number."""
        with self.root() as root:
            return self._facts(root).serial

    def set_serial(self, serial: int) -> None:
        """Keep it."""
        with self.owned() as root:
            self._change(root, serial=serial)

    def capacity(self) -> Capacity:
        """What statvfs says."""
        with self.root() as root:
            told = os.fstatvfs(root)
        return Capacity(
            total_bytes=told.f_blocks * told.f_frsize,
            used_bytes=(told.f_blocks - told.f_bfree) * told.f_frsize,
            free_bytes=told.f_bavail * told.f_frsize,
        )

    def accept(self, attributes: Attributes) -> None:
        """Raises Rejected for attributes that the filesystem cannot give."""
        if attributes.wipe is Wipe.DISCARD:
            reason = "its filesystem discards what is deleted as it is mounted, or by fstrim; use none or zero"
            raise rules.refused(self.pool, "file", "WIPE", "discard", reason)
        with self.root() as root:
            if attributes.wipe is Wipe.ZERO and not writes_in_place(root):
                reason = f"the filesystem of {self.path} writes to other blocks than those that are there; use none"
                raise rules.refused(self.pool, "file", "WIPE", "zero", reason)
            if attributes.thick and not self._can_allocate():
                reason = f"the filesystem of {self.path} cannot set blocks aside; leave it out"
                raise rules.refused(self.pool, "file", "PROVISIONING", "thick", reason)

    def _can_allocate(self) -> bool:
        """Whether a file of the pool can be given blocks ahead; tried with one that has no name."""
        file = os.open(self.path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            allocate(file, 4096)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return False
            raise
        finally:
            os.close(file)
        return True

    def serve(self, root: int, cloud: str | None) -> None:
        """Let the pool serve that cloud from now on. Raises Conflict when it serves another."""
        with self._facts_lock:
            facts = self._facts(root)
            rules.check_cloud(self.pool, facts.cloud, cloud)
            if cloud is not None and facts.cloud is None:
                write_pool(root, msgspec.structs.replace(facts, cloud=cloud))

    def admit(self, root: int, name: str, size_bytes: int) -> None:
        """Raises OutOfSpace for a volume of more than the filesystem has in all."""
        told = os.fstatvfs(root)
        rules.check_room(self.pool, name, size_bytes, told.f_blocks * told.f_frsize)

    @contextlib.contextmanager
    def root(self) -> Iterator[int]:
        """The pool's directory, open; what the system calls in the body say is translated.

        Raises NotFound when there is none to open a pool in. When an open pool has gone (a filesystem that is not mounted
        any more leaves an empty directory) that is CommandFailed: it must not look like a pool without volumes.
        """
        try:
            root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if self._agent is not None and self._facts(root).owner is None:
                    raise CommandFailed(f"pool {self.pool} is gone from {self.path}: mount its filesystem again")
                yield root
            finally:
                os.close(root)
        except OSError as error:
            raise self._translated(error) from error

    @contextlib.contextmanager
    def owned(self) -> Iterator[int]:
        """Like `root`, when the pool is the agent's."""
        if self._agent is None:
            raise Rejected(f"pool {self.pool} is not open")
        with self.root() as root:
            rules.check_owner(self.pool, self._facts(root).owner, self._agent)
            yield root

    def _refusals(self, root: int, agent: str, cloud: str | None) -> Iterator[Rejected]:
        """Why the agent cannot open the pool for the cloud."""
        if not os.access(self.path, os.W_OK | os.X_OK) or os.fstatvfs(root).f_flag & os.ST_RDONLY:
            yield Rejected(f"pool {self.pool} cannot be written: make {self.path} writable for the agent")
        facts = self._facts(root)
        try:
            rules.check_owner(self.pool, facts.owner, agent)
        except Conflict as refusal:
            yield refusal
        try:
            rules.check_cloud(self.pool, facts.cloud, cloud)
        except Conflict as refusal:
            yield refusal

    def _translated(self, error: OSError) -> OnelunError:
        if error.errno in _FULL:
            return OutOfSpace(f"pool {self.pool} is full ({error.strerror})", pool=self.pool)
        if error.filename == self.path and error.errno in (errno.ENOENT, errno.ENOTDIR):
            if self._agent is None:
                return NotFound(
                    f"there is no pool {self.pool}: {self.path} is no directory; make it, or correct the pool's path",
                    pool=self.pool,
                )
            return CommandFailed(f"pool {self.pool} is gone: {self.path} is no directory any more")
        return CommandFailed(f"pool {self.pool}: {error.strerror} ({error.filename or self.path})")

    def _facts(self, root: int) -> PoolFacts:
        try:
            return read_pool(root)
        except UnreadableError as error:
            raise CommandFailed(f"the facts of pool {self.pool} cannot be read: {error}; restore the file") from error

    def _change(self, root: int, **changes: str | int) -> None:
        with self._facts_lock:
            write_pool(root, msgspec.structs.replace(self._facts(root), **changes))
