"""Lists of extents made small, for any ranges that a storage may tell of."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from onelun.model import Extent
from onelun.nas.backends.changes import merged

_SIZE = 240
_EXTENTS = st.lists(st.builds(Extent, st.integers(0, 260), st.integers(0, 60), st.booleans()), max_size=40)
_LIMITS = st.integers(1, 12)


def told(extents):
    """What is said of each byte of the volume: changed with data, without, or nothing."""
    said = [None] * _SIZE
    for extent in sorted(extents, key=lambda extent: extent.data):
        for byte in range(min(extent.offset, _SIZE), min(extent.end, _SIZE)):
            said[byte] = extent.data
    return said


@given(_EXTENTS, _LIMITS)
def test_extents_are_sorted_apart_within_the_volume_and_few(extents, limit):
    found = merged(extents, _SIZE, limit=limit)

    assert len(found) <= limit
    assert all(extent.length > 0 for extent in found)
    assert all(one.end <= other.offset for one, other in itertools.pairwise(found))
    assert not found or (found[0].offset >= 0 and found[-1].end <= _SIZE)


@given(_EXTENTS, _LIMITS)
def test_every_byte_that_was_told_is_covered_and_zeros_are_told_of_zeros_alone(extents, limit):
    for before, after in zip(told(extents), told(merged(extents, _SIZE, limit=limit)), strict=True):
        if before is not None:
            assert after is not None
        if after is False or before is True:
            assert after is before


@given(_EXTENTS)
def test_nothing_is_added_while_there_are_few(extents):
    assert told(merged(extents, _SIZE)) == told(extents)


@given(_EXTENTS, st.randoms(use_true_random=False))
def test_the_order_in_which_they_are_told_does_not_matter(extents, random):
    shuffled = random.sample(extents, len(extents))

    assert merged(extents, _SIZE) == merged(shuffled, _SIZE)


@given(_EXTENTS, _LIMITS)
def test_merging_again_changes_nothing(extents, limit):
    found = merged(extents, _SIZE, limit=limit)

    assert merged(found, _SIZE, limit=limit) == found


def test_the_nearest_are_joined_first():
    apart = [Extent(0, 10, data=True), Extent(12, 10, data=True), Extent(100, 10, data=True)]

    assert merged(apart, _SIZE, limit=2) == [Extent(0, 22, data=True), Extent(100, 10, data=True)]


def test_a_long_range_of_zeros_stays_one_when_others_are_to_be_joined():
    extents = [
        Extent(0, 8, data=True),
        Extent(8, 150, data=False),
        Extent(160, 8, data=True),
        Extent(176, 8, data=True),
    ]

    assert merged(extents, _SIZE, limit=3) == [*extents[:2], Extent(160, 24, data=True)]


def test_millions_are_taken_as_they_come():
    count = 1_000_000

    found = merged((Extent(2 * n, 1, data=True) for n in range(count)), 2 * count)

    assert len(found) <= 16384
    assert (found[0].offset, found[-1].end) == (0, 2 * count - 1)
