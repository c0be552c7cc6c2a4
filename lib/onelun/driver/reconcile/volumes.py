"""oned against the NASes: volumes that nobody should have, and what oned has without a volume."""

from __future__ import annotations

from collections.abc import Iterator

from onelun.driver.document import Vm
from onelun.driver.reconcile.differences import Difference, Repair, Type
from onelun.driver.reconcile.users import BUSY, GONE, User, Users, is_volatile, volume_of, where
from onelun.driver.reconcile.views import View
from onelun.errors import Rejected
from onelun.model import Kind, State
from onelun.naming import Source, parse_source, volatile_volume
from onelun.rpc.message import StockIs, StockVolume, TrashZvol

# Image.h: READY, USED, DISABLED, USED_PERS: those whose volume must be there. Others are being made or removed.
_SETTLED = frozenset({1, 2, 3, 8})
# What the clocks of a NAS and of the front-end may differ.
_SKEW_S = 300.0
_THERE = frozenset({State.READY, State.DELETING})


def orphans(view: View, everybody: Users) -> Iterator[Difference]:
    """Volumes of VMs that are gone or have that disk no more, and images that oned does not know."""
    sources = {image.source for image in view.oned.images.values() if image is not None}
    for nas, stock in view.answered().items():
        for volume in stock.volumes:
            if volume.state not in _THERE:
                continue
            if volume.owner.kind is Kind.IMAGE:
                if str(Source(nas, volume.zpool, volume.zvol)) not in sources:
                    yield from _image(view, nas, stock, volume)
            else:
                for user in everybody.of(nas, volume):
                    if user.vm_id == volume.owner.vm_id and user.disk == volume.owner.disk_id:
                        yield from _of_vm(view, nas, stock, volume, user)


def without_volume(view: View) -> Iterator[Difference]:
    """Images and disks of oned's whose volume no pool has."""
    there = _there(view)
    for image in view.oned.images.values():
        source = _source(image.source) if image is not None and image.state in _SETTLED else None
        if image is not None and source is not None:
            yield from _missing(view, there, source, f"image {image.id}")
    for vm in view.oned.vms.values():
        if vm is not None and where(vm, view.agents).how not in (BUSY, GONE):
            yield from _disks_of(view, there, vm)


def _there(view: View) -> dict[Source, StockVolume]:
    """The volumes by SOURCE; one in the trash only where no other has its name."""
    stocks = view.answered().items()
    every = [(Source(nas, each.zpool, each.zvol), each) for nas, stock in stocks for each in stock.volumes]
    return dict(sorted(every, key=lambda each: each[1].state in _THERE))


def _disks_of(view: View, there: dict[Source, StockVolume], vm: Vm) -> Iterator[Difference]:
    whole = all(isinstance(stock, StockIs) and not stock.failed for stock in view.stocks.values())
    for disk in vm.disks.values():
        source = volume_of(vm.id, disk)
        if source is not None and disk.clone:
            yield from _missing(view, there, source, f"disk {disk.id} of VM {vm.id}")
        elif is_volatile(disk) and whole:
            name = volatile_volume(vm.id, disk.id)
            pools = (Source(nas, pool, name) for nas, pool in {(source.nas, source.pool) for source in there})
            if not any(at in there and there[at].state in _THERE for at in pools):
                yield _no_volume(name, f"disk {disk.id} of VM {vm.id}", None)


def _missing(view: View, there: dict[Source, StockVolume], source: Source, whose: str) -> Iterator[Difference]:
    stock = view.answered().get(source.nas)
    if stock is None or source.pool in stock.failed:
        return
    found = there.get(source)
    if found is None or found.state not in _THERE:
        yield _no_volume(str(source), whose, found)


