"""Files of a backup: qcow2 written by QEMU's own tools from a disk that nobody changes meanwhile.

An increment is laid over the file before it by whoever restores it (`qemu-img rebase -u`), so a range that reads as zeros
must be explicit zeros in it: what is not allocated shows the older file. QEMU's copy-on-read does just that: what it reads
through an empty file is allocated there, and zeros become zero clusters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from onelun import command
from onelun.beneath import Owner
from onelun.deadline import Deadline
from onelun.errors import CommandFailed

MIB = 1 << 20
Progress = Callable[[int, int], None]
"""Called with what is done of how much: bytes, or hundredths of a percent."""

# QEMU reads ahead of nobody: some requests at a time hide the way to the NAS.
_READ = 4 * MIB
_AT_ONCE = 8
# Nothing is read for these; qemu-io takes less than 2 GiB at a time.
_ZEROS = 1 << 30
_CREATE_S = 60.0
_PERCENT = re.compile(rb"\(([0-9]{1,3}(?:\.[0-9]{1,6})?)/100%\)")
_DONE = re.compile(r"(?:read|wrote) ([0-9]{1,18})/([0-9]{1,18}) bytes at offset [0-9]+")


class Disk(NamedTuple):
    """A raw disk that QEMU opens: its driver's options, the objects that these name, the descriptors that both need."""

    node: dict[str, str]
    size_bytes: int
    objects: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()


async def write_full(disk: Disk, file: int, owner: Owner, deadline: Deadline, progress: Progress) -> None:
    """Write all of the disk into the open empty file; what reads as zeros takes no room. Raises CommandFailed."""
    seen = _Percent(progress)
    await command.run(
        *_as(owner),
        *("qemu-img", "convert", "-p", "-O", "qcow2", "-W"),
        *disk.objects,
        "--image-opts",
        _flat({"driver": "raw", **_inside("file", disk.node)}),
        _path(file),
        timeout_s=deadline.left_s(),
        called="qemu-img",
        pass_fds=(*disk.descriptors, file),
        on_output=seen,
    )


async def write_increment(
    disk: Disk,
    extents: Sequence[tuple[int, int, bool]],
    file: int,
    owner: Owner,
    deadline: Deadline,
    progress: Progress,
) -> None:
    """Write the ranges (offset, length, whether it has data) of the disk into the open empty file, and nothing else.

    Each is allocated there, in whole clusters; one without data is zeros without being read. Raises CommandFailed.
    """
    create = ("qemu-img", "create", "-q", "-f", "qcow2", _path(file), str(disk.size_bytes))
    await command.run(*_as(owner), *create, timeout_s=_CREATE_S, called="qemu-img", pass_fds=(file,))
    if not extents:
        return
    over = {
        "driver": "qcow2",
        **_inside("file", {"driver": "file", "filename": _path(file)}),
        **_inside("backing", {"driver": "raw", **_inside("file", disk.node)}),
    }
    steps = list(_steps(extents))
    seen = _Steps(sum(length for _, length in _ranges(extents)), progress)
    result = await command.run(
        *_as(owner),
        *("qemu-io", *disk.objects),
        timeout_s=deadline.left_s(),
        called="qemu-io",
        stdin="\n".join((f"open -C -t writeback -o {_flat(over)}", *steps, "quit", "")).encode(),
        pass_fds=(*disk.descriptors, file),
        on_output=seen,
    )
    # What it does at the same time as other things does not end in its status.
    wanted = sum(step != "aio_flush" for step in steps)
    if seen.count != wanted:
        said = " ".join((seen.complaint or result.stderr).split())[:300]
        raise CommandFailed(f"qemu-io did {seen.count} of {wanted} steps: {said or 'it gave no reason'}")


def needed_bytes(size_bytes: int, extents: Sequence[tuple[int, int, bool]]) -> int:
    """What an increment takes at most, in bytes: its data in whole clusters, and the tables of the whole disk."""
    cluster = 1 << 16
    data = sum(
        (-(-(offset + length) // cluster) - offset // cluster) * cluster for offset, length, has in extents if has
    )
    return data + size_bytes // 4096 + MIB


def _steps(extents: Sequence[tuple[int, int, bool]]) -> Iterator[str]:
    """The words for qemu-io; so many reads at a time."""
    reading = 0
    for offset, length, has_data in extents:
        if not has_data:
            yield from (f"write -z {at} {size}" for at, size in _pieces(offset, length, _ZEROS))
            continue
        for at, size in _pieces(offset, length, _READ):
            yield f"aio_read {at} {size}"
            reading += 1
            if reading % _AT_ONCE == 0:
                yield "aio_flush"
    yield "aio_flush"


def _ranges(extents: Sequence[tuple[int, int, bool]]) -> Iterator[tuple[int, int]]:
    return ((offset, length) for offset, length, _ in extents)


def _pieces(offset: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    for at in range(offset, offset + length, most):
        yield at, min(most, offset + length - at)


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _inside(name: str, node: dict[str, str]) -> dict[str, str]:
    return {f"{name}.{key}": value for key, value in node.items()}


def _flat(node: dict[str, str]) -> str:
    # QEMU's own way to write a comma that separates nothing.
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in node.items())


def _as(owner: Owner) -> tuple[str, ...]:
    """Run what follows as the owner of the file, and end it with this process."""
    become: tuple[str, ...] = ()
    if os.geteuid() == 0 and owner.uid != 0:
        become = (f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups")
    return ("setpriv", *become, "--pdeathsig", "KILL")


class _Percent:
    """Reads how far qemu-img is: `    (12.34/100%)`, with a carriage return."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, output: bytes) -> None:
        if found := _PERCENT.findall(output):
            self._progress(int(float(found[-1]) * 100), 10000)


class _Steps:
    """Counts what qemu-io says that it did, in full; the first line of another kind is its complaint."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.count = 0
        self.complaint = ""
        self._total = total
        self._done = 0
        self._progress = progress
        self._rest = ""

    def __call__(self, output: bytes) -> None:
        *lines, self._rest = (self._rest + output.decode(errors="replace")).split("\n")
        for line in lines:
            done = _DONE.search(line)
            if done is not None and done[1] == done[2]:
                self.count += 1
                self._done += int(done[1])
                self._progress(self._done, self._total)
            elif "failed" in line.lower() or done is not None:
                self.complaint = self.complaint or line.replace("qemu-io>", "")
