"""Files of backups on this host, in the directories of VMs: written aside, by the user whose they are, and then named."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence

from onelun.beneath import Owner
from onelun.compute.files import new_file
from onelun.compute.qcow2 import Disk, needed_bytes, write_full, write_increment
from onelun.directory import Directory
from onelun.ending import to_its_end
from onelun.errors import Cancelled, CommandFailed, OnelunError, OutOfSpace, Rejected
from onelun.lun import Lun
from onelun.rpc.job import Job
from onelun.rpc.message import BackupWritten, WriteBackup, checked_size

log = logging.getLogger(__name__)

MIB = 1 << 20
# Never a VM's own disk.N: that is a link beside the directory of the backup.
_NAME = re.compile(r"backup/disk\.[0-9]{1,6}\.[0-9]{1,9}")
_EXTENTS = 1 << 16


class Backups:
    """The files of backups that are being written. `initiator` is the one that this host's LUNs are offered to."""

    def __init__(self, initiator: str, owner: Owner) -> None:
        self._initiator = initiator
        self._owner = owner
        self._writing: dict[str, asyncio.Task[int]] = {}

    async def write(self, directory: Directory, request: WriteBackup, job: Job) -> BackupWritten:
        """Write the file; another writing of the same one ends before.

        Raises OutOfSpace where that is known before or comes out, CommandFailed when the LUN cannot be read.
        """
        if not _NAME.fullmatch(request.name):
            raise Rejected(f"{request.name[:80]!r} is no file of a backup: it should be such as backup/disk.0.0")
        size = checked_size(request.size_bytes)
        extents = None if request.extents is None else _checked(request.extents, size)
        key = _key(request.path, request.name)
        await self.stop(key)
        writing = asyncio.ensure_future(self._write(directory, request, size, extents, job))
        self._writing[key] = writing
        try:
            return BackupWritten(size_bytes=await asyncio.shield(writing))
        except asyncio.CancelledError:
            if writing.cancelled():
                raise Cancelled(f"{request.name} was begun anew, or its backup was removed") from None
            await self.stop(key)
            raise
        finally:
            if self._writing.get(key) is writing:
                del self._writing[key]

    async def stop(self, path: str) -> None:
        """End every writing of `path`, or below it, and wait for that. Nothing of them is left."""
        key = _key(path)
        ending = [task for other, task in self._writing.items() if other == key or other.startswith(f"{key}/")]
        for task in ending:
            task.cancel()
        if ending:
            await to_its_end(asyncio.wait(ending))

    async def _write(
        self,
        directory: Directory,
        request: WriteBackup,
        size: int,
        extents: Sequence[tuple[int, int, bool]] | None,
        job: Job,
    ) -> int:
        lun = Lun(
            iqn=request.target,
            address=request.address,
            port=request.port,
            user=request.user,
            secret=request.secret,
            lun=request.lun,
            initiator=self._initiator,
        )
        what = f"{request.path}/{request.name}"

        def progress(done: int, total: int) -> None:
            job.progress(f"writing {what}", done, total)

        await _check_portal(lun)
        with lun.secret_file() as secret:
            objects = ("--object", f"secret,id=lun,file=/proc/self/fd/{secret}")
            disk = Disk(lun.node("lun"), size, objects, (secret,))
            async with new_file(directory, request.path, request.name) as file:
                _check_room(file, what, needed_bytes(size, extents or ()))
                try:
                    if extents is None:
                        await write_full(disk, file, self._owner, job.deadline, progress)
                    else:
                        await write_increment(disk, extents, file, self._owner, job.deadline, progress)
                except CommandFailed as error:
                    raise _explained(file, what, error) from error
                took = os.fstat(file).st_blocks * 512
        log.info("backup file=%s took=%s increment=%s", what, took, extents is not None)
        return took


async def _check_portal(lun: Lun) -> None:
    if (reason := await lun.out_of_reach()) is not None:
        raise CommandFailed(f"this host cannot reach the iSCSI portal {lun.address}:{lun.port}: {reason}")


def _check_room(file: int, what: str, needed: int) -> None:
    """Raise OutOfSpace when the filesystem has less left than is surely needed."""
    free = _free(file)
    if free < needed:
        raise OutOfSpace(
            f"{what} needs up to {_shown(needed)}, and its filesystem has {_shown(free)} left: make room, or set"
            " BACKUP_BASE_PATH to a larger one"
        )


def _explained(file: int, what: str, error: CommandFailed) -> OnelunError:
    """A full filesystem is told as such, and so is a QEMU without its iSCSI."""
    if "Unknown driver 'iscsi'" in error.sentence or "Unknown protocol 'iscsi'" in error.sentence:
        return CommandFailed("QEMU on this host cannot read over iSCSI: install qemu-block-extra there")
    if "no space left" in error.sentence.lower() or _free(file) < MIB:
        return OutOfSpace(
            f"the filesystem became full while {what} was written: make room, or set BACKUP_BASE_PATH to a larger one"
        )
    return error


def _free(file: int) -> int:
    found = os.fstatvfs(file)
    return found.f_bavail * found.f_frsize


def _shown(size: int) -> str:
    return f"{size / MIB:.0f} MiB" if size < 10 << 30 else f"{size / (1 << 30):.0f} GiB"


def _checked(extents: Sequence[tuple[int, int, bool]], size: int) -> Sequence[tuple[int, int, bool]]:
    """Raise Rejected unless they are ranges of the disk, in order and apart."""
    end = 0
    if len(extents) > _EXTENTS:
        raise Rejected(f"an increment of {len(extents)} ranges is more than {_EXTENTS}")
    for offset, length, _ in extents:
        if offset < end or length <= 0 or offset + length > size:
            raise Rejected(
                f"the range of {length} bytes at {offset} is none of a disk of {size} bytes, or out of order"
            )
        end = offset + length
    return extents


def _key(*parts: str) -> str:
    return "/" + "/".join(part for part in "/".join(parts).split("/") if part)
