"""The comparison: three views in, differences out. It asks nobody and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from onelun.driver.reconcile.attachments import attachments, missing_attachments, targets
from onelun.driver.reconcile.differences import Difference, Type
from onelun.driver.reconcile.snapshots import snapshots
from onelun.driver.reconcile.users import Users, volume_of
from onelun.driver.reconcile.views import View
from onelun.driver.reconcile.volumes import orphans, without_volume
from onelun.errors import Rejected
from onelun.model import Kind
from onelun.naming import DRIVER, Source

_ORDER = {kind: place for place, kind in enumerate(Type)}
_WITHHELD = "withheld: no image's SOURCE and REGTIME show that this oned is the cloud's"


def compare(view: View) -> list[Difference]:
    """What differs, in the order in which it is repaired.

    Without a witness (see `witnesses`) no difference has a repair for which oned's word is a reason. Raises Rejected when
    oned knows an image otherwise than its volume does: it is another cloud's, and nothing that it says counts.
    """
    _must_be_ours(view)
    trusted = witnesses(view) > 0
    found: dict[tuple[str, str, str], Difference] = {}
    for difference in _all(view):
        found.setdefault(difference.key, difference if trusted else _withheld(difference))
    return sorted(found.values(), key=lambda each: (_ORDER[each.type], each.what, each.host))


def witnesses(view: View) -> int:
    """How many images oned knows under the SOURCE and with the REGTIME that their volumes were made with."""
    return sum(equal for _, equal in _known_to_both(view))


def _must_be_ours(view: View) -> None:
    for what, equal in _known_to_both(view):
        if not equal:
            raise Rejected(
                f"oned knows {what} as registered at another time than its volume does: it is another cloud's"
                " (frontend.api), or its database is an older one; nothing is compared"
            )


def _known_to_both(view: View) -> Iterator[tuple[str, bool]]:
    for nas, stock in view.answered().items():
        for volume in stock.volumes:
            owner = volume.owner
            image = view.oned.images.get(owner.image_id) if owner.image_id is not None else None
            source = str(Source(nas, volume.zpool, volume.zvol))
            if owner.kind is Kind.IMAGE and image is not None and image.source == source and owner.regtime is not None:
                yield f"image {image.id} ({source})", image.regtime == owner.regtime


def _all(view: View) -> Iterator[Difference]:
    everybody = Users(view)
    yield from _not_asked(view)
    yield from _not_named(view)
    yield from attachments(view, everybody)
    yield from missing_attachments(view, everybody)
    yield from targets(view)
    yield from orphans(view, everybody)
    yield from without_volume(view)
    yield from snapshots(view, everybody)


def _not_asked(view: View) -> Iterator[Difference]:
    """Who could not be asked, as far as it matters; a host without an attachment does not."""
    for nas, stock in view.stocks.items():
        if isinstance(stock, str):
            yield Difference(
                type=Type.NOT_ASKED, what=nas, why=stock, todo="nothing of it was compared: start its agent"
            )
        else:
            for pool, reason in stock.failed.items():
                todo = "not all of it was compared: onelun nas check there"
                yield Difference(type=Type.NOT_ASKED, what=f"{nas}/{pool}", why=reason, todo=todo)
    rows = [row for stock in view.answered().values() for row in stock.attachments if not row.agentless]
    for agent in dict.fromkeys(row.remotehost for row in rows):
        if view.host(agent) is None:
            count = sum(row.remotehost == agent for row in rows)
            why = str(view.hosts.get(agent, "frontend.hosts does not name it"))
            todo = (
                f"start its agent; its {count} volumes stay its own until OpenNebula says that their VMs are elsewhere"
            )
            yield Difference(type=Type.NOT_ASKED, what=agent, host=agent, why=why, todo=todo)


def _not_named(view: View) -> Iterator[Difference]:
    """NASes on which VMs have disks, and of which the configuration says nothing."""
    disks = ((vm.id, disk) for vm in view.oned.vms.values() if vm is not None for disk in vm.disks.values())
    for vm_id, disk in disks:
        source = volume_of(vm_id, disk) if disk.tm_mad == DRIVER else None
        if source is not None and source.nas not in view.stocks:
            why = f"VM {vm_id} has a disk there, and frontend.nas does not name it"
            yield Difference(type=Type.NOT_ASKED, what=source.nas, why=why, todo="add it to frontend.nas")


def _withheld(difference: Difference) -> Difference:
    repair = difference.repair
    if repair is None or (repair.vm is None and repair.image is None):
        return difference
    return msgspec.structs.replace(difference, repair=None, todo=_WITHHELD)
