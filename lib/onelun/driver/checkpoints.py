"""The checkpoint of a VM that is on no host: its memory, in a file of its directory, goes by a volume of its own.

`virsh save` leaves it in the directory on the host, as large as the memory; a directory is carried through the broker, which is
no place for that (decision 0012). So mv has the host that is left copy it to a volume, and the host that is reached copy it back
from there. A small file in the directory, the note, says meanwhile which volume that is: it is written before the volume is made
and removed after the volume is gone, so that whatever interrupts this, a repeat goes on and `delete` leaves nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from onelun.driver.datastore import creation
from onelun.driver.location import Directory
from onelun.driver.places import Place, place
from onelun.driver.pools import choose, holding, own_system, own_system_pools
from onelun.driver.running import Run
from onelun.errors import NotFound, OnelunError, Rejected, Unreachable
from onelun.model import Attributes, Kind, Owner
from onelun.naming import Source, checkpoint_volume, parse_source
from onelun.rpc.message import (
    DelZvol,
    Entry,
    FetchFile,
    FileFetched,
    FileStored,
    ListZvols,
    MapZvol,
    StoreFile,
    UnmapZvol,
    ZvolCreated,
    ZvolDeleted,
    ZvolList,
    ZvolMapped,
    ZvolUnmapped,
)

# kvm/save, kvm/restore: the file, and what an older one becomes that a restore left; nothing reads that again.
FILE = "checkpoint"
_OLDER = re.compile(r"checkpoint\.[0-9]+")
NOTE = "checkpoint.volume"
_NOTE = re.compile(r"(\S{1,200}) ([1-9][0-9]{0,15}) ([0-7]{1,3})\n")
_CLEAN_UP_S = 10.0


class Stored(NamedTuple):
    """A checkpoint of `size` bytes on the volume `source`; `mode` is the file's."""

    source: Source
    size: int
    mode: int

    def note(self) -> bytes:
        """What the note says."""
        return f"{self.source} {self.size} {self.mode:o}\n".encode()


