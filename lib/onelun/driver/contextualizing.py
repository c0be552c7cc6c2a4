"""The action context: the CD from which a VM learns who it is, a regular file in its directory.

It is made on the front-end, of the files that oned names, and put where the VM runs; it appears there whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onelun import command
from onelun.driver.content import is_url
from onelun.driver.location import Disk, parse_disk
from onelun.driver.moving import LARGEST_DIRECTORY, MIB
from onelun.driver.places import place
from onelun.driver.running import Run
from onelun.driver.staging import download, in_thread
from onelun.driver.transfer import must_be_of
from onelun.errors import NotFound, Rejected
from onelun.rpc.message import Entry

# The first that is there: both take mkisofs's options.
_TOOLS = (("xorriso", "-as", "mkisofs"), ("genisoimage",))
_BUILD_S = 60.0
_LABEL = "CONTEXT"
_FOLDER = ".onelun-context-"
# A name on the CD: no path, and nothing that a terminal would act on.
_TARGET = re.compile(r"[^/\x00-\x1f\x7f]{1,128}")


class _Given(NamedTuple):
    """A file or directory for the CD, at `path` of the front-end, and its name there."""

    path: str
    target: str


async def context(run: Run) -> str:
    """Make the VM's context CD, or make it anew. Raises Rejected for a file that cannot be on it, NotFound for a missing one."""
    if len(run.arguments.rest) < 2:
        raise Rejected("the arguments should be: context FILE... HOST:DIR/disk.N, then VM and datastore from 3.6 on")
    *files, where = run.arguments.rest
    disk = parse_disk(where, run.config.datastores)
    must_be_of(run, disk)
    agent = run.context.hosts.agent(disk.host)
    with _folder(run.config.staging) as folder:
        given = [await _given(run, text, folder) for text in files]
        _check(given)
        image = f"{folder}/{disk.name}.iso"
        await _build(image, given)
        size = await _put(run, agent, disk, image)
    run.note(f"made the context CD {disk.path} on {disk.host}, {size} bytes")
    return ""


@contextlib.contextmanager
def _folder(staging: str) -> Iterator[str]:
    """A directory of one's own, locked as long as somebody works in it; what a killed one left goes first.

    Raises Rejected when none can be made.
    """
    for left in Path(staging).glob(f"{_FOLDER}*"):
        with _locked(str(left)) as is_ours:
            if is_ours:
                shutil.rmtree(left, ignore_errors=True)
    with contextlib.ExitStack() as locks:
        folder = _new_folder(staging)
        while not locks.enter_context(_locked(folder)) or not os.path.isdir(folder):
            # Whoever tidied up before it was locked took it for one that was left.
            folder = _new_folder(staging)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder(staging: str) -> str:
    try:
        return tempfile.mkdtemp(prefix=_FOLDER, dir=staging)
    except OSError as error:
        raise Rejected(f"cannot make the CD in {staging} (frontend.staging): {error.strerror}") from error


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[bool]:
    """Whether nobody else had it locked; it is then, until the body ends or the process does."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


async def _given(run: Run, text: str, folder: str) -> _Given:
    """What `text` names: a URL, a path, or path:target with its quotes, as oned writes a file of a file datastore."""
    if is_url(text):
        return await _downloaded(text, folder)
    path, target = text, ""
    if not os.path.lexists(path) and ":" in text:
        path, _, target = text.rpartition(":")
        target = target.strip("'\"")
    if not path.startswith("/") or "\0" in path:
        raise Rejected(f"{path[:200]!r} is no absolute path of a file for the CD")
    target = target or os.path.basename(path.rstrip("/"))
    if not _TARGET.fullmatch(target) or target in (".", ".."):
        raise Rejected(f"{target[:80]!r} is no name for a file on the CD")
    return _Given(path, target)


async def _downloaded(url: str, folder: str) -> _Given:
    target = url.partition("?")[0].rpartition("/")[2]
    if not _TARGET.fullmatch(target) or target in (".", ".."):
        raise Rejected(f"{url[:200]} ends in no name for a file on the CD")
    path = f"{folder}/{len(os.listdir(folder))}-{target}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        await download(url, descriptor, 1)
    finally:
        os.close(descriptor)
    return _Given(path, target)


def _check(given: list[_Given]) -> None:
    """Raise for what is not there, twice there, or more than a VM's directory may carry."""
    names = [file.target for file in given]
    for name in names:
        if names.count(name) > 1:
            raise Rejected(f"two files would be {name!r} on the CD: give one of them another name")
    size = sum(_bytes(file.path) for file in given)
    if size > LARGEST_DIRECTORY:
        raise Rejected(
            f"the context has {size / MIB:.0f} MiB of files; a VM's directory carries at most {LARGEST_DIRECTORY // MIB} MiB:"
            " give large files to the VM as an image"
        )


def _bytes(path: str) -> int:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            return sum(_bytes(entry.path) for entry in os.scandir(path))
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist on the front-end") from None
    except OSError as error:
        raise Rejected(f"{path} cannot be read by user {os.getuid()}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise Rejected(f"{path} is neither a file nor a directory")
    if not os.access(path, os.R_OK):
        raise Rejected(f"{path} cannot be read by user {os.getuid()}")
    return status.st_size


async def _build(image: str, given: list[_Given]) -> None:
    tool = next((tool for tool in _TOOLS if shutil.which(tool[0], path=command.SEARCH_PATH)), _TOOLS[0])
    # A graft point is /target=path, never an option; -f puts what a link leads to on the CD.
    grafts = [f"/{_escaped(file.target)}={_escaped(file.path)}" for file in given]
    options = ("-quiet", "-o", image, "-V", _LABEL, "-J", "-R", "-f", "-graft-points")
    await command.run(*tool, *options, *grafts, timeout_s=_BUILD_S, called=tool[0])


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("=", "\\=")


async def _put(run: Run, agent: str | None, disk: Disk, image: str) -> int:
    """Put the file where the VM is, piece by piece; its size in bytes."""
    there = place(run, agent)
    entry = Entry(name=disk.name, kind="file")
    offset = 0
    descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        while True:
            piece = await in_thread(os.pread, descriptor, MIB, offset)
            last = offset + len(piece) >= size
            await there.put(disk.directory, entry, offset=offset, data=piece, last=last)
            offset += len(piece)
            if last:
                return size
    finally:
        os.close(descriptor)
