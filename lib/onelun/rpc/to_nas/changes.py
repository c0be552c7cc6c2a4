"""The request to a NAS for what changed between two snapshots: what an increment of a backup has to hold."""

from __future__ import annotations

from onelun.rpc.schema import Reply
from onelun.rpc.to_nas.snapshots import OfVolume


class ListChanges(OfVolume, tag="list_changes", kw_only=True, frozen=True):
    """List which ranges of a volume may differ between its snapshots `since` and `until`, as its storage tells it.

    Nothing of the content is compared or sent. With `uuid`, another volume of that name is a conflict. It is a conflict, too,
    when the storage cannot tell, such as after a revert to what was before `since`: a full backup is needed then.
    """

    since: str
    until: str
    uuid: str | None = None


class ChangeList(Reply, tag="change_list", frozen=True):
    """`size_bytes` is the size of `until`; `body` has a triple for each range: offset, length (bytes) and whether it has data.

    They are sorted, do not overlap, and are 16384 at most. A range without data reads as zeros in `until`; one with data may
    be unchanged. What lies beyond the end of `since` counts as having been zeros.
    """

    uuid: str
    size_bytes: int
    body: list[tuple[int, int, bool]]
