"""The action clone of a datastore: an image with another image's content.

In one pool the storage clones it where it can. From another pool or another NAS, or from a datastore of another driver, the
content is copied, as cp would copy it; the new image goes where a new image of its datastore goes. Its attributes are its
own, then its datastore's; a clone by the storage has those of the image that it was cloned from where neither asks.
"""

from __future__ import annotations

import msgspec

from onelun.driver.attributes import needs_of, of_image
from onelun.driver.content import open_content
from onelun.driver.datastore import registered, removed_on_failure
from onelun.driver.document import ActionData, Datastore, Image
from onelun.driver.importing import Given, fill, size_of_new
from onelun.driver.pools import choose, contains, pools_for
from onelun.driver.reading import volume_content
from onelun.driver.running import Run
from onelun.errors import InMaintenance
from onelun.model import Attributes
from onelun.naming import Source, image_volume, parse_source
from onelun.rpc.message import CloneZvol, ZvolCloned


async def clone(run: Run) -> str:
    """Make an image with the content of another one, whose SOURCE is in IMAGE/PATH."""
    data = ActionData(run.arguments.document or b"")
    image, datastore = data.image(), data.datastore()
    pools = pools_for(image, datastore)
    attributes = of_image(image, datastore)
    if image.path.startswith("/"):
        return await _of_file(run, image, datastore)
    origin = parse_source(image.path)
    if contains(pools, origin):
        try:
            return await _within_pool(run, image, origin, attributes)
        except InMaintenance as refusal:
            # Its content may be read all the same, and another pool of the datastore may take it.
            if len(pools) == 1:
                raise
            run.note(f"copying {origin} to another pool: {refusal.sentence}")
    async with volume_content(run, origin) as content:
        return await _copy(run, image, datastore, content, content.size_bytes, str(origin))


async def _within_pool(run: Run, image: Image, origin: Source, attributes: Attributes) -> str:
    source = Source(origin.nas, origin.pool, image_volume(image.id))
    owner = run.image_owner(image.id, image.regtime)
    # Its blocks are those of what it is cloned from, whatever is asked of new images.
    attributes = msgspec.structs.replace(attributes, volblocksize_bytes=None)
    request = CloneZvol(
        zvol=source.volume,
        zpool=source.pool,
        origin=origin.volume,
        owner=owner,
        attributes=attributes,
        needs=needs_of(attributes),
    )
    async with removed_on_failure(run, source, owner):
        await run.ask(origin.nas, request, ZvolCloned)
    run.note(f"cloned {origin} to {source}")
    return registered(source, image)


async def _of_file(run: Run, image: Image, datastore: Datastore) -> str:
    """From a datastore that keeps its images as files: oned itself says which, so that it is among datastores.

    Its image may have been converted or unpacked when it was registered: the template's checksums are not the file's.
    """
    among = msgspec.structs.replace(
        datastore, safe_dirs=(run.config.datastores,), restricted_dirs=("/",), no_decompress=True
    )
    async with open_content(run, msgspec.structs.replace(image, sums={}), among) as content:
        size = size_of_new(run, image, content.size_bytes)
        return await _copy(run, image, datastore, content, size, image.path)


async def _copy(run: Run, image: Image, datastore: Datastore, content: Given, size: int, of: str) -> str:
    name = image_volume(image.id)
    nas, pool = await choose(run, pools_for(image, datastore), size, name)
    source = Source(nas, pool, name)
    await fill(run, source, image, content, size, of_image(image, datastore))
    run.note(f"copied {of} to {source}, {content.size_bytes} bytes")
    return registered(source, image)
