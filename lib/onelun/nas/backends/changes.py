"""Lists of extents made small: any ranges in, few that do not overlap out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

from onelun.model import Extent
from onelun.nas.backends.base import MAX_EXTENTS

# So many are looked at together: a storage may tell of millions.
_BATCH = 65536


def merged(extents: Iterable[Extent], size_bytes: int, *, limit: int = MAX_EXTENTS) -> list[Extent]:
    """At most `limit` extents that cover these and end at `size_bytes`: sorted, not overlapping, none empty.

    Where some have data and others none, there is data: that is always right. What is too many is joined, those first that
    add the fewest bytes of data which none of them has.
    """
    found: list[Extent] = []
    rest = iter(extents)
    while batch := list(islice(rest, _BATCH)):
        # More than the limit are kept until the end: what comes may make some of them one.
        found = _fewer(_apart(_clipped([*found, *batch], size_bytes)), 2 * limit)
    return _fewer(found, limit)


def _clipped(extents: Iterable[Extent], size_bytes: int) -> Iterator[Extent]:
    for extent in extents:
        start, end = max(0, extent.offset), min(extent.end, size_bytes)
        if start < end:
            yield Extent(start, end - start, extent.data)


def _apart(extents: Iterable[Extent]) -> list[Extent]:
    """The same bytes by ranges that neither overlap nor touch one of their kind; data hides what has none."""
    zeros: list[tuple[int, int]] = []
    data: list[tuple[int, int]] = []
    for extent in sorted(extents, key=lambda extent: extent.offset):
        _extend(data if extent.data else zeros, extent.offset, extent.end)
    found = [Extent(start, end - start, data=True) for start, end in data]
    found += [Extent(start, end - start, data=False) for start, end in _without(zeros, data)]
    found.sort(key=lambda extent: extent.offset)
    return found


def _extend(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    if ranges and start <= ranges[-1][1]:
        ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
    else:
        ranges.append((start, end))


def _without(ranges: list[tuple[int, int]], hidden: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of the sorted `ranges` none of the sorted `hidden` covers."""
    at = 0
    for begin, end in ranges:
        start = begin
        while at < len(hidden) and hidden[at][1] <= start:
            at += 1
        for cut_start, cut_end in islice(hidden, at, None):
            if cut_start >= end:
                break
            if start < cut_start:
                yield start, cut_start
            start = max(start, cut_end)
        if start < end:
            yield start, end


def _fewer(extents: list[Extent], limit: int) -> list[Extent]:
    """At most `limit` of them, by joining neighbours into data."""
    surplus = len(extents) - limit
    if surplus <= 0:
        return extents
    costs = [_cost(one, other) for one, other in pairwise(extents)]
    closed = set(sorted(range(len(costs)), key=costs.__getitem__)[:surplus])
    found = extents[:1]
    for number, extent in enumerate(extents[1:]):
        if number in closed:
            found[-1] = Extent(found[-1].offset, extent.end - found[-1].offset, data=True)
        else:
            found.append(extent)
    # What has become data may touch other data.
    return _apart(found)


def _cost(one: Extent, other: Extent) -> int:
    """The bytes that become data when the two are joined."""
    gap = other.offset - one.end
    return gap + (0 if one.data else one.length) + (0 if other.data else other.length)
