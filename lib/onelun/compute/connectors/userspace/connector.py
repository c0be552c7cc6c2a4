"""The connector without kernel modules: iSCSI in user space, a file by FUSE, a loop device with direct I/O on it.

Each target has a directory below `run_dir`. It holds what an agent needs to find the connection again, and the
processes that carry its data name it among their arguments.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
from contextlib import AsyncExitStack

import msgspec

from onelun.compute import devices
from onelun.compute.connectors.base import Connected, Connector, Export
from onelun.compute.connectors.login import Identity, identify
from onelun.compute.connectors.userspace import bridge, loop
from onelun.compute.connectors.userspace.needs import lacking
from onelun.compute.processes import Daemon, end, lives, working_below
from onelun.errors import Busy, CommandFailed, Conflict, NotFound, OnelunError, Rejected, Unreachable

log = logging.getLogger(__name__)

_CONNECT_S = 10.0
_FLUSH_S = 30.0
_GRACE_S = 2.0
# A unix socket's path has at most 107 bytes (unix(7)), and "/nbd" follows the directory's name of 16.
_LONGEST_RUN_DIR = 107 - len("/0123456789abcdef/nbd")


class Session(msgspec.Struct, frozen=True):
    """One connected target, as its directory tells it. What is None had not been made yet. The secret is not kept."""

    iqn: str
    portal: str
    initiator: str
    readonly: bool
    session: Daemon | None = None
    file: Daemon | None = None
    device: str | None = None


class UserspaceConnector(Connector):
    """See Connector. Needs root, /dev/fuse, loop devices, and a `run_dir` that nobody else writes to."""

    def __init__(self, run_dir: str, *, node: str) -> None:
        if len(os.fsencode(run_dir)) > _LONGEST_RUN_DIR:
            raise Rejected(f"{run_dir} is too long for a run directory: at most {_LONGEST_RUN_DIR} bytes")
        self._run_dir = run_dir
        self._node = node
        # With their secrets, so in memory alone.
        self._exports: dict[str, Export] = {}

    async def check(self) -> list[str]:
        """See Connector. A qemu without its iSCSI driver is found by trying it."""
        return await lacking(self._run_dir)

    async def settle(self) -> None:
        """See Connector. Half-made is a directory that tells nothing."""
        for directory in self._directories():
            if _load(directory) is not None:
                continue
            try:
                removed = await self._drop_unused(directory)
            except (OnelunError, OSError) as error:
                log.warning("settle node=%s directory=%s error=%s", self._node, directory, error)
            else:
                log.info("settle node=%s directory=%s removed=%s", self._node, directory, removed)

    async def connect(self, export: Export) -> str:
        """See Connector. All of it ends within 10 s, and a connection that is in use is never cut."""
        directory = self._directory(export.iqn)
        known = _load(directory)
        try:
            identity = await self._identified(export)
        except (Conflict, NotFound):
            await self._drop_unused(directory)
            raise
        if known and _alive(directory, known):
            if known.device and _same(known, export, identity):
                self._exports[export.iqn] = export
                return known.device
            await self.disconnect(export.iqn)
        await self._remove(directory, gently=False)
        device = await self._build(directory, export, identity)
        self._exports[export.iqn] = export
        log.info("connect node=%s target=%s device=%s size=%s", self._node, export.iqn, device, identity.size_bytes)
        return device

    async def grow(self, iqn: str, size_bytes: int) -> str:
        """See Connector. The target is connected anew, so an open device is Busy, and its path may become another.

        nbdfuse keeps the size that it began with. Logging in again takes the secret, which only the agent that connected
        the target has: after its restart that is Busy too, until the NAS has told it again.
        """
        directory = self._directory(iqn)
        known = _load(directory)
        if known is None or known.device is None or not _alive(directory, known):
            raise NotFound(f"{iqn} is not connected to this host", target=iqn)
        if loop.size_bytes(known.device) == size_bytes:
            return known.device
        await devices.refuse_if_open(known.device)
        export = self._exports.get(iqn)
        if export is None:
            raise Busy(f"{known.device} can grow when the NAS has connected it again: repeat it", device=known.device)
        export = msgspec.structs.replace(export, size_bytes=size_bytes)
        # Before anything is cut off; a LUN of another size leaves the connection as it is.
        await self._identified(export)
        await self.disconnect(iqn)
        return await self.connect(export)

    async def disconnect(self, iqn: str, *, force: bool = False) -> None:
        """See Connector."""
        directory = self._directory(iqn)
        self._exports.pop(iqn, None)
        if not os.path.isdir(directory):
            return
        known = _load(directory)
        if known and known.device and not force and loop.backing(known.device) == bridge.file_of(directory):
            await devices.refuse_if_open(known.device)
            await devices.flush(known.device, timeout_s=_FLUSH_S)
        await self._remove(directory, gently=not force)
        log.info("disconnect node=%s target=%s force=%s", self._node, iqn, force)

    async def connections(self) -> list[Connected]:
        """See Connector."""
        return [
            Connected(known.iqn, known.device or "", alive=_alive(directory, known))
            for directory in self._directories()
            if (known := _load(directory))
        ]

    async def _identified(self, export: Export) -> Identity:
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await identify(export)
        except TimeoutError:
            raise Unreachable(f"{export.portal} did not answer within {_CONNECT_S:g} s") from None

    def _directories(self) -> list[str]:
        names = sorted(os.listdir(self._run_dir)) if os.path.isdir(self._run_dir) else []
        return [f"{self._run_dir}/{name}" for name in names]

    def _directory(self, iqn: str) -> str:
        """The directory of a target. No other host's on this machine has the same path.

        Hosts of a sandbox may have the same `run_dir`, each in a mount namespace of its own, and the kernel's list of loop
        devices shows the paths of all of them alike.
        """
        os.makedirs(self._run_dir, mode=0o700, exist_ok=True)
        place = os.stat(self._run_dir)
        key = f"{place.st_dev}:{place.st_ino}:{iqn}"
        return f"{self._run_dir}/{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    async def _build(self, directory: str, export: Export, identity: Identity) -> str:
        async with AsyncExitStack() as undo:
            os.makedirs(directory, mode=0o700)
            undo.push_async_callback(self._remove, directory, gently=False)
            state = Session(export.iqn, str(export.portal), export.initiator, export.readonly)
            _save(directory, state)
            state = msgspec.structs.replace(state, session=await bridge.start_session(directory, export, identity.lun))
            _save(directory, state)
            state = msgspec.structs.replace(state, file=await bridge.start_file(directory, readonly=export.readonly))
            _save(directory, state)
            device = await loop.attach(bridge.file_of(directory), readonly=export.readonly)
            _save(directory, msgspec.structs.replace(state, device=device))
            if loop.size_bytes(device) != identity.size_bytes:
                raise Conflict(
                    f"{device} has {loop.size_bytes(device)} bytes, its target {export.iqn} {identity.size_bytes}"
                )
            undo.pop_all()
        return device

    async def _drop_unused(self, directory: str) -> bool:
        """What turned out to be another volume does not stay connected, unless somebody works on it (then False)."""
        for device in await asyncio.to_thread(loop.devices_of, bridge.file_of(directory)):
            if await devices.openers(device):
                return False
        await self._remove(directory, gently=False)
        return True

    async def _remove(self, directory: str, *, gently: bool) -> None:
        """Remove everything below `directory`. Absent: nothing.

        Not gently, the processes are killed first: while the session lives without an answer from the NAS, losetup and
        umount wait for ever. Raises Busy (gently: somebody opened the device just now) or CommandFailed (something does
        not go).
        """
        if not os.path.isdir(directory):
            return
        known = _load(directory)
        if not gently:
            await _end_all(directory, known, grace_s=0)
        await _detach(directory, gently=gently)
        await _end_all(directory, known, grace_s=_GRACE_S)
        if not await bridge.unmount(directory):
            raise CommandFailed(f"{bridge.file_of(directory)} cannot be unmounted", path=directory)
        shutil.rmtree(directory)


async def _detach(directory: str, *, gently: bool) -> None:
    path = bridge.file_of(directory)
    for device in await asyncio.to_thread(loop.devices_of, path):
        loop.give_back(device)
        if not await loop.detach(device, path) and gently:
            raise Busy(f"{device} was opened while it was being disconnected", device=device)


async def _end_all(directory: str, known: Session | None, *, grace_s: float) -> None:
    """End the processes of a target: the file before its session when there is time, so that its last writes get through."""
    first, second = (known.file, known.session) if known else (None, None)
    for daemon in (first, second) if grace_s else (second, first):
        if daemon:
            await end(daemon, grace_s=grace_s)
    for daemon in await asyncio.to_thread(working_below, directory):
        if not await end(daemon, grace_s=0):
            raise CommandFailed(f"process {daemon.pid}, which carries {directory}, cannot be ended", pid=daemon.pid)


def _same(known: Session, export: Export, identity: Identity) -> bool:
    """Whether the connection is what `export` asks for. A volume that has grown needs a new one."""
    return (known.portal, known.initiator, known.readonly, loop.size_bytes(known.device or "")) == (
        str(export.portal),
        export.initiator,
        export.readonly,
        identity.size_bytes,
    )


def _alive(directory: str, known: Session) -> bool:
    backed = known.device is not None and loop.backing(known.device) == bridge.file_of(directory)
    return backed and lives(known.session) and lives(known.file)


def _load(directory: str) -> Session | None:
    try:
        with open(f"{directory}/state", "rb") as file:
            return msgspec.json.decode(file.read(), type=Session)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _save(directory: str, session: Session) -> None:
    descriptor = os.open(f"{directory}/state.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(session))
    os.replace(f"{directory}/state.new", f"{directory}/state")
