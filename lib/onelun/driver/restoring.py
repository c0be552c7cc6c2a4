"""The action restore: a VM's disks are put back from a backup, while the VM is off.

OpenNebula's backup datastore gives each disk as a qcow2 file. Its content goes into a new volume over iSCSI, as an image's
does; when all disks have arrived, each new volume takes its disk's place in one step.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from onelun.driver.api import Api
from onelun.driver.backup_document import parse_ds_mad, parse_image_datastore
from onelun.driver.backupstore import disks_of, fetch
from onelun.driver.content import Content
from onelun.driver.disks import Known
from onelun.driver.document import parse_vm
from onelun.driver.formats import Format, check_intact, inspect
from onelun.driver.importing import write
from onelun.driver.location import Directory, Disk, parse_location
from onelun.driver.luns import Leased
from onelun.driver.running import Run
from onelun.driver.snapshots import existing_volume
from onelun.driver.staging import staged
from onelun.driver.transfer import attach, readonly
from onelun.errors import NotFound, OnelunError, Rejected
from onelun.naming import Source
from onelun.rpc.message import (
    AbortImport,
    FinishImport,
    ImportAborted,
    ImportFinished,
    RestoreZvol,
    ZvolImporting,
)

_CLEAN_UP_S = 10.0
_CHECK_S = 900.0


class _Wanted(NamedTuple):
    """What is to be restored: the VM as oned knows it, and where each disk of the backup is."""

    agent: str
    oned: Known
    disks: tuple[_Lost, ...]


class _Lost(NamedTuple):
    """One disk to be put back: the volume behind it, and where its content is."""

    disk: Disk
    source: Source
    url: str


async def restore(run: Run) -> str:
    """Put a VM's disk, or all of the backup's, back. A repeat does it again; a failure before the last step changes nothing.

    Raises Busy when something has a disk open, Conflict for a disk that another host has.
    """
    wanted = await _wanted(run)
    await _restore(run, wanted, wanted.disks)
    return ""


async def _wanted(run: Run) -> _Wanted:
    location, image_id, increment, disk_id = run.arguments.rest
    directory = parse_location(location, run.config.datastores)
    if not isinstance(directory, Directory):
        raise Rejected(f"{location[:200]} is a disk, where a VM's directory was expected")
    if directory.vm_id != run.arguments.vm_id:
        raise Rejected(f"the directory is that of VM {directory.vm_id}, and the call is for VM {run.arguments.vm_id}")
    if image_id == "-1":
        raise Rejected("the image of the backup is -1, which is no id of one")
    if run.api is None:
        raise Rejected("frontend.api is not set: oned must be asked which backup datastore has the image")
    agent = run.context.hosts.compute(directory.host)
    image = await _document(run.api, "image", int(image_id))
    datastore_id = parse_image_datastore(image)
    datastore = await _document(run.api, "datastore", datastore_id)
    vm = await _document(run.api, "vm", directory.vm_id)
    oned = Known(asked=True, vm=parse_vm(vm))
    found = await disks_of(run, parse_ds_mad(datastore), int(increment), datastore + vm + image)
    chosen = {number: url for number, url in found.items() if disk_id in ("-1", str(number))}
    if not chosen:
        what = "no disk" if disk_id == "-1" else f"no disk {disk_id}"
        raise NotFound(f"the backup in image {image_id} has {what} to restore")
    lost = []
    for number, url in sorted(chosen.items()):
        disk = Disk(directory.host, directory.path, f"disk.{number}", directory.vm_id, number)
        lost.append(_Lost(disk, await existing_volume(run, disk, oned), url))
    return _Wanted(agent, oned, tuple(lost))


async def _document(api: Api, kind: str, object_id: int) -> str:
    text = await api.document(kind, object_id)
    if text is None:
        raise NotFound(f"oned has no {kind} {object_id}")
    return text


async def _restore(run: Run, wanted: _Wanted, lost: tuple[_Lost, ...]) -> None:
    """Restore these disks: the content of each arrives before the first one is replaced."""
    if not lost:
        return
    one, *others = lost
    with contextlib.ExitStack() as staging:
        content = await _fetched(run, one, staging)
        request = RestoreZvol(
            zvol=one.source.volume,
            zpool=one.source.pool,
            cloud=run.config.cloud,
            vm=one.disk.vm_id,
            disk=one.disk.disk_id,
            size_bytes=content.size_bytes,
            initiator=run.config.initiator,
            remotehost=wanted.agent,
        )
        begun = await run.ask(one.source.nas, request, ZvolImporting, anew=True)
        leased = Leased(one.source.nas, one.source.pool, begun, run.config.initiator)
        try:
            async with leased.kept(run):
                await write(run, one.source, content, leased)
                staging.close()
                await _restore(run, wanted, tuple(others))
            await _replace(run, wanted, one, begun)
        finally:
            await _abort(run, one.source, begun.uuid)


async def _fetched(run: Run, one: _Lost, staging: contextlib.ExitStack) -> Content:
    run.progress(f"fetching disk {one.disk.disk_id} from {one.url}")
    descriptor = staging.enter_context(staged(run.config.staging))
    await fetch(run, one.url, descriptor)
    inspected = await inspect(descriptor, run.config.max_image_gib)
    if inspected.format is not Format.QCOW2:
        raise Rejected(
            f"the backup of disk {one.disk.disk_id} is no qcow2 file: it was made on another kind of storage"
        )
    await check_intact(descriptor, inspected.format, _CHECK_S)
    return Content(descriptor, inspected.format, inspected.size_bytes)


async def _replace(run: Run, wanted: _Wanted, one: _Lost, begun: ZvolImporting) -> None:
    """Let the new volume take the disk's place, and give its host whichever has it then."""
    finish = FinishImport(zpool=one.source.pool, uuid=begun.uuid)
    try:
        await run.ask(one.source.nas, finish, ImportFinished, absent_s=begun.lease_s)
    except (OnelunError, asyncio.CancelledError):
        # The host may have let go of the old one already.
        giving = asyncio.ensure_future(_give(run, wanted, one, within_s=_CLEAN_UP_S))
        with contextlib.suppress(OnelunError):
            await asyncio.shield(giving)
        raise
    await _give(run, wanted, one)
    run.note(f"restored disk {one.disk.disk_id}, {one.source}")


async def _give(run: Run, wanted: _Wanted, one: _Lost, within_s: float | None = None) -> None:
    mode = readonly(wanted.oned, one.disk)
    await attach(run, one.source, one.disk, wanted.agent, readonly=mode, within_s=within_s)


async def _abort(run: Run, source: Source, uuid: str) -> None:
    """End what was not finished; a finished one is not touched."""
    abort = AbortImport(zpool=source.pool, uuid=uuid)
    aborting = asyncio.ensure_future(run.ask(source.nas, abort, ImportAborted, within_s=_CLEAN_UP_S))
    with contextlib.suppress(OnelunError):
        await asyncio.shield(aborting)
