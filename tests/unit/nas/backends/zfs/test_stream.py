"""Streams of zfs send, made by hand: where each kind of record says that something changed, and what follows it."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.errors import ProtocolError
from onelun.model import Extent
from onelun.nas.backends.zfs import stream as of
from onelun.nas.backends.zfs.stream import MAGIC, RECORD_BYTES, changes

KIB = 1 << 10
CONTENT, PROPERTIES = 1, 2
# What follows a record must never be read as one.
JUNK = b"\xff"


def record(order, kind, *fields, follows=0, payload=0):
    """A record of the kind; each field is an offset, a letter of struct, and a value."""
    head = bytearray(RECORD_BYTES)
    struct.pack_into(order + "II", head, 0, kind, payload)
    for at, letter, value in fields:
        struct.pack_into(order + letter, head, at, value)
    return bytes(head) + JUNK * follows


def begin(order, payload=0):
    return record(order, of.BEGIN, (8, "Q", MAGIC), (16, "Q", 0x480001), payload=payload, follows=payload)


def thing(order, number, bonus, raw_bonus=0):
    follows = raw_bonus or -(-bonus // 8) * 8
    return record(order, of.OBJECT, (8, "Q", number), (28, "I", bonus), (36, "I", raw_bonus), follows=follows)


def write(order, number, offset, length, compressed=None):
    fields = [(8, "Q", number), (24, "Q", offset), (32, "Q", length)]
    if compressed is not None:
        fields += [(50, "B", 15), (96, "Q", compressed)]
    return record(order, of.WRITE, *fields, follows=length if compressed is None else compressed)


def embedded(order, number, offset, length, packed):
    fields = ((8, "Q", number), (16, "Q", offset), (24, "Q", length), (48, "I", length), (52, "I", packed))
    return record(order, of.WRITE_EMBEDDED, *fields, follows=-(-packed // 8) * 8)


def ranged(order, kind, number, offset, length):
    return record(order, kind, (8, "Q", number), (16, "Q", offset), (24, "Q", length))


def free(order, number, offset, length):
    return ranged(order, of.FREE, number, offset, length)


def freeobjects(order, first, count):
    return record(order, of.FREEOBJECTS, (8, "Q", first), (16, "Q", count))


def spill(order, number, length, compressed=0):
    return record(
        order, of.SPILL, (8, "Q", number), (16, "Q", length), (40, "Q", compressed), follows=compressed or length
    )


def end(order):
    return record(order, of.END)


def told(*records):
    return list(changes(io.BytesIO(b"".join(records))))


@pytest.fixture(params=["<", ">"], ids=["little", "big"])
def order(request):
    """The byte order of the machine that sends."""
    return request.param


def test_a_stream_without_changes_tells_none(order):
    assert told(begin(order), freeobjects(order, 3, 29), end(order)) == []


def test_each_kind_of_record_is_followed_by_as_much_as_it_says(order):
    assert told(
        begin(order, payload=120),
        thing(order, CONTENT, 0),
        write(order, CONTENT, 0, 16 * KIB),
        write(order, CONTENT, 32 * KIB, 16 * KIB, compressed=4608),
        embedded(order, CONTENT, 64 * KIB, 16 * KIB, packed=61),
        free(order, CONTENT, 80 * KIB, 32 * KIB),
        thing(order, PROPERTIES, 11),
        thing(order, 3, 11, raw_bonus=320),
        spill(order, 3, 512),
        spill(order, 3, 16 * KIB, compressed=1024),
        write(order, PROPERTIES, 0, 512),
        record(order, of.OBJECT_RANGE, (8, "Q", 0), (16, "Q", 32)),
        ranged(order, of.WRITE_BYREF, CONTENT, 160 * KIB, 16 * KIB),
        ranged(order, of.REDACT, CONTENT, 192 * KIB, 16 * KIB),
        free(order, PROPERTIES, 512, 1 << 20),
        freeobjects(order, 4, 1 << 40),
        end(order),
    ) == [
        Extent(0, 16 * KIB, data=True),
        Extent(32 * KIB, 16 * KIB, data=True),
        Extent(64 * KIB, 16 * KIB, data=True),
        Extent(80 * KIB, 32 * KIB, data=False),
        Extent(160 * KIB, 16 * KIB, data=True),
        Extent(192 * KIB, 16 * KIB, data=True),
    ]


def test_a_stream_that_frees_the_content_itself_zeroes_all_of_it(order):
    (extent,) = told(begin(order), freeobjects(order, 0, 32), end(order))

    assert (extent.offset, extent.data) == (0, False)
    assert extent.end > 1 << 60


def test_freeing_to_the_end_has_a_length_beyond_all_ends(order):
    assert told(begin(order), free(order, CONTENT, KIB, (1 << 64) - 1), end(order)) == [
        Extent(KIB, (1 << 64) - 1, data=False)
    ]


@given(
    st.sampled_from("<>"),
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 2048), st.none() | st.integers(1, 2048)), max_size=20),
)
def test_any_row_of_writes_is_told_as_it_is(order, writes):
    records = [write(order, CONTENT, offset, length, compressed) for offset, length, compressed in writes]

    assert told(begin(order), *records, end(order)) == [Extent(offset, n, data=True) for offset, n, _ in writes]


@given(st.integers(0, 3 * RECORD_BYTES + 4096 - 1))
def test_a_stream_that_ends_too_early_is_nothing_to_rely_on(length):
    whole = begin("<") + write("<", CONTENT, 0, 4096) + end("<")

    with pytest.raises(ProtocolError):
        told(whole[:length])


@pytest.mark.parametrize(
    "records",
    [
        [bytes(RECORD_BYTES)],
        [b"cannot send: no such pool".ljust(RECORD_BYTES)],
        [end("<")],
        [begin("<"), record("<", 11), end("<")],
        [begin("<"), record("<", of.BEGIN, (8, "Q", MAGIC)), end("<")],
        [begin("<"), record("<", of.WRITE, (8, "Q", CONTENT), (32, "Q", 1 << 40)), end("<")],
        [begin(">"), end("<")],
    ],
)
def test_what_is_no_stream_is_not_passed_over(records):
    with pytest.raises(ProtocolError):
        told(*records)