def without(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries of a directory but for what is of checkpoints: a VM that runs needs none."""
    return tuple(entry for entry in entries if entry.name not in (FILE, NOTE) and not _OLDER.fullmatch(entry.name))


async def leave(
    run: Run, directory: Directory, agent: str | None, entries: tuple[Entry, ...], *, room: int
) -> tuple[tuple[Entry, ...], Stored | None]:
    """What is left to carry, at most `room` bytes if that can be, once a larger checkpoint is on its volume; and that one.

    The file stays where it is, and is the truth while it is there. Raises Rejected and OutOfSpace before anything is changed.
    """
    here = place(run, agent)
    rest = without(entries)
    noted = await _noted(here, directory) if any(entry.name == NOTE for entry in entries) else None
    # `virsh save` that failed leaves an empty one.
    file = next((entry for entry in entries if entry.name == FILE and entry.kind == "file" and entry.size), None)
    if file is None:
        return rest, noted
    if agent is None or (noted is None and sum(entry.size for entry in (*rest, file)) <= room):
        return (*rest, file), noted
    # A checkpoint is the guest's memory: it is kept, and goes, as the disks of its datastore do.
    pools, attributes = await own_system(run)
    if noted is None:
        name = checkpoint_volume(directory.vm_id)
        nas, pool = await holding(run, pools, name) or await choose(run, pools, file.size, name)
        noted = Stored(Source(nas, pool, name), file.size, file.mode)
    stored = noted._replace(size=file.size, mode=file.mode)
    await _put_note(here, directory, stored)
    try:
        await _store(run, directory, agent, stored, attributes)
    except OnelunError:
        with contextlib.suppress(OnelunError):
            await _end(run, directory, stored, force=False, within_s=_CLEAN_UP_S)
            await here.remove(directory.path, NOTE)
        raise
    run.note(f"stored the checkpoint of VM {directory.vm_id} on {stored.source}, {stored.size} bytes")
    return rest, stored


async def arrive(run: Run, directory: Directory, agent: str | None, stored: Stored, *, fetch: bool) -> None:
    """Make the file of its volume again where `agent` is, and end the volume; on the front-end, or without `fetch`, only note it.

    Raises NotFound when neither the volume nor the file is there. Whatever fails, the volume stays until the file is whole.
    """
    there = place(run, agent)
    await _put_note(there, directory, stored)
    if agent is None or not fetch:
        return
    source = stored.source
    listed = await run.ask(source.nas, ListZvols(name=source.volume, zpool=source.pool), ZvolList)
    if listed.body:
        await _fetch(run, directory, agent, stored)
        await _end(run, directory, stored, force=False)
        run.note(f"fetched the checkpoint of VM {directory.vm_id} from {source}, {stored.size} bytes")
    elif not any((e.name, e.size) == (FILE, stored.size) for e in await there.entries(directory.path) or ()):
        raise NotFound(f"the checkpoint of VM {directory.vm_id} should be on {source}, and there is no such volume")
    await there.remove(directory.path, NOTE)


async def discard(run: Run, directory: Directory, agent: str | None, *, left: bool) -> None:
    """Remove the volume of a VM that ends, whether the host or the front-end has the note of it. None: nothing.

    `left` says that oned knows the VM to be gone from that host: then the host need not answer.
    """
    # Of a stopped VM oned may name the host that it was on last, while its directory is on the front-end.
    for where in dict.fromkeys((agent, None)):
        try:
            noted = await _noted(place(run, where), directory)
        except Unreachable:
            if not left:
                raise
            noted = await _found(run, directory)
        if noted is not None:
            await _end(run, directory, noted, force=left)
            run.note(f"removed {noted.source}, the checkpoint of VM {directory.vm_id}")


async def _store(run: Run, directory: Directory, agent: str, stored: Stored, attributes: Attributes) -> None:
    source = stored.source
    owner = _owner(run, directory)
    await run.ask(source.nas, creation(source, stored.size, owner, None, attributes), ZvolCreated)
    uuid = await _map(run, source, agent)
    request = StoreFile(
        path=directory.path,
        name=FILE,
        nas=source.nas,
        zpool=source.pool,
        zvol=source.volume,
        uuid=uuid,
        size_bytes=stored.size,
    )
    await run.ask(agent, request, FileStored)
    await _unmap(run, source, force=False)


async def _fetch(run: Run, directory: Directory, agent: str, stored: Stored) -> None:
    source = stored.source
    # An earlier attempt may have been to another host.
    await _unmap(run, source, force=False)
    uuid = await _map(run, source, agent)
    request = FetchFile(
        path=directory.path,
        name=FILE,
        nas=source.nas,
        zpool=source.pool,
        zvol=source.volume,
        uuid=uuid,
        size_bytes=stored.size,
        mode=stored.mode,
    )
    try:
        await run.ask(agent, request, FileFetched)
    except OnelunError:
        with contextlib.suppress(OnelunError):
            await _unmap(run, source, force=False, within_s=_CLEAN_UP_S)
        raise


async def _map(run: Run, source: Source, agent: str) -> str:
    """Connect the volume on the host, without a disk of the VM; its UUID."""
    request = MapZvol(zvol=source.volume, zpool=source.pool, remotehost=agent, cloud=run.config.cloud)
    return (await run.ask(source.nas, request, ZvolMapped)).uuid


async def _unmap(run: Run, source: Source, *, force: bool, within_s: float | None = None) -> None:
    request = UnmapZvol(zvol=source.volume, zpool=source.pool, cloud=run.config.cloud, force=force)
    await run.ask(source.nas, request, ZvolUnmapped, within_s=within_s)


async def _end(run: Run, directory: Directory, stored: Stored, *, force: bool, within_s: float | None = None) -> None:
    source = stored.source
    await _unmap(run, source, force=force, within_s=within_s)
    request = DelZvol(zvol=source.volume, zpool=source.pool, owner=_owner(run, directory))
    await run.ask(source.nas, request, ZvolDeleted, within_s=within_s)


def _owner(run: Run, directory: Directory) -> Owner:
    return Owner(kind=Kind.CHECKPOINT, cloud=run.config.cloud, vm_id=directory.vm_id)


async def _put_note(where: Place, directory: Directory, stored: Stored) -> None:
    await where.put(directory.path, Entry(name=NOTE, kind="file"), data=stored.note())


async def _noted(where: Place, directory: Directory) -> Stored | None:
    """What the note in the directory says; None when there is none. Raises Rejected for one that is not ours."""
    try:
        text = (await where.read(directory.path, NOTE, 0)).decode("ascii", "replace")
    except NotFound:
        return None
    match = _NOTE.fullmatch(text)
    source = parse_source(match[1]) if match else None
    if match is None or source is None or source.volume != checkpoint_volume(directory.vm_id):
        raise Rejected(f"{NOTE} in {directory.path} names no volume of a checkpoint of VM {directory.vm_id}")
    return Stored(source, int(match[2]), int(match[3], 8))


async def _found(run: Run, directory: Directory) -> Stored | None:
    """The volume by its name in the system datastore's pools: its note is on a host that does not answer."""
    name = checkpoint_volume(directory.vm_id)
    try:
        pools = await own_system_pools(run)
    except Rejected:
        return None
    found = await holding(run, pools, name)
    return Stored(Source(*found, name), 1, 0o600) if found else None
