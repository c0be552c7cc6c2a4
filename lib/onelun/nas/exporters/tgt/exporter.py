"""The exporter `tgt`: targets of the userspace daemon tgtd.

What the daemon does is cited from tgt 1.0.85. It ORs its access lists of names and of addresses (login_start() in
usr/iscsi/iscsid.c), and empty ones admit nobody; so one name is bound, never an address. A target without an account asks
for no secret (text_scan_security() there); so the account is bound before the name, and removed after the target. A target
that is `offline` admits nobody and runs no command (target_cmd_queue() in usr/target.c); so it becomes `ready` last. The
backing store `rdwr` answers SYNCHRONIZE CACHE after fdatasync (usr/bs_rdwr.c), and its caching page tells of a write cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random

from onelun.deadline import Deadline
from onelun.errors import Busy, CommandFailed, Conflict, ProtocolError, Stalled, Unreachable
from onelun.model import Portal, Target
from onelun.naming import IQN_PREFIX, is_target_of
from onelun.nas.exporters import rules
from onelun.nas.exporters.base import Exported, Exporter
from onelun.nas.exporters.device import check_device
from onelun.nas.exporters.portal import portal_lacks
from onelun.nas.exporters.tgt.ipc import Code, ControlSocket, Mode, Op, Refused
from onelun.nas.exporters.tgt.listing import (
    Listed,
    parse_accounts,
    parse_connections,
    parse_targets,
    parse_tids,
    printed_size,
)

log = logging.getLogger(__name__)

_LUN = 1
_MOST_TID = 2**31 - 1
_POLL_S = 0.02
_TRIES = 20


class TgtExporter(Exporter):
    """The targets of the NAS `nas` in the tgtd that listens at `control_socket`.

    `fence_s` is how long unexport may take, `request_s` how long one answer of the daemon. The daemon runs as the agent's
    own user, and initiators reach it at `portal`.
    """

    # LUN 0 is the daemon's own controller.
    lun = _LUN
    grows_in_use = False

    def __init__(
        self, nas: str, control_socket: str, portal: Portal, *, fence_s: float = 15.0, request_s: float = 10.0
    ) -> None:
        self.portal = portal
        # Beside the socket, which is what two agents of one daemon have in common, whatever their mounts and networks.
        self.lock = f"{os.path.realpath(control_socket)}.{nas}.lock"
        self._nas = nas
        self._tgtd = ControlSocket(control_socket, timeout_s=request_s)
        self._fence_s = fence_s
        self._numbering = asyncio.Lock()
        self._last_tid = 0
        # The daemon never shows a secret. Knowing that an account has the wanted one saves making it anew.
        self._secrets: dict[str, bytes] = {}
        # It shows sizes in units of about 1 MB. These are exact, of the LUNs that this object made.
        self._sizes: dict[str, int] = {}

    async def export(self, target: Target) -> None:
        """See the base."""
        rules.check_target(self._nas, target)
        await asyncio.to_thread(check_device, target)
        found = (await self._targets()).get(target.iqn)
        if found is not None:
            _check_same(found, target)
            if found.lun and not _has_lun(found, target):
                log.info("export remade=%s", target.iqn)
                await self._remove(target.iqn)
                found = None
        await self._complete(found or await self._new(target.iqn), target)
        found = (await self._targets()).get(target.iqn)
        if found is None or not _is_complete(found, target):
            raise CommandFailed(f"tgtd does not show the target {target.iqn} as it was made; repeat it", command="tgtd")

    async def check(self) -> list[str]:
        """See the base. The daemon must be there, be ours, and take logins at the portal."""
        try:
            await self._tids()
        except (Unreachable, Stalled, CommandFailed, ProtocolError) as error:
            return [str(error)]
        return await asyncio.to_thread(portal_lacks, self.portal)

    async def grow(self, target: Target) -> None:
        """See the base. Without a session the LUN is made anew; with one it is Busy.

        The daemon reads a device's size only when its LUN is made, and while there is none every command of the initiator
        fails at once: a running VM would see I/O errors. The volume has grown all the same, and is seen so at the next attach.
        """
        rules.check_target(self._nas, target)
        await asyncio.to_thread(check_device, target)
        found = (await self._targets()).get(target.iqn)
        if found is None:
            raise rules.no_target(target.iqn)
        _check_same_place(found, target)
        made = self._sizes.get(target.iqn)
        if _has_lun(found, target) and (made == target.size_bytes or (made is None and found.sessions)):
            # One that was made anew and failed on its way has its LUN, and admits nobody yet.
            await self._complete(found, target)
            return
        if found.sessions:
            raise Busy(
                f"tgtd cannot show {target.iqn} its new size while {found.sessions[0]} is logged in:"
                " detach the disk and attach it again",
                iqn=target.iqn,
            )
        await self._remove(target.iqn)
        await self.export(target)

    async def unexport(self, iqn: str) -> None:
        """See the base."""
        rules.check_iqn(self._nas, iqn)
        await self._remove(iqn)
        await self._sweep_accounts()

    async def exports(self) -> dict[str, Exported]:
        """See the base."""
        return {
            iqn: Exported(iqn, found.lun.get("Backing store path"), _admitted(found), found.sessions)
            for iqn, found in (await self._targets()).items()
            if is_target_of(self._nas, iqn)
        }

    async def _targets(self) -> dict[str, Listed]:
        return parse_targets(await self._tgtd.request(Mode.TARGET, Op.SHOW))

    async def _tids(self) -> dict[str, int]:
        return parse_tids(await self._tgtd.request(Mode.LLD, Op.SHOW))

    async def _new(self, iqn: str) -> Listed:
        """Make an empty target that admits nobody yet.

        Numbers are not used again soon: a connection that has passed a target's access list in its login goes on with that
        target's number alone (login_finish() in usr/iscsi/iscsid.c).
        """
        async with self._numbering:
            for _ in range(_TRIES):
                tids = set((await self._tids()).values())
                tid = max(self._last_tid, *tids, 0) + 1
                if tid > _MOST_TID:
                    tid = next(free for free in range(1, _MOST_TID) if free not in tids)
                self._last_tid = tid
                try:
                    await self._tgtd.request(Mode.TARGET, Op.NEW, f"targetname={iqn}", tid=tid)
                except Refused as error:
                    # Somebody else took the number since; when it was the name, the next list is read for it by a repeat.
                    if error.number != Code.TARGET_EXIST:
                        raise
                    await asyncio.sleep(random.uniform(0, _POLL_S))  # noqa: S311 only to fall out of step with the other
                else:
                    return Listed(tid, iqn, "ready", (), {}, (), ())
        raise Busy(f"somebody else makes targets in tgtd just now; repeat the export of {iqn}")

    async def _complete(self, found: Listed, target: Target) -> None:
        """Make what is missing; each step may have been done. The account of a target in use stays as it is."""
        keep_account = target.user in found.accounts and (
            bool(found.sessions) or self._secrets.get(target.iqn) == _digest(target)
        )
        if keep_account and _is_complete(found, target):
            return
        if not found.sessions:
            await self._tgtd.request(Mode.TARGET, Op.UPDATE, "state=offline", tid=found.tid)
        if not found.lun:
            device = f"path={target.device},bstype=rdwr"
            await self._tgtd.request(Mode.DEVICE, Op.NEW, device, tid=found.tid, lun=_LUN)
            self._sizes[target.iqn] = target.size_bytes
        facts = f"scsi_id={target.uuid},scsi_sn={target.uuid},thin_provisioning=1,readonly={int(target.readonly)}"
        # The word before the facts is tgtadm's own, and lu_config() in usr/spc.c skips it.
        await self._tgtd.request(Mode.DEVICE, Op.UPDATE, f"targetOps {facts},", tid=found.tid, lun=_LUN)
        if not keep_account:
            await self._new_account(found, target)
        if target.initiator not in found.allowed:
            await self._tgtd.request(Mode.TARGET, Op.BIND, f"initiator-name={target.initiator}", tid=found.tid)
        await self._tgtd.request(Mode.TARGET, Op.UPDATE, "state=ready", tid=found.tid)

    async def _new_account(self, found: Listed, target: Target) -> None:
        self._secrets.pop(target.iqn, None)
        await self._drop_account(target.user)
        await self._tgtd.request(Mode.ACCOUNT, Op.NEW, f"user={target.user},password={target.secret}")
        await self._tgtd.request(Mode.ACCOUNT, Op.BIND, f"user={target.user}", tid=found.tid)
        self._secrets[target.iqn] = _digest(target)

    async def _remove(self, iqn: str) -> None:
        """Shut the target, end its connections, delete it; return when it is gone.

        Without `force`: the daemon then refuses while a command still runs, so that the end means the end of writes; and a
        forced delete ends the whole daemon when a session does not go (usr/iscsi/target.c, "bug still have sessions").
        """
        deadline = Deadline.after(self._fence_s)
        self._secrets.pop(iqn, None)
        self._sizes.pop(iqn, None)
        closed: set[tuple[int, int]] = set()
        while (tid := (await self._tids()).get(iqn)) is not None:
            if deadline.over():
                raise Stalled(f"tgtd does not let go of the target {iqn} within {self._fence_s:g} s", iqn=iqn)
            try:
                await self._tgtd.request(Mode.TARGET, Op.UPDATE, "state=offline", tid=tid)
                connections = parse_connections(await self._tgtd.request(Mode.CONNECTION, Op.SHOW, tid=tid))
                # Once each: a second close of a connection whose descriptor is in use again would hit the other one.
                for sid, cid in set(connections) - closed:
                    closed.add((sid, cid))
                    await self._tgtd.request(Mode.CONNECTION, Op.DELETE, tid=tid, sid=sid, cid=cid)
                if not connections:
                    await self._tgtd.request(Mode.TARGET, Op.DELETE, tid=tid)
                    continue
            except Refused as error:
                if error.number not in _PASSING:
                    raise
            await asyncio.sleep(_POLL_S)

    async def _sweep_accounts(self) -> None:
        """Remove accounts of ours that have no target. An account is made after its target: hence the order of asking."""
        accounts = parse_accounts(await self._tgtd.request(Mode.ACCOUNT, Op.SHOW))
        targets = await self._tids()
        for user in accounts:
            iqn = IQN_PREFIX + user
            if is_target_of(self._nas, iqn) and iqn not in targets:
                await self._drop_account(user)

    async def _drop_account(self, user: str) -> None:
        try:
            await self._tgtd.request(Mode.ACCOUNT, Op.DELETE, f"user={user}")
        except Refused as error:
            if error.number != Code.NO_USER:
                raise


# What the daemon says while connections and commands are ending, or when they just have; the list tells which.
_PASSING = (
    Code.NO_TARGET,
    Code.NO_SESSION,
    Code.NO_CONNECTION,
    Code.TARGET_ACTIVE,
    Code.LUN_ACTIVE,
)


def _check_same(found: Listed, target: Target) -> None:
    _check_same_place(found, target)
    if found.sessions and not (_has_lun(found, target) and found.lun.get("Readonly") == _readonly(target)):
        raise Conflict(f"the target {target.iqn} is in use with another size or mode: end that first")


def _check_same_place(found: Listed, target: Target) -> None:
    device = found.lun.get("Backing store path")
    if device not in (None, "None", target.device):
        raise Conflict(f"the target {target.iqn} exists for {device}, not for {target.device}")
    if others := [name for name in found.allowed if name != target.initiator]:
        raise Conflict(f"the target {target.iqn} exists for {others[0]}, not for {target.initiator}")


def _has_lun(found: Listed, target: Target) -> bool:
    """Whether LUN 1 is the device at its size. The daemon prints sizes in units of about 1 MB."""
    return (
        found.lun.get("Backing store path") == target.device
        and found.lun.get("Size", "").startswith(printed_size(target.size_bytes) + ",")
        and found.lun.get("Backing store type") == "rdwr"
    )


def _admitted(found: Listed) -> tuple[str, ...]:
    return found.allowed if found.state == "ready" else ()


def _is_complete(found: Listed, target: Target) -> bool:
    wanted = {
        "Type": "disk",
        "SCSI ID": target.uuid,
        "SCSI SN": target.uuid,
        "Online": "Yes",
        "Readonly": _readonly(target),
        "Thin-provisioning": "Yes",
    }
    return (
        _has_lun(found, target)
        and all(found.lun.get(fact) == value for fact, value in wanted.items())
        and (found.state, found.accounts, found.allowed) == ("ready", (target.user,), (target.initiator,))
    )


def _readonly(target: Target) -> str:
    return "Yes" if target.readonly else "No"


def _digest(target: Target) -> bytes:
    return hashlib.sha256(f"{target.user}\0{target.secret}".encode()).digest()
