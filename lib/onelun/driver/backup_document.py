"""OpenNebula's documents about backups: how a VM is to be backed up, and where a backup is."""

from __future__ import annotations

import msgspec

from onelun.driver.document import Vm, vm_of
from onelun.driver.elements import needed, number, number_or_none, parse, text_of
from onelun.errors import Rejected


class BackupConfig(msgspec.Struct, frozen=True):
    """How a VM is to be backed up. `last_increment` is the last one that its backup datastore has, -1 when there is none.

    `freeze` is NONE, AGENT or SUSPEND; `bridge` the host that the backup datastore takes the files from, where that is not
    the VM's; `failed` is what the end of a backup is told after 7.4: that it failed.
    """

    incremental: bool
    last_increment: int
    freeze: str
    bridge: str | None
    interactive: bool
    failed: bool

    @property
    def increment(self) -> int:
        """The number of the one that is to be made; the files of a full backup have 0."""
        return self.last_increment + 1 if self.incremental else 0

    @property
    def base(self) -> int | None:
        """The increment that it builds on; None for a full one."""
        return self.last_increment if self.incremental and self.last_increment >= 0 else None


def parse_backup_document(text: bytes) -> tuple[Vm, BackupConfig]:
    """The VM of a backup's document, which is not encoded, and how it is to be backed up. Raises Rejected for any other."""
    root = parse(text, "VM")
    config = root.find("BACKUPS/BACKUP_CONFIG")
    if config is None:
        raise Rejected("OpenNebula's document has no BACKUPS/BACKUP_CONFIG: nothing says how to back the VM up")
    last = number_or_none(config, "LAST_INCREMENT_ID")
    return vm_of(root), BackupConfig(
        incremental=text_of(config, "MODE").strip().upper() == "INCREMENT",
        last_increment=-1 if last is None else last,
        freeze=text_of(config, "FS_FREEZE").strip().upper() or "NONE",
        bridge=text_of(config, "LAST_BRIDGE").strip() or None,
        interactive=text_of(config, "INTERACTIVE").strip().upper() == "YES",
        failed=text_of(root, "BACKUP_RESULT").strip().upper() == "FAILURE",
    )


def parse_image_datastore(text: str) -> int:
    """The id of the datastore of the image that one.image.info returns. Raises Rejected for another document."""
    return number(parse(text.encode(), "IMAGE"), "DATASTORE_ID")


def parse_ds_mad(text: str) -> str:
    """The driver of the datastore that one.datastore.info returns. Raises Rejected for another document."""
    return needed(parse(text.encode(), "DATASTORE"), "DS_MAD").strip()
