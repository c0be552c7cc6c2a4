"""Where VMs' directories are: on a host, behind its agent, or on the front-end itself; both look alike."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from onelun.directory import Directory
from onelun.driver.running import Run
from onelun.errors import NotFound
from onelun.rpc.message import (
    DirList,
    Entry,
    EntryPut,
    EntryRemoved,
    FileRead,
    ListDir,
    PutEntry,
    ReadFile,
    RemoveEntry,
)


class Place(Protocol):
    """The VMs' directories of one machine. Paths are of directories, names are relative to them."""

    async def entries(self, path: str) -> tuple[Entry, ...] | None:
        """What is in the directory, recursively; None when there is none."""

    async def read(self, path: str, name: str, offset: int) -> bytes:
        """A piece of a file, at most 1 MiB; an empty one is the end."""

    async def put(self, path: str, entry: Entry, *, offset: int = 0, data: bytes = b"", last: bool = True) -> None:
        """Make an entry, and the directory first where there is none. A file appears with its last piece."""

    async def remove(self, path: str, name: str | None = None) -> None:
        """Remove the directory, or one entry of it. Absent: nothing."""


class Remote:
    """The directories of a host, through its compute agent."""

    def __init__(self, run: Run, agent: str) -> None:
        self._ask = run.ask
        self._agent = agent

    async def entries(self, path: str) -> tuple[Entry, ...] | None:
        """See Place."""
        listed = await self._ask(self._agent, ListDir(path=path), DirList)
        return listed.entries if listed.exists else None

    async def read(self, path: str, name: str, offset: int) -> bytes:
        """See Place."""
        return (await self._ask(self._agent, ReadFile(path=path, name=name, offset=offset), FileRead)).data

    async def put(self, path: str, entry: Entry, *, offset: int = 0, data: bytes = b"", last: bool = True) -> None:
        """See Place."""
        request = PutEntry(path=path, entry=entry, offset=offset, data=data, last=last)
        await self._ask(self._agent, request, EntryPut, anew=True)

    async def remove(self, path: str, name: str | None = None) -> None:
        """See Place."""
        # Anew, as in put: an action that is begun again may have made again what it had removed.
        await self._ask(self._agent, RemoveEntry(path=path, name=name), EntryRemoved, anew=True)


class Local:
    """The directories of the front-end itself."""

    def __init__(self, datastores: str, owner: str) -> None:
        """`datastores` is the root of all of them; what is made there belongs to `owner`."""
        self._root = datastores
        self._directory = Directory(datastores, owner)

    async def entries(self, path: str) -> tuple[Entry, ...] | None:
        """See Place."""
        if not os.path.isdir(self._root):
            return None
        found = await asyncio.to_thread(self._directory.entries, path)
        return None if found is None else tuple(Entry(**entry._asdict()) for entry in found)

    async def read(self, path: str, name: str, offset: int) -> bytes:
        """See Place."""
        if not os.path.isdir(self._root):
            raise NotFound(f"{path} does not exist on the front-end")
        return await asyncio.to_thread(self._directory.read, path, name, offset)

    async def put(self, path: str, entry: Entry, *, offset: int = 0, data: bytes = b"", last: bool = True) -> None:
        """See Place."""
        await asyncio.to_thread(self._put, path, entry, offset, data, last)

    def _put(self, path: str, entry: Entry, offset: int, data: bytes, last: bool) -> None:  # noqa: FBT001 - as in Place
        if entry.kind == "link":
            self._directory.put_link(path, entry.name, entry.target or "")
        elif entry.kind == "dir":
            self._directory.put_directory(path, entry.name, entry.mode)
        else:
            self._directory.put_piece(path, entry.name, data, offset=offset, last=last, mode=entry.mode)

    async def remove(self, path: str, name: str | None = None) -> None:
        """See Place."""
        if os.path.isdir(self._root):
            await asyncio.to_thread(self._directory.remove, path, name)


def place(run: Run, agent: str | None) -> Place:
    """The directories of the host of that agent; of the front-end for None."""
    return Local(run.config.datastores, run.config.owner) if agent is None else Remote(run, agent)
