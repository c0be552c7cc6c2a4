"""The NASes against oned and the hosts: attachments, targets, sessions, devices and links."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import msgspec

from onelun.driver.reconcile.differences import Difference, Repair, Type
from onelun.driver.reconcile.users import BUSY, GONE, ON, User, Users
from onelun.driver.reconcile.views import HostView, View
from onelun.model import Kind, State
from onelun.naming import Source, is_target_of
from onelun.rpc.message import Settle, StockAttachment, StockPlacement, StockVolume, UnmapZvol

# The catalogue's words for how far an attachment is.
_ATTACHED, _ATTACHING, _DETACHING = "attached", "attaching", "detaching"


def attachments(view: View, everybody: Users) -> Iterator[Difference]:
    """What is in force and should not be, and what is in force and not whole."""
    for nas, stock in view.answered().items():
        volumes = {volume.uuid: volume for volume in stock.volumes}
        exported = {target.iscsi_target for target in stock.targets}
        for row in stock.attachments:
            if row.state == _ATTACHED and row.iscsi_target not in exported:
                why = f"{row.remotehost} is to have {row.zvol}, and there is no target"
                repair = Repair(nas, Settle())
                yield _of(Type.MISSING_EXPORT, row, row.iscsi_target, why, "export it again", repair)
            volume = volumes.get(row.uuid)
            if row.agentless or row.state == _ATTACHING:
                continue
            if volume is not None and volume.state != State.TRASH:
                yield from _attachment(view, everybody, nas, row, volume)
            elif volume is None and row.state == _ATTACHED:
                # Of no cloud, or of another: oned knows nothing of it, its host does.
                yield from _on_host(view, everybody, nas, row)


def targets(view: View) -> Iterator[Difference]:
    """Targets that no attachment is behind, and sessions of hosts that their NAS knows nothing of."""
    for nas, stock in view.answered().items():
        known = {row.iscsi_target for row in stock.attachments}
        for target in stock.targets:
            if target.iscsi_target in known or target.leased:
                continue
            repair = None if target.sessions else Repair(nas, Settle())
            todo = f"end the session of {', '.join(target.sessions)} first" if target.sessions else "end the target"
            why = "the NAS has this target and no attachment of that name"
            yield Difference(type=Type.ORPHAN_EXPORT, what=target.iscsi_target, why=why, todo=todo, repair=repair)
        for agent in view.hosts:
            host = view.host(agent)
            for device in host.devices if host is not None else ():
                if (device.nas == nas or is_target_of(nas, device.target)) and device.target not in known:
                    yield Difference(
                        type=Type.STALE_SESSION,
                        what=device.target,
                        host=agent,
                        why=f"{agent} is connected, and {nas} has no attachment of that name",
                        todo="have the host let go, unless it is in use",
                        repair=Repair(nas, Settle(remotehosts=(agent,))),
                    )


def missing_attachments(view: View, everybody: Users) -> Iterator[Difference]:
    """Disks of VMs that are on a host, whose volume is there and attached to no host of theirs."""
    for nas, stock in view.answered().items():
        rows = {(row.uuid, row.remotehost) for row in stock.attachments}
        for volume in stock.volumes:
            if volume.state != State.READY:
                continue
            for user in everybody.of(nas, volume):
                agent = user.where.agent
                if user.where.how == ON and user.has and agent is not None and (volume.uuid, agent) not in rows:
                    yield Difference(
                        type=Type.MISSING_ATTACHMENT,
                        what=str(Source(nas, volume.zpool, volume.zvol)),
                        host=agent,
                        why=f"VM {user.vm_id} is there with its disk {user.disk}, and the host has no attachment",
                        todo=f"power VM {user.vm_id} off, undeploy it and resume it",
                    )


def _attachment(
    view: View, everybody: Users, nas: str, row: StockAttachment, volume: StockVolume
) -> Iterator[Difference]:
    users = everybody.of(nas, volume)
    if any(user.where.how == BUSY for user in users):
        return
    if any(user.has and user.where.agent == row.remotehost for user in users):
        if row.state == _ATTACHED:
            yield from _on_host(view, everybody, nas, row)
        return
    if volume.owner.kind is Kind.PLAIN:
        return
    dead = view.host(row.remotehost) is None
    if row.state == _DETACHING and not dead:
        return
    what = str(Source(nas, row.zpool, row.zvol))
    if not users:
        todo = f"onelun ask {nas} unmap_zvol zvol={row.zvol} zpool={row.zpool} remotehost={row.remotehost} cloud={view.cloud}"
        yield _of(Type.ORPHAN_ATTACHMENT, row, what, "no VM is known to have it there", todo)
        return
    placed = everybody.placed(nas, row.uuid)
    user = _told(users, placed, row)
    kind, todo = Type.ORPHAN_ATTACHMENT, "have the host let go, unless it is in use"
    if dead:
        kind, todo = Type.DEAD_HOST, "fence it: the host drops it when it is back"
    repair = Repair(nas, _unmapping(view, placed, row, user, force=dead), vm=user.vm_id)
    yield _of(kind, row, what, _why(user), todo, repair)


def _told(users: list[User], placed: list[StockPlacement], row: StockAttachment) -> User:
    """The VM by whose name the attachment is ended: the one that is placed on that host, else one that still has the volume."""
    here = {(p.vm, p.disk) for p in placed if p.host == row.remotehost}
    return min(users, key=lambda user: ((user.vm_id, user.disk) not in here, not user.has, user.vm_id))


def _why(user: User) -> str:
    if user.vm is None:
        return f"oned has no VM {user.vm_id}"
    if user.where.how == GONE:
        return f"VM {user.vm_id} is done"
    if not user.has:
        return f"VM {user.vm_id} has no such disk"
    return f"VM {user.vm_id} is on {user.where.agent}" if user.where.agent else f"VM {user.vm_id} is on no host"


def _unmapping(view: View, placed: list[StockPlacement], row: StockAttachment, user: User, *, force: bool) -> UnmapZvol:
    """What the action would have asked that did not come to its end: postmigrate, the mv of a VM that stops, or delete."""
    mine = next((p for p in placed if (p.vm, p.disk) == (user.vm_id, user.disk)), None)
    asked = UnmapZvol(
        zvol=row.zvol, zpool=row.zpool, uuid=row.uuid, remotehost=row.remotehost, cloud=view.cloud, force=force
    )
    if mine is None:
        return msgspec.structs.replace(asked, keep_link=user.has)
    asked = msgspec.structs.replace(asked, vm=mine.vm, disk=mine.disk, path=mine.path)
    if not user.has:
        return asked
    if user.where.agent is not None:
        return msgspec.structs.replace(asked, keep_link=True, stays=user.where.agent, needs=("stays",))
    return msgspec.structs.replace(asked, keep_link=True)


def _on_host(view: View, everybody: Users, nas: str, row: StockAttachment) -> Iterator[Difference]:
    """The device and the links of an attachment that is in force."""
    host = view.host(row.remotehost)
    if host is None:
        return
    repair = Repair(nas, Settle(remotehosts=(row.remotehost,)))
    if not any(device.target == row.iscsi_target and device.alive for device in host.devices):
        why = f"the host is to have {row.zvol}, and has no device that works"
        yield _of(Type.MISSING_DEVICE, row, row.iscsi_target, why, "have the host connect it", repair)
        return
    text = Source(nas, row.zpool, row.zvol).device
    for placed in everybody.placed(nas, row.uuid):
        if placed.host == row.remotehost:
            yield from _link(host, placed, row, text, repair)


def _link(
    host: HostView, placed: StockPlacement, row: StockAttachment, text: str, repair: Repair
) -> Iterator[Difference]:
    path = placed.path
    if posixpath.dirname(path) in host.unseen:
        return
    if path not in host.links:
        why = f"disk {placed.disk} of VM {placed.vm} has no link"
        yield _of(Type.MISSING_LINK, row, path, why, f"link it to {text}", repair)
    elif host.links[path] is None:
        yield _of(Type.WRONG_LINK, row, path, f"it is no link, and should lead to {text}", "look at the file")
    elif host.links[path] != text:
        yield _of(Type.WRONG_LINK, row, path, f"it leads to {host.links[path]}", f"link it to {text}", repair)


def _of(kind: Type, row: StockAttachment, what: str, why: str, todo: str, repair: Repair | None = None) -> Difference:
    return Difference(type=kind, what=what, host=row.remotehost, why=why, todo=todo, repair=repair)
