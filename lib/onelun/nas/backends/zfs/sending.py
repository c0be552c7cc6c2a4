"""What changed between two snapshots, as `zfs send -i` tells it: all that changed is read, and thrown away but for where it is.

ZFS has no list of what changed in a zvol but the stream. It is read in a thread: a gigabyte takes a second or two of it.
"""

from __future__ import annotations

import asyncio
import io
import os
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from onelun import command
from onelun.ending import to_its_end
from onelun.errors import Cancelled, CommandFailed, ProtocolError
from onelun.model import Extent
from onelun.nas.backends import rules
from onelun.nas.backends.changes import merged
from onelun.nas.backends.zfs.command import Unrelated, Zfs
from onelun.nas.backends.zfs.snapshots import Kept, Snapshots
from onelun.nas.backends.zfs.stream import changes
from onelun.nas.backends.zfs.tree import Entry, Tree

# Each reads its volume's blocks as fast as the disks give them: more at once would only seek.
_AT_ONCE = 4
# A pool that is scrubbed or resilvered may take a while for the first byte; a suspended one gives none for ever.
_SILENT_S = 120.0
_LOOK_MS = 500
_END_S = 10.0
_BUFFER_BYTES = 1 << 20


class Sending:
    """The changes of one pool's volumes."""

    def __init__(self, zfs: Zfs, tree: Tree, snapshots: Snapshots) -> None:
        self._zfs = zfs
        self._tree = tree
        self._snapshots = snapshots
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=f"send-{zfs.pool}")

    async def changed(self, entry: Entry, since: str, until: str) -> list[Extent]:
        """What may differ between the volume's two snapshots. While it is found out, neither can be destroyed."""
        assert entry.volume is not None
        found = {kept.snapshot.name: kept for kept in await self._snapshots.of(entry)}
        for name in (since, until):
            if name not in found:
                raise rules.no_snapshot(entry.volume, name)
        if since == until:
            return []
        try:
            async with self._turns:
                return await self._sent(found[since], found[until])
        except Unrelated:
            why = f"it is no ancestor of {until}, such as after a revert to what was before it"
            raise rules.untold(entry.volume, since, why) from None

    async def _sent(self, before: Kept, after: Kept) -> list[Extent]:
        ends = (self._tree.path(before.at), self._tree.path(after.at))
        outlet, inlet = os.pipe2(os.O_CLOEXEC)
        try:
            # Blocks as they lie on the disks: large, compressed, and small ones within their pointers.
            argv = ("zfs", "send", "--large-block", "--compressed", "--embed", "-i", *ends)
            sending = await command.pipe(*argv, stdout=inlet)
        except BaseException:
            os.close(outlet)
            raise
        finally:
            os.close(inlet)
        stop = threading.Event()
        reading = asyncio.get_running_loop().run_in_executor(
            self._threads, _read, outlet, after.snapshot.size_bytes, stop
        )
        try:
            try:
                extents: list[Extent] | ProtocolError = await to_its_end(reading, hurry=stop.set)
            except ProtocolError as error:
                # Of a stream that ended too early zfs itself says why.
                extents = error
            await self._ended(sending, broken=isinstance(extents, ProtocolError))
        finally:
            await to_its_end(sending.end())
        if isinstance(extents, ProtocolError):
            raise extents
        return extents

    async def _ended(self, sending: command.Pipe, *, broken: bool) -> None:
        """Raise what zfs says of itself, unless it ended well; a broken stream's may not have ended at all."""
        process = sending.process
        assert process.stderr is not None
        try:
            async with asyncio.timeout(_END_S):
                said = await process.stderr.read()
                status = await process.wait()
        except TimeoutError:
            if broken:
                return
            raise CommandFailed(f"zfs send did not end within {_END_S:g} s after its stream", command="zfs") from None
        if status != 0:
            raise self._zfs.failure("zfs", "send", command.Result(status, "", said.decode(errors="replace")))


def _read(outlet: int, size_bytes: int, stop: threading.Event) -> list[Extent]:
    with io.BufferedReader(_Outlet(outlet, stop), _BUFFER_BYTES) as stream:
        return merged(changes(stream), size_bytes)


class _Outlet(io.RawIOBase):
    """The reading end of a pipe, which is not waited at for ever."""

    def __init__(self, outlet: int, stop: threading.Event) -> None:
        self._outlet = outlet
        self._stop = stop
        self._waiting = select.poll()
        self._waiting.register(outlet, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Raises Cancelled when `stop` is set, CommandFailed when nothing comes."""
        until = time.monotonic() + _SILENT_S
        while not self._waiting.poll(_LOOK_MS):
            if time.monotonic() > until:
                raise CommandFailed(f"zfs send gave nothing for {_SILENT_S:g} s: see whether its zpool is well")
            self._must_go_on()
        self._must_go_on()
        return os.readv(self._outlet, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._outlet)
        super().close()

    def _must_go_on(self) -> None:
        if self._stop.is_set():
            raise Cancelled("the reading of what changed was cancelled")
