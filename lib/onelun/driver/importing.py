"""The action cp: an image's content goes straight into its volume, over iSCSI, as an ordinary user.

The NAS builds the volume and exports it to the front-end alone, for as long as the front-end renews the lease; qemu-img
writes into it; the NAS publishes it. Nobody sees an image half-way, and nothing of a failed one is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Protocol

from onelun import command
from onelun.driver.attributes import needs_of, of_image
from onelun.driver.content import open_content
from onelun.driver.datastore import registered
from onelun.driver.document import ActionData, Image
from onelun.driver.formats import check_size
from onelun.driver.luns import Leased
from onelun.driver.pools import choose, pools_for
from onelun.driver.running import Run
from onelun.errors import CommandFailed, OnelunError, OutOfSpace
from onelun.model import Attributes
from onelun.naming import Source, image_volume
from onelun.rpc.message import (
    AbortImport,
    DelZvol,
    FinishImport,
    ImportAborted,
    ImportFinished,
    ImportZvol,
    PoolCapacity,
    PoolCapacityIs,
    ZvolDeleted,
    ZvolImporting,
)

MIB = 1 << 20
_CLEAN_UP_S = 10.0
# QEMU's own block layer takes some 300 MiB of addresses; a hostile image must not make it take more than this.
# And it goes when this process is killed: it would write on, and wait for ever for a target that is gone.
_LIMITS = ("setpriv", "--pdeathsig", "KILL", "prlimit", "--as=4294967296")
_PROGRESS = re.compile(rb"\(([0-9]{1,3}(?:\.[0-9]{1,6})?)/100%\)")
_STEP_PERCENT = 10.0


class Given(Protocol):
    """What an image is made from: a file, a volume."""

    size_bytes: int

    def opened(self) -> contextlib.AbstractContextManager[tuple[str, tuple[str, ...], tuple[int, ...]]]:
        """What qemu-img calls it, which options that needs, and which descriptors it inherits for that."""

    def check_unchanged(self) -> None:
        """Raise Rejected when it may have changed since it was opened."""


async def cp(run: Run) -> str:
    """Register an image from a file or a URL. Prints SOURCE and its format; up to 5.12 SOURCE and its size in MB."""
    data = ActionData(run.arguments.document or b"")
    image, datastore = data.image(), data.datastore()
    pools, attributes = pools_for(image, datastore), of_image(image, datastore)
    async with open_content(run, image, datastore) as content:
        size = size_of_new(run, image, content.size_bytes)
        name = image_volume(image.id)
        nas, pool = await choose(run, pools, size, name)
        source = Source(nas, pool, name)
        await fill(run, source, image, content, size, attributes)
    run.note(f"registered {source} from a {content.format} of {content.size_bytes} bytes")
    return registered(source, image)


def size_of_new(run: Run, image: Image, content_bytes: int) -> int:
    """The volume's size in bytes: the image's own, unless the user asked for more.

    IMAGE/SIZE is in whole MB, rounded up from what `stat` found, so less than 1 MB more is nobody's wish.
    """
    asked = (image.size_mb or 0) * MIB
    size = asked if asked >= content_bytes + MIB else content_bytes
    check_size(size, run.config.max_image_gib)
    return size


async def fill(run: Run, source: Source, image: Image, content: Given, size: int, attributes: Attributes) -> None:
    """Make the image's volume with that content; it appears when it is complete, and nothing of a failed one is left."""
    owner = run.image_owner(image.id, image.regtime)
    initiator = run.config.initiator
    request = ImportZvol(
        zvol=source.volume,
        zpool=source.pool,
        size_bytes=size,
        owner=owner,
        initiator=initiator,
        attributes=attributes,
        needs=needs_of(attributes),
    )
    # Begun again it is another import, which ends the one before: whoever still wrote into that is cut off.
    begun = await run.ask(source.nas, request, ZvolImporting, anew=True)
    leased = Leased(source.nas, source.pool, begun, initiator)
    finishing = False
    try:
        async with leased.kept(run):
            await write(run, source, content, leased)
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
        # In maintenance it says that it has no room, whatever it has.
        if found.free_bytes <= 0 and found.maintenance is None:
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


async def write(run: Run, source: Source, content: Given, leased: Leased[ZvolImporting]) -> None:
    """Write the content into the LUN, which reads as zeros. The caller keeps the lease.

    Raises CommandFailed, OutOfSpace when the pool became full, Unreachable when the portal is out of reach.
    """
    try:
        await _write(run, source, content, leased)
    except CommandFailed as error:
        raise await _explained(run, source, error) from error


async def _write(run: Run, source: Source, content: Given, leased: Leased[ZvolImporting]) -> None:
    """Secrets go by files without a name; argv is for everybody to read."""
    await leased.check_portal()
    lun = leased.lun
    with lun.secret_file() as secret, content.opened() as (name, objects, descriptors):
        await command.run(
            *_LIMITS,
            *("qemu-img", "convert", "-p", "-n", "-t", "writeback", "--target-is-zero"),
            *objects,
            *("--object", f"secret,id=s0,file=/proc/self/fd/{secret}"),
            "--target-image-opts",
            name,
            lun.options("s0"),
            timeout_s=run.deadline.left_s(),
            called="qemu-img",
            pass_fds=(*descriptors, secret),
            on_output=_Progress(run, source),
        )


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
