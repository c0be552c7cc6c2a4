"""Content in memory: blocks by number. A block that was never written is absent and reads as zeros.

Blocks are values, so layers that were copied from one another share them until one is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onelun.model import Extent

BLOCK_BYTES = 4096

Blocks = dict[int, bytes]
"""One layer: a volume's content, or a snapshot's."""


def read(blocks: Blocks, offset: int, length: int) -> bytes:
    """`length` bytes from `offset`."""
    first = offset // BLOCK_BYTES
    count = (offset + length - 1) // BLOCK_BYTES - first + 1 if length else 0
    content = b"".join(blocks.get(first + number, bytes(BLOCK_BYTES)) for number in range(count))
    return content[offset - first * BLOCK_BYTES :][:length]


def written(blocks: Blocks, offset: int, content: bytes) -> Blocks:
    """What `blocks` become when `content` is written at `offset`; they themselves stay."""
    blocks = dict(blocks)
    done = 0
    while done < len(content):
        number, start = divmod(offset + done, BLOCK_BYTES)
        piece = content[done : done + BLOCK_BYTES - start]
        block = blocks.get(number, bytes(BLOCK_BYTES))
        blocks[number] = block[:start] + piece + block[start + len(piece) :]
        done += len(piece)
    return blocks


def discarded(blocks: Blocks, offset: int, length: int) -> Blocks:
    """What `blocks` become when the range is discarded; a block that is only partly in it stays."""
    whole = range(-(-offset // BLOCK_BYTES), (offset + length) // BLOCK_BYTES)
    return {number: block for number, block in blocks.items() if number not in whole}


def changed(before: Blocks, after: Blocks) -> Iterator[Extent]:
    """The blocks that are other ones in the later layer, or absent there."""
    for number in sorted(before.keys() | after.keys()):
        block = after.get(number)
        if block is not before.get(number):
            yield Extent(number * BLOCK_BYTES, BLOCK_BYTES, data=block is not None)


def bytes_of(layers: Iterable[Blocks]) -> int:
    """The bytes that all layers take together."""
    return len(_all(layers)) * BLOCK_BYTES


def bytes_alone(blocks: Blocks, others: Iterable[Blocks]) -> int:
    """The bytes that would be free without this layer."""
    return len(_all([blocks]) - _all(others)) * BLOCK_BYTES


def _all(layers: Iterable[Blocks]) -> set[int]:
    return {id(block) for layer in layers for block in layer.values()}
