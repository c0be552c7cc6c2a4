"""Targets of LIO, made and removed by rtslib. Runs in worker.py's process.

Each step is an "ensure", so a target left half-made by whatever ended an earlier run is completed, or removed, by the next.
Until its portal group is enabled, which is the last step, a target admits nobody.
"""

from __future__ import annotations

import contextlib
import os

from rtslib_fb import LUN, TPG, MappedLUN, NetworkPortal, NodeACL
from rtslib_fb import Target as LioTarget
from rtslib_fb.fabric import ISCSIFabricModule
from rtslib_fb.utils import RTSLibError, normalize_wwn

from onelun.errors import Busy, Conflict, NotFound, Rejected, Unreachable
from onelun.model import Portal, Target
from onelun.nas.exporters.lio import backstores, configfs
from onelun.nas.exporters.lio.backstores import doing, reason
from onelun.nas.exporters.portal import address_lacks, port_taken

_ATTRIBUTES = {
    "authentication": "1",
    "generate_node_acls": "0",
    "cache_dynamic_acls": "0",
    "demo_mode_write_protect": "1",
    # An initiator that asks which targets there are is told of those that admit it.
    "demo_mode_discovery": "0",
}


def make(nas: str, portal: Portal, target: Target) -> bool:
    """Make `target` exist exactly so; True when it admitted nobody before. Raises Conflict as the exporter's base says.

    What this call began is removed again when it fails.
    """
    _check_initiator(target)
    busy = bool(configfs.sessions(_group(target)))
    _check_same(nas, target, busy=busy)
    began = not os.path.isdir(f"{configfs.ISCSI}/{target.iqn}")
    try:
        return _complete(nas, portal, target, busy=busy)
    except BaseException:
        if began:
            with contextlib.suppress(Exception):
                remove(nas, target.iqn)
        raise


def remove(nas: str, iqn: str) -> None:
    """Remove the target `iqn`, and every backstore of this NAS that no target uses. Absent: nothing.

    Its sessions must have been ended: removing a node's entry would wait for them. Raises Busy when it has one.
    The kernel lets a LUN go when its last command is done (transport_clear_lun_ref()).
    """
    for group in configfs.groups(iqn):
        if configfs.read(f"{group}/enable") == "1" or configfs.sessions(group):
            raise Busy(f"an initiator is logging in to {iqn} just now; repeat it", iqn=iqn)
    if os.path.isdir(f"{configfs.ISCSI}/{iqn}"):
        with doing(f"remove the target {iqn}"):
            LioTarget(ISCSIFabricModule(), iqn, "lookup").delete()
    if os.path.isdir(f"{configfs.ISCSI}/{iqn}"):
        raise Busy(f"somebody else makes the target {iqn} just now; repeat it", iqn=iqn)
    backstores.sweep(nas)


def grow(nas: str, target: Target) -> None:
    """Let the target's backstore be as long as its device. Raises NotFound without such a target."""
    backstore = configfs.backstore_at(configfs.link(f"{_group(target)}/lun/lun_0"))
    if backstore is None or backstore.name != backstores.name_of(nas, target):
        raise NotFound(f"there is no target {target.iqn} of {target.device}")
    backstores.fit(backstore, target)


def _group(target: Target) -> str:
    return f"{configfs.ISCSI}/{target.iqn}/tpgt_{configfs.TAG}"


def _check_initiator(target: Target) -> None:
    try:
        normalize_wwn(ISCSIFabricModule().wwn_types, target.initiator)
    except RTSLibError:
        raise Rejected(
            f"LIO takes no initiator called {target.initiator}: give that host a name with a domain of two labels,"
            " such as iqn.2026-11.io.onelun:node1"
        ) from None


def _check_same(nas: str, target: Target, *, busy: bool) -> None:
    group = _group(target)
    backstore = configfs.backstore_at(configfs.link(f"{group}/lun/lun_0"))
    if backstore and (backstore.name, backstore.device) != (backstores.name_of(nas, target), target.device):
        raise Conflict(f"the target {target.iqn} exists for {backstore.device}, not for {target.device}")
    if others := [name for name in configfs.initiators(group) if name != target.initiator]:
        raise Conflict(f"the target {target.iqn} exists for {others[0]}, not for {target.initiator}")
    if busy and backstore:
        protected = configfs.read(f"{group}/acls/{target.initiator}/lun_0/write_protect")
        if protected != str(int(target.readonly)) or backstores.length(backstore) not in (None, target.size_bytes):
            raise Conflict(f"the target {target.iqn} is in use with another size or mode: end that first")


def _complete(nas: str, portal: Portal, target: Target, *, busy: bool) -> bool:
    """Make what is missing. The secret of a target in use stays as it is, for the session may need it again."""
    storage = backstores.ensure(nas, target)
    with doing(f"make the target {target.iqn}"):
        group = TPG(LioTarget(ISCSIFabricModule(), target.iqn), configfs.TAG)
        configfs.set_all(f"{group.path}/attrib", _ATTRIBUTES)
    _listen(group, portal, busy=busy)
    with doing(f"make the LUN of {target.iqn}"):
        if configfs.link(f"{group.path}/lun/lun_0") is None:
            configfs.remove(f"{group.path}/lun/lun_0")
            LUN(group, 0, storage)
    with doing(f"admit {target.initiator} to {target.iqn}"):
        node = NodeACL(group, target.initiator)
        if not busy and (node.chap_userid, node.chap_password) != (target.user, target.secret):
            node.chap_userid = target.user
            node.chap_password = target.secret
        if configfs.link(f"{node.path}/lun_0") is None:
            configfs.remove(f"{node.path}/lun_0")
            MappedLUN(node, 0, 0, target.readonly)
        configfs.set_all(f"{node.path}/lun_0", {"write_protect": str(int(target.readonly))})
    if group.enable:
        return False
    with doing(f"enable the target {target.iqn}"):
        group.enable = True
    return True


def _listen(group: TPG, portal: Portal, *, busy: bool) -> None:
    """Listen at the portal, and at no former one unless it is in use."""
    address = f"[{portal.address}]" if ":" in portal.address else portal.address
    present = configfs.names(f"{group.path}/np")
    if str(portal) not in present:
        # LIO listens at addresses that no interface has too (IP_FREEBIND in iscsit_setup_np()): nobody would find it there.
        if lacks := address_lacks(portal):
            raise Unreachable(lacks[0])
        try:
            NetworkPortal(group, address, portal.port)
        except (RTSLibError, OSError) as error:
            # It says EINVAL alike when the port is taken.
            lacks = port_taken(portal) or [f"LIO does not listen at {portal}: {reason(error)}"]
            raise Unreachable(lacks[0]) from error
    for former in present:
        if former != str(portal) and not busy:
            former_address, _, port = former.rpartition(":")
            with doing(f"stop listening at {former}"):
                NetworkPortal(group, former_address, int(port), "lookup").delete()
