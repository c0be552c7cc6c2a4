"""What a host lacks for open-iscsi, as sentences for its operator."""

from __future__ import annotations

import os
import shutil

from onelun import command
from onelun.compute.connectors.iscsi import multipath
from onelun.compute.connectors.iscsi.admin import daemon_answers
from onelun.compute.connectors.iscsi.notes import Notes
from onelun.compute.connectors.iscsi.records import Records, available
from onelun.compute.connectors.iscsi.sysfs import Sysfs
from onelun.errors import CommandFailed
from onelun.naming import IQN_PREFIX

_NAME = "/etc/iscsi/initiatorname.iscsi"


async def troubles(sysfs: Sysfs, records: Records, notes: Notes) -> list[str]:
    """What stands in the way, each as one sentence that says what to do; changes nothing."""
    found = []
    if os.geteuid() != 0:
        found.append("the agent does not run as root: start it by its systemd unit")
    if not available():
        return [*found, "iscsiadm is not installed: apt install open-iscsi"]
    if not await _has_tcp(sysfs):
        found.append(
            "the kernel has no module iscsi_tcp: install the kernel's full set of modules, then modprobe iscsi_tcp"
        )
    if not os.path.exists(_NAME):
        found.append(
            f"{_NAME} is missing, without which iscsid does not start: run iscsi-iname and write InitiatorName= to it"
        )
    if not daemon_answers():
        found.append("iscsid is not running: systemctl enable --now iscsid.socket")
    if not sysfs.has_bsg():
        found.append("the kernel has no CONFIG_BLK_DEV_BSG, by which disks are asked who they are: use another one")
    if await _lvm_looks():
        found.append(
            "LVM of this host would activate volume groups that it finds inside VMs' disks: put "
            f'global_filter = [ "r|-iscsi-{IQN_PREFIX}|" ] into the section devices of /etc/lvm/lvm.conf'
        )
    found += await multipath.troubles(sysfs)
    found += [trouble for trouble in (records.trouble(), notes.trouble()) if trouble is not None]
    found += [
        f"the record of {iqn} would log in by itself at the host's start: iscsiadm -m node -T {iqn} --op update "
        "-n node.startup -v manual"
        for iqn in records.automatic()
    ]
    return found


async def _lvm_looks() -> bool:
    """Whether LVM is there and nothing in its configuration keeps it from our disks."""
    if shutil.which("lvmconfig") is None:
        return False
    # It fails when the section is nowhere set.
    told = (await command.run("lvmconfig", "devices", timeout_s=10, check=False)).stdout
    return IQN_PREFIX not in told and "use_devicesfile=1" not in told


async def _has_tcp(sysfs: Sysfs) -> bool:
    """Whether the module is there, or would be when it is asked for (`-n`: without loading it)."""
    if sysfs.has_tcp():
        return True
    try:
        return (await command.run("modprobe", "-n", "-q", "iscsi_tcp", timeout_s=5, check=False)).status == 0
    except CommandFailed:
        return False
