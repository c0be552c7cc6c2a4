"""The request to a compute node to write one file of a backup; the other files of it are entries of a directory."""

from __future__ import annotations

from onelun.rpc.schema import Reply, Request, TargetName


class WriteBackup(Request, tag="write_backup", frozen=True):
    """Write the content of a LUN into the file `name` of the directory `path`, as qcow2, without connecting a device.

    The LUN is offered to this host alone, by whoever keeps its lease. With `extents`, triples of offset, length (bytes) and
    whether there is data, it is an increment: those ranges are allocated, and what reads as zeros there is explicit zeros.
    The file takes its name when it is complete; one that has it is replaced. Asked again for the same name, the earlier
    writing ends.
    """

    path: str
    name: str
    target: TargetName
    address: str
    port: int
    user: str
    secret: str
    lun: int
    size_bytes: int
    extents: tuple[tuple[int, int, bool], ...] | None = None


class BackupWritten(Reply, tag="backup_written", frozen=True):
    """The file is there; `size_bytes` is what it takes on its filesystem."""

    size_bytes: int
