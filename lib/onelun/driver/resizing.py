"""The action resize: a VM's disk grows, on whichever host has it; while the VM runs, libvirt is told by oned afterwards."""

from __future__ import annotations

from onelun.driver.disks import known, volume_of
from onelun.driver.location import parse_disk
from onelun.driver.running import Run
from onelun.driver.sizes import parse_size
from onelun.errors import NotFound, Rejected
from onelun.rpc.message import ResizeZvol, ZvolResized


async def resize(run: Run) -> str:
    """Grow a disk to a size in MB. It has that size already: success. A disk is never shrunk."""
    if len(run.arguments.rest) != 2:
        raise Rejected("the arguments should be: resize HOST:DIR/disk.N SIZE_MB VM DATASTORE")
    disk = parse_disk(run.arguments.rest[0], run.config.datastores)
    size = parse_size(run.arguments.rest[1])
    # Where the VM is does not matter, but a name that nobody knows is a mistake all the same.
    run.context.hosts.agent(disk.host)
    volume = await volume_of(run, disk, await known(run, disk.vm_id))
    if volume is None:
        raise NotFound(f"no volume of onelun is known behind disk {disk.disk_id} of VM {disk.vm_id}")
    request = ResizeZvol(
        zvol=volume.volume, zpool=volume.pool, size_bytes=size, cloud=run.config.cloud, needs=("owner",)
    )
    grown = await run.ask(volume.nas, request, ZvolResized)
    run.note(f"{volume} has {grown.size_bytes} bytes")
    return ""
