"""What the disks of a cloud's VMs take, asked of a NAS at once."""

import asyncio

from onelun.errors import CommandFailed
from onelun.model import Kind, Owner
from onelun.nas import listing
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.rpc.message import CreateZvol, ListDisks, MapZvol, SnapshotZvol

CLOUD = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
OTHER_CLOUD = "5a3d2a1f-8b66-4d69-8c6d-1d8a4b7a2b12"
MIB = 1 << 20
PATH = "/var/lib/one/datastores/103/7/disk.{}"


class Pool(MemoryBackend):
    """A pool that tells what its volumes take as `trouble` says."""

    trouble = None

    async def usages(self):
        if self.trouble is not None:
            await self.trouble()
        return await super().usages()


async def disk(nas, number, *, zpool="tank", image=False):
    """A volume that is that disk of VM 7: its own, or an image that it has."""
    if image:
        name, owner = f"one-{number}", Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=number)
    else:
        name, owner = f"one-vm-7-{number}", Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=7, disk_id=number)
    await nas.ask(CreateZvol(zvol=name, zpool=zpool, size_bytes=8 * MIB, owner=owner))
    placed = {"cloud": CLOUD, "vm": 7, "disk": number, "path": PATH.format(number)}
    await nas.ask(MapZvol(zvol=name, zpool=zpool, remotehost="node1", **placed))
    return name


async def test_a_vms_own_disks_and_its_images_are_told_with_their_snapshots(nas, parts):
    own, image = await disk(nas, 0), await disk(nas, 1, image=True)
    await nas.ask(CreateZvol(zvol="one-9", zpool="tank", size_bytes=MIB, owner=Owner(kind=Kind.IMAGE, cloud=CLOUD)))
    volume = await parts.backend.find(own)
    parts.backend.write(volume, 0, b"x" * MIB)
    await nas.ask(SnapshotZvol(zvol=own, zpool="tank", cloud=CLOUD, snapshot="snap-3"))
    parts.backend.write(volume, 0, b"y" * (MIB // 2))

    told = await nas.ask(ListDisks(cloud=CLOUD))

    place = {"vm": 7, "zpool": "tank"}
    snapshots = {"snap-3": MIB // 2}
    assert told.body == [
        {**place, "disk": 0, "path": PATH.format(0), "zvol": own, "used_bytes": MIB, "snapshots": snapshots},
        {**place, "disk": 1, "path": PATH.format(1), "zvol": image, "used_bytes": 0, "snapshots": {}},
    ]
    assert told.failed == {}


async def test_another_clouds_disks_are_not_told(nas):
    await disk(nas, 0)

    assert (await nas.ask(ListDisks(cloud=OTHER_CLOUD))).body == []


async def test_a_pool_that_fails_takes_only_its_own_disks_with_it(begin, parts):
    async def gone():
        raise CommandFailed("pool lake is gone")

    lake = parts.others["lake"] = Pool("lake")
    nas = await begin()
    await disk(nas, 0)
    await disk(nas, 1, zpool="lake")
    lake.trouble = gone

    told = await nas.ask(ListDisks(cloud=CLOUD))

    assert [row["disk"] for row in told.body] == [0]
    assert told.failed == {"lake": "pool lake is gone"}


async def test_a_pool_that_hangs_is_given_up(begin, parts, monkeypatch):
    monkeypatch.setattr(listing, "_USAGE_S", 1.0)
    lake = parts.others["lake"] = Pool("lake")
    nas = await begin()
    await disk(nas, 0)
    await disk(nas, 1, zpool="lake")
    lake.trouble = asyncio.Event().wait

    told = await nas.ask(ListDisks(cloud=CLOUD))

    assert [row["disk"] for row in told.body] == [0]
    assert told.failed == {"lake": "pool lake did not tell what its volumes take within 1 s"}
