"""Files of VMs' directories that are as large as a VM's memory, copied onto connected volumes and back.

A file is read and made with the rights of the directories' owner; a device is opened without making anything. The bytes go
through a process of its own, which ends with the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import sys
from collections.abc import AsyncIterator

from onelun import command
from onelun.beneath import closing
from onelun.compute import pour as program
from onelun.compute.files import new_file, opened_file
from onelun.compute.host import Host
from onelun.compute.turns import Turns
from onelun.directory import Directory
from onelun.errors import CommandFailed, Conflict, OutOfSpace, Rejected
from onelun.naming import Source, checked_name
from onelun.rpc.job import Job
from onelun.rpc.message import FetchFile, FileFetched, FileStored, StoreFile

# Without a byte for this long the copy is given up.
_STALLED_S = 60.0


class Checkpoints:
    """store_file and fetch_file. Both may be repeated, whatever became of an earlier one."""

    def __init__(self, directory: Directory, host: Host) -> None:
        self._directory = directory
        self._host = host
        self._turns = Turns()

    async def store(self, request: StoreFile, job: Job) -> FileStored:
        """Copy the file onto the device. Raises Conflict when it has another size, or the volume is not connected here."""
        device = await self._device(request)
        async with (
            self._turns.of(f"{request.path}/{request.name}"),
            opened_file(self._directory, request.path, request.name) as source,
        ):
            size = os.fstat(source).st_size
            if size != request.size_bytes:
                raise Conflict(f"{request.name} in {request.path} has {size} bytes, not {request.size_bytes}")
            async with _opened(device, os.O_WRONLY) as target:
                await _pour(source, target, size, job, f"storing {request.name}")
        return FileStored()

    async def fetch(self, request: FetchFile, job: Job) -> FileFetched:
        """Make the file of the device's first bytes; it appears whole or not at all."""
        device = await self._device(request)
        async with (
            self._turns.of(f"{request.path}/{request.name}"),
            _opened(device, os.O_RDONLY) as source,
            new_file(self._directory, request.path, request.name, mode=request.mode) as target,
        ):
            await _pour(source, target, request.size_bytes, job, f"fetching {request.name}")
        return FileFetched()

    async def _device(self, request: StoreFile | FetchFile) -> str:
        """The device of the volume that is meant, which its identity has proved to be that one."""
        if request.size_bytes <= 0:
            raise Rejected(f"a file of {request.size_bytes} bytes is not copied")
        volume = Source(
            checked_name(request.nas, "name of a NAS"),
            checked_name(request.zpool, "name of a pool"),
            checked_name(request.zvol, "volume name"),
        )
        for connected, known in await self._host.attached():
            if connected.alive and known is not None and (known.name, known.uuid) == (str(volume), request.uuid):
                return known.device
        raise Conflict(f"{volume} is not connected here")


@contextlib.asynccontextmanager
async def _opened(device: str, mode: int) -> AsyncIterator[int]:
    """The device, opened as what it is; nothing is made where it is gone."""
    try:
        descriptor = os.open(device, mode | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CommandFailed(f"cannot open {device}: {error.strerror}", device=device) from error
    with closing(descriptor):
        found = os.fstat(descriptor)
        if not stat.S_ISBLK(found.st_mode) and not stat.S_ISREG(found.st_mode):
            raise Conflict(f"{device} is no block device")
        yield descriptor


async def _pour(source: int, target: int, size: int, job: Job, what: str) -> None:
    """Copy `size` bytes. Raises OutOfSpace, CommandFailed for what cannot be read or written, or when nothing moves on."""
    loop = asyncio.get_running_loop()
    argv = (sys.executable, "-I", "-S", program.__file__, str(source), str(target), str(size))
    try:
        async with asyncio.timeout(_STALLED_S) as moving:

            def tell(output: bytes) -> None:
                moving.reschedule(loop.time() + _STALLED_S)
                job.progress(what, int(output.split()[-1]), size)

            left_s = job.deadline.left_s() + _STALLED_S
            done = await command.run(
                *argv, timeout_s=left_s, check=False, pass_fds=(source, target), on_output=tell, called=what
            )
    except TimeoutError as error:
        raise CommandFailed(f"{what} was given up: nothing was copied for {_STALLED_S:g} s") from error
    if done.status == 0:
        return
    said = done.stderr.strip()
    if said == "writing" and done.status in (errno.ENOSPC, errno.EDQUOT):
        raise OutOfSpace(f"{what}: no space is left for {size} bytes", needed=size)
    if said not in ("reading", "writing"):
        raise CommandFailed(f"{what}: what is copied ended early" if said == "short" else done.failure(what))
    raise CommandFailed(f"{what}: {said} failed: {os.strerror(done.status)}", status=done.status)
