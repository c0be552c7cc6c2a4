"""Live migration: while a VM moves from one host to another, both have its disks.

premigrate gives them to the host it goes to, beside the one it runs on; postmigrate ends those of the host it left,
failmigrate those of the host it did not reach. The VM's directory goes along when onelun is the system datastore's driver;
when another one is, it calls ours for the disks alone ("chained"), may drop what we say, and never calls failmigrate. So a
premigrate that fails leaves the host it was to prepare without any of the disks.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from onelun.driver import checkpoints
from onelun.driver.disks import Known, known, volume_of
from onelun.driver.document import Vm, VmDisk, parse_vm_document
from onelun.driver.location import Directory, Disk, parse_location
from onelun.driver.moving import carry, keep_link, shared
from onelun.driver.places import place
from onelun.driver.running import Run
from onelun.driver.transfer import attach
from onelun.errors import NotFound, OnelunError, Rejected, Unreachable
from onelun.naming import DRIVER, Source
from onelun.rpc.message import UnmapZvol, ZvolUnmapped

log = logging.getLogger(__name__)

# What is kept of the deadline for undoing, and what that may take when the action is stopped.
_CLEAN_UP_S = 10.0
# What it may take otherwise, where the deadline has left so much: a busy host gives a disk back slowly.
_UNDO_S = 30.0


class _End(NamedTuple):
    """One end of a migration: the VM's directory on a host, and the host's agent."""

    directory: Directory
    agent: str


class _Migration(NamedTuple):
    """A VM that moves from one host to another, or was to."""

    vm: Vm
    source: _End
    target: _End

    @property
    def disks(self) -> list[VmDisk]:
        """The VM's disks that are onelun's."""
        return [disk for _, disk in sorted(self.vm.disks.items()) if disk.tm_mad == DRIVER]

    @property
    def nowhere(self) -> bool:
        """Whether both ends are one host, under whichever names."""
        return self.source.agent == self.target.agent


async def premigrate(run: Run) -> str:
    """Give the VM's disks to the host that it goes to, too, with its directory. What fails leaves none of them there."""
    migration = await _read(run)
    if migration.nowhere:
        run.note(f"{migration.source.directory.host} and {migration.target.directory.host} are one host")
        return ""
    volumes = [(await _volume(run, migration, disk), disk) for disk in migration.disks]
    carried = False
    begun: list[tuple[Source, VmDisk]] = []
    try:
        if not run.arguments.chained:
            carried = await _is_apart(run, migration.source, migration.target)
            if carried:
                await _carry(run, migration)
        for source, disk in volumes:
            begun.append((source, disk))
            await attach(
                run,
                source,
                _disk(migration.target, disk),
                migration.target.agent,
                readonly=disk.readonly,
                shareable=disk.shareable,
                beside=migration.source.agent,
                within_s=max(1.0, run.deadline.left_s() - _CLEAN_UP_S),
            )
    except (OnelunError, asyncio.CancelledError) as error:
        within_s = _UNDO_S if isinstance(error, OnelunError) else _CLEAN_UP_S
        undo = asyncio.ensure_future(_undo(run, migration, begun, carried=carried, within_s=within_s))
        await asyncio.shield(undo)
        raise
    for source, disk in volumes:
        run.note(f"{source}, disk {disk.id}, is on {migration.target.directory.host} too")
    return ""


async def postmigrate(run: Run) -> str:
    """Take the disks from the host that the VM has left, and its directory there. A repeat finds nothing to do."""
    migration = await _read(run)
    await _leave(run, migration, left=migration.source, stays=migration.target)
    return ""


async def failmigrate(run: Run) -> str:
    """Take the disks from the host that the VM did not reach, and its directory there. A repeat finds nothing to do."""
    migration = await _read(run)
    await _leave(run, migration, left=migration.target, stays=migration.source)
    return ""


async def _read(run: Run) -> _Migration:
    first, second, path = run.arguments.rest
    ends = []
    for host in (first, second):
        directory = parse_location(f"{host}:{path}", run.config.datastores)
        if not isinstance(directory, Directory):
            raise Rejected(f"{path[:200]} is a disk, where a VM's directory was expected")
        if directory.vm_id != run.arguments.vm_id:
            raise Rejected(f"{path[:200]} is of VM {directory.vm_id}, and the call is for VM {run.arguments.vm_id}")
        ends.append(_End(directory, run.context.hosts.compute(host)))
    return _Migration(await _vm(run, ends[0].directory.vm_id), *ends)


async def _vm(run: Run, vm_id: int) -> Vm:
    """The VM as the call tells it; before 5.10 it told nothing, and oned is asked."""
    document = run.arguments.document or b""
    if document.strip() or run.api is None:
        vm = parse_vm_document(document)
        if vm.id != vm_id:
            raise Rejected(f"the document is of VM {vm.id}, and the call is for VM {vm_id}")
        return vm
    found = (await known(run, vm_id)).vm
    if found is None:
        raise Rejected(f"oned has no VM {vm_id}: nothing is attached for it")
    return found


