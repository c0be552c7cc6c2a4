"""What a stream of `zfs send -i` says of a zvol's content, by the heads of its records; the content itself is passed over.

The format is OpenZFS' (include/sys/zfs_ioctl.h, `dmu_replay_record_t`; what follows a record: module/zfs/dmu_send.c): records
of 312 bytes in the byte order of the machine that sends, some followed by content.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from onelun.errors import ProtocolError
from onelun.model import Extent

RECORD_BYTES = 312
MAGIC = 0x2F5BACBAC
(
    BEGIN,
    OBJECT,
    FREEOBJECTS,
    WRITE,
    FREE,
    END,
    WRITE_BYREF,
    SPILL,
    WRITE_EMBEDDED,
    OBJECT_RANGE,
    REDACT,
) = range(11)
# sys/zvol.h, ZVOL_OBJ: the object that is a zvol's content; its properties are another one.
_CONTENT = 1
_WHOLE = 1 << 64
# No block is larger than 16 MiB, SPA_MAXBLOCKSIZE; what says so is no record.
_LARGEST_BYTES = 1 << 25


class _Record:
    """The head of one record, in the stream's byte order."""

    def __init__(self, order: str, head: bytes) -> None:
        self._order = order
        self._head = head
        self.kind = self.u32(0)

    def u8(self, at: int) -> int:
        return self._head[at]

    def u32(self, at: int) -> int:
        return int(struct.unpack_from(self._order + "I", self._head, at)[0])

    def u64(self, at: int) -> int:
        return int(struct.unpack_from(self._order + "Q", self._head, at)[0])


def changes(stream: BinaryIO) -> Iterator[Extent]:
    """The ranges that the stream writes and frees, in its order, some beyond the end of the zvol.

    Raises ProtocolError for what is no stream, or ends too early.
    """
    head = _exactly(stream, RECORD_BYTES)
    order = next((order for order in "<>" if struct.unpack_from(order + "I4xQ", head) == (BEGIN, MAGIC)), None)
    if order is None:
        raise ProtocolError("what zfs send printed does not begin as a stream does")
    _pass_over(stream, _Record(order, head).u32(4))
    while True:
        record = _Record(order, _exactly(stream, RECORD_BYTES))
        if record.kind == END:
            return
        told = _KINDS.get(record.kind)
        if told is None:
            raise ProtocolError(f"zfs send printed a record of the kind {record.kind}, which nobody knows")
        content_bytes, extent = told(record)
        _pass_over(stream, content_bytes)
        if extent is not None:
            yield extent


def _object(record: _Record) -> tuple[int, Extent | None]:
    return record.u32(36) or _by_eight(record.u32(28)), None


def _freeobjects(record: _Record) -> tuple[int, Extent | None]:
    first, count = record.u64(8), record.u64(16)
    return 0, Extent(0, _WHOLE, data=False) if first <= _CONTENT < first + count else None


def _write(record: _Record) -> tuple[int, Extent | None]:
    logical = record.u64(32)
    return record.u64(96) if record.u8(50) else logical, _of_content(record, record.u64(24), logical, data=True)


def _free(record: _Record) -> tuple[int, Extent | None]:
    return 0, _of_content(record, record.u64(16), record.u64(24), data=False)


def _write_embedded(record: _Record) -> tuple[int, Extent | None]:
    return _by_eight(record.u32(52)), _of_content(record, record.u64(16), record.u64(24), data=True)


def _spill(record: _Record) -> tuple[int, Extent | None]:
    return record.u64(40) or record.u64(16), None


def _elsewhere(record: _Record) -> tuple[int, Extent | None]:
    """Content that is the same as another range's, or was left out of the stream: changed in any case."""
    return 0, _of_content(record, record.u64(16), record.u64(24), data=True)


def _nothing(record: _Record) -> tuple[int, Extent | None]:
    return 0, None


def _of_content(record: _Record, offset: int, length: int, *, data: bool) -> Extent | None:
    return Extent(offset, length, data) if record.u64(8) == _CONTENT else None


# What follows a record, in bytes, and what it says of the content.
_KINDS: dict[int, Callable[[_Record], tuple[int, Extent | None]]] = {
    OBJECT: _object,
    FREEOBJECTS: _freeobjects,
    WRITE: _write,
    FREE: _free,
    WRITE_BYREF: _elsewhere,
    SPILL: _spill,
    WRITE_EMBEDDED: _write_embedded,
    OBJECT_RANGE: _nothing,
    REDACT: _elsewhere,
}


def _by_eight(length: int) -> int:
    return -(-length // 8) * 8


def _pass_over(stream: BinaryIO, length: int) -> None:
    if length > _LARGEST_BYTES:
        raise ProtocolError(f"a record of zfs send says that {length} bytes follow: no block has so many")
    _exactly(stream, length)


def _exactly(stream: BinaryIO, length: int) -> bytes:
    read = stream.read(length) if length else b""
    if len(read) != length:
        raise ProtocolError("what zfs send printed ended in the middle")
    return read
