"""The sizes that requests ask for."""

from __future__ import annotations

from onelun.errors import Rejected
from onelun.rpc.to_nas.mapping import MapZvol

GIB = 1 << 30


def size_bytes(request: MapZvol) -> int | None:
    """The size that a map_zvol asks for, in bytes; None when it names none. Raises Rejected when it is no size."""
    if request.size_bytes is not None:
        size = request.size_bytes
    elif request.size is None:
        return None
    else:
        try:
            size = int(float(request.size) * GIB)
        except (ValueError, OverflowError):
            raise Rejected(f"size {str(request.size)[:40]!r} is no number of GiB") from None
    return checked_size(size)


def checked_size(size: int) -> int:
    """`size` rounded up to whole sectors; Rejected unless it is 1 byte to 1 PiB."""
    if not 0 < size <= 1 << 50:
        raise Rejected(f"a volume of {size} bytes cannot be: the size must be between 1 byte and 1 PiB")
    return -(-size // 512) * 512
