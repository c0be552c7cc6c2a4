"""The action cp: an image's content goes straight into its volume, over iSCSI, as an ordinary user.

The NAS builds the volume and exports it to the front-end alone, for as long as the front-end renews the lease; qemu-img
writes into it; the NAS publishes it. Nobody sees an image half-way, and nothing of a failed one is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator

from onelun import command
from onelun.driver.content import Content, open_content
from onelun.driver.datastore import registered
from onelun.driver.document import ActionData, Image
from onelun.driver.formats import check_size, filename
from onelun.driver.pools import choose, pools_of
from onelun.driver.running import Run
from onelun.errors import CommandFailed, NoReply, OnelunError, OutOfSpace, Unreachable
from onelun.naming import Source, image_volume
from onelun.rpc.message import (
    AbortImport,
    DelZvol,
    FinishImport,
    ImportAborted,
    ImportFinished,
    ImportRenewed,
    ImportZvol,
    PoolCapacity,
    PoolCapacityIs,
    RenewImport,
    ZvolDeleted,
    ZvolImporting,
)

MIB = 1 << 20
_CLEAN_UP_S = 10.0
_CONNECT_S = 5.0
# QEMU's own block layer takes some 300 MiB of addresses; a hostile image must not make it take more than this.
# And it goes when this process is killed: it would write on, and wait for ever for a target that is gone.
_LIMITS = ("setpriv", "--pdeathsig", "KILL", "prlimit", "--as=4294967296")
_PROGRESS = re.compile(rb"\(([0-9.]+)/100%\)")
_STEP_PERCENT = 10.0


async def cp(run: Run) -> str:
    """Register an image from a file or a URL. Prints SOURCE and its format; up to 5.12 SOURCE and its size in MB."""
    data = ActionData(run.arguments.document or b"")
    image, datastore = data.image(), data.datastore()
    pools = pools_of(datastore)
    async with open_content(run, image, datastore) as content:
        size = _size(run, image, content)
        name = image_volume(image.id)
        nas, pool = await choose(run, pools, size, name)
        source = Source(nas, pool, name)
        await _import(run, source, image, content, size)
    run.note(f"registered {source} from a {content.format} of {content.size_bytes} bytes")
    return registered(source, image)


def _size(run: Run, image: Image, content: Content) -> int:
    """The volume's size in bytes: the image's own, unless the user asked for more.

    IMAGE/SIZE is in whole MB, rounded up from what `stat` found, so less than 1 MB more is nobody's wish.
    """
    asked = (image.size_mb or 0) * MIB
    size = asked if asked >= content.size_bytes + MIB else content.size_bytes
    check_size(size, run.config.max_image_gib)
    return size


async def _import(run: Run, source: Source, image: Image, content: Content, size: int) -> None:
    owner = run.image_owner(image.id, image.regtime)
    initiator = run.config.initiator
    request = ImportZvol(zvol=source.volume, zpool=source.pool, size_bytes=size, owner=owner, initiator=initiator)
    # Begun again it is another import, which ends the one before: whoever still wrote into that is cut off.
    begun = await run.ask(source.nas, request, ZvolImporting, anew=True)
    finishing = False
    try:
        async with _renewed(run, source, begun):
            try:
                await _write(run, source, content, begun)
            except CommandFailed as error:
                raise await _explained(run, source, error) from error
        content.check_unchanged()
        finishing = True
        finish = FinishImport(zpool=source.pool, uuid=begun.uuid)
        # The NAS keeps what was written as long as the lease, also while it is away from the broker.
        await run.ask(source.nas, finish, ImportFinished, absent_s=begun.lease_s)
    except (Exception, asyncio.CancelledError):
        # An import whose end is unknown may be an image by now: then that goes too, since oned forgets it.
        deletion = DelZvol(zvol=source.volume, zpool=source.pool, owner=owner, uuid=begun.uuid) if finishing else None
        undoing = asyncio.ensure_future(_undo(run, source, begun.uuid, deletion))
        await asyncio.shield(undoing)
        raise


async def _explained(run: Run, source: Source, error: CommandFailed) -> OnelunError:
    """A full pool shows on the initiator's side as a write error like any other: the NAS knows."""
    with contextlib.suppress(OnelunError):
        capacity = PoolCapacity(zpool=source.pool)
        found = await run.ask(source.nas, capacity, PoolCapacityIs, within_s=_CLEAN_UP_S)
        if found.free_bytes <= 0:
            return OutOfSpace(
                f"pool {source.pool} of {source.nas} became full while the image was written: make room and repeat",
                pool=source.pool,
            )
    return error


