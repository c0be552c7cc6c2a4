"""What LIO, the kernel's target service, tells of itself under /sys/kernel/config/target, read as plain files.

rtslib could list it too, but looks at everything there again for every object, which takes seconds with a hundred targets.
Nothing here waits for a session but `shut`. Names and layout are those of drivers/target of Linux 6.1.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

from onelun.errors import Stalled
from onelun.naming import is_target_of
from onelun.nas.exporters.base import Exported

CONFIGFS = "/sys/kernel/config"
CORE = f"{CONFIGFS}/target/core"
ISCSI = f"{CONFIGFS}/target/iscsi"

# iscsit_tpg numbers; a target of ours has one portal group.
TAG = 1
_POLL_S = 0.05
# lio_target_nacl_info_show() in iscsi_target_configfs.c.
_NO_SESSION = "No active iSCSI Session"


class Backstore(NamedTuple):
    """One storage object of LIO, in an HBA of its own: `plugin` is iblock, fileio or another, `number` the HBA's."""

    plugin: str
    number: int
    name: str

    @property
    def path(self) -> str:
        """Its directory."""
        return f"{CORE}/{self.plugin}_{self.number}/{self.name}"

    @property
    def device(self) -> str:
        """The path that it was made for."""
        return read(f"{self.path}/udev_path")


def is_loaded() -> bool:
    """Whether LIO and its iSCSI front are there."""
    return os.path.isdir(ISCSI)


def read(path: str) -> str:
    """The text of one attribute; empty when it has gone, or is none."""
    try:
        with open(path) as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def write(path: str, text: str) -> None:
    """Set one attribute. Raises OSError as the kernel does."""
    with open(path, "w") as file:
        file.write(text)


def set_all(directory: str, wanted: dict[str, str]) -> None:
    """Set the attributes that differ. One that this kernel does not have is none that it acts upon."""
    for attribute, value in wanted.items():
        path = f"{directory}/{attribute}"
        if os.path.exists(path) and read(path) != value:
            write(path, value)


def remove(path: str) -> None:
    """Remove one object without children. Absent: nothing. Raises OSError while something else points at it."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def names(path: str) -> list[str]:
    """What a directory holds, sorted; nothing when it has gone."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def groups(iqn: str) -> list[str]:
    """The directories of a target's portal groups."""
    return [f"{ISCSI}/{iqn}/{name}" for name in names(f"{ISCSI}/{iqn}") if name.startswith("tpgt_")]


def initiators(group: str) -> list[str]:
    """The initiators that a portal group admits."""
    return names(f"{group}/acls")


def sessions(group: str) -> list[str]:
    """The initiators that have a session with a portal group, as far as the kernel knows; a dead host's stays for a while."""
    found = []
    for initiator in initiators(group):
        told = read(f"{group}/acls/{initiator}/info")
        if told and not told.startswith(_NO_SESSION):
            found.append(initiator)
    return found


def link(directory: str) -> str | None:
    """What a LUN's or a mapped LUN's directory points at; None for a half-made one."""
    for name in names(directory):
        path = f"{directory}/{name}"
        if os.path.islink(path):
            return os.path.realpath(path)
    return None


def backstore_at(path: str | None) -> Backstore | None:
    """The backstore whose directory is `path`."""
    if path is None:
        return None
    hba, name = path.split("/")[-2:]
    plugin, _, index = hba.rpartition("_")
    return Backstore(plugin, int(index), name)


def backstores() -> list[Backstore]:
    """All storage objects of LIO, ours and others'."""
    found = []
    for hba in names(CORE):
        plugin, _, number = hba.rpartition("_")
        if number.isdigit():
            found += [Backstore(plugin, int(number), name) for name in _directories(f"{CORE}/{hba}")]
    return found


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def listed(nas: str) -> list[Exported]:
    """All targets of the NAS, half-made ones too."""
    return [_exported(iqn) for iqn in names(ISCSI) if is_target_of(nas, iqn)]


def _exported(iqn: str) -> Exported:
    found = groups(iqn)
    device = None
    for group in found:
        with contextlib.suppress(FileNotFoundError):
            if backstore := backstore_at(link(f"{group}/lun/lun_0")):
                device = backstore.device or None
    open_ones = [group for group in found if read(f"{group}/enable") == "1"]
    admitted = tuple(name for group in open_ones for name in initiators(group))
    return Exported(iqn, device, admitted, tuple(name for group in found for name in sessions(group)))


def shut(iqn: str, within_s: float) -> None:
    """Let nobody in any more and end every session. Absent: nothing.

    Disabling a portal group ends its sessions and waits for their commands (iscsit_release_sessions_for_tpg()), without a
    time limit and deaf to signals. It waits in the writing of one file, though: a node's entry removed with its session
    would wait under the lock that every change to LIO needs. Raises Stalled when sessions are left after `within_s`.
    """
    deadline = time.monotonic() + within_s
    for group in groups(iqn):
        with contextlib.suppress(FileNotFoundError):
            if read(f"{group}/enable") == "1":
                write(f"{group}/enable", "0")
        # A session that was ending already when the group was disabled is not waited for there.
        while left := sessions(group):
            if time.monotonic() > deadline:
                raise Stalled(f"the session of {left[0]} with {iqn} does not end", iqn=iqn)
            time.sleep(_POLL_S)