def _no_volume(what: str, whose: str, trashed: StockVolume | None) -> Difference:
    todo = "nothing can be repaired: restore it from a backup, or delete it in OpenNebula"
    if trashed is not None:
        todo = f"its volume {trashed.uuid} is in the pool's trash: docs/reconcile.md says how to have it back"
    return Difference(type=Type.NO_VOLUME, what=what, why=f"oned has {whose}, and no pool has its volume", todo=todo)


def _of_vm(view: View, nas: str, stock: StockIs, volume: StockVolume, user: User) -> Iterator[Difference]:
    if user.where.how == BUSY or user.has:
        return
    vm, ended = user.vm, volume.made_at
    if vm is None:
        why = f"oned has no VM {user.vm_id} at all: it was purged, or is another cloud's"
        yield _difference(Type.ORPHAN_VOLUME, nas, volume, why, _by_hand(nas, volume))
        return
    if user.where.how == GONE:
        why, ended = f"VM {vm.id} is done", max(ended, float(vm.etime))
    elif volume.owner.kind is Kind.CHECKPOINT:
        return
    else:
        why = f"VM {vm.id} has no disk {user.disk} that is this volume"
    if volume.made_at and volume.made_at < vm.stime - _SKEW_S:
        why = f"it was made before the VM {vm.id} that oned has"
        yield _difference(Type.ORPHAN_VOLUME, nas, volume, why, _by_hand(nas, volume))
        return
    yield _removal(view, Type.ORPHAN_VOLUME, nas, stock, volume, why, ended)


def _image(view: View, nas: str, stock: StockIs, volume: StockVolume) -> Iterator[Difference]:
    source = str(Source(nas, volume.zpool, volume.zvol))
    number = volume.owner.image_id
    if number is None:
        why = "it was adopted, and no image of oned's has it as its SOURCE"
        todo = f"oneimage create --source {source}, or onelun frontend release {source}"
        yield Difference(type=Type.IMAGE_UNKNOWN, what=source, why=why, todo=todo)
        return
    if number not in view.oned.images:
        return
    image = view.oned.images[number]
    if image is None:
        why = f"oned has no image {number}"
        yield _removal(view, Type.IMAGE_UNKNOWN, nas, stock, volume, why, volume.made_at)
    elif image.state in _SETTLED and image.source:
        why = f"image {number} of oned's is {image.source}"
        yield _difference(Type.IMAGE_UNKNOWN, nas, volume, why, _by_hand(nas, volume))


def _removal(
    view: View, kind: Type, nas: str, stock: StockIs, volume: StockVolume, why: str, ended: float
) -> Difference:
    if stock.cautious:
        return _difference(kind, nas, volume, why, f"{nas} lost its catalogue: read its log, restart its agent")
    if not volume.made_at:
        return _difference(kind, nas, volume, f"{why}; its age is not known", _by_hand(nas, volume))
    left_s = view.grace_s - (view.now - ended)
    if left_s > 0:
        return _difference(kind, nas, volume, why, f"wait: its grace period ends in {left_s:.0f} s")
    request = TrashZvol(
        zvol=volume.zvol, zpool=volume.zpool, uuid=volume.uuid, owner=volume.owner, older_s=view.grace_s
    )
    owner = volume.owner
    repair = Repair(nas, request, vm=owner.vm_id, image=owner.image_id if owner.kind is Kind.IMAGE else None)
    told = " (with --images)" if kind is Type.IMAGE_UNKNOWN else ""
    return _difference(kind, nas, volume, why, f"put it into the pool's trash{told}", repair)


def _difference(
    kind: Type, nas: str, volume: StockVolume, why: str, todo: str, repair: Repair | None = None
) -> Difference:
    what = str(Source(nas, volume.zpool, volume.zvol))
    return Difference(type=kind, what=what, why=why, todo=todo, repair=repair)


def _by_hand(nas: str, volume: StockVolume) -> str:
    return f"look at it; onelun ask {nas} list_zvols name={volume.zvol}"


def _source(text: str) -> Source | None:
    try:
        return parse_source(text)
    except Rejected:
        return None
