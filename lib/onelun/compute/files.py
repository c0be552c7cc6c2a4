"""Files in VMs' directories that the agent itself reads and writes: a new one is aside until it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

from onelun.beneath import closing
from onelun.directory import Directory
from onelun.ending import to_its_end
from onelun.errors import OnelunError


@contextlib.asynccontextmanager
async def opened_file(directory: Directory, path: str, name: str) -> AsyncIterator[int]:
    """A descriptor of the file, for the body. Raises what `Directory.open_file` raises."""
    file = await _descriptor(directory.open_file, path, name)
    with closing(file):
        yield file


@contextlib.asynccontextmanager
async def new_file(directory: Directory, path: str, name: str, *, mode: int = 0o640) -> AsyncIterator[int]:
    """A descriptor of a new file, which gets its name, durably, when the body succeeds; otherwise nothing of it is left.

    Raises what `Directory.begin_file` and `Directory.end_file` raise.
    """
    try:
        file = await _descriptor(directory.begin_file, path, name)
        with closing(file):
            yield file
        await to_its_end(asyncio.to_thread(directory.end_file, path, name, mode), wait_s=None)
    except BaseException:
        # Why it failed is what is told, not why it could not be tidied.
        with contextlib.suppress(OnelunError):
            await to_its_end(asyncio.to_thread(directory.drop_file, path, name))
        raise


async def _descriptor(opening: Callable[..., int], *arguments: str) -> int:
    """The descriptor that `opening` returns in a thread; nobody's when the caller is gone by then, and closed."""
    task = asyncio.ensure_future(asyncio.to_thread(opening, *arguments))
    try:
        return await to_its_end(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: None if done.exception() else os.close(done.result()))
        raise
