"""The action stat: how large an image will be, before oned makes it.

oned waits for it inside an API call of a user, so it ends within a minute, asks nobody but the file or the URL itself,
and reads no more of a URL than its beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

from onelun import command
from onelun.driver.content import is_url
from onelun.driver.document import ActionData, Datastore
from onelun.driver.formats import HEAD_BYTES, check_size, compression_of, inspect, size_in_head
from onelun.driver.permitted import open_image
from onelun.driver.running import Run
from onelun.driver.staging import READER, proxies, unpacked
from onelun.errors import CommandFailed, ProtocolError, Rejected

MIB = 1 << 20
_UNPACK_S = 45.0
_FETCH_S = 40.0


async def stat(run: Run) -> str:
    """Print the size of the disk in MB, rounded up."""
    data = ActionData(run.arguments.document or b"")
    path, datastore = data.path(), data.datastore()
    size = await _of_url(path, datastore) if is_url(path) else await _of_file(run, path, datastore)
    check_size(size, run.config.max_image_gib)
    return f"{-(-size // MIB)}\n"


async def _of_file(run: Run, path: str, datastore: Datastore) -> int:
    descriptor = open_image(path, datastore, (run.config.datastores,))
    try:
        tool = None if datastore.no_decompress else compression_of(os.pread(descriptor, HEAD_BYTES, 0))
        if tool is None:
            return (await inspect(descriptor, run.config.max_image_gib)).size_bytes
        try:
            async with asyncio.timeout(_UNPACK_S):
                return await _unpacked_size(run, descriptor, tool)
        except TimeoutError:
            raise Rejected(f"unpacking {path} takes longer than {_UNPACK_S:.0f} s: unpack it first") from None
    finally:
        os.close(descriptor)


async def _unpacked_size(run: Run, descriptor: int, tool: str) -> int:
    """The size that the beginning of the content tells, or else that of all of it, counted."""
    counted = 0
    async with contextlib.aclosing(unpacked(tool, descriptor)) as pieces:
        async for piece in pieces:
            if counted == 0 and compression_of(piece):
                raise Rejected("the image is compressed twice: unpack it first")
            if counted == 0 and (told := size_in_head(piece)) is not None:
                return told
            counted += len(piece)
            check_size(counted, run.config.max_image_gib)
    return counted


async def _of_url(url: str, datastore: Datastore) -> int:
    """The size that the first bytes tell, or else the length that the server tells.

    Of a compressed image only that length is known without reading all of it; OpenNebula's own drivers take it as well.
    """
    pipe = await command.pipe(*READER, url, str(HEAD_BYTES), env=proxies(), stdin=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(_FETCH_S):
            stdout, stderr = await pipe.process.communicate()
    except TimeoutError:
        raise CommandFailed(f"{url[:200]} did not answer within {_FETCH_S:.0f} s") from None
    finally:
        await pipe.end()
    if pipe.process.returncode != 0:
        raise CommandFailed(f"cannot read {url[:200]}: {' '.join(stderr.decode(errors='replace').split())}")
    first, _, head = stdout.partition(b"\n")
    if datastore.no_decompress or compression_of(head) is None:
        told = size_in_head(head)
        if told is not None:
            return told
    length = json.loads(first)["length"]
    if not isinstance(length, int):
        raise ProtocolError(f"the server of {url[:200]} does not tell how long it is")
    return length
