"""Which state of a volume group a disk holds, read from bytes as LVM 2.03 writes them."""

import json
import os
import struct

import pytest

from onelun.nas.backends.lvm import seqno

GROUP = "WguBdI-Y9sK-7Yeg-q7QI-lnkf-ll2c-5q3Z8T"
START, SIZE = 4096, 8192
DISK_BYTES = 64 * 1024
MARK = 4_000_000_001


@pytest.fixture(autouse=True)
def _anywhere(monkeypatch):
    """Not every filesystem that tests run on takes O_DIRECT."""
    monkeypatch.setattr(os, "O_DIRECT", 0)


def text_of(number, group=GROUP):
    return f'vg0 {{\nid = "{group}"\nseqno = {number}\nformat = "lvm2"\n'.encode() + b"# and more\n" * 90


def header(offset, length, *, start=START, flags=0):
    body = b" LVM2 x[5A%r0N*>" + struct.pack("<IQQ", 1, start, SIZE) + struct.pack("<QQII", offset, length, MARK, flags)
    body = body.ljust(508, b"\0")
    return struct.pack("<I", seqno.checked(body)) + body


def disk(tmp_path, *areas, label_sector=1, name="disk"):
    """A disk with these areas: (where it starts, its header, where its text is, the text)."""
    image = bytearray(DISK_BYTES)
    places = struct.pack("<QQ", 1 << 20, 0) + bytes(16)
    places += b"".join(struct.pack("<QQ", start, SIZE) for start, *_ in areas) + bytes(16)
    behind = (struct.pack("<I8s", 32, b"LVM2 001") + b"x" * 32 + struct.pack("<Q", DISK_BYTES) + places).ljust(
        492, b"\0"
    )
    label = struct.pack("<8sQI", b"LABELONE", label_sector, seqno.checked(behind)) + behind
    image[label_sector * 512 : label_sector * 512 + 512] = label
    for start, head, offset, text in areas:
        image[start : start + 512] = head
        for at, byte in enumerate(text):
            # A ring, behind the header.
            place = offset + at
            image[start + (place if place < SIZE else place - SIZE + 512)] = byte
    path = tmp_path / name
    path.write_bytes(image)
    return str(path)


def area(number, *, offset=512, start=START, flags=0):
    text = text_of(number)
    return start, header(offset, len(text), start=start, flags=flags), offset, text


@pytest.mark.parametrize("sector", range(4))
def test_a_disk_tells_its_group_and_the_number_of_its_state(tmp_path, sector):
    assert json.loads(seqno.call(disk(tmp_path, area(52), label_sector=sector))) == [[GROUP, 52, MARK]]


@pytest.mark.parametrize("offset", [513, 4096, 8100, SIZE - 1])
def test_a_copy_may_begin_anywhere_in_the_ring(tmp_path, offset):
    assert json.loads(seqno.call(disk(tmp_path, area(4_000_000_000, offset=offset)))) == [[GROUP, 4_000_000_000, MARK]]


def test_each_area_of_each_disk_tells_it_but_those_that_lvm_passes_over(tmp_path):
    one = disk(tmp_path, area(52), area(51, start=32768), name="one")
    other = disk(tmp_path, area(50, flags=seqno.IGNORED), name="other")
    bare = disk(tmp_path, name="bare")

    assert json.loads(seqno.call(one, other, bare)) == [[GROUP, 52, MARK], [GROUP, 51, MARK]]


def test_an_area_of_no_group_is_none_of_the_groups(tmp_path):
    assert json.loads(seqno.call(disk(tmp_path, (START, header(0, 0), 512, b"")))) == [["", 0, MARK]]


@pytest.mark.parametrize(
    "damaged",
    [
        (START, header(512, 1000)[:-1] + b"!", 512, text_of(52)),
        (START, header(512, 1000, start=START + 512), 512, text_of(52)),
        (START, header(512, 1000), 512, b"vg0 {\nseqno = 52\n"),
        (START, bytes(512), 512, text_of(52)),
    ],
    ids=["checksum", "elsewhere", "text", "nothing"],
)
def test_what_lvm_did_not_write_is_an_error(tmp_path, damaged):
    with pytest.raises(ValueError):
        seqno.call(disk(tmp_path, damaged))


@pytest.mark.parametrize("length", [0, 1024, 4096, 5000])
def test_a_disk_without_a_label_or_that_ends_is_an_error(tmp_path, length):
    whole, short = disk(tmp_path, area(52)), tmp_path / "short"
    with open(whole, "rb") as file:
        short.write_bytes(file.read(length))

    with pytest.raises(ValueError):
        seqno.call(str(short))
    (tmp_path / "empty").write_bytes(bytes(DISK_BYTES))
    with pytest.raises(ValueError):
        seqno.call(str(tmp_path / "empty"))


def test_a_disk_that_is_gone_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        seqno.call(str(tmp_path / "none"))