async def _undo(run: Run, source: Source, uuid: str, deletion: DelZvol | None) -> None:
    with contextlib.suppress(OnelunError):
        await run.ask(source.nas, AbortImport(zpool=source.pool, uuid=uuid), ImportAborted, within_s=_CLEAN_UP_S)
        if deletion is not None:
            await run.ask(source.nas, deletion, ZvolDeleted, within_s=_CLEAN_UP_S)


@contextlib.asynccontextmanager
async def _renewed(run: Run, source: Source, begun: ZvolImporting) -> AsyncIterator[None]:
    """Keep the import's lease while the body runs; end the body with an error when it is lost."""
    try:
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(_renew(run, source, begun))
            yield
            renewing.cancel()
    except ExceptionGroup as group:
        # The group holds the body's error, or that of the renewing which ended the body.
        raise group.exceptions[0] from None


async def _renew(run: Run, source: Source, begun: ZvolImporting) -> None:
    failed_s = 0.0
    pause_s = begun.lease_s / 3
    while True:
        await asyncio.sleep(pause_s)
        request = RenewImport(zpool=source.pool, uuid=begun.uuid)
        try:
            await run.ask(source.nas, request, ImportRenewed, within_s=pause_s)
            failed_s = 0.0
        except (Unreachable, NoReply):
            # A broker or an agent that restarts is back before the lease is over.
            failed_s += pause_s
            if failed_s >= begun.lease_s:
                raise


async def _write(run: Run, source: Source, content: Content, begun: ZvolImporting) -> None:
    """Write the content into the LUN. The secret goes by a file without a name; argv is for everybody to read."""
    await _check_portal(source, begun)
    portal = f"[{begun.address}]:{begun.port}" if ":" in begun.address else f"{begun.address}:{begun.port}"
    with _secret_file(begun.secret) as secret:
        await command.run(
            *_LIMITS,
            *("qemu-img", "convert", "-p", "-n", "-t", "writeback", "--target-is-zero"),
            *("--object", f"secret,id=s0,file=/proc/self/fd/{secret}"),
            "--target-image-opts",
            filename(content.descriptor, content.format),
            f"driver=iscsi,transport=tcp,portal={portal},target={begun.iqn},lun={begun.lun},user={begun.user},password-secret=s0"
            f",initiator-name={run.config.initiator}",
            timeout_s=run.deadline.left_s(),
            called="qemu-img",
            pass_fds=(content.descriptor, secret),
            on_output=_Progress(run, source),
        )


async def _check_portal(source: Source, begun: ZvolImporting) -> None:
    """Try the port first: what libiscsi says of a closed one helps nobody."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(begun.address, begun.port)
    except (OSError, TimeoutError) as error:
        reason = str(error) or "no answer"
        raise Unreachable(
            f"the front-end cannot reach the iSCSI portal {begun.address}:{begun.port} of {source.nas}: {reason}"
        ) from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.contextmanager
def _secret_file(secret: str) -> Iterator[int]:
    descriptor = os.memfd_create("secret")
    try:
        os.write(descriptor, secret.encode())
        yield descriptor
    finally:
        os.close(descriptor)


class _Progress:
    """Reads how far qemu-img is (`    (12.34/100%)`, with a carriage return) and logs each step of ten percent."""

    def __init__(self, run: Run, source: Source) -> None:
        self._run = run
        self._source = source
        self._said = 0.0

    def __call__(self, output: bytes) -> None:
        percents = [float(match) for match in _PROGRESS.findall(output)]
        if percents and percents[-1] >= self._said + _STEP_PERCENT:
            self._said = percents[-1]
            self._run.progress(f"writing {self._source} {self._said:.0f} %")
