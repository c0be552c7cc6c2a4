"""Which state of its metadata each disk of a volume group holds, read without LVM; its process is one of `calls.Calls`.

A disk has a label in one of its first four sectors, which tells where its metadata areas are. An area begins with a header of
512 bytes, whose first entry is the copy that was last committed; the copies follow it in a ring. A copy is text, and begins
with the group's UUID and its number, one higher with each commit (lib/format_text/layout.h, lib/label/label.h of LVM 2.03).
"""

import json
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator

SECTOR = 512
# What O_DIRECT reads at once, on disks with sectors of 4096 bytes too.
BLOCK = 4096
LABEL_SECTORS = 4
# id, sector, checksum, offset of what follows, type
LABEL = struct.Struct("<8sQII8s")
# A disk's UUID and size, before the lists of (offset, size) of data areas and of metadata areas, each ended by a zero.
DISK = struct.Struct("<32sQ")
PLACE = struct.Struct("<QQ")
# checksum, magic, version, start, size
HEADER = struct.Struct("<I16sIQQ")
# offset, size, checksum, flags
COPY = struct.Struct("<QQII")
MAGIC = b" LVM2 x[5A%r0N*>"
IGNORED = 1
# What LVM begins a checksum with.
INITIAL = 0xF597A6CF
BEGINNING = re.compile(rb'[A-Za-z0-9+_.-]+ \{\nid = "(?P<group>[A-Za-z0-9-]{38})"\nseqno = (?P<number>[0-9]{1,10})\n')


def call(*devices: str) -> str:
    """What the metadata areas in use on these disks hold, as JSON: [UUID, NUMBER, CHECKSUM] of each.

    Raises OSError, ValueError.
    """
    return json.dumps([held for device in devices for held in states(device)])


def states(device: str) -> Iterator[tuple[str, int, int]]:
    """The state that each area of the disk holds. Raises ValueError for what LVM did not write."""
    # Past the page cache, which keeps what another host has overwritten.
    descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        for start, size in areas(descriptor):
            header = read(descriptor, start, SECTOR)
            checksum, magic, _, own_start, _ = HEADER.unpack_from(header)
            if magic != MAGIC or own_start != start or checksum != checked(header[4:]):
                raise ValueError(f"{device} has no metadata area at {start}")
            offset, length, text_checksum, flags = COPY.unpack_from(header, HEADER.size)
            if flags & IGNORED:
                continue
            group, number = beginning(descriptor, start, size, offset) if offset and length else ("", 0)
            yield group, number, text_checksum
    finally:
        os.close(descriptor)


def areas(descriptor: int) -> list[tuple[int, int]]:
    """Where the disk's metadata areas are, and how long. Raises ValueError without a label of LVM's."""
    first = read(descriptor, 0, LABEL_SECTORS * SECTOR)
    for sector in range(LABEL_SECTORS):
        name, number, checksum, offset, kind = LABEL.unpack_from(first, sector * SECTOR)
        label = first[sector * SECTOR : (sector + 1) * SECTOR]
        if (name, number, kind) == (b"LABELONE", sector, b"LVM2 001") and checksum == checked(label[20:]):
            at = places_end(label, offset + DISK.size)[1]
            return places_end(label, at)[0]
    raise ValueError("the disk has no label of LVM's")


def places_end(label: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    """The places of a list that begins there, and where it ends. Raises struct.error (no ValueError) when it does not end."""
    found = []
    while (place := PLACE.unpack_from(label, at))[0]:
        found.append(place)
        at += PLACE.size
    return found, at + PLACE.size


def beginning(descriptor: int, start: int, size: int, offset: int) -> tuple[str, int]:
    """What the copy at that offset of the area begins with. Raises ValueError."""
    text = read(descriptor, start + offset, min(SECTOR, size - offset))
    # The ring goes on behind the header.
    text += read(descriptor, start + SECTOR, SECTOR - len(text)) if len(text) < SECTOR else b""
    match = BEGINNING.match(text)
    if match is None:
        raise ValueError("a copy of the metadata begins otherwise than LVM's")
    return match["group"].decode(), int(match["number"])


def read(descriptor: int, at: int, length: int) -> bytes:
    """So many bytes of the disk. Raises ValueError when it ends before."""
    first = at // BLOCK * BLOCK
    last = -(-(at + length) // BLOCK) * BLOCK
    with mmap.mmap(-1, last - first) as room:
        if os.preadv(descriptor, [room], first) < at + length - first:
            raise ValueError("the disk ends in its metadata")
        return room[at - first : at - first + length]


def checked(data: bytes) -> int:
    """LVM's checksum: CRC-32 without the inversions."""
    return zlib.crc32(data, INITIAL ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
