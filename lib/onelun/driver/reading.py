"""A volume's content on the front-end, as it is at one moment: another pool's, another NAS's, to be copied.

The NAS makes a clone of it for this one reader and offers that; whatever the volume's own hosts do, the clone stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from onelun.driver.luns import Leased
from onelun.driver.running import Run
from onelun.errors import OnelunError
from onelun.lun import Lun
from onelun.naming import Source
from onelun.rpc.message import AbortImport, ImportAborted, ReadZvol, ZvolReadable

_CLEAN_UP_S = 10.0


class VolumeContent:
    """The content of a volume; see importing.Given."""

    format = "volume"

    def __init__(self, lun: Lun, size_bytes: int) -> None:
        self.lun = lun
        self.size_bytes = size_bytes

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
        """See Given."""
        with self.lun.secret_file() as secret:
            objects = ("--object", f"secret,id=read,file=/proc/self/fd/{secret}")
            yield self.lun.filename("read"), objects, (secret,)

    def check_unchanged(self) -> None:
        """Nobody else has the clone."""


@contextlib.asynccontextmanager
async def volume_content(run: Run, source: Source, *, snapshot: str | None = None) -> AsyncIterator[VolumeContent]:
    """The content of the volume, or of a snapshot of it, while the body runs; nothing of it is left on the NAS afterwards.

    Raises NotFound, Conflict while somebody may write to it (not for a snapshot), Unreachable also when the front-end
    cannot reach the NAS's portal.
    """
    async with offered(run, source, snapshot=snapshot, initiator=run.config.initiator) as leased:
        await leased.check_portal()
        async with leased.kept(run):
            yield VolumeContent(leased.lun, leased.offered.size_bytes)


@contextlib.asynccontextmanager
async def offered(
    run: Run, source: Source, *, snapshot: str | None, initiator: str
) -> AsyncIterator[Leased[ZvolReadable]]:
    """The content of the volume, or of a snapshot of it, offered to that initiator until the body ends. Raises as above.

    Whoever reads it has the lease kept (`kept`).
    """
    request = ReadZvol(
        zvol=source.volume, zpool=source.pool, cloud=run.config.cloud, initiator=initiator, snapshot=snapshot
    )
    reply = await run.ask(source.nas, request, ZvolReadable, anew=True)
    try:
        yield Leased(source.nas, source.pool, reply, initiator)
    finally:
        # A NAS that does not hear of the end ends it with the lease.
        abort = AbortImport(zpool=source.pool, uuid=reply.uuid)
        ending = asyncio.ensure_future(run.ask(source.nas, abort, ImportAborted, within_s=_CLEAN_UP_S))
        with contextlib.suppress(OnelunError):
            await asyncio.shield(ending)
