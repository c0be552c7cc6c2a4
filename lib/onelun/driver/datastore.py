"""The actions on images that copy nothing: mkfs, rm, monitor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from onelun.driver import disk_sizes
from onelun.driver.attributes import needs_of, of_image
from onelun.driver.document import ActionData, Image
from onelun.driver.filesystems import check_format, parse_filesystem
from onelun.driver.pools import Pool, choose, pools_for, pools_of, system_pools
from onelun.driver.running import Run
from onelun.errors import OnelunError, Rejected, Unreachable
from onelun.model import Attributes, Filesystem, Owner
from onelun.naming import Source, image_volume, parse_source
from onelun.rpc.message import (
    CreateZvol,
    DelZvol,
    PoolCapacity,
    PoolCapacityIs,
    ZvolCreated,
    ZvolDeleted,
)

MIB = 1 << 20
# What removing a half-made volume may take; the agent itself undoes what it hears nothing more of.
_CLEAN_UP_S = 10.0


async def mkfs(run: Run) -> str:
    """Make an empty image, with a filesystem if it is to have one. Prints SOURCE alone; up to 5.12 the size in MB behind it."""
    data = ActionData(run.arguments.document or b"")
    image, datastore = data.image(), data.datastore()
    check_format(image.format, "IMAGE/FORMAT")
    filesystem = parse_filesystem(image.fs, "IMAGE/FSTYPE" if image.old else "IMAGE/FS")
    size = size_of(image)
    attributes = of_image(image, datastore)
    name = image_volume(image.id)
    # A VM's disk lies beside its image, and cpds will copy it over this one.
    beside = image_volume(image.saves) if image.saves is not None else None
    nas, pool = await choose(run, pools_for(image, datastore), size, name, beside=beside)
    owner = run.image_owner(image.id, image.regtime)
    source = Source(nas, pool, name)
    async with removed_on_failure(run, source, owner):
        await run.ask(nas, creation(source, size, owner, filesystem, attributes), ZvolCreated)
    run.note(f"made {source} with {size} bytes, {filesystem or 'empty'}")
    return f"{source} {image.size_mb}\n" if image.old else f"{source}\n"


async def rm(run: Run) -> str:
    """Remove an image. One that is gone already is success; one that says it is another's is a conflict."""
    image = ActionData(run.arguments.document or b"").image()
    if not image.source:
        raise Rejected("OpenNebula's document has no IMAGE/SOURCE, or an empty one: there is nothing to remove")
    source = parse_source(image.source)
    owner = run.image_owner(image.id, image.regtime)
    # What is not found is a pool that is not there just now: its images are.
    await run.ask(source.nas, DelZvol(zvol=source.volume, zpool=source.pool, owner=owner), ZvolDeleted)
    run.note(f"removed {source}")
    return ""


async def monitor(run: Run) -> str:
    """What the datastore's pools can give, in MB. A NAS that cannot be asked is an error: half a sum would mislead."""
    return await _capacity(run, pools_of(ActionData(run.arguments.document or b"").datastore()))


async def monitor_system(run: Run) -> str:
    """As monitor, of a system datastore, whose pools may be those of the configuration.

    When oned asks for them, the sizes of its VMs' disks go another way meanwhile, as far as NASes tell them.
    """
    data = ActionData(run.arguments.document or b"")
    datastore = data.datastore()
    pools = system_pools(run, datastore, str(datastore.id))
    if not data.monitors_disks():
        return await _capacity(run, pools)
    # The one's failure does not end the other: of a NAS that is away only its own disks are not told.
    capacity, told = await asyncio.gather(
        _capacity(run, pools), disk_sizes.tell(run, datastore.id, pools), return_exceptions=True
    )
    for outcome in (told, capacity):
        if isinstance(outcome, BaseException):
            raise outcome
    assert isinstance(capacity, str)
    return capacity


async def _capacity(run: Run, pools: list[Pool]) -> str:
    asked = [run.ask(nas, PoolCapacity(zpool=pool), PoolCapacityIs) for nas, pool in pools]
    found = await asyncio.gather(*asked)
    used = sum(capacity.used_bytes for capacity in found) // MIB
    total = sum(capacity.total_bytes for capacity in found) // MIB
    free = sum(capacity.free_bytes for capacity in found) // MIB
    return f"USED_MB={used}\nTOTAL_MB={total}\nFREE_MB={free}\n"


def creation(
    source: Source, size: int, owner: Owner, filesystem: Filesystem | None, attributes: Attributes
) -> CreateZvol:
    """The request for a new volume. An agent that knows no filesystems, or no attributes, must not make one without."""
    return CreateZvol(
        zvol=source.volume,
        zpool=source.pool,
        size_bytes=size,
        owner=owner,
        filesystem=filesystem,
        attributes=attributes,
        needs=(("filesystem",) if filesystem else ()) + needs_of(attributes),
    )


def size_of(image: Image) -> int:
    """IMAGE/SIZE in bytes. Raises Rejected when it is missing or no size."""
    if image.size_mb is None:
        raise Rejected("OpenNebula's document has no IMAGE/SIZE, or an empty one")
    if not 0 < image.size_mb <= 1 << 30:
        raise Rejected(f"IMAGE/SIZE is {image.size_mb} MB: an image has between 1 MB and 1 PiB")
    return image.size_mb * MIB


def registered(source: Source, image: Image) -> str:
    """What cp and clone print: SOURCE and format, up to 5.12 SOURCE and the size in MB."""
    return f"{source} {image.size_mb or 0}\n" if image.old else f"{source} raw\n"


@contextlib.asynccontextmanager
async def removed_on_failure(run: Run, source: Source, owner: Owner) -> AsyncIterator[None]:
    """Remove the image's volume when the body fails half-way or is cancelled; one that was there before stays.

    A body that was Rejected (Conflict among them) or reached nobody has made nothing. The agent removes only what says
    that it is this very image, so this cannot hit another's.
    """
    try:
        yield
    except (Rejected, Unreachable):
        raise
    except (OnelunError, asyncio.CancelledError):
        request = DelZvol(zvol=source.volume, zpool=source.pool, owner=owner)
        undo = asyncio.ensure_future(run.ask(source.nas, request, ZvolDeleted, within_s=_CLEAN_UP_S))
        with contextlib.suppress(OnelunError):
            await asyncio.shield(undo)
        raise
