"""What the suites of backends need of an engine: a place on which fresh pools are made, and a pool's content.

A place is one engine's medium, made once for a file of tests. An engine is one line in tests/contract/conftest.py and a
Place in a file of its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import struct
import subprocess
import uuid as uuids
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from onelun.model import Attributes, Kind, Owner, Volume
from onelun.nas.backends.base import PLAIN, Backend

MIB = 1 << 20
AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
# linux/fs.h, BLKDISCARD: _IO(0x12, 119), of an offset and a length in bytes.
_BLKDISCARD = 0x1277
OTHER_AGENT = "1c7b5f1f-68b2-4e8d-8b75-5eae602e8b21"
CLOUD = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
OTHER_CLOUD = "5a3d2a1f-8b66-4d69-8c6d-1d8a4b7a2b12"
IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1, regtime=1700000000)
DISK = Owner(kind=Kind.DISK, cloud=CLOUD, vm_id=3, disk_id=0)


class Pool(ABC):
    """A pool of at least 150 MiB, not opened yet. Its backend calls it `tank`."""

    backend: Backend
    # Whether clones and snapshots share blocks; None where that is the machine's affair.
    shares: bool | None
    # Which of thick, discard, zero and zfs (blocks and compression) volumes can be; None where that is the machine's affair.
    gives: frozenset[str] | None = frozenset()
    # Whether a volume's device is a path that can be opened.
    devices = True
    # How many volumes a test may make at once: a guest takes its time to start a command.
    many = 100
    # Whether it tells what changed between two snapshots of which neither is the other's ancestor.
    tells_branches = True
    # How many places of a volume a test may write to; each is one of 8 KiB.
    places = 20_000
    # Whether the storage keeps the moment of a snapshot in whole seconds only.
    whole_seconds = False

    @abstractmethod
    def again(self) -> Backend:
        """What a restarted agent would hold, not opened."""

    @abstractmethod
    async def write(self, volume: Volume, offset: int, content: bytes) -> None:
        """As an initiator would, flushed."""

    async def write_at(self, volume: Volume, offsets: Iterable[int], content: bytes) -> None:
        """The same content at many places."""
        for offset in offsets:
            await self.write(volume, offset, content)

    @abstractmethod
    async def discard(self, volume: Volume, offset: int, length: int) -> None:
        """As an initiator would; the range is one that the storage can let go of as a whole."""

    @abstractmethod
    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        """As an initiator would."""

    @abstractmethod
    async def length(self, volume: Volume) -> int:
        """The bytes that an initiator sees."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> str:
        """Put something with that content into the pool's place that is nobody's, as an operator would; its path."""

    def documented(self) -> tuple[str, dict[str, str]] | None:
        """What the docs call its engine, and what its place is called there and here; None for what no operator sees."""
        return None

    def settle(self) -> None:
        """Let the storage count what was written."""
        return

    def broken(self) -> list[tuple[str, AbstractContextManager[object]]]:
        """Ways in which the pool may lack something: words that `check` must say of it then, and what makes it so a while."""
        return []


class DevicePool(Pool):
    """A pool whose content is reached through the volume's device."""

    async def write(self, volume: Volume, offset: int, content: bytes) -> None:
        await self._with(volume, os.O_WRONLY, lambda device: _write(device, offset, content))

    async def write_at(self, volume: Volume, offsets: Iterable[int], content: bytes) -> None:
        await self._with(volume, os.O_WRONLY, lambda device: _write_at(device, offsets, content))

    async def discard(self, volume: Volume, offset: int, length: int) -> None:
        await self._with(volume, os.O_WRONLY, lambda device: _discard(device, offset, length))

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        return await self._with(volume, os.O_RDONLY, lambda device: os.pread(device, length, offset))

    async def length(self, volume: Volume) -> int:
        return await self._with(volume, os.O_RDONLY, lambda device: os.lseek(device, 0, os.SEEK_END))

    async def _with(self, volume, flags, act):
        path = await self.backend.activate(volume)
        try:
            return await asyncio.to_thread(_opened, path, flags, act)
        finally:
            await self.backend.deactivate(volume)


class Place(ABC):
    """The medium of one engine, as a context manager. `directory` is empty and the place's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind."""
        return

    @abstractmethod
    def fresh(self) -> AbstractContextManager[Pool]:
        """A new pool, removed with all that is in it."""


def _opened(path, flags, act):
    # Without O_CREAT: a device that is not there must not become a file.
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        return act(descriptor)
    finally:
        os.close(descriptor)


def _write(device, offset, content):
    assert os.pwrite(device, content, offset) == len(content)
    os.fsync(device)


def _write_at(device, offsets, content):
    for offset in offsets:
        assert os.pwrite(device, content, offset) == len(content)
    os.fsync(device)


def _discard(device, offset, length):
    if stat.S_ISBLK(os.fstat(device).st_mode):
        fcntl.ioctl(device, _BLKDISCARD, struct.pack("QQ", offset, length))
    else:
        place = ("--offset", str(offset), "--length", str(length), f"/proc/self/fd/{device}")
        subprocess.run(["fallocate", "--punch-hole", *place], check=True, pass_fds=(device,), timeout=60)
    os.fsync(device)


def new() -> str:
    return str(uuids.uuid4())


def silent(done: int, total: int) -> None:
    pass


async def ready(
    pool: Pool,
    name: str,
    *,
    size: int = MIB,
    owner: Owner = IMAGE,
    content: bytes = b"",
    attributes: Attributes = PLAIN,
) -> Volume:
    """A published volume with `content` at its beginning."""
    uuid = new()
    built = await pool.backend.create(name, uuid, size, owner, attributes)
    if content:
        await pool.write(built, 0, content)
    return await pool.backend.publish(uuid)


async def cloned(
    pool: Pool,
    origin: Volume,
    name: str,
    *,
    size: int | None = None,
    snapshot: str | None = None,
    attributes: Attributes = PLAIN,
) -> Volume:
    """A published clone."""
    uuid, size = new(), size or origin.size_bytes
    await pool.backend.clone(origin, name, uuid, size, DISK, silent, snapshot=snapshot, attributes=attributes)
    return await pool.backend.publish(uuid)


async def names(pool: Pool, *states: str) -> list[str]:
    return sorted(v.name for v in await pool.backend.volumes() if not states or v.state in states)
