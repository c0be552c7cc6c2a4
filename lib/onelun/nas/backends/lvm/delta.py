"""What thin_delta prints: which chunks of two thin devices lie in other places of the pool, or in only one of the two.

Its elements are those of thin-provisioning-tools 0.9 and 1.x: `same`, `different`, `left_only`, `right_only`, each with
`begin` and `length` in chunks; `superblock` says how many sectors a chunk has.
"""

from __future__ import annotations

import re

from onelun.errors import ProtocolError
from onelun.model import Extent
from onelun.nas.backends.base import MAX_EXTENTS
from onelun.nas.backends.changes import merged

_SECTOR_BYTES = 512
_ELEMENT = re.compile(rb"<(/?[a-z_]+)([^<>]*)>")
_ATTRIBUTE = re.compile(rb'([a-z_]+)="([^"]*)"')
# Whether the later device has data there; a chunk that is the same in both is no change.
_DATA = {b"different": True, b"right_only": True, b"left_only": False}
# So many are kept until some are joined: a fragmented volume has millions.
_KEPT = 8 * MAX_EXTENTS


class Delta:
    """Takes what thin_delta prints piece by piece; `size_bytes` is the later device's size.

    Without `zeros`, a chunk that the later one has no more does not read as zeros: it shows what lies behind the device.
    """

    def __init__(self, size_bytes: int, *, zeros: bool = True) -> None:
        self._size_bytes = size_bytes
        self._zeros = zeros
        self._rest = b""
        self._chunk_bytes: int | None = None
        self._found: list[Extent] = []
        self._complete = False

    def feed(self, piece: bytes) -> None:
        """The next piece. Raises ProtocolError."""
        text = self._rest + piece
        end = 0
        for element in _ELEMENT.finditer(text):
            end = element.end()
            self._take(element[1], dict(_ATTRIBUTE.findall(element[2])))
        self._rest = text[end:]
        if len(self._found) > _KEPT:
            self._found = merged(self._found, self._size_bytes, limit=_KEPT // 2)

    def extents(self) -> list[Extent]:
        """What may differ. Raises ProtocolError when the end is missing."""
        if not self._complete:
            raise ProtocolError("what thin_delta printed has no end")
        return merged(self._found, self._size_bytes)

    def _take(self, name: bytes, said: dict[bytes, bytes]) -> None:
        try:
            if name == b"superblock":
                self._chunk_bytes = int(said[b"data_block_size"]) * _SECTOR_BYTES
            elif name in _DATA:
                assert self._chunk_bytes is not None
                begin, length = (int(said[key]) * self._chunk_bytes for key in (b"begin", b"length"))
                self._found.append(Extent(begin, length, _DATA[name] or not self._zeros))
            elif name == b"/superblock":
                self._complete = True
            elif name not in (b"same", b"diff", b"/diff"):
                raise ValueError(name)
        except (AssertionError, KeyError, ValueError):
            raise ProtocolError(f"thin_delta printed the element {name[:40].decode(errors='replace')!r}") from None
