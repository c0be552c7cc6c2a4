"""Which volume stands behind a VM's disk, and what oned says of the VM.

The volume is what oned's API says (the image itself, or the clone that belongs to the disk); without the API, or when it
has forgotten the disk, what the NAS's placements say. A NAS that cannot be asked is an error, never "absent".
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from onelun.driver.document import Vm, VmDisk
from onelun.driver.location import Directory, Disk
from onelun.driver.rows import PlacementRow, rows_of
from onelun.driver.running import Run
from onelun.errors import Conflict, Rejected
from onelun.model import Kind
from onelun.naming import Source, checked_name, disk_volume, parse_source
from onelun.rpc.message import FindPlacements, PlacementList

# VirtualMachine.h: the VM is gone for oned, or on its way there, and nobody will need its disks on a host again.
_DONE = 6
_CLEANING_UP = frozenset({15, 23})  # CLEANUP_RESUBMIT (recover --recreate), CLEANUP_DELETE (recover --delete)


class Known(NamedTuple):
    """What oned's API says of a VM. `asked` is false where there is no API to ask; `vm` is None when oned has no such VM."""

    asked: bool
    vm: Vm | None

    @property
    def lcm_state(self) -> int | None:
        """The VM's state in its life cycle, by number."""
        return self.vm.lcm_state if self.vm else None

    def disk(self, disk_id: int) -> VmDisk | None:
        """The disk of that id."""
        return self.vm.disks.get(disk_id) if self.vm else None

    def left(self, host: str) -> bool:
        """Whether oned knows that the VM is gone, or elsewhere than on `host`: a dead host there may be fenced."""
        if not self.asked:
            return False
        if self.vm is None or self.vm.state == _DONE or self.vm.lcm_state in _CLEANING_UP:
            return True
        return self.vm.hostname not in (None, host)


async def known(run: Run, vm_id: int) -> Known:
    """Ask oned's API of the VM, where there is one. Raises Unreachable when it does not answer: nothing is guessed then."""
    if run.api is None:
        return Known(asked=False, vm=None)
    return Known(asked=True, vm=await run.api.vm(vm_id))


async def volume_of(run: Run, disk: Disk, oned: Known) -> Source | None:
    """The volume behind the disk, or None when neither oned nor any NAS knows of one. Raises Conflict for several."""
    told = _told(disk, oned)
    return told if told is not None else await placed(run, disk)


async def volumes_of(run: Run, disk: Disk, oned: Known) -> list[Source]:
    """As volume_of, for what ends a disk: a volatile one that was made while a NAS was away may be on two."""
    told = _told(disk, oned)
    return [told] if told is not None else sorted(await _all_placed(run, disk))


async def volatile_disks(run: Run, directory: Directory) -> list[Disk]:
    """The VM's disks without an image, which 3.4 neither moves nor deletes by themselves, as disks of that directory."""
    request = FindPlacements(cloud=run.config.cloud, vm=directory.vm_id)
    answers = await asyncio.gather(*(run.ask(nas, request, PlacementList) for nas in run.config.nas))
    told = zip(run.config.nas, answers, strict=True)
    rows = [row for nas, answer in told for row in rows_of(nas, answer.body, PlacementRow)]
    numbers = sorted({row.disk for row in rows if row.kind == Kind.VOLATILE})
    return [Disk(directory.host, directory.path, f"disk.{n}", directory.vm_id, n) for n in numbers]


def _told(disk: Disk, oned: Known) -> Source | None:
    told = oned.disk(disk.disk_id)
    if told is None or not told.source or told.clone is None:
        return None
    source = parse_source(told.source)
    return own_volume(source, disk) if told.clone else source


def own_volume(source: Source, disk: Disk) -> Source:
    """The volume of the disk's own that is cloned from the image `source`."""
    return source._replace(volume=disk_volume(source.volume, disk.vm_id, disk.disk_id))


async def placed(run: Run, disk: Disk) -> Source | None:
    """The volume that a NAS has placed behind the disk, or None when none has one.

    Raises Rejected when no NAS is configured to be asked, Conflict when two claim the disk, Unreachable.
    """
    found = await _all_placed(run, disk)
    if len(found) > 1:
        names = ", ".join(sorted(str(source) for source in found))
        raise Conflict(f"disk {disk.disk_id} of VM {disk.vm_id} is placed on several volumes: {names}")
    return found.pop() if found else None


async def _all_placed(run: Run, disk: Disk) -> set[Source]:
    if not run.config.nas:
        raise Rejected("frontend.nas names no NAS to ask which volume is behind the disk")
    request = FindPlacements(cloud=run.config.cloud, vm=disk.vm_id, disk=disk.disk_id)
    asked = [run.ask(nas, request, PlacementList) for nas in run.config.nas]
    answers = await asyncio.gather(*asked)
    told = zip(run.config.nas, answers, strict=True)
    return {_source(nas, row) for nas, answer in told for row in rows_of(nas, answer.body, PlacementRow)}


def _source(nas: str, row: PlacementRow) -> Source:
    return Source(nas, checked_name(row.zpool, "pool"), checked_name(row.zvol, "volume name"))
