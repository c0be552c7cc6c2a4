"""What thin_delta prints, read piece by piece."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.errors import ProtocolError
from onelun.model import Extent
from onelun.nas.backends.lvm.delta import Delta

KIB = 1 << 10
SIZE = 100 * 64 * KIB
# As 0.9.0 prints it of a pool with chunks of 64 KiB.
PRINTED = b"""\
<superblock uuid="" time="1" transaction="3" data_block_size="128" nr_data_blocks="2048" metadata_snap="358">
  <diff left="1" right="2">
    <same begin="0" length="16"/>
    <right_only begin="16" length="1"/>
    <left_only begin="20" length="4"/>
    <different begin="24" length="2"/>
    <same begin="26" length="4"/>
    <right_only begin="99" length="2"/>
  </diff>
</superblock>
"""
CHUNK = 64 * KIB
TOLD = [
    Extent(16 * CHUNK, CHUNK, data=True),
    Extent(20 * CHUNK, 4 * CHUNK, data=False),
    Extent(24 * CHUNK, 2 * CHUNK, data=True),
    Extent(99 * CHUNK, CHUNK, data=True),
]


def told(*pieces):
    delta = Delta(SIZE)
    for piece in pieces:
        delta.feed(piece)
    return delta.extents()


def test_what_lies_elsewhere_is_data_and_what_is_gone_reads_as_zeros():
    assert told(PRINTED) == TOLD


def test_what_is_gone_is_data_where_something_else_shows_through():
    delta = Delta(SIZE, zeros=False)
    delta.feed(PRINTED)

    assert delta.extents() == [Extent(extent.offset, extent.length, data=True) for extent in TOLD[:1]] + [
        Extent(20 * CHUNK, 6 * CHUNK, data=True),
        TOLD[3],
    ]


def test_as_later_releases_write_it():
    later = PRINTED.replace(b'"/>', b'" />').replace(b"superblock uuid", b'superblock version="2" uuid')

    assert told(b'<?xml version="1.0"?>\n' + later) == TOLD


@given(st.lists(st.integers(0, len(PRINTED)), max_size=12).map(sorted))
def test_it_may_come_in_any_pieces(cuts):
    edges = [0, *cuts, len(PRINTED)]

    assert told(*(PRINTED[start:end] for start, end in itertools.pairwise(edges))) == TOLD


@pytest.mark.parametrize("end", [0, 40, len(PRINTED) // 2, len(PRINTED) - 5])
def test_what_has_no_end_is_nothing_to_rely_on(end):
    with pytest.raises(ProtocolError):
        told(PRINTED[:end])


@pytest.mark.parametrize(
    "wrong",
    [
        PRINTED.replace(b"right_only", b"right_and_left"),
        PRINTED.replace(b'begin="16"', b'begin="x"'),
        PRINTED.replace(b' length="1"', b""),
        PRINTED.replace(b"data_block_size", b"block_size"),
        PRINTED.replace(b"<superblock", b"<diff"),
    ],
)
def test_what_is_not_understood_is_not_passed_over(wrong):
    with pytest.raises(ProtocolError):
        told(wrong)


def test_a_fragmented_volume_is_told_by_few_ranges():
    count = 300_000
    lines = (b'<different begin="%d" length="1"/>\n' % (2 * n) for n in range(count))
    delta = Delta(2 * count * CHUNK)
    delta.feed(b'<superblock data_block_size="128">\n')
    for line in lines:
        delta.feed(line)
    delta.feed(b"</superblock>\n")

    extents = delta.extents()

    assert len(extents) <= 16384
    assert (extents[0].offset, extents[-1].end) == (0, (2 * count - 1) * CHUNK)
