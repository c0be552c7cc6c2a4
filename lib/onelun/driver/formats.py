"""What an image file is, by looking at it: its compression, its format, its virtual size; and what is refused of it.

A foreign image is hostile until shown otherwise: qcow2 and vmdk may name other files, whose content would end up in the
image. So the format is told by the first bytes, qemu-img is told it explicitly, and whatever names another file is
refused. The layouts are those of QEMU's docs/interop/qcow2.txt and of VMware's "Virtual Disk Format 5.0".
"""

from __future__ import annotations

import json
import os
import struct
from enum import StrEnum
from typing import Any, NamedTuple

from onelun import command
from onelun.errors import CommandFailed, Rejected

GIB = 1 << 30
HEAD_BYTES = 1 << 16

_COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
# Formats that qemu-img could read and nobody asked for; taken as raw they would make a disk that does not boot.
_OTHERS = (
    (0, b"QFI\xfb\x00\x00\x00\x01", "qcow"),
    (0, b"QED\x00", "QED"),
    (0, b"conectix", "VHD"),
    (0, b"COWD", "VMware 3"),
    (0, b"# Disk DescriptorFile", "VMDK with its content in other files"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (64, b"\x7f\x10\xda\xbe", "VDI"),
)
_INFO_S = 20
_INFO_LIMITS = ("prlimit", "--as=2147483648", "--cpu=15")
_CHECK_LIMITS = ("prlimit", "--as=4294967296")
# qemu-img(1): 3 means clusters that nothing refers to, 63 that the format has no check.
_INTACT = (0, 3, 63)
_DESCRIPTOR_BYTES = 1 << 20


class Format(StrEnum):
    """The formats that are registered."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHDX = "vhdx"


class Inspected(NamedTuple):
    """What an image file holds: its format, and the size of the disk in it in bytes."""

    format: Format
    size_bytes: int


def compression_of(head: bytes) -> str | None:
    """The tool that unpacks a file with these first bytes; None when it is not compressed."""
    return next((tool for magic, tool in _COMPRESSIONS if head.startswith(magic)), None)


def format_of(head: bytes) -> Format:
    """The format of a file with these first bytes. Raises Rejected for one that is known and not supported."""
    for offset, magic, name in _OTHERS:
        if head[offset:].startswith(magic):
            raise Rejected(f"the image is in the format {name}, which is not supported: convert it to qcow2 or raw")
    if head.startswith(b"QFI\xfb"):
        return Format.QCOW2
    if head.startswith(b"KDMV"):
        return Format.VMDK
    return Format.VHDX if head.startswith(b"vhdxfile") else Format.RAW


def size_in_head(head: bytes) -> int | None:
    """The size of the disk as the first bytes tell it, for the formats that have it there."""
    found = format_of(head)
    if found is Format.QCOW2 and len(head) >= 32:
        return int(struct.unpack_from(">Q", head, 24)[0])
    if found is Format.VMDK and len(head) >= 20:
        return int(struct.unpack_from("<Q", head, 12)[0]) * 512
    return None


async def inspect(descriptor: int, max_gib: int) -> Inspected:
    """Tell what the open file holds.

    Raises Rejected for an image that names other files, is encrypted, damaged, empty, or larger than `max_gib`.
    """
    head = os.pread(descriptor, HEAD_BYTES, 0)
    found = format_of(head)
    if found is Format.RAW:
        size = os.fstat(descriptor).st_size
    else:
        if found is Format.QCOW2:
            _check_qcow2(head)
        elif found is Format.VMDK:
            _check_vmdk(descriptor, head)
        size = await _virtual_size(descriptor, found)
    check_size(size, max_gib)
    return Inspected(found, size)


async def check_intact(descriptor: int, found: Format, timeout_s: float) -> None:
    """Have qemu-img check the image's tables: what they have lost reads as zeros, without an error. Raises Rejected."""
    if found not in (Format.QCOW2, Format.VMDK):
        return
    argv = (*_CHECK_LIMITS, "qemu-img", "check", "-q", filename(descriptor, found))
    result = await command.run(*argv, timeout_s=timeout_s, called="qemu-img", pass_fds=(descriptor,), check=False)
    if result.status < 0:
        raise Rejected(f"the {found} image cannot be checked: {result.failure('qemu-img')}")
    if result.status not in _INTACT:
        said = " ".join(f"{result.stderr} {result.stdout}".split())
        raise Rejected(f"the {found} image is damaged, or was cut off: {said[:300] or 'qemu-img check finds errors'}")


def check_size(size_bytes: int, max_gib: int) -> None:
    """Raise Rejected for a disk that is empty or larger than the limit."""
    if size_bytes <= 0:
        raise Rejected("the image is empty")
    if size_bytes > max_gib * GIB:
        raise Rejected(
            f"the image is a disk of {size_bytes / GIB:.0f} GiB, more than the limit of {max_gib} GiB (frontend.max_image_gib)"
        )


def filename(descriptor: int, found: Format) -> str:
    """How qemu-img is told to open a file that it inherits as `descriptor`: in this format, and no other file beside it."""
    node: dict[str, Any] = {
        "driver": str(found),
        "file": {"driver": "file", "filename": f"/proc/self/fd/{descriptor}", "locking": "off"},
    }
    if found in (Format.QCOW2, Format.VMDK):
        node["backing"] = None
    return "json:" + json.dumps(node)


async def _virtual_size(descriptor: int, found: Format) -> int:
    argv = (*_INFO_LIMITS, "qemu-img", "info", "--output=json", filename(descriptor, found))
    try:
        result = await command.run(*argv, timeout_s=_INFO_S, called="qemu-img", pass_fds=(descriptor,))
        told = json.loads(result.stdout)
    except (CommandFailed, ValueError, RecursionError) as error:
        raise Rejected(f"the {found} image cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise Rejected(f"the {found} image cannot be read: qemu-img info tells nothing of it")
    # A second opinion to our own reading of the header.
    if told.get("backing-filename") or told.get("full-backing-filename"):
        raise Rejected(f"the {found} image has a backing file: flatten it with qemu-img convert first")
    if told.get("encrypted"):
        raise Rejected(f"the {found} image is encrypted")
    size = told.get("virtual-size")
    return size if isinstance(size, int) else 0


def _check_qcow2(head: bytes) -> None:
    if len(head) < 72:
        raise Rejected("the qcow2 image is cut off")
    version, backing = struct.unpack_from(">IQ", head, 4)
    encryption = struct.unpack_from(">I", head, 32)[0]
    features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 and len(head) >= 80 else 0
    if backing:
        raise Rejected("the qcow2 image has a backing file: flatten it with qemu-img convert first")
    if encryption:
        raise Rejected("the qcow2 image is encrypted")
    if features & 0b100:
        raise Rejected("the qcow2 image has its data in another file: flatten it with qemu-img convert first")
    if features & 0b10:
        raise Rejected("the qcow2 image is marked as corrupt: repair it with qemu-img check first")


def _check_vmdk(descriptor: int, head: bytes) -> None:
    if len(head) < 512:
        raise Rejected("the vmdk image is cut off")
    capacity, _, offset, sectors = struct.unpack_from("<QQQQ", head, 12)
    if not capacity:
        # QEMU would go on to read a list of other files.
        raise Rejected("the vmdk image has its content in other files: convert it to one file first")
    if sectors * 512 > _DESCRIPTOR_BYTES or offset > 1 << 40:
        raise Rejected("the vmdk image has a descriptor that cannot be")
    text = os.pread(descriptor, sectors * 512, offset * 512).split(b"\0", 1)[0].decode("latin-1").lower()
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    facts = {key.strip(): value.strip().strip('"') for key, value in values.items()}
    if facts.get("parentfilenamehint") or facts.get("parentcid", "ffffffff") != "ffffffff":
        raise Rejected("the vmdk image has a parent file: flatten it with qemu-img convert first")
    if text and facts.get("createtype") not in ("monolithicsparse", "streamoptimized"):
        raise Rejected("the vmdk image has its content in other files: convert it to one file first")
