"""Where the blocks of two files lie, compared: what is the same place, what is zeros, and what is nothing to go by."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.errors import Busy, Cancelled
from onelun.model import Extent
from onelun.nas.backends.file import changes
from onelun.nas.backends.file.changes import Stretch, differing
from onelun.nas.backends.file.extents import Mapped

KIB = 1 << 10
SIZE = 64 * KIB
UNWRITTEN, ENCODED, SHARED, LAST = 0x800, 0x8, 0x2000, 0x1


def compared(before, after):
    return list(differing(iter(before), iter(after)))


def test_the_same_place_is_no_change_and_another_one_is():
    assert compared([Stretch(64, 1000)], [Stretch(64, 1000)]) == []
    assert compared([Stretch(64, 1000)], [Stretch(64, 2000)]) == [Extent(0, 64, data=True)]


def test_zeros_in_both_are_no_change_and_in_the_later_one_no_data():
    assert compared([Stretch(64, None)], [Stretch(64, None)]) == []
    assert compared([Stretch(64, 0)], [Stretch(64, None)]) == [Extent(0, 64, data=False)]
    assert compared([Stretch(64, None)], [Stretch(64, 0)]) == [Extent(0, 64, data=True)]


def test_what_the_filesystem_is_not_sure_of_has_changed():
    vague = Stretch(64, 1000, sure=False)

    for before, after in ((vague, vague), (Stretch(64, 1000), vague), (vague, Stretch(64, 1000))):
        assert compared([before], [after]) == [Extent(0, 64, data=True)]


def test_pieces_of_different_lengths_are_compared_byte_by_byte():
    before = [Stretch(16, 1000), Stretch(32, None), Stretch(64, 1000)]
    after = [Stretch(8, 1000), Stretch(24, 5000), Stretch(40, 1000), Stretch(64, None)]

    assert compared(before, after) == [
        Extent(8, 8, data=True),
        Extent(16, 8, data=True),
        Extent(24, 8, data=True),
        Extent(40, 24, data=False),
    ]


@st.composite
def _stretches(draw):
    ends = sorted(draw(st.sets(st.integers(1, 63), max_size=10)) | {64})
    return [Stretch(end, draw(st.sampled_from([None, 0, 100]))) for end in ends]


@given(_stretches(), _stretches())
def test_every_byte_that_differs_is_told_and_no_other(before, after):
    def places(stretches):
        return [next(s.shift for s in stretches if byte < s.end) for byte in range(64)]

    told = [None] * 64
    for extent in compared(before, after):
        for byte in range(extent.offset, extent.end):
            assert told[byte] is None
            told[byte] = extent.data

    for byte, (one, other) in enumerate(zip(places(before), places(after), strict=True)):
        assert told[byte] == (None if one == other else other is not None)


class Files:
    """Two files, and where a filesystem says that their blocks lie: one answer a look, the last one for ever."""

    def __init__(self, directory, before, after, size=SIZE):
        self.opened = [os.open(directory / name, os.O_RDWR | os.O_CREAT) for name in ("before", "after")]
        for file in self.opened:
            os.ftruncate(file, size)
        self._answers = dict(zip(self.opened, (list(before), list(after)), strict=True))

    def mapped(self, file, *, sync):
        assert sync
        answers = self._answers[file]
        return iter(answers.pop(0) if len(answers) > 1 else answers[0])


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Compare two files by what a filesystem says of them."""
    made = []

    def act(before, after, *, size=SIZE, stop=None):
        files = Files(tmp_path, before, after)
        made.append(files)
        monkeypatch.setattr(changes, "mapped", files.mapped)
        return changes._compared(*files.opened, size, stop or threading.Event())

    yield act
    for files in made:
        for file in files.opened:
            os.close(file)


def test_holes_and_what_is_only_reserved_are_zeros(compare):
    before = [Mapped(0, 1 << 20, 32 * KIB, LAST)]
    after = [Mapped(8 * KIB, (1 << 20) + 8 * KIB, 8 * KIB, SHARED), Mapped(16 * KIB, 1 << 30, 16 * KIB, UNWRITTEN)]

    assert compare([before], [after]) == [
        Extent(0, 8 * KIB, data=False),
        Extent(16 * KIB, 16 * KIB, data=False),
    ]


def test_compressed_blocks_count_as_changed(compare):
    there = [Mapped(0, 1 << 20, SIZE, ENCODED | SHARED | LAST)]

    assert compare([there], [there]) == [Extent(0, SIZE, data=True)]


def test_what_lies_behind_the_end_of_the_shorter_one_was_zeros(compare):
    whole = [Mapped(0, 1 << 20, SIZE, LAST)]
    # What a filesystem has set aside behind the end of a file.
    reserved = [Mapped(0, 1 << 20, 2 * SIZE, LAST)]

    assert compare([reserved], [whole], size=4 * SIZE) == []


def test_a_base_whose_blocks_are_moved_meanwhile_is_compared_with_nothing(compare):
    here, there = [Mapped(0, 1 << 20, SIZE, LAST)], [Mapped(0, 1 << 21, SIZE, LAST)]

    with pytest.raises(Busy, match="moved blocks"):
        compare([here, here, there], [there])


def test_the_pieces_in_which_blocks_are_told_may_change_meanwhile(compare):
    whole = [Mapped(0, 1 << 20, SIZE, LAST)]
    cut = [Mapped(0, 1 << 20, 8 * KIB, SHARED), Mapped(8 * KIB, (1 << 20) + 8 * KIB, SIZE - 8 * KIB, LAST)]

    assert compare([whole, cut, cut], [cut]) == []


def test_who_gives_up_is_not_kept(compare):
    stop = threading.Event()
    stop.set()

    with pytest.raises(Cancelled):
        compare([[Mapped(0, 0, SIZE, LAST)]], [[]], stop=stop)
