"""Pools in memory, in a directory of this machine, and on small filesystems of each kind."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

from tests.support.filesystems import mounted
from tests.support.pools import MIB, DevicePool, Place, Pool

from onelun.model import Kind, Owner, State, Volume
from onelun.nas.backends.base import PLAIN, Backend
from onelun.nas.backends.file.backend import FileBackend
from onelun.nas.backends.memory.backend import MemoryBackend


class MemoryPool(Pool):
    """Its content is reached by the backend's own methods."""

    shares = True
    gives = frozenset(("discard", "zero"))
    devices = False
    places = 3000

    def __init__(self):
        self.backend = MemoryBackend("tank", total_bytes=256 * MIB)

    def again(self):
        return self.backend

    async def write(self, volume, offset, content):
        self.backend.write(volume, offset, content)

    async def discard(self, volume, offset, length):
        self.backend.discard(volume, offset, length)

    async def read(self, volume, offset, length):
        return self.backend.read(volume, offset, length)

    async def length(self, volume):
        return volume.size_bytes

    def put(self, name, content):
        self.backend.put(name, content)
        return name

    def broken(self):
        return [("full", self._filled())]

    @contextlib.contextmanager
    def _filled(self):
        kept = self.backend._shelf.by_uuid
        uuid = str(uuids.uuid4())
        volume = Volume("tank", "filler", uuid, 240 * MIB, State.BUILDING, Owner(kind=Kind.PLAIN))
        self.backend._build(volume.name, uuid, volume.size_bytes, volume.owner, None, PLAIN)
        self.backend.write(volume, 0, os.urandom(230 * MIB))
        try:
            yield
        finally:
            del kept[uuid]


class FilePool(DevicePool):
    """A directory. `mount` is the filesystem of its own that it is on, if it is."""

    def __init__(self, path: Path, *, shares: bool | None, gives: frozenset[str] | None, mount: Path | None) -> None:
        self.path = str(path)
        self.shares = shares
        self.gives = gives
        self.backend = FileBackend("tank", self.path)
        self._mount = mount

    def again(self) -> Backend:
        return FileBackend("tank", self.path)

    def documented(self):
        return "file", {"POOL": self.path}

    def put(self, name, content):
        path = os.path.join(self.path, name)
        with open(path, "xb") as file:
            file.write(content)
        return path

    def settle(self):
        os.sync()

    def broken(self):
        always = [("no directory", self._away())]
        if self._mount is None:
            return always
        return [*always, ("full", self._filled()), ("writable", self._read_only())]

    @contextlib.contextmanager
    def _away(self):
        os.rename(self.path, self.path + "-away")
        try:
            yield
        finally:
            os.rename(self.path + "-away", self.path)

    @contextlib.contextmanager
    def _filled(self):
        told = os.statvfs(self._mount)
        filler = self._mount / "filler"
        size = told.f_bavail * told.f_frsize - told.f_blocks * told.f_frsize // 10
        try:
            filler.write_bytes(bytes(size))
            os.sync()
            yield
        finally:
            filler.unlink()
            # XFS gives the blocks back some time after.
            until = time.monotonic() + 10
            while os.statvfs(self._mount).f_bavail < told.f_bavail * 9 // 10 and time.monotonic() < until:
                time.sleep(0.01)

    @contextlib.contextmanager
    def _read_only(self):
        assert os.system(f"mount -o remount,ro {self._mount}") == 0
        try:
            yield
        finally:
            assert os.system(f"mount -o remount,rw {self._mount}") == 0


class Memory(Place):
    @contextlib.contextmanager
    def fresh(self) -> Iterator[Pool]:
        yield MemoryPool()


class Directory(Place):
    """A directory on whatever filesystem the machine's temporary files are on."""

    shares: bool | None = None
    gives: frozenset[str] | None = None
    mount: Path | None = None

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Pool]:
        path = (self.mount or self.directory) / "pool"
        path.mkdir()
        try:
            yield FilePool(path, shares=self.shares, gives=self.gives, mount=self.mount)
        finally:
            shutil.rmtree(path)


class _Filesystem(Directory):
    kind = ""

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self.mount = self._stack.enter_context(mounted(self.kind, self.directory))
        return self

    def __exit__(self, kind, error, trace):
        self._stack.close()


class Ext4(_Filesystem):
    kind = "ext4"
    gives = frozenset(("thick", "zero"))
    shares = False


class Xfs(_Filesystem):
    kind = "xfs"
    gives = frozenset(("thick", "zero"))
    shares = True


class Btrfs(_Filesystem):
    kind = "btrfs"
    gives = frozenset(("thick",))
    shares = True
