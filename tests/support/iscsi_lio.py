"""The lab of the connector on open-iscsi with targets of the guest's own kernel (LIO), made by rtslib as it comes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from rtslib_fb import LUN as Lun  # noqa: N811 - a class
from rtslib_fb import TPG, BlockStorageObject, FabricModule, MappedLUN, NetworkPortal, NodeACL, Target
from tests.support.blocks import HOSTS
from tests.support.iscsi import LIMIT_S, Lab
from tests.support.iscsi_open import records, sessions, start_iscsid
from tests.support.requires import requires
from tests.support.tgt import free_port

from onelun import model
from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi.connector import IscsiConnector


class LioLab(Lab):
    """The device behind a target is a loop device, which can grow."""

    lun = 0

    def __init__(self, directory: str) -> None:
        requires("root", "loop", "losetup", "iscsiadm", "iscsid")
        start_iscsid()
        # Another test may have taken them out of the kernel.
        _run("modprobe", "-a", "target_core_iblock", "iscsi_target_mod")
        os.makedirs("/etc/target/pr", exist_ok=True)
        super().__init__(directory, model.Portal("127.0.0.1", free_port()))
        self._nas = tempfile.mkdtemp(prefix="onelun-nas-")
        self._loops: dict[str, str] = {}
        self._objects: dict[tuple[str, str], BlockStorageObject] = {}
        self._behind: dict[str, tuple[str, str]] = {}

    def connector(self, host: str) -> IscsiConnector:
        return IscsiConnector(f"{self.directory}/{host}", node=host)

    def put(self, target: model.Target) -> None:
        if target.iqn in self._behind:
            self._delete(target.iqn)
        key = self._behind[target.iqn] = (target.device, target.uuid)
        if target.device not in self._loops:
            # By another name, so that what the NAS has open is not taken for what a host left.
            os.link(target.device, place := f"{self._nas}/{os.path.basename(target.device)}")
            self._loops[target.device] = _run("losetup", "-f", "--show", place)
        if key not in self._objects:
            name = f"{os.path.basename(self._nas)}-{len(self._objects)}"
            self._objects[key] = BlockStorageObject(name, self._loops[target.device], wwn=target.uuid)
        made = self._objects[key]
        group = TPG(Target(FabricModule("iscsi"), target.iqn), 1)
        group.set_attribute("authentication", 1)
        group.set_attribute("generate_node_acls", 0)
        account = NodeACL(group, target.initiator)
        account.chap_userid, account.chap_password = target.user, target.secret
        MappedLUN(account, 0, Lun(group, 0, made), write_protect=target.readonly)
        NetworkPortal(group, self.portal.address, self.portal.port)
        group.enable = True
        super().put(target)

    def withdraw(self, export: Export) -> None:
        self._delete(export.iqn)

    def grow(self, export: Export, size: int) -> None:
        super().grow(export, size)
        _run("losetup", "-c", self._loops[self.backing(export)])

    def leftovers(self) -> list[str]:
        """Sessions of the lab's hosts, and their records."""
        return [*sessions(*HOSTS), *records(*HOSTS)]

    def stop(self) -> None:
        for iqn in [*self._behind]:
            self._delete(iqn)
        for loop in self._loops.values():
            _run("losetup", "-d", loop)
        shutil.rmtree(self._nas)

    def _delete(self, iqn: str) -> None:
        Target(FabricModule("iscsi"), iqn, mode="lookup").delete()
        # Two targets may be over one volume while it moves.
        key = self._behind.pop(iqn)
        if key not in self._behind.values():
            self._objects.pop(key).delete()


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout.strip()
