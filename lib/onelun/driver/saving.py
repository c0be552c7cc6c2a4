"""The action cpds: a VM's disk, or a snapshot of it, is saved as an image that mkfs has made for it."""

from __future__ import annotations

from onelun.driver.disks import known
from onelun.driver.location import parse_disk, parse_source_argument
from onelun.driver.running import Run
from onelun.driver.snapshots import existing_volume, snapshot_id_of
from onelun.errors import Rejected
from onelun.naming import snapshot_name
from onelun.rpc.message import CopyZvol, ZvolCopied


async def cpds(run: Run) -> str:
    """Copy the disk's content of now (SNAPID -1) or that of a snapshot over the image; the disk stays as it is.

    The host is not asked, so it may be the front-end (a stopped VM) or down. What a running VM has not written out yet is
    not in the copy.
    """
    rest = run.arguments.rest
    if len(rest) != 3 or not run.arguments.modern:
        raise Rejected("the arguments should be: cpds HOST:DIR/disk.N SOURCE SNAPSHOT VM DATASTORE")
    disk = parse_disk(rest[0], run.config.datastores)
    if run.arguments.vm_id != disk.vm_id:
        raise Rejected(f"the disk is in the directory of VM {disk.vm_id}, and the call is for VM {run.arguments.vm_id}")
    target = parse_source_argument(rest[1])
    snapshot = None if rest[2] == "-1" else snapshot_name(snapshot_id_of(rest[2]))
    source = await existing_volume(run, disk, await known(run, disk.vm_id))
    if (source.nas, source.pool) != (target.nas, target.pool):
        raise Rejected(f"saving {source} to {target} would copy from pool to pool, which is not supported yet")
    request = CopyZvol(
        zvol=source.volume,
        zpool=source.pool,
        cloud=run.config.cloud,
        vm=disk.vm_id,
        disk=disk.disk_id,
        target=target.volume,
        snapshot=snapshot,
    )
    await run.ask(source.nas, request, ZvolCopied)
    run.note(f"saved {source} to {target}" if snapshot is None else f"saved {snapshot} of {source} to {target}")
    return ""
