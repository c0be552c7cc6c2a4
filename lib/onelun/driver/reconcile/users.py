"""Where oned says that a VM is, and which VMs have a volume as a disk of theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from onelun.driver.document import Vm, VmDisk
from onelun.driver.reconcile.views import View
from onelun.errors import Rejected
from onelun.model import Kind
from onelun.naming import DRIVER, Source, disk_volume, parse_source
from onelun.rpc.message import StockPlacement, StockVolume

# VirtualMachine.h. Whatever is not here is in the middle of something, and nothing is concluded from it.
_ACTIVE, _STOPPED, _SUSPENDED, _DONE, _POWEROFF, _UNDEPLOYED = 3, 4, 5, 6, 8, 9
_RUNNING, _UNKNOWN = 3, 16

GONE = "gone"
NOWHERE = "nowhere"
BUSY = "busy"
ON = "on"


class Where(NamedTuple):
    """`how` is GONE, NOWHERE (no host has its disks), BUSY (its actions see to it), or ON the host of the compute `agent`."""

    how: str
    agent: str | None = None


class User(NamedTuple):
    """A VM that has, or had, a volume; `vm` is None when oned has none. `has`: it is not gone, and that is its disk `disk`."""

    vm_id: int
    disk: int | None
    vm: Vm | None
    where: Where
    has: bool


def where(vm: Vm | None, agents: Mapping[str, str]) -> Where:
    """Where the VM's disks are to be. None, which oned has none of, is gone."""
    if vm is None or vm.state == _DONE:
        return Where(GONE)
    if vm.state in (_STOPPED, _UNDEPLOYED):
        return Where(NOWHERE)
    if vm.state in (_SUSPENDED, _POWEROFF) or (vm.state, vm.lcm_state) in ((_ACTIVE, _RUNNING), (_ACTIVE, _UNKNOWN)):
        agent = agents.get(vm.hostname or "")
        return Where(ON, agent) if agent is not None else Where(BUSY)
    return Where(BUSY)


def volume_of(vm_id: int, disk: VmDisk) -> Source | None:
    """The volume that is the disk's by oned's word; None for a volatile one, which may be in any pool, and another driver's."""
    if disk.clone is None or not disk.source:
        return None
    try:
        source = parse_source(disk.source)
        return source._replace(volume=disk_volume(source.volume, vm_id, disk.id)) if disk.clone else source
    except Rejected:
        return None


def is_volatile(disk: VmDisk) -> bool:
    """Whether the disk is a volatile one on a volume of onelun's."""
    return disk.clone is None and disk.tm_mad == DRIVER


class Users:
    """Who has, or had, each volume of a view; made once a comparison."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._by_source: dict[Source, set[tuple[int, int]]] = defaultdict(set)
        for vm in view.oned.vms.values():
            for disk in vm.disks.values() if vm is not None else ():
                source = volume_of(vm.id, disk) if vm is not None else None
                if vm is not None and source is not None:
                    self._by_source[source].add((vm.id, disk.id))
        self._placed: dict[tuple[str, str], list[StockPlacement]] = defaultdict(list)
        for nas, stock in view.answered().items():
            for placed in stock.placements:
                self._placed[nas, placed.uuid].append(placed)

    def placed(self, nas: str, uuid: str) -> list[StockPlacement]:
        """The placements of that volume."""
        return self._placed.get((nas, uuid), [])

    def of(self, nas: str, volume: StockVolume) -> list[User]:
        """Every VM that the volume itself, a placement or oned connects with it; each that oned was asked about."""
        source = Source(nas, volume.zpool, volume.zvol)
        asked = {(placed.vm, placed.disk) for placed in self.placed(nas, volume.uuid)}
        asked |= self._by_source.get(source, set())
        owner = volume.owner
        if owner.vm_id is not None:
            asked.add((owner.vm_id, -1 if owner.disk_id is None else owner.disk_id))
        return [self._user(vm_id, disk, source, volume) for vm_id, disk in sorted(asked) if vm_id in self._vms]

    @property
    def _vms(self) -> dict[int, Vm | None]:
        return self._view.oned.vms

    def _user(self, vm_id: int, disk: int, source: Source, volume: StockVolume) -> User:
        vm = self._vms[vm_id]
        at = where(vm, self._view.agents)
        # A VM that is done lists its disks for ever.
        has = vm is not None and at.how != GONE and _has(vm, disk, source, volume)
        return User(vm_id, None if disk < 0 else disk, vm, at, has)


def _has(vm: Vm, disk_id: int, source: Source, volume: StockVolume) -> bool:
    disk = vm.disks.get(disk_id)
    if disk is None:
        return False
    if is_volatile(disk):
        return volume.owner.kind is Kind.VOLATILE
    return volume_of(vm.id, disk) == source
