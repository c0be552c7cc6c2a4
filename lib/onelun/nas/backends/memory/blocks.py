"""Content in memory: blocks by number. A block that was never written is absent and reads as zeros.

Blocks are values, so layers that were copied from one another share them until one is written.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def bytes_of(layers: Iterable[Blocks]) -> int:
    """The bytes that all layers take together."""
    return len(_all(layers)) * BLOCK_BYTES


def bytes_alone(blocks: Blocks, others: Iterable[Blocks]) -> int:
    """The bytes that would be free without this layer."""
    return len(_all([blocks]) - _all(others)) * BLOCK_BYTES


def _all(layers: Iterable[Blocks]) -> set[int]:
    return {id(block) for layer in layers for block in layer.values()}
