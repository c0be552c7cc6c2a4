"""The action mv: a VM's disk or directory goes from one place to another, either of which may be the front-end.

A disk is never copied: the host that has it lets go, and the other one connects it. disk.N is never removed here, since
in mixed mode another driver moves the directory afterwards; it leads nowhere until its device is there.
"""

from __future__ import annotations

import contextlib

from onelun.driver import checkpoints
from onelun.driver.disks import Known, known, volatile_disks, volume_of
from onelun.driver.location import Directory, Disk, parse_location
from onelun.driver.places import Place, place
from onelun.driver.running import Run
from onelun.driver.transfer import attach
from onelun.errors import Conflict, NotFound, Rejected, Unreachable
from onelun.naming import Source
from onelun.rpc.message import Entry, UnmapZvol, ZvolUnmapped

MIB = 1 << 20
# What a directory may carry; a checkpoint, as big as the VM's memory, goes by a volume.
LARGEST_DIRECTORY = 16 * MIB
_PROBE = ".onelun-"

# VirtualMachine.h. The VM comes from the front-end: PROLOG_RESUME, PROLOG_UNDEPLOY and their failures.
_RESUMING = frozenset({9, 49, 31, 50})
# Its host is lost: PROLOG_MIGRATE_UNKNOWN and its failure.
_LOST = frozenset({60, 61})
# It goes to the front-end: EPILOG_STOP, EPILOG_UNDEPLOY and their failures.
_STOPPING = frozenset({10, 41, 30, 42})


async def mv(run: Run) -> str:
    """Move a disk or a directory. From a place to the same place, under whichever names, is nothing to do."""
    if len(run.arguments.rest) != 2:
        raise Rejected("the arguments should be: mv HOST:PATH HOST:PATH, then VM and datastore from 3.6 on")
    source, target = (parse_location(text, run.config.datastores) for text in run.arguments.rest)
    if source.vm_id != target.vm_id:
        raise Rejected(f"a disk of VM {source.vm_id} is not moved to VM {target.vm_id}")
    hosts = run.context.hosts
    agents = hosts.agent(source.host), hosts.agent(target.host)
    if (agents[0], source.path) == (agents[1], target.path):
        run.note(f"{source.path} is where it should be")
        return ""
    oned = await known(run, source.vm_id)
    if isinstance(source, Disk) and isinstance(target, Disk):
        await _move_disk(run, source, target, agents, oned)
    elif isinstance(source, Directory) and isinstance(target, Directory):
        for disk in [] if run.arguments.modern else await volatile_disks(run, source):
            there = disk._replace(host=target.host, directory=target.path)
            await _move_disk(run, disk, there, agents, oned)
        await _move_directory(run, source, target, agents, oned)
    else:
        raise Rejected("a disk is moved to a disk.N and a directory to a directory")
    return ""


async def _move_disk(run: Run, source: Disk, target: Disk, agents: tuple[str | None, str | None], oned: Known) -> None:
    volume = await volume_of(run, source, oned)
    if volume is None:
        raise NotFound(f"no volume of onelun is known behind disk {source.disk_id} of VM {source.vm_id}")
    here, there = agents
    if here is not None and oned.lcm_state not in _RESUMING:
        request = UnmapZvol(
            zvol=volume.volume,
            zpool=volume.pool,
            remotehost=here,
            cloud=run.config.cloud,
            vm=source.vm_id,
            disk=source.disk_id,
            path=source.path,
            keep_link=True,
            force=oned.lcm_state in _LOST,
        )
        ended = await run.ask(volume.nas, request, ZvolUnmapped)
        if ended.absent and not request.force:
            await keep_link(place(run, here), source, volume)
    if there is None or oned.lcm_state in _STOPPING:
        await _link(place(run, there), target, volume)
        run.note(f"{volume} left {source.host}")
        return
    told = oned.disk(source.disk_id)
    readonly, shareable = (told.readonly, told.shareable) if told is not None else (False, False)
    await attach(run, volume, target, there, readonly=readonly, shareable=shareable)
    run.note(f"moved {volume} from {source.host} to {target.host}")


async def _link(where: Place, disk: Disk, volume: Source) -> None:
    """Make disk.N where no device is: its text is the same on every host, so that it is right wherever it is copied."""
    await where.put(disk.directory, Entry(name=disk.name, kind="link", target=volume.device))


