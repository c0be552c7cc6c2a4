"""What oned asks for when a VM is backed up: which VM and disks, what it builds on, and where the files are to lie."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, TypeVar

from onelun.driver.backup_document import BackupConfig, parse_backup_document
from onelun.driver.backupstore import base_path
from onelun.driver.disks import Known
from onelun.driver.document import Vm
from onelun.driver.location import Directory, Disk, parse_location
from onelun.driver.running import Run
from onelun.errors import Rejected
from onelun.naming import Source, backup_snapshot
from onelun.rpc.message import OfVolume

_R = TypeVar("_R", bound=OfVolume)


class Backup(NamedTuple):
    """One backup as oned asks for it. `agent` writes the files, in `path`; `host` is where the VM is."""

    vm: Vm
    config: BackupConfig
    directory: Directory
    disk_ids: tuple[int, ...]
    agent: str
    path: str

    @property
    def snapshot(self) -> str:
        """The name of the snapshots that it is made from."""
        return backup_snapshot(self.vm.id, self.config.increment if self.config.incremental else None)

    @property
    def base(self) -> str | None:
        """The name of the snapshots that it builds on."""
        return None if self.config.base is None else backup_snapshot(self.vm.id, self.config.base)

    @property
    def known(self) -> Known:
        """What the document says of the VM, which is as good as what oned's API does."""
        return Known(asked=True, vm=self.vm)

    def disk(self, disk_id: int) -> Disk:
        """One of the VM's disks."""
        return Disk(self.directory.host, self.directory.path, f"disk.{disk_id}", self.vm.id, disk_id)


class Part(NamedTuple):
    """One disk of a backup, and the volume behind it."""

    disk: Disk
    source: Source

    def request(self, run: Run, kind: type[_R], **more: Any) -> _R:  # noqa: ANN401 - whatever the request has more
        """A request about the disk's volume."""
        zvol, zpool, cloud = self.source.volume, self.source.pool, run.config.cloud
        return kind(zvol=zvol, zpool=zpool, cloud=cloud, vm=self.disk.vm_id, disk=self.disk.disk_id, **more)


def given(run: Run) -> Backup:
    """What the call asks for. Raises Rejected for arguments or a document that cannot be."""
    rest, name = run.arguments.rest, run.call.name.rpartition("/")[2]
    if len(rest) not in (3, 4):
        # The name of a VM that never ran is empty, and empty words are none.
        raise Rejected(f"the arguments should be: {name} HOST:DIRECTORY DISKS DEPLOY_ID JOB VM DATASTORE")
    directory = parse_location(rest[0], run.config.datastores)
    if not isinstance(directory, Directory):
        raise Rejected(f"{rest[0][:200]} is a disk, where a VM's directory was expected")
    if directory.vm_id != run.arguments.vm_id:
        raise Rejected(f"the directory is that of VM {directory.vm_id}, and the call is for VM {run.arguments.vm_id}")
    if not re.fullmatch(r"[0-9]{1,6}(:[0-9]{1,6})*:?", rest[1]):
        raise Rejected(f"the disks are {rest[1][:40]!r}: they should be numbers with colons between them")
    vm, config = parse_backup_document(run.arguments.document or b"")
    if vm.id != directory.vm_id:
        raise Rejected(f"the document is of VM {vm.id}, and the call is for VM {directory.vm_id}")
    base = base_path(run.config.remotes)
    return Backup(
        vm=vm,
        config=config,
        directory=directory,
        disk_ids=tuple(dict.fromkeys(int(number) for number in rest[1].strip(":").split(":"))),
        agent=run.context.hosts.compute(config.bridge or directory.host),
        path=directory.path if base is None else f"{base.rstrip('/')}/{vm.id}",
    )
