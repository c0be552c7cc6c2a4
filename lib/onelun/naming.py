"""Names: of volumes, pools, nodes, targets, devices. Each is matched whole against one pattern at the border.

`SOURCE` is `<nas>/<pool>/<volume>`: without `:` (oned would drop the `fe:` before it) and without blanks (oned splits a
transfer script on them), see OpenNebula's TransferManager.cc.
"""

from __future__ import annotations

import re
import uuid as uuids
from typing import NamedTuple

from onelun.errors import Rejected

# rtslib refuses capitals and "_" in an IQN, and every name here ends up in one.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
# LVM reserves these beginnings (lvm(8), "Valid names").
_RESERVED = ("snapshot", "pvmove")
_INITIATOR = re.compile(r"(?:iqn|eui|naa)\.[a-z0-9.:-]{1,219}")
_TARGET = re.compile(r"iqn\.2026-11\.io\.onelun\.([a-z0-9.-]+):([a-z0-9.-]+)\.e([1-9][0-9]*)")
_EPOCH = re.compile(r"\.e([1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[0-9]{1,18}")
_LONGEST_IQN = 223
IQN_PREFIX = "iqn.2026-11.io.onelun."
DEVICES = "/dev/onelun"
DRIVER = "onelun"
"""The name under which OpenNebula knows the scripts: TM_MAD and DS_MAD."""


def checked_name(text: str, what: str = "name") -> str:
    """`text`, when it is a name; else Rejected, saying what a name is. `what` names it in the sentence."""
    if not isinstance(text, str) or not _NAME.fullmatch(text) or ".." in text or text.startswith(_RESERVED):
        shown = str(text) if len(str(text)) <= 80 else str(text)[:77] + "..."
        raise Rejected(
            f"{shown!r} is no {what}: use 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
            f", without '..', and not beginning with {' or '.join(_RESERVED)}"
        )
    return text


def checked_initiator(text: str) -> str:
    """`text` as an iSCSI initiator name in lower case (RFC 3722 folds case); else Rejected."""
    if not _INITIATOR.fullmatch(text.lower()):
        raise Rejected(f"{text[:80]!r} is no iSCSI initiator name")
    return text.lower()


def checked_uuid(text: str, what: str = "UUID") -> str:
    """`text` as a UUID in its canonical form; else Rejected."""
    try:
        return str(uuids.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise Rejected(f"{str(text)[:80]!r} is no {what}") from None


class Source(NamedTuple):
    """Where a volume lives, as OpenNebula keeps it in an image's SOURCE."""

    nas: str
    pool: str
    volume: str

    def __str__(self) -> str:
        return f"{self.nas}/{self.pool}/{self.volume}"

    @property
    def device(self) -> str:
        """The device's name on a host; `disk.N` links to it, and it is the same text on every host."""
        return f"{DEVICES}/{self}"


def parse_source(text: str) -> Source:
    """The Source that `text` names; else Rejected. Parsing what `str()` of a Source gave returns that Source."""
    parts = text.split("/")
    if len(parts) != 3:
        raise Rejected(f"{text[:120]!r} is no SOURCE of onelun: it should be NAS/POOL/VOLUME, such as nas1/tank/one-7")
    nas, pool, volume = parts
    return Source(
        checked_name(nas, "name of a NAS"), checked_name(pool, "name of a pool"), checked_name(volume, "volume name")
    )


def image_volume(image_id: int) -> str:
    """The name of an image's volume."""
    return f"one-{image_id}"


def disk_volume(image_volume_name: str, vm_id: int, disk_id: int) -> str:
    """The name of a VM disk's own volume, cloned from an image's."""
    return checked_name(f"{image_volume_name}-{vm_id}-{disk_id}", "volume name")


def volatile_volume(vm_id: int, disk_id: int) -> str:
    """The name of a volatile disk's volume."""
    return f"one-vm-{vm_id}-{disk_id}"


def checkpoint_volume(vm_id: int) -> str:
    """The name of the volume that a VM's memory is on while the VM is nowhere."""
    return f"one-vm-{vm_id}-checkpoint"


_SNAPSHOT = "snap-"


def snapshot_name(snapshot_id: int) -> str:
    """The name on the storage of the snapshot that OpenNebula calls by that id."""
    return f"{_SNAPSHOT}{snapshot_id}"


def snapshot_id(name: str) -> int | None:
    """The id by which OpenNebula calls the snapshot of that name; None when it is none of OpenNebula's."""
    number = name.removeprefix(_SNAPSHOT)
    return int(number) if number != name and _NUMBER.fullmatch(number) else None


def is_snapshot_of_opennebula(name: str) -> bool:
    """Whether a snapshot of that name is one of OpenNebula's, and not one that onelun keeps for itself."""
    return name.startswith(_SNAPSHOT)


_BACKUP = "backup-"


def backup_snapshot(vm_id: int, increment: int | None) -> str:
    """The name of the snapshot that an increment of a VM's backups is made from; None is a backup that nothing builds on.

    It tells the VM: a persistent disk may have been another one's.
    """
    return f"{_BACKUP}{vm_id}-{'full' if increment is None else increment}"


def is_backup_of(vm_id: int, name: str) -> bool:
    """Whether a snapshot of that name was taken for a backup of that VM."""
    return name.startswith(f"{_BACKUP}{vm_id}-")


def target_iqn(source: Source, epoch: int) -> str:
    """The name of the target of one attachment. Compare IQNs whole: one-1 is not one-10.

    Raises Rejected when the three names together are too long for one (RFC 3720: 223 bytes).
    """
    iqn = f"{IQN_PREFIX}{source.nas}:{source.pool}.{source.volume}.e{epoch}"
    if len(iqn) > _LONGEST_IQN:
        raise Rejected(f"the names in {source} are too long together for the name of an iSCSI target")
    return iqn


def epoch_of(iqn: str) -> int:
    """The epoch that the IQN ends in; 0 for a target that has none."""
    match = _EPOCH.fullmatch(iqn[iqn.rfind(".") :])
    return int(match[1]) if match else 0


def target_account(iqn: str) -> str:
    """The CHAP user of one target: the IQN without its fixed part.

    Accounts are global in tgtd, so an account must tell by its name whose it is: one that an interruption left without
    a target is found and removed, and no other one is ever touched.
    """
    return iqn.removeprefix(IQN_PREFIX)


def is_target_of(nas: str, iqn: str) -> bool:
    """Whether `iqn` is one that the NAS of that name makes; others' targets are left alone."""
    match = _TARGET.fullmatch(iqn)
    return match is not None and match[1] == nas