async def keep_link(where: Place, disk: Disk, volume: Source) -> None:
    """Have disk.N in a directory that is there. It is asked for a disk that had left its host before.

    When a NAS dies in the middle of that, its host drops the link with the device. A host that does not answer keeps none.
    """
    with contextlib.suppress(Unreachable):
        entries = await where.entries(disk.directory)
        if entries is not None and disk.name not in {entry.name for entry in entries}:
            await _link(where, disk, volume)


async def _move_directory(
    run: Run, source: Directory, target: Directory, agents: tuple[str | None, str | None], oned: Known
) -> None:
    if oned.lcm_state in _LOST:
        run.note(f"{source.path} stays on {source.host}, which is lost")
        return
    here, there = place(run, agents[0]), place(run, agents[1])
    entries = await here.entries(source.path)
    if entries is None:
        if await there.entries(target.path) is None:
            raise NotFound(f"neither {source.host} nor {target.host} has {source.path}")
        run.note(f"{source.path} has been moved already")
        return
    if await shared(run, (here, source.path), (there, target.path)):
        run.note(f"{source.path} is shared by {source.host} and {target.host}")
        return
    entries, checkpoint = await checkpoints.leave(run, source, agents[0], entries, room=LARGEST_DIRECTORY)
    size = await carry(run, source, target, (here, there), entries)
    if checkpoint is not None:
        stays = oned.lcm_state not in _STOPPING
        await checkpoints.arrive(run, target, agents[1], checkpoint, fetch=stays)
    await here.remove(source.path)
    run.note(f"moved {source.path} from {source.host} to {target.host}, {len(entries)} entries, {size} bytes")


async def carry(
    run: Run, source: Directory, target: Directory, places: tuple[Place, Place], entries: tuple[Entry, ...]
) -> int:
    """Copy the directory's entries from place to place; the bytes of its files. Raises Rejected for more than are carried."""
    here, there = places
    # A probe is left where one was killed that looked whether the places are one.
    entries = tuple(entry for entry in entries if not entry.name.startswith(_PROBE))
    size = sum(entry.size for entry in entries if entry.kind == "file")
    if size > LARGEST_DIRECTORY:
        raise Rejected(
            f"{source.path} on {source.host} has {size / MIB:.0f} MiB of files; only {LARGEST_DIRECTORY // MIB} MiB are moved"
            " without a shared datastore directory"
        )
    for entry in sorted(entries, key=lambda entry: entry.kind != "dir"):
        await _copy(here, source.path, entry, there, target.path)
    if not entries:
        # An empty directory is one all the same: oned writes its deployment file there.
        await _make_empty(run, there, target.path)
    return size


async def shared(run: Run, here: tuple[Place, str], there: tuple[Place, str]) -> bool:
    """Whether both places are one directory: a file made here is opened there, since names of hosts do not tell.

    NFS may list a directory as it was a minute ago; a name that was never looked up it asks the server for. Raises Conflict
    when somebody else takes the file away meanwhile: then nothing is known.
    """
    probe = f"{_PROBE}{run.call.id}"
    await here[0].put(here[1], Entry(name=probe, kind="file", mode=0o600))
    try:
        if await _has(*there, probe):
            return True
        if not await _has(*here, probe):
            raise Conflict(f"another action is at work in {here[1]}: try again when it has ended")
        return False
    finally:
        await _remove_probes(*here, probe)


async def _has(where: Place, path: str, name: str) -> bool:
    try:
        await where.read(path, name, 0)
    except NotFound:
        return False
    return True


async def _remove_probes(where: Place, path: str, own: str) -> None:
    """Remove our own, and those of actions that ended before they could."""
    entries = await where.entries(path) or ()
    left = {entry.name for entry in entries if entry.kind == "file" and entry.name.startswith(_PROBE)}
    for name in left | {own}:
        await where.remove(path, name)


async def _copy(here: Place, source: str, entry: Entry, there: Place, target: str) -> None:
    if entry.kind != "file":
        await there.put(target, entry)
        return
    offset = 0
    piece = await here.read(source, entry.name, offset)
    while True:
        # A file may have grown since it was listed; what is moved stays bounded all the same.
        following = await here.read(source, entry.name, offset + len(piece)) if piece else b""
        await there.put(target, entry, offset=offset, data=piece, last=not following)
        if not following:
            return
        offset += len(piece)
        piece = following
        if offset > LARGEST_DIRECTORY:
            raise Rejected(f"{entry.name} in {source} grows while it is moved")


async def _make_empty(run: Run, where: Place, path: str) -> None:
    name = f"{_PROBE}{run.call.id}"
    await where.put(path, Entry(name=name, kind="file", mode=0o600))
    await _remove_probes(where, path, name)
