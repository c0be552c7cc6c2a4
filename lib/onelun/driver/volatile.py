"""The actions mkimage and mkswap: disks of a VM without an image, on volumes of their own.

Such a disk lives in one of the system datastore's pools, is made anew when its VM begins anew, moves with its VM as any disk
does, and is destroyed by `delete`.
"""

from __future__ import annotations

from onelun.driver.attributes import Where, of_disk
from onelun.driver.datastore import creation
from onelun.driver.disks import Known, known
from onelun.driver.filesystems import parse_filesystem
from onelun.driver.location import Disk, parse_disk
from onelun.driver.pools import choose, holding, own_system
from onelun.driver.running import Run
from onelun.driver.sizes import parse_size
from onelun.driver.transfer import attach_new, must_be_of, must_exist, readonly
from onelun.errors import Rejected
from onelun.model import Filesystem, Kind, Owner
from onelun.naming import Source, volatile_volume
from onelun.rpc.message import ZvolCreated


async def mkimage(run: Run) -> str:
    """Give a VM an empty disk, formatted when FORMAT (up to 3.4) or the disk's FS names a filesystem."""
    if len(run.arguments.rest) != 3:
        raise Rejected(
            "the arguments should be: mkimage SIZE_MB FORMAT HOST:DIR/disk.N, then VM and datastore from 3.6 on"
        )
    size, told, where = run.arguments.rest
    disk = _disk(run, where)
    size_bytes = parse_size(size)
    oned = await _known(run, disk)
    await _make(run, disk, oned, size_bytes, _filesystem(told, oned, disk))
    return ""


async def mkswap(run: Run) -> str:
    """Give a VM a disk to swap on."""
    if len(run.arguments.rest) != 2:
        raise Rejected("the arguments should be: mkswap SIZE_MB HOST:DIR/disk.N, then VM and datastore from 3.6 on")
    size, where = run.arguments.rest
    disk = _disk(run, where)
    size_bytes = parse_size(size)
    await _make(run, disk, await _known(run, disk), size_bytes, Filesystem.SWAP)
    return ""


def _disk(run: Run, where: str) -> Disk:
    disk = parse_disk(where, run.config.datastores)
    must_be_of(run, disk)
    return disk


async def _known(run: Run, disk: Disk) -> Known:
    oned = await known(run, disk.vm_id)
    must_exist(oned, disk)
    return oned


def _filesystem(told: str, oned: Known, disk: Disk) -> Filesystem | None:
    """FORMAT is a filesystem up to 3.4; since then it is raw, and FS of the VM's disk names the filesystem."""
    of_vm = oned.disk(disk.disk_id)
    return parse_filesystem(told, "FORMAT") or parse_filesystem(of_vm.fs if of_vm else "", f"FS of disk {disk.disk_id}")


async def _make(run: Run, disk: Disk, oned: Known, size: int, filesystem: Filesystem | None) -> None:
    agent = run.context.hosts.compute(disk.host)
    name = volatile_volume(disk.vm_id, disk.disk_id)
    pools, asked = await own_system(run)
    attributes = of_disk(oned.disk(disk.disk_id), Where.VOLATILE).over(asked)
    # oned's --retry makes it once more: where it is, not where there is most room now.
    nas, pool = await holding(run, pools, name) or await choose(run, pools, size, name)
    source = Source(nas, pool, name)
    owner = Owner(kind=Kind.VOLATILE, cloud=run.config.cloud, vm_id=disk.vm_id, disk_id=disk.disk_id)
    await run.ask(nas, creation(source, size, owner, filesystem, attributes), ZvolCreated)
    await attach_new(run, source, disk, agent, readonly=readonly(oned, disk))
    run.note(f"made {source} with {size} bytes, {filesystem or 'empty'}, for disk {disk.disk_id} on {disk.host}")