async def _volume(run: Run, migration: _Migration, disk: VmDisk) -> Source:
    found = await volume_of(run, _disk(migration.source, disk), Known(asked=True, vm=migration.vm))
    if found is None:
        raise NotFound(f"no volume of onelun is known behind disk {disk.id} of VM {migration.vm.id}")
    return found


async def _carry(run: Run, migration: _Migration) -> None:
    source, target = migration.source, migration.target
    here, there = place(run, source.agent), place(run, target.agent)
    entries = checkpoints.without(await here.entries(source.directory.path) or ())
    size = await carry(run, source.directory, target.directory, (here, there), entries)
    run.note(f"copied {source.directory.path} to {target.directory.host}, {len(entries)} entries, {size} bytes")


async def _is_apart(run: Run, here: _End, there: _End) -> bool:
    """Whether the directory on `here` is another one than on `there`. Raises NotFound when there is none here."""
    if await place(run, here.agent).entries(here.directory.path) is None:
        raise NotFound(f"{here.directory.host} has no {here.directory.path}")
    ends = [(place(run, end.agent), end.directory.path) for end in (here, there)]
    return not await shared(run, ends[0], ends[1])


async def _undo(
    run: Run, migration: _Migration, begun: list[tuple[Source, VmDisk]], *, carried: bool, within_s: float
) -> None:
    """Whatever the host got, it has it no more; what it does not give back is fenced."""
    target, stays = migration.target, migration.source
    asked = [
        run.ask(source.nas, _ending(run, source, disk, target, stays), ZvolUnmapped, within_s=within_s)
        for source, disk in begun
    ]
    left = [error for error in await asyncio.gather(*asked, return_exceptions=True) if isinstance(error, Exception)]
    if carried and not left:
        try:
            await place(run, target.agent).remove(target.directory.path)
        except OnelunError as error:
            left.append(error)
    for reason in left:
        log.warning("premigrate id=%s left=%s reason=%s", run.call.id, target.directory.host, reason)
        run.note(f"{target.directory.host} may still have something of VM {migration.vm.id}: {reason}")


async def _leave(run: Run, migration: _Migration, *, left: _End, stays: _End) -> None:
    """End the disks on one host, all that can be, then its directory. Raises the first reason why one cannot."""
    if migration.nowhere:
        return
    failures: list[OnelunError] = []
    for disk in migration.disks:
        try:
            source = await volume_of(run, _disk(left, disk), Known(asked=True, vm=migration.vm))
            if source is None:
                run.note(f"nothing of onelun is behind disk {disk.id}")
                continue
            removed = await run.ask(source.nas, _ending(run, source, disk, left, stays), ZvolUnmapped)
            if removed.absent:
                # On a shared directory what the other host dropped is the link of this one.
                await keep_link(place(run, stays.agent), _disk(stays, disk), source)
        except OnelunError as error:
            failures.append(error)
            continue
        debt = f"; {left.directory.host} did not answer and owes the clean-up" if removed.debt else ""
        run.note(f"{source}, disk {disk.id}, left {left.directory.host}{debt}")
    if failures:
        raise failures[0]
    if not run.arguments.chained:
        await _remove_directory(run, left, stays)


async def _remove_directory(run: Run, left: _End, stays: _End) -> None:
    """Remove the directory of the host without the VM; never when that with the VM has no other one."""
    path, host = left.directory.path, left.directory.host
    try:
        if await place(run, left.agent).entries(path) is None:
            return
    except Unreachable as error:
        run.note(f"{path} stays on {host}, which does not answer: {error.sentence}")
        return
    if await place(run, stays.agent).entries(stays.directory.path) is None:
        run.note(f"{path} stays on {host}: {stays.directory.host} has none")
    elif await _is_apart(run, left, stays):
        await place(run, left.agent).remove(path)
        run.note(f"removed {path} on {host}")


def _disk(end: _End, disk: VmDisk) -> Disk:
    directory = end.directory
    return Disk(directory.host, directory.path, f"disk.{disk.id}", directory.vm_id, disk.id)


def _ending(run: Run, source: Source, disk: VmDisk, left: _End, stays: _End) -> UnmapZvol:
    """The link stays: on a shared directory it is that of the host with the VM, and elsewhere it leads nowhere then."""
    return UnmapZvol(
        zvol=source.volume,
        zpool=source.pool,
        remotehost=left.agent,
        cloud=run.config.cloud,
        vm=left.directory.vm_id,
        disk=disk.id,
        path=_disk(left, disk).path,
        keep_link=True,
        # OpenNebula says where the VM runs: a host that does not answer is fenced.
        force=True,
        stays=stays.agent,
        needs=("stays",),
    )
