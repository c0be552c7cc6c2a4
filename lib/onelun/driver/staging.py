"""Files in between: what is downloaded or unpacked is staged in a file without a name, gone with the process that has it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

from onelun import command
from onelun.driver import fetch
from onelun.ending import to_its_end
from onelun.errors import CommandFailed, OutOfSpace, Rejected

GIB = 1 << 30
PIECE = 1 << 20
_ZEROS = bytes(PIECE)
# A hostile archive may ask for any amount of memory to be unpacked.
_LIMITS = ("prlimit", "--as=2147483648")
# The module is a program too, of the standard library alone.
READER = (sys.executable, "-IS", fetch.__file__)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")

_T = TypeVar("_T")


@contextlib.contextmanager
def staged(directory: str) -> Iterator[int]:
    """A descriptor of a new file in `directory` that has no name. Raises Rejected when none can be made there."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise Rejected(f"cannot stage an image in {directory} (frontend.staging): {error.strerror}") from error
        # NFS has no O_TMPFILE.
        descriptor, path = tempfile.mkstemp(prefix=".onelun-", dir=directory)
        os.unlink(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def in_thread(function: Callable[..., _T], descriptor: int, *arguments: object) -> _T:
    """Call `function` in a thread, with a descriptor of its own of that file.

    Whoever is cancelled waits for it no longer than for any step (STUCK_S), and may close the file: a disk may never answer.
    """
    own = os.dup(descriptor)

    def call() -> _T:
        try:
            return function(own, *arguments)
        finally:
            os.close(own)

    return await to_its_end(asyncio.to_thread(call))


def proxies() -> dict[str, str]:
    """The proxies of the frontend's own environment; nothing else of it is passed on."""
    return {name: value for name in _PROXIES if (value := os.environ.get(name))}


async def download(url: str, descriptor: int, limit_gib: int) -> None:
    """Write what the URL holds into the file. Raises CommandFailed with the reason, Rejected beyond the limit."""
    pipe = await command.pipe(*READER, url, env=proxies(), stdin=asyncio.subprocess.DEVNULL)
    await fill_from(pipe, descriptor, limit_gib, f"cannot read {url[:200]}")


async def fill_from(pipe: command.Pipe, descriptor: int, limit_gib: int, what: str) -> None:
    """Write what the command says into the file, and end it. Raises CommandFailed, beginning with `what`, and Rejected."""
    try:
        await _fill(_pieces(pipe), descriptor, limit_gib)
        await _check_end(pipe, what)
    finally:
        await _end(pipe)


async def unpack(tool: str, packed: int, descriptor: int, limit_gib: int) -> None:
    """Unpack the open file `packed` by `tool` into the other. Raises Rejected for a damaged one, or beyond the limit."""
    os.lseek(packed, 0, os.SEEK_SET)
    pipe = await command.pipe(*_LIMITS, tool, "-d", "-c", stdin=packed)
    try:
        await _fill(_pieces(pipe), descriptor, limit_gib)
        await _check_end(pipe, f"the image cannot be unpacked by {tool}")
    except CommandFailed as error:
        raise Rejected(error.sentence) from error
    finally:
        await _end(pipe)


async def unpacked(tool: str, packed: int) -> AsyncGenerator[bytes, None]:
    """The content of the open file `packed`, piece by piece, without keeping any. Raises Rejected for a damaged one."""
    os.lseek(packed, 0, os.SEEK_SET)
    pipe = await command.pipe(*_LIMITS, tool, "-d", "-c", stdin=packed)
    try:
        async for piece in _pieces(pipe):
            yield piece
        await _check_end(pipe, f"the image cannot be unpacked by {tool}")
    except CommandFailed as error:
        raise Rejected(error.sentence) from error
    finally:
        await _end(pipe)


async def checksum(descriptor: int, algorithm: str) -> str:
    """The checksum of the open file, in hexadecimal."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    offset = 0

    def some(file: int) -> int:
        done = 0
        while done < 64 * PIECE and (piece := os.pread(file, PIECE, offset + done)):
            digest.update(piece)
            done += len(piece)
        return done

    while done := await in_thread(some, descriptor):
        offset += done
    return digest.hexdigest()


async def _end(pipe: command.Pipe) -> None:
    """End the command, and read what it left in its pipes: nothing else closes those of one that was killed."""
    await pipe.end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await pipe.process.communicate()


async def _pieces(pipe: command.Pipe) -> AsyncIterator[bytes]:
    """What it writes, in pieces of 1 MiB, the last one shorter."""
    assert pipe.process.stdout is not None
    held = bytearray()
    while piece := await pipe.process.stdout.read(PIECE):
        held += piece
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    if held:
        yield bytes(held)


async def _fill(pieces: AsyncIterator[bytes], descriptor: int, limit_gib: int) -> None:
    size = 0
    async for piece in pieces:
        if size + len(piece) > limit_gib * GIB:
            raise Rejected(f"the image is larger than the limit of {limit_gib} GiB (frontend.max_image_gib)")
        # Holes are kept: what an image does not use takes no room.
        if piece != _ZEROS[: len(piece)]:
            try:
                await in_thread(_write, descriptor, piece, size)
            except OSError as error:
                raise OutOfSpace(f"the image cannot be staged (frontend.staging): {error.strerror}") from error
        size += len(piece)
    await in_thread(_end_at, descriptor, size)


def _end_at(descriptor: int, size: int) -> None:
    os.ftruncate(descriptor, size)


def _write(descriptor: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


async def _check_end(pipe: command.Pipe, what: str) -> None:
    assert pipe.process.stderr is not None
    said = " ".join((await pipe.process.stderr.read(4096)).decode(errors="replace").split())
    status = await pipe.process.wait()
    if status != 0:
        silent = f"it was killed by signal {-status}" if status < 0 else "it gave no reason"
        raise CommandFailed(f"{what}: {said[-300:] or silent}")
